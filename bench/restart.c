/* SPDX-License-Identifier: MIT */
/*
 * restart - the segment is lost: how long until the first blob is served again, and what
 * does each cost that is found for the first time?
 *
 *	restart [--entries=N] [--rounds=N] [--json=FILE] [--only=TEXT] [--smoke] [DIR]
 *
 * The contestants are the same cache with 1000, with a tenth of --entries=N and with that
 * many blobs (100000) of 1 KiB. Before each run nobody is attached and the segment is
 * removed, so that an opener makes a new one, of the same size for all, and a
 * look-up has only the directory to find its blob by. Every run asks for other keys: a
 * blob that has been found belongs to the new segment.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "plain.h"

#define BLOB_BYTES 1024u
#define LOOKS 200u

static unsigned largest = 100000;
static struct scache_options options = { .size = sizeof(options),
					 .max_age_ns = SCACHE_UNLIMITED,
					 .rings = 16 };

static struct size {
	unsigned entries, next;
	char name[32], place[48];
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

/* Another one each time, from all over the directories. */
static struct key next_key(struct size *size)
{
	return key_of((unsigned)((uint64_t)size->next++ * 2654435761u % size->entries));
}

static struct scache *open_again(const struct size *size)
{
	struct scache *cache;

	sc(scache_open(in_dir(size->place), &options, &cache), "scache_open");
	return cache;
}

static void fill(struct size *size, unsigned entries)
{
	static const char bytes[BLOB_BYTES];
	struct scache *cache;

	size->entries = entries;
	snprintf(size->name, sizeof(size->name), "%u blobs", entries);
	snprintf(size->place, sizeof(size->place), "%s", fresh_name("cache"));
	cache = a_cache(size->place, &options);
	for (unsigned i = 0; i < entries; i++) {
		struct key key = key_of(i);
		struct scache_writer *writer;

		sc(scache_acquire(cache, key.text, key.bytes, NULL, NULL, &writer),
		   "scache_acquire");
		expect(writer != NULL, "the cache cannot help");
		sc(scache_write(writer, bytes, sizeof(bytes), SCACHE_FOREVER), "scache_write");
		expect(sc(scache_finish(writer), "scache_finish") == 0, "scache_finish: not kept");
		scache_writer_close(writer);
	}
	scache_close(cache);
}

/* What the lock file names, whose text is for people as well. */
static void lose_segment(const struct size *size)
{
	char path[4200], line[600];
	FILE *file;
	bool lost = false;

	snprintf(path, sizeof(path), "%s/ctl/lock", in_dir(size->place));
	file = fopen(path, "re");
	expect(file != NULL, path);
	while (!lost && fgets(line, sizeof(line), file) != NULL) {
		line[strcspn(line, "\n")] = '\0';
		if (strncmp(line, "segment ", 8) == 0)
			lost = unlink(line + 8) == 0;
	}
	fclose(file);
	expect(lost, "the segment");
}

static void hit(struct scache *cache, struct size *size)
{
	struct key key = next_key(size);
	struct scache_reader *reader;
	char bytes[BLOB_BYTES];

	sc(scache_lookup(cache, key.text, key.bytes, NULL, &reader), "scache_lookup");
	expect(sc(scache_read(reader, bytes, sizeof(bytes), 0), "scache_read") == BLOB_BYTES,
	       "a short read");
	scache_reader_close(reader);
}

static double run_first(const void *arg)
{
	struct size *size = (struct size *)(uintptr_t)arg;
	struct scache *cache;
	double began;

	lose_segment(size);
	began = seconds();
	cache = open_again(size);
	hit(cache, size);
	began = seconds() - began;
	scache_close(cache);
	return began * 1e3;
}

static double run_each(const void *arg)
{
	struct size *size = (struct size *)(uintptr_t)arg;
	struct scache *cache;
	double began;

	lose_segment(size);
	cache = open_again(size);
	began = seconds();
	for (unsigned i = 0; i < LOOKS; i++)
		hit(cache, size);
	began = seconds() - began;
	scache_close(cache);
	return began * 1e6 / LOOKS;
}

static void ask_of_all(const char *name, const char *unit, const char *where,
		       double (*run)(const void *arg))
{
	struct question question = { .name = name, .unit = unit, .is_time = true, .where = where };

	for (unsigned i = 0; i < 3; i++)
		question.contestants[i] = (struct contestant){ sizes[i].name, run, &sizes[i], 0 };
	ask(&question);
}

static bool own_option(const char *name, const char *value)
{
	return bench_number(name, value, "--entries", 20000, 1000000, &largest);
}

int main(int argc, char **argv)
{
	bench_begin(argc, argv, "restart [--entries=N] [DIR]", own_option);
	if (bench.smoke)
		largest = 20000;
	options.entries = largest + largest / 4;
	fill(&sizes[2], 1000);
	fill(&sizes[1], largest / 10);
	fill(&sizes[0], largest);
	ask_of_all("restart: open and first hit", "ms", "a new segment each time", run_first);
	ask_of_all("restart: a former blob found", "us", "200 of them, by one process", run_each);
	return bench_end();
}
