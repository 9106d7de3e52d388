/*
 * column.c -- conversion between items of a column and the bytes that are stored.
 *
 * Integers: as the codec int stores them (rowex/_forms.py has the form), so that both read
 * each other's; or plain, n >= 0 as 8 bytes, most significant first.  In both the bytes sort
 * as the numbers do.
 */
#include <stdlib.h>
#include "column.h"

static inline bool rx_is_number(const struct rx_column *c)
{
    return c->form == RX_F_SIGNED || c->form == RX_F_UNSIGNED;
}

/* ---- integers -------------------------------------------------------------------- */

struct rx_number { uint64_t bits; bool negative; }; /* of a negative one: bits of -n - 1 */

static uint64_t rx_swap(uint64_t word, size_t width)
{
    switch (width) {
    case 2: return __builtin_bswap16((uint16_t)word);
    case 4: return __builtin_bswap32((uint32_t)word);
    case 8: return __builtin_bswap64(word);
    default: return word;
    }
}

static inline uint64_t rx_word(const struct rx_column *c, size_t i)
{
    const uint8_t *at = (const uint8_t *)c->data + i * c->width;
    uint64_t word = 0;
    switch (c->width) { /* constant sizes: a single load each */
    case 1: word = *at; break;
    case 2: memcpy(&word, at, 2); break;
    case 4: memcpy(&word, at, 4); break;
    default: memcpy(&word, at, 8); break;
    }
    return RX_UNLIKELY(c->swapped) ? rx_swap(word, c->width) : word;
}

static inline struct rx_number rx_number_of(const struct rx_column *c, size_t i)
{
    uint64_t word = rx_word(c, i);
    unsigned unused = 64 - 8 * (unsigned)c->width;
    if (c->form == RX_F_SIGNED && word >> (c->width * 8 - 1) & 1)
        return (struct rx_number){~word << unused >> unused, true};
    return (struct rx_number){word, false};
}

/* The form of the int codec; returns how many bytes. */
static inline size_t rx_number_encode(struct rx_number n, uint8_t out[RX_INT_BYTES])
{
    unsigned size = n.bits ? (71 - (unsigned)__builtin_clzll(n.bits)) / 8 : 0;
    uint64_t flip = n.negative ? UINT64_MAX : 0;
    uint64_t digits = __builtin_bswap64(size ? n.bits << (64 - 8 * size) : 0) ^ flip;
    out[0] = (uint8_t)((0x80 + size) ^ flip);
    memcpy(out + 1, &digits, 8);
    return 1 + size;
}

/* Its inverse; false: not of that form, or larger than 64 bits. */
static bool rx_number_decode(const uint8_t *from, uint64_t len, struct rx_number *n)
{
    if (len == 0 || len > RX_INT_BYTES)
        return false;
    n->negative = from[0] < 0x80;
    n->bits = 0;
    uint8_t flip = n->negative ? 255 : 0;
    for (uint64_t i = 1; i < len; i++)
        n->bits = n->bits << 8 | (uint8_t)(from[i] ^ flip);
    return (uint8_t)(from[0] ^ flip) == 0x80 + len - 1 && (len == 1 || (from[1] ^ flip) != 0);
}

static int rx_number_give(const struct rx_column *c, size_t i, struct rx_number n)
{
    unsigned bits = 8 * (unsigned)c->width - (c->form == RX_F_SIGNED);
    if ((n.negative && c->form == RX_F_UNSIGNED) || (bits < 64 && n.bits >> bits))
        return rx_fail(RX_E_ITEM, 0, "item %zu is the number %s%llu, which %zu byte(s) %s cannot hold", i,
                       n.negative ? "-1 - " : "", (unsigned long long)n.bits, c->width,
                       c->form == RX_F_SIGNED ? "with a sign" : "without a sign");
    uint64_t word = n.negative ? ~n.bits : n.bits;
    if (c->swapped)
        word = rx_swap(word, c->width);
    memcpy((uint8_t *)c->data + i * c->width, &word, c->width);
    return RX_OK;
}

/* ---- from a column ------------------------------------------------------------------ */

