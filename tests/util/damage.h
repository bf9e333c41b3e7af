/* SPDX-License-Identifier: MIT */
/*
 * damage - finished blobs, a stranger who damages their files, and ways to read all of
 * one, in which each byte must be right.
 */
#ifndef UTIL_DAMAGE_H
#define UTIL_DAMAGE_H

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "pattern.h"
#include "scratch.h"
#include "spawn.h"
#include "store/footer.h"

#define BLOCK ((uint64_t)BLOCK_BYTES)
#define MIB ((uint64_t)1 << 20)
#define COPY_BYTES 16384u /* up to here a blob is copied when it is opened */

static const uint64_t sizes[] = {
	0,     1,	  100,	 COPY_BYTES, COPY_BYTES + 1, 65536,
	BLOCK - 1, BLOCK, BLOCK + 1, MIB, MIB + 77777,
};

/* ------------------------------------------------------------------ ways to read */

/*
 * A way: all of @reader, by @piece; each byte must be right. Returns 0 at the end of
 * @bytes, or -errno; *ret_bytes were had before.
 */
typedef int way_fn(struct scache_reader *reader, uint64_t seed, uint64_t bytes, size_t piece,
		   uint64_t *ret_bytes);

static inline int by_read(struct scache_reader *reader, uint64_t seed, uint64_t bytes, size_t piece,
			  uint64_t *ret_bytes)
{
	(void)bytes;
	return pattern_read(reader, seed, ret_bytes, UINT64_MAX, piece);
}

static inline int by_peek(struct scache_reader *reader, uint64_t seed, uint64_t bytes, size_t piece,
			  uint64_t *ret_bytes)
{
	const void *data;
	ssize_t done;

	(void)bytes;
	while ((done = scache_peek(reader, &data, piece, 0)) > 0) {
		must((size_t)done <= piece);
		must(pattern_matches(seed, *ret_bytes, data, (size_t)done));
		must_be(scache_consume(reader, (size_t)done), done);
		*ret_bytes += (uint64_t)done;
	}
	return (int)done;
}

static inline int by_sendfile(struct scache_reader *reader, uint64_t seed, uint64_t bytes,
			      size_t piece, uint64_t *ret_bytes)
{
	unsigned char *data = malloc(bytes + 1);
	char path[300];
	ssize_t done;
	int fd;

	snprintf(path, sizeof(path), "%s/sent", scratch_base);
	fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	must(fd >= 0 && data != NULL);
	while ((done = scache_sendfile(reader, fd, piece, 0)) > 0)
		*ret_bytes += (uint64_t)done;
	must_be(pread(fd, data, bytes + 1, 0), *ret_bytes);
	must(pattern_matches(seed, 0, data, *ret_bytes));
	close(fd);
	free(data);
	return (int)done;
}

/* From the end to the beginning, and on after what is damaged. */
static inline int by_pread(struct scache_reader *reader, uint64_t seed, uint64_t bytes,
			   size_t piece, uint64_t *ret_bytes)
{
	size_t room = piece < bytes ? piece : (size_t)bytes;
	unsigned char *data = malloc(room + 1);
	uint64_t from = (bytes + room) / (room + 1) * (room + 1), at;
	ssize_t done;
	int ret = 0;

	must(data != NULL);
	must_be(scache_pread(reader, data, 1, bytes, 0), 0);
	while (from > 0) {
		from -= room + 1;
		for (at = from; at < bytes && at <= from + room; at += (uint64_t)done) {
			done = scache_pread(reader, data, from + room + 1 - at, at, 0);
			if (done < 0)
				break;
			must(done > 0 && at + (uint64_t)done <= bytes);
			must(pattern_matches(seed, at, data, (size_t)done));
			*ret_bytes += (uint64_t)done;
		}
		if (at < bytes && at <= from + room) {
			must_be(done, -EBADMSG);
			ret = -EBADMSG;
		}
	}
	free(data);
	return ret;
}

