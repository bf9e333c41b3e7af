/* SPDX-License-Identifier: MIT */
/*
 * cache - open and close, and what was asked for; seat.c does the sitting down.
 */
#include "api/cache.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/check.h"
#include "base/detail.h"
#include "base/thread.h"

#define DEFAULT_ENTRIES 16384u
#define DEFAULT_PEERS 2048u
#define DEFAULT_READERS 262144u
#define DEFAULT_RINGS 16u
#define DEFAULT_RING_BYTES (2ull << 20)

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
	return wrong != NULL ? detail_set(-EINVAL, "%s", wrong) : settings_check(o);
}

/* A caller built with an older, shorter struct gets the defaults for the rest. */
int options_copy(const struct scache_options *from, struct scache_options *ret_to)
{
	*ret_to = (struct scache_options){ .size = sizeof(*ret_to) };
	if (from == NULL)
		return 0;
	if (from->size < sizeof(from->size) + sizeof(from->flags) || from->size > sizeof(*ret_to))
		return detail_set(-EINVAL, "options.size is not the size of a known version");
	memcpy(ret_to, from, from->size);
	return 0;
}

static void wish(const struct scache_options *o, struct segment_wishes *ret_wishes)
{
	uint64_t ring_bytes = o->ring_bytes != 0 ? o->ring_bytes : DEFAULT_RING_BYTES;

	*ret_wishes = (struct segment_wishes){
		.asked = { .entries = asked(o->entries),
			   .peers = asked(o->peers),
			   .blocks = asked((o->readers + SHM_BLOCK_CURSORS - 1) / SHM_BLOCK_CURSORS),
			   .rings = asked(o->rings),
			   .ring_bytes = asked(o->ring_bytes) },
		.fallback = { .entries = DEFAULT_ENTRIES,
			      .peers = DEFAULT_PEERS,
			      .blocks = DEFAULT_READERS / SHM_BLOCK_CURSORS,
			      .rings = DEFAULT_RINGS,
			      .ring_bytes = DEFAULT_RING_BYTES },
		.mode = o->mode & 070 ? 0660 : 0600,
	};
	settings_asked(o, ret_wishes->asked.settings);
	settings_default(ring_bytes, ret_wishes->fallback.settings);
	/* These an opener says for itself alone. */
	for (unsigned i = SETTING_DURABILITY; i < SETTING_COUNT; i++)
		ret_wishes->asked.settings[i] = SEGMENT_UNASKED;
}

/* ------------------------------------------------------------------- open */

/* What a new seat will need as much as the first: copies of the caller's strings. */
static int note_wishes(struct scache *cache, const char *dir, const struct scache_options *options)
{
	cache->mode = options->mode != 0 ? options->mode : 0700;
	cache->flags = options->flags;
	settings_asked(options, cache->chosen);
	cache->trace = options->trace;
	cache->trace_arg = options->trace_arg;
	cache->may_create = !(options->flags & SCACHE_OPEN_EXISTING);
	wish(options, &cache->wishes);
	cache->dir = strdup(dir);
	if (options->segment_dir != NULL)
		cache->segment_dir = strdup(options->segment_dir);
	if (cache->dir == NULL || (options->segment_dir != NULL && cache->segment_dir == NULL))
		return -ENOMEM;
	return 0;
}

/* For another seat, whatever the working directory will be by then. */
static void make_absolute(char **path)
{
	char *absolute = *path == NULL ? NULL : realpath(*path, NULL);

	if (absolute == NULL)
		return;
	free(*path);
	*path = absolute;
}

static void free_cache(struct scache *cache)
{
	cache->magic = MAGIC_DEAD;
	free(cache->dir);
	free(cache->segment_dir);
	free(cache);
}

