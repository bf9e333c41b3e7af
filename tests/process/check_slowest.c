/* SPDX-License-Identifier: MIT */
/*
 * check_slowest - a writer at the pace of its slowest reader: nobody falls out
 * of the ring, and nobody is woken for nothing.
 */
#include <check.h>
#include <errno.h>
#include <signal.h>

#include "../util/calls.h"

#define WINDOW_BYTES (96u << 10)
#define BLOB_BYTES 2000000u
#define READERS 8

static ssize_t make_blob(struct call *call)
{
	int error = 0;

	must_be(pattern_write(call->writer, 1, 0, call->bytes, 65536, &error), call->bytes);
	return 0;
}

static void finish(struct call *call)
{
	must_be(call_end(call), 0);
	must(scache_finish(call->writer) >= 0);
	scache_writer_close(call->writer);
}

/* ------------------------------------------------------------------- the pace */

START_TEST(the_slowest_of_two_readers_sets_the_pace)
{
	struct call call = { .make = make_blob, .bytes = BLOB_BYTES };
	struct scache *cache = scratch_open();
	struct scache_reader *fast, *slow;
	uint64_t quick = 0, position = 0;

	call.writer = create_as(cache, SCACHE_PACE_SLOWEST, WINDOW_BYTES, &fast);
	slow = scratch_find(cache, "k");
	call_start(&call);
	while (position + WINDOW_BYTES < BLOB_BYTES) {
		must_be(pattern_read(fast, 1, &quick, position + WINDOW_BYTES, 5000), 1);
		eventually(writer_waits_at(fast, position + WINDOW_BYTES));
		must_be(pattern_read(slow, 1, &position, position + WINDOW_BYTES / 2 + 7, 5000), 1);
		must(scratch_info(slow).bytes <= position + WINDOW_BYTES);
	}
	must_be(pattern_read(fast, 1, &quick, BLOB_BYTES, 5000), 1);
	must_be(pattern_read(slow, 1, &position, BLOB_BYTES, 5000), 1);
	/* Up to here all of it came from the ring. */
	scache_reader_close(slow);
	must_be(scratch_stat(cache).bytes_from_file, 0);
	finish(&call);
	must_be(pattern_read(fast, 1, &quick, UINT64_MAX, 5000), 0);
	scache_reader_close(fast);
	fast = scratch_find(cache, "k");
	pattern_read_all(fast, 1, BLOB_BYTES);
	end_with(cache, fast);
}
END_TEST

START_TEST(when_the_slowest_has_gone_the_writer_goes_on)
{
	enum {
		LEAVES,
		KILLED,
		STOPPED_AND_KILLED
	};

	for (int how = LEAVES; how <= STOPPED_AND_KILLED; how++) {
		struct call call = { .make = make_blob, .bytes = BLOB_BYTES };
		uint64_t slow_at = 50000, position = 0;
		struct scache *cache = scratch_open();
		struct scache_reader *reader, *slow = NULL;
		struct child child;

		call.writer = create_as(cache, SCACHE_PACE_SLOWEST, WINDOW_BYTES, &reader);
		if (how == LEAVES) {
			slow = scratch_find(cache, "k");
			slow_at = 0;
		} else {
			child_start(&child, scratch_read_and_stay, &slow_at);
			child_hear(&child);
		}
		call_start(&call);
		must_be(pattern_read(reader, 1, &position, slow_at + WINDOW_BYTES, 5000), 1);
		eventually(writer_waits_at(reader, slow_at + WINDOW_BYTES));
		if (how != LEAVES)
			child_hear(&child);
		if (how == STOPPED_AND_KILLED)
			child_stop(&child);
		must_be(scratch_info(reader).bytes, slow_at + WINDOW_BYTES);
		if (how == LEAVES)
			scache_reader_close(slow);
		else
			child_kill(&child);
		must_be(pattern_read(reader, 1, &position, BLOB_BYTES, 5000), 1);
		finish(&call);
		must_be(scache_remove(cache, "k", 1), 0);
		end_with(cache, reader);
	}
}
END_TEST

