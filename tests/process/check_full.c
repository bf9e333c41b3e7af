/* SPDX-License-Identifier: MIT */
/*
 * check_full - a file that fails while it is written: the production goes on from a ring,
 * if need be from one that was kept for it, and what all have read of the file goes.
 *
 * RLIMIT_FSIZE makes the file fail where it is wanted, and can be lifted again.
 */
#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include "../util/calls.h"

#define RING_BYTES SCRATCH_RING_BYTES
#define MS_NS 1000000ll
#define MIB (1ull << 20)
#define FILE_BYTES (9 * MIB)

static void let_files_have(uint64_t bytes)
{
	const struct rlimit limit = { .rlim_cur = bytes, .rlim_max = RLIM_INFINITY };

	must(setrlimit(RLIMIT_FSIZE, &limit) == 0);
}

static int has_ring(struct scache_reader *reader)
{
	return (scratch_info(reader).flags & SCACHE_HAS_RING) != 0;
}

/* ------------------------------------------------------------ an emergency ring */

/* All rings that a new entry may have. */
static int hold_rings(struct scache *cache, struct scache_writer *holders[8])
{
	struct scache_reader *reader;
	int count = 0, more = 1;

	while (more) {
		char key[] = { 'r', (char)('0' + count), '\0' };

		must(count < 8);
		holders[count] = scratch_create(cache, key, 0, &reader);
		more = has_ring(reader);
		if (!more)
			scache_writer_close(holders[count]);
		else
			count++;
		scache_reader_close(reader);
	}
	return count;
}

static void let_go(struct scache_writer **holders, int count)
{
	while (count > 0)
		scache_writer_close(holders[--count]);
}

START_TEST(a_few_rings_are_kept_back_of_four_and_more)
{
	static const struct { uint32_t rings; int had; } pools[] = { { 1, 1 }, { 3, 3 }, { 4, 3 }, { 8, 7 } };

	for (size_t i = 0; i < sizeof(pools) / sizeof(pools[0]); i++) {
		struct scache_writer *holders[8];
		struct scache *cache;
		int count;

		scratch_options.rings = pools[i].rings;
		cache = scratch_open();
		count = hold_rings(cache, holders);
		must_be(count, pools[i].had);
		let_go(holders, count);
		end_with(cache, NULL);
		must_be(scache_destroy(scratch_dir, NULL), 0);
	}
}
END_TEST

static uint64_t blob_bytes = 6000000;

/* Without a ring, and its file fails in the midst: beside readers at its start and its head. */
static void rescue(int in_place)
{
	struct scache_writer *holders[8], *writer;
	struct scache_reader *late, *live;
	uint64_t at_late = 0, at_live = 0, done = 0;
	struct child reader;
	struct scache *cache;
	int count;

	scratch_options.rings = 4;
	cache = scratch_open();
	count = hold_rings(cache, holders);
	writer = scratch_create(cache, "k", 0, &live);
	late = scratch_find(cache, "k");
	child_start(&reader, scratch_read_along, &blob_bytes);
	child_hear(&reader);
	must(!has_ring(live));
	let_files_have(3000000);
	while (done < blob_bytes) {
		uint64_t bytes = 1 + below(60000);
		void *data;

		if (bytes > blob_bytes - done)
			bytes = blob_bytes - done;
		if (in_place) {
			ssize_t room = scache_reserve(writer, bytes, &data, SCACHE_FOREVER);

			must(room > 0);
			bytes = (uint64_t)room;
			pattern_fill(1, done, data, bytes);
			must_be(scache_commit(writer, bytes), bytes);
		} else {
			int error;

			must_be(pattern_write(writer, 1, done, done + bytes, bytes, &error), bytes);
		}
		done += bytes;
		must_be(pattern_read(live, 1, &at_live, done, 50000), 1);
		/* Behind what is in the file until that is no more written. */
		must_be(pattern_read(late, 1, &at_late, done / 2, 50000), 1);
		must_be(scache_check(cache, NULL, NULL), 0);
		if (has_ring(live))
			must_be(pattern_read(late, 1, &at_late, done, 50000), 1);
	}
	must(has_ring(live));
	must_be(scache_finish(writer), SCACHE_NOT_KEPT);
	scache_writer_close(writer);
	must_be(pattern_read(late, 1, &at_late, UINT64_MAX, 50000), 0);
	must_be(at_late, blob_bytes);
	child_join(&reader);
	must_be(scratch_stat(cache).emergencies, 1);
	must_be(scratch_stat(cache).degraded, 1);
	let_files_have(RLIM_INFINITY);
	scache_reader_close(late);
	scache_reader_close(live);
	let_go(holders, count);
	end_with(cache, NULL);
}

