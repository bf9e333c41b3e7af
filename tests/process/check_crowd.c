/* SPDX-License-Identifier: MIT */
/*
 * check_crowd - a thousand readers of one entry, each a process.
 */
#include <check.h>
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/resource.h>

#include "../util/pattern.h"
#include "../util/scratch.h"
#include "../util/spawn.h"

#define CROWD 1000
#define AT_A_TIME 50 /* in scache_open() */
#define PROCESSES 10
#define THREADS 100
#define BLOB_BYTES 1500000ull

static void write_to_crowd(void *arg)
{
	struct scache_writer *writer = scratch_create(scratch_open(), "k", 0, NULL);

	(void)arg;
	child_say(0);
	child_listen();
	pattern_produce(writer, 1, BLOB_BYTES, 100000);
}

static void *read_in_thread(void *arg)
{
	struct scache_reader *reader = arg;

	pattern_read_all(reader, 1, BLOB_BYTES);
	scache_reader_close(reader);
	return NULL;
}

static void read_in_threads(void *arg)
{
	struct scache *cache = scratch_open();
	pthread_t threads[THREADS];
	struct scache_reader *readers[THREADS];

	(void)arg;
	for (int i = 0; i < THREADS; i++)
		readers[i] = scratch_find(cache, "k");
	for (int i = 0; i < THREADS; i++)
		must(pthread_create(&threads[i], NULL, read_in_thread, readers[i]) == 0);
	child_say(0);
	for (int i = 0; i < THREADS; i++)
		pthread_join(threads[i], NULL);
	scratch_close(cache);
}

static uint64_t blob_bytes = BLOB_BYTES;

/* @count children that run @body before the first byte is written; all end well. */
static void gather(int count, void (*body)(void *arg))
{
	struct child *crowd = calloc((size_t)count, sizeof(*crowd)), writer;
	struct rlimit files;
	struct scache *cache;

	must(crowd != NULL);
	must(getrlimit(RLIMIT_NOFILE, &files) == 0);
	files.rlim_cur = files.rlim_max < 4096 ? files.rlim_max : 4096;
	must(setrlimit(RLIMIT_NOFILE, &files) == 0);
	must(files.rlim_cur >= (rlim_t)count + 100);
	scratch_options.peers = 1100;
	scratch_options.readers = 1100 * 64;
	scratch_options.ring_bytes = 1 << 20;
	cache = scratch_open();
	child_start(&writer, write_to_crowd, NULL);
	child_hear(&writer);
	for (int i = 0; i < count; i++) {
		child_start(&crowd[i], body, &blob_bytes);
		if (i >= AT_A_TIME)
			child_hear(&crowd[i - AT_A_TIME]);
	}
	for (int i = count > AT_A_TIME ? count - AT_A_TIME : 0; i < count; i++)
		child_hear(&crowd[i]);
	must_be(scratch_stat(cache).readers, CROWD);
	child_tell(&writer, 0);
	for (int i = 0; i < count; i++)
		child_join(&crowd[i]);
	child_join(&writer);
	free(crowd);
	must_be(scratch_stat(cache).joins, CROWD);
	/* The writer left without a word. */
	must_be(scratch_stat(cache).productions, 1);
	scratch_is_clean(cache);
	scratch_close(cache);
}

START_TEST(a_thousand_processes_read_one_entry)
{
	gather(CROWD, scratch_read_along);
}
END_TEST

START_TEST(a_thousand_threads_of_ten_processes_read_one_entry)
{
	gather(PROCESSES, read_in_threads);
}
END_TEST

int main(void)
{
	const TTest *const tests[] = {
		a_thousand_processes_read_one_entry,
		a_thousand_threads_of_ten_processes_read_one_entry,
	};

	return SCRATCH_RUN("crowd", tests);
}
