/*
 * cursor.c -- ordered walk over the leaves.
 *
 * The term of a node (the key that ends there) comes before all its children, since
 * it is a prefix of theirs.  A frame holds its next children already loaded: by the time
 * they are wanted their cache lines have come.  A child loaded early is as good as one
 * loaded late: what was in the tree then is readable until the epoch is left, and a key that
 * is present during the whole scan hangs below it (P2).
 *
 * Bounds    references are checked when a node is entered, a child lies deeper than its
 *           parent, and levels end at RX_KEY_MAX: no bytes make a walk go in circles.
 */
#include <stdlib.h>
#include "gather.h"

#define RX_FIRST_WINDOW 4
#define RX_FIRST_DEPTH 8

void rx_cursor_init(struct rx_cursor *c) { *c = (struct rx_cursor){.wanted = UINT32_MAX}; }

void rx_cursor_free(struct rx_cursor *c)
{
    free(c->stack);
    rx_cursor_init(c);
}

static int rx_cursor_grow(struct rx_cursor *c)
{
    uint32_t capacity = c->capacity ? c->capacity * 2 : RX_FIRST_DEPTH;
    struct rx_frame *stack = rx_sys_realloc(c->stack, capacity * sizeof *stack);
    if (stack == NULL)
        return rx_fail(RX_E_MEMORY, 0, "for a walk %u nodes deep", capacity);
    c->stack = stack;
    c->capacity = capacity;
    return RX_OK;
}

/* Pushes a frame; *prefix_len is what was checked. */
static int rx_cursor_push(struct rx_cursor *c, rx_ref ref, uint32_t level, uint32_t *prefix_len)
{
    struct rx_node *n;
    int rc = rx_node_check(c->map, ref, level, &n);
    if (RX_UNLIKELY(rc))
        return rc;
    /* Read again, as the cell may be reused under an evicted reader: hence checked again. */
    uint64_t header = rx_load((const uint64_t *)(const void *)n);
    uint32_t len = (uint32_t)(header >> 16) & 0xffff, shape = rx_ref_shape(ref);
    if (RX_UNLIKELY(len > 0 && !rx_in_file(c->map, rx_ref_off(ref), rx_node_fixed(shape) + (uint64_t)len)))
        return rx_corrupt(rx_ref_off(ref), "a node's prefix leads outside the file");
    if (RX_UNLIKELY(level > RX_KEY_MAX || len > RX_KEY_MAX - level))
        return rx_corrupt(rx_ref_off(ref), "a node lies deeper than any key is long");
    if (RX_UNLIKELY(c->depth == c->capacity) && (rc = rx_cursor_grow(c)) != RX_OK)
        return rc;
    struct rx_frame *f = &c->stack[c->depth++];
    f->node = n; /* not as a literal: the arrays need not be cleared */
    f->below = level + len + 1;
    f->shape = (uint8_t)shape;
    f->at = f->soft = f->count = 0;
    f->taken = f->asked = f->loaded = 0;
    f->nodes = 0;
    f->most = rx_shape_kind(shape) <= RX_K_N16 ? RX_WINDOW : RX_FIRST_WINDOW; /* small nodes: all in one go */
    f->from = c->reverse ? 255 : RX_TERM;
    *prefix_len = len;
    return RX_OK;
}

int rx_cursor_enter(struct rx_cursor *c, rx_ref node, uint32_t level)
{
    uint32_t prefix_len;
    int rc = rx_cursor_barren(c, node);
    return RX_UNLIKELY(rc) ? rc : rx_cursor_push(c, node, level, &prefix_len);
}

int rx_cursor_next(struct rx_cursor *c, rx_ref *child, uint32_t *level)
{
    for (; c->depth; c->depth--) {
        struct rx_frame *f = &c->stack[c->depth - 1];
        if (f->at == f->soft) {
            int rc = rx_frame_fill(c, f);
            if (RX_UNLIKELY(rc))
                return rc;
            if (f->at == f->soft)
                continue;
        }
        *level = f->below;
        *child = f->run[f->at++];
        return RX_OK;
    }
    return RX_END;
}

int rx_cursor_step_slow(struct rx_cursor *c, rx_ref *leaf)
{
    for (;;) {
        uint32_t level;
        int rc = rx_cursor_next(c, leaf, &level);
        if (RX_UNLIKELY(rc))
            return rc;
        if (RX_LIKELY(rx_ref_is_leaf(*leaf))) {
            c->barren = 0;
            return RX_OK;
        }
        rc = rx_cursor_enter(c, *leaf, level);
        if (rc == RX_OK)
            rc = rx_frame_fill(c, &c->stack[c->depth - 1]);
        if (RX_UNLIKELY(rc))
            return rc;
    }
}

/* ---- placing ------------------------------------------------------------------ */

int rx_cursor_below(struct rx_cursor *c, struct rx_map *map, rx_ref node, uint32_t level)
{
    c->map = map;
    c->depth = 0;
    c->barren = 0;
    return rx_cursor_enter(c, node, level);
}

/* How a subtree or a leaf lies to the bound. */
enum rx_side { RX_BELOW_BOUND, RX_AT_BOUND, RX_ABOVE_BOUND };

