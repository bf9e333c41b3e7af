/* SPDX-License-Identifier: MIT */
#include "index/repair.h"

#include <errno.h>

#include "base/clock.h"
#include "base/step.h"
#include "shm/epoch.h"
#include "shm/wait.h"

/*
 * A dead producer's entry. The code before the state, so that whoever sees
 * FAILED sees the reason; then everybody who waits for it wakes.
 */
static void fail_fill(struct peer *peer, uint32_t idx, uint64_t word)
{
	struct shm_entry *entry = entry_at(peer->segment, idx);

	shm_store_relaxed(&entry->code, (uint32_t)-EOWNERDEAD);
	shm_store_relaxed(&entry->message_bytes, 0);
	shm_store_relaxed(&entry->ended_ns, clock_shared_ns());
	/* ORDER entry-ended, release: code before FAILED. Pairs with reader_ended(). */
	if (!shm_cas(entry_state_word(peer->segment, idx), word,
		     state_make(state_gen(word), ENTRY_FAILED, state_flags(word) | ENTRY_HIDDEN,
				state_low(word))))
		return;
	/* STEP reap-failed: the key is free, nobody told. Die here: waiters look at their tick. */
	STEP("reap-failed");
	shm_lower(&peer->segment->header->next_sweep_ns, 0);
	peer_count(peer, STAT_FAILURES, 1);
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
	shm_lower(&peer->segment->header->next_sweep_ns, 0);
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
	cursor_reap(peer, slot);
	reap_entries(peer, slot);
	/* STEP reap-done: nothing is tagged with the slot. Die here: done once more. */
	STEP("reap-done");
	shm_store(&shared->state, PEER_WORD(PEER_GEN(word) + 1, PEER_FREE));
	peer_count(peer, STAT_DEATHS, 1);
	return 1;
}

int repair_reap(struct peer *peer, uint32_t slot)
{
	struct segment *segment = peer->segment;
	int reaped = 0;

	if (slot == peer->slot || slot >= segment->geometry.peers)
		return 0;
	pthread_mutex_lock(&peer->reap_mutex);
	if (lockfile_take(peer->lock_fd, segment->number, slot) == 0) {
		reaped = reap_locked(peer, slot);
		lockfile_drop(peer->lock_fd, segment->number, slot);
	}
	pthread_mutex_unlock(&peer->reap_mutex);
	return reaped;
}

int repair_if_dead(struct peer *peer, uint32_t slot)
{
	return peer_is_dead(peer, slot) ? repair_reap(peer, slot) : 0;
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

uint32_t repair_readers(struct peer *peer, struct entry_name name)
{
	uint32_t slots[64], reaped = 0;
	uint32_t count = cursor_owners_of(peer->segment, name, slots, ARRAY_COUNT(slots));

	for (uint32_t i = 0; i < count; i++)
		reaped += (uint32_t)repair_if_dead(peer, slots[i]);
	return reaped;
}
