/* SPDX-License-Identifier: MIT */
#include "index/entry.h"

#include <errno.h>

#include "base/clock.h"
#include "base/step.h"
#include "streamcache.h"

#define EPOCH_BITS 24

static uint32_t owner_low(const struct peer *peer)
{
	return peer->slot << 10;
}

int entry_claim(struct peer *peer, struct entry_name *ret_name)
{
	struct segment *segment = peer->segment;
	uint32_t count = segment->geometry.entries, start, i;

	/* Where this process last found one: others look elsewhere. */
	start = atomic_load_explicit(&peer->claim_hint, memory_order_relaxed);
	for (i = 0; i < count; i++) {
		uint32_t idx = (start + i) % count;
		uint64_t word = shm_load_relaxed(entry_state_word(segment, idx));

		if (state_of(word) != ENTRY_FREE)
			continue;
		if (!shm_cas(entry_state_word(segment, idx), word,
			     state_make(state_gen(word), ENTRY_CLAIMED, 0, owner_low(peer))))
			continue;
		/* STEP entry-claimed: nobody can reach it. Die here: the reaper retires it. */
		STEP("entry-claimed");
		atomic_store_explicit(&peer->claim_hint, idx + 1, memory_order_relaxed);
		*ret_name = (struct entry_name){ .idx = idx, .gen = state_gen(word) };
		return 0;
	}
	return -ENOSPC;
}

static void fill_key(struct shm_entry *entry, const struct entry_draft *draft)
{
	uint64_t words[SHM_KEY_WORDS] = { 0 };
	uint32_t i;

	memcpy(words, draft->key, draft->key_bytes);
	for (i = 0; i < (draft->key_bytes + 7) / 8; i++)
		shm_store_relaxed(&entry->key[i], words[i]);
	shm_store_relaxed(&entry->key_bytes, draft->key_bytes);
}

static uint64_t declared_of(const struct entry_draft *draft)
{
	uint64_t bytes = draft->declared_bytes;

	return bytes == 0 ? UINT64_MAX : bytes == SCACHE_ZERO ? 0 : bytes;
}

void entry_fill(struct peer *peer, struct entry_name name, const struct entry_draft *draft)
{
	struct shm_entry *entry = entry_at(peer->segment, name.idx);

	/*
	 * Relaxed is enough: the FILLING store and the CAS of the bucket head
	 * come after all of them, and both are seq_cst.
	 */
	shm_store_relaxed(&entry->hash_high, draft->hash.high);
	shm_store_relaxed(&entry->hash_low, draft->hash.low);
	shm_store_relaxed(&entry->created_ns, clock_shared_ns());
	shm_store_relaxed(&entry->window_bytes, draft->window_bytes);
	shm_store_relaxed(&entry->max_age_ns, draft->max_age_ns);
	shm_store_relaxed(&entry->declared_bytes, declared_of(draft));
	shm_store_relaxed(&entry->ended_ns, 0);
	shm_store_relaxed(&entry->ring, 0);
	shm_store_relaxed(&entry->written, 0);
	shm_store_relaxed(&entry->flushed, 0);
	shm_store_relaxed(&entry->punched, 0);
	shm_store_relaxed(&entry->floor, UINT64_MAX);
	shm_store_relaxed(&entry->need, 0);
	shm_store_relaxed(&entry->flags, draft->flags);
	shm_store_relaxed(&entry->code, 0);
	shm_store_relaxed(&entry->message_bytes, 0);
	shm_store_relaxed(&entry->file_bytes, 0);
	shm_store_relaxed(&entry->attention, 0);
	shm_store_relaxed(&entry->had_reader, 0);
	/* The event words keep their sequence: a sleeper of the last life wakes anyway. */
	shm_store_relaxed(&peer->segment->expires[name.idx], UINT64_MAX);
	fill_key(entry, draft);
	/* STEP entry-filled: a key, but nobody can reach it. Die here: the reaper retires it. */
	STEP("entry-filled");
}

void entry_start(struct peer *peer, struct entry_name name, uint32_t flags)
{
	shm_store(entry_state_word(peer->segment, name.idx),
		  state_make(name.gen, ENTRY_FILLING, flags, owner_low(peer)));
	/* STEP entry-filling: not yet in its bucket. Die here: the reaper fails it. */
	STEP("entry-filling");
}

bool entry_hide(struct segment *segment, struct entry_name name, enum entry_state state)
{
	shm_u64 *at = entry_state_word(segment, name.idx);
	uint64_t word = shm_load(at);

	while (state_gen(word) == name.gen && state_of(word) == state && !state_is_hidden(word)) {
		/* ORDER door, seq_cst: HIDDEN before the cursor scan. Pairs with cursor_attach(). */
		if (shm_cas(at, word, word | (uint64_t)ENTRY_HIDDEN << 24)) {
			/* STEP entry-hidden: the key is free. Die here: any sweep goes on. */
			STEP("entry-hidden");
			return true;
		}
		word = shm_load(at);
	}
	return false;
}

bool entry_hide_any(struct segment *segment, struct entry_name name)
{
	shm_u64 *at = entry_state_word(segment, name.idx);
	uint64_t word = shm_load(at);

	/* Again while it can be found: it may be taken over, or finished, in between. */
	while (state_gen(word) == name.gen && state_is_findable(word)) {
		if (entry_hide(segment, name, state_of(word)))
			return true;
		word = shm_load(at);
	}
	return false;
}

