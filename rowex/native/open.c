/*
 * open.c -- opening: who is first, who joins, and in what state the file is found.
 *
 * The order of locks is: the registry's mutex (this process), the OPENING byte of
 * NAME-lock (everybody), then the users' bytes, which are only tried.  Under OPENING
 * nobody else opens, closes or marks.
 *
 * Users' bytes, exclusively obtained:  both       we are the first opener
 *                                      neither    we join
 *                                      data only  the users are on another inode: a copy
 *                                                 was renamed and its step is to be taken,
 *                                                 or it was while we looked
 *                                      lock only  the file is in use with a -lock file
 *                                                 that is gone: refused
 *
 * Where NAME names another file than the one that its users have (mode "n", or the work of
 * others), they are told and lose NAME-lock with it: who comes then makes a new one.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/membarrier.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>
#include "attach.h"
#include "checkpoint.h"
#include "disk.h"
#include "flush.h"
#include "recovery.h"
#include "segment.h"
#include "../gc/alloc.h"
#include "../gc/gate.h"
#include "../gc/scan.h"
#include "../gc/uid.h"

static bool rx_membarrier_ready(void)
{
    static int ready = -1; /* registered once for the process; a child inherits it */
    if (ready < 0) {
        const char *off = getenv("ROWEX_NO_MEMBARRIER");
        ready = !(off && *off && *off != '0') &&
                syscall(__NR_membarrier, MEMBARRIER_CMD_REGISTER_GLOBAL_EXPEDITED, 0, 0) == 0;
    }
    return ready;
}

/* ---- NAME-lock ------------------------------------------------------------------ */

static void rx_lock_pointers(struct rx_db *db, uint8_t *base)
{
    db->lock_base = base;
    db->hdr = (struct rx_lockhdr *)(void *)base;
    db->processes = (struct rx_process *)(void *)(base + RX_LOCKFILE_PROCESSES);
    db->slots = (struct rx_slot *)(void *)(base + RX_LOCKFILE_SLOTS);
    db->arenas = (struct rx_arena *)(void *)(base + RX_LOCKFILE_ARENAS);
    db->ring = (struct rx_log_entry *)(void *)(base + RX_LOCKFILE_RING);
}

static int rx_lock_map(struct rx_db *db)
{
    int flags = db->lock_fd < 0 ? MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE : MAP_SHARED;
    int fd = db->lock_fd < 0 ? -1 : rx_reopen_fd(db->lock_fd, O_RDWR);
    void *base = db->lock_fd >= 0 && fd < 0
                     ? MAP_FAILED
                     : rx_sys_mmap(NULL, RX_LOCKFILE_SIZE, PROT_READ | PROT_WRITE, flags, fd, 0);
    int os_errno = errno;
    if (fd >= 0)
        rx_sys_close(fd);
    if (base == MAP_FAILED)
        return rx_fail(RX_E_MEMORY, os_errno, "cannot map the -lock file of %s", db->path);
    (void)rx_sys_madvise(base, RX_LOCKFILE_SIZE, MADV_RANDOM); /* read-around of its holes costs 3 ms at the first touch */
    rx_lock_pointers(db, base);
    return db->lock_fd < 0 ? RX_OK : rx_guard_add(base, RX_LOCKFILE_SIZE, &db->map->poison);
}

/* The first opener empties it in place: whatever it held is of users that are no more. */
static int rx_lock_reset(struct rx_db *db)
{
    if (db->lock_fd < 0)
        return RX_OK;
    if (rx_sys_ftruncate(db->lock_fd, 0) != 0 || rx_allocate_fd(db->lock_fd, 0, RX_LOCKFILE_SLOTS) != 0 ||
        rx_sys_ftruncate(db->lock_fd, (off_t)RX_LOCKFILE_SIZE) != 0)
        return rx_os_error("set up the -lock file of", db->path);
    if (!db->memory && rx_copy_attributes(db->map->fd, db->lock_fd) != 0)
        return rx_os_error("give the mode and owner of the file to the -lock file of", db->path);
    return RX_OK;
}

/* ---- our process's entry ----------------------------------------------------------- */

/*
 * Whose byte can be locked is nobody's, or a dead process's: then it is reaped first, and
 * the byte that we hold is the proof (R7).
 */