static way_fn *const ways[] = { by_read, by_peek, by_sendfile, by_pread };

#define WAYS ARRAY_COUNT(ways)

/* ----------------------------------------------------------------- the stranger */

struct file {
	char path[600];
	uint64_t bytes; /* with the footer */
};

static inline struct file find_file(void)
{
	struct file file;
	struct stat st;

	scratch_blob(file.path, sizeof(file.path));
	must(stat(file.path, &st) == 0);
	file.bytes = (uint64_t)st.st_size;
	return file;
}

static inline int open_as_stranger(const struct file *file)
{
	int fd;

	must(chmod(file->path, 0600) == 0);
	fd = open(file->path, O_RDWR | O_CLOEXEC);
	must(fd >= 0);
	return fd;
}

static inline void flip(const struct file *file, uint64_t at, unsigned bit)
{
	int fd = open_as_stranger(file);
	unsigned char byte;

	must(pread(fd, &byte, 1, (off_t)at) == 1);
	byte ^= (unsigned char)(1u << bit);
	must(pwrite(fd, &byte, 1, (off_t)at) == 1);
	close(fd);
}

static inline void cut(const struct file *file, uint64_t bytes)
{
	must(chmod(file->path, 0600) == 0);
	must(truncate(file->path, (off_t)bytes) == 0);
}

/* Of the file itself, @bytes from @from to @to: beyond its end, or over what is there. */
static inline void copy_within(const struct file *file, uint64_t from, uint64_t to, size_t bytes)
{
	unsigned char *data = calloc(1, bytes + 1);
	int fd = open_as_stranger(file);

	must(data != NULL && pread(fd, data, bytes, (off_t)from) >= 0);
	must(pwrite(fd, data, bytes, (off_t)to) == (ssize_t)bytes);
	close(fd);
	free(data);
}

/* --------------------------------------------------------------- and what is seen */

/* Who makes blobs, and who looks at their checksums, as two processes would be. */
static struct scache *maker, *looker;

static inline void open_both(void)
{
	maker = scratch_open();
	scratch_options.verify = SCACHE_VERIFY_ALWAYS;
	looker = scratch_open();
}

static inline void close_both(void)
{
	must_be(scratch_blobs(), 0);
	scratch_close(maker);
	scratch_is_clean(looker);
	scratch_close(looker);
}

static inline struct file produce(uint64_t seed, uint64_t bytes, size_t piece)
{
	pattern_produce(scratch_create(maker, "k", 0, NULL), seed, bytes, piece);
	return find_file();
}

/* It is as it was made. Then it is removed. */
static inline void is_whole(uint64_t seed, uint64_t bytes, way_fn *way, size_t piece)
{
	struct scache_reader *reader = scratch_find(looker, "k");
	uint64_t had = 0;

	must_be(way(reader, seed, bytes, piece, &had), 0);
	must_be(had, bytes);
	scache_reader_close(reader);
	must_be(scache_remove(looker, "k", 1), 0);
}

/* Found when it is opened, or where it is read, and then it is gone. Returns what was had. */
static inline uint64_t is_found_out(uint64_t seed, uint64_t bytes, way_fn *way, size_t piece)
{
	uint64_t before = scratch_stat(looker).damaged, had = 0;
	struct scache_reader *reader;
	char byte;
	int ret = scache_lookup(looker, "k", 1, NULL, &reader);

	if (ret == 0) {
		must_be(way(reader, seed, bytes, piece, &had), -EBADMSG);
		must(had < bytes);
		if (way != by_pread)
			must_be(scache_read(reader, &byte, 1, 0), -EBADMSG);
		must(scratch_misses(looker, "k") && scratch_misses(maker, "k"));
		scache_reader_close(reader);
	} else {
		must_be(ret, -ENOENT);
	}
	must_be(scratch_stat(looker).damaged, before + 1);
	must(scratch_misses(looker, "k") && scratch_misses(maker, "k"));
	must_be(scratch_blobs(), 0);
	return had;
}

#endif
