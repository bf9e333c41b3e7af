/* SPDX-License-Identifier: MIT */
/*
 * check_death - processes that are killed, stopped, or leave without a word.
 */
#include <check.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "../util/pattern.h"
#include "../util/scratch.h"
#include "../util/spawn.h"

#define READERS 4
#define KILLS 50
#define OPEN_KILLS 100
#define USE_KILLS 150
#define FEW_TICKS_MS 1500 /* a tick is 40; the machine may be busy */

struct scene {
	const char *key;
	uint64_t bytes;
};

/* Write that much in small pieces, say so, and stay silent. */
static void stall_after(void *arg)
{
	const struct scene *scene = arg;
	struct scache_writer *writer = scratch_create(scratch_open(), scene->key, 0, NULL);
	int error = 0;

	must_be(pattern_write(writer, 1, 0, scene->bytes, 10007, &error), scene->bytes);
	child_say((int64_t)scene->bytes);
	child_stay();
}

/* Write for ever; the reader that is told of makes it last. */
static void never_stop(void *arg)
{
	const struct scene *scene = arg;
	struct scache_writer *writer = scratch_create(scratch_open(), scene->key, 128 << 10, NULL);

	child_say(0);
	pattern_write(writer, 1, 0, UINT64_MAX, 777, NULL);
}

/* Read all there is; report the bytes, how it ended, and whether it was said again. */
static void read_to_the_end(void *arg)
{
	const struct scene *scene = arg;
	struct scache *cache = scratch_open();
	struct scache_reader *reader = scratch_find(cache, scene->key);
	uint64_t position = 0;
	char byte;

	if (scene->bytes > 0)
		must_be(pattern_read(reader, 1, &position, scene->bytes, 4096), 1);
	child_say((int64_t)position);
	child_say(pattern_read(reader, 1, &position, UINT64_MAX, 4096));
	child_say((int64_t)position);
	must_be(scache_read(reader, &byte, 1, 0), -EOWNERDEAD);
	scache_reader_close(reader);
	scratch_close(cache);
}

/* Kill the writer of @scene under its readers. */
static void kill_under_readers(const struct scene *scene, void (*produce)(void *arg))
{
	struct child writer, readers[READERS];
	struct scene own = *scene;
	struct scache *cache;
	int64_t killed_ms, total = -1;

	child_start(&writer, produce, &own);
	child_hear(&writer);
	for (int i = 0; i < READERS; i++) {
		child_start(&readers[i], read_to_the_end, &own);
		must_be(child_hear(&readers[i]), own.bytes);
	}
	child_kill(&writer);
	killed_ms = now_ms();
	for (int i = 0; i < READERS; i++) {
		int64_t bytes;

		must_be(child_hear(&readers[i]), -EOWNERDEAD);
		must(now_ms() - killed_ms < FEW_TICKS_MS);
		bytes = child_hear(&readers[i]);
		must(bytes >= (int64_t)own.bytes);
		must(total < 0 || bytes == total);
		total = bytes;
		child_join(&readers[i]);
	}
	cache = scratch_open();
	must(scratch_misses(cache, own.key));
	scratch_is_clean(cache);
	must_be(scratch_stat(cache).deaths, 1);
	scratch_close(cache);
}

START_TEST(readers_of_a_writer_killed_with_all_in_the_ring_get_every_byte)
{
	kill_under_readers(&(struct scene){ "k", 100000 }, stall_after);
}
END_TEST

START_TEST(readers_of_a_writer_killed_far_beyond_the_ring_get_every_byte)
{
	kill_under_readers(&(struct scene){ "k", 3000000 }, stall_after);
}
END_TEST

START_TEST(readers_of_a_writer_killed_before_its_first_byte_learn_of_it)
{
	kill_under_readers(&(struct scene){ "k", 0 }, stall_after);
}
END_TEST

START_TEST(readers_of_a_writer_killed_while_it_writes_get_every_published_byte)
{
	kill_under_readers(&(struct scene){ "k", 500000 }, never_stop);
}
END_TEST

static void exit_without_a_word(void *arg)
{
	struct scache_writer *writer = scratch_create(scratch_open(), "k", 0, NULL);

	(void)arg;
	pattern_write(writer, 1, 0, 5000, 5000, NULL);
	child_say(0);
	child_listen();
	_exit(0);
}

