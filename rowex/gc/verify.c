/*
 * verify.c -- the walk of scan.c without changing anything, and all that can be compared:
 * every leaf's key with its path and its checksum, every node's slots with its key bytes,
 * the heap with what the tree, the free lists and the limbo blocks claim of it.
 *
 * Requires the gate: no writer is inside.  Bounds as in scan.c: a cell is visited once.
 * A fault does not end the walk; what hangs below it is left out.
 */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include "bits.h"
#include "cells.h"
#include "gate.h"
#include "scan.h"
#include "settle.h"
#include "../native/file.h"
#include "../native/node.h"

#define RX_STRAYS_TOLD 100u

struct rx_visit { rx_ref ref; uint32_t level; uint8_t byte; };

struct rx_verifier {
    struct rx_db *db;
    struct rx_map *map;
    rx_fault_fn fault;
    void *ctx;
    uint64_t limit, polls;
    struct rx_bits reached, owned; /* by the tree; by lists, limbo and reservations */
    struct rx_visit *todo;
    size_t todo_count, todo_room;
    uint8_t *path; /* the key bytes above what is being visited */
    struct rx_scan_report *report;
};

__attribute__((format(printf, 3, 4)))
static void rx_fault_at(struct rx_verifier *v, rx_off off, const char *format, ...)
{
    char text[512];
    va_list args;
    int n = snprintf(text, sizeof text, "at offset %llu: ", (unsigned long long)off);
    va_start(args, format);
    vsnprintf(text + n, sizeof text - (size_t)n, format, args);
    va_end(args);
    v->fault(v->ctx, off, text);
}
/* The error that a check has just recorded, with its own text. */
static void rx_fault_error(struct rx_verifier *v) { v->fault(v->ctx, rx_error_offset(), rx_error_text()); }

static int rx_verify_poll(struct rx_verifier *v) { return (++v->polls & 255) == 0 ? rx_gate_poll() : RX_OK; }

/* ---- the tree ----------------------------------------------------------------------- */

/* A reference that may be followed: sane, inside the file, and the first to lead there. */
static bool rx_verify_ref(struct rx_verifier *v, rx_off from, rx_ref ref)
{
    rx_off off = rx_ref_off(ref);
    bool leaf = rx_ref_is_leaf(ref);
    if ((!leaf && !rx_kind_is_node(rx_ref_kind(ref))) || rx_ref_is_odd(ref, leaf))
        rx_fault_at(v, from, "the node holds the impossible reference %016llx", (unsigned long long)ref);
    else if (off < RX_HEAP || off + RX_CELL_MIN > v->limit)
        rx_fault_at(v, from, "the node's reference %016llx leads outside the file", (unsigned long long)ref);
    else if (!rx_bits_set(&v->reached, off))
        rx_fault_at(v, off, "two references lead here; one is in the node at %llu", (unsigned long long)from);
    else
        return true;
    return false;
}

/* `depth` bytes of the path lead to the slot; `byte` is the slot's, -1: the key ends there. */
static void rx_verify_leaf(struct rx_verifier *v, rx_off from, rx_ref ref, uint64_t depth, int byte)
{
    struct rx_leaf_view leaf;
    struct rx_wrapped w;
    if (!rx_verify_ref(v, from, ref))
        return;
    if (rx_ref_is_wrapper(ref)) { /* of a batch that is not finished: what it stands for */
        if (rx_wrapper_view(v->map, ref, &w)) {
            rx_fault_error(v);
            return;
        }
        if ((ref = rx_wrapped_ref(&w)) == 0 || !rx_verify_ref(v, from, ref))
            return;
    }
    rx_off off = rx_ref_off(ref);
    if (rx_leaf_view(v->map, ref, &leaf)) {
        rx_fault_error(v);
        return;
    }
    v->report->leaves++;
    if (leaf.key_len > RX_KEY_MAX)
        rx_fault_at(v, off, "a key of %llu bytes", (unsigned long long)leaf.key_len);
    else if (byte < 0 ? leaf.key_len != depth : leaf.key_len <= depth || leaf.key[depth] != byte)
        rx_fault_at(v, off, "the leaf's key does not fit its slot in the node at %llu", (unsigned long long)from);
    else if (memcmp(leaf.key, v->path, depth) != 0)
        rx_fault_at(v, off, "the leaf's key does not follow the path to the node at %llu", (unsigned long long)from);
    if (v->map->checksum && rx_leaf_crc(&leaf) != leaf.crc)
        rx_fault_at(v, off, "the leaf's checksum is %08x, its bytes have %08x", leaf.crc, rx_leaf_crc(&leaf));
}

