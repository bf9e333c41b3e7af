/* SPDX-License-Identifier: MIT */
/* check_cursor - who reads what: cells, surveys, and both ways through the door. */
#include <errno.h>
#include "../util/pair.h" /* last: its names are everyday words */


static uint32_t take(struct scache *by)
{
	uint32_t cell;

	ck_assert_int_eq(cursor_take(&by->seat->cursors, &by->seat->peer, &cell), 0);
	return cell;
}

static unsigned blocks_of(const struct scache *whose)
{
	unsigned count = 0;

	for (uint32_t i = 0; i < FIXTURE_BLOCKS; i++) {
		uint64_t owner = shm_load(&segment->block_owners[i]);

		count += owner != 0 && NAME_INDEX(owner) == whose->seat->peer.slot;
	}
	return count;
}

START_TEST(one_to_two_hundred_cells_are_all_different)
{
	uint32_t cells[200];
	bool seen[FIXTURE_BLOCKS * SHM_BLOCK_CURSORS] = { false };

	for (unsigned i = 0; i < ARRAY_COUNT(cells); i++) {
		uint64_t owner;

		cells[i] = take(cache);
		ck_assert_uint_lt(cells[i], ARRAY_COUNT(seen));
		ck_assert(!seen[cells[i]]);
		seen[cells[i]] = true;
		owner = shm_load(&segment->block_owners[cells[i] / SHM_BLOCK_CURSORS]);
		ck_assert_uint_eq(owner, NAME_WORD(cache->seat->peer.gen, cache->seat->peer.slot));
		ck_assert_uint_eq(blocks_of(cache), i / SHM_BLOCK_CURSORS + 1);
	}
	for (unsigned i = 0; i < ARRAY_COUNT(cells); i++)
		cursor_give_back(&cache->seat->cursors, cells[i]);
	/* What came back is handed out again before there is another block. */
	for (unsigned i = 0; i < ARRAY_COUNT(cells); i++)
		cells[i] = take(cache);
	ck_assert_uint_eq(blocks_of(cache), 4);
	for (unsigned i = 0; i < ARRAY_COUNT(cells); i++)
		cursor_give_back(&cache->seat->cursors, cells[i]);
}
END_TEST

START_TEST(the_first_readers_share_no_cache_line)
{
	uint32_t cells[16];

	for (unsigned i = 0; i < ARRAY_COUNT(cells); i++)
		cells[i] = take(cache);
	for (unsigned i = 0; i < ARRAY_COUNT(cells); i++)
		for (unsigned j = 0; j < i; j++)
			ck_assert_uint_ne(cells[i] * sizeof(struct shm_cursor) / CACHE_LINE_BYTES,
					  cells[j] * sizeof(struct shm_cursor) / CACHE_LINE_BYTES);
	for (unsigned i = 0; i < ARRAY_COUNT(cells); i++)
		cursor_give_back(&cache->seat->cursors, cells[i]);
}
END_TEST

START_TEST(cells_are_used_up_and_come_back_when_a_process_leaves)
{
	const uint32_t all = FIXTURE_BLOCKS * SHM_BLOCK_CURSORS;
	uint32_t cells[FIXTURE_BLOCKS * SHM_BLOCK_CURSORS], one_more;
	struct scache_reader *reader = NULL;
	struct scache_writer *writer = NULL;

	for (uint32_t i = 0; i < all; i++)
		cells[i] = take(other);
	ck_assert_int_eq(cursor_take(&cache->seat->cursors, &cache->seat->peer, &one_more), -ENOSPC);
	ck_assert_int_eq(cursor_take(&other->seat->cursors, &other->seat->peer, &one_more), -ENOSPC);
	/* A caller produces for itself then. */
	ck_assert_int_eq(scache_acquire(cache, "k", 1, NULL, &reader, &writer), SCACHE_BYPASS);
	ck_assert_ptr_null(reader);
	ck_assert_ptr_null(writer);
	for (uint32_t i = 0; i < all; i++)
		cursor_give_back(&other->seat->cursors, cells[i]);
	/* Blocks stay their process's until it leaves. */
	ck_assert_int_eq(cursor_take(&cache->seat->cursors, &cache->seat->peer, &one_more), -ENOSPC);
	fixture_close(&f, other);
	cursor_give_back(&cache->seat->cursors, take(cache));
}
END_TEST

