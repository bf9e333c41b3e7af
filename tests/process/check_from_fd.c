/* SPDX-License-Identifier: MIT */
/*
 * check_from_fd - from descriptors into an entry: all there is, no byte more
 * than was taken, and no wait for input that nobody wants any more.
 */
#include <check.h>
#include <errno.h>

#include "../util/ends.h"

#define BLOB_BYTES 1000003u
#define WINDOW_BYTES (32u << 10)
#define MS_NS 1000000ll

static ssize_t make_feed(struct call *call)
{
	feed(call->fd, 0, call->bytes);
	close(call->fd);
	return 0;
}

static ssize_t make_reading(struct call *call)
{
	pattern_read_all(call->reader, 1, call->bytes);
	return 0;
}

static void write_all_from(enum kind kind, int nonblocking, uint32_t flags, uint64_t window_bytes)
{
	struct call feeder = { .make = make_feed, .bytes = BLOB_BYTES };
	struct call reading = { .make = make_reading, .bytes = BLOB_BYTES };
	struct scache *cache = scratch_open();
	struct scache_writer *writer = create_as(cache, flags, window_bytes, &reading.reader);
	int ends[2];

	open_ends(kind, ends);
	feeder.fd = ends[1];
	if (nonblocking)
		make_nonblocking(ends[0]);
	if (kind == PLAIN_FILE)
		make_feed(&feeder);
	else
		call_start(&feeder);
	call_start(&reading);
	must_be(scache_write_from_fd(writer, ends[0], SIZE_MAX, SCACHE_FOREVER), BLOB_BYTES);
	must_be(scache_write_from_fd(writer, ends[0], SIZE_MAX, SCACHE_FOREVER), 0);
	must_be(scache_write_from_fd(writer, ends[0], SIZE_MAX, 0), 0);
	must_be(scache_finish(writer), flags & SCACHE_PASS_THROUGH ? SCACHE_NOT_KEPT : 0);
	scache_writer_close(writer);
	close(ends[0]);
	call_end(&reading);
	if (kind != PLAIN_FILE)
		call_end(&feeder);
	scache_reader_close(reading.reader);
	if (!(flags & SCACHE_PASS_THROUGH))
		must_be(scache_remove(cache, "k", 1), 0);
	end_with(cache, NULL);
}

START_TEST(all_of_a_pipe_a_socket_or_a_file_is_taken)
{
	for (int kind = 0; kind < KINDS; kind++) {
		write_all_from((enum kind)kind, 0, 0, 0);
		write_all_from((enum kind)kind, 1, 0, WINDOW_BYTES);
		write_all_from((enum kind)kind, 0, SCACHE_PASS_THROUGH, 0);
	}
	write_all_from(PIPE, 0, 0, SCACHE_ZERO);
	write_all_from(PIPE, 0, SCACHE_PACE_SLOWEST, WINDOW_BYTES);
}
END_TEST

START_TEST(all_of_a_pipe_is_taken_without_a_ring)
{
	struct scache_writer *holder;
	struct scache *cache;

	scratch_options.rings = 1;
	cache = scratch_open();
	holder = scratch_create(cache, "has the ring", 0, NULL);
	for (int kind = 0; kind < KINDS; kind++) {
		struct call feeder = { .make = make_feed, .bytes = BLOB_BYTES };
		struct scache_reader *reader;
		struct scache_writer *writer = create_as(cache, 0, 0, &reader);
		int ends[2];

		must(!(scratch_info(reader).flags & SCACHE_HAS_RING));
		open_ends((enum kind)kind, ends);
		feeder.fd = ends[1];
		if (kind == PLAIN_FILE)
			make_feed(&feeder);
		else
			call_start(&feeder);
		must_be(scache_write_from_fd(writer, ends[0], SIZE_MAX, SCACHE_FOREVER),
			BLOB_BYTES);
		if (kind != PLAIN_FILE)
			call_end(&feeder);
		must_be(scache_finish(writer), 0);
		scache_writer_close(writer);
		pattern_read_all(reader, 1, BLOB_BYTES);
		scache_reader_close(reader);
		close(ends[0]);
		must_be(scache_remove(cache, "k", 1), 0);
	}
	scache_writer_close(holder);
	end_with(cache, NULL);
}
END_TEST

