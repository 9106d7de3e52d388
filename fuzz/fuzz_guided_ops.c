/*
 * fuzz_guided_ops.c -- operations through the C API, each compared with a sorted array, guided by what they reach
 * in the core (guide.h).
 *
 * A case is a script (sequence.h): an index is made, given some keys, changed and asked step by step (steps.h),
 * compared as a whole, checked, closed, opened again and compared once more.
 */
#define _GNU_SOURCE
#include "sequence.h"
#include "steps.h"
#include "guide.h"

static void (*const at_large[])(struct run *) = {
    op_many, op_many, op_many, op_many, op_scan, op_scan, op_scan_prefix, op_scan_prefix, op_scan_kept, op_scan_kept,
    op_scan_kept, op_scan_kept, op_durable, op_reopen, op_compact,
};
#define AT_LARGE (sizeof at_large / sizeof *at_large)

static void put_start(struct run *r, uint32_t keys)
{
    struct many m;
    while (keys) {
        for (m.n = 0; m.n < MANY_MAX && keys; keys--) {
            struct bytes value = {fuzz_alloc(20), fuzz_below(&r->rng, 20)};
            fuzz_bytes(&r->rng, value.at, value.size);
            many_add(&m, make_new_key(r), value);
        }
        op_put_many(r, &m);
        many_free(&m);
    }
}

static void step(struct run *r, uint64_t word)
{
    uint64_t operation = (word & 255) % (ON_KEY + AT_LARGE);
    r->rng = word >> 8;
    if (operation < ON_KEY)
        step_on_key(r, on_key[operation]);
    else
        at_large[operation - ON_KEY](r);
    r->step++;
}

static void case_run(const struct script *s)
{
    struct run r = {.rng = s->seed, .shape = script_kind(s)};
    snprintf(r.path, sizeof r.path, "%.380s", path);
    r.options = (struct rx_options){.path = r.path, .mode = 'c', .checksum = (s->options & WITH_CHECKSUM) != 0,
                                    .fences = s->options & WITH_FENCES ? 1 : -1, .umask_mode = 0600,
                                    .max_size = UINT64_MAX, .durability = RX_D_BATCH};
    if (s->options & SMALL) /* has to be copied again and again */
        r.options.capacity = r.options.initial_size = 1 << 18;
    if (s->options & EACH_COMMIT)
        r.options.durability = RX_D_COMMIT;
    if (s->options & UNLOGGED)
        r.options.durability = RX_D_PROCESS;
    count_once = true; /* else the size of the tree alone would make a case */
    run_begin(&r);
    put_start(&r, s->keys % START_KEYS_MAX);
    count_once = false;
    for (unsigned i = 0; i < s->count; i++)
        step(&r, s->step[i]);
    count_once = true;
    run_end(&r);
    fuzz_remove_under(work);
}

int main(int argc, char **argv)
{
    struct script first[2 * SHAPES];
    for (unsigned i = 0; i < 2 * SHAPES; i++)
        first[i] = (struct script){.shape = (uint8_t)(i % SHAPES), .keys = i < SHAPES ? 0 : 300,
                                   .options = i < SHAPES ? WITH_CHECKSUM | UNLOGGED : WITH_CHECKSUM};
    const struct guide ops = {.name = "scripts/fuzz-guided ops", .well = "no difference, no crash, no hang",
                              .case_run = case_run, .first = first, .firsts = 2 * SHAPES};
    return guide_main(argc, argv, &ops);
}
