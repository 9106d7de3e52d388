/* durable.h -- what index.c needs of durable.c. */
#ifndef ROWEX_DURABLE_H
#define ROWEX_DURABLE_H
#include "core.h"
#include "index.h"
/* A handle is being closed, others of this process may stay: what there is becomes durable. */
int rx_flush_closing(struct rx_db *db);
/* Is it durable?  RX_OK, or RX_WOULD_WAIT without doing anything for it; errors as rx_wait_durable(). */
int rx_ticket_ask(rx_index *h, uint64_t ticket);
#endif
