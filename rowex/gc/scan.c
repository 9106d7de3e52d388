/*
 * scan.c -- the startup scan: which cells are reachable, and free lists of all others.
 *
 * Mark: from the root, without recursion, a bit for each cell.  Leaves are not touched,
 * the references tell their kind; every node is checked before it is used.  Sweep: walk
 * the heap by the cells' headers; a run of cells without a mark, with what extents had
 * left over, is one free cell.  Nothing is stored before the whole file was found sound.
 *
 * Bounds: a cell is marked once, or the file is damaged; so there are no more steps than
 * cells, and no loops.  Levels rise exactly as prefixes say.
 *
 * After a power cut (durability="pmem") the headers of cells that nobody reaches may be those of
 * any time (D3 in persist.h).  So nothing is walked by them: whatever lies between two cells that
 * were marked is free, up to the end of the file.
 *
 * Crash in the middle of storing: every header store leaves a heap that can be walked
 * (I7 in cells.h), and the next opener scans again.
 */
#include <stdlib.h>
#include "bits.h"
#include "cells.h"
#include "scan.h"
#include "../native/file.h"
#include "../native/node.h"

#define RX_AHEAD 8u             /* nodes being fetched while one is looked at */
#define RX_RUN_MAX (1ull << 40) /* one free cell; the classes end at 4 TiB */

struct rx_todo { rx_ref ref; uint32_t level; };
struct rx_run { rx_off off; uint64_t size; };
struct rx_stand { rx_ref *slot, ref; }; /* what is to take a wrapper's place */

struct rx_scanner {
    struct rx_map *map;
    uint64_t limit; /* bytes of the file */
    struct rx_bits marks;
    struct rx_todo *todo;
    size_t todo_count, todo_room;
    struct rx_run *runs;
    size_t run_count, run_room;
    rx_off *locked; /* nodes whose lock word is not 0 */
    size_t locked_count, locked_room;
    struct rx_stand *stands;
    size_t stand_count, stand_room;
    uint64_t marked[8]; /* references marked, by kind; the sweep counts down */
    uint64_t polls, used_end;
    struct rx_scan_report *report;
};

/* Room for one more item; the array may move. */
static int rx_more(void *array, size_t *room, size_t count, size_t item)
{
    void **at = array, *grown;
    if (RX_LIKELY(count < *room))
        return RX_OK;
    size_t want = *room ? *room * 2 : 1024;
    grown = rx_sys_realloc(*at, want * item);
    if (!grown)
        return rx_fail(RX_E_MEMORY, 0, "%zu bytes for the scan", want * item);
    *at = grown;
    *room = want;
    return RX_OK;
}

static int rx_scan_poll(struct rx_scanner *s) { return (++s->polls & 4095) == 0 ? rx_poll_interrupt() : RX_OK; }

/* ---- mark ----------------------------------------------------------------------- */

static inline int rx_mark(struct rx_scanner *s, rx_off from, rx_ref ref)
{
    rx_off off = rx_ref_off(ref);
    unsigned kind = rx_ref_kind(ref);
    bool leaf = kind == RX_K_LEAF || kind == RX_K_BIG;
    if (RX_UNLIKELY((!leaf && !rx_kind_is_node(kind)) || rx_ref_is_odd(ref, leaf)))
        return rx_corrupt(from, "the node holds the impossible reference %016llx", (unsigned long long)ref);
    if (RX_UNLIKELY(off < RX_HEAP || off + RX_CELL_MIN > s->limit))
        return rx_corrupt(from, "the node's reference %016llx leads outside the file", (unsigned long long)ref);
    if (RX_UNLIKELY(!rx_bits_set(&s->marks, off)))
        return rx_corrupt(off, "two references lead here; one is in the node at %llu", (unsigned long long)from);
    s->marked[kind]++;
    return RX_OK;
}

