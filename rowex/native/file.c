/*
 * file.c -- locks, sizes, syncs and copies: everything about one file that does not
 * depend on who else has it open.  open.c has the protocol.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>
#include "disk.h"
#include "fileio.h"

#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23
#endif

int (rx_os_error)(const char *what, const char *name)
{
    int code = errno == ENOSPC || errno == EDQUOT || errno == EFBIG ? RX_E_FULL
               : errno == EACCES || errno == EPERM                  ? RX_E_PERMISSION
               : errno == ENOENT                                    ? RX_E_NOT_FOUND
               : errno == ENOMEM                                    ? RX_E_MEMORY
                                                                    : RX_E_OS;
    return rx_fail(code, errno, "cannot %s %s", what, name ? name : "memory");
}

/* ---- locks ---------------------------------------------------------------------- */

int rx_byte_lock(int fd, short type, uint64_t byte)
{
    struct flock lock = {.l_type = type, .l_whence = SEEK_SET, .l_start = (off_t)byte, .l_len = 1};
    RX_POINT(); /* a process may stand still between what it has looked at and its lock */
    return rx_sys_lock(fd, F_OFD_SETLK, &lock) == 0 ? RX_OK : errno == EAGAIN || errno == EACCES ? RX_E_BUSY : RX_E_OS;
}

/* What is not given back (the system needs memory for that too) holds others up for as long as we live. */
#define RX_UNLOCK_TRIES 10 /* of a millisecond */
int rx_byte_unlock(int fd, uint64_t byte)
{
    int rc;
    for (int tries = 0; (rc = rx_byte_lock(fd, F_UNLCK, byte)) != RX_OK && tries < RX_UNLOCK_TRIES; tries++)
        nanosleep(&(struct timespec){0, 1000000}, NULL);
    return rc;
}

/* A description that may not write cannot take an exclusive lock, but it can ask for one. */
int rx_byte_ask(int fd, uint64_t byte)
{
    struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = (off_t)byte, .l_len = 1};
    if (rx_sys_lock(fd, F_OFD_GETLK, &lock) != 0)
        return RX_E_OS;
    return lock.l_type == F_UNLCK ? RX_OK : RX_E_BUSY;
}

/* `late`: the result when others still hold it at `until_ns`; they live, or the lock would be gone. */
static int rx_byte_wait(int fd, uint64_t byte, const char *doing, const char *path, int64_t until_ns, int late)
{
    for (long nap_ns = 50000;; nap_ns = nap_ns < 10000000 ? nap_ns * 2 : nap_ns) {
        int rc = rx_byte_lock(fd, F_WRLCK, byte);
        if (rc == RX_OK)
            return RX_OK;
        if (rc != RX_E_BUSY)
            return rx_os_error("lock", path);
        if (rx_now_ns() >= until_ns)
            return rx_fail(late, 0, "another process is %s %s", doing, path);
        if ((rc = rx_poll_interrupt()) != RX_OK)
            return rc;
        nanosleep(&(struct timespec){0, nap_ns}, NULL);
    }
}

#define RX_BYTE_WAIT_NS 30000000000ll /* where the caller has no deadline, and might wait for its own thread */
static int rx_opening_wait(int fd, const char *path, int64_t until_ns, int late)
{
    return fd < 0 ? RX_OK : rx_byte_wait(fd, RX_LOCK_OPENING, "opening, closing or marking", path, until_ns, late);
}
int rx_opening_lock(int fd, const char *path) { return rx_opening_wait(fd, path, rx_now_ns() + RX_BYTE_WAIT_NS, RX_E_TIMEOUT); }
int rx_opening_lock_until(int fd, const char *path, int64_t deadline_ns)
{
    return rx_opening_wait(fd, path, deadline_ns, RX_WOULD_WAIT);
}
void rx_opening_unlock(int fd)
{
    if (fd >= 0)
        (void)rx_byte_unlock(fd, RX_LOCK_OPENING);
}

/*
 * R7: probe_fd is a description of its own, so our own process's bytes do not look free.  A lock
 * that was refused for any reason is no proof.
 */