static int rx_process_take(struct rx_db *db)
{
    for (uint32_t i = 0; i < RX_PROCESSES; i++) {
        struct rx_process *p = &db->processes[i];
        int rc = db->lock_fd < 0 ? RX_OK : rx_byte_lock(db->lock_fd, F_WRLCK, RX_LOCK_PROCESS + i);
        if (rc == RX_E_BUSY)
            continue;
        if (rc)
            return rx_os_error("lock", db->path);
        if (rx_load(&p->token)) {
            /* Reaping stores to the map, which must be of the generation that the dead one wrote to:
             * a step may have been taken since we looked, but none can pass once it is dead. */
            bool moved = db->map->generation != rx_load(&db->hdr->generation);
            if (moved || db->readonly) {
                rc = rx_byte_unlock(db->lock_fd, RX_LOCK_PROCESS + i); /* held on, it would keep others from the proof */
                if (moved || rc)
                    return moved ? RX_I_RESTART : rx_os_error("unlock", db->path);
                continue;
            }
            rx_reap_process(db, db->map, i);
        }
        uint64_t random;
        rx_random_bytes(&random, sizeof random);
        db->process = i;
        rx_store32(&p->pid, (uint32_t)getpid());
        rx_store32(&p->flags, db->light ? RX_P_MEMBARRIER : 0);
        rx_store(&p->opened_ns, (uint64_t)rx_now_ns());
        rx_store(&p->token, random | 1);
        return RX_OK;
    }
    return rx_fail(RX_E_TABLE_FULL, 0, "%u processes have %s open", RX_PROCESSES, db->path);
}

/* ---- the state of the file ------------------------------------------------------------ */

static int rx_super_read(struct rx_db *db, int fd, struct rx_super *super, struct stat *st)
{
    if (rx_sys_fstat(fd, st) != 0)
        return rx_os_error("look at", db->path);
    if (!S_ISREG(st->st_mode))
        return rx_fail(RX_E_FORMAT, 0, "%s is no regular file", db->path);
    memset(super, 0, sizeof *super);
    if (rx_sys_pread(fd, super, sizeof *super, 0) < 0)
        return rx_os_error("read", db->path);
    int rc = rx_super_check(super, (uint64_t)st->st_size);
    return rc ? rx_fail_in(rc, db->path) : RX_OK;
}

/* Not closed cleanly: is the page cache still the truth? */
static int rx_judge_unclean(const struct rx_db *db, const struct rx_super *super, const struct stat *st)
{
    bool booted = !rx_super_is_live(super, db->boot_id);
    if (booted && super->durability != RX_D_PMEM)
        return rx_fail(RX_E_POWER, 0, "%s was open when the machine stopped, and it has no log", db->path);
    bool moved = super->dev != (uint64_t)st->st_dev && !booted; /* devices are numbered anew */
    if (!db->memory && (moved || super->ino != (uint64_t)st->st_ino))
        return rx_fail(RX_E_POWER, 0, "%s is a copy that was made while the original was open; use `rowex cp`", db->path);
    if (db->readonly)
        return rx_fail(RX_E_PERMISSION, 0, "%s was not closed cleanly and must once be opened for writing", db->path);
    return RX_OK;
}

static int rx_max_size_agrees(uint64_t asked, uint64_t file)
{
    if (asked == UINT64_MAX || asked == file)
        return RX_OK;
    if (file == 0)
        return rx_fail(RX_E_CONFLICT, 0, "the file has no max_size, %llu was asked for", (unsigned long long)asked);
    return rx_fail(RX_E_CONFLICT, 0, "max_size is %llu in the file, %llu was asked for", (unsigned long long)file,
                   (unsigned long long)asked);
}

static const char *rx_codec_name(uint32_t codec)
{
    static const char *const names[] = {"?", "bytes", "str", "int", "tuple", "msgpack"};
    return codec == RX_C_CUSTOM ? "a pair of functions" : names[codec < sizeof names / sizeof *names ? codec : 0];
}

static int rx_codecs_agree(const char *what, int asked, uint32_t file)
{
    if (asked == 0 || (uint32_t)asked == file)
        return RX_OK;
    return rx_fail(RX_E_CONFLICT, 0, "the file has %s=%s, %s was asked for", what, rx_codec_name(file),
                   rx_codec_name((uint32_t)asked));
}

