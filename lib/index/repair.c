/* SPDX-License-Identifier: MIT */
#include "index/repair.h"

#include "base/clock.h"
#include "base/step.h"
#include "base/thread.h"
#include "shm/epoch.h"
#include "shm/wait.h"

#define READERS_LOOK 64 /* queries of the kernel at one tick of one writer */

/* What becomes of an entry whose producer is dead. All in one word: see ATTEMPT_DIED. */
static uint64_t after_death(const struct shm_entry *entry, uint64_t word)
{
	uint32_t gen = state_gen(word), flags = state_flags(word), attempt = state_attempt(word);

	if (state_of(word) == ENTRY_FILLING && attempt < ORPHAN_ATTEMPTS_MAX &&
	    shm_load_relaxed((shm_u32 *)&entry->flags) & ENTRY_RESUMABLE)
		return state_make(gen, ENTRY_ORPHAN, flags,
				  orphan_stamp(clock_shared_ns()) << 10 | attempt);
	return state_make(gen, ENTRY_FAILED, flags | ENTRY_HIDDEN, state_low(word) | ATTEMPT_DIED);
}

/* Its producer is dead, or (an orphan) has no successor: then whoever waits wakes. */
static void fail_fill(struct peer *peer, uint32_t idx, uint64_t word)
{
	struct shm_entry *entry = entry_at(peer->segment, idx);
	uint64_t after = after_death(entry, word);
	bool is_overdue = state_of(word) == ENTRY_ORPHAN &&
			  entry_is_overdue(peer->segment, idx, clock_shared_ns());

	if (!shm_cas(entry_state_word(peer->segment, idx), word, after))
		return;
	/* STEP reap-failed: failed, or an orphan; nobody told. Die here: waiters look at their tick. */
	STEP("reap-failed");
	if (state_of(after) == ENTRY_FAILED)
		peer_count(peer, STAT_FAILURES, 1);
	else
		shm_lower(&peer->segment->header->next_sweep_ns, clock_shared_ns() + NS_PER_SEC);
	if (is_overdue)
		peer_count(peer, STAT_OVERDUE, 1);
	peer_count(peer, STAT_WAKES, (uint64_t)wait_announce(&entry->readers_event));
}

static void reap_entry(struct peer *peer, uint32_t idx, uint64_t word)
{
	struct entry_name name = { .idx = idx, .gen = state_gen(word) };

	if (state_of(word) == ENTRY_FILLING) {
		fail_fill(peer, idx, word);
		return;
	}
	/* CLAIMED was never linked; SWEEPING had been unlinked long before. */
	entry_retire(peer->segment, name, word);
}

static void reap_entries(struct peer *peer, uint32_t slot)
{
	struct segment *segment = peer->segment;

	for (uint32_t idx = 0; idx < segment->geometry.entries; idx++) {
		shm_u64 *at = entry_state_word(segment, idx);
		uint64_t word = shm_load(at);

		/* Again while it is still the dead one's: a door may close meanwhile. */
		while (state_has_owner(word) && state_owner(word) == slot) {
			reap_entry(peer, idx, word);
			word = shm_load(at);
		}
	}
}

/* We hold the dead peer's byte. */
static int reap_locked(struct peer *peer, uint32_t slot)
{
	struct shm_peer *shared = &peer->segment->peers[slot];
	uint64_t word = shm_load(&shared->state);

	if (PEER_STATE(word) == PEER_FREE)
		return 0;
	shm_store(&shared->state, PEER_WORD(PEER_GEN(word), PEER_REAPING));
	/* STEP reap-begun: the slot says so. Die here: the next reaper starts over. */
	STEP("reap-begun");
	for (unsigned cell = 0; cell < SHM_PINS; cell++)
		shm_store(&shared->pins[cell].word, 0);
	/* STEP reap-pins: no pin holds the epoch back. Die here: the next reaper starts over. */
	STEP("reap-pins");
	cursor_reap(peer, slot);
	reap_entries(peer, slot);
	/* What it held may be swept now; and it may have died with the hint in its hands. */
	shm_lower(&peer->segment->header->next_sweep_ns, 0);
	/* STEP reap-done: nothing is tagged with the slot. Die here: done once more. */
	STEP("reap-done");
	shm_store(&shared->state, PEER_WORD(PEER_GEN(word) + 1, PEER_FREE));
	/* STEP reap-freed: a free slot whose byte we hold. Die here: the kernel lets it go. */
	STEP("reap-freed");
	peer_count(peer, STAT_DEATHS, 1);
	return 1;
}

