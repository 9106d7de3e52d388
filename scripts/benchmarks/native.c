/*
 * native.c -- the core driven from C through its public header: random 8-byte keys with
 * 8-byte values, in a file that begins at the default size, growth included.
 *
 *     native measure FILE COUNT    fills a new file, measures, closes; one JSON object
 *     native changes FILE COUNT    fills a new file by batches, then replaces and removes some of its keys
 *     native die FILE COUNT        fills a new file and kills itself with SIGKILL
 *     native open FILE             opens and gets the first key; one JSON object
 *     native sorted FILE COUNT     builds an index of sorted integers; puts them into an empty one
 *     native memory                what this machine takes for a load that no cache holds, of pages as a file's are
 *
 * Keys are the first COUNT outputs of one generator, which never gives one twice, so that
 * every command knows them; absent keys come after those.  They are laid out in the order
 * of use before the clock starts: what is timed is the index, not the choice of a key.
 */
#define _GNU_SOURCE
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>
#include "../../rowex/native/errors.h"
#include "../../rowex/native/index.h"

#define WAIT_NS 1000000000ll
#define SEED 88172645463325252ull
#define ROUNDS 3
#define BATCH 32
#define LINES (8u << 20) /* 512 MiB */
#define LOADS (2u << 20)

static uint64_t next_random(uint64_t *state) /* xorshift64: all numbers but 0, each once */
{
    *state ^= *state << 13;
    *state ^= *state >> 7;
    return *state ^= *state << 17;
}

static double now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec * 1e9 + (double)t.tv_nsec;
}

static void must(int rc, const char *what)
{
    if (rc == RX_OK)
        return;
    fprintf(stderr, "native: %s: %s: %s\n", what, rx_result_name(rc), rx_error_text());
    exit(1);
}

static void must_be(int right, const char *what)
{
    if (right)
        return;
    fprintf(stderr, "native: %s\n", what);
    exit(1);
}

static rx_index *open_index(const char *path, int mode)
{
    struct rx_options o = {.path = path, .mode = mode, .durability = mode == 'n', .checksum = -1, .max_size = UINT64_MAX, .fences = -1,
                           .umask_mode = 0666};
    rx_index *h;
    must(rx_open(&o, &h), "open");
    return h;
}

static void close_index(rx_index *h)
{
    must(rx_close(h), "close");
    rx_free(h);
}

static double blocks_of(const char *path)
{
    struct stat st;
    return stat(path, &st) == 0 ? (double)st.st_blocks * 512 : 0;
}

static double disk_bytes(const char *path)
{
    char lock[4096];
    snprintf(lock, sizeof lock, "%s-lock", path);
    return blocks_of(path) + blocks_of(lock);
}

static uint64_t *make_keys(uint64_t *state, size_t n)
{
    uint64_t *keys = malloc((n ? n : 1) * sizeof *keys);
    must_be(keys != NULL, "out of memory");
    for (size_t i = 0; i < n; i++)
        keys[i] = next_random(state);
    return keys;
}

static void shuffle(uint64_t *keys, size_t n, uint64_t *state)
{
    for (size_t i = n; i > 1; i--) {
        size_t other = next_random(state) % i;
        uint64_t key = keys[i - 1];
        keys[i - 1] = keys[other];
        keys[other] = key;
    }
}

static double median(double *times)
{
    for (int i = 1; i < ROUNDS; i++)
        for (int j = i; j > 0 && times[j] < times[j - 1]; j--) {
            double t = times[j];
            times[j] = times[j - 1];
            times[j - 1] = t;
        }
    return times[ROUNDS / 2];
}

static double insert_some(rx_index *h, const uint64_t *keys, size_t begin, size_t end)
{
    double start = now_ns();
    for (uint64_t i = begin; i < end; i++)
        must(rx_insert(h, NULL, &keys[i], 8, &i, 8, WAIT_NS, NULL), "insert");
    return now_ns() - start;
}

