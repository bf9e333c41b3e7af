/* SPDX-License-Identifier: MIT */
/*
 * producer - create callbacks for scache_fetch() that do as they are told, and
 * a board in memory of all processes of a test that says what became of them.
 */
#ifndef UTIL_PRODUCER_H
#define UTIL_PRODUCER_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "streamcache.h"

struct board {
	_Atomic int begun, returned; /* callbacks */
	_Atomic int paused;	     /* of these, at their pause */
	_Atomic int go;		     /* 1: the paused ones may go on */
	_Atomic int fetches;	     /* that have succeeded */
	_Atomic int released;
	_Atomic int error;	     /* of the last write of the last callback, or 0 */
	_Atomic int done;	     /* for whatever a test has to say besides */
	_Atomic uint64_t written;    /* by the last callback that came to its end */
};

extern struct board *board;

/* board_make - an empty one, shared with all children to come. */
void board_make(void);

/* What one callback does. It must live until it is released. */
struct task {
	uint64_t seed, bytes; /* of the pattern */
	bool pauses;	      /* at @pause_at bytes, until board->go */
	uint64_t pause_at;
	int ret;	      /* what it returns in the end, or: */
	int (*ending)(struct task *task, struct scache_writer *writer);
	void *extra;	      /* the ending's affair */
	pthread_t thread;     /* that it runs in; once it has begun */
	_Atomic bool runs;
};

/* task_producer - for scache_fetch(). Its release must be called once, and not while it runs. */
struct scache_producer task_producer(struct task *task);

/* task_fetch - must succeed. Returns *ret_created. */
int task_fetch(struct scache *cache, const char *key, const struct scache_acquire_options *options,
	       struct task *task, struct scache_reader **ret_reader);

/* task_close - close what was fetched and the cache; all must be released, and the cache clean. */
void task_close(struct scache *cache, struct scache_reader *reader);

/* threads_now - how many this process has. */
int threads_now(void);

#endif
