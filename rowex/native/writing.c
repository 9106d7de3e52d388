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

/* Room for its bytes too, however full the disk may be by then (frames.h). */
int rx_admit(struct rx_thread *t, uint64_t bytes, bool removes)
{
    struct rx_lockhdr *hdr = t->db->hdr;
    uint64_t size = bytes + RX_LOG_ENTRY_EXTRA, allowed = rx_load_rlx(&hdr->log_allowed);
    if (removes)
        return RX_LIKELY(allowed) ? RX_OK : rx_log_admit_removal(t, size);
    if (RX_UNLIKELY(rx_load_rlx(&hdr->log_backlog) + size > allowed))
        return rx_log_admit_put(t, size);
    rx_fetch_add(&hdr->log_backlog, size);
    return RX_OK;
}

/* Before the first change of a session and of a thread: the mark, an arena. */
int rx_prepare(struct rx_thread *t)
{
    int rc = RX_OK;
    if (RX_UNLIKELY(!rx_load(&t->db->hdr->marked))) {
        if (t->deadline_ns == 0) /* it syncs the file */
            return rx_fail(RX_WOULD_WAIT, 0, "for the in-use mark to become durable");
        rc = rx_mark_in_use(t->db);
    }
    if (rc == RX_OK && RX_UNLIKELY(t->map->generation != rx_load(&t->db->hdr->generation)))
        rc = rx_remap_thread(t);
    if (rc == RX_OK && RX_UNLIKELY(t->arena && rx_load(&t->arena->generation) != t->map->generation))
        rx_arena_release(t);
    if (rc == RX_OK && RX_UNLIKELY(!t->arena) && (rc = rx_arena_borrow(t)) == RX_OK && !t->quiet &&
        t->deadline_ns)
        rc = rx_batches_finish(t);
    if (rc == RX_OK && t->db->logged && !t->quiet)
        rc = rx_prepare_log(t);
    return rc;
}

#define RX_RESTARTS_MAX 20000u

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

int rx_change(struct rx_thread *t, struct rx_op *op)
{
    for (unsigned tries = 0;; tries++) {
        int rc = rx_prepare(t);
        if (RX_LIKELY(rc == RX_OK) && t->db->logged && tries == 0 && !t->quiet) /* a batch was let in as a whole */
            rc = rx_admit(t, op->key_len + (op->value ? op->value_len : 0), op->value == NULL);
        if (RX_UNLIKELY(rc))
            return rc;
        rc = rx_enter_write(t);
        if (RX_LIKELY(rc == RX_OK)) {
            rc = rx_attempt(t, op);
            if (RX_UNLIKELY(rc != RX_OK))
                rx_unreserve(t);
            rx_leave_write(t);
        } else {
            t->waited_uid = 0;
        }
        if (RX_UNLIKELY(__atomic_load_n(&t->map->poison, __ATOMIC_RELAXED)))
            return rx_fail(RX_E_IO, 0, "while changing a key; it may or may not have happened");
        if (RX_LIKELY(rc < RX_I_EVICTED)) {
            if (t->db->logged)
                rx_log_notice(t->db);
            return rc;
        }
        rc = rx_resolve(t, rc, tries);
        if (rc == RX_E_FULL && !op->plain && op->value == NULL) {
            op->plain = true; /* P6: removals work on a full disk */
            continue;
        }
        if (rc)
            return rc;
    }
}
