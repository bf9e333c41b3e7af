/* SPDX-License-Identifier: MIT */
#include "former.h"

#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "pattern.h"
#include "scratch.h"
#include "shm/layout.h"
#include "spawn.h"
#include "store/footer.h"

/* ------------------------------------------------------------- the segment */

/* Change the file of the segment behind the back of who is attached. */
static void change_segment(const char *path, off_t offset, const void *data, size_t bytes)
{
	int fd = open(path, O_WRONLY | O_CLOEXEC);

	must(fd >= 0 && pwrite(fd, data, bytes, offset) == (ssize_t)bytes);
	close(fd);
}

void former_lose(enum former_loss how)
{
	static const char boot[40] = "01234567-89ab-cdef-0123-456789abcdef";
	const uint64_t retired = SHM_MAGIC_RETIRED;
	const uint32_t layout = SHM_LAYOUT + 1;
	char path[400];

	scratch_segment(path, sizeof(path));
	if (how == LOST_FILE)
		must(unlink(path) == 0);
	else if (how == LOST_BOOT)
		change_segment(path, offsetof(struct shm_header, boot_id), boot, sizeof(boot));
	else if (how == LOST_LAYOUT)
		change_segment(path, offsetof(struct shm_header, layout), &layout, sizeof(layout));
	else
		change_segment(path, offsetof(struct shm_header, magic), &retired, sizeof(retired));
}

/* --------------------------------------------------------------- the files */

static int open_blob_file(const char *path)
{
	int fd;

	must(chmod(path, 0600) == 0);
	fd = open(path, O_RDWR | O_CLOEXEC);
	must(fd >= 0);
	return fd;
}

static void close_blob_file(int fd)
{
	must(fchmod(fd, 0400) == 0);
	close(fd);
}

static off_t size_of(int fd)
{
	struct stat st;

	must(fstat(fd, &st) == 0);
	return st.st_size;
}

void former_age(const char *path, uint64_t age_ns)
{
	int fd = open_blob_file(path);
	uint64_t bytes = (uint64_t)size_of(fd);
	struct footer *footer;
	unsigned char *data;

	must_be(footer_read(fd, bytes, &footer), 0);
	footer->finished_ns -= age_ns;
	footer->created_ns -= age_ns;
	data = malloc(footer_bytes(footer));
	must(data != NULL);
	footer_encode(footer, data);
	must(pwrite(fd, data, footer_bytes(footer), (off_t)footer->stored_bytes) ==
	     (ssize_t)footer_bytes(footer));
	free(data);
	free(footer);
	close_blob_file(fd);
}

void former_change(const char *path, off_t offset)
{
	int fd = open_blob_file(path);
	unsigned char byte;

	if (offset < 0)
		offset += size_of(fd);
	must(pread(fd, &byte, 1, offset) == 1);
	byte ^= 0x10;
	must(pwrite(fd, &byte, 1, offset) == 1);
	close_blob_file(fd);
}

void former_resize(const char *path, off_t by)
{
	int fd = open_blob_file(path);

	must(ftruncate(fd, size_of(fd) + by) == 0);
	close_blob_file(fd);
}

mode_t former_mode(const char *path)
{
	struct stat st;

	must(lstat(path, &st) == 0);
	return st.st_mode & 07777;
}

void former_put(const char *key, uint64_t seed, uint64_t bytes)
{
	former_put_aged(key, seed, bytes, 0, 0);
}

void former_put_aged(const char *key, uint64_t seed, uint64_t bytes, uint64_t max_age_ns,
		     uint64_t age_ns)
{
	struct scache_acquire_options options = { .size = sizeof(options),
						  .max_age_ns = max_age_ns };
	struct scache *cache = scratch_open();
	struct scache_writer *writer = NULL;
	char path[400];

	must_be(scache_acquire(cache, key, strlen(key), &options, NULL, &writer), 0);
	must(writer != NULL);
	pattern_produce(writer, seed, bytes, 100000);
	scratch_close(cache);
	if (age_ns > 0) {
		scratch_blob(path, sizeof(path));
		former_age(path, age_ns);
	}
}

/* ----------------------------------------------------------------- reading */

#define PIECE_BYTES 100000

static int by_pread(struct scache_reader *reader, uint64_t seed, uint64_t *at)
{
	static unsigned char data[PIECE_BYTES];
	ssize_t done;

	while ((done = scache_pread(reader, data, sizeof(data), *at, 0)) > 0) {
		must(pattern_matches(seed, *at, data, (size_t)done));
		*at += (uint64_t)done;
	}
	return (int)done;
}

static int by_peek(struct scache_reader *reader, uint64_t seed, uint64_t *at)
{
	const void *data;
	ssize_t done;

	while ((done = scache_peek(reader, &data, PIECE_BYTES, 0)) > 0) {
		must(pattern_matches(seed, *at, data, (size_t)done));
		must_be(scache_consume(reader, (size_t)done), done);
		*at += (uint64_t)done;
	}
	return (int)done;
}

static int by_sendfile(struct scache_reader *reader, uint64_t seed, uint64_t *at)
{
	static unsigned char data[PIECE_BYTES];
	FILE *file = tmpfile();
	ssize_t done;

	must(file != NULL);
	while ((done = scache_sendfile(reader, fileno(file), PIECE_BYTES, 0)) > 0) {
		must(pread(fileno(file), data, (size_t)done, (off_t)*at) == done);
		must(pattern_matches(seed, *at, data, (size_t)done));
		*at += (uint64_t)done;
	}
	fclose(file);
	return (int)done;
}

int former_read(struct scache_reader *reader, enum former_way way, uint64_t seed, uint64_t bytes)
{
	uint64_t at = 0;
	int ret;

	if (way == BY_READ)
		ret = pattern_read(reader, seed, &at, UINT64_MAX, PIECE_BYTES);
	else if (way == BY_PREAD)
		ret = by_pread(reader, seed, &at);
	else if (way == BY_PEEK)
		ret = by_peek(reader, seed, &at);
	else
		ret = by_sendfile(reader, seed, &at);
	must(at <= bytes);
	if (ret == 0)
		must_be(at, bytes);
	return ret;
}

void former_has(struct scache *cache, const char *key, uint64_t seed, uint64_t bytes)
{
	struct scache_reader *reader = scratch_find(cache, key);

	must_be(former_read(reader, BY_READ, seed, bytes), 0);
	must_be(scache_reader_close(reader), 0);
}

int former_count_wrong(struct scache *cache, const char *key, uint64_t seed, uint64_t bytes)
{
	unsigned char *data = malloc(bytes + 1), *right = malloc(bytes);
	struct scache_reader *reader = scratch_find(cache, key);
	uint64_t done = 0;
	ssize_t part;
	int wrong = 0;

	must(data != NULL && right != NULL);
	while ((part = scache_read(reader, data + done, bytes + 1 - done, 0)) > 0)
		done += (uint64_t)part;
	must_be(part, 0);
	must_be(done, bytes);
	pattern_fill(seed, 0, right, bytes);
	for (uint64_t i = 0; i < bytes; i++)
		wrong += data[i] != right[i];
	scache_reader_close(reader);
	free(data);
	free(right);
	return wrong;
}

void former_is_gone(void)
{
	struct scache *cache;

	former_lose(LOST_FILE);
	cache = scratch_open();
	must(scratch_misses(cache, "k"));
	scratch_is_clean(cache);
	must(scratch_misses(cache, "k"));
	must_be(scratch_blobs(), 0);
	scratch_close(cache);
}
