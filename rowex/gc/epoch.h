/*
 * epoch.h -- publishing, rechecking and clearing a uid's epoch; who may reuse
 * what.  Design, R8 and R9.
 *
 * A reader publishes `word` in its slot, works, and clears it.  It needs no
 * fence between the publishing store and its first load of the tree where
 * every reclaimer runs membarrier(GLOBAL_EXPEDITED) between unlinking and
 * looking at the slots: either the barrier comes after the store, then the
 * reclaimer sees the word and waits, or before it, then every load of the
 * reader comes after the unlinking.  (Without that fence AND without the
 * membarrier the store could pass the loads and a cell be reused under us.)
 */
#ifndef ROWEX_EPOCH_H
#define ROWEX_EPOCH_H

#include "../native/core.h"
#ifdef ROWEX_CANARY_READ_CALLS
#include <unistd.h>
#endif

/* Slow ends of the inline functions below. */
int rx_enter_changed(struct rx_thread *t); /* the generation moved: remap, or the reason why not */
int rx_leave_changed(struct rx_thread *t); /* evicted, poisoned or no longer clean */

static inline void rx_light_fence(const struct rx_db *db)
{
    if (RX_LIKELY(db->light))
        rx_compiler_barrier();
    else
        rx_full_fence();
}

static inline void rx_publish(struct rx_thread *t, uint64_t writer)
{
    /* stale epoch: only makes us hold back reuse for longer */
    uint64_t epoch = rx_load(&t->db->hdr->epoch);
    t->seq += 2;
    t->word = epoch << RX_WORD_EPOCH_SHIFT | (t->seq & 0xfffffe) | writer;
    rx_store_rlx(&t->slot->word, t->word);
    rx_light_fence(t->db);
}
/* Ordering: release, so that the reads and stores of the operation come before. */
static inline void rx_retract(struct rx_thread *t) { rx_store(&t->slot->word, 0); }

/* Begin a read: t->map and t->base are valid until rx_leave_read(). */
static inline int rx_enter_read(struct rx_thread *t)
{
#ifdef ROWEX_CANARY_READ_CALLS /* a broken build on purpose: tests/test_read_path.py must notice */
    (void)getppid();
#endif
    rx_publish(t, 0);
    if (RX_UNLIKELY(rx_load(&t->db->hdr->generation) != t->map->generation))
        return rx_enter_changed(t); /* republishes on success */
    return RX_OK;
}
/*
 * End a read.  RX_OK: what was read may be returned.  RX_I_EVICTED: throw it
 * away and start again.  Otherwise an error (poisoned map).  Always retracts.
 */
static inline int rx_leave_read(struct rx_thread *t)
{
    rx_acquire_fence(); /* R9: reads of the tree before the recheck; pairs with the evictor's barrier */
    bool good = RX_LIKELY(rx_load_rlx(&t->slot->word) == t->word) &&
                RX_LIKELY(__atomic_load_n(&t->map->poison, __ATOMIC_RELAXED) == 0) && RX_LIKELY(!t->db->lockless);
#ifdef ROWEX_CANARY_NO_EVICT_CHECK /* a broken build on purpose: fuzz/schedules.c must notice */
    good = true;
#endif
    if (RX_UNLIKELY(!good))
        return rx_leave_changed(t);
    rx_retract(t);
    return RX_OK;
}

/* Begin a write: like a read, and the gate was open after publishing, or RX_I_GATE. */
static inline int rx_enter_write(struct rx_thread *t)
{
    rx_publish(t, RX_WORD_WRITER);
    if (RX_UNLIKELY(rx_load(&t->db->hdr->gate) != 0)) {
        rx_retract(t);
        return RX_I_GATE;
    }
    if (RX_UNLIKELY(rx_load(&t->db->hdr->generation) != t->map->generation)) {
        rx_retract(t);
        return RX_I_RESTART; /* the caller calls rx_remap_thread() and starts again */
    }
    return RX_OK;
}
static inline void rx_leave_write(struct rx_thread *t) { rx_retract(t); }

/* Outside an epoch: t->map follows db->map, remapping if the generation moved. */
int rx_remap_thread(struct rx_thread *t);

/* Full barrier on every CPU that runs a process of this index.  RX_E_UNSUPPORTED
 * when this process cannot and another relies on it: then leave it to others. */
int rx_barrier(struct rx_db *db);
/* Smallest published epoch, UINT64_MAX when nobody is inside. */
uint64_t rx_min_epoch(struct rx_db *db);
/*
 * Somebody pins garbage with epochs below `stamp`: reaps the dead among them and
 * evicts readers whose word and progress have stood still for RX_EVICT_NS.
 * Outside an epoch of our own.
 */
#define RX_EVICT_NS 100000000ll
void rx_unpin(struct rx_db *db, uint64_t stamp);
/*
 * Gate: waits until no slot other than `self` publishes a writer's word, reaping the
 * dead.  RX_OK, RX_WOULD_WAIT at deadline_ns (t->waited_uid names who), RX_E_INTERRUPTED.
 */
int rx_drain_writers(struct rx_thread *self, int64_t deadline_ns);

#endif
