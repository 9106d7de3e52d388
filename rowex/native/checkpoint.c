/*
 * checkpoint.c -- making checkpoints.
 *
 * P0 is the durable point.  The tree is then read weakly, so what is read has every change
 * below P0, some of those after it, and none after P1, the tail at the end.  Entries say
 * "key := value" or "key is absent", so replaying everything from P0 to P1 in order over any
 * such mixture gives the state at P1.  Hence: renamed only when the log is durable up to P1.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>
#include "attach.h"
#include "checkpoint.h"
#include "disk.h"
#include "flush.h"
#include "frames.h"
#include "segment.h"
#include "../gc/epoch.h"
#include "../gc/uid.h"

#define RX_CHECKPOINT_MIN (1ull << 20)
#define RX_CHECKPOINT_AGAIN_NS 1000000000ll

struct rx_origin_point { uint64_t incarnation, number; struct rx_log_at at; uint64_t least; }; /* P0; P1 */

void rx_checkpoint_name(const struct rx_db *db, const char *suffix, char name[300])
{
    snprintf(name, 300, "%.256s-checkpoint%.24s", db->name, suffix);
}

int rx_checkpoint_remove(struct rx_db *db)
{
    char name[300];
    rx_checkpoint_name(db, "", name);
    return rx_sys_unlinkat(db->dir_fd, name, 0) == 0 || errno == ENOENT ? RX_OK : rx_os_error("remove the checkpoint of", db->path);
}

/*
 * While it is made: named after the uuid, so that it is never another index's that gets its name
 * when the makers of both sleep and wake.
 */
static void rx_checkpoint_made(const struct rx_db *db, const uint8_t uuid[16], char name[300])
{
    char suffix[24];
    snprintf(suffix, sizeof suffix, "-new-%08x", rx_crc32c(0, uuid, 16));
    rx_checkpoint_name(db, suffix, name);
}

void rx_checkpoint_forget(struct rx_db *db, const uint8_t uuid[16])
{
    char name[300];
    rx_checkpoint_made(db, uuid, name);
    (void)rx_sys_unlinkat(db->dir_fd, name, 0);
}

