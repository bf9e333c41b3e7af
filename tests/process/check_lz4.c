/* SPDX-License-Identifier: MIT */
/*
 * check_lz4 - blobs that are stored as LZ4 frames: their readers, live or late, get the
 * same bytes as of any other, and at no other time; and the file is one that lz4(1) takes.
 */
#include <check.h>
#include <signal.h>

#include "../util/packed.h"

#define BLOB_BYTES (3 * MIB + 12345)

static const uint32_t levels[] = { 1, 3, 9, 12 };

static struct scache_writer *create_packed(struct scache *cache, uint32_t compression,
					   uint32_t level, struct scache_reader **ret_reader)
{
	struct scache_acquire_options options = { .size = sizeof(options),
						  .compression = compression,
						  .level = level };
	struct scache_writer *writer = NULL;

	must_be(scache_acquire(cache, "k", 1, &options, ret_reader, &writer), 0);
	must(writer != NULL);
	return writer;
}

static void finish(struct scache_writer *writer)
{
	must_be(scache_finish(writer), 0);
	must_be(scache_writer_close(writer), 0);
}

/* By all ways, as a process that comes after all. Then it is removed. */
static void read_late(uint64_t bytes)
{
	static const size_t pieces[] = { 1000003, BLOCK_BYTES, 70001 };
	struct scache *cache = scratch_open();

	for (size_t i = 0; i < WAYS * ARRAY_COUNT(pieces); i++) {
		struct scache_reader *reader = scratch_find(cache, "k");
		uint64_t had = 0;

		must_be(ways[i % WAYS](reader, TEXT, bytes, pieces[i / WAYS], &had), 0);
		must_be(had, bytes);
		scache_reader_close(reader);
	}
	must_be(scache_remove(cache, "k", 1), 0);
	scratch_close(cache);
}

START_TEST(whatever_its_size_and_level_all_of_it_is_read_live_and_late)
{
	static const uint64_t some[] = { 0,	    1,	       16384,	     16385, BLOCK - 1,
					 BLOCK, BLOCK + 1, 3 * MIB, BLOB_BYTES };
	struct scache *cache = open_packed(SCACHE_RAW, 0);
	struct child reader;

	for (size_t i = 0; i < ARRAY_COUNT(levels) * ARRAY_COUNT(some); i++) {
		uint64_t bytes = some[i % ARRAY_COUNT(some)];
		struct scache_writer *writer = create_packed(cache, SCACHE_LZ4,
							     levels[i / ARRAY_COUNT(some)], NULL);

		child_start(&reader, read_text_along, &bytes);
		child_hear(&reader);
		write_text(writer, 0, bytes, 50000);
		finish(writer);
		child_join(&reader);
		must_be_packed();
		read_late(bytes);
	}
	end_with(cache, NULL);
}
END_TEST

START_TEST(a_higher_level_makes_it_shorter)
{
	struct scache *cache = open_packed(SCACHE_LZ4, 9);
	struct file fast, tight;

	/* What an acquire says comes before what the opener has said. */
	for (uint32_t level = 0; level < 2; level++) {
		struct scache_writer *writer = create_packed(cache, 0, level, NULL);

		write_text(writer, 0, BLOB_BYTES, 100000);
		finish(writer);
		*(level == 1 ? &fast : &tight) = must_be_packed();
		read_late(BLOB_BYTES);
	}
	must(tight.bytes < fast.bytes && fast.bytes < BLOB_BYTES * 2 / 3);
	end_with(cache, NULL);
}
END_TEST

