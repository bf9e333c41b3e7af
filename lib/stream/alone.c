/* SPDX-License-Identifier: MIT */
/*
 * alone - a producer whose file has failed goes on from the ring alone: the disk is full,
 * a limit is reached, or it breaks. Whoever reads gets every byte, nobody new comes.
 *
 * What is in the file already stays there for those behind, and goes as the last of
 * them has passed it: holes are punched. They are announced first (`punched`), and who has
 * copied out of the file looks there: it would have copied zeros. Who shows the file
 * itself does so only from where others see it on, which the holes never reach.
 *
 * Holes are multiples of PUNCH_BYTES, and begin there: a part of a page-cache folio would be
 * overwritten with zeros, also where sendfile(2) has lent it to a pipe or a socket. Of a
 * compressed file that is not done yet one finds no block without those before it,
 * so it goes as one.
 *
 * A producer that never had a ring is given one of those that are kept back.
 */
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/step.h"
#include "base/thread.h"
#include "index/ring.h"
#include "store/blob.h"
#include "store/limits.h"
#include "stream/stream.h"

#define PUNCH_BYTES (2u << 20) /* no folio that a file system makes by itself is larger */
#define PUNCH_MODE (FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE)

void writer_give_up_file(struct scache_writer *writer, int fd)
{
	UNCANCELLED;
	struct stat st;

	if (fd < 0)
		return;
	/* What was never announced goes at once. */
	if (!writer->is_lz4 || writer->flushed == 0)
		(void)!ftruncate(fd, (off_t)writer->flushed);
	limits_settle(writer->store, writer->name, fd);
	/* A hole where there is nothing: or bytes would be said to be gone for no gain. */
	if (writer->flushed > 0 && fstat(fd, &st) == 0 &&
	    fallocate(fd, PUNCH_MODE, (off_t)round_up_u64((uint64_t)st.st_size, PUNCH_BYTES),
		      PUNCH_BYTES) == 0)
		writer->punch_fd = fd;
	else
		close(fd);
}

void writer_go_without_file(struct scache_writer *writer)
{
	struct store *store = writer->store;

	if (writer->ring_only)
		return;
	compress_stop(writer);
	writer->ring_only = true;
	writer_give_up_file(writer, writer->fd);
	writer->fd = -1;
	shm_store(&writer->entry->flags, shm_load_relaxed(&writer->entry->flags) | ENTRY_RING_ONLY);
	window_fit(writer, false);
	/* STEP file-given-up: findable, ring only. Die here: the reaper fails it. */
	STEP("file-given-up");
	/* Nobody new: byte 0 is going to be gone. Whoever is attached is found by the survey. */
	writer->door_closed = true;
	entry_hide(store->segment, writer->name, ENTRY_FILLING);
	peer_count(store->peer, STAT_DEGRADED, 1);
}

void writer_use_ring(struct scache_writer *writer, uint32_t ring)
{
	struct segment *segment = writer->store->segment;

	writer->ring = segment_ring(segment, ring);
	writer->ring_bytes = segment->geometry.ring_bytes;
	writer->slice_bytes = min_u64(SLICE_BYTES_MAX, writer->ring_bytes / 4);
	writer->flush_bytes = min_u64(FLUSH_BYTES_MAX, writer->ring_bytes / 2);
}

void writer_rescue(struct scache_writer *writer)
{
	struct store *store = writer->store;
	uint32_t ring = ring_claim_kept(store->peer, writer->name);

	writer->is_stranded = ring == RING_NONE;
	if (ring == RING_NONE)
		return;
	shm_store_relaxed(&writer->entry->ring, ring + 1);
	/* STEP rescue-noted: no byte is in it. Die here: who takes over gives it back. */
	STEP("rescue-noted");
	/* ORDER ring-given, release: which ring before a floor that leads there. Pairs with copy_from_ring(). */
	shm_store_release(&writer->entry->floor, writer->flushed);
	/* STEP rescue-begun: the next byte is going to be there. Die here: as with a ring from the start. */
	STEP("rescue-begun");
	writer_use_ring(writer, ring);
	peer_count(store->peer, STAT_EMERGENCIES, 1);
	writer_go_without_file(writer);
}

/* Where the slowest is: also one that was given up, for it may still be shown the file. */
static uint64_t passed_bytes(const struct scache_writer *writer)
{
	struct cursor_survey survey;

	cursor_survey(writer->store->segment, writer->name, &survey);
	return survey.count > 0 ? survey.slowest : UINT64_MAX;
}

/* How much of its file nobody needs: up to *@ret_position of the stream. */
static uint64_t spent_bytes(const struct scache_writer *writer, uint64_t passed,
			    uint64_t *ret_position)
{
	struct stat st;
	uint64_t spent = min_u64(passed, writer->flushed);

	*ret_position = spent;
	if (!writer->is_lz4)
		return *ret_position = spent - spent % PUNCH_BYTES;
	if (spent < writer->flushed || fstat(writer->punch_fd, &st) < 0)
		return 0;
	return (uint64_t)st.st_size - (uint64_t)st.st_size % PUNCH_BYTES;
}

void writer_punch(struct scache_writer *writer)
{
	UNCANCELLED;
	shm_u64 *charge = &writer->store->segment->charges[writer->name.idx];
	uint64_t passed, position, until, before;
	bool is_over;

	if (likely(writer->punch_fd < 0))
		return;
	passed = passed_bytes(writer);
	until = spent_bytes(writer, passed, &position);
	/* Then what is left, if anything, is less than a hole. */
	is_over = passed >= writer->flushed;
	if (until > writer->punched) {
		/* ORDER punched, seq_cst: punched before the hole. Pairs with copy_from_file(). */
		shm_store(&writer->entry->punched, position);
		/* STEP punch-told: gone to all, and there yet. Die here: it goes with the entry. */
		STEP("punch-told");
		before = shm_load_relaxed(charge);
		is_over |= fallocate(writer->punch_fd, PUNCH_MODE, (off_t)writer->punched,
				     (off_t)(until - writer->punched)) < 0;
		writer->punched = until;
		limits_settle(writer->store, writer->name, writer->punch_fd);
		peer_count(writer->store->peer, STAT_PUNCHED_BYTES,
			   before - min_u64(before, shm_load_relaxed(charge)));
	}
	if (is_over) {
		close(writer->punch_fd);
		writer->punch_fd = -1;
	}
}
