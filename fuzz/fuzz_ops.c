/*
 * fuzz_ops.c -- random operations through the C API, each compared with a sorted array.
 *
 *   fuzz_ops [--seed N] [--count OPERATIONS] [--shape NAME] [--folder DIR]
 *
 * Shapes: short, prefix, binary, random, mixed; without --shape all of them in turn, `count`
 * operations each.  Exit status 1 and a way to repeat it at the first difference.
 */
#include "fuzz.h"
#include "model.h"
#include "shapes.h"

#define MANY_MAX 40u
#define KEEP_MAX 6000u /* more keys than that: rather remove */

struct run {
    uint64_t rng;
    enum shape shape;
    char path[400];
    struct rx_options options;
    rx_index *index;
    rx_thread *writer; /* an explicit uid, or NULL */
    struct model model;
    uint8_t *buffer; /* for answers */
    size_t buffer_size;
    uint64_t step;
};

/* ---- keys and values ---------------------------------------------------------------- */

/* A new key of the run's shape, or (half of the time) one that the model has. */
static struct bytes make_key(struct run *r)
{
    if (r->model.count && fuzz_below(&r->rng, 2))
        return bytes_copy(r->model.pairs[fuzz_below(&r->rng, r->model.count)].key);
    uint8_t *room = fuzz_alloc(KEY_ROOM);
    size_t shape = r->shape == MIXED ? fuzz_below(&r->rng, MIXED) : r->shape;
    struct bytes key = bytes_copy((struct bytes){room, make_shape[shape](&r->rng, room)});
    free(room);
    return key;
}

/* Mostly small; now and then about the limits of the small leaf and of the free lists' classes. */
static struct bytes make_value(struct run *r)
{
    size_t size = fuzz_below(&r->rng, 40);
    uint64_t dice = fuzz_below(&r->rng, 200);
    if (dice < 10)
        size = 960 + fuzz_below(&r->rng, 90);
    else if (dice < 16)
        size = 3900 + fuzz_below(&r->rng, 500);
    else if (dice == 16)
        size = 65000 + fuzz_below(&r->rng, 140000);
    struct bytes value = {fuzz_alloc(size), size};
    fuzz_bytes(&r->rng, value.at, size);
    return value;
}

static void answer_room(struct run *r, size_t size)
{
    if (size <= r->buffer_size)
        return;
    free(r->buffer);
    r->buffer = fuzz_alloc(size);
    r->buffer_size = size;
}

/* ---- operations on one key --------------------------------------------------------- */

#define RETRY(rc, call) do (rc) = (call); while ((rc) == RX_WOULD_WAIT)
#define WAIT_NS 1000000000

static void expect_value(struct run *r, struct bytes expected, const uint8_t *got, size_t size, const char *what)
{
    if (expected.size != size || memcmp(expected.at, got, size) != 0)
        fuzz_fail("step %llu, %s: a value of %zu bytes instead of one of %zu, or other bytes",
                  (unsigned long long)r->step, what, size, expected.size);
}

static void op_get(struct run *r, struct bytes key)
{
    int found, rc;
    size_t at = model_find(&r->model, key, &found), size = 0;
    fuzz_expect(found ? RX_OK : RX_ABSENT, rx_exists(r->index, r->writer, key.at, key.size), "exists");
    rc = rx_get(r->index, r->writer, key.at, key.size, r->buffer, r->buffer_size, &size);
    if (rc == RX_TOO_SMALL) {
        answer_room(r, size);
        rc = rx_get(r->index, r->writer, key.at, key.size, r->buffer, r->buffer_size, &size);
    }
    fuzz_expect(found ? RX_OK : RX_ABSENT, rc, "get");
    if (found)
        expect_value(r, r->model.pairs[at].value, r->buffer, size, "get");
}

static void op_put(struct run *r, struct bytes key)
{
    int rc;
    struct bytes value = make_value(r);
    RETRY(rc, rx_put(r->index, r->writer, key.at, key.size, value.at, value.size, WAIT_NS, NULL));
    fuzz_expect(RX_OK, rc, "put");
    model_put(&r->model, key, value);
    free(value.at);
}

static void op_insert(struct run *r, struct bytes key)
{
    int rc, found;
    struct bytes value = make_value(r);
    model_find(&r->model, key, &found);
    RETRY(rc, rx_insert(r->index, r->writer, key.at, key.size, value.at, value.size, WAIT_NS, NULL));
    fuzz_expect(found ? RX_PRESENT : RX_OK, rc, "insert");
    if (!found)
        model_put(&r->model, key, value);
    free(value.at);
}

