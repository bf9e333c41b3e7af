/* SPDX-License-Identifier: MIT */
/*
 * check_window - how far a writer may go ahead of its readers, and what it is
 * told when it may not, or when there is nobody left to wait for.
 */
#include <check.h>
#include <errno.h>
#include <signal.h>
#include <string.h>

#include "../util/pattern.h"
#include "../util/scratch.h"
#include "../util/spawn.h"

#define WINDOW_BYTES (96u << 10)
#define SECOND_NS 1000000000ll

struct plan {
	uint64_t window_bytes;
	uint64_t bytes;
	size_t piece;
	uint32_t flags; /* of the acquire */
};

static struct scache_writer *create_as(struct scache *cache, const struct plan *plan)
{
	struct scache_acquire_options options = { .size = sizeof(options),
						  .flags = plan->flags,
						  .window_bytes = plan->window_bytes };
	struct scache_writer *writer;

	must_be(scache_acquire(cache, "k", 1, &options, NULL, &writer), 0);
	must(writer != NULL);
	return writer;
}

/* Be elected, wait for a word, write; report the bytes taken and the error, if any. */
static void produce(void *arg)
{
	const struct plan *plan = arg;
	struct scache_writer *writer = create_as(scratch_open(), plan);
	int error = 0;

	child_say(0);
	child_listen();
	child_say((int64_t)pattern_write(writer, 1, 0, plan->bytes, plan->piece, &error));
	child_say(error);
	if (error == 0)
		must_be(scache_finish(writer), 0);
	else /* for good */
		must_be(scache_write(writer, "x", 1, 0), error);
	child_say(scache_writer_close(writer));
}

static struct scache_reader *start_producer(struct child *ret_child, struct plan *plan,
					    struct scache *cache)
{
	struct scache_reader *reader;

	child_start(ret_child, produce, plan);
	child_hear(ret_child);
	reader = scratch_find(cache, "k");
	child_tell(ret_child, 0);
	return reader;
}

static void end_producer(struct child *child, uint64_t bytes, int error)
{
	must_be(child_hear(child), bytes);
	must_be(child_hear(child), error);
	must_be(child_hear(child), 0);
	child_join(child);
}

static void end_reader(struct scache *cache, struct scache_reader *reader)
{
	scache_reader_close(reader);
	scratch_is_clean(cache);
	scratch_close(cache);
}

static int writer_waits_at(struct scache_reader *reader, uint64_t bytes)
{
	struct scache_entry_info info = scratch_info(reader);

	must(info.bytes <= bytes);
	return info.bytes == bytes && info.flags & SCACHE_WRITER_WAITS;
}

START_TEST(a_full_window_stops_the_writer_and_a_read_lets_it_go_on)
{
	struct plan plan = { WINDOW_BYTES, 1000000, 10000, 0 };
	struct scache *cache = scratch_open();
	uint64_t position = 0;
	struct child child;
	struct scache_reader *reader = start_producer(&child, &plan, cache);

	must_be(scratch_info(reader).window_bytes, WINDOW_BYTES);
	eventually(writer_waits_at(reader, WINDOW_BYTES));
	/* Half a window is worth waking the writer for; it then fills all of it again. */
	must_be(pattern_read(reader, 1, &position, WINDOW_BYTES / 2, 4096), 1);
	eventually(writer_waits_at(reader, position + WINDOW_BYTES));
	while (position + WINDOW_BYTES < plan.bytes) {
		must_be(pattern_read(reader, 1, &position, position + 5000, 5000), 1);
		must(scratch_info(reader).bytes <= position + WINDOW_BYTES);
	}
	must_be(pattern_read(reader, 1, &position, UINT64_MAX, 65536), 0);
	must_be(position, plan.bytes);
	end_producer(&child, plan.bytes, 0);
	end_reader(cache, reader);
}
END_TEST

START_TEST(a_writer_without_any_reader_yet_stops_at_the_window)
{
	struct scache *cache = scratch_open();
	struct scache_writer *writer = scratch_create(cache, "k", WINDOW_BYTES, NULL);
	static char data[2 * WINDOW_BYTES];
	struct scache_reader *reader;

	must_be(scache_write(writer, data, sizeof(data), 0), WINDOW_BYTES);
	must_be(scache_write(writer, data, 1, 0), -EAGAIN);
	reader = scratch_find(cache, "k");
	must_be(scache_write(writer, data, 1, 0), -EAGAIN);
	must_be(scache_read(reader, data, 1, 0), 1);
	must_be(scache_write(writer, data, 2, 0), 1);
	scache_writer_close(writer);
	end_reader(cache, reader);
}
END_TEST

