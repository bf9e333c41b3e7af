/* SPDX-License-Identifier: MIT */
#include "store/sweep.h"

#include <errno.h>

#include "base/clock.h"
#include "base/step.h"
#include "index/index.h"
#include "index/repair.h"
#include "index/ring.h"
#include "shm/epoch.h"
#include "store/evict.h"
#include "store/leave.h"
#include "store/limits.h"

#define SLICE_ENTRIES 8
#define ROOM_TRIES 256
#define RETRY_NS NS_PER_SEC /* look again for what could not go yet */

/* ------------------------------------------------------------- one entry */

static void take_apart(struct store *store, struct entry_name name, bool has_file)
{
	struct shm_entry *entry = entry_at(store->segment, name.idx);

	ring_release(store->segment, name);
	if (has_file && shm_load(&entry->flags) & ENTRY_KEEP_BYTES)
		blob_unlink(store, name, entry_hash(entry));
	else if (has_file)
		blob_remove(store, name, entry_hash(entry));
	limits_clear(store, name);
	entry_free(store->peer, name);
}

/* Hidden and ended, but somebody may still read it: then not yet. */
static bool has_readers(struct store *store, struct entry_name name)
{
	struct cursor_survey survey;
	uint32_t hand = 0;

	/* ORDER door, seq_cst: HIDDEN was set before this scan. Pairs with cursor_attach(). */
	cursor_survey(store->segment, name, &survey);
	if (survey.count == 0)
		return false;
	/* The dead among them read no more. */
	repair_readers(store->peer, name, &hand);
	cursor_survey(store->segment, name, &survey);
	return survey.count > 0;
}

/* One entry as far as it goes: true if its slot is free now. */
static bool collect(struct store *store, struct entry_name name)
{
	struct segment *segment = store->segment;
	shm_u64 *at = entry_state_word(segment, name.idx);
	uint64_t word = shm_load(at);

	/* Its producer may seal its file yet, and then be killed. Pairs with keep_file(). */
	if (state_gen(word) == name.gen && state_is_growing(word) && state_is_hidden(word))
		blob_disown(store, name, entry_hash(entry_at(segment, name.idx)));
	if (state_gen(word) == name.gen && state_is_garbage(word)) {
		if (index_unlink(store->peer, name) < 0) {
			segment_retire(segment);
			return false;
		}
		if (has_readers(store, name)) {
			blob_disown(store, name, entry_hash(entry_at(segment, name.idx)));
			return false;
		}
		entry_retire(segment, name, word);
		word = shm_load(at);
	}
	if (state_gen(word) != name.gen || state_of(word) != ENTRY_RETIRED)
		return false;
	for (int i = 0; i < 2 && !entry_grace_is_over(word, epoch_now(segment)); i++)
		epoch_advance(store->peer);
	if (!entry_grace_is_over(word, epoch_now(segment))) {
		blob_disown(store, name, entry_hash(entry_at(segment, name.idx)));
		return false;
	}
	if (!entry_take_for_sweep(store->peer, name, word))
		return false;
	take_apart(store, name, true);
	return true;
}

bool sweep_entry(struct store *store, struct entry_name name)
{
	uint64_t word;

	if (collect(store, name))
		return true;
	word = shm_load(entry_state_word(store->segment, name.idx));
	if (state_gen(word) == name.gen && (state_is_garbage(word) || state_of(word) == ENTRY_RETIRED))
		shm_lower(&store->segment->header->next_sweep_ns, clock_shared_ns() + RETRY_NS);
	return false;
}

void sweep_give_back(struct store *store, struct entry_name name, enum entry_state from,
		     bool has_file)
{
	/* No grace: it was in no chain, so no walker can stand on it. */
	if (!entry_change(store->peer, name, from, ENTRY_SWEEPING, ENTRY_HIDDEN))
		return;
	/*
	 * STEP entry-given-back: ours to take apart, in no chain. Die here: the reaper retires it.
	 */
	STEP("entry-given-back");
	take_apart(store, name, has_file);
}

