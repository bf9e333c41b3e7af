/* SPDX-License-Identifier: MIT */
/*
 * scratch - a directory for one test, and a small cache in it whose segment
 * stands beside it: a test that fails leaves nothing in /dev/shm.
 */
#ifndef UTIL_SCRATCH_H
#define UTIL_SCRATCH_H

#include <check.h>

#include "streamcache.h"

#define SCRATCH_RING_BYTES (256u << 10)

extern char scratch_base[256]; /* the directory */
extern char scratch_dir[300];  /* the cache in it; not yet made */

/* Small, no limits of age or pace; change before the first scratch_open(). */
extern struct scache_options scratch_options;

struct scache *scratch_open(void);
void scratch_close(struct scache *cache);

struct scache_stats scratch_stat(struct scache *cache);
struct scache_entry_info scratch_info(struct scache_reader *reader);

/* scratch_acquire - must elect us; @ret_reader as in scache_acquire(). */
struct scache_writer *scratch_create(struct scache *cache, const char *key, uint64_t window_bytes,
				     struct scache_reader **ret_reader);
/* scratch_find - must find. */
struct scache_reader *scratch_find(struct scache *cache, const char *key);
/*
 * scratch_read_along - the body of a child: say so when attached to "k", and
 * read all of it, which must be *(uint64_t *)@arg bytes of pattern 1.
 */
void scratch_read_along(void *arg);
/* scratch_read_and_stay - the same of so many bytes; say so, too, and do nothing any more. */
void scratch_read_and_stay(void *arg);
/* scratch_misses - 1 if a look-up finds nothing. */
int scratch_misses(struct scache *cache, const char *key);

/*
 * scratch_take - acquire @key until elected: meets entries of dead producers,
 * reads them to their error, and tries again.
 */
struct scache_writer *scratch_take(struct scache *cache, const char *key);

/* scratch_is_clean - sweep; no invariant is violated and nothing is left but we. */
void scratch_is_clean(struct scache *cache);

/* scratch_blob - the path of the only blob file. */
void scratch_blob(char *ret_path, size_t bytes);
/* scratch_segment - the path of the only segment, beside the cache. */
void scratch_segment(char *ret_path, size_t bytes);
/* scratch_blobs - how many blob files there are. */
int scratch_blobs(void);

/* scratch_count - how many names in @dir the shell's @pattern matches. */
int scratch_count(const char *dir, const char *pattern);

/* scratch_drop_root - become nobody, if we are root: permissions count again. */
void scratch_drop_root(void);
/* scratch_give_away - the directory will be used after scratch_drop_root(). */
void scratch_give_away(void);

/*
 * scratch_is_long - is this `make check-long`: may a test take minutes, and change
 * settings of the machine as long as it puts them back?
 */
int scratch_is_long(void);

/* scratch_run - the tests, each in a scratch of its own. The exit status. */
int scratch_run(const char *name, const TTest *const *tests, size_t count);
#define SCRATCH_RUN(name, tests) scratch_run(name, tests, sizeof(tests) / sizeof((tests)[0]))

#endif
