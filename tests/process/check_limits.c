/* SPDX-License-Identifier: MIT */
/*
 * check_limits - what a cache takes of its disk is kept by those who use it: no process
 * sweeps here. What is taken is measured from outside, by whoever has the file system.
 */
#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <glob.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "../util/former.h"
#include "../util/pattern.h"
#include "../util/scratch.h"
#include "../util/spawn.h"

#define WRITERS 4
#define KIB 1024ull
#define MIB (1024 * KIB)
#define PAGE 4096ull
#define HOUR_NS (3600 * 1000000000ull)

static void configure(struct scache *cache, const struct scache_options *changes)
{
	if (scache_configure(cache, changes) != 0)
		spawn_fail(__FILE__, __LINE__, "configure: %s", scache_detail());
}

static void limit_bytes(struct scache *cache, uint64_t max_bytes)
{
	configure(cache, &(struct scache_options){ .size = sizeof(struct scache_options),
						    .max_bytes = max_bytes });
}

static struct scache_options now_of(struct scache *cache)
{
	struct scache_options now = { .size = sizeof(now) };

	must_be(scache_get_options(cache, &now), 0);
	return now;
}

/* One blob, or, if it exists, nothing. What finish says, or what acquire says. */
static int put(struct scache *cache, uint64_t number, uint64_t bytes)
{
	struct scache_acquire_options o = { .size = sizeof(o), .flags = SCACHE_RUN_TO_END };
	struct scache_writer *writer;
	int error = 0, ret;
	char key[24];

	snprintf(key, sizeof(key), "%llu", (unsigned long long)number);
	ret = scache_acquire(cache, key, strlen(key), &o, NULL, &writer);
	if (ret != 0 || writer == NULL)
		return ret;
	ret = pattern_write(writer, number, 0, bytes, 30000, &error) == bytes ?
		      scache_finish(writer) : error;
	scache_writer_close(writer);
	return ret;
}

/* ------------------------------------------------------- measured by the file system */

/* Of a tmpfs: exact, and of one moment. */
static uint64_t taken_bytes(void)
{
	struct statvfs fs;

	must(statvfs(scratch_dir, &fs) == 0);
	return (fs.f_blocks - fs.f_bfree) * fs.f_frsize;
}

static uint64_t free_bytes(void)
{
	struct statvfs fs;

	must(statvfs(scratch_dir, &fs) == 0);
	return fs.f_bavail * fs.f_frsize;
}

/* What is mounted is seen by nobody else, and gone with us. Else the test has been skipped. */
static bool mount_small(const char *options)
{
	if (unshare(CLONE_NEWNS) < 0 || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0) {
		printf("cannot mount a tmpfs: %s\n", strerror(errno));
		return false;
	}
	must(mkdir(scratch_dir, 0700) == 0);
	must(mount("tmpfs", scratch_dir, "tmpfs", 0, options) == 0);
	return true;
}

static void unmount(struct scache *cache)
{
	scratch_close(cache);
	must_be(scache_destroy(scratch_dir, NULL), 0);
	must(umount(scratch_dir) == 0);
}

static uint64_t each_puts;

/* Many that are not wanted for long, of any size up to 80 KiB. */
static void put_many(void *arg)
{
	uint64_t first = *(uint64_t *)arg * each_puts, stored = 0, lost = 0;
	struct scache *cache = scratch_open();

	for (uint64_t i = 0; i < each_puts; i++) {
		uint64_t bytes = 1 + (first + i) * 7919 % (i % 16 == 0 ? 80000 : 8000);
		int ret = put(cache, first + i, bytes);

		must(ret == 0 || ret == SCACHE_NOT_KEPT || ret == SCACHE_BYPASS);
		ret == 0 ? stored++ : lost++;
	}
	child_say((int64_t)stored);
	child_say((int64_t)lost);
	scache_close(cache);
}

