/* SPDX-License-Identifier: MIT */
/* check_index - from key to entry, and what a damaged chain does. */
#include <errno.h>
#include <stdio.h>

#include "shm/epoch.h"
#include "store/sweep.h"
#include "../util/pair.h" /* last: its names are everyday words */

/* A key that falls into the bucket of @like: the hash is what we say it is. */
static struct index_key neighbour(const char *text, const struct index_key *like)
{
	struct index_key key = fixture_key(text);

	key.hash.low = like->hash.low;
	return key;
}

START_TEST(find_in_an_empty_index_misses)
{
	struct index_key key = fixture_key("nobody");
	struct entry_name name;

	ck_assert_int_eq(fixture_find(cache, &key, &name), 0);
}
END_TEST

START_TEST(what_one_process_links_another_finds)
{
	struct index_key key = fixture_key("shared");
	struct entry_name made = fixture_link(cache, &key), found;

	ck_assert_int_eq(fixture_find(other, &key, &found), 1);
	ck_assert_uint_eq(found.idx, made.idx);
	ck_assert_uint_eq(found.gen, made.gen);
	fixture_unmake(cache, made);
}
END_TEST

START_TEST(insert_behind_a_changed_head_fails)
{
	struct index_key key = fixture_key("ours"), theirs = neighbour("theirs", &key);
	struct entry_draft draft = { .key = key.key, .key_bytes = key.key_bytes, .hash = key.hash };
	struct entry_name mine, his, found;
	uint64_t state, head;
	unsigned pin = epoch_enter(&cache->seat->peer);

	ck_assert_int_eq(index_find(&cache->seat->peer, &key, &found, &state, &head), 0);
	his = fixture_link(other, &theirs);
	ck_assert_int_eq(entry_claim(&cache->seat->peer, &mine), 0);
	entry_fill(&cache->seat->peer, mine, &draft);
	entry_start(&cache->seat->peer, mine, 0);
	ck_assert(!index_insert(&cache->seat->peer, mine, &key, head));
	epoch_leave(&cache->seat->peer, pin);
	ck_assert_int_eq(fixture_find(cache, &key, &found), 0);
	sweep_give_back(&cache->seat->store, mine, ENTRY_FILLING, false);
	fixture_unmake(other, his);
}
END_TEST

START_TEST(many_keys_in_one_bucket_are_all_found)
{
	struct index_key keys[FIXTURE_ENTRIES];
	struct entry_name names[FIXTURE_ENTRIES], found;
	char texts[FIXTURE_ENTRIES][16];
	uint32_t i, j;

	for (i = 0; i < FIXTURE_ENTRIES; i++) {
		snprintf(texts[i], sizeof(texts[i]), "key %u", i);
		keys[i] = i == 0 ? fixture_key(texts[i]) : neighbour(texts[i], &keys[0]);
		names[i] = fixture_link(i % 2 ? cache : other, &keys[i]);
		ck_assert_ptr_eq(index_bucket(segment, keys[i].hash),
				 index_bucket(segment, keys[0].hash));
	}
	/* First the head, the tail and one between them, then the rest. */
	for (i = 0; i < FIXTURE_ENTRIES; i++) {
		uint32_t victim = (i * 7 + 15) % FIXTURE_ENTRIES;

		fixture_unmake(victim % 2 ? cache : other, names[victim]);
		names[victim].idx = UINT32_MAX;
		for (j = 0; j < FIXTURE_ENTRIES; j++) {
			int here = names[j].idx != UINT32_MAX;

			ck_assert_int_eq(fixture_find(cache, &keys[j], &found), here);
			if (here)
				ck_assert_uint_eq(found.idx, names[j].idx);
		}
	}
	ck_assert_uint_eq(shm_load(index_bucket(segment, keys[0].hash)), 0);
}
END_TEST

START_TEST(keys_with_one_hash_are_told_apart_by_their_bytes)
{
	struct index_key one = fixture_key("one"), two = fixture_key("two"), longer;
	struct entry_name first, second, found;

	two.hash = one.hash;
	longer = (struct index_key){ .key = "one\0", .key_bytes = 4, .hash = one.hash };
	first = fixture_link(cache, &one);
	second = fixture_link(cache, &two);
	ck_assert_int_eq(fixture_find(cache, &one, &found), 1);
	ck_assert_uint_eq(found.idx, first.idx);
	ck_assert_int_eq(fixture_find(cache, &two, &found), 1);
	ck_assert_uint_eq(found.idx, second.idx);
	/* The same bytes and one NUL more are another key. */
	ck_assert_int_eq(fixture_find(cache, &longer, &found), 0);
	fixture_unmake(cache, second);
	fixture_unmake(cache, first);
}
END_TEST