static void rx_verify_slots(struct rx_verifier *v, struct rx_node *n, unsigned shape, rx_off off, int children)
{
    unsigned count = rx_load8(&n->count), slots = rx_shape_slots(shape);
    const rx_ref *slot = rx_node_slots(n, shape);
    if (rx_shape_kind(shape) != RX_K_N256) {
        if (count > slots)
            rx_fault_at(v, off, "the node has given %u of %u slots", count, slots);
        for (unsigned i = count; i < slots; i++)
            if (rx_load_rlx(slot + i))
                rx_fault_at(v, off, "slot %u is filled but was not given", i);
    }
    int live = rx_node_live(n, shape);
    if (live != children)
        rx_fault_at(v, off, "%d slots are filled, %d can be found by their key bytes", live, children);
    if (rx_load(&n->lock) & RX_OBSOLETE)
        rx_fault_at(v, off, "the node is reachable but marked obsolete");
}

static int rx_verify_node(struct rx_verifier *v, struct rx_visit at)
{
    struct rx_node *n;
    uint8_t bytes[256];
    rx_ref refs[256];
    rx_off off = rx_ref_off(at.ref);
    unsigned shape = rx_ref_shape(at.ref);
    if (at.level)
        v->path[at.level - 1] = at.byte;
    if (rx_node_check(v->map, at.ref, at.level, &n)) {
        rx_fault_error(v);
        return RX_OK;
    }
    v->report->nodes++;
    uint64_t depth = (uint64_t)at.level + n->prefix_len; /* <= RX_KEY_MAX + RX_PREFIX_MAX */
    memcpy(v->path + at.level, rx_node_prefix(n, shape), n->prefix_len);
    if (off == RX_ROOT_OFF && n->prefix_len)
        rx_fault_at(v, off, "the root has a prefix");
    int children = rx_node_children(n, shape, bytes, refs), rc = rx_verify_poll(v);
    rx_verify_slots(v, n, shape, off, children);
    rx_ref term = rx_load(&n->term);
    if (term && !rx_ref_is_leaf(term))
        rx_fault_at(v, off, "what ends at the node is no leaf: %016llx", (unsigned long long)term);
    else if (term)
        rx_verify_leaf(v, off, term, depth, -1);
    for (int i = 0; i < children && rc == RX_OK; i++) {
        if (rx_ref_is_leaf(refs[i])) {
            rx_verify_leaf(v, off, refs[i], depth, bytes[i]);
            rc = rx_verify_poll(v);
        } else if (depth >= RX_KEY_MAX) {
            rx_fault_at(v, off, "the path is longer than any key");
        } else if (rx_verify_ref(v, off, refs[i])) {
            if (v->todo_count == v->todo_room) {
                void *grown = rx_sys_realloc(v->todo, (v->todo_room * 2 + 1024) * sizeof *v->todo);
                if (!grown)
                    return rx_fail(RX_E_MEMORY, 0, "for the check");
                v->todo = grown;
                v->todo_room = v->todo_room * 2 + 1024;
            }
            v->todo[v->todo_count++] = (struct rx_visit){refs[i], (uint32_t)depth + 1, bytes[i]};
        }
    }
    return rc;
}

/*
 * Depth first: when a node is taken from the stack, only subtrees of its elder siblings
 * were visited since its parent, and they wrote the path below the parent only.
 */
static int rx_verify_tree(struct rx_verifier *v)
{
    int rc = rx_verify_node(v, (struct rx_visit){RX_ROOT_OFF | RX_K_N256, 0, 0});
    while (rc == RX_OK && v->todo_count)
        rc = rx_verify_node(v, v->todo[--v->todo_count]);
    return rc;
}

/* ---- what the arenas own --------------------------------------------------------------- */

