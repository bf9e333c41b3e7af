/* SPDX-License-Identifier: MIT */
/*
 * fetch - find or have produced; job.c runs the create callbacks.
 *
 * struct fetch is what one scache_fetch() was asked for. Its reader holds it,
 * to go back to it if the producer is killed, and so does the job that runs
 * its callback; the last of them releases the caller's argument.
 */
#include <errno.h>
#include <limits.h>
#include <stdlib.h>

#include "api/job.h"
#include "api/request.h"
#include "base/check.h"
#include "base/clock.h"
#include "base/thread.h"
#include "stream/stream.h"

#define RETAKES_MAX 3 /* producers killed under one reader before its first byte */

struct fetch {
	struct reader_origin origin; /* first: what the reader knows of it */
	_Atomic uint32_t users;
	struct scache *cache;
	struct scache_producer producer;
	struct scache_acquire_options options;
	bool created; /* its callback was run */
	uint32_t retakes, takeovers;
	uint32_t key_bytes;
	unsigned char key[SCACHE_KEY_BYTES_MAX];
};

void fetch_get(struct fetch *fetch)
{
	atomic_fetch_add(&fetch->users, 1);
}

int fetch_produce(struct fetch *fetch, struct scache_writer *writer)
{
	return fetch->producer.create(fetch->producer.arg, writer);
}

void fetch_put(struct fetch *fetch)
{
	if (atomic_fetch_sub(&fetch->users, 1) > 1)
		return;
	if (fetch->producer.release != NULL)
		fetch->producer.release(fetch->producer.arg);
	free(fetch);
}

/* ------------------------------------------------------------------ the fetch */

/* The cache cannot help: the same two streams, in memory of our own. */
static int serve_privately(struct request *rq)
{
	uint64_t ring_bytes = rq->cache->wishes.fallback.ring_bytes;
	struct entry_draft draft;
	int ret;

	if (rq->seat != NULL)
		ring_bytes = rq->store->segment->geometry.ring_bytes;
	request_draft(rq, &draft);
	/* Without its reader nobody can ever read it: no reason to go on then. */
	draft.flags = (draft.flags & ~ENTRY_RUN_TO_END) | ENTRY_RING_ONLY;
	ret = private_open(ring_bytes, &draft, &rq->reader, &rq->writer);
	if (ret < 0)
		return ret;
	pace_accept(rq->writer, &rq->terms);
	rq->reader->open_streams = rq->writer->open_streams = job_streams(rq->cache);
	atomic_fetch_add(rq->reader->open_streams, 2);
	if (!rq->has_digest || digest_expect(rq->writer, rq->digest) == 0)
		return 0;
	scache_writer_close(rq->writer);
	scache_reader_close(rq->reader);
	rq->writer = NULL;
	rq->reader = NULL;
	return -ENOMEM;
}

/* Found nothing: elect somebody. */
static int serve_with_job(struct fetch *fetch, struct request *rq)
{
	struct job *job;
	int ret = job_make(fetch->cache, fetch, &job);

	if (ret < 0)
		return ret;
	rq->create = true;
	ret = request_serve(rq);
	if (ret == SCACHE_BYPASS)
		ret = serve_privately(rq);
	job_order(job, rq->writer);
	return ret;
}

/* The same without asking anybody. */
static int serve_alone(struct fetch *fetch, struct request *rq)
{
	struct job *job;
	int ret = job_make(fetch->cache, fetch, &job);

	if (ret < 0)
		return ret;
	ret = serve_privately(rq);
	rq->outcome = SCACHE_BYPASSED;
	job_order(job, rq->writer);
	return ret;
}

/* 0 with a reader at byte 0 in @rq, and its job, if we were elected, running. */
static int take(struct fetch *fetch, struct request *rq, bool privately)
{
	int ret;

	*rq = (struct request){ .want_reader = true };
	ret = request_start(rq, fetch->cache, fetch->key, fetch->key_bytes, &fetch->options);
	if (ret < 0)
		return ret;
	ret = privately ? serve_alone(fetch, rq) : request_serve(rq);
	if (ret != 0 && !privately)
		ret = serve_with_job(fetch, rq);
	fetch->created |= rq->writer != NULL;
	return request_done(rq, ret);
}

/* For stream/restart.c: the producer was killed before the reader's first byte, say. */
static int retake(struct reader_origin *origin, enum retake why, struct scache_reader **ret_reader)
{
	struct fetch *fetch = (struct fetch *)origin;
	struct request rq;
	UNCANCELLED;
	int ret;

	/* One that is not dead may be our own: a callback is not run twice at a time. */
	if (fetch->retakes >= RETAKES_MAX || (why != RETAKE_DEAD && fetch->created))
		return -EOWNERDEAD;
	fetch->retakes++;
	/* That it was lost is not what the caller wanted refreshed. */
	fetch->options.flags &= ~SCACHE_REFRESH;
	ret = take(fetch, &rq, why == RETAKE_SILENT);
	if (ret == 0)
		*ret_reader = rq.reader;
	return ret;
}

