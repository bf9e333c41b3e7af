/* SPDX-License-Identifier: MIT */
/*
 * check_declared - a size that is told beforehand: it is seen by all, reserved on the
 * disk, given back, and held to by whoever produces.
 */
#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "../util/calls.h"

#define BLOB_BYTES 900001u
#define LARGE_BYTES (8ull << 20)
#define MUCH_BYTES (1ull << 43) /* more than the disk of a test machine has free */

static struct scache_acquire_options options_for(uint64_t declared_bytes, uint32_t flags)
{
	return (struct scache_acquire_options){ .size = sizeof(struct scache_acquire_options),
						.flags = flags,
						.window_bytes = SCACHE_UNLIMITED,
						.declared_bytes = declared_bytes };
}

/* Be elected for "k", which is to have so many bytes. */
static struct scache_writer *declare(struct scache *cache, uint64_t declared_bytes, uint32_t flags,
				     struct scache_reader **ret_reader)
{
	struct scache_acquire_options options = options_for(declared_bytes, flags);
	struct scache_writer *writer = NULL;

	must_be(scache_acquire(cache, "k", 1, &options, ret_reader, &writer), 0);
	must(writer != NULL);
	return writer;
}

/* What is published, then @error, and nobody finds it. */
static void has_failed(struct scache *cache, struct scache_reader *reader, uint64_t bytes, int error)
{
	struct scache_result result = { .size = sizeof(result) };
	uint64_t position = 0;

	must_be(pattern_read(reader, 1, &position, UINT64_MAX, 9000), error);
	must_be(position, bytes);
	must_be(scache_wait(reader, 0, &result), 0);
	must_be(result.code, error);
	must_be(result.bytes, bytes);
	must(scratch_misses(cache, "k"));
	must_be(scache_check(cache, NULL, NULL), 0);
}

/* ------------------------------------------------------------------ held to it */

START_TEST(it_is_seen_and_finishes_with_as_many)
{
	static const uint64_t sizes[] = { 1, 5000, BLOB_BYTES, LARGE_BYTES };
	struct scache *cache = scratch_open(), *other = scratch_open();

	for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
		struct scache_reader *reader;
		struct scache_writer *writer = declare(cache, sizes[i], 0, NULL);

		reader = scratch_find(other, "k");
		must_be(scratch_info(reader).declared_bytes, sizes[i]);
		put(writer, 0, sizes[i]);
		must_be(scache_check(cache, NULL, NULL), 0);
		must_be(scache_finish(writer), 0);
		scache_writer_close(writer);
		must_be(scratch_info(reader).declared_bytes, sizes[i]);
		pattern_read_all(reader, 1, sizes[i]);
		scache_reader_close(reader);
		must_be(scache_check(cache, NULL, NULL), 0);
		must_be(scache_remove(cache, "k", 1), 0);
	}
	scratch_close(other);
	end_with(cache, NULL);
}
END_TEST

START_TEST(nothing_and_not_known_can_be_declared)
{
	static const uint64_t unknown[] = { 0, SCACHE_UNLIMITED };
	struct scache *cache = scratch_open();
	struct scache_acquire_options options = options_for((uint64_t)INT64_MAX + 1, 0);
	struct scache_reader *reader;
	struct scache_writer *writer = declare(cache, SCACHE_ZERO, 0, &reader);

	must_be(scratch_info(reader).declared_bytes, 0);
	must_be(scache_write(writer, "", 0, 0), 0);
	must_be(scache_finish(writer), 0);
	scache_writer_close(writer);
	pattern_read_all(reader, 1, 0);
	scache_reader_close(reader);
	must_be(scache_remove(cache, "k", 1), 0);
	for (int i = 0; i < 2; i++) {
		writer = declare(cache, unknown[i], 0, &reader);
		must_be(scratch_info(reader).declared_bytes, SCACHE_UNLIMITED);
		put(writer, 0, 1000);
		must_be(scache_finish(writer), 0);
		scache_writer_close(writer);
		scache_reader_close(reader);
		must_be(scache_remove(cache, "k", 1), 0);
	}
	writer = NULL;
	must_be(scache_acquire(cache, "k", 1, &options, NULL, &writer), -EINVAL);
	options.declared_bytes = SCACHE_ZERO - 1;
	must_be(scache_acquire(cache, "k", 1, &options, NULL, &writer), -EINVAL);
	must(writer == NULL);
	end_with(cache, NULL);
}
END_TEST

