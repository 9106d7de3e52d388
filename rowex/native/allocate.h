/*
 * allocate.h -- memory and threads of the process: the core asks for them under these names
 * alone (scripts/tidy.py), so that a build with ROWEX_FAULTS can have each request refused
 * (disk.h: the calls "malloc" and "thread"; "any" is none of these).  Memory is freed by free().
 */
#ifndef ROWEX_ALLOCATE_H
#define ROWEX_ALLOCATE_H
#include <pthread.h>
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
int rx_sys_thread(pthread_t *thread, void *(*run)(void *), void *arg); /* 0, or an errno */
#else
#define rx_sys_malloc malloc
#define rx_sys_calloc calloc
#define rx_sys_realloc realloc
#define rx_sys_strdup strdup
#define rx_sys_strndup strndup
#define rx_sys_pages(size) \
    mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0)
#define rx_sys_thread(thread, run, arg) pthread_create(thread, NULL, run, arg)
#endif
#endif
