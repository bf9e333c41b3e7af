/* SPDX-License-Identifier: MIT */
/*
 * check_full_storm - many productions, several at a time and each with its readers, of more
 * than a file system holds: an ext4 or tmpfs made small for the purpose, with a mark or
 * without; and with writes that fail as they like. Nobody is told, no byte is wrong, and
 * what is to be left of the disk is left.
 *
 * make check-long runs it at full length: 50 of 64 MiB on 256 MiB.
 */
#include <check.h>
#include <errno.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "../util/calls.h"

#define AT_ONCE 5
#define READERS 4
#define MIB (1ull << 20)
#define FAIL_ONE_OF 4 /* of the writes that may fail */

/* What all processes count. */
struct seen {
	_Atomic uint64_t kept, not_kept, failed_writes, least_free;
	_Atomic int over, writes_fail;
};

static struct seen *seen;

struct production {
	uint64_t seed, bytes;
};

/* -------------------------------------------------------------------- EIO, at random */

ssize_t __real_pwrite(int fd, const void *data, size_t bytes, off_t offset);
ssize_t __wrap_pwrite(int fd, const void *data, size_t bytes, off_t offset);

ssize_t __wrap_pwrite(int fd, const void *data, size_t bytes, off_t offset)
{
	if (seen != NULL && seen->writes_fail && bytes > 1000 && below(FAIL_ONE_OF) == 0) {
		seen->failed_writes++;
		errno = EIO;
		return -1;
	}
	return __real_pwrite(fd, data, bytes, offset);
}

/* --------------------------------------------------------------------- one production */

static void stir(const struct production *production, uint64_t more)
{
	for (uint64_t i = 0; i < production->seed * 5 + more; i++)
		below(2);
}

static void key_of(const struct production *production, char ret_key[30])
{
	snprintf(ret_key, 30, "production %u", (unsigned)production->seed);
}

static void produce(void *arg)
{
	const struct production *production = arg;
	struct scache *cache = scratch_open();
	struct scache_writer *writer;
	uint64_t done = 0;
	char key[30];
	int ret;

	stir(production, 0);
	key_of(production, key);
	writer = scratch_create(cache, key, 0, NULL);
	child_say(0);
	child_listen();
	while (done < production->bytes) {
		uint64_t until = done + 1 + below(below(3) == 0 ? 600000 : 60000);
		int error = 0;

		until = until < production->bytes ? until : production->bytes;
		must_be(pattern_write(writer, production->seed, done, until, until - done, &error),
			until - done);
		done = until;
	}
	ret = scache_finish(writer);
	must(ret == 0 || ret == SCACHE_NOT_KEPT);
	if (ret == 0)
		seen->kept++;
	else
		seen->not_kept++;
	scache_writer_close(writer);
	scratch_close(cache);
}

/* The next bytes, in one of the ways to have them. */
static ssize_t look(struct scache_reader *reader, uint64_t seed, uint64_t at, size_t most)
{
	static unsigned char data[300000];
	const void *shown = data;
	ssize_t done;

	if (below(3) > 0)
		done = scache_read(reader, data, most, SCACHE_FOREVER);
	else
		done = scache_peek(reader, &shown, most, SCACHE_FOREVER);
	if (done > 0)
		must(pattern_matches(seed, at, shown, (size_t)done));
	if (done > 0 && shown != data)
		must_be(scache_consume(reader, (size_t)done), done);
	return done;
}

struct reading {
	struct production production;
	int number;
};

static void read_along(void *arg)
{
	const struct reading *reading = arg;
	const struct production *production = &reading->production;
	struct scache *cache = scratch_open();
	struct scache_reader *reader;
	uint64_t at = 0;
	char key[30];
	ssize_t done;

	key_of(production, key);
	reader = scratch_find(cache, key);
	stir(production, 1 + (uint64_t)reading->number);
	child_say(0);
	/* The last one takes little at a time: it falls behind. */
	do {
		done = look(reader, production->seed, at,
			    1 + below(reading->number == 0 ? 9000 : 300000));
		must(done >= 0);
		at += (uint64_t)done;
	} while (done > 0);
	must_be(at, production->bytes);
	scache_reader_close(reader);
	scratch_close(cache);
}

/* ---------------------------------------------------------------------------- a storm */

struct storm {
	int productions;
	uint64_t bytes, min_free_bytes;
};

static void watch(void *arg)
{
	struct statvfs fs;

	(void)arg;
	while (!seen->over) {
		must(statvfs(scratch_dir, &fs) == 0);
		if ((uint64_t)fs.f_bavail * fs.f_frsize < seen->least_free)
			seen->least_free = (uint64_t)fs.f_bavail * fs.f_frsize;
		usleep(200);
	}
}

static void run_some(const struct production *productions, int count)
{
	struct child writers[AT_ONCE], readers[AT_ONCE][READERS];
	struct production some[AT_ONCE];
	struct reading reading;

	for (int i = 0; i < count; i++) {
		some[i] = productions[i];
		child_start(&writers[i], produce, &some[i]);
		child_hear(&writers[i]);
		for (int r = 0; r < READERS; r++) {
			reading = (struct reading){ .production = some[i], .number = r };
			child_start(&readers[i][r], read_along, &reading);
			child_hear(&readers[i][r]);
		}
	}
	for (int i = 0; i < count; i++)
		child_tell(&writers[i], 0);
	for (int i = 0; i < count; i++) {
		child_join(&writers[i]);
		for (int r = 0; r < READERS; r++)
			child_join(&readers[i][r]);
	}
}

