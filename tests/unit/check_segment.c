/* SPDX-License-Identifier: MIT */
/*
 * check_segment - the segment is soft state: created, joined, and replaced if
 * it is not what it should be, but never under somebody who is attached.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include "../util/fixture.h"

static struct fixture f;

static void setup(void)
{
	fixture_begin(&f);
}

static void teardown(void)
{
	fixture_end(&f);
}

static void read_record(struct lock_record *ret_record)
{
	char path[PATH_MAX];
	int fd;

	snprintf(path, sizeof(path), "%s/ctl/lock", f.dir);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	ck_assert_int_ge(fd, 0);
	ck_assert_int_eq(lockfile_read_record(fd, ret_record), 0);
	close(fd);
}

static int open_segment_file(void)
{
	struct lock_record record;
	int fd;

	read_record(&record);
	fd = open(record.path, O_RDWR | O_CLOEXEC);
	ck_assert_int_ge(fd, 0);
	return fd;
}

/* What scache_open() answers; what it opens is closed again. */
static int try_open(void)
{
	struct scache *cache = NULL;
	int ret = scache_open(f.dir, &f.options, &cache);

	ck_assert((ret == 0) == (cache != NULL));
	ck_assert(ret == 0 || scache_detail()[0] != '\0');
	ck_assert_int_eq(scache_close(cache), 0);
	return ret;
}

/* --------------------------------------------------------- create and join */

START_TEST(the_first_creates_and_the_second_joins)
{
	struct scache *first = fixture_open(&f), *second = fixture_open(&f);

	ck_assert_ptr_eq(first->seat->peer.segment, second->seat->peer.segment);
	ck_assert_uint_ne(first->seat->peer.slot, second->seat->peer.slot);
	ck_assert_uint_eq(first->seat->peer.segment->number, 1);
	ck_assert_uint_eq(fixture_count_files(f.segments), 1);
}
END_TEST

START_TEST(a_segment_outlives_its_last_user)
{
	struct scache *cache = fixture_open(&f);
	unsigned char uuid[SHM_UUID_BYTES];
	struct scache_reader *reader;

	memcpy(uuid, cache->seat->peer.segment->uuid, sizeof(uuid));
	fixture_produce(cache, "kept", "bytes", 5);
	fixture_close(&f, cache);
	cache = fixture_open(&f);
	ck_assert_mem_eq(uuid, cache->seat->peer.segment->uuid, sizeof(uuid));
	ck_assert_int_eq(scache_lookup(cache, "kept", 4, NULL, &reader), 0);
	scache_reader_close(reader);
}
END_TEST

START_TEST(the_file_is_as_large_as_its_geometry_and_private)
{
	struct scache *cache = fixture_open(&f);
	int fd = open_segment_file();
	struct stat st;

	ck_assert_int_eq(fstat(fd, &st), 0);
	ck_assert_uint_eq((uint64_t)st.st_size, segment_bytes(&cache->seat->peer.segment->geometry));
	ck_assert_uint_eq((uint64_t)st.st_size, cache->seat->peer.segment->bytes);
	ck_assert_uint_eq(st.st_mode & 0777, 0600);
	/* Reserved, so that a full file system is no SIGBUS. */
	ck_assert_uint_ge((uint64_t)st.st_blocks * 512, (uint64_t)st.st_size);
	close(fd);
}
END_TEST

START_TEST(a_joiner_with_other_wishes_gets_what_is_stored)
{
	struct scache_options now = { .size = sizeof(now) };
	struct scache *creator, *joiner;

	f.options.window_bytes = SCACHE_ZERO;
	f.options.max_age_ns = 1234567;
	creator = fixture_open(&f);
	f.options.entries = 100;
	f.options.peers = 100;
	f.options.readers = 6400;
	f.options.rings = 9;
	f.options.ring_bytes = 1 << 20;
	f.options.window_bytes = 5;
	f.options.max_age_ns = SCACHE_UNLIMITED;
	joiner = fixture_open(&f);
	for (unsigned i = 0; i < 2; i++) {
		ck_assert_int_eq(scache_get_options(i == 0 ? creator : joiner, &now), 0);
		ck_assert_uint_eq(now.entries, FIXTURE_ENTRIES);
		ck_assert_uint_eq(now.peers, FIXTURE_PEERS);
		ck_assert_uint_eq(now.readers, FIXTURE_BLOCKS * SHM_BLOCK_CURSORS);
		ck_assert_uint_eq(now.rings, FIXTURE_RINGS);
		ck_assert_uint_eq(now.ring_bytes, FIXTURE_RING_BYTES);
		ck_assert_uint_eq(now.window_bytes, SCACHE_ZERO);
		ck_assert_uint_eq(now.max_age_ns, 1234567);
		ck_assert_str_eq(now.segment_dir, f.segments);
	}
}
END_TEST

