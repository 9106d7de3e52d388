/*
 * fuzz_ops.c -- random operations through the C API, each compared with a sorted array.
 *
 *   fuzz_ops [--seed N] [--count OPERATIONS] [--shape NAME] [--folder DIR]
 *
 * Shapes: short, prefix, binary, random, mixed; without --shape all of them in turn, `count`
 * operations each.  Exit status 1 and a way to repeat it at the first difference.
 */
#include "steps.h"

static void step(struct run *r)
{
    uint64_t dice = fuzz_below(&r->rng, 2000);
    if (dice < 6) { /* seldom: another session, a copy, what lasts */
        static void (*const rare[])(struct run *) = {op_reopen, op_compact, op_durable};
        rare[dice / 2](r);
    } else if (dice < 160) {
        static void (*const more[])(struct run *) = {op_scan, op_scan_prefix, op_scan_kept, op_many};
        more[dice < 40 ? 0 : dice < 60 ? 1 : dice < 80 ? 2 : 3](r);
    } else {
        int crowded = r->model.count > KEEP_MAX || (r->step / 4000) % 4 == 3; /* phases in which it shrinks */
        step_on_key(r, crowded && fuzz_below(&r->rng, 2) ? op_remove : on_key[fuzz_below(&r->rng, ON_KEY)]);
    }
}

static void run_shape(enum shape shape, const struct fuzz_args *args)
{
    struct run r = {.rng = args->seed ^ (uint64_t)shape << 56, .shape = shape};
    fuzz_files_name(r.path, sizeof r.path, args->folder, "fuzz_ops");
    fuzz_files_remove(r.path);
    r.options = (struct rx_options){.path = r.path, .mode = 'c', .checksum = (int)fuzz_below(&r.rng, 3) - 1,
                                    .fences = (int)fuzz_below(&r.rng, 3) - 1, .umask_mode = 0600,
                                    .max_size = UINT64_MAX};
    if (fuzz_below(&r.rng, 2)) /* so small that it has to be copied again and again */
        r.options.capacity = r.options.initial_size = 1 << 20;
    run_begin(&r);
    uint64_t interval = args->count / 8 + 1 < 5000 ? args->count / 8 + 1 : 5000;
    for (r.step = 0; r.step < args->count; r.step++) {
        step(&r);
        if (r.step % interval == interval - 1)
            compare_all(&r);
    }
    printf("%s: %llu operations, %zu keys at the end\n", shape_names[shape], (unsigned long long)args->count,
           r.model.count);
    run_end(&r);
    fuzz_files_remove(r.path);
}

int main(int argc, char **argv)
{
    struct fuzz_args args = {.seed = fuzz_random_seed(), .count = 20000};
    int known = 0;
    fuzz_parse(argc, argv, &args);
    setvbuf(stdout, NULL, _IOLBF, 0);
    for (int shape = 0; shape < SHAPES; shape++) {
        if (args.shape && strcmp(args.shape, shape_names[shape]) != 0)
            continue;
        known = 1;
        snprintf(fuzz_repeat, sizeof fuzz_repeat, "fuzz_ops --seed %llu --count %llu --shape %s",
                 (unsigned long long)args.seed, (unsigned long long)args.count, shape_names[shape]);
        printf("%s\n", fuzz_repeat);
        run_shape((enum shape)shape, &args);
    }
    if (!known)
        fprintf(stderr, "no such shape: %s\n", args.shape);
    return known ? 0 : 2;
}
