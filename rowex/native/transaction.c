/*
 * transaction.c -- several keys at once: all or nothing, at one instant.
 *
 *   make     a cell (struct rx_batch) that lists the keys, and the new leaves; the arena names it
 *   install  in key order, a wrapper takes each key's place, with the leaf before in it
 *   commit   the log's entry is claimed, then one compare-and-swap of the cell's state
 *   settle   each wrapper makes way for what it stands for
 *   retire   wrappers, the leaves that lost, at last the cell
 *
 * T1  A wrapper stands for what the state says: `old` until it is committed, then the item's leaf.
 *     While it is pending nobody changes its slot but to move it along with its node.
 * T2  No wrapper wraps another: who meets a decided one settles it first, a pending one is waited
 *     for with nothing held.  Batches install in key order, so their waits make no circle.
 * T3  A pending batch whose progress stands still is aborted by whom it holds up; its owner
 *     begins anew, with more patience asked of the others each time.  No two batches of a uid
 *     ever show the same progress: who meets one now and another later, does not take them for one.
 * T4  Only the arena's owner installs, commits and retires.  Anybody settles: that is one store
 *     under the node's lock, counts nothing and frees nothing.
 * T5  Nothing is retired before every wrapper is out of the tree, and nothing of the log's entry
 *     before that is claimed (L4).
 * T6  The epoch is left between steps.  When a generation ends before the commit the copy holds
 *     the old values, and the batch is begun anew; after it, the new ones, and all is done.
 * T7  What the dead leave of a batch, or who could not, is taken up by whoever comes by: for a few
 *     ms each, waiting for nobody, for it may want none of its nodes (P4).  `settled` and
 *     `retired` tell the next where to go on.
 */
#include <stdlib.h>
#include "batch.h"
#include "change.h"
#include "flush.h"
#include "guard.h"
#include "file.h"
#include "transaction.h"
#include "../gc/settle.h"

#define RX_PATIENCE_NS 50000000ull
#define RX_PATIENCE_DOUBLINGS 8u
#define RX_OTHERS_NS 10000000ll /* for what others have left, each time somebody comes by */

struct rx_tx {
    size_t n;
    const void *const *keys; /* NULL: somebody else's batch is finished */
    const size_t *key_len;
    const void *const *values; /* NULL: remove */
    const size_t *value_len;
    struct rx_arena *arena; /* of the cell */
    uint64_t generation;
    rx_off cell; /* 0: not made */
    uint64_t patience;
    uint64_t at, count, settled, retired; /* the item that a step is about; what rx_tx_look() found */
    int64_t until_ns;            /* somebody else's: for how long; the rest later */
    bool late;                   /* that was not enough */
    uint8_t *key;                /* a copy of its key */
    uint64_t key_size, key_room;
};

static struct rx_batch *rx_tx_batch(const struct rx_thread *t, const struct rx_tx *x)
{
    return (struct rx_batch *)(void *)(t->base + x->cell);
}

/* Inside an epoch: the batch is still there. */
static int rx_tx_here(const struct rx_thread *t, const struct rx_tx *x)
{
    if (x->cell == 0)
        return RX_OK;
    return t->arena == x->arena && t->map->generation == x->generation && rx_load(&x->arena->batch) == x->cell
               ? RX_OK : RX_I_MOVED;
}

/* One step in an epoch of its own, again and again until it is done. */
static int rx_tx_step(struct rx_thread *t, struct rx_tx *x, int (*step)(struct rx_thread *, struct rx_tx *))
{
    for (unsigned tries = 0;; tries++) {
        int rc = rx_prepare(t);
        if (rc)
            return rc;
        rc = rx_enter_write(t);
        t->waited_uid = 0;
        if (rc == RX_OK) {
            if ((rc = rx_tx_here(t, x)) == RX_OK && (rc = step(t, x)) != RX_OK && !rx_poisoned(t->map))
                rx_unreserve(t);
            rx_leave_write(t);
        }
        if (rx_poisoned(t->map))
            return rx_fail(RX_E_IO, 0, "while changing several keys; it may or may not have happened");
        if (rc < RX_I_EVICTED || (rc = rx_resolve(t, rc, tries)) != RX_OK)
            return rc;
    }
}

/* ---- making ---------------------------------------------------------------------------- */

