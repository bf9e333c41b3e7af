/* SPDX-License-Identifier: MIT */
/*
 * reader - bytes out.
 *
 * A read looks at the state before it looks at `written`. The other way
 * round: written = 100, the writer appends and seals, the reader sees SEALED
 * and invents an end of file at 100.
 *
 * The ring is a seqlock: copy, fence, and if `floor` has risen above where we
 * started, the copy may be torn: forget it and read the file instead.
 */
#include <errno.h>
#include <stdlib.h>

#include "base/check.h"
#include "base/clock.h"
#include "base/thread.h"
#include "index/repair.h"
#include "shm/wait.h"
#include "store/blob.h"
#include "store/sweep.h"
#include "stream/stream.h"

#define RING_SLICE_BYTES (256u << 10) /* validated piece by piece: a part may be good */
#define SPINS_MIN 16u
#define SPINS_MAX 2000u
#define STATS_EVERY_READS 64

/* ----------------------------------------------------------- open and close */

/* Can this reader begin without the file? Then nobody opens it for nothing. */
static bool needs_file(const struct scache_reader *reader, uint64_t state)
{
	if (state_of(state) == ENTRY_SEALED)
		return !(shm_load_relaxed(&reader->entry->flags) & ENTRY_RING_ONLY);
	return shm_load_acquire(&reader->entry->floor) > 0 &&
	       shm_load_acquire(&reader->entry->flushed) > 0;
}

static int get_blob(struct scache_reader *reader)
{
	if (reader->blob != NULL)
		return 0;
	return table_get(reader->store, reader->name, entry_hash(reader->entry), &reader->blob);
}

int reader_open(struct store *store, struct entry_name name, uint32_t cell, uint64_t state,
		struct scache_reader **ret_reader)
{
	struct scache_reader *reader = calloc(1, sizeof(*reader));
	struct segment *segment = store->segment;
	uint32_t ring;
	int ret;

	if (reader == NULL)
		return -ENOMEM;
	reader->magic = MAGIC_READER;
	reader->store = store;
	reader->name = name;
	reader->entry = entry_at(segment, name.idx);
	reader->state = entry_state_word(segment, name.idx);
	reader->cell = cell;
	reader->cursor = cursor_at(segment, cell);
	reader->spins = SPINS_MIN;
	ring = shm_load_relaxed(&reader->entry->ring);
	if (ring > 0 && ring <= segment->geometry.rings) {
		reader->ring = segment_ring(segment, ring - 1);
		reader->ring_mask = segment->geometry.ring_bytes - 1;
	}
	if (needs_file(reader, state)) {
		ret = get_blob(reader);
		if (ret == 0 && state_of(state) == ENTRY_SEALED &&
		    !table_check_size(reader->blob, shm_load_relaxed(&reader->entry->written))) {
			table_drop(store, reader->blob);
			table_put(store, reader->blob);
			ret = -ENOENT;
		}
		if (ret < 0) {
			free(reader);
			return ret;
		}
	}
	*ret_reader = reader;
	return 0;
}

static void push_stats(struct scache_reader *reader)
{
	for (int i = 0; i < STAT_COUNT; i++)
		if (reader->stats[i] != 0) {
			peer_count(reader->store->peer, (enum shm_stat)i, reader->stats[i]);
			reader->stats[i] = 0;
		}
}

int scache_reader_close(struct scache_reader *reader)
{
	KEEP_ERRNO;
	struct store *store;

	if (reader == NULL)
		return 0;
	SC_ASSERT(reader->magic == MAGIC_READER);
	store = reader->store;
	reader->magic = MAGIC_DEAD;
	atomic_fetch_sub(reader->open_streams, 1);
	/* In a fork child cursor, descriptor and counters are the parent's. */
	if (!peer_is_forked(store->peer)) {
		push_stats(reader);
		if (reader->blob != NULL)
			table_put(store, reader->blob);
		if (reader->pair != NULL)
			atomic_store(&reader->pair->reader_thread, 0);
		cursor_detach(store->peer, reader->cell, reader->name);
		cursor_give_back(store->cursors, reader->cell);
		/* The last one out of an entry that nobody can find puts out the light. */
		if (state_is_garbage(shm_load(reader->state)))
			sweep_entry(store, reader->name);
	}
	pair_put(reader->pair);
	free(reader);
	return 0;
}

