/*
 * recover.c -- arenas changing hands: borrowed, let go, taken from the dead, carried in
 * the superblock from the last closer to the next opener.
 *
 * A reaper finds at most one transition half-way (I6) -- its own predecessor's included,
 * which died in the middle of these very stores.  Therefore first everything that a head
 * can tell is asked (a push or pop of any reserved cell, the freeing of a limbo entry),
 * and only then is anything pushed, one cell after the other, each with its record.
 */
#include "cells.h"
#include "epoch.h"
#include "settle.h"
#include "../native/file.h"

#define RX_ARENA_CHUNK 4u

/* ---- borrowing ----------------------------------------------------------------- */

int rx_arenas_extend(struct rx_db *db)
{
    uint32_t high = rx_load32(&db->hdr->arena_high);
    if (high >= RX_ARENAS)
        return rx_fail(RX_E_TABLE_FULL, 0, "%u threads and writers are writing", RX_ARENAS);
    uint64_t from = RX_LOCKFILE_ARENAS + (uint64_t)high * sizeof(struct rx_arena);
    int rc = db->lockless ? RX_OK : rx_lockfile_allocate(db, from, RX_ARENA_CHUNK * sizeof(struct rx_arena));
    if (rc == RX_OK)
        rx_cas32(&db->hdr->arena_high, &high, high + RX_ARENA_CHUNK); /* lost: another did the same */
    return rc;
}

/*
 * Ordering  the generation last: who counts keys or looks for space reads it first and
 *           ignores arenas of another generation.
 * Crash     the old generation still stands: the next borrower does it again.
 */
void rx_arena_reset(struct rx_arena *a, uint64_t generation)
{
    static const uint8_t zeros[sizeof(struct rx_arena)];
    rx_store(&a->generation, 0);
    rx_fill(&a->claim, zeros, sizeof *a - offsetof(struct rx_arena, claim));
    rx_store(&a->generation, generation);
}

static struct rx_arena *rx_arena_idle(struct rx_db *db, uint64_t uid)
{
    uint32_t high = rx_load32(&db->hdr->arena_high);
    for (uint32_t i = 0; i < high && i < RX_ARENAS; i++) {
        uint64_t nobody = 0;
        if (rx_load(&db->arenas[i].owner) || rx_arena_left(db, &db->arenas[i]) || !rx_cas(&db->arenas[i].owner, &nobody, uid))
            continue;
        if (!rx_arena_left(db, &db->arenas[i]))
            return &db->arenas[i];
        rx_store(&db->arenas[i].owner, 0);
    }
    return NULL;
}

int rx_arena_borrow(struct rx_thread *t)
{
    while (t->arena == NULL) {
        struct rx_arena *a = rx_arena_idle(t->db, t->uid);
        if (a == NULL) {
            int rc = rx_arenas_extend(t->db);
            if (rc)
                return rc;
            continue;
        }
        if (rx_load(&a->generation) > t->map->generation) { /* it is our map that is old */
            rx_store(&a->owner, 0);
            int rc = rx_remap_thread(t);
            if (rc)
                return rc;
            continue;
        }
        if (rx_load(&a->generation) != t->map->generation)
            rx_arena_reset(a, t->map->generation);
        else
            rx_arena_recover(t->db, t->map, a); /* nothing to do, but for an unlucky reaper's sake */
        t->arena = a;
    }
    return RX_OK;
}

void rx_arena_release(struct rx_thread *t)
{
    if (t->arena == NULL)
        return;
    if (rx_poisoned(t->map) && rx_load(&t->arena->generation) == t->map->generation)
        return; /* a store to what it names may be lost: for who reaps this process alone (uid.c) */
    rx_store(&t->arena->owner, 0);
    t->arena = NULL;
}

/* ---- the dead --------------------------------------------------------------------- */

/* A switch that was committed is finished; an entry that was pushed is no longer counted. */
static void rx_recover_limbo(struct rx_map *map, struct rx_arena *a)
{
    uint64_t tail = rx_load_rlx(&a->limbo_tail);
    struct rx_limbo *b = tail ? rx_limbo_at(map, tail >> 8) : NULL;
    if (b == NULL)
        return;
    rx_off next = rx_load_rlx(&b->next);
    if (next) {
        tail = next << 8;
        rx_store(&a->limbo_tail, tail);
    }
    rx_off head = rx_load_rlx(&a->limbo_head);
    if (head == tail >> 8 && (tail & 255) != RX_LIMBO_CLOSED)
        return;
    b = rx_limbo_at(map, head);
    uint64_t n = b ? rx_load_rlx(&b->count) : 0;
    if (n == 0 || n > RX_LIMBO_ENTRIES)
        return;
    rx_off cell = rx_load_rlx(&b->entry[n - 1]);
    uint64_t size = rx_cell_bytes(map, cell);
    if (size && rx_load_rlx(&a->head[rx_class_of(size)]) == cell)
        rx_store(&b->count, n - 1);
}

