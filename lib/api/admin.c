/* SPDX-License-Identifier: MIT */
/*
 * admin - looking at a cache and keeping it tidy.
 */
#include <errno.h>
#include <stddef.h>

#include "api/cache.h"
#include "base/check.h"
#include "base/detail.h"
#include "base/thread.h"
#include "index/repair.h"
#include "index/ring.h"
#include "index/verify.h"
#include "store/clean.h"
#include "store/limits.h"
#include "store/sweep.h"
#include "stream/stream.h"

static int enter(struct scache *cache, struct seat **ret_seat)
{
	SC_ASSERT(cache->magic == MAGIC_CACHE);
	return seat_enter(cache, ret_seat);
}

int scache_each(struct scache *cache,
		int (*entry)(void *arg, const struct scache_entry_info *info), void *arg)
{
	KEEP_ERRNO;
	UNCANCELLED;
	unsigned char key[256];
	struct segment *segment;
	struct seat *seat;
	int ret = enter(cache, &seat);

	if (ret < 0)
		return ret;
	segment = seat->store.segment;
	for (uint32_t idx = 0; ret == 0 && idx < segment->geometry.entries; idx++) {
		struct scache_entry_info info = { .size = sizeof(info) };
		uint64_t word = shm_load(entry_state_word(segment, idx));
		struct entry_name name = { .idx = idx, .gen = state_gen(word) };

		if (state_of(word) != ENTRY_FREE &&
		    entry_fill_info(&seat->store, name, key, &info) == 0)
			ret = entry(arg, &info);
	}
	seat_leave(seat);
	return ret;
}

static void count_entries(const struct segment *segment, struct scache_stats *stats)
{
	for (uint32_t idx = 0; idx < segment->geometry.entries; idx++) {
		uint64_t word = shm_load_relaxed(entry_state_word(segment, idx));

		stats->entries_free += state_of(word) == ENTRY_FREE;
		stats->entries_filling += state_is_growing(word);
		stats->entries_finished += state_of(word) == ENTRY_SEALED;
		stats->entries_failed += state_of(word) == ENTRY_FAILED;
		stats->entries_hidden += state_of(word) != ENTRY_FREE && state_is_hidden(word);
	}
	stats->entries = stats->entries_filling + stats->entries_finished + stats->entries_failed;
}

static void count_attached(const struct segment *segment, struct scache_stats *stats)
{
	for (uint32_t i = 0; i < segment->geometry.peers; i++)
		stats->peers += PEER_STATE(shm_load_relaxed(&segment->peers[i].state)) != PEER_FREE;
	for (uint32_t block = 0; block < segment->geometry.blocks; block++) {
		if (shm_load_relaxed(&segment->block_owners[block]) == 0)
			continue;
		for (uint32_t i = 0; i < SHM_BLOCK_CURSORS; i++)
			stats->readers +=
				shm_load_relaxed(&segment->blocks[block].cursors[i].name) != 0;
	}
	stats->rings_in_use = ring_count_in_use(segment);
}

static uint64_t sum(const struct segment *segment, enum shm_stat stat)
{
	uint64_t total = 0;

	for (uint32_t i = 0; i < segment->geometry.peers; i++)
		total += shm_load_relaxed(&segment->peers[i].stats[stat]);
	return total;
}

