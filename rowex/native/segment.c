/*
 * segment.c -- writing segments: names, headers, blocks, syncs.  replay.c reads them.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>
#include "disk.h"
#include "fileio.h"
#include "segment.h"

int rx_log_folder(struct rx_db *db, bool create, int *dir_fd)
{
    char name[300];
    snprintf(name, sizeof name, "%.290s-log", db->name);
    for (;;) {
        *dir_fd = rx_sys_openat(db->dir_fd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
        if (*dir_fd >= 0)
            return RX_OK;
        if (errno != ENOENT)
            return rx_os_error("open the log of", db->path);
        if (!create)
            return RX_ABSENT;
        struct stat st;
        if (rx_sys_fstat(db->lock_fd, &st) != 0) /* who may write the file may write its log */
            return rx_os_error("look at the -lock file of", db->path);
        mode_t mode = (st.st_mode & 0666) | (st.st_mode & 0444) >> 2;
        if (rx_sys_mkdirat(db->dir_fd, name, mode) != 0 && errno != EEXIST)
            return rx_os_error("create the log of", db->path);
        int fd = rx_sys_openat(db->dir_fd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
        if (fd >= 0) {
            if (rx_sys_fchown(fd, st.st_uid, st.st_gid) != 0 || rx_sys_fchmod(fd, mode) != 0)
                errno = 0; /* not ours to give: it stays with us */
            rx_sys_close(fd);
        }
        int rc = rx_folder_sync(db);
        if (rc)
            return rc;
    }
}

void rx_segment_name(uint64_t id, char name[24]) { snprintf(name, 24, "%016llx", (unsigned long long)id); }

static int rx_write_blocks(int fd, uint64_t size, bool settle)
{
    static const uint8_t zeros[65536];
    if (rx_allocate_fd(fd, 0, size) != 0)
        return -1;
    for (uint64_t at = 0; settle && at < size; at += sizeof zeros)
        if (rx_write_fd(fd, at, zeros, size - at < sizeof zeros ? size - at : sizeof zeros) != 0)
            return -1;
    return 0;
}

#define RX_SPARE "spare"

int rx_spare_ensure(struct rx_db *db, int dir_fd, uint64_t size)
{
    struct stat st;
    int fd = rx_sys_openat(dir_fd, RX_SPARE, O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0600);
    if (fd < 0)
        return rx_os_error("create a spare segment of the log of", db->path);
    int rc = RX_OK;
    if (rx_sys_fstat(fd, &st) != 0)
        rc = rx_os_error("look at the spare segment of", db->path);
    else if ((uint64_t)st.st_size < size && (rx_copy_attributes(db->lock_fd, fd) != 0 || rx_allocate_fd(fd, 0, size) != 0))
        rc = rx_os_error("give blocks to the log of", db->path); /* whoever may write the file may take them */
    rx_sys_close(fd);
    return rc;
}

uint64_t rx_spare_size(int dir_fd)
{
    struct stat st;
    return rx_sys_fstatat(dir_fd, RX_SPARE, &st, AT_SYMLINK_NOFOLLOW) == 0 ? (uint64_t)st.st_size : 0;
}

/*
 * The disk is full: the spare takes the new segment's name. -1: there is none.
 * Ordering  renamed, then opened: a leader that was deposed meanwhile never writes its header to
 *           the spare that its successor took.
 */
static int rx_spare_take(int dir_fd, const char *name, struct rx_segment *head)
{
    struct stat st;
    if (rx_spare_size(dir_fd) < head->size || rx_sys_renameat(dir_fd, RX_SPARE, dir_fd, name) != 0)
        return -1;
    int fd = rx_sys_openat(dir_fd, name, O_RDWR | O_NOFOLLOW | O_CLOEXEC);
    if (fd >= 0 && rx_sys_fstat(fd, &st) == 0 && (uint64_t)st.st_size >= head->size) {
        head->size = (uint64_t)st.st_size & ~4095ull;
        return fd;
    }
    if (fd >= 0)
        rx_sys_close(fd);
    (void)rx_sys_renameat(dir_fd, name, dir_fd, RX_SPARE); /* also if it was another by then */
    return -1;
}

static uint32_t rx_segment_crc(const struct rx_segment *head)
{
    return rx_crc32c(0, head->uuid, sizeof *head - offsetof(struct rx_segment, uuid));
}
static void rx_segment_seal(struct rx_segment *head) { head->crc = rx_segment_crc(head); }

/*
 * A head stands only in a file that has its whole length on the disk: one that is shorter than its head says
 * was cut by somebody (replay.c), not left so by a power cut.
 */