/* ------------------------------------------------------------------ copying */

/* From the ring, as far as it stays intact meanwhile. Returns the bytes; 0 = use the file. */
static size_t copy_from_ring(struct scache_reader *reader, unsigned char *data, size_t bytes)
{
	size_t done = 0;

	while (done < bytes) {
		uint64_t at = reader->position + done, offset = at & reader->ring_mask;
		size_t part = (size_t)min_u64(bytes - done, reader->ring_mask + 1 - offset);

		part = (size_t)min_u64(part, RING_SLICE_BYTES);
		if (shm_load_acquire(&reader->entry->floor) > at)
			break;
		ring_copy_out(data + done, reader->ring + offset, part);
		/* ORDER ring-floor, acquire: the bytes before floor. Pairs with put_in_ring(). */
		shm_fence_acquire();
		if (shm_load_acquire(&reader->entry->floor) > at)
			break;
		done += part;
	}
	return done;
}

/* The file lacks bytes that we know it had: never wrong bytes, never an early end. */
static int blob_is_damaged(struct scache_reader *reader)
{
	struct store *store = reader->store;

	if (reader->blob != NULL)
		table_drop(store, reader->blob);
	entry_hide_any(store->segment, reader->name);
	return -EBADMSG;
}

static ssize_t copy_from_file(struct scache_reader *reader, void *data, size_t bytes)
{
	uint64_t flushed;
	ssize_t done;
	int ret;

	/* ORDER flushed, acquire: floor was seen above, so flushed is at least that. Pairs with flush(). */
	flushed = shm_load_acquire(&reader->entry->flushed);
	if (flushed <= reader->position)
		return -ESTALE; /* no file, and out of the ring: left behind for good */
	ret = get_blob(reader);
	if (ret == -ENOENT)
		return blob_is_damaged(reader);
	if (ret < 0)
		return ret;
	done = blob_read(table_fd(reader->blob), data,
			 (size_t)min_u64(bytes, flushed - reader->position), reader->position);
	return done == 0 ? blob_is_damaged(reader) : done;
}

/* Consumed: tell the writer, if it sleeps and this is what it waits for. */
static void advance(struct scache_reader *reader, size_t bytes)
{
	struct shm_entry *entry = reader->entry;

	reader->position += bytes;
	/* ORDER event-bit, seq_cst: position before the bit. Pairs with pace_wait(). */
	shm_store(&reader->cursor->position, reader->position);
	if (unlikely(shm_load(&entry->writer_event) & 1u) &&
	    reader->position >= shm_load(&entry->need))
		reader->stats[STAT_WAKES] += (uint64_t)wait_announce(&entry->writer_event);
}

static ssize_t copy_some(struct scache_reader *reader, void *data, size_t bytes)
{
	ssize_t done = 0;

	if (reader->ring != NULL)
		done = (ssize_t)copy_from_ring(reader, data, bytes);
	if (done > 0) {
		reader->stats[STAT_BYTES_RING] += (uint64_t)done;
		reader->stats[STAT_READS_RING]++;
	} else {
		done = copy_from_file(reader, data, bytes);
		if (done < 0)
			return done;
		reader->stats[STAT_BYTES_FILE] += (uint64_t)done;
		reader->stats[STAT_READS_FILE]++;
	}
	advance(reader, (size_t)done);
	if (reader->stats[STAT_READS_RING] + reader->stats[STAT_READS_FILE] >= STATS_EVERY_READS)
		push_stats(reader);
	return done;
}

/* ------------------------------------------------------------------ waiting */

/* How production ended: 0 (sealed), the readers' -errno, or -EAGAIN (not yet). */
static int reader_ended(const struct scache_reader *reader, uint64_t state)
{
	int code;

	if (state_gen(state) != reader->name.gen)
		return -ESTALE;
	switch (state_of(state)) {
	case ENTRY_FILLING:
		return -EAGAIN;
	case ENTRY_SEALED:
		return 0;
	case ENTRY_FAILED:
		if (state_is_death(state))
			return -EOWNERDEAD;
		/* ORDER entry-ended, acquire: state before code. Pairs with end_with(). */
		code = (int)shm_load_relaxed(&reader->entry->code);
		return code > 0 ? -EREMOTEIO : code < 0 ? code : -EUCLEAN;
	default:
		return -ESTALE;
	}
}