START_TEST(no_byte_more_is_taken_than_was_asked_for)
{
	struct scache *cache = scratch_open();
	struct scache_reader *reader;
	struct scache_writer *writer = create_as(cache, 0, SCACHE_UNLIMITED, &reader);
	int ends[2];

	for (int kind = 0; kind < KINDS; kind++) {
		uint64_t at = 10000 * (uint64_t)kind;

		open_ends((enum kind)kind, ends);
		feed(ends[1], at, at + 20000);
		must_be(scache_write_from_fd(writer, ends[0], 0, SCACHE_FOREVER), 0);
		must_be(scache_write_from_fd(writer, ends[0], 3000, SCACHE_FOREVER), 3000);
		must_be(scache_write_from_fd(writer, ends[0], 7000, 0), 7000);
		make_nonblocking(ends[0]);
		must_be(drain(ends[0], at + 10000), 10000);
		close(ends[0]);
		close(ends[1]);
	}
	ends[0] = open("/dev/null", O_RDONLY);
	must_be(scache_write_from_fd(writer, ends[0], SIZE_MAX, SCACHE_FOREVER), 0);
	close(ends[0]);
	must_be(scache_finish(writer), 0);
	must_be(scache_write_from_fd(writer, 0, 10, 0), -EINVAL);
	scache_writer_close(writer);
	pattern_read_all(reader, 1, 10000ull * KINDS);
	end_with(cache, reader);
}
END_TEST

START_TEST(a_bad_input_is_told_and_forgotten)
{
	struct scache *cache = scratch_open();
	struct scache_reader *reader;
	struct scache_writer *writer = create_as(cache, 0, SCACHE_UNLIMITED, &reader);
	int fd = open(scratch_base, O_RDONLY), only_written = open("/dev/null", O_WRONLY);

	must_be(scache_write_from_fd(writer, fd, SIZE_MAX, SCACHE_FOREVER), -EISDIR);
	must_be(scache_write_from_fd(writer, only_written, 100, SCACHE_FOREVER), -EBADF);
	close(fd);
	must_be(scache_write_from_fd(writer, fd, 100, SCACHE_FOREVER), -EBADF);
	must_be(scache_write_from_fd(writer, fd, 100, 0), -EBADF);
	must_be(scache_writer_check(writer), 0);
	put(writer, 0, 10);
	must_be(scache_finish(writer), 0);
	scache_writer_close(writer);
	pattern_read_all(reader, 1, 10);
	end_with(cache, reader);
}
END_TEST

START_TEST(minus_one_is_a_bad_input_too)
{
	struct scache *cache = scratch_open();
	struct scache_reader *reader;
	struct scache_writer *writer = create_as(cache, 0, SCACHE_UNLIMITED, &reader);

	must_be(scache_write_from_fd(writer, -1, 100, 0), -EBADF);
	must_be(scache_write_from_fd(writer, -1, SIZE_MAX, SCACHE_FOREVER), -EBADF);
	scache_writer_close(writer);
	end_with(cache, reader);
}
END_TEST

static ssize_t make_write_from_fd(struct call *call)
{
	return scache_write_from_fd(call->writer, call->fd, SIZE_MAX, SCACHE_FOREVER);
}

static void attach_and_stay(void *arg)
{
	(void)arg;
	scratch_find(scratch_open(), "k");
	child_say(0);
	child_stay();
}

START_TEST(a_silent_input_does_not_hide_that_all_readers_have_gone)
{
	for (int killed = 0; killed < 2; killed++) {
		struct call call = { .make = make_write_from_fd };
		struct scache *cache = scratch_open();
		struct scache_reader *reader = NULL;
		struct child child;
		int ends[2];

		open_ends(PIPE, ends);
		call.fd = ends[0];
		call.writer = create_as(cache, 0, 0, killed ? NULL : &reader);
		if (killed) {
			child_start(&child, attach_and_stay, NULL);
			child_hear(&child);
		}
		feed(ends[1], 0, 100);
		call_start(&call);
		eventually(scratch_stat(cache).entries_filling == 1 && call_sleeps(&call));
		if (killed)
			child_kill(&child);
		else
			scache_reader_close(reader);
		/* What it took first. */
		must_be(call_end(&call), 100);
		must_be(make_write_from_fd(&call), -EPIPE);
		must_be(scache_finish(call.writer), -EPIPE);
		scache_writer_close(call.writer);
		close(ends[0]);
		close(ends[1]);
		must(scratch_misses(cache, "k"));
		end_with(cache, NULL);
	}
}
END_TEST

START_TEST(a_silent_input_does_not_end_who_runs_to_the_end)
{
	struct call call = { .make = make_write_from_fd };
	struct scache *cache = scratch_open();
	struct scache_reader *reader;
	int ends[2];

	open_ends(SOCKETS, ends);
	call.fd = ends[0];
	call.writer = create_as(cache, SCACHE_RUN_TO_END, WINDOW_BYTES, &reader);
	call_start(&call);
	eventually(call_sleeps(&call));
	scache_reader_close(reader);
	feed(ends[1], 0, BLOB_BYTES);
	close(ends[1]);
	must_be(call_end(&call), BLOB_BYTES);
	must_be(scache_finish(call.writer), 0);
	scache_writer_close(call.writer);
	close(ends[0]);
	reader = scratch_find(cache, "k");
	pattern_read_all(reader, 1, BLOB_BYTES);
	end_with(cache, reader);
}
END_TEST

