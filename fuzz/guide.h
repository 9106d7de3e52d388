/*
 * guide.h -- fuzzing that is guided by coverage: the part that all such programs share.
 *
 *   PROGRAM [--seed N] [--count N] [--first N] [--duration S] [--corpus DIR] [--keep DIR] [--folder DIR]
 *   PROGRAM --replay SCRIPT
 *
 * The core is compiled with -fsanitize-coverage=trace-pc; scripts that reach something new join the corpus
 * (--keep writes them; with --count 0 those of --corpus without which an edge would be missed).  Cases run in
 * a worker, whose end by a signal, a sanitizer or fuzz_fail(), a page touched beyond a file's end, descriptors
 * or memory that stay, and a case that takes longer than TOO_LONG_S fail the run: the script is written to
 * failing.script.
 *
 * Who includes this has before it a struct script, any bytes of which are a case; it ends with a list of
 * `count` items, SCRIPT_ITEMS at most; SCRIPT_HEAD bytes stand before them.  And script_bytes(), script_kind()
 * and script_mutate().
 */
#ifndef ROWEX_GUIDE_H
#define ROWEX_GUIDE_H
#include <dirent.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include "fuzz.h"

#define MAP_BYTES 65536u
#define CORPUS_MAX 20000u
#define WORKER_CASES 400u
#define TOO_LONG_S 30

struct shared { struct script script; uint8_t map[MAP_BYTES]; };
static struct shared *shared;
static char work[450], path[500]; /* a folder, and an index in it */
static struct sigaction sigbus_at_start;

struct guide {
    const char *name; /* how the program is started */
    const char *well; /* what the cases did not show */
    void (*case_run)(const struct script *script);
    void (*prepare)(void), (*end)(void); /* or NULL: before any worker; after the last */
    const struct script *first; /* before any was found */
    size_t firsts;
};
static const struct guide *guide;

