/*
 * operations.h -- operations on keys through the C API, each compared with the model: on one key, on many
 * one after the other, on many at one instant.
 */
#ifndef ROWEX_FUZZ_OPERATIONS_H
#define ROWEX_FUZZ_OPERATIONS_H

#include "fuzz.h"
#include "model.h"
#include "shapes.h"
#include "../rowex/native/format.h"

#define MANY_MAX 40u
#define KEPT_MAX 2u

/* A scan that stays open while keys come and go; no scan: none does. */
struct kept { rx_scan *scan; struct bytes start, stop, last; int reverse; int64_t limit; };

struct run {
    uint64_t rng;
    enum shape shape;
    char path[400];
    struct rx_options options;
    rx_index *index;
    rx_thread *writer; /* an explicit uid, or NULL */
    struct model model;
    uint8_t *buffer; /* for answers */
    size_t buffer_size;
    struct kept kept[KEPT_MAX];
    uint64_t step;
};

/* ---- keys and values ---------------------------------------------------------------- */

static struct bytes make_new_key(struct run *r)
{
    static uint8_t room[KEY_ROOM];
    size_t shape = r->shape == MIXED ? fuzz_below(&r->rng, MIXED) : r->shape;
    return bytes_copy((struct bytes){room, make_shape[shape](&r->rng, room)});
}

/* A new key of the run's shape, or (half of the time) one that the model has. */
static struct bytes make_key(struct run *r)
{
    if (r->model.count && fuzz_below(&r->rng, 2))
        return bytes_copy(r->model.pairs[fuzz_below(&r->rng, r->model.count)].key);
    return make_new_key(r);
}

/* Mostly small; now and then about the limits of the small leaf and of the free lists' classes. */
static struct bytes make_value(struct run *r)
{
    size_t size = fuzz_below(&r->rng, 40);
    uint64_t dice = fuzz_below(&r->rng, 200);
    if (dice < 10)
        size = 960 + fuzz_below(&r->rng, 90);
    else if (dice < 16)
        size = 3900 + fuzz_below(&r->rng, 500);
    else if (dice == 16)
        size = 65000 + fuzz_below(&r->rng, 140000);
    struct bytes value = {fuzz_alloc(size), size};
    fuzz_bytes(&r->rng, value.at, size);
    return value;
}

static void answer_room(struct run *r, size_t size)
{
    if (size <= r->buffer_size)
        return;
    free(r->buffer);
    r->buffer = fuzz_alloc(size);
    r->buffer_size = size;
}

/* ---- operations on one key --------------------------------------------------------- */

#define RETRY(rc, call) do (rc) = (call); while ((rc) == RX_WOULD_WAIT)
#define WAIT_NS 1000000000

static void expect_value(struct run *r, struct bytes expected, const uint8_t *got, size_t size, const char *what)
{
    if (expected.size != size || memcmp(expected.at, got, size) != 0)
        fuzz_fail("step %llu, %s: a value of %zu bytes instead of one of %zu, or other bytes",
                  (unsigned long long)r->step, what, size, expected.size);
}

static void op_get(struct run *r, struct bytes key)
{
    int found, rc;
    size_t at = model_find(&r->model, key, &found), size = 0;
    fuzz_expect(found ? RX_OK : RX_ABSENT, rx_exists(r->index, r->writer, key.at, key.size), "exists");
    rc = rx_get(r->index, r->writer, key.at, key.size, r->buffer, r->buffer_size, &size);
    if (rc == RX_TOO_SMALL) {
        answer_room(r, size);
        rc = rx_get(r->index, r->writer, key.at, key.size, r->buffer, r->buffer_size, &size);
    }
    fuzz_expect(found ? RX_OK : RX_ABSENT, rc, "get");
    if (found)
        expect_value(r, r->model.pairs[at].value, r->buffer, size, "get");
}

static void op_put(struct run *r, struct bytes key)
{
    int rc;
    struct bytes value = make_value(r);
    RETRY(rc, rx_put(r->index, r->writer, key.at, key.size, value.at, value.size, WAIT_NS, NULL));
    fuzz_expect(RX_OK, rc, "put");
    model_put(&r->model, key, value);
    free(value.at);
}

