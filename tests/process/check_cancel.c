/* SPDX-License-Identifier: MIT */
/*
 * check_cancel - a call that waits is ended from another thread, and nothing
 * else is: what is there still comes, and the entry goes on for the others.
 */
#include <check.h>
#include <errno.h>

#include "../util/ends.h"

#define WINDOW_BYTES (32u << 10)
#define MS_NS 1000000ll

/* ----------------------------------------------------------------- the waits */

static ssize_t make_read(struct call *call)
{
	char data[10];

	return scache_read(call->reader, data, sizeof(data), SCACHE_FOREVER);
}

static ssize_t make_pread(struct call *call)
{
	return pread_at(call->reader, call->offset, 10, SCACHE_FOREVER);
}

static ssize_t make_wait(struct call *call)
{
	struct scache_result result = { .size = sizeof(result) };

	return scache_wait(call->reader, SCACHE_FOREVER, &result);
}

static ssize_t make_sendfile(struct call *call)
{
	return scache_sendfile(call->reader, call->fd, SIZE_MAX, SCACHE_FOREVER);
}

static ssize_t make_write(struct call *call)
{
	return scache_write(call->writer, "x", 1, SCACHE_FOREVER);
}

static ssize_t make_reservation(struct call *call)
{
	void *data;

	return scache_reserve(call->writer, 1, &data, SCACHE_FOREVER);
}

static ssize_t make_write_from_fd(struct call *call)
{
	return scache_write_from_fd(call->writer, call->fd, SIZE_MAX, SCACHE_FOREVER);
}

/* ------------------------------------------------------------------- readers */

static ssize_t (*const reader_waits[])(struct call *call) = {
	make_read,
	make_pread,
	make_wait,
	make_sendfile,
};

#define READER_WAITS (sizeof(reader_waits) / sizeof(reader_waits[0]))

/* @in_time: cancelled while it waits, or else before it begins to. */
static void cancel_reader(unsigned i, uint64_t published, int in_time)
{
	struct scache *cache = scratch_open();
	struct call call = { .make = reader_waits[i], .offset = published + 70000 };
	struct scache_writer *writer = create_as(cache, 0, 0, &call.reader);
	struct scache_reader *other = scratch_find(cache, "k");
	struct scache_result result = { .size = sizeof(result) };
	uint64_t waits, position = 0;
	int ends[2];

	open_ends(PIPE, ends);
	call.fd = ends[1];
	put(writer, 0, published);
	must(published == 0 || pattern_read(call.reader, 1, &position, published, 1000) == 1);
	waits = scratch_stat(cache).waits;
	if (in_time)
		call_start(&call);
	if (in_time)
		eventually(scratch_stat(cache).waits > waits);
	must_be(scache_cancel(call.reader), 0);
	if (!in_time)
		call_start(&call);
	must_be(call_end(&call), -ECANCELED);
	/* No later call waits, whatever it waits for. */
	for (unsigned k = 0; k < READER_WAITS; k++)
		must_be(reader_waits[k](&call), -ECANCELED);
	must_be(scache_cancel(call.reader), 0);
	must_be(scache_wait(call.reader, 20 * MS_NS, &result), -ECANCELED);
	/* What is there still comes, first here, and then to the descriptor. */
	put(writer, published, published + 1000);
	must_be(pattern_read(call.reader, 1, &position, published + 400, 1000), 1);
	must_be(pread_at(call.reader, published, 1000, SCACHE_FOREVER), 1000);
	must_be(make_sendfile(&call), 600);
	must_be(make_sendfile(&call), -ECANCELED);
	make_nonblocking(ends[0]);
	must_be(drain(ends[0], published + 400), 600);
	/* The other one has noticed nothing. */
	must_be(scache_finish(writer), 0);
	scache_writer_close(writer);
	pattern_read_all(other, 1, published + 1000);
	scache_reader_close(other);
	must_be(make_read(&call), 0);
	must_be(make_wait(&call), 0);
	close(ends[0]);
	close(ends[1]);
	must_be(scache_remove(cache, "k", 1), 0);
	end_with(cache, call.reader);
}

START_TEST(a_waiting_reader_is_cancelled)
{
	for (unsigned i = 0; i < READER_WAITS; i++) {
		cancel_reader(i, 0, 1);
		cancel_reader(i, 3000, 1);
	}
}
END_TEST

