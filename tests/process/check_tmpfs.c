/* SPDX-License-Identifier: MIT */
/*
 * check_tmpfs - full file systems, made small for the purpose: needs to mount.
 */
#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "../util/pattern.h"
#include "../util/scratch.h"
#include "../util/spawn.h"

#define BLOB_BYTES 8000000ull

static void mount_small(const char *path, const char *options)
{
	must(mkdir(path, 0700) == 0);
	must(mount("tmpfs", path, "tmpfs", 0, options) == 0);
}

static void end_on(struct scache *cache, const char *mounted)
{
	scratch_is_clean(cache);
	scratch_close(cache);
	must_be(scache_destroy(scratch_dir, NULL), 0);
	must(umount(mounted) == 0);
}

/* --------------------------------------------------------------------- the disk */

static void produce(void *arg)
{
	int finish = *(int *)arg, error = 0;
	struct scache_writer *writer = scratch_create(scratch_open(), "k", 0, NULL);

	child_say(0);
	child_listen();
	must_be(pattern_write(writer, 1, 0, BLOB_BYTES, 30000, &error), BLOB_BYTES);
	must_be(scache_finish(writer), finish);
	scache_writer_close(writer);
}

static uint64_t blob_bytes = BLOB_BYTES;

static void fill_disk(void)
{
	int finish = SCACHE_NOT_KEPT;
	struct scache *cache;
	struct child writer, readers[2];

	mount_small(scratch_dir, "size=3m,mode=0700");
	cache = scratch_open();
	child_start(&writer, produce, &finish);
	child_hear(&writer);
	for (int i = 0; i < 2; i++) {
		child_start(&readers[i], scratch_read_along, &blob_bytes);
		child_hear(&readers[i]);
	}
	child_tell(&writer, 0);
	for (int i = 0; i < 2; i++)
		child_join(&readers[i]);
	child_join(&writer);
	must(scratch_misses(cache, "k"));
	must_be(scratch_stat(cache).degraded, 1);
	scratch_is_clean(cache);
	/* The room is back. */
	pattern_produce(scratch_create(cache, "k", 0, NULL), 1, 2000000, 100000);
	must(!scratch_misses(cache, "k"));
	scratch_close(cache);
	must_be(scache_destroy(scratch_dir, NULL), 0);
	must(umount(scratch_dir) == 0);
	must(rmdir(scratch_dir) == 0 || access(scratch_dir, F_OK) < 0);
}

START_TEST(a_full_disk_is_noticed_by_nobody)
{
	fill_disk();
}
END_TEST

START_TEST(a_disk_that_fills_while_it_is_compressed_is_noticed_by_nobody)
{
	static const uint32_t levels[] = { 1, 12 };

	scratch_options.ring_bytes = 1 << 20;
	scratch_options.compression = SCACHE_LZ4;
	for (size_t i = 0; i < sizeof(levels) / sizeof(levels[0]); i++) {
		scratch_options.level = levels[i];
		fill_disk();
	}
}
END_TEST

/* ------------------------------------------------------------ full from the start */

/* All but @spare bytes of the file system are somebody else's. */
static void fill_up(const char *path, uint64_t spare)
{
	struct statvfs fs;
	int fd = open(path, O_WRONLY | O_CREAT | O_EXCL, 0600);

	must(fd >= 0 && fstatvfs(fd, &fs) == 0);
	must(posix_fallocate(fd, 0, (off_t)(fs.f_bavail * fs.f_frsize - spare)) == 0);
	must(close(fd) == 0);
}

