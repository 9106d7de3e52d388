/*
 * backup.c -- a consistent copy of an index while others change it.
 *
 * As a checkpoint: P0 is the durable point, the tree is read weakly into a dense file, P1 is
 * the tail after that.  Then the log from P0 to P1 is replayed into the copy, which so holds
 * exactly what the index held at P1 (checkpoint.c says why), and is closed: one clean file,
 * of which nothing was ever logged.  Only then it gets its name.
 *
 * Meanwhile no checkpoint is made, here or elsewhere: none of the segments that are to be
 * read goes.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>
#include "attach.h"
#include "checkpoint.h"
#include "disk.h"
#include "flush.h"
#include "guard.h"
#include "recovery.h"
#include "segment.h"
#include "../gc/epoch.h"

#define RX_BACKUP_NAP_NS 1000000l
#define RX_BACKUP_STILL_NS 10000000000ll
#define RX_BACKUP_TRIES 8

struct rx_backup {
    uint64_t size;   /* hdr->log_size at P0: 0, nobody has written in this session */
    uint64_t number; /* P0 */
    struct rx_log_at at;
    uint64_t upto;   /* P1 */
};

static int rx_backup_nap(void)
{
    nanosleep(&(struct timespec){0, RX_BACKUP_NAP_NS}, NULL);
    return rx_poll_interrupt();
}

/* Holds off checkpoints by a description of its own: those of this process too. */
static int rx_backup_hold(struct rx_db *db, int *fd)
{
    char name[64];
    int rc;
    snprintf(name, sizeof name, "/proc/self/fd/%d", db->lock_fd);
    *fd = rx_held_open(AT_FDCWD, name, O_RDWR, 0);
    if (*fd < 0)
        return rx_os_error("open the -lock file of", db->path);
    while ((rc = rx_byte_lock(*fd, F_WRLCK, RX_LOCK_CHECKPOINT)) == RX_E_BUSY)
        if ((rc = rx_backup_nap()) != RX_OK)
            break;
    if (rc == RX_E_OS)
        rc = rx_os_error("lock", db->path);
    if (rc)
        rx_held_close(*fd);
    return rc;
}

static void rx_backup_point(const struct rx_db *db, struct rx_backup *b)
{
    *b = (struct rx_backup){.size = rx_load(&db->hdr->log_size)};
    if (b->size)
        b->number = rx_log_point(db, &b->at);
}

/* The log is durable up to `number`: by us, or where we may not write, by those who can. */
static int rx_backup_wait(struct rx_thread *t, uint64_t number)
{
    struct rx_db *db = t->db;
    if (db->logger) {
        int rc = rx_log_join(db);
        t->deadline_ns = INT64_MAX;
        return rc ? rc : rx_log_flush(t, number);
    }
    uint64_t seen = rx_log_durable(db);
    int64_t since = rx_now_ns();
    while (seen < number) {
        int rc = rx_backup_nap();
        uint64_t now = rx_log_durable(db);
        if (rc)
            return rc;
        if (now != seen)
            since = rx_now_ns();
        else if (rx_now_ns() - since > RX_BACKUP_STILL_NS)
            return rx_fail(RX_E_DURABILITY, 0, "nobody who may writes the log of %s; open it for writing", db->path);
        seen = now;
    }
    return RX_OK;
}

/* ---- replaying -------------------------------------------------------------------------- */

static int rx_backup_apply(const char *path, struct rx_reader *r, uint64_t upto)
{
    struct rx_options o = {.path = path, .mode = 'w', .checksum = -1, .max_size = UINT64_MAX, .fences = -1,
                           .umask_mode = 0666, .replaying = 1};
    struct rx_recovered told = {0};
    rx_index *copy;
    int rc = rx_open(&o, &copy);
    if (rc)
        return rc;
    rc = rx_replay(copy, r, upto, &told);
    if (rc == RX_OK && r->number < upto)
        rc = rx_corrupt(0, "the log ends at entry %llu, before %llu, which it held", (unsigned long long)r->number,
                        (unsigned long long)upto);
    int closed = rx_close(copy);
    rx_free(copy);
    return rc ? rc : closed;
}

static int rx_backup_replay(struct rx_thread *t, struct rx_db *target, const char *made, const struct rx_backup *b)
{
    struct rx_reader r;
    char path[4400], side[300];
    int rc = rx_reader_open(t->db, &r);
    if (rc)
        return rc == RX_ABSENT ? rx_fail(RX_E_DURABILITY, 0, "the log of %s is gone", t->db->path) : rc;
    rc = rx_reader_seek(&r, b->at.bytes, b->number);
    if (rc == RX_ABSENT)
        rc = rx_fail(RX_E_DURABILITY, 0, "a part of the log of %s is gone", t->db->path);
    if (rc == RX_OK) {
        snprintf(path, sizeof path, "/proc/self/fd/%d/%.250s", target->dir_fd, made);
        rc = rx_backup_apply(path, &r, b->upto);
        snprintf(side, sizeof side, "%.280s-lock", made);
        (void)rx_sys_unlinkat(target->dir_fd, side, 0);
    }
    rx_reader_close(&r);
    return rc;
}

/*
 * Requires  the copy is whole and synced; nobody else knows its name.
 * Ordering  the tail is read after all that the scan has read: what it saw is below.
 * Returns   RX_I_RESTART: the session's first write came meanwhile, and with it the log.
 */
static int rx_backup_finish(struct rx_thread *t, struct rx_db *target, const char *made, void *ctx)
{
    struct rx_backup *b = ctx;
    struct rx_db *db = t->db;
    rx_full_fence();
    if (b->size == 0)
        return rx_load(&db->hdr->log_size) ? RX_I_RESTART : RX_OK;
    b->upto = rx_log_tail(db);
    int rc = rx_backup_wait(t, b->upto);
    return rc || b->upto == b->number ? rc : rx_backup_replay(t, target, made, b);
}

static int rx_backup_logged(struct rx_thread *t, const struct rx_options *to, uint64_t *ticket)
{
    struct rx_db *db = t->db;
    struct rx_backup b;
    struct rx_finishing f = {rx_backup_finish, &b};
    int fd, rc = rx_backup_hold(db, &fd);
    if (rc)
        return rc;
    rc = RX_I_RESTART;
    for (int tries = 0; rc == RX_I_RESTART && tries < RX_BACKUP_TRIES; tries++) {
        rx_backup_point(db, &b);
        rc = rx_duplicate_index(t, to, &f);
    }
    if (rc == RX_OK && b.size)
        *ticket = rx_load(&db->hdr->log_incarnation) << RX_LOG_TICKET_BITS | b.upto;
    else if (rc == RX_OK)
        *ticket = rx_load(&rx_super_of(db->map)->log_incarnation) << RX_LOG_TICKET_BITS |
                  rx_load(&rx_super_of(db->map)->log_position);
    rx_held_close(fd);
    return rc == RX_I_RESTART ? rx_fail(RX_E_REPLACED, 0, "%s does not hold still", db->path) : rc;
}

int rx_backup(rx_index *h, const struct rx_options *to, uint64_t *ticket)
{
    struct rx_thread *t;
    *ticket = 0;
    int rc = rx_call_begin(h, NULL, &t);
    if (rc)
        return rc;
    /* without a -lock file nobody writes: the file is what it says */
    bool logged = t->db->logged && !t->db->lockless && !t->db->memory;
    rc = logged ? rx_backup_logged(t, to, ticket) : rx_duplicate_index(t, to, NULL);
    rx_call_end(t);
    return rc;
}
