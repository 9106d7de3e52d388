/*
 * check.c -- rx_check(): every fault that can be found, without changing anything.
 *
 * A handle that may write closes the gate and compares the whole file with itself:
 * structure, order, checksums, reachable against allocated, length.  One that may not
 * holds nobody up: it reads what can be reached, in order, as a scan does.
 */
#include <stdio.h>
#include <stdlib.h>
#include "batch.h"
#include "cursor.h"
#include "guard.h"
#include "../gc/epoch.h"
#include "../gc/gate.h"
#include "../gc/scan.h"

#define RX_CHECK_TRIES 3
#define RX_FAULTS_KEPT 10000u
#define RX_CHECK_BATCH 1024

/* Faults are told when all is over: not behind the gate, and not if others were let in meanwhile. */
struct rx_fault { struct rx_fault *next; uint64_t offset; char text[]; };
struct rx_faults { struct rx_fault *first, **last; uint64_t count; };

static void rx_faults_init(struct rx_faults *f) { *f = (struct rx_faults){NULL, &f->first, 0}; }

static void rx_faults_add(void *ctx, uint64_t offset, const char *text)
{
    struct rx_faults *f = ctx;
    size_t size = strlen(text) + 1;
    if (f->count++ >= RX_FAULTS_KEPT)
        return; /* counted */
    struct rx_fault *fault = rx_sys_malloc(sizeof *fault + size);
    if (fault == NULL)
        return;
    fault->next = NULL;
    fault->offset = offset;
    memcpy(fault->text, text, size);
    *f->last = fault;
    f->last = &fault->next;
}

static void rx_faults_drop(struct rx_faults *f)
{
    while (f->first) {
        struct rx_fault *next = f->first->next;
        free(f->first);
        f->first = next;
    }
    rx_faults_init(f);
}

static void rx_faults_tell(const struct rx_faults *f, rx_fault_fn tell, void *ctx)
{
    for (const struct rx_fault *fault = f->first; fault && tell; fault = fault->next)
        tell(ctx, fault->offset, fault->text);
}

/* ---- behind the gate -------------------------------------------------------------------- */

static void rx_check_length(struct rx_thread *t, uint64_t reached, struct rx_faults *faults)
{
    char text[128];
    uint64_t counted = rx_db_count(t->db);
    if (counted == reached)
        return;
    snprintf(text, sizeof text, "%llu keys are counted, %llu can be reached", (unsigned long long)counted,
             (unsigned long long)reached);
    rx_faults_add(faults, 0, text);
}

static int rx_check_file(struct rx_thread *t, struct rx_faults *faults)
{
    struct rx_scan_report report = {0};
    int rc = rx_remap_thread(t);
    if (rc == RX_OK)
        rc = rx_scan_verify(t->db, t->map, rx_faults_add, faults, &report);
    if (rc == RX_E_CORRUPT) { /* a fault that ends the walk is a fault like others, not a failure to check */
        rx_faults_add(faults, rx_error_offset(), rx_error_text());
        return RX_OK;
    }
    if (rc)
        return rc;
    rx_check_length(t, report.leaves, faults);
    return RX_OK;
}

static int rx_check_behind_gate(struct rx_thread *t, struct rx_faults *faults)
{
    struct rx_gate_pulse pulse;
    rx_gate_pulse_start(&pulse, t, RX_GATE_CHECK);
    int rc = rx_check_file(t, faults);
    int open = rx_gate_open(t, RX_GATE_CHECK);
    rx_gate_pulse_stop(&pulse);
    return open ? open : rc; /* what was found while others wrote means nothing */
}

static int rx_check_gated(struct rx_thread *t, struct rx_faults *faults)
{
    int rc = RX_I_RESTART;
    for (int i = 0; i < RX_CHECK_TRIES && rc == RX_I_RESTART; i++) {
        rx_faults_drop(faults);
        rx_events_hold(); /* a listener that wrote would wait for our gate */
        rc = rx_gate_close(t, RX_GATE_CHECK, t->deadline_ns);
        if (rc == RX_OK)
            rc = rx_check_behind_gate(t, faults);
        rx_events_release();
    }
    return rc == RX_I_RESTART ? rx_fail(RX_WOULD_WAIT, 0, "the gate was taken from the check again and again") : rc;
}

/* ---- beside writers ------------------------------------------------------------------------ */

struct rx_weak {
    struct rx_cursor cursor;
    uint8_t *last, *key; /* RX_KEY_MAX bytes each */
    uint64_t last_len, key_len, leaves;
    bool begun;
};

static int rx_weak_compare(const uint8_t *a, uint64_t a_len, const uint8_t *b, uint64_t b_len)
{
    uint64_t common = a_len < b_len ? a_len : b_len;
    int order = common ? memcmp(a, b, common) : 0;
    return order ? order : (a_len > b_len) - (a_len < b_len);
}

