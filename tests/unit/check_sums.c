/* SPDX-License-Identifier: MIT */
/*
 * check_sums - the checksum of a block does not depend on how its bytes came; and a
 * guard shows no block that has another one.
 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include <xxhash.h>

#include "../util/fixture.h"
#include "../util/pattern.h"
#include "../util/spawn.h"
#include "store/footer.h"
#include "store/guard.h"
#include "store/sums.h"

#define BLOCK ((size_t)BLOCK_BYTES)
#define BYTES_MAX (24 * BLOCK)
#define BLOCKS 7u /* of the guarded files; the last one is short */
#define GUARDED_BYTES ((BLOCKS - 1) * BLOCK + 1234)
#define THREADS 4

/* All reads of the library come here; some are to be told to be content with less. */
static size_t read_most = SIZE_MAX;

ssize_t __real_pread(int fd, void *ret_data, size_t bytes, off_t offset);
ssize_t __wrap_pread(int fd, void *ret_data, size_t bytes, off_t offset);

ssize_t __wrap_pread(int fd, void *ret_data, size_t bytes, off_t offset)
{
	return __real_pread(fd, ret_data, bytes < read_most ? bytes : read_most, offset);
}

/* How many bytes the library may still have by realloc(). */
static size_t realloc_room = SIZE_MAX;

void *__real_realloc(void *data, size_t bytes);
void *__wrap_realloc(void *data, size_t bytes);

void *__wrap_realloc(void *data, size_t bytes)
{
	return bytes > realloc_room ? NULL : __real_realloc(data, bytes);
}

static unsigned char *data;

static void setup(void)
{
	data = malloc(BYTES_MAX);
	ck_assert_ptr_nonnull(data);
	pattern_fill(1, 0, data, BYTES_MAX);
}

static void teardown(void)
{
	free(data);
}

static void must_be_right(const uint64_t *words, size_t bytes)
{
	for (size_t i = 0, at = 0; at < bytes; i++, at += BLOCK)
		must(words[i] == XXH3_64bits(data + at, bytes - at < BLOCK ? bytes - at : BLOCK));
}

/* By pieces of @piece bytes; the last of them, or nothing, ends it. */
static void sum_up(size_t bytes, size_t piece, bool ends_empty)
{
	struct sums sums = { .bytes = 0 };
	const uint64_t *words = NULL;
	size_t at = 0;

	while (bytes - at > piece || (ends_empty && at < bytes)) {
		size_t part = bytes - at < piece ? bytes - at : piece;

		must_be(sums_add(&sums, data + at, part), 0);
		at += part;
		must_be(sums.bytes, at);
	}
	must_be(sums_end(&sums, data + at, bytes - at, &words), 0);
	must_be(sums.bytes, bytes);
	must_be_right(words, bytes);
	sums_free(&sums);
	must(sums.bytes == 0 && sums.words == NULL && sums.state == NULL);
}

START_TEST(one_piece_has_its_checksum)
{
	for (size_t bytes = 0; bytes < 2000; bytes++)
		must(sums_of(data, bytes) == XXH3_64bits(data, bytes));
	ck_assert(sums_of(data, BLOCK) == XXH3_64bits(data, BLOCK));
}
END_TEST

START_TEST(how_bytes_are_split_does_not_matter)
{
	static const size_t sizes[] = {
		0,	   1,	      2,	 240,	  241,	     1000,	    BLOCK - 1,
		BLOCK,	   BLOCK + 1, 2 * BLOCK, 4 * BLOCK, 4 * BLOCK + 1, 5 * BLOCK,
		9 * BLOCK - 1, BYTES_MAX,
	};
	static const size_t pieces[] = {
		7,     255,	  4096,	     65536,	    100003,    BLOCK - 1,
		BLOCK, BLOCK + 1, 2 * BLOCK, 3 * BLOCK + 1, BYTES_MAX,
	};

	for (size_t i = 0; i < ARRAY_COUNT(sizes); i++)
		for (size_t j = 0; j < ARRAY_COUNT(pieces); j++) {
			sum_up(sizes[i], pieces[j], false);
			sum_up(sizes[i], pieces[j], true);
		}
	sum_up(2 * BLOCK + 3, 1, false);
	sum_up(2 * BLOCK + 3, 1, true);
}
END_TEST

