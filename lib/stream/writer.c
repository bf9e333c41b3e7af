/* SPDX-License-Identifier: MIT */
/*
 * writer - bytes in.
 *
 * Before it touches ring memory the writer raises `floor` to what will still
 * be intact, then copies, then publishes `written`. With a file floor never
 * passes `flushed`; without one it never passes the slowest reader.
 *
 * Ending: flush everything, floor = MAX, ring freed, and only then the state.
 */
#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/check.h"
#include "base/clock.h"
#include "base/step.h"
#include "base/thread.h"
#include "index/ring.h"
#include "shm/wait.h"
#include "store/blob.h"
#include "store/sweep.h"
#include "stream/stream.h"

#define SLICE_BYTES_MAX (256u << 10) /* published at once; readers start on it */
#define FLUSH_BYTES_MAX (1u << 20)   /* written to the file at once */
#define CHECK_BYTES (16u << 20)	     /* how often readers that were killed are looked for */

int writer_open(struct store *store, struct entry_name name, int fd,
		struct scache_writer **ret_writer)
{
	struct scache_writer *writer = calloc(1, sizeof(*writer));
	struct segment *segment = store->segment;
	uint32_t ring;

	if (writer == NULL)
		return -ENOMEM;
	writer->magic = MAGIC_WRITER;
	writer->store = store;
	writer->name = name;
	writer->entry = entry_at(segment, name.idx);
	writer->state = entry_state_word(segment, name.idx);
	writer->fd = fd;
	writer->pace_cell = CURSOR_NONE;
	writer->window_bytes = shm_load_relaxed(&writer->entry->window_bytes);
	writer->run_to_end = shm_load_relaxed(&writer->entry->flags) & ENTRY_RUN_TO_END;
	writer->key_bytes = shm_load_relaxed(&writer->entry->key_bytes) & 255;
	ring = shm_load_relaxed(&writer->entry->ring);
	if (ring > 0 && ring <= segment->geometry.rings) {
		writer->ring = segment_ring(segment, ring - 1);
		writer->ring_bytes = segment->geometry.ring_bytes;
		writer->slice_bytes = min_u64(SLICE_BYTES_MAX, writer->ring_bytes / 4);
		writer->flush_bytes = min_u64(FLUSH_BYTES_MAX, writer->ring_bytes / 2);
	}
	*ret_writer = writer;
	return 0;
}

/* ---------------------------------------------------------------- the end */

static void count_bytes(struct scache_writer *writer)
{
	peer_count(writer->store->peer, STAT_BYTES_PRODUCED, writer->written - writer->bytes_counted);
	writer->bytes_counted = writer->written;
}

static void wake_readers(struct scache_writer *writer)
{
	peer_count(writer->store->peer, STAT_WAKES,
		   (uint64_t)wait_announce(&writer->entry->readers_event));
}

/*
 * The file has everything that was published: the ring may go. While the
 * entry is still ours: after its state has changed, somebody may sweep it
 * and use the slot again.
 */
static void leave_ring(struct scache_writer *writer)
{
	if (writer->ring == NULL || writer->ring_only || writer->flushed != writer->written)
		return;
	/* ORDER ring-floor, seq_cst: floor before the ring has another owner. Pairs with copy_from_ring(). */
	shm_store(&writer->entry->floor, UINT64_MAX);
	/* STEP ring-left: readers use the file. Die here: freed with the entry. */
	STEP("ring-left");
	ring_release(writer->store->segment, writer->name);
	writer->ring = NULL;
}

/*
 * FILLING -> @state, by one CAS, and only then is anybody told: the key is
 * free, or the blob is there, before a reader learns of the end.
 */
