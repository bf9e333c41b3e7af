/* SPDX-License-Identifier: MIT */
/*
 * check_failures - producers that fail, files that are damaged, blobs that are
 * too old.
 */
#include <check.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "../util/pattern.h"
#include "../util/scratch.h"
#include "../util/spawn.h"

#define BLOB_BYTES 300000ull
#define ROUNDS 100
#define OLD_ENTRIES 20
#define SHORT_AGE_NS 50000000ull

/* A blob that this process has not opened: another one made it. */
static void make_blob(void *arg)
{
	struct scache *cache = scratch_open();

	(void)arg;
	pattern_produce(scratch_create(cache, "k", 0, NULL), 1, BLOB_BYTES, 50000);
	scratch_close(cache);
}

static struct scache *open_with_blob(char *ret_path, size_t bytes)
{
	struct scache *cache = scratch_open();
	struct child child;

	child_start(&child, make_blob, NULL);
	child_join(&child);
	scratch_blob(ret_path, bytes);
	return cache;
}

/* The blob of k is of no use: whoever asks is elected, and what he makes is found. */
static void is_produced_again(struct scache *cache)
{
	struct scache_reader *reader;

	pattern_produce(scratch_create(cache, "k", 0, NULL), 2, 1000, 1000);
	reader = scratch_find(cache, "k");
	pattern_read_all(reader, 2, 1000);
	scache_reader_close(reader);
	scratch_is_clean(cache);
	must_be(scratch_stat(cache).entries_finished, 1);
	scratch_close(cache);
}

/* ----------------------------------------------------------------- damaged files */

START_TEST(a_deleted_file_is_a_miss_and_is_produced_again)
{
	char path[512];
	struct scache *cache = open_with_blob(path, sizeof(path));

	must(unlink(path) == 0);
	must(scratch_misses(cache, "k"));
	is_produced_again(cache);
}
END_TEST

START_TEST(a_deleted_file_is_produced_again_at_once)
{
	char path[512];
	struct scache *cache = open_with_blob(path, sizeof(path));
	struct scache_reader *reader;
	struct scache_writer *writer;

	must(unlink(path) == 0);
	writer = scratch_create(cache, "k", 0, &reader);
	pattern_produce(writer, 2, 1000, 1000);
	pattern_read_all(reader, 2, 1000);
	scache_reader_close(reader);
	scratch_is_clean(cache);
	scratch_close(cache);
}
END_TEST

START_TEST(a_deleted_file_serves_those_who_have_it_open)
{
	char path[512];
	struct scache *cache = open_with_blob(path, sizeof(path));
	struct scache_reader *reader = scratch_find(cache, "k");

	must(unlink(path) == 0);
	pattern_read_all(reader, 1, BLOB_BYTES);
	scache_reader_close(reader);
	scratch_close(cache);
}
END_TEST

static void set_size(const char *path, uint64_t bytes)
{
	must(chmod(path, 0600) == 0);
	must(truncate(path, (off_t)bytes) == 0);
}

START_TEST(a_file_of_another_size_is_a_miss)
{
	static const uint64_t sizes[] = { 0, 1, BLOB_BYTES - 1, BLOB_BYTES + 1 };
	char path[512];

	for (unsigned i = 0; i < 4; i++) {
		struct scache *cache = open_with_blob(path, sizeof(path));

		set_size(path, sizes[i]);
		must(scratch_misses(cache, "k"));
		is_produced_again(cache);
		must_be(scache_destroy(scratch_dir, NULL), 0);
	}
}
END_TEST

START_TEST(a_file_cut_under_a_reader_is_an_error_and_never_an_end)
{
	char path[512], byte;
	struct scache *cache = open_with_blob(path, sizeof(path));
	struct scache_reader *reader = scratch_find(cache, "k");
	uint64_t position = 0;

	must_be(pattern_read(reader, 1, &position, 1000, 1000), 1);
	set_size(path, BLOB_BYTES / 2);
	must_be(pattern_read(reader, 1, &position, UINT64_MAX, 65536), -EBADMSG);
	must(position <= BLOB_BYTES / 2);
	must_be(scache_read(reader, &byte, 1, 0), -EBADMSG);
	must(scratch_misses(cache, "k"));
	scache_reader_close(reader);
	is_produced_again(cache);
}
END_TEST

