/*
 * building.c -- a new index from items that come in key order: the bulk builder writes
 * each node once, into a file that gets its name when all of it is there and synced.
 *
 * As a copy (duplicate.c), the file is clean, has a uuid of its own and no sidecars; nothing
 * of it is in a log, so its first write begins with a checkpoint.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>
#include "disk.h"
#include "attach.h"
#include "batch.h"
#include "checkpoint.h"
#include "column.h"
#include "manage.h"
#include "../gc/build.h"

#define RX_ROOM_MAX (1ull << 40) /* address space to build in */
#define RX_ROOM_MIN (1ull << 32)

struct rx_building {
    struct rx_db target; /* what the functions for copies want to know: folder, name, path */
    struct rx_options options;
    struct rx_map *to;
    struct rx_builder builder;
    struct rx_items keys;
    char made[256];
};

/* An empty index under a name that is ours, mapped with room to grow. */
static int rx_building_create(struct rx_building *b)
{
    uint64_t random, room = RX_ROOM_MAX;
    rx_random_bytes(&random, sizeof random);
    snprintf(b->made, sizeof b->made, "%.200s-copy-%016llx", b->target.name, (unsigned long long)random);
    int fd = rx_sys_openat(b->target.dir_fd, b->made, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, b->options.umask_mode);
    if (fd < 0)
        return rx_os_error("create", b->target.path);
    int rc = rx_filesystem_allowed(&b->target, fd);
    if (rc == RX_OK)
        rc = rx_format(&b->target, fd, &b->options);
    if (rc == RX_OK)
        do
            rc = rx_map_new(fd, room, false, 0, false, &b->to);
        while (rc && (room /= 4) >= RX_ROOM_MIN); /* address space may be limited */
    if (rc)
        rx_sys_close(fd);
    return rc;
}

int rx_building_open(const struct rx_options *options, rx_building **out)
{
    struct rx_building *b = rx_sys_calloc(1, sizeof *b);
    if (b == NULL)
        return rx_fail(RX_E_MEMORY, 0, "for building an index");
    b->options = *options;
    b->options.path = NULL; /* it is the caller's */
    b->options.initial_size = 0; /* the builder gives it blocks as it grows */
    b->target.dir_fd = b->target.lock_fd = b->target.probe_fd = -1;
    rx_items_init(&b->keys);
    int rc = (b->target.path = rx_sys_strdup(options->path)) ? RX_OK : rx_fail(RX_E_MEMORY, 0, "for building an index");
    if (rc == RX_OK)
        rc = rx_target_folder(options->path, &b->target.dir_fd, &b->target.name);
    if (rc == RX_OK && rx_target_exists(b->target.dir_fd, b->target.name))
        rc = rx_fail(RX_E_EXISTS, 0, "%s was left as it is", b->target.path);
    if (rc == RX_OK)
        rc = rx_building_create(b);
    if (rc == RX_OK) {
        b->to->checksum = options->checksum != 0;
        rc = rx_builder_init(&b->builder, b->to, b->to->checksum, NULL, NULL);
    }
    if (rc) {
        rx_building_close(b);
        return rc;
    }
    *out = b;
    return RX_OK;
}

/* Is the key greater than the last one? */
static bool rx_building_ascends(const struct rx_builder *b, const uint8_t *key, size_t len)
{
    return b->waiting == 0 || rx_compare(b->last, b->last_len, key, len) < 0;
}

static int rx_building_item(struct rx_building *b, unsigned k, const struct rx_column *values, size_t i)
{
    uint8_t room[16];
    const uint8_t *value, *key = b->keys.at[k];
    size_t value_len, key_len = b->keys.len[k];
    int rc = rx_item_view(values, i, room, &value, &value_len);
    if (rc == RX_OK)
        rc = rx_sizes_allowed(key_len, value_len);
    if (rc)
        return rc;
    if (!rx_building_ascends(&b->builder, key, key_len))
        return RX_MISMATCH;
    return rx_builder_add(&b->builder, key, key_len, value, value_len, NULL);
}

int rx_building_add(rx_building *b, const struct rx_column *keys, const struct rx_column *values, size_t from,
                    size_t upto, size_t *done)
{
    int rc = RX_OK;
    *done = from;
    while (*done < upto && rc == RX_OK) {
        unsigned n = upto - *done < RX_GROUP ? (unsigned)(upto - *done) : RX_GROUP;
        rc = rx_items_take(&b->keys, keys, *done, n);
        for (unsigned k = 0; k < n && rc == RX_OK; k++) {
            rc = rx_building_item(b, k, values, *done);
            *done += rc == RX_OK;
        }
    }
    if (rc == RX_OK && rx_poisoned(b->to))
        rc = rx_fail(RX_E_IO, 0, "while building %s", b->target.path);
    return rc;
}

/*
 * Commit    the rename; before it NAME does not exist, after it the index is whole.
 * Crash     a file beside it with -copy- in its name stays behind, which nobody uses.
 */
int rx_building_finish(rx_building *b)
{
    struct rx_super super = *rx_super_of(b->to);
    uint64_t brk = 0;
    int rc = rx_builder_finish(&b->builder, &brk);
    if (rc == RX_OK)
        rc = rx_duplicate_super(&super, &b->options, b->to, brk, b->builder.count);
    if (rc)
        return rc;
    rx_fill(b->to->base, &super, sizeof super);
    rc = rx_copy_sync(b->to, brk);
    if (rc == RX_OK && rx_poisoned(b->to))
        rc = rx_fail(RX_E_IO, 0, "while building %s", b->target.path);
    if (rc == RX_OK)
        rc = rx_rename_new(b->target.dir_fd, b->made, b->target.dir_fd, b->target.name); /* commit */
    if (rc)
        return rc;
    b->made[0] = 0;
    return rx_folder_sync(&b->target);
}

void rx_building_close(rx_building *b)
{
    if (b == NULL)
        return;
    rx_builder_free(&b->builder);
    rx_items_free(&b->keys);
    if (b->to)
        rx_copy_drop(b->to);
    if (b->made[0])
        (void)rx_sys_unlinkat(b->target.dir_fd, b->made, 0);
    rx_close_fd(b->target.dir_fd);
    free(b->target.name);
    free(b->target.path);
    free(b);
}
