/* SPDX-License-Identifier: MIT */
/*
 * check_stream - one production, many readers: every one of them gets every
 * byte, whenever it comes and however slow it is.
 */
#include <check.h>
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>

#include "../util/pattern.h"
#include "../util/scratch.h"
#include "../util/spawn.h"

#define READERS 16
#define RACERS 32
#define KEYS 40

/* ------------------------------------------------------------ as a user would */

struct production {
	struct scache_writer *writer;
	uint64_t seed, bytes;
};

static void *produce_in_thread(void *arg)
{
	const struct production *p = arg;

	pattern_produce(p->writer, p->seed, p->bytes, 30011);
	return NULL;
}

/* Acquire, produce in a thread if elected, and read all of it. 1 if elected. */
static int share(struct scache *cache, const char *key, uint64_t seed, uint64_t bytes)
{
	struct production p = { .seed = seed, .bytes = bytes };
	struct scache_reader *reader;
	pthread_t thread;

	must_be(scache_acquire(cache, key, strlen(key), NULL, &reader, &p.writer), 0);
	if (p.writer != NULL)
		must(pthread_create(&thread, NULL, produce_in_thread, &p) == 0);
	pattern_read_all(reader, seed, bytes);
	scache_reader_close(reader);
	if (p.writer != NULL)
		pthread_join(thread, NULL);
	return p.writer != NULL;
}

static void share_one(void *arg)
{
	struct scache *cache = scratch_open();

	child_say(0);
	child_listen();
	child_say(share(cache, "k", 1, *(uint64_t *)arg));
	scratch_close(cache);
}

/* @count processes at once; exactly one is elected. */
static void race(int count, uint64_t bytes)
{
	struct child children[RACERS];
	struct scache_stats stats;
	struct scache *cache;
	int64_t elected = 0;

	for (int i = 0; i < count; i++)
		child_start(&children[i], share_one, &bytes);
	for (int i = 0; i < count; i++)
		child_hear(&children[i]);
	for (int i = 0; i < count; i++)
		child_tell(&children[i], 0);
	for (int i = 0; i < count; i++) {
		elected += child_hear(&children[i]);
		child_join(&children[i]);
	}
	must_be(elected, 1);
	cache = scratch_open();
	stats = scratch_stat(cache);
	must_be(stats.productions, 1);
	must_be(stats.finishes, 1);
	must_be(stats.misses, 1);
	must_be(stats.hits + stats.joins, count - 1);
	must_be(stats.bytes_produced, bytes);
	must_be(stats.bytes_from_ring + stats.bytes_from_file, (uint64_t)count * bytes);
	scratch_is_clean(cache);
	scratch_close(cache);
}

START_TEST(what_is_written_once_is_read_by_many)
{
	scratch_options.window_bytes = 128 << 10;
	race(READERS, 3000000);
}
END_TEST

START_TEST(many_creates_of_one_key_elect_one_writer)
{
	race(RACERS, 1000);
}
END_TEST

static void share_many(void *arg)
{
	int first = *(int *)arg;
	struct scache *cache = scratch_open();
	int64_t elected = 0;
	char key[16];

	child_say(0);
	child_listen();
	for (int i = 0; i < KEYS; i++) {
		int number = (first * 7 + i) % KEYS;

		snprintf(key, sizeof(key), "key %d", number);
		elected += share(cache, key, (uint64_t)number, 20000 + 977 * (uint64_t)number);
	}
	child_say(elected);
	scratch_close(cache);
}

START_TEST(many_creates_of_many_keys_elect_one_writer_each)
{
	struct child children[READERS];
	struct scache *cache = scratch_open();
	int64_t elected = 0;

	for (int i = 0; i < READERS; i++) {
		child_start(&children[i], share_many, &i);
		child_hear(&children[i]);
	}
	for (int i = 0; i < READERS; i++)
		child_tell(&children[i], 0);
	for (int i = 0; i < READERS; i++) {
		elected += child_hear(&children[i]);
		child_join(&children[i]);
	}
	must_be(elected, KEYS);
	must_be(scratch_stat(cache).productions, KEYS);
	scratch_is_clean(cache);
	must_be(scratch_stat(cache).entries_finished, KEYS);
	scratch_close(cache);
}
END_TEST

/* --------------------------------------------------------------------- one pace */

struct plan {
	uint64_t window_bytes, bytes, pause_at; /* await a word at that many bytes */
	size_t write_bytes, read_bytes;
};

