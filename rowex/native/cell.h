/*
 * cell.h -- sizes and headers of cells; size classes.  Pure functions on words,
 * no memory is touched: the caller has loaded and bounds-checked the header.
 */
#ifndef ROWEX_CELL_H
#define ROWEX_CELL_H

#include "core.h"

static inline uint64_t rx_round8(uint64_t n) { return (n + 7) & ~7ull; }

/* Of a leaf or wrapper the shape is its kind. */
static inline rx_ref rx_ref_make(rx_off off, unsigned shape, unsigned prefix_len)
{
    return off | (shape & RX_KIND_MASK) | (uint64_t)(shape & 0xf0) << RX_REF_SHAPE_SHIFT |
           ((uint64_t)(prefix_len > 255 ? 255 : prefix_len) << 56);
}
static inline rx_off rx_ref_off(rx_ref ref) { return ref & RX_REF_OFF_MASK; }
static inline unsigned rx_ref_kind(rx_ref ref) { return (unsigned)(ref & RX_KIND_MASK); }
/* Of the node it leads to; what is no node's shape has rx_node_fixed() 0. */
static inline unsigned rx_ref_shape(rx_ref ref)
{
    return (unsigned)(ref & RX_KIND_MASK) | ((unsigned)(ref >> RX_REF_SHAPE_SHIFT) & 0xf0u);
}
/* Bits that no reference has: one with any of them was not made here. */
static inline bool rx_ref_is_odd(rx_ref ref, bool leaf) { return ref >> 48 & (leaf ? 0xffffu : 0xf0u); }
/* A leaf, or the wrapper that stands for one or for none: no node. */
static inline bool rx_ref_is_leaf(rx_ref ref)
{
    return (1u << RX_K_LEAF | 1u << RX_K_BIG | 1u << RX_K_WRAPPER) >> rx_ref_kind(ref) & 1;
}
static inline bool rx_ref_is_wrapper(rx_ref ref) { return rx_ref_kind(ref) == RX_K_WRAPPER; }
static inline bool rx_kind_is_node(unsigned kind) { return kind >= RX_K_N4 && kind <= RX_K_N256; }

/* ---- shapes of nodes: the kind, and above it the code of the capacity ------- */

static inline unsigned rx_shape_kind(unsigned shape) { return shape & 15; }
/* Slots; of a byte that is no shape some number up to 256. */
static inline unsigned rx_shape_slots(unsigned shape)
{
    unsigned code = shape >> 4;
    switch (rx_shape_kind(shape)) {
    case RX_K_N4: return code ? code : 4;
    case RX_K_N16: return code ? code : 16;
    case RX_K_N48: return code ? code * 16 : 48;
    default: return 256;
    }
}
static inline bool rx_shape_holds(unsigned shape, unsigned children) { return children <= rx_shape_slots(shape); }
/* More slots than a whole Node48: a Node256, or what stands for one. */
static inline bool rx_shape_is_wide(unsigned shape) { return rx_shape_slots(shape) > 48; }
/* The smallest kind with room for `children`: a shape, the one with all its slots. */
static inline unsigned rx_kind_for(unsigned children)
{
    return children <= 4 ? RX_K_N4 : children <= 16 ? RX_K_N16 : children <= 48 ? RX_K_N48 : RX_K_N256;
}
/* The tightest shape for so many, for a node that may stay as it is: the next slot that it must give costs a copy. */
static inline unsigned rx_shape_for(unsigned children)
{
    if (children > 48 && children <= RX_N48_MOST)
        return RX_K_N48 | (children + 15) / 16 << 4;
    unsigned kind = rx_kind_for(children);
    if (kind == RX_K_N256 || children == 0 || children == 4 || children == 16 || children > 32)
        return kind;
    return kind | (children <= 16 ? children : 2) << 4;
}

