/* SPDX-License-Identifier: MIT */
/*
 * finished - how fast is a finished blob read, all of it, from the page cache? It
 * should cost what a plain file of the same size does.
 *
 *	finished [--rounds=N] [--mib=N] [--json=FILE] [--only=TEXT] [--smoke] [DIR]
 *
 * One process (and one that drains the socket); --mib (256) is the blob's size.
 * A run of ours begins with the look-up and ends with the reader closed; one of
 * theirs begins with open() and ends with close(). "Own file" is the blob's file
 * itself, read past us: same pages, so that it differs from the plain file by where
 * those happen to lie, and from ours by what we do.
 *
 * Where bytes are looked at in place (peek, mapping), everybody looks at each cache
 * line, also of what was copied; where they are copied only, nobody does.
 */
#include <fcntl.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "plain.h"

static size_t blob_bytes = 256u << 20;
static struct scache *cache;
static char plain_path[4200], own_path[4200];

/* ----------------------------------------------------------------------------------- ours */

static struct scache_reader *look_up(void)
{
	struct scache_reader *reader;

	sc(scache_lookup(cache, "finished", 8, NULL, &reader), "scache_lookup");
	return reader;
}

static double ended(struct scache_reader *reader, size_t done, double began)
{
	expect(done == blob_bytes, "not all of the blob");
	scache_reader_close(reader);
	return (double)(blob_bytes >> 20) / (seconds() - began);
}

static double run_read(const void *arg)
{
	double began = seconds();
	struct scache_reader *reader = look_up();
	size_t done = 0;
	ssize_t got;

	(void)arg;
	while ((got = scache_read(reader, plain_sink, BLOCK_BYTES, SCACHE_FOREVER)) > 0)
		done += (size_t)got;
	sc(got, "scache_read");
	return ended(reader, done, began);
}

static double run_scache_pread(const void *arg)
{
	double began = seconds();
	struct scache_reader *reader = look_up();
	size_t done = 0;
	ssize_t got;

	(void)arg;
	while ((got = scache_pread(reader, plain_sink, BLOCK_BYTES, done, SCACHE_FOREVER)) > 0)
		done += (size_t)got;
	sc(got, "scache_pread");
	return ended(reader, done, began);
}

static double run_send(const void *arg)
{
	struct drain drain = drain_open(blob_bytes);
	double began = seconds();
	struct scache_reader *reader = look_up();
	size_t done = 0;
	ssize_t sent;

	(void)arg;
	while ((sent = scache_sendfile(reader, drain.fd, SIZE_MAX, SCACHE_FOREVER)) > 0)
		done += (size_t)sent;
	sc(sent, "sending");
	drain_close(&drain);
	return ended(reader, done, began);
}

static double run_peek(const void *arg)
{
	double began = seconds();
	struct scache_reader *reader = look_up();
	size_t done = 0;
	const void *data;
	ssize_t got;

	(void)arg;
	while ((got = scache_peek(reader, &data, SIZE_MAX, SCACHE_FOREVER)) > 0) {
		plain_touch(data, (size_t)got);
		sc(scache_consume(reader, (size_t)got), "scache_consume");
		done += (size_t)got;
	}
	sc(got, "scache_peek");
	return ended(reader, done, began);
}

/* --------------------------------------------------------------------------------- theirs */

static const struct way {
	const char *path;
	size_t block;
	bool touch;
} plain_64k = { plain_path, 64u << 10, false }, plain_256k = { plain_path, BLOCK_BYTES, false },
  own_256k = { own_path, BLOCK_BYTES, false };
static const struct way touched_64k = { plain_path, 64u << 10, true },
			touched_256k = { plain_path, BLOCK_BYTES, true },
			touched_1m = { plain_path, 1u << 20, true },
			own_touched = { own_path, BLOCK_BYTES, true };

static int open_plain(const char *path)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);

	expect(fd >= 0, path);
	return fd;
}

static double run_pread(const void *arg)
{
	const struct way *way = arg;
	double began = seconds();
	int fd = open_plain(way->path);

	plain_read(fd, blob_bytes, way->block, way->touch);
	close(fd);
	return (double)(blob_bytes >> 20) / (seconds() - began);
}

static double run_map(const void *arg)
{
	double began = seconds();
	int fd = open_plain(arg);

	plain_map(fd, blob_bytes);
	close(fd);
	return (double)(blob_bytes >> 20) / (seconds() - began);
}

/* Without mmap() and its page faults: what a mapping is worth that somebody keeps. */
static double run_kept_map(const void *arg)
{
	static void *data;
	double began;

	if (data == NULL)
		data = mmap(NULL, blob_bytes, PROT_READ, MAP_SHARED | MAP_POPULATE, open_plain(arg),
			    0);
	expect(data != MAP_FAILED, "mmap");
	began = seconds();
	plain_touch(data, blob_bytes);
	return (double)(blob_bytes >> 20) / (seconds() - began);
}

