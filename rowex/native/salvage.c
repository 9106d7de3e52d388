/*
 * salvage.c -- rx_salvage(): what can be had of an index that is refused, in a fresh one.
 *
 * Three things may hold it: the data file (NAME), NAME-checkpoint, NAME-log.  They are laid over
 * each other, what comes later wins.  A data file that is believed (closed cleanly and not older
 * than its log, or in use on this boot) wins over the other two, and where it is whole they are
 * not needed.  One that is not believed is a mixture of moments, and is only laid under the
 * others where something of them is lost; of a file without a log it is all there is.
 *
 * The source is read, never written; who has it open is told to use `rowex backup`.  All goes
 * into an index beside the target, then into a dense copy, which gets the target's name.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>
#include "disk.h"
#include "attach.h"
#include "checkpoint.h"
#include "fileio.h"
#include "flush.h"
#include "image.h"
#include "recovery.h"
#include "segment.h"

#define RX_SALVAGE_TOLD 10000u

enum rx_layer { RX_LAYER_NAME, RX_LAYER_CHECKPOINT, RX_LAYER_LOG, RX_LAYERS };
static const char *const rx_layer_names[RX_LAYERS] = {"the data file", "the checkpoint", "the log"};

struct rx_salvage {
    struct rx_db *db;         /* stands in for the source */
    struct rx_super known;    /* what the index is: its fixed part */
    struct rx_super super[2]; /* of NAME and of the checkpoint; their states mean something where `sealed` */
    bool sealed[2];
    char unsealed[2][200]; /* why not */
    bool believed;
    int fd[2];
    struct rx_index *into;
    char *made; /* its path */
    rx_fault_fn fault;
    void *ctx;
    enum rx_layer layer; /* being read */
    bool spoke[RX_LAYERS];
    uint64_t said;
    bool all;
    struct rx_salvaged *told;
};

/* ---- what is told ------------------------------------------------------------------------ */

static void rx_salvage_tell(void *ctx, uint64_t offset, const char *text)
{
    struct rx_salvage *s = ctx;
    char full[600];
    if (s->spoke[s->layer] || s->fault == NULL || s->said++ >= RX_SALVAGE_TOLD)
        return;
    snprintf(full, sizeof full, "%s, at %llu: %s", rx_layer_names[s->layer], (unsigned long long)offset, text);
    s->fault(s->ctx, offset, full);
}

static struct rx_salvaged_file *rx_salvage_file(struct rx_salvage *s)
{
    return s->layer == RX_LAYER_NAME ? &s->told->name : &s->told->checkpoint;
}

/* ---- leaves -------------------------------------------------------------------------------- */

static int rx_salvage_put(void *ctx, const struct rx_leaf_view *v)
{
    struct rx_salvage *s = ctx;
    int rc;
    do
        rc = rx_put(s->into, NULL, v->key, v->key_len, v->value, v->value_len, -1, NULL);
    while (rc == RX_WOULD_WAIT);
    return rc;
}

/* A leaf that nothing leads to: of a key that is not there, it is taken, or only counted. */
static int rx_salvage_orphan(void *ctx, const struct rx_leaf_view *v)
{
    struct rx_salvage *s = ctx;
    int rc;
    do
        rc = s->all ? rx_insert(s->into, NULL, v->key, v->key_len, v->value, v->value_len, -1, NULL)
                    : rx_exists(s->into, NULL, v->key, v->key_len);
    while (rc == RX_WOULD_WAIT);
    if (rc == RX_PRESENT || (rc == RX_OK && !s->all))
        return RX_OK;
    s->told->orphans += rc == RX_OK || rc == RX_ABSENT;
    return rc == RX_ABSENT ? RX_OK : rc;
}

