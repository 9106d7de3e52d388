/*
 * steady.c -- loops whose instructions and cache misses do not vary, for callgrind.
 *
 *     steady FILE KEYS LOOP ROUNDS
 *
 * Fills a new file with KEYS random keys of 8 bytes, then goes ROUNDS times through all of them by
 * LOOP: lookup, batch (get_many of 32), scan, put (a new value), put_many (of 32), or change (remove
 * and insert).  The cost of one operation is the difference of two runs with different ROUNDS,
 * divided by what one did more than the other.
 */
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "../../rowex/native/errors.h"
#include "../../rowex/native/index.h"

#define WAIT_NS 1000000000ll
#define BATCH 32

static rx_index *h;
static uint64_t *keys;
static size_t count;

static void must(int right, const char *what)
{
    if (right)
        return;
    fprintf(stderr, "steady: %s: %s\n", what, rx_error_text());
    exit(1);
}

static void lookup(void)
{
    uint64_t value;
    size_t length;
    for (size_t i = 0; i < count; i++)
        must(rx_get(h, NULL, &keys[i], 8, &value, 8, &length) == RX_OK, "get");
}

static void batch(void)
{
    const void *pointers[BATCH];
    size_t lengths[BATCH], done, need;
    uint64_t values[BATCH], sizes[BATCH];
    for (size_t at = 0; at + BATCH <= count; at += BATCH) {
        for (size_t k = 0; k < BATCH; k++) {
            pointers[k] = &keys[at + k];
            lengths[k] = 8;
        }
        must(rx_get_many(h, NULL, BATCH, pointers, lengths, values, sizeof values, sizes, &done, &need) == RX_OK &&
                 done == BATCH, "get_many");
    }
}

static void scan(void)
{
    static char buffer[1 << 16];
    rx_scan *s;
    size_t items, need, total = 0;
    must(rx_scan_open(h, NULL, 0, NULL, 0, 0, -1, &s) == RX_OK, "scan");
    while (rx_scan_next(h, NULL, s, buffer, sizeof buffer, SIZE_MAX, 1, &items, &need) == RX_OK)
        total += items;
    rx_scan_close(s);
    must(total == count, "the scan's length");
}

static void put(void)
{
    for (size_t i = 0; i < count; i++)
        must(rx_put(h, NULL, &keys[i], 8, &i, 8, WAIT_NS, NULL) == RX_OK, "put");
}

static void put_many(void)
{
    const void *pointers[BATCH];
    size_t lengths[BATCH], done;
    for (size_t at = 0; at + BATCH <= count; at += BATCH) {
        for (size_t k = 0; k < BATCH; k++) {
            pointers[k] = &keys[at + k];
            lengths[k] = 8;
        }
        must(rx_put_many(h, NULL, BATCH, pointers, lengths, pointers, lengths, WAIT_NS, &done, NULL) == RX_OK,
             "put_many");
    }
}

static void change(void)
{
    for (size_t i = 0; i < count; i++) {
        must(rx_remove(h, NULL, &keys[i], 8, WAIT_NS, NULL) == RX_OK, "remove");
        must(rx_insert(h, NULL, &keys[i], 8, &i, 8, WAIT_NS, NULL) == RX_OK, "insert");
    }
}

int main(int argc, char **argv)
{
    static const struct { const char *name; void (*run)(void); } loops[] = {
        {"lookup", lookup}, {"batch", batch}, {"scan", scan}, {"put", put}, {"put_many", put_many}, {"change", change},
    };
    void (*run)(void) = NULL;
    for (size_t i = 0; argc == 5 && i < sizeof loops / sizeof *loops; i++)
        if (strcmp(argv[3], loops[i].name) == 0)
            run = loops[i].run;
    if (run == NULL || (count = strtoull(argv[2], NULL, 10)) == 0) {
        fprintf(stderr, "usage: steady FILE KEYS lookup|batch|scan|put|put_many|change ROUNDS\n");
        return 2;
    }
    struct rx_options o = {.path = argv[1], .mode = 'n', .durability = 1, .checksum = -1, .max_size = UINT64_MAX,
                           .fences = -1, .umask_mode = 0666, .initial_size = 64u << 20};
    uint64_t state = 88172645463325252ull;
    must(rx_open(&o, &h) == RX_OK, "open");
    keys = malloc(count * sizeof *keys);
    for (size_t i = 0; keys && i < count; i++) {
        state ^= state << 13;
        state ^= state >> 7;
        keys[i] = state ^= state << 17;
        must(rx_insert(h, NULL, &keys[i], 8, &i, 8, WAIT_NS, NULL) == RX_OK, "insert");
    }
    for (long rounds = strtol(argv[4], NULL, 10); rounds > 0; rounds--)
        run();
    must(rx_close(h) == RX_OK, "close");
    rx_free(h);
    return 0;
}
