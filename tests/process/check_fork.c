/* SPDX-License-Identifier: MIT */
/*
 * check_fork - a cache handle serves a child of fork() as it does its parent;
 * streams are the parent's, and do no harm in the child.
 */
#include <check.h>
#include <errno.h>
#include <unistd.h>

#include "../util/pattern.h"
#include "../util/scratch.h"
#include "../util/spawn.h"

struct inheritance {
	struct scache *cache;
	struct scache_reader *reader;
	struct scache_writer *writer;
};

static int count_entry(void *arg, const struct scache_entry_info *info)
{
	(void)info;
	++*(int *)arg;
	return 0;
}

/* The handle serves the child as it serves its parent; each has a seat of its own. */
static void use_inherited_cache(struct scache *cache)
{
	struct scache_options options = { .size = sizeof(options) };
	struct scache_writer *writer;
	struct scache_reader *reader;
	int entries = 0;

	must_be(scache_get_options(cache, &options), 0);
	must_be(scratch_stat(cache).peers, 2);
	must_be(scache_each(cache, count_entry, &entries), 0);
	must_be(entries, 1);
	must_be(scache_check(cache, NULL, NULL), 0);
	must_be(scache_sweep(cache, NULL, NULL), 0);
	must_be(scache_remove(cache, "none", 4), -ENOENT);
	writer = scratch_create(cache, "childs", 0, &reader);
	pattern_produce(writer, 2, 70000, 1000);
	pattern_read_all(reader, 2, 70000);
	scache_reader_close(reader);
}

static void use_inherited_streams(struct scache_reader *reader, struct scache_writer *writer)
{
	struct scache_entry_info info = { .size = sizeof(info) };
	struct scache_result result = { .size = sizeof(result) };
	uint64_t bytes;
	char data[10];

	if (writer != NULL) {
		must_be(scache_write(writer, "x", 1, 0), -ECHILD);
		must_be(scache_writer_check(writer), -ECHILD);
		must_be(scache_finish(writer), -ECHILD);
		must_be(scache_abort(writer, 1, NULL, 0), -ECHILD);
	}
	must_be(scache_read(reader, data, sizeof(data), 0), -ECHILD);
	must_be(scache_size(reader, &bytes), -ECHILD);
	must_be(scache_wait(reader, 0, &result), -ECHILD);
	must_be(scache_message(reader, data, sizeof(data)), -ECHILD);
	must_be(scache_reader_info(reader, &info), -ECHILD);
}

static void inherit(void *arg)
{
	struct inheritance *all = arg;
	struct scache_reader *reader;

	use_inherited_streams(all->reader, all->writer);
	use_inherited_cache(all->cache);
	use_inherited_streams(all->reader, all->writer);
	reader = scratch_find(all->cache, "k");
	child_say(0);
	pattern_read_all(reader, 1, 50000);
	must_be(scache_close(all->cache), -EBUSY);
	scache_reader_close(reader);
	must_be(scache_writer_close(all->writer), 0);
	/* What is inherited and not closed keeps nobody from closing, nor does it suffer. */
	must_be(scache_close(all->cache), 0);
	use_inherited_streams(all->reader, NULL);
	must_be(scache_reader_close(all->reader), 0);
}

START_TEST(a_fork_child_goes_on_with_its_parents_handle)
{
	struct inheritance all = { .cache = scratch_open() };
	struct child child;

	all.writer = scratch_create(all.cache, "k", 0, &all.reader);
	child_start(&child, inherit, &all);
	child_hear(&child);
	/* Nothing the child did was felt here. */
	pattern_produce(all.writer, 1, 50000, 1000);
	pattern_read_all(all.reader, 1, 50000);
	child_join(&child);
	scache_reader_close(all.reader);
	must_be(scratch_stat(all.cache).peers, 1);
	scratch_is_clean(all.cache);
	scratch_close(all.cache);
}
END_TEST

static int produce_one(void *arg, struct scache_writer *writer)
{
	(void)arg;
	return scache_write(writer, "x", 1, SCACHE_FOREVER) == 1 ? 0 : -EIO;
}

static struct scache_reader *fetch_one(struct scache *cache, const char *key)
{
	struct scache_producer producer = { .size = sizeof(producer), .create = produce_one };
	struct scache_reader *reader;

	must_be(scache_fetch(cache, key, 1, NULL, &producer, &reader, NULL), 0);
	return reader;
}

/* There is no seat for it: what it fetches is its own all the same, and nothing else. */
static void fetch_without_a_seat(void *arg)
{
	struct scache *cache = arg;
	struct scache_reader *reader = fetch_one(cache, "b");
	char byte;

	must_be(scache_read(reader, &byte, 1, SCACHE_FOREVER), 1);
	must_be(scache_close_within(cache, 0), -EBUSY);
	must_be(scache_close_within(cache, 0), -EBUSY);
	must_be(scache_read(reader, &byte, 1, SCACHE_FOREVER), 0);
	scache_reader_close(reader);
	must_be(scache_close(cache), 0);
}

static void take_a_seat(void *arg)
{
	struct scache *cache = scratch_open();

	(void)arg;
	child_say(0);
	child_listen();
	scratch_close(cache);
}

START_TEST(a_fork_child_without_a_seat_has_streams_of_its_own)
{
	struct scache_reader *reader;
	struct child other, child;
	struct scache *cache;
	char byte;

	scratch_options.peers = 2;
	cache = scratch_open();
	child_start(&other, take_a_seat, NULL);
	child_hear(&other);
	/* Its job has ended and is joined by nobody yet. */
	reader = fetch_one(cache, "a");
	must_be(scache_read(reader, &byte, 1, SCACHE_FOREVER), 1);
	must_be(scache_read(reader, &byte, 1, SCACHE_FOREVER), 0);
	usleep(50000);
	child_start(&child, fetch_without_a_seat, cache);
	child_join(&child);
	scache_reader_close(reader);
	child_tell(&other, 0);
	child_join(&other);
	scratch_close(cache);
}
END_TEST

/* The parent's lock file was the next number but one; now one below it is free. */
static void close_late(void *arg)
{
	struct scache *inherited = arg, *cache = scratch_open();
	struct scache_writer *writer;

	must_be(scache_close(inherited), 0);
	writer = scratch_create(cache, "k", 0, NULL);
	child_say(0);
	child_listen();
	pattern_produce(writer, 1, 1000, 1000);
	scratch_close(cache);
}

START_TEST(closing_an_inherited_handle_late_hurts_no_new_one)
{
	struct scache_writer *writer;
	struct scache_reader *reader;
	int numbers[2] = { dup(0), dup(0) };
	struct scache *cache = scratch_open();
	struct child child;

	/* So that what the child opens gets the numbers of what it has inherited. */
	close(numbers[0]);
	close(numbers[1]);
	child_start(&child, close_late, cache);
	child_hear(&child);
	/* The child is seen to live. */
	must_be(scache_acquire(cache, "k", 1, NULL, &reader, &writer), 0);
	must(writer == NULL);
	child_tell(&child, 0);
	pattern_read_all(reader, 1, 1000);
	child_join(&child);
	scache_reader_close(reader);
	must_be(scratch_stat(cache).deaths, 0);
	scratch_close(cache);
}
END_TEST

int main(void)
{
	const TTest *const tests[] = {
		a_fork_child_goes_on_with_its_parents_handle,
		a_fork_child_without_a_seat_has_streams_of_its_own,
		closing_an_inherited_handle_late_hurts_no_new_one,
	};

	return SCRATCH_RUN("fork", tests);
}
