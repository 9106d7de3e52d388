/*
 * persist.c -- choosing cache-line flush instructions at run time, and the
 * crash-point counter of the test build.
 */
#include <pthread.h>
#include "persist.h"
#ifdef ROWEX_TRACE
#include "trace.h"
#endif

#if defined(__x86_64__)
#include <cpuid.h>
#include <immintrin.h>

#define RX_LINE 64u

static void rx_flush_none(const void *p, size_t size) { (void)p; (void)size; }

__attribute__((target("clwb"))) static void rx_flush_clwb(const void *p, size_t size)
{
    for (uintptr_t at = (uintptr_t)p & ~(uintptr_t)(RX_LINE - 1); at < (uintptr_t)p + size; at += RX_LINE)
        _mm_clwb((void *)at);
}
__attribute__((target("clflushopt"))) static void rx_flush_clflushopt(const void *p, size_t size)
{
    for (uintptr_t at = (uintptr_t)p & ~(uintptr_t)(RX_LINE - 1); at < (uintptr_t)p + size; at += RX_LINE)
        _mm_clflushopt((void *)at);
}
static void rx_flush_clflush(const void *p, size_t size)
{
    for (uintptr_t at = (uintptr_t)p & ~(uintptr_t)(RX_LINE - 1); at < (uintptr_t)p + size; at += RX_LINE)
        _mm_clflush((void *)at);
}

/* movnt for the aligned middle; head and tail by ordinary stores and a flush. */
static void rx_copy_nt(void *to, const void *from, size_t size)
{
    uint8_t *d = to;
    const uint8_t *s = from;
    size_t head = (16 - ((uintptr_t)d & 15)) & 15;
    if (head > size)
        head = size;
    memcpy(d, s, head);
    size_t middle = (size - head) & ~(size_t)15;
    for (size_t i = head; i < head + middle; i += 16)
        _mm_stream_si128((__m128i *)(void *)(d + i), _mm_loadu_si128((const __m128i *)(const void *)(s + i)));
    memcpy(d + head + middle, s + head + middle, size - head - middle);
    rx_flush_lines(d, head);
    rx_flush_lines(d + head + middle, size - head - middle);
}

void (*rx_flush_lines)(const void *p, size_t size) = rx_flush_none;
void (*rx_copy_nt_impl)(void *to, const void *from, size_t size) = rx_copy_nt;

static bool rx_persist_pick(void)
{
    unsigned a, b = 0, c, d;
    if (!__get_cpuid_count(7, 0, &a, &b, &c, &d))
        b = 0;
    rx_flush_lines = b & (1u << 24) ? rx_flush_clwb : b & (1u << 23) ? rx_flush_clflushopt : rx_flush_clflush;
    return true;
}
static void rx_fence(void) { _mm_sfence(); }

#elif defined(__aarch64__)
#include <sys/auxv.h>

static void rx_flush_none(const void *p, size_t size) { (void)p; (void)size; }
static uintptr_t rx_line = 64;

/* dc cvap, to the point of persistence; dc cvac, to that of coherency, where all of memory is persistent. */
static void rx_flush_cvap(const void *p, size_t size)
{
    for (uintptr_t at = (uintptr_t)p & ~(rx_line - 1); at < (uintptr_t)p + size; at += rx_line)
        __asm__ volatile("sys #3, C7, C12, #1, %0" : : "r"(at) : "memory");
}
static void rx_flush_cvac(const void *p, size_t size)
{
    for (uintptr_t at = (uintptr_t)p & ~(rx_line - 1); at < (uintptr_t)p + size; at += rx_line)
        __asm__ volatile("dc cvac, %0" : : "r"(at) : "memory");
}
static void rx_copy_plain(void *to, const void *from, size_t size)
{
    memcpy(to, from, size);
    rx_flush_lines(to, size);
}
void (*rx_flush_lines)(const void *p, size_t size) = rx_flush_none;
void (*rx_copy_nt_impl)(void *to, const void *from, size_t size) = rx_copy_plain;