static double get_each(rx_index *h, const uint64_t *keys, size_t n, int expected)
{
    uint64_t value;
    size_t length, right = 0;
    double start = now_ns();
    for (size_t i = 0; i < n; i++)
        right += rx_get(h, NULL, &keys[i], 8, &value, 8, &length) == expected;
    double spent = now_ns() - start;
    must_be(right == n, "a lookup gave the wrong answer");
    return spent;
}

static double get_hot(rx_index *h, uint64_t key, size_t n)
{
    uint64_t value;
    size_t length, right = 0;
    double start = now_ns();
    for (size_t i = 0; i < n; i++)
        right += rx_get(h, NULL, &key, 8, &value, 8, &length) == RX_OK;
    double spent = now_ns() - start;
    must_be(right == n, "the hot key was not found");
    return spent;
}

static double get_batches(rx_index *h, const uint64_t *keys, size_t n)
{
    const void *pointers[BATCH];
    size_t lengths[BATCH], done, need, begin = 0;
    uint64_t values[BATCH], value_len[BATCH];
    double start = now_ns();
    for (; begin < n; begin += done) {
        size_t room = n - begin < BATCH ? n - begin : BATCH;
        for (size_t k = 0; k < room; k++) {
            pointers[k] = &keys[begin + k];
            lengths[k] = 8;
        }
        must(rx_get_many(h, NULL, room, pointers, lengths, values, sizeof values, value_len, &done, &need), "get_many");
    }
    return now_ns() - start;
}

static double scan_all(rx_index *h, size_t expected)
{
    static char buffer[1 << 16];
    rx_scan *scan;
    size_t items, need, total = 0;
    double start = now_ns();
    must(rx_scan_open(h, NULL, 0, NULL, 0, 0, -1, &scan), "scan");
    while (rx_scan_next(h, NULL, scan, buffer, sizeof buffer, SIZE_MAX, 1, &items, &need) == RX_OK)
        total += items;
    double spent = now_ns() - start;
    rx_scan_close(scan);
    must_be(total == expected, "the scan missed keys");
    return spent;
}

static void figure(const char *name, double value)
{
    printf(", \"%s\": %.2f", name, value);
}

/* New keys in batches, into the full index: as many again as a tenth of it. */
static double put_batches(rx_index *h, const uint64_t *keys, size_t n)
{
    const void *pointers[BATCH], *values[BATCH];
    size_t lengths[BATCH], done, begin = 0;
    double start = now_ns();
    for (; begin < n; begin += done) {
        size_t room = n - begin < BATCH ? n - begin : BATCH;
        for (size_t k = 0; k < room; k++) {
            pointers[k] = values[k] = &keys[begin + k];
            lengths[k] = 8;
        }
        must(rx_put_many(h, NULL, room, pointers, lengths, values, lengths, WAIT_NS, &done, NULL), "put_many");
    }
    return now_ns() - start;
}

static double remove_each(rx_index *h, const uint64_t *keys, size_t n)
{
    double start = now_ns();
    for (size_t i = 0; i < n; i++)
        must(rx_remove(h, NULL, &keys[i], 8, WAIT_NS, NULL), "remove");
    return now_ns() - start;
}

/* Time and file size at 1/2, 3/4 and all of the keys: a file grows by steps, so its ends flatter it. */
static void measure_insert(rx_index *h, const char *path, const uint64_t *keys, size_t n)
{
    static const char *const names[3] = {"disk_bytes_per_key_at_half", "disk_bytes_per_key_at_three_quarters",
                                         "disk_bytes_per_key_at_all"};
    size_t ends[3] = {n / 2, n / 4 * 3, n}, done = 0;
    double spent = 0, worst = 0;
    for (int i = 0; i < 3; i++) {
        spent += insert_some(h, keys, done, ends[i]);
        done = ends[i];
        double size = disk_bytes(path) / (double)done;
        worst = size > worst ? size : worst;
        figure(names[i], size);
    }
    figure("disk_bytes_per_key_worst", worst);
    figure("insert_ns", spent / (double)n);
}

