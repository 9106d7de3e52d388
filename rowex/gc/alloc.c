/*
 * alloc.c -- free lists, the bump extent, reserving for an operation.
 *
 * A cell is looked for in its exact class, then split from a larger free cell (what the
 * growth of nodes leaves behind becomes leaves: bytes per key matter), then taken from
 * the bump extent.  A remainder of 8 bytes cannot be a cell, so such a pair does not fit.
 *
 * Each transition is written so that a reaper (recover.c) can tell how far it came; the
 * argument stands at each function.  Lists of a file that was closed cleanly come from
 * the disk: a cell that is taken from a list is checked, links are only followed when
 * they are taken.
 */
#include "cells.h"

/* Heads that a list of cells of several sizes is searched through: more than an operation
 * can push in front of the one that rx_arena_offers() counted on. */
#define RX_ROTATIONS 32u

/* ---- lists ------------------------------------------------------------------ */

int rx_free_check(struct rx_map *map, rx_off off, unsigned c, uint64_t *size)
{
    if (RX_UNLIKELY(off < RX_HEAP || (off & 7) || !rx_in_file(map, off, RX_CELL_MIN)))
        return rx_corrupt(off, "a free list (class %u) leads outside the file", c);
    uint64_t header = rx_load(rx_word_at(map, off));
    *size = rx_cell_size(header);
    if (RX_UNLIKELY(rx_head_kind(header) != RX_K_FREE || *size == 0 || rx_class_of(*size) != c ||
                    !rx_in_file(map, off, *size)))
        return rx_corrupt(off, "a free list (class %u) leads to header %016llx", c, (unsigned long long)header);
    return RX_OK;
}

static void rx_nonempty_set(struct rx_arena *a, unsigned c)
{
    uint64_t bits = rx_load_rlx(&a->nonempty[c >> 6]), bit = 1ull << (c & 63);
    if (!(bits & bit))
        rx_store(&a->nonempty[c >> 6], bits | bit);
}
static void rx_nonempty_clear(struct rx_arena *a, unsigned c)
{
    rx_store(&a->nonempty[c >> 6], rx_load_rlx(&a->nonempty[c >> 6]) & ~(1ull << (c & 63)));
}
static unsigned rx_bit_from(const struct rx_arena *a, unsigned c)
{
    if (c >= RX_CLASSES)
        return RX_CLASSES;
    unsigned w = c >> 6;
    uint64_t bits = rx_load_rlx(&a->nonempty[w]) & (~0ull << (c & 63));
    while (bits == 0 && ++w < sizeof a->nonempty / sizeof a->nonempty[0])
        bits = rx_load_rlx(&a->nonempty[w]);
    return bits ? (w << 6) + (unsigned)__builtin_ctzll(bits) : RX_CLASSES;
}

unsigned rx_class_from(struct rx_arena *a, unsigned c)
{
    while ((c = rx_bit_from(a, c)) < RX_CLASSES && rx_load_rlx(&a->head[c]) == 0)
        rx_nonempty_clear(a, c); /* the last pop left the bit */
    return c < RX_CLASSES ? c : RX_CLASSES;
}

/*
 * Requires  the cell's FREE header is written; a record names the cell (I6).
 * Commit    the store to head.  Before it the cell is on no list, after it on this one:
 *           head == cell tells, for nothing else is pushed until the record is gone.
 * Crash     the bit without a cell is harmless; the tail counts only beside a head.
 */
static void rx_link(struct rx_map *map, struct rx_arena *a, rx_off off, uint64_t size)
{
    unsigned c = rx_class_of(size);
    rx_off head = rx_load_rlx(&a->head[c]);
    rx_store(&rx_free_at(map, off)->next, head);
    if (head == 0)
        rx_store(&a->tail[c], off);
    rx_nonempty_set(a, c);
    rx_store(&a->head[c], off); /* commit */
    rx_hint_add(&a->free_bytes, size);
}

static void rx_head_store(struct rx_map *map, rx_off off, uint64_t size)
{
    rx_store(rx_word_at(map, off), rx_head_sized(RX_K_FREE, size));
}

/* Header before link: the header alone is what the walk of the heap sees (I7). */
void rx_push_free(struct rx_map *map, struct rx_arena *arena, rx_off off, uint64_t size)
{
    rx_head_store(map, off, size);
    rx_link(map, arena, off, size);
}

/*
 * Takes the head, checked before, off its list.
 * Crash     reserved[i] == head: not taken.
 */
static void rx_pop(struct rx_map *map, struct rx_arena *a, unsigned i, unsigned c, rx_off cell, uint64_t size)
{
    rx_off next = rx_load_rlx(&rx_free_at(map, cell)->next);
    rx_store(&a->reserved[i], cell);
    rx_store(&a->head[c], next);
    rx_hint_sub(&a->free_bytes, size);
    __builtin_prefetch((const void *)((uintptr_t)map->base + (next & RX_REF_OFF_MASK)), 1);
}