/* @key of @bytes, of which so many are declared, and read; what finish says. */
static int put_declared(struct scache *cache, const char *key, uint64_t declared, uint64_t bytes)
{
	struct scache_acquire_options options = { .size = sizeof(options),
						  .declared_bytes = declared };
	struct scache_reader *reader;
	struct scache_writer *writer = NULL;
	uint64_t at = 0;
	int ret, error = 0;

	must_be(scache_acquire(cache, key, strlen(key), &options, &reader, &writer), 0);
	must(writer != NULL);
	for (uint64_t done = 0; done < bytes; done = at) {
		uint64_t until = done + 50000 < bytes ? done + 50000 : bytes;

		must_be(pattern_write(writer, 1, done, until, 50000, &error), until - done);
		must_be(pattern_read(reader, 1, &at, until, 50000), 1);
	}
	ret = scache_finish(writer);
	scache_writer_close(writer);
	scache_reader_close(reader);
	return ret;
}

START_TEST(without_an_inode_for_a_new_blob_an_old_one_goes)
{
	struct scache *cache;
	char key[] = "0";

	mount_small(scratch_dir, "size=8m,nr_inodes=30,mode=0700");
	cache = scratch_open();
	for (int i = 0; i < 20; i++) {
		key[0] = (char)('a' + i);
		must_be(put_declared(cache, key, 0, 10000), 0);
		must(!scratch_misses(cache, key));
	}
	must(scratch_stat(cache).evicted > 0);
	must_be(scratch_stat(cache).failures, 0);
	must_be(scratch_stat(cache).bypasses, 0);
	end_on(cache, scratch_dir);
}
END_TEST

/* All of it is still in the ring when it is finished: one write at the end, and one more. */
START_TEST(on_a_full_disk_a_small_blob_has_the_place_of_another)
{
	struct scache *cache;
	char key[] = "0", other[320];

	mount_small(scratch_dir, "size=8m,mode=0700");
	snprintf(other, sizeof(other), "%s/other", scratch_dir);
	cache = scratch_open();
	for (int i = 0; i < 20; i++) {
		key[0] = (char)('a' + i);
		must_be(put_declared(cache, key, 0, 60000), 0);
	}
	for (int i = 0; i < 3; i++) {
		fill_up(other, 0);
		key[0] = (char)('0' + i);
		must_be(put_declared(cache, key, 0, 30000), 0);
		must(!scratch_misses(cache, key));
		must_be(scratch_stat(cache).evicted, i + 1);
		must(unlink(other) == 0);
	}
	end_on(cache, scratch_dir);
}
END_TEST

START_TEST(for_a_declared_size_others_go_only_if_that_helps)
{
	const struct scache_options allowed = { .size = sizeof(allowed), .max_bytes = 7500000 };
	struct scache *cache;

	mount_small(scratch_dir, "size=8m,mode=0700");
	cache = scratch_open();
	must_be(put_declared(cache, "a", 0, 2500000), 0);
	must_be(put_declared(cache, "b", 0, 2500000), 0);
	/* More than there is at all: nobody goes, and it is from the ring. */
	must_be(put_declared(cache, "too large", 9000000, 9000000), SCACHE_NOT_KEPT);
	must_be(scratch_stat(cache).evicted, 0);
	/* As much as there is if one of them goes, but more than is allowed. */
	must_be(scache_configure(cache, &allowed), 0);
	must_be(put_declared(cache, "not allowed", 7600000, 7600000), SCACHE_NOT_KEPT);
	must_be(scratch_stat(cache).evicted, 0);
	must_be(put_declared(cache, "c", 4500000, 4500000), 0);
	must_be(scratch_stat(cache).evicted, 1);
	must_be(scratch_stat(cache).degraded, 2);
	end_on(cache, scratch_dir);
}
END_TEST

START_TEST(a_segment_on_the_disk_that_is_full_has_fewer_rings_or_is_done_without)
{
	char other[320];
	struct scache *cache;

	must(mount("tmpfs", scratch_base, "tmpfs", 0, "size=8m,mode=0700") == 0);
	snprintf(other, sizeof(other), "%s/other", scratch_base);
	fill_up(other, 100000);
	scratch_options.segment_dir = NULL;
	must_be(scache_open(scratch_dir, &scratch_options, &cache), -ENOSPC);
	must(unlink(other) == 0);
	fill_up(other, 1000000);
	cache = scratch_open();
	must(scratch_stat(cache).max_rings > 0 && scratch_stat(cache).max_rings < 8);
	must_be(put_declared(cache, "k", 0, 3000000), SCACHE_NOT_KEPT);
	must_be(scratch_stat(cache).failures, 0);
	end_on(cache, scratch_base);
}
END_TEST