static void measure_reads(rx_index *h, const uint64_t *hits, const uint64_t *misses, size_t n)
{
    double hit[ROUNDS], miss[ROUNDS], hot[ROUNDS], many[ROUNDS], scan[ROUNDS], each = 1.0 / (double)n;
    for (int i = 0; i < ROUNDS; i++) {
        hit[i] = get_each(h, hits, n, RX_OK);
        miss[i] = get_each(h, misses, n, RX_ABSENT);
        hot[i] = get_hot(h, hits[i], n);
        many[i] = get_batches(h, hits, n);
        scan[i] = scan_all(h, n);
    }
    figure("lookup_hit_ns", median(hit) * each);
    figure("lookup_miss_ns", median(miss) * each);
    figure("lookup_hot_key_ns", median(hot) * each);
    figure("get_many_32_ns", median(many) * each);
    figure("scan_ns", median(scan) * each);
}

static void measure_compacted(rx_index *h, const char *path, const uint64_t *hits, size_t n)
{
    double scan[ROUNDS], hit[ROUNDS], start = now_ns();
    must(rx_compact(h, WAIT_NS), "compact");
    figure("compact_ms", (now_ns() - start) * 1e-6);
    for (int i = 0; i < ROUNDS; i++) {
        hit[i] = get_each(h, hits, n, RX_OK);
        scan[i] = scan_all(h, n);
    }
    figure("compacted_lookup_hit_ns", median(hit) / (double)n);
    figure("compacted_scan_ns", median(scan) / (double)n);
    figure("compacted_disk_bytes_per_key", disk_bytes(path) / (double)n);
}

/* A new index, filled by batches in random order; then some of its keys anew, and removed. */
static void measure_changes(const char *path, size_t n)
{
    uint64_t state = SEED, *keys = make_keys(&state, n);
    size_t some = n / 10 + 1;
    rx_index *h = open_index(path, 'n');
    printf("{\"changed_keys\": %zu", n);
    figure("put_many_32_ns", put_batches(h, keys, n) / (double)n);
    shuffle(keys, n, &state);
    figure("replace_many_32_ns", put_batches(h, keys, some) / (double)some);
    figure("remove_ns", remove_each(h, keys, some) / (double)some);
    close_index(h);
    printf("}\n");
    free(keys);
}

static void measure(const char *path, size_t n)
{
    uint64_t state = SEED, *keys = make_keys(&state, n), *misses = make_keys(&state, n);
    rx_index *h = open_index(path, 'n');
    printf("{\"keys\": %zu", n);
    measure_insert(h, path, keys, n);
    shuffle(keys, n, &state);
    measure_reads(h, keys, misses, n);
    measure_compacted(h, path, keys, n);
    figure("compacted_put_many_32_ns", put_batches(h, misses, n / 10 + 1) / (double)(n / 10 + 1));
    close_index(h);
    printf("}\n");
    free(keys);
    free(misses);
}

static int ascending(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return (x > y) - (x < y);
}

static double build(const struct rx_options *o, const struct rx_column *column, size_t n)
{
    rx_building *b;
    size_t done;
    double start = now_ns();
    must(rx_building_open(o, &b), "building");
    must(rx_building_add(b, column, column, 0, n, &done), "building");
    must(rx_building_finish(b), "building");
    double spent = now_ns() - start;
    rx_building_close(b);
    must_be(done == n, "the builder stopped early");
    return spent;
}

static double put_column(rx_index *h, const struct rx_column *column, size_t n)
{
    size_t done;
    double start = now_ns();
    must(rx_put_columns(h, NULL, column, column, 0, n, 0, 1, WAIT_NS, &done, NULL), "put_columns");
    return now_ns() - start;
}

struct line { uint64_t next, pad[7]; };

