/* SPDX-License-Identifier: MIT */
/*
 * writer - bytes in.
 *
 * Before it touches ring memory the writer raises `floor` to what will still
 * be intact, then copies, then publishes `written`. With a file floor never
 * passes `flushed`; without one it never passes the slowest reader.
 */
#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/check.h"
#include "base/clock.h"
#include "base/step.h"
#include "base/thread.h"
#include "shm/wait.h"
#include "store/blob.h"
#include "stream/stream.h"

#define PASSING_BYTES (64u << 10)    /* a write as large as this may pass the ring */
#define FEW_READERS 2		     /* with more of them it must be larger */
#define SAMPLE_BYTES (2 * BLOCK_BYTES) /* enough to judge whether compression pays */
#define CHECK_BYTES (16u << 20)	     /* how often readers that were killed are looked for */

int writer_open(struct store *store, struct entry_name name, int fd,
		struct scache_writer **ret_writer)
{
	struct scache_writer *writer = calloc(1, sizeof(*writer));
	struct segment *segment = store->segment;
	uint32_t ring, flags;

	if (writer == NULL)
		return -ENOMEM;
	writer->magic = MAGIC_WRITER;
	writer->store = store;
	writer->name = name;
	writer->entry = entry_at(segment, name.idx);
	writer->state = entry_state_word(segment, name.idx);
	writer->fd = fd;
	writer->punch_fd = -1;
	writer->pace_cell = CURSOR_NONE;
	writer->charged = shm_load_relaxed(&segment->charges[name.idx]);
	writer->asked_bytes = shm_load_relaxed(&writer->entry->window_bytes);
	writer->terms.stall_ns = UINT64_MAX;
	writer->declared_bytes = shm_load_relaxed(&writer->entry->declared_bytes);
	flags = shm_load_relaxed(&writer->entry->flags);
	writer->run_to_end = flags & ENTRY_RUN_TO_END;
	writer->pace_slowest = flags & ENTRY_PACE_SLOWEST;
	writer->ring_only = flags & ENTRY_RING_ONLY;
	writer->is_lz4 = flags & ENTRY_LZ4;
	writer->is_auto = flags & ENTRY_AUTO;
	writer->key_bytes = shm_load_relaxed(&writer->entry->key_bytes) & 255;
	ring = shm_load_relaxed(&writer->entry->ring);
	if (ring > 0 && ring <= segment->geometry.rings)
		writer_use_ring(writer, ring - 1);
	overdue_note(writer);
	*ret_writer = writer;
	return 0;
}

/* ------------------------------------------------------------------ writing */

/* Somebody left since we last looked, or it takes too long. */
static int heed_attention(struct scache_writer *writer)
{
	int ret = overdue_look(writer);

	if (unlikely(ret < 0))
		return ret;
	if (likely(shm_load(&writer->entry->attention) == 0 && writer->left_since_ns == 0 &&
		   !writer->is_nearly_done))
		return 0;
	/* Cleared before the survey, or a leaver in between would be missed. */
	shm_store(&writer->entry->attention, 0);
	/* STEP attention-cleared: nobody has looked yet. Die here: there is no writer to look. */
	STEP("attention-cleared");
	return pace_is_abandoned(writer) ? writer_fail(writer, -EPIPE) : 0;
}

void writer_settle_format(struct scache_writer *writer)
{
	/* Without a file nobody will ask, and the ring may be smaller than the sample. */
	if (!writer->is_auto || writer->ring_only)
		return;
	writer->is_auto = false;
	writer->is_lz4 = compress_pays(writer->ring, (size_t)min_u64(writer->written, SAMPLE_BYTES));
	/* STEP format-settled: nobody knows. Die here: the next producer judges again. */
	STEP("format-settled");
	shm_store_relaxed(&writer->entry->flags,
			  (shm_load_relaxed(&writer->entry->flags) & ~ENTRY_AUTO) |
				  (writer->is_lz4 ? ENTRY_LZ4 : 0));
}

