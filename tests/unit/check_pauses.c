/* SPDX-License-Identifier: MIT */
/*
 * check_pauses - the sleeps of the library that nobody can end: naps of a reader
 * while bytes flow.
 *
 * nanosleep() is the test's own, by ld --wrap: it counts, and does what is to happen
 * meanwhile. So is the clock: it can be made to stand still, so that the reader takes
 * whatever it has slept for a short time.
 */
#include <check.h>
#include <errno.h>
#include <time.h>

#include "../util/calls.h"

#define NAP_BYTES (32u << 10) /* what a nap has to bring for there to be another */
#define FAR 1000000u
#define MS_NS 1000000ll
#define SECOND_NS (1000 * MS_NS)

int __real_clock_gettime(clockid_t id, struct timespec *ret_now);
int __wrap_clock_gettime(clockid_t id, struct timespec *ret_now);
int __wrap_nanosleep(const struct timespec *pause, struct timespec *ret_left);

static struct timespec stands_at; /* CLOCK_MONOTONIC; 0: it runs */
static void (*meanwhile)(void);
static int pauses;

int __wrap_clock_gettime(clockid_t id, struct timespec *ret_now)
{
	if (id != CLOCK_MONOTONIC || stands_at.tv_sec == 0)
		return __real_clock_gettime(id, ret_now);
	*ret_now = stands_at;
	return 0;
}

int __wrap_nanosleep(const struct timespec *pause, struct timespec *ret_left)
{
	(void)pause;
	(void)ret_left;
	pauses++;
	if (meanwhile != NULL)
		meanwhile();
	return 0;
}

static void stop_the_clock(void)
{
	must(__real_clock_gettime(CLOCK_MONOTONIC, &stands_at) == 0);
}

/* ------------------------------------------------------------------- naps */

static void let_time_pass(void)
{
	stands_at.tv_sec += 100;
}

START_TEST(a_pread_far_ahead_that_gave_up_leaves_no_nap_to_others)
{
	struct scache *cache = scratch_open();
	struct scache_reader *reader;
	struct scache_writer *writer = scratch_create(cache, "k", 0, &reader);
	char byte;

	/* A sleep that seems short, a nap because of it, and then it is too late. */
	stop_the_clock();
	meanwhile = let_time_pass;
	must_be(pread_at(reader, FAR, 1, SECOND_NS), -ETIMEDOUT);
	must_be(pauses, 1);
	/* It brought nothing. So whoever waits now is woken for the first byte. */
	stands_at.tv_sec = 0;
	meanwhile = NULL;
	must_be(scache_read(reader, &byte, 1, 100 * MS_NS), -ETIMEDOUT);
	must_be(pauses, 1);
	scache_writer_close(writer);
	end_with(cache, reader);
}
END_TEST

static struct scache_writer *producer;
static uint64_t produced, brings_bytes;

static void produce_some(void)
{
	put(producer, produced, produced + brings_bytes);
	produced += brings_bytes;
}

/* Read all that the next nap brings. How often the reader slept to be woken, before it. */
static uint64_t sleeps_before_a_nap(struct scache *cache, struct scache_reader *reader,
				    uint64_t bytes)
{
	uint64_t waits = scratch_stat(cache).waits, position = produced;
	int before = pauses;

	brings_bytes = bytes;
	must_be(pattern_read(reader, 1, &position, position + bytes, bytes), 1);
	must_be(pauses, before + 1);
	return scratch_stat(cache).waits - waits;
}

START_TEST(a_reader_naps_on_as_long_as_each_nap_brings_enough)
{
	struct scache *cache = scratch_open();
	struct scache_reader *reader;

	producer = scratch_create(cache, "k", 0, &reader);
	meanwhile = produce_some;
	stop_the_clock();
	must_be(sleeps_before_a_nap(cache, reader, NAP_BYTES), 1);
	must_be(sleeps_before_a_nap(cache, reader, NAP_BYTES), 0);
	must_be(sleeps_before_a_nap(cache, reader, NAP_BYTES - 1), 0);
	must_be(sleeps_before_a_nap(cache, reader, NAP_BYTES), 1);
	must_be(sleeps_before_a_nap(cache, reader, 1), 0);
	must_be(sleeps_before_a_nap(cache, reader, 1), 1);
	stands_at.tv_sec = 0;
	scache_writer_close(producer);
	end_with(cache, reader);
}
END_TEST

int main(void)
{
	const TTest *const tests[] = {
		a_pread_far_ahead_that_gave_up_leaves_no_nap_to_others,
		a_reader_naps_on_as_long_as_each_nap_brings_enough,
	};

	return SCRATCH_RUN("pauses", tests);
}
