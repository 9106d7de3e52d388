/*
 * schedules.h -- what the scenarios of schedules.c and the scheduler know of each other.
 */
#ifndef ROWEX_SCHEDULES_H
#define ROWEX_SCHEDULES_H

#define _GNU_SOURCE
#include <errno.h>
#include <linux/futex.h>
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
    bool stubborn; /* its waits pass time, but not the turn: the others stand still */
    struct rx_logger *logger; /* as if each were a process of its own; NULL without a log */
};

struct scenario {
    const char *name;
    int threads, victim; /* -1: nobody dies */
    bool logged;
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
void sched_stubborn(bool stubborn);
/* schedule_log.c: the log's files, and what leads it in each coroutine; put back as they were. */
void sched_log_open(rx_index **out);
struct rx_logger *sched_log_attach(struct rx_db *db);
void sched_log_keep(struct rx_db *db);
void sched_log_put_back(struct rx_db *db);
/* Whoever reads the log up to its durable point finds these keys last, with the values that the index has. */
void sched_log_check(const char *first, const char *second);
void sched_log_remove(void);
double sched_real_s(void); /* the wall's clock, not the schedule's */

#endif
