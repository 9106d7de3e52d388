/*
 * images.h -- for fuzz_bytes.c: valid files of an index, held in memory, and the places in them that a
 * mutation is about: cells of a heap, frames of a segment.
 */
#ifndef ROWEX_IMAGES_H
#define ROWEX_IMAGES_H
#include <dirent.h>
#include <fcntl.h>
#include <stdbool.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include "fuzz.h"
#include "../rowex/native/cell.h"
#include "../rowex/native/file.h"
#include "../rowex/native/node.h"
#include "../rowex/native/segment.h"

#define IMAGE_FILES 8u
#define IMAGE_PAGE 4096u
#define IMAGE_PLACES 4000u

enum file_class { DATA_FILE, LOCK_FILE, SEGMENT_FILE };
/* Pages that are all zero are left out of a lock file, which is large and sparse; of the others none. */
struct image_file {
    char name[48]; /* after that of the index */
    enum file_class class;
    uint64_t size;      /* of the file */
    uint8_t *bytes;     /* `pages` of them */
    uint32_t *page;     /* where each stands */
    size_t pages;
    uint32_t *place;    /* offsets of cells or frames */
    size_t places;
};
struct image { struct image_file file[IMAGE_FILES]; size_t files; };

/* What a case does with its files (fuzz_bytes.c). */
enum target { CLEAN, DIED, RESCUE, RECOVERY, TARGETS };

static inline uint64_t image_word(const uint8_t *at)
{
    uint64_t word;
    memcpy(&word, at, 8);
    return word;
}

static inline void image_set(uint8_t *at, uint64_t word) { memcpy(at, &word, 8); }

/* Cells of the heap, the root first. */
static void image_cells(struct image_file *f)
{
    f->place[f->places++] = RX_ROOT_OFF;
    for (uint64_t at = RX_HEAP; at + RX_CELL_MIN <= f->size && f->places < IMAGE_PLACES;) {
        uint64_t size = rx_cell_size(image_word(f->bytes + at));
        if (size)
            f->place[f->places++] = (uint32_t)at;
        at = size ? at + size : (at / RX_EXTENT + 1) * RX_EXTENT;
    }
}

static void image_frames(struct image_file *f)
{
    for (uint64_t at = RX_SEGMENT_HEAD; at + 16 <= f->size && f->places < IMAGE_PLACES;) {
        uint64_t shape = image_word(f->bytes + at + 8);
        if (shape == 0)
            break;
        f->place[f->places++] = (uint32_t)at;
        if (shape == RX_FRAME_WITNESS)
            break;
        at += 16 + (((shape >> 24) + 7) & ~7ull);
    }
}

static void image_read(struct image *im, const char *path, const char *name, enum file_class class)
{
    static const uint8_t none[IMAGE_PAGE];
    uint8_t page[IMAGE_PAGE];
    char full[600];
    struct stat st;
    struct image_file *f = &im->file[im->files];
    snprintf(full, sizeof full, "%s%s", path, name);
    int fd = open(full, O_RDONLY | O_CLOEXEC);
    if (fd < 0 || fstat(fd, &st) != 0 || im->files == IMAGE_FILES)
        fuzz_fail("%s cannot be read", full);
    *f = (struct image_file){.class = class, .size = (uint64_t)st.st_size};
    snprintf(f->name, sizeof f->name, "%s", name);
    size_t most = (size_t)(f->size / IMAGE_PAGE + 1);
    f->page = fuzz_alloc(most * sizeof *f->page);
    f->place = fuzz_alloc(IMAGE_PLACES * sizeof *f->place);
    for (uint32_t i = 0; i < most; i++) {
        memset(page, 0, sizeof page);
        if (pread(fd, page, sizeof page, (off_t)i * IMAGE_PAGE) <= 0 || (class == LOCK_FILE && !memcmp(page, none, sizeof page)))
            continue;
        f->bytes = realloc(f->bytes, (f->pages + 1) * IMAGE_PAGE);
        memcpy(f->bytes + f->pages * IMAGE_PAGE, page, IMAGE_PAGE);
        f->page[f->pages++] = i;
    }
    close(fd);
    if (class == DATA_FILE)
        image_cells(f);
    else if (class == SEGMENT_FILE)
        image_frames(f);
    im->files++;
}

