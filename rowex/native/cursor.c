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
#include "cursor.h"

#define RX_TERM (-1)
#define RX_BEFORE (-2) /* downwards: nothing left */
#define RX_FIRST_WINDOW 4

void rx_cursor_init(struct rx_cursor *c) { memset(c, 0, sizeof *c); }

void rx_cursor_free(struct rx_cursor *c)
{
    free(c->stack);
    rx_cursor_init(c);
}

static int rx_cursor_grow(struct rx_cursor *c)
{
    uint32_t capacity = c->capacity ? c->capacity * 2 : 16;
    struct rx_frame *stack = rx_sys_realloc(c->stack, capacity * sizeof *stack);
    if (stack == NULL)
        return rx_fail(RX_E_MEMORY, 0, "for a walk %u nodes deep", capacity);
    c->stack = stack;
    c->capacity = capacity;
    return RX_OK;
}

/*
 * Nodes without a leaf below them are rare (an undone change may leave one), so a walk
 * that enters more of them than the file has room for is led astray by damaged slots
 * that share their children.
 */
static int rx_cursor_barren(struct rx_cursor *c, rx_ref node)
{
    uint64_t size = __atomic_load_n(&c->map->size, __ATOMIC_RELAXED); /* stale: only a rough bound */
    if (RX_UNLIKELY(++c->barren > size / RX_NODE_MIN + 4096))
        return rx_corrupt(rx_ref_off(node), "nodes share their children");
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
    f->node = n; /* not as a literal: the window need not be cleared */
    f->below = level + len + 1;
    f->shape = (uint8_t)shape;
    f->at = f->count = 0;
    f->nodes = 0;
    f->sent = 0;
    f->ready = false;
    f->most = c->eager || rx_shape_kind(shape) <= RX_K_N16 ? RX_WINDOW : RX_FIRST_WINDOW; /* small nodes: all in one go */
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

/* The lines of a cell up to its byte `last`; never faults, wherever it points.  Always inline: see rx_prefetch_hop(). */
__attribute__((always_inline)) static inline void rx_prefetch_cell(const uint8_t *base, rx_ref ref, uint32_t last)
{
    const uint8_t *at = base + rx_ref_off(ref);
    __builtin_prefetch(at);
    __builtin_prefetch(at + last); /* mostly the same line, but to ask costs more */
    for (uint32_t line = 64; RX_UNLIKELY(line < last); line += 64)
        __builtin_prefetch(at + line);
}

/*
 * What reading a leaf, or entering a node, begins with.  Leaves and Node4s come in no order that could be foreseen, so no
 * branch tells them apart: that one would be mistaken so often that it cost more than all else here.
 */
__attribute__((always_inline)) static inline void rx_prefetch_child(const uint8_t *base, rx_ref ref, uint32_t leaf_last)
{
    unsigned kind = rx_ref_kind(ref), code = rx_ref_shape(ref) >> 4;
    uint32_t small = -(uint32_t)(kind == RX_K_N4), small_last = RX_N4_SLOTS + 8 * (code + 4 * (code == 0)) - 8;
    uint32_t last = (small & small_last) | (~small & leaf_last);
    if (RX_UNLIKELY(kind >= RX_K_N16 && kind <= RX_K_N256))
        last = kind == RX_K_N16 ? RX_N16_SLOTS - 8 + 8 * rx_shape_slots(rx_ref_shape(ref)) : 0;
    rx_prefetch_cell(base, ref, last);
}

/* What hangs in the slots of a node whose own lines have come: a hint, nothing of it is believed. */
__attribute__((always_inline)) static inline void rx_prefetch_below(const struct rx_map *map, rx_ref ref, uint32_t leaf_last)
{
    uint64_t have = __atomic_load_n(&map->size, __ATOMIC_RELAXED), off = rx_ref_off(ref);
    unsigned shape = rx_ref_shape(ref), slots = rx_shape_slots(shape);
    if (RX_UNLIKELY(off > have || have - off < rx_slots_at(shape) + 8u * slots))
        return;
    struct rx_node *n = rx_node_at(map->base, off);
    const rx_ref *slot = rx_node_slots(n, shape);
    if (rx_ref_kind(ref) == RX_K_N48 && __atomic_load_n(&n->count, __ATOMIC_RELAXED) < slots)
        slots = __atomic_load_n(&n->count, __ATOMIC_RELAXED);
    for (unsigned i = 0; i < slots; i++)
        rx_prefetch_cell(map->base, __atomic_load_n(slot + i, __ATOMIC_RELAXED), leaf_last);
}

/*
 * Sends for what hangs in the window just loaded, which ends before byte `upto`.  In a Node256 that many are
 * wanted of, its children were sent for with the window before, and with this one what hangs below them is, if the
 * walk is likely to come to all of them: as in rx_cursor_look_ahead().
 */
static void rx_frame_send(const struct rx_cursor *c, struct rx_frame *f, unsigned count, int upto)
{
    f->ready = f->sent && upto <= f->sent;
    f->nodes = 0;
    for (unsigned i = 0; i < count; i++) {
        unsigned kind = rx_ref_kind(f->window[i]);
        f->nodes |= (uint32_t)(!rx_ref_is_leaf(f->window[i]) & !((kind == RX_K_N4) & f->ready)) << i;
        if (!f->ready)
            rx_prefetch_child(c->map->base, f->window[i], c->leaf_last);
        else if (c->eager && kind == RX_K_N4) /* more of them than of larger ones would be too much */
            rx_prefetch_below(c->map, f->window[i], c->leaf_last);
    }
    if (rx_shape_kind(f->shape) != RX_K_N256 || c->reverse || f->most < RX_WINDOW - 1)
        return; /* the walk may be a short one */
    const rx_ref *slot = rx_node_slots(f->node, RX_K_N256);
    int byte = f->sent > upto ? f->sent : upto;
    for (; byte < 256 && byte < upto + 2 * (int)RX_WINDOW; byte++)
        rx_prefetch_child(c->map->base, __atomic_load_n(slot + byte, __ATOMIC_RELAXED), c->leaf_last);
    f->sent = (int16_t)byte;
}

/* Loads the frame's next children; none are left when count stays 0. */
static int rx_frame_fill(struct rx_cursor *c, struct rx_frame *f)
{
    int from = f->from;
    unsigned count = 0;
    rx_ref term = from == RX_TERM ? rx_load(&f->node->term) : 0;
    if (RX_UNLIKELY(term && !rx_ref_is_leaf(term)))
        return rx_corrupt((rx_off)((uint8_t *)f->node - c->map->base), "where a key ends hangs no leaf");
    if (!c->reverse && from == RX_TERM) {
        f->window[0] = term; /* before all children: room for it is kept, whatever `most` says */
        count = term != 0;
        from = 0;
    }
    if (c->reverse && from >= 0)
        count = rx_window_down(f->node, f->shape, &from, f->window, f->most);
    else if (!c->reverse)
        count += rx_window_up(f->node, f->shape, &from, f->window + count, f->most - count);
    if (c->reverse && from < 0 && count == 0) { /* after all children */
        term = from == RX_TERM ? rx_load(&f->node->term) : 0;
        f->window[0] = term;
        count = term != 0 && rx_ref_is_leaf(term);
        from = RX_BEFORE;
    }
    rx_frame_send(c, f, count, from);
    f->from = (int16_t)from;
    f->at = 0;
    f->count = (uint8_t)count;
    f->most = RX_WINDOW;
    if (RX_UNLIKELY(c->map->fences)) /* what is in the window, and what is not */
        rx_settle_node(f->node, f->shape);
    return RX_OK;
}

/* All of a Node48 but its first line, which rx_prefetch_child() asks for. */
__attribute__((always_inline)) static inline void rx_prefetch_node48(const uint8_t *base, rx_ref ref)
{
    uint32_t end = RX_N48_SLOTS + 8 * rx_shape_slots(rx_ref_shape(ref));
    for (uint32_t line = 64 - ((uint32_t)ref & 56); line < end; line += 64)
        __builtin_prefetch(base + rx_ref_off(ref) + line);
}

/*
 * A node was entered: while its leaves are read, those of the next one are sent for, and the one after it if it is
 * large.  The next one is read now, so only a walk that is likely to come to it looks: who wants little must not wait
 * for, or fail by, its page.
 */
static void rx_cursor_look_ahead(struct rx_cursor *c)
{
    if (!c->eager || c->depth < 2)
        return;
    struct rx_frame *above = &c->stack[c->depth - 2];
    bool fresh = above->at == above->count;
    if (fresh && rx_frame_fill(c, above) != RX_OK) /* whoever comes to it fails by it */
        return;
    unsigned met = fresh && !above->ready; /* what was just sent for has not come: nothing is read of it */
    for (uint32_t left = above->nodes & ~0u << above->at; left && met < 2; left &= left - 1, met++) {
        rx_ref child = above->window[__builtin_ctz(left)];
        if (!rx_kind_is_node(rx_ref_kind(child)) || rx_shape_is_wide(rx_ref_shape(child)))
            return;
        if (met == 0)
            rx_prefetch_below(c->map, child, c->leaf_last);
        else if (rx_ref_kind(child) == RX_K_N48)
            rx_prefetch_node48(c->map->base, child);
    }
}

int rx_cursor_next(struct rx_cursor *c, rx_ref *child, uint32_t *level)
{
    for (; c->depth; c->depth--) {
        struct rx_frame *f = &c->stack[c->depth - 1];
        if (f->at == f->count) {
            int rc = rx_frame_fill(c, f);
            if (RX_UNLIKELY(rc))
                return rc;
            if (f->count == 0)
                continue;
        }
        *level = f->below;
        *child = f->window[f->at++];
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
        rx_cursor_look_ahead(c);
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
                f->window[0] = ref; /* the very one that was judged */
                f->count = 1;
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
    rx_ref judged = f->count ? f->window[0] : 0;
    f->most = RX_WINDOW - 1;
    int rc = rx_frame_fill(c, f);
    if (RX_UNLIKELY(rc))
        return rc;
    if (judged) { /* comes before them all */
        memmove(f->window + 1, f->window, f->count * sizeof f->window[0]);
        f->window[0] = judged;
        f->nodes <<= 1;
        f->count++;
    }
    rx_cursor_look_ahead(c);
    return RX_OK;
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
