/*
 * registry.c -- what this process has open, by device and inode of the current data
 * file: two handles share one map and one uid table.  And what fork does to it.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <limits.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>
#include "attach.h"
#include "disk.h"
#include "flush.h"
#include "recovery.h"
#include "../gc/uid.h"

static struct rx_db *rx_registry; /* under RX_TURN_OPENING */

/* ---- fork ------------------------------------------------------------------------- */

static void rx_close_and_forget(int *fd)
{
    if (*fd >= 0)
        rx_sys_close(*fd);
    *fd = -1;
}

/*
 * The child's descriptors with locks were closed (fork.c).  The maps stay: a call that was
 * under way in another thread of the parent is not under way here.
 */
static void rx_forget_all(void)
{
    for (struct rx_db *db = rx_registry; db; db = db->next) {
        db->broken_fork = true;
        db->lock_fd = db->probe_fd = -1;
        /* Its threads are not here, and may have been half-way in anything: a descriptor that is
         * named there may be another's by now.  They hold no locks; it is left as it is. */
        db->logger = NULL;
        for (struct rx_map *map = db->map; map; map = map->older)
            map->fd = -1;
        rx_close_and_forget(&db->dir_fd);
    }
    rx_registry = NULL;
}

/* ---- dbs ------------------------------------------------------------------------------ */

static struct rx_db *rx_db_new(void)
{
    struct rx_db *db = rx_sys_calloc(1, sizeof *db);
    if (db == NULL)
        return NULL;
    pthread_mutex_init(&db->mutex, NULL);
    pthread_mutex_init(&db->probe_mutex, NULL);
    db->lock_fd = db->probe_fd = db->dir_fd = db->memory_fd[0] = db->memory_fd[1] = -1;
    return db;
}

void rx_db_discard(struct rx_db *db)
{
    rx_log_forget(db);
    if (db->lock_base) {
        rx_guard_remove(db->lock_base);
        munmap(db->lock_base, RX_LOCKFILE_SIZE);
    }
    for (struct rx_map *map = db->map, *older; map; map = older) {
        older = map->older;
        rx_map_unmap(map);
        free(map);
    }
    rx_held_close(db->lock_fd);
    rx_held_close(db->probe_fd);
    rx_close_and_forget(&db->dir_fd);
    rx_close_and_forget(&db->memory_fd[0]);
    rx_close_and_forget(&db->memory_fd[1]);
    free(db->name);
    free(db->path);
    free(db);
}

/*
 * The real path of what `path` names; its last part need not exist, and a symbolic link
 * to nothing leads to what it names.
 */
static int rx_real_path(const char *path, char whole[PATH_MAX])
{
    char at[PATH_MAX], folder[PATH_MAX], last[PATH_MAX], target[PATH_MAX], real[PATH_MAX];
    if (strlen(path) >= PATH_MAX)
        return rx_fail(RX_E_OS, ENAMETOOLONG, "%.100s...", path);
    strcpy(at, path);
    for (int links = 0; links < 40; links++) {
        if (rx_sys_realpath(at, whole))
            return RX_OK;
        if (errno != ENOENT)
            return rx_os_error("resolve", path);
        strcpy(folder, at);
        strcpy(last, at);
        const char *base = basename(last);
        const char *parent = dirname(folder);
        if (rx_sys_realpath(parent, real) == NULL)
            return errno == ENOENT ? rx_fail(RX_E_NO_FOLDER, 0, "%s", parent) : rx_os_error("find the folder of", path);
        ssize_t n = rx_sys_readlink(at, target, sizeof target - 1);
        if (n < 0 && errno != EINVAL && errno != ENOENT)
            return rx_os_error("follow", path); /* it may be a link to what is there */
        if (n >= 0)
            target[n] = 0;
        const char *next = n >= 0 ? target : base;
        char *to = n >= 0 ? at : whole;
        int length = snprintf(to, PATH_MAX, *next == '/' ? "%.0s%.4000s" : "%.3800s/%.4000s", real, next);
        if (length < 0 || length >= PATH_MAX)
            return rx_fail(RX_E_OS, ENAMETOOLONG, "%.100s...", path);
        if (n < 0)
            return RX_OK;
    }
    return rx_fail(RX_E_OS, ELOOP, "%s", path);
}

