/* SPDX-License-Identifier: MIT */
/*
 * check_narrow - where space is short the window is smaller, and as asked for again where it
 * is not; and who inherits it.
 */
#include <check.h>
#include <errno.h>

#include "../util/calls.h"

#define MIB (1ull << 20)
#define LEAST_BYTES (256u << 10)
#define WINDOW_BYTES (2 * MIB)
#define LIMIT_BYTES (15 * MIB) /* not where what is charged ahead just fits */

static void allow(struct scache *cache, uint64_t max_bytes)
{
	const struct scache_options changes = { .size = sizeof(changes), .max_bytes = max_bytes };

	must_be(scache_configure(cache, &changes), 0);
}

/* Both go on to @until: the reader is never further behind than the least window. */
static void go_on(struct scache_writer *writer, struct scache_reader *reader, uint64_t *position,
		  uint64_t until)
{
	while (*position < until) {
		uint64_t next = *position + LEAST_BYTES;

		put(writer, *position, next);
		must_be(pattern_read(reader, 1, position, next, LEAST_BYTES), 1);
	}
}

static void is_narrow(uint64_t window_bytes, uint64_t least_bytes)
{
	struct scache *cache = scratch_open();
	struct scache_writer *writer;
	struct scache_reader *reader;
	uint64_t position = 0;

	allow(cache, LIMIT_BYTES);
	writer = create_as(cache, 0, window_bytes, &reader);
	go_on(writer, reader, &position, 4 * MIB);
	must_be(scratch_info(reader).window_bytes, window_bytes);
	go_on(writer, reader, &position, 14 * MIB);
	must_be(scratch_info(reader).window_bytes, least_bytes);
	if (least_bytes == LEAST_BYTES) {
		put(writer, position, position + LEAST_BYTES);
		must_be(scache_write(writer, "x", 1, 0), -EAGAIN);
		must_be(pattern_read(reader, 1, &position, position + LEAST_BYTES, 10000), 1);
	}
	allow(cache, SCACHE_UNLIMITED);
	go_on(writer, reader, &position, position + 5 * MIB);
	must_be(scratch_info(reader).window_bytes, window_bytes);
	must_be(scache_finish(writer), 0);
	scache_writer_close(writer);
	must_be(scache_remove(cache, "k", 1), 0);
	end_with(cache, reader);
}

START_TEST(the_window_shrinks_and_grows_with_what_may_be_stored)
{
	is_narrow(WINDOW_BYTES, LEAST_BYTES);
}
END_TEST

START_TEST(what_is_small_or_has_no_limit_stays)
{
	is_narrow(LEAST_BYTES, LEAST_BYTES);
	is_narrow(SCACHE_UNLIMITED, SCACHE_UNLIMITED);
}
END_TEST

/* ------------------------------------------------------------------ of a dead producer */

struct dead {
	uint64_t window_bytes, until; /* what it asks for, and produces, always well read */
};

static void produce_and_stay(void *arg)
{
	const struct dead *dead = arg;
	struct scache_reader *reader;
	struct scache_writer *writer = create_as(scratch_open(), SCACHE_RESUMABLE,
						 dead->window_bytes, &reader);
	uint64_t position = 0;

	go_on(writer, reader, &position, dead->until);
	child_say((int64_t)scratch_info(reader).window_bytes);
	child_stay();
}

/* The next one says nothing of the window and finds space: what it has in the end. */
static uint64_t inherited_from(struct dead dead, uint64_t window_bytes, uint64_t cache_bytes)
{
	const struct scache_options changes = { .size = sizeof(changes),
						.max_bytes = LIMIT_BYTES,
						.window_bytes = cache_bytes };
	const struct scache_acquire_options options = { .size = sizeof(options),
							.flags = SCACHE_RESUMABLE };
	struct scache *cache = scratch_open();
	struct scache_writer *writer = NULL;
	struct scache_reader *reader;
	uint64_t position = 0;
	struct child child;

	must_be(scache_configure(cache, &changes), 0);
	child_start(&child, produce_and_stay, &dead);
	must_be(child_hear(&child), window_bytes);
	reader = scratch_find(cache, "k");
	must_be(pattern_read(reader, 1, &position, dead.until, LEAST_BYTES), 1);
	child_kill(&child);
	allow(cache, SCACHE_UNLIMITED);
	/* Its death may be known only after a tick. */
	eventually(scache_acquire(cache, "k", 1, &options, NULL, &writer) == 0 && writer != NULL);
	/* One call, which lock step allows. */
	put(writer, position, position + 16384);
	must_be(pattern_read(reader, 1, &position, position + 16384, 16384), 1);
	if (dead.window_bytes >= LEAST_BYTES && dead.window_bytes != SCACHE_ZERO)
		go_on(writer, reader, &position, position + 5 * MIB);
	window_bytes = scratch_info(reader).window_bytes;
	scache_writer_close(writer);
	must(scache_remove(cache, "k", 1) <= 0);
	end_with(cache, reader);
	return window_bytes;
}

START_TEST(what_a_dead_one_had_to_make_do_with_is_not_inherited_for_good)
{
	struct dead narrow = { WINDOW_BYTES, 14 * MIB };

	must_be(inherited_from(narrow, LEAST_BYTES, WINDOW_BYTES), WINDOW_BYTES);
	must_be(inherited_from(narrow, LEAST_BYTES, SCACHE_UNLIMITED), SCACHE_UNLIMITED);
}
END_TEST

START_TEST(what_a_dead_one_had_asked_for_is)
{
	static const uint64_t asked[] = { SCACHE_ZERO, LEAST_BYTES / 2, 2 * WINDOW_BYTES,
					  SCACHE_UNLIMITED };

	for (size_t i = 0; i < sizeof(asked) / sizeof(asked[0]); i++)
		must_be(inherited_from((struct dead){ asked[i], 0 }, asked[i], WINDOW_BYTES),
			asked[i]);
}
END_TEST

int main(void)
{
	const TTest *const tests[] = {
		the_window_shrinks_and_grows_with_what_may_be_stored,
		what_is_small_or_has_no_limit_stays,
		what_a_dead_one_had_to_make_do_with_is_not_inherited_for_good,
		what_a_dead_one_had_asked_for_is,
	};

	return SCRATCH_RUN("narrow", tests);
}
