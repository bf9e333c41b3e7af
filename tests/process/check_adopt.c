/* SPDX-License-Identifier: MIT */
/*
 * check_adopt - finished blobs outlive their segment: who asks for one after a
 * reboot has it, whole, as old as it is, and it is adopted once. What does not
 * come back is in check_former.c.
 */
#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "../util/former.h"
#include "../util/pattern.h"
#include "../util/producer.h"
#include "../util/scratch.h"
#include "../util/spawn.h"
#include "api/cache.h"
#include "base/clock.h"
#include "store/adopt.h"

#define BLOCK (256ull << 10)
#define CROWD 16
#define MINUTE_NS (60 * NS_PER_SEC)

static const uint64_t sizes[] = { 0, 1, 16384, BLOCK - 1, BLOCK, BLOCK + 1, 3 << 20 };
#define SIZES (sizeof(sizes) / sizeof(sizes[0]))

/* --------------------------------------------------------------------- served */

static void put_all_sizes(void)
{
	char key[2] = "0";

	for (unsigned i = 0; i < SIZES; i++, key[0]++)
		former_put(key, i + 1, sizes[i]);
}

static void has_all_sizes(struct scache *cache, enum former_way way)
{
	struct scache_reader *reader;
	struct scache_entry_info info;
	char key[2] = "0";

	for (unsigned i = 0; i < SIZES; i++, key[0]++) {
		reader = scratch_find(cache, key);
		info = scratch_info(reader);
		must_be(info.state, SCACHE_FINISHED);
		must_be(info.bytes, sizes[i]);
		must_be(former_read(reader, way, i + 1, sizes[i]), 0);
		scache_reader_close(reader);
	}
}

START_TEST(what_was_finished_is_served_however_the_segment_was_lost)
{
	struct scache *cache;

	put_all_sizes();
	for (enum former_loss how = 0; how < LOSSES; how++)
		for (enum former_way way = 0; way < WAYS; way++) {
			former_lose(how);
			cache = scratch_open();
			has_all_sizes(cache, way);
			must_be(scratch_stat(cache).adopted, SIZES);
			must_be(scratch_stat(cache).hits, SIZES);
			must_be(scratch_stat(cache).misses, 0);
			must_be(scratch_blobs(), SIZES);
			/* And once more, now that all of it has been compared. */
			has_all_sizes(cache, way);
			must_be(scratch_stat(cache).adopted, SIZES);
			scratch_is_clean(cache);
			must_be(scratch_stat(cache).entries_finished, SIZES);
			scratch_close(cache);
		}
}
END_TEST

START_TEST(an_acquire_hits)
{
	struct scache_writer *writer = NULL;
	struct scache_reader *reader;
	struct scache *cache;

	former_put("k", 1, 300000);
	former_lose(LOST_FILE);
	cache = scratch_open();
	must_be(scache_acquire(cache, "k", 1, NULL, &reader, &writer), 0);
	must(writer == NULL);
	must_be(former_read(reader, BY_READ, 1, 300000), 0);
	scache_reader_close(reader);
	must_be(scratch_stat(cache).productions, 0);
	scratch_is_clean(cache);
	scratch_close(cache);
}
END_TEST

START_TEST(an_acquire_that_wants_no_reader_is_not_elected)
{
	struct scache_writer *writer = NULL;
	struct scache *cache;

	former_put("k", 1, 300000);
	former_lose(LOST_FILE);
	cache = scratch_open();
	must_be(scache_acquire(cache, "k", 1, NULL, NULL, &writer), 0);
	must(writer == NULL);
	former_has(cache, "k", 1, 300000);
	scratch_close(cache);
}
END_TEST

