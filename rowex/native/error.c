/*
 * error.c -- the last error of each thread; time; interruption; events.
 */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>
#include "core.h"
#include "index.h"

#define RX_TEXT_SIZE 768
static __thread char rx_text[RX_TEXT_SIZE];
static __thread int rx_errno;
static __thread uint64_t rx_offset;

static const char *rx_meaning(int code)
{
    switch (code) {
#define X(name, value, what, hint) case value: return what;
        RX_RESULTS(X)
#undef X
    }
    return "unknown result";
}

int (rx_fail)(int code, int os_errno, const char *format, ...)
{
    va_list args;
    int n = snprintf(rx_text, sizeof rx_text, "%s: ", rx_meaning(code));
    va_start(args, format);
    n += vsnprintf(rx_text + n, sizeof rx_text - (size_t)n, format, args);
    va_end(args);
    if (os_errno && n < (int)sizeof rx_text)
        snprintf(rx_text + n, sizeof rx_text - (size_t)n, " (%s)", strerror(os_errno));
    rx_errno = os_errno;
    rx_offset = 0;
    return code;
}

int (rx_corrupt)(uint64_t offset, const char *format, ...)
{
    va_list args;
    int n = snprintf(rx_text, sizeof rx_text, "%s at offset %llu: ", rx_meaning(RX_E_CORRUPT),
                     (unsigned long long)offset);
    va_start(args, format);
    vsnprintf(rx_text + n, sizeof rx_text - (size_t)n, format, args);
    va_end(args);
    rx_errno = 0;
    rx_offset = offset;
    return RX_E_CORRUPT;
}

int (rx_fail_in)(int code, const char *path)
{
    size_t n = strlen(rx_text);
    snprintf(rx_text + n, sizeof rx_text - n, " (%s)", path);
    return code;
}

int (rx_fail_again)(int code, int os_errno, const char *text)
{
    snprintf(rx_text, sizeof rx_text, "%s", text);
    rx_errno = os_errno;
    rx_offset = 0;
    return code;
}

void rx_error_keep(char *to, size_t room)
{
    size_t size = strnlen(rx_text, room - 1);
    memcpy(to, rx_text, size);
    to[size] = 0;
}

const char *rx_error_text(void) { return rx_text; }
int rx_error_errno(void) { return rx_errno; }
uint64_t rx_error_offset(void) { return rx_offset; }

const char *rx_result_name(int code)
{
    switch (code) {
#define X(name, value, what, hint) case value: return #name;
        RX_RESULTS(X)
#undef X
    }
    return "RX_UNKNOWN";
}

const char *rx_result_hint(int code)
{
    switch (code) {
#define X(name, value, what, hint) case value: return hint;
        RX_RESULTS(X)
#undef X
    }
    return "";
}

int64_t rx_now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000000ll + now.tv_nsec;
}

static int (*rx_interrupt)(void);
static void (*rx_event_fn)(const char *name, uint64_t a, uint64_t b);
static __thread int64_t rx_last_poll_ns;
static __thread const uint32_t *rx_own_stop;
#define RX_POLL_NS 20000000ll

void rx_set_interrupt(int (*check)(void)) { __atomic_store_n(&rx_interrupt, check, __ATOMIC_RELEASE); }
void rx_set_event(void (*event)(const char *name, uint64_t a, uint64_t b))
{
    __atomic_store_n(&rx_event_fn, event, __ATOMIC_RELEASE);
}

static unsigned rx_forks; /* that this process comes from */
void rx_forked(void) { rx_forks++; }

/*
 * Around the program's code that we call: a child forked there that comes back is in the midst of a call whose
 * uid, locks and descriptors are its parent's.  It would change the file under no lock at all; it ends.
 */
static void rx_came_back(unsigned forks)
{
    static const char text[] = "rowex: a process that was forked by a signal handler or a listener within a call on an index "
                               "returned into that call, which is its parent's; end it with os._exit()\n";
    if (rx_forks == forks)
        return;
    if (write(2, text, sizeof text - 1) < 0)
        errno = 0;
    abort();
}

void rx_own_thread(const uint32_t *stop) { rx_own_stop = stop; }

int rx_poll_interrupt(void)
{
    if (rx_own_stop)
        return rx_load32(rx_own_stop) ? rx_fail(RX_E_INTERRUPTED, 0, "the index is being closed") : RX_OK;
    int (*check)(void) = __atomic_load_n(&rx_interrupt, __ATOMIC_ACQUIRE);
    if (!check)
        return RX_OK;
    int64_t now = rx_now_ns();
    if (now - rx_last_poll_ns < RX_POLL_NS)
        return RX_OK;
    rx_last_poll_ns = now;
    unsigned forks = rx_forks;
    int stops = check();
    rx_came_back(forks);
    return stops ? rx_fail(RX_E_INTERRUPTED, 0, "by the caller") : RX_OK;
}

/* ---- events ------------------------------------------------------------------------ */

#define RX_EVENTS_KEPT 4u /* few: they are in the static TLS, of which a process has little for all its libraries */
struct rx_told { const char *name; uint64_t a, b; };
static __thread unsigned rx_holds, rx_kept_count;
static __thread struct rx_told rx_kept[RX_EVENTS_KEPT];

/* The listener may call us, too: what this thread's last error was stays what it was. */
static void rx_tell(const struct rx_told *told)
{
    void (*event)(const char *, uint64_t, uint64_t) = __atomic_load_n(&rx_event_fn, __ATOMIC_ACQUIRE);
    char text[RX_TEXT_SIZE];
    int os_errno = rx_errno, saved = errno;
    uint64_t offset = rx_offset;
    if (event == NULL)
        return;
    memcpy(text, rx_text, sizeof text);
    unsigned forks = rx_forks;
    event(told->name, told->a, told->b);
    rx_came_back(forks);
    memcpy(rx_text, text, sizeof text);
    rx_errno = os_errno;
    rx_offset = offset;
    errno = saved;
}

void rx_event(const char *name, uint64_t a, uint64_t b)
{
    const struct rx_told told = {name, a, b};
    if (rx_own_stop)
        return;
    if (rx_holds == 0)
        rx_tell(&told);
    else if (rx_kept_count < RX_EVENTS_KEPT) /* more than that in one call are not told */
        rx_kept[rx_kept_count++] = told;
}

void rx_events_hold(void) { rx_holds++; }

void rx_events_release(void)
{
    if (--rx_holds)
        return;
    while (rx_kept_count) { /* taken out first: a listener's call comes here, too */
        struct rx_told told = rx_kept[0];
        memmove(rx_kept, rx_kept + 1, --rx_kept_count * sizeof told);
        rx_tell(&told);
    }
}
