/*
 * gather.c -- what comes next below a node.
 *
 * A walk over many leaves would spend its time waiting for memory.  So a node's children are loaded and sent for;
 * when they have come, the leaves below the small ones are gathered and sent for; and when those have come, they are
 * read.  Each is sent for once, and no node is entered that holds few leaves and nothing else.
 *
 * P2        A child is loaded early, which is as good as late (cursor.c), and what is gathered below it is what
 *           entering it at that time would have come to.
 * Damage    A node that is not as it should be is not gathered but stays where it is: whoever comes to it fails by it,
 *           and who does not come to it does not.  No node is read beyond what is `wanted`, which knows of limits; a
 *           bound is unknown here, so nodes of RX_RUN_LEAVES leaves behind it may be (few: RX_EAGER_IN_RANGE).
 */
#include "gather.h"

#define RX_RUN_AHEAD 8u   /* children of the next node are sent for before it is entered: more are hardly worth the time */
#define RX_RUN_LEAVES 32u /* so many are gathered, or sent for, one step ahead */
_Static_assert(RX_RUN_LOW + 1 + 48 <= RX_RUN, "a small node fits in behind what is left, with its term");
_Static_assert(RX_RUN <= 64 && RX_RUN_LOW < RX_RUN_LEAVES, "a bit for each; no step gathers nothing");
_Static_assert(RX_WINDOW <= 16 && RX_RUN_LEAVES + RX_WINDOW <= RX_RUN, "a bit of `inner` for each; two copies of eight are enough, and fit in");

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
    uint32_t fixed = rx_node_fixed(rx_ref_shape(ref)), node = -(uint32_t)(fixed != 0);
    uint32_t last = (node & (fixed - 8)) | (~node & leaf_last);
    rx_prefetch_cell(base, ref, RX_LIKELY(fixed < RX_N48_SLOTS) ? last : 0);
}

/* The slots that a walk reads of a Node256 from `byte` on. */
static inline void rx_prefetch_slots(const struct rx_cursor *c, rx_ref ref, int byte)
{
    const uint8_t *at = c->map->base + rx_ref_off(ref) + RX_N256_SLOTS + 8 * byte;
    for (int line = 0; line <= 256; line += 64)
        __builtin_prefetch(c->reverse ? at - line : at + line);
}

/* All of a Node48 but its first line, which rx_prefetch_child() asks for. */
__attribute__((always_inline)) static inline void rx_prefetch_node48(const uint8_t *base, rx_ref ref)
{
    uint32_t end = RX_N48_SLOTS + 8 * rx_shape_slots(rx_ref_shape(ref));
    for (uint32_t line = 64 - ((uint32_t)ref & 56); line < end; line += 64)
        __builtin_prefetch(base + rx_ref_off(ref) + line);
}

/* The first children of a node whose own lines have come: a hint, nothing of it is believed. */
static void rx_prefetch_below(const struct rx_cursor *c, rx_ref ref)
{
    uint64_t have = __atomic_load_n(&c->map->size, __ATOMIC_RELAXED), off = rx_ref_off(ref);
    unsigned shape = rx_ref_shape(ref);
    uint32_t fixed = rx_node_fixed(shape);
    if (RX_UNLIKELY(fixed == 0 || off > have || have - off < fixed))
        return;
    rx_ref child[RX_RUN_AHEAD];
    int from = c->reverse ? 255 : 0;
    struct rx_node *n = rx_node_at(c->map->base, off);
    unsigned count = c->reverse ? rx_window_down(n, shape, &from, child, RX_RUN_AHEAD) : rx_window_up(n, shape, &from, child, RX_RUN_AHEAD);
    for (unsigned i = 0; i < count; i++)
        rx_prefetch_child(c->map->base, child[i], c->leaf_last);
}

/* About how many leaves hang below a child: few wide ones are sent for, or many small ones. */
static inline unsigned rx_leaves_about(unsigned kind)
{
    return 1u << (0x00753100ull >> 4 * (kind & 15) & 15); /* N4 2, N16 8, N48 32, N256 128; leaves 1 */
}

