/* SPDX-License-Identifier: MIT */
/*
 * check_inherit - whose a file of another segment is: nobody's, or that of processes
 * which are still attached there; which of two files is the key's; and what a sweep
 * makes of those that nobody asks for.
 */
#include <check.h>
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "../util/former.h"
#include "../util/pattern.h"
#include "../util/scratch.h"
#include "../util/spawn.h"
#include "base/clock.h"
#include "base/step.h"

#define BYTES 300000ull
#define MINUTE_NS (60 * NS_PER_SEC)

/* -------------------------------------------------------------- somebody's files */

/* Has "k" open, produces "growing", and goes when told. */
static void hold_on(void *arg)
{
	struct scache *cache = scratch_open();
	struct scache_reader *reader = scratch_find(cache, "k");
	struct scache_writer *writer = scratch_create(cache, "growing", 0, NULL);

	(void)arg;
	must_be(pattern_write(writer, 2, 0, BYTES, 70000, NULL), BYTES);
	child_say(0);
	child_listen();
	must_be(former_read(reader, BY_READ, 1, BYTES), 0);
	scache_reader_close(reader);
	must_be(scache_finish(writer), SCACHE_NOT_KEPT);
	scache_writer_close(writer);
	scratch_close(cache);
}

static struct scache_sweep_report sweep(struct scache *cache, uint32_t flags)
{
	struct scache_sweep_options options = { .size = sizeof(options), .flags = flags };
	struct scache_sweep_report report = { .size = sizeof(report) };

	must_be(scache_sweep(cache, &options, &report), 0);
	return report;
}

START_TEST(nothing_is_touched_while_somebody_is_attached_to_a_former_segment)
{
	struct scache_sweep_report report;
	struct scache *cache;
	struct child child;

	former_put("k", 1, BYTES);
	child_start(&child, hold_on, NULL);
	child_hear(&child);
	former_lose(LOST_TRUST);
	cache = scratch_open();
	must(scratch_misses(cache, "k"));
	must(scratch_misses(cache, "growing"));
	report = sweep(cache, 0);
	must_be(report.adopted + report.orphans, 0);
	must_be(scratch_blobs(), 2);
	must_be(scratch_stat(cache).entries, 0);
	child_tell(&child, 0);
	child_join(&child);
	former_has(cache, "k", 1, BYTES);
	/* Finished where nobody could remove it any more. */
	must(scratch_misses(cache, "growing"));
	must_be(scratch_stat(cache).adopted, 1);
	scratch_is_clean(cache);
	must_be(scratch_blobs(), 1);
	scratch_close(cache);
}
END_TEST

static const char *moment;

static void be_retired(const char *label)
{
	if (strcmp(label, moment) == 0)
		former_lose(LOST_TRUST);
}

/* Retired before its end is written, or while it is. */
START_TEST(what_is_finished_in_a_retired_segment_does_not_outlive_it)
{
	static const char *const moments[] = { "footer-written", "blob-sealed", "none" };
	struct scache_writer *writer;
	struct scache *cache, *later;
	char path[400];

	for (int i = 0; i < 3; i++) {
		cache = scratch_open();
		writer = scratch_create(cache, "k", 0, NULL);
		must_be(pattern_write(writer, 1, 0, BYTES, 70000, NULL), BYTES);
		scratch_blob(path, sizeof(path));
		moment = moments[i];
		if (i == 2)
			former_lose(LOST_TRUST);
		step_set_hook(be_retired);
		must_be(scache_finish(writer), SCACHE_NOT_KEPT);
		step_set_hook(NULL);
		scache_writer_close(writer);
		scratch_close(cache);
		/* As if its producer had died between the seal and the look at its segment. */
		if (i == 2)
			must(chmod(path, 0400) == 0);
		later = scratch_open();
		/* Sealed before: then a removal has seen it. */
		must_be(scratch_misses(later, "k"), i != 1);
		must_be(scache_remove(later, "k", 1), i == 1 ? 0 : -ENOENT);
		scratch_is_clean(later);
		must_be(scratch_blobs(), 0);
		scratch_close(later);
	}
}
END_TEST

