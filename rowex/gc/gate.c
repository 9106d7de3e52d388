/*
 * gate.c -- the gate, and the end of a copy whose copier does not come back.
 *
 * hdr->gate: 0 open, else uid << 2 | kind of its holder.  A writer publishes itself and
 * then looks at the gate; a holder closes it, runs the barrier, and then looks at the
 * slots: one of the two sees the other (rx_enter_write(), rx_barrier()).
 *
 * The copier C (a uid that makes one copy in its life, so that neither its gate word nor
 * the name of its copy ever recurs):
 *     1 gate: 0 -> C|COPY; drain     4 look: is the gate C|COPY still?
 *     2 create NAME-copy-C           5 rename it over NAME (the commit)
 *     3 build, sync                  6 rx_gate_finish_step(); gate: C|COPY -> 0
 * Whoever finds C dead, or standing still for RX_GATE_STILL_NS, settles:
 *     a gate: C|COPY -> C|SETTLE     c NAME is a generation ahead: finish the step
 *     b unlink NAME-copy-C           d gate: C|SETTLE -> 0
 * Any number may settle at once and die or sleep anywhere in it: each step can be
 * repeated, and the word C|SETTLE remains until one has come through.
 *
 * G1  The gate opens over C only if C will not rename, or has renamed and the step is
 *     taken.  Suppose C renames in 5.  At 4 it saw C|COPY, and its copy had existed since
 *     2; so a, which takes C|COPY away for ever, came after 4, and b after that found the
 *     copy there or moved.  There: b succeeded and 5 fails with ENOENT.  Moved: 5 came
 *     before b, hence before c, which sees NAME ahead.  If b finds nothing because 2 is
 *     still to come, then 4 is too, and C gives up and unlinks what it makes.  If b finds
 *     nothing because another's b succeeded, NAME is not ahead: void, as that one says.
 * G2  Nothing is recorded for the settlers but the gate word itself: a copier that sleeps
 *     anywhere and wakes generations later has no store left that could mislead them.
 * G3  rx_gate_finish_step() by one who slept: see rx_step_word().
 * CHECK has no commit: its gate is simply opened over its head, and the checker finds out
 * when it opens it.  A checker whose word recurs may lose a later check's gate to one who
 * slept; then it starts over.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <time.h>
#include "gate.h"
#include "epoch.h"
#include "uid.h"
#include "../native/file.h"

#define RX_GATE_STILL_NS 1000000000ll
#define RX_GATE_SLEEP_NS 1000000l
#define RX_GATE_PULSE_NS 100000000l

static inline uint64_t rx_gate_word(const struct rx_thread *t, unsigned kind) { return t->uid << 2 | kind; }
static inline uint64_t rx_gate_uid(uint64_t word) { return word >> 2; }
static inline unsigned rx_gate_kind(uint64_t word) { return (unsigned)(word & 3); }

/* ---- holding ------------------------------------------------------------------- */

bool rx_gate_mine(const struct rx_thread *t, enum rx_gate_kind kind)
{
    return rx_load(&t->db->hdr->gate) == rx_gate_word(t, kind);
}

int rx_gate_tick(struct rx_thread *t, enum rx_gate_kind kind)
{
    if (RX_UNLIKELY(!rx_gate_mine(t, kind)))
        return RX_I_RESTART;
    rx_fetch_add(&t->db->hdr->gate_progress, 1);
    return RX_OK;
}

int rx_gate_open(struct rx_thread *t, enum rx_gate_kind kind)
{
    uint64_t mine = rx_gate_word(t, kind);
    return rx_cas(&t->db->hdr->gate, &mine, 0) ? RX_OK : RX_I_RESTART;
}

/*
 * Ordering  the compare-and-swap, then the barrier on every CPU, then the look at the
 *           slots: a writer that published before the barrier is seen and waited for; one
 *           that publishes after it sees the gate.
 * Crash     the word names us: who is held up reaps us, and the reaper opens it.
 */