static int rx_mark_child(struct rx_scanner *s, rx_off from, rx_ref ref, uint32_t level)
{
    int rc = rx_mark(s, from, ref);
    if (rc || rx_ref_is_leaf(ref))
        return rc;
    if (level > RX_KEY_MAX)
        return rx_corrupt(from, "the path is longer than any key");
    if ((rc = rx_more(&s->todo, &s->todo_room, s->todo_count, sizeof *s->todo)) == RX_OK)
        s->todo[s->todo_count++] = (struct rx_todo){ref, level};
    return rc;
}

/* A wrapper of the dead: what it stands for is marked; it and its batch are garbage. */
static int rx_mark_through(struct rx_scanner *s, rx_ref *slot, rx_ref *ref)
{
    struct rx_wrapped w;
    if (!rx_ref_is_wrapper(*ref))
        return RX_OK;
    int rc = rx_wrapper_view(s->map, *ref, &w);
    if (rc == RX_OK)
        rc = rx_more(&s->stands, &s->stand_room, s->stand_count, sizeof *s->stands);
    if (rc == RX_OK)
        s->stands[s->stand_count++] = (struct rx_stand){slot, *ref = rx_wrapped_ref(&w)};
    return rc;
}

static int rx_mark_node(struct rx_scanner *s, struct rx_todo at)
{
    struct rx_node *n;
    rx_off off = rx_ref_off(at.ref);
    unsigned shape = rx_ref_shape(at.ref), given = rx_shape_slots(shape);
    int rc = rx_node_check(s->map, at.ref, at.level, &n);
    if (rc)
        return rc;
    if (rx_shape_kind(shape) != RX_K_N256 && n->count < given)
        given = n->count;
    if (rx_load_rlx(&n->lock)) {
        if ((rc = rx_more(&s->locked, &s->locked_room, s->locked_count, sizeof *s->locked)) != RX_OK)
            return rc;
        s->locked[s->locked_count++] = off;
    }
    rx_ref term = rx_load_rlx(&n->term);
    if ((rc = rx_mark_through(s, &n->term, &term)) != RX_OK)
        return rc;
    if (term && !rx_ref_is_leaf(term))
        return rx_corrupt(off, "what ends at the node is no leaf: %016llx", (unsigned long long)term);
    if (term && (rc = rx_mark(s, off, term)) != RX_OK)
        return rc;
    rx_ref *slot = rx_node_slots(n, shape);
    for (unsigned i = 0; i < given; i++) {
        rx_ref child = rx_load_rlx(slot + i);
        if ((rc = rx_mark_through(s, slot + i, &child)) != RX_OK)
            return rc;
        if (child && (rc = rx_mark_child(s, off, child, at.level + n->prefix_len + 1)) != RX_OK)
            return rc;
    }
    s->report->nodes++;
    return rx_scan_poll(s);
}

/* Takes from the stack through a short queue, so that nodes are fetched ahead. */
static int rx_mark_all(struct rx_scanner *s)
{
    struct rx_todo queue[RX_AHEAD];
    unsigned first = 0, queued = 0;
    struct rx_node *root = rx_node_at(s->map->base, RX_ROOT_OFF);
    int rc = rx_mark_node(s, (struct rx_todo){RX_ROOT_OFF | RX_K_N256, 0});
    if (rc == RX_OK && root->prefix_len)
        rc = rx_corrupt(RX_ROOT_OFF, "the root has a prefix");
    while (rc == RX_OK && (queued || s->todo_count)) {
        while (queued < RX_AHEAD && s->todo_count) {
            struct rx_todo next = s->todo[--s->todo_count];
            const uint8_t *node = s->map->base + rx_ref_off(next.ref);
            __builtin_prefetch(node);
            __builtin_prefetch(node + 64);
            __builtin_prefetch(node + 128);
            queue[(first + queued++) % RX_AHEAD] = next;
        }
        rc = rx_mark_node(s, queue[first]);
        first = (first + 1) % RX_AHEAD;
        queued--;
    }
    return rc;
}

/* ---- sweep ------------------------------------------------------------------------ */

