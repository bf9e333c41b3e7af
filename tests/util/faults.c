/* SPDX-License-Identifier: MIT */
/*
 * faults - a module for LD_PRELOAD that makes system calls on blob files fail.
 *
 * STREAMCACHE_FAULT="CALL ERROR AFTER", read at each call:
 *	CALL	open, pwrite, fallocate, close, short (half of what was asked) for blobs,
 *		lock (OFD locks are refused), blind (they exclude nobody)
 *	ERROR	a number of errno.h
 *	AFTER	so many calls succeed first, and (negative) only that one fails
 * Unset or empty: everything works.
 */
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static atomic_int calls;

/* Is it the turn of @call to fail? Then the errno. */
static int fault(const char *call)
{
	const char *text = getenv("STREAMCACHE_FAULT");
	char wanted[16];
	int error, after, n;

	if (text == NULL || sscanf(text, "%15s %d %d", wanted, &error, &after) != 3 ||
	    strcmp(wanted, call) != 0)
		return 0;
	n = atomic_fetch_add(&calls, 1);
	return after >= 0 ? (n >= after ? error : 0) : (n == -after - 1 ? error : 0);
}

static int is_blob(int fd)
{
	char link[40], path[4096];
	ssize_t bytes;

	snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
	bytes = readlink(link, path, sizeof(path) - 1);
	if (bytes < 0)
		return 0;
	path[bytes] = '\0';
	return strstr(path, "/blobs/") != NULL && strchr(path, '.') != NULL &&
	       strstr(path, "/ctl/") == NULL;
}

static void *next(const char *name)
{
	void *symbol = dlsym(RTLD_NEXT, name);

	if (symbol == NULL)
		abort();
	return symbol;
}

#define OPENAT(name)                                                              \
	int name(int at, const char *path, int flags, ...)                        \
	{                                                                         \
		int (*real)(int, const char *, int, ...) = next(#name);           \
		int error = flags & O_CREAT && strlen(path) > 3 && path[2] == '/' ? \
				    fault("open") :                               \
				    0;                                            \
		va_list args;                                                     \
		int mode;                                                         \
                                                                                  \
		va_start(args, flags);                                            \
		mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(args, int) : 0;     \
		va_end(args);                                                     \
		if (error != 0) {                                                 \
			errno = error;                                            \
			return -1;                                                \
		}                                                                 \
		return real(at, path, flags, mode);                               \
	}

#define PWRITE(name, off)                                                         \
	ssize_t name(int fd, const void *data, size_t bytes, off offset)          \
	{                                                                         \
		ssize_t (*real)(int, const void *, size_t, off) = next(#name);    \
		int error = 0;                                                    \
                                                                                  \
		if (is_blob(fd)) {                                                \
			error = fault("pwrite");                                  \
			if (bytes > 1 && fault("short") != 0)                     \
				bytes /= 2;                                       \
		}                                                                 \
		if (error != 0) {                                                 \
			errno = error;                                            \
			return -1;                                                \
		}                                                                 \
		return real(fd, data, bytes, offset);                             \
	}

#define FALLOCATE(name, off)                                                      \
	int name(int fd, int mode, off offset, off bytes)                         \
	{                                                                         \
		int (*real)(int, int, off, off) = next(#name);                    \
		int error = is_blob(fd) ? fault("fallocate") : 0;                 \
                                                                                  \
		if (error != 0) {                                                 \
			errno = error;                                            \
			return -1;                                                \
		}                                                                 \
		return real(fd, mode, offset, bytes);                             \
	}

#define FCNTL(name)                                                               \
	int name(int fd, int command, ...)                                        \
	{                                                                         \
		int (*real)(int, int, ...) = next(#name);                         \
		int ofd = command == F_OFD_SETLK || command == F_OFD_SETLKW ||    \
			  command == F_OFD_GETLK;                                 \
		int error = ofd ? fault("lock") : 0;                              \
		va_list args;                                                     \
		void *arg;                                                        \
                                                                                  \
		va_start(args, command);                                          \
		arg = va_arg(args, void *);                                       \
		va_end(args);                                                     \
		if (error != 0) {                                                 \
			errno = error;                                            \
			return -1;                                                \
		}                                                                 \
		if (ofd && fault("blind") != 0) {                                 \
			if (command == F_OFD_GETLK)                               \
				((struct flock *)arg)->l_type = F_UNLCK;          \
			return 0;                                                 \
		}                                                                 \
		return real(fd, command, arg);                                    \
	}

int close(int fd)
{
	int (*real)(int) = next("close");
	int error = is_blob(fd) ? fault("close") : 0, ret = real(fd);

	if (error == 0 || ret < 0)
		return ret;
	/* As on Linux: the descriptor is gone whatever close() says. */
	errno = error;
	return -1;
}

OPENAT(openat)
PWRITE(pwrite, off_t)
FALLOCATE(fallocate, off_t)
FCNTL(fcntl)
/* Where files are large by a macro, these are the names. */
#if !defined(_FILE_OFFSET_BITS) || _FILE_OFFSET_BITS != 64
OPENAT(openat64)
PWRITE(pwrite64, off64_t)
FALLOCATE(fallocate64, off64_t)
FCNTL(fcntl64)
#endif
