/*
 * shapes.h -- kinds of keys, each hard on another part of the tree.
 */
#ifndef ROWEX_FUZZ_SHAPES_H
#define ROWEX_FUZZ_SHAPES_H

#include "fuzz.h"

enum shape { SHORT, PREFIX, BINARY, RANDOM, MIXED, SHAPES };
static const char *const shape_names[SHAPES] = {"short", "prefix", "binary", "random", "mixed"};

#define KEY_ROOM 140000u

static size_t key_short(uint64_t *rng, uint8_t *out)
{
    size_t size = fuzz_below(rng, 5);
    for (size_t i = 0; i < size; i++)
        out[i] = (uint8_t)('a' + fuzz_below(rng, i == 0 ? 20 : 6));
    return size;
}

/* One of few long prefixes, sometimes cut, and a short end: splits, merges and chains of prefixes. */
static size_t key_prefix(uint64_t *rng, uint8_t *out)
{
    static const uint32_t lengths[] = {3, 9, 254, 255, 256, 257, 1000, 4000, 65535, 65536, 70000, 131100};
    size_t which = fuzz_below(rng, fuzz_below(rng, 20) ? 8 : sizeof lengths / sizeof *lengths);
    size_t size = lengths[which];
    if (fuzz_below(rng, 4) == 0)
        size -= fuzz_below(rng, size < 12 ? size : 12);
    memset(out, 'p', size);
    if (fuzz_below(rng, 3) == 0)
        out[size / 2] = (uint8_t)('p' + fuzz_below(rng, 3));
    for (uint64_t n = fuzz_below(rng, 4); n; n--)
        out[size++] = (uint8_t)fuzz_below(rng, 40);
    return size;
}

static size_t key_binary(uint64_t *rng, uint8_t *out)
{
    static const uint8_t likely[] = {0, 0, 0, 1, 127, 128, 255, 255};
    size_t size = fuzz_below(rng, 9);
    for (size_t i = 0; i < size; i++)
        out[i] = fuzz_below(rng, 6) ? likely[fuzz_below(rng, sizeof likely)] : (uint8_t)fuzz_next(rng);
    return size;
}

static size_t key_random(uint64_t *rng, uint8_t *out)
{
    uint64_t state = fuzz_below(rng, 8000) * 0x1234567;
    fuzz_bytes(&state, out, 8);
    return 8;
}

static size_t (*const make_shape[MIXED])(uint64_t *, uint8_t *) = {key_short, key_prefix, key_binary, key_random};

#endif