int rx_gate_close(struct rx_thread *t, enum rx_gate_kind kind, int64_t deadline_ns)
{
    struct rx_lockhdr *hdr = t->db->hdr;
    for (;;) {
        uint64_t open = 0;
        if (rx_cas(&hdr->gate, &open, rx_gate_word(t, kind)))
            break;
        int rc = rx_gate_wait(t);
        if (rc)
            return rc;
    }
    rx_fetch_add(&hdr->gate_progress, 1);
    int rc = rx_barrier(t->db);
    if (rc)
        rc = rx_fail(rc, 0, "this process cannot reach the readers of others (membarrier), so it cannot copy or check");
    else
        rc = rx_drain_writers(t, deadline_ns);
    if (rc)
        (void)rx_gate_open(t, kind);
    return rc;
}

/* ---- the pulse ------------------------------------------------------------------- */

static __thread struct rx_gate_pulse *rx_pulse_here;

int rx_gate_poll(void)
{
    struct rx_gate_pulse *p = rx_pulse_here;
    if (p)
        __atomic_store_n(&p->paused, 1, __ATOMIC_RELAXED);
    int rc = rx_poll_interrupt();
    if (p)
        __atomic_store_n(&p->paused, 0, __ATOMIC_RELAXED);
    return rc;
}

static void *rx_gate_beat(void *arg)
{
    struct rx_gate_pulse *p = arg;
    pthread_mutex_lock(&p->mutex);
    while (!p->stop) {
        struct timespec until;
        clock_gettime(CLOCK_MONOTONIC, &until);
        until.tv_nsec += RX_GATE_PULSE_NS;
        if (until.tv_nsec >= 1000000000l) {
            until.tv_nsec -= 1000000000l;
            until.tv_sec++;
        }
        if (pthread_cond_timedwait(&p->wake, &p->mutex, &until) == ETIMEDOUT &&
            !__atomic_load_n(&p->paused, __ATOMIC_RELAXED) && rx_load(&p->hdr->gate) == p->word)
            rx_fetch_add(&p->hdr->gate_progress, 1);
    }
    pthread_mutex_unlock(&p->mutex);
    return NULL;
}

/* Without the thread (no memory, no threads left) a long sync may be taken for a stop: then the copy is void. */
void rx_gate_pulse_start(struct rx_gate_pulse *p, struct rx_thread *t, enum rx_gate_kind kind)
{
    sigset_t all, before;
    pthread_condattr_t attr;
    memset(p, 0, sizeof *p);
    p->hdr = t->db->hdr;
    p->word = rx_gate_word(t, kind);
    p->outer = rx_pulse_here;
    rx_pulse_here = p;
    pthread_mutex_init(&p->mutex, NULL);
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&p->wake, &attr);
    pthread_condattr_destroy(&attr);
    sigfillset(&all); /* the program's signals are not for this thread; faults stay deliverable */
    sigdelset(&all, SIGBUS);
    sigdelset(&all, SIGSEGV);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    p->running = rx_sys_thread(&p->thread, rx_gate_beat, p) == 0;
    pthread_sigmask(SIG_SETMASK, &before, NULL);
}

void rx_gate_pulse_stop(struct rx_gate_pulse *p)
{
    rx_pulse_here = p->outer;
    if (p->running) {
        pthread_mutex_lock(&p->mutex);
        p->stop = true;
        pthread_cond_signal(&p->wake);
        pthread_mutex_unlock(&p->mutex);
        pthread_join(p->thread, NULL);
    }
    pthread_cond_destroy(&p->wake);
    pthread_mutex_destroy(&p->mutex);
}

/* ---- the generation step ------------------------------------------------------------ */

/*
 * One word of the step to `generation`.
 * Ordering  the old value is loaded, then hdr->generation: while that is the one before,
 *           the value loaded is the old one or the new one (a peer's).  So if we sleep
 *           here and the step is taken meanwhile, the compare-and-swap fails, unless the
 *           word has come back to the old value in a LATER generation: brk cannot (its
 *           tag), the others could.  We notice then, and put it back; only a kill in the
 *           few instructions between, after such a sleep, would leave dev, ino or
 *           base_count of another generation.
 */