/* Where item i lies; its length may be less than the space that it has. */
static int rx_item_find(const struct rx_column *c, size_t i, const uint8_t **at, size_t *len)
{
    const uint8_t *data = c->data;
    if (c->form != RX_F_OFFSETS) {
        *at = data + i * c->width;
        *len = c->width;
        while (c->form == RX_F_PADDED && *len && (*at)[*len - 1] == 0)
            --*len;
        return RX_OK;
    }
    uint64_t begin = 0, end = 0;
    const uint8_t *offset = (const uint8_t *)c->offsets + i * c->width; /* wherever a slice of a buffer may lie */
    memcpy(&begin, offset, c->width);
    memcpy(&end, offset + c->width, c->width);
    if (begin > end || end > c->capacity)
        return rx_fail(RX_E_ITEM, 0, "item %zu is said to lie from %llu to %llu of %zu bytes", i,
                       (unsigned long long)begin, (unsigned long long)end, c->capacity);
    *at = data + begin;
    *len = end - begin;
    return RX_OK;
}

static inline int rx_item_number(const struct rx_column *c, size_t i, uint8_t *room, size_t *len)
{
    struct rx_number number = rx_number_of(c, i);
    if (!c->plain) {
        *len = rx_number_encode(number, room);
        return RX_OK;
    }
    if (RX_UNLIKELY(number.negative))
        return rx_fail(RX_E_ITEM, 0, "item %zu is negative; only an index of int holds such", i);
    uint64_t digits = __builtin_bswap64(number.bits);
    memcpy(room, &digits, 8);
    *len = 8;
    return RX_OK;
}

int rx_item_view(const struct rx_column *c, size_t i, uint8_t room[16], const uint8_t **at, size_t *len)
{
    *at = room;
    return rx_is_number(c) ? rx_item_number(c, i, room, len) : rx_item_find(c, i, at, len);
}

/* The frequent case, without a question for each; false: an item is negative. */
static bool rx_items_words(struct rx_items *items, const struct rx_column *c, size_t from, unsigned n)
{
    const uint8_t *at = (const uint8_t *)c->data + from * 8;
    uint64_t all = 0;
    for (unsigned i = 0; i < n; i++) {
        uint64_t word;
        memcpy(&word, at + i * 8, 8);
        all |= word;
        word = __builtin_bswap64(word);
        memcpy(items->small + i * 16, &word, 8);
        items->at[i] = items->small + i * 16;
        items->len[i] = 8;
    }
    return c->form == RX_F_UNSIGNED || all >> 63 == 0;
}

/* The same in the form of the codec, whose lengths differ. */
static void rx_items_encoded(struct rx_items *items, const struct rx_column *c, size_t from, unsigned n)
{
    const uint8_t *at = (const uint8_t *)c->data + from * 8;
    uint64_t sign = c->form == RX_F_SIGNED ? 1ull << 63 : 0;
    for (unsigned i = 0; i < n; i++) {
        uint64_t word;
        memcpy(&word, at + i * 8, 8);
        bool negative = word & sign;
        items->at[i] = items->small + i * 16;
        items->len[i] = rx_number_encode((struct rx_number){negative ? ~word : word, negative}, items->small + i * 16);
    }
}

static int rx_items_numbers(struct rx_items *items, const struct rx_column *c, size_t from, unsigned n)
{
    int rc = RX_OK;
    bool words = c->width == 8 && !c->swapped;
    if (c->plain && words && rx_items_words(items, c, from, n))
        return RX_OK;
    if (!c->plain && words) {
        rx_items_encoded(items, c, from, n);
        return RX_OK;
    }
    for (unsigned i = 0; i < n && rc == RX_OK; i++) {
        items->at[i] = items->small + i * 16;
        rc = rx_item_number(c, from + i, items->small + i * 16, &items->len[i]);
    }
    return rc;
}

/* Room for `size` bytes. */
static uint8_t *rx_items_room(struct rx_items *items, size_t size)
{
    if (size <= sizeof items->small)
        return items->small;
    if (size > items->large_capacity) {
        free(items->large);
        items->large = rx_sys_malloc(size);
        items->large_capacity = items->large ? size : 0;
    }
    return items->large;
}

