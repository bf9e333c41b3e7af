/* SPDX-License-Identifier: MIT */
/*
 * former - what a segment leaves behind when it is lost: the ways in which that
 * happens, and what may have befallen the files meanwhile.
 */
#ifndef UTIL_FORMER_H
#define UTIL_FORMER_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "streamcache.h"

enum former_loss {
	LOST_FILE,   /* /dev/shm is empty after a boot */
	LOST_BOOT,   /* it is not, but the boot is another one */
	LOST_LAYOUT, /* another version of the library */
	LOST_TRUST,  /* retired, for it was damaged */
	LOSSES,
};

/* former_lose - nobody but those who are attached will ever use the segment again. */
void former_lose(enum former_loss how);

/* former_put - a finished blob of pattern @seed, by a cache of its own. */
void former_put(const char *key, uint64_t seed, uint64_t bytes);

/* former_put_aged - one that expires @max_age_ns after its end, which was @age_ns ago. */
void former_put_aged(const char *key, uint64_t seed, uint64_t bytes, uint64_t max_age_ns,
		     uint64_t age_ns);

/* former_age - the blob file at @path was finished so much longer ago. */
void former_age(const char *path, uint64_t age_ns);

/* former_change - another byte at @offset, from the end if negative; it stays read-only. */
void former_change(const char *path, off_t offset);

/* former_resize - to @by bytes more or less. */
void former_resize(const char *path, off_t by);

/* former_mode - of the file at @path. */
mode_t former_mode(const char *path);

/* The ways to read a blob. */
enum former_way {
	BY_READ,
	BY_PREAD,
	BY_PEEK,
	BY_SENDFILE,
	WAYS,
};

/*
 * former_read - all of @reader, which must be @bytes bytes of pattern @seed, or an error
 * behind bytes that are right. 0 or -errno.
 */
int former_read(struct scache_reader *reader, enum former_way way, uint64_t seed, uint64_t bytes);

/* former_has - the cache finds @key, and all of it is that. */
void former_has(struct scache *cache, const char *key, uint64_t seed, uint64_t bytes);

/* former_count_wrong - the same, whatever it is: how many bytes are not the pattern's. */
int former_count_wrong(struct scache *cache, const char *key, uint64_t seed, uint64_t bytes);

/* former_is_gone - lose the segment: a new one has nothing of "k", and no file is left of it. */
void former_is_gone(void);

#endif
