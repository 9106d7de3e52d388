/*
 * close.c -- the marks "in use" and "clean" (R4), leaving, and following the file to
 * its next generation.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>
#include "attach.h"
#include "batch.h"
#include "checkpoint.h"
#include "disk.h"
#include "flush.h"
#include "../gc/alloc.h"
#include "../gc/epoch.h"
#include "../gc/gate.h"
#include "../gc/uid.h"

/* ---- in use --------------------------------------------------------------------- */

static int rx_mark_locked(struct rx_db *db)
{
    struct rx_map *map = db->map;
    struct rx_super *super = rx_super_of(map);
    if (rx_load(&db->hdr->marked))
        return RX_OK;
    int rc = rx_name_is_ours(db);
    if (rc)
        return rc;
    if (db->logged && (rc = rx_log_begin(db)) != RX_OK)
        return rc;
    /* A file that was restored with holes gets its blocks now, where a full disk is an error. */
    if (rx_allocate_fd(map->fd, 0, rx_load(&db->hdr->allocated)) != 0)
        return rx_os_error("give blocks to", db->path);
    if (super->state != RX_STATE_IN_USE) { /* else of this boot and file (open.c); its checksum covers all this */
        rx_store(&super->session, rx_load(&super->session) + 1);
        rx_fill(super->boot_id, db->boot_id, 16);
        rx_store(&super->dev, rx_load(&db->hdr->dev));
        rx_store(&super->ino, rx_load(&db->hdr->ino));
    }
    rx_super_set_state(super, RX_STATE_IN_USE); /* again too: a sync that failed has left the page clean, to be synced by none */
    if (!db->memory && (rc = rx_map_sync(map, RX_SUPER_SIZE)) != RX_OK)
        return rc;
    if ((rc = rx_folder_sync(db)) != RX_OK) /* who made NAME or NAME-log may have died before that */
        return rc;
    rx_store(&db->hdr->session, rx_load(&super->session));
    rx_store(&db->hdr->marked, 1); /* commit: stores are allowed from here on */
    return RX_OK;
}

/*
 * Crash     before the sync: the state in the page cache says "in use", as it will be; the
 *           marker died, the next to write marks again (one session more, no harm).
 */
int rx_mark_in_use(struct rx_db *db, int64_t deadline_ns)
{
    if (rx_load(&db->hdr->marked))
        return RX_OK;
    if (db->readonly)
        return rx_fail(RX_E_READONLY, 0, "%s may not be written by this process", db->path);
    int rc = rx_turn_take(RX_TURN_MARKING, deadline_ns); /* OFD locks do not keep our own threads apart */
    if (rc)
        return rc;
    if (db->marking) /* the turn is recursive: a signal handler in its midst would begin the log a second time */
        rc = rx_fail(RX_E_BUSY, 0, "this thread is inside the first change of %s", db->path);
    else
        rc = rx_opening_lock_until(db->lock_fd, db->path, deadline_ns);
    if (rc == RX_OK) {
        db->marking = true;
        rc = rx_mark_locked(db);
        db->marking = false;
        rx_opening_unlock(db->lock_fd);
    }
    rx_turn_end(RX_TURN_MARKING);
    return rc;
}

int rx_lockless_check(struct rx_db *db)
{
    struct rx_super super;
    if (rx_sys_pread(db->map->fd, &super, sizeof super, 0) != (ssize_t)sizeof super)
        return rx_os_error("read", db->path);
    if (super.state != RX_STATE_CLEAN || super.session != db->session_seen)
        return rx_fail(RX_E_REPLACED, 0, "%s was written elsewhere since it was opened without a -lock file", db->path);
    return RX_OK;
}

/* ---- the next generation ----------------------------------------------------------- */

