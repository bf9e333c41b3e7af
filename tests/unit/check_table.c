/* SPDX-License-Identifier: MIT */
/*
 * check_table - a repeated hit opens no file, or has all of it in memory; what is
 * kept is bounded.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <sys/resource.h>
#include <unistd.h>

#include "../util/fixture.h"
#include "store/blob.h"
#include "store/opened.h"

static struct fixture f;
static struct scache *cache;
static struct store *store;

static void setup(void)
{
	fixture_begin(&f);
	f.options.entries = 64;
	cache = fixture_open(&f);
	store = &cache->seat->store;
}

static void teardown(void)
{
	fixture_end(&f);
}

#define LARGE (TABLE_COPY_BYTES_MAX + 10)

static char content[LARGE];

static struct entry_name make_sized(const char *text, size_t bytes, struct index_key *ret_key)
{
	struct entry_name name;

	for (size_t i = 0; i < bytes; i++)
		content[i] = (char)('0' + i % 10);
	*ret_key = fixture_key(text);
	fixture_produce(cache, text, content, bytes);
	ck_assert_int_eq(fixture_find(cache, ret_key, &name), 1);
	return name;
}

/* A finished entry too large for a copy. */
static struct entry_name make(const char *text, struct index_key *ret_key)
{
	return make_sized(text, LARGE, ret_key);
}

/* As if its entry said that it is of @bytes. */
static int try_to_get(struct entry_name name, const struct index_key *key, uint64_t bytes,
		      struct open_blob **ret_blob)
{
	const struct shm_entry *entry = entry_at(store->segment, name.idx);
	uint64_t more = shm_load((shm_u64 *)&entry->file_bytes) - shm_load((shm_u64 *)&entry->written);
	const struct blob_facts facts = { .bytes = bytes, .file_bytes = bytes + more };

	return table_get(store, name, key->hash, &facts, ret_blob);
}

static struct open_blob *get_sized(struct entry_name name, const struct index_key *key,
				   uint64_t bytes)
{
	struct open_blob *blob = NULL;

	ck_assert_int_eq(try_to_get(name, key, bytes, &blob), 0);
	ck_assert_ptr_nonnull(blob);
	return blob;
}

static struct open_blob *get(struct entry_name name, const struct index_key *key)
{
	return get_sized(name, key, LARGE);
}

static unsigned count_descriptors(void)
{
	DIR *dir = opendir("/proc/self/fd");
	unsigned count = 0;

	ck_assert_ptr_nonnull(dir);
	while (readdir(dir) != NULL)
		count++;
	closedir(dir);
	return count;
}

START_TEST(the_second_get_opens_no_file)
{
	struct index_key key;
	struct entry_name name = make("k", &key);
	struct open_blob *first = get(name, &key), *second, *third;
	int fd = opened_fd(first);
	char data[16];

	second = get(name, &key);
	ck_assert_ptr_eq(first, second);
	table_put(store, first);
	table_put(store, second);
	/* Nor does one that comes when all users have gone. */
	third = get(name, &key);
	ck_assert_int_eq(opened_fd(third), fd);
	ck_assert_int_eq(blob_read(fd, data, sizeof(data), LARGE - 10), sizeof(data));
	table_put(store, third);
}
END_TEST

START_TEST(a_file_that_is_gone_is_enoent)
{
	struct entry_name nobody = { .idx = 5, .gen = 77 };
	struct index_key key = { .hash = { .high = 1 } };
	struct open_blob *blob = NULL;

	ck_assert_int_eq(try_to_get(nobody, &key, 10, &blob), -ENOENT);
	ck_assert_ptr_null(blob);
}
END_TEST

START_TEST(another_generation_is_another_file)
{
	struct index_key key;
	struct entry_name name = make("k", &key), later = { name.idx, name.gen + 1 };
	struct open_blob *blob = get(name, &key), *none = NULL;

	ck_assert_int_eq(try_to_get(later, &key, LARGE, &none), -ENOENT);
	table_put(store, blob);
}
END_TEST

