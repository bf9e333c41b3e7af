/* SPDX-License-Identifier: MIT */
/*
 * check_resume - a producer is killed, and another goes on where it stopped, or
 * does the same once more: whoever reads notices a pause and nothing else.
 */
#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "../util/pattern.h"
#include "../util/scratch.h"
#include "../util/spawn.h"

#define BLOB_BYTES 900000u

static const struct scache_acquire_options resumable = {
	.size = sizeof(resumable), .flags = SCACHE_RESUMABLE, .window_bytes = SCACHE_UNLIMITED
};

/* What the next child is to do. */
static uint64_t stop_at;
static uint32_t more_flags;

#define NOT_RESUMABLE (1u << 31) /* of our own */

static struct scache_acquire_options options_now(void)
{
	struct scache_acquire_options options = resumable;

	options.flags |= more_flags & ~NOT_RESUMABLE;
	if (more_flags & NOT_RESUMABLE)
		options.flags &= ~SCACHE_RESUMABLE;
	return options;
}

/* Publish up to @stop_at, say so, and wait for death. */
static void produce_a_part(void *arg)
{
	struct scache_acquire_options options = options_now();
	struct scache *cache = scratch_open();
	struct scache_writer *writer;
	uint64_t from;
	int error;

	(void)arg;
	must_be(scache_acquire(cache, "k", 1, &options, NULL, &writer), 0);
	must(writer != NULL);
	from = scache_written(writer);
	must_be(pattern_write(writer, 1, from, stop_at, 7000, &error), stop_at - from);
	child_say((int64_t)scache_written(writer));
	child_stay();
}

/* The callback of those who go on: from wherever it is told to. */
struct going_on {
	uint64_t began_at;
	int calls;
};

static int go_on(void *arg, struct scache_writer *writer)
{
	struct going_on *log = arg;
	int error;

	log->calls++;
	log->began_at = scache_written(writer);
	pattern_write(writer, 1, log->began_at, BLOB_BYTES, 7000, &error);
	return 0;
}

static struct scache_reader *fetch(struct scache *cache, struct going_on *log)
{
	struct scache_acquire_options options = options_now();
	struct scache_producer producer = { .size = sizeof(producer), .create = go_on, .arg = log };
	struct scache_reader *reader;

	must_be(scache_fetch(cache, "k", 1, &options, &producer, &reader, NULL), 0);
	return reader;
}

static void start_and_stop(struct child *child, uint64_t at, uint32_t flags)
{
	stop_at = at;
	more_flags = flags;
	child_start(child, produce_a_part, NULL);
	must_be(child_hear(child), at);
}

/* Killed after @at bytes: two readers, one of which can produce. */
static void resume_at(uint64_t at, uint32_t flags)
{
	struct scache *cache = scratch_open();
	struct going_on log = { .calls = 0 };
	struct scache_reader *able, *other;
	uint64_t position = 0;
	struct child child;

	start_and_stop(&child, at, flags);
	able = fetch(cache, &log);
	other = scratch_find(cache, "k");
	must_be(log.calls, 0);
	if (at > 0)
		must_be(pattern_read(other, 1, &position, at / 2 + 1, 3000), 1);
	child_kill(&child);
	if (flags & SCACHE_PASS_THROUGH) {
		/* Nobody's bytes may be lost: the two are read in turn. */
		for (uint64_t p = 0, end; p < BLOB_BYTES; p = end) {
			uint64_t from = p;

			end = p + 20000 < BLOB_BYTES ? p + 20000 : BLOB_BYTES;
			must_be(pattern_read(able, 1, &from, end, 3000), 1);
			must(position >= end || pattern_read(other, 1, &position, end, 3000) == 1);
		}
		must_be(pattern_read(other, 1, &position, UINT64_MAX, 3000), 0);
	} else {
		pattern_read_all(able, 1, BLOB_BYTES);
		must_be(pattern_read(other, 1, &position, UINT64_MAX, 3000), 0);
	}
	must_be(position, BLOB_BYTES);
	must_be(log.calls, 1);
	must_be(log.began_at, at);
	scache_reader_close(able);
	scache_reader_close(other);
	if (!(flags & SCACHE_PASS_THROUGH)) {
		other = scratch_find(cache, "k");
		pattern_read_all(other, 1, BLOB_BYTES);
		scache_reader_close(other);
	}
	scache_remove(cache, "k", 1);
	scratch_is_clean(cache);
	scratch_close(cache);
}