/* What lies between two reachable cells, and is large enough to be a cell, is free. */
static int rx_run_add(struct rx_scanner *s, rx_off from, rx_off to)
{
    uint64_t size = (to - from) & ~7ull;
    while (size >= RX_CELL_MIN) {
        uint64_t piece = size > RX_RUN_MAX + RX_CELL_MIN ? RX_RUN_MAX : size;
        int rc = rx_more(&s->runs, &s->run_room, s->run_count, sizeof *s->runs);
        if (rc)
            return rc;
        s->runs[s->run_count++] = (struct rx_run){from, piece};
        s->report->free_cells++;
        s->report->free_bytes += piece;
        from += piece;
        size -= piece;
    }
    return RX_OK;
}

static int rx_sweep_marked(struct rx_scanner *s, rx_off off, uint64_t header, uint64_t size)
{
    unsigned kind = rx_head_kind(header);
    if (RX_UNLIKELY(kind >= 8 || s->marked[kind] == 0))
        return rx_corrupt(off, "a reference leads here, but the header is %016llx", (unsigned long long)header);
    if (kind == RX_K_BIG) {
        const struct rx_big *big = (const struct rx_big *)(const void *)(s->map->base + off);
        uint64_t room = size < sizeof *big ? 0 : size - sizeof *big;
        if (size < sizeof *big || big->key_len > room || big->value_len > room - big->key_len)
            return rx_corrupt(off, "a leaf's lengths exceed its cell");
    }
    s->marked[kind]--;
    rx_bits_clear(&s->marks, off);
    return RX_OK;
}

/*
 * The heap, cell by cell.  used_end: behind the last header; beyond it every extent
 * begins with zero, was never written, and goes back before the break.
 */
static int rx_sweep(struct rx_scanner *s)
{
    rx_off at = RX_HEAP, run = 0;
    s->used_end = RX_HEAP;
    while (at + 8 <= s->limit) {
        uint64_t header = rx_load_rlx(rx_word_at(s->map, at));
        int rc = rx_scan_poll(s);
        if (rc)
            return rc;
        if (header == 0) {
            run = run ? run : at;
            at = (at / RX_EXTENT + 1) * RX_EXTENT;
            continue;
        }
        uint64_t size = rx_cell_size(header);
        if (RX_UNLIKELY(size == 0 || size > s->limit - at))
            return rx_corrupt(at, "no cell begins with the header %016llx", (unsigned long long)header);
        if (rx_bits_get(&s->marks, at)) {
            if ((rc = rx_sweep_marked(s, at, header, size)) != RX_OK || (run && (rc = rx_run_add(s, run, at)) != RX_OK))
                return rc;
            run = 0;
        } else {
            run = run ? run : at;
            s->report->reclaimed_cells += rx_head_kind(header) != RX_K_FREE;
        }
        at += size;
        s->used_end = at;
    }
    uint64_t brk = (s->used_end + RX_EXTENT - 1) & ~(uint64_t)(RX_EXTENT - 1);
    s->report->brk = brk;
    return run && run < brk ? rx_run_add(s, run, brk < s->limit ? brk : s->limit) : RX_OK;
}

/*
 * The same by the marks alone.  Where less than a cell is left between two, an extent ended and
 * was not used to its end: zeros, at which a walk goes on with the next.
 */
static int rx_sweep_marks(struct rx_scanner *s)
{
    rx_off at = RX_HEAP, off = RX_HEAP, end = s->limit & ~(uint64_t)(RX_EXTENT - 1);
    int rc = RX_OK;
    while (rc == RX_OK && (off = rx_bits_next(&s->marks, off)) != UINT64_MAX) {
        uint64_t header = rx_load_rlx(rx_word_at(s->map, off)), size = rx_cell_size(header);
        if (RX_UNLIKELY(size == 0 || off < at || off > end || size > end - off || (off - at == 8 && off % RX_EXTENT)))
            return rx_corrupt(off, "a cell with the header %016llx does not fit between the others",
                              (unsigned long long)header);
        if ((rc = rx_sweep_marked(s, off, header, size)) == RX_OK && (rc = rx_run_add(s, at, off)) == RX_OK)
            rc = rx_scan_poll(s);
        at = off + size;
    }
    s->used_end = at;
    s->report->brk = end;
    if (rc == RX_OK)
        rc = rx_run_add(s, at, end);
    s->report->reclaimed_cells = s->report->free_cells;
    return rc;
}

