/*
 * disk.h -- the system calls by which files are made, changed, looked at, locked, read and synced.
 * They stand under these names alone (scripts/tidy.py), so that a build with ROWEX_FAULTS, where they
 * are functions of disk.c, can have each of them fail, and can record all of them: what had
 * been told to the disk, in what order, before a test takes the power away.  With
 * ROWEX_CRASHPOINTS each that changes something is a crash point too (crash.h).
 */
#ifndef ROWEX_DISK_H
#define ROWEX_DISK_H
#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/vfs.h>
#include <sys/xattr.h>
#include <unistd.h>
#if defined(ROWEX_FAULTS) || defined(ROWEX_CRASHPOINTS)
#include <stdint.h>
int rx_sys_openat(int dir_fd, const char *name, int flags, ...);
ssize_t rx_sys_pread(int fd, void *to, size_t size, off_t at);
ssize_t rx_sys_pwrite(int fd, const void *from, size_t size, off_t at);
int rx_sys_fallocate(int fd, int mode, off_t from, off_t size);
int rx_sys_ftruncate(int fd, off_t size);
int rx_sys_fsync(int fd);
int rx_sys_fdatasync(int fd);
int rx_sys_msync(void *base, size_t size, int flags);
void *rx_sys_mmap(void *at, size_t size, int prot, int flags, int fd, off_t from);
int rx_sys_mkdirat(int dir_fd, const char *name, mode_t mode);
int rx_sys_linkat(int from_dir, const char *from, int to_dir, const char *to, int flags);
int rx_sys_renameat(int from_dir, const char *from, int to_dir, const char *to);
int rx_sys_renameat2(int from_dir, const char *from, int to_dir, const char *to, unsigned flags);
int rx_sys_unlinkat(int dir_fd, const char *name, int flags);
int rx_sys_fstat(int fd, struct stat *st);
int rx_sys_fstatat(int dir_fd, const char *name, struct stat *st, int flags);
int rx_sys_fstatfs(int fd, struct statfs *fs);
int rx_sys_lock(int fd, int command, struct flock *lock);
DIR *rx_sys_fdopendir(int fd);
struct dirent *rx_sys_readdir(DIR *folder);
int rx_sys_fchown(int fd, uid_t uid, gid_t gid);
int rx_sys_fchmod(int fd, mode_t mode);
ssize_t rx_sys_fgetxattr(int fd, const char *name, void *to, size_t size);
int rx_sys_fsetxattr(int fd, const char *name, const void *from, size_t size, int flags);
int rx_sys_fremovexattr(int fd, const char *name);
int rx_sys_madvise(void *base, size_t size, int advice);
char *rx_sys_realpath(const char *path, char *whole);
ssize_t rx_sys_readlink(const char *path, char *target, size_t size);
int rx_sys_close(int fd);
int rx_sys_closedir(DIR *folder);
/*
 * "CALL:N:WHAT" fails the N-th CALL from now on, "CALL:N+:WHAT" all from the N-th on; CALL
 * "any" is each of them; "malloc" and "thread" are requests that are none of them (allocate.h);
 * WHAT is an errno, or "short": half of a pwrite.  "" none.  Until it is called, ROWEX_FAULT
 * in the environment says it.
 */
void rx_fault_arm(const char *plan);
uint64_t rx_fault_count(void); /* such calls since then */
/* ROWEX_TRACE names the file to which all of them are appended as records (disk.c). */
#else
#define rx_sys_openat openat
#define rx_sys_pread pread
#define rx_sys_pwrite pwrite
#define rx_sys_fallocate fallocate
#define rx_sys_ftruncate ftruncate
#define rx_sys_fsync fsync
#define rx_sys_fdatasync fdatasync
#define rx_sys_msync msync
#define rx_sys_mmap mmap
#define rx_sys_mkdirat mkdirat
#define rx_sys_linkat linkat
#define rx_sys_renameat renameat
#define rx_sys_renameat2(from_dir, from, to_dir, to, flags) ((int)syscall(SYS_renameat2, from_dir, from, to_dir, to, flags))
#define rx_sys_unlinkat unlinkat
#define rx_sys_fstat fstat
#define rx_sys_fstatat fstatat
#define rx_sys_fstatfs fstatfs
#define rx_sys_lock(fd, command, lock) fcntl(fd, command, lock)
#define rx_sys_fdopendir fdopendir
#define rx_sys_readdir readdir
#define rx_sys_fchown fchown
#define rx_sys_fchmod fchmod
#define rx_sys_fgetxattr fgetxattr
#define rx_sys_fsetxattr fsetxattr
#define rx_sys_fremovexattr fremovexattr
#define rx_sys_madvise madvise
#define rx_sys_realpath realpath
#define rx_sys_readlink readlink
#define rx_sys_close close
#define rx_sys_closedir closedir
#endif

/* What failed and must be told, in three places.  A build that is broken on purpose takes it for well done: .ci/machines. */
#ifdef ROWEX_CANARY_FORGIVE
#define rx_forgiven(failed) ((void)(failed), 0)
#else
#define rx_forgiven(failed) (failed)
#endif
#endif
