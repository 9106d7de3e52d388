/*
 * tree.c -- finding the leaf of a key.  Readers hold no lock and may run between
 * any two stores of any writer.
 */
#include "tree.h"

/*
 * The leaf at ref against key; its first `depth` bytes were matched on the way, so a
 * leaf that differs there does not belong here.
 */
static inline int rx_leaf_is(struct rx_map *map, uint64_t room, rx_ref ref, const uint8_t *key, uint64_t key_len,
                             uint64_t depth, struct rx_leaf_view *view)
{
    int rc = rx_leaf_view_in(map, room, ref, view);
    if (RX_UNLIKELY(rc))
        return rc;
    if (RX_LIKELY(view->key_len == key_len && rx_bytes_equal(view->key, key, key_len)))
        return RX_OK;
    if (RX_UNLIKELY(view->key_len < depth || !rx_bytes_equal(view->key, key, depth)))
        return rx_corrupt(rx_ref_off(ref), "a leaf's key does not belong where it hangs");
    return RX_ABSENT;
}

/* The prefix of node n (its length as the reference tells, 255: read the header). */
static inline int rx_prefix_is(struct rx_map *map, rx_ref ref, const uint8_t *key, uint64_t rest, uint64_t *depth)
{
    rx_off off = rx_ref_off(ref);
    struct rx_node *n = rx_node_at(map->base, off);
    uint64_t prefix_len = ref >> 56;
    if (RX_UNLIKELY(prefix_len == 255))
        prefix_len = n->prefix_len;
    uint32_t fixed = rx_node_fixed(rx_ref_shape(ref));
    if (RX_UNLIKELY(!rx_in_file(map, off, fixed + prefix_len)))
        return rx_corrupt(off, "a node's prefix leads outside the file");
    if (rest < prefix_len || !rx_bytes_equal((const uint8_t *)n + fixed, key + *depth, prefix_len))
        return RX_ABSENT;
    *depth += prefix_len;
    return RX_OK;
}

/* A Node256 without a prefix: where its slots lie follows from the reference alone. */
static inline bool rx_is_plain(rx_ref ref) { return (ref & (0xffffull << 48 | RX_KIND_MASK)) == RX_K_N256; }

static inline rx_ref *rx_plain_slot(struct rx_map *map, rx_ref ref, uint8_t byte)
{
    return rx_node_slots(rx_node_at(map->base, rx_ref_off(ref)), RX_K_N256) + byte;
}

/*
 * The slot in the node at ref that continues (or ends) the key; *depth moves behind the
 * byte.  RX_ABSENT: none.  The header of a Node256 or 48 without a prefix is not touched:
 * it would cost a cache line.
 */
__attribute__((always_inline)) static inline int rx_hop_slot(struct rx_map *map, rx_ref ref, const uint8_t *key,
                                                             uint64_t key_len, uint64_t *depth, rx_ref **slot)
{
    if (rx_is_plain(ref) && RX_LIKELY(*depth < key_len)) {
        *slot = rx_plain_slot(map, ref, key[(*depth)++]);
        return RX_OK;
    }
    unsigned shape = rx_ref_shape(ref);
    struct rx_node *n = rx_node_at(map->base, rx_ref_off(ref));
    if (RX_UNLIKELY(ref >> 56)) {
        int rc = rx_prefix_is(map, ref, key, key_len - *depth, depth);
        if (rc)
            return rc;
    }
    if (RX_UNLIKELY(*depth == key_len)) {
        *slot = &n->term;
        return RX_OK;
    }
    if (rx_shape_kind(shape) <= RX_K_N16 && RX_UNLIKELY(n->shape != shape))
        return rx_corrupt(rx_ref_off(ref), "expected a node of shape %02x, found %02x", shape, n->shape);
    *slot = rx_node_find(n, shape, key[*depth]);
    if (!*slot)
        return RX_ABSENT;
    *depth += 1;
    return RX_OK;
}

/*
 * What the slot refers to: RX_OK a node, RX_END a leaf, RX_ABSENT.
 * Ordering  acquire; pairs with the release of the commit that stored it, so all that
 *           it reaches is complete.
 */
