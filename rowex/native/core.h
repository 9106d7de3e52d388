/*
 * core.h -- the process-local structures: nothing here is stored in a file.
 *
 *   rx_db      one open index in this process (registry by device and inode);
 *              all handles on it share it
 *   rx_map     one generation of its data file, mapped
 *   rx_thread  one uid: a thread's, or an explicit reader()'s or writer()'s
 *   rx_index   one handle (index.h)
 */
#ifndef ROWEX_CORE_H
#define ROWEX_CORE_H

#include <pthread.h>
#include "allocate.h"
#include "errors.h"
#include "format.h"
#include "persist.h"

struct rx_map {
    uint8_t *base;       /* capacity bytes of address space, mapped past the end of the file */
    uint64_t capacity;
    uint64_t size;       /* of the file as fstat() last said; grows; atomic */
    uint64_t generation;
    int fd;              /* data file; holds the shared users lock of this description */
    uint32_t poison;     /* 1: a page faulted (SIGBUS); everything on this map fails; atomic */
    bool fences;         /* durability="pmem" on DAX, or forced */
    bool readonly;       /* mapped PROT_READ */
    bool checksum;
    bool unmapped;       /* base was given back, the struct stays until the db goes */
    struct rx_map *older;
};

struct rx_db {
    struct rx_map *map;  /* current generation; replaced under mutex; atomic */
    struct rx_lockhdr *hdr;
    struct rx_process *processes;
    struct rx_slot *slots;
    struct rx_arena *arenas;
    struct rx_log_entry *ring;
    uint8_t *lock_base;  /* RX_LOCKFILE_SIZE bytes */
    int lock_fd;         /* holds the users lock and this process's entry lock; -1 lockless */
    int probe_fd;        /* second description on NAME-lock: only for proving deaths (R7) */
    int memory_fd[2];    /* memory(): data and lock, inherited by children; else -1 */
    int dir_fd;          /* the folder; -1 for memory() */
    char *name;          /* file name inside dir_fd */
    char *path;          /* as resolved, for messages */
    uint32_t process;    /* index of our entry */
    bool readonly;       /* every handle is "r" and the data file is mapped read-only */
    bool lockless;       /* read-only medium: hdr and slots are private memory */
    bool memory;         /* memory(): anonymous, never copied or renamed */
    bool light;          /* membarrier works: our readers need no fence */
    bool broken_fork;    /* inherited through fork: must be reopened, never used */
    uint64_t dev, ino;   /* key in the registry: of the CURRENT generation */
    uint8_t uuid[16];
    uint8_t boot_id[16];
    uint64_t scan_reclaimed; /* 1 + cells that the startup scan brought back; 0: there was none */
    uint64_t session_seen; /* lockless: the superblock's session at open */
    uint32_t durability, key_codec, value_codec;
    bool marking;        /* under RX_TURN_MARKING: its holder is at it */
    bool logged;         /* durability is batch or commit: each change has an entry in the log */
    struct rx_logger *logger; /* what this process needs to write the log (flush.c); NULL without one */
    uint64_t max_size;
    int handles;         /* under the registry's mutex */
    pthread_mutex_t mutex;       /* threads list, map switches, first write */
    pthread_mutex_t probe_mutex; /* held while a death is proved and reaped */
    struct rx_thread *threads;   /* every rx_thread of this db */
    struct rx_db *next;
};

/* Lies on pages that are wiped at fork: db reads NULL in the child. */
struct rx_thread {
    struct rx_db *db;
    struct rx_slot *slot;
    struct rx_arena *arena; /* NULL until the first write */
    struct rx_map *map;     /* of the operation in progress */
    uint8_t *base;          /* map->base */
    uint64_t uid;
    uint64_t word;          /* what we published */
    uint64_t seq;
    bool light;             /* db->light: also when db is gone already */
    uint32_t busy;          /* not 0 inside a call; close and unmap look at it; atomic */
    uint32_t user;          /* the thread that is or was last inside: rx_thread_number(); atomic */
    uint32_t kind;          /* enum rx_slot_kind */
    int64_t deadline_ns;    /* CLOCK_MONOTONIC; 0 = do not wait at all */
    int reserved_count;     /* cells in arena->reserved[RX_RSV_OP..] */
    uint64_t grow_need;     /* bytes that rx_reserve() could not find, for rx_grow() */
    uint64_t waited_uid;    /* whom we last waited for, for messages */
    uint64_t log_number;    /* of our last log entry */
    unsigned near;          /* of our last changes in one epoch: how many were at the node of the one before */
    bool quiet;             /* steps of a batch: commits count, log and retire nothing of their keys */
    uint64_t progress;      /* of our batches, one after the other: with our uid it tells each state of each apart */
    uint64_t met_state, met_progress; /* of the batch that we wait for */
    int64_t met_ns;                   /* since when it stands still */
    struct rx_thread *next_in_db;
    struct rx_thread *next_in_thread;
};

