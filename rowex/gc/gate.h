/*
 * gate.h -- holding writers (never readers) while the file is copied and renamed
 * or checked; finishing a generation step for whoever died in it.  Design, R10.
 */
#ifndef ROWEX_GATE_H
#define ROWEX_GATE_H

#include "../native/core.h"

/* A copy whose copier is dead or stands still, being voided or finished by whoever comes.
 * hdr->gate holds uid << 2 | kind; the uid stays the copier's. */
#define RX_GATE_SETTLE 3u

/* Closes the gate for t and drains the writers until deadline. RX_WOULD_WAIT: given up,
 * reopened. Outside epochs; no cells reserved. */
int rx_gate_close(struct rx_thread *t, enum rx_gate_kind kind, int64_t deadline_ns);
/* RX_OK, or RX_I_RESTART when somebody had opened it over our head. */
int rx_gate_open(struct rx_thread *t, enum rx_gate_kind kind);
/* A writer found the gate closed: waits (t->deadline_ns) for it; reaps a dead holder,
 * voids or finishes the work of one whose gate_progress has stood still for 1 s. */
int rx_gate_wait(struct rx_thread *t);
/* The holder `uid` is dead (called by the reaper): void or finish, open. Repeatable. */
void rx_gate_recover(struct rx_db *db, uint64_t uid);
/* NAME is another file now: the copy in progress, if any, shall not be renamed over it. */
void rx_gate_void_copy(struct rx_db *db);
/* Is it still t's? */
bool rx_gate_mine(const struct rx_thread *t, enum rx_gate_kind kind);
/* Bumps hdr->gate_progress; RX_I_RESTART when the gate is t's no more. Cheap. */
int rx_gate_tick(struct rx_thread *t, enum rx_gate_kind kind);
/*
 * While a holder is inside long system calls: a thread that bumps gate_progress every
 * 100 ms.  It stands still exactly when the process does.
 */
struct rx_gate_pulse { pthread_t thread; pthread_mutex_t mutex; pthread_cond_t wake; struct rx_lockhdr *hdr;
                       uint64_t word; bool running, stop; uint32_t paused; struct rx_gate_pulse *outer; };
void rx_gate_pulse_start(struct rx_gate_pulse *pulse, struct rx_thread *t, enum rx_gate_kind kind);
void rx_gate_pulse_stop(struct rx_gate_pulse *pulse);
/* rx_poll_interrupt() for who holds the gate: the pulse rests, for a signal handler may write to
 * the index (and would wait for its own thread) or never return: then the gate is taken from us. */
int rx_gate_poll(void);

/*
 * If NAME is one generation ahead of hdr->generation (a copy was renamed over it), takes
 * that step for everybody: hdr's dev, ino, brk, allocated, base_count, then generation.
 * RX_OK: taken (by us or by another); RX_ABSENT: NAME is not ahead; else why it could not
 * be seen.  Repeatable, by any number at once.  Leaves the gate as it is.
 */
int rx_gate_finish_step(struct rx_db *db);

/* The name of the copy that `uid` makes: NAME-copy-<of the uuid>-<uid>. */
void rx_copy_name(const struct rx_db *db, uint64_t uid, char name[256]);
/*
 * Copy and rename: a dense key-ordered copy with at least `capacity` bytes of address
 * space, generation + 1.  Holds the gate meanwhile.  RX_E_FULL and everything else:
 * the old generation goes on, unchanged.  RX_OK too when another's copy came first.
 */
int rx_copy_and_rename(struct rx_thread *t, uint64_t capacity);
/* Dense copy of what `map` holds into a fresh map (bulk builder, key order). Checks CRCs. */
int rx_build_copy(struct rx_thread *t, struct rx_map *from, struct rx_map *to, uint64_t *brk, uint64_t *count);

#endif