START_TEST(what_was_removed_meanwhile_does_not_come_back_when_they_have_left)
{
	struct scache *cache;
	struct child child;

	former_put("k", 1, BYTES);
	child_start(&child, hold_on, NULL);
	child_hear(&child);
	former_lose(LOST_TRUST);
	cache = scratch_open();
	pattern_produce(scratch_create(cache, "k", 0, NULL), 3, BYTES, 70000);
	must_be(scache_remove(cache, "k", 1), 0);
	must_be(scache_remove(cache, "growing", 7), -ENOENT);
	/* Theirs is whole: the child reads it. */
	child_tell(&child, 0);
	child_join(&child);
	must(scratch_misses(cache, "k"));
	must(scratch_misses(cache, "growing"));
	scratch_is_clean(cache);
	must_be(scratch_blobs(), 0);
	scratch_close(cache);
}
END_TEST

static struct rlimit files;

/* No descriptor more: nothing can be looked into. */
static void run_out_of_files(void)
{
	int next = dup(0);
	struct rlimit limit;

	must(next >= 0 && getrlimit(RLIMIT_NOFILE, &files) == 0);
	close(next);
	limit = files;
	limit.rlim_cur = (rlim_t)next;
	must(setrlimit(RLIMIT_NOFILE, &limit) == 0);
}

static void have_files_again(void)
{
	must(setrlimit(RLIMIT_NOFILE, &files) == 0);
}

START_TEST(what_cannot_be_looked_into_is_not_said_to_be_removed)
{
	struct scache_acquire_options fresh = { .size = sizeof(fresh), .flags = SCACHE_REFRESH };
	struct scache_writer *writer = NULL;
	struct scache *cache;
	struct child child;

	/* In use by others, and then not. */
	former_put("k", 1, BYTES);
	child_start(&child, hold_on, NULL);
	child_hear(&child);
	former_lose(LOST_TRUST);
	cache = scratch_open();
	for (int i = 0; i < 2; i++) {
		run_out_of_files();
		must_be(scache_remove(cache, "k", 1), -EMFILE);
		must_be(scache_acquire(cache, "k", 1, &fresh, NULL, &writer), SCACHE_BYPASS);
		have_files_again();
		must(writer == NULL);
		if (i == 0) {
			child_tell(&child, 0);
			child_join(&child);
		}
	}
	former_has(cache, "k", 1, BYTES);
	/* What is in the segment goes, whatever may be there beside it. */
	must_be(scache_remove(cache, "k", 1), 0);
	must_be(scache_remove(cache, "k", 1), -ENOENT);
	scratch_is_clean(cache);
	must_be(scratch_blobs(), 0);
	scratch_close(cache);
}
END_TEST

static void make_a_newer_segment(void *arg)
{
	(void)arg;
	former_put("k", 2, BYTES);
	former_put("other", 2, BYTES);
}

/* Our segment is retired, and others have used a newer one since, and left. */
static void be_overtaken(const char *label)
{
	struct child child;

	if (moment == NULL || strcmp(label, moment) != 0)
		return;
	moment = NULL;
	former_lose(LOST_TRUST);
	child_start(&child, make_a_newer_segment, NULL);
	child_join(&child);
}

static void newer_ones_are_there(void)
{
	struct scache *cache = scratch_open();

	former_has(cache, "k", 2, BYTES);
	former_has(cache, "other", 2, BYTES);
	must_be(scratch_stat(cache).adopted, 0);
	must_be(scratch_stat(cache).damaged, 0);
	must_be(scratch_stat(cache).productions, 2);
	scratch_is_clean(cache);
	must_be(scratch_blobs(), 2);
	scratch_close(cache);
}

START_TEST(a_look_up_in_a_retired_segment_takes_nothing_from_a_newer_one)
{
	struct scache *cache = scratch_open();
	struct scache_reader *reader;

	moment = "pin-set";
	step_set_hook(be_overtaken);
	must_be(scache_lookup(cache, "k", 1, NULL, &reader), -ENOENT);
	step_set_hook(NULL);
	must(moment == NULL);
	scratch_close(cache);
	newer_ones_are_there();
}
END_TEST