static void op_insert(struct run *r, struct bytes key)
{
    int rc, found;
    struct bytes value = make_value(r);
    model_find(&r->model, key, &found);
    RETRY(rc, rx_insert(r->index, r->writer, key.at, key.size, value.at, value.size, WAIT_NS, NULL));
    fuzz_expect(found ? RX_PRESENT : RX_OK, rc, "insert");
    if (!found)
        model_put(&r->model, key, value);
    free(value.at);
}

static void op_remove(struct run *r, struct bytes key)
{
    int rc, found;
    size_t at = model_find(&r->model, key, &found);
    RETRY(rc, rx_remove(r->index, r->writer, key.at, key.size, WAIT_NS, NULL));
    fuzz_expect(found ? RX_OK : RX_ABSENT, rc, "remove");
    if (found)
        model_remove(&r->model, at);
}

static void op_take(struct run *r, struct bytes key)
{
    int rc, found;
    size_t size = 0, at = model_find(&r->model, key, &found);
    uint8_t little[16];
    RETRY(rc, rx_take(r->index, r->writer, key.at, key.size, little, sizeof little, &size, WAIT_NS, NULL));
    int fits = found && r->model.pairs[at].value.size <= sizeof little;
    fuzz_expect(!found ? RX_ABSENT : fits ? RX_OK : RX_TOO_SMALL, rc, "take");
    if (!found)
        return;
    if (size != r->model.pairs[at].value.size)
        fuzz_fail("take told %zu bytes instead of %zu", size, r->model.pairs[at].value.size);
    if (!fits)
        return;
    expect_value(r, r->model.pairs[at].value, little, size, "take");
    model_remove(&r->model, at);
}

static void op_compare_and_set(struct run *r, struct bytes key)
{
    int rc, found;
    size_t at = model_find(&r->model, key, &found);
    struct bytes expected = {NULL, 0}, value = {NULL, 0};
    uint64_t dice = fuzz_below(&r->rng, 4);
    if (found && dice)
        expected = dice == 1 ? make_value(r) : bytes_copy(r->model.pairs[at].value);
    else if (!found && dice == 1)
        expected = make_value(r);
    if (fuzz_below(&r->rng, 3))
        value = make_value(r);
    int matches = found ? expected.at && compare(expected, r->model.pairs[at].value) == 0 : expected.at == NULL;
    RETRY(rc, rx_compare_and_set(r->index, r->writer, key.at, key.size, expected.at, expected.size, value.at,
                                 value.size, WAIT_NS, NULL));
    fuzz_expect(matches ? RX_OK : RX_MISMATCH, rc, "compare_and_set");
    if (matches && value.at)
        model_put(&r->model, key, value);
    else if (matches && found)
        model_remove(&r->model, at);
    free(expected.at);
    free(value.at);
}

/* ---- operations on many ----------------------------------------------------------------- */

struct many {
    size_t n, key_len[MANY_MAX], value_len[MANY_MAX];
    struct bytes key[MANY_MAX], value[MANY_MAX];
    const void *keys[MANY_MAX], *values[MANY_MAX];
};

static void many_add(struct many *m, struct bytes key, struct bytes value)
{
    size_t i = m->n++;
    m->key[i] = key;
    m->value[i] = value;
    m->keys[i] = key.at;
    m->values[i] = value.at;
    m->key_len[i] = key.size;
    m->value_len[i] = value.size;
}

/* Any keys or, now and then, neighbours: what hangs below a node goes together. */
static void many_make(struct run *r, struct many *m)
{
    size_t n = fuzz_below(&r->rng, MANY_MAX), at = r->model.count;
    if (fuzz_below(&r->rng, 8) == 0)
        at = fuzz_below(&r->rng, at);
    for (m->n = 0; n; n--, at++) {
        struct bytes key = at < r->model.count ? bytes_copy(r->model.pairs[at].key) : make_key(r);
        many_add(m, key, make_value(r));
    }
}

static void many_free(struct many *m)
{
    for (size_t i = 0; i < m->n; i++) {
        free(m->key[i].at);
        free(m->value[i].at);
    }
}

static void op_put_many(struct run *r, struct many *m)
{
    for (size_t from = 0; from < m->n;) {
        size_t done = 0;
        int rc = rx_put_many(r->index, r->writer, m->n - from, m->keys + from, m->key_len + from, m->values + from,
                             m->value_len + from, WAIT_NS, &done, NULL);
        from += done;
        if (rc != RX_WOULD_WAIT) {
            fuzz_expect(RX_OK, rc, "put_many");
            if (from != m->n)
                fuzz_fail("put_many: %zu of %zu done", from, m->n);
        }
    }
    for (size_t i = 0; i < m->n; i++)
        model_put(&r->model, m->key[i], m->value[i]);
}