START_TEST(pieces_of_any_size_in_a_row_do)
{
	unsigned random = 5;

	for (int i = 0; i < 60; i++) {
		struct sums sums = { .bytes = 0 };
		size_t bytes = (size_t)rand_r(&random) % BYTES_MAX, at = 0, part;
		const uint64_t *words;

		for (; at < bytes; at += part) {
			size_t left = BLOCK - at % BLOCK;

			/* To the end of a block, one byte beside it, far across it, a little. */
			part = rand_r(&random) % 4 == 0 ? left + (size_t)rand_r(&random) % 3 - 1 :
			       rand_r(&random) % 4 == 0 ? (size_t)rand_r(&random) % (5 * BLOCK) :
							  (size_t)rand_r(&random) % 9000;
			part = part < bytes - at ? part : bytes - at;
			must_be(sums_add(&sums, data + at, part), 0);
		}
		must_be(sums_end(&sums, data + at, 0, &words), 0);
		must_be_right(words, bytes);
		sums_free(&sums);
	}
}
END_TEST

START_TEST(without_memory_nothing_is_lost)
{
	struct sums sums = { .bytes = 0 };
	const uint64_t *words = NULL;

	must_be(sums_add(&sums, data, SUMS_INLINE * BLOCK), 0);
	realloc_room = 0;
	must_be(sums_add(&sums, data + sums.bytes, 1), -ENOMEM);
	must_be(sums_end(&sums, data + sums.bytes, BLOCK, &words), -ENOMEM);
	must(words == NULL && sums.bytes == SUMS_INLINE * BLOCK);
	realloc_room = SIZE_MAX;
	must_be(sums_add(&sums, data + sums.bytes, 100), 0);
	must_be(sums_end(&sums, data + sums.bytes, 3 * BLOCK, &words), 0);
	must_be_right(words, (size_t)sums.bytes);
	sums_free(&sums);
}
END_TEST

/* ----------------------------------------------------------------------- guard */

struct guarded {
	int fd;
	uint64_t bytes, file_bytes;
	struct key_hash hash; /* of its key */
};

/* A finished blob's file, as it should be. */
static struct guarded make_file(uint64_t bytes, uint32_t format)
{
	const char *above = getenv("TMPDIR");
	struct sums sums = { .bytes = 0 };
	struct footer footer = { .format = format,
				 .bytes = bytes,
				 .stored_bytes = bytes,
				 .key = (const unsigned char *)"key",
				 .key_bytes = 3 };
	struct guarded file = { .bytes = bytes, .hash = hash_key("key", 3) };
	unsigned char *end;
	char path[PATH_MAX];

	must_be(sums_end(&sums, data, (size_t)bytes, &footer.words), 0);
	file.file_bytes = bytes + footer_bytes(&footer);
	end = malloc((size_t)footer_bytes(&footer));
	must(end != NULL);
	footer_encode(&footer, end);
	snprintf(path, sizeof(path), "%s/guarded.XXXXXX", above != NULL ? above : "/tmp");
	file.fd = mkstemp(path);
	must(file.fd >= 0 && unlink(path) == 0);
	must(pwrite(file.fd, data, (size_t)bytes, 0) == (ssize_t)bytes);
	must(pwrite(file.fd, end, (size_t)footer_bytes(&footer), (off_t)bytes) ==
	     (ssize_t)footer_bytes(&footer));
	free(end);
	sums_free(&sums);
	return file;
}

static struct guard *guard(const struct guarded *file)
{
	struct guard *guard = NULL;

	must_be(guard_open(file->fd, file->bytes, file->file_bytes, file->hash, &guard), 0);
	return guard;
}

static void change(const struct guarded *file, uint64_t at)
{
	unsigned char byte;

	must(pread(file->fd, &byte, 1, (off_t)at) == 1);
	byte ^= 1;
	must(pwrite(file->fd, &byte, 1, (off_t)at) == 1);
}

START_TEST(a_changed_block_is_refused_and_the_others_are_not)
{
	for (uint64_t bad = 0; bad < BLOCKS; bad++) {
		struct guarded file = make_file(GUARDED_BYTES, BLOB_RAW);
		struct guard *g;
		uint64_t last = bad < BLOCKS - 1 ? (bad + 1) * BLOCK - 1 : GUARDED_BYTES - 1;

		change(&file, bad % 2 == 0 ? bad * BLOCK : last);
		g = guard(&file);
		for (int turn = 0; turn < 2; turn++)
			for (uint64_t i = 0; i < BLOCKS; i++)
				must_be(guard_check(g, file.fd, i * BLOCK + 7, 100),
					i == bad ? -EBADMSG : 0);
		must_be(guard_check(g, file.fd, 0, GUARDED_BYTES), -EBADMSG);
		must(!guard_is_done(g));
		/* Put right again, it is as good as any. */
		change(&file, bad % 2 == 0 ? bad * BLOCK : last);
		must_be(guard_check(g, file.fd, 0, GUARDED_BYTES), 0);
		must(guard_is_done(g));
		guard_free(g);
		close(file.fd);
	}
}
END_TEST

