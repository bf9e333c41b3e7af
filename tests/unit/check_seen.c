/* SPDX-License-Identifier: MIT */
/* check_seen - how often a key was produced of late, at whatever time that is. */
#include <pthread.h>

#include "../util/fixture.h"
#include "base/clock.h"
#include "index/seen.h"

#define AGE_NS 1000ull
#define THREADS 8
#define TIMES 25 /* a thread counts each key */

static struct fixture f;
static struct segment *segment;
static const struct key_hash one = { .high = 1, .low = 1 }, other = { .high = 2, .low = 2 };

static void set(enum shm_setting setting, uint64_t value)
{
	shm_store(&segment->header->settings[setting], value);
}

static void setup(void)
{
	fixture_begin(&f);
	segment = fixture_open(&f)->seat->peer.segment;
	set(SETTING_MAX_AGE_NS, AGE_NS);
	set(SETTING_MIN_OCCURRENCES, 3);
}

static void teardown(void)
{
	fixture_end(&f);
}

/* What was counted of it by @now_ns. */
static unsigned count(struct key_hash hash, uint64_t now_ns)
{
	uint64_t enough = segment_setting(segment, SETTING_MIN_OCCURRENCES);
	unsigned times = 0;

	do
		set(SETTING_MIN_OCCURRENCES, ++times + 1);
	while (times < SEEN_MOST && seen_is_enough(segment, hash, now_ns));
	set(SETTING_MIN_OCCURRENCES, enough);
	return times - 1;
}

START_TEST(the_third_time_is_enough)
{
	for (unsigned i = 0; i < 3; i++) {
		ck_assert_int_eq(seen_is_enough(segment, one, AGE_NS), i == 2);
		ck_assert_uint_eq(count(one, AGE_NS), i);
		seen_count(segment, one, AGE_NS);
	}
	ck_assert(seen_is_enough(segment, one, AGE_NS));
	ck_assert(!seen_is_enough(segment, other, AGE_NS));
}
END_TEST

START_TEST(who_wants_one_counts_nothing)
{
	set(SETTING_MIN_OCCURRENCES, 1);
	ck_assert(seen_is_enough(segment, one, AGE_NS));
	seen_count(segment, one, AGE_NS);
	set(SETTING_MIN_OCCURRENCES, 2);
	ck_assert(!seen_is_enough(segment, one, AGE_NS));
}
END_TEST

START_TEST(an_occurrence_is_forgotten_after_one_to_two_ages)
{
	seen_count(segment, one, 5 * AGE_NS);
	seen_count(segment, one, 6 * AGE_NS - 1);
	ck_assert_uint_eq(count(one, 6 * AGE_NS - 1), 2);
	ck_assert_uint_eq(count(one, 6 * AGE_NS), 2);
	ck_assert_uint_eq(count(one, 7 * AGE_NS - 1), 2);
	ck_assert_uint_eq(count(one, 7 * AGE_NS), 0);
	/* One more in the generation after the next: it is the first. */
	seen_count(segment, one, 7 * AGE_NS);
	ck_assert_uint_eq(count(one, 7 * AGE_NS), 1);
}
END_TEST

START_TEST(only_the_generation_before_counts_beside_the_own)
{
	seen_count(segment, one, 5 * AGE_NS);
	seen_count(segment, one, 6 * AGE_NS);
	ck_assert_uint_eq(count(one, 6 * AGE_NS), 2);
	ck_assert_uint_eq(count(one, 7 * AGE_NS), 1);
	seen_count(segment, one, 7 * AGE_NS);
	ck_assert_uint_eq(count(one, 7 * AGE_NS), 2);
	ck_assert_uint_eq(count(one, 8 * AGE_NS), 1);
	ck_assert_uint_eq(count(one, 9 * AGE_NS), 0);
}
END_TEST

START_TEST(what_was_enough_is_so_as_long_as_each_generation_has_one)
{
	for (int i = 0; i < 3; i++)
		seen_count(segment, one, 5 * AGE_NS);
	for (uint64_t at = 6; at < 20; at++) {
		ck_assert(seen_is_enough(segment, one, at * AGE_NS));
		seen_count(segment, one, at * AGE_NS);
	}
	ck_assert(seen_is_enough(segment, one, 20 * AGE_NS));
	ck_assert(!seen_is_enough(segment, one, 21 * AGE_NS));
}
END_TEST

START_TEST(without_an_age_it_is_a_day)
{
	static const uint64_t ages[] = { 0, UINT64_MAX };
	const uint64_t day_ns = 86400 * NS_PER_SEC;

	for (unsigned i = 0; i < ARRAY_COUNT(ages); i++) {
		struct key_hash hash = { .high = 10 + i, .low = 10 + i };

		set(SETTING_MAX_AGE_NS, ages[i]);
		seen_count(segment, hash, 3 * day_ns);
		ck_assert_uint_eq(count(hash, 5 * day_ns - 1), 1);
		ck_assert_uint_eq(count(hash, 5 * day_ns), 0);
	}
}
END_TEST

