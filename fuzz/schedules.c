/*
 * schedules.c -- small scenarios of two or three threads under every schedule with at most
 * two preemptions.
 *
 *   schedules [--scenario NAME | --from NAME] [--preemptions N] [--stride N] [--seed N] [--seconds N]
 *   schedules --replay STRING
 *
 * Built with the core and -DROWEX_SCHEDULE: each access to shared memory asks whether another
 * thread goes on there.  The threads are coroutines of one thread, so exactly one runs; a wait
 * (sleep, yield, a mutex that is held) passes the turn on, and time is what the waits add up to.
 * Every schedule begins with a memory() index as the scenario has set it up, put back byte by byte,
 * and ends with the scenario's own check and rx_check().  What is explored is sequentially consistent: orders that only a weak memory
 * shows are TSan's part.
 *
 * A scenario's victim may also die before each of its accesses: it never runs again, and its
 * uid belongs to a process whose lock is free.  The death counts as a preemption.
 *
 * --from NAME goes on with that scenario and those behind it; --stride N tries only every N-th
 * last preemption, beginning as the seed says.
 */
#include <sys/wait.h>
#include "schedules.h"
#include "../rowex/native/frames.h"
#include "../rowex/native/log.h"

#define STACK_BYTES (512u << 10)
#define STEPS_MAX 200000u
#define LONGEST_STEPS 5000000u
#define KEPT_MAX 24u
#define SLOTS_KEPT 64u
#define ARENAS_KEPT 8u
#define ENTRIES_KEPT 64u

struct trace { uint32_t steps; uint8_t mask[STEPS_MAX], who[STEPS_MAX]; };

static struct {
    const struct scenario *scenario;
    struct coroutine coroutine[THREADS_MAX];
    ucontext_t driver;
    int current; /* -1: the driver */
    struct plan plan;
    unsigned next;
    uint32_t steps, victim_steps;
    struct trace *trace;
    int64_t now_ns;
    struct kept { uint8_t *at, *copy; size_t size; } kept[KEPT_MAX];
    unsigned kept_count;
    struct rx_logger *logger;
} world;

rx_index *sched_index;

/* ---- failing -------------------------------------------------------------------------- */

static void plan_text(const struct plan *p, char *text, size_t size)
{
    int n = snprintf(text, size, "%s:%d:%u", world.scenario->name, p->first, p->die_at);
    for (unsigned i = 0; i < p->count; i++)
        n += snprintf(text + n, size - (size_t)n, ":%u>%u", p->step[i], p->to[i]);
}

void sched_fail(const char *format, ...)
{
    char text[200];
    va_list list;
    plan_text(&world.plan, text, sizeof text);
    printf("FAILED: ");
    va_start(list, format);
    vprintf(format, list);
    va_end(list);
    printf("\n  last error of the core: %s\n  repeat with: schedules --replay '%s'\n", rx_error_text(), text);
    fflush(NULL);
    _exit(1);
}

/* ---- who runs --------------------------------------------------------------------------- */

static bool runs(int i) { return i < world.scenario->threads && world.coroutine[i].state == CO_RUNS; }

/* The turn goes to `to`, or the driver (-1); returns when it is ours again. */
static void turn(int to)
{
    int from = world.current;
    world.current = to;
    if (world.scenario->logged)
        sched_index->db->logger = to < 0 ? world.logger : world.coroutine[to].logger;
    ucontext_t *out = from < 0 ? &world.driver : &world.coroutine[from].context;
    swapcontext(out, to < 0 ? &world.driver : &world.coroutine[to].context);
}

/* The next after the current one that can run; -1: none. */
static int next_one(void)
{
    for (int k = 1; k <= world.scenario->threads; k++) {
        int i = (world.current + k) % world.scenario->threads;
        if (i != world.current && runs(i))
            return i;
    }
    return -1;
}

/* The victim stops for ever; its uid's process is one whose lock nobody holds. */
static void die(struct coroutine *c)
{
    struct rx_db *db = sched_index->db;
    c->state = CO_DEAD;
    world.current = -1;
    rx_store(&db->processes[RX_PROCESSES - 1].token, 1);
    rx_store32(&c->thread->slot->process, RX_PROCESSES);
    world.current = world.scenario->victim;
    turn(next_one());
}

void rx_schedule_point(void)
{
    if (world.current < 0)
        return;
    struct plan *p = &world.plan;
    struct coroutine *c = &world.coroutine[world.current];
    if (++world.steps > LONGEST_STEPS)
        sched_fail("no end after %u steps", world.steps);
    if (world.trace && world.steps < STEPS_MAX) {
        uint8_t mask = 0;
        for (int i = 0; i < world.scenario->threads; i++)
            mask |= (uint8_t)(runs(i) << i);
        world.trace->mask[world.steps] = mask;
        world.trace->who[world.steps] = (uint8_t)world.current;
        world.trace->steps = world.steps;
    }
    if (world.current == world.scenario->victim && ++world.victim_steps == p->die_at && c->mutexes == 0)
        die(c);
    if (world.next < p->count && p->step[world.next] == world.steps)
        turn((int)p->to[world.next++]);
}

