/*
 * window.h -- several children of a node at once, in key order: what a walk needs.
 *
 * One child at a time costs a branch that no processor can guess; a run of slots is
 * gathered without one, and all its cells can be fetched together.
 */
#ifndef ROWEX_WINDOW_H
#define ROWEX_WINDOW_H

#include "node.h"

#define RX_WINDOW 16u

/*
 * Up to `max` (1 or more) live children at or after byte *from, upwards, to refs;
 * *from becomes where to go on, 256 when nothing is left.  Returns how many.
 * Ordering  slots are loaded with acquire; pairs with the release of their commit.
 */
unsigned rx_window_up(struct rx_node *n, unsigned shape, int *from, rx_ref *refs, unsigned max);
/* At or before *from, downwards; -1 when nothing is left. */
unsigned rx_window_down(struct rx_node *n, unsigned shape, int *from, rx_ref *refs, unsigned max);

#endif
