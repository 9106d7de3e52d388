/* crash.h -- test build only: die, or stand still, at the n-th store to shared memory. */
#ifndef ROWEX_CRASH_H
#define ROWEX_CRASH_H
#include <stdint.h>
/* <cffi> */
void rx_crash_arm(uint64_t n);     /* count from now on; die (SIGKILL) at the n-th store, 0: only count */
void rx_crash_stop(uint64_t n, uint64_t times); /* the same, but stand still (SIGSTOP) there, and at those after it */
uint64_t rx_crash_count(void);     /* stores since rx_crash_arm() */
/* </cffi> */
#endif
