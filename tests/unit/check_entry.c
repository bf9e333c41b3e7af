/* SPDX-License-Identifier: MIT */
/* check_entry - the state word, and who may change it. */
#include <errno.h>

#include "store/sweep.h"
#include "../util/pair.h" /* last: its names are everyday words */

static struct entry_name claim(struct scache *by)
{
	struct entry_name name;

	ck_assert_int_eq(entry_claim(&by->seat->peer, &name), 0);
	return name;
}

START_TEST(each_part_of_a_state_word_comes_back)
{
	static const uint32_t gens[] = { 0, 1, 0x80000000u, UINT32_MAX };
	static const uint32_t owners[] = { 0, 1, SHM_PEERS_MAX - 1 };

	for (unsigned g = 0; g < ARRAY_COUNT(gens); g++)
		for (unsigned state = 0; state < ENTRY_STATES; state++)
			for (uint32_t flags = 0; flags < 16; flags++)
				for (unsigned o = 0; o < ARRAY_COUNT(owners); o++) {
					uint64_t word = state_make(gens[g], (enum entry_state)state,
								   flags, owners[o] << 10 | 1023);

					ck_assert_uint_eq(state_gen(word), gens[g]);
					ck_assert_uint_eq(state_of(word), state);
					ck_assert_uint_eq(state_flags(word), flags);
					ck_assert_uint_eq(state_owner(word), owners[o]);
					ck_assert_uint_eq(state_low(word) & 1023, 1023);
					ck_assert_int_eq(state_is_hidden(word),
							 (flags & ENTRY_HIDDEN) != 0);
				}
}
END_TEST

START_TEST(what_does_not_fit_stays_out_of_the_rest_of_the_word)
{
	uint64_t word = state_make(7, ENTRY_RETIRED, ENTRY_HIDDEN, 0xff123456u);

	ck_assert_uint_eq(state_gen(word), 7);
	ck_assert_uint_eq(state_of(word), ENTRY_RETIRED);
	ck_assert_uint_eq(state_flags(word), ENTRY_HIDDEN);
	ck_assert_uint_eq(state_low(word), 0x123456u);
}
END_TEST

START_TEST(only_what_grows_or_is_sealed_is_findable_and_only_unhidden)
{
	for (unsigned state = 0; state < ENTRY_STATES; state++) {
		uint64_t open = state_make(1, (enum entry_state)state, 0, 0);
		uint64_t hidden = state_make(1, (enum entry_state)state, ENTRY_HIDDEN, 0);

		ck_assert_int_eq(state_is_findable(open),
				 state == ENTRY_FILLING || state == ENTRY_ORPHAN ||
					 state == ENTRY_SEALED);
		ck_assert(!state_is_findable(hidden));
		ck_assert(!state_is_garbage(open));
		ck_assert_int_eq(state_is_garbage(hidden),
				 state == ENTRY_SEALED || state == ENTRY_FAILED);
		ck_assert_int_eq(state_has_owner(open), state == ENTRY_CLAIMED ||
								state == ENTRY_FILLING ||
								state == ENTRY_SWEEPING);
	}
}
END_TEST

START_TEST(each_slot_is_claimed_once_and_names_its_peer)
{
	struct entry_name names[FIXTURE_ENTRIES], one_more;
	bool seen[FIXTURE_ENTRIES] = { false };
	unsigned i;

	for (i = 0; i < FIXTURE_ENTRIES; i++) {
		struct scache *by = i % 2 ? cache : other;
		uint64_t word;

		names[i] = claim(by);
		ck_assert_uint_lt(names[i].idx, FIXTURE_ENTRIES);
		ck_assert(!seen[names[i].idx]);
		seen[names[i].idx] = true;
		word = fixture_state(by, names[i].idx);
		ck_assert_uint_eq(state_of(word), ENTRY_CLAIMED);
		ck_assert_uint_eq(state_owner(word), by->seat->peer.slot);
		ck_assert_uint_eq(state_gen(word), names[i].gen);
	}
	ck_assert_int_eq(entry_claim(&cache->seat->peer, &one_more), -ENOSPC);
	for (i = 0; i < FIXTURE_ENTRIES; i++)
		sweep_give_back(&(i % 2 ? cache : other)->seat->store, names[i], ENTRY_CLAIMED, false);
}
END_TEST

