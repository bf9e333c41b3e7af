/* SPDX-License-Identifier: MIT */
/*
 * stall - a writer that may not go on, and readers that do not move.
 *
 * With the fastest reader as the pace whoever moves may come to be it, so none must have:
 * the sum of all positions is the same. With the slowest as the pace, and when the ring is
 * full, it is the slowest that is waited for, whatever the others do; but if a part is in a
 * file that was given up, whoever reads there has the ring yet before it: then it is all.
 *
 * Who is given up is not told: its bytes are overwritten, as ever with `floor` raised before
 * (see open_ring()), and it finds that out when it comes for them. A cursor that is behind
 * `floor`, where no file has the bytes, counts no more: that is all that says so, and it says
 * it to the next producer as well. One that moves in that very moment is there after all.
 */
#include "base/clock.h"
#include "stream/stream.h"

#define RUN_BYTES (256u << 10) /* at once; then those who stay are looked at again */

/* Is it one reader that it waits for, whatever the others do? */
static bool waits_for_slowest(const struct scache_writer *writer)
{
	if (writer->ring_is_full)
		return writer->stall.slowest >= writer->flushed;
	return writer->pace_slowest;
}

static bool has_moved(const struct scache_writer *writer)
{
	const struct stall *stall = &writer->stall;

	/* Who has come since has as much time as the others. */
	return writer->readers > stall->begun_readers || stall->slowest != stall->begun_slowest ||
	       (!waits_for_slowest(writer) && stall->sum != stall->begun_sum);
}

static void begin(struct scache_writer *writer, int64_t now_ns)
{
	struct stall *stall = &writer->stall;

	stall->begun_sum = stall->sum;
	stall->begun_slowest = stall->slowest;
	stall->begun_readers = writer->readers;
	stall->since_ns = now_ns;
	stall->is_counted = stall->runs_on = false;
}

/* It goes on: as it should, or it has to wait anew. */
static void end(struct scache_writer *writer)
{
	/* Whom it has given up may have been the last. */
	if (writer->stall.runs_on && writer->ring_only)
		shm_store(&writer->entry->attention, 1);
	writer->stall.since_ns = 0;
	writer->stall.runs_on = false;
}

int stall_look(struct scache_writer *writer)
{
	struct stall *stall = &writer->stall;
	int64_t now_ns;

	if (likely(writer->terms.stall_ns == UINT64_MAX))
		return 0;
	/* Nobody is there, and somebody may come: that has its own time. */
	if (writer->left_since_ns != 0) {
		end(writer);
		return 0;
	}
	now_ns = clock_own_ns();
	if (stall->since_ns == 0 || has_moved(writer))
		begin(writer, now_ns);
	if ((uint64_t)(now_ns - stall->since_ns) < writer->terms.stall_ns || stall->runs_on)
		return 0;
	if (!stall->is_counted)
		peer_count(writer->store->peer, STAT_STALLED, 1);
	stall->is_counted = true;
	if (writer->terms.stall_policy == SCACHE_STALL_ABORT)
		return pace_fail(writer, "no reader has moved for", writer->terms.stall_ns);
	stall->runs_on = writer->terms.stall_policy == SCACHE_STALL_RUN;
	return stall->runs_on;
}

/* The ring alone, and it is full: up to where the next one is. */
static uint64_t overrun_slowest(struct scache_writer *writer)
{
	struct cursor_survey survey;

	if (!writer->door_closed) {
		pace_close_door(writer, &survey);
		/* Somebody may have slipped in. */
		if (has_moved(writer)) {
			end(writer);
			return 0;
		}
	}
	cursor_survey_from(writer->store->segment, writer->name,
			   max_u64(writer->stall.begun_slowest, writer->flushed) + 1, &survey);
	writer->slowest = survey.count > 0 ? survey.slowest : UINT64_MAX;
	return min_u64(pace_ring_room(writer), RUN_BYTES);
}

uint64_t stall_room(struct scache_writer *writer, uint64_t bytes)
{
	if (bytes > 0 || (writer->stall.runs_on && has_moved(writer))) {
		end(writer);
		return bytes;
	}
	if (!writer->stall.runs_on)
		return 0;
	if (!writer->ring_only)
		return RUN_BYTES;
	return writer->ring_is_full ? overrun_slowest(writer) :
				      min_u64(pace_ring_room(writer), RUN_BYTES);
}
