/* SPDX-License-Identifier: MIT */
/*
 * index - does a hit cost more when the cache holds more, and what does an entry
 * cost in shared memory?
 *
 *	index [--entries=N] [--rounds=N] [--json=FILE] [--only=TEXT] [--smoke] [DIR]
 *
 * The contestants are the same cache with 1000, with 100000 and with --entries=N
 * entries (100000; the mark is about 1000000, for which a million files have to be
 * made: a minute or so, and 5 GB of ext4 or 2 GB of a DIR on a tmpfs). The entries
 * are empty finished blobs: their bytes have no part in this.
 *
 * A hit is asked for in three ways, because three things grow with a cache:
 *  - values seen before: 128 of them, again and again. Chains of the index;
 *  - any value: all keys in a scattered order, so that the entry is in no cache of
 *    the processor. Of 1000 a process holds all, of more than a few thousand each
 *    opens its file: no mark. What of that is the kernel's, which has more files too,
 *    the next question says: open() and close() of the same files, past us;
 *  - without a stream: as any value, by a scache_acquire() that wants no reader.
 *    Nothing but the index: this is what memory itself costs, and has no mark.
 */
#include <fcntl.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "plain.h"

#define SEEN 128u
#define FILE_BYTES 96

static unsigned largest = 100000, looks = 50000;

static struct size {
	unsigned entries;
	struct scache *cache;
	char name[32], place[48];
	int blobs_fd;
	char (*files)[FILE_BYTES]; /* some of them, below that */
	unsigned file_count;
} sizes[3];

struct key {
	char text[24];
	uint32_t bytes;
};

static struct key key_of(unsigned i)
{
	struct key key;

	key.bytes = (uint32_t)snprintf(key.text, sizeof(key.text), "entry-%08u", i);
	return key;
}

/* ----------------------------------------------------------------------------- making them */

/* Every so many of its files, that they are no more than the looks and from everywhere. */
static struct size *listing;
static unsigned listed_at;

static int list_one(const char *path, const struct stat *st, int type, struct FTW *walk)
{
	unsigned step = listing->entries / looks + 1;

	(void)st;
	(void)walk;
	if (type != FTW_F || listed_at++ % step != 0 || listing->file_count == looks)
		return 0;
	/* "ab/name": the end of the path. */
	snprintf(listing->files[listing->file_count++], FILE_BYTES, "%s",
		 path + strlen(in_dir(listing->place)) + strlen("/blobs/"));
	return 0;
}

static void list(struct size *size)
{
	char path[4200];

	snprintf(path, sizeof(path), "%s/blobs", in_dir(size->place));
	size->blobs_fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	expect(size->blobs_fd >= 0, path);
	size->files = calloc(looks, sizeof(*size->files));
	expect(size->files != NULL, "calloc");
	listing = size;
	listed_at = 0;
	nftw(path, list_one, 16, FTW_PHYS);
	expect(size->file_count > 0, "the blobs' files");
}

static void fill(struct size *size, unsigned entries)
{
	struct scache_options options = { .size = sizeof(options), .max_age_ns = SCACHE_UNLIMITED };
	double began = seconds();

	size->entries = entries;
	snprintf(size->name, sizeof(size->name), "%u entries", entries);
	snprintf(size->place, sizeof(size->place), "%s", fresh_name("cache"));
	options.entries = entries;
	size->cache = a_cache(size->place, &options);
	for (unsigned i = 0; i < entries; i++) {
		struct key key = key_of(i);
		struct scache_writer *writer;

		sc(scache_acquire(size->cache, key.text, key.bytes, NULL, NULL, &writer),
		   "scache_acquire");
		expect(writer != NULL, "the cache cannot help");
		expect(sc(scache_finish(writer), "scache_finish") == 0, "scache_finish: not kept");
		scache_writer_close(writer);
	}
	printf("%s made in %.1f s\n", size->name, seconds() - began);
	list(size);
}

/* -------------------------------------------------------------------------------- looks */

/* Keys beforehand: printf() costs more than the index. */
static struct key *choose(const struct size *size, unsigned among)
{
	struct key *keys = calloc(looks, sizeof(*keys));

	expect(keys != NULL, "calloc");
	for (unsigned i = 0; i < looks; i++) {
		uint64_t scattered = (uint64_t)(i % among) * 2654435761u;

		keys[i] = key_of((unsigned)(scattered % size->entries));
	}
	return keys;
}

