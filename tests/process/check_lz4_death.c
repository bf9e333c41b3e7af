/* SPDX-License-Identifier: MIT */
/*
 * check_lz4_death - the producer of a blob that is being compressed is killed, or its
 * process forks, or its segment is lost when all is done: no published byte is lost with
 * it, and whoever goes on makes a whole frame of it.
 */
#include <check.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/resource.h>

#include "../util/packed.h"

#define BLOB_BYTES (5 * MIB + 4711)

/* What the next child is to do. */
static struct scache_acquire_options how;
static uint64_t stop_at, stored_at;

static struct scache_writer *take(struct scache *cache, struct scache_reader **ret_reader)
{
	struct scache_writer *writer = NULL;

	must_be(scache_acquire(cache, "k", 1, &how, ret_reader, &writer), 0);
	must(writer != NULL);
	return writer;
}

static void set_how(uint32_t flags, uint32_t compression, uint32_t level)
{
	how = (struct scache_acquire_options){ .size = sizeof(how),
					       .flags = flags,
					       .window_bytes = SCACHE_UNLIMITED,
					       .compression = compression,
					       .level = level };
}

/* ------------------------------------------------------------------------- killed */

static void produce_for_ever(void *arg)
{
	struct scache *cache = scratch_open();
	struct scache_writer *writer = take(cache, NULL);

	(void)arg;
	child_say(0);
	write_text(writer, 0, UINT64_C(1) << 40, 30011);
}

/* Killed behind @bytes; the last reader has not begun, the first may be at the head. */
static void kill_behind(struct scache *cache, uint64_t bytes)
{
	struct scache_result result = { .size = sizeof(result) };
	struct scache_reader *along, *late;
	uint64_t position = 0;
	struct child child;

	child_start(&child, produce_for_ever, NULL);
	child_hear(&child);
	along = scratch_find(cache, "k");
	late = scratch_find(cache, "k");
	must_be(pattern_read(along, TEXT, &position, bytes, 5000), 1);
	child_kill(&child);
	must_be(pattern_read(along, TEXT, &position, UINT64_MAX, 300000), -EOWNERDEAD);
	must_be(scache_wait(late, 0, &result), 0);
	must_be(result.bytes, position);
	must_be(read_text(late, position, 100000), -EOWNERDEAD);
	for (int i = 0; i < 50; i++)
		must(pread_text(late, below(position), 1 + below(400000)) > 0);
	scache_reader_close(along);
	scache_reader_close(late);
}

START_TEST(what_a_killed_producer_has_published_is_read)
{
	static const uint32_t levels[] = { 1, 9, 12 };
	struct scache *cache = open_packed(SCACHE_RAW, 0);
	int rounds = scratch_is_long() ? 1000 : UNDER_TSAN ? 15 : 40;

	for (int i = 0; i < rounds; i++) {
		set_how(0, i % 4 ? SCACHE_LZ4 : SCACHE_AUTO, levels[i % ARRAY_COUNT(levels)]);
		kill_behind(cache, 1 + below(i % 5 ? 2 * MIB : 6 * MIB));
	}
	end_with(cache, NULL);
}
END_TEST

/* ------------------------------------------------------------------------ gone on with */

/* Publish up to @stop_at, wait until @stored_at is in the file, say so, and await death. */
static void produce_a_part(void *arg)
{
	struct scache *cache = scratch_open();
	struct scache_writer *writer = take(cache, NULL);
	struct scache_reader *reader = scratch_find(cache, "k");

	(void)arg;
	write_text(writer, scache_written(writer), stop_at, 7001);
	eventually(scratch_info(reader).stored_bytes >= stored_at);
	child_say((int64_t)scache_written(writer));
	child_stay();
}

static void start_and_kill(struct scache *cache, uint64_t at, struct scache_reader **ret_reader)
{
	struct child child;

	stop_at = at;
	child_start(&child, produce_a_part, NULL);
	must_be(child_hear(&child), at);
	if (*ret_reader == NULL)
		*ret_reader = scratch_find(cache, "k");
	child_kill(&child);
}

