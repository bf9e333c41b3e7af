/* SPDX-License-Identifier: MIT */
#include "store/limits.h"

#include <errno.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <time.h>

#include "base/clock.h"
#include "base/step.h"
#include "base/thread.h"
#include "store/evict.h"
#include "store/former.h"
#include "store/sweep.h"

#define ROOM_TRIES 16
#define ROOM_PAUSE_NS NS_PER_MS /* for whoever stands in the index just now */
#define FORMER_FANS 8 /* directories that one look for room counts */
#define FORMER_SPARE_BYTES (1u << 20) /* allowed at a time as long as not all are */
#define DISK_SHARE 4 /* of what others may take as well, one part without asking again */

/* ------------------------------------------------------------- what is used */

/* As a part of what the low mark leaves of @limit. */
static uint64_t low_mark(const struct segment *segment, uint64_t limit)
{
	uint64_t percent = min_u64(segment_setting(segment, SETTING_LOW_PERCENT), 100);

	return limit / 100 * percent + limit % 100 * percent / 100;
}

/* What the producers at work have charged and not written yet: the disk does not know of it. */
static uint64_t unwritten(const struct segment *segment, uint32_t idx, uint64_t charge)
{
	uint64_t word = shm_load_relaxed(entry_state_word(segment, idx));

	if (!state_is_growing(word))
		return 0;
	return charge - min_u64(charge, shm_load_relaxed(&entry_at(segment, idx)->flushed));
}

/* How much more the file system lets us have; UINT64_MAX if we are not to ask. */
static uint64_t disk_spare(const struct store *store, uint64_t unwritten_bytes, uint64_t *ret_short)
{
	const struct segment *segment = store->segment;
	uint64_t percent = min_u64(segment_setting(segment, SETTING_MIN_FREE_PERCENT), 100);
	uint64_t keep = segment_setting(segment, SETTING_MIN_FREE_BYTES), have, total;
	struct statvfs fs;

	*ret_short = 0;
	if ((keep == 0 && percent == 0) || fstatvfs(store->blobs_fd, &fs) < 0 || fs.f_blocks == 0)
		return UINT64_MAX;
	total = (uint64_t)fs.f_blocks * fs.f_frsize;
	keep = max_u64(keep, total / 100 * percent);
	have = (uint64_t)fs.f_bavail * fs.f_frsize;
	have -= min_u64(have, unwritten_bytes);
	if (have > keep)
		return have - keep;
	/* Not only up to the mark, or the next one would be here at once. */
	*ret_short = keep - have + (keep - low_mark(segment, keep));
	return 0;
}

/* A walk over the dense arrays. */
static void measure(const struct store *store, struct limits_use *use, uint64_t *ret_unwritten)
{
	const struct segment *segment = store->segment;
	uint32_t count = segment->geometry.entries, idx;

	*use = (struct limits_use){ .spare_bytes = UINT64_MAX };
	*ret_unwritten = 0;
	for (idx = 0; idx < count; idx++) {
		uint64_t charge = shm_load_relaxed(&segment->charges[idx]);

		use->entries += state_of(shm_load_relaxed(entry_state_word(segment, idx))) != ENTRY_FREE;
		if (charge == 0)
			continue;
		use->bytes += charge;
		*ret_unwritten += unwritten(segment, idx, charge);
	}
	use->bytes += former_bytes(store);
}

void limits_measure(const struct store *store, struct limits_use *ret_use)
{
	uint64_t unwritten_bytes, missing, most = segment_setting(store->segment, SETTING_MAX_BYTES);

	measure(store, ret_use, &unwritten_bytes);
	ret_use->spare_bytes = disk_spare(store, unwritten_bytes, &missing);
	if (most != UINT64_MAX)
		ret_use->spare_bytes = min_u64(ret_use->spare_bytes,
					       most - min_u64(most, ret_use->bytes));
}

/* ---------------------------------------------------------------- making room */

/* How many bytes have to go; 0: none, and *ret_spare may be charged without asking. */
static uint64_t bytes_over(struct store *store, uint64_t *ret_spare)
{
	uint64_t most = segment_setting(store->segment, SETTING_MAX_BYTES), unwritten_bytes, over;
	struct limits_use use;

	measure(store, &use, &unwritten_bytes);
	*ret_spare = disk_spare(store, unwritten_bytes, &over);
	if (*ret_spare != UINT64_MAX)
		*ret_spare /= DISK_SHARE;
	if (use.bytes > most)
		return max_u64(over, use.bytes - low_mark(store->segment, most));
	if (most != UINT64_MAX)
		*ret_spare = min_u64(*ret_spare, most - use.bytes);
	return over;
}

static void set_budget(struct shm_budget *budget, uint64_t ever, uint64_t spare)
{
	shm_store_relaxed(&budget->until, spare > UINT64_MAX - ever ? UINT64_MAX : ever + spare);
}

