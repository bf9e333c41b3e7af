/* SPDX-License-Identifier: MIT */
#include "scratch.h"

#include <errno.h>
#include <ftw.h>
#include <glob.h>
#include <grp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "pattern.h"
#include "spawn.h"

#define NOBODY 65534

char scratch_base[256];
char scratch_dir[300];
struct scache_options scratch_options;

static void set_up(void)
{
	const char *above = getenv("TMPDIR");

	snprintf(scratch_base, sizeof(scratch_base), "%s/scratch.XXXXXX",
		 above != NULL ? above : "/tmp");
	must(mkdtemp(scratch_base) != NULL);
	snprintf(scratch_dir, sizeof(scratch_dir), "%s/cache", scratch_base);
	scratch_options = (struct scache_options){
		.size = sizeof(scratch_options),
		.entries = 64,
		.peers = 64,
		.readers = 4096,
		.rings = 8,
		.ring_bytes = SCRATCH_RING_BYTES,
		.window_bytes = SCACHE_UNLIMITED,
		.max_age_ns = SCACHE_UNLIMITED,
		.max_bytes = SCACHE_UNLIMITED,
		.min_free_percent = SCACHE_ZERO,
		.segment_dir = scratch_base,
	};
}

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *at)
{
	(void)st;
	(void)type;
	(void)at;
	remove(path);
	return 0;
}