static int rx_salvage_image(struct rx_salvage *s, bool sweep)
{
    struct rx_image im;
    struct rx_salvaged_file *told = rx_salvage_file(s);
    int fd = told->state == RX_SALVAGED_MISSING ? -1 : rx_reopen_fd(s->fd[s->layer], O_RDONLY);
    if (fd < 0)
        return told->state == RX_SALVAGED_MISSING ? RX_OK : rx_os_error("open", s->db->path);
    if (!s->sealed[s->layer])
        rx_salvage_tell(s, 0, s->unsealed[s->layer]);
    int rc = rx_image_open(fd, s->known.checksum != 0, &s->told->done, &im);
    if (rc == RX_OK)
        rc = sweep ? rx_image_walk(&im, NULL, NULL, NULL) : rx_image_walk(&im, rx_salvage_put, rx_salvage_tell, s);
    if (rc == RX_OK && sweep)
        rc = rx_image_sweep(&im, rx_salvage_orphan, s);
    told->leaves = im.leaves;
    told->lost = im.lost;
    bool doubtful = s->layer == RX_LAYER_NAME && !s->believed; /* whole, but of no one moment */
    told->state = im.lost || !s->sealed[s->layer] ? RX_SALVAGED_DAMAGED : doubtful ? RX_SALVAGED_DOUBTFUL : RX_SALVAGED_WHOLE;
    rx_image_close(&im);
    return rc;
}

/* ---- the log ---------------------------------------------------------------------------------- */

/* Where the checkpoint says; else where the oldest segment begins: what it repeats is in order. */
static int rx_salvage_seek(struct rx_salvage *s, struct rx_reader *r)
{
    const struct rx_super *c = &s->super[RX_LAYER_CHECKPOINT];
    bool from_checkpoint = s->fd[RX_LAYER_CHECKPOINT] >= 0 && s->sealed[RX_LAYER_CHECKPOINT];
    if (r->count == 0)
        return RX_ABSENT;
    int rc = rx_reader_seek(r, from_checkpoint ? c->log_bytes : 0, from_checkpoint ? c->log_position : 0);
    if (rc != RX_ABSENT)
        return rc;
    size_t oldest = 0;
    for (size_t i = 1; i < r->count; i++)
        oldest = r->segment[i].bytes < r->segment[oldest].bytes ? i : oldest;
    if (s->fd[RX_LAYER_CHECKPOINT] < 0) {
        rx_salvage_tell(s, r->segment[oldest].bytes, "what was before is gone");
        s->told->gaps++;
    }
    return rx_reader_seek(r, r->segment[oldest].bytes, r->segment[oldest].first);
}

/* Behind what is damaged; RX_END: there is nothing. */
static int rx_salvage_skip(struct rx_salvage *s, struct rx_reader *r, const char *why)
{
    char text[400];
    uint64_t from = r->bytes, after = r->number;
    int n = snprintf(text, sizeof text, "%s; from the change after ticket %llu on", why,
                     (unsigned long long)(r->segment[r->at].incarnation << RX_LOG_TICKET_BITS | after));
    int rc = rx_reader_skip(r);
    uint64_t size = rc == RX_OK ? r->bytes - from : 0;
    if (rc == RX_OK)
        snprintf(text + n, sizeof text - (size_t)n, ", %llu bytes are lost", (unsigned long long)size);
    else
        snprintf(text + n, sizeof text - (size_t)n, ", all is lost");
    rx_salvage_tell(s, from, text);
    s->told->gaps++;
    s->told->gap_bytes += size;
    return rc;
}

/* Behind a gap numbers are not known: the end is where nothing stands, and no segment is behind that. */
static bool rx_salvage_ends(const struct rx_reader *r)
{
    for (size_t i = 0; i < r->count; i++)
        if (r->segment[i].bytes > r->bytes)
            return false;
    return rx_reader_blank(r) && r->headless <= r->segment[r->at].id;
}

static int rx_salvage_frames(struct rx_salvage *s, struct rx_reader *r)
{
    struct rx_recovered told = {0};
    struct rx_piece piece;
    bool skipped = false;
    int rc = RX_OK;
    while (rc == RX_OK) {
        uint64_t before = r->bytes;
        rc = skipped ? rx_reader_take(r, &piece) : rx_reader_next(r, &piece);
        if (rc == RX_OK) {
            rc = rx_replay_piece(s->into, &piece, UINT64_MAX, &told);
            s->told->done += r->bytes - before;
        }
        if (rc == RX_E_CORRUPT || rc == RX_E_OS || (skipped && rc == RX_END && !rx_salvage_ends(r))) {
            rc = rx_salvage_skip(s, r, rc == RX_END ? "no whole frame" : rx_error_text());
            skipped = true;
        }
        if (rc == RX_OK)
            rc = rx_poll_interrupt();
    }
    s->told->entries = told.entries;
    return rc == RX_END ? RX_OK : rc;
}