int repair_reap(struct peer *peer, uint32_t slot)
{
	UNCANCELLED;
	struct segment *segment = peer->segment;
	int reaped = 0;

	if (slot == peer->slot || slot >= segment->geometry.peers)
		return 0;
	pthread_mutex_lock(&peer->reap_mutex);
	if (lockfile_take(peer->lock_fd, segment->number, slot) == 0) {
		/*
		 * STEP reap-byte-taken: the dead one's byte is ours. Die here: it is free to reap
		 * again.
		 */
		STEP("reap-byte-taken");
		reaped = reap_locked(peer, slot);
		lockfile_drop(peer->lock_fd, segment->number, slot);
		/* STEP reap-byte-dropped: anybody may sit down. Die here: nothing to mend. */
		STEP("reap-byte-dropped");
	}
	pthread_mutex_unlock(&peer->reap_mutex);
	return reaped;
}

int repair_if_dead(struct peer *peer, uint32_t slot)
{
	return peer_is_dead(peer, slot) ? repair_reap(peer, slot) : 0;
}

bool repair_producer(struct peer *peer, struct entry_name name)
{
	struct segment *segment = peer->segment;
	uint64_t word = shm_load(entry_state_word(segment, name.idx));
	uint32_t slot = state_owner(word);
	uint64_t now_ns;

	if (state_gen(word) != name.gen || !state_is_growing(word))
		return true;
	if (state_of(word) == ENTRY_ORPHAN) {
		now_ns = clock_shared_ns();
		if (!entry_is_overdue(segment, name.idx, now_ns) && !orphan_is_forsaken(word, now_ns))
			return false;
		fail_fill(peer, name.idx, word);
	} else {
		if (!peer_is_dead(peer, slot))
			return false;
		repair_reap(peer, slot);
		/* If somebody is at it he may be stopped: that it is reaped at all is proof enough. */
		if (slot < segment->geometry.peers &&
		    PEER_STATE(shm_load(&segment->peers[slot].state)) == PEER_REAPING)
			fail_fill(peer, name.idx, word);
	}
	/* Whoever did it. */
	word = shm_load(entry_state_word(segment, name.idx));
	return state_gen(word) != name.gen || !state_is_growing(word);
}

bool repair_fail_orphan(struct peer *peer, struct entry_name name, uint64_t word)
{
	if (state_gen(word) != name.gen || state_of(word) != ENTRY_ORPHAN)
		return false;
	fail_fill(peer, name.idx, word);
	return true;
}

uint32_t repair_reap_some(struct peer *peer, uint32_t count)
{
	struct segment *segment = peer->segment;
	uint32_t peers = segment->geometry.peers, looked = 0, reaped = 0, i;
	uint64_t hand = shm_load_relaxed(&segment->header->reap_hand);

	for (i = 0; i < peers && looked < count; i++) {
		uint32_t slot = (uint32_t)((hand + i) % peers);

		if (PEER_STATE(shm_load(&segment->peers[slot].state)) == PEER_FREE)
			continue;
		looked++;
		reaped += (uint32_t)repair_reap(peer, slot);
	}
	shm_store_relaxed(&segment->header->reap_hand, (hand + i) % peers);
	return reaped;
}

uint32_t repair_reap_all(struct peer *peer)
{
	return repair_reap_some(peer, peer->segment->geometry.peers);
}

void repair_readers(struct peer *peer, struct entry_name name, uint32_t *hand)
{
	const struct segment *segment = peer->segment;
	uint32_t count = segment->geometry.blocks, looked = 0, i;

	for (i = 0; i < count && looked < READERS_LOOK; i++) {
		uint32_t block = (*hand + i) % count;
		uint64_t owner = shm_load(&segment->block_owners[block]);

		if (owner == 0 || !cursor_block_names(segment, block, name))
			continue;
		looked++;
		repair_if_dead(peer, NAME_INDEX(owner));
	}
	*hand = (*hand + i) % count;
}
