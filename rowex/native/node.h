/*
 * node.h -- the four node kinds: find, add, iterate, copy.  The only file that
 * knows their layouts is node.c (and the inline lookup below).
 */
#ifndef ROWEX_NODE_H
#define ROWEX_NODE_H

#include "cell.h"

static inline struct rx_node *rx_node_at(uint8_t *base, rx_off off) { return (struct rx_node *)(void *)(base + off); }
static inline const uint8_t *rx_node_prefix(const struct rx_node *n, unsigned shape)
{
    return (const uint8_t *)n + rx_node_fixed(shape);
}
/* Where its slots begin: as many as rx_shape_slots() says. */
static inline unsigned rx_slots_at(unsigned shape)
{
    switch (rx_shape_kind(shape)) {
    case RX_K_N4: return RX_N4_SLOTS;
    case RX_K_N16: return RX_N16_SLOTS;
    case RX_K_N48: return RX_N48_SLOTS;
    default: return RX_N256_SLOTS;
    }
}
static inline rx_ref *rx_node_slots(struct rx_node *n, unsigned shape)
{
    return (rx_ref *)(void *)((uint8_t *)n + rx_slots_at(shape));
}

/*
 * The slot that belongs to `byte`, or NULL when none was given.  A slot whose
 * value is 0 is an absent child.  The shape is that of the reference, by which the node's
 * bounds were checked: whatever the node's own bytes say, the slot lies within them.
 * Ordering: count (acquire) before key bytes; the caller loads the slot with acquire.
 */
rx_ref *rx_node_find(struct rx_node *n, unsigned shape, uint8_t byte);

/*
 * What a hop from ref by `byte` will read first, so that it is on its way meanwhile: in a
 * Node256 or 48 that is the slot's line, known from the reference alone.  Never faults.
 * Always inline: gcc takes a function that only prefetches for one without effect, and
 * drops its calls.
 */
__attribute__((always_inline)) static inline void rx_prefetch_hop(const uint8_t *base, rx_ref ref, uint8_t byte)
{
    const uint8_t *at = base + rx_ref_off(ref);
    switch (rx_ref_kind(ref)) {
    case RX_K_N4:
        __builtin_prefetch(at);
        __builtin_prefetch(at + RX_N4_SLOTS + 8); /* to the second slot: most have two, and end there */
        break;
    case RX_K_N16:
        __builtin_prefetch(at);
        __builtin_prefetch(at + RX_N16_KEYS + 8);
        break;
    case RX_K_N48:
        __builtin_prefetch(at + RX_N48_INDEX + byte);
        break;
    case RX_K_N256:
        __builtin_prefetch(at + RX_NODE_HEAD + 8u * byte);
        break;
    default:
        __builtin_prefetch(at);
        __builtin_prefetch(at + RX_CELL_MIN); /* of a small leaf the value; mostly the same line */
        break;
    }
    if (RX_UNLIKELY(ref >> 56)) { /* no leaf's */
        __builtin_prefetch(at);
        __builtin_prefetch(at + rx_node_fixed(rx_ref_shape(ref)));
    }
}

/*
 * The slots of a Node48 of many were filled in the order of their bytes, but for what was put since: where the one of
 * key's next byte (`depth` of them are matched) may be is on its way while the index tells where it is.  One lookup after the
 * other would wait for both in turn; a group's is on its way anyhow.
 */
__attribute__((always_inline)) static inline void rx_prefetch_guess(const uint8_t *base, rx_ref ref, const uint8_t *key,
                                                                    uint64_t key_len, uint64_t depth)
{
    if (RX_LIKELY(!(ref & RX_REF_MANY) || rx_ref_kind(ref) != RX_K_N48 || depth + (ref >> 56) >= key_len))
        return;
    const uint8_t *slots = base + rx_ref_off(ref) + RX_N48_SLOTS;
    unsigned given = rx_shape_slots(rx_ref_shape(ref)) - 8; /* of the last 16 half are, as a rule */
    slots += (given * key[depth + (ref >> 56)] / 256) * sizeof(rx_ref);
    __builtin_prefetch(slots);
    __builtin_prefetch(slots + 64);
}

/* All live children in byte order: bytes[256], refs[256]; returns how many.  Slots are loaded with acquire. */
int rx_node_children(struct rx_node *n, unsigned shape, uint8_t *bytes, rx_ref *refs);
/* Live children (null slots not counted), term not counted. */
int rx_node_live(struct rx_node *n, unsigned shape);
/* More than so many of them?  Looks at no more slots than it must. */
bool rx_node_lives_above(struct rx_node *n, unsigned shape, unsigned children);
/* Of the eight slots beside this one, which have mostly come with it, do more than half hold a child? */
bool rx_node_crowded(struct rx_node *n, unsigned shape, const rx_ref *slot);

/*
 * D1: `slot` of node n was loaded just now, or has been looked at and not been found.  What it
 * holds is persistent, or is made so here.
 * Ordering  the lock after the slot, both acquire; pairs with the release that unlocks, which
 *           comes after the fence of whoever stored there.
 */