START_TEST(another_goes_on_where_the_dead_one_stopped)
{
	static const uint64_t places[] = { 0, 1, 5000, SCRATCH_RING_BYTES, 600001, BLOB_BYTES };

	for (size_t i = 0; i < sizeof(places) / sizeof(places[0]); i++)
		resume_at(places[i], 0);
}
END_TEST

START_TEST(another_goes_on_with_what_is_not_stored)
{
	resume_at(100000, SCACHE_PASS_THROUGH | SCACHE_PACE_SLOWEST);
}
END_TEST

START_TEST(an_acquire_that_can_resume_is_elected)
{
	struct scache *cache = scratch_open();
	struct scache_reader *early, *reader;
	struct scache_writer *writer;
	uint64_t position = 0;
	struct child child;
	int error;

	start_and_stop(&child, 300000, 0);
	early = scratch_find(cache, "k");
	child_kill(&child);
	/* One that cannot resume joins; one that can is the producer. */
	must_be(scache_acquire(cache, "k", 1, NULL, &reader, &writer), 0);
	must(writer == NULL);
	scache_reader_close(reader);
	eventually(scache_acquire(cache, "k", 1, &resumable, &reader, &writer) == 0 &&
		   (writer != NULL || scache_reader_close(reader) != 0));
	must_be(scache_written(writer), 300000);
	must_be(pattern_write(writer, 1, 300000, BLOB_BYTES, 7000, &error), BLOB_BYTES - 300000);
	must_be(scache_finish(writer), 0);
	scache_writer_close(writer);
	must_be(pattern_read(early, 1, &position, UINT64_MAX, 9000), 0);
	must_be(position, BLOB_BYTES);
	pattern_read_all(reader, 1, BLOB_BYTES);
	scache_reader_close(early);
	scache_reader_close(reader);
	scratch_is_clean(cache);
	scratch_close(cache);
}
END_TEST

START_TEST(an_orphan_that_nobody_wants_fails)
{
	struct scache *cache = scratch_open();
	struct scache_reader *reader;
	uint64_t position = 0;
	struct child child;

	start_and_stop(&child, 300000, 0);
	reader = scratch_find(cache, "k");
	child_kill(&child);
	must_be(pattern_read(reader, 1, &position, UINT64_MAX, 9000), -EOWNERDEAD);
	must_be(position, 300000);
	must(scratch_misses(cache, "k"));
	scache_reader_close(reader);
	scratch_is_clean(cache);
	scratch_close(cache);
}
END_TEST

START_TEST(the_fourth_death_is_the_last)
{
	struct scache *cache = scratch_open();
	struct scache_reader *reader = NULL;
	uint64_t position = 0;
	struct child child;

	for (unsigned deaths = 1; deaths <= 4; deaths++) {
		start_and_stop(&child, deaths * 50000, 0);
		if (reader == NULL)
			reader = scratch_find(cache, "k");
		must_be(pattern_read(reader, 1, &position, deaths * 50000, 9000), 1);
		child_kill(&child);
		/* Its death is known, and the entry an orphan or a failure. */
		eventually(scratch_info(reader).producer_pid == 0 ||
			   (scache_sweep(cache, NULL, NULL) != 0));
	}
	must_be(pattern_read(reader, 1, &position, UINT64_MAX, 9000), -EOWNERDEAD);
	must_be(position, 200000);
	scache_reader_close(reader);
	scratch_is_clean(cache);
	scratch_close(cache);
}
END_TEST

