/* SPDX-License-Identifier: MIT */
/*
 * fixture - a cache of its own for each test, and processes to use it.
 *
 * Two opens of one cache in one process share one mapping, and OFD locks tell
 * them apart. So each open is a process of its own to everybody else: it can
 * elect, wait, and (fixture_kill) die with all its hands full.
 *
 * The geometry is as small as scache_open() allows, so that a test can use up
 * whatever it likes. Everything stands below $TMPDIR and is gone afterwards.
 */
#ifndef UTIL_FIXTURE_H
#define UTIL_FIXTURE_H

#include <check.h>
#include <limits.h>
#include <sys/wait.h>

#include "api/cache.h"
#include "index/index.h"
#include "stream/stream.h"

#define FIXTURE_CACHES 16
#define FIXTURE_ENTRIES 16u
#define FIXTURE_PEERS 8u
#define FIXTURE_BLOCKS 8u
#define FIXTURE_RINGS 2u
#define FIXTURE_RING_BYTES 65536u

struct fixture {
	char root[PATH_MAX / 4];     /* of everything */
	char dir[PATH_MAX / 4 + 16]; /* the cache; made by the first open */
	char segments[PATH_MAX / 4 + 16];
	struct scache_options options;
	struct scache *caches[FIXTURE_CACHES];
	bool damaged;   /* the test broke the segment: do not check it at the end */
};

/* fixture_begin - the place and the options; opens nothing. */
void fixture_begin(struct fixture *f);

/* fixture_end - close, check the invariants, destroy; nothing may be left. */
void fixture_end(struct fixture *f);

/* fixture_open - one more virtual process. */
struct scache *fixture_open(struct fixture *f);
void fixture_close(struct fixture *f, struct scache *cache);

/*
 * fixture_kill - end a virtual process as SIGKILL would: its lock byte falls,
 * what it shared stays as it is. Its handles can only be buried after that.
 */
void fixture_kill(struct fixture *f, struct scache *cache);
void fixture_bury_reader(struct scache_reader *reader);
void fixture_bury_writer(struct scache_writer *writer); /* its thread has been stopped */

/* fixture_run_child - @body in a forked child, which then _exits with 0. Wait status. */
int fixture_run_child(void (*body)(struct fixture *f), struct fixture *f);

/* fixture_expect_... - assert how a child has ended. */
void fixture_expect_killed(int status);
void fixture_expect_exited(int status);

/* fixture_key - of a text, its final NUL not included. */
struct index_key fixture_key(const char *text);

/*
 * fixture_link - an entry made by hand: claimed, filled in, FILLING and in the
 * chain of its key. No file, no ring, no handles.
 */
struct entry_name fixture_link(struct scache *cache, const struct index_key *key);

/* fixture_unmake - end a FILLING entry of fixture_link() and sweep it away. */
void fixture_unmake(struct scache *cache, struct entry_name name);

/* fixture_find - index_find() under a pin: 1 with the name, 0, -errno. */
int fixture_find(struct scache *cache, const struct index_key *key, struct entry_name *ret_name);

/* fixture_produce - acquire, write, finish, close; it must be us who are elected. */
void fixture_produce(struct scache *cache, const char *key, const void *data, size_t bytes);

/* fixture_state - the state word of an entry slot. */
uint64_t fixture_state(const struct scache *cache, uint32_t idx);

/* fixture_count_files - regular files below a directory. */
unsigned fixture_count_files(const char *path);
void fixture_remove_tree(const char *path);

/* fixture_main - run the tests, each between @setup and @teardown (or NULL). Exit status. */
int fixture_main(const char *name, void (*setup)(void), void (*teardown)(void),
		 const TTest *const *tests, size_t count);

#endif
