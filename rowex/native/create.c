/*
 * create.c -- new files, and on which filesystems they may lie.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
#include "attach.h"
#include "disk.h"

#define RX_INITIAL_SIZE (1ull << 20)
#define RX_CAPACITY_MIN (1ull << 30)
#define RX_CAPACITY_MEMORY (1ull << 36)

/* ---- identity of this boot --------------------------------------------------------- */

static uint64_t rx_fnv(uint64_t h, const char *p, size_t n)
{
    for (size_t i = 0; i < n; i++)
        h = (h ^ (uint8_t)p[i]) * 1099511628211ull; /* FNV-1a */
    return h;
}

#define RX_BOOT_FILE "/proc/sys/kernel/random/boot_id"
/* Bytes, or -1: a made-up identity would take what a power cut left for the truth. */
static ssize_t rx_boot_text(char *text, size_t size)
{
    const char *forced = getenv("ROWEX_BOOT_ID");
    if (forced && *forced)
        return snprintf(text, size, "%s", forced);
    int fd = rx_sys_openat(AT_FDCWD, RX_BOOT_FILE, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return -1;
    ssize_t n = rx_sys_pread(fd, text, size, 0);
    int os_errno = n == 0 ? ENODATA : errno;
    rx_sys_close(fd);
    errno = os_errno;
    return n == 0 ? -1 : n;
}

int rx_boot_id(uint8_t out[16])
{
    char text[256];
    ssize_t n = rx_boot_text(text, sizeof text);
    if (n < 0)
        return rx_fail(RX_E_OS, errno, "one boot of the machine cannot be told from another: " RX_BOOT_FILE
                       " cannot be read; the environment variable ROWEX_BOOT_ID may name the boot");
    size_t have = (size_t)n < sizeof text ? (size_t)n : sizeof text - 1;
    uint64_t id[2] = {rx_fnv(14695981039346656037ull, text, have), rx_fnv(88172645463325252ull, text, have)};
    memcpy(out, id, 16);
    return RX_OK;
}

/* ---- filesystems --------------------------------------------------------------------- */

static bool rx_env_set(const char *name)
{
    const char *value = getenv(name);
    return value && *value && *value != '0';
}

int rx_filesystem_allowed(struct rx_db *db, int fd)
{
    static const uint32_t network[] = {0x6969, 0xff534d42, 0xfe534d42, 0x517b, 0x65735546, 0x01021997, 0x00c36400,
                                       0x73757245, 0x5346414f, 0x6b414653, 0x0bd00bd0, 0x01161970, 0x7461636f};
    static const uint32_t shares_blocks[] = {0x9123683e, 0xca451a4e, 0x2fc12fc1};
    struct statfs fs;
    if (rx_sys_fstatfs(fd, &fs) != 0) /* where there is no such call nothing is refused */
        return errno == ENOSYS ? RX_OK : rx_os_error("ask for the filesystem of", db->path);
    for (size_t i = 0; i < sizeof network / sizeof *network; i++)
        if ((uint32_t)fs.f_type == network[i] && !rx_env_set("ROWEX_ALLOW_NETWORK_FS"))
            return rx_fail(RX_E_UNSUPPORTED, 0,
                           "%s lies on a network or FUSE filesystem, where processes do not share memory; "
                           "ROWEX_ALLOW_NETWORK_FS=1 overrides",
                           db->path);
    for (size_t i = 0; i < sizeof shares_blocks / sizeof *shares_blocks; i++)
        if ((uint32_t)fs.f_type == shares_blocks[i] && !rx_env_set("ROWEX_ALLOW_COW_FS"))
            return rx_fail(RX_E_UNSUPPORTED, 0,
                           "%s lies on a copy-on-write filesystem, where a store can fail although its blocks are "
                           "allocated; ROWEX_ALLOW_COW_FS=1 overrides",
                           db->path);
    return RX_OK;
}

/* ---- new files --------------------------------------------------------------------------- */

static uint64_t rx_round_extent(uint64_t n) { return (n + RX_EXTENT - 1) / RX_EXTENT * RX_EXTENT; }

#define RX_SMALLEST (2 * RX_EXTENT)

static int rx_sizes_clash(const char *one, uint64_t is, const char *other, uint64_t limit)
{
    return rx_fail(RX_E_ARGUMENT, 0, "%s is %llu, %s %llu bytes", one, (unsigned long long)is, other, (unsigned long long)limit);
}

static int rx_capacity_fits(uint64_t capacity)
{
    if (capacity < RX_OFF_MAX)
        return RX_OK;
    return rx_fail(RX_E_ARGUMENT, 0, "a capacity of %llu bytes is too large", (unsigned long long)capacity);
}

int rx_sizes_fit(const struct rx_options *o)
{
    uint64_t max = o->max_size == UINT64_MAX ? 0 : o->max_size;
    if (max && max < RX_SMALLEST)
        return rx_sizes_clash("max_size", max, "the smallest file has", RX_SMALLEST);
    if (o->capacity && o->capacity < RX_SMALLEST)
        return rx_sizes_clash("capacity", o->capacity, "the smallest file has", RX_SMALLEST);
    if (max && o->initial_size > max)
        return rx_sizes_clash("initial_size", o->initial_size, "max_size is", max);
    if (o->capacity && o->initial_size > o->capacity)
        return rx_sizes_clash("initial_size", o->initial_size, "capacity is", o->capacity);
    return rx_capacity_fits(o->capacity);
}

static int rx_plan(const struct rx_db *db, const struct rx_options *o, struct rx_super *s, uint64_t *size)
{
    int rc = rx_sizes_fit(o);
    if (rc)
        return rc;
    *size = rx_round_extent(o->initial_size ? o->initial_size : RX_INITIAL_SIZE);
    if (*size < RX_SMALLEST)
        *size = RX_SMALLEST;
    s->max_size = o->max_size == UINT64_MAX ? 0 : o->max_size;
    if (s->max_size && *size > s->max_size)
        *size = s->max_size / RX_EXTENT * RX_EXTENT;
    if (o->capacity && *size > rx_round_extent(o->capacity))
        *size = rx_round_extent(o->capacity);
    if (__BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__)
        return rx_fail(RX_E_FORMAT, 0, "this machine is big-endian, and Rowex's files are little-endian");
    uint64_t capacity = 16 * *size > RX_CAPACITY_MIN ? 16 * *size : RX_CAPACITY_MIN;
    if (db->memory)
        capacity = RX_CAPACITY_MEMORY;
    s->capacity = rx_round_extent(o->capacity ? o->capacity : capacity);
    if (s->capacity < *size)
        s->capacity = *size;
    if ((rc = rx_capacity_fits(s->capacity)) != RX_OK)
        return rc;
    /* Is there so much address space?  Asked before anything is created. */
    void *room = mmap(NULL, s->capacity, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (room == MAP_FAILED)
        return rx_fail(RX_E_MEMORY, errno, "cannot map %llu bytes of address space; a smaller capacity may do",
                       (unsigned long long)s->capacity);
    munmap(room, s->capacity);
    return RX_OK;
}

#define RX_NEW_PMEM "choose durability=\"commit\", which survives the loss of power on any disk"

int rx_may_create(struct rx_db *db, const struct rx_options *o)
{
    struct rx_super s;
    uint64_t size;
    int rc = rx_plan(db, o, &s, &size);
    if (rc == RX_OK)
        rc = rx_filesystem_allowed(db, db->dir_fd);
    if (rc || o->durability != RX_D_PMEM)
        return rc;
    int fd = rx_sys_openat(db->dir_fd, ".", O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
    if (fd < 0)
        return RX_OK; /* no files without a name here: the new file tells */
    rc = rx_pmem_check(fd, o->fences, db->path, RX_NEW_PMEM);
    rx_sys_close(fd);
    return rc;
}

int rx_format(struct rx_db *db, int fd, const struct rx_options *o)
{
    static const struct rx_super none;
    struct rx_super s = none;
    struct rx_node root = {.shape = RX_K_N256};
    uint64_t size;
    int rc = rx_plan(db, o, &s, &size);
    if (rc)
        return rc;
    memcpy(s.magic, RX_MAGIC, 8);
    s.version = RX_VERSION;
    s.endian = RX_ENDIAN_MARK;
    s.word_bytes = 8;
    s.header_size = RX_SUPER_SIZE;
    rx_random_bytes(s.uuid, sizeof s.uuid);
    memcpy(db->uuid, s.uuid, sizeof db->uuid);
    s.generation = 1;
    s.durability = o->durability ? (uint32_t)o->durability : db->memory ? RX_D_PROCESS : RX_D_BATCH;
    s.checksum = o->checksum != 0;
    s.key_codec = o->key_codec ? (uint32_t)o->key_codec : RX_C_BYTES;
    s.value_codec = o->value_codec ? (uint32_t)o->value_codec : RX_C_BYTES;
    rx_super_seal_fixed(&s);
    s.state = RX_STATE_CLEAN;
    s.brk = RX_HEAP;
    rx_super_seal_state(&s);
    if (s.durability == RX_D_PMEM &&
        (rc = rx_pmem_check(fd, o->fences, db->path, RX_NEW_PMEM)))
        return rc;
    if (rx_allocate_fd(fd, 0, size) != 0)
        return rx_os_error("give blocks to", db->path);
    if (rx_write_fd(fd, RX_ROOT_OFF, &root, sizeof root) != 0 || rx_write_fd(fd, 0, &s, sizeof s) != 0 ||
        (!db->memory && rx_sync_fd(fd) != 0))
        return rx_os_error("write", db->path);
    return RX_OK;
}

/*
 * The name under which a new file is built.  It is removed when met, so it must be one that
 * is ours beyond doubt: NAME-new may well be somebody's next version of NAME.
 */
static void rx_unfinished_name(const struct rx_db *db, char name[300]) { snprintf(name, 300, "%.280s-lock-new", db->name); }

void rx_remove_unfinished(struct rx_db *db)
{
    char name[300];
    rx_unfinished_name(db, name);
    (void)rx_sys_unlinkat(db->dir_fd, name, 0);
}

/* NAME, if there is none yet: another's file that came first is as good. */
static int rx_link_new(struct rx_db *db, const char *name)
{
    if (rx_sys_linkat(db->dir_fd, name, db->dir_fd, db->name, 0) == 0 || errno == EEXIST)
        return RX_OK;
    if (errno != EPERM && errno != EOPNOTSUPP && errno != EMLINK)
        return rx_os_error("create", db->path);
    int rc = rx_rename_new(db->dir_fd, name, db->dir_fd, db->name); /* no hard links here */
    return rc == RX_E_EXISTS ? RX_OK : rc;
}

/*
 * Requires  OPENING: so there is one creator at a time, and one name will do.
 * Commit    the link or rename: before it NAME is as it was, after it the index is whole.
 * Crash     NAME-lock-new may stay behind: the next first opener or creator removes it.
 */
int rx_create(struct rx_db *db, const struct rx_options *o)
{
    char name[300];
    rx_remove_unfinished(db);
    rx_unfinished_name(db, name);
    int fd = rx_sys_openat(db->dir_fd, name, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, o->umask_mode ? o->umask_mode : 0666);
    if (fd < 0)
        return rx_os_error("create", db->path);
    int rc = rx_filesystem_allowed(db, fd);
    if (rc == RX_OK)
        rc = rx_format(db, fd, o);
    rx_sys_close(fd);
    if (rc == RX_OK && o->mode == 'n')
        rc = rx_copy_rename(db, name);
    else if (rc == RX_OK)
        rc = rx_link_new(db, name);
    rx_remove_unfinished(db); /* the second name, or what failed */
    return rc ? rc : rx_folder_sync(db);
}

/*
 * Copies of the dead: named after this file (or the one that a recovery fills), its uuid and a
 * uid (rx_copy_name()).  Nothing else that begins so: it is a user's, or rowex.copy() is making
 * it.  Caller is alone with the index.
 */
void rx_remove_leftovers(struct rx_db *db, const char *of)
{
    char name[300], prefix[256];
    snprintf(name, sizeof name, "%.280s%s", db->name, of);
    size_t length = (size_t)snprintf(prefix, sizeof prefix, "%.200s-copy-%08x-", name,
                                     rx_crc32c(0, db->uuid, sizeof db->uuid));
    int fd = rx_sys_openat(db->dir_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *folder = fd < 0 ? NULL : rx_sys_fdopendir(fd);
    if (folder == NULL) {
        rx_close_fd(fd);
        return;
    }
    for (struct dirent *e; (e = rx_sys_readdir(folder)) != NULL;)
        if (strncmp(e->d_name, prefix, length) == 0 && e->d_name[length] &&
            e->d_name[length + strspn(e->d_name + length, "0123456789abcdef")] == 0)
            (void)rx_sys_unlinkat(db->dir_fd, e->d_name, 0);
    rx_sys_closedir(folder);
}
