/*
 * copy.c -- copy and rename: the next generation of the file, dense and in key order.
 * gate.c has the protocol (steps 1 to 6) and why it holds.
 */
#include "gate.h"
#include "build.h"
#include "epoch.h"
#include "uid.h"
#include "../native/cursor.h"
#include "../native/file.h"
#include "../native/flush.h"

#define RX_CAPACITY_AUTO (1ull << 45) /* what we choose ourselves; address space has 47 bits */
#define RX_CAPACITY_UNIT (2ull << 20)

/* ---- building ------------------------------------------------------------------- */

/* Everybody sees that we move; Ctrl-C stops us; so does the loss of the gate. */
static int rx_copy_tick(void *ctx)
{
    int rc = rx_gate_tick(ctx, RX_GATE_COPY);
    return rc ? rc : rx_gate_poll();
}

static int rx_copy_leaf(struct rx_builder *b, struct rx_map *from, rx_ref leaf)
{
    struct rx_leaf_view v;
    int rc = rx_leaf_view(from, leaf, &v);
    if (rc)
        return rc == RX_ABSENT ? RX_OK : rc; /* its batch has removed it */
    uint32_t crc = 0;
    rc = rx_builder_add(b, v.key, v.key_len, v.value, v.value_len, from->checksum ? &crc : NULL);
    if (rc == RX_E_CORRUPT)
        return rx_corrupt(rx_ref_off(leaf), "keys are out of order");
    if (rc == RX_OK && from->checksum && crc != v.crc)
        return rx_corrupt(rx_ref_off(leaf), "the leaf's checksum is %08x, its bytes have %08x", v.crc, crc);
    return rc;
}

/*
 * Requires  t holds the gate, writers are drained: what `from` holds stands still.  (If the
 *           gate is taken from us while we are stopped, we may read cells that are being
 *           reused: everything is bounds-checked, and the result is thrown away.)
 */
int rx_build_copy(struct rx_thread *t, struct rx_map *from, struct rx_map *to, uint64_t *brk, uint64_t *count)
{
    struct rx_builder b;
    struct rx_cursor c;
    rx_ref leaf;
    rx_cursor_init(&c);
    c.eager = true;
    int rc = rx_builder_init(&b, to, from->checksum, rx_copy_tick, t);
    if (rc == RX_OK)
        rc = rx_cursor_seek(&c, from, NULL, 0, false);
    while (rc == RX_OK && (rc = rx_cursor_step(&c, &leaf)) == RX_OK)
        rc = rx_copy_leaf(&b, from, leaf);
    if (rc == RX_END)
        rc = rx_builder_finish(&b, brk);
    *count = b.count;
    rx_cursor_free(&c);
    rx_builder_free(&b);
    return rc;
}

/* The new file's superblock: the old one's, a generation on, in use by this session. */
static int rx_copy_super(struct rx_db *db, const struct rx_map *from, struct rx_map *to, uint64_t capacity,
                         uint64_t brk, uint64_t count)
{
    struct rx_super fresh = *rx_super_of(from);
    fresh.generation = from->generation + 1;
    fresh.capacity = capacity;
    rx_super_seal_fixed(&fresh);
    fresh.state = RX_STATE_IN_USE; /* the session is the old file's: it goes on */
    memcpy(fresh.boot_id, db->boot_id, sizeof fresh.boot_id);
    int rc = rx_fd_identity(to->fd, &fresh.dev, &fresh.ino);
    if (rc)
        return rc;
    fresh.brk = brk;
    fresh.count = count;
    memset(fresh.head, 0, sizeof fresh.head);
    memset(fresh.tail, 0, sizeof fresh.tail);
    rx_super_seal_state(&fresh);
    rx_fill(to->base, &fresh, sizeof fresh);
    return RX_OK;
}

/* ---- how large ----------------------------------------------------------------------- */

/* Bytes of the heap that are neither free nor retired; the arenas' sums are hints. */
static uint64_t rx_used_estimate(struct rx_db *db)
{
    uint64_t brk = (rx_load(&db->hdr->brk) & ((1ull << 36) - 1)) * RX_EXTENT, unused = 0;
    uint64_t generation = rx_load(&db->hdr->generation);
    uint32_t high = rx_load32(&db->hdr->arena_high);
    for (uint32_t i = 0; i < high && i < RX_ARENAS; i++)
        if (rx_load(&db->arenas[i].generation) == generation)
            unused += rx_load(&db->arenas[i].free_bytes) + rx_load(&db->arenas[i].retired_bytes);
    return unused < brk ? brk - unused : brk;
}

