/* SPDX-License-Identifier: MIT */
/*
 * room - a cache that may take little of its disk, changed while it is in use; and
 * when everybody is dead, whether it knows what it takes.
 */
#include "storm.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/vfs.h>

#include "api/cache.h"
#include "store/blob.h"

#define TMPFS_MAGIC 0x01021994
#define ENOUGH_BYTES (1u << 20) /* for one blob, of a producer that is alone */

static uint64_t some_max_bytes(void)
{
	return one_in(4) ? SCACHE_UNLIMITED : (64u << 10) + below(one_in(2) ? 400000 : 4000000);
}

void tighten(void)
{
	static const uint64_t idle[] = { 0, 1000 * MS, SCACHE_UNLIMITED };

	is_tight = one_in(2);
	if (!is_tight)
		return;
	geometry.max_bytes = some_max_bytes();
	geometry.max_entries = one_in(2) ? 2 + below(16) : 0;
	geometry.low_percent = one_in(2) ? 1 + below(100) : 0;
	geometry.max_idle_ns = idle[below(3)];
}

bool is_shortage(int error)
{
	return error == -EFBIG || error == -EIO || error == -ENOSPC;
}

static void configure(uint64_t max_bytes, uint64_t max_entries)
{
	const struct scache_options changes = { .size = sizeof(changes),
						.max_bytes = max_bytes,
						.max_entries = max_entries,
						.low_percent = 1 + below(100) };
	int ret = CALL("configure", 0, scache_configure(cache, &changes));

	if (ret != 0)
		finding("%d (%s): %s", ret, scache_strerror(ret), scache_detail());
}

void reconfigure(void)
{
	if (is_tight)
		configure(some_max_bytes(), one_in(2) ? 2 + below(16) : SCACHE_UNLIMITED);
}

/* Its file, of a finished entry: what it has on the disk. */
static uint64_t disk_bytes(const struct store *store, struct entry_name name)
{
	char path[BLOB_PATH_BYTES], whole[sizeof(dir) + BLOB_PATH_BYTES + 8];
	struct stat st;

	blob_path(store, name, entry_hash(entry_at(store->segment, name.idx)), path);
	snprintf(whole, sizeof(whole), "%s/blobs/%s", dir, path);
	if (stat(whole, &st) < 0)
		finding("%s: %s", whole, strerror(errno));
	return (uint64_t)st.st_blocks * 512;
}

void check_charges(void)
{
	const struct store *store = &atomic_load(&cache->seat)->store;
	const struct segment *segment = store->segment;
	struct scache_options now = { .size = sizeof(now) };
	uint64_t sum = 0, on_disk = 0, slack;
	struct scache_stats s = stat_cache();
	struct statfs fs;

	/* A tree of extents comes to a file when its bytes go to the disk. */
	slack = statfs(dir, &fs) == 0 && fs.f_type == TMPFS_MAGIC ? 0 : 4096;
	for (uint32_t idx = 0; idx < segment->geometry.entries; idx++) {
		uint64_t word = shm_load(entry_state_word(segment, idx));
		uint64_t charge = shm_load(&segment->charges[idx]), bytes = 0;

		if (state_of(word) == ENTRY_SEALED)
			bytes = disk_bytes(store, (struct entry_name){ idx, state_gen(word) });
		if (charge > bytes + slack || bytes > charge + slack)
			finding("entry %u, state %u: charged %llu, has %llu", idx, state_of(word),
				(unsigned long long)charge, (unsigned long long)bytes);
		sum += charge;
		on_disk += bytes;
	}
	if (scache_get_options(cache, &now) != 0)
		finding("no options");
	if (s.bytes_used != sum || (now.max_bytes != SCACHE_UNLIMITED && sum > now.max_bytes) ||
	    s.entries_finished > now.max_entries)
		finding("%llu bytes used, charged %llu, on disk %llu, limit %llu; entries %u of %llu",
			(unsigned long long)s.bytes_used, (unsigned long long)sum,
			(unsigned long long)on_disk, (unsigned long long)now.max_bytes,
			(unsigned)s.entries_finished, (unsigned long long)now.max_entries);
	atomic_fetch_add(&shared->evicted, s.evicted - evicted_before);
	evicted_before = s.evicted;
	/* For what follows: one by one they fit. */
	if (now.max_bytes != SCACHE_UNLIMITED && now.max_bytes < ENOUGH_BYTES)
		configure(ENOUGH_BYTES, SCACHE_UNLIMITED);
}
