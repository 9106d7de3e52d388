/*
 * remove.c -- taking a key out: the slot becomes null, or the node shrinks, merges with its
 * only child, or goes (I4).  The steps are those of change.c.
 */
#include "change.h"
#include "lock.h"

/* Only the slot becomes null; the node keeps it for its byte. */
int rx_clear_slot(struct rx_thread *t, struct rx_place *p)
{
    int rc = rx_reserve(t, NULL, 0, 1);
    if (rc || (rc = rx_lock_node(t, p)) != RX_OK)
        return rc;
    if (rx_load(p->slot) != p->ref)
        return rx_moved(t, 1);
    rx_unlink_cells(t, !t->quiet, p->ref, 0, 0);
    if (rx_shape_kind(p->shape) == RX_K_N256 && p->slot != &p->node->term)
        rx_node_hint(p->node, -1);
    return rx_commit_or_unlock(t, 1, p->slot, p->ref, 0, -1);
}

/* The entries of p->node but the one being removed; returns their number, *term apart. */
static unsigned rx_others(const struct rx_place *p, uint8_t *bytes, rx_ref *refs, rx_ref *term)
{
    unsigned count = (unsigned)rx_node_children(p->node, p->shape, bytes, refs);
    *term = rx_load(&p->node->term);
    if (p->slot == &p->node->term) {
        *term = 0;
        return count;
    }
    for (unsigned i = 0; i < count; i++)
        if (refs[i] == p->ref) {
            memmove(bytes + i, bytes + i + 1, count - i - 1);
            memmove(refs + i, refs + i + 1, (count - i - 1) * sizeof(rx_ref));
            return count - 1;
        }
    return count;
}

/*
 * The node goes, its last other entry (a leaf, or nothing) takes its place; or the node
 * is copied without the entry to a smaller kind (a wide Node48 perhaps to a whole one, which
 * has fewer slots).  One commit to the parent's slot.
 */
static int rx_remove_shrinking(struct rx_thread *t, struct rx_place *p, unsigned shape)
{
    uint8_t bytes[256];
    rx_ref refs[256], term, last;
    uint64_t size = shape ? rx_node_size(shape, (unsigned)p->node_prefix) : 0;
    int rc = rx_reserve(t, &size, shape != 0, 2);
    if (rc || (rc = rx_lock_pair(t, p)) != RX_OK)
        return rc;
    if (rx_load(p->slot) != p->ref)
        return rx_moved(t, 2);
    unsigned count = rx_others(p, bytes, refs, &term);
    if (shape) {
        if (!rx_shape_holds(shape, count) || count + (term != 0) < 2)
            return rx_moved(t, 2);
        last = rx_new_node(t, 0, shape, p->level, rx_node_prefix(p->node, p->shape), p->node_prefix, term, bytes, refs,
                           count);
    } else {
        last = term ? term : count ? refs[0] : 0;
        if (count + (term != 0) > 1 || (last && !rx_ref_is_leaf(last)))
            return rx_moved(t, 2);
    }
    rx_unlink_cells(t, 2 - t->quiet, p->node_ref, p->ref, 0);
    return rx_commit_or_unlock(t, 2, p->parent_slot, p->node_ref, last, -1);
}

/* The node's last other entry is a node: a copy of it with the joined prefix takes over. */
static int rx_remove_merging(struct rx_thread *t, struct rx_place *p, rx_ref child_ref, uint8_t child_byte,
                             struct rx_node *child)
{
    uint8_t bytes[256], prefix[RX_PREFIX_MAX + 1];
    rx_ref refs[256], term;
    unsigned child_shape = rx_ref_shape(child_ref);
    unsigned joined = (unsigned)p->node_prefix + 1 + child->prefix_len;
    unsigned shape = rx_shape_to_make(t, (unsigned)rx_node_live(child, child_shape), joined);
    uint64_t size = rx_node_size(shape, joined);
    int rc = rx_reserve(t, &size, 1, 3);
    if (rc || (rc = rx_lock_pair(t, p)) != RX_OK)
        return rc;
    unsigned count = rx_load(p->slot) == p->ref ? rx_others(p, bytes, refs, &term) : 0;
    if (count != 1 || term || refs[0] != child_ref)
        return rx_moved(t, 2);
    if ((rc = rx_try_lock(t, rx_ref_off(child_ref), 2)) != RX_OK) {
        rx_unlock_all(t, 2);
        return rc;
    }
    count = (unsigned)rx_node_children(child, child_shape, bytes, refs);
    if (!rx_shape_holds(shape, count))
        return rx_moved(t, 3);
    memcpy(prefix, rx_node_prefix(p->node, p->shape), p->node_prefix);
    prefix[p->node_prefix] = child_byte;
    memcpy(prefix + p->node_prefix + 1, rx_node_prefix(child, child_shape), child->prefix_len);
    term = rx_load(&child->term);
#ifdef ROWEX_CANARY_MERGED_TERM /* a broken build on purpose: fuzz/fuzz_guided_ops.c must notice */
    term = rx_shape_kind(child_shape) == RX_K_N48 && p->slot == &p->node->term ? 0 : term;
#endif
    rx_ref copy = rx_new_node(t, 0, shape, p->level, prefix, joined, term, bytes, refs, count);
    rx_unlink_cells(t, 3 - t->quiet, p->node_ref, child_ref, p->ref);
    return rx_commit_or_unlock(t, 3, p->parent_slot, p->node_ref, copy, -1);
}

