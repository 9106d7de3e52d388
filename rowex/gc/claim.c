/*
 * claim.c -- space for an arena that has none: its own limbo, idle arenas, extents from
 * the break, blocks for the file; at capacity a copy and rename; at the very end what
 * can be squeezed out before the answer is "full".
 *
 * All of it but waiting and copying happens while we publish a writer's word, so that
 * no generation can change and no check can look at half of it; the word has the
 * latest epoch there is, so it keeps nobody from reusing anything.
 */
#include <errno.h>
#include <time.h>
#include "cells.h"
#include "epoch.h"
#include "gate.h"
#include "uid.h"
#include "../native/file.h"
#include "../native/flush.h"

#define RX_STEP_MIN (1ull << 20)
#define RX_STEP_UNIT (2ull << 20)
#define RX_STEP_MAX (64ull << 20)
#define RX_TIDY_MIN (64ull << 20) /* smaller heaps are not worth copying for their garbage */
#define RX_SQUEEZE_NS 250000000ll /* more than twice RX_EVICT_NS */
#define RX_ADOPT_LOOKS 64u
/* Extents that only removals may claim: they need limbo blocks when the disk is full. */
#define RX_SLACK 2u

/* The largest epoch that a word can carry: pins nothing. */
#define RX_WORD_LATEST (~RX_EVICTED >> RX_WORD_EPOCH_SHIFT << RX_WORD_EPOCH_SHIFT)

/* RX_OK; or RX_I_RESTART: the caller's next attempt meets the gate or the new generation. */
static int rx_space_enter(struct rx_thread *t)
{
    if (rx_enter_write(t) != RX_OK)
        return RX_I_RESTART;
    if (t->arena == NULL || rx_load(&t->arena->generation) != t->map->generation || rx_poisoned(t->map)) {
        rx_leave_write(t);
        return RX_I_RESTART;
    }
    t->word |= RX_WORD_LATEST;
    rx_store(&t->slot->word, t->word);
    return RX_OK;
}

static uint64_t rx_heap_limit(const struct rx_thread *t)
{
    uint64_t limit = t->map->capacity, max = t->db->max_size;
    return (max && max < limit ? max : limit) & ~(uint64_t)(RX_EXTENT - 1);
}

/* ---- idle arenas ----------------------------------------------------------------- */

/* An idle arena of this generation becomes ours, besides the one that we have. */
static bool rx_take_idle(struct rx_thread *t, struct rx_arena *a)
{
    uint64_t nobody = 0;
    if (rx_load(&a->owner) || rx_load(&a->generation) != t->map->generation || rx_load(&a->batch) ||
        rx_load(&t->arena->batch) || !rx_cas(&a->owner, &nobody, t->uid)) /* a batch stays in its arena */
        return false;
    if (rx_load(&a->generation) == t->map->generation && rx_load(&a->batch) == 0)
        return true;
    rx_store(&a->owner, 0);
    return false;
}

/* We work with `a` now; the arena before becomes idle with its lists. */
static void rx_swap_arena(struct rx_thread *t, struct rx_arena *a)
{
    struct rx_arena *own = t->arena;
    t->arena = a;
    rx_store(&own->owner, 0);
}

/* A bounded look around, beginning after our own arena. */
static bool rx_adopt_some(struct rx_thread *t, uint64_t need)
{
    uint32_t high = rx_load32(&t->db->hdr->arena_high), at = (uint32_t)(t->arena - t->db->arenas);
    for (uint32_t i = 1; i < high && i <= RX_ADOPT_LOOKS; i++) {
        struct rx_arena *a = &t->db->arenas[(at + i) % high];
        if (rx_load(&a->owner) || !rx_arena_offers(a, need) || !rx_take_idle(t, a))
            continue;
        if (rx_arena_offers(a, need)) { /* nobody was faster */
            rx_swap_arena(t, a);
            return true;
        }
        rx_store(&a->owner, 0);
    }
    return false;
}

/* ---- extents ----------------------------------------------------------------------- */

void rx_claim_settle(struct rx_arena *a, uint64_t claim)
{
    uint64_t from = rx_claim_from(claim) * RX_EXTENT;
    rx_store(&a->bump_end, from + rx_claim_count(claim) * RX_EXTENT);
    rx_store(&a->bump, from);
    rx_store(&a->claim, 0);
}

