/* SPDX-License-Identifier: MIT */
/*
 * check_leave - all readers have left: what is finished all the same, and for how long
 * somebody else is waited for.
 */
#include <check.h>
#include <errno.h>
#include <signal.h>

#include "../util/calls.h"

#define WINDOW_BYTES (96u << 10)
#define BLOB_BYTES 500000u
#define LINGER_NS 60000000ll

static void finish(struct scache *cache, struct scache_writer *writer, uint64_t from)
{
	struct scache_reader *reader;

	put(writer, from, BLOB_BYTES);
	must_be(scache_finish(writer), 0);
	scache_writer_close(writer);
	reader = scratch_find(cache, "k");
	pattern_read_all(reader, 1, BLOB_BYTES);
	scache_reader_close(reader);
	must_be(scache_remove(cache, "k", 1), 0);
}

/* Attached, and stays until it is killed. */
static void stay(void *arg)
{
	(void)arg;
	(void)scratch_find(scratch_open(), "k");
	child_say(0);
	child_stay();
}

/* All leave after @bytes: is it gone on with? Of the last reader also if it is killed. */
static bool goes_on(struct scache_acquire_options options, uint64_t bytes, bool is_killed)
{
	struct scache *cache = scratch_open();
	struct scache_reader *reader = NULL;
	struct scache_writer *writer = create_with(cache, options, NULL);
	struct child child;
	bool lives;

	if (is_killed) {
		child_start(&child, stay, NULL);
		child_hear(&child);
	} else {
		reader = scratch_find(cache, "k");
	}
	put(writer, 0, bytes);
	must_be(scache_writer_check(writer), 0);
	if (is_killed)
		child_kill(&child);
	scache_reader_close(reader);
	/* A dead one is asked for no more than once a tick. */
	eventually(scache_writer_check(writer) < 0 || scratch_stat(cache).readers == 0);
	lives = scache_writer_check(writer) == 0;
	if (lives) {
		finish(cache, writer, bytes);
	} else {
		must_be(scache_write(writer, "x", 1, 0), -EPIPE);
		scache_writer_close(writer);
	}
	end_with(cache, NULL);
	return lives;
}

START_TEST(what_is_nearly_done_is_finished)
{
	for (int is_killed = 0; is_killed <= 1; is_killed++) {
		struct scache_acquire_options none = { .declared_bytes = BLOB_BYTES };
		struct scache_acquire_options percent = none, left = none;

		percent.finish_percent = 60;
		left.finish_bytes = 100000;
		must(!goes_on(none, BLOB_BYTES, is_killed));
		must(!goes_on(percent, BLOB_BYTES / 10 * 6 - 1, is_killed));
		must(goes_on(percent, BLOB_BYTES / 10 * 6, is_killed));
		must(!goes_on(left, BLOB_BYTES - 100001, is_killed));
		must(goes_on(left, BLOB_BYTES - 100000, is_killed));
		percent.finish_bytes = 400000;
		must(goes_on(percent, BLOB_BYTES - 400000, is_killed));
		left.finish_bytes = SCACHE_UNLIMITED;
		must(goes_on(left, 1, is_killed));
		left.finish_bytes = SCACHE_ZERO;
		must(!goes_on(left, BLOB_BYTES - 1, is_killed));
		must(goes_on(left, BLOB_BYTES, is_killed));
		/* Of what is not known no part is done. */
		percent.declared_bytes = 0;
		must(!goes_on(percent, BLOB_BYTES - 1, is_killed));
	}
}
END_TEST

/* Nobody would ever find it. */
START_TEST(what_was_removed_is_not_finished_for_nobody)
{
	struct scache *cache = scratch_open();
	struct scache_reader *reader;
	struct scache_writer *writer = create_with(
		cache,
		(struct scache_acquire_options){ .declared_bytes = BLOB_BYTES,
						 .finish_percent = 1,
						 .linger_ns = SCACHE_UNLIMITED },
		&reader);

	put(writer, 0, BLOB_BYTES - 1);
	must_be(scache_remove(cache, "k", 1), 0);
	must_be(scache_writer_check(writer), 0);
	scache_reader_close(reader);
	must_be(scache_writer_check(writer), -EPIPE);
	scache_writer_close(writer);
	end_with(cache, NULL);
}
END_TEST

static void remove_it(struct scache *cache)
{
	must_be(scache_remove(cache, "k", 1), 0);
}

static void allow_nothing_more(struct scache *cache)
{
	const struct scache_options changes = { .size = sizeof(changes), .max_bytes = 64 << 10 };

	must_be(scache_configure(cache, &changes), 0);
}

/* Nobody is there any more; then the door closes, too, at once or when the file fails. */
START_TEST(what_is_nearly_done_is_not_finished_behind_a_closed_door)
{
	static void (*const closings[])(struct scache *) = { remove_it, allow_nothing_more };

	for (size_t i = 0; i < sizeof(closings) / sizeof(closings[0]); i++) {
		struct scache *cache = scratch_open();
		struct scache_reader *reader;
		struct scache_writer *writer = create_with(
			cache,
			(struct scache_acquire_options){ .declared_bytes = BLOB_BYTES,
							 .finish_percent = 10 },
			&reader);
		int error = 0;

		put(writer, 0, 60000);
		scache_reader_close(reader);
		put(writer, 60000, 70000);
		closings[i](cache);
		must(pattern_write(writer, 1, 70000, BLOB_BYTES, 1000, &error) <
		     BLOB_BYTES - 70000);
		must_be(error, -EPIPE);
		must_be(scratch_stat(cache).degraded, i);
		scache_writer_close(writer);
		end_with(cache, NULL);
	}
}
END_TEST