/* ----------------------------------------------------------------- slices */

void sweep_note_expiry(struct store *store, uint64_t expires_ns)
{
	shm_lower(&store->segment->header->next_sweep_ns, expires_ns);
}

uint64_t sweep_due_ns(const struct store *store, struct entry_name name, uint64_t expires_ns)
{
	const struct segment *segment = store->segment;
	uint64_t idle_ns = segment_setting(segment, SETTING_MAX_IDLE_NS);
	uint64_t used_ns = shm_load_relaxed(&segment->uses[name.idx]);

	if (idle_ns > UINT64_MAX - used_ns)
		return expires_ns;
	return min_u64(expires_ns, used_ns + idle_ns);
}

void sweep_change_age(struct store *store, uint64_t from_ns, uint64_t to_ns)
{
	struct segment *segment = store->segment;

	for (uint32_t idx = 0; idx < segment->geometry.entries; idx++) {
		struct shm_entry *entry = entry_at(segment, idx);
		uint64_t ended_ns = shm_load_relaxed(&entry->ended_ns);

		/* By CAS: what is another entry by then has another time, or the new age. */
		if (!shm_cas(&entry->max_age_ns, from_ns, to_ns) || ended_ns == 0)
			continue;
		shm_cas(&segment->expires[idx], add_saturated_u64(ended_ns, from_ns),
			add_saturated_u64(ended_ns, to_ns));
	}
}

bool sweep_expire(struct store *store, struct entry_name name)
{
	if (!entry_hide(store->segment, name, ENTRY_SEALED))
		return false;
	peer_count(store->peer, STAT_EXPIRED, 1);
	return true;
}

bool sweep_hide_overdue(struct store *store, struct entry_name name)
{
	if (likely(segment_setting(store->segment, SETTING_MAX_FILL_NS) == UINT64_MAX) ||
	    !entry_is_overdue(store->segment, name.idx, clock_shared_ns()))
		return false;
	entry_hide(store->segment, name, ENTRY_FILLING);
	return true;
}

/* Once hidden it is its producer's affair. */
static bool may_be_overdue(const struct store *store, uint32_t idx, uint64_t word, uint64_t now_ns,
			   uint64_t *next_ns)
{
	uint64_t most_ns = segment_setting(store->segment, SETTING_MAX_FILL_NS), due_ns;

	if (most_ns == UINT64_MAX || state_is_hidden(word) || state_is_adopting(word))
		return false;
	if (entry_is_overdue(store->segment, idx, now_ns))
		return true;
	due_ns = shm_load_relaxed(&entry_at(store->segment, idx)->created_ns);
	*next_ns = min_u64(*next_ns, add_saturated_u64(due_ns, most_ns));
	return false;
}

/* Is there something to do about this entry? If not yet, when? */
static bool is_due(const struct store *store, uint32_t idx, uint64_t word, uint64_t now_ns,
		   uint64_t *next_ns)
{
	struct entry_name name = { .idx = idx, .gen = state_gen(word) };
	uint64_t due_ns;

	if (state_is_garbage(word) || state_of(word) == ENTRY_RETIRED)
		return true;
	if (state_of(word) == ENTRY_ORPHAN)
		*next_ns = min_u64(*next_ns, now_ns + RETRY_NS);
	if (state_of(word) == ENTRY_ORPHAN)
		return orphan_is_forsaken(word, now_ns) ||
		       entry_is_overdue(store->segment, idx, now_ns);
	if (state_of(word) == ENTRY_FILLING)
		return may_be_overdue(store, idx, word, now_ns, next_ns);
	if (state_of(word) != ENTRY_SEALED)
		return false;
	due_ns = sweep_due_ns(store, name, shm_load_relaxed(&store->segment->expires[idx]));
	if (due_ns > now_ns)
		*next_ns = min_u64(*next_ns, due_ns);
	return due_ns <= now_ns;
}

/*
 * One pass over the dense arrays, from where the last one stopped; tries up
 * to @limit entries, and ends when @enough are freed. Returns how many are.
 */
