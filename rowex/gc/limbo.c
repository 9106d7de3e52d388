/*
 * limbo.c -- retired cells wait here until no reader can hold them (R8).
 *
 * An arena's blocks form a chain from limbo_head, the oldest, to limbo_tail, into which
 * commits enter what they unlink.  A block is closed when it is full: full barrier,
 * advance the epoch, stamp.  A reader that published the stamp or later loaded the epoch
 * after the advance, so it sees the unlinking; one that had not published before the
 * barrier reads the tree after it, and sees it too; every other is found by
 * rx_min_epoch() after the barrier.  Hence: min >= stamp, the entries are free cells.
 *
 * I8  limbo_tail == 0: there are no blocks, whatever limbo_head says.  Else the chain
 *     ends at the tail block, whose next is 0 but in the middle of a switch.
 * I9  limbo_tail's count is RX_LIMBO_CLOSED: the tail block itself is closed (its count
 *     and stamp are in it); once emptied it is opened again in place.  So an arena that
 *     ever had a block can retire cells without allocating, after readers have passed.
 */
#include "cells.h"
#include "epoch.h"
#include "../native/log.h"

#define RX_PILED_BLOCKS 8u
#define RX_PILED_BYTES (4u << 20)

#ifdef ROWEX_POISON
/* Test build: what is reused under a reader shall be noticed. */
static void rx_poison(struct rx_map *map, rx_off off, uint64_t size)
{
    uint8_t bytes[512];
    memset(bytes, 0xDD, sizeof bytes);
    for (uint64_t at = RX_CELL_MIN; at < size; at += sizeof bytes)
        rx_fill(map->base + off + at, bytes, size - at < sizeof bytes ? size - at : sizeof bytes);
}
#else
static void rx_poison(struct rx_map *map, rx_off off, uint64_t size) { (void)map; (void)off; (void)size; }
#endif

struct rx_limbo *rx_limbo_at(struct rx_map *map, rx_off off)
{
    if (off < RX_HEAP || (off & 7) || !rx_in_file(map, off, sizeof(struct rx_limbo)))
        return NULL;
    struct rx_limbo *b = rx_limbo_ptr(map, off);
    return rx_load(&b->header) == rx_head_sized(RX_K_LIMBO, sizeof *b) ? b : NULL;
}

/*
 * Crash     an entry beyond limbo_tail's count is not there; the finish of a commit
 *           repeats it with the same place and value.
 */
void rx_limbo_enter(struct rx_map *map, uint64_t packed, unsigned i, rx_off cell)
{
    unsigned at = (unsigned)(packed & 255) + i;
    if (RX_LIKELY(at < RX_LIMBO_ENTRIES))
        rx_store(&rx_limbo_ptr(map, packed >> 8)->entry[at], cell);
}

bool rx_limbo_piled(const struct rx_arena *a)
{
    return rx_load_rlx(&a->limbo_blocks) > RX_PILED_BLOCKS || rx_load_rlx(&a->retired_bytes) > RX_PILED_BYTES;
}

/* ---- closing ------------------------------------------------------------------------- */

/*
 * Ordering  the barrier comes after the unlinking of every entry and before the advance.
 * Returns   false: this process cannot make the barrier now; stamp 0, tried again later.
 */
static bool rx_limbo_stamp(struct rx_db *db, struct rx_limbo *b)
{
    if (rx_barrier(db) != RX_OK) {
        rx_store(&b->stamp, 0);
        return false;
    }
#ifdef ROWEX_CANARY_EARLY_STAMP /* a broken build on purpose: fuzz/schedules.c must notice */
    rx_store(&b->stamp, rx_fetch_add(&db->hdr->epoch, 1));
#else
    rx_store(&b->stamp, rx_fetch_add(&db->hdr->epoch, 1) + 1);
#endif
    return true;
}

uint64_t rx_cell_bytes(struct rx_map *map, rx_off off)
{
    if (off < RX_HEAP || (off & 7) || !rx_in_file(map, off, RX_CELL_MIN))
        return 0;
    uint64_t size = rx_cell_size(rx_load(rx_word_at(map, off)));
    return size && rx_class_of(size) < RX_CLASSES && rx_in_file(map, off, size) ? size : 0;
}

/*
 * Count and stamp of the open block, before it is closed.
 * Crash     they mean nothing until limbo_tail or next says that the block is closed,
 *           and are written anew by the next attempt.
 */