/* For stream/reader.c: an orphan that our callback may go on with. */
static int take_over(struct reader_origin *origin, struct store *store, struct entry_name name,
		     uint64_t state)
{
	struct fetch *fetch = (struct fetch *)origin;
	struct scache_writer *writer;
	struct writer_terms terms;
	struct job *job;
	UNCANCELLED;
	uint32_t level;
	int ret;

	if (!(fetch->options.flags & SCACHE_RESUMABLE) || fetch->takeovers >= RETAKES_MAX)
		return -ENOTSUP;
	level = fetch->options.level != 0 ? fetch->options.level :
					    (uint32_t)store_setting(store, SETTING_LEVEL);
	request_terms(&fetch->options, &terms);
	ret = writer_take_over(store, name, state, &terms, level, &writer);
	if (ret < 0)
		return ret;
	fetch->takeovers++;
	writer->open_streams = &fetch->cache->job_streams;
	atomic_fetch_add(writer->open_streams, 1);
	store_get(store);
	/* Only now: of a thousand who wait one needs a thread. */
	ret = job_make(fetch->cache, fetch, &job);
	if (ret < 0) {
		writer_give_up(writer);
		return ret;
	}
	fetch->created = true;
	job_order(job, writer);
	return 0;
}

static void put_origin(struct reader_origin *origin)
{
	UNCANCELLED;

	fetch_put((struct fetch *)origin);
}

/* Key and options have been checked. */
static int make_fetch(struct scache *cache, const void *key, size_t key_bytes,
		      const struct scache_acquire_options *options,
		      const struct scache_producer *producer, struct fetch **ret_fetch)
{
	struct fetch *fetch;

	if (producer == NULL || producer->size != sizeof(*producer) || producer->create == NULL)
		return -EINVAL;
	fetch = calloc(1, sizeof(*fetch));
	if (fetch == NULL)
		return -ENOMEM;
	fetch->origin = (struct reader_origin){ .retake = retake,
					  .take_over = take_over,
					  .put = put_origin };
	atomic_init(&fetch->users, 1);
	fetch->cache = cache;
	fetch->producer = *producer;
	fetch->options.size = sizeof(*options);
	if (options != NULL)
		memcpy(&fetch->options, options, options->size);
	fetch->key_bytes = (uint32_t)key_bytes;
	memcpy(fetch->key, key, key_bytes);
	*ret_fetch = fetch;
	return 0;
}

int scache_fetch(struct scache *cache, const void *key, size_t key_bytes,
		 const struct scache_acquire_options *options,
		 const struct scache_producer *producer, struct scache_reader **ret_reader,
		 int *ret_created)
{
	KEEP_ERRNO;
	UNCANCELLED;
	struct fetch *fetch = NULL;
	struct request rq = { .want_reader = true };
	struct replay *replay = NULL;
	int ret = request_start(&rq, cache, key, key_bytes, options);

	if (ret == 0 && ret_reader == NULL)
		ret = -EINVAL;
	if (ret == 0)
		ret = make_fetch(cache, key, key_bytes, options, producer, &fetch);
	if (ret < 0)
		return ret;
	if (fetch->options.flags & SCACHE_DETERMINISTIC)
		ret = (replay = replay_new()) == NULL ? -ENOMEM : 0;
	if (ret == 0)
		ret = take(fetch, &rq, false);
	if (ret < 0) {
		replay_free(replay);
		/* The caller keeps its argument: nothing has seen it. */
		fetch->producer.release = NULL;
		fetch_put(fetch);
		return ret;
	}
	rq.reader->origin = &fetch->origin;
	rq.reader->replay = replay;
	if (ret_created != NULL)
		*ret_created = rq.writer != NULL;
	*ret_reader = rq.reader;
	return 0;
}

/* All of it, while *fetched is kept true. */
static int copy_all(struct scache_reader *reader, int fd, struct scache_fetched *fetched)
{
	struct scache_result result = { .size = sizeof(result) };
	ssize_t done;

	do {
		done = reader_to_fd(reader, fd, SSIZE_MAX, SCACHE_FOREVER, &fetched->fd_error);
		if (done > 0)
			fetched->bytes += (uint64_t)done;
	} while (done > 0);
	fetched->created = ((struct fetch *)reader->origin)->created;
	if (scache_wait(reader, 0, &result) == 0)
		fetched->code = result.code;
	return (int)done;
}

static void close_reader(void *reader)
{
	scache_reader_close(reader);
}

int scache_fetch_to_fd(struct scache *cache, const void *key, size_t key_bytes,
		       const struct scache_acquire_options *options,
		       const struct scache_producer *producer, int fd,
		       struct scache_fetched *ret_fetched)
{
	KEEP_ERRNO;
	struct scache_fetched fetched = { .code = -EAGAIN };
	struct scache_reader *reader;
	int ret;

	if (ret_fetched == NULL || ret_fetched->size == 0)
		return -EINVAL;
	ret = scache_fetch(cache, key, key_bytes, options, producer, &reader, NULL);
	if (ret < 0)
		return ret;
	pthread_cleanup_push(close_reader, reader);
	ret = copy_all(reader, fd, &fetched);
	pthread_cleanup_pop(1);
	fetched.size = ret_fetched->size;
	memcpy(ret_fetched, &fetched, min_u64(ret_fetched->size, sizeof(fetched)));
	return ret;
}
