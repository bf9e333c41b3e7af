/* SPDX-License-Identifier: MIT */
/*
 * check_stall - a writer whose readers do not move: what it does then, and what becomes of
 * them.
 */
#include <check.h>
#include <errno.h>
#include <signal.h>
#include <string.h>

#include "../util/calls.h"
#include "../util/producer.h"

#define WINDOW_BYTES (96u << 10)
#define RING_BYTES SCRATCH_RING_BYTES
#define BLOB_BYTES 2000000u
#define STALL_NS 60000000ll
#define LONG_NS (STALL_NS * 1000)

static struct scache_writer *create_who(struct scache *cache, uint32_t flags, uint64_t window_bytes,
					uint64_t stall_ns, uint32_t policy,
					struct scache_reader **ret_reader)
{
	const struct scache_acquire_options options = { .flags = flags,
							.window_bytes = window_bytes,
							.writer_stall_ns = stall_ns,
							.stall_policy = policy };

	return create_with(cache, options, ret_reader);
}

/* How much of it could be written, and why no more, in @error. */
static int error;

static ssize_t make_blob(struct call *call)
{
	error = 0;
	return (ssize_t)pattern_write(call->writer, 1, call->offset, call->bytes, 30011, &error);
}

static struct call start(struct scache_writer *writer)
{
	return (struct call){ .make = make_blob, .bytes = BLOB_BYTES, .writer = writer };
}

/* The writer goes on, and this reader is always where it is: it has nothing more to read. */
static void go_on(struct scache_writer *writer, struct scache_reader *reader, uint64_t at)
{
	uint64_t position = 0;

	while (at < BLOB_BYTES) {
		unsigned char data[2000];
		ssize_t done;

		pattern_fill(1, at, data, sizeof(data));
		done = scache_write(writer, data, sizeof(data), 0);
		if (done == -EAGAIN)
			continue;
		must(done > 0);
		at += (uint64_t)done;
		must_be(pattern_read(reader, 1, &position, at, 5000), 1);
	}
	must(scache_finish(writer) >= 0);
	scache_writer_close(writer);
	must_be(pattern_read(reader, 1, &position, UINT64_MAX, 5000), 0);
}

static uint64_t stalls(struct scache *cache)
{
	return scratch_stat(cache).stalled;
}

/* -------------------------------------------------------------------- policies */

START_TEST(a_writer_that_only_waits_is_counted_once_and_a_fast_reader_frees_it)
{
	struct scache *cache = scratch_open();
	uint64_t stuck_at = 10000, position = 0;
	struct scache_reader *reader;
	struct child child;
	struct call call;

	call = start(create_who(cache, 0, WINDOW_BYTES, STALL_NS, SCACHE_STALL_WAIT, NULL));
	child_start(&child, scratch_read_and_stay, &stuck_at);
	put(call.writer, 0, stuck_at);
	child_hear(&child);
	child_hear(&child);
	call.offset = stuck_at;
	call_start(&call);
	eventually(stalls(cache) == 1);
	/* A stranger to the pace it is not: it comes, and is the fastest. */
	reader = scratch_find(cache, "k");
	eventually(writer_waits_at(reader, stuck_at + WINDOW_BYTES));
	must(scratch_stat(cache).blocked_ns >= (uint64_t)STALL_NS / 2);
	must_be(pattern_read(reader, 1, &position, BLOB_BYTES, 5000), 1);
	must_be(call_end(&call), BLOB_BYTES - stuck_at);
	must_be(scache_finish(call.writer), 0);
	scache_writer_close(call.writer);
	child_kill(&child);
	end_with(cache, reader);
}
END_TEST

START_TEST(who_aborts_fails_for_all_with_every_byte_and_a_message)
{
	for (uint32_t flags = 0; flags <= SCACHE_PASS_THROUGH; flags += SCACHE_PASS_THROUGH) {
		struct scache *cache = scratch_open();
		uint64_t before = stalls(cache);
		struct scache_reader *reader;
		char text[100];
		struct call call;

		call = start(create_who(cache, flags, WINDOW_BYTES, STALL_NS, SCACHE_STALL_ABORT,
					NULL));
		reader = scratch_find(cache, "k");
		call_start(&call);
		must_be(call_end(&call), WINDOW_BYTES);
		must_be(error, -ECANCELED);
		must_be(scache_write(call.writer, "x", 1, 0), -ECANCELED);
		must_be(scache_finish(call.writer), -ECANCELED);
		scache_writer_close(call.writer);
		must(scratch_misses(cache, "k"));
		pread_to_the_error(reader, WINDOW_BYTES, -ECANCELED);
		must(scache_message(reader, text, sizeof(text)) > 0);
		must(strcmp(text, "no reader has moved for 0.060 s") == 0);
		must_be(stalls(cache), before + 1);
		end_with(cache, reader);
	}
}
END_TEST