static void op_remove_many(struct run *r, struct many *m)
{
    size_t removed = 0, expected = 0;
    for (size_t from = 0; from < m->n;) {
        size_t done = 0, now = 0;
        int rc = rx_remove_many(r->index, r->writer, m->n - from, m->keys + from, m->key_len + from, WAIT_NS, &done,
                                &now, NULL);
        from += done;
        removed += now;
        if (rc != RX_WOULD_WAIT) {
            fuzz_expect(RX_OK, rc, "remove_many");
            if (from != m->n)
                fuzz_fail("remove_many: %zu of %zu done", from, m->n);
        }
    }
    for (size_t i = 0; i < m->n; i++) {
        int found;
        size_t at = model_find(&r->model, m->key[i], &found);
        if (found)
            model_remove(&r->model, at);
        expected += (size_t)found;
    }
    if (removed != expected)
        fuzz_fail("remove_many removed %zu keys instead of %zu", removed, expected);
}

/* Answers for the keys from `from` on, out of the buffer. */
static void get_many_compare(struct run *r, const struct many *m, size_t from, size_t done, const uint64_t *sizes)
{
    const uint8_t *value = r->buffer;
    for (size_t i = 0; i < done; i++) {
        int found;
        size_t at = model_find(&r->model, m->key[from + i], &found);
        if (found != (sizes[i] != UINT64_MAX))
            fuzz_fail("get_many: key %zu is %s", from + i, found ? "missing" : "invented");
        if (!found)
            continue;
        expect_value(r, r->model.pairs[at].value, value, sizes[i], "get_many");
        value += sizes[i];
    }
}

static void op_get_many(struct run *r, struct many *m)
{
    size_t room = fuzz_below(&r->rng, 600);
    for (size_t from = 0; from < m->n;) {
        uint64_t sizes[MANY_MAX];
        size_t done = 0, need = 0;
        answer_room(r, room);
        int rc = rx_get_many(r->index, r->writer, m->n - from, m->keys + from, m->key_len + from, r->buffer, room,
                             sizes, &done, &need);
        get_many_compare(r, m, from, done, sizes);
        from += done;
        if (rc == RX_TOO_SMALL) {
            if (need > room)
                room = need;
            else if (done == 0)
                fuzz_fail("get_many: too small, yet %zu bytes suffice and there are %zu", need, room);
        } else {
            fuzz_expect(RX_OK, rc, "get_many");
        }
        if (rc == RX_OK && from != m->n)
            fuzz_fail("get_many: %zu of %zu done", from, m->n);
    }
}

/* The keys in order, each once; *sorted owns them. */
static void batch_make(struct run *r, const struct many *from, struct model *sorted, struct many *m)
{
    for (size_t i = 0; i < from->n; i++)
        model_put(sorted, from->key[i], from->value[i]);
    m->n = 0;
    for (size_t i = 0; i < sorted->count; i++) {
        many_add(m, sorted->pairs[i].key, sorted->pairs[i].value);
        if (fuzz_below(&r->rng, 4) == 0)
            m->values[i] = NULL;
    }
}

static void op_batch(struct run *r, struct many *from)
{
    struct many m;
    struct model sorted = {0};
    int rc, found;
    batch_make(r, from, &sorted, &m);
    RETRY(rc, rx_batch_apply(r->index, r->writer, m.n, m.keys, m.key_len, m.values, m.value_len, WAIT_NS, NULL));
    fuzz_expect(RX_OK, rc, "batch_apply");
    for (size_t i = 0; i < m.n; i++) {
        size_t at = model_find(&r->model, m.key[i], &found);
        if (m.values[i])
            model_put(&r->model, m.key[i], m.value[i]);
        else if (found)
            model_remove(&r->model, at);
    }
    model_clear(&sorted);
}

static void op_many(struct run *r)
{
    static void (*const ops[])(struct run *, struct many *) = {op_put_many, op_get_many, op_remove_many, op_batch};
    struct many m;
    many_make(r, &m);
    ops[fuzz_below(&r->rng, 4)](r, &m);
    many_free(&m);
}

#endif