/* With this many children, or fewer, a node should shrink to the kind that they need. */
static unsigned rx_shrinks_at(unsigned shape)
{
    static const uint8_t at[] = {[RX_K_N16] = 3, [RX_K_N48] = 12, [RX_K_N256] = 40};
    return rx_shape_is_wide(shape) ? at[RX_K_N256] : at[rx_shape_kind(shape)];
}

/*
 * Neither merging nor shrinking can be due; of a wide Node48, whose slots fill many lines, it is
 * not worth a look: those beside the one that goes are in use, and the last few never are.
 */
static bool rx_stays_as_it_is(const struct rx_place *p, unsigned shrinks_at)
{
    unsigned kind = rx_shape_kind(p->shape);
    if (kind == RX_K_N256)
        return rx_load8(&p->node->count) > shrinks_at + 4;
    if (rx_shape_is_wide(p->shape) && rx_node_crowded(p->node, p->shape, p->slot))
        return true;
    return rx_node_lives_above(p->node, p->shape, kind == RX_K_N4 ? 2 : shrinks_at + 1);
}

/* Tries the structural removal; RX_I_RESTART with *plain set: do the plain one instead. */
static int rx_remove_structural(struct rx_thread *t, struct rx_place *p, bool *plain)
{
    uint8_t bytes[256];
    rx_ref refs[256], term;
    unsigned shrinks_at = rx_shrinks_at(p->shape);
    *plain = true;
    if (rx_stays_as_it_is(p, shrinks_at))
        return RX_I_RESTART;
    *plain = false;
    unsigned count = rx_others(p, bytes, refs, &term), entries = count + (term != 0);
    if (entries <= 1 && (entries == 0 || term || rx_ref_is_leaf(refs[0])))
        return rx_remove_shrinking(t, p, 0);
    if (entries >= 2 && count <= shrinks_at)
        return rx_remove_shrinking(t, p, rx_shape_to_make(t, count, p->node_prefix));
    *plain = true;
    if (entries != 1) {
        if (rx_shape_kind(p->shape) == RX_K_N256) /* the hint was wrong: a later removal looks again */
            rx_store8(&p->node->count, (uint8_t)(count > 255 ? 255 : count));
        return RX_I_RESTART;
    }
    struct rx_node *child;
    uint32_t level = p->level + (uint32_t)p->node_prefix + 1;
    int rc = rx_node_check(t->map, refs[0], level, &child);
    if (rc)
        return rc;
    if (p->node_prefix + 1 + child->prefix_len > RX_PREFIX_MAX)
        return RX_I_RESTART;
    *plain = false;
    return rx_remove_merging(t, p, refs[0], bytes[0], child);
}

int rx_remove_at(struct rx_thread *t, const struct rx_op *op, struct rx_place *p)
{
    bool plain = true;
    rx_will_log(t, p->ref, RX_L_REMOVE);
    if (p->parent_slot && !op->plain) {
        int rc = rx_remove_structural(t, p, &plain);
        bool busy = rc == RX_I_RESTART && t->waited_uid != 0;
        if (rc < 0 || (!plain && !busy))
            return rc;
        rx_unreserve(t); /* nothing to do, or a neighbour is held: given up (R1) */
    }
    return rx_clear_slot(t, p);
}
