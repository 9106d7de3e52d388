/*
 * column.h -- items that lie side by side in memory, as the bytes of keys and values, and
 * back.  struct rx_column itself is in index.h.
 *
 * The memory is the caller's, who may change it meanwhile: each item is copied once
 * before it is used, so a key is one or the other, and no length outgrows its room.
 */
#ifndef ROWEX_COLUMN_H
#define ROWEX_COLUMN_H

#include "core.h"
#include "index.h"
#include "tree.h"

#define RX_INT_BYTES 9 /* of a 64-bit integer as the int codec stores it */

/* Private copies of up to RX_GROUP items; rx_items_init() to begin with, and rx_items_free() at the end. */
struct rx_items {
    const void *at[RX_GROUP];
    size_t len[RX_GROUP];
    uint8_t small[RX_GROUP * 32];
    uint8_t *large;
    size_t large_capacity;
};
static inline void rx_items_init(struct rx_items *items)
{
    items->large = NULL;
    items->large_capacity = 0;
}
/* Items [from, from + n) of c. RX_E_ITEM: one of them cannot be converted. */
int rx_items_take(struct rx_items *items, const struct rx_column *c, size_t from, unsigned n);
void rx_items_free(struct rx_items *items);
/* One item: where it lies, or converted into room. Its bytes may change, its length does not. */
int rx_item_view(const struct rx_column *c, size_t i, uint8_t room[16], const uint8_t **at, size_t *len);

/*
 * Bytes become item i.  RX_E_ITEM: they do not fit; RX_TOO_SMALL (RX_F_OFFSETS): data has no room.
 * `from` may be memory that changes (an evicted reader's): the caller judges afterwards.
 */
int rx_item_give_any(const struct rx_column *c, size_t i, const uint8_t *from, uint64_t len);
/* Most columns of values: eight bytes each. */
static inline bool rx_column_of_words(const struct rx_column *c)
{
    return (c->form == RX_F_FIXED || c->form == RX_F_PADDED) && c->width == 8;
}
static inline int rx_item_give(const struct rx_column *c, size_t i, const uint8_t *from, uint64_t len)
{
    if (RX_UNLIKELY(!rx_column_of_words(c) || len != 8))
        return rx_item_give_any(c, i, from, len);
    rx_copy_racy((uint8_t *)c->data + i * 8, from, 8); /* most of them: a single load and store */
    return RX_OK;
}
/* Item i becomes zeros, or nothing. */
void rx_item_clear(const struct rx_column *c, size_t i);
/* Is there room for an item of `len` bytes as item i? (RX_F_OFFSETS) */
bool rx_item_fits(const struct rx_column *c, size_t i, uint64_t len);

#endif
