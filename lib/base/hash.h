/* SPDX-License-Identifier: MIT */
/*
 * hash - 128 bits of a key: the bucket and the blob's file name.
 *
 * XXH3 is no cryptographic hash and needs not be one: keys are compared
 * byte by byte, and file names also carry the entry's identity.
 */
#ifndef BASE_HASH_H
#define BASE_HASH_H

#include <stddef.h>
#include <stdint.h>

#include <xxhash.h>

struct key_hash {
	uint64_t high, low;
};

static inline struct key_hash hash_key(const void *key, size_t key_bytes)
{
	XXH128_hash_t h = XXH3_128bits(key, key_bytes);

	return (struct key_hash){ .high = h.high64, .low = h.low64 };
}

#endif