/* Commit: the arena's naming of the cell. */
static int rx_tx_make(struct rx_thread *t, struct rx_tx *x)
{
    struct rx_arena *a = t->arena;
    uint64_t at = sizeof(struct rx_batch) + x->n * sizeof(struct rx_batch_item), size = at;
    for (size_t i = 0; i < x->n; i++)
        size += x->key_len[i];
    if (size >= 1ull << RX_BATCH_KEY_SHIFT)
        return rx_fail(RX_E_KEY_SIZE, 0, "a batch with %llu bytes of keys", (unsigned long long)size);
    int rc = rx_reserve(t, &size, 1, 0);
    if (rc)
        return rc;
    rx_off off = rx_load_rlx(&a->reserved[RX_RSV_OP]);
    struct rx_batch *b = (struct rx_batch *)(void *)(t->base + off);
    const struct rx_batch head = {.state = t->uid << 2 | RX_B_PENDING, .count = x->n, .progress = ++t->progress,
                                  .patience = x->patience};
    rx_fill(&b->state, &head.state, sizeof head - 8);
    for (size_t i = 0; i < x->n; at += x->key_len[i++]) {
        const struct rx_batch_item item = {0, 0, at | (uint64_t)x->key_len[i] << RX_BATCH_KEY_SHIFT};
        rx_fill(&b->item[i], &item, sizeof item);
        if (x->key_len[i])
            rx_fill((uint8_t *)b + at, x->keys[i], x->key_len[i]);
    }
    rx_store(&b->header, rx_head_sized(RX_K_BATCH, rx_cell_round(size)));
    rx_flush(t->map->fences, b, size);
    rx_store(&a->batch_counted, 0);
    rx_store(&a->batch, off); /* commit */
    rx_store(&a->reserved[RX_RSV_OP], 0);
    x->arena = a;
    x->generation = t->map->generation;
    x->cell = off;
    return RX_OK;
}

static int rx_tx_leaf(struct rx_thread *t, struct rx_tx *x)
{
    uint64_t i = x->at, size = rx_any_leaf_size(x->key_len[i], x->value_len[i]);
    struct rx_batch *b = rx_tx_batch(t, x);
    int rc = rx_reserve(t, &size, 1, 0);
    if (rc)
        return rc;
    rx_ref leaf = rx_leaf_build(t->base, rx_load_rlx(&x->arena->reserved[RX_RSV_OP]), x->keys[i], x->key_len[i],
                                x->values[i], x->value_len[i], t->map->checksum, t->map->fences);
    rx_store(&b->item[i].leaf, leaf);
    rx_flush(t->map->fences, &b->item[i].leaf, 8);
    rx_store(&x->arena->reserved[RX_RSV_OP], 0);
    return RX_OK;
}

/* At each item: a batch may be large, and what is left of it another finishes as well. */
static int rx_tx_poll(struct rx_tx *x)
{
    if (x->at == 0 || (x->at & 127))
        return RX_OK;
    int rc = rx_poll_interrupt();
    x->late = rc == RX_OK && x->keys == NULL && rx_now_ns() >= x->until_ns;
    return x->late ? RX_WOULD_WAIT : rc;
}

/* RX_MISMATCH: aborted meanwhile. */
static int rx_tx_install(struct rx_thread *t, struct rx_tx *x)
{
    int rc = rx_tx_step(t, x, rx_tx_make);
    for (x->at = 0; rc == RX_OK && x->at < x->n; x->at++)
        if ((rc = rx_tx_poll(x)) == RX_OK && x->values[x->at])
            rc = rx_tx_step(t, x, rx_tx_leaf);
    for (x->at = 0; rc == RX_OK && x->at < x->n; x->at++) {
        if ((rc = rx_tx_poll(x)) != RX_OK)
            break;
        struct rx_op op;
        rx_op_set(&op, RX_WRAP, x->keys[x->at], x->key_len[x->at], NULL, 0);
        op.plain = true;
        op.batch = x->cell;
        op.item = x->at;
        op.generation = x->generation;
        rc = rx_change(t, &op);
    }
    return rc;
}

/* ---- committing ------------------------------------------------------------------------- */

/* How many keys more there are when it is committed. */
static int64_t rx_tx_delta(const struct rx_thread *t, const struct rx_batch *b)
{
    int64_t delta = 0;
    for (uint64_t i = 0; i < b->count; i++) {
        const struct rx_wrapper *w = (const struct rx_wrapper *)(const void *)(t->base + rx_load_rlx(&b->item[i].wrapper));
        delta += (rx_load_rlx(&b->item[i].leaf) != 0) - (rx_load_rlx(&w->old) != 0);
    }
    return delta;
}

