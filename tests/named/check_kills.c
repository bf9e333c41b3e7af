/* SPDX-License-Identifier: MIT */
/*
 * check_kills - T7, T8, T18, T20: a reaper, a remover, a crowd of threads and a
 * sweep are killed. In this build each access to shared memory is a step, and the
 * process that is to die does so before the one it was told.
 */
#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "api/cache.h"
#include "base/step.h"
#include "index/repair.h"

#include "../util/pattern.h"
#include "../util/scratch.h"
#include "../util/spawn.h"

#define KEYS 40
#define THREADS 8
#define STORMS 6
#define BLOB_BYTES 3000

static void produce(struct scache *cache, const char *key, uint64_t seed)
{
	pattern_produce(scratch_create(cache, key, 0, NULL), seed, BLOB_BYTES, 1000);
}

static void has(struct scache *cache, const char *key, uint64_t seed)
{
	struct scache_reader *reader = scratch_find(cache, key);

	pattern_read_all(reader, seed, BLOB_BYTES);
	scache_reader_close(reader);
}

/* ------------------------------------------------------------------- how to die */

static const char *fatal_label;
static int accesses_left;

static void die_at_label(const char *label)
{
	if (strcmp(label, fatal_label) == 0)
		kill(getpid(), SIGKILL);
}

static void die_at_access(const volatile void *word)
{
	(void)word;
	if (accesses_left > 0 && --accesses_left == 0)
		kill(getpid(), SIGKILL);
}

/* ------------------------------------------------------------------------- T7 */

static void write_with_a_reader_and_stall(void *arg)
{
	struct scache_reader *reader;
	struct scache_writer *writer = scratch_create(scratch_open(), "k", 0, &reader);

	(void)arg;
	must_be(pattern_write(writer, 1, 0, 5000, 1000, NULL), 5000);
	child_say(0);
	child_stay();
}

static void reap_and_die(void *arg)
{
	struct seat *seat;

	/* Perhaps as early as here: newcomers look after the dead. */
	step_set_hook(die_at_label);
	must_be(seat_enter(arg, &seat), 0);
	repair_reap_all(&seat->peer);
	spawn_fail(__FILE__, __LINE__, "%s was not passed", fatal_label);
}

START_TEST(t07_two_reapers_killed_alike_leave_the_work_to_the_third)
{
	static const char *const labels[] = { "reap-begun", "reap-cursor", "reap-block",
					      "reap-failed", "reap-done" };
	struct scache *cache = scratch_open();

	for (size_t i = 0; i < sizeof(labels) / sizeof(labels[0]); i++) {
		uint64_t deaths = scratch_stat(cache).deaths,
			 failures = scratch_stat(cache).failures;
		struct child child;

		child_start(&child, write_with_a_reader_and_stall, NULL);
		child_hear(&child);
		child_kill(&child);
		for (int twice = 0; twice < 2; twice++) {
			/* The second time round it is the killed reaper's own slot at least. */
			fatal_label = twice == 0 ? labels[i] : "reap-done";
			child_start(&child, reap_and_die, cache);
			must_be(child_end(&child), -SIGKILL);
		}
		scratch_is_clean(cache);
		must(scratch_misses(cache, "k"));
		/* Each died once; the entry failed once, and was at most not counted. */
		must_be(scratch_stat(cache).deaths, deaths + 3);
		must(scratch_stat(cache).failures <= failures + 1);
	}
	scratch_close(cache);
}
END_TEST

/* ------------------------------------------------------------------------- T8 */

static const char *name_key(int i)
{
	static char key[16];

	snprintf(key, sizeof(key), "key %d", i);
	return key;
}

struct removal {
	struct scache *cache;
	int number;
	bool sweeps;
};

