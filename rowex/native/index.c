/*
 * index.c -- the C API: handles, and the calls for one key.  Each call is: begin
 * (guard.h), an epoch around the work, recheck, end.  Many at once and scans are in
 * batch.c.
 */
#include <errno.h>
#include <sched.h>
#include <stdlib.h>
#include <time.h>
#include "batch.h"
#include "change.h"
#include "fileio.h"
#include "disk.h"
#include "durable.h"
#include "log.h"
#include "guard.h"
#include "hot_api.h"

/* h->db of a closed handle: equals no thread's db. */
static struct rx_db rx_db_closed;

/* ---- handles -------------------------------------------------------------------- */

static int rx_closed(void) { return rx_fail(RX_E_CLOSED, 0, "this handle was closed"); }

static void rx_options_free(struct rx_options *o)
{
    if (o)
        free((char *)(uintptr_t)o->path);
    free(o);
}

/* For reopening in a forked child: an existing file, as it is now. */
static int rx_options_keep(const struct rx_options *options, struct rx_options **out)
{
    struct rx_options *o = rx_sys_malloc(sizeof *o);
    if (o == NULL)
        return rx_fail(RX_E_MEMORY, 0, "for a handle");
    *o = *options;
    o->mode = options->mode == 'r' ? 'r' : 'w';
    o->capacity = 0;
    if (options->path && (o->path = rx_sys_realpath(options->path, NULL)) == NULL) {
        int os_errno = errno;
        free(o);
        errno = os_errno;
        return os_errno == ENOENT ? rx_fail(RX_E_REPLACED, 0, "%s vanished while it was opened", options->path)
                                  : rx_os_error("resolve", options->path);
    }
    *out = o;
    return RX_OK;
}

int rx_open(const struct rx_options *options, rx_index **out)
{
    struct rx_index *h = rx_sys_calloc(1, sizeof *h);
    if (h == NULL)
        return rx_fail(RX_E_MEMORY, 0, "for a handle");
    int rc = rx_db_open(options, &h->db);
    if (rc == RX_OK && (rc = rx_options_keep(options, &h->options)) != RX_OK)
        rx_db_close(h->db);
    if (rc) {
        free(h);
        return rc;
    }
    h->readonly = options->mode == 'r';
    *out = h;
    return RX_OK;
}

int rx_is_closed(rx_index *h) { return (int)__atomic_load_n(&h->closed, __ATOMIC_ACQUIRE); }

int rx_close(rx_index *h)
{
    /* A listener or a signal's handler, called from inside a call, would wait for itself.  As a call
     * that enters, so that nobody else's close frees the db under our look. */
    __atomic_fetch_add(&h->entering, 1, __ATOMIC_SEQ_CST);
    bool inside = !__atomic_load_n(&h->closed, __ATOMIC_SEQ_CST) && !h->db->broken_fork && rx_threads_inside(h->db);
    __atomic_fetch_sub(&h->entering, 1, __ATOMIC_SEQ_CST);
    if (inside)
        return rx_fail(RX_E_BUSY, 0, "this thread is inside a call on the index");
    if (__atomic_exchange_n(&h->closed, 1, __ATOMIC_SEQ_CST))
        return RX_OK;
    while (__atomic_load_n(&h->entering, __ATOMIC_SEQ_CST))
        sched_yield();
    struct rx_db *db = h->db;
    int flushed = rx_flush_closing(db, h->readonly);
    /* An inherited db is the parent's: its descriptors are closed, its maps harmless. */
    int rc = db->broken_fork ? RX_OK : rx_db_close(db);
    h->db = &rx_db_closed;
    return rc ? rc : flushed;
}

void rx_free(rx_index *h)
{
    rx_options_free(h->options);
    free(h);
}

/* A handle inherited through fork gets a db of this process on its first call. */
static int rx_reopen(rx_index *h)
{
    /* Not a plain lock: the one inside may be waiting for Python's lock, which we may hold. */
    for (int tries = 0; !rx_turn_try(RX_TURN_REOPENING); tries++) {
        if (tries > 5000)
            return rx_fail(RX_E_BUSY, 0, "another thread is reopening the inherited index");
        nanosleep(&(struct timespec){0, 1000000}, NULL);
    }
    int rc = RX_OK;
    if (h->db->broken_fork) {
        struct rx_db *fresh;
        rc = rx_db_reopen(h->db, h->options, &fresh);
        if (rc == RX_OK && h->db->broken_fork)
            __atomic_store_n(&h->db, fresh, __ATOMIC_RELEASE);
        else if (rc == RX_OK)
            rc = rx_db_close(fresh); /* a signal handler of this thread was here meanwhile */
    }
    rx_turn_end(RX_TURN_REOPENING);
    return rc;
}