static void tear_down(void)
{
	nftw(scratch_base, remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

struct scache *scratch_open(void)
{
	struct scache *cache;
	int ret = scache_open(scratch_dir, &scratch_options, &cache);

	if (ret < 0)
		spawn_fail(__FILE__, __LINE__, "open: %s: %s", scache_strerror(ret),
			   scache_detail());
	return cache;
}

void scratch_close(struct scache *cache)
{
	must_be(scache_close(cache), 0);
}

struct scache_stats scratch_stat(struct scache *cache)
{
	struct scache_stats stats = { .size = sizeof(stats) };

	must_be(scache_stat(cache, &stats), 0);
	return stats;
}

struct scache_entry_info scratch_info(struct scache_reader *reader)
{
	struct scache_entry_info info = { .size = sizeof(info) };

	must_be(scache_reader_info(reader, &info), 0);
	return info;
}

struct scache_writer *scratch_create(struct scache *cache, const char *key, uint64_t window_bytes,
				     struct scache_reader **ret_reader)
{
	struct scache_acquire_options options = { .size = sizeof(options),
						  .window_bytes = window_bytes };
	struct scache_writer *writer = NULL;

	must_be(scache_acquire(cache, key, strlen(key), &options, ret_reader, &writer), 0);
	must(writer != NULL);
	return writer;
}

struct scache_reader *scratch_find(struct scache *cache, const char *key)
{
	struct scache_reader *reader;

	must_be(scache_lookup(cache, key, strlen(key), NULL, &reader), 0);
	return reader;
}

void scratch_read_along(void *arg)
{
	struct scache *cache = scratch_open();
	struct scache_reader *reader = scratch_find(cache, "k");

	child_say(0);
	pattern_read_all(reader, 1, *(const uint64_t *)arg);
	scache_reader_close(reader);
	scratch_close(cache);
}

void scratch_read_and_stay(void *arg)
{
	struct scache_reader *reader = scratch_find(scratch_open(), "k");
	uint64_t position = 0;

	child_say(0);
	must_be(pattern_read(reader, 1, &position, *(uint64_t *)arg, 1000), 1);
	child_say(0);
	child_stay();
}

int scratch_misses(struct scache *cache, const char *key)
{
	struct scache_reader *reader;
	int ret = scache_lookup(cache, key, strlen(key), NULL, &reader);

	if (ret == 0)
		scache_reader_close(reader);
	else
		must_be(ret, -ENOENT);
	return ret < 0;
}

struct scache_writer *scratch_take(struct scache *cache, const char *key)
{
	struct scache_writer *writer;
	struct scache_reader *reader;
	char data[4096];
	ssize_t got;

	for (;;) {
		must_be(scache_acquire(cache, key, strlen(key), NULL, NULL, &writer), 0);
		if (writer != NULL)
			return writer;
		if (scache_lookup(cache, key, strlen(key), NULL, &reader) < 0)
			continue;
		do
			got = scache_read(reader, data, sizeof(data), SCACHE_FOREVER);
		while (got > 0);
		must_be(got, -EOWNERDEAD);
		scache_reader_close(reader);
	}
}

static void print_finding(void *arg, const char *text)
{
	(void)arg;
	fprintf(stderr, "check: %s\n", text);
}

void scratch_is_clean(struct scache *cache)
{
	struct scache_sweep_report report = { .size = sizeof(report) };
	struct scache_stats stats;

	must_be(scache_sweep(cache, NULL, &report), 0);
	must_be(scache_check(cache, print_finding, NULL), 0);
	stats = scratch_stat(cache);
	must_be(stats.peers, 1);
	must_be(stats.readers, 0);
	must_be(stats.rings_in_use, 0);
	must_be(stats.entries_filling, 0);
	must_be(stats.entries_failed, 0);
	must_be(stats.entries_hidden, 0);
	must_be(stats.entries_free + stats.entries_finished, stats.max_entries);
	must_be(scratch_blobs(), stats.entries_finished);
}

static glob_t find(const char *dir, const char *pattern)
{
	glob_t found = { .gl_pathc = 0 };
	char path[400];

	must(snprintf(path, sizeof(path), "%s/%s", dir, pattern) < (int)sizeof(path));
	glob(path, 0, NULL, &found);
	return found;
}

int scratch_count(const char *dir, const char *pattern)
{
	glob_t found = find(dir, pattern);
	int count = (int)found.gl_pathc;

	globfree(&found);
	return count;
}

static void find_only(const char *dir, const char *pattern, char *ret_path, size_t bytes)
{
	glob_t found = find(dir, pattern);

	must_be(found.gl_pathc, 1);
	must(snprintf(ret_path, bytes, "%s", found.gl_pathv[0]) < (int)bytes);
	globfree(&found);
}

#define BLOBS "blobs/[0-9a-f]*/*"

int scratch_blobs(void)
{
	return scratch_count(scratch_dir, BLOBS);
}

void scratch_blob(char *ret_path, size_t bytes)
{
	find_only(scratch_dir, BLOBS, ret_path, bytes);
}

void scratch_segment(char *ret_path, size_t bytes)
{
	find_only(scratch_base, "streamcache.*", ret_path, bytes);
}

void scratch_drop_root(void)
{
	if (geteuid() != 0)
		return;
	must(setgroups(0, NULL) == 0);
	must(setgid(NOBODY) == 0);
	must(setuid(NOBODY) == 0);
}

void scratch_give_away(void)
{
	const char *above = getenv("TMPDIR");
	struct stat st;

	if (geteuid() != 0)
		return;
	must(chown(scratch_base, NOBODY, NOBODY) == 0);
	/* The harness makes one for each test, for its owner only. */
	if (above != NULL && stat(above, &st) == 0 && !(st.st_mode & 01))
		must(chmod(above, 0711) == 0);
}

int scratch_is_long(void)
{
	return getenv("STREAMCACHE_TEST_LONG") != NULL;
}

int scratch_run(const char *name, const TTest *const *tests, size_t count)
{
	Suite *suite = suite_create(name);
	SRunner *runner = srunner_create(suite);
	int failed;

	for (size_t i = 0; i < count; i++) {
		TCase *one = tcase_create(tests[i]->name);

		tcase_add_checked_fixture(one, set_up, tear_down);
		tcase_set_timeout(one, DEADLINE_MS / 1000.0 * (scratch_is_long() ? 60 : 1.5));
		tcase_add_test(one, tests[i]);
		suite_add_tcase(suite, one);
	}
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed > 0;
}
