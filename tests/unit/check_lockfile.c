/* SPDX-License-Identifier: MIT */
/* check_lockfile - OFD locks as proof of life, and the record of the segment. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include "../util/fixture.h"
#include "base/clock.h"

static struct fixture f;
static int dir_fd, one, two;

static void setup(void)
{
	fixture_begin(&f);
	dir_fd = open(f.segments, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	one = lockfile_open(dir_fd, 0600, getgid(), true);
	two = lockfile_open(dir_fd, 0600, getgid(), false);
	ck_assert_int_ge(one, 0);
	ck_assert_int_ge(two, 0);
}

static void teardown(void)
{
	lockfile_close(one);
	lockfile_close(two);
	close(dir_fd);
	fixture_end(&f);
}

START_TEST(the_lock_file_is_made_only_if_asked)
{
	int empty = open(f.root, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	ck_assert_int_eq(lockfile_open(empty, 0600, getgid(), false), -ENOENT);
	ck_assert_int_eq(symlinkat("elsewhere", empty, "lock"), 0);
	ck_assert_int_eq(lockfile_open(empty, 0600, getgid(), true), -ELOOP);
	ck_assert_int_eq(unlinkat(empty, "lock", 0), 0);
	ck_assert_int_eq(mkdirat(empty, "lock", 0700), 0);
	ck_assert_int_lt(lockfile_open(empty, 0600, getgid(), true), 0);
	close(empty);
}
END_TEST

START_TEST(descriptors_are_closed_on_exec)
{
	ck_assert_int_eq(fcntl(one, F_GETFD), FD_CLOEXEC);
}
END_TEST

START_TEST(a_byte_is_held_until_it_is_dropped)
{
	ck_assert_int_eq(lockfile_is_held(two, 1, 5), 0);
	ck_assert_int_eq(lockfile_take(one, 1, 5), 0);
	ck_assert_int_eq(lockfile_is_held(two, 1, 5), 1);
	/* Never one's own, and never a neighbour's. */
	ck_assert_int_eq(lockfile_is_held(one, 1, 5), 0);
	ck_assert_int_eq(lockfile_is_held(two, 1, 4), 0);
	ck_assert_int_eq(lockfile_is_held(two, 1, 6), 0);
	ck_assert_int_eq(lockfile_is_held(two, 2, 5), 0);
	lockfile_drop(one, 1, 5);
	ck_assert_int_eq(lockfile_is_held(two, 1, 5), 0);
}
END_TEST

START_TEST(a_second_open_cannot_take_what_the_first_holds)
{
	ck_assert_int_eq(lockfile_take(one, 1, 5), 0);
	ck_assert_int_eq(lockfile_take(two, 1, 5), -EAGAIN);
	ck_assert_int_eq(lockfile_take(two, 1, 6), 0);
	ck_assert_int_eq(lockfile_take(one, 1, 6), -EAGAIN);
	/* Dropping what one does not hold changes nothing. */
	lockfile_drop(two, 1, 5);
	ck_assert_int_eq(lockfile_is_held(two, 1, 5), 1);
}
END_TEST

START_TEST(a_byte_falls_with_the_last_descriptor_of_its_open)
{
	int copy = dup(one), third = lockfile_open(dir_fd, 0600, getgid(), false);

	ck_assert_int_eq(lockfile_take(one, 1, 5), 0);
	/* Another open of the file: its end is nobody else's, unlike with POSIX locks. */
	lockfile_close(third);
	ck_assert_int_eq(lockfile_is_held(two, 1, 5), 1);
	lockfile_close(one);
	ck_assert_int_eq(lockfile_is_held(two, 1, 5), 1);
	close(copy);
	ck_assert_int_eq(lockfile_is_held(two, 1, 5), 0);
	one = lockfile_open(dir_fd, 0600, getgid(), false);
}
END_TEST

