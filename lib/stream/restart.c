/* SPDX-License-Identifier: MIT */
/*
 * restart - what a reader does about a producer that is dead or silent: have
 * another go on with the entry, or begin again with another one.
 */
#include <errno.h>
#include <stddef.h>

#include "base/clock.h"
#include "stream/stream.h"

/*
 * The producer was killed, or is silent, before this reader had a byte: begin
 * again where it came from, with another entry in this handle.
 */
static int start_over(struct scache_reader *reader, enum retake why)
{
	const size_t from = offsetof(struct scache_reader, store);
	/* Where its caller has sought to; but a replay begins at 0. */
	uint64_t position = reader->replay == NULL ? reader->position : 0;
	struct scache_reader *fresh, other;
	int ret = reader->origin->retake(reader->origin, why, &fresh);

	if (ret < 0)
		return ret;
	reader->shown_bytes = 0;
	reader_push_stats(reader);
	memcpy((char *)&other + from, (char *)reader + from, sizeof(other) - from);
	memcpy((char *)reader + from, (char *)fresh + from, sizeof(other) - from);
	memcpy((char *)fresh + from, (char *)&other + from, sizeof(other) - from);
	/* ORDER event-bit, seq_cst: the word before `cancelled` is looked at. Pairs with scache_cancel(). */
	atomic_store(&reader->sleeps_at, &reader->entry->readers_event);
	reader->position = position;
	reader_set_paced(reader, position);
	return scache_reader_close(fresh);
}

/* Its producer was killed and left an orphan: have ours go on, if we have one. */
static bool takes_over(struct scache_reader *reader, uint64_t state)
{
	return unlikely(state_of(state) == ENTRY_ORPHAN) && reader->origin != NULL &&
	       state_gen(state) == reader->name.gen &&
	       reader->origin->take_over(reader->origin, reader->store, reader->name, state) == 0;
}

bool reader_starts_over(struct scache_reader *reader, uint64_t state)
{
	if (takes_over(reader, state))
		return true;
	return unlikely(reader->origin != NULL) && (!reader->has_begun || reader->replay != NULL) &&
	       state_gen(state) == reader->name.gen && state_is_death(state) &&
	       start_over(reader, RETAKE_DEAD) == 0;
}

/* The writer has gone on without it, or has lost what was to be its first byte. */
bool reader_begins_elsewhere(struct scache_reader *reader)
{
	return reader->origin != NULL && !reader->has_sought &&
	       (!reader->has_begun || reader->replay != NULL) && reader_is_still_there(reader) &&
	       start_over(reader, RETAKE_GONE_ON) == 0;
}

/*
 * Is the producer silent for longer than this reader's caller bears? 0: no, or
 * we are served otherwise now; -ETIME.
 */
int reader_bear_silence(struct scache_reader *reader)
{
	int64_t now_ns = clock_own_ns();

	if (reader->silent_since_ns == 0)
		reader->silent_since_ns = now_ns;
	if ((uint64_t)(now_ns - reader->silent_since_ns) < reader->stall_ns)
		return 0;
	reader->silent_since_ns = 0;
	if (reader->origin == NULL || (reader->has_begun && reader->replay == NULL) ||
	    start_over(reader, RETAKE_SILENT) < 0)
		return -ETIME;
	reader->stall_ns = 0; /* our own may take all the time it likes */
	return 0;
}