int rx_probe_begin(struct rx_db *db, uint32_t index)
{
    return db->probe_fd >= 0 && rx_byte_lock(db->probe_fd, F_WRLCK, RX_LOCK_PROCESS + index) == RX_OK;
}
void rx_probe_end(struct rx_db *db, uint32_t index) { (void)rx_byte_unlock(db->probe_fd, RX_LOCK_PROCESS + index); }

/* ---- sizes ------------------------------------------------------------------------- */

int rx_map_refresh(struct rx_map *map)
{
    struct stat st;
    if (rx_sys_fstat(map->fd, &st) != 0)
        return rx_os_error("look at", "an open file");
    uint64_t size = (uint64_t)st.st_size;
    __atomic_store_n(&map->size, size < map->capacity ? size : map->capacity, __ATOMIC_RELEASE);
    RX_TRACE(rx_trace_note(RX_T_SIZE, map->base, size));
    return RX_OK;
}

bool rx_in_file_slow(struct rx_map *map, uint64_t off, uint64_t size)
{
    if (off >= RX_ROOT_OFF && off < RX_HEAP)
        return size <= RX_HEAP - off;
    if (off < RX_HEAP || off >= map->capacity || size > map->capacity - off)
        return false;
    if (rx_map_refresh(map) != RX_OK) /* the one fstat() after the file grew (P3) */
        return true; /* not told: that is no damage.  Beyond the end there is a fault, which is told (sigbus.c) */
    uint64_t have = __atomic_load_n(&map->size, __ATOMIC_ACQUIRE);
    return off <= have && size <= have - off;
}

bool rx_file_word(const struct rx_map *map, uint64_t off, uint64_t *word)
{
    *word = 0; /* cut off: nobody sees anything there */
    return rx_sys_pread(map->fd, word, sizeof *word, (off_t)off) >= 0;
}

int rx_write_fd(int fd, uint64_t at, const void *data, uint64_t size)
{
    const uint8_t *from = data;
    while (size) {
        ssize_t n = rx_sys_pwrite(fd, from, size < 1u << 30 ? size : 1u << 30, (off_t)at);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return -1;
        from += n;
        at += (uint64_t)n;
        size -= (uint64_t)n;
    }
    return 0;
}

/* Zeros past the end, where there is no fallocate(2).  Caller: nobody else makes the file grow. */
static int rx_write_zeros(int fd, uint64_t from, uint64_t upto)
{
    static const char zeros[65536];
    for (; from < upto; from += sizeof zeros)
        if (rx_write_fd(fd, from, zeros, upto - from < sizeof zeros ? upto - from : sizeof zeros) != 0)
            return -1;
    return 0;
}

/* 0; 1: this filesystem cannot; -1, errno. */
static int rx_fallocate(int fd, uint64_t from, uint64_t upto)
{
    int rc;
    if (upto <= from)
        return 0;
    do
        rc = rx_sys_fallocate(fd, 0, (off_t)from, (off_t)(upto - from));
    while (rc != 0 && errno == EINTR);
#ifdef ROWEX_CANARY_NO_ROOM_IS_ROOM /* a broken build on purpose: tests/test_full.py must notice */
    return 0;
#endif
    return rc != 0 && (errno == EOPNOTSUPP || errno == ENOSYS) ? 1 : rc;
}

static int rx_extend_by_zeros(int fd, uint64_t from, uint64_t upto)
{
    struct stat st;
    if (rx_sys_fstat(fd, &st) != 0)
        return -1;
    uint64_t end = (uint64_t)st.st_size;
    return rx_write_zeros(fd, end > from ? end : from, upto);
}

int rx_allocate_fd(int fd, uint64_t from, uint64_t upto)
{
    int rc = rx_fallocate(fd, from, upto);
    return rc <= 0 ? rc : rx_extend_by_zeros(fd, from, upto);
}

/*
 * As rx_allocate_fd(), while others may do the same.  Zeros that are written late would
 * fall on what another has stored since it made the file grow: so one at a time, and the
 * end is looked at anew.  Not by OPENING, which an opener and a marker hold already.
 */
