/*
 * session.c -- the log from the first write of a session to its last close: begun, joined
 * by each process, ended; and what is left of one that nobody closed.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
#include "attach.h"
#include "checkpoint.h"
#include "disk.h"
#include "flush.h"
#include "frames.h"
#include "../gc/uid.h"

#define RX_RING_SMALL (1u << 16)
#define RX_LARGE_FILE (64ull << 20)

/* ---- this process's part ----------------------------------------------------------- */

int rx_log_attach(struct rx_db *db)
{
    struct rx_logger *l = rx_sys_calloc(1, sizeof *l);
    if (rx_forgiven(l == NULL))
        return rx_fail(RX_E_MEMORY, 0, "for a log");
    pthread_mutex_init(&l->mutex, NULL);
    pthread_mutex_init(&l->checkpoint, NULL);
    l->dir_fd = l->segment.fd = -1;
    l->closing_left_ns = RX_CLOSING_NS;
    db->logger = l;
    return RX_OK;
}

static int rx_join_locked(struct rx_db *db, struct rx_logger *l)
{
    int rc = l->dir_fd >= 0 ? RX_OK : rx_log_folder(db, true, &l->dir_fd);
    if (rc == RX_OK && l->buffer == NULL && (l->buffer = rx_sys_malloc(RX_FRAME_BYTES)) == NULL)
        rc = rx_fail(RX_E_MEMORY, 0, "for a log");
    return rc;
}

/*
 * No page of the ring is touched for the first time between an entry's claim and its
 * publishing: that would be a moment in which this process holds up everybody's log.
 */
int rx_log_join(struct rx_db *db)
{
    struct rx_logger *l = db->logger;
    if (l == NULL)
        return rx_fail(RX_E_READONLY, 0, "nothing was changed");
    if (rx_load32(&l->ready))
        return RX_OK;
    pthread_mutex_lock(&l->mutex);
    int rc = rx_join_locked(db, l);
    if (rc == RX_OK) {
        (void)rx_sys_madvise(db->ring, rx_load(&db->hdr->log_size) * sizeof *db->ring, MADV_POPULATE_WRITE);
        rx_store32(&l->ready, 1);
    }
    pthread_mutex_unlock(&l->mutex);
    return rc;
}

void rx_log_forget(struct rx_db *db)
{
    struct rx_logger *l = db->logger;
    if (l == NULL)
        return;
    db->logger = NULL;
    rx_segment_shut(&l->segment);
    if (l->dir_fd >= 0)
        rx_sys_close(l->dir_fd);
    free(l->buffer);
    free(l);
}

/* ---- does the log belong to the file? ------------------------------------------------- */

static int rx_stranger(struct rx_db *db, const char *why)
{
    return rx_fail(RX_E_DURABILITY, 0, "%s was closed cleanly, but %s: is it an old copy, put back?  `rowex recover --explain` tells "
                   "what log and checkpoint hold; remove both to use the file as it is", db->path, why);
}

/*
 * A clean file without its log begins a new incarnation: checkpoint, segment, and only then the
 * mark.  Who died before the mark left a checkpoint of this very file (whose session's number may
 * be there already), and maybe a log that is newer, but holds nothing.  RX_ABSENT: it is not so.
 */
static int rx_begun_only(struct rx_db *db, const struct rx_super *super, struct rx_reader *r)
{
    const struct rx_segment_head *last = &r->segment[r->count - 1];
    struct rx_super from;
    int fd, rc = rx_checkpoint_super(db, &from, &fd);
    if (rc)
        return rc;
    rx_sys_close(fd);
    if (super->session - from.session > 1 || from.log_incarnation <= super->log_incarnation)
        return RX_ABSENT;
    if (from.log_incarnation > last->incarnation) /* the segment is of an attempt before */
        return RX_OK;
    if (from.log_incarnation != last->incarnation || from.log_bytes != last->bytes)
        return RX_ABSENT;
    rc = rx_reader_seek(r, last->bytes, last->first);
    if (rc == RX_OK && (rc = rx_reader_peek(r)) == RX_OK)
        return RX_ABSENT;
    return rc == RX_END ? RX_OK : rc;
}