/* A list that leads to a cell twice (only a damaged file's can) must not give it twice. */
static bool rx_held(const struct rx_arena *a, unsigned i, rx_off cell)
{
    for (unsigned j = RX_RSV_OP; j < i && j < RX_RSV_OP_MAX; j++)
        if (rx_load_rlx(&a->reserved[j]) == cell)
            return true;
    return false;
}

/*
 * The head goes to the end of its list.
 * Crash     recorded in reserved[RX_RSV_MISC]: still head, or reached from the tail, or
 *           in between: then it is pushed like any reserved cell.
 * Returns   false: it is alone, or (a damaged file) the tail is no free cell.
 */
static bool rx_rotate(struct rx_map *map, struct rx_arena *a, unsigned c, rx_off cell)
{
    rx_off next = rx_load_rlx(&rx_free_at(map, cell)->next), tail = rx_load_rlx(&a->tail[c]);
    uint64_t size;
    if (next == 0 || tail == cell || rx_free_check(map, tail, c, &size))
        return false;
    rx_store(&a->reserved[RX_RSV_MISC], cell);
    rx_store(&a->head[c], next);
    rx_store(&rx_free_at(map, cell)->next, 0);
    rx_store(&rx_free_at(map, tail)->next, cell);
    rx_store(&a->tail[c], cell);
    rx_store(&a->reserved[RX_RSV_MISC], 0);
    return true;
}

/*
 * reserved[i] is a whole cell of `have` bytes: shrink it to `size`, push the rest.
 * Crash     split == 0: the whole cell is reserved, B's header lies inside it.
 *           split == B, the cell not shrunk: no reserved cell ends at B: as before.
 *           shrunk: it ends at B.  Pushed when head of B's class is B, else not yet.
 *           (Cells do not overlap, so no other can end inside this one.)
 */
static void rx_split(struct rx_map *map, struct rx_arena *a, unsigned i, uint64_t have, uint64_t size)
{
    rx_off cell = rx_load_rlx(&a->reserved[i]), rest = cell + size;
    rx_head_store(map, rest, have - size);
    rx_store(&a->split, rest);
    rx_head_store(map, cell, size);
    rx_link(map, a, rest, have - size);
    rx_store(&a->split, 0);
}

static inline bool rx_fits(uint64_t have, uint64_t size) { return have == size || have >= size + RX_CELL_MIN; }

/* From the list of class c, whose cells may have several sizes; RX_I_GROW: none found. */
static int rx_take_from(struct rx_map *map, struct rx_arena *a, unsigned i, unsigned c, uint64_t size)
{
    if (c < RX_SMALL_CLASSES && !rx_fits(c * 8u, size))
        return RX_I_GROW;
    for (unsigned tries = 0; tries < RX_ROTATIONS; tries++) {
        rx_off cell = rx_load_rlx(&a->head[c]);
        uint64_t have;
        int rc = rx_free_check(map, cell, c, &have);
        if (rc)
            return rc;
        if (rx_held(a, i, cell))
            return rx_corrupt(cell, "a free list leads to a cell twice");
        if (rx_fits(have, size)) {
            rx_pop(map, a, i, c, cell, have);
            if (have > size)
                rx_split(map, a, i, have, size);
            return RX_OK;
        }
        if (!rx_rotate(map, a, c, cell))
            break;
    }
    return RX_I_GROW;
}

/*
 * Requires  everything from bump to bump_end is zero.
 * Crash     reserved[i] == bump: not taken; the header there says what the walk may skip
 *           and is overwritten by the next (I7).
 */
static int rx_take_bump(struct rx_map *map, struct rx_arena *a, unsigned i, uint64_t size)
{
    uint64_t at = rx_load_rlx(&a->bump), end = rx_load_rlx(&a->bump_end);
    if (end - at < size)
        return RX_I_GROW;
    rx_head_store(map, at, size);
    rx_store(&a->reserved[i], at);
    rx_store(&a->bump, at + size);
    return RX_OK;
}

/* No list has just that size, or it is a large one: a larger cell is split; of the small ones the next does not fit. */
static __attribute__((noinline)) int rx_take_other(struct rx_map *map, struct rx_arena *a, unsigned i, uint64_t size)
{
    unsigned c = rx_class_of(size);
    if (c + 2 <= RX_SMALL_CLASSES)
        c += 2;
    for (; (c = rx_class_from(a, c)) < RX_CLASSES; c++) {
        int rc = rx_take_from(map, a, i, c, size);
        if (rc != RX_I_GROW)
            return rc;
    }
    return rx_take_bump(map, a, i, size);
}

int rx_take_cell(struct rx_map *map, struct rx_arena *a, unsigned i, uint64_t size)
{
    unsigned c = rx_class_of(size);
    if (RX_LIKELY(c < RX_SMALL_CLASSES)) {
        rx_off cell = rx_load_rlx(&a->head[c]);
        if (cell) {
            uint64_t have;
            int rc = rx_free_check(map, cell, c, &have);
            if (RX_UNLIKELY(rc))
                return rc;
            if (RX_UNLIKELY(rx_held(a, i, cell)))
                return rx_corrupt(cell, "a free list leads to a cell twice");
            rx_pop(map, a, i, c, cell, have);
            return RX_OK;
        }
    }
    return rx_take_other(map, a, i, size);
}

