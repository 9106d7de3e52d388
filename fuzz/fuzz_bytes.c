/*
 * fuzz_bytes.c -- arbitrary bytes as the files of an index, guided by what they reach in the core.
 *
 *   fuzz_bytes [--seed N] [--count N] [--first N] [--duration S] [--corpus DIR] [--keep DIR] [--folder DIR]
 *   fuzz_bytes --replay SCRIPT
 *
 * A case is a script (mutate.h) that damages valid files: a data file closed cleanly, or left by one who
 * died; the same with lock file and log, on this boot (what the ring still holds is rescued) or after a
 * loss of power (checkpoint and log are recovered from).  It is opened and used; whatever the bytes, each
 * call answers or refuses.  The core is compiled with -fsanitize-coverage=trace-pc; scripts that reach
 * something new join the corpus (--keep writes them; with --count 0 those of --corpus without which an edge
 * would be missed).  Cases run in a worker, whose end by a signal or a sanitizer, a page touched beyond a
 * file's end, descriptors or memory that stay, and a case that takes longer than TOO_LONG_S fail the run: the
 * script is written to failing.script.
 */
#define _GNU_SOURCE
#include <poll.h>
#include <signal.h>
#include <sys/mman.h>
#include "mutate.h"

#define MAP_BYTES 65536u
#define CORPUS_MAX 20000u
#define WORKER_CASES 400u
#define TOO_LONG_S 30
#define WAIT_NS 100000
#define ANSWER_BYTES 65536u

struct shared { struct script script; uint8_t map[MAP_BYTES]; };
static struct shared *shared;
static struct image valid[TARGETS], damaged[TARGETS];
static char work[450], path[500];
static struct sigaction sigbus_at_start;

static __thread uintptr_t cov_before;
/* An edge is two places that follow each other in one thread. */
void __attribute__((no_sanitize_address, no_sanitize_undefined)) __sanitizer_cov_trace_pc(void)
{
    uintptr_t here = (uintptr_t)__builtin_return_address(0);
    here = here >> 2 ^ here >> 15;
    if (shared)
        shared->map[(here ^ cov_before) % MAP_BYTES]++;
    cov_before = here >> 1;
}

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
        looked(rx_edge(index, NULL, which, key, image_key((unsigned)fuzz_below(dice, 450), key), answer, sizeof answer, &need));
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

/* ---- the worker --------------------------------------------------------------------------- */

static unsigned descriptors(void)
{
    unsigned count = 0;
    DIR *folder = opendir("/proc/self/fd");
    while (readdir(folder))
        count++;
    closedir(folder);
    return count;
}

static void worker(int ask, int tell)
{
    char byte;
    unsigned cases = 0, open_before = 0, open_now;
    const struct rx_options memory = {.mode = 'c', .checksum = -1, .fences = -1, .max_size = UINT64_MAX, .umask_mode = 0666};
    rx_index *index;
    fuzz_expect(RX_OK, rx_open(&memory, &index), "open");
    rx_close(index);
    rx_free(index);
    sigaction(SIGBUS, &sigbus_at_start, NULL); /* not the core's, which would go on */
    while (read(ask, &byte, 1) == 1) {
        case_run(&shared->script);
        if (cases++ == 1)
            open_before = descriptors();
        else if (cases > 2 && (open_now = descriptors()) > open_before)
            fuzz_fail("%u descriptors stayed open", open_now - open_before);
        if (write(tell, &byte, 1) != 1)
            break;
    }
    exit(0); /* where memory that stayed is told */
}

struct child { pid_t pid; int ask, tell; unsigned cases; };

static void child_start(struct child *c)
{
    int ask[2], tell[2];
    if (pipe2(ask, O_CLOEXEC) != 0 || pipe2(tell, O_CLOEXEC) != 0 || (c->pid = fork()) < 0)
        fuzz_fail("no worker");
    if (c->pid == 0) {
        close(ask[1]);
        close(tell[0]);
        worker(ask[0], tell[1]);
    }
    close(ask[0]);
    close(tell[1]);
    *c = (struct child){c->pid, ask[1], tell[0], 0};
}

