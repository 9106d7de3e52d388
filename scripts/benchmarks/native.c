/*
 * native.c -- the core driven from C, through its public header: N random 8-byte keys with
 * 8-byte values into a file that begins at the default size, growth included.
 *
 *     native FILE COUNT        prints one JSON object; times in nanoseconds a key
 */
#define _GNU_SOURCE
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#include "../../rowex/native/index.h"

#define WAIT_NS 1000000000ll
static uint64_t state = 88172645463325252ull;

static uint64_t next_random(void) /* xorshift64 */
{
    state ^= state << 13;
    state ^= state >> 7;
    return state ^= state << 17;
}

static double now_s(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static void must(int rc, const char *what)
{
    if (rc == 0)
        return;
    fprintf(stderr, "%s: %s\n", what, rx_error_text());
    exit(1);
}

static rx_index *open_index(const char *path, int mode)
{
    struct rx_options o = {.path = path, .mode = mode, .checksum = -1, .max_size = UINT64_MAX, .fences = -1,
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

static double bytes_of(const char *path)
{
    struct stat st;
    char lock[4096];
    snprintf(lock, sizeof lock, "%s-lock", path);
    double bytes = stat(path, &st) == 0 ? (double)st.st_blocks * 512 : 0;
    return bytes + (stat(lock, &st) == 0 ? (double)st.st_blocks * 512 : 0);
}

/* Inserts keys; *worst is the largest number of bytes a key at 1/2, 3/4 and all of them. */
static double insert_all(rx_index *h, const char *path, const uint64_t *keys, size_t n, double *worst)
{
    double spent = 0;
    size_t steps[3] = {n / 2, n / 4 * 3, n}, done = 0;
    for (int s = 0; s < 3; s++) {
        double begin = now_s();
        for (; done < steps[s]; done++)
            must(rx_put(h, NULL, &keys[done], 8, &done, 8, WAIT_NS, NULL), "put");
        spent += now_s() - begin;
        double per_key = bytes_of(path) / (double)done;
        *worst = per_key > *worst ? per_key : *worst;
    }
    return spent;
}

static double get_random(rx_index *h, const uint64_t *keys, size_t n, int hit)
{
    uint64_t value;
    size_t length, found = 0;
    double begin = now_s();
    for (size_t i = 0; i < n; i++) {
        uint64_t key = hit ? keys[next_random() % n] : next_random();
        found += rx_get(h, NULL, &key, 8, &value, 8, &length) == 0;
    }
    double spent = now_s() - begin;
    if (hit && found != n)
        must(-1, "a key was not found");
    return spent;
}

static double get_hot(rx_index *h, uint64_t key, size_t n)
{
    uint64_t value;
    size_t length;
    double begin = now_s();
    for (size_t i = 0; i < n; i++)
        rx_get(h, NULL, &key, 8, &value, 8, &length);
    return now_s() - begin;
}

static double get_batches(rx_index *h, const uint64_t *keys, size_t n)
{
    const void *pointers[32];
    size_t lengths[32], done, need;
    uint64_t values[32], value_len[32];
    double begin = now_s();
    for (size_t i = 0; i + 32 <= n; i += 32) {
        for (int k = 0; k < 32; k++) {
            pointers[k] = &keys[next_random() % n];
            lengths[k] = 8;
        }
        must(rx_get_many(h, NULL, 32, pointers, lengths, values, sizeof values, value_len, &done, &need), "get_many");
    }
    return now_s() - begin;
}

static double scan_all(rx_index *h, size_t expected)
{
    static char buffer[1 << 16];
    rx_scan *scan;
    size_t items, need, total = 0;
    double begin = now_s();
    must(rx_scan_open(h, NULL, 0, NULL, 0, 0, -1, &scan), "scan");
    while (rx_scan_next(h, NULL, scan, buffer, sizeof buffer, 1 << 16, 1, &items, &need) == 0)
        total += items;
    double spent = now_s() - begin;
    rx_scan_close(scan);
    if (total != expected)
        must(-1, "the scan missed keys");
    return spent;
}

/* Milliseconds from open to the answer of the first get. */
static double open_and_get(const char *path, uint64_t key)
{
    uint64_t value;
    size_t length;
    double begin = now_s();
    rx_index *h = open_index(path, 'w');
    must(rx_get(h, NULL, &key, 8, &value, 8, &length), "get");
    double spent = now_s() - begin;
    close_index(h);
    return spent * 1e3;
}

/* Somebody writes and is killed: what the next opener finds. */
static void leave_dirty(const char *path, uint64_t key)
{
    pid_t child = fork();
    if (child == 0) {
        rx_index *h = open_index(path, 'w');
        must(rx_put(h, NULL, &key, 8, &key, 8, WAIT_NS, NULL), "put");
        kill(getpid(), SIGKILL);
    }
    waitpid(child, NULL, 0);
}

int main(int argc, char **argv)
{
    if (argc != 3) {
        fprintf(stderr, "usage: native FILE COUNT\n");
        return 2;
    }
    const char *path = argv[1];
    size_t n = strtoull(argv[2], NULL, 10);
    uint64_t *keys = malloc(n * sizeof *keys);
    for (size_t i = 0; i < n; i++)
        keys[i] = next_random();
    rx_index *h = open_index(path, 'n');
    double worst = 0, each = 1e9 / (double)n;
    double insert = insert_all(h, path, keys, n, &worst) * each;
    double hits = get_random(h, keys, n, 1) * each, misses = get_random(h, keys, n, 0) * each;
    double hot = get_hot(h, keys[n / 2], n) * each, batch = get_batches(h, keys, n) * each;
    double scan = scan_all(h, n) * each;
    must(rx_compact(h, -1) == 0 ? 0 : rx_compact(h, WAIT_NS), "compact");
    double dense = bytes_of(path) / (double)n, dense_scan = scan_all(h, n) * each;
    close_index(h);
    double clean = open_and_get(path, keys[0]);
    leave_dirty(path, keys[0]);
    double dirty = open_and_get(path, keys[0]);
    printf("{\"keys\": %zu, \"insert_ns\": %.1f, \"lookup_ns\": %.1f, \"miss_ns\": %.1f, \"hot_ns\": %.1f, "
           "\"batch_of_32_ns\": %.1f, \"scan_ns\": %.1f, \"scan_after_compact_ns\": %.1f, \"bytes_a_key_worst\": %.1f, "
           "\"bytes_a_key_after_compact\": %.1f, \"open_clean_ms\": %.2f, \"open_after_kill_ms\": %.2f}\n",
           n, insert, hits, misses, hot, batch, scan, dense_scan, worst, dense, clean, dirty);
    free(keys);
    return 0;
}