START_TEST(a_freed_slot_has_another_generation)
{
	struct entry_name first = claim(cache), again;

	sweep_give_back(&cache->seat->store, first, ENTRY_CLAIMED, false);
	ck_assert_uint_eq(fixture_state(cache, first.idx),
			  state_make(first.gen + 1, ENTRY_FREE, 0, 0));
	/* All slots in turn, so this one, too. */
	for (unsigned i = 0; i < FIXTURE_ENTRIES; i++) {
		again = claim(cache);
		sweep_give_back(&cache->seat->store, again, ENTRY_CLAIMED, false);
		if (again.idx == first.idx)
			ck_assert_uint_eq(again.gen, first.gen + 1);
	}
}
END_TEST

START_TEST(the_generation_wraps_around)
{
	struct entry_name name;
	uint32_t idx = atomic_load(&cache->seat->peer.claim_hint) % FIXTURE_ENTRIES;

	shm_store(entry_state_word(segment, idx), state_make(UINT32_MAX, ENTRY_FREE, 0, 0));
	name = claim(cache);
	ck_assert_uint_eq(name.idx, idx);
	ck_assert_uint_eq(name.gen, UINT32_MAX);
	sweep_give_back(&cache->seat->store, name, ENTRY_CLAIMED, false);
	ck_assert_uint_eq(fixture_state(cache, idx), 0);
}
END_TEST

START_TEST(filling_in_leaves_nothing_of_the_life_before)
{
	struct entry_draft draft = { .key = "key",
				     .key_bytes = 3,
				     .hash = { .high = 5, .low = 6 },
				     .max_age_ns = 7,
				     .window_bytes = 8,
				     .flags = ENTRY_RUN_TO_END };
	struct entry_name name = claim(cache);
	struct shm_entry *e = entry_at(segment, name.idx);
	unsigned char key[256];

	memset((void *)&e->hash_high, 0x5a, sizeof(*e) - offsetof(struct shm_entry, hash_high));
	entry_fill(&cache->seat->peer, name, &draft);
	ck_assert_uint_eq(entry_copy_key(e, key), 3);
	ck_assert_mem_eq(key, "key", 3);
	ck_assert(entry_key_is(e, "key", 3));
	ck_assert(!entry_key_is(e, "key", 2));
	ck_assert(!entry_key_is(e, "kez", 3));
	ck_assert_uint_eq(entry_hash(e).high, 5);
	ck_assert_uint_eq(entry_hash(e).low, 6);
	ck_assert_uint_eq(shm_load(&e->max_age_ns), 7);
	ck_assert_uint_eq(shm_load(&e->window_bytes), 8);
	ck_assert_uint_eq(shm_load(&e->flags), ENTRY_RUN_TO_END);
	ck_assert_uint_eq(shm_load(&e->written) | shm_load(&e->flushed) | shm_load(&e->need), 0);
	ck_assert_uint_eq(shm_load(&e->floor), UINT64_MAX);
	ck_assert_uint_eq(shm_load(&e->code) | shm_load(&e->message_bytes) | shm_load(&e->ring) |
				  shm_load(&e->attention) | shm_load(&e->had_reader),
			  0);
	ck_assert_uint_eq(shm_load(&segment->expires[name.idx]), UINT64_MAX);
	sweep_give_back(&cache->seat->store, name, ENTRY_CLAIMED, false);
}
END_TEST

START_TEST(the_door_is_closed_by_exactly_one)
{
	struct index_key key = fixture_key("door");
	struct entry_name name = fixture_link(cache, &key), later = { name.idx, name.gen + 1 };

	ck_assert(!entry_hide(segment, name, ENTRY_SEALED));
	ck_assert(!entry_hide(segment, later, ENTRY_FILLING));
	ck_assert(state_is_findable(fixture_state(cache, name.idx)));
	ck_assert(entry_hide(segment, name, ENTRY_FILLING));
	ck_assert(!entry_hide(segment, name, ENTRY_FILLING));
	ck_assert(!state_is_findable(fixture_state(cache, name.idx)));
	ck_assert_uint_eq(state_of(fixture_state(cache, name.idx)), ENTRY_FILLING);
	fixture_unmake(cache, name);
}
END_TEST

