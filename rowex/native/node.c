/*
 * node.c -- the four node kinds and the leaves: layouts, search, iteration,
 * building.  format.h has the pictures.
 *
 * I1  A slot belongs to one key byte while its node is reachable.  Node4/16: the
 *     byte is stored before the count that makes it visible; searches load the
 *     count (acquire) first and ignore what lies beyond.  Node48: the count, then
 *     the index byte; free slots lie only beyond the count.
 * I2  A null slot is an absent child, also when its giver died before filling it.
 * I3  Prefix, level and shape of a reachable node never change.
 */
#include "node.h"
#if defined(__SSE2__) && !defined(ROWEX_NO_SIMD)
#include <emmintrin.h>
#elif defined(__ARM_NEON) && !defined(ROWEX_NO_SIMD)
#include <arm_neon.h>
#endif

static inline uint8_t *rx_n4_keys(struct rx_node *n) { return (uint8_t *)n + RX_N4_KEYS; }
static inline uint8_t *rx_n16_keys(struct rx_node *n) { return (uint8_t *)n + RX_N16_KEYS; }
static inline uint8_t *rx_n48_index(struct rx_node *n) { return (uint8_t *)n + RX_N48_INDEX; }

/* Given slots; acquire, so that the key bytes below the count are there (I1). */
static inline unsigned rx_given(struct rx_node *n, unsigned shape)
{
    unsigned count = rx_load8(&n->count), capacity = rx_shape_slots(shape);
    return count > capacity ? capacity : count; /* a damaged count must not lead outside */
}

/*
 * Positions (a bit each) of `byte` among the 16 keys.  The two relaxed loads may
 * mix bytes of different ages; those below the acquired count are final.
 */
static inline uint32_t rx_match16(const uint8_t *keys, uint8_t byte)
{
    uint64_t low = rx_load_rlx((const uint64_t *)(const void *)keys);
    uint64_t high = rx_load_rlx((const uint64_t *)(const void *)(keys + 8));
#if defined(__SSE2__) && !defined(ROWEX_NO_SIMD)
    __m128i have = _mm_set_epi64x((long long)high, (long long)low);
    return (uint32_t)_mm_movemask_epi8(_mm_cmpeq_epi8(have, _mm_set1_epi8((char)byte)));
#elif defined(__ARM_NEON) && !defined(ROWEX_NO_SIMD)
    static const uint8_t weights[16] = {1, 2, 4, 8, 16, 32, 64, 128, 1, 2, 4, 8, 16, 32, 64, 128};
    uint8x16_t have = vcombine_u8(vcreate_u8(low), vcreate_u8(high));
    uint8x16_t bits = vandq_u8(vceqq_u8(have, vdupq_n_u8(byte)), vld1q_u8(weights));
#ifdef ROWEX_CANARY_WRONG_LANE /* a broken build on purpose: scripts/emulate must notice */
    return (uint32_t)vaddv_u8(vget_high_u8(bits)) | (uint32_t)vaddv_u8(vget_low_u8(bits)) << 8;
#endif
    return (uint32_t)vaddv_u8(vget_low_u8(bits)) | (uint32_t)vaddv_u8(vget_high_u8(bits)) << 8;
#else
    uint32_t mask = 0;
    for (unsigned i = 0; i < 8; i++) {
        mask |= (uint32_t)((uint8_t)(low >> (8 * i)) == byte) << i;
        mask |= (uint32_t)((uint8_t)(high >> (8 * i)) == byte) << (8 + i);
    }
    return mask;
#endif
}

rx_ref *rx_node_find(struct rx_node *n, unsigned shape, uint8_t byte)
{
    switch (rx_shape_kind(shape)) {
    case RX_K_N4: { /* all four at once: which one it is could not be foreseen */
        unsigned count = rx_given(n, shape);
        uint32_t differ = (uint32_t)rx_load_rlx((const uint64_t *)(void *)rx_n4_keys(n)) ^ byte * 0x01010101u;
        uint32_t equal = (differ - 0x01010101u) & ~differ & 0x80808080u; /* its lowest bit is right */
        return equal & ((1ull << 8 * count) - 1) ? rx_node_slots(n, RX_K_N4) + __builtin_ctz(equal) / 8 : NULL;
    }
    case RX_K_N16: {
        unsigned count = rx_given(n, shape);
        uint32_t mask = rx_match16(rx_n16_keys(n), byte) & ((1u << count) - 1);
        return mask ? rx_node_slots(n, RX_K_N16) + __builtin_ctz(mask) : NULL;
    }
    case RX_K_N48: {
        unsigned at = (unsigned)rx_load8(rx_n48_index(n) + byte) - 1; /* none: beyond all */
        return at < rx_shape_slots(shape) ? rx_node_slots(n, RX_K_N48) + at : NULL;
    }
    default:
        return rx_node_slots(n, RX_K_N256) + byte;
    }
}

