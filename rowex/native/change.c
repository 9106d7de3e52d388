/*
 * change.c -- changing one key.  An attempt is: descend without locks to where the
 * key belongs; plan (which cells, which nodes); reserve (R2); lock, parent before
 * child (R1); look again whether the plan still fits; build; commit by one store
 * (R3).  When anything moved meanwhile the attempt is undone and made anew.
 *
 * I4  Every node but the root has at least two entries (children and term), unless
 *     merging was given up because a neighbour was locked, or its parent's prefix
 *     would grow past RX_PREFIX_MAX.
 */
#include "change.h"
#include "lock.h"

/* ---- where a key belongs ---------------------------------------------------- */

static bool rx_sound(const struct rx_node *n) { return !(rx_load(&n->lock) & RX_OBSOLETE); }

static rx_off rx_offset_of(const struct rx_thread *t, const rx_ref *slot)
{
    return (rx_off)((const uint8_t *)slot - t->base);
}

/* What a slot's leaf is to the key: RX_AT_LEAF, RX_AT_OTHER, or an error. */
static int rx_place_leaf(struct rx_thread *t, const struct rx_op *op, struct rx_place *p, bool ends)
{
    int rc = RX_OK;
    if (RX_UNLIKELY(rx_ref_is_wrapper(p->ref))) { /* it stands where its key belongs, whatever it stands for */
        rc = rx_wrapper_view(t->map, p->ref, &p->wrapped);
        p->leaf.key = p->wrapped.key;
        p->leaf.key_len = p->wrapped.key_len;
    } else {
        rc = rx_leaf_view(t->map, p->ref, &p->leaf);
    }
    if (rc)
        return rc;
    uint64_t depth = p->level + p->node_prefix + !ends;
    p->common = rx_common(p->leaf.key, p->leaf.key_len, op->key, op->key_len, 0);
    if (p->common == op->key_len && p->leaf.key_len == op->key_len)
        p->at = rx_ref_is_wrapper(p->ref) ? RX_AT_WRAPPER : RX_AT_LEAF;
    else if (p->common < depth || ends)
        return rx_corrupt(rx_ref_off(p->ref), "a leaf's key does not belong where it hangs");
    else
        p->at = RX_AT_OTHER;
    return RX_OK;
}

/*
 * The child's header says where its prefix ends, and so which slot comes next; the reference
 * says so too, and both lines can be on their way at once.
 */
__attribute__((always_inline)) static inline void rx_expect(const struct rx_thread *t, const struct rx_op *op, rx_ref child, uint64_t level)
{
    uint64_t at = level + (child >> 56);
    __builtin_prefetch(t->base + rx_ref_off(child), 1);
    if (at < op->key_len)
        rx_prefetch_hop(t->base, child, op->key[at]);
    rx_prefetch_guess(t->base, child, op->key, op->key_len, level);
}

/* At the node where the last key was found, where the next one's way leads there too; else at the root. */
static inline void rx_begin_at(struct rx_thread *t, uint64_t shared, struct rx_place *p)
{
    if (p->node && p->level <= shared && rx_sound(p->node)) {
        p->slot = NULL;
        p->ref = 0;
        return;
    }
    memset(p, 0, offsetof(struct rx_place, leaf));
    p->node_ref = RX_ROOT_OFF | RX_K_N256;
    p->node = rx_node_at(t->base, RX_ROOT_OFF);
}

/*
 * A way that begins in the middle is that of a writer who came down in the same epoch, when
 * the last key did, by the bytes that both share, and has stood still at that node since: no
 * cell that it names is used again before the epoch ends, and whatever was changed meanwhile
 * the locks tell, as for any writer who stands still on its way.  That the node is not known
 * to be obsolete only saves an attempt.
 * Ordering  as rx_find(); the answer is only a plan, verified under the locks.
 * Returns   RX_OK with *p, RX_I_RESTART, RX_E_CORRUPT.
 */