/* An explicit uid: opened here, on this index, and used by one thread at a time. */
static int rx_take_given(rx_index *h, struct rx_thread *given, struct rx_thread **out)
{
    uint32_t idle = 0;
    if (given->db != h->db)
        return rx_fail(RX_E_CLOSED, 0, "this reader or writer was closed, or belongs to the parent process");
    if (!__atomic_compare_exchange_n(&given->busy, &idle, 1, false, __ATOMIC_SEQ_CST, __ATOMIC_RELAXED))
        return rx_fail(RX_E_BUSY, 0, "a reader or writer serves one thread at a time");
    __atomic_store_n(&given->user, rx_thread_number(), __ATOMIC_RELAXED);
    *out = given;
    return RX_OK;
}

int rx_call_begin_slow(rx_index *h, struct rx_thread *given, struct rx_thread **out)
{
    int rc = RX_OK;
    __atomic_fetch_add(&h->entering, 1, __ATOMIC_SEQ_CST); /* before the look at closed: see rx_close() */
    if (__atomic_load_n(&h->closed, __ATOMIC_SEQ_CST))
        rc = rx_closed();
    if (rc == RX_OK && h->db->broken_fork)
        rc = rx_reopen(h);
    if (rc == RX_OK)
        rc = given ? rx_take_given(h, given, out) : rx_thread_find(h->db, out);
    if (rc == RX_OK) {
        __atomic_store_n(&(*out)->busy, 1, __ATOMIC_SEQ_CST);
        rx_full_fence(); /* for dbs without membarrier; cheap beside the rest */
    }
    __atomic_fetch_sub(&h->entering, 1, __ATOMIC_SEQ_CST);
    return rc;
}

int rx_thread_open(rx_index *h, int kind, rx_thread **out)
{
    struct rx_thread *t;
    int rc = rx_call_begin(h, NULL, &t);
    if (rc)
        return rc;
    rc = rx_thread_new(t->db, (uint32_t)kind, out);
    rx_call_end(t);
    return rc;
}

void rx_thread_close(rx_index *h, rx_thread *t)
{
    (void)h;
    if (t == NULL)
        return;
    if (__atomic_load_n(&t->busy, __ATOMIC_ACQUIRE) && __atomic_load_n(&t->user, __ATOMIC_RELAXED) == rx_thread_number())
        return; /* from inside a call with it (a listener): it goes when the db is closed */
    /* Another thread's call with it finishes first: they are slices of 50 ms at most. */
    for (uint32_t idle = 0;
         !__atomic_compare_exchange_n(&t->busy, &idle, 1, false, __ATOMIC_SEQ_CST, __ATOMIC_RELAXED); idle = 0)
        sched_yield();
    rx_thread_drop(t);
}

uint64_t rx_thread_uid(rx_index *h, rx_thread *given)
{
    struct rx_thread *t;
    if (rx_call_begin(h, given, &t))
        return 0;
    uint64_t uid = t->uid;
    rx_call_end(t);
    return uid;
}

/* A change that was committed by somebody who died before it was counted is finished now. */
static void rx_finish_dead(struct rx_db *db)
{
    uint32_t high = rx_load32(&db->hdr->arena_high);
    for (uint32_t i = 0; i < high && i < RX_ARENAS; i++) {
        const struct rx_arena *a = &db->arenas[i];
        uint64_t owner = rx_load(&a->owner);
        if (RX_UNLIKELY(owner && (rx_load(&a->armed) || (rx_load(&a->batch) && !rx_load(&a->batch_counted)))))
            (void)rx_uid_gone(db, owner);
    }
}

int rx_count(rx_index *h, uint64_t *count)
{
    struct rx_thread *t;
    int rc = rx_call_begin(h, NULL, &t);
    if (rc)
        return rc;
    rx_finish_dead(t->db);
    *count = rx_db_count(t->db);
    if (rx_load(&t->db->hdr->generation) == RX_GENERATION_REPLACED) /* of which no arena is */
        rc = rx_fail(RX_E_REPLACED, 0, "%s", t->db->path ? t->db->path : "memory");
    rx_call_end(t);
    return rc;
}