int rx_options_agree(const struct rx_db *db, const struct rx_options *o)
{
    static const char *const levels[] = {"?", "process", "batch", "commit", "pmem"};
    bool same = o->durability == 0 || (uint32_t)o->durability == db->durability ||
                (rx_level_logged((uint32_t)o->durability) && rx_level_logged(db->durability)); /* each handle's choice */
    int rc = same ? RX_OK
                  : rx_fail(RX_E_CONFLICT, 0, "the file has durability=\"%s\", \"%s\" was asked for",
                            levels[db->durability <= RX_D_PMEM ? db->durability : 0],
                            levels[o->durability > 0 && o->durability <= RX_D_PMEM ? o->durability : 0]);
    if (rc == RX_OK)
        rc = rx_codecs_agree("keys", o->key_codec, db->key_codec);
    if (rc == RX_OK)
        rc = rx_codecs_agree("values", o->value_codec, db->value_codec);
    if (rc == RX_OK && o->checksum >= 0 && (o->checksum != 0) != db->map->checksum)
        rc = rx_fail(RX_E_CONFLICT, 0, "the file has checksum=%s, %s was asked for", db->map->checksum ? "True" : "False",
                     o->checksum ? "True" : "False");
    uint64_t capacity = db->map->capacity;
    if (rc == RX_OK && o->capacity > capacity) /* copies make it larger, so what is asked for is the least */
        rc = rx_fail(RX_E_CONFLICT, 0, "capacity is %llu in the file, at least %llu was asked for",
                     (unsigned long long)capacity, (unsigned long long)o->capacity);
    return rc ? rc : rx_max_size_agrees(o->max_size, db->max_size);
}

/* A replay needs more room for a while than what it replays had: holes lie elsewhere, compact() is in no log. */
static void rx_adopt_super(struct rx_db *db, const struct rx_super *super, bool replaying)
{
    memcpy(db->uuid, super->uuid, 16);
    db->durability = super->durability;
    db->key_codec = super->key_codec;
    db->value_codec = super->value_codec;
    db->max_size = replaying ? 0 : super->max_size;
    db->session_seen = super->session;
    db->map->generation = super->generation;
    db->map->checksum = super->checksum != 0;
}

/* ---- first and joiner ------------------------------------------------------------------- */

static void rx_hdr_fill(struct rx_db *db, const struct rx_super *super, const struct stat *st)
{
    struct rx_lockhdr *hdr = db->hdr;
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    uint64_t serial = ((uint64_t)now.tv_sec * 1000000000ull + (uint64_t)now.tv_nsec) >> 10;
    rx_fill(hdr->uuid, super->uuid, 16);
    rx_store32(&hdr->version, RX_LOCK_VERSION);
    rx_store(&hdr->session, super->session);
    rx_store(&hdr->generation, super->generation);
    rx_store(&hdr->epoch, 1);
    rx_store(&hdr->dev, (uint64_t)st->st_dev);
    rx_store(&hdr->ino, (uint64_t)st->st_ino);
    rx_store(&hdr->allocated, (uint64_t)st->st_size / RX_EXTENT * RX_EXTENT);
    rx_store(&hdr->next_serial, serial & ((1ull << 50) - 1));
    rx_fill(hdr->magic, RX_LOCK_MAGIC, 8);
}

/* NAME-lock as a session that nobody closed has left it. RX_ABSENT: nothing of its log is there. */
static int rx_rescue(struct rx_db *db, const struct rx_super *super, struct rx_origin *kept)
{
    struct stat st;
    if (rx_sys_fstat(db->lock_fd, &st) != 0 || (uint64_t)st.st_size != RX_LOCKFILE_SIZE)
        return RX_ABSENT;
    int rc = rx_lock_map(db);
    if (rc)
        return rc;
    rc = rx_log_rescue(db, super, kept);
    rx_guard_remove(db->lock_base);
    munmap(db->lock_base, RX_LOCKFILE_SIZE);
    db->lock_base = NULL;
    db->hdr = NULL;
    return rc;
}

/* After the loss of power: from checkpoint and log. RX_I_RESTART: done, NAME is another file now. */
static int rx_recover_first(struct rx_db *db, const struct rx_super *super)
{
    struct rx_recovered told;
    if (db->readonly)
        return rx_fail(RX_E_PERMISSION, 0, "%s was open when the machine stopped, and must once be opened for writing", db->path);
    rx_remove_leftovers(db, ""); /* what recovery makes is clean, so nobody would look for them later; and it needs room */
    int rc = rx_recover(db, super, &told);
    if (rc)
        return rc;
    rx_event("recovery", told.entries, told.upto);
    return RX_I_RESTART;
}

