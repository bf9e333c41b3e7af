/* SPDX-License-Identifier: MIT */
/*
 * check_stopped - a process that is stopped is not dead, and holds up nobody.
 */
#include <errno.h>
#include <signal.h>
#include <stdio.h>

#include "../util/pattern.h"
#include "../util/scratch.h"
#include "../util/spawn.h"

#define ENTRIES 16
#define BLOB_BYTES 200000u

static char key[8];

/*
 * Attach, read some, look at the rest, and go on when told: right bytes, or -ESTALE
 * for good; what one was looking at stays in any case.
 */
static void read_in_two_parts(void *arg)
{
	struct scache *cache = scratch_open();
	struct scache_reader *reader = scratch_find(cache, key);
	uint64_t position = 0;
	const void *seen;
	ssize_t bytes;
	int ret;

	(void)arg;
	must_be(pattern_read(reader, 1, &position, 1000, 1000), 1);
	bytes = scache_peek(reader, &seen, SIZE_MAX, 0);
	must_be(bytes, BLOB_BYTES - 1000);
	child_say(0);
	child_listen();
	must(pattern_matches(1, 1000, seen, (size_t)bytes));
	ret = pattern_read(reader, 1, &position, UINT64_MAX, 4096);
	must(ret == 0 || ret == -ESTALE);
	must(ret == -ESTALE || position == BLOB_BYTES);
	must_be(scache_reader_close(reader), 0);
	child_say(ret);
	scratch_close(cache);
}

/* As many stopped readers of removed entries as there are entries. */
static void fill_with_stopped(struct scache *cache, struct child *children)
{
	for (int i = 0; i < ENTRIES; i++) {
		snprintf(key, sizeof(key), "k%d", i);
		pattern_produce(scratch_create(cache, key, 0, NULL), 1, BLOB_BYTES, 10000);
		child_start(&children[i], read_in_two_parts, NULL);
		child_hear(&children[i]);
		child_stop(&children[i]);
		must_be(scache_remove(cache, key, 2 + (i > 9)), 0);
	}
	must_be(scratch_stat(cache).entries_hidden, ENTRIES);
}

START_TEST(a_table_full_of_stopped_readers_has_room)
{
	struct child children[ENTRIES];
	struct scache *cache;
	int stale = 0;

	scratch_options.entries = ENTRIES;
	cache = scratch_open();
	fill_with_stopped(cache, children);
	for (int i = 0; i < 5; i++) {
		snprintf(key, sizeof(key), "new%d", i);
		pattern_produce(scratch_create(cache, key, 0, NULL), 2, BLOB_BYTES, 10000);
	}
	for (int i = 0; i < ENTRIES; i++) {
		must(kill(children[i].pid, SIGCONT) == 0);
		child_tell(&children[i], 0);
		stale += child_hear(&children[i]) == -ESTALE;
		child_join(&children[i]);
	}
	must_be(stale, 5);
	must_be(scratch_stat(cache).deaths, 0);
	for (int i = 0; i < 5; i++) {
		snprintf(key, sizeof(key), "new%d", i);
		must_be(scache_remove(cache, key, 4), 0);
	}
	scratch_is_clean(cache);
	scratch_close(cache);
}
END_TEST

/* The same, but they only do not read for long: nobody takes anything from them. */
START_TEST(a_slow_reader_is_not_a_stopped_one)
{
	struct child children[ENTRIES];
	struct scache_reader *reader;
	struct scache_writer *writer;
	struct scache *cache;

	scratch_options.entries = ENTRIES;
	cache = scratch_open();
	fill_with_stopped(cache, children);
	for (int i = 0; i < ENTRIES; i++)
		must(kill(children[i].pid, SIGCONT) == 0);
	for (int i = 0; i < ENTRIES; i++)
		eventually(scratch_stat(cache).peers == ENTRIES + 1);
	must_be(scache_acquire(cache, "new", 3, NULL, &reader, &writer), SCACHE_BYPASS);
	for (int i = 0; i < ENTRIES; i++) {
		child_tell(&children[i], 0);
		must_be(child_hear(&children[i]), 0);
		child_join(&children[i]);
	}
	scratch_is_clean(cache);
	scratch_close(cache);
}
END_TEST