static void remove_and_die(void *arg)
{
	const struct removal *removal = arg;
	const char *key = name_key(removal->number);
	struct seat *seat;

	must_be(seat_enter(removal->cache, &seat), 0);
	step_set_hook(die_at_label);
	scache_remove(removal->cache, key, strlen(key));
	/* What had to wait for its grace. */
	for (int i = 0; i < 3; i++)
		scache_sweep(removal->cache, NULL, NULL);
	spawn_fail(__FILE__, __LINE__, "%s was not passed", fatal_label);
}

START_TEST(t08_a_remover_killed_on_its_way_leaves_short_chains_and_all_slots)
{
	static const char *const labels[] = { "entry-hidden",  "index-marked",   "index-unlinked",
					      "entry-retired", "entry-sweeping", "blob-emptied",
					      "entry-freed" };
	const int count = sizeof(labels) / sizeof(labels[0]);
	struct scache *cache;
	struct child child;

	/* Chains of several entries, of which most are half removed soon. */
	scratch_options.entries = KEYS + 8;
	cache = scratch_open();
	for (int i = 0; i < KEYS; i++)
		produce(cache, name_key(i), (uint64_t)i);
	for (int i = 0; i < KEYS; i += 2) {
		struct removal removal = { .cache = cache, .number = i };

		fatal_label = labels[i / 2 % count];
		child_start(&child, remove_and_die, &removal);
		must_be(child_end(&child), -SIGKILL);
		/* Its neighbours are found, its key is free. */
		must(scratch_misses(cache, name_key(i)));
		has(cache, name_key(i + 1), (uint64_t)i + 1);
		must_be(scache_check(cache, NULL, NULL), 0);
		if (i % 4 == 0)
			produce(cache, name_key(i), 1000);
	}
	scratch_is_clean(cache);
	must_be(scratch_stat(cache).entries_finished, KEYS / 2 + KEYS / 4);
	for (int i = 0; i < KEYS; i++)
		if (i % 2 == 1 || i % 4 == 0)
			has(cache, name_key(i), i % 2 == 1 ? (uint64_t)i : 1000);
	scratch_close(cache);
}
END_TEST

/* ------------------------------------------------------------------------ T18 */

static void *insert_on(void *arg)
{
	struct scache *cache = arg;
	char key[32];

	for (int i = 0;; i++) {
		struct scache_reader *reader;
		struct scache_writer *writer;

		snprintf(key, sizeof(key), "%p %d", (void *)&reader, i % 6);
		must(scache_acquire(cache, key, strlen(key), NULL, &reader, &writer) >= 0);
		if (writer != NULL) {
			pattern_write(writer, 1, 0, 5000, 500, NULL);
			scache_finish(writer);
			scache_writer_close(writer);
		}
		scache_reader_close(reader);
		scache_remove(cache, key, strlen(key));
	}
	return NULL;
}

static void insert_in_threads(void *arg)
{
	struct scache *cache = scratch_open();
	pthread_t thread;

	(void)arg;
	for (int i = 0; i < THREADS; i++)
		must(pthread_create(&thread, NULL, insert_on, cache) == 0);
	eventually(scratch_stat(cache).productions > 20);
	child_say(cache->seat->peer.slot);
	child_stay();
}

/* Wait until a reaper finds it dead, and keep a copy of everything. */
static unsigned char *reap_and_copy(struct scache *cache, uint32_t slot)
{
	const struct segment *segment = cache->seat->store.segment;
	unsigned char *copy = malloc(segment->bytes);

	must(copy != NULL);
	while (repair_reap(&cache->seat->peer, slot) == 0)
		;
	memcpy(copy, segment->header, segment->bytes);
	return copy;
}