/* Folder and name, held by descriptor: chdir() and renamed folders do no harm. */
static int rx_db_place(struct rx_db *db, const char *path)
{
    char whole[PATH_MAX];
    int rc = rx_real_path(path, whole);
    if (rc)
        return rc;
    char *slash = strrchr(whole, '/');
    db->path = rx_sys_strdup(whole);
    db->name = rx_sys_strdup(slash + 1);
    *slash = 0;
    if (db->path == NULL || db->name == NULL)
        return rx_fail(RX_E_MEMORY, 0, "for a path");
    db->dir_fd = rx_sys_openat(AT_FDCWD, *whole ? whole : "/", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    return db->dir_fd < 0 ? rx_os_error("open the folder of", path) : RX_OK;
}

/* The open db whose current data file NAME is; NULL. */
static struct rx_db *rx_registered(const struct stat *st)
{
    for (struct rx_db *db = rx_registry; db; db = db->next)
        if (!db->broken_fork && rx_load(&db->hdr->ino) == (uint64_t)st->st_ino &&
            rx_load(&db->hdr->dev) == (uint64_t)st->st_dev &&
            rx_load(&db->hdr->generation) != RX_GENERATION_REPLACED)
            return db;
    return NULL;
}

static int rx_share(struct rx_db *db, const struct rx_options *o, struct rx_db **out)
{
    int rc = o->capacity > db->map->capacity ? rx_remap(db) : RX_OK; /* there may be a larger generation by now */
    if (rc == RX_OK)
        rc = rx_options_agree(db, o);
    if (rc)
        return rc;
    if (db->readonly && o->mode != 'r')
        return rx_fail(RX_E_BUSY, 0, "this process has %s open read-only; close that handle first", db->path);
    rx_log_interval(db, o->flush_interval_ns);
    db->handles++;
    *out = db;
    return RX_OK;
}

static void rx_register(struct rx_db *db)
{
    db->handles = 1;
    db->next = rx_registry;
    rx_registry = db;
}

/* ---- opening by path --------------------------------------------------------------------- */

/* Our own description of NAME-lock, and a second one for proving deaths. */
static int rx_lock_open(struct rx_db *db, const struct rx_options *o)
{
    char name[300];
    const char *lockless = getenv("ROWEX_FORCE_LOCKLESS");
    snprintf(name, sizeof name, "%s-lock", db->name);
    bool forced = o->mode == 'r' && lockless && *lockless && *lockless != '0';
    db->lock_fd = forced ? -1 : rx_held_open(db->dir_fd, name, O_RDWR | O_CREAT | O_NOFOLLOW, 0666);
    if (db->lock_fd < 0 && (forced || errno == EROFS) && o->mode == 'r') {
        db->lockless = db->readonly = true;
        return RX_OK;
    }
    if (db->lock_fd < 0 && (errno == EACCES || errno == EPERM))
        return rx_fail(RX_E_PERMISSION, errno, "readers too need to write %s-lock, where they say that they read", db->path);
    if (db->lock_fd < 0)
        return rx_os_error("open the -lock file of", db->path);
    db->probe_fd = rx_held_open(db->dir_fd, name, O_RDWR | O_NOFOLLOW, 0);
    return db->probe_fd < 0 ? errno == ENOENT ? RX_I_RESTART : rx_os_error("open the -lock file of", db->path) : RX_OK;
}

/* Does NAME-lock still name what we have locked?  destroy() and mode "n" unlink it under OPENING. */
static int rx_lock_current(struct rx_db *db)
{
    char name[300];
    snprintf(name, sizeof name, "%s-lock", db->name);
    int rc = db->lock_fd < 0 ? RX_OK : rx_names_fd(db->dir_fd, name, db->lock_fd);
    if (rc == RX_OK && db->lock_fd >= 0)
        rc = rx_names_fd(db->dir_fd, name, db->probe_fd);
    return rc == RX_ABSENT ? RX_I_RESTART : rc;
}

/* What cannot be looked at is not taken for missing. */
static int rx_name_look(struct rx_db *db, struct stat *st, bool *exists)
{
    *exists = rx_sys_fstatat(db->dir_fd, db->name, st, AT_SYMLINK_NOFOLLOW) == 0;
    return *exists || errno == ENOENT ? RX_OK : rx_os_error("look at", db->path);
}

/* Mode "n": is it an index, or an empty file?  Another program's work is not replaced. */
static int rx_replaceable(struct rx_db *db, int fd, const struct stat *st)
{
    char magic[8];
    ssize_t have = st->st_size ? rx_sys_pread(fd, magic, sizeof magic, 0) : 0;
    if (have < 0)
        return rx_os_error("read", db->path);
    if (st->st_size && (have != (ssize_t)sizeof magic || memcmp(magic, RX_MAGIC, sizeof magic) != 0))
        return rx_fail(RX_E_FORMAT, 0, "%s does not begin with Rowex's magic bytes; it was left alone", db->path);
    return RX_OK;
}

/* What no user of a file changes can be judged beside them: one that is refused for it gets no -lock file. */
static int rx_usable(struct rx_db *db, int fd, const struct stat *st)
{
    struct rx_super super = {0};
    if (rx_sys_pread(fd, &super, sizeof super, 0) < 0)
        return rx_os_error("read", db->path);
    int rc = rx_super_check_fixed(&super, (uint64_t)st->st_size);
    return rc ? rx_fail_in(rc, db->path) : rx_filesystem_allowed(db, fd);
}

/* At what NAME names already, before it gets a -lock file or is replaced.  RX_I_RESTART: it went meanwhile. */
static int rx_look_first(struct rx_db *db, const struct rx_options *o)
{
    struct stat st;
    int rc, fd = rx_sys_openat(db->dir_fd, db->name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY);
    if (fd < 0)
        return errno == ENOENT ? RX_I_RESTART : rx_os_error("open", db->path);
    if (rx_sys_fstat(fd, &st) != 0)
        rc = rx_os_error("look at", db->path);
    else if (S_ISDIR(st.st_mode))
        rc = rx_fail(RX_E_OS, EISDIR, "%s", db->path);
    else if (!S_ISREG(st.st_mode))
        rc = rx_fail(RX_E_FORMAT, 0, "%s is no regular file", db->path);
    else
        rc = o->mode == 'n' ? rx_replaceable(db, fd, &st) : rx_usable(db, fd, &st);
    rx_sys_close(fd);
    return rc;
}

static int rx_data_open(struct rx_db *db, const struct rx_options *o, int *fd)
{
    int flags = O_NOFOLLOW | O_NONBLOCK | O_NOCTTY;
    *fd = db->lockless ? -1 : rx_held_open(db->dir_fd, db->name, O_RDWR | flags, 0);
    if (*fd < 0 && o->mode == 'r' && (db->lockless || errno == EACCES || errno == EROFS || errno == EPERM)) {
        db->readonly = true;
        *fd = rx_held_open(db->dir_fd, db->name, O_RDONLY | flags, 0);
    }
    if (*fd < 0)
        return rx_os_error("open", db->path);
    int rc = rx_filesystem_allowed(db, *fd);
    if (rc)
        rx_held_close(*fd);
    return rc;
}

static int rx_not_there(const struct rx_db *db)
{
    return rx_fail(RX_E_NOT_FOUND, 0, "%s, which mode \"c\" would create", db->path);
}

struct rx_created { bool done; uint8_t uuid[16]; }; /* what mode "n" has done, through all tries of an open */

/* Under OPENING: create if asked, then attach. */
static int rx_open_locked(struct rx_db *db, const struct rx_options *o, struct rx_created *created)
{
    struct stat st;
    bool exists;
    int fd, rc = rx_name_look(db, &st, &exists);
    if (rc == RX_OK && !exists && (o->mode == 'r' || o->mode == 'w'))
        rc = rx_not_there(db);
    if (rc == RX_OK && exists && o->mode == 'n' && !created->done)
        rc = rx_look_first(db, o); /* again: it may be another by now */
    if (rc == RX_OK && !created->done && (!exists || o->mode == 'n')) {
        rc = rx_create(db, o);
        created->done = rc == RX_OK;
        memcpy(created->uuid, db->uuid, sizeof created->uuid);
    }
    if (rc == RX_OK)
        rc = rx_data_open(db, o, &fd);
    if (rc)
        return rc;
    rc = rx_attach(db, fd, o);
    /* A copier who slept before its rename has put the old index in the new one's place. */
    if (o->mode != 'n' || (rc != RX_OK && rc != RX_I_RESTART) || memcmp(db->uuid, created->uuid, sizeof created->uuid) == 0)
        return rc;
    created->done = false;
    return RX_I_RESTART;
}

static int rx_open_once(const struct rx_options *o, struct rx_created *created, struct rx_db **out)
{
    struct stat st;
    bool exists = false;
    struct rx_db *db = rx_db_new();
    if (db == NULL)
        return rx_fail(RX_E_MEMORY, 0, "for an index");
    int rc = rx_db_place(db, o->path);
    if (rc == RX_OK)
        rc = rx_name_look(db, &st, &exists);
    struct rx_db *shared = rc == RX_OK && exists && (o->mode != 'n' || created->done) ? rx_registered(&st) : NULL;
    if (shared) {
        rx_db_discard(db);
        return rx_share(shared, o, out);
    }
    if (rc == RX_OK && !exists && (o->mode == 'r' || o->mode == 'w'))
        rc = rx_not_there(db); /* and no -lock file is left behind */
    if (rc == RX_OK && exists)
        rc = rx_look_first(db, o);
    if (rc == RX_OK && !created->done && (!exists || o->mode == 'n'))
        rc = rx_may_create(db, o);
    if (rc == RX_OK)
        rc = rx_lock_open(db, o);
    if (rc == RX_OK)
        rc = rx_opening_lock(db->lock_fd, db->path);
    if (rc == RX_OK)
        rc = rx_lock_current(db);
    if (rc == RX_OK) {
        rc = rx_open_locked(db, o, created);
        if (rc == RX_OK)
            rx_opening_unlock(db->lock_fd);
    }
    if (rc == RX_OK)
        rc = rx_log_watch(db);
    if (rc) {
        /* OPENING goes with the description: let go before it, the users' bytes that a first opener holds
         * (also one that has recovered the file) would make the next one join a NAME-lock that nobody set up. */
        rx_db_discard(db);
        return rc;
    }
    rx_register(db);
    *out = db;
    return RX_OK;
}

/* ---- memory() --------------------------------------------------------------------------------- */

/* A description of its own, for locks, on an inherited or own memfd. */
static int rx_memory_reopen(int fd)
{
    char name[64];
    snprintf(name, sizeof name, "/proc/self/fd/%d", fd);
    return rx_held_open(AT_FDCWD, name, O_RDWR, 0);
}

static int rx_memory_attach(struct rx_db *db, const struct rx_options *o, struct rx_db **out)
{
    int fd = rx_memory_reopen(db->memory_fd[0]), rc;
    db->memory = true;
    db->lock_fd = rx_memory_reopen(db->memory_fd[1]);
    db->probe_fd = rx_memory_reopen(db->memory_fd[1]);
    db->name = rx_sys_strdup("memory");
    db->path = rx_sys_strdup("memory");
    if (fd < 0 || db->lock_fd < 0 || db->probe_fd < 0 || !db->name || !db->path) {
        rc = rx_os_error("open", "memory");
        rx_held_close(fd);
    } else {
        rc = rx_opening_lock(db->lock_fd, "memory");
        if (rc == RX_OK)
            rc = rx_attach(db, fd, o);
        if (rc == RX_OK) /* else with the description, as in rx_open_once() */
            rx_opening_unlock(db->lock_fd);
    }
    if (rc) {
        rx_db_discard(db);
        return rc;
    }
    rx_register(db);
    *out = db;
    return RX_OK;
}

static int rx_memory_open(const struct rx_options *o, struct rx_db **out)
{
    struct rx_db *db = rx_db_new();
    if (db == NULL)
        return rx_fail(RX_E_MEMORY, 0, "for an index");
    db->memory = true;
    db->memory_fd[0] = memfd_create("rowex", MFD_CLOEXEC);
    db->memory_fd[1] = memfd_create("rowex-lock", MFD_CLOEXEC);
    int rc = db->memory_fd[0] < 0 || db->memory_fd[1] < 0 ? rx_os_error("create", "memory")
                                                          : rx_format(db, db->memory_fd[0], o);
    if (rc) {
        rx_db_discard(db);
        return rc;
    }
    return rx_memory_attach(db, o, out);
}

/* In a forked child: the parent's memfds are ours too, their descriptions must not be. */
static int rx_memory_join(const struct rx_db *inherited, const struct rx_options *o, struct rx_db **out)
{
    struct stat st;
    if (rx_sys_fstat(inherited->memory_fd[0], &st) == 0) {
        struct rx_db *shared = rx_registered(&st);
        if (shared)
            return rx_share(shared, o, out);
    }
    struct rx_db *db = rx_db_new();
    if (db == NULL)
        return rx_fail(RX_E_MEMORY, 0, "for an index");
    for (int i = 0; i < 2; i++)
        db->memory_fd[i] = fcntl(inherited->memory_fd[i], F_DUPFD_CLOEXEC, 0);
    return rx_memory_attach(db, o, out);
}

/* ---- the doors ------------------------------------------------------------------------------------ */

/* Within the turn of openers; interrupts are asked for meanwhile (fork.c). */
static int rx_open_in_turn(const struct rx_options *o, struct rx_db **out)
{
    struct rx_created created = {0};
    int rc = RX_I_RESTART;
    if (o->path == NULL)
        return rx_memory_open(o, out);
    /* NAME or NAME-lock moved while we looked: a copy was renamed, or it was destroyed. */
    for (int tries = 0; rc == RX_I_RESTART && tries < 1000; tries++) {
        rc = rx_open_once(o, &created, out);
        if (rc == RX_I_RESTART && tries > 8)
            nanosleep(&(struct timespec){0, 1000000}, NULL);
    }
    return rc == RX_I_RESTART ? rx_fail(RX_E_REPLACED, 0, "%s does not hold still", o->path) : rc;
}

static int rx_opened(int rc, struct rx_db **out)
{
    if (rc == RX_OK && (*out)->scan_reclaimed) {
        rx_event("scan", (*out)->scan_reclaimed - 1, 0);
        (*out)->scan_reclaimed = 0;
    }
    rx_turn_end(RX_TURN_OPENING);
    return rc;
}

int rx_db_open(const struct rx_options *o, struct rx_db **out)
{
    rx_fork_setup(rx_forget_all);
    int rc = rx_turn_take(RX_TURN_OPENING, INT64_MAX);
    return rc ? rc : rx_opened(rx_open_in_turn(o, out), out);
}

/* The caller may hold Python's lock, and an opener in its turn may be waiting for that. */
#define RX_REOPEN_TRIES 2000
int rx_db_reopen(struct rx_db *inherited, const struct rx_options *o, struct rx_db **out)
{
    for (int tries = 0; !rx_turn_try(RX_TURN_OPENING); tries++) {
        if (tries == RX_REOPEN_TRIES)
            return rx_fail(RX_E_BUSY, 0, "another thread is opening or closing an index");
        nanosleep(&(struct timespec){0, 1000000}, NULL);
    }
    return rx_opened(inherited->memory ? rx_memory_join(inherited, o, out) : rx_open_in_turn(o, out), out);
}

int rx_db_open_within(const struct rx_options *o, struct rx_db **out) { return rx_open_in_turn(o, out); }

static void rx_unregister(struct rx_db *db)
{
    for (struct rx_db **at = &rx_registry; *at; at = &(*at)->next)
        if (*at == db) {
            *at = db->next;
            return;
        }
}

int rx_db_close_within(struct rx_db *db)
{
    rx_unregister(db);
    return rx_detach(db);
}

/*
 * Detaching waits for calls that are under way, and a listener in one of them may open an
 * index: so not within the turn.  Whoever opens the same file here meanwhile finds no db and
 * joins by descriptions of its own, as another process does.
 */
int rx_db_close(struct rx_db *db)
{
    rx_turn_take_surely(RX_TURN_OPENING);
    bool last = --db->handles == 0;
    if (last)
        rx_unregister(db);
    rx_turn_end(RX_TURN_OPENING);
    return last ? rx_detach(db) : RX_OK;
}
