/*
 * tree.h -- lookups and changes of one key.  Each change has one commit point,
 * made by rx_commit() (gc/intent.h).
 */
#ifndef ROWEX_TREE_H
#define ROWEX_TREE_H

#include "node.h"

/*
 * Inside an epoch: a view of the leaf of key, or RX_ABSENT.  Waits for nobody.
 * Ordering: every reference is loaded with acquire; pairs with the release of its commit.
 */
int rx_find(struct rx_map *map, const uint8_t *key, uint64_t key_len, struct rx_leaf_view *leaf);

/*
 * The same, and all that led there is persistent (persist.h, D2); what rx_find() does with fences on.
 * After a writer's descent: what it relies on was reached before, so it is reached here, or was
 * replaced under a lock that the writer will miss.
 */
int rx_find_settled(struct rx_map *map, const uint8_t *key, uint64_t key_len, struct rx_leaf_view *leaf);

/* The same for n <= RX_GROUP keys at once; result[i] as rx_find() would return. */
#define RX_GROUP 32u
void rx_find_group(struct rx_map *map, unsigned n, const void *const *keys, const size_t *key_len,
                   struct rx_leaf_view *leaf, int *result);
/* Inside an epoch: brings into the cache what changes of n <= RX_GROUP keys will read; no more than that. */
void rx_warm_group(struct rx_map *map, unsigned n, const void *const *keys, const size_t *key_len);

/* RX_WRAP, RX_SETTLE: steps of a batch (transaction.c), with t->quiet. */
enum rx_change { RX_PUT, RX_INSERT, RX_REMOVE, RX_CAS, RX_TAKE, RX_WRAP, RX_SETTLE };
struct rx_op {
    enum rx_change change;
    const uint8_t *key; uint64_t key_len;
    const uint8_t *value; uint64_t value_len;       /* NULL: remove (RX_CAS with new=None) */
    const uint8_t *expected; uint64_t expected_len; /* RX_CAS; NULL: expected absent */
    uint8_t *out; uint64_t out_capacity; uint64_t out_len; /* RX_TAKE: the value removed */
    rx_off batch; uint64_t item, generation; /* RX_WRAP, RX_SETTLE: whose step; item only RX_WRAP */
    bool plain; /* there is no room for copies: remove without merging or shrinking */
    bool admitted; /* the log takes it */
};
/* Member by member: a literal of this size is cleared by an instruction that takes longer to begin than all this. */
static inline void rx_op_set(struct rx_op *op, enum rx_change change, const void *key, uint64_t key_len, const void *value,
                             uint64_t value_len)
{
    op->change = change;
    op->key = key;
    op->key_len = key_len;
    op->value = value;
    op->value_len = value_len;
    op->expected = NULL;
    op->expected_len = 0;
    op->out = NULL;
    op->out_capacity = op->out_len = 0;
    op->batch = 0;
    op->item = op->generation = 0;
    op->plain = op->admitted = false;
}

/* A whole write: enters, descends, reserves, locks, commits, waits as t->deadline_ns allows. */
int rx_change(struct rx_thread *t, struct rx_op *op);
/*
 * The same n times, one after the other, up to the first whose result is not RX_OK; *done before it.
 * As many as may be in one epoch; of these, keys that follow each other share their descent.
 */
int rx_change_many(struct rx_thread *t, struct rx_op *op, unsigned n, unsigned *done);

#endif
