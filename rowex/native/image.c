/*
 * image.c -- walking a tree in which anything may be damaged.  See image.h.
 *
 * Bounds as in scan.c: a node is visited once and levels rise as prefixes say.  A leaf counts
 * where its key is that of the path and its checksum fits: a cell that was given to another
 * key since, in a file whose pages are of different ages, is not taken for what was there.
 */
#define _GNU_SOURCE
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>
#include "disk.h"
#include "fileio.h"
#include "image.h"

#define RX_POLL_STEPS 4096u
#define RX_OVERLAPS 8u

struct rx_image_step { rx_ref ref; uint32_t level; uint8_t byte; };

struct rx_image_walk {
    struct rx_image *im;
    rx_image_take take;
    rx_fault_fn lost;
    void *ctx;
    struct rx_image_step *todo;
    size_t count, room;
    uint8_t *path; /* the key's bytes above what is being visited */
};

int rx_image_open(int fd, bool checksum, uint64_t *done, struct rx_image *im)
{
    *im = (struct rx_image){.checksum = checksum, .done = done};
    struct stat st;
    if (rx_sys_fstat(fd, &st) != 0) { /* not told: it is not empty for that */
        int failed = rx_os_error("look at", "a file to be read");
        rx_held_close(fd);
        return failed;
    }
    uint64_t capacity = ((uint64_t)st.st_size + RX_EXTENT - 1) / RX_EXTENT * RX_EXTENT;
    capacity = capacity < 2 * RX_EXTENT ? 2 * RX_EXTENT : capacity;
    int rc = capacity >= RX_OFF_MAX ? rx_corrupt(0, "the file is too large to be an index")
                                    : rx_map_new(fd, capacity, true, 0, false, &im->map);
    if (rc) {
        rx_held_close(fd);
        return rc;
    }
    im->limit = rx_load(&im->map->size);
    im->limit = im->limit < capacity ? im->limit : capacity;
    if ((rc = rx_bits_make(&im->seen, capacity)) != RX_OK)
        rx_image_close(im);
    return rc;
}

void rx_image_close(struct rx_image *im)
{
    rx_bits_drop(&im->seen);
    if (im->map)
        rx_copy_drop(im->map);
    im->map = NULL;
}

/* A page that cannot be read is a page of zeros, and told here. */
static bool rx_image_faulted(struct rx_image *im)
{
    if (!rx_poisoned(im->map))
        return false;
    rx_store32(&im->map->poison, 0);
    return true;
}

/*
 * All of it is read here, so that what cannot be read is not found later.  Leaves do not overlap:
 * a file in which many do was made to be read for ever, and is not.
 */
static bool rx_image_sound(struct rx_image *im, const struct rx_leaf_view *v)
{
    (void)rx_image_faulted(im);
    if (v->key_len > RX_KEY_MAX || v->value_len > RX_VALUE_MAX || im->read / RX_OVERLAPS > im->limit)
        return false;
    im->read += v->cell_size;
    uint32_t crc = rx_leaf_crc(v);
    return !rx_image_faulted(im) && (!im->checksum || crc == v->crc);
}

__attribute__((format(printf, 3, 4)))
static void rx_image_lost(struct rx_image_walk *w, rx_off off, const char *format, ...)
{
    char text[400];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    w->im->lost++;
    if (w->lost)
        w->lost(w->ctx, off, text);
}
static void rx_image_lost_error(struct rx_image_walk *w) { rx_image_lost(w, rx_error_offset(), "%s", rx_error_text()); }

/* ---- the tree ------------------------------------------------------------------------- */

/* `depth` bytes of the path lead to the slot; `byte` is the slot's, -1: the key ends there. */
static bool rx_image_fits(const struct rx_image_walk *w, const struct rx_leaf_view *v, uint64_t depth, int byte)
{
    if (byte < 0 ? v->key_len != depth : v->key_len <= depth || v->key[depth] != byte)
        return false;
    return memcmp(v->key, w->path, depth) == 0;
}

static int rx_image_leaf(struct rx_image_walk *w, rx_ref ref, uint64_t depth, int byte)
{
    struct rx_image *im = w->im;
    struct rx_leaf_view v;
    struct rx_wrapped wrapped;
    if (rx_ref_is_wrapper(ref)) { /* of a batch that was not finished: what it stands for */
        if (rx_wrapper_view(im->map, ref, &wrapped)) {
            rx_image_lost_error(w);
            return RX_OK;
        }
        if ((ref = rx_wrapped_ref(&wrapped)) == 0)
            return RX_OK;
    }
    rx_off off = rx_ref_off(ref);
    if (rx_leaf_view(im->map, ref, &v)) {
        rx_image_lost_error(w);
        return RX_OK;
    }
    if (!rx_image_sound(im, &v))
        rx_image_lost(w, off, "the leaf's checksum is not that of its bytes");
    else if (!rx_image_fits(w, &v, depth, byte))
        rx_image_lost(w, off, "the leaf is another key's than the path to it");
    else if (rx_bits_set(&im->seen, off)) {
        im->leaves++;
        *im->done += v.cell_size;
        return w->take ? w->take(w->ctx, &v) : RX_OK;
    }
    return RX_OK;
}

static int rx_image_push(struct rx_image_walk *w, rx_ref ref, uint32_t level, uint8_t byte)
{
    if (w->count == w->room) {
        size_t room = w->room ? w->room * 2 : 1024;
        void *more = rx_sys_realloc(w->todo, room * sizeof *w->todo);
        if (more == NULL)
            return rx_fail(RX_E_MEMORY, 0, "for walking a damaged file");
        w->todo = more;
        w->room = room;
    }
    w->todo[w->count++] = (struct rx_image_step){ref, level, byte};
    return RX_OK;
}