static void op_remove(struct run *r, struct bytes key)
{
    int rc, found;
    size_t at = model_find(&r->model, key, &found);
    RETRY(rc, rx_remove(r->index, r->writer, key.at, key.size, WAIT_NS, NULL));
    fuzz_expect(found ? RX_OK : RX_ABSENT, rc, "remove");
    if (found)
        model_remove(&r->model, at);
}

static void op_take(struct run *r, struct bytes key)
{
    int rc, found;
    size_t size = 0, at = model_find(&r->model, key, &found);
    uint8_t little[16];
    RETRY(rc, rx_take(r->index, r->writer, key.at, key.size, little, sizeof little, &size, WAIT_NS, NULL));
    int fits = found && r->model.pairs[at].value.size <= sizeof little;
    fuzz_expect(!found ? RX_ABSENT : fits ? RX_OK : RX_TOO_SMALL, rc, "take");
    if (!found)
        return;
    if (size != r->model.pairs[at].value.size)
        fuzz_fail("take told %zu bytes instead of %zu", size, r->model.pairs[at].value.size);
    if (!fits)
        return;
    expect_value(r, r->model.pairs[at].value, little, size, "take");
    model_remove(&r->model, at);
}

static void op_compare_and_set(struct run *r, struct bytes key)
{
    int rc, found;
    size_t at = model_find(&r->model, key, &found);
    struct bytes expected = {NULL, 0}, value = {NULL, 0};
    uint64_t dice = fuzz_below(&r->rng, 4);
    if (found && dice)
        expected = dice == 1 ? make_value(r) : bytes_copy(r->model.pairs[at].value);
    else if (!found && dice == 1)
        expected = make_value(r);
    if (fuzz_below(&r->rng, 3))
        value = make_value(r);
    int matches = found ? expected.at && compare(expected, r->model.pairs[at].value) == 0 : expected.at == NULL;
    RETRY(rc, rx_compare_and_set(r->index, r->writer, key.at, key.size, expected.at, expected.size, value.at,
                                 value.size, WAIT_NS, NULL));
    fuzz_expect(matches ? RX_OK : RX_MISMATCH, rc, "compare_and_set");
    if (matches && value.at)
        model_put(&r->model, key, value);
    else if (matches && found)
        model_remove(&r->model, at);
    free(expected.at);
    free(value.at);
}

/* ---- operations on many ----------------------------------------------------------------- */

struct many {
    size_t n, key_len[MANY_MAX], value_len[MANY_MAX];
    struct bytes key[MANY_MAX], value[MANY_MAX];
    const void *keys[MANY_MAX], *values[MANY_MAX];
};

static void many_make(struct run *r, struct many *m)
{
    m->n = fuzz_below(&r->rng, MANY_MAX);
    for (size_t i = 0; i < m->n; i++) {
        m->key[i] = make_key(r);
        m->value[i] = make_value(r);
        m->keys[i] = m->key[i].at;
        m->values[i] = m->value[i].at;
        m->key_len[i] = m->key[i].size;
        m->value_len[i] = m->value[i].size;
    }
}

static void many_free(struct many *m)
{
    for (size_t i = 0; i < m->n; i++) {
        free(m->key[i].at);
        free(m->value[i].at);
    }
}

static void op_put_many(struct run *r, struct many *m)
{
    for (size_t from = 0; from < m->n;) {
        size_t done = 0;
        int rc = rx_put_many(r->index, r->writer, m->n - from, m->keys + from, m->key_len + from, m->values + from,
                             m->value_len + from, WAIT_NS, &done, NULL);
        from += done;
        if (rc != RX_WOULD_WAIT) {
            fuzz_expect(RX_OK, rc, "put_many");
            if (from != m->n)
                fuzz_fail("put_many: %zu of %zu done", from, m->n);
        }
    }
    for (size_t i = 0; i < m->n; i++)
        model_put(&r->model, m->key[i], m->value[i]);
}

static void op_remove_many(struct run *r, struct many *m)
{
    size_t removed = 0, expected = 0;
    for (size_t from = 0; from < m->n;) {
        size_t done = 0, now = 0;
        int rc = rx_remove_many(r->index, r->writer, m->n - from, m->keys + from, m->key_len + from, WAIT_NS, &done,
                                &now, NULL);
        from += done;
        removed += now;
        if (rc != RX_WOULD_WAIT) {
            fuzz_expect(RX_OK, rc, "remove_many");
            if (from != m->n)
                fuzz_fail("remove_many: %zu of %zu done", from, m->n);
        }
    }
    for (size_t i = 0; i < m->n; i++) {
        int found;
        size_t at = model_find(&r->model, m->key[i], &found);
        if (found)
            model_remove(&r->model, at);
        expected += (size_t)found;
    }
    if (removed != expected)
        fuzz_fail("remove_many removed %zu keys instead of %zu", removed, expected);
}

