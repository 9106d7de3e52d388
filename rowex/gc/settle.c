/*
 * settle.c -- deciding the batches of the dead, and finishing them where nobody else is.
 * See settle.h, and transaction.c for how a batch goes.
 */
#include "settle.h"
#include "alloc.h"
#include "../native/log.h"

unsigned rx_batch_losers(struct rx_map *map, const struct rx_batch *b, uint64_t i, rx_off cells[3])
{
    const struct rx_batch_item *item = &b->item[i];
    rx_off off = rx_load_rlx(&item->wrapper);
    rx_ref leaf = rx_load_rlx(&item->leaf);
    unsigned n = 0;
    bool committed = (rx_load(&b->state) & 3) == RX_B_COMMITTED;
    if (!committed && leaf)
        cells[n++] = rx_ref_off(leaf);
    if (off == 0)
        return n;
    const struct rx_wrapper *w = (const struct rx_wrapper *)(const void *)(map->base + off);
    if (!rx_in_file(map, off, sizeof *w) || rx_head_kind(rx_load(&w->header)) != RX_K_WRAPPER)
        return n; /* a page lost to an I/O error */
    cells[n++] = off;
    if (committed && rx_load_rlx(&w->old))
        cells[n++] = rx_ref_off(rx_load_rlx(&w->old));
    return n;
}

/*
 * What was on its way from reserved[] into a batch that was not committed: leaves and the cell
 * itself have arrived, wrappers not.  (All had arrived in one that was.)
 */
static void rx_batch_unreserve(struct rx_arena *a, struct rx_batch *b)
{
    for (unsigned r = 0; r < RX_RSV_OP_MAX; r++) {
        rx_off cell = rx_load_rlx(&a->reserved[RX_RSV_OP + r]);
        bool arrived = cell && cell == rx_load_rlx(&a->batch);
        for (uint64_t i = 0; cell && !arrived && i < rx_load_rlx(&b->count); i++) {
            arrived = rx_ref_off(rx_load_rlx(&b->item[i].leaf)) == cell;
            if (rx_load_rlx(&b->item[i].wrapper) == cell)
                rx_store(&b->item[i].wrapper, 0);
        }
        if (arrived)
            rx_store(&a->reserved[RX_RSV_OP + r], 0);
    }
}

/*
 * Requires  proof that the arena's owner is dead; its intent was decided before.
 * Crash     every store can be repeated: the state changes once, log_claim and batch_count
 *           stand until another batch is begun, and that is not before this one is gone.
 */
void rx_batch_decide(struct rx_db *db, struct rx_map *map, struct rx_arena *a)
{
    uint64_t size;
    rx_off off = rx_load(&a->batch);
    struct rx_batch *b = off && rx_load(&a->generation) == map->generation ? rx_batch_at(map, off, &size) : NULL;
    if (b == NULL)
        return;
    uint64_t state = rx_load(&b->state);
    if ((state & 3) == RX_B_PENDING)
        rx_cas(&b->state, &state, (state & ~3ull) | RX_B_ABORTED);
    if ((rx_load(&b->state) & 3) == RX_B_COMMITTED) {
        rx_persist(map->fences, &b->state, 8); /* before it is counted */
        rx_log_decide(db, a, rx_log_what(off, RX_L_BATCH));
        if (rx_load(&a->batch_counted) == 0) {
            rx_store_i64(&a->count, rx_load_i64(&a->batch_count));
            rx_store(&a->batch_counted, 1);
        }
    } else {
        rx_log_decide(db, a, rx_log_what(0, RX_L_VOID));
        rx_batch_unreserve(a, b);
    }
}

/* ---- alone ------------------------------------------------------------------------------ */

/* The slot where the key's leaf hangs; NULL when the path ends before. */
static rx_ref *rx_slot_of(struct rx_map *map, const uint8_t *key, uint64_t key_len)
{
    rx_ref ref = RX_ROOT_OFF | RX_K_N256;
    uint64_t depth = 0;
    for (;;) {
        struct rx_node *n;
        unsigned shape = rx_ref_shape(ref);
        if (rx_node_check(map, ref, (uint32_t)depth, &n))
            return NULL;
        if (n->prefix_len > key_len - depth || memcmp(rx_node_prefix(n, shape), key + depth, n->prefix_len) != 0)
            return NULL;
        depth += n->prefix_len;
        bool ends = depth == key_len;
        rx_ref *slot = ends ? &n->term : rx_node_find(n, shape, key[depth]);
        if (slot == NULL || (ref = rx_load(slot)) == 0 || rx_ref_is_leaf(ref) || ends)
            return slot;
        depth++;
    }
}

static void rx_settle_alone(struct rx_map *map, const struct rx_batch *b, uint64_t size)
{
    for (uint64_t i = 0; i < rx_load_rlx(&b->count); i++) {
        uint64_t key_len;
        const uint8_t *key = rx_batch_key(b, size, i, &key_len);
        rx_off wrapper = rx_load_rlx(&b->item[i].wrapper);
        rx_ref *slot = key && wrapper ? rx_slot_of(map, key, key_len) : NULL;
        struct rx_wrapped w;
        if (slot && rx_load(slot) == rx_ref_make(wrapper, RX_K_WRAPPER, 0) &&
            rx_wrapper_view(map, rx_load(slot), &w) == RX_OK) {
            rx_store(slot, rx_wrapped_ref(&w));
            rx_flush(map->fences, slot, 8);
        }
    }
    rx_persist_fence(map->fences); /* before the wrappers' cells are given away */
}

/*
 * Requires  alone with the file, which is marked in use; the log is written.
 * Crash     the startup scan settles and sweeps.
 */
void rx_batch_alone(struct rx_map *map, struct rx_arena *a)
{
    uint64_t size, cell_size;
    rx_off off = rx_load(&a->batch), cells[3];
    struct rx_batch *b = off ? rx_batch_at(map, off, &size) : NULL;
    uint64_t retired = b ? rx_load(&b->retired) : 0;
    rx_store(&a->batch, 0);
    if (b == NULL || retired > rx_load_rlx(&b->count))
        return;
    if (retired == 0)
        rx_settle_alone(map, b, size);
    for (uint64_t i = retired; i < rx_load_rlx(&b->count); i++)
        for (unsigned n = rx_batch_losers(map, b, i, cells); n-- > 0;)
            if (rx_in_file(map, cells[n], RX_CELL_MIN) &&
                (cell_size = rx_cell_size(rx_load((uint64_t *)(void *)(map->base + cells[n])))) != 0)
                rx_push_free(map, a, cells[n], cell_size);
    rx_push_free(map, a, off, size);
}
