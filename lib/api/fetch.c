/* SPDX-License-Identifier: MIT */
/*
 * fetch - find or have produced: the create callbacks and their threads.
 *
 * struct fetch is what one scache_fetch() was asked for. Its reader holds it,
 * to go back to it if the producer is killed, and so does the job that runs
 * its callback; the last of them releases the caller's argument.
 *
 * The thread of a job is made before the election and waits for the outcome:
 * whoever is elected must not find out then that it cannot produce. Threads
 * are joined by the next miss, or by scache_close(), so that none of them is
 * left when the library is unloaded.
 */
#include <errno.h>
#include <limits.h>
#include <signal.h>
#include <stdlib.h>

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

enum order { ORDER_WAIT, ORDER_PRODUCE, ORDER_LEAVE };

struct job {
	struct job *next;
	struct scache *cache;
	struct fetch *fetch;
	struct scache_writer *writer;
	pthread_t thread;
	enum order order; /* this and ended: under jobs_mutex */
	bool ended;
};

static _Thread_local struct job *own_job; /* the callback's that this thread runs */

bool fetch_is_inside(const struct scache *cache)
{
	return own_job != NULL && own_job->cache == cache;
}

_Atomic uint32_t *fetch_streams(struct scache *cache)
{
	return fetch_is_inside(cache) ? &cache->job_streams : &cache->open_streams;
}

static void fetch_put(struct fetch *fetch)
{
	if (atomic_fetch_sub(&fetch->users, 1) > 1)
		return;
	if (fetch->producer.release != NULL)
		fetch->producer.release(fetch->producer.arg);
	free(fetch);
}

/* -------------------------------------------------------------------- the job */

static void end_job(struct job *job)
{
	struct scache *cache = job->cache;

	fetch_put(job->fetch);
	pthread_mutex_lock(&cache->jobs_mutex);
	job->ended = true;
	pthread_cond_broadcast(&cache->jobs_changed);
	pthread_mutex_unlock(&cache->jobs_mutex);
}

/* @code as create() returned it; one that nobody can say is -EIO. */
static void end_entry(struct job *job, int code)
{
	UNCANCELLED;

	/* A child that the callback forked has come here: all of it is the parent's. */
	if (peer_is_forked(job->writer->store->peer))
		return;
	if (job->writer->ended)
		;
	else if (code == 0)
		scache_finish(job->writer);
	else if (scache_abort(job->writer, code, NULL, 0) < 0)
		scache_abort(job->writer, -EIO, NULL, 0);
	scache_writer_close(job->writer);
	end_job(job);
}

/* The callback has left by pthread_exit(), or was cancelled. */
static void leave_early(void *arg)
{
	end_entry(arg, -ECANCELED);
}

static enum order await_order(struct job *job)
{
	struct scache *cache = job->cache;
	enum order order;
	UNCANCELLED;

	pthread_mutex_lock(&cache->jobs_mutex);
	while (job->order == ORDER_WAIT)
		pthread_cond_wait(&cache->jobs_changed, &cache->jobs_mutex);
	order = job->order;
	pthread_mutex_unlock(&cache->jobs_mutex);
	return order;
}

static void *run_job(void *arg)
{
	struct job *job = arg;
	int code;

	own_job = job;
	if (await_order(job) == ORDER_LEAVE) {
		end_job(job);
		return NULL;
	}
	pthread_cleanup_push(leave_early, job);
	code = job->fetch->producer.create(job->fetch->producer.arg, job->writer);
	pthread_cleanup_pop(0);
	end_entry(job, code);
	return NULL;
}

/*
 * Signals are our caller's affair, and not for a thread it does not know of;
 * but what a fault raises belongs to whoever made it.
 */
static int start_thread(struct job *job)
{
	static const int faults[] = { SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP, SIGSYS, SIGABRT };
	sigset_t others, before;
	int ret;

	sigfillset(&others);
	for (size_t i = 0; i < sizeof(faults) / sizeof(faults[0]); i++)
		sigdelset(&others, faults[i]);
	pthread_sigmask(SIG_BLOCK, &others, &before);
	ret = pthread_create(&job->thread, NULL, run_job, job);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	return -ret;
}

/* Take out and join those that have ended. */
static void join_ended(struct scache *cache)
{
	struct job *ended = NULL, *job, **link;

	pthread_mutex_lock(&cache->jobs_mutex);
	for (link = &cache->jobs; (job = *link) != NULL;) {
		if (!job->ended) {
			link = &job->next;
			continue;
		}
		*link = job->next;
		job->next = ended;
		ended = job;
	}
	pthread_mutex_unlock(&cache->jobs_mutex);
	while ((job = ended) != NULL) {
		ended = job->next;
		pthread_join(job->thread, NULL);
		free(job);
	}
}

static int make_job(struct fetch *fetch, struct job **ret_job)
{
	struct scache *cache = fetch->cache;
	struct job *job = calloc(1, sizeof(*job));
	int ret;

	if (job == NULL)
		return -ENOMEM;
	join_ended(cache);
	job->cache = cache;
	job->fetch = fetch;
	atomic_fetch_add(&fetch->users, 1);
	ret = start_thread(job);
	if (ret < 0) {
		atomic_fetch_sub(&fetch->users, 1);
		free(job);
		return ret;
	}
	pthread_mutex_lock(&cache->jobs_mutex);
	job->next = cache->jobs;
	cache->jobs = job;
	pthread_mutex_unlock(&cache->jobs_mutex);
	*ret_job = job;
	return 0;
}