START_TEST(segments_are_told_apart)
{
	ck_assert_int_eq(lockfile_segment_in_use(two, 3), 0);
	ck_assert_int_eq(lockfile_take(one, 3, SHM_PEERS_MAX - 1), 0);
	ck_assert_int_eq(lockfile_segment_in_use(two, 3), 1);
	ck_assert_int_eq(lockfile_segment_in_use(two, 2), 0);
	ck_assert_int_eq(lockfile_segment_in_use(two, 4), 0);
	ck_assert_int_eq(lockfile_others_in_use(two, 3), 0);
	ck_assert_int_eq(lockfile_others_in_use(two, 2), 1);
	ck_assert_int_eq(lockfile_others_in_use(two, 4), 1);
	ck_assert_int_eq(lockfile_others_in_use(two, 0), 1);
	lockfile_drop(one, 3, SHM_PEERS_MAX - 1);
	ck_assert_int_eq(lockfile_take(one, 4, 0), 0);
	ck_assert_int_eq(lockfile_segment_in_use(two, 3), 0);
	ck_assert_int_eq(lockfile_segment_in_use(two, 4), 1);
	/* The gate is no slot. */
	lockfile_drop(one, 4, 0);
	ck_assert_int_eq(lockfile_enter_gate(one, 0), 0);
	ck_assert_int_eq(lockfile_others_in_use(two, UINT32_MAX), 0);
	lockfile_leave_gate(one);
}
END_TEST

START_TEST(large_numbers_of_segments_have_bytes_too)
{
	ck_assert_int_eq(lockfile_take(one, UINT32_MAX, SHM_PEERS_MAX - 1), 0);
	ck_assert_int_eq(lockfile_is_held(two, UINT32_MAX, SHM_PEERS_MAX - 1), 1);
	ck_assert_int_eq(lockfile_segment_in_use(two, UINT32_MAX), 1);
	ck_assert_int_eq(lockfile_segment_in_use(two, UINT32_MAX - 1), 0);
	ck_assert_int_eq(lockfile_others_in_use(two, UINT32_MAX), 0);
}
END_TEST

START_TEST(the_gate_lets_one_in_and_the_next_times_out)
{
	int64_t began_ns;

	ck_assert_int_eq(lockfile_enter_gate(one, 0), 0);
	ck_assert_int_eq(lockfile_enter_gate(two, 0), -ETIMEDOUT);
	began_ns = clock_own_ns();
	ck_assert_int_eq(lockfile_enter_gate(two, 20 * (int64_t)NS_PER_MS), -ETIMEDOUT);
	ck_assert_int_ge(clock_own_ns() - began_ns, 20 * (int64_t)NS_PER_MS);
	lockfile_leave_gate(one);
	ck_assert_int_eq(lockfile_enter_gate(two, 0), 0);
	lockfile_leave_gate(two);
}
END_TEST

static void *leave_the_gate(void *arg)
{
	lockfile_leave_gate(*(int *)arg);
	return NULL;
}

START_TEST(who_waits_at_the_gate_gets_in_when_it_opens)
{
	pthread_t thread;

	ck_assert_int_eq(lockfile_enter_gate(one, 0), 0);
	ck_assert_int_eq(pthread_create(&thread, NULL, leave_the_gate, &one), 0);
	ck_assert_int_eq(lockfile_enter_gate(two, 30 * (int64_t)NS_PER_SEC), 0);
	pthread_join(thread, NULL);
	lockfile_leave_gate(two);
}
END_TEST

START_TEST(the_gate_of_a_removed_file_is_estale)
{
	ck_assert_int_eq(unlinkat(dir_fd, "lock", 0), 0);
	ck_assert_int_eq(lockfile_enter_gate(one, 0), -ESTALE);
}
END_TEST

/* --------------------------------------------------------------- the record */

static const struct lock_record example = {
	.number = 123456789012ull,
	.uuid = { 0, 1, 0x7f, 0x80, 0xff, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 0xfe },
	.boot_id = "01234567-89ab-cdef-0123-456789abcdef",
	.wanted = { .entries = 1, .peers = 2, .blocks = 3, .rings = 4, .ring_bytes = 1ull << 30 },
	.settings = { [SETTING_WINDOW_BYTES] = 0,
		      [SETTING_MAX_AGE_NS] = UINT64_MAX,
		      [SETTING_LEVEL] = 12 },
	.path = "/a path/with blanks/streamcache.00017f80ff05060708090a0b0c0d0efe",
};