START_TEST(a_reader_cancelled_before_it_waits_does_not_wait)
{
	for (unsigned i = 0; i < READER_WAITS; i++) {
		cancel_reader(i, 0, 0);
		cancel_reader(i, 3000, 0);
	}
}
END_TEST

START_TEST(a_cancelled_reader_that_never_waits_is_told_as_well)
{
	struct scache_result result = { .size = sizeof(result) };
	struct scache *cache = scratch_open();
	struct scache_reader *reader;
	struct scache_writer *writer = create_as(cache, 0, 0, &reader);
	int null = open("/dev/null", O_WRONLY);
	char byte;

	put(writer, 0, 1);
	must_be(scache_cancel(reader), 0);
	must_be(scache_read(reader, &byte, 1, 0), 1);
	must_be(scache_wait(reader, 0, &result), -ECANCELED);
	must_be(scache_read(reader, &byte, 1, 0), -ECANCELED);
	must_be(pread_at(reader, 1, 1, 0), -ECANCELED);
	must_be(scache_sendfile(reader, null, 1, 0), -ECANCELED);
	close(null);
	scache_writer_close(writer);
	end_with(cache, reader);
}
END_TEST

START_TEST(a_reader_that_waits_for_its_output_is_cancelled)
{
	struct scache *cache = scratch_open();
	struct call call = { .make = make_sendfile };
	uint64_t position;
	int ends[2];

	pattern_produce(scratch_create(cache, "k", 0, NULL), 1, 1000000, 30000);
	call.reader = scratch_find(cache, "k");
	open_ends(PIPE, ends);
	make_nonblocking(ends[0]);
	make_nonblocking(ends[1]);
	call.fd = ends[1];
	call_start(&call);
	eventually(call_sleeps(&call));
	must_be(scache_cancel(call.reader), 0);
	must(call_end(&call) >= 4096);
	/* As much as it said, and the rest is where it was. */
	position = drain(ends[0], 0);
	must_be(position, call.result);
	must_be(pattern_read(call.reader, 1, &position, UINT64_MAX, 9000), 0);
	must_be(position, 1000000);
	close(ends[0]);
	close(ends[1]);
	end_with(cache, call.reader);
}
END_TEST

/* ------------------------------------------------------------------- writers */

static ssize_t (*const writer_waits[])(struct call *call) = {
	make_write,
	make_reservation,
	make_write_from_fd,
};

#define WRITER_WAITS (sizeof(writer_waits) / sizeof(writer_waits[0]))

static void cancel_writer(unsigned i, int in_time)
{
	struct call call = { .make = writer_waits[i] };
	struct scache *cache = scratch_open();
	struct scache_reader *reader;
	uint64_t position = 0;
	int ends[2];

	open_ends(PIPE, ends);
	feed(ends[1], WINDOW_BYTES, WINDOW_BYTES + 100);
	call.fd = ends[0];
	call.writer = create_as(cache, 0, WINDOW_BYTES, &reader);
	put(call.writer, 0, WINDOW_BYTES);
	if (in_time)
		call_start(&call);
	if (in_time)
		eventually(writer_waits_at(reader, WINDOW_BYTES));
	must_be(scache_writer_cancel(call.writer), 0);
	if (!in_time)
		call_start(&call);
	must_be(call_end(&call), -ECANCELED);
	for (unsigned k = 0; k < WRITER_WAITS; k++)
		must_be(writer_waits[k](&call), -ECANCELED);
	/* The entry is untouched: what there is room for is taken, and then it ends as it likes. */
	must_be(pattern_read(reader, 1, &position, 100, 100), 1);
	must_be(make_write_from_fd(&call), 100);
	must_be(make_write(&call), -ECANCELED);
	must_be(scache_writer_check(call.writer), 0);
	if (in_time) {
		must_be(scache_finish(call.writer), 0);
		must_be(pattern_read(reader, 1, &position, UINT64_MAX, 5000), 0);
		must_be(scache_remove(cache, "k", 1), 0);
	} else {
		must_be(scache_abort(call.writer, -EDOM, NULL, 0), 0);
		must_be(pattern_read(reader, 1, &position, UINT64_MAX, 5000), -EDOM);
	}
	must_be(position, WINDOW_BYTES + 100);
	scache_writer_close(call.writer);
	close(ends[0]);
	close(ends[1]);
	end_with(cache, reader);
}

