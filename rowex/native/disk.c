/*
 * disk.c -- test build only: system calls on files that fail as planned, and are recorded
 * (disk.h).
 *
 * A record is appended when its call has succeeded, by one write, so that the order of records
 * is one that all processes saw: what came before a call's beginning in any process stands
 * before it.  A sync has two: what stands before the first is durable when the second is there.
 */
#define _GNU_SOURCE
#include "disk.h"
#if defined(ROWEX_FAULTS) || defined(ROWEX_CRASHPOINTS)
#include <errno.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>
#include <time.h>
#include "allocate.h"
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
    bool asks = strcmp(call, "malloc") == 0 || strcmp(call, "thread") == 0;
    if (strcmp(plan->call, call) != 0 && (asks || strcmp(plan->call, "any") != 0))
        return 0;
    uint64_t now = __atomic_add_fetch(&plan->seen, 1, __ATOMIC_RELAXED);
    if (now != plan->n && !(plan->on && now > plan->n))
        return 0;
    if (plan->what == RX_SHORT)
        return strcmp(call, "pwrite") == 0 ? RX_SHORT : 0;
    return errno = plan->what;
}

/* Of a call that changes something: a crash point of the function that makes it. */
static int rx_fault_of(const void *caller, const char *call)
{
    RX_POINT_OF(caller);
    return rx_fault(call);
}
#define RX_FAULT(call) rx_fault_of(__builtin_return_address(0), call)

/* ---- recording -------------------------------------------------------------------------- */

struct rx_record { uint32_t size, kind; uint64_t a, b, c; }; /* size: of all; then the bytes */
enum { RX_T_MADE = 1, RX_T_WRITE, RX_T_EXTEND, RX_T_CUT, RX_T_SYNCING, RX_T_SYNCED, RX_T_RENAMED, RX_T_REMOVED,
       RX_T_FAILED };
#define RX_PAGE 4096u

static int rx_trace_open(void)
{
    static int fd = -2; /* -1: nothing is recorded; a race opens it twice, to the same end */
    if (__atomic_load_n(&fd, __ATOMIC_ACQUIRE) == -2) {
        const char *name = getenv("ROWEX_TRACE");
        __atomic_store_n(&fd, name && *name ? open(name, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600) : -1, __ATOMIC_RELEASE);
    }
    return fd;
}

static void rx_record(uint32_t kind, uint64_t a, uint64_t b, uint64_t c, const void *bytes, size_t size)
{
    struct rx_record head = {(uint32_t)(sizeof head + size), kind, a, b, c};
    struct iovec parts[2] = {{&head, sizeof head}, {(void *)(uintptr_t)bytes, size}};
    int os_errno = errno;
    if (writev(rx_trace_open(), parts, size ? 2 : 1) != (ssize_t)(sizeof head + size))
        abort();
    errno = os_errno;
}

static uint64_t rx_inode(int fd)
{
    struct stat st;
    return fstat(fd, &st) == 0 ? (uint64_t)st.st_ino : 0;
}

static uint64_t rx_inode_at(int dir_fd, const char *name)
{
    struct stat st;
    return fstatat(dir_fd, name, &st, AT_SYMLINK_NOFOLLOW) == 0 ? (uint64_t)st.st_ino : 0;
}

static void rx_record_made(int dir_fd, const char *name)
{
    rx_record(RX_T_MADE, rx_inode(dir_fd), rx_inode_at(dir_fd, name), 0, name, strlen(name));
}

/* A file that is mapped is changed without calls: what is there when its sync begins, page by page. */
static void rx_record_pages(int fd, uint64_t id)
{
    static const uint8_t none[RX_PAGE];
    struct stat st;
    if (fstat(fd, &st) != 0 || !S_ISREG(st.st_mode)) {
        rx_record(RX_T_SYNCING, rx_inode(fd), id, 0, NULL, 0);
        return;
    }
    uint64_t pages = ((uint64_t)st.st_size + RX_PAGE - 1) / RX_PAGE, used = 0;
    uint8_t *all = malloc(pages * (RX_PAGE + 8) + 1);
    if (all == NULL)
        abort();
    for (uint64_t i = 0; i < pages; i++) {
        uint8_t *to = all + used;
        memset(to + 8, 0, RX_PAGE);
        if (pread(fd, to + 8, RX_PAGE, (off_t)(i * RX_PAGE)) <= 0 || memcmp(to + 8, none, RX_PAGE) == 0)
            continue;
        memcpy(to, &i, 8);
        used += RX_PAGE + 8;
    }
    rx_record(RX_T_SYNCING, (uint64_t)st.st_ino, id, (uint64_t)st.st_size + 1, all, used);
    free(all);
}

/* What a disk takes; ROWEX_SYNC_US in microseconds. */
static void rx_take_time(void)
{
    const char *text = getenv("ROWEX_SYNC_US");
    long us = text ? atol(text) : 0;
    if (us)
        nanosleep(&(struct timespec){us / 1000000, us % 1000000 * 1000}, NULL);
}