/* A struct of a time before there was such a thing. */
START_TEST(an_older_caller_declares_and_is_told_nothing)
{
	struct scache_acquire_options options = options_for(5, 0);
	struct scache_entry_info info = { .declared_bytes = 77 };
	struct scache *cache = scratch_open();
	struct scache_reader *reader;
	struct scache_writer *writer;

	options.size = offsetof(struct scache_acquire_options, declared_bytes);
	must_be(scache_acquire(cache, "k", 1, &options, &reader, &writer), 0);
	must_be(scratch_info(reader).declared_bytes, SCACHE_UNLIMITED);
	info.size = offsetof(struct scache_entry_info, declared_bytes);
	must_be(scache_reader_info(reader, &info), 0);
	must_be(info.declared_bytes, 77);
	put(writer, 0, 1000);
	must_be(scache_finish(writer), 0);
	scache_writer_close(writer);
	end_with(cache, reader);
}
END_TEST

static const uint32_t kinds[] = { 0, SCACHE_RUN_TO_END, SCACHE_PASS_THROUGH };
#define KINDS (sizeof(kinds) / sizeof(kinds[0]))

START_TEST(a_write_beyond_it_fails_the_production)
{
	struct scache *cache = scratch_open();

	for (size_t i = 0; i < KINDS; i++) {
		struct scache_reader *reader;
		struct scache_writer *writer = declare(cache, 100000, kinds[i], &reader);
		char data[1001] = { 0 };

		put(writer, 0, 99000);
		must_be(scache_write(writer, data, sizeof(data), SCACHE_FOREVER), -ERANGE);
		must_be(scache_write(writer, data, 1, 0), -ERANGE);
		must_be(scache_finish(writer), -ERANGE);
		must_be(scache_abort(writer, -EDOM, NULL, 0), 0);
		scache_writer_close(writer);
		has_failed(cache, reader, 99000, -ERANGE);
		scache_reader_close(reader);
	}
	end_with(cache, NULL);
}
END_TEST

START_TEST(an_end_before_it_fails_the_production)
{
	struct scache *cache = scratch_open();

	for (size_t i = 0; i < KINDS; i++) {
		struct scache_reader *reader;
		struct scache_writer *writer = declare(cache, 100000, kinds[i], &reader);

		put(writer, 0, 99999);
		must_be(scache_finish(writer), -ERANGE);
		must_be(scache_finish(writer), -ERANGE);
		must_be(scache_write(writer, "x", 1, 0), -ERANGE);
		scache_writer_close(writer);
		has_failed(cache, reader, 99999, -ERANGE);
		scache_reader_close(reader);
	}
	end_with(cache, NULL);
}
END_TEST

/* Room is no promise: only what is committed counts. */
START_TEST(what_is_reserved_and_read_counts_when_it_is_committed)
{
	struct scache *cache = scratch_open();
	struct scache_reader *reader;
	struct scache_writer *writer = declare(cache, 1000, 0, &reader);
	int ends[2];
	void *room;

	must(scache_reserve(writer, 5000, &room, 0) > 1000);
	pattern_fill(1, 0, room, 900);
	must_be(scache_commit(writer, 900), 900);
	must(scache_reserve(writer, 5000, &room, 0) > 100);
	must_be(scache_commit(writer, 0), 0);
	must(scache_reserve(writer, 5000, &room, 0) > 100);
	must_be(scache_commit(writer, 101), -ERANGE);
	must_be(scache_reserve(writer, 1, &room, 0), -ERANGE);
	scache_writer_close(writer);
	has_failed(cache, reader, 900, -ERANGE);
	scache_reader_close(reader);
	must(pipe(ends) == 0);
	must_be(write(ends[1], "0123456789", 10), 10);
	close(ends[1]);
	writer = declare(cache, 10, 0, &reader);
	must_be(scache_write_from_fd(writer, ends[0], SIZE_MAX, SCACHE_FOREVER), 10);
	/* To see the end there must be room for more. */
	must_be(scache_write_from_fd(writer, ends[0], SIZE_MAX, SCACHE_FOREVER), 0);
	must_be(scache_finish(writer), 0);
	scache_writer_close(writer);
	close(ends[0]);
	end_with(cache, reader);
}
END_TEST