static void rx_limbo_seal(struct rx_db *db, struct rx_map *map, struct rx_arena *a, struct rx_limbo *b, unsigned count)
{
    uint64_t bytes = 0;
    for (unsigned i = 0; i < count; i++)
        bytes += rx_cell_bytes(map, rx_load_rlx(&b->entry[i]));
    rx_hint_add(&a->retired_bytes, bytes);
    rx_store(&b->count, count);
    rx_store(&b->logged, db->logged ? rx_log_tail(db) : 0);
    (void)rx_limbo_stamp(db, b);
}

/* Commit: the store to limbo_tail. */
void rx_limbo_shut(struct rx_db *db, struct rx_map *map, struct rx_arena *a)
{
    uint64_t tail = rx_load_rlx(&a->limbo_tail);
    unsigned count = (unsigned)(tail & 255);
    if (tail == 0 || count == 0 || count == RX_LIMBO_CLOSED)
        return;
    rx_limbo_seal(db, map, a, rx_limbo_ptr(map, tail >> 8), count);
    rx_store(&a->limbo_tail, tail | RX_LIMBO_CLOSED); /* commit */
}

/*
 * reserved[RX_RSV_LIMBO] becomes the open block.
 * Commit    the old tail's next (or limbo_tail, when there was no block).
 * Crash     before it: a reserved cell like any other, whatever its header says.  After:
 *           next != 0 of the tail block says that limbo_tail must follow.
 */
static void rx_limbo_switch(struct rx_db *db, struct rx_map *map, struct rx_arena *a)
{
    rx_off off = rx_load_rlx(&a->reserved[RX_RSV_LIMBO]);
    struct rx_limbo *b = rx_limbo_ptr(map, off);
    rx_store(&b->next, 0);
    rx_store(&b->stamp, 0);
    rx_store(&b->count, 0);
    rx_store(&b->header, rx_head_sized(RX_K_LIMBO, sizeof *b));
    uint64_t tail = rx_load_rlx(&a->limbo_tail);
    if (tail == 0) {
        rx_store(&a->limbo_head, off);
    } else {
        struct rx_limbo *old = rx_limbo_ptr(map, tail >> 8);
        if ((tail & 255) != RX_LIMBO_CLOSED)
            rx_limbo_seal(db, map, a, old, (unsigned)(tail & 255));
        rx_store(&old->next, off); /* commit */
    }
    rx_store(&a->limbo_tail, off << 8);
    rx_store(&a->reserved[RX_RSV_LIMBO], 0);
    rx_hint_add(&a->limbo_blocks, 1);
}

int rx_limbo_room(struct rx_thread *t, unsigned unlink)
{
    struct rx_arena *a = t->arena;
    uint64_t tail = rx_load_rlx(&a->limbo_tail);
    if (tail && unlink == 0)
        return RX_OK;
    if (tail && (tail & 255) == RX_LIMBO_CLOSED) {
        rx_limbo_sweep(t->db, t->map, a); /* may open it again */
        if ((rx_load_rlx(&a->limbo_tail) & 255) + unlink <= RX_LIMBO_ENTRIES)
            return RX_OK;
    }
    int rc = rx_take_cell(t->map, a, RX_RSV_LIMBO, sizeof(struct rx_limbo));
    if (rc)
        return rc;
    rx_limbo_switch(t->db, t->map, a);
    rx_limbo_sweep(t->db, t->map, a);
    return RX_OK;
}

/* ---- freeing ------------------------------------------------------------------------- */

/*
 * The entries of a closed block become free cells, from the last.
 * Crash     between the push and the count: head of the class == entry[count - 1] tells
 *           that only the count is to be lowered.  Before the push the cell is only in
 *           the block, whatever its header says: its size never changes.
 */
static uint64_t rx_limbo_free(struct rx_map *map, struct rx_arena *a, struct rx_limbo *b, uint64_t *cells)
{
    uint64_t n = rx_load_rlx(&b->count), bytes = 0;
    if (n > RX_LIMBO_ENTRIES)
        n = RX_LIMBO_ENTRIES;
    for (; n > 0; n--) {
        rx_off cell = rx_load_rlx(&b->entry[n - 1]);
        if (n > 8)
            __builtin_prefetch((const void *)((uintptr_t)map->base + (b->entry[n - 9] & RX_REF_OFF_MASK)), 1);
        uint64_t size = rx_cell_bytes(map, cell);
        if (size) {
            rx_poison(map, cell, size);
            rx_push_free(map, a, cell, size);
            bytes += size;
            (*cells)++;
        }
        rx_store(&b->count, n - 1);
    }
    rx_hint_sub(&a->retired_bytes, bytes);
    return bytes;
}

