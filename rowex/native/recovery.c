/*
 * recovery.c -- after the loss of power: checkpoint and log become the index again.
 *
 *   1  a new file, NAME-recovery, from the checkpoint, which must be sound, or empty when the log is whole
 *   2  the log is replayed into it, up to its torn end E
 *   3  the first segment of a new incarnation, beginning at E, made durable (R13)
 *   4  NAME-recovery, closed cleanly, says that it ends where that begins; synced
 *   5  renamed over NAME
 * Nothing that is needed is changed before 5, so dying anywhere, or a full disk, leaves what
 * the next attempt begins with: the same, and possibly one segment more, which holds nothing.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>
#include "attach.h"
#include "checkpoint.h"
#include "disk.h"
#include "recovery.h"
#include "segment.h"

/* ---- where to begin ------------------------------------------------------------------- */

struct rx_base { /* what replaying begins with */
    int fd;      /* the checkpoint; -1: nothing */
    struct rx_super super;
};

static int rx_base_find(struct rx_db *db, const struct rx_super *name, struct rx_base *b)
{
    int rc = rx_checkpoint_super(db, &b->super, &b->fd);
    if (rc == RX_OK || rc != RX_ABSENT)
        return rc;
    b->fd = -1;
    b->super = *name; /* its fixed part; an empty index */
    memset((uint8_t *)&b->super + offsetof(struct rx_super, state), 0, sizeof b->super - offsetof(struct rx_super, state));
    b->super.state = RX_STATE_CLEAN;
    b->super.brk = RX_HEAP;
    rx_super_seal_state(&b->super);
    return RX_OK;
}

static int rx_base_seek(struct rx_db *db, const struct rx_base *b, struct rx_reader *r)
{
    int rc = rx_reader_open(db, r);
    if (rc == RX_ABSENT)
        return rx_fail(RX_E_DURABILITY, 0, "%s was open when the machine stopped, and its log is gone; `rowex salvage` gets "
                       "out what can be had", db->path);
    if (rc)
        return rc;
    rc = r->count ? rx_reader_seek(r, b->super.log_bytes, b->super.log_position) : RX_ABSENT;
    if (rc == RX_ABSENT)
        rc = rx_fail(RX_E_DURABILITY, 0, "%s was open when the machine stopped, and its log begins after %s; `rowex "
                     "salvage` gets out what can be had", db->path, b->fd < 0 ? "the first change" : "its checkpoint");
    if (rc)
        rx_reader_close(r);
    return rc;
}

/* ---- building --------------------------------------------------------------------------- */

static void rx_recovery_name(const struct rx_db *db, char name[300]) { snprintf(name, 300, "%.280s-recovery", db->name); }

void rx_recovery_forget(struct rx_db *db)
{
    char name[300], side[310];
    rx_recovery_name(db, name);
    (void)rx_sys_unlinkat(db->dir_fd, name, 0);
    snprintf(side, sizeof side, "%s-lock", name);
    (void)rx_sys_unlinkat(db->dir_fd, side, 0);
    rx_remove_leftovers(db, "-recovery"); /* what it outgrew its capacity into */
}

static int rx_copy_bytes(struct rx_db *db, int from, int to)
{
    uint8_t *buffer = rx_sys_malloc(1u << 20);
    int rc = buffer ? RX_OK : rx_fail(RX_E_MEMORY, 0, "for recovering");
    off_t at = 0;
    while (rc == RX_OK) {
        ssize_t n = rx_sys_pread(from, buffer, 1u << 20, at);
        if (n == 0)
            break;
        if (n < 0 ? errno != EINTR : rx_write_fd(to, (uint64_t)at, buffer, (size_t)n) != 0)
            rc = rx_os_error("copy the checkpoint of", db->path);
        at += n > 0 ? n : 0;
        if (rc == RX_OK)
            rc = rx_poll_interrupt();
    }
    free(buffer);
    return rc;
}