static int rx_allocate_shared(struct rx_db *db, int fd, uint64_t from, uint64_t upto)
{
    int done = rx_fallocate(fd, from, upto);
    if (done <= 0)
        return done == 0 ? RX_OK : rx_os_error("give more blocks to", db->path);
    int rc = rx_turn_take(RX_TURN_GROWING, INT64_MAX);
    if (rc)
        return rc;
    rc = rx_byte_wait(db->lock_fd, RX_LOCK_GROWING, "adding zeros to", db->path, rx_now_ns() + RX_BYTE_WAIT_NS, RX_E_TIMEOUT);
    if (rc == RX_OK) {
        if (rx_extend_by_zeros(fd, from, upto) != 0)
            rc = rx_os_error("give more blocks to", db->path);
        (void)rx_byte_unlock(db->lock_fd, RX_LOCK_GROWING);
    }
    rx_turn_end(RX_TURN_GROWING);
    return rc;
}

/* First touch of a page costs more one by one; 2 MiB at a time, so that we stay killable. */
static void rx_populate(struct rx_map *map, uint64_t from, uint64_t upto)
{
    from &= ~4095ull;
    while (from < upto) {
        uint64_t n = upto - from < 2u << 20 ? upto - from : 2u << 20;
        if (rx_sys_madvise(map->base + from, n, MADV_POPULATE_WRITE) != 0)
            return;
        from += n;
    }
}

static void rx_raise(uint64_t *word, uint64_t value)
{
    uint64_t have = rx_load(word);
    while (have < value && !rx_cas(word, &have, value))
        ;
}

int rx_name_is_ours(struct rx_db *db)
{
    struct stat st;
    if (db->memory)
        return RX_OK;
    uint64_t generation = rx_load(&db->hdr->generation);
    bool there = rx_sys_fstatat(db->dir_fd, db->name, &st, AT_SYMLINK_NOFOLLOW) == 0;
    if (!there && errno != ENOENT)
        return rx_os_error("look at", db->path); /* not told: nobody is robbed for that */
    if (there && (uint64_t)st.st_ino == rx_load(&db->hdr->ino) && (uint64_t)st.st_dev == rx_load(&db->hdr->dev))
        return RX_OK;
    struct rx_peek seen; /* a copy that was renamed and whose step is not finished is ours too */
    int rc = rx_name_peek(db, &seen);
    if (rc < 0)
        return rc; /* not to be seen just now (a folder that was closed to us): nobody is robbed for that */
    if (rc == RX_OK && seen.generation == generation + 1)
        return RX_OK;
    if (generation != RX_GENERATION_REPLACED && !rx_cas(&db->hdr->generation, &generation, RX_GENERATION_REPLACED) &&
        generation != RX_GENERATION_REPLACED)
        return RX_OK; /* it moved while we looked */
    return rx_fail(RX_E_REPLACED, 0, "%s", db->path);
}

int rx_file_allocate(struct rx_db *db, struct rx_map *map, uint64_t upto)
{
    uint64_t have = rx_load(&db->hdr->allocated);
    if (upto > map->capacity)
        return rx_fail(RX_E_FULL, 0, "the address range of this generation has %llu bytes", (unsigned long long)map->capacity);
    int rc = rx_name_is_ours(db);
    if (rc)
        return rc;
    if ((rc = rx_allocate_shared(db, map->fd, have, upto)) != RX_OK)
        return rc;
    (void)rx_map_refresh(map); /* else by who first goes there */
    rx_populate(map, have, upto);
    if (map->fences && rx_sync_fd(map->fd) != 0) /* its size and blocks, before anything that returns lies there */
        return rx_os_error("sync", db->path);
    rx_raise(&db->hdr->allocated, upto);
    return RX_OK;
}

int rx_lockfile_allocate(struct rx_db *db, uint64_t from, uint64_t size)
{
    if (db->lock_fd < 0)
        return RX_OK;
    return rx_allocate_fd(db->lock_fd, from, from + size) == 0 ? RX_OK : rx_os_error("give more blocks to the -lock file of", db->path);
}

