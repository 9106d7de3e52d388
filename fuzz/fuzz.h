/*
 * fuzz.h -- what the fuzzing programs share: numbers that a seed repeats, arguments,
 * and the one way to fail.
 */
#ifndef ROWEX_FUZZ_H
#define ROWEX_FUZZ_H

#include <dirent.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#include "../rowex/native/errors.h"
#include "../rowex/native/index.h"

struct fuzz_args {
    uint64_t seed, count, seconds, threads, keys;
    const char *shape;  /* of keys; NULL: all, one after the other */
    const char *folder; /* where files are made; NULL: TMPDIR, or /tmp */
};

/* splitmix64: any seed will do, 0 included. */
static inline uint64_t fuzz_next(uint64_t *state)
{
    uint64_t z = (*state += 0x9E3779B97F4A7C15ull);
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9ull;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBull;
    return z ^ (z >> 31);
}

/* 0 <= result < limit; limit 0 counts as 1. */
static inline uint64_t fuzz_below(uint64_t *state, uint64_t limit) { return fuzz_next(state) % (limit ? limit : 1); }

static inline void fuzz_bytes(uint64_t *state, void *out, size_t size)
{
    uint8_t *to = out;
    for (; size >= 8; size -= 8, to += 8) {
        uint64_t word = fuzz_next(state);
        memcpy(to, &word, 8);
    }
    uint64_t word = fuzz_next(state);
    memcpy(to, &word, size);
}

static inline void *fuzz_alloc(size_t size)
{
    void *p = malloc(size ? size : 1);
    if (p == NULL) {
        fprintf(stderr, "out of memory\n");
        _exit(2);
    }
    return p;
}

static inline double fuzz_now_s(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
}

static inline uint64_t fuzz_random_seed(void)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    uint64_t state = (uint64_t)now.tv_nsec ^ (uint64_t)now.tv_sec << 20 ^ (uint64_t)getpid() << 40;
    return fuzz_next(&state) & 0xFFFFFFFFu;
}

struct fuzz_option { const char *name; uint64_t *number; const char **text; };

/* Reads --name value pairs over the defaults that the options point to. */
static inline void fuzz_options(int argc, char **argv, const struct fuzz_option *known, size_t count)
{
    for (int i = 1; i < argc; i += 2) {
        size_t k = 0;
        while (k < count && strcmp(argv[i], known[k].name) != 0)
            k++;
        if (k == count || i + 1 == argc) {
            fprintf(stderr, "%s: unknown option, or one without a value: %s\n", argv[0], argv[i]);
            exit(2);
        }
        if (known[k].text)
            *known[k].text = argv[i + 1];
        else
            *known[k].number = strtoull(argv[i + 1], NULL, 0);
    }
}

static inline void fuzz_parse(int argc, char **argv, struct fuzz_args *args)
{
    struct fuzz_option known[] = {
        {"--seed", &args->seed, NULL},       {"--count", &args->count, NULL},  {"--seconds", &args->seconds, NULL},
        {"--threads", &args->threads, NULL}, {"--keys", &args->keys, NULL},    {"--shape", NULL, &args->shape},
        {"--folder", NULL, &args->folder},
    };
    fuzz_options(argc, argv, known, sizeof known / sizeof *known);
    if (args->folder == NULL && (args->folder = getenv("TMPDIR")) == NULL)
        args->folder = "/tmp";
}

/* How to repeat the run; each program sets it before its first operation. */
static char fuzz_repeat[256];

static inline void __attribute__((format(printf, 1, 2), noreturn)) fuzz_fail(const char *format, ...)
{
    va_list list;
    va_start(list, format);
    fprintf(stderr, "FAILED: ");
    vfprintf(stderr, format, list);
    va_end(list);
    fprintf(stderr, "\n  last error of the core: %s\n  repeat with: %s\n", rx_error_text(), fuzz_repeat);
    fflush(NULL);
    _exit(1);
}

/* The result must be `expected`. */
static inline void fuzz_expect(int expected, int actual, const char *what)
{
    if (expected != actual)
        fuzz_fail("%s: expected %s, got %s", what, rx_result_name(expected), rx_result_name(actual));
}

static inline void fuzz_fault(void *ctx, uint64_t offset, const char *text)
{
    (void)ctx;
    fprintf(stderr, "  fault at %llu: %s\n", (unsigned long long)offset, text);
}

static inline void fuzz_check(rx_index *index)
{
    uint64_t faults = 0;
    int rc;
    while ((rc = rx_check(index, 1000000000, fuzz_fault, NULL, &faults)) == RX_WOULD_WAIT)
        ;
    if (rc != RX_OK || faults)
        fuzz_fail("rx_check: %s, %llu faults", rx_result_name(rc), (unsigned long long)faults);
}

/* One item of a scan's buffer or of an edge. */
struct fuzz_item { const uint8_t *key, *value; uint64_t key_len, value_len; };

/* Reads the record at `at`, which may be without its value's bytes; returns where the next one begins. */
static inline size_t fuzz_item_read(const uint8_t *buffer, size_t at, int values, struct fuzz_item *item)
{
    uint32_t key_len;
    memcpy(&key_len, buffer + at, 4);
    memcpy(&item->value_len, buffer + at + 8, 8);
    item->key_len = key_len;
    item->key = buffer + at + 16;
    item->value = item->key + key_len;
    return (at + 16 + (size_t)key_len + (values ? (size_t)item->value_len : 0) + 7) & ~(size_t)7;
}

/* All that is in the folder. */
static inline void fuzz_remove_under(const char *folder)
{
    char full[600];
    DIR *entries = opendir(folder);
    if (entries == NULL)
        return;
    for (struct dirent *e; (e = readdir(entries)) != NULL;) {
        if (strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0 ||
            snprintf(full, sizeof full, "%s/%s", folder, e->d_name) >= (int)sizeof full)
            continue;
        if (unlink(full) != 0) {
            fuzz_remove_under(full);
            rmdir(full);
        }
    }
    closedir(entries);
}

/* An empty name for an index; fuzz_files_remove() takes away all that stands by that name. */
static inline void fuzz_files_name(char *path, size_t size, const char *folder, const char *program)
{
    snprintf(path, size, "%s/%s-%ld.rowex", folder, program, (long)getpid());
}

static inline void fuzz_files_remove(const char *path)
{
    static const char *const beside[] = {"", "-lock", "-checkpoint", "-log"};
    char full[512];
    for (size_t i = 0; i < sizeof beside / sizeof *beside; i++) {
        snprintf(full, sizeof full, "%s%s", path, beside[i]);
        if (unlink(full) != 0) {
            fuzz_remove_under(full);
            rmdir(full);
        }
    }
}

#endif
