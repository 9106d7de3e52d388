/*
 * uid.c -- the table of uids in NAME-lock, and this process's rx_threads.
 *
 * A slot is taken by compare-and-swap of `process` from 0 and is free again when it
 * is 0; `uid` is stored last and cleared first, so that a uid found in its slot is
 * alive or its process is dead.  A process proves to be alive by holding the
 * open-file-description lock on its entry's byte (R7); the slots name the process.
 *
 * rx_threads lie on pages that the kernel wipes in a forked child: a cached pointer
 * then reads db == NULL and nobody works with the parent's slot.
 */
#define _GNU_SOURCE
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>
#include <errno.h>
#include <sched.h>
#include "uid.h"
#include "alloc.h"
#include "epoch.h"
#include "gate.h"
#include "intent.h"
#include "settle.h"
#include "../native/disk.h"
#include "../native/file.h"
#include "../native/guard.h"

/* ---- memory for rx_threads -------------------------------------------------- */

#define RX_POOL_BYTES (64u * 1024u)
static pthread_mutex_t rx_pool_mutex = PTHREAD_MUTEX_INITIALIZER;
/* Taken before a db's mutex: a thread that exits and a db that closes meet here, so that
 * neither touches what the other has freed. */
static pthread_mutex_t rx_detach_mutex = PTHREAD_MUTEX_INITIALIZER;
static struct rx_thread *rx_pool; /* free ones, linked by next_in_thread */
static pthread_once_t rx_thread_once = PTHREAD_ONCE_INIT;
static pthread_key_t rx_thread_key;

static struct rx_thread rx_thread_none; /* db is NULL: never the index asked for */
__thread struct rx_thread *rx_thread_cached __attribute__((tls_model("initial-exec"))) = &rx_thread_none;
static __thread struct rx_thread *rx_thread_list; /* this thread's own, through next_in_thread */

static void rx_thread_exit(void *unused)
{
    (void)unused;
    rx_thread_cached = &rx_thread_none;
    while (rx_thread_list) {
        struct rx_thread *t = rx_thread_list;
        rx_thread_list = t->next_in_thread;
        rx_thread_drop(t);
    }
}

/* The child of a fork has one thread and no uid; the wiped pages are given up. */
static void rx_pool_child(void)
{
    rx_pool = NULL;
    rx_thread_list = NULL;
    rx_thread_cached = &rx_thread_none;
    pthread_mutex_init(&rx_pool_mutex, NULL);
    pthread_mutex_init(&rx_detach_mutex, NULL);
}
static void rx_thread_setup(void)
{
    pthread_key_create(&rx_thread_key, rx_thread_exit);
    pthread_atfork(NULL, NULL, rx_pool_child);
}

static struct rx_thread *rx_pool_get(void)
{
    pthread_once(&rx_thread_once, rx_thread_setup);
    pthread_mutex_lock(&rx_pool_mutex);
    if (rx_pool == NULL) {
        struct rx_thread *page = rx_sys_pages(RX_POOL_BYTES);
        if (page != MAP_FAILED) {
#ifdef MADV_WIPEONFORK
            rx_sys_madvise(page, RX_POOL_BYTES, MADV_WIPEONFORK);
#endif
            for (size_t i = 0; i < RX_POOL_BYTES / sizeof *page; i++) {
                page[i].next_in_thread = rx_pool;
                rx_pool = &page[i];
            }
        }
    }
    struct rx_thread *t = rx_pool;
    if (t)
        rx_pool = t->next_in_thread;
    pthread_mutex_unlock(&rx_pool_mutex);
    if (t)
        memset(t, 0, sizeof *t);
    return t;
}

static void rx_pool_put(struct rx_thread *t)
{
    pthread_mutex_lock(&rx_pool_mutex);
    memset(t, 0, sizeof *t);
    t->next_in_thread = rx_pool;
    rx_pool = t;
    pthread_mutex_unlock(&rx_pool_mutex);
}

