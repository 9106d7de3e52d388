/*
 * batch.c -- the C API for many keys at once, and scans.  A batch of a scan is one
 * epoch: it pins garbage no longer than that (P2).
 */
#include <stdlib.h>
#include "batch.h"
#include "log.h"
#include "cursor.h"
#include "guard.h"
#include "tree.h"
#include "../gc/epoch.h"

#define RX_WARM_BYTES (16u << 20) /* a smaller file is in the cache as it is */

/* ---- many keys ------------------------------------------------------------------- */

struct rx_many {
    size_t n;
    const void *const *keys;
    const size_t *key_len;
    uint8_t *out;
    size_t capacity, used;
    uint64_t *value_len;
    size_t done, *need;
};

/* Keys [m->done, end) in one epoch; advances done and used only by what it answered. */
static int rx_get_group(struct rx_thread *t, const struct rx_many *m, size_t end, size_t *done, size_t *used)
{
    struct rx_leaf_view leaf[RX_GROUP];
    int result[RX_GROUP];
    size_t first = *done;
    rx_find_group(t->map, (unsigned)(end - first), m->keys + first, m->key_len + first, leaf, result);
    for (; *done < end; (*done)++) {
        const struct rx_leaf_view *view = &leaf[*done - first];
        int rc = result[*done - first];
        if (rc == RX_ABSENT) {
            m->value_len[*done] = UINT64_MAX;
            continue;
        }
        if (rc)
            return rc;
        if (view->value_len > m->capacity - *used) {
            *m->need = view->value_len;
            return RX_TOO_SMALL;
        }
        rx_copy_out(t, m->out + *used, view->value, view->value_len);
        *used += view->value_len;
        m->value_len[*done] = view->value_len;
    }
    return RX_OK;
}

int rx_get_many(rx_index *h, rx_thread *given, size_t n, const void *const *keys, const size_t *key_len, void *out,
                size_t capacity, uint64_t *value_len, size_t *done, size_t *need)
{
    struct rx_thread *t;
    struct rx_many m = {n, keys, key_len, out, capacity, 0, value_len, 0, need};
    *done = 0;
    int rc = rx_call_begin(h, given, &t);
    if (rc)
        return rc;
    while (m.done < n && rc == RX_OK) {
        size_t end = n - m.done < RX_GROUP ? n : m.done + RX_GROUP, now = m.done, used = m.used;
        rc = rx_enter_read(t);
        if (rc)
            break;
        rc = rx_get_group(t, &m, end, &now, &used);
        int left = rx_leave_read(t);
        if (left == RX_I_EVICTED) {
            rc = RX_OK; /* all of this group anew */
            continue;
        }
        if (left) {
            rc = left;
            break;
        }
        m.done = now;
        m.used = used;
    }
    *done = m.done;
    rx_call_end(t);
    return rc;
}

/* The frame of put_many and remove_many. */
static int rx_change_begin(rx_index *h, struct rx_thread *given, int64_t wait_ns, struct rx_thread **t)
{
    if (h->readonly)
        return rx_fail(RX_E_READONLY, 0, "nothing was changed");
    int rc = rx_call_begin(h, given, t);
    if (rc == RX_OK)
        (*t)->deadline_ns = rx_deadline(wait_ns);
    return rc;
}

void rx_warm(struct rx_thread *t, size_t n, const void *const *keys, const size_t *key_len)
{
    if (rx_load_rlx(&t->map->size) < RX_WARM_BYTES || t->near > RX_GROUP / 2 || rx_enter_read(t) != RX_OK)
        return;
    rx_warm_group(t->map, n < RX_GROUP ? (unsigned)n : RX_GROUP, keys, key_len);
    rx_leave_read(t); /* evicted: nothing was believed */
}

