/*
 * build.c -- the bulk builder.
 *
 * Let l be the length of what the last key and the next have in common.  Every node
 * that branches deeper than l is complete: no later key can reach it.  So it is written,
 * with the prefix that leads to it from its parent: the node that branches next above
 * it, or, if that branches above l, a new one at l.  One leaf or node always waits for
 * its parent, which the next key decides.
 *
 * Cells lie back to back and may cross from one extent into the next; the zeros behind
 * the last one end the walk over the heap.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdlib.h>
#include "build.h"
#include "../native/file.h"
#include "../native/node.h"

#define RX_TICK_BYTES 65536u
#define RX_PIECE (1u << 20)
#define RX_STEP_MIN (1u << 20)   /* the target grows by an eighth of itself, within these */
#define RX_STEP_MAX (256u << 20)

static void *rx_grown(void *array, size_t *capacity, size_t item_size)
{
    size_t wanted = *capacity ? *capacity * 2 : 64;
    void *grown = rx_sys_realloc(array, wanted * item_size);
    if (grown)
        *capacity = wanted;
    return grown;
}

int rx_builder_init(struct rx_builder *b, struct rx_map *map, bool checksum, rx_build_tick tick, void *ctx)
{
    memset(b, 0, sizeof *b);
    b->map = map;
    b->bump = b->begun = RX_HEAP;
    b->checksum = checksum;
    b->tick = tick;
    b->ctx = ctx;
    b->node = rx_grown(NULL, &b->node_capacity, sizeof *b->node);
    b->child = rx_grown(NULL, &b->child_capacity, sizeof *b->child);
    if (b->node == NULL || b->child == NULL)
        return rx_fail(RX_E_MEMORY, 0, "for building a copy");
    b->node[b->node_count++] = (struct rx_build_node){0}; /* the root: depth 0, whatever the keys share */
    return RX_OK;
}

void rx_builder_free(struct rx_builder *b)
{
    free(b->last);
    free(b->next);
    free(b->node);
    free(b->child);
    memset(b, 0, sizeof *b);
}

static int rx_builder_tick(struct rx_builder *b, uint64_t bytes)
{
    b->ticked += bytes;
    if (b->ticked < RX_TICK_BYTES || b->tick == NULL)
        return RX_OK;
    b->ticked = 0;
    return b->tick(b->ctx);
}

/* What is whole may go to the disk: this waits for no write to end, and the sync behind the last tells of errors. */
static void rx_builder_begin_sync(struct rx_builder *b, uint64_t whole)
{
#if defined(__linux__)
    if (whole > b->begun)
        (void)sync_file_range(b->map->fd, (off_t)b->begun, (off_t)(whole - b->begun), SYNC_FILE_RANGE_WRITE);
#endif
    b->begun = whole;
}

/* Blocks for [bump, bump + size), in steps that grow with the file; the step before goes to the disk meanwhile. */
static int rx_builder_room(struct rx_builder *b, uint64_t size)
{
    uint64_t capacity = b->map->capacity;
    if (RX_LIKELY(size <= b->allocated && b->bump <= b->allocated - size))
        return RX_OK;
    if (size > capacity || b->bump > capacity - size)
        return rx_fail(RX_E_FULL, 0, "the copy would exceed its capacity of %llu bytes", (unsigned long long)capacity);
    uint64_t step = b->bump / 8, whole = b->bump / RX_EXTENT * RX_EXTENT, upto;
    rx_builder_begin_sync(b, whole);
    step = step < RX_STEP_MIN ? RX_STEP_MIN : step > RX_STEP_MAX ? RX_STEP_MAX : step;
    upto = (b->bump + size + step + RX_EXTENT - 1) / RX_EXTENT * RX_EXTENT;
    if (upto > capacity)
        upto = capacity;
    int rc = rx_copy_allocate(b->map, upto);
    if (rc == RX_E_FULL) { /* perhaps just what is needed fits */
        upto = (b->bump + size + RX_EXTENT - 1) / RX_EXTENT * RX_EXTENT;
        rc = rx_copy_allocate(b->map, upto > capacity ? capacity : upto);
    }
    if (rc == RX_OK)
        b->allocated = upto > capacity ? capacity : upto;
    return rc;
}

