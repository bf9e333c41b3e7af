/* SPDX-License-Identifier: MIT */
/*
 * cache - open and close: from a directory to a seat in its segment.
 */
#include "api/cache.h"

#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/check.h"
#include "base/detail.h"
#include "base/quiet.h"
#include "base/thread.h"
#include "index/repair.h"
#include "store/table.h"

#define DEFAULT_ENTRIES 16384u
#define DEFAULT_PEERS 2048u
#define DEFAULT_READERS 262144u
#define DEFAULT_RINGS 16u
#define DEFAULT_RING_BYTES (2ull << 20)
#define DEFAULT_MAX_AGE_NS (3600ull * 1000000000ull)
#define REAP_AT_OPEN 8
#define OPEN_TRIES 10

int cache_check(const struct scache *cache)
{
	SC_ASSERT(cache->magic == MAGIC_CACHE);
	return peer_is_forked(&cache->peer) ? -ECHILD : 0;
}

/* ---------------------------------------------------------------- options */

static uint64_t asked(uint64_t option)
{
	if (option == 0)
		return SEGMENT_UNASKED;
	return option == SCACHE_ZERO ? 0 : option;
}

static bool in_range(uint64_t option, uint64_t least, uint64_t most)
{
	return option == 0 || (option >= least && option <= most);
}

static int check_options(const struct scache_options *o)
{
	const char *wrong = NULL;

	if (!in_range(o->entries, 16, 4194304))
		wrong = "entries must be 16 .. 4194304";
	else if (!in_range(o->peers, 2, SHM_PEERS_MAX))
		wrong = "peers must be 2 .. 16384";
	else if (!in_range(o->readers, 64, 4194304))
		wrong = "readers must be 64 .. 4194304";
	else if (!in_range(o->rings, 1, 4096))
		wrong = "rings must be 1 .. 4096";
	else if (!in_range(o->ring_bytes, 64 << 10, 1 << 30) || (o->ring_bytes & (o->ring_bytes - 1)))
		wrong = "ring_bytes must be a power of two, 64 KiB .. 1 GiB";
	else if (o->flags & ~(SCACHE_OPEN_EXISTING | SCACHE_PASS_THROUGH))
		wrong = "flags has a bit that this version does not know";
	else if (o->mode != 0 && o->mode != 0700 && o->mode != 0770)
		wrong = "mode must be 0700 or 0770";
	return wrong != NULL ? detail_set(-EINVAL, "%s", wrong) : 0;
}

/* A caller built with an older, shorter struct gets the defaults for the rest. */
static int copy_options(const struct scache_options *from, struct scache_options *ret_to)
{
	*ret_to = (struct scache_options){ .size = sizeof(*ret_to) };
	if (from == NULL)
		return 0;
	if (from->size < sizeof(from->size) + sizeof(from->flags) || from->size > sizeof(*ret_to))
		return detail_set(-EINVAL, "options.size is not the size of a known version");
	memcpy(ret_to, from, from->size);
	return check_options(ret_to);
}

static void wish(const struct scache_options *o, const char *dir, struct segment_wishes *ret_wishes)
{
	uint64_t ring_bytes = o->ring_bytes != 0 ? o->ring_bytes : DEFAULT_RING_BYTES;

	*ret_wishes = (struct segment_wishes){
		.asked = { .entries = asked(o->entries),
			   .peers = asked(o->peers),
			   .blocks = asked((o->readers + SHM_BLOCK_CURSORS - 1) / SHM_BLOCK_CURSORS),
			   .rings = asked(o->rings),
			   .ring_bytes = asked(o->ring_bytes),
			   .max_age_ns = asked(o->max_age_ns),
			   .window_bytes = asked(o->window_bytes) },
		.fallback = { .entries = DEFAULT_ENTRIES,
			      .peers = DEFAULT_PEERS,
			      .blocks = DEFAULT_READERS / SHM_BLOCK_CURSORS,
			      .rings = DEFAULT_RINGS,
			      .ring_bytes = DEFAULT_RING_BYTES,
			      .max_age_ns = DEFAULT_MAX_AGE_NS,
			      .window_bytes = ring_bytes / 4 * 3 },
		.mode = o->mode & 070 ? 0660 : 0600,
		.segment_dir = o->segment_dir,
		.dir = dir,
	};
}