static int rx_open_generation(struct rx_db *db, uint64_t generation, struct rx_map **out)
{
    struct rx_super super = {0};
    struct stat st;
    int fd = rx_held_open(db->dir_fd, db->name, (db->readonly ? O_RDONLY : O_RDWR) | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY, 0);
    if (fd < 0)
        return errno == ENOENT ? rx_fail(RX_E_REPLACED, 0, "%s is gone", db->path) : rx_os_error("open", db->path);
    int rc = RX_OK;
    if (rx_sys_fstat(fd, &st) != 0 || rx_sys_pread(fd, &super, sizeof super, 0) < 0)
        rc = rx_os_error("read", db->path);
    if (rc == RX_OK)
        rc = rx_super_check(&super, (uint64_t)st.st_size);
    if (rc == RX_OK && memcmp(super.uuid, db->uuid, 16) != 0)
        rc = rx_fail(RX_E_REPLACED, 0, "%s is another file now", db->path);
    if (rc == RX_OK && super.generation != generation)
        rc = RX_I_RESTART;
    if (rc == RX_OK && (rc = rx_byte_lock(fd, F_RDLCK, RX_LOCK_USERS)) != RX_OK)
        rc = rc == RX_E_BUSY ? RX_I_RESTART : rx_os_error("lock", db->path);
    if (rc == RX_OK)
        rc = rx_map_new(fd, super.capacity, db->readonly, db->map->fences, super.durability == RX_D_PMEM, out);
    if (rc) {
        rx_held_close(fd);
        return rc;
    }
    (*out)->generation = super.generation;
    (*out)->checksum = super.checksum != 0;
    return RX_OK;
}

/*
 * A map is given back when no thread of ours is inside a call that uses it.  A call that
 * begins sets busy, then reads the generation (guard.h, epoch.h); the barrier between our
 * seeing the new generation and our reading busy makes one of the two see the other.
 */
void rx_unmap_old(struct rx_db *db)
{
    bool asked = false;
    if (db->map->older == NULL || pthread_mutex_trylock(&db->probe_mutex) != 0)
        return; /* a reaper works on some map, whether its thread is busy on that or not: later */
    for (struct rx_map *map = db->map->older; map; map = map->older) {
        bool used = false;
        if (map->unmapped)
            continue;
        if (!asked && rx_barrier(db) != RX_OK)
            break;
        asked = true;
        for (struct rx_thread *t = db->threads; t && !used; t = t->next_in_db)
            used = t->map == map && __atomic_load_n(&t->busy, __ATOMIC_ACQUIRE);
        if (!used)
            rx_map_unmap(map);
    }
    pthread_mutex_unlock(&db->probe_mutex);
}

static int rx_remap_locked(struct rx_db *db)
{
    struct rx_map *map = NULL;
    uint64_t generation = rx_load(&db->hdr->generation);
    if (generation == RX_GENERATION_REPLACED)
        return rx_fail(RX_E_REPLACED, 0, "%s", db->path);
    if (generation == db->map->generation)
        return RX_OK;
    int rc = rx_open_generation(db, generation, &map);
    if (rc)
        return rc;
    rx_guard_move(db->lock_base, &map->poison); /* a fault in NAME-lock must fail what is done on this map */
    map->older = db->map;
    __atomic_store_n(&db->map, map, __ATOMIC_RELEASE);
    rx_unmap_old(db);
    return RX_OK;
}

int rx_remap(struct rx_db *db)
{
    for (int tries = 0; tries < 200; tries++) {
        pthread_mutex_lock(&db->mutex);
        int rc = rx_remap_locked(db);
        pthread_mutex_unlock(&db->mutex);
        if (rc != RX_I_RESTART)
            return rc;
        nanosleep(&(struct timespec){0, 1000000}, NULL); /* the next step is being taken already */
        if (tries > 20)
            (void)rx_gate_finish_step(db);
    }
    return rx_fail(RX_E_REPLACED, 0, "%s does not hold the generation that its users agreed on", db->path);
}

/* ---- leaving ---------------------------------------------------------------------------- */

/*
 * R4: data synced, and NAME, which a copier may have renamed and died; then the mark, then synced again.
 * We are alone with the file.
 */
