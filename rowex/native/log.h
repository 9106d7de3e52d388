/*
 * log.h -- the log's ring: one sequence of entries for all threads and processes.
 * Design, section 6; the files are in segment.h, writing them out in flush.h.
 *
 * A writer, inside its commit: arms its intent, claims the next number, stores the
 * commit, publishes the entry.  So the order of entries is the order of commits of each
 * key, and whoever saw a value and then writes has the higher number.
 *
 * L1  An entry is decided when its `number` is its own; only its writer publishes it, or
 *     the reaper of that writer (intent.c), and nobody else touches its place before it
 *     is durable.
 * L2  The claim of number n is in exactly one arena: that which log_tail names while it
 *     says n + 1, or one whose log_claim says n and WON.  Whoever moves the tail on first
 *     marks the claim of the arena that it names.
 * L3  log_tail - log_durable <= log_size: a writer looks for room before its first lock
 *     and leaves RX_SLOTS entries free, as many as may have looked before it.
 * L4  What an entry names is not reused before it is durable: limbo blocks are stamped
 *     with the tail when they are closed (limbo.c).
 */
#ifndef ROWEX_LOG_H
#define ROWEX_LOG_H

#include "core.h"

enum rx_log_claim { RX_LOG_PENDING = 1, RX_LOG_WON = 2 };

static inline uint64_t rx_log_number(uint64_t tail) { return tail >> RX_LOG_TAIL_SHIFT; }
static inline uint64_t rx_log_tail(const struct rx_db *db) { return rx_log_number(rx_load(&db->hdr->log_tail)); }
/*
 * The header has the numbers of the index's log: one was begun in this session, or is gone on with.
 * Else the file's superblock has them, or they are lost with NAME-lock.
 */
static inline bool rx_log_known(const struct rx_db *db) { return rx_load(&db->hdr->log_incarnation) != 0; }
/* Entries below it are durable. */
static inline uint64_t rx_log_durable(const struct rx_db *db)
{
    return rx_load(&db->hdr->log_durable) >> RX_LOG_DURABLE_SHIFT;
}
static inline uint64_t rx_log_what(rx_ref leaf, enum rx_log_kind kind)
{
    return (leaf & RX_REF_OFF_MASK) | (leaf & RX_KIND_MASK) | (uint64_t)kind << RX_LOG_KIND_SHIFT;
}
static inline struct rx_log_entry *rx_log_entry(const struct rx_db *db, uint64_t number)
{
    return &db->ring[number & (rx_load_rlx(&db->hdr->log_size) - 1)];
}
/* The ticket of an entry; position and durable are those of the last entry before a number. */
static inline uint64_t rx_log_ticket(const struct rx_db *db, uint64_t number)
{
    return rx_load_rlx(&db->hdr->log_incarnation) << RX_LOG_TICKET_BITS | (number + 1);
}

/*
 * L2.  Ordering: the compare-and-swap of the claim comes before that of the tail.
 */
static inline void rx_log_settle(const struct rx_db *db, uint64_t tail)
{
    struct rx_arena *last = &db->arenas[tail & (RX_ARENAS - 1)];
    uint64_t pending = (rx_log_number(tail) - 1) << 2 | RX_LOG_PENDING;
    if (rx_load(&last->log_claim) == pending)
        rx_cas(&last->log_claim, &pending, (pending & ~3ull) | RX_LOG_WON);
}

/*
 * Requires  the intent is armed, its log_what says what the entry will be; L3.
 * Commit    the compare-and-swap of the tail.
 * Crash     before it: nobody's number.  After it: the reaper finds the claim (L2).
 */
static inline uint64_t rx_log_take(struct rx_db *db, struct rx_arena *a)
{
    uint64_t tail = rx_load(&db->hdr->log_tail), mine = (uint64_t)(a - db->arenas), number;
    do {
        number = rx_log_number(tail);
        rx_store(&a->log_claim, number << 2 | RX_LOG_PENDING);
        if (RX_UNLIKELY((tail & (RX_ARENAS - 1)) != mine))
            rx_log_settle(db, tail);
    } while (RX_UNLIKELY(!rx_cas(&db->hdr->log_tail, &tail, (number + 1) << RX_LOG_TAIL_SHIFT | mine)));
    return number;
}

/* Commit: the store of `number`; pairs with the acquire of whoever writes the log. */
static inline void rx_log_publish(const struct rx_db *db, uint64_t number, uint64_t what)
{
    struct rx_log_entry *e = rx_log_entry(db, number);
    rx_store_rlx(&e->what, what);
    rx_store(&e->number, number + 1);
}

/* The reaper: the entry that `a` may have claimed is published, or void.  Repeatable. */
void rx_log_decide(struct rx_db *db, struct rx_arena *a, uint64_t what);
/* Who has claimed `number` and not published it: a uid, 0 when nobody is found. */
uint64_t rx_log_owner(struct rx_db *db, uint64_t number);

/* L3, before the first lock; false: wait for the log (flush.h). */
static inline bool rx_log_has_room(const struct rx_db *db)
{
    const struct rx_lockhdr *hdr = db->hdr;
    uint64_t durable = rx_log_durable(db); /* before the tail, which is never behind it */
    return rx_log_tail(db) - durable < rx_load_rlx(&hdr->log_size) - RX_SLOTS &&
           RX_LIKELY(rx_load_rlx(&hdr->log_failed) == 0);
}

#endif
