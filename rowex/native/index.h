/*
 * index.h -- the C API: the one thing that bindings see.  The part between the
 * two markers is what build.py hands to cffi.
 *
 * Every function returns an enum rx_result (errors.h): >= 0 an answer, < 0 an
 * error whose text rx_error_text() gives (per thread).  `t` is NULL for the
 * calling thread's own uid, or one from rx_thread_open().  wait_ns: how long the
 * call may wait for others; 0 = answer RX_WOULD_WAIT instead (nothing changed);
 * < 0 = 50 ms slices are the caller's business: treated as 50 ms.
 */
#ifndef ROWEX_INDEX_H
#define ROWEX_INDEX_H

#include <stddef.h>
#include <stdint.h>

/* <cffi> */
typedef struct rx_index rx_index;
typedef struct rx_thread rx_thread;

struct rx_options {
    const char *path;       /* NULL: memory() */
    int mode;               /* 'c' 'r' 'w' 'n' */
    int durability;         /* enum rx_durability, 0 = as the file says / batch; process in memory */
    int key_codec;          /* enum rx_codec, 0 = as the file says / bytes */
    int value_codec;
    int checksum;           /* -1 = as the file says / on, 0, 1 */
    uint64_t initial_size;  /* bytes of a new file, 0 = 1 MiB */
    uint64_t capacity;      /* bytes, 0 = as the file says / default; a file that is there must have them at least */
    uint64_t max_size;      /* bytes, 0 = none; UINT64_MAX = as the file says */
    int fences;             /* -1 = by itself (DAX), 0, 1: forced, for tests */
    uint32_t umask_mode;    /* permission bits for new files before the umask: 0666 */
    int64_t flush_interval_ns; /* 0 = 10 ms; what is written becomes durable at least so often */
    int replaying;          /* internal: recovery applies a log, and none is written */
};

struct rx_info { /* what rx_index_info() tells; constant for a handle but for the sizes */
    uint64_t generation, capacity, file_size, max_size, session;
    uint8_t uuid[16];
    int durability, key_codec, value_codec, checksum, readonly, lockless, clean, light, fences;
    uint32_t version;
    uint64_t brk, allocated;
};

struct rx_stats {
    uint64_t keys;              /* rx_count() */
    uint64_t nodes[4];          /* Node4, 16, 48, 256 */
    uint64_t leaves;
    uint64_t used_bytes, free_bytes, retired_bytes, unused_bytes, file_size, capacity;
    uint64_t depth[32];         /* leaves by number of nodes above them; the last: 31 and more */
    uint64_t locked_nodes, dead_slots;
    uint64_t generation, epoch;
    uint64_t growths, copies, takeovers, evictions, reclaimed_bytes, reclaimed_cells, scans;
    uint64_t uids;              /* live slots */
};
struct rx_uid_info { uint64_t uid; uint32_t pid, tid; int kind; int inside; uint64_t age_ns; };

struct rx_scan; /* a scan in progress */
typedef struct rx_scan rx_scan;

int rx_open(const struct rx_options *options, rx_index **out);
int rx_close(rx_index *h);        /* idempotent; running calls finish, later ones get RX_E_CLOSED */
void rx_free(rx_index *h);        /* after rx_close(), when no call can come any more */
int rx_is_closed(rx_index *h);

int rx_thread_open(rx_index *h, int kind, rx_thread **out); /* kind: 2 reader, 3 writer */
void rx_thread_close(rx_index *h, rx_thread *t);
uint64_t rx_thread_uid(rx_index *h, rx_thread *t);          /* NULL t: this thread's; 0 on error */

/* Of all changes below: RX_OK gives the *ticket (0 without a log); where nothing was changed it stays as it was. */

/* Value copied to out when *value_len <= capacity, else RX_TOO_SMALL with *value_len. */
int rx_get(rx_index *h, rx_thread *t, const void *key, size_t key_len,
           void *out, size_t capacity, size_t *value_len);
int rx_exists(rx_index *h, rx_thread *t, const void *key, size_t key_len);
int rx_put(rx_index *h, rx_thread *t, const void *key, size_t key_len,
           const void *value, size_t value_len, int64_t wait_ns, uint64_t *ticket);
int rx_insert(rx_index *h, rx_thread *t, const void *key, size_t key_len,
              const void *value, size_t value_len, int64_t wait_ns, uint64_t *ticket); /* RX_PRESENT */
int rx_remove(rx_index *h, rx_thread *t, const void *key, size_t key_len,
              int64_t wait_ns, uint64_t *ticket);                                      /* RX_ABSENT */