/* Bytes of a node of this shape before its prefix; 0 if the byte is no node's shape. */
static inline uint32_t rx_node_fixed(unsigned shape)
{
#define RX_TIGHT(kind, code, at, slots) [(kind) | (code) << 4] = (at) + 8 * (slots)
#define RX_N4(code, slots) RX_TIGHT(RX_K_N4, code, RX_N4_SLOTS, slots)
#define RX_N16(code, slots) RX_TIGHT(RX_K_N16, code, RX_N16_SLOTS, slots)
#define RX_N48(code, slots) RX_TIGHT(RX_K_N48, code, RX_N48_SLOTS, slots)
    static const uint16_t fixed[256] = {
        RX_N4(0, 4), RX_N4(1, 1), RX_N4(2, 2), RX_N4(3, 3),
        RX_N16(0, 16), RX_N16(5, 5), RX_N16(6, 6), RX_N16(7, 7), RX_N16(8, 8), RX_N16(9, 9), RX_N16(10, 10),
        RX_N16(11, 11), RX_N16(12, 12), RX_N16(13, 13), RX_N16(14, 14), RX_N16(15, 15),
        RX_N48(0, 48), RX_N48(2, 32), RX_N48(4, 64), RX_N48(5, 80), RX_N48(6, 96), RX_N48(7, 112), RX_N48(8, 128),
        [RX_K_N256] = RX_N256_PREFIX};
#undef RX_N48
#undef RX_N16
#undef RX_N4
#undef RX_TIGHT
    return fixed[shape & 255];
}
/* Nodes over 1 KiB are rounded to their class (64 bytes), so that free lists stay exact. */
static inline uint64_t rx_cell_round(uint64_t size)
{
    if (size <= RX_SMALL_MAX)
        return size < RX_CELL_MIN ? RX_CELL_MIN : rx_round8(size);
    return (size + 63) & ~63ull;
}
static inline uint64_t rx_node_size(unsigned shape, unsigned prefix_len)
{
    return rx_cell_round((uint64_t)rx_node_fixed(shape) + prefix_len);
}
static inline uint64_t rx_leaf_size(uint64_t key_len, uint64_t value_len)
{
    return rx_cell_round(RX_LEAF_HEAD + key_len + value_len);
}
static inline bool rx_leaf_is_small(uint64_t key_len, uint64_t value_len)
{
    /* the pad has 3 bits: cells that are rounded to 64 are BIG, so is the 8-byte pad of nothing at all */
    return key_len + value_len > 0 && key_len <= RX_SMALL_MAX && value_len <= RX_SMALL_MAX &&
           RX_LEAF_HEAD + key_len + value_len <= RX_SMALL_MAX;
}
static inline uint64_t rx_big_size(uint64_t key_len, uint64_t value_len)
{
    return rx_cell_round(sizeof(struct rx_big) + key_len + value_len);
}

static inline unsigned rx_head_kind(uint64_t header) { return (unsigned)(header & 15); }
static inline unsigned rx_head_shape(uint64_t header) { return (unsigned)(header & 255); } /* of a node */
static inline uint64_t rx_head_leaf(uint64_t key_len, uint64_t value_len, uint32_t crc)
{
    uint64_t size = rx_leaf_size(key_len, value_len), pad = size - RX_LEAF_HEAD - key_len - value_len;
    return RX_K_LEAF | pad << 4 | key_len << 7 | (size / 8) << 18 | (uint64_t)crc << 32;
}
static inline uint32_t rx_leaf_key_len(uint64_t header) { return (uint32_t)(header >> 7) & 2047u; }
static inline uint32_t rx_leaf_bytes(uint64_t header) { return ((uint32_t)(header >> 18) & 16383u) * 8u; }
static inline uint32_t rx_leaf_value_len(uint64_t header) /* may wrap on a damaged header: check first */
{
    return rx_leaf_bytes(header) - RX_LEAF_HEAD - rx_leaf_key_len(header) - ((uint32_t)(header >> 4) & 7u);
}
static inline uint64_t rx_head_sized(unsigned kind, uint64_t size) { return kind | (size / 8) << 8; }

/* Bytes of the cell that begins with this header; 0 = not a valid header. */
static inline uint64_t rx_cell_size(uint64_t header)
{
    switch (rx_head_kind(header)) {
    case RX_K_LEAF: {
        uint64_t size = rx_leaf_bytes(header);
        uint64_t used = (uint64_t)RX_LEAF_HEAD + rx_leaf_key_len(header) + ((header >> 4) & 7u);
        return size >= RX_CELL_MIN && used <= size ? size : 0;
    }
    case RX_K_N4: case RX_K_N16: case RX_K_N48: case RX_K_N256:
        return rx_node_fixed(rx_head_shape(header)) == 0
                   ? 0 : rx_node_size(rx_head_shape(header), (unsigned)(header >> 16) & 0xffffu);
    case RX_K_BIG: case RX_K_FREE: case RX_K_LIMBO: case RX_K_WRAPPER: case RX_K_BATCH: {
        uint64_t size = (header >> 8) * 8;
        return (header & 0xf0) == 0 && size >= RX_CELL_MIN && size < RX_OFF_MAX ? size : 0;
    }
    default:
        return 0;
    }
}

/* The class whose list a free cell of this (rounded) size goes to. */
static inline unsigned rx_class_of(uint64_t size)
{
    if (size <= RX_SMALL_MAX)
        return (unsigned)(size / 8);
    if (size <= RX_MID_MAX) /* remainders of splits need not be multiples of 64 */
        return RX_SMALL_CLASSES + (unsigned)((size - RX_SMALL_MAX) / 64);
    return RX_SMALL_CLASSES + RX_MID_CLASSES + (unsigned)(63 - __builtin_clzll(size) - 12);
}

#endif
