/*
 * manage.c -- whole files: destroying and renaming an index that nobody uses, looking at what NAME
 * names, and whose mode and owner a file gets.  duplicate.c copies one.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>
#include "disk.h"
#include "fileio.h"

#define RX_OPENING_TRIES 1000 /* of a millisecond each: another's opening or closing */

static int rx_os(const char *what, const char *path)
{
    int code = errno == ENOENT ? RX_E_NOT_FOUND : errno == EEXIST ? RX_E_EXISTS : errno == EACCES || errno == EPERM || errno == EROFS
                   ? RX_E_PERMISSION : errno == ENOSPC || errno == EDQUOT ? RX_E_FULL : RX_E_OS;
    return rx_fail(code, errno, "cannot %s %s", what, path);
}

/* ---- what a name names ------------------------------------------------------------ */

int rx_fd_identity(int fd, uint64_t *dev, uint64_t *ino)
{
    struct stat st;
    if (rx_sys_fstat(fd, &st) != 0)
        return rx_os("look at", "the file");
    *dev = (uint64_t)st.st_dev;
    *ino = (uint64_t)st.st_ino;
    return RX_OK;
}

static int rx_peek_fd(struct rx_db *db, int fd, struct rx_peek *out)
{
    struct rx_super super;
    struct stat st;
    if (rx_sys_fstat(fd, &st) != 0)
        return rx_os("look at", db->path);
    ssize_t have = rx_sys_pread(fd, &super, sizeof super, 0);
    if (have < 0)
        return rx_os("read", db->path);
    if (have != (ssize_t)sizeof super || rx_super_check(&super, (uint64_t)st.st_size) != RX_OK ||
        memcmp(super.uuid, db->uuid, sizeof super.uuid) != 0)
        return RX_ABSENT;
    *out = (struct rx_peek){super.generation, (uint64_t)st.st_dev, (uint64_t)st.st_ino, super.brk, super.count};
    return RX_OK;
}

int rx_name_peek(struct rx_db *db, struct rx_peek *out)
{
    int fd = rx_sys_openat(db->dir_fd, db->name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY);
    if (fd < 0)
        return errno == ENOENT || errno == ELOOP ? RX_ABSENT : rx_os("open", db->path);
    int rc = rx_peek_fd(db, fd, out);
    rx_sys_close(fd);
    return rc;
}

/* ---- alone with a file ---------------------------------------------------------------- */

/* RX_E_BUSY when another description holds the byte. */
static int rx_lock_byte(int fd, uint64_t byte, const char *path)
{
    int rc = rx_byte_lock(fd, F_WRLCK, byte);
    if (rc == RX_E_BUSY)
        return rx_fail(RX_E_BUSY, 0, "%s is open, here or in another process", path);
    return rc ? rx_os("lock", path) : RX_OK;
}

/* Opening and closing hold this byte briefly, a startup scan longer. */
static int rx_lock_opening(int fd, const char *path)
{
    int rc = RX_E_BUSY;
    for (int i = 0; i < RX_OPENING_TRIES && rc == RX_E_BUSY; i++) {
        if (i)
            nanosleep(&(struct timespec){0, 1000000}, NULL);
        rc = rx_lock_byte(fd, RX_LOCK_OPENING, path);
        if (rc == RX_E_BUSY && rx_poll_interrupt() != RX_OK)
            return RX_E_INTERRUPTED;
    }
    return rc;
}

int rx_names_fd(int dir_fd, const char *name, int fd)
{
    struct stat named, held;
    if (rx_sys_fstatat(dir_fd, name, &named, AT_SYMLINK_NOFOLLOW) != 0)
        return errno == ENOENT ? RX_ABSENT : rx_os("look at", name);
    if (rx_sys_fstat(fd, &held) != 0)
        return rx_os("look at", name);
    return named.st_dev == held.st_dev && named.st_ino == held.st_ino ? RX_OK : RX_ABSENT;
}

/* Splits at the last slash; the folder of a bare name is ".". */
static int rx_open_folder(const char *path, int *dir_fd, char **name)
{
    const char *slash = strrchr(path, '/');
    char *folder = slash == NULL ? rx_sys_strdup(".") : slash == path ? rx_sys_strdup("/") : rx_sys_strndup(path, (size_t)(slash - path));
    *name = rx_sys_strdup(slash ? slash + 1 : path);
    int rc = RX_OK;
    if (folder == NULL || *name == NULL)
        rc = rx_fail(RX_E_MEMORY, 0, "for a path");
    else if ((*dir_fd = rx_sys_openat(AT_FDCWD, folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC)) < 0)
        rc = errno == ENOENT ? rx_fail(RX_E_NO_FOLDER, 0, "%s", folder) : rx_os("open the folder", folder);
    free(folder);
    return rc;
}