static int image_by_name(const void *a, const void *b) { return strcmp(a, b); }

/* The folder's files of one index: data, then lock, checkpoint and segments where they are. */
static void image_take(struct image *im, const char *path)
{
    char full[600], names[IMAGE_FILES][32];
    size_t count = 0;
    image_read(im, path, "", DATA_FILE);
    snprintf(full, sizeof full, "%s-log", path);
    DIR *folder = opendir(full);
    if (folder == NULL)
        return;
    image_read(im, path, "-lock", LOCK_FILE);
    image_read(im, path, "-checkpoint", DATA_FILE);
    for (struct dirent *e; (e = readdir(folder)) != NULL;)
        if (strlen(e->d_name) == 16 && count < IMAGE_FILES - 3)
            snprintf(names[count++], sizeof names[0], "-log/%.16s", e->d_name);
    closedir(folder);
    qsort(names, count, sizeof names[0], image_by_name);
    for (size_t i = 0; i < count; i++)
        image_read(im, path, names[i], SEGMENT_FILE);
}

static void image_free(struct image *im)
{
    for (size_t i = 0; i < im->files; i++) {
        free(im->file[i].bytes);
        free(im->file[i].page);
        free(im->file[i].place);
    }
}

/* ---- files in a folder ---------------------------------------------------------------- */

static bool image_page_is_zero(const struct image_file *f, size_t i)
{
    static const uint8_t none[IMAGE_PAGE];
    return memcmp(f->bytes + i * IMAGE_PAGE, none, IMAGE_PAGE) == 0;
}

/* Into an empty file: what is zero is left out, what follows each other is one write. */
static void image_file_write(const struct image_file *f, int fd)
{
    for (size_t i = 0, n; i < f->pages; i += n) {
        uint64_t at = (uint64_t)f->page[i] * IMAGE_PAGE;
        for (n = 0; i + n < f->pages && f->page[i + n] == f->page[i] + n && !image_page_is_zero(f, i + n);)
            n++;
        size_t size = at >= f->size ? 0 : f->size - at < n * IMAGE_PAGE ? (size_t)(f->size - at) : n * IMAGE_PAGE;
        if (size && pwrite(fd, f->bytes + i * IMAGE_PAGE, size, (off_t)at) != (ssize_t)size)
            fuzz_fail("the files cannot be written");
        n += n == 0;
    }
    if (ftruncate(fd, (off_t)f->size) != 0)
        fuzz_fail("the files cannot be written");
}