START_TEST(nor_does_a_sweep)
{
	struct scache *cache = scratch_open();
	struct scache_sweep_report report;

	moment = "sweep-hint-taken";
	step_set_hook(be_overtaken);
	report = sweep(cache, 0);
	step_set_hook(NULL);
	must(moment == NULL);
	must_be(report.adopted, 0);
	must_be(report.orphans, 0);
	scratch_close(cache);
	newer_ones_are_there();
}
END_TEST

/* ---------------------------------------------------------------- half-way adopted */

static void ask_for_it(void *arg)
{
	struct scache_writer *writer = NULL;
	int ret = scache_acquire(scratch_open(), "k", 1, NULL, NULL, &writer);

	(void)arg;
	must(ret == 0 || ret == SCACHE_BYPASS);
	must(writer == NULL);
}

static void be_asked_for(const char *label)
{
	struct child child;

	if (strcmp(label, moment) != 0)
		return;
	child_start(&child, ask_for_it, NULL);
	child_join(&child);
}

START_TEST(nobody_is_elected_while_another_adopts)
{
	static const char *const moments[] = { "former-linked", "former-renamed", "adopted" };
	struct scache *cache;

	former_put("k", 1, BYTES);
	for (int i = 0; i < 3; i++) {
		former_lose(LOST_FILE);
		cache = scratch_open();
		moment = moments[i];
		step_set_hook(be_asked_for);
		former_has(cache, "k", 1, BYTES);
		step_set_hook(NULL);
		must_be(scratch_stat(cache).productions, 0);
		must_be(scratch_stat(cache).adopted, 1);
		scratch_is_clean(cache);
		scratch_close(cache);
	}
}
END_TEST

static struct scache *other;
static int returned;

static void *look_while_cancelled(void *arg)
{
	struct scache_reader *reader;

	(void)arg;
	must(pthread_cancel(pthread_self()) == 0);
	must_be(scache_lookup(other, "k", 1, NULL, &reader), -ENOENT);
	returned = 1;
	return NULL;
}

static void be_looked_for(const char *label)
{
	pthread_t thread;

	if (moment == NULL || strcmp(label, moment) != 0)
		return;
	moment = NULL;
	must(pthread_create(&thread, NULL, look_while_cancelled, NULL) == 0);
	must(pthread_join(thread, NULL) == 0);
}

START_TEST(who_waits_for_an_adopter_is_not_cancelled_with_its_hands_full)
{
	struct scache *cache;

	former_put("k", 1, BYTES);
	former_lose(LOST_FILE);
	cache = scratch_open();
	other = scratch_open();
	moment = "former-linked";
	returned = 0;
	step_set_hook(be_looked_for);
	former_has(cache, "k", 1, BYTES);
	step_set_hook(NULL);
	must(moment == NULL);
	must_be(returned, 1);
	scratch_close(other);
	scratch_is_clean(cache);
	scratch_close(cache);
}
END_TEST

static void stay_there(const char *label)
{
	if (strcmp(label, moment) != 0)
		return;
	child_say(0);
	child_stay();
}

static void adopt_and_die(void *arg)
{
	moment = arg;
	step_set_hook(stay_there);
	former_has(scratch_open(), "k", 1, BYTES);
}

START_TEST(who_dies_while_adopting_is_cleaned_up_after)
{
	char moments[2][16] = { "former-linked", "former-renamed" };
	struct scache *cache;
	struct child child;

	former_put("k", 1, BYTES);
	for (int i = 0; i < 2; i++) {
		former_lose(LOST_FILE);
		child_start(&child, adopt_and_die, moments[i]);
		child_hear(&child);
		child_kill(&child);
		cache = scratch_open();
		/* Before the file has another name nothing has happened to it. */
		if (i == 0)
			former_has(cache, "k", 1, BYTES);
		else
			must(scratch_misses(cache, "k"));
		scratch_is_clean(cache);
		must_be(scratch_blobs(), i == 0);
		scratch_close(cache);
	}
}
END_TEST