static double run_sendfile(const void *arg)
{
	struct drain drain = drain_open(blob_bytes);
	double began = seconds();
	int fd = open_plain(arg);

	plain_sendfile(drain.fd, fd, blob_bytes);
	drain_close(&drain);
	close(fd);
	return (double)(blob_bytes >> 20) / (seconds() - began);
}

static double run_copy(const void *arg)
{
	struct drain drain = drain_open(blob_bytes);
	double began = seconds();
	int fd = open_plain(arg);
	ssize_t got;

	while ((got = read(fd, plain_sink, BLOCK_BYTES)) > 0)
		for (ssize_t sent = 0, n; sent < got; sent += n)
			expect((n = write(drain.fd, plain_sink + sent, (size_t)(got - sent))) > 0,
			       "write");
	drain_close(&drain);
	close(fd);
	return (double)(blob_bytes >> 20) / (seconds() - began);
}

/* ------------------------------------------------------------------------------ questions */

static int note_largest(const char *path, const struct stat *st, int type, struct FTW *walk)
{
	(void)walk;
	/* With its footer; and on a tmpfs the segment is below DIR, too. */
	if (type == FTW_F && (size_t)st->st_size > blob_bytes && strstr(path, "/blobs/") != NULL)
		snprintf(own_path, sizeof(own_path), "%s", path);
	return 0;
}

/* Made by writes of the same size as the plain file is. */
static void make_blob(void)
{
	struct scache_options options = { .size = sizeof(options), .max_age_ns = SCACHE_UNLIMITED };
	struct scache_acquire_options own = { .size = sizeof(own), .flags = SCACHE_RUN_TO_END };
	struct scache_writer *writer;
	size_t done = 0;

	cache = a_cache("cache", &options);
	sc(scache_acquire(cache, "finished", 8, &own, NULL, &writer), "scache_acquire");
	expect(writer != NULL, "the cache cannot help");
	while (done < blob_bytes)
		done += (size_t)sc(scache_write(writer, plain_source, BLOCK_BYTES, SCACHE_FOREVER),
				   "scache_write");
	expect(sc(scache_finish(writer), "scache_finish") == 0, "scache_finish: not kept");
	scache_writer_close(writer);
	nftw(in_dir("cache"), note_largest, 16, FTW_PHYS);
	expect(own_path[0] != '\0', "the blob's file");
}

static void ask_all(void)
{
	const struct question read_it = {
		"finished: read", "MiB/s", false, "256 KiB buffer, one process",
		{ { "scache_read", run_read, NULL, 0 },
		  { "pread of a plain file", run_pread, &plain_256k, 0.95 },
		  { "the same, 64 KiB buffer", run_pread, &plain_64k, 0 },
		  { "pread of the blob's own file", run_pread, &own_256k, 0 } },
	}, pread_it = {
		"finished: pread", "MiB/s", false, "256 KiB buffer, one process",
		{ { "scache_pread", run_scache_pread, NULL, 0 },
		  { "pread of a plain file", run_pread, &plain_256k, 0 },
		  { "pread of the blob's own file", run_pread, &own_256k, 0 } },
	}, send_it = {
		"finished: send", "MiB/s", false, "to a unix socket that another process drains",
		{ { "ours, until it has all", run_send, NULL, 0 },
		  { "sendfile of a plain file", run_sendfile, plain_path, 0.95 },
		  { "sendfile of the blob's own file", run_sendfile, own_path, 0 },
		  { "read and write", run_copy, plain_path, 0 } },
	};

	ask(&read_it);
	ask(&pread_it);
	ask(&send_it);
	const struct question peek_at_it = {
		"finished: peek", "MiB/s", false, "everybody looks at each cache line",
		{ { "scache_peek", run_peek, NULL, 0 },
		  { "mapping of a plain file", run_map, plain_path, 0.9 },
		  { "mapping of the blob's own file", run_map, own_path, 0 },
		  { "a mapping that is kept", run_kept_map, plain_path, 0 },
		  { "pread, 64 KiB buffer", run_pread, &touched_64k, 1.0 },
		  { "pread, 256 KiB buffer", run_pread, &touched_256k, 1.0 },
		  { "pread, 1 MiB buffer", run_pread, &touched_1m, 1.0 },
		  { "pread of the blob's own file", run_pread, &own_touched, 0 } },
	};

	ask(&peek_at_it);
}

static bool own_option(const char *name, const char *value)
{
	if (strcmp(name, "--mib") != 0 || atoi(value) < 1)
		return false;
	blob_bytes = (size_t)atoi(value) << 20;
	return true;
}

int main(int argc, char **argv)
{
	bench_begin(argc, argv, "finished [--mib=N] [DIR]", own_option);
	if (bench.smoke)
		blob_bytes = 16u << 20;
	plain_begin();
	snprintf(plain_path, sizeof(plain_path), "%s", in_dir("plain"));
	close(plain_file(plain_path, blob_bytes));
	make_blob();
	ask_all();
	scache_close(cache);
	return bench_end();
}