/* expected NULL: the key must be absent; value NULL: remove it. RX_MISMATCH. */
int rx_compare_and_set(rx_index *h, rx_thread *t, const void *key, size_t key_len,
                       const void *expected, size_t expected_len,
                       const void *value, size_t value_len, int64_t wait_ns, uint64_t *ticket);
/* Remove and give the value: RX_ABSENT, or RX_TOO_SMALL with nothing changed. */
int rx_take(rx_index *h, rx_thread *t, const void *key, size_t key_len,
            void *out, size_t capacity, size_t *value_len, int64_t wait_ns, uint64_t *ticket);

/*
 * Many at once.  Keys are given as n (pointer, length) pairs.  get: values are packed
 * into out back to back, value_len[i] = length or UINT64_MAX when absent; *done keys were
 * answered (RX_TOO_SMALL: the next value needs *need bytes of room; call again from there).
 * put/remove: *done were applied when it returns; RX_WOULD_WAIT: call again from there.
 */
int rx_get_many(rx_index *h, rx_thread *t, size_t n, const void *const *keys, const size_t *key_len,
                void *out, size_t capacity, uint64_t *value_len, size_t *done, size_t *need);
int rx_put_many(rx_index *h, rx_thread *t, size_t n, const void *const *keys, const size_t *key_len,
                const void *const *values, const size_t *value_len, int64_t wait_ns, size_t *done, uint64_t *ticket);
int rx_remove_many(rx_index *h, rx_thread *t, size_t n, const void *const *keys, const size_t *key_len,
                   int64_t wait_ns, size_t *done, size_t *removed, uint64_t *ticket);

/*
 * Columns: items side by side in memory, which are the bytes of keys or values, or are
 * converted to them and back (column.h).
 */
enum {
    RX_F_FIXED = 1, /* `width` bytes each */
    RX_F_PADDED,    /* the same, zeros at their end left out */
    RX_F_OFFSETS,   /* item i: data[offsets[i]] up to data[offsets[i + 1]] */
    RX_F_SIGNED,    /* integers of `width` bytes: 1, 2, 4 or 8 */
    RX_F_UNSIGNED,
};
struct rx_column {
    int form;
    int plain;       /* integers: stored as 8 bytes, big-endian, none negative; 0: as the int codec does */
    int swapped;     /* integers: in memory with the other byte order */
    size_t width;    /* RX_F_OFFSETS: of an offset, 4 or 8; 8 in what is written */
    void *data;
    void *offsets;
    size_t capacity; /* RX_F_OFFSETS: bytes at data */
};
/*
 * The values of keys [from, upto) into the same places of `values`; found[i] 1 or 0, the
 * value then zeros.  *done: the first that was not answered; RX_E_ITEM: it does not fit;
 * RX_TOO_SMALL (RX_F_OFFSETS): it has no room, *need bytes.
 */
int rx_get_columns(rx_index *h, rx_thread *t, const struct rx_column *keys, const struct rx_column *values,
                   uint8_t *found, size_t from, size_t upto, size_t *done, size_t *need);
/*
 * Puts items [from, upto), in order; of several `parts`, those keys that fall to `part`: equal ones
 * to the same.  *done as above; RX_WOULD_WAIT: call again from there.
 */
int rx_put_columns(rx_index *h, rx_thread *t, const struct rx_column *keys, const struct rx_column *values,
                   size_t from, size_t upto, unsigned part, unsigned parts, int64_t wait_ns, size_t *done,
                   uint64_t *ticket);
/* Can all of [from, upto) be converted?  *ascending: is each greater than the one before it (from > 0: too)? */
int rx_column_check(const struct rx_column *c, size_t from, size_t upto, int *ascending);
/*
 * `items` records of rx_scan_next() at *at become items from `to` on of the columns (NULL: left out).
 * Moves *at and *done on; RX_E_ITEM, RX_TOO_SMALL as above: for item *done.
 */
int rx_columns_unpack(const void *records, size_t items, const struct rx_column *keys,
                      const struct rx_column *values, size_t to, size_t *at, size_t *done);

/*
 * All or nothing, at one instant: n keys, strictly ascending, value NULL: absent afterwards.
 * RX_WOULD_WAIT, or an error: nothing was changed.
 */
int rx_batch_apply(rx_index *h, rx_thread *t, size_t n, const void *const *keys, const size_t *key_len,
                   const void *const *values, const size_t *value_len, int64_t wait_ns, uint64_t *ticket);