START_TEST(the_next_segment_has_the_options_of_the_last)
{
	struct scache_options now = { .size = sizeof(now) };
	struct lock_record record;

	f.options.max_age_ns = 1234567;
	fixture_close(&f, fixture_open(&f));
	read_record(&record);
	ck_assert_int_eq(unlink(record.path), 0);
	f.options = (struct scache_options){ .size = sizeof(f.options),
					     .rings = 1,
					     .segment_dir = f.segments };
	ck_assert_int_eq(scache_get_options(fixture_open(&f), &now), 0);
	ck_assert_uint_eq(now.entries, FIXTURE_ENTRIES);
	ck_assert_uint_eq(now.peers, FIXTURE_PEERS);
	ck_assert_uint_eq(now.readers, FIXTURE_BLOCKS * SHM_BLOCK_CURSORS);
	ck_assert_uint_eq(now.ring_bytes, FIXTURE_RING_BYTES);
	ck_assert_uint_eq(now.max_age_ns, 1234567);
	/* Only what was asked for is new. */
	ck_assert_uint_eq(now.rings, 1);
}
END_TEST

START_TEST(open_existing_creates_nothing)
{
	f.options.flags = SCACHE_OPEN_EXISTING;
	ck_assert_int_eq(try_open(), -ENOENT);
	ck_assert_int_eq(access(f.dir, F_OK), -1);
	f.options.flags = 0;
	ck_assert_int_eq(try_open(), 0);
	f.options.flags = SCACHE_OPEN_EXISTING;
	ck_assert_int_eq(try_open(), 0);
}
END_TEST

START_TEST(caches_in_two_directories_have_nothing_in_common)
{
	struct fixture g;
	struct scache *one, *two;
	struct index_key key = fixture_key("k");
	struct entry_name found;

	fixture_begin(&g);
	one = fixture_open(&f);
	two = fixture_open(&g);
	ck_assert_ptr_ne(one->seat->peer.segment, two->seat->peer.segment);
	fixture_produce(one, "k", "bytes", 5);
	ck_assert_int_eq(fixture_find(two, &key, &found), 0);
	fixture_end(&g);
}
END_TEST

/* ---------------------------------------------------------------- judgement */

static void patch_magic(struct shm_header *h)
{
	/* As it is while a creator has not finished: the magic comes last. */
	atomic_init(&h->magic, 0);
}

static void patch_layout(struct shm_header *h)
{
	h->layout++;
}

static void patch_struct_bytes(struct shm_header *h)
{
	h->struct_bytes++;
}

static void patch_uuid(struct shm_header *h)
{
	h->uuid[0] ^= 1;
}

static void patch_boot_id(struct shm_header *h)
{
	h->boot_id[0] ^= 1;
}

static void patch_number(struct shm_header *h)
{
	h->number++;
}

static void patch_bytes(struct shm_header *h)
{
	h->segment_bytes -= SHM_PAGE_BYTES;
}

static void patch_entries(struct shm_header *h)
{
	h->geometry.entries = 0;
}

static void patch_buckets(struct shm_header *h)
{
	h->geometry.buckets = 15;
}

static void patch_peers(struct shm_header *h)
{
	h->geometry.peers = SHM_PEERS_MAX + 1;
}

static void patch_ring_bytes(struct shm_header *h)
{
	h->geometry.ring_bytes = 1ull << 63;
}

static const struct {
	void (*patch)(struct shm_header *h);
	int refusal; /* while somebody is attached */
} patches[] = {
	{ patch_magic, -EUCLEAN },	 { patch_layout, -EPROTO },    { patch_struct_bytes, -EPROTO },
	{ patch_uuid, -EUCLEAN },	 { patch_boot_id, -EUCLEAN },  { patch_number, -EUCLEAN },
	{ patch_bytes, -EUCLEAN },	 { patch_entries, -EUCLEAN },  { patch_buckets, -EUCLEAN },
	{ patch_peers, -EUCLEAN },	 { patch_ring_bytes, -EUCLEAN },
};

START_TEST(another_layout_is_refused_while_a_peer_lives)
{
	int fd;

	fixture_open(&f);
	fd = open_segment_file();
	for (unsigned i = 0; i < ARRAY_COUNT(patches); i++) {
		struct shm_header good, bad;

		if (patches[i].refusal != -EPROTO)
			continue;
		ck_assert_int_eq(pread(fd, &good, sizeof(good), 0), sizeof(good));
		bad = good;
		patches[i].patch(&bad);
		ck_assert_int_eq(pwrite(fd, &bad, sizeof(bad), 0), sizeof(bad));
		ck_assert_msg(try_open() == -EPROTO, "patch %u: %s", i, scache_detail());
		ck_assert_int_eq(pwrite(fd, &good, sizeof(good), 0), sizeof(good));
		ck_assert_int_eq(try_open(), 0);
	}
	close(fd);
	ck_assert_uint_eq(fixture_count_files(f.segments), 1);
}
END_TEST

