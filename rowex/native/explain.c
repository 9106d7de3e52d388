/*
 * explain.c -- what opening an index would do and why, told without doing it: nothing is
 * created, locked or written.
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
#include "flush.h"
#include "image.h"
#include "segment.h"

static uint64_t rx_ticket_of(uint64_t incarnation, uint64_t number) { return incarnation << RX_LOG_TICKET_BITS | number; }

static void rx_explain_why(struct rx_explained *x) { rx_error_keep(x->why, sizeof x->why); }

/* ---- NAME and NAME-lock ------------------------------------------------------------------ */

static int rx_explain_state(const struct rx_super *s, const struct stat *st, struct rx_explained *x)
{
    uint8_t boot[16];
    int rc = rx_boot_id(boot);
    if (rc)
        return rc;
    if (s->state == RX_STATE_CLEAN)
        x->state = 1;
    else if (!rx_super_is_live(s, boot))
        x->state = 3;
    else
        x->state = s->dev == (uint64_t)st->st_dev && s->ino == (uint64_t)st->st_ino ? 2 : 4;
    x->durability = (int)s->durability;
    x->generation = s->generation;
    x->session = s->session;
    x->keys = s->state == RX_STATE_CLEAN ? s->count : 0;
    x->position = s->state == RX_STATE_CLEAN ? rx_ticket_of(s->log_incarnation, s->log_position) : 0;
    memcpy(x->uuid, s->uuid, 16);
    return RX_OK;
}