static void wait_for(int64_t ns)
{
    world.now_ns += ns;
    int to = world.current < 0 ? -1 : next_one();
    if (to >= 0 && !world.coroutine[world.current].stubborn)
        turn(to);
}
void rx_schedule_wait(void) { wait_for(100); }
void sched_pass_time(int64_t ns) { world.now_ns += ns; }
void sched_stubborn(bool stubborn) { world.coroutine[world.current].stubborn = stubborn; }

static void body(int i)
{
    struct coroutine *c = &world.coroutine[i];
    world.scenario->body[i](c->thread);
    c->state = CO_DONE;
    int to = next_one();
    turn(to); /* never comes back */
}

/* ---- what would block, or tell the time: linked with --wrap ---------------------------------- */

int __real_pthread_mutex_lock(pthread_mutex_t *m);
int __real_pthread_mutex_unlock(pthread_mutex_t *m);
long __real_syscall(long number, ...);
int __wrap_pthread_mutex_lock(pthread_mutex_t *m);
int __wrap_pthread_mutex_unlock(pthread_mutex_t *m);
/* The gate's pulse, the log's flusher: threads that nobody would schedule, and that need not come. */
int __wrap_pthread_create(pthread_t *t, const pthread_attr_t *a, void *(*f)(void *), void *arg)
{
    (void)t, (void)a, (void)f, (void)arg;
    return 0;
}
int __wrap_pthread_join(pthread_t t, void **result)
{
    (void)t, (void)result;
    return 0;
}
int __wrap_pthread_create(pthread_t *t, const pthread_attr_t *a, void *(*f)(void *), void *arg);
int __wrap_pthread_join(pthread_t t, void **result);
int __wrap_nanosleep(const struct timespec *t, struct timespec *left);
int __wrap_sched_yield(void);
int __wrap_clock_gettime(clockid_t id, struct timespec *t);
long __wrap_syscall(long number, ...);

/* Of the coroutine's own "process", and gone with it. */
static bool is_own(const pthread_mutex_t *m)
{
    const struct rx_logger *l = world.coroutine[world.current].logger;
    return world.scenario->logged && l && m == &l->mutex;
}
int __wrap_pthread_mutex_lock(pthread_mutex_t *m)
{
    if (world.current < 0)
        return __real_pthread_mutex_lock(m);
    while (pthread_mutex_trylock(m) != 0)
        wait_for(1000);
    world.coroutine[world.current].mutexes += !is_own(m);
    return 0;
}
int __wrap_pthread_mutex_unlock(pthread_mutex_t *m)
{
    if (world.current >= 0)
        world.coroutine[world.current].mutexes -= !is_own(m);
    return __real_pthread_mutex_unlock(m);
}
int __wrap_nanosleep(const struct timespec *t, struct timespec *left)
{
    (void)left;
    wait_for((int64_t)t->tv_sec * 1000000000 + t->tv_nsec);
    return 0;
}
int __wrap_sched_yield(void)
{
    wait_for(1000);
    return 0;
}
int __wrap_clock_gettime(clockid_t id, struct timespec *t)
{
    (void)id;
    *t = (struct timespec){1000 + world.now_ns / 1000000000, world.now_ns % 1000000000};
    return 0;
}
/* membarrier: one thread is all there is.  A futex is waited for as long as asked: somebody may be too early. */
long __wrap_syscall(long number, ...)
{
    va_list list;
    va_start(list, number);
    long a = va_arg(list, long), b = va_arg(list, long), c = va_arg(list, long), d = va_arg(list, long);
    va_end(list);
    if (number == SYS_futex && (int)b == FUTEX_WAIT)
        (void)__wrap_nanosleep((const struct timespec *)d, NULL);
    return number == SYS_membarrier || number == SYS_futex ? 0 : __real_syscall(number, a, b, c);
}

/* ---- one schedule --------------------------------------------------------------------------------- */

static void start(int i)
{
    struct coroutine *c = &world.coroutine[i];
    getcontext(&c->context);
    c->context.uc_stack.ss_sp = c->stack;
    c->context.uc_stack.ss_size = STACK_BYTES;
    c->context.uc_link = NULL;
    c->state = CO_RUNS;
    c->mutexes = 0;
    c->stubborn = false;
    makecontext(&c->context, (void (*)(void))body, 1, i);
}

