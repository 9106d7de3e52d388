/*
 * window.c -- several children of a node at once.  Searches as node.c does (I1, I2):
 * slots beyond the given count are ignored, null slots are absent.
 */
#include "window.h"

/* A Node48, as the shape of the reference to it says. */
struct rx_indexed { const uint8_t *index; const rx_ref *slot; unsigned slots; };

static inline struct rx_indexed rx_indexed_of(struct rx_node *n, unsigned shape)
{
    return (struct rx_indexed){(const uint8_t *)n + RX_N48_INDEX, rx_node_slots(n, RX_K_N48), rx_shape_slots(shape)};
}

static inline rx_ref rx_slot48(const struct rx_indexed *n, int byte)
{
    unsigned at = (unsigned)rx_load8(n->index + byte) - 1; /* none: beyond all */
    rx_ref ref = rx_load(n->slot + (at < n->slots ? at : 0));
    return at < n->slots ? ref : 0;
}

/* Node4/16: which bytes are given, and where. */
struct rx_given { uint64_t bits[4]; uint8_t slot[256]; };

static inline void rx_given_collect(struct rx_node *n, unsigned shape, struct rx_given *g)
{
    unsigned capacity = rx_shape_slots(shape), count = rx_load8(&n->count);
    const uint8_t *keys = (const uint8_t *)n + RX_NODE_HEAD;
    _Static_assert(RX_N4_KEYS == RX_NODE_HEAD && RX_N16_KEYS == RX_NODE_HEAD, "keys of both");
    memset(g->bits, 0, sizeof g->bits);
    for (unsigned i = 0; i < count && i < capacity; i++) {
        uint8_t byte = rx_load8_rlx(keys + i); /* final below the acquired count */
        g->bits[byte >> 6] |= 1ull << (byte & 63);
        g->slot[byte] = (uint8_t)i;
    }
}

/* Two children, as most Node4s have: which comes first could not be foreseen, so no branch asks. */
static inline unsigned rx_up_pair(const uint8_t *keys, const rx_ref *slot, int from, rx_ref *refs)
{
    int byte[2] = {rx_load8_rlx(keys), rx_load8_rlx(keys + 1)}; /* final below the acquired count */
    rx_ref ref[2] = {rx_load(slot), rx_load(slot + 1)};
    unsigned first = byte[1] < byte[0];
    ref[0] = byte[0] < from || byte[0] == byte[1] ? 0 : ref[0];
    ref[1] = byte[1] < from ? 0 : ref[1];
    refs[0] = ref[first];
    unsigned live = ref[first] != 0;
    refs[live] = ref[1 - first];
    return live + (ref[1 - first] != 0);
}

/*
 * A Node4, upwards: its few children are sorted as they are read.  Of a byte that a damaged one has twice
 * the last counts, as below: whoever counts what can be reached notices.
 */
static unsigned rx_up4(struct rx_node *n, unsigned shape, int *from, rx_ref *refs)
{
    unsigned given = rx_load8(&n->count), capacity = rx_shape_slots(shape), count = 0, live = 0;
    const uint8_t *keys = (const uint8_t *)n + RX_N4_KEYS;
    const rx_ref *slot = rx_node_slots(n, RX_K_N4);
    int bytes[4], least = *from;
    *from = 256;
    if (RX_LIKELY(given == 2 && capacity >= 2))
        return rx_up_pair(keys, slot, least, refs);
    for (unsigned i = 0; i < given && i < capacity; i++) {
        int byte = rx_load8_rlx(keys + i); /* final below the acquired count */
        rx_ref ref = rx_load(slot + i);
        unsigned at = 0;
        while (at < count && bytes[at] < byte)
            at++;
        if (byte < least)
            continue;
        if (at == count || bytes[at] != byte) {
            for (unsigned j = count++; j > at; j--) {
                bytes[j] = bytes[j - 1];
                refs[j] = refs[j - 1];
            }
            bytes[at] = byte;
        }
        refs[at] = ref;
    }
    for (unsigned i = 0; i < count; i++) {
        refs[live] = refs[i];
        live += refs[i] != 0;
    }
    return live;
}

static unsigned rx_small_up(struct rx_node *n, unsigned shape, int *from, rx_ref *refs, unsigned max)
{
    struct rx_given g;
    const rx_ref *slot = rx_node_slots(n, shape);
    unsigned count = 0;
    rx_given_collect(n, shape, &g);
    g.bits[*from >> 6] &= ~0ull << (*from & 63);
    for (int word = *from >> 6; word < 4; word++)
        for (uint64_t bits = g.bits[word]; bits; bits &= bits - 1) {
            int byte = word * 64 + __builtin_ctzll(bits);
            if (count == max) {
                *from = byte;
                return count;
            }
            rx_ref ref = rx_load(slot + g.slot[byte]);
            refs[count] = ref;
            count += ref != 0;
        }
    *from = 256;
    return count;
}

