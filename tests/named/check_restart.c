/* SPDX-License-Identifier: MIT */
/*
 * check_restart - T2, T19: a hundred processes meet an empty directory, and what
 * a former boot or another version of the library has left is met.
 */
#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "api/cache.h"

#include "../util/pattern.h"
#include "../util/scratch.h"
#include "../util/spawn.h"

#define CROWD 100
#define GATHERINGS 5

/* ------------------------------------------------------------------------- T2 */

static void open_when_told(void *arg)
{
	struct scache *cache;
	uint64_t uuid;

	(void)arg;
	child_say(0);
	child_listen();
	cache = scratch_open();
	memcpy(&uuid, cache->seat->store.segment->uuid, sizeof(uuid));
	child_say((int64_t)uuid);
	child_listen();
	scratch_close(cache);
}

static void gather(unsigned *random)
{
	struct timespec instant = { .tv_nsec = rand_r(random) % 8000000 };
	struct child crowd[CROWD];
	int victim = rand_r(random) % CROWD;
	int64_t uuid = 0;
	struct scache *cache;

	for (int i = 0; i < CROWD; i++)
		child_start(&crowd[i], open_when_told, NULL);
	for (int i = 0; i < CROWD; i++)
		child_hear(&crowd[i]);
	for (int i = 0; i < CROWD; i++)
		child_tell(&crowd[i], 0);
	/* Any instant will do; it may be the creator. */
	nanosleep(&instant, NULL);
	child_kill(&crowd[victim]);
	for (int i = 0; i < CROWD; i++) {
		int64_t theirs = i == victim ? uuid : child_hear(&crowd[i]);

		must(uuid == 0 || theirs == uuid);
		uuid = theirs;
	}
	must_be(scratch_count(scratch_base, "streamcache.*"), 1);
	for (int i = 0; i < CROWD; i++)
		if (i != victim)
			child_tell(&crowd[i], 0);
	for (int i = 0; i < CROWD; i++)
		if (i != victim)
			child_join(&crowd[i]);
	cache = scratch_open();
	must(memcmp(cache->seat->store.segment->uuid, &uuid, sizeof(uuid)) == 0);
	scratch_is_clean(cache);
	must(scratch_stat(cache).deaths <= 1);
	scratch_close(cache);
	must_be(scache_destroy(scratch_dir, NULL), 0);
	must_be(scratch_count(scratch_base, "streamcache.*"), 0);
}

START_TEST(t02_of_a_hundred_openers_one_is_killed_and_the_rest_meet)
{
	unsigned random = 2024;
	int gatherings = scratch_is_long() ? 200 : GATHERINGS;

	scratch_options.peers = CROWD + 10;
	for (int i = 0; i < gatherings; i++)
		gather(&random);
}
END_TEST

/* ------------------------------------------------------------------------- T19 */

/* Change the file of the segment behind a closed cache. */
static void change_segment(off_t offset, const void *data, size_t bytes)
{
	char path[400];
	int fd;

	scratch_segment(path, sizeof(path));
	fd = open(path, O_WRONLY | O_CLOEXEC);
	must(fd >= 0 && pwrite(fd, data, bytes, offset) == (ssize_t)bytes);
	close(fd);
}

static void produce_one(void)
{
	struct scache *cache = scratch_open();

	pattern_produce(scratch_create(cache, "k", 0, NULL), 1, 5000, 1000);
	scratch_close(cache);
}

/* The cache is as good as new, and what was finished in it is still there. */
static void is_made_anew(void)
{
	struct scache *cache = scratch_open();
	struct scache_reader *reader;

	must_be(scratch_count(scratch_base, "streamcache.*"), 1);
	/* The options outlive it. */
	must_be(scratch_stat(cache).max_entries, 32);
	must_be(scratch_stat(cache).entries, 0);
	reader = scratch_find(cache, "k");
	pattern_read_all(reader, 1, 5000);
	scache_reader_close(reader);
	must_be(scratch_stat(cache).adopted, 1);
	scratch_is_clean(cache);
	must_be(scratch_blobs(), 1);
	scratch_close(cache);
}

START_TEST(t19_after_a_reboot_the_segment_is_made_anew)
{
	static const char other[40] = "01234567-89ab-cdef-0123-456789abcdef";

	scratch_options.entries = 32;
	produce_one();
	scratch_options.entries = 0;
	/* Where the segment's directory outlives a boot; on a tmpfs it is just gone. */
	change_segment(offsetof(struct shm_header, boot_id), other, sizeof(other));
	is_made_anew();
	change_segment(offsetof(struct shm_header, boot_id), "", 1);
	is_made_anew();
}
END_TEST

static void stay_attached(void *arg)
{
	(void)arg;
	scratch_open();
	child_say(0);
	child_listen();
}

START_TEST(t19_another_layout_is_refused_in_use_and_made_anew_after)
{
	static const uint32_t layouts[] = { SHM_LAYOUT - 1, SHM_LAYOUT + 1 };
	const uint32_t own = SHM_LAYOUT;
	struct scache *cache = NULL;
	struct child child;

	scratch_options.entries = 32;
	for (int i = 0; i < 2; i++) {
		produce_one();
		child_start(&child, stay_attached, NULL);
		child_hear(&child);
		change_segment(offsetof(struct shm_header, layout), &layouts[i], 4);
		must_be(scache_open(scratch_dir, &scratch_options, &cache), -EPROTO);
		must(scache_detail()[0] != '\0');
		/* Back to the version of those inside: nothing was lost. */
		change_segment(offsetof(struct shm_header, layout), &own, 4);
		cache = scratch_open();
		must(!scratch_misses(cache, "k"));
		scratch_close(cache);
		change_segment(offsetof(struct shm_header, layout), &layouts[i], 4);
		child_tell(&child, 0);
		child_join(&child);
		is_made_anew();
		must_be(scache_destroy(scratch_dir, NULL), 0);
	}
}
END_TEST

int main(void)
{
	const TTest *const tests[] = {
		t02_of_a_hundred_openers_one_is_killed_and_the_rest_meet,
		t19_after_a_reboot_the_segment_is_made_anew,
		t19_another_layout_is_refused_in_use_and_made_anew_after,
	};

	return SCRATCH_RUN("restart", tests);
}
