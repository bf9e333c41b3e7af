/* SPDX-License-Identifier: MIT */
/*
 * check_fetch_private - fetches that the cache cannot help: the callback feeds
 * its caller alone, and the caller sees no difference.
 */
#include <check.h>
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "../util/pattern.h"
#include "../util/producer.h"
#include "../util/scratch.h"
#include "../util/spawn.h"

#define BLOB_BYTES 600000ull /* more than the ring */
#define WINDOW_BYTES (64u << 10)
#define FEW_ENTRIES 16

static const struct scache_acquire_options narrow = { .size = sizeof(narrow),
						      .window_bytes = WINDOW_BYTES };
static const struct scache_acquire_options passing = { .size = sizeof(passing),
						       .flags = SCACHE_PASS_THROUGH,
						       .window_bytes = WINDOW_BYTES };

/* ------------------------------------------------------------- a cache without room */

static struct scache_writer *growing[FEW_ENTRIES];
static struct scache *crowded;
static int outcome; /* of the last look-up */

static void note_outcome(void *arg, const struct scache_trace *trace)
{
	(void)arg;
	outcome = trace->outcome;
}

/* Grow @count entries, and be left with a cache that has no more to give. */
static struct scache *crowd(int count)
{
	char key[16];

	board_make();
	scratch_options.trace = note_outcome;
	crowded = scratch_open();
	for (int i = 0; i < count; i++) {
		snprintf(key, sizeof(key), "growing %d", i);
		growing[i] = scratch_create(crowded, key, 0, NULL);
	}
	return crowded;
}

static struct scache *crowd_entries(void)
{
	scratch_options.entries = FEW_ENTRIES;
	return crowd(FEW_ENTRIES);
}

static void end(struct scache_reader *reader)
{
	for (int i = 0; i < FEW_ENTRIES; i++)
		scache_writer_close(growing[i]);
	task_close(crowded, reader);
}

/* ------------------------------------------------------------------- as if shared */

static int waits_at(struct scache_reader *reader, uint64_t bytes)
{
	struct scache_entry_info info = scratch_info(reader);

	must(info.bytes <= bytes);
	return info.bytes == bytes && info.flags & SCACHE_WRITER_WAITS;
}

static void look_at_the_growing(struct scache_reader *reader)
{
	struct scache_entry_info info = scratch_info(reader);
	uint64_t bytes = 0;

	must_be(info.state, SCACHE_FILLING);
	must_be(info.readers, 1);
	must_be(info.producer_pid, getpid());
	must_be(info.window_bytes, WINDOW_BYTES);
	must(info.flags & SCACHE_RING_ONLY);
	must(!(info.flags & SCACHE_WRITER_DEAD));
	must(info.key_bytes == 1 && *(const char *)info.key == 'k');
	must_be(scache_size(reader, &bytes), 0);
	must_be(bytes, WINDOW_BYTES);
}

static void pread_here_and_there(struct scache_reader *reader)
{
	char data[1000];

	must_be(scache_pread(reader, data, sizeof(data), 777, SCACHE_FOREVER), sizeof(data));
	must(pattern_matches(1, 777, data, sizeof(data)));
	must_be(scache_pread(reader, data, sizeof(data), 0, 0), sizeof(data));
	must(pattern_matches(1, 0, data, sizeof(data)));
	must_be(scache_pread(reader, data, 1, WINDOW_BYTES, 0), -EDEADLK);
	must_be(scache_pread(reader, data, 1, BLOB_BYTES, SCACHE_FOREVER), -EDEADLK);
}