/* Who has the index open holds bytes of both files. */
static int rx_explain_lock(struct rx_db *db, int data_fd, const struct rx_super *s, struct rx_explained *x)
{
    char name[300];
    struct rx_lockhdr hdr;
    snprintf(name, sizeof name, "%.290s-lock", db->name);
    int rc = rx_byte_ask(data_fd, RX_LOCK_USERS);
    x->open_now = rc == RX_E_BUSY;
    if (rc == RX_E_OS)
        return rx_os_error("ask who uses", db->path);
    int fd = rx_sys_openat(db->dir_fd, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    if (fd < 0)
        return errno == ENOENT || errno == ELOOP || errno == EACCES ? RX_OK : rx_os_error("open the -lock file of", db->path);
    rc = rx_byte_ask(fd, RX_LOCK_USERS);
    x->open_now |= rc == RX_E_BUSY;
    if (rc == RX_E_OS)
        rc = rx_os_error("ask who uses", db->path);
    else if (rx_sys_pread(fd, &hdr, sizeof hdr, 0) == (ssize_t)sizeof hdr && memcmp(hdr.magic, RX_LOCK_MAGIC, 8) == 0 &&
        hdr.version == RX_LOCK_VERSION && hdr.ready == 1 && memcmp(hdr.uuid, s->uuid, 16) == 0 &&
        hdr.session == s->session && hdr.log_size && hdr.log_failed == 0) {
        x->ring = 1;
        x->ring_entries = (hdr.log_tail >> RX_LOG_TAIL_SHIFT) - (hdr.log_durable >> RX_LOG_DURABLE_SHIFT);
    }
    rx_sys_close(fd);
    return rc == RX_E_BUSY ? RX_OK : rc;
}

/* ---- what recovery would read -------------------------------------------------------------- */

/* The segment that would be read first has this one's incarnation. */
static uint64_t rx_reader_incarnation(const struct rx_reader *r) { return r->segment[r->at].incarnation; }

static int rx_explain_entries(struct rx_piece *piece, uint64_t *entries)
{
    struct rx_logged e;
    int rc;
    while ((rc = rx_piece_entry(piece, &e)) == RX_OK)
        *entries += e.kind != RX_L_VOID;
    return rc == RX_END ? RX_OK : rc;
}

/* From r on, as far as it is whole. */
static int rx_explain_read(struct rx_reader *r, uint64_t *entries)
{
    struct rx_piece piece;
    int rc;
    while ((rc = rx_reader_next(r, &piece)) == RX_OK)
        if ((rc = rx_explain_entries(&piece, entries)) != RX_OK || (rc = rx_poll_interrupt()) != RX_OK)
            return rc;
    return rc == RX_END ? RX_OK : rc;
}

/* After damage: what can still be read, and so which tickets at least were durable once. */
static int rx_explain_behind(struct rx_reader *r, struct rx_explained *x)
{
    uint64_t number = r->number, known = number + 1;
    x->end = 2;
    x->damaged_byte = r->bytes;
    x->damaged_segment = r->segment[r->at].id;
    x->lost_from = rx_ticket_of(rx_reader_incarnation(r), number + 1);
    for (int rc = RX_OK;;) {
        rc = rx_reader_skip(r);
        if (rc == RX_END)
            break;
        if (rc)
            return rc;
        rc = rx_explain_read(r, &x->entries_behind);
        if (rc && rc != RX_E_CORRUPT)
            return rc;
        known = r->number > known ? r->number : known;
    }
    x->lost_upto = rx_ticket_of(rx_reader_incarnation(r), known);
    return RX_OK;
}

/* The checkpoint shows that the log went on. */
static void rx_explain_short(const struct rx_reader *r, uint64_t least, struct rx_explained *x)
{
    x->end = 2;
    x->damaged_byte = r->bytes;
    x->damaged_segment = r->segment[r->at].id;
    x->lost_from = x->log_upto + 1;
    x->lost_upto = rx_ticket_of(rx_reader_incarnation(r), least);
    snprintf(x->why, sizeof x->why, "the log ends before ticket %llu, up to which its checkpoint shows that it went",
             (unsigned long long)x->lost_upto);
}

static int rx_explain_log(struct rx_db *db, uint64_t bytes, uint64_t number, uint64_t least, struct rx_explained *x)
{
    struct rx_reader r;
    int rc = rx_reader_open(db, &r);
    if (rc)
        return rc == RX_ABSENT ? RX_OK : rc;
    x->log = 1;
    x->segments = r.count;
    if (r.count && (rc = rx_reader_seek(&r, bytes, number)) == RX_OK) {
        x->begins = 1;
        x->log_from = rx_ticket_of(rx_reader_incarnation(&r), number);
        rc = rx_explain_read(&r, &x->entries);
        x->log_upto = rx_ticket_of(rx_reader_incarnation(&r), r.number);
        x->log_bytes = r.bytes - bytes;
        x->end = rc == RX_OK && !rx_reader_blank(&r);
        if (rc == RX_OK && r.number < least)
            rx_explain_short(&r, least, x);
        if (rc == RX_E_CORRUPT) {
            rx_explain_why(x);
            rc = rx_explain_behind(&r, x);
        }
    }
    rx_reader_close(&r);
    return rc == RX_ABSENT ? RX_OK : rc;
}

static void rx_explain_loss(void *ctx, uint64_t offset, const char *text)
{
    struct rx_explained *x = ctx;
    if (x->checkpoint != 2)
        snprintf(x->why, sizeof x->why, "the checkpoint is damaged at offset %llu: %s", (unsigned long long)offset, text);
    x->checkpoint = 2;
}

/* Recovery compares its checksums. Takes fd over. */
static int rx_explain_checkpoint(int fd, const struct rx_super *from, struct rx_explained *x)
{
    struct rx_image im;
    uint64_t done = 0;
    x->checkpoint = 1;
    x->checkpoint_keys = from->count;
    x->checkpoint_ticket = rx_ticket_of(from->log_incarnation, from->log_position);
    int rc = rx_image_open(fd, from->checksum != 0, &done, &im);
    if (rc == RX_OK)
        rc = rx_image_walk(&im, NULL, rx_explain_loss, x);
    rx_image_close(&im);
    return rc;
}

/* NAME-checkpoint and NAME-log. */
static int rx_explain_sides(struct rx_db *db, const struct rx_super *s, struct rx_explained *x)
{
    struct rx_super from = {0};
    int fd, rc = rx_checkpoint_super(db, &from, &fd);
    if (rc == RX_OK) {
        if ((rc = rx_explain_checkpoint(fd, &from, x)) != RX_OK)
            return rc;
    } else if (rc == RX_E_CORRUPT || rc == RX_E_FORMAT) {
        x->checkpoint = 2;
        rx_explain_why(x);
    } else if (rc != RX_ABSENT) {
        return rc;
    }
    bool ends = s->state == RX_STATE_CLEAN && s->log_incarnation; /* the log behind a clean file's end is of interest */
    return ends ? rx_explain_log(db, s->log_bytes, s->log_position, 0, x)
                : rx_explain_log(db, from.log_bytes, from.log_position, from.log_least, x);
}

/* ---- the verdict ------------------------------------------------------------------------------ */

static void rx_explain_judge(struct rx_db *db, const struct rx_super *s, struct rx_explained *x)
{
    bool logged = rx_level_logged(s->durability);
    x->verdict = RX_X_REFUSE;
    if (x->open_now)
        x->verdict = RX_X_JOIN;
    else if (x->state == 2 || (x->state == 3 && s->durability == RX_D_PMEM))
        x->verdict = RX_X_SCAN;
    else if (x->state == 1 && (!logged || rx_log_agrees(db, s) == RX_OK))
        x->verdict = RX_X_USE;
    else if (x->state == 1)
        rx_explain_why(x);
    else if (!logged)
        snprintf(x->why, sizeof x->why, "%s, and it has no log",
                 x->state == 3 ? "it was open when the machine stopped" : "it is a copy that was made while the original was open");
    else if (x->checkpoint == 2)
        return; /* why was said */
    else if (!x->log || x->segments == 0)
        snprintf(x->why, sizeof x->why, "its log is gone");
    else if (!x->begins)
        snprintf(x->why, sizeof x->why, "its log begins after %s", x->checkpoint ? "its checkpoint" : "the first change");
    else if (x->end != 2)
        x->verdict = RX_X_RECOVER;
}

static int rx_explain_file(struct rx_db *db, int fd, struct rx_explained *x)
{
    struct rx_super s = {0};
    struct stat st;
    if (rx_sys_fstat(fd, &st) != 0 || rx_sys_pread(fd, &s, sizeof s, 0) < 0)
        return rx_os_error("read", db->path);
    x->file_bytes = (uint64_t)st.st_size;
    int rc = rx_super_check(&s, (uint64_t)st.st_size);
    if (rc) {
        rx_explain_why(x);
        return RX_OK;
    }
    memcpy(db->uuid, s.uuid, 16);
    if ((rc = rx_explain_state(&s, &st, x)) != RX_OK)
        return rc;
    if ((rc = rx_explain_lock(db, fd, &s, x)) != RX_OK)
        return rc;
    if (rx_level_logged(s.durability))
        rc = rx_explain_sides(db, &s, x);
    if (rc == RX_OK)
        rx_explain_judge(db, &s, x);
    return rc;
}

int rx_explain(const char *path, struct rx_explained *x)
{
    struct rx_db *db = rx_sys_calloc(1, sizeof *db); /* stands in for an open index */
    memset(x, 0, sizeof *x);
    if (db == NULL)
        return rx_fail(RX_E_MEMORY, 0, "for looking at a file");
    db->dir_fd = db->lock_fd = db->probe_fd = -1;
    db->path = (char *)(uintptr_t)path;
    int rc = rx_target_folder(path, &db->dir_fd, &db->name), fd = -1;
    if (rc == RX_OK) {
        fd = rx_sys_openat(db->dir_fd, db->name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY);
        rc = fd < 0 ? rx_os_error("open", path) : rx_explain_file(db, fd, x);
        rx_close_fd(fd);
    }
    rx_close_fd(db->dir_fd);
    free(db->name);
    free(db);
    return rc;
}
