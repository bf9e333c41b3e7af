/* SPDX-License-Identifier: MIT */
/*
 * join - what does a reader get that comes when the stream has begun?
 *
 *	join [--rounds=N] [--json=FILE] [--only=TEXT] [--smoke] [DIR]
 *
 * "first byte": a process that has the cache open looks up the key of a growing
 * entry and reads 4 KiB; timed from the one call to the return of the other. The
 * lock-step joiner knows the file's path: it opens it, sees in shared memory how
 * far the writer is, and reads. The producers are silent meanwhile. Once while the
 * first bytes are still in the ring, once when they are in the file only.
 * "late joiner": half of the stream is there; MiB/s from the look-up until the
 * joiner has all of that.
 * "beside a slow one": two readers, one of which sleeps 1 ms after each read of
 * 256 KiB; MiB/s of the other, against what it gets alone.
 */
#include "race.h"

#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define KIB 1024ul
#define MIB (1024 * KIB)
#define FIRST_BYTES 4096
#define KEY "join", 4

/* What producer and joiner share; the producer keeps the stream open until `over`. */
static struct board {
	_Atomic uint64_t published; /* the lock-step writer's position */
	double median_ns;
} * board;
static struct gate *made, *over;

static void share(void)
{
	board = shared_new(sizeof(*board));
	made = gate_new(2);
	over = gate_new(2);
}

static void unshare(void)
{
	shared_free(board, sizeof(*board));
	gate_free(made);
	gate_free(over);
}

/* ------------------------------------------------------------- half a stream */

/* A growing entry of @bytes: its writer does not wait for readers, and is silent then. */
static struct scache_writer *begin_entry(struct scache *own, size_t bytes)
{
	struct scache_acquire_options options = { .size = sizeof(options),
						  .flags = SCACHE_RUN_TO_END };
	unsigned char *payload = race_buffer(64 * KIB);
	struct scache_writer *writer;

	if (scache_acquire(own, KEY, &options, NULL, &writer) != 0 || writer == NULL)
		errx(1, "not elected");
	for (size_t done = 0; done < bytes; done += 64 * KIB)
		if (sc(scache_write(writer, payload, 64 * KIB, SCACHE_FOREVER), "scache_write") !=
		    64 * KIB)
			errx(1, "scache_write: not all");
	free(payload);
	return writer;
}

static void end_entry(struct scache *own, struct scache_writer *writer)
{
	sc(scache_abort(writer, -ECANCELED, NULL, 0), "scache_abort");
	scache_writer_close(writer);
	sc(scache_close(own), "scache_close");
}

static int begin_file(size_t bytes)
{
	unsigned char *payload = race_buffer(64 * KIB);
	int fd = open(in_dir("file"), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);

	expect(fd >= 0, "create");
	for (size_t done = 0; done < bytes; done += 64 * KIB)
		expect(write(fd, payload, 64 * KIB) == 64 * KIB, "write");
	atomic_store(&board->published, bytes);
	free(payload);
	return fd;
}

static void end_file(int fd)
{
	close(fd);
	unlink(in_dir("file"));
}

/* ---------------------------------------------------------------- first byte */

struct first {
	void (*hold)(size_t bytes); /* the producer's process */
	void (*join)(void);
	size_t bytes;
};

static void hold_entry(size_t bytes)
{
	struct scache *own = ours_join();
	struct scache_writer *writer = begin_entry(own, bytes);

	gate_wait(made);
	gate_wait(over);
	end_entry(own, writer);
}

static void hold_file(size_t bytes)
{
	int fd = begin_file(bytes);

	gate_wait(made);
	gate_wait(over);
	end_file(fd);
}

static void hold(const void *arg)
{
	const struct first *first = arg;

	first->hold(first->bytes);
}

static int by_size(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return x < y ? -1 : x > y;
}

static int joins(void)
{
	return bench.smoke ? 100 : 5000;
}