START_TEST(exit_without_close_is_like_death)
{
	struct scache *cache = scratch_open();
	struct scache_reader *reader;
	struct child writer;
	uint64_t position = 0;

	child_start(&writer, exit_without_a_word, NULL);
	child_hear(&writer);
	reader = scratch_find(cache, "k");
	child_tell(&writer, 0);
	must_be(pattern_read(reader, 1, &position, UINT64_MAX, 4096), -EOWNERDEAD);
	must_be(position, 5000);
	child_join(&writer);
	scache_reader_close(reader);
	scratch_is_clean(cache);
	scratch_close(cache);
}
END_TEST

START_TEST(the_key_of_a_killed_writer_elects_a_new_one)
{
	struct scache *cache = scratch_open();
	struct scene scene = { "k", 100000 };
	struct scache_reader *reader;
	struct child writer;

	child_start(&writer, stall_after, &scene);
	child_hear(&writer);
	child_kill(&writer);
	pattern_produce(scratch_take(cache, "k"), 2, 70000, 9000);
	reader = scratch_find(cache, "k");
	pattern_read_all(reader, 2, 70000);
	scache_reader_close(reader);
	scratch_is_clean(cache);
	must_be(scratch_stat(cache).entries_finished, 1);
	scratch_close(cache);
}
END_TEST

/* One of the ways to be killed with something in hand. */
static void be_killed(void *arg)
{
	int way = *(int *)arg;
	struct scache *cache = scratch_open();
	struct scache_reader *reader;
	struct scache_writer *writer;

	switch (way % 4) {
	case 0: /* writer, alone */
		writer = scratch_create(cache, "victim", 0, NULL);
		pattern_write(writer, 1, 0, 1000, 1000, NULL);
		break;
	case 1: /* writer and reader */
		writer = scratch_create(cache, "victim", 0, &reader);
		pattern_write(writer, 1, 0, 300000, 50000, NULL);
		break;
	case 2: /* reader of the other process's entry */
		scratch_find(cache, "kept");
		break;
	default: /* a finished entry that the parent has not asked for */
		pattern_produce(scratch_create(cache, "victim", 0, &reader), 1, 1000, 1000);
		break;
	}
	child_say(0);
	child_stay();
}

START_TEST(slots_of_the_killed_become_usable)
{
	struct scache *cache;
	struct scache_reader *reader;
	struct child child;

	scratch_options.entries = 16;
	scratch_options.peers = 2;
	scratch_options.readers = 128;
	scratch_options.rings = 1;
	scratch_options.ring_bytes = 64 << 10;
	cache = scratch_open();
	pattern_produce(scratch_create(cache, "kept", 0, NULL), 7, 90000, 4096);
	for (int i = 0; i < KILLS; i++) {
		child_start(&child, be_killed, &i);
		child_hear(&child);
		child_kill(&child);
		if (i % 4 == 3) {
			reader = scratch_find(cache, "victim");
			pattern_read_all(reader, 1, 1000);
			scache_reader_close(reader);
			must_be(scache_remove(cache, "victim", 6), 0);
		} else if (i % 4 < 2) {
			scache_writer_close(scratch_take(cache, "victim"));
		}
		must_be(scache_check(cache, NULL, NULL), 0);
	}
	scratch_is_clean(cache);
	must_be(scratch_stat(cache).entries, 1);
	must_be(scratch_stat(cache).deaths, KILLS);
	reader = scratch_find(cache, "kept");
	pattern_read_all(reader, 7, 90000);
	scache_reader_close(reader);
	scratch_close(cache);
}
END_TEST

/* Open and close, on and on. */
static void open_and_close(void *arg)
{
	(void)arg;
	child_say(0);
	for (;;)
		scratch_close(scratch_open());
}

START_TEST(death_inside_open_harms_nobody)
{
	unsigned random = 12345;
	struct scache *cache;
	struct child child;

	for (int i = 0; i < OPEN_KILLS; i++) {
		/* Every instant of the first few opens, not a wait for anything. */
		struct timespec instant = { .tv_nsec = rand_r(&random) % 4000000 };

		child_start(&child, open_and_close, NULL);
		child_hear(&child);
		nanosleep(&instant, NULL);
		child_kill(&child);
		if (i % 10 != 9)
			continue;
		cache = scratch_open();
		scratch_is_clean(cache);
		pattern_produce(scratch_create(cache, "k", 0, NULL), 1, 1000, 1000);
		scratch_close(cache);
		must_be(scache_destroy(scratch_dir, NULL), 0);
		/* Neither the cache nor a segment. */
		must(rmdir(scratch_base) == 0);
		must(mkdir(scratch_base, 0700) == 0);
	}
}
END_TEST

