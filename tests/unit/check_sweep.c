/* SPDX-License-Identifier: MIT */
/* check_sweep - what goes, what stays, and when. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"
#include "store/sweep.h"
#include "../util/pair.h" /* last: its names are everyday words */

static struct entry_name make(const char *text)
{
	struct index_key key = fixture_key(text);
	struct entry_name name;

	fixture_produce(cache, text, "0123456789", 10);
	ck_assert_int_eq(fixture_find(cache, &key, &name), 1);
	return name;
}

static bool exists(const char *text)
{
	struct index_key key = fixture_key(text);
	struct entry_name name;

	return fixture_find(cache, &key, &name) == 1;
}

static void expire_now(struct entry_name name)
{
	shm_store(&segment->expires[name.idx], 1);
}

/* Sweep, and remember the victims as "why name;" each. */
static char victims[1024];

static void note(void *arg, const struct scache_victim *victim)
{
	size_t length = strlen(victims);

	ck_assert_ptr_eq(arg, &f);
	snprintf(victims + length, sizeof(victims) - length, "%s%s %.*s;",
		 victim->removed ? "" : "left ", victim->why, (int)victim->name_bytes, victim->name);
}

static struct scache_sweep_report sweep(uint32_t flags, uint64_t max_age_ns)
{
	struct scache_sweep_options options = { .size = sizeof(options),
						.flags = flags,
						.max_age_ns = max_age_ns,
						.victim = note,
						.arg = &f };
	struct scache_sweep_report report = { .size = sizeof(report) };

	victims[0] = '\0';
	ck_assert_int_eq(scache_sweep(cache, &options, &report), 0);
	return report;
}

static unsigned count_blobs(void)
{
	return fixture_count_files(f.dir) - 1; /* but for ctl/lock */
}

START_TEST(what_has_expired_goes_and_the_rest_stays)
{
	struct scache_sweep_report report;

	make("young");
	expire_now(make("old"));
	report = sweep(0, 0);
	ck_assert_uint_eq(report.entries, 1);
	ck_assert_uint_eq(report.entry_bytes, 10);
	ck_assert_uint_eq(report.orphans + report.unknown + report.reaped, 0);
	ck_assert_str_eq(victims, "expired old;");
	ck_assert(exists("young"));
	ck_assert(!exists("old"));
	ck_assert_uint_eq(count_blobs(), 1);
	report = sweep(0, 0);
	ck_assert_uint_eq(report.entries, 0);
	ck_assert_str_eq(victims, "");
}
END_TEST

START_TEST(a_dry_run_tells_and_removes_nothing)
{
	struct scache_sweep_report report;

	expire_now(make("old"));
	report = sweep(SCACHE_DRY_RUN, 0);
	ck_assert_uint_eq(report.entries, 1);
	ck_assert_str_eq(victims, "left expired old;");
	ck_assert(exists("old"));
	ck_assert_uint_eq(count_blobs(), 1);
}
END_TEST

START_TEST(a_sweep_may_be_stricter_than_the_entries_but_not_laxer)
{
	make("young");
	expire_now(make("old"));
	sweep(0, SCACHE_UNLIMITED);
	ck_assert_str_eq(victims, "expired old;");
	sweep(0, 3600 * NS_PER_SEC);
	ck_assert(exists("young"));
	sweep(0, SCACHE_ZERO);
	ck_assert_str_eq(victims, "too old young;");
	ck_assert_uint_eq(count_blobs(), 0);
}
END_TEST

START_TEST(garbage_with_a_reader_stays_until_it_leaves)
{
	struct scache_reader *reader;
	struct entry_name name = make("read");
	char data[16];

	ck_assert_int_eq(scache_lookup(other, "read", 4, NULL, &reader), 0);
	ck_assert_int_eq(scache_read(reader, data, 3, 0), 3);
	ck_assert_int_eq(scache_remove(cache, "read", 4), 0);
	sweep(0, SCACHE_ZERO);
	ck_assert(state_is_garbage(fixture_state(cache, name.idx)));
	ck_assert_uint_eq(count_blobs(), 1);
	/* Undisturbed: the rest, and the end. */
	ck_assert_int_eq(scache_read(reader, data, sizeof(data), 0), 7);
	ck_assert_int_eq(scache_read(reader, data, sizeof(data), 0), 0);
	ck_assert(!sweep_entry(&cache->seat->store, name));
	/* The last one out puts out the light. */
	scache_reader_close(reader);
	ck_assert_uint_eq(count_blobs(), 0);
	ck_assert_uint_eq(state_of(fixture_state(cache, name.idx)), ENTRY_FREE);
}
END_TEST

START_TEST(garbage_of_a_killed_reader_goes_with_the_next_sweep)
{
	struct scache_sweep_report report;
	struct scache_reader *reader;

	make("read");
	ck_assert_int_eq(scache_lookup(other, "read", 4, NULL, &reader), 0);
	ck_assert_int_eq(scache_remove(cache, "read", 4), 0);
	fixture_kill(&f, other);
	fixture_bury_reader(reader);
	report = sweep(0, 0);
	ck_assert_uint_eq(report.reaped, 1);
	ck_assert_uint_eq(count_blobs(), 0);
}
END_TEST