START_TEST(two_caches_do_not_see_each_other)
{
	struct scache *one = scratch_open(), *other;
	struct scache_reader *reader;
	char dir[300];

	snprintf(dir, sizeof(dir), "%s/other", scratch_base);
	must_be(scache_open(dir, &scratch_options, &other), 0);
	pattern_produce(scratch_create(one, "k", 0, NULL), 1, 1000, 1000);
	must(scratch_misses(other, "k"));
	pattern_produce(scratch_create(other, "k", 0, NULL), 2, 1000, 1000);
	must_be(scache_remove(one, "k", 1), 0);
	reader = scratch_find(other, "k");
	pattern_read_all(reader, 2, 1000);
	scache_reader_close(reader);
	must_be(scratch_stat(one).entries, 0);
	must_be(scratch_stat(other).entries, 1);
	scratch_is_clean(one);
	scratch_close(one);
	must_be(scache_destroy(scratch_dir, NULL), 0);
	must_be(scache_check(other, NULL, NULL), 0);
	scratch_close(other);
}
END_TEST

/* --------------------------------------------------------------------------- age */

static void produce_for(struct scache *cache, const char *key, uint64_t max_age_ns)
{
	struct scache_acquire_options options = { .size = sizeof(options),
						  .max_age_ns = max_age_ns };
	struct scache_writer *writer;

	must_be(scache_acquire(cache, key, strlen(key), &options, NULL, &writer), 0);
	must(writer != NULL);
	pattern_produce(writer, 1, BLOB_BYTES, 50000);
}

START_TEST(eviction_by_age_lets_an_open_reader_finish)
{
	struct scache *cache = scratch_open();
	struct scache_reader *reader;
	uint64_t position = 0;

	produce_for(cache, "k", SHORT_AGE_NS);
	reader = scratch_find(cache, "k");
	must_be(pattern_read(reader, 1, &position, 1000, 1000), 1);
	eventually(scratch_misses(cache, "k"));
	must_be(scache_sweep(cache, NULL, NULL), 0);
	must(scratch_info(reader).flags & SCACHE_HIDDEN);
	must_be(scratch_stat(cache).expired, 1);
	must_be(pattern_read(reader, 1, &position, UINT64_MAX, 10000), 0);
	must_be(position, BLOB_BYTES);
	scache_reader_close(reader);
	scratch_is_clean(cache);
	must_be(scratch_stat(cache).entries, 0);
	must_be(scratch_blobs(), 0);
	scratch_close(cache);
}
END_TEST

START_TEST(with_age_zero_only_those_who_came_in_time_are_served)
{
	struct scache *cache;
	struct scache_reader *reader;
	struct scache_writer *writer;

	scratch_options.max_age_ns = SCACHE_ZERO;
	cache = scratch_open();
	for (uint64_t seed = 0; seed < 5; seed++) {
		writer = scratch_create(cache, "k", 0, NULL);
		reader = scratch_find(cache, "k");
		pattern_produce(writer, seed, 100000, 30000);
		must(scratch_misses(cache, "k"));
		pattern_read_all(reader, seed, 100000);
		scache_reader_close(reader);
	}
	scratch_is_clean(cache);
	must_be(scratch_stat(cache).entries, 0);
	scratch_close(cache);
}
END_TEST

START_TEST(each_creation_removes_up_to_eight_expired_entries)
{
	struct scache *cache = scratch_open();
	char key[16];
	int left = OLD_ENTRIES;

	for (int i = 0; i < OLD_ENTRIES; i++) {
		snprintf(key, sizeof(key), "old %d", i);
		/* Longer than making all of them takes: none is removed by the next. */
		produce_for(cache, key, 2000000000ull);
	}
	must_be(scratch_blobs(), OLD_ENTRIES);
	eventually(scratch_misses(cache, key));
	for (int i = 1; left > 0; i++) {
		int now;

		snprintf(key, sizeof(key), "new %d", i);
		produce_for(cache, key, 0);
		now = scratch_blobs() - i;
		must(now >= left - 8 && now < left);
		must_be(scratch_stat(cache).entries, now + i);
		left = now;
		must(i <= (OLD_ENTRIES + 7) / 8);
	}
	scratch_is_clean(cache);
	scratch_close(cache);
}
END_TEST