/* Answers for the keys from `from` on, out of the buffer. */
static void get_many_compare(struct run *r, const struct many *m, size_t from, size_t done, const uint64_t *sizes)
{
    const uint8_t *value = r->buffer;
    for (size_t i = 0; i < done; i++) {
        int found;
        size_t at = model_find(&r->model, m->key[from + i], &found);
        if (found != (sizes[i] != UINT64_MAX))
            fuzz_fail("get_many: key %zu is %s", from + i, found ? "missing" : "invented");
        if (!found)
            continue;
        expect_value(r, r->model.pairs[at].value, value, sizes[i], "get_many");
        value += sizes[i];
    }
}

static void op_get_many(struct run *r, struct many *m)
{
    size_t room = fuzz_below(&r->rng, 600);
    for (size_t from = 0; from < m->n;) {
        uint64_t sizes[MANY_MAX];
        size_t done = 0, need = 0;
        answer_room(r, room);
        int rc = rx_get_many(r->index, r->writer, m->n - from, m->keys + from, m->key_len + from, r->buffer, room,
                             sizes, &done, &need);
        get_many_compare(r, m, from, done, sizes);
        from += done;
        if (rc == RX_TOO_SMALL) {
            if (need > room)
                room = need;
            else if (done == 0)
                fuzz_fail("get_many: too small, yet %zu bytes suffice and there are %zu", need, room);
        } else {
            fuzz_expect(RX_OK, rc, "get_many");
        }
        if (rc == RX_OK && from != m->n)
            fuzz_fail("get_many: %zu of %zu done", from, m->n);
    }
}

/* ---- order ------------------------------------------------------------------------------ */

static void expect_item(struct run *r, const struct pair *expected, const struct fuzz_item *item, const char *what)
{
    if (expected->key.size != item->key_len || memcmp(expected->key.at, item->key, item->key_len) != 0)
        fuzz_fail("step %llu, %s: a key of %llu bytes instead of one of %zu, or other bytes",
                  (unsigned long long)r->step, what, (unsigned long long)item->key_len, expected->key.size);
    expect_value(r, expected->value, item->value, item->value_len, what);
}

/* The model's pairs [low, high) must come, in the given direction, and nothing else. */
static void scan_compare(struct run *r, rx_scan *scan, size_t low, size_t high, int reverse)
{
    size_t room = 64 + fuzz_below(&r->rng, 100000), most = 1 + fuzz_below(&r->rng, 300);
    for (;;) {
        size_t items = 0, need = 0, at = 0;
        answer_room(r, room);
        int rc = rx_scan_next(r->index, r->writer, scan, r->buffer, room, most, 1, &items, &need);
        if (rc == RX_TOO_SMALL && need > room) {
            room = need;
            continue;
        }
        if (rc == RX_END)
            break;
        fuzz_expect(RX_OK, rc, "scan_next");
        if (items == 0 || items > most || items > high - low)
            fuzz_fail("scan: %zu items where at most %zu of %zu were due", items, most, high - low);
        for (; items; items--) {
            struct fuzz_item item;
            at = fuzz_item_read(r->buffer, at, &item);
            expect_item(r, &r->model.pairs[reverse ? --high : low++], &item, reverse ? "reverse scan" : "scan");
        }
    }
    if (low != high)
        fuzz_fail("step %llu: the %s scan ended %zu keys early", (unsigned long long)r->step,
                  reverse ? "reverse" : "forward", high - low);
}

static void scan_range(struct run *r, const struct bytes *start, const struct bytes *stop, int reverse, int64_t limit)
{
    int found;
    size_t low = start ? model_find(&r->model, *start, &found) : 0;
    size_t high = stop ? model_find(&r->model, *stop, &found) : r->model.count;
    if (high < low)
        high = low;
    if (limit >= 0 && (size_t)limit < high - low) {
        if (reverse)
            low = high - (size_t)limit;
        else
            high = low + (size_t)limit;
    }
    rx_scan *scan;
    int rc = rx_scan_open(r->index, start ? start->at : NULL, start ? start->size : 0, stop ? stop->at : NULL,
                          stop ? stop->size : 0, reverse, limit, &scan);
    fuzz_expect(RX_OK, rc, "scan_open");
    scan_compare(r, scan, low, high, reverse);
    rx_scan_close(scan);
}

static void op_scan(struct run *r)
{
    struct bytes start = make_key(r), stop = make_key(r);
    uint64_t dice = fuzz_next(&r->rng);
    int64_t limit = dice & 4 ? -1 : (int64_t)fuzz_below(&r->rng, 50);
    scan_range(r, dice & 3 ? &start : NULL, dice & 24 ? &stop : NULL, (dice & 32) != 0, limit);
    free(start.at);
    free(stop.at);
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
    fuzz_item_read(r->buffer, 0, &item);
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
    scan_range(r, NULL, NULL, 0, -1);
    scan_range(r, NULL, NULL, 1, -1);
    fuzz_check(r->index);
}

