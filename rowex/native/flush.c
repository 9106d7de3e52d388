/*
 * flush.c -- leading, waiting, and the flusher.  See flush.h.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <linux/futex.h>
#include <limits.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>
#include "flush.h"
#include "frames.h"
#include "index.h"
#include "../gc/alloc.h"
#include "../gc/epoch.h"
#include "../gc/gate.h"
#include "../gc/uid.h"

#define RX_LEAD_DOUBLINGS 6u /* of that */
#define RX_WAIT_SLICE_NS 20000000l
#define RX_INTERVAL_NS 10000000ll
#define RX_UNDECIDED_SPINS 200u

/* ---- sleeping on words of NAME-lock ------------------------------------------------ */

static void rx_sleep_on(uint32_t *word, uint32_t value, int64_t ns)
{
    struct timespec t = {ns / 1000000000, ns % 1000000000};
    syscall(SYS_futex, word, FUTEX_WAIT, value, &t, NULL, 0);
}
static void rx_rouse(uint32_t *word) { syscall(SYS_futex, word, FUTEX_WAKE, INT_MAX, NULL, NULL, 0); }

/* Waiters look again: the durable point rose, a leader left, or all is lost. */
static void rx_moved(struct rx_lockhdr *hdr)
{
    uint32_t have = rx_load32(&hdr->log_moved);
    while (!rx_cas32(&hdr->log_moved, &have, have + 1))
        ;
    if (rx_load32(&hdr->log_waiters))
        rx_rouse(&hdr->log_moved);
}

static void rx_waiters(struct rx_lockhdr *hdr, int32_t change)
{
    uint32_t have = rx_load32(&hdr->log_waiters);
    while (!rx_cas32(&hdr->log_waiters, &have, have + (uint32_t)change))
        ;
}

/* ---- leading ------------------------------------------------------------------------- */

uint64_t rx_log_point(const struct rx_db *db, struct rx_log_at *at)
{
    for (;;) {
        uint64_t word = rx_load(&db->hdr->log_durable);
        const struct rx_log_at *from = &db->slots[word & (RX_SLOTS - 1)].log_at[(word & RX_LOG_RECORD) != 0];
        at->bytes = rx_load(&from->bytes);
        at->segment = rx_load(&from->segment);
        rx_acquire_fence();
        if (rx_load(&db->hdr->log_durable) == word) /* a record is not written while it is named */
            return word >> RX_LOG_DURABLE_SHIFT;
    }
}

/*
 * The durable point becomes (number, at), if it is still `*word`, which the leader took.
 * Commit    the compare-and-swap.  The record is our own slot's, and not the one now named.
 */
static bool rx_point_move(struct rx_thread *t, uint64_t *word, uint64_t turn, uint64_t number, const struct rx_log_at *at)
{
    uint64_t slot = t->uid & (RX_SLOTS - 1), record = 0;
    if ((*word & (RX_SLOTS - 1)) == slot)
        record = ~*word & RX_LOG_RECORD;
    struct rx_log_at *to = &t->slot->log_at[record != 0];
    rx_store(&to->bytes, at->bytes);
    rx_store(&to->segment, at->segment);
    uint64_t next = number << RX_LOG_DURABLE_SHIFT | (turn & RX_LOG_TURNS) | record | slot;
#ifdef ROWEX_CANARY_NO_TAKEOVER_CHECK /* a broken build on purpose: fuzz/schedules.c must notice */
    *word = rx_load(&t->db->hdr->log_durable);
#endif
    if (!rx_cas(&t->db->hdr->log_durable, word, next))
        return false;
    *word = next;
    return true;
}

bool rx_log_advance(struct rx_thread *t, uint64_t *word, uint64_t number, const struct rx_log_at *at)
{
    return rx_point_move(t, word, *word, number, at);
}

/*
 * No segment of `term` or before is gone on with: a leader that was deposed may still write to
 * it, or a sync of it failed.  Said before a fresh one is made, which may fail: then the next
 * leader makes it.
 */
static void rx_term_end(struct rx_lockhdr *hdr, uint64_t term)
{
    uint64_t have = rx_load(&hdr->log_term);
    while (have <= term && !rx_cas(&hdr->log_term, &have, term + 1))
        ;
}

