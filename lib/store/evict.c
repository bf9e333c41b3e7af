/* SPDX-License-Identifier: MIT */
#include "store/evict.h"

#include <errno.h>
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
	uint32_t seen; /* that it was picked from */
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
	if (batch != NULL)
		batch->room = room;
	return batch;
}

/* One round of the hand. */
struct round {
	struct store *store;
	const struct evict_watch *watch; /* or NULL */
	struct evict_dry *dry; /* or NULL */
	struct batch *batch;
	uint64_t *read; /* a bit for each entry that somebody reads */
	uint64_t hand_ns;
};

static bool round_begin(struct round *round)
{
	const struct segment *segment = round->store->segment;

	round->batch = new_batch(segment);
	round->read = entry_bits_new(segment);
	return round->batch != NULL && round->read != NULL;
}

static void round_end(struct round *round)
{
	free(round->read);
	free(round->batch);
}

static void find_read(const struct round *round)
{
	const struct segment *segment = round->store->segment;

	for (uint32_t block = 0; block < segment->geometry.blocks; block++) {
		if (shm_load(&segment->block_owners[block]) == 0)
			continue;
		for (uint32_t i = 0; i < SHM_BLOCK_CURSORS; i++) {
			uint64_t name = shm_load_relaxed(&segment->blocks[block].cursors[i].name);
			uint32_t idx = NAME_INDEX(name);

			if (name != 0 && idx < segment->geometry.entries)
				entry_bit_set(round->read, idx);
		}
	}
}

static void pick(const struct round *round)
{
	const struct segment *segment = round->store->segment;
	struct batch *batch = round->batch;

	batch->count = batch->seen = 0;
	for (uint32_t idx = 0; idx < segment->geometry.entries; idx++) {
		uint64_t word = shm_load_relaxed(entry_state_word(segment, idx));
		struct candidate one = { .name = { .idx = idx, .gen = state_gen(word) } };

		if (state_of(word) != ENTRY_SEALED || state_is_hidden(word) ||
		    entry_bit(round->read, idx) ||
		    (round->dry != NULL && entry_bit(round->dry->as_gone, idx)))
			continue;
		one.ended_ns = shm_load_relaxed(&entry_at(segment, idx)->ended_ns);
		/* Modulo 2^64: behind the newest comes the oldest. */
		one.behind_ns = one.ended_ns - round->hand_ns - 1;
		consider(batch, &one);
		batch->seen++;
	}
	qsort(batch->heap, batch->count, sizeof(batch->heap[0]), compare);
}

static void move_hand(struct round *round, uint64_t to_ns)
{
	if (round->dry != NULL) {
		round->dry->hand_ns = to_ns;
		return;
	}
	shm_store_relaxed(&round->store->segment->header->evict_hand, to_ns);
	/* STEP evict-hand-moved: a hint. Die here: the next one goes on. */
	STEP("evict-hand-moved");
}

/* It was asked for: that is forgotten, and it stays this time. */
static bool is_spared(const struct round *round, struct entry_name name)
{
	shm_u64 *at = &round->store->segment->uses[name.idx];
	uint64_t use = shm_load_relaxed(at);

	if (!(use & USE_NOTED))
		return false;
	if (round->dry == NULL)
		return shm_cas(at, use, use & ~(uint64_t)USE_NOTED);
	if (entry_bit(round->dry->unmarked, name.idx))
		return false;
	entry_bit_set(round->dry->unmarked, name.idx);
	return true;
}

static bool evict(const struct round *round, struct entry_name name, uint64_t charge)
{
	struct store *store = round->store;
	unsigned char key[256];
	uint32_t key_bytes = 0;

	/* Its key as long as it is its own. */
	if (round->watch != NULL)
		key_bytes = entry_copy_key(entry_at(store->segment, name.idx), key);
	if (round->dry != NULL) {
		entry_bit_set(round->dry->as_gone, name.idx);
	} else {
		if (!entry_hide(store->segment, name, ENTRY_SEALED))
			return false;
		peer_count(store->peer, STAT_EVICTED, 1);
		sweep_entry(store, name);
	}
	if (round->watch != NULL)
		round->watch->gone(round->watch->arg, key, key_bytes, charge);
	return true;
}

static uint64_t go_round(struct round *round, uint64_t bytes, uint64_t entries)
{
	struct segment *segment = round->store->segment;
	struct batch *batch = round->batch;
	uint64_t freed = 0, gone = 0, looked = 0;

	find_read(round);
	do {
		/* Others move it as well. */
		round->hand_ns = round->dry != NULL ?
					 round->dry->hand_ns :
					 shm_load_relaxed(&segment->header->evict_hand);
		pick(round);
		for (uint32_t i = 0; i < batch->count && (freed < bytes || gone < entries); i++) {
			struct entry_name name = batch->heap[i].name;
			uint64_t charge = shm_load_relaxed(&segment->charges[name.idx]);

			looked++;
			move_hand(round, batch->heap[i].ended_ns);
			if (is_spared(round, name) || !evict(round, name, charge))
				continue;
			freed += charge;
			gone++;
		}
		/* Once round may only have taken marks away. */
	} while (gone == 0 && (bytes > 0 || entries > 0) && batch->count > 0 &&
		 looked <= 2ull * batch->seen);
	return gone;
}

uint64_t evict_some(struct store *store, uint64_t bytes, uint64_t entries,
		    const struct evict_watch *watch)
{
	struct round round = { .store = store,
			       .watch = watch,
			       .dry = watch != NULL ? watch->dry : NULL };
	uint64_t gone = 0;

	if (round_begin(&round))
		gone = go_round(&round, bytes, entries);
	round_end(&round);
	return gone;
}

int evict_dry_begin(const struct segment *segment, struct evict_dry *ret_dry)
{
	*ret_dry = (struct evict_dry){ .as_gone = entry_bits_new(segment),
				       .unmarked = entry_bits_new(segment),
				       .hand_ns = shm_load_relaxed(&segment->header->evict_hand) };
	return ret_dry->as_gone != NULL && ret_dry->unmarked != NULL ? 0 : -ENOMEM;
}

void evict_dry_end(struct evict_dry *dry)
{
	free(dry->as_gone);
	free(dry->unmarked);
}
