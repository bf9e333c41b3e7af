/* SPDX-License-Identifier: MIT */
/*
 * fetches - what is produced in a thread that the library has made. It may be
 * asked to produce long after the fetch, and to go on with what others began.
 */
#include "storm.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

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

	at = scache_written(writer);
	while (at < bytes) {
		size_t piece = 1 + (order->random = mix(order->random)) % sizeof(data);
		ssize_t done;

		piece = piece < bytes - at ? piece : (size_t)(bytes - at);
		fill(h, at, data, piece);
		done = CALL("job-write", order->key, scache_write(writer, data, piece, 30 * MS));
		if (limited && done < 0 && done != -ETIMEDOUT)
			return false;
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
	uint64_t lot = order->random = mix(order->random);
	struct header h = { .key = order->key, .ending = lot % 4 == 0 ? lot / 4 % 4 : FINISH };
	struct production *p;
	char message[40];
	int length, ret;

	h.bytes = sizeof(h) + lot / 16 % (lot % 2 == 0 ? 2000 : BLOB_MAX / 2);
	h.code = (uint32_t)(1 + lot % 200);
	note_callback();
	p = begin(writer, &h, order->max_age_ns);
	if (!write_alone(order, writer, &h)) {
		p->stage = GAVE_UP;
		return -ECANCELED;
	}
	p->stage = ENDING;
	if (h.ending == CLOSE)
		return -ECANCELED;
	if (h.ending == FINISH) {
		/* Half of the time the library finishes it for us. */
		ret = lot % 3 == 0 ? -EPIPE
				   : (int)CALL("job-finish", order->key, scache_finish(writer));
		if (ret >= 0) {
			p->finished_ns = now_ns();
			p->stage = ret == 0 ? FINISHED : NOT_KEPT;
			COUNT(finishes);
		}
		if (ret > 0)
			COUNT(unkept);
		if (ret < 0 && ret != -EPIPE && !limited)
			finding("callback: finish: %d", ret);
		return 0;
	}
	length = snprintf(message, sizeof(message), "key %u %u ", order->key, h.code);
	ret = CALL("job-abort", order->key,
		   scache_abort(writer, h.ending == ABORT_CODE ? (int)h.code : -EDOM, message,
				(size_t)length));
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
	struct scache_acquire_options options = *o;
	char name[16];
	int ret, created;

	if (order == NULL)
		finding("no memory");
	/* Who fetches has a producer at hand: the more so. */
	options.flags |=
		(one_in(2) ? SCACHE_RESUMABLE : 0) | (one_in(2) ? SCACHE_DETERMINISTIC : 0);
	r->deterministic = options.flags & SCACHE_DETERMINISTIC;
	*order = (struct order){ .key = r->key,
				 .max_age_ns = max_age_ns,
				 .random = below(UINT64_MAX) };
	ret = CALL("fetch", r->key,
		   scache_fetch(cache, name, key_name(r->key, name), &options, &producer,
				&r->reader, &created));
	if (ret != 0)
		finding("%d", ret);
	read_somehow(r);
}