int rx_put_many(rx_index *h, rx_thread *given, size_t n, const void *const *keys, const size_t *key_len,
                const void *const *values, const size_t *value_len, int64_t wait_ns, size_t *done, uint64_t *ticket)
{
    static const uint8_t empty[1];
    struct rx_thread *t;
    *done = 0;
    int rc = rx_change_begin(h, given, wait_ns, &t);
    if (rc)
        return rc;
    while (*done < n && rc == RX_OK) {
        struct rx_op op[RX_GROUP];
        unsigned some = 0, now = 0;
        for (size_t i = *done; i < n && some < RX_GROUP; i++, some++) {
            if ((rc = rx_sizes_allowed(key_len[i], value_len[i])) != RX_OK)
                break; /* of no account before the others are put */
            __builtin_prefetch(keys[i]); /* of a long batch these lie in a cache that is slow to read one by one */
            __builtin_prefetch(values[i]);
            rx_op_set(&op[some], RX_PUT, keys[i], key_len[i], values[i] ? values[i] : empty, value_len[i]);
        }
        if (some) {
            rx_warm(t, some, keys + *done, key_len + *done);
            rc = rx_change_many(t, op, some, &now);
        }
        *done += now;
    }
    if (ticket && *done) /* of the last one; none was made: as it was */
        *ticket = t->db->logged ? rx_log_ticket(t->db, t->log_number) : 0;
    rx_call_end(t);
    return rc;
}

int rx_remove_many(rx_index *h, rx_thread *given, size_t n, const void *const *keys, const size_t *key_len,
                   int64_t wait_ns, size_t *done, size_t *removed, uint64_t *ticket)
{
    struct rx_thread *t;
    *done = *removed = 0;
    int rc = rx_change_begin(h, given, wait_ns, &t);
    if (rc)
        return rc;
    for (; *done < n; (*done)++) {
        struct rx_op op;
        rx_op_set(&op, RX_REMOVE, keys[*done], key_len[*done], NULL, 0);
        if (*done % RX_GROUP == 0)
            rx_warm(t, n - *done, keys + *done, key_len + *done);
        rc = key_len[*done] > RX_KEY_MAX ? RX_ABSENT : rx_change(t, &op);
        if (rc != RX_OK && rc != RX_ABSENT)
            break;
        *removed += rc == RX_OK;
        rc = RX_OK;
    }
    if (ticket && *removed)
        *ticket = t->db->logged ? rx_log_ticket(t->db, t->log_number) : 0;
    rx_call_end(t);
    return rc;
}

/* ---- scans -------------------------------------------------------------------------- */

struct rx_scan {
    rx_index *h;
    struct rx_cursor cursor;
    uint8_t *start, *stop, *last; /* NULL: open; last: the last key given */
    size_t start_len, stop_len, last_len, last_capacity;
    uint64_t remaining;
    bool reverse, begun, over;
};

static uint8_t *rx_bound_copy(const void *from, size_t size)
{
    uint8_t *copy = rx_sys_malloc(size ? size : 1);
    if (copy && size)
        memcpy(copy, from, size);
    return copy;
}

int rx_scan_open(rx_index *h, const void *start, size_t start_len, const void *stop, size_t stop_len, int reverse,
                 int64_t limit, rx_scan **out)
{
    struct rx_scan *s = rx_sys_calloc(1, sizeof *s);
    if (s == NULL)
        return rx_fail(RX_E_MEMORY, 0, "for a scan");
    s->h = h;
    s->reverse = reverse != 0;
    s->remaining = limit < 0 ? UINT64_MAX : (uint64_t)limit;
    s->start_len = start_len;
    s->stop_len = stop_len;
    rx_cursor_init(&s->cursor);
    if ((start && !(s->start = rx_bound_copy(start, start_len))) ||
        (stop && !(s->stop = rx_bound_copy(stop, stop_len)))) {
        rx_scan_close(s);
        return rx_fail(RX_E_MEMORY, 0, "for a scan's bounds");
    }
    *out = s;
    return RX_OK;
}

void rx_scan_close(rx_scan *s)
{
    if (s == NULL)
        return;
    rx_cursor_free(&s->cursor);
    free(s->start);
    free(s->stop);
    free(s->last);
    free(s);
}