static int rx_sync_recorded(int fd, int (*sync)(int))
{
    static uint64_t calls;
    if (rx_trace_open() < 0)
        return sync(fd);
    uint64_t id = (uint64_t)getpid() << 32 | __atomic_add_fetch(&calls, 1, __ATOMIC_RELAXED);
    if (sync == fsync)
        rx_record_pages(fd, id);
    else
        rx_record(RX_T_SYNCING, rx_inode(fd), id, 0, NULL, 0);
    int rc = sync(fd);
    rx_take_time();
    if (rc == 0)
        rx_record(RX_T_SYNCED, rx_inode(fd), id, 0, NULL, 0);
    return rc;
}

/* ---- the calls ------------------------------------------------------------------------------ */

int rx_sys_openat(int dir_fd, const char *name, int flags, ...)
{
    mode_t mode = 0;
    if (flags & O_CREAT) {
        va_list args;
        va_start(args, flags);
        mode = va_arg(args, mode_t);
        va_end(args);
    }
    if (RX_FAULT("open"))
        return -1;
    int fd = openat(dir_fd, name, flags, mode);
    if (fd >= 0 && (flags & O_CREAT) && rx_trace_open() >= 0)
        rx_record_made(dir_fd, name);
    return fd;
}

ssize_t rx_sys_pread(int fd, void *to, size_t size, off_t at) { return rx_fault("pread") ? -1 : pread(fd, to, size, at); }

ssize_t rx_sys_pwrite(int fd, const void *from, size_t size, off_t at)
{
    int fault = RX_FAULT("pwrite");
    if (fault && fault != RX_SHORT)
        return -1;
    ssize_t done = pwrite(fd, from, fault && size > 1 ? size / 2 : size, at);
    if (done > 0 && rx_trace_open() >= 0)
        rx_record(RX_T_WRITE, rx_inode(fd), (uint64_t)at, 0, from, (size_t)done);
    return done;
}

int rx_sys_fallocate(int fd, int mode, off_t from, off_t size)
{
    int rc = RX_FAULT("fallocate") ? -1 : fallocate(fd, mode, from, size);
    if (rc == 0 && rx_trace_open() >= 0)
        rx_record(RX_T_EXTEND, rx_inode(fd), (uint64_t)(from + size), 0, NULL, 0);
    return rc;
}

int rx_sys_ftruncate(int fd, off_t size)
{
    int rc = RX_FAULT("ftruncate") ? -1 : ftruncate(fd, size);
    if (rc == 0 && rx_trace_open() >= 0)
        rx_record(RX_T_CUT, rx_inode(fd), (uint64_t)size, 0, NULL, 0);
    return rc;
}

/* The kernel forgets what it could not write: no later sync makes it durable. */
static int rx_sync_failed(int fd)
{
    if (rx_trace_open() >= 0)
        rx_record(RX_T_FAILED, rx_inode(fd), 0, 0, NULL, 0);
    return -1;
}

int rx_sys_fsync(int fd) { return RX_FAULT("fsync") ? rx_sync_failed(fd) : rx_sync_recorded(fd, fsync); }
int rx_sys_fdatasync(int fd) { return RX_FAULT("fdatasync") ? rx_sync_failed(fd) : rx_sync_recorded(fd, fdatasync); }
int rx_sys_msync(void *base, size_t size, int flags) { return RX_FAULT("msync") ? -1 : msync(base, size, flags); }

void *rx_sys_mmap(void *at, size_t size, int prot, int flags, int fd, off_t from)
{
    return rx_fault("mmap") ? MAP_FAILED : mmap(at, size, prot, flags, fd, from);
}

int rx_sys_mkdirat(int dir_fd, const char *name, mode_t mode)
{
    int rc = RX_FAULT("mkdir") ? -1 : mkdirat(dir_fd, name, mode);
    if (rc == 0 && rx_trace_open() >= 0)
        rx_record_made(dir_fd, name);
    return rc;
}

int rx_sys_linkat(int from_dir, const char *from, int to_dir, const char *to, int flags)
{
    int rc = RX_FAULT("link") ? -1 : linkat(from_dir, from, to_dir, to, flags);
    if (rc == 0 && rx_trace_open() >= 0)
        rx_record_made(to_dir, to);
    return rc;
}

/* Recorded as within one folder.  By number: not every C library has a renameat2(). */
static int rx_rename_of(const void *caller, int from_dir, const char *from, int to_dir, const char *to, unsigned flags)
{
    char names[600];
    uint64_t inode = rx_inode_at(from_dir, from);
    const char *call = flags ? "renameat2" : "rename";
    int rc = rx_fault_of(caller, call) ? -1 : (int)syscall(SYS_renameat2, from_dir, from, to_dir, to, flags);
    int n = snprintf(names, sizeof names, "%s/%s", from, to);
    if (rc == 0 && rx_trace_open() >= 0)
        rx_record(RX_T_RENAMED, rx_inode(to_dir), inode, 0, names, (size_t)n);
    RX_POINT(); /* between a commit and what tells others of it */
    return rc;
}