START_TEST(what_was_produced_in_many_ways_comes_back)
{
	struct scache *cache = scratch_open();
	struct scache_writer *writer = scratch_create(cache, "pieces", 0, NULL);
	char key[255], path[300];
	int fd;

	/* Straight into the file, by pieces that no block begins with. */
	must_be(pattern_write(writer, 1, 0, 700001, 99991, NULL), 700001);
	must_be(pattern_write(writer, 1, 700001, 700002, 1, NULL), 1);
	must_be(scache_finish(writer), 0);
	scache_writer_close(writer);
	snprintf(path, sizeof(path), "%s/source", scratch_base);
	former_has(cache, "pieces", 1, 700002);
	fd = open(path, O_RDWR | O_CREAT, 0600);
	must(fd >= 0);
	for (uint64_t at = 0; at < 600000; at += 1000) {
		unsigned char data[1000];

		pattern_fill(2, at, data, sizeof(data));
		must(write(fd, data, sizeof(data)) == (ssize_t)sizeof(data));
	}
	must(lseek(fd, 0, SEEK_SET) == 0);
	writer = scratch_create(cache, "fd", 0, NULL);
	must_be(scache_write_from_fd(writer, fd, SIZE_MAX, SCACHE_FOREVER), 600000);
	must_be(scache_finish(writer), 0);
	scache_writer_close(writer);
	close(fd);
	memset(key, 'x', sizeof(key));
	must_be(scache_acquire(cache, key, sizeof(key), NULL, NULL, &writer), 0);
	pattern_produce(writer, 3, 5, 5);
	scratch_close(cache);
	former_lose(LOST_BOOT);
	cache = scratch_open();
	former_has(cache, "pieces", 1, 700002);
	former_has(cache, "fd", 2, 600000);
	must_be(scache_acquire(cache, key, sizeof(key), NULL, NULL, &writer), 0);
	must(writer == NULL);
	scratch_is_clean(cache);
	scratch_close(cache);
}
END_TEST

/* ------------------------------------------------------------------ once only */

static void fetch_along(void *arg)
{
	const uint64_t *bytes = arg;
	struct task task = { .seed = 9, .bytes = *bytes };
	struct scache *cache = scratch_open();
	struct scache_reader *reader;

	child_say(0);
	child_listen();
	must_be(task_fetch(cache, "k", NULL, &task, &reader), 0);
	must_be(former_read(reader, BY_READ, 1, *bytes), 0);
	scache_reader_close(reader);
	scratch_close(cache);
}

static void ask_at_once(uint64_t bytes)
{
	struct child crowd[CROWD];
	struct scache *cache;

	former_lose(LOST_FILE);
	cache = scratch_open();
	for (int i = 0; i < CROWD; i++)
		child_start(&crowd[i], fetch_along, &bytes);
	for (int i = 0; i < CROWD; i++)
		child_hear(&crowd[i]);
	for (int i = 0; i < CROWD; i++)
		child_tell(&crowd[i], 0);
	for (int i = 0; i < CROWD; i++)
		child_join(&crowd[i]);
	must_be(scratch_stat(cache).hits, CROWD);
	must_be(scratch_stat(cache).adopted, 1);
	must_be(scratch_stat(cache).productions, 0);
	must_be(atomic_load(&board->begun), 0);
	must_be(scratch_blobs(), 1);
	scratch_is_clean(cache);
	scratch_close(cache);
}

START_TEST(of_many_who_ask_at_once_one_adopts_and_all_hit)
{
	board_make();
	former_put("k", 1, 3 << 20);
	for (int i = 0; i < 10; i++)
		ask_at_once(3 << 20);
	must_be(scache_destroy(scratch_dir, NULL), 0);
	former_put("k", 1, 5000);
	for (int i = 0; i < 40; i++)
		ask_at_once(5000);
}
END_TEST

/* ----------------------------------------------------------------------- ages */

START_TEST(an_age_goes_on)
{
	struct scache_entry_info info;
	struct scache_reader *reader;
	struct scache *cache;

	former_put_aged("k", 1, 5000, 60 * MINUTE_NS, 10 * MINUTE_NS);
	for (enum former_loss how = 0; how < LOSSES; how++) {
		former_lose(how);
		cache = scratch_open();
		reader = scratch_find(cache, "k");
		info = scratch_info(reader);
		must(info.age_ns >= 10 * MINUTE_NS && info.age_ns < 11 * MINUTE_NS);
		must(info.expires_in_ns <= 50 * MINUTE_NS && info.expires_in_ns > 49 * MINUTE_NS);
		scache_reader_close(reader);
		scratch_close(cache);
	}
}
END_TEST

START_TEST(what_is_older_than_the_boot_is_as_old_as_it_is)
{
	const uint64_t age_ns = 2 * clock_shared_ns() + 60 * MINUTE_NS;
	struct scache_entry_info info;
	struct scache_reader *reader;
	struct scache *cache;

	former_put_aged("k", 1, 5000, SCACHE_UNLIMITED, age_ns);
	former_lose(LOST_BOOT);
	cache = scratch_open();
	reader = scratch_find(cache, "k");
	info = scratch_info(reader);
	must(info.age_ns >= age_ns && info.age_ns < age_ns + MINUTE_NS);
	must(info.expires_in_ns == SCACHE_UNLIMITED);
	must_be(former_read(reader, BY_READ, 1, 5000), 0);
	scache_reader_close(reader);
	scratch_is_clean(cache);
	must_be(scratch_stat(cache).entries_finished, 1);
	scratch_close(cache);
}
END_TEST

