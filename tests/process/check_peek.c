/* SPDX-License-Identifier: MIT */
/*
 * check_peek - bytes where they are: the right ones, of small, large and growing
 * blobs, of the ring, after a death, and still there when the entry is not.
 */
#include <check.h>
#include <errno.h>
#include <sys/resource.h>

#include "../util/pattern.h"
#include "../util/scratch.h"
#include "../util/spawn.h"

#define SMALL_BYTES 10000u
#define LARGE_BYTES (3u << 20)

/* All from the reader's position on, by looks of up to @most and steps of less. The last result. */
static ssize_t peek_all(struct scache_reader *reader, uint64_t *position, size_t most)
{
	const void *data;
	ssize_t done;

	while ((done = scache_peek(reader, &data, most, SCACHE_FOREVER)) > 0) {
		size_t part = (size_t)done / 2;

		must((size_t)done <= most);
		must(pattern_matches(1, *position, data, (size_t)done));
		must_be(scache_consume(reader, part), part);
		/* What is not consumed may still be looked at. */
		must(pattern_matches(1, *position + part, (const char *)data + part,
				     (size_t)done - part));
		must_be(scache_consume(reader, (size_t)done - part), (size_t)done - part);
		*position += (uint64_t)done;
	}
	return done;
}

static void produce_and_peek(uint64_t bytes, uint32_t flags)
{
	struct scache_acquire_options options = { .size = sizeof(options),
						  .flags = flags,
						  .window_bytes = SCACHE_UNLIMITED };
	struct scache *cache = scratch_open();
	struct scache_reader *reader;
	struct scache_writer *writer;
	uint64_t at = 0, position = 0;
	const void *data;
	int error = 0;

	must_be(scache_acquire(cache, "k", 1, &options, &reader, &writer), 0);
	/* In lots, so that part of it is in the file and part in the ring alone. */
	while (at < bytes) {
		uint64_t lot = bytes - at < 50001 ? bytes - at : 50001;

		must_be(pattern_write(writer, 1, at, at + lot, 7000, &error), lot);
		at += lot;
		while (position < at) {
			ssize_t done = scache_peek(reader, &data, SIZE_MAX, 0);

			must(done > 0 && pattern_matches(1, position, data, (size_t)done));
			must_be(scache_consume(reader, (size_t)done), done);
			position += (uint64_t)done;
		}
		must_be(scache_peek(reader, &data, 1, 0), -EAGAIN);
	}
	must(scache_finish(writer) >= 0);
	scache_writer_close(writer);
	must_be(scache_peek(reader, &data, 1, 0), 0);
	scache_reader_close(reader);
	if (!(flags & SCACHE_PASS_THROUGH))
		for (int i = 0; i < 3; i++) {
			reader = scratch_find(cache, "k");
			position = 0;
			must_be(peek_all(reader, &position, i == 0 ? SIZE_MAX : 77777), 0);
			must_be(position, bytes);
			scache_reader_close(reader);
		}
	scache_remove(cache, "k", 1);
	scratch_is_clean(cache);
	scratch_close(cache);
}

START_TEST(all_of_an_entry_is_shown)
{
	produce_and_peek(0, 0);
	produce_and_peek(1, 0);
	produce_and_peek(SMALL_BYTES, 0);
	produce_and_peek(LARGE_BYTES, 0);
	produce_and_peek(LARGE_BYTES, SCACHE_PASS_THROUGH);
}
END_TEST

START_TEST(only_what_was_shown_can_be_consumed)
{
	struct scache *cache = scratch_open();
	struct scache_reader *reader;
	const void *data;
	char byte;

	pattern_produce(scratch_create(cache, "k", 0, NULL), 1, SMALL_BYTES, 30000);
	reader = scratch_find(cache, "k");
	must_be(scache_consume(reader, 1), -EINVAL);
	must_be(scache_peek(reader, &data, 100, 0), 100);
	must_be(scache_consume(reader, 101), -EINVAL);
	must_be(scache_consume(reader, 40), 40);
	must_be(scache_consume(reader, 61), -EINVAL);
	must_be(scache_consume(reader, 0), 0);
	/* Any other call ends it. */
	must_be(scache_read(reader, &byte, 1, 0), 1);
	must(pattern_matches(1, 40, &byte, 1));
	must_be(scache_consume(reader, 1), -EINVAL);
	must_be(scache_peek(reader, &data, 10, 0), 10);
	must_be(scache_pread(reader, &byte, 1, 9, 0), 1);
	must_be(scache_consume(reader, 1), -EINVAL);
	must_be(scache_peek(reader, &data, SIZE_MAX, 0), SMALL_BYTES - 41);
	must(pattern_matches(1, 41, data, SMALL_BYTES - 41));
	must_be(scache_peek(reader, &data, 0, 0), 0);
	scache_reader_close(reader);
	scratch_close(cache);
}
END_TEST

