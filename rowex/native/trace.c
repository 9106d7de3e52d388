/*
 * trace.c -- writing down what the core does to its mapped files (trace.h); nothing in other builds.
 */
#include "persist.h"
#ifdef ROWEX_TRACE
#define _GNU_SOURCE
#include <sched.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>
#include "disk.h"
#include "trace.h"

#define RX_TRACED_MAPS 16u

struct rx_trace {
    uint32_t lock, on, stands, full;
    uint64_t used, size, count;
    uint8_t bytes[];
};
static struct rx_trace *rx_trace;
static uint64_t rx_stop_at; /* 0: never */
static struct { uintptr_t base; uint64_t capacity, ino; } rx_traced[RX_TRACED_MAPS];

/* The file and offset of p; false: of no data file. */
static bool rx_trace_place(const void *p, uint64_t *file, uint64_t *offset)
{
    for (unsigned i = 0; i < RX_TRACED_MAPS; i++)
        if (rx_traced[i].base && (uintptr_t)p - rx_traced[i].base < rx_traced[i].capacity) {
            *file = rx_traced[i].ino;
            *offset = (uintptr_t)p - rx_traced[i].base;
            return true;
        }
    return false;
}

/* Processes and threads write one after the other; who is to stand still does so outside the lock. */
static void rx_trace_add(enum rx_trace_kind kind, uint64_t file, uint64_t offset, uint64_t length, const void *bytes)
{
    struct rx_trace *t = rx_trace;
    struct rx_trace_event e = {kind, (uint32_t)syscall(SYS_gettid), file, offset, length};
    uint64_t room = sizeof e + (bytes ? (length + 7) / 8 * 8 : 0);
    if (!t || !__atomic_load_n(&t->on, __ATOMIC_ACQUIRE))
        return;
    while (__atomic_exchange_n(&t->lock, 1, __ATOMIC_ACQUIRE))
        sched_yield();
    uint64_t number = ++t->count;
    if (t->size - t->used < room) {
        t->full = 1;
    } else {
        memcpy(t->bytes + t->used, &e, sizeof e);
        if (bytes)
            memcpy(t->bytes + t->used + sizeof e, bytes, length);
        t->used += room;
    }
    __atomic_store_n(&t->lock, 0, __ATOMIC_RELEASE);
    if (number == rx_stop_at) {
        __atomic_store_n(&t->stands, 1, __ATOMIC_RELEASE);
        for (;;)
            pause();
    }
}

void rx_trace_map(const void *base, uint64_t capacity, int fd)
{
    struct stat st;
    for (unsigned i = 0; i < RX_TRACED_MAPS; i++)
        if (rx_traced[i].base == 0 && rx_sys_fstat(fd, &st) == 0) {
            rx_traced[i].capacity = capacity;
            rx_traced[i].ino = (uint64_t)st.st_ino;
            rx_traced[i].base = (uintptr_t)base;
            return;
        }
}

void rx_trace_unmap(const void *base)
{
    for (unsigned i = 0; i < RX_TRACED_MAPS; i++)
        if (rx_traced[i].base == (uintptr_t)base)
            rx_traced[i].base = 0;
}

void rx_trace_stored(const void *p, size_t size)
{
    uint64_t file, offset;
    if (size && rx_trace_place(p, &file, &offset))
        rx_trace_add(RX_T_STORE, file, offset, size, p);
}

void rx_trace_flush(const void *p, size_t size)
{
    uint64_t file, offset;
    if (size && rx_trace_place(p, &file, &offset))
        rx_trace_add(RX_T_FLUSH, file, offset, size, NULL);
}

void rx_trace_fence(void (*fence)(void))
{
    fence();
    rx_trace_add(RX_T_FENCE, 0, 0, 0, NULL);
}

void rx_trace_note(enum rx_trace_kind kind, const void *base, uint64_t offset)
{
    uint64_t file = 0, at;
    if (base && !rx_trace_place(base, &file, &at))
        return;
    rx_trace_add(kind, file, offset, 0, NULL);
}

int rx_trace_begin(uint64_t bytes)
{
    void *at = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (at == MAP_FAILED)
        return -1;
    if (rx_trace)
        munmap(rx_trace, rx_trace->size + sizeof *rx_trace);
    rx_trace = at;
    rx_trace->size = bytes - sizeof *rx_trace;
    return 0;
}

void rx_trace_on(uint32_t on) { __atomic_store_n(&rx_trace->on, on, __ATOMIC_RELEASE); }
const void *rx_trace_bytes(void) { return rx_trace->bytes; }
uint64_t rx_trace_used(void) { return rx_trace->full ? UINT64_MAX : rx_trace->used; }
uint64_t rx_trace_count(void) { return rx_trace->count; }
void rx_trace_stand_still(uint64_t at) { rx_stop_at = at; }
uint32_t rx_trace_stands(void) { return __atomic_load_n(&rx_trace->stands, __ATOMIC_ACQUIRE); }
#endif
