/* SPDX-License-Identifier: MIT */
/*
 * check_keep - however a blob was written, and by however many producers, its file is
 * the payload and a footer that tells the truth, and not a byte more.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <xxhash.h>

#include "../util/fixture.h"
#include "../util/pattern.h"
#include "../util/spawn.h"
#include "base/clock.h"
#include "store/blob.h"
#include "store/footer.h"

#define BLOCK ((size_t)BLOCK_BYTES)
#define BYTES_MAX (7 * BLOCK)

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

static struct fixture f;
static struct scache *cache, *other;
static unsigned char *data;

static void setup(void)
{
	fixture_begin(&f);
	cache = fixture_open(&f);
	other = fixture_open(&f);
	data = malloc(BYTES_MAX);
	ck_assert_ptr_nonnull(data);
	pattern_fill(1, 0, data, BYTES_MAX);
}

static void teardown(void)
{
	free(data);
	fixture_end(&f);
}

/* Or go on, when it is known that whoever had begun is dead. */
static struct scache_writer *begin(struct scache *by, const char *key, size_t key_bytes,
				   uint64_t max_age_ns)
{
	const struct scache_acquire_options options = {
		.size = sizeof(options),
		.flags = SCACHE_RUN_TO_END | SCACHE_RESUMABLE,
		.max_age_ns = max_age_ns,
		.window_bytes = SCACHE_UNLIMITED,
	};
	struct scache_writer *writer = NULL;

	eventually(scache_acquire(by, key, key_bytes, &options, NULL, &writer) == 0 &&
		   writer != NULL);
	return writer;
}

static void put(struct scache_writer *writer, size_t until, size_t piece)
{
	size_t at = (size_t)scache_written(writer), part;

	for (; at < until; at += part) {
		part = until - at < piece ? until - at : piece;
		must_be(scache_write(writer, data + at, part, 0), part);
	}
}

static int open_blob(const struct scache_writer *writer, int flags)
{
	char path[BLOB_PATH_BYTES];
	int fd;

	blob_path(writer->store, writer->name, entry_hash(writer->entry), path);
	fd = openat(writer->store->blobs_fd, path, flags | O_CLOEXEC);
	must(fd >= 0);
	return fd;
}

/* All of the file of an entry that has just been finished; its footer is given back. */
static struct footer *must_be_kept(const struct scache_writer *writer, size_t bytes)
{
	uint64_t file_bytes = shm_load(&writer->entry->file_bytes);
	int fd = open_blob(writer, O_RDONLY);
	unsigned char *payload = malloc(bytes + 1);
	struct footer *footer = NULL;
	struct stat st;

	read_most = SIZE_MAX;
	must(fstat(fd, &st) == 0 && payload != NULL);
	must_be(st.st_size, file_bytes);
	must_be(st.st_mode & 07777, 0400);
	must_be(footer_read(fd, file_bytes, &footer), 0);
	must_be(footer->format, BLOB_RAW);
	must_be(footer->bytes, bytes);
	must_be(file_bytes, bytes + footer_bytes(footer));
	must_be(pread(fd, payload, bytes, 0), bytes);
	must(memcmp(payload, data, bytes) == 0);
	for (size_t at = 0; at < bytes; at += BLOCK)
		must(footer->words[at / BLOCK] ==
		     XXH3_64bits(data + at, bytes - at < BLOCK ? bytes - at : BLOCK));
	free(payload);
	close(fd);
	return footer;
}

/* Finish it, look at its file, and remove it. */
static void end(struct scache_writer *writer, size_t bytes)
{
	must_be(scache_written(writer), bytes);
	must_be(scache_finish(writer), 0);
	free(must_be_kept(writer, bytes));
	scache_writer_close(writer);
	must_be(scache_remove(cache, "k", 1), 0);
}

