/*
 * frames.c -- from the ring to the disk.  Only the leader is here, one thread a process.
 *
 * What an entry names stays as it is until the entry is durable (L4), so the bytes are read
 * from the leaf itself, outside any epoch.  They belong to the generation in which the entry
 * was published: a copy is renamed only when the log is durable up to its tail, so a map of
 * the generation that hdr names after the entry was seen is the right one.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <stdlib.h>
#include <sys/types.h>
#include "flush.h"
#include "frames.h"
#include "tree.h"
#include "fileio.h"
#include "../gc/epoch.h"

#define RX_GATHER_ROOM (RX_FRAME_BYTES - 2 * sizeof(struct rx_log_frame) - 8) /* but the head, the pad, and zeros behind it */
#define RX_ENTRY_INLINE (128u << 10) /* larger ones go from the leaf to the file */
#define RX_SYNC_BYTES (64u << 20)
#define RX_SEGMENT_MIN (256u << 10)
#define RX_SEGMENT_MAX (64u << 20)
#define RX_SEGMENT_SETTLE (1u << 20)
#define RX_KEEP_MIN (256u << 10)
#define RX_ALLOW_MIN (1u << 20)
#define RX_ALLOW_SMALL (64u << 10)

struct rx_gather { /* one frame being put together */
    uint64_t count, used; /* entries, bytes of payload */
    uint64_t credit;      /* as hdr->log_backlog counted its puts */
    const uint8_t *large; /* the value that follows the buffer, when it did not fit in */
    uint64_t large_size;
    uint8_t *owned; /* of a batch: its bytes, put together here */
};

/* ---- gathering ------------------------------------------------------------------------ */

static void rx_gather_head(struct rx_logger *l, struct rx_gather *g, enum rx_log_kind kind, uint64_t key_len,
                           uint64_t value_len)
{
    uint64_t head = rx_logged_head(kind, key_len, value_len);
    memcpy(l->buffer + sizeof(struct rx_log_frame) + g->used, &head, sizeof head);
    g->used += sizeof head;
}
static void rx_gather_bytes(struct rx_logger *l, struct rx_gather *g, const uint8_t *from, uint64_t size)
{
    memcpy(l->buffer + sizeof(struct rx_log_frame) + g->used, from, size);
    g->used += size;
}

/*
 * Item i of a batch as an entry: its size; written to `to` where that is not NULL, and has room.
 * 0: damaged (a page was lost), or another's by now (we were deposed).
 */
static uint64_t rx_batch_entry(struct rx_map *map, const struct rx_batch *b, uint64_t size, uint64_t i, uint8_t *to,
                               uint64_t room)
{
    rx_ref leaf = rx_load_rlx(&b->item[i].leaf);
    struct rx_leaf_view v = {0};
    v.key = rx_batch_key(b, size, i, &v.key_len);
    if (v.key == NULL || (leaf && rx_leaf_view(map, leaf, &v)) || v.key_len > RX_KEY_MAX || 8 + v.key_len + v.value_len > room)
        return 0;
    if (to) {
        uint64_t head = rx_logged_head(leaf ? RX_L_PUT : RX_L_REMOVE, v.key_len, v.value_len);
        memcpy(to, &head, sizeof head);
        memcpy(to + sizeof head, v.key, v.key_len);
        if (v.value_len)
            memcpy(to + sizeof head + v.key_len, v.value, v.value_len);
    }
    return 8 + v.key_len + v.value_len;
}

/*
 * A batch is one entry, whose value is a list of entries: all of it is in one frame, or none.
 * Returns as rx_gather_entry().
 */