START_TEST(a_sweep_fails_an_orphan_in_time)
{
	struct scache *cache = scratch_open();
	struct child child;

	start_and_stop(&child, 1000, 0);
	child_kill(&child);
	eventually(scache_sweep(cache, NULL, NULL) == 0 && scratch_stat(cache).entries == 0);
	scratch_is_clean(cache);
	scratch_close(cache);
}
END_TEST

/* ------------------------------------------------------------ deterministic */

/* What the second production yields: the same, or not quite. */
struct again {
	uint64_t bytes, differs_at;
};

static int produce_again(void *arg, struct scache_writer *writer)
{
	const struct again *again = arg;
	uint64_t split = again->differs_at < again->bytes ? again->differs_at : again->bytes;
	int error;

	must_be(scache_written(writer), 0);
	if (pattern_write(writer, 1, 0, split, 7000, &error) == split)
		pattern_write(writer, 2, split, again->bytes, 7000, &error);
	return 0;
}

/* The other production is ready to be done, by this process. */
static struct scache_reader *fetch_again(struct scache *cache, struct again *again)
{
	struct scache_acquire_options options = { .size = sizeof(options),
						  .flags = SCACHE_DETERMINISTIC };
	struct scache_producer producer = { .size = sizeof(producer), .create = produce_again,
					    .arg = again };
	struct scache_reader *reader;

	must_be(scache_fetch(cache, "k", 1, &options, &producer, &reader, NULL), 0);
	return reader;
}

static void replay(struct again again, int by_fd, int expected)
{
	struct scache *cache = scratch_open();
	struct scache_reader *reader;
	static unsigned char data[100000];
	uint64_t position = 0;
	struct child child;
	int ends[2];

	/* All of what the first one publishes may be read before its death is known. */
	start_and_stop(&child, 200000, NOT_RESUMABLE);
	reader = fetch_again(cache, &again);
	if (by_fd) {
		must(pipe(ends) == 0);
		while (position < 200000) {
			ssize_t done = scache_sendfile(reader, ends[1], 40000, SCACHE_FOREVER);

			must(done > 0 && read(ends[0], data, sizeof(data)) == done);
			must(pattern_matches(1, position, data, (size_t)done));
			position += (uint64_t)done;
		}
		close(ends[0]);
		close(ends[1]);
	} else {
		must_be(pattern_read(reader, 1, &position, 200000, 3001), 1);
	}
	child_kill(&child);
	must_be(pattern_read(reader, 1, &position, UINT64_MAX, 5000), expected);
	must_be(position, expected == 0 ? again.bytes : position);
	must_be(pattern_read(reader, 1, &position, UINT64_MAX, 5000), expected);
	/* The other production is not this stream's: nothing of it is shown. */
	if (expected < 0)
		must_be(scache_pread(reader, data, 1, 0, SCACHE_FOREVER), expected);
	scache_reader_close(reader);
	scache_remove(cache, "k", 1);
	must_be(scache_close(cache), 0);
	cache = scratch_open();
	scratch_is_clean(cache);
	scratch_close(cache);
}

START_TEST(the_same_bytes_once_more_are_gone_on_with)
{
	replay((struct again){ BLOB_BYTES, BLOB_BYTES }, 0, 0);
	replay((struct again){ BLOB_BYTES, BLOB_BYTES }, 1, 0);
	replay((struct again){ 200000, 200000 }, 1, 0);
}
END_TEST

START_TEST(other_bytes_are_not)
{
	replay((struct again){ BLOB_BYTES, 0 }, 0, -EOWNERDEAD);
	replay((struct again){ BLOB_BYTES, 199999 }, 1, -EOWNERDEAD);
	replay((struct again){ 100000, 100000 }, 0, -EOWNERDEAD);
}
END_TEST

