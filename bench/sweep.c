/* SPDX-License-Identifier: MIT */
/*
 * sweep - a directory full of files: what a full sweep of it takes, and what others
 * notice of that.
 *
 *	sweep [--files=N] [--rounds=N] [--json=FILE] [--only=TEXT] [--smoke] [DIR]
 *
 * There are N (100000) blobs of 1 KiB. Before each run nobody is attached and the segment
 * is removed, so that all of them are of a former one. "Adopted" is a sweep that
 * makes entries of them; "known" the next, which only looks.
 *
 * What others notice: a process that hits blobs it has had before, or misses and produces
 * small ones, while another sweeps; against the same without a sweep, where each miss
 * looks through a directory for a former blob, and with nothing former. And the longest
 * production where a limit in bytes has it count and adopt former files itself, in
 * slices.
 */
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "plain.h"

#define BLOB_BYTES 1024u
#define HOT 64u

static unsigned files = 100000, hits = 20000, misses = 1000, produced;
static struct scache_options options = { .size = sizeof(options),
					 .max_age_ns = SCACHE_UNLIMITED,
					 .max_bytes = SCACHE_UNLIMITED,
					 .min_free_percent = SCACHE_ZERO,
					 .rings = 16 };

/* What the sweeper says of itself, in memory that we share. */
static struct said {
	_Atomic int begun, enough;
	uint64_t files;
	unsigned long anonymous_kib, peak_kib;
	double adopted, known;
} *said;

struct key {
	char text[24];
	uint32_t bytes;
};

static struct key key_of(const char *kind, unsigned i)
{
	struct key key;

	key.bytes = (uint32_t)snprintf(key.text, sizeof(key.text), "%s-%08u", kind, i);
	return key;
}

static struct scache *open_cache(void)
{
	struct scache *cache;

	sc(scache_open(in_dir("cache"), &options, &cache), "scache_open");
	return cache;
}

static void produce(struct scache *cache, const struct key *key)
{
	static const char bytes[BLOB_BYTES];
	struct scache_writer *writer;

	sc(scache_acquire(cache, key->text, key->bytes, NULL, NULL, &writer), "scache_acquire");
	expect(writer != NULL, "the cache cannot help");
	sc(scache_write(writer, bytes, sizeof(bytes), SCACHE_FOREVER), "scache_write");
	sc(scache_finish(writer), "scache_finish");
	scache_writer_close(writer);
}

static void fill(void)
{
	struct scache *cache = a_cache("cache", &options);

	for (unsigned i = 0; i < files; i++) {
		struct key key = key_of("entry", i);

		produce(cache, &key);
	}
	scache_close(cache);
}

/* What the lock file names, whose text is for people as well. */
static void lose_segment(void)
{
	char line[600];
	FILE *file = fopen(in_dir("cache/ctl/lock"), "re");
	bool lost = false;

	expect(file != NULL, "ctl/lock");
	while (!lost && fgets(line, sizeof(line), file) != NULL) {
		line[strcspn(line, "\n")] = '\0';
		if (strncmp(line, "segment ", 8) == 0)
			lost = unlink(line + 8) == 0;
	}
	fclose(file);
	expect(lost, "the segment");
}

/* -------------------------------------------------------------------- the sweep itself */

static unsigned long own_kib(const char *name)
{
	char line[200];
	FILE *file = fopen("/proc/self/status", "re");
	unsigned long kib = 0;

	while (file != NULL && fgets(line, sizeof(line), file) != NULL)
		if (strncmp(line, name, strlen(name)) == 0)
			kib = strtoul(line + strlen(name), NULL, 10);
	if (file != NULL)
		fclose(file);
	return kib;
}

static int go_on(void *arg, const struct scache_sweep_progress *progress)
{
	(void)arg;
	said->files = progress->files;
	atomic_store(&said->begun, 1);
	return atomic_load(&said->enough);
}

static double sweep(struct scache *cache)
{
	const struct scache_sweep_options sweep_options = { .size = sizeof(sweep_options),
							    .progress = go_on };
	double began = seconds();

	sc(scache_sweep(cache, &sweep_options, NULL), "scache_sweep");
	return seconds() - began;
}

static void sweep_twice(const void *arg)
{
	struct scache *cache = open_cache();

	(void)arg;
	said->adopted = sweep(cache);
	expect(said->files >= files, "there are too few files");
	said->known = sweep(cache);
	said->anonymous_kib = own_kib("RssAnon:");
	said->peak_kib = own_kib("VmHWM:");
	scache_close(cache);
}

static double run_adopted(const void *arg)
{
	(void)arg;
	lose_segment();
	memset(said, 0, sizeof(*said));
	reap(spawn(sweep_twice, NULL));
	return said->adopted;
}

static double run_known(const void *arg)
{
	(void)run_adopted(arg);
	return said->known;
}

/* ------------------------------------------------------------------- what others notice */

enum beside {
	SWEPT,
	FORMER,
	NOTHING,
};

