/* SPDX-License-Identifier: MIT */
/*
 * storm.h - what the parts of the storm share: storm.c kills, worker.c does
 * whatever can be done, streams.c writes and reads, direct.c does so in place,
 * anywhere and by descriptors, fetches.c in the library's threads, trials.c what
 * needs more than one call, room.c with little of it; oracle.c knows what is true, and tally.c where the
 * dead were when they died.
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
#define CELLS 4096u /* of workers: more than ever live at once */
#define THREADS 4u  /* of a worker that have a cell: its own, and callbacks' */
#define SLOTS 64u   /* more than a cache of ours has entries */
#define COUNT(what) atomic_fetch_add(&shared->what, 1)

enum ending {
	FINISH,
	ABORT_ERRNO,
	ABORT_CODE,
	CLOSE
};
enum stage {
	PRODUCING,
	ENDING,
	FINISHED,
	NOT_KEPT,
	GAVE_UP
};

/* In front of each blob, but for those of key 0. */
struct header {
	uint32_t magic, key, ending, code;
	uint64_t id, bytes;
};

/* What its producer has come to, in memory that outlives it. */
struct production {
	_Atomic uint64_t id;
	_Atomic uint32_t worker, stage;
	_Atomic bool limited; /* by RLIMIT_FSIZE, one of its producers */
	_Atomic int64_t finished_ns;
	_Atomic uint64_t max_age_ns;
};

/* Where a thread is. Literals: each process has them where the storm has them. */
struct cell {
	_Atomic(const char *) call, label; /* label: the last step within the call */
	_Atomic uint64_t steps;
	_Atomic bool inside;
} __attribute__((aligned(64)));

/* What an entry of the segment holds, for whoever goes on with it. */
struct beginning {
	_Atomic uint64_t name; /* 0: nothing yet */
	struct header header;
};

struct shared {
	_Atomic uint64_t productions, kills, stops, operations, verified, finishes, deaths;
	_Atomic uint64_t bypasses, full, pipes, deadlocks, stale, unkept, findings;
	_Atomic uint64_t counted, takeovers, heirs, limited, fixed, losses;
	_Atomic uint64_t adopted, frames, evicted, tight;
	_Atomic uint32_t started;
	struct production production[PRODUCTIONS];
	struct beginning beginning[SLOTS];
	struct cell cell[CELLS][THREADS];
	/* of each worker: */
	_Atomic bool doomed[WORKERS], stopped_itself[WORKERS];
	_Atomic uint32_t parent[WORKERS];  /* whose death is its death, too; 0: none */
	_Atomic uint32_t stopped[WORKERS]; /* how often */
};

/* A reader, what it has got, and what it asked for when it came. */
struct reading {
	struct scache_reader *reader;
	unsigned key;
	uint64_t position, limit_ns;
	int64_t since_ns;
	bool refresh, deterministic;
	bool looked_ahead; /* and so lets the writer go on */
	uint32_t stopped;  /* how often its worker had been, when it came */
	struct header header;
};

extern struct shared *shared;
extern uint64_t seed, random_state; /* of the storm; of the random numbers from it */
extern bool hold;                   /* stand still after a finding */
extern char base[256], dir[300];    /* ours; the cache in it */
extern struct scache_options geometry;
extern struct scache *cache;
extern uint32_t me;  /* the number of this worker */
extern bool limited; /* its files may not grow */
extern bool is_tight; /* and the cache, as all know, not either */
extern uint64_t evicted_before; /* in this segment, as was last seen */
extern unsigned char blob[BLOB_MAX], got[BLOB_MAX];