/*
 * At least what is asked; sixteen times what is used, so that copying stays amortised; and no
 * less than before, which who opens the file may rely on (rx_options_agree()).
 */
static uint64_t rx_copy_capacity(struct rx_db *db, const struct rx_map *from, uint64_t asked)
{
    uint64_t brk = (rx_load(&db->hdr->brk) & ((1ull << 36) - 1)) * RX_EXTENT;
    uint64_t used = rx_used_estimate(db), least = brk + RX_EXTENT; /* dense is never larger than before */
    uint64_t capacity = used < RX_CAPACITY_AUTO / 16 ? used * 16 : RX_CAPACITY_AUTO;
    uint64_t floor = from->capacity < RX_CAPACITY_AUTO ? from->capacity : RX_CAPACITY_AUTO;
    capacity = capacity > floor ? capacity : floor;
    capacity = capacity > least ? capacity : least;
    capacity = capacity > asked ? capacity : asked;
    return (capacity + RX_CAPACITY_UNIT - 1) / RX_CAPACITY_UNIT * RX_CAPACITY_UNIT;
}

/* ---- the steps ------------------------------------------------------------------------ */

/* NAME must still name the generation that we copied: a file put in its place by others stays. */
static int rx_copy_still_ours(struct rx_db *db, const struct rx_map *from)
{
    struct rx_peek seen;
    int rc = rx_name_peek(db, &seen);
    if (rc < 0)
        return rc;
    if (rc == RX_ABSENT || seen.generation != from->generation || seen.ino != rx_load(&db->hdr->ino) ||
        seen.dev != rx_load(&db->hdr->dev))
        return rx_fail(RX_E_REPLACED, 0, "%s no longer names the open file; the copy was not put there", db->path);
    return RX_OK;
}

/* Steps 3 to 5, into a copy that has its name already. */
static int rx_copy_fill(struct rx_thread *t, struct rx_map *from, struct rx_map *to, uint64_t capacity,
                        const char *name)
{
    struct rx_db *db = t->db;
    uint64_t brk = 0, count = 0;
    int rc = db->logged ? rx_log_flush(t, rx_log_tail(db)) : RX_OK; /* entries name leaves of this generation */
    if (rc == RX_OK)
        rc = rx_build_copy(t, from, to, &brk, &count);
    if (rc == RX_OK)
        rc = rx_copy_super(db, from, to, capacity, brk, count);
    if (rc == RX_OK)
        rc = rx_copy_sync(to, brk);
    if (rc == RX_OK)
        rc = rx_copy_still_ours(db, from);
    if (rc == RX_OK && (rx_poisoned(from) || rx_poisoned(to)))
        rc = rx_fail(RX_E_IO, 0, "while copying %s; nothing was changed", db->path);
    if (rc == RX_OK && !rx_gate_mine(t, RX_GATE_COPY)) /* step 4: after the copy exists, before the rename */
        rc = RX_I_RESTART;
    return rc ? rc : rx_copy_rename(db, name); /* commit */
}

/*
 * Step 2 to 5 with t's own copy name.  RX_OK: renamed.  Else whatever was made is gone,
 * unless the rename itself is in doubt: then the settler (or we) will see.
 */
static int rx_copy_make(struct rx_thread *t, uint64_t asked)
{
    struct rx_db *db = t->db;
    struct rx_map *from = t->map, *to = NULL;
    char name[256];
    uint64_t capacity = rx_copy_capacity(db, from, asked);
    rx_copy_name(db, t->uid, name);
    int rc = rx_copy_create(db, from, capacity, name, &to);
    if (rc == RX_OK)
        rc = rx_copy_fill(t, from, to, capacity, name);
    if (rc == RX_E_CORRUPT && !rx_gate_mine(t, RX_GATE_COPY))
        rc = RX_I_RESTART; /* we stood still and read what others were changing */
    if (rc)
        (void)rx_copy_unlink(db, name);
    rx_copy_drop(to);
    return rc;
}

