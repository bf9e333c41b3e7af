/* SPDX-License-Identifier: MIT */
/* check_limits - charges, budgets, and who gets the last byte. */
#include <errno.h>
#include <pthread.h>
#include <stdio.h>

#include "base/clock.h"
#include "index/verify.h"
#include "shm/epoch.h"
#include "store/evict.h"
#include "store/limits.h"
#include "store/sweep.h"
#include "../util/pair.h" /* last: its names are everyday words */

#define UNIT 8192ull /* what a blob has on the disk */
#define BYTES 5000u
#define MOST (8 * UNIT)

static void configure(uint64_t max_bytes, uint64_t max_entries)
{
	const struct scache_options changes = { .size = sizeof(changes),
						.max_bytes = max_bytes,
						.max_entries = max_entries };

	ck_assert_int_eq(scache_configure(other, &changes), 0);
}

static void limited(void)
{
	setup();
	configure(MOST, 0);
}

static struct store *store(void)
{
	return &cache->seat->store;
}

static uint64_t sum(void)
{
	struct limits_use use;

	limits_measure(store(), &use);
	return use.bytes;
}

static uint64_t evicted(void)
{
	return shm_load(&cache->seat->peer.shared->stats[STAT_EVICTED]) +
	       shm_load(&other->seat->peer.shared->stats[STAT_EVICTED]);
}

/* One unit of the disk; ends with what scache_finish() says. */
static int put(const char *key)
{
	static const char data[BYTES];
	struct scache_writer *writer;
	int ret;

	ck_assert_int_eq(scache_acquire(cache, key, strlen(key), NULL, NULL, &writer), 0);
	ck_assert_ptr_nonnull(writer);
	ck_assert_int_eq(scache_write(writer, data, BYTES, 0), BYTES);
	ret = scache_finish(writer);
	scache_writer_close(writer);
	return ret;
}

/* "0", "1", ..., and on from there. */
static void put_many(unsigned count)
{
	static unsigned number;

	for (unsigned i = 0; i < count; i++) {
		char key[8];

		snprintf(key, sizeof(key), "%u", number++);
		ck_assert_int_eq(put(key), 0);
	}
}

/* @key is there, and counts as asked for. */
static void ask_for(const char *key)
{
	struct scache_reader *reader;

	ck_assert_int_eq(scache_lookup(other, key, strlen(key), NULL, &reader), 0);
	scache_reader_close(reader);
}

START_TEST(what_is_finished_is_charged_with_what_it_has_and_nothing_else_is)
{
	put_many(3);
	ck_assert_uint_eq(sum(), 3 * UNIT);
	ck_assert_int_eq(scache_remove(cache, "1", 1), 0);
	ck_assert_uint_eq(sum(), 2 * UNIT);
}
END_TEST

START_TEST(the_sum_of_the_charges_never_exceeds_the_limit)
{
	for (unsigned i = 0; i < 100; i++) {
		char key[8];

		snprintf(key, sizeof(key), "%u", i);
		ck_assert_int_eq(put(key), 0);
		ck_assert_uint_le(sum(), MOST);
		ck_assert_uint_ge(sum(), i < 7 ? (i + 1) * UNIT : 7 * UNIT);
	}
	ck_assert_uint_ge(evicted(), 92);
}
END_TEST

START_TEST(what_nothing_could_make_room_for_drives_nobody_out)
{
	struct index_key key = fixture_key("k");
	struct entry_name name;

	put_many(4);
	name = fixture_link(cache, &key);
	ck_assert_int_eq(limits_reserve(store(), name, MOST + 1), -ENOSPC);
	ck_assert_uint_eq(evicted(), 0);
	ck_assert_uint_eq(sum(), 4 * UNIT);
	/* All of it, and all others go. */
	ck_assert_int_eq(limits_reserve(store(), name, MOST), 0);
	ck_assert_uint_eq(evicted(), 4);
	ck_assert_int_eq(limits_reserve(store(), name, MOST + 1), -ENOSPC);
	ck_assert_uint_eq(shm_load(&segment->charges[name.idx]), MOST);
	fixture_unmake(cache, name);
	ck_assert_uint_eq(sum(), 0);
}
END_TEST