void entry_set_verified(struct segment *segment, struct entry_name name)
{
	shm_u64 *at = entry_state_word(segment, name.idx);
	uint64_t word = shm_load(at);

	while (state_gen(word) == name.gen && state_of(word) == ENTRY_SEALED &&
	       state_is_unverified(word)) {
		if (shm_cas(at, word, word & ~((uint64_t)ENTRY_UNVERIFIED << 24)))
			return;
		word = shm_load(at);
	}
}

bool entry_change(struct peer *peer, struct entry_name name, enum entry_state from,
		  enum entry_state to, uint32_t flags)
{
	shm_u64 *at = entry_state_word(peer->segment, name.idx);
	uint64_t word = shm_load(at);

	while (state_gen(word) == name.gen && state_of(word) == from &&
	       state_owner(word) == peer->slot) {
		if (shm_cas(at, word,
			    state_make(name.gen, to, state_flags(word) | flags, state_low(word))))
			return true;
		word = shm_load(at);
	}
	return false;
}

bool entry_take_over(struct peer *peer, struct entry_name name, uint64_t word)
{
	uint32_t low = owner_low(peer) | (state_attempt(word) + 1);

	if (!shm_cas(entry_state_word(peer->segment, name.idx), word,
		     state_make(name.gen, ENTRY_FILLING, state_flags(word), low)))
		return false;
	/* STEP taken-over: ours, nothing done yet. Die here: an orphan once more. */
	STEP("taken-over");
	return true;
}

void entry_give_up(struct peer *peer, struct entry_name name)
{
	shm_u64 *at = entry_state_word(peer->segment, name.idx);
	uint64_t word = shm_load(at);

	while (state_gen(word) == name.gen && state_of(word) == ENTRY_FILLING &&
	       state_owner(word) == peer->slot) {
		uint32_t low = orphan_stamp(clock_shared_ns()) << 10 | state_attempt(word);
		uint64_t after = state_make(name.gen, ENTRY_ORPHAN, state_flags(word), low);

		/* Each attempt is another word, and there are 10 bits of them. */
		if (state_attempt(word) >= ORPHAN_ATTEMPTS_MAX)
			after = state_make(name.gen, ENTRY_FAILED, state_flags(word) | ENTRY_HIDDEN,
					   state_low(word) | ATTEMPT_DIED);
		if (shm_cas(at, word, after)) {
			/* Whoever waits looks at its tick; if nobody does, a sweep has to. */
			shm_lower(&peer->segment->header->next_sweep_ns,
				  clock_shared_ns() + NS_PER_SEC);
			return;
		}
		word = shm_load(at);
	}
}

bool entry_retire(struct segment *segment, struct entry_name name, uint64_t word)
{
	uint32_t epoch = (uint32_t)shm_load(&segment->header->epoch);

	/* ORDER overridden, seq_cst: the state before its ring and file go. Pairs with copy_out(). */
	if (!shm_cas(entry_state_word(segment, name.idx), word,
		     state_make(name.gen, ENTRY_RETIRED, ENTRY_HIDDEN, epoch)))
		return false;
	/* STEP entry-retired: nobody's. Die here: any sweep goes on. */
	STEP("entry-retired");
	return true;
}

bool entry_grace_is_over(uint64_t word, uint64_t epoch)
{
	uint32_t passed = ((uint32_t)epoch - state_low(word)) & ((1u << EPOCH_BITS) - 1);

	/* Serial arithmetic: half the circle is the past. */
	return passed >= 2 && passed < 1u << (EPOCH_BITS - 1);
}

bool entry_take_for_sweep(struct peer *peer, struct entry_name name, uint64_t word)
{
	if (!shm_cas(entry_state_word(peer->segment, name.idx), word,
		     state_make(name.gen, ENTRY_SWEEPING, ENTRY_HIDDEN, owner_low(peer))))
		return false;
	/* STEP entry-sweeping: ours to take apart. Die here: the reaper retires it again. */
	STEP("entry-sweeping");
	return true;
}

void entry_free(struct peer *peer, struct entry_name name)
{
	shm_store(entry_state_word(peer->segment, name.idx),
		  state_make(name.gen + 1, ENTRY_FREE, 0, 0));
	/* STEP entry-freed: done. Die here: nothing to mend. */
	STEP("entry-freed");
}

bool entry_key_is(const struct shm_entry *entry, const void *key, uint32_t key_bytes)
{
	unsigned char mine[8 * SHM_KEY_WORDS];

	if (shm_load_relaxed((shm_u32 *)&entry->key_bytes) != key_bytes)
		return false;
	return entry_copy_key(entry, mine) == key_bytes && memcmp(mine, key, key_bytes) == 0;
}

uint32_t entry_copy_key(const struct shm_entry *entry, unsigned char ret_key[256])
{
	uint32_t bytes = shm_load_relaxed((shm_u32 *)&entry->key_bytes), i;

	if (bytes > 255)
		return 0; /* a slot that was never filled in, or damage: no key is empty */
	for (i = 0; i < (bytes + 7) / 8; i++) {
		uint64_t word = shm_load_relaxed((shm_u64 *)&entry->key[i]);

		memcpy(ret_key + (size_t)8 * i, &word, sizeof(word));
	}
	return bytes;
}
