/* SPDX-License-Identifier: MIT */
/*
 * check_kept - what a producer and a reader may say and ask of what is stored: notes, the
 * expected digest, the very file, and a scrub of it all.
 */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <xxhash.h>

#include "../util/pattern.h"
#include "../util/scratch.h"
#include "../util/spawn.h"

#define BYTES 700000u

static unsigned char content[BYTES];

/* Smaller rings do not compress. */
static struct scache *open_cache(void)
{
	scratch_options.ring_bytes = 1 << 20;
	return scratch_open();
}

static struct scache_writer *take_with(struct scache *cache, const char *key,
				       struct scache_acquire_options *options,
				       struct scache_reader **ret_reader)
{
	struct scache_writer *writer = NULL;

	options->size = sizeof(*options);
	options->flags |= SCACHE_RUN_TO_END;
	options->window_bytes = SCACHE_UNLIMITED;
	must_be(scache_acquire(cache, key, strlen(key), options, ret_reader, &writer), 0);
	must(writer != NULL);
	return writer;
}

static void expect_digest_of(struct scache_acquire_options *options, uint64_t seed)
{
	XXH128_canonical_t digest;

	pattern_fill(seed, 0, content, BYTES);
	XXH128_canonicalFromHash(&digest, XXH3_128bits(content, BYTES));
	options->digest_type = SCACHE_DIGEST_XXH128;
	memcpy(options->digest, digest.digest, sizeof(options->digest));
}

/* ---------------------------------------------------------------------- notes */

START_TEST(a_note_is_stored_with_its_blob)
{
	struct scache_acquire_options options = { .compression = SCACHE_RAW };
	struct scache *cache = open_cache();
	struct scache_reader *reader, *late;
	char note[100] = "";
	struct scache_writer *writer;

	writer = take_with(cache, "k", &options, &reader);
	must_be(scache_set_note(writer, "first", 5), 0);
	must_be(scache_set_note(writer, "text/plain", 10), 0);
	must_be(scache_set_note(writer, content, SCACHE_NOTE_BYTES_MAX + 1), -EINVAL);
	must_be(scache_set_note(writer, NULL, 1), -EINVAL);
	must_be(scache_note(reader, note, sizeof(note)), -EAGAIN);
	pattern_produce(writer, 1, BYTES, 65536);
	must_be(scache_note(reader, note, sizeof(note)), 10);
	must(strcmp(note, "text/plain") == 0);
	late = scratch_find(cache, "k");
	memset(note, 0, sizeof(note));
	must_be(scache_note(late, note, 4), 10);
	must(strcmp(note, "text") == 0);
	scache_reader_close(late);
	scache_reader_close(reader);
	pattern_produce(scratch_create(cache, "none", 0, NULL), 1, 10, 10);
	late = scratch_find(cache, "none");
	must_be(scache_note(late, note, sizeof(note)), 0);
	scache_reader_close(late);
	scratch_close(cache);
}
END_TEST

START_TEST(the_longest_note_and_the_longest_key_fit)
{
	struct scache_acquire_options options = { .compression = SCACHE_LZ4 };
	static unsigned char note[SCACHE_NOTE_BYTES_MAX], got[SCACHE_NOTE_BYTES_MAX];
	struct scache *cache = open_cache();
	char key[SCACHE_KEY_BYTES_MAX + 1];
	struct scache_reader *reader;
	struct scache_writer *writer;

	memset(key, 'k', SCACHE_KEY_BYTES_MAX);
	key[SCACHE_KEY_BYTES_MAX] = '\0';
	pattern_fill(9, 0, note, sizeof(note));
	writer = take_with(cache, key, &options, NULL);
	must_be(scache_set_note(writer, note, sizeof(note)), 0);
	pattern_produce(writer, 1, 5000, 1000);
	reader = scratch_find(cache, key);
	must_be(scache_note(reader, got, sizeof(got)), sizeof(got));
	must(memcmp(note, got, sizeof(got)) == 0);
	pattern_read_all(reader, 1, 5000);
	scache_reader_close(reader);
	scratch_close(cache);
}
END_TEST

/* --------------------------------------------------------------------- digests */

START_TEST(what_has_its_digest_is_finished)
{
	static const uint32_t compressions[] = { SCACHE_RAW, SCACHE_LZ4 };
	struct scache *cache = open_cache();

	for (int i = 0; i < 2; i++) {
		struct scache_acquire_options options = { .compression = compressions[i] };
		struct scache_reader *reader;
		struct scache_writer *writer;

		expect_digest_of(&options, 1);
		writer = take_with(cache, i == 0 ? "raw" : "lz4", &options, &reader);
		pattern_produce(writer, 1, BYTES, 70001);
		pattern_read_all(reader, 1, BYTES);
		scache_reader_close(reader);
	}
	scratch_close(cache);
}
END_TEST