/* Leaving is not timed: what is asked is how soon there is something to work on. */
static void join_entries(void)
{
	unsigned char *sink = race_buffer(FIRST_BYTES);
	double *took = calloc((size_t)joins(), sizeof(*took));
	struct scache *own = ours_join();
	struct scache_reader *reader;

	expect(took != NULL, "calloc");
	gate_wait(made);
	for (int i = 0; i < joins(); i++) {
		took[i] = seconds();
		sc(scache_lookup(own, KEY, NULL, &reader), "scache_lookup");
		if (sc(scache_read(reader, sink, FIRST_BYTES, SCACHE_FOREVER), "scache_read") !=
		    FIRST_BYTES)
			errx(1, "scache_read: not all");
		took[i] = seconds() - took[i];
		scache_reader_close(reader);
	}
	qsort(took, (size_t)joins(), sizeof(*took), by_size);
	board->median_ns = took[joins() / 2] * 1e9;
	gate_wait(over);
	sc(scache_close(own), "scache_close");
}

static void join_files(void)
{
	unsigned char *sink = race_buffer(FIRST_BYTES);
	double *took = calloc((size_t)joins(), sizeof(*took));
	const char *path = in_dir("file");

	expect(took != NULL, "calloc");
	gate_wait(made);
	for (int i = 0; i < joins(); i++) {
		int fd;

		took[i] = seconds();
		fd = open(path, O_RDONLY | O_CLOEXEC);
		if (fd < 0 || atomic_load(&board->published) < FIRST_BYTES ||
		    read(fd, sink, FIRST_BYTES) != FIRST_BYTES)
			err(1, "join");
		took[i] = seconds() - took[i];
		close(fd);
	}
	qsort(took, (size_t)joins(), sizeof(*took), by_size);
	board->median_ns = took[joins() / 2] * 1e9;
	gate_wait(over);
}

static void join(const void *arg)
{
	const struct first *first = arg;

	first->join();
}

/* Nanoseconds: the median of many joins by one process. */
static double first_byte(const void *arg)
{
	pid_t producer, joiner;
	double ns;

	share();
	producer = spawn(hold, arg);
	joiner = spawn(join, arg);
	reap(joiner); /* first: one that fails leaves the other at a gate */
	reap(producer);
	ns = board->median_ns;
	unshare();
	return ns;
}

static void ask_first_byte(const char *name, size_t bytes, double mark)
{
	struct first ours = { hold_entry, join_entries, bytes },
		     file = { hold_file, join_files, bytes };
	char where[160];
	struct question question = {
		.name = name,
		.unit = "ns",
		.is_time = true,
		.where = where,
		.contestants = { { .name = "streamcache, look up and read",
				   .run = first_byte,
				   .arg = &ours },
				 { .name = "lock step, open the file and read",
				   .run = first_byte,
				   .arg = &file,
				   .mark = mark } },
	};

	snprintf(where, sizeof(where), "%zu KiB are there; median of %d joins; files in %s",
		 bytes / KIB, joins(), bench.dir);
	ask(&question);
}

/* --------------------------------------------------------------- late joiner */

static void late_prepare(const struct race *race)
{
	(void)race;
	share();
}

static void late_clean(const struct race *race)
{
	(void)race;
	unshare();
}

static void late_produce(const struct race *race)
{
	struct scache *own = ours_join();
	struct scache_writer *writer = begin_entry(own, race->total_bytes);

	race_made();
	race_start();
	gate_wait(over);
	end_entry(own, writer);
}

static void late_consume(const struct race *race, unsigned index)
{
	unsigned char *sink = race_buffer(READ_BYTES);
	struct scache *own = ours_join();
	struct scache_reader *reader;
	size_t done = 0;

	race_made();
	race_start();
	sc(scache_lookup(own, KEY, NULL, &reader), "scache_lookup");
	while (done < race->total_bytes)
		race_take(race, index, sink,
			  (size_t)sc(scache_read(reader, sink, READ_BYTES, SCACHE_FOREVER),
				     "scache_read"),
			  &done);
	race_end(race);
	gate_wait(over);
	scache_reader_close(reader);
	sc(scache_close(own), "scache_close");
}

