/* SPDX-License-Identifier: MIT */
/*
 * check_small_tmpfs - no room for the segment, or for a part of it.
 *
 * Mounts a tmpfs of its own, for which it needs to be root; in a mount
 * namespace of its own, so that nothing of it is left.
 */
#include <errno.h>
#include <sched.h>
#include <stdio.h>
#include <sys/mount.h>
#include <unistd.h>

#include "../util/fixture.h"

static struct fixture f;

/* A tmpfs of @bytes over the directory for segments. 0 or -errno. */
static int mount_small(uint64_t bytes)
{
	char options[64];

	snprintf(options, sizeof(options), "size=%llu,mode=0700", (unsigned long long)bytes);
	if (unshare(CLONE_NEWNS) < 0 || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0 ||
	    mount("streamcache-test", f.segments, "tmpfs", MS_NOSUID | MS_NODEV, options) < 0)
		return -errno;
	return 0;
}

static void setup(void)
{
	fixture_begin(&f);
}

static void teardown(void)
{
	fixture_end(&f);
	umount2(f.segments, MNT_DETACH);
	fixture_remove_tree(f.root);
}

/* The size of our segment with @rings rings. */
static uint64_t bytes_with(uint32_t rings)
{
	const struct shm_geometry geometry = { .entries = FIXTURE_ENTRIES,
					       .buckets = 16,
					       .peers = FIXTURE_PEERS,
					       .blocks = FIXTURE_BLOCKS,
					       .rings = rings,
					       .ring_bytes = FIXTURE_RING_BYTES };

	return segment_bytes(&geometry);
}

START_TEST(without_room_for_the_core_open_is_enospc_and_leaves_nothing)
{
	struct scache *cache = NULL;

	ck_assert_int_eq(mount_small(2 * SHM_PAGE_BYTES), 0);
	ck_assert_int_eq(scache_open(f.dir, &f.options, &cache), -ENOSPC);
	ck_assert_ptr_null(cache);
	ck_assert_ptr_nonnull(strstr(scache_detail(), f.segments));
	ck_assert_uint_eq(fixture_count_files(f.segments), 0);
	/* Again and again: nothing piles up. */
	ck_assert_int_eq(scache_open(f.dir, &f.options, &cache), -ENOSPC);
	ck_assert_uint_eq(fixture_count_files(f.segments), 0);
	/* With room it works, and the options are those first asked for. */
	ck_assert_int_eq(umount(f.segments), 0);
	ck_assert_uint_eq(fixture_open(&f)->seat->peer.segment->geometry.rings, FIXTURE_RINGS);
}
END_TEST

START_TEST(without_room_for_all_rings_there_are_fewer)
{
	struct scache_options now = { .size = sizeof(now) };
	struct scache *cache;

	f.options.rings = 8;
	/* They take half of what is free. */
	ck_assert_int_eq(mount_small(bytes_with(6) + SHM_PAGE_BYTES), 0);
	cache = fixture_open(&f);
	ck_assert_int_eq(scache_get_options(cache, &now), 0);
	ck_assert_uint_eq(now.rings, 3);
	ck_assert_uint_eq(cache->seat->peer.segment->bytes, bytes_with(3));
	fixture_produce(cache, "k", "bytes", 5);
	/* Each page of each of them is there. */
	for (uint32_t i = 0; i < 3; i++)
		memset(segment_ring(cache->seat->peer.segment, i), 0xff, FIXTURE_RING_BYTES);
	/* A joiner finds what is there, not what was wished. */
	ck_assert_ptr_eq(fixture_open(&f)->seat->peer.segment, cache->seat->peer.segment);
}
END_TEST

START_TEST(without_room_for_any_ring_files_do_all_the_work)
{
	struct scache_reader *reader;
	struct scache_writer *writer;
	struct scache *cache;
	char data[16];

	ck_assert_int_eq(mount_small(bytes_with(0) + SHM_PAGE_BYTES), 0);
	cache = fixture_open(&f);
	ck_assert_uint_eq(cache->seat->peer.segment->geometry.rings, 0);
	ck_assert_int_eq(scache_acquire(cache, "k", 1, NULL, &reader, &writer), 0);
	ck_assert_int_eq(scache_write(writer, "bytes", 5, 0), 5);
	ck_assert_int_eq(scache_read(reader, data, sizeof(data), 0), 5);
	ck_assert_int_eq(scache_finish(writer), 0);
	ck_assert_int_eq(scache_read(reader, data, sizeof(data), 0), 0);
	scache_writer_close(writer);
	scache_reader_close(reader);
}
END_TEST

/* In a child, whose namespace and mount end with it; no assertions outside of tests. */
static bool may_mount(void)
{
	int status = -1;
	pid_t pid;

	snprintf(f.segments, sizeof(f.segments), "/tmp");
	pid = fork();
	if (pid == 0)
		_exit(mount_small(1 << 20) == 0 ? 0 : 1);
	return pid > 0 && waitpid(pid, &status, 0) == pid && WIFEXITED(status) &&
	       WEXITSTATUS(status) == 0;
}

int main(void)
{
	const TTest *const tests[] = {
		without_room_for_the_core_open_is_enospc_and_leaves_nothing,
		without_room_for_all_rings_there_are_fewer,
		without_room_for_any_ring_files_do_all_the_work,
	};

	if (!may_mount()) {
		printf("mounting a small tmpfs needs root (CAP_SYS_ADMIN)\n");
		return 77;
	}
	return fixture_main("small tmpfs", setup, teardown, tests, ARRAY_COUNT(tests));
}
