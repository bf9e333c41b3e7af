/* SPDX-License-Identifier: MIT */
/*
 * check_seldom - what is wanted too seldom is shared like anything else, and goes with
 * its last reader.
 */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "../util/former.h"
#include "../util/pattern.h"
#include "../util/producer.h"
#include "../util/scratch.h"
#include "../util/spawn.h"
#include "api/cache.h"

#define CROWD 32
#define BLOB_BYTES 1500000ull /* more than the ring */

static struct scache *open_wanting(uint64_t occurrences)
{
	scratch_options.min_occurrences = occurrences;
	scratch_options.peers = 2 * CROWD;
	scratch_options.readers = 64 * 2 * CROWD;
	return scratch_open();
}

/* One production, which nobody reads. */
static int put(struct scache *cache, const char *key, uint64_t bytes)
{
	struct scache_writer *writer = scratch_create(cache, key, SCACHE_UNLIMITED, NULL);
	int ret;

	must_be(pattern_write(writer, 1, 0, bytes, 50000, NULL), bytes);
	ret = scache_finish(writer);
	scache_writer_close(writer);
	return ret;
}

/* ------------------------------------------------------------------ how often */

START_TEST(what_is_produced_for_the_nth_time_is_retained)
{
	static const uint64_t wanted[] = { 1, 2, 3, 7 };

	for (size_t i = 0; i < sizeof(wanted) / sizeof(wanted[0]); i++) {
		struct scache_options changes = { .size = sizeof(changes),
						  .min_occurrences = wanted[i] };
		char key[] = { 'k', (char)('0' + i), '\0' };
		struct scache *cache = open_wanting(1);

		must_be(scache_configure(cache, &changes), 0);
		for (uint64_t n = 1; n < wanted[i]; n++) {
			must_be(put(cache, key, 1000 * n), SCACHE_NOT_KEPT);
			must(strstr(scache_detail(), "min_occurrences") != NULL);
			must(scratch_misses(cache, key));
			must_be(scratch_blobs(), i);
		}
		must_be(put(cache, key, 1000), 0);
		must_be(*scache_detail(), '\0');
		must(!scratch_misses(cache, key));
		scratch_is_clean(cache);
		scratch_close(cache);
	}
}
END_TEST

START_TEST(a_production_that_failed_has_counted)
{
	struct scache *cache = open_wanting(3);
	struct scache_stats stats;

	must_be(put(cache, "k", 1000), SCACHE_NOT_KEPT);
	scache_writer_close(scratch_create(cache, "k", 0, NULL));
	must_be(put(cache, "k", 1000), 0);
	stats = scratch_stat(cache);
	must_be(stats.productions, 3);
	must_be(stats.not_retained, 1);
	scratch_is_clean(cache);
	scratch_close(cache);
}
END_TEST

START_TEST(an_occurrence_is_forgotten)
{
	struct scache *cache;
	int64_t end_ms;
	int ret;

	/* Two ages after the first one the second is the first again. */
	scratch_options.max_age_ns = 50000000;
	cache = open_wanting(2);
	must_be(put(cache, "k", 1000), SCACHE_NOT_KEPT);
	end_ms = now_ms() + 101;
	eventually(now_ms() >= end_ms);
	must_be(put(cache, "k", 1000), SCACHE_NOT_KEPT);
	/* As near to each other as they come, two in a row are enough. */
	end_ms = now_ms() + DEADLINE_MS;
	do
		ret = put(cache, "j", 1000);
	while (ret == SCACHE_NOT_KEPT && now_ms() < end_ms);
	must_be(ret, 0);
	scratch_close(cache);
}
END_TEST

