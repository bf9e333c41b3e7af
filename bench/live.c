/* SPDX-License-Identifier: MIT */
/*
 * live - how fast is a stream that others read while it is produced?
 *
 * One producer, 1 to 64 consumers, each a process; see race.h for what is timed.
 * Ours stores the stream as well; it is set against pipes and tee(2), which store
 * nothing; against a file that nobody reads; and against files that are read by
 * the others when they are complete (flock), while they grow (inotify), or in
 * lock step with their writer. Rates are of what all readers got, together.
 *
 *	live [--matrix] [--rounds=N] [--json=FILE] [--only=TEXT] [--smoke] [DIR]
 *
 * "in place": the bytes of each write are made by memset(), where they will be
 * read if it can be done; by all contestants. "peek": consumers look at a word of
 * each cache line; all contestants. "pass-through": what is produced is not stored.
 * --matrix asks for each number of readers with each size of the writes.
 */
#include "race.h"

#include <stdio.h>
#include <string.h>

#define KIB 1024ul
#define MIB (1024 * KIB)
/* What is not stored is so much faster: more of it, for a time that one can measure. */
#define UNSTORED_FACTOR 8

/* How much one run writes: a few tenths of a second for the slowest contestant. */
static const struct size {
	const char *name;
	size_t write, total;
} sizes[] = {
	{ "512 B", 512, 16 * MIB },        { "4 KiB", 4 * KIB, 64 * MIB },
	{ "64 KiB", 64 * KIB, 256 * MIB }, { "256 KiB", 256 * KIB, 256 * MIB },
	{ "1 MiB", 1 * MIB, 256 * MIB },   { "4 MiB", 4 * MIB, 256 * MIB },
};
#define SIZES (sizeof(sizes) / sizeof(*sizes))
enum {
	S512,
	S4K,
	S64K,
	S256K,
	S1M,
	S4M
};

static bool matrix;

static bool own_option(const char *name, const char *value)
{
	if (strcmp(name, "--matrix") != 0 || *value != '\0')
		return false;
	return matrix = true;
}

/* The question at hand. */
static struct {
	struct question question;
	struct race races[CONTESTANTS_MAX];
	struct race race; /* what its contestants have in common */
	char name[64], where[160];
	int count;
} current;

static void begin(const char *kind, unsigned readers, const struct size *size)
{
	size_t total = size->total / (readers >= 64 ? 8 : readers >= 8 ? 4 : readers);

	if (bench.smoke)
		total = size->write > MIB ? size->write : MIB;
	memset(&current, 0, sizeof(current));
	current.race = (struct race){ .readers = readers,
				      .write_bytes = size->write,
				      .total_bytes = total };
	snprintf(current.name, sizeof(current.name), "%s 1->%u, %s writes", kind, readers,
		 size->name);
	current.question.name = current.name;
	current.question.unit = "MiB/s";
	current.question.where = current.where;
}

static struct race *add(const char *name, const struct means *means, double mark)
{
	struct race *race = &current.races[current.count];

	*race = current.race;
	race->means = means;
	current.question.contestants[current.count++] =
		(struct contestant){ .name = name, .run = race_run, .arg = race, .mark = mark };
	return race;
}

/* A file that nobody reads, written as here and as is best. */
static void add_pwrite(size_t size, double mark)
{
	struct race *race = add("fresh file, 1 MiB writes, no reader", &rival_pwrite, mark);

	race->readers = 0;
	race->write_bytes = MIB;
	if (size != S1M)
		add("fresh file, these writes, no reader", &rival_pwrite, 0)->readers = 0;
}

static void finish(void)
{
	snprintf(current.where, sizeof(current.where),
		 "%zu KiB to each reader, reads of 256 KiB, files in %s",
		 current.race.total_bytes / KIB, bench.dir);
	ask(&current.question);
}

