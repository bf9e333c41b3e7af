/* SPDX-License-Identifier: MIT */
/*
 * check_seek - a position that is moved: in what is finished, what grows, what has
 * failed; what it means to the writer; and after a death.
 */
#include <check.h>
#include <errno.h>
#include <unistd.h>

#include "../util/calls.h"
#include "../util/producer.h"

#define RING_BYTES SCRATCH_RING_BYTES
#define BLOB_BYTES 1000003u
#define WINDOW_BYTES (32u << 10)

/* seek_read - from @offset on, @bytes bytes, which must be there and right. */
static void seek_read(struct scache_reader *reader, uint64_t offset, uint64_t bytes)
{
	uint64_t position = offset;

	must_be(scache_seek(reader, offset), offset);
	must_be(pattern_read(reader, 1, &position, offset + bytes, 7000), 1);
}

static void seek_about(struct scache_reader *reader, uint64_t published)
{
	for (int i = 0; i < 500; i++) {
		uint64_t offset = below(published);

		seek_read(reader, offset, 1 + below(published - offset < 20000 ?
							     published - offset : 20000));
	}
}

/* The rest from @offset on; what the last call returns. */
static int seek_to_the_end(struct scache_reader *reader, uint64_t offset, uint64_t published)
{
	uint64_t position = offset;
	int ret;

	must_be(scache_seek(reader, offset), offset);
	ret = pattern_read(reader, 1, &position, UINT64_MAX, 9000);
	must_be(position, published);
	return ret;
}

START_TEST(in_a_finished_entry_every_call_goes_on_where_was_sought)
{
	struct scache *cache = scratch_open();
	struct scache_reader *reader;
	char data[1000];
	const void *shown;
	int ends[2];

	pattern_produce(scratch_create(cache, "k", 0, NULL), 1, BLOB_BYTES, 30000);
	reader = scratch_find(cache, "k");
	seek_about(reader, BLOB_BYTES);
	must_be(seek_to_the_end(reader, BLOB_BYTES - 1, BLOB_BYTES), 0);
	/* The end is no end of the handle, and behind it there is nothing. */
	must_be(scache_seek(reader, BLOB_BYTES + 5), BLOB_BYTES + 5);
	must_be(scache_read(reader, data, sizeof(data), SCACHE_FOREVER), 0);
	must_be(scache_seek(reader, INT64_MAX), INT64_MAX);
	must_be(scache_read(reader, data, sizeof(data), SCACHE_FOREVER), 0);
	must_be(scache_peek(reader, &shown, 10, 0), 0);
	must_be(scache_seek(reader, (uint64_t)INT64_MAX + 1), -EINVAL);
	must_be(scache_seek(reader, 500), 500);
	must_be(scache_peek(reader, &shown, 1000, 0), 1000);
	must(pattern_matches(1, 500, shown, 1000));
	/* What was shown is not at the position any more. */
	must_be(scache_seek(reader, 500), 500);
	must_be(scache_consume(reader, 1), -EINVAL);
	must(pipe(ends) == 0);
	must_be(scache_seek(reader, 700001), 700001);
	must_be(scache_sendfile(reader, ends[1], sizeof(data), SCACHE_FOREVER), sizeof(data));
	must_be(read(ends[0], data, sizeof(data)), sizeof(data));
	must(pattern_matches(1, 700001, data, sizeof(data)));
	close(ends[0]);
	close(ends[1]);
	must_be(pread_at(reader, 3, 100, 0), 100);
	must_be(seek_to_the_end(reader, 0, BLOB_BYTES), 0);
	end_with(cache, reader);
}
END_TEST

START_TEST(in_a_growing_entry_back_to_ring_and_file_and_ahead_to_what_is_not_there)
{
	struct scache *cache = scratch_open();
	struct scache_reader *reader;
	struct scache_writer *writer = scratch_create(cache, "k", 0, &reader);
	char byte;

	put(writer, 0, BLOB_BYTES / 2);
	seek_about(reader, BLOB_BYTES / 2);
	must_be(scache_seek(reader, BLOB_BYTES - 1), BLOB_BYTES - 1);
	must_be(scache_read(reader, &byte, 1, 0), -EAGAIN);
	put(writer, BLOB_BYTES / 2, BLOB_BYTES - 1);
	must_be(scache_read(reader, &byte, 1, 0), -EAGAIN);
	put(writer, BLOB_BYTES - 1, BLOB_BYTES);
	must_be(scache_read(reader, &byte, 1, 0), 1);
	must(pattern_matches(1, BLOB_BYTES - 1, &byte, 1));
	seek_about(reader, BLOB_BYTES);
	must_be(scache_seek(reader, BLOB_BYTES + 100), BLOB_BYTES + 100);
	must_be(scache_read(reader, &byte, 1, 0), -EAGAIN);
	must_be(scache_finish(writer), 0);
	scache_writer_close(writer);
	must_be(scache_read(reader, &byte, 1, 0), 0);
	must_be(seek_to_the_end(reader, 0, BLOB_BYTES), 0);
	end_with(cache, reader);
}
END_TEST

