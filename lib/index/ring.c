/* SPDX-License-Identifier: MIT */
#include "index/ring.h"

#include "base/step.h"
#include "index/cursor.h"

uint32_t ring_claim(struct peer *peer, struct entry_name name)
{
	struct segment *segment = peer->segment;
	uint32_t count = segment->geometry.rings, i;

	/* From the first on: a ring used lately is still in the processor's cache. */
	for (i = 0; i < count; i++)
		if (shm_load_relaxed(&segment->ring_owners[i]) == 0 &&
		    shm_cas(&segment->ring_owners[i], 0, name_word(name))) {
			/* STEP ring-claimed: the ring knows its entry. Die here: freed with it. */
			STEP("ring-claimed");
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