int rx_log_agrees(struct rx_db *db, const struct rx_super *super)
{
    struct rx_reader r;
    int rc = rx_reader_open(db, &r);
    if (rc == RX_ABSENT)
        return RX_OK;
    if (rc)
        return rc;
    if (r.count) {
        const struct rx_segment_head *last = &r.segment[r.count - 1];
        bool never = super->log_incarnation == 0; /* a file of which nothing was ever logged */
        uint64_t bytes = never ? 0 : super->log_bytes, number = never ? 0 : super->log_position;
        if (r.headless > last->id)
            rc = rx_stranger(db, "a segment of its log is damaged");
        else if (!never && (last->id < super->log_segment || last->incarnation < super->log_incarnation))
            rc = rx_stranger(db, "its log is older");
        else if (never ? last->bytes != 0 : last->id != super->log_segment || last->incarnation != super->log_incarnation)
            rc = never || (rc = rx_begun_only(db, super, &r)) == RX_ABSENT ? rx_stranger(db, "its log is newer") : rc;
        else if ((rc = rx_reader_seek(&r, bytes, number)) == RX_OK && (rc = rx_reader_peek(&r)) == RX_OK)
            rc = rx_stranger(db, "its log goes on after it");
        else if (rc == RX_END)
            rc = RX_OK;
        else if (rc == RX_ABSENT)
            rc = rx_stranger(db, "its log begins after it");
    }
    rx_reader_close(&r);
    return rc;
}

/* ---- beginning -------------------------------------------------------------------------- */

/*
 * Numbers, bytes and segments beyond all that any segment holds, or one that is lost held: the
 * clean file names its last, and one of that name would be taken for it.  A new incarnation.
 */
static int rx_origin_beyond(struct rx_db *db, const struct rx_super *super, struct rx_origin *o)
{
    struct rx_reader r;
    int rc = rx_reader_open(db, &r);
    if (rc && rc != RX_ABSENT)
        return rc;
    uint64_t known = super->log_segment + (1ull << 32 | 1), beyond = rc == RX_OK ? rx_reader_beyond(&r) : 0;
    *o = (struct rx_origin){.incarnation = super->log_incarnation + 1, .number = super->log_position};
    o->at.bytes = super->log_bytes;
    o->at.segment = (known > beyond ? known : beyond) >> 32 << 32;
    o->segments = (uint32_t)known > (uint32_t)beyond ? (uint32_t)known : (uint32_t)beyond;
    for (size_t i = 0; rc == RX_OK && i < r.count; i++) {
        const struct rx_segment_head *s = &r.segment[i];
        uint64_t bytes = s->bytes + s->size, number = s->first + s->size;
        o->incarnation = s->incarnation + 1 > o->incarnation ? s->incarnation + 1 : o->incarnation;
        o->number = number > o->number ? number : o->number;
        o->at.bytes = bytes > o->at.bytes ? bytes : o->at.bytes;
    }
    o->base = o->number;
    if (rc == RX_OK)
        rx_reader_close(&r);
    return RX_OK;
}

/*
 * What was there is of another file, or of a beginning that was not finished.  Names of segments beyond
 * all those, also where nothing of them is needed: a process of an index that was replaced may be
 * asleep before it removes one of its own by name, and must not find ours there when it wakes.
 */
static int rx_origin_first(struct rx_db *db, struct rx_origin *o)
{
    struct rx_reader r;
    int rc = rx_reader_open(db, &r);
    if (rc && rc != RX_ABSENT)
        return rc;
    uint64_t beyond = rc == RX_OK ? rx_reader_beyond(&r) : 1ull << 32 | 1;
    *o = (struct rx_origin){1, 0, (uint32_t)beyond, 0, {0, beyond >> 32 << 32}};
    if (rc == RX_OK)
        rx_reader_close(&r);
    return rx_checkpoint_remove(db);
}

/*
 * The first segment of an incarnation; then the log may be gone on with.  Those before it go last:
 * a checkpoint and no segment at all looks like a log that was lost.
 */
static int rx_origin_segment(struct rx_db *db, struct rx_origin *o)
{
    struct rx_logger *l = db->logger;
    struct rx_segment_file made;
    o->at.segment |= o->segments++;
    struct rx_segment_head head = {o->at.segment, o->incarnation, o->at.bytes, o->number, rx_segment_bytes(db, 0),
                                   64u << 10};
    int rc = rx_segment_create(db, l->dir_fd, &head, head.size <= 1u << 20, &made);
    if (rc)
        return rc;
    rx_segment_shut(&made);
    rx_log_sweep(db, o->at.segment);
    return RX_OK;
}

