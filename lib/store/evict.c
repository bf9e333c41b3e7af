/* SPDX-License-Identifier: MIT */
#include "store/evict.h"

#include <stdlib.h>

#include "base/step.h"
#include "store/sweep.h"

#define BATCH 64 /* that one walk over the table picks */

struct candidate {
	struct entry_name name;
	uint64_t ended_ns;
	uint64_t behind_ns; /* the hand, as it goes round */
};

/* The next few behind the hand: a heap, the furthest on top. */
struct batch {
	struct candidate heap[BATCH];
	uint32_t count;
	uint32_t seen; /* that it was picked from */
};

static void sift_down(struct batch *batch, uint32_t at)
{
	for (;;) {
		uint32_t child = 2 * at + 1;
		struct candidate swap = batch->heap[at];

		if (child >= batch->count)
			return;
		if (child + 1 < batch->count &&
		    batch->heap[child + 1].behind_ns > batch->heap[child].behind_ns)
			child++;
		if (batch->heap[child].behind_ns <= swap.behind_ns)
			return;
		batch->heap[at] = batch->heap[child];
		batch->heap[child] = swap;
		at = child;
	}
}

static void consider(struct batch *batch, const struct candidate *candidate)
{
	if (batch->count == BATCH) {
		if (candidate->behind_ns >= batch->heap[0].behind_ns)
			return;
		batch->heap[0] = *candidate;
		sift_down(batch, 0);
		return;
	}
	batch->heap[batch->count++] = *candidate;
	if (batch->count == BATCH)
		for (uint32_t i = BATCH / 2; i-- > 0;)
			sift_down(batch, i);
}

static int compare(const void *one, const void *other)
{
	const struct candidate *a = one, *b = other;

	return a->behind_ns < b->behind_ns ? -1 : a->behind_ns > b->behind_ns;
}

/* A bit for each entry that somebody reads; NULL without memory: then each is asked for. */
static uint64_t *find_read(const struct segment *segment)
{
	uint64_t *bits = calloc(segment->geometry.entries / 64 + 1, sizeof(*bits));

	if (bits == NULL)
		return NULL;
	for (uint32_t block = 0; block < segment->geometry.blocks; block++) {
		if (shm_load(&segment->block_owners[block]) == 0)
			continue;
		for (uint32_t i = 0; i < SHM_BLOCK_CURSORS; i++) {
			uint64_t name = shm_load(&segment->blocks[block].cursors[i].name);
			uint32_t idx = NAME_INDEX(name);

			if (name != 0 && idx < segment->geometry.entries)
				bits[idx / 64] |= 1ull << idx % 64;
		}
	}
	return bits;
}

static bool is_read(const struct segment *segment, const uint64_t *bits, struct entry_name name)
{
	struct cursor_survey survey;

	if (bits != NULL)
		return bits[name.idx / 64] >> name.idx % 64 & 1;
	cursor_survey(segment, name, &survey);
	return survey.count > 0;
}

static void pick(const struct segment *segment, const uint64_t *read, uint64_t hand_ns,
		 struct batch *batch)
{
	batch->count = batch->seen = 0;
	for (uint32_t idx = 0; idx < segment->geometry.entries; idx++) {
		uint64_t word = shm_load_relaxed(entry_state_word(segment, idx));
		struct candidate one = { .name = { .idx = idx, .gen = state_gen(word) } };

		if (state_of(word) != ENTRY_SEALED || state_is_hidden(word) ||
		    is_read(segment, read, one.name))
			continue;
		one.ended_ns = shm_load_relaxed(&entry_at(segment, idx)->ended_ns);
		/* Modulo 2^64: behind the newest comes the oldest. */
		one.behind_ns = one.ended_ns - hand_ns - 1;
		consider(batch, &one);
		batch->seen++;
	}
	qsort(batch->heap, batch->count, sizeof(batch->heap[0]), compare);
}

/* It was asked for: that is forgotten, and it stays this time. */
static bool is_spared(struct segment *segment, struct entry_name name)
{
	uint64_t use = shm_load_relaxed(&segment->uses[name.idx]);

	return use & USE_NOTED &&
	       shm_cas(&segment->uses[name.idx], use, use & ~(uint64_t)USE_NOTED);
}

static bool evict(struct store *store, struct entry_name name)
{
	if (!entry_hide(store->segment, name, ENTRY_SEALED))
		return false;
	peer_count(store->peer, STAT_EVICTED, 1);
	sweep_entry(store, name);
	return true;
}

/* Until @bytes are to be free, and @entries slots. Returns how many went. */
static uint64_t go_round(struct store *store, uint64_t bytes, uint64_t entries)
{
	struct segment *segment = store->segment;
	shm_u64 *hand = &segment->header->evict_hand;
	uint64_t freed = 0, gone = 0, looked = 0, *read = find_read(segment);
	struct batch batch;

	do {
		pick(segment, read, shm_load_relaxed(hand), &batch);
		for (uint32_t i = 0; i < batch.count && (freed < bytes || gone < entries); i++) {
			struct entry_name name = batch.heap[i].name;
			uint64_t charge = shm_load_relaxed(&segment->charges[name.idx]);

			looked++;
			shm_store_relaxed(hand, batch.heap[i].ended_ns);
			/* STEP evict-hand-moved: a hint. Die here: the next one goes on. */
			STEP("evict-hand-moved");
			if (is_spared(segment, name) || !evict(store, name))
				continue;
			freed += charge;
			gone++;
		}
		/* Once round may only have taken marks away. */
	} while ((freed < bytes || gone < entries) && batch.count > 0 && looked <= 2ull * batch.seen);
	free(read);
	return gone;
}

bool evict_bytes(struct store *store, uint64_t bytes)
{
	return go_round(store, bytes, 0) > 0;
}

uint64_t evict_entries(struct store *store, uint64_t count)
{
	return go_round(store, 0, count);
}
