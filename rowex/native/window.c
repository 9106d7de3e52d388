/*
 * window.c -- several children of a node at once.  Searches as node.c does (I1, I2):
 * slots beyond the given count are ignored, null slots are absent.
 */
#include "window.h"

static inline rx_ref rx_slot48(struct rx_node *n, const uint8_t *index, int byte)
{
    unsigned at = (unsigned)rx_load8(index + byte) - 1; /* none: beyond 48 */
    rx_ref ref = rx_load(&n->slot[at < 48 ? at : 0]);
    return at < 48 ? ref : 0;
}

/* Node4/16: which bytes are given, and where. */
struct rx_given { uint64_t bits[4]; uint8_t slot[256]; };

static inline void rx_given_collect(struct rx_node *n, unsigned kind, struct rx_given *g)
{
    unsigned capacity = kind == RX_K_N4 ? 4 : 16, count = rx_load8(&n->count);
    const uint8_t *keys = (const uint8_t *)n + (kind == RX_K_N4 ? RX_N4_KEYS : RX_N16_KEYS);
    memset(g->bits, 0, sizeof g->bits);
    for (unsigned i = 0; i < count && i < capacity; i++) {
        uint8_t byte = rx_load8_rlx(keys + i); /* final below the acquired count */
        g->bits[byte >> 6] |= 1ull << (byte & 63);
        g->slot[byte] = (uint8_t)i;
    }
}

static unsigned rx_small_up(struct rx_node *n, unsigned kind, int *from, rx_ref *refs, unsigned max)
{
    struct rx_given g;
    unsigned count = 0;
    rx_given_collect(n, kind, &g);
    g.bits[*from >> 6] &= ~0ull << (*from & 63);
    for (int word = *from >> 6; word < 4; word++)
        for (uint64_t bits = g.bits[word]; bits; bits &= bits - 1) {
            int byte = word * 64 + __builtin_ctzll(bits);
            if (count == max) {
                *from = byte;
                return count;
            }
            rx_ref ref = rx_load(&n->slot[g.slot[byte]]);
            refs[count] = ref;
            count += ref != 0;
        }
    *from = 256;
    return count;
}

static unsigned rx_small_down(struct rx_node *n, unsigned kind, int *from, rx_ref *refs, unsigned max)
{
    struct rx_given g;
    unsigned count = 0;
    rx_given_collect(n, kind, &g);
    g.bits[*from >> 6] &= ~0ull >> (63 - (*from & 63));
    for (int word = *from >> 6; word >= 0; word--)
        for (uint64_t bits = g.bits[word]; bits;) {
            int top = 63 - __builtin_clzll(bits), byte = word * 64 + top;
            if (count == max) {
                *from = byte;
                return count;
            }
            bits &= ~(1ull << top);
            rx_ref ref = rx_load(&n->slot[g.slot[byte]]);
            refs[count] = ref;
            count += ref != 0;
        }
    *from = -1;
    return count;
}

unsigned rx_window_up(struct rx_node *n, unsigned kind, int *from, rx_ref *refs, unsigned max)
{
    if (kind == RX_K_N4 || kind == RX_K_N16)
        return *from > 255 ? 0 : rx_small_up(n, kind, from, refs, max);
    const uint8_t *index = (const uint8_t *)n + RX_N48_INDEX;
    unsigned count = 0;
    int byte = *from;
    for (; byte < 256 && count < max; byte++) {
        rx_ref ref = kind == RX_K_N48 ? rx_slot48(n, index, byte) : rx_load(&n->slot[byte]);
        refs[count] = ref;
        count += ref != 0;
    }
    *from = byte;
    return count;
}

unsigned rx_window_down(struct rx_node *n, unsigned kind, int *from, rx_ref *refs, unsigned max)
{
    if (kind == RX_K_N4 || kind == RX_K_N16)
        return *from < 0 ? 0 : rx_small_down(n, kind, from, refs, max);
    const uint8_t *index = (const uint8_t *)n + RX_N48_INDEX;
    unsigned count = 0;
    int byte = *from;
    for (; byte >= 0 && count < max; byte--) {
        rx_ref ref = kind == RX_K_N48 ? rx_slot48(n, index, byte) : rx_load(&n->slot[byte]);
        refs[count] = ref;
        count += ref != 0;
    }
    *from = byte;
    return count;
}
