/*
 * persist.h -- the only atomics, fences and cache-line flushes of the project,
 * and the place where a test build counts (and dies at) every shared store, or switches threads.
 *
 * Memory orders: rx_load / rx_store are acquire / release; _rlx are relaxed and
 * the caller says what a stale value costs.  On x86-64 an acquire or release
 * costs nothing; rx_full_fence() is a locked instruction.
 *
 * Persistence fences are on for files with durability="pmem" (DAX) or when forced by tests,
 * off on all others: the kernel writes their pages in any order, so they would promise nothing.
 *
 * D1  What a reference leads to is flushed and fenced before the reference is stored; the slot,
 *     before its node's lock is let go.  So who loads a slot and then finds the node's lock free
 *     knows that what it has loaded is persistent: a store that it can have seen was made under
 *     a lock taken before and let go after the fence.  Else it flushes the slot itself, before
 *     it relies on it (rx_settle_link() in node.h): the lock word is the "unpersisted" bit.
 *     Slots of an obsolete node were persistent when it was locked to be replaced, and stay.
 * D2  Before a call returns, every slot that it went through was persistent at some moment after
 *     it was loaded.  What replaces a node above one that was reached repeats, in one commit,
 *     what it finds there; so whatever of these commits a power cut leaves, the way is there.
 * D3  What nobody reaches from the root is of no value after a power cut: the startup scan takes
 *     all that it did not mark as free.  So headers of free cells, lists and limbo blocks are
 *     not flushed.  No cell is used again before the commit that unlinked it was fenced.
 */
#ifndef ROWEX_PERSIST_H
#define ROWEX_PERSIST_H

#include "bytes.h"

#ifdef ROWEX_SCHEDULE
/* Called before every access to shared memory, and where a thread waits: fuzz/schedules.c may switch there. */
void rx_schedule_point(void);
void rx_schedule_wait(void);
#define RX_STEP() rx_schedule_point()
#define RX_WAITS() rx_schedule_wait()
#else
#define RX_STEP() ((void)0)
#define RX_WAITS() ((void)0)
#endif

#ifdef ROWEX_CRASHPOINTS
/* Called before every store to shared memory; dies at the chosen one.  Its place in the core is where it is called from. */
void rx_crashpoint(void);
void rx_crashpoint_of(const void *place); /* the same, for who stores on behalf of that place (disk.c) */
#define RX_POINT() (RX_STEP(), rx_crashpoint())
#define RX_POINT_OF(place) (RX_STEP(), rx_crashpoint_of(place))
#else
#define RX_POINT() RX_STEP()
#define RX_POINT_OF(place) ((void)(place), RX_STEP())
#endif
/* After it; a traced build writes down what was stored (trace.h). */
#ifdef ROWEX_TRACE
void rx_trace_stored(const void *p, size_t size);
#define RX_STORED(p, size) rx_trace_stored(p, size)
#define RX_TRACED true
#else
#define RX_STORED(p, size) ((void)0)
#define RX_TRACED false
#endif

#define RX_LIKELY(x) __builtin_expect(!!(x), 1)
#define RX_UNLIKELY(x) __builtin_expect(!!(x), 0)

#ifdef ROWEX_CANARY_NO_ACQUIRE /* ThreadSanitizer must report it (scripts/sanitize) */
#define RX_ORDER_LOAD __ATOMIC_RELAXED
#else
#define RX_ORDER_LOAD __ATOMIC_ACQUIRE
#endif
static inline uint64_t rx_load(const uint64_t *p) { RX_STEP(); return __atomic_load_n(p, RX_ORDER_LOAD); }
static inline uint64_t rx_load_rlx(const uint64_t *p) { RX_STEP(); return __atomic_load_n(p, __ATOMIC_RELAXED); }
static inline uint32_t rx_load32(const uint32_t *p) { RX_STEP(); return __atomic_load_n(p, __ATOMIC_ACQUIRE); }
static inline uint8_t rx_load8(const uint8_t *p) { RX_STEP(); return __atomic_load_n(p, __ATOMIC_ACQUIRE); }
static inline uint8_t rx_load8_rlx(const uint8_t *p) { RX_STEP(); return __atomic_load_n(p, __ATOMIC_RELAXED); }