static int produce_some(void *arg, struct scache_writer *writer)
{
	int error;

	pattern_write(writer, 1, 0, *(const uint64_t *)arg, 7000, &error);
	return 0;
}

/* In private, too, where there is no cache to tell. */
START_TEST(a_callback_that_says_it_is_complete_is_not_believed)
{
	static const uint32_t flags[] = { 0, SCACHE_PASS_THROUGH };
	struct scache *cache = scratch_open();

	for (int i = 0; i < 4; i++) {
		struct scache_acquire_options options = options_for(5000, flags[i / 2]);
		uint64_t bytes = i % 2 ? 4999 : 7000, position = 0;
		struct scache_producer producer = { .size = sizeof(producer),
						    .create = produce_some,
						    .arg = &bytes };
		struct scache_reader *reader;

		must_be(scache_fetch(cache, "k", 1, &options, &producer, &reader, NULL), 0);
		must_be(pattern_read(reader, 1, &position, UINT64_MAX, 100), -ERANGE);
		must_be(position, i % 2 ? 4999 : 0);
		scache_reader_close(reader);
	}
	must_be(scache_close(cache), 0);
	cache = scratch_open();
	end_with(cache, NULL);
}
END_TEST

/* ------------------------------------------------------------------- the disk */

static uint64_t disk_bytes(void)
{
	char path[1024];
	struct stat st;

	scratch_blob(path, sizeof(path));
	must(stat(path, &st) == 0);
	return (uint64_t)st.st_blocks * 512;
}

static int can_reserve(void)
{
	char path[1024];
	int fd, ret;

	snprintf(path, sizeof(path), "%s/probe", scratch_base);
	fd = open(path, O_RDWR | O_CREAT, 0600);
	must(fd >= 0);
	ret = fallocate(fd, FALLOC_FL_KEEP_SIZE, 0, LARGE_BYTES) == 0;
	close(fd);
	unlink(path);
	return ret;
}

START_TEST(its_room_is_reserved_and_given_back)
{
	struct scache *cache = scratch_open();
	struct scache_reader *reader;
	struct scache_writer *writer;
	struct stat st;
	char path[1024];

	if (!can_reserve())
		return;
	/* Too small to be worth it. */
	writer = declare(cache, (1 << 20) - 1, 0, &reader);
	must(disk_bytes() < 1 << 20);
	scache_writer_close(writer);
	scache_reader_close(reader);
	must_be(scache_sweep(cache, NULL, NULL), 0);
	for (int i = 0; i < 3; i++) {
		writer = declare(cache, LARGE_BYTES, 0, &reader);
		must(disk_bytes() >= LARGE_BYTES);
		scratch_blob(path, sizeof(path));
		must(stat(path, &st) == 0 && st.st_size == 0);
		put(writer, 0, 500000);
		must(disk_bytes() >= LARGE_BYTES);
		if (i == 0)
			must_be(scache_abort(writer, -EDOM, NULL, 0), 0);
		else if (i == 1)
			must_be(scache_finish(writer), -ERANGE);
		scache_writer_close(writer);
		/* What was written stays as long as somebody reads it. */
		must(disk_bytes() < 1 << 20);
		has_failed(cache, reader, 500000, i == 0 ? -EDOM : i == 1 ? -ERANGE : -ECANCELED);
		scache_reader_close(reader);
		must_be(scratch_blobs(), 0);
	}
	end_with(cache, NULL);
}
END_TEST

