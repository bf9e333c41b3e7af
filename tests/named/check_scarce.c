/* SPDX-License-Identifier: MIT */
/*
 * check_scarce - T14: too few pages, descriptors, or memory, in each amount that is
 * too few: an error code, no signal, and nothing left behind. A full disk and a
 * file system without locks: tests/process/check_faults.c and check_tmpfs.c.
 */
#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "../util/pattern.h"
#include "../util/scratch.h"
#include "../util/spawn.h"

#define DESCRIPTORS 16
#define PAGE_BYTES 4096
#define MEMCG "/sys/fs/cgroup/memory/streamcache-test"
#define MEMCG_BYTES (8u << 20)

static void put_and_get(struct scache *cache)
{
	struct scache_reader *reader;

	pattern_produce(scratch_create(cache, "k", 0, &reader), 1, 20000, 5000);
	pattern_read_all(reader, 1, 20000);
	scache_reader_close(reader);
}

/* ------------------------------------------------------------------- descriptors */

static int count_descriptors(void)
{
	return scratch_count("/proc/self/fd", "*");
}

/* With @spare descriptors to be had: in, or an error and not one of them lost. */
static int open_with(int spare, struct scache **ret_cache)
{
	int held[DESCRIPTORS + 1], before = count_descriptors(), count = 0, ret;
	struct rlimit limit;

	must(getrlimit(RLIMIT_NOFILE, &limit) == 0);
	/* The lowest free numbers, then no more. */
	for (; count < spare; count++)
		must((held[count] = dup(0)) >= 0);
	limit.rlim_cur = spare == 0 ? 3 : (rlim_t)held[count - 1] + 1;
	while (count > 0)
		close(held[--count]);
	if (spare == 0)
		limit.rlim_cur = 0;
	must(setrlimit(RLIMIT_NOFILE, &limit) == 0);
	ret = scache_open(scratch_dir, &scratch_options, ret_cache);
	limit.rlim_cur = limit.rlim_max;
	must(setrlimit(RLIMIT_NOFILE, &limit) == 0);
	must(ret < 0 || *ret_cache != NULL);
	must(ret == 0 || ret == -EMFILE);
	if (ret < 0)
		must_be(count_descriptors(), before);
	return ret;
}

START_TEST(t14_too_few_descriptors_to_open_are_told_and_none_is_lost)
{
	int spare, refused = 0;
	struct scache *cache;

	for (spare = 0; spare < DESCRIPTORS; spare++) {
		if (open_with(spare, &cache) < 0) {
			refused++;
			continue;
		}
		put_and_get(cache);
		scratch_is_clean(cache);
		scratch_close(cache);
		must_be(scache_destroy(scratch_dir, NULL), 0);
	}
	/* Some are needed, and not so many. */
	must(refused >= 3 && refused < 10);
}
END_TEST

START_TEST(t14_a_cache_in_use_is_not_replaced_for_lack_of_descriptors)
{
	struct scache *cache = scratch_open(), *second;
	int refused = 0;

	put_and_get(cache);
	for (int spare = 0; spare < DESCRIPTORS; spare++) {
		if (open_with(spare, &second) < 0) {
			refused++;
			continue;
		}
		must(!scratch_misses(second, "k"));
		scratch_close(second);
	}
	must(refused >= 2);
	scratch_is_clean(cache);
	scratch_close(cache);
	/* Nor is one that nobody is attached to at the moment. */
	for (int spare = 0; spare < DESCRIPTORS; spare++) {
		if (open_with(spare, &second) < 0)
			continue;
		must(!scratch_misses(second, "k"));
		scratch_close(second);
	}
}
END_TEST

/* ------------------------------------------------------------------------- pages */

