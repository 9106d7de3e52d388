/*
 * writing.c -- a whole change: what it needs before an attempt, the attempt in its epoch, and
 * what an attempt could not do there: waiting, growing, the gate.
 */
#include <sched.h>
#include <time.h>
#include "change.h"
#include "file.h"
#include "flush.h"
#include "frames.h"
#include "transaction.h"
#include "../gc/gate.h"

/* Room for an entry (R2), on pages that this process has touched. */
static inline int rx_prepare_log(struct rx_thread *t)
{
    const struct rx_logger *l = t->db->logger;
    if (RX_UNLIKELY(!rx_load32(&l->ready))) {
        if (t->deadline_ns == 0) /* it opens a folder and touches the whole ring */
            return rx_fail(RX_WOULD_WAIT, 0, "for this process to join the log");
        int rc = rx_log_join(t->db);
        if (rc)
            return rc;
    }
    if (RX_UNLIKELY(!rx_log_has_room(t->db))) {
        int rc = rx_log_room(t);
        if (rc)
            return rc;
    }
    return RX_OK;
}

/* Room for its bytes too, however full the disk may be by then (frames.h), where that takes no look at the disk. */
static inline bool rx_admit_at_once(struct rx_lockhdr *hdr, uint64_t size)
{
    if (RX_UNLIKELY(rx_load_rlx(&hdr->log_backlog) + size > rx_load_rlx(&hdr->log_allowed)))
        return false;
    rx_fetch_add(&hdr->log_backlog, size);
    return true;
}

int rx_admit(struct rx_thread *t, uint64_t bytes, bool removes)
{
    struct rx_lockhdr *hdr = t->db->hdr;
    uint64_t size = bytes + RX_LOG_ENTRY_EXTRA;
    if (removes)
        return RX_LIKELY(rx_load_rlx(&hdr->log_allowed)) ? RX_OK : rx_log_admit_removal(t, size);
    return rx_admit_at_once(hdr, size) ? RX_OK : rx_log_admit_put(t, size);
}

/* Before the first change of a session and of a thread: the mark, an arena. */
int rx_prepare(struct rx_thread *t)
{
    int rc = RX_OK;
    if (RX_UNLIKELY(!rx_load(&t->db->hdr->marked))) {
        if (t->deadline_ns == 0) /* it syncs the file */
            return rx_fail(RX_WOULD_WAIT, 0, "for the in-use mark to become durable");
        rc = rx_mark_in_use(t->db, t->deadline_ns);
    }
    if (rc == RX_OK && RX_UNLIKELY(t->map->generation != rx_load(&t->db->hdr->generation)))
        rc = rx_remap_thread(t);
    if (rc == RX_OK && RX_UNLIKELY(rx_poisoned(t->map))) /* what it stores may be seen by nobody else */
        rc = rx_fail(RX_E_IO, 0, "in an earlier call; nothing was changed");
    if (rc == RX_OK && RX_UNLIKELY(t->arena && rx_load(&t->arena->generation) != t->map->generation))
        rx_arena_release(t);
    if (rc == RX_OK && RX_UNLIKELY(!t->arena) && (rc = rx_arena_borrow(t)) == RX_OK && !t->quiet &&
        t->deadline_ns)
        rc = rx_batches_finish(t);
    if (rc == RX_OK && t->db->logged && !t->quiet)
        rc = rx_prepare_log(t);
    return rc;
}

#ifndef RX_RESTARTS_MAX /* fuzzers of damaged files give up sooner */
#define RX_RESTARTS_MAX 20000u
#endif

/*
 * Outside the epoch: the node that we wanted is held by t->waited_uid.  A moment of
 * patience first; then sleep in growing steps and ask whether the holder still lives.
 */
static int rx_wait_holder(struct rx_thread *t, unsigned tries)
{
    uint64_t uid = t->waited_uid;
    if (uid == 0 && tries > RX_RESTARTS_MAX) /* somebody makes progress at each; so this is damage */
        return rx_corrupt(0, "the tree around a key does not hold still, though nobody holds it");
    if (uid == 0 || tries < 8) {
        for (unsigned i = 0; i < 32u << (tries > 4 ? 4 : tries); i++)
            rx_pause();
        return RX_OK;
    }
    if (tries < 32 && t->deadline_ns) {
        sched_yield();
        return RX_OK;
    }
    if ((tries & 15) == 0 && rx_uid_gone(t->db, uid))
        return RX_OK;
    if (rx_now_ns() >= t->deadline_ns)
        return rx_fail(RX_WOULD_WAIT, 0, "a node is held by uid %llu of process %u", (unsigned long long)uid,
                       rx_uid_pid(t->db, uid));
    struct timespec nap = {0, tries < 256 ? 50000 : 1000000};
    nanosleep(&nap, NULL);
    return rx_poll_interrupt();
}

/* What an attempt could not do inside the epoch; RX_OK: try again. */
int rx_resolve(struct rx_thread *t, int rc, unsigned tries)
{
    switch (rc) {
    case RX_I_GATE:
        return rx_gate_wait(t);
    case RX_I_GROW:
        return t->deadline_ns && !t->quiet ? rx_batches_grow(t) : rx_grow(t);
    case RX_I_RESTART:
        return rx_wait_holder(t, tries);
    default:
        return rc;
    }
}