static void ask_live(unsigned readers, size_t size)
{
	double lock_step = readers == 1 && size == S4K    ? 10
			   : readers == 1 && size == S64K ? 1.5
			   : readers == 8 && size == S4K  ? 5
			   : readers == 8 && size == S64K ? 1.1
							  : 0;

	begin("live", readers, &sizes[size]);
	add("streamcache", &ours_read, 0);
	if (readers == 1) {
		add_pwrite(size, size == S64K ? 0.75 : 0);
		add("pipe", &rival_pipe, size == S64K ? 1.2 : 0);
	} else {
		add("pipes, producer writes each", &rival_pipe, 0);
		add("pipes, a process that tees", &rival_tee, 0);
	}
	add("lock step", &rival_lock_step, lock_step);
	add("lock step, spins before it sleeps", &rival_lock_step_spin, 0);
	add("whole file under flock, then read", &rival_flock, 0);
	add("growing file, inotify", &rival_inotify, 0);
	if (size < S256K)
		add("streamcache, 256 KiB writes", &ours_read,
		    readers == 1 && size == S4K ? 0.8 : 0)
			->write_bytes = sizes[S256K].write;
	finish();
}

static void ask_in_place(size_t size)
{
	begin("in place", 1, &sizes[size]);
	current.race.fills = true;
	add("streamcache, reserve and commit", &ours_in_place, 0);
	add_pwrite(size, size == S64K ? 0.9 : 0);
	add("streamcache, write", &ours_read, 0);
	add("pipe", &rival_pipe, 0);
	finish();
}

/*
 * What is stored goes no faster than its file, however it is read; only where it
 * is not can readers get more by copying less.
 */
static void ask_peek(unsigned readers, size_t size, bool stored)
{
	double mark = size == S64K ? 2 : 0;

	begin(stored ? "peek" : "pass-through, peek", readers, &sizes[size]);
	current.race.looks = true;
	if (!stored && !bench.smoke)
		current.race.total_bytes *= UNSTORED_FACTOR;
	add("streamcache, peek", stored ? &ours_peek : &ours_pass_through_peek, 0);
	add("streamcache, read", stored ? &ours_read : &ours_pass_through, mark);
	add(readers == 1 ? "pipe" : "pipes, producer writes each", &rival_pipe, 0);
	finish();
}

static void ask_pass_through(size_t size)
{
	begin("pass-through", 1, &sizes[size]);
	if (!bench.smoke)
		current.race.total_bytes *= UNSTORED_FACTOR;
	add("streamcache, not stored", &ours_pass_through, 0);
	add("pipe", &rival_pipe, size == S64K ? 3 : 0);
	finish();
}

int main(int argc, char **argv)
{
	static const struct {
		unsigned readers;
		size_t sizes; /* a bit for each that is asked for without --matrix */
	} fans[] = {
		{ 1, 1 << S512 | 1 << S4K | 1 << S64K | 1 << S256K | 1 << S1M | 1 << S4M },
		{ 2, 1 << S4K | 1 << S64K | 1 << S1M },
		{ 8, 1 << S4K | 1 << S64K | 1 << S1M },
		{ 64, 1 << S4K | 1 << S64K },
	};

	size_t asked;

	bench_begin(argc, argv,
		    "usage: live [--matrix] [--rounds=N] [--json=FILE] [--only=TEXT] [--smoke] "
		    "[DIR]",
		    own_option);
	/* A smoke run has all contestants and little more. */
	asked = bench.smoke ? 1 << S4K : SIZE_MAX;
	ours_begin();
	for (size_t f = 0; f < sizeof(fans) / sizeof(*fans); f++)
		for (size_t size = 0; size < SIZES; size++)
			if (matrix || (fans[f].sizes & asked) >> size & 1)
				ask_live(fans[f].readers, size);
	for (size_t size = S4K; size <= S1M; size++) {
		if (!matrix && size == S256K)
			continue;
		ask_in_place(size);
		ask_peek(1, size, true);
		ask_peek(1, size, false);
		ask_pass_through(size);
	}
	ask_peek(8, S64K, true);
	ask_peek(8, S64K, false);
	ours_end();
	return bench_end();
}