static int rx_gather_batch(struct rx_logger *l, struct rx_map *map, struct rx_gather *g, rx_off off)
{
    uint64_t size, total = 0, room = RX_GATHER_ROOM - g->used;
    const struct rx_batch *b = rx_batch_at(map, off, &size);
    uint64_t count = b ? rx_load_rlx(&b->count) : 0;
    if (b && count > (size - sizeof *b) / sizeof b->item[0])
        b = NULL;
    for (uint64_t i = 0; b && i < count; i++) {
        uint64_t bytes = rx_batch_entry(map, b, size, i, NULL, RX_OFF_MAX);
        if (bytes == 0)
            b = NULL;
        total += bytes;
    }
    if (b == NULL)
        return rx_corrupt(off, "a logged batch is not there");
    bool large = total > RX_ENTRY_INLINE;
    if (large ? g->count != 0 : 8 + total > room)
        return RX_END;
    uint8_t *to = l->buffer + sizeof(struct rx_log_frame) + g->used + 8;
    if (large && (to = g->owned = rx_sys_malloc(total)) == NULL)
        return rx_fail(RX_E_MEMORY, 0, "for logging a batch of %llu bytes", (unsigned long long)total);
    uint64_t at = 0;
    for (uint64_t i = 0, bytes = 1; i < count && bytes; i++)
        at += bytes = rx_batch_entry(map, b, size, i, to + at, total - at);
    if (at != total) {
        free(g->owned);
        g->owned = NULL;
        return rx_corrupt(off, "a logged batch does not hold still");
    }
    g->credit += total + RX_LOG_ENTRY_EXTRA;
    rx_gather_head(l, g, RX_L_BATCH, 0, total);
    if (large) {
        g->large = to;
        g->large_size = total;
    } else {
        g->used += total;
    }
    g->count++;
    return RX_OK;
}

/* RX_OK; RX_END: it does not fit any more. */
static int rx_gather_entry(struct rx_logger *l, struct rx_map *map, struct rx_gather *g, uint64_t what)
{
    enum rx_log_kind kind = (enum rx_log_kind)(what >> RX_LOG_KIND_SHIFT);
    if (kind == RX_L_BATCH)
        return rx_gather_batch(l, map, g, what & RX_REF_OFF_MASK);
    uint64_t room = RX_GATHER_ROOM - g->used;
    struct rx_leaf_view v = {0};
    if (kind != RX_L_VOID) {
        int rc = rx_leaf_view(map, what & ((1ull << RX_LOG_KIND_SHIFT) - 1), &v);
        if (rc)
            return rc;
    }
    uint64_t value_len = kind == RX_L_PUT ? v.value_len : 0, size = 8 + v.key_len + value_len;
    bool large = value_len > RX_ENTRY_INLINE;
    if (large ? g->count != 0 : size > room)
        return RX_END;
    if (v.key_len > RX_KEY_MAX || 8 + v.key_len > room)
        return g->count ? RX_END : rx_corrupt(what & RX_REF_OFF_MASK, "a logged key of %llu bytes",
                                              (unsigned long long)v.key_len);
    if (kind == RX_L_PUT)
        g->credit += v.key_len + value_len + RX_LOG_ENTRY_EXTRA;
    rx_gather_head(l, g, kind, v.key_len, value_len);
    rx_gather_bytes(l, g, v.key, v.key_len);
    if (large) {
        g->large = v.value;
        g->large_size = value_len;
    } else {
        rx_gather_bytes(l, g, v.value, value_len);
    }
    g->count++;
    return RX_OK;
}

/*
 * Ordering  an entry's number (acquire), then the generation: while that is our map's, so
 *           was the entry's.
 */
static int rx_gather(struct rx_thread *t, struct rx_logger *l, uint64_t number, uint64_t tail, struct rx_gather *g)
{
    struct rx_db *db = t->db;
    *g = (struct rx_gather){0};
    while (number + g->count < tail && g->large == NULL && g->count < RX_FRAME_COUNT_MAX) {
        const struct rx_log_entry *e = rx_log_entry(db, number + g->count), *later = rx_log_entry(db, number + g->count + 8);
        if (rx_load(&e->number) != number + g->count + 1)
            break; /* undecided */
        uint64_t what = rx_load_rlx(&e->what);
        __builtin_prefetch(t->base + (rx_load_rlx(&later->what) & RX_REF_OFF_MASK));
        if (RX_UNLIKELY(rx_load(&db->hdr->generation) != t->map->generation)) {
            if (g->count)
                break;
            int rc = rx_remap_thread(t);
            if (rc)
                return rc;
            continue;
        }
        int rc = rx_gather_entry(l, t->map, g, what);
        if (rc == RX_END)
            break;
        if (rc)
            return rc;
    }
    return RX_OK;
}

