/* SPDX-License-Identifier: MIT */
/*
 * direct - what reads and writes otherwise than by scache_read() and
 * scache_write(): anywhere, in place, by descriptors, and in a thread that the
 * library has made.
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

static int in[2] = { -1, -1 }, out[2] = { -1, -1 };

void open_pipes(void)
{
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
		return scache_read(r->reader, got, bytes, timeout_ns);
	bytes = bytes < PIPE_BYTES ? bytes : PIPE_BYTES;
	enter("read_to_fd", r->key);
	done = scache_read_to_fd(r->reader, out[1], bytes, timeout_ns);
	while ((part = read(out[0], got + had, BLOB_MAX - (size_t)had)) > 0)
		had += part;
	if (had != (done > 0 ? done : 0) || had > (ssize_t)bytes)
		finding("%zd of %zu, but %zd have arrived", done, bytes, had);
	return done;
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
	enter("pread", r->key);
	done = scache_pread(r->reader, got, bytes, offset, timeout_ns);
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
	    (done == -ENODATA && offset < r->position) ||
	    (done == -EDEADLK && offset > r->position))
		return;
	if ((done == 0 || done == -EDOM || done == -EREMOTEIO) && offset < r->header.bytes)
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

	room = scache_reserve(writer, bytes, &data, timeout_ns);
	if (room <= 0)
		return room;
	if ((size_t)room > bytes)
		finding("reserve: %zd of %zu", room, bytes);
	memset(data, 0xee, (size_t)room);
	part = one_in(4) ? 1 + (ssize_t)below((uint64_t)room) : room;
	memcpy(data, blob + at, (size_t)part);
	if (scache_commit(writer, (size_t)part) != part)
		finding("commit: %zd", part);
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
	done = scache_write_from_fd(writer, in[0], one_in(2) ? bytes : bytes / 2 + 1, timeout_ns);
	/* What it has not taken is still there. */
	rest = read(in[0], left, sizeof(left));
	rest = rest < 0 ? 0 : rest;
	if ((size_t)(rest + (done > 0 ? done : 0)) != bytes ||
	    memcmp(left, blob + at + bytes - rest, (size_t)rest) != 0)
		finding("write_from_fd: %zd of %zu, %zd left", done, bytes, rest);
	return done;
}

ssize_t put(struct scache_writer *writer, uint64_t at, size_t bytes, int64_t timeout_ns)
{
	if (in[0] < 0 || one_in(2))
		return scache_write(writer, blob + at, bytes, timeout_ns);
	return one_in(2) ? put_in_place(writer, at, bytes, timeout_ns)
			 : put_by_fd(writer, at, bytes, timeout_ns);
}

/* ------------------------------------------------------------------ fetching */

/* The thread of a callback shares nothing of what the worker draws and enters. */
struct order {
	unsigned key;
	uint64_t max_age_ns, random;
};

/* All of it. False if nobody wants it, or it takes too long. */
static bool write_alone(struct order *order, struct scache_writer *writer, const struct header *h)
{
	uint64_t bytes = order->key == 0 ? 0 : h->bytes, at = 0;
	int64_t until_ns = now_ns() + 1500 * MS;
	unsigned char data[5000];

	while (at < bytes) {
		size_t piece = 1 + (order->random = mix(order->random)) % sizeof(data);
		ssize_t done;

		piece = piece < bytes - at ? piece : (size_t)(bytes - at);
		fill(h, at, data, piece);
		done = scache_write(writer, data, piece, 30 * MS);
		/* Even who runs to the end, if a bypass has left it with one reader only. */
		if (done == -EPIPE)
			return COUNT(pipes), false;
		if (done == 0 || done > (ssize_t)piece || (done < 0 && done != -ETIMEDOUT))
			finding("callback: %zd of %zu at %llu", done, piece,
				(unsigned long long)at);
		at += done > 0 ? (uint64_t)done : 0;
		if (done < 0 && now_ns() > until_ns)
			return false;
	}
	return true;
}

static int create(void *arg, struct scache_writer *writer)
{
	struct order *order = arg;
	uint64_t lot = mix(order->random);
	struct header h = { .key = order->key, .ending = lot % 4 == 0 ? lot / 4 % 4 : FINISH };
	struct production *p;
	char message[40];
	int length, ret;

	h.bytes = sizeof(h) + lot / 16 % (lot % 2 == 0 ? 2000 : BLOB_MAX / 2);
	h.code = (uint32_t)(1 + lot % 200);
	p = remember(&h, order->max_age_ns, PRODUCING);
	if (!write_alone(order, writer, &h)) {
		p->stage = GAVE_UP;
		return -ECANCELED;
	}
	p->stage = ENDING;
	if (h.ending == CLOSE)
		return -ECANCELED;
	if (h.ending == FINISH) {
		/* Half of the time the library finishes it for us. */
		ret = lot % 3 == 0 ? -EPIPE : scache_finish(writer);
		if (ret >= 0) {
			p->finished_ns = now_ns();
			p->stage = ret == 0 ? FINISHED : NOT_KEPT;
			COUNT(finishes);
		}
		if (ret > 0)
			COUNT(unkept);
		if (ret < 0 && ret != -EPIPE)
			finding("callback: finish: %d", ret);
		return 0;
	}
	length = snprintf(message, sizeof(message), "key %u %u ", order->key, h.code);
	ret = scache_abort(writer, h.ending == ABORT_CODE ? (int)h.code : -EDOM, message,
			   (size_t)length);
	if (ret != 0)
		finding("callback: abort: %d", ret);
	return 0;
}

void fetch(struct reading *r, const struct scache_acquire_options *o, uint64_t max_age_ns)
{
	struct order *order = malloc(sizeof(*order));
	const struct scache_producer producer = {
		.size = sizeof(producer), .create = create, .release = free, .arg = order
	};
	char name[16];
	int ret, created;

	if (order == NULL)
		finding("no memory");
	*order = (struct order){ .key = r->key,
				 .max_age_ns = max_age_ns,
				 .random = below(UINT64_MAX) };
	enter("fetch", r->key);
	ret = scache_fetch(cache, name, key_name(r->key, name), o, &producer, &r->reader, &created);
	if (ret != 0)
		finding("%d", ret);
	read_somehow(r);
}
