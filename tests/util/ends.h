/* SPDX-License-Identifier: MIT */
/*
 * ends - descriptors of all kinds, and what is written to and read from them.
 */
#ifndef UTIL_ENDS_H
#define UTIL_ENDS_H

#include <errno.h>
#include <fcntl.h>
#include <sys/socket.h>

#include "calls.h"

enum kind {
	PIPE,
	SOCKETS,
	PLAIN_FILE,
	KINDS
};

/* open_ends - ends[1] is written to, ends[0] is read from. */
static inline void open_ends(enum kind kind, int ends[2])
{
	char path[300];

	snprintf(path, sizeof(path), "%s/file", scratch_base);
	if (kind == PIPE) {
		must(pipe(ends) == 0);
	} else if (kind == SOCKETS) {
		must(socketpair(AF_UNIX, SOCK_STREAM, 0, ends) == 0);
	} else {
		ends[1] = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);
		ends[0] = open(path, O_RDONLY);
		must(ends[0] >= 0 && ends[1] >= 0);
	}
}

static inline void make_nonblocking(int fd)
{
	must(fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK) == 0);
}

/* feed - [@from, @until) of pattern 1 to a descriptor that takes it. */
static inline void feed(int fd, uint64_t from, uint64_t until)
{
	unsigned char data[7001];

	while (from < until) {
		size_t bytes = until - from < sizeof(data) ? (size_t)(until - from) : sizeof(data);
		ssize_t done;

		pattern_fill(1, from, data, bytes);
		done = write(fd, data, bytes);
		must(done > 0);
		from += (uint64_t)done;
	}
}

/* drain - all that is there up to the end, or now, must be the pattern from @from on. */
static inline uint64_t drain(int fd, uint64_t from)
{
	unsigned char data[9001];
	uint64_t at = from;
	ssize_t done;

	while ((done = read(fd, data, sizeof(data))) > 0) {
		must(pattern_matches(1, at, data, (size_t)done));
		at += (uint64_t)done;
	}
	must(done == 0 || errno == EAGAIN);
	return at - from;
}

#endif
