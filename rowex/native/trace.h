/*
 * trace.h -- the traced build (ROWEX_TRACE): every store to a mapped data file, every flush of a
 * line, fence, sync and rename is written down, in an area that forked processes share.
 * scripts/persist-order makes of it what a power cut can leave.
 */
#ifndef ROWEX_TRACE_H
#define ROWEX_TRACE_H
#include <stdint.h>

enum rx_trace_kind { /* the script knows these numbers */
    RX_T_STORE = 1, /* the bytes follow, padded to 8 */
    RX_T_FLUSH = 2,
    RX_T_FENCE = 3,  /* what this thread flushed before is persistent */
    RX_T_SYNC = 4,   /* the whole file is */
    RX_T_SIZE = 5,   /* the file has `offset` bytes */
    RX_T_RENAME = 6, /* a copy of the index was renamed over it */
    RX_T_FOLDER = 7, /* the folder was synced */
    RX_T_MARK = 8,   /* the script's own */
};
struct rx_trace_event {
    uint32_t kind;
    uint32_t thread; /* its tid */
    uint64_t file;   /* inode; 0: none */
    uint64_t offset;
    uint64_t length;
};

/* ---- for the core ---- */
void rx_trace_map(const void *base, uint64_t capacity, int fd);
void rx_trace_unmap(const void *base);
void rx_trace_flush(const void *p, size_t size);
void rx_trace_fence(void (*fence)(void));
void rx_trace_note(enum rx_trace_kind kind, const void *base, uint64_t offset);

/* ---- for the script ---- */
int rx_trace_begin(uint64_t bytes);      /* room for so many; 0, or -1 */
void rx_trace_on(uint32_t on);
const void *rx_trace_bytes(void);
uint64_t rx_trace_used(void);            /* bytes; UINT64_MAX when the room did not do */
uint64_t rx_trace_count(void);           /* events */
void rx_trace_stand_still(uint64_t at);  /* this process does, after event number `at`; it never goes on */
uint32_t rx_trace_stands(void);
#endif