START_TEST(pass_through_neither_counts_nor_is_counted_as_seldom)
{
	const struct scache_acquire_options options = { .size = sizeof(options),
							.flags = SCACHE_PASS_THROUGH };
	struct scache *cache = open_wanting(2);
	struct scache_writer *writer;

	for (int i = 0; i < 3; i++) {
		must_be(scache_acquire(cache, "k", 1, &options, NULL, &writer), 0);
		must(writer != NULL);
		must_be(scache_finish(writer), SCACHE_NOT_KEPT);
		must_be(*scache_detail(), '\0');
		scache_writer_close(writer);
	}
	must_be(scratch_stat(cache).not_retained, 0);
	must_be(put(cache, "k", 1000), SCACHE_NOT_KEPT);
	must_be(put(cache, "k", 1000), 0);
	scratch_is_clean(cache);
	scratch_close(cache);
}
END_TEST

START_TEST(a_refresh_is_an_occurrence_as_any_other)
{
	const struct scache_acquire_options options = { .size = sizeof(options),
							.flags = SCACHE_REFRESH };
	struct scache *cache = open_wanting(2);
	struct scache_writer *writer;

	must_be(put(cache, "k", 1000), SCACHE_NOT_KEPT);
	must_be(put(cache, "k", 1000), 0);
	must_be(scache_remove(cache, "k", 1), 0);
	must_be(put(cache, "k", 1000), 0);
	must_be(scache_acquire(cache, "k", 1, &options, NULL, &writer), 0);
	must(writer != NULL);
	pattern_produce(writer, 2, 500, 500);
	must(!scratch_misses(cache, "k"));
	must_be(scratch_stat(cache).not_retained, 1);
	scratch_is_clean(cache);
	scratch_close(cache);
}
END_TEST

/* --------------------------------------------------------- those who share it */

static const uint64_t blob_bytes = BLOB_BYTES;

static void fetch(void *arg)
{
	struct task task = { .seed = 1, .bytes = *(const uint64_t *)arg, .pauses = true };
	struct scache *cache = scratch_open();
	struct scache_reader *reader;

	child_say(0);
	child_listen();
	task_fetch(cache, "k", NULL, &task, &reader);
	pattern_read_all(reader, 1, task.bytes);
	/* They all hold it yet. */
	child_say(0);
	child_listen();
	scache_reader_close(reader);
	scratch_close(cache);
}

/* CROWD callers at the same time, nobody of whom knows of another. */
static void fetch_together(struct scache *cache, bool stays)
{
	struct child crowd[CROWD];
	struct scache_reader *reader;
	struct stat st;
	char path[400];

	board_make();
	for (int i = 0; i < CROWD; i++)
		child_start(&crowd[i], fetch, (void *)(uintptr_t)&blob_bytes);
	for (int i = 0; i < CROWD; i++)
		child_hear(&crowd[i]);
	for (int i = 0; i < CROWD; i++)
		child_tell(&crowd[i], 0);
	eventually(board->fetches == CROWD && board->paused == 1);
	board->go = 1;
	for (int i = 0; i < CROWD; i++)
		child_hear(&crowd[i]);
	must_be(board->begun, 1);
	/* As long as it is read somebody more may come. */
	reader = scratch_find(cache, "k");
	pattern_read_all(reader, 1, BLOB_BYTES);
	must_be(scratch_info(reader).flags & SCACHE_TRANSIENT ? 1 : 0, !stays);
	scache_reader_close(reader);
	scratch_blob(path, sizeof(path));
	must(stat(path, &st) == 0);
	must_be(!(st.st_mode & 0222), stays);
	for (int i = 0; i < CROWD; i++) {
		child_tell(&crowd[i], 0);
		child_join(&crowd[i]);
	}
	must_be(scratch_misses(cache, "k"), !stays);
	must_be(scratch_blobs(), stays);
}

static void check_rounds(int rounds)
{
	struct scache *cache = open_wanting((uint64_t)rounds);

	for (int i = 1; i <= rounds; i++)
		fetch_together(cache, i == rounds);
	must_be(scratch_stat(cache).productions, rounds);
	must_be(scratch_stat(cache).not_retained, rounds - 1);
	must_be(scratch_stat(cache).evicted + scratch_stat(cache).expired, 0);
	scratch_is_clean(cache);
	scratch_close(cache);
}

START_TEST(thirty_two_who_come_first_share_one_and_nothing_stays)
{
	check_rounds(2);
}
END_TEST

