/*
 * transaction.h -- several keys at once: see transaction.c for how.
 */
#ifndef ROWEX_TRANSACTION_H
#define ROWEX_TRANSACTION_H

#include "core.h"

/*
 * Batches that the dead, or whoever could not, left to be finished: as far as it can be done now.
 * Waits for nobody, for the caller may want nothing of theirs; who is dead is reaped.  RX_OK, or
 * RX_E_INTERRUPTED.
 */
int rx_batches_finish(struct rx_thread *t);

#endif