static void late_file_produce(const struct race *race)
{
	int fd = begin_file(race->total_bytes);

	race_made();
	race_start();
	gate_wait(over);
	end_file(fd);
}

static void late_file_consume(const struct race *race, unsigned index)
{
	unsigned char *sink = race_buffer(READ_BYTES);
	size_t done = 0;
	int fd;

	race_made();
	race_start();
	fd = open(in_dir("file"), O_RDONLY | O_CLOEXEC);
	expect(fd >= 0, "open");
	while (done < atomic_load(&board->published)) {
		ssize_t n = read(fd, sink, READ_BYTES);

		expect(n > 0, "read");
		race_take(race, index, sink, (size_t)n, &done);
	}
	race_end(race);
	gate_wait(over);
}

static void ask_late(void)
{
	static const struct means ours = { .prepare = late_prepare,
					   .produce = late_produce,
					   .consume = late_consume,
					   .clean = late_clean };
	static const struct means file = { .prepare = late_prepare,
					   .produce = late_file_produce,
					   .consume = late_file_consume,
					   .clean = late_clean };
	size_t half = bench.smoke ? 4 * MIB : 256 * MIB;
	struct race races[] = { { .means = &ours, .readers = 1, .total_bytes = half },
				{ .means = &file, .readers = 1, .total_bytes = half } };
	char where[160];
	struct question question = {
		.name = "late joiner catches up",
		.unit = "MiB/s",
		.where = where,
		.contestants = { { .name = "streamcache", .run = race_run, .arg = &races[0] },
				 { .name = "lock step, open the file and read",
				   .run = race_run,
				   .arg = &races[1] } },
	};

	snprintf(where, sizeof(where), "%zu MiB are there, reads of 256 KiB, files in %s",
		 half / MIB, bench.dir);
	ask(&question);
}

/* ----------------------------------------------------------- beside a slow one */

static void ask_slow(void)
{
	struct race both = { .readers = 2,
			     .slow = 1,
			     .write_bytes = 64 * KIB,
			     .total_bytes = bench.smoke ? 4 * MIB : 128 * MIB };
	struct race races[6];
	char where[160];
	struct question question = {
		.name = "a fast reader beside a slow one",
		.unit = "MiB/s",
		.where = where,
		.contestants = { { .name = "streamcache" },
				 { .name = "streamcache, the fast one alone" },
				 { .name = "lock step" },
				 { .name = "growing file, inotify" },
				 { .name = "pipes, producer writes each" },
				 { .name = "pipes, a process that tees" } },
	};
	static const struct means *const means[] = { &ours_read,     &ours_read,  &rival_lock_step,
						     &rival_inotify, &rival_pipe, &rival_tee };

	for (int i = 0; i < 6; i++) {
		races[i] = both;
		races[i].means = means[i];
		question.contestants[i].run = race_run;
		question.contestants[i].arg = &races[i];
	}
	races[1].readers = 1;
	races[1].slow = 0;
	snprintf(where, sizeof(where), "%zu MiB, 64 KiB writes, reads of 256 KiB, files in %s",
		 both.total_bytes / MIB, bench.dir);
	ask(&question);
}

int main(int argc, char **argv)
{
	bench_begin(argc, argv,
		    "usage: join [--rounds=N] [--json=FILE] [--only=TEXT] [--smoke] [DIR]", NULL);
	ours_begin();
	ask_first_byte("first byte of a growing entry", 64 * KIB, 0.2);
	ask_first_byte("first byte, out of the ring by then", 8 * MIB, 0);
	ask_late();
	ask_slow();
	ours_end();
	return bench_end();
}