START_TEST(a_waiting_writer_is_cancelled)
{
	for (unsigned i = 0; i < WRITER_WAITS; i++)
		cancel_writer(i, 1);
}
END_TEST

START_TEST(a_writer_cancelled_before_it_waits_does_not_wait)
{
	for (unsigned i = 0; i < WRITER_WAITS; i++)
		cancel_writer(i, 0);
}
END_TEST

START_TEST(a_writer_that_waits_for_its_input_is_cancelled)
{
	for (int in_time = 0; in_time < 2; in_time++) {
		struct call call = { .make = make_write_from_fd };
		struct scache *cache = scratch_open();
		struct scache_reader *reader;
		int ends[2];

		open_ends(in_time ? PIPE : SOCKETS, ends);
		call.fd = ends[0];
		call.writer = create_as(cache, 0, 0, &reader);
		if (in_time)
			call_start(&call);
		if (in_time)
			eventually(call_sleeps(&call));
		must_be(scache_writer_cancel(call.writer), 0);
		if (!in_time)
			call_start(&call);
		must_be(call_end(&call), -ECANCELED);
		must_be(make_write_from_fd(&call), -ECANCELED);
		feed(ends[1], 0, 100);
		must_be(make_write_from_fd(&call), 100);
		close(ends[1]);
		must_be(make_write_from_fd(&call), 0);
		must_be(scache_finish(call.writer), 0);
		scache_writer_close(call.writer);
		pattern_read_all(reader, 1, 100);
		close(ends[0]);
		must_be(scache_remove(cache, "k", 1), 0);
		end_with(cache, reader);
	}
}
END_TEST

START_TEST(a_cancelled_writer_that_never_waits_is_told_as_well)
{
	struct scache *cache = scratch_open();
	struct scache_reader *reader;
	struct scache_writer *writer = create_as(cache, 0, WINDOW_BYTES, &reader);
	int ends[2];
	void *data;

	open_ends(PIPE, ends);
	put(writer, 0, WINDOW_BYTES);
	must_be(scache_writer_cancel(writer), 0);
	must_be(scache_write(writer, "x", 1, 0), -ECANCELED);
	must_be(scache_reserve(writer, 1, &data, 0), -ECANCELED);
	must_be(scache_write_from_fd(writer, ends[0], 1, 0), -ECANCELED);
	close(ends[0]);
	close(ends[1]);
	scache_writer_close(writer);
	end_with(cache, reader);
}
END_TEST

START_TEST(a_cancelled_call_tells_first_what_it_took)
{
	struct call call = { .make = make_write_from_fd };
	struct scache *cache = scratch_open();
	struct scache_reader *reader;
	int ends[2];

	open_ends(SOCKETS, ends);
	feed(ends[1], 0, WINDOW_BYTES + 100);
	call.fd = ends[0];
	call.writer = create_as(cache, 0, WINDOW_BYTES, &reader);
	call_start(&call);
	eventually(writer_waits_at(reader, WINDOW_BYTES));
	must_be(scache_writer_cancel(call.writer), 0);
	must_be(call_end(&call), WINDOW_BYTES);
	make_nonblocking(ends[0]);
	must_be(drain(ends[0], WINDOW_BYTES), 100);
	close(ends[0]);
	close(ends[1]);
	scache_writer_close(call.writer);
	end_with(cache, reader);
}
END_TEST

int main(void)
{
	const TTest *const tests[] = {
		a_waiting_reader_is_cancelled,
		a_reader_cancelled_before_it_waits_does_not_wait,
		a_cancelled_reader_that_never_waits_is_told_as_well,
		a_reader_that_waits_for_its_output_is_cancelled,
		a_waiting_writer_is_cancelled,
		a_writer_cancelled_before_it_waits_does_not_wait,
		a_writer_that_waits_for_its_input_is_cancelled,
		a_cancelled_writer_that_never_waits_is_told_as_well,
		a_cancelled_call_tells_first_what_it_took,
	};

	return SCRATCH_RUN("cancel", tests);
}
