/*
 * fuzz_threads.c -- threads that read, write, scan, compact and open the same index, with
 * values that tell by themselves whether they are right.
 *
 *   fuzz_threads [--seed N] [--threads N] [--seconds N] [--count N] [--keys N] [--folder DIR]
 *
 * `seconds` for each round (`count` operations of each thread at most, 0: no limit); without
 * --keys a round with few keys and one with many.  By number, modulo 4, a key is
 *   0  stable: always there, overwritten by everybody; no get and no scan may miss it
 *   1  owned: written by one thread, which knows what it must find; its versions only rise,
 *      for every reader
 *   2, 3  anybody's
 * Beside them are counters, raised by compare-and-set: no increment may be lost. */
#include <pthread.h>
#include "fuzz.h"

#define VALUE_HEAD 24u
#define VALUE_MAX 4096u
#define KEY_MAX 400u
#define COUNTERS 3u
#define THREADS_MAX 64u
#define NEIGHBOURS 16u
#define WAIT_NS 1000000000
#define RETRY(rc, call) do (rc) = (call); while ((rc) == RX_WOULD_WAIT)

struct key { uint32_t size; uint8_t at[KEY_MAX]; };
struct value { uint64_t number, stamp, size; uint8_t bytes[VALUE_MAX]; };

struct round {
    const struct fuzz_args *args;
    uint64_t keys;
    char path[400];
    rx_index *index;
    pthread_barrier_t start;
    double end_s;
    uint64_t added[THREADS_MAX][COUNTERS];
    uint64_t *owned; /* version of each owned key, 0 absent; its owner's alone */
};

struct worker {
    struct round *round;
    uint64_t id, rng, done, version, stable; /* stable: reads of keys that are always there */
    rx_index *index; /* the shared handle, or one of its own */
    rx_thread *given;
    uint64_t *seen; /* highest version of each owned key that this thread met */
    uint8_t *buffer;
    size_t buffer_size;
};

/* ---- keys and values ------------------------------------------------------------------ */

/* Number in front or at the end, or after a long prefix: all read back by key_number(). */
static void key_make(uint64_t number, struct key *key)
{
    uint8_t *at = key->at;
    if (number / 4 % 3 == 1) {
        memset(at, 'x', 300);
        at += 300;
    } else if (number / 4 % 3 == 2) {
        *at++ = (uint8_t)(number * 37);
        *at++ = 0;
    }
    for (int shift = 24; shift >= 0; shift -= 8)
        *at++ = (uint8_t)(number >> shift);
    key->size = (uint32_t)(at - key->at);
}

static uint64_t key_number(const uint8_t *at, size_t size)
{
    if (size < 4)
        fuzz_fail("a key of %zu bytes that nobody put", size);
    at += size - 4;
    return (uint64_t)at[0] << 24 | (uint64_t)at[1] << 16 | (uint64_t)at[2] << 8 | at[3];
}

static size_t value_make(uint64_t number, uint64_t stamp, struct value *value)
{
    uint64_t state = stamp * 31 + number;
    uint64_t dice = fuzz_next(&state);
    size_t size = dice % 97 == 0 ? 1000 + dice / 97 % 3000 : dice / 97 % 120;
    value->number = number;
    value->stamp = stamp;
    value->size = size;
    fuzz_bytes(&state, value->bytes, size);
    return VALUE_HEAD + size;
}

static void value_check(uint64_t number, const uint8_t *at, size_t size, const char *what)
{
    struct value head, expected;
    memcpy(&head, at, size < VALUE_HEAD ? size : VALUE_HEAD);
    if (size < VALUE_HEAD || head.number != number)
        fuzz_fail("%s of key %llu: the value is another's, or cut", what, (unsigned long long)number);
    size_t due = value_make(number, head.stamp, &expected);
    if (due != size || memcmp(&expected, at, due) != 0)
        fuzz_fail("%s of key %llu: the value is torn", what, (unsigned long long)number);
}

static int is_owner(const struct worker *w, uint64_t number)
{
    return number % 4 == 1 && number / 4 % w->round->args->threads == w->id;
}