/* The worker's status, as of waitpid(2). */
static int child_end(struct child *c)
{
    int status = 0;
    close(c->ask);
    close(c->tell);
    waitpid(c->pid, &status, 0);
    c->pid = 0;
    return status;
}

/* False: it died or hangs, or what it left says that something is wrong. */
static bool child_run(struct child *c)
{
    char byte = 0;
    if (c->pid == 0)
        child_start(c);
    memset(shared->map, 0, sizeof shared->map);
    struct pollfd told = {.fd = c->tell, .events = POLLIN};
    if (write(c->ask, &byte, 1) != 1 || poll(&told, 1, TOO_LONG_S * 1000) != 1) {
        fprintf(stderr, "the case takes longer than %d s\n", TOO_LONG_S);
        kill(c->pid, SIGABRT);
        child_end(c);
        return false;
    }
    if (read(c->tell, &byte, 1) != 1) {
        fprintf(stderr, "the worker ended with status %#x\n", (unsigned)child_end(c));
        return false;
    }
    return ++c->cases < WORKER_CASES || child_end(c) == 0;
}

/* ---- the corpus ----------------------------------------------------------------------------- */

static struct script *corpus;
static size_t corpus_count;
static uint8_t seen[MAP_BYTES]; /* classes of counts, a bit each */

static bool seen_is_new(bool edges_alone)
{
    bool new = false;
    for (size_t i = 0; i < MAP_BYTES; i++) {
        unsigned n = shared->map[i];
        if (n == 0)
            continue;
        uint8_t class = edges_alone ? 1 : n < 4 ? (uint8_t)(1u << (n - 1)) : n < 8 ? 8 : n < 16 ? 16 : n < 32 ? 32 : n < 128 ? 64 : 128;
        new |= (seen[i] & class) == 0;
        seen[i] |= class;
    }
    return new;
}