START_TEST(a_dropped_blob_is_kept_by_its_users_and_opened_anew_by_others)
{
	struct index_key key;
	struct entry_name name = make("k", &key);
	struct open_blob *old = get(name, &key), *fresh;
	char data[16];

	table_drop(store, old);
	table_drop(store, old); /* once is enough */
	fresh = get(name, &key);
	ck_assert_ptr_ne(old, fresh);
	ck_assert_int_ne(opened_fd(old), opened_fd(fresh));
	ck_assert_int_eq(opened_read(old, data, sizeof(data), LARGE - 10), 10);
	table_put(store, old);
	table_put(store, fresh);
	ck_assert_uint_eq(store->table.items, 1);
}
END_TEST

START_TEST(another_size_is_damage)
{
	struct index_key large_key, small_key;
	struct entry_name large = make("large", &large_key);
	struct entry_name small = make_sized("small", 10, &small_key);
	struct open_blob *blob = NULL;

	ck_assert_int_eq(try_to_get(large, &large_key, LARGE - 1, &blob), -EBADMSG);
	ck_assert_int_eq(try_to_get(large, &large_key, LARGE + 1, &blob), -EBADMSG);
	ck_assert_int_eq(try_to_get(small, &small_key, 9, &blob), -EBADMSG);
	ck_assert_int_eq(try_to_get(small, &small_key, 11, &blob), -EBADMSG);
	/* Nor if it was opened before its size was known. */
	table_put(store, get_sized(large, &large_key, TABLE_GROWING));
	ck_assert_int_eq(try_to_get(large, &large_key, LARGE - 1, &blob), -EBADMSG);
	ck_assert_ptr_null(blob);
	table_put(store, get_sized(large, &large_key, TABLE_GROWING));
	table_put(store, get(large, &large_key));
	ck_assert_uint_eq(store->table.items, 1);
}
END_TEST

START_TEST(a_small_blob_is_copied_once)
{
	unsigned before = count_descriptors();
	struct index_key key, empty_key;
	struct entry_name name = make_sized("k", TABLE_COPY_BYTES_MAX, &key);
	struct entry_name empty = make_sized("e", 0, &empty_key);
	struct open_blob *growing = get_sized(name, &key, TABLE_GROWING);
	struct open_blob *blob = get_sized(name, &key, TABLE_COPY_BYTES_MAX), *again;
	char data[16];

	ck_assert_ptr_ne(growing, blob);
	ck_assert_int_ge(opened_fd(growing), 0);
	table_put(store, growing);
	ck_assert_int_eq(opened_fd(blob), -1);
	ck_assert_uint_eq(count_descriptors(), before);
	ck_assert_uint_eq(store->table.copies_bytes, TABLE_COPY_BYTES_MAX);
	again = get_sized(name, &key, TABLE_COPY_BYTES_MAX);
	ck_assert_ptr_eq(blob, again);
	table_put(store, again);
	ck_assert_int_eq(opened_read(blob, data, sizeof(data), TABLE_COPY_BYTES_MAX - 7), 7);
	ck_assert_mem_eq(data, content + TABLE_COPY_BYTES_MAX - 7, 7);
	ck_assert_int_eq(opened_read(blob, data, sizeof(data), TABLE_COPY_BYTES_MAX), 0);
	ck_assert_int_eq(opened_read(blob, data, sizeof(data), UINT64_MAX), 0);
	table_drop(store, blob);
	table_put(store, blob);
	ck_assert_uint_eq(store->table.copies_bytes, 0);
	blob = get_sized(empty, &empty_key, 0);
	ck_assert_int_eq(opened_read(blob, data, sizeof(data), 0), 0);
	table_put(store, blob);
}
END_TEST

ssize_t __real_pread(int fd, void *data, size_t bytes, off_t offset);
ssize_t __wrap_pread(int fd, void *data, size_t bytes, off_t offset);