START_TEST(cells_of_the_dead_are_had_when_there_are_no_others)
{
	struct scache_reader *reader;
	struct scache_writer *writer;

	for (uint32_t i = 0; i < FIXTURE_BLOCKS * SHM_BLOCK_CURSORS; i++)
		take(other);
	fixture_kill(&f, other);
	ck_assert_int_eq(scache_acquire(cache, "k", 1, NULL, &reader, &writer), 0);
	ck_assert_ptr_nonnull(writer);
	scache_writer_close(writer);
	scache_reader_close(reader);
}
END_TEST

/* ------------------------------------------------------------------- survey */

START_TEST(a_survey_of_nobody_is_empty)
{
	struct entry_name name = { .idx = 3, .gen = 0 };
	struct cursor_survey survey;

	cursor_survey(segment, name, &survey);
	ck_assert_uint_eq(survey.count, 0);
	ck_assert_uint_eq(survey.fastest_cell, CURSOR_NONE);
	/* Slot 0 of generation 0 is a name like any other, and no empty cell has it. */
	name.idx = 0;
	take(cache);
	cursor_survey(segment, name, &survey);
	ck_assert_uint_eq(survey.count, 0);
	cursor_give_back(&cache->seat->cursors, cache->seat->cursors.blocks[0] * SHM_BLOCK_CURSORS);
}
END_TEST

START_TEST(a_survey_finds_the_fastest_and_the_slowest_of_one_entry)
{
	static const uint64_t positions[] = { 50, 0, 70, 70, 3 };
	struct entry_name name = { .idx = 5, .gen = 9 }, other_gen = { .idx = 5, .gen = 10 };
	uint32_t cells[ARRAY_COUNT(positions)], stranger = take(other);
	struct cursor_survey survey;

	cursor_publish(segment, stranger, other_gen);
	shm_store(&cursor_at(segment, stranger)->position, 1000);
	for (unsigned i = 0; i < ARRAY_COUNT(positions); i++) {
		struct scache *by = i % 2 ? cache : other;

		cells[i] = take(by);
		cursor_publish(segment, cells[i], name);
		ck_assert(cursor_is_attached(segment, cells[i], name));
		ck_assert(!cursor_is_attached(segment, cells[i], other_gen));
		shm_store(&cursor_at(segment, cells[i])->position, positions[i]);
	}
	cursor_survey(segment, name, &survey);
	ck_assert_uint_eq(survey.count, ARRAY_COUNT(positions));
	ck_assert_uint_eq(survey.slowest, 0);
	ck_assert_uint_eq(survey.fastest, 70);
	ck_assert(survey.fastest_cell == cells[2] || survey.fastest_cell == cells[3]);
	for (unsigned i = 0; i < ARRAY_COUNT(positions); i++) {
		struct scache *by = i % 2 ? cache : other;

		cursor_detach(&by->seat->peer, cells[i], name);
		cursor_give_back(&by->seat->cursors, cells[i]);
	}
	cursor_survey(segment, name, &survey);
	ck_assert_uint_eq(survey.count, 0);
	cursor_survey(segment, other_gen, &survey);
	ck_assert_uint_eq(survey.count, 1);
	ck_assert_uint_eq(survey.fastest_cell, stranger);
	cursor_detach(&other->seat->peer, stranger, other_gen);
	cursor_give_back(&other->seat->cursors, stranger);
}
END_TEST

START_TEST(publishing_forgets_the_position_of_the_last_reader)
{
	struct entry_name name = { .idx = 5, .gen = 9 };
	uint32_t cell = take(cache);

	shm_store(&cursor_at(segment, cell)->position, 77);
	cursor_publish(segment, cell, name);
	ck_assert_uint_eq(shm_load(&cursor_at(segment, cell)->position), 0);
	cursor_detach(&cache->seat->peer, cell, name);
	cursor_give_back(&cache->seat->cursors, cell);
}
END_TEST

/* --------------------------------------------------------------------- door */