static void rx_side_name(const char *name, const char *suffix, char out[300])
{
    snprintf(out, 300, "%s%s", name, suffix);
}

static int rx_exclusive_open(const char *path, struct rx_exclusive *x)
{
    char side[300], magic[8];
    struct stat st;
    x->data_fd = rx_held_open(x->dir_fd, x->name, O_RDWR | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY, 0);
    if (x->data_fd < 0 || rx_sys_fstat(x->data_fd, &st) != 0)
        return rx_os("open", path);
    if (!S_ISREG(st.st_mode) || rx_sys_pread(x->data_fd, magic, 8, 0) != 8 || memcmp(magic, RX_MAGIC, 8) != 0)
        return rx_fail(RX_E_FORMAT, 0, "%s does not begin as a Rowex file does; it was left alone", path);
    rx_side_name(x->name, "-lock", side);
    x->lock_fd = rx_held_open(x->dir_fd, side, O_RDWR | O_CREAT | O_NOFOLLOW, st.st_mode & 0666);
    return x->lock_fd < 0 ? rx_os("open the -lock file of", path) : RX_OK;
}

int rx_exclusive_begin(const char *path, struct rx_exclusive *x)
{
    *x = (struct rx_exclusive){-1, NULL, -1, -1};
    rx_fork_setup(NULL);
    char side[300], *full = rx_sys_realpath(path, NULL);
    if (full == NULL && errno != ENOENT)
        return rx_os("find", path);
    int rc = rx_open_folder(full ? full : path, &x->dir_fd, &x->name); /* else is it the folder that is missing? */
    if (rc == RX_OK && full == NULL)
        rc = rx_fail(RX_E_NOT_FOUND, 0, "%s", path);
    free(full);
    if (rc == RX_OK)
        rc = rx_exclusive_open(path, x);
    if (rc == RX_OK)
        rc = rx_lock_opening(x->lock_fd, path);
    if (rc == RX_OK)
        rc = rx_lock_byte(x->lock_fd, RX_LOCK_USERS, path);
    if (rc == RX_OK)
        rc = rx_lock_byte(x->data_fd, RX_LOCK_USERS, path);
    if (rc == RX_OK) {
        rx_side_name(x->name, "-lock", side);
        rc = rx_names_fd(x->dir_fd, x->name, x->data_fd);
        if (rc == RX_OK)
            rc = rx_names_fd(x->dir_fd, side, x->lock_fd);
        if (rc == RX_ABSENT)
            rc = rx_fail(RX_E_BUSY, 0, "%s was just replaced or removed by another process", path);
    }
    if (rc)
        rx_exclusive_end(x);
    return rc;
}

/* Closing the descriptors lets go of the locks: nobody else has these descriptions. */
void rx_exclusive_end(struct rx_exclusive *x)
{
    rx_held_close(x->data_fd);
    rx_held_close(x->lock_fd);
    if (x->dir_fd >= 0)
        rx_sys_close(x->dir_fd);
    free(x->name);
    *x = (struct rx_exclusive){-1, NULL, -1, -1};
}

/* ---- mode, owner, ACL ---------------------------------------------------------------------- */

#define RX_ACL "system.posix_acl_access"

/* Not ours to give, or there is no such thing here. */
static bool rx_may_not(void) { return errno == EPERM || errno == EINVAL || errno == EOPNOTSUPP || errno == ENOSYS; }

static bool rx_no_acl(void) { return errno == ENODATA || errno == EOPNOTSUPP || errno == ENOSYS; }

/* 0: the same, or neither has one; -1, errno. */
static int rx_copy_acl(int from, int to)
{
    char acl[4096];
    ssize_t n = rx_sys_fgetxattr(from, RX_ACL, acl, sizeof acl);
    if (n >= 0)
        return rx_sys_fsetxattr(to, RX_ACL, acl, (size_t)n, 0);
    if (!rx_no_acl())
        return -1;
    return rx_sys_fremovexattr(to, RX_ACL) == 0 || rx_no_acl() ? 0 : -1; /* its folder may have given it one */
}