START_TEST(a_byte_is_readable_before_its_block_is_whole)
{
	static const uint64_t stops[] = { 1,	     2,		    1000,	    BLOCK - 1,
					  BLOCK,     BLOCK + 1,	    2 * BLOCK - 1,  3 * BLOCK + 7,
					  4 * BLOCK, 4 * BLOCK + 1, 9 * BLOCK + 100 };
	struct scache *cache = open_packed(SCACHE_LZ4, 12), *other = scratch_open();
	struct scache_reader *own, *theirs;
	struct scache_writer *writer = scratch_create(cache, "k", 0, &own);
	uint64_t at[2] = { 0, 0 }, from = 0;
	char byte;

	theirs = scratch_find(other, "k");
	for (size_t i = 0; i < ARRAY_COUNT(stops); i++) {
		write_text(writer, from, stops[i], 9999);
		from = stops[i];
		must_be(pattern_read(own, TEXT, &at[0], from, 100000), 1);
		must_be(pattern_read(theirs, TEXT, &at[1], from, 3000), 1);
		must_be(pread_text(theirs, from - 1, 10), 1);
		must_be(scache_read(theirs, &byte, 1, 0), -EAGAIN);
	}
	finish(writer);
	must_be(pattern_read(own, TEXT, &at[0], UINT64_MAX, 100000), 0);
	must_be(pattern_read(theirs, TEXT, &at[1], UINT64_MAX, 100000), 0);
	must_be(at[0], from);
	must_be(at[1], from);
	must_be_packed();
	scache_reader_close(theirs);
	scratch_close(other);
	end_with(cache, own);
}
END_TEST

/* Around each end of a block, and anywhere. */
static void pread_about(struct scache_reader *reader, uint64_t bytes)
{
	for (uint64_t edge = BLOCK; edge < bytes; edge += BLOCK)
		for (uint64_t at = edge - 1; at <= edge + 1 && at < bytes; at++) {
			must_be(pread_text(reader, at, 1), 1);
			must(pread_text(reader, at, 3) > 0);
			must(pread_text(reader, at - 1, BLOCK_BYTES + 2) > 0);
		}
	for (int i = 0; i < 300; i++)
		must(pread_text(reader, below(bytes), 1 + below(i % 4 ? 5000 : 600000)) > 0);
	must_be(pread_text(reader, bytes - 1, 100), 1);
}

START_TEST(who_joins_late_reads_a_growing_file_from_its_beginning)
{
	const uint64_t middle = 2 * MIB + 3 * BLOCK + 4711;
	struct scache *cache = open_packed(SCACHE_LZ4, 3), *other = scratch_open();
	struct scache_writer *writer = scratch_create(cache, "k", 0, NULL);
	struct scache_reader *reader;
	uint64_t position = 0;
	void *data = malloc(middle);
	int ends[2];

	write_text(writer, 0, middle, 30000);
	reader = scratch_find(other, "k");
	eventually(is_stored(reader, middle / BLOCK * BLOCK));
	pread_about(reader, middle);
	must_be(pattern_read(reader, TEXT, &position, middle, 70000), 1);
	must_be(pread_text(reader, middle, 1), -EAGAIN);
	/* The file has most of it, and no other has opened it. */
	must(scratch_stat(other).bytes_from_file > middle - PACKED_RING_BYTES);
	must_be(scache_seek(reader, 0), 0);
	must_be(by_peek(reader, TEXT, 0, 100000, (position = 0, &position)), -EAGAIN);
	must_be(position, middle);
	must_be(scache_seek(reader, BLOCK - 1), BLOCK - 1);
	open_ends(PLAIN_FILE, ends);
	must_be(scache_sendfile(reader, ends[1], middle, 0), middle - BLOCK + 1);
	must_be(read(ends[0], data, middle), middle - BLOCK + 1);
	must(pattern_matches(TEXT, BLOCK - 1, data, middle - BLOCK + 1));
	write_text(writer, middle, BLOB_BYTES, 30000);
	finish(writer);
	pread_about(reader, BLOB_BYTES);
	must_be(pattern_read(reader, TEXT, &position, UINT64_MAX, 70000), 0);
	must_be(position, BLOB_BYTES);
	must_be_packed();
	free(data);
	scache_reader_close(reader);
	scratch_close(other);
	end_with(cache, NULL);
}
END_TEST

