/* SPDX-License-Identifier: MIT */
/* check_evict - who goes first, who is spared, and what a hand is. */
#include <stdio.h>

#include "base/clock.h"
#include "store/evict.h"
#include "../util/pair.h" /* last: its names are everyday words */

#define BYTES 100u

/* Finished at moment @ended_ns, and not asked for since. */
static struct entry_name make(const char *text, uint64_t ended_ns)
{
	struct index_key key = fixture_key(text);
	struct entry_name name;
	char data[BYTES] = { 0 };

	fixture_produce(cache, text, data, sizeof(data));
	ck_assert_int_eq(fixture_find(cache, &key, &name), 1);
	shm_store(&entry_at(segment, name.idx)->ended_ns, ended_ns);
	use_begin(segment, name, ended_ns);
	return name;
}

static bool exists(const char *text)
{
	struct index_key key = fixture_key(text);
	struct entry_name name;

	return fixture_find(cache, &key, &name) == 1;
}

static void ask_for(const char *text)
{
	struct scache_reader *reader;

	ck_assert_int_eq(scache_lookup(other, text, strlen(text), NULL, &reader), 0);
	scache_reader_close(reader);
}

/* Who is left of "a" ..., as text. */
static const char *left(void)
{
	static char text[27];
	size_t count = 0;

	for (char key[] = "a"; key[0] <= 'z'; key[0]++)
		if (exists(key))
			text[count++] = key[0];
	text[count] = '\0';
	return text;
}

static uint64_t evict(uint64_t entries)
{
	return evict_some(&cache->seat->store, 0, entries, NULL);
}

/* "a" to "e", in the order of their slots or against it. */
static void make_five(bool backward)
{
	for (int i = 0; i < 5; i++) {
		char key[] = { (char)('a' + (backward ? 4 - i : i)), '\0' };

		make(key, 1000 + 10 * (uint64_t)(key[0] - 'a'));
	}
}

START_TEST(the_oldest_go_first_whatever_their_slots)
{
	make_five(true);
	ck_assert_uint_eq(evict(2), 2);
	ck_assert_str_eq(left(), "cde");
	ck_assert_uint_eq(evict(1), 1);
	ck_assert_str_eq(left(), "de");
	ck_assert_uint_eq(shm_load(&cache->seat->peer.shared->stats[STAT_EVICTED]), 3);
}
END_TEST

START_TEST(who_was_asked_for_survives_one_round_and_not_two)
{
	make_five(false);
	ask_for("a");
	ask_for("b");
	ck_assert_uint_eq(evict(1), 1);
	ck_assert_str_eq(left(), "abde");
	/* On to the newest, and only then again from the oldest. */
	ck_assert_uint_eq(evict(2), 2);
	ck_assert_str_eq(left(), "ab");
	ck_assert_uint_eq(evict(1), 1);
	ck_assert_str_eq(left(), "b");
}
END_TEST

START_TEST(the_hand_goes_on_where_it_was_and_meets_the_new_before_the_old)
{
	make_five(false);
	ask_for("a");
	ck_assert_uint_eq(evict(1), 1);
	ck_assert_str_eq(left(), "acde");
	make("f", 2000);
	ck_assert_uint_eq(evict(4), 4);
	ck_assert_str_eq(left(), "a");
}
END_TEST

START_TEST(when_all_were_asked_for_the_first_of_the_second_round_goes)
{
	make_five(false);
	for (char key[] = "a"; key[0] <= 'e'; key[0]++)
		ask_for(key);
	ck_assert_uint_eq(evict(1), 1);
	ck_assert_str_eq(left(), "bcde");
	ck_assert_uint_eq(evict(1), 1);
	ck_assert_str_eq(left(), "cde");
}
END_TEST

START_TEST(a_scan_does_not_drive_out_what_is_asked_for_again)
{
	uint64_t now = 2000;

	make_five(false);
	for (int round = 0; round < 20; round++) {
		char key[] = { (char)('m' + round % 10), '\0' };

		ask_for("a");
		ask_for("b");
		make(key, now += 10);
		ck_assert_uint_eq(evict(1), 1);
		ck_assert(exists("a") && exists("b"));
	}
}
END_TEST

