/* SPDX-License-Identifier: MIT */
/*
 * storm.h - what the parts of the storm share: storm.c kills, worker.c does
 * whatever can be done, streams.c writes and reads, direct.c does so in place,
 * anywhere and by descriptors, oracle.c knows what is true.
 */
#ifndef STORM_STORM_H
#define STORM_STORM_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "streamcache.h"

#define KEYS 24u /* key 0 has empty blobs only */
#define BLOB_MAX (600u << 10)
#define MAGIC 0x726f7473u
#define MS 1000000ll
#define PRODUCTIONS (1u << 18) /* remembered */
#define WORKERS (1u << 20)
#define CALL_SECONDS 10
#define LONG_STOP_MS 1000 /* from here on the library may pass a stopped process over */
#define COUNT(what) atomic_fetch_add(&shared->what, 1)

enum ending { FINISH, ABORT_ERRNO, ABORT_CODE, CLOSE };
enum stage { PRODUCING, ENDING, FINISHED, NOT_KEPT, GAVE_UP };

/* In front of each blob, but for those of key 0. */
struct header {
	uint32_t magic, key, ending, code;
	uint64_t id, bytes;
};

/* What its producer has come to, in memory that outlives it. */
struct production {
	_Atomic uint64_t id;
	_Atomic uint32_t worker, stage;
	_Atomic int64_t finished_ns;
	_Atomic uint64_t max_age_ns;
};

struct shared {
	_Atomic uint64_t productions, kills, stops, operations, verified, finishes, deaths;
	_Atomic uint64_t bypasses, full, pipes, deadlocks, stale, unkept, findings;
	struct production production[PRODUCTIONS];
	_Atomic bool doomed[WORKERS], stopped_long[WORKERS];
};

/* A reader, what it has got, and what it asked for when it came. */
struct reading {
	struct scache_reader *reader;
	unsigned key;
	uint64_t position, limit_ns;
	int64_t since_ns;
	bool refresh;
	struct header header;
};

extern struct shared *shared;
extern uint64_t seed, state;        /* of the storm; of the random numbers from it */
extern bool hold;                   /* stand still after a finding */
extern char base[256], dir[300];    /* ours; the cache in it */
extern struct scache_options geometry;
extern struct scache *cache;
extern uint32_t me;                 /* the number of this worker */
extern unsigned char blob[BLOB_MAX], got[BLOB_MAX];

/* oracle.c */
uint64_t mix(uint64_t x);
uint64_t below(uint64_t n);
bool one_in(unsigned n);
int64_t now_ns(void);
void nap(int64_t ns);
/* finding - tell it, with the call that was last entered, and end. */
void finding(const char *format, ...) __attribute__((noreturn, format(printf, 1, 2)));
/* enter - the next call begins; it must not take CALL_SECONDS. */
void enter(const char *name, unsigned key);
size_t key_name(unsigned key, char ret_name[16]);
void fill(const struct header *h, uint64_t from, unsigned char *data, size_t bytes);
struct production *remember(struct header *h, uint64_t max_age_ns, enum stage stage);
void check_bytes(struct reading *r, const unsigned char *data, size_t bytes);
void check_end(const struct reading *r, int error);
void check_result(struct reading *r, int error);

/* direct.c */
/* open_pipes - what a worker's streams go through; not before it is forked. */
void open_pipes(void);
/* read_by_fd - scache_read() by way of scache_read_to_fd(). */
ssize_t read_by_fd(struct reading *r, size_t bytes, int64_t timeout_ns);
/* look_elsewhere - scache_pread() somewhere in it, if we know what is there. */
void look_elsewhere(struct reading *r);
/* put - of blob[@at...] @bytes bytes or less, by any call that there is. As scache_write(). */
ssize_t put(struct scache_writer *writer, uint64_t at, size_t bytes, int64_t timeout_ns);
/* fetch - with a callback that produces in a thread of its own. */
void fetch(struct reading *r, const struct scache_acquire_options *o, uint64_t max_age_ns);

/* streams.c */
size_t some_bytes(void);
/* take - one read. 1 = go on, 0 = nothing yet, -1 = the end. */
int take(struct reading *r, size_t bytes, int64_t timeout_ns);
void leave(struct reading *r);
void read_somehow(struct reading *r);
void produce(struct scache_writer *writer, struct reading *r,
	     const struct scache_acquire_options *o, uint64_t max_age_ns);

/* worker.c */
void open_cache(void);
void close_cache(void);
void sweep(void);
void check(void);
struct scache_stats stat_cache(void);
/* work - until killed; a sweeper sweeps once and ends. */
void work(bool sweeper) __attribute__((noreturn));

#endif