static bool rx_persist_pick(void)
{
    uint64_t ctr;
    __asm__("mrs %0, ctr_el0" : "=r"(ctr));
    rx_line = (uintptr_t)4 << ((ctr >> 16) & 15);
    rx_flush_lines = getauxval(AT_HWCAP) & 1u << 16 /* HWCAP_DCPOP */ ? rx_flush_cvap : rx_flush_cvac;
    return true;
}
static void rx_fence(void) { __asm__ volatile("dsb sy" : : : "memory"); } /* a dmb does not wait for dc */

#else

static void rx_flush_none(const void *p, size_t size) { (void)p; (void)size; }
static void rx_copy_plain(void *to, const void *from, size_t size) { memcpy(to, from, size); }
void (*rx_flush_lines)(const void *p, size_t size) = rx_flush_none;
void (*rx_copy_nt_impl)(void *to, const void *from, size_t size) = rx_copy_plain;
static bool rx_persist_pick(void) { return false; }
static void rx_fence(void) { rx_full_fence(); }

#endif

static bool rx_can_flush;
static void rx_persist_once(void)
{
    rx_can_flush = rx_persist_pick();
#ifdef ROWEX_TRACE
    rx_flush_lines = rx_trace_flush;
#endif
}

/* Once: who flushes must not see the choice being made again. */
bool rx_persist_setup(void)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, rx_persist_once);
    return rx_can_flush;
}

#ifdef ROWEX_TRACE
void rx_store_fence(void) { rx_trace_fence(rx_fence); }
#else
void rx_store_fence(void)
{
    RX_POINT();
    rx_fence();
}
#endif

#ifdef ROWEX_CRASHPOINTS
#include <signal.h>
#include <unistd.h>
#include "crash.h"

static uint64_t rx_own_points;
static uint64_t *rx_points = &rx_own_points; /* since rx_crash_arm() */
static uint64_t rx_die_at;                   /* 0: never */
static int rx_counting;
static uint64_t rx_stops; /* from there on so often stand still instead */
static uint64_t rx_passed, rx_halt_at; /* of any place */
static int64_t rx_only;                /* a place, 0: any */
static int32_t *rx_trail;
static uint64_t rx_trail_room;

void rx_crashpoint_of(const void *from)
{
    int64_t place = (int64_t)((uintptr_t)from - (uintptr_t)&rx_crash_count);
    if (!rx_counting)
        return;
    if (__atomic_add_fetch(&rx_passed, 1, __ATOMIC_RELAXED) == rx_halt_at)
        kill(getpid(), SIGSTOP);
    if (rx_only && rx_only != place)
        return;
    uint64_t n = __atomic_add_fetch(rx_points, 1, __ATOMIC_RELAXED);
    if (n <= rx_trail_room)
        rx_trail[n - 1] = (int32_t)place;
    if (rx_die_at && n >= rx_die_at && n - rx_die_at < rx_stops)
        kill(getpid(), SIGSTOP);
    else if (rx_die_at && n == rx_die_at) {
        kill(getpid(), SIGKILL);
        for (;;)
            pause();
    }
}
__attribute__((noinline)) void rx_crashpoint(void) { rx_crashpoint_of(__builtin_return_address(0)); }
void rx_crash_stop(uint64_t n, uint64_t times)
{
    __atomic_store_n(rx_points, 0, __ATOMIC_RELAXED);
    rx_passed = 0;
    rx_die_at = n;
    rx_stops = times;
    rx_counting = 1;
}
void rx_crash_arm(uint64_t n) { rx_crash_stop(n, 0); }
void rx_crash_halt(uint64_t n) { rx_halt_at = n; }
void rx_crash_only(int64_t place) { rx_only = place; }
void rx_crash_trail(uint64_t *to, uint64_t room)
{
    rx_points = to;
    rx_trail = (int32_t *)(void *)(to + 1);
    rx_trail_room = room;
}
uint64_t rx_crash_count(void) { return __atomic_load_n(rx_points, __ATOMIC_RELAXED); }
#endif