static void look_at_the_finished(struct scache_reader *reader)
{
	struct scache_result result = { .size = sizeof(result), .code = 99 };
	uint64_t bytes = 0;
	char data[10];

	must_be(scache_wait(reader, SCACHE_FOREVER, &result), 0);
	must_be(result.code, 0);
	must_be(result.bytes, BLOB_BYTES);
	must_be(scache_size(reader, &bytes), 1);
	must_be(bytes, BLOB_BYTES);
	must_be(scratch_info(reader).state, SCACHE_FINISHED);
	must_be(scache_pread(reader, data, sizeof(data), BLOB_BYTES - 3, 0), 3);
	must(pattern_matches(1, BLOB_BYTES - 3, data, 3));
	must_be(scache_pread(reader, data, sizeof(data), BLOB_BYTES, 0), 0);
	must_be(scache_pread(reader, data, sizeof(data), 0, 0), -ENODATA);
	must_be(scache_message(reader, data, sizeof(data)), 0);
}

/* Twice: what was private nobody finds later. */
static void serves_in_private(struct scache *cache, const struct scache_acquire_options *options)
{
	for (int i = 1; i <= 2; i++) {
		struct task task = { .seed = 1, .bytes = BLOB_BYTES };
		struct scache_reader *reader;
		uint64_t position = 0;

		must_be(task_fetch(cache, "k", options, &task, &reader), 1);
		must_be(outcome, SCACHE_BYPASSED);
		must_be(scratch_stat(cache).bypasses, i);
		eventually(waits_at(reader, WINDOW_BYTES));
		look_at_the_growing(reader);
		pread_here_and_there(reader);
		must_be(pattern_read(reader, 1, &position, WINDOW_BYTES / 2, 4096), 1);
		eventually(waits_at(reader, position + WINDOW_BYTES));
		while (position + WINDOW_BYTES < BLOB_BYTES) {
			must_be(pattern_read(reader, 1, &position, position + 5000, 5000), 1);
			must(scratch_info(reader).bytes <= position + WINDOW_BYTES);
		}
		must_be(pattern_read(reader, 1, &position, UINT64_MAX, 65536), 0);
		must_be(position, BLOB_BYTES);
		look_at_the_finished(reader);
		must_be(scache_reader_close(reader), 0);
		eventually(atomic_load(&board->released) == i);
		must_be(atomic_load(&board->begun), i);
		must_be(atomic_load(&board->error), 0);
	}
}

START_TEST(a_cache_whose_entries_are_all_growing_is_not_noticed)
{
	serves_in_private(crowd_entries(), &narrow);
	end(NULL);
}
END_TEST

START_TEST(a_pass_through_without_a_free_ring_is_not_noticed)
{
	scratch_options.rings = 1;
	serves_in_private(crowd(1), &passing);
	end(NULL);
}
END_TEST

/* A process takes readers by the block, and there is one block. */
static void have_all_readers(void *arg)
{
	struct scache *cache = scratch_open();
	struct scache_reader *reader;
	struct scache_writer *writer = scratch_create(cache, "other", 0, &reader);

	(void)arg;
	child_say(0);
	child_listen();
	scache_writer_close(writer);
	scache_reader_close(reader);
	scratch_close(cache);
}

START_TEST(a_cache_whose_readers_are_all_in_use_is_not_noticed)
{
	struct child child;

	scratch_options.readers = 64;
	child_start(&child, have_all_readers, NULL);
	child_hear(&child);
	serves_in_private(crowd(0), &narrow);
	child_tell(&child, 0);
	child_join(&child);
	end(NULL);
}
END_TEST

START_TEST(with_rings_a_pass_through_is_shared_and_then_gone)
{
	struct task task = { .seed = 1, .bytes = 100000, .pauses = true, .pause_at = 1000 };
	struct task again = { .seed = 1, .bytes = 100000 };
	struct scache_reader *reader, *other;
	struct scache *cache = crowd(0);

	must_be(task_fetch(cache, "k", &passing, &task, &reader), 1);
	must_be(outcome, SCACHE_CREATED);
	must_be(task_fetch(cache, "k", &passing, &again, &other), 0);
	must_be(outcome, SCACHE_JOINED);
	scache_reader_close(other);
	atomic_store(&board->go, 1);
	pattern_read_all(reader, 1, 100000);
	must_be(task_fetch(cache, "k", NULL, &again, &other), 1);
	pattern_read_all(other, 1, 100000);
	scache_reader_close(other);
	must_be(task_fetch(cache, "k", &passing, &again, &other), 0);
	must_be(outcome, SCACHE_HIT);
	pattern_read_all(other, 1, 100000);
	scache_reader_close(other);
	end(reader);
}
END_TEST

