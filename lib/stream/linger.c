/* SPDX-License-Identifier: MIT */
/*
 * linger - all readers have left: what may be worth it to go on.
 *
 * Never behind a closed door: nobody can come any more, and nothing will be found. While it
 * lingers the window counts from byte 0, where whoever comes begins.
 */
#include "base/clock.h"
#include "stream/stream.h"

static bool is_nearly_done(const struct scache_writer *writer)
{
	uint64_t all = writer->declared_bytes, percent = writer->terms.finish_percent;
	uint64_t most_left = writer->terms.finish_bytes;

	if (all == UINT64_MAX)
		return false;
	if (percent > 0 &&
	    writer->written >= all / 100 * percent + (all % 100 * percent + 99) / 100)
		return true;
	if (most_left == 0)
		return false;
	return all - writer->written <= (most_left == SCACHE_ZERO ? 0 : most_left);
}

bool linger_is_borne(struct scache_writer *writer)
{
	int64_t now_ns;

	if (state_is_hidden(shm_load(writer->state)))
		return false;
	/* And it stays that: while the door is open nobody has to be asked again. */
	writer->is_nearly_done = is_nearly_done(writer);
	if (writer->is_nearly_done)
		return true;
	if (writer->terms.linger_ns == 0)
		return false;
	now_ns = clock_own_ns();
	if (writer->left_since_ns == 0)
		writer->left_since_ns = now_ns;
	return (uint64_t)(now_ns - writer->left_since_ns) < writer->terms.linger_ns;
}
