/* SPDX-License-Identifier: MIT */
/*
 * entry - the life of one generation of one key: its state word.
 *
 *  {gen:32 | state:4 | flags:4 | owner:14 | attempt:10}; in RETIRED the low 24
 *  bits are the epoch instead of owner and attempt, in ORPHAN the 14 of the owner
 *  are the time of its death. Every change is one CAS on the whole word.
 *
 *  state     meaning                          leaves by          if the owner is dead
 *  FREE      slot unused                      entry_claim()      -
 *  CLAIMED   being filled in, unreachable     entry_start()      RETIRED
 *  FILLING   one writer appends               finish.c           FAILED or ORPHAN
 *  ORPHAN    producer dead, can be taken over entry_take_over()  -
 *  SEALED    complete, immutable              sweep.c            -
 *  FAILED    production failed                sweep.c            -
 *  RETIRED   out of the index, in grace       sweep.c            -
 *  SWEEPING  ring and file are going          entry_free()       RETIRED
 *
 * Flag HIDDEN: not findable; whoever is attached goes on. Setting it *is*
 * "the key is free". SUCC is reserved for a successor produced beside its
 * predecessor. Flag UNVERIFIED: its file was there before the segment was, and
 * nobody has compared all of it with its checksums yet. Flag TRANSIENT, from
 * entry_start() on: it was wanted too seldom to outlive its readers (store/leave.h).
 */
#ifndef INDEX_ENTRY_H
#define INDEX_ENTRY_H

#include "base/clock.h"
#include "base/hash.h"
#include "shm/peer.h"

enum entry_state {
	ENTRY_FREE,
	ENTRY_CLAIMED,
	ENTRY_FILLING,
	ENTRY_ORPHAN,
	ENTRY_SEALED,
	ENTRY_FAILED,
	ENTRY_RETIRED,
	ENTRY_SWEEPING,
	ENTRY_STATES,
};

#define ENTRY_HIDDEN 1u
#define ENTRY_SUCC 2u
#define ENTRY_UNVERIFIED 4u
#define ENTRY_TRANSIENT 8u

/* The name of an entry: a slot and which of its lives. */
struct entry_name {
	uint32_t idx;
	uint32_t gen;
};

static inline uint64_t state_make(uint32_t gen, enum entry_state state, uint32_t flags,
				  uint32_t low)
{
	return (uint64_t)gen << 32 | (uint64_t)state << 28 | (uint64_t)flags << 24 |
	       (low & 0xffffffu);
}

static inline uint32_t state_gen(uint64_t word)
{
	return (uint32_t)(word >> 32);
}

static inline enum entry_state state_of(uint64_t word)
{
	return (enum entry_state)(word >> 28 & 15);
}

static inline uint32_t state_flags(uint64_t word)
{
	return (uint32_t)(word >> 24 & 15);
}

static inline bool state_is_hidden(uint64_t word)
{
	return state_flags(word) & ENTRY_HIDDEN;
}

static inline bool state_is_unverified(uint64_t word)
{
	return state_flags(word) & ENTRY_UNVERIFIED;
}

static inline bool state_is_transient(uint64_t word)
{
	return state_flags(word) & ENTRY_TRANSIENT;
}

/* Not produced, but taken over from a former segment: finished in a moment. */
static inline bool state_is_adopting(uint64_t word)
{
	return state_of(word) == ENTRY_FILLING && state_is_unverified(word);
}

static inline uint32_t state_low(uint64_t word)
{
	return (uint32_t)word & 0xffffffu;
}

static inline uint32_t state_owner(uint64_t word)
{
	return state_low(word) >> 10;
}

/* Owned states: the peer in the word answers for the entry. */
static inline bool state_has_owner(uint64_t word)
{
	enum entry_state state = state_of(word);

	return state == ENTRY_CLAIMED || state == ENTRY_FILLING || state == ENTRY_SWEEPING;
}

static inline bool state_is_findable(uint64_t word)
{
	enum entry_state state = state_of(word);

	return (state == ENTRY_FILLING || state == ENTRY_ORPHAN || state == ENTRY_SEALED) &&
	       !state_is_hidden(word);
}

/* Production has not ended: somebody appends, or may yet. */
static inline bool state_is_growing(uint64_t word)
{
	return state_of(word) == ENTRY_FILLING || state_of(word) == ENTRY_ORPHAN;
}

/*
 * FAILED because its producer died. In the word itself, for the reaper must
 * not write anything else: one that was stopped would write into the slot's
 * next life.
 */
#define ATTEMPT_DIED 0x3ffu

static inline bool state_is_death(uint64_t word)
{
	return state_of(word) == ENTRY_FAILED && (state_low(word) & ATTEMPT_DIED) == ATTEMPT_DIED;
}

/*
 * A resumable entry's producer has died: how often that has happened to it, and
 * when, in units of 2^25 ns (34 ms), 14 bits. Nobody else writes anything down.
 */
#define ORPHAN_ATTEMPTS_MAX 3u
#define ORPHAN_PATIENCE 15u /* units: half a second, then it is a failure */