static inline void rx_store(uint64_t *p, uint64_t v) { RX_POINT(); __atomic_store_n(p, v, __ATOMIC_RELEASE); RX_STORED(p, sizeof *p); }
static inline void rx_store_rlx(uint64_t *p, uint64_t v) { RX_POINT(); __atomic_store_n(p, v, __ATOMIC_RELAXED); RX_STORED(p, sizeof *p); }
static inline void rx_store32(uint32_t *p, uint32_t v) { RX_POINT(); __atomic_store_n(p, v, __ATOMIC_RELEASE); RX_STORED(p, sizeof *p); }
static inline void rx_store8(uint8_t *p, uint8_t v) { RX_POINT(); __atomic_store_n(p, v, __ATOMIC_RELEASE); RX_STORED(p, sizeof *p); }
static inline void rx_store8_rlx(uint8_t *p, uint8_t v) { RX_POINT(); __atomic_store_n(p, v, __ATOMIC_RELAXED); RX_STORED(p, sizeof *p); }
static inline void rx_store_i64(int64_t *p, int64_t v) { RX_POINT(); __atomic_store_n(p, v, __ATOMIC_RELEASE); RX_STORED(p, sizeof *p); }
static inline int64_t rx_load_i64(const int64_t *p) { RX_STEP(); return __atomic_load_n(p, __ATOMIC_ACQUIRE); }

/* Sequentially consistent; on failure *expected is what was found. */
static inline bool rx_cas(uint64_t *p, uint64_t *expected, uint64_t desired)
{
    RX_POINT();
    bool stored = __atomic_compare_exchange_n(p, expected, desired, false, __ATOMIC_SEQ_CST, __ATOMIC_ACQUIRE);
    RX_STORED(p, stored ? sizeof *p : 0);
    return stored;
}
static inline bool rx_cas32(uint32_t *p, uint32_t *expected, uint32_t desired)
{
    RX_POINT();
    bool stored = __atomic_compare_exchange_n(p, expected, desired, false, __ATOMIC_SEQ_CST, __ATOMIC_ACQUIRE);
    RX_STORED(p, stored ? sizeof *p : 0);
    return stored;
}
static inline uint64_t rx_fetch_add(uint64_t *p, uint64_t v)
{
    RX_POINT();
    uint64_t before = __atomic_fetch_add(p, v, __ATOMIC_SEQ_CST);
    RX_STORED(p, sizeof *p);
    return before;
}

static inline void rx_full_fence(void) { __atomic_thread_fence(__ATOMIC_SEQ_CST); }
static inline void rx_acquire_fence(void) { __atomic_thread_fence(__ATOMIC_ACQUIRE); }
static inline void rx_compiler_barrier(void) { __atomic_signal_fence(__ATOMIC_SEQ_CST); }

static inline void rx_pause(void)
{
    RX_WAITS();
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

/*
 * Bulk bytes into memory that no other thread can reach yet (a new cell before
 * its commit): plain stores, one crash point; the commit's release publishes.
 */
static inline void rx_fill(void *to, const void *from, size_t size)
{
    RX_POINT();
    rx_copy_short(to, from, size);
    RX_STORED(to, size);
}

/*
 * Bytes of a leaf that may be reused under an evicted reader: the copy can be
 * torn, the reader finds out when it rechecks its slot and throws it away (R9).
 */
#if defined(__SANITIZE_THREAD__)
static inline void rx_copy_racy(void *to, const void *from, size_t size)
{
    for (size_t i = 0; i < size; i++)
        ((uint8_t *)to)[i] = rx_load8_rlx((const uint8_t *)from + i);
}
#else
static inline void rx_copy_racy(void *to, const void *from, size_t size) { RX_STEP(); rx_copy_short(to, from, size); }
#endif

/* ---- persistence: no-ops unless `fences` ---------------------------------- */
extern void (*rx_flush_lines)(const void *p, size_t size); /* chosen at run time, persist.c */
extern void (*rx_copy_nt_impl)(void *to, const void *from, size_t size);
bool rx_persist_setup(void); /* idempotent; picks clwb, clflushopt, clflush, dc cvap; false: there is none */
void rx_store_fence(void);   /* sfence / dsb: what was flushed before is persistent */

static inline void rx_flush(bool fences, const void *p, size_t size)
{
    if (RX_UNLIKELY(fences))
        rx_flush_lines(p, size);
}
static inline void rx_persist_fence(bool fences)
{
    if (RX_UNLIKELY(fences))
        rx_store_fence();
}
/* Now; not only before the next fence. */
static inline void rx_persist(bool fences, const void *p, size_t size)
{
    if (RX_UNLIKELY(fences)) {
        rx_flush_lines(p, size);
        rx_store_fence();
    }
}
/* New cell contents: with fences on, past the cache (movnt) when large. */
static inline void rx_fill_new(bool fences, void *to, const void *from, size_t size)
{
    RX_POINT();
    if (RX_UNLIKELY(fences && size >= 512 && !RX_TRACED)) {
        rx_copy_nt_impl(to, from, size);
        return;
    }
    rx_copy_short(to, from, size);
    RX_STORED(to, size);
    rx_flush(fences, to, size);
}

#endif