static void script_write(const struct script *s, const char *folder, const char *name)
{
    char full[600];
    snprintf(full, sizeof full, "%s/%s", folder, name);
    int fd = open(full, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    if (fd < 0 || write(fd, s, script_bytes(s)) != (ssize_t)script_bytes(s))
        fprintf(stderr, "%s cannot be written\n", full);
    close(fd);
}

static bool script_read(struct script *s, const char *name)
{
    *s = (struct script){0};
    int fd = open(name, O_RDONLY | O_CLOEXEC);
    bool is = fd >= 0 && read(fd, s, sizeof *s) >= (ssize_t)offsetof(struct script, change);
    close(fd);
    s->count = s->count < SCRIPT_OPS ? s->count : SCRIPT_OPS;
    return is;
}

static void corpus_add(const struct script *s, const char *keep, uint64_t number)
{
    char name[40];
    if (corpus_count == CORPUS_MAX)
        return;
    corpus[corpus_count++] = *s;
    snprintf(name, sizeof name, "%u-%llu.script", s->target % TARGETS, (unsigned long long)number);
    if (keep)
        script_write(s, keep, name);
}

struct run { uint64_t seed, count, first, duration; const char *corpus, *keep, *folder, *replay; };

static void failed(uint64_t number, const struct run *run)
{
    script_write(&shared->script, ".", "failing.script");
    fprintf(stderr, "FAILED: case %llu of seed %llu; repeat with: fuzz_bytes --replay failing.script\n",
            (unsigned long long)number, (unsigned long long)run->seed);
    image_remove_under(work);
    rmdir(work);
    exit(1);
}

static void corpus_load(struct child *c, const struct run *run)
{
    struct dirent **entries;
    char full[600];
    int count = scandir(run->corpus, &entries, NULL, alphasort);
    for (int i = 0; i < count; i++) {
        snprintf(full, sizeof full, "%s/%s", run->corpus, entries[i]->d_name);
        if (strstr(entries[i]->d_name, ".script") && script_read(&shared->script, full)) {
            struct script s = shared->script;
            if (!child_run(c))
                failed(0, run);
            if (seen_is_new(run->count == 0))
                corpus_add(&s, run->count ? NULL : run->keep, (uint64_t)i);
        }
        free(entries[i]);
    }
    free(count >= 0 ? entries : NULL);
}

static void script_choose(struct script *s, uint64_t *dice)
{
    uint64_t newest = fuzz_below(dice, 2) ? corpus_count - fuzz_below(dice, corpus_count < 50 ? corpus_count : 50) : 0;
    *s = newest ? corpus[newest - 1] : corpus[fuzz_below(dice, corpus_count)];
    script_mutate(s, &corpus[fuzz_below(dice, corpus_count)], dice);
}

static uint64_t fuzz(struct child *c, const struct run *run)
{
    double end = run->duration ? fuzz_now_s() + (double)run->duration : 0;
    uint64_t number = run->first;
    for (; (run->duration == 0 || fuzz_now_s() < end) && number - run->first < run->count; number++) {
        uint64_t dice = run->seed * 0x9E3779B97F4A7C15ull ^ number;
        script_choose(&shared->script, &dice);
        struct script s = shared->script;
        if (!child_run(c))
            failed(number, run);
        if (seen_is_new(false))
            corpus_add(&s, run->keep, number);
    }
    return number - run->first;
}

static void parse(int argc, char **argv, struct run *run)
{
    struct fuzz_option known[] = {
        {"--seed", &run->seed, NULL},         {"--count", &run->count, NULL},     {"--first", &run->first, NULL},
        {"--duration", &run->duration, NULL}, {"--corpus", NULL, &run->corpus},   {"--keep", NULL, &run->keep},
        {"--folder", NULL, &run->folder},     {"--replay", NULL, &run->replay},
    };
    fuzz_options(argc, argv, known, sizeof known / sizeof *known);
}

int main(int argc, char **argv)
{
    struct run run = {.seed = fuzz_random_seed(), .count = UINT64_MAX, .folder = access("/dev/shm", W_OK) ? "/tmp" : "/dev/shm"};
    struct child c = {0};
    parse(argc, argv, &run);
    signal(SIGPIPE, SIG_IGN);
    sigaction(SIGBUS, NULL, &sigbus_at_start);
    snprintf(work, sizeof work, "%s/rowex-bytes-XXXXXX", run.folder);
    if (mkdtemp(work) == NULL)
        fuzz_fail("%s cannot be made", work);
    snprintf(path, sizeof path, "%s/index.rowex", work);
    snprintf(fuzz_repeat, sizeof fuzz_repeat, "fuzz_bytes --seed %llu", (unsigned long long)run.seed);
    for (unsigned i = 0; i < TARGETS; i++)
        image_make(&valid[i], work, path, i);
    shared = mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    corpus = fuzz_alloc(CORPUS_MAX * sizeof *corpus);
    for (unsigned i = 0; i < TARGETS; i++)
        corpus[corpus_count++] = (struct script){.target = (uint8_t)i, .flags = SEAL_SUPER | SEAL_LEAVES | SEAL_LOG, .way = 0x7F};
    if (run.replay) {
        if (!script_read(&shared->script, run.replay))
            fuzz_fail("%s cannot be read", run.replay);
        case_run(&shared->script);
        puts("it was answered");
    } else {
        printf("seed %llu\n", (unsigned long long)run.seed);
        fflush(stdout);
        if (run.corpus)
            corpus_load(&c, &run);
        uint64_t cases = fuzz(&c, &run);
        if (c.pid && child_end(&c) != 0)
            failed(run.first + cases, &run);
        size_t edges = 0;
        for (size_t i = 0; i < MAP_BYTES; i++)
            edges += seen[i] != 0;
        printf("%llu cases, %zu edges, %zu scripts in the corpus; no crash, no hang\n", (unsigned long long)cases, edges, corpus_count);
    }
    for (unsigned i = 0; i < TARGETS; i++)
        image_free(&valid[i]);
    free(corpus);
    image_remove_under(work);
    rmdir(work);
    return 0;
}