/* A tmpfs of @pages: in with what rings there is room for, or an error and no file. */
static int open_in_pages(const char *shm, unsigned pages)
{
	struct scache *cache;
	char options[60];
	int ret;

	snprintf(options, sizeof(options), "size=%u,mode=0700", pages * PAGE_BYTES);
	must(mount("tmpfs", shm, "tmpfs", 0, options) == 0);
	ret = scache_open(scratch_dir, &scratch_options, &cache);
	must(ret == 0 || ret == -ENOSPC);
	if (ret == 0) {
		put_and_get(cache);
		scratch_is_clean(cache);
		scratch_close(cache);
		must_be(scache_destroy(scratch_dir, NULL), 0);
	}
	must_be(scratch_count(shm, "*"), 0);
	must(umount(shm) == 0);
	return ret;
}

static void open_in_any_pages(void *arg)
{
	char shm[300];
	unsigned pages, refused = 0, most = 200;

	(void)arg;
	must(unshare(CLONE_NEWNS) == 0);
	must(mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) == 0);
	snprintf(shm, sizeof(shm), "%s/shm", scratch_base);
	must(mkdir(shm, 0700) == 0);
	scratch_options.segment_dir = shm;
	scratch_options.entries = 16;
	scratch_options.peers = 4;
	scratch_options.readers = 128;
	scratch_options.rings = 4;
	scratch_options.ring_bytes = 64 << 10;
	/* One page more each time, until rings and all have room. */
	for (pages = 1; pages < most; pages += pages < 16 ? 1 : 7)
		refused += open_in_pages(shm, pages) < 0;
	must(refused >= 3 && refused < 16);
}

START_TEST(t14_too_few_pages_for_a_segment_are_told_and_leave_nothing)
{
	struct child child;

	child_start(&child, open_in_any_pages, NULL);
	child_join(&child);
}
END_TEST

/* ------------------------------------------------------------------------ memory */

static bool put_text(const char *path, const char *text)
{
	FILE *file = fopen(path, "w");
	bool good = file != NULL && fputs(text, file) >= 0;

	return file != NULL && fclose(file) == 0 && good;
}

/* A segment larger than the memory that this process may have. */
static void open_in_little_memory(void *arg)
{
	struct scache *cache;
	char text[30];
	int ret;

	(void)arg;
	snprintf(text, sizeof(text), "%d", (int)getpid());
	must(put_text(MEMCG "/cgroup.procs", text));
	scratch_options.segment_dir = "/dev/shm";
	scratch_options.rings = 16;
	scratch_options.ring_bytes = 4 << 20;
	ret = scache_open(scratch_dir, &scratch_options, &cache);
	child_say(ret);
	if (ret < 0)
		return;
	put_and_get(cache);
	scratch_close(cache);
	must_be(scache_destroy(scratch_dir, NULL), 0);
}

START_TEST(t14_a_limit_of_memory_is_no_signal_of_ours)
{
	char text[30];
	struct child child;
	int status;

	if (!scratch_is_long() || mkdir(MEMCG, 0700) < 0)
		return;
	snprintf(text, sizeof(text), "%u", MEMCG_BYTES);
	if (put_text(MEMCG "/memory.limit_in_bytes", text)) {
		child_start(&child, open_in_little_memory, NULL);
		status = child_end(&child);
		/* The kernel may kill whoever is over its limit, but with no SIGBUS. */
		printf("T14: in little memory: status %d\n", status);
		must(status == 0 || status == -SIGKILL);
	}
	eventually(rmdir(MEMCG) == 0);
	/* What a killed creator left is removed by whoever comes. */
	scratch_close(scratch_open());
	must_be(scache_destroy(scratch_dir, NULL), 0);
}
END_TEST

int main(void)
{
	const TTest *const tests[] = {
		t14_too_few_descriptors_to_open_are_told_and_none_is_lost,
		t14_a_cache_in_use_is_not_replaced_for_lack_of_descriptors,
		t14_a_limit_of_memory_is_no_signal_of_ours,
		t14_too_few_pages_for_a_segment_are_told_and_leave_nothing,
	};
	size_t count = sizeof(tests) / sizeof(tests[0]);

	if (geteuid() == 0)
		return scratch_run("scarce", tests, count);
	if (scratch_run("scarce", tests, count - 1) != 0)
		return 1;
	puts("needs to mount for its last test; the others were run");
	return 77;
}