int rx_locate(struct rx_thread *t, const struct rx_op *op, uint64_t shared, struct rx_place *p)
{
    rx_begin_at(t, shared, p);
    for (;;) {
        const uint8_t *prefix = rx_node_prefix(p->node, p->shape = rx_ref_shape(p->node_ref));
        p->node_prefix = p->node->prefix_len;
        uint64_t depth = p->level, rest = op->key_len - depth, n = p->node_prefix;
        p->common = rx_common(prefix, n, op->key + depth, rest, 0);
        if (p->common < n) {
            p->at = RX_AT_PREFIX;
            return p->parent_slot ? RX_OK : rx_corrupt(RX_ROOT_OFF, "the root has a prefix");
        }
        depth += n;
        bool ends = depth == op->key_len;
        p->slot = ends ? &p->node->term : rx_node_find(p->node, p->shape, op->key[depth]);
        if (!p->slot) {
            p->at = RX_AT_NOTHING;
            return RX_OK;
        }
        p->ref = rx_load(p->slot);
        if (p->ref == 0) {
            p->at = RX_AT_EMPTY;
            return RX_OK;
        }
        if (rx_ref_is_leaf(p->ref))
            return rx_place_leaf(t, op, p, ends);
        struct rx_node *child;
        rx_expect(t, op, p->ref, depth + 1);
        int rc = rx_node_check(t->map, p->ref, (uint32_t)depth + 1, &child);
        if (rc || ends)
            return rc ? rc : rx_corrupt(rx_offset_of(t, p->slot), "a node hangs where a key ends");
        p->parent_ref = p->node_ref;
        p->parent_slot = p->slot;
        p->node_ref = p->ref;
        p->node = child;
        p->level = (uint32_t)depth + 1;
    }
}

/* ---- building blocks ------------------------------------------------------------ */

static rx_off rx_cell(struct rx_thread *t, unsigned i) { return rx_load_rlx(&t->arena->reserved[RX_RSV_OP + i]); }

/* Of what a put hangs into the tree. */
static uint64_t rx_new_size(const struct rx_op *op)
{
    return op->change == RX_WRAP ? sizeof(struct rx_wrapper) : rx_any_leaf_size(op->key_len, op->value_len);
}

/* The item names it before the tree does: whoever finishes the batch finds it. */
static rx_ref rx_new_wrapper(struct rx_thread *t, const struct rx_op *op, rx_ref old)
{
    struct rx_batch *b = (struct rx_batch *)(void *)(t->base + op->batch);
    rx_off off = rx_cell(t, 0);
    struct rx_wrapper *w = (struct rx_wrapper *)(void *)(t->base + off);
    rx_store_rlx(&w->batch, op->batch);
    rx_store_rlx(&w->index, op->item);
    rx_store_rlx(&w->old, old);
    rx_store(&w->header, rx_head_sized(RX_K_WRAPPER, sizeof *w));
    rx_flush(t->map->fences, w, sizeof *w);
    rx_store(&b->item[op->item].wrapper, off);
    rx_flush(t->map->fences, &b->item[op->item].wrapper, 8);
    return rx_ref_make(off, RX_K_WRAPPER, 0);
}

static rx_ref rx_new_leaf(struct rx_thread *t, const struct rx_op *op, rx_ref old)
{
    if (RX_UNLIKELY(op->change == RX_WRAP))
        return rx_new_wrapper(t, op, old);
    rx_ref leaf = rx_leaf_build(t->base, rx_cell(t, 0), op->key, op->key_len, op->value, op->value_len,
                                t->map->checksum, t->map->fences);
    rx_will_log(t, leaf, RX_L_PUT);
    return leaf;
}

/* Build a node in reserved cell i; its reference. */
rx_ref rx_new_node(struct rx_thread *t, unsigned i, unsigned shape, uint64_t level, const uint8_t *prefix,
                          uint64_t prefix_len, rx_ref term, const uint8_t *bytes, const rx_ref *refs, unsigned count)
{
    rx_off off = rx_cell(t, i);
    rx_node_build(rx_node_at(t->base, off), shape, (uint32_t)level, prefix, (unsigned)prefix_len, term, bytes, refs,
                  count, t->map->fences);
    return rx_ref_make(off, shape, (unsigned)prefix_len);
}

void rx_unlink_cells(struct rx_thread *t, unsigned n, rx_ref a, rx_ref b, rx_ref c)
{
    const rx_ref refs[3] = {a, b, c};
    for (unsigned i = 0; i < n; i++)
        rx_store_rlx(&t->arena->unlinked[i], rx_ref_off(refs[i]));
    rx_store_rlx(&t->arena->unlinked_count, n);
}