START_TEST(the_footer_tells_what_the_blob_is)
{
	char key[255];
	struct footer *footer;
	struct scache_writer *writer;
	uint64_t before, finished, asked_before, age_ns = 0;

	memset(key, 'x', sizeof(key));
	for (size_t key_bytes = 1; key_bytes <= sizeof(key); key_bytes += 127) {
		before = clock_read_ns(CLOCK_REALTIME);
		writer = begin(cache, key, key_bytes, 1000000000000 + key_bytes);
		put(writer, 300, 100);
		/* A millisecond at least between its beginning and its end. */
		asked_before = clock_read_ns(CLOCK_REALTIME);
		eventually(clock_read_ns(CLOCK_REALTIME) - asked_before > 2000000);
		must_be(scache_finish(writer), 0);
		finished = clock_read_ns(CLOCK_REALTIME);
		footer = must_be_kept(writer, 300);
		must_be(footer->key_bytes, key_bytes);
		must(memcmp(footer->key, key, key_bytes) == 0);
		must_be(footer->note_bytes, 0);
		must_be(footer->max_age_ns, 1000000000000 + key_bytes);
		must(footer->finished_ns >= asked_before && footer->finished_ns <= finished);
		/* By two clocks, so not to the nanosecond. */
		age_ns = footer->finished_ns - footer->created_ns;
		must(age_ns > 1000000 && footer->created_ns + 1000000 > before);
		free(footer);
		scache_writer_close(writer);
	}
}
END_TEST

START_TEST(however_it_was_written_its_file_is_right)
{
	static const size_t sizes[] = { 0,	       1,
					5000,	       FIXTURE_RING_BYTES - 1,
					65536,	       65537,
					BLOCK - 1,     BLOCK,
					BLOCK + 1,     4 * BLOCK,
					4 * BLOCK + 1, BYTES_MAX };
	static const size_t pieces[] = { 777, 4096, 65535, 65536, 100000, BLOCK, BYTES_MAX };

	for (size_t i = 0; i < ARRAY_COUNT(sizes); i++)
		for (size_t j = 0; j < ARRAY_COUNT(pieces); j++) {
			struct scache_writer *writer = begin(cache, "k", 1, 0);

			put(writer, sizes[i], pieces[j]);
			end(writer, sizes[i]);
		}
}
END_TEST

START_TEST(small_and_large_writes_may_take_turns)
{
	unsigned random = 1;

	for (int i = 0; i < 40; i++) {
		struct scache_writer *writer = begin(cache, "k", 1, 0);
		size_t bytes = (size_t)rand_r(&random) % BYTES_MAX, at = 0;

		while (at < bytes) {
			at += rand_r(&random) % 2 ? (size_t)rand_r(&random) % 5000 :
						    (size_t)rand_r(&random) % 200000;
			at = at < bytes ? at : bytes;
			put(writer, at, BYTES_MAX);
		}
		end(writer, bytes);
	}
}
END_TEST

START_TEST(without_a_ring_as_well)
{
	static const size_t sizes[] = { 0, 1, 5000, BLOCK, BLOCK + 1, 5 * BLOCK + 3 };
	struct scache_writer *takes[FIXTURE_RINGS], *writer;

	for (size_t i = 0; i < FIXTURE_RINGS; i++)
		takes[i] = begin(cache, i == 0 ? "a" : "b", 1, 0);
	for (size_t i = 0; i < ARRAY_COUNT(sizes); i++) {
		writer = begin(cache, "k", 1, 0);
		must(writer->ring == NULL);
		put(writer, sizes[i], 30000);
		end(writer, sizes[i]);
	}
	for (size_t i = 0; i < FIXTURE_RINGS; i++)
		scache_writer_close(takes[i]);
}
END_TEST

