/*
 * A disk that fails on demand: replaces fdatasync and pwrite in the program that includes this (the library
 * and LMDB call them through the linker). One file of a program includes it.
 */
#ifndef VK_TESTS_STORE_DISK_FAULTS_H
#define VK_TESTS_STORE_DISK_FAULTS_H

#include <errno.h>
#include <stdatomic.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <unistd.h>

/* The errno that the next calls shall fail with; 0: they work. */
static _Atomic int fail_fdatasync, fail_meta_write;

int fdatasync(int fd)
{
	if (fail_fdatasync) {
		errno = fail_fdatasync;
		return -1;
	}
	return (int)syscall(SYS_fdatasync, fd);
}

/* LMDB writes its meta page with one pwrite of this size at the head of either of two pages. */
ssize_t pwrite64(int fd, const void *p, size_t n, off64_t at);
ssize_t pwrite64(int fd, const void *p, size_t n, off64_t at)
{
	if (fail_meta_write && n < 200 && at < 8192) {
		errno = fail_meta_write;
		return -1;
	}
	return syscall(SYS_pwrite64, fd, p, n, at);
}
ssize_t pwrite(int fd, const void *p, size_t n, off_t at) { return pwrite64(fd, p, n, at); }

#endif
