/* SPDX-License-Identifier: MIT */
/*
 * check_pread - reading anywhere: in what is finished, what grows, what has
 * failed; and what a look far ahead means to the writer.
 */
#include <check.h>
#include <errno.h>

#include "../util/calls.h"

#define RING_BYTES SCRATCH_RING_BYTES
#define BLOB_BYTES 1000003u
#define WINDOW_BYTES (32u << 10)
#define MS_NS 1000000ll

/* Anywhere in what is published; now and then the next bytes in order. */
static void pread_about(struct scache_reader *reader, uint64_t published, uint64_t *position)
{
	for (int i = 0; i < 2000; i++) {
		uint64_t offset = below(published);

		must(pread_at(reader, offset, 1 + below(i % 10 == 0 ? 90000 : 3000), 0) > 0);
		if (i % 50 == 0)
			must(pattern_read(reader, 1, position, *position + 100, 100) == 1);
	}
}

START_TEST(pread_of_a_finished_entry_is_right_anywhere_and_moves_nothing)
{
	struct scache *cache = scratch_open();
	struct scache_reader *reader;
	uint64_t position = 0;

	pattern_produce(scratch_create(cache, "k", 0, NULL), 1, BLOB_BYTES, 30000);
	reader = scratch_find(cache, "k");
	pread_about(reader, BLOB_BYTES, &position);
	must_be(pread_at(reader, BLOB_BYTES - 1, 100, 0), 1);
	must_be(pread_at(reader, BLOB_BYTES, 100, SCACHE_FOREVER), 0);
	must_be(pread_at(reader, BLOB_BYTES + 1, 100, 0), 0);
	must_be(pread_at(reader, UINT64_MAX, 100, 0), 0);
	must_be(pread_at(reader, 0, 0, 0), 0);
	must_be(pattern_read(reader, 1, &position, UINT64_MAX, 5000), 0);
	must_be(position, BLOB_BYTES);
	must_be(pread_at(reader, 7, 100, 0), 100);
	end_with(cache, reader);
}
END_TEST

START_TEST(pread_of_a_growing_entry_is_right_out_of_ring_and_file)
{
	struct scache *cache = scratch_open();
	struct scache_reader *reader;
	struct scache_writer *writer = scratch_create(cache, "k", 0, &reader);
	struct scache_stats stats;
	uint64_t position = 0;

	put(writer, 0, BLOB_BYTES / 2);
	pread_about(reader, BLOB_BYTES / 2, &position);
	put(writer, BLOB_BYTES / 2, BLOB_BYTES);
	pread_about(reader, BLOB_BYTES, &position);
	must_be(pread_at(reader, BLOB_BYTES - 1, 100, SCACHE_FOREVER), 1);
	must_be(pread_at(reader, BLOB_BYTES, 100, 0), -EAGAIN);
	must_be(pread_at(reader, BLOB_BYTES + 12345, 100, 20 * MS_NS), -ETIMEDOUT);
	must_be(pread_at(reader, UINT64_MAX, 100, 0), -EAGAIN);
	must_be(scache_finish(writer), 0);
	scache_writer_close(writer);
	must_be(pread_at(reader, BLOB_BYTES, 100, 0), 0);
	pread_about(reader, BLOB_BYTES, &position);
	must_be(pattern_read(reader, 1, &position, UINT64_MAX, 70000), 0);
	must_be(position, BLOB_BYTES);
	scache_reader_close(reader);
	stats = scratch_stat(cache);
	must(stats.bytes_from_ring > 0 && stats.bytes_from_file > 0);
	end_with(cache, NULL);
}
END_TEST

static ssize_t make_pread(struct call *call)
{
	return pread_at(call->reader, call->offset, call->bytes, SCACHE_FOREVER);
}

