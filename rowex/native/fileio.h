/*
 * fileio.h -- what file.c, map.c and fork.c offer to the other files of opening and closing.
 */
#ifndef ROWEX_FILEIO_H
#define ROWEX_FILEIO_H
#include "file.h"
#include "manage.h"
#ifdef ROWEX_TRACE
#include "trace.h"
#define RX_TRACE(call) call
#else
#define RX_TRACE(call) ((void)0)
#endif
/* ---- fork.c ---- */
/* openat() and close() of a descriptor that may hold locks; a forked child closes it. -1, errno. */
int rx_held_open(int dir_fd, const char *name, int flags, mode_t mode);
void rx_held_close(int fd);
/* Threads of this process take turns where locks on the file do not keep them apart. */
enum rx_turn { RX_TURN_OPENING, RX_TURN_MARKING, RX_TURN_GROWING, RX_TURN_REOPENING, RX_TURNS };
int rx_turn_take(enum rx_turn turn, int64_t deadline_ns); /* waits; RX_OK, RX_WOULD_WAIT, RX_E_INTERRUPTED */
bool rx_turn_try(enum rx_turn turn);
void rx_turn_take_surely(enum rx_turn turn);
void rx_turn_end(enum rx_turn turn);
/* `forget` runs in a forked child, after the descriptors were closed. */
void rx_fork_setup(void (*forget)(void));

/* ---- file.c ---- */
int rx_os_error(const char *what, const char *name); /* by errno */
#define rx_os_error(...) rx_failed(rx_os_error(__VA_ARGS__))
/*
 * RX_OK, RX_E_BUSY; RX_E_OS (errno): not told, which is neither that nobody holds it nor that somebody
 * does.  They never wait.
 */
int rx_byte_lock(int fd, short type, uint64_t byte);
int rx_byte_ask(int fd, uint64_t byte);    /* could it be locked exclusively?  Takes nothing */
int rx_byte_unlock(int fd, uint64_t byte); /* RX_OK; RX_E_OS: it is still held */
int rx_opening_lock(int fd, const char *path);       /* waits, 30 s; RX_E_TIMEOUT, RX_E_INTERRUPTED */
int rx_opening_lock_until(int fd, const char *path, int64_t deadline_ns); /* waits; RX_WOULD_WAIT, RX_E_INTERRUPTED */
void rx_opening_unlock(int fd);
int rx_write_fd(int fd, uint64_t at, const void *data, uint64_t size); /* all of it; 0, or -1 with errno */
int rx_allocate_fd(int fd, uint64_t from, uint64_t upto); /* 0, or -1 with errno */
int rx_map_sync(struct rx_map *map, uint64_t size);
int rx_sync_fd(int fd);
int rx_names_fd(int dir_fd, const char *name, int fd); /* RX_OK; RX_ABSENT: it names another file, or none (manage.c) */
int rx_copy_attributes(int from, int to); /* manage.c: mode, owner, ACL, as far as we may; 0; -1, errno */
int rx_name_is_ours(struct rx_db *db); /* RX_E_REPLACED, and every user is told */

/* ---- map.c ---- */
int rx_reopen_fd(int fd, int flags); /* another description of the same file; -1 with errno */
/* fences: 0, 1, or -1: where `pmem` and the filesystem says that flushing is enough. */
int rx_map_new(int fd, uint64_t capacity, bool readonly, int fences, bool pmem, struct rx_map **out);
/* RX_E_DURABILITY: stores to this file cannot be made durable by flushing; `instead` says what to do. */
int rx_pmem_check(int fd, int fences, const char *path, const char *instead);
void rx_map_unmap(struct rx_map *map);
#endif
