/* SPDX-License-Identifier: MIT */
/*
 * finish - how production ends.
 *
 * Flush everything, floor = MAX, ring freed, and only then the state: once
 * the word says SEALED or FAILED somebody may sweep the slot and fill it again.
 */
#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/check.h"
#include "base/clock.h"
#include "base/detail.h"
#include "base/step.h"
#include "base/thread.h"
#include "index/ring.h"
#include "shm/wait.h"
#include "store/blob.h"
#include "store/evict.h"
#include "store/leave.h"
#include "store/limits.h"
#include "store/sweep.h"
#include "stream/stream.h"

void writer_count_bytes(struct scache_writer *writer)
{
	peer_count(writer->store->peer, STAT_BYTES_PRODUCED, writer->written - writer->bytes_counted);
	writer->bytes_counted = writer->written;
}

void writer_wake_readers(struct scache_writer *writer)
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
	UNCANCELLED;
	struct store *store = writer->store;
	struct shm_entry *entry = writer->entry;
	uint64_t ended_ns = clock_shared_ns(), max_age_ns = shm_load_relaxed(&entry->max_age_ns);
	uint64_t expires_ns = add_saturated_u64(ended_ns, max_age_ns);

	writer->ended = true;
	writer_count_bytes(writer);
	compress_stop(writer);
	leave_ring(writer);
	/* What was to follow is not charged as long as somebody reads what there is. */
	if (writer->fd >= 0)
		limits_settle(store, writer->name, writer->fd);
	shm_store_relaxed(&entry->ended_ns, ended_ns);
	shm_store_relaxed(&store->segment->expires[writer->name.idx], expires_ns);
	use_begin(store->segment, writer->name, ended_ns);
	/* STEP entry-ending: all of it is there but the word. Die here: the reaper fails it. */
	STEP("entry-ending");
	/* ORDER entry-ended, release: code, sizes and times before the state. Pairs with reader_ended(). */
	/* ORDER sealed-written, release: written before the state. Pairs with reader_next(). */
	if (!entry_change(store->peer, writer->name, ENTRY_FILLING, state, flags))
		return -ESTALE;
	/* STEP entry-ended: nobody told. Die here: waiters look at their tick. */
	STEP("entry-ended");
	peer_count(store->peer, state == ENTRY_SEALED ? STAT_FINISHES : STAT_FAILURES, 1);
	writer_wake_readers(writer);
	/*
	 * STEP end-told: no sweep knows when it expires. Die here: our reaper sets the hint anew.
	 */
	STEP("end-told");
	if (state == ENTRY_SEALED)
		sweep_note_expiry(store, sweep_due_ns(store, writer->name, expires_ns));
	leave_entry(store, writer->name);
	return 0;
}

int writer_fail(struct scache_writer *writer, int code)
{
	declared_give_back(writer);
	shm_store_relaxed(&writer->entry->code, (uint32_t)code);
	/* STEP code-set: still growing, to all. Die here: the reaper fails it, the code unread. */
	STEP("code-set");
	end_with(writer, ENTRY_FAILED, ENTRY_HIDDEN);
	writer->error = code > 0 ? -EREMOTEIO : code;
	return writer->error;
}

/* ---------------------------------------------------------------------- API */

/* Everything published is in the file, or the file does not count any more. */
static void settle_file(struct scache_writer *writer)
{
	if (writer->ring != NULL) {
		writer_settle_format(writer);
		writer_flush(writer, writer->is_lz4);
	}
	/* What a failed close has lost nobody knows: do not keep it. */
	if (!writer->ring_only && keep_file(writer) < 0)
		writer_go_without_file(writer);
}

/* All is well, but for now it is only for those who came while it was produced or read. */
static int tell_seldom(const struct store *store)
{
	peer_count(store->peer, STAT_NOT_RETAINED, 1);
	return detail_set(SCACHE_NOT_KEPT,
			  "its key was produced too seldom of late: min_occurrences is %u",
			  (unsigned)segment_setting(store->segment, SETTING_MIN_OCCURRENCES));
}

