/* SPDX-License-Identifier: MIT */
/*
 * takeover - going on with what a dead producer has begun.
 *
 * What it published is all there: below `flushed` in the file, the rest in the
 * ring, which is the entry's and not the producer's. What it did beyond that,
 * in the ring, in the file, a message half made, nobody has seen: it is done
 * over, and the file is cut to its length at the end. No write of the dead can
 * come late: it is dead because the kernel says so.
 */
#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/step.h"
#include "base/thread.h"
#include "index/repair.h"
#include "index/ring.h"
#include "store/blob.h"
#include "stream/stream.h"

/* A ring that it had begun to leave has nothing that the file has not. */
static bool has_ring(const struct segment *segment, struct entry_name name)
{
	const struct shm_entry *entry = entry_at(segment, name.idx);
	uint32_t ring = shm_load_relaxed((shm_u32 *)&entry->ring);

	return ring > 0 && ring <= segment->geometry.rings &&
	       shm_load((shm_u64 *)&entry->floor) != UINT64_MAX &&
	       shm_load(&segment->ring_owners[ring - 1]) == name_word(name);
}

/* Its file, or -1: there is none and need not be. -ENOENT: there should be one. */
static int open_file(struct store *store, struct entry_name name, int *ret_fd)
{
	struct shm_entry *entry = entry_at(store->segment, name.idx);
	int fd;

	*ret_fd = -1;
	if (shm_load(&entry->flags) & ENTRY_RING_ONLY)
		return has_ring(store->segment, name) ? 0 : -ENOENT;
	/* Of an lz4 one the end may be there: a block that is not whole cannot be gone on with. */
	if (shm_load(&entry->flags) & ENTRY_LZ4 &&
	    (!has_ring(store->segment, name) || shm_load(&entry->flushed) % BLOCK_BYTES != 0))
		return -ENOENT;
	fd = blob_reopen(store, name, entry_hash(entry));
	if (fd >= 0) {
		*ret_fd = fd;
		return 0;
	}
	/* It had not come to make one, and the ring has everything yet. */
	if (fd == -ENOENT && has_ring(store->segment, name) && shm_load(&entry->flushed) == 0)
		return 0;
	return fd;
}

/* Ours: set the entry and the handle to what has been published, and nothing more. */
static void settle(struct scache_writer *writer, uint64_t state)
{
	struct segment *segment = writer->store->segment;
	struct shm_entry *entry = writer->entry;

	writer->taken_over = true;
	writer->written = shm_load(&entry->written);
	/*
	 * What passes the ring is in the file, and the ring given up to its end, a moment
	 * before it is published. What we put there instead must be read from the ring.
	 */
	if (writer->ring != NULL && has_ring(segment, writer->name) &&
	    shm_load(&entry->floor) > writer->written)
		shm_store(&entry->floor, writer->written);
	writer->flushed = min_u64(shm_load(&entry->flushed), writer->written);
	shm_store(&entry->flushed, writer->flushed);
	writer->bytes_counted = writer->written;
	writer->door_closed = writer->ring_only &&
			      (state_is_hidden(state) || shm_load(&entry->floor) > 0);
	/* It died between giving up its file and closing the door: byte 0 is gone. */
	if (writer->door_closed)
		entry_hide(segment, writer->name, ENTRY_FILLING);
	shm_store(&entry->flags, shm_load(&entry->flags) & ~ENTRY_FILE_MESSAGE);
	shm_store(&entry->message_bytes, 0);
	/* One that it was given and did not come to note or use, too. */
	if (!has_ring(segment, writer->name)) {
		/* ORDER ring-floor, seq_cst: floor before the ring has another owner. Pairs with copy_from_ring(). */
		shm_store(&entry->floor, UINT64_MAX);
		ring_release(segment, writer->name);
		writer->ring = NULL;
	}
	/* STEP takeover-settled: as if we had produced it. Die here: an orphan once more. */
	STEP("takeover-settled");
	/* What is there for readers behind goes as they pass it. */
	if (writer->door_closed && writer->flushed > 0)
		writer_give_up_file(writer, blob_reopen(writer->store, writer->name,
							entry_hash(entry)));
}

int writer_take_over(struct store *store, struct entry_name name, uint64_t state,
		     const struct writer_terms *terms, uint32_t level,
		     struct scache_writer **ret_writer)
{
	UNCANCELLED;
	struct scache_writer *writer;
	int fd, ret;

	/* Ours would fail as well, and before its readers: they may do better with another one. */
	if (entry_is_overdue(store->segment, name.idx, clock_shared_ns()) &&
	    repair_fail_orphan(store->peer, name, state))
		return -EAGAIN;
	ret = open_file(store, name, &fd);
	/* All that can fail before it is ours, so that it stays for others: if anybody can. */
	if (ret == -ENOENT && repair_fail_orphan(store->peer, name, state))
		return -EAGAIN;
	if (ret == 0)
		ret = writer_open(store, name, fd, &writer);
	if (ret < 0) {
		if (fd >= 0)
			close(fd);
		return ret;
	}
	if (!entry_take_over(store->peer, name, state)) {
		if (fd >= 0)
			close(fd);
		free(writer);
		return -EAGAIN;
	}
	writer->level = level;
	settle(writer, state);
	/* Before anything is stored, perhaps by another thread, which fits the window. */
	pace_accept(writer, terms);
	if (fd < 0 && !writer->ring_only) {
		fd = declared_create_file(store, name);
		writer->fd = fd;
		if (fd < 0)
			writer_go_without_file(writer);
	}
	/* What the dead did not come to flush: or it adds up, and is more than the ring holds. */
	if (writer->ring != NULL)
		writer_flush(writer, false);
	peer_count(store->peer, STAT_PRODUCTIONS, 1);
	*ret_writer = writer;
	return 0;
}

void writer_give_up(struct scache_writer *writer)
{
	/* A thread that goes on compressing would do so in the next producer's file. */
	compress_stop(writer);
	entry_give_up(writer->store->peer, writer->name);
	writer->ended = true;
	scache_writer_close(writer);
}