START_TEST(in_what_is_compressed_while_it_grows_and_after)
{
	struct scache_acquire_options options = { .size = sizeof(options),
						  .window_bytes = SCACHE_UNLIMITED,
						  .compression = SCACHE_LZ4 };
	struct scache_writer *writer;
	struct scache_reader *reader;
	struct scache *cache;

	scratch_options.ring_bytes = 1 << 20;
	cache = scratch_open();
	must_be(scache_acquire(cache, "k", 1, &options, &reader, &writer), 0);
	put(writer, 0, 3 * BLOB_BYTES);
	seek_about(reader, 3 * BLOB_BYTES);
	must_be(scache_finish(writer), 0);
	scache_writer_close(writer);
	seek_about(reader, 3 * BLOB_BYTES);
	scache_reader_close(reader);
	reader = scratch_find(cache, "k");
	seek_about(reader, 3 * BLOB_BYTES);
	must_be(seek_to_the_end(reader, 5, 3 * BLOB_BYTES), 0);
	end_with(cache, reader);
}
END_TEST

static ssize_t make_read(struct call *call)
{
	unsigned char data[100];
	ssize_t done = scache_read(call->reader, data, sizeof(data), SCACHE_FOREVER);

	must(done <= 0 || pattern_matches(1, call->offset, data, (size_t)done));
	return done;
}

START_TEST(a_read_waits_for_the_byte_that_was_sought)
{
	struct scache *cache = scratch_open();
	struct call call = { .make = make_read, .offset = 5000 };
	struct scache_writer *writer = scratch_create(cache, "k", 0, &call.reader);
	uint64_t waits;

	must_be(scache_seek(call.reader, 5000), 5000);
	call_start(&call);
	eventually((waits = scratch_stat(cache).waits) > 0);
	put(writer, 0, 5000);
	eventually(scratch_stat(cache).waits > waits);
	put(writer, 5000, 5001);
	must_be(call_end(&call), 1);
	must_be(scache_seek(call.reader, 9000), 9000);
	call_start(&call);
	must_be(scache_finish(writer), 0);
	must_be(call_end(&call), 0);
	scache_writer_close(writer);
	end_with(cache, call.reader);
}
END_TEST

START_TEST(what_has_failed_can_be_read_once_more)
{
	static const uint32_t flags[] = { 0, SCACHE_PASS_THROUGH };
	struct scache *cache = scratch_open();

	for (int i = 0; i < 2; i++) {
		struct scache_reader *reader;
		struct scache_writer *writer = create_as(cache, flags[i], 0, &reader);

		put(writer, 0, RING_BYTES);
		must_be(scache_abort(writer, -EDOM, NULL, 0), 0);
		scache_writer_close(writer);
		must_be(seek_to_the_end(reader, 0, RING_BYTES), -EDOM);
		must_be(seek_to_the_end(reader, 777, RING_BYTES), -EDOM);
		must_be(seek_to_the_end(reader, RING_BYTES, RING_BYTES), -EDOM);
		must_be(scache_seek(reader, BLOB_BYTES), BLOB_BYTES);
		must_be(scache_read(reader, &(char){ 0 }, 1, 0), -EDOM);
		scache_reader_close(reader);
	}
	end_with(cache, NULL);
}
END_TEST

static void seek_as_a_child(void *arg)
{
	must_be(scache_seek(arg, 0), -ECHILD);
}

START_TEST(it_is_the_parents)
{
	struct scache *cache = scratch_open();
	struct scache_reader *reader;
	struct child child;

	pattern_produce(scratch_create(cache, "k", 0, NULL), 1, 1000, 1000);
	reader = scratch_find(cache, "k");
	child_start(&child, seek_as_a_child, reader);
	child_join(&child);
	seek_read(reader, 10, 100);
	end_with(cache, reader);
}
END_TEST

/* --------------------------------------------------------------- the writer */

static ssize_t make_blob(struct call *call)
{
	int error = 0;
	ssize_t done = (ssize_t)pattern_write(call->writer, 1, 0, call->bytes, 7001, &error);

	if (error == 0)
		must(scache_finish(call->writer) >= 0);
	scache_writer_close(call->writer);
	return done;
}