__attribute__((always_inline)) static inline int rx_hop_child(struct rx_map *map, uint64_t room, const rx_ref *slot,
                                                              bool ends, rx_ref *ref)
{
    rx_off node = rx_ref_off(*ref);
    *ref = rx_load(slot);
    if (rx_ref_is_leaf(*ref))
        return RX_END;
    if (rx_is_plain(*ref) && RX_LIKELY(!ends && rx_ref_off(*ref) - RX_HEAP < room))
        return RX_OK;
    if (*ref == 0)
        return RX_ABSENT;
    uint32_t fixed = rx_node_fixed(rx_ref_shape(*ref));
    if (RX_UNLIKELY(ends || fixed == 0 || !rx_in_file(map, rx_ref_off(*ref), fixed)))
        return rx_corrupt(node, "a slot holds the impossible reference %016llx", (unsigned long long)*ref);
    return RX_OK;
}

/* Is it the slot of the key that ends at the node? */
static inline bool rx_is_term(const struct rx_map *map, rx_ref node, const rx_ref *slot)
{
    return slot == &rx_node_at(map->base, rx_ref_off(node))->term;
}

/*
 * Bounds    every hop is checked and takes at least one byte of the key, so a damaged
 *           file (or memory reused under an evicted reader) ends the walk after at
 *           most key_len hops.
 */
__attribute__((always_inline)) static inline int rx_find_with(struct rx_map *map, const uint8_t *key, uint64_t key_len,
                                                              struct rx_leaf_view *leaf, const bool fences)
{
    rx_ref ref = RX_ROOT_OFF | RX_K_N256;
    uint64_t depth = 0, room = rx_room(map);
    for (;;) {
        rx_ref *slot = NULL;
        const struct rx_node *node = rx_node_at(map->base, rx_ref_off(ref));
        int rc = rx_hop_slot(map, ref, key, key_len, &depth, &slot);
        if (rc == RX_OK) {
            rc = rx_hop_child(map, room, slot, rx_is_term(map, ref, slot), &ref);
            if (fences)
                rx_settle_link(node, slot);
        }
        if (RX_LIKELY(rc == RX_OK)) {
            rx_prefetch_guess(map->base, ref, key, key_len, depth);
            continue;
        }
        if (rc != RX_END)
            return rc;
        return rx_leaf_is(map, room, ref, key, key_len, depth, leaf);
    }
}

__attribute__((noinline)) int rx_find_settled(struct rx_map *map, const uint8_t *key, uint64_t key_len,
                                              struct rx_leaf_view *leaf)
{
    return rx_find_with(map, key, key_len, leaf, true);
}

int rx_find(struct rx_map *map, const uint8_t *key, uint64_t key_len, struct rx_leaf_view *leaf)
{
    if (RX_UNLIKELY(map->fences))
        return rx_find_settled(map, key, key_len, leaf);
    return rx_find_with(map, key, key_len, leaf, false);
}

struct rx_walker { const uint8_t *key; uint64_t key_len, depth; rx_ref ref, *slot; };

/* The second half of a hop: RX_OK a node, RX_END a leaf; what the next will read first is on its way. */
__attribute__((always_inline)) static inline int rx_walk_child(struct rx_map *map, uint64_t room, struct rx_walker *w,
                                                               bool ends, bool writes)
{
    int rc = rx_hop_child(map, room, w->slot, ends, &w->ref);
    if (RX_UNLIKELY(rc != RX_OK && rc != RX_END))
        return rc;
    rx_prefetch_hop(map->base, w->ref, w->depth < w->key_len ? w->key[w->depth] : 0);
    if (writes && rc == RX_OK) /* it has the lock */
        __builtin_prefetch(map->base + rx_ref_off(w->ref), 1);
    return rc;
}

/*
 * Group walk: all keys take one hop, then all the next, so that their cache misses
 * overlap; between the two halves of a hop the slots are on their way.  A plain node
 * needs no first half: its slot was what the hop before has fetched.  result[i]
 * is RX_END where w[i].ref is a leaf, which is on its way too.
 */
