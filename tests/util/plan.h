/* SPDX-License-Identifier: MIT */
/*
 * plan - what a blob holds follows from its key and from a marker that its
 * producer draws and puts in front: its length, every byte, and how production
 * ends. So each reader knows what it must get, whoever produced it.
 */
#ifndef UTIL_PLAN_H
#define UTIL_PLAN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define PLAN_BYTES_MAX (3u * 65536)

enum plan_ending { PLAN_FINISH, PLAN_ABORT_ERRNO, PLAN_ABORT_CODE, PLAN_CLOSE };

struct plan {
	unsigned key;
	uint64_t marker;
	uint64_t bytes; /* the marker's included */
	enum plan_ending ending;
	int code; /* for scache_abort() */
};

/* plan_mix - the next of a series of numbers that look random. */
uint64_t plan_mix(uint64_t x);

struct plan plan_make(unsigned key, uint64_t marker);

/* plan_fill - all bytes of the blob. */
void plan_fill(const struct plan *plan, unsigned char ret_data[PLAN_BYTES_MAX]);

/* What one reader has got so far; start with { .plan.key = key }. */
struct plan_reading {
	struct plan plan;
	uint64_t position, marker, word;
	char why[160];
};

/* plan_check - the next bytes. NULL if they are as planned, else what is wrong. */
const char *plan_check(struct plan_reading *r, const unsigned char *data, size_t bytes);

/* plan_check_end - the stream has ended with @error (0: end of file). The same. */
const char *plan_check_end(struct plan_reading *r, int error);

#endif
