/* SPDX-License-Identifier: MIT */
/*
 * check_waiters - T4, T9: a wake-up is lost, or a sleeper is.
 */
#include <check.h>
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/step.h"

#include "../util/pattern.h"
#include "../util/scratch.h"
#include "../util/spawn.h"

#define PROCESSES 10
#define THREADS 100
#define FIRST_BYTES 1000
#define LAST_BYTES 700

/* ------------------------------------------------------------------------- T4 */

static void die_before_the_wake(const char *label)
{
	if (strcmp(label, "bytes-published") == 0)
		kill(getpid(), SIGKILL);
}

static void write_and_die(void *arg)
{
	struct scache_writer *writer = scratch_create(scratch_open(), "k", 0, NULL);

	(void)arg;
	must_be(pattern_write(writer, 1, 0, FIRST_BYTES, FIRST_BYTES, NULL), FIRST_BYTES);
	child_say(0);
	child_listen();
	step_set_hook(die_before_the_wake);
	pattern_write(writer, 1, FIRST_BYTES, FIRST_BYTES + LAST_BYTES, LAST_BYTES, NULL);
	spawn_fail(__FILE__, __LINE__, "still alive");
}

struct waiter {
	pthread_t thread;
	struct scache_reader *reader;
	int error;
	uint64_t position;
	int64_t woken_ms;
};

static void *await_the_rest(void *arg)
{
	struct waiter *waiter = arg;
	uint64_t all = FIRST_BYTES + LAST_BYTES;

	must_be(pattern_read(waiter->reader, 1, &waiter->position, all, 4096), 1);
	waiter->woken_ms = now_ms();
	waiter->error = pattern_read(waiter->reader, 1, &waiter->position, UINT64_MAX, 4096);
	return NULL;
}

static void wait_in_threads(void *arg)
{
	static struct waiter waiters[THREADS];
	struct scache *cache = scratch_open();
	int64_t last_ms = 0;

	(void)arg;
	for (int i = 0; i < THREADS; i++) {
		waiters[i].reader = scratch_find(cache, "k");
		must_be(pattern_read(waiters[i].reader, 1, &waiters[i].position, FIRST_BYTES, 999),
			1);
	}
	for (int i = 0; i < THREADS; i++)
		must(pthread_create(&waiters[i].thread, NULL, await_the_rest, &waiters[i]) == 0);
	/* Each counts before it sleeps. */
	eventually(scratch_stat(cache).waits >= THREADS);
	child_say(0);
	for (int i = 0; i < THREADS; i++) {
		pthread_join(waiters[i].thread, NULL);
		/* All that was published, and then the death. */
		must_be(waiters[i].position, FIRST_BYTES + LAST_BYTES);
		must_be(waiters[i].error, -EOWNERDEAD);
		if (waiters[i].woken_ms > last_ms)
			last_ms = waiters[i].woken_ms;
		scache_reader_close(waiters[i].reader);
	}
	child_say(last_ms);
	scratch_close(cache);
}

START_TEST(t04_a_wake_up_lost_to_a_kill_is_found_at_a_tick)
{
	struct child writer, waiters[PROCESSES];
	struct scache *cache;
	int64_t killed_ms, last_ms = 0;

	scratch_options.readers = PROCESSES * THREADS * 2;
	cache = scratch_open();
	child_start(&writer, write_and_die, NULL);
	child_hear(&writer);
	for (int i = 0; i < PROCESSES; i++)
		child_start(&waiters[i], wait_in_threads, NULL);
	for (int i = 0; i < PROCESSES; i++)
		child_hear(&waiters[i]);
	eventually(scratch_stat(cache).waits >= PROCESSES * THREADS);
	child_tell(&writer, 0);
	must_be(child_end(&writer), -SIGKILL);
	killed_ms = now_ms();
	for (int i = 0; i < PROCESSES; i++) {
		int64_t woken_ms = child_hear(&waiters[i]);

		last_ms = woken_ms > last_ms ? woken_ms : last_ms;
		child_join(&waiters[i]);
	}
	/* A tick is 40 ms; how busy the machine is, nobody knows. */
	printf("T4: the last of %d woke %d ms after the kill\n", PROCESSES * THREADS,
	       (int)(last_ms - killed_ms));
	must(last_ms - killed_ms < 10000);
	must(scratch_misses(cache, "k"));
	scratch_is_clean(cache);
	must_be(scratch_stat(cache).deaths, 1);
	scratch_close(cache);
}
END_TEST

/* ------------------------------------------------------------------------- T9 */

static void sleep_in_a_read(void *arg)
{
	struct scache *cache = arg;
	struct scache_reader *reader = scratch_find(cache, "k");
	uint64_t position = 0;

	pattern_read(reader, 1, &position, UINT64_MAX, 4096);
}

static uint64_t published;

/* Publish a byte; the system calls made to wake somebody. */
static uint64_t wakes_of_one_byte(struct scache *cache, struct scache_writer *writer)
{
	uint64_t before = scratch_stat(cache).wakes;

	must_be(pattern_write(writer, 1, published, published + 1, 1, NULL), 1);
	published++;
	return scratch_stat(cache).wakes - before;
}

START_TEST(t09_killed_sleepers_leave_no_wakes_behind)
{
	const struct scache_acquire_options options = { .size = sizeof(options),
							.flags = SCACHE_RUN_TO_END };
	int kills = scratch_is_long() ? 100000 : 300;
	struct scache *cache = scratch_open();
	struct scache_writer *writer;
	struct child child;

	must_be(scache_acquire(cache, "k", 1, &options, NULL, &writer), 0);
	for (int i = 0; i < kills; i++) {
		uint64_t waits = scratch_stat(cache).waits;

		child_start(&child, sleep_in_a_read, cache);
		eventually(scratch_stat(cache).waits > waits);
		child_kill(&child);
		/* It left the bit, so one wake for nothing; and that is all. */
		must(wakes_of_one_byte(cache, writer) <= 1);
		must_be(wakes_of_one_byte(cache, writer), 0);
		/* Those dead this long have been reaped by newcomers. */
		must(scratch_stat(cache).peers <= 10);
	}
	must_be(scache_sweep(cache, NULL, NULL), 0);
	must_be(wakes_of_one_byte(cache, writer), 0);
	must_be(scratch_stat(cache).readers, 0);
	must_be(scratch_stat(cache).deaths, kills);
	must_be(scache_finish(writer), 0);
	scache_writer_close(writer);
	scratch_is_clean(cache);
	scratch_close(cache);
}
END_TEST

int main(void)
{
	const TTest *const tests[] = {
		t04_a_wake_up_lost_to_a_kill_is_found_at_a_tick,
		t09_killed_sleepers_leave_no_wakes_behind,
	};

	return SCRATCH_RUN("waiters", tests);
}