/* ------------------------------------------------------------------- open */

/* Under the gate: the segment, and a seat in it. */
static int join(struct scache *cache, struct cache_fds *fds, const struct segment_wishes *wishes)
{
	struct segment *segment;
	int ret = segment_join(fds->ctl_fd, fds->lock_fd, wishes, &segment);
	uint32_t seats;

	if (ret < 0)
		return ret;
	seats = segment->geometry.peers;
	ret = peer_attach(&cache->peer, segment, fds->lock_fd);
	if (ret == -EUSERS) {
		/* Every seat is taken: perhaps by the dead. Sit down on one of those. */
		struct peer visitor = { .segment = segment,
					.slot = UINT32_MAX,
					.lock_fd = fds->lock_fd,
					.shared = &segment->peers[0] };

		pthread_mutex_init(&visitor.reap_mutex, NULL);
		if (repair_reap_all(&visitor) > 0)
			ret = peer_attach(&cache->peer, segment, fds->lock_fd);
		pthread_mutex_destroy(&visitor.reap_mutex);
	}
	if (ret < 0) {
		segment_leave(segment);
		return ret != -EUSERS ? ret
				      : detail_set(ret,
						   "all %u peer slots of the cache are in use by live "
						   "processes; create it with more peers",
						   seats);
	}
	fds->lock_fd = -1; /* the peer's now */
	return 0;
}

static int set_up_store(struct scache *cache, struct cache_fds *fds)
{
	struct store *store = &cache->store;

	store->peer = &cache->peer;
	store->segment = cache->peer.segment;
	store->cursors = &cache->cursors;
	store->dir_mode = cache->mode & 070 ? 02770 : 0700;
	store->file_mode = cache->mode & 070 ? 0660 : 0600;
	store->dir_fd = fds->dir_fd;
	store->blobs_fd = fds->blobs_fd;
	uuid_text(store->segment->uuid, store->uuid);
	cursor_space_init(&cache->cursors);
	return table_init(store);
}

static int open_cache(struct scache *cache, const char *dir, const struct scache_options *options)
{
	bool create = !(options->flags & SCACHE_OPEN_EXISTING);
	struct segment_wishes wishes;
	char *absolute;
	struct cache_fds fds;
	int ret;

	cache->mode = options->mode != 0 ? options->mode : 0700;
	cache->flags = options->flags;
	cache->trace = options->trace;
	cache->trace_arg = options->trace_arg;
	ret = cache_open_directories(dir, cache->mode, create, &fds);
	if (ret < 0)
		return ret;
	absolute = realpath(dir, NULL);
	wish(options, absolute != NULL ? absolute : dir, &wishes);
	wishes.group = fds.group;
	ret = lockfile_enter_gate(fds.lock_fd, GATE_TIMEOUT_NS);
	if (ret == 0) {
		int gate_fd = fds.lock_fd;

		ret = join(cache, &fds, &wishes);
		lockfile_leave_gate(gate_fd);
	}
	free(absolute);
	if (ret == 0) {
		ret = set_up_store(cache, &fds);
		if (ret < 0) {
			struct segment *segment = cache->peer.segment;

			peer_detach(&cache->peer);
			segment_leave(segment);
		}
	}
	if (ret < 0) {
		cache_close_fds(&fds);
		return ret;
	}
	close(fds.ctl_fd);
	return 0;
}