static void keep(void *at, size_t size)
{
    struct kept *k = &world.kept[world.kept_count++];
    if (world.kept_count > KEPT_MAX)
        sched_fail("too much to keep");
    *k = (struct kept){at, fuzz_alloc(size), size};
    memcpy(k->copy, at, size);
}

static uint64_t brk_bytes(const struct rx_db *db) { return (rx_load(&db->hdr->brk) & ((1ull << 36) - 1)) * RX_EXTENT; }

/* The scenario's beginning: what is shared, and what the core knows of it in this process. */
static void prepare(void)
{
    const struct scenario *s = world.scenario;
    struct rx_options options = {.mode = 'c', .checksum = -1, .fences = -1, .max_size = UINT64_MAX};
    world.current = -1;
    world.kept_count = 0;
    if (s->logged)
        sched_log_open(&sched_index);
    else
        fuzz_expect(RX_OK, rx_open(&options, &sched_index), "open");
    s->setup();
    for (int i = 0; i < s->threads; i++) {
        if (world.coroutine[i].stack == NULL)
            world.coroutine[i].stack = fuzz_alloc(STACK_BYTES);
        fuzz_expect(RX_OK, rx_thread_open(sched_index, 3, &world.coroutine[i].thread), "thread_open");
    }
    struct rx_db *db = sched_index->db;
    world.logger = db->logger;
    for (int i = 0; i < s->threads && s->logged; i++)
        world.coroutine[i].logger = sched_log_attach(db);
    if (s->logged) {
        sched_log_keep(db);
        keep(db->ring, ENTRIES_KEPT * sizeof *db->ring);
    }
    keep(db->lock_base, RX_LOCKFILE_PROCESSES + 64);
    keep(&db->processes[RX_PROCESSES - 1], sizeof *db->processes);
    keep(db->slots, SLOTS_KEPT * sizeof *db->slots);
    keep(db->arenas, ARENAS_KEPT * sizeof *db->arenas);
    keep(db->map->base, brk_bytes(db));
    keep(db, sizeof *db);
    keep(db->map, sizeof *db->map);
    for (struct rx_thread *t = db->threads; t; t = t->next_in_db)
        keep(t, sizeof *t);
}

static void put_back(void)
{
    struct rx_db *db = sched_index->db;
    uint64_t brk = brk_bytes(db);
    if (world.scenario->logged)
        sched_log_put_back(db);
    for (unsigned i = 0; i < world.kept_count; i++)
        memcpy(world.kept[i].at, world.kept[i].copy, world.kept[i].size);
    uint64_t before = brk_bytes(db);
    if (brk > before) /* extents are new again */
        memset(db->map->base + before, 0, brk - before);
    world.now_ns = 0;
}

static void leave(void)
{
    put_back();
    fuzz_expect(RX_OK, rx_close(sched_index), "close");
    rx_free(sched_index);
    if (world.scenario->logged)
        sched_log_remove();
    while (world.kept_count)
        free(world.kept[--world.kept_count].copy);
}

static void run(const struct plan *plan, struct trace *trace)
{
    const struct scenario *s = world.scenario;
    put_back();
    world.plan = *plan;
    world.next = world.steps = world.victim_steps = 0;
    world.trace = trace;
    if (trace)
        trace->steps = 0;
    for (int i = 0; i < s->threads; i++)
        start(i);
    turn(plan->first);
    for (int i = 0; i < s->threads; i++)
        if (runs(i))
            sched_fail("thread %d did not end", i);
    if (rx_load32(&sched_index->db->hdr->arena_high) > ARENAS_KEPT)
        sched_fail("more arenas than are put back");
    if (s->logged && rx_log_tail(sched_index->db) > ENTRIES_KEPT)
        sched_fail("more log entries than are put back");
    (void)rx_reap_all(sched_index->db);
    s->check();
    uint64_t faults = 0;
    if (rx_check(sched_index, 1000000000, fuzz_fault, NULL, &faults) != RX_OK || faults)
        sched_fail("rx_check: %llu faults", (unsigned long long)faults);
}

/* ---- all schedules ----------------------------------------------------------------------------------- */

static struct {
    uint64_t schedules, longest, stride, seed;
    double until_s;
    bool cut;
} all;

static void explore(const struct plan *plan, unsigned left, uint32_t from)
{
    if (all.cut || (all.until_s > 0 && (all.schedules & 63) == 0 && sched_real_s() > all.until_s)) {
        all.cut = true;
        return;
    }
    struct trace *trace = left ? fuzz_alloc(sizeof *trace) : NULL;
    run(plan, trace);
    all.schedules++;
    if (world.steps > all.longest)
        all.longest = world.steps;
    if (trace == NULL)
        return;
    uint32_t stride = left == 1 && all.stride ? (uint32_t)all.stride : 1;
    uint32_t begin = from + 1 + (stride > 1 ? (uint32_t)((all.seed + from) % stride) : 0);
    for (uint32_t step = begin; step <= trace->steps; step += stride)
        for (unsigned to = 0; to < THREADS_MAX; to++) {
            if (!(trace->mask[step] >> to & 1) || to == trace->who[step])
                continue;
            struct plan more = *plan;
            more.step[more.count] = step;
            more.to[more.count++] = to;
            explore(&more, left - 1, step);
        }
    free(trace);
}

