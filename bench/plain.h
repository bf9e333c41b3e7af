/* SPDX-License-Identifier: MIT */
/*
 * plain - what a program does that has no cache: files, a mapping, a socket.
 * limits asks how fast that is here; finished, hit and miss are held against it.
 */
#ifndef BENCH_PLAIN_H
#define BENCH_PLAIN_H

#include "measure.h"

#define SMALL_BYTES 1024u	   /* of a small value */
#define BLOCK_BYTES (256u << 10)   /* of a read or a write, unless it is said otherwise */
#define BLOCK_BYTES_MAX (4u << 20) /* the largest */

/* What is written, and another as large that is read into. Touched beforehand. */
extern unsigned char plain_source[BLOCK_BYTES_MAX], plain_sink[BLOCK_BYTES_MAX];
void plain_begin(void);

/*
 * fresh_name - a name that nothing below bench.dir has, nor had in a former program:
 * by its name ext4 finds a place for a directory. Good until the next call but seven.
 */
const char *fresh_name(const char *kind);

/* ------------------------------------------------------------------------ one large file */

/* plain_file - a new one with that much in it, and in the page cache. */
int plain_file(const char *path, size_t bytes);
void plain_write(int fd, size_t bytes, size_t block);

/* plain_touch - what a consumer does at the least: a look at each cache line. */
void plain_touch(const void *data, size_t bytes);

/* All of @fd by pread(), into plain_sink; @touch: and looked at there. */
void plain_read(int fd, size_t bytes, size_t block, bool touch);

/* All of @fd by a mapping of this call's own. */
void plain_map(int fd, size_t bytes);

/* All of @fd by sendfile(). */
void plain_sendfile(int to_fd, int fd, size_t bytes);

/* A child at the other end of a unix socket that throws away what it gets. */
struct drain {
	pid_t child;
	int fd;
};
struct drain drain_open(size_t bytes);
void drain_close(const struct drain *drain); /* returns when it has had all @bytes */

/* --------------------------------------------------------------------- many small values */

/*
 * The names of small value @i: as a key, and as a file in one of 256 directories, as
 * long a name as the library's own. Made beforehand, so that nobody pays for printf().
 */
struct small_name {
	char key[24];
	uint32_t key_bytes;
	char path[88];
};
extern const struct small_name *small_names;
void small_begin(unsigned count);

/* small_value - plain_source, with @i in front. */
const void *small_value(unsigned i);
void small_check(unsigned i, const void *value);

/* fan_open - a descriptor of a directory below bench.dir; @make: with its 256 in it. */
int fan_open(const char *name, bool make);
void fan_put(int fan, unsigned i);
void fan_put_renamed(int fan, unsigned i); /* under another name first */
void fan_get(int fan, unsigned i);	   /* open, pread, close; into plain_sink */

/* ours_put - in @cache, by the shortest way. */
void ours_put(struct scache *cache, unsigned i);

/* -------------------------------------------------------------------------- another store */

/* LMDB, if configure has found it; else these end the program. */
extern const bool other_is_here;
struct other;
struct other *other_open(const char *name); /* each process for itself; one is the writer */
void other_put(struct other *other, unsigned i); /* a transaction each, never synced */
void other_get(struct other *other, unsigned i); /* copied into plain_sink */
void other_close(struct other *other);

#endif