/* ---- leaves --------------------------------------------------------------------- */

/* In pieces, so that the caller's tick is called in between; crc, if any, over all of them. */
static int rx_builder_bytes(struct rx_builder *b, uint8_t *to, const uint8_t *from, uint64_t size, uint32_t *crc)
{
    while (size) {
        uint64_t piece = size < RX_PIECE ? size : RX_PIECE;
        rx_fill(to, from, piece);
        if (crc)
            *crc = rx_crc32c(*crc, to, piece); /* of what was written, should the source change */
        int rc = rx_builder_tick(b, piece);
        if (RX_UNLIKELY(rc))
            return rc;
        to += piece;
        from += piece;
        size -= piece;
    }
    return RX_OK;
}

/*
 * Requires  the lengths are within RX_KEY_MAX and what the source's cell holds.
 * Ordering  none: nobody maps the target before it is synced and renamed.
 * Returns   RX_OK with *leaf, which lies at b->bump and is overwritten by the next
 *           write unless it is linked first.
 */
int rx_builder_write(struct rx_builder *b, const uint8_t *key, uint64_t key_len, const uint8_t *value,
                     uint64_t value_len, uint32_t *crc, rx_ref *leaf)
{
    bool small = rx_leaf_is_small(key_len, value_len);
    uint64_t size = small ? rx_leaf_size(key_len, value_len) : rx_big_size(key_len, value_len);
    if (RX_UNLIKELY(key_len > RX_KEY_MAX || value_len > RX_VALUE_MAX))
        return rx_corrupt(0, "a key of %llu or a value of %llu bytes exceeds the limits", (unsigned long long)key_len,
                          (unsigned long long)value_len);
    int rc = rx_builder_room(b, size);
    if (RX_UNLIKELY(rc))
        return rc;
    uint64_t lengths[2] = {key_len, value_len};
    uint32_t sum = 0, *summing = b->checksum || crc ? &sum : NULL;
    uint8_t *at = b->map->base + b->bump, *bytes = at + (small ? RX_LEAF_HEAD : sizeof(struct rx_big));
    if (b->bump + size > b->dirty)
        b->dirty = b->bump + size;
    if (RX_LIKELY(small)) {
        if (key_len)
            rx_fill(bytes, key, key_len);
        if (value_len)
            rx_fill(bytes + key_len, value, value_len);
        if (summing)
            sum = rx_crc32c_item(key_len, value_len, bytes); /* as there */
    } else {
        if (summing)
            sum = rx_crc32c(0, lengths, sizeof lengths);
        rc = rx_builder_bytes(b, bytes, key, key_len, summing);
        if (rc == RX_OK)
            rc = rx_builder_bytes(b, bytes + key_len, value, value_len, summing);
        if (rc)
            return rc;
    }
    uint32_t stored = b->checksum ? sum : 0;
    if (small) {
        rx_store((uint64_t *)(void *)at, rx_head_leaf(key_len, value_len, stored));
    } else {
        struct rx_big *big = (struct rx_big *)(void *)at;
        rx_store(&big->value_len, value_len);
        rx_store32(&big->key_len, (uint32_t)key_len);
        rx_store32(&big->crc, stored);
        rx_store(&big->header, rx_head_sized(RX_K_BIG, size));
    }
    if (crc)
        *crc = sum;
    *leaf = rx_ref_make(b->bump, small ? RX_K_LEAF : RX_K_BIG, 0);
    return RX_OK;
}

/* ---- nodes ------------------------------------------------------------------------ */

static int rx_builder_child(struct rx_builder *b, rx_ref ref, uint8_t byte)
{
    if (b->child_count == b->child_capacity) {
        void *grown = rx_grown(b->child, &b->child_capacity, sizeof *b->child);
        if (grown == NULL)
            return rx_fail(RX_E_MEMORY, 0, "for building a copy");
        b->child = grown;
    }
    b->child[b->child_count++] = (struct rx_build_child){ref, byte};
    return RX_OK;
}

