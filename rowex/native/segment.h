/*
 * segment.h -- NAME-log: the log's stream of bytes, in segments.
 *
 * A segment says where in the stream it begins.  What the stream holds at some byte is in
 * the segment with the highest id among those that begin at or before it: so a leader that
 * takes over, and a recovery, go on in a fresh segment that begins at what was durable,
 * and whatever an older segment holds beyond that is void, whenever it was written.
 * An id is term << 32 | number; numbers are given once, a taker-over raises the term.
 *
 * What was durable and is not whole any more is damage, never a torn tail.  That it was is known
 * from whatever was written after the sync: a later segment, a later frame (its `durable`), or the
 * witness, which stands behind the last frame of each sync until the next one takes its place.
 */
#ifndef ROWEX_SEGMENT_H
#define ROWEX_SEGMENT_H

#include "core.h"

/* least: when made, what is at hand must hold; when read, what the head says, and size no more than the file has */
struct rx_segment_head { uint64_t id, incarnation, bytes, first, size, least; };
struct rx_segment_file { /* one that is being written */
    int fd;
    uint64_t id, bytes, size;
};

/* NAME-log, made if it is missing and `create`; RX_ABSENT. */
int rx_log_folder(struct rx_db *db, bool create, int *dir_fd);
/*
 * Creates and syncs a segment, folder included; blocks for `size` bytes, written with zeros
 * when `settle` (then later syncs need no journal).  RX_E_FULL: none was made.
 */
int rx_segment_create(struct rx_db *db, int dir_fd, const struct rx_segment_head *what, bool settle,
                      struct rx_segment_file *out);
/*
 * The spare: blocks for at least `size` bytes, which become the next segment when the disk is
 * full.  RX_OK, RX_E_FULL, RX_E_OS.
 */
int rx_spare_ensure(struct rx_db *db, int dir_fd, uint64_t size);
uint64_t rx_spare_size(int dir_fd); /* as it is, 0 without one */
/* Opens the segment `id` for writing. */
int rx_segment_open(struct rx_db *db, int dir_fd, uint64_t id, struct rx_segment_file *out);
void rx_segment_shut(struct rx_segment_file *s);
int rx_segment_write(const struct rx_segment_file *s, uint64_t bytes, const void *data, uint64_t size);
int rx_segment_sync(const struct rx_segment_file *s);
void rx_segment_remove(int dir_fd, uint64_t id);

/* ---- reading ------------------------------------------------------------------------- */
struct rx_reader {
    int dir_fd, fd;
    uint8_t uuid[16];
    bool any;  /* whose the segments are is asked, not told */
    bool tidy; /* what has no head and holds nothing is removed */
    struct rx_segment_head *segment; /* by id */
    size_t count, at;                /* `at`: the one being read */
    uint64_t bytes, number;          /* of the next frame and its first entry */
    uint64_t until;                  /* where a later segment takes over */
    uint64_t headless;               /* the highest id of a file that holds something, but no whole head; 0 none */
    uint32_t term, drawn;            /* the highest in the name of any file, whosever and whatever it is */
    uint8_t *buffer;
    uint64_t capacity;
};
/* The index that the folder's segments belong to, where nothing else tells.  RX_OK, RX_ABSENT. */
int rx_reader_uuid(struct rx_db *db, uint8_t uuid[16]);
struct rx_piece { const uint8_t *payload; uint64_t size, first, count; };

/* Every segment of this index whose head is whole.  RX_ABSENT: there is no folder; RX_E_FORMAT: of another version. */
int rx_reader_open(struct rx_db *db, struct rx_reader *r);
void rx_reader_close(struct rx_reader *r);
/*
 * Who recovers, or begins a log, goes beyond all that has a name: what was left in the making, or
 * is of another index that was replaced and whose processes sleep, is in nobody's way.
 */
static inline uint64_t rx_reader_beyond(const struct rx_reader *r)
{
    return ((uint64_t)r->term + 1) << 32 | (r->drawn + 1);
}
/* Removes what makers left that died before their segment had a head.  Nobody makes one. */
void rx_log_tidy(struct rx_db *db);
/* The next frame will be the one at `bytes`, whose first entry has `number`. RX_ABSENT: no segment has it. */
int rx_reader_seek(struct rx_reader *r, uint64_t bytes, uint64_t number);
/*
 * RX_OK with *piece, valid until the next call; RX_END at the end of what is whole;
 * RX_E_CORRUPT when something after that was durable, so that this is no torn tail.
 */
int rx_reader_next(struct rx_reader *r, struct rx_piece *piece);
/* The same without asking whether what is not whole was durable: RX_OK, RX_END. */
int rx_reader_take(struct rx_reader *r, struct rx_piece *piece);
/* Does a whole frame stand there?  RX_OK, RX_END: whatever the reason. */
int rx_reader_peek(struct rx_reader *r);
/* After RX_END: does a witness stand there, so that nothing is missing? */
bool rx_reader_complete(const struct rx_reader *r);
/* The same where r->number is not known: nothing stands there, or any witness does. */
bool rx_reader_blank(const struct rx_reader *r);
/*
 * After RX_E_CORRUPT: on to the next whole frame (of which r->number is only right when it
 * begins a segment).  RX_OK, RX_END.
 */
int rx_reader_skip(struct rx_reader *r);
/* One entry of a piece's payload; RX_END after the last, RX_E_CORRUPT. */
struct rx_logged { enum rx_log_kind kind; const uint8_t *key, *value; uint64_t key_len, value_len; };
int rx_piece_entry(struct rx_piece *piece, struct rx_logged *entry);

static inline uint64_t rx_logged_head(enum rx_log_kind kind, uint64_t key_len, uint64_t value_len)
{
    return (uint64_t)kind | key_len << 3 | value_len << 24;
}
#define RX_FRAME_COUNT_MAX ((1u << 24) - 1)
uint64_t rx_frame_shape(uint64_t count, uint64_t size);
/* What a frame's checksum begins with: where and in what log it stands (R13). */
uint32_t rx_frame_seed(const uint8_t uuid[16], uint64_t incarnation, uint64_t bytes);
void rx_segment_name(uint64_t id, char name[24]);

#endif