/* Ordering: log_incarnation, who finds it set finds the rest (rx_log_known); and log_size last, then there is a ring. */
static void rx_origin_store(struct rx_db *db, const struct rx_origin *o, uint64_t size)
{
    struct rx_lockhdr *hdr = db->hdr;
    rx_store(&db->slots[0].log_at[0].bytes, o->at.bytes);
    rx_store(&db->slots[0].log_at[0].segment, o->at.segment);
    rx_store(&hdr->log_segments, o->segments);
    rx_store(&hdr->log_durable, o->number << RX_LOG_DURABLE_SHIFT);
    rx_store(&hdr->log_tail, o->number << RX_LOG_TAIL_SHIFT);
    rx_store(&hdr->log_base, o->base);
    rx_store(&hdr->log_bytes, o->at.bytes);
    rx_store(&hdr->log_incarnation, o->incarnation);
    if (size)
        rx_store(&hdr->log_size, size);
}

static int rx_ring_allocate(struct rx_db *db, uint64_t *size)
{
    *size = rx_load(&db->hdr->allocated) >= RX_LARGE_FILE ? RX_LOG_RING_MAX : RX_RING_SMALL;
    for (;; *size /= 2) {
        int rc = rx_lockfile_allocate(db, RX_LOCKFILE_RING, *size * sizeof *db->ring);
        if (rc != RX_E_FULL || *size <= RX_LOG_RING_MIN)
            return rc;
    }
}

/* What is in the header: of a session before, or since rx_log_resume(), or of a beginning that was not finished. */
static void rx_origin_known(struct rx_db *db, struct rx_origin *o)
{
    *o = (struct rx_origin){rx_load(&db->hdr->log_incarnation), 0, rx_load(&db->hdr->log_segments),
                            rx_load(&db->hdr->log_base), {0, 0}};
    o->number = rx_log_point(db, &o->at);
}

static int rx_origin_find(struct rx_db *db, const struct rx_super *super, struct rx_origin *o)
{
    if (rx_log_known(db)) {
        rx_origin_known(db, o);
        return RX_OK;
    }
    struct rx_logger *l = db->logger;
    struct rx_segment_file last = {.fd = -1};
    bool clean = super->state == RX_STATE_CLEAN;
    int rc;
    if (clean && super->log_incarnation == 0) {
        rc = rx_origin_first(db, o);
        if (rc == RX_OK && super->brk > RX_HEAP) /* a copy: what it holds was never in a log of its own */
            rc = rx_checkpoint_alone(db, o->incarnation, o->number, &o->at);
        if (rc == RX_OK && (rc = rx_origin_segment(db, o)) == RX_OK)
            rx_log_clear(db, o->at.segment);
        return rc;
    } else if (clean && (rc = rx_segment_open(db, l->dir_fd, super->log_segment, &last)) != RX_E_NOT_FOUND &&
               rc != RX_E_CORRUPT) {
        rx_segment_shut(&last);
        if (rc)
            return rc;
        *o = (struct rx_origin){super->log_incarnation, super->log_position, (super->log_segment & 0xffffffffu) + 1,
                                super->log_base, {super->log_bytes, super->log_segment}};
        return RX_OK;
    } else if ((rc = rx_origin_beyond(db, super, o)) == RX_OK) {
        /* The file holds what no log tells of: a checkpoint first, before anything new is durable. */
        rc = rx_checkpoint_alone(db, o->incarnation, o->number, &o->at);
    }
    return rc == RX_OK ? rx_origin_segment(db, o) : rc;
}

/* Since when the log has grown is told, and when the next checkpoint is due: from the last one on. */
static void rx_origin_checkpoint(struct rx_db *db)
{
    struct rx_super last;
    int fd;
    if (rx_checkpoint_super(db, &last, &fd) != RX_OK)
        return; /* from the stream's beginning on */
    rx_sys_close(fd);
    rx_store(&db->hdr->log_checkpoint, last.log_bytes);
}

/*
 * Requires  OPENING; nobody has written in this session.
 * Crash     log_size is still 0: the next to write does it again, with a later incarnation
 *           where one was begun.
 */
int rx_log_begin(struct rx_db *db)
{
    struct rx_origin o;
    uint64_t size;
    if (rx_load(&db->hdr->log_size))
        return RX_OK;
    if (db->logger == NULL)
        return rx_fail(RX_E_READONLY, 0, "nothing was changed");
    int rc = rx_ring_allocate(db, &size);
    if (rc == RX_OK)
        rc = rx_join_locked(db, db->logger);
    if (rc == RX_OK)
        rc = rx_origin_find(db, rx_super_of(db->map), &o);
    if (rc == RX_OK) {
        (void)rx_log_reserve(db, 0);
        rx_origin_checkpoint(db);
        rx_origin_store(db, &o, size);
    }
    return rc;
}

/* ---- ending ------------------------------------------------------------------------------- */

