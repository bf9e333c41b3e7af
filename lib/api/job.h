/* SPDX-License-Identifier: MIT */
/*
 * job - one run of a create callback in a thread of its own.
 */
#ifndef API_JOB_H
#define API_JOB_H

#include "api/cache.h"

struct fetch;
struct job;

/* Of api/fetch.c: what a job is for. It holds the fetch as long as it needs it. */
void fetch_get(struct fetch *fetch);
void fetch_put(struct fetch *fetch);
int fetch_produce(struct fetch *fetch, struct scache_writer *writer);

/* job_make - a thread that waits for job_order(). 0, -ENOMEM, -EAGAIN. */
int job_make(struct scache *cache, struct fetch *fetch, struct job **ret_job);

/* job_order - produce into @writer; NULL: nothing is to be produced after all. */
void job_order(struct job *job, struct scache_writer *writer);

#endif
