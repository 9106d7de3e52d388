/*
 * replay.c -- reading the log's stream of frames, as recovery and `rowex recover` do.
 * Nothing in these files is trusted before its checksum fits, and no length reaches
 * beyond its file.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>
#include "disk.h"
#include "fileio.h"
#include "segment.h"

uint64_t rx_frame_shape(uint64_t count, uint64_t size) { return count | size << 24; }

uint32_t rx_frame_seed(const uint8_t uuid[16], uint64_t incarnation, uint64_t bytes)
{
    uint64_t where[2] = {incarnation, bytes};
    return rx_crc32c(rx_crc32c(0, uuid, 16), where, sizeof where);
}

/* ---- the segments ---------------------------------------------------------------- */

/* No frame was ever written behind this head: nothing in it had been durable. */
static bool rx_segment_unused(int fd)
{
    uint8_t first[512] = {0};
    ssize_t have = rx_sys_pread(fd, first, sizeof first, RX_SEGMENT_HEAD);
    for (ssize_t i = 0; i < have; i++)
        if (first[i])
            return false;
    return have >= 0;
}

/*
 * RX_OK; RX_ABSENT: no segment, or of another index; RX_END: no whole head, damaged or still in
 * the making when its maker or the machine stopped; RX_E_FORMAT.  A read that fails is none of these.
 */
static int rx_head_look(struct rx_reader *r, int fd, const char *name, struct rx_segment_head *out)
{
    struct rx_segment head = {0};
    struct stat st;
    if (rx_sys_fstat(fd, &st) != 0)
        return rx_os_error("read segment", name);
    if (!S_ISREG(st.st_mode))
        return RX_ABSENT;
    ssize_t have = rx_sys_pread(fd, &head, sizeof head, 0);
    if (have < 0)
        return rx_os_error("read segment", name);
    if (have != (ssize_t)sizeof head || memcmp(head.magic, RX_SEGMENT_MAGIC, 8) != 0 ||
        head.crc != rx_crc32c(0, head.uuid, sizeof head - offsetof(struct rx_segment, uuid)))
        return RX_END;
    if (r->any)
        memcpy(r->uuid, head.uuid, 16);
    if (memcmp(head.uuid, r->uuid, 16) != 0)
        return RX_ABSENT;
    if (head.version != RX_SEGMENT_VERSION)
        return rx_fail(RX_E_FORMAT, 0, "a segment of the log has version %u, this library knows version %u", head.version,
                       RX_SEGMENT_VERSION);
    uint64_t size = (uint64_t)st.st_size < head.size ? (uint64_t)st.st_size : head.size;
    *out = (struct rx_segment_head){head.id, head.incarnation, head.bytes, head.first, size, head.size};
    return RX_OK;
}

/* A name that nobody draws in a lifetime is not one that was drawn, but by a prankster. */
static void rx_reader_drawn(struct rx_reader *r, uint64_t id)
{
    uint64_t term = id >> 32, drawn = id & 0xffffffffu;
    if (term > INT32_MAX || drawn > INT32_MAX)
        return;
    r->term = term > r->term ? (uint32_t)term : r->term;
    r->drawn = drawn > r->drawn ? (uint32_t)drawn : r->drawn;
}

static int rx_head_read(struct rx_reader *r, const char *name, struct rx_segment_head *out)
{
    char *end;
    uint64_t id = strtoull(name, &end, 16);
    if (strlen(name) != 16 || *end)
        return RX_ABSENT;
    rx_reader_drawn(r, id);
    int fd = rx_sys_openat(r->dir_fd, name, O_RDONLY | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0)
        return errno == ENOENT || errno == ELOOP ? RX_ABSENT : rx_os_error("open segment", name);
    int rc = rx_head_look(r, fd, name, out);
    bool unmade = rc == RX_END && rx_segment_unused(fd);
    rx_sys_close(fd);
    if (unmade && r->tidy)
        rx_segment_remove(r->dir_fd, id);
    else if (rc == RX_END && !unmade && id > r->headless)
        r->headless = id;
    return rc == RX_OK && out->id != id ? RX_ABSENT : rc;
}