/* start <= key < stop, in either direction; NULL start / stop: open; limit < 0: none. */
int rx_scan_open(rx_index *h, const void *start, size_t start_len, const void *stop, size_t stop_len,
                 int reverse, int64_t limit, rx_scan **out);
/*
 * The next items, as records {u32 key_len, u32 zero, u64 value_len, key, value, 0..7 bytes of pad to 8}
 * packed into buffer; *items of them.  RX_END when the scan is over (items 0), RX_TOO_SMALL
 * with *need when not even one item fits.  One batch = one epoch.  values 0: value_len is told, bytes left out.
 */
int rx_scan_next(rx_index *h, rx_thread *t, rx_scan *scan, void *buffer, size_t capacity,
                 size_t max_items, int values, size_t *items, size_t *need);
void rx_scan_close(rx_scan *scan);
/* The n-th edge: which: 0 first, 1 last, 2 floor (<= key), 3 ceiling (>= key). One record as above. RX_ABSENT. */
int rx_edge(rx_index *h, rx_thread *t, int which, const void *key, size_t key_len,
            void *buffer, size_t capacity, size_t *need);

int rx_count(rx_index *h, uint64_t *count);

/*
 * Durability (files with a log; RX_E_DURABILITY without).  A ticket is incarnation << 44 |
 * entries so far; `position` is that of the last change that anybody made, `durable` that
 * of the last which survives the loss of power.
 */
struct rx_log_info {
    uint64_t position, durable, incarnation;
    uint64_t log_bytes;        /* written since the last checkpoint */
    uint64_t backlog_entries;  /* not yet durable */
    int failed;                /* errno after which nothing more becomes durable; 0 none */
};
int rx_log_status(rx_index *h, struct rx_log_info *out);
int rx_wait_durable(rx_index *h, rx_thread *t, uint64_t ticket, int64_t wait_ns);
/*
 * A descriptor instead of a waiting thread.  ask: never waits; RX_OK: durable.  RX_WOULD_WAIT: the
 * descriptor becomes readable when it is, or will not be; *round is for what look tells.  Others as
 * rx_wait_durable().  look: makes it unreadable; *durable is the ticket up to which all is, and an
 * error is that of the questions up to round *failed (0: none failed).  Close it before the index.
 */
struct rx_watch;
typedef struct rx_watch rx_watch;
int rx_watch_open(rx_index *h, rx_watch **out);
int rx_watch_fd(rx_watch *w);
int rx_watch_ask(rx_watch *w, uint64_t ticket, uint64_t *round);
int rx_watch_look(rx_watch *w, uint64_t *durable, uint64_t *failed);
int rx_watch_late(rx_watch *w); /* RX_E_TIMEOUT, with who holds it up */
void rx_watch_close(rx_watch *w);
/* RX_OK, or RX_WOULD_WAIT without doing anything for it; errors as rx_wait_durable(). */
int rx_is_durable(rx_index *h, uint64_t ticket);
/* Holds nobody; wait_ns < 0: for the log as long as it takes.  RX_E_BUSY while another is made. */
int rx_checkpoint(rx_index *h, int64_t wait_ns);
int rx_index_info(rx_index *h, struct rx_info *info);
int rx_index_stats(rx_index *h, struct rx_stats *stats);                 /* walks the tree weakly */
int rx_index_uids(rx_index *h, struct rx_uid_info *out, size_t capacity, size_t *n);
int rx_compact(rx_index *h, int64_t wait_ns);
/* Behind the gate where the handle may write; each fault to `fault`; *faults counts them. RX_OK even with faults. */
int rx_check(rx_index *h, int64_t wait_ns, void (*fault)(void *ctx, uint64_t offset, const char *text),
             void *ctx, uint64_t *faults);
/* One node as JSON-free text lines, for `inspect`: offset 0 = the root; or by key path. */
struct rx_node_info {
    uint64_t offset, lock, term; int kind; uint32_t level, prefix_len; int slots, given, live;
    uint8_t prefix[256]; int children; uint8_t child_byte[256]; uint64_t child_ref[256];
};
int rx_inspect(rx_index *h, uint64_t offset, struct rx_node_info *out);
int rx_inspect_path(rx_index *h, const void *key, size_t key_len, uint64_t *offsets, size_t capacity, size_t *n);

int rx_destroy(const char *path);                       /* NAME and sidecars; RX_E_BUSY while somebody has it open */
int rx_rename(const char *from, const char *to);        /* likewise */
/*
 * A new index at options->path, where nothing may be, from items in key order.  add: RX_MISMATCH
 * at *done: that key is not greater than the one before it; the others may still be finished.
 * Until finish has returned RX_OK there is no such file.  One thread at a time; close frees.
 */