/* ------------------------------------------------------------- failing producers */

struct failure {
	int code; /* 0: just close */
	const char *message;
	size_t message_bytes;
	int read_error;
};

static void fail_as_told(void *arg)
{
	const struct failure *f = arg;
	struct scache *cache = scratch_open();
	struct scache_writer *writer = scratch_create(cache, "k", 0, NULL);

	child_say(0);
	child_listen();
	pattern_write(writer, 1, 0, BLOB_BYTES, 50000, NULL);
	if (f->code != 0)
		must_be(scache_abort(writer, f->code, f->message, f->message_bytes), 0);
	scache_writer_close(writer);
	scratch_close(cache);
}

static void check_message(struct scache_reader *reader, const struct failure *f)
{
	struct scache_result result = { .size = sizeof(result) };
	char *text = malloc(SCACHE_MESSAGE_BYTES_MAX + 1), cut[10];

	must_be(scache_wait(reader, 0, &result), 0);
	must_be(result.code, f->code != 0 ? f->code : -ECANCELED);
	must_be(result.bytes, BLOB_BYTES);
	must_be(result.message_bytes, f->message_bytes);
	must_be(scache_message(reader, text, SCACHE_MESSAGE_BYTES_MAX + 1), f->message_bytes);
	must(f->message_bytes == 0 || memcmp(text, f->message, f->message_bytes) == 0);
	must_be(text[f->message_bytes], '\0');
	must_be(scache_message(reader, cut, sizeof(cut)), f->message_bytes);
	must(strlen(cut) == (f->message_bytes < 9 ? f->message_bytes : 9));
	must(memcmp(cut, text, strlen(cut)) == 0);
	free(text);
}

static void check_failure(const struct failure *failure)
{
	struct failure own = *failure;
	struct scache *cache = scratch_open();
	struct scache_reader *reader;
	struct scache_writer *writer;
	struct child producer;
	uint64_t position = 0;
	char byte;

	child_start(&producer, fail_as_told, &own);
	child_hear(&producer);
	reader = scratch_find(cache, "k");
	child_tell(&producer, 0);
	must_be(pattern_read(reader, 1, &position, UINT64_MAX, 65536), own.read_error);
	/* By the time we know it the key is free. */
	must_be(scache_acquire(cache, "k", 1, NULL, NULL, &writer), 0);
	must(writer != NULL);
	must_be(position, BLOB_BYTES);
	must_be(scache_read(reader, &byte, 1, 0), own.read_error);
	check_message(reader, &own);
	pattern_produce(writer, 2, 100, 100);
	child_join(&producer);
	scache_reader_close(reader);
	must_be(scratch_stat(cache).failures, 1);
	scratch_is_clean(cache);
	scratch_close(cache);
}

START_TEST(a_producers_errno_reaches_its_readers)
{
	check_failure(&(struct failure){ -EIO, "disk on fire", 12, -EIO });
}
END_TEST

START_TEST(a_producers_own_code_reaches_its_readers)
{
	check_failure(&(struct failure){ 42, NULL, 0, -EREMOTEIO });
}
END_TEST

START_TEST(a_producers_long_message_reaches_its_readers)
{
	char *text = malloc(SCACHE_MESSAGE_BYTES_MAX);

	for (size_t i = 0; i < SCACHE_MESSAGE_BYTES_MAX; i++)
		text[i] = (char)('!' + i % 90);
	check_failure(&(struct failure){ 1, text, SCACHE_MESSAGE_BYTES_MAX, -EREMOTEIO });
	free(text);
}
END_TEST

START_TEST(a_producer_that_just_leaves_has_cancelled)
{
	check_failure(&(struct failure){ 0, NULL, 0, -ECANCELED });
}
END_TEST

