/*
 * duplicate.c -- rx_copy_file(): a dense copy of an index, under a uuid of its own, while
 * others may be using and changing it.
 *
 * The source is read weakly (P2), in batches of one epoch each: records are copied to
 * memory, and only what an epoch that was not evicted has read goes into the copy.  A
 * leaf too large for that is written behind the copy's end inside the epoch, again if
 * need be, and linked after it.
 */
#include <stdio.h>
#include <errno.h>
#include <stdlib.h>
#include <sys/stat.h>
#include "checkpoint.h"
#include "cursor.h"
#include "disk.h"
#include "fileio.h"
#include "guard.h"
#include "manage.h"
#include "../gc/build.h"
#include "../gc/epoch.h"

#define RX_BATCH (256u << 10)

struct rx_record { uint64_t off, value_len; uint32_t key_len, crc; }; /* then key, value, pad to 8 */

struct rx_duplicate {
    struct rx_thread *t;
    struct rx_cursor cursor;
    struct rx_builder builder;
    uint8_t *batch; /* RX_BATCH bytes */
    uint64_t used;
    uint8_t *last;  /* RX_KEY_MAX bytes: where to go on */
    uint64_t last_len;
    bool begun;
    struct rx_record large; /* key_len and off of a leaf that was written and is to be linked */
    rx_ref large_leaf;
    uint32_t large_crc; /* of what was written */
    uint8_t *large_key; /* RX_KEY_MAX bytes */
};

/* R9: an observer sees that we move. */
static int rx_duplicate_tick(void *ctx)
{
    struct rx_thread *t = ctx;
    rx_store(&t->slot->progress, rx_load_rlx(&t->slot->progress) + 1);
    return RX_OK;
}

static uint64_t rx_record_bytes(const struct rx_leaf_view *v)
{
    return (sizeof(struct rx_record) + v->key_len + v->value_len + 7) & ~7ull;
}

/* Inside the epoch: one leaf that no batch holds. */
static int rx_duplicate_large(struct rx_duplicate *d, rx_ref leaf, const struct rx_leaf_view *v)
{
    if (v->key_len > RX_KEY_MAX)
        return rx_corrupt(rx_ref_off(leaf), "a key of %llu bytes", (unsigned long long)v->key_len);
    d->large = (struct rx_record){rx_ref_off(leaf), v->value_len, (uint32_t)v->key_len, v->crc};
    rx_copy_racy(d->large_key, v->key, v->key_len);
    return rx_builder_write(&d->builder, d->large_key, v->key_len, v->value, v->value_len, &d->large_crc,
                            &d->large_leaf);
}

/* Inside the epoch: RX_OK more may follow, RX_END that was all. */
static int rx_duplicate_read(struct rx_duplicate *d)
{
    struct rx_map *map = d->t->map;
    d->used = 0;
    d->large_leaf = 0;
    int rc = rx_cursor_seek(&d->cursor, map, d->begun ? d->last : NULL, d->last_len, true);
    while (rc == RX_OK) {
        rx_ref leaf;
        struct rx_leaf_view v;
        rc = rx_cursor_step(&d->cursor, &leaf);
        if (rc == RX_OK && (rc = rx_leaf_view(map, leaf, &v)) == RX_ABSENT) { /* its batch has removed it */
            rc = RX_OK;
            continue;
        }
        if (rc)
            return rc;
        if (v.key_len > RX_BATCH || v.value_len > RX_BATCH || rx_record_bytes(&v) > RX_BATCH)
            return d->used ? RX_OK : rx_duplicate_large(d, leaf, &v);
        if (rx_record_bytes(&v) > RX_BATCH - d->used)
            return RX_OK;
        struct rx_record r = {rx_ref_off(leaf), v.value_len, (uint32_t)v.key_len, v.crc};
        memcpy(d->batch + d->used, &r, sizeof r);
        rx_copy_racy(d->batch + d->used + sizeof r, v.key, v.key_len);
        rx_copy_racy(d->batch + d->used + sizeof r + v.key_len, v.value, v.value_len);
        d->used += rx_record_bytes(&v);
    }
    return rc;
}

static int rx_duplicate_verify(const struct rx_duplicate *d, const struct rx_record *r, uint32_t crc)
{
    if (d->t->map->checksum && crc != r->crc)
        return rx_corrupt(r->off, "the leaf's checksum is %08x, its bytes have %08x", r->crc, crc);
    return RX_OK;
}

static void rx_duplicate_mark(struct rx_duplicate *d, const uint8_t *key, uint64_t key_len)
{
    memcpy(d->last, key, key_len);
    d->last_len = key_len;
    d->begun = true;
}