int scache_stat(struct scache *cache, struct scache_stats *ret_stats)
{
	KEEP_ERRNO;
	UNCANCELLED;
	const struct segment *segment;
	const struct shm_geometry *g;
	struct limits_use use;
	struct scache_stats stats;
	struct seat *seat;
	int ret;

	if (ret_stats->size == 0)
		return -EINVAL;
	ret = enter(cache, &seat);
	if (ret < 0)
		return ret;
	segment = seat->store.segment;
	g = &segment->geometry;
	stats = (struct scache_stats){
		.size = ret_stats->size,
		.hits = sum(segment, STAT_HITS),
		.joins = sum(segment, STAT_JOINS),
		.misses = sum(segment, STAT_MISSES),
		.productions = sum(segment, STAT_PRODUCTIONS),
		.finishes = sum(segment, STAT_FINISHES),
		.failures = sum(segment, STAT_FAILURES),
		.deaths = sum(segment, STAT_DEATHS),
		.bypasses = sum(segment, STAT_BYPASSES),
		.bytes_produced = sum(segment, STAT_BYTES_PRODUCED),
		.bytes_from_ring = sum(segment, STAT_BYTES_RING),
		.bytes_from_file = sum(segment, STAT_BYTES_FILE),
		.reads_from_ring = sum(segment, STAT_READS_RING),
		.reads_from_file = sum(segment, STAT_READS_FILE),
		.waits = sum(segment, STAT_WAITS),
		.wakes = sum(segment, STAT_WAKES),
		.expired = sum(segment, STAT_EXPIRED),
		.removed = sum(segment, STAT_REMOVED),
		.degraded = sum(segment, STAT_DEGRADED),
		.damaged = sum(segment, STAT_DAMAGED),
		.adopted = sum(segment, STAT_ADOPTED),
		.evicted = sum(segment, STAT_EVICTED),
		.not_retained = sum(segment, STAT_NOT_RETAINED),
		.overdue = sum(segment, STAT_OVERDUE),
		.stalled = sum(segment, STAT_STALLED),
		.blocked_ns = sum(segment, STAT_BLOCKED_NS),
		.emergencies = sum(segment, STAT_EMERGENCIES),
		.bytes_punched = sum(segment, STAT_PUNCHED_BYTES),
		.max_entries = g->entries,
		.max_peers = g->peers,
		.max_readers = (uint64_t)g->blocks * SHM_BLOCK_CURSORS,
		.max_rings = g->rings,
		.ring_bytes = g->ring_bytes,
		.segment_bytes = segment->bytes,
	};
	count_entries(segment, &stats);
	count_attached(segment, &stats);
	limits_measure(&seat->store, &use);
	stats.bytes_used = use.bytes;
	stats.bytes_spare = use.spare_bytes;
	seat_leave(seat);
	memcpy(ret_stats, &stats, min_u64(ret_stats->size, sizeof(stats)));
	return 0;
}

int scache_check(struct scache *cache, void (*finding)(void *arg, const char *text), void *arg)
{
	KEEP_ERRNO;
	UNCANCELLED;
	struct seat *seat;
	int ret = enter(cache, &seat);

	if (ret < 0)
		return ret;
	ret = verify_segment(&seat->peer, finding, arg);
	seat_leave(seat);
	return ret;
}

int scache_repair(struct scache *cache, void (*finding)(void *arg, const char *text), void *arg,
		  struct scache_repair_report *ret_report)
{
	KEEP_ERRNO;
	UNCANCELLED;
	struct scache_repair_report report = { .size = 0 };
	struct seat *seat;
	int ret;

	if (ret_report != NULL && ret_report->size == 0)
		return -EINVAL;
	ret = enter(cache, &seat);
	if (ret < 0)
		return ret;
	report.reaped = repair_reap_all(&seat->peer);
	report.freed = sweep_collect(&seat->store);
	report.violations = (uint64_t)verify_segment(&seat->peer, finding, arg);
	if (report.violations > 0)
		segment_retire(seat->store.segment);
	seat_leave(seat);
	if (ret_report != NULL) {
		report.size = ret_report->size;
		memcpy(ret_report, &report, min_u64(ret_report->size, sizeof(report)));
	}
	return 0;
}

/* Of a caller built with an older header the rest is 0. */
static int copy_sweep_options(const struct scache_sweep_options *from,
			      struct scache_sweep_options *ret_to)
{
	*ret_to = (struct scache_sweep_options){ .size = sizeof(*ret_to) };
	if (from == NULL)
		return 0;
	if (from->size < offsetof(struct scache_sweep_options, progress) ||
	    from->size > sizeof(*ret_to) || from->flags & ~SCACHE_DRY_RUN)
		return -EINVAL;
	memcpy(ret_to, from, from->size);
	return 0;
}

int scache_sweep(struct scache *cache, const struct scache_sweep_options *options,
		 struct scache_sweep_report *ret_report)
{
	KEEP_ERRNO;
	UNCANCELLED;
	struct scache_sweep_report report = { .size = sizeof(report) };
	struct scache_sweep_options own;
	struct seat *seat;
	int ret;

	detail_clear();
	if (copy_sweep_options(options, &own) < 0 || (ret_report != NULL && ret_report->size == 0))
		return detail_set(-EINVAL, "impossible sweep options");
	ret = enter(cache, &seat);
	if (ret < 0)
		return ret;
	ret = clean_all(&seat->store, &own, &report);
	seat_leave(seat);
	if (ret_report != NULL) {
		report.size = ret_report->size;
		memcpy(ret_report, &report, min_u64(ret_report->size, sizeof(report)));
	}
	return ret;
}
