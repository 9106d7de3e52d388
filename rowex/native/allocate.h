/*
 * allocate.h -- memory of the process: the core asks for it under these names alone
 * (scripts/tidy.py), so that a build with ROWEX_FAULTS can have each request refused (disk.h:
 * the call "malloc"; "any" is none of these).  What they give is freed by free().
 */
#ifndef ROWEX_ALLOCATE_H
#define ROWEX_ALLOCATE_H
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#if defined(ROWEX_FAULTS) || defined(ROWEX_CRASHPOINTS)
void *rx_sys_malloc(size_t size);
void *rx_sys_calloc(size_t count, size_t size);
void *rx_sys_realloc(void *at, size_t size);
char *rx_sys_strdup(const char *text);
char *rx_sys_strndup(const char *text, size_t most);
/* Zeros in pages of their own, which munmap() gives back; MAP_FAILED. */
void *rx_sys_pages(size_t size);
#else
#define rx_sys_malloc malloc
#define rx_sys_calloc calloc
#define rx_sys_realloc realloc
#define rx_sys_strdup strdup
#define rx_sys_strndup strndup
#define rx_sys_pages(size) \
    mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0)
#endif
#endif