/* ---- slots --------------------------------------------------------------------- */

#define RX_SLOT_CHUNK 64u

/* One more chunk of slots gets blocks; RX_E_TABLE_FULL when there are none left. */
static int rx_slots_extend(struct rx_db *db, uint32_t high)
{
    if (high >= RX_SLOTS)
        return RX_E_TABLE_FULL;
    uint64_t from = RX_LOCKFILE_SLOTS + (uint64_t)high * sizeof(struct rx_slot);
    int rc = db->lockless ? RX_OK : rx_lockfile_allocate(db, from, RX_SLOT_CHUNK * sizeof(struct rx_slot));
    if (rc == RX_OK)
        rx_cas32(&db->hdr->slot_high, &high, high + RX_SLOT_CHUNK); /* lost: another did the same */
    return rc;
}

static struct rx_slot *rx_slot_take(struct rx_db *db)
{
    uint32_t high = rx_load32(&db->hdr->slot_high);
    for (uint32_t i = 0; i < high && i < RX_SLOTS; i++) {
        uint32_t nobody = 0;
        if (rx_load32(&db->slots[i].process) == 0 && rx_cas32(&db->slots[i].process, &nobody, db->process + 1))
            return &db->slots[i];
    }
    return NULL;
}

static int rx_slot_get(struct rx_db *db, uint32_t kind, struct rx_slot **out)
{
    struct rx_slot *s;
    bool reaped = false;
    while ((s = rx_slot_take(db)) == NULL) {
        int rc = rx_slots_extend(db, rx_load32(&db->hdr->slot_high));
        if (rc == RX_OK)
            continue;
        if (!reaped && rx_reap_all(db) >= 0) { /* the dead that we meet may hold some */
            reaped = true;
            continue;
        }
        return rc == RX_E_TABLE_FULL
                   ? rx_fail(rc, 0, "%u threads, readers and writers have the index open", RX_SLOTS)
                   : rc;
    }
    rx_store(&s->word, 0);
    rx_store(&s->progress, 0);
    rx_store(&s->seen_word, 0);
    rx_store32(&s->pid, (uint32_t)getpid());
    rx_store32(&s->tid, (uint32_t)syscall(SYS_gettid));
    rx_store32(&s->kind, kind);
    uint64_t serial = rx_fetch_add(&db->hdr->next_serial, 1) & ((1ull << 50) - 1);
    rx_store(&s->uid, (serial ? serial : 1) << RX_SLOT_BITS | (uint64_t)(s - db->slots));
    *out = s;
    return RX_OK;
}

static void rx_slot_free(struct rx_slot *s)
{
    rx_store(&s->word, 0);
    rx_store(&s->uid, 0);
    rx_store32(&s->process, 0);
}

/* ---- rx_threads ------------------------------------------------------------------- */

int rx_thread_new(struct rx_db *db, uint32_t kind, struct rx_thread **out)
{
    struct rx_thread *t = rx_pool_get();
    if (t == NULL)
        return rx_fail(RX_E_MEMORY, errno, "for a thread's state");
    int rc = rx_slot_get(db, kind, &t->slot);
    if (rc) {
        rx_pool_put(t);
        return rc;
    }
    t->uid = rx_load(&t->slot->uid);
    t->kind = kind;
    t->user = kind == RX_S_THREAD ? rx_thread_number() : 0;
    pthread_mutex_lock(&db->mutex);
    t->map = db->map;
    t->base = db->map->base;
    t->next_in_db = db->threads;
    db->threads = t;
    t->db = db;
    t->light = db->light;
    pthread_mutex_unlock(&db->mutex);
    *out = t;
    return RX_OK;
}

