/*
 * file.h -- opening, locking, mapping, marking and closing.  The system calls on files
 * stand in file.c and its neighbours alone, under the names of disk.h.
 */
#ifndef ROWEX_FILE_H
#define ROWEX_FILE_H

#include "core.h"
#include "index.h"

/* ---- opening and closing (open.c) ------------------------------------------ */
/*
 * The whole opening protocol of design section 4: registry by (dev, inode) and
 * folder, OPENING byte, users locks, first opener (reset of NAME-lock, clean
 * mark or startup scan) or joiner, process entry.  On success db->handles was
 * raised by one.  Creates the file for modes c and n.
 */
int rx_db_open(const struct rx_options *options, struct rx_db **out);
/* In a forked child: the index of an inherited db, which itself is never used again. */
int rx_db_reopen(struct rx_db *inherited, const struct rx_options *options, struct rx_db **out);
/* Lowers db->handles; the last one leaves: threads' slots returned, process entry
 * freed, clean mark if we are the last user of all (R4), descriptors closed. */
int rx_db_close(struct rx_db *db);
/* Makes the in-use mark durable (once a session) before the session's first
 * store; cheap when hdr->marked is set.  Called outside epochs, before a write.
 * RX_WOULD_WAIT: others open, close or mark at deadline_ns. */
int rx_mark_in_use(struct rx_db *db, int64_t deadline_ns);
/* The word at `off` as it is in the file, though our page there may be lost (sigbus.c); false: it cannot be read. */
bool rx_file_word(const struct rx_map *map, uint64_t off, uint64_t *word);
/* The lockless reader's recheck: the file is still clean and of the same session. */
int rx_lockless_check(struct rx_db *db);
/*
 * hdr->generation differs from db->map's: open and map what NAME names now, take
 * the shared users lock on it, verify uuid and generation, switch db->map (under
 * db->mutex).  Old maps are unmapped once no thread of ours is busy on them.
 * RX_E_REPLACED when NAME is gone or foreign.
 */
int rx_remap(struct rx_db *db);
/* Gives back maps that nobody of ours uses any more. Caller holds db->mutex. */
void rx_unmap_old(struct rx_db *db);

/* ---- deaths (file.c): R7 ------------------------------------------------------ */
/* 1: process entry `index` is dead and we hold its proof until rx_probe_end();
 * 0: alive (or being reaped by another).  Caller holds db->probe_mutex. */
int rx_probe_begin(struct rx_db *db, uint32_t index);
void rx_probe_end(struct rx_db *db, uint32_t index);

/* ---- space (file.c) -------------------------------------------------------------- */
/* Asks fstat(); raises map->size.  RX_E_OS: it is as it was. */
int rx_map_refresh(struct rx_map *map);
/*
 * Gives the data file blocks for [0, upto): fallocate(2) mode 0, and populates
 * the new part; raises hdr->allocated (atomic max) and map->size.
 * Several processes may do it at once; nothing is ever cut.  RX_E_FULL on ENOSPC,
 * EDQUOT, EFBIG; where fallocate is not supported, zeros are written by pwrite
 * past the end under the OPENING lock.
 */
int rx_file_allocate(struct rx_db *db, struct rx_map *map, uint64_t upto);
/* Gives NAME-lock blocks for bytes [from, from + size). RX_E_FULL. */
int rx_lockfile_allocate(struct rx_db *db, uint64_t from, uint64_t size);

/* ---- copies for copy-and-rename (file.c) ------------------------------------------- */
/* Creates `name` in the folder (a leftover of that name goes) with the data file's mode,
 * owner, group and ACL, maps `capacity` of it read-write. */
int rx_copy_create(struct rx_db *db, const struct rx_map *like, uint64_t capacity, const char *name, struct rx_map **out);
int rx_copy_allocate(struct rx_map *copy, uint64_t upto); /* grow it */
int rx_copy_sync(struct rx_map *copy, uint64_t size);     /* cut to size (extent multiple), msync, fsync */
int rx_copy_rename(struct rx_db *db, const char *name);   /* the commit; ENOENT: RX_I_RESTART (voided by others) */
int rx_copy_unlink(struct rx_db *db, const char *name);   /* RX_OK, or RX_ABSENT when it was not there */
int rx_folder_sync(struct rx_db *db);
void rx_copy_drop(struct rx_map *copy); /* unmap, close, free */

/* ---- files by name (manage.c) -------------------------------------------------------- */
/* What NAME names now.  RX_ABSENT: nothing, or a file that is not ours (its uuid). */
struct rx_peek { uint64_t generation, dev, ino, brk, count; };
int rx_name_peek(struct rx_db *db, struct rx_peek *out);
int rx_fd_identity(int fd, uint64_t *dev, uint64_t *ino);
/* Nobody else has the index at `path` open, and nobody can open it until the end. RX_E_BUSY. */
struct rx_exclusive { int dir_fd; char *name; int lock_fd; int data_fd; };
int rx_exclusive_begin(const char *path, struct rx_exclusive *x);
void rx_exclusive_end(struct rx_exclusive *x);

/* ---- superblock (super.c) ------------------------------------------------------------ */
void rx_super_seal_fixed(struct rx_super *super); /* computes fixed_crc */
void rx_super_seal_state(struct rx_super *super); /* computes state_crc, of a file not yet in place */
void rx_super_set_state(struct rx_super *super, uint32_t state); /* state and state_crc by one store */
/*
 * A sync of the data failed, when checkpoint and log held all of it: what is in the page cache is not on
 * the disk, and the kernel, which has told of it once, takes it for written.  So nobody goes on with it.
 */
void rx_super_doubt(struct rx_super *super);
/* Not closed cleanly: does the page cache hold the truth, for one of this boot? */
bool rx_super_is_live(const struct rx_super *super, const uint8_t boot_id[16]);
/* Checks every field against `file_size`; RX_E_FORMAT / RX_E_CORRUPT with a text. */
int rx_super_check(const struct rx_super *super, uint64_t file_size);
int rx_super_check_fixed(const struct rx_super *super, uint64_t file_size); /* what nobody who has it open changes */

/* ---- SIGBUS (sigbus.c) ------------------------------------------------------------------ */
/* A fault inside a registered range sets *poison and maps a zero page there. */
int rx_guard_add(uint8_t *base, uint64_t size, uint32_t *poison);
void rx_guard_remove(uint8_t *base);
/* Faults in this range are told to *poison from now on; one that was before, at once. */
void rx_guard_move(uint8_t *base, uint32_t *poison);

#endif
