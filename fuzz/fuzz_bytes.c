/*
 * fuzz_bytes.c -- arbitrary bytes as the files of an index, guided by what they reach in the core (guide.h).
 *
 * A case is a script (mutate.h) that damages valid files: a data file closed cleanly, or left by one who
 * died; the same with lock file and log, on this boot (what the ring still holds is rescued) or after a
 * loss of power (checkpoint and log are recovered from).  It is opened and used; whatever the bytes, each
 * call answers or refuses.
 */
#define _GNU_SOURCE
#include "mutate.h"
#include "guide.h"

#define WAIT_NS 100000
#define ANSWER_BYTES 65536u

static struct image valid[TARGETS], damaged[TARGETS];

/* ---- using an index ------------------------------------------------------------------------ */

static uint8_t answer[ANSWER_BYTES];

/* Only a damaged disk can give this, and there is none: the core looked beyond the end of a file. */
static int looked(int rc)
{
    if (rc == RX_E_IO) {
        fprintf(stderr, "a page beyond the end of a file was touched: %s\n", rx_error_text());
        abort();
    }
    return rc;
}

/* Not more than a few times: whoever is waited for may be an invention of the file's. */
#define TRIED(call) do { \
    int tries = 0; \
    while ((rc = looked(call)) == RX_WOULD_WAIT && tries++ < 2) \
        ; \
} while (0)

static void use_lookups(rx_index *index, uint64_t *dice)
{
    uint8_t key[512];
    for (int i = 0; i < 60; i++) {
        size_t size = 0;
        looked(rx_get(index, NULL, key, image_key((unsigned)fuzz_below(dice, 450), key), answer, sizeof answer, &size));
    }
    for (int which = 0; which < 4; which++) {
        size_t need = 0;
        looked(rx_edge(index, NULL, which, key, image_key((unsigned)fuzz_below(dice, 450), key), answer, sizeof answer,
                       &need));
    }
}

static void use_scan(rx_index *index, int reverse)
{
    rx_scan *scan;
    size_t items, need;
    if (looked(rx_scan_open(index, NULL, 0, NULL, 0, reverse, 3000, &scan)) != RX_OK)
        return;
    while (looked(rx_scan_next(index, NULL, scan, answer, sizeof answer, 1000, need = 0, &items, &need)) == RX_OK)
        ;
    rx_scan_close(scan);
    if (looked(rx_scan_open(index, "m", 1, "o", 1, reverse, 1000, &scan)) != RX_OK)
        return;
    while (looked(rx_scan_next(index, NULL, scan, answer, sizeof answer, 50, 1, &items, &need)) == RX_OK)
        ;
    rx_scan_close(scan);
}

static void use_changes(rx_index *index, uint64_t *dice)
{
    uint8_t key[512];
    int rc, damage = 0;
    for (int i = 0; i < 40 && damage < 3; i++) {
        size_t size = image_key((unsigned)fuzz_below(dice, 500), key);
        if (fuzz_below(dice, 3))
            TRIED(rx_put(index, NULL, key, size, answer, fuzz_below(dice, i == 9 ? 5000 : 60), WAIT_NS, NULL));
        else
            TRIED(rx_remove(index, NULL, key, size, WAIT_NS, NULL));
        damage += rc == RX_E_CORRUPT;
    }
    const void *keys[] = {"mail/", "p", "zz"}, *values[] = {"1", "", NULL};
    size_t sizes[] = {5, 1, 2}, value_sizes[] = {1, 0, 0};
    uint64_t ticket;
    TRIED(rx_batch_apply(index, NULL, 3, keys, sizes, values, value_sizes, WAIT_NS, &ticket));
}

static void use_fault(void *ctx, uint64_t offset, const char *text)
{
    (void)ctx, (void)offset;
    if (*text == 0)
        abort();
}

/* What a user might do; `way` chooses. */
static void use(rx_index *index, uint32_t way)
{
    uint64_t dice = way, faults = 0, count;
    int rc;
    struct rx_stats stats;
    struct rx_log_info info;
    struct rx_info told;
    if (way & 1)
        use_lookups(index, &dice);
    if (way & 2)
        use_scan(index, way >> 8 & 1);
    if (way & 4)
        TRIED(rx_check(index, WAIT_NS, use_fault, NULL, &faults));
    if (way & 8)
        use_changes(index, &dice);
    if (way & 16)
        looked(rx_index_stats(index, &stats));
    if ((way & 32) && looked(rx_log_status(index, &info)) == RX_OK)
        TRIED(rx_wait_durable(index, NULL, info.position, WAIT_NS));
    if (way & 64)
        TRIED(way & 512 ? rx_compact(index, WAIT_NS) : rx_checkpoint(index, WAIT_NS));
    looked(rx_count(index, &count));
    looked(rx_index_info(index, &told));
    use_lookups(index, &dice);
    use_scan(index, way >> 9 & 1);
}

static void case_run(const struct script *s)
{
    static unsigned boots;
    char boot[40];
    rx_index *index;
    enum target target = s->target % TARGETS;
    struct image *im = &damaged[target];
    image_copy(im, &valid[target]);
    script_apply(s, im);
    image_put(im, work, path, target, !(s->flags & NOT_CLAIMED));
    snprintf(boot, sizeof boot, "later %d %u", (int)getpid(), boots++);
    if (target == RECOVERY)
        setenv("ROWEX_BOOT_ID", boot, 1);
    else
        unsetenv("ROWEX_BOOT_ID");
    struct rx_options options = {.path = path, .mode = s->flags & READ_ONLY ? 'r' : 'w', .checksum = -1, .fences = -1,
                                 .max_size = UINT64_MAX, .umask_mode = 0666, .flush_interval_ns = 60000000000};
    if (looked(rx_open(&options, &index)) != RX_OK)
        return;
    use(index, s->way);
    looked(rx_close(index));
    rx_free(index);
}

static void prepare(void)
{
    for (unsigned i = 0; i < TARGETS; i++)
        image_make(&valid[i], work, path, i);
}

static void end(void)
{
    for (unsigned i = 0; i < TARGETS; i++)
        image_free(&valid[i]);
}

int main(int argc, char **argv)
{
    struct script first[TARGETS];
    for (unsigned i = 0; i < TARGETS; i++)
        first[i] = (struct script){.target = (uint8_t)i, .flags = SEAL_SUPER | SEAL_LEAVES | SEAL_LOG, .way = 0x7F};
    const struct guide bytes = {.name = "scripts/fuzz-guided bytes", .well = "no crash, no hang", .case_run = case_run,
                                .prepare = prepare, .end = end, .first = first, .firsts = TARGETS};
    return guide_main(argc, argv, &bytes);
}