/*
 * Crash     the FREE header alone changes nothing; head == reserved[i]: pushed.
 */
void rx_give_back(struct rx_map *map, struct rx_arena *a, unsigned i)
{
    rx_off cell = rx_load_rlx(&a->reserved[i]);
    uint64_t size = rx_cell_size(rx_load(rx_word_at(map, cell)));
    if (size) /* 0: the page was lost to an I/O error */
        rx_push_free(map, a, cell, size);
    rx_store(&a->reserved[i], 0);
}

/* As a bump of all that is left, given back at once: the same records. */
void rx_bump_retire(struct rx_map *map, struct rx_arena *a)
{
    uint64_t at = rx_load_rlx(&a->bump), end = rx_load_rlx(&a->bump_end);
    if (end - at >= RX_CELL_MIN && rx_take_bump(map, a, RX_RSV_MISC, end - at) == RX_OK)
        rx_give_back(map, a, RX_RSV_MISC);
    else if (at != end)
        rx_store(&a->bump, end); /* 8 zero bytes: the walk skips them */
}

/*
 * Sufficient, not necessary.  By induction over an operation's cells: some free cell (or
 * the bump) has at least the sum of what is still wanted and 16 bytes; it or another
 * serves the next, and what a split leaves of it is the head of its class but for the
 * few that the operation itself pushes later, which the rotations pass.
 */
bool rx_arena_offers(const struct rx_arena *a, uint64_t need)
{
    if (need == 0) {
        uint64_t tail = rx_load_rlx(&a->limbo_tail);
        if (tail && (tail & 255) + RX_INTENT_UNLINKED <= RX_LIMBO_ENTRIES)
            return true;
        need = sizeof(struct rx_limbo);
    }
    if (rx_load_rlx(&a->bump_end) - rx_load_rlx(&a->bump) >= need)
        return true;
    uint64_t size = need + RX_CELL_MIN;
    unsigned c = rx_class_of(size);
    if (need <= RX_SMALL_MAX && rx_load_rlx(&a->head[rx_class_of(need)]))
        return true; /* exactly: what is left of it is always 16 or more, or nothing */
    if (size > RX_SMALL_MAX)
        c++; /* every cell there is larger */
    for (; (c = rx_bit_from(a, c)) < RX_CLASSES; c++)
        if (rx_load_rlx(&a->head[c]))
            return true;
    return false;
}

/* ---- reserving for an operation ---------------------------------------------------- */

static uint64_t rx_total(const uint64_t *sizes, int n)
{
    uint64_t total = 0;
    for (int i = 0; i < n; i++)
        total += rx_cell_round(sizes[i]);
    return total;
}

/* The open limbo block has no room: another; and if much is pinned, ask for help. */
static __attribute__((noinline)) int rx_reserve_limbo(struct rx_thread *t, const uint64_t *sizes, int n, int unlink)
{
    struct rx_arena *a = t->arena;
    uint64_t before = rx_load_rlx(&a->limbo_tail);
    int rc = rx_limbo_room(t, (unsigned)unlink);
    if (rc == RX_I_GROW)
        t->grow_need = n ? rx_total(sizes, n) + sizeof(struct rx_limbo) : 0;
    /* Only the call that began a block asks, so that asking ends. */
    if (rc == RX_OK && rx_load_rlx(&a->limbo_tail) >> 8 != before >> 8 && rx_limbo_piled(a)) {
        t->grow_need = 0;
        rc = RX_I_GROW;
    }
    return rc;
}

int rx_reserve(struct rx_thread *t, const uint64_t *sizes, int n, int unlink)
{
    struct rx_arena *a = t->arena;
    uint64_t tail = rx_load_rlx(&a->limbo_tail);
    /* Every arena has a block, also before its first removal: removals work on a full disk. */
    if (RX_UNLIKELY(tail == 0 || (tail & 255) + (unsigned)unlink > RX_LIMBO_ENTRIES)) {
        int rc = rx_reserve_limbo(t, sizes, n, unlink);
        if (rc)
            return rc;
    }
    for (int i = 0; i < n; i++) {
        int rc = rx_take_cell(t->map, a, RX_RSV_OP + (unsigned)i, rx_cell_round(sizes[i]));
        if (RX_UNLIKELY(rc)) {
            rx_unreserve(t);
            t->grow_need = rx_total(sizes, n);
            return rc;
        }
    }
    t->reserved_count = n;
    return RX_OK;
}

void rx_unreserve(struct rx_thread *t)
{
    struct rx_arena *a = t->arena;
    t->reserved_count = 0;
    if (a == NULL)
        return;
    unsigned n = 0;
    while (n < RX_RSV_OP_MAX && rx_load_rlx(&a->reserved[RX_RSV_OP + n]))
        n++;
    while (n-- > 0)
        rx_give_back(t->map, a, RX_RSV_OP + n);
}