START_TEST(what_is_read_stays_and_who_comes_is_not_stored)
{
	static char data[BYTES + 1];
	struct scache_reader *readers[8];
	char key[8];

	put_many(8);
	for (unsigned i = 0; i < 8; i++) {
		snprintf(key, sizeof(key), "%u", i);
		ck_assert_int_eq(scache_lookup(other, key, strlen(key), NULL, &readers[i]), 0);
	}
	ck_assert_int_eq(put("a"), SCACHE_NOT_KEPT);
	ck_assert_uint_eq(sum(), MOST);
	scache_reader_close(readers[0]);
	/* One after another, in the room that is left. */
	ck_assert_int_eq(put("b"), 0);
	ck_assert_int_eq(put("c"), 0);
	ck_assert_uint_le(sum(), MOST);
	for (unsigned i = 1; i < 8; i++) {
		ck_assert_int_eq(scache_read(readers[i], data, sizeof(data), 0), BYTES);
		scache_reader_close(readers[i]);
	}
}
END_TEST

START_TEST(of_two_who_want_the_last_room_one_gets_it)
{
	struct index_key keys[2] = { fixture_key("a"), fixture_key("b") };
	struct entry_name names[2];

	for (int i = 0; i < 2; i++)
		names[i] = fixture_link(cache, &keys[i]);
	ck_assert_int_eq(limits_reserve(store(), names[0], MOST / 4 * 3), 0);
	ck_assert_int_eq(limits_reserve(store(), names[1], MOST / 4 * 3), -ENOSPC);
	ck_assert_int_eq(limits_reserve(store(), names[1], MOST / 4), 0);
	ck_assert_int_eq(limits_reserve(store(), names[0], MOST), -ENOSPC);
	for (int i = 0; i < 2; i++)
		fixture_unmake(cache, names[i]);
}
END_TEST

START_TEST(what_stands_in_grace_is_waited_for_and_not_made_up_for)
{
	unsigned pin = epoch_enter(&other->seat->peer);
	struct index_key key = fixture_key("k");
	struct entry_name name;

	put_many(8);
	name = fixture_link(cache, &key);
	/* Room has to be made, and nobody who goes is gone as long as one stands there. */
	ck_assert_int_eq(limits_reserve(store(), name, 2 * UNIT), -ENOSPC);
	ck_assert_uint_eq(evicted(), 3); /* to the low mark of 95 percent */
	epoch_leave(&other->seat->peer, pin);
	ck_assert_int_eq(limits_reserve(store(), name, 2 * UNIT), 0);
	ck_assert_uint_eq(evicted(), 3);
	fixture_unmake(cache, name);
}
END_TEST

START_TEST(a_lease_of_the_dead_runs_out)
{
	put_many(10);
	shm_store(&segment->header->room_lease_ns, clock_shared_ns() + NS_PER_SEC / 50);
	put_many(16);
	ck_assert_uint_gt(evicted(), 0);
}
END_TEST

START_TEST(on_a_full_disk_only_one_removes_at_a_time_and_the_others_look_again)
{
	shm_u64 *lease_ns = &segment->header->room_lease_ns;
	uint32_t tries = 0;

	put_many(4);
	shm_store(lease_ns, UINT64_MAX);
	for (int i = 0; i < 3; i++)
		ck_assert(limits_make_way(store(), 1, &tries));
	ck_assert_uint_eq(evicted(), 0);
	shm_store(lease_ns, 0);
	ck_assert(limits_make_way(store(), 1, &tries));
	ck_assert_uint_eq(evicted(), 1);
	ck_assert_uint_eq(sum(), 3 * UNIT);
	ck_assert_uint_eq(shm_load(lease_ns), 0);
	/* That was for us. */
	ck_assert(!limits_make_way(store(), 1, &tries));
	ck_assert_uint_eq(evicted(), 1);
	/* Who holds it for ever is not waited for. */
	shm_store(lease_ns, UINT64_MAX);
	tries = 0;
	while (limits_make_way(store(), 1, &tries))
		;
	ck_assert_uint_eq(evicted(), 1);
	shm_store(lease_ns, 0);
}
END_TEST