/* What has no checksum yet is read again at the end; if there is no memory then, it is not kept. */
START_TEST(want_of_memory_is_made_up_for_at_the_end)
{
	static const size_t lacks_until[] = { 4 * BLOCK + 1, 5 * BLOCK, 6 * BLOCK + 7, BYTES_MAX };
	struct scache_writer *writer;
	char blobs[PATH_MAX];

	for (size_t i = 0; i < ARRAY_COUNT(lacks_until); i++) {
		realloc_room = 0;
		read_most = i % 2 ? 10007 : SIZE_MAX;
		writer = begin(cache, "k", 1, 0);
		put(writer, lacks_until[i], 50000);
		must(writer->sums.bytes <= 4 * BLOCK);
		realloc_room = SIZE_MAX;
		put(writer, BYTES_MAX, 50000);
		end(writer, BYTES_MAX);
	}
	snprintf(blobs, sizeof(blobs), "%s/blobs", f.dir);
	/* For what is in the file, or only for the last bytes, which are not. */
	for (size_t bytes = 4 * BLOCK + 100; bytes <= BYTES_MAX; bytes += 3 * BLOCK - 100) {
		realloc_room = 0;
		writer = begin(cache, "k", 1, 0);
		put(writer, bytes, 50000);
		must_be(scache_finish(writer), SCACHE_NOT_KEPT);
		scache_writer_close(writer);
		must_be(fixture_count_files(blobs), 0);
	}
}
END_TEST

/* What it had stored beyond what it published, and a footer perhaps, nobody has seen. */
static void leave_behind(const struct scache_writer *writer, size_t bytes)
{
	int fd = open_blob(writer, O_WRONLY);
	unsigned char *rest = malloc(bytes + 1);

	must(rest != NULL);
	memset(rest, 0xee, bytes + 1);
	must_be(pwrite(fd, rest, bytes, (off_t)writer->flushed), bytes);
	free(rest);
	close(fd);
}

START_TEST(what_another_has_begun_is_finished_well)
{
	static const size_t stops[] = { 0, 1, 40000, 65536, 100000, BLOCK - 1, BLOCK, BLOCK + 1,
					3 * BLOCK + 5 };
	static const size_t more[] = { 0, 1, 50000, 2 * BLOCK + 7 };

	for (size_t i = 0; i < ARRAY_COUNT(stops); i++)
		for (size_t j = 0; j < ARRAY_COUNT(more); j++) {
			struct scache *victim = fixture_open(&f);
			struct scache_writer *writer = begin(victim, "k", 1, 0);

			put(writer, stops[i], j % 2 ? 7000 : 70000);
			leave_behind(writer, j % 2 ? 200 : 5 * BLOCK);
			fixture_kill(&f, victim);
			fixture_bury_writer(writer);
			writer = begin(other, "k", 1, 0);
			must_be(scache_written(writer), stops[i]);
			put(writer, stops[i] + more[j], 9000);
			end(writer, stops[i] + more[j]);
		}
}
END_TEST

START_TEST(a_third_producer_may_finish_it)
{
	struct scache_writer *writer;

	for (size_t at = 1000; at < 3 * BLOCK; at += 100000) {
		for (int turn = 0; turn < 2; turn++) {
			struct scache *victim = fixture_open(&f);

			writer = begin(victim, "k", 1, 0);
			put(writer, at + (size_t)turn * 70000, 30000);
			fixture_kill(&f, victim);
			fixture_bury_writer(writer);
		}
		writer = begin(other, "k", 1, 0);
		put(writer, at + BLOCK, 50000);
		end(writer, at + BLOCK);
	}
}
END_TEST

int main(void)
{
	const TTest *const tests[] = {
		the_footer_tells_what_the_blob_is,
		however_it_was_written_its_file_is_right,
		small_and_large_writes_may_take_turns,
		without_a_ring_as_well,
		want_of_memory_is_made_up_for_at_the_end,
		what_another_has_begun_is_finished_well,
		a_third_producer_may_finish_it,
	};

	return fixture_main("keep", setup, teardown, tests, ARRAY_COUNT(tests));
}
