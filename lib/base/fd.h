/* SPDX-License-Identifier: MIT */
/*
 * fd - descriptors of our own are never 0, 1 or 2.
 *
 * A program that has closed its standard output may print all the same, and
 * the lowest number free is what open() gives: its words would end in a blob.
 */
#ifndef BASE_FD_H
#define BASE_FD_H

#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

#include "base/compiler.h"

/* fd_openat - openat(2), but never one of the three. */
static inline int fd_openat(int at_fd, const char *path, int flags, mode_t mode)
{
	int fd = openat(at_fd, path, flags, mode), own, error;

	if (likely(fd < 0 || fd > STDERR_FILENO))
		return fd;
	own = fcntl(fd, F_DUPFD_CLOEXEC, STDERR_FILENO + 1);
	error = errno;
	close(fd);
	errno = error;
	return own;
}

#endif
