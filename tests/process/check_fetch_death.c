/* SPDX-License-Identifier: MIT */
/*
 * check_fetch_death - producers that are killed under fetched readers: before
 * its first byte a reader goes on with another one, after that it is told.
 */
#include <check.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>

#include "../util/pattern.h"
#include "../util/producer.h"
#include "../util/scratch.h"
#include "../util/spawn.h"

#define BLOB_BYTES 600000ull /* more than the ring */
#define READERS 4
#define DEATHS 4 /* one more than a reader puts up with */
#define FEW_ENTRIES 16

/* The body of a child: be elected, write @arg bytes of another pattern, be silent. */
static void produce_and_stall(void *arg)
{
	struct task task = { .seed = 2, .bytes = BLOB_BYTES, .pauses = true };
	struct scache_reader *reader;
	int paused = atomic_load(&board->paused);

	task.pause_at = *(const uint64_t *)arg;
	must_be(task_fetch(scratch_open(), "k", NULL, &task, &reader), 1);
	eventually(atomic_load(&board->paused) == paused + 1);
	child_say(0);
	child_stay();
}

static void start_producer(struct child *child, uint64_t bytes)
{
	child_start(child, produce_and_stall, &bytes);
	child_hear(child);
}

/* What it would have done it will not do any more. */
static void kill_producer(struct child *child)
{
	child_kill(child);
	atomic_fetch_sub(&board->fetches, 1);
	atomic_fetch_sub(&board->begun, 1);
}

/* A producer in another process that has published @bytes bytes, and our reader of it. */
static struct scache *join(struct child *producer, uint64_t bytes, struct task *task,
			   struct scache_reader **ret_reader)
{
	struct scache *cache;

	board_make();
	start_producer(producer, bytes);
	cache = scratch_open();
	task->seed = 1;
	task->bytes = BLOB_BYTES;
	must_be(task_fetch(cache, "k", NULL, task, ret_reader), 0);
	return cache;
}

/* ------------------------------------------------------------ before the first byte */

static void goes_on(uint64_t bytes)
{
	struct task task = { .ret = 0 };
	struct scache_reader *reader;
	struct child producer;
	struct scache *cache = join(&producer, bytes, &task, &reader);

	must_be(scratch_info(reader).bytes, bytes);
	kill_producer(&producer);
	/* Or the reader would take those bytes before anybody finds out. */
	if (bytes > 0)
		eventually(scratch_misses(cache, "k"));
	pattern_read_all(reader, 1, BLOB_BYTES);
	must_be(atomic_load(&board->begun), 1);
	must_be(scratch_info(reader).state, SCACHE_FINISHED);
	must_be(scratch_stat(cache).deaths, 1);
	must(!scratch_misses(cache, "k"));
	task_close(cache, reader);
}

START_TEST(a_reader_goes_on_if_its_producer_is_killed_before_its_first_byte)
{
	goes_on(0);
}
END_TEST

START_TEST(a_reader_goes_on_if_its_producer_is_killed_before_it_has_read_one)
{
	goes_on(1000);
}
END_TEST

START_TEST(whoever_waits_for_the_end_goes_on_as_well)
{
	struct scache_result result = { .size = sizeof(result) };
	struct task task = { .ret = 0 };
	struct scache_reader *reader;
	struct child producer;
	struct scache *cache = join(&producer, 1000, &task, &reader);

	must_be(scache_wait(reader, 0, &result), -EAGAIN);
	kill_producer(&producer);
	must_be(scache_wait(reader, SCACHE_FOREVER, &result), 0);
	must_be(result.code, 0);
	must_be(result.bytes, BLOB_BYTES);
	pattern_read_all(reader, 1, BLOB_BYTES);
	must_be(atomic_load(&board->begun), 1);
	task_close(cache, reader);
}
END_TEST