static bool has_news(const struct scache_reader *reader, uint64_t from)
{
	return shm_load(&reader->entry->written) > from ||
	       reader_ended(reader, shm_load(reader->state)) != -EAGAIN;
}

/* Spin for as long as spinning has lately paid. */
static bool spin_for_news(struct scache_reader *reader, uint64_t from)
{
	for (uint32_t i = 0; i < reader->spins; i++) {
		if (shm_load_acquire(&reader->entry->written) > from) {
			reader->spins = (uint32_t)min_u64(SPINS_MAX, reader->spins + i + 1);
			return true;
		}
		cpu_relax();
	}
	reader->spins = (uint32_t)max_u64(SPINS_MIN, reader->spins / 2);
	return false;
}

/* Wait for more than @from bytes, or for the end. 0 to look again, -EAGAIN, -ETIMEDOUT. */
static int wait_for_news(struct scache_reader *reader, uint64_t from, int64_t deadline_ns)
{
	struct peer *peer = reader->store->peer;
	uint32_t event;

	if (spin_for_news(reader, from))
		return 0;
	/* A producer that died before we came will not wake us. */
	repair_producer(peer, reader->name);
	event = wait_prepare(&reader->entry->readers_event);
	if (has_news(reader, from))
		return 0;
	if (clock_own_ns() >= deadline_ns)
		return -ETIMEDOUT;
	reader->stats[STAT_WAITS]++;
	push_stats(reader);
	wait_park(&reader->entry->readers_event, event, deadline_ns);
	return 0;
}

/* ---------------------------------------------------------------------- API */

static int check_handle(struct scache_reader *reader)
{
	SC_ASSERT(reader->magic == MAGIC_READER);
	if (peer_is_forked(reader->store->peer))
		return -ECHILD;
	if (reader->pair != NULL)
		atomic_store_explicit(&reader->pair->reader_thread, thread_tag(),
				      memory_order_relaxed);
	return reader->error;
}

ssize_t scache_read(struct scache_reader *reader, void *ret_data, size_t bytes, int64_t timeout_ns)
{
	KEEP_ERRNO;
	int64_t deadline_ns = DEADLINE_NEVER;
	bool waited = false;
	int ret = check_handle(reader);

	if (ret < 0)
		return ret;
	if (bytes == 0)
		return 0;
	bytes = (size_t)min_u64(bytes, INT64_MAX);
	for (;;) {
		/* ORDER sealed-written, acquire: state before written. Pairs with end_with(). */
		uint64_t state = shm_load_acquire(reader->state), written;
		ssize_t done;

		if (state_gen(state) != reader->name.gen)
			return reader->error = -ESTALE;
		written = shm_load_acquire(&reader->entry->written);
		if (written > reader->position) {
			done = copy_some(reader, ret_data,
					 (size_t)min_u64(bytes, written - reader->position));
			/* What a descriptor more or a retry may cure is not for good. */
			if (done < 0 && done != -EMFILE && done != -ENFILE && done != -ENOMEM)
				reader->error = (int)done;
			return done;
		}
		ret = reader_ended(reader, state);
		if (ret != -EAGAIN)
			return reader->error = ret;
		/* Those who never sleep have no tick: they look here. */
		if (timeout_ns == 0) {
			if (repair_producer(reader->store->peer, reader->name))
				continue;
			return -EAGAIN;
		}
		if (!waited && timeout_ns > 0)
			deadline_ns = deadline_after(timeout_ns);
		waited = true;
		ret = wait_for_news(reader, reader->position, deadline_ns);
		if (ret < 0)
			return ret;
	}
}

int scache_size(struct scache_reader *reader, uint64_t *ret_bytes)
{
	KEEP_ERRNO;
	int ret = check_handle(reader);
	uint64_t state;

	if (ret == -ECHILD || ret == -ESTALE)
		return ret;
	state = shm_load_acquire(reader->state);
	if (state_gen(state) != reader->name.gen)
		return -ESTALE;
	*ret_bytes = shm_load_acquire(&reader->entry->written);
	return state_of(state) == ENTRY_SEALED;
}