/* What every read of `number` must fulfil. */
static void met(struct worker *w, uint64_t number, const uint8_t *at, size_t size, const char *what)
{
    value_check(number, at, size, what);
    if (number % 4 != 1)
        return;
    uint64_t stamp;
    memcpy(&stamp, at + 8, 8);
    if (stamp < w->seen[number])
        fuzz_fail("%s of key %llu: version %llu after %llu was seen", what, (unsigned long long)number,
                  (unsigned long long)stamp, (unsigned long long)w->seen[number]);
    w->seen[number] = stamp;
}

/* ---- what a thread does ------------------------------------------------------------------ */

static uint64_t any_key(struct worker *w) { return fuzz_below(&w->rng, w->round->keys); }

static void do_get(struct worker *w)
{
    uint64_t number = any_key(w);
    struct key key;
    key_make(number, &key);
    size_t size = 0;
    int rc = rx_get(w->index, w->given, key.at, key.size, w->buffer, w->buffer_size, &size);
    w->stable += number % 4 == 0;
    if (rc == RX_ABSENT && number % 4 == 0)
        fuzz_fail("get missed the stable key %llu", (unsigned long long)number);
    if (rc == RX_OK)
        met(w, number, w->buffer, size, "get");
    else
        fuzz_expect(RX_ABSENT, rc, "get");
    if (!is_owner(w, number))
        return;
    uint64_t version = 0;
    if (rc == RX_OK)
        memcpy(&version, w->buffer + 8, 8);
    if (version != w->round->owned[number])
        fuzz_fail("the owner of key %llu wrote version %llu and reads %llu", (unsigned long long)number,
                  (unsigned long long)w->round->owned[number], (unsigned long long)version);
}

/* A key that this thread may change, also take away: owned by it, or anybody's. */
static uint64_t my_key(struct worker *w, struct key *key)
{
    uint64_t number = any_key(w);
    while (number % 4 == 1 && !is_owner(w, number))
        number = any_key(w);
    key_make(number, key);
    return number;
}

static void do_put(struct worker *w)
{
    struct key key;
    struct value value;
    int rc;
    uint64_t number = my_key(w, &key), stamp = ++w->version << 8 | w->id;
    size_t size = value_make(number, stamp, &value);
    if (fuzz_below(&w->rng, 5) == 0) {
        RETRY(rc, rx_insert(w->index, w->given, key.at, key.size, &value, size, WAIT_NS, NULL));
        if (rc == RX_PRESENT && (!is_owner(w, number) || w->round->owned[number]))
            return;
    } else {
        RETRY(rc, rx_put(w->index, w->given, key.at, key.size, &value, size, WAIT_NS, NULL));
    }
    fuzz_expect(RX_OK, rc, "put");
    if (is_owner(w, number))
        w->round->owned[number] = stamp;
}

/* Neighbours in order: they share their descent, while others change the nodes on it. */
static void do_put_many(struct worker *w)
{
    struct key key[NEIGHBOURS];
    struct value value[NEIGHBOURS];
    const void *keys[NEIGHBOURS], *values[NEIGHBOURS];
    size_t key_len[NEIGHBOURS], value_len[NEIGHBOURS], n = 0, done = 0, now;
    for (uint64_t number = any_key(w); n < NEIGHBOURS && number < w->round->keys; number += 12) { /* of one shape */
        if (number % 4 == 1 && !is_owner(w, number))
            continue;
        key_make(number, &key[n]);
        keys[n] = key[n].at;
        key_len[n] = key[n].size;
        values[n] = &value[n];
        value_len[n] = value_make(number, ++w->version << 8 | w->id, &value[n]);
        n++;
    }
    for (int rc = RX_WOULD_WAIT; rc == RX_WOULD_WAIT; done += now) {
        rc = rx_put_many(w->index, w->given, n - done, keys + done, key_len + done, values + done, value_len + done,
                         WAIT_NS, &now, NULL);
        if (rc != RX_WOULD_WAIT)
            fuzz_expect(RX_OK, rc, "put_many");
    }
    for (size_t i = 0; i < done; i++)
        if (is_owner(w, value[i].number))
            w->round->owned[value[i].number] = value[i].stamp;
}