START_TEST(keys_of_one_and_of_255_bytes_may_be_all_nul)
{
	static const unsigned char nothing[255];
	uint32_t sizes[] = { 1, 7, 8, 9, 254, 255 }, i, j;
	struct index_key keys[ARRAY_COUNT(sizes)];
	struct entry_name names[ARRAY_COUNT(sizes)], found;
	unsigned char copy[256];

	for (i = 0; i < ARRAY_COUNT(sizes); i++) {
		/* One hash for all: only the length tells them apart. */
		keys[i] = (struct index_key){ .key = nothing, .key_bytes = sizes[i] };
		names[i] = fixture_link(cache, &keys[i]);
		for (j = 0; j <= i; j++) {
			ck_assert_int_eq(fixture_find(cache, &keys[j], &found), 1);
			ck_assert_uint_eq(found.idx, names[j].idx);
		}
		ck_assert_uint_eq(entry_copy_key(entry_at(segment, names[i].idx), copy), sizes[i]);
		ck_assert_mem_eq(copy, nothing, sizes[i]);
	}
	for (i = 0; i < ARRAY_COUNT(sizes); i++)
		fixture_unmake(cache, names[i]);
}
END_TEST

START_TEST(find_of_hidden_entry_misses_and_its_key_is_free)
{
	struct index_key key = fixture_key("twice");
	struct entry_name old = fixture_link(cache, &key), fresh, found;

	ck_assert(entry_hide(segment, old, ENTRY_FILLING));
	ck_assert(!entry_hide(segment, old, ENTRY_FILLING));
	ck_assert_int_eq(fixture_find(cache, &key, &found), 0);
	fresh = fixture_link(other, &key);
	ck_assert_int_eq(fixture_find(cache, &key, &found), 1);
	ck_assert_uint_eq(found.idx, fresh.idx);
	fixture_unmake(cache, old);
	ck_assert_int_eq(fixture_find(cache, &key, &found), 1);
	fixture_unmake(other, fresh);
}
END_TEST

START_TEST(find_of_evicted_key_misses)
{
	struct entry_name found;
	struct index_key key = fixture_key("evicted");

	fixture_produce(cache, "evicted", "bytes", 5);
	ck_assert_int_eq(fixture_find(other, &key, &found), 1);
	ck_assert_int_eq(scache_remove(other, "evicted", 7), 0);
	ck_assert_int_eq(fixture_find(cache, &key, &found), 0);
	ck_assert_int_eq(scache_remove(other, "evicted", 7), -ENOENT);
}
END_TEST

START_TEST(unlinking_is_idempotent_and_knows_the_generation)
{
	struct index_key key = fixture_key("unlinked"), before = neighbour("before", &key);
	struct entry_name first = fixture_link(cache, &before), name = fixture_link(cache, &key);
	struct entry_name later = { .idx = name.idx, .gen = name.gen + 1 }, found;

	ck_assert(entry_hide(segment, name, ENTRY_FILLING));
	/* Not this life: nothing is linked, and nothing happens. */
	ck_assert_int_eq(index_unlink(&cache->seat->peer, later), 0);
	ck_assert_uint_eq(shm_load(index_bucket(segment, key.hash)), name_word(name));
	ck_assert_int_eq(index_unlink(&cache->seat->peer, name), 0);
	ck_assert_int_eq(index_unlink(&other->seat->peer, name), 0);
	ck_assert_uint_eq(shm_load(index_bucket(segment, key.hash)), name_word(first));
	ck_assert_int_eq(fixture_find(cache, &before, &found), 1);
	fixture_unmake(cache, name);
	fixture_unmake(cache, first);
}
END_TEST

START_TEST(a_walker_finishes_the_removal_that_another_began)
{
	struct index_key key = fixture_key("marked"), tail = neighbour("tail", &key);
	struct entry_name last = fixture_link(cache, &tail), name = fixture_link(cache, &key), found;

	ck_assert(entry_hide(segment, name, ENTRY_FILLING));
	/* As a process leaves it that dies at the step index-marked. */
	shm_or(&entry_at(segment, name.idx)->next, LINK_MARK);
	ck_assert_int_eq(fixture_find(other, &tail, &found), 1);
	ck_assert_uint_eq(shm_load(index_bucket(segment, key.hash)), name_word(last));
	fixture_unmake(cache, name);
	fixture_unmake(cache, last);
}
END_TEST

/* --------------------------------------------------------------- damage */

/* Everything that walks the chain of @key says so, and ends. */
static void expect_damage(const struct index_key *key, struct entry_name name)
{
	struct entry_name found;
	struct scache_writer *writer;
	struct scache_reader *reader;

	f.damaged = true;
	ck_assert_int_eq(fixture_find(cache, key, &found), -EUCLEAN);
	entry_hide(segment, name, ENTRY_FILLING);
	ck_assert_int_eq(index_unlink(&cache->seat->peer, name), -EUCLEAN);
	ck_assert_int_ge(scache_check(cache, NULL, NULL), 1);
	/* A caller is not the one to suffer: it has the same from a new segment. */
	ck_assert_int_eq(scache_acquire(cache, key->key, key->key_bytes, NULL, &reader, &writer), 0);
	ck_assert_ptr_ne(cache->seat->peer.segment, segment);
	ck_assert_int_eq(scache_write(writer, "bytes", 5, 0), 5);
	ck_assert_int_eq(scache_finish(writer), 0);
	scache_writer_close(writer);
	scache_reader_close(reader);
	ck_assert_int_eq(scache_check(cache, NULL, NULL), 0);
}