START_TEST(through_an_open_door_one_is_attached_and_counted)
{
	struct index_key key = fixture_key("k");
	struct entry_name name = fixture_link(cache, &key);
	uint32_t cell = take(other);
	uint64_t state = 0;

	ck_assert_uint_eq(shm_load(&entry_at(segment, name.idx)->had_reader), 0);
	ck_assert(cursor_attach(segment, cell, name, &state));
	ck_assert_uint_eq(state, fixture_state(cache, name.idx));
	ck_assert(cursor_is_attached(segment, cell, name));
	ck_assert_uint_eq(shm_load(&entry_at(segment, name.idx)->had_reader), 1);
	ck_assert_uint_eq(shm_load(&entry_at(segment, name.idx)->attention), 0);
	cursor_detach(&other->seat->peer, cell, name);
	ck_assert(!cursor_is_attached(segment, cell, name));
	ck_assert_uint_eq(shm_load(&entry_at(segment, name.idx)->attention), 1);
	cursor_give_back(&other->seat->cursors, cell);
	fixture_unmake(cache, name);
}
END_TEST

START_TEST(before_a_closed_door_one_withdraws)
{
	struct index_key key = fixture_key("k");
	struct entry_name name = fixture_link(cache, &key), later = { name.idx, name.gen + 1 };
	uint32_t cell = take(other);
	uint64_t state = 77;

	/* Another life of the slot is another door. */
	ck_assert(!cursor_attach(segment, cell, later, &state));
	ck_assert(entry_hide(segment, name, ENTRY_FILLING));
	ck_assert(!cursor_attach(segment, cell, name, &state));
	ck_assert_uint_eq(state, 77);
	ck_assert_uint_eq(shm_load(&cursor_at(segment, cell)->name), 0);
	ck_assert_uint_eq(shm_load(&entry_at(segment, name.idx)->had_reader), 0);
	cursor_give_back(&other->seat->cursors, cell);
	fixture_unmake(cache, name);
}
END_TEST

START_TEST(reaping_clears_every_cell_and_the_blocks)
{
	struct index_key key = fixture_key("k");
	struct entry_name name = fixture_link(cache, &key);
	struct cursor_survey survey;
	uint64_t state;
	uint32_t slot = other->seat->peer.slot;

	for (unsigned i = 0; i < 2 * SHM_BLOCK_CURSORS; i++)
		ck_assert(cursor_attach(segment, take(other), name, &state));
	/* A cell of a damaged name must not lead the reaper out of the segment. */
	shm_store(&cursor_at(segment, other->seat->cursors.blocks[0] * SHM_BLOCK_CURSORS)->name,
		  UINT64_MAX);
	fixture_kill(&f, other);
	cursor_reap(&cache->seat->peer, slot);
	cursor_survey(segment, name, &survey);
	ck_assert_uint_eq(survey.count, 0);
	ck_assert_uint_eq(shm_load(&entry_at(segment, name.idx)->attention), 1);
	for (uint32_t i = 0; i < FIXTURE_BLOCKS; i++)
		ck_assert_uint_eq(shm_load(&segment->block_owners[i]), 0);
	for (uint32_t i = 0; i < FIXTURE_BLOCKS * SHM_BLOCK_CURSORS; i++)
		ck_assert_uint_eq(shm_load(&cursor_at(segment, i)->name), 0);
	fixture_unmake(cache, name);
}
END_TEST

int main(void)
{
	const TTest *const tests[] = {
		one_to_two_hundred_cells_are_all_different,
		the_first_readers_share_no_cache_line,
		cells_are_used_up_and_come_back_when_a_process_leaves,
		cells_of_the_dead_are_had_when_there_are_no_others,
		a_survey_of_nobody_is_empty,
		a_survey_finds_the_fastest_and_the_slowest_of_one_entry,
		publishing_forgets_the_position_of_the_last_reader,
		through_an_open_door_one_is_attached_and_counted,
		before_a_closed_door_one_withdraws,
		reaping_clears_every_cell_and_the_blocks,
	};

	return fixture_main("cursor", setup, teardown, tests, ARRAY_COUNT(tests));
}
