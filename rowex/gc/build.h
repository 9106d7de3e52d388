/*
 * build.h -- the bulk builder: a dense tree from leaves that come in key order.
 *
 * Each node is written once, with no more slots than it needs, when the first key behind it comes;
 * cells lie back to back in that order.  Memory: the children of the nodes on the
 * path to the last key, and two keys.  The target is a file that nobody else has
 * mapped for reading yet; nothing is reachable in it before rx_builder_finish().
 */
#ifndef ROWEX_BUILD_H
#define ROWEX_BUILD_H

#include "../native/cell.h"
#include "../native/core.h"

struct rx_build_child { rx_ref ref; uint8_t byte; };
struct rx_build_node { /* a node to be: keys agree up to `depth` and differ there */
    uint64_t depth;
    rx_ref term;
    size_t first; /* of its children in child[]; they end where the next node's begin */
};
/* Called about every 64 KiB written: RX_OK, or a reason to stop. */
typedef int (*rx_build_tick)(void *ctx);

struct rx_builder {
    struct rx_map *map;
    uint64_t bump, allocated;
    uint64_t begun; /* the disk may have what is before it: no cell there changes any more */
    uint64_t dirty; /* end of what was ever written: beyond bump lie leaves that were not linked */
    uint64_t count;
    bool checksum;
    rx_build_tick tick;
    void *ctx;
    uint64_t ticked; /* bytes since the last tick */
    uint8_t *last, *next; /* keys: of the leaf that waits for its parent, and the one being added */
    uint64_t last_len, last_capacity, next_capacity;
    rx_ref waiting;
    struct rx_build_node *node;
    struct rx_build_child *child;
    size_t node_count, node_capacity, child_count, child_capacity;
};

/* `map` is fresh, maps its whole capacity for writing, and gets its root at finish. */
int rx_builder_init(struct rx_builder *b, struct rx_map *map, bool checksum, rx_build_tick tick, void *ctx);
void rx_builder_free(struct rx_builder *b);
/* Adds the next key, greater than all before (else RX_E_CORRUPT). *crc: of its lengths, key and
 * value, for the caller to compare; NULL: not computed unless the target wants it. */
int rx_builder_add(struct rx_builder *b, const uint8_t *key, uint64_t key_len, const uint8_t *value,
                   uint64_t value_len, uint32_t *crc);
/*
 * The same in two steps, for a source that may turn out to be stale: write puts the leaf
 * behind what is there (again and again, if need be), link makes it part of the tree.
 */
int rx_builder_write(struct rx_builder *b, const uint8_t *key, uint64_t key_len, const uint8_t *value,
                     uint64_t value_len, uint32_t *crc, rx_ref *leaf);
int rx_builder_link(struct rx_builder *b, const uint8_t *key, uint64_t key_len, rx_ref leaf);
/* Closes all nodes and writes the root; *brk is the heap's end, a multiple of RX_EXTENT. */
int rx_builder_finish(struct rx_builder *b, uint64_t *brk);

#endif
