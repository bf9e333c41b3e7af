/* SPDX-License-Identifier: MIT */
/*
 * check_packed - compressed blobs from the inside: what their process may do meanwhile, and
 * what is not to be trusted.
 */
#include <malloc.h>
#include <stdlib.h>
#include <unistd.h>

#include "../util/fixture.h"
#include "../util/packed.h"
#include "store/blob.h"

static struct fixture f;
static struct scache *cache;

static void setup(void)
{
	fixture_begin(&f);
	f.options.ring_bytes = PACKED_RING_BYTES;
	f.options.compression = SCACHE_LZ4;
	f.options.window_bytes = SCACHE_UNLIMITED;
	cache = fixture_open(&f);
}

static void teardown(void)
{
	fixture_end(&f);
}

static struct scache_writer *begin(struct scache_reader **ret_reader)
{
	const struct scache_acquire_options options = { .size = sizeof(options),
							.window_bytes = SCACHE_UNLIMITED };
	struct scache_writer *writer = NULL;

	must_be(scache_acquire(cache, "k", 1, &options, ret_reader, &writer), 0);
	must(writer != NULL);
	return writer;
}

static void end(struct scache_writer *writer, struct scache_reader *reader)
{
	must_be(scache_finish(writer), 0);
	scache_writer_close(writer);
	scache_reader_close(reader);
	must_be(scache_remove(cache, "k", 1), 0);
}

/* ------------------------------------------------------------------- a fork meanwhile */

/* What the child has of its parent's, and closes. */
static struct scache_writer *inherited_writer;
static struct scache_reader *inherited_reader;

void *__real_realloc(void *data, size_t bytes);
void *__wrap_realloc(void *data, size_t bytes);

/* When the old memory is gone, for it always moves, and the new one not yet written down. */
void *__wrap_realloc(void *data, size_t bytes)
{
	struct scache_stats stats = { .size = sizeof(stats) };
	void *fresh;
	pid_t pid;
	int status;

	if (inherited_reader == NULL || data == NULL)
		return __real_realloc(data, bytes);
	fresh = malloc(bytes);
	must(fresh != NULL);
	memcpy(fresh, data, min_u64(bytes, malloc_usable_size(data)));
	free(data);
	pid = fork();
	must(pid >= 0);
	if (pid == 0) {
		must_be(scache_stat(cache, &stats), 0);
		must_be(stats.peers, 2);
		scache_writer_close(inherited_writer);
		scache_reader_close(inherited_reader);
		_exit(scache_close(cache) == 0 ? 0 : 1);
	}
	inherited_reader = NULL;
	must(waitpid(pid, &status, 0) == pid);
	fixture_expect_exited(status);
	return fresh;
}

START_TEST(a_fork_in_the_midst_of_a_walk_harms_no_child)
{
	const uint64_t bytes = 40 * BLOCK; /* where their places are more than there was room for */
	struct scache_reader *reader;
	struct scache_writer *writer = begin(&reader);

	write_text(writer, 0, bytes, BLOCK_BYTES);
	eventually(is_stored(reader, bytes));
	must_be(pread_text(reader, 0, 1), 1);
	inherited_writer = writer;
	inherited_reader = reader;
	must_be(pread_text(reader, 30 * BLOCK, 1), 1);
	must(inherited_reader == NULL);
	end(writer, reader);
}
END_TEST

/* The tail of one that has failed nobody will store: its readers wait for its error. */
START_TEST(what_has_failed_is_not_compressed_any_more)
{
	unsigned char last[FRAME_BLOCK_EXTRA_BYTES + 1000];
	struct scache_reader *reader;
	struct scache_writer *writer = begin(&reader);
	struct stat st;
	int fd;

	write_text(writer, 0, 2 * BLOCK + 1000, 100000);
	must_be(scache_abort(writer, -EDOM, NULL, 0), 0);
	fd = blob_open(reader->store, reader->name, entry_hash(reader->entry));
	must(fd >= 0 && fstat(fd, &st) == 0);
	must_be(pread(fd, last, sizeof(last), st.st_size - (off_t)sizeof(last)), sizeof(last));
	must_be(frame_walk(last), sizeof(last));
	must(pattern_matches(TEXT, 2 * BLOCK, last + 4, 1000));
	close(fd);
	must_be(read_text(reader, 2 * BLOCK + 1000, 70000), -EDOM);
	scache_writer_close(writer);
	scache_reader_close(reader);
}
END_TEST

/* ------------------------------------------------------------ what is not to be trusted */

START_TEST(what_an_entry_says_beyond_its_footer_is_not_read)
{
	struct unpacked unpacked = { .bytes = 0 };
	struct scache_reader *reader;
	struct scache_writer *writer = begin(&reader);
	struct shm_entry *entry = reader->entry;
	unsigned char data[10];
	struct packed *packed;
	int fd;

	write_text(writer, 0, 3 * BLOCK + 5, 100000);
	must_be(scache_finish(writer), 0);
	fd = blob_open(reader->store, reader->name, entry_hash(entry));
	must_be(packed_open(fd, 3 * BLOCK + 5, shm_load(&entry->file_bytes), entry_hash(entry),
			    &packed), 0);
	must_be(packed_read(packed, fd, &unpacked, data, 10, 3 * BLOCK + 1, 9 * BLOCK), 4);
	must_be(packed_read(packed, fd, &unpacked, data, 10, 3 * BLOCK + 5, 9 * BLOCK), 0);
	must_be(packed_read(packed, fd, &unpacked, data, 10, 7 * BLOCK, 9 * BLOCK), 0);
	unpacked_free(&unpacked);
	packed_free(packed);
	close(fd);
	scache_writer_close(writer);
	scache_reader_close(reader);
}
END_TEST

/* Its ring may be smaller than what is judged by. */
START_TEST(what_no_cache_holds_is_not_judged)
{
	static struct task task = { .seed = TEXT, .bytes = 300000 };
	struct scache_acquire_options options = { .size = sizeof(options),
						  .compression = SCACHE_AUTO };
	struct scache_writer *holders[FIXTURE_ENTRIES];
	struct scache_reader *reader;
	struct scache *small;
	char key[2] = "A";

	board_make();
	fixture_close(&f, cache);
	must_be(scache_destroy(f.dir, NULL), 0);
	f.options.ring_bytes = 65536;
	small = fixture_open(&f);
	for (unsigned i = 0; i < FIXTURE_ENTRIES; i++, key[0]++)
		must_be(scache_acquire(small, key, 1, NULL, NULL, &holders[i]), 0);
	must_be(task_fetch(small, "k", &options, &task, &reader), 1);
	pattern_read_all(reader, TEXT, task.bytes);
	must_be(shm_load(&reader->entry->flags) & ENTRY_LZ4, 0);
	scache_reader_close(reader);
	for (unsigned i = 0; i < FIXTURE_ENTRIES; i++)
		scache_writer_close(holders[i]);
	cache = small;
}
END_TEST

int main(void)
{
	const TTest *const tests[] = {
		a_fork_in_the_midst_of_a_walk_harms_no_child,
		what_has_failed_is_not_compressed_any_more,
		what_an_entry_says_beyond_its_footer_is_not_read,
		what_no_cache_holds_is_not_judged,
	};

	return fixture_main("packed", setup, teardown, tests, ARRAY_COUNT(tests));
}