START_TEST(only_the_owner_changes_an_entry_and_only_its_own_life)
{
	struct index_key key = fixture_key("mine");
	struct entry_name name = fixture_link(cache, &key), later = { name.idx, name.gen + 1 };

	ck_assert(!entry_change(&other->seat->peer, name, ENTRY_FILLING, ENTRY_SEALED, 0));
	ck_assert(!entry_change(&cache->seat->peer, later, ENTRY_FILLING, ENTRY_SEALED, 0));
	ck_assert(!entry_change(&cache->seat->peer, name, ENTRY_CLAIMED, ENTRY_SEALED, 0));
	ck_assert_uint_eq(state_of(fixture_state(cache, name.idx)), ENTRY_FILLING);
	fixture_unmake(cache, name);
}
END_TEST

START_TEST(a_change_keeps_the_door_as_it_is)
{
	struct index_key key = fixture_key("kept");
	struct entry_name name = fixture_link(cache, &key);

	ck_assert(entry_hide(segment, name, ENTRY_FILLING));
	ck_assert(entry_change(&cache->seat->peer, name, ENTRY_FILLING, ENTRY_SEALED, 0));
	ck_assert(state_is_garbage(fixture_state(cache, name.idx)));
	ck_assert(sweep_entry(&other->seat->store, name));
}
END_TEST

START_TEST(of_two_who_retire_or_sweep_one_does)
{
	struct index_key key = fixture_key("raced");
	struct entry_name name = fixture_link(cache, &key);
	uint64_t word;

	ck_assert(entry_change(&cache->seat->peer, name, ENTRY_FILLING, ENTRY_FAILED, ENTRY_HIDDEN));
	ck_assert_int_eq(index_unlink(&cache->seat->peer, name), 0);
	word = fixture_state(cache, name.idx);
	ck_assert(entry_retire(segment, name, word));
	ck_assert(!entry_retire(segment, name, word));
	word = fixture_state(cache, name.idx);
	ck_assert_uint_eq(state_of(word), ENTRY_RETIRED);
	ck_assert_uint_eq(state_low(word), shm_load(&segment->header->epoch) & 0xffffff);
	ck_assert(entry_take_for_sweep(&other->seat->peer, name, word));
	ck_assert(!entry_take_for_sweep(&cache->seat->peer, name, word));
	ck_assert_uint_eq(state_owner(fixture_state(cache, name.idx)), other->seat->peer.slot);
	entry_free(&other->seat->peer, name);
	ck_assert_uint_eq(fixture_state(cache, name.idx),
			  state_make(name.gen + 1, ENTRY_FREE, 0, 0));
}
END_TEST

START_TEST(grace_is_two_epochs_also_around_the_wrap)
{
	static const uint64_t epochs[] = { 2,	       0xfffffd,	 0xfffffe,	  0xffffff,
					   0x1000000,  0xffffffff,	 0x100000000ull, 1ull << 40 };

	for (unsigned i = 0; i < ARRAY_COUNT(epochs); i++) {
		uint64_t word = state_make(1, ENTRY_RETIRED, ENTRY_HIDDEN, (uint32_t)epochs[i]);

		ck_assert(!entry_grace_is_over(word, epochs[i]));
		ck_assert(!entry_grace_is_over(word, epochs[i] + 1));
		ck_assert(entry_grace_is_over(word, epochs[i] + 2));
		ck_assert(entry_grace_is_over(word, epochs[i] + 3));
		ck_assert(entry_grace_is_over(word, epochs[i] + (1u << 23) - 1));
		/* Retired by somebody who is ahead of what we have seen: not over. */
		ck_assert(!entry_grace_is_over(word, epochs[i] - 1));
		ck_assert(!entry_grace_is_over(word, epochs[i] - 2));
	}
}
END_TEST

int main(void)
{
	const TTest *const tests[] = {
		each_part_of_a_state_word_comes_back,
		what_does_not_fit_stays_out_of_the_rest_of_the_word,
		only_what_grows_or_is_sealed_is_findable_and_only_unhidden,
		each_slot_is_claimed_once_and_names_its_peer,
		a_freed_slot_has_another_generation,
		the_generation_wraps_around,
		filling_in_leaves_nothing_of_the_life_before,
		the_door_is_closed_by_exactly_one,
		only_the_owner_changes_an_entry_and_only_its_own_life,
		a_change_keeps_the_door_as_it_is,
		of_two_who_retire_or_sweep_one_does,
		grace_is_two_epochs_also_around_the_wrap,
	};

	return fixture_main("entry", setup, teardown, tests, ARRAY_COUNT(tests));
}