/* Nobody else has it open. */
static int rx_be_first(struct rx_db *db, const struct rx_super *super, const struct stat *st)
{
    struct rx_origin kept;
    bool clean = super->state == RX_STATE_CLEAN, rescued = false;
    int rc = clean ? RX_OK : rx_judge_unclean(db, super, st);
    if (rc == RX_E_POWER && db->logged)
        return rx_recover_first(db, super);
    if (rc == RX_OK && clean && db->logged && !db->lockless)
        rc = rx_log_agrees(db, super);
    if (rc == RX_OK && !clean && db->logger) {
        rc = rx_rescue(db, super, &kept);
        rescued = rc == RX_OK;
        rc = rc == RX_ABSENT ? RX_OK : rc;
    }
    if (rc == RX_OK)
        rc = rx_lock_reset(db);
    if (rc == RX_OK)
        rc = rx_lock_map(db);
    if (rc)
        return rc;
    rx_hdr_fill(db, super, st);
    if (rescued)
        rx_log_resume(db, &kept);
    if (!db->memory && !db->lockless)
        rx_remove_unfinished(db);
    if (db->logger) {
        rx_checkpoint_forget(db, db->uuid);
        rx_recovery_forget(db);
        rx_log_tidy(db);
    }
    const struct rx_node *root = (const struct rx_node *)(const void *)(db->map->base + RX_ROOT_OFF);
    if (root->shape != RX_K_N256 || root->prefix_len != 0 || root->level != 0)
        return rx_corrupt(RX_ROOT_OFF, "the root is not a root");
    if ((rc = rx_process_take(db)) != RX_OK)
        return rc;
    if (clean) {
        rx_store(&db->hdr->brk, super->brk / RX_EXTENT);
        rx_store(&db->hdr->base_count[super->generation & 1], super->count);
        rc = rx_arenas_from_super(db, db->map, super);
    } else {
        struct rx_scan_report report = {0};
        if (!db->memory)
            rx_remove_leftovers(db, "");
        if (!db->memory) { /* who made the mark may have died before its sync: durable before our first store (R4) */
            rx_super_set_state(rx_super_of(db->map), RX_STATE_IN_USE); /* or that failed, and left the page clean */
            rc = rx_map_sync(db->map, RX_SUPER_SIZE);
            if (rc && rescued)
                rx_super_doubt(rx_super_of(db->map));
        }
        if (rc == RX_OK)
            rc = rx_scan_repair(db, db->map, &report);
        db->scan_reclaimed = report.reclaimed_cells + 1;
        /* A log that could not be rescued has to be begun anew: by the first to write. */
        if (rc == RX_OK && rescued)
            rc = rx_log_begin(db);
        if (rc == RX_OK && (rescued || !db->logged))
            rx_store(&db->hdr->marked, 1);
    }
    if (rc == RX_OK)
        rx_store32(&db->hdr->ready, 1);
    return rc;
}

/*
 * NAME names another file than its users have.  That is for good: this one's uuid differs,
 * or rx_name_is_ours() said so.
 * Requires  OPENING: nobody is about to join through this NAME-lock.
 * Crash     told, but NAME-lock still there: the next who comes does the same again.
 */
static int rx_disown(struct rx_db *db)
{
    char name[300];
    rx_store(&db->hdr->generation, RX_GENERATION_REPLACED);
    rx_gate_void_copy(db); /* a copier that sleeps before its rename would replace the new file */
    rx_checkpoint_forget(db, db->hdr->uuid); /* and who makes a checkpoint, the new file's */
    snprintf(name, sizeof name, "%s-lock", db->name);
    if (rx_sys_unlinkat(db->dir_fd, name, 0) == 0 || errno == ENOENT)
        return RX_I_RESTART;
    return rx_fail(RX_E_REPLACED, errno, "%s is another file than the one in use under this name, whose -lock file "
                   "may not be removed", db->path);
}

static int rx_join(struct rx_db *db, const struct rx_super *super, const struct stat *st)
{
    int rc = rx_lock_map(db);
    if (rc)
        return rc;
    struct rx_lockhdr *hdr = db->hdr;
    if (memcmp(hdr->magic, RX_LOCK_MAGIC, 8) != 0 || hdr->version != RX_LOCK_VERSION || !rx_load32(&hdr->ready))
        return rx_fail(RX_E_FORMAT, 0, "the -lock file of %s is foreign, or in use by another version", db->path);
    if (memcmp(hdr->uuid, super->uuid, 16) != 0)
        return rx_disown(db);
    /* The generation is the last word of a step: dev and ino alone may be a dead finisher's. */
    if (rx_load(&hdr->dev) != (uint64_t)st->st_dev || rx_load(&hdr->ino) != (uint64_t)st->st_ino ||
        rx_load(&hdr->generation) != super->generation) {
        rc = rx_gate_finish_step(db); /* a copier died between its rename and the end of the step */
        if (rc == RX_ABSENT && rx_name_is_ours(db) == RX_E_REPLACED)
            return rx_disown(db); /* the same uuid: a backup was put there */
        return rc < 0 ? rc : RX_I_RESTART;
    }
    return rx_process_take(db);
}