/* A finished entry has no message, and a dead producer's is not to be trusted. */
static uint32_t message_bytes_of(const struct scache_reader *reader, int ended)
{
	if (ended == 0 || ended == -EOWNERDEAD)
		return 0;
	return (uint32_t)min_u64(shm_load_relaxed(&reader->entry->message_bytes),
				 SCACHE_MESSAGE_BYTES_MAX);
}

int scache_wait(struct scache_reader *reader, int64_t timeout_ns, struct scache_result *ret_result)
{
	KEEP_ERRNO;
	int64_t deadline_ns = timeout_ns == 0 ? 0 : deadline_after(timeout_ns);
	struct scache_result result = { .code = 0 };
	int ret = check_handle(reader);

	if (ret == -ECHILD || ret == -ESTALE)
		return ret;
	for (;;) {
		uint64_t state = shm_load_acquire(reader->state);

		ret = reader_ended(reader, state);
		if (ret != -EAGAIN)
			break;
		/* No news but the end counts: wait past all bytes there are. */
		ret = wait_for_news(reader, shm_load(&reader->entry->written), deadline_ns);
		/* Bytes are news to it but none to us: the time is over all the same. */
		if (ret == 0 && deadline_ns != DEADLINE_NEVER && clock_own_ns() >= deadline_ns &&
		    reader_ended(reader, shm_load(reader->state)) == -EAGAIN)
			ret = -ETIMEDOUT;
		if (ret < 0)
			return timeout_ns == 0 ? -EAGAIN : ret;
	}
	if (ret == -ESTALE)
		return ret;
	result.code = ret;
	if (ret == -EREMOTEIO)
		result.code = (int32_t)shm_load_relaxed(&reader->entry->code);
	result.message_bytes = message_bytes_of(reader, ret);
	result.bytes = shm_load_acquire(&reader->entry->written);
	result.size = ret_result->size;
	memcpy(ret_result, &result, min_u64(ret_result->size, sizeof(result)));
	return 0;
}

/* The message stands behind the key, as far as it fits there, or in the file. */
static ssize_t copy_message(struct scache_reader *reader, char *text, size_t bytes)
{
	struct shm_entry *entry = reader->entry;
	uint32_t key_bytes = shm_load_relaxed(&entry->key_bytes) & 255, at, i;
	int ret;

	if (shm_load_relaxed(&entry->flags) & ENTRY_FILE_MESSAGE) {
		ret = get_blob(reader);
		if (ret < 0)
			return ret;
		return blob_read(table_fd(reader->blob), text, bytes,
				 shm_load_relaxed(&entry->written));
	}
	at = (key_bytes + 7) / 8 * 8;
	for (i = 0; i < bytes && at + i < 8 * SHM_KEY_WORDS; i++)
		text[i] = (char)(shm_load_relaxed(&entry->key[(at + i) / 8]) >> (at + i) % 8 * 8);
	return i;
}

ssize_t scache_message(struct scache_reader *reader, char *ret_text, size_t bytes)
{
	KEEP_ERRNO;
	int ret = check_handle(reader);
	uint64_t state;
	uint32_t message_bytes;
	ssize_t done = 0;

	if (ret == -ECHILD || ret == -ESTALE)
		return ret;
	state = shm_load_acquire(reader->state);
	ret = reader_ended(reader, state);
	if (ret == -EAGAIN || ret == -ESTALE)
		return ret;
	message_bytes = message_bytes_of(reader, ret);
	if (bytes == 0)
		return message_bytes;
	if (message_bytes > 0)
		done = copy_message(reader, ret_text, (size_t)min_u64(bytes - 1, message_bytes));
	if (done < 0)
		return done;
	ret_text[done] = '\0';
	return message_bytes;
}

int scache_reader_info(struct scache_reader *reader, struct scache_entry_info *ret_info)
{
	KEEP_ERRNO;
	int ret = check_handle(reader);

	if (ret == -ECHILD || ret == -ESTALE)
		return ret;
	return entry_fill_info(reader->store, reader->name, reader->key, ret_info);
}
