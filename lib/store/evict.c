/* SPDX-License-Identifier: MIT */
#include "store/evict.h"

#include <stdlib.h>

#include "base/step.h"
#include "store/sweep.h"

#define BATCH_MIN 64u /* what one walk over the table picks: of a large one */
#define BATCH_MAX 4096u
#define BATCH_PART 64 /* more, for such a walk is long */

struct candidate {
	struct entry_name name;
	uint64_t ended_ns;
	uint64_t behind_ns; /* the hand, as it goes round */
};

/* The next ones behind the hand: a heap, the furthest on top. */
struct batch {
	uint32_t count, room;
	uint32_t seen;	/* that it was picked from */
	uint64_t *read; /* a bit for each entry that somebody reads */
	struct candidate heap[];
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
	if (batch->count == batch->room) {
		if (candidate->behind_ns >= batch->heap[0].behind_ns)
			return;
		batch->heap[0] = *candidate;
		sift_down(batch, 0);
		return;
	}
	batch->heap[batch->count++] = *candidate;
	if (batch->count == batch->room)
		for (uint32_t i = batch->room / 2; i-- > 0;)
			sift_down(batch, i);
}

static int compare(const void *one, const void *other)
{
	const struct candidate *a = one, *b = other;

	return a->behind_ns < b->behind_ns ? -1 : a->behind_ns > b->behind_ns;
}

static struct batch *new_batch(const struct segment *segment)
{
	uint32_t room = segment->geometry.entries / BATCH_PART;
	struct batch *batch;

	room = room < BATCH_MIN ? BATCH_MIN : room > BATCH_MAX ? BATCH_MAX : room;
	batch = malloc(sizeof(*batch) + room * sizeof(batch->heap[0]));
	if (batch == NULL)
		return NULL;
	batch->room = room;
	batch->read = calloc(segment->geometry.entries / 64 + 1, sizeof(*batch->read));
	if (batch->read != NULL)
		return batch;
	free(batch);
	return NULL;
}

static void free_batch(struct batch *batch)
{
	free(batch->read);
	free(batch);
}

static void find_read(const struct segment *segment, struct batch *batch)
{
	for (uint32_t block = 0; block < segment->geometry.blocks; block++) {
		if (shm_load(&segment->block_owners[block]) == 0)
			continue;
		for (uint32_t i = 0; i < SHM_BLOCK_CURSORS; i++) {
			uint64_t name = shm_load_relaxed(&segment->blocks[block].cursors[i].name);
			uint32_t idx = NAME_INDEX(name);

			if (name != 0 && idx < segment->geometry.entries)
				batch->read[idx / 64] |= 1ull << idx % 64;
		}
	}
}

static void pick(const struct segment *segment, uint64_t hand_ns, struct batch *batch)
{
	batch->count = batch->seen = 0;
	for (uint32_t idx = 0; idx < segment->geometry.entries; idx++) {
		uint64_t word = shm_load_relaxed(entry_state_word(segment, idx));
		struct candidate one = { .name = { .idx = idx, .gen = state_gen(word) } };

		if (state_of(word) != ENTRY_SEALED || state_is_hidden(word) ||
		    batch->read[idx / 64] >> idx % 64 & 1)
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

uint64_t evict_some(struct store *store, uint64_t bytes, uint64_t entries)
{
	struct segment *segment = store->segment;
	shm_u64 *hand = &segment->header->evict_hand;
	struct batch *batch = new_batch(segment);
	uint64_t freed = 0, gone = 0, looked = 0;

	if (batch == NULL)
		return 0;
	find_read(segment, batch);
	do {
		pick(segment, shm_load_relaxed(hand), batch);
		for (uint32_t i = 0; i < batch->count && (freed < bytes || gone < entries); i++) {
			struct entry_name name = batch->heap[i].name;
			uint64_t charge = shm_load_relaxed(&segment->charges[name.idx]);

			looked++;
			shm_store_relaxed(hand, batch->heap[i].ended_ns);
			/* STEP evict-hand-moved: a hint. Die here: the next one goes on. */
			STEP("evict-hand-moved");
			if (is_spared(segment, name) || !evict(store, name))
				continue;
			freed += charge;
			gone++;
		}
		/* Once round may only have taken marks away. */
	} while (gone == 0 && (bytes > 0 || entries > 0) && batch->count > 0 &&
		 looked <= 2ull * batch->seen);
	free_batch(batch);
	return gone;
}
