/* SPDX-License-Identifier: MIT */
/*
 * hit - what does it cost to get a small finished blob, from the key to its 1 KiB
 * copied and the reader closed: one that this process has had before, one that it
 * has not, and by several processes at once?
 *
 *	hit [--rounds=N] [--json=FILE] [--only=TEXT] [--smoke] [DIR]
 *	hit --loop=N | --first=N [DIR]
 *
 * Every run is a new process, or as many as the question says, which open their
 * store before the clock starts. Contestants: open, pread and close of a plain file
 * (openat() from a directory held open, the names made beforehand: the cheapest
 * there is), pread of a descriptor that is held open, and LMDB (a copy inside a read
 * transaction that is renewed) if configure has found it. Everybody looks whether
 * it has the right value.
 *
 * "Seen before": 128 values, a whole pass beforehand. "First time": each of 4096
 * values once, in a process that has had none of them; page faults in our segment
 * are in the time. All is in the page cache.
 *
 * --loop=N does that many hits of values seen before and nothing else, --first=N one
 * of each of N values, for `strace -c`: bench/syscalls.sh counts what a hit costs in
 * system calls. Another process makes the values and removes them.
 */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "plain.h"

#define PROCESSES_MAX 64

static unsigned warm_values = 128, warm_hits = 50000, cold_values = 4096;
static unsigned loop;

/* ------------------------------------------------------------------- ways to get a value */

/* Of each process for itself. */
static struct scache *cache;
static struct other *other;
static int fan, *held;

/* Where the values are. */
static char cache_name[48], fan_name[48];

static void begin_ours(void)
{
	/* Nothing is to expire meanwhile. */
	struct scache_options options = { .size = sizeof(options), .max_age_ns = SCACHE_UNLIMITED };

	options.entries = 2 * cold_values + 16;
	cache = a_cache(cache_name, &options);
}

static void get_ours(unsigned i)
{
	const struct small_name *name = &small_names[i];
	struct scache_reader *reader;

	sc(scache_lookup(cache, name->key, name->key_bytes, NULL, &reader), "scache_lookup");
	expect(sc(scache_read(reader, plain_sink, SMALL_BYTES, 0), "scache_read") == SMALL_BYTES,
	       "scache_read: not all");
	scache_reader_close(reader);
}

static void peek_ours(unsigned i)
{
	const struct small_name *name = &small_names[i];
	struct scache_reader *reader;
	const void *data;

	sc(scache_lookup(cache, name->key, name->key_bytes, NULL, &reader), "scache_lookup");
	expect(sc(scache_peek(reader, &data, SMALL_BYTES, 0), "scache_peek") == SMALL_BYTES,
	       "scache_peek: not all");
	memcpy(plain_sink, data, SMALL_BYTES);
	scache_reader_close(reader);
}

static void begin_file(void)
{
	fan = fan_open(fan_name, false);
}

static void get_file(unsigned i)
{
	fan_get(fan, i);
}

static void begin_held(void)
{
	begin_file();
	held = calloc(warm_values, sizeof(*held));
	expect(held != NULL, "calloc");
	for (unsigned i = 0; i < warm_values; i++)
		expect((held[i] = openat(fan, small_names[i].path, O_RDONLY)) >= 0, "openat");
}

static void get_held(unsigned i)
{
	expect(pread(held[i], plain_sink, SMALL_BYTES, 0) == SMALL_BYTES, "pread");
}

static void begin_other(void)
{
	other = other_open("lmdb");
}

static void get_other(unsigned i)
{
	other_get(other, i);
}

struct way {
	void (*begin)(void);
	void (*get)(unsigned i);
};
static const struct way by_ours = { begin_ours, get_ours }, by_file = { begin_file, get_file },
			by_held = { begin_held, get_held }, by_other = { begin_other, get_other };
static const struct way by_peek = { begin_ours, peek_ours };

/* ------------------------------------------------------------------------------- one run */

struct job {
	const struct way *way;
	unsigned processes;
	bool first_time;
};

struct run {
	const struct job *job;
	struct gate *gate;
	unsigned number;
	struct span {
		double began, ended;
	} *spans;
};

/* All in an order that neither the disk nor the directories know. */
static unsigned shuffled(unsigned turn, unsigned count)
{
	return (unsigned)((uint64_t)turn * 2654435761u % count);
}

static void get_all(const void *arg)
{
	const struct run *run = arg;
	const struct way *way = run->job->way;
	unsigned values = run->job->first_time ? cold_values : warm_values;
	unsigned hits = run->job->first_time ? cold_values : warm_hits;

	way->begin();
	for (unsigned i = 0; i < values && !run->job->first_time; i++)
		way->get(i);
	gate_wait(run->gate);
	run->spans[run->number].began = seconds();
	for (unsigned turn = 0; turn < hits; turn++) {
		unsigned i = shuffled(turn, values);

		way->get(i);
		small_check(i, plain_sink);
	}
	run->spans[run->number].ended = seconds();
}