static int rx_image_slots(struct rx_image_walk *w, struct rx_node *n, unsigned shape, rx_off off, uint32_t depth)
{
    uint8_t bytes[256];
    rx_ref refs[256];
    int rc = RX_OK;
    (void)rx_image_faulted(w->im);
    rx_ref term = rx_load(&n->term);
    int children = rx_node_children(n, shape, bytes, refs);
    if (rx_image_faulted(w->im))
        rx_image_lost(w, off, "a page of the node cannot be read");
    if (term && !rx_ref_is_leaf(term))
        rx_image_lost(w, off, "what ends at the node is no leaf: %016llx", (unsigned long long)term);
    else if (term)
        rc = rx_image_leaf(w, term, depth, -1);
    for (int i = 0; i < children && rc == RX_OK; i++)
        if (rx_ref_is_leaf(refs[i]))
            rc = rx_image_leaf(w, refs[i], depth, bytes[i]);
        else
            rc = rx_image_push(w, refs[i], depth + 1, bytes[i]);
    return rc;
}

static int rx_image_node(struct rx_image_walk *w, struct rx_image_step at)
{
    struct rx_node *n;
    rx_off off = rx_ref_off(at.ref);
    unsigned shape = rx_ref_shape(at.ref);
    if (rx_node_check(w->im->map, at.ref, at.level, &n)) {
        rx_image_lost_error(w);
        return RX_OK;
    }
    uint64_t depth = (uint64_t)at.level + n->prefix_len;
    if (depth > RX_KEY_MAX || !rx_bits_set(&w->im->seen, off)) {
        rx_image_lost(w, off, depth > RX_KEY_MAX ? "the path is longer than any key" : "two references lead to the node");
        return RX_OK;
    }
    w->path[at.level - 1] = at.byte;
    memcpy(w->path + at.level, rx_node_prefix(n, shape), n->prefix_len);
    *w->im->done += rx_node_size(shape, n->prefix_len);
    return rx_image_slots(w, n, shape, off, (uint32_t)depth);
}

/* The root has its place and its kind whatever its header says: its slots are looked at in any case. */
static int rx_image_root(struct rx_image_walk *w)
{
    struct rx_node *root;
    if (w->im->limit < RX_ROOT_OFF + RX_N256_PREFIX) {
        rx_image_lost(w, RX_ROOT_OFF, "the file ends before its root does");
        return RX_OK;
    }
    if (rx_node_check(w->im->map, RX_ROOT_OFF | RX_K_N256, 0, &root))
        rx_image_lost_error(w);
    return rx_image_slots(w, rx_node_at(w->im->map->base, RX_ROOT_OFF), RX_K_N256, RX_ROOT_OFF, 0);
}

int rx_image_walk(struct rx_image *im, rx_image_take take, rx_fault_fn lost, void *ctx)
{
    struct rx_image_walk w = {.im = im, .take = take, .lost = lost, .ctx = ctx};
    im->leaves = im->lost = 0;
    w.path = rx_sys_malloc(RX_KEY_MAX + RX_PREFIX_MAX + 1);
    int rc = w.path ? rx_image_root(&w) : rx_fail(RX_E_MEMORY, 0, "for walking a damaged file");
    for (unsigned steps = 0; rc == RX_OK && w.count; steps++) {
        rc = rx_image_node(&w, w.todo[--w.count]);
        if (rc == RX_OK && steps % RX_POLL_STEPS == 0)
            rc = rx_poll_interrupt();
    }
    free(w.path);
    free(w.todo);
    return rc;
}

/* ---- the heap ---------------------------------------------------------------------------- */

static bool rx_image_leaf_at(struct rx_image *im, rx_off at, uint64_t header, struct rx_leaf_view *v)
{
    unsigned kind = rx_head_kind(header);
    return (kind == RX_K_LEAF || kind == RX_K_BIG) && rx_leaf_view(im->map, at | kind, v) == RX_OK && rx_image_sound(im, v);
}

/*
 * Cell by cell, as long as headers follow each other; behind one that is none, word by word
 * to the next sound leaf or extent.  Without checksums nothing is believed from there on.
 */
int rx_image_sweep(struct rx_image *im, rx_image_take take, void *ctx)
{
    struct rx_leaf_view v;
    bool astray = false, doubt = false;
    rx_off at = RX_HEAP;
    int rc = RX_OK;
    for (unsigned steps = 0; rc == RX_OK && at + RX_CELL_MIN <= im->limit; steps++) {
        uint64_t header = rx_load_rlx((const uint64_t *)(const void *)(im->map->base + at)), size = rx_cell_size(header);
        if (steps % RX_POLL_STEPS == 0 && (rc = rx_poll_interrupt()) != RX_OK)
            break;
        astray = astray && at % RX_EXTENT;
        if (!doubt && rx_image_leaf_at(im, at, header, &v)) {
            if (rx_bits_set(&im->seen, at))
                rc = take(ctx, &v);
            astray = false;
            at += v.cell_size;
        } else if (header == 0 && !astray) {
            at = (at / RX_EXTENT + 1) * RX_EXTENT;
        } else if (size && size <= im->limit - at && !astray) {
            at += size;
        } else {
            astray = true;
            doubt = !im->checksum;
            at += 8;
        }
    }
    return rc;
}