/* What has gone may be held back for a moment by whoever stands in the index. */
static void pause_for_others(struct store *store)
{
	UNCANCELLED;
	const struct timespec pause = { .tv_nsec = ROOM_PAUSE_NS };

	if (sweep_collect(store) == 0)
		nanosleep(&pause, NULL);
}

/* Until all that is charged is within the limits. 0 or -ENOSPC. */
static int make_room(struct store *store)
{
	struct shm_budget *budget = &store->segment->header->bytes;
	/* Without a limit of the cache's own it does not matter what they take. */
	bool is_counted = segment_setting(store->segment, SETTING_MAX_BYTES) == UINT64_MAX ||
			  former_count(store, FORMER_FANS);
	uint64_t ever, spare, over;

	for (int i = 0; i < ROOM_TRIES; i++) {
		/* ORDER budget, seq_cst: ever before the charges. Pairs with limits_reserve(). */
		ever = shm_load(&budget->ever);
		over = bytes_over(store, &spare);
		if (over == 0) {
			set_budget(budget, ever,
				   is_counted ? spare : min_u64(spare, FORMER_SPARE_BYTES));
			return 0;
		}
		if (!evict_bytes(store, over) && !former_adopt_some(store))
			return -ENOSPC;
		if (i > 0)
			pause_for_others(store);
	}
	return -ENOSPC;
}

int limits_reserve(struct store *store, struct entry_name name, uint64_t bytes)
{
	struct shm_budget *budget = &store->segment->header->bytes;
	shm_u64 *charge = &store->segment->charges[name.idx];
	uint64_t before = shm_load_relaxed(charge), ever;
	int ret;

	if (bytes <= before)
		return 0;
	/* That others go would be of no use to it. */
	if (bytes > segment_setting(store->segment, SETTING_MAX_BYTES))
		return -ENOSPC;
	/* ORDER budget, seq_cst: the charge before ever. Pairs with make_room(). */
	shm_store(charge, bytes);
	/* STEP bytes-charged: not counted yet. Die here: gone from the sum when it is swept. */
	STEP("bytes-charged");
	ever = shm_add(&budget->ever, bytes - before) + (bytes - before);
	if (likely(ever <= shm_load_relaxed(&budget->until)))
		return 0;
	ret = make_room(store);
	if (ret < 0)
		shm_store(charge, before);
	return ret;
}

void limits_make_way(struct store *store, uint64_t bytes)
{
	if (!evict_bytes(store, bytes) && !(former_adopt_some(store) && evict_bytes(store, bytes)))
		return;
	/* What has gone takes no room, unless somebody stands in the index just now. */
	pause_for_others(store);
}

void limits_charge(struct store *store, struct entry_name name, uint64_t bytes)
{
	shm_u64 *charge = &store->segment->charges[name.idx];
	uint64_t before = shm_load_relaxed(charge);

	shm_store(charge, bytes);
	if (bytes > before)
		shm_add(&store->segment->header->bytes.ever, bytes - before);
}

void limits_settle(struct store *store, struct entry_name name, int fd)
{
	struct stat st;

	if (fstat(fd, &st) == 0)
		limits_charge(store, name, (uint64_t)st.st_blocks * 512);
}

void limits_clear(struct store *store, struct entry_name name)
{
	shm_store(&store->segment->charges[name.idx], 0);
	/* STEP charge-cleared: its file is gone. Die here: swept once more. */
	STEP("charge-cleared");
}

int limits_allow_entry(struct store *store)
{
	struct segment *segment = store->segment;
	struct shm_budget *budget = &segment->header->slots;
	uint64_t most = segment_setting(segment, SETTING_MAX_ENTRIES), ever, unwritten_bytes, low;
	struct limits_use use;

	if (most >= segment->geometry.entries)
		return 0;
	ever = shm_add(&budget->ever, 1) + 1;
	if (ever <= shm_load_relaxed(&budget->until))
		return 0;
	for (int i = 0; i < ROOM_TRIES; i++) {
		ever = shm_load(&budget->ever);
		measure(store, &use, &unwritten_bytes);
		if (use.entries < most) {
			set_budget(budget, ever, most - use.entries - 1);
			return 0;
		}
		low = min_u64(low_mark(segment, most), most - 1);
		if (evict_entries(store, use.entries - low) == 0)
			return -ENOSPC;
		if (i > 0)
			pause_for_others(store);
	}
	return -ENOSPC;
}

void limits_forget(struct store *store)
{
	shm_store(&store->segment->header->bytes.until, 0);
	shm_store(&store->segment->header->slots.until, 0);
}

void limits_keep(struct store *store)
{
	uint64_t most = segment_setting(store->segment, SETTING_MAX_ENTRIES), unwritten_bytes;
	struct limits_use use;

	(void)!make_room(store);
	measure(store, &use, &unwritten_bytes);
	if (use.entries > most)
		evict_entries(store, use.entries - low_mark(store->segment, most));
}