int rx_thread_find(struct rx_db *db, struct rx_thread **out)
{
    for (struct rx_thread **at = &rx_thread_list; *at;) {
        struct rx_thread *t = *at;
        if (t->db == NULL) { /* its index was closed: back to the pool */
            *at = t->next_in_thread;
            if (rx_thread_cached == t)
                rx_thread_cached = &rx_thread_none;
            rx_pool_put(t);
            continue;
        }
        if (t->db == db && !__atomic_load_n(&t->busy, __ATOMIC_RELAXED)) {
            rx_thread_cached = t;
            *out = t;
            return RX_OK;
        }
        at = &t->next_in_thread;
    }
    int rc = rx_thread_new(db, RX_S_THREAD, out);
    if (rc)
        return rc;
    pthread_setspecific(rx_thread_key, &rx_thread_none); /* non-NULL: call rx_thread_exit() */
    (*out)->next_in_thread = rx_thread_list;
    rx_thread_list = *out;
    rx_thread_cached = *out;
    return RX_OK;
}

uint32_t rx_thread_number(void)
{
    static uint32_t last;
    static __thread uint32_t number;
    return number ? number : (number = __atomic_add_fetch(&last, 1, __ATOMIC_RELAXED));
}

bool rx_slots_left(struct rx_db *db)
{
    uint32_t high = rx_load32(&db->hdr->slot_high);
    for (uint32_t i = 0; i < high && i < RX_SLOTS; i++)
        if (rx_load32(&db->slots[i].process) == db->process + 1)
            return true;
    return false;
}

bool rx_threads_inside(struct rx_db *db)
{
    bool inside = false;
    uint32_t self = rx_thread_number();
    pthread_mutex_lock(&db->mutex);
    for (struct rx_thread *t = db->threads; t && !inside; t = t->next_in_db)
        inside = __atomic_load_n(&t->busy, __ATOMIC_ACQUIRE) && __atomic_load_n(&t->user, __ATOMIC_RELAXED) == self;
    pthread_mutex_unlock(&db->mutex);
    return inside;
}

/*
 * Out of db's list, slot and arena back. Caller holds db->mutex.
 * A page was lost (sigbus.c): what we see is not what the others see.  So a uid that has an arena is left as by
 * a death, for who finds this process gone, by the real file.
 */
static void rx_thread_detach(struct rx_thread *t)
{
    struct rx_db *db = t->db;
    for (struct rx_thread **at = &db->threads; *at; at = &(*at)->next_in_db)
        if (*at == t) {
            *at = t->next_in_db;
            break;
        }
    if (t->arena)
        rx_arena_release(t);
    if (t->slot && t->arena == NULL)
        rx_slot_free(t->slot);
    __atomic_store_n(&t->db, NULL, __ATOMIC_RELEASE);
}

void rx_thread_drop(struct rx_thread *t)
{
    pthread_mutex_lock(&rx_detach_mutex);
    struct rx_db *db = t->db;
    if (db) {
        pthread_mutex_lock(&db->mutex);
        rx_thread_detach(t);
        pthread_mutex_unlock(&db->mutex);
    }
    pthread_mutex_unlock(&rx_detach_mutex);
    rx_pool_put(t);
}

/* Detaches one that is not busy; false when all that are left are busy, or none is. */
static bool rx_detach_some(struct rx_db *db)
{
    for (struct rx_thread *t = db->threads; t; t = t->next_in_db)
        if (!__atomic_load_n(&t->busy, __ATOMIC_ACQUIRE)) {
            rx_thread_detach(t); /* its memory goes back to the pool when its owner looks */
            return true;
        }
    return false;
}

void rx_threads_drop_all(struct rx_db *db)
{
    /* Every handle is closed: a call that begins now sees that.  The barrier makes busy
     * flags of calls that began before visible (guard.h). */
    (void)rx_barrier(db);
    for (bool left = true; left;) {
        pthread_mutex_lock(&rx_detach_mutex);
        pthread_mutex_lock(&db->mutex);
        while (rx_detach_some(db))
            ;
        left = db->threads != NULL;
        pthread_mutex_unlock(&db->mutex);
        pthread_mutex_unlock(&rx_detach_mutex);
        if (left)
            sched_yield();
    }
}