START_TEST(only_what_is_wanted_is_compared)
{
	struct guarded file = make_file(GUARDED_BYTES, BLOB_RAW);
	struct guard *g = guard(&file);

	change(&file, BLOCK);
	change(&file, 3 * BLOCK - 1);
	must_be(guard_check(g, file.fd, 0, BLOCK), 0);
	must_be(guard_check(g, file.fd, BLOCK - 1, 1), 0);
	must_be(guard_check(g, file.fd, BLOCK, 0), 0);
	must_be(guard_check(g, file.fd, BLOCK - 1, 2), -EBADMSG);
	must_be(guard_check(g, file.fd, BLOCK, 1), -EBADMSG);
	must_be(guard_check(g, file.fd, 3 * BLOCK - 1, 1), -EBADMSG);
	must_be(guard_check(g, file.fd, 3 * BLOCK - 1, 2), -EBADMSG);
	must_be(guard_check(g, file.fd, 3 * BLOCK, 1), 0);
	/* Beyond the end there is nothing to be compared. */
	must_be(guard_check(g, file.fd, GUARDED_BYTES - 1, 100 * BLOCK), 0);
	must_be(guard_check(g, file.fd, GUARDED_BYTES, 1), 0);
	must(!guard_is_done(g));
	guard_free(g);
	close(file.fd);
}
END_TEST

START_TEST(a_block_is_compared_once)
{
	struct guarded file = make_file(GUARDED_BYTES, BLOB_RAW);
	struct guard *g = guard(&file);

	for (uint64_t i = BLOCKS; i-- > 0;) {
		must(!guard_is_done(g));
		must_be(guard_check(g, file.fd, i * BLOCK, 1), 0);
		must_be(guard_check(g, file.fd, i * BLOCK + 1, 10), 0);
	}
	must(guard_is_done(g));
	for (uint64_t i = 0; i < BLOCKS; i++)
		change(&file, i * BLOCK + 5);
	must_be(guard_check(g, file.fd, 0, GUARDED_BYTES), 0);
	guard_free(g);
	/* By another guard they are compared anew. */
	g = guard(&file);
	must_be(guard_check(g, file.fd, 0, 1), -EBADMSG);
	guard_free(g);
	close(file.fd);
}
END_TEST

START_TEST(all_sizes_can_be_guarded)
{
	static const uint64_t sizes[] = { 0, 1, BLOCK - 1, BLOCK, BLOCK + 1, 2 * BLOCK, BYTES_MAX };

	for (size_t i = 0; i < ARRAY_COUNT(sizes); i++) {
		struct guarded file = make_file(sizes[i], BLOB_RAW);
		struct guard *g = guard(&file);

		must_be(guard_is_done(g), sizes[i] == 0);
		must_be(guard_check(g, file.fd, 0, BYTES_MAX), 0);
		must(guard_is_done(g));
		guard_free(g);
		close(file.fd);
	}
	guard_free(NULL);
}
END_TEST

START_TEST(a_guarded_file_may_be_read_in_little_pieces)
{
	struct guarded file = make_file(GUARDED_BYTES, BLOB_RAW);
	struct guard *g;

	read_most = 10007;
	g = guard(&file);
	must_be(guard_check(g, file.fd, 0, GUARDED_BYTES), 0);
	must(guard_is_done(g));
	guard_free(g);
	close(file.fd);
}
END_TEST