START_TEST(who_lingers_gives_up_in_the_end)
{
	for (uint32_t flags = 0; flags <= SCACHE_PASS_THROUGH; flags += SCACHE_PASS_THROUGH) {
		struct scache *cache = scratch_open();
		struct scache_reader *reader;
		struct scache_writer *writer = create_with(
			cache,
			(struct scache_acquire_options){ .flags = flags,
							 .window_bytes = WINDOW_BYTES,
							 .linger_ns = LINGER_NS },
			&reader);
		int64_t began_ms = now_ms();

		put(writer, 0, WINDOW_BYTES);
		scache_reader_close(reader);
		must_be(scache_write(writer, "x", 1, SCACHE_FOREVER), -EPIPE);
		must(now_ms() - began_ms >= LINGER_NS / 1000000);
		scache_writer_close(writer);
		must(scratch_misses(cache, "k"));
		end_with(cache, NULL);
	}
}
END_TEST

static ssize_t make_blob(struct call *call)
{
	int error = 0;

	must_be(pattern_write(call->writer, 1, 0, call->bytes, 30011, &error), call->bytes);
	return scache_finish(call->writer);
}

/* All of several are killed, the writer waits at its window, and somebody comes. */
START_TEST(who_comes_while_it_lingers_goes_on_as_if_nothing_had_been)
{
	struct scache *cache = scratch_open();
	struct call call = { .make = make_blob, .bytes = BLOB_BYTES };
	struct scache_reader *reader;
	struct child children[3];

	call.writer = create_with(cache,
				  (struct scache_acquire_options){ .window_bytes = WINDOW_BYTES,
								   .linger_ns = SCACHE_UNLIMITED },
				  NULL);
	for (int i = 0; i < 3; i++) {
		child_start(&children[i], stay, NULL);
		child_hear(&children[i]);
	}
	call_start(&call);
	for (int i = 0; i < 3; i++)
		child_kill(&children[i]);
	eventually(scratch_stat(cache).readers == 0);
	must_be(scratch_stat(cache).entries_hidden, 0);
	reader = scratch_find(cache, "k");
	pattern_read_all(reader, 1, BLOB_BYTES);
	must_be(call_end(&call), 0);
	scache_writer_close(call.writer);
	must_be(scratch_stat(cache).productions, 1);
	end_with(cache, reader);
}
END_TEST

/* Its time begins anew with each that leaves. */
START_TEST(each_who_leaves_is_lingered_for)
{
	struct scache *cache = scratch_open();
	struct scache_reader *reader;
	struct scache_writer *writer = create_with(
		cache,
		(struct scache_acquire_options){ .window_bytes = WINDOW_BYTES,
						 .linger_ns = LINGER_NS * 1000 },
		&reader);
	uint64_t position = 0;

	for (int i = 0; i < 5; i++) {
		scache_reader_close(reader);
		must_be(scache_writer_check(writer), 0);
		put(writer, (uint64_t)i * 1000, (uint64_t)i * 1000 + 1000);
		reader = scratch_find(cache, "k");
		must_be(scache_writer_check(writer), 0);
	}
	scache_reader_close(reader);
	/* As if somebody stood at the start. */
	put(writer, 5000, WINDOW_BYTES);
	must_be(scache_write(writer, "x", 1, 0), -EAGAIN);
	reader = scratch_find(cache, "k");
	must_be(pattern_read(reader, 1, &position, 10000, 5000), 1);
	put(writer, WINDOW_BYTES, WINDOW_BYTES + 10000);
	must_be(scache_abort(writer, -EIO, NULL, 0), 0);
	scache_writer_close(writer);
	end_with(cache, reader);
}
END_TEST

/* The time for which nobody is there is not one in which somebody does not move. */
START_TEST(who_lingers_does_not_stall)
{
	struct scache *cache = scratch_open();
	struct scache_reader *reader;
	struct scache_writer *writer = create_with(
		cache,
		(struct scache_acquire_options){ .window_bytes = WINDOW_BYTES,
						 .linger_ns = 3 * LINGER_NS,
						 .writer_stall_ns = 1,
						 .stall_policy = SCACHE_STALL_ABORT },
		&reader);

	put(writer, 0, WINDOW_BYTES);
	scache_reader_close(reader);
	must_be(scache_write(writer, "x", 1, SCACHE_FOREVER), -EPIPE);
	must_be(scratch_stat(cache).stalled, 0);
	scache_writer_close(writer);
	end_with(cache, NULL);
}
END_TEST

int main(void)
{
	const TTest *const tests[] = {
		what_is_nearly_done_is_finished,
		what_was_removed_is_not_finished_for_nobody,
		what_is_nearly_done_is_not_finished_behind_a_closed_door,
		who_lingers_gives_up_in_the_end,
		who_comes_while_it_lingers_goes_on_as_if_nothing_had_been,
		each_who_leaves_is_lingered_for,
		who_lingers_does_not_stall,
	};

	return SCRATCH_RUN("leave", tests);
}