/* Outside: what the epoch read goes into the copy. */
static int rx_duplicate_build(struct rx_duplicate *d)
{
    const uint8_t *key = NULL;
    uint64_t key_len = 0;
    for (uint64_t at = 0; at < d->used;) {
        struct rx_record r;
        uint32_t crc = 0;
        memcpy(&r, d->batch + at, sizeof r);
        key = d->batch + at + sizeof r;
        key_len = r.key_len;
        int rc = rx_builder_add(&d->builder, key, key_len, key + key_len, r.value_len, &crc);
        if (rc == RX_OK)
            rc = rx_duplicate_verify(d, &r, crc);
        if (rc)
            return rc;
        at += (sizeof r + key_len + r.value_len + 7) & ~7ull;
    }
    if (key)
        rx_duplicate_mark(d, key, key_len);
    if (d->large_leaf == 0)
        return RX_OK;
    int rc = rx_duplicate_verify(d, &d->large, d->large_crc);
    if (rc == RX_OK)
        rc = rx_builder_link(&d->builder, d->large_key, d->large.key_len, d->large_leaf);
    if (rc == RX_OK)
        rx_duplicate_mark(d, d->large_key, d->large.key_len);
    return rc;
}

static int rx_duplicate_all(struct rx_duplicate *d)
{
    for (int rc = RX_OK;;) {
        int left = RX_OK;
        do {
            rc = rx_enter_read(d->t);
            if (rc)
                return rc;
            rc = rx_duplicate_read(d);
            left = rx_leave_read(d->t);
        } while (left == RX_I_EVICTED);
        if (left || (rc != RX_OK && rc != RX_END))
            return left ? left : rc;
        bool over = rc == RX_END;
        rc = rx_duplicate_build(d);
        if (rc == RX_OK)
            rc = rx_poll_interrupt();
        if (rc || over)
            return rc;
    }
}

/* The whole tree of the source into `to`; no superblock yet. */
int rx_duplicate_tree(struct rx_thread *t, struct rx_map *to, bool checksum, uint64_t *brk, uint64_t *count)
{
    struct rx_duplicate *d = rx_sys_calloc(1, sizeof *d);
    if (d == NULL)
        return rx_fail(RX_E_MEMORY, 0, "for copying");
    d->t = t;
    d->batch = rx_sys_malloc(RX_BATCH);
    d->last = rx_sys_malloc(RX_KEY_MAX);
    d->large_key = rx_sys_malloc(RX_KEY_MAX);
    rx_cursor_init(&d->cursor);
    d->cursor.eager = true;
    int rc = rx_builder_init(&d->builder, to, checksum, rx_duplicate_tick, t);
    if (rc == RX_OK && (d->batch == NULL || d->last == NULL || d->large_key == NULL))
        rc = rx_fail(RX_E_MEMORY, 0, "for copying");
    if (rc == RX_OK)
        rc = rx_duplicate_all(d);
    if (rc == RX_OK)
        rc = rx_builder_finish(&d->builder, brk);
    *count = d->builder.count;
    rx_cursor_free(&d->cursor);
    rx_builder_free(&d->builder);
    free(d->batch);
    free(d->last);
    free(d->large_key);
    free(d);
    return rc;
}

/* ---- the new file --------------------------------------------------------------------- */

int rx_duplicate_super(struct rx_super *s, const struct rx_options *o, const struct rx_map *to, uint64_t brk,
                       uint64_t count)
{
    uint64_t capacity = o->capacity ? o->capacity : brk * 16 > 1ull << 30 ? brk * 16 : 1ull << 30;
    rx_random_bytes(s->uuid, sizeof s->uuid);
    s->generation = 1;
    s->capacity = ((capacity > brk ? capacity : brk) + RX_EXTENT - 1) / RX_EXTENT * RX_EXTENT;
    s->max_size = o->max_size == UINT64_MAX ? s->max_size : o->max_size;
    s->checksum = o->checksum < 0 ? s->checksum : o->checksum != 0;
    s->key_codec = o->key_codec ? (uint32_t)o->key_codec : s->key_codec;
    s->value_codec = o->value_codec ? (uint32_t)o->value_codec : s->value_codec;
    s->durability = o->durability ? (uint32_t)o->durability : s->durability;
    if (o->durability == RX_D_PMEM) { /* not asked for: a pmem file's backup may lie on any disk */
        int rc = rx_pmem_check(to->fd, o->fences, o->path, "choose durability=\"commit\" for the copy");
        if (rc)
            return rc;
    }
    if (s->max_size && brk > s->max_size)
        return rx_fail(RX_E_FULL, 0, "the copy has %llu bytes, max_size is %llu", (unsigned long long)brk,
                       (unsigned long long)s->max_size);
    rx_super_seal_fixed(s);
    memset((uint8_t *)s + offsetof(struct rx_super, state), 0, sizeof *s - offsetof(struct rx_super, state));
    s->state = RX_STATE_CLEAN;
    s->session = 1;
    s->brk = brk;
    s->count = count;
    int rc = rx_fd_identity(to->fd, &s->dev, &s->ino);
    rx_super_seal_state(s);
    return rc;
}