START_TEST(thirty_two_who_come_first_share_one_twice)
{
	check_rounds(3);
}
END_TEST

/* --------------------------------------------------------------- who leaves last */

START_TEST(it_goes_with_its_last_reader_whoever_that_is)
{
	struct scache *cache = open_wanting(2);
	struct scache_reader *readers[3];
	struct scache_writer *writer = scratch_create(cache, "k", SCACHE_UNLIMITED, &readers[0]);

	readers[1] = scratch_find(cache, "k");
	must_be(pattern_write(writer, 1, 0, 1000, 1000, NULL), 1000);
	must_be(scache_finish(writer), SCACHE_NOT_KEPT);
	scache_writer_close(writer);
	must_be(scratch_blobs(), 1);
	for (int i = 0; i < 5; i++) {
		readers[2] = scratch_find(cache, "k");
		pattern_read_all(readers[2], 1, 1000);
		scache_reader_close(readers[i % 2]);
		readers[i % 2] = readers[2];
	}
	scache_reader_close(readers[0]);
	must(!scratch_misses(cache, "k"));
	scache_reader_close(readers[1]);
	must(scratch_misses(cache, "k"));
	must_be(scratch_blobs(), 0);
	scratch_is_clean(cache);
	scratch_close(cache);
}
END_TEST

static void read_and_stay(void *arg)
{
	(void)arg;
	scratch_find(scratch_open(), "k");
	child_say(0);
	child_stay();
}

START_TEST(a_last_reader_that_was_killed_leaves_it_to_a_sweep)
{
	struct scache *cache = open_wanting(2);
	struct scache_writer *writer = scratch_create(cache, "k", SCACHE_UNLIMITED, NULL);
	struct child reader;

	child_start(&reader, read_and_stay, NULL);
	child_hear(&reader);
	must_be(pattern_write(writer, 1, 0, 1000, 1000, NULL), 1000);
	must_be(scache_finish(writer), SCACHE_NOT_KEPT);
	scache_writer_close(writer);
	must(!scratch_misses(cache, "k"));
	child_kill(&reader);
	must_be(scratch_blobs(), 1);
	must_be(scache_sweep(cache, NULL, NULL), 0);
	must(scratch_misses(cache, "k"));
	must_be(scratch_blobs(), 0);
	scratch_is_clean(cache);
	scratch_close(cache);
}
END_TEST

START_TEST(of_those_who_leave_at_once_one_is_the_last)
{
	struct scache *cache = open_wanting(255);
	struct child crowd[CROWD];

	for (int round = 0; round < 5; round++) {
		struct scache_writer *writer = scratch_create(cache, "k", SCACHE_UNLIMITED, NULL);

		for (int i = 0; i < CROWD; i++)
			child_start(&crowd[i], scratch_read_along, (void *)(uintptr_t)&blob_bytes);
		for (int i = 0; i < CROWD; i++)
			child_hear(&crowd[i]);
		must_be(pattern_write(writer, 1, 0, BLOB_BYTES, 50000, NULL), BLOB_BYTES);
		must_be(scache_finish(writer), SCACHE_NOT_KEPT);
		scache_writer_close(writer);
		for (int i = 0; i < CROWD; i++)
			child_join(&crowd[i]);
		/* No sweep was needed for it. */
		must(scratch_misses(cache, "k"));
		must_be(scratch_stat(cache).entries, 0);
		must_be(scratch_blobs(), 0);
	}
	scratch_is_clean(cache);
	scratch_close(cache);
}
END_TEST

/* ----------------------------------------------------------- what it is not */