/* In pieces: an observer sees that we move (R9). */
static uint32_t rx_weak_crc(struct rx_thread *t, const struct rx_leaf_view *v)
{
    uint64_t lengths[2] = {v->key_len, v->value_len}, at = 0;
    uint32_t crc = rx_crc32c(rx_crc32c(0, lengths, sizeof lengths), v->key, v->key_len);
    for (uint64_t piece; at < v->value_len; at += piece) {
        piece = v->value_len - at < 1u << 20 ? v->value_len - at : 1u << 20;
        crc = rx_crc32c(crc, v->value + at, piece);
        if (piece == 1u << 20)
            rx_store(&t->slot->progress, rx_load_rlx(&t->slot->progress) + 1);
    }
    return crc;
}

static int rx_weak_leaf(struct rx_thread *t, struct rx_weak *w, rx_ref leaf, struct rx_faults *faults)
{
    struct rx_leaf_view v;
    char text[96];
    int rc = rx_leaf_view(t->map, leaf, &v);
    if (rc)
        return rc;
    if (v.key_len > RX_KEY_MAX)
        return rx_corrupt(rx_ref_off(leaf), "a key of %llu bytes", (unsigned long long)v.key_len);
    rx_copy_racy(w->key, v.key, v.key_len);
    if (w->begun && rx_weak_compare(w->key, v.key_len, w->last, w->last_len) <= 0)
        return rx_corrupt(rx_ref_off(leaf), "keys are out of order");
    if (t->map->checksum && rx_weak_crc(t, &v) != v.crc) {
        snprintf(text, sizeof text, "the leaf's checksum %08x is not that of its bytes", v.crc);
        rx_faults_add(faults, rx_ref_off(leaf), text);
    }
    uint8_t *swap = w->last;
    w->last = w->key;
    w->last_len = v.key_len;
    w->key = swap;
    w->begun = true;
    w->leaves++;
    return RX_OK;
}

/* Inside one epoch, from `w->last` on; whoever was evicted starts from `w` as it was. */
static int rx_weak_batch(struct rx_thread *t, struct rx_weak *w, struct rx_faults *faults)
{
    int rc = rx_cursor_seek(&w->cursor, t->map, w->begun ? w->last : NULL, w->last_len, true);
    for (int i = 0; i < RX_CHECK_BATCH && rc == RX_OK; i++) {
        rx_ref leaf;
        rc = rx_cursor_step(&w->cursor, &leaf);
        if (rc == RX_OK && (rc = rx_weak_leaf(t, w, leaf, faults)) == RX_ABSENT) { /* its batch has removed it */
            rc = RX_OK;
            i--;
        }
    }
    return rc;
}

/*
 * Where the structure is damaged the walk ends: what lies beyond cannot be reached in
 * order.  An eviction in a batch makes the whole walk start over: it is rare, and keeping
 * every position twice is not worth it.
 */
static int rx_weak_walk(struct rx_thread *t, struct rx_weak *w, struct rx_faults *faults)
{
    for (;;) {
        int rc = rx_enter_read(t);
        if (rc)
            return rc;
        rc = rx_weak_batch(t, w, faults);
        int left = rx_leave_read(t);
        if (left == RX_I_EVICTED) {
            rx_faults_drop(faults);
            w->begun = false;
            w->last_len = w->leaves = 0;
            continue;
        }
        if (left)
            return left;
        if (rc == RX_E_CORRUPT)
            rx_faults_add(faults, rx_error_offset(), rx_error_text());
        if (rc == RX_E_CORRUPT || rc == RX_END)
            return RX_OK;
        rc = rc ? rc : rx_poll_interrupt();
        if (rc)
            return rc;
    }
}

static int rx_check_weak(struct rx_thread *t, struct rx_faults *faults)
{
    struct rx_weak w = {.last = rx_sys_malloc(RX_KEY_MAX), .key = rx_sys_malloc(RX_KEY_MAX)};
    rx_cursor_init(&w.cursor);
    w.cursor.eager = true;
    bool still = !rx_load(&t->db->hdr->marked); /* nobody has written in this session */
    int rc = w.last && w.key ? rx_weak_walk(t, &w, faults) : rx_fail(RX_E_MEMORY, 0, "for a check");
    if (rc == RX_OK && still && !rx_load(&t->db->hdr->marked) && faults->count == 0)
        rx_check_length(t, w.leaves, faults);
    rx_cursor_free(&w.cursor);
    free(w.last);
    free(w.key);
    return rc;
}

int rx_check(rx_index *h, int64_t wait_ns, void (*fault)(void *ctx, uint64_t offset, const char *text), void *ctx,
             uint64_t *faults)
{
    struct rx_thread *t;
    struct rx_faults found;
    *faults = 0;
    int rc = rx_call_begin(h, NULL, &t);
    if (rc)
        return rc;
    t->deadline_ns = rx_deadline(wait_ns);
    rx_faults_init(&found);
    bool weak = h->readonly || t->db->readonly || t->db->lockless;
    rc = weak ? rx_check_weak(t, &found) : rx_check_gated(t, &found);
    rx_call_end(t);
    if (rc == RX_OK) {
        *faults = found.count;
        rx_faults_tell(&found, fault, ctx);
    }
    rx_faults_drop(&found);
    return rc;
}
