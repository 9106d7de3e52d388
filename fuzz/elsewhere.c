/*
 * elsewhere.c -- a file made by one kind of processor and used by another; scripts/emulate runs it.
 *
 *   elsewhere make FILE      a new file with KEYS keys, closed
 *   elsewhere break FILE     the same, but the process ends with the file open: what is kept is the log
 *   elsewhere use FILE       every key and value is right, the structure too; then each value is replaced
 *                            and put back, in key order
 *   elsewhere refuse FILE    opening it must be refused for the order of its bytes, and leave it as it was
 *   elsewhere cannot FILE    so must making it
 */
#include "fuzz.h"
#include "../rowex/native/format.h"

#define KEYS 20000u
#define VALUE_MAX 2000u
#define RETRY(rc, call) do (rc) = (call); while ((rc) == RX_WOULD_WAIT)
#define WAIT_NS 1000000000

/* Keys that share prefixes of all lengths, so that every kind of node is there; values of many sizes. */
static size_t make_key(uint64_t number, uint8_t key[64])
{
    uint64_t state = number;
    size_t size = (size_t)snprintf((char *)key, 32, "%.*s%llu", (int)(number % 9), "elsewhere", (unsigned long long)number);
    key[size] = 0;
    fuzz_bytes(&state, key + size + 1, number % 11);
    return size + 1 + number % 11;
}

static size_t make_value(uint64_t number, uint64_t version, uint8_t value[VALUE_MAX])
{
    uint64_t state = number * 31 + version;
    size_t size = number % 97 ? fuzz_below(&state, 40) : fuzz_below(&state, VALUE_MAX);
    fuzz_bytes(&state, value, size);
    return size;
}

static rx_index *open_index(const char *path, int mode, int expected)
{
    struct rx_options options = {.path = path, .mode = mode, .checksum = -1, .fences = -1, .umask_mode = 0666,
                                 .durability = mode == 'n' ? RX_D_BATCH : 0, .max_size = mode == 'n' ? 0 : UINT64_MAX};
    rx_index *index = NULL;
    int rc;
    RETRY(rc, rx_open(&options, &index));
    fuzz_expect(expected, rc, "open");
    return index;
}

static void put_all(rx_index *index, uint64_t version)
{
    uint8_t key[64], value[VALUE_MAX];
    uint64_t ticket = 0;
    int rc;
    for (uint64_t i = 0; i < KEYS; i++) {
        size_t key_len = make_key(i, key), value_len = make_value(i, version, value);
        RETRY(rc, rx_put(index, NULL, key, key_len, value, value_len, WAIT_NS, &ticket));
        fuzz_expect(RX_OK, rc, "put");
    }
    RETRY(rc, rx_wait_durable(index, NULL, ticket, WAIT_NS));
    fuzz_expect(RX_OK, rc, "wait_durable");
}

static void compare_all(rx_index *index)
{
    uint8_t key[64], value[VALUE_MAX], found[VALUE_MAX];
    uint64_t count = 0;
    for (uint64_t i = 0; i < KEYS; i++) {
        size_t key_len = make_key(i, key), value_len = make_value(i, 0, value), size = 0;
        fuzz_expect(RX_OK, rx_get(index, NULL, key, key_len, found, sizeof found, &size), "get");
        if (size != value_len || memcmp(value, found, size) != 0)
            fuzz_fail("key %llu has another value", (unsigned long long)i);
    }
    fuzz_expect(RX_OK, rx_count(index, &count), "count");
    if (count != KEYS)
        fuzz_fail("%llu keys instead of %u", (unsigned long long)count, KEYS);
    fuzz_check(index);
}

/* In key order, strictly; reads as the fuzzers do. */
static void scan_all(rx_index *index)
{
    static uint8_t buffer[1 << 16];
    struct fuzz_item item, last = {NULL, NULL, 0, 0};
    uint8_t before[64];
    uint64_t seen = 0;
    rx_scan *scan;
    fuzz_expect(RX_OK, rx_scan_open(index, NULL, 0, NULL, 0, 0, -1, &scan), "scan");
    size_t items = 0, need = 0;
    int rc;
    while ((rc = rx_scan_next(index, NULL, scan, buffer, sizeof buffer, 1000, 1, &items, &need)) == RX_OK) {
        for (size_t at = 0; items > 0; items--, seen++) {
            at = fuzz_item_read(buffer, at, 1, &item);
            size_t least = last.key_len < item.key_len ? last.key_len : item.key_len;
            int order = last.key ? memcmp(before, item.key, least) : -1;
            if (order > 0 || (order == 0 && last.key_len >= item.key_len))
                fuzz_fail("the scan is not in order");
            memcpy(before, item.key, item.key_len);
            last = item;
        }
    }
    fuzz_expect(RX_END, rc, "scan_next");
    rx_scan_close(scan);
    if (seen != KEYS)
        fuzz_fail("the scan gave %llu keys", (unsigned long long)seen);
}

int main(int argc, char **argv)
{
    if (argc != 3) {
        fprintf(stderr, "usage: elsewhere make|break|use|refuse|cannot FILE\n");
        return 2;
    }
    const char *what = argv[1], *path = argv[2];
    snprintf(fuzz_repeat, sizeof fuzz_repeat, "elsewhere %s %.200s", what, path);
    if (strcmp(what, "make") == 0 || strcmp(what, "break") == 0) {
        rx_index *index = open_index(path, 'n', RX_OK);
        put_all(index, 0);
        if (strcmp(what, "break") == 0)
            _exit(0);
        fuzz_expect(RX_OK, rx_close(index), "close");
    } else if (strcmp(what, "use") == 0) {
        rx_index *index = open_index(path, 'w', RX_OK);
        compare_all(index);
        scan_all(index);
        put_all(index, 1);
        put_all(index, 0);
        compare_all(index);
        fuzz_expect(RX_OK, rx_close(index), "close");
    } else if (strcmp(what, "refuse") == 0 || strcmp(what, "cannot") == 0) {
        open_index(path, strcmp(what, "refuse") == 0 ? 'w' : 'n', RX_E_FORMAT);
        if (strstr(rx_error_text(), "endian") == NULL)
            fuzz_fail("it was refused for another reason");
    } else {
        fprintf(stderr, "elsewhere: it knows no %s\n", what);
        return 2;
    }
    printf("%s: as it should be\n", what);
    return 0;
}