/* Locks the node of p alone; RX_I_RESTART when it is held or gone. */
int rx_lock_node(struct rx_thread *t, const struct rx_place *p)
{
    int rc = rx_try_lock(t, rx_ref_off(p->node_ref), 0);
    /* The parent's slot still refers to it, or it would be obsolete; checked all the same (R1). */
    if (rc == RX_OK && p->parent_slot && rx_load(p->parent_slot) != p->node_ref &&
        rx_sound(rx_node_at(t->base, rx_ref_off(p->parent_ref)))) {
        rx_unlock_all(t, 1);
        t->waited_uid = 0;
        rc = RX_I_RESTART;
    }
    return rc;
}

/* Locks parent and node; the parent's slot then refers to the node. */
int rx_lock_pair(struct rx_thread *t, const struct rx_place *p)
{
    int rc = rx_try_lock(t, rx_ref_off(p->parent_ref), 0);
    if (rc)
        return rc;
    if (rx_load(p->parent_slot) != p->node_ref) {
        t->waited_uid = 0;
        rc = RX_I_RESTART;
    } else {
        rc = rx_try_lock(t, rx_ref_off(p->node_ref), 1);
    }
    if (rc)
        rx_unlock_all(t, 1);
    return rc;
}

/* Someone was faster: let go and start again at once. */
int rx_moved(struct rx_thread *t, unsigned locks)
{
    rx_unlock_all(t, locks);
    t->waited_uid = 0;
    return RX_I_RESTART;
}

int rx_commit_or_unlock(struct rx_thread *t, unsigned locks, const rx_ref *slot, rx_ref old, rx_ref new, int delta)
{
    int rc = rx_commit(t, rx_offset_of(t, slot), old, new, t->quiet ? 0 : delta);
    if (rc && rx_load_rlx(&t->arena->armed) == 0)
        rx_unlock_all(t, locks);
    return rc;
}

/* ---- putting ---------------------------------------------------------------------- */

/* The slot exists: its leaf is replaced, or it is empty. */
static int rx_set_slot(struct rx_thread *t, struct rx_op *op, struct rx_place *p)
{
    uint64_t size = rx_new_size(op);
    bool replaces = p->at == RX_AT_LEAF;
    int rc = rx_reserve(t, &size, 1, replaces);
    if (rc)
        return rc;
    rx_ref leaf = rx_new_leaf(t, op, replaces ? p->ref : 0);
    if ((rc = rx_lock_node(t, p)) != RX_OK)
        return rc;
#ifdef ROWEX_CANARY_NO_RECHECK /* a broken build on purpose: fuzz/linear.py and fuzz/schedules.c must notice */
    if (op->change == RX_CAS && replaces && rx_ref_is_leaf(rx_load(p->slot)) && !rx_ref_is_wrapper(rx_load(p->slot)))
        p->ref = rx_load(p->slot);
#endif
    if (rx_load(p->slot) != p->ref)
        return rx_moved(t, 1);
    rx_unlink_cells(t, replaces && !t->quiet, p->ref, 0, 0);
    if (!replaces && rx_shape_kind(p->shape) == RX_K_N256 && p->slot != &p->node->term)
        rx_node_hint(p->node, 1);
    if (RX_UNLIKELY(t->map->fences) && !replaces && p->slot != &p->node->term)
        rx_node_persist_given(p->node, p->shape, op->key[p->level + p->node_prefix]);
    return rx_commit_or_unlock(t, 1, p->slot, p->ref, leaf, !replaces);
}

/* The byte has no slot and the node has one to give. */
static int rx_give_slot(struct rx_thread *t, struct rx_op *op, struct rx_place *p, uint8_t byte)
{
    uint64_t size = rx_new_size(op);
    int rc = rx_reserve(t, &size, 1, 0);
    if (rc)
        return rc;
    rx_ref leaf = rx_new_leaf(t, op, 0);
    if ((rc = rx_lock_node(t, p)) != RX_OK)
        return rc;
    if (rx_node_find(p->node, p->shape, byte))
        return rx_moved(t, 1); /* given meanwhile */
    rx_ref *slot = rx_node_give(p->node, p->shape, byte, t->map->fences);
    if (!slot)
        return rx_moved(t, 1); /* used up meanwhile */
    rx_unlink_cells(t, 0, 0, 0, 0);
    return rx_commit_or_unlock(t, 1, slot, 0, leaf, 1);
}

