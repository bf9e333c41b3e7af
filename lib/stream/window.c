/* SPDX-License-Identifier: MIT */
/*
 * window - a smaller one where space is short: what is produced far ahead of its readers may
 * be what the disk has no room for.
 *
 * It is set where more room is charged (room.c), which is seldom, by whatever thread stores;
 * so it stands in the entry, where all see it, and the writer looks there.
 */
#include "store/limits.h"
#include "stream/stream.h"

#define SHARE 4			  /* of what may be stored yet one part is for the window */
#define WINDOW_BYTES_MIN (256u << 10)

void window_fit(struct scache_writer *writer, uint64_t bytes)
{
	uint64_t asked = writer->asked_bytes, now = shm_load_relaxed(&writer->entry->window_bytes);
	uint64_t spare, fitting;

	/*
	 * What is not ahead so far need not be looked after. Lock step and no limit are no
	 * matter of how much.
	 */
	if (bytes <= WINDOW_BYTES_MIN || asked <= WINDOW_BYTES_MIN || asked > UINT64_MAX / SHARE)
		return;
	spare = limits_spare(writer->store, SHARE * asked);
	fitting = max_u64(WINDOW_BYTES_MIN, min_u64(asked, spare / SHARE));
	/* Nobody depends on it but the writer: whoever dies here leaves a window like any other. */
	if (fitting != now)
		shm_store_relaxed(&writer->entry->window_bytes, fitting);
}