static void explore_scenario(const struct scenario *s, unsigned preemptions)
{
    double began = sched_real_s();
    uint32_t deaths = 0;
    world.scenario = s;
    all.schedules = all.longest = 0;
    prepare();
    for (int first = 0; first < s->threads; first++) {
        struct plan plan = {.first = first};
        explore(&plan, preemptions, 0);
        if (s->victim < 0)
            continue;
        run(&plan, NULL);
        uint32_t last = world.victim_steps;
        for (plan.die_at = 1; plan.die_at <= last; plan.die_at++, deaths++)
            explore(&plan, preemptions ? preemptions - 1 : 0, 0);
    }
    leave();
    printf("%-32s %9llu schedules, %llu accesses at most, ", s->name, (unsigned long long)all.schedules,
           (unsigned long long)all.longest);
    if (deaths)
        printf("%u deaths, ", deaths);
    printf("%.1f s%s\n", sched_real_s() - began, all.cut ? ", CUT SHORT" : "");
}

static void replay(const char *text)
{
    struct plan plan = {0};
    char name[64];
    int used = 0;
    if (sscanf(text, "%63[^:]:%d:%u%n", name, &plan.first, &plan.die_at, &used) != 3 ||
        (world.scenario = sched_find(name)) == NULL) {
        fprintf(stderr, "%s: no such schedule\n", text);
        exit(2);
    }
    for (int n; plan.count < PREEMPTIONS_MAX &&
                sscanf(text + used, ":%u>%u%n", &plan.step[plan.count], &plan.to[plan.count], &n) == 2; used += n)
        plan.count++;
    prepare();
    run(&plan, NULL);
    leave();
    printf("%s: nothing wrong\n", text);
}

/* What the core remembers of an index in its threads goes with the process. */
static bool in_child(const struct scenario *s, unsigned preemptions)
{
    int status = 0;
    pid_t child = fork();
    if (child == 0) {
        explore_scenario(s, preemptions);
        exit(0);
    }
    if (child < 0 || waitpid(child, &status, 0) != child)
        return perror("fork"), false;
    if (WIFSIGNALED(status))
        printf("%s: died of signal %d\n", s->name, WTERMSIG(status));
    return status == 0;
}

int main(int argc, char **argv)
{
    const char *only = "", *from = NULL, *again = NULL;
    unsigned preemptions = 2;
    double seconds = 0;
    for (int i = 1; i < argc; i += 2) {
        if (i + 1 == argc)
            return fprintf(stderr, "%s: an option and its value; see the head of schedules.c\n", argv[i]), 2;
        else if (strcmp(argv[i], "--scenario") == 0)
            only = argv[i + 1];
        else if (strcmp(argv[i], "--from") == 0)
            from = argv[i + 1];
        else if (strcmp(argv[i], "--preemptions") == 0)
            preemptions = (unsigned)atoi(argv[i + 1]);
        else if (strcmp(argv[i], "--stride") == 0)
            all.stride = strtoull(argv[i + 1], NULL, 0);
        else if (strcmp(argv[i], "--seed") == 0)
            all.seed = strtoull(argv[i + 1], NULL, 0);
        else if (strcmp(argv[i], "--seconds") == 0)
            seconds = atof(argv[i + 1]);
        else if (strcmp(argv[i], "--replay") == 0)
            again = argv[i + 1];
        else
            return fprintf(stderr, "unknown option %s\n", argv[i]), 2;
    }
    if (preemptions > PREEMPTIONS_MAX)
        return fprintf(stderr, "at most %u preemptions\n", PREEMPTIONS_MAX), 2;
    setvbuf(stdout, NULL, _IOLBF, 0);
    if (again)
        return replay(again), 0;
    all.until_s = seconds > 0 ? sched_real_s() + seconds : 0;
    unsigned first = 0;
    while (from && first < sched_scenario_count && strcmp(sched_scenarios[first].name, from) != 0)
        first++;
    for (unsigned i = first; i < sched_scenario_count; i++)
        if (strstr(sched_scenarios[i].name, only) && !in_child(&sched_scenarios[i], preemptions))
            return 1;
    return first == sched_scenario_count ? fprintf(stderr, "%s: no such scenario\n", from), 2 : 0;
}
