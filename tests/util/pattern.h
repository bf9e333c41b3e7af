/* SPDX-License-Identifier: MIT */
/*
 * pattern - blobs whose every byte is known: content = f(seed, offset).
 * Two seeds have different bytes nearly everywhere, and so have two offsets. Of a seed
 * with PATTERN_TEXT they compress to less than half.
 */
#ifndef UTIL_PATTERN_H
#define UTIL_PATTERN_H

#include <stddef.h>
#include <stdint.h>

#include "streamcache.h"

#define PATTERN_TEXT (UINT64_C(1) << 63)

void pattern_fill(uint64_t seed, uint64_t offset, void *ret_data, size_t bytes);

/* pattern_matches - 1 if all of @data is what stands at @offset. */
int pattern_matches(uint64_t seed, uint64_t offset, const void *data, size_t bytes);

/*
 * pattern_write - write [@from, @until) in calls of at most @piece bytes.
 * Returns @until - @from, or less and *ret_error if scache_write() failed.
 */
uint64_t pattern_write(struct scache_writer *writer, uint64_t seed, uint64_t from, uint64_t until,
		       size_t piece, int *ret_error);

/* pattern_produce - all of it, and finish; each call must succeed. */
void pattern_produce(struct scache_writer *writer, uint64_t seed, uint64_t bytes, size_t piece);

/*
 * pattern_read - read and verify from *@position to @until (or to the end) in
 * calls of at most @piece bytes, waiting for ever. Returns 1 at @until, else
 * what the last scache_read() returned: 0 or -errno.
 */
int pattern_read(struct scache_reader *reader, uint64_t seed, uint64_t *position, uint64_t until,
		 size_t piece);

/* pattern_read_all - a whole blob of @bytes, and end of file after it. */
void pattern_read_all(struct scache_reader *reader, uint64_t seed, uint64_t bytes);

#endif