START_TEST(without_a_sweeper_many_short_lived_blobs_never_take_more_than_allowed)
{
	uint64_t most = 0, looks = 0, stored = 0, lost = 0, numbers[WRITERS];
	struct child writers[WRITERS];
	struct scache_stats stats;
	struct scache *cache;
	const uint64_t limit = 2 * MIB;

	if (!mount_small("size=64m,mode=0700"))
		return;
	each_puts = (scratch_is_long() ? 100000 : 4000) / WRITERS;
	scratch_options.max_bytes = limit;
	scratch_options.entries = 4096;
	cache = scratch_open();
	for (uint64_t i = 0; i < WRITERS; i++) {
		numbers[i] = i;
		child_start(&writers[i], put_many, &numbers[i]);
	}
	/* The lock file is not the blobs'. */
	do {
		uint64_t taken = taken_bytes();

		most = taken > most ? taken : most;
		looks++;
		stats = scratch_stat(cache);
	} while (stats.finishes + stats.failures + stats.bypasses < WRITERS * each_puts);
	for (int i = 0; i < WRITERS; i++) {
		stored += (uint64_t)child_hear(&writers[i]);
		lost += (uint64_t)child_hear(&writers[i]);
		child_join(&writers[i]);
	}
	printf("%llu stored, %llu not; at most %llu bytes of %llu in %llu looks; evicted %llu\n",
	       (unsigned long long)stored, (unsigned long long)lost, (unsigned long long)most,
	       (unsigned long long)limit, (unsigned long long)looks,
	       (unsigned long long)scratch_stat(cache).evicted);
	must(most <= limit + PAGE);
	must(lost <= stored / 100);
	must(scratch_stat(cache).bytes_used >= limit / 2);
	unmount(cache);
}
END_TEST

START_TEST(what_is_to_stay_free_for_others_stays_free)
{
	const uint64_t keep = 8 * MIB;
	struct scache *cache;
	char path[320];
	int fd;

	if (!mount_small("size=16m,mode=0700"))
		return;
	scratch_options.min_free_bytes = keep;
	scratch_options.entries = 1024;
	cache = scratch_open();
	for (uint64_t i = 0; i < 200; i++) {
		must_be(put(cache, i, 100000), 0);
		must(free_bytes() >= keep);
	}
	must(scratch_stat(cache).evicted > 100);
	must(taken_bytes() > 4 * MIB);
	/* Somebody else takes half of what the cache had: no more than a part of it is late. */
	snprintf(path, sizeof(path), "%s/stranger", scratch_dir);
	fd = open(path, O_CREAT | O_WRONLY, 0600);
	must(fd >= 0 && posix_fallocate(fd, 0, 4 << 20) == 0);
	for (uint64_t i = 0; i < 40; i++)
		must_be(put(cache, 1000 + i, 100000), 0);
	must(free_bytes() >= keep);
	/* And then all: nothing is stored, and nobody is the worse for it. */
	must(posix_fallocate(fd, 4 << 20, 5 << 20) == 0);
	must_be(put(cache, 2000, 100000), SCACHE_NOT_KEPT);
	must_be(scratch_stat(cache).entries_finished, 0);
	close(fd);
	must(unlink(path) == 0);
	must_be(put(cache, 2001, 100000), 0);
	unmount(cache);
}
END_TEST

/* -------------------------------------------------------------------------- changes */

static void watch_options(void *arg)
{
	struct scache *cache = scratch_open();

	(void)arg;
	do
		child_say((int64_t)now_of(cache).max_bytes);
	while (child_listen() != 0);
	must_be(put(cache, 1, 300000), SCACHE_NOT_KEPT);
	must_be(put(cache, 2, 60000), 0);
	scache_close(cache);
}

START_TEST(a_change_is_seen_by_other_processes_at_once)
{
	struct scache *cache = scratch_open();
	struct child child;

	child_start(&child, watch_options, NULL);
	must_be(child_hear(&child), (int64_t)SCACHE_UNLIMITED);
	for (uint64_t bytes = 1 * MIB; bytes >= 128 * KIB; bytes /= 2) {
		limit_bytes(cache, bytes);
		child_tell(&child, 1);
		must_be(child_hear(&child), bytes);
	}
	child_tell(&child, 0);
	child_join(&child);
	scratch_is_clean(cache);
	scratch_close(cache);
}
END_TEST

START_TEST(settings_outlive_the_segment)
{
	for (int how = 0; how < LOSSES; how++) {
		struct scache_options changes = { .size = sizeof(changes),
						  .max_bytes = (uint64_t)(10 + how) * MIB,
						  .low_percent = (uint64_t)(50 + how),
						  .min_free_percent = SCACHE_ZERO,
						  .level = (uint32_t)(2 + how),
						  .max_idle_ns = SCACHE_UNLIMITED };
		struct scache_options now;
		struct scache *cache = scratch_open();

		configure(cache, &changes);
		scratch_close(cache);
		former_lose((enum former_loss)how);
		cache = scratch_open();
		now = now_of(cache);
		must_be(now.max_bytes, changes.max_bytes);
		must_be(now.low_percent, changes.low_percent);
		must_be(now.min_free_percent, SCACHE_ZERO);
		must_be(now.level, changes.level);
		must_be(now.max_idle_ns, SCACHE_UNLIMITED);
		scratch_close(cache);
	}
}
END_TEST