/* ---- syncs ---------------------------------------------------------------------------- */

int rx_sync_fd(int fd)
{
    int rc;
    do
        rc = rx_sys_fsync(fd);
    while (rc != 0 && errno == EINTR);
    return rc;
}

int rx_map_sync(struct rx_map *map, uint64_t size)
{
    if (rx_sys_msync(map->base, size, MS_SYNC) != 0 || rx_sync_fd(map->fd) != 0)
        return rx_fail(RX_E_OS, errno, "cannot sync the file");
    RX_TRACE(rx_trace_note(RX_T_SYNC, map->base, 0));
    return RX_OK;
}

/* ---- copies ------------------------------------------------------------------------------ */

int rx_copy_create(struct rx_db *db, const struct rx_map *like, uint64_t capacity, const char *name, struct rx_map **out)
{
    (void)rx_sys_unlinkat(db->dir_fd, name, 0);
    int fd = rx_sys_openat(db->dir_fd, name, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (fd < 0)
        return rx_os_error("create a copy of", db->path);
    int rc = RX_OK;
    if (rx_allocate_fd(fd, 0, RX_HEAP) != 0)
        rc = rx_os_error("give blocks to a copy of", db->path);
    if (rc == RX_OK)
        rc = rx_map_new(fd, capacity, false, like->fences, db->durability == RX_D_PMEM, out);
    if (rc) {
        rx_sys_close(fd);
        (void)rx_sys_unlinkat(db->dir_fd, name, 0);
        return rc;
    }
    (*out)->checksum = like->checksum;
    /* Of memory the modes say nothing.  Last: who may only read makes copies too, and maps them to write. */
    if (db->memory || rx_copy_attributes(like->fd, fd) == 0)
        return RX_OK;
    rc = rx_os_error("give the mode and owner of the file to a copy of", db->path);
    rx_copy_drop(*out);
    *out = NULL;
    (void)rx_sys_unlinkat(db->dir_fd, name, 0);
    return rc;
}

int rx_copy_allocate(struct rx_map *copy, uint64_t upto)
{
    uint64_t have = copy->size;
    if (upto > copy->capacity)
        return rx_fail(RX_E_FULL, 0, "the copy outgrows its capacity of %llu bytes", (unsigned long long)copy->capacity);
    if (rx_allocate_fd(copy->fd, have, upto) != 0)
        return rx_os_error("give blocks to", "a copy");
    int rc = rx_map_refresh(copy);
    if (rc == RX_OK)
        rx_populate(copy, have, upto);
    return rc;
}

int rx_copy_sync(struct rx_map *copy, uint64_t size)
{
    if (size < copy->size) {
        if (rx_sys_ftruncate(copy->fd, (off_t)size) != 0)
            return rx_os_error("cut", "a copy");
        (void)rx_map_refresh(copy); /* else more is synced */
    }
    return rx_map_sync(copy, copy->size);
}

int rx_copy_rename(struct rx_db *db, const char *name)
{
    if (rx_sys_renameat(db->dir_fd, name, db->dir_fd, db->name) == 0) {
        RX_TRACE(rx_trace_note(RX_T_RENAME, NULL, 0));
        return RX_OK;
    }
    return errno == ENOENT ? RX_I_RESTART : rx_os_error("rename a copy over", db->path);
}

int rx_copy_unlink(struct rx_db *db, const char *name)
{
    if (rx_sys_unlinkat(db->dir_fd, name, 0) == 0)
        return RX_OK;
    return errno == ENOENT ? RX_ABSENT : rx_os_error("unlink", name);
}

int rx_folder_sync(struct rx_db *db)
{
    if (db->dir_fd < 0 || rx_sync_fd(db->dir_fd) == 0 || errno == EINVAL) {
        RX_TRACE(rx_trace_note(RX_T_FOLDER, NULL, 0));
        return RX_OK;
    }
    return rx_os_error("sync the folder of", db->path);
}

void rx_copy_drop(struct rx_map *copy)
{
    if (copy == NULL)
        return;
    rx_map_unmap(copy);
    free(copy);
}