/* The break was last moved by this arena: if it has not noted that yet, note it for it. */
static void rx_claim_help(struct rx_db *db, uint64_t brk)
{
    struct rx_arena *a = &db->arenas[rx_brk_arena(brk)];
    uint64_t claim = rx_load(&a->claim);
    if (rx_claim_state(claim) == RX_CLAIM_PENDING &&
        rx_claim_from(claim) + rx_claim_count(claim) == rx_brk_extents(brk))
        rx_cas(&a->claim, &claim, rx_claim_make(rx_claim_from(claim), rx_claim_count(claim), RX_CLAIM_WON));
}

/*
 * n extents from the break become the bump extent; what was left of the old one becomes
 * a free cell.  `slack` more must be there.
 * Requires  a writer's word is published (no generation ends meanwhile).
 * Commit    the compare-and-swap of hdr->brk, which carries our arena's number.
 * Ordering  claim (pending) before brk; who overwrites our number helps before.  A
 *           pending claim never comes back with the same `from`: the break only rises.
 * Crash     before the swap: brk is at `from`, or beyond with another's number and no
 *           mark: void.  After: our number, or the mark: won; the stores after it are
 *           absolute and the bump is not used before claim is 0.
 * Returns   RX_OK, or RX_I_GROW: the file needs blocks up to *upto first.
 */
static int rx_claim(struct rx_thread *t, uint64_t n, uint64_t slack, uint64_t *upto)
{
    struct rx_db *db = t->db;
    struct rx_arena *a = t->arena;
    uint64_t brk = rx_load(&db->hdr->brk);
    for (;;) {
        uint64_t from = rx_brk_extents(brk);
        *upto = (from + n + slack) * RX_EXTENT;
        if (*upto > rx_load(&db->hdr->allocated) || *upto > rx_heap_limit(t))
            return RX_I_GROW;
        rx_bump_retire(t->map, a);
        if (rx_brk_arena(brk) < rx_load32(&db->hdr->arena_high))
            rx_claim_help(db, brk);
        rx_store(&a->claim, rx_claim_make(from, n, RX_CLAIM_PENDING));
        uint64_t mine = rx_brk_make(from + n, (uint64_t)(a - db->arenas), (brk >> 48) + 1);
        if (rx_cas(&db->hdr->brk, &brk, mine))
            break;
        rx_store(&a->claim, 0);
    }
    rx_claim_settle(a, rx_load(&a->claim));
    return RX_OK;
}

static uint64_t rx_step(const struct rx_thread *t)
{
    uint64_t step = rx_load(&t->db->hdr->allocated) / 32; /* most of what a growing file does not use lies ahead */
    if (step < RX_STEP_MIN)
        return RX_STEP_MIN;
    step = (step + RX_STEP_UNIT - 1) / RX_STEP_UNIT * RX_STEP_UNIT;
    return step < RX_STEP_MAX ? step : RX_STEP_MAX;
}

/*
 * Blocks for the file up to `upto`, better a step further; on a disk that is nearly full
 * smaller steps, down to what is needed.
 */
static int rx_extend(struct rx_thread *t, uint64_t upto, uint64_t *grown)
{
    uint64_t before = rx_load(&t->db->hdr->allocated), limit = rx_heap_limit(t);
    for (uint64_t step = rx_step(t);; step = step / 2 & ~(uint64_t)(RX_EXTENT - 1)) {
        uint64_t target = before + step > upto ? before + step : upto;
        if (target > limit)
            target = limit > upto ? limit : upto;
        int rc = rx_file_allocate(t->db, t->map, target);
        if (rc == RX_OK) {
            rx_fetch_add(&t->db->hdr->growths, 1);
            *grown += target > before ? target - before : 0;
            return rx_load(&t->db->hdr->allocated) >= upto
                       ? RX_OK
                       : rx_fail(RX_E_OS, 0, "the file did not grow to %llu bytes", (unsigned long long)upto);
        }
        if (rc != RX_E_FULL || target <= upto)
            return rc;
    }
}