START_TEST(who_is_read_is_passed_over)
{
	struct scache_reader *reader;

	make_five(false);
	ck_assert_int_eq(scache_lookup(other, "a", 1, NULL, &reader), 0);
	ck_assert_uint_eq(evict(5), 4);
	ck_assert_str_eq(left(), "a");
	ck_assert_uint_eq(evict(1), 0);
	scache_reader_close(reader);
	ck_assert_uint_eq(evict(1), 1);
	ck_assert_str_eq(left(), "");
}
END_TEST

START_TEST(what_was_finished_before_the_boot_is_older_than_the_rest)
{
	make("b", 500);
	make("c", 600);
	/* Modulo 2^64, as adoption has it. */
	make("a", (uint64_t)-1000);
	ck_assert_uint_eq(evict(1), 1);
	ck_assert_str_eq(left(), "bc");
	ck_assert_uint_eq(evict(1), 1);
	ck_assert_str_eq(left(), "c");
}
END_TEST

START_TEST(two_of_one_moment_both_go)
{
	make("a", 1000);
	make("b", 1000);
	make("c", 1000);
	ck_assert_uint_eq(evict(3) + evict(3) + evict(3), 3);
	ck_assert_str_eq(left(), "");
}
END_TEST

START_TEST(bytes_are_counted_as_charged)
{
	struct entry_name name = make("a", 500);
	uint64_t charge = shm_load(&segment->charges[name.idx]);

	ck_assert_uint_gt(charge, 0);
	for (char key[] = "b"; key[0] <= 'e'; key[0]++)
		make(key, 1000 + (uint64_t)key[0]);
	ck_assert_uint_eq(evict_some(&cache->seat->store, charge + 1, 0, NULL), 2);
	ck_assert_str_eq(left(), "cde");
	ck_assert_uint_eq(evict_some(&cache->seat->store, 0, 0, NULL), 0);
	ck_assert_uint_eq(evict_some(&cache->seat->store, UINT64_MAX, 0, NULL), 3);
	ck_assert_uint_eq(evict_some(&cache->seat->store, UINT64_MAX, UINT64_MAX, NULL), 0);
}
END_TEST

START_TEST(what_grows_or_is_hidden_is_no_candidate)
{
	struct scache_reader *reader;
	struct scache_writer *writer;

	make("a", 1000);
	ck_assert_int_eq(scache_lookup(other, "a", 1, NULL, &reader), 0);
	ck_assert_int_eq(scache_remove(other, "a", 1), 0);
	ck_assert_int_eq(scache_acquire(cache, "b", 1, NULL, NULL, &writer), 0);
	ck_assert_uint_eq(evict(2), 0);
	scache_writer_close(writer);
	scache_reader_close(reader);
}
END_TEST

START_TEST(a_hit_stores_only_what_is_news)
{
	struct entry_name name = make("a", 1000);
	uint64_t now = clock_shared_ns(), noted;

	use_note(segment, name, now);
	noted = shm_load(&segment->uses[name.idx]);
	ck_assert_uint_eq(noted, now | USE_NOTED);
	use_note(segment, name, now + USE_GRAIN_NS / 2);
	ck_assert_uint_eq(shm_load(&segment->uses[name.idx]), noted);
	use_note(segment, name, now + 2 * USE_GRAIN_NS);
	ck_assert_uint_ne(shm_load(&segment->uses[name.idx]), noted);
}
END_TEST

int main(void)
{
	const TTest *const tests[] = {
		the_oldest_go_first_whatever_their_slots,
		who_was_asked_for_survives_one_round_and_not_two,
		the_hand_goes_on_where_it_was_and_meets_the_new_before_the_old,
		when_all_were_asked_for_the_first_of_the_second_round_goes,
		a_scan_does_not_drive_out_what_is_asked_for_again,
		who_is_read_is_passed_over,
		what_was_finished_before_the_boot_is_older_than_the_rest,
		two_of_one_moment_both_go,
		bytes_are_counted_as_charged,
		what_grows_or_is_hidden_is_no_candidate,
		a_hit_stores_only_what_is_news,
	};

	return fixture_main("evict", setup, teardown, tests, ARRAY_COUNT(tests));
}