static int rx_recovery_create(struct rx_db *db, const struct rx_base *b)
{
    char name[300];
    struct rx_node root = {.shape = RX_K_N256};
    rx_recovery_name(db, name);
    rx_recovery_forget(db);
    int fd = rx_sys_openat(db->dir_fd, name, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
    if (fd < 0)
        return rx_os_error("create a file to recover", db->path);
    int rc = RX_OK;
    if (rx_copy_attributes(db->map->fd, fd) != 0)
        rc = rx_os_error("give mode and owner to a file to recover", db->path);
    else if (b->fd >= 0)
        rc = rx_copy_bytes(db, b->fd, fd);
    else if (rx_allocate_fd(fd, 0, 2 * RX_EXTENT) != 0 ||
             rx_write_fd(fd, RX_ROOT_OFF, &root, sizeof root) != 0 || rx_write_fd(fd, 0, &b->super, sizeof b->super) != 0)
        rc = rx_os_error("write a file to recover", db->path);
    rx_sys_close(fd);
    return rc;
}

/* ---- is the checkpoint whole? --------------------------------------------------------------- */

struct rx_found { uint64_t offset; char text[400]; }; /* the first fault */

static void rx_found_fault(void *ctx, uint64_t offset, const char *text)
{
    struct rx_found *f = ctx;
    if (f->text[0] == 0) {
        f->offset = offset;
        snprintf(f->text, sizeof f->text, "%s", text);
    }
}

/* Structure and every leaf's checksum (P7): what is damaged must not become the index. */
static int rx_recovery_check(struct rx_db *db, struct rx_index *h)
{
    struct rx_found found = {0};
    uint64_t faults = 0;
    int rc;
    do
        rc = rx_check(h, -1, rx_found_fault, &found, &faults);
    while (rc == RX_WOULD_WAIT);
    if (rc || faults == 0)
        return rc;
    return rx_corrupt(found.offset, "the checkpoint of %s has %llu fault(s), the first: %s; `rowex salvage` gets out what "
                      "can be had", db->path, (unsigned long long)faults, found.text);
}

/* ---- replaying ---------------------------------------------------------------------------- */

static int rx_replay_entry(struct rx_index *h, const struct rx_logged *e, struct rx_recovered *told);

/* Nobody sees the file before all is replayed: one after the other will do. */
static int rx_replay_batch(struct rx_index *h, const struct rx_logged *batch, struct rx_recovered *told)
{
    struct rx_piece piece = {batch->value, batch->value_len, 0, UINT64_MAX};
    struct rx_logged e;
    int rc = RX_OK;
    while (rc == RX_OK && piece.size && (rc = rx_piece_entry(&piece, &e)) == RX_OK)
        rc = e.kind == RX_L_BATCH ? rx_fail(RX_E_CORRUPT, 0, "a batch in a batch of the log") : rx_replay_entry(h, &e, told);
    return rc;
}

static int rx_replay_entry(struct rx_index *h, const struct rx_logged *e, struct rx_recovered *told)
{
    int rc;
    do
        switch (e->kind) {
        case RX_L_PUT:
            rc = rx_put(h, NULL, e->key, e->key_len, e->value, e->value_len, -1, NULL);
            break;
        case RX_L_REMOVE:
            rc = rx_remove(h, NULL, e->key, e->key_len, -1, NULL);
            break;
        case RX_L_BATCH:
            return rx_replay_batch(h, e, told);
        case RX_L_VOID:
            return RX_OK;
        default:
            return rx_fail(RX_E_CORRUPT, 0, "an entry of the log is of kind %d, unknown to this version", (int)e->kind);
        }
    while (rc == RX_WOULD_WAIT);
    told->entries++;
    return rc == RX_ABSENT ? RX_OK : rc;
}

int rx_replay_piece(struct rx_index *h, struct rx_piece *piece, uint64_t upto, struct rx_recovered *told)
{
    struct rx_logged entry;
    int rc = RX_OK;
    for (uint64_t n = piece->first; n < upto && rc == RX_OK && (rc = rx_piece_entry(piece, &entry)) == RX_OK; n++)
        rc = rx_replay_entry(h, &entry, told);
    return rc == RX_END ? RX_OK : rc;
}

int rx_replay(struct rx_index *h, struct rx_reader *r, uint64_t upto, struct rx_recovered *told)
{
    while (r->number < upto) {
        struct rx_piece piece;
        int rc = rx_reader_next(r, &piece);
        if (rc)
            return rc == RX_END ? RX_OK : rc;
        if ((rc = rx_replay_piece(h, &piece, upto, told)) != RX_OK)
            return rc;
        if ((rc = rx_poll_interrupt()) != RX_OK)
            return rc;
    }
    return RX_OK;
}

static int rx_recovery_replay(struct rx_db *db, const struct rx_base *b, struct rx_reader *r, struct rx_recovered *told)
{
    char path[4400];
    struct rx_index h = {0};
    struct rx_options o = {.path = path, .mode = 'w', .checksum = -1, .max_size = UINT64_MAX, .fences = -1,
                           .umask_mode = 0666, .replaying = 1};
    snprintf(path, sizeof path, "%s-recovery", db->path);
    int rc = rx_db_open_within(&o, &h.db);
    if (rc)
        return rc;
    rc = b->fd >= 0 ? rx_recovery_check(db, &h) : RX_OK;
    if (rc == RX_OK)
        rc = rx_replay(&h, r, UINT64_MAX, told);
    int closed = rx_db_close_within(h.db);
    return rc ? rc : closed;
}

/* What the checkpoint was read from had all up to log_least: before that it is a mixture (checkpoint.c). */
static int rx_recovery_reaches(const struct rx_db *db, const struct rx_base *b, const struct rx_reader *r)
{
    if (r->number >= b->super.log_least)
        return RX_OK;
    return rx_fail(RX_E_CORRUPT, 0, "the log of %s is damaged: it ends with entry %llu, and its checkpoint shows that it went "
                   "up to %llu; `rowex salvage` gets out what can be had", db->path, (unsigned long long)r->number,
                   (unsigned long long)b->super.log_least);
}

/* ---- the end -------------------------------------------------------------------------------- */

/* Step 3.  *head becomes what the new segment says. */
static int rx_recovery_segment(struct rx_db *db, const struct rx_base *b, const struct rx_reader *r,
                               struct rx_segment_head *head)
{
    struct rx_segment_file made;
    uint64_t incarnation = b->super.log_incarnation;
    for (size_t i = 0; i < r->count; i++)
        incarnation = r->segment[i].incarnation > incarnation ? r->segment[i].incarnation : incarnation;
    *head = (struct rx_segment_head){rx_reader_beyond(r), incarnation + 1, r->bytes, r->number, 256u << 10, 64u << 10};
    int rc = rx_segment_create(db, r->dir_fd, head, true, &made);
    if (rc == RX_OK)
        rx_segment_shut(&made);
    return rc;
}

/* Steps 4 and 5. Commit: the rename. */
static int rx_recovery_place(struct rx_db *db, const struct rx_segment_head *head)
{
    char name[300], side[310];
    struct rx_super s;
    rx_recovery_name(db, name);
    int fd = rx_sys_openat(db->dir_fd, name, O_RDWR | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0)
        return rx_os_error("open the recovered file of", db->path);
    int rc = rx_sys_pread(fd, &s, sizeof s, 0) == (ssize_t)sizeof s && s.state == RX_STATE_CLEAN
                 ? RX_OK : rx_os_error("read the recovered file of", db->path);
    s.log_position = head->first;
    s.log_incarnation = head->incarnation;
    s.log_base = head->first;
    s.log_bytes = head->bytes;
    s.log_segment = head->id;
    s.log_least = 0;
    rx_super_seal_state(&s);
    if (rc == RX_OK && (rx_write_fd(fd, 0, &s, sizeof s) != 0 || rx_sync_fd(fd) != 0))
        rc = rx_os_error("write the recovered file of", db->path);
    rx_sys_close(fd);
    snprintf(side, sizeof side, "%s-lock", name);
    (void)rx_sys_unlinkat(db->dir_fd, side, 0); /* first: who dies after the rename leaves nothing */
    if (rc == RX_OK)
        rc = rx_copy_rename(db, name);
    return rc ? rc : rx_folder_sync(db);
}

/* Of this thread; asked for by `rowex recover`. */
static __thread struct rx_recovered rx_recovered_last;

void rx_last_recovery(uint64_t *from, uint64_t *upto, uint64_t *entries)
{
    *from = rx_recovered_last.from;
    *upto = rx_recovered_last.upto;
    *entries = rx_recovered_last.entries;
    rx_recovered_last = (struct rx_recovered){0};
}

int rx_recover(struct rx_db *db, const struct rx_super *name, struct rx_recovered *told)
{
    struct rx_base base;
    struct rx_reader reader;
    struct rx_segment_head head;
    *told = (struct rx_recovered){0};
    int rc = rx_copy_attributes(db->map->fd, db->lock_fd) == 0 /* the new segment takes them from there */
                 ? rx_base_find(db, name, &base) : rx_os_error("give mode and owner to the -lock file of", db->path);
    if (rc)
        return rc;
    rc = rx_base_seek(db, &base, &reader);
    if (rc == RX_OK) {
        told->from = base.super.log_position;
        rc = rx_recovery_create(db, &base);
        if (rc == RX_OK)
            rc = rx_recovery_replay(db, &base, &reader, told);
        if (rc == RX_OK)
            rc = rx_recovery_reaches(db, &base, &reader);
        if (rc == RX_OK)
            rc = rx_recovery_segment(db, &base, &reader, &head);
        if (rc == RX_OK)
            rc = rx_recovery_place(db, &head);
        told->upto = reader.number;
        rx_reader_close(&reader);
    }
    if (base.fd >= 0)
        rx_sys_close(base.fd);
    if (rc)
        rx_recovery_forget(db);
    else
        rx_recovered_last = *told;
    return rc;
}
