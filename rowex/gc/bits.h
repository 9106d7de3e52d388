/*
 * bits.h -- one bit for each 8 bytes of a file, for scan.c and verify.c; private memory.
 */
#ifndef ROWEX_BITS_H
#define ROWEX_BITS_H

#include <errno.h>
#include <sys/mman.h>
#include "../native/cell.h"

struct rx_bits {
    uint64_t *words;
    uint64_t bytes; /* of the mapping; pages that are never set are never touched */
};

static inline int rx_bits_make(struct rx_bits *b, uint64_t file_bytes)
{
    b->bytes = (file_bytes / 512 + 1) * 8;
    void *at = rx_sys_pages(b->bytes);
    b->words = at == MAP_FAILED ? NULL : at;
    return b->words ? RX_OK : rx_fail(RX_E_MEMORY, errno, "%llu bytes of marks", (unsigned long long)b->bytes);
}
static inline void rx_bits_drop(struct rx_bits *b)
{
    if (b->words)
        munmap(b->words, b->bytes);
    b->words = NULL;
}
static inline bool rx_bits_get(const struct rx_bits *b, rx_off off)
{
    return b->words[off >> 9] >> (off >> 3 & 63) & 1;
}
/* False when it was set already. */
static inline bool rx_bits_set(struct rx_bits *b, rx_off off)
{
    uint64_t *word = &b->words[off >> 9], bit = 1ull << (off >> 3 & 63);
    if (*word & bit)
        return false;
    *word |= bit;
    return true;
}
static inline void rx_bits_clear(struct rx_bits *b, rx_off off) { b->words[off >> 9] &= ~(1ull << (off >> 3 & 63)); }
/* The first offset whose bit is set, at or after `off`; UINT64_MAX when there is none. */
static inline rx_off rx_bits_next(const struct rx_bits *b, rx_off off)
{
    uint64_t w = off >> 9, n = b->bytes / 8;
    uint64_t word = w < n ? b->words[w] & (~0ull << (off >> 3 & 63)) : 0;
    while (word == 0 && ++w < n)
        word = b->words[w];
    return word && w < n ? w << 9 | (uint64_t)__builtin_ctzll(word) << 3 : UINT64_MAX;
}

#endif