START_TEST(who_joins_in_the_middle_comes_to_the_end_with_the_others)
{
	uint64_t bytes = BLOB_BYTES;
	struct scache *cache = open_packed(SCACHE_LZ4, 9);
	struct child readers[4];

	for (int round = 0; round < 3; round++) {
		struct scache_writer *writer = scratch_create(cache, "k", 0, NULL);

		for (uint64_t i = 0; i < ARRAY_COUNT(readers); i++) {
			child_start(&readers[i], read_text_along, &bytes);
			child_hear(&readers[i]);
			write_text(writer, bytes / 4 * i, i == 3 ? bytes : bytes / 4 * (i + 1),
				   7000 + 50000 * (size_t)round);
		}
		finish(writer);
		for (size_t i = 0; i < ARRAY_COUNT(readers); i++)
			child_join(&readers[i]);
		must_be_packed();
		must_be(scache_remove(cache, "k", 1), 0);
	}
	end_with(cache, NULL);
}
END_TEST

START_TEST(what_is_made_in_place_is_compressed_as_well)
{
	struct scache *cache = open_packed(SCACHE_LZ4, 1);
	struct scache_reader *reader;
	struct scache_writer *writer = scratch_create(cache, "k", 0, &reader);
	uint64_t at = 0;
	ssize_t room;
	void *data;

	while (at < BLOB_BYTES) {
		room = scache_reserve(writer, 1 + below(400000), &data, SCACHE_FOREVER);
		must(room > 0);
		/* Some of it is given back, and has been stored into all the same. */
		pattern_fill(2, at, data, (size_t)room);
		room = (ssize_t)min_u64(below((uint64_t)room + 1), BLOB_BYTES - at);
		pattern_fill(TEXT, at, data, (size_t)room);
		must_be(scache_commit(writer, (size_t)room), room);
		at += (uint64_t)room;
	}
	finish(writer);
	must_be(read_text(reader, BLOB_BYTES, 50000), 0);
	must_be_packed();
	read_late(BLOB_BYTES);
	end_with(cache, reader);
}
END_TEST

/* ------------------------------------------------------------------- automatically */

/* Of @first bytes of one kind, and @bytes in all. */
static void produce_auto(struct scache *cache, uint64_t seed, uint64_t bytes, size_t piece)
{
	struct scache_reader *reader;
	struct scache_writer *writer = create_packed(cache, SCACHE_AUTO, 0, &reader);
	int error = 0;

	must_be(pattern_write(writer, seed, 0, bytes, piece, &error), bytes);
	finish(writer);
	pattern_read_all(reader, seed, bytes);
	scache_reader_close(reader);
}

START_TEST(automatically_text_is_compressed_and_noise_is_not)
{
	static const uint64_t some[] = { 4096,	      BLOCK - 1,     BLOCK,   2 * BLOCK - 1,
					 2 * BLOCK, 2 * BLOCK + 1, BLOB_BYTES };
	struct scache *cache = open_packed(SCACHE_RAW, 0);

	for (size_t i = 0; i < 2 * ARRAY_COUNT(some); i++) {
		uint64_t bytes = some[i / 2];
		size_t piece = i % 2 ? 300000 : 10000;

		produce_auto(cache, TEXT, bytes, piece);
		must(must_be_packed().bytes < bytes * 2 / 3);
		read_late(bytes);
		produce_auto(cache, 1, bytes, piece);
		must_be_raw(1, bytes);
		must_be(scache_remove(cache, "k", 1), 0);
	}
	/* Too little to gain anything. */
	for (uint64_t bytes = 0; bytes < 2; bytes++) {
		produce_auto(cache, TEXT, bytes, 1);
		must_be_raw(TEXT, bytes);
		read_late(bytes);
	}
	end_with(cache, NULL);
}
END_TEST

START_TEST(noise_is_a_frame_too_if_that_is_wanted)
{
	struct scache *cache = open_packed(SCACHE_LZ4, 12);
	struct scache_reader *reader;
	struct file file;

	pattern_produce(scratch_create(cache, "k", 0, NULL), 1, BLOB_BYTES, 60000);
	file = find_file();
	must(is_frame(&file) && passes_lz4(&file));
	reader = scratch_find(cache, "k");
	pattern_read_all(reader, 1, BLOB_BYTES);
	end_with(cache, reader);
}
END_TEST

