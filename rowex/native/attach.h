/*
 * attach.h -- the steps of opening that open.c, registry.c and close.c share.
 */
#ifndef ROWEX_ATTACH_H
#define ROWEX_ATTACH_H
#include "fileio.h"
/* Joins or sets up the index whose NAME-lock is db->lock_fd and data file data_fd, which it
 * takes over.  Caller holds OPENING.  RX_I_RESTART: NAME moved meanwhile; open it anew. */
int rx_attach(struct rx_db *db, int data_fd, const struct rx_options *o);
/* Does this choice of options fit an open index?  RX_E_CONFLICT. */
int rx_options_agree(const struct rx_db *db, const struct rx_options *o);
/* This boot of this machine; ROWEX_BOOT_ID overrides. */
int rx_boot_id(uint8_t out[16]); /* RX_E_OS: it is not to be had */
/* Could rx_create() make a file of these options here?  Asked before there is a -lock file. */
int rx_may_create(struct rx_db *db, const struct rx_options *o);
/* A new file at NAME: built under another name, then linked (mode c) or renamed (n) there. */
int rx_create(struct rx_db *db, const struct rx_options *o);
/* What a creator who died has left behind.  Caller holds OPENING. */
void rx_remove_unfinished(struct rx_db *db);
/* Copies of NAME (of ""), or of NAME-recovery, that copiers who died have left beside it. */
void rx_remove_leftovers(struct rx_db *db, const char *of);
/* An empty index into an open, empty file. */
int rx_format(struct rx_db *db, int fd, const struct rx_options *o);
/* Refuses filesystems on which a shared map does not do what we need. */
int rx_filesystem_allowed(struct rx_db *db, int fd);
/* Gives everything of db back but its place in the registry. */
void rx_db_discard(struct rx_db *db);
/* What the last handle of the process does; frees db. */
int rx_detach(struct rx_db *db);
#endif
