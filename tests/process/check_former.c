/* SPDX-License-Identifier: MIT */
/*
 * check_former - files of a former segment that are not to come back: replaced,
 * half-written or damaged. Removed ones are in check_removed.c, what does come back
 * is in check_adopt.c.
 */
#include <check.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "../util/former.h"
#include "../util/pattern.h"
#include "../util/scratch.h"
#include "../util/spawn.h"

#define BYTES 300000ull

/* -------------------------------------------------------------------- replaced */

static void replace(const struct scache_acquire_options *options)
{
	struct scache_writer *writer = NULL;
	struct scache *cache;

	former_put("k", 1, BYTES);
	former_lose(LOST_FILE);
	cache = scratch_open();
	must_be(scache_acquire(cache, "k", 1, options, NULL, &writer), 0);
	must(writer != NULL);
	/* The new one's, and none beside it. */
	must_be(scratch_blobs(), 1);
	pattern_produce(writer, 2, BYTES, 70000);
	former_has(cache, "k", 2, BYTES);
	scratch_close(cache);
	former_lose(LOST_BOOT);
	cache = scratch_open();
	former_has(cache, "k", 2, BYTES);
	must_be(scache_remove(cache, "k", 1), 0);
	must(scratch_misses(cache, "k"));
	scratch_close(cache);
	former_is_gone();
}

START_TEST(what_is_refreshed_does_not_come_back)
{
	const struct scache_acquire_options refresh = { .size = sizeof(refresh),
							.flags = SCACHE_REFRESH };

	replace(&refresh);
}
END_TEST

START_TEST(who_wants_nothing_old_gets_a_new_one)
{
	const struct scache_acquire_options zero = { .size = sizeof(zero),
						     .max_age_ns = SCACHE_ZERO };
	struct scache_writer *writer = NULL;
	struct scache_reader *reader;
	struct scache *cache;

	former_put("k", 1, BYTES);
	former_lose(LOST_FILE);
	cache = scratch_open();
	must_be(scache_lookup(cache, "k", 1, &zero, &reader), -ENOENT);
	former_has(cache, "k", 1, BYTES);
	scratch_close(cache);
	former_lose(LOST_FILE);
	cache = scratch_open();
	must_be(scache_acquire(cache, "k", 1, &zero, NULL, &writer), 0);
	must(writer != NULL);
	must_be(scratch_blobs(), 1);
	/* It has expired as it is finished, and the former one is gone. */
	pattern_produce(writer, 2, BYTES, 70000);
	must(scratch_misses(cache, "k"));
	scratch_close(cache);
	former_is_gone();
}
END_TEST

/* ------------------------------------------------------------- not as it should be */

static void write_half(void *arg)
{
	const uint64_t *bytes = arg;
	struct scache_writer *writer = scratch_create(scratch_open(), "k", 0, NULL);

	must_be(pattern_write(writer, 1, 0, *bytes, 70000, NULL), *bytes);
	child_say(0);
	child_stay();
}

START_TEST(what_a_killed_producer_left_is_swept)
{
	uint64_t sizes[] = { 0, 1000, 2 * BYTES };
	struct scache *cache;
	struct child child;

	for (int i = 0; i < 6; i++) {
		child_start(&child, write_half, &sizes[i % 3]);
		child_hear(&child);
		child_kill(&child);
		must_be(scratch_blobs(), 1);
		if (i < 3) {
			former_is_gone();
			continue;
		}
		former_lose(LOST_FILE);
		cache = scratch_open();
		scratch_is_clean(cache);
		must_be(scratch_blobs(), 0);
		scratch_close(cache);
	}
}
END_TEST

enum harm {
	FOOTER,
	LONGER,
	SHORTER,
	EMPTY,
	WRITABLE,
	HARMS
};

static void do_harm(enum harm harm, off_t offset)
{
	char path[400];
	struct stat st;

	scratch_blob(path, sizeof(path));
	must(stat(path, &st) == 0);
	if (harm == FOOTER)
		former_change(path, offset);
	else if (harm == LONGER)
		former_resize(path, 1);
	else if (harm == SHORTER)
		former_resize(path, -1);
	else if (harm == EMPTY)
		former_resize(path, -st.st_size);
	else
		must(chmod(path, 0600) == 0);
}