/*
 * The durable word becomes ours: from here on nobody else's compare-and-swap succeeds.  While
 * nothing new is durable the same words come back; so who deposes changes the turn, or one
 * deposed, asleep between its load and its compare-and-swap, would take the word again, with
 * the segment of then.  (It would have to sleep through 128 leaders that died or stood still,
 * without a single entry becoming durable.)
 */
static bool rx_lead_begin(struct rx_thread *t, struct rx_lead *lead)
{
    struct rx_db *db = t->db;
    for (;;) {
        lead->word = rx_load(&db->hdr->log_durable);
        lead->number = rx_log_point(db, &lead->at);
        if (lead->number != lead->word >> RX_LOG_DURABLE_SHIFT || rx_load(&db->hdr->log_durable) != lead->word)
            continue;
        if (rx_load(&db->hdr->log_lead) != t->uid)
            return false;
        if (rx_point_move(t, &lead->word, lead->word + (lead->fresh ? RX_LOG_TURN : 0), lead->number, &lead->at))
            break;
    }
    if (lead->fresh)
        rx_term_end(db->hdr, lead->at.segment >> 32);
    return true;
}

static void rx_lead_end(struct rx_thread *t)
{
    uint64_t mine = t->uid;
    rx_cas(&t->db->hdr->log_lead, &mine, 0); /* else we had been deposed */
    rx_moved(t->db->hdr);
}

/*
 * Ours instead of `from`.  Returns whether.
 * Ordering  progress first: who sees us lead sees another progress than in our turn before, which may
 *           have written nothing, and does not take the two for one turn that stands still.
 */
static bool rx_lead_take(struct rx_thread *t, uint64_t from)
{
    rx_fetch_add(&t->db->hdr->log_progress, 1);
    return rx_cas(&t->db->hdr->log_lead, &from, t->uid);
}

/* Nobody leads: we do.  Returns whether. */
static bool rx_lead_try(struct rx_thread *t) { return rx_load(&t->db->hdr->log_lead) == 0 && rx_lead_take(t, 0); }

/* What this thread saw of a leader, kept between calls: a caller waits in slices. */
static __thread struct { const struct rx_lockhdr *hdr; uint64_t uid, progress; int64_t since_ns; } rx_seen_lead;

/*
 * The leader is dead, or stands still: we take its place (and a fresh segment).
 * One that waits for a slow disk stands still too, and then nobody's turn ends: each, whose segment has to be
 * synced as well, is deposed in its midst.  So after one that came to nothing the next has twice the time,
 * until a sync was quick again.
 */
static bool rx_lead_depose(struct rx_thread *t)
{
    struct rx_lockhdr *hdr = t->db->hdr;
    uint64_t uid = rx_load(&hdr->log_lead), progress = rx_load(&hdr->log_progress);
    uint32_t vain = rx_load32(&hdr->log_vain);
    int64_t now = rx_now_ns(), patience = RX_LEAD_STILL_NS << (vain < RX_LEAD_DOUBLINGS ? vain : RX_LEAD_DOUBLINGS);
    if (uid == 0)
        return false;
    if (rx_seen_lead.hdr != hdr || rx_seen_lead.uid != uid || rx_seen_lead.progress != progress) {
        rx_seen_lead.hdr = hdr;
        rx_seen_lead.uid = uid;
        rx_seen_lead.progress = progress;
        rx_seen_lead.since_ns = now;
    }
    bool gone = rx_uid_gone(t->db, uid);
    if ((!gone && now - rx_seen_lead.since_ns < patience) || !rx_lead_take(t, uid))
        return false;
    if (!gone)
        rx_store32(&hdr->log_vain, vain + 1);
    return true;
}

bool rx_log_lead_is(const struct rx_thread *t) { return rx_load(&t->db->hdr->log_lead) == t->uid; }

/* An entry that stays undecided: is its writer dead? */
static void rx_look_after(struct rx_db *db, uint64_t number)
{
    if (number >= rx_log_tail(db) || rx_load(&rx_log_entry(db, number)->number) >= number + 1)
        return;
    uint64_t owner = rx_log_owner(db, number);
    if (owner)
        (void)rx_uid_gone(db, owner);
}

