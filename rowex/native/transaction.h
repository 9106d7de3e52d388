/*
 * transaction.h -- several keys at once: see transaction.c for how.
 */
#ifndef ROWEX_TRANSACTION_H
#define ROWEX_TRANSACTION_H

#include "core.h"

/*
 * Batches that the dead, or whoever could not, left to be finished: as far as it can be done now.
 * Waits for nobody, and takes no longer than a few ms, for the caller may want nothing of theirs;
 * who is dead is reaped.  RX_OK, or RX_E_INTERRUPTED.
 */
int rx_batches_finish(struct rx_thread *t);
/* As rx_grow(): what others have left may be room enough. */
int rx_batches_grow(struct rx_thread *t);

#endif