/* Once, while a file is looked into. */
static void (*meanwhile)(void);

ssize_t __wrap_pread(int fd, void *data, size_t bytes, off_t offset)
{
	void (*now)(void) = meanwhile;

	meanwhile = NULL;
	if (now != NULL)
		now();
	return __real_pread(fd, data, bytes, offset);
}

static struct entry_name raced;
static struct index_key raced_key;

static void open_as_growing(void)
{
	table_put(store, get_sized(raced, &raced_key, TABLE_GROWING));
}

START_TEST(who_finds_it_opened_otherwise_meanwhile_has_its_own)
{
	unsigned before = count_descriptors();
	struct open_blob *blob, *again;

	raced = make_sized("k", 10, &raced_key);
	meanwhile = open_as_growing;
	blob = get_sized(raced, &raced_key, 10);
	ck_assert(meanwhile == NULL);
	ck_assert_int_eq(opened_fd(blob), -1);
	again = get_sized(raced, &raced_key, 10);
	ck_assert_ptr_eq(blob, again);
	table_put(store, again);
	table_put(store, blob);
	ck_assert_uint_eq(store->table.items, 1);
	ck_assert_uint_eq(count_descriptors(), before);
}
END_TEST

START_TEST(a_view_is_mapped_once)
{
	struct index_key key;
	struct entry_name name = make("k", &key);
	struct open_blob *blob = get_sized(name, &key, TABLE_GROWING);
	const unsigned char *view;

	ck_assert_ptr_null(opened_view(blob));
	table_put(store, blob);
	blob = get(name, &key);
	view = opened_view(blob);
	ck_assert_ptr_nonnull(view);
	ck_assert_mem_eq(view, content, LARGE);
	ck_assert_ptr_eq(opened_view(blob), view);
	table_put(store, blob);
	blob = get(name, &key);
	ck_assert_ptr_eq(opened_view(blob), view);
	table_put(store, blob);
}
END_TEST

START_TEST(idle_descriptors_are_bounded)
{
	unsigned before = count_descriptors();

	store->table.files_room = 4;
	for (unsigned i = 0; i < 40; i++) {
		char text[] = { 'k', (char)('0' + i), '\0' };
		struct index_key key;
		struct entry_name name = make(text, &key);

		table_put(store, get(name, &key));
		ck_assert_uint_le(store->table.items, 4);
		ck_assert_uint_le(count_descriptors(), before + 4);
	}
}
END_TEST

/* What is asked for again and again stays, whatever else passes by once. */
START_TEST(a_popular_blob_outlives_a_scan)
{
	struct index_key popular_key;
	struct entry_name popular = make("popular", &popular_key);
	struct open_blob *blob = get(popular, &popular_key);
	int fd = opened_fd(blob);

	table_put(store, blob);
	store->table.files_room = 4;
	for (unsigned i = 0; i < 40; i++) {
		char text[] = { 'k', (char)('0' + i), '\0' };
		struct index_key key;
		struct entry_name name = make(text, &key);

		table_put(store, get(name, &key));
		blob = get(popular, &popular_key);
		ck_assert_int_eq(opened_fd(blob), fd);
		table_put(store, blob);
	}
}
END_TEST

START_TEST(used_descriptors_are_not_taken_away)
{
	struct open_blob *blobs[8];
	int fds[8];

	store->table.files_room = 4;
	for (unsigned i = 0; i < ARRAY_COUNT(blobs); i++) {
		char text[] = { 'k', (char)('0' + i), '\0' };
		struct index_key key;
		struct entry_name name = make(text, &key);

		blobs[i] = get(name, &key);
		fds[i] = opened_fd(blobs[i]);
	}
	for (unsigned i = 0; i < ARRAY_COUNT(blobs); i++) {
		ck_assert_int_eq(fcntl(fds[i], F_GETFD), FD_CLOEXEC);
		table_put(store, blobs[i]);
	}
}
END_TEST

