/* SPDX-License-Identifier: MIT */
/*
 * scrub - scache_verify(): compare stored blobs with their checksums, one after the other.
 */
#include <errno.h>
#include <time.h>

#include "api/request.h"
#include "base/check.h"
#include "base/clock.h"
#include "base/thread.h"
#include "stream/stream.h"

struct scrub {
	struct scache *cache;
	const struct scache_verify_options *options;
	struct scache_verify_report report;
	struct scache_verify_progress progress;
	int64_t started_ns;
};

/* No faster than was asked for, since the beginning. */
static void keep_rate(const struct scrub *scrub)
{
	uint64_t rate = scrub->options->bytes_per_second, due_ns;
	int64_t ahead_ns;
	struct timespec pause;

	if (rate == 0)
		return;
	due_ns = scrub->report.bytes / rate * NS_PER_SEC +
		 scrub->report.bytes % rate * NS_PER_SEC / rate;
	ahead_ns = (int64_t)due_ns - (clock_own_ns() - scrub->started_ns);
	if (ahead_ns <= 0)
		return;
	pause.tv_sec = (time_t)((uint64_t)ahead_ns / NS_PER_SEC);
	pause.tv_nsec = (long)((uint64_t)ahead_ns % NS_PER_SEC);
	nanosleep(&pause, NULL);
}

static int tell(struct scrub *scrub, int result)
{
	scrub->progress.result = result;
	return scrub->options->progress == NULL ?
		       0 : scrub->options->progress(scrub->options->arg, &scrub->progress);
}

static int pace(void *arg, uint64_t bytes)
{
	struct scrub *scrub = arg;
	int ret = tell(scrub, SCACHE_VERIFY_GOES_ON);

	if (ret != 0)
		return ret > 0 ? ret : -ECANCELED;
	scrub->progress.done_bytes += bytes;
	scrub->report.bytes += bytes;
	keep_rate(scrub);
	return 0;
}

/* One entry that is finished. 0, or what ends all of it. */
static int scrub_reader(struct scrub *scrub, struct scache_reader *reader)
{
	struct scache_entry_info info = { .size = sizeof(info) };
	int ret = scache_reader_info(reader, &info);

	if (ret < 0)
		return 0; /* it has gone: nobody will read it any more */
	scrub->progress = (struct scache_verify_progress){
		.size = sizeof(scrub->progress),
		.key = info.key,
		.key_bytes = info.key_bytes,
		.bytes = info.bytes,
	};
	ret = info.state == SCACHE_FINISHED ? reader_scrub(reader, pace, scrub) : -EAGAIN;
	if (ret > 0 || ret == -ECANCELED)
		return ret;
	if (ret == -EAGAIN || ret == -ENODATA || ret == -ESTALE) {
		scrub->report.skipped++;
		return tell(scrub, SCACHE_VERIFY_SKIPPED);
	}
	if (ret < 0 && ret != -EBADMSG)
		return ret;
	scrub->report.entries++;
	scrub->report.damaged += ret < 0;
	return tell(scrub, ret < 0 ? SCACHE_VERIFY_DAMAGED : SCACHE_VERIFY_GOOD);
}

/* To join a growing one, and to leave it, would be the end of what nobody reads yet. */
static int skip(struct scrub *scrub, const void *key, size_t key_bytes, uint64_t bytes)
{
	scrub->progress = (struct scache_verify_progress){ .size = sizeof(scrub->progress),
							   .key = key,
							   .key_bytes = (uint32_t)key_bytes,
							   .bytes = bytes };
	scrub->report.skipped++;
	return tell(scrub, SCACHE_VERIFY_SKIPPED);
}

static int scrub_key(struct scrub *scrub, const void *key, size_t key_bytes)
{
	struct request rq = { .want_reader = true, .finished_only = true };
	int ret = request_start(&rq, scrub->cache, key, key_bytes, NULL);

	if (ret < 0)
		return ret;
	ret = request_serve(&rq);
	ret = request_done(&rq, ret == SCACHE_BYPASS ? -ENOENT : ret);
	if (ret == -EAGAIN)
		return skip(scrub, key, key_bytes, 0);
	if (ret < 0)
		return ret;
	ret = scrub_reader(scrub, rq.reader);
	scache_reader_close(rq.reader);
	return ret;
}

static int scrub_entry(void *arg, const struct scache_entry_info *info)
{
	struct scrub *scrub = arg;
	int ret;

	if (info->flags & SCACHE_HIDDEN || info->state == SCACHE_FAILED)
		return 0;
	if (info->state != SCACHE_FINISHED)
		return skip(scrub, info->key, info->key_bytes, info->bytes);
	ret = scrub_key(scrub, info->key, info->key_bytes);
	return ret == -ENOENT ? 0 : ret;
}

int scache_verify(struct scache *cache, const void *key, size_t key_bytes,
		  const struct scache_verify_options *options,
		  struct scache_verify_report *ret_report)
{
	KEEP_ERRNO;
	static const struct scache_verify_options none = { .size = sizeof(none) };
	struct scrub scrub = { .cache = cache,
			       .options = options != NULL ? options : &none,
			       .started_ns = clock_own_ns() };
	int ret;

	SC_ASSERT(cache->magic == MAGIC_CACHE);
	if (scrub.options->size < sizeof(none) || (ret_report != NULL && ret_report->size == 0))
		return -EINVAL;
	ret = key != NULL ? scrub_key(&scrub, key, key_bytes)
			  : scache_each(cache, scrub_entry, &scrub);
	if (ret_report != NULL) {
		scrub.report.size = ret_report->size;
		memcpy(ret_report, &scrub.report, min_u64(ret_report->size, sizeof(scrub.report)));
	}
	return ret;
}