START_TEST(a_file_that_is_another_is_not_guarded)
{
	struct guarded file = make_file(GUARDED_BYTES, BLOB_RAW), lz4 = make_file(100, BLOB_LZ4);
	struct guard *g = NULL;

	must_be(guard_open(file.fd, file.bytes - 1, file.file_bytes, file.hash, &g), -EBADMSG);
	must_be(guard_open(file.fd, file.bytes + 1, file.file_bytes, file.hash, &g), -EBADMSG);
	must_be(guard_open(file.fd, file.bytes, file.file_bytes - 1, file.hash, &g), -EBADMSG);
	must_be(guard_open(file.fd, file.bytes, file.file_bytes + 1, file.hash, &g), -EBADMSG);
	must_be(guard_open(lz4.fd, lz4.bytes, lz4.file_bytes, lz4.hash, &g), -EBADMSG);
	must_be(guard_open(file.fd, file.bytes, file.file_bytes, hash_key("kez", 3), &g), -EBADMSG);
	must_be(guard_open(file.fd, file.bytes, file.file_bytes, hash_key("ke", 2), &g), -EBADMSG);
	change(&file, file.file_bytes - 40);
	must_be(guard_open(file.fd, file.bytes, file.file_bytes, file.hash, &g), -EBADMSG);
	must_be(guard_open(-1, file.bytes, file.file_bytes, file.hash, &g), -EBADF);
	must(g == NULL);
	close(lz4.fd);
	close(file.fd);
}
END_TEST

START_TEST(a_file_that_has_lost_its_end_is_refused_there)
{
	struct guarded file = make_file(GUARDED_BYTES, BLOB_RAW);
	struct guard *g = guard(&file);

	must(ftruncate(file.fd, (off_t)(2 * BLOCK + 1)) == 0);
	must_be(guard_check(g, file.fd, 2 * BLOCK, 1), -EBADMSG);
	must_be(guard_check(g, file.fd, 3 * BLOCK, 1), -EBADMSG);
	must_be(guard_check(g, file.fd, BLOCK, BLOCK), 0);
	/* And one that cannot be read is not damaged. */
	must_be(guard_check(g, -1, 0, 1), -EBADF);
	must_be(guard_check(g, file.fd, 0, 1), 0);
	guard_free(g);
	close(file.fd);
}
END_TEST

/* --------------------------------------------------------------------- threads */

static struct guarded shared_file;
static struct guard *shared_guard;
static uint64_t bad_block;
static pthread_barrier_t all_here;

static void *compare_all(void *arg)
{
	uint64_t first = (uint64_t)(uintptr_t)arg;

	pthread_barrier_wait(&all_here);
	for (uint64_t i = 0; i < BLOCKS; i++) {
		uint64_t block = (first + i) % BLOCKS;

		must_be(guard_check(shared_guard, shared_file.fd, block * BLOCK, 1),
			block == bad_block ? -EBADMSG : 0);
	}
	must_be(guard_is_done(shared_guard), bad_block == BLOCKS);
	return NULL;
}

/* Two of them begin with the same block, so that it may be compared twice. */
START_TEST(threads_may_compare_at_once)
{
	pthread_t threads[THREADS];

	shared_file = make_file(GUARDED_BYTES, BLOB_RAW);
	ck_assert_int_eq(pthread_barrier_init(&all_here, NULL, THREADS), 0);
	for (int round = 0; round < 40; round++) {
		bad_block = round % 2 == 0 ? BLOCKS : (uint64_t)round % BLOCKS;
		if (bad_block < BLOCKS)
			change(&shared_file, bad_block * BLOCK);
		shared_guard = guard(&shared_file);
		for (uintptr_t i = 0; i < THREADS; i++)
			must(pthread_create(&threads[i], NULL, compare_all, (void *)(i / 2)) == 0);
		for (int i = 0; i < THREADS; i++)
			must(pthread_join(threads[i], NULL) == 0);
		guard_free(shared_guard);
		if (bad_block < BLOCKS)
			change(&shared_file, bad_block * BLOCK);
	}
	pthread_barrier_destroy(&all_here);
	close(shared_file.fd);
}
END_TEST

int main(void)
{
	const TTest *const tests[] = {
		one_piece_has_its_checksum,
		how_bytes_are_split_does_not_matter,
		pieces_of_any_size_in_a_row_do,
		without_memory_nothing_is_lost,
		a_changed_block_is_refused_and_the_others_are_not,
		only_what_is_wanted_is_compared,
		a_block_is_compared_once,
		all_sizes_can_be_guarded,
		a_guarded_file_may_be_read_in_little_pieces,
		a_file_that_is_another_is_not_guarded,
		a_file_that_has_lost_its_end_is_refused_there,
		threads_may_compare_at_once,
	};

	return fixture_main("sums", setup, teardown, tests, ARRAY_COUNT(tests));
}