START_TEST(what_has_another_digest_is_never_found)
{
	struct scache_acquire_options options = { .compression = SCACHE_RAW };
	struct scache *cache = open_cache();
	struct scache_reader *reader;
	struct scache_writer *writer;
	uint64_t position = 0;
	int error = 0;

	expect_digest_of(&options, 1);
	writer = take_with(cache, "k", &options, &reader);
	must_be(pattern_write(writer, 2, 0, BYTES, 70001, &error), BYTES);
	must_be(scache_finish(writer), -EBADMSG);
	scache_writer_close(writer);
	must_be(pattern_read(reader, 2, &position, UINT64_MAX, 65536), -EBADMSG);
	must_be(position, BYTES);
	scache_reader_close(reader);
	must(scratch_misses(cache, "k"));
	must_be(scratch_stat(cache).damaged, 0);
	must_be(scratch_stat(cache).failures, 1);
	scratch_close(cache);
}
END_TEST

START_TEST(a_digest_and_resumption_exclude_each_other)
{
	struct scache_acquire_options options = { .size = sizeof(options),
						  .flags = SCACHE_RESUMABLE,
						  .digest_type = SCACHE_DIGEST_XXH128 };
	struct scache *cache = open_cache();
	struct scache_writer *writer;

	must_be(scache_acquire(cache, "k", 1, &options, NULL, &writer), -EINVAL);
	options.flags = 0;
	options.digest_type = 2;
	must_be(scache_acquire(cache, "k", 1, &options, NULL, &writer), -EINVAL);
	scratch_close(cache);
}
END_TEST

/* ----------------------------------------------------------------- the very file */

static void expect_file(struct scache_reader *reader, uint32_t compression)
{
	struct scache_file file = { .size = sizeof(file) };
	struct stat st;

	must_be(scache_file(reader, &file), 0);
	must_be(file.compression, compression);
	must_be(file.bytes, BYTES);
	must(fstat(file.fd, &st) == 0 && (uint64_t)st.st_size > file.stored_bytes);
	must_be(fcntl(file.fd, F_GETFL) & O_ACCMODE, O_RDONLY);
	must_be(pread(file.fd, content, BYTES, 0) > 0, 1);
	if (compression == SCACHE_RAW) {
		must_be(file.stored_bytes, BYTES);
		must(pattern_matches(1, 0, content, BYTES));
	} else {
		must(memcmp(content, "\x04\x22\x4d\x18", 4) == 0);
	}
	close(file.fd);
}

START_TEST(the_file_of_a_finished_entry_can_be_had)
{
	struct scache_acquire_options raw = { .compression = SCACHE_RAW };
	struct scache_acquire_options lz4 = { .compression = SCACHE_LZ4, .level = 3 };
	struct scache_file file = { .size = sizeof(file) };
	struct scache *cache = open_cache();
	struct scache_reader *reader;
	struct scache_writer *writer;

	writer = take_with(cache, "raw", &raw, &reader);
	must_be(scache_file(reader, &file), -EAGAIN);
	pattern_produce(writer, 1, BYTES, 65536);
	expect_file(reader, SCACHE_RAW);
	scache_reader_close(reader);
	writer = take_with(cache, "lz4", &lz4, &reader);
	pattern_produce(writer, 1, BYTES, 65536);
	expect_file(reader, SCACHE_LZ4);
	/* It stays whole for as long as the reader is open. */
	must_be(scache_remove(cache, "lz4", 3), 0);
	expect_file(reader, SCACHE_LZ4);
	scache_reader_close(reader);
	scratch_close(cache);
}
END_TEST

/* ----------------------------------------------------------------------- scrubs */

struct seen {
	int good, damaged, skipped, blocks;
};

static int see(void *arg, const struct scache_verify_progress *progress)
{
	struct seen *seen = arg;

	must(progress->done_bytes <= progress->bytes);
	seen->blocks += progress->result == SCACHE_VERIFY_GOES_ON;
	seen->good += progress->result == SCACHE_VERIFY_GOOD;
	seen->damaged += progress->result == SCACHE_VERIFY_DAMAGED;
	seen->skipped += progress->result == SCACHE_VERIFY_SKIPPED;
	return 0;
}

static void change_blob(off_t offset)
{
	char path[600];
	unsigned char byte;
	int fd;

	scratch_blob(path, sizeof(path));
	must(chmod(path, 0600) == 0);
	fd = open(path, O_RDWR | O_CLOEXEC);
	must(fd >= 0 && pread(fd, &byte, 1, offset) == 1);
	byte ^= 4;
	must(pwrite(fd, &byte, 1, offset) == 1);
	close(fd);
}

