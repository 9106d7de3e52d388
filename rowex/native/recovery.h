/*
 * recovery.h -- making an index anew from its checkpoint and its log.
 */
#ifndef ROWEX_RECOVERY_H
#define ROWEX_RECOVERY_H

#include "core.h"
#include "index.h"

struct rx_recovered { uint64_t from, upto, entries; }; /* numbers of entries; how many were replayed */

/*
 * Requires  OPENING and exclusive; `name` is the superblock of NAME, in use on a boot that is
 *           over, or a copy of such a file with its sidecars.
 * Returns   RX_OK: NAME is a clean file now, to be opened anew.  RX_E_DURABILITY, RX_E_CORRUPT:
 *           what is missing or damaged; RX_E_FULL and others: nothing was lost, try again.
 */
int rx_recover(struct rx_db *db, const struct rx_super *name, struct rx_recovered *told);
/* What a recovery that was not finished has left. Alone with the index. */
void rx_recovery_forget(struct rx_db *db);
/* Entries below `upto` into h, opened with `replaying`. RX_OK also where the log ends before. */
struct rx_reader;
struct rx_piece;
int rx_replay_piece(struct rx_index *h, struct rx_piece *piece, uint64_t upto, struct rx_recovered *told);
int rx_replay(struct rx_index *h, struct rx_reader *r, uint64_t upto, struct rx_recovered *told);
/* registry.c: opening and closing NAME-recovery by who has the turn of openers already. */
int rx_db_open_within(const struct rx_options *o, struct rx_db **out);
int rx_db_close_within(struct rx_db *db);

#endif
