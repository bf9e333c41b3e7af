/* SPDX-License-Identifier: MIT */
/*
 * check_former - files of a former segment that are not to come back: removed,
 * replaced, half-written, damaged, or somebody's yet. And what a sweep makes of the
 * rest. What does come back is in check_adopt.c.
 */
#include <check.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "../util/former.h"
#include "../util/pattern.h"
#include "../util/scratch.h"
#include "../util/spawn.h"
#include "api/cache.h"
#include "base/step.h"
#include "shm/epoch.h"

#define BYTES 300000ull
#define MINUTE_NS (60 * NS_PER_SEC)

/* A new segment has nothing of "k", and no file is left of it. */
static void is_gone_for_good(void)
{
	struct scache *cache;

	former_lose(LOST_FILE);
	cache = scratch_open();
	must(scratch_misses(cache, "k"));
	scratch_is_clean(cache);
	must(scratch_misses(cache, "k"));
	must_be(scratch_blobs(), 0);
	scratch_close(cache);
}

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
	is_gone_for_good();
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
	is_gone_for_good();
}
END_TEST

/* --------------------------------------------------------------------- removed */

START_TEST(a_key_that_only_a_file_has_can_be_removed)
{
	struct scache *cache;

	former_put("k", 1, BYTES);
	former_lose(LOST_FILE);
	cache = scratch_open();
	must_be(scache_remove(cache, "k", 1), 0);
	must_be(scratch_blobs(), 0);
	must(scratch_misses(cache, "k"));
	must_be(scache_remove(cache, "k", 1), -ENOENT);
	scratch_close(cache);
	is_gone_for_good();
}
END_TEST

static void find_and_stay(void *arg)
{
	struct scache_reader *reader = scratch_find(scratch_open(), "k");
	char byte;

	(void)arg;
	must_be(scache_read(reader, &byte, 1, SCACHE_FOREVER), 1);
	child_say(0);
	child_stay();
}

static void remove_and_stay(void *arg)
{
	struct scache *cache = scratch_open();

	(void)arg;
	must_be(scache_remove(cache, "k", 1), 0);
	child_say(0);
	child_stay();
}

static void remove_while_read(void)
{
	struct child reader, remover;

	child_start(&reader, find_and_stay, NULL);
	child_hear(&reader);
	child_start(&remover, remove_and_stay, NULL);
	child_hear(&remover);
	must_be(scratch_blobs(), 1);
	child_kill(&remover);
	child_kill(&reader);
	is_gone_for_good();
}

START_TEST(what_was_removed_while_it_was_read_does_not_come_back)
{
	former_put("k", 1, BYTES);
	remove_while_read();
}
END_TEST

START_TEST(nor_does_one_that_was_adopted_before)
{
	former_put("k", 1, BYTES);
	former_lose(LOST_FILE);
	remove_while_read();
}
END_TEST

/* Somebody stands in the index: its slot and its file have to wait. */
START_TEST(what_was_removed_while_the_index_was_walked_does_not_come_back)
{
	struct scache *cache, *walker;
	unsigned pin;

	former_put("k", 1, BYTES);
	cache = scratch_open();
	walker = scratch_open();
	pin = epoch_enter(walker->seat->store.peer);
	must_be(scache_remove(cache, "k", 1), 0);
	former_lose(LOST_TRUST);
	epoch_leave(walker->seat->store.peer, pin);
	scratch_close(walker);
	scratch_close(cache);
	cache = scratch_open();
	must(scratch_misses(cache, "k"));
	scratch_is_clean(cache);
	must_be(scratch_blobs(), 0);
	scratch_close(cache);
}
END_TEST

static void finish_and_stay(void *arg)
{
	struct scache *cache = scratch_open();
	struct scache_writer *writer = scratch_create(cache, "k", 0, NULL);

	(void)arg;
	child_say(0);
	child_listen();
	must_be(pattern_write(writer, 1, 0, BYTES, 70000, NULL), BYTES);
	must_be(scache_finish(writer), 0);
	child_say(0);
	child_stay();
}

static struct scache *remover;
static const char *moment;

/* All of it is in its file, read-only, and not yet known to be finished. */
static void be_removed_and_die(const char *label)
{
	if (strcmp(label, moment) == 0)
		must_be(scache_remove(remover, "k", 1), 0);
	if (strcmp(label, "blob-sealed") != 0)
		return;
	child_say(0);
	child_stay();
}

static void finish_and_be_removed(void *arg)
{
	struct scache_writer *writer = scratch_create(scratch_open(), "k", 0, NULL);

	moment = arg;
	remover = scratch_open();
	must_be(pattern_write(writer, 1, 0, BYTES, 70000, NULL), BYTES);
	step_set_hook(be_removed_and_die);
	scache_finish(writer);
}

static void finish_removed(char *when)
{
	struct child child;

	child_start(&child, finish_and_be_removed, when);
	child_hear(&child);
	child_kill(&child);
	is_gone_for_good();
}

START_TEST(what_was_removed_before_it_was_finished_does_not_come_back)
{
	char sealed[] = "blob-sealed", unsealed[] = "footer-written";

	finish_removed(sealed);
	finish_removed(unsealed);
}
END_TEST

START_TEST(what_was_removed_while_it_was_produced_does_not_come_back)
{
	struct child producer, reader;
	struct scache *cache;

	child_start(&producer, finish_and_stay, NULL);
	child_hear(&producer);
	cache = scratch_open();
	child_tell(&producer, 0);
	child_start(&reader, find_and_stay, NULL);
	child_hear(&reader);
	must_be(scache_remove(cache, "k", 1), 0);
	child_hear(&producer);
	child_kill(&producer);
	child_kill(&reader);
	scratch_close(cache);
	is_gone_for_good();
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
			is_gone_for_good();
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
			is_gone_for_good();
		}
		/* Each field of the tail, the key and the checksums. */
		for (off_t offset = 1; offset <= 88 + 1 + (sizes[i] > 0) * 8; offset += 7) {
			former_put("k", 1, sizes[i]);
			do_harm(FOOTER, -offset);
			is_gone_for_good();
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
		a_key_that_only_a_file_has_can_be_removed,
		what_was_removed_while_it_was_read_does_not_come_back,
		nor_does_one_that_was_adopted_before,
		what_was_removed_while_the_index_was_walked_does_not_come_back,
		what_was_removed_before_it_was_finished_does_not_come_back,
		what_was_removed_while_it_was_produced_does_not_come_back,
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