static void do_remove(struct worker *w)
{
    struct key key;
    uint64_t number = my_key(w, &key);
    int rc;
    size_t size = 0;
    if (number % 4 == 0)
        return;
    if (fuzz_below(&w->rng, 4) == 0) {
        RETRY(rc, rx_take(w->index, w->given, key.at, key.size, w->buffer, w->buffer_size, &size, WAIT_NS, NULL));
        if (rc == RX_OK)
            met(w, number, w->buffer, size, "take");
    } else {
        RETRY(rc, rx_remove(w->index, w->given, key.at, key.size, WAIT_NS, NULL));
    }
    if (rc != RX_OK && rc != RX_ABSENT)
        fuzz_expect(RX_OK, rc, "remove");
    if (!is_owner(w, number))
        return;
    fuzz_expect(w->round->owned[number] ? RX_OK : RX_ABSENT, rc, "remove by the owner");
    w->round->owned[number] = 0;
}

static void do_count_up(struct worker *w)
{
    uint8_t key[1] = {(uint8_t)(200 + fuzz_below(&w->rng, COUNTERS))};
    uint64_t before = 0, after;
    size_t size = 0;
    int rc = rx_get(w->index, w->given, key, 1, &before, 8, &size);
    fuzz_expect(RX_OK, rc, "get of a counter");
    after = before + 1;
    RETRY(rc, rx_compare_and_set(w->index, w->given, key, 1, &before, 8, &after, 8, WAIT_NS, NULL));
    if (rc == RX_OK)
        w->round->added[w->id][key[0] - 200]++;
    else
        fuzz_expect(RX_MISMATCH, rc, "compare_and_set");
}

static int key_order(const uint8_t *a, size_t a_size, const uint8_t *b, size_t b_size)
{
    int order = memcmp(a, b, a_size < b_size ? a_size : b_size);
    return order ? order : (a_size > b_size) - (a_size < b_size);
}

/* One batch: in order, each value right; counts the stable keys. */
static void scan_batch(struct worker *w, size_t items, int reverse, struct key *last, uint64_t *stable)
{
    size_t at = 0;
    for (; items; items--) {
        struct fuzz_item item;
        at = fuzz_item_read(w->buffer, at, 1, &item);
        int order = last->size == UINT32_MAX ? 1 : key_order(item.key, item.key_len, last->at, last->size);
        if (last->size != UINT32_MAX && (reverse ? order >= 0 : order <= 0))
            fuzz_fail("a %s scan out of order", reverse ? "reverse" : "forward");
        if (item.key_len > KEY_MAX)
            fuzz_fail("a key of %llu bytes that nobody put", (unsigned long long)item.key_len);
        last->size = (uint32_t)item.key_len;
        memcpy(last->at, item.key, item.key_len);
        if (item.key_len == 1)
            continue; /* a counter */
        uint64_t number = key_number(item.key, item.key_len);
        if (number >= w->round->keys)
            fuzz_fail("a scan yielded key %llu, which nobody put", (unsigned long long)number);
        met(w, number, item.value, item.value_len, "scan");
        *stable += number % 4 == 0;
    }
}

static void do_scan(struct worker *w)
{
    int reverse = (int)fuzz_below(&w->rng, 2);
    size_t most = 1 + fuzz_below(&w->rng, 2000), room = w->buffer_size;
    struct key last = {.size = UINT32_MAX};
    uint64_t stable = 0;
    rx_scan *scan;
    fuzz_expect(RX_OK, rx_scan_open(w->index, NULL, 0, NULL, 0, reverse, -1, &scan), "scan_open");
    for (;;) {
        size_t items = 0, need = 0;
        int rc = rx_scan_next(w->index, w->given, scan, w->buffer, room, most, 1, &items, &need);
        if (rc == RX_END)
            break;
        fuzz_expect(RX_OK, rc, "scan_next");
        scan_batch(w, items, reverse, &last, &stable);
    }
    rx_scan_close(scan);
    if (stable != (w->round->keys + 3) / 4)
        fuzz_fail("a %s scan met %llu of %llu stable keys", reverse ? "reverse" : "forward",
                  (unsigned long long)stable, (unsigned long long)(w->round->keys + 3) / 4);
}