/* Everything a user does, on and on; what is read must be right. */
static void use_all_of_it(void *arg)
{
	struct scache *cache = scratch_open();
	unsigned random = (unsigned)*(int *)arg;
	struct scache_reader *reader;
	struct scache_writer *writer;
	uint64_t position, seed;
	int error = 0, ret;

	child_say(0);
	for (;;) {
		char key = (char)('a' + (seed = (uint64_t)rand_r(&random) % 5));

		must(scache_acquire(cache, &key, 1, NULL, &reader, &writer) >= 0);
		if (writer != NULL) {
			pattern_write(writer, seed, 0, 30000 * seed, 7000, &error);
			if (rand_r(&random) % 4 != 0)
				must_be(scache_finish(writer), 0);
			scache_writer_close(writer);
		}
		position = 0;
		if (reader != NULL) {
			ret = pattern_read(reader, seed, &position, UINT64_MAX, 5000);
			must(ret == -EOWNERDEAD || ret == -ECANCELED || ret == 0);
			must(ret != 0 || position == 30000 * seed);
			scache_reader_close(reader);
		}
		if (rand_r(&random) % 4 == 0)
			scache_remove(cache, &key, 1);
	}
}

START_TEST(death_at_any_instant_of_use_harms_nobody)
{
	struct child children[3];
	unsigned random = 4711;
	struct scache *cache;

	scratch_options.entries = 16;
	scratch_options.peers = 8;
	scratch_options.rings = 2;
	scratch_options.ring_bytes = 64 << 10;
	cache = scratch_open();
	for (int i = 0; i < USE_KILLS + 3; i++) {
		struct timespec instant = { .tv_nsec = rand_r(&random) % 5000000 };

		if (i >= 3) {
			nanosleep(&instant, NULL);
			child_kill(&children[i % 3]);
			must_be(scache_check(cache, NULL, NULL), 0);
		}
		if (i < USE_KILLS) {
			child_start(&children[i % 3], use_all_of_it, &i);
			child_hear(&children[i % 3]);
		}
	}
	scratch_is_clean(cache);
	must_be(scratch_stat(cache).deaths, USE_KILLS);
	scratch_close(cache);
}
END_TEST

/* ------------------------------------------------------- readers, killed or stopped */

/* Attach, read that much, say so, read no more. */
static void read_and_stall(void *arg)
{
	const struct scene *scene = arg;
	struct scache_reader *reader = scratch_find(scratch_open(), scene->key);
	uint64_t position = 0;

	if (scene->bytes > 0)
		must_be(pattern_read(reader, 1, &position, scene->bytes, 4096), 1);
	child_say((int64_t)position);
	child_listen();
	must_be(pattern_read(reader, 1, &position, UINT64_MAX, 65536), 0);
	child_say((int64_t)position);
}

static void produce_paced(void *arg)
{
	const struct scene *scene = arg;
	struct scache_writer *writer = scratch_create(scratch_open(), scene->key, 64 << 10, NULL);

	child_say(0);
	pattern_produce(writer, 1, scene->bytes, 8192);
	child_say(0);
}

START_TEST(a_killed_pace_setter_leaves_the_pace_to_others)
{
	struct scene all = { "k", 1000000 }, ahead = { "k", 200000 };
	struct scache *cache = scratch_open();
	struct scache_reader *reader;
	struct child writer, fastest;
	uint64_t position = 0;

	child_start(&writer, produce_paced, &all);
	child_hear(&writer);
	reader = scratch_find(cache, "k");
	child_start(&fastest, read_and_stall, &ahead);
	must_be(child_hear(&fastest), 200000);
	eventually(scratch_info(reader).flags & SCACHE_WRITER_WAITS);
	child_kill(&fastest);
	must_be(pattern_read(reader, 1, &position, UINT64_MAX, 4096), 0);
	must_be(position, all.bytes);
	child_hear(&writer);
	child_join(&writer);
	scache_reader_close(reader);
	scratch_is_clean(cache);
	scratch_close(cache);
}
END_TEST