/* Alone: the lead is ours, whoever had it. */
static int rx_write_alone(struct rx_db *db)
{
    struct rx_thread t = {.db = db, .slot = &db->slots[0], .map = db->map, .base = db->map->base,
                          .uid = rx_fetch_add(&db->hdr->next_serial, 1) << RX_SLOT_BITS};
    struct rx_log_at at;
    uint64_t tail = rx_log_tail(db);
    (void)rx_log_point(db, &at);
    /* A leader that died, or that could not make one, wants a fresh segment, also where there is nothing to write. */
    struct rx_lead lead = {.fresh = rx_load(&db->hdr->log_lead) || at.segment >> 32 < rx_load(&db->hdr->log_term)};
    int rc = !lead.fresh && rx_log_durable(db) == tail ? RX_OK : rx_join_locked(db, db->logger);
    rx_store(&db->hdr->log_lead, t.uid);
    lead.word = rx_load(&db->hdr->log_durable);
    if (rc == RX_OK)
        rc = rx_frames_write(&t, &lead);
    rx_store(&db->hdr->log_lead, 0);
    if (rc == RX_OK && rx_log_durable(db) != tail)
        rc = rx_fail(RX_E_DURABILITY, 0, "an entry of the log of %s stays undecided", db->path);
    return rc;
}

int rx_log_end(struct rx_db *db, struct rx_super *super)
{
    struct rx_log_at at;
    uint64_t failed = rx_load(&db->hdr->log_failed);
    if (!db->logged || rx_load(&db->hdr->log_size) == 0)
        return RX_OK;
    if (failed)
        return rx_fail(RX_E_DURABILITY, (int)failed, "the log of %s could not be written; the next to open the file begins "
                       "with a checkpoint", db->path);
    int rc = rx_write_alone(db);
    if (rc)
        return rc;
    rx_store(&super->log_position, rx_log_point(db, &at));
    rx_store(&super->log_incarnation, rx_load(&db->hdr->log_incarnation));
    rx_store(&super->log_base, rx_load(&db->hdr->log_base));
    rx_store(&super->log_bytes, at.bytes);
    rx_store(&super->log_segment, at.segment);
    return RX_OK;
}

/* ---- a session that nobody closed ------------------------------------------------------------ */

/* Is what lies in NAME-lock the last session's, whole, and of this file? */
static bool rx_ring_is_ours(const struct rx_db *db, const struct rx_super *super)
{
    const struct rx_lockhdr *hdr = db->hdr;
    uint64_t size = hdr->log_size;
    return memcmp(hdr->magic, RX_LOCK_MAGIC, 8) == 0 && hdr->version == RX_LOCK_VERSION && hdr->ready == 1 &&
           memcmp(hdr->uuid, super->uuid, 16) == 0 && hdr->session == super->session && hdr->marked == 1 &&
           size >= RX_LOG_RING_MIN && size <= RX_LOG_RING_MAX && (size & (size - 1)) == 0 && hdr->log_failed == 0 &&
           hdr->log_incarnation != 0 && hdr->slot_high <= RX_SLOTS && hdr->arena_high <= RX_ARENAS &&
           rx_log_tail(db) - rx_log_durable(db) <= size;
}

static int rx_rescue_mapped(struct rx_db *db, const struct rx_super *super)
{
    if (!rx_ring_is_ours(db, super))
        return RX_ABSENT;
    bool same = rx_load(&db->hdr->generation) == super->generation; /* else a copy was renamed, after all was durable */
    for (uint32_t i = 0; same && i < RX_PROCESSES; i++)
        if (rx_load(&db->processes[i].token))
            rx_reap_process(db, db->map, i);
    if (!same && rx_log_tail(db) != rx_log_durable(db))
        return RX_ABSENT;
    return rx_write_alone(db);
}

/*
 * Requires  exclusive; NAME-lock as the dead have left it, mapped.
 * Crash     nothing but what a leader does: repeated by the next opener.
 * Returns   RX_OK: rx_log_resume() can go on with *kept.  RX_ABSENT: lost; what reached the
 *           log is there, the rest is in the file alone.
 */
int rx_log_rescue(struct rx_db *db, const struct rx_super *super, struct rx_origin *kept)
{
    int rc = rx_rescue_mapped(db, super);
    if (rc)
        return rc == RX_E_MEMORY ? rc : RX_ABSENT;
    rx_origin_known(db, kept);
    return RX_OK;
}

void rx_log_resume(struct rx_db *db, const struct rx_origin *kept) { rx_origin_store(db, kept, 0); }
