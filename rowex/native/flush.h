/*
 * flush.h -- writing the log out: who leads, what becomes durable, who waits.
 *
 * One uid leads at a time (hdr->log_lead).  It takes log_durable over by naming its own slot
 * in it, writes the decided entries after it as frames, syncs, and moves log_durable by a
 * compare-and-swap from the very word that it took: a leader that stood still and was
 * deposed fails there, and has changed nothing that is believed.  Who deposes it, or takes
 * over from a dead one, goes on in a fresh segment and trusts nothing past log_durable.
 *
 * F1  A leader writes only at the point that its own word names, in the segment named there.
 * F2  A segment is named by the word before anything is written to it.  One that never is, its
 *     maker having died or been deposed, has a lower id than the next that begins there: the
 *     number is drawn first, then the maker looks whether it still leads; so who replaces it
 *     later draws a greater one.
 * F3  No segment of a term below hdr->log_term is written but by the deposed, beyond the point at
 *     which a later one takes over.
 */
#ifndef ROWEX_FLUSH_H
#define ROWEX_FLUSH_H

#include "core.h"
#include "log.h"

/*
 * The log of an index that nobody writes yet (OPENING is held): goes on where the clean
 * file says that it ended, or begins a new incarnation.  RX_E_DURABILITY: the log is not
 * the one that belongs to this file.
 */
int rx_log_begin(struct rx_db *db);
/* What this process needs for it; then the flusher may be started. */
int rx_log_attach(struct rx_db *db);
/* The log of a clean file, without touching it: RX_OK, or why this file and it do not belong together. */
int rx_log_agrees(struct rx_db *db, const struct rx_super *super);
/* This process's part: its folder, its ring's pages, its flusher.  Idempotent; outside epochs. */
int rx_log_join(struct rx_db *db);
/* How long a close waits, in all, for entries that a stopped process holds up; the others' flushers go on with them. */
#ifndef RX_CLOSING_NS /* fuzzers of damaged files wait less */
#define RX_CLOSING_NS 5000000000ll
#endif
/* Stops the flusher at once and makes durable what there is; rc of that. Before threads are dropped. */
int rx_log_leave(struct rx_db *db);
void rx_log_forget(struct rx_db *db); /* closes and frees */
/* Alone with the index, everybody else reaped: writes out all that is left, and where the log ends. */
int rx_log_end(struct rx_db *db, struct rx_super *super);
/* Where a session's log begins: its next number and byte, the number of its next segment, its incarnation's first. */
struct rx_origin { uint64_t incarnation, number, segments, base; struct rx_log_at at; };
/*
 * What a session that nobody closed has left in NAME-lock (same boot): its dead are reaped, its
 * ring written out.  RX_OK, then rx_log_resume() puts *kept into the new NAME-lock;
 * RX_ABSENT: lost, the next to write begins with a checkpoint.
 */
int rx_log_rescue(struct rx_db *db, const struct rx_super *super, struct rx_origin *kept);
void rx_log_resume(struct rx_db *db, const struct rx_origin *kept);

/*
 * Entries below `number` durable, by leading if nobody does.  Outside epochs and locks.
 * RX_OK, RX_WOULD_WAIT at t->deadline_ns, RX_E_INTERRUPTED, RX_E_DURABILITY (for good),
 * RX_E_FULL (not yet: the disk is full).
 */
int rx_log_flush(struct rx_thread *t, uint64_t number);
/* Room for one more entry (L3), waiting for the log if there is none; errors as above. */
int rx_log_room(struct rx_thread *t);
/*
 * May a change of so many bytes be made?  A put only while what is not yet durable fits into
 * the spare segment, so that a disk that is full from now on does not keep it from becoming
 * durable; a removal may use that up (P6).  As rx_log_room(); RX_E_FULL: nothing was changed.
 */
int rx_log_admit_put(struct rx_thread *t, uint64_t size);
int rx_log_admit_removal(struct rx_thread *t, uint64_t size);
/* After a change: somebody looks after it within the flush interval. */
static inline void rx_log_notice(struct rx_db *db);
void rx_log_wake(struct rx_db *db);
static inline void rx_log_notice(struct rx_db *db)
{
    if (RX_UNLIKELY(rx_load32(&db->hdr->log_awake) == 0))
        rx_log_wake(db);
}
/* The durable point, consistently: its number, and where in the bytes it is. */
uint64_t rx_log_point(const struct rx_db *db, struct rx_log_at *at);
/* A handle of this process asks for it; under the turn of openers. */
void rx_log_interval(struct rx_db *db, int64_t interval_ns);
/* Starts this process's flusher: without it nothing would become durable that nobody waits for. */
int rx_log_watch(struct rx_db *db);

#endif