int rx_cursor_barren(struct rx_cursor *c, rx_ref node)
{
    uint64_t size = __atomic_load_n(&c->map->size, __ATOMIC_RELAXED); /* stale: only a rough bound */
    if (RX_UNLIKELY(++c->barren > size / RX_NODE_MIN + 4096))
        return rx_corrupt(rx_ref_off(node), "nodes share their children");
    return RX_OK;
}

void rx_cursor_send_slots(const struct rx_cursor *c, rx_ref ref, uint8_t byte)
{
    if (c->eager && rx_ref_kind(ref) == RX_K_N256)
        rx_prefetch_slots(c, ref, byte);
}

/* ---- loading children ------------------------------------------------------------------ */

/* The next children to `to`, `max` of them at most, which is 4 or more; *count stays 0 when none are left. */
static int rx_frame_load(struct rx_cursor *c, struct rx_frame *f, rx_ref *to, unsigned max, unsigned *count)
{
    int from = f->from;
    unsigned n = 0;
    rx_ref term = from == RX_TERM ? rx_load(&f->node->term) : 0;
    if (RX_UNLIKELY(term && !rx_ref_is_leaf(term)))
        return rx_corrupt((rx_off)((uint8_t *)f->node - c->map->base), "where a key ends hangs no leaf");
    if (!c->reverse && from == RX_TERM) { /* before all children */
        to[0] = term;
        n = term != 0;
        from = 0;
    }
    if (c->reverse && from >= 0)
        n = rx_window_down(f->node, f->shape, &from, to, max);
    else if (!c->reverse)
        n += rx_window_up(f->node, f->shape, &from, to + n, max - n);
    if (c->reverse && from < 0 && n == 0) { /* after all children */
        term = from == RX_TERM ? rx_load(&f->node->term) : 0;
        if (RX_UNLIKELY(term && !rx_ref_is_leaf(term)))
            return rx_corrupt((rx_off)((uint8_t *)f->node - c->map->base), "where a key ends hangs no leaf");
        to[0] = term;
        n = term != 0;
        from = RX_BEFORE;
    }
    f->from = (int16_t)from;
    if (RX_UNLIKELY(c->map->fences)) /* what was loaded, and what is not there */
        rx_settle_node(f->node, f->shape);
    *count = n;
    return RX_OK;
}

/* A few at a time, as they are: for short walks, and for those that look at nodes. */
static int rx_frame_step(struct rx_cursor *c, struct rx_frame *f)
{
    unsigned n;
    int rc = rx_frame_load(c, f, f->run + f->count, f->most, &n);
    if (RX_UNLIKELY(rc))
        return rc;
    f->most = RX_WINDOW;
    for (unsigned i = 0; i < n; i++)
        rx_prefetch_child(c->map->base, f->run[f->count + i], c->leaf_last);
    f->soft = f->count = (uint8_t)(f->count + n);
    return RX_OK;
}

/* ---- gathering ------------------------------------------------------------------------- */

/* Is what is no leaf a small node, that fits where there is room for so many, with its term, and what a Node4 is sorted in? */
static inline bool rx_run_takes(unsigned room, rx_ref ref)
{
    unsigned shape = rx_ref_shape(ref), slots = rx_shape_slots(shape);
    return !rx_shape_is_wide(shape) && (slots < 4 ? 4 : slots) + 1 <= room;
}

/*
 * The leaves below a node whose level is `level`, in order, to `to`, where there is room for it, and so many at most.  How
 * many, or -1: the node is not as it should be, or more hangs below it than fits in, or than nodes of leaves, and they of
 * leaves alone where it is an `inner` one.
 * Ordering  as entering it: slots are loaded with acquire.
 */