int rx_checkpoint_super(struct rx_db *db, struct rx_super *super, int *fd)
{
    char name[300];
    struct stat st;
    rx_checkpoint_name(db, "", name);
    *fd = rx_sys_openat(db->dir_fd, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
    if (*fd < 0)
        return errno == ENOENT ? RX_ABSENT : rx_os_error("open the checkpoint of", db->path);
    memset(super, 0, sizeof *super);
    int rc = rx_sys_fstat(*fd, &st) != 0 || rx_sys_pread(*fd, super, sizeof *super, 0) < 0 ? rx_os_error("read the checkpoint of", db->path)
                                                                            : RX_OK;
    if (rc == RX_OK)
        rc = rx_super_check(super, (uint64_t)st.st_size);
    if (rc == RX_OK && memcmp(super->uuid, db->uuid, 16) != 0)
        rc = RX_ABSENT;
    if (rc == RX_OK && super->state != RX_STATE_CLEAN)
        rc = rx_fail(RX_E_CORRUPT, 0, "the checkpoint of %s is not complete", db->path);
    if (rc) {
        rx_sys_close(*fd);
        *fd = -1;
    }
    return rc;
}

/* Another index's may be there: of one that was replaced by us, or that we were replaced by. */
void rx_log_sweep(struct rx_db *db, uint64_t below)
{
    struct rx_reader r;
    if (rx_reader_open(db, &r) != RX_OK)
        return;
    for (size_t i = 0; i < r.count && r.segment[i].id < below; i++)
        rx_segment_remove(r.dir_fd, r.segment[i].id);
    rx_reader_close(&r);
}

void rx_log_clear(struct rx_db *db, uint64_t below)
{
    int dir_fd;
    if (rx_log_folder(db, false, &dir_fd) != RX_OK)
        return;
    int fd = rx_sys_openat(dir_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *folder = fd < 0 ? NULL : rx_sys_fdopendir(fd);
    for (struct dirent *e; folder && (e = rx_sys_readdir(folder)) != NULL;)
        if (strlen(e->d_name) == 16 && strspn(e->d_name, "0123456789abcdef") == 16 &&
            strtoull(e->d_name, NULL, 16) < below)
            (void)rx_sys_unlinkat(dir_fd, e->d_name, 0);
    if (folder)
        rx_sys_closedir(folder);
    else
        rx_close_fd(fd);
    rx_sys_close(dir_fd);
}

/* ---- making --------------------------------------------------------------------------- */

static int rx_checkpoint_seal(struct rx_db *db, const struct rx_super *from, struct rx_map *to, uint64_t brk,
                              uint64_t count, const struct rx_origin_point *p)
{
    struct rx_super s = *from;
    memset((uint8_t *)&s + offsetof(struct rx_super, state), 0, sizeof s - offsetof(struct rx_super, state));
    if (s.capacity < brk) { /* the index has grown, by copies, while it was read */
        s.capacity = brk;
        rx_super_seal_fixed(&s);
    }
    s.state = RX_STATE_CLEAN;
    s.session = from->session;
    s.brk = brk;
    s.count = count;
    s.log_incarnation = p->incarnation;
    s.log_position = p->number;
    s.log_bytes = p->at.bytes;
    s.log_segment = p->at.segment;
    s.log_least = p->least;
    rx_super_seal_state(&s);
    rx_fill(to->base, &s, sizeof s);
    int rc = rx_copy_sync(to, brk);
    if (rc == RX_OK && rx_poisoned(to))
        rc = rx_fail(RX_E_IO, 0, "while writing a checkpoint of %s", db->path);
    return rc;
}

/* The tree into a file `name`, synced. */
static int rx_checkpoint_build(struct rx_thread *t, const char *name, struct rx_origin_point *p, bool alone)
{
    struct rx_db *db = t->db;
    struct rx_map *to = NULL;
    struct rx_super super;
    uint64_t brk = 0, count = 0;
    int rc = rx_remap_thread(t);
    if (rc == RX_OK)
        rc = rx_copy_create(db, t->map, rx_duplicate_room(t->map), name, &to);
    if (rc)
        return rc;
    super = *rx_super_of(t->map); /* of its fixed part, which does not change */
    rc = rx_duplicate_tree(t, to, super.checksum != 0, &brk, &count);
    rx_full_fence();
    p->least = alone ? p->number : rx_log_tail(db);
    if (rc == RX_OK)
        rc = rx_checkpoint_seal(db, &super, to, brk, count, p);
    rx_copy_drop(to);
    return rc;
}

/* Commit: the folder's sync; until then either checkpoint does, and both logs are there. */
static int rx_checkpoint_place(struct rx_db *db, const char *made)
{
    char name[300];
    rx_checkpoint_name(db, "", name);
    if (rx_sys_renameat(db->dir_fd, made, db->dir_fd, name) != 0)
        return errno == ENOENT ? rx_fail(RX_E_REPLACED, 0, "%s; its checkpoint was not placed", db->path) /* rx_disown() */
                               : rx_os_error("rename the checkpoint of", db->path);
    return rx_folder_sync(db);
}

static int rx_checkpoint_of(struct rx_thread *t, struct rx_origin_point *p, bool alone)
{
    struct rx_db *db = t->db;
    char made[300];
    rx_checkpoint_made(db, db->uuid, made);
    int64_t began = rx_now_ns();
    int rc = rx_checkpoint_build(t, made, p, alone);
    if (!alone && t->deadline_ns != INT64_MAX)
        t->deadline_ns += rx_now_ns() - began; /* it is for the log alone */
    if (rc == RX_OK && !alone)
        rc = rx_log_flush(t, p->least);
    if (rc == RX_OK)
        rc = rx_checkpoint_place(db, made);
    if (rc)
        (void)rx_sys_unlinkat(db->dir_fd, made, 0);
    else {
        rx_store(&db->hdr->log_checkpoint, p->at.bytes);
        if (!alone) /* else the segment that this one begins with is still to be made */
            rx_log_sweep(db, p->at.segment);
    }
    return rc;
}

int rx_checkpoint_alone(struct rx_db *db, uint64_t incarnation, uint64_t number, const struct rx_log_at *at)
{
    struct rx_thread *t;
    struct rx_origin_point p = {incarnation, number, *at, 0};
    int rc = rx_thread_new(db, RX_S_FLUSHER, &t);
    if (rc)
        return rc;
    rc = rx_checkpoint_of(t, &p, true);
    rx_thread_drop(t);
    return rc;
}

int rx_checkpoint_make(struct rx_thread *t)
{
    struct rx_db *db = t->db;
    struct rx_logger *l = db->logger;
    if (!db->logged || l == NULL || rx_load(&db->hdr->log_size) == 0)
        return rx_fail(RX_E_DURABILITY, 0, db->logged ? "nothing was written to %s in this session" : "%s has no log", db->path);
    if (pthread_mutex_trylock(&l->checkpoint) != 0)
        return rx_fail(RX_E_BUSY, 0, "a checkpoint of %s is being made", db->path);
    int rc = rx_byte_lock(db->lock_fd, F_WRLCK, RX_LOCK_CHECKPOINT);
    if (rc == RX_OK) {
        struct rx_origin_point p = {.incarnation = rx_load(&db->hdr->log_incarnation)};
        rc = rx_log_flush(t, rx_log_tail(db));
        p.number = rx_log_point(db, &p.at);
        if (rc == RX_OK)
            rc = rx_checkpoint_of(t, &p, false);
        (void)rx_byte_unlock(db->lock_fd, RX_LOCK_CHECKPOINT);
    } else {
        rc = rc == RX_E_BUSY ? rx_fail(RX_E_BUSY, 0, "another process is making a checkpoint of %s", db->path)
                             : rx_os_error("ask who makes a checkpoint of", db->path);
    }
    pthread_mutex_unlock(&l->checkpoint);
    return rc;
}

/* ---- by itself --------------------------------------------------------------------------- */

static void *rx_checkpointer(void *arg)
{
    struct rx_db *db = arg;
    struct rx_logger *l = db->logger;
    struct rx_thread *t;
    rx_own_thread(&l->stop);
    int rc = rx_thread_new(db, RX_S_FLUSHER, &t);
    if (rc == RX_OK) {
        __atomic_store_n(&t->busy, 1, __ATOMIC_SEQ_CST);
        t->deadline_ns = INT64_MAX;
        rc = rx_checkpoint_make(t);
        __atomic_store_n(&t->busy, 0, __ATOMIC_RELEASE);
        rx_thread_drop(t);
    }
    if (rc) /* told by nobody: a full disk, say.  The log goes on, and it is tried again */
        l->checkpoint_after_ns = rx_now_ns() + RX_CHECKPOINT_AGAIN_NS;
    rx_store32(&l->checkpointing, 2);
    return NULL;
}

void rx_checkpointer_join(struct rx_db *db)
{
    struct rx_logger *l = db->logger;
    if (rx_load32(&l->checkpointing) == 0)
        return;
    pthread_join(l->checkpointer, NULL);
    rx_store32(&l->checkpointing, 0);
}

/* The log has grown by the size of the data: in a thread of its own, for it takes a while. */
void rx_checkpoint_if_due(struct rx_thread *t)
{
    struct rx_db *db = t->db;
    struct rx_logger *l = db->logger;
    uint64_t grown = rx_load(&db->hdr->log_bytes) - rx_load(&db->hdr->log_checkpoint);
    uint64_t data = (rx_load(&db->hdr->brk) & ((1ull << 36) - 1)) * RX_EXTENT;
    if (grown < (data > RX_CHECKPOINT_MIN ? data : RX_CHECKPOINT_MIN))
        return;
    if (rx_load32(&l->checkpointing) == 2)
        rx_checkpointer_join(db);
    if (rx_load32(&l->checkpointing) || rx_now_ns() < l->checkpoint_after_ns ||
        rx_byte_ask(db->probe_fd, RX_LOCK_CHECKPOINT) != RX_OK)
        return;
    sigset_t all, before;
    sigfillset(&all);
    sigdelset(&all, SIGBUS);
    sigdelset(&all, SIGSEGV);
    rx_store32(&l->checkpointing, 1);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    if (rx_sys_thread(&l->checkpointer, rx_checkpointer, db) != 0)
        rx_store32(&l->checkpointing, 0);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
}
