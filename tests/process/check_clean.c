/* SPDX-License-Identifier: MIT */
/*
 * check_clean - a full sweep: what goes and what is said to be why, what a dry run
 * foresees, and that it can be stopped. What one slice does is in check_sweep.c.
 */
#include <check.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "api/cache.h"
#include "store/evict.h"
#include "stream/stream.h"
#include "../util/former.h"
#include "../util/pattern.h"
#include "../util/scratch.h"
#include "../util/spawn.h"

#define BYTES 10000u /* three blocks of a disk */

/* The victims of the last sweep, as "why name;" each. */
static char victims[4096];

static void note(void *arg, const struct scache_victim *victim)
{
	size_t length = strlen(victims);
	bool is_path = memchr(victim->name, '.', victim->name_bytes) != NULL;

	(void)arg;
	snprintf(victims + length, sizeof(victims) - length, "%s%s %.*s;",
		 victim->removed ? "" : "left ", victim->why,
		 is_path ? 1 : (int)victim->name_bytes, is_path ? "." : victim->name);
}

static struct scache_sweep_report sweep(struct scache *cache, uint32_t flags, uint64_t max_age_ns)
{
	const struct scache_sweep_options options = { .size = sizeof(options),
						      .flags = flags,
						      .max_age_ns = max_age_ns,
						      .victim = note };
	struct scache_sweep_report report = { .size = sizeof(report) };

	victims[0] = '\0';
	must_be(scache_sweep(cache, &options, &report), 0);
	return report;
}

static bool was(const char *text)
{
	if (strcmp(victims, text) == 0)
		return true;
	printf("victims: %s\n", victims);
	return false;
}

/* In the order of their slots, which may be any. */
static bool tells(const char *text)
{
	return strstr(victims, text) != NULL;
}

static void put(struct scache *cache, const char *key)
{
	pattern_produce(scratch_create(cache, key, 0, NULL), 1, BYTES, BYTES);
}

/* "a", "b", ...: in this order, and no two of them at the same time. */
static struct scache *put_row(char last)
{
	struct scache *cache = scratch_open();

	for (char key[] = "a"; key[0] <= last; key[0]++)
		put(cache, key);
	return cache;
}

static void ask_for(struct scache *cache, const char *key)
{
	scache_reader_close(scratch_find(cache, key));
}

static uint32_t slot_of(struct scache *cache, const char *key)
{
	struct scache_reader *reader = scratch_find(cache, key);
	uint32_t idx = reader->name.idx;

	scache_reader_close(reader);
	return idx;
}

/* ------------------------------------------------------------------- why they go */

START_TEST(each_victim_has_its_reason)
{
	const struct scache_options idle = { .size = sizeof(idle), .max_idle_ns = 3600 * NS_PER_SEC };
	struct scache *cache = put_row('d');
	struct segment *segment = cache->seat->store.segment;
	uint32_t age = slot_of(cache, "a"), use = slot_of(cache, "b"), old = slot_of(cache, "c");
	uint64_t before_ns = clock_shared_ns() - 7200 * NS_PER_SEC;
	struct scache_sweep_report report;

	must_be(scache_configure(cache, &idle), 0);
	shm_store(&segment->expires[age], 1);
	shm_store(&segment->uses[use], before_ns);
	shm_store(&segment->entries[old].ended_ns, before_ns);
	sweep(cache, SCACHE_DRY_RUN, 3600 * NS_PER_SEC);
	must(tells("left expired a;") && tells("left idle b;") && tells("left too old c;"));
	report = sweep(cache, 0, 3600 * NS_PER_SEC);
	must(!tells("left "));
	must(tells("expired a;") && tells("idle b;") && tells("too old c;"));
	must_be(report.entries, 3);
	must_be(report.evicted, 0);
	must(scratch_misses(cache, "b"));
	ask_for(cache, "d");
	must_be(scratch_blobs(), 1);
	scratch_close(cache);
}
END_TEST

START_TEST(each_file_of_a_former_segment_has_its_reason)
{
	struct scache *cache;
	char path[400];

	/* Each one lost before the next, so that scratch_blob() means it. */
	former_put_aged("k", 1, BYTES, 3600 * NS_PER_SEC, 7200 * NS_PER_SEC);
	former_lose(LOST_FILE);
	cache = scratch_open();
	sweep(cache, SCACHE_DRY_RUN, 0);
	must(was("left expired .;"));
	sweep(cache, 0, 0);
	must(was("expired .;"));
	scratch_close(cache);

	former_put("k", 1, BYTES);
	scratch_blob(path, sizeof(path));
	former_change(path, -1);
	former_lose(LOST_FILE);
	cache = scratch_open();
	sweep(cache, 0, 0);
	must(was("damaged .;"));
	scratch_close(cache);

	former_put("k", 1, BYTES);
	scratch_blob(path, sizeof(path));
	must(chmod(path, 0600) == 0);
	former_lose(LOST_FILE);
	cache = scratch_open();
	sweep(cache, 0, 0);
	must(was("unfinished .;"));
	must_be(scratch_blobs(), 0);
	scratch_close(cache);
}
END_TEST