START_TEST(an_unlimited_window_ends_at_the_ring)
{
	struct task task = { .seed = 1, .bytes = BLOB_BYTES };
	struct scache_reader *reader;

	must_be(task_fetch(crowd_entries(), "k", NULL, &task, &reader), 1);
	eventually(waits_at(reader, SCRATCH_RING_BYTES));
	pattern_read_all(reader, 1, BLOB_BYTES);
	end(reader);
}
END_TEST

/* ---------------------------------------------------------------------- its end */

static void fails_in_private(struct task task, int code, const char *message)
{
	struct scache_result result = { .size = sizeof(result) };
	struct scache_reader *reader;
	uint64_t position = 0;
	char text[100];

	task.seed = 1;
	task.bytes = BLOB_BYTES;
	must_be(task_fetch(crowd_entries(), "k", &narrow, &task, &reader), 1);
	must_be(scache_message(reader, text, sizeof(text)), -EAGAIN);
	must_be(pattern_read(reader, 1, &position, UINT64_MAX, 65536),
		code > 0 ? -EREMOTEIO : code);
	must_be(position, BLOB_BYTES);
	must_be(scache_wait(reader, 0, &result), 0);
	must_be(result.code, code);
	must_be(result.bytes, BLOB_BYTES);
	must_be(scache_message(reader, text, sizeof(text)), strlen(message));
	must(strcmp(text, message) == 0);
	end(reader);
}

START_TEST(a_code_comes_through_in_private)
{
	fails_in_private((struct task){ .ret = 42 }, 42, "");
}
END_TEST

static int abort_with_message(struct task *task, struct scache_writer *writer)
{
	return scache_abort(writer, -ENODEV, task->extra, strlen(task->extra));
}

START_TEST(a_message_comes_through_in_private)
{
	char message[] = "no tape in the drive, and nobody there to mount it";

	fails_in_private((struct task){ .ending = abort_with_message, .extra = message }, -ENODEV,
			 message);
}
END_TEST

static int leave(struct task *task, struct scache_writer *writer)
{
	(void)task;
	(void)writer;
	pthread_exit(NULL);
}

START_TEST(a_callback_may_leave_in_private)
{
	fails_in_private((struct task){ .ending = leave }, -ECANCELED, "");
}
END_TEST

static void is_abandoned(struct scache_acquire_options options)
{
	struct task task = { .seed = 1, .bytes = BLOB_BYTES, .pauses = true, .pause_at = 1000 };
	struct scache_reader *reader;
	struct scache *cache = crowd_entries();
	uint64_t position = 0;

	must_be(task_fetch(cache, "k", &options, &task, &reader), 1);
	must_be(pattern_read(reader, 1, &position, 1000, 1000), 1);
	must_be(scache_close_within(cache, 0), -EBUSY);
	must_be(scache_reader_close(reader), 0);
	must_be(atomic_load(&board->released), 0);
	atomic_store(&board->go, 1);
	eventually(atomic_load(&board->released) == 1);
	must_be(atomic_load(&board->error), -EPIPE);
	end(NULL);
}

START_TEST(closing_a_private_reader_stops_its_callback)
{
	is_abandoned((struct scache_acquire_options){ .size = sizeof(narrow) });
}
END_TEST

/* Nobody can ever read it: to what end should it run? */
START_TEST(closing_a_private_reader_stops_even_what_runs_to_its_end)
{
	is_abandoned((struct scache_acquire_options){ .size = sizeof(narrow),
						      .flags = SCACHE_RUN_TO_END });
}
END_TEST