/* Ahead of the break, so that the next claims need no system call.  A failure is not ours, but a signal is. */
static int rx_extend_ahead(struct rx_thread *t, uint64_t *grown)
{
    uint64_t allocated = rx_load(&t->db->hdr->allocated);
    uint64_t brk = rx_brk_extents(rx_load(&t->db->hdr->brk)) * RX_EXTENT;
    if (brk + rx_step(t) / 2 > allocated && allocated < rx_heap_limit(t))
        return rx_extend(t, allocated + RX_EXTENT, grown) == RX_E_INTERRUPTED ? RX_E_INTERRUPTED : RX_OK;
    return RX_OK;
}

/*
 * For who has time: the flusher, so that writers need not wait while the file system makes room.
 * In the writer's word, as what is allocated is this generation's.  An attempt that cannot be
 * made now, or fails, is left to the writer that comes to the end.
 */
void rx_grow_ahead(struct rx_thread *t)
{
    uint64_t grown = 0;
    if (t->map->readonly || rx_enter_write(t) != RX_OK)
        return;
    rx_extend_ahead(t, &grown);
    rx_leave_write(t);
}

/* How many extents and how much slack a need takes: none is a removal's limbo block. */
static uint64_t rx_extents_for(uint64_t need) { return need ? (need + RX_EXTENT - 1) / RX_EXTENT : 1; }
static uint64_t rx_slack_for(uint64_t need) { return need ? RX_SLACK : 0; }

/*
 * Inside the writer's word.  RX_OK; RX_I_GROW: the heap has reached its limit;
 * RX_E_FULL: the disk is full; RX_WOULD_WAIT; RX_E_INTERRUPTED.
 */
static int rx_find_space(struct rx_thread *t, uint64_t need, uint64_t *grown)
{
    if (need > RX_EXTENT) /* what was replaced lately may be as large: do not wait for a full block */
        rx_limbo_shut(t->db, t->map, t->arena);
    /* Whatever was freed is worth another attempt: it may be just the cells that are wanted.
     * Attempts end, for each such return freed something. */
    if (rx_limbo_sweep(t->db, t->map, t->arena) || rx_arena_offers(t->arena, need) || rx_adopt_some(t, need))
        return RX_OK;
    uint64_t upto;
    while (rx_claim(t, rx_extents_for(need), rx_slack_for(need), &upto) != RX_OK) {
        if (upto > rx_heap_limit(t))
            return RX_I_GROW;
        if (t->deadline_ns == 0)
            return rx_fail(RX_WOULD_WAIT, 0, "for the file to grow");
        int rc = rx_extend(t, upto, grown);
        if (rc)
            return rc;
    }
    return t->deadline_ns ? rx_extend_ahead(t, grown) : RX_OK;
}

/* ---- copying --------------------------------------------------------------------------- */

/* What the arenas of this generation have on their lists, and of their extents left: hints. */
static uint64_t rx_free_total(const struct rx_thread *t)
{
    uint32_t high = rx_load32(&t->db->hdr->arena_high);
    uint64_t total = 0;
    for (uint32_t i = 0; i < high && i < RX_ARENAS; i++) {
        const struct rx_arena *a = &t->db->arenas[i];
        if (rx_load(&a->generation) != t->map->generation)
            continue;
        uint64_t bump = rx_load_rlx(&a->bump), end = rx_load_rlx(&a->bump_end);
        total += rx_load_rlx(&a->free_bytes) + (end > bump ? end - bump : 0);
    }
    return total;
}

static uint64_t rx_live_bytes(const struct rx_thread *t)
{
    uint64_t heap = rx_brk_extents(rx_load(&t->db->hdr->brk)) * RX_EXTENT, free_bytes = rx_free_total(t);
    return heap > free_bytes ? heap - free_bytes : 0;
}

/* The next claim would make the file grow although three quarters of it are free. */
static bool rx_mostly_garbage(const struct rx_thread *t, uint64_t need)
{
    uint64_t heap = rx_brk_extents(rx_load(&t->db->hdr->brk)) * RX_EXTENT;
    return !t->db->memory && heap >= RX_TIDY_MIN && need &&
           heap + (rx_extents_for(need) + RX_SLACK) * RX_EXTENT > rx_load(&t->db->hdr->allocated) &&
           rx_live_bytes(t) < heap / 4;
}