START_TEST(without_a_ring_or_with_a_small_one_it_is_stored_as_it_is)
{
	struct scache *cache;
	struct scache_writer *holder;

	scratch_options.rings = 1;
	cache = open_packed(SCACHE_LZ4, 0);
	holder = scratch_create(cache, "has the ring", 0, NULL);
	for (uint32_t how = 0; how <= SCACHE_AUTO; how++) {
		struct scache_writer *writer = create_packed(cache, how, 0, NULL);

		write_text(writer, 0, BLOB_BYTES, 100000);
		finish(writer);
		must_be(scache_abort(holder, -EDOM, NULL, 0), 0);
		scache_writer_close(holder);
		must_be_raw(TEXT, BLOB_BYTES);
		read_late(BLOB_BYTES);
		holder = scratch_create(cache, "has the ring", 0, NULL);
	}
	scache_writer_close(holder);
	scratch_close(cache);
	must_be(scache_destroy(scratch_dir, NULL), 0);
	scratch_options.ring_bytes = PACKED_RING_BYTES / 2;
	cache = scratch_open();
	write_text(holder = scratch_create(cache, "k", 0, NULL), 0, BLOB_BYTES, 100000);
	finish(holder);
	must_be_raw(TEXT, BLOB_BYTES);
	end_with(cache, NULL);
}
END_TEST

/* ------------------------------------------------------------------ other endings */

START_TEST(of_an_aborted_one_all_bytes_are_read_and_then_its_message)
{
	static const uint64_t some[] = { 0, 1, BLOCK, 3 * BLOCK, 3 * BLOCK + 99, 6 * BLOCK + 1 };
	struct scache *cache = open_packed(SCACHE_LZ4, 1), *other = scratch_open();
	static char message[SCACHE_MESSAGE_BYTES_MAX + 1], told[SCACHE_MESSAGE_BYTES_MAX + 1];

	memset(message, 'm', SCACHE_MESSAGE_BYTES_MAX);
	for (size_t i = 0; i < 2 * ARRAY_COUNT(some); i++) {
		size_t length = i % 2 ? SCACHE_MESSAGE_BYTES_MAX : 10;
		uint64_t bytes = some[i / 2];
		struct scache_reader *own, *theirs;
		struct scache_writer *writer = scratch_create(cache, "k", 0, &own);

		theirs = scratch_find(other, "k");
		write_text(writer, 0, bytes, 30000);
		must_be(scache_abort(writer, -EDOM, message, length), 0);
		scache_writer_close(writer);
		must_be(scache_message(theirs, told, sizeof(told)), length);
		must(memcmp(told, message, length) == 0 && told[length] == '\0');
		must_be(read_text(theirs, bytes, 5000), -EDOM);
		must_be(read_text(own, bytes, 700000), -EDOM);
		must_be(scache_message(own, told, 5), length);
		scache_reader_close(own);
		scache_reader_close(theirs);
	}
	scratch_close(other);
	end_with(cache, NULL);
}
END_TEST

START_TEST(a_writer_that_is_just_closed_stops_its_thread)
{
	struct scache *cache = open_packed(SCACHE_LZ4, 12);
	int before = threads_now();

	for (uint64_t blocks = 0; blocks < 12; blocks++) {
		struct scache_reader *reader;
		struct scache_writer *writer = scratch_create(cache, "k", 0, &reader);

		write_text(writer, 0, blocks * BLOCK + blocks % 3, BLOCK_BYTES);
		must_be(scache_writer_close(writer), 0);
		must(have_stopped(before));
		must_be(read_text(reader, blocks * BLOCK + blocks % 3, 100000), -ECANCELED);
		scache_reader_close(reader);
	}
	end_with(cache, NULL);
}
END_TEST

