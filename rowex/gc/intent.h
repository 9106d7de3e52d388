/*
 * intent.h -- R3: what a writer records before its commit store, and how the
 * owner or any reaper finishes from there by stores that can be repeated.
 */
#ifndef ROWEX_INTENT_H
#define ROWEX_INTENT_H

#include "../native/core.h"

/*
 * Requires  t->arena->locks[] name the locked nodes, reserved[] the new cells,
 *           unlinked[0..unlinked_count) what the commit takes out; the new cells
 *           are complete (and flushed).  Room for unlinked_count limbo entries.
 * Commit    the one 8-byte store of new_ref to the slot at slot_off.  EVERY commit
 *           store of the tree is made here; the log entry will be tied to it.
 * Then      finishes (obsolete marks, limbo, counter, reservation, unlock).
 */
int rx_commit(struct rx_thread *t, rx_off slot_off, rx_ref old_ref, rx_ref new_ref, int count_delta);

/* For the reaper: decides and finishes or voids, unlocks. `uid` is dead. */
void rx_intent_recover(struct rx_db *db, struct rx_map *map, struct rx_arena *arena, uint64_t uid);

#endif
