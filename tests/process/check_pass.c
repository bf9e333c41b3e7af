/* SPDX-License-Identifier: MIT */
/*
 * check_pass - what passes through is shared by whoever comes in time, at the
 * pace of the slowest, stored by nobody, and gone afterwards.
 */
#include <check.h>
#include <errno.h>
#include <signal.h>
#include <string.h>

#include "../util/calls.h"

#define RING_BYTES SCRATCH_RING_BYTES
#define CALLERS 8
#define BLOB_BYTES 3000000u
#define ROUNDS 40
#define SMALL_RING_BYTES (64u << 10)

static struct scache_acquire_options pass_through = { .size = sizeof(pass_through),
						      .flags = SCACHE_PASS_THROUGH };

static ssize_t make_blob(struct call *call)
{
	int error = 0;

	must_be(pattern_write(call->writer, 1, 0, call->bytes, 30011, &error), call->bytes);
	must_be(scache_finish(call->writer), SCACHE_NOT_KEPT);
	return scache_writer_close(call->writer);
}

/* Nothing wrong, and not a file, whatever goes on just now. */
static void look_in(struct scache *cache)
{
	must_be(scache_check(cache, NULL, NULL), 0);
	must_be(scratch_blobs(), 0);
}

/* ------------------------------------------------------------------- sharing */

/* Come, say who is elected, and get all of it when told to. */
static void call_for(void *arg)
{
	struct scache *cache = scratch_open();
	struct call call = { .make = make_blob, .bytes = BLOB_BYTES };

	must_be(scache_acquire(cache, "k", 1, arg, &call.reader, &call.writer), 0);
	child_say(call.writer != NULL);
	child_listen();
	if (call.writer != NULL)
		call_start(&call);
	pattern_read_all(call.reader, 1, BLOB_BYTES);
	if (call.writer != NULL)
		must_be(call_end(&call), 0);
	scache_reader_close(call.reader);
	scratch_close(cache);
}

static void share(const struct scache_acquire_options *options)
{
	struct scache_acquire_options own;
	struct child callers[CALLERS];
	struct scache *cache = scratch_open();
	struct scache_stats stats;
	int64_t elected = 0;

	if (options != NULL)
		own = *options;
	for (int i = 0; i < CALLERS; i++)
		child_start(&callers[i], call_for, options != NULL ? &own : NULL);
	for (int i = 0; i < CALLERS; i++)
		elected += child_hear(&callers[i]);
	must_be(elected, 1);
	for (int i = 0; i < CALLERS; i++)
		child_tell(&callers[i], 0);
	do {
		look_in(cache);
		stats = scratch_stat(cache);
	} while (stats.readers > 0 || stats.entries_filling > 0);
	for (int i = 0; i < CALLERS; i++)
		child_join(&callers[i]);
	stats = scratch_stat(cache);
	must_be(stats.productions, 1);
	must_be(stats.joins, CALLERS - 1);
	must_be(stats.bytes_produced, BLOB_BYTES);
	must_be(stats.bytes_from_ring, CALLERS * (uint64_t)BLOB_BYTES);
	must_be(stats.bytes_from_file, 0);
	must_be(stats.degraded, 0);
	must(scratch_misses(cache, "k"));
	must_be(scratch_stat(cache).entries_finished, 0);
	scratch_is_clean(cache);
	scratch_close(cache);
}

START_TEST(callers_at_once_share_one_production_that_nobody_stores)
{
	share(&pass_through);
}
END_TEST

START_TEST(a_whole_handle_may_pass_through)
{
	scratch_options.flags = SCACHE_PASS_THROUGH;
	share(NULL);
}
END_TEST