/* ---- the dead ------------------------------------------------------------------------ */

static void rx_reap_slot(struct rx_db *db, struct rx_map *map, struct rx_slot *s)
{
    uint64_t uid = rx_load(&s->uid);
    uint32_t arenas = rx_load32(&db->hdr->arena_high);
    for (uint32_t i = 0; uid && i < arenas && i < RX_ARENAS; i++) {
        struct rx_arena *a = &db->arenas[i];
        if (rx_load(&a->owner) != uid)
            continue;
        rx_intent_recover(db, map, a, uid);
        rx_batch_decide(db, map, a);
        rx_arena_recover(db, map, a);
        rx_store(&a->owner, 0);
    }
    if (uid && rx_load(&db->hdr->gate) >> 2 == uid)
        rx_gate_recover(db, uid);
    rx_slot_free(s);
}

void rx_reap_process(struct rx_db *db, struct rx_map *map, uint32_t index)
{
    uint32_t high = rx_load32(&db->hdr->slot_high);
    for (uint32_t i = 0; i < high && i < RX_SLOTS; i++)
        if (rx_load32(&db->slots[i].process) == index + 1)
            rx_reap_slot(db, map, &db->slots[i]);
    rx_store(&db->processes[index].token, 0);
    rx_fetch_add(&db->hdr->takeovers, 1);
}

/* Proves and reaps; 1 when the process was dead. Waits only for other provers. */
static int rx_reap_if_dead(struct rx_db *db, uint32_t index)
{
    if (db->lock_fd < 0 || db->readonly || index == db->process) /* read-only: its map cannot be stored to */
        return 0;
    int dead = 0;
    uint32_t pid = rx_load32(&db->processes[index].pid);
    pthread_mutex_lock(&db->probe_mutex);
    if (rx_load(&db->processes[index].token) && rx_probe_begin(db, index) == 1) {
        /* The victim's offsets are of the current generation: so must our map be.  Looked at only
         * now that it is dead: a step to the next waits for the writer that it was, hence cannot
         * pass us while it is unreaped; before the proof it could, and the victim write there. */
        struct rx_map *map = __atomic_load_n(&db->map, __ATOMIC_ACQUIRE);
        if (map->generation != rx_load(&db->hdr->generation) && rx_remap(db) == RX_OK)
            map = __atomic_load_n(&db->map, __ATOMIC_ACQUIRE);
        bool current = map->generation == rx_load(&db->hdr->generation) && !rx_poisoned(map); /* else another must reap it, or we later */
        if (current && rx_load(&db->processes[index].token)) {
            rx_reap_process(db, map, index);
            dead = 1;
        }
        rx_probe_end(db, index);
    }
    pthread_mutex_unlock(&db->probe_mutex);
    if (dead) /* outside the mutex: the listener may need Python's lock */
        rx_event("takeover", pid, index);
    return dead;
}

int rx_reap_all(struct rx_db *db)
{
    int reaped = 0;
    for (uint32_t i = 0; i < RX_PROCESSES; i++)
        if (rx_load(&db->processes[i].token))
            reaped += rx_reap_if_dead(db, i);
    return reaped;
}

bool rx_uid_gone(struct rx_db *db, uint64_t uid)
{
    const struct rx_slot *s = &db->slots[uid & (RX_SLOTS - 1)];
    if (rx_load(&s->uid) != uid)
        return true;
    uint32_t process = rx_load32(&s->process);
    if (process == 0 || process > RX_PROCESSES)
        return rx_load(&s->uid) != uid;
    (void)rx_reap_if_dead(db, process - 1);
    return rx_load(&s->uid) != uid;
}

uint32_t rx_uid_pid(struct rx_db *db, uint64_t uid)
{
    const struct rx_slot *s = &db->slots[uid & (RX_SLOTS - 1)];
    return rx_load(&s->uid) == uid ? rx_load32(&s->pid) : 0;
}