/* Every line names the next of one circle through all of them, in random order (Sattolo). */
static struct line *make_circle(void)
{
    struct line *lines = mmap(NULL, LINES * sizeof *lines, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    uint64_t state = SEED;
    must_be(lines != MAP_FAILED, "out of memory");
    (void)madvise(lines, LINES * sizeof *lines, MADV_NOHUGEPAGE); /* else its pages would not be as a file's */
    for (uint64_t i = 0; i < LINES; i++)
        lines[i].next = i;
    for (uint64_t i = LINES - 1; i > 0; i--) {
        uint64_t other = next_random(&state) % i, next = lines[i].next;
        lines[i].next = lines[other].next;
        lines[other].next = next;
    }
    return lines;
}

/* A load of each of so many chains in turn: those of one chain wait for each other. */
static double chase(const struct line *lines, unsigned chains)
{
    uint64_t at[BATCH], sum = 0;
    for (unsigned k = 0; k < chains; k++)
        at[k] = (uint64_t)k * (LINES / BATCH);
    double start = now_ns();
    for (uint64_t i = 0; i < LOADS / chains; i++)
        for (unsigned k = 0; k < chains; k++)
            at[k] = lines[at[k]].next;
    double spent = now_ns() - start;
    for (unsigned k = 0; k < chains; k++)
        sum += at[k];
    must_be(sum < (uint64_t)LINES * BATCH, "a load went astray"); /* and none may be left out */
    return spent / (double)(LOADS / chains * chains);
}

static void measure_memory(void)
{
    double one[ROUNDS], many[ROUNDS];
    struct line *lines = make_circle();
    for (int i = 0; i < ROUNDS; i++) {
        one[i] = chase(lines, 1);
        many[i] = chase(lines, BATCH);
    }
    printf("{\"memory_load_ns\": %.2f", median(one));
    figure("memory_load_32_ns", median(many));
    printf("}\n");
    (void)munmap(lines, LINES * sizeof *lines);
}

/* Integers in key order: built at once (synced, that is), and put into an index that is there. */
static void measure_sorted(const char *path, size_t n)
{
    uint64_t state = SEED, *keys = make_keys(&state, n);
    struct rx_options o = {.path = path, .mode = 'n', .durability = 1, .checksum = -1, .max_size = UINT64_MAX,
                           .fences = -1, .umask_mode = 0666};
    struct rx_column column = {.form = RX_F_UNSIGNED, .plain = 1, .width = 8, .data = keys};
    qsort(keys, n, sizeof *keys, ascending);
    printf("{\"sorted_keys\": %zu", n);
    figure("build_sorted_ns", build(&o, &column, n) / (double)n);
    figure("built_disk_bytes_per_key", disk_bytes(path) / (double)n);
    rx_index *h = open_index(path, 'n');
    figure("put_sorted_ns", put_column(h, &column, n) / (double)n);
    must_be(scan_all(h, n) > 0, "the clock stands still");
    close_index(h);
    printf("}\n");
    free(keys);
}

static void die(const char *path, size_t n)
{
    uint64_t state = SEED, *keys = make_keys(&state, n);
    insert_some(open_index(path, 'n'), keys, 0, n);
    kill(getpid(), SIGKILL);
}

static void open_and_get(const char *path)
{
    uint64_t state = SEED, key = next_random(&state), value = 1;
    size_t length;
    double start = now_ns();
    rx_index *h = open_index(path, 'c');
    must(rx_get(h, NULL, &key, 8, &value, 8, &length), "get");
    double spent = now_ns() - start;
    must_be(value == 0, "the first key has the wrong value");
    close_index(h);
    printf("{\"open_ms\": %.3f}\n", spent * 1e-6);
}

int main(int argc, char **argv)
{
    if (argc == 4 && strcmp(argv[1], "measure") == 0 && atoll(argv[3]) > 0)
        measure(argv[2], strtoull(argv[3], NULL, 10));
    else if (argc == 4 && strcmp(argv[1], "sorted") == 0)
        measure_sorted(argv[2], strtoull(argv[3], NULL, 10));
    else if (argc == 4 && strcmp(argv[1], "changes") == 0 && atoll(argv[3]) > 0)
        measure_changes(argv[2], strtoull(argv[3], NULL, 10));
    else if (argc == 4 && strcmp(argv[1], "die") == 0)
        die(argv[2], strtoull(argv[3], NULL, 10));
    else if (argc == 3 && strcmp(argv[1], "open") == 0)
        open_and_get(argv[2]);
    else if (argc == 2 && strcmp(argv[1], "memory") == 0)
        measure_memory();
    else {
        fprintf(stderr, "usage: native measure|sorted|changes FILE COUNT | die FILE COUNT | open FILE | memory\n");
        return 2;
    }
    return 0;
}
