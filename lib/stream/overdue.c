/* SPDX-License-Identifier: MIT */
/*
 * overdue - a production that takes longer than the cache allows (max_fill_ns).
 *
 * Its writer finds that out when it writes, waits or checks. While it does not, whoever
 * comes for the key, or sweeps, closes the door (store/sweep.h), so that there can be
 * another; who is attached stays. What is an orphan then fails (index/repair.h).
 */
#include "base/clock.h"
#include "store/sweep.h"
#include "stream/stream.h"

int overdue_look(struct scache_writer *writer)
{
	const struct segment *segment = writer->store->segment;
	uint64_t most_ns = segment_setting(segment, SETTING_MAX_FILL_NS);

	if (likely(most_ns == UINT64_MAX) ||
	    !entry_is_overdue(segment, writer->name.idx, clock_shared_ns()))
		return 0;
	peer_count(writer->store->peer, STAT_OVERDUE, 1);
	return pace_fail(writer, "production took longer than", most_ns);
}

void overdue_note(const struct scache_writer *writer)
{
	uint64_t most_ns = segment_setting(writer->store->segment, SETTING_MAX_FILL_NS);

	if (unlikely(most_ns != UINT64_MAX))
		sweep_note_expiry(writer->store,
				  add_saturated_u64(shm_load_relaxed(&writer->entry->created_ns),
						    most_ns));
}