START_TEST(nobody_who_comes_is_a_stall_too)
{
	struct scache *cache = scratch_open();
	struct call call;

	call = start(create_who(cache, 0, WINDOW_BYTES, STALL_NS, SCACHE_STALL_ABORT, NULL));
	call_start(&call);
	must_be(call_end(&call), WINDOW_BYTES);
	must_be(error, -ECANCELED);
	scache_writer_close(call.writer);
	end_with(cache, NULL);
}
END_TEST

START_TEST(who_runs_on_stores_all_of_it_and_the_stuck_reader_has_it_from_the_file)
{
	struct scache *cache = scratch_open();
	struct scache_reader *reader;
	uint64_t position = 0;
	struct call call;

	call = start(create_who(cache, 0, WINDOW_BYTES, STALL_NS, SCACHE_STALL_RUN, NULL));
	reader = scratch_find(cache, "k");
	must_be(pattern_read(reader, 1, &position, 0, 1), 1);
	call_start(&call);
	must_be(call_end(&call), BLOB_BYTES);
	must_be(scache_finish(call.writer), 0);
	scache_writer_close(call.writer);
	must_be(stalls(cache), 1);
	must_be(pattern_read(reader, 1, &position, UINT64_MAX, 5000), 0);
	must_be(position, BLOB_BYTES);
	end_with(cache, reader);
}
END_TEST

/* It runs on, the reader moves, and it waits for it again, at the window. */
START_TEST(who_runs_on_keeps_the_pace_again_when_somebody_moves)
{
	struct scache *cache = scratch_open();
	struct scache_writer *writer;
	struct scache_reader *reader;
	uint64_t at = WINDOW_BYTES, position = 0;

	writer = create_who(cache, 0, WINDOW_BYTES, STALL_NS, SCACHE_STALL_RUN, &reader);
	put(writer, 0, at);
	/* Without waiting it finds out as well. */
	eventually(scache_write(writer, "", 0, 0) == 0 && stalls(cache) == 0);
	while (stalls(cache) == 0) {
		unsigned char data[1000];

		pattern_fill(1, at, data, sizeof(data));
		if (scache_write(writer, data, sizeof(data), 0) == sizeof(data))
			at += sizeof(data);
	}
	put(writer, at, 1000000);
	must_be(pattern_read(reader, 1, &position, 1, 1), 1);
	must_be(scache_write(writer, "x", 1, 0), -EAGAIN);
	must_be(pattern_read(reader, 1, &position, 1000000 - WINDOW_BYTES + 10000, 5000), 1);
	put(writer, 1000000, 1010000);
	must_be(scache_write(writer, "x", 1, 0), -EAGAIN);
	must_be(stalls(cache), 1);
	must_be(scache_abort(writer, -EIO, NULL, 0), 0);
	scache_writer_close(writer);
	end_with(cache, reader);
}
END_TEST

/* ------------------------------------------------------------------ from the ring */

START_TEST(from_the_ring_alone_the_laggard_is_given_up_and_the_others_are_not)
{
	enum {
		IN_THE_MIDDLE,
		HAS_SOUGHT,
		AT_ITS_START
	};

	for (int where = IN_THE_MIDDLE; where <= AT_ITS_START; where++) {
		struct scache *cache = scratch_open();
		uint64_t before = stalls(cache), position = 0;
		struct scache_reader *reader, *laggard;
		struct scache_writer *writer;
		unsigned char byte;

		writer = create_who(cache, SCACHE_PASS_THROUGH, SCACHE_UNLIMITED, STALL_NS,
				    SCACHE_STALL_RUN, &laggard);
		reader = scratch_find(cache, "k");
		put(writer, 0, 2000);
		if (where == IN_THE_MIDDLE)
			must_be(pattern_read(laggard, 1, &position, 1000, 1000), 1);
		if (where == HAS_SOUGHT)
			must_be(scache_seek(laggard, 1000), 1000);
		go_on(writer, reader, 2000);
		/* Who has sought may seek on. */
		must_be(scache_read(laggard, &byte, 1, 0),
			where == HAS_SOUGHT ? -ENODATA : -ESTALE);
		must_be(scache_read(laggard, &byte, 1, SCACHE_FOREVER),
			where == HAS_SOUGHT ? -ENODATA : -ESTALE);
		must_be(stalls(cache), before + 1);
		scache_reader_close(laggard);
		end_with(cache, reader);
	}
}
END_TEST