static int image_create(const char *path, const char *name)
{
    char full[600];
    snprintf(full, sizeof full, "%s%s", path, name);
    int fd = open(full, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    if (fd < 0)
        fuzz_fail("%s cannot be made", full);
    return fd;
}

/* An image in use says in which file it is: in this one. */
static void image_claim(struct image *im, int fd)
{
    struct stat st;
    struct rx_super *super = (void *)im->file[0].bytes;
    if (fstat(fd, &st) != 0 || super->state != RX_STATE_IN_USE)
        return;
    super->dev = (uint64_t)st.st_dev;
    super->ino = (uint64_t)st.st_ino;
    rx_super_seal_state(super);
    for (size_t i = 0; i < im->files; i++)
        if (im->file[i].class == LOCK_FILE) {
            struct rx_lockhdr *hdr = (void *)im->file[i].bytes;
            hdr->dev = super->dev;
            hdr->ino = super->ino;
        }
}

/* The files of a case; what was at `path` goes. */
static void image_put(struct image *im, const char *folder, const char *path, enum target target, bool claim)
{
    char full[600];
    fuzz_remove_under(folder);
    int data = image_create(path, "");
    if (claim)
        image_claim(im, data);
    image_file_write(&im->file[0], data);
    close(data);
    snprintf(full, sizeof full, "%s-log", path);
    if (im->files > 1 && mkdir(full, 0777) != 0)
        fuzz_fail("%s cannot be made", full);
    for (size_t i = 1; i < im->files; i++) {
        if (im->file[i].class == LOCK_FILE && target != RESCUE)
            continue;
        int fd = image_create(path, im->file[i].name);
        image_file_write(&im->file[i], fd);
        close(fd);
    }
}

/* ---- making valid ones ------------------------------------------------------------------ */

/* All node kinds, tight and whole ones, long prefixes, keys that are prefixes of others, large values, free cells. */
static inline size_t image_key(unsigned number, uint8_t *to)
{
    switch (number % 5) {
    case 0: return (size_t)sprintf((char *)to, "mail/%u@example.org", number % 60);
    case 1: memset(to, 'p', number % 40 * 9); return number % 40 * 9;
    case 2: to[0] = (uint8_t)number; return 1;
    case 3: return (size_t)sprintf((char *)to, "mail/%u@example.org/%u", number % 60, number);
    default: to[0] = 'n'; to[1] = (uint8_t)number; to[2] = 0; return 2 + (number & 1);
    }
}

static void image_fill(rx_index *index, unsigned from, unsigned upto)
{
    static uint8_t key[512], value[3000];
    uint64_t dice = from + 1;
    for (unsigned i = from; i < upto; i++) {
        size_t size = i % 50 == 7 ? sizeof value : fuzz_below(&dice, i % 5 == 0 ? 300 : 20);
        fuzz_bytes(&dice, value, size);
        fuzz_expect(RX_OK, rx_put(index, NULL, key, image_key(i, key), value, size, 1000000000, NULL), "put");
    }
    for (unsigned i = from; i < upto; i += 7)
        rx_remove(index, NULL, key, image_key(i, key), 1000000000, NULL);
}

static void image_make_in_child(const char *path, enum target target)
{
    rx_index *index;
    struct rx_options options = {.path = path, .mode = 'c', .checksum = -1, .initial_size = 131072, .fences = -1,
                                 .umask_mode = 0666, .flush_interval_ns = 60000000000, .max_size = UINT64_MAX,
                                 .durability = target < RESCUE ? RX_D_PROCESS : RX_D_BATCH};
    fuzz_expect(RX_OK, rx_open(&options, &index), "open");
    image_fill(index, 0, 200);
    fuzz_expect(RX_OK, rx_compact(index, 5000000000), "compact"); /* nodes with no more slots than they need */
    image_fill(index, 200, 350);
    if (target >= RESCUE) {
        struct rx_log_info info;
        fuzz_expect(RX_OK, rx_checkpoint(index, 5000000000), "checkpoint");
        image_fill(index, 350, 420);
        fuzz_expect(RX_OK, rx_log_status(index, &info), "log_status");
        fuzz_expect(RX_OK, rx_wait_durable(index, NULL, info.position, 5000000000), "wait_durable");
        image_fill(index, 420, 450);
    }
    if (target == CLEAN)
        fuzz_expect(RX_OK, rx_close(index), "close");
    _exit(0);
}

static void image_make(struct image *im, const char *folder, const char *path, enum target target)
{
    int status;
    fuzz_remove_under(folder);
    pid_t pid = fork();
    if (pid == 0)
        image_make_in_child(path, target);
    if (pid < 0 || waitpid(pid, &status, 0) != pid || status != 0)
        fuzz_fail("valid files could not be made");
    image_take(im, path);
}

/* *to: all zero, or a copy of the same that was made before. */
static void image_copy(struct image *to, const struct image *from)
{
    for (size_t i = 0; i < from->files; i++) {
        uint8_t *bytes = to->file[i].bytes ? to->file[i].bytes : fuzz_alloc(from->file[i].pages * IMAGE_PAGE);
        to->file[i] = from->file[i];
        to->file[i].bytes = memcpy(bytes, from->file[i].bytes, from->file[i].pages * IMAGE_PAGE);
    }
    to->files = from->files;
}

#endif
