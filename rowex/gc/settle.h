/*
 * settle.h -- batches whose owner is gone.  A reaper only decides them: the state, the log
 * entry, the count.  What is left, wrappers in the tree and cells that nobody wants, stays with
 * the arena until a writer finishes it (transaction.c), the last closer, or the startup scan.
 */
#ifndef ROWEX_SETTLE_H
#define ROWEX_SETTLE_H

#include "../native/node.h"

/* An idle arena with a batch to be finished: it is not borrowed for anything else. */
static inline bool rx_arena_left(const struct rx_db *db, const struct rx_arena *a)
{
    return rx_load(&a->batch) != 0 && rx_load(&a->generation) == rx_load(&db->hdr->generation);
}

/* The reaper, after rx_intent_recover() and before rx_arena_recover(). Repeatable. */
void rx_batch_decide(struct rx_db *db, struct rx_map *map, struct rx_arena *a);
/* The exclusive last closer: everything settled and freed at once. */
void rx_batch_alone(struct rx_map *map, struct rx_arena *a);
/* Cells of item i that nobody needs when the batch is decided and settled; returns how many. */
unsigned rx_batch_losers(struct rx_map *map, const struct rx_batch *b, uint64_t i, rx_off cells[3]);

#endif