/* What waits becomes a child (or the term) of the innermost node. */
static int rx_builder_attach(struct rx_builder *b)
{
    struct rx_build_node *n = &b->node[b->node_count - 1];
    rx_ref ref = b->waiting;
    b->waiting = 0;
    if (n->depth < b->last_len)
        return rx_builder_child(b, ref, b->last[n->depth]);
    n->term = ref;
    return RX_OK;
}

static int rx_builder_node_cell(struct rx_builder *b, unsigned shape, uint64_t prefix_len, rx_off *off)
{
    uint64_t size = rx_node_size(shape, (unsigned)prefix_len);
    int rc = rx_builder_room(b, size);
    if (rc)
        return rc;
    *off = b->bump;
    b->bump += size;
    return rx_builder_tick(b, size);
}

/*
 * One node whose children differ at `depth`, with what is left of its path down from
 * `level` as prefix; whatever exceeds RX_PREFIX_MAX goes to nodes with one child above
 * it.  Leaves the outermost one waiting.
 */
static int rx_builder_path(struct rx_builder *b, uint64_t level, uint64_t depth, rx_ref term, const uint8_t *bytes,
                           const rx_ref *refs, unsigned count)
{
    unsigned shape = rx_shape_for(count);
    for (;;) {
        uint64_t prefix_len = depth - level > RX_PREFIX_MAX ? RX_PREFIX_MAX : depth - level;
        uint64_t from = depth - prefix_len;
        rx_off off;
        int rc = rx_builder_node_cell(b, shape, prefix_len, &off);
        if (rc)
            return rc;
        rx_node_build(rx_node_at(b->map->base, off), shape, (uint32_t)from, b->last + from, (unsigned)prefix_len, term,
                      bytes, refs, count, false); /* flushed as a whole, by rx_copy_sync() */
        b->waiting = rx_ref_make(off, shape, (unsigned)prefix_len);
        if (from == level)
            return RX_OK;
        depth = from - 1;
        term = 0;
        bytes = b->last + depth;
        refs = &b->waiting;
        count = 1;
        shape = rx_shape_for(1);
    }
}

/* Takes the children of the innermost node off the stack, in order. */
static unsigned rx_builder_take(struct rx_builder *b, uint8_t *bytes, rx_ref *refs)
{
    struct rx_build_node *n = &b->node[b->node_count - 1];
    unsigned count = 0;
    for (size_t i = n->first; i < b->child_count; i++, count++) {
        bytes[count] = b->child[i].byte; /* at most 256: keys come in order */
        refs[count] = b->child[i].ref;
    }
    b->child_count = n->first;
    b->node_count--;
    return count;
}

/* Writes the innermost node; its parent branches at `above`.  It waits then. */
static int rx_builder_close(struct rx_builder *b, uint64_t above)
{
    uint8_t bytes[256];
    rx_ref refs[256];
    struct rx_build_node n = b->node[b->node_count - 1];
    unsigned count = rx_builder_take(b, bytes, refs);
    return rx_builder_path(b, above + 1, n.depth, n.term, bytes, refs, count);
}

/* Writes all nodes that branch below `common`, then makes what waits a child of the one there. */
static int rx_builder_settle(struct rx_builder *b, uint64_t common)
{
    int rc = RX_OK;
    while (rc == RX_OK && b->node[b->node_count - 1].depth > common) {
        uint64_t above = b->node[b->node_count - 2].depth; /* the root's depth is 0, so it is never closed here */
        rc = rx_builder_attach(b);
        if (rc == RX_OK)
            rc = rx_builder_close(b, above > common ? above : common);
    }
    if (rc == RX_OK && b->node[b->node_count - 1].depth < common) {
        if (b->node_count == b->node_capacity) {
            void *grown = rx_grown(b->node, &b->node_capacity, sizeof *b->node);
            if (grown == NULL)
                return rx_fail(RX_E_MEMORY, 0, "for building a copy");
            b->node = grown;
        }
        b->node[b->node_count++] = (struct rx_build_node){.depth = common, .first = b->child_count};
    }
    return rc ? rc : rx_builder_attach(b);
}