/* ---- iteration ------------------------------------------------------------- */

/* Node4/16.  Of a byte that a damaged node has twice, the first child counts. */
static int rx_small_children(struct rx_node *n, unsigned shape, uint8_t *bytes, rx_ref *refs)
{
    const uint8_t *keys = (const uint8_t *)n + RX_NODE_HEAD;
    const rx_ref *slot = rx_node_slots(n, shape);
    int count = 0;
    for (unsigned i = 0, given = rx_given(n, shape); i < given; i++) {
        uint8_t byte = rx_load8_rlx(keys + i);
        rx_ref ref = rx_load(slot + i);
        int at = count;
        while (at > 0 && bytes[at - 1] > byte)
            at--;
        if (ref == 0 || (at > 0 && bytes[at - 1] == byte))
            continue;
        for (int j = count++; j > at; j--) {
            bytes[j] = bytes[j - 1];
            refs[j] = refs[j - 1];
        }
        bytes[at] = byte;
        refs[at] = ref;
    }
    return count;
}

int rx_node_children(struct rx_node *n, unsigned shape, uint8_t *bytes, rx_ref *refs)
{
    unsigned kind = rx_shape_kind(shape), slots = rx_shape_slots(shape);
    const rx_ref *slot = rx_node_slots(n, shape);
    int count = 0;
    if (kind == RX_K_N4 || kind == RX_K_N16)
        return rx_small_children(n, shape, bytes, refs);
    for (unsigned byte = 0; byte < 256; byte++) {
        unsigned at = kind == RX_K_N48 ? (unsigned)rx_load8(rx_n48_index(n) + byte) - 1 : byte;
        rx_ref child = at < slots ? rx_load(slot + at) : 0;
        if (child == 0)
            continue;
        bytes[count] = (uint8_t)byte;
        refs[count++] = child;
    }
    return count;
}

/* Slots that may hold a child; of a Node256 all. */
static unsigned rx_held(struct rx_node *n, unsigned shape)
{
    return rx_shape_kind(shape) == RX_K_N256 ? 256 : rx_given(n, shape);
}

int rx_node_live(struct rx_node *n, unsigned shape)
{
    const rx_ref *slot = rx_node_slots(n, shape), *end = slot + rx_held(n, shape);
    int live = 0;
    for (; slot < end; slot++)
        live += rx_load_rlx(slot) != 0; /* stale: the caller holds the lock, or only plans */
    return live;
}

bool rx_node_lives_above(struct rx_node *n, unsigned shape, unsigned children)
{
    const rx_ref *slot = rx_node_slots(n, shape), *end = slot + rx_held(n, shape);
    unsigned live = 0;
    for (; slot < end && live <= children; slot++)
        live += rx_load_rlx(slot) != 0; /* stale: the caller only plans */
    return live > children;
}

bool rx_node_crowded(struct rx_node *n, unsigned shape, const rx_ref *slot)
{
    const rx_ref *first = rx_node_slots(n, shape), *end = first + rx_held(n, shape);
    unsigned live = 0;
    if (slot < first) /* where a key ends */
        return false;
    slot = first + ((slot - first) & ~7);
    for (unsigned i = 0; i < 8 && slot + i < end; i++)
        live += rx_load_rlx(slot + i) != 0; /* stale: the caller only plans */
    return live > 4;
}

/* ---- change ------------------------------------------------------------------ */

/*
 * Requires  n's write lock; no slot was given to `byte`: so no Node256, which has one for each.
 * Commit    none: the slot stays null, so nothing changes for any reader (I2).
 * Ordering  byte before count (Node4/16), count before index byte (Node48); the
 *           count is a release and pairs with rx_given().
 * Crash     between the stores: a slot that nobody uses, or one that belongs to
 *           `byte` and is null; both go when the node is copied.  A power cut, too, must
 *           not leave the second store without the first: a slot of two bytes.
 */
