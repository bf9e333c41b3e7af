/* SPDX-License-Identifier: MIT */
/*
 * pace - how far a writer may go, and waiting for those it must not leave behind.
 *
 * Nobody counts readers or keeps their maximum. The cursors are the truth;
 * the writer surveys them when it would have to stop, and remembers the
 * fastest one's cell, which is nearly always still the fastest.
 *
 * With a file the fastest reader sets the pace, unless the writer was told
 * otherwise: the others find everything in the file. Without one it is the
 * slowest: the ring is all there is.
 *
 * The window in force stands in the entry alone: see window.c.
 */
#include <errno.h>
#include <stdio.h>

#include "base/clock.h"
#include "base/detail.h"
#include "base/step.h"
#include "base/thread.h"
#include "index/repair.h"
#include "shm/wait.h"
#include "stream/stream.h"

#define WAKE_QUANTUM_BYTES (1u << 20)
#define DEADLOCK_PATIENCE_NS NS_PER_SEC

void pace_look_after_readers(struct scache_writer *writer)
{
	UNCANCELLED;

	repair_readers(writer->store->peer, writer->name, &writer->reap_hand);
	/* Whoever died between leaving and saying so has left all the same. */
	shm_store(&writer->entry->attention, 1);
}

/* All but those that were given up: their bytes are gone, and nothing keeps them. */
static void survey_attached(const struct scache_writer *writer, struct cursor_survey *ret_survey)
{
	uint64_t from = 0;

	if (writer->ring_only && writer->ring != NULL)
		from = shm_load_relaxed(&writer->entry->floor);
	cursor_survey_from(writer->store->segment, writer->name,
			   from > writer->flushed ? from : 0, ret_survey);
}

bool pace_is_abandoned(struct scache_writer *writer)
{
	bool is_open = !state_is_hidden(shm_load(writer->state));
	struct cursor_survey survey;

	if (writer->run_to_end || (writer->is_nearly_done && is_open))
		return false;
	/* Nobody yet is not nobody any more, unless the door is closed already. */
	if (shm_load(&writer->entry->had_reader) == 0 && is_open)
		return false;
	survey_attached(writer, &survey);
	if (survey.count > 0) {
		writer->left_since_ns = 0;
		writer->is_nearly_done = false;
		return false;
	}
	if (linger_is_borne(writer))
		return false;
	/* ORDER door, seq_cst: HIDDEN before the second survey. Pairs with cursor_attach(). */
	entry_hide(writer->store->segment, writer->name, ENTRY_FILLING);
	survey_attached(writer, &survey);
	writer->left_since_ns = 0;
	/* If somebody slipped in, we go on for them; newcomers start afresh. */
	return survey.count == 0;
}

/* How many bytes the window allows; 0 = stop. Uses the pace as last seen. */
static uint64_t window_room(const struct scache_writer *writer)
{
	uint64_t ahead = writer->written - min_u64(writer->pace, writer->written);
	uint64_t window_bytes = shm_load_relaxed(&writer->entry->window_bytes);

	if (window_bytes == UINT64_MAX)
		return UINT64_MAX;
	/* Lock step: whatever one call brings, once everything before it has been read. */
	if (window_bytes == 0)
		return ahead == 0 || writer->mid_call ? UINT64_MAX : 0;
	return ahead < window_bytes ? window_bytes - ahead : 0;
}

/* Ask all cursors. Nobody: as if there were one at the start, or, if told to go on, at the end. */
void pace_survey(struct scache_writer *writer, struct cursor_survey *survey)
{
	uint64_t nobody = writer->run_to_end || writer->is_nearly_done ? writer->written : 0;
	uint64_t pace;

	survey_attached(writer, survey);
	writer->readers = survey->count;
	if (survey->count == 0)
		survey->slowest = survey->fastest = nobody;
	writer->stall.sum = survey->sum;
	writer->stall.slowest = survey->slowest;
	pace = writer->pace_slowest ? survey->slowest : survey->fastest;
	writer->pace = min_u64(pace, writer->written);
	writer->pace_cell = writer->pace_slowest ? CURSOR_NONE : survey->fastest_cell;
}

/* As last seen. */
uint64_t pace_ring_room(const struct scache_writer *writer)
{
	uint64_t kept;

	/* Until the ring is full its first byte is there, and anybody may join. */
	if (!writer->door_closed)
		return writer->ring_bytes - writer->written;
	kept = writer->written - max_u64(writer->flushed, min_u64(writer->slowest, writer->written));
	return writer->ring_bytes - min_u64(kept, writer->ring_bytes);
}

void pace_close_door(struct scache_writer *writer, struct cursor_survey *ret_survey)
{
	/* STEP ring-full: whoever comes now finds byte 0 yet. Die here: nothing has changed. */
	STEP("ring-full");
	/* ORDER door, seq_cst: HIDDEN before the second survey. Pairs with cursor_attach(). */
	entry_hide(writer->store->segment, writer->name, ENTRY_FILLING);
	writer->door_closed = true;
	pace_survey(writer, ret_survey);
}

/*
 * Without a file. Before the first byte goes the door is closed, and whoever
 * slipped in holds it; behind a closed door nobody comes, so what the last
 * survey said of the slowest is never too much.
 */
