/* SPDX-License-Identifier: MIT */
/*
 * evict - which finished entries go when there is no room for all.
 *
 * SIEVE (Y. Zhang et al., SIEVE is simpler than LRU, NSDI 2024): a hand goes from the
 * oldest entry to the newest; one that was asked for since the hand came by last
 * stays and is asked again the next time round, one that was not goes. So a
 * scan of what is wanted once passes through without driving out what is wanted again, and a
 * hit stores one bit, and only if that is not set.
 *
 * There it is a list. Here the order is the time of completion, and the hand a moment
 * in it: a walk over the table picks the next ones behind the hand. Hand and bits
 * are hints: lost or torn by a death they cost a better choice.
 *
 * What somebody reads is passed over: it would give nothing back.
 */
#ifndef STORE_EVICT_H
#define STORE_EVICT_H

#include <stdlib.h>

#include "base/clock.h"
#include "store/store.h"

/* A dry run: nothing goes, no mark is taken away and the hand stays. All of it is one run. */
struct evict_dry {
	/* A bit for each entry that is as good as gone; those that would go get theirs. */
	uint64_t *as_gone;
	uint64_t *unmarked; /* and for those whose marks would have been taken away */
	uint64_t hand_ns;
	uint64_t freed_bytes;  /* of files that are no entry's and as good as gone */
	uint64_t former_bytes; /* of those of former segments that are not */
};

/* Who is told of what goes, and whether it does. */
struct evict_watch {
	/* It has gone, or would: what it had on the disk. */
	void (*gone)(void *arg, const unsigned char *key, uint32_t key_bytes, uint64_t bytes);
	void *arg;
	struct evict_dry *dry; /* or NULL: it does */
};

/* evict_dry_begin - 0 or -ENOMEM; evict_dry_end() is due in either case. */
int evict_dry_begin(const struct segment *segment, struct evict_dry *ret_dry);
void evict_dry_end(struct evict_dry *dry);

/*
 * evict_some - until what goes had charges of @bytes, and was @entries, but only so many as one
 * walk over the table has picked. Returns how many went; 0: there is nothing that could.
 * @watch: NULL if nobody wants to know.
 */
uint64_t evict_some(struct store *store, uint64_t bytes, uint64_t entries,
		    const struct evict_watch *watch);

/* A bit for each entry of a segment. */
static inline uint64_t *entry_bits_new(const struct segment *segment)
{
	return calloc(segment->geometry.entries / 64 + 1, sizeof(uint64_t));
}

static inline void entry_bit_set(uint64_t *bits, uint32_t idx)
{
	bits[idx / 64] |= 1ull << idx % 64;
}

static inline bool entry_bit(const uint64_t *bits, uint32_t idx)
{
	return bits[idx / 64] >> idx % 64 & 1;
}

/* A word of uses[]: when an entry was last asked for, and since the hand came by. */
#define USE_NOTED 1u
#define USE_GRAIN_NS (NS_PER_SEC / 8) /* no finer than that is it known */

/* use_begin - it is finished @now_ns: nobody has asked for it since. */
static inline void use_begin(struct segment *segment, struct entry_name name, uint64_t now_ns)
{
	shm_store_relaxed(&segment->uses[name.idx], now_ns & ~(uint64_t)USE_NOTED);
}

/* use_note - somebody has asked for it. Stores only what is news: all hits would meet there. */
static inline void use_note(struct segment *segment, struct entry_name name, uint64_t now_ns)
{
	uint64_t use = shm_load_relaxed(&segment->uses[name.idx]);

	if (unlikely(!(use & USE_NOTED) || now_ns - use > USE_GRAIN_NS))
		shm_store_relaxed(&segment->uses[name.idx], now_ns | USE_NOTED);
}

/* use_is_idle - has nobody asked for it for as long as the cache allows? */
static inline bool use_is_idle(const struct segment *segment, struct entry_name name,
			       uint64_t now_ns)
{
	uint64_t idle_ns = segment_setting(segment, SETTING_MAX_IDLE_NS);

	return unlikely(idle_ns != UINT64_MAX) &&
	       clock_age_ns(shm_load_relaxed(&segment->uses[name.idx]), now_ns) >= idle_ns;
}

#endif
