/* manage.h -- what manage.c does with names and descriptors for duplicate.c. */
#ifndef ROWEX_MANAGE_H
#define ROWEX_MANAGE_H
#include "file.h"
/* Opens the folder of a path whose last part need not exist. */
int rx_target_folder(const char *path, int *dir_fd, char **name);
bool rx_target_exists(int dir_fd, const char *name);
/* Renames, but never over what is there (RX_E_EXISTS). */
int rx_rename_new(int from_dir, const char *from, int to_dir, const char *to);
/* Could a file be of such sizes?  RX_E_ARGUMENT names both that do not fit. */
int rx_sizes_fit(const struct rx_options *o);
int rx_remove_lock(const struct rx_exclusive *x);
void rx_close_fd(int fd);
void rx_random_bytes(void *to, size_t size);
#endif
