/* SPDX-License-Identifier: MIT */
/*
 * direct - what reads and writes otherwise than by scache_read() and
 * scache_write(): anywhere, in place, and by descriptors.
 */
#include "storm.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define PIPE_BYTES 8000 /* fit a pipe, whatever the pieces they come in */
#define PREAD_BYTES 40000
#define PASSING_BYTES 65536 /* as much may pass the ring, but only by scache_write() */

static int in[2] = { -1, -1 }, out[2] = { -1, -1 };

void open_pipes(void)
{
	for (int i = 0; i < 2 && in[0] >= 0; i++) { /* those that a child inherited */
		close(in[i]);
		close(out[i]);
	}
	if (pipe(in) < 0 || pipe(out) < 0)
		finding("pipe: %s", strerror(errno));
	fcntl(in[0], F_SETFL, O_NONBLOCK);
	fcntl(out[0], F_SETFL, O_NONBLOCK);
	fcntl(out[1], F_SETFL, O_NONBLOCK);
}

/* ------------------------------------------------------------------- reading */

ssize_t read_by_fd(struct reading *r, size_t bytes, int64_t timeout_ns)
{
	ssize_t done, had = 0, part;

	if (out[0] < 0)
		return CALL("read", r->key, scache_read(r->reader, got, bytes, timeout_ns));
	bytes = bytes < PIPE_BYTES ? bytes : PIPE_BYTES;
	done = CALL("sendfile", r->key, scache_sendfile(r->reader, out[1], bytes, timeout_ns));
	while ((part = read(out[0], got + had, BLOB_MAX - (size_t)had)) > 0)
		had += part;
	if (had != (done > 0 ? done : 0) || had > (ssize_t)bytes)
		finding("%zd of %zu, but %zd have arrived", done, bytes, had);
	return done;
}

ssize_t read_in_place(struct reading *r, size_t bytes, int64_t timeout_ns)
{
	const unsigned char *seen;
	ssize_t done, part;
	const void *data;

	done = CALL("peek", r->key, scache_peek(r->reader, &data, bytes, timeout_ns));
	if (done <= 0)
		return done;
	if (done > (ssize_t)bytes)
		finding("peek: %zd of %zu", done, bytes);
	seen = data;
	memcpy(got, seen, (size_t)done);
	if (one_in(50)) /* others go on, and it stays */
		nap((int64_t)below(50) * MS);
	part = one_in(2) ? done : 1 + (ssize_t)below((uint64_t)done);
	if (CALL("consume", r->key, scache_consume(r->reader, (size_t)part)) != part)
		finding("consume: not %zd", part);
	if (memcmp(got + part, seen + part, (size_t)(done - part)) != 0)
		finding("what was shown of %zd bytes has changed", done);
	return part;
}

void look_elsewhere(struct reading *r)
{
	static unsigned char there[PREAD_BYTES];
	static const int64_t timeouts[] = { 0, 1 * MS, 20 * MS };
	int64_t timeout_ns = timeouts[below(3)];
	struct reading end = *r;
	uint64_t offset;
	size_t bytes = some_bytes();
	ssize_t done;

	if (r->key == 0 || r->position < sizeof(r->header))
		return;
	bytes = bytes < PREAD_BYTES ? bytes : PREAD_BYTES;
	offset = below((one_in(2) ? r->position : r->header.bytes) + 1000);
	end.position = r->header.bytes;
	end.looked_ahead = r->looked_ahead = r->looked_ahead || offset > r->position;
	done = CALL("pread", r->key, scache_pread(r->reader, got, bytes, offset, timeout_ns));
	if (done > 0) {
		if ((size_t)done > bytes || offset + (uint64_t)done > r->header.bytes)
			finding("%zd of %zu at %llu of %llu", done, bytes,
				(unsigned long long)offset, (unsigned long long)r->header.bytes);
		fill(&r->header, offset, there, (size_t)done);
		if (memcmp(got, there, (size_t)done) != 0)
			finding("wrong bytes in the %zd at %llu, position %llu", done,
				(unsigned long long)offset, (unsigned long long)r->position);
		return;
	}
	if ((done == -EAGAIN && timeout_ns == 0) || (done == -ETIMEDOUT && timeout_ns > 0) ||
	    (done == -ENODATA && (offset < r->position || may_have_lost(r))) ||
	    (done == -EDEADLK && offset > r->position))
		return;
	/* Only a repeated production may end before it is where the first one was. */
	if (done <= 0 && offset < r->header.bytes && r->deterministic)
		end.position = r->position;
	else if ((done == 0 || done == -EDOM || done == -EREMOTEIO) && offset < r->header.bytes)
		finding("%zd at %llu of %llu", done, (unsigned long long)offset,
			(unsigned long long)r->header.bytes);
	check_end(&end, (int)done);
}

/* ------------------------------------------------------------------- writing */

static ssize_t put_in_place(struct scache_writer *writer, uint64_t at, size_t bytes,
			    int64_t timeout_ns)
{
	ssize_t room, part;
	void *data;

	room = CALL("reserve", last_key, scache_reserve(writer, bytes, &data, timeout_ns));
	if (room <= 0)
		return room;
	if ((size_t)room > bytes)
		finding("reserve: %zd of %zu", room, bytes);
	memset(data, 0xee, (size_t)room);
	part = one_in(4) ? 1 + (ssize_t)below((uint64_t)room) : room;
	memcpy(data, blob + at, (size_t)part);
	room = CALL("commit", last_key, scache_commit(writer, (size_t)part));
	/* Whose file fails waits for a ring, and while it does everybody may leave. */
	if (limited && room < 0 && (room == -EPIPE || is_shortage((int)room)))
		return room;
	if (room != part)
		finding("commit: %zd of %zd", room, part);
	if (one_in(8) && scache_reserve(writer, bytes, &data, 0) > 0) {
		memset(data, 0xee, 1);
		if (scache_commit(writer, 0) != 0)
			finding("commit of nothing");
	}
	return part;
}

static ssize_t put_by_fd(struct scache_writer *writer, uint64_t at, size_t bytes,
			 int64_t timeout_ns)
{
	unsigned char left[PIPE_BYTES];
	ssize_t done, rest;

	bytes = bytes < PIPE_BYTES ? bytes : PIPE_BYTES;
	if (write(in[1], blob + at, bytes) != (ssize_t)bytes)
		finding("pipe: %s", strerror(errno));
	done = CALL("write_from_fd", last_key,
		    scache_write_from_fd(writer, in[0], one_in(2) ? bytes : bytes / 2 + 1,
					 timeout_ns));
	/* What it has not taken is still there. */
	rest = read(in[0], left, sizeof(left));
	rest = rest < 0 ? 0 : rest;
	/* What it took, but could not put anywhere, is lost. */
	if (limited && rest + (done > 0 ? done : 0) < (ssize_t)bytes)
		return done;
	if ((size_t)(rest + (done > 0 ? done : 0)) != bytes ||
	    memcmp(left, blob + at + bytes - rest, (size_t)rest) != 0)
		finding("write_from_fd: %zd of %zu, %zd left", done, bytes, rest);
	return done;
}

ssize_t put(struct scache_writer *writer, uint64_t at, size_t bytes, int64_t timeout_ns)
{
	if (in[0] < 0 || bytes > PASSING_BYTES || one_in(2))
		return CALL("write", last_key, scache_write(writer, blob + at, bytes, timeout_ns));
	return one_in(2) ? put_in_place(writer, at, bytes, timeout_ns)
			 : put_by_fd(writer, at, bytes, timeout_ns);
}
