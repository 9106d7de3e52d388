/*
 * columns.c -- the C API for columns: many keys in, many values out, without an object
 * for any of them.  As in batch.c, groups of keys are walked side by side.
 */
#include "batch.h"
#include "column.h"
#include "guard.h"
#include "log.h"
#include "../gc/epoch.h"

/* ---- get ---------------------------------------------------------------------------- */

/* A value that is long is copied in pieces, so that an observer sees that we move (R9). */
static int rx_value_give(struct rx_thread *t, const struct rx_column *c, size_t i, const struct rx_leaf_view *view,
                         size_t *need)
{
    uint64_t *offset = c->offsets;
    if (RX_LIKELY(c->form != RX_F_OFFSETS))
        return rx_item_give(c, i, view->value, view->value_len);
    *need = view->value_len;
    if (!rx_item_fits(c, i, view->value_len))
        return RX_TOO_SMALL;
    rx_copy_out(t, (uint8_t *)c->data + offset[i], view->value, view->value_len);
    offset[i + 1] = offset[i] + view->value_len;
    return RX_OK;
}

/* Inside the epoch: n keys as items from `at` on; *done: how many of them. */
static int rx_columns_group(struct rx_thread *t, const struct rx_items *keys, const struct rx_column *values,
                            uint8_t *found, size_t at, unsigned n, unsigned *done, size_t *need)
{
    struct rx_leaf_view leaf[RX_GROUP];
    int result[RX_GROUP];
    rx_find_group(t->map, n, keys->at, keys->len, leaf, result);
    *done = 0;
    if (rx_column_of_words(values)) /* what is found: a load and a store each, up to the first that is not so */
        for (; *done < n && result[*done] == RX_OK && leaf[*done].value_len == 8; ++*done) {
            rx_copy_racy((uint8_t *)values->data + (at + *done) * 8, leaf[*done].value, 8);
            found[at + *done] = 1;
        }
    for (; *done < n; ++*done) {
        int rc = result[*done];
        if (rc == RX_ABSENT)
            rx_item_clear(values, at + *done);
        else if (rc == RX_OK)
            rc = rx_value_give(t, values, at + *done, &leaf[*done], need);
        if (RX_UNLIKELY(rc != RX_OK && rc != RX_ABSENT))
            return rc;
        found[at + *done] = rc == RX_OK;
    }
    return RX_OK;
}

int rx_get_columns(rx_index *h, rx_thread *given, const struct rx_column *keys, const struct rx_column *values,
                   uint8_t *found, size_t from, size_t upto, size_t *done, size_t *need)
{
    struct rx_items items;
    struct rx_thread *t;
    *done = from;
    *need = 0;
    int rc = rx_call_begin(h, given, &t);
    if (rc)
        return rc;
    rx_items_init(&items);
    while (*done < upto && rc == RX_OK) {
        unsigned n = upto - *done < RX_GROUP ? (unsigned)(upto - *done) : RX_GROUP, now;
        int left;
        rc = rx_items_take(&items, keys, *done, n);
        if (rc)
            break;
        do {
            now = 0;
            left = RX_OK;
            rc = rx_enter_read(t);
            if (rc)
                break;
            rc = rx_columns_group(t, &items, values, found, *done, n, &now, need);
            left = rx_leave_read(t);
        } while (left == RX_I_EVICTED); /* all of this group anew */
        if (left)
            rc = left;
        else
            *done += now;
    }
    rx_items_free(&items);
    rx_call_end(t);
    return rc;
}

/* ---- put ------------------------------------------------------------------------------ */

/* Key k of a group and value i of the column. */
static int rx_columns_pair(const struct rx_items *keys, unsigned k, const struct rx_column *values, size_t i,
                           uint8_t room[16], struct rx_op *op)
{
    const uint8_t *value;
    size_t value_len;
    int rc = rx_item_view(values, i, room, &value, &value_len);
    if (rc == RX_OK)
        rc = rx_sizes_allowed(keys->len[k], value_len);
    if (rc == RX_OK)
        rx_op_set(op, RX_PUT, keys->at[k], keys->len[k], value, value_len);
    return rc;
}

/* Whose key is it?  Equal keys fall to the same part, which puts them in their order. */
static inline bool rx_columns_mine(const struct rx_items *keys, unsigned k, unsigned part, unsigned parts)
{
    return parts < 2 || rx_crc32c(0, keys->at[k], keys->len[k]) % parts == part;
}

