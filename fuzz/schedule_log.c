/*
 * schedule_log.c -- the log in the scenarios of schedules.c: each coroutine leads it as a process of its
 * own would, and its files are put back with the memory.
 */
#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include "schedules.h"
#include "../rowex/native/flush.h"
#include "../rowex/native/frames.h"
#include "../rowex/native/segment.h"

#define FILES_MAX 8
#define LOGGERS_MAX (THREADS_MAX + 1)

static char folder[128], path[200], log_folder[220];
static struct { char name[24]; uint8_t *copy; size_t size; } file[FILES_MAX];
static unsigned file_count;
static struct { struct rx_logger *at, copy; } logger[LOGGERS_MAX];
static unsigned logger_count;
static uint64_t first_bytes, first_number;

void sched_log_open(rx_index **out)
{
    const char *base = access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp";
    snprintf(folder, sizeof folder, "%s/rowex-schedules-%ld", base, (long)getpid());
    snprintf(path, sizeof path, "%s/index.rowex", folder);
    snprintf(log_folder, sizeof log_folder, "%s-log", path);
    if (mkdir(folder, 0700) != 0 && errno != EEXIST)
        fuzz_fail("no folder %s", folder);
    struct rx_options options = {.path = path, .mode = 'n', .checksum = -1, .fences = -1, .max_size = UINT64_MAX,
                                 .durability = RX_D_BATCH, .umask_mode = 0600, .flush_interval_ns = 60000000000ll};
    fuzz_expect(RX_OK, rx_open(&options, out), "open");
    file_count = logger_count = 0;
}

struct rx_logger *sched_log_attach(struct rx_db *db)
{
    struct rx_logger *before = db->logger;
    db->logger = NULL;
    fuzz_expect(RX_OK, rx_log_attach(db), "log_attach");
    fuzz_expect(RX_OK, rx_log_join(db), "log_join");
    struct rx_logger *made = db->logger;
    db->logger = before;
    logger[logger_count++].at = made;
    return made;
}

static uint8_t *read_file(const char *name, size_t *size)
{
    char full[300];
    struct stat st;
    snprintf(full, sizeof full, "%s/%s", log_folder, name);
    int fd = open(full, O_RDONLY);
    if (fd < 0 || fstat(fd, &st) != 0)
        fuzz_fail("cannot read %s", full);
    uint8_t *copy = fuzz_alloc((size_t)st.st_size);
    *size = (size_t)st.st_size;
    if (read(fd, copy, *size) != (ssize_t)*size)
        fuzz_fail("cannot read %s", full);
    close(fd);
    return copy;
}

void sched_log_keep(struct rx_db *db)
{
    struct rx_log_at at;
    struct rx_thread *t;
    logger[logger_count++].at = db->logger;
    fuzz_expect(RX_OK, rx_thread_find(db, &t), "thread_find");
    t->deadline_ns = rx_now_ns() + 1000000000;
    fuzz_expect(RX_OK, rx_log_flush(t, rx_log_tail(db)), "log_flush");
    first_number = rx_log_point(db, &at);
    first_bytes = at.bytes;
    for (unsigned i = 0; i < logger_count; i++) {
        rx_segment_shut(&logger[i].at->segment);
        logger[i].copy = *logger[i].at;
    }
    DIR *all = opendir(log_folder);
    for (struct dirent *e; all && (e = readdir(all)) != NULL;)
        if (e->d_name[0] != '.' && file_count < FILES_MAX) {
            snprintf(file[file_count].name, sizeof file[0].name, "%.23s", e->d_name);
            file[file_count].copy = read_file(e->d_name, &file[file_count].size);
            file_count++;
        }
    closedir(all);
}

/* Of a schedule there are other segments, and other frames in the old ones. */
static void put_back_file(const char *name)
{
    char full[300];
    snprintf(full, sizeof full, "%s/%s", log_folder, name);
    for (unsigned i = 0; i < file_count; i++)
        if (strcmp(file[i].name, name) == 0) {
            int fd = open(full, O_WRONLY);
            if (fd < 0 || pwrite(fd, file[i].copy, file[i].size, 0) != (ssize_t)file[i].size)
                fuzz_fail("cannot write %s", full);
            close(fd);
            return;
        }
    unlink(full);
}

void sched_log_put_back(struct rx_db *db)
{
    (void)db;
    for (unsigned i = 0; i < logger_count; i++) {
        rx_segment_shut(&logger[i].at->segment);
        *logger[i].at = logger[i].copy;
    }
    DIR *all = opendir(log_folder);
    for (struct dirent *e; all && (e = readdir(all)) != NULL;)
        if (e->d_name[0] != '.')
            put_back_file(e->d_name);
    closedir(all);
}

static void check_value(const char *key, const struct rx_logged *e)
{
    uint8_t value[128];
    size_t size = 0;
    int rc = rx_get(sched_index, NULL, key, strlen(key), value, sizeof value, &size);
    if (rc != RX_OK || size != e->value_len || memcmp(value, e->value, size) != 0)
        sched_fail("the log ends with another value of %s", key);
}

void sched_log_check(const char *first, const char *second)
{
    const char *keys[2] = {first, second};
    struct rx_logged last[2] = {{0}};
    uint8_t values[2][128];
    struct rx_reader r;
    struct rx_piece piece;
    struct rx_db *db = sched_index->db;
    uint64_t durable = rx_log_durable(db);
    if (rx_reader_open(db, &r) != RX_OK || rx_reader_seek(&r, first_bytes, first_number) != RX_OK)
        sched_fail("the log cannot be read");
    while (r.number < durable && rx_reader_next(&r, &piece) == RX_OK)
        for (struct rx_logged e; rx_piece_entry(&piece, &e) == RX_OK;)
            for (int i = 0; i < 2; i++)
                if (keys[i] && e.kind == RX_L_PUT && e.key_len == strlen(keys[i]) && memcmp(e.key, keys[i], e.key_len) == 0) {
                    memcpy(values[i], e.value, e.value_len < 128 ? e.value_len : 128);
                    last[i] = e;
                    last[i].value = values[i];
                }
    if (r.number < durable)
        sched_fail("the log ends at %llu, and %llu is durable", (unsigned long long)r.number, (unsigned long long)durable);
    rx_reader_close(&r);
    for (int i = 0; i < 2; i++)
        if (keys[i]) {
            if (last[i].kind != RX_L_PUT)
                sched_fail("%s is durable and not in the log", keys[i]);
            check_value(keys[i], &last[i]);
        }
}

void sched_log_remove(void)
{
    rx_destroy(path);
    rmdir(folder);
    while (file_count)
        free(file[--file_count].copy);
}
