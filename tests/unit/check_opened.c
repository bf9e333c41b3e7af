/* SPDX-License-Identifier: MIT */
/*
 * check_opened - a blob that is not trusted is compared before it is seen, and its entry
 * learns when all of it has been.
 */
#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "../util/fixture.h"
#include "../util/pattern.h"
#include "../util/spawn.h"
#include "store/blob.h"
#include "store/footer.h"
#include "store/opened.h"

#define BLOCK ((uint64_t)BLOCK_BYTES)
#define LARGE_BYTES (3 * BLOCK + 777)

/* All reads of the library come here; some are to be told to be content with less. */
static size_t read_most = SIZE_MAX;

ssize_t __real_pread(int fd, void *ret_data, size_t bytes, off_t offset);
ssize_t __wrap_pread(int fd, void *ret_data, size_t bytes, off_t offset);

ssize_t __wrap_pread(int fd, void *ret_data, size_t bytes, off_t offset)
{
	return __real_pread(fd, ret_data, bytes < read_most ? bytes : read_most, offset);
}

static struct fixture f;
static struct scache *cache;
static struct store *store;
static unsigned char data[LARGE_BYTES];

static void setup(void)
{
	fixture_begin(&f);
	cache = fixture_open(&f);
	store = &cache->seat->store;
	pattern_fill(1, 0, data, sizeof(data));
}

static void teardown(void)
{
	fixture_end(&f);
}

/* A finished entry "k", as if its file were older than the segment. */
static struct entry_name make_unverified(size_t bytes)
{
	struct index_key key = fixture_key("k");
	struct entry_name name;
	shm_u64 *state;

	fixture_produce(cache, "k", data, bytes);
	ck_assert_int_eq(fixture_find(cache, &key, &name), 1);
	state = entry_state_word(store->segment, name.idx);
	shm_store(state, shm_load(state) | (uint64_t)ENTRY_UNVERIFIED << 24);
	ck_assert(state_is_unverified(fixture_state(cache, name.idx)));
	return name;
}

static bool is_unverified(struct entry_name name)
{
	return state_is_unverified(fixture_state(cache, name.idx));
}

static int get(struct entry_name name, bool is_guarded, struct open_blob **ret_blob)
{
	const struct shm_entry *entry = entry_at(store->segment, name.idx);
	const struct blob_facts facts = { .bytes = shm_load((shm_u64 *)&entry->written),
					  .file_bytes = shm_load((shm_u64 *)&entry->file_bytes),
					  .is_guarded = is_guarded };

	return table_get(store, name, entry_hash(entry), &facts, ret_blob);
}

static struct open_blob *must_get(struct entry_name name, bool is_guarded)
{
	struct open_blob *blob = NULL;

	must_be(get(name, is_guarded, &blob), 0);
	return blob;
}

static void change(struct entry_name name, uint64_t at)
{
	char path[BLOB_PATH_BYTES];
	unsigned char byte;
	int fd;

	blob_path(store, name, fixture_key("k").hash, path);
	must(fchmodat(store->blobs_fd, path, 0600, 0) == 0);
	fd = openat(store->blobs_fd, path, O_RDWR);
	must(fd >= 0 && pread(fd, &byte, 1, (off_t)at) == 1);
	byte ^= 4;
	must(pwrite(fd, &byte, 1, (off_t)at) == 1);
	close(fd);
}

START_TEST(an_entry_is_verified_when_all_of_it_has_been_compared)
{
	struct entry_name name = make_unverified(LARGE_BYTES);
	struct open_blob *blob = must_get(name, true);

	for (uint64_t i = 4; i-- > 0;) {
		must(is_unverified(name));
		must_be(opened_check(store, blob, i * BLOCK, 1), 0);
	}
	must(!is_unverified(name));
	must_be(state_of(fixture_state(cache, name.idx)), ENTRY_SEALED);
	must_be(opened_check(store, blob, 0, LARGE_BYTES), 0);
	table_put(store, blob);
}
END_TEST

START_TEST(a_small_one_is_verified_when_it_is_opened)
{
	static const size_t sizes[] = { 0, 1, 5, 8, TABLE_COPY_BYTES_MAX };
	unsigned char seen[TABLE_COPY_BYTES_MAX + 1];

	for (size_t i = 0; i < ARRAY_COUNT(sizes); i++) {
		struct entry_name name = make_unverified(sizes[i]);
		struct open_blob *blob;

		read_most = i % 2 ? 700 : SIZE_MAX;
		blob = must_get(name, true);
		must(!is_unverified(name));
		must_be(opened_fd(blob), -1);
		must_be(opened_read(blob, seen, sizeof(seen), 0), sizes[i]);
		must(memcmp(seen, data, sizes[i]) == 0);
		must_be(opened_check(store, blob, 0, sizes[i]), 0);
		table_put(store, blob);
		must_be(scache_remove(cache, "k", 1), 0);
	}
}
END_TEST