/* Items [from, from + n) whose keys fall to the part; *done: how many were dealt with. */
static int rx_columns_some(struct rx_thread *t, const struct rx_items *keys, const struct rx_column *values,
                           size_t from, unsigned n, unsigned part, unsigned parts, unsigned *done, bool *changed)
{
    uint8_t room[RX_GROUP][16], at[RX_GROUP + 1];
    struct rx_op op[RX_GROUP];
    unsigned some = 0, put = 0, k = 0;
    int rc = RX_OK;
    for (; k < n; k++) {
        if (!rx_columns_mine(keys, k, part, parts))
            continue;
        if ((rc = rx_columns_pair(keys, k, values, from + k, room[some], &op[some])) != RX_OK)
            break; /* of no account before the others are put */
        at[some++] = (uint8_t)k;
    }
    at[some] = (uint8_t)k;
    if (some)
        rc = rx_change_many(t, op, some, &put);
    *changed |= put > 0;
    *done = at[put];
    return rc;
}

int rx_put_columns(rx_index *h, rx_thread *given, const struct rx_column *keys, const struct rx_column *values,
                   size_t from, size_t upto, unsigned part, unsigned parts, int64_t wait_ns, size_t *done,
                   uint64_t *ticket)
{
    struct rx_items items;
    struct rx_thread *t;
    bool changed = false;
    *done = from;
    if (h->readonly)
        return rx_fail(RX_E_READONLY, 0, "nothing was changed");
    int rc = rx_call_begin(h, given, &t);
    if (rc)
        return rc;
    t->deadline_ns = rx_deadline(wait_ns);
    rx_items_init(&items);
    while (*done < upto && rc == RX_OK) {
        unsigned n = upto - *done < RX_GROUP ? (unsigned)(upto - *done) : RX_GROUP;
        rc = rx_items_take(&items, keys, *done, n);
        if (rc == RX_OK)
            rx_warm(t, n, items.at, items.len);
        unsigned now = 0;
        if (rc == RX_OK)
            rc = rx_columns_some(t, &items, values, *done, n, part, parts, &now, &changed);
        *done += now;
    }
    if (ticket && changed) /* of the last one; none was made: as it was */
        *ticket = t->db->logged ? rx_log_ticket(t->db, t->log_number) : 0;
    rx_items_free(&items);
    rx_call_end(t);
    return rc;
}

/* ---- looking at a column ----------------------------------------------------------------- */

static int rx_item_order(const struct rx_items *a, unsigned i, const struct rx_items *b, unsigned k)
{
    size_t common = a->len[i] < b->len[k] ? a->len[i] : b->len[k];
    int order = common ? memcmp(a->at[i], b->at[k], common) : 0;
    return order ? order : (a->len[i] > b->len[k]) - (a->len[i] < b->len[k]);
}

int rx_column_check(const struct rx_column *c, size_t from, size_t upto, int *ascending)
{
    struct rx_items items[2]; /* a group, and the one before */
    unsigned now = 0, before = 0; /* of that, its last */
    rx_items_init(&items[0]);
    rx_items_init(&items[1]);
    int rc = from ? rx_items_take(&items[1], c, from - 1, 1) : RX_OK;
    *ascending = 1;
    for (size_t at = from; at < upto && rc == RX_OK; now ^= 1) {
        unsigned n = upto - at < RX_GROUP ? (unsigned)(upto - at) : RX_GROUP;
        rc = rx_items_take(&items[now], c, at, n);
        if (rc)
            break;
        if (at && rx_item_order(&items[now ^ 1], before, &items[now], 0) >= 0)
            *ascending = 0;
        for (unsigned k = 1; k < n && *ascending; k++)
            *ascending = rx_item_order(&items[now], k - 1, &items[now], k) < 0;
        before = n - 1;
        at += n;
    }
    rx_items_free(&items[0]);
    rx_items_free(&items[1]);
    return rc;
}

int rx_columns_unpack(const void *records, size_t items, const struct rx_column *keys, const struct rx_column *values,
                      size_t to, size_t *at, size_t *done)
{
    for (*done = 0; *done < items; ++*done) {
        const uint8_t *record = (const uint8_t *)records + *at;
        uint32_t key_len;
        uint64_t value_len;
        memcpy(&key_len, record, sizeof key_len);
        memcpy(&value_len, record + 8, sizeof value_len);
        int rc = keys ? rx_item_give(keys, to + *done, record + 16, key_len) : RX_OK;
        if (rc == RX_OK && values)
            rc = rx_item_give(values, to + *done, record + 16 + key_len, value_len);
        if (rc)
            return rc;
        *at += (16 + key_len + (values ? value_len : 0) + 7) & ~7ull;
    }
    return RX_OK;
}