/* The lines of the next group: by the time that one comes the processor has forgotten that it read them in order. */
__attribute__((always_inline)) static inline void rx_items_ask_ahead(const struct rx_column *c, size_t from, size_t n)
{
    uintptr_t at = (uintptr_t)c->data + from * c->width;
    for (size_t line = 0; line < n * c->width && line < RX_SMALL_MAX && c->form != RX_F_OFFSETS; line += 64)
        __builtin_prefetch((const void *)(at + line));
}

int rx_items_take(struct rx_items *items, const struct rx_column *c, size_t from, unsigned n)
{
    const uint8_t *source[RX_GROUP];
    size_t total = 0;
    rx_items_ask_ahead(c, from + n, n);
    if (rx_is_number(c))
        return rx_items_numbers(items, c, from, n);
    for (unsigned i = 0; i < n; i++) {
        int rc = rx_item_find(c, from + i, &source[i], &items->len[i]);
        if (RX_UNLIKELY(rc))
            return rc;
        total += items->len[i];
    }
    uint8_t *room = rx_items_room(items, total);
    if (room == NULL)
        return rx_fail(RX_E_MEMORY, 0, "for %u items of %zu bytes", n, total);
    for (unsigned i = 0; i < n; i++) {
        if (items->len[i])
            rx_copy_short(room, source[i], items->len[i]);
        items->at[i] = room;
        room += items->len[i];
    }
    return RX_OK;
}

void rx_items_free(struct rx_items *items)
{
    free(items->large);
}

/* ---- to a column ----------------------------------------------------------------------- */

bool rx_item_fits(const struct rx_column *c, size_t i, uint64_t len)
{
    uint64_t begin = ((const uint64_t *)c->offsets)[i];
    return begin <= c->capacity && len <= c->capacity - begin;
}

static int rx_item_give_number(const struct rx_column *c, size_t i, const uint8_t *from, uint64_t len)
{
    struct rx_number n = {0, false};
    uint8_t bytes[RX_INT_BYTES];
    if (RX_LIKELY(len <= sizeof bytes))
        rx_copy_racy(bytes, from, len);
    if (!c->plain && !rx_number_decode(bytes, len, &n))
        return rx_fail(RX_E_ITEM, 0, "item %zu has %llu bytes, which are no integer of 64 bits", i,
                       (unsigned long long)len);
    if (c->plain && len != 8)
        return rx_fail(RX_E_ITEM, 0, "item %zu has %llu bytes, an integer has 8", i, (unsigned long long)len);
    for (unsigned k = 0; c->plain && k < 8; k++)
        n.bits = n.bits << 8 | bytes[k];
    return rx_number_give(c, i, n);
}

int rx_item_give_any(const struct rx_column *c, size_t i, const uint8_t *from, uint64_t len)
{
    if (rx_is_number(c))
        return rx_item_give_number(c, i, from, len);
    if (c->form == RX_F_OFFSETS) {
        uint64_t *offset = c->offsets;
        if (!rx_item_fits(c, i, len))
            return RX_TOO_SMALL;
        rx_copy_racy((uint8_t *)c->data + offset[i], from, len);
        offset[i + 1] = offset[i] + len;
        return RX_OK;
    }
    uint8_t *to = (uint8_t *)c->data + i * c->width;
    if (RX_UNLIKELY(len > c->width || (len < c->width && c->form != RX_F_PADDED)))
        return rx_fail(RX_E_ITEM, 0, "item %zu has %llu bytes, the array holds %zu", i, (unsigned long long)len, c->width);
    rx_copy_racy(to, from, len);
    if (len < c->width)
        memset(to + len, 0, c->width - len);
    return RX_OK;
}

void rx_item_clear(const struct rx_column *c, size_t i)
{
    uint64_t *offset = c->offsets;
    if (c->form == RX_F_OFFSETS)
        offset[i + 1] = offset[i];
    else
        memset((uint8_t *)c->data + i * c->width, 0, c->width);
}