static int rx_salvage_log(struct rx_salvage *s)
{
    struct rx_reader r;
    struct rx_salvaged *t = s->told;
    t->entries = t->gaps = t->gap_bytes = 0;
    int rc = rx_reader_open(s->db, &r);
    t->log = RX_SALVAGED_MISSING;
    if (rc)
        return rc == RX_ABSENT ? RX_OK : rc;
    for (size_t i = 0; i < r.count; i++)
        t->total += r.segment[i].size;
    rc = rx_salvage_seek(s, &r);
    if (rc == RX_OK)
        rc = rx_salvage_frames(s, &r);
    if (rc == RX_OK)
        t->log = t->gaps ? RX_SALVAGED_DAMAGED : RX_SALVAGED_WHOLE;
    if (rc == RX_OK && s->sealed[RX_LAYER_CHECKPOINT] && r.number < s->super[RX_LAYER_CHECKPOINT].log_least)
        t->log = RX_SALVAGED_DAMAGED;
    rx_reader_close(&r);
    return rc == RX_ABSENT ? RX_OK : rc;
}

/* ---- the layers ---------------------------------------------------------------------------------- */

static int rx_salvage_layer(struct rx_salvage *s, enum rx_layer layer)
{
    s->layer = layer;
    int rc = layer == RX_LAYER_LOG ? rx_salvage_log(s) : rx_salvage_image(s, false);
    s->spoke[layer] = true;
    return rc;
}

/* An empty index beside the target. */
static int rx_salvage_into(struct rx_salvage *s)
{
    struct rx_options o = {.path = s->made, .mode = 'n', .durability = RX_D_PROCESS, .max_size = UINT64_MAX, .fences = -1,
                           .key_codec = (int)s->known.key_codec, .value_codec = (int)s->known.value_codec,
                           .checksum = 1, .umask_mode = 0666};
    struct stat st;
    if (s->fd[RX_LAYER_NAME] >= 0 && rx_sys_fstat(s->fd[RX_LAYER_NAME], &st) != 0)
        return rx_os_error("look at", s->db->path); /* others shall not read more than there */
    if (s->fd[RX_LAYER_NAME] >= 0)
        o.umask_mode = st.st_mode & 0666;
    return rx_open(&o, &s->into);
}

static void rx_salvage_drop(struct rx_salvage *s)
{
    if (s->into == NULL)
        return;
    (void)rx_close(s->into);
    rx_free(s->into);
    s->into = NULL;
    (void)rx_destroy(s->made);
}

static bool rx_salvage_logged(const struct rx_salvage *s) { return s->known.durability != RX_D_PROCESS; }

/* Something is missing, and something else may have it. */
static bool rx_salvage_short(const struct rx_salvage *s)
{
    const struct rx_salvaged *t = s->told;
    if (!rx_salvage_logged(s))
        return false;
    if (s->believed)
        return t->name.state != RX_SALVAGED_WHOLE;
    bool whole = t->log == RX_SALVAGED_WHOLE && t->checkpoint.state != RX_SALVAGED_DAMAGED;
    return !whole && s->fd[RX_LAYER_NAME] >= 0;
}

static int rx_salvage_read(struct rx_salvage *s)
{
    static const enum rx_layer believed[] = {RX_LAYER_CHECKPOINT, RX_LAYER_LOG, RX_LAYER_NAME};
    static const enum rx_layer doubted[] = {RX_LAYER_NAME, RX_LAYER_CHECKPOINT, RX_LAYER_LOG};
    const enum rx_layer *order = s->believed || !rx_salvage_logged(s) ? believed : doubted;
    int from = order == believed ? 2 : 1, rc = rx_salvage_into(s);
    for (int i = from; i < RX_LAYERS && rc == RX_OK; i++)
        rc = rx_salvage_layer(s, order[i]);
    if (rc != RX_OK || !rx_salvage_short(s))
        return rc;
    rx_salvage_drop(s);
    rc = rx_salvage_into(s);
    for (int i = 0; i < RX_LAYERS && rc == RX_OK; i++)
        rc = rx_salvage_layer(s, order[i]);
    return rc;
}

