/* SPDX-License-Identifier: MIT */
/*
 * check_verify - each invariant is broken by hand, and exactly that is told.
 */
#include <errno.h>
#include <stdio.h>
#include <unistd.h>

#include "../util/fixture.h"
#include "index/ring.h"
#include "index/verify.h"
#include "shm/epoch.h"

static struct fixture f;
static struct scache *cache;
static struct segment *segment;
static char findings[4096];

static void setup(void)
{
	fixture_begin(&f);
	cache = fixture_open(&f);
	segment = cache->seat->peer.segment;
	findings[0] = '\0';
}

static void teardown(void)
{
	fixture_end(&f);
}

static void note(void *arg, const char *text)
{
	size_t length = strlen(findings);

	ck_assert_ptr_eq(arg, &f);
	snprintf(findings + length, sizeof(findings) - length, "%s\n", text);
}

/* The damage is told of once, by the number @which, and by nothing else. */
static void expect(const char *which)
{
	findings[0] = '\0';
	ck_assert_int_eq(verify_segment(&cache->seat->peer, note, &f), 1);
	ck_assert_msg(strncmp(findings, which, strlen(which)) == 0 && findings[strlen(which)] == ':',
		      "wanted %s, got: %s", which, findings);
	/* The finding function may be missing. */
	ck_assert_int_eq(verify_segment(&cache->seat->peer, NULL, NULL), 1);
}

static void expect_nothing(void)
{
	ck_assert_msg(verify_segment(&cache->seat->peer, note, &f) == 0, "%s", findings);
}

/* Break @word, expect @which, mend it. */
static void expect_for(shm_u64 *word, uint64_t broken, const char *which)
{
	uint64_t before = shm_load(word);

	shm_store(word, broken);
	expect(which);
	shm_store(word, before);
	expect_nothing();
}

static struct entry_name sealed(const char *key)
{
	struct index_key wanted = fixture_key(key);
	struct entry_name name;

	fixture_produce(cache, key, "some bytes", 10);
	ck_assert_int_eq(fixture_find(cache, &wanted, &name), 1);
	return name;
}

static uint32_t free_slot(void)
{
	uint32_t slot = 0;

	while (PEER_STATE(shm_load(&segment->peers[slot].state)) != PEER_FREE)
		slot++;
	return slot;
}

static uint32_t free_entry(void)
{
	uint32_t idx = 0;

	while (state_of(fixture_state(cache, idx)) != ENTRY_FREE)
		idx++;
	return idx;
}

START_TEST(a_fresh_segment_is_clean)
{
	expect_nothing();
}
END_TEST

START_TEST(a_segment_in_full_use_is_clean)
{
	struct scache *other = fixture_open(&f);
	struct scache_reader *readers[3];
	struct scache_writer *writer, *none;
	unsigned pin;

	sealed("finished");
	sealed("removed");
	ck_assert_int_eq(scache_lookup(other, "removed", 7, NULL, &readers[0]), 0);
	ck_assert_int_eq(scache_remove(cache, "removed", 7), 0);
	ck_assert_int_eq(scache_acquire(cache, "growing", 7, NULL, &readers[1], &writer), 0);
	ck_assert_int_eq(scache_acquire(other, "growing", 7, NULL, &readers[2], &none), 0);
	ck_assert_int_eq(scache_write(writer, "bytes", 5, 0), 5);
	pin = epoch_enter(&other->seat->peer);
	expect_nothing();
	epoch_leave(&other->seat->peer, pin);
	scache_abort(writer, -EDOM, "message", 7);
	expect_nothing();
	scache_writer_close(writer);
	for (unsigned i = 0; i < ARRAY_COUNT(readers); i++)
		scache_reader_close(readers[i]);
}
END_TEST

START_TEST(i1_the_header_is_intact)
{
	struct shm_header *h = segment->header;

	expect_for(&h->magic, 0, "I1");
	h->layout++;
	expect("I1");
	h->layout--;
	h->number++;
	expect("I1");
	h->number--;
	h->segment_bytes++;
	expect("I1");
	h->segment_bytes--;
	h->geometry.entries--;
	expect("I1");
	h->geometry.entries++;
	expect_nothing();
}
END_TEST

START_TEST(i2_each_state_is_a_known_one)
{
	uint32_t idx = free_entry();
	shm_u64 *word = entry_state_word(segment, idx);

	expect_for(word, state_make(0, ENTRY_STATES, 0, 0), "I2");
	expect_for(word, state_make(0, (enum entry_state)15, 15, 0xffffff), "I2");
}
END_TEST

START_TEST(i2_a_free_entry_has_no_flags_and_no_owner)
{
	shm_u64 *word = entry_state_word(segment, free_entry());

	expect_for(word, state_make(3, ENTRY_FREE, ENTRY_HIDDEN, 0), "I2");
	expect_for(word, state_make(3, ENTRY_FREE, 0, cache->seat->peer.slot << 10 | 1), "I2");
	shm_store(word, state_make(3, ENTRY_FREE, 0, 0));
	expect_nothing();
}
END_TEST