static double look_up(const struct size *size, unsigned among)
{
	struct key *keys = choose(size, among);
	struct scache_reader *reader;
	double began = seconds();

	for (unsigned i = 0; i < looks; i++) {
		sc(scache_lookup(size->cache, keys[i].text, keys[i].bytes, NULL, &reader),
		   "scache_lookup");
		scache_reader_close(reader);
	}
	began = (seconds() - began) * 1e9 / looks;
	free(keys);
	return began;
}

static double run_seen(const void *arg)
{
	return look_up(arg, SEEN);
}

static double run_any(const void *arg)
{
	return look_up(arg, looks);
}

static double run_without(const void *arg)
{
	const struct size *size = arg;
	struct key *keys = choose(size, looks);
	struct scache_writer *writer;
	double began = seconds();

	for (unsigned i = 0; i < looks; i++) {
		sc(scache_acquire(size->cache, keys[i].text, keys[i].bytes, NULL, NULL, &writer),
		   "scache_acquire");
		expect(writer == NULL, "a value is not there any more");
	}
	began = (seconds() - began) * 1e9 / looks;
	free(keys);
	return began;
}

static double run_open(const void *arg)
{
	const struct size *size = arg;
	double began = seconds();

	for (unsigned i = 0; i < looks; i++) {
		const char *path = size->files[(uint64_t)i * 2654435761u % size->file_count];
		int fd = openat(size->blobs_fd, path, O_RDONLY | O_CLOEXEC);

		expect(fd >= 0, path);
		close(fd);
	}
	return (seconds() - began) * 1e9 / looks;
}

/* -------------------------------------------------------------------------------- memory */

static uint64_t segment_bytes(struct scache *cache)
{
	struct scache_stats stats = { .size = sizeof(stats) };

	sc(scache_stat(cache, &stats), "scache_stat");
	return stats.segment_bytes;
}

static double run_entry_bytes(const void *arg)
{
	(void)arg;
	return (double)(segment_bytes(sizes[0].cache) - segment_bytes(sizes[2].cache)) /
	       (sizes[0].entries - sizes[2].entries);
}

static uint64_t bytes_with_readers(unsigned readers)
{
	struct scache_options options = { .size = sizeof(options) };
	struct scache *cache;
	uint64_t bytes;

	options.readers = readers;
	options.entries = 16;
	cache = a_cache(fresh_name("readers"), &options);
	bytes = segment_bytes(cache);
	scache_close(cache);
	return bytes;
}

static double run_reader_bytes(const void *arg)
{
	const unsigned few = 64u << 10, many = 1u << 20;

	(void)arg;
	return (double)(bytes_with_readers(many) - bytes_with_readers(few)) / (many - few);
}

static double run_allowed(const void *arg)
{
	return *(const double *)arg;
}

/* ----------------------------------------------------------------------------- questions */

static void ask_looks(const char *name, const char *where, double (*run)(const void *arg),
		      double mark)
{
	struct question question = { .name = name, .unit = "ns", .is_time = true, .where = where };
	unsigned count = 0;

	for (unsigned i = 0; i < 3; i++)
		if (sizes[i].cache != NULL)
			question.contestants[count++] = (struct contestant){
				sizes[i].name, run, &sizes[i], i == 2 ? mark : 0
			};
	ask(&question);
}

static void ask_memory(void)
{
	static const double allowed = 512;
	const struct question entry = {
		"index: memory of an entry", "bytes", true, "of the segment, in use or not",
		{ { "more bytes by more entries", run_entry_bytes, NULL, 0 },
		  { "allowed", run_allowed, &allowed, 1.0 } },
	}, reader = {
		"index: memory of a reader", "bytes", true, "of the segment, in use or not",
		{ { "more bytes by more readers", run_reader_bytes, NULL, 0 } },
	};

	ask(&entry);
	ask(&reader);
}

static bool own_option(const char *name, const char *value)
{
	return bench_number(name, value, "--entries", 2000, 4194304, &largest);
}

int main(int argc, char **argv)
{
	bench_begin(argc, argv, "index [--entries=N] [DIR]", own_option);
	if (bench.smoke) {
		largest = 5000;
		looks = 5000;
	}
	fill(&sizes[2], 1000);
	if (largest > 100000)
		fill(&sizes[1], 100000);
	fill(&sizes[0], largest);
	ask_looks("index: hit, seen before", "look up and close, 128 values", run_seen, 1.5);
	ask_looks("index: hit, any value", "look up and close, all values", run_any, 0);
	ask_looks("index: open of any blob's file", "openat and close, past us", run_open, 0);
	ask_looks("index: hit, no stream", "scache_acquire without a reader, all values",
		  run_without, 0);
	ask_memory();
	for (unsigned i = 0; i < 3; i++)
		scache_close(sizes[i].cache);
	return bench_end();
}
