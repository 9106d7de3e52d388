/* batch.h -- what index.c and batch.c share. */
#ifndef ROWEX_BATCH_H
#define ROWEX_BATCH_H
#include "core.h"
void rx_copy_out(struct rx_thread *t, void *out, const uint8_t *from, uint64_t size);
int rx_sizes_allowed(size_t key_len, size_t value_len);
int64_t rx_deadline(int64_t wait_ns);
/*
 * The cache misses of the next changes, all at once instead of one after the other.  What it
 * reads may be stale by the time of the change, which looks for itself.
 */
void rx_warm(struct rx_thread *t, size_t n, const void *const *keys, const size_t *key_len);
/* Keys of the index now; exact whenever no write is in flight. */
uint64_t rx_db_count(struct rx_db *db);
#endif