static void do_get_many(struct worker *w)
{
    enum { N = 24 };
    struct key key[N];
    const void *keys[N];
    size_t sizes[N], done = 0, need = 0;
    uint64_t number[N], value_len[N];
    for (size_t i = 0; i < N; i++) {
        number[i] = any_key(w);
        key_make(number[i], &key[i]);
        keys[i] = key[i].at;
        sizes[i] = key[i].size;
    }
    int rc = rx_get_many(w->index, w->given, N, keys, sizes, w->buffer, w->buffer_size, value_len, &done, &need);
    fuzz_expect(RX_OK, rc, "get_many");
    const uint8_t *at = w->buffer;
    for (size_t i = 0; i < N; i++) {
        if (value_len[i] != UINT64_MAX) {
            met(w, number[i], at, value_len[i], "get_many");
            at += value_len[i];
        } else if (number[i] % 4 == 0) {
            fuzz_fail("get_many missed the stable key %llu", (unsigned long long)number[i]);
        }
    }
}

/* Another handle, another uid, a copy, a check: what happens now and then. */
static void do_rare(struct worker *w)
{
    int rc;
    uint64_t dice = fuzz_below(&w->rng, 6), count;
    struct rx_options options = {.path = w->round->path, .mode = 'w', .checksum = -1, .fences = -1,
                                 .max_size = UINT64_MAX, .umask_mode = 0600};
    rx_thread_close(w->index, w->given);
    w->given = NULL;
    if (dice == 0 && w->index == w->round->index) {
        fuzz_expect(RX_OK, rx_open(&options, &w->index), "open");
    } else if (dice == 0) {
        fuzz_expect(RX_OK, rx_close(w->index), "close");
        rx_free(w->index);
        w->index = w->round->index;
    } else if (dice < 3) {
        fuzz_expect(RX_OK, rx_thread_open(w->index, 3, &w->given), "thread_open");
    } else if (dice == 3) {
        RETRY(rc, rx_compact(w->index, WAIT_NS));
        fuzz_expect(RX_OK, rc, "compact");
    } else if (dice == 4) {
        fuzz_check(w->index);
    } else {
        fuzz_expect(RX_OK, rx_count(w->index, &count), "count");
        if (count > w->round->keys + COUNTERS)
            fuzz_fail("%llu keys are too many", (unsigned long long)count);
    }
}

static void *work(void *argument)
{
    struct worker *w = argument;
    uint64_t limit = w->round->args->count;
    pthread_barrier_wait(&w->round->start);
    for (; (limit == 0 || w->done < limit) && (w->done % 64 || fuzz_now_s() < w->round->end_s); w->done++) {
        uint64_t dice = fuzz_below(&w->rng, 4000);
        if (dice == 0)
            do_rare(w);
        else if (dice < 8 || (w->round->keys < 100 && dice < 200))
            do_scan(w);
        else if (dice < 300)
            do_get_many(w);
        else if (dice < 500)
            do_count_up(w);
        else if (dice < 600)
            do_put_many(w);
        else if (dice < 1800)
            do_get(w);
        else if (dice < 3000)
            do_put(w);
        else
            do_remove(w);
    }
    rx_thread_close(w->index, w->given);
    if (w->index != w->round->index) {
        fuzz_expect(RX_OK, rx_close(w->index), "close");
        rx_free(w->index);
    }
    return NULL;
}

/* ---- rounds -------------------------------------------------------------------------------- */

static void round_fill(struct round *r)
{
    struct key key;
    struct value value;
    int rc;
    for (uint64_t number = 0; number < r->keys; number += 4) {
        key_make(number, &key);
        RETRY(rc, rx_put(r->index, NULL, key.at, key.size, &value, value_make(number, 1, &value), WAIT_NS, NULL));
        fuzz_expect(RX_OK, rc, "put");
    }
    for (uint8_t counter = 200; counter < 200 + COUNTERS; counter++) {
        uint64_t zero = 0;
        RETRY(rc, rx_put(r->index, NULL, &counter, 1, &zero, 8, WAIT_NS, NULL));
        fuzz_expect(RX_OK, rc, "put");
    }
}

/* Everything at rest: counters, owned keys, structure; again after closing and opening. */
static void round_verify(struct round *r)
{
    for (uint8_t c = 0; c < COUNTERS; c++) {
        uint8_t key = (uint8_t)(200 + c);
        uint64_t value = 0, expected = 0;
        size_t size;
        for (uint64_t id = 0; id < r->args->threads; id++)
            expected += r->added[id][c];
        fuzz_expect(RX_OK, rx_get(r->index, NULL, &key, 1, &value, 8, &size), "get of a counter");
        if (value != expected)
            fuzz_fail("counter %u is %llu after %llu increments", c, (unsigned long long)value,
                      (unsigned long long)expected);
    }
    for (uint64_t number = 1; number < r->keys; number += 4) {
        struct key key;
        struct value value;
        size_t size;
        key_make(number, &key);
        int rc = rx_get(r->index, NULL, key.at, key.size, &value, sizeof value, &size);
        fuzz_expect(r->owned[number] ? RX_OK : RX_ABSENT, rc, "owned key at the end");
        if (rc == RX_OK && value.stamp != r->owned[number])
            fuzz_fail("owned key %llu lost its last version", (unsigned long long)number);
    }
    fuzz_check(r->index);
}