static void paces_by_the_furthest_place(uint32_t flags)
{
	struct call call = { .make = make_blob, .bytes = 16 * WINDOW_BYTES };
	struct scache *cache = scratch_open();
	struct scache_reader *reader;

	call.writer = create_as(cache, flags, WINDOW_BYTES, &reader);
	call_start(&call);
	eventually(writer_waits_at(reader, WINDOW_BYTES));
	/* To seek ahead is to have read up to there, and not a byte further. */
	must_be(scache_seek(reader, 10 * WINDOW_BYTES + 17), 10 * WINDOW_BYTES + 17);
	eventually(writer_waits_at(reader, 11 * WINDOW_BYTES + 17));
	if (!(flags & SCACHE_PASS_THROUGH)) {
		/* Back: the writer has gone on for it, and does not go on for what is read twice. */
		seek_read(reader, 0, 10 * WINDOW_BYTES);
		must(writer_waits_at(reader, 11 * WINDOW_BYTES + 17));
		seek_read(reader, 10 * WINDOW_BYTES, 17 + WINDOW_BYTES / 2 + 1);
	} else {
		seek_read(reader, 10 * WINDOW_BYTES + 17, WINDOW_BYTES / 2 + 1);
	}
	eventually(scratch_info(reader).bytes > 11 * WINDOW_BYTES + 17);
	must_be(seek_to_the_end(reader, 11 * WINDOW_BYTES, 16 * WINDOW_BYTES), 0);
	must_be(call_end(&call), call.bytes);
	scache_remove(cache, "k", 1);
	end_with(cache, reader);
}

START_TEST(the_writer_goes_by_the_furthest_place)
{
	paces_by_the_furthest_place(0);
	paces_by_the_furthest_place(SCACHE_PACE_SLOWEST);
	paces_by_the_furthest_place(SCACHE_PASS_THROUGH);
}
END_TEST

START_TEST(what_is_not_stored_is_kept_from_the_furthest_place_on)
{
	struct scache *cache = scratch_open();
	struct scache_reader *reader;
	struct scache_writer *writer = create_as(cache, SCACHE_PASS_THROUGH, 0, &reader);
	const uint64_t at = 100000;
	uint64_t position = 0;
	char byte;

	put(writer, 0, RING_BYTES);
	must_be(pattern_read(reader, 1, &position, at, 9000), 1);
	/* It is there yet, but nobody keeps it. */
	seek_read(reader, 0, 1000);
	must_be(scache_seek(reader, 500), 500);
	put(writer, RING_BYTES, RING_BYTES + at / 2);
	must_be(scache_read(reader, &byte, 1, 0), -ENODATA);
	must_be(scache_read(reader, &byte, 1, SCACHE_FOREVER), -ENODATA);
	must_be(scache_sendfile(reader, STDOUT_FILENO, 1, 0), -ENODATA);
	must_be(scache_seek(reader, at / 2 - 1), -ENODATA);
	must_be(scache_read(reader, &byte, 1, 0), -ENODATA);
	seek_read(reader, at / 2, 1000);
	/* What is refused moves nothing. */
	must_be(scache_seek(reader, 0), -ENODATA);
	must_be(scache_read(reader, &byte, 1, 0), 1);
	must(pattern_matches(1, at / 2 + 1000, &byte, 1));
	put(writer, RING_BYTES + at / 2, RING_BYTES + at);
	must_be(scache_write(writer, "x", 1, 0), -EAGAIN);
	/* Ahead of all there is: nothing in between is kept for it. */
	must_be(scache_seek(reader, BLOB_BYTES - 100), BLOB_BYTES - 100);
	put(writer, RING_BYTES + at, BLOB_BYTES);
	position = BLOB_BYTES - 100;
	must_be(scache_finish(writer), SCACHE_NOT_KEPT);
	scache_writer_close(writer);
	must_be(pattern_read(reader, 1, &position, UINT64_MAX, 33), 0);
	must_be(position, BLOB_BYTES);
	must_be(scache_seek(reader, BLOB_BYTES - RING_BYTES - 1), -ENODATA);
	must_be(seek_to_the_end(reader, BLOB_BYTES - RING_BYTES, BLOB_BYTES), 0);
	end_with(cache, reader);
}
END_TEST

/* ------------------------------------------------------------------- deaths */

/* The body of a child: publish *@arg bytes, be silent, be killed. */
static void produce_and_stall(void *arg)
{
	const uint64_t bytes = *(const uint64_t *)arg;
	struct scache *cache = scratch_open();

	put(scratch_create(cache, "k", SCACHE_UNLIMITED, NULL), 0, bytes);
	child_say(0);
	child_stay();
}

static struct scache_reader *fetch_behind(struct child *producer, uint64_t bytes,
					  uint32_t flags, struct task *task,
					  struct scache **ret_cache)
{
	struct scache_acquire_options options = { .size = sizeof(options),
						  .flags = flags,
						  .window_bytes = SCACHE_UNLIMITED };
	struct scache_reader *reader;