/* Of the ring no more is copied than was asked for; and what is flushed, if it cannot be opened. */
START_TEST(the_ring_is_looked_at_piece_by_piece_and_without_a_descriptor)
{
	struct scache *cache = scratch_open();
	struct rlimit limit, none;
	struct scache_reader *reader;
	struct scache_writer *writer = scratch_create(cache, "k", 0, &reader);
	const void *data;
	int error = 0;

	must_be(pattern_write(writer, 1, 0, 200000, 7000, &error), 200000);
	must(scratch_info(reader).stored_bytes > 0);
	must(getrlimit(RLIMIT_NOFILE, &limit) == 0);
	none = (struct rlimit){ .rlim_cur = 3, .rlim_max = limit.rlim_max };
	must(setrlimit(RLIMIT_NOFILE, &none) == 0);
	for (uint64_t at = 0; at < 1000; at += 100) {
		must_be(scache_peek(reader, &data, 100, 0), 100);
		must(pattern_matches(1, at, data, 100));
		must_be(scache_consume(reader, 100), 100);
	}
	must(setrlimit(RLIMIT_NOFILE, &limit) == 0);
	must_be(scache_peek(reader, &data, 100, 0), 100);
	must(pattern_matches(1, 1000, data, 100));
	scache_reader_close(reader);
	must_be(scratch_stat(cache).bytes_from_ring, 1000);
	scache_writer_close(writer);
	scratch_close(cache);
}
END_TEST

/* A writer that waits for its reader goes on when bytes are consumed, not when they are seen. */
START_TEST(the_window_moves_by_what_is_consumed)
{
	struct scache_reader *reader;
	struct scache *cache = scratch_open();
	struct scache_writer *writer = scratch_create(cache, "k", 1000, &reader);
	char data[2000];
	const void *seen;

	pattern_fill(1, 0, data, sizeof(data));
	must_be(scache_write(writer, data, sizeof(data), 0), 1000);
	must_be(scache_peek(reader, &seen, SIZE_MAX, 0), 1000);
	must_be(scache_write(writer, data + 1000, 1000, 0), -EAGAIN);
	must_be(scache_consume(reader, 600), 600);
	must_be(scache_write(writer, data + 1000, 1000, 0), 600);
	must(pattern_matches(1, 600, (const char *)seen + 600, 400));
	scache_writer_close(writer);
	scache_reader_close(reader);
	scratch_close(cache);
}
END_TEST

static void produce_a_part(void *arg)
{
	struct scache_acquire_options options = { .size = sizeof(options),
						  .flags = SCACHE_RUN_TO_END,
						  .window_bytes = SCACHE_UNLIMITED };
	struct scache_writer *writer;
	int error = 0;

	(void)arg;
	must_be(scache_acquire(scratch_open(), "k", 1, &options, NULL, &writer), 0);
	must_be(pattern_write(writer, 1, 0, LARGE_BYTES, 30000, &error), LARGE_BYTES);
	child_say(0);
	child_stay();
}

START_TEST(a_dead_producers_bytes_are_shown_and_then_its_death)
{
	struct scache *cache = scratch_open();
	struct scache_reader *reader;
	uint64_t position = 0;
	struct child child;

	child_start(&child, produce_a_part, NULL);
	child_hear(&child);
	reader = scratch_find(cache, "k");
	child_kill(&child);
	must_be(peek_all(reader, &position, SIZE_MAX), -EOWNERDEAD);
	must_be(position, LARGE_BYTES);
	scache_reader_close(reader);
	scratch_is_clean(cache);
	scratch_close(cache);
}
END_TEST

/* Removed, and its space wanted: who is looking keeps what there is to look at. */
START_TEST(a_view_outlives_the_entry)
{
	struct scache *cache = scratch_open();
	struct scache_reader *reader;
	const void *data;
	ssize_t done;

	pattern_produce(scratch_create(cache, "k", 0, NULL), 1, LARGE_BYTES, 30000);
	reader = scratch_find(cache, "k");
	done = scache_peek(reader, &data, SIZE_MAX, 0);
	must_be(done, LARGE_BYTES);
	must_be(scache_remove(cache, "k", 1), 0);
	must_be(scache_sweep(cache, NULL, NULL), 0);
	must(pattern_matches(1, 0, data, LARGE_BYTES));
	must_be(scache_consume(reader, LARGE_BYTES), LARGE_BYTES);
	must_be(scache_peek(reader, &data, 1, 0), 0);
	scache_reader_close(reader);
	must_be(scratch_blobs(), 0);
	scratch_close(cache);
}
END_TEST

int main(void)
{
	const TTest *const tests[] = {
		all_of_an_entry_is_shown,
		only_what_was_shown_can_be_consumed,
		the_ring_is_looked_at_piece_by_piece_and_without_a_descriptor,
		the_window_moves_by_what_is_consumed,
		a_dead_producers_bytes_are_shown_and_then_its_death,
		a_view_outlives_the_entry,
	};

	return SCRATCH_RUN("peek", tests);
}