int scache_open(const char *dir, const struct scache_options *options, struct scache **ret_cache)
{
	KEEP_ERRNO;
	UNCANCELLED;
	struct scache_options own;
	struct scache *cache;
	struct quiet quiet;
	int ret;

	detail_clear();
	if (ret_cache == NULL)
		return detail_set(-EINVAL, "there is no place for the handle");
	if (dir == NULL || dir[0] == '\0')
		return detail_set(-EINVAL, "the cache needs a directory");
	ret = copy_options(options, &own);
	if (ret < 0)
		return ret;
	cache = calloc(1, sizeof(*cache));
	if (cache == NULL)
		return -ENOMEM;
	cache->magic = MAGIC_CACHE;
	quiet_begin(&quiet);
	/* Again if the cache is being destroyed under our hands. */
	for (int i = 0; i < OPEN_TRIES; i++) {
		ret = open_cache(cache, dir, &own);
		if (ret != -ESTALE && (ret != -ENOENT || own.flags & SCACHE_OPEN_EXISTING))
			break;
	}
	/* Fewer rings than wanted is no error, but was a signal all the same. */
	quiet_end(&quiet, SIGXFSZ);
	if (ret < 0) {
		free(cache);
		return ret;
	}
	fetch_init(cache);
	/* Every newcomer looks after a few seats, so the dead do not pile up. */
	repair_reap_some(&cache->peer, REAP_AT_OPEN);
	*ret_cache = cache;
	return 0;
}

/* ------------------------------------------------------------------ close */

int scache_close_within(struct scache *cache, int64_t timeout_ns)
{
	KEEP_ERRNO;
	UNCANCELLED;
	struct segment *segment;
	bool forked;
	int ret;

	if (cache == NULL)
		return 0;
	SC_ASSERT(cache->magic == MAGIC_CACHE);
	forked = peer_is_forked(&cache->peer);
	if (!forked && fetch_is_inside(cache))
		return -EDEADLK;
	/* A job may wait for the very reader that its caller has forgotten. */
	if (atomic_load(&cache->open_streams) > 0)
		return -EBUSY;
	if (!forked) {
		ret = fetch_await_jobs(cache, timeout_ns);
		if (ret < 0)
			return ret;
		/* A callback may have opened one meanwhile, and kept it. */
		if (atomic_load(&cache->open_streams) + atomic_load(&cache->job_streams) > 0)
			return -EBUSY;
		fetch_leave(cache);
	}
	segment = cache->peer.segment;
	cache->magic = MAGIC_DEAD;
	if (forked) {
		/* Seat and cursors are the parent's affair. */
		table_forget(&cache->store);
		cursor_space_forget(&cache->cursors);
		peer_forget(&cache->peer);
	} else {
		table_destroy(&cache->store);
		cursor_space_leave(&cache->cursors, &cache->peer);
		peer_detach(&cache->peer);
	}
	segment_leave(segment);
	close(cache->store.dir_fd);
	close(cache->store.blobs_fd);
	free(cache);
	return 0;
}

int scache_close(struct scache *cache)
{
	return scache_close_within(cache, SCACHE_FOREVER);
}

static uint64_t shown(uint64_t value)
{
	return value == 0 ? SCACHE_ZERO : value;
}

int scache_get_options(struct scache *cache, struct scache_options *ret_options)
{
	KEEP_ERRNO;
	const struct segment *segment = cache->peer.segment;
	struct scache_options now = { .mode = cache->mode };
	int ret = cache_check(cache);

	if (ret < 0 || ret_options->size == 0)
		return ret < 0 ? ret : -EINVAL;
	now.size = ret_options->size;
	now.flags = cache->flags;
	now.trace = cache->trace;
	now.trace_arg = cache->trace_arg;
	now.entries = segment->geometry.entries;
	now.peers = segment->geometry.peers;
	now.readers = segment->geometry.blocks * SHM_BLOCK_CURSORS;
	now.rings = segment->geometry.rings;
	now.ring_bytes = segment->geometry.ring_bytes;
	now.window_bytes = shown(segment->window_bytes);
	now.max_age_ns = shown(segment->max_age_ns);
	now.segment_dir = segment->dir;
	memcpy(ret_options, &now, min_u64(ret_options->size, sizeof(now)));
	return 0;
}