START_TEST(who_comes_late_holds_the_writer_until_it_has_caught_up)
{
	struct call call = { .make = make_blob, .bytes = BLOB_BYTES };
	struct scache *cache = scratch_open();
	struct scache_reader *reader, *late;
	uint64_t position = 0, behind = 0, held_at = 500000 + WINDOW_BYTES;

	call.writer = create_as(cache, SCACHE_PACE_SLOWEST, WINDOW_BYTES, &reader);
	call_start(&call);
	must_be(pattern_read(reader, 1, &position, 500000, 5000), 1);
	eventually(writer_waits_at(reader, held_at));
	late = scratch_find(cache, "k");
	/* The first reads on, and the writer stays where it is. */
	must_be(pattern_read(reader, 1, &position, held_at, 5000), 1);
	must_be(pattern_read(late, 1, &behind, held_at - WINDOW_BYTES, 5000), 1);
	must_be(scratch_info(reader).bytes, held_at);
	must_be(pattern_read(late, 1, &behind, behind + WINDOW_BYTES / 2, 5000), 1);
	eventually(writer_waits_at(reader, behind + WINDOW_BYTES));
	while (position < BLOB_BYTES) {
		must_be(pattern_read(late, 1, &behind,
				     behind + 40000 < BLOB_BYTES ? behind + 40000 : BLOB_BYTES,
				     5000),
			1);
		must_be(pattern_read(reader, 1, &position, behind, 5000), 1);
		must(scratch_info(reader).bytes <= behind + WINDOW_BYTES);
	}
	finish(&call);
	must_be(pattern_read(late, 1, &behind, UINT64_MAX, 5000), 0);
	scache_reader_close(late);
	end_with(cache, reader);
}
END_TEST

START_TEST(without_a_file_the_window_counts_from_the_slowest_too)
{
	struct call call = { .make = make_blob, .bytes = BLOB_BYTES };
	struct scache *cache = scratch_open();
	struct scache_reader *fast, *slow;
	uint64_t quick = 0, position = 0;

	call.writer =
		create_as(cache, SCACHE_PASS_THROUGH | SCACHE_PACE_SLOWEST, WINDOW_BYTES, &fast);
	slow = scratch_find(cache, "k");
	call_start(&call);
	while (position + WINDOW_BYTES < BLOB_BYTES) {
		must_be(pattern_read(fast, 1, &quick, position + WINDOW_BYTES, 5000), 1);
		eventually(writer_waits_at(fast, position + WINDOW_BYTES));
		must_be(pattern_read(slow, 1, &position, position + WINDOW_BYTES / 2 + 7, 5000), 1);
	}
	must_be(pattern_read(fast, 1, &quick, BLOB_BYTES, 5000), 1);
	must_be(pattern_read(slow, 1, &position, BLOB_BYTES, 5000), 1);
	finish(&call);
	must_be(pattern_read(slow, 1, &position, UINT64_MAX, 5000), 0);
	scache_reader_close(slow);
	end_with(cache, fast);
}
END_TEST

/* In lock step each write waits until all have read the one before. */
START_TEST(lock_step_with_all_readers)
{
	struct scache *cache = scratch_open();
	struct scache_reader *readers[3];
	struct scache_writer *writer =
		create_as(cache, SCACHE_PACE_SLOWEST, SCACHE_ZERO, &readers[0]);
	uint64_t positions[3] = { 0 }, at = 0;

	readers[1] = scratch_find(cache, "k");
	readers[2] = scratch_find(cache, "k");
	for (unsigned i = 0; i < 30; i++) {
		uint64_t bytes = 1 + i * 977;

		/* In one write, whatever its size. */
		must_be(pattern_write(writer, 1, at, at + bytes, bytes, NULL), bytes);
		at += bytes;
		for (unsigned k = 0; k < 3; k++) {
			must_be(scache_write(writer, "x", 1, 0), -EAGAIN);
			must_be(pattern_read(readers[(i + k) % 3], 1, &positions[(i + k) % 3], at,
					     5000),
				1);
		}
	}
	must_be(scache_finish(writer), 0);
	scache_writer_close(writer);
	for (unsigned k = 1; k < 3; k++)
		scache_reader_close(readers[k]);
	end_with(cache, readers[0]);
}
END_TEST

/* All at once, in processes of their own, with pauses that differ. */
static void read_in_own_time(void *arg)
{
	uint64_t number = *(uint64_t *)arg, position = 0;
	struct scache *cache = scratch_open();
	struct scache_reader *reader = scratch_find(cache, "k");

	child_say(0);
	while (pattern_read(reader, 1, &position, position + 1001 + number * 9973, 20000) == 1)
		if (below(8) < number)
			pause_briefly();
	must_be(position, BLOB_BYTES);
	scache_reader_close(reader);
	scratch_close(cache);
}

START_TEST(readers_of_all_speeds_get_the_same_bytes)
{
	for (uint32_t flags = 0; flags <= SCACHE_PASS_THROUGH; flags += SCACHE_PASS_THROUGH) {
		struct call call = { .make = make_blob, .bytes = BLOB_BYTES };
		struct scache *cache = scratch_open();
		struct child children[READERS];

		call.writer = create_as(cache, flags | SCACHE_PACE_SLOWEST, WINDOW_BYTES, NULL);
		for (uint64_t i = 0; i < READERS; i++) {
			child_start(&children[i], read_in_own_time, &i);
			child_hear(&children[i]);
		}
		call_start(&call);
		finish(&call);
		for (int i = 0; i < READERS; i++)
			child_join(&children[i]);
		if (flags == 0)
			must_be(scache_remove(cache, "k", 1), 0);
		must_be(scratch_stat(cache).bytes_produced,
			flags == 0 ? BLOB_BYTES : 2 * BLOB_BYTES);
		end_with(cache, NULL);
	}
}
END_TEST

