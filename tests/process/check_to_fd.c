/* SPDX-License-Identifier: MIT */
/*
 * check_to_fd - out of an entry into descriptors: all there is, a position
 * that moves by what was written, and no wait for a producer that nobody hears.
 */
#include <check.h>
#include <errno.h>
#include <signal.h>

#include "../util/ends.h"

#define BLOB_BYTES 1000003u
#define WINDOW_BYTES (32u << 10)
#define MS_NS 1000000ll

static ssize_t make_drain(struct call *call)
{
	return (ssize_t)drain(call->fd, 0);
}

START_TEST(all_of_an_entry_goes_to_a_pipe_a_socket_or_a_file)
{
	for (int round = 0; round < 2 * KINDS; round++) {
		enum kind kind = (enum kind)(round % KINDS);
		struct call call = { .make = make_drain };
		struct scache *cache = scratch_open();
		struct scache_reader *reader;
		char byte;
		int ends[2];

		if (round == 0)
			pattern_produce(scratch_create(cache, "k", 0, NULL), 1, BLOB_BYTES, 30000);
		open_ends(kind, ends);
		if (round >= KINDS)
			make_nonblocking(ends[1]);
		call.fd = ends[0];
		reader = scratch_find(cache, "k");
		must_be(scache_sendfile(reader, ends[1], 0, SCACHE_FOREVER), 0);
		must_be(scache_sendfile(reader, ends[1], 1000, SCACHE_FOREVER), 1000);
		if (kind != PLAIN_FILE)
			call_start(&call);
		must_be(scache_sendfile(reader, ends[1], SIZE_MAX, SCACHE_FOREVER),
			BLOB_BYTES - 1000);
		must_be(scache_sendfile(reader, ends[1], SIZE_MAX, SCACHE_FOREVER), 0);
		must_be(scache_read(reader, &byte, 1, 0), 0);
		close(ends[1]);
		must_be(kind == PLAIN_FILE ? make_drain(&call) : call_end(&call), BLOB_BYTES);
		close(ends[0]);
		end_with(cache, reader);
	}
}
END_TEST

static ssize_t make_sendfile(struct call *call)
{
	ssize_t done = scache_sendfile(call->reader, call->fd, SIZE_MAX, SCACHE_FOREVER);

	close(call->fd);
	return done;
}

START_TEST(a_growing_entry_is_followed_to_its_end)
{
	static const struct {
		uint32_t flags;
		int code, error;
	} cases[] = {
		{ 0, 0, 0 },
		{ 0, -EDOM, -EDOM },
		{ 0, 7, -EREMOTEIO },
		{ SCACHE_PASS_THROUGH, 0, 0 },
		{ SCACHE_PASS_THROUGH, -EDOM, -EDOM },
	};

	for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct call out = { .make = make_sendfile }, sink = { .make = make_drain };
		struct scache *cache = scratch_open();
		struct scache_writer *writer;
		int ends[2], error = 0, null = open("/dev/null", O_WRONLY);

		open_ends(i % 2 == 0 ? PIPE : SOCKETS, ends);
		out.fd = ends[1];
		sink.fd = ends[0];
		writer = create_as(cache, cases[i].flags, WINDOW_BYTES, &out.reader);
		call_start(&out);
		call_start(&sink);
		must_be(pattern_write(writer, 1, 0, BLOB_BYTES, 9001, &error), BLOB_BYTES);
		if (cases[i].code == 0)
			must(scache_finish(writer) >= 0);
		else
			must_be(scache_abort(writer, cases[i].code, NULL, 0), 0);
		scache_writer_close(writer);
		must_be(call_end(&out), BLOB_BYTES);
		must_be(call_end(&sink), BLOB_BYTES);
		must_be(scache_sendfile(out.reader, null, 10, SCACHE_FOREVER), cases[i].error);
		close(null);
		close(ends[0]);
		if (i == 0)
			must_be(scache_remove(cache, "k", 1), 0);
		end_with(cache, out.reader);
	}
}
END_TEST

/* Pages of the file are in a pipe or on their way, and the file is cut and removed. */
START_TEST(what_was_sent_outlives_the_file)
{
	for (int kind = PIPE; kind <= SOCKETS; kind++) {
		struct scache *cache = scratch_open();
		struct scache_reader *reader;
		int ends[2];

		pattern_produce(scratch_create(cache, "k", 0, NULL), 1, BLOB_BYTES, 30000);
		open_ends(kind, ends);
		reader = scratch_find(cache, "k");
		must_be(scache_sendfile(reader, ends[1], 60000, SCACHE_FOREVER), 60000);
		must_be(scache_remove(cache, "k", 1), 0);
		end_with(cache, reader);
		must_be(scratch_blobs(), 0);
		close(ends[1]);
		must_be(drain(ends[0], 0), 60000);
		close(ends[0]);
	}
}
END_TEST

/* SIGPIPE as it is by default: it would end the child. */
static void read_to_parent(void *arg)
{
	struct scache_reader *reader = scratch_find(scratch_open(), "k");
	int *ends = arg;
	char byte;

	signal(SIGPIPE, SIG_DFL);
	close(ends[0]);
	child_say(0);
	child_say(scache_sendfile(reader, ends[1], SIZE_MAX, SCACHE_FOREVER));
	child_say(scache_sendfile(reader, ends[1], SIZE_MAX, SCACHE_FOREVER));
	/* Not for good, and not a byte lost. */
	child_say(scache_read(reader, &byte, 1, 0));
}