int rx_sys_renameat2(int from_dir, const char *from, int to_dir, const char *to, unsigned flags)
{
    return rx_rename_of(__builtin_return_address(0), from_dir, from, to_dir, to, flags);
}

int rx_sys_renameat(int from_dir, const char *from, int to_dir, const char *to)
{
    return rx_rename_of(__builtin_return_address(0), from_dir, from, to_dir, to, 0);
}

int rx_sys_unlinkat(int dir_fd, const char *name, int flags)
{
    uint64_t inode = rx_inode_at(dir_fd, name);
    int rc = RX_FAULT("unlink") ? -1 : unlinkat(dir_fd, name, flags);
    if (rc == 0 && rx_trace_open() >= 0)
        rx_record(RX_T_REMOVED, rx_inode(dir_fd), inode, 0, name, strlen(name));
    return rc;
}

int rx_sys_fstat(int fd, struct stat *st) { return rx_fault("stat") ? -1 : fstat(fd, st); }

int rx_sys_fstatat(int dir_fd, const char *name, struct stat *st, int flags)
{
    return rx_fault("stat") ? -1 : fstatat(dir_fd, name, st, flags);
}

int rx_sys_fstatfs(int fd, struct statfs *fs) { return rx_fault("statfs") ? -1 : fstatfs(fd, fs); }

/* To take a lock, to ask for one, and to give one back. */
int rx_sys_lock(int fd, int command, struct flock *lock) { return rx_fault("lock") ? -1 : fcntl(fd, command, lock); }

DIR *rx_sys_fdopendir(int fd) { return rx_fault("list") ? NULL : fdopendir(fd); }
struct dirent *rx_sys_readdir(DIR *folder) { return rx_fault("list") ? NULL : readdir(folder); }
int rx_sys_fchown(int fd, uid_t uid, gid_t gid) { return RX_FAULT("attribute") ? -1 : fchown(fd, uid, gid); }
int rx_sys_fchmod(int fd, mode_t mode) { return RX_FAULT("attribute") ? -1 : fchmod(fd, mode); }

ssize_t rx_sys_fgetxattr(int fd, const char *name, void *to, size_t size)
{
    return rx_fault("attribute") ? -1 : fgetxattr(fd, name, to, size);
}

int rx_sys_fsetxattr(int fd, const char *name, const void *from, size_t size, int flags)
{
    return RX_FAULT("attribute") ? -1 : fsetxattr(fd, name, from, size, flags);
}

int rx_sys_fremovexattr(int fd, const char *name) { return RX_FAULT("attribute") ? -1 : fremovexattr(fd, name); }
int rx_sys_madvise(void *base, size_t size, int advice) { return rx_fault("madvise") ? -1 : madvise(base, size, advice); }

char *rx_sys_realpath(const char *path, char *whole) { return rx_fault("path") ? NULL : realpath(path, whole); }

ssize_t rx_sys_readlink(const char *path, char *target, size_t size)
{
    return rx_fault("path") ? -1 : readlink(path, target, size);
}

/* It is closed though it failed, as the kernel does it; one that succeeds may leave any errno. */
static int rx_closed(int rc)
{
    int fault = rx_fault("close");
    errno = fault ? fault : rc ? errno : ENOTRECOVERABLE;
    return fault ? -1 : rc;
}

int rx_sys_close(int fd) { return rx_closed(close(fd)); }
int rx_sys_closedir(DIR *folder) { return rx_closed(closedir(folder)); }

void *rx_sys_malloc(size_t size) { return rx_fault("malloc") ? NULL : malloc(size); }
void *rx_sys_calloc(size_t count, size_t size) { return rx_fault("malloc") ? NULL : calloc(count, size); }
void *rx_sys_realloc(void *at, size_t size) { return rx_fault("malloc") ? NULL : realloc(at, size); }
char *rx_sys_strdup(const char *text) { return rx_fault("malloc") ? NULL : strdup(text); }
char *rx_sys_strndup(const char *text, size_t most) { return rx_fault("malloc") ? NULL : strndup(text, most); }

void *rx_sys_pages(size_t size)
{
    int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;
    return rx_fault("malloc") ? MAP_FAILED : mmap(NULL, size, PROT_READ | PROT_WRITE, flags, -1, 0);
}

int rx_sys_thread(pthread_t *thread, void *(*run)(void *), void *arg)
{
    int fault = rx_fault("thread");
    return fault ? fault : pthread_create(thread, NULL, run, arg);
}
#endif