/* Bytes of a writer's: with less, the copies that a node without spare slots costs later are not worth it. */
#if defined(ROWEX_POISON) || defined(ROWEX_CRASHPOINTS) /* fuzzers and scenarios have small files */
#define RX_MUCH_FREE 1u
#else
#define RX_MUCH_FREE (256u << 10)
#endif

/*
 * The shape of a node to be made for so many children: the kind that they need, with all its slots; where much is free,
 * and just such a cell, with fewer.  What the growth of nodes made in bulk leaves behind has sizes that nothing else
 * wants, and would stay free for ever.
 */
unsigned rx_shape_to_make(const struct rx_thread *t, unsigned children, uint64_t prefix_len)
{
    static const struct { uint8_t kind, unit, spare, most; } tight[] = {
        [RX_K_N4] = {RX_K_N4, 1, 0, 3},
        [RX_K_N16] = {RX_K_N16, 1, 1, 15},
        [RX_K_N48] = {RX_K_N48, 16, 4, 2},
        [RX_K_N256] = {RX_K_N48, 16, 4, 8},
    };
    unsigned whole = rx_kind_for(children), unit = tight[whole].unit, wanted = children + tight[whole].spare;
    unsigned code = (wanted + unit - 1) / unit, most = tight[whole].most, prefix = (unsigned)prefix_len;
    if (RX_LIKELY(rx_load_rlx(&t->arena->free_bytes) < RX_MUCH_FREE))
        return whole;
    for (code += code == 0; code <= most; code++) {
        unsigned shape = tight[whole].kind | code << 4;
        if (rx_cell_at_hand(t->arena, rx_node_size(shape, prefix)))
            return shape;
    }
    return whole;
}

/* All slots are given: the node is copied, with the new child, to a larger one. */
static int rx_copy_larger(struct rx_thread *t, struct rx_op *op, struct rx_place *p, uint8_t byte)
{
    uint8_t bytes[257];
    rx_ref refs[257];
    unsigned shape = rx_shape_to_make(t, (unsigned)rx_node_live(p->node, p->shape) + 1, p->node_prefix);
    uint64_t sizes[2] = {rx_new_size(op), rx_node_size(shape, (unsigned)p->node_prefix)};
    int rc = rx_reserve(t, sizes, 2, 1);
    if (rc)
        return rc;
    rx_ref leaf = rx_new_leaf(t, op, 0);
    if ((rc = rx_lock_pair(t, p)) != RX_OK)
        return rc;
    unsigned count = (unsigned)rx_node_children(p->node, p->shape, bytes, refs), at = 0;
    if (rx_node_find(p->node, p->shape, byte) || !rx_shape_holds(shape, count + 1))
        return rx_moved(t, 2);
    while (at < count && bytes[at] < byte)
        at++;
    memmove(bytes + at + 1, bytes + at, count - at);
    memmove(refs + at + 1, refs + at, (count - at) * sizeof(rx_ref));
    bytes[at] = byte;
    refs[at] = leaf;
    rx_ref copy = rx_new_node(t, 1, shape, p->level, rx_node_prefix(p->node, p->shape), p->node_prefix,
                              rx_load(&p->node->term), bytes, refs, count + 1);
    rx_unlink_cells(t, 1, p->node_ref, 0, 0);
    return rx_commit_or_unlock(t, 2, p->parent_slot, p->node_ref, copy, 1);
}

/* A node, of shape, over what was in a slot and the new leaf; `common` is where the two keys part. */
static rx_ref rx_fork(struct rx_thread *t, unsigned cell, unsigned shape, const struct rx_op *op, uint64_t level,
                      uint64_t common, int old_byte, rx_ref old, rx_ref leaf)
{
    uint8_t bytes[2];
    rx_ref refs[2], term = 0;
    unsigned count = 1;
    if (old_byte < 0) {
        term = old;
        bytes[0] = op->key[common];
        refs[0] = leaf;
    } else if (common == op->key_len) {
        term = leaf;
        bytes[0] = (uint8_t)old_byte;
        refs[0] = old;
    } else {
        unsigned first = old_byte < op->key[common]; /* the new leaf's place */
        bytes[first] = op->key[common];
        refs[first] = leaf;
        bytes[!first] = (uint8_t)old_byte;
        refs[!first] = old;
        count = 2;
    }
    return rx_new_node(t, cell, shape, level, op->key + level, common - level, term, bytes, refs, count);
}