START_TEST(who_comes_within_the_ring_joins_and_who_comes_later_produces)
{
	struct scache *cache = scratch_open();
	struct scache_reader *first, *second, *third;
	struct scache_writer *writer, *other;
	uint64_t at = 0;

	writer = create_as(cache, SCACHE_PASS_THROUGH, 0, &first);
	must(scratch_info(first).flags & SCACHE_RING_ONLY);
	put(writer, 0, RING_BYTES);
	must_be(scache_acquire(cache, "k", 1, &pass_through, &second, &other), 0);
	must(other == NULL);
	/* The first byte may go only when both have read it. */
	must_be(pattern_read(first, 1, &at, 5000, 5000), 1);
	must_be(scache_write(writer, "x", 1, 0), -EAGAIN);
	at = 0;
	must_be(pattern_read(second, 1, &at, 1, 1), 1);
	put(writer, RING_BYTES, RING_BYTES + 1);
	must_be(scache_write(writer, "x", 1, 0), -EAGAIN);
	must(scratch_info(first).flags & SCACHE_HIDDEN);
	must(scratch_misses(cache, "k"));
	other = create_as(cache, SCACHE_PASS_THROUGH, 0, &third);
	must_be(scratch_stat(cache).productions, 2);
	must_be(scratch_stat(cache).rings_in_use, 2);
	put(other, 0, 100);
	must_be(scache_finish(writer), SCACHE_NOT_KEPT);
	must_be(scache_finish(other), SCACHE_NOT_KEPT);
	must(scratch_misses(cache, "k"));
	at = 5000;
	must_be(pattern_read(first, 1, &at, UINT64_MAX, 9000), 0);
	must_be(at, RING_BYTES + 1);
	at = 1;
	must_be(pattern_read(second, 1, &at, UINT64_MAX, 9000), 0);
	must_be(at, RING_BYTES + 1);
	pattern_read_all(third, 1, 100);
	scache_writer_close(writer);
	scache_writer_close(other);
	scache_reader_close(second);
	scache_reader_close(third);
	look_in(cache);
	end_with(cache, first);
}
END_TEST

/* Come again and again: join, or produce, just as the ring wraps. */
static void come_again(void *arg)
{
	struct scache *cache = scratch_open();
	uint64_t bytes = *(uint64_t *)arg;

	child_say(0);
	child_listen();
	for (int i = 0; i < ROUNDS; i++) {
		struct call call = { .make = make_blob, .bytes = bytes };

		must_be(scache_acquire(cache, "k", 1, &pass_through, &call.reader, &call.writer),
			0);
		if (call.writer != NULL)
			call_start(&call);
		pattern_read_all(call.reader, 1, bytes);
		if (call.writer != NULL)
			must_be(call_end(&call), 0);
		scache_reader_close(call.reader);
	}
	scratch_close(cache);
}

START_TEST(who_comes_while_the_ring_wraps_gets_every_byte)
{
	uint64_t bytes = 3 * SMALL_RING_BYTES;
	struct child callers[CALLERS];
	struct scache_stats stats;
	struct scache *cache;

	scratch_options.ring_bytes = SMALL_RING_BYTES;
	scratch_options.rings = 4 * CALLERS;
	cache = scratch_open();
	for (int i = 0; i < CALLERS; i++) {
		child_start(&callers[i], come_again, &bytes);
		child_hear(&callers[i]);
	}
	for (int i = 0; i < CALLERS; i++)
		child_tell(&callers[i], 0);
	for (int i = 0; i < CALLERS; i++) {
		look_in(cache);
		child_join(&callers[i]);
	}
	stats = scratch_stat(cache);
	must_be(stats.productions + stats.joins, CALLERS * ROUNDS);
	must_be(stats.bytes_produced, stats.productions * bytes);
	must_be(stats.bytes_from_ring, CALLERS * ROUNDS * bytes);
	scratch_is_clean(cache);
	scratch_close(cache);
}
END_TEST

START_TEST(a_stored_entry_is_a_hit_for_who_passes_through)
{
	struct scache *cache = scratch_open();
	struct scache_writer *stored = scratch_create(cache, "k", 0, NULL), *writer;
	struct scache_reader *reader;

	put(stored, 0, 10000);
	must_be(scache_acquire(cache, "k", 1, &pass_through, &reader, &writer), 0);
	must(writer == NULL);
	must(!(scratch_info(reader).flags & SCACHE_RING_ONLY));
	must_be(pread_at(reader, 100, 1000, 0), 1000);
	scache_reader_close(reader);
	must_be(scache_finish(stored), 0);
	scache_writer_close(stored);
	must_be(scache_acquire(cache, "k", 1, &pass_through, &reader, &writer), 0);
	must(writer == NULL);
	must_be(scratch_stat(cache).hits, 1);
	pattern_read_all(reader, 1, 10000);
	must_be(scratch_blobs(), 1);
	end_with(cache, reader);
}
END_TEST