START_TEST(what_has_ended_goes_first)
{
	struct index_key ended_key, idle_key, key;
	struct entry_name ended = make("ended", &ended_key), idle = make("idle", &idle_key), name;
	struct open_blob *blob = get(ended, &ended_key);
	int ended_fd = opened_fd(blob), idle_fd;

	table_put(store, blob);
	blob = get(idle, &idle_key);
	idle_fd = opened_fd(blob);
	table_put(store, blob);
	ck_assert_int_eq(scache_remove(cache, "ended", 5), 0);
	/* Its space is back although we hold a descriptor. */
	ck_assert_int_eq(lseek(ended_fd, 0, SEEK_END), 0);
	store->table.files_room = 2;
	name = make("one more", &key);
	table_put(store, get(name, &key));
	blob = get(idle, &idle_key);
	ck_assert_int_eq(opened_fd(blob), idle_fd);
	table_put(store, blob);
}
END_TEST

START_TEST(without_descriptors_an_idle_one_is_given_up)
{
	struct rlimit limit, before;
	struct index_key key, wanted_key;
	struct entry_name name = make("idle", &key), wanted = make("wanted", &wanted_key);
	struct open_blob *blob = NULL, *none = NULL;
	struct scache_reader *reader = NULL;
	int next;

	table_put(store, get(name, &key));
	ck_assert_int_eq(getrlimit(RLIMIT_NOFILE, &before), 0);
	next = dup(0);
	close(next);
	limit = before;
	limit.rlim_cur = (rlim_t)next;
	ck_assert_int_eq(setrlimit(RLIMIT_NOFILE, &limit), 0);
	ck_assert_int_eq(try_to_get(wanted, &wanted_key, LARGE, &blob), 0);
	/* There is no other idle one: the caller is told, or bypasses. */
	ck_assert_int_eq(try_to_get(name, &key, LARGE, &none), -EMFILE);
	ck_assert_ptr_null(none);
	ck_assert_int_eq(scache_lookup(cache, "idle", 4, NULL, &reader), -ENOENT);
	ck_assert_int_eq(setrlimit(RLIMIT_NOFILE, &before), 0);
	/* The entry did not suffer for it. */
	ck_assert_int_eq(scache_lookup(cache, "idle", 4, NULL, &reader), 0);
	scache_reader_close(reader);
	table_put(store, blob);
}
END_TEST

START_TEST(a_hit_after_a_hit_opens_no_file)
{
	struct scache_reader *reader;
	struct index_key key;
	unsigned open_after_first;
	char data[16];

	make("k", &key);
	ck_assert_int_eq(scache_lookup(cache, "k", 1, NULL, &reader), 0);
	ck_assert_int_eq(scache_read(reader, data, sizeof(data), 0), sizeof(data));
	scache_reader_close(reader);
	open_after_first = count_descriptors();
	for (unsigned i = 0; i < 3; i++) {
		ck_assert_int_eq(scache_lookup(cache, "k", 1, NULL, &reader), 0);
		ck_assert_uint_eq(count_descriptors(), open_after_first);
		scache_reader_close(reader);
	}
}
END_TEST

int main(void)
{
	const TTest *const tests[] = {
		the_second_get_opens_no_file,
		a_file_that_is_gone_is_enoent,
		another_generation_is_another_file,
		a_dropped_blob_is_kept_by_its_users_and_opened_anew_by_others,
		another_size_is_damage,
		a_small_blob_is_copied_once,
		who_finds_it_opened_otherwise_meanwhile_has_its_own,
		a_view_is_mapped_once,
		a_popular_blob_outlives_a_scan,
		idle_descriptors_are_bounded,
		used_descriptors_are_not_taken_away,
		what_has_ended_goes_first,
		without_descriptors_an_idle_one_is_given_up,
		a_hit_after_a_hit_opens_no_file,
	};

	return fixture_main("table", setup, teardown, tests, ARRAY_COUNT(tests));
}