START_TEST(a_growing_entry_is_left_alone)
{
	struct scache_writer *writer;

	ck_assert_int_eq(scache_acquire(other, "growing", 7, NULL, NULL, &writer), 0);
	sweep(0, SCACHE_ZERO);
	ck_assert_str_eq(victims, "");
	ck_assert(exists("growing"));
	ck_assert_int_eq(scache_finish(writer), 0);
	scache_writer_close(writer);
	ck_assert(exists("growing"));
}
END_TEST

/* -------------------------------------------------------------------- files */

static void make_file(const char *path, const char *name)
{
	char whole[PATH_MAX];
	FILE *file;

	snprintf(whole, sizeof(whole), "%s/blobs/%s", f.dir, path);
	mkdir(whole, 0700);
	snprintf(whole, sizeof(whole), "%s/blobs/%s/%s", f.dir, path, name);
	file = fopen(whole, "w");
	ck_assert_ptr_nonnull(file);
	fputs("bytes", file);
	fclose(file);
}

#define DIGITS "00112233445566778899aabbccddeeff"

START_TEST(files_that_no_entry_owns_are_orphans)
{
	struct scache_sweep_report report;
	char name[BLOB_PATH_BYTES];

	/* Of a segment before ours, of a slot we do not have, of another life. */
	make("kept");
	make_file("00", DIGITS "." DIGITS ".1.1");
	snprintf(name, sizeof(name), DIGITS ".%s.%u.0", cache->seat->store.uuid, FIXTURE_ENTRIES);
	make_file("01", name);
	snprintf(name, sizeof(name), DIGITS ".%s.0.4000000000", cache->seat->store.uuid);
	make_file("ff", name);
	report = sweep(SCACHE_DRY_RUN, 0);
	ck_assert_uint_eq(report.orphans, 3);
	ck_assert_uint_eq(count_blobs(), 4);
	report = sweep(0, 0);
	ck_assert_uint_eq(report.orphans, 3);
	ck_assert_uint_gt(report.orphan_bytes, 0);
	ck_assert_uint_eq(count_blobs(), 1);
	ck_assert(exists("kept"));
}
END_TEST

START_TEST(files_of_another_segment_are_spared_while_somebody_is_attached_to_it)
{
	const uint64_t number = segment->number + 1;
	char path[PATH_MAX];
	int fd;

	snprintf(path, sizeof(path), "%s/ctl/lock", f.dir);
	fd = open(path, O_RDWR | O_CLOEXEC);
	ck_assert_int_eq(lockfile_take(fd, number, 0), 0);
	make_file("00", DIGITS "." DIGITS ".1.1");
	ck_assert_uint_eq(sweep(0, 0).orphans, 0);
	ck_assert_uint_eq(count_blobs(), 1);
	close(fd);
	ck_assert_uint_eq(sweep(0, 0).orphans, 1);
	ck_assert_uint_eq(count_blobs(), 0);
}
END_TEST

START_TEST(unknown_files_are_told_of_and_left)
{
	char path[PATH_MAX];

	make_file("aa", "README");
	ck_assert_uint_eq(sweep(0, 0).unknown, 1);
	ck_assert_str_eq(victims, "left unknown blobs/aa/README;");
	ck_assert_uint_eq(count_blobs(), 1);
	fixture_close(&f, cache);
	fixture_close(&f, other);
	ck_assert_int_eq(scache_destroy(f.dir, NULL), -ENOTEMPTY);
	snprintf(path, sizeof(path), "%s/blobs/aa/README", f.dir);
	ck_assert_int_eq(unlink(path), 0);
	fixture_open(&f);
}
END_TEST

START_TEST(destroy_is_busy_while_anybody_is_attached)
{
	const struct scache_sweep_options dry = { .size = sizeof(dry), .flags = SCACHE_DRY_RUN };

	make("kept");
	ck_assert_int_eq(scache_destroy(f.dir, NULL), -EBUSY);
	ck_assert_str_ne(scache_detail(), "");
	fixture_close(&f, cache);
	ck_assert_int_eq(scache_destroy(f.dir, NULL), -EBUSY);
	fixture_close(&f, other);
	ck_assert_int_eq(scache_destroy(f.dir, &dry), 0);
	cache = fixture_open(&f);
	ck_assert(exists("kept"));
}
END_TEST

/* --------------------------------------------------------------------- room */

static void fill_the_table(void)
{
	for (unsigned i = 0; i < FIXTURE_ENTRIES; i++) {
		char text[] = { 'k', (char)('a' + i), '\0' };

		make(text);
	}
}

START_TEST(a_full_table_gives_up_its_oldest_entry)
{
	fill_the_table();
	ck_assert_uint_eq(count_blobs(), FIXTURE_ENTRIES);
	make("one more");
	ck_assert_uint_eq(count_blobs(), FIXTURE_ENTRIES);
	ck_assert(!exists("ka"));
	ck_assert(exists("kb"));
	ck_assert(exists("one more"));
}
END_TEST