static void write_as_planned(void *arg)
{
	const struct plan *plan = arg;
	struct scache_writer *writer = scratch_create(scratch_open(), "k", plan->window_bytes, NULL);
	int error = 0;

	child_say(0);
	must_be(pattern_write(writer, 1, 0, plan->pause_at, plan->write_bytes, &error),
		plan->pause_at);
	child_say(0);
	child_listen();
	must_be(pattern_write(writer, 1, plan->pause_at, plan->bytes, plan->write_bytes, &error),
		plan->bytes - plan->pause_at);
	child_say(0);
	must_be(scache_finish(writer), 0);
	scache_writer_close(writer);
}

static void read_as_planned(void *arg)
{
	const struct plan *plan = arg;
	struct scache *cache = scratch_open();
	struct scache_reader *reader = scratch_find(cache, "k");
	uint64_t position = 0;

	child_say(scratch_info(reader).state);
	must_be(pattern_read(reader, 1, &position, plan->bytes / 4 * 3, plan->read_bytes), 1);
	child_say((int64_t)scratch_info(reader).bytes);
	must_be(pattern_read(reader, 1, &position, UINT64_MAX, plan->read_bytes), 0);
	must_be(position, plan->bytes);
	scache_reader_close(reader);
	scratch_close(cache);
}

START_TEST(a_reader_that_joins_at_half_gets_byte_0_to_the_end_live)
{
	struct plan plan = { 0, 4000000, 2000000, 50000, 65536 };
	struct child writer, reader;
	struct scache *cache = scratch_open();

	child_start(&writer, write_as_planned, &plan);
	child_hear(&writer);
	child_hear(&writer);
	child_start(&reader, read_as_planned, &plan);
	must_be(child_hear(&reader), SCACHE_FILLING);
	child_tell(&writer, 0);
	child_hear(&reader);
	child_hear(&writer);
	child_join(&writer);
	child_join(&reader);
	must_be(scratch_stat(cache).joins, 1);
	must_be(scratch_stat(cache).hits, 0);
	scratch_is_clean(cache);
	scratch_close(cache);
}
END_TEST

/* A reader that is there from the start, and a writer that it paces. */
static struct scache_stats run_live(struct plan *plan)
{
	struct scache *cache = scratch_open();
	struct scache_stats stats;
	struct child writer, reader;

	child_start(&writer, write_as_planned, plan);
	child_hear(&writer);
	child_hear(&writer);
	child_start(&reader, read_as_planned, plan);
	child_hear(&reader);
	child_tell(&writer, 0);
	child_join(&reader);
	child_join(&writer);
	stats = scratch_stat(cache);
	must_be(stats.bytes_from_ring + stats.bytes_from_file, plan->bytes);
	scratch_is_clean(cache);
	scratch_close(cache);
	return stats;
}

START_TEST(a_live_run_is_served_from_the_ring)
{
	struct plan plan = { SCRATCH_RING_BYTES, 64000000, 0, 32768, 65536 };
	struct scache_stats stats = run_live(&plan);

	ck_assert_uint_ge(stats.bytes_from_ring, plan.bytes / 100 * 99);
}
END_TEST

/* In a cache with the options that a user gets who asks for nothing. */
static struct scache_stats run_default(struct plan plan)
{
	struct scache_stats stats;

	scratch_options.rings = 1;
	scratch_options.ring_bytes = 0;
	scratch_options.window_bytes = 0;
	stats = run_live(&plan);
	must_be(stats.ring_bytes, 2 << 20);
	return stats;
}

START_TEST(a_live_run_with_the_default_ring_is_served_from_it)
{
	/* What is in the ring at the end is read from the file: less than 1 % of this. */
	struct scache_stats stats = run_default((struct plan){ 0, 300000000, 0, 60000, 131072 });

	ck_assert_uint_ge(stats.bytes_from_ring, 297000000);
}
END_TEST

/* Of large writes only those that somebody slept for are in it. */
START_TEST(large_writes_pass_the_ring)
{
	struct scache_stats stats = run_default((struct plan){ 0, 300000000, 0, 100000, 131072 });

	ck_assert_uint_ge(stats.bytes_from_file, 30000000);
}
END_TEST

START_TEST(a_reader_slower_than_the_ring_falls_back_to_the_file)
{
	struct plan plan = { 0, 4000000, 1000, 50000, 65536 };
	struct child writer;
	struct scache *cache = scratch_open();
	struct scache_reader *reader;
	struct scache_stats stats;
	uint64_t position = 0;

	child_start(&writer, write_as_planned, &plan);
	child_hear(&writer);
	reader = scratch_find(cache, "k");
	child_hear(&writer);
	must_be(pattern_read(reader, 1, &position, 1000, 1000), 1);
	child_tell(&writer, 0);
	child_hear(&writer);
	must_be(pattern_read(reader, 1, &position, UINT64_MAX, 10000), 0);
	must_be(position, plan.bytes);
	child_join(&writer);
	scache_reader_close(reader);
	stats = scratch_stat(cache);
	must(stats.bytes_from_ring >= 1000);
	must(stats.bytes_from_file >= plan.bytes - 2 * SCRATCH_RING_BYTES);
	must_be(stats.bytes_from_ring + stats.bytes_from_file, plan.bytes);
	scratch_is_clean(cache);
	scratch_close(cache);
}
END_TEST