#define RX_RUN_BYTES 65536u /* an epoch is to be short */
#define RX_RUN_SHARE 16u    /* of what the log may take ahead of the disk */

/*
 * Of the changes, those that one epoch may have: the log takes them, and they are not large (all that is let in and
 * not made yet may be overlooked when the log is written out).  Only the first is waited for: it has its result.
 */
__attribute__((always_inline)) static inline int rx_run_admit(struct rx_thread *t, struct rx_op *op, unsigned n, unsigned *allowed)
{
    struct rx_lockhdr *hdr = t->db->hdr;
    uint64_t bytes = 0, most = RX_RUN_BYTES;
    bool asks = t->db->logged && !t->quiet; /* a batch was let in as a whole */
    if (n > 1 && asks && rx_load_rlx(&hdr->log_allowed) / RX_RUN_SHARE < most)
        most = rx_load_rlx(&hdr->log_allowed) / RX_RUN_SHARE;
    for (*allowed = 0; *allowed < n; ++*allowed, op++) {
        uint64_t size = op->key_len + (op->value ? op->value_len : 0);
        if (*allowed && (bytes += size + RX_LOG_ENTRY_EXTRA) > most)
            break;
        if (!asks || op->admitted)
            continue;
        if (*allowed && (op->value == NULL || !rx_admit_at_once(hdr, size + RX_LOG_ENTRY_EXTRA)))
            break;
        int rc = *allowed ? RX_OK : rx_admit(t, size, op->value == NULL);
        if (RX_UNLIKELY(rc))
            return rc;
        op->admitted = true;
    }
    return RX_OK;
}

/* Inside an epoch: attempts, up to the first that fails; each but the first sees that the log has room (R2). */
__attribute__((always_inline)) static inline int rx_run(struct rx_thread *t, struct rx_op *op, unsigned n, unsigned *done)
{
    struct rx_place p;
    const struct rx_op *last = NULL;
    p.node = NULL;
    t->near = 0;
    for (unsigned k = 0; k < n; k++, op++, ++*done) {
        if (k && t->db->logged && RX_UNLIKELY(!rx_log_has_room(t->db)))
            return RX_OK;
        const struct rx_node *from = p.node;
        uint64_t shared = last ? rx_common(last->key, last->key_len, op->key, op->key_len, 0) : 0;
        int rc = rx_attempt(t, op, shared, &p);
        if (RX_UNLIKELY(rx_poisoned(t->map)))
            return rc; /* what is reserved is its reaper's (uid.c) */
        if (RX_UNLIKELY(rc != RX_OK)) {
            rx_unreserve(t);
            return rc;
        }
        t->near += p.node == from;
        last = op;
    }
    return RX_OK;
}

/*
 * What can be done in one epoch.  RX_OK, or a result of op[*done]; RX_I_*: not yet, see rx_resolve().
 * A call with n 1 leaves nothing of the loops.
 */
__attribute__((always_inline)) static inline int rx_turn(struct rx_thread *t, struct rx_op *op, unsigned n,
                                                         unsigned *done)
{
    unsigned allowed;
    int rc = rx_prepare(t);
    if (RX_LIKELY(rc == RX_OK))
        rc = rx_run_admit(t, op, n, &allowed);
    if (RX_UNLIKELY(rc))
        return rc;
    rc = rx_enter_write(t);
    if (RX_LIKELY(rc == RX_OK)) {
        /* Who wrote the log out meanwhile may have come to another generation, where our arena is none. */
        rc = RX_LIKELY(rx_load(&t->arena->generation) == t->map->generation) ? rx_run(t, op, allowed, done) : RX_I_GATE;
        rx_leave_write(t);
    } else {
        t->waited_uid = 0;
    }
    if (t->db->logged && (RX_LIKELY(rc < RX_I_EVICTED) || *done))
        rx_log_notice(t->db);
    if (RX_UNLIKELY(rx_poisoned(t->map)))
        return rx_fail(RX_E_IO, 0, "while changing a key; it may or may not have happened");
    return rc;
}

/* Between two turns: RX_OK, or the result of op. */
static int rx_between_turns(struct rx_thread *t, struct rx_op *op, int rc, unsigned tries)
{
    rc = rx_resolve(t, rc, tries);
    if (rc == RX_E_FULL && !op->plain && op->value == NULL) {
        op->plain = true; /* P6: removals work on a full disk */
        rc = RX_OK;
    }
    return rc;
}

int rx_change(struct rx_thread *t, struct rx_op *op)
{
    for (unsigned tries = 0;; tries++) {
        unsigned done = 0;
        int rc = rx_turn(t, op, 1, &done);
        if (RX_LIKELY(rc < RX_I_EVICTED) || (rc = rx_between_turns(t, op, rc, tries)) != RX_OK)
            return rc;
    }
}

int rx_change_many(struct rx_thread *t, struct rx_op *op, unsigned n, unsigned *done)
{
    *done = 0;
    for (unsigned tries = 0; *done < n; tries++) {
        unsigned now = 0;
        int rc = rx_turn(t, op + *done, n - *done, &now);
        *done += now;
        if (now)
            tries = 0;
        if (RX_LIKELY(rc == RX_OK))
            continue;
        if (rc < RX_I_EVICTED || (rc = rx_between_turns(t, op + *done, rc, tries)) != RX_OK)
            return rc;
    }
    return RX_OK;
}