/* RX_OK also when somebody else is at it: the next attempt meets the gate. */
static int rx_copy(struct rx_thread *t, uint64_t need)
{
    if (t->deadline_ns == 0)
        return rx_fail(RX_WOULD_WAIT, 0, "for a copy of the file");
    /* copy.c makes it geometric; this is what the operation at hand takes */
    uint64_t asked = rx_live_bytes(t) + 2 * (rx_extents_for(need) + RX_SLACK) * RX_EXTENT;
    int rc = rx_copy_and_rename(t, asked < RX_OFF_MAX ? asked : RX_OFF_MAX);
    return rc >= RX_I_EVICTED ? RX_OK : rc;
}

/* ---- before the answer is "full" -------------------------------------------------------- */

/* Frees what can be freed in the idle arenas, until one has something new, or enough. */
static bool rx_squeeze_idle(struct rx_thread *t, uint64_t need, bool *pinned)
{
    uint32_t high = rx_load32(&t->db->hdr->arena_high);
    for (uint32_t i = 0; i < high && i < RX_ARENAS; i++) {
        struct rx_arena *a = &t->db->arenas[i];
        if (!rx_take_idle(t, a))
            continue;
        rx_limbo_shut(t->db, t->map, a);
        if (rx_limbo_sweep(t->db, t->map, a) || rx_arena_offers(a, need)) {
            rx_swap_arena(t, a);
            return true;
        }
        *pinned |= rx_limbo_holds(a);
        rx_store(&a->owner, 0);
    }
    return false;
}

/* One round. RX_OK: there is room now, or the caller must look anew; RX_I_GROW: not yet; RX_E_FULL: no hope. */
static int rx_squeeze_once(struct rx_thread *t, uint64_t need)
{
    if (rx_space_enter(t) != RX_OK)
        return RX_OK;
    rx_limbo_shut(t->db, t->map, t->arena);
    bool room = rx_limbo_sweep(t->db, t->map, t->arena) || rx_arena_offers(t->arena, need);
    bool pinned = rx_limbo_holds(t->arena);
    room = room || rx_squeeze_idle(t, need, &pinned);
    rx_leave_write(t);
    return room ? RX_OK : pinned ? RX_I_GROW : RX_E_FULL;
}

/* Or were: who may not call the system cannot tell the dead. */
static bool rx_others_are_here(const struct rx_db *db)
{
    for (uint32_t i = 0; db->lock_fd >= 0 && i < RX_PROCESSES; i++)
        if (i != db->process && rx_load(&db->processes[i].token))
            return true;
    return false;
}

/*
 * The time is our own, not t->deadline_ns: a caller that comes again and again with short
 * ones would never see a stopped reader evicted.  Ctrl-C is heard.
 */
static int rx_squeeze(struct rx_thread *t, uint64_t need)
{
    if (t->deadline_ns)
        (void)rx_reap_all(t->db); /* what dead writers owned lies idle then, and is taken */
    int64_t until = rx_now_ns() + RX_SQUEEZE_NS;
    for (;;) {
        int rc = rx_squeeze_once(t, need);
        if (t->deadline_ns == 0 && rc == RX_E_FULL && rx_others_are_here(t->db))
            return rx_fail(RX_WOULD_WAIT, 0, "for what a dead process may have left");
        if (rc != RX_I_GROW)
            return rc;
        if (t->deadline_ns == 0)
            return rx_fail(RX_WOULD_WAIT, 0, "for readers to let go of retired cells");
        if (rx_now_ns() >= until)
            return RX_E_FULL;
        if (t->db->logged && rx_log_durable(t->db) != rx_log_tail(t->db) &&
            (rc = rx_log_flush(t, rx_log_tail(t->db))) == RX_E_INTERRUPTED)
            return rc;
        rx_unpin(t->db, rx_load(&t->db->hdr->epoch) + 1);
        nanosleep(&(struct timespec){0, 1000000}, NULL);
        if ((rc = rx_poll_interrupt()) != RX_OK)
            return rc;
    }
}

/* The disk is full. */
static int rx_full_disk(struct rx_thread *t, uint64_t need)
{
    int os_errno = rx_error_errno();
    int rc = rx_squeeze(t, need);
    if (rc != RX_E_FULL)
        return rc;
    return rx_fail(RX_E_FULL, os_errno ? os_errno : ENOSPC, "the disk of %s has no room for %llu more bytes",
                   t->db->path ? t->db->path : "the index",
                   (unsigned long long)(rx_extents_for(need) * RX_EXTENT));
}