/*
 * Commit    the compare-and-swap of the state.
 * Ordering  the entry is claimed before it and published after it: who changes a key of ours,
 *           or decides by what it reads of them, has a later entry.
 * Crash     rx_batch_decide() finishes by the state, or aborts and voids the entry.
 */
static int rx_tx_commit(struct rx_thread *t, struct rx_tx *x)
{
    struct rx_batch *b = rx_tx_batch(t, x);
    struct rx_arena *a = x->arena;
    uint64_t state = t->uid << 2 | RX_B_PENDING, what = rx_log_what(x->cell, RX_L_BATCH);
    rx_store_i64(&a->batch_count, rx_load_i64(&a->count) + rx_tx_delta(t, b));
    rx_persist_fence(t->map->fences);
    if (rx_poisoned(t->map))
        return rx_fail(RX_E_IO, 0, "while writing; nothing was changed");
    if (t->db->logged)
        t->log_number = rx_log_take(t->db, a);
    uint64_t after = (state & ~3ull) | RX_B_COMMITTED, real;
    bool won = rx_cas(&b->state, &state, after); /* commit */
    bool lost = rx_poisoned(t->map); /* as in rx_commit(): the file tells, the reaper does the rest */
    if (lost && !rx_file_word(t->map, x->cell + offsetof(struct rx_batch, state), &real))
        return rx_fail(RX_E_IO, 0, "while writing; it may or may not have happened");
    won = lost ? real == after : won;
    if (t->db->logged)
        rx_log_publish(t->db, t->log_number, won ? what : rx_log_what(0, RX_L_VOID));
    if (lost)
        return rx_fail(RX_E_IO, 0, won ? "while writing; it happened" : "while writing; nothing was changed");
    rx_flush(t->map->fences, &b->state, 8);
    rx_persist_fence(t->map->fences);
    if (!won)
        return RX_MISMATCH;
    rx_store_i64(&a->count, rx_load_i64(&a->batch_count));
    rx_store(&a->batch_counted, 1);
    return RX_OK;
}

/* ---- finishing -------------------------------------------------------------------------- */

/* Our own batch: a while for each step, whatever the caller's patience; it has its answer. */
static void rx_tx_breathe(struct rx_thread *t, const struct rx_tx *x)
{
    if (x->keys)
        t->deadline_ns = rx_now_ns() + 2 * (int64_t)RX_PATIENCE_NS;
}

/* How far it is; one that was not committed never will be. */
static int rx_tx_look(struct rx_thread *t, struct rx_tx *x)
{
    uint64_t size;
    struct rx_batch *b = rx_batch_at(t->map, x->cell, &size);
    if (b == NULL)
        return rx_corrupt(x->cell, "a batch to be finished is not there");
    uint64_t state = rx_load(&b->state);
    if ((state & 3) == RX_B_PENDING)
        rx_cas(&b->state, &state, (state & ~3ull) | RX_B_ABORTED);
    x->count = rx_load_rlx(&b->count);
    x->settled = rx_load(&b->settled);
    x->retired = rx_load(&b->retired);
    return RX_OK;
}

/* Crash: too low, and some are looked for once more. */
static int rx_tx_note(struct rx_thread *t, struct rx_tx *x)
{
    rx_store(&rx_tx_batch(t, x)->settled, x->at);
    return RX_OK;
}

/* A copy of the item's key: rx_change() wants one that outlives an epoch. */
static int rx_tx_key(struct rx_thread *t, struct rx_tx *x)
{
    uint64_t size;
    const struct rx_batch *b = rx_batch_at(t->map, x->cell, &size);
    const uint8_t *key = b ? rx_batch_key(b, size, x->at, &x->key_size) : NULL;
    if (key == NULL)
        return rx_corrupt(x->cell, "a batch to be finished is damaged");
    if (x->key_size > x->key_room || x->key == NULL) {
        free(x->key);
        x->key_room = x->key_size * 2 + 64;
        if ((x->key = rx_sys_malloc(x->key_room)) == NULL)
            return rx_fail(RX_E_MEMORY, 0, "for finishing a batch");
    }
    memcpy(x->key, key, x->key_size);
    return RX_OK;
}