/* When it is known that the other one is dead. */
static struct scache_writer *go_on(struct scache *cache, uint64_t at)
{
	struct scache_writer *writer = NULL;

	eventually(scache_acquire(cache, "k", 1, &how, NULL, &writer) == 0 && writer != NULL);
	must_be(scache_written(writer), at);
	return writer;
}

static void end_it(struct scache *cache, struct scache_writer *writer,
		   struct scache_reader *reader, uint64_t bytes)
{
	struct file file;

	must_be(scache_finish(writer), 0);
	must_be(scache_check(cache, NULL, NULL), 0);
	scache_writer_close(writer);
	must_be(read_text(reader, bytes, 60000), 0);
	scache_reader_close(reader);
	file = must_be_packed();
	must(file.bytes < bytes * 2 / 3 + 4096);
	reader = scratch_find(cache, "k");
	must_be(read_text(reader, bytes, BLOCK_BYTES), 0);
	scache_reader_close(reader);
	must_be(scache_remove(cache, "k", 1), 0);
	must(have_stopped(1));
}

START_TEST(another_goes_on_and_makes_one_frame_of_it)
{
	static const uint64_t places[] = { 0,	      1,	 BLOCK - 1,	BLOCK,
					   BLOCK + 5, 3 * BLOCK, 3 * BLOCK + 9, 4 * MIB + 1 };
	struct scache *cache = open_packed(SCACHE_RAW, 0);

	for (size_t i = 0; i < 4 * ARRAY_COUNT(places); i++) {
		uint64_t at = places[i / 4], end = i % 4 < 2 ? at : BLOB_BYTES;
		struct scache_reader *reader = NULL;
		struct scache_writer *writer;

		/* With all of its blocks stored, or wherever it was with them. */
		stored_at = i % 2 ? at / BLOCK * BLOCK : 0;
		set_how(SCACHE_RESUMABLE, SCACHE_LZ4, i % 3 ? 9 : 1);
		start_and_kill(cache, at, &reader);
		how.level = i % 3 ? 1 : 12;
		/* What the entry is counts, and not what its next producer wants. */
		how.compression = SCACHE_RAW;
		writer = go_on(cache, at);
		write_text(writer, at, end, 100001);
		end_it(cache, writer, reader, end);
	}
	end_with(cache, NULL);
}
END_TEST

START_TEST(one_that_had_not_been_judged_yet_is_judged_by_the_next)
{
	static const uint64_t places[] = { 5000, 2 * BLOCK - 1, 2 * BLOCK };
	struct scache *cache = open_packed(SCACHE_RAW, 0);

	for (size_t i = 0; i < ARRAY_COUNT(places); i++) {
		struct scache_reader *reader = NULL;
		struct scache_writer *writer;

		stored_at = 0;
		set_how(SCACHE_RESUMABLE, SCACHE_AUTO, 0);
		start_and_kill(cache, places[i], &reader);
		writer = go_on(cache, places[i]);
		write_text(writer, places[i], BLOB_BYTES, 100001);
		end_it(cache, writer, reader, BLOB_BYTES);
	}
	end_with(cache, NULL);
}
END_TEST

START_TEST(three_die_one_after_the_other_and_the_fourth_ends_it)
{
	struct scache *cache = open_packed(SCACHE_RAW, 0);
	struct scache_reader *reader = NULL;
	uint64_t at = 0;

	stored_at = 0;
	set_how(SCACHE_RESUMABLE, SCACHE_LZ4, 12);
	for (int deaths = 1; deaths <= 3; deaths++) {
		at = (uint64_t)deaths * (MIB + 100000);
		start_and_kill(cache, at, &reader);
		/* Its death is known. */
		eventually(scratch_info(reader).producer_pid == 0 ||
			   scache_sweep(cache, NULL, NULL) != 0);
	}
	struct scache_writer *writer = go_on(cache, at);

	write_text(writer, at, BLOB_BYTES, 100001);
	end_it(cache, writer, reader, BLOB_BYTES);
	end_with(cache, NULL);
}
END_TEST