START_TEST(a_scrub_finds_and_removes_what_is_damaged)
{
	struct scache_acquire_options options = { .compression = SCACHE_LZ4 };
	struct seen seen = { 0 };
	struct scache_verify_options verify = { .size = sizeof(verify), .progress = see, .arg = &seen };
	struct scache_verify_report report = { .size = sizeof(report) };
	struct scache *cache = open_cache();
	struct scache_writer *growing;
	struct scache_reader *reader;

	pattern_produce(scratch_create(cache, "bad", 0, NULL), 1, BYTES, 65536);
	change_blob(BYTES - 1);
	pattern_produce(take_with(cache, "good", &options, NULL), 2, BYTES, 65536);
	growing = scratch_create(cache, "growing", 0, &reader);
	must_be(scache_verify(cache, NULL, 0, &verify, &report), 0);
	must_be(report.entries, 2);
	must_be(report.damaged, 1);
	must_be(report.skipped, 1);
	must_be(report.bytes, 2 * BYTES);
	must(seen.good == 1 && seen.damaged == 1 && seen.skipped == 1);
	must_be(seen.blocks, 6);
	must(scratch_misses(cache, "bad"));
	must(!scratch_misses(cache, "good"));
	must_be(scratch_stat(cache).damaged, 1);
	must_be(scache_verify(cache, "bad", 3, NULL, NULL), -ENOENT);
	must_be(scache_verify(cache, "good", 4, NULL, &report), 0);
	must_be(report.entries, 1);
	scache_writer_close(growing);
	scache_reader_close(reader);
	scratch_close(cache);
}
END_TEST

START_TEST(a_scrub_does_not_end_what_nobody_reads_yet)
{
	struct scache_verify_report report = { .size = sizeof(report) };
	struct scache *cache = open_cache();
	struct scache_writer *writer = NULL;
	struct scache_acquire_options options = { .size = sizeof(options),
						  .window_bytes = SCACHE_UNLIMITED };

	must_be(scache_acquire(cache, "k", 1, &options, NULL, &writer), 0);
	must(writer != NULL);
	must_be(scache_verify(cache, NULL, 0, NULL, &report), 0);
	must_be(report.skipped, 1);
	/* Nor if it is asked for by its name. */
	must_be(scache_verify(cache, "k", 1, NULL, &report), 0);
	must_be(report.skipped, 1);
	must_be(report.entries, 0);
	must_be(scratch_stat(cache).joins, 0);
	pattern_produce(writer, 1, BYTES, 65536);
	must(!scratch_misses(cache, "k"));
	scratch_close(cache);
}
END_TEST

static int stop_at_once(void *arg, const struct scache_verify_progress *progress)
{
	(void)progress;
	return *(int *)arg;
}

START_TEST(a_scrub_can_be_stopped)
{
	int answer = 7;
	struct scache_verify_options verify = { .size = sizeof(verify),
						.progress = stop_at_once,
						.arg = &answer };
	struct scache *cache = open_cache();

	pattern_produce(scratch_create(cache, "k", 0, NULL), 1, BYTES, 65536);
	must_be(scache_verify(cache, NULL, 0, &verify, NULL), 7);
	answer = -1;
	must_be(scache_verify(cache, NULL, 0, &verify, NULL), -ECANCELED);
	must(!scratch_misses(cache, "k"));
	scratch_close(cache);
}
END_TEST

START_TEST(after_a_scrub_an_adopted_blob_is_trusted)
{
	struct scache *cache = open_cache();
	struct scache_reader *reader;
	char path[400];

	pattern_produce(scratch_create(cache, "k", 0, NULL), 1, BYTES, 65536);
	scratch_close(cache);
	scratch_segment(path, sizeof(path));
	must(unlink(path) == 0);
	cache = open_cache();
	must_be(scache_verify(cache, "k", 1, NULL, NULL), 0);
	scratch_close(cache);
	cache = open_cache();
	/* Then nobody looks: a changed byte is served, as it is of one produced here. */
	change_blob(5);
	reader = scratch_find(cache, "k");
	must_be(scache_read(reader, content, 6, 0), 6);
	must(!pattern_matches(1, 0, content, 6) && pattern_matches(1, 0, content, 5));
	scache_reader_close(reader);
	scratch_close(cache);
}
END_TEST

/* ------------------------------------------------------------------ what is shown */