/* Last, so that what is known wins; only of files that were needed. */
static int rx_salvage_orphans(struct rx_salvage *s)
{
    int rc = RX_OK;
    for (enum rx_layer layer = RX_LAYER_NAME; layer <= RX_LAYER_CHECKPOINT && rc == RX_OK; layer++) {
        s->layer = layer;
        if (rx_salvage_file(s)->state == RX_SALVAGED_DAMAGED || (s->all && layer == RX_LAYER_NAME))
            rc = rx_salvage_image(s, true);
    }
    return rc;
}

/* ---- what there is -------------------------------------------------------------------------------- */

/* The superblock's fixed part. */
static bool rx_fixed_whole(const struct rx_super *s)
{
    return memcmp(s->magic, RX_MAGIC, 8) == 0 && s->endian == RX_ENDIAN_MARK && s->version == RX_VERSION &&
           s->fixed_crc == rx_crc32c(0, s, offsetof(struct rx_super, fixed_crc)) && s->checksum <= 1 &&
           s->durability >= RX_D_PROCESS && s->durability <= RX_D_COMMIT;
}

static void rx_salvage_without(struct rx_salvage *s, enum rx_layer layer)
{
    rx_held_close(s->fd[layer]);
    s->fd[layer] = -1;
    s->sealed[layer] = false;
}

static int rx_salvage_open(struct rx_salvage *s, enum rx_layer layer, const char *name)
{
    struct stat st;
    int fd = rx_held_open(s->db->dir_fd, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY, 0);
    if (fd < 0)
        return errno == ENOENT ? RX_OK : rx_os_error("open", name);
    s->fd[layer] = fd;
    if (rx_sys_fstat(fd, &st) != 0)
        return rx_os_error("look at", name);
    if (!S_ISREG(st.st_mode))
        return rx_fail(RX_E_FORMAT, 0, "%s is no regular file", name);
    if (rx_sys_pread(fd, &s->super[layer], sizeof s->super[layer], 0) < 0)
        memset(&s->super[layer], 0, sizeof s->super[layer]); /* a sector that cannot be read */
    int rc = rx_super_check(&s->super[layer], (uint64_t)st.st_size);
    s->sealed[layer] = rc == RX_OK;
    s->told->total += (uint64_t)st.st_size;
    bool whole = s->super[layer].fixed_crc == rx_crc32c(0, &s->super[layer], offsetof(struct rx_super, fixed_crc));
    bool other = rc == RX_E_FORMAT && whole && memcmp(s->super[layer].magic, RX_MAGIC, 8) == 0 && st.st_size >= RX_HEAP;
    if (other && rx_fixed_whole(&s->super[RX_LAYER_NAME]) && memcmp(s->super[layer].uuid, s->super[RX_LAYER_NAME].uuid, 16) != 0)
        rx_salvage_without(s, layer); /* left by an index that NAME has replaced (R6) */
    else if (other)
        return rc; /* of another version or machine, and not ours to read */
    if (rc)
        rx_error_keep(s->unsealed[layer], sizeof s->unsealed[layer]);
    return RX_OK;
}

/* One that this version knows; else bytes. */
static bool rx_codec_known(uint32_t *codec, uint32_t last)
{
    bool known = (*codec >= RX_C_BYTES && *codec <= last) || *codec == RX_C_CUSTOM;
    *codec = known ? *codec : RX_C_BYTES;
    return known;
}

