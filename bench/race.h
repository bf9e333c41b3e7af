/* SPDX-License-Identifier: MIT */
/*
 * race - the same bytes from one process to others, by any means.
 *
 * A producer and each consumer are processes of their own. They open what they
 * need, meet at a gate, and the time runs from there until the last reader has
 * seen the end of the stream. Starting the processes, opening caches and files,
 * making entries and pipes, and cleaning up are not timed, for nobody.
 *
 * Each consumer reads into a buffer of READ_BYTES, checks the first and the last
 * byte of each piece, and at the end that it had as many as were produced.
 */
#ifndef BENCH_RACE_H
#define BENCH_RACE_H

#include "measure.h"

#define READ_BYTES (256u << 10)
#define READERS_MAX 64
#define PAYLOAD 0x5a

struct race;

/* How the bytes travel. What is NULL has nothing to do. */
struct means {
	void (*prepare)(const struct race *race); /* before there are processes */
	void (*started)(const struct race *race); /* they have all they inherit: let go */
	/* In processes of their own: open; race_made(); open more; race_start(); run. */
	void (*produce)(const struct race *race);
	void (*relay)(const struct race *race); /* stands between the two others */
	void (*consume)(const struct race *race, unsigned index);
	void (*clean)(const struct race *race); /* all are gone */
};

struct race {
	const struct means *means;
	unsigned readers; /* 0: it is only written */
	unsigned slow;    /* of these the last, who sleep after each piece and do not count */
	size_t write_bytes, total_bytes;
	bool fills; /* the producer makes the bytes of each write anew, where it can */
	bool looks; /* consumers look at one word of each cache line, wherever it is */
};

/*
 * race_run - one race. Returns MiB/s: what all readers that count have got, or
 * what was written if there are none.
 */
double race_run(const void *race);

/* ------------------------------------------------------------ for the processes */

/* race_made - the producer calls it when there is something to open, the others before. */
void race_made(void);
/* race_start - all have opened what they need; the time runs. */
void race_start(void);
/* race_end - this one has done its part. A slow reader's end is nobody's. */
void race_end(const struct race *race);

/* race_buffer - memory of this process that will cause no page fault. */
unsigned char *race_buffer(size_t bytes);
/* race_fill - the producer's own work on @bytes that it is about to write. */
void race_fill(const struct race *race, void *data, size_t bytes);
/* race_take - the consumer's own work on a piece; *done counts. */
void race_take(const struct race *race, unsigned index, const void *data, size_t bytes,
	       size_t *done);

/* The usual loops over a descriptor, for all whose means are one. */
void race_write_fd(const struct race *race, int fd);
void race_read_fd(const struct race *race, unsigned index, int fd);

/* ------------------------------------------------------------------- the means */

/* ours.c */
void ours_begin(void); /* makes the cache that all races run in */
void ours_end(void);
extern const struct means ours_read, ours_in_place, ours_pass_through;
extern const struct means ours_peek, ours_pass_through_peek;
struct scache *ours_join(void); /* the same cache, opened by this process */

/* rivals.c */
extern const struct means rival_pipe;      /* one pipe(2) for each reader, written in turn */
extern const struct means rival_tee;       /* one pipe, and a process that tees it into others */
extern const struct means rival_pwrite;    /* a fresh file, and no reader */
extern const struct means rival_flock;     /* all of the file under a lock, then the readers */
extern const struct means rival_inotify;   /* readers follow the growing file */
extern const struct means rival_lock_step; /* one write, until the fastest reader has it */
extern const struct means rival_lock_step_spin; /* the same; looks for a while, then sleeps */

#endif