/* ------------------------------------------------------------ two files of one key */

#define KEYS 12

/* The only file, out of the way. */
static void put_aside(const char *key, uint64_t seed, uint64_t age_ns, char aside[400],
		      char path[400])
{
	former_put_aged(key, seed, BYTES, 0, age_ns);
	scratch_blob(path, 400);
	snprintf(aside, 400, "%s/aside%llu.%s", scratch_base, (unsigned long long)seed, key);
	must(rename(path, aside) == 0);
	must_be(scache_destroy(scratch_dir, NULL), 0);
}

/* Of each key one that was finished an hour ago, and one of now; no segment knows them. */
static void make_pairs(void)
{
	static char aside[2 * KEYS][400], path[2 * KEYS][400];
	char key[2] = "a", dir[400];
	size_t bytes;

	for (int i = 0; i < 2 * KEYS; i++) {
		int is_old = (i + i / 2) % 2;

		key[0] = (char)('a' + i / 2);
		put_aside(key, is_old ? 1 : 2, is_old * 60 * MINUTE_NS, aside[i], path[i]);
	}
	scratch_close(scratch_open());
	for (int i = 0; i < 2 * KEYS; i++) {
		bytes = (size_t)(strrchr(path[i], '/') - path[i]);
		memcpy(dir, path[i], bytes);
		dir[bytes] = '\0';
		mkdir(dir, 0700);
		must(rename(aside[i], path[i]) == 0);
	}
	must_be(scratch_blobs(), 2 * KEYS);
	former_lose(LOST_FILE);
}

static void newest_are_there(struct scache *cache)
{
	char key[2] = "a";

	for (; key[0] < 'a' + KEYS; key[0]++)
		former_has(cache, key, 2, BYTES);
	must_be(scratch_blobs(), KEYS);
}

START_TEST(of_two_files_of_one_key_the_newest_is_served_and_the_other_goes)
{
	struct scache *cache;

	make_pairs();
	cache = scratch_open();
	newest_are_there(cache);
	must_be(scratch_stat(cache).adopted, KEYS);
	scratch_is_clean(cache);
	scratch_close(cache);
}
END_TEST

START_TEST(a_sweep_adopts_the_newest_in_whatever_order_it_finds_them)
{
	struct scache_sweep_report report;
	struct scache *cache;

	make_pairs();
	cache = scratch_open();
	report = sweep(cache, 0);
	must(report.adopted >= KEYS);
	newest_are_there(cache);
	scratch_is_clean(cache);
	scratch_close(cache);
}
END_TEST

/* -------------------------------------------------------------------------- sweeps */

static void be_adopted(const char *label)
{
	if (moment == NULL || strcmp(label, moment) != 0)
		return;
	moment = NULL;
	former_has(other, "k", 1, BYTES);
}

/* The sweep has looked into the file, and not yet for an entry. */
START_TEST(a_sweep_does_not_take_the_file_of_an_entry_for_another)
{
	struct scache_sweep_report report;
	struct scache *cache;

	former_put("k", 1, BYTES);
	former_lose(LOST_FILE);
	cache = scratch_open();
	other = scratch_open();
	moment = "pin-set";
	step_set_hook(be_adopted);
	report = sweep(cache, 0);
	step_set_hook(NULL);
	must(moment == NULL);
	must_be(report.adopted + report.orphans, 0);
	former_has(cache, "k", 1, BYTES);
	must_be(scratch_stat(cache).adopted, 1);
	scratch_close(other);
	scratch_is_clean(cache);
	scratch_close(cache);
}
END_TEST

static int adopted_told;

static void count_adopted(void *arg, const struct scache_victim *victim)
{
	(void)arg;
	must(strcmp(victim->why, "adopted") == 0);
	must(strncmp(victim->name, "blobs/", 6) == 0);
	must_be(victim->removed, 0);
	adopted_told++;
}