/* ---- segments -------------------------------------------------------------------------- */

uint64_t rx_segment_bytes(const struct rx_db *db, uint64_t frame)
{
    uint64_t size = rx_load(&db->hdr->allocated) / 8 & ~65535ull;
    size = size < RX_SEGMENT_MIN ? RX_SEGMENT_MIN : size > RX_SEGMENT_MAX ? RX_SEGMENT_MAX : size;
    return size < frame + RX_SEGMENT_HEAD ? frame + RX_SEGMENT_HEAD : size;
}

static int rx_reserve_spare(struct rx_db *db, uint64_t keep, uint64_t allow)
{
    int rc = rx_spare_ensure(db, db->logger->dir_fd, keep + allow);
    if (rc == RX_OK)
        rx_store(&db->hdr->log_allowed, allow);
    return rc;
}

int rx_log_reserve(struct rx_db *db, uint64_t put)
{
    uint64_t data = rx_load(&db->hdr->allocated), keep = data / 4, allow = data / 16;
    keep = keep < RX_KEEP_MIN ? RX_KEEP_MIN : keep;
    allow = allow < RX_ALLOW_MIN ? RX_ALLOW_MIN : allow;
    int rc = rx_reserve_spare(db, keep, allow > put ? allow : put);
    if (rc)
        rc = rx_reserve_spare(db, keep, RX_ALLOW_SMALL > put ? RX_ALLOW_SMALL : put);
    if (rc)
        rx_store(&db->hdr->log_allowed, 0);
    return rc;
}

static uint64_t rx_lead_room(const struct rx_logger *l, const struct rx_lead *lead)
{
    return l->segment.size - RX_SEGMENT_HEAD - (lead->at.bytes - l->segment.bytes);
}

/* Attempts that were repeated, and the dead, have counted too much: it is zero again when all is durable. */
static void rx_backlog_less(struct rx_lockhdr *hdr, uint64_t bytes)
{
    uint64_t have = rx_load(&hdr->log_backlog);
    while (!rx_cas(&hdr->log_backlog, &have, have > bytes ? have - bytes : 0))
        ;
}

/*
 * Behind what is durable: whoever finds the witness, and not all that is before it, knows of
 * damage.  No sync of its own: the next frame takes its place and says the same, and where none
 * comes the kernel writes it when it likes.  Not written, it says nothing: no error.
 */
static void rx_lead_witness(const struct rx_db *db, const struct rx_logger *l, const struct rx_lead *lead)
{
    struct rx_log_frame w = {.durable = (uint32_t)lead->number, .shape = RX_FRAME_WITNESS};
    w.crc = rx_frame_seed(db->uuid, rx_load(&db->hdr->log_incarnation), lead->at.bytes);
    w.crc = rx_crc32c(w.crc, &w.durable, sizeof w - offsetof(struct rx_log_frame, durable));
    (void)rx_segment_write(&l->segment, lead->at.bytes, &w, sizeof w);
}

