/* crash.h -- test build only: die, or stand still, at the n-th store to shared memory or call on a file. */
#ifndef ROWEX_CRASH_H
#define ROWEX_CRASH_H
#include <stdint.h>
/* <cffi> */
void rx_crash_arm(uint64_t n);     /* count from now on; die (SIGKILL) before the n-th, 0: only count */
void rx_crash_stop(uint64_t n, uint64_t times); /* the same, but stand still (SIGSTOP) there, and at those after it */
uint64_t rx_crash_count(void);     /* points since rx_crash_arm() */
void rx_crash_tell(uint64_t *where); /* the return address of the point that it dies at goes there */
/* </cffi> */
#endif
