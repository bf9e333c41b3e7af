/* SPDX-License-Identifier: MIT */
/*
 * configure - the settings of a cache: what each is called, may be, and is if nobody has
 * said; and changing them while the cache is in use.
 *
 * They stand in the lock file, for those who come, and in the segment, for those who
 * are there. The file is written first: whoever dies in between has changed it, and
 * the next joiner brings the segment up to date.
 */
#include <errno.h>
#include <stddef.h>
#include <sys/statvfs.h>

#include "api/cache.h"
#include "base/check.h"
#include "base/clock.h"
#include "base/detail.h"
#include "base/thread.h"
#include "store/frame.h"
#include "store/limits.h"
#include "store/sweep.h"

#define DEFAULT_MAX_AGE_NS (3600ull * NS_PER_SEC)
#define DEFAULT_SHARE 10 /* of the file system, in percent */
#define DEFAULT_MIN_FREE_PERCENT 5
#define DEFAULT_LOW_PERCENT 95
#define BYTES_MOST (1ull << 62)
#define NS_MOST (1ull << 62)

/* A setting, and the option that says it. Beside least .. most: */
#define OR_ZERO 1u	/* SCACHE_ZERO */
#define OR_UNLIMITED 2u /* SCACHE_UNLIMITED */

struct rule {
	size_t offset; /* in struct scache_options */
	bool is_short; /* of 32 bits, else of 64 */
	unsigned beside;
	uint64_t least, most, fallback;
	const char *wrong; /* what it must be */
};

#define LONG(member) .offset = offsetof(struct scache_options, member), .is_short = false
#define SHORT(member) .offset = offsetof(struct scache_options, member), .is_short = true

static const struct rule rules[SETTING_COUNT] = {
	[SETTING_WINDOW_BYTES] = { LONG(window_bytes), OR_ZERO | OR_UNLIMITED, 1, BYTES_MOST, 0,
				   "window_bytes must be 1 .. 2^62, zero or unlimited" },
	[SETTING_MAX_AGE_NS] = { LONG(max_age_ns), OR_ZERO | OR_UNLIMITED, 1, NS_MOST,
				 DEFAULT_MAX_AGE_NS,
				 "max_age_ns must be 1 .. 2^62, zero or unlimited" },
	[SETTING_MAX_IDLE_NS] = { LONG(max_idle_ns), OR_UNLIMITED, NS_PER_SEC, NS_MOST, UINT64_MAX,
				  "max_idle_ns must be a second or more, or unlimited" },
	[SETTING_MAX_FILL_NS] = { LONG(max_fill_ns), OR_UNLIMITED, NS_PER_MS, NS_MOST, UINT64_MAX,
				  "max_fill_ns must be a millisecond or more, or unlimited" },
	[SETTING_MAX_BYTES] = { LONG(max_bytes), OR_UNLIMITED, 64 << 10, BYTES_MOST, 0,
				"max_bytes must be 64 KiB or more, or unlimited" },
	[SETTING_MAX_ENTRIES] = { LONG(max_entries), OR_UNLIMITED, 1, 4194304, UINT64_MAX,
				  "max_entries must be 1 .. 4194304, or unlimited" },
	[SETTING_MIN_FREE_BYTES] = { LONG(min_free_bytes), OR_ZERO, 1, BYTES_MOST, 0,
				     "min_free_bytes must be 1 .. 2^62, or zero" },
	[SETTING_MIN_FREE_PERCENT] = { LONG(min_free_percent), OR_ZERO, 1, 99,
				       DEFAULT_MIN_FREE_PERCENT,
				       "min_free_percent must be 1 .. 99, or zero" },
	[SETTING_LOW_PERCENT] = { LONG(low_percent), 0, 1, 100, DEFAULT_LOW_PERCENT,
				  "low_percent must be 1 .. 100" },
	[SETTING_MIN_OCCURRENCES] = { LONG(min_occurrences), 0, 1, 255, 1,
				      "min_occurrences must be 1 .. 255" },
	[SETTING_DURABILITY] = { SHORT(durability), 0, SCACHE_DURABILITY_NONE,
				 SCACHE_DURABILITY_FULL, SCACHE_DURABILITY_NONE,
				 "durability must be one of enum scache_durability" },
	[SETTING_VERIFY] = { SHORT(verify), 0, SCACHE_VERIFY_RESTART, SCACHE_VERIFY_ALWAYS,
			     SCACHE_VERIFY_RESTART, "verify must be one of enum scache_verify" },
	[SETTING_COMPRESSION] = { SHORT(compression), 0, SCACHE_RAW, SCACHE_AUTO, SCACHE_RAW,
				  "compression must be one of enum scache_compression" },
	[SETTING_LEVEL] = { SHORT(level), 0, 1, FRAME_LEVEL_MAX, FRAME_LEVEL_DEFAULT,
			    "level must be 1 .. 12" },
};

/* As the caller wrote it: 0 = nothing. */
static uint64_t value_of(const struct scache_options *options, const struct rule *rule)
{
	const char *at = (const char *)options + rule->offset;
	uint32_t value;
	uint64_t wide;

	if (!rule->is_short) {
		memcpy(&wide, at, sizeof(wide));
		return wide;
	}
	memcpy(&value, at, sizeof(value));
	return value;
}

