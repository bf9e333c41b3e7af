/* SPDX-License-Identifier: MIT */
/*
 * measure - contestants run alternately, and what came out of it.
 *
 * A question is answered by contestants that do the same work by other means.
 * All of them run once in each round, in an order that changes; what counts is
 * the ratio of ours (the first contestant) to another within the same round:
 * its median over the rounds, and its quartiles. The machine's moods are in
 * both and cancel; a figure alone says little.
 *
 * Every program of the bench has these options, and perhaps some of its own:
 *
 *	--rounds=N     7 unless said otherwise
 *	--json=FILE    append one line of JSON for each question
 *	--only=TEXT    only questions whose name contains it
 *	--smoke        one round of little work: does it run at all?
 *	DIR            where files are made: it says which file system is measured
 */
#ifndef BENCH_MEASURE_H
#define BENCH_MEASURE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include <streamcache.h>

#define CONTESTANTS_MAX 12
#define ROUNDS_MAX 99

struct contestant {
	const char *name;
	/* One run: a rate or a time, in the question's unit. */
	double (*run)(const void *arg);
	const void *arg;
	/* Ours must be at least (rates) or at most (times) this many times it; 0: no mark. */
	double mark;
};

struct question {
	const char *name;  /* "live 1->1, 64 KiB writes" */
	const char *unit;  /* "MiB/s", "ns" */
	bool is_time;	   /* less is better */
	const char *where; /* workload and placement, for people */
	struct contestant contestants[CONTESTANTS_MAX]; /* ours first; ends with name NULL */
};

/* What the command line says. */
struct bench {
	int rounds;
	bool smoke;
	const char *dir; /* made for us, removed at the end */
};
extern struct bench bench;

/*
 * bench_begin - read the common options; the others are left for the caller:
 * @own is called for each "--name=value" that is not common and says whether
 * it knows it. NULL: there are none.
 */
void bench_begin(int argc, char **argv, const char *usage,
		 bool (*own)(const char *name, const char *value));

/* bench_number - for own(): if @name is @option, its value, @least to @most, or end the program. */
bool bench_number(const char *name, const char *value, const char *option, unsigned least,
		  unsigned most, unsigned *ret_number);

/* ask - all rounds of one question; prints, and appends to the JSON file. */
void ask(const struct question *question);

/* bench_end - remove the directory. Returns 0, or 1 if an answer could not be written. */
int bench_end(void);

/* ------------------------------------------------------------------ for contestants */

double seconds(void);

/* expect - or end the program, with what failed and errno. */
void expect(bool ok, const char *what);

/* in_dir - a path below bench.dir; good until the next but three calls. */
const char *in_dir(const char *name);

/* a_cache - a new cache below bench.dir, with room as @options (or NULL) says. */
struct scache *a_cache(const char *name, const struct scache_options *options);

/* sc - or end the program with what the library says. Returns @ret. */
ssize_t sc(ssize_t ret, const char *what);

/* spawn - a child process that runs @body and exits; reap() fails if it did. */
pid_t spawn(void (*body)(const void *arg), const void *arg);
void reap(pid_t child);

/*
 * The start of a race: each of @count processes calls gate_wait(), the last one
 * opens the gate for all.
 */
struct gate;
struct gate *gate_new(unsigned count); /* in memory that children share */
void gate_wait(struct gate *gate);
void gate_free(struct gate *gate);

/* shared_new - zeroed memory that children share. */
void *shared_new(size_t bytes);
void shared_free(void *memory, size_t bytes);

#endif