START_TEST(what_is_not_ours_is_told_of_and_left)
{
	static const char *const places[] = { "", "/ctl", "/blobs", "/blobs/00" };
	struct scache *cache = scratch_open();
	char path[400];

	snprintf(path, sizeof(path), "%s/blobs/00", scratch_dir);
	must(mkdir(path, 0700) == 0);
	for (int i = 0; i < 4; i++) {
		snprintf(path, sizeof(path), "%s%s/link", scratch_dir, places[i]);
		must(symlink("/etc/passwd", path) == 0);
		snprintf(path, sizeof(path), "%s%s/directory", scratch_dir, places[i]);
		must(mkdir(path, 0700) == 0);
		snprintf(path, sizeof(path), "%s%s/s", scratch_dir, places[i]);
		must(mknod(path, S_IFSOCK | 0600, 0) == 0);
	}
	for (int i = 0; i < 2; i++)
		must_be(sweep(cache, i == 0 ? SCACHE_DRY_RUN : 0, 0).unknown, 12);
	for (int i = 0; i < 4; i++) {
		snprintf(path, sizeof(path), "%s%s", scratch_dir, places[i]);
		must_be(scratch_count(path, "link"), 1);
		must_be(scratch_count(path, "directory"), 1);
		must_be(scratch_count(path, "s"), 1);
	}
	scratch_close(cache);
}
END_TEST

/* ----------------------------------------------------------------------- limits */

/* As scache_configure() does, but that it would see to it that it is kept. */
static void allow(struct scache *cache, unsigned setting, uint64_t value)
{
	shm_store(&cache->seat->store.segment->header->settings[setting], value);
}

/* Eight entries, four allowed: down to three. */
START_TEST(a_dry_run_foresees_what_the_sweep_evicts)
{
	struct scache *cache = put_row('h');
	struct segment *segment = cache->seat->store.segment;
	uint32_t of_b = slot_of(cache, "b");
	uint64_t used, hand;
	struct scache_sweep_report report;
	struct scache_reader *reader = scratch_find(cache, "c");

	ask_for(cache, "b");
	allow(cache, SETTING_MAX_ENTRIES, 4);
	shm_store(&segment->expires[slot_of(cache, "e")], 1);
	used = shm_load(&segment->uses[of_b]);
	hand = shm_load(&segment->header->evict_hand);
	report = sweep(cache, SCACHE_DRY_RUN, 0);
	/* b has been asked for, c is read, e has expired. */
	must(was("left expired e;left evicted a;left evicted d;left evicted f;left evicted g;"));
	must_be(report.evicted, 4);
	must(report.evicted_bytes >= 4 * BYTES);
	must_be(shm_load(&segment->uses[of_b]), used);
	must_be(shm_load(&segment->header->evict_hand), hand);
	must_be(scratch_blobs(), 8);
	report = sweep(cache, 0, 0);
	must(was("expired e;evicted a;evicted d;evicted f;evicted g;"));
	must_be(report.evicted, 4);
	must_be(scratch_blobs(), 3);
	scache_reader_close(reader);
	must_be(sweep(cache, 0, 0).evicted, 0);
	scratch_close(cache);
}
END_TEST

START_TEST(marks_are_taken_away_once_round_in_a_dry_run_as_well)
{
	struct scache *cache = put_row('d');

	for (char key[] = "a"; key[0] <= 'd'; key[0]++)
		ask_for(cache, key);
	allow(cache, SETTING_MAX_ENTRIES, 2);
	for (int i = 0; i < 2; i++) {
		sweep(cache, SCACHE_DRY_RUN, 0);
		must(was("left evicted a;left evicted b;left evicted c;"));
	}
	sweep(cache, 0, 0);
	must(was("evicted a;evicted b;evicted c;"));
	scratch_close(cache);
}
END_TEST

static void count_gone(void *arg, const unsigned char *key, uint32_t key_bytes, uint64_t bytes)
{
	(void)key, (void)key_bytes, (void)bytes;
	++*(uint64_t *)arg;
}

/* There are more than one walk over the table picks, 64; most of the first ones were asked for. */
START_TEST(a_dry_run_of_many_is_one_round_of_the_hand_and_not_many)
{
	uint64_t gone = 0, foreseen[10], calls = 0;
	struct evict_dry dry;
	const struct evict_watch watch = { .gone = count_gone, .arg = &gone, .dry = &dry };
	struct scache *cache;
	struct store *store;
	char key[4];

	scratch_options.entries = 1024;
	cache = scratch_open();
	store = &cache->seat->store;
	for (int i = 0; i < 100; i++) {
		snprintf(key, sizeof(key), "%d", i);
		put(cache, key);
	}
	for (int i = 0; i < 60; i++) {
		snprintf(key, sizeof(key), "%d", i);
		ask_for(cache, key);
	}
	must_be(evict_dry_begin(store->segment, &dry), 0);
	do
		must(calls < 10);
	while ((foreseen[calls++] = evict_some(store, UINT64_MAX, 0, &watch)) > 0);
	evict_dry_end(&dry);
	must_be(gone, 100);
	for (uint64_t i = 0; i < calls; i++)
		must_be(evict_some(store, UINT64_MAX, 0, NULL), foreseen[i]);
	must_be(scratch_blobs(), 0);
	scratch_close(cache);
}
END_TEST