/* Never RX_E_FULL for want of a copy's cell: rx_change() then clears the slot. */
static int rx_tx_settle(struct rx_thread *t, struct rx_tx *x)
{
    rx_tx_breathe(t, x);
    int rc = rx_tx_step(t, x, rx_tx_key);
    if (rc)
        return rc;
    struct rx_op op;
    rx_op_set(&op, RX_SETTLE, x->key, x->key_size, NULL, 0);
    op.batch = x->cell;
    op.generation = x->generation;
    rc = rx_change(t, &op);
    return rc == RX_ABSENT ? RX_OK : rc;
}

/*
 * Item x->at's cells go to limbo; the last, the batch's own.  The intent's slot is `retired`:
 * only we store there, so a reaper tells whether it happened.
 */
static int rx_tx_retire(struct rx_thread *t, struct rx_tx *x)
{
    struct rx_batch *b = rx_tx_batch(t, x);
    rx_off cells[3];
    int rc = rx_reserve(t, NULL, 0, 3);
    if (rc)
        return rc;
    unsigned n = 1;
    if (x->at == x->count)
        cells[0] = x->cell;
    else
        n = rx_batch_losers(t->map, b, x->at, cells);
    for (unsigned i = 0; i < n; i++)
        rx_store_rlx(&x->arena->unlinked[i], cells[i]);
    rx_store_rlx(&x->arena->unlinked_count, n);
    return rx_commit(t, x->cell + offsetof(struct rx_batch, retired), x->at, x->at + 1, 0);
}

static int rx_tx_forget(struct rx_thread *t, struct rx_tx *x)
{
    (void)t;
    rx_store(&x->arena->batch, 0);
    return RX_OK;
}

/*
 * Requires  t->arena is x->arena, its batch decided, its count and its log entry too.
 * Returns   RX_OK, RX_I_MOVED (nothing is left to be done), or why it could not be done now.
 */
static int rx_tx_finish(struct rx_thread *t, struct rx_tx *x)
{
    rx_tx_breathe(t, x);
    int rc = rx_tx_step(t, x, rx_tx_look);
    for (x->at = x->settled; rc == RX_OK && x->retired == 0 && x->at < x->count; x->at++) {
        if ((x->at & 127) == 0 && x->at != x->settled && /* noted, then stopped: every attempt gets on */
            ((rc = rx_tx_step(t, x, rx_tx_note)) != RX_OK || (rc = rx_tx_poll(x)) != RX_OK))
            break;
        rc = rx_tx_settle(t, x);
    }
    rx_tx_breathe(t, x);
    for (x->at = x->retired; rc == RX_OK && x->at <= x->count; x->at++)
        if ((rc = rx_tx_poll(x)) == RX_OK)
            rc = rx_tx_step(t, x, rx_tx_retire);
    if (rc == RX_OK)
        rc = rx_tx_step(t, x, rx_tx_forget);
    free(x->key);
    x->key = NULL;
    return rc;
}

/* As rx_batches_finish(); *late: there was more than there was time for. */
static int rx_others_finish(struct rx_thread *t, bool *late)
{
    struct rx_db *db = t->db;
    struct rx_arena *own = t->arena;
    uint32_t high = rx_load32(&db->hdr->arena_high);
    bool quiet = t->quiet;
    uint64_t need = t->grow_need;
    int64_t deadline_ns = t->deadline_ns, now = rx_now_ns();
    int rc = RX_OK;
    t->quiet = true;
    if (deadline_ns)
        t->deadline_ns = now; /* over: system calls are allowed, waiting is not */
    *late = false;
    for (uint32_t i = 0; i < high && i < RX_ARENAS && own && rc != RX_E_INTERRUPTED && !*late; i++) {
        struct rx_arena *a = &db->arenas[i];
        uint64_t nobody = 0;
        if (rx_load(&a->owner) || !rx_arena_left(db, a) || !rx_cas(&a->owner, &nobody, t->uid))
            continue;
        struct rx_tx x = {.arena = a, .generation = rx_load(&a->generation), .cell = rx_load(&a->batch),
                          .until_ns = now + RX_OTHERS_NS};
        t->arena = a;
        if (x.cell)
            rc = rx_tx_finish(t, &x); /* what could not be done now is left to the next */
        *late = x.late;
        rx_arena_release(t); /* `a`, or what took its place when the generation ended */
        t->arena = own;
    }
    t->quiet = quiet;
    t->grow_need = need;
    t->deadline_ns = deadline_ns;
    return rc == RX_E_INTERRUPTED ? rc : RX_OK;
}

