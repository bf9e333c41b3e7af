/* SPDX-License-Identifier: MIT */
/* check_epoch - pins hold reclamation back, but nobody does so for ever. */
#include "base/clock.h"
#include "shm/epoch.h"
#include "store/sweep.h"
#include "../util/pair.h" /* last: its names are everyday words */

START_TEST(epochs_start_so_that_two_ago_is_not_negative)
{
	ck_assert_uint_ge(epoch_now(segment), 2);
}
END_TEST

START_TEST(without_pins_each_advance_is_one_step)
{
	uint64_t epoch = epoch_now(segment);

	for (unsigned i = 1; i <= 5; i++) {
		ck_assert(epoch_advance(i % 2 ? &cache->seat->peer : &other->seat->peer));
		ck_assert_uint_eq(epoch_now(segment), epoch + i);
	}
}
END_TEST

START_TEST(a_pin_says_which_epoch_and_is_gone_afterwards)
{
	unsigned cell = epoch_enter(&cache->seat->peer);

	ck_assert_uint_lt(cell, SHM_PINS);
	ck_assert_uint_eq(shm_load(&cache->seat->peer.shared->pins[cell].word),
			  epoch_now(segment) << 1 | 1);
	epoch_leave(&cache->seat->peer, cell);
	ck_assert_uint_eq(shm_load(&cache->seat->peer.shared->pins[cell].word), 0);
}
END_TEST

START_TEST(each_section_of_one_process_has_a_cell_of_its_own)
{
	unsigned cells[SHM_PINS], seen = 0;

	for (unsigned i = 0; i < SHM_PINS; i++) {
		cells[i] = epoch_enter(&cache->seat->peer);
		seen |= 1u << cells[i];
	}
	ck_assert_uint_eq(seen, (1u << SHM_PINS) - 1);
	epoch_leave(&cache->seat->peer, cells[1]);
	ck_assert_uint_eq(epoch_enter(&cache->seat->peer), cells[1]);
	for (unsigned i = 0; i < SHM_PINS; i++)
		epoch_leave(&cache->seat->peer, cells[i]);
}
END_TEST

static void *enter_and_leave(void *arg)
{
	(void)arg;
	epoch_leave(&cache->seat->peer, epoch_enter(&cache->seat->peer));
	return NULL;
}

START_TEST(a_thread_that_finds_no_cell_waits_for_one)
{
	unsigned cells[SHM_PINS];
	pthread_t thread;

	for (unsigned i = 0; i < SHM_PINS; i++)
		cells[i] = epoch_enter(&cache->seat->peer);
	ck_assert_int_eq(pthread_create(&thread, NULL, enter_and_leave, NULL), 0);
	for (unsigned i = 0; i < SHM_PINS; i++)
		epoch_leave(&cache->seat->peer, cells[i]);
	ck_assert_int_eq(pthread_join(thread, NULL), 0);
	ck_assert_uint_eq(atomic_load(&cache->seat->peer.pins_taken), 0);
}
END_TEST

START_TEST(a_pin_lets_one_step_pass_and_holds_the_next)
{
	unsigned cell = epoch_enter(&other->seat->peer);
	uint64_t epoch = epoch_now(segment);

	/* It is in the present epoch, so it does not lag behind. */
	ck_assert(epoch_advance(&cache->seat->peer));
	ck_assert(!epoch_advance(&cache->seat->peer));
	ck_assert(!epoch_advance(&other->seat->peer));
	ck_assert_uint_eq(epoch_now(segment), epoch + 1);
	epoch_leave(&other->seat->peer, cell);
	ck_assert(epoch_advance(&cache->seat->peer));
}
END_TEST

START_TEST(a_pin_of_the_present_epoch_does_not_help_one_of_the_past)
{
	unsigned old = epoch_enter(&other->seat->peer), young;

	ck_assert(epoch_advance(&cache->seat->peer));
	young = epoch_enter(&cache->seat->peer);
	ck_assert(!epoch_advance(&cache->seat->peer));
	epoch_leave(&cache->seat->peer, young);
	ck_assert(!epoch_advance(&cache->seat->peer));
	epoch_leave(&other->seat->peer, old);
}
END_TEST

START_TEST(a_stopped_process_is_overridden_after_a_while)
{
	struct shm_header *header = segment->header;
	unsigned cell = epoch_enter(&other->seat->peer);
	uint64_t since_ns;

	ck_assert(epoch_advance(&cache->seat->peer));
	ck_assert(!epoch_advance(&cache->seat->peer));
	since_ns = shm_load(&header->epoch_blocked_ns);
	ck_assert_uint_ne(since_ns, 0);
	ck_assert(!epoch_advance(&cache->seat->peer));
	ck_assert_uint_eq(shm_load(&header->epoch_blocked_ns), since_ns);
	/* The while is over: instead of waiting, say it began earlier. */
	shm_store(&header->epoch_blocked_ns, clock_shared_ns() - EPOCH_STALL_NS);
	ck_assert(epoch_advance(&cache->seat->peer));
	ck_assert_uint_eq(shm_load(&header->epoch_blocked_ns), 0);
	/* And each further step needs its own patience. */
	ck_assert(!epoch_advance(&cache->seat->peer));
	epoch_leave(&other->seat->peer, cell);
}
END_TEST

START_TEST(pins_of_free_slots_do_not_count)
{
	uint32_t slot = other->seat->peer.slot;

	fixture_close(&f, other);
	shm_store(&segment->peers[slot].pins[0].word, 1);
	ck_assert(epoch_advance(&cache->seat->peer));
	ck_assert(epoch_advance(&cache->seat->peer));
	shm_store(&segment->peers[slot].pins[0].word, 0);
}
END_TEST

START_TEST(an_entry_is_not_reused_while_a_walker_may_stand_on_it)
{
	struct index_key key = fixture_key("k");
	struct entry_name name = fixture_link(cache, &key);
	unsigned cell = epoch_enter(&other->seat->peer);

	ck_assert(entry_change(&cache->seat->peer, name, ENTRY_FILLING, ENTRY_FAILED, ENTRY_HIDDEN));
	ck_assert(!sweep_entry(&cache->seat->store, name));
	ck_assert(!sweep_entry(&cache->seat->store, name));
	ck_assert_uint_eq(state_of(fixture_state(cache, name.idx)), ENTRY_RETIRED);
	epoch_leave(&other->seat->peer, cell);
	ck_assert(sweep_entry(&cache->seat->store, name));
}
END_TEST

int main(void)
{
	const TTest *const tests[] = {
		epochs_start_so_that_two_ago_is_not_negative,
		without_pins_each_advance_is_one_step,
		a_pin_says_which_epoch_and_is_gone_afterwards,
		each_section_of_one_process_has_a_cell_of_its_own,
		a_thread_that_finds_no_cell_waits_for_one,
		a_pin_lets_one_step_pass_and_holds_the_next,
		a_pin_of_the_present_epoch_does_not_help_one_of_the_past,
		a_stopped_process_is_overridden_after_a_while,
		pins_of_free_slots_do_not_count,
		an_entry_is_not_reused_while_a_walker_may_stand_on_it,
	};

	return fixture_main("epoch", setup, teardown, tests, ARRAY_COUNT(tests));
}
