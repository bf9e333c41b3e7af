/* SPDX-License-Identifier: MIT */
#include "plain.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

unsigned char plain_source[BLOCK_BYTES_MAX], plain_sink[BLOCK_BYTES_MAX];

void plain_begin(void)
{
	memset(plain_source, 0x5a, sizeof(plain_source));
	memset(plain_sink, 0, sizeof(plain_sink));
}

const char *fresh_name(const char *kind)
{
	static char names[8][48];
	static unsigned turn;
	char *name = names[turn % 8];

	snprintf(name, sizeof(names[0]), "%s-%u-%ld", kind, turn++, (long)getpid());
	return name;
}

/* ------------------------------------------------------------------------ one large file */

void plain_write(int fd, size_t bytes, size_t block)
{
	for (size_t done = 0; done < bytes; done += block)
		expect(pwrite(fd, plain_source, block, (off_t)done) == (ssize_t)block, "pwrite");
}

int plain_file(const char *path, size_t bytes)
{
	int fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);

	expect(fd >= 0, path);
	plain_write(fd, bytes, BLOCK_BYTES);
	return fd;
}

void plain_touch(const void *data, size_t bytes)
{
	const volatile uint64_t *words = data;

	for (size_t i = 0; i < bytes / sizeof(*words); i += 64 / sizeof(*words))
		(void)words[i];
}

void plain_read(int fd, size_t bytes, size_t block, bool touch)
{
	for (size_t done = 0; done < bytes; done += block) {
		expect(pread(fd, plain_sink, block, (off_t)done) == (ssize_t)block, "pread");
		if (touch)
			plain_touch(plain_sink, block);
	}
}

void plain_map(int fd, size_t bytes)
{
	void *data = mmap(NULL, bytes, PROT_READ, MAP_SHARED, fd, 0);

	expect(data != MAP_FAILED, "mmap");
	plain_touch(data, bytes);
	munmap(data, bytes);
}

void plain_sendfile(int to_fd, int fd, size_t bytes)
{
	off_t offset = 0;

	while ((size_t)offset < bytes)
		expect(sendfile(to_fd, fd, &offset, bytes - (size_t)offset) > 0, "sendfile");
}

struct drain drain_open(size_t bytes)
{
	struct drain drain;
	size_t done = 0;
	int ends[2];

	expect(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) == 0, "socketpair");
	drain.child = fork();
	expect(drain.child >= 0, "fork");
	if (drain.child == 0) {
		close(ends[0]);
		/* Awake, and in its loop, before the clock is started. */
		expect(write(ends[1], "r", 1) == 1, "write");
		while (done < bytes) {
			ssize_t got = read(ends[1], plain_sink, BLOCK_BYTES);

			expect(got > 0, "read of the socket");
			done += (size_t)got;
		}
		expect(write(ends[1], "d", 1) == 1, "write");
		_exit(0);
	}
	close(ends[1]);
	drain.fd = ends[0];
	expect(read(drain.fd, plain_sink, 1) == 1, "read");
	return drain;
}

void drain_close(const struct drain *drain)
{
	expect(read(drain->fd, plain_sink, 1) == 1, "read: the other side has not had all of it");
	close(drain->fd);
	reap(drain->child);
}

/* --------------------------------------------------------------------- many small values */

const struct small_name *small_names;

/* Anything that spreads the files over all directories, as a hash does. */
static uint64_t spread(uint64_t x)
{
	x += 0x9e3779b97f4a7c15ull;
	x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ull;
	x = (x ^ (x >> 27)) * 0x94d049bb133111ebull;
	return x ^ (x >> 31);
}

void small_begin(unsigned count)
{
	struct small_name *names = calloc(count, sizeof(*names));

	expect(names != NULL, "calloc");
	for (unsigned i = 0; i < count; i++) {
		uint64_t high = spread(i), low = spread(high);

		names[i].key_bytes = (uint32_t)snprintf(names[i].key, sizeof(names[i].key),
							"small-value-%08u", i);
		snprintf(names[i].path, sizeof(names[i].path),
			 "%02x/%016" PRIx64 "%016" PRIx64
			 ".0123456789abcdef0123456789abcdef.%05u.0",
			 (unsigned)(high >> 56), high, low, i);
	}
	small_names = names;
}

const void *small_value(unsigned i)
{
	memcpy(plain_source, &i, sizeof(i));
	return plain_source;
}

void small_check(unsigned i, const void *value)
{
	errno = 0;
	expect(memcmp(value, &i, sizeof(i)) == 0, "another value than was stored");
}

int fan_open(const char *name, bool make)
{
	char sub[4];
	int fan;

	if (make)
		expect(mkdir(in_dir(name), 0700) == 0, name);
	fan = open(in_dir(name), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	expect(fan >= 0, name);
	for (unsigned i = 0; make && i < 256; i++) {
		snprintf(sub, sizeof(sub), "%02x", i);
		expect(mkdirat(fan, sub, 0700) == 0, sub);
	}
	return fan;
}

static void put_as(int fan, const char *path, unsigned i)
{
	int fd = openat(fan, path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);

	expect(fd >= 0, path);
	expect(write(fd, small_value(i), SMALL_BYTES) == SMALL_BYTES, "write");
	expect(close(fd) == 0, "close");
}

void fan_put(int fan, unsigned i)
{
	put_as(fan, small_names[i].path, i);
}

void fan_put_renamed(int fan, unsigned i)
{
	char path[sizeof(small_names[i].path) + 4];

	memcpy(path, small_names[i].path, sizeof(small_names[i].path));
	strcat(path, ".t");
	put_as(fan, path, i);
	expect(renameat(fan, path, fan, small_names[i].path) == 0, "rename");
}

void fan_get(int fan, unsigned i)
{
	int fd = openat(fan, small_names[i].path, O_RDONLY | O_CLOEXEC);

	expect(fd >= 0, small_names[i].path);
	expect(pread(fd, plain_sink, SMALL_BYTES, 0) == SMALL_BYTES, "pread");
	close(fd);
}

void ours_put(struct scache *cache, unsigned i)
{
	const struct small_name *name = &small_names[i];
	struct scache_writer *writer;

	sc(scache_acquire(cache, name->key, name->key_bytes, NULL, NULL, &writer),
	   "scache_acquire");
	expect(writer != NULL, "the cache cannot help, or has it already");
	expect(sc(scache_write(writer, small_value(i), SMALL_BYTES, SCACHE_FOREVER),
		  "scache_write") == SMALL_BYTES,
	       "scache_write: not all");
	expect(sc(scache_finish(writer), "scache_finish") == 0, "scache_finish: not kept");
	scache_writer_close(writer);
}
