/* SPDX-License-Identifier: MIT */
/*
 * declared - a size that a producer has told beforehand: it is held to it, and has the
 * room for it, or knows from the start that there is none. How much room compressed
 * bytes need nobody knows.
 *
 * A production that ends with another number of bytes has failed, whatever its producer
 * says of it: so what is short or long is never taken for the blob. The size stands in
 * the entry, and whoever goes on with a dead producer's work is held to it as well.
 */
#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "base/quiet.h"
#include "base/thread.h"
#include "store/blob.h"
#include "store/limits.h"
#include "stream/stream.h"

#define RESERVE_BYTES_MIN (1u << 20) /* less is not worth a system call */
#define RESERVE_TRIES 3		     /* some file systems undo it all for a signal */

static bool is_reserved(uint64_t declared_bytes)
{
	return declared_bytes >= RESERVE_BYTES_MIN && declared_bytes <= INT64_MAX;
}

/*
 * How many bytes the disk lacks. Or a size that is far too large would take all there is,
 * from others, before it fails.
 */
static uint64_t lacking(int fd, uint64_t bytes)
{
	struct statvfs st;
	uint64_t have;

	if (fstatvfs(fd, &st) < 0 || st.f_blocks == 0)
		return 0;
	have = (uint64_t)st.f_bavail * st.f_frsize;
	return bytes - min_u64(have, bytes);
}

/* Not if all of the cache's other blobs together are not enough: then none of them is to go. */
static bool may_fit(const struct store *store, int fd, uint64_t bytes)
{
	uint64_t missing = lacking(fd, bytes);
	struct limits_use use;

	if (missing == 0)
		return true;
	limits_measure(store, &use);
	return use.bytes >= missing;
}

/* Others go for it. */
static int make_way(struct store *store, int fd, uint64_t bytes)
{
	uint64_t missing;
	uint32_t tries = 0;

	while ((missing = lacking(fd, bytes)) > 0)
		if (!limits_make_way(store, missing, &tries))
			return -ENOSPC;
	return 0;
}

/* 0 also if the file system cannot do that: the writes will tell. */
static int reserve(int fd, uint64_t bytes)
{
	struct quiet quiet;
	int ret = -EINTR;

	quiet_begin(&quiet);
	for (int i = 0; i < RESERVE_TRIES && ret == -EINTR; i++)
		ret = fallocate(fd, FALLOC_FL_KEEP_SIZE, 0, (off_t)bytes) < 0 ? -errno : 0;
	quiet_end(&quiet, ret == -EFBIG ? SIGXFSZ : 0);
	return ret == -ENOSPC || ret == -EDQUOT || ret == -EFBIG ? ret : 0;
}

/* Names take room as well: an inode for the directory, and one for the file. */
static int create_file(struct store *store, struct entry_name name)
{
	struct key_hash hash = entry_hash(entry_at(store->segment, name.idx));
	int fd = blob_create(store, name, hash);

	for (int i = 0; i < 2; i++) {
		uint32_t tries = 0;

		while (unlikely(fd == -ENOSPC || fd == -EDQUOT) && limits_make_way(store, 1, &tries))
			fd = blob_create(store, name, hash);
	}
	return fd;
}

int declared_create_file(struct store *store, struct entry_name name)
{
	UNCANCELLED;
	const struct shm_entry *entry = entry_at(store->segment, name.idx);
	uint64_t declared_bytes = shm_load_relaxed((shm_u64 *)&entry->declared_bytes);
	int fd = create_file(store, name), ret;

	if (fd < 0 || !is_reserved(declared_bytes) ||
	    shm_load_relaxed((shm_u32 *)&entry->flags) & (ENTRY_LZ4 | ENTRY_AUTO))
		return fd;
	/* What the limits do not allow needs no room on the disk. */
	ret = may_fit(store, fd, declared_bytes) ?
		      limits_reserve(store, name, declared_bytes) : -ENOSPC;
	if (ret == 0)
		ret = make_way(store, fd, declared_bytes);
	if (ret == 0)
		ret = reserve(fd, declared_bytes);
	if (ret == 0)
		return fd;
	/* Nobody has come to open it: it has no byte yet. */
	close(fd);
	blob_unlink(store, name, entry_hash(entry));
	limits_clear(store, name);
	return ret;
}

void declared_give_back(const struct scache_writer *writer)
{
	UNCANCELLED;
	struct stat st;

	/* To an lz4 one a thread of ours may be writing. */
	if (writer->fd < 0 || writer->is_lz4 || !is_reserved(writer->declared_bytes))
		return;
	/* To the size it has, which gives up what lies behind that. */
	if (fstat(writer->fd, &st) == 0)
		(void)!ftruncate(writer->fd, st.st_size);
}

int declared_break(struct scache_writer *writer)
{
	compress_hurry(writer);
	if (writer->ring != NULL)
		writer_flush(writer, true);
	return writer_fail(writer, -ERANGE);
}