/* Each in turn, and who is gone counts as a reader no more. */
START_TEST(when_all_are_given_up_nobody_is_left)
{
	struct scache *cache = scratch_open();
	uint64_t at[2] = { 1000, 50000 };
	struct child children[2];
	struct call call;

	call = start(create_who(cache, SCACHE_PASS_THROUGH, SCACHE_UNLIMITED, STALL_NS,
				SCACHE_STALL_RUN, NULL));
	put(call.writer, 0, at[1]);
	for (int i = 0; i < 2; i++) {
		child_start(&children[i], scratch_read_and_stay, &at[i]);
		child_hear(&children[i]);
		child_hear(&children[i]);
	}
	call.offset = at[1];
	call_start(&call);
	must(call_end(&call) < BLOB_BYTES - 50000);
	must_be(error, -EPIPE);
	must_be(stalls(cache), 2);
	scache_writer_close(call.writer);
	for (int i = 0; i < 2; i++)
		child_kill(&children[i]);
	end_with(cache, NULL);
}
END_TEST

START_TEST(a_file_that_is_given_up_in_the_middle_changes_nothing_of_that)
{
	struct scache *cache = scratch_open();
	struct scache_reader *reader, *laggard;
	const struct scache_options changes = { .size = sizeof(changes), .max_bytes = 512u << 10 };
	struct scache_writer *writer;
	unsigned char byte;
	uint64_t slow = 0;

	must_be(scache_configure(cache, &changes), 0);
	writer = create_who(cache, 0, WINDOW_BYTES, STALL_NS, SCACHE_STALL_RUN, &laggard);
	reader = scratch_find(cache, "k");
	go_on(writer, reader, 0);
	/* What was in the file it has yet. */
	must_be(pattern_read(laggard, 1, &slow, UINT64_MAX, 5000), -ESTALE);
	must(slow > 0 && slow <= 512u << 10);
	must_be(scache_read(laggard, &byte, 1, 0), -ESTALE);
	scache_reader_close(laggard);
	end_with(cache, reader);
}
END_TEST

/* Its creator runs on from the ring; a fetch that has read nothing has its own callback run. */
START_TEST(a_fetch_that_was_given_up_at_its_start_is_served_otherwise)
{
	struct task task = { .seed = 1, .bytes = BLOB_BYTES };
	struct scache *cache, *other;
	struct scache_reader *reader, *laggard;
	struct scache_writer *writer;

	board_make();
	cache = scratch_open();
	other = scratch_open();
	writer = create_who(cache, SCACHE_PASS_THROUGH, SCACHE_UNLIMITED, STALL_NS,
			    SCACHE_STALL_RUN, &reader);
	must_be(task_fetch(other, "k", NULL, &task, &laggard), 0);
	go_on(writer, reader, 0);
	must_be(board->begun, 0);
	pattern_read_all(laggard, 1, BLOB_BYTES);
	must_be(board->begun, 1);
	scache_reader_close(reader);
	must_be(scache_close(cache), 0);
	task_close(other, laggard);
}
END_TEST

/* ----------------------------------------------------------------------- the rest */

START_TEST(who_moves_now_and_then_is_never_stuck)
{
	for (uint32_t flags = 0; flags <= SCACHE_PACE_SLOWEST; flags += SCACHE_PACE_SLOWEST) {
		struct scache *cache = scratch_open();
		struct scache_reader *reader;
		uint64_t position = 0;
		struct call call;

		call = start(create_who(cache, flags, WINDOW_BYTES, LONG_NS, SCACHE_STALL_ABORT,
					&reader));
		call.bytes = 4 * WINDOW_BYTES;
		call_start(&call);
		while (position + WINDOW_BYTES < call.bytes) {
			eventually(writer_waits_at(reader, position + WINDOW_BYTES));
			must_be(pattern_read(reader, 1, &position, position + WINDOW_BYTES, 5000),
				1);
		}
		must_be(call_end(&call), call.bytes);
		must_be(stalls(cache), 0);
		must_be(scache_abort(call.writer, -EIO, NULL, 0), 0);
		scache_writer_close(call.writer);
		end_with(cache, reader);
	}
}
END_TEST