START_TEST(a_link_out_of_range_is_damage)
{
	struct index_key key = fixture_key("damage"), wanted = neighbour("wanted", &key);
	struct entry_name name = fixture_link(cache, &key), found;

	f.damaged = true;
	shm_store(&entry_at(segment, name.idx)->next, LINK_MAKE(name.gen, FIXTURE_ENTRIES + 1));
	ck_assert_int_eq(fixture_find(cache, &wanted, &found), -EUCLEAN);
	shm_store(&entry_at(segment, name.idx)->next, LINK_MAKE(name.gen, 0x7fffffffu));
	ck_assert_int_eq(fixture_find(cache, &wanted, &found), -EUCLEAN);
}
END_TEST

START_TEST(a_head_out_of_range_is_damage)
{
	struct index_key key = fixture_key("damage");
	struct entry_name name = fixture_link(cache, &key);

	shm_store(index_bucket(segment, key.hash), NAME_WORD(name.gen, FIXTURE_ENTRIES));
	expect_damage(&key, name);
}
END_TEST

START_TEST(a_head_of_another_generation_is_damage)
{
	struct index_key key = fixture_key("damage");
	struct entry_name name = fixture_link(cache, &key);

	shm_store(index_bucket(segment, key.hash), NAME_WORD(name.gen + 1, name.idx));
	expect_damage(&key, name);
}
END_TEST

START_TEST(a_head_that_leads_to_a_free_entry_is_damage)
{
	struct index_key key = fixture_key("damage");
	struct entry_name name = fixture_link(cache, &key);

	shm_store(entry_state_word(segment, name.idx), state_make(name.gen, ENTRY_FREE, 0, 0));
	expect_damage(&key, name);
}
END_TEST

START_TEST(a_link_of_another_life_of_its_node_is_damage)
{
	struct index_key key = fixture_key("damage");
	struct entry_name name = fixture_link(cache, &key), found;

	shm_store(&entry_at(segment, name.idx)->next, LINK_MAKE(name.gen + 1, 0));
	f.damaged = true;
	ck_assert_int_eq(fixture_find(cache, &key, &found), -EUCLEAN);
}
END_TEST

START_TEST(a_chain_without_an_end_is_damage)
{
	struct index_key key = fixture_key("damage"), second = neighbour("second", &key);
	struct index_key wanted = neighbour("wanted", &key);
	struct entry_name name = fixture_link(cache, &key), next = fixture_link(cache, &second);
	struct entry_name found;

	/* next -> name -> next -> ... */
	shm_store(&entry_at(segment, name.idx)->next, LINK_MAKE(name.gen, next.idx + 1));
	f.damaged = true;
	ck_assert_int_eq(fixture_find(cache, &wanted, &found), -EUCLEAN);
	ck_assert(entry_hide(segment, name, ENTRY_FILLING));
	ck_assert(entry_hide(segment, next, ENTRY_FILLING));
	/* What is not in the circle is found nevertheless, and walks end. */
	ck_assert_int_eq(fixture_find(cache, &key, &found), -EUCLEAN);
}
END_TEST

START_TEST(an_impossible_length_of_a_key_matches_nothing)
{
	struct index_key key = fixture_key("length");
	struct entry_name name = fixture_link(cache, &key), found;
	unsigned char copy[256];

	shm_store_relaxed(&entry_at(segment, name.idx)->key_bytes, 256);
	ck_assert_int_eq(fixture_find(cache, &key, &found), 0);
	ck_assert_uint_eq(entry_copy_key(entry_at(segment, name.idx), copy), 0);
	fixture_unmake(cache, name);
}
END_TEST

int main(void)
{
	const TTest *const tests[] = {
		find_in_an_empty_index_misses,
		what_one_process_links_another_finds,
		insert_behind_a_changed_head_fails,
		many_keys_in_one_bucket_are_all_found,
		keys_with_one_hash_are_told_apart_by_their_bytes,
		keys_of_one_and_of_255_bytes_may_be_all_nul,
		find_of_hidden_entry_misses_and_its_key_is_free,
		find_of_evicted_key_misses,
		unlinking_is_idempotent_and_knows_the_generation,
		a_walker_finishes_the_removal_that_another_began,
		a_link_out_of_range_is_damage,
		a_head_out_of_range_is_damage,
		a_head_of_another_generation_is_damage,
		a_head_that_leads_to_a_free_entry_is_damage,
		a_link_of_another_life_of_its_node_is_damage,
		a_chain_without_an_end_is_damage,
		an_impossible_length_of_a_key_matches_nothing,
	};

	return fixture_main("index", setup, teardown, tests, ARRAY_COUNT(tests));
}