struct rx_building;
typedef struct rx_building rx_building;
int rx_building_open(const struct rx_options *options, rx_building **out);
int rx_building_add(rx_building *b, const struct rx_column *keys, const struct rx_column *values, size_t from,
                    size_t upto, size_t *done);
int rx_building_finish(rx_building *b);
void rx_building_close(rx_building *b);
int rx_copy_file(const char *from, const struct rx_options *to); /* dense copy under a new uuid; from may be in use */
/*
 * A copy under a uuid of its own that holds what the index held at one instant, while others
 * change it; nothing may be at to->path.  *ticket: of the last change in it (0 without a log).
 */
int rx_backup(rx_index *h, const struct rx_options *to, uint64_t *ticket);

/*
 * What can be had of an index that is refused, into a fresh one at to->path; `from` and its
 * sidecars are only read.  Each loss to `fault`, offset within the file or the log's stream.
 * With `all`, also values that nothing leads to, which may be old or removed.
 */
enum { RX_SALVAGED_UNNEEDED, RX_SALVAGED_MISSING, RX_SALVAGED_WHOLE, RX_SALVAGED_DOUBTFUL, RX_SALVAGED_DAMAGED };
struct rx_salvaged_file { int state; uint64_t leaves, lost; }; /* sound leaves; references to what is not */
struct rx_salvaged {
    uint64_t done, total;    /* bytes, while it runs: about how far it is */
    uint64_t keys;           /* in the target */
    struct rx_salvaged_file name, checkpoint;
    int log;                 /* state */
    uint64_t entries, gaps, gap_bytes; /* replayed; places where something is lost, and how much is known of that */
    uint64_t orphans;        /* keys of sound leaves that nothing leads to, and that were not there: taken with `all` */
    int options_known;       /* 0: nothing tells the codecs */
};
int rx_salvage(const char *from, const struct rx_options *to, int all,
               void (*fault)(void *ctx, uint64_t offset, const char *text), void *ctx, struct rx_salvaged *told);

/* What opening `path` would do and why; changes nothing, reads all of checkpoint and log. */
enum { RX_X_REFUSE, RX_X_USE, RX_X_JOIN, RX_X_SCAN, RX_X_RECOVER };
struct rx_explained {
    int verdict;             /* of the list above */
    int state;               /* 0 unreadable, 1 clean, 2 in use on this boot, 3 on another, 4 a copy of one in use */
    int open_now;            /* somebody uses it */
    int durability;
    uint64_t generation, session, file_bytes, keys;
    uint8_t uuid[16];
    uint64_t position;       /* clean: the ticket with which it ends */
    int ring;                /* in use on this boot: 1, NAME-lock tells how the log went on; 0, lost */
    uint64_t ring_entries;   /* in it and not yet in the log */
    int checkpoint;          /* 0 none, 1 whole, 2 damaged */
    uint64_t checkpoint_ticket, checkpoint_keys;
    int log;                 /* 0 none, 1 there */
    int begins;              /* 1: it holds all from the checkpoint on (else: from the beginning) */
    uint64_t segments, log_from, log_upto, entries; /* tickets; entries that are to be replayed */
    uint64_t log_bytes;      /* of frames, from there to the end */
    int end;                 /* 0 nothing behind it, 1 a torn tail, 2 damage */
    uint64_t damaged_byte, damaged_segment, lost_from, lost_upto, entries_behind; /* tickets at least; behind the damage */
    char why[512];           /* refused: the reason; of the checkpoint, if that is damaged */
};
int rx_explain(const char *path, struct rx_explained *out);
/* Of the last rx_open() of this thread that recovered an index; zeros, then and until the next. */
void rx_last_recovery(uint64_t *from, uint64_t *upto, uint64_t *entries);

const char *rx_error_text(void);    /* of this thread's last error */
int rx_error_errno(void);
uint64_t rx_error_offset(void);     /* RX_E_CORRUPT: where; else 0 */
const char *rx_result_name(int code);
const char *rx_result_hint(int code);
void rx_set_interrupt(int (*check)(void)); /* called about every 20 ms by long loops; non-zero stops them */
/* Events worth telling (growth, takeover, scan, eviction, copy): called outside locks and epochs. */
void rx_set_event(void (*event)(const char *name, uint64_t a, uint64_t b));
const void *rx_hot_api(void);       /* table of function addresses for hot.c, see hot_api.h */
const char *rx_build_info(void);
/* </cffi> */

#endif
