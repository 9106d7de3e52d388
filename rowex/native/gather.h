/*
 * gather.h -- how what comes next below a node is loaded, and sent for before it is wanted.
 */
#ifndef ROWEX_GATHER_H
#define ROWEX_GATHER_H

#include "cursor.h"

#define RX_TERM (-1)   /* rx_frame.from: the term comes next */
#define RX_BEFORE (-2) /* downwards: nothing is left */

/*
 * A node was met below which no leaf is known.  These are rare (an undone change may leave one), so a walk
 * that meets more of them than the file has room for is led astray by damaged slots that share their children.
 */
int rx_cursor_barren(struct rx_cursor *c, rx_ref node);
/* A walk will go on from here in the node that is about to be entered. */
void rx_cursor_send_slots(const struct rx_cursor *c, rx_ref ref, uint8_t byte);
/* Puts what comes next behind what the frame's run still has; at == soft after it: nothing is left. */
int rx_frame_fill(struct rx_cursor *c, struct rx_frame *f);

#endif