static int rx_gather_below(struct rx_cursor *c, rx_ref ref, uint32_t level, rx_ref *to, unsigned room, bool inner)
{
    unsigned shape = rx_ref_shape(ref), slots = rx_shape_slots(shape), n;
    uint32_t fixed = rx_node_fixed(shape);
    if (RX_UNLIKELY(fixed == 0 || !rx_in_file(c->map, rx_ref_off(ref), fixed)))
        return -1;
    struct rx_node *node = rx_node_at(c->map->base, rx_ref_off(ref));
    uint64_t header = rx_load((const uint64_t *)(const void *)node), len = header >> 16 & 0xffff;
    bool sound = rx_head_shape(header) == shape && (uint32_t)(header >> 32) == level && (len > 255 ? 255 : len) == ref >> 56;
    if (RX_UNLIKELY(!sound)) /* of its prefix nothing is read: leaves have whole keys */
        return -1;
    rx_ref term = rx_load(&node->term);
    int from = c->reverse ? 255 : 0;
    if (!c->reverse) { /* the term before its children, or behind them */
        to[0] = term;
        n = term != 0;
        n += rx_window_up(node, shape, &from, to + n, slots < 4 ? 4 : slots);
    } else {
        n = rx_window_down(node, shape, &from, to, slots < 4 ? 4 : slots);
        to[n] = term;
        n += term != 0;
    }
    if (RX_UNLIKELY(c->map->fences))
        rx_settle_node(node, shape);
    bool sane = term == 0 || rx_ref_is_leaf(term), all = c->reverse ? from < 0 : from > 255; /* more than slots: damaged */
    if (RX_UNLIKELY(!sane || !all || (n == 0 && rx_cursor_barren(c, ref) != RX_OK)))
        return -1;
    unsigned others = 0;
    for (unsigned i = 0; i < n; i++)
        others += !rx_ref_is_leaf(to[i]);
    if (RX_LIKELY(others == 0)) {
        for (unsigned i = 0; i < n; i++)
            rx_prefetch_cell(c->map->base, to[i], c->leaf_last);
        return (int)n;
    }
    for (unsigned i = 0; i < n; i++)
        rx_prefetch_child(c->map->base, to[i], c->leaf_last);
    if (inner)
        return -1;
    rx_ref child[RX_RUN];
    unsigned at = 0;
    memcpy(child, to, n * sizeof *to);
    for (unsigned i = 0; i < n; i++) {
        unsigned rest = n - i - 1; /* each takes one at least */
        if (rx_ref_is_leaf(child[i])) {
            to[at++] = child[i];
            continue;
        }
        int below = at + rest < room && rx_run_takes(room - at - rest, child[i])
                        ? rx_gather_below(c, child[i], level + (uint32_t)len + 1, to + at, room - at - rest, true)
                        : -1;
        if (below < 0)
            return -1;
        at += (unsigned)below;
    }
    return (int)at;
}

/*
 * Two leaves and nothing else, as most small nodes hold: which comes first could not be foreseen, so no branch asks.
 * False: it is another node, or not as it should be; rx_gather_below() tells.
 */
__attribute__((always_inline)) static inline bool rx_gather_pair(const struct rx_cursor *c, uint64_t room, rx_ref ref, uint32_t level, rx_ref *to)
{
    unsigned shape = rx_ref_shape(ref), holds_two = 1u << 0 | 1u << 2 | 1u << 3; /* the codes that do */
    uint64_t off = rx_ref_off(ref), is = shape | (ref >> 56) << 16 | (uint64_t)level << 32;
    if (rx_shape_kind(shape) != RX_K_N4 || !(holds_two >> (shape >> 4) & 1) || off - RX_HEAP >= room)
        return false;
    struct rx_node *node = rx_node_at(c->map->base, off);
    if ((rx_load((const uint64_t *)(const void *)node) & ~0xff00ull) != is || rx_load8(&node->count) != 2 || rx_load(&node->term))
        return false;
    const uint8_t *keys = (const uint8_t *)node + RX_N4_KEYS;
    const rx_ref *slot = rx_node_slots(node, RX_K_N4);
    uint8_t byte[2] = {rx_load8_rlx(keys), rx_load8_rlx(keys + 1)}; /* final below the acquired count */
    rx_ref child[2] = {rx_load(slot), rx_load(slot + 1)};
    unsigned first = (byte[1] < byte[0]) ^ (unsigned)c->reverse;
    to[first] = child[0];
    to[1 - first] = child[1];
    return byte[0] != byte[1] && rx_ref_is_leaf(child[0]) && rx_ref_is_leaf(child[1]);
}