void writer_flush(struct scache_writer *writer, bool all)
{
	if (writer->is_auto && (all || writer->written >= SAMPLE_BYTES))
		writer_settle_format(writer);
	if (writer->is_auto)
		return;
	if (writer->is_lz4) {
		compress_flush(writer, all);
		return;
	}
	while (!writer->ring_only && writer->written > writer->flushed) {
		uint64_t offset = writer->flushed & (writer->ring_bytes - 1);
		/* To the end of a unit: a dead predecessor may have stopped within one. */
		uint64_t unit = writer->flush_bytes - (offset & (writer->flush_bytes - 1));
		uint64_t bytes = min_u64(writer->written - writer->flushed, unit);
		UNCANCELLED;

		if (bytes < unit && !all)
			return;
		if (room_write(writer, writer->ring + offset, bytes, writer->flushed) < 0) {
			writer_go_without_file(writer);
			return;
		}
		/* STEP blob-written: in the file, not announced. Die here: bytes nobody counts. */
		STEP("blob-written");
		writer->flushed += bytes;
		/* ORDER flushed, release: the file before flushed, flushed before floor. Pairs with copy_from_file(). */
		shm_store_release(&writer->entry->flushed, writer->flushed);
		/* STEP bytes-flushed: in ring and file. Die here: readers get all of them. */
		STEP("bytes-flushed");
		keep_note(writer, writer->ring + offset, bytes);
	}
}

static void publish(struct scache_writer *writer, const unsigned char *data, uint64_t bytes)
{
	if (unlikely(writer->digest != NULL))
		digest_add(writer, data, bytes);
	/* STEP bytes-copied: not announced. Die here: bytes nobody counts. */
	STEP("bytes-copied");
	writer->written += bytes;
	/* ORDER event-bit, seq_cst: written before the bit. Pairs with wait_prepare(). */
	shm_store(&writer->entry->written, writer->written);
	/* STEP bytes-published: sleepers still asleep. Die here: they look at their tick. */
	STEP("bytes-published");
	if (unlikely(shm_load(&writer->entry->readers_event) & 1u))
		writer_wake_readers(writer);
}

/* Where the next bytes go, at most *bytes of them; what was there is given up first. */
static unsigned char *open_ring(struct scache_writer *writer, uint64_t *bytes)
{
	uint64_t offset = writer->written & (writer->ring_bytes - 1), end;

	*bytes = min_u64(*bytes, writer->slice_bytes);
	*bytes = min_u64(*bytes, writer->ring_bytes - offset);
	end = writer->written + *bytes;
	/* Never lower: what was reserved and given back has been stored into all the same. */
	if (end > writer->ring_bytes + shm_load_relaxed(&writer->entry->floor)) {
		/* Release: whoever sees this floor sees a `flushed` that is not below it. */
		shm_store_release(&writer->entry->floor, end - writer->ring_bytes);
		/* STEP floor-raised: fewer bytes in the ring. Die here: readers use the file. */
		STEP("floor-raised");
	}
	/* ORDER ring-floor, release: floor before the bytes. Pairs with copy_from_ring(). */
	shm_fence_release();
	return writer->ring + offset;
}

/* Past the ring, if there is one, into the file. 0 < bytes taken or -errno. */
static int64_t put_in_file(struct scache_writer *writer, const unsigned char *data, uint64_t bytes)
{
	UNCANCELLED;
	int ret;

	bytes = min_u64(bytes, ENTRY_PASS_BYTES_MAX);
	ret = room_write(writer, data, bytes, writer->written);
	if (ret < 0)
		return ret;
	/* STEP file-appended: in the file, not flushed. Die here: bytes nobody counts. */
	STEP("file-appended");
	writer->flushed += bytes;
	/* ORDER flushed, release: the file before flushed, flushed before floor. Pairs with copy_from_file(). */
	shm_store_release(&writer->entry->flushed, writer->flushed);
	if (writer->ring != NULL) {
		shm_store_release(&writer->entry->floor, writer->flushed);
		/* STEP ring-passed: the ring has no bytes. Die here: readers use the file. */
		STEP("ring-passed");
	}
	publish(writer, data, bytes);
	/* Readers are at them already. */
	keep_note(writer, data, bytes);
	return (int64_t)bytes;
}

/*
 * No ring was to be had: each write goes to the file. 0: that has failed, and there is a
 * ring by now; or there is none, and both are tried again after a while.
 */
static uint64_t append(struct scache_writer *writer, const unsigned char *data, uint64_t bytes)
{
	int64_t done = put_in_file(writer, data, bytes);

	if (unlikely(done < 0))
		writer_rescue(writer);
	else
		writer->is_stranded = false;
	return done < 0 ? 0 : (uint64_t)done;
}

