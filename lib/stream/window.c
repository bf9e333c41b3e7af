/* SPDX-License-Identifier: MIT */
/*
 * window - a smaller one where space is short: what is produced far ahead of its readers may
 * be what the disk has no room for.
 *
 * Short it is when others had to go and still there is no room to charge as far ahead as usual
 * (room.c): a cache that is merely full is none. It is set there, which is seldom, by whatever
 * thread stores; so it stands in the entry, where all see it, and the writer looks there. Who
 * stores nothing any more has the window that was asked for.
 */
#include "store/limits.h"
#include "stream/stream.h"

#define SHARE 4			  /* of what may be stored yet one part is for the window */
#define WINDOW_BYTES_MIN (256u << 10)

uint64_t window_inherited(const struct scache_writer *writer)
{
	const struct segment *segment = writer->store->segment;
	uint64_t now = shm_load_relaxed(&writer->entry->window_bytes);

	/* Then that is what was asked for. */
	if (writer->ring_only || now < WINDOW_BYTES_MIN)
		return now;
	return max_u64(now, segment_setting(segment, SETTING_WINDOW_BYTES));
}

void window_fit(struct scache_writer *writer, bool is_short)
{
	uint64_t asked = writer->asked_bytes, fitting = asked;
	struct limits_use use;

	/* Lock step, or no limit: of those it is no matter of how much. */
	if (asked <= WINDOW_BYTES_MIN || asked == UINT64_MAX)
		return;
	if (unlikely(is_short)) {
		limits_measure(writer->store, &use);
		fitting = max_u64(WINDOW_BYTES_MIN, min_u64(asked, use.spare_bytes / SHARE));
	}
	/* Nobody depends on it but the writer: whoever dies here leaves a window like any other. */
	if (fitting != shm_load_relaxed(&writer->entry->window_bytes))
		shm_store_relaxed(&writer->entry->window_bytes, fitting);
}
