/* crash.h -- test build only: die, or stand still, at the n-th store to shared memory or call on a file. */
#ifndef ROWEX_CRASH_H
#define ROWEX_CRASH_H
#include <stdint.h>
/* <cffi> */
void rx_crash_arm(uint64_t n);     /* count from now on; die (SIGKILL) before the n-th, 0: only count */
void rx_crash_stop(uint64_t n, uint64_t times); /* the same, but stand still (SIGSTOP) there, and at those after it */
uint64_t rx_crash_count(void);     /* points since rx_crash_arm() */
/* From the next arming on, besides: stand still once, at the n-th of all points; 0: never. */
void rx_crash_halt(uint64_t n);
/*
 * From the next arming on only points of this place count, 0: all.  A place is where the core
 * calls, in bytes from rx_crash_count().
 */
void rx_crash_only(int64_t place);
/* The count is kept in to[0], and the places of the first `room` points behind it, 4 bytes each. */
void rx_crash_trail(uint64_t *to, uint64_t room);
/* </cffi> */
#endif
