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
    RX_AT_PREFIX,  /* the key leaves the path inside the node's prefix */
};

struct rx_place {
    enum rx_at at;
    struct rx_node *node;
    rx_ref node_ref;
    unsigned kind;
    uint32_t level;       /* depth at which the node's prefix begins */
    uint64_t node_prefix; /* its length */
    rx_ref *slot, ref;    /* where the leaf is or goes */
    rx_ref parent_ref, *parent_slot; /* none for the root */
    uint64_t common;      /* AT_PREFIX: bytes of the prefix matched; AT_OTHER: bytes the keys share */
    struct rx_leaf_view leaf; /* AT_LEAF, AT_OTHER */
};

/* ---- change.c ---- */
/* Ordering: as rx_find(); the answer is only a plan, verified under the locks. RX_I_RESTART, RX_E_CORRUPT. */
int rx_locate(struct rx_thread *t, const struct rx_op *op, struct rx_place *p);
/* One attempt, inside the epoch: puts op's value where p says. RX_I_RESTART and other RX_I_*: nothing was changed. */
int rx_put_at(struct rx_thread *t, struct rx_op *op, struct rx_place *p);
/* The steps of an attempt. */
rx_ref rx_new_node(struct rx_thread *t, unsigned i, unsigned kind, uint64_t level, const uint8_t *prefix,
                   uint64_t prefix_len, rx_ref term, const uint8_t *bytes, const rx_ref *refs, unsigned count);
void rx_unlink_cells(struct rx_thread *t, unsigned n, rx_ref a, rx_ref b, rx_ref c);
int rx_lock_node(struct rx_thread *t, const struct rx_place *p);
int rx_lock_pair(struct rx_thread *t, const struct rx_place *p);
int rx_moved(struct rx_thread *t, unsigned locks);
int rx_commit_or_unlock(struct rx_thread *t, unsigned locks, const rx_ref *slot, rx_ref old, rx_ref new, int delta);

/* ---- remove.c ---- */
/* As rx_put_at(): takes the leaf at p out. */
int rx_remove_at(struct rx_thread *t, const struct rx_op *op, struct rx_place *p);

static inline bool rx_node_full(struct rx_node *n, unsigned kind)
{
    return kind != RX_K_N256 && rx_load8(&n->count) >= rx_kind_slots(kind);
}

/* Node256 keeps a hint of its live children, under its lock; a crash may leave it off by one. */
static inline void rx_node_hint(struct rx_node *n, int delta)
{
    int hint = rx_load8(&n->count) + delta;
    rx_store8(&n->count, (uint8_t)(hint < 0 ? 0 : hint > 255 ? 255 : hint));
}

#endif