static void fail_each_time(void *arg)
{
	struct scache *cache = scratch_open();

	(void)arg;
	for (int i = 0; i < ROUNDS; i++) {
		struct scache_writer *writer = scratch_create(cache, "k", 0, NULL);

		child_say(0);
		child_listen();
		must_be(scache_abort(writer, -EIO, NULL, 0), 0);
		scache_writer_close(writer);
		child_listen();
	}
	scratch_close(cache);
}

START_TEST(the_key_is_free_before_readers_learn_of_a_failure)
{
	struct scache *cache = scratch_open();
	struct child producer;

	child_start(&producer, fail_each_time, NULL);
	for (int i = 0; i < ROUNDS; i++) {
		struct scache_reader *reader;
		struct scache_writer *writer;
		char byte;

		child_hear(&producer);
		reader = scratch_find(cache, "k");
		child_tell(&producer, 0);
		must_be(scache_read(reader, &byte, 1, SCACHE_FOREVER), -EIO);
		must_be(scache_acquire(cache, "k", 1, NULL, NULL, &writer), 0);
		must(writer != NULL);
		scache_writer_close(writer);
		scache_reader_close(reader);
		child_tell(&producer, 0);
	}
	child_join(&producer);
	scratch_is_clean(cache);
	scratch_close(cache);
}
END_TEST

/* --------------------------------------------------------------- old generations */

static void start_and_stall(void *arg)
{
	struct scache_writer *writer = scratch_create(scratch_open(), "k", 0, NULL);

	(void)arg;
	pattern_write(writer, 1, 0, 1000, 1000, NULL);
	child_say(0);
	child_listen();
	must_be(scache_abort(writer, -EIO, NULL, 0), 0);
	scache_writer_close(writer);
}

static void late_end(bool by_death)
{
	struct scache *cache = scratch_open();
	struct scache_reader *old, *reader;
	struct child late;
	uint64_t position = 0;

	child_start(&late, start_and_stall, NULL);
	child_hear(&late);
	old = scratch_find(cache, "k");
	must_be(scache_remove(cache, "k", 1), 0);
	pattern_produce(scratch_create(cache, "k", 0, NULL), 2, BLOB_BYTES, 50000);
	if (by_death) {
		child_kill(&late);
	} else {
		child_tell(&late, 0);
		child_join(&late);
	}
	must_be(pattern_read(old, 1, &position, UINT64_MAX, 100), by_death ? -EOWNERDEAD : -EIO);
	must_be(position, 1000);
	scache_reader_close(old);
	scratch_is_clean(cache);
	reader = scratch_find(cache, "k");
	pattern_read_all(reader, 2, BLOB_BYTES);
	scache_reader_close(reader);
	scratch_close(cache);
}

START_TEST(a_late_failure_does_not_touch_the_newer_entry)
{
	late_end(false);
}
END_TEST

START_TEST(a_late_death_does_not_touch_the_newer_entry)
{
	late_end(true);
}
END_TEST

int main(void)
{
	const TTest *const tests[] = {
		a_deleted_file_is_a_miss_and_is_produced_again,
		a_deleted_file_is_produced_again_at_once,
		a_deleted_file_serves_those_who_have_it_open,
		a_file_of_another_size_is_a_miss,
		a_file_cut_under_a_reader_is_an_error_and_never_an_end,
		two_caches_do_not_see_each_other,
		eviction_by_age_lets_an_open_reader_finish,
		with_age_zero_only_those_who_came_in_time_are_served,
		each_creation_removes_up_to_eight_expired_entries,
		a_producers_errno_reaches_its_readers,
		a_producers_own_code_reaches_its_readers,
		a_producers_long_message_reaches_its_readers,
		a_producer_that_just_leaves_has_cancelled,
		the_key_is_free_before_readers_learn_of_a_failure,
		a_late_failure_does_not_touch_the_newer_entry,
		a_late_death_does_not_touch_the_newer_entry,
	};

	return SCRATCH_RUN("failures", tests);
}