static struct load {
	const char *name;
	enum beside beside;
	bool is_miss;
	double part; /* which of the sorted times */
	bool is_limited;
} loads[] = {
	{ "while swept", SWEPT, false, 0.5, false },   { "without", FORMER, false, 0.5, false },
	{ "while swept", SWEPT, false, 0.99, false },  { "without", FORMER, false, 0.99, false },
	{ "while swept", SWEPT, true, 0.5, false },    { "without", FORMER, true, 0.5, false },
	{ "nothing former", NOTHING, true, 0.5, false },
	{ "while swept", SWEPT, true, 0.99, false },   { "without", FORMER, true, 0.99, false },
	{ "nothing former", NOTHING, true, 0.99, false },
	{ "with a limit", FORMER, true, 1, true },     { "without", FORMER, true, 1, false },
};

static void sweep_on(const void *arg)
{
	struct scache *cache = open_cache();

	(void)arg;
	/* Again, should one be over before the others have seen enough of it. */
	while (!atomic_load(&said->enough))
		sweep(cache);
	scache_close(cache);
}

static int compare(const void *a, const void *b)
{
	const double *one = a, *other = b;

	return (*one > *other) - (*one < *other);
}

static double one_hit(struct scache *cache, unsigned i)
{
	struct key key = key_of("entry", i % HOT * (files / HOT));
	struct scache_reader *reader;
	char bytes[BLOB_BYTES];
	double began = seconds();

	sc(scache_lookup(cache, key.text, key.bytes, NULL, &reader), "scache_lookup");
	expect(sc(scache_read(reader, bytes, sizeof(bytes), 0), "scache_read") == BLOB_BYTES,
	       "a short read");
	scache_reader_close(reader);
	return seconds() - began;
}

static double one_miss(struct scache *cache)
{
	struct key key = key_of("new", produced++);
	double began = seconds();

	produce(cache, &key);
	began = seconds() - began;
	scache_remove(cache, key.text, key.bytes);
	return began;
}

static double run_load(const void *arg)
{
	const struct load *load = arg;
	unsigned count = load->is_miss ? misses : hits;
	double *times = calloc(count, sizeof(*times)), ret;
	struct scache *cache;
	pid_t sweeper = 0;

	expect(times != NULL, "calloc");
	lose_segment();
	memset(said, 0, sizeof(*said));
	if (load->is_limited)
		options.max_bytes = (uint64_t)files * 2048;
	cache = open_cache();
	options.max_bytes = SCACHE_UNLIMITED;
	if (load->beside == NOTHING)
		sweep(cache);
	for (unsigned i = 0; i < HOT && !load->is_miss; i++)
		one_hit(cache, i);
	if (load->beside == SWEPT) {
		atomic_store(&said->begun, 0);
		sweeper = spawn(sweep_on, NULL);
		while (!atomic_load(&said->begun))
			usleep(100);
	}
	for (unsigned i = 0; i < count; i++)
		times[i] = load->is_miss ? one_miss(cache) : one_hit(cache, i);
	atomic_store(&said->enough, 1);
	if (sweeper > 0)
		reap(sweeper);
	qsort(times, count, sizeof(*times), compare);
	ret = times[(unsigned)((count - 1) * load->part)] * 1e6;
	free(times);
	scache_close(cache);
	return ret;
}

static void ask_loads(const char *name, unsigned first, unsigned count)
{
	struct question question = { .name = name,
				     .unit = "us",
				     .is_time = true,
				     .where = "one process, another sweeps" };

	for (unsigned i = 0; i < count; i++)
		question.contestants[i] = (struct contestant){ loads[first + i].name, run_load,
							       &loads[first + i], 0 };
	ask(&question);
}

static bool own_option(const char *name, const char *value)
{
	return bench_number(name, value, "--files", 1000, 1000000, &files);
}

int main(int argc, char **argv)
{
	const struct question whole = { .name = "sweep: all",
					.unit = "s",
					.is_time = true,
					.where = "files of a former segment",
					.contestants = { { "adopted", run_adopted, NULL, 0 },
							 { "known", run_known, NULL, 0 } } };

	bench_begin(argc, argv, "sweep [--files=N] [DIR]", own_option);
	if (bench.smoke) {
		files = 2000;
		hits = misses = 200;
	}
	options.entries = files + files / 4;
	said = shared_new(sizeof(*said));
	fill();
	ask(&whole);
	if (said->adopted > 0)
		printf("%u files, %.0f a second, %.0f when known; %lu KiB of its own memory, %lu KiB "
		       "with what it saw of the segment\n", files, files / said->adopted,
		       files / said->known, said->anonymous_kib, said->peak_kib);
	ask_loads("sweep: a hit, median", 0, 2);
	ask_loads("sweep: a hit, 99 of 100", 2, 2);
	ask_loads("sweep: a production, median", 4, 3);
	ask_loads("sweep: a production, 99 of 100", 7, 3);
	ask_loads("sweep: a production, the longest", 10, 2);
	shared_free(said, sizeof(*said));
	return bench_end();
}
