/*
 * steps.h -- what a run is made of: operations.h, scans, and what becomes of the whole index; each compared with
 * the model.
 */
#ifndef ROWEX_FUZZ_STEPS_H
#define ROWEX_FUZZ_STEPS_H

#include "operations.h"

#define KEEP_MAX 6000u /* more keys than that: rather remove */

/* ---- order ------------------------------------------------------------------------------ */

static void expect_item(struct run *r, const struct pair *expected, const struct fuzz_item *item, const char *what)
{
    if (expected->key.size != item->key_len || memcmp(expected->key.at, item->key, item->key_len) != 0)
        fuzz_fail("step %llu, %s: a key of %llu bytes instead of one of %zu, or other bytes",
                  (unsigned long long)r->step, what, (unsigned long long)item->key_len, expected->key.size);
    expect_value(r, expected->value, item->value, item->value_len, what);
}

/* What a scan still owes, in the model: its pairs [low, high), `most` of them a call into `room` bytes, some without values. */
struct due { size_t low, high, room, most; int reverse, values; };

/* One call; behind the room everything stays as it is.  False: the scan is over. */
static bool scan_some(struct run *r, rx_scan *scan, struct due *due)
{
    static const uint8_t guard[] = "nobody writes here";
    size_t items = 0, need = 0, at = 0;
    int rc;
    for (;;) {
        answer_room(r, due->room + sizeof guard);
        memcpy(r->buffer + due->room, guard, sizeof guard);
        rc = rx_scan_next(r->index, r->writer, scan, r->buffer, due->room, due->most, due->values, &items, &need);
        if (memcmp(r->buffer + due->room, guard, sizeof guard) != 0)
            fuzz_fail("step %llu: a scan wrote behind its buffer of %zu bytes", (unsigned long long)r->step, due->room);
        if (rc != RX_TOO_SMALL || need <= due->room)
            break;
        due->room = need;
    }
    if (rc == RX_END)
        return false;
    fuzz_expect(RX_OK, rc, "scan_next");
    if (items == 0 || items > due->most || items > due->high - due->low)
        fuzz_fail("scan: %zu items where at most %zu of %zu were due", items, due->most, due->high - due->low);
    for (; items; items--) {
        const struct pair *next = &r->model.pairs[due->reverse ? --due->high : due->low++];
        struct fuzz_item item;
        at = fuzz_item_read(r->buffer, at, due->values, &item);
        item.value = due->values ? item.value : next->value.at; /* of it there is the length alone */
        expect_item(r, next, &item, due->reverse ? "reverse scan" : "scan");
    }
    return true;
}

static void scan_ended(const struct run *r, const struct due *due)
{
    if (due->low != due->high)
        fuzz_fail("step %llu: the %s scan ended %zu keys early", (unsigned long long)r->step,
                  due->reverse ? "reverse" : "forward", due->high - due->low);
}

/* How many a call is to give: a room of so many bytes, or just what some of them take. */
static void due_room(struct run *r, struct due *due, uint64_t bytes, uint64_t most)
{
    due->most = 1 + fuzz_below(&r->rng, most);
    due->values = fuzz_below(&r->rng, 4) != 0;
    due->room = 64 + fuzz_below(&r->rng, bytes);
    if (due->low == due->high || fuzz_below(&r->rng, 2))
        return;
    size_t some = due->high - due->low < most ? due->high - due->low : most;
    some -= fuzz_below(&r->rng, 2) ? fuzz_below(&r->rng, some) : 0;
    due->room = 0;
    for (size_t i = 0; i < some; i++) {
        const struct pair *next = &r->model.pairs[due->reverse ? due->high - 1 - i : due->low + i];
        due->room += (16 + next->key.size + (due->values ? next->value.size : 0) + 7) & ~(size_t)7;
    }
}

/* A bound without `at` is open. */
static struct due due_between(const struct run *r, struct bytes start, struct bytes stop, int reverse, int64_t limit)
{
    int found;
    struct due due = {.high = r->model.count, .reverse = reverse};
    if (start.at)
        due.low = model_find(&r->model, start, &found);
    if (stop.at)
        due.high = model_find(&r->model, stop, &found);
    if (due.high < due.low)
        due.high = due.low;
    if (limit < 0 || (size_t)limit >= due.high - due.low)
        return due;
    if (reverse)
        due.low = due.high - (size_t)limit;
    else
        due.high = due.low + (size_t)limit;
    return due;
}