static uint64_t round_threads(struct round *r, unsigned long long *stable)
{
    struct worker workers[THREADS_MAX] = {0};
    pthread_t threads[THREADS_MAX];
    uint64_t operations = *stable = 0;
    r->end_s = fuzz_now_s() + (double)r->args->seconds;
    pthread_barrier_init(&r->start, NULL, (unsigned)r->args->threads);
    for (uint64_t id = 0; id < r->args->threads; id++) {
        struct worker *w = &workers[id];
        *w = (struct worker){.round = r, .id = id, .rng = r->args->seed * 1000 + id, .index = r->index,
                             .buffer_size = 64 * VALUE_MAX};
        w->version = 1;
        w->seen = calloc(r->keys, sizeof *w->seen);
        w->buffer = fuzz_alloc(w->buffer_size);
        if (w->seen == NULL || pthread_create(&threads[id], NULL, work, w) != 0)
            fuzz_fail("no thread");
    }
    for (uint64_t id = 0; id < r->args->threads; id++) {
        pthread_join(threads[id], NULL);
        operations += workers[id].done;
        *stable += workers[id].stable;
        free(workers[id].seen);
        free(workers[id].buffer);
    }
    pthread_barrier_destroy(&r->start);
    return operations;
}

static void run_round(const struct fuzz_args *args, uint64_t keys)
{
    struct round *r = calloc(1, sizeof *r);
    if (r == NULL || (r->owned = calloc(keys, sizeof *r->owned)) == NULL)
        fuzz_fail("out of memory");
    r->args = args;
    r->keys = keys;
    fuzz_files_name(r->path, sizeof r->path, args->folder, "fuzz_threads");
    fuzz_files_remove(r->path);
    struct rx_options options = {.path = r->path, .mode = 'c', .checksum = -1, .fences = -1, .umask_mode = 0600,
                                 .capacity = keys > 1000 ? 4 << 20 : 0, .max_size = UINT64_MAX};
    fuzz_expect(RX_OK, rx_open(&options, &r->index), "open");
    round_fill(r);
    unsigned long long stable, operations = round_threads(r, &stable);
    round_verify(r);
    fuzz_expect(RX_OK, rx_close(r->index), "close");
    rx_free(r->index);
    options.capacity = 0;
    fuzz_expect(RX_OK, rx_open(&options, &r->index), "open again");
    round_verify(r);
    fuzz_expect(RX_OK, rx_close(r->index), "close");
    rx_free(r->index);
    fuzz_files_remove(r->path);
    printf("%llu keys: %llu operations; no stable key missed in %llu reads\n", (unsigned long long)keys, operations, stable);
    free(r->owned);
    free(r);
}

int main(int argc, char **argv)
{
    struct fuzz_args args = {.seed = fuzz_random_seed(), .threads = 4, .seconds = 3};
    fuzz_parse(argc, argv, &args);
    if (args.threads == 0 || args.threads > THREADS_MAX) {
        fprintf(stderr, "1 to %u threads\n", THREADS_MAX);
        return 2;
    }
    setvbuf(stdout, NULL, _IOLBF, 0);
    uint64_t rounds[2] = {args.keys ? args.keys : 12, args.keys ? 0 : 20000};
    for (int i = 0; i < 2 && rounds[i]; i++) {
        snprintf(fuzz_repeat, sizeof fuzz_repeat, "fuzz_threads --seed %llu --threads %llu --seconds %llu --keys %llu",
                 (unsigned long long)args.seed, (unsigned long long)args.threads, (unsigned long long)args.seconds,
                 (unsigned long long)rounds[i]);
        printf("%s\n", fuzz_repeat);
        run_round(&args, rounds[i]);
    }
    return 0;
}