/* --------------------------------------------------------- a stopped producer */

#define STALL_NS (200 * 1000000ull)

static uint64_t stop_after;

static void produce_slowly(void *arg)
{
	struct scache *cache = scratch_open();
	struct scache_writer *writer = scratch_create(cache, "k", 0, NULL);
	int error;

	(void)arg;
	must_be(pattern_write(writer, 1, 0, stop_after, 5000, &error), stop_after);
	child_say(0);
	child_listen();
	must_be(pattern_write(writer, 1, stop_after, BLOB_BYTES, 5000, &error),
		BLOB_BYTES - stop_after);
	must_be(scache_finish(writer), 0);
	scache_writer_close(writer);
	scratch_close(cache);
}

static int produce_alone(void *arg, struct scache_writer *writer)
{
	int error;

	++*(int *)arg;
	return pattern_write(writer, 2, 0, BLOB_BYTES, 5000, &error) == BLOB_BYTES ? 0 : error;
}

static struct scache_reader *fetch(struct scache *cache, int *calls)
{
	const struct scache_acquire_options options = { .size = sizeof(options),
							.stall_timeout_ns = STALL_NS };
	const struct scache_producer producer = { .size = sizeof(producer),
						  .create = produce_alone, .arg = calls };
	struct scache_reader *reader;

	must_be(scache_fetch(cache, "k", 1, &options, &producer, &reader, NULL), 0);
	return reader;
}

static void go_on(struct child *child)
{
	must(kill(child->pid, SIGCONT) == 0);
	child_tell(child, 0);
}

START_TEST(who_waits_for_a_stopped_producer_produces_alone)
{
	struct scache *cache = scratch_open();
	struct scache_reader *reader, *patient;
	struct child child;
	int calls = 0;

	stop_after = 0;
	child_start(&child, produce_slowly, NULL);
	child_hear(&child);
	child_stop(&child);
	reader = fetch(cache, &calls);
	patient = scratch_find(cache, "k");
	must_be(calls, 0);
	pattern_read_all(reader, 2, BLOB_BYTES);
	must_be(calls, 1);
	scache_reader_close(reader);
	/* It was not dead, and nobody has taken it for that. */
	go_on(&child);
	pattern_read_all(patient, 1, BLOB_BYTES);
	child_join(&child);
	must_be(scratch_stat(cache).deaths, 0);
	scache_reader_close(patient);
	reader = scratch_find(cache, "k");
	pattern_read_all(reader, 1, BLOB_BYTES);
	scache_reader_close(reader);
	must_be(scache_remove(cache, "k", 1), 0);
	scratch_is_clean(cache);
	scratch_close(cache);
}
END_TEST

START_TEST(who_has_begun_is_told_and_may_go_on)
{
	struct scache *cache = scratch_open();
	struct scache_reader *reader;
	uint64_t position = 0;
	struct child child;
	int calls = 0;

	stop_after = 50000;
	child_start(&child, produce_slowly, NULL);
	child_hear(&child);
	child_stop(&child);
	reader = fetch(cache, &calls);
	must_be(pattern_read(reader, 1, &position, UINT64_MAX, 4096), -ETIME);
	must_be(position, 50000);
	must_be(pattern_read(reader, 1, &position, UINT64_MAX, 4096), -ETIME);
	go_on(&child);
	while (pattern_read(reader, 1, &position, UINT64_MAX, 4096) == -ETIME)
		;
	must_be(position, BLOB_BYTES);
	must_be(calls, 0);
	child_join(&child);
	scache_reader_close(reader);
	must_be(scache_remove(cache, "k", 1), 0);
	scratch_is_clean(cache);
	scratch_close(cache);
}
END_TEST

int main(void)
{
	const TTest *const tests[] = {
		a_table_full_of_stopped_readers_has_room,
		a_slow_reader_is_not_a_stopped_one,
		who_waits_for_a_stopped_producer_produces_alone,
		who_has_begun_is_told_and_may_go_on,
	};

	return SCRATCH_RUN("stopped", tests);
}
