/* SPDX-License-Identifier: MIT */
#include "index/cursor.h"

#include <errno.h>
#include <stdlib.h>

#include "base/check.h"
#include "base/step.h"
#include "shm/wait.h"

void cursor_space_init(struct cursor_space *space)
{
	*space = (struct cursor_space){ .count = 0 };
	pthread_mutex_init(&space->mutex, NULL);
}

void cursor_space_forget(struct cursor_space *space)
{
	free(space->blocks);
	free(space->taken);
	*space = (struct cursor_space){ .count = 0 };
}

void cursor_space_leave(struct cursor_space *space, struct peer *peer)
{
	for (uint32_t i = 0; i < space->count; i++) {
		SC_ASSERT(space->taken[i] == 0);
		shm_store(&peer->segment->block_owners[space->blocks[i]], 0);
		/* STEP block-freed: others of ours remain. Die here: our reaper frees them. */
		STEP("block-freed");
	}
	pthread_mutex_destroy(&space->mutex);
	cursor_space_forget(space);
}

/* Own one more block. Only here do processes meet: once per 64 readers. */
static int grow(struct cursor_space *space, struct peer *peer)
{
	struct segment *segment = peer->segment;
	uint32_t count = segment->geometry.blocks, start = peer->slot % count, i;

	if (space->count == space->room) {
		uint32_t room = space->room == 0 ? 4 : space->room * 2;
		uint32_t *blocks = realloc(space->blocks, room * sizeof(*blocks));
		uint64_t *taken;

		if (blocks == NULL)
			return -ENOMEM;
		space->blocks = blocks;
		taken = realloc(space->taken, room * sizeof(*taken));
		if (taken == NULL)
			return -ENOMEM;
		space->taken = taken;
		space->room = room;
	}
	for (i = 0; i < count; i++) {
		uint32_t block = (start + i) % count;

		if (shm_load_relaxed(&segment->block_owners[block]) != 0 ||
		    !shm_cas(&segment->block_owners[block], 0, NAME_WORD(peer->gen, peer->slot)))
			continue;
		/* STEP block-owned: its cells are 0. Die here: our reaper frees it. */
		STEP("block-owned");
		space->blocks[space->count] = block;
		space->taken[space->count++] = 0;
		return 0;
	}
	return -ENOSPC;
}

/*
 * The n-th cell of a block to hand out: first one of each cache line, so that
 * a few readers in a few threads do not share lines.
 */
static uint32_t nth_cell(uint32_t n)
{
	return n % 16 * 4 + n / 16;
}

int cursor_take(struct cursor_space *space, struct peer *peer, uint32_t *ret_cell)
{
	uint32_t i;
	int ret = 0;

	pthread_mutex_lock(&space->mutex);
	for (i = 0; i < space->count; i++)
		if (space->taken[i] != UINT64_MAX)
			break;
	if (i == space->count)
		ret = grow(space, peer);
	if (ret == 0) {
		uint32_t n = (uint32_t)__builtin_ctzll(~space->taken[i]);

		space->taken[i] |= 1ull << n;
		*ret_cell = space->blocks[i] * SHM_BLOCK_CURSORS + nth_cell(n);
	}
	pthread_mutex_unlock(&space->mutex);
	return ret;
}

void cursor_give_back(struct cursor_space *space, uint32_t cell)
{
	uint32_t within = cell % SHM_BLOCK_CURSORS, n = within / 4 + within % 4 * 16, i;

	pthread_mutex_lock(&space->mutex);
	for (i = 0; i < space->count; i++)
		if (space->blocks[i] == cell / SHM_BLOCK_CURSORS)
			break;
	SC_ASSERT(i < space->count && space->taken[i] & 1ull << n);
	space->taken[i] &= ~(1ull << n);
	pthread_mutex_unlock(&space->mutex);
}

void cursor_publish(struct segment *segment, uint32_t cell, struct entry_name name)
{
	struct shm_cursor *cursor = cursor_at(segment, cell);

	/* The position first: a scan that sees the name must not see an old position. */
	shm_store_release(&cursor->position, 0);
	/* STEP cursor-reset: a cell that names nothing. Die here: our reaper frees its block. */
	STEP("cursor-reset");
	/* ORDER door, seq_cst: cursor before the second look at the state. Pairs with entry_hide(). */
	shm_store(&cursor->name, name_word(name));
	/* STEP cursor-set: the entry cannot be reused. Die here: our reaper clears it. */
	STEP("cursor-set");
}

bool cursor_attach(struct segment *segment, uint32_t cell, struct entry_name name,
		   uint64_t *ret_state)
{
	struct shm_entry *entry = entry_at(segment, name.idx);
	uint64_t word;

	cursor_publish(segment, cell, name);
	word = shm_load(entry_state_word(segment, name.idx));
	if (state_gen(word) != name.gen || !state_is_findable(word)) {
		shm_store(&cursor_at(segment, cell)->name, 0);
		/*
		 * STEP cursor-withdrawn: as if we had not come. Die here: our reaper frees its
		 * block.
		 */
		STEP("cursor-withdrawn");
		return false;
	}
	if (shm_load_relaxed(&entry->had_reader) == 0)
		shm_store(&entry->had_reader, 1);
	/*
	 * STEP reader-attached: the door cannot close unseen. Die here: our reaper clears the
	 * cursor.
	 */
	STEP("reader-attached");
	*ret_state = word;
	return true;
}

