/* SPDX-License-Identifier: MIT */
/*
 * pread - bytes from anywhere: once, while the reader's position stays, or (seek) from
 * there on.
 */
#include <errno.h>

#include "base/thread.h"
#include "shm/wait.h"
#include "stream/stream.h"

/*
 * The bytes at @offset are not there. With a file, say that we want them, so
 * that the writer does not wait for us; without one it must not go on.
 */
static int ask_for(struct scache_reader *reader, uint64_t offset)
{
	uint64_t window = shm_load_relaxed(&reader->entry->window_bytes);

	if (!(shm_load(&reader->entry->flags) & ENTRY_RING_ONLY)) {
		reader_set_paced(reader, offset);
		return 0;
	}
	window = max_u64(1, min_u64(window, reader->ring_mask + 1));
	if (offset - min_u64(offset, reader->paced) >= window)
		return -EDEADLK;
	/* There may be room since we last moved, if less than what the writer sleeps for. */
	reader->stats[STAT_WAKES] += (uint64_t)wait_announce(&reader->entry->writer_event);
	return 0;
}

ssize_t scache_pread(struct scache_reader *reader, void *ret_data, size_t bytes, uint64_t offset,
		     int64_t timeout_ns)
{
	KEEP_ERRNO;
	struct patience patience = { .timeout_ns = timeout_ns };
	int ret = reader_check_handle(reader);
	ssize_t done;

	if (ret == -ECHILD || ret == -ESTALE || bytes == 0)
		return ret == -ECHILD || ret == -ESTALE ? ret : 0;
	/* The other production has proved to be another: what it has at @offset is not the stream's. */
	if (ret == -EOWNERDEAD && reader->replay != NULL)
		return ret;
	bytes = (size_t)min_u64(bytes, INT64_MAX);
	reader->shown_bytes = 0;
	for (;;) {
		uint64_t state, written;

		/*
		 * Nobody remembers what this will be: no other producer can take it up. But if one
		 * has just done so, first of all to where the caller was.
		 */
		if (reader->replay != NULL && !replay_is_behind(reader)) {
			replay_free(reader->replay);
			reader->replay = NULL;
		}
		/* ORDER sealed-written, acquire: state before written. Pairs with end_with(). */
		state = shm_load_acquire(reader->state);
		if (reader_starts_over(reader, state))
			continue;
		if (state_gen(state) != reader->name.gen)
			return -ESTALE;
		written = shm_load_acquire(&reader->entry->written);
		if (written > reader->position && replay_is_behind(reader)) {
			ret = replay_some(reader, written);
			if (ret < 0)
				return reader_note_error(reader, ret);
			continue;
		}
		if (written > offset && !replay_is_behind(reader)) {
			done = copy_out(reader, offset, ret_data,
					(size_t)min_u64(bytes, written - offset));
			if (done == -ENODATA && reader_begins_elsewhere(reader))
				continue;
			reader->has_begun |= done > 0;
			reader_count_read(reader);
			return done;
		}
		ret = reader_ended(reader, state);
		if (ret == 0 && replay_is_behind(reader))
			ret = reader->error = -EOWNERDEAD;
		if (ret != -EAGAIN)
			return reader_is_still_there(reader) ? ret : -ESTALE;
		if (replay_is_behind(reader)) {
			ret = reader_await(reader, reader->position, &patience);
		} else {
			ret = ask_for(reader, offset);
			if (ret == 0)
				ret = reader_await(reader, offset, &patience);
		}
		if (ret < 0)
			return ret;
	}
}

/*
 * Behind what others see as our position nothing is kept for us: is the byte at @offset
 * gone already? If not yet, a read may find that it is by then.
 */
static bool is_gone(struct scache_reader *reader, uint64_t offset)
{
	/* ORDER flushed, acquire: floor before flushed, which is at least that. Pairs with writer_flush(). */
	return shm_load_acquire(&reader->entry->floor) > offset &&
	       (shm_load_acquire(&reader->entry->flushed) <= offset ||
		shm_load_acquire(&reader->entry->punched) > offset) &&
	       shm_load_acquire(&reader->entry->written) > offset;
}

void reader_go_to(struct scache_reader *reader, uint64_t offset)
{
	/* There is no checksum of bytes with a gap among them. */
	replay_free(reader->replay);
	reader->replay = NULL;
	reader->has_sought = true;
	reader->position = offset;
	/* Never lower: the writer may already have gone on for it. */
	reader_set_paced(reader, offset);
}

int64_t scache_seek(struct scache_reader *reader, uint64_t offset)
{
	KEEP_ERRNO;
	int ret = reader_check_handle(reader);

	if (ret == -ECHILD || ret == -ESTALE)
		return ret;
	/* As for a pread: what this production has there is not the stream's. */
	if (ret == -EOWNERDEAD && reader->replay != NULL)
		return ret;
	if (offset > INT64_MAX)
		return -EINVAL;
	reader->shown_bytes = 0;
	if (replay_is_behind(reader)) {
		replay_go_to(reader->replay, offset);
		return (int64_t)offset;
	}
	if (is_gone(reader, offset))
		return reader_is_still_there(reader) ? -ENODATA : -ESTALE;
	if (!reader_is_still_there(reader))
		return -ESTALE;
	reader->error = 0;
	reader_go_to(reader, offset);
	return (int64_t)offset;
}
