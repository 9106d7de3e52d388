/*
 * checkpoint.h -- NAME-checkpoint: a data file of its own, closed cleanly, from which and
 * from the log behind it the index can be made anew.
 */
#ifndef ROWEX_CHECKPOINT_H
#define ROWEX_CHECKPOINT_H

#include "core.h"
#include "index.h"

/*
 * Makes one, beside writers, holding nobody; removes the segments that are then not needed.
 * RX_E_BUSY when one is being made already.  t is inside a call, outside epochs.  Whatever
 * fails: the one before and its log stay as they are.
 */
int rx_checkpoint_make(struct rx_thread *t);
/*
 * The same of a file that nobody writes, for an incarnation that begins at (number, at).  Its
 * segment comes next, and only then may those before it go: a checkpoint without any is refused.
 */
int rx_checkpoint_alone(struct rx_db *db, uint64_t incarnation, uint64_t number, const struct rx_log_at *at);
int rx_checkpoint_remove(struct rx_db *db);
/* One of the index `uuid` that was not finished: its maker died, or sleeps and shall not place it. */
void rx_checkpoint_forget(struct rx_db *db, const uint8_t uuid[16]);
/* Its superblock: RX_OK, RX_ABSENT (none, or of another index), RX_E_CORRUPT. */
int rx_checkpoint_super(struct rx_db *db, struct rx_super *super, int *fd);
/* Removes this index's segments of NAME-log whose id is below. */
void rx_log_sweep(struct rx_db *db, uint64_t below);
/*
 * All below, whosever.  Once a segment of that name is there: an index that takes our place later begins
 * beyond it, so however long we sleep in here, nothing of that one goes.
 */
void rx_log_clear(struct rx_db *db, uint64_t below);
void rx_checkpoint_name(const struct rx_db *db, const char *suffix, char name[300]);
/*
 * A dense copy of the tree as t sees it (weakly, P2) into a fresh map; `number` may be read
 * meanwhile.  duplicate.c
 */
int rx_duplicate_tree(struct rx_thread *t, struct rx_map *to, bool checksum, uint64_t *brk, uint64_t *count);
uint64_t rx_duplicate_room(struct rx_map *from);
/* The superblock of a new file, clean: of the source, where options say nothing. */
int rx_duplicate_super(struct rx_super *s, const struct rx_options *o, const struct rx_map *to, uint64_t brk,
                       uint64_t count);
/*
 * A copy at o->path under a uuid of its own.  t is inside a call, outside epochs.  What is to be
 * done to the file `made`, whole and synced, before it gets its name: f, or NULL.
 */
struct rx_finishing { int (*run)(struct rx_thread *t, struct rx_db *target, const char *made, void *ctx); void *ctx; };
int rx_duplicate_index(struct rx_thread *t, const struct rx_options *o, const struct rx_finishing *f);

#endif