/* The durable point moves to what was written; everything before it is synced. */
static int rx_lead_sync(struct rx_thread *t, struct rx_logger *l, struct rx_lead *lead, uint64_t *unsynced)
{
    int64_t began = rx_now_ns();
    if (*unsynced == 0)
        return RX_OK;
    if (rx_segment_sync(&l->segment) != 0)
        return rx_os_error("sync the log of", t->db->path);
    if (rx_poisoned(t->map)) /* between checksum and write a page of a value may have become zeros */
        return rx_fail(RX_E_CORRUPT, EIO, "a page of %s that was to be logged cannot be read", t->db->path);
    *unsynced = 0;
    if (!rx_log_advance(t, &lead->word, lead->number, &lead->at)) /* commit */
        return RX_I_RESTART;
    rx_lead_witness(t->db, l, lead);
    if (rx_load32(&t->db->hdr->log_vain) && rx_now_ns() - began < RX_LEAD_STILL_NS / 2)
        rx_store32(&t->db->hdr->log_vain, 0);
    rx_store(&t->db->hdr->log_bytes, lead->at.bytes);
    rx_store(&t->db->hdr->log_room, rx_lead_room(l, lead));
    rx_backlog_less(t->db->hdr, lead->number == rx_log_tail(t->db) ? UINT64_MAX : lead->credit);
    lead->credit = 0;
    lead->wrote = true;
    return RX_OK;
}

/* A segment with room for `frame` bytes at lead->at; a new one begins there when it must. */
static int rx_lead_segment(struct rx_thread *t, struct rx_logger *l, struct rx_lead *lead, uint64_t frame,
                           uint64_t *unsynced)
{
    struct rx_db *db = t->db;
    int rc;
    if (!lead->fresh && l->segment.fd >= 0 && l->segment.id != lead->at.segment)
        rx_segment_shut(&l->segment);
    if (!lead->fresh && l->segment.fd < 0 && (rc = rx_segment_open(db, l->dir_fd, lead->at.segment, &l->segment)) != RX_OK)
        return rc;
    if (!lead->fresh && frame <= rx_lead_room(l, lead))
        return RX_OK;
    if ((rc = rx_lead_sync(t, l, lead, unsynced)) != RX_OK) /* who begins later vouches for what was before */
        return rc;
    uint64_t term = (lead->at.segment >> 32) + lead->fresh, least = rx_load(&db->hdr->log_term);
    uint64_t id = (term > least ? term : least) << 32 | (rx_fetch_add(&db->hdr->log_segments, 1) & 0xffffffffu);
    if (!rx_log_lead_is(t)) /* after the number was drawn (F2) */
        return RX_I_RESTART;
    struct rx_segment_head head = {id, rx_load(&db->hdr->log_incarnation), lead->at.bytes, lead->number,
                                   rx_segment_bytes(db, frame), RX_SEGMENT_HEAD + frame};
    rx_segment_shut(&l->segment);
    rc = rx_segment_create(db, l->dir_fd, &head, head.size <= RX_SEGMENT_SETTLE, &l->segment);
    if (rc)
        return rc;
    lead->at.segment = id;
    if (!rx_log_advance(t, &lead->word, lead->number, &lead->at)) /* all before it is durable: F2 */
        return RX_I_RESTART;
    lead->fresh = false;
    rx_store(&db->hdr->log_room, rx_lead_room(l, lead));
    (void)rx_log_reserve(db, 0);
    return RX_OK;
}

/* ---- writing --------------------------------------------------------------------------- */