static uint64_t put_in_ring(struct scache_writer *writer, const unsigned char *data, uint64_t bytes)
{
	unsigned char *at = open_ring(writer, &bytes);

	ring_copy_in(at, data, bytes);
	publish(writer, data, bytes);
	writer_flush(writer, false);
	return bytes;
}

/*
 * A copy into the ring saves each reader a system call, and costs a large write a
 * quarter of its time. But who sleeps for it has it sooner from there, and so has
 * who joins while the first byte still is.
 */
static bool passes_ring(struct scache_writer *writer, uint64_t bytes)
{
	uint64_t enough = writer->readers > FEW_READERS ? ENTRY_PASS_BYTES_MAX : PASSING_BYTES;

	if (bytes < enough || writer->ring_only || writer->is_lz4 || writer->written < writer->ring_bytes ||
	    shm_load_relaxed(&writer->entry->readers_event) & 1u)
		return false;
	writer_flush(writer, true);
	return !writer->ring_only;
}

/* How many bytes may be written now: 0 = none, -errno for good. */
static int64_t admit(struct scache_writer *writer, uint64_t bytes)
{
	int ret = heed_attention(writer);
	uint64_t room;

	if (ret < 0)
		return ret;
	if (writer->written - writer->checked_at >= CHECK_BYTES) {
		writer->checked_at = writer->written;
		pace_look_after_readers(writer);
		writer_count_bytes(writer);
	}
	room = pace_room(writer);
	/* Then it is for readers that it waits, whatever else it may lack. */
	if (room == 0)
		writer->is_stranded = false;
	return (int64_t)min_u64(bytes, min_u64(room, INT64_MAX));
}

/* One slice. Bytes taken; 0 = no room now; -errno for good. */
static int64_t put(struct scache_writer *writer, const unsigned char *data, uint64_t wanted)
{
	int64_t allowed;
	uint64_t bytes;

	compress_make_room(writer);
	allowed = admit(writer, wanted);
	if (allowed <= 0)
		return allowed;
	bytes = (uint64_t)allowed;
	if (writer->ring == NULL) {
		allowed = (int64_t)append(writer, data, bytes);
		if (allowed > 0 || writer->is_stranded)
			return allowed;
	}
	if (passes_ring(writer, bytes)) {
		allowed = put_in_file(writer, data, bytes);
		if (allowed > 0)
			return allowed;
		writer_go_without_file(writer);
	}
	return (int64_t)put_in_ring(writer, data, bytes);
}

/* ------------------------------------------------------------------ waiting */

/* How long one call has waited, and may wait. */
struct waited {
	int64_t timeout_ns, since_ns, deadline_ns;
};

/* There was no room. 0: look again; -EAGAIN, -ETIMEDOUT, -EDEADLK, -ECANCELED, -EPIPE. */
static int await_room(struct scache_writer *writer, struct waited *waited)
{
	/* Who lacks a ring waits for no reader. */
	int ret = writer->is_stranded ? 0 : stall_look(writer);

	if (ret != 0)
		return ret < 0 ? ret : 0;
	if (waited->timeout_ns == 0) {
		if (atomic_load(&writer->cancelled))
			return -ECANCELED;
		pace_look_after_readers(writer);
		ret = heed_attention(writer);
		return ret < 0 ? ret : -EAGAIN;
	}
	if (waited->since_ns == 0) {
		waited->since_ns = clock_own_ns();
		if (waited->deadline_ns == DEADLINE_NEVER && waited->timeout_ns > 0)
			waited->deadline_ns = deadline_after(waited->timeout_ns);
	}
	pthread_testcancel();
	return pace_wait(writer, waited->since_ns, waited->deadline_ns);
}

/* ---------------------------------------------------------------------- API */

int writer_check_handle(struct scache_writer *writer)
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
	struct waited waited = { .timeout_ns = timeout_ns, .deadline_ns = DEADLINE_NEVER };
	const unsigned char *from = data;
	int64_t done;
	size_t taken = 0;
	int ret = writer_check_handle(writer);

	if (ret < 0)
		return ret;
	writer->reserved_bytes = 0;
	if (unlikely(declared_is_exceeded(writer, bytes)))
		return declared_break(writer);
	while (taken < bytes) {
		writer->mid_call = taken > 0;
		done = put(writer, from + taken, bytes - taken);
		if (done == 0)
			done = await_room(writer, &waited);
		else
			waited.since_ns = 0;
		/* What was taken first; a sticky error is told by the next call, too. */
		if (done < 0)
			return taken > 0 ? (ssize_t)taken : (ssize_t)done;
		taken += (size_t)done;
	}
	return (ssize_t)taken;
}

