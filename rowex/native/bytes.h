/*
 * bytes.h -- copying and comparing keys and values, most of which are so short that a call
 * of the library costs more than what it does: 8 to 16 bytes are two words, which may share
 * some.  Nothing here knows of anything else.
 */
#ifndef ROWEX_BYTES_H
#define ROWEX_BYTES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

static inline uint64_t rx_word8(const void *at) { uint64_t word; memcpy(&word, at, 8); return word; }
static inline uint32_t rx_word4(const void *at) { uint32_t word; memcpy(&word, at, 4); return word; }

static inline void rx_copy_short(void *to, const void *from, size_t size)
{
    if (size - 8 > 8) {
        memcpy(to, from, size);
        return;
    }
    uint64_t first = rx_word8(from), last = rx_word8((const uint8_t *)from + size - 8);
    memcpy(to, &first, 8);
    memcpy((uint8_t *)to + size - 8, &last, 8);
}

static inline bool rx_bytes_equal(const uint8_t *a, const uint8_t *b, uint64_t size)
{
    if (size == 8)
        return rx_word8(a) == rx_word8(b);
    if (size > 16)
        return memcmp(a, b, size) == 0;
    if (size > 8)
        return ((rx_word8(a) ^ rx_word8(b)) |
                (rx_word8(a + size - 8) ^ rx_word8(b + size - 8))) == 0;
    if (size >= 4)
        return ((rx_word4(a) ^ rx_word4(b)) |
                (rx_word4(a + size - 4) ^ rx_word4(b + size - 4))) == 0;
    return size == 0 || ((a[0] ^ b[0]) | (a[size / 2] ^ b[size / 2]) | (a[size - 1] ^ b[size - 1])) == 0;
}

/* Length of the common beginning of a and b, from `from` on. */
static inline uint64_t rx_common(const uint8_t *a, uint64_t a_len, const uint8_t *b, uint64_t b_len, uint64_t from)
{
    uint64_t end = a_len < b_len ? a_len : b_len, i = from;
    for (; i + 8 <= end; i += 8) {
        uint64_t x = rx_word8(a + i), y = rx_word8(b + i);
        if (x != y)
            return i + (uint64_t)(__builtin_ctzll(x ^ y) / 8);
    }
    while (i < end && a[i] == b[i])
        i++;
    return i;
}

/* Negative, 0, positive: as the keys lie. */
static inline int rx_compare(const uint8_t *a, uint64_t a_len, const uint8_t *b, uint64_t b_len)
{
    if (a_len >= 8 && b_len >= 8) { /* most keys part here */
        uint64_t x = rx_word8(a), y = rx_word8(b);
        if (x != y)
            return __builtin_bswap64(x) < __builtin_bswap64(y) ? -1 : 1;
    }
    int order = memcmp(a, b, a_len < b_len ? a_len : b_len);
    return order ? order : (a_len > b_len) - (a_len < b_len);
}

#endif