static uint64_t room_without_file(struct scache_writer *writer)
{
	struct cursor_survey survey;

	if (pace_ring_room(writer) == 0 || window_room(writer) == 0) {
		pace_survey(writer, &survey);
		if (!writer->door_closed && pace_ring_room(writer) == 0 && survey.slowest > 0)
			pace_close_door(writer, &survey);
		writer->slowest = survey.count > 0 ? survey.slowest : UINT64_MAX;
		if (writer->door_closed)
			writer_punch(writer);
	}
	writer->ring_is_full = pace_ring_room(writer) == 0;
	return min_u64(pace_ring_room(writer), window_room(writer));
}

/* The fastest reader's cell is asked first, everybody only if that does not help. */
static uint64_t room_with_file(struct scache_writer *writer)
{
	struct segment *segment = writer->store->segment;
	uint64_t bytes = window_room(writer);
	struct cursor_survey survey;

	if (bytes == 0 && writer->pace_cell != CURSOR_NONE) {
		const struct shm_cursor *cursor = cursor_at(segment, writer->pace_cell);
		uint64_t position = shm_load((shm_u64 *)&cursor->position);

		/* Looked at after the position: it was this reader's, then. */
		if (cursor_is_attached(segment, writer->pace_cell, writer->name))
			writer->pace = min_u64(position, writer->written);
		bytes = window_room(writer);
	}
	if (bytes == 0) {
		pace_survey(writer, &survey);
		bytes = window_room(writer);
	}
	return bytes;
}

uint64_t pace_room(struct scache_writer *writer)
{
	uint64_t bytes = writer->ring_only ? room_without_file(writer) : room_with_file(writer);

	return likely(writer->stall.since_ns == 0) ? bytes : stall_room(writer, bytes);
}

/*
 * Where a reader has to get for the writer to be woken: not for every byte.
 * Whoever holds us back has as much as we want of it still to read, so it
 * gets there without a byte more from us.
 */
static uint64_t wanted_position(const struct scache_writer *writer)
{
	uint64_t window_bytes = shm_load_relaxed(&writer->entry->window_bytes);
	uint64_t limit = writer->ring_is_full ? writer->ring_bytes : window_bytes;
	uint64_t held = writer->written - min_u64(writer->written, limit);

	/* More than where that reader is now, or it would not cross it. */
	return min_u64(writer->written, held + max_u64(1, min_u64(WAKE_QUANTUM_BYTES, limit / 2)));
}

/* Are we waiting for a reader that only this very thread could move? */
static bool is_deadlocked(struct scache_writer *writer, int64_t since_ns)
{
	struct cursor_survey survey;

	if (writer->pair == NULL || clock_own_ns() - since_ns < (int64_t)DEADLOCK_PATIENCE_NS ||
	    atomic_load_explicit(&writer->pair->reader_thread, memory_order_relaxed) !=
		    thread_tag())
		return false;
	survey_attached(writer, &survey);
	if (!writer->pace_slowest && !writer->ring_is_full)
		return survey.count == 1;
	/* Whatever the others do, it is the slowest that we wait for. */
	return shm_load(&cursor_at(writer->store->segment, writer->pair->reader_cell)->position) <=
	       survey.slowest;
}

int pace_fail(struct scache_writer *writer, const char *what, uint64_t ns)
{
	char text[80];
	int bytes = snprintf(text, sizeof(text), "%s %llu.%03llu s", what,
			     (unsigned long long)(ns / NS_PER_SEC),
			     (unsigned long long)(ns / NS_PER_MS % 1000));

	scache_abort(writer, -ECANCELED, text, (size_t)bytes);
	detail_set(-ECANCELED, "%s", text);
	return writer->error;
}

void pace_accept(struct scache_writer *writer, const struct writer_terms *terms)
{
	writer->terms = *terms;
	if (!writer->taken_over)
		return;
	writer->asked_bytes = terms->window_bytes == SCACHE_ZERO ? 0 :
			      terms->window_bytes != 0 ? terms->window_bytes :
				      window_inherited(writer);
	shm_store_relaxed(&writer->entry->window_bytes, writer->asked_bytes);
}

int pace_wait(struct scache_writer *writer, int64_t since_ns, int64_t deadline_ns)
{
	struct shm_entry *entry = writer->entry;
	struct peer *peer = writer->store->peer;
	int64_t slept_at_ns;
	uint32_t event;
	int ret;

	shm_store(&entry->need, wanted_position(writer));
	/* STEP need-set: readers know where to wake us. Die here: the reaper fails the entry. */
	STEP("need-set");
	/* ORDER event-bit, seq_cst: the bit before positions are read again. Pairs with set_paced(). */
	event = wait_prepare(&entry->writer_event);
	if (shm_load(&entry->attention) != 0 || (!writer->is_stranded && pace_room(writer) > 0))
		return 0;
	if (atomic_load(&writer->cancelled))
		return -ECANCELED;
	slept_at_ns = clock_own_ns();
	if (slept_at_ns >= deadline_ns)
		return -ETIMEDOUT;
	peer_count(peer, STAT_WAITS, 1);
	ret = wait_park(&entry->writer_event, event, deadline_ns);
	peer_count(peer, STAT_BLOCKED_NS, (uint64_t)(clock_own_ns() - slept_at_ns));
	if (ret == 0)
		return 0;
	/* A tick: those who hold us back may be dead, or we may be them ourselves. */
	pace_look_after_readers(writer);
	return !writer->is_stranded && is_deadlocked(writer, since_ns) ? -EDEADLK : 0;
}