/* Five blobs are allowed: four that are entries, and one of twice the size that has expired. */
START_TEST(a_dry_run_foresees_that_expired_files_are_not_to_be_made_up_for)
{
	struct scache *cache;

	former_put_aged("old", 1, 2 * BYTES, 3600 * NS_PER_SEC, 7200 * NS_PER_SEC);
	former_lose(LOST_FILE);
	cache = put_row('d');
	allow(cache, SETTING_MAX_BYTES, 5 * 12288);
	sweep(cache, SCACHE_DRY_RUN, 0);
	must(was("left expired .;"));
	sweep(cache, 0, 0);
	must(was("expired .;"));
	scratch_close(cache);
}
END_TEST

START_TEST(too_many_bytes_are_evicted_former_ones_among_them)
{
	struct scache_sweep_report report;
	struct scache *cache = put_row('t');

	scratch_close(cache);
	former_lose(LOST_FILE);
	cache = scratch_open();
	/* Of twenty times twelve kilobytes. */
	allow(cache, SETTING_MAX_BYTES, 128 << 10);
	must_be(scratch_blobs(), 20);
	report = sweep(cache, SCACHE_DRY_RUN, 0);
	must_be(report.adopted, 20);
	must_be(scratch_blobs(), 20);
	must_be(scratch_stat(cache).adopted, 0);
	report = sweep(cache, 0, 0);
	must_be(report.adopted, 20);
	must(report.evicted >= 10);
	must(scratch_stat(cache).bytes_used <= 128 << 10);
	must(scratch_misses(cache, "a"));
	ask_for(cache, "t");
	scratch_close(cache);
}
END_TEST

/* --------------------------------------------------------------------- progress */

struct watched {
	unsigned calls, stop_at;
	int stop_with;
	uint64_t files;
	uint32_t directories;
};

static int watch(void *arg, const struct scache_sweep_progress *progress)
{
	struct watched *watched = arg;

	must_be(progress->size, sizeof(*progress));
	must(progress->files >= watched->files && progress->directories >= watched->directories);
	must_be(progress->all_directories, 256);
	watched->files = progress->files;
	watched->directories = progress->directories;
	return ++watched->calls == watched->stop_at ? watched->stop_with : 0;
}

START_TEST(a_sweep_says_how_far_it_is_and_can_be_stopped)
{
	struct watched watched = { .calls = 0 };
	const struct scache_sweep_options options = { .size = sizeof(options),
						      .progress = watch,
						      .arg = &watched };
	struct scache_sweep_report report = { .size = sizeof(report) };
	struct scache *cache = put_row('t');

	must_be(scache_sweep(cache, &options, &report), 0);
	must_be(watched.calls, 21);
	must_be(watched.files, 20);
	must_be(watched.directories, 256);
	scratch_close(cache);
	former_lose(LOST_FILE);
	cache = scratch_open();
	for (int i = 0; i < 2; i++) {
		watched = (struct watched){ .stop_at = 6, .stop_with = i == 0 ? -1 : 7 };
		must_be(scache_sweep(cache, &options, &report), i == 0 ? -ECANCELED : 7);
		must_be(report.adopted, i == 0 ? 5 : 0);
	}
	watched = (struct watched){ .calls = 0 };
	must_be(scache_sweep(cache, &options, &report), 0);
	must_be(report.adopted, 15);
	ask_for(cache, "a");
	ask_for(cache, "t");
	scratch_close(cache);
}
END_TEST

START_TEST(a_caller_built_with_the_older_header_is_served)
{
	const struct scache_sweep_options options = {
		.size = offsetof(struct scache_sweep_options, progress),
		.victim = note,
		.progress = (void *)1,
	};
	struct {
		struct scache_sweep_report report;
		char behind;
	} old = { .report = { .size = offsetof(struct scache_sweep_report, evicted),
			      .evicted = 4711 } };
	struct scache *cache = put_row('b');

	must_be(scache_sweep(cache, &options, &old.report), 0);
	must_be(old.report.evicted, 4711);
	must_be(scache_sweep(cache, &(struct scache_sweep_options){ .size = 8 }, NULL), -EINVAL);
	scratch_close(cache);
}
END_TEST

int main(void)
{
	const TTest *const tests[] = {
		each_victim_has_its_reason,
		each_file_of_a_former_segment_has_its_reason,
		what_is_not_ours_is_told_of_and_left,
		a_dry_run_foresees_what_the_sweep_evicts,
		marks_are_taken_away_once_round_in_a_dry_run_as_well,
		a_dry_run_of_many_is_one_round_of_the_hand_and_not_many,
		a_dry_run_foresees_that_expired_files_are_not_to_be_made_up_for,
		too_many_bytes_are_evicted_former_ones_among_them,
		a_sweep_says_how_far_it_is_and_can_be_stopped,
		a_caller_built_with_the_older_header_is_served,
	};

	return SCRATCH_RUN("clean", tests);
}