/* ----------------------------------------------------------------- the wake-ups */

/* Read to where one is told, in small pieces; say so. */
static void read_as_told(void *arg)
{
	struct scache_reader *reader = scratch_find(scratch_open(), "k");
	uint64_t position = 0, until;

	(void)arg;
	child_say(0);
	while ((until = (uint64_t)child_listen()) > 0) {
		must_be(pattern_read(reader, 1, &position, until, 256), 1);
		child_say(0);
	}
	scache_reader_close(reader);
}

START_TEST(many_readers_do_not_wake_a_writer_that_waits_for_one)
{
	struct call call = { .make = make_blob, .bytes = 8 * WINDOW_BYTES };
	struct scache *cache = scratch_open();
	struct child children[READERS - 1];
	struct scache_reader *slow;
	uint64_t at = 0, halves = 0, position = 0;
	struct scache_stats stats;

	call.writer = create_as(cache, SCACHE_PACE_SLOWEST, WINDOW_BYTES, &slow);
	for (int i = 0; i < READERS - 1; i++) {
		child_start(&children[i], read_as_told, NULL);
		child_hear(&children[i]);
	}
	call_start(&call);
	for (at = WINDOW_BYTES; at <= call.bytes; at += WINDOW_BYTES / 2) {
		for (int i = 0; i < READERS - 1; i++)
			child_tell(&children[i], (int64_t)at);
		for (int i = 0; i < READERS - 1; i++)
			child_hear(&children[i]);
		if (at < call.bytes)
			eventually(writer_waits_at(slow, at));
		must_be(pattern_read(slow, 1, &position, position + WINDOW_BYTES / 2, 256), 1);
		halves++;
	}
	for (int i = 0; i < READERS - 1; i++) {
		child_tell(&children[i], 0);
		child_join(&children[i]);
	}
	scache_reader_close(slow);
	finish(&call);
	stats = scratch_stat(cache);
	must(stats.reads_from_ring >= READERS * halves * (WINDOW_BYTES / 2 / 256));
	/*
	 * For half a window: one for each slice of it, one by each reader, but most
	 * have long been there, and one by each tick in which nobody moved.
	 */
	printf("%u wakes, %u waits, %u reads\n", (unsigned)stats.wakes, (unsigned)stats.waits,
	       (unsigned)stats.reads_from_ring);
	must(stats.wakes <= halves * (READERS + 4));
	must(stats.wakes * 50 < stats.reads_from_ring);
	end_with(cache, NULL);
}
END_TEST

START_TEST(the_reader_that_the_writer_waits_for_wakes_it)
{
	for (uint32_t flags = 0; flags <= SCACHE_PASS_THROUGH; flags += SCACHE_PASS_THROUGH) {
		uint64_t window = flags == 0 ? WINDOW_BYTES : SCRATCH_RING_BYTES;
		struct call call = { .make = make_blob, .bytes = 12 * window };
		struct scache *cache = scratch_open();
		struct scache_reader *reader;
		uint64_t position = 0, wakes = scratch_stat(cache).wakes, turns = 0;

		call.writer = create_as(cache, flags | SCACHE_PACE_SLOWEST,
					flags == 0 ? WINDOW_BYTES : SCACHE_UNLIMITED, &reader);
		call_start(&call);
		/* This reader never sleeps: only it can wake, and only the writer. */
		while (position + window < call.bytes) {
			eventually(writer_waits_at(reader, position + window));
			must_be(pattern_read(reader, 1, &position, position + window / 2, 256), 1);
			turns++;
		}
		must_be(pattern_read(reader, 1, &position, call.bytes, 256), 1);
		finish(&call);
		scache_reader_close(reader);
		wakes = scratch_stat(cache).wakes - wakes;
		/* But for ticks that came first, and for what it slept at the end. */
		must(wakes >= turns / 4 && wakes <= turns + 20);
		if (flags == 0)
			must_be(scache_remove(cache, "k", 1), 0);
		end_with(cache, NULL);
	}
}
END_TEST

int main(void)
{
	const TTest *const tests[] = {
		the_slowest_of_two_readers_sets_the_pace,
		when_the_slowest_has_gone_the_writer_goes_on,
		who_comes_late_holds_the_writer_until_it_has_caught_up,
		without_a_file_the_window_counts_from_the_slowest_too,
		lock_step_with_all_readers,
		readers_of_all_speeds_get_the_same_bytes,
		many_readers_do_not_wake_a_writer_that_waits_for_one,
		the_reader_that_the_writer_waits_for_wakes_it,
	};

	return SCRATCH_RUN("slowest", tests);
}
