/* SPDX-License-Identifier: MIT */
#include "index/seen.h"

#include "base/clock.h"
#include "base/step.h"

#define ROWS 2
#define DAY_NS (86400 * NS_PER_SEC)

static uint32_t generation_at(const struct segment *segment, uint64_t now_ns)
{
	uint64_t period_ns = segment_setting(segment, SETTING_MAX_AGE_NS);

	if (period_ns == 0 || period_ns == UINT64_MAX)
		period_ns = DAY_NS;
	return (uint32_t)(now_ns / period_ns) & 0xffffu;
}

/* Each row has its own half of the hash, and half of the cells. */
static shm_u32 *cell_of(const struct segment *segment, struct key_hash hash, int row)
{
	uint32_t cells = segment->geometry.buckets * (SHM_SEEN_PER_BUCKET / ROWS);

	return &segment->seen[row == 0 ? (uint32_t)hash.low % cells
				       : cells + (uint32_t)hash.high % cells];
}

/* What a cell says in this generation. */
static uint32_t aged(uint32_t cell, uint32_t generation)
{
	uint32_t passed = (generation - (cell >> 16)) & 0xffffu;

	/* One ahead: who was there has asked the clock after us. */
	if (passed == 0 || passed == 0xffffu)
		return cell;
	return generation << 16 | (passed == 1 ? cell >> 8 & 255 : 0);
}

static uint32_t count_in(uint32_t cell)
{
	return (uint32_t)min_u64((cell >> 8 & 255) + (cell & 255), SEEN_MOST);
}

/* One more. What is @enough is so for the next generation, too. */
static uint32_t counted(uint32_t cell, uint32_t enough)
{
	uint32_t all = (uint32_t)min_u64(count_in(cell) + 1, SEEN_MOST);
	uint32_t now = all >= enough ? all : (cell >> 8 & 255) + 1;

	return (cell & 0xffff00ffu) | now << 8;
}

bool seen_is_enough(const struct segment *segment, struct key_hash hash, uint64_t now_ns)
{
	uint64_t enough = segment_setting(segment, SETTING_MIN_OCCURRENCES);
	uint32_t generation, least = SEEN_MOST;

	if (enough <= 1)
		return true;
	generation = generation_at(segment, now_ns);
	for (int row = 0; row < ROWS; row++) {
		uint32_t cell = shm_load_relaxed(cell_of(segment, hash, row));

		least = (uint32_t)min_u64(least, count_in(aged(cell, generation)));
	}
	return least + 1 >= enough;
}

void seen_count(struct segment *segment, struct key_hash hash, uint64_t now_ns)
{
	uint32_t enough = (uint32_t)segment_setting(segment, SETTING_MIN_OCCURRENCES), generation;

	if (enough <= 1)
		return;
	generation = generation_at(segment, now_ns);
	for (int row = 0; row < ROWS; row++) {
		shm_u32 *at = cell_of(segment, hash, row);
		uint32_t cell = shm_load_relaxed(at);

		while (!shm_cas32(at, cell, counted(aged(cell, generation), enough)))
			cell = shm_load_relaxed(at);
		/* STEP occurrence-noted: in this row. Die here: if not in both, then not at all. */
		STEP("occurrence-noted");
	}
}