/* Keys: what this generation began with, and what each arena has changed since. */
uint64_t rx_db_count(struct rx_db *db)
{
    for (;;) {
        uint64_t generation = rx_load(&db->hdr->generation);
        int64_t sum = (int64_t)rx_load(&db->hdr->base_count[generation & 1]);
        uint32_t high = rx_load32(&db->hdr->arena_high);
        for (uint32_t i = 0; i < high && i < RX_ARENAS; i++)
            if (rx_load(&db->arenas[i].generation) == generation)
                sum += rx_load_i64(&db->arenas[i].count);
        rx_acquire_fence();
        if (rx_load(&db->hdr->generation) == generation)
            return sum < 0 ? 0 : (uint64_t)sum;
    }
}

/* ---- reading one key --------------------------------------------------------------- */

/* In pieces of a MiB, so that an observer sees that we move (R9). */
void rx_copy_out(struct rx_thread *t, void *out, const uint8_t *from, uint64_t size)
{
    uint8_t *to = out;
    while (RX_UNLIKELY(size > 1u << 20)) {
        rx_copy_racy(to, from, 1u << 20);
        rx_store(&t->slot->progress, rx_load_rlx(&t->slot->progress) + 1);
        to += 1u << 20;
        from += 1u << 20;
        size -= 1u << 20;
    }
    rx_copy_racy(to, from, size);
}

/* One look-up inside the epoch. */
static inline int rx_get_inside(struct rx_thread *t, const void *key, size_t key_len, void *out, size_t capacity,
                                size_t *value_len)
{
    struct rx_leaf_view view;
    int rc = rx_find(t->map, key, key_len, &view);
    if (rc)
        return rc;
    *value_len = view.value_len;
    if (view.value_len > capacity)
        return RX_TOO_SMALL;
    rx_copy_out(t, out, view.value, view.value_len);
    return RX_OK;
}

int rx_get(rx_index *h, rx_thread *given, const void *key, size_t key_len, void *out, size_t capacity,
           size_t *value_len)
{
    struct rx_thread *t;
    int rc = rx_call_begin(h, given, &t), left;
    if (RX_UNLIKELY(rc))
        return rc;
    do {
        left = RX_OK;
        rc = rx_enter_read(t);
        if (RX_UNLIKELY(rc))
            break;
        rc = rx_get_inside(t, key, key_len, out, capacity, value_len);
        left = rx_leave_read(t);
    } while (RX_UNLIKELY(left == RX_I_EVICTED));
    rx_call_end(t);
    return RX_UNLIKELY(left) ? left : rc;
}

int rx_exists(rx_index *h, rx_thread *given, const void *key, size_t key_len)
{
    struct rx_thread *t;
    int rc = rx_call_begin(h, given, &t), left;
    if (RX_UNLIKELY(rc))
        return rc;
    do {
        struct rx_leaf_view leaf;
        left = RX_OK;
        rc = rx_enter_read(t);
        if (RX_UNLIKELY(rc))
            break;
        rc = rx_find(t->map, key, key_len, &leaf);
        left = rx_leave_read(t);
    } while (RX_UNLIKELY(left == RX_I_EVICTED));
    rx_call_end(t);
    return RX_UNLIKELY(left) ? left : rc;
}

/* ---- changing one key ---------------------------------------------------------------- */

int rx_sizes_allowed(size_t key_len, size_t value_len)
{
    if (RX_UNLIKELY(key_len > RX_KEY_MAX))
        return rx_fail(RX_E_KEY_SIZE, 0, "the key has %zu bytes, the limit is %u", key_len, RX_KEY_MAX);
    if (RX_UNLIKELY(value_len > RX_VALUE_MAX))
        return rx_fail(RX_E_KEY_SIZE, 0, "the value has %zu bytes, the limit is %llu", value_len,
                       (unsigned long long)RX_VALUE_MAX);
    return RX_OK;
}

int64_t rx_deadline(int64_t wait_ns)
{
    return wait_ns == 0 ? 0 : rx_now_ns() + (wait_ns < 0 ? 50000000ll : wait_ns);
}

/* A key longer than any is an absent one for who would only remove it. */
static int rx_change_of_no_key(rx_index *h, rx_thread *given, const struct rx_op *op)
{
    struct rx_thread *t;
    if (h->readonly)
        return rx_fail(RX_E_READONLY, 0, "nothing was changed");
    int rc = rx_call_begin(h, given, &t);
    if (rc)
        return rc;
    rx_call_end(t);
    if (op->change != RX_CAS)
        return RX_ABSENT;
    return op->expected ? RX_MISMATCH : RX_OK;
}

