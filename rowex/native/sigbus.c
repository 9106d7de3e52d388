/*
 * sigbus.c -- a page of ours that cannot be read or written (an I/O error, a file cut
 * short by others, a full copy-on-write disk) poisons its map instead of ending the
 * process: the handler puts a zero page there, the operation notices and raises.
 * Everything here is async-signal-safe; the table is lock-free.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <signal.h>
#include <sys/mman.h>
#include <unistd.h>
#include "file.h"

#define RX_GUARDS 1024u
struct rx_guard { uintptr_t base, size; uint32_t *poison; uint32_t hit; };
static struct rx_guard rx_guards[RX_GUARDS]; /* base 0: free, 1: being filled */
static struct sigaction rx_before;
static pthread_once_t rx_guard_once = PTHREAD_ONCE_INIT;
static uintptr_t rx_page;

static struct rx_guard *rx_guard_of(uintptr_t at)
{
    for (unsigned i = 0; i < RX_GUARDS; i++) {
        uintptr_t base = __atomic_load_n(&rx_guards[i].base, __ATOMIC_ACQUIRE);
        if (base > 1 && at >= base && at - base < __atomic_load_n(&rx_guards[i].size, __ATOMIC_ACQUIRE))
            return &rx_guards[i];
    }
    return NULL;
}

static void rx_chain(int signal, siginfo_t *info, void *context)
{
    if (rx_before.sa_flags & SA_SIGINFO) {
        rx_before.sa_sigaction(signal, info, context);
    } else if (rx_before.sa_handler != SIG_DFL && rx_before.sa_handler != SIG_IGN) {
        rx_before.sa_handler(signal);
    } else {
        struct sigaction die = {.sa_handler = SIG_DFL};
        sigaction(SIGBUS, &die, NULL); /* the access is made again, and ends the process */
        if (info->si_code <= 0)
            raise(signal); /* sent, not met: there is no access to make again */
    }
}

static void rx_on_sigbus(int signal, siginfo_t *info, void *context)
{
    int saved = errno;
    uintptr_t at = (uintptr_t)info->si_addr;
    struct rx_guard *g = info->si_code > 0 ? rx_guard_of(at) : NULL; /* kill(2) puts no address there */
    if (g == NULL) {
        rx_chain(signal, info, context);
    } else {
        /* hit before poison is read; rx_guard_move() stores poison before it reads hit: one sees the other */
        __atomic_store_n(&g->hit, 1, __ATOMIC_SEQ_CST);
        __atomic_store_n(__atomic_load_n(&g->poison, __ATOMIC_SEQ_CST), 1, __ATOMIC_RELEASE);
        void *page = (void *)(at & ~(rx_page - 1));
        if (mmap(page, rx_page, PROT_READ | PROT_WRITE, MAP_FIXED | MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) == MAP_FAILED)
            rx_chain(signal, info, context);
    }
    errno = saved;
}

static void rx_guard_setup(void)
{
    struct sigaction action = {.sa_sigaction = rx_on_sigbus, .sa_flags = SA_SIGINFO | SA_ONSTACK | SA_RESTART};
    rx_page = (uintptr_t)sysconf(_SC_PAGESIZE);
    sigemptyset(&action.sa_mask);
    sigaction(SIGBUS, &action, &rx_before);
}

int rx_guard_add(uint8_t *base, uint64_t size, uint32_t *poison)
{
    pthread_once(&rx_guard_once, rx_guard_setup);
    for (unsigned i = 0; i < RX_GUARDS; i++) {
        uintptr_t none = 0;
        if (!__atomic_compare_exchange_n(&rx_guards[i].base, &none, 1, false, __ATOMIC_SEQ_CST, __ATOMIC_RELAXED))
            continue;
        __atomic_store_n(&rx_guards[i].poison, poison, __ATOMIC_RELEASE);
        __atomic_store_n(&rx_guards[i].hit, 0, __ATOMIC_RELEASE);
        __atomic_store_n(&rx_guards[i].size, size, __ATOMIC_RELEASE);
        __atomic_store_n(&rx_guards[i].base, (uintptr_t)base, __ATOMIC_RELEASE);
        return RX_OK;
    }
    return rx_fail(RX_E_MEMORY, 0, "%u files are mapped at once", RX_GUARDS);
}

void rx_guard_remove(uint8_t *base)
{
    for (unsigned i = 0; i < RX_GUARDS; i++)
        if (__atomic_load_n(&rx_guards[i].base, __ATOMIC_ACQUIRE) == (uintptr_t)base) {
            __atomic_store_n(&rx_guards[i].size, 0, __ATOMIC_RELEASE);
            __atomic_store_n(&rx_guards[i].base, 0, __ATOMIC_RELEASE);
        }
}

void rx_guard_move(uint8_t *base, uint32_t *poison)
{
    for (unsigned i = 0; i < RX_GUARDS; i++)
        if (__atomic_load_n(&rx_guards[i].base, __ATOMIC_ACQUIRE) == (uintptr_t)base) {
            __atomic_store_n(&rx_guards[i].poison, poison, __ATOMIC_SEQ_CST);
            if (__atomic_load_n(&rx_guards[i].hit, __ATOMIC_SEQ_CST))
                __atomic_store_n(poison, 1, __ATOMIC_RELEASE);
        }
}