static void rx_step_word(struct rx_lockhdr *hdr, uint64_t *word, uint64_t value, uint64_t generation)
{
    for (;;) {
        uint64_t have = rx_load(word);
        rx_full_fence();
        if (rx_load(&hdr->generation) != generation - 1 || have == value)
            return;
        if (!rx_cas(word, &have, value))
            continue;
        rx_full_fence();
        if (rx_load(&hdr->generation) > generation)
            rx_cas(word, &value, have);
        return;
    }
}

/* brk of a fresh generation: its tag tells it from any value of the one before. */
static uint64_t rx_first_brk(uint64_t brk, uint64_t generation)
{
    return brk / RX_EXTENT | (generation * 40503u & 0xffff) << 48;
}

/*
 * Requires  the gate is closed by a copier (or being settled), so that no writer is inside.
 * Commit    the rename was it; here the one store of hdr->generation tells everybody.
 * Ordering  the other words first: who sees the new generation (acquire) sees them.
 * Crash     repeated by the next who comes: every value is read from the file that NAME
 *           names, and that file's superblock stays as it is while it is in use.
 */
int rx_gate_finish_step(struct rx_db *db)
{
    struct rx_lockhdr *hdr = db->hdr;
    uint64_t generation = rx_load(&hdr->generation);
    struct rx_peek seen;
    int rc = rx_name_peek(db, &seen);
    if (rc)
        return rc;
    if (seen.generation != generation + 1)
        return rx_load(&hdr->generation) > generation ? RX_OK : RX_ABSENT;
    (void)rx_folder_sync(db); /* an error here cannot undo the rename; the next sync tells it again */
    rx_step_word(hdr, &hdr->dev, seen.dev, generation + 1);
    rx_step_word(hdr, &hdr->ino, seen.ino, generation + 1);
    rx_step_word(hdr, &hdr->allocated, seen.brk, generation + 1);
    rx_step_word(hdr, &hdr->brk, rx_first_brk(seen.brk, generation + 1), generation + 1);
    rx_step_word(hdr, &hdr->base_count[(generation + 1) & 1], seen.count, generation + 1);
    if (rx_cas(&hdr->generation, &generation, generation + 1))
        rx_fetch_add(&hdr->copies, 1);
    return RX_OK;
}

/* ---- settling ------------------------------------------------------------------------ */

void rx_copy_name(const struct rx_db *db, uint64_t uid, char name[256])
{
    /* A long NAME is cut; the uuid keeps apart what two such indexes copy, the uid our own copies.
     * The users' uuid: who disowns them has opened another file already. */
    snprintf(name, 256, "%.200s-copy-%08x-%llx", db->name, rx_crc32c(0, db->hdr->uuid, sizeof db->hdr->uuid),
             (unsigned long long)uid);
}

/*
 * The copy of `word`'s uid: steps b to d.  RX_OK: the gate is open (or somebody else's).
 * Otherwise the copy could be neither voided nor found renamed, and the gate stays
 * closed unless the copier is known to be dead.
 */
static int rx_gate_settle(struct rx_db *db, uint64_t uid, int copier_is_dead)
{
    char name[256];
    uint64_t word = uid << 2 | RX_GATE_SETTLE;
    int rc = RX_OK;
#ifdef ROWEX_CANARY_NO_VOID /* a broken build on purpose: tests/takeover_driver.py must notice */
    bool voids = false;
#else
    bool voids = !db->memory;
#endif
    if (voids) {
        rx_copy_name(db, uid, name);
        rc = rx_copy_unlink(db, name);
        if (rc == RX_ABSENT) {
            rc = rx_gate_finish_step(db);
            if (rc == RX_ABSENT)
                rc = RX_OK; /* void: NAME is not ahead, or is not ours any more */
        } else if (rc != RX_OK && copier_is_dead) {
            rc = rx_gate_finish_step(db); /* who is dead renames no more: a leftover file does no harm */
            rc = rc == RX_ABSENT ? RX_OK : rc;
        }
    }
    if (rc == RX_OK)
        rx_cas(&db->hdr->gate, &word, 0);
    return rc;
}