START_TEST(whoever_waits_at_an_offset_goes_on_as_well)
{
	struct task task = { .ret = 0 };
	struct scache_reader *reader;
	struct child producer;
	struct scache *cache = join(&producer, 1000, &task, &reader);
	char data[1000];
	ssize_t got;

	must_be(scache_pread(reader, data, sizeof(data), 500000, 0), -EAGAIN);
	kill_producer(&producer);
	got = scache_pread(reader, data, sizeof(data), 500000, SCACHE_FOREVER);
	must(got > 0);
	must(pattern_matches(1, 500000, data, (size_t)got));
	pattern_read_all(reader, 1, BLOB_BYTES);
	must_be(atomic_load(&board->begun), 1);
	task_close(cache, reader);
}
END_TEST

static void wait_for_all(void *arg)
{
	struct task task = { .seed = 1, .bytes = BLOB_BYTES };
	struct scache *cache = scratch_open();
	struct scache_reader *reader;

	(void)arg;
	child_say(task_fetch(cache, "k", NULL, &task, &reader));
	pattern_read_all(reader, 1, BLOB_BYTES);
	scache_reader_close(reader);
	scratch_close(cache);
}

START_TEST(of_several_waiting_processes_one_takes_over)
{
	struct child producer, readers[READERS];
	struct scache *cache;

	board_make();
	start_producer(&producer, 0);
	for (int i = 0; i < READERS; i++) {
		child_start(&readers[i], wait_for_all, NULL);
		must_be(child_hear(&readers[i]), 0);
	}
	cache = scratch_open();
	eventually(scratch_stat(cache).waits >= READERS);
	kill_producer(&producer);
	for (int i = 0; i < READERS; i++)
		child_join(&readers[i]);
	must_be(atomic_load(&board->begun), 1);
	must_be(scratch_stat(cache).productions, 2);
	must_be(scratch_stat(cache).finishes, 1);
	task_close(cache, NULL);
}
END_TEST

/* What its caller wanted was something new, not that it be made twice. */
START_TEST(a_reader_goes_on_with_what_another_has_finished)
{
	const struct scache_acquire_options refresh = { .size = sizeof(refresh),
							.flags = SCACHE_REFRESH };
	struct task task = { .seed = 1, .bytes = BLOB_BYTES };
	struct child producer, other;
	struct scache_reader *reader;
	struct scache *cache;

	board_make();
	start_producer(&producer, 0);
	cache = scratch_open();
	must_be(task_fetch(cache, "k", &refresh, &task, &reader), 0);
	kill_producer(&producer);
	child_start(&other, wait_for_all, NULL);
	must_be(child_hear(&other), 1);
	child_join(&other);
	pattern_read_all(reader, 1, BLOB_BYTES);
	must_be(atomic_load(&board->begun), 1);
	task_close(cache, reader);
}
END_TEST

START_TEST(a_reader_goes_on_in_private_if_the_cache_has_no_room)
{
	struct scache_writer *growing[FEW_ENTRIES - 1];
	struct task task = { .ret = 0 };
	struct scache_reader *reader;
	struct child producer;
	struct scache *cache;
	char key[16];

	scratch_options.entries = FEW_ENTRIES;
	cache = join(&producer, 0, &task, &reader);
	for (int i = 0; i < FEW_ENTRIES - 1; i++) {
		snprintf(key, sizeof(key), "growing %d", i);
		growing[i] = scratch_create(cache, key, 0, NULL);
	}
	kill_producer(&producer);
	pattern_read_all(reader, 1, BLOB_BYTES);
	must_be(atomic_load(&board->begun), 1);
	must_be(scratch_stat(cache).bypasses, 1);
	must(scratch_misses(cache, "k"));
	for (int i = 0; i < FEW_ENTRIES - 1; i++)
		scache_writer_close(growing[i]);
	task_close(cache, reader);
}
END_TEST

/* ------------------------------------------------------------- after the first byte */