static rx_scan *scan_begin(const struct run *r, struct bytes start, struct bytes stop, int reverse, int64_t limit)
{
    rx_scan *scan;
    int rc = rx_scan_open(r->index, start.at, start.size, stop.at, stop.size, reverse, limit, &scan);
    fuzz_expect(RX_OK, rc, "scan_open");
    return scan;
}

static void scan_range(struct run *r, struct bytes start, struct bytes stop, int reverse, int64_t limit)
{
    struct due due = due_between(r, start, stop, reverse, limit);
    rx_scan *scan = scan_begin(r, start, stop, reverse, limit);
    due_room(r, &due, 100000, 300);
    while (scan_some(r, scan, &due))
        ;
    scan_ended(r, &due);
    rx_scan_close(scan);
}

static const struct bytes no_bound;

/* A bound, or none. */
static struct bytes make_bound(struct run *r) { return fuzz_below(&r->rng, 4) ? make_key(r) : no_bound; }

static int64_t make_limit(struct run *r) { return fuzz_below(&r->rng, 2) ? -1 : (int64_t)fuzz_below(&r->rng, 50); }

static void op_scan(struct run *r)
{
    struct bytes start = make_bound(r), stop = make_bound(r);
    int reverse = (int)fuzz_below(&r->rng, 2);
    scan_range(r, start, stop, reverse, make_limit(r));
    free(start.at);
    free(stop.at);
}

/* All keys that begin with the same bytes. */
static void op_scan_prefix(struct run *r)
{
    struct bytes start = make_key(r);
    start.size = fuzz_below(&r->rng, start.size + 1);
    struct bytes stop = bytes_copy(start);
    while (stop.size && stop.at[stop.size - 1] == 255)
        stop.size--;
    if (stop.size)
        stop.at[stop.size - 1]++;
    int reverse = (int)fuzz_below(&r->rng, 2);
    scan_range(r, start, stop.size ? stop : no_bound, reverse, make_limit(r));
    free(start.at);
    free(stop.at);
}

/* ---- scans that stay open ---------------------------------------------------------------- */

static void kept_close(struct kept *k)
{
    rx_scan_close(k->scan);
    free(k->start.at);
    free(k->stop.at);
    free(k->last.at);
    *k = (struct kept){0};
}

static void kept_open(struct run *r, struct kept *k)
{
    k->start = make_bound(r);
    k->stop = make_bound(r);
    k->reverse = (int)fuzz_below(&r->rng, 2);
    k->limit = make_limit(r);
    k->scan = scan_begin(r, k->start, k->stop, k->reverse, k->limit);
}

/* What is due now: beyond the last key given, whether or not that is still there. */
static struct due kept_due(struct run *r, const struct kept *k)
{
    struct bytes start = k->start, stop = k->stop, after = {0};
    if (k->last.at && k->reverse) {
        stop = k->last;
    } else if (k->last.at) { /* the least key that is greater */
        start = after = (struct bytes){fuzz_alloc(k->last.size + 1), k->last.size + 1};
        memcpy(after.at, k->last.at, k->last.size);
        after.at[k->last.size] = 0;
    }
    struct due due = due_between(r, start, stop, k->reverse, k->limit);
    due_room(r, &due, 4000, 30);
    free(after.at);
    return due;
}

/* One call; a single thread sees what there is now.  A scan that found its end stays there, whatever comes. */
static void kept_advance(struct run *r, struct kept *k)
{
    struct due due = kept_due(r, k);
    size_t before = due.high - due.low;
    bool more = scan_some(r, k->scan, &due);
    size_t given = before - (due.high - due.low);
    if (more && (given == due.most || due.low != due.high)) {
        free(k->last.at);
        k->last = bytes_copy(r->model.pairs[k->reverse ? due.high : due.low - 1].key);
        k->limit -= k->limit < 0 ? 0 : (int64_t)given;
        return;
    }
    scan_ended(r, &due);
    if (scan_some(r, k->scan, &due))
        fuzz_fail("a scan that was over went on");
    kept_close(k);
}

static void op_scan_kept(struct run *r)
{
    struct kept *k = &r->kept[fuzz_below(&r->rng, KEPT_MAX)];
    if (k->scan && fuzz_below(&r->rng, 16) == 0)
        kept_close(k);
    if (k->scan == NULL)
        kept_open(r, k);
    kept_advance(r, k);
}