int scache_open(const char *dir, const struct scache_options *options, struct scache **ret_cache)
{
	KEEP_ERRNO;
	UNCANCELLED;
	struct scache_options own;
	struct scache *cache;
	struct seat *seat;
	int ret;

	detail_clear();
	if (ret_cache == NULL)
		return detail_set(-EINVAL, "there is no place for the handle");
	if (dir == NULL || dir[0] == '\0')
		return detail_set(-EINVAL, "the cache needs a directory");
	ret = options_copy(options, &own);
	if (ret == 0)
		ret = check_options(&own);
	if (ret < 0)
		return ret;
	cache = calloc(1, sizeof(*cache));
	if (cache == NULL)
		return -ENOMEM;
	cache->magic = MAGIC_CACHE;
	ret = note_wishes(cache, dir, &own);
	if (ret == 0)
		ret = seat_take(cache, &seat);
	if (ret < 0) {
		free_cache(cache);
		return ret;
	}
	make_absolute(&cache->dir);
	make_absolute(&cache->segment_dir);
	atomic_init(&cache->seat, seat);
	jobs_init(cache);
	*ret_cache = cache;
	return 0;
}

/* -------------------------------------------------------------------- fork */

bool cache_is_inherited(const struct scache *cache)
{
	return peer_is_forked(&atomic_load(&cache->seat)->peer);
}

void cache_forget_parent(struct scache *cache)
{
	struct seat *seat = atomic_load(&cache->seat);

	/* Both, for a process id is the same in many namespaces. */
	if (cache->forgotten == seat && cache->pid == getpid())
		return;
	cache->forgotten = seat;
	cache->pid = getpid();
	atomic_store(&cache->open_streams, 0);
	atomic_store(&cache->job_streams, 0);
	jobs_forget(cache);
}

/* ------------------------------------------------------------------ close */

int scache_close_within(struct scache *cache, int64_t timeout_ns)
{
	KEEP_ERRNO;
	UNCANCELLED;
	int ret;

	if (cache == NULL)
		return 0;
	SC_ASSERT(cache->magic == MAGIC_CACHE);
	if (cache_is_inherited(cache))
		cache_forget_parent(cache);
	if (job_is_inside(cache))
		return -EDEADLK;
	/* A job may wait for the very reader that its caller has forgotten. */
	if (atomic_load(&cache->open_streams) > 0)
		return -EBUSY;
	ret = jobs_await(cache, timeout_ns);
	if (ret < 0)
		return ret;
	/* A callback may have opened one meanwhile, and kept it. */
	if (atomic_load(&cache->open_streams) + atomic_load(&cache->job_streams) > 0)
		return -EBUSY;
	jobs_leave(cache);
	seat_bury(cache);
	free_cache(cache);
	return 0;
}

int scache_close(struct scache *cache)
{
	return scache_close_within(cache, SCACHE_FOREVER);
}

int scache_get_options(struct scache *cache, struct scache_options *ret_options)
{
	KEEP_ERRNO;
	UNCANCELLED;
	struct scache_options now = { .mode = cache->mode };
	const struct segment *segment;
	struct seat *seat;
	int ret;

	SC_ASSERT(cache->magic == MAGIC_CACHE);
	if (ret_options->size == 0)
		return -EINVAL;
	ret = seat_enter(cache, &seat);
	if (ret < 0)
		return ret;
	segment = seat->store.segment;
	now.size = ret_options->size;
	now.flags = cache->flags;
	now.trace = cache->trace;
	now.trace_arg = cache->trace_arg;
	now.entries = segment->geometry.entries;
	now.peers = segment->geometry.peers;
	now.readers = segment->geometry.blocks * SHM_BLOCK_CURSORS;
	now.rings = segment->geometry.rings;
	now.ring_bytes = segment->geometry.ring_bytes;
	settings_show(cache, segment, &now);
	now.segment_dir = seat->segment_dir;
	memcpy(ret_options, &now, min_u64(ret_options->size, sizeof(now)));
	seat_leave(seat);
	return 0;
}
