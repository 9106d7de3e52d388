/*
 * frames.h -- the leader's work: decided entries become frames in the leader's segment.
 */
#ifndef ROWEX_FRAMES_H
#define ROWEX_FRAMES_H

#include "core.h"
#include "log.h"
#include "segment.h"

#define RX_FRAME_BYTES (2u << 20) /* the longest key and a value that is copied fit in */
struct rx_logger { /* of this process */
    pthread_mutex_t mutex; /* the fields up to the blank line: of whoever writes */
    int dir_fd;
    struct rx_segment_file segment;
    uint8_t *buffer; /* RX_FRAME_BYTES */

    pthread_t flusher;
    struct rx_thread *thread; /* the flusher's uid, taken when it first has something to do */
    uint32_t stop;            /* futex */
    bool running;
    int64_t interval_ns; /* the shortest that a handle asked for, 0: none did; atomic */
    uint32_t ready;      /* joined; atomic */
    pthread_mutex_t checkpoint; /* of whoever makes one */
    pthread_t checkpointer;
    uint32_t checkpointing; /* 0 idle, 1 running, 2 ended and to be joined; atomic */
    int64_t checkpoint_after_ns; /* not before: the last one failed */
    int64_t closing_left_ns; /* of the time that the last close of a handle may wait; atomic */
};

struct rx_lead { /* one leader's turn */
    uint64_t word;       /* hdr->log_durable as we know it, naming our slot */
    uint64_t number;     /* the next entry to be written */
    struct rx_log_at at; /* and where it goes */
    bool fresh;          /* we deposed another: into a segment of our own, under a new term */
    bool wrote;          /* the durable point rose */
    uint64_t credit;     /* of what was written and not yet synced, as hdr->log_backlog counts it */
};

bool rx_logger_try(struct rx_db *db); /* false: another thread of ours writes; joined before */
void rx_logger_unlock(struct rx_db *db);

/*
 * Everything that is decided, up to the tail as it is now, becomes durable.  RX_OK (maybe
 * nothing was decided); RX_I_RESTART: deposed; RX_E_FULL, RX_E_OS, RX_E_IO, RX_E_CORRUPT.
 */
int rx_frames_write(struct rx_thread *t, struct rx_lead *lead);

/* How long a leader may stand still, at first. */
#ifdef ROWEX_CRASHPOINTS
#define RX_LEAD_STILL_NS 100000000ll /* many leaders are stopped there */
#else
#define RX_LEAD_STILL_NS 2000000000ll
#endif

/* flush.c, for frames.c */
bool rx_log_advance(struct rx_thread *t, uint64_t *word, uint64_t number, const struct rx_log_at *at);
bool rx_log_lead_is(const struct rx_thread *t);
/* checkpoint.c */
void rx_checkpoint_if_due(struct rx_thread *t);
void rx_checkpointer_join(struct rx_db *db);
uint64_t rx_segment_bytes(const struct rx_db *db, uint64_t frame);
/* What a put adds to hdr->log_backlog beside its key and value: entry, frame and pad, at most. */
#define RX_LOG_ENTRY_EXTRA 64u
/*
 * Blocks for a spare segment: a quarter of the data for removals, and what puts may add before
 * it is durable, at least `put` bytes; both small on a disk that is nearly full.  hdr->log_allowed
 * tells.  RX_OK; else there is nothing for puts, and why.
 */
int rx_log_reserve(struct rx_db *db, uint64_t put);

#endif
