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

/* Attach, read some, and go on when told: right bytes, or -ESTALE for good. */
static void read_in_two_parts(void *arg)
{
	struct scache *cache = scratch_open();
	struct scache_reader *reader = scratch_find(cache, key);
	uint64_t position = 0;
	int ret;

	(void)arg;
	must_be(pattern_read(reader, 1, &position, 1000, 1000), 1);
	child_say(0);
	child_listen();
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

int main(void)
{
	const TTest *const tests[] = {
		a_table_full_of_stopped_readers_has_room,
		a_slow_reader_is_not_a_stopped_one,
	};

	return SCRATCH_RUN("stopped", tests);
}