void cursor_detach(struct peer *peer, uint32_t cell, struct entry_name name)
{
	struct shm_entry *entry = entry_at(peer->segment, name.idx);
	uint64_t word = shm_load(entry_state_word(peer->segment, name.idx));

	/* ORDER left, seq_cst: the cursor before others are looked for. Pairs with leave_hide(). */
	shm_store(&cursor_at(peer->segment, cell)->name, 0);
	/* STEP cursor-cleared: the writer does not know. Die here: it looks at its tick. */
	STEP("cursor-cleared");
	/* It has no writer any more: two barriers less in every hit. */
	if (state_gen(word) == name.gen && state_of(word) == ENTRY_SEALED)
		return;
	/*
	 * The entry may be reused from here on; a raised flag or a wake that hits
	 * its next life makes somebody look once for nothing.
	 */
	shm_store(&entry->attention, 1);
	/* STEP attention-raised: the writer may sleep on. Die here: it looks at its tick. */
	STEP("attention-raised");
	peer_count(peer, STAT_WAKES, (uint64_t)wait_announce(&entry->writer_event));
}

bool cursor_is_attached(const struct segment *segment, uint32_t cell, struct entry_name name)
{
	return shm_load(&cursor_at(segment, cell)->name) == name_word(name);
}

void cursor_survey(const struct segment *segment, struct entry_name name,
		   struct cursor_survey *ret_survey)
{
	cursor_survey_from(segment, name, 0, ret_survey);
}

void cursor_survey_from(const struct segment *segment, struct entry_name name, uint64_t from,
			struct cursor_survey *ret_survey)
{
	struct cursor_survey s = { .fastest_cell = CURSOR_NONE, .slowest = UINT64_MAX };
	uint64_t wanted = name_word(name);
	uint32_t block, i;

	for (block = 0; block < segment->geometry.blocks; block++) {
		if (shm_load(&segment->block_owners[block]) == 0)
			continue;
		for (i = 0; i < SHM_BLOCK_CURSORS; i++) {
			struct shm_cursor *cursor = &segment->blocks[block].cursors[i];
			uint64_t position;

			if (shm_load(&cursor->name) != wanted)
				continue;
			position = shm_load(&cursor->position);
			/* Still its own: a cell may have changed hands in between. */
			if (shm_load(&cursor->name) != wanted || position < from)
				continue;
			s.sum += position;
			if (s.count++ == 0 || position > s.fastest) {
				s.fastest = position;
				s.fastest_cell = block * SHM_BLOCK_CURSORS + i;
			}
			s.slowest = min_u64(s.slowest, position);
		}
	}
	*ret_survey = s;
}

bool cursor_block_names(const struct segment *segment, uint32_t block, struct entry_name name)
{
	uint64_t wanted = name_word(name);

	for (uint32_t i = 0; i < SHM_BLOCK_CURSORS; i++)
		if (shm_load(&segment->blocks[block].cursors[i].name) == wanted)
			return true;
	return false;
}

void cursor_override_stopped(struct segment *segment, struct entry_name name)
{
	for (uint32_t block = 0; block < segment->geometry.blocks; block++) {
		uint64_t owner = shm_load(&segment->block_owners[block]);

		if (owner == 0 || !cursor_block_names(segment, block, name) ||
		    !peer_is_stopped(segment, NAME_INDEX(owner)))
			continue;
		/* When it goes on it may be in the midst of a view of the file. */
		shm_or(&entry_at(segment, name.idx)->flags, ENTRY_KEEP_BYTES);
		for (uint32_t i = 0; i < SHM_BLOCK_CURSORS; i++)
			shm_cas(&segment->blocks[block].cursors[i].name, name_word(name), 0);
		/* STEP cursor-overridden: it is not protected any more. Die here: any sweep goes on. */
		STEP("cursor-overridden");
	}
}

/* Tell the writer of what a dead reader read that there is one reader less. */
static void raise_attention(struct peer *reaper, uint64_t word)
{
	uint32_t idx = NAME_INDEX(word);
	struct shm_entry *entry;

	if (idx >= reaper->segment->geometry.entries)
		return;
	entry = entry_at(reaper->segment, idx);
	shm_store(&entry->attention, 1);
	peer_count(reaper, STAT_WAKES, (uint64_t)wait_announce(&entry->writer_event));
}

void cursor_reap(struct peer *reaper, uint32_t slot)
{
	struct segment *segment = reaper->segment;
	uint32_t block, i;

	for (block = 0; block < segment->geometry.blocks; block++) {
		uint64_t owner = shm_load(&segment->block_owners[block]);

		if (owner == 0 || NAME_INDEX(owner) != slot)
			continue;
		for (i = 0; i < SHM_BLOCK_CURSORS; i++) {
			struct shm_cursor *cursor = &segment->blocks[block].cursors[i];
			uint64_t word = shm_load(&cursor->name);

			if (word == 0)
				continue;
			shm_store(&cursor->name, 0);
			/* STEP reap-cursor: others of the block remain. Die here: reaped again. */
			STEP("reap-cursor");
			raise_attention(reaper, word);
		}
		/* Cells before the owner: a block without an owner has only empty cells. */
		shm_store(&segment->block_owners[block], 0);
		/* STEP reap-block: the block is anybody's. Die here: reaped again, for the rest. */
		STEP("reap-block");
	}
}
