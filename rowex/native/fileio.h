/*
 * fileio.h -- what file.c offers to open.c and remap.c alone.
 */
#ifndef ROWEX_FILEIO_H
#define ROWEX_FILEIO_H
#include "file.h"
#include "manage.h"
int rx_os_error(const char *what, const char *name); /* by errno */
int rx_byte_lock(int fd, short type, uint64_t byte); /* RX_OK, RX_E_BUSY, RX_E_OS; never waits */
int rx_opening_lock(int fd, const char *path);       /* waits; RX_E_TIMEOUT, RX_E_INTERRUPTED */
void rx_opening_unlock(int fd);
int rx_allocate_fd(int fd, uint64_t from, uint64_t upto); /* 0, or -1 with errno */
int rx_map_new(int fd, uint64_t capacity, bool readonly, int fences, struct rx_map **out);
void rx_map_unmap(struct rx_map *map);
int rx_map_sync(struct rx_map *map, uint64_t size);
int rx_sync_fd(int fd);
int rx_reopen_fd(int fd, int flags); /* another description of the same file; -1 with errno */
void rx_copy_attributes(int from, int to);
int rx_name_is_ours(struct rx_db *db); /* RX_E_REPLACED, and every user is told */
#endif
