/*
 * image.h -- a data file that is not believed: the sound leaves in it, whatever else is damaged.
 *
 * It is read, never written.  Every word is checked before it is used and every cell is visited
 * once, so hostile bytes lead nowhere and in no circles.
 */
#ifndef ROWEX_IMAGE_H
#define ROWEX_IMAGE_H

#include "node.h"
#include "../gc/bits.h"
#include "../gc/scan.h"

struct rx_image {
    struct rx_map *map;
    uint64_t limit;      /* bytes of the file */
    bool checksum;       /* leaves carry one, and no other is sound */
    struct rx_bits seen; /* nodes and leaves that were reached */
    uint64_t leaves;     /* sound ones that the tree leads to */
    uint64_t lost;       /* references to what is not sound; how much hung there nobody knows */
    uint64_t read;       /* bytes of leaves whose checksums were computed */
    uint64_t *done;      /* bytes looked at, for who watches */
};

/* What to do with a leaf, which is not looked at any more after that.  Not RX_OK ends the walk. */
typedef int (*rx_image_take)(void *ctx, const struct rx_leaf_view *leaf);

/* Takes fd over, also when it fails. */
int rx_image_open(int fd, bool checksum, uint64_t *done, struct rx_image *im);
void rx_image_close(struct rx_image *im);
/* The tree from the root; what is damaged is cut off and told to `lost`.  take may be NULL. */
int rx_image_walk(struct rx_image *im, rx_image_take take, rx_fault_fn lost, void *ctx);
/* After the walk: the heap, for sound leaves to which it did not lead: of lost nodes, or removed, or old values. */
int rx_image_sweep(struct rx_image *im, rx_image_take take, void *ctx);

#endif
