/*
 * hot_api.h -- the table of functions through which rowex._hot reaches the core.
 *
 * rowex._hot is a second extension module that does not link against the core: it
 * is handed rx_hot_api()'s address once.  So both doors (cffi and _hot) run on one
 * copy of the core and share its per-process and per-thread state.
 *
 * The signatures are exactly index.h's.  New members go at the end, and raise
 * RX_HOT_VERSION only when an older table would no longer do.
 */
#ifndef ROWEX_HOT_API_H
#define ROWEX_HOT_API_H

#include <stddef.h>
#include <stdint.h>

#include "index.h"

#define RX_HOT_VERSION 2u

struct rx_hot_api {
    uint32_t version; /* RX_HOT_VERSION */
    uint32_t size;    /* sizeof(struct rx_hot_api) */

    int (*get)(rx_index *h, rx_thread *t, const void *key, size_t key_len, void *out, size_t capacity,
               size_t *value_len);
    int (*exists)(rx_index *h, rx_thread *t, const void *key, size_t key_len);
    int (*put)(rx_index *h, rx_thread *t, const void *key, size_t key_len, const void *value,
               size_t value_len, int64_t wait_ns, uint64_t *ticket);
    int (*insert)(rx_index *h, rx_thread *t, const void *key, size_t key_len, const void *value,
                  size_t value_len, int64_t wait_ns, uint64_t *ticket);
    int (*remove)(rx_index *h, rx_thread *t, const void *key, size_t key_len, int64_t wait_ns, uint64_t *ticket);
    int (*get_many)(rx_index *h, rx_thread *t, size_t n, const void *const *keys, const size_t *key_len,
                    void *out, size_t capacity, uint64_t *value_len, size_t *done, size_t *need);
    int (*put_many)(rx_index *h, rx_thread *t, size_t n, const void *const *keys, const size_t *key_len,
                    const void *const *values, const size_t *value_len, int64_t wait_ns, size_t *done,
                    uint64_t *ticket);

    int (*scan_open)(rx_index *h, const void *start, size_t start_len, const void *stop, size_t stop_len,
                     int reverse, int64_t limit, rx_scan **out);
    int (*scan_next)(rx_index *h, rx_thread *t, rx_scan *scan, void *buffer, size_t capacity,
                     size_t max_items, int values, size_t *items, size_t *need);
    void (*scan_close)(rx_scan *scan);

    const char *(*error_text)(void);
    int (*error_errno)(void);
    uint64_t (*error_offset)(void);
    const char *(*result_name)(int code);
    const char *(*result_hint)(int code);

    int (*wait_durable)(rx_index *h, rx_thread *t, uint64_t ticket, int64_t wait_ns);
};

#endif