/* The disk refused; not this process, which lacks descriptors, say: it later, or others now, can. */
static bool rx_disk_failed(int rc)
{
    int os_errno = rx_error_errno();
    return (rc == RX_E_OS || rc == RX_E_IO) && os_errno != EMFILE && os_errno != ENFILE && os_errno != ENOMEM;
}

/*
 * The kernel tells of a failed sync once: rewritten elsewhere it succeeds for all, or all fail for
 * good, which is in hdr->log_failed.
 */
static int rx_lead_write(struct rx_thread *t, struct rx_lead *lead)
{
    if (!rx_lead_begin(t, lead))
        return RX_OK;
    RX_POINT();
    int rc = rx_frames_write(t, lead);
    if (!rx_disk_failed(rc))
        return rc;
    rx_term_end(t->db->hdr, lead->at.segment >> 32);
    rc = rx_frames_write(t, lead);
    if (rx_disk_failed(rc)) {
        uint64_t none = 0;
        rx_cas(&t->db->hdr->log_failed, &none, (uint64_t)(rx_error_errno() ? rx_error_errno() : EIO));
    }
    return rc;
}

/*
 * Leads, if nobody does, or (`depose`) who does is dead or stands still, and writes out what is
 * decided.  Our process's turn comes first: one of its threads may have been deposed in the
 * midst of a sync, and who waited for that with the lead would hold up everybody.
 */
static int rx_lead(struct rx_thread *t, bool depose, bool *led, bool *wrote)
{
    struct rx_lead lead = {0};
    *led = *wrote = false;
    int rc = rx_log_join(t->db);
    if (rc || !rx_logger_try(t->db))
        return rc;
    rx_events_hold(); /* of whom we succeed: a listener that wrote durably would wait for us */
    if (rx_lead_try(t) || (depose && (lead.fresh = rx_lead_depose(t)))) {
        *led = true;
        rc = rx_lead_write(t, &lead);
        *wrote = lead.wrote;
    }
    rx_logger_unlock(t->db);
    if (*led)
        rx_lead_end(t);
    rx_events_release();
    return rc;
}

/* ---- waiting -------------------------------------------------------------------------- */

static int rx_log_has_failed(const struct rx_db *db)
{
    uint64_t failed = rx_load(&db->hdr->log_failed);
    return failed ? rx_fail(RX_E_DURABILITY, (int)failed, "writing the log of %s failed, and so did rewriting it: what was "
                            "not durable then never will be; the index can be read", db->path)
                  : RX_OK;
}

static int rx_log_late(struct rx_db *db)
{
    uint64_t number = rx_log_durable(db), uid = 0;
    if (number < rx_log_tail(db) && rx_load(&rx_log_entry(db, number)->number) < number + 1)
        uid = rx_log_owner(db, number); /* of an entry that is not published yet, */
    if (uid == 0)
        uid = rx_load(&db->hdr->log_lead); /* else of who writes */
    return rx_fail(RX_WOULD_WAIT, 0, "for the log, which uid %llu of process %u writes or holds up",
                   (unsigned long long)uid, rx_uid_pid(db, uid));
}

/* One turn of waiting for others: RX_OK, look again. */
static int rx_log_sleep(struct rx_thread *t, uint32_t seen, unsigned tries)
{
    struct rx_lockhdr *hdr = t->db->hdr;
    if (t->deadline_ns == 0 || rx_now_ns() >= t->deadline_ns)
        return rx_log_late(t->db);
    rx_waiters(hdr, 1);
    rx_sleep_on(&hdr->log_moved, seen, tries < 4 ? 1000000 : RX_WAIT_SLICE_NS);
    rx_waiters(hdr, -1);
    return rx_gate_poll(); /* a copier waits with the gate closed */
}

