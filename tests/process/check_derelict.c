/* SPDX-License-Identifier: MIT */
/*
 * check_derelict - segments of caches whose directory has vanished: they go with a sweep of
 * any other cache, unless somebody has them open; everything else in a segment
 * directory stays.
 */
#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"
#include "shm/layout.h"
#include "../util/pattern.h"
#include "../util/scratch.h"
#include "../util/spawn.h"

#define DIGITS "00112233445566778899aabbccddeeff"

static char old_dir[320], old_path[400]; /* of the cache that vanishes, of its segment */

/* What the last sweep said of segments and strangers: "why ", with its mark of removal. */
static char said[400];

static void note(void *arg, const struct scache_victim *victim)
{
	size_t length = strlen(said);

	(void)arg;
	snprintf(said + length, sizeof(said) - length, "%s%s;", victim->removed ? "" : "left ",
		 victim->why);
}

static void sweep(struct scache *cache, uint32_t flags, const char *expected)
{
	const struct scache_sweep_options options = { .size = sizeof(options),
						      .flags = flags,
						      .victim = note };

	said[0] = '\0';
	must_be(scache_sweep(cache, &options, NULL), 0);
	if (strcmp(said, expected) != 0)
		spawn_fail(__FILE__, __LINE__, "said '%s', not '%s'", said, expected);
}

/* As if it had been made @seconds ago. */
static void make_old(const char *path, int seconds)
{
	struct timespec times[2] = { { .tv_nsec = UTIME_OMIT }, { .tv_nsec = 0 } };

	times[1].tv_sec = time(NULL) - seconds;
	must(utimensat(AT_FDCWD, path, times, AT_SYMLINK_NOFOLLOW) == 0);
}

/* The first cache, which has a segment and a blob, and is not attached to. */
static void make_old_cache(void)
{
	struct scache *cache = scratch_open();

	scratch_segment(old_path, sizeof(old_path));
	pattern_produce(scratch_create(cache, "k", 0, NULL), 1, 1000, 1000);
	scratch_close(cache);
	make_old(old_path, 120);
}

/* `rm -rf`, or `mv`: at the place where it was there is nothing. */
static void lose_directory(void)
{
	snprintf(old_dir, sizeof(old_dir), "%s.gone", scratch_dir);
	must(rename(scratch_dir, old_dir) == 0);
}

/* Another cache with the same segment directory. */
static struct scache *open_other(void)
{
	snprintf(scratch_dir, sizeof(scratch_dir), "%s/other", scratch_base);
	return scratch_open();
}

static bool is_there(void)
{
	return access(old_path, F_OK) == 0;
}

START_TEST(a_segment_whose_cache_has_vanished_goes)
{
	struct scache *cache;

	make_old_cache();
	cache = open_other();
	sweep(cache, 0, "");
	snprintf(scratch_dir, sizeof(scratch_dir), "%s/cache", scratch_base);
	lose_directory();
	sweep(cache, SCACHE_DRY_RUN, "left segment;");
	must(is_there());
	sweep(cache, 0, "segment;");
	must(!is_there());
	sweep(cache, 0, "");
	must_be(scratch_count(scratch_base, "streamcache.*"), 1);
	scratch_close(cache);
	/* Whoever finds the directory again has lost nothing but its memory. */
	snprintf(scratch_dir, sizeof(scratch_dir), "%s/cache", scratch_base);
	must(rename(old_dir, scratch_dir) == 0);
	cache = scratch_open();
	scache_reader_close(scratch_find(cache, "k"));
	scratch_close(cache);
}
END_TEST

START_TEST(one_that_its_cache_has_replaced_goes)
{
	struct scache *cache;
	char aside[420];

	make_old_cache();
	snprintf(aside, sizeof(aside), "%s.aside", old_path);
	must(rename(old_path, aside) == 0);
	scratch_close(scratch_open());
	must(rename(aside, old_path) == 0);
	make_old(old_path, 120);
	cache = open_other();
	sweep(cache, 0, "segment;");
	must(!is_there());
	must_be(scratch_count(scratch_base, "streamcache.*"), 2);
	scratch_close(cache);
}
END_TEST

static void hold_open(void *arg)
{
	int fd = open(old_path, *(const int *)arg | O_CLOEXEC);

	must(fd >= 0);
	child_say(0);
	child_listen();
}

static void hold_mapped(void *arg)
{
	int fd = open(old_path, O_RDWR | O_CLOEXEC);

	must(mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0) != MAP_FAILED);
	close(fd);
	(void)arg;
	child_say(0);
	child_listen();
}

static void spares(void (*hold)(void *arg), void *arg, const char *expected)
{
	struct scache *cache;
	struct child child;

	make_old_cache();
	lose_directory();
	cache = open_other();
	child_start(&child, hold, arg);
	child_hear(&child);
	sweep(cache, 0, expected);
	must_be(is_there(), *expected == '\0');
	child_kill(&child);
	if (is_there())
		make_old(old_path, 120);
	sweep(cache, 0, *expected == '\0' ? "segment;" : "");
	must(!is_there());
	scratch_close(cache);
}