START_TEST(t18_threads_killed_at_work_store_nothing_after_they_were_reaped)
{
	const struct segment *segment;
	struct scache *cache;
	struct child child;

	/* A ring for each, and not much more to compare. */
	scratch_options.rings = THREADS;
	scratch_options.ring_bytes = 64 << 10;
	cache = scratch_open();
	segment = cache->seat->store.segment;
	for (int i = 0; i < STORMS; i++) {
		unsigned char *copy;
		uint32_t slot;

		child_start(&child, insert_in_threads, NULL);
		slot = (uint32_t)child_hear(&child);
		must(kill(child.pid, SIGKILL) == 0);
		copy = reap_and_copy(cache, slot);
		must_be(child_end(&child), -SIGKILL);
		/* Nobody else is here: each byte of it is a canary. */
		must(memcmp(copy, segment->header, segment->bytes) == 0);
		free(copy);
		scratch_is_clean(cache);
	}
	scratch_close(cache);
}
END_TEST

/* ------------------------------------------------------------------------ T20 */

static const struct scache_sweep_options all_ages = { .size = sizeof(all_ages),
						      .max_age_ns = SCACHE_ZERO };

static void sweep_and_die(void *arg)
{
	struct seat *seat;

	must_be(seat_enter(arg, &seat), 0);
	access_set_hook(die_at_access);
	must_be(scache_sweep(arg, &all_ages, NULL), 0);
	access_set_hook(NULL);
}

/* Whatever is found under a key is that key's. */
static void find_on(void *arg)
{
	struct scache *cache = arg;
	uint64_t position;

	child_say(0);
	for (int i = 0;; i++) {
		const char *key = name_key(i % 3);
		struct scache_reader *reader;
		int ret = scache_lookup(cache, key, strlen(key), NULL, &reader);

		must(ret == 0 || ret == -ENOENT);
		if (ret < 0)
			continue;
		position = 0;
		ret = pattern_read(reader, (uint64_t)i % 3, &position, UINT64_MAX, 4096);
		must(ret == 0 && position == BLOB_BYTES);
		scache_reader_close(reader);
	}
}

/* Found as it was, or produced anew. */
static void get(struct scache *cache, int i)
{
	struct scache_writer *writer;
	const char *key = name_key(i);

	must_be(scache_acquire(cache, key, strlen(key), NULL, NULL, &writer), 0);
	if (writer != NULL)
		pattern_produce(writer, (uint64_t)i, BLOB_BYTES, 1000);
	has(cache, key, (uint64_t)i);
}

START_TEST(t20_a_killed_sweep_is_made_good_by_the_next)
{
	int stride = scratch_is_long() ? 1 : 5, status = -SIGKILL, kills = 0;
	struct scache_sweep_report report = { .size = sizeof(report) };
	struct child finder, child;
	struct scache *cache;

	/* The slots of one key are soon another's. */
	scratch_options.entries = 16;
	scratch_options.peers = 4;
	scratch_options.readers = 192;
	scratch_options.rings = 1;
	cache = scratch_open();
	child_start(&finder, find_on, cache);
	child_hear(&finder);
	for (int access = 1; status != 0; access += stride) {
		for (int i = 0; i < 3; i++)
			get(cache, i);
		accesses_left = access;
		child_start(&child, sweep_and_die, cache);
		status = child_end(&child);
		must(status == 0 || status == -SIGKILL);
		kills += status != 0;
		for (int i = 0; i < 3; i++)
			get(cache, i);
		/* No file that an entry lacks, and none without an entry. */
		must_be(scache_sweep(cache, NULL, &report), 0);
		must_be(report.orphans + report.unknown, 0);
		must_be(scache_check(cache, NULL, NULL), 0);
	}
	printf("T20: killed before %d accesses\n", kills);
	must(kills > 20);
	child_kill(&finder);
	scratch_is_clean(cache);
	must_be(scratch_stat(cache).entries_finished, 3);
	scratch_close(cache);
}
END_TEST

int main(void)
{
	const TTest *const tests[] = {
		t07_two_reapers_killed_alike_leave_the_work_to_the_third,
		t08_a_remover_killed_on_its_way_leaves_short_chains_and_all_slots,
		t18_threads_killed_at_work_store_nothing_after_they_were_reaped,
		t20_a_killed_sweep_is_made_good_by_the_next,
	};

	return SCRATCH_RUN("kills", tests);
}