START_TEST(i3_who_owns_an_entry_has_a_slot)
{
	static const enum entry_state owned[] = { ENTRY_CLAIMED, ENTRY_FILLING, ENTRY_SWEEPING };
	shm_u64 *word = entry_state_word(segment, free_entry());

	for (unsigned i = 0; i < ARRAY_COUNT(owned); i++) {
		expect_for(word, state_make(0, owned[i], 0, free_slot() << 10), "I3");
		expect_for(word, state_make(0, owned[i], 0, FIXTURE_PEERS << 10), "I3");
	}
}
END_TEST

START_TEST(i4_a_finished_entry_is_in_the_chain_of_its_key)
{
	struct index_key key = fixture_key("lost");

	sealed("lost");
	expect_for(index_bucket(segment, key.hash), 0, "I4");
}
END_TEST

START_TEST(i4_no_two_findable_entries_have_one_key)
{
	struct index_key one = fixture_key("one"), other = fixture_key("other");
	struct entry_name first, second;
	shm_u64 saved;

	/* Two entries in one chain, and then the second gets the first one's key. */
	other.hash = one.hash;
	first = fixture_link(cache, &one);
	second = fixture_link(cache, &other);
	ck_assert(entry_change(&cache->seat->peer, first, ENTRY_FILLING, ENTRY_SEALED, 0));
	ck_assert(entry_change(&cache->seat->peer, second, ENTRY_FILLING, ENTRY_SEALED, 0));
	expect_nothing();
	atomic_init(&saved, shm_load(&entry_at(segment, second.idx)->key[0]));
	shm_store(&entry_at(segment, second.idx)->key[0],
		  shm_load(&entry_at(segment, first.idx)->key[0]));
	shm_store(&entry_at(segment, second.idx)->key_bytes, 3);
	expect("I4");
	shm_store(&entry_at(segment, second.idx)->key[0], shm_load(&saved));
	shm_store(&entry_at(segment, second.idx)->key_bytes, 5);
}
END_TEST

START_TEST(i5_chains_stay_in_range)
{
	struct index_key key = fixture_key("chain");
	struct entry_name name = sealed("chain");

	expect_for(index_bucket(segment, key.hash), NAME_WORD(name.gen, FIXTURE_ENTRIES), "I5");
	expect_for(&entry_at(segment, name.idx)->next, LINK_MAKE(name.gen, FIXTURE_ENTRIES + 1),
		   "I5");
}
END_TEST

START_TEST(i5_chains_end)
{
	struct entry_name name = sealed("chain");

	expect_for(&entry_at(segment, name.idx)->next, LINK_MAKE(name.gen, name.idx + 1), "I5");
}
END_TEST

START_TEST(i5_chains_hold_nothing_that_is_not_in_use)
{
	struct entry_name name = sealed("chain");
	shm_u64 *word = entry_state_word(segment, name.idx);
	uint32_t low = cache->seat->peer.slot << 10;

	shm_store(&segment->charges[name.idx], 0);
	expect_for(word, state_make(name.gen, ENTRY_FREE, 0, 0), "I5");
	expect_for(word, state_make(name.gen, ENTRY_CLAIMED, 0, low), "I5");
	expect_for(word, state_make(name.gen, ENTRY_SWEEPING, ENTRY_HIDDEN, low), "I5");
}
END_TEST

START_TEST(i6_no_more_is_flushed_than_was_written)
{
	struct entry_name name = sealed("progress");

	expect_for(&entry_at(segment, name.idx)->flushed, 11, "I6");
}
END_TEST

START_TEST(i6_what_passes_the_ring_is_flushed_a_moment_before)
{
	struct scache_writer *writer = NULL;
	shm_u64 *flushed;

	ck_assert_int_eq(scache_acquire(cache, "progress", 8, NULL, NULL, &writer), 0);
	ck_assert_ptr_nonnull(writer);
	flushed = &writer->entry->flushed;
	shm_store(flushed, ENTRY_PASS_BYTES_MAX);
	expect_nothing();
	shm_store(flushed, 0);
	expect_for(flushed, ENTRY_PASS_BYTES_MAX + 1, "I6");
	scache_writer_close(writer);
}
END_TEST

START_TEST(i6_a_finished_entry_is_flushed_whole)
{
	struct entry_name name = sealed("progress");
	struct shm_entry *e = entry_at(segment, name.idx);

	expect_for(&e->flushed, 9, "I6");
	/* Unless it has no complete file. */
	shm_store(&e->flags, ENTRY_RING_ONLY);
	shm_store(&e->flushed, 9);
	expect_nothing();
	shm_store(&e->flags, 0);
	shm_store(&e->flushed, 10);
}
END_TEST

START_TEST(i6_no_byte_is_neither_in_the_ring_nor_in_the_file)
{
	struct scache_writer *writer;

	ck_assert_int_eq(scache_acquire(cache, "k", 1, NULL, NULL, &writer), 0);
	ck_assert_int_eq(scache_write(writer, "0123456789", 10, 0), 10);
	expect_for(&writer->entry->floor, 1, "I6");
	scache_writer_close(writer);
}
END_TEST

