/*
 * uid.h -- the table of uids: taking, returning, finding the thread's own.
 */
#ifndef ROWEX_UID_H
#define ROWEX_UID_H

#include "../native/core.h"

/* This thread's rx_thread for db (taking a slot on first use). */
int rx_thread_find(struct rx_db *db, struct rx_thread **out);
/* A number that tells the threads of this process apart. */
uint32_t rx_thread_number(void);
/* Is the calling thread inside a call on db (its listener runs, or a signal's handler)? */
bool rx_threads_inside(struct rx_db *db);
/* One with a slot of its own, for reader() and writer(). */
int rx_thread_new(struct rx_db *db, uint32_t kind, struct rx_thread **out);
/* After rx_threads_drop_all(): has a uid been left to who reaps us, for a page was lost? */
bool rx_slots_left(struct rx_db *db);
/* Returns slot (and arena) to the table. The thread must not be busy. */
void rx_thread_drop(struct rx_thread *t);
/* At rx_db_close(): waits until none is busy, then drops them all. */
void rx_threads_drop_all(struct rx_db *db);

/* Every uid of process entry `index` is dead (proved, and the proof is held):
 * finishes or voids their intents, frees their slots and the entry. Repeatable. */
void rx_reap_process(struct rx_db *db, struct rx_map *map, uint32_t index);
/* Probes every registered process but ours and reaps the dead; returns how many. */
int rx_reap_all(struct rx_db *db);
/* True when uid's slot is no longer its own, or its process is dead (then it was reaped). */
bool rx_uid_gone(struct rx_db *db, uint64_t uid);
uint32_t rx_uid_pid(struct rx_db *db, uint64_t uid); /* for messages; 0 unknown */

#endif