static void expect_shown(struct scache_reader *reader, uint32_t compression, uint64_t file_bytes)
{
	struct scache_entry_info info = scratch_info(reader);

	must_be(info.compression, compression);
	must_be(info.file_bytes, file_bytes);
	must_be(info.reserved, 0);
}

static uint64_t bytes_on_disk(void)
{
	struct stat st;
	char path[400];

	scratch_blob(path, sizeof(path));
	must(stat(path, &st) == 0);
	return (uint64_t)st.st_size;
}

START_TEST(how_an_entry_is_stored_is_shown)
{
	static const uint32_t compressions[] = { SCACHE_RAW, SCACHE_LZ4, SCACHE_AUTO, SCACHE_AUTO };
	static const uint32_t ends[] = { SCACHE_RAW, SCACHE_LZ4, SCACHE_RAW, SCACHE_LZ4 };
	struct scache *cache = open_cache();

	for (int i = 0; i < 4; i++) {
		struct scache_acquire_options options = { .compression = compressions[i] };
		struct scache_reader *reader;
		struct scache_writer *writer = take_with(cache, "k", &options, &reader);

		expect_shown(reader, i < 2 ? compressions[i] : 0, 0);
		if (i < 3)
			pattern_fill(1, 0, content, BYTES);
		else
			memset(content, 'x', BYTES);
		must_be(scache_write(writer, content, BYTES, SCACHE_FOREVER), BYTES);
		expect_shown(reader, ends[i], 0);
		must_be(scache_finish(writer), 0);
		expect_shown(reader, ends[i], bytes_on_disk());
		scache_writer_close(writer);
		scache_reader_close(reader);
		must_be(scache_remove(cache, "k", 1), 0);
		scratch_is_clean(cache);
	}
	scratch_close(cache);
}
END_TEST

START_TEST(what_is_not_stored_has_no_file)
{
	struct scache_acquire_options options = { .flags = SCACHE_PASS_THROUGH,
						  .compression = SCACHE_LZ4 };
	struct scache *cache = open_cache();
	struct scache_reader *reader;
	struct scache_writer *writer = take_with(cache, "k", &options, &reader);

	expect_shown(reader, 0, 0);
	must_be(scache_write(writer, content, 1000, SCACHE_FOREVER), 1000);
	expect_shown(reader, 0, 0);
	must_be(scache_finish(writer), SCACHE_NOT_KEPT);
	expect_shown(reader, 0, 0);
	scache_writer_close(writer);
	scache_reader_close(reader);
	scratch_close(cache);
}
END_TEST

START_TEST(an_adopted_one_is_shown_the_same)
{
	struct scache_acquire_options options = { .compression = SCACHE_LZ4 };
	struct scache *cache = open_cache();
	struct scache_reader *reader;
	char path[400];

	pattern_produce(take_with(cache, "k", &options, NULL), 1, BYTES, 65536);
	scratch_close(cache);
	scratch_segment(path, sizeof(path));
	must(unlink(path) == 0);
	cache = open_cache();
	reader = scratch_find(cache, "k");
	expect_shown(reader, SCACHE_LZ4, bytes_on_disk());
	scache_reader_close(reader);
	scratch_close(cache);
}
END_TEST

/* A struct of a time before there was such a thing. */
START_TEST(an_older_caller_is_not_told_of_files)
{
	struct scache_entry_info info = { .file_bytes = 77, .compression = 78 };
	struct scache *cache = open_cache();
	struct scache_reader *reader;

	pattern_produce(scratch_create(cache, "k", 0, NULL), 1, 5000, 5000);
	reader = scratch_find(cache, "k");
	info.size = offsetof(struct scache_entry_info, file_bytes);
	must_be(scache_reader_info(reader, &info), 0);
	must_be(info.bytes, 5000);
	must_be(info.file_bytes, 77);
	must_be(info.compression, 78);
	scache_reader_close(reader);
	scratch_close(cache);
}
END_TEST

int main(void)
{
	const TTest *const tests[] = {
		a_note_is_stored_with_its_blob,
		the_longest_note_and_the_longest_key_fit,
		what_has_its_digest_is_finished,
		what_has_another_digest_is_never_found,
		a_digest_and_resumption_exclude_each_other,
		the_file_of_a_finished_entry_can_be_had,
		a_scrub_finds_and_removes_what_is_damaged,
		a_scrub_does_not_end_what_nobody_reads_yet,
		a_scrub_can_be_stopped,
		after_a_scrub_an_adopted_blob_is_trusted,
		how_an_entry_is_stored_is_shown,
		what_is_not_stored_has_no_file,
		an_adopted_one_is_shown_the_same,
		an_older_caller_is_not_told_of_files,
	};

	return SCRATCH_RUN("kept", tests);
}