static void op_edge(struct run *r, struct bytes key)
{
    static const char *const names[] = {"first", "last", "floor", "ceiling"};
    int which = (int)fuzz_below(&r->rng, 4), found;
    size_t need = 0, at = model_find(&r->model, key, &found);
    size_t due = which == 0 ? 0 : which == 1 ? r->model.count - 1 : which == 2 && !found ? at - 1 : at;
    int rc = rx_edge(r->index, r->writer, which, key.at, key.size, r->buffer, r->buffer_size, &need);
    if (rc == RX_TOO_SMALL) {
        answer_room(r, need);
        rc = rx_edge(r->index, r->writer, which, key.at, key.size, r->buffer, r->buffer_size, &need);
    }
    fuzz_expect(due < r->model.count ? RX_OK : RX_ABSENT, rc, names[which]);
    if (due >= r->model.count)
        return;
    struct fuzz_item item;
    fuzz_item_read(r->buffer, 0, 1, &item);
    expect_item(r, &r->model.pairs[due], &item, names[which]);
}

/* ---- the whole ------------------------------------------------------------------------------ */

static void compare_all(struct run *r)
{
    uint64_t count = 0;
    fuzz_expect(RX_OK, rx_count(r->index, &count), "count");
    if (count != r->model.count)
        fuzz_fail("step %llu: count is %llu instead of %zu", (unsigned long long)r->step, (unsigned long long)count,
                  r->model.count);
    scan_range(r, no_bound, no_bound, 0, -1);
    scan_range(r, no_bound, no_bound, 1, -1);
    fuzz_check(r->index);
}

static void session_open(struct run *r)
{
    fuzz_expect(RX_OK, rx_open(&r->options, &r->index), "open");
    if (fuzz_below(&r->rng, 2))
        fuzz_expect(RX_OK, rx_thread_open(r->index, 3, &r->writer), "thread_open");
}

static void session_close(struct run *r)
{
    for (size_t i = 0; i < KEPT_MAX; i++)
        kept_close(&r->kept[i]);
    rx_thread_close(r->index, r->writer);
    r->writer = NULL;
    fuzz_expect(RX_OK, rx_close(r->index), "close");
    rx_free(r->index);
}

static void op_reopen(struct run *r)
{
    session_close(r);
    session_open(r);
}

/* A copy and rename. */
static void op_compact(struct run *r)
{
    int rc;
    RETRY(rc, rx_compact(r->index, WAIT_NS));
    fuzz_expect(RX_OK, rc, "compact");
}

/* All so far, by the log or by a checkpoint; another may be under way by itself. */
static void op_durable(struct run *r)
{
    struct rx_log_info info;
    int rc, expected = r->options.durability == RX_D_PROCESS ? RX_E_DURABILITY : RX_OK;
    if (fuzz_below(&r->rng, 2)) {
        do
            RETRY(rc, rx_checkpoint(r->index, WAIT_NS));
        while (rc == RX_E_BUSY);
        fuzz_expect(expected, rc, "checkpoint");
        return;
    }
    fuzz_expect(expected, rx_log_status(r->index, &info), "log_status");
    if (expected != RX_OK)
        return;
    RETRY(rc, rx_wait_durable(r->index, r->writer, info.position, WAIT_NS));
    fuzz_expect(RX_OK, rc, "wait_durable");
    fuzz_expect(RX_OK, rx_is_durable(r->index, info.position), "is_durable");
}

/* A new index: with the options that r has, which it then has itself. */
static void run_begin(struct run *r)
{
    answer_room(r, 512);
    session_open(r);
    r->options.capacity = r->options.initial_size = 0;
    r->options.checksum = -1;
}

/* Another session must find the same. */
static void run_end(struct run *r)
{
    compare_all(r);
    op_reopen(r);
    compare_all(r);
    session_close(r);
    model_clear(&r->model);
    free(r->buffer);
}

/* ---- one step ------------------------------------------------------------------------------- */

static void (*const on_key[])(struct run *, struct bytes) = {
    op_get, op_put, op_put, op_put, op_insert, op_take, op_remove, op_compare_and_set, op_edge,
};
#define ON_KEY (sizeof on_key / sizeof *on_key)

static void step_on_key(struct run *r, void (*op)(struct run *, struct bytes))
{
    struct bytes key = make_key(r);
    op(r, key);
    free(key.at);
}

#endif