static int rx_by_id(const void *a, const void *b)
{
    const struct rx_segment_head *x = a, *y = b;
    return x->id < y->id ? -1 : x->id > y->id;
}

static int rx_reader_list(struct rx_reader *r)
{
    int fd = rx_sys_openat(r->dir_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *folder = fd < 0 ? NULL : rx_sys_fdopendir(fd);
    size_t room = 0;
    int rc = RX_OK;
    if (folder == NULL) {
        rc = rx_os_error("list", "a log");
        rx_close_fd(fd);
        return rc;
    }
    for (struct dirent *e; rc == RX_OK;) {
        struct rx_segment_head head;
        errno = 0;
        if ((e = rx_sys_readdir(folder)) == NULL) { /* a list that breaks off is not the log */
            rc = errno ? rx_os_error("list", "a log") : RX_OK;
            break;
        }
        rc = rx_head_read(r, e->d_name, &head);
        if (rc == RX_ABSENT || rc == RX_END) {
            rc = RX_OK;
            continue;
        }
        if (rc)
            break;
        if (r->count == room) {
            struct rx_segment_head *more = rx_sys_realloc(r->segment, (room = room ? room * 2 : 16) * sizeof *more);
            if (more == NULL) {
                rc = rx_fail(RX_E_MEMORY, 0, "for a log's segments");
                break;
            }
            r->segment = more;
        }
        r->segment[r->count++] = head;
    }
    rx_sys_closedir(folder);
    if (r->count)
        qsort(r->segment, r->count, sizeof *r->segment, rx_by_id);
    return rc;
}

int rx_reader_uuid(struct rx_db *db, uint8_t uuid[16])
{
    struct rx_reader r = {.fd = -1, .any = true};
    int rc = rx_log_folder(db, false, &r.dir_fd);
    if (rc == RX_OK)
        rc = rx_reader_list(&r);
    if (rc == RX_OK && r.count)
        memcpy(uuid, r.uuid, 16);
    else if (rc == RX_OK)
        rc = RX_ABSENT;
    rx_reader_close(&r);
    return rc;
}

void rx_log_tidy(struct rx_db *db)
{
    struct rx_reader r = {.fd = -1, .tidy = true};
    memcpy(r.uuid, db->uuid, 16);
    if (rx_log_folder(db, false, &r.dir_fd) == RX_OK)
        (void)rx_reader_list(&r);
    rx_reader_close(&r);
}

int rx_reader_open(struct rx_db *db, struct rx_reader *r)
{
    memset(r, 0, sizeof *r);
    r->fd = -1;
    memcpy(r->uuid, db->uuid, 16);
    int rc = rx_log_folder(db, false, &r->dir_fd);
    if (rc == RX_OK)
        rc = rx_reader_list(r);
    if (rc)
        rx_reader_close(r);
    return rc;
}

void rx_reader_close(struct rx_reader *r)
{
    if (r->fd >= 0)
        rx_sys_close(r->fd);
    if (r->dir_fd >= 0)
        rx_sys_close(r->dir_fd);
    free(r->segment);
    free(r->buffer);
    r->fd = r->dir_fd = -1;
    r->segment = NULL;
    r->buffer = NULL;
    r->count = 0;
}

/* ---- frames ---------------------------------------------------------------------- */

/* Opens the segment that holds r->bytes: of those that begin at or before it, the last. */
static int rx_reader_place(struct rx_reader *r)
{
    size_t found = r->count;
    r->until = UINT64_MAX;
    for (size_t i = 0; i < r->count; i++)
        if (r->segment[i].bytes <= r->bytes)
            found = i;
    if (found == r->count)
        return RX_ABSENT;
    for (size_t i = found + 1; i < r->count; i++)
        if (r->segment[i].bytes < r->until)
            r->until = r->segment[i].bytes;
    if (r->fd >= 0 && found == r->at)
        return RX_OK;
    char name[24];
    if (r->fd >= 0)
        rx_sys_close(r->fd);
    r->at = found;
    rx_segment_name(r->segment[found].id, name);
    r->fd = rx_sys_openat(r->dir_fd, name, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
    return r->fd < 0 ? rx_os_error("open segment", name) : RX_OK;
}

int rx_reader_seek(struct rx_reader *r, uint64_t bytes, uint64_t number)
{
    r->bytes = bytes;
    r->number = number;
    return rx_reader_place(r);
}

static int rx_read_all(struct rx_reader *r, uint64_t at, void *to, uint64_t size)
{
    uint8_t *out = to;
    while (size) {
        ssize_t n = rx_sys_pread(r->fd, out, size < 1u << 30 ? size : 1u << 30, (off_t)at);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return rx_os_error("read", "the log");
        if (n == 0)
            return RX_END;
        out += n;
        at += (uint64_t)n;
        size -= (uint64_t)n;
    }
    return RX_OK;
}

/* The frame that begins at `bytes` of the segment in hand: RX_OK, RX_END (no whole frame there). */
static int rx_frame_read(struct rx_reader *r, uint64_t bytes, struct rx_log_frame *frame)
{
    const struct rx_segment_head *s = &r->segment[r->at];
    uint64_t at = RX_SEGMENT_HEAD + (bytes - s->bytes);
    if (bytes < s->bytes || at > s->size || s->size - at < sizeof *frame)
        return RX_END;
    int rc = rx_read_all(r, at, frame, sizeof *frame);
    if (rc)
        return rc;
    uint64_t size = frame->shape >> 24;
    if ((frame->shape & RX_FRAME_COUNT_MAX) == 0 || size % 8 || size < 8 || size > s->size - at - sizeof *frame ||
        (r->until != UINT64_MAX && bytes + sizeof *frame + size > r->until))
        return RX_END;
    if (size > r->capacity) {
        free(r->buffer);
        r->capacity = size + (1u << 20);
        if ((r->buffer = rx_sys_malloc(r->capacity)) == NULL) {
            r->capacity = 0;
            return rx_fail(RX_E_MEMORY, 0, "for a frame of the log");
        }
    }
    if ((rc = rx_read_all(r, at + sizeof *frame, r->buffer, size)) != RX_OK)
        return rc;
    uint32_t crc = rx_crc32c(rx_frame_seed(r->uuid, s->incarnation, bytes), &frame->durable, 12);
    return rx_crc32c(crc, r->buffer, size) == frame->crc ? RX_OK : RX_END;
}

static bool rx_witness_whole(const struct rx_reader *r, uint64_t bytes, const struct rx_log_frame *w)
{
    uint32_t seed = rx_frame_seed(r->uuid, r->segment[r->at].incarnation, bytes);
    return w->shape == RX_FRAME_WITNESS && rx_crc32c(seed, &w->durable, 12) == w->crc;
}

/* The 16 bytes at r->bytes; zeros where there are none. */
static struct rx_log_frame rx_reader_here(const struct rx_reader *r)
{
    const struct rx_segment_head *s = &r->segment[r->at];
    struct rx_log_frame here, none = {0};
    off_t at = (off_t)(RX_SEGMENT_HEAD + (r->bytes - s->bytes));
    return r->bytes >= s->bytes && rx_sys_pread(r->fd, &here, sizeof here, at) == (ssize_t)sizeof here ? here : none;
}

bool rx_reader_complete(const struct rx_reader *r)
{
    struct rx_log_frame w = rx_reader_here(r);
    return rx_witness_whole(r, r->bytes, &w) && w.durable == (uint32_t)r->number;
}

bool rx_reader_blank(const struct rx_reader *r)
{
    struct rx_log_frame w = rx_reader_here(r);
    return w.shape == 0 || rx_witness_whole(r, r->bytes, &w);
}

int rx_reader_peek(struct rx_reader *r)
{
    struct rx_log_frame frame;
    int rc = r->bytes >= r->until ? rx_reader_place(r) : RX_OK;
    return rc ? rc : rx_frame_read(r, r->bytes, &frame);
}

/* ---- behind what is not whole ------------------------------------------------------- */

#define RX_FIND_WINDOW (1u << 20)
#define RX_FIND_OVERLAPS 16u

/* What a frame's head must be, whatever it holds: so zeros and values are passed over quickly. */
static bool rx_frame_plausible(const struct rx_log_frame *f, uint64_t room)
{
    uint64_t count = f->shape & RX_FRAME_COUNT_MAX, size = f->shape >> 24;
    return f->shape == RX_FRAME_WITNESS || (count && size % 8 == 0 && size <= room && count * 8 <= size);
}

typedef bool (*rx_frame_wanted)(const struct rx_reader *r, const struct rx_log_frame *f, uint64_t distance);
static bool rx_frame_any(const struct rx_reader *r, const struct rx_log_frame *f, uint64_t distance)
{
    (void)r, (void)distance;
    return f->shape != RX_FRAME_WITNESS;
}

/* It was written when what stood at r->bytes, `distance` before it, was durable already. */
static bool rx_frame_accuses(const struct rx_reader *r, const struct rx_log_frame *f, uint64_t distance)
{
    uint32_t later = f->durable - (uint32_t)r->number;
    return later != 0 && later <= distance / 8; /* an entry has 8 bytes at least */
}

/*
 * The first wanted, whole frame behind r->bytes in the segment in hand. RX_OK with *found, RX_END.
 * RX_E_CORRUPT: there are so many heads of long frames that reading them all would take for ever.
 */
static int rx_frame_find(struct rx_reader *r, rx_frame_wanted wanted, uint64_t *found)
{
    const struct rx_segment_head *s = &r->segment[r->at];
    uint64_t end = s->bytes + s->size - RX_SEGMENT_HEAD, have = 0, start = 0, read = 0;
    uint8_t *window = rx_sys_malloc(RX_FIND_WINDOW);
    int rc = window ? RX_END : rx_fail(RX_E_MEMORY, 0, "for looking through a log");
    end = end < r->until ? end : r->until;
    for (uint64_t at = r->bytes + 8; rc == RX_END && at + sizeof(struct rx_log_frame) <= end; at += 8) {
        struct rx_log_frame frame;
        if (at + sizeof frame > start + have) {
            start = at;
            have = end - at < RX_FIND_WINDOW ? end - at : RX_FIND_WINDOW;
            rc = rx_read_all(r, RX_SEGMENT_HEAD + (at - s->bytes), window, have);
            if (rc)
                break;
            rc = rx_poll_interrupt();
            if (rc)
                break;
            rc = RX_END;
        }
        memcpy(&frame, window + (at - start), sizeof frame);
        if (!rx_frame_plausible(&frame, end - at - sizeof frame) ||
            !wanted(r, &frame, at - r->bytes))
            continue;
        read += frame.shape == RX_FRAME_WITNESS ? sizeof frame : frame.shape >> 24;
        if (read / RX_FIND_OVERLAPS > s->size) {
            rc = rx_fail(RX_E_CORRUPT, 0, "the log is damaged at byte %llu (segment %016llx), and what is behind it cannot be "
                         "told; `rowex salvage` gets out what can be had", (unsigned long long)r->bytes,
                         (unsigned long long)s->id);
            break;
        }
        rc = frame.shape != RX_FRAME_WITNESS ? rx_frame_read(r, at, &frame)
                                             : rx_witness_whole(r, at, &frame) ? RX_OK : RX_END;
        *found = at;
    }
    free(window);
    return rc;
}

static int rx_damaged(const struct rx_reader *r, const char *why, uint64_t id)
{
    const struct rx_segment_head *s = &r->segment[r->at];
    return rx_fail(RX_E_CORRUPT, 0, "the log is damaged at byte %llu (segment %016llx), and %s %016llx shows that what "
                   "stood there had been durable; `rowex salvage` gets out what can be had", (unsigned long long)r->bytes,
                   (unsigned long long)s->id, why, (unsigned long long)id);
}

/*
 * No whole frame at r->bytes.  Torn, unless something that was written after it was durable
 * says so: a segment that begins behind it, a frame or a witness that knew a later durable
 * point; or unless the file's end, or the head of a later one, is gone.
 */
static int rx_reader_judge(struct rx_reader *r)
{
    const struct rx_segment_head *s = &r->segment[r->at];
    uint64_t found;
    for (size_t i = r->at + 1; i < r->count; i++)
        if (r->segment[i].bytes > r->bytes)
            return rx_damaged(r, "its segment", r->segment[i].id);
    if (r->headless > s->id)
        return rx_fail(RX_E_CORRUPT, 0, "the log's segment %016llx is damaged: it has no whole head; `rowex salvage` gets out "
                       "what can be had", (unsigned long long)r->headless);
    if (rx_reader_complete(r))
        return RX_END;
    int rc = rx_frame_find(r, rx_frame_accuses, &found);
    if (rc == RX_OK)
        return rx_damaged(r, "a later frame of the segment", s->id);
    return rc == RX_END && s->size < s->least ? rx_damaged(r, "the head of the segment, which was cut short,", s->id) : rc;
}

int rx_reader_skip(struct rx_reader *r)
{
    uint64_t found;
    size_t next = r->count;
    int rc = rx_frame_find(r, rx_frame_any, &found);
    if (rc == RX_OK) {
        r->bytes = found;
        return RX_OK;
    }
    if (rc != RX_END && rc != RX_E_OS && rc != RX_E_CORRUPT)
        return rc;
    for (size_t i = 0; i < r->count; i++)
        if (r->segment[i].bytes > r->bytes && (next == r->count || r->segment[i].bytes <= r->segment[next].bytes))
            next = i;
    return next == r->count ? RX_END : rx_reader_seek(r, r->segment[next].bytes, r->segment[next].first);
}

int rx_reader_next(struct rx_reader *r, struct rx_piece *piece)
{
    int rc = rx_reader_take(r, piece);
    return rc == RX_END ? rx_reader_judge(r) : rc;
}

int rx_reader_take(struct rx_reader *r, struct rx_piece *piece)
{
    struct rx_log_frame frame;
    int rc = r->bytes >= r->until ? rx_reader_place(r) : RX_OK;
    if (rc == RX_OK)
        rc = rx_frame_read(r, r->bytes, &frame);
    if (rc)
        return rc;
    *piece = (struct rx_piece){r->buffer, frame.shape >> 24, r->number, frame.shape & RX_FRAME_COUNT_MAX};
    r->bytes += sizeof frame + piece->size;
    r->number += piece->count;
    return RX_OK;
}

int rx_piece_entry(struct rx_piece *p, struct rx_logged *e)
{
    uint64_t head;
    if (p->count == 0)
        return RX_END;
    if (p->size < sizeof head)
        return rx_fail(RX_E_CORRUPT, 0, "a frame of the log has fewer entries than it says");
    memcpy(&head, p->payload, sizeof head);
    e->kind = (enum rx_log_kind)(head & 7);
    e->key_len = head >> 3 & ((1u << 21) - 1);
    e->value_len = head >> 24;
    if (e->key_len > p->size - sizeof head || e->value_len > p->size - sizeof head - e->key_len ||
        e->key_len > RX_KEY_MAX)
        return rx_fail(RX_E_CORRUPT, 0, "an entry of the log is longer than its frame");
    e->key = p->payload + sizeof head;
    e->value = e->key + e->key_len;
    p->payload = e->value + e->value_len;
    p->size -= sizeof head + e->key_len + e->value_len;
    p->count--;
    return RX_OK;
}