START_TEST(pread_waits_until_its_offset_is_there)
{
	struct scache *cache = scratch_open();
	struct call call = { .make = make_pread, .offset = 5000, .bytes = 3000 };
	struct scache_writer *writer = scratch_create(cache, "k", 0, &call.reader);
	uint64_t waits;

	call_start(&call);
	eventually((waits = scratch_stat(cache).waits) > 0);
	/* Up to there, but not that byte: it looks, and sleeps again. */
	put(writer, 0, 5000);
	eventually(scratch_stat(cache).waits > waits);
	put(writer, 5000, 5001);
	must_be(call_end(&call), 1);
	call.offset = 9000;
	call_start(&call);
	must_be(scache_finish(writer), 0);
	must_be(call_end(&call), 0);
	scache_writer_close(writer);
	pattern_read_all(call.reader, 1, 5001);
	end_with(cache, call.reader);
}
END_TEST

START_TEST(of_a_failed_entry_pread_gives_its_bytes_and_then_the_code)
{
	static const struct {
		uint32_t flags;
		int code, error;
		uint64_t bytes;
	} cases[] = {
		{ 0, -EDOM, -EDOM, 300000 },
		{ 0, 7, -EREMOTEIO, 3000 },
		{ SCACHE_PASS_THROUGH, -EDOM, -EDOM, RING_BYTES },
		{ SCACHE_PASS_THROUGH, 7, -EREMOTEIO, 3000 },
	};
	struct scache *cache = scratch_open();

	for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct scache_reader *reader;
		struct scache_writer *writer = create_as(cache, cases[i].flags, 0, &reader);

		put(writer, 0, cases[i].bytes);
		must_be(scache_abort(writer, cases[i].code, NULL, 0), 0);
		scache_writer_close(writer);
		pread_to_the_error(reader, cases[i].bytes, cases[i].error);
		scache_reader_close(reader);
	}
	end_with(cache, NULL);
}
END_TEST

static ssize_t make_blob(struct call *call)
{
	int error = 0;
	ssize_t done = (ssize_t)pattern_write(call->writer, 1, 0, call->bytes, 7001, &error);

	if (error == 0)
		must_be(scache_finish(call->writer), 0);
	scache_writer_close(call->writer);
	return done;
}

START_TEST(a_reader_that_only_preads_lets_the_writer_go_on)
{
	struct call call = { .make = make_blob, .bytes = 16 * WINDOW_BYTES };
	struct scache *cache = scratch_open();
	struct scache_reader *reader;
	uint64_t offset = 0;
	ssize_t done;

	call.writer = scratch_create(cache, "k", WINDOW_BYTES, &reader);
	call_start(&call);
	while ((done = pread_at(reader, offset, 5000, SCACHE_FOREVER)) > 0)
		offset += (uint64_t)done;
	must_be(done, 0);
	must_be(offset, call.bytes);
	must_be(call_end(&call), call.bytes);
	pattern_read_all(reader, 1, call.bytes);
	end_with(cache, reader);
}
END_TEST

START_TEST(a_pread_far_ahead_lets_the_writer_go_on)
{
	struct call call = { .make = make_blob, .bytes = 16 * WINDOW_BYTES };
	struct scache *cache = scratch_open();
	struct scache_reader *reader;

	call.writer = scratch_create(cache, "k", WINDOW_BYTES, &reader);
	call_start(&call);
	eventually(writer_waits_at(reader, WINDOW_BYTES));
	must(pread_at(reader, 10 * WINDOW_BYTES + 17, 100, SCACHE_FOREVER) > 0);
	/* It counts as read up to there, and not a byte further. */
	eventually(writer_waits_at(reader, 11 * WINDOW_BYTES + 17));
	pattern_read_all(reader, 1, call.bytes);
	must_be(call_end(&call), call.bytes);
	end_with(cache, reader);
}
END_TEST

/* ------------------------------------------------------------- pread, no file */