START_TEST(who_began_without_a_ring_gets_one_when_its_file_fails)
{
	rescue(0);
}
END_TEST

START_TEST(so_does_who_produces_in_place)
{
	rescue(1);
}
END_TEST

static ssize_t write_a_little(struct call *call)
{
	static const char text[10];

	return scache_write(call->writer, text, sizeof(text), SCACHE_FOREVER);
}

static ssize_t reserve_and_commit(struct call *call)
{
	void *data;

	must_be(scache_reserve(call->writer, 10, &data, SCACHE_FOREVER), 10);
	memset(data, 0, 10);
	return scache_commit(call->writer, 10);
}

START_TEST(without_any_ring_the_writer_waits_for_one_or_for_its_file)
{
	struct scache_writer *holder;
	struct scache_reader *in_ring, *reader;
	struct call call = { .make = write_a_little };
	struct scache *cache;
	char text[10] = { 0 }, got[20];

	scratch_options.rings = 1;
	cache = scratch_open();
	holder = scratch_create(cache, "has the ring", 0, &in_ring);
	call.writer = scratch_create(cache, "k", 0, &reader);
	must_be(scache_write(call.writer, text, 10, 0), 10);
	let_files_have(10);
	must_be(scache_write(call.writer, text, 10, 0), -EAGAIN);
	must_be(scache_write(call.writer, text, 10, 60 * MS_NS), -ETIMEDOUT);
	/* The disk has room again. */
	call_start(&call);
	eventually(call_sleeps(&call));
	let_files_have(RLIM_INFINITY);
	must_be(call_end(&call), 10);
	must_be(scratch_stat(cache).degraded, 0);
	/* The ring is free again. */
	let_files_have(20);
	call.make = reserve_and_commit;
	call_start(&call);
	eventually(call_sleeps(&call));
	scache_writer_close(holder);
	scache_reader_close(in_ring);
	must_be(call_end(&call), 10);
	must_be(scratch_stat(cache).emergencies, 1);
	must_be(scache_finish(call.writer), SCACHE_NOT_KEPT);
	scache_writer_close(call.writer);
	must_be(scache_read(reader, got, 20, 0), 20);
	must_be(scache_read(reader, got, 20, 0), 10);
	must_be(scache_read(reader, got, 20, 0), 0);
	let_files_have(RLIM_INFINITY);
	end_with(cache, reader);
}
END_TEST

START_TEST(for_a_file_that_may_not_be_larger_nobody_has_to_go)
{
	struct scache_writer *holder, *writer;
	struct scache *cache;

	scratch_options.rings = 1;
	cache = scratch_open();
	pattern_produce(scratch_create(cache, "old", 0, NULL), 1, 10, 10);
	holder = scratch_create(cache, "has the ring", 0, NULL);
	writer = scratch_create(cache, "k", 0, NULL);
	let_files_have(0);
	must_be(scache_write(writer, "text", 4, 0), -EAGAIN);
	must_be(scratch_stat(cache).evicted, 0);
	let_files_have(RLIM_INFINITY);
	must_be(scache_write(writer, "text", 4, 0), 4);
	scache_writer_close(writer);
	scache_writer_close(holder);
	must(!scratch_misses(cache, "old"));
	end_with(cache, NULL);
}
END_TEST