/*
 * The slot holds a leaf of another key: a Node4 takes its place.  What the keys share
 * beyond RX_PREFIX_MAX bytes becomes a chain of Node4s with one child each.
 */
static int rx_split_leaf(struct rx_thread *t, struct rx_op *op, struct rx_place *p)
{
    uint64_t level = p->level + p->node_prefix + 1, step = RX_PREFIX_MAX + 1u;
    uint64_t chain = (p->common - level) / step;
    uint64_t sizes[RX_RSV_OP_MAX];
    sizes[0] = rx_new_size(op);
    unsigned fork = rx_shape_to_make(t, 2, p->common - level - chain * step);
    sizes[1] = rx_node_size(fork, (unsigned)(p->common - level - chain * step));
    for (uint64_t i = 0; i < chain; i++)
        sizes[2 + i] = rx_node_size(RX_K_N4, RX_PREFIX_MAX);
    int rc = rx_reserve(t, sizes, 2 + (int)chain, 0);
    if (rc)
        return rc;
    rx_ref leaf = rx_new_leaf(t, op, 0);
    int old_byte = p->leaf.key_len == p->common ? -1 : p->leaf.key[p->common];
    rx_ref top = rx_fork(t, 1, fork, op, level + chain * step, p->common, old_byte, p->ref, leaf);
    for (uint64_t i = chain; i-- > 0;) {
        uint64_t from = level + i * step;
        top = rx_new_node(t, 2 + (unsigned)i, RX_K_N4, from, op->key + from, RX_PREFIX_MAX, 0,
                          op->key + from + RX_PREFIX_MAX, &top, 1);
    }
    if ((rc = rx_lock_node(t, p)) != RX_OK)
        return rc;
    if (rx_load(p->slot) != p->ref)
        return rx_moved(t, 1);
    rx_unlink_cells(t, 0, 0, 0, 0);
    return rx_commit_or_unlock(t, 1, p->slot, p->ref, top, 1);
}

/* The key leaves the path inside the node's prefix: a Node4 over a copy with the rest of it. */
static int rx_split_prefix(struct rx_thread *t, struct rx_op *op, struct rx_place *p)
{
    uint8_t bytes[256];
    rx_ref refs[256];
    const uint8_t *prefix = rx_node_prefix(p->node, p->shape);
    uint64_t rest = p->node_prefix - p->common - 1;
    unsigned shape = rx_shape_to_make(t, (unsigned)rx_node_live(p->node, p->shape), rest);
    unsigned fork = rx_shape_to_make(t, 2, p->common);
    uint64_t sizes[3] = {rx_new_size(op), rx_node_size(shape, (unsigned)rest),
                         rx_node_size(fork, (unsigned)p->common)};
    int rc = rx_reserve(t, sizes, 3, 1);
    if (rc)
        return rc;
    rx_ref leaf = rx_new_leaf(t, op, 0);
    if ((rc = rx_lock_pair(t, p)) != RX_OK)
        return rc;
    unsigned count = (unsigned)rx_node_children(p->node, p->shape, bytes, refs);
    if (!rx_shape_holds(shape, count))
        return rx_moved(t, 2);
    uint64_t parts = p->level + p->common;
    rx_ref copy = rx_new_node(t, 1, shape, parts + 1, prefix + p->common + 1, rest, rx_load(&p->node->term), bytes,
                              refs, count);
    rx_ref top = rx_fork(t, 2, fork, op, p->level, parts, prefix[p->common], copy, leaf);
    rx_unlink_cells(t, 1, p->node_ref, 0, 0);
    return rx_commit_or_unlock(t, 2, p->parent_slot, p->node_ref, top, 1);
}

int rx_put_at(struct rx_thread *t, struct rx_op *op, struct rx_place *p)
{
    switch (p->at) {
    case RX_AT_LEAF:
    case RX_AT_EMPTY:
        return rx_set_slot(t, op, p);
    case RX_AT_WRAPPER: /* met before */
        return RX_I_RESTART;
    case RX_AT_OTHER:
        return rx_split_leaf(t, op, p);
    case RX_AT_PREFIX:
        return rx_split_prefix(t, op, p);
    case RX_AT_NOTHING:
        break;
    }
    uint8_t byte = op->key[p->level + p->node_prefix];
    if (rx_node_full(p->node, p->shape))
        return rx_copy_larger(t, op, p, byte);
    return rx_give_slot(t, op, p, byte);
}