START_TEST(without_a_file_pread_reaches_back_to_the_ring_and_ahead_by_a_window)
{
	struct scache *cache = scratch_open();
	struct scache_reader *reader;
	struct scache_writer *writer = create_as(cache, SCACHE_PASS_THROUGH, 0, &reader);
	const uint64_t at = 100000, until = at + RING_BYTES;
	uint64_t position = 0;

	put(writer, 0, RING_BYTES);
	must_be(pread_at(reader, 0, 1000, 0), 1000);
	must_be(pattern_read(reader, 1, &position, at, 9000), 1);
	put(writer, RING_BYTES, until);
	must_be(pread_at(reader, 0, 1000, 0), -ENODATA);
	must_be(pread_at(reader, at - 1000, 1000, 0), -ENODATA);
	/* From its own position on all is kept, to the last byte. */
	for (int i = 0; i < 2000; i++)
		must(pread_at(reader, at + below(RING_BYTES), 1 + below(3000), 0) > 0);
	must(pread_at(reader, at, 1, 0) == 1);
	/* The byte behind them cannot come before this reader has moved. */
	must_be(pread_at(reader, until, 10, SCACHE_FOREVER), -EDEADLK);
	must_be(pread_at(reader, until + 70000, 10, 0), -EDEADLK);
	must_be(scache_write(writer, "x", 1, 0), -EAGAIN);
	must_be(pattern_read(reader, 1, &position, at + 1, 1), 1);
	must_be(pread_at(reader, until, 10, 0), -EAGAIN);
	must_be(pread_at(reader, until, 10, 20 * MS_NS), -ETIMEDOUT);
	must_be(pread_at(reader, until + 1, 10, 0), -EDEADLK);
	put(writer, until, until + 1);
	must_be(pread_at(reader, until, 10, 0), 1);
	must_be(scache_finish(writer), SCACHE_NOT_KEPT);
	scache_writer_close(writer);
	must_be(pread_at(reader, 0, 10, 0), -ENODATA);
	must_be(pread_at(reader, until + 1, 10, 0), 0);
	must_be(pattern_read(reader, 1, &position, UINT64_MAX, 9000), 0);
	must_be(position, until + 1);
	end_with(cache, reader);
}
END_TEST

START_TEST(without_a_file_a_pread_a_window_ahead_is_told_to_read_first)
{
	struct scache *cache = scratch_open();
	struct scache_reader *reader;
	struct scache_writer *writer = create_as(cache, SCACHE_PASS_THROUGH, WINDOW_BYTES, &reader);
	uint64_t position = 0;

	must_be(pread_at(reader, WINDOW_BYTES - 1, 1, 0), -EAGAIN);
	must_be(pread_at(reader, WINDOW_BYTES, 1, SCACHE_FOREVER), -EDEADLK);
	put(writer, 0, WINDOW_BYTES);
	/* Asking has not moved anything. */
	must_be(scache_write(writer, "x", 1, 0), -EAGAIN);
	must_be(pread_at(reader, WINDOW_BYTES, 1, SCACHE_FOREVER), -EDEADLK);
	must_be(pread_at(reader, WINDOW_BYTES - 1, 100, 0), 1);
	must_be(pattern_read(reader, 1, &position, 1, 1), 1);
	must_be(pread_at(reader, WINDOW_BYTES, 1, 0), -EAGAIN);
	put(writer, WINDOW_BYTES, WINDOW_BYTES + 1);
	must_be(pread_at(reader, WINDOW_BYTES, 1, 0), 1);
	scache_writer_close(writer);
	must_be(pread_at(reader, WINDOW_BYTES + 1, 1, 0), -ECANCELED);
	end_with(cache, reader);
}
END_TEST

int main(void)
{
	const TTest *const tests[] = {
		pread_of_a_finished_entry_is_right_anywhere_and_moves_nothing,
		pread_of_a_growing_entry_is_right_out_of_ring_and_file,
		pread_waits_until_its_offset_is_there,
		of_a_failed_entry_pread_gives_its_bytes_and_then_the_code,
		a_reader_that_only_preads_lets_the_writer_go_on,
		a_pread_far_ahead_lets_the_writer_go_on,
		without_a_file_pread_reaches_back_to_the_ring_and_ahead_by_a_window,
		without_a_file_a_pread_a_window_ahead_is_told_to_read_first,
	};

	return SCRATCH_RUN("pread", tests);
}