START_TEST(who_waits_for_a_ring_is_told_that_nobody_listens_any_more)
{
	struct call call = { .make = reserve_and_commit };
	struct scache_writer *holder;
	struct scache_reader *reader;
	struct scache *cache;

	scratch_options.rings = 1;
	cache = scratch_open();
	holder = scratch_create(cache, "has the ring", 0, NULL);
	call.writer = scratch_create(cache, "k", 0, &reader);
	let_files_have(0);
	call_start(&call);
	eventually(call_sleeps(&call));
	scache_reader_close(reader);
	must_be(call_end(&call), -EPIPE);
	let_files_have(RLIM_INFINITY);
	scache_writer_close(call.writer);
	scache_writer_close(holder);
	end_with(cache, NULL);
}
END_TEST

/* Elected for "k"; its readers have so much time. */
static struct scache_writer *create_impatient(struct scache *cache, uint64_t window_bytes,
					      uint32_t policy, struct scache_reader **ret_reader)
{
	const struct scache_acquire_options options = { .window_bytes = window_bytes,
							.writer_stall_ns = 60 * MS_NS,
							.stall_policy = policy };

	return create_with(cache, options, ret_reader);
}

/* It is so short that its window is smaller from then on, and at the same time its file fails. */
START_TEST(who_lacks_a_ring_and_readers_as_well_waits_for_readers)
{
	const struct scache_options changes = { .size = sizeof(changes), .max_bytes = 1200000 };
	static const char zeros[600000];
	struct scache_writer *holder, *writer;
	struct scache_reader *reader;
	struct scache *cache;

	scratch_options.rings = 1;
	cache = scratch_open();
	holder = scratch_create(cache, "has the ring", 0, NULL);
	writer = create_impatient(cache, MIB, SCACHE_STALL_ABORT, &reader);
	put(writer, 0, 500000);
	must_be(scache_configure(cache, &changes), 0);
	let_files_have(500000);
	must_be(scache_write(writer, zeros, sizeof(zeros), 0), -EAGAIN);
	must(scratch_info(reader).window_bytes < 500000);
	must_be(scache_write(writer, zeros, sizeof(zeros), SCACHE_FOREVER), -ECANCELED);
	must_be(scratch_stat(cache).stalled, 1);
	let_files_have(RLIM_INFINITY);
	scache_writer_close(writer);
	scache_writer_close(holder);
	end_with(cache, reader);
}
END_TEST

/* ------------------------------------------------------------------------- holes */

/* There are file systems that make none, FUSE often: then nothing is to happen. */
static int can_punch(void)
{
	char path[300];
	int fd, ret;

	snprintf(path, sizeof(path), "%s/holes", scratch_base);
	fd = open(path, O_RDWR | O_CREAT, 0600);
	must(fd >= 0);
	ret = fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, 4096);
	close(fd);
	return ret == 0;
}

/* Of these so many bytes are given back. */
static void expect_punched(struct scache *cache, uint64_t bytes)
{
	must_be(scratch_stat(cache).bytes_punched, can_punch() ? bytes : 0);
}

/* Is @offset, which all have passed, gone? */
static void expect_gone(struct scache_reader *reader, uint64_t offset)
{
	if (can_punch()) {
		must_be(pread_at(reader, offset, 1000, 0), -ENODATA);
		must_be(scache_seek(reader, offset), -ENODATA);
	} else {
		must(pread_at(reader, offset, 1000, 0) > 0);
	}
}

/* An entry of which FILE_BYTES are in a file that has failed, and a ring is full behind it. */
struct spent {
	struct scache *cache;
	struct scache_writer *writer;
	struct scache_reader *live, *behind;
	uint64_t at_live, at_behind, written;
	char blob[500];
};

static uint64_t disk_bytes(const struct spent *spent)
{
	struct stat st;

	must(stat(spent->blob, &st) == 0);
	return (uint64_t)st.st_blocks * 512;
}