/* What it waits for is the slowest, and the other may read as it likes. */
START_TEST(at_the_pace_of_the_slowest_it_is_the_slowest_that_must_move)
{
	struct scache *cache = scratch_open();
	struct scache_reader *reader;
	uint64_t stuck_at = 10000, position = 0;
	struct child child;
	struct call call;

	call = start(create_who(cache, SCACHE_PACE_SLOWEST, WINDOW_BYTES, STALL_NS,
				SCACHE_STALL_ABORT, &reader));
	put(call.writer, 0, WINDOW_BYTES);
	child_start(&child, scratch_read_and_stay, &stuck_at);
	child_hear(&child);
	child_hear(&child);
	must_be(pattern_read(reader, 1, &position, WINDOW_BYTES, 10), 1);
	call.offset = WINDOW_BYTES;
	call_start(&call);
	while (pattern_read(reader, 1, &position, position + 10, 10) == 1)
		;
	must_be(position, stuck_at + WINDOW_BYTES);
	must_be(call_end(&call), stuck_at);
	must_be(error, -ECANCELED);
	scache_writer_close(call.writer);
	child_kill(&child);
	end_with(cache, reader);
}
END_TEST

static void begin_and_stay(void *arg)
{
	(void)arg;
	put(create_as(scratch_open(), SCACHE_RESUMABLE, SCACHE_UNLIMITED, NULL), 0, 5000);
	child_say(0);
	child_stay();
}

/* The dead one would have waited for ever, and for nobody. */
START_TEST(who_takes_over_has_a_window_and_a_patience_of_its_own)
{
	struct scache_acquire_options options = { .size = sizeof(options),
						  .flags = SCACHE_RESUMABLE,
						  .window_bytes = WINDOW_BYTES,
						  .writer_stall_ns = STALL_NS,
						  .stall_policy = SCACHE_STALL_ABORT };
	struct scache *cache = scratch_open();
	struct scache_writer *writer = NULL;
	struct scache_reader *reader;
	struct child child;

	child_start(&child, begin_and_stay, NULL);
	child_hear(&child);
	reader = scratch_find(cache, "k");
	child_kill(&child);
	/* Its death may be known only after a tick. */
	eventually(scache_acquire(cache, "k", 1, &options, NULL, &writer) == 0 && writer != NULL);
	must_be(scache_written(writer), 5000);
	must_be(scratch_info(reader).window_bytes, WINDOW_BYTES);
	put(writer, 5000, WINDOW_BYTES);
	must_be(scache_write(writer, "x", 1, SCACHE_FOREVER), -ECANCELED);
	scache_writer_close(writer);
	pread_to_the_error(reader, WINDOW_BYTES, -ECANCELED);
	end_with(cache, reader);
}
END_TEST

START_TEST(what_makes_no_sense_is_refused)
{
	struct scache_acquire_options options = { .size = sizeof(options) };
	struct scache *cache = scratch_open();
	struct scache_writer *writer;

	options.stall_policy = SCACHE_STALL_RUN + 1;
	must_be(scache_acquire(cache, "k", 1, &options, NULL, &writer), -EINVAL);
	options.stall_policy = 0;
	options.finish_percent = 101;
	must_be(scache_acquire(cache, "k", 1, &options, NULL, &writer), -EINVAL);
	end_with(cache, NULL);
}
END_TEST

int main(void)
{
	const TTest *const tests[] = {
		a_writer_that_only_waits_is_counted_once_and_a_fast_reader_frees_it,
		who_aborts_fails_for_all_with_every_byte_and_a_message,
		nobody_who_comes_is_a_stall_too,
		who_runs_on_stores_all_of_it_and_the_stuck_reader_has_it_from_the_file,
		who_runs_on_keeps_the_pace_again_when_somebody_moves,
		from_the_ring_alone_the_laggard_is_given_up_and_the_others_are_not,
		when_all_are_given_up_nobody_is_left,
		a_file_that_is_given_up_in_the_middle_changes_nothing_of_that,
		a_fetch_that_was_given_up_at_its_start_is_served_otherwise,
		who_moves_now_and_then_is_never_stuck,
		at_the_pace_of_the_slowest_it_is_the_slowest_that_must_move,
		who_takes_over_has_a_window_and_a_patience_of_its_own,
		what_makes_no_sense_is_refused,
	};

	return SCRATCH_RUN("stall", tests);
}
