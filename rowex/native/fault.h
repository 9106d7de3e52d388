/*
 * fault.h -- the system calls on files that a test build can make fail:
 * ROWEX_FAULT="call:n:errno" fails the n-th, "call:n+:errno" all from the n-th on.
 */
#ifndef ROWEX_FAULT_H
#define ROWEX_FAULT_H
#include <errno.h>
#ifdef ROWEX_CRASHPOINTS
int rx_fault_check(const char *call); /* 0, or the errno to fail with */
#define RX_FAULT(call) (errno = rx_fault_check(call))
#else
#define RX_FAULT(call) 0
#endif
#endif