/* Who is attached moves on, at its next call, to where the newcomer is. */
static void expect_retired(struct scache *cache, struct scache_reader *reader)
{
	const struct segment *old = cache->seat->peer.segment;
	struct scache_stats stats = { .size = sizeof(stats) };
	struct scache *other = fixture_open(&f);
	char byte;

	ck_assert_uint_eq(other->seat->peer.segment->number, old->number + 1);
	ck_assert_int_eq(scache_stat(cache, &stats), 0);
	ck_assert_ptr_eq(cache->seat->peer.segment, other->seat->peer.segment);
	ck_assert_uint_eq(stats.peers, 2);
	/* What was open goes on where it began. */
	ck_assert_int_eq(scache_read(reader, &byte, 1, 0), 1);
	ck_assert_int_eq(byte, 'x');
	ck_assert_int_eq(scache_reader_close(reader), 0);
	fixture_close(&f, other);
	ck_assert_uint_eq(fixture_count_files(f.segments), 1);
}

START_TEST(a_damaged_header_retires_a_segment_in_use)
{
	struct scache *cache = fixture_open(&f);

	for (unsigned i = 0; i < ARRAY_COUNT(patches); i++) {
		struct scache_reader *reader;
		struct shm_header header;
		/* Another each time: a finished one outlives its segment. */
		const char key[] = { (char)('a' + i), '\0' };
		int fd;

		if (patches[i].refusal == -EPROTO)
			continue;
		fixture_produce(cache, key, "x", 1);
		ck_assert_int_eq(scache_lookup(cache, key, 1, NULL, &reader), 0);
		fd = open_segment_file();
		ck_assert_int_eq(pread(fd, &header, sizeof(header), 0), sizeof(header));
		patches[i].patch(&header);
		ck_assert_int_eq(pwrite(fd, &header, sizeof(header), 0), sizeof(header));
		close(fd);
		expect_retired(cache, reader);
	}
}
END_TEST

START_TEST(a_wrong_header_is_replaced_when_nobody_is_attached)
{
	fixture_close(&f, fixture_open(&f));
	for (unsigned i = 0; i < ARRAY_COUNT(patches); i++) {
		int fd = open_segment_file();
		struct shm_header header;
		struct scache *cache;
		struct stat st;

		ck_assert_int_eq(pread(fd, &header, sizeof(header), 0), sizeof(header));
		patches[i].patch(&header);
		ck_assert_int_eq(pwrite(fd, &header, sizeof(header), 0), sizeof(header));
		cache = fixture_open(&f);
		ck_assert_uint_eq(cache->seat->peer.segment->number, i + 2);
		ck_assert_int_eq(scache_check(cache, NULL, NULL), 0);
		fixture_close(&f, cache);
		/* The old one is gone. */
		ck_assert_int_eq(fstat(fd, &st), 0);
		ck_assert_uint_eq(st.st_nlink, 0);
		ck_assert_uint_eq(fixture_count_files(f.segments), 1);
		close(fd);
	}
}
END_TEST

START_TEST(a_truncated_segment_is_replaced)
{
	struct scache *cache = fixture_open(&f);
	int fd = open_segment_file();
	uint64_t bytes = cache->seat->peer.segment->bytes;

	ck_assert_int_eq(ftruncate(fd, (off_t)(bytes - 1)), 0);
	ck_assert_int_eq(try_open(), 0);
	close(fd);
	fixture_close(&f, cache);
	fd = open_segment_file();
	ck_assert_int_eq(ftruncate(fd, 100), 0);
	close(fd);
	ck_assert_uint_eq(fixture_open(&f)->seat->peer.segment->number, 3);
}
END_TEST

START_TEST(a_segment_that_is_gone_is_refused_then_replaced)
{
	struct scache *cache = fixture_open(&f);
	struct lock_record record;

	read_record(&record);
	ck_assert_int_eq(unlink(record.path), 0);
	/* Elsewhere it may well exist: a new one would split the cache in two. */
	ck_assert_int_eq(try_open(), -ENXIO);
	ck_assert_ptr_nonnull(strstr(scache_detail(), record.path));
	fixture_close(&f, cache);
	ck_assert_uint_eq(fixture_open(&f)->seat->peer.segment->number, 2);
}
END_TEST