/* How much it will need there nobody knows; a thread writes to it while it fails. */
START_TEST(for_what_is_compressed_nothing_is_reserved)
{
	static const uint32_t kinds_of_file[] = { SCACHE_LZ4, SCACHE_AUTO };
	struct scache *cache;

	scratch_options.ring_bytes = 1 << 20;
	cache = scratch_open();
	for (int i = 0; i < 4; i++) {
		struct scache_acquire_options options = options_for(LARGE_BYTES, 0);
		uint64_t bytes = i < 2 ? LARGE_BYTES : LARGE_BYTES - 7;
		struct scache_reader *reader;
		struct scache_writer *writer;

		options.compression = kinds_of_file[i % 2];
		must_be(scache_acquire(cache, "k", 1, &options, &reader, &writer), 0);
		must(disk_bytes() < 1 << 20);
		put(writer, 0, bytes);
		must_be(scache_finish(writer), i < 2 ? 0 : -ERANGE);
		scache_writer_close(writer);
		if (i < 2)
			pattern_read_all(reader, 1, bytes);
		else
			has_failed(cache, reader, bytes, -ERANGE);
		scache_reader_close(reader);
		must_be(scache_remove(cache, "k", 1), i < 2 ? 0 : -ENOENT);
	}
	end_with(cache, NULL);
}
END_TEST

START_TEST(a_long_message_is_not_given_back)
{
	struct scache *cache = scratch_open();
	struct scache_reader *reader;
	struct scache_writer *writer = declare(cache, LARGE_BYTES, 0, &reader);
	char message[5000], got[6000];

	memset(message, 'm', sizeof(message));
	put(writer, 0, 500000);
	must_be(scache_abort(writer, 3, message, sizeof(message)), 0);
	scache_writer_close(writer);
	must_be(scache_message(reader, got, sizeof(got)), sizeof(message));
	must(memcmp(message, got, sizeof(message)) == 0);
	end_with(cache, reader);
}
END_TEST

/* No more than the disk has: from the start without a file, and no byte is lost. */
START_TEST(what_has_no_room_is_not_stored)
{
	static const uint64_t sizes[] = { MUCH_BYTES, INT64_MAX };
	struct scache *cache = scratch_open();

	for (int i = 0; i < 2; i++) {
		struct scache_reader *reader;
		struct scache_writer *writer = declare(cache, sizes[i], 0, &reader);

		must(scratch_info(reader).flags & SCACHE_RING_ONLY);
		must_be(scratch_blobs(), 0);
		must(scratch_misses(cache, "k"));
		put(writer, 0, SCRATCH_RING_BYTES);
		scache_writer_close(writer);
		has_failed(cache, reader, SCRATCH_RING_BYTES, -ECANCELED);
		scache_reader_close(reader);
	}
	must_be(scratch_stat(cache).degraded, 2);
	end_with(cache, NULL);
}
END_TEST

/* Without a ring either there is nothing to go on with. */
START_TEST(without_room_and_without_a_ring_it_is_a_bypass)
{
	struct scache_acquire_options options = options_for(MUCH_BYTES, 0);
	struct scache_writer *rings[64], *writer = NULL;
	uint32_t count = 0;
	struct scache *cache;
	char key[16];

	scratch_options.rings = 2;
	cache = scratch_open();
	for (; scratch_stat(cache).rings_in_use < scratch_stat(cache).max_rings; count++) {
		must(count < 64);
		snprintf(key, sizeof(key), "ring %u", count);
		rings[count] = scratch_create(cache, key, 0, NULL);
	}
	must_be(scache_acquire(cache, "k", 1, &options, NULL, &writer), SCACHE_BYPASS);
	must(writer == NULL);
	must_be(scratch_blobs(), (int)count);
	options.declared_bytes = LARGE_BYTES;
	must_be(scache_acquire(cache, "k", 1, &options, NULL, &writer), 0);
	put(writer, 0, LARGE_BYTES);
	must_be(scache_finish(writer), 0);
	scache_writer_close(writer);
	while (count > 0)
		scache_writer_close(rings[--count]);
	end_with(cache, NULL);
}
END_TEST

