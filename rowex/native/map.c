/*
 * map.c -- one file mapped: for a generation's whole capacity, past the end of the file.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>
#include "disk.h"
#include "fileio.h"

#define RX_TMPFS 0x01021994
#ifndef MAP_SYNC
#define MAP_SYNC 0x80000
#endif
#ifndef MAP_SHARED_VALIDATE
#define MAP_SHARED_VALIDATE 3
#endif

/*
 * A second description of the same file.  Maps are made of one of these: a map keeps its
 * description alive, also in a forked child that closed every descriptor, and the locks
 * of a dead process would live on with it (R7).
 */
int rx_reopen_fd(int fd, int flags)
{
    char name[64];
    snprintf(name, sizeof name, "/proc/self/fd/%d", fd);
    return rx_sys_openat(AT_FDCWD, name, flags | O_CLOEXEC);
}

/* -1: nobody forces anything. */
static int rx_fences_forced(int fences)
{
    const char *forced = getenv("ROWEX_FENCES"); /* for tests */
    return fences >= 0 ? fences != 0 : forced && *forced ? *forced != '0' : -1;
}

int rx_pmem_check(int fd, int fences, const char *path, const char *instead)
{
    int forced = rx_fences_forced(fences);
    void *page = rx_sys_mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED_VALIDATE | MAP_SYNC, fd, 0);
    if (page != MAP_FAILED)
        munmap(page, 4096);
    if (rx_persist_setup() && (forced > 0 || (forced < 0 && page != MAP_FAILED)))
        return RX_OK;
    return rx_fail(RX_E_DURABILITY, EOPNOTSUPP, "durability=\"pmem\" needs persistent memory: a filesystem that is mounted "
                   "with DAX and maps with MAP_SYNC, which that of %s does not; %s", path ? path : "memory", instead);
}

/*
 * MAP_SYNC succeeds on DAX only: then flushes and fences mean something, and a page's first store
 * waits until the file's metadata that lead to it are durable.
 */
static void *rx_map_bytes(int fd, uint64_t capacity, bool readonly, bool pmem, bool *dax)
{
    int prot = readonly ? PROT_READ : PROT_READ | PROT_WRITE;
    *dax = false;
    if (pmem) {
        void *base = rx_sys_mmap(NULL, capacity, prot, MAP_SHARED_VALIDATE | MAP_SYNC, fd, 0);
        if (base != MAP_FAILED) {
            *dax = true;
            return base;
        }
    }
    return rx_sys_mmap(NULL, capacity, prot, MAP_SHARED | MAP_NORESERVE, fd, 0);
}

/*
 * Huge pages where nothing is written back.  On a disk the kernel keeps what is dirty by the folio:
 * where a filesystem has large ones (ext4 since Linux 6.16), each store into a huge page would have
 * all 2 MiB of it written, and each first look would read as much.
 */
static void rx_map_huge(int fd, void *base, uint64_t capacity)
{
    struct statfs fs;
    if (rx_sys_fstatfs(fd, &fs) == 0 && fs.f_type == RX_TMPFS)
        rx_sys_madvise(base, capacity, MADV_HUGEPAGE);
}

int rx_map_new(int fd, uint64_t capacity, bool readonly, int fences, bool pmem, struct rx_map **out)
{
    struct rx_map *map = rx_sys_calloc(1, sizeof *map);
    bool dax;
    if (map == NULL)
        return rx_fail(RX_E_MEMORY, 0, "for a map");
    int other = rx_reopen_fd(fd, readonly ? O_RDONLY : O_RDWR);
    if (other < 0) {
        free(map);
        return rx_os_error("open a file again, to map", NULL);
    }
    void *base = rx_map_bytes(other, capacity, readonly, pmem, &dax);
    int os_errno = errno;
    rx_sys_close(other);
    if (base == MAP_FAILED) {
        errno = os_errno;
        free(map);
        return rx_fail(RX_E_MEMORY, errno, "cannot map %llu bytes of address space; a smaller capacity may do",
                       (unsigned long long)capacity);
    }
    int forced = rx_fences_forced(fences);
    map->base = base;
    map->capacity = capacity;
    map->fd = fd;
    map->readonly = readonly;
    map->fences = forced >= 0 ? forced : dax;
    if (map->fences)
        rx_persist_setup();
    rx_map_huge(fd, base, capacity);
    RX_TRACE(rx_trace_map(base, capacity, fd));
    int rc = rx_map_refresh(map);
    if (rc == RX_OK)
        rc = rx_guard_add(map->base, capacity, &map->poison);
    if (rc) {
        munmap(base, capacity);
        free(map);
        return rc;
    }
    *out = map;
    return RX_OK;
}

/* Gives the address range and the descriptor back; the struct stays. */
void rx_map_unmap(struct rx_map *map)
{
    if (map->unmapped)
        return;
    rx_guard_remove(map->base);
    munmap(map->base, map->capacity);
    RX_TRACE(rx_trace_unmap(map->base));
    rx_held_close(map->fd);
    map->fd = -1;
    map->unmapped = true;
}