static unsigned rx_small_down(struct rx_node *n, unsigned shape, int *from, rx_ref *refs, unsigned max)
{
    struct rx_given g;
    const rx_ref *slot = rx_node_slots(n, shape);
    unsigned count = 0;
    rx_given_collect(n, shape, &g);
    g.bits[*from >> 6] &= ~0ull >> (63 - (*from & 63));
    for (int word = *from >> 6; word >= 0; word--)
        for (uint64_t bits = g.bits[word]; bits;) {
            int top = 63 - __builtin_clzll(bits), byte = word * 64 + top;
            if (count == max) {
                *from = byte;
                return count;
            }
            bits &= ~(1ull << top);
            rx_ref ref = rx_load(slot + g.slot[byte]);
            refs[count] = ref;
            count += ref != 0;
        }
    *from = -1;
    return count;
}

/*
 * Node48: which of the bytes word * 64 .. + 63 have an index, eight looked at together.
 * The product gathers the eight flags into its top byte.
 */
static inline uint64_t rx_index_bits(const uint8_t *index, int word)
{
    const uint64_t low = 0x7f7f7f7f7f7f7f7full;
    uint64_t bits = 0;
    for (unsigned i = 0; i < 8; i++) {
        uint64_t eight = rx_load((const uint64_t *)(const void *)(index + word * 64 + i * 8));
        uint64_t flags = (((eight & low) + low) | eight) >> 7 & 0x0101010101010101ull;
        bits |= (flags * 0x0102040810204080ull >> 56) << (8 * i);
    }
    return bits;
}

static unsigned rx_up48(struct rx_node *node, unsigned shape, int *from, rx_ref *refs, unsigned max)
{
    struct rx_indexed n = rx_indexed_of(node, shape);
    unsigned count = 0;
    for (int byte = *from; byte < 256; byte = (byte | 63) + 1) {
        int base = byte & ~63;
        for (uint64_t bits = rx_index_bits(n.index, byte >> 6) & ~0ull << (byte & 63); bits; bits &= bits - 1) {
            if (count == max) {
                *from = base + __builtin_ctzll(bits);
                return count;
            }
            refs[count] = rx_slot48(&n, base + __builtin_ctzll(bits));
            count += refs[count] != 0;
        }
    }
    *from = 256;
    return count;
}

static unsigned rx_down48(struct rx_node *node, unsigned shape, int *from, rx_ref *refs, unsigned max)
{
    struct rx_indexed n = rx_indexed_of(node, shape);
    unsigned count = 0;
    for (int byte = *from; byte >= 0; byte = (byte & ~63) - 1) {
        int base = byte & ~63, top;
        for (uint64_t bits = rx_index_bits(n.index, byte >> 6) & ~0ull >> (63 - (byte & 63)); bits; bits &= ~(1ull << top)) {
            top = 63 - __builtin_clzll(bits);
            if (count == max) {
                *from = base + top;
                return count;
            }
            refs[count] = rx_slot48(&n, base + top);
            count += refs[count] != 0;
        }
    }
    *from = -1;
    return count;
}

unsigned rx_window_up(struct rx_node *n, unsigned shape, int *from, rx_ref *refs, unsigned max)
{
    unsigned kind = rx_shape_kind(shape);
    if (kind == RX_K_N4 && max >= 4)
        return *from > 255 ? 0 : rx_up4(n, shape, from, refs);
    if (kind == RX_K_N4 || kind == RX_K_N16)
        return *from > 255 ? 0 : rx_small_up(n, shape, from, refs, max);
    if (kind == RX_K_N48)
        return rx_up48(n, shape, from, refs, max);
    const rx_ref *slot = rx_node_slots(n, RX_K_N256);
    unsigned count = 0;
    int byte = *from;
    for (; byte + 4 <= 256 && count + 4 <= max; byte += 4)
        for (int i = 0; i < 4; i++) {
            refs[count] = rx_load(slot + byte + i);
            count += refs[count] != 0;
        }
    for (; byte < 256 && count < max; byte++) {
        refs[count] = rx_load(slot + byte);
        count += refs[count] != 0;
    }
    *from = byte;
    return count;
}

unsigned rx_window_down(struct rx_node *n, unsigned shape, int *from, rx_ref *refs, unsigned max)
{
    unsigned kind = rx_shape_kind(shape);
    if (kind == RX_K_N4 || kind == RX_K_N16)
        return *from < 0 ? 0 : rx_small_down(n, shape, from, refs, max);
    if (kind == RX_K_N48)
        return rx_down48(n, shape, from, refs, max);
    const rx_ref *slot = rx_node_slots(n, RX_K_N256);
    unsigned count = 0;
    int byte = *from;
    for (; byte >= 0 && count < max; byte--) {
        refs[count] = rx_load(slot + byte);
        count += refs[count] != 0;
    }
    *from = byte;
    return count;
}