/* The sizes of the writes of one lock step test: some larger than the ring. */
static uint64_t step_bytes(uint64_t i)
{
	return i % 16 == 15 ? SCRATCH_RING_BYTES + 12345 : 1 + i * 7919 % 60000;
}

static void produce_in_steps(void *arg)
{
	static char data[SCRATCH_RING_BYTES + 12345];
	uint64_t count = *(uint64_t *)arg, at = 0;
	struct plan plan = { SCACHE_ZERO, 0, 0, 0 };
	struct scache_writer *writer = create_as(scratch_open(), &plan);

	child_say(0);
	child_listen();
	for (uint64_t i = 0; i < count; i++) {
		uint64_t bytes = step_bytes(i);

		pattern_fill(1, at, data, bytes);
		must_be(scache_write(writer, data, bytes, SCACHE_FOREVER), bytes);
		at += bytes;
	}
	must_be(scache_finish(writer), 0);
}

START_TEST(in_lock_step_the_writer_is_never_more_than_one_write_ahead)
{
	uint64_t count = 64, end = 0, position = 0;
	struct scache *cache = scratch_open();
	struct scache_reader *reader;
	struct child child;

	child_start(&child, produce_in_steps, &count);
	child_hear(&child);
	reader = scratch_find(cache, "k");
	must_be(scratch_info(reader).window_bytes, SCACHE_ZERO);
	child_tell(&child, 0);
	for (uint64_t i = 0; i < count; i++) {
		end += step_bytes(i);
		/* All but the last byte is not enough for the next write. */
		must_be(pattern_read(reader, 1, &position, end - 1, 65536), 1);
		if (i + 1 < count)
			eventually(writer_waits_at(reader, end));
		must_be(pattern_read(reader, 1, &position, end, 1), 1);
	}
	must_be(pattern_read(reader, 1, &position, UINT64_MAX, 1), 0);
	child_join(&child);
	end_reader(cache, reader);
}
END_TEST

START_TEST(an_unlimited_writer_waits_for_nobody)
{
	struct plan plan = { SCACHE_UNLIMITED, 3000000, 10000, 0 };
	struct scache *cache = scratch_open();
	struct child child;
	struct scache_reader *reader = start_producer(&child, &plan, cache);

	end_producer(&child, plan.bytes, 0);
	pattern_read_all(reader, 1, plan.bytes);
	end_reader(cache, reader);
}
END_TEST

START_TEST(the_fastest_of_two_readers_sets_the_pace)
{
	struct plan plan = { WINDOW_BYTES, 1000000, 10000, 0 };
	struct scache *cache = scratch_open();
	uint64_t position = 0;
	struct child child;
	struct scache_reader *fast = start_producer(&child, &plan, cache);
	struct scache_reader *slow = scratch_find(cache, "k");

	must_be(pattern_read(fast, 1, &position, 500000, 4096), 1);
	eventually(writer_waits_at(fast, position + WINDOW_BYTES));
	must_be(pattern_read(fast, 1, &position, UINT64_MAX, 4096), 0);
	end_producer(&child, plan.bytes, 0);
	pattern_read_all(slow, 1, plan.bytes);
	scache_reader_close(slow);
	end_reader(cache, fast);
}
END_TEST

/* ------------------------------------------------------------ all readers gone */

START_TEST(the_next_write_after_the_last_reader_left_is_epipe)
{
	struct plan plan = { SCACHE_UNLIMITED, 1000, 1000, 0 };
	struct scache *cache = scratch_open();
	struct scache_writer *writer = create_as(cache, &plan);
	struct scache_reader *one = scratch_find(cache, "k"), *other = scratch_find(cache, "k");

	must_be(scache_write(writer, "x", 1, 0), 1);
	scache_reader_close(one);
	must_be(scache_write(writer, "x", 1, 0), 1);
	must_be(scache_writer_check(writer), 0);
	scache_reader_close(other);
	must_be(scache_write(writer, "x", 1, 0), -EPIPE);
	must(scratch_misses(cache, "k"));
	must_be(scache_writer_check(writer), -EPIPE);
	must_be(scache_finish(writer), -EPIPE);
	scache_writer_close(writer);
	/* Its key is free. */
	pattern_produce(scratch_create(cache, "k", 0, NULL), 2, 100, 100);
	scratch_close(cache);
}
END_TEST

START_TEST(a_writer_in_a_full_window_learns_that_the_last_reader_left)
{
	struct plan plan = { WINDOW_BYTES, 1000000, WINDOW_BYTES, 0 };
	struct scache *cache = scratch_open();
	struct child child;
	struct scache_reader *reader = start_producer(&child, &plan, cache);

	eventually(writer_waits_at(reader, WINDOW_BYTES));
	scache_reader_close(reader);
	end_producer(&child, WINDOW_BYTES, -EPIPE);
	must(scratch_misses(cache, "k"));
	scratch_is_clean(cache);
	scratch_close(cache);
}
END_TEST