/* The last part of a segment's path is its name, or the record is none. */
static void set_path(struct lock_record *record, const char *dir)
{
	char uuid[UUID_TEXT_BYTES];

	uuid_text(record->uuid, uuid);
	snprintf(record->path, sizeof(record->path), "%s/streamcache.%s", dir, uuid);
}

static void expect_equal(const struct lock_record *a, const struct lock_record *b)
{
	ck_assert_uint_eq(a->number, b->number);
	ck_assert_mem_eq(a->uuid, b->uuid, sizeof(a->uuid));
	ck_assert_str_eq(a->boot_id, b->boot_id);
	ck_assert_uint_eq(a->wanted.entries, b->wanted.entries);
	ck_assert_uint_eq(a->wanted.peers, b->wanted.peers);
	ck_assert_uint_eq(a->wanted.blocks, b->wanted.blocks);
	ck_assert_uint_eq(a->wanted.rings, b->wanted.rings);
	ck_assert_uint_eq(a->wanted.ring_bytes, b->wanted.ring_bytes);
	for (int i = 0; i < SETTING_COUNT; i++)
		ck_assert_uint_eq(a->settings[i], b->settings[i]);
	ck_assert_str_eq(a->path, b->path);
}

START_TEST(a_record_comes_back_as_it_was_written)
{
	struct lock_record record;

	ck_assert_int_eq(lockfile_read_record(one, &record), -ENODATA);
	ck_assert_int_eq(lockfile_write_record(one, &example), 0);
	ck_assert_int_eq(lockfile_read_record(two, &record), 0);
	expect_equal(&record, &example);
}
END_TEST

START_TEST(a_shorter_record_leaves_nothing_of_a_longer_one)
{
	struct lock_record longest = example, record;
	char dir[sizeof(longest.path) - UUID_TEXT_BYTES - sizeof("/streamcache.") + 1];

	memset(dir, 'p', sizeof(dir) - 1);
	dir[0] = '/';
	dir[sizeof(dir) - 1] = '\0';
	set_path(&longest, dir);
	longest.number = (1ull << 40) - 1;
	ck_assert_int_eq(lockfile_write_record(one, &longest), 0);
	ck_assert_int_eq(lockfile_read_record(two, &record), 0);
	expect_equal(&record, &longest);
	ck_assert_int_eq(lockfile_write_record(one, &example), 0);
	ck_assert_int_eq(lockfile_read_record(two, &record), 0);
	expect_equal(&record, &example);
}
END_TEST

START_TEST(a_record_that_names_a_file_not_called_like_a_segment_is_enodata)
{
	struct lock_record stray = example, record;

	snprintf(stray.path, sizeof(stray.path), "/etc/passwd");
	ck_assert_int_eq(lockfile_write_record(one, &stray), 0);
	ck_assert_int_eq(lockfile_read_record(two, &record), -ENODATA);
}
END_TEST

START_TEST(a_record_that_ends_early_is_enodata)
{
	struct lock_record record = { .number = 77 };
	off_t whole;

	ck_assert_int_eq(lockfile_write_record(one, &example), 0);
	/* All but the final line break: whatever is missing, it is not half a record. */
	for (whole = lseek(one, 0, SEEK_END) - 2; whole >= 0; whole--) {
		ck_assert_int_eq(ftruncate(one, whole), 0);
		ck_assert_int_eq(lockfile_read_record(two, &record), -ENODATA);
	}
	/* Left alone on failure. */
	ck_assert_uint_eq(record.number, 77);
}
END_TEST