START_TEST(the_low_mark_is_how_far_it_is_emptied)
{
	const struct scache_options changes = { .size = sizeof(changes), .low_percent = 50 };

	ck_assert_int_eq(scache_configure(cache, &changes), 0);
	put_many(8);
	ck_assert_uint_eq(evicted(), 0);
	put_many(1);
	ck_assert_uint_eq(evicted(), 5);
	ck_assert_uint_eq(sum(), MOST / 2);
}
END_TEST

START_TEST(of_entries_there_are_never_more_than_allowed)
{
	configure(SCACHE_UNLIMITED, 5);
	for (unsigned i = 0; i < 40; i++) {
		struct limits_use use;
		char key[8];

		snprintf(key, sizeof(key), "%u", i);
		ck_assert_int_eq(put(key), 0);
		limits_measure(store(), &use);
		ck_assert_uint_le(use.entries, 5);
		ck_assert_uint_ge(use.entries, i < 4 ? i + 1 : 4);
	}
}
END_TEST

START_TEST(if_all_that_are_allowed_are_read_there_is_no_more)
{
	struct scache_reader *reader;
	struct scache_writer *writer;

	configure(SCACHE_UNLIMITED, 1);
	ck_assert_int_eq(put("a"), 0);
	ck_assert_int_eq(scache_lookup(other, "a", 1, NULL, &reader), 0);
	ck_assert_int_eq(scache_acquire(cache, "b", 1, NULL, NULL, &writer), SCACHE_BYPASS);
	scache_reader_close(reader);
	ck_assert_int_eq(put("b"), 0);
}
END_TEST

START_TEST(a_change_is_in_force_at_once_and_what_is_too_much_goes)
{
	put_many(8);
	configure(0, 3);
	ck_assert_uint_eq(evicted(), 6); /* to the low mark of 3, which is 2 */
	configure(SCACHE_UNLIMITED, SCACHE_UNLIMITED);
	put_many(14);
	ck_assert_uint_eq(evicted(), 6);
	configure(MOST, 0);
	ck_assert_uint_eq(evicted(), 15);
	ck_assert_uint_eq(sum(), 7 * UNIT);
}
END_TEST

START_TEST(a_budget_found_under_other_settings_is_not_put_in_place)
{
	struct shm_budget *budget = &segment->header->bytes;
	uint64_t until;

	configure(SCACHE_UNLIMITED, 0);
	put_many(1);
	ck_assert_uint_eq(shm_load(&budget->until), UINT64_MAX);
	configure(MOST, 0);
	until = shm_load(&budget->until);
	ck_assert_uint_le(until - shm_load(&budget->ever), MOST);
	/* Whoever had looked before finds another word there. */
	ck_assert(!shm_cas(&budget->until, UINT64_MAX, UINT64_MAX));
}
END_TEST

START_TEST(a_change_cut_short_is_completed_by_the_next_joiner)
{
	struct shm_header *header = segment->header;

	put_many(1);
	/* As by a death between the settings and the budgets: recorded, in force, not heeded. */
	shm_store(&header->bytes.until, UINT64_MAX);
	shm_store(&header->configuring, 1);
	fixture_open(&f);
	ck_assert_uint_eq(shm_load(&header->configuring), 0);
	ck_assert_uint_le(shm_load(&header->bytes.until), shm_load(&header->bytes.ever));
	/* And by one before them. */
	shm_store(&header->settings[SETTING_MAX_BYTES], UINT64_MAX);
	fixture_open(&f);
	ck_assert_uint_eq(segment_setting(segment, SETTING_MAX_BYTES), MOST);
}
END_TEST