/* ------------------------------------------------------------------- the pace */

struct visit {
	uint64_t until;
};

static void read_and_stay(void *arg)
{
	const struct visit *visit = arg;
	struct scache_reader *reader = scratch_find(scratch_open(), "k");
	uint64_t position = 0;

	child_say(0);
	must(visit->until == 0 || pattern_read(reader, 1, &position, visit->until, 1000) == 1);
	child_say(0);
	child_stay();
}

/* A reader stopped at @stopped_at, and another: how far does the writer go? */
static void stop_reader_at(uint64_t stopped_at, uint32_t flags, uint64_t window_bytes)
{
	struct call call = { .make = make_blob, .bytes = BLOB_BYTES };
	struct visit visit = { stopped_at };
	struct scache *cache = scratch_open();
	struct scache_reader *reader;
	uint64_t position = 0;
	struct child child;

	call.writer = create_as(cache, SCACHE_PASS_THROUGH | flags, window_bytes, &reader);
	child_start(&child, read_and_stay, &visit);
	child_hear(&child);
	call_start(&call);
	must_be(pattern_read(reader, 1, &position, stopped_at + 1, 1000), 1);
	child_hear(&child);
	child_stop(&child);
	must_be(pattern_read(reader, 1, &position, stopped_at + RING_BYTES, 1000), 1);
	eventually(writer_waits_at(reader, stopped_at + RING_BYTES));
	look_in(cache);
	must_be(scratch_misses(cache, "k"), stopped_at > 0);
	/* Nor does it go on for a reader that has come to the end of all there is. */
	must_be(scratch_info(reader).bytes, stopped_at + RING_BYTES);
	child_kill(&child);
	must_be(pattern_read(reader, 1, &position, UINT64_MAX, 5000), 0);
	must_be(position, BLOB_BYTES);
	must_be(call_end(&call), 0);
	must(scratch_misses(cache, "k"));
	end_with(cache, reader);
}

START_TEST(a_stopped_reader_stops_the_writer_at_one_ring_until_it_is_killed)
{
	stop_reader_at(123457, 0, 0);
	stop_reader_at(123457, SCACHE_RUN_TO_END, 100000);
	stop_reader_at(2 * RING_BYTES, 0, 100000);
	stop_reader_at(0, 0, 0);
}
END_TEST

START_TEST(an_unlimited_writer_waits_for_a_first_reader_who_is_slow)
{
	struct call call = { .make = make_blob, .bytes = BLOB_BYTES };
	struct scache *cache = scratch_open();
	struct scache_reader *reader;
	uint64_t position = 0;

	call.writer = create_as(cache, SCACHE_PASS_THROUGH, SCACHE_UNLIMITED, NULL);
	call_start(&call);
	eventually(scratch_stat(cache).waits > 0);
	/* Nobody has come yet, and all is still there for whoever comes. */
	reader = scratch_find(cache, "k");
	eventually(writer_waits_at(reader, RING_BYTES));
	while (position + RING_BYTES < BLOB_BYTES) {
		must_be(pattern_read(reader, 1, &position, position + RING_BYTES / 2, 9000), 1);
		if (position + RING_BYTES < BLOB_BYTES)
			eventually(writer_waits_at(reader, position + RING_BYTES));
	}
	must_be(pattern_read(reader, 1, &position, UINT64_MAX, 9000), 0);
	must_be(position, BLOB_BYTES);
	must_be(call_end(&call), 0);
	look_in(cache);
	end_with(cache, reader);
}
END_TEST

START_TEST(who_runs_to_the_end_ends_without_readers)
{
	struct call call = { .make = make_blob, .bytes = BLOB_BYTES };
	struct scache *cache = scratch_open();
	struct scache_reader *reader;

	call.writer = create_as(cache, SCACHE_PASS_THROUGH | SCACHE_RUN_TO_END, 0, NULL);
	must_be(make_blob(&call), 0);
	call.writer = create_as(cache, SCACHE_PASS_THROUGH | SCACHE_RUN_TO_END, 50000, &reader);
	call_start(&call);
	eventually(writer_waits_at(reader, 50000));
	scache_reader_close(reader);
	must_be(call_end(&call), 0);
	look_in(cache);
	end_with(cache, NULL);
}
END_TEST