START_TEST(an_output_that_has_gone_is_found_while_nothing_comes)
{
	for (int kind = PIPE; kind <= SOCKETS; kind++) {
		struct scache *cache = scratch_open();
		struct scache_writer *writer = create_as(cache, 0, 0, NULL);
		struct child child;
		uint64_t waits;
		int ends[2];

		open_ends((enum kind)kind, ends);
		put(writer, 0, 1000);
		waits = scratch_stat(cache).waits;
		child_start(&child, read_to_parent, ends);
		child_hear(&child);
		eventually(scratch_stat(cache).waits > waits);
		close(ends[1]);
		/* A socket tells of unread bytes by ECONNRESET: take them first. */
		must_be(read(ends[0], (char[1000]){ 0 }, 1000), 1000);
		close(ends[0]);
		must_be(child_hear(&child), 1000);
		must_be(child_hear(&child), -EPIPE);
		must_be(child_hear(&child), -EAGAIN);
		child_join(&child);
		scache_writer_close(writer);
		end_with(cache, NULL);
	}
}
END_TEST

static void read_to_nobody(void *arg)
{
	struct scache_reader *reader = scratch_find(scratch_open(), "k");
	uint64_t position = 0;
	int *ends = arg;

	signal(SIGPIPE, SIG_DFL);
	must_be(scache_sendfile(reader, ends[1], SIZE_MAX, SCACHE_FOREVER), -EPIPE);
	must_be(scache_sendfile(reader, ends[1], 10, 0), -EPIPE);
	must_be(pattern_read(reader, 1, &position, UINT64_MAX, 1000), 0);
	must_be(position, 1000);
	must_be(scache_sendfile(reader, ends[1], 10, 0), 0);
	child_say(signal(SIGPIPE, SIG_DFL) == SIG_DFL);
}

START_TEST(an_output_that_nobody_reads_is_epipe_and_no_signal)
{
	struct scache *cache = scratch_open();
	struct child child;
	int ends[2];

	pattern_produce(scratch_create(cache, "k", 0, NULL), 1, 1000, 1000);
	for (int kind = PIPE; kind <= SOCKETS; kind++) {
		open_ends((enum kind)kind, ends);
		close(ends[0]);
		child_start(&child, read_to_nobody, ends);
		must_be(child_hear(&child), 1);
		child_join(&child);
		close(ends[1]);
	}
	end_with(cache, NULL);
}
END_TEST

START_TEST(the_position_moves_by_what_was_written)
{
	struct scache *cache = scratch_open();
	struct scache_reader *reader;
	uint64_t position = 0;
	ssize_t done;
	int ends[2], full = open("/dev/full", O_WRONLY);

	pattern_produce(scratch_create(cache, "k", 0, NULL), 1, BLOB_BYTES, 30000);
	reader = scratch_find(cache, "k");
	open_ends(PIPE, ends);
	make_nonblocking(ends[0]);
	make_nonblocking(ends[1]);
	for (int i = 0; i < 4; i++) {
		done = scache_sendfile(reader, ends[1], SIZE_MAX, i % 2 == 0 ? 0 : 50 * MS_NS);
		must(done >= 4096 && done < BLOB_BYTES);
		must_be(scache_sendfile(reader, ends[1], SIZE_MAX, 0), -EAGAIN);
		must_be(scache_sendfile(reader, ends[1], 1, 20 * MS_NS), -ETIMEDOUT);
		must_be(drain(ends[0], position), done);
		position += (uint64_t)done;
		/* The next byte is the one behind them. */
		must_be(pattern_read(reader, 1, &position, position + 777, 100), 1);
	}
	must_be(scache_sendfile(reader, full, SIZE_MAX, SCACHE_FOREVER), -ENOSPC);
	must_be(scache_sendfile(reader, ends[0], 10, SCACHE_FOREVER), -EBADF);
	must_be(scache_sendfile(reader, -1, 10, SCACHE_FOREVER), -EBADF);
	must_be(pattern_read(reader, 1, &position, UINT64_MAX, 9000), 0);
	must_be(position, BLOB_BYTES);
	close(full);
	close(ends[0]);
	close(ends[1]);
	end_with(cache, reader);
}
END_TEST

START_TEST(the_time_of_an_output_is_over)
{
	struct scache *cache = scratch_open();
	struct scache_reader *reader;
	struct scache_writer *writer = create_as(cache, 0, 0, &reader);
	int ends[2];

	open_ends(PIPE, ends);
	must_be(scache_sendfile(reader, ends[1], SIZE_MAX, 0), -EAGAIN);
	must_be(scache_sendfile(reader, ends[1], SIZE_MAX, 100 * MS_NS), -ETIMEDOUT);
	put(writer, 0, 1000);
	must_be(scache_sendfile(reader, ends[1], SIZE_MAX, 60 * MS_NS), 1000);
	put(writer, 1000, 2000);
	must_be(scache_sendfile(reader, ends[1], 300, SCACHE_FOREVER), 300);
	must_be(scache_sendfile(reader, ends[1], SIZE_MAX, 0), 700);
	make_nonblocking(ends[0]);
	must_be(drain(ends[0], 0), 2000);
	scache_writer_close(writer);
	must_be(scache_sendfile(reader, ends[1], SIZE_MAX, 0), -ECANCELED);
	close(ends[0]);
	close(ends[1]);
	end_with(cache, reader);
}
END_TEST

int main(void)
{
	const TTest *const tests[] = {
		all_of_an_entry_goes_to_a_pipe_a_socket_or_a_file,
		a_growing_entry_is_followed_to_its_end,
		what_was_sent_outlives_the_file,
		an_output_that_has_gone_is_found_while_nothing_comes,
		an_output_that_nobody_reads_is_epipe_and_no_signal,
		the_position_moves_by_what_was_written,
		the_time_of_an_output_is_over,
	};

	return SCRATCH_RUN("to_fd", tests);
}
