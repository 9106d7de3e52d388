/*
 * fork.c -- descriptors that hold locks, and mutexes that are waited for with patience:
 * what a forked child must not have and what it must have afresh.
 *
 * An open-file-description lock lives as long as any descriptor of its description.  So a
 * child that kept one would make a dead parent look alive (R7), and an index in use that
 * nobody uses.  Every descriptor that may ever hold a lock is noted here by the call that
 * opens it, and fork() waits for that call: no moment of an opening, a remap or a closing
 * in another thread, when no list of open indexes names it, lets one slip through.
 *
 * fork() is often called by a thread that holds Python's lock.  So only rx_held_mutex may
 * be held across it: its holder opens or closes a file and never asks for that lock.  Who
 * holds a turn may (rx_poll_interrupt()), hence turns are not waited for in fork(); the
 * child, in which their holders do not exist, gets new ones.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>
#include "disk.h"
#include "fileio.h"

static pthread_mutex_t rx_held_mutex = PTHREAD_MUTEX_INITIALIZER;
static int *rx_held; /* descriptors */
static size_t rx_held_count, rx_held_room;

/* Recursive: a signal handler may run while its thread waits within a turn, and open an index. */
static pthread_mutex_t rx_turns[RX_TURNS] = {
    PTHREAD_RECURSIVE_MUTEX_INITIALIZER_NP, PTHREAD_RECURSIVE_MUTEX_INITIALIZER_NP, PTHREAD_RECURSIVE_MUTEX_INITIALIZER_NP,
    PTHREAD_RECURSIVE_MUTEX_INITIALIZER_NP};

/* ---- descriptors ------------------------------------------------------------------ */

/* Room for one more; caller holds the mutex. */
static int rx_held_reserve(void)
{
    if (rx_held_count < rx_held_room)
        return 0;
    size_t room = rx_held_room ? 2 * rx_held_room : 64;
    int *more = rx_sys_realloc(rx_held, room * sizeof *more);
    if (more == NULL)
        return -1;
    rx_held = more;
    rx_held_room = room;
    return 0;
}

int rx_held_open(int dir_fd, const char *name, int flags, mode_t mode)
{
    pthread_mutex_lock(&rx_held_mutex);
    int fd = rx_held_reserve();
    if (fd == 0 && (fd = rx_sys_openat(dir_fd, name, flags | O_CLOEXEC, mode)) >= 0)
        rx_held[rx_held_count++] = fd;
    int saved = errno;
    pthread_mutex_unlock(&rx_held_mutex);
    errno = saved;
    return fd;
}

void rx_held_close(int fd)
{
    if (fd < 0)
        return;
    pthread_mutex_lock(&rx_held_mutex);
    for (size_t i = rx_held_count; i-- > 0;)
        if (rx_held[i] == fd) {
            rx_held[i] = rx_held[--rx_held_count];
            break;
        }
    rx_sys_close(fd); /* under the mutex: its number may be another's at once */
    pthread_mutex_unlock(&rx_held_mutex);
}

/* ---- turns ------------------------------------------------------------------------- */

int rx_turn_take(enum rx_turn turn, int64_t deadline_ns)
{
    while (pthread_mutex_trylock(&rx_turns[turn]) != 0) {
        int rc = rx_poll_interrupt();
        if (rc)
            return rc;
        if (rx_now_ns() >= deadline_ns)
            return rx_fail(RX_WOULD_WAIT, 0, "for another thread of this process");
        nanosleep(&(struct timespec){0, 500000}, NULL);
    }
    rx_events_hold(); /* a listener may open an index */
    return RX_OK;
}
bool rx_turn_try(enum rx_turn turn)
{
    bool taken = pthread_mutex_trylock(&rx_turns[turn]) == 0;
    if (taken)
        rx_events_hold();
    return taken;
}
void rx_turn_take_surely(enum rx_turn turn)
{
    pthread_mutex_lock(&rx_turns[turn]);
    rx_events_hold();
}
void rx_turn_end(enum rx_turn turn)
{
    pthread_mutex_unlock(&rx_turns[turn]);
    rx_events_release();
}

/* ---- fork ---------------------------------------------------------------------------- */

static void (*rx_forget)(void);

/*
 * The parent goes on only when the child has closed them: or, if the parent died first, it
 * would look alive until its child is next scheduled.  A byte, not the end of the pipe: a
 * fork of another thread may have inherited that.
 */
#define RX_FORK_WAIT_MS 1000
static __thread int rx_fork_pipe[2] = {-1, -1};

static void rx_fork_pipe_close(int i)
{
    if (rx_fork_pipe[i] >= 0)
        rx_sys_close(rx_fork_pipe[i]);
    rx_fork_pipe[i] = -1;
}

static void rx_fork_prepare(void)
{
    pthread_mutex_lock(&rx_held_mutex);
    if (rx_held_count == 0 || pipe2(rx_fork_pipe, O_CLOEXEC) != 0)
        rx_fork_pipe[0] = rx_fork_pipe[1] = -1;
}

static void rx_fork_parent(void)
{
    pthread_mutex_unlock(&rx_held_mutex);
    rx_fork_pipe_close(1); /* if fork failed, the end of the pipe wakes us */
    struct pollfd ready = {.fd = rx_fork_pipe[0], .events = POLLIN};
    if (rx_fork_pipe[0] >= 0)
        (void)poll(&ready, 1, RX_FORK_WAIT_MS);
    rx_fork_pipe_close(0);
}

static void rx_fork_child(void)
{
    static const pthread_mutex_t fresh = PTHREAD_RECURSIVE_MUTEX_INITIALIZER_NP;
    for (size_t i = 0; i < rx_held_count; i++)
        rx_sys_close(rx_held[i]);
    rx_held_count = 0;
    if (rx_fork_pipe[1] >= 0 && write(rx_fork_pipe[1], "", 1) < 0)
        errno = 0; /* then the parent waits a little longer than it must */
    rx_fork_pipe_close(0);
    rx_fork_pipe_close(1);
    pthread_mutex_init(&rx_held_mutex, NULL);
    for (int i = 0; i < RX_TURNS; i++)
        memcpy(&rx_turns[i], &fresh, sizeof fresh);
    rx_forked();
    if (rx_forget)
        rx_forget();
}

static void rx_fork_register(void) { pthread_atfork(rx_fork_prepare, rx_fork_parent, rx_fork_child); }

void rx_fork_setup(void (*forget)(void))
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    if (forget)
        rx_forget = forget;
    pthread_once(&once, rx_fork_register);
}