/* As far as it goes without who is behind. */
static void write_on(struct spent *spent)
{
	char data[10000];
	ssize_t done;

	do {
		pattern_fill(1, spent->written, data, sizeof(data));
		done = scache_write(spent->writer, data, sizeof(data), 0);
		spent->written += done > 0 ? (uint64_t)done : 0;
		must_be(pattern_read(spent->live, 1, &spent->at_live, spent->written, 50000), 1);
	} while (done > 0);
	must_be(done, -EAGAIN);
}

static void spend(struct spent *spent)
{
	*spent = (struct spent){ .cache = scratch_open() };
	spent->writer = scratch_create(spent->cache, "k", 0, &spent->live);
	spent->behind = scratch_find(spent->cache, "k");
	let_files_have(FILE_BYTES);
	write_on(spent);
	scratch_blob(spent->blob, sizeof(spent->blob));
	must(scratch_misses(spent->cache, "k"));
	must_be(spent->written, FILE_BYTES + RING_BYTES);
	must(disk_bytes(spent) >= FILE_BYTES - RING_BYTES);
}

static void end_spent(struct spent *spent)
{
	must_be(pattern_read(spent->behind, 1, &spent->at_behind, spent->written, 60000), 1);
	must_be(scache_finish(spent->writer), SCACHE_NOT_KEPT);
	scache_writer_close(spent->writer);
	must_be(pattern_read(spent->behind, 1, &spent->at_behind, UINT64_MAX, 60000), 0);
	must_be(spent->at_behind, spent->written);
	scache_reader_close(spent->live);
	let_files_have(RLIM_INFINITY);
	end_with(spent->cache, spent->behind);
}

/* Who is behind goes to @until; the writer looks. */
static void follow(struct spent *spent, uint64_t until)
{
	must_be(pattern_read(spent->behind, 1, &spent->at_behind, until, 60000), 1);
	write_on(spent);
}

START_TEST(what_all_have_read_of_a_file_that_failed_is_punched_and_never_read_as_zeros)
{
	struct spent spent;
	uint64_t before;

	spend(&spent);
	before = disk_bytes(&spent);
	expect_punched(spent.cache, 0);
	must(pread_at(spent.live, 0, 1000, 0) > 0);
	follow(&spent, 5 * MIB);
	expect_punched(spent.cache, 4 * MIB);
	must(!can_punch() || disk_bytes(&spent) == before - 4 * MIB);
	for (uint64_t at = 0; at < 4 * MIB; at += 77777)
		expect_gone(spent.live, at);
	expect_gone(spent.live, 4 * MIB - 1);
	must(pread_at(spent.live, 4 * MIB, 1000, 0) > 0);
	must_be(scache_check(spent.cache, NULL, NULL), 0);
	follow(&spent, spent.written);
	expect_punched(spent.cache, 8 * MIB);
	must_be(scratch_stat(spent.cache).failures, 0);
	end_spent(&spent);
}
END_TEST

START_TEST(what_a_peek_shows_stays_whoever_else_goes_on)
{
	struct spent spent;
	struct scache_reader *back;
	const void *shown;
	uint64_t at = 0;
	ssize_t bytes;

	spend(&spent);
	/* One that sought back, and to others is further on. */
	back = spent.live;
	must_be(scache_seek(back, 3 * MIB), 3 * MIB);
	bytes = scache_peek(back, &shown, MIB / 8, 0);
	must(bytes > 0);
	/* And one that others cannot pass. */
	must_be(pattern_read(spent.behind, 1, &spent.at_behind, 5 * MIB, 60000), 1);
	must_be(scache_write(spent.writer, "", 1, 0), -EAGAIN);
	expect_punched(spent.cache, 4 * MIB);
	must(pattern_matches(1, 3 * MIB, shown, (size_t)bytes));
	if (can_punch()) {
		at = 3 * MIB;
		must_be(scache_peek(back, &shown, 100, 0), -ENODATA);
		must_be(pattern_read(back, 1, &at, spent.written, 100), -ENODATA);
	}
	must_be(scache_seek(back, 5 * MIB), 5 * MIB);
	at = 5 * MIB;
	must_be(pattern_read(back, 1, &at, spent.written, 10000), 1);
	bytes = scache_peek(spent.behind, &shown, MIB, 0);
	must(bytes > 0 && pattern_matches(1, 5 * MIB, shown, (size_t)bytes));
	end_spent(&spent);
}
END_TEST

