/* SPDX-License-Identifier: MIT */
/*
 * check_overdue - a production that takes longer than the cache allows, whatever its
 * producer does meanwhile.
 */
#include <check.h>
#include <errno.h>
#include <signal.h>
#include <string.h>

#include "api/cache.h"
#include "../util/calls.h"

#define FILL_NS 60000000ull
#define BLOB_BYTES 300000u

/* From now on. */
static void allow(struct scache *cache, uint64_t max_fill_ns)
{
	const struct scache_options changes = { .size = sizeof(changes),
						.max_fill_ns = max_fill_ns };

	must_be(scache_configure(cache, &changes), 0);
}

/* Whatever is being produced has taken longer than that. */
static void allow_no_more(struct scache *cache)
{
	int64_t now = now_ms();

	allow(cache, 1000000);
	eventually(now_ms() > now + 1);
}

/* The same, but that scache_configure() would see to what is overdue. */
static void let_nobody_look(struct scache *cache)
{
	int64_t now = now_ms();

	shm_store(&cache->seat->store.segment->header->settings[SETTING_MAX_FILL_NS], 1000000);
	eventually(now_ms() > now + 1);
}

static void ends_overdue(struct scache *cache, struct scache_writer *writer,
			 struct scache_reader *reader, uint64_t bytes)
{
	char text[100];

	must_be(scache_writer_check(writer), -ECANCELED);
	scache_writer_close(writer);
	must(scratch_misses(cache, "k"));
	pread_to_the_error(reader, bytes, -ECANCELED);
	must(scache_message(reader, text, sizeof(text)) > 0);
	must(strstr(text, "production took longer than ") == text);
	must_be(scratch_stat(cache).overdue, 1);
	end_with(cache, reader);
}

START_TEST(who_writes_too_long_fails_with_every_byte_and_a_message)
{
	struct scache *cache = scratch_open();
	struct scache_reader *reader;
	struct scache_writer *writer;
	unsigned char byte;
	uint64_t at = 1000;
	ssize_t done;

	writer = create_as(cache, 0, 0, &reader);
	put(writer, 0, at);
	allow(cache, FILL_NS);
	for (;;) {
		pattern_fill(1, at, &byte, 1);
		done = scache_write(writer, &byte, 1, 0);
		if (done < 0)
			break;
		at++;
		pause_briefly();
	}
	must_be(done, -ECANCELED);
	must_be(scache_finish(writer), -ECANCELED);
	ends_overdue(cache, writer, reader, at);
}
END_TEST

START_TEST(who_waits_too_long_for_readers_fails_too)
{
	struct scache *cache = scratch_open();
	struct scache_reader *reader;
	struct scache_writer *writer;

	writer = create_as(cache, SCACHE_PACE_SLOWEST, 10000, NULL);
	reader = scratch_find(cache, "k");
	put(writer, 0, 10000);
	allow(cache, FILL_NS);
	must_be(scache_write(writer, "x", 1, SCACHE_FOREVER), -ECANCELED);
	ends_overdue(cache, writer, reader, 10000);
}
END_TEST

START_TEST(what_is_allowed_changes_at_once)
{
	struct scache *cache = scratch_open();
	struct scache_reader *reader;
	struct scache_writer *writer = create_as(cache, 0, 0, &reader);

	put(writer, 0, 5000);
	must_be(scache_writer_check(writer), 0);
	allow(cache, 1000 * FILL_NS);
	put(writer, 5000, 6000);
	allow_no_more(cache);
	ends_overdue(cache, writer, reader, 6000);
}
END_TEST

START_TEST(what_was_finished_in_time_stays)
{
	struct scache *cache = scratch_open();
	struct scache_reader *reader;
	struct scache_writer *writer = create_as(cache, 0, 0, &reader);

	pattern_produce(writer, 1, BLOB_BYTES, 10000);
	allow_no_more(cache);
	must_be(scache_sweep(cache, NULL, NULL), 0);
	scache_reader_close(reader);
	reader = scratch_find(cache, "k");
	pattern_read_all(reader, 1, BLOB_BYTES);
	must_be(scratch_stat(cache).overdue, 0);
	end_with(cache, reader);
}
END_TEST

/* ------------------------------------------------------------ it cannot say so itself */

struct silent {
	uint32_t flags;
	uint64_t bytes;
};

/* Be elected, write a little, be silent until told, write again. */
static void be_silent(void *arg)
{
	const struct silent *silent = arg;
	struct scache_writer *writer = create_as(scratch_open(), silent->flags, 0, NULL);

	put(writer, 0, silent->bytes);
	child_say(0);
	child_listen();
	child_say(scache_write(writer, "x", 1, 0));
	scache_writer_close(writer);
	child_say(0);
	child_stay();
}

START_TEST(who_comes_after_a_silent_one_has_a_production_of_his_own)
{
	for (int is_swept = 0; is_swept <= 1; is_swept++) {
		struct silent silent = { .bytes = 5000 };
		struct scache *cache = scratch_open();
		uint64_t before = scratch_stat(cache).overdue;
		struct scache_reader *reader, *own;
		struct scache_writer *writer;
		uint64_t position = 0;
		struct child child;

		child_start(&child, be_silent, &silent);
		child_hear(&child);
		reader = scratch_find(cache, "k");
		if (is_swept) {
			allow_no_more(cache);
			must_be(scache_sweep(cache, NULL, NULL), 0);
			must_be(scratch_stat(cache).entries_hidden, 1);
		} else {
			let_nobody_look(cache);
			must(scratch_misses(cache, "k"));
		}
		allow(cache, SCACHE_UNLIMITED);
		writer = create_as(cache, 0, 0, &own);
		pattern_produce(writer, 1, BLOB_BYTES, 10000);
		/* Who is attached to the old one goes on with it. */
		must_be(pattern_read(reader, 1, &position, 5000, 1000), 1);
		allow_no_more(cache);
		child_tell(&child, 0);
		must_be(child_hear(&child), -ECANCELED);
		must_be(pattern_read(reader, 1, &position, UINT64_MAX, 1000), -ECANCELED);
		must_be(scratch_stat(cache).overdue, before + 1);
		allow(cache, SCACHE_UNLIMITED);
		child_hear(&child);
		child_kill(&child);
		scache_reader_close(reader);
		must_be(scache_remove(cache, "k", 1), 0);
		end_with(cache, own);
	}
}
END_TEST