static int rx_scan_seek(struct rx_scan *s, struct rx_map *map)
{
    if (!s->reverse)
        return s->begun ? rx_cursor_seek(&s->cursor, map, s->last, s->last_len, true)
                        : rx_cursor_seek(&s->cursor, map, s->start, s->start_len, false);
    return s->begun ? rx_cursor_seek_down(&s->cursor, map, s->last, s->last_len, false)
                    : rx_cursor_seek_down(&s->cursor, map, s->stop, s->stop_len, false);
}

/* Past the far bound? */
static bool rx_scan_past(const struct rx_scan *s, const uint8_t *key, uint64_t key_len)
{
    if (!s->reverse)
        return s->stop && rx_compare(key, key_len, s->stop, s->stop_len) >= 0;
    return s->start && rx_compare(key, key_len, s->start, s->start_len) < 0;
}

#define RX_EAGER_ITEMS 8u
#define RX_EAGER_IN_RANGE 32u /* where a bound may end the scan before so many, nobody reads nodes behind it */
#define RX_SHORT_BYTES 64u  /* copied word by word */
#define RX_AHEAD_BYTES 512u /* what the processor does not follow by itself */

struct rx_pack { uint8_t *at; size_t room, items; const uint8_t *last; size_t last_len, need; };

/*
 * Key and value lie one behind the other, in a cell whose size is a multiple of 8, as the
 * record's is: a few bytes go in whole words, which costs less than a call.
 */
static inline void rx_pack_words(uint8_t *to, const uint8_t *key, uint64_t from, uint64_t bytes)
{
    for (uint64_t i = from; i < bytes; i += 8) {
        uint64_t word = rx_load_rlx((const uint64_t *)(const void *)(key + i));
        memcpy(to + i, &word, 8);
    }
}

static inline void rx_pack_bytes(struct rx_thread *t, uint8_t *to, const struct rx_leaf_view *v, uint64_t bytes, int values)
{
    if (RX_LIKELY(bytes <= RX_SHORT_BYTES)) {
        rx_pack_words(to, v->key, 0, bytes);
        return;
    }
    rx_copy_racy(to, v->key, v->key_len);
    if (values)
        rx_copy_out(t, to + v->key_len, v->value, v->value_len);
}

static inline void rx_pack_lengths(uint8_t *to, uint64_t key_len, uint64_t value_len)
{
    memcpy(to, &key_len, 8); /* the upper half is the zero */
    memcpy(to + 8, &value_len, 8);
}

/* One record into the caller's buffer; false when it does not fit. */
__attribute__((always_inline)) static inline bool rx_pack_record(struct rx_thread *t, struct rx_pack *p, const struct rx_leaf_view *v, int values)
{
    uint64_t bytes = v->key_len + (values ? v->value_len : 0), size = (16 + bytes + 7) & ~7ull;
    if (size > p->room) {
        p->need = size;
        return false;
    }
    rx_pack_lengths(p->at, v->key_len, v->value_len);
    rx_pack_bytes(t, p->at + 16, v, bytes, values);
    p->last = p->at + 16; /* our copy: the leaf may go once the epoch is left */
    p->last_len = v->key_len;
    p->at += size;
    p->room -= size;
    p->items++;
    return true;
}

/* Of the next leaves as many bytes are likely to be read. */
static inline void rx_scan_saw(struct rx_cursor *c, uint64_t leaf)
{
    c->leaf_last = leaf < RX_AHEAD_BYTES ? (uint32_t)leaf - 8 : RX_AHEAD_BYTES - 8;
}

/* Does the key come after the last one, in the scan's direction? */
static inline bool rx_scan_follows(const struct rx_leaf_view *v, const uint8_t *last, size_t last_len, bool reverse)
{
    int order = rx_compare(v->key, v->key_len, last, last_len);
    return reverse ? order < 0 : order > 0;
}

/*
 * The leaves that lie ready in the innermost frame, up to one that is not as most are: what is not short, nor as it
 * should be, nor before the bound, nor in order, nor fits, is left to the general way.  Not inline: it needs all registers.
 */