START_TEST(who_has_asked_the_clock_earlier_forgets_nothing)
{
	seen_count(segment, one, 6 * AGE_NS);
	seen_count(segment, one, 6 * AGE_NS - 1);
	ck_assert_uint_eq(count(one, 6 * AGE_NS), 2);
	ck_assert_uint_eq(count(one, 6 * AGE_NS - 1), 2);
}
END_TEST

START_TEST(a_count_stays_at_its_most)
{
	set(SETTING_MIN_OCCURRENCES, SEEN_MOST);
	for (unsigned i = 0; i < 3 * SEEN_MOST; i++) {
		ck_assert_int_eq(seen_is_enough(segment, one, 5 * AGE_NS), i >= SEEN_MOST - 1);
		seen_count(segment, one, 5 * AGE_NS);
	}
	ck_assert(!seen_is_enough(segment, other, 5 * AGE_NS));
	for (unsigned i = 0; i < 3 * SEEN_MOST; i++)
		seen_count(segment, one, 6 * AGE_NS);
	ck_assert(seen_is_enough(segment, one, 6 * AGE_NS));
	ck_assert(!seen_is_enough(segment, one, 8 * AGE_NS));
}
END_TEST

START_TEST(generations_go_round_after_65536)
{
	seen_count(segment, one, 65535 * AGE_NS);
	ck_assert_uint_eq(count(one, 65536 * AGE_NS), 1);
	seen_count(segment, one, 65536 * AGE_NS);
	ck_assert_uint_eq(count(one, 65536 * AGE_NS), 2);
	ck_assert_uint_eq(count(one, 65538 * AGE_NS), 0);
}
END_TEST

START_TEST(who_shares_one_of_two_cells_is_not_mistaken)
{
	const struct key_hash row = { .high = 1, .low = 7 }, column = { .high = 7, .low = 1 };

	for (int i = 0; i < 5; i++)
		seen_count(segment, one, AGE_NS);
	ck_assert_uint_eq(count(row, AGE_NS), 0);
	ck_assert_uint_eq(count(column, AGE_NS), 0);
	seen_count(segment, row, AGE_NS);
	ck_assert_uint_eq(count(row, AGE_NS), 1);
	ck_assert_uint_eq(count(one, AGE_NS), 5);
	ck_assert_uint_eq(count((struct key_hash){ .high = 7, .low = 7 }, AGE_NS), 0);
	/* Both of its cells are others': it is taken for one that was produced once. */
	seen_count(segment, column, AGE_NS);
	ck_assert_uint_eq(count((struct key_hash){ .high = 7, .low = 7 }, AGE_NS), 1);
}
END_TEST

START_TEST(whatever_stands_in_a_cell_is_a_count)
{
	uint32_t cells = segment->geometry.buckets * SHM_SEEN_PER_BUCKET;

	for (uint32_t i = 0; i < cells; i++)
		shm_store(&segment->seen[i], 0xffffffffu - i * 0x01010101u);
	for (uint64_t i = 0; i < 4 * cells; i++) {
		struct key_hash hash = { .high = i * 7, .low = i * 11 };

		ck_assert_uint_le(count(hash, i * AGE_NS), SEEN_MOST);
		seen_count(segment, hash, i * AGE_NS);
		ck_assert_uint_ge(count(hash, i * AGE_NS), 1);
	}
}
END_TEST

static void *count_along(void *arg)
{
	(void)arg;
	for (unsigned i = 0; i < TIMES; i++) {
		seen_count(segment, one, AGE_NS);
		seen_count(segment, other, AGE_NS);
	}
	return NULL;
}

START_TEST(many_threads_lose_no_count)
{
	pthread_t threads[THREADS];

	set(SETTING_MIN_OCCURRENCES, SEEN_MOST);
	for (unsigned i = 0; i < THREADS; i++)
		ck_assert_int_eq(pthread_create(&threads[i], NULL, count_along, NULL), 0);
	for (unsigned i = 0; i < THREADS; i++)
		pthread_join(threads[i], NULL);
	ck_assert_uint_eq(count(one, AGE_NS), THREADS * TIMES);
	ck_assert_uint_eq(count(other, AGE_NS), THREADS * TIMES);
}
END_TEST

int main(void)
{
	const TTest *const tests[] = {
		the_third_time_is_enough,
		who_wants_one_counts_nothing,
		an_occurrence_is_forgotten_after_one_to_two_ages,
		only_the_generation_before_counts_beside_the_own,
		what_was_enough_is_so_as_long_as_each_generation_has_one,
		without_an_age_it_is_a_day,
		who_has_asked_the_clock_earlier_forgets_nothing,
		a_count_stays_at_its_most,
		generations_go_round_after_65536,
		who_shares_one_of_two_cells_is_not_mistaken,
		whatever_stands_in_a_cell_is_a_count,
		many_threads_lose_no_count,
	};

	return fixture_main("seen", setup, teardown, tests, ARRAY_COUNT(tests));
}
