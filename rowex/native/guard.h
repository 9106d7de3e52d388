/*
 * guard.h -- the first and last step of every API call: is the handle open, is
 * this still the process that opened it, whose uid works.
 */
#ifndef ROWEX_GUARD_H
#define ROWEX_GUARD_H

#include "core.h"
#include "index.h"
#include "../gc/uid.h"

int rx_call_begin_slow(rx_index *h, struct rx_thread *given, struct rx_thread **out);

/* This thread's uid of the index it used last; points to an idle dummy before that. */
extern __thread struct rx_thread *rx_thread_cached __attribute__((tls_model("initial-exec")));

/*
 * RX_OK: *out is busy until rx_call_end().  Ordering: busy is stored, light fence,
 * then closed is read: rx_close() stores closed, membarrier, then waits for busy.
 */
static inline int rx_call_begin(rx_index *h, struct rx_thread *given, struct rx_thread **out)
{
    struct rx_thread *t = rx_thread_cached;
    if (RX_UNLIKELY(given != NULL || t->db != h->db || !t->light || t->busy))
        return rx_call_begin_slow(h, given, out);
    __atomic_store_n(&t->busy, 1, __ATOMIC_RELAXED);
    rx_compiler_barrier();
    if (RX_UNLIKELY(__atomic_load_n(&h->closed, __ATOMIC_ACQUIRE))) {
        __atomic_store_n(&t->busy, 0, __ATOMIC_RELEASE);
        return rx_call_begin_slow(h, given, out);
    }
    *out = t;
    return RX_OK;
}

static inline void rx_call_end(struct rx_thread *t) { __atomic_store_n(&t->busy, 0, __ATOMIC_RELEASE); }

#endif