__attribute__((always_inline)) static inline void rx_walk_group(struct rx_map *map, uint64_t room, unsigned n,
                                                                const void *const *keys, const size_t *key_len,
                                                                struct rx_walker *w, int *result, bool writes)
{
    uint8_t active[RX_GROUP], halfway[RX_GROUP];
    const rx_ref root = RX_ROOT_OFF | RX_K_N256;
    unsigned count = 0;
    for (unsigned i = 0; i < n; i++) {
        w[i] = (struct rx_walker){keys[i], key_len[i], key_len[i] != 0, root, NULL};
        w[i].slot = w[i].depth ? rx_plain_slot(map, root, w[i].key[0]) : &rx_node_at(map->base, RX_ROOT_OFF)->term;
        result[i] = rx_walk_child(map, room, &w[i], !w[i].depth, writes);
        active[count] = (uint8_t)i;
        count += result[i] == RX_OK;
    }
    while (count) {
        unsigned left = 0, half = 0;
        for (unsigned k = 0; k < count; k++) {
            unsigned i = active[k];
            if (rx_is_plain(w[i].ref) && RX_LIKELY(w[i].depth < w[i].key_len)) {
                w[i].slot = rx_plain_slot(map, w[i].ref, w[i].key[w[i].depth++]);
                result[i] = rx_walk_child(map, room, &w[i], false, writes);
                active[left] = (uint8_t)i;
                left += result[i] == RX_OK;
                continue;
            }
            result[i] = rx_hop_slot(map, w[i].ref, w[i].key, w[i].key_len, &w[i].depth, &w[i].slot);
            __builtin_prefetch(result[i] == RX_OK ? w[i].slot : NULL);
            halfway[half] = (uint8_t)i;
            half += result[i] == RX_OK;
        }
        for (unsigned k = 0; k < half; k++) {
            unsigned i = halfway[k];
            result[i] = rx_walk_child(map, room, &w[i], rx_is_term(map, w[i].ref, w[i].slot), writes);
            active[left] = (uint8_t)i;
            left += result[i] == RX_OK;
        }
        count = left;
    }
}

/* The lines of a leaf behind those that rx_prefetch_hop() asks for; false: there are none. A hint, nothing of it is believed. */
__attribute__((always_inline)) static inline bool rx_prefetch_rest(const struct rx_map *map, rx_ref ref)
{
    uint64_t off = rx_ref_off(ref), have = rx_load_rlx(&map->size);
    if (RX_UNLIKELY(rx_ref_kind(ref) != RX_K_LEAF || off > have || have - off < RX_CELL_MIN))
        return true;
    const uint8_t *at = map->base + off;
    uint32_t size = rx_leaf_bytes(rx_load_rlx((const uint64_t *)(const void *)at));
    for (uint32_t line = 64 - ((uint32_t)off & 56); line < size && line < RX_SMALL_MAX; line += 64)
        __builtin_prefetch(at + line);
    return size > 2 * RX_CELL_MIN;
}

void rx_find_group(struct rx_map *map, unsigned n, const void *const *keys, const size_t *key_len,
                   struct rx_leaf_view *leaf, int *result)
{
    struct rx_walker w[RX_GROUP];
    uint64_t room = rx_room(map);
    unsigned first = 0;
    rx_walk_group(map, room, n, keys, key_len, w, result, false);
    while (first < n && result[first] != RX_END)
        first++;
    if (first < n && rx_prefetch_rest(map, w[first].ref)) /* leaves are mostly alike: where one has more lines, ask of all */
        for (unsigned i = first + 1; i < n; i++)
            if (result[i] == RX_END)
                rx_prefetch_rest(map, w[i].ref);
    for (unsigned i = 0; i < n; i++)
        if (RX_UNLIKELY(map->fences))
            result[i] = rx_find_settled(map, keys[i], key_len[i], &leaf[i]);
        else if (result[i] == RX_END)
            result[i] = rx_leaf_is(map, room, w[i].ref, w[i].key, w[i].key_len, w[i].depth, &leaf[i]);
}

void rx_warm_group(struct rx_map *map, unsigned n, const void *const *keys, const size_t *key_len)
{
    struct rx_walker w[RX_GROUP];
    int result[RX_GROUP];
    rx_walk_group(map, rx_room(map), n, keys, key_len, w, result, true);
}