int rx_batches_finish(struct rx_thread *t)
{
    bool late;
    return rx_others_finish(t, &late);
}

int rx_batches_grow(struct rx_thread *t)
{
    bool late;
    int rc = rx_others_finish(t, &late);
    if (rc == RX_OK && (rc = rx_grow(t)) == RX_E_FULL && late)
        rc = RX_OK; /* there is more to be had */
    return rc;
}

/* ---- the whole ---------------------------------------------------------------------------- */

/* RX_OK; RX_MISMATCH, RX_I_MOVED: to be begun anew; else an error, and nothing was changed. */
static int rx_tx_once(struct rx_thread *t, struct rx_tx *x)
{
    x->cell = 0;
    int rc = rx_tx_install(t, x);
    if (rc == RX_OK) {
        t->quiet = false; /* this one needs room in the log */
        rc = rx_tx_step(t, x, rx_tx_commit);
        t->quiet = true;
    }
    if (rc == RX_I_MOVED || x->cell == 0)
        return rc;
    int64_t deadline_ns = t->deadline_ns;
    int finished = rx_tx_finish(t, x);
    t->deadline_ns = deadline_ns;
    if (finished != RX_OK && finished != RX_I_MOVED && t->arena)
        rx_arena_release(t); /* a stopped process holds a node of ours, say: another finishes it, or we, later */
    return rc;
}

static int rx_tx_run(struct rx_thread *t, struct rx_tx *x)
{
    t->quiet = true;
    for (unsigned tries = 0;; tries++) {
        x->patience = RX_PATIENCE_NS << (tries < RX_PATIENCE_DOUBLINGS ? tries : RX_PATIENCE_DOUBLINGS);
        int rc = rx_tx_once(t, x);
        if (rc == RX_MISMATCH || rc == RX_I_MOVED)
            rc = rx_poll_interrupt();
        else
            x->n = 0;
        if (rc || x->n == 0) {
            t->quiet = false;
            return rc;
        }
    }
}

static int rx_tx_check(const struct rx_tx *x)
{
    for (size_t i = 0; i < x->n; i++) {
        int rc = rx_sizes_allowed(x->key_len[i], x->values[i] ? x->value_len[i] : 0);
        if (rc)
            return rc;
        if (i == 0)
            continue;
        size_t a = x->key_len[i - 1], b = x->key_len[i], common = a < b ? a : b;
        int order = common ? memcmp(x->keys[i - 1], x->keys[i], common) : 0;
        if (order > 0 || (order == 0 && a >= b))
            return rx_fail(RX_E_ARGUMENT, 0, "the keys of a batch must rise");
    }
    return RX_OK;
}

static uint64_t rx_tx_bytes(const struct rx_tx *x)
{
    uint64_t bytes = 0;
    for (size_t i = 0; i < x->n; i++)
        bytes += x->key_len[i] + (x->values[i] ? x->value_len[i] : 0) + 8;
    return bytes;
}

int rx_batch_apply(rx_index *h, rx_thread *given, size_t n, const void *const *keys, const size_t *key_len,
                   const void *const *values, const size_t *value_len, int64_t wait_ns, uint64_t *ticket)
{
    struct rx_thread *t;
    struct rx_tx x = {.n = n, .keys = keys, .key_len = key_len, .values = values, .value_len = value_len};
    int rc = rx_tx_check(&x);
    if (rc)
        return rc;
    if (h->readonly)
        return rx_fail(RX_E_READONLY, 0, "nothing was changed");
    if ((rc = rx_call_begin(h, given, &t)) != RX_OK)
        return rc;
    t->deadline_ns = rx_deadline(wait_ns);
    if (n && (rc = rx_prepare(t)) == RX_OK && t->db->logged)
        rc = rx_admit(t, rx_tx_bytes(&x), false);
    if (n && rc == RX_OK && (rc = rx_batches_finish(t)) == RX_OK) {
        rc = rx_tx_run(t, &x);
        if (rc == RX_OK && ticket)
            *ticket = t->db->logged ? rx_log_ticket(t->db, t->log_number) : 0;
        if (rc == RX_OK && t->db->logged)
            rx_log_notice(t->db);
    }
    rx_call_end(t);
    return rc;
}
