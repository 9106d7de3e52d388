/*
 * sequence.h -- for fuzz_guided_ops.c: a script is an index of some kind, what is in it at the start, and what is
 * done then, a word for each step: its low byte says which operation, the others are what the rest of the step is
 * drawn from.  So a mutation of a word touches no other step's draws, and one of its low byte does another thing
 * to the same key.
 */
#ifndef ROWEX_SEQUENCE_H
#define ROWEX_SEQUENCE_H

#include <stddef.h>
#include "shapes.h"

#define SCRIPT_ITEMS 64u
#define SCRIPT_HEAD offsetof(struct script, step)
#define START_KEYS_MAX 1500u

enum { WITH_CHECKSUM = 1, WITH_FENCES = 2, SMALL = 4, UNLOGGED = 8, EACH_COMMIT = 16 };

struct script {
    uint8_t shape, options;
    uint16_t count; /* steps */
    uint32_t keys;  /* put at the start, modulo */
    uint64_t seed;  /* of these */
    uint64_t step[SCRIPT_ITEMS];
};

static size_t script_bytes(const struct script *s) { return SCRIPT_HEAD + s->count * sizeof s->step[0]; }
static unsigned script_kind(const struct script *s) { return s->shape % SHAPES; }

/* ---- scripts from scripts ------------------------------------------------------------------ */

/* Few keys, or so many that nodes of every kind are there. */
static uint32_t keys_random(uint64_t *dice)
{
    static const uint32_t most[] = {1, 20, 100, 400, START_KEYS_MAX};
    return (uint32_t)fuzz_below(dice, most[fuzz_below(dice, sizeof most / sizeof *most)]);
}

/* Makes room for up to `count` steps at `at`; how many it is. */
static size_t steps_open(struct script *s, size_t at, size_t count)
{
    if (count > SCRIPT_ITEMS - s->count)
        count = SCRIPT_ITEMS - s->count;
    memmove(s->step + at + count, s->step + at, (s->count - at) * sizeof s->step[0]);
    s->count = (uint16_t)(s->count + count);
    return count;
}

static void steps_cut(struct script *s, size_t at, size_t count)
{
    if (count > s->count - at)
        count = s->count - at;
    s->count = (uint16_t)(s->count - count);
    memmove(s->step + at, s->step + at + count, (s->count - at) * sizeof s->step[0]);
}

static void mutate_head(struct script *s, uint64_t *dice)
{
    switch (fuzz_below(dice, 8)) {
    case 0: s->seed = fuzz_next(dice); break;
    case 1: s->shape = (uint8_t)fuzz_below(dice, SHAPES); break;
    case 2: case 3: s->keys = keys_random(dice); break;
    default: s->options ^= (uint8_t)(1u << fuzz_below(dice, 5)); break;
    }
}

/* One step becomes another: wholly, in what it does, or in what it does it to. */
static void mutate_step(struct script *s, size_t at, uint64_t *dice)
{
    uint64_t word = fuzz_next(dice), low = 255;
    switch (fuzz_below(dice, 3)) {
    case 0: s->step[at] = word; break;
    case 1: s->step[at] = (s->step[at] & ~low) | (word & low); break;
    default: s->step[at] = (s->step[at] & low) | (word & ~low); break;
    }
}

/* New steps: any, the same operation again and again, or those of another script. */
static void mutate_insert(struct script *s, size_t at, const struct script *other, uint64_t *dice)
{
    uint64_t how = fuzz_below(dice, 3), operation = fuzz_below(dice, 256), from = fuzz_below(dice, other->count);
    size_t count = steps_open(s, at, 1 + fuzz_below(dice, fuzz_below(dice, 2) ? 4 : 32));
    for (size_t i = at; i < at + count; i++) {
        s->step[i] = fuzz_next(dice);
        if (how == 1)
            s->step[i] = (s->step[i] & ~255ull) | operation;
        else if (how == 2 && from < other->count)
            s->step[i] = other->step[from++];
    }
}

static void script_random(struct script *s, uint64_t *dice)
{
    *s = (struct script){.shape = (uint8_t)fuzz_below(dice, SHAPES), .options = (uint8_t)fuzz_below(dice, 32),
                         .count = SCRIPT_ITEMS, .keys = keys_random(dice), .seed = fuzz_next(dice)};
    for (unsigned i = 0; i < SCRIPT_ITEMS; i++)
        s->step[i] = fuzz_next(dice);
}

static void script_mutate(struct script *s, const struct script *other, uint64_t *dice)
{
    uint64_t rounds = 1 + fuzz_below(dice, 4);
    if (fuzz_below(dice, 8) == 0) /* where no mutation leads */
        script_random(s, dice);
    while (rounds--) {
        size_t at = fuzz_below(dice, s->count), to = fuzz_below(dice, s->count);
        switch (s->count ? fuzz_below(dice, 10) : 0) {
        case 0: case 1: case 2: mutate_insert(s, at, other, dice); break;
        case 3: case 4: mutate_step(s, at, dice); break;
        case 5: steps_cut(s, at, 1 + fuzz_below(dice, fuzz_below(dice, 4) ? 3 : SCRIPT_ITEMS)); break;
        case 6: { /* again, elsewhere */
            uint64_t word = s->step[at];
            if (steps_open(s, to, 1))
                s->step[to] = word;
            break;
        }
        case 7: {
            uint64_t word = s->step[at];
            s->step[at] = s->step[to];
            s->step[to] = word;
            break;
        }
        default: mutate_head(s, dice); break;
        }
    }
}

#endif