static bool count_once; /* for a while it is no news how often a place is reached, only that it is */
static __thread uintptr_t cov_before;
/* An edge is two places that follow each other in one thread. */
void __attribute__((no_sanitize_address, no_sanitize_undefined)) __sanitizer_cov_trace_pc(void)
{
    uintptr_t here = (uintptr_t)__builtin_return_address(0);
    here = here >> 2 ^ here >> 15;
    uint8_t *at = shared ? &shared->map[(here ^ cov_before) % MAP_BYTES] : NULL;
    if (at && !(count_once && *at))
        ++*at;
    cov_before = here >> 1;
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
    const struct rx_options memory = {.mode = 'c', .checksum = -1, .fences = -1, .max_size = UINT64_MAX,
                                      .umask_mode = 0666};
    rx_index *index;
    fuzz_expect(RX_OK, rx_open(&memory, &index), "open");
    rx_close(index);
    rx_free(index);
    sigaction(SIGBUS, &sigbus_at_start, NULL); /* not the core's, which would go on */
    while (read(ask, &byte, 1) == 1) {
        guide->case_run(&shared->script);
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
        uint8_t class = n < 4 ? (uint8_t)(1u << (n - 1)) : n < 8 ? 8 : n < 16 ? 16 : n < 32 ? 32 : n < 128 ? 64 : 128;
        class = edges_alone ? 1 : class;
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
    bool is = fd >= 0 && read(fd, s, sizeof *s) >= (ssize_t)SCRIPT_HEAD;
    close(fd);
    s->count = s->count < SCRIPT_ITEMS ? s->count : SCRIPT_ITEMS;
    return is;
}

static void corpus_add(const struct script *s, const char *keep, uint64_t number)
{
    char name[40];
    if (corpus_count == CORPUS_MAX)
        return;
    corpus[corpus_count++] = *s;
    snprintf(name, sizeof name, "%u-%llu.script", script_kind(s), (unsigned long long)number);
    if (keep)
        script_write(s, keep, name);
}

struct asked { uint64_t seed, count, first, duration; const char *corpus, *keep, *folder, *replay; };

static void failed(uint64_t number, const struct asked *asked)
{
    script_write(&shared->script, ".", "failing.script");
    fprintf(stderr, "FAILED: case %llu of seed %llu; repeat with: %s --replay failing.script\n",
            (unsigned long long)number, (unsigned long long)asked->seed, guide->name);
    fuzz_remove_under(work);
    rmdir(work);
    exit(1);
}

static void corpus_load(struct child *c, const struct asked *asked)
{
    struct dirent **entries;
    char full[600];
    int count = scandir(asked->corpus, &entries, NULL, alphasort);
    for (int i = 0; i < count; i++) {
        snprintf(full, sizeof full, "%s/%s", asked->corpus, entries[i]->d_name);
        if (strstr(entries[i]->d_name, ".script") && script_read(&shared->script, full)) {
            struct script s = shared->script;
            if (!child_run(c))
                failed(0, asked);
            if (seen_is_new(asked->count == 0))
                corpus_add(&s, asked->count ? NULL : asked->keep, (uint64_t)i);
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

static uint64_t fuzz(struct child *c, const struct asked *asked)
{
    double end = asked->duration ? fuzz_now_s() + (double)asked->duration : 0;
    uint64_t number = asked->first;
    for (; (asked->duration == 0 || fuzz_now_s() < end) && number - asked->first < asked->count; number++) {
        uint64_t dice = asked->seed * 0x9E3779B97F4A7C15ull ^ number;
        script_choose(&shared->script, &dice);
        struct script s = shared->script;
        if (!child_run(c))
            failed(number, asked);
        if (seen_is_new(false))
            corpus_add(&s, asked->keep, number);
    }
    return number - asked->first;
}

static void parse(int argc, char **argv, struct asked *asked)
{
    struct fuzz_option known[] = {
        {"--seed", &asked->seed, NULL},         {"--count", &asked->count, NULL},     {"--first", &asked->first, NULL},
        {"--duration", &asked->duration, NULL}, {"--corpus", NULL, &asked->corpus},   {"--keep", NULL, &asked->keep},
        {"--folder", NULL, &asked->folder},     {"--replay", NULL, &asked->replay},
    };
    fuzz_options(argc, argv, known, sizeof known / sizeof *known);
}

/* ---- the whole ------------------------------------------------------------------------------ */

static void guide_run(struct asked *asked)
{
    struct child c = {0};
    size_t edges = 0;
    printf("seed %llu\n", (unsigned long long)asked->seed);
    fflush(stdout);
    if (asked->corpus)
        corpus_load(&c, asked);
    uint64_t cases = fuzz(&c, asked);
    if (c.pid && child_end(&c) != 0)
        failed(asked->first + cases, asked);
    for (size_t i = 0; i < MAP_BYTES; i++)
        edges += seen[i] != 0;
    printf("%llu cases, %zu edges, %zu scripts in the corpus; %s\n", (unsigned long long)cases, edges, corpus_count,
           guide->well);
}

static void guide_replay(const char *name)
{
    if (!script_read(&shared->script, name))
        fuzz_fail("%s cannot be read", name);
    guide->case_run(&shared->script);
    puts("it was answered");
}

static int guide_main(int argc, char **argv, const struct guide *g)
{
    struct asked asked = {.seed = fuzz_random_seed(), .count = UINT64_MAX,
                          .folder = access("/dev/shm", W_OK) ? "/tmp" : "/dev/shm"};
    guide = g;
    parse(argc, argv, &asked);
    signal(SIGPIPE, SIG_IGN);
    sigaction(SIGBUS, NULL, &sigbus_at_start);
    snprintf(work, sizeof work, "%s/rowex-guided-XXXXXX", asked.folder);
    if (mkdtemp(work) == NULL)
        fuzz_fail("%s cannot be made", work);
    snprintf(path, sizeof path, "%s/index.rowex", work);
    snprintf(fuzz_repeat, sizeof fuzz_repeat, "%s --seed %llu", g->name, (unsigned long long)asked.seed);
    if (asked.replay)
        snprintf(fuzz_repeat, sizeof fuzz_repeat, "%s --replay %.200s", g->name, asked.replay);
    if (g->prepare)
        g->prepare();
    shared = mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    corpus = fuzz_alloc(CORPUS_MAX * sizeof *corpus);
    memcpy(corpus, g->first, g->firsts * sizeof *corpus);
    corpus_count = g->firsts;
    if (asked.replay)
        guide_replay(asked.replay);
    else
        guide_run(&asked);
    if (g->end)
        g->end();
    free(corpus);
    fuzz_remove_under(work);
    rmdir(work);
    return 0;
}

#endif