rx_ref *rx_node_give(struct rx_node *n, unsigned shape, uint8_t byte, bool fences)
{
    unsigned kind = rx_shape_kind(shape), given = rx_given(n, shape);
    rx_ref *slot = rx_node_slots(n, shape);
#ifdef ROWEX_CANARY_SLOT_TWICE /* a broken build on purpose: fuzz/schedules.c must notice */
    for (unsigned i = 0; kind == RX_K_N4 && i < given; i++)
        if (rx_load(slot + i) == 0) {
            rx_store8(rx_n4_keys(n) + i, byte);
            return slot + i;
        }
#endif
    if (given == rx_shape_slots(shape))
        return NULL;
    if (kind == RX_K_N48) {
        rx_store8(&n->count, (uint8_t)(given + 1));
        rx_persist(fences, n, 8);
        rx_store8(rx_n48_index(n) + byte, (uint8_t)(given + 1));
        rx_flush(fences, rx_n48_index(n) + byte, 1);
    } else {
        uint8_t *keys = kind == RX_K_N4 ? rx_n4_keys(n) : rx_n16_keys(n);
        rx_store8_rlx(keys + given, byte);
        rx_persist(fences, keys + given, 1);
        rx_store8(&n->count, (uint8_t)(given + 1));
        rx_flush(fences, n, 8);
    }
    return slot + given;
}

/* Its giver may have died before it flushed the second store. */
void rx_node_persist_given(struct rx_node *n, unsigned shape, uint8_t byte)
{
    unsigned kind = rx_shape_kind(shape);
    if (kind == RX_K_N48)
        rx_flush(true, rx_n48_index(n) + byte, 1);
    else if (kind != RX_K_N256)
        rx_flush(true, n, 8);
}

/*
 * Requires  a reserved cell of rx_node_size(shape, prefix_len) bytes that nobody reaches; room for the children.
 * Ordering  the header last, so that the heap can be walked at every store; readers
 *           see the node through the commit's release.
 */
void rx_node_build(struct rx_node *n, unsigned shape, uint32_t level, const uint8_t *prefix, unsigned prefix_len,
                   rx_ref term, const uint8_t *bytes, const rx_ref *refs, unsigned count, bool fences)
{
    uint8_t *at = (uint8_t *)n;
    unsigned kind = rx_shape_kind(shape), slot_count = rx_shape_slots(shape), slots_at = rx_slots_at(shape);
    rx_ref slots[256];
    rx_store_rlx(&n->lock, 0);
    rx_store_rlx(&n->term, term);
    if (kind == RX_K_N256) {
        memset(slots, 0, sizeof slots);
        for (unsigned i = 0; i < count; i++)
            slots[bytes[i]] = refs[i];
    } else {
        uint8_t keys[256]; /* or the index; of a Node4 the pad, too */
        memset(keys, 0, slots_at - RX_NODE_HEAD);
        for (unsigned i = 0; i < count && kind == RX_K_N48; i++)
            keys[bytes[i]] = (uint8_t)(i + 1);
        if (kind != RX_K_N48)
            memcpy(keys, bytes, count);
        memcpy(slots, refs, count * sizeof(rx_ref));
        memset(slots + count, 0, (slot_count - count) * sizeof(rx_ref));
        rx_fill(at + RX_NODE_HEAD, keys, slots_at - RX_NODE_HEAD);
    }
    rx_fill(at + slots_at, slots, slot_count * sizeof(rx_ref));
    if (prefix_len)
        rx_fill(at + rx_node_fixed(shape), prefix, prefix_len);
    uint64_t header = shape | (uint64_t)(count > 255 ? 255 : count) << 8 | (uint64_t)prefix_len << 16 |
                      (uint64_t)level << 32;
    rx_store((uint64_t *)(void *)at, header);
    rx_flush(fences, n, rx_node_fixed(shape) + prefix_len);
}

/* ---- leaves ------------------------------------------------------------------- */

/*
 * The checksum is taken of the copy: the caller's buffer may change under us.
 * Ordering  the header last, as for nodes.
 */