/*
 * The node just pushed, whose path agrees with the bound up to `level`, against the
 * bound.  RX_AT_BOUND: its whole path does.  A bound that ends inside the prefix is
 * less than every key below.
 */
static enum rx_side rx_side_of_node(const struct rx_frame *f, uint32_t level, uint32_t prefix_len,
                                    const uint8_t *bound, uint64_t bound_len)
{
    uint64_t rest = bound_len - level, common = rest < prefix_len ? rest : prefix_len;
    int order = common ? memcmp(rx_node_prefix(f->node, f->shape), bound + level, common) : 0;
    if (order < 0)
        return RX_BELOW_BOUND;
    return order > 0 || common < prefix_len ? RX_ABOVE_BOUND : RX_AT_BOUND;
}

static int rx_side_of_leaf(struct rx_map *map, rx_ref ref, const uint8_t *bound, uint64_t bound_len,
                           enum rx_side *side)
{
    struct rx_leaf_view v;
    int rc = rx_leaf_view(map, ref, &v);
    if (rc)
        return rc;
    uint64_t common = v.key_len < bound_len ? v.key_len : bound_len;
    int order = common ? memcmp(v.key, bound, common) : 0;
    if (order == 0)
        order = (v.key_len > bound_len) - (v.key_len < bound_len);
    *side = order < 0 ? RX_BELOW_BOUND : order > 0 ? RX_ABOVE_BOUND : RX_AT_BOUND;
    return RX_OK;
}

/*
 * Descends along the bound and leaves each frame on its way just past the byte it went
 * down by.  `skip` is the side to leave out: what lies there, and at the bound too when
 * `skip_equal`, will not be visited.
 */
static int rx_cursor_place(struct rx_cursor *c, const uint8_t *bound, uint64_t bound_len, enum rx_side skip,
                           bool skip_equal)
{
    rx_ref ref = RX_ROOT_OFF | RX_K_N256;
    uint32_t level = 0, prefix_len;
    for (;;) {
        if (level + (ref >> 56) < bound_len)
            rx_cursor_send_slots(c, ref, bound[level + (ref >> 56)]);
        int rc = rx_cursor_push(c, ref, level, &prefix_len);
        if (rc)
            return rc;
        struct rx_frame *f = &c->stack[c->depth - 1];
        enum rx_side side = rx_side_of_node(f, level, prefix_len, bound, bound_len);
        if (side != RX_AT_BOUND) {
            c->depth -= side == skip; /* else from its outermost entry, as pushed */
            return RX_OK;
        }
        uint64_t at = level + prefix_len;
        if (at == bound_len) { /* the term is the bound; the children lie above it */
            f->from = c->reverse ? (skip_equal ? RX_BEFORE : RX_TERM) : (skip_equal ? 0 : RX_TERM);
            return RX_OK;
        }
        int16_t byte = bound[at];
        f->from = (int16_t)(c->reverse ? byte - 1 : byte + 1);
        rx_ref *slot = rx_node_find(f->node, f->shape, (uint8_t)byte);
        ref = slot ? rx_load(slot) : 0;
        if (RX_UNLIKELY(c->map->fences) && slot)
            rx_settle_link(f->node, slot);
        if (ref == 0)
            return RX_OK;
        if (rx_ref_is_leaf(ref)) {
            rc = rx_side_of_leaf(c->map, ref, bound, bound_len, &side);
            if (rc == RX_ABSENT) /* its batch has removed it */
                return RX_OK;
            if (rc == RX_OK && side != skip && !(side == RX_AT_BOUND && skip_equal)) {
                f->run[0] = ref; /* the very one that was judged */
                f->soft = f->count = 1;
            }
            return rc;
        }
        level = f->below;
    }
}

/* Placed: what the walk will come to first is sent for, all of it side by side. */
static int rx_cursor_placed(struct rx_cursor *c)
{
    if (!c->eager || c->depth == 0)
        return RX_OK;
    struct rx_frame *f = &c->stack[c->depth - 1];
    return rx_frame_fill(c, f); /* behind the leaf that was judged, if there is one */
}

int rx_cursor_seek(struct rx_cursor *c, struct rx_map *map, const uint8_t *bound, uint64_t bound_len, bool after)
{
    c->reverse = false;
    if (bound == NULL)
        return rx_cursor_below(c, map, RX_ROOT_OFF | RX_K_N256, 0);
    c->map = map;
    c->depth = 0;
    c->barren = 0;
    int rc = rx_cursor_place(c, bound, bound_len, RX_BELOW_BOUND, after);
    return rc ? rc : rx_cursor_placed(c);
}

int rx_cursor_seek_down(struct rx_cursor *c, struct rx_map *map, const uint8_t *bound, uint64_t bound_len,
                        bool inclusive)
{
    c->reverse = true;
    if (bound == NULL)
        return rx_cursor_below(c, map, RX_ROOT_OFF | RX_K_N256, 0);
    c->map = map;
    c->depth = 0;
    c->barren = 0;
    int rc = rx_cursor_place(c, bound, bound_len, RX_ABOVE_BOUND, !inclusive);
    return rc ? rc : rx_cursor_placed(c);
}