__attribute__((noinline)) static void rx_scan_run(struct rx_thread *t, struct rx_scan *s, struct rx_pack *p, size_t max_items, int values)
{
    struct rx_cursor *c = &s->cursor;
    if (RX_UNLIKELY(c->depth == 0 || p->last == NULL))
        return;
    struct rx_frame *f = &c->stack[c->depth - 1];
    uint64_t room = rx_room(t->map), want = max_items - p->items, ready = f->soft - f->at, size = 0;
    uint64_t values_too = values ? ~0ull : 0;
    const rx_ref *begin = f->run + f->at, *end = begin + (want < ready ? want : ready), *ref = begin;
    const uint8_t *last = p->last;
    uint8_t *to = p->at, *to_end = to + p->room;
    size_t last_len = p->last_len;
    bool reverse = s->reverse, bounded = reverse ? s->start : s->stop;
    uint64_t flip = reverse ? ~0ull : 0, before = last_len >= 8 ? __builtin_bswap64(rx_word8(last)) ^ flip : 0;
    for (; ref < end; ref++) {
        struct rx_leaf_view v;
        if (!rx_leaf_view_small(t->map, room, *ref, &v))
            break;
        uint64_t bytes = v.key_len + (v.value_len & values_too);
        size = (16 + bytes + 7) & ~7ull;
        if (RX_UNLIKELY(size > (uint64_t)(to_end - to) || bytes - 1 >= RX_SHORT_BYTES)) /* 0, too: a word is copied at least */
            break;
        uint64_t word = rx_load_rlx((const uint64_t *)(const void *)v.key), first = __builtin_bswap64(word) ^ flip;
        bool ahead = v.key_len >= 8 && last_len >= 8 && first > before; /* most keys part here */
        if (RX_UNLIKELY(!ahead) && !rx_scan_follows(&v, last, last_len, reverse))
            break;
        if (RX_UNLIKELY(bounded) && rx_scan_past(s, v.key, v.key_len))
            break;
        rx_pack_lengths(to, v.key_len, v.value_len);
        memcpy(to + 16, &word, 8);
        rx_pack_words(to + 16, v.key, 8, bytes);
        before = first;
        last = to + 16;
        last_len = v.key_len;
        to += size;
    }
    f->at = (uint8_t)(ref - f->run);
    if (ref != begin)
        rx_scan_saw(c, size - 8); /* whose head is as much shorter */
    p->items += (size_t)(ref - begin);
    p->at = to;
    p->room = (size_t)(to_end - to);
    p->last = last;
    p->last_len = last_len;
}

/* Inside the epoch: leaves until the batch is full or the scan is over (RX_END). */
static int rx_scan_batch(struct rx_thread *t, struct rx_scan *s, struct rx_pack *p, size_t max_items, int values)
{
    struct rx_cursor *c = &s->cursor;
    c->eager = max_items >= ((s->reverse ? s->start : s->stop) ? RX_EAGER_IN_RANGE : RX_EAGER_ITEMS);
    c->wanted = max_items < UINT32_MAX ? (uint32_t)max_items : UINT32_MAX;
    if (s->begun) {
        p->last = s->last;
        p->last_len = s->last_len;
    }
    int rc = rx_scan_seek(s, t->map);
    while (rc == RX_OK) {
        if (c->leaf_last <= RX_SHORT_BYTES) /* as the last leaf was; of longer ones the copying counts, and a try for nothing */
            rx_scan_run(t, s, p, max_items, values);
        if (p->items == max_items)
            break;
        rx_ref leaf;
        struct rx_leaf_view view;
        c->wanted = max_items - p->items < UINT32_MAX ? (uint32_t)(max_items - p->items) : UINT32_MAX;
        rc = rx_cursor_step(c, &leaf);
        if (rc == RX_OK && (rc = rx_leaf_view(t->map, leaf, &view)) == RX_ABSENT) { /* its batch has removed it */
            rc = RX_OK;
            continue;
        }
        if (rc)
            return rc;
        rx_scan_saw(c, values ? view.cell_size : (RX_LEAF_HEAD + view.key_len + 7) & ~7ull);
        if (rx_scan_past(s, view.key, view.key_len))
            return RX_END;
        if (p->last && !rx_scan_follows(&view, p->last, p->last_len, s->reverse))
            return rx_corrupt(rx_ref_off(leaf), "keys are out of order");
        rc = rx_pack_record(t, p, &view, values) ? RX_OK : RX_TOO_SMALL;
    }
    return rc == RX_TOO_SMALL && p->items ? RX_OK : rc;
}