START_TEST(the_time_of_an_input_is_over)
{
	struct scache *cache = scratch_open();
	struct scache_reader *reader;
	struct scache_writer *writer = create_as(cache, 0, WINDOW_BYTES, &reader);
	int ends[2];

	open_ends(PIPE, ends);
	must_be(scache_write_from_fd(writer, ends[0], SIZE_MAX, 0), -EAGAIN);
	must_be(scache_write_from_fd(writer, ends[0], SIZE_MAX, 20 * MS_NS), -ETIMEDOUT);
	must_be(scache_write_from_fd(writer, ends[0], SIZE_MAX, 100 * MS_NS), -ETIMEDOUT);
	feed(ends[1], 0, 100);
	must_be(scache_write_from_fd(writer, ends[0], SIZE_MAX, 0), 100);
	feed(ends[1], 100, 200);
	must_be(scache_write_from_fd(writer, ends[0], SIZE_MAX, 60 * MS_NS), 100);
	/* A full window takes nothing out of the pipe. */
	feed(ends[1], 200, WINDOW_BYTES + 500);
	must_be(scache_write_from_fd(writer, ends[0], SIZE_MAX, 60 * MS_NS), WINDOW_BYTES - 200);
	must_be(scache_write_from_fd(writer, ends[0], SIZE_MAX, 0), -EAGAIN);
	must_be(scache_write_from_fd(writer, ends[0], SIZE_MAX, 100 * MS_NS), -ETIMEDOUT);
	make_nonblocking(ends[0]);
	must_be(drain(ends[0], WINDOW_BYTES), 500);
	close(ends[0]);
	close(ends[1]);
	scache_writer_close(writer);
	end_with(cache, reader);
}
END_TEST

START_TEST(the_end_of_an_input_is_seen_from_a_full_window)
{
	struct scache *cache = scratch_open();
	struct scache_reader *reader;
	struct scache_writer *writer = create_as(cache, 0, WINDOW_BYTES, &reader);
	int ends[2];

	open_ends(PIPE, ends);
	feed(ends[1], 0, WINDOW_BYTES);
	close(ends[1]);
	must_be(scache_write_from_fd(writer, ends[0], SIZE_MAX, SCACHE_FOREVER), WINDOW_BYTES);
	must_be(scache_write_from_fd(writer, ends[0], SIZE_MAX, SCACHE_FOREVER), 0);
	must_be(scache_finish(writer), 0);
	close(ends[0]);
	scache_writer_close(writer);
	pattern_read_all(reader, 1, WINDOW_BYTES);
	end_with(cache, reader);
}
END_TEST

START_TEST(a_thread_that_feeds_its_own_reader_is_told_to_read)
{
	struct scache *cache = scratch_open();
	struct scache_reader *reader;
	struct scache_writer *writer = create_as(cache, 0, WINDOW_BYTES, &reader);
	uint64_t position = 0;
	int ends[2];

	open_ends(PIPE, ends);
	feed(ends[1], 0, WINDOW_BYTES + 1);
	must_be(scache_write_from_fd(writer, ends[0], SIZE_MAX, SCACHE_FOREVER), WINDOW_BYTES);
	must_be(scache_write_from_fd(writer, ends[0], SIZE_MAX, SCACHE_FOREVER), -EDEADLK);
	must_be(pattern_read(reader, 1, &position, 1, 1), 1);
	must_be(scache_write_from_fd(writer, ends[0], 1, SCACHE_FOREVER), 1);
	close(ends[0]);
	close(ends[1]);
	scache_writer_close(writer);
	end_with(cache, reader);
}
END_TEST

int main(void)
{
	const TTest *const tests[] = {
		all_of_a_pipe_a_socket_or_a_file_is_taken,
		all_of_a_pipe_is_taken_without_a_ring,
		no_byte_more_is_taken_than_was_asked_for,
		a_bad_input_is_told_and_forgotten,
		minus_one_is_a_bad_input_too,
		a_silent_input_does_not_hide_that_all_readers_have_gone,
		a_silent_input_does_not_end_who_runs_to_the_end,
		the_time_of_an_input_is_over,
		the_end_of_an_input_is_seen_from_a_full_window,
		a_thread_that_feeds_its_own_reader_is_told_to_read,
	};

	return SCRATCH_RUN("from_fd", tests);
}
