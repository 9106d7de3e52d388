/*
 * model.h -- what an index must be like: an array of pairs, sorted by key.
 */
#ifndef ROWEX_FUZZ_MODEL_H
#define ROWEX_FUZZ_MODEL_H

#include "fuzz.h"

struct bytes { uint8_t *at; size_t size; };
struct pair { struct bytes key, value; };
struct model { struct pair *pairs; size_t count, room; };

static inline int compare(struct bytes a, struct bytes b)
{
    int order = memcmp(a.at, b.at, a.size < b.size ? a.size : b.size);
    return order ? order : (a.size > b.size) - (a.size < b.size);
}

/* Where `key` is, or would be. */
static inline size_t model_find(const struct model *m, struct bytes key, int *found)
{
    size_t low = 0, high = m->count;
    while (low < high) {
        size_t middle = (low + high) / 2;
        if (compare(m->pairs[middle].key, key) < 0)
            low = middle + 1;
        else
            high = middle;
    }
    *found = low < m->count && compare(m->pairs[low].key, key) == 0;
    return low;
}

static inline struct bytes bytes_copy(struct bytes from)
{
    struct bytes to = {fuzz_alloc(from.size), from.size};
    memcpy(to.at, from.at, from.size);
    return to;
}

static inline void model_put(struct model *m, struct bytes key, struct bytes value)
{
    int found;
    size_t at = model_find(m, key, &found);
    if (found) {
        free(m->pairs[at].value.at);
        m->pairs[at].value = bytes_copy(value);
        return;
    }
    if (m->count == m->room) {
        m->room = m->room ? 2 * m->room : 1024;
        m->pairs = realloc(m->pairs, m->room * sizeof *m->pairs);
        if (m->pairs == NULL)
            abort();
    }
    memmove(m->pairs + at + 1, m->pairs + at, (m->count - at) * sizeof *m->pairs);
    m->pairs[at] = (struct pair){bytes_copy(key), bytes_copy(value)};
    m->count++;
}

static inline void model_remove(struct model *m, size_t at)
{
    free(m->pairs[at].key.at);
    free(m->pairs[at].value.at);
    memmove(m->pairs + at, m->pairs + at + 1, (m->count - at - 1) * sizeof *m->pairs);
    m->count--;
}

static inline void model_clear(struct model *m)
{
    while (m->count)
        model_remove(m, m->count - 1);
    free(m->pairs);
    *m = (struct model){0};
}

#endif