/* Where the next batch goes on. */
static int rx_scan_remember(struct rx_scan *s, const struct rx_pack *p)
{
    if (p->items == 0)
        return RX_OK;
    if (p->last_len > s->last_capacity || s->last == NULL) {
        size_t capacity = p->last_len < 64 ? 64 : p->last_len * 2;
        uint8_t *grown = rx_sys_realloc(s->last, capacity);
        if (grown == NULL)
            return rx_fail(RX_E_MEMORY, 0, "for a scan's position");
        s->last = grown;
        s->last_capacity = capacity;
    }
    memcpy(s->last, p->last, p->last_len);
    s->last_len = p->last_len;
    s->begun = true;
    s->remaining -= p->items;
    return RX_OK;
}

int rx_scan_next(rx_index *h, rx_thread *given, rx_scan *s, void *buffer, size_t capacity, size_t max_items,
                 int values, size_t *items, size_t *need)
{
    struct rx_thread *t;
    *items = 0;
    int rc = rx_call_begin(h, given, &t), left;
    if (rc)
        return rc;
    if (max_items > s->remaining)
        max_items = s->remaining;
    struct rx_pack p = {0};
    if (s->over || max_items == 0) {
        rx_call_end(t);
        return RX_END;
    }
    do {
        p = (struct rx_pack){.at = buffer, .room = capacity};
        left = RX_OK;
        rc = rx_enter_read(t);
        if (rc)
            break;
        rc = rx_scan_batch(t, s, &p, max_items, values);
        left = rx_leave_read(t);
    } while (left == RX_I_EVICTED);
    rx_call_end(t);
    *need = p.need;
    if (left || rc < 0 || rc == RX_TOO_SMALL)
        return left ? left : rc;
    s->over = rc == RX_END;
    *items = p.items;
    rc = rx_scan_remember(s, &p);
    return rc ? rc : p.items ? RX_OK : RX_END;
}

/* ---- the edges ------------------------------------------------------------------------ */

int rx_edge(rx_index *h, rx_thread *given, int which, const void *key, size_t key_len, void *buffer, size_t capacity,
            size_t *need)
{
    struct rx_thread *t;
    struct rx_cursor c;
    int rc = rx_call_begin(h, given, &t), left;
    if (rc)
        return rc;
    rx_cursor_init(&c);
    do {
        struct rx_pack p = {.at = buffer, .room = capacity};
        rx_ref leaf;
        struct rx_leaf_view view;
        left = RX_OK;
        rc = rx_enter_read(t);
        if (rc)
            break;
        bool down = which == 1 || which == 2;
        const uint8_t *bound = which >= 2 ? (key ? key : (const uint8_t *)"") : NULL;
        rc = down ? rx_cursor_seek_down(&c, t->map, bound, key_len, true)
                  : rx_cursor_seek(&c, t->map, bound, key_len, false);
        do {
            if (rc == RX_OK || rc == RX_ABSENT)
                rc = rx_cursor_step(&c, &leaf);
            if (rc == RX_OK)
                rc = rx_leaf_view(t->map, leaf, &view);
        } while (rc == RX_ABSENT); /* its batch has removed it */
        if (rc == RX_OK && !rx_pack_record(t, &p, &view, 1))
            rc = RX_TOO_SMALL;
        *need = p.need;
        left = rx_leave_read(t);
    } while (left == RX_I_EVICTED);
    rx_cursor_free(&c);
    rx_call_end(t);
    return left ? left : rc == RX_END ? RX_ABSENT : rc;
}