static bool rx_in_limbo(const struct rx_arena *a, rx_off cell)
{
    uint64_t tail = rx_load_rlx(&a->limbo_tail);
    return tail && (cell == tail >> 8 || cell == rx_load_rlx(&a->limbo_head));
}

/* Half-way to the end of its list (rx_rotate)? Then it is made the tail. */
static bool rx_recover_rotation(struct rx_map *map, struct rx_arena *a, rx_off cell, unsigned c)
{
    rx_off tail = rx_load_rlx(&a->tail[c]);
    uint64_t size;
    if (rx_load_rlx(&a->head[c]) == 0)
        return false;
    if (tail == cell)
        return true;
    if (rx_free_check(map, tail, c, &size) || rx_load_rlx(&rx_free_at(map, tail)->next) != cell)
        return false;
    rx_store(&a->tail[c], cell);
    return true;
}

/* Is the reserved cell i where it belongs already (never taken, or given back)? */
static bool rx_recover_settled(struct rx_map *map, struct rx_arena *a, unsigned i, rx_off cell)
{
    rx_off bump = rx_load_rlx(&a->bump); /* at its end it is the address of a cell of the next extent, whoever's */
    if ((cell == bump && bump != rx_load_rlx(&a->bump_end)) || (i == RX_RSV_LIMBO && rx_in_limbo(a, cell)))
        return true;
    uint64_t size = rx_cell_bytes(map, cell);
    if (size == 0)
        return true;
    unsigned c = rx_class_of(size);
    return rx_load_rlx(&a->head[c]) == cell || (i == RX_RSV_MISC && rx_recover_rotation(map, a, cell, c));
}

static void rx_recover_split(struct rx_map *map, struct rx_arena *a)
{
    rx_off rest = rx_load_rlx(&a->split);
    uint64_t size = rest ? rx_cell_bytes(map, rest) : 0;
    if (size && rx_load_rlx(&a->head[rx_class_of(size)]) != rest)
        for (unsigned i = 0; i < RX_RESERVED; i++) {
            rx_off cell = rx_load_rlx(&a->reserved[i]);
            if (cell && cell + rx_cell_bytes(map, cell) == rest) {
                rx_push_free(map, a, rest, size);
                break;
            }
        }
    rx_store(&a->split, 0);
}

/*
 * Ordering  brk before claim: whoever overwrites our name in brk first marks our claim
 *           as won.  A name that is not ours and a claim that is (still) pending, read in
 *           this order, therefore mean that it was not won.
 */
static void rx_recover_claim(struct rx_db *db, struct rx_arena *a)
{
    uint64_t brk = rx_load(&db->hdr->brk), claim = rx_load(&a->claim);
    bool won = rx_claim_state(claim) == RX_CLAIM_WON;
    if (rx_claim_state(claim) == RX_CLAIM_PENDING)
        won = rx_brk_arena(brk) == (uint64_t)(a - db->arenas) &&
              rx_brk_extents(brk) == rx_claim_from(claim) + rx_claim_count(claim);
    if (won)
        rx_claim_settle(a, claim);
    rx_store(&a->claim, 0);
}

/* What the hints tell, anew. */
static void rx_recover_hints(struct rx_map *map, struct rx_arena *a)
{
    for (unsigned w = 0; w < 4; w++) {
        uint64_t bits = 0;
        for (unsigned c = w * 64; c < w * 64 + 64 && c < RX_CLASSES; c++)
            bits |= (uint64_t)(rx_load_rlx(&a->head[c]) != 0) << (c & 63);
        rx_store(&a->nonempty[w], bits);
    }
    uint64_t tail = rx_load_rlx(&a->limbo_tail), blocks = 0;
    const struct rx_limbo *b = tail ? rx_limbo_at(map, rx_load_rlx(&a->limbo_head)) : NULL;
    for (; b && blocks < map->capacity / sizeof *b; b = rx_limbo_at(map, rx_load_rlx(&b->next)))
        blocks++;
    rx_store(&a->limbo_blocks, blocks);
}

