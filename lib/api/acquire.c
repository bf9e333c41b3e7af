/* SPDX-License-Identifier: MIT */
/*
 * acquire - the calls that find, create and remove.
 */
#include <errno.h>

#include "api/request.h"
#include "base/thread.h"
#include "shm/epoch.h"
#include "store/adopt.h"
#include "store/sweep.h"

int scache_acquire(struct scache *cache, const void *key, size_t key_bytes,
		   const struct scache_acquire_options *options, struct scache_reader **ret_reader,
		   struct scache_writer **ret_writer)
{
	KEEP_ERRNO;
	UNCANCELLED;
	struct request rq = { .create = true, .want_reader = ret_reader != NULL };
	int ret;

	if (ret_writer == NULL)
		return -EINVAL;
	ret = request_start(&rq, cache, key, key_bytes, options);
	if (ret < 0)
		return ret;
	ret = request_serve(&rq);
	if (ret_reader != NULL)
		*ret_reader = rq.reader;
	*ret_writer = rq.writer;
	return request_done(&rq, ret);
}

/* A hit passes no cancellation point, and holding them off is a tenth of it: what has one does. */
int scache_lookup(struct scache *cache, const void *key, size_t key_bytes,
		  const struct scache_acquire_options *options, struct scache_reader **ret_reader)
{
	KEEP_ERRNO;
	struct request rq = { .create = false, .want_reader = true };
	int ret;

	if (ret_reader == NULL)
		return -EINVAL;
	ret = request_start(&rq, cache, key, key_bytes, options);
	if (ret < 0)
		return ret;
	ret = request_serve(&rq);
	if (ret == SCACHE_BYPASS)
		ret = -ENOENT;
	if (ret == 0)
		*ret_reader = rq.reader;
	return request_done(&rq, ret);
}

int scache_remove(struct scache *cache, const void *key, size_t key_bytes)
{
	KEEP_ERRNO;
	UNCANCELLED;
	struct request rq = { .create = false };
	struct entry_name name;
	uint64_t state, head;
	unsigned pin;
	int forgotten = 0, ret = request_start(&rq, cache, key, key_bytes, NULL);

	if (ret == 0)
		ret = request_enter(&rq);
	if (ret < 0)
		return ret;
	/* First: what is being adopted meanwhile has its entry before its file is another's. */
	if (adopt_may_help(rq.store, rq.key.hash))
		forgotten = adopt_forget(rq.store, &rq.key);
	pin = epoch_enter(rq.store->peer);
	ret = index_find(rq.store->peer, &rq.key, &name, &state, &head);
	epoch_leave(rq.store->peer, pin);
	if (ret < 0)
		segment_retire(rq.store->segment);
	/* What is in no segment any more has been removed. */
	if (ret <= 0 || !entry_hide_any(rq.store->segment, name)) {
		ret = -ENOENT;
	} else {
		peer_count(rq.store->peer, STAT_REMOVED, 1);
		sweep_entry(rq.store, name);
		ret = 0;
	}
	seat_leave(rq.seat);
	if (forgotten < 0)
		return forgotten;
	return forgotten > 0 ? 0 : ret;
}