	board_make();
	child_start(producer, produce_and_stall, &bytes);
	must_be(child_hear(producer), 0);
	*ret_cache = scratch_open();
	task->bytes = BLOB_BYTES;
	must_be(task_fetch(*ret_cache, "k", &options, task, &reader), 0);
	return reader;
}

START_TEST(who_has_sought_and_read_nothing_goes_on_with_another_producer)
{
	static const uint64_t places[] = { 100, 70000, BLOB_BYTES - 1, BLOB_BYTES, BLOB_BYTES + 9 };

	for (size_t i = 0; i < sizeof(places) / sizeof(places[0]); i++) {
		struct task task = { .seed = 1 };
		struct child producer;
		struct scache *cache;
		struct scache_reader *reader = fetch_behind(&producer, 1000, 0, &task, &cache);
		uint64_t position = places[i];

		must_be(scache_seek(reader, position), position);
		child_kill(&producer);
		eventually(scratch_misses(cache, "k"));
		must_be(pattern_read(reader, 1, &position, UINT64_MAX, 5000), 0);
		must(position == BLOB_BYTES || places[i] > BLOB_BYTES);
		/* Ended before the last reader leaves, or it could fail. */
		eventually(scratch_info(reader).state == SCACHE_FINISHED);
		must_be(seek_to_the_end(reader, 0, BLOB_BYTES), 0);
		must_be(scache_remove(cache, "k", 1), 0);
		task_close(cache, reader);
	}
}
END_TEST

START_TEST(who_has_read_is_told_of_the_death)
{
	struct task task = { .seed = 1 };
	struct child producer;
	struct scache *cache;
	struct scache_reader *reader = fetch_behind(&producer, 300000, SCACHE_DETERMINISTIC, &task,
						    &cache);

	seek_read(reader, 200000, 1000);
	child_kill(&producer);
	/* There is no checksum of what has a gap. */
	must_be(seek_to_the_end(reader, 201000, 300000), -EOWNERDEAD);
	must_be(seek_to_the_end(reader, 5, 300000), -EOWNERDEAD);
	must_be(atomic_load(&board->begun), 0);
	task_close(cache, reader);
}
END_TEST

/* The other production is under way, and less of it there than the caller has had. */
static void seeks_while_behind(uint64_t seed, int expected)
{
	struct task task = { .seed = seed, .pauses = true, .pause_at = 100000 };
	struct child producer;
	struct scache *cache;
	struct scache_reader *reader = fetch_behind(&producer, 200000, SCACHE_DETERMINISTIC, &task,
						    &cache);
	uint64_t position = 0;
	char byte;

	must_be(pattern_read(reader, 1, &position, 200000, 3001), 1);
	child_kill(&producer);
	eventually(scache_read(reader, &byte, 1, 0) == -EAGAIN && atomic_load(&board->paused) == 1);
	must_be(scache_seek(reader, 100), 100);
	/* Nothing of it is shown before as much was compared. */
	must_be(scache_read(reader, &byte, 1, 0), -EAGAIN);
	must_be(scache_seek(reader, 300), 300);
	atomic_store(&board->go, 1);
	position = 300;
	must_be(pattern_read(reader, 1, &position, UINT64_MAX, 5000), expected);
	must_be(position, expected == 0 ? BLOB_BYTES : 300);
	if (expected < 0)
		must_be(scache_seek(reader, 0), expected);
	else
		must_be(seek_to_the_end(reader, 1, BLOB_BYTES), 0);
	task_close(cache, reader);
}

START_TEST(sought_while_the_same_is_done_once_more)
{
	seeks_while_behind(1, 0);
}
END_TEST

START_TEST(sought_while_another_thing_is_done)
{
	seeks_while_behind(2, -EOWNERDEAD);
}
END_TEST

int main(void)
{
	const TTest *const tests[] = {
		in_a_finished_entry_every_call_goes_on_where_was_sought,
		in_a_growing_entry_back_to_ring_and_file_and_ahead_to_what_is_not_there,
		in_what_is_compressed_while_it_grows_and_after,
		a_read_waits_for_the_byte_that_was_sought,
		what_has_failed_can_be_read_once_more,
		it_is_the_parents,
		the_writer_goes_by_the_furthest_place,
		what_is_not_stored_is_kept_from_the_furthest_place_on,
		who_has_sought_and_read_nothing_goes_on_with_another_producer,
		who_has_read_is_told_of_the_death,
		sought_while_the_same_is_done_once_more,
		sought_while_another_thing_is_done,
	};

	return SCRATCH_RUN("seek", tests);
}