/* From the first one's start to the last one's end. */
static double run_all(const struct job *job)
{
	struct span *spans = shared_new(PROCESSES_MAX * sizeof(*spans));
	struct run run = { .job = job, .gate = gate_new(job->processes), .spans = spans };
	pid_t children[PROCESSES_MAX];
	double began = 0, ended = 0;

	for (; run.number < job->processes; run.number++)
		children[run.number] = spawn(get_all, &run);
	for (unsigned i = 0; i < job->processes; i++) {
		reap(children[i]);
		began = i == 0 || spans[i].began < began ? spans[i].began : began;
		ended = spans[i].ended > ended ? spans[i].ended : ended;
	}
	gate_free(run.gate);
	shared_free(spans, PROCESSES_MAX * sizeof(*spans));
	return ended - began;
}

static double run_time(const void *arg)
{
	const struct job *job = arg;

	return run_all(job) * 1e9 / (job->first_time ? cold_values : warm_hits);
}

static double run_rate(const void *arg)
{
	const struct job *job = arg;

	return job->processes * (double)warm_hits / run_all(job);
}

/* ------------------------------------------------------------------------------ questions */

/* What is not there does not take part: it is the last one. */
static void ask_with(struct question *question, int others)
{
	if (!other_is_here)
		question->contestants[others].name = NULL;
	ask(question);
}

static void ask_times(void)
{
	static const struct job ours = { &by_ours, 1, false }, file = { &by_file, 1, false },
				open_fd = { &by_held, 1, false }, lmdb = { &by_other, 1, false },
				ours_first = { &by_ours, 1, true },
				file_first = { &by_file, 1, true },
				lmdb_first = { &by_other, 1, true };
	struct question before = {
		"hit: seen before", "ns", true, "128 values of 1 KiB, one process",
		{ { "look up, read, close", run_time, &ours, 0 },
		  { "open, pread, close", run_time, &file, 0.1 },
		  { "pread alone", run_time, &open_fd, 0 },
		  { "LMDB", run_time, &lmdb, 0 } },
	}, first = {
		"hit: first time", "ns", true, "4096 values of 1 KiB, a new process",
		{ { "look up, read, close", run_time, &ours_first, 0 },
		  { "open, pread, close", run_time, &file_first, 1.3 },
		  { "LMDB", run_time, &lmdb_first, 0 } },
	};

	ask_with(&before, 3);
	ask_with(&first, 2);
	static const struct job peek = { &by_peek, 1, false };
	struct question in_place = {
		"hit: seen before, peek", "ns", true, "128 values of 1 KiB, one process",
		{ { "look up, peek, copy, close", run_time, &peek, 0 },
		  { "open, pread, close", run_time, &file, 0.1 },
		  { "look up, read, close", run_time, &ours, 0 },
		  { "LMDB", run_time, &lmdb, 0 } },
	};

	ask_with(&in_place, 3);
}

static void ask_rate(unsigned processes)
{
	struct job ours = { &by_ours, processes, false }, file = { &by_file, processes, false },
		   lmdb = { &by_other, processes, false };
	char name[64];
	struct question question = {
		name, "hits/s", false, "128 values of 1 KiB, all processes the same",
		{ { "look up, read, close", run_rate, &ours, 0 },
		  { "open, pread, close", run_rate, &file, 0 },
		  { "LMDB", run_rate, &lmdb, 0 } },
	};

	snprintf(name, sizeof(name), "hit: %u at once", processes);
	ask_with(&question, 2);
}

static bool own_option(const char *name, const char *value)
{
	if (strcmp(name, "--loop") == 0)
		loop = (unsigned)atoi(value);
	else if (strcmp(name, "--first") == 0)
		loop = cold_values = warm_values = (unsigned)atoi(value);
	else
		return false;
	return loop > 0;
}

static void fill_ours(const void *arg)
{
	(void)arg;
	begin_ours();
	for (unsigned i = 0; i < warm_values; i++)
		ours_put(cache, i);
	scache_close(cache);
}

static void end(const void *arg)
{
	(void)arg;
	bench_end();
}

/* Only ours, and only hits: what children do strace is not to count. */
static int hit_only(void)
{
	reap(spawn(fill_ours, NULL));
	begin_ours();
	for (unsigned turn = 0; turn < loop; turn++)
		get_ours(turn % warm_values);
	scache_close(cache);
	reap(spawn(end, NULL));
	return 0;
}

static void fill(void)
{
	fan = fan_open(fan_name, true);
	for (unsigned i = 0; i < cold_values; i++) {
		ours_put(cache, i);
		fan_put(fan, i);
	}
	if (!other_is_here)
		return;
	other = other_open("lmdb");
	for (unsigned i = 0; i < cold_values; i++)
		other_put(other, i);
	/* An environment must not be open on both sides of a fork. */
	other_close(other);
}

int main(int argc, char **argv)
{
	long cores = sysconf(_SC_NPROCESSORS_ONLN);

	bench_begin(argc, argv, "hit [--loop=N] [--first=N] [DIR]", own_option);
	if (bench.smoke) {
		warm_hits = 2000;
		cold_values = 512;
	}
	plain_begin();
	small_begin(cold_values);
	snprintf(cache_name, sizeof(cache_name), "%s", fresh_name("cache"));
	snprintf(fan_name, sizeof(fan_name), "%s", fresh_name("plain"));
	if (loop > 0)
		return hit_only();
	begin_ours();
	fill();
	ask_times();
	for (long n = 1; n <= 2 * cores && n <= PROCESSES_MAX; n *= 2)
		ask_rate((unsigned)n);
	scache_close(cache);
	return bench_end();
}