static bool is_allowed(const struct rule *rule, uint64_t value)
{
	if (value == 0 || (value >= rule->least && value <= rule->most))
		return true;
	return (value == SCACHE_ZERO && rule->beside & OR_ZERO) ||
	       (value == SCACHE_UNLIMITED && rule->beside & OR_UNLIMITED);
}

int settings_check(const struct scache_options *options)
{
	for (unsigned i = 0; i < SETTING_COUNT; i++)
		if (!is_allowed(&rules[i], value_of(options, &rules[i])))
			return detail_set(-EINVAL, "%s", rules[i].wrong);
	return 0;
}

void settings_asked(const struct scache_options *options, uint64_t ret_settings[SETTING_COUNT])
{
	for (unsigned i = 0; i < SETTING_COUNT; i++) {
		uint64_t value = value_of(options, &rules[i]);

		ret_settings[i] = value == 0	       ? SEGMENT_UNASKED
				  : value == SCACHE_ZERO ? 0
							 : value;
	}
}

void settings_default(uint64_t ring_bytes, uint64_t ret_settings[SETTING_COUNT])
{
	for (unsigned i = 0; i < SETTING_COUNT; i++)
		ret_settings[i] = rules[i].fallback;
	ret_settings[SETTING_WINDOW_BYTES] = ring_bytes / 4 * 3;
	ret_settings[SETTING_MAX_BYTES] = UINT64_MAX;
}

void settings_default_of(int dir_fd, uint64_t settings[SETTING_COUNT])
{
	struct statvfs fs;

	if (fstatvfs(dir_fd, &fs) == 0 && fs.f_blocks > 0)
		settings[SETTING_MAX_BYTES] =
			max_u64((uint64_t)fs.f_blocks * fs.f_frsize / 100 * DEFAULT_SHARE,
				rules[SETTING_MAX_BYTES].least);
}

void settings_show(const struct scache *cache, const struct segment *segment,
		   struct scache_options *options)
{
	for (unsigned i = 0; i < SETTING_COUNT; i++) {
		uint64_t value = setting_chosen(segment, (enum shm_setting)i, cache->chosen);
		char *at = (char *)options + rules[i].offset;
		uint32_t low = (uint32_t)value;

		if (value == 0)
			value = SCACHE_ZERO;
		if (rules[i].is_short)
			memcpy(at, &low, sizeof(low));
		else
			memcpy(at, &value, sizeof(value));
	}
}

/* Anything else of the options is said once, by whoever creates the cache. */
static int check_changes(const struct scache_options *o)
{
	if (o->flags != 0 || o->mode != 0 || o->entries != 0 || o->peers != 0 || o->readers != 0 ||
	    o->rings != 0 || o->ring_bytes != 0 || o->segment_dir != NULL || o->trace != NULL ||
	    o->trace_arg != NULL)
		return detail_set(-EINVAL, "flags, mode, entries, peers, readers, rings, ring_bytes, "
					   "segment_dir and trace cannot be changed; destroy the "
					   "cache and create it anew");
	return settings_check(o);
}

/* Under the gate: the record, the segment, and what is there already. */
static int change(struct seat *seat, const uint64_t settings[SETTING_COUNT])
{
	struct store *store = &seat->store;
	uint64_t old_age_ns = segment_setting(store->segment, SETTING_MAX_AGE_NS);
	int ret = segment_configure(store->segment, seat->peer.lock_fd, settings);

	/* In the order of the changes, or an entry could keep an age that is none any more. */
	if (ret == 0 && settings[SETTING_MAX_AGE_NS] != SEGMENT_UNASKED)
		sweep_change_age(store, old_age_ns, settings[SETTING_MAX_AGE_NS]);
	return ret;
}

/* -ESTALE: this seat's segment, or all of the cache, has been replaced meanwhile. */
static int change_in_turn(struct seat *seat, const uint64_t settings[SETTING_COUNT])
{
	static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
	int ret;

	/* To the kernel all threads with one handle are one: the gate does not part them. */
	pthread_mutex_lock(&mutex);
	ret = lockfile_enter_gate(seat->peer.lock_fd, GATE_TIMEOUT_NS);
	if (ret == 0) {
		ret = change(seat, settings);
		lockfile_leave_gate(seat->peer.lock_fd);
	}
	pthread_mutex_unlock(&mutex);
	if (ret < 0)
		return ret;
	/* What is too much or too old now goes now. */
	sweep_note_expiry(&seat->store, 0);
	sweep_slice(&seat->store);
	limits_keep(&seat->store, NULL);
	return 0;
}

int scache_configure(struct scache *cache, const struct scache_options *changes)
{
	KEEP_ERRNO;
	UNCANCELLED;
	uint64_t settings[SETTING_COUNT];
	struct scache_options own;
	struct seat *seat;
	int ret, tries = 0;

	SC_ASSERT(cache->magic == MAGIC_CACHE);
	detail_clear();
	if (changes == NULL)
		return detail_set(-EINVAL, "there are no options to take over");
	ret = options_copy(changes, &own);
	if (ret == 0)
		ret = check_changes(&own);
	if (ret < 0)
		return ret;
	settings_asked(&own, settings);
	/* Once more where its segment has been retired: then there is a new seat. */
	do {
		ret = seat_enter(cache, &seat);
		if (ret < 0)
			return ret;
		ret = change_in_turn(seat, settings);
		seat_leave(seat);
	} while (ret == -ESTALE && tries++ == 0);
	return ret;
}
