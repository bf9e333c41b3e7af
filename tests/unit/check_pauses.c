/* SPDX-License-Identifier: MIT */
/*
 * check_pauses - the sleeps of the library that nobody can end: naps of a reader
 * while bytes flow, and pauses before the gate of a cache.
 *
 * nanosleep() is the test's own, by ld --wrap: it counts, and does what is to happen
 * meanwhile. So is the clock: it can be made to stand still, so that the reader takes
 * whatever it has slept for a short time.
 */
#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <time.h>
#include <unistd.h>

#include "../util/calls.h"
#include "base/clock.h"
#include "shm/lockfile.h"

#define NAP_BYTES (32u << 10) /* what a nap has to bring for there to be another */
#define FAR 1000000u
#define MS_NS 1000000ll
#define SECOND_NS (1000 * MS_NS)

int __real_clock_gettime(clockid_t id, struct timespec *ret_now);
int __wrap_clock_gettime(clockid_t id, struct timespec *ret_now);
int __wrap_nanosleep(const struct timespec *pause, struct timespec *ret_left);

static struct timespec stands_at; /* CLOCK_MONOTONIC; 0: it runs */
static void (*meanwhile)(void);
static int64_t pauses_ns[1000];
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
	(void)ret_left;
	must(pauses < (int)(sizeof(pauses_ns) / sizeof(pauses_ns[0])));
	pauses_ns[pauses++] = (int64_t)pause->tv_sec * SECOND_NS + pause->tv_nsec;
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

/* ---------------------------------------------------------------- the gate */

#define TRIES 200

static int inside_fd;

static void leave_at_last(void)
{
	if (pauses == TRIES)
		lockfile_leave_gate(inside_fd);
}

/* How many of the pauses from @from on are none of those before them. */
static int count_new(int from)
{
	int count = 0;

	for (int i = from; i < pauses; i++) {
		int j = from;

		while (pauses_ns[j] != pauses_ns[i])
			j++;
		count += j == i;
	}
	return count;
}

/*
 * A thousand that open at once without it get in as well, nearly always: only one that
 * is unlucky finds the gate shut for five seconds. So it is the pauses that are tested.
 */
START_TEST(who_waits_at_the_gate_pauses_longer_each_time_and_never_like_the_others)
{
	const int64_t first_ns = MS_NS / 8, last_ns = 32 * MS_NS;
	int dir_fd = open(scratch_base, O_RDONLY | O_DIRECTORY | O_CLOEXEC), fd;
	int64_t mean_ns = first_ns;

	inside_fd = lockfile_open(dir_fd, 0600, getgid(), true);
	fd = lockfile_open(dir_fd, 0600, getgid(), false);
	must(inside_fd >= 0 && fd >= 0);
	must_be(lockfile_enter_gate(inside_fd, 0), 0);
	meanwhile = leave_at_last;
	must_be(lockfile_enter_gate(fd, 10 * SECOND_NS), 0);
	must_be(pauses, TRIES);
	for (int i = 0; i < TRIES; i++) {
		must(pauses_ns[i] >= mean_ns / 2 && pauses_ns[i] <= mean_ns * 3 / 2);
		mean_ns = mean_ns * 2 < last_ns ? mean_ns * 2 : last_ns;
	}
	/* Nor like its own last one: those who came together do not stay together. */
	must(count_new(TRIES / 2) > TRIES / 4);
	lockfile_close(fd);
	lockfile_close(inside_fd);
	close(dir_fd);
}
END_TEST

int main(void)
{
	const TTest *const tests[] = {
		a_pread_far_ahead_that_gave_up_leaves_no_nap_to_others,
		a_reader_naps_on_as_long_as_each_nap_brings_enough,
		who_waits_at_the_gate_pauses_longer_each_time_and_never_like_the_others,
	};

	return SCRATCH_RUN("pauses", tests);
}
