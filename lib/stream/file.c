/* SPDX-License-Identifier: MIT */
/*
 * file - what a reader may want to know of, or do with, a finished entry's very file.
 *
 * As long as the reader is open its file is neither emptied nor cut.
 */
#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/thread.h"
#include "store/blob.h"
#include "store/scrub.h"
#include "stream/stream.h"

/* The facts of a finished entry with a file. 0; -EAGAIN: not finished; -ENODATA; -errno. */
static int finished_facts(struct scache_reader *reader, struct blob_facts *ret_facts)
{
	uint64_t state;
	int ret = reader_check_handle(reader);

	if (ret == -ECHILD || ret == -ESTALE)
		return ret;
	state = shm_load_acquire(reader->state);
	ret = reader_ended(reader, state);
	if (ret < 0)
		return ret;
	if (shm_load_relaxed(&reader->entry->flags) & ENTRY_RING_ONLY)
		return -ENODATA;
	*ret_facts = reader_facts(reader, state);
	return reader_is_still_there(reader) ? 0 : -ESTALE;
}

/* Its file anew: what the table has open is not everybody's, or a copy. */
static int open_file(const struct scache_reader *reader)
{
	int fd = blob_open(reader->store, reader->name, entry_hash(reader->entry));

	return fd == -ENOENT ? -EBADMSG : fd;
}

static int go_on(void *arg, uint64_t bytes)
{
	(void)arg;
	(void)bytes;
	return 0;
}

int reader_scrub(struct scache_reader *reader, scrub_pace *pace, void *arg)
{
	UNCANCELLED;
	struct blob_facts facts;
	int fd, ret = finished_facts(reader, &facts);

	if (ret < 0)
		return ret;
	fd = open_file(reader);
	ret = fd < 0 ? fd : scrub_file(fd, &facts, entry_hash(reader->entry), pace, arg);
	if (fd >= 0)
		close(fd);
	if (ret == 0)
		entry_set_verified(reader->store->segment, reader->name);
	return ret == -EBADMSG || ret == -EIO ? reader_is_damaged(reader) : ret;
}

int scache_file(struct scache_reader *reader, struct scache_file *ret_file)
{
	KEEP_ERRNO;
	UNCANCELLED;
	struct blob_facts facts;
	struct scache_file file = { .size = ret_file->size };
	struct footer *footer;
	int ret;

	if (file.size == 0)
		return -EINVAL;
	ret = finished_facts(reader, &facts);
	if (ret < 0)
		return ret;
	file.fd = open_file(reader);
	ret = file.fd < 0 ? file.fd : footer_read(file.fd, facts.file_bytes, &footer);
	if (ret == 0 && facts.is_guarded)
		ret = scrub_file(file.fd, &facts, entry_hash(reader->entry), go_on, NULL);
	if (ret < 0) {
		if (file.fd >= 0)
			close(file.fd);
		return ret == -EBADMSG || ret == -EIO ? reader_is_damaged(reader) : ret;
	}
	file.compression = footer->format == BLOB_LZ4 ? SCACHE_LZ4 : SCACHE_RAW;
	file.bytes = footer->bytes;
	file.stored_bytes = footer->stored_bytes;
	free(footer);
	memcpy(ret_file, &file, min_u64(file.size, sizeof(file)));
	return 0;
}

ssize_t scache_note(struct scache_reader *reader, void *ret_note, size_t bytes)
{
	KEEP_ERRNO;
	UNCANCELLED;
	struct blob_facts facts;
	struct footer *footer;
	int fd, ret = finished_facts(reader, &facts);

	if (ret < 0)
		return ret;
	fd = open_file(reader);
	ret = fd < 0 ? fd : footer_read(fd, facts.file_bytes, &footer);
	if (fd >= 0)
		close(fd);
	if (ret < 0)
		return ret == -EBADMSG || ret == -EIO ? reader_is_damaged(reader) : ret;
	ret = (int)footer->note_bytes;
	memcpy(ret_note, footer->note, min_u64(bytes, footer->note_bytes));
	free(footer);
	return ret;
}