START_TEST(one_that_is_open_for_writing_stays)
{
	int flags = O_RDWR;

	spares(hold_open, &flags, "");
}
END_TEST

START_TEST(one_that_is_mapped_stays)
{
	spares(hold_mapped, NULL, "");
}
END_TEST

START_TEST(one_that_is_only_looked_at_goes)
{
	int flags = O_RDONLY;

	spares(hold_open, &flags, "segment;");
}
END_TEST

static void use_cache(void *arg)
{
	(void)arg;
	scratch_open();
	child_say(0);
	child_stay();
}

START_TEST(a_cache_that_is_in_use_stays_wherever_its_directory_is)
{
	struct scache *cache;
	struct child child;

	make_old_cache();
	child_start(&child, use_cache, NULL);
	child_hear(&child);
	lose_directory();
	cache = open_other();
	sweep(cache, 0, "");
	must(is_there());
	child_kill(&child);
	/* On a disk's file system what was mapped has been written to now. */
	make_old(old_path, 120);
	sweep(cache, 0, "segment;");
	scratch_close(cache);
}
END_TEST

static void change_header(size_t offset, char byte)
{
	int fd = open(old_path, O_RDWR | O_CLOEXEC);

	must(pwrite(fd, &byte, 1, (off_t)offset) == 1);
	close(fd);
	make_old(old_path, 120);
}

START_TEST(one_that_is_young_or_cannot_be_told_stays)
{
	const size_t dir = offsetof(struct shm_header, dir);
	struct scache *cache;

	make_old_cache();
	lose_directory();
	cache = open_other();
	make_old(old_path, 50);
	sweep(cache, 0, "");
	make_old(old_path, -50);
	sweep(cache, 0, "");
	/* A path that fills its field may be another one's beginning. */
	for (size_t i = 0; i < 255; i++)
		change_header(dir + i, '/');
	sweep(cache, 0, "");
	change_header(dir, 'x');
	sweep(cache, 0, "");
	change_header(dir, '/');
	change_header(dir + 20, '\0');
	change_header(offsetof(struct shm_header, uuid), '?');
	sweep(cache, 0, "");
	must(is_there());
	scratch_close(cache);
}
END_TEST

/* Another version's, and one whose maker has died before the last word. */
START_TEST(one_of_any_layout_goes_and_one_that_was_never_used)
{
	struct scache *cache;

	for (int i = 0; i < 2; i++) {
		make_old_cache();
		lose_directory();
		cache = open_other();
		for (size_t byte = 0; byte < (i == 0 ? 4 : 8); byte++)
			change_header((i == 0 ? offsetof(struct shm_header, layout) : 0) + byte, 0);
		sweep(cache, 0, "segment;");
		must(!is_there());
		scratch_close(cache);
		must_be(scache_destroy(scratch_dir, NULL), 0);
		snprintf(scratch_dir, sizeof(scratch_dir), "%s/again", scratch_base);
	}
}
END_TEST

START_TEST(what_only_has_the_name_of_one_is_left)
{
	struct scache *cache = open_other();
	char path[400];
	int ret, fd;

	for (int i = 0; i < 4; i++) {
		snprintf(path, sizeof(path), "%s/streamcache.%d%s", scratch_base, i, &DIGITS[1]);
		ret = i == 0 ? mkdir(path, 0700) : i == 1 ? symlink("/etc/passwd", path) :
		      mknod(path, (i == 2 ? S_IFSOCK : S_IFREG) | 0600, 0);
		must_be(ret, 0);
		if (i == 3)
			must(truncate(path, 8192) == 0);
		make_old(path, 120);
	}
	/* This one is not even called so. */
	snprintf(path, sizeof(path), "%s/streamcache.%s0", scratch_base, DIGITS);
	fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
	must(fd >= 0 && close(fd) == 0);
	make_old(path, 120);
	sweep(cache, 0, "");
	must_be(scratch_count(scratch_base, "streamcache.*"), 6);
	scratch_close(cache);
}
END_TEST

int main(void)
{
	const TTest *const tests[] = {
		a_segment_whose_cache_has_vanished_goes,
		one_that_its_cache_has_replaced_goes,
		one_that_is_open_for_writing_stays,
		one_that_is_mapped_stays,
		one_that_is_only_looked_at_goes,
		a_cache_that_is_in_use_stays_wherever_its_directory_is,
		one_of_any_layout_goes_and_one_that_was_never_used,
		one_that_is_young_or_cannot_be_told_stays,
		what_only_has_the_name_of_one_is_left,
	};

	return SCRATCH_RUN("derelict", tests);
}