START_TEST(a_symbolic_link_is_not_followed)
{
	struct lock_record record;
	char elsewhere[PATH_MAX];

	fixture_close(&f, fixture_open(&f));
	read_record(&record);
	snprintf(elsewhere, sizeof(elsewhere), "%s/elsewhere", f.root);
	ck_assert_int_eq(rename(record.path, elsewhere), 0);
	ck_assert_int_eq(symlink(elsewhere, record.path), 0);
	ck_assert_int_eq(try_open(), -ELOOP);
	ck_assert_int_eq(unlink(record.path), 0);
	ck_assert_int_eq(rename(elsewhere, record.path), 0);
	ck_assert_int_eq(try_open(), 0);
}
END_TEST

START_TEST(what_a_crashed_creator_left_is_replaced_and_removed)
{
	struct lock_record record;
	struct stat st;
	int fd;

	/* The record is written, the file is made, reserved in part, and empty. */
	fixture_close(&f, fixture_open(&f));
	fd = open_segment_file();
	ck_assert_int_eq(ftruncate(fd, 0), 0);
	ck_assert_int_eq(posix_fallocate(fd, 0, 3 * SHM_PAGE_BYTES), 0);
	read_record(&record);
	ck_assert_uint_eq(fixture_open(&f)->seat->peer.segment->number, 2);
	ck_assert_int_eq(fstat(fd, &st), 0);
	ck_assert_uint_eq(st.st_nlink, 0);
	close(fd);
}
END_TEST

START_TEST(a_record_without_a_file_is_no_obstacle)
{
	struct lock_record record;

	/* As a creator leaves it that dies between the two. */
	fixture_close(&f, fixture_open(&f));
	read_record(&record);
	ck_assert_int_eq(unlink(record.path), 0);
	ck_assert_int_eq(try_open(), 0);
	ck_assert_uint_eq(fixture_count_files(f.segments), 1);
}
END_TEST

static void use_and_be_killed(struct fixture *fixture)
{
	struct scache *cache;

	if (scache_open(fixture->dir, &fixture->options, &cache) == 0)
		raise(SIGKILL);
}

START_TEST(a_creator_that_was_killed_holds_up_nobody)
{
	fixture_expect_killed(fixture_run_child(use_and_be_killed, &f));
	/* Its segment is as good as any; only its seat is to be cleaned. */
	ck_assert_uint_eq(fixture_open(&f)->seat->peer.segment->number, 1);
}
END_TEST

START_TEST(a_damaged_record_is_refused_while_a_peer_lives_then_replaced)
{
	struct scache *cache = fixture_open(&f);
	struct lock_record record;
	char path[PATH_MAX];
	int fd;

	snprintf(path, sizeof(path), "%s/ctl/lock", f.dir);
	fd = open(path, O_WRONLY | O_CLOEXEC);
	/* Which segment it was nobody can tell, but somebody is attached to it. */
	ck_assert_int_eq(pwrite(fd, "XX", 2, 0), 2);
	ck_assert_int_eq(try_open(), -EUCLEAN);
	ck_assert_int_eq(pwrite(fd, "st", 2, 0), 2);
	ck_assert_int_eq(try_open(), 0);
	fixture_close(&f, cache);
	/* The file that only the record names would be left, so take it away first. */
	read_record(&record);
	ck_assert_int_eq(unlink(record.path), 0);
	ck_assert_int_eq(pwrite(fd, "XX", 2, 0), 2);
	close(fd);
	ck_assert_int_eq(try_open(), 0);
}
END_TEST

START_TEST(a_missing_segment_directory_is_told)
{
	f.options.segment_dir = "/nonexistent/directory";
	ck_assert_int_eq(try_open(), -ENOENT);
	f.options.segment_dir = f.segments;
	ck_assert_int_eq(try_open(), 0);
}
END_TEST

int main(void)
{
	const TTest *const tests[] = {
		the_first_creates_and_the_second_joins,
		a_segment_outlives_its_last_user,
		the_file_is_as_large_as_its_geometry_and_private,
		a_joiner_with_other_wishes_gets_what_is_stored,
		the_next_segment_has_the_options_of_the_last,
		open_existing_creates_nothing,
		caches_in_two_directories_have_nothing_in_common,
		another_layout_is_refused_while_a_peer_lives,
		a_damaged_header_retires_a_segment_in_use,
		a_wrong_header_is_replaced_when_nobody_is_attached,
		a_truncated_segment_is_replaced,
		a_segment_that_is_gone_is_refused_then_replaced,
		a_symbolic_link_is_not_followed,
		what_a_crashed_creator_left_is_replaced_and_removed,
		a_record_without_a_file_is_no_obstacle,
		a_creator_that_was_killed_holds_up_nobody,
		a_damaged_record_is_refused_while_a_peer_lives_then_replaced,
		a_missing_segment_directory_is_told,
	};

	return fixture_main("segment", setup, teardown, tests, ARRAY_COUNT(tests));
}