/* True when `off` was nobody's before. */
static bool rx_verify_own(struct rx_verifier *v, rx_off off, const char *what)
{
    if (off < RX_HEAP || (off & 7) || off + RX_CELL_MIN > v->limit)
        rx_fault_at(v, off, "%s leads outside the file", what);
    else if (rx_bits_get(&v->reached, off))
        rx_fault_at(v, off, "%s leads to a cell that is in the tree", what);
    else if (!rx_bits_set(&v->owned, off))
        rx_fault_at(v, off, "%s leads to a cell that another list has, too", what);
    else
        return true;
    return false;
}

static int rx_verify_list(struct rx_verifier *v, const struct rx_arena *a, unsigned c)
{
    rx_off off = rx_load(&a->head[c]), last = off;
    int rc = RX_OK;
    while (off && rc == RX_OK) {
        uint64_t size;
        if (rx_free_check(v->map, off, c, &size)) {
            rx_fault_error(v);
            return RX_OK;
        }
        if (!rx_verify_own(v, off, "a free list"))
            return RX_OK;
        v->report->free_cells++;
        v->report->free_bytes += size;
        last = off;
        off = rx_load(&rx_free_at(v->map, off)->next);
        rc = rx_verify_poll(v);
    }
    if (last != (rx_load(&a->head[c]) ? rx_load(&a->tail[c]) : 0) && rc == RX_OK)
        rx_fault_at(v, last, "the last cell of a free list (class %u) is not the one that is noted", c);
    return rc;
}

static int rx_verify_limbo(struct rx_verifier *v, const struct rx_arena *a)
{
    uint64_t tail = rx_load(&a->limbo_tail);
    rx_off off = tail ? rx_load(&a->limbo_head) : 0;
    int rc = RX_OK;
    while (off && rc == RX_OK) {
        struct rx_limbo *b = rx_limbo_at(v->map, off);
        if (!rx_verify_own(v, off, "a chain of limbo blocks"))
            return RX_OK;
        if (b == NULL) {
            rx_fault_at(v, off, "there should be a limbo block");
            return RX_OK;
        }
        bool open = off == tail >> 8 && (tail & 255) != RX_LIMBO_CLOSED;
        uint64_t count = open ? tail & 255 : rx_load(&b->count);
        if (count > RX_LIMBO_ENTRIES)
            rx_fault_at(v, off, "a limbo block with %llu entries", (unsigned long long)count);
        for (uint64_t i = 0; i < count && i < RX_LIMBO_ENTRIES; i++)
            (void)rx_verify_own(v, rx_load(&b->entry[i]), "a limbo block");
        off = off == tail >> 8 ? 0 : rx_load(&b->next);
        rc = rx_verify_poll(v);
    }
    return rc;
}

static void rx_verify_hand(struct rx_verifier *v, rx_off off)
{
    if (off >= RX_HEAP && (off & 7) == 0 && off + RX_CELL_MIN <= v->limit)
        (void)rx_bits_set(&v->owned, off); /* may be on a list already */
}

/* What a dead one, not yet reaped, has in its hands; the cell begun at the bump (I7). */
static void rx_verify_hands(struct rx_verifier *v, const struct rx_arena *a)
{
    for (unsigned i = 0; i < RX_RESERVED; i++)
        rx_verify_hand(v, rx_load(&a->reserved[i]));
    rx_verify_hand(v, rx_load(&a->split));
    if (rx_load(&a->bump) != rx_load(&a->bump_end))
        rx_verify_hand(v, rx_load(&a->bump));
}

/* What a batch that is not finished has in its hands. */
static void rx_verify_batch(struct rx_verifier *v, const struct rx_arena *a)
{
    uint64_t size;
    rx_off off = rx_load(&a->batch), cells[3];
    const struct rx_batch *b = off ? rx_batch_at(v->map, off, &size) : NULL;
    if (off && b == NULL)
        rx_fault_at(v, off, "there should be a batch");
    if (b == NULL || rx_load(&b->retired) > rx_load_rlx(&b->count))
        return;
    rx_verify_hand(v, off);
    for (uint64_t i = rx_load(&b->retired); i < rx_load_rlx(&b->count); i++)
        for (unsigned n = rx_batch_losers(v->map, b, i, cells); n-- > 0;)
            rx_verify_hand(v, cells[n]);
}

