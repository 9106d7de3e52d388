/*
 * persist.h -- the only atomics, fences and cache-line flushes of the project,
 * and the place where a test build counts (and dies at) every shared store.
 *
 * Memory orders: rx_load / rx_store are acquire / release; _rlx are relaxed and
 * the caller says what a stale value costs.  On x86-64 an acquire or release
 * costs nothing; rx_full_fence() is a locked instruction.
 *
 * Persistence fences are off on ordinary files (the kernel writes pages in any
 * order, so they would promise nothing) and on for DAX or when forced by tests.
 */
#ifndef ROWEX_PERSIST_H
#define ROWEX_PERSIST_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#ifdef ROWEX_CRASHPOINTS
/* Called before every store to shared memory; dies at the chosen one. */
void rx_crashpoint(void);
#define RX_POINT() rx_crashpoint()
#else
#define RX_POINT() ((void)0)
#endif

#define RX_LIKELY(x) __builtin_expect(!!(x), 1)
#define RX_UNLIKELY(x) __builtin_expect(!!(x), 0)

static inline uint64_t rx_load(const uint64_t *p) { return __atomic_load_n(p, __ATOMIC_ACQUIRE); }
static inline uint64_t rx_load_rlx(const uint64_t *p) { return __atomic_load_n(p, __ATOMIC_RELAXED); }
static inline uint32_t rx_load32(const uint32_t *p) { return __atomic_load_n(p, __ATOMIC_ACQUIRE); }
static inline uint8_t rx_load8(const uint8_t *p) { return __atomic_load_n(p, __ATOMIC_ACQUIRE); }
static inline uint8_t rx_load8_rlx(const uint8_t *p) { return __atomic_load_n(p, __ATOMIC_RELAXED); }

static inline void rx_store(uint64_t *p, uint64_t v) { RX_POINT(); __atomic_store_n(p, v, __ATOMIC_RELEASE); }
static inline void rx_store_rlx(uint64_t *p, uint64_t v) { RX_POINT(); __atomic_store_n(p, v, __ATOMIC_RELAXED); }
static inline void rx_store32(uint32_t *p, uint32_t v) { RX_POINT(); __atomic_store_n(p, v, __ATOMIC_RELEASE); }
static inline void rx_store8(uint8_t *p, uint8_t v) { RX_POINT(); __atomic_store_n(p, v, __ATOMIC_RELEASE); }
static inline void rx_store8_rlx(uint8_t *p, uint8_t v) { RX_POINT(); __atomic_store_n(p, v, __ATOMIC_RELAXED); }
static inline void rx_store_i64(int64_t *p, int64_t v) { RX_POINT(); __atomic_store_n(p, v, __ATOMIC_RELEASE); }
static inline int64_t rx_load_i64(const int64_t *p) { return __atomic_load_n(p, __ATOMIC_ACQUIRE); }

/* Sequentially consistent; on failure *expected is what was found. */
static inline bool rx_cas(uint64_t *p, uint64_t *expected, uint64_t desired)
{
    RX_POINT();
    return __atomic_compare_exchange_n(p, expected, desired, false, __ATOMIC_SEQ_CST, __ATOMIC_ACQUIRE);
}
static inline bool rx_cas32(uint32_t *p, uint32_t *expected, uint32_t desired)
{
    RX_POINT();
    return __atomic_compare_exchange_n(p, expected, desired, false, __ATOMIC_SEQ_CST, __ATOMIC_ACQUIRE);
}
static inline uint64_t rx_fetch_add(uint64_t *p, uint64_t v)
{
    RX_POINT();
    return __atomic_fetch_add(p, v, __ATOMIC_SEQ_CST);
}

static inline void rx_full_fence(void) { __atomic_thread_fence(__ATOMIC_SEQ_CST); }
static inline void rx_acquire_fence(void) { __atomic_thread_fence(__ATOMIC_ACQUIRE); }
static inline void rx_compiler_barrier(void) { __atomic_signal_fence(__ATOMIC_SEQ_CST); }

static inline void rx_pause(void)
{
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
    memcpy(to, from, size);
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
static inline void rx_copy_racy(void *to, const void *from, size_t size) { memcpy(to, from, size); }
#endif

/* ---- persistence: no-ops unless `fences` ---------------------------------- */
extern void (*rx_flush_lines)(const void *p, size_t size); /* chosen at run time, persist.c */
extern void (*rx_copy_nt_impl)(void *to, const void *from, size_t size);
void rx_persist_setup(void); /* idempotent; picks clwb, clflushopt, clflush, dc cvac */
void rx_store_fence(void);   /* sfence / dmb ishst */

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
/* New cell contents: with fences on, past the cache (movnt) when large. */
static inline void rx_fill_new(bool fences, void *to, const void *from, size_t size)
{
    RX_POINT();
    if (RX_UNLIKELY(fences && size >= 512))
        rx_copy_nt_impl(to, from, size);
    else {
        memcpy(to, from, size);
        rx_flush(fences, to, size);
    }
}

#endif
