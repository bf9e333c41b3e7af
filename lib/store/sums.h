/* SPDX-License-Identifier: MIT */
/*
 * sums - checksums of a raw payload's blocks, made while it is written.
 *
 * XXH3 with 64 bits: against accidents of disks and file systems, not against
 * enemies. Where the processor has wider vectors than its family's least, they are used.
 */
#ifndef STORE_SUMS_H
#define STORE_SUMS_H

#include <stddef.h>
#include <stdint.h>

#define SUMS_INLINE 4 /* a small blob needs no memory for them */

struct sums {
	uint64_t bytes; /* so far, from 0 on */
	uint64_t *words; /* of whole blocks; NULL: in `few` */
	size_t room;
	void *state; /* of the block that is not whole yet; NULL until needed */
	uint64_t few[SUMS_INLINE];
};

/* sums_of - one checksum of @bytes in one piece. */
uint64_t sums_of(const void *data, size_t bytes);

/* sums_add - the next bytes. 0 or -ENOMEM: `bytes` says how far it came. */
int sums_add(struct sums *sums, const void *data, size_t bytes);

/* sums_end - the last ones. *ret_words is good until sums_free(). 0 or -ENOMEM. */
int sums_end(struct sums *sums, const void *data, size_t bytes, const uint64_t **ret_words);

void sums_free(struct sums *sums);

#endif