static inline unsigned rx_enough(const struct rx_cursor *c) { return c->wanted < RX_RUN_LEAVES ? c->wanted : RX_RUN_LEAVES; }

/* How many leaves an entry of the run counts for.  A node may have any number: who wants few reads none beyond it. */
static inline unsigned rx_run_stands_for(const struct rx_cursor *c, rx_ref ref)
{
    return rx_ref_is_leaf(ref) || c->wanted > RX_RUN_LEAVES ? rx_leaves_about(rx_ref_kind(ref)) : RX_RUN_LEAVES;
}

/* What is read at once of a node larger than a Node4; how many leaves it counts for. */
static unsigned rx_frame_ask_large(const struct rx_cursor *c, rx_ref ref)
{
    unsigned kind = rx_ref_kind(ref);
    if (kind == RX_K_N48)
        rx_prefetch_node48(c->map->base, ref);
    else if (kind == RX_K_N256)
        rx_prefetch_slots(c, ref, c->reverse ? 255 : 0);
    return rx_leaves_about(kind);
}

/* Of the children that are loaded the next ones are sent for, as far as some leaves reach. */
static void rx_frame_ask(const struct rx_cursor *c, struct rx_frame *f)
{
    unsigned leaves = 0, enough = rx_enough(c), asked = f->asked, loaded = f->loaded, inner = f->inner;
    uint32_t leaf_last = c->leaf_last;
    const uint8_t *base = c->map->base;
    if (asked == loaded)
        return;
    for (unsigned i = f->taken; i < asked; i++)
        leaves += rx_leaves_about(rx_ref_kind(f->child[i]));
    for (; asked < loaded && leaves < enough; asked++) {
        rx_ref ref = f->child[asked];
        unsigned node = !rx_ref_is_leaf(ref);
        inner |= node << asked;
        leaves += 1 + node;
        rx_prefetch_child(base, ref, leaf_last);
        if (RX_UNLIKELY(rx_ref_kind(ref) >= RX_K_N16 && node))
            leaves += rx_frame_ask_large(c, ref) - 2;
    }
    f->inner = (uint16_t)inner;
    f->asked = (uint8_t)asked;
}

/* The next children are loaded and sent for; f->loaded is 0 when none are left. */
static int rx_frame_children(struct rx_cursor *c, struct rx_frame *f)
{
    if (f->taken == f->loaded) {
        unsigned n;
        int rc = rx_frame_load(c, f, f->child, RX_WINDOW, &n);
        if (RX_UNLIKELY(rc))
            return rc;
        f->taken = f->asked = 0;
        f->inner = 0;
        f->loaded = (uint8_t)n;
        if (rx_shape_kind(f->shape) == RX_K_N256)
            rx_prefetch_slots(c, (rx_off)((uint8_t *)f->node - c->map->base), f->from);
    }
    rx_frame_ask(c, f);
    return RX_OK;
}