/*
 * The oldest block, empty and not the tail, becomes a free cell.
 * Crash     reserved[RX_RSV_LIMBO] == limbo_head: still in the chain; else it is a
 *           reserved cell like any other.
 */
static void rx_limbo_drop_head(struct rx_map *map, struct rx_arena *a, struct rx_limbo *b)
{
    rx_off next = rx_load_rlx(&b->next);
    rx_store(&a->reserved[RX_RSV_LIMBO], rx_load_rlx(&a->limbo_head));
    rx_store(&a->limbo_head, next);
    rx_give_back(map, a, RX_RSV_LIMBO);
    rx_hint_sub(&a->limbo_blocks, 1);
}

/* The oldest block when it is closed; else NULL. */
static struct rx_limbo *rx_limbo_oldest(struct rx_map *map, struct rx_arena *a)
{
    uint64_t tail = rx_load_rlx(&a->limbo_tail);
    rx_off off = rx_load_rlx(&a->limbo_head);
    if (tail == 0 || (off == tail >> 8 && (tail & 255) != RX_LIMBO_CLOSED))
        return NULL;
    struct rx_limbo *b = rx_limbo_at(map, off);
    bool sound = b && (off == tail >> 8 || rx_limbo_at(map, rx_load_rlx(&b->next)));
    return sound ? b : NULL; /* a page lost to an I/O error: leave it all to the startup scan */
}

uint64_t rx_limbo_sweep(struct rx_db *db, struct rx_map *map, struct rx_arena *a)
{
    uint64_t bytes = 0, cells = 0, least = 0;
    bool asked = false;
    for (struct rx_limbo *b; (b = rx_limbo_oldest(map, a)) != NULL;) {
        if (rx_load_rlx(&b->stamp) == 0) {
            if (!rx_limbo_stamp(db, b))
                break;
            asked = false; /* the slots are to be looked at after the barrier */
        }
        if (!asked)
            least = rx_min_epoch(db);
        asked = true;
#ifdef ROWEX_CANARY_NO_EPOCH_WAIT /* a broken build on purpose: fuzz/linear.py and fuzz/schedules.c must notice */
        least = UINT64_MAX;
#endif
        if (least < rx_load_rlx(&b->stamp) || (db->logged && rx_log_durable(db) < rx_load_rlx(&b->logged)))
            break; /* a reader may hold an entry, or the log may still have to read it (L4) */
        bytes += rx_limbo_free(map, a, b, &cells);
        uint64_t tail = rx_load_rlx(&a->limbo_tail);
        if (rx_load_rlx(&a->limbo_head) == tail >> 8) {
            rx_store(&a->limbo_tail, tail & ~255ull); /* commit: open again (I9) */
            break;
        }
        rx_limbo_drop_head(map, a, b);
    }
    if (cells) {
        rx_fetch_add(&db->hdr->reclaimed_bytes, bytes);
        rx_fetch_add(&db->hdr->reclaimed_cells, cells);
    }
    return bytes;
}

void rx_limbo_drain(struct rx_map *map, struct rx_arena *a)
{
    uint64_t tail = rx_load_rlx(&a->limbo_tail), cells = 0;
    if (tail && (tail & 255) != RX_LIMBO_CLOSED) {
        struct rx_limbo *b = rx_limbo_at(map, tail >> 8);
        if (b)
            rx_store(&b->count, tail & 255);
        rx_store(&a->limbo_tail, tail | RX_LIMBO_CLOSED);
    }
    for (struct rx_limbo *b; (b = rx_limbo_oldest(map, a)) != NULL;) {
        (void)rx_limbo_free(map, a, b, &cells);
        rx_off off = rx_load_rlx(&a->limbo_head);
        if (off == tail >> 8) {
            rx_store(&a->limbo_tail, 0);
            rx_push_free(map, a, off, sizeof *b);
            break;
        }
        rx_limbo_drop_head(map, a, b);
    }
    rx_store(&a->limbo_blocks, 0);
    rx_store(&a->retired_bytes, 0);
}