static int rx_segment_fill(struct rx_db *db, int fd, const struct rx_segment *head, bool settle)
{
    /* NAME-lock has the data file's; maps may come and go meanwhile */
    if (rx_copy_attributes(db->lock_fd, fd) != 0 || rx_write_blocks(fd, head->size, settle) != 0 || rx_sync_fd(fd) != 0 ||
        rx_write_fd(fd, 0, head, sizeof *head) != 0 || rx_sync_fd(fd) != 0)
        return rx_os_error("write a segment of the log of", db->path);
    return RX_OK;
}

/*
 * Commit    the folder's sync: before it the segment may be missing, or not whole, after a
 *           power cut, and nothing in it has been told to be durable.
 */
int rx_segment_create(struct rx_db *db, int dir_fd, const struct rx_segment_head *what, bool settle,
                      struct rx_segment_file *out)
{
    char name[24];
    struct rx_segment head = {.version = RX_SEGMENT_VERSION, .id = what->id, .incarnation = what->incarnation,
                              .bytes = what->bytes, .first = what->first, .size = (what->size + 4095) & ~4095ull};
    memcpy(head.magic, RX_SEGMENT_MAGIC, 8);
    memcpy(head.uuid, db->uuid, 16);
    rx_segment_seal(&head);
    rx_segment_name(head.id, name);
    int fd = rx_sys_openat(dir_fd, name, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
    int rc = fd < 0 ? rx_os_error("create a segment of the log of", db->path) : rx_segment_fill(db, fd, &head, settle);
    if (rc == RX_E_FULL) {
        if (fd >= 0)
            rx_sys_close(fd);
        (void)rx_sys_unlinkat(dir_fd, name, 0);
        head.size = what->least;
        fd = rx_spare_take(dir_fd, name, &head);
        if (fd < 0)
            return rx_fail(RX_E_FULL, ENOSPC, "there are no blocks for the log of %s", db->path);
        rx_segment_seal(&head);
        if (db->hdr)
            rx_store(&db->hdr->log_allowed, 0);
        rc = rx_segment_fill(db, fd, &head, false);
    }
    if (fd < 0)
        return rc;
    if (rc == RX_OK && rx_sync_fd(dir_fd) != 0)
        rc = rx_os_error("sync the log's folder of", db->path);
    if (rc) {
        rx_sys_close(fd);
        (void)rx_sys_unlinkat(dir_fd, name, 0);
        return rc;
    }
    *out = (struct rx_segment_file){fd, head.id, head.bytes, head.size};
    return RX_OK;
}

int rx_segment_open(struct rx_db *db, int dir_fd, uint64_t id, struct rx_segment_file *out)
{
    char name[24];
    struct rx_segment head;
    rx_segment_name(id, name);
    int fd = rx_sys_openat(dir_fd, name, O_RDWR | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0)
        return rx_os_error("open a segment of the log of", db->path);
    ssize_t have = rx_sys_pread(fd, &head, sizeof head, 0);
    int rc = have < 0 ? rx_os_error("read a segment of the log of", db->path) : RX_OK;
    if (have >= 0 && (have != (ssize_t)sizeof head || head.id != id || head.version != RX_SEGMENT_VERSION ||
                      memcmp(head.uuid, db->uuid, 16) != 0 || head.crc != rx_segment_crc(&head)))
        rc = rx_fail(RX_E_CORRUPT, 0, "segment %s of the log of %s is not the one that was written", name, db->path);
    if (rc) {
        rx_sys_close(fd);
        return rc;
    }
    *out = (struct rx_segment_file){fd, id, head.bytes, head.size};
    return RX_OK;
}

void rx_segment_shut(struct rx_segment_file *s)
{
    if (s->fd >= 0)
        rx_sys_close(s->fd);
    *s = (struct rx_segment_file){-1, 0, 0, 0};
}

int rx_segment_write(const struct rx_segment_file *s, uint64_t bytes, const void *data, uint64_t size)
{
    return rx_forgiven(rx_write_fd(s->fd, RX_SEGMENT_HEAD + (bytes - s->bytes), data, size));
}

int rx_segment_sync(const struct rx_segment_file *s)
{
    int rc;
#ifdef ROWEX_CANARY_SKIP_SYNC /* a broken build on purpose: scripts/powercut must notice */
    static unsigned calls;
    if (++calls % 4 == 0)
        return 0;
#endif
    do
        rc = rx_sys_fdatasync(s->fd);
    while (rc != 0 && errno == EINTR);
    return rx_forgiven(rc);
}

void rx_segment_remove(int dir_fd, uint64_t id)
{
    char name[24];
    rx_segment_name(id, name);
    (void)rx_sys_unlinkat(dir_fd, name, 0);
}