/* Children that were sent for go to the run, until there are `enough` leaves, with `leaves` there now; how many there are then. */
static unsigned rx_frame_take(struct rx_cursor *c, struct rx_frame *f, unsigned leaves, unsigned enough)
{
    unsigned taken = f->taken, asked = f->asked, count = f->count, inner = f->inner; /* not in memory: each step would wait */
    uint64_t nodes = f->nodes, room = c->map->fences ? 0 : rx_room(c->map);
    while (taken < asked && leaves < enough) {
        /* Where the next node is could not be foreseen: eight are copied, and what is too much is written over. */
        unsigned stretch = (unsigned)__builtin_ctz(inner >> taken | 1u << (asked - taken));
        memcpy(f->run + count, f->child + taken, 8 * sizeof(rx_ref));
        if (RX_UNLIKELY(stretch > 8))
            memcpy(f->run + count + 8, f->child + taken + 8, 8 * sizeof(rx_ref));
        taken += stretch;
        count += stretch;
        leaves += stretch;
        if (taken == asked || leaves >= enough)
            break;
        rx_ref ref = f->child[taken];
        if (rx_gather_pair(c, room, ref, f->below, f->run + count)) {
            rx_prefetch_cell(c->map->base, f->run[count], c->leaf_last);
            rx_prefetch_cell(c->map->base, f->run[count + 1], c->leaf_last);
            count += 2;
            leaves += 2;
            taken++;
            continue;
        }
        bool small = rx_kind_is_node(rx_ref_kind(ref)) && !rx_shape_is_wide(rx_ref_shape(ref));
        if (small && !rx_run_takes(RX_RUN - count, ref)) { /* the next time */
            leaves = enough;
            break;
        }
        int below = small ? rx_gather_below(c, ref, f->below, f->run + count, RX_RUN - count, false) : -1;
        taken++;
        if (below >= 0) {
            count += (unsigned)below;
            leaves += (unsigned)below;
            continue;
        }
        nodes |= 1ull << count;
        f->run[count++] = ref;
        leaves += rx_run_stands_for(c, ref);
    }
    f->taken = (uint8_t)taken;
    f->count = (uint8_t)count;
    f->nodes = nodes;
    return leaves;
}

/*
 * The innermost node ends, after so many leaves: what comes next in the one above is sent for, and when that has come, what
 * hangs below it.
 */
static void rx_cursor_look_ahead(struct rx_cursor *c, unsigned leaves)
{
    if (c->depth < 2)
        return;
    struct rx_frame *above = &c->stack[c->depth - 2];
    uint64_t nodes = above->at < above->count ? above->nodes >> above->at : 0;
    unsigned before = nodes ? (unsigned)__builtin_ctzll(nodes) : 0; /* leaves, which were sent for */
    if (nodes && leaves + before < c->wanted)
        rx_prefetch_below(c, above->run[above->at + before]);
    else if (above->at < above->count)
        return;
    else if (above->taken < above->asked)
        rx_prefetch_below(c, above->child[above->taken]);
    else
        (void)rx_frame_children(c, above); /* whoever comes to it fails by it */
}

/* About how many leaves the run stands for. */
static unsigned rx_frame_left(const struct rx_cursor *c, const struct rx_frame *f)
{
    unsigned leaves = f->count;
    for (uint64_t left = f->nodes; left; left &= left - 1)
        leaves += rx_run_stands_for(c, f->run[__builtin_ctzll(left)]) - 1;
    return leaves;
}

/*
 * Room: with RX_RUN_LOW left, or fewer, what any small node holds fits in.  A run with more than those is taken from up
 * to there, and then filled, so that what is sent for has the time of RX_RUN_LOW leaves to come.
 */
static int rx_frame_gather(struct rx_cursor *c, struct rx_frame *f)
{
    unsigned enough = rx_enough(c), leaves = rx_frame_left(c, f);
    while (leaves < enough) {
        int rc = rx_frame_children(c, f);
        if (RX_UNLIKELY(rc && f->count == 0))
            return rc;
        if (RX_UNLIKELY(rc)) /* comes after what is there, and again when that is taken */
            break;
        if (f->loaded == 0) {
            if (f == &c->stack[c->depth - 1])
                rx_cursor_look_ahead(c, leaves);
            break;
        }
        leaves = rx_frame_take(c, f, leaves, enough);
    }
    f->soft = f->count > RX_RUN_LOW ? (uint8_t)(f->count - RX_RUN_LOW) : f->count;
    return RX_OK;
}

int rx_frame_fill(struct rx_cursor *c, struct rx_frame *f)
{
    unsigned left = f->count - f->at;
    if (left) /* RX_RUN_LOW, or one just placed; to copy so many needs no loop, whose end could not be foreseen */
        memmove(f->run, f->run + f->at, RX_RUN_LOW * sizeof(rx_ref));
    f->nodes = left ? f->nodes >> f->at : 0;
    f->count = (uint8_t)left;
    f->at = f->soft = 0;
    return c->eager ? rx_frame_gather(c, f) : rx_frame_step(c, f);
}