/* oracle.c */
uint64_t mix(uint64_t x);
uint64_t below(uint64_t n);
bool one_in(unsigned n);
int64_t now_ns(void);
void nap(int64_t ns);
/* finding - tell it, with the call that was last entered, and end. */
void finding(const char *format, ...) __attribute__((noreturn, format(printf, 1, 2)));
size_t key_name(unsigned key, char ret_name[16]);
/* be_doomed - who reads of worker @number's productions may see it die. */
void be_doomed(uint32_t number);
/* may_have_lost - bytes between its position and where it looked, when a file failed? */
bool may_have_lost(const struct reading *r);
/* was_stopped - may this reader have lost its entry? */
bool was_stopped(const struct reading *r);
void fill(const struct header *h, uint64_t from, unsigned char *data, size_t bytes);
/* remember - a new production. Of a fixed key @h is replaced: it is always the same. */
struct production *remember(struct header *h, uint64_t max_age_ns, enum stage stage);
/* begin - what @writer is to write: @h, or what the dead have begun. From scache_written() on. */
struct production *begin(struct scache_writer *writer, struct header *h, uint64_t max_age_ns);
void check_bytes(struct reading *r, const unsigned char *data, size_t bytes);
void check_end(const struct reading *r, int error);
void check_result(struct reading *r, int error);

/* tally.c */
/* enter, came_back - around each call of the library; it must not take CALL_SECONDS. */
void enter(const char *name, unsigned key);
ssize_t came_back(ssize_t value);
#define CALL(name, key, call) (enter(name, key), came_back(call))
extern const char *volatile last_call;
extern volatile unsigned last_key;
/* note_steps - this process is a worker from here on. */
void note_steps(void);
/* note_callback - this thread is the library's. */
void note_callback(void);
/* tally_death - worker @number was killed: count it if it was in a call. */
void tally_death(uint32_t number);
/* tally_end - print sums and histogram, and add them to the file, if there is one. */
void tally_end(void);
/* tally_resume - add to what stands in @path. -errno if it cannot be read. */
int tally_resume(const char *path);

/* direct.c */
/* open_pipes - what a worker's streams go through; not before it is forked. */
void open_pipes(void);
/* read_by_fd - scache_read() by way of scache_sendfile(). */
ssize_t read_by_fd(struct reading *r, size_t bytes, int64_t timeout_ns);
/* read_in_place - the same by way of scache_peek() and scache_consume(). */
ssize_t read_in_place(struct reading *r, size_t bytes, int64_t timeout_ns);
/* look_elsewhere - scache_pread() somewhere in it, if we know what is there. */
void look_elsewhere(struct reading *r);
/* put - of blob[@at...] @bytes bytes or less, by any call that there is. As scache_write(). */
ssize_t put(struct scache_writer *writer, uint64_t at, size_t bytes, int64_t timeout_ns);

/* fetches.c */
/* fetch - with a callback that produces in a thread of its own. */
void fetch(struct reading *r, const struct scache_acquire_options *o, uint64_t max_age_ns);

/* streams.c */
size_t some_bytes(void);
/* take - one read. 1 = go on, 0 = nothing yet, -1 = the end. */
int take(struct reading *r, size_t bytes, int64_t timeout_ns);
void leave(struct reading *r);
void read_somehow(struct reading *r);
void produce(struct scache_writer *writer, struct reading *r, uint64_t max_age_ns);

/* worker.c */
void open_cache(void);
void close_cache(void);
void sweep(void);
void check(void);
struct scache_stats stat_cache(void);
void use_any_key(unsigned key);

/* trials.c */
/* be_limited - no file of ours may grow beyond a little, from now on. */
void be_limited(void);
void be_unlimited(void);
/* have_heir - a child uses the handle that it inherits, beside us. */
void have_heir(unsigned key);
/* watch_heir - finds out how it ended. */
void watch_heir(void);
/* hoard - read what has been removed, as much as there is room for, and be stopped. */
void hoard(void);

/* room.c */
/* tighten - half of all new caches have limits. */
void tighten(void);
/* reconfigure - other ones, if so. */
void reconfigure(void);
/* is_shortage - may a production that lacks room end like this? */
bool is_shortage(int error);
/* check_charges - nobody else is here: the cache takes what it says, and may. */
void check_charges(void);

/* worker.c */
/* work - until killed; a sweeper sweeps once and ends. */
void work(bool sweeper) __attribute__((noreturn));

#endif