/* What kind of an index it is; of the parts that are there, those of another one are not used. */
static int rx_salvage_know(struct rx_salvage *s)
{
    struct rx_super *name = &s->super[RX_LAYER_NAME], *checkpoint = &s->super[RX_LAYER_CHECKPOINT];
    bool known = rx_fixed_whole(name), has_checkpoint = rx_fixed_whole(checkpoint);
    s->known = known ? *name : *checkpoint;
    s->told->options_known = known || has_checkpoint;
    if (!s->told->options_known) {
        s->known = (struct rx_super){.checksum = 1, .key_codec = RX_C_BYTES, .value_codec = RX_C_BYTES};
        if (rx_reader_uuid(s->db, s->known.uuid) == RX_OK || s->fd[RX_LAYER_CHECKPOINT] >= 0)
            s->known.durability = RX_D_BATCH;
        else
            s->known.durability = RX_D_PROCESS;
    }
    s->told->options_known &= rx_codec_known(&s->known.key_codec, RX_C_TUPLE) &
                              rx_codec_known(&s->known.value_codec, RX_C_MSGPACK);
    memcpy(s->db->uuid, s->known.uuid, 16);
    if (has_checkpoint && memcmp(checkpoint->uuid, s->known.uuid, 16) != 0)
        rx_salvage_without(s, RX_LAYER_CHECKPOINT);
    struct rx_node root = {0};
    int fd = s->fd[RX_LAYER_NAME];
    if (!known && fd >= 0 && !rx_salvage_logged(s) && !s->all &&
        (rx_sys_pread(fd, &root, sizeof root, RX_ROOT_OFF) != (ssize_t)sizeof root || root.shape != RX_K_N256))
        return rx_fail(RX_E_FORMAT, 0, "nothing of %s looks like a Rowex file", s->db->path);
    if (fd < 0 && !rx_salvage_logged(s) && !s->told->options_known)
        return rx_fail(RX_E_NOT_FOUND, ENOENT, "neither %s nor a checkpoint or log of it is there", s->db->path);
    return RX_OK;
}

/* Is the data file as its last user has left it? */
static bool rx_salvage_believes(const struct rx_salvage *s)
{
    const struct rx_super *name = &s->super[RX_LAYER_NAME];
    struct stat st;
    uint8_t boot[16];
    if (!s->sealed[RX_LAYER_NAME])
        return false;
    if (name->state == RX_STATE_CLEAN)
        return !rx_salvage_logged(s) || rx_log_agrees(s->db, name) == RX_OK;
    return rx_boot_id(boot) == RX_OK && rx_super_is_live(name, boot) && rx_sys_fstat(s->fd[RX_LAYER_NAME], &st) == 0 &&
           name->dev == (uint64_t)st.st_dev && name->ino == (uint64_t)st.st_ino;
}