/* Takes the gate from its holder: step a, or opening it over a checker's head. */
static int rx_gate_rob(struct rx_db *db, uint64_t word, int holder_is_dead)
{
    uint64_t uid = rx_gate_uid(word), have = word;
    if (rx_gate_kind(word) == RX_GATE_CHECK) {
        rx_cas(&db->hdr->gate, &have, 0);
        return RX_OK;
    }
    if (rx_gate_kind(word) == RX_GATE_COPY && !rx_cas(&db->hdr->gate, &have, uid << 2 | RX_GATE_SETTLE) &&
        have != (uid << 2 | RX_GATE_SETTLE))
        return RX_OK; /* the holder, or another, was faster */
    return rx_gate_settle(db, uid, holder_is_dead);
}

void rx_gate_recover(struct rx_db *db, uint64_t uid)
{
    uint64_t word = rx_load(&db->hdr->gate);
    if (word && rx_gate_uid(word) == uid)
        (void)rx_gate_rob(db, word, 1);
}

/* Who closes the gate later finds the generation moved (hdr->generation was stored before). */
void rx_gate_void_copy(struct rx_db *db)
{
    rx_full_fence();
    uint64_t word = rx_load(&db->hdr->gate);
    if (word && rx_gate_kind(word) != RX_GATE_CHECK)
        (void)rx_gate_rob(db, word, 0);
}

/* ---- waiting --------------------------------------------------------------------------- */

/* What this thread saw of a gate that it waits for, kept between calls: a caller waits in
 * slices far shorter than RX_GATE_STILL_NS. */
static __thread struct { const struct rx_lockhdr *hdr; uint64_t word, progress; int64_t since_ns; } rx_seen_gate;

static bool rx_gate_stands_still(const struct rx_lockhdr *hdr, uint64_t word, int64_t now)
{
    uint64_t progress = rx_load(&hdr->gate_progress);
    if (rx_seen_gate.hdr != hdr || rx_seen_gate.word != word || rx_seen_gate.progress != progress) {
        rx_seen_gate.hdr = hdr;
        rx_seen_gate.word = word;
        rx_seen_gate.progress = progress;
        rx_seen_gate.since_ns = now;
    }
    return now - rx_seen_gate.since_ns >= RX_GATE_STILL_NS;
}

static const char *rx_gate_purpose(uint64_t word)
{
    return rx_gate_kind(word) == RX_GATE_CHECK ? "is checking the index" : "is copying the file to one that is larger";
}

/*
 * Returns   RX_OK: it was open for a moment; the caller publishes and looks again.
 *           RX_WOULD_WAIT at t->deadline_ns, RX_E_INTERRUPTED.
 */
int rx_gate_wait(struct rx_thread *t)
{
    struct rx_db *db = t->db;
    for (;;) {
        uint64_t word = rx_load(&db->hdr->gate);
        if (word == 0)
            return RX_OK;
        uint64_t uid = rx_gate_uid(word);
        int64_t now = rx_now_ns();
        t->waited_uid = uid;
        bool late = t->deadline_ns == 0 || now >= t->deadline_ns;
        /* Whoever gives up has still looked after the holder: a caller whose slices are short gets on, too. */
        if (t->deadline_ns != 0 && rx_uid_gone(db, uid)) {
            rx_gate_recover(db, uid); /* nothing left to do if its reaper has just done it */
            if (rx_load(&db->hdr->gate) != word)
                continue;
        } else if (t->deadline_ns != 0 && (rx_gate_kind(word) == RX_GATE_SETTLE ||
                                           rx_gate_stands_still(db->hdr, word, now))) {
            if (rx_gate_rob(db, word, 0) == RX_OK)
                continue;
        }
        if (late)
            return rx_fail(RX_WOULD_WAIT, 0, "uid %llu of process %u %s", (unsigned long long)uid,
                           rx_uid_pid(db, uid), rx_gate_purpose(word));
        int rc = rx_poll_interrupt();
        if (rc)
            return rc;
        nanosleep(&(struct timespec){0, RX_GATE_SLEEP_NS}, NULL);
    }
}