static int rx_write_clean(struct rx_db *db)
{
    struct rx_map *map = db->map;
    struct rx_super *super = rx_super_of(map);
    int rc = rx_log_end(db, super); /* it reads leaves: before any is given up */
    if (rc)
        return rc;
    uint64_t count = rx_db_count(db), brk = (rx_load(&db->hdr->brk) & ((1ull << 36) - 1)) * RX_EXTENT;
    rc = rx_arenas_to_super(db, map, super);
    (void)rx_map_refresh(map); /* all that was mapped is synced as well by the file's own sync */
    if (rc == RX_OK && !db->memory && (rc = rx_map_sync(map, map->size)) != RX_OK && db->logged)
        rx_super_doubt(super); /* the log is whole: rx_log_end() */
    if (rc == RX_OK)
        rc = rx_folder_sync(db);
    if (rc || rx_poisoned(map))
        return rc ? rc : rx_fail(RX_E_IO, 0, "while closing %s", db->path);
    rx_store(&super->brk, brk);
    rx_store(&super->count, count);
    rx_super_set_state(super, RX_STATE_CLEAN);
    rx_store32(&db->hdr->ready, 0); /* what the arenas held is in the superblock now */
    return db->memory ? RX_OK : rx_map_sync(map, RX_SUPER_SIZE);
}

/* RX_OK; RX_E_BUSY: others are here; an error: not told, so that nobody can say that the file was closed cleanly. */
static int rx_be_last(struct rx_db *db)
{
    int rc = rx_byte_lock(db->lock_fd, F_WRLCK, RX_LOCK_USERS);
    if (rc == RX_OK)
        rc = rx_byte_lock(db->map->fd, F_WRLCK, RX_LOCK_USERS);
    return rc == RX_E_OS ? rx_os_error("ask who uses", db->path) : rc;
}

/*
 * Alone.  A copier may have died between its rename and the step: then the file to be marked
 * is the one that NAME names now.
 */
static int rx_leave_last(struct rx_db *db)
{
    if (rx_poisoned(db->map)) /* nothing that we see there is to be believed: the startup scan does it all */
        return rx_fail(RX_E_IO, 0, "while closing %s", db->path);
    for (uint32_t i = 0; i < RX_PROCESSES; i++)
        if (rx_load(&db->processes[i].token))
            rx_reap_process(db, db->map, i);
    int rc = db->memory ? RX_OK : rx_gate_finish_step(db);
    if (rc < 0)
        return rc; /* the startup scan will do it all; but clean it is not */
    if (rx_load(&db->hdr->generation) != db->map->generation &&
        (rx_remap(db) != RX_OK || rx_byte_lock(db->map->fd, F_WRLCK, RX_LOCK_USERS) != RX_OK))
        return RX_OK;
    if ((rc = rx_name_is_ours(db)) != RX_OK)
        return rc == RX_E_REPLACED ? RX_OK : rc;
    if (db->logger)
        rx_checkpoint_forget(db, db->uuid);
    if (!db->memory && rx_load(&db->hdr->takeovers)) /* of a copier who lost the gate first, nobody knew */
        rx_remove_leftovers(db, "");
    return rx_write_clean(db);
}

int rx_detach(struct rx_db *db)
{
    int logged = rx_log_leave(db), rc = RX_OK;
    rx_threads_drop_all(db);
    if (db->lock_fd >= 0) {
        rc = rx_opening_lock(db->lock_fd, db->path); /* failed: we leave as a process that dies does */
        if (rc == RX_OK) {
            uint64_t generation = rx_load(&db->hdr->generation);
            bool current = generation != RX_GENERATION_REPLACED && rx_remap(db) == RX_OK;
            if (!rx_slots_left(db)) /* else we are to be found dead */
                rx_store(&db->processes[db->process].token, 0);
            (void)rx_byte_unlock(db->lock_fd, RX_LOCK_PROCESS + db->process);
            if (current && !db->readonly && rx_load(&db->hdr->marked) && (rc = rx_be_last(db)) == RX_OK)
                rc = rx_leave_last(db);
            rc = rc == RX_E_BUSY ? RX_OK : rc;
            /* Before OPENING is let go: who comes next must see that we are no user any more,
             * or it would join an index that nobody keeps, or not be known as the last one. */
            for (struct rx_map *map = db->map; map; map = map->older)
                if (!map->unmapped)
                    (void)rx_byte_unlock(map->fd, RX_LOCK_USERS);
            (void)rx_byte_unlock(db->lock_fd, RX_LOCK_USERS);
            rx_opening_unlock(db->lock_fd);
        }
    }
    rx_db_discard(db);
    return rc ? rc : logged;
}