static int rx_check_marks(struct rx_scanner *s)
{
    for (unsigned kind = 0; kind < 8; kind++)
        if (s->marked[kind]) {
            rx_off off = rx_bits_next(&s->marks, 0);
            return rx_corrupt(off == UINT64_MAX ? 0 : off,
                              "%llu references of kind %u lead to places where no such cell begins",
                              (unsigned long long)s->marked[kind], kind);
        }
    return RX_OK;
}

/* ---- storing ------------------------------------------------------------------------ */

/* From the end, so that the lists give the lowest offsets first. */
static int rx_scan_store(struct rx_scanner *s, struct rx_db *db)
{
    struct rx_arena *a;
    int rc = rx_arena_first(db, s->map, &a);
    if (rc)
        return rc;
    for (size_t i = 0; i < s->stand_count; i++) { /* before any batch's cell is given away */
        rx_store(s->stands[i].slot, s->stands[i].ref);
        rx_flush(s->map->fences, s->stands[i].slot, sizeof(rx_ref));
    }
    for (size_t i = 0; i < s->locked_count; i++) { /* who died with the lock may have died before its flush (D1) */
        const struct rx_node *n = rx_node_at(s->map->base, s->locked[i]);
        rx_flush(s->map->fences, n, rx_node_fixed(n->shape));
    }
    rx_persist_fence(s->map->fences);
    for (size_t i = 0; i < s->locked_count; i++)
        rx_store(&rx_node_at(s->map->base, s->locked[i])->lock, 0);
    for (size_t i = s->run_count; i-- > 0;)
        rx_push_free(s->map, a, s->runs[i].off, s->runs[i].size);
    rx_store(&db->hdr->base_count[s->map->generation & 1], s->report->leaves);
    rx_store(&db->hdr->brk, rx_brk_make(s->report->brk / RX_EXTENT, 0, 0));
    rx_fetch_add(&db->hdr->scans, 1);
    rx_fetch_add(&db->hdr->reclaimed_cells, s->report->reclaimed_cells);
    return RX_OK;
}

/*
 * Requires  nobody else has the file open; NAME-lock is set up.
 * Returns   RX_OK, or an error and the file is as it was.
 */
int rx_scan_repair(struct rx_db *db, struct rx_map *map, struct rx_scan_report *report)
{
    struct rx_scanner s = {.map = map, .report = report};
    memset(report, 0, sizeof *report);
    int rc = rx_map_refresh(map); /* what lies behind an older size is no damage */
    if (rc)
        return rc;
    s.limit = __atomic_load_n(&map->size, __ATOMIC_RELAXED);
    if (s.limit > map->capacity)
        s.limit = map->capacity;
    if (s.limit < RX_HEAP)
        return rx_corrupt(s.limit, "the file ends before its heap begins");
    rc = rx_bits_make(&s.marks, s.limit);
    if (rc == RX_OK && (rc = rx_mark_all(&s)) == RX_OK) {
        report->leaves = s.marked[RX_K_LEAF] + s.marked[RX_K_BIG];
        bool cut = db->durability == RX_D_PMEM && memcmp(rx_super_of(map)->boot_id, db->boot_id, 16) != 0;
        if ((rc = cut ? rx_sweep_marks(&s) : rx_sweep(&s)) == RX_OK)
            rc = rx_check_marks(&s);
    }
    if (rc != RX_E_INTERRUPTED && rx_poisoned(map)) /* zero pages look like damage, or like nothing */
        rc = rx_fail(RX_E_IO, 0, "while scanning the file");
    if (rc == RX_OK)
        rc = rx_scan_store(&s, db);
    rx_bits_drop(&s.marks);
    free(s.todo);
    free(s.runs);
    free(s.locked);
    free(s.stands);
    return rc;
}
