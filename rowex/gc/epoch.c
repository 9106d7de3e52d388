/*
 * epoch.c -- the slow ends of publishing; barriers; who is still inside; eviction.
 */
#define _GNU_SOURCE
#include <sched.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>
#ifdef __linux__
#include <linux/membarrier.h>
#endif
#include "epoch.h"
#include "uid.h"
#include "../native/file.h"

int rx_remap_thread(struct rx_thread *t)
{
    struct rx_db *db = t->db;
    for (;;) {
        uint64_t generation = rx_load(&db->hdr->generation);
        struct rx_map *map = __atomic_load_n(&db->map, __ATOMIC_ACQUIRE);
        if (map->generation != generation) {
            int rc = rx_remap(db);
            if (rc)
                return rc;
            continue;
        }
        /* Under the mutex, so that rx_unmap_old() sees either the old map in t or not at all. */
        pthread_mutex_lock(&db->mutex);
        map = db->map;
        t->map = map;
        t->base = map->base;
        rx_unmap_old(db);
        pthread_mutex_unlock(&db->mutex);
        if (map->generation == rx_load(&db->hdr->generation))
            return RX_OK;
    }
}

int rx_enter_changed(struct rx_thread *t)
{
    for (;;) {
        rx_retract(t);
        int rc = rx_remap_thread(t);
        if (rc)
            return rc;
        rx_publish(t, 0);
        if (rx_load(&t->db->hdr->generation) == t->map->generation)
            return RX_OK;
    }
}

int rx_leave_changed(struct rx_thread *t)
{
    bool evicted = rx_load(&t->slot->word) != t->word;
    rx_retract(t);
    if (rx_poisoned(t->map))
        return rx_fail(RX_E_IO, 0, "while reading %s", t->db->path ? t->db->path : "memory");
    if (evicted)
        return RX_I_EVICTED;
    return t->db->lockless ? rx_lockless_check(t->db) : RX_OK;
}

/* Does a living process rely on others' membarrier?  (A dead one does no harm: it reads nothing.) */
static bool rx_somebody_relies(struct rx_db *db)
{
    for (uint32_t i = 0; i < RX_PROCESSES; i++)
        if (rx_load(&db->processes[i].token) && (rx_load32(&db->processes[i].flags) & RX_P_MEMBARRIER))
            return true;
    return false;
}

int rx_barrier(struct rx_db *db)
{
    rx_full_fence();
#ifdef __linux__
    if (db->light) {
        if (syscall(__NR_membarrier, MEMBARRIER_CMD_GLOBAL_EXPEDITED, 0, 0) == 0)
            return RX_OK;
        return RX_E_UNSUPPORTED;
    }
#endif
    return rx_somebody_relies(db) ? RX_E_UNSUPPORTED : RX_OK;
}

static inline uint64_t rx_word_epoch(uint64_t word) { return (word & ~RX_EVICTED) >> RX_WORD_EPOCH_SHIFT; }
static inline bool rx_word_inside(uint64_t word) { return word != 0 && !(word & RX_EVICTED); }

uint64_t rx_min_epoch(struct rx_db *db)
{
    uint64_t least = UINT64_MAX;
    uint32_t high = rx_load32(&db->hdr->slot_high);
    for (uint32_t i = 0; i < high && i < RX_SLOTS; i++) {
        uint64_t word = rx_load(&db->slots[i].word);
        if (rx_word_inside(word) && rx_word_epoch(word) < least)
            least = rx_word_epoch(word);
    }
    return least;
}

/* Has this word (and progress) stood still for RX_EVICT_NS?  Notes what it sees otherwise. */
static bool rx_stands_still(struct rx_slot *s, uint64_t word)
{
    uint64_t progress = rx_load(&s->progress), now = (uint64_t)rx_now_ns();
    if (rx_load(&s->seen_word) == word && rx_load(&s->seen_progress) == progress)
        return now - rx_load(&s->seen_ns) >= (uint64_t)RX_EVICT_NS;
    rx_store(&s->seen_ns, now); /* observers may mix: at worst somebody is evicted early and restarts */
    rx_store(&s->seen_progress, progress);
    rx_store(&s->seen_word, word);
    return false;
}

void rx_unpin(struct rx_db *db, uint64_t stamp)
{
    bool evicted = false;
    uint32_t high = rx_load32(&db->hdr->slot_high);
    for (uint32_t i = 0; i < high && i < RX_SLOTS; i++) {
        struct rx_slot *s = &db->slots[i];
        uint64_t word = rx_load(&s->word);
        if (!rx_word_inside(word) || rx_word_epoch(word) >= stamp)
            continue;
        uint64_t uid = rx_load(&s->uid);
        if (!rx_stands_still(s, word) || rx_uid_gone(db, uid) || (word & RX_WORD_WRITER))
            continue;
        /* R9: the reader rechecks its word before it returns anything; the barrier comes
         * between this and any reuse, so it cannot miss it. */
        if (rx_barrier(db) == RX_OK && rx_cas(&s->word, &word, RX_EVICTED)) {
            evicted = true;
            rx_fetch_add(&db->hdr->evictions, 1);
            rx_event("eviction", uid, rx_uid_pid(db, uid));
        }
    }
    if (evicted)
        (void)rx_barrier(db);
}

/* The first slot but self's that publishes a writer's word; NULL when there is none. */
static struct rx_slot *rx_some_writer(const struct rx_thread *self)
{
    uint32_t high = rx_load32(&self->db->hdr->slot_high);
    for (uint32_t i = 0; i < high && i < RX_SLOTS; i++) {
        struct rx_slot *s = &self->db->slots[i];
        uint64_t word = rx_load(&s->word);
        if (s != self->slot && rx_word_inside(word) && (word & RX_WORD_WRITER))
            return s;
    }
    return NULL;
}

int rx_drain_writers(struct rx_thread *self, int64_t deadline_ns)
{
    for (unsigned tries = 0;; tries++) {
        struct rx_slot *s = rx_some_writer(self);
        if (s == NULL)
            return RX_OK;
        self->waited_uid = rx_load(&s->uid);
        if (tries > 32 && (tries & 15) == 0 && self->waited_uid && rx_uid_gone(self->db, self->waited_uid))
            continue;
        if (tries < 32) {
            sched_yield();
            continue;
        }
        if (rx_now_ns() >= deadline_ns)
            return rx_fail(RX_WOULD_WAIT, 0, "uid %llu of process %u is inside an operation",
                           (unsigned long long)self->waited_uid, rx_uid_pid(self->db, self->waited_uid));
        int rc = rx_poll_interrupt();
        if (rc)
            return rc;
        nanosleep(&(struct timespec){0, 200000}, NULL);
    }
}