static int rx_verify_arenas(struct rx_verifier *v)
{
    uint32_t high = rx_load32(&v->db->hdr->arena_high);
    int rc = RX_OK;
    for (uint32_t i = 0; i < high && i < RX_ARENAS && rc == RX_OK; i++) {
        const struct rx_arena *a = &v->db->arenas[i];
        if (rx_load(&a->generation) != v->map->generation)
            continue;
        rc = rx_verify_limbo(v, a);
        for (unsigned c = 0; c < RX_CLASSES && rc == RX_OK; c++)
            rc = rx_verify_list(v, a, c);
    }
    for (uint32_t i = 0; i < high && i < RX_ARENAS; i++)
        if (rx_load(&v->db->arenas[i].generation) == v->map->generation) {
            rx_verify_hands(v, &v->db->arenas[i]);
            rx_verify_batch(v, &v->db->arenas[i]);
        }
    return rc;
}

/* ---- the heap ---------------------------------------------------------------------------- */

static int rx_verify_heap(struct rx_verifier *v, uint64_t brk)
{
    uint64_t end = brk < v->limit ? brk : v->limit;
    int rc = RX_OK;
    for (rx_off at = RX_HEAP; at + 8 <= end && rc == RX_OK; rc = rx_verify_poll(v)) {
        uint64_t header = rx_load(rx_word_at(v->map, at)), size = rx_cell_size(header);
        rx_off next = (at / RX_EXTENT + 1) * RX_EXTENT;
        if (header == 0) {
            at = next;
            continue;
        }
        if (size == 0 || size > end - at) {
            rx_fault_at(v, at, "no cell begins with the header %016llx", (unsigned long long)header);
            at = next;
            continue;
        }
        if (rx_bits_get(&v->reached, at))
            rx_bits_clear(&v->reached, at);
        else if (!rx_bits_get(&v->owned, at))
            rx_fault_at(v, at, "a cell of %llu bytes (header %016llx) is in no list and not in the tree",
                        (unsigned long long)size, (unsigned long long)header);
        at += size;
    }
    return rc;
}

/* What is still marked was reached, but the walk by sizes did not come by. */
static void rx_verify_strays(struct rx_verifier *v)
{
    rx_off off = 0;
    for (unsigned told = 0; told < RX_STRAYS_TOLD && (off = rx_bits_next(&v->reached, off)) != UINT64_MAX; told++) {
        rx_fault_at(v, off, "a reference leads into the middle of a cell, or beyond the break");
        off += 8;
    }
}

static int rx_verify_all(struct rx_verifier *v)
{
    uint64_t brk = rx_brk_extents(rx_load(&v->db->hdr->brk)) * RX_EXTENT;
    int rc = rx_verify_tree(v);
    v->report->brk = brk;
    if (brk > v->limit)
        rx_fault_at(v, v->limit, "the file ends before its break (%llu)", (unsigned long long)brk);
    if (rc == RX_OK)
        rc = rx_verify_arenas(v);
    if (rc == RX_OK)
        rc = rx_verify_heap(v, brk);
    if (rc == RX_OK)
        rx_verify_strays(v);
    return rc;
}

int rx_scan_verify(struct rx_db *db, struct rx_map *map, rx_fault_fn fault, void *ctx, struct rx_scan_report *report)
{
    struct rx_verifier v = {.db = db, .map = map, .fault = fault, .ctx = ctx, .report = report};
    memset(report, 0, sizeof *report);
    int rc = rx_map_refresh(map); /* what lies behind an older size is no damage */
    if (rc)
        return rc;
    v.limit = __atomic_load_n(&map->size, __ATOMIC_RELAXED);
    if (v.limit > map->capacity)
        v.limit = map->capacity;
    if (v.limit < RX_HEAP)
        return rx_corrupt(v.limit, "the file ends before its heap begins");
    rc = rx_bits_make(&v.reached, v.limit);
    if (rc == RX_OK)
        rc = rx_bits_make(&v.owned, v.limit);
    v.path = rx_sys_malloc((size_t)RX_KEY_MAX + RX_PREFIX_MAX + 8);
    if (rc == RX_OK && v.path == NULL)
        rc = rx_fail(RX_E_MEMORY, 0, "for the check");
    if (rc == RX_OK)
        rc = rx_verify_all(&v);
    if (rc == RX_OK && rx_poisoned(map))
        rc = rx_fail(RX_E_IO, 0, "while checking the file");
    rx_bits_drop(&v.reached);
    rx_bits_drop(&v.owned);
    free(v.path);
    free(v.todo);
    return rc;
}