START_TEST(a_file_that_is_not_as_its_footer_says_is_no_blob)
{
	static const uint64_t sizes[] = { 0, 5000, BYTES };

	for (int i = 0; i < 3; i++) {
		for (enum harm harm = LONGER; harm < HARMS; harm++) {
			former_put("k", 1, sizes[i]);
			do_harm(harm, 0);
			former_is_gone();
		}
		/* Each field of the tail, the key and the checksums. */
		for (off_t offset = 1; offset <= 88 + 1 + (sizes[i] > 0) * 8; offset += 7) {
			former_put("k", 1, sizes[i]);
			do_harm(FOOTER, -offset);
			former_is_gone();
		}
	}
}
END_TEST

START_TEST(a_file_of_another_key_is_not_this_one)
{
	struct scache *cache;
	char path[400], other[400];

	former_put("other", 1, 5000);
	scratch_blob(path, sizeof(path));
	snprintf(other, sizeof(other), "%s/aside", scratch_base);
	must(rename(path, other) == 0);
	former_put("k", 2, 5000);
	scratch_blob(path, sizeof(path));
	must(rename(other, path) == 0);
	former_lose(LOST_FILE);
	cache = scratch_open();
	must(scratch_misses(cache, "k"));
	must(scratch_misses(cache, "other"));
	scratch_is_clean(cache);
	must_be(scratch_blobs(), 0);
	scratch_close(cache);
}
END_TEST

/* ------------------------------------------------------------------- damaged bytes */

static void damage(uint64_t bytes, off_t offset)
{
	char path[400];

	former_put("k", 1, bytes);
	scratch_blob(path, sizeof(path));
	former_change(path, offset);
	former_lose(LOST_FILE);
}

static void is_produced_anew(struct scache *cache)
{
	must_be(scratch_stat(cache).damaged, 1);
	must_be(scratch_stat(cache).productions, 0);
	pattern_produce(scratch_create(cache, "k", 0, NULL), 2, BYTES, 70000);
	former_has(cache, "k", 2, BYTES);
	scratch_is_clean(cache);
	must_be(scratch_blobs(), 1);
	must_be(scache_remove(cache, "k", 1), 0);
	scratch_close(cache);
	former_lose(LOST_FILE);
}

START_TEST(damaged_bytes_are_an_error_once_and_then_produced_anew)
{
	struct scache_reader *reader;
	struct scache *cache;

	for (enum former_way way = 0; way < WAYS; way++) {
		damage(3 << 20, 1 << 20);
		cache = scratch_open();
		reader = scratch_find(cache, "k");
		must_be(former_read(reader, way, 1, 3 << 20), -EBADMSG);
		must(scratch_misses(cache, "k"));
		scache_reader_close(reader);
		is_produced_anew(cache);
	}
}
END_TEST

START_TEST(a_small_damaged_one_is_a_miss)
{
	struct scache *cache;

	damage(5000, 4999);
	cache = scratch_open();
	must(scratch_misses(cache, "k"));
	is_produced_anew(cache);
}
END_TEST

START_TEST(who_never_wants_to_compare_gets_it_as_it_is)
{
	static const uint64_t sizes[] = { 5000, 3 << 20 };
	struct scache *cache;

	for (int i = 0; i < 2; i++) {
		damage(sizes[i], 4999);
		scratch_options.verify = SCACHE_VERIFY_NEVER;
		cache = scratch_open();
		must_be(former_count_wrong(cache, "k", 1, sizes[i]), 1);
		must_be(scratch_stat(cache).damaged, 0);
		must_be(scache_remove(cache, "k", 1), 0);
		scratch_close(cache);
		former_lose(LOST_FILE);
		scratch_options.verify = SCACHE_VERIFY_RESTART;
	}
}
END_TEST

START_TEST(it_is_still_to_be_compared_after_one_who_never_wants_to)
{
	struct scache *cache, *careless;

	damage(5000, 4999);
	scratch_options.verify = SCACHE_VERIFY_NEVER;
	careless = scratch_open();
	scratch_options.verify = SCACHE_VERIFY_RESTART;
	cache = scratch_open();
	must_be(former_count_wrong(careless, "k", 1, 5000), 1);
	must(scratch_misses(cache, "k"));
	scratch_close(careless);
	is_produced_anew(cache);
}
END_TEST

int main(void)
{
	const TTest *const tests[] = {
		what_is_refreshed_does_not_come_back,
		who_wants_nothing_old_gets_a_new_one,
		what_a_killed_producer_left_is_swept,
		a_file_that_is_not_as_its_footer_says_is_no_blob,
		a_file_of_another_key_is_not_this_one,
		damaged_bytes_are_an_error_once_and_then_produced_anew,
		a_small_damaged_one_is_a_miss,
		who_never_wants_to_compare_gets_it_as_it_is,
		it_is_still_to_be_compared_after_one_who_never_wants_to,
	};

	return SCRATCH_RUN("former", tests);
}