START_TEST(an_entry_that_nobody_asks_for_ends_when_it_is_idle_for_too_long)
{
	const struct scache_options changes = { .size = sizeof(changes),
						.max_idle_ns = 10 * NS_PER_SEC };
	struct index_key key = fixture_key("0");
	struct scache_reader *reader;
	struct entry_name name;
	uint64_t now = clock_shared_ns();

	put_many(1);
	ck_assert_int_eq(scache_configure(cache, &changes), 0);
	ck_assert_int_eq(fixture_find(cache, &key, &name), 1);
	use_begin(segment, name, now - 9 * NS_PER_SEC);
	ask_for("0");
	/* That has begun the time anew. */
	ck_assert_uint_ge(shm_load(&segment->uses[name.idx]), now);
	use_begin(segment, name, now - 10 * NS_PER_SEC);
	ck_assert_int_eq(scache_lookup(other, "0", 1, NULL, &reader), -ENOENT);
	sweep_note_expiry(store(), 0);
	sweep_slice(store());
	ck_assert_uint_eq(sum(), 0);
}
END_TEST

/* ------------------------------------------------------------- many at a time */

#define THREADS 4
#define EACH 60

static _Atomic unsigned stored, lost;

struct filler {
	pthread_t thread;
	struct scache *cache;
	unsigned number;
};

static void *fill(void *arg)
{
	struct filler *filler = arg;
	static const char data[20000];

	for (unsigned i = 0; i < EACH; i++) {
		struct scache_writer *writer;
		char key[16];
		int ret;

		snprintf(key, sizeof(key), "%u.%u", filler->number, i);
		ret = scache_acquire(filler->cache, key, strlen(key),
				     &(struct scache_acquire_options){
					     .size = sizeof(struct scache_acquire_options),
					     .flags = SCACHE_RUN_TO_END },
				     NULL, &writer);
		if (ret != 0) {
			lost++;
			continue;
		}
		if (scache_write(writer, data, 100 + i * 300, SCACHE_FOREVER) >= 0 &&
		    scache_finish(writer) == 0)
			stored++;
		else
			lost++;
		scache_writer_close(writer);
	}
	return NULL;
}

START_TEST(writers_side_by_side_keep_the_limit)
{
	struct filler fillers[THREADS];

	for (unsigned i = 0; i < THREADS; i++) {
		fillers[i].cache = fixture_open(&f);
		fillers[i].number = i;
	}
	for (unsigned i = 0; i < THREADS; i++)
		ck_assert_int_eq(pthread_create(&fillers[i].thread, NULL, fill, &fillers[i]), 0);
	for (unsigned i = 0; i < THREADS; i++)
		pthread_join(fillers[i].thread, NULL);
	ck_assert_uint_eq(stored + lost, THREADS * EACH);
	ck_assert_uint_ge(stored, THREADS * EACH / 2);
	ck_assert_uint_le(sum(), MOST);
	ck_assert_int_eq(scache_check(cache, NULL, NULL), 0);
}
END_TEST

int main(void)
{
	const TTest *const tests[] = {
		what_is_finished_is_charged_with_what_it_has_and_nothing_else_is,
		the_sum_of_the_charges_never_exceeds_the_limit,
		what_nothing_could_make_room_for_drives_nobody_out,
		what_is_read_stays_and_who_comes_is_not_stored,
		of_two_who_want_the_last_room_one_gets_it,
		what_stands_in_grace_is_waited_for_and_not_made_up_for,
		a_lease_of_the_dead_runs_out,
		on_a_full_disk_only_one_removes_at_a_time_and_the_others_look_again,
		the_low_mark_is_how_far_it_is_emptied,
		of_entries_there_are_never_more_than_allowed,
		if_all_that_are_allowed_are_read_there_is_no_more,
		a_change_is_in_force_at_once_and_what_is_too_much_goes,
		a_budget_found_under_other_settings_is_not_put_in_place,
		a_change_cut_short_is_completed_by_the_next_joiner,
		an_entry_that_nobody_asks_for_ends_when_it_is_idle_for_too_long,
		writers_side_by_side_keep_the_limit,
	};

	return fixture_main("limits", limited, teardown, tests, ARRAY_COUNT(tests));
}