/* The lock file without the lines that a later version has added. */
static void forget_new_lines(void)
{
	static const char *const old[] = { "streamcache", "number", "uuid", "boot", "entries",
					   "peers", "blocks", "rings", "ring_bytes", "max_age_ns",
					   "window_bytes", "segment", "end" };
	char path[340], text[4096], kept[4096] = "", *rest = text, *line;
	FILE *file;
	size_t bytes;

	snprintf(path, sizeof(path), "%s/ctl/lock", scratch_dir);
	file = fopen(path, "r+");
	must(file != NULL);
	bytes = fread(text, 1, sizeof(text) - 1, file);
	text[bytes] = '\0';
	while ((line = strsep(&rest, "\n")) != NULL && *line != '\0')
		for (size_t i = 0; i < sizeof(old) / sizeof(old[0]); i++)
			if (strncmp(line, old[i], strlen(old[i])) == 0 &&
			    (line[strlen(old[i])] == ' ' || line[strlen(old[i])] == '\0'))
				snprintf(kept + strlen(kept), sizeof(kept) - strlen(kept), "%s\n",
					 line);
	must(strlen(kept) < bytes);
	rewind(file);
	must(ftruncate(fileno(file), 0) == 0 && fputs(kept, file) >= 0 && fclose(file) == 0);
}

START_TEST(a_record_of_an_older_version_means_the_defaults)
{
	const struct scache_options wishes = { .size = sizeof(wishes),
					       .segment_dir = scratch_options.segment_dir };
	struct scache *cache = scratch_open();
	struct scache_options now;
	struct statvfs fs;

	scratch_close(cache);
	forget_new_lines();
	former_lose(LOST_FILE);
	must_be(scache_open(scratch_dir, &wishes, &cache), 0);
	now = now_of(cache);
	must(statvfs(scratch_dir, &fs) == 0);
	must_be(now.max_bytes, (uint64_t)fs.f_blocks * fs.f_frsize / 100 * 10);
	must_be(now.min_free_percent, 5);
	must_be(now.low_percent, 95);
	must_be(now.min_occurrences, 1);
	must_be(now.max_idle_ns, SCACHE_UNLIMITED);
	must_be(now.level, 1);
	must_be(now.max_age_ns, SCACHE_UNLIMITED); /* which it had */
	must_be(now.entries, scratch_options.entries);
	scratch_close(cache);
}
END_TEST

START_TEST(impossible_changes_are_refused_and_named)
{
	static const struct {
		struct scache_options changes;
		const char *named;
	} wrong[] = {
		{ { .max_bytes = 1 }, "max_bytes" },
		{ { .max_bytes = SCACHE_ZERO }, "max_bytes" },
		{ { .max_entries = SCACHE_ZERO }, "max_entries" },
		{ { .max_entries = 1ull << 40 }, "max_entries" },
		{ { .low_percent = 101 }, "low_percent" },
		{ { .low_percent = SCACHE_ZERO }, "low_percent" },
		{ { .min_free_percent = 100 }, "min_free_percent" },
		{ { .min_free_bytes = SCACHE_UNLIMITED }, "min_free_bytes" },
		{ { .max_idle_ns = 1 }, "max_idle_ns" },
		{ { .max_fill_ns = SCACHE_ZERO }, "max_fill_ns" },
		{ { .min_occurrences = 256 }, "min_occurrences" },
		{ { .max_age_ns = 1ull << 63 }, "max_age_ns" },
		{ { .compression = 77 }, "compression" },
		{ { .level = 13 }, "level" },
		{ { .durability = 9 }, "durability" },
		{ { .verify = 9 }, "verify" },
		{ { .entries = 100 }, "entries" },
		{ { .flags = SCACHE_PASS_THROUGH }, "flags" },
	};
	struct scache *cache = scratch_open();
	struct scache_options before = now_of(cache), after;

	for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
		struct scache_options changes = wrong[i].changes;

		changes.size = sizeof(changes);
		must_be(scache_configure(cache, &changes), -EINVAL);
		if (strstr(scache_detail(), wrong[i].named) == NULL)
			spawn_fail(__FILE__, __LINE__, "%s: '%s'", wrong[i].named, scache_detail());
	}
	must_be(scache_configure(cache, NULL), -EINVAL);
	after = now_of(cache);
	must(memcmp(&before, &after, sizeof(before)) == 0);
	/* Nothing is no change. */
	configure(cache, &(struct scache_options){ .size = sizeof(before) });
	scratch_close(cache);
}
END_TEST