START_TEST(closing_a_private_reader_wakes_a_callback_that_waits_for_room)
{
	struct task task = { .seed = 1, .bytes = BLOB_BYTES };
	struct scache_reader *reader;

	must_be(task_fetch(crowd_entries(), "k", &narrow, &task, &reader), 1);
	eventually(waits_at(reader, WINDOW_BYTES));
	scache_reader_close(reader);
	eventually(atomic_load(&board->released) == 1);
	must_be(atomic_load(&board->error), -EPIPE);
	must_be(atomic_load(&board->written), WINDOW_BYTES);
	end(NULL);
}
END_TEST

/* --------------------------------------------------------------- cancel and fork */

static void *wait_to_read(void *arg)
{
	char byte;

	atomic_store(&board->done, 1);
	must_be(scache_read(arg, &byte, 1, SCACHE_FOREVER), -ECANCELED);
	return NULL;
}

START_TEST(cancel_wakes_a_private_reader)
{
	struct task task = { .seed = 1, .bytes = BLOB_BYTES, .pauses = true, .pause_at = 1000 };
	struct task silent = { .seed = 1, .pauses = true };
	struct scache_reader *reader;
	struct scache *cache = crowd_entries();
	uint64_t position = 0;
	pthread_t waits;

	must_be(task_fetch(cache, "k", &narrow, &task, &reader), 1);
	must_be(pattern_read(reader, 1, &position, 500, 1000), 1);
	eventually(scratch_info(reader).bytes == 1000);
	must_be(scache_cancel(reader), 0);
	/* What is there is delivered; then nobody waits. */
	must_be(pattern_read(reader, 1, &position, UINT64_MAX, 1000), -ECANCELED);
	must_be(position, 1000);
	must_be(scache_reader_close(reader), 0);
	must_be(task_fetch(cache, "k", &narrow, &silent, &reader), 1);
	must(pthread_create(&waits, NULL, wait_to_read, reader) == 0);
	eventually(atomic_load(&board->done));
	must_be(scache_cancel(reader), 0);
	must(pthread_join(waits, NULL) == 0);
	atomic_store(&board->go, 1);
	end(reader);
}
END_TEST

struct inheritance {
	struct scache *cache;
	struct scache_reader *reader;
};

static void inherit(void *arg)
{
	const struct inheritance *all = arg;
	char byte;

	must_be(scache_read(all->reader, &byte, 1, SCACHE_FOREVER), -ECHILD);
	must_be(scache_cancel(all->reader), -ECHILD);
	must_be(scache_reader_close(all->reader), 0);
	for (int i = 0; i < FEW_ENTRIES; i++)
		scache_writer_close(growing[i]);
	must_be(scache_close(all->cache), 0);
}

START_TEST(a_fork_child_can_close_a_private_reader)
{
	struct task task = { .seed = 1, .bytes = BLOB_BYTES, .pauses = true, .pause_at = 1000 };
	struct inheritance all = { .cache = crowd_entries() };
	struct child child;

	must_be(task_fetch(all.cache, "k", &narrow, &task, &all.reader), 1);
	child_start(&child, inherit, &all);
	child_join(&child);
	must_be(atomic_load(&board->released), 0);
	atomic_store(&board->go, 1);
	pattern_read_all(all.reader, 1, BLOB_BYTES);
	end(all.reader);
}
END_TEST

int main(void)
{
	const TTest *const tests[] = {
		a_cache_whose_entries_are_all_growing_is_not_noticed,
		a_pass_through_without_a_free_ring_is_not_noticed,
		a_cache_whose_readers_are_all_in_use_is_not_noticed,
		with_rings_a_pass_through_is_shared_and_then_gone,
		an_unlimited_window_ends_at_the_ring,
		a_code_comes_through_in_private,
		a_message_comes_through_in_private,
		a_callback_may_leave_in_private,
		closing_a_private_reader_stops_its_callback,
		closing_a_private_reader_stops_even_what_runs_to_its_end,
		closing_a_private_reader_wakes_a_callback_that_waits_for_room,
		cancel_wakes_a_private_reader,
		a_fork_child_can_close_a_private_reader,
	};

	return SCRATCH_RUN("fetch_private", tests);
}