START_TEST(a_callers_own_limit_of_age_counts_the_time_before)
{
	struct scache_acquire_options old = { .size = sizeof(old), .max_age_ns = 20 * MINUTE_NS },
				      young = { .size = sizeof(young),
						.max_age_ns = 5 * MINUTE_NS };
	struct scache_writer *writer = NULL;
	struct scache_reader *reader;
	struct scache *cache;

	former_put_aged("k", 1, 5000, 0, 10 * MINUTE_NS);
	former_lose(LOST_FILE);
	cache = scratch_open();
	must_be(scache_lookup(cache, "k", 1, &young, &reader), -ENOENT);
	must_be(scache_lookup(cache, "k", 1, &old, &reader), 0);
	scache_reader_close(reader);
	scratch_close(cache);
	former_lose(LOST_FILE);
	cache = scratch_open();
	must_be(scache_acquire(cache, "k", 1, &young, NULL, &writer), 0);
	must(writer != NULL);
	pattern_produce(writer, 2, 5000, 5000);
	former_has(cache, "k", 2, 5000);
	scratch_is_clean(cache);
	must_be(scratch_blobs(), 1);
	scratch_close(cache);
	/* The one that was too old does not come back. */
	former_lose(LOST_FILE);
	cache = scratch_open();
	former_has(cache, "k", 2, 5000);
	scratch_close(cache);
}
END_TEST

START_TEST(what_has_expired_meanwhile_is_a_miss_and_its_file_goes)
{
	struct scache *cache;

	former_put_aged("k", 1, 5000, 60 * MINUTE_NS, 61 * MINUTE_NS);
	former_lose(LOST_FILE);
	cache = scratch_open();
	must_be(scratch_blobs(), 1);
	must(scratch_misses(cache, "k"));
	must_be(scratch_blobs(), 0);
	scratch_close(cache);
	former_put_aged("k", 1, 5000, 60 * MINUTE_NS, 61 * MINUTE_NS);
	former_lose(LOST_FILE);
	cache = scratch_open();
	scratch_is_clean(cache);
	must_be(scratch_blobs(), 0);
	scratch_close(cache);
}
END_TEST

static bool has_expired(struct scache *cache)
{
	struct scache_entry_info info;
	struct scache_reader *reader;

	if (scache_lookup(cache, "k", 1, NULL, &reader) < 0)
		return true;
	info = scratch_info(reader);
	must(info.expires_in_ns <= 2 * NS_PER_SEC);
	scache_reader_close(reader);
	return false;
}

START_TEST(what_was_adopted_expires_when_it_would_have)
{
	struct scache *cache;

	former_put_aged("k", 1, 5000, 60 * MINUTE_NS, 60 * MINUTE_NS - 2 * NS_PER_SEC);
	former_lose(LOST_FILE);
	cache = scratch_open();
	eventually(has_expired(cache));
	scratch_is_clean(cache);
	must_be(scratch_blobs(), 0);
	scratch_close(cache);
}
END_TEST

/* ---------------------------------------------------------------------- a group */

#define GROUP 54321

static void become(uid_t user)
{
	must(setgroups(0, NULL) == 0);
	must(setgid(GROUP) == 0);
	must(setuid(user) == 0);
	umask(077);
}

static void put_as_one(void *arg)
{
	(void)arg;
	become(54001);
	former_put("k", 1, 300000);
	former_put("other", 2, 300000);
}

static void have_as_another(void *arg)
{
	struct scache *cache;

	(void)arg;
	become(54002);
	cache = scratch_open();
	former_has(cache, "k", 1, 300000);
	must_be(scratch_stat(cache).adopted, 1);
	must_be(scache_remove(cache, "k", 1), 0);
	must_be(scache_remove(cache, "other", 5), 0);
	must(scratch_misses(cache, "other"));
	scratch_is_clean(cache);
	must_be(scratch_blobs(), 0);
	scratch_close(cache);
}

START_TEST(one_of_a_group_has_what_another_has_left)
{
	struct child child;

	if (geteuid() != 0)
		return;
	scratch_give_away();
	scratch_options.mode = 0770;
	must(chown(scratch_base, 0, GROUP) == 0);
	must(chmod(scratch_base, 02770) == 0);
	child_start(&child, put_as_one, NULL);
	child_join(&child);
	former_lose(LOST_FILE);
	child_start(&child, have_as_another, NULL);
	child_join(&child);
}
END_TEST