static int end_with(struct scache_writer *writer, enum entry_state state, uint32_t flags)
{
	struct store *store = writer->store;
	struct shm_entry *entry = writer->entry;
	uint64_t ended_ns = clock_shared_ns(), max_age_ns = shm_load_relaxed(&entry->max_age_ns);
	uint64_t expires_ns = max_age_ns > UINT64_MAX - ended_ns ? UINT64_MAX : ended_ns + max_age_ns;

	writer->ended = true;
	count_bytes(writer);
	leave_ring(writer);
	shm_store_relaxed(&entry->ended_ns, ended_ns);
	shm_store_relaxed(&store->segment->expires[writer->name.idx], expires_ns);
	/* STEP entry-ending: all of it is there but the word. Die here: the reaper fails it. */
	STEP("entry-ending");
	/* ORDER entry-ended, release: code, sizes and times before the state. Pairs with reader_ended(). */
	/* ORDER sealed-written, release: written before the state. Pairs with scache_read(). */
	if (!entry_change(store->peer, writer->name, ENTRY_FILLING, state, flags))
		return -ESTALE;
	/* STEP entry-ended: nobody told. Die here: waiters look at their tick. */
	STEP("entry-ended");
	peer_count(store->peer, state == ENTRY_SEALED ? STAT_FINISHES : STAT_FAILURES, 1);
	wake_readers(writer);
	if (state == ENTRY_SEALED)
		sweep_note_expiry(store, expires_ns);
	if (state_is_garbage(shm_load(writer->state)))
		sweep_entry(store, writer->name);
	return 0;
}

/* Production has failed, with the code that its readers will see. Sticky. */
static int fail(struct scache_writer *writer, int code)
{
	shm_store_relaxed(&writer->entry->code, (uint32_t)code);
	end_with(writer, ENTRY_FAILED, ENTRY_HIDDEN);
	writer->error = code > 0 ? -EREMOTEIO : code;
	return writer->error;
}

/* ------------------------------------------------------------- without a file */

void writer_go_without_file(struct scache_writer *writer)
{
	struct store *store = writer->store;

	if (writer->ring_only)
		return;
	writer->ring_only = true;
	if (writer->fd >= 0) {
		close(writer->fd);
		writer->fd = -1;
	}
	shm_store(&writer->entry->flags, shm_load_relaxed(&writer->entry->flags) | ENTRY_RING_ONLY);
	/* Nobody new: byte 0 is going to be gone. Whoever is attached is found by the survey. */
	entry_hide(store->segment, writer->name, ENTRY_FILLING);
	peer_count(store->peer, STAT_DEGRADED, 1);
}

/* ------------------------------------------------------------------ writing */

/* Somebody left since we last looked. */
static int heed_attention(struct scache_writer *writer)
{
	if (likely(shm_load(&writer->entry->attention) == 0))
		return 0;
	/* Cleared before the survey, or a leaver in between would be missed. */
	shm_store(&writer->entry->attention, 0);
	return pace_is_abandoned(writer) ? fail(writer, -EPIPE) : 0;
}

/* Empty the ring to the file: whole flush units, or (@all) what there is. */
static void flush(struct scache_writer *writer, bool all)
{
	while (!writer->ring_only && writer->written > writer->flushed) {
		uint64_t offset = writer->flushed & (writer->ring_bytes - 1);
		uint64_t bytes = min_u64(writer->written - writer->flushed, writer->flush_bytes);

		bytes = min_u64(bytes, writer->ring_bytes - offset);
		if (bytes < writer->flush_bytes && !all)
			return;
		if (blob_write(writer->fd, writer->ring + offset, bytes, writer->flushed) < 0) {
			writer_go_without_file(writer);
			return;
		}
		/* STEP blob-written: in the file, not announced. Die here: bytes nobody counts. */
		STEP("blob-written");
		writer->flushed += bytes;
		/* ORDER flushed, release: the file before flushed, flushed before floor. Pairs with copy_from_file(). */
		shm_store_release(&writer->entry->flushed, writer->flushed);
	}
}

static void publish(struct scache_writer *writer, uint64_t bytes)
{
	/* STEP bytes-copied: not announced. Die here: bytes nobody counts. */
	STEP("bytes-copied");
	writer->written += bytes;
	/* ORDER event-bit, seq_cst: written before the bit. Pairs with wait_prepare(). */
	shm_store(&writer->entry->written, writer->written);
	/* STEP bytes-published: sleepers still asleep. Die here: they look at their tick. */
	STEP("bytes-published");
	if (unlikely(shm_load(&writer->entry->readers_event) & 1u))
		wake_readers(writer);
}

