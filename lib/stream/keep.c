/* SPDX-License-Identifier: MIT */
/*
 * keep - what makes a file outlast its segment: the checksums of its blocks, made as
 * they go there, and at the end a footer behind them (store/footer.h).
 *
 * The last bytes and the footer go there by one write. Whoever finds a valid footer
 * after all of us are gone knows that nothing was to follow.
 */
#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/step.h"
#include "base/thread.h"
#include "store/blob.h"
#include "store/footer.h"
#include "store/limits.h"
#include "stream/stream.h"

void keep_note(struct scache_writer *writer, const void *data, size_t bytes)
{
	/* What was missed once, for want of memory or by a dead producer, is read again. */
	if (writer->sums.bytes + bytes == writer->flushed)
		(void)!sums_add(&writer->sums, data, bytes);
}

/* Of what is in the file without a checksum: read it. */
static int catch_up(struct scache_writer *writer)
{
	unsigned char *data = NULL;
	ssize_t part = 0;
	int ret = 0;

	while (ret == 0 && writer->sums.bytes < writer->flushed) {
		if (data == NULL)
			data = malloc(BLOCK_BYTES);
		if (data == NULL)
			return -ENOMEM;
		part = blob_read(writer->fd, data,
				 (size_t)min_u64(BLOCK_BYTES, writer->flushed - writer->sums.bytes),
				 writer->sums.bytes);
		ret = part > 0 ? sums_add(&writer->sums, data, (size_t)part) :
		      part == 0 ? -EIO : (int)part;
	}
	free(data);
	return ret;
}

/*
 * Removed, or in a retired segment, where no removal would find its entry: its readers
 * get it, nobody adopts it.
 */
static bool is_disowned(const struct scache_writer *writer)
{
	return state_is_hidden(shm_load(writer->state)) || segment_is_retired(writer->store->segment);
}

static void fill_times(const struct shm_entry *entry, struct footer *footer)
{
	uint64_t age_ns = clock_shared_ns() - shm_load_relaxed((shm_u64 *)&entry->created_ns);

	footer->finished_ns = clock_read_ns(CLOCK_REALTIME);
	footer->created_ns = footer->finished_ns - min_u64(age_ns, footer->finished_ns);
	footer->max_age_ns = shm_load_relaxed((shm_u64 *)&entry->max_age_ns);
}

/* The @bytes bytes that only the ring has, and the footer behind them. */
static int write_end(struct scache_writer *writer, const unsigned char *tail, size_t bytes)
{
	unsigned char key[256], *data;
	struct footer footer = { .format = BLOB_RAW,
				 .bytes = writer->written,
				 .stored_bytes = writer->written,
				 .key = key };
	uint64_t all;
	int ret;

	if (writer->written > BLOB_BYTES_MAX)
		return -EFBIG;
	ret = writer->is_lz4 ? compress_end(writer, &footer)
				 : sums_end(&writer->sums, tail, bytes, &footer.words);
	if (ret < 0)
		return ret;
	footer.key_bytes = entry_copy_key(writer->entry, key);
	footer.note = writer->note;
	footer.note_bytes = writer->note_bytes;
	fill_times(writer->entry, &footer);
	/* Asked after the time was taken: what is produced once this one is removed is newer. */
	if (is_disowned(writer))
		footer.max_age_ns = 0;
	all = footer_bytes(&footer);
	data = malloc((size_t)all);
	if (data == NULL)
		return -ENOMEM;
	footer_encode(&footer, data);
	ret = room_write_two(writer, tail, bytes, data, (size_t)all, footer.stored_bytes - bytes);
	free(data);
	if (ret == 0)
		shm_store_relaxed(&writer->entry->file_bytes, footer.stored_bytes + all);
	return ret;
}

int keep_file(struct scache_writer *writer)
{
	UNCANCELLED;
	size_t bytes = (size_t)(writer->written - writer->flushed);
	const unsigned char *tail = writer->ring;
	int ret = writer->is_lz4 ? 0 : catch_up(writer);

	if (bytes > 0)
		tail += writer->flushed & (writer->ring_bytes - 1);
	/* A dead producer may have stored more than it published. */
	if (ret == 0 && writer->taken_over && !writer->is_lz4 &&
	    ftruncate(writer->fd, (off_t)writer->flushed) < 0)
		ret = -errno;
	if (ret == 0)
		ret = write_end(writer, tail, bytes);
	if (ret < 0)
		return ret;
	/* STEP footer-written: whole, and finished to whoever comes after us all. Die here: the reaper fails it. */
	STEP("footer-written");
	writer->flushed = writer->written;
	/* ORDER flushed, release: the file before flushed, flushed before floor. Pairs with copy_from_file(). */
	shm_store_release(&writer->entry->flushed, writer->flushed);
	limits_settle(writer->store, writer->name, writer->fd);
	ret = writer_is_transient(writer) ?
		      blob_end(writer->fd) :
		      blob_seal(writer->store, writer->fd, entry_hash(writer->entry));
	writer->fd = -1;
	/*
	 * Meanwhile, too: not to come back after us all. Pairs with collect(), and with disown()
	 * in store/adopt.c, which passes over what can be written: then we see that we are retired.
	 */
	if (is_disowned(writer))
		blob_disown(writer->store, writer->name, entry_hash(writer->entry));
	return ret;
}

int scache_set_note(struct scache_writer *writer, const void *note, size_t bytes)
{
	KEEP_ERRNO;
	unsigned char *copy = NULL;
	int ret = writer_check_handle(writer);

	if (ret < 0)
		return ret;
	if (bytes > SCACHE_NOTE_BYTES_MAX || (note == NULL && bytes > 0))
		return -EINVAL;
	if (bytes > 0) {
		copy = malloc(bytes);
		if (copy == NULL)
			return -ENOMEM;
		memcpy(copy, note, bytes);
	}
	free(writer->note);
	writer->note = copy;
	writer->note_bytes = (uint32_t)bytes;
	return 0;
}