START_TEST(what_is_damaged_is_not_verified)
{
	struct entry_name name = make_unverified(LARGE_BYTES);
	struct open_blob *blob, *none = NULL;

	change(name, BLOCK);
	blob = must_get(name, true);
	must_be(opened_check(store, blob, 0, LARGE_BYTES), -EBADMSG);
	for (uint64_t i = 0; i < 4; i++)
		must_be(opened_check(store, blob, i * BLOCK, 1), i == 1 ? -EBADMSG : 0);
	must(is_unverified(name));
	table_put(store, blob);
	must_be(scache_remove(cache, "k", 1), 0);
	/* In the payload, in the word, in the key, at the end. */
	for (uint64_t at = 99; at < 99 + 100; at += 9) {
		name = make_unverified(100);
		change(name, at);
		must_be(get(name, true, &none), -EBADMSG);
		must(none == NULL && is_unverified(name));
		must_be(scache_remove(cache, "k", 1), 0);
	}
}
END_TEST

START_TEST(who_trusts_a_file_does_not_compare_it)
{
	static const size_t sizes[] = { 100, LARGE_BYTES };

	for (size_t i = 0; i < ARRAY_COUNT(sizes); i++) {
		struct entry_name name = make_unverified(sizes[i]);
		struct open_blob *blob;
		unsigned char byte;

		change(name, 50);
		blob = must_get(name, false);
		must_be(opened_check(store, blob, 0, sizes[i]), 0);
		must_be(opened_read(blob, &byte, 1, 50), 1);
		must_be(byte, data[50] ^ 4);
		must(is_unverified(name));
		table_put(store, blob);
		must_be(scache_remove(cache, "k", 1), 0);
	}
}
END_TEST

START_TEST(what_was_trusted_is_opened_anew_by_who_does_not)
{
	static const size_t sizes[] = { 100, LARGE_BYTES };

	for (size_t i = 0; i < ARRAY_COUNT(sizes); i++) {
		struct entry_name name = make_unverified(sizes[i]);
		struct open_blob *trusted = must_get(name, false), *guarded, *again;

		guarded = must_get(name, true);
		must(guarded != trusted);
		must_be(opened_check(store, guarded, 0, sizes[i]), 0);
		must(!is_unverified(name));
		/* Who does not compare may have what was compared. */
		again = must_get(name, false);
		must(again == guarded);
		table_put(store, again);
		again = must_get(name, true);
		must(again == guarded);
		table_put(store, again);
		table_put(store, trusted);
		table_put(store, guarded);
		must_be(scache_remove(cache, "k", 1), 0);
	}
}
END_TEST

START_TEST(only_a_reader_of_all_verifies_an_entry)
{
	struct entry_name name = make_unverified(LARGE_BYTES);
	struct scache_reader *reader;
	uint64_t position = 0;

	must_be(scache_lookup(cache, "k", 1, NULL, &reader), 0);
	must_be(pattern_read(reader, 1, &position, 3 * BLOCK, 30000), 1);
	must(is_unverified(name) || position > 3 * BLOCK);
	must_be(pattern_read(reader, 1, &position, UINT64_MAX, 30000), 0);
	must(!is_unverified(name));
	scache_reader_close(reader);
}
END_TEST

START_TEST(who_never_verifies_leaves_it_to_others)
{
	struct entry_name name = make_unverified(LARGE_BYTES);
	struct scache_reader *reader;
	struct scache *never;

	f.options.verify = SCACHE_VERIFY_NEVER;
	never = fixture_open(&f);
	must_be(scache_lookup(never, "k", 1, NULL, &reader), 0);
	pattern_read_all(reader, 1, LARGE_BYTES);
	scache_reader_close(reader);
	must(is_unverified(name));
	must_be(scache_lookup(cache, "k", 1, NULL, &reader), 0);
	pattern_read_all(reader, 1, LARGE_BYTES);
	scache_reader_close(reader);
	must(!is_unverified(name));
}
END_TEST

int main(void)
{
	const TTest *const tests[] = {
		an_entry_is_verified_when_all_of_it_has_been_compared,
		a_small_one_is_verified_when_it_is_opened,
		what_is_damaged_is_not_verified,
		who_trusts_a_file_does_not_compare_it,
		what_was_trusted_is_opened_anew_by_who_does_not,
		only_a_reader_of_all_verifies_an_entry,
		who_never_verifies_leaves_it_to_others,
	};

	return fixture_main("opened", setup, teardown, tests, ARRAY_COUNT(tests));
}