/* Builds and syncs the file `made` that `to` maps. */
static int rx_duplicate_into(struct rx_thread *t, struct rx_map *to, const struct rx_options *o)
{
    struct rx_super super;
    uint64_t brk = 0, count = 0;
    int rc = rx_enter_read(t);
    if (rc)
        return rc;
    super = *rx_super_of(t->map); /* its fixed part does not change; checked when it was opened */
    rc = rx_leave_read(t);
    if (rc == RX_I_EVICTED)
        rc = RX_OK;
    bool checksum = o->checksum < 0 ? super.checksum != 0 : o->checksum != 0;
    if (rc == RX_OK)
        rc = rx_duplicate_tree(t, to, checksum, &brk, &count);
    if (rc == RX_OK)
        rc = rx_duplicate_super(&super, o, to, brk, count);
    if (rc)
        return rc;
    rx_fill(to->base, &super, sizeof super);
    rc = rx_copy_sync(to, brk);
    if (rc == RX_OK && rx_poisoned(to))
        rc = rx_fail(RX_E_IO, 0, "while writing the copy");
    return rc;
}

/* Address space to build in: the copy is denser than the source, which may still grow. */
uint64_t rx_duplicate_room(struct rx_map *from)
{
    (void)rx_map_refresh(from); /* else the size that it had */
    return __atomic_load_n(&from->size, __ATOMIC_RELAXED) * 2 + (1ull << 32);
}

/* What finishes it opens it for writing, whatever the mode that it is to have. */
static int rx_duplicate_finish(struct rx_thread *t, struct rx_db *target, struct rx_map *to, const char *made,
                               const struct rx_finishing *f)
{
    if (rx_sys_fchmod(to->fd, 0600) != 0)
        return rx_os_error("change the mode of", made);
    int rc = f->run(t, target, made, f->ctx);
    if (rc)
        return rc;
    if (rx_copy_attributes(t->map->fd, to->fd) != 0) /* of now: a compaction may have taken the file that was copied */
        return rx_os_error("give mode and owner to", made);
    return rx_sync_fd(to->fd) == 0 ? RX_OK : rx_os_error("sync", made);
}

/*
 * Makes, fills and places the file.  `target` stands in for an open index where the
 * functions for copies want to know the folder, the name and whose mode to take.
 */
static int rx_duplicate_place(struct rx_thread *t, struct rx_db *target, const struct rx_options *o,
                              const struct rx_finishing *f)
{
    char made[256];
    uint64_t random;
    rx_random_bytes(&random, sizeof random);
    snprintf(made, sizeof made, "%.200s-copy-%016llx", target->name, (unsigned long long)random);
    struct rx_map *to = NULL;
    struct rx_exclusive x = {-1, NULL, -1, -1};
    bool replace = o->mode == 'n' && rx_target_exists(target->dir_fd, target->name);
    if (!replace && rx_target_exists(target->dir_fd, target->name))
        return rx_fail(RX_E_EXISTS, 0, "%s was left as it is", target->path);
    int rc = rx_copy_create(target, target->map, rx_duplicate_room(t->map), made, &to);
    if (rc)
        return rc;
    rc = rx_duplicate_into(t, to, o);
    if (rc == RX_OK && f)
        rc = rx_duplicate_finish(t, target, to, made, f);
    if (rc == RX_OK && replace)
        rc = rx_exclusive_begin(target->path, &x);
    if (rc == RX_OK)
        rc = replace ? rx_copy_rename(target, made)
                     : rx_rename_new(target->dir_fd, made, target->dir_fd, target->name);
    if (rc == RX_OK && replace)
        rc = rx_remove_lock(&x); /* of the file that was replaced */
    else if (rc)
        (void)rx_copy_unlink(target, made);
    rx_exclusive_end(&x);
    rx_copy_drop(to);
    return rc ? rc : rx_folder_sync(target);
}

int rx_duplicate_index(struct rx_thread *t, const struct rx_options *o, const struct rx_finishing *f)
{
    struct rx_db *target = rx_sys_calloc(1, sizeof *target);
    if (target == NULL)
        return rx_fail(RX_E_MEMORY, 0, "for copying");
    target->dir_fd = target->lock_fd = target->probe_fd = -1;
    target->path = (char *)(uintptr_t)o->path;
    target->memory = t->db->memory;
    int rc = rx_sizes_fit(o);
    if (rc == RX_OK)
        rc = rx_target_folder(o->path, &target->dir_fd, &target->name);
    if (rc == RX_OK && !t->db->memory)
        rc = rx_remap_thread(t); /* mode and owner of the file as it is now */
    if (rc == RX_OK) {
        target->map = t->map;
        rc = rx_duplicate_place(t, target, o, f);
    }
    rx_close_fd(target->dir_fd);
    free(target->name);
    free(target);
    return rc;
}

int rx_copy_file(const char *from, const struct rx_options *to)
{
    struct rx_options source = {.path = from, .mode = 'r', .checksum = -1, .max_size = UINT64_MAX, .fences = -1,
                                .umask_mode = 0666};
    rx_index *h;
    int rc = rx_open(&source, &h);
    if (rc)
        return rc;
    struct rx_thread *t;
    rc = rx_call_begin(h, NULL, &t);
    if (rc == RX_OK) {
        rc = rx_duplicate_index(t, to, NULL);
        rx_call_end(t);
    }
    int closed = rx_close(h);
    rx_free(h);
    return rc == RX_OK && closed == RX_E_INTERRUPTED ? closed : rc; /* the copy is there; so is the signal */
}