START_TEST(a_write_that_everybody_leaves_tells_first_what_it_took)
{
	struct plan plan = { WINDOW_BYTES, 2 * WINDOW_BYTES, 2 * WINDOW_BYTES, 0 };
	struct scache *cache = scratch_open();
	struct child child;
	struct scache_reader *reader = start_producer(&child, &plan, cache);

	eventually(writer_waits_at(reader, WINDOW_BYTES));
	scache_reader_close(reader);
	end_producer(&child, WINDOW_BYTES, -EPIPE);
	scratch_is_clean(cache);
	scratch_close(cache);
}
END_TEST

static void attach_and_stay(void *arg)
{
	(void)arg;
	scratch_find(scratch_open(), "k");
	child_say(0);
	child_stay();
}

START_TEST(a_writer_in_a_full_window_learns_that_its_readers_were_killed)
{
	struct plan plan = { WINDOW_BYTES, 1000000, WINDOW_BYTES, 0 };
	struct scache *cache = scratch_open();
	struct child writer, readers[3];
	struct scache_reader *reader;

	child_start(&writer, produce, &plan);
	child_hear(&writer);
	for (int i = 0; i < 3; i++) {
		child_start(&readers[i], attach_and_stay, NULL);
		child_hear(&readers[i]);
	}
	reader = scratch_find(cache, "k");
	child_tell(&writer, 0);
	eventually(writer_waits_at(reader, WINDOW_BYTES));
	scache_reader_close(reader);
	for (int i = 0; i < 3; i++)
		child_kill(&readers[i]);
	end_producer(&writer, WINDOW_BYTES, -EPIPE);
	scratch_is_clean(cache);
	scratch_close(cache);
}
END_TEST

START_TEST(a_silent_writer_finds_out_that_its_readers_were_killed)
{
	struct plan plan = { SCACHE_UNLIMITED, 0, 1, 0 };
	struct scache *cache = scratch_open();
	struct scache_writer *writer = create_as(cache, &plan);
	struct child reader;

	child_start(&reader, attach_and_stay, NULL);
	child_hear(&reader);
	must_be(scache_writer_check(writer), 0);
	child_kill(&reader);
	eventually(scache_writer_check(writer) == -EPIPE);
	must_be(scache_write(writer, "x", 1, 0), -EPIPE);
	scache_writer_close(writer);
	scratch_close(cache);
}
END_TEST

START_TEST(run_to_end_goes_on_without_readers)
{
	struct plan plan = { WINDOW_BYTES, 1000000, 10000, SCACHE_RUN_TO_END };
	struct scache *cache = scratch_open();
	struct child child;
	struct scache_reader *reader = start_producer(&child, &plan, cache);

	eventually(writer_waits_at(reader, WINDOW_BYTES));
	scache_reader_close(reader);
	end_producer(&child, plan.bytes, 0);
	reader = scratch_find(cache, "k");
	pattern_read_all(reader, 1, plan.bytes);
	end_reader(cache, reader);
}
END_TEST

START_TEST(run_to_end_goes_on_when_its_readers_are_killed)
{
	struct plan plan = { WINDOW_BYTES, 1000000, 10000, SCACHE_RUN_TO_END };
	struct scache *cache = scratch_open();
	struct child writer, killed;
	struct scache_reader *reader;

	child_start(&writer, produce, &plan);
	child_hear(&writer);
	child_start(&killed, attach_and_stay, NULL);
	child_hear(&killed);
	reader = scratch_find(cache, "k");
	child_tell(&writer, 0);
	eventually(writer_waits_at(reader, WINDOW_BYTES));
	scache_reader_close(reader);
	child_kill(&killed);
	end_producer(&writer, plan.bytes, 0);
	reader = scratch_find(cache, "k");
	pattern_read_all(reader, 1, plan.bytes);
	end_reader(cache, reader);
}
END_TEST

START_TEST(a_writer_whose_entry_was_removed_before_anybody_came_is_told)
{
	struct scache *cache = scratch_open();
	struct scache_writer *writer = scratch_create(cache, "k", WINDOW_BYTES, NULL);
	static char data[WINDOW_BYTES];

	must_be(scache_remove(cache, "k", 1), 0);
	/* Nobody can come any more, so it makes no sense to wait for him. */
	must(scache_write(writer, data, sizeof(data), SECOND_NS) != -ETIMEDOUT);
	must(scache_write(writer, data, sizeof(data), SECOND_NS) != -ETIMEDOUT);
	scache_writer_close(writer);
	scratch_is_clean(cache);
	scratch_close(cache);
}
END_TEST

/* ------------------------------------------------------- deadlock and deadlines */