/* No file can be written: the ring is all there is, and the slowest sets the pace. */
static void produce_without_file(void *arg)
{
	const struct scene *scene = arg;
	struct rlimit limit = { .rlim_cur = 0, .rlim_max = RLIM_INFINITY };
	struct scache_writer *writer = scratch_create(scratch_open(), scene->key, 0, NULL);
	int error = 0;

	must(setrlimit(RLIMIT_FSIZE, &limit) == 0);
	child_say(0);
	child_listen();
	must_be(pattern_write(writer, 1, 0, scene->bytes, 8192, &error), scene->bytes);
	must_be(scache_finish(writer), SCACHE_NOT_KEPT);
}

START_TEST(a_killed_slowest_reader_does_not_hold_up_a_ring_without_file)
{
	struct scene all = { "k", 2000000 }, nothing = { "k", 0 };
	struct scache *cache = scratch_open();
	struct scache_reader *reader;
	struct child writer, slowest;
	uint64_t position = 0;

	child_start(&writer, produce_without_file, &all);
	child_hear(&writer);
	reader = scratch_find(cache, "k");
	child_start(&slowest, read_and_stall, &nothing);
	child_hear(&slowest);
	child_tell(&writer, 0);
	must_be(pattern_read(reader, 1, &position, SCRATCH_RING_BYTES, 4096), 1);
	eventually(scratch_info(reader).flags & SCACHE_WRITER_WAITS);
	must_be(scratch_info(reader).bytes, SCRATCH_RING_BYTES);
	child_kill(&slowest);
	must_be(pattern_read(reader, 1, &position, UINT64_MAX, 4096), 0);
	must_be(position, all.bytes);
	child_join(&writer);
	scache_reader_close(reader);
	scratch_is_clean(cache);
	scratch_close(cache);
}
END_TEST

START_TEST(a_stopped_reader_stops_nobody_else)
{
	struct scene all = { "k", 2000000 }, some = { "k", 1000 };
	struct scache *cache = scratch_open();
	struct scache_reader *reader;
	struct child writer, stopped;
	uint64_t position = 0;
	char key[16];

	child_start(&writer, produce_paced, &all);
	child_hear(&writer);
	reader = scratch_find(cache, "k");
	child_start(&stopped, read_and_stall, &some);
	child_hear(&stopped);
	child_stop(&stopped);
	must_be(pattern_read(reader, 1, &position, UINT64_MAX, 65536), 0);
	must_be(position, all.bytes);
	scache_reader_close(reader);
	child_hear(&writer);
	child_join(&writer);
	/* Many more lives than there are slots. */
	for (int i = 0; i < 300; i++) {
		snprintf(key, sizeof(key), "other %d", i);
		pattern_produce(scratch_create(cache, key, 0, NULL), 1, 100, 100);
		must_be(scache_remove(cache, key, strlen(key)), 0);
	}
	must_be(scache_remove(cache, "k", 1), 0);
	must(kill(stopped.pid, SIGCONT) == 0);
	child_tell(&stopped, 0);
	must_be(child_hear(&stopped), all.bytes);
	child_join(&stopped);
	scratch_is_clean(cache);
	scratch_close(cache);
}
END_TEST

int main(void)
{
	const TTest *const tests[] = {
		readers_of_a_writer_killed_with_all_in_the_ring_get_every_byte,
		readers_of_a_writer_killed_far_beyond_the_ring_get_every_byte,
		readers_of_a_writer_killed_before_its_first_byte_learn_of_it,
		readers_of_a_writer_killed_while_it_writes_get_every_published_byte,
		exit_without_close_is_like_death,
		the_key_of_a_killed_writer_elects_a_new_one,
		slots_of_the_killed_become_usable,
		death_inside_open_harms_nobody,
		death_at_any_instant_of_use_harms_nobody,
		a_killed_pace_setter_leaves_the_pace_to_others,
		a_killed_slowest_reader_does_not_hold_up_a_ring_without_file,
		a_stopped_reader_stops_nobody_else,
	};

	return SCRATCH_RUN("death", tests);
}