struct rx_index {
    struct rx_db *db;
    uint32_t closed;   /* atomic */
    uint32_t entering; /* calls between their look at closed and their busy flag; atomic */
    bool readonly;
    struct rx_options *options; /* deep copy, for reopening after fork */
};

/* ---- errors: the last one of this thread ---------------------------------- */
/* Records code, errno and a formatted text, returns code. */
int rx_fail(int code, int os_errno, const char *format, ...) __attribute__((format(printf, 3, 4)));
/* What another thread failed with, word for word; returns code. */
int rx_fail_again(int code, int os_errno, const char *text);
void rx_error_keep(char *to, size_t room); /* the text of this thread's last error, or as much of it as fits */
/* Adds which file it was to the last error's text; returns code. */
int rx_fail_in(int code, const char *path);
/* A damaged structure at `offset`; returns RX_E_CORRUPT. */
int rx_corrupt(uint64_t offset, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* What fails is never RX_OK: said where it is called, for analyzers, which do not look into other files. */
static inline int rx_failed(int code) { return code ? code : RX_E_ARGUMENT; }
#define rx_fail(...) rx_failed(rx_fail(__VA_ARGS__))
#define rx_fail_again(...) rx_failed(rx_fail_again(__VA_ARGS__))
#define rx_fail_in(...) rx_failed(rx_fail_in(__VA_ARGS__))
#define rx_corrupt(...) rx_failed(rx_corrupt(__VA_ARGS__))

/* ---- time and interruption ------------------------------------------------- */
int64_t rx_now_ns(void); /* CLOCK_MONOTONIC */
/* Long loops call this now and then: RX_OK, or RX_E_INTERRUPTED (Ctrl-C). Cheap. */
int rx_poll_interrupt(void);

void rx_forked(void); /* in the child of a fork (fork.c) */

/* This thread is the core's own: no Python runs in it, and *stop interrupts it. */
void rx_own_thread(const uint32_t *stop);

/* Tells one of the few events worth telling; outside epochs and the process's mutexes. */
void rx_event(const char *name, uint64_t a, uint64_t b);
/*
 * In between this thread's events are kept, and told at the outermost release: it holds what its
 * listener, who may write, sync or open, would wait for (a turn, the gate, the log's leadership).
 */
void rx_events_hold(void);
void rx_events_release(void);

/* A page of the map could not be read or written. */
static inline bool rx_poisoned(const struct rx_map *map)
{
    rx_compiler_barrier(); /* what was read or stored until here has faulted by now */
    return RX_UNLIKELY(rx_load32(&map->poison));
}

/* The levels with a log (design, R12). */
static inline bool rx_level_logged(uint32_t durability)
{
    return durability == RX_D_BATCH || durability == RX_D_COMMIT;
}

static inline struct rx_super *rx_super_of(const struct rx_map *map)
{
    return (struct rx_super *)(void *)map->base;
}

/*
 * Bounds: the only judge of offsets read from the file.  True when
 * [off, off + size) lies in the heap (or is the root) and in the file as the
 * system reports it; asks fstat() once when the file may have grown.
 */
bool rx_in_file_slow(struct rx_map *map, uint64_t off, uint64_t size);
static inline bool rx_in_file(struct rx_map *map, uint64_t off, uint64_t size)
{
#ifdef ROWEX_CANARY_NO_BOUNDS /* a broken build on purpose: fuzz/fuzz_bytes.c and fuzz/fuzz_open.py must notice */
    return true;
#endif
    uint64_t have = __atomic_load_n(&map->size, __ATOMIC_RELAXED); /* stale: smaller, then the slow path asks */
    if (RX_LIKELY(off >= RX_HEAP && off <= have && size <= have - off))
        return true;
    return rx_in_file_slow(map, off, size);
}
/*
 * The same for many cells by one comparison: an offset less than this far behind RX_HEAP is that of a cell of up
 * to RX_ROOMY bytes that lies in the file.  Of others rx_in_file() is to be asked.
 */
#define RX_ROOMY RX_N256_PREFIX
_Static_assert(RX_ROOMY >= RX_SMALL_MAX, "a small leaf fits, too");
static inline uint64_t rx_room(const struct rx_map *map)
{
    uint64_t have = __atomic_load_n(&map->size, __ATOMIC_RELAXED);
    return RX_LIKELY(have >= RX_HEAP + RX_ROOMY) ? have - (RX_HEAP + RX_ROOMY) + 1 : 0;
}

/* CRC-32C (Castagnoli), hardware where there is any; crc.c */
uint32_t rx_crc32c(uint32_t seed, const void *data, size_t size);
/* Of the two lengths, as words, then key and value, which lie behind each other: a leaf's. */
uint32_t rx_crc32c_item(uint64_t key_len, uint64_t value_len, const void *bytes);

#endif