/* -------------------------------------------------------------- a small /dev/shm */

START_TEST(a_segment_that_does_not_fit_is_said_so_and_leaves_nothing)
{
	char shm[300];
	struct scache *cache;

	snprintf(shm, sizeof(shm), "%s/shm", scratch_base);
	mount_small(shm, "size=64k,mode=0700");
	scratch_options.segment_dir = shm;
	must_be(scache_open(scratch_dir, &scratch_options, &cache), -ENOSPC);
	must(strstr(scache_detail(), shm) != NULL);
	must_be(scratch_count(shm, "*"), 0);
	/* Elsewhere there is room. */
	scratch_options.segment_dir = scratch_base;
	scratch_close(scratch_open());
	must_be(scache_destroy(scratch_dir, NULL), 0);
	must(umount(shm) == 0);
}
END_TEST

START_TEST(a_segment_that_fits_in_part_has_fewer_rings)
{
	char shm[300];
	struct scache *cache;
	struct scache_stats stats;

	snprintf(shm, sizeof(shm), "%s/shm", scratch_base);
	mount_small(shm, "size=1m,mode=0700");
	scratch_options.segment_dir = shm;
	cache = scratch_open();
	stats = scratch_stat(cache);
	must(stats.max_rings > 0 && stats.max_rings < scratch_options.rings);
	must(stats.segment_bytes <= 1 << 20);
	pattern_produce(scratch_create(cache, "k", 0, NULL), 1, 1000000, 100000);
	scratch_is_clean(cache);
	scratch_close(cache);
	must_be(scache_destroy(scratch_dir, NULL), 0);
	must_be(scratch_count(shm, "*"), 0);
	must(umount(shm) == 0);
}
END_TEST

START_TEST(on_a_tmpfs_the_segment_stands_in_the_cache_itself)
{
	struct scache_options options = { .size = sizeof(options) };
	struct scache *cache;
	char ctl[320];

	mount_small(scratch_dir, "size=8m,mode=0700");
	scratch_options.segment_dir = NULL;
	cache = scratch_open();
	must_be(scache_get_options(cache, &options), 0);
	snprintf(ctl, sizeof(ctl), "%s/ctl", scratch_dir);
	must(strcmp(options.segment_dir, ctl) == 0);
	must_be(scratch_count(ctl, "*"), 2);
	scratch_close(cache);
	must_be(scache_destroy(scratch_dir, NULL), 0);
	must_be(scratch_count(scratch_dir, "*"), 0);
	must(umount(scratch_dir) == 0);
}
END_TEST

int main(void)
{
	const TTest *const tests[] = {
		a_full_disk_is_noticed_by_nobody,
		a_disk_that_fills_while_it_is_compressed_is_noticed_by_nobody,
		without_an_inode_for_a_new_blob_an_old_one_goes,
		on_a_full_disk_a_small_blob_has_the_place_of_another,
		for_a_declared_size_others_go_only_if_that_helps,
		a_segment_on_the_disk_that_is_full_has_fewer_rings_or_is_done_without,
		a_segment_that_does_not_fit_is_said_so_and_leaves_nothing,
		a_segment_that_fits_in_part_has_fewer_rings,
		on_a_tmpfs_the_segment_stands_in_the_cache_itself,
	};

	/* What is mounted is seen by nobody else, and gone with us. */
	if (unshare(CLONE_NEWNS) < 0 || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0) {
		printf("cannot mount a tmpfs: %s\n", strerror(errno));
		return 77;
	}
	return SCRATCH_RUN("tmpfs", tests);
}