static inline void rx_settle_link(const struct rx_node *n, const rx_ref *slot)
{
    if (RX_UNLIKELY(rx_load(&n->lock) != 0))
        rx_persist(true, slot, sizeof *slot);
}
/* The same of all its slots. */
static inline void rx_settle_node(const struct rx_node *n, unsigned shape)
{
    if (RX_UNLIKELY(rx_load(&n->lock) != 0))
        rx_persist(true, n, rx_node_fixed(shape));
}
/* Under the node's lock, before a child is put where there was none: that the slot is given, to `byte`. */
void rx_node_persist_given(struct rx_node *n, unsigned shape, uint8_t byte);

/*
 * Give `byte` a slot (under the node's lock) without committing a child: writes the
 * byte, raises the count (release); NULL when the node has no slot left.
 * Crash: a slot given and never filled stays absent and belongs to its byte.
 */
rx_ref *rx_node_give(struct rx_node *n, unsigned shape, uint8_t byte, bool fences);

/*
 * Build a node in private memory (a reserved cell): shape, level, prefix, term and
 * `count` children in byte order.  The header is stored last.
 */
void rx_node_build(struct rx_node *n, unsigned shape, uint32_t level, const uint8_t *prefix, unsigned prefix_len,
                   rx_ref term, const uint8_t *bytes, const rx_ref *refs, unsigned count, bool fences);

/* Build a leaf in a reserved cell; returns its reference. */
rx_ref rx_leaf_build(uint8_t *base, rx_off off, const void *key, uint64_t key_len, const void *value,
                     uint64_t value_len, bool checksum, bool fences);
struct rx_leaf_view { const uint8_t *key, *value; uint64_t key_len, value_len, cell_size; uint32_t crc; };
/*
 * Bounds-checked view of the leaf at ref, or of that for which the wrapper at ref stands now;
 * RX_ABSENT: for none.  RX_E_CORRUPT (with text) when it is neither.
 */
int rx_leaf_view_any(struct rx_map *map, rx_ref ref, struct rx_leaf_view *view);
/* The common case inline: is it a small leaf, which lies within the room (rx_room()), and as it should be?  Then this is its view. */
static inline bool rx_leaf_view_small(const struct rx_map *map, uint64_t room, rx_ref ref, struct rx_leaf_view *view)
{
    rx_off off = rx_ref_off(ref);
    if (RX_UNLIKELY(rx_ref_kind(ref) != RX_K_LEAF || off - RX_HEAP >= room))
        return false;
    const uint8_t *at = map->base + off;
    uint64_t header = rx_load((const uint64_t *)(const void *)at);
    uint64_t size = rx_leaf_bytes(header), key_len = rx_leaf_key_len(header);
    uint64_t used = RX_LEAF_HEAD + key_len + (header >> 4 & 7u);
    bool small = size - RX_CELL_MIN <= RX_SMALL_MAX - RX_CELL_MIN; /* and no less than a cell has */
    if (RX_UNLIKELY(rx_head_kind(header) != RX_K_LEAF || used > size || !small))
        return false;
    view->key = at + RX_LEAF_HEAD;
    view->key_len = key_len;
    view->value = view->key + key_len;
    view->value_len = size - used;
    view->cell_size = size;
    view->crc = (uint32_t)(header >> 32);
    return true;
}
static inline int rx_leaf_view_in(struct rx_map *map, uint64_t room, rx_ref ref, struct rx_leaf_view *view)
{
    return RX_LIKELY(rx_leaf_view_small(map, room, ref, view)) ? RX_OK : rx_leaf_view_any(map, ref, view);
}
static inline int rx_leaf_view(struct rx_map *map, rx_ref ref, struct rx_leaf_view *view)
{
    return rx_leaf_view_in(map, rx_room(map), ref, view);
}
/* A wrapper and its batch, bounds-checked; the key's bytes live as long as the wrapper is in the tree. */
struct rx_wrapped { struct rx_batch *batch; rx_ref leaf, old; uint64_t state; const uint8_t *key; uint64_t key_len; };
int rx_wrapper_view(struct rx_map *map, rx_ref ref, struct rx_wrapped *w);
/* What it stands for; 0: the key is absent. */
static inline rx_ref rx_wrapped_ref(const struct rx_wrapped *w)
{
    return (w->state & 3) == RX_B_COMMITTED ? w->leaf : w->old;
}
/* The batch in the cell at off, NULL when there is none; *size is the cell's. */
struct rx_batch *rx_batch_at(struct rx_map *map, rx_off off, uint64_t *size);
/* The key of item i; NULL when it lies outside the cell. */
const uint8_t *rx_batch_key(const struct rx_batch *b, uint64_t size, uint64_t i, uint64_t *key_len);
uint32_t rx_leaf_crc(const struct rx_leaf_view *view); /* what crc should be */
/* Bounds-checked node: header's shape, level and prefix agree with ref and level. */
int rx_node_check(struct rx_map *map, rx_ref ref, uint32_t level, struct rx_node **out);

#endif