/* RX_OK: nobody uses the data file, and it is ours alone, where it may be locked.  RX_E_BUSY, RX_E_OS. */
static int rx_data_free(struct rx_db *db, int data_fd)
{
    return db->readonly ? rx_byte_ask(data_fd, RX_LOCK_USERS) : rx_byte_lock(data_fd, F_WRLCK, RX_LOCK_USERS);
}

#define RX_HALF_DEAD_TRIES 1000 /* of a millisecond: the kernel takes a dying user's locks back file by file */

/*
 * Whether we are the first.  Nothing is believed of NAME-lock before it was asked: it may be of another boot,
 * and its users long dead.  A joiner never holds the data file alone: it may be a fresh copy, which those on the
 * old one want to come to.
 */
static int rx_users_ask(struct rx_db *db, int data_fd, bool *first)
{
    int rc, lock = rx_byte_lock(db->lock_fd, F_WRLCK, RX_LOCK_USERS);
    int data = lock == RX_OK ? rx_data_free(db, data_fd) : lock;
    for (int tries = 0; lock == RX_OK && data == RX_E_BUSY && tries < RX_HALF_DEAD_TRIES; tries++) {
        if ((rc = rx_poll_interrupt()) != RX_OK)
            return rc;
        nanosleep(&(struct timespec){0, 1000000}, NULL);
        data = rx_data_free(db, data_fd);
    }
    if (data == RX_E_OS)
        return rx_os_error("ask who uses", db->path);
    if (lock == RX_OK && data == RX_E_BUSY)
        return rx_fail(RX_E_BUSY, 0, "%s is in use, but its -lock file was removed or replaced", db->path);
    *first = lock == RX_OK;
    return RX_OK;
}

/*
 * With both files open under OPENING.  Takes over data_fd (into db->map).
 */
int rx_attach(struct rx_db *db, int data_fd, const struct rx_options *o)
{
    struct rx_super super;
    struct stat st;
    int rc = rx_super_read(db, data_fd, &super, &st);
    bool pmem = rc == RX_OK && super.durability == RX_D_PMEM;
    if (pmem && !db->readonly) {
        rc = rx_pmem_check(data_fd, o->fences, db->path, "open it with mode \"r\", or copy it with durability=\"commit\"");
        if (rc == RX_E_DURABILITY && o->mode == 'r') { /* here nobody writes it, so it can be read and copied */
            db->readonly = true;
            rc = RX_OK;
        }
    }
    if (rc == RX_OK)
        rc = rx_map_new(data_fd, super.capacity, db->readonly, o->fences, pmem, &db->map);
    if (rc) {
        rx_held_close(data_fd);
        return rc;
    }
    rx_adopt_super(db, &super, o->replaying);
    db->logged = rx_level_logged(super.durability) && !o->replaying;
    if ((rc = rx_options_agree(db, o)) != RX_OK)
        return rc;
    if (db->logged && !db->readonly && db->lock_fd >= 0 && (rc = rx_log_attach(db)) != RX_OK)
        return rc;
    rx_log_interval(db, o->flush_interval_ns);
    db->light = rx_membarrier_ready();
    if (!db->memory && (rc = rx_boot_id(db->boot_id)) != RX_OK)
        return rc;
    if (db->lock_fd < 0) /* a read-only medium */
        return super.state == RX_STATE_CLEAN ? rx_be_first(db, &super, &st)
                                             : rx_fail(RX_E_PERMISSION, 0, "%s was not closed cleanly, and the medium is read-only", db->path);
    bool first = false;
    if ((rc = rx_users_ask(db, data_fd, &first)) != RX_OK)
        return rc;
    rc = first ? rx_be_first(db, &super, &st) : rx_join(db, &super, &st);
    if (rc == RX_OK && (rx_byte_lock(db->lock_fd, F_RDLCK, RX_LOCK_USERS) != RX_OK ||
                        rx_byte_lock(data_fd, F_RDLCK, RX_LOCK_USERS) != RX_OK))
        rc = rx_os_error("lock", db->path);
    return rc;
}
