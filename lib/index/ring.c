/* SPDX-License-Identifier: MIT */
#include "index/ring.h"

#include "base/step.h"
#include "index/cursor.h"

#define KEPT_SHARE 8 /* one ring of so many, */
#define KEPT_OF_MIN 4 /* but none if there are fewer than these */

static uint32_t kept(uint32_t count)
{
	return count < KEPT_OF_MIN ? 0 : count < 2 * KEPT_SHARE ? 1 : count / KEPT_SHARE;
}

static bool take(struct segment *segment, uint32_t ring, struct entry_name name)
{
	return shm_load_relaxed(&segment->ring_owners[ring]) == 0 &&
	       shm_cas(&segment->ring_owners[ring], 0, name_word(name));
}

uint32_t ring_claim(struct peer *peer, struct entry_name name)
{
	struct segment *segment = peer->segment;
	uint32_t count = segment->geometry.rings, i;

	/* From the first on: a ring used lately is still in the processor's cache. */
	for (i = 0; i < count - kept(count); i++)
		if (take(segment, i, name)) {
			/* STEP ring-claimed: the ring knows its entry. Die here: freed with it. */
			STEP("ring-claimed");
			return i;
		}
	return RING_NONE;
}

uint32_t ring_claim_kept(struct peer *peer, struct entry_name name)
{
	struct segment *segment = peer->segment;

	for (uint32_t i = segment->geometry.rings; i-- > 0;)
		if (take(segment, i, name)) {
			/* STEP ring-lent: the ring knows its entry. Die here: freed with it, or by who takes over. */
			STEP("ring-lent");
			return i;
		}
	return RING_NONE;
}

void ring_release(struct segment *segment, struct entry_name name)
{
	/* By scan and not by the entry's word: whoever claimed may have died before noting it. */
	for (uint32_t i = 0; i < segment->geometry.rings; i++)
		if (shm_load(&segment->ring_owners[i]) == name_word(name) &&
		    shm_cas(&segment->ring_owners[i], name_word(name), 0)) {
			/*
			 * STEP ring-released: anybody may claim it. Die here: its entry is repaired
			 * alone.
			 */
			STEP("ring-released");
		}
}

uint32_t ring_count_in_use(const struct segment *segment)
{
	uint32_t count = 0;

	for (uint32_t i = 0; i < segment->geometry.rings; i++)
		count += shm_load_relaxed(&segment->ring_owners[i]) != 0;
	return count;
}
