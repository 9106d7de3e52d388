/*
 * disk.c -- test build only: system calls on files that fail as planned (disk.h).
 */
#define _GNU_SOURCE
#include "disk.h"
#if defined(ROWEX_FAULTS) || defined(ROWEX_CRASHPOINTS)
#include <errno.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include "persist.h"

#define RX_SHORT (-1)

struct rx_plan { char call[16]; uint64_t n, seen; bool on; int what; };
static struct rx_plan *rx_plan; /* one that was replaced is never freed: a thread may look at it */

void rx_fault_arm(const char *text)
{
    struct rx_plan *plan = calloc(1, sizeof *plan);
    const char *colon = strchr(text, ':');
    char *end;
    if (plan == NULL)
        abort();
    if (colon && (size_t)(colon - text) < sizeof plan->call) {
        memcpy(plan->call, text, (size_t)(colon - text));
        plan->n = strtoull(colon + 1, &end, 10);
        plan->on = *end == '+';
        end += 1 + plan->on;
        plan->what = strcmp(end, "short") == 0 ? RX_SHORT : atoi(end);
    }
    __atomic_store_n(&rx_plan, plan, __ATOMIC_RELEASE);
}

static struct rx_plan *rx_plan_now(void)
{
    struct rx_plan *plan = __atomic_load_n(&rx_plan, __ATOMIC_ACQUIRE);
    if (plan == NULL) {
        const char *text = getenv("ROWEX_FAULT");
        rx_fault_arm(text ? text : "");
        plan = __atomic_load_n(&rx_plan, __ATOMIC_ACQUIRE);
    }
    return plan;
}

uint64_t rx_fault_count(void) { return __atomic_load_n(&rx_plan_now()->seen, __ATOMIC_RELAXED); }

/* 0; RX_SHORT; or an errno, which is set. */
static int rx_fault(const char *call)
{
    struct rx_plan *plan = rx_plan_now();
    if (strcmp(call, "openat") != 0 && strcmp(call, "pread") != 0 && strcmp(call, "mmap") != 0)
        RX_POINT();
    if (strcmp(plan->call, call) != 0 && strcmp(plan->call, "any") != 0)
        return 0;
    uint64_t now = __atomic_add_fetch(&plan->seen, 1, __ATOMIC_RELAXED);
    if (now != plan->n && !(plan->on && now > plan->n))
        return 0;
    if (plan->what == RX_SHORT)
        return strcmp(call, "pwrite") == 0 ? RX_SHORT : 0;
    return errno = plan->what;
}

int rx_sys_openat(int dir_fd, const char *name, int flags, ...)
{
    mode_t mode = 0;
    if (flags & O_CREAT) {
        va_list args;
        va_start(args, flags);
        mode = va_arg(args, mode_t);
        va_end(args);
    }
    return rx_fault("open") ? -1 : openat(dir_fd, name, flags, mode);
}

ssize_t rx_sys_pread(int fd, void *to, size_t size, off_t at) { return rx_fault("pread") ? -1 : pread(fd, to, size, at); }

ssize_t rx_sys_pwrite(int fd, const void *from, size_t size, off_t at)
{
    int fault = rx_fault("pwrite");
    if (fault && fault != RX_SHORT)
        return -1;
    return pwrite(fd, from, fault && size > 1 ? size / 2 : size, at);
}

int rx_sys_fallocate(int fd, int mode, off_t from, off_t size)
{
    return rx_fault("fallocate") ? -1 : fallocate(fd, mode, from, size);
}

int rx_sys_ftruncate(int fd, off_t size) { return rx_fault("ftruncate") ? -1 : ftruncate(fd, size); }
int rx_sys_fsync(int fd) { return rx_fault("fsync") ? -1 : fsync(fd); }
int rx_sys_fdatasync(int fd) { return rx_fault("fdatasync") ? -1 : fdatasync(fd); }
int rx_sys_msync(void *base, size_t size, int flags) { return rx_fault("msync") ? -1 : msync(base, size, flags); }

void *rx_sys_mmap(void *at, size_t size, int prot, int flags, int fd, off_t from)
{
    return rx_fault("mmap") ? MAP_FAILED : mmap(at, size, prot, flags, fd, from);
}

int rx_sys_mkdirat(int dir_fd, const char *name, mode_t mode) { return rx_fault("mkdir") ? -1 : mkdirat(dir_fd, name, mode); }

int rx_sys_linkat(int from_dir, const char *from, int to_dir, const char *to, int flags)
{
    return rx_fault("link") ? -1 : linkat(from_dir, from, to_dir, to, flags);
}

int rx_sys_renameat(int from_dir, const char *from, int to_dir, const char *to)
{
    return rx_fault("rename") ? -1 : renameat(from_dir, from, to_dir, to);
}

int rx_sys_unlinkat(int dir_fd, const char *name, int flags)
{
    return rx_fault("unlink") ? -1 : unlinkat(dir_fd, name, flags);
}
#endif