/* Copy at most @bytes into the ring. Returns the bytes taken. */
static uint64_t put_in_ring(struct scache_writer *writer, const unsigned char *data, uint64_t bytes)
{
	uint64_t offset = writer->written & (writer->ring_bytes - 1), end;

	bytes = min_u64(bytes, writer->slice_bytes);
	bytes = min_u64(bytes, writer->ring_bytes - offset);
	end = writer->written + bytes;
	if (end > writer->ring_bytes) {
		/* Release: whoever sees this floor sees a `flushed` that is not below it. */
		shm_store_release(&writer->entry->floor, end - writer->ring_bytes);
		/* STEP floor-raised: fewer bytes in the ring. Die here: readers use the file. */
		STEP("floor-raised");
	}
	/* ORDER ring-floor, release: floor before the bytes. Pairs with copy_from_ring(). */
	shm_fence_release();
	ring_copy_in(writer->ring + offset, data, bytes);
	publish(writer, bytes);
	return bytes;
}

/* No ring was to be had: each write goes to the file. 0 < bytes taken or -errno. */
static int64_t put_in_file(struct scache_writer *writer, const unsigned char *data, uint64_t bytes)
{
	int ret;

	bytes = min_u64(bytes, FLUSH_BYTES_MAX);
	ret = blob_write(writer->fd, data, bytes, writer->written);
	if (ret < 0)
		return fail(writer, ret);
	writer->flushed += bytes;
	shm_store_release(&writer->entry->flushed, writer->flushed);
	publish(writer, bytes);
	return (int64_t)bytes;
}

/* One slice. Bytes taken; 0 = no room now; -errno for good. */
static int64_t put(struct scache_writer *writer, const unsigned char *data, uint64_t bytes)
{
	uint64_t allowed;
	int ret = heed_attention(writer);

	if (ret < 0)
		return ret;
	if (writer->written - writer->checked_at >= CHECK_BYTES) {
		writer->checked_at = writer->written;
		pace_look_after_readers(writer);
		count_bytes(writer);
	}
	allowed = pace_room(writer);
	if (allowed == 0)
		return 0;
	bytes = min_u64(bytes, allowed);
	if (writer->ring == NULL)
		return put_in_file(writer, data, bytes);
	bytes = put_in_ring(writer, data, bytes);
	flush(writer, false);
	return (int64_t)bytes;
}

/* ---------------------------------------------------------------------- API */

static int check_handle(struct scache_writer *writer)
{
	SC_ASSERT(writer->magic == MAGIC_WRITER);
	if (peer_is_forked(writer->store->peer))
		return -ECHILD;
	if (writer->error < 0)
		return writer->error;
	return writer->ended ? -EINVAL : 0;
}

ssize_t scache_write(struct scache_writer *writer, const void *data, size_t bytes,
		     int64_t timeout_ns)
{
	KEEP_ERRNO;
	const unsigned char *from = data;
	int64_t since_ns = 0, deadline_ns = DEADLINE_NEVER, done;
	size_t taken = 0;
	int ret = check_handle(writer);

	if (ret < 0)
		return ret;
	while (taken < bytes) {
		writer->mid_call = taken > 0;
		done = put(writer, from + taken, bytes - taken);
		/* What was taken first; a sticky error is told by the next call, too. */
		if (done < 0)
			return taken > 0 ? (ssize_t)taken : (ssize_t)done;
		taken += (size_t)done;
		if (done > 0) {
			since_ns = 0;
			continue;
		}
		if (timeout_ns == 0) {
			pace_look_after_readers(writer);
			ret = heed_attention(writer);
			return taken > 0 ? (ssize_t)taken : ret < 0 ? ret : -EAGAIN;
		}
		if (since_ns == 0) {
			since_ns = clock_own_ns();
			if (deadline_ns == DEADLINE_NEVER && timeout_ns > 0)
				deadline_ns = deadline_after(timeout_ns);
		}
		ret = pace_wait(writer, since_ns, deadline_ns);
		if (ret < 0)
			return taken > 0 ? (ssize_t)taken : ret;
	}
	return (ssize_t)taken;
}

