/*
 * change.h -- where a key belongs, as found without locks.
 */
#ifndef ROWEX_CHANGE_H
#define ROWEX_CHANGE_H

#include "tree.h"
#include "../gc/alloc.h"
#include "../gc/epoch.h"
#include "../gc/intent.h"
#include "../gc/uid.h"

enum rx_at {
    RX_AT_NOTHING, /* the node has no slot for the next byte */
    RX_AT_EMPTY,   /* the slot is null */
    RX_AT_LEAF,    /* the slot's leaf has this key */
    RX_AT_OTHER,   /* the slot's leaf has another key */
    RX_AT_WRAPPER, /* the slot's wrapper has this key */
    RX_AT_PREFIX,  /* the key leaves the path inside the node's prefix */
};

struct rx_place {
    enum rx_at at;
    struct rx_node *node;
    rx_ref node_ref;
    unsigned shape;       /* the node's */
    uint32_t level;       /* depth at which the node's prefix begins */
    uint64_t node_prefix; /* its length */
    rx_ref *slot, ref;    /* where the leaf is or goes */
    rx_ref parent_ref, *parent_slot; /* none for the root */
    uint64_t common;      /* AT_PREFIX: bytes of the prefix matched; AT_OTHER: bytes the keys share */
    struct rx_leaf_view leaf; /* AT_LEAF, AT_OTHER (of a wrapper: its key alone) */
    struct rx_wrapped wrapped; /* AT_WRAPPER */
};

/* ---- change.c ---- */
/*
 * p->node NULL; or *p of another key in the same epoch, which shares that many bytes with op's.
 * Ordering: as rx_find(); the answer is only a plan, verified under the locks. RX_I_RESTART, RX_E_CORRUPT.
 */
int rx_locate(struct rx_thread *t, const struct rx_op *op, uint64_t shared, struct rx_place *p);
/* One attempt, inside the epoch: puts op's value where p says. RX_I_RESTART and other RX_I_*: nothing was changed. */
int rx_put_at(struct rx_thread *t, struct rx_op *op, struct rx_place *p);
/* The steps of an attempt. */
unsigned rx_shape_to_make(const struct rx_thread *t, unsigned children, uint64_t prefix_len);
rx_ref rx_new_node(struct rx_thread *t, unsigned i, unsigned shape, uint64_t level, const uint8_t *prefix,
                   uint64_t prefix_len, rx_ref term, const uint8_t *bytes, const rx_ref *refs, unsigned count);
void rx_unlink_cells(struct rx_thread *t, unsigned n, rx_ref a, rx_ref b, rx_ref c);
int rx_lock_node(struct rx_thread *t, const struct rx_place *p);
int rx_lock_pair(struct rx_thread *t, const struct rx_place *p);
int rx_moved(struct rx_thread *t, unsigned locks);
int rx_commit_or_unlock(struct rx_thread *t, unsigned locks, const rx_ref *slot, rx_ref old, rx_ref new, int delta);

/* ---- remove.c ---- */
/* As rx_put_at(): takes the leaf at p out. */
int rx_remove_at(struct rx_thread *t, const struct rx_op *op, struct rx_place *p);
int rx_clear_slot(struct rx_thread *t, struct rx_place *p); /* never merges */

/* ---- attempt.c, writing.c ---- */
/* Inside an epoch: one attempt at op; shared and p as for rx_locate(). */
int rx_attempt(struct rx_thread *t, struct rx_op *op, uint64_t shared, struct rx_place *p);
/* Before the epoch: the in-use mark, the generation, an arena, room in the log. */
int rx_prepare(struct rx_thread *t);
/* The log takes so many bytes, or RX_E_FULL and nothing was changed; before the first lock. */
int rx_admit(struct rx_thread *t, uint64_t bytes, bool removes);
/* After it: does or waits for what an attempt that returned rc could not; RX_OK: try again. */
int rx_resolve(struct rx_thread *t, int rc, unsigned tries);

static inline uint64_t rx_any_leaf_size(uint64_t key_len, uint64_t value_len)
{
    return rx_leaf_is_small(key_len, value_len) ? rx_leaf_size(key_len, value_len) : rx_big_size(key_len, value_len);
}

/*
 * Inside an epoch: is the batch of op still what our arena works on?  RX_I_MOVED: a generation
 * has ended, and the batch with it.  RX_MISMATCH: nothing can be installed any more, it was aborted.
 */
static inline int rx_batch_holds(struct rx_thread *t, const struct rx_op *op)
{
    struct rx_batch *b = (struct rx_batch *)(void *)(t->base + op->batch);
    if (t->map->generation != op->generation || rx_load(&t->arena->batch) != op->batch)
        return RX_I_MOVED;
    if (op->change != RX_WRAP)
        return RX_OK;
    if ((rx_load(&b->state) & 3) != RX_B_PENDING)
        return RX_MISMATCH;
    rx_store(&b->progress, ++t->progress);
    return RX_OK;
}

static inline bool rx_node_full(struct rx_node *n, unsigned shape)
{
    return rx_shape_kind(shape) != RX_K_N256 && rx_load8(&n->count) >= rx_shape_slots(shape);
}

/* Node256 keeps a hint of its live children, under its lock; a crash may leave it off by one. */
static inline void rx_node_hint(struct rx_node *n, int delta)
{
    int hint = rx_load8(&n->count) + delta;
    rx_store8(&n->count, (uint8_t)(hint < 0 ? 0 : hint > 255 ? 255 : hint));
}

#endif
