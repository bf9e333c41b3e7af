/* SPDX-License-Identifier: MIT */
/*
 * copy - bytes of an entry, out of its ring or its file.
 *
 * The ring is a seqlock: copy, fence, and if `floor` has risen above where we
 * started, the copy may be torn: forget it and read the file instead.
 */
#include <errno.h>

#include "base/thread.h"
#include "store/blob.h"
#include "stream/stream.h"

#define RING_SLICE_BYTES (256u << 10) /* validated piece by piece: a part may be good */

int copy_get_blob(struct scache_reader *reader)
{
	UNCANCELLED;
	struct blob_facts growing = { .bytes = TABLE_GROWING };

	if (reader->blob != NULL)
		return 0;
	growing.is_packed = shm_load_relaxed(&reader->entry->flags) & ENTRY_LZ4;
	return table_get(reader->store, reader->name, entry_hash(reader->entry), &growing,
			 &reader->blob);
}

/* Asked each time: an entry may be given one late, and after a death another. */
static const unsigned char *ring_of(const struct scache_reader *reader)
{
	const struct segment *segment = reader->store->segment;
	uint32_t ring = shm_load_relaxed(&reader->entry->ring);

	return ring > 0 && ring <= segment->geometry.rings ? segment_ring(segment, ring - 1) : NULL;
}

/* From the ring, as far as it stays intact meanwhile. Returns the bytes; 0 = use the file. */
static size_t copy_from_ring(struct scache_reader *reader, uint64_t from, unsigned char *data,
			     size_t bytes)
{
	const unsigned char *ring;
	size_t done = 0;

	while (done < bytes) {
		uint64_t at = from + done, offset = at & reader->ring_mask;
		size_t part = (size_t)min_u64(bytes - done, reader->ring_mask + 1 - offset);

		part = (size_t)min_u64(part, RING_SLICE_BYTES);
		/* ORDER ring-given, acquire: floor before which ring. Pairs with writer_rescue(). */
		if (shm_load_acquire(&reader->entry->floor) > at)
			break;
		ring = ring_of(reader);
		if (unlikely(ring == NULL))
			break;
		ring_copy_out(data + done, ring + offset, part);
		/* ORDER ring-floor, acquire: the bytes before floor. Pairs with open_ring(). */
		shm_fence_acquire();
		if (shm_load_acquire(&reader->entry->floor) > at)
			break;
		done += part;
	}
	return done;
}

/* The file lacks bytes that we know it had, or has others: never wrong bytes, never an early end. */
int reader_is_damaged(struct scache_reader *reader)
{
	struct store *store = reader->store;

	if (reader->blob != NULL)
		table_drop(store, reader->blob);
	if (entry_hide_any(store->segment, reader->name))
		peer_count(store->peer, STAT_DAMAGED, 1);
	return -EBADMSG;
}

/* From the file, of which so much is @flushed. */
static ssize_t copy_from_blob(struct scache_reader *reader, uint64_t from, void *data, size_t bytes,
			      uint64_t flushed)
{
	UNCANCELLED;
	int ret;

	if (reader->blob->packed != NULL)
		return opened_unpack(reader->blob, &reader->unpacked, data, bytes, from, flushed);
	ret = opened_check(reader->store, reader->blob, from, bytes);
	return ret < 0 ? ret : opened_read(reader->blob, data, bytes, from);
}

static ssize_t copy_from_file(struct scache_reader *reader, uint64_t from, void *data, size_t bytes)
{
	uint64_t flushed;
	ssize_t done;
	int ret;

	/* ORDER flushed, acquire: floor was seen above, so flushed is at least that. Pairs with writer_flush(). */
	flushed = shm_load_acquire(&reader->entry->flushed);
	if (flushed <= from)
		return -ENODATA; /* no file, and out of the ring */
	ret = copy_get_blob(reader);
	if (ret == -ENOENT)
		return reader_is_damaged(reader);
	if (ret < 0)
		return ret;
	bytes = (size_t)min_u64(bytes, flushed - from);
	/* A copy has no cancellation point, and what holds them off is a tenth of a hit. */
	done = reader->blob->fd < 0 ? opened_read(reader->blob, data, bytes, from) :
				      copy_from_blob(reader, from, data, bytes, flushed);
	/* ORDER punched, acquire: the bytes before punched. Pairs with writer_punch(). */
	shm_fence_acquire();
	if (unlikely(shm_load_acquire(&reader->entry->punched) > from))
		return -ENODATA;
	return done == 0 || done == -EBADMSG || done == -EIO ? reader_is_damaged(reader) : done;
}

bool reader_is_still_there(const struct scache_reader *reader)
{
	uint64_t state;

	/* ORDER overridden, acquire: the bytes before the state. Pairs with entry_retire(). */
	shm_fence_acquire();
	state = shm_load_acquire(reader->state);
	return state_gen(state) == reader->name.gen && state_of(state) != ENTRY_RETIRED &&
	       state_of(state) != ENTRY_SWEEPING;
}

ssize_t copy_out(struct scache_reader *reader, uint64_t at, void *data, size_t bytes)
{
	bool from_ring = false;
	ssize_t done = 0;

	done = (ssize_t)copy_from_ring(reader, at, data, bytes);
	from_ring = done > 0;
	if (!from_ring)
		done = copy_from_file(reader, at, data, bytes);
	if (unlikely(!reader_is_still_there(reader)))
		return -ESTALE;
	if (done > 0) {
		reader->stats[from_ring ? STAT_BYTES_RING : STAT_BYTES_FILE] += (uint64_t)done;
		reader->stats[from_ring ? STAT_READS_RING : STAT_READS_FILE]++;
	}
	return done;
}