START_TEST(i7_a_ring_belongs_to_a_living_entry_of_that_generation)
{
	struct entry_name name = sealed("ring");
	shm_u64 *owner = &segment->ring_owners[1];

	expect_for(owner, NAME_WORD(0, FIXTURE_ENTRIES), "I7");
	expect_for(owner, NAME_WORD(name.gen + 1, name.idx), "I7");
	expect_for(owner, NAME_WORD(state_gen(fixture_state(cache, free_entry())), free_entry()),
		   "I7");
	shm_store(owner, name_word(name));
	expect_nothing();
	ring_release(segment, name);
}
END_TEST

START_TEST(i8_blocks_of_cursors_belong_to_slots_in_use)
{
	shm_u64 *owner = &segment->block_owners[FIXTURE_BLOCKS - 1];

	expect_for(owner, NAME_WORD(0, free_slot()), "I8");
	expect_for(owner, NAME_WORD(0, FIXTURE_PEERS), "I8");
}
END_TEST

START_TEST(i8_a_block_without_an_owner_has_only_empty_cells)
{
	expect_for(&segment->blocks[FIXTURE_BLOCKS - 1].cursors[63].name, NAME_WORD(0, 0), "I8");
}
END_TEST

START_TEST(i8_cursors_name_an_entry_in_range)
{
	shm_u64 *owner = &segment->block_owners[FIXTURE_BLOCKS - 1];

	shm_store(owner, NAME_WORD(cache->seat->peer.gen, cache->seat->peer.slot));
	expect_for(&segment->blocks[FIXTURE_BLOCKS - 1].cursors[0].name,
		   NAME_WORD(0, FIXTURE_ENTRIES), "I8");
	shm_store(owner, 0);
}
END_TEST

START_TEST(i9_free_slots_have_no_pins)
{
	expect_for(&segment->peers[free_slot()].pins[SHM_PINS - 1].word, 2 << 1 | 1, "I9");
}
END_TEST

START_TEST(i9_no_pin_is_from_the_future)
{
	shm_u64 *pin = &cache->seat->peer.shared->pins[0].word;

	expect_for(pin, (epoch_now(segment) + 1) << 1 | 1, "I9");
	shm_store(pin, epoch_now(segment) << 1 | 1);
	expect_nothing();
	shm_store(pin, 0);
}
END_TEST

START_TEST(i10_a_free_entry_has_no_charge)
{
	expect_for(&segment->charges[free_entry()], 4096, "I10");
}
END_TEST

START_TEST(i10_no_budget_allows_more_than_its_limit)
{
	struct shm_header *h = segment->header;
	uint64_t bytes = shm_load(&h->bytes.ever), slots = shm_load(&h->slots.ever);

	shm_store(&h->settings[SETTING_MAX_BYTES], 1 << 20);
	shm_store(&h->settings[SETTING_MAX_ENTRIES], 10);
	expect_for(&h->bytes.until, bytes + (1 << 20) + 1, "I10");
	expect_for(&h->slots.until, slots + 11, "I10");
	shm_store(&h->bytes.until, bytes + (1 << 20));
	shm_store(&h->slots.until, 0);
	expect_nothing();
}
END_TEST

START_TEST(each_violation_counts)
{
	shm_u64 *first = &segment->peers[free_slot()].pins[0].word;
	shm_u64 *second = &segment->ring_owners[0];

	shm_store(first, 3);
	shm_store(second, NAME_WORD(9, 0));
	ck_assert_int_eq(scache_check(cache, note, &f), 2);
	ck_assert_ptr_nonnull(strstr(findings, "I7:"));
	ck_assert_ptr_nonnull(strstr(findings, "I9:"));
	shm_store(first, 0);
	shm_store(second, 0);
}
END_TEST

int main(void)
{
	const TTest *const tests[] = {
		a_fresh_segment_is_clean,
		a_segment_in_full_use_is_clean,
		i1_the_header_is_intact,
		i2_each_state_is_a_known_one,
		i2_a_free_entry_has_no_flags_and_no_owner,
		i3_who_owns_an_entry_has_a_slot,
		i4_a_finished_entry_is_in_the_chain_of_its_key,
		i4_no_two_findable_entries_have_one_key,
		i5_chains_stay_in_range,
		i5_chains_end,
		i5_chains_hold_nothing_that_is_not_in_use,
		i6_no_more_is_flushed_than_was_written,
		i6_what_passes_the_ring_is_flushed_a_moment_before,
		i6_a_finished_entry_is_flushed_whole,
		i6_no_byte_is_neither_in_the_ring_nor_in_the_file,
		i7_a_ring_belongs_to_a_living_entry_of_that_generation,
		i8_blocks_of_cursors_belong_to_slots_in_use,
		i8_a_block_without_an_owner_has_only_empty_cells,
		i8_cursors_name_an_entry_in_range,
		i9_free_slots_have_no_pins,
		i9_no_pin_is_from_the_future,
		i10_a_free_entry_has_no_charge,
		i10_no_budget_allows_more_than_its_limit,
		each_violation_counts,
	};

	return fixture_main("verify", setup, teardown, tests, ARRAY_COUNT(tests));
}