static void run_storm(const char *where, const struct storm *storm)
{
	struct production *all = calloc((size_t)storm->productions, sizeof(*all));
	struct scache *cache;
	struct scache_stats stats;
	struct child watcher;

	*seen = (struct seen){ .least_free = UINT64_MAX, .writes_fail = seen->writes_fail };
	scratch_options.rings = 4;
	scratch_options.min_free_bytes = storm->min_free_bytes;
	cache = scratch_open();
	child_start(&watcher, watch, NULL);
	for (int i = 0; i < storm->productions; i++)
		all[i] = (struct production){ .seed = (uint64_t)i + 1, .bytes = storm->bytes };
	for (int i = 0; i < storm->productions; i += AT_ONCE)
		run_some(all + i, storm->productions - i < AT_ONCE ? storm->productions - i : AT_ONCE);
	seen->over = 1;
	child_join(&watcher);
	stats = scratch_stat(cache);
	printf("%s: %d of %u MiB, %d readers each: %u kept, %u not; %u degraded, %u rings lent, "
	       "%u MiB punched, %u evicted, %u writes failed; at least %u KiB free\n",
	       where, storm->productions, (unsigned)(storm->bytes / MIB), READERS,
	       (unsigned)seen->kept, (unsigned)seen->not_kept, (unsigned)stats.degraded,
	       (unsigned)stats.emergencies, (unsigned)(stats.bytes_punched / MIB),
	       (unsigned)stats.evicted, (unsigned)seen->failed_writes,
	       (unsigned)(seen->least_free / 1024));
	fflush(stdout);
	must_be(seen->kept + seen->not_kept, storm->productions);
	must_be(stats.failures, 0);
	must_be(stats.bytes_produced, (uint64_t)storm->productions * storm->bytes);
	must_be(stats.degraded, seen->not_kept);
	must(seen->least_free >= storm->min_free_bytes);
	scratch_is_clean(cache);
	scratch_close(cache);
	must_be(scache_destroy(scratch_dir, NULL), 0);
	free(all);
}

/* ------------------------------------------------------------------- where it is run */

static int can_mount(void)
{
	if (unshare(CLONE_NEWNS) == 0 && mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) == 0)
		return 1;
	printf("no full disk is tried: cannot mount: %s\n", strerror(errno));
	return 0;
}

static void mount_tmpfs(unsigned mib)
{
	char options[40];

	must(mkdir(scratch_dir, 0700) == 0);
	snprintf(options, sizeof(options), "size=%um,mode=0700", mib);
	must(mount("tmpfs", scratch_dir, "tmpfs", 0, options) == 0);
}

/* 0 if there are no loop devices, or no mkfs. */
static int mount_ext4(unsigned mib)
{
	char command[3000];

	must(mkdir(scratch_dir, 0700) == 0);
	snprintf(command, sizeof(command),
		 "truncate -s %uM %s/image && mkfs.ext4 -q -m 0 %s/image && "
		 "mount -o loop %s/image %s && rmdir %s/lost+found",
		 mib, scratch_base, scratch_base, scratch_base, scratch_dir, scratch_dir);
	if (system(command) == 0)
		return 1;
	must(rmdir(scratch_dir) == 0);
	return 0;
}

static void storm_on_disk(const char *where, unsigned mib)
{
	struct storm storm = { .productions = 10, .bytes = 8 * MIB, .min_free_bytes = mib * MIB / 16 };

	if (scratch_is_long())
		storm = (struct storm){ .productions = 50, .bytes = 64 * MIB,
					.min_free_bytes = 16 * MIB };
	run_storm(where, &storm);
	/* Whatever there is, to the last byte. */
	storm.min_free_bytes = 0;
	scratch_options.window_bytes = SCACHE_UNLIMITED;
	run_storm(where, &storm);
	must(umount(scratch_dir) == 0);
}

START_TEST(more_than_a_tmpfs_holds_is_noticed_by_nobody)
{
	unsigned mib = scratch_is_long() ? 256 : 32;

	if (!can_mount())
		return;
	mount_tmpfs(mib);
	storm_on_disk("tmpfs", mib);
}
END_TEST

START_TEST(more_than_a_disk_holds_is_noticed_by_nobody)
{
	if (!scratch_is_long() || !can_mount())
		return;
	if (mount_ext4(256))
		storm_on_disk("ext4", 256);
	else
		puts("no ext4 is tried: no loop device, or no mkfs.ext4");
}
END_TEST

START_TEST(writes_that_fail_now_and_then_are_noticed_by_nobody)
{
	struct storm storm = { .productions = 10, .bytes = 4 * MIB };

	if (scratch_is_long())
		storm = (struct storm){ .productions = 50, .bytes = 64 * MIB };
	seen->writes_fail = 1;
	run_storm("EIO", &storm);
	must(seen->failed_writes > 0 && seen->not_kept > 0);
	seen->writes_fail = 0;
}
END_TEST

int main(void)
{
	const TTest *const tests[] = {
		more_than_a_tmpfs_holds_is_noticed_by_nobody,
		more_than_a_disk_holds_is_noticed_by_nobody,
		writes_that_fail_now_and_then_are_noticed_by_nobody,
	};

	seen = mmap(NULL, sizeof(*seen), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	must(seen != MAP_FAILED);
	return SCRATCH_RUN("full_storm", tests);
}