START_TEST(after_a_pread_nobody_knows_what_was_had)
{
	struct again again = { BLOB_BYTES, BLOB_BYTES };
	struct scache *cache = scratch_open();
	struct scache_reader *reader;
	uint64_t position = 0;
	struct child child;
	char byte;

	start_and_stop(&child, 300000, NOT_RESUMABLE);
	reader = fetch_again(cache, &again);
	must_be(scache_pread(reader, &byte, 1, 1000, 0), 1);
	child_kill(&child);
	must_be(pattern_read(reader, 1, &position, UINT64_MAX, 5000), -EOWNERDEAD);
	must_be(position, 300000);
	scache_reader_close(reader);
	scratch_is_clean(cache);
	scratch_close(cache);
}
END_TEST

/* Dies inside scache_abort(): all of it is in the file, up to the middle of a unit. */
static void produce_and_die_aborting(void *arg)
{
	struct scache_acquire_options options = options_now();
	struct scache *cache = scratch_open();
	struct scache_writer *writer;
	int error;

	(void)arg;
	signal(SIGSEGV, SIG_DFL);
	must_be(scache_acquire(cache, "k", 1, &options, NULL, &writer), 0);
	must_be(pattern_write(writer, 1, 0, stop_at, 7000, &error), stop_at);
	child_say((int64_t)stop_at);
	scache_abort(writer, 5, mmap(NULL, 4096, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0), 10);
	child_stay();
}

START_TEST(what_was_flushed_to_within_a_unit_is_gone_on_with)
{
	struct scache *cache = scratch_open();
	struct scache_writer *writer = NULL;
	struct scache_reader *reader;
	struct child child;
	int error;

	stop_at = 70100;
	more_flags = 0;
	child_start(&child, produce_and_die_aborting, NULL);
	must_be(child_hear(&child), stop_at);
	must_be(child_end(&child), -SIGSEGV);
	eventually(scache_acquire(cache, "k", 1, &resumable, NULL, &writer) == 0 && writer != NULL);
	must_be(scache_written(writer), stop_at);
	must_be(pattern_write(writer, 1, stop_at, BLOB_BYTES, 7000, &error), BLOB_BYTES - stop_at);
	must_be(scache_check(cache, NULL, NULL), 0);
	must_be(scache_finish(writer), 0);
	scache_writer_close(writer);
	reader = scratch_find(cache, "k");
	pattern_read_all(reader, 1, BLOB_BYTES);
	scache_reader_close(reader);
	scache_remove(cache, "k", 1);
	scratch_is_clean(cache);
	scratch_close(cache);
}
END_TEST

START_TEST(a_pread_does_not_send_the_stream_back)
{
	struct again again = { BLOB_BYTES, BLOB_BYTES };
	struct scache *cache = scratch_open();
	struct scache_reader *reader;
	uint64_t position = 0;
	struct child child;
	char byte;

	start_and_stop(&child, 200000, NOT_RESUMABLE);
	reader = fetch_again(cache, &again);
	must_be(pattern_read(reader, 1, &position, 100000, 3001), 1);
	child_kill(&child);
	must_be(scache_pread(reader, &byte, 1, 300000, SCACHE_FOREVER), -EOWNERDEAD);
	must_be(pattern_read(reader, 1, &position, UINT64_MAX, 5000), -EOWNERDEAD);
	must_be(position, 200000);
	scache_reader_close(reader);
	scratch_is_clean(cache);
	scratch_close(cache);
}
END_TEST

int main(void)
{
	const TTest *const tests[] = {
		another_goes_on_where_the_dead_one_stopped,
		another_goes_on_with_what_is_not_stored,
		an_acquire_that_can_resume_is_elected,
		an_orphan_that_nobody_wants_fails,
		the_fourth_death_is_the_last,
		a_sweep_fails_an_orphan_in_time,
		the_same_bytes_once_more_are_gone_on_with,
		other_bytes_are_not,
		after_a_pread_nobody_knows_what_was_had,
		what_was_flushed_to_within_a_unit_is_gone_on_with,
		a_pread_does_not_send_the_stream_back,
	};

	return SCRATCH_RUN("resume", tests);
}