/*
 * The gate at the end, whatever came before: finished if NAME is ahead, then open.  If it
 * was taken from us, the settlers' work is done along with theirs.
 */
static int rx_copy_end(struct rx_thread *t, int rc)
{
    if (rc == RX_OK && (rc = rx_gate_finish_step(t->db)) == RX_ABSENT &&
        rx_load(&t->db->hdr->generation) > t->map->generation && rx_load(&t->db->hdr->generation) != RX_GENERATION_REPLACED)
        rc = RX_OK; /* another has taken the step already */
    if (rc < 0 || rx_gate_open(t, RX_GATE_COPY) != RX_OK)
        rx_gate_recover(t->db, t->uid); /* takes the word, looks at NAME, opens */
    if (rc == RX_I_RESTART || rc == RX_ABSENT)
        return rx_fail(RX_WOULD_WAIT, 0, "the copy was given up: this process stood still, or another took the gate");
    return rc;
}

/* A uid for this one copy (gate.c), busy from the start so that a close waits for it. */
static int rx_copier_new(struct rx_thread *t, struct rx_thread **out)
{
    struct rx_thread *copier = NULL;
    int rc = rx_thread_new(t->db, RX_S_WRITER, &copier);
    if (rc)
        return rc;
    pthread_mutex_lock(&t->db->mutex);
    bool closing = copier->db == NULL; /* a close between the two has taken its slot back */
    __atomic_store_n(&copier->busy, 1, __ATOMIC_RELEASE);
    pthread_mutex_unlock(&t->db->mutex);
    if (closing) {
        rx_thread_drop(copier);
        return rx_fail(RX_E_CLOSED, 0, "the index was closed meanwhile");
    }
    copier->deadline_ns = t->deadline_ns;
    *out = copier;
    return RX_OK;
}

/* With the gate closed: *copied tells whether the copy is ours. */
static int rx_copy_behind_gate(struct rx_thread *copier, uint64_t generation, uint64_t capacity, bool *copied)
{
    struct rx_gate_pulse pulse;
    *copied = false;
    rx_gate_pulse_start(&pulse, copier, RX_GATE_COPY);
    int rc = rx_remap_thread(copier);
    if (rc == RX_OK && copier->map->generation == generation) {
        rc = rx_copy_make(copier, capacity);
        *copied = rc == RX_OK;
        rc = rx_copy_end(copier, rc);
    } else if (rx_gate_open(copier, RX_GATE_COPY) != RX_OK) { /* another's copy came first, or an error */
        rx_gate_recover(copier->db, copier->uid);
    }
    rx_gate_pulse_stop(&pulse);
    return rc;
}

int rx_copy_and_rename(struct rx_thread *t, uint64_t capacity)
{
    struct rx_db *db = t->db;
    struct rx_thread *copier = NULL;
    uint64_t generation = t->map->generation, before = __atomic_load_n(&t->map->size, __ATOMIC_RELAXED);
    bool copied = false;
    if (db->memory)
        return rx_fail(RX_E_UNSUPPORTED, 0, "an index in memory cannot be copied and renamed");
    if (db->readonly)
        return rx_fail(RX_E_READONLY, 0, "nothing was changed");
    if (t->deadline_ns == 0)
        return rx_fail(RX_WOULD_WAIT, 0, "copying the file takes a while");
    int rc = rx_mark_in_use(db, t->deadline_ns); /* a copy that is to be renamed over the file counts as a store to it (R4) */
    if (rc == RX_OK)
        rc = rx_copier_new(t, &copier);
    if (rc)
        return rc;
    rx_events_hold(); /* a listener that wrote would wait for our gate */
    rc = rx_gate_close(copier, RX_GATE_COPY, t->deadline_ns);
    t->waited_uid = copier->waited_uid;
    if (rc == RX_OK)
        rc = rx_copy_behind_gate(copier, generation, capacity, &copied);
    rx_thread_drop(copier);
    rx_events_release();
    if (rc == RX_OK)
        rc = rx_remap_thread(t);
    if (copied)
        rx_event("copy", before, rx_load(&db->hdr->allocated));
    return rc;
}