START_TEST(a_record_of_something_else_is_enodata)
{
	static const char *const texts[] = { "streamcache 2\n", "#!/bin/sh\n", "\n\n\n", "%s%s%n" };
	struct lock_record record;
	char zeros[3000] = { 0 };

	for (unsigned i = 0; i < ARRAY_COUNT(texts); i++) {
		ck_assert_int_eq(ftruncate(one, 0), 0);
		ck_assert_int_eq(pwrite(one, texts[i], strlen(texts[i]), 0),
				 (ssize_t)strlen(texts[i]));
		ck_assert_int_eq(lockfile_read_record(two, &record), -ENODATA);
	}
	ck_assert_int_eq(pwrite(one, zeros, sizeof(zeros), 0), sizeof(zeros));
	ck_assert_int_eq(lockfile_read_record(two, &record), -ENODATA);
	memset(zeros, '1', sizeof(zeros));
	ck_assert_int_eq(pwrite(one, zeros, sizeof(zeros), 0), sizeof(zeros));
	ck_assert_int_eq(lockfile_read_record(two, &record), -ENODATA);
}
END_TEST

START_TEST(a_record_that_would_lead_astray_is_enodata)
{
	struct lock_record wrong[11], record;

	for (unsigned i = 0; i < ARRAY_COUNT(wrong); i++)
		wrong[i] = example;
	wrong[0].number = 0;
	wrong[1].number = UINT64_MAX;
	wrong[2].wanted.entries = 0;
	wrong[3].wanted.entries = UINT32_MAX;
	wrong[4].wanted.peers = 0;
	wrong[5].wanted.peers = SHM_PEERS_MAX + 1;
	wrong[6].wanted.blocks = 0;
	wrong[7].wanted.rings = UINT32_MAX;
	wrong[8].wanted.ring_bytes = 0;
	wrong[9].wanted.ring_bytes = 3 << 20;
	wrong[10].path[0] = 'x';
	for (unsigned i = 0; i < ARRAY_COUNT(wrong); i++) {
		ck_assert_int_eq(lockfile_write_record(one, &wrong[i]), 0);
		ck_assert_msg(lockfile_read_record(two, &record) == -ENODATA, "record %u", i);
	}
}
END_TEST

START_TEST(a_record_with_a_damaged_uuid_is_enodata)
{
	struct lock_record record;
	char text[2048];
	ssize_t bytes;

	ck_assert_int_eq(lockfile_write_record(one, &example), 0);
	bytes = pread(one, text, sizeof(text) - 1, 0);
	ck_assert_int_gt(bytes, 0);
	text[bytes] = '\0';
	memcpy(strstr(text, "uuid ") + 5, "zz", 2);
	ck_assert_int_eq(pwrite(one, text, (size_t)bytes, 0), bytes);
	ck_assert_int_eq(lockfile_read_record(two, &record), -ENODATA);
}
END_TEST

START_TEST(a_uuid_is_shown_as_32_digits)
{
	char text[UUID_TEXT_BYTES];

	uuid_text(example.uuid, text);
	ck_assert_str_eq(text, "00017f80ff05060708090a0b0c0d0efe");
}
END_TEST

int main(void)
{
	const TTest *const tests[] = {
		the_lock_file_is_made_only_if_asked,
		descriptors_are_closed_on_exec,
		a_byte_is_held_until_it_is_dropped,
		a_second_open_cannot_take_what_the_first_holds,
		a_byte_falls_with_the_last_descriptor_of_its_open,
		segments_are_told_apart,
		large_numbers_of_segments_have_bytes_too,
		the_gate_lets_one_in_and_the_next_times_out,
		who_waits_at_the_gate_gets_in_when_it_opens,
		the_gate_of_a_removed_file_is_estale,
		a_record_comes_back_as_it_was_written,
		a_shorter_record_leaves_nothing_of_a_longer_one,
		a_record_that_names_a_file_not_called_like_a_segment_is_enodata,
		a_record_that_ends_early_is_enodata,
		a_record_of_something_else_is_enodata,
		a_record_that_would_lead_astray_is_enodata,
		a_record_with_a_damaged_uuid_is_enodata,
		a_uuid_is_shown_as_32_digits,
	};

	return fixture_main("lockfile", setup, teardown, tests, ARRAY_COUNT(tests));
}