static void run_open(struct run *r)
{
    fuzz_expect(RX_OK, rx_open(&r->options, &r->index), "open");
    if (fuzz_below(&r->rng, 2))
        fuzz_expect(RX_OK, rx_thread_open(r->index, 3, &r->writer), "thread_open");
}

static void run_close(struct run *r)
{
    rx_thread_close(r->index, r->writer);
    r->writer = NULL;
    fuzz_expect(RX_OK, rx_close(r->index), "close");
    rx_free(r->index);
}

/* Seldom: another session, or a copy and rename. */
static void op_rare(struct run *r)
{
    if (fuzz_below(&r->rng, 2)) {
        run_close(r);
        run_open(r);
    } else {
        int rc;
        RETRY(rc, rx_compact(r->index, WAIT_NS));
        fuzz_expect(RX_OK, rc, "compact");
    }
}

static void op_many(struct run *r)
{
    static void (*const ops[])(struct run *, struct many *) = {op_put_many, op_get_many, op_remove_many};
    struct many m;
    many_make(r, &m);
    ops[fuzz_below(&r->rng, 3)](r, &m);
    many_free(&m);
}

static void step(struct run *r)
{
    static void (*const ops[])(struct run *, struct bytes) = {op_get,  op_put,  op_put,    op_put,
                                                              op_insert, op_take, op_remove, op_compare_and_set,
                                                              op_edge};
    uint64_t dice = fuzz_below(&r->rng, 2000);
    if (dice < 3) {
        op_rare(r);
    } else if (dice < 60) {
        op_scan(r);
    } else if (dice < 140) {
        op_many(r);
    } else {
        struct bytes key = make_key(r);
        int crowded = r->model.count > KEEP_MAX || (r->step / 4000) % 4 == 3; /* phases in which it shrinks */
        (crowded && fuzz_below(&r->rng, 2) ? op_remove : ops[fuzz_below(&r->rng, sizeof ops / sizeof *ops)])(r, key);
        free(key.at);
    }
}

static void run_shape(enum shape shape, const struct fuzz_args *args)
{
    struct run r = {.rng = args->seed ^ (uint64_t)shape << 56, .shape = shape};
    fuzz_files_name(r.path, sizeof r.path, args->folder, "fuzz_ops");
    fuzz_files_remove(r.path);
    r.options = (struct rx_options){.path = r.path, .mode = 'c', .checksum = (int)fuzz_below(&r.rng, 3) - 1,
                                    .fences = (int)fuzz_below(&r.rng, 3) - 1, .umask_mode = 0600,
                                    .max_size = UINT64_MAX};
    if (fuzz_below(&r.rng, 2)) /* so small that it has to be copied again and again */
        r.options.capacity = r.options.initial_size = 1 << 20;
    answer_room(&r, 512);
    run_open(&r);
    r.options.capacity = r.options.initial_size = 0;
    r.options.checksum = -1;
    uint64_t interval = args->count / 8 + 1 < 5000 ? args->count / 8 + 1 : 5000;
    for (r.step = 0; r.step < args->count; r.step++) {
        step(&r);
        if (r.step % interval == interval - 1)
            compare_all(&r);
    }
    compare_all(&r);
    run_close(&r);
    run_open(&r);
    compare_all(&r);
    printf("%s: %llu operations, %zu keys at the end\n", shape_names[shape], (unsigned long long)args->count,
           r.model.count);
    run_close(&r);
    while (r.model.count)
        model_remove(&r.model, r.model.count - 1);
    free(r.model.pairs);
    free(r.buffer);
    fuzz_files_remove(r.path);
}

int main(int argc, char **argv)
{
    struct fuzz_args args = {.seed = fuzz_random_seed(), .count = 20000};
    int known = 0;
    fuzz_parse(argc, argv, &args);
    setvbuf(stdout, NULL, _IOLBF, 0);
    for (int shape = 0; shape < SHAPES; shape++) {
        if (args.shape && strcmp(args.shape, shape_names[shape]) != 0)
            continue;
        known = 1;
        snprintf(fuzz_repeat, sizeof fuzz_repeat, "fuzz_ops --seed %llu --count %llu --shape %s",
                 (unsigned long long)args.seed, (unsigned long long)args.count, shape_names[shape]);
        printf("%s\n", fuzz_repeat);
        run_shape((enum shape)shape, &args);
    }
    if (!known)
        fprintf(stderr, "no such shape: %s\n", args.shape);
    return known ? 0 : 2;
}
