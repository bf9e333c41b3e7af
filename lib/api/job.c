/* SPDX-License-Identifier: MIT */
/*
 * job - the threads that run create callbacks.
 *
 * A job's thread is made before the election and waits for the outcome:
 * whoever is elected must not find out then that it cannot produce. Threads
 * are joined by the next miss, or by scache_close(), so that none of them is
 * left when the library is unloaded.
 */
#include "api/job.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>

#include "base/clock.h"
#include "base/thread.h"
#include "stream/stream.h"

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

bool job_is_inside(const struct scache *cache)
{
	return own_job != NULL && own_job->cache == cache;
}

_Atomic uint32_t *job_streams(struct scache *cache)
{
	return job_is_inside(cache) ? &cache->job_streams : &cache->open_streams;
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
	code = fetch_produce(job->fetch, job->writer);
	pthread_cleanup_pop(0);
	end_entry(job, code);
	return NULL;
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

int job_make(struct scache *cache, struct fetch *fetch, struct job **ret_job)
{
	struct job *job = calloc(1, sizeof(*job));
	int ret;

	if (job == NULL)
		return -ENOMEM;
	join_ended(cache);
	job->cache = cache;
	job->fetch = fetch;
	fetch_get(fetch);
	ret = thread_start(&job->thread, run_job, job);
	if (ret < 0) {
		fetch_put(fetch);
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

void job_order(struct job *job, struct scache_writer *writer)
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

void jobs_init(struct scache *cache)
{
	pthread_condattr_t attr;

	pthread_mutex_init(&cache->jobs_mutex, NULL);
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&cache->jobs_changed, &attr);
	pthread_condattr_destroy(&attr);
}

void jobs_leave(struct scache *cache)
{
	pthread_cond_destroy(&cache->jobs_changed);
	pthread_mutex_destroy(&cache->jobs_mutex);
}

void jobs_forget(struct scache *cache)
{
	/* Their memory as well: somebody may have been changing the list at the fork. */
	cache->jobs = NULL;
	own_job = NULL;
	jobs_init(cache);
}

static bool all_have_ended(const struct scache *cache)
{
	const struct job *job;

	for (job = cache->jobs; job != NULL; job = job->next)
		if (!job->ended)
			return false;
	return true;
}

int jobs_await(struct scache *cache, int64_t timeout_ns)
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
