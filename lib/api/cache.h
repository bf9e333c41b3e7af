/* SPDX-License-Identifier: MIT */
/*
 * cache - the handle behind struct scache.
 */
#ifndef API_CACHE_H
#define API_CACHE_H

#include "api/seat.h"
#include "streamcache.h"

struct job; /* a create callback, api/job.c */

struct scache {
	uint32_t magic;
	uint32_t flags; /* of its options */
	void (*trace)(void *arg, const struct scache_trace *trace);
	void *trace_arg;
	_Atomic uint32_t open_streams; /* without those of jobs */
	_Atomic uint32_t job_streams;  /* a job's writer, and what its callback has opened */
	pthread_mutex_t jobs_mutex;
	pthread_cond_t jobs_changed;
	struct job *jobs; /* running, or to be joined */
	_Atomic(struct seat *) seat; /* the current one */
	const struct seat *forgotten; /* with whose streams and jobs, */
	pid_t pid;		      /* by this child of fork() */
	/* For another seat: as scache_open() was told. */
	char *dir, *segment_dir;
	struct segment_wishes wishes;
	uint32_t mode;
	uint64_t chosen[SETTING_COUNT]; /* by this opener; SEGMENT_UNASKED: as the cache has it */
	bool may_create;
};

/* options_copy - of a caller built with an older header the rest is 0. 0 or -EINVAL. */
int options_copy(const struct scache_options *from, struct scache_options *ret_to);

/* settings_check - 0, or -EINVAL with a detail. */
int settings_check(const struct scache_options *options);

/* settings_asked - what the options say, SEGMENT_UNASKED for what they do not. */
void settings_asked(const struct scache_options *options, uint64_t ret_settings[SETTING_COUNT]);

/* settings_default - of a new cache; settings_default_of - on the file system of @dir_fd. */
void settings_default(uint64_t ring_bytes, uint64_t ret_settings[SETTING_COUNT]);
void settings_default_of(int dir_fd, uint64_t settings[SETTING_COUNT]);

/* settings_show - as they are in force for this opener. */
void settings_show(const struct scache *cache, const struct segment *segment,
		   struct scache_options *options);

/* jobs_init, jobs_leave - the jobs of @cache; leave when none is left. */
void jobs_init(struct scache *cache);
void jobs_leave(struct scache *cache);

/* jobs_forget - in a child of fork(): the threads of the jobs are not here. */
void jobs_forget(struct scache *cache);

/* job_streams - where a stream that this thread opens is counted. */
_Atomic uint32_t *job_streams(struct scache *cache);

/* job_is_inside - does this thread run one of them? */
bool job_is_inside(const struct scache *cache);

/* jobs_await - until no create callback runs. 0, -ETIMEDOUT, -EAGAIN. */
int jobs_await(struct scache *cache, int64_t timeout_ns);

/* cache_forget_parent - in a child of fork(): streams and jobs are the parent's.
 * Only the first time: what is opened meanwhile is the child's own. */
void cache_forget_parent(struct scache *cache);

/* cache_is_inherited - has this process, a child of fork(), not used @cache yet? */
bool cache_is_inherited(const struct scache *cache);

/*
 * cache_open_directories - DIR, DIR/ctl, DIR/blobs and the lock file, made if
 * need be and checked: ours, and nobody else can write there.
 * The descriptors are closed by the caller; on failure there are none.
 */
struct cache_fds {
	int dir_fd, ctl_fd, blobs_fd, lock_fd;
	gid_t group; /* of DIR, and so of everything in a group share */
};
int cache_open_directories(const char *dir, uint32_t mode, bool create, struct cache_fds *ret_fds);

/* cache_sync_directories - after a power cut DIR is where it is, and so is what is in it. */
int cache_sync_directories(const struct cache_fds *fds);
void cache_close_fds(struct cache_fds *fds);

#define GATE_TIMEOUT_NS (5 * 1000000000ll)

#endif