/*
 * Requires  the arena is ours alone: its owner is dead and we hold the proof, or it is
 *           idle and we borrowed it; rx_intent_recover() has decided its intent, so what
 *           reserved[] still names is in no tree.
 * Crash     at any store: the next reaper starts over and comes to the same end.
 */
void rx_arena_recover(struct rx_db *db, struct rx_map *map, struct rx_arena *arena)
{
    if (rx_load(&arena->generation) != map->generation)
        return; /* counts as empty; reset when it is borrowed */
    rx_recover_limbo(map, arena);
    for (unsigned i = 0; i < RX_RESERVED; i++) {
        rx_off cell = rx_load_rlx(&arena->reserved[i]);
        if (cell && rx_recover_settled(map, arena, i, cell))
            rx_store(&arena->reserved[i], 0);
    }
    if (rx_load_rlx(&arena->split))
        rx_recover_split(map, arena);
    for (unsigned i = RX_RESERVED; i-- > 0;)
        if (rx_load_rlx(&arena->reserved[i]))
            rx_give_back(map, arena, i);
    if (rx_load_rlx(&arena->claim))
        rx_recover_claim(db, arena);
    rx_recover_hints(map, arena);
}

/* ---- closing and opening --------------------------------------------------------- */

/* The arena's list of class c goes before the superblock's. */
static int rx_splice(struct rx_map *map, struct rx_arena *a, struct rx_super *super, unsigned c)
{
    rx_off head = rx_load_rlx(&a->head[c]), tail = rx_load_rlx(&a->tail[c]), next = rx_load_rlx(&super->head[c]);
    uint64_t size;
    if (head == 0)
        return RX_OK;
    int rc = rx_free_check(map, tail, c, &size);
    if (rc)
        return rc;
    if (next == 0)
        rx_store(&super->tail[c], tail);
    rx_store(&rx_free_at(map, tail)->next, next);
    rx_store(&super->head[c], head);
    rx_store(&a->head[c], 0);
    return RX_OK;
}

/* Crash: the file is still marked in use, so the startup scan builds the lists anew. */
int rx_arenas_to_super(struct rx_db *db, struct rx_map *map, struct rx_super *super)
{
    uint32_t high = rx_load32(&db->hdr->arena_high);
    uint64_t free_bytes = 0;
    for (unsigned c = 0; c < RX_CLASSES; c++) {
        rx_store(&super->head[c], 0);
        rx_store(&super->tail[c], 0);
    }
    for (uint32_t i = 0; i < high && i < RX_ARENAS; i++) {
        struct rx_arena *a = &db->arenas[i];
        if (rx_load(&a->generation) != map->generation)
            continue;
        rx_batch_alone(map, a);
        rx_limbo_drain(map, a);
        rx_bump_retire(map, a);
        free_bytes += rx_load_rlx(&a->free_bytes);
        for (unsigned c = 0; c < RX_CLASSES; c++) {
            int rc = rx_splice(map, a, super, c);
            if (rc)
                return rc;
        }
        rx_store(&a->free_bytes, 0);
    }
    rx_store(&super->free_bytes, free_bytes);
    return RX_OK;
}

int rx_arena_first(struct rx_db *db, struct rx_map *map, struct rx_arena **out)
{
    int rc = rx_load32(&db->hdr->arena_high) ? RX_OK : rx_arenas_extend(db);
    if (rc)
        return rc;
    rx_arena_reset(&db->arenas[0], map->generation);
    rx_store(&db->arenas[0].owner, 0);
    *out = &db->arenas[0];
    return RX_OK;
}

int rx_arenas_from_super(struct rx_db *db, struct rx_map *map, const struct rx_super *super)
{
    struct rx_arena *a;
    if (db->lockless)
        return RX_OK; /* nobody will write */
    int rc = rx_arena_first(db, map, &a);
    if (rc)
        return rc;
    uint64_t bits[4] = {0};
    for (unsigned c = 0; c < RX_CLASSES; c++) {
        rx_off head = rx_load_rlx(&super->head[c]);
        if (head == 0)
            continue;
        rx_store(&a->tail[c], rx_load_rlx(&super->tail[c]));
        rx_store(&a->head[c], head);
        bits[c >> 6] |= 1ull << (c & 63);
    }
    for (unsigned w = 0; w < 4; w++)
        rx_store(&a->nonempty[w], bits[w]);
    rx_store(&a->free_bytes, rx_load_rlx(&super->free_bytes));
    return RX_OK;
}