START_TEST(a_writer_whom_nobody_reads_any_more_stops_its_thread)
{
	struct scache *cache = open_packed(SCACHE_LZ4, 12);
	int before = threads_now();

	for (int i = 0; i < 5; i++) {
		struct scache_reader *reader;
		struct scache_writer *writer = scratch_create(cache, "k", 0, &reader);

		write_text(writer, 0, 4 * BLOCK, BLOCK_BYTES);
		scache_reader_close(reader);
		must_be(scache_write(writer, "x", 1, 0), -EPIPE);
		must(have_stopped(before));
		must(scratch_misses(cache, "k"));
		scache_writer_close(writer);
	}
	end_with(cache, NULL);
}
END_TEST

START_TEST(what_passes_through_is_not_compressed)
{
	static const uint32_t how[] = { SCACHE_LZ4, SCACHE_AUTO };
	struct scache *cache = open_packed(SCACHE_RAW, 0);

	for (size_t i = 0; i < ARRAY_COUNT(how); i++) {
		struct scache_acquire_options options = { .size = sizeof(options),
							  .flags = SCACHE_PASS_THROUGH,
							  .compression = how[i] };
		struct scache_reader *reader;
		struct scache_writer *writer;
		uint64_t position = 0;

		must_be(scache_acquire(cache, "k", 1, &options, &reader, &writer), 0);
		for (uint64_t at = 0; at < BLOB_BYTES; at = position) {
			write_text(writer, at, min_u64(at + 400000, BLOB_BYTES), 100000);
			must_be(pattern_read(reader, TEXT, &position,
					     min_u64(at + 400000, BLOB_BYTES), 90000), 1);
		}
		must(have_stopped(1));
		must_be(scache_finish(writer), SCACHE_NOT_KEPT);
		scache_writer_close(writer);
		must_be(pattern_read(reader, TEXT, &position, UINT64_MAX, 90000), 0);
		must_be(scratch_blobs(), 0);
		scache_reader_close(reader);
	}
	end_with(cache, NULL);
}
END_TEST

/* ------------------------------------------------------------------------- the pace */

static ssize_t make_text(struct call *call)
{
	write_text(call->writer, 0, call->bytes, 20000);
	finish(call->writer);
	return 0;
}

START_TEST(a_stopped_reader_holds_its_writer_and_harms_nobody)
{
	struct call call = { .make = make_text, .bytes = BLOB_BYTES };
	struct scache *cache = open_packed(SCACHE_LZ4, 9);
	const uint64_t window = 600000;
	struct scache_reader *probe;
	struct child child;

	call.writer = scratch_create(cache, "k", window, NULL);
	child_start(&child, read_text_along, &call.bytes);
	child_hear(&child);
	child_stop(&child);
	probe = scratch_find(cache, "k");
	call_start(&call);
	/* As far as the child had come, and a window more; no block is lost by waiting. */
	eventually(scratch_info(probe).flags & SCACHE_WRITER_WAITS);
	eventually(is_stored(probe, scratch_info(probe).bytes / BLOCK * BLOCK));
	pread_about(probe, scratch_info(probe).bytes);
	must(kill(child.pid, SIGCONT) == 0);
	must_be(call_end(&call), 0);
	child_join(&child);
	must_be(read_text(probe, BLOB_BYTES, 100000), 0);
	must_be_packed();
	end_with(cache, probe);
}
END_TEST

int main(void)
{
	const TTest *const tests[] = {
		whatever_its_size_and_level_all_of_it_is_read_live_and_late,
		a_higher_level_makes_it_shorter,
		a_byte_is_readable_before_its_block_is_whole,
		who_joins_late_reads_a_growing_file_from_its_beginning,
		who_joins_in_the_middle_comes_to_the_end_with_the_others,
		what_is_made_in_place_is_compressed_as_well,
		automatically_text_is_compressed_and_noise_is_not,
		noise_is_a_frame_too_if_that_is_wanted,
		without_a_ring_or_with_a_small_one_it_is_stored_as_it_is,
		of_an_aborted_one_all_bytes_are_read_and_then_its_message,
		a_writer_that_is_just_closed_stops_its_thread,
		a_writer_whom_nobody_reads_any_more_stops_its_thread,
		what_passes_through_is_not_compressed,
		a_stopped_reader_holds_its_writer_and_harms_nobody,
	};

	return status_of(SCRATCH_RUN("lz4", tests));
}
