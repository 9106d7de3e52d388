/*
 * canary_race.c -- reads through the mapping what another thread stores there without an order,
 * as the core never may.  scripts/sanitize fails when ThreadSanitizer keeps silent.
 */
#include <pthread.h>
#include <stdint.h>
#include <sys/mman.h>

static void *store(void *shared)
{
    *(uint64_t *)shared = 1;
    return NULL;
}

int main(void)
{
    pthread_t thread;
    uint64_t *shared = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (shared == MAP_FAILED || pthread_create(&thread, NULL, store, shared) != 0)
        return 0;
    uint64_t seen = *shared;
    pthread_join(thread, NULL);
    return seen > 1;
}
