/* SPDX-License-Identifier: MIT */
/*
 * packed - entries "k" that are stored as LZ4 frames, what their files are, and what
 * lz4(1) says of them. Their bytes are text of TEXT.
 */
#ifndef UTIL_PACKED_H
#define UTIL_PACKED_H

#include "damage.h"
#include "ends.h"
#include "producer.h"
#include "shm/atomic.h"

#define TEXT (PATTERN_TEXT | 1)
#define PACKED_RING_BYTES (1u << 20) /* a smaller one is not for them */

static inline bool have_lz4(void)
{
	return system("lz4 --version >/dev/null 2>&1") == 0;
}

/* status_of - the exit status of a program whose tests have ended with @failed. */
static inline int status_of(int failed)
{
	if (failed || have_lz4())
		return failed;
	puts("the command lz4 is not installed");
	return 77;
}

/* open_packed - everything that is produced is compressed, unless it says otherwise. */
static inline struct scache *open_packed(uint32_t compression, uint32_t level)
{
	scratch_options.ring_bytes = PACKED_RING_BYTES;
	scratch_options.compression = compression;
	scratch_options.level = level;
	return scratch_open();
}

static inline bool is_frame(const struct file *file)
{
	static const unsigned char magic[] = { 0x04, 0x22, 0x4d, 0x18 };
	unsigned char data[sizeof(magic)] = { 0 };
	int fd = open(file->path, O_RDONLY | O_CLOEXEC);

	must(fd >= 0 && pread(fd, data, sizeof(data), 0) >= 0);
	close(fd);
	return memcmp(data, magic, sizeof(magic)) == 0;
}

/* passes_lz4 - also if there is no such command: see status_of(). */
static inline bool passes_lz4(const struct file *file)
{
	static int have = -1;
	char line[700];

	if (have < 0)
		have = have_lz4();
	snprintf(line, sizeof(line), "lz4 -t -q <%s 2>/dev/null", file->path);
	return !have || system(line) == 0;
}

/* must_be_packed - the only file: a frame to us and to lz4(1). */
static inline struct file must_be_packed(void)
{
	struct file file = find_file();

	must(is_frame(&file));
	must(passes_lz4(&file));
	return file;
}

/* must_be_raw - the only file has the payload at its beginning, and no frame of its own. */
static inline void must_be_raw(uint64_t seed, uint64_t bytes)
{
	struct file file = find_file();
	unsigned char *data = malloc(bytes + 1);
	int fd = open(file.path, O_RDONLY | O_CLOEXEC);

	must(fd >= 0 && data != NULL && file.bytes > bytes);
	must_be(pread(fd, data, bytes, 0), bytes);
	must(pattern_matches(seed, 0, data, bytes));
	close(fd);
	free(data);
}

/* write_text - [@from, @until) in pieces of @piece; all of it must be taken. */
static inline void write_text(struct scache_writer *writer, uint64_t from, uint64_t until,
			      size_t piece)
{
	int error = 0;

	must_be(pattern_write(writer, TEXT, from, until, piece, &error), until - from);
	must_be(error, 0);
}

/* pread_text - as pread_at(), without waiting. */
static inline ssize_t pread_text(struct scache_reader *reader, uint64_t offset, size_t bytes)
{
	unsigned char *data = malloc(bytes + 1);
	ssize_t done;

	must(data != NULL);
	done = scache_pread(reader, data, bytes, offset, 0);
	must(done <= (ssize_t)bytes);
	if (done > 0)
		must(pattern_matches(TEXT, offset, data, (size_t)done));
	free(data);
	return done;
}

/* read_text - from 0 to the end, which must be at @bytes. What the last read returned. */
static inline int read_text(struct scache_reader *reader, uint64_t bytes, size_t piece)
{
	uint64_t position = 0;
	int ret = pattern_read(reader, TEXT, &position, UINT64_MAX, piece);

	must_be(position, bytes);
	return ret;
}

/* is_stored - so many bytes of it are in the file. */
static inline bool is_stored(struct scache_reader *reader, uint64_t bytes)
{
	struct scache_entry_info info = scratch_info(reader);

	must(info.stored_bytes <= bytes);
	return info.stored_bytes == bytes;
}

/* have_stopped - of this process's threads none has been added to the @before; a sanitizer has its own. */
static inline bool have_stopped(int before)
{
	return UNDER_TSAN || threads_now() == before;
}

/* read_text_along - the body of a child: attach, say so, read to the end at *@arg. */
static inline void read_text_along(void *arg)
{
	struct scache *cache = scratch_open();
	struct scache_reader *reader = scratch_find(cache, "k");

	child_say(0);
	must_be(read_text(reader, *(const uint64_t *)arg, 30000), 0);
	scache_reader_close(reader);
	scratch_close(cache);
}

#endif
