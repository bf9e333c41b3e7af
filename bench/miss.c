/* SPDX-License-Identifier: MIT */
/*
 * miss - what does it cost to put a small blob there: to find that nobody has it,
 * to create it, write 1 KiB and finish?
 *
 *	miss [--rounds=N] [--count=N] [--json=FILE] [--only=TEXT] [--smoke] [DIR]
 *	miss --loop=N [DIR]
 *
 * Contestants: create, write and close of a plain file in one of 256 directories, as
 * ours are; the same and a rename to its name (what a program does that wants whole
 * files only); LMDB, a transaction each and no sync, if configure has found it.
 * Nobody waits for the disk.
 *
 * --count=N (4096) are made in each run, in a tree or a cache of its own: 1024
 * others before the clock starts, so that the 256 directories exist in each. Nothing
 * is removed before the end: a file system that has just removed many files (ext4 in
 * the same group of blocks, above all) is slower to make new ones, for minutes, and
 * who comes next would pay for it. That holds for the next program, too.
 *
 * --loop=N makes that many and nothing else, for `strace -c`: see bench/syscalls.sh.
 * Another process removes them.
 */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "plain.h"

static unsigned before = 1024, count = 4096, loop;

/* What is put into: a contestant has one of them. */
struct place {
	struct scache *cache;
	int fan;
	struct other *other;
};

static void put_ours(const struct place *place, unsigned i)
{
	ours_put(place->cache, i);
}

static void put_file(const struct place *place, unsigned i)
{
	fan_put(place->fan, i);
}

static void put_renamed(const struct place *place, unsigned i)
{
	fan_put_renamed(place->fan, i);
}

static void put_other(const struct place *place, unsigned i)
{
	other_put(place->other, i);
}

/* Nanoseconds each. */
static double time_puts(const struct place *place, void (*put)(const struct place *, unsigned))
{
	double began;

	for (unsigned i = 0; i < before; i++)
		put(place, i);
	began = seconds();
	for (unsigned i = before; i < before + count; i++)
		put(place, i);
	return (seconds() - began) * 1e9 / count;
}

static double run_ours(const void *arg)
{
	struct scache_options options = { .size = sizeof(options),
					  .max_age_ns = SCACHE_UNLIMITED,
					  .entries = before + count + 1024 };
	const struct place place = { .cache = a_cache(fresh_name("cache"), &options) };
	double took = time_puts(&place, put_ours);

	(void)arg;
	scache_close(place.cache);
	return took;
}

struct way {
	void (*put)(const struct place *place, unsigned i);
};
static const struct way by_create = { put_file }, by_rename = { put_renamed };

static double run_files(const void *arg)
{
	const struct way *way = arg;
	const struct place place = { .fan = fan_open(fresh_name("plain"), true) };
	double took = time_puts(&place, way->put);

	close(place.fan);
	return took;
}

static double run_other(const void *arg)
{
	const struct place place = { .other = other_open(fresh_name("lmdb")) };
	double took = time_puts(&place, put_other);

	(void)arg;
	other_close(place.other);
	return took;
}

static bool own_option(const char *name, const char *value)
{
	if (atoi(value) < 1)
		return false;
	if (strcmp(name, "--count") == 0)
		count = (unsigned)atoi(value);
	else if (strcmp(name, "--loop") == 0)
		loop = (unsigned)atoi(value);
	else
		return false;
	return true;
}

static void end(const void *arg)
{
	(void)arg;
	bench_end();
}

int main(int argc, char **argv)
{
	struct question question = {
		"miss: small entries", "ns", true, "1 KiB each, one process, 256 directories",
		{ { "look up, create, write, finish", run_ours, NULL, 0 },
		  { "create, write, close", run_files, &by_create, 1.3 },
		  { "create, write, close, rename", run_files, &by_rename, 0 },
		  { "LMDB, no sync", run_other, NULL, 0 } },
	};

	bench_begin(argc, argv, "miss [--count=N] [--loop=N] [DIR]", own_option);
	if (bench.smoke) {
		before = 256;
		count = 512;
	}
	if (loop > 0)
		count = loop;
	plain_begin();
	small_begin(before + count);
	if (!other_is_here)
		question.contestants[3].name = NULL;
	if (loop > 0) {
		run_ours(NULL);
		reap(spawn(end, NULL));
		return 0;
	}
	ask(&question);
	return bench_end();
}
