/*
 * watch.c -- a descriptor instead of a waiting thread: for programs in which thousands of tasks of
 * one thread wait until something is durable.
 *
 * A watch has one thread.  It does what a waiter does (it writes the log if nobody does, or waits
 * for whoever does, of whatever process), for all that was changed so far, and makes an eventfd
 * readable whenever the durable point rose or the wait failed.  A group of askers is so served by
 * one sync, and while that runs the next group gathers: so after a round that was asked for it goes
 * on with one more, if anything was changed meanwhile.
 *
 * W1  `round` counts the questions; the thread serves all up to the round that it saw.  A failure
 *     is that of a round: who asked before is told, who asks later begins anew.
 * W2  Nobody waits for the thread but close: its mutex is held for a few loads and stores.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <signal.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>
#include "disk.h"
#include "guard.h"
#include "log.h"

#define RX_WATCH_SLICE_NS 20000000ll /* so often is told what became durable below the highest ticket */

struct rx_watch {
    rx_index *index;
    int fd;          /* eventfd */
    pid_t pid;       /* in a forked child there is no thread */
    pthread_t thread;
    pthread_mutex_t mutex; /* of the rest */
    pthread_cond_t asked;
    uint32_t stop;   /* also looked at inside the core's waits */
    uint64_t round, served;
    uint64_t failed; /* round of the last failure, 0: none */
    int code, os_errno;
    char text[768];
    char late[768];  /* who held the last slice up */
};

static void rx_watch_tell(struct rx_watch *w)
{
    uint64_t one = 1;
    if (write(w->fd, &one, sizeof one) < 0)
        errno = 0; /* so many are untold that it is readable anyway */
}

/*
 * One wait, outside the mutex, for all that was changed so far; RX_WOULD_WAIT: some of it may have
 * become durable.  Returns whether there was anything to wait for.
 */
static bool rx_watch_serve(struct rx_watch *w, uint64_t round)
{
    struct rx_log_info at;
    int code = rx_log_status(w->index, &at);
    bool any = code != RX_OK || at.durable != at.position;
    if (code == RX_OK) /* also where nothing seems to be left: the log may be lost (durable.c) */
        code = rx_wait_durable(w->index, NULL, at.position, RX_WATCH_SLICE_NS);
    pthread_mutex_lock(&w->mutex);
    if (code != RX_WOULD_WAIT)
        w->served = round;
    if (code == RX_WOULD_WAIT)
        rx_error_keep(w->late, sizeof w->late);
    if (code < 0) {
        w->failed = round;
        w->code = code;
        w->os_errno = rx_error_errno();
        rx_error_keep(w->text, sizeof w->text);
    }
    pthread_mutex_unlock(&w->mutex);
    rx_watch_tell(w);
    return any;
}

static void *rx_watcher(void *arg)
{
    struct rx_watch *w = arg;
    bool more = false; /* the last round was asked for */
    rx_own_thread(&w->stop);
    pthread_mutex_lock(&w->mutex);
    while (!rx_load32(&w->stop)) {
        uint64_t round = w->round;
        bool asked = round != w->served;
        if (!asked && !more) {
            pthread_cond_wait(&w->asked, &w->mutex);
            continue;
        }
        pthread_mutex_unlock(&w->mutex);
        more = rx_watch_serve(w, round) && asked;
        pthread_mutex_lock(&w->mutex);
    }
    pthread_mutex_unlock(&w->mutex);
    return NULL;
}

int rx_watch_open(rx_index *h, rx_watch **out)
{
    struct rx_watch *w = rx_sys_calloc(1, sizeof *w);
    if (w == NULL)
        return rx_fail(RX_E_MEMORY, 0, "for a watch");
    w->index = h;
    w->pid = getpid();
    pthread_mutex_init(&w->mutex, NULL);
    pthread_cond_init(&w->asked, NULL);
    w->fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (w->fd < 0) {
        int rc = rx_fail(RX_E_OS, errno, "a descriptor for a watch");
        free(w);
        return rc;
    }
    sigset_t all, before; /* the program's signals are not for this thread; faults stay deliverable */
    sigfillset(&all);
    sigdelset(&all, SIGBUS);
    sigdelset(&all, SIGSEGV);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int failed = rx_sys_thread(&w->thread, rx_watcher, w);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (failed) {
        rx_sys_close(w->fd);
        free(w);
        return rx_fail(RX_E_MEMORY, failed, "for the thread of a watch");
    }
    *out = w;
    return RX_OK;
}

int rx_watch_fd(rx_watch *w) { return w->fd; }

int rx_watch_ask(rx_watch *w, uint64_t ticket, uint64_t *round)
{
    int rc = rx_is_durable(w->index, ticket);
    if (rc != RX_WOULD_WAIT)
        return rc;
    pthread_mutex_lock(&w->mutex);
    if (w->round == w->served)
        pthread_cond_signal(&w->asked);
    *round = ++w->round;
    pthread_mutex_unlock(&w->mutex);
    return RX_WOULD_WAIT;
}

int rx_watch_look(rx_watch *w, uint64_t *durable, uint64_t *failed)
{
    struct rx_log_info told;
    uint64_t seen;
    while (read(w->fd, &seen, sizeof seen) < 0 && errno == EINTR)
        ;
    pthread_mutex_lock(&w->mutex);
    int code = w->code, os_errno = w->os_errno;
    char text[sizeof w->text];
    *failed = w->failed;
    memcpy(text, w->text, sizeof text);
    pthread_mutex_unlock(&w->mutex);
    int rc = rx_log_status(w->index, &told); /* after the outcome: what that says is durable is in it */
    *durable = rc ? 0 : told.durable;
    if (rc)
        *failed = UINT64_MAX;
    return rc ? rc : *failed ? rx_fail_again(code, os_errno, text) : RX_OK;
}

int rx_watch_late(rx_watch *w)
{
    char late[sizeof w->late];
    pthread_mutex_lock(&w->mutex);
    memcpy(late, w->late, sizeof late);
    pthread_mutex_unlock(&w->mutex);
    return *late ? rx_fail_again(RX_E_TIMEOUT, 0, late) : rx_fail(RX_E_TIMEOUT, 0, "for the log, which is being written");
}

void rx_watch_close(rx_watch *w)
{
    if (w == NULL)
        return;
    if (w->pid == getpid()) {
        pthread_mutex_lock(&w->mutex);
        rx_store32(&w->stop, 1);
        pthread_cond_signal(&w->asked);
        pthread_mutex_unlock(&w->mutex);
        pthread_join(w->thread, NULL);
    }
    rx_sys_close(w->fd);
    free(w);
}
