/* durable.h -- what index.c needs of durable.c. */
#ifndef ROWEX_DURABLE_H
#define ROWEX_DURABLE_H
#include "core.h"
/* A handle is being closed, others of this process may stay: what there is becomes durable, but of a read-only one. */
int rx_flush_closing(struct rx_db *db, bool readonly);
#endif
