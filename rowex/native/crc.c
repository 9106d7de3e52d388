/*
 * crc.c -- CRC-32C (Castagnoli polynomial, reflected, 0x82F63B78; RFC 3720,
 * appendix B.4).  SSE4.2 or the ARMv8 CRC extension where the CPU has it, else a
 * table of 8 x 256 built on first use.
 */
#include "core.h"

static uint32_t rx_table[8][256];
static pthread_once_t rx_table_once = PTHREAD_ONCE_INIT;

static void rx_table_build(void)
{
    for (uint32_t i = 0; i < 256; i++) {
        uint32_t c = i;
        for (int bit = 0; bit < 8; bit++)
            c = c & 1 ? c >> 1 ^ 0x82F63B78u : c >> 1;
        rx_table[0][i] = c;
    }
    for (uint32_t i = 0; i < 256; i++)
        for (int k = 1; k < 8; k++)
            rx_table[k][i] = rx_table[k - 1][i] >> 8 ^ rx_table[0][rx_table[k - 1][i] & 255];
}

static uint32_t rx_crc_table(uint32_t c, const uint8_t *p, size_t size)
{
    pthread_once(&rx_table_once, rx_table_build);
    for (; size >= 8; p += 8, size -= 8) {
        uint64_t w;
        memcpy(&w, p, 8);
        w ^= c;
        c = rx_table[7][w & 255] ^ rx_table[6][w >> 8 & 255] ^ rx_table[5][w >> 16 & 255] ^
            rx_table[4][w >> 24 & 255] ^ rx_table[3][w >> 32 & 255] ^ rx_table[2][w >> 40 & 255] ^
            rx_table[1][w >> 48 & 255] ^ rx_table[0][w >> 56];
    }
    for (; size; p++, size--)
        c = c >> 8 ^ rx_table[0][(c ^ *p) & 255];
    return c;
}

#if defined(__x86_64__)
#define RX_CRC_TARGET __attribute__((target("sse4.2")))
RX_CRC_TARGET static inline uint32_t rx_crc_hw(uint32_t c, const uint8_t *p, size_t size)
{
    uint64_t wide = c;
    for (; size >= 8; p += 8, size -= 8) {
        uint64_t w;
        memcpy(&w, p, 8);
        wide = __builtin_ia32_crc32di(wide, w);
    }
    c = (uint32_t)wide;
    for (; size; p++, size--)
        c = __builtin_ia32_crc32qi(c, *p);
    return c;
}
static bool rx_have_hw(void) { return __builtin_cpu_supports("sse4.2"); }
#elif defined(__aarch64__) && defined(__ARM_FEATURE_CRC32)
#include <arm_acle.h>
#define RX_CRC_TARGET
static inline uint32_t rx_crc_hw(uint32_t c, const uint8_t *p, size_t size)
{
    for (; size >= 8; p += 8, size -= 8) {
        uint64_t w;
        memcpy(&w, p, 8);
        c = __crc32cd(c, w);
    }
    for (; size; p++, size--)
        c = __crc32cb(c, *p);
    return c;
}
static bool rx_have_hw(void) { return true; }
#else
#define RX_CRC_TARGET
static inline uint32_t rx_crc_hw(uint32_t c, const uint8_t *p, size_t size) { return rx_crc_table(c, p, size); }
static bool rx_have_hw(void) { return false; }
#endif

uint32_t rx_crc32c(uint32_t seed, const void *data, size_t size)
{
    return ~(rx_have_hw() ? rx_crc_hw(~seed, data, size) : rx_crc_table(~seed, data, size));
}

/* Both in one function, of which nothing but the instructions is left. */
RX_CRC_TARGET static uint32_t rx_crc_item_hw(const uint64_t lengths[2], const void *bytes)
{
    return rx_crc_hw(rx_crc_hw(~0u, (const uint8_t *)lengths, 16), bytes, lengths[0] + lengths[1]);
}

uint32_t rx_crc32c_item(uint64_t key_len, uint64_t value_len, const void *bytes)
{
    const uint64_t lengths[2] = {key_len, value_len};
    if (RX_LIKELY(rx_have_hw()))
        return ~rx_crc_item_hw(lengths, bytes);
    return rx_crc32c(rx_crc32c(0, lengths, sizeof lengths), bytes, key_len + value_len);
}