rx_ref rx_leaf_build(uint8_t *base, rx_off off, const void *key, uint64_t key_len, const void *value,
                     uint64_t value_len, bool checksum, bool fences)
{
    uint8_t *at = base + off;
    bool small = rx_leaf_is_small(key_len, value_len);
    uint8_t *bytes = at + (small ? RX_LEAF_HEAD : sizeof(struct rx_big));
    if (key_len)
        rx_fill_new(fences && !small, bytes, key, key_len);
    if (value_len)
        rx_fill_new(fences && !small, bytes + key_len, value, value_len);
    uint32_t crc = checksum ? rx_crc32c_item(key_len, value_len, bytes) : 0;
    if (small) {
        rx_store((uint64_t *)(void *)at, rx_head_leaf(key_len, value_len, crc));
        rx_flush(fences, at, RX_LEAF_HEAD + key_len + value_len);
        return rx_ref_make(off, RX_K_LEAF, 0);
    }
    struct rx_big *big = (struct rx_big *)(void *)at;
    rx_store(&big->value_len, value_len);
    rx_store32(&big->crc, crc);
    rx_store32(&big->key_len, (uint32_t)key_len);
    rx_store(&big->header, rx_head_sized(RX_K_BIG, rx_big_size(key_len, value_len)));
    rx_flush(fences, big, sizeof *big);
    return rx_ref_make(off, RX_K_BIG, 0);
}

struct rx_batch *rx_batch_at(struct rx_map *map, rx_off off, uint64_t *size)
{
    if (off < RX_HEAP || (off & 7) || !rx_in_file(map, off, sizeof(struct rx_batch)))
        return NULL;
    struct rx_batch *b = (struct rx_batch *)(void *)(map->base + off);
    uint64_t header = rx_load(&b->header);
    *size = rx_cell_size(header);
    if (rx_head_kind(header) != RX_K_BATCH || *size < sizeof *b || !rx_in_file(map, off, *size) ||
        rx_load_rlx(&b->count) > (*size - sizeof *b) / sizeof b->item[0])
        return NULL;
    return b;
}

const uint8_t *rx_batch_key(const struct rx_batch *b, uint64_t size, uint64_t i, uint64_t *key_len)
{
    uint64_t key = rx_load_rlx(&b->item[i].key), at = key & ((1ull << RX_BATCH_KEY_SHIFT) - 1);
    *key_len = key >> RX_BATCH_KEY_SHIFT;
    return at <= size && *key_len <= size - at && *key_len <= RX_KEY_MAX ? (const uint8_t *)b + at : NULL;
}

/* Ordering: the state (acquire) after the slot that led here; pairs with the batch's commit. */
int rx_wrapper_view(struct rx_map *map, rx_ref ref, struct rx_wrapped *w)
{
    rx_off off = rx_ref_off(ref);
    uint64_t size;
    if (RX_UNLIKELY(off < RX_HEAP || (off & 7) || !rx_in_file(map, off, sizeof(struct rx_wrapper))))
        return rx_corrupt(off, "a reference leads outside the file");
    const struct rx_wrapper *wrapper = (const struct rx_wrapper *)(const void *)(map->base + off);
    if (RX_UNLIKELY(rx_load(&wrapper->header) != rx_head_sized(RX_K_WRAPPER, sizeof *wrapper)))
        return rx_corrupt(off, "expected a wrapper, found header %016llx", (unsigned long long)rx_load(&wrapper->header));
    uint64_t index = rx_load_rlx(&wrapper->index);
    w->old = rx_load_rlx(&wrapper->old);
    w->batch = rx_batch_at(map, rx_load_rlx(&wrapper->batch), &size);
    if (RX_UNLIKELY(w->batch == NULL || index >= (size - sizeof *w->batch) / sizeof w->batch->item[0]))
        return rx_corrupt(off, "the wrapper belongs to no batch");
    w->leaf = rx_load_rlx(&w->batch->item[index].leaf);
    w->key = rx_batch_key(w->batch, size, index, &w->key_len);
    w->state = rx_load(&w->batch->state);
    if (RX_UNLIKELY(map->fences && (w->state & 3) == RX_B_COMMITTED)) /* D1; else what holds is the leaf before */
        rx_persist(true, &w->batch->state, 8);
    if (RX_UNLIKELY(w->key == NULL || (w->state & 3) == 0 || (w->leaf && !rx_ref_is_leaf(w->leaf)) ||
                    (w->old && !rx_ref_is_leaf(w->old)) || rx_ref_is_wrapper(w->leaf) || rx_ref_is_wrapper(w->old)))
        return rx_corrupt(off, "the wrapper's batch is damaged");
    return RX_OK;
}