/*
 * A ring is written in place, except before ThreadSanitizer: the caller's
 * stores are plain ones, and a reader who copies meanwhile is right to.
 */
static bool reserves_in_place(const struct scache_writer *writer)
{
	return writer->ring != NULL && !UNDER_TSAN;
}

ssize_t scache_reserve(struct scache_writer *writer, size_t bytes, void **ret_data,
		       int64_t timeout_ns)
{
	KEEP_ERRNO;
	struct waited waited = { .timeout_ns = timeout_ns, .deadline_ns = DEADLINE_NEVER };
	int ret = writer_check_handle(writer);
	int64_t allowed = 0;
	uint64_t room;

	if (ret < 0)
		return ret;
	writer->reserved_bytes = 0;
	writer->mid_call = false;
	if (bytes == 0)
		return -EINVAL;
	while (allowed == 0) {
		compress_make_room(writer);
		allowed = admit(writer, min_u64(bytes, SLICE_BYTES_MAX));
		if (allowed == 0)
			allowed = await_room(writer, &waited);
		if (allowed < 0)
			return (ssize_t)allowed;
	}
	room = (uint64_t)allowed;
	if (reserves_in_place(writer)) {
		*ret_data = open_ring(writer, &room);
	} else {
		/* So that it fits into a ring, if the entry gets one meanwhile. */
		room = min_u64(room, writer->store->segment->geometry.ring_bytes / 4);
		if (writer->bounce == NULL)
			writer->bounce = malloc(SLICE_BYTES_MAX);
		if (writer->bounce == NULL)
			return -ENOMEM;
		*ret_data = writer->bounce;
	}
	writer->reserved_bytes = (size_t)room;
	return (ssize_t)room;
}

/*
 * What the bounce buffer holds goes the way of every other write: to the file or, if that
 * fails, into a ring, in which it has room. Until there is one it waits, and only then.
 */
static int64_t commit_bounced(struct scache_writer *writer, uint64_t bytes)
{
	struct waited waited = { .timeout_ns = SCACHE_FOREVER, .deadline_ns = DEADLINE_NEVER };
	uint64_t done = 0;

	while (done < bytes) {
		const unsigned char *from = writer->bounce + done;
		int ret = 0;

		if (writer->ring == NULL)
			done += append(writer, from, bytes - done);
		else
			done += put_in_ring(writer, from, bytes - done);
		if (unlikely(writer->is_stranded))
			ret = await_room(writer, &waited);
		if (unlikely(writer->is_stranded) && ret == 0)
			ret = heed_attention(writer);
		if (ret < 0)
			return ret;
	}
	return (int64_t)bytes;
}

ssize_t scache_commit(struct scache_writer *writer, size_t bytes)
{
	KEEP_ERRNO;
	int64_t ret = writer_check_handle(writer);

	if (ret < 0)
		return (ssize_t)ret;
	if (bytes > writer->reserved_bytes)
		return -EINVAL;
	writer->reserved_bytes = 0;
	if (bytes == 0)
		return 0;
	if (unlikely(declared_is_exceeded(writer, bytes)))
		return declared_break(writer);
	if (!reserves_in_place(writer))
		return (ssize_t)commit_bounced(writer, bytes);
	publish(writer, writer->ring + (writer->written & (writer->ring_bytes - 1)), bytes);
	writer_flush(writer, false);
	return (ssize_t)bytes;
}

int scache_writer_check(struct scache_writer *writer)
{
	KEEP_ERRNO;
	int ret = writer_check_handle(writer);

	if (ret < 0)
		return ret;
	pace_look_after_readers(writer);
	return heed_attention(writer);
}

uint64_t scache_written(const struct scache_writer *writer)
{
	SC_ASSERT(writer->magic == MAGIC_WRITER);
	return writer->written;
}

int scache_writer_cancel(struct scache_writer *writer)
{
	KEEP_ERRNO;
	SC_ASSERT(writer->magic == MAGIC_WRITER);
	if (peer_is_forked(writer->store->peer))
		return -ECHILD;
	/* ORDER event-bit, seq_cst: cancelled before the word is raised. Pairs with pace_wait(). */
	atomic_store(&writer->cancelled, 1);
	wait_wake(&writer->entry->writer_event);
	return 0;
}