/* ---------------------------------------------------------------- which directories */

static int directories_left(struct scache *cache)
{
	shm_u64 *words = cache->seat->store.segment->header->former;
	int count = 0;

	for (int i = 0; i < SHM_FANS; i++)
		count += shm_load(&words[i]) != 0;
	return count;
}

static int has_hint(struct scache *cache, const char *key)
{
	return adopt_may_help(&cache->seat->store, hash_key(key, strlen(key)));
}

START_TEST(a_directory_without_former_files_is_looked_through_once)
{
	const struct scache_sweep_options dry = { .size = sizeof(dry), .flags = SCACHE_DRY_RUN };
	struct scache *cache = scratch_open();

	must_be(directories_left(cache), 256);
	must(has_hint(cache, "k"));
	must(scratch_misses(cache, "k"));
	must(!has_hint(cache, "k"));
	must_be(directories_left(cache), 255);
	/* Files of our own do not count, a dry run does not either, a sweep has seen all. */
	pattern_produce(scratch_create(cache, "own", 0, NULL), 1, 5000, 5000);
	must_be(scache_remove(cache, "own", 3), 0);
	must(!has_hint(cache, "own"));
	must_be(directories_left(cache), 254);
	must_be(scache_sweep(cache, &dry, NULL), 0);
	must_be(directories_left(cache), 254);
	must_be(scache_sweep(cache, NULL, NULL), 0);
	must_be(directories_left(cache), 0);
	scratch_close(cache);
}
END_TEST

START_TEST(one_that_has_some_is_looked_through_for_what_it_has)
{
	struct scache *cache;
	char key[16];
	int n = 0;

	former_put("k", 1, 5000);
	former_lose(LOST_FILE);
	cache = scratch_open();
	/* Another key of the same directory. */
	do
		snprintf(key, sizeof(key), "n%d", n++);
	while (hash_key(key, strlen(key)).high >> 56 != hash_key("k", 1).high >> 56);
	must(has_hint(cache, key));
	must(scratch_misses(cache, key));
	must(!has_hint(cache, key));
	must(has_hint(cache, "k"));
	former_has(cache, "k", 1, 5000);
	/* Nobody knows that it was the only one until somebody looks. */
	must_be(directories_left(cache), 256);
	must_be(scache_remove(cache, "k", 1), 0);
	must(scratch_misses(cache, "k"));
	must(!has_hint(cache, "k"));
	must_be(directories_left(cache), 255);
	scratch_close(cache);
}
END_TEST

START_TEST(whatever_was_looked_for_before_all_are_found)
{
	struct scache *cache;
	unsigned listed = 0;
	char key[16];

	for (uint64_t i = 0; i < 50; i++) {
		snprintf(key, sizeof(key), "k%u", (unsigned)i);
		former_put(key, i, 1000);
	}
	former_lose(LOST_FILE);
	cache = scratch_open();
	for (unsigned i = 0; i < 3000; i++) {
		snprintf(key, sizeof(key), "n%u", i);
		must(scratch_misses(cache, key));
		listed += !has_hint(cache, key);
	}
	/* All but what has the same bits by chance. */
	must(listed > 2900);
	for (uint64_t i = 0; i < 50; i++) {
		snprintf(key, sizeof(key), "k%u", (unsigned)i);
		former_has(cache, key, i, 1000);
	}
	must_be(scratch_stat(cache).adopted, 50);
	scratch_close(cache);
}
END_TEST

int main(void)
{
	const TTest *const tests[] = {
		what_was_finished_is_served_however_the_segment_was_lost,
		an_acquire_hits,
		an_acquire_that_wants_no_reader_is_not_elected,
		what_was_produced_in_many_ways_comes_back,
		of_many_who_ask_at_once_one_adopts_and_all_hit,
		an_age_goes_on,
		what_is_older_than_the_boot_is_as_old_as_it_is,
		a_callers_own_limit_of_age_counts_the_time_before,
		what_has_expired_meanwhile_is_a_miss_and_its_file_goes,
		what_was_adopted_expires_when_it_would_have,
		one_of_a_group_has_what_another_has_left,
		a_directory_without_former_files_is_looked_through_once,
		one_that_has_some_is_looked_through_for_what_it_has,
		whatever_was_looked_for_before_all_are_found,
	};

	return SCRATCH_RUN("adopt", tests);
}