/* Would a copy, without what is free, have room below max_size?  In one that was just made this is exact, so it ends. */
static bool rx_copy_helps(const struct rx_thread *t, uint64_t need)
{
    uint64_t live = rx_live_bytes(t), limit = rx_heap_limit(t);
    uint64_t extents = rx_extents_for(need) + RX_SLACK;
    return live < limit / 2 && extents <= (limit - live) / RX_EXTENT;
}

/* The heap has reached its limit: max_size, the capacity of memory(), or of this generation. */
static int rx_full_heap(struct rx_thread *t, uint64_t need)
{
    uint64_t max = t->db->max_size;
    bool by_max = max && max <= t->map->capacity;
    if (!by_max && !t->db->memory) {
        int rc = rx_copy(t, need);
        return rc == RX_E_FULL ? rx_full_disk(t, need) : rc;
    }
    int rc = rx_squeeze(t, need);
    if (rc != RX_E_FULL)
        return rc;
    if (by_max && !t->db->memory && rx_copy_helps(t, need) && (rc = rx_copy(t, need)) != RX_E_FULL)
        return rc;
    if (by_max)
        return rx_fail(RX_E_FULL, 0, "max_size (%llu bytes) is reached", (unsigned long long)max);
    return rx_fail(RX_E_FULL, 0, "the capacity of this memory() index (%llu bytes) is used up",
                   (unsigned long long)t->map->capacity);
}

/* A removal found no limbo room, or much is pinned: who pins it? */
static void rx_unpin_oldest(struct rx_thread *t)
{
    struct rx_arena *a = t->arena;
    uint64_t tail = a ? rx_load(&a->limbo_tail) : 0;
    rx_off head = tail ? rx_load(&a->limbo_head) : 0;
    if (head == 0 || head == tail >> 8 || rx_load(&a->generation) != t->map->generation)
        return;
    const struct rx_limbo *b = rx_limbo_at(t->map, head);
    uint64_t stamp = b ? rx_load(&b->stamp) : 0;
    if (stamp)
        rx_unpin(t->db, stamp);
}

/*
 * Much is retired and waits for the log alone: writing that out is better than growing.
 * RX_OK, also when it could not be done.
 */
static int rx_log_catches_up(struct rx_thread *t)
{
    const struct rx_arena *a = t->arena;
    if (!t->db->logged || a == NULL || rx_load(&a->generation) != t->map->generation || !rx_limbo_piled(a) ||
        rx_log_durable(t->db) == rx_log_tail(t->db))
        return RX_OK;
    if (t->deadline_ns == 0) /* it syncs the log */
        return rx_fail(RX_WOULD_WAIT, 0, "for the log to be written out");
    int rc = rx_log_flush(t, rx_log_tail(t->db));
    return rc == RX_WOULD_WAIT || rc == RX_E_INTERRUPTED ? rc : RX_OK;
}

/* For a value that no limit allows: refused before the disk is filled with it. */
static int rx_possible(const struct rx_thread *t, uint64_t need)
{
    uint64_t max = t->db->max_size;
    if (max && need > max)
        return rx_fail(RX_E_FULL, 0, "%llu bytes do not fit into max_size (%llu bytes)", (unsigned long long)need,
                       (unsigned long long)max);
    return RX_OK;
}

int rx_grow(struct rx_thread *t)
{
    uint64_t need = t->grow_need, grown = 0;
    int rc = rx_possible(t, need);
    if (rc)
        return rc;
    if (need == 0)
        rx_unpin_oldest(t);
    if ((rc = rx_log_catches_up(t)) != RX_OK)
        return rc;
    if (t->deadline_ns && rx_mostly_garbage(t, need)) {
        rc = rx_copy(t, need);
        if (rc == RX_OK || rc == RX_E_INTERRUPTED)
            return rc; /* anything else: growing will do */
    }
    if (rx_space_enter(t) != RX_OK)
        return RX_OK;
    rc = rx_find_space(t, need, &grown);
    rx_leave_write(t);
    if (grown)
        rx_event("growth", grown, 0);
    if (rc == RX_I_GROW)
        return rx_full_heap(t, need);
    return rc == RX_E_FULL ? rx_full_disk(t, need) : rc;
}