START_TEST(what_is_read_is_not_given_up)
{
	struct scache_reader *readers[3];
	static const char *const keys[] = { "ka", "kb", "kc" };

	fill_the_table();
	for (unsigned i = 0; i < ARRAY_COUNT(readers); i++)
		ck_assert_int_eq(scache_lookup(other, keys[i], 2, NULL, &readers[i]), 0);
	make("one more");
	ck_assert(exists("ka"));
	ck_assert(exists("kc"));
	ck_assert(!exists("kd"));
	for (unsigned i = 0; i < ARRAY_COUNT(readers); i++)
		scache_reader_close(readers[i]);
}
END_TEST

START_TEST(what_has_expired_goes_before_what_is_merely_old)
{
	struct index_key key = fixture_key("kh");
	struct entry_name name;

	fill_the_table();
	ck_assert_int_eq(fixture_find(cache, &key, &name), 1);
	expire_now(name);
	ck_assert(sweep_make_room(&other->seat->store));
	ck_assert(!exists("kh"));
	ck_assert(exists("ka"));
}
END_TEST

START_TEST(what_the_dead_hold_goes_before_what_is_finished)
{
	struct scache_writer *writer;

	ck_assert_int_eq(scache_acquire(other, "dead", 4, NULL, NULL, &writer), 0);
	for (unsigned i = 0; i < FIXTURE_ENTRIES - 1; i++) {
		char text[] = { 'k', (char)('a' + i), '\0' };

		make(text);
	}
	fixture_kill(&f, other);
	fixture_bury_writer(writer);
	make("one more");
	ck_assert(exists("ka"));
	ck_assert(exists("one more"));
}
END_TEST

START_TEST(a_table_full_of_growing_entries_is_a_bypass)
{
	struct scache_writer *writers[FIXTURE_ENTRIES], *none;
	char text[] = "ka";

	for (unsigned i = 0; i < FIXTURE_ENTRIES; i++, text[1]++)
		ck_assert_int_eq(scache_acquire(cache, text, 2, NULL, NULL, &writers[i]), 0);
	ck_assert(!sweep_make_room(&cache->seat->store));
	ck_assert_int_eq(scache_acquire(cache, text, 2, NULL, NULL, &none), SCACHE_BYPASS);
	ck_assert_ptr_null(none);
	for (unsigned i = 0; i < FIXTURE_ENTRIES; i++)
		scache_writer_close(writers[i]);
	ck_assert_int_eq(scache_acquire(cache, text, 2, NULL, NULL, &none), 0);
	scache_writer_close(none);
}
END_TEST

START_TEST(a_slice_does_nothing_before_it_is_time)
{
	struct entry_name name = make("old");

	shm_store(&segment->header->next_sweep_ns, UINT64_MAX);
	expire_now(name);
	sweep_slice(&cache->seat->store);
	ck_assert(exists("old"));
	sweep_note_expiry(&cache->seat->store, 1);
	sweep_slice(&cache->seat->store);
	ck_assert(!exists("old"));
	ck_assert_uint_eq(count_blobs(), 0);
}
END_TEST

START_TEST(a_lookup_does_not_find_what_has_expired)
{
	struct scache_reader *reader = NULL;

	expire_now(make("old"));
	ck_assert_int_eq(scache_lookup(cache, "old", 3, NULL, &reader), -ENOENT);
	ck_assert_ptr_null(reader);
	/* Whoever acquires it becomes the producer of the next one. */
	make("old");
	ck_assert_int_eq(scache_lookup(cache, "old", 3, NULL, &reader), 0);
	scache_reader_close(reader);
	ck_assert_uint_eq(count_blobs(), 1);
}
END_TEST

int main(void)
{
	const TTest *const tests[] = {
		what_has_expired_goes_and_the_rest_stays,
		a_dry_run_tells_and_removes_nothing,
		a_sweep_may_be_stricter_than_the_entries_but_not_laxer,
		garbage_with_a_reader_stays_until_it_leaves,
		garbage_of_a_killed_reader_goes_with_the_next_sweep,
		a_growing_entry_is_left_alone,
		files_that_no_entry_owns_are_orphans,
		files_of_another_segment_are_spared_while_somebody_is_attached_to_it,
		unknown_files_are_told_of_and_left,
		destroy_is_busy_while_anybody_is_attached,
		a_full_table_gives_up_its_oldest_entry,
		what_is_read_is_not_given_up,
		what_has_expired_goes_before_what_is_merely_old,
		what_the_dead_hold_goes_before_what_is_finished,
		a_table_full_of_growing_entries_is_a_bypass,
		a_slice_does_nothing_before_it_is_time,
		a_lookup_does_not_find_what_has_expired,
	};

	return fixture_main("sweep", setup, teardown, tests, ARRAY_COUNT(tests));
}