/* A private copy of the key, so that nothing below depends on a source that changes. */
static int rx_builder_key(struct rx_builder *b, const uint8_t *key, uint64_t key_len)
{
    if (key_len > b->next_capacity || b->next == NULL) {
        uint64_t capacity = key_len < 256 ? 256 : key_len * 2;
        uint8_t *grown = rx_sys_realloc(b->next, capacity);
        if (grown == NULL)
            return rx_fail(RX_E_MEMORY, 0, "for a key of %llu bytes", (unsigned long long)key_len);
        b->next = grown;
        b->next_capacity = capacity;
    }
    if (key_len)
        rx_copy_racy(b->next, key, key_len);
    return RX_OK;
}

/* `leaf` is the one just written; its key may be the source's or the caller's copy. */
int rx_builder_link(struct rx_builder *b, const uint8_t *key, uint64_t key_len, rx_ref leaf)
{
    int rc = rx_builder_key(b, key, key_len);
    if (rc)
        return rc;
    if (RX_UNLIKELY(rx_ref_off(leaf) != b->bump))
        return rx_fail(RX_E_UNSUPPORTED, 0, "a leaf is linked that was not the last one written");
    b->bump += rx_cell_size(rx_load((const uint64_t *)(const void *)(b->map->base + b->bump)));
    if (b->waiting) {
        uint64_t common = rx_common(b->last, b->last_len, b->next, key_len, 0);
        if (RX_UNLIKELY(common == key_len || (common < b->last_len && b->next[common] < b->last[common])))
            return rx_corrupt(0, "keys are out of order");
        rc = rx_builder_settle(b, common);
        if (rc)
            return rc;
    }
    uint8_t *key_buffer = b->last;
    uint64_t capacity = b->last_capacity;
    b->last = b->next;
    b->last_capacity = b->next_capacity;
    b->last_len = key_len;
    b->next = key_buffer;
    b->next_capacity = capacity;
    b->waiting = leaf;
    b->count++;
    return rx_builder_tick(b, 256);
}

int rx_builder_add(struct rx_builder *b, const uint8_t *key, uint64_t key_len, const uint8_t *value,
                   uint64_t value_len, uint32_t *crc)
{
    rx_ref leaf;
    int rc = rx_builder_write(b, key, key_len, value, value_len, crc, &leaf);
    /* the copy's key, not the source's: they are the same unless the source changes */
    return rc ? rc : rx_builder_link(b, b->map->base + b->bump + (rx_ref_kind(leaf) == RX_K_LEAF
                                        ? RX_LEAF_HEAD : sizeof(struct rx_big)), key_len, leaf);
}

int rx_builder_finish(struct rx_builder *b, uint64_t *brk)
{
    uint8_t bytes[256];
    rx_ref refs[256];
    int rc = b->waiting ? rx_builder_settle(b, 0) : RX_OK;
    if (rc == RX_OK)
        rc = rx_builder_room(b, 0); /* superblock and root have blocks even if there is no key */
    if (rc)
        return rc;
    rx_ref term = b->node[0].term;
    unsigned count = rx_builder_take(b, bytes, refs);
    rx_node_build(rx_node_at(b->map->base, RX_ROOT_OFF), RX_K_N256, 0, NULL, 0, term, bytes, refs, count, false);
    *brk = (b->bump + RX_EXTENT - 1) / RX_EXTENT * RX_EXTENT;
    static const uint8_t zeros[RX_EXTENT]; /* behind the last cell: the file is cut at brk */
    uint64_t end = b->dirty < *brk ? b->dirty : *brk;
    if (end > b->bump)
        rx_fill(b->map->base + b->bump, zeros, end - b->bump);
    return RX_OK;
}