/* Dies inside scache_abort(): all of it is in the file, up to the middle of a block. */
static void produce_and_die_aborting(void *arg)
{
	struct scache *cache = scratch_open();
	struct scache_writer *writer = take(cache, NULL);

	(void)arg;
	signal(SIGSEGV, SIG_DFL);
	write_text(writer, 0, stop_at, 7000);
	child_say(0);
	child_listen();
	scache_abort(writer, 5, mmap(NULL, 4096, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0), 10);
	child_stay();
}

START_TEST(with_a_part_of_a_block_in_the_file_it_has_failed_and_is_made_anew)
{
	struct scache *cache = open_packed(SCACHE_RAW, 0);
	struct scache_reader *reader;
	struct scache_writer *writer;
	struct child child;

	set_how(SCACHE_RESUMABLE, SCACHE_LZ4, 1);
	stop_at = 2 * MIB + 100;
	child_start(&child, produce_and_die_aborting, NULL);
	child_hear(&child);
	reader = scratch_find(cache, "k");
	child_tell(&child, 0);
	must_be(child_end(&child), -SIGSEGV);
	/* Known to be dead: at once nobody is asked to wait for a successor. */
	must_be(scache_sweep(cache, NULL, NULL), 0);
	writer = take(cache, NULL);
	must_be(scache_written(writer), 0);
	must_be(read_text(reader, stop_at, 9000), -EOWNERDEAD);
	scache_reader_close(reader);
	write_text(writer, 0, BLOB_BYTES, 100001);
	end_it(cache, writer, scratch_find(cache, "k"), BLOB_BYTES);
	end_with(cache, NULL);
}
END_TEST

/* So few that its file can be opened once more, to be written, and not twice. */
static void allow_one_file(bool only_one)
{
	struct rlimit limit;
	int fd = dup(0);

	must(fd >= 0 && getrlimit(RLIMIT_NOFILE, &limit) == 0);
	close(fd);
	limit.rlim_cur = only_one ? (rlim_t)fd + 1 : limit.rlim_max;
	must(setrlimit(RLIMIT_NOFILE, &limit) == 0);
}

START_TEST(what_cannot_be_read_is_given_up_and_not_written_to_any_more)
{
	struct scache *cache = open_packed(SCACHE_RAW, 0), *other = scratch_open();
	struct scache_reader *reader = NULL, *none = NULL;
	struct scache_writer *writer = NULL;

	/* More than a ring, and the last of it waits to be compressed. */
	stored_at = 0;
	set_how(SCACHE_RESUMABLE, SCACHE_LZ4, 12);
	start_and_kill(other, 2 * MIB, &reader);
	eventually(scratch_info(reader).producer_pid == 0 || scache_sweep(other, NULL, NULL) != 0);
	allow_one_file(true);
	must_be(scache_acquire(cache, "k", 1, &how, &none, &writer), SCACHE_BYPASS);
	must(have_stopped(1));
	allow_one_file(false);
	must(writer == NULL && none == NULL);
	writer = go_on(cache, 2 * MIB);
	write_text(writer, 2 * MIB, BLOB_BYTES, 100001);
	end_it(cache, writer, reader, BLOB_BYTES);
	scratch_close(other);
	end_with(cache, NULL);
}
END_TEST

/* --------------------------------------------------------------------------- forked */

struct inheritance {
	struct scache *cache;
	struct scache_reader *reader;
	struct scache_writer *writer;
};