int scache_finish(struct scache_writer *writer)
{
	KEEP_ERRNO;
	UNCANCELLED;
	bool is_seldom;
	int ret = writer_check_handle(writer);

	if (ret < 0)
		return ret;
	ret = overdue_look(writer);
	if (ret < 0)
		return ret;
	if (unlikely(digest_differs(writer)))
		return writer_fail(writer, -EBADMSG);
	if (writer->declared_bytes != UINT64_MAX && writer->written != writer->declared_bytes)
		return declared_break(writer);
	settle_file(writer);
	/* STEP blob-sealed: complete and read-only. Die here: the reaper fails it all the same. */
	STEP("blob-sealed");
	is_seldom = !writer->ring_only && writer_is_transient(writer);
	ret = end_with(writer, ENTRY_SEALED, writer->ring_only ? ENTRY_HIDDEN : 0);
	if (ret < 0)
		return writer->error = ret;
	detail_clear();
	if (is_seldom)
		return tell_seldom(writer->store);
	/* See keep_file(): what ends in a retired segment nobody will find. */
	return writer->ring_only || segment_is_retired(writer->store->segment) ? SCACHE_NOT_KEPT : 0;
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
	    room_reserve(writer, entry_message_offset(writer->entry, writer->written) + bytes,
			 false) == 0 &&
	    blob_write(writer->fd, message, bytes,
		       entry_message_offset(writer->entry, writer->written)) == 0) {
		/* STEP message-in-file: behind the bytes. Die here: nobody reads it. */
		STEP("message-in-file");
		shm_store_relaxed(&entry->flags,
				  shm_load_relaxed(&entry->flags) | ENTRY_FILE_MESSAGE);
	} else {
		bytes = bytes < here ? bytes : here;
		memcpy(words, message, bytes);
		for (i = 0; i < (bytes + 7) / 8; i++)
			shm_store_relaxed(&entry->key[at / 8 + i], words[i]);
	}
	/* STEP message-placed: of no length yet. Die here: nobody reads it. */
	STEP("message-placed");
	shm_store_relaxed(&entry->message_bytes, (uint32_t)bytes);
}

int scache_abort(struct scache_writer *writer, int code, const void *message, size_t message_bytes)
{
	KEEP_ERRNO;
	UNCANCELLED;
	int ret = writer_check_handle(writer);

	if (ret < 0)
		return ret == writer->error ? 0 : ret; /* it has failed already */
	/* What our own calls mean by these no producer can say. */
	if (code == 0 || code == -EAGAIN || code == -ETIMEDOUT || code == -ESTALE ||
	    code == -ECHILD || code == -EOWNERDEAD || code == -EBADMSG || message_bytes > SCACHE_MESSAGE_BYTES_MAX ||
	    (message == NULL && message_bytes > 0))
		return -EINVAL;
	compress_hurry(writer);
	if (writer->ring != NULL)
		writer_flush(writer, true);
	if (message_bytes > 0)
		put_message(writer, message, message_bytes);
	writer_fail(writer, code);
	return 0;
}

int scache_writer_close(struct scache_writer *writer)
{
	KEEP_ERRNO;
	UNCANCELLED;
	_Atomic uint32_t *open_streams = NULL;

	if (writer == NULL)
		return 0;
	SC_ASSERT(writer->magic == MAGIC_WRITER);
	/* In a fork child the entry and the count are the parent's. */
	if (!peer_is_forked(writer->store->peer)) {
		if (!writer->ended)
			scache_abort(writer, -ECANCELED, NULL, 0);
		open_streams = writer->open_streams;
	}
	store_put(writer->store);
	if (open_streams != NULL)
		atomic_fetch_sub(open_streams, 1);
	if (writer->fd >= 0)
		close(writer->fd);
	if (writer->punch_fd >= 0)
		close(writer->punch_fd);
	digest_free(writer);
	/*
	 * A fork child has not the thread, and perhaps its mutex is locked for ever; and another
	 * thread of the parent may have been exchanging these at that moment.
	 */
	if (open_streams != NULL) {
		sums_free(&writer->sums);
		free(writer->note);
		compress_free(writer);
	}
	free(writer->bounce);
	writer->magic = MAGIC_DEAD;
	pair_put(writer->pair);
	free(writer);
	return 0;
}
