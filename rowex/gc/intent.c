/*
 * intent.c -- R3.  See intent.h for what is promised; the argument:
 *
 * Between arming and disarming, the slot's node is locked by our uid, so its value
 * can only be old_ref or new_ref, and these differ.  Whoever finds us dead can
 * therefore decide by one load, at any time, any number of times: the word stays
 * locked until the very end of finishing, and a reaper's stores are those of the
 * owner, all absolute (values after), so repeating any of them is harmless:
 *   - obsolete marks and limbo entries go to fixed places with fixed values;
 *   - limbo_tail and count are the recorded values after;
 *   - reserved[] of the operation becomes zero: its cells are in the tree now.
 * After disarming only lock words are left; they are named in locks[].
 * The log entry is decided by the same load, before anything else is finished: while it
 * is not, nobody else's change of this key can have a later number.
 */
#include "intent.h"
#include "alloc.h"
#include "../native/file.h"

static inline uint64_t *rx_slot_word(const struct rx_map *map, rx_off off)
{
    return (uint64_t *)(void *)(map->base + off);
}

/* Everything after the commit store.  Repeatable; by the owner or by a reaper. */
static void rx_finish(struct rx_map *map, struct rx_arena *a, uint64_t uid)
{
    unsigned n = (unsigned)rx_load_rlx(&a->unlinked_count);
    uint64_t before = rx_load_rlx(&a->limbo_after) - n;
    for (unsigned i = 0; i < n; i++) {
        rx_off cell = rx_load_rlx(&a->unlinked[i]);
        uint64_t header = rx_load_rlx(rx_slot_word(map, cell));
        if (rx_kind_is_node(rx_head_kind(header)))
            rx_store(&((struct rx_node *)(void *)(map->base + cell))->lock, RX_OBSOLETE);
        rx_limbo_enter(map, before, i, cell);
    }
    rx_store(&a->limbo_tail, before + n);
    rx_store_i64(&a->count, a->count_after);
    unsigned cells = 0; /* contiguous from the first; cleared from the last, so they stay so */
    while (cells < RX_RSV_OP_MAX && rx_load_rlx(&a->reserved[RX_RSV_OP + cells]))
        cells++;
    while (cells-- > 0)
        rx_store_rlx(&a->reserved[RX_RSV_OP + cells], 0);
    if (RX_UNLIKELY(rx_poisoned(map))) /* a mark or an entry may be lost: a reaper repeats them */
        return;
    rx_store(&a->armed, 0);
    for (unsigned i = RX_INTENT_LOCKS; i-- > 0;) {
        rx_off node = rx_load_rlx(&a->locks[i]);
        if (node == 0)
            continue;
        const uint64_t mine = uid << 1;
        uint64_t *word = &((struct rx_node *)(void *)(map->base + node))->lock;
        if (rx_load_rlx(word) == mine) /* not the obsolete ones; nobody else touches our word */
            rx_store(word, 0);
        rx_store(&a->locks[i], 0);
    }
}

/*
 * A page of ours was lost, perhaps under the commit store: only the file itself tells what all others see.
 * The log entry is decided by that, or it would hold up everybody.  Nothing is finished: those stores could be
 * lost as well, and a cell given back that the tree still has.  What happened stays armed, with its locks, for
 * who reaps us (uid.c); so does what cannot be told.
 */
static int rx_commit_lost(struct rx_thread *t, bool logged)
{
    struct rx_arena *a = t->arena;
    uint64_t real;
    if (!rx_file_word(t->map, rx_load_rlx(&a->slot_off), &real))
        return rx_fail(RX_E_IO, 0, "while writing; it may or may not have happened");
    bool happened = real == rx_load_rlx(&a->new_ref);
    if (logged)
        rx_log_publish(t->db, t->log_number, happened ? rx_load_rlx(&a->log_what) : rx_log_what(0, RX_L_VOID));
    if (!happened)
        rx_store(&a->armed, 0);
    return rx_fail(RX_E_IO, 0, happened ? "while writing; it happened" : "while writing; nothing was changed");
}

int rx_commit(struct rx_thread *t, rx_off slot_off, rx_ref old_ref, rx_ref new_ref, int count_delta)
{
    struct rx_arena *a = t->arena;
    uint64_t n = rx_load_rlx(&a->unlinked_count);
    rx_store_rlx(&a->slot_off, slot_off);
    rx_store_rlx(&a->old_ref, old_ref);
    rx_store_rlx(&a->new_ref, new_ref);
    rx_store_i64(&a->count_after, rx_load_i64(&a->count) + count_delta);
    rx_store_rlx(&a->limbo_after, rx_load_rlx(&a->limbo_tail) + n);
    rx_persist_fence(t->map->fences); /* new cells and given slots before the commit */
    if (RX_UNLIKELY(__atomic_load_n(&t->map->poison, __ATOMIC_RELAXED)))
        return rx_fail(RX_E_IO, 0, "while writing; nothing was changed");
    rx_store(&a->armed, 1);
    bool logged = t->db->logged && !t->quiet; /* a batch has one entry for all (transaction.c) */
    if (logged)
        t->log_number = rx_log_take(t->db, a);
    uint64_t *slot = rx_slot_word(t->map, slot_off);
    rx_store(slot, new_ref); /* commit */
    if (RX_UNLIKELY(rx_poisoned(t->map))) /* by a fault of this very store */
        return rx_commit_lost(t, logged);
    if (logged)
        rx_log_publish(t->db, t->log_number, rx_load_rlx(&a->log_what));
#ifndef ROWEX_CANARY_SKIP_FLUSH /* a broken build on purpose: scripts/persist-order must notice */
    rx_persist(t->map->fences, slot, 8);
#endif
    rx_finish(t->map, a, t->uid);
    return RX_OK;
}

/*
 * Requires  proof that `uid`'s process is dead, held by the caller; the arena belongs
 *           to uid; map is of the current generation.
 * Crash     at any store: the next reaper starts over and decides the same.
 */
void rx_intent_recover(struct rx_db *db, struct rx_map *map, struct rx_arena *a, uint64_t uid)
{
    if (rx_load(&a->generation) != map->generation) { /* its file is gone: nothing to decide */
        rx_store(&a->armed, 0);
        for (unsigned i = 0; i < RX_INTENT_LOCKS; i++)
            rx_store(&a->locks[i], 0);
        return;
    }
    if (rx_load(&a->armed)) {
        rx_off off = rx_load_rlx(&a->slot_off);
        if (rx_in_file(map, off, 8) && rx_load(rx_slot_word(map, off)) == rx_load_rlx(&a->new_ref)) {
            rx_persist(map->fences, rx_slot_word(map, off), 8); /* it may have died before it did (D1) */
            rx_log_decide(db, a, rx_load_rlx(&a->log_what));
#ifdef ROWEX_CANARY_NO_FINISH /* a broken build on purpose: scripts/crashpoints must notice */
            rx_store(&a->unlinked_count, 0);
#endif
            rx_finish(map, a, uid);
            return;
        }
        rx_log_decide(db, a, rx_log_what(0, RX_L_VOID));
        rx_store(&a->armed, 0); /* void: rx_arena_recover() frees the new cells */
    }
    for (unsigned i = 0; i < RX_INTENT_LOCKS; i++) {
        rx_off node = rx_load_rlx(&a->locks[i]);
        uint64_t mine = uid << 1;
        if (node && rx_in_file(map, node, RX_NODE_HEAD))
            rx_cas(&((struct rx_node *)(void *)(map->base + node))->lock, &mine, 0);
        rx_store(&a->locks[i], 0);
    }
}