START_TEST(of_a_compressed_file_all_goes_when_all_have_passed_it)
{
	struct spent spent;

	scratch_options.ring_bytes = 1 << 20;
	scratch_options.compression = SCACHE_LZ4;
	spent = (struct spent){ .cache = scratch_open() };
	spent.writer = scratch_create(spent.cache, "k", 0, &spent.live);
	spent.behind = scratch_find(spent.cache, "k");
	let_files_have(FILE_BYTES);
	write_on(&spent);
	follow(&spent, 5 * MIB);
	must_be(scratch_stat(spent.cache).bytes_punched, 0);
	must(pread_at(spent.live, 0, 1000, 0) > 0);
	follow(&spent, spent.written);
	expect_punched(spent.cache, 8 * MIB);
	expect_gone(spent.live, 0);
	expect_gone(spent.live, FILE_BYTES - 2 * MIB);
	end_spent(&spent);
}
END_TEST

START_TEST(who_is_given_up_keeps_what_it_is_shown)
{
	static unsigned char expected[MIB];
	struct scache_reader *live, *behind;
	struct scache_writer *writer;
	uint64_t at_live = 0, at = MIB;
	const void *shown, *again;
	struct scache *cache = scratch_open();

	writer = create_impatient(cache, SCACHE_UNLIMITED, SCACHE_STALL_RUN, &live);
	behind = scratch_find(cache, "k");
	let_files_have(FILE_BYTES);
	put(writer, 0, MIB);
	must_be(pattern_read(live, 1, &at_live, MIB, 50000), 1);
	/* The file itself: a copy is never that large. */
	must_be(scache_peek(behind, &shown, MIB / 2, 0), MIB / 2);
	/* Far enough that of the file all could go. */
	for (int error; at < FILE_BYTES + 4 * RING_BYTES; at += 10000) {
		must_be(pattern_write(writer, 1, at, at + 10000, 10000, &error), 10000);
		must_be(pattern_read(live, 1, &at_live, at + 10000, 50000), 1);
	}
	must_be(scratch_stat(cache).stalled, 1);
	expect_punched(cache, 0);
	pattern_fill(1, 0, expected, sizeof(expected));
	must(memcmp(shown, expected, MIB / 2) == 0);
	must(scache_peek(behind, &again, 100000, 0) > 0);
	must(memcmp(again, expected, 1000) == 0);
	scache_reader_close(behind);
	must_be(scache_finish(writer), SCACHE_NOT_KEPT);
	scache_writer_close(writer);
	must_be(pattern_read(live, 1, &at_live, UINT64_MAX, 60000), 0);
	let_files_have(RLIM_INFINITY);
	end_with(cache, live);
}
END_TEST

int main(void)
{
	const TTest *const tests[] = {
		a_few_rings_are_kept_back_of_four_and_more,
		who_began_without_a_ring_gets_one_when_its_file_fails,
		so_does_who_produces_in_place,
		without_any_ring_the_writer_waits_for_one_or_for_its_file,
		who_lacks_a_ring_and_readers_as_well_waits_for_readers,
		who_is_given_up_keeps_what_it_is_shown,
		for_a_file_that_may_not_be_larger_nobody_has_to_go,
		who_waits_for_a_ring_is_told_that_nobody_listens_any_more,
		what_all_have_read_of_a_file_that_failed_is_punched_and_never_read_as_zeros,
		what_a_peek_shows_stays_whoever_else_goes_on,
		of_a_compressed_file_all_goes_when_all_have_passed_it,
	};

	return SCRATCH_RUN("full", tests);
}