/* --------------------------------------------------------------------- deaths */

/* The body of a child: publish 300000 bytes, be silent, be killed. */
static void produce_a_part(void *arg)
{
	struct scache *cache = scratch_open();

	put(declare(cache, LARGE_BYTES, *(const uint32_t *)arg, NULL), 0, 300000);
	child_say(0);
	child_stay();
}

static void start_and_kill(uint32_t flags, struct scache_reader **ret_reader, struct scache *cache)
{
	struct child child;

	child_start(&child, produce_a_part, &flags);
	must_be(child_hear(&child), 0);
	*ret_reader = scratch_find(cache, "k");
	must_be(scratch_info(*ret_reader).declared_bytes, LARGE_BYTES);
	child_kill(&child);
}

START_TEST(what_a_killed_producer_has_reserved_goes_with_its_file)
{
	struct scache *cache = scratch_open();
	struct scache_reader *reader;

	start_and_kill(0, &reader, cache);
	has_failed(cache, reader, 300000, -EOWNERDEAD);
	scache_reader_close(reader);
	must_be(scratch_blobs(), 0);
	end_with(cache, NULL);
}
END_TEST

/* Whatever it would have declared itself. */
START_TEST(who_goes_on_is_held_to_what_the_first_has_declared)
{
	static const uint64_t ends[] = { LARGE_BYTES, LARGE_BYTES - 1, LARGE_BYTES + 1 };

	for (int i = 0; i < 3; i++) {
		struct scache_acquire_options options = options_for(400000, SCACHE_RESUMABLE);
		struct scache *cache = scratch_open();
		struct scache_reader *reader;
		struct scache_writer *writer = NULL;
		int error = 0;

		start_and_kill(SCACHE_RESUMABLE, &reader, cache);
		eventually(scache_acquire(cache, "k", 1, &options, NULL, &writer) == 0 &&
			   writer != NULL);
		must_be(scache_written(writer), 300000);
		must_be(scratch_info(reader).declared_bytes, LARGE_BYTES);
		pattern_write(writer, 1, 300000, ends[i], 65536, &error);
		must_be(error, i == 2 ? -ERANGE : 0);
		must_be(scache_finish(writer), i == 0 ? 0 : -ERANGE);
		scache_writer_close(writer);
		if (i == 0)
			pattern_read_all(reader, 1, LARGE_BYTES);
		else
			must_be(scratch_info(reader).state, SCACHE_FAILED);
		must_be(scratch_misses(cache, "k"), i != 0);
		must_be(scache_check(cache, NULL, NULL), 0);
		scache_reader_close(reader);
		scache_remove(cache, "k", 1);
		end_with(cache, NULL);
	}
}
END_TEST

int main(void)
{
	const TTest *const tests[] = {
		it_is_seen_and_finishes_with_as_many,
		nothing_and_not_known_can_be_declared,
		an_older_caller_declares_and_is_told_nothing,
		a_write_beyond_it_fails_the_production,
		an_end_before_it_fails_the_production,
		what_is_reserved_and_read_counts_when_it_is_committed,
		a_callback_that_says_it_is_complete_is_not_believed,
		its_room_is_reserved_and_given_back,
		for_what_is_compressed_nothing_is_reserved,
		a_long_message_is_not_given_back,
		what_has_no_room_is_not_stored,
		without_room_and_without_a_ring_it_is_a_bypass,
		what_a_killed_producer_has_reserved_goes_with_its_file,
		who_goes_on_is_held_to_what_the_first_has_declared,
	};

	return SCRATCH_RUN("declared", tests);
}