int rx_log_flush(struct rx_thread *t, uint64_t number)
{
    struct rx_db *db = t->db;
    for (unsigned tries = 0;; tries++) {
        uint32_t seen = rx_load32(&db->hdr->log_moved);
        if (rx_log_durable(db) >= number)
            return RX_OK;
        int rc = rx_log_has_failed(db);
        if (rc)
            return rc;
        bool wrote = false, led = false;
        if (db->logger) { /* who may only read waits for the others */
            rc = rx_lead(t, tries != 0, &led, &wrote);
            if (rc && !wrote && rc != RX_I_RESTART)
                return rx_load(&db->hdr->log_failed) ? rx_log_has_failed(db) : rc;
        }
        if (led) {
            if (wrote || rc == RX_I_RESTART)
                continue;
            seen = rx_load32(&db->hdr->log_moved);
            if (tries < RX_UNDECIDED_SPINS) { /* its writer has only to publish it */
                rx_pause();
                continue;
            }
            rx_look_after(db, rx_log_durable(db));
        }
        if (rx_log_durable(db) >= number)
            return RX_OK;
        if ((rc = rx_log_sleep(t, seen, tries)) != RX_OK)
            return rc;
    }
}

int rx_log_room(struct rx_thread *t)
{
    struct rx_db *db = t->db;
    int rc = rx_log_has_failed(db);
    if (rc)
        return rc;
    uint64_t tail = rx_log_tail(db), size = rx_load(&db->hdr->log_size);
    if (t->deadline_ns == 0)
        return rx_fail(RX_WOULD_WAIT, 0, "for the log to be written out");
    return rx_log_flush(t, tail - size / 2);
}

#define RX_ADMIT_SLACK 65536u /* of a segment: for those who look at its room at the same time */

int rx_log_admit_put(struct rx_thread *t, uint64_t size)
{
    struct rx_lockhdr *hdr = t->db->hdr;
    if (t->deadline_ns == 0)
        return rx_fail(RX_WOULD_WAIT, 0, "for the log to be written out");
    int rc = rx_log_flush(t, rx_log_tail(t->db));
    if (rc)
        return rc;
    if (size > rx_load(&hdr->log_allowed) && (rc = rx_log_reserve(t->db, size)) != RX_OK && rc != RX_E_FULL)
        return rc;
    if (size > rx_load(&hdr->log_allowed))
        return rx_fail(RX_E_FULL, ENOSPC, "the disk of %s has no room for %llu more bytes in its log, but for removals",
                       t->db->path, (unsigned long long)size);
    rx_fetch_add(&hdr->log_backlog, size);
    return RX_OK;
}

int rx_log_admit_removal(struct rx_thread *t, uint64_t size)
{
    struct rx_lockhdr *hdr = t->db->hdr;
    if (t->deadline_ns == 0)
        return rx_fail(RX_WOULD_WAIT, 0, "for the log to be written out");
    int rc = rx_log_flush(t, rx_log_tail(t->db));
    if (rc == RX_OK && rx_load(&hdr->log_room) < size + RX_ADMIT_SLACK) {
        (void)rx_log_reserve(t->db, 0);
        if (rx_load(&hdr->log_allowed) == 0 && rx_spare_size(t->db->logger->dir_fd) < size + 2 * RX_ADMIT_SLACK)
            rc = rx_fail(RX_E_FULL, ENOSPC, "the disk of %s is full, and so is what was kept for removals", t->db->path);
    }
    return rc;
}

/* ---- the flusher ------------------------------------------------------------------------- */

void rx_log_wake(struct rx_db *db)
{
    uint32_t asleep = 0;
    if (rx_cas32(&db->hdr->log_awake, &asleep, 1))
        rx_rouse(&db->hdr->log_awake);
}

/* Sleeps until somebody writes.  Ordering: asleep is told before the tail is looked at again. */
static void rx_flusher_rest(struct rx_db *db)
{
    uint32_t awake = 1;
    rx_cas32(&db->hdr->log_awake, &awake, 0);
    rx_full_fence();
    if (rx_log_tail(db) != rx_log_durable(db) && rx_load(&db->hdr->log_failed) == 0)
        rx_log_wake(db);
    else
        rx_sleep_on(&db->hdr->log_awake, 0, 1000000000ll); /* a second: a stop may have come before we slept */
}