START_TEST(it_is_not_adopted)
{
	struct scache *cache = open_wanting(2);
	struct scache_reader *reader;
	struct scache_writer *writer = scratch_create(cache, "k", SCACHE_UNLIMITED, &reader);

	must_be(pattern_write(writer, 1, 0, 300000, 50000, NULL), 300000);
	must_be(scache_finish(writer), SCACHE_NOT_KEPT);
	scache_writer_close(writer);
	must_be(scratch_blobs(), 1);
	/* All of a sudden the segment is another one, and nobody has left. */
	segment_retire(cache->seat->store.segment);
	must(scratch_misses(cache, "k"));
	scache_reader_close(reader);
	must_be(scache_sweep(cache, NULL, NULL), 0);
	must_be(scratch_stat(cache).adopted, 0);
	must_be(scratch_blobs(), 0);
	scratch_close(cache);
}
END_TEST

START_TEST(what_is_adopted_stays)
{
	struct scache *cache;

	former_put("k", 1, 300000);
	former_lose(LOST_FILE);
	cache = open_wanting(2);
	former_has(cache, "k", 1, 300000);
	former_has(cache, "k", 1, 300000);
	must_be(scratch_stat(cache).productions, 0);
	scratch_close(cache);
}
END_TEST

static void die_in_the_midst(void *arg)
{
	const struct scache_acquire_options options = { .size = sizeof(options),
							.flags = SCACHE_RESUMABLE | SCACHE_RUN_TO_END,
							.window_bytes = SCACHE_UNLIMITED };
	struct scache_writer *writer;

	must_be(scache_acquire(scratch_open(), "k", 1, &options, NULL, &writer), 0);
	must(writer != NULL);
	must_be(pattern_write(writer, 1, 0, 400000, 50000, NULL), 400000);
	child_say(*(const int *)arg);
	child_stay();
}

/* Killed the @nth time: as it was begun, so it is ended. */
static void check_taken_over(int nth, int wanted)
{
	const struct scache_acquire_options options = { .size = sizeof(options),
							.flags = SCACHE_RESUMABLE | SCACHE_RUN_TO_END,
							.window_bytes = SCACHE_UNLIMITED };
	struct scache *cache = open_wanting(2);
	struct scache_writer *writer = NULL;
	struct child producer;

	for (int i = 1; i < nth; i++)
		must_be(put(cache, "k", 10), SCACHE_NOT_KEPT);
	child_start(&producer, die_in_the_midst, &nth);
	child_hear(&producer);
	child_kill(&producer);
	eventually(scache_acquire(cache, "k", 1, &options, NULL, &writer) == 0 && writer != NULL);
	must_be(scache_written(writer), 400000);
	must_be(pattern_write(writer, 1, 400000, BLOB_BYTES, 50000, NULL), BLOB_BYTES - 400000);
	must_be(scache_finish(writer), wanted);
	scache_writer_close(writer);
	must_be(scratch_misses(cache, "k"), wanted != 0);
	/* Two productions, one occurrence. */
	must_be(scratch_stat(cache).productions, nth + 1);
	if (wanted != 0)
		must_be(put(cache, "k", 10), 0);
	scratch_is_clean(cache);
	scratch_close(cache);
}

START_TEST(who_takes_over_goes_on_with_what_is_not_to_be_retained)
{
	check_taken_over(1, SCACHE_NOT_KEPT);
}
END_TEST

START_TEST(who_takes_over_goes_on_with_what_is_to_be_retained)
{
	check_taken_over(2, 0);
}
END_TEST

int main(void)
{
	const TTest *const tests[] = {
		what_is_produced_for_the_nth_time_is_retained,
		a_production_that_failed_has_counted,
		an_occurrence_is_forgotten,
		pass_through_neither_counts_nor_is_counted_as_seldom,
		a_refresh_is_an_occurrence_as_any_other,
		thirty_two_who_come_first_share_one_and_nothing_stays,
		thirty_two_who_come_first_share_one_twice,
		it_goes_with_its_last_reader_whoever_that_is,
		a_last_reader_that_was_killed_leaves_it_to_a_sweep,
		of_those_who_leave_at_once_one_is_the_last,
		it_is_not_adopted,
		what_is_adopted_stays,
		who_takes_over_goes_on_with_what_is_not_to_be_retained,
		who_takes_over_goes_on_with_what_is_to_be_retained,
	};

	return SCRATCH_RUN("seldom", tests);
}