int rx_copy_attributes(int from, int to)
{
    struct stat st;
    if (rx_sys_fstat(from, &st) != 0)
        return -1;
    if (rx_sys_fchown(to, st.st_uid, st.st_gid) != 0 &&
        (!rx_may_not() || (rx_sys_fchown(to, (uid_t)-1, st.st_gid) != 0 && !rx_may_not())))
        return -1; /* else it stays with us */
    mode_t mode = st.st_mode & 07777;
    if (rx_copy_acl(from, to) != 0) {
        if (!rx_may_not() && errno != ERANGE)
            return -1;
        mode &= ~(mode_t)070; /* with an ACL these are its mask: without it they would let the group in */
    }
    return rx_sys_fchmod(to, mode) == 0 || rx_may_not() ? 0 : -1;
}

/* ---- destroying ------------------------------------------------------------------------- */

static int rx_unlink_side(const struct rx_exclusive *x, const char *suffix)
{
    char side[300];
    rx_side_name(x->name, suffix, side);
    return rx_sys_unlinkat(x->dir_fd, side, 0) == 0 || errno == ENOENT ? RX_OK : rx_os("remove", side);
}

/* NAME-log and the files in it. */
static int rx_unlink_log(const struct rx_exclusive *x)
{
    char side[300];
    rx_side_name(x->name, "-log", side);
    int fd = rx_sys_openat(x->dir_fd, side, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    DIR *folder = fd < 0 ? NULL : rx_sys_fdopendir(fd);
    if (folder == NULL) {
        int rc = fd < 0 && errno == ENOENT ? RX_OK : rx_os("open", side);
        if (fd >= 0)
            rx_sys_close(fd);
        return rc;
    }
    for (struct dirent *e; (e = rx_sys_readdir(folder)) != NULL;)
        if (strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0)
            rx_sys_unlinkat(fd, e->d_name, 0); /* what stays is told by the folder that cannot be removed */
    rx_sys_closedir(folder);
    return rx_sys_unlinkat(x->dir_fd, side, AT_REMOVEDIR) == 0 ? RX_OK : rx_os("remove", side);
}

/* Named after this file and its uuid (gate.c). */
static void rx_unlink_copies(const struct rx_exclusive *x, const char *of, const uint8_t uuid[16])
{
    char name[300], prefix[256];
    int fd = rx_sys_openat(x->dir_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *folder = fd < 0 ? NULL : rx_sys_fdopendir(fd);
    if (folder == NULL) {
        if (fd >= 0)
            rx_sys_close(fd);
        return;
    }
    rx_side_name(x->name, of, name);
    size_t len = (size_t)snprintf(prefix, sizeof prefix, "%.200s-copy-%08x-", name, rx_crc32c(0, uuid, 16));
    for (struct dirent *e; (e = rx_sys_readdir(folder)) != NULL;)
        if (strncmp(e->d_name, prefix, len) == 0 && strspn(e->d_name + len, "0123456789abcdef") == strlen(e->d_name + len))
            rx_sys_unlinkat(x->dir_fd, e->d_name, 0);
    rx_sys_closedir(folder);
}

/* What makers that died left behind: copies, a checkpoint (checkpoint.c), a recovered file. */
static int rx_unlink_made(const struct rx_exclusive *x, const uint8_t uuid[16])
{
    char made[32];
    snprintf(made, sizeof made, "-checkpoint-new-%08x", rx_crc32c(0, uuid, 16));
    rx_unlink_copies(x, "", uuid);
    rx_unlink_copies(x, "-recovery", uuid);
    int rc = rx_unlink_side(x, made);
    if (rc == RX_OK)
        rc = rx_unlink_side(x, "-recovery");
    return rc == RX_OK ? rx_unlink_side(x, "-recovery-lock") : rc;
}

/*
 * What the dead left goes first: nobody needs it, and without the data file nobody knows whose it
 * is.  Then the data file: sidecars without it mean nothing (R6), while a data file that lost its
 * log could not be recovered.  NAME-lock, whose locks keep others out, goes last.
 */
int rx_destroy(const char *path)
{
    struct rx_exclusive x;
    uint8_t uuid[16] = {0};
    int rc = rx_exclusive_begin(path, &x);
    if (rc)
        return rc;
    bool known = rx_sys_pread(x.data_fd, uuid, sizeof uuid, offsetof(struct rx_super, uuid)) == (ssize_t)sizeof uuid;
    rc = known ? rx_unlink_made(&x, uuid) : RX_OK;
    if (rc == RX_OK)
        rc = rx_sys_unlinkat(x.dir_fd, x.name, 0) == 0 ? RX_OK : rx_os("remove", path);
    if (rc == RX_OK)
        rc = rx_unlink_side(&x, "-checkpoint");
    if (rc == RX_OK)
        rc = rx_unlink_log(&x);
    if (rc == RX_OK)
        rc = rx_unlink_side(&x, "-lock");
    if (rc == RX_OK && rx_sys_fsync(x.dir_fd) != 0 && errno != EINVAL)
        rc = rx_os("sync the folder of", path);
    rx_exclusive_end(&x);
    return rc;
}

/* ---- renaming ----------------------------------------------------------------------------- */

int rx_rename_new(int from_dir, const char *from, int to_dir, const char *to)
{
    if (rx_sys_renameat2(from_dir, from, to_dir, to, 1u /* RENAME_NOREPLACE */) == 0)
        return RX_OK;
    if (errno != ENOSYS && errno != EINVAL)
        return rx_os("rename to", to);
    if (rx_sys_linkat(from_dir, from, to_dir, to, 0) != 0)
        return rx_os("link as", to);
    return rx_sys_unlinkat(from_dir, from, 0) == 0 ? RX_OK : rx_os("remove", from);
}

static int rx_rename_side(const struct rx_exclusive *x, int to_dir, const char *to, const char *suffix)
{
    char before[300], after[300];
    rx_side_name(x->name, suffix, before);
    rx_side_name(to, suffix, after);
    return rx_sys_renameat(x->dir_fd, before, to_dir, after) == 0 || errno == ENOENT ? RX_OK : rx_os("rename", before);
}

/*
 * A file that was not closed cleanly keeps its inode, so it stays usable on this boot.
 * NAME-lock is not moved: the next opener makes a new one.
 */
int rx_rename(const char *from, const char *to)
{
    struct rx_exclusive x;
    int to_dir = -1;
    char *name = NULL;
    int rc = rx_exclusive_begin(from, &x);
    if (rc)
        return rc;
    rc = rx_open_folder(to, &to_dir, &name);
    if (rc == RX_OK)
        rc = rx_rename_new(x.dir_fd, x.name, to_dir, name);
    if (rc == RX_E_EXISTS)
        rc = rx_fail(rc, 0, "%s was left as it is", to);
    if (rc == RX_OK)
        rc = rx_rename_side(&x, to_dir, name, "-log");
    if (rc == RX_OK)
        rc = rx_rename_side(&x, to_dir, name, "-checkpoint");
    if (rc == RX_OK)
        rc = rx_unlink_side(&x, "-lock");
    if (rc == RX_OK && ((rx_sys_fsync(to_dir) != 0 && errno != EINVAL) || (rx_sys_fsync(x.dir_fd) != 0 && errno != EINVAL)))
        rc = rx_os("sync the folder of", to);
    if (to_dir >= 0)
        rx_sys_close(to_dir);
    free(name);
    rx_exclusive_end(&x);
    return rc;
}

/* ---- for duplicate.c ------------------------------------------------------------------------ */

int rx_target_folder(const char *path, int *dir_fd, char **name)
{
    char *full = rx_sys_realpath(path, NULL); /* an existing target is reached through links, as on opening */
    if (full == NULL && errno != ENOENT)
        return rx_os("find", path);
    int rc = rx_open_folder(full ? full : path, dir_fd, name);
    free(full);
    return rc;
}

bool rx_target_exists(int dir_fd, const char *name)
{
    struct stat st;
    return rx_sys_fstatat(dir_fd, name, &st, AT_SYMLINK_NOFOLLOW) == 0;
}

int rx_remove_lock(const struct rx_exclusive *x) { return rx_unlink_side(x, "-lock"); }

void rx_close_fd(int fd)
{
    if (fd >= 0)
        rx_sys_close(fd);
}

void rx_random_bytes(void *to, size_t size)
{
    if (syscall(SYS_getrandom, to, size, 0) == (long)size)
        return;
    uint64_t seed[3] = {(uint64_t)rx_now_ns(), (uint64_t)getpid(), (uint64_t)(uintptr_t)to};
    for (size_t i = 0; i < size; i++) { /* no getrandom: unlike others made here is all we need */
        seed[0] += i + 1;
        ((uint8_t *)to)[i] = (uint8_t)rx_crc32c(seed[0] & 0xffffffffu, seed, sizeof seed);
    }
}