static int rx_change_one(rx_index *h, rx_thread *given, struct rx_op *op, int64_t wait_ns, uint64_t *ticket)
{
    struct rx_thread *t;
    int rc = rx_sizes_allowed(op->key_len, op->value_len);
    if (RX_UNLIKELY(rc))
        return op->value ? rc : rx_change_of_no_key(h, given, op);
    if (RX_UNLIKELY(h->readonly))
        return rx_fail(RX_E_READONLY, 0, "nothing was changed");
    rc = rx_call_begin(h, given, &t);
    if (RX_UNLIKELY(rc))
        return rc;
    t->deadline_ns = rx_deadline(wait_ns);
    rc = rx_change(t, op);
    bool nothing = op->change == RX_CAS && op->expected == NULL && op->value == NULL; /* it is absent, and stays so */
    if (ticket && rc == RX_OK && !nothing) /* a file without a log has none (design, section 7) */
        *ticket = t->db->logged ? rx_log_ticket(t->db, t->log_number) : 0;
    rx_call_end(t);
    return rc;
}

static const uint8_t rx_empty[1]; /* a value of no bytes is a value */
#define RX_BYTES(p) ((const uint8_t *)(p) ? (const uint8_t *)(p) : rx_empty)

int rx_put(rx_index *h, rx_thread *t, const void *key, size_t key_len, const void *value, size_t value_len,
           int64_t wait_ns, uint64_t *ticket)
{
    struct rx_op op;
    rx_op_set(&op, RX_PUT, RX_BYTES(key), key_len, RX_BYTES(value), value_len);
    return rx_change_one(h, t, &op, wait_ns, ticket);
}

int rx_insert(rx_index *h, rx_thread *t, const void *key, size_t key_len, const void *value, size_t value_len,
              int64_t wait_ns, uint64_t *ticket)
{
    struct rx_op op;
    rx_op_set(&op, RX_INSERT, RX_BYTES(key), key_len, RX_BYTES(value), value_len);
    return rx_change_one(h, t, &op, wait_ns, ticket);
}

int rx_remove(rx_index *h, rx_thread *t, const void *key, size_t key_len, int64_t wait_ns, uint64_t *ticket)
{
    struct rx_op op;
    rx_op_set(&op, RX_REMOVE, RX_BYTES(key), key_len, NULL, 0);
    return rx_change_one(h, t, &op, wait_ns, ticket);
}

int rx_compare_and_set(rx_index *h, rx_thread *t, const void *key, size_t key_len, const void *expected,
                       size_t expected_len, const void *value, size_t value_len, int64_t wait_ns, uint64_t *ticket)
{
    struct rx_op op;
    rx_op_set(&op, RX_CAS, RX_BYTES(key), key_len, value, value ? value_len : 0);
    op.expected = expected;
    op.expected_len = expected_len;
    return rx_change_one(h, t, &op, wait_ns, ticket);
}

int rx_take(rx_index *h, rx_thread *t, const void *key, size_t key_len, void *out, size_t capacity,
            size_t *value_len, int64_t wait_ns, uint64_t *ticket)
{
    struct rx_op op;
    rx_op_set(&op, RX_TAKE, RX_BYTES(key), key_len, NULL, 0);
    op.out = out;
    op.out_capacity = capacity;
    int rc = rx_change_one(h, t, &op, wait_ns, ticket);
    *value_len = op.out_len;
    return rc;
}

/* ---- the hot door's table ----------------------------------------------------------------- */

static const struct rx_hot_api rx_hot_table = {
    .version = RX_HOT_VERSION,
    .size = sizeof(struct rx_hot_api),
    .get = rx_get,
    .exists = rx_exists,
    .put = rx_put,
    .insert = rx_insert,
    .remove = rx_remove,
    .get_many = rx_get_many,
    .put_many = rx_put_many,
    .scan_open = rx_scan_open,
    .scan_next = rx_scan_next,
    .scan_close = rx_scan_close,
    .error_text = rx_error_text,
    .error_errno = rx_error_errno,
    .error_offset = rx_error_offset,
    .result_name = rx_result_name,
    .result_hint = rx_result_hint,
    .wait_durable = rx_wait_durable,
};
const void *rx_hot_api(void) { return &rx_hot_table; }

const char *rx_build_info(void)
{
    return "rowex core, C" __VERSION__
#ifdef ROWEX_CRASHPOINTS
           ", crash points"
#endif
#ifdef ROWEX_TRACE
           ", traced"
#endif
#ifdef ROWEX_POISON
           ", poisoned free cells"
#endif
#ifdef ROWEX_NO_SIMD
           ", no SIMD"
#endif
        ;
}