/* ------------------------------------------------------------------------ shapes */

START_TEST(reads_and_writes_of_odd_sizes_meet)
{
	static const size_t sizes[] = { 1, 7, 4095, 65537, 250001 };
	struct plan plan = { 50000, 0, 0, 0, 0 };

	for (unsigned i = 0; i < 25; i++) {
		struct scache *cache;

		plan.write_bytes = sizes[i % 5];
		plan.read_bytes = sizes[i / 5];
		plan.bytes = plan.write_bytes * plan.read_bytes < 100 ? 20011 : 700001;
		run_live(&plan);
		cache = scratch_open();
		must_be(scache_remove(cache, "k", 1), 0);
		scratch_close(cache);
		must_be(scache_destroy(scratch_dir, NULL), 0);
	}
}
END_TEST

/* Twice: while it is produced, and when it is finished. */
static void check_blob_of(uint64_t bytes)
{
	struct plan plan = { 0, bytes, 0, 10000, 10000 };
	struct scache *cache = scratch_open();
	struct scache_reader *reader;
	struct child writer;
	uint64_t size;

	child_start(&writer, write_as_planned, &plan);
	child_hear(&writer);
	reader = scratch_find(cache, "k");
	child_hear(&writer);
	child_tell(&writer, 0);
	pattern_read_all(reader, 1, bytes);
	child_join(&writer);
	scache_reader_close(reader);
	reader = scratch_find(cache, "k");
	must_be(scache_size(reader, &size), 1);
	must_be(size, bytes);
	pattern_read_all(reader, 1, bytes);
	scache_reader_close(reader);
	scratch_is_clean(cache);
	must_be(scratch_stat(cache).entries_finished, 1);
	must_be(scache_remove(cache, "k", 1), 0);
	scratch_close(cache);
}

START_TEST(a_blob_may_be_empty)
{
	check_blob_of(0);
}
END_TEST

START_TEST(a_blob_may_be_as_large_as_the_ring)
{
	check_blob_of(SCRATCH_RING_BYTES - 1);
	check_blob_of(SCRATCH_RING_BYTES);
	check_blob_of(SCRATCH_RING_BYTES + 1);
	check_blob_of(2 * SCRATCH_RING_BYTES);
}
END_TEST

START_TEST(a_production_without_a_ring_goes_through_the_file)
{
	struct plan plan = { 60000, 1500000, 0, 20000, 65536 };
	struct scache *cache;
	struct scache_reader *in_ring, *in_file;
	struct scache_writer *holder;
	struct child writer, reader;

	scratch_options.rings = 1;
	cache = scratch_open();
	holder = scratch_create(cache, "has the ring", 0, &in_ring);
	must(scratch_info(in_ring).flags & SCACHE_HAS_RING);
	must_be(scache_write(holder, "abc", 3, 0), 3);
	child_start(&writer, write_as_planned, &plan);
	child_hear(&writer);
	child_hear(&writer);
	in_file = scratch_find(cache, "k");
	must(!(scratch_info(in_file).flags & SCACHE_HAS_RING));
	child_start(&reader, read_as_planned, &plan);
	child_hear(&reader);
	child_tell(&writer, 0);
	pattern_read_all(in_file, 1, plan.bytes);
	child_join(&reader);
	child_join(&writer);
	must_be(scratch_stat(cache).bytes_from_ring, 0);
	scache_reader_close(in_file);
	must_be(scache_finish(holder), 0);
	scache_writer_close(holder);
	scache_reader_close(in_ring);
	scratch_is_clean(cache);
	must_be(scratch_stat(cache).entries_finished, 2);
	scratch_close(cache);
}
END_TEST

int main(void)
{
	const TTest *const tests[] = {
		what_is_written_once_is_read_by_many,
		many_creates_of_one_key_elect_one_writer,
		many_creates_of_many_keys_elect_one_writer_each,
		a_reader_that_joins_at_half_gets_byte_0_to_the_end_live,
		a_live_run_is_served_from_the_ring,
		a_live_run_with_the_default_ring_is_served_from_it,
		large_writes_pass_the_ring,
		a_reader_slower_than_the_ring_falls_back_to_the_file,
		reads_and_writes_of_odd_sizes_meet,
		a_blob_may_be_empty,
		a_blob_may_be_as_large_as_the_ring,
		a_production_without_a_ring_goes_through_the_file,
	};

	return SCRATCH_RUN("stream", tests);
}