static uint32_t sweep_pass(struct store *store, uint32_t limit, uint32_t enough)
{
	struct segment *segment = store->segment;
	uint32_t count = segment->geometry.entries, tried = 0, removed = 0, i;
	uint64_t now_ns = clock_shared_ns(), next_ns = UINT64_MAX;
	uint64_t hand = shm_load_relaxed(&segment->header->sweep_hand) % count;

	/* Before looking: an expiry noted while we look must not be overwritten. */
	shm_exchange(&segment->header->next_sweep_ns, UINT64_MAX);
	/* STEP sweep-hint-taken: nobody would look. Die here: our reaper sets it anew. */
	STEP("sweep-hint-taken");
	for (i = 0; i < count && tried < limit && removed < enough; i++) {
		uint32_t idx = (uint32_t)((hand + i) % count);
		uint64_t word = shm_load(entry_state_word(segment, idx));
		struct entry_name name = { .idx = idx, .gen = state_gen(word) };

		/* Its last reader was killed, or whoever was about to see to it. */
		if (state_needs_reader(word))
			word = leave_hide(store, name, word);
		if (!is_due(store, idx, word, now_ns, &next_ns))
			continue;
		tried++;
		if (state_of(word) == ENTRY_SEALED && !state_is_hidden(word))
			sweep_expire(store, name);
		if (state_is_growing(word) && !repair_producer(store->peer, name))
			sweep_hide_overdue(store, name);
		if (collect(store, name))
			removed++;
		else
			next_ns = min_u64(next_ns, now_ns + RETRY_NS);
	}
	if (i < count) /* there is more: at once if that helps, else in a while */
		next_ns = min_u64(next_ns, removed > 0 ? now_ns : now_ns + RETRY_NS);
	shm_store_relaxed(&segment->header->sweep_hand, (hand + i) % count);
	/*
	 * STEP sweep-hand-moved: still nobody would look. Die here: our reaper sets the hint anew.
	 */
	STEP("sweep-hand-moved");
	shm_lower(&segment->header->next_sweep_ns, next_ns);
	return removed;
}

void sweep_slice(struct store *store)
{
	if (clock_shared_ns() >= shm_load_relaxed(&store->segment->header->next_sweep_ns))
		sweep_pass(store, SLICE_ENTRIES, SLICE_ENTRIES);
}

uint32_t sweep_collect(struct store *store)
{
	return sweep_pass(store, UINT32_MAX, UINT32_MAX);
}

/*
 * Entries that only stopped processes hold back: they may be stopped for ever,
 * and there may be as many of them as there are slots.
 */
static bool collect_from_stopped(struct store *store)
{
	struct segment *segment = store->segment;
	uint32_t count = segment->geometry.entries, tried = 0;
	/* Where the last pass has ended: another part of a large table each time. */
	uint64_t hand = shm_load_relaxed(&segment->header->sweep_hand) % count;
	bool freed = false;

	for (uint32_t i = 0; i < count && tried < ROOM_TRIES && !freed; i++) {
		uint32_t idx = (uint32_t)((hand + i) % count);
		uint64_t word = shm_load(entry_state_word(segment, idx));
		struct entry_name name = { .idx = idx, .gen = state_gen(word) };

		if (!state_is_garbage(word))
			continue;
		tried++;
		cursor_override_stopped(segment, name);
		freed = collect(store, name);
	}
	return freed;
}

bool sweep_make_room(struct store *store)
{
	if (sweep_pass(store, ROOM_TRIES, 1) > 0)
		return true;
	if (repair_reap_all(store->peer) > 0 && sweep_pass(store, ROOM_TRIES, 1) > 0)
		return true;
	return collect_from_stopped(store) || evict_some(store, 0, 1, NULL) > 0;
}

int sweep_claim(struct store *store, struct entry_name *ret_name)
{
	int ret = entry_claim(store->peer, ret_name);

	if (ret == -ENOSPC && sweep_make_room(store))
		ret = entry_claim(store->peer, ret_name);
	return ret;
}