/* Without anybody's asking: the hint says when a look is worth it. */
START_TEST(the_next_who_produces_anything_hides_what_is_overdue)
{
	struct silent silent = { .bytes = 0 };
	struct scache_writer *writer;
	struct scache *cache;
	struct child child;

	scratch_options.max_fill_ns = FILL_NS;
	cache = scratch_open();
	child_start(&child, be_silent, &silent);
	child_hear(&child);
	do {
		writer = scratch_create(cache, "other", 0, NULL);
		must(scache_abort(writer, -EIO, NULL, 0) <= 0);
		scache_writer_close(writer);
		pause_briefly();
	} while (scratch_stat(cache).entries_hidden == 0);
	child_kill(&child);
	end_with(cache, NULL);
}
END_TEST

START_TEST(what_a_dead_one_has_left_fails_and_is_not_gone_on_with)
{
	for (uint32_t flags = 0; flags <= SCACHE_RESUMABLE; flags += SCACHE_RESUMABLE) {
		struct silent silent = { .flags = flags, .bytes = 5000 };
		struct scache *cache = scratch_open();
		struct scache_reader *reader;
		struct scache_writer *writer;
		uint64_t position = 0;
		struct child child;

		child_start(&child, be_silent, &silent);
		child_hear(&child);
		reader = scratch_find(cache, "k");
		child_kill(&child);
		allow_no_more(cache);
		must_be(scache_sweep(cache, NULL, NULL), 0);
		must_be(pattern_read(reader, 1, &position, UINT64_MAX, 1000), -EOWNERDEAD);
		must_be(position, 5000);
		must_be(scratch_stat(cache).overdue, flags == SCACHE_RESUMABLE);
		allow(cache, SCACHE_UNLIMITED);
		writer = create_as(cache, flags, 0, NULL);
		must_be(scache_written(writer), 0);
		scache_writer_close(writer);
		end_with(cache, reader);
	}
}
END_TEST

/* One who would go on with it, if it were not overdue. */
struct successor {
	struct scache *cache;
	int calls;
};

static int produce_anew(void *arg, struct scache_writer *writer)
{
	struct successor *successor = arg;
	int error = 0;

	allow(successor->cache, SCACHE_UNLIMITED);
	successor->calls++;
	must_be(scache_written(writer), 0);
	must_be(pattern_write(writer, 1, 0, BLOB_BYTES, 10000, &error), BLOB_BYTES);
	return 0;
}

/* A read and a pread look for an orphan before they see whether it is overdue. */
START_TEST(who_waits_for_what_a_dead_one_has_left_begins_anew_and_does_not_go_on)
{
	for (int is_begun = 0; is_begun <= 1; is_begun++) {
		struct silent silent = { .flags = SCACHE_RESUMABLE, .bytes = is_begun ? 5000 : 0 };
		struct scache_acquire_options options = { .size = sizeof(options),
							  .flags = SCACHE_RESUMABLE };
		struct successor successor = { .cache = scratch_open() };
		struct scache_producer producer = { .size = sizeof(producer),
						    .create = produce_anew,
						    .arg = &successor };
		uint64_t position = 0, before = scratch_stat(successor.cache).overdue;
		struct scache_reader *reader;
		struct child child;

		child_start(&child, be_silent, &silent);
		child_hear(&child);
		must_be(scache_fetch(successor.cache, "k", 1, &options, &producer, &reader, NULL), 0);
		must_be(pattern_read(reader, 1, &position, silent.bytes, 3000), 1);
		child_kill(&child);
		allow_no_more(successor.cache);
		if (is_begun) {
			must_be(pattern_read(reader, 1, &position, UINT64_MAX, 3000), -EOWNERDEAD);
			must_be(position, 5000);
			allow(successor.cache, SCACHE_UNLIMITED);
		} else {
			must_be(pread_at(reader, 0, 10, SCACHE_FOREVER), 10);
			pattern_read_all(reader, 1, BLOB_BYTES);
		}
		must_be(successor.calls, !is_begun);
		must_be(scratch_stat(successor.cache).overdue, before + 1);
		scache_reader_close(reader);
		scache_remove(successor.cache, "k", 1);
		end_with(successor.cache, NULL);
	}
}
END_TEST

int main(void)
{
	const TTest *const tests[] = {
		who_writes_too_long_fails_with_every_byte_and_a_message,
		who_waits_too_long_for_readers_fails_too,
		what_is_allowed_changes_at_once,
		what_was_finished_in_time_stays,
		who_comes_after_a_silent_one_has_a_production_of_his_own,
		the_next_who_produces_anything_hides_what_is_overdue,
		what_a_dead_one_has_left_fails_and_is_not_gone_on_with,
		who_waits_for_what_a_dead_one_has_left_begins_anew_and_does_not_go_on,
	};

	return SCRATCH_RUN("overdue", tests);
}
