/*
 * schedules.h -- what the scenarios of schedules.c and the scheduler know of each other.
 */
#ifndef ROWEX_SCHEDULES_H
#define ROWEX_SCHEDULES_H

#define _GNU_SOURCE
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <stdbool.h>
#include <sys/syscall.h>
#include <ucontext.h>
#include "fuzz.h"
#include "../rowex/native/core.h"
#include "../rowex/gc/epoch.h"
#include "../rowex/gc/uid.h"

#define THREADS_MAX 3
#define PREEMPTIONS_MAX 3u

/* Which thread begins, before which access of all another goes on, before which of its own the victim dies. */
struct plan {
    int first;
    uint32_t die_at; /* 0: never */
    unsigned count;
    uint32_t step[PREEMPTIONS_MAX];
    uint32_t to[PREEMPTIONS_MAX];
};

enum coroutine_state { CO_RUNS, CO_DONE, CO_DEAD };
struct coroutine {
    ucontext_t context;
    uint8_t *stack;
    rx_thread *thread;
    enum coroutine_state state;
    int mutexes; /* of the process, held: nobody dies with them */
};

struct scenario {
    const char *name;
    int threads, victim; /* -1: nobody dies */
    void (*setup)(void);
    void (*body[THREADS_MAX])(rx_thread *t);
    void (*check)(void);
};

extern const struct scenario sched_scenarios[];
extern const unsigned sched_scenario_count;
const struct scenario *sched_find(const char *name);

extern rx_index *sched_index;
void sched_fail(const char *format, ...) __attribute__((format(printf, 1, 2), noreturn));
void sched_pass_time(int64_t ns);
double sched_real_s(void); /* the wall's clock, not the schedule's */

#endif