static void close_all(void *arg)
{
	struct inheritance *all = arg;
	struct scache_reader *reader;

	must_be(scache_write(all->writer, "x", 1, 0), -ECHILD);
	must_be(scache_finish(all->writer), -ECHILD);
	must_be(scache_writer_close(all->writer), 0);
	must_be(scache_reader_close(all->reader), 0);
	/* And compresses for itself, by a thread of its own. */
	must_be(scache_acquire(all->cache, "childs", 6, &how, &reader, &all->writer), 0);
	write_text(all->writer, 0, MIB, 50000);
	must_be(scache_finish(all->writer), 0);
	scache_writer_close(all->writer);
	must_be(read_text(reader, MIB, 50000), 0);
	scache_reader_close(reader);
	must_be(scache_remove(all->cache, "childs", 6), 0);
	must_be(scache_close(all->cache), 0);
}

START_TEST(a_fork_beside_the_thread_harms_neither_process)
{
	struct inheritance all = { .cache = open_packed(SCACHE_RAW, 0) };
	struct scache_reader *late;
	struct child child;
	uint64_t at = 0;

	for (uint32_t round = 0; round < 15; round++) {
		set_how(0, SCACHE_LZ4, round % 12 + 1);
		all.writer = take(all.cache, &all.reader);
		/* With a block of it unpacked, too. */
		for (at = 0; at < (1 + round % 4) * MIB; at += 200000)
			write_text(all.writer, at, at + 200000, 50000);
		must(pread_text(all.reader, 17, 100) == 100);
		child_start(&child, close_all, &all);
		write_text(all.writer, at, at + 2 * MIB, 50000);
		must_be(scache_finish(all.writer), 0);
		scache_writer_close(all.writer);
		child_join(&child);
		must_be(read_text(all.reader, at + 2 * MIB, 70000), 0);
		scache_reader_close(all.reader);
		must_be_packed();
		late = scratch_find(all.cache, "k");
		must_be(read_text(late, at + 2 * MIB, 70000), 0);
		scache_reader_close(late);
		must_be(scache_remove(all.cache, "k", 1), 0);
	}
	end_with(all.cache, NULL);
}
END_TEST

/* -------------------------------------------------------------------------- restarted */

START_TEST(without_its_segment_it_is_adopted_and_served)
{
	static const uint64_t some[] = { 0,	    1,	       16384,	     16385, BLOCK - 1,
					 BLOCK, BLOCK + 1, 3 * MIB, BLOB_BYTES };
	struct scache *cache;
	char path[400];

	for (size_t i = 0; i < ARRAY_COUNT(some) * WAYS; i++) {
		uint64_t bytes = some[i / WAYS], had = 0;
		struct scache_reader *reader;
		struct file before, after;

		cache = open_packed(SCACHE_LZ4, 1);
		pattern_produce(scratch_create(cache, "k", 0, NULL), TEXT, bytes, 100000);
		before = find_file();
		scratch_close(cache);
		scratch_segment(path, sizeof(path));
		must(unlink(path) == 0);
		cache = scratch_open();
		reader = scratch_find(cache, "k");
		must_be(ways[i % WAYS](reader, TEXT, bytes, 100000, &had), 0);
		must_be(had, bytes);
		scache_reader_close(reader);
		must_be(scratch_stat(cache).adopted, 1);
		after = must_be_packed();
		must_be(after.bytes, before.bytes);
		must_be(scache_remove(cache, "k", 1), 0);
		scratch_is_clean(cache);
		scratch_close(cache);
	}
}
END_TEST

int main(void)
{
	const TTest *const tests[] = {
		what_a_killed_producer_has_published_is_read,
		another_goes_on_and_makes_one_frame_of_it,
		one_that_had_not_been_judged_yet_is_judged_by_the_next,
		three_die_one_after_the_other_and_the_fourth_ends_it,
		with_a_part_of_a_block_in_the_file_it_has_failed_and_is_made_anew,
		what_cannot_be_read_is_given_up_and_not_written_to_any_more,
		without_its_segment_it_is_adopted_and_served,
		a_fork_beside_the_thread_harms_neither_process,
	};

	return status_of(scratch_run("lz4_death", tests,
				     sizeof(tests) / sizeof(tests[0]) - UNDER_ASAN));
}