/* @writer: NULL if nothing is to be produced after all. */
static void give_order(struct job *job, struct scache_writer *writer)
{
	struct scache *cache = job->cache;

	if (writer != NULL && writer->open_streams != &cache->job_streams) {
		/* The job's: what scache_close() waits for, and not what it refuses. */
		atomic_fetch_add(&cache->job_streams, 1);
		atomic_fetch_sub(writer->open_streams, 1);
		writer->open_streams = &cache->job_streams;
	}
	pthread_mutex_lock(&cache->jobs_mutex);
	job->writer = writer;
	job->order = writer != NULL ? ORDER_PRODUCE : ORDER_LEAVE;
	pthread_cond_broadcast(&cache->jobs_changed);
	pthread_mutex_unlock(&cache->jobs_mutex);
}

/* ------------------------------------------------------------------- for close */

void fetch_init(struct scache *cache)
{
	pthread_condattr_t attr;

	pthread_mutex_init(&cache->jobs_mutex, NULL);
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&cache->jobs_changed, &attr);
	pthread_condattr_destroy(&attr);
}

void fetch_leave(struct scache *cache)
{
	pthread_cond_destroy(&cache->jobs_changed);
	pthread_mutex_destroy(&cache->jobs_mutex);
}

void fetch_forget(struct scache *cache)
{
	/* Their memory as well: somebody may have been changing the list at the fork. */
	cache->jobs = NULL;
	own_job = NULL;
	fetch_init(cache);
}

static bool all_have_ended(const struct scache *cache)
{
	const struct job *job;

	for (job = cache->jobs; job != NULL; job = job->next)
		if (!job->ended)
			return false;
	return true;
}

int fetch_await_jobs(struct scache *cache, int64_t timeout_ns)
{
	int64_t deadline_ns = timeout_ns == 0 ? 0 : deadline_after(timeout_ns);
	struct timespec until = { .tv_sec = deadline_ns / (int64_t)NS_PER_SEC,
				  .tv_nsec = deadline_ns % (int64_t)NS_PER_SEC };
	int error = 0;

	pthread_mutex_lock(&cache->jobs_mutex);
	while (!all_have_ended(cache) && error == 0)
		error = deadline_ns == DEADLINE_NEVER ?
				pthread_cond_wait(&cache->jobs_changed, &cache->jobs_mutex) :
				pthread_cond_timedwait(&cache->jobs_changed, &cache->jobs_mutex,
						       &until);
	error = all_have_ended(cache) ? 0 : error;
	pthread_mutex_unlock(&cache->jobs_mutex);
	if (error != 0)
		return timeout_ns == 0 ? -EAGAIN : -error;
	join_ended(cache);
	return 0;
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
	rq->reader->open_streams = rq->writer->open_streams = fetch_streams(rq->cache);
	atomic_fetch_add(rq->reader->open_streams, 2);
	return 0;
}

/* Found nothing: elect somebody. */
static int serve_with_job(struct fetch *fetch, struct request *rq)
{
	struct job *job;
	int ret = make_job(fetch, &job);

	if (ret < 0)
		return ret;
	rq->create = true;
	ret = request_serve(rq);
	if (ret == SCACHE_BYPASS)
		ret = serve_privately(rq);
	give_order(job, rq->writer);
	return ret;
}

/* 0 with a reader at byte 0 in @rq, and its job, if we were elected, running. */
static int take(struct fetch *fetch, struct request *rq)
{
	int ret;

	*rq = (struct request){ .want_reader = true };
	ret = request_start(rq, fetch->cache, fetch->key, fetch->key_bytes, &fetch->options);
	if (ret < 0)
		return ret;
	ret = request_serve(rq);
	if (ret != 0)
		ret = serve_with_job(fetch, rq);
	fetch->created |= rq->writer != NULL;
	return request_done(rq, ret);
}

/* For stream/reader.c: the producer was killed before the reader's first byte. */
static int retake(struct reader_origin *origin, struct scache_reader **ret_reader)
{
	struct fetch *fetch = (struct fetch *)origin;
	struct request rq;
	UNCANCELLED;
	int ret;

	if (fetch->retakes >= RETAKES_MAX)
		return -EOWNERDEAD;
	fetch->retakes++;
	/* That it was lost is not what the caller wanted refreshed. */
	fetch->options.flags &= ~SCACHE_REFRESH;
	ret = take(fetch, &rq);
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
	struct job *job;
	UNCANCELLED;
	int ret;

	if (!(fetch->options.flags & SCACHE_RESUMABLE) || fetch->takeovers >= RETAKES_MAX)
		return -ENOTSUP;
	ret = writer_take_over(store, name, state, &writer);
	if (ret < 0)
		return ret;
	fetch->takeovers++;
	writer->open_streams = &fetch->cache->job_streams;
	atomic_fetch_add(writer->open_streams, 1);
	store_get(store);
	/* Only now: of a thousand who wait one needs a thread. */
	ret = make_job(fetch, &job);
	if (ret < 0) {
		entry_give_up(store->peer, name);
		writer->ended = true;
		scache_writer_close(writer);
		return ret;
	}
	fetch->created = true;
	give_order(job, writer);
	return 0;
}

static void put_origin(struct reader_origin *origin)
{
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
	int ret = request_start(&rq, cache, key, key_bytes, options);

	if (ret == 0 && ret_reader == NULL)
		ret = -EINVAL;
	if (ret == 0)
		ret = make_fetch(cache, key, key_bytes, options, producer, &fetch);
	if (ret < 0)
		return ret;
	ret = take(fetch, &rq);
	if (ret < 0) {
		/* The caller keeps its argument: nothing has seen it. */
		fetch->producer.release = NULL;
		fetch_put(fetch);
		return ret;
	}
	rq.reader->origin = &fetch->origin;
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