int scache_writer_check(struct scache_writer *writer)
{
	KEEP_ERRNO;
	int ret = check_handle(writer);

	if (ret < 0)
		return ret;
	pace_look_after_readers(writer);
	return heed_attention(writer);
}

/* Everything published is in the file, or the file does not count any more. */
static void settle_file(struct scache_writer *writer)
{
	if (writer->ring != NULL)
		flush(writer, true);
	if (writer->ring_only)
		return;
	if (blob_seal(writer->store, writer->fd) < 0) {
		/* What a failed close has lost nobody knows: do not keep it. */
		writer->fd = -1;
		writer_go_without_file(writer);
	}
	writer->fd = -1;
}

int scache_finish(struct scache_writer *writer)
{
	KEEP_ERRNO;
	int ret = check_handle(writer);

	if (ret < 0)
		return ret;
	settle_file(writer);
	/* STEP blob-sealed: complete and read-only. Die here: the reaper fails it all the same. */
	STEP("blob-sealed");
	ret = end_with(writer, ENTRY_SEALED, writer->ring_only ? ENTRY_HIDDEN : 0);
	if (ret < 0)
		return writer->error = ret;
	return writer->ring_only ? SCACHE_NOT_KEPT : 0;
}

/* Keep the message behind the key, or behind the bytes in the file, or cut it. */
static void put_message(struct scache_writer *writer, const char *message, size_t bytes)
{
	struct shm_entry *entry = writer->entry;
	uint32_t at = (writer->key_bytes + 7) / 8 * 8;
	uint64_t words[SHM_KEY_WORDS] = { 0 };
	size_t here = 8 * SHM_KEY_WORDS - at, i;

	if (bytes > here && writer->fd >= 0 && !writer->ring_only &&
	    writer->flushed == writer->written &&
	    blob_write(writer->fd, message, bytes, writer->written) == 0) {
		shm_store_relaxed(&entry->flags,
				  shm_load_relaxed(&entry->flags) | ENTRY_FILE_MESSAGE);
	} else {
		bytes = bytes < here ? bytes : here;
		memcpy(words, message, bytes);
		for (i = 0; i < (bytes + 7) / 8; i++)
			shm_store_relaxed(&entry->key[at / 8 + i], words[i]);
	}
	shm_store_relaxed(&entry->message_bytes, (uint32_t)bytes);
}

int scache_abort(struct scache_writer *writer, int code, const void *message, size_t message_bytes)
{
	KEEP_ERRNO;
	int ret = check_handle(writer);

	if (ret < 0)
		return ret == writer->error ? 0 : ret; /* it has failed already */
	/* What our own calls mean by these no producer can say. */
	if (code == 0 || code == -EAGAIN || code == -ETIMEDOUT || code == -ESTALE ||
	    code == -ECHILD || code == -EOWNERDEAD || code == -EBADMSG || message_bytes > SCACHE_MESSAGE_BYTES_MAX ||
	    (message == NULL && message_bytes > 0))
		return -EINVAL;
	if (writer->ring != NULL)
		flush(writer, true);
	if (message_bytes > 0)
		put_message(writer, message, message_bytes);
	fail(writer, code);
	return 0;
}

int scache_writer_close(struct scache_writer *writer)
{
	KEEP_ERRNO;
	if (writer == NULL)
		return 0;
	SC_ASSERT(writer->magic == MAGIC_WRITER);
	if (!peer_is_forked(writer->store->peer)) {
		if (!writer->ended)
			scache_abort(writer, -ECANCELED, NULL, 0);
	}
	atomic_fetch_sub(writer->open_streams, 1);
	if (writer->fd >= 0)
		close(writer->fd);
	writer->magic = MAGIC_DEAD;
	pair_put(writer->pair);
	free(writer);
	return 0;
}