START_TEST(a_thread_that_fills_the_window_of_its_own_reader_is_told_to_read)
{
	struct scache *cache = scratch_open();
	static char data[3 * WINDOW_BYTES];
	struct scache_reader *reader;
	struct scache_writer *writer = scratch_create(cache, "k", WINDOW_BYTES, &reader);
	uint64_t position = 0;

	pattern_fill(1, 0, data, sizeof(data));
	must_be(scache_write(writer, data, sizeof(data), SCACHE_FOREVER), WINDOW_BYTES);
	must_be(scache_write(writer, data + WINDOW_BYTES, 1, SCACHE_FOREVER), -EDEADLK);
	/* Not for good: */
	must_be(pattern_read(reader, 1, &position, WINDOW_BYTES, 4096), 1);
	must_be(scache_write(writer, data + WINDOW_BYTES, WINDOW_BYTES, SCACHE_FOREVER),
		WINDOW_BYTES);
	must_be(scache_finish(writer), 0);
	scache_writer_close(writer);
	must_be(pattern_read(reader, 1, &position, UINT64_MAX, 4096), 0);
	must_be(position, 2 * WINDOW_BYTES);
	end_reader(cache, reader);
}
END_TEST

START_TEST(a_writers_time_is_over)
{
	struct scache *cache = scratch_open();
	static char data[2 * WINDOW_BYTES];
	struct scache_reader *reader;
	struct scache_writer *writer = scratch_create(cache, "k", WINDOW_BYTES, &reader);
	int64_t began_ms = now_ms();

	must_be(scache_write(writer, data, sizeof(data), 100000000), WINDOW_BYTES);
	must(now_ms() - began_ms >= 99);
	must_be(scache_write(writer, data, 1, 0), -EAGAIN);
	began_ms = now_ms();
	must_be(scache_write(writer, data, 1, 100000000), -ETIMEDOUT);
	must(now_ms() - began_ms >= 99);
	must(now_ms() - began_ms < 900); /* before anybody could think of a deadlock */
	must_be(scache_write(writer, data, 0, 0), 0);
	must_be(scache_read(reader, data, 100, 0), 100);
	must_be(scache_write(writer, data, sizeof(data), 0), 100);
	scache_writer_close(writer);
	end_reader(cache, reader);
}
END_TEST

START_TEST(a_readers_time_is_over)
{
	struct scache_result result = { .size = sizeof(result) };
	struct scache *cache = scratch_open();
	struct scache_reader *reader;
	struct scache_writer *writer = scratch_create(cache, "k", 0, &reader);
	int64_t began_ms = now_ms();
	char data[100];

	must_be(scache_read(reader, data, sizeof(data), 0), -EAGAIN);
	must_be(scache_wait(reader, 0, &result), -EAGAIN);
	must_be(scache_read(reader, data, sizeof(data), 100000000), -ETIMEDOUT);
	must_be(scache_wait(reader, 100000000, &result), -ETIMEDOUT);
	must(now_ms() - began_ms >= 198);
	must_be(scache_write(writer, "abc", 3, SCACHE_FOREVER), 3);
	/* What is there comes at once, however long one would wait for more. */
	must_be(scache_read(reader, data, sizeof(data), SCACHE_FOREVER), 3);
	must_be(scache_read(reader, data, sizeof(data), 0), -EAGAIN);
	must_be(scache_finish(writer), 0);
	must_be(scache_read(reader, data, sizeof(data), SCACHE_FOREVER), 0);
	must_be(scache_wait(reader, 0, &result), 0);
	must_be(result.code, 0);
	must_be(result.bytes, 3);
	scache_writer_close(writer);
	end_reader(cache, reader);
}
END_TEST

int main(void)
{
	const TTest *const tests[] = {
		a_full_window_stops_the_writer_and_a_read_lets_it_go_on,
		a_writer_without_any_reader_yet_stops_at_the_window,
		in_lock_step_the_writer_is_never_more_than_one_write_ahead,
		an_unlimited_writer_waits_for_nobody,
		the_fastest_of_two_readers_sets_the_pace,
		the_next_write_after_the_last_reader_left_is_epipe,
		a_writer_in_a_full_window_learns_that_the_last_reader_left,
		a_write_that_everybody_leaves_tells_first_what_it_took,
		a_writer_in_a_full_window_learns_that_its_readers_were_killed,
		a_silent_writer_finds_out_that_its_readers_were_killed,
		run_to_end_goes_on_without_readers,
		run_to_end_goes_on_when_its_readers_are_killed,
		a_writer_whose_entry_was_removed_before_anybody_came_is_told,
		a_thread_that_fills_the_window_of_its_own_reader_is_told_to_read,
		a_writers_time_is_over,
		a_readers_time_is_over,
	};

	return SCRATCH_RUN("window", tests);
}