static inline uint32_t state_attempt(uint64_t word)
{
	return state_low(word) & 0x3ffu;
}

static inline uint32_t orphan_stamp(uint64_t now_ns)
{
	return (uint32_t)(now_ns >> 25) & 0x3fffu;
}

static inline bool orphan_is_forsaken(uint64_t word, uint64_t now_ns)
{
	return ((orphan_stamp(now_ns) - (state_low(word) >> 10)) & 0x3fffu) > ORPHAN_PATIENCE;
}

/* Production is over and nobody can find it: waits for its last reader. */
static inline bool state_is_garbage(uint64_t word)
{
	enum entry_state state = state_of(word);

	return (state == ENTRY_SEALED || state == ENTRY_FAILED) && state_is_hidden(word);
}

/* Finished and to be found, but if nobody reads it, it is to go. */
static inline bool state_needs_reader(uint64_t word)
{
	return state_of(word) == ENTRY_SEALED && state_is_transient(word) && !state_is_hidden(word);
}

static inline shm_u64 *entry_state_word(const struct segment *segment, uint32_t idx)
{
	return &segment->states[idx];
}

static inline struct shm_entry *entry_at(const struct segment *segment, uint32_t idx)
{
	return &segment->entries[idx];
}

/* What a new entry is made of. */
struct entry_draft {
	const void *key;
	uint32_t key_bytes;
	struct key_hash hash;
	uint64_t max_age_ns;
	uint64_t window_bytes;
	uint64_t declared_bytes; /* as in struct scache_acquire_options */
	uint32_t flags;
};

/*
 * entry_claim - take a FREE slot: CLAIMED and ours, fields still of old.
 * Returns 0 or -ENOSPC.
 */
int entry_claim(struct peer *peer, struct entry_name *ret_name);

/* entry_fill - write the fields of a CLAIMED entry of ours. */
void entry_fill(struct peer *peer, struct entry_name name, const struct entry_draft *draft);

/* entry_start - CLAIMED -> FILLING; from here on walkers that reach it believe it. */
void entry_start(struct peer *peer, struct entry_name name, uint32_t flags);

/*
 * entry_hide - close the door: set HIDDEN if the entry is still in @state.
 * Returns true if this very call closed it.
 */
bool entry_hide(struct segment *segment, struct entry_name name, enum entry_state state);

/* entry_hide_any - the same for an entry that grows or has just been finished. */
bool entry_hide_any(struct segment *segment, struct entry_name name);

/* entry_set_verified - a finished entry's file is what its checksums say. */
void entry_set_verified(struct segment *segment, struct entry_name name);

/*
 * entry_change - move our entry from one owned state to @state, keeping HIDDEN
 * and adding @flags. Returns false if it is not ours any more.
 */
bool entry_change(struct peer *peer, struct entry_name name, enum entry_state from,
		  enum entry_state to, uint32_t flags);

/*
 * entry_take_over - ORPHAN (@word) -> FILLING(us): its producer from here on.
 * False if somebody else is, or it has ended. Its progress stands in the entry.
 */
bool entry_take_over(struct peer *peer, struct entry_name name, uint64_t word);

/* entry_give_up - we cannot after all: FILLING(us) -> ORPHAN, for somebody else;
 * FAILED if too many have tried. */
void entry_give_up(struct peer *peer, struct entry_name name);

/* entry_retire - garbage, unlinked, without readers: into grace. */
bool entry_retire(struct segment *segment, struct entry_name name, uint64_t word);

/* entry_grace_is_over - two epochs after retirement? */
bool entry_grace_is_over(uint64_t word, uint64_t epoch);

/* entry_take_for_sweep - RETIRED -> SWEEPING(us). False if somebody else did. */
bool entry_take_for_sweep(struct peer *peer, struct entry_name name, uint64_t word);

/* entry_free - SWEEPING(us) -> FREE of the next generation. */
void entry_free(struct peer *peer, struct entry_name name);

/* entry_is_overdue - is it produced for longer than the cache allows? */
static inline bool entry_is_overdue(const struct segment *segment, uint32_t idx, uint64_t now_ns)
{
	uint64_t most_ns = segment_setting(segment, SETTING_MAX_FILL_NS);

	return unlikely(most_ns != UINT64_MAX) &&
	       clock_age_ns(shm_load_relaxed(&entry_at(segment, idx)->created_ns), now_ns) >= most_ns;
}

/* entry_key_is - compare with @key_bytes bytes. The caller re-checks the state. */
bool entry_key_is(const struct shm_entry *entry, const void *key, uint32_t key_bytes);

/* entry_copy_key - at most SCACHE_KEY_BYTES_MAX bytes. Returns their number. */
uint32_t entry_copy_key(const struct shm_entry *entry, unsigned char ret_key[256]);

static inline struct key_hash entry_hash(const struct shm_entry *entry)
{
	return (struct key_hash){ .high = shm_load_relaxed((shm_u64 *)&entry->hash_high),
				  .low = shm_load_relaxed((shm_u64 *)&entry->hash_low) };
}

#endif