static int rx_frame_put(struct rx_thread *t, struct rx_logger *l, struct rx_lead *lead, const struct rx_gather *g,
                        uint64_t *unsynced)
{
    static const uint8_t pad[8 + sizeof(struct rx_log_frame)];
    struct rx_db *db = t->db;
    struct rx_log_frame *frame = (struct rx_log_frame *)(void *)l->buffer;
    uint64_t whole = g->used + g->large_size, padded = (whole + 7) & ~7ull, spare = padded - whole;
    int rc = rx_lead_segment(t, l, lead, 2 * sizeof *frame + padded, unsynced); /* a witness fits in behind it */
    if (rc)
        return rc;
    uint8_t *payload = l->buffer + sizeof *frame;
    if (g->large == NULL)
        memset(payload + g->used, 0, spare);
    frame->durable = (uint32_t)(lead->word >> RX_LOG_DURABLE_SHIFT);
    frame->shape = rx_frame_shape(g->count, padded);
    uint32_t crc = rx_frame_seed(db->uuid, rx_load(&db->hdr->log_incarnation), lead->at.bytes);
    crc = rx_crc32c(crc, &frame->durable, 12);
    crc = rx_crc32c(crc, payload, g->large ? g->used : padded);
    if (g->large)
        crc = rx_crc32c(rx_crc32c(crc, g->large, g->large_size), pad, spare);
    frame->crc = crc;
    if (rx_poisoned(t->map))
        return rx_fail(RX_E_CORRUPT, EIO, "a page of %s that was to be logged cannot be read", db->path);
    /*
     * With zeros behind it, by the same sync: an attempt that failed may have left whole frames beyond the
     * durable point.  This one may be shorter, its frames being fewer, and must not end where one of those stands.
     */
    uint8_t *end = payload + g->used + (g->large ? 0 : spare);
    memset(end, 0, sizeof *frame);
    uint64_t at = lead->at.bytes, first = (uint64_t)(end - l->buffer) + (g->large ? 0 : sizeof *frame);
    if (rx_segment_write(&l->segment, at, l->buffer, first) != 0 ||
        (g->large && (rx_segment_write(&l->segment, at + first, g->large, g->large_size) != 0 ||
                      rx_segment_write(&l->segment, at + first + g->large_size, pad, spare + sizeof *frame) != 0)))
        return rx_os_error("write the log of", db->path);
    lead->at.bytes += sizeof *frame + padded;
    lead->number += g->count;
    lead->credit += g->credit;
    *unsynced += sizeof *frame + padded;
    rx_fetch_add(&db->hdr->log_progress, 1);
    return RX_OK;
}

static int rx_frames_from(struct rx_thread *t, struct rx_logger *l, struct rx_lead *lead)
{
    struct rx_gather g;
    uint64_t unsynced = 0, tail = rx_log_tail(t->db);
    int rc = RX_OK;
    while (rc == RX_OK && lead->number < tail) {
        rc = rx_gather(t, l, lead->number, tail, &g);
        if (rc || g.count == 0)
            break;
        rc = rx_frame_put(t, l, lead, &g, &unsynced);
        free(g.owned);
        if (rc == RX_OK && unsynced >= RX_SYNC_BYTES)
            rc = rx_lead_sync(t, l, lead, &unsynced);
    }
    if (rc == RX_OK)
        rc = rx_lead_sync(t, l, lead, &unsynced);
    if (rc == RX_OK && lead->fresh) /* nothing to write: the next leader must not go on where the deposed one may write */
        rc = rx_lead_segment(t, l, lead, 0, &unsynced);
    return rc;
}

/*
 * From the durable point on: an attempt that failed is begun anew, with the ring as it is.
 * Ordering  the point, then the word: only we store one that names our slot, so while it is the
 *           one that we took, the point read is ours (F1), not that of who deposed us.
 */
int rx_frames_write(struct rx_thread *t, struct rx_lead *lead)
{
    struct rx_logger *l = t->db->logger;
    lead->number = rx_log_point(t->db, &lead->at);
    lead->credit = 0;
    if (rx_load(&t->db->hdr->log_durable) != lead->word)
        return RX_I_RESTART;
    lead->fresh |= lead->at.segment >> 32 < rx_load(&t->db->hdr->log_term);
    int rc = rx_frames_from(t, l, lead);
    if (rc)
        rx_segment_shut(&l->segment);
    /* What entries name stays as it is while they are not durable: but for one deposed, whatever it found. */
    return rc && !rx_log_lead_is(t) ? RX_I_RESTART : rc;
}

bool rx_logger_try(struct rx_db *db) { return pthread_mutex_trylock(&db->logger->mutex) == 0; }
void rx_logger_unlock(struct rx_db *db) { pthread_mutex_unlock(&db->logger->mutex); }