/* Nobody uses it, and nobody begins to before the descriptor is closed: who tries is told. */
static int rx_salvage_alone(struct rx_salvage *s)
{
    char side[300];
    int fd = s->fd[RX_LAYER_NAME];
    snprintf(side, sizeof side, "%.290s-lock", s->db->name);
    int lock = rx_sys_openat(s->db->dir_fd, side, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
    int rc = lock >= 0 ? rx_byte_ask(lock, RX_LOCK_USERS) : RX_OK, os_errno = errno;
    rx_close_fd(lock);
    errno = os_errno;
    if (rc == RX_OK && fd >= 0)
        rc = rx_byte_ask(fd, RX_LOCK_USERS);
    if (rc == RX_OK && fd >= 0)
        rc = rx_byte_lock(fd, F_RDLCK, RX_LOCK_USERS);
    if (rc == RX_E_BUSY)
        return rx_fail(RX_E_BUSY, 0, "%s is open; `rowex backup` copies an index that is in use", s->db->path);
    return rc ? rx_os_error("ask who uses", s->db->path) : RX_OK;
}

static int rx_salvage_source(struct rx_salvage *s)
{
    char side[300];
    rx_checkpoint_name(s->db, "", side);
    int rc = rx_salvage_open(s, RX_LAYER_NAME, s->db->name);
    if (rc == RX_OK)
        rc = rx_salvage_alone(s);
    if (rc == RX_OK)
        rc = rx_salvage_open(s, RX_LAYER_CHECKPOINT, side);
    if (rc == RX_OK)
        rc = rx_salvage_know(s);
    if (rc)
        return rc;
    s->believed = rx_salvage_believes(s);
    s->told->name.state = s->fd[RX_LAYER_NAME] < 0 ? RX_SALVAGED_MISSING : RX_SALVAGED_UNNEEDED;
    s->told->checkpoint.state = s->fd[RX_LAYER_CHECKPOINT] < 0 && rx_salvage_logged(s) ? RX_SALVAGED_MISSING
                                                                                       : RX_SALVAGED_UNNEEDED;
    return RX_OK;
}

/* ---- the target ------------------------------------------------------------------------------------- */

static int rx_salvage_target(struct rx_salvage *s, const struct rx_options *to)
{
    struct stat source, target;
    uint64_t random;
    char *name = NULL;
    int dir_fd = -1, rc = rx_target_folder(to->path, &dir_fd, &name);
    if (rc == RX_OK && (rx_sys_fstat(s->db->dir_fd, &source) != 0 || rx_sys_fstat(dir_fd, &target) != 0))
        rc = rx_os_error("look at the folder of", to->path);
    if (rc == RX_OK && source.st_dev == target.st_dev && source.st_ino == target.st_ino && strcmp(name, s->db->name) == 0)
        rc = rx_fail(RX_E_ARGUMENT, 0, "%s salvaged into itself", s->db->path);
    if (rc == RX_OK && to->mode != 'n' && rx_target_exists(dir_fd, name))
        rc = rx_fail(RX_E_EXISTS, 0, "%s was left as it is", to->path);
    rx_close_fd(dir_fd);
    free(name);
    rx_random_bytes(&random, sizeof random);
    size_t room = strlen(to->path) + sizeof "-salvage-0123456789abcdef";
    if (rc == RX_OK && (s->made = rx_sys_malloc(room)) == NULL)
        rc = rx_fail(RX_E_MEMORY, 0, "for a path");
    if (rc == RX_OK)
        snprintf(s->made, room, "%s-salvage-%016llx", to->path, (unsigned long long)random);
    return rc;
}

static int rx_salvage_place(struct rx_salvage *s, const struct rx_options *to)
{
    struct rx_options o = *to;
    int rc = rx_count(s->into, &s->told->keys);
    if (rc == RX_OK)
        rc = rx_close(s->into);
    o.durability = o.durability ? o.durability : (int)s->known.durability;
    o.checksum = o.checksum < 0 ? (int)s->known.checksum : o.checksum;
    o.max_size = o.max_size == UINT64_MAX ? s->known.max_size : o.max_size;
    return rc ? rc : rx_copy_file(s->made, &o);
}

static int rx_salvage_run(struct rx_salvage *s, const struct rx_options *to)
{
    int rc = rx_target_folder(s->db->path, &s->db->dir_fd, &s->db->name);
    if (rc == RX_OK)
        rc = rx_salvage_source(s);
    if (rc == RX_OK)
        rc = rx_salvage_target(s, to);
    if (rc == RX_OK)
        rc = rx_salvage_read(s);
    if (rc == RX_OK)
        rc = rx_salvage_orphans(s);
    return rc ? rc : rx_salvage_place(s, to);
}

int rx_salvage(const char *from, const struct rx_options *to, int all, rx_fault_fn fault, void *ctx, struct rx_salvaged *told)
{
    struct rx_db *db = rx_sys_calloc(1, sizeof *db);
    struct rx_salvage *s = rx_sys_calloc(1, sizeof *s);
    int rc = db && s ? RX_OK : rx_fail(RX_E_MEMORY, 0, "for salvaging");
    memset(told, 0, sizeof *told);
    if (rc == RX_OK) {
        db->dir_fd = db->lock_fd = db->probe_fd = -1;
        db->path = (char *)(uintptr_t)from;
        *s = (struct rx_salvage){.db = db, .fd = {-1, -1}, .all = all != 0, .fault = fault, .ctx = ctx, .told = told};
        rc = rx_salvage_run(s, to);
        rx_salvage_drop(s);
        rx_held_close(s->fd[0]);
        rx_held_close(s->fd[1]);
        rx_close_fd(db->dir_fd);
        free(db->name);
        free(s->made);
    }
    free(s);
    free(db);
    return rc;
}