static __attribute__((noinline)) int rx_wrapped_view(struct rx_map *map, rx_ref ref, struct rx_leaf_view *view)
{
    struct rx_wrapped w;
    int rc = rx_wrapper_view(map, ref, &w);
    if (rc)
        return rc;
#ifdef ROWEX_CANARY_EARLY_BATCH /* a broken build on purpose: fuzz/linear.py and fuzz/schedules.c must notice */
    if ((w.state & 3) == RX_B_PENDING)
        w.state = RX_B_COMMITTED;
#endif
    ref = rx_wrapped_ref(&w);
    return ref ? rx_leaf_view_any(map, ref, view) : RX_ABSENT;
}

int rx_leaf_view_any(struct rx_map *map, rx_ref ref, struct rx_leaf_view *view)
{
    rx_off off = rx_ref_off(ref);
    if (rx_ref_is_wrapper(ref))
        return rx_wrapped_view(map, ref, view);
    if (RX_UNLIKELY(!rx_in_file(map, off, RX_CELL_MIN)))
        return rx_corrupt(off, "a reference leads outside the file");
    const uint8_t *at = map->base + off;
    uint64_t header = rx_load((const uint64_t *)(const void *)at);
    uint64_t size = rx_cell_size(header);
    if (RX_UNLIKELY(rx_head_kind(header) != rx_ref_kind(ref) || size == 0 || !rx_in_file(map, off, size)))
        return rx_corrupt(off, "expected a leaf, found header %016llx", (unsigned long long)header);
    view->cell_size = size;
    if (rx_head_kind(header) == RX_K_LEAF) {
        view->key_len = rx_leaf_key_len(header);
        view->value_len = rx_leaf_value_len(header);
        view->key = at + RX_LEAF_HEAD;
        view->crc = (uint32_t)(header >> 32);
    } else if (rx_head_kind(header) == RX_K_BIG) {
        const struct rx_big *big = (const struct rx_big *)(const void *)at;
        bool whole = size >= sizeof *big; /* else its head may lie behind the file's end */
        uint64_t room = whole ? size - sizeof *big : 0;
        if (RX_UNLIKELY(!whole || (view->key_len = rx_load32(&big->key_len)) > room ||
                        (view->value_len = rx_load(&big->value_len)) > room - view->key_len))
            return rx_corrupt(off, "a leaf's lengths exceed its cell");
        view->key = big->bytes;
        view->crc = rx_load32(&big->crc);
    } else {
        return rx_corrupt(off, "the reference %016llx is no leaf", (unsigned long long)ref);
    }
    view->value = view->key + view->key_len;
    return RX_OK;
}

uint32_t rx_leaf_crc(const struct rx_leaf_view *view)
{
    return rx_crc32c_item(view->key_len, view->value_len, view->key);
}

int rx_node_check(struct rx_map *map, rx_ref ref, uint32_t level, struct rx_node **out)
{
    rx_off off = rx_ref_off(ref);
    unsigned shape = rx_ref_shape(ref);
    uint32_t fixed = rx_node_fixed(shape);
    if (RX_UNLIKELY(fixed == 0))
        return rx_corrupt(off, "the reference %016llx is no node", (unsigned long long)ref);
    if (RX_UNLIKELY(!rx_in_file(map, off, fixed)))
        return rx_corrupt(off, "a reference leads outside the file");
    struct rx_node *n = rx_node_at(map->base, off);
    uint64_t header = rx_load((const uint64_t *)(const void *)n);
    unsigned prefix_len = (unsigned)(header >> 16) & 0xffff;
    if (RX_UNLIKELY(rx_head_shape(header) != shape || (uint32_t)(header >> 32) != level ||
                    (prefix_len > 255 ? 255 : prefix_len) != ref >> 56))
        return rx_corrupt(off, "expected a node of shape %02x at level %u, found header %016llx", shape, level,
                          (unsigned long long)header);
    if (RX_UNLIKELY(!rx_in_file(map, off, fixed + (uint64_t)prefix_len)))
        return rx_corrupt(off, "a node's prefix leads outside the file");
    *out = n;
    return RX_OK;
}