START_TEST(a_reader_that_has_a_byte_gets_all_there_are_and_is_told)
{
	struct task task = { .ret = 0 };
	struct scache_reader *reader;
	struct child producer;
	struct scache *cache = join(&producer, 300000, &task, &reader);
	uint64_t position = 0;
	char byte;

	must_be(pattern_read(reader, 2, &position, 1, 1), 1);
	kill_producer(&producer);
	must_be(pattern_read(reader, 2, &position, UINT64_MAX, 65536), -EOWNERDEAD);
	must_be(position, 300000);
	must_be(scache_read(reader, &byte, 1, 0), -EOWNERDEAD);
	must_be(atomic_load(&board->begun), 0);
	must(scratch_misses(cache, "k"));
	task_close(cache, reader);
}
END_TEST

/* Another producer's bytes would not go with those. */
START_TEST(a_reader_that_has_looked_at_a_byte_ahead_is_told_as_well)
{
	struct task task = { .ret = 0 };
	struct scache_reader *reader;
	struct child producer;
	struct scache *cache = join(&producer, 1000, &task, &reader);
	uint64_t position = 0;
	char byte;

	must_be(scache_pread(reader, &byte, 1, 500, 0), 1);
	must(pattern_matches(2, 500, &byte, 1));
	kill_producer(&producer);
	eventually(scratch_misses(cache, "k"));
	must_be(scache_pread(reader, &byte, 1, 1000, SCACHE_FOREVER), -EOWNERDEAD);
	must_be(pattern_read(reader, 2, &position, UINT64_MAX, 65536), -EOWNERDEAD);
	must_be(position, 1000);
	must_be(atomic_load(&board->begun), 0);
	task_close(cache, reader);
}
END_TEST

static void wait_for_death(void *arg)
{
	struct task task = { .seed = 1, .bytes = BLOB_BYTES };
	struct scache *cache = scratch_open();
	struct scache_reader *reader;
	char byte;

	(void)arg;
	child_say(task_fetch(cache, "k", NULL, &task, &reader));
	child_say(scache_read(reader, &byte, 1, SCACHE_FOREVER));
	scache_reader_close(reader);
	scratch_close(cache);
}

/*
 * While the reader is stopped one producer is killed and the next begins: so
 * it is the next that the reader finds, and not itself elected.
 */
START_TEST(after_three_more_producers_a_reader_is_told_of_the_fourth_death)
{
	struct child producer, reader;
	struct scache *cache;

	board_make();
	start_producer(&producer, 0);
	child_start(&reader, wait_for_death, NULL);
	must_be(child_hear(&reader), 0);
	cache = scratch_open();
	for (int i = 1; i <= DEATHS; i++) {
		eventually(scratch_stat(cache).joins == (uint64_t)i);
		child_stop(&reader);
		kill_producer(&producer);
		if (i < DEATHS)
			start_producer(&producer, 0);
		must(kill(reader.pid, SIGCONT) == 0);
	}
	must_be(child_hear(&reader), -EOWNERDEAD);
	child_join(&reader);
	must_be(atomic_load(&board->begun), 0);
	must_be(scratch_stat(cache).deaths, DEATHS);
	must(scratch_misses(cache, "k"));
	task_close(cache, NULL);
}
END_TEST

int main(void)
{
	const TTest *const tests[] = {
		a_reader_goes_on_if_its_producer_is_killed_before_its_first_byte,
		a_reader_goes_on_if_its_producer_is_killed_before_it_has_read_one,
		whoever_waits_for_the_end_goes_on_as_well,
		whoever_waits_at_an_offset_goes_on_as_well,
		of_several_waiting_processes_one_takes_over,
		a_reader_goes_on_with_what_another_has_finished,
		a_reader_goes_on_in_private_if_the_cache_has_no_room,
		a_reader_that_has_a_byte_gets_all_there_are_and_is_told,
		a_reader_that_has_looked_at_a_byte_ahead_is_told_as_well,
		after_three_more_producers_a_reader_is_told_of_the_fourth_death,
	};

	return SCRATCH_RUN("fetch_death", tests);
}