START_TEST(a_sweep_adopts_what_nobody_has_asked_for)
{
	struct scache_sweep_options options = { .size = sizeof(options),
						.victim = count_adopted,
						.flags = SCACHE_DRY_RUN };
	struct scache_sweep_report report = { .size = sizeof(report) };
	struct scache *cache;
	char key[2] = "0";

	for (; key[0] < '5'; key[0]++)
		former_put(key, (uint64_t)key[0], BYTES);
	former_lose(LOST_FILE);
	cache = scratch_open();
	must_be(scache_sweep(cache, &options, &report), 0);
	must_be(report.adopted, 5);
	must(report.adopted_bytes >= 5 * BYTES);
	must_be(report.orphans, 0);
	must_be(adopted_told, 5);
	must_be(scratch_stat(cache).entries, 0);
	former_has(cache, "3", '3', BYTES);
	options.flags = 0;
	must_be(scache_sweep(cache, &options, &report), 0);
	must_be(report.adopted, 4);
	must_be(adopted_told, 9);
	must_be(scratch_stat(cache).entries_finished, 5);
	must_be(scache_sweep(cache, &options, &report), 0);
	must_be(report.adopted, 0);
	for (key[0] = '0'; key[0] < '5'; key[0]++)
		former_has(cache, key, (uint64_t)key[0], BYTES);
	scratch_is_clean(cache);
	scratch_close(cache);
}
END_TEST

#define SLOTS 16

START_TEST(a_full_table_gives_up_nothing_that_is_in_use)
{
	struct scache_reader *readers[SLOTS];
	struct scache *cache;
	char key[2] = "a";

	scratch_options.entries = SLOTS;
	former_put("k", 1, BYTES);
	former_put("l", 1, BYTES);
	former_lose(LOST_FILE);
	cache = scratch_open();
	for (int i = 0; i < SLOTS; i++) {
		key[0] = (char)('A' + i);
		pattern_produce(scratch_create(cache, key, 0, NULL), (uint64_t)i, 5000, 5000);
		readers[i] = scratch_find(cache, key);
	}
	must(scratch_misses(cache, "k"));
	must_be(scratch_blobs(), SLOTS + 2);
	/* As soon as there is a slot. */
	scache_reader_close(readers[0]);
	former_has(cache, "k", 1, BYTES);
	readers[0] = scratch_find(cache, "k");
	/* It would not be looked for any more. */
	must_be(sweep(cache, 0).orphans, 1);
	must_be(scratch_blobs(), SLOTS);
	for (int i = 1; i < SLOTS; i++) {
		pattern_read_all(readers[i], (uint64_t)i, 5000);
		scache_reader_close(readers[i]);
	}
	must_be(former_read(readers[0], BY_READ, 1, BYTES), 0);
	scache_reader_close(readers[0]);
	scratch_is_clean(cache);
	scratch_close(cache);
}
END_TEST

int main(void)
{
	const TTest *const tests[] = {
		nothing_is_touched_while_somebody_is_attached_to_a_former_segment,
		what_is_finished_in_a_retired_segment_does_not_outlive_it,
		what_was_removed_meanwhile_does_not_come_back_when_they_have_left,
		what_cannot_be_looked_into_is_not_said_to_be_removed,
		a_look_up_in_a_retired_segment_takes_nothing_from_a_newer_one,
		nor_does_a_sweep,
		nobody_is_elected_while_another_adopts,
		who_waits_for_an_adopter_is_not_cancelled_with_its_hands_full,
		who_dies_while_adopting_is_cleaned_up_after,
		of_two_files_of_one_key_the_newest_is_served_and_the_other_goes,
		a_sweep_adopts_the_newest_in_whatever_order_it_finds_them,
		a_sweep_does_not_take_the_file_of_an_entry_for_another,
		a_sweep_adopts_what_nobody_has_asked_for,
		a_full_table_gives_up_nothing_that_is_in_use,
	};

	return SCRATCH_RUN("inherit", tests);
}
