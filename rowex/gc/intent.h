/*
 * intent.h -- R3: what a writer records before its commit store, and how the
 * owner or any reaper finishes from there by stores that can be repeated.
 */
#ifndef ROWEX_INTENT_H
#define ROWEX_INTENT_H

#include "../native/log.h"

/*
 * Requires  t->arena->locks[] name the locked nodes, reserved[] the new cells,
 *           unlinked[0..unlinked_count) what the commit takes out; the new cells
 *           are complete (and flushed).  Room for unlinked_count limbo entries.
 * Commit    the one 8-byte store of new_ref to the slot at slot_off.  EVERY commit
 *           store of the tree is made here, with the claim of its log entry before it and
 *           the publishing after it; t->log_number is the entry's.
 * Then      finishes (obsolete marks, limbo, counter, reservation, unlock).
 * Returns   RX_OK; RX_E_IO: still armed, it may have happened, and the locks stay; or not, and they are the caller's.
 */
int rx_commit(struct rx_thread *t, rx_off slot_off, rx_ref old_ref, rx_ref new_ref, int count_delta);
/* Before it: what the log entry will say (log.h). */
static inline void rx_will_log(struct rx_thread *t, rx_ref leaf, enum rx_log_kind kind)
{
    rx_store_rlx(&t->arena->log_what, rx_log_what(leaf, kind));
}

/* For the reaper: decides and finishes or voids, unlocks. `uid` is dead. */
void rx_intent_recover(struct rx_db *db, struct rx_map *map, struct rx_arena *arena, uint64_t uid);

#endif