/* ------------------------------------------------------------------- former segments */

/* Of the blobs that there are. */
static uint64_t blob_bytes(void)
{
	char command[400];
	unsigned long long bytes;
	FILE *pipe;

	snprintf(command, sizeof(command),
		 "find %s/blobs -type f -printf '%%b\\n' | awk '{s += $1 * 512} END {print s + 0}'",
		 scratch_dir);
	pipe = popen(command, "r");
	must(pipe != NULL && fscanf(pipe, "%llu", &bytes) == 1);
	pclose(pipe);
	return bytes;
}

START_TEST(blobs_of_a_lost_segment_count_and_make_way)
{
	struct scache *cache = scratch_open();
	uint64_t left;

	scratch_options.entries = 64;
	for (uint64_t i = 0; i < 30; i++)
		must_be(put(cache, i, 100000), 0);
	left = blob_bytes();
	must(left >= 3000000);
	limit_bytes(cache, 4 * MIB);
	scratch_close(cache);
	former_lose(LOST_FILE);
	cache = scratch_open();
	/* They count as soon as somebody looks for room. */
	must_be(put(cache, 100, 100000), 0);
	must_be(scratch_stat(cache).bytes_used, blob_bytes());
	must_be(scratch_stat(cache).adopted, 0);
	for (uint64_t i = 101; i < 130; i++) {
		must_be(put(cache, i, 100000), 0);
		must(blob_bytes() <= 4 * MIB);
	}
	must(scratch_stat(cache).adopted > 0);
	/* What is stored now is of both. */
	must_be(scratch_stat(cache).bytes_used, blob_bytes());
	must(scratch_stat(cache).evicted >= 20);
	scratch_is_clean(cache);
	scratch_close(cache);
}
END_TEST

START_TEST(what_has_expired_in_a_lost_segment_goes_before_what_is_new)
{
	struct scache *cache;
	glob_t found;
	char blobs[320];

	scratch_options.max_age_ns = HOUR_NS;
	cache = scratch_open();
	for (uint64_t i = 0; i < 20; i++)
		must_be(put(cache, i, 100000), 0);
	scratch_close(cache);
	former_lose(LOST_FILE);
	snprintf(blobs, sizeof(blobs), "%s/blobs/*/*", scratch_dir);
	must(glob(blobs, 0, NULL, &found) == 0);
	for (size_t i = 0; i < found.gl_pathc; i++)
		former_age(found.gl_pathv[i], 2 * HOUR_NS);
	globfree(&found);
	cache = scratch_open();
	limit_bytes(cache, 3 * MIB);
	for (uint64_t i = 100; i < 125; i++) {
		must_be(put(cache, i, 100000), 0);
		must_be(scratch_stat(cache).bytes_used, blob_bytes());
		must(blob_bytes() <= 3 * MIB);
	}
	must_be(scratch_stat(cache).evicted, 0);
	must_be(scratch_stat(cache).entries_finished, 25);
	scratch_is_clean(cache);
	scratch_close(cache);
}
END_TEST

START_TEST(a_limit_that_a_lost_segment_exceeds_is_kept_by_the_first_who_needs_room)
{
	struct scache *cache = scratch_open();

	for (uint64_t i = 0; i < 30; i++)
		must_be(put(cache, i, 100000), 0);
	scratch_close(cache);
	former_lose(LOST_BOOT);
	cache = scratch_open();
	limit_bytes(cache, 1 * MIB);
	must_be(put(cache, 100, 100000), 0);
	must(blob_bytes() <= 1 * MIB);
	must_be(scratch_stat(cache).bytes_used, blob_bytes());
	scratch_close(cache);
}
END_TEST

int main(void)
{
	const TTest *const tests[] = {
		without_a_sweeper_many_short_lived_blobs_never_take_more_than_allowed,
		what_is_to_stay_free_for_others_stays_free,
		a_change_is_seen_by_other_processes_at_once,
		settings_outlive_the_segment,
		a_record_of_an_older_version_means_the_defaults,
		impossible_changes_are_refused_and_named,
		blobs_of_a_lost_segment_count_and_make_way,
		what_has_expired_in_a_lost_segment_goes_before_what_is_new,
		a_limit_that_a_lost_segment_exceeds_is_kept_by_the_first_who_needs_room,
	};

	return SCRATCH_RUN("limits", tests);
}