static void rx_flusher_turn(struct rx_db *db, struct rx_logger *l)
{
    if (rx_log_join(db) != RX_OK || (l->thread == NULL && rx_thread_new(db, RX_S_FLUSHER, &l->thread) != RX_OK))
        return;
    struct rx_thread *t = l->thread;
    __atomic_store_n(&t->busy, 1, __ATOMIC_SEQ_CST);
    rx_full_fence();
    uint64_t lead = rx_load(&db->hdr->log_lead);
    if (lead && rx_load32(&db->slots[lead & (RX_SLOTS - 1)].process) == db->process + 1 && lead != t->uid)
        rx_fetch_add(&db->hdr->log_progress, 1); /* our process leads, and does not stand still */
    t->deadline_ns = rx_now_ns() + 1000000;
    (void)rx_log_flush(t, rx_log_tail(db));
    rx_grow_ahead(t);
    rx_checkpoint_if_due(t);
    __atomic_store_n(&t->busy, 0, __ATOMIC_RELEASE);
}

void rx_log_interval(struct rx_db *db, int64_t interval_ns)
{
    struct rx_logger *l = db->logger;
    int64_t have = l ? __atomic_load_n(&l->interval_ns, __ATOMIC_RELAXED) : 0;
    if (l == NULL || interval_ns <= 0 || (have && have <= interval_ns))
        return;
    __atomic_store_n(&l->interval_ns, interval_ns, __ATOMIC_RELAXED);
    rx_rouse(&l->stop); /* the flusher may be in the midst of a longer one */
}

static int64_t rx_interval(const struct rx_logger *l)
{
    int64_t asked = __atomic_load_n(&l->interval_ns, __ATOMIC_RELAXED);
    return asked ? asked : RX_INTERVAL_NS;
}

static void *rx_flusher(void *arg)
{
    struct rx_db *db = arg;
    struct rx_logger *l = db->logger;
    rx_own_thread(&l->stop);
    while (!rx_load32(&l->stop)) {
        if (rx_load(&db->hdr->log_size) == 0 || rx_log_tail(db) == rx_log_durable(db) || rx_load(&db->hdr->log_failed)) {
            rx_flusher_rest(db);
            continue;
        }
        rx_sleep_on(&l->stop, 0, rx_interval(l));
        if (!rx_load32(&l->stop))
            rx_flusher_turn(db, l);
    }
    return NULL;
}

int rx_log_watch(struct rx_db *db)
{
    sigset_t all, before;
    struct rx_logger *l = db->logger;
    if (l == NULL || l->running)
        return RX_OK;
    sigfillset(&all); /* the program's signals are not for this thread; faults stay deliverable */
    sigdelset(&all, SIGBUS);
    sigdelset(&all, SIGSEGV);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int failed = rx_sys_thread(&l->flusher, rx_flusher, db);
    l->running = failed == 0;
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return l->running ? RX_OK : rx_fail(RX_E_MEMORY, failed, "for the thread that writes the log of %s", db->path);
}

static void rx_flusher_stop(struct rx_db *db)
{
    struct rx_logger *l = db->logger;
    if (!l->running)
        return;
    rx_store32(&l->stop, 1);
    rx_rouse(&l->stop);
    rx_log_wake(db); /* others of its kind find nothing to do and sleep again */
    rx_rouse(&db->hdr->log_awake);
    pthread_join(l->flusher, NULL);
    l->running = false;
}

int rx_log_leave(struct rx_db *db)
{
    struct rx_logger *l = db->logger;
    int rc = RX_OK;
    if (l == NULL)
        return RX_OK;
    rx_flusher_stop(db);
    rx_checkpointer_join(db);
    if (rx_load(&db->hdr->log_size) && rx_load(&db->hdr->generation) != RX_GENERATION_REPLACED &&
        rx_log_tail(db) != rx_log_durable(db)) {
        rc = l->thread ? RX_OK : rx_thread_new(db, RX_S_FLUSHER, &l->thread);
        if (rc == RX_OK) {
            __atomic_store_n(&l->thread->busy, 1, __ATOMIC_SEQ_CST); /* it reads leaves: its map stays */
            l->thread->deadline_ns = rx_now_ns() + __atomic_load_n(&l->closing_left_ns, __ATOMIC_RELAXED);
            rc = rx_log_flush(l->thread, rx_log_tail(db));
            __atomic_store_n(&l->thread->busy, 0, __ATOMIC_RELEASE);
        }
        if (rc == RX_WOULD_WAIT)
            rc = rx_fail(RX_E_DURABILITY, 0, "%s was closed, but its log is held up by another process", db->path);
    }
    if (l->thread)
        rx_thread_drop(l->thread);
    l->thread = NULL;
    return rc;
}
