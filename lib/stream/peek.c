/* SPDX-License-Identifier: MIT */
/*
 * peek - the next bytes where they are.
 *
 * Of a small finished blob this process has a copy, of a large one a mapping
 * (store/table.h). Of a file that still grows each reader maps a window of its
 * own, and shows what of it is flushed: such bytes never change. What is in the
 * ring alone its writer may overwrite at any time, so that is copied into a
 * buffer of the reader's.
 */
#include <errno.h>
#include <stdlib.h>
#include <sys/mman.h>

#include "base/check.h"
#include "base/thread.h"
#include "stream/stream.h"

#define WINDOW_BYTES (64ull << 20) /* of address space, for a file that grows */
#define SHOW_BYTES (1u << 30)	   /* at once, for what is guarded is compared first */

void peek_close(struct scache_reader *reader)
{
	if (reader->window != NULL)
		munmap(reader->window, WINDOW_BYTES);
	reader->window = NULL;
}

/* Where byte @at of a file that still grows can be seen; NULL: it cannot be mapped. */
static const unsigned char *see_window(struct scache_reader *reader, uint64_t at, uint64_t *ret_end)
{
	uint64_t from = at - at % WINDOW_BYTES;
	unsigned char *window;

	if (opened_fd(reader->blob) < 0)
		return NULL;
	if (reader->window == NULL || reader->window_from != from) {
		peek_close(reader);
		/* Beyond the end of the file it may only not be touched. */
		window = mmap(NULL, WINDOW_BYTES, PROT_READ, MAP_SHARED, opened_fd(reader->blob),
			      (off_t)from);
		if (window == MAP_FAILED)
			return NULL;
		reader->window = window;
		reader->window_from = from;
	}
	*ret_end = from + WINDOW_BYTES;
	return reader->window + (at - from);
}

/*
 * From the file: how many of @bytes, none beyond @written, *@ret_data shows; 0: none, and
 * copying finds them or says what is wrong. Beyond @written the next producer may
 * store others, or cut the file.
 */
static uint64_t see_file(struct scache_reader *reader, uint64_t written, size_t bytes,
			 const unsigned char **ret_data)
{
	UNCANCELLED;
	uint64_t at = reader->position, end, flushed;
	const unsigned char *data;

	/* ORDER flushed, acquire: the bytes before it. Pairs with writer_flush(). */
	flushed = end = min_u64(shm_load_acquire(&reader->entry->flushed), written);
	if (flushed <= at || reader_may_lose(reader) || copy_get_blob(reader) < 0)
		return 0;
	data = opened_view(reader->blob);
	if (data != NULL)
		data += at;
	else
		data = see_window(reader, at, &end);
	if (data == NULL)
		return 0;
	bytes = (size_t)min_u64(bytes, min_u64(min_u64(end, flushed) - at, SHOW_BYTES));
	if (opened_check(reader->store, reader->blob, at, bytes) < 0)
		return 0;
	*ret_data = data;
	return bytes;
}

unsigned char *reader_get_bounce(struct scache_reader *reader)
{
	if (reader->bounce == NULL)
		reader->bounce = malloc(BOUNCE_BYTES);
	return reader->bounce;
}

static ssize_t see_copy(struct scache_reader *reader, uint64_t written, size_t bytes,
			const unsigned char **ret_data)
{
	*ret_data = reader_get_bounce(reader);
	if (*ret_data == NULL)
		return -ENOMEM;
	bytes = (size_t)min_u64(bytes, min_u64(BOUNCE_BYTES, written - reader->position));
	return copy_out(reader, reader->position, reader->bounce, bytes);
}

ssize_t scache_peek(struct scache_reader *reader, const void **ret_data, size_t bytes,
		    int64_t timeout_ns)
{
	KEEP_ERRNO;
	ssize_t done = reader_check_handle(reader);
	const unsigned char *data = NULL;
	uint64_t written;

	if (done < 0 || bytes == 0)
		return done;
	do {
		done = reader_ready(reader, timeout_ns, &written);
		if (done <= 0)
			return done;
		done = (ssize_t)see_file(reader, written, bytes, &data);
		if (done > 0 && unlikely(!reader_is_still_there(reader)))
			done = -ESTALE;
		else if (done > 0)
			reader->stats[STAT_READS_FILE]++;
		else
			done = see_copy(reader, written, bytes, &data);
	} while (unlikely(done == -ENODATA) && reader_begins_elsewhere(reader));
	done = reader_had(reader, done);
	if (done < 0)
		return done;
	reader->shown = data;
	reader->shown_bytes = (size_t)done;
	*ret_data = data;
	return done;
}

ssize_t scache_consume(struct scache_reader *reader, size_t bytes)
{
	KEEP_ERRNO;
	int ret = reader_check_handle(reader);

	if (ret == -ECHILD || ret == -ESTALE)
		return ret;
	if (bytes > reader->shown_bytes)
		return -EINVAL;
	reader_advance(reader, reader->shown, bytes);
	reader->shown += bytes;
	reader->shown_bytes -= bytes;
	return (ssize_t)bytes;
}