/* ------------------------------------------------------------------ the ends */

START_TEST(without_a_free_ring_the_caller_is_on_its_own)
{
	struct scache_reader *reader, *bypassed = NULL;
	struct scache_writer *writer, *other = NULL;
	struct scache *cache;

	scratch_options.rings = 1;
	cache = scratch_open();
	writer = create_as(cache, SCACHE_PASS_THROUGH, 0, &reader);
	must_be(scache_acquire(cache, "other", 5, &pass_through, &bypassed, &other), SCACHE_BYPASS);
	must(bypassed == NULL && other == NULL);
	must_be(scratch_stat(cache).bypasses, 1);
	must(scratch_misses(cache, "other"));
	look_in(cache);
	put(writer, 0, 100);
	must_be(scache_finish(writer), SCACHE_NOT_KEPT);
	scache_writer_close(writer);
	/* Its ring is needed as long as it has a reader. */
	must_be(scache_acquire(cache, "other", 5, &pass_through, &bypassed, &other), SCACHE_BYPASS);
	pattern_read_all(reader, 1, 100);
	scache_reader_close(reader);
	must_be(scache_acquire(cache, "other", 5, &pass_through, &bypassed, &other), 0);
	must(other != NULL);
	scache_writer_close(other);
	end_with(cache, bypassed);
}
END_TEST

START_TEST(a_failure_passes_through_with_its_message)
{
	struct scache *cache = scratch_open();
	struct scache_reader *reader;
	struct scache_writer *writer = create_as(cache, SCACHE_PASS_THROUGH, 0, &reader);
	uint64_t position = 0;
	char text[100];

	put(writer, 0, 5000);
	must_be(scache_abort(writer, 7, "it went wrong", 13), 0);
	scache_writer_close(writer);
	must(scratch_misses(cache, "k"));
	must_be(pattern_read(reader, 1, &position, UINT64_MAX, 1000), -EREMOTEIO);
	must_be(position, 5000);
	must_be(scache_message(reader, text, sizeof(text)), 13);
	must(strcmp(text, "it went wrong") == 0);
	look_in(cache);
	end_with(cache, reader);
}
END_TEST

static void pass_and_stay(void *arg)
{
	struct scache_writer *writer = create_as(scratch_open(), SCACHE_PASS_THROUGH, 0, NULL);
	uint64_t bytes = *(uint64_t *)arg;
	int error = 0;

	child_say(0);
	must_be(pattern_write(writer, 1, 0, bytes, 10000, &error), bytes);
	child_say(0);
	child_stay();
}

START_TEST(a_producer_that_is_killed_leaves_its_bytes_and_no_ring)
{
	uint64_t bytes = RING_BYTES + 100000, position = 0;
	struct scache *cache = scratch_open();
	struct scache_reader *reader;
	struct child child;

	child_start(&child, pass_and_stay, &bytes);
	child_hear(&child);
	reader = scratch_find(cache, "k");
	must_be(pattern_read(reader, 1, &position, 100000, 1000), 1);
	child_hear(&child);
	child_kill(&child);
	must_be(pattern_read(reader, 1, &position, UINT64_MAX, 1000), -EOWNERDEAD);
	must_be(position, bytes);
	look_in(cache);
	end_with(cache, reader);
}
END_TEST

int main(void)
{
	const TTest *const tests[] = {
		callers_at_once_share_one_production_that_nobody_stores,
		a_whole_handle_may_pass_through,
		who_comes_within_the_ring_joins_and_who_comes_later_produces,
		who_comes_while_the_ring_wraps_gets_every_byte,
		a_stored_entry_is_a_hit_for_who_passes_through,
		a_stopped_reader_stops_the_writer_at_one_ring_until_it_is_killed,
		an_unlimited_writer_waits_for_a_first_reader_who_is_slow,
		who_runs_to_the_end_ends_without_readers,
		without_a_free_ring_the_caller_is_on_its_own,
		a_failure_passes_through_with_its_message,
		a_producer_that_is_killed_leaves_its_bytes_and_no_ring,
	};

	return SCRATCH_RUN("pass", tests);
}
