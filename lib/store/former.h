/* SPDX-License-Identifier: MIT */
/*
 * former - where files of former segments may be, and how much of the disk they take.
 *
 * A new segment knows nothing of them: each fan-out directory may have some
 * (FORMER_UNKNOWN). Whoever looks for room counts some hundred files, and adopts or removes a
 * few files if there is not enough: bounded slices of what a full sweep does at once.
 *
 * A miss looks through the directory of its key, which is long where many have been left. So
 * the first one that has seen all of it leaves what it saw in a filter (B. H. Bloom, Space/time
 * trade-offs in hash coding with allowable errors, CACM 1970): two bits of the key's hash for
 * each file. None is taken back. Others then look only for what may be there.
 */
#ifndef STORE_FORMER_H
#define STORE_FORMER_H

#include "store/store.h"

/* former_is_name - is that a file of ours, of another segment? By a glance. */
bool former_is_name(const struct store *store, const char *file_name);

/* former_may_have - may there be files for this key? */
static inline bool former_may_have(const struct segment *segment, struct key_hash hash)
{
	uint32_t fan = (uint32_t)(hash.high >> 56), mask = segment->geometry.buckets * 32 - 1;
	uint32_t first = (uint32_t)hash.high & mask, second = (uint32_t)hash.low & mask;

	if (likely(shm_load_relaxed(&segment->header->former[fan]) == 0))
		return false;
	/* ORDER former-listed, acquire: listed before the bits. Pairs with former_list(). */
	if (!(shm_load_acquire(&segment->header->former_listed[fan / 64]) >> fan % 64 & 1))
		return true;
	return shm_load_relaxed(&segment->former_keys[first / 32]) >> first % 32 & 1 &&
	       shm_load_relaxed(&segment->former_keys[second / 32]) >> second % 32 & 1;
}

/* former_note - @file_name, of which former_is_name() holds, is in its directory. */
void former_note(struct store *store, const char *file_name);

/* former_list - all that the directory has are noted, and none can come. */
void former_list(struct store *store, uint32_t fan);

/* former_bytes - as far as counted, what they take in all. */
uint64_t former_bytes(const struct store *store);

/* former_count - directories that nobody has counted, until @files are seen. True: none is left. */
bool former_count(struct store *store, uint32_t files);

/* former_disk_bytes - what the file at @path below DIR/blobs takes; 0 if it is not there. */
uint64_t former_disk_bytes(const struct store *store, const char *path);

/* former_took - the one that was at @path is gone, or an entry's now: @bytes less. */
void former_took(const struct store *store, const char *path, uint64_t bytes);

/* former_none - there is none in the key's directory, and none can come. */
void former_none(struct store *store, uint32_t fan);

/*
 * former_adopt_some - make entries of a few of them, or remove those that are good for
 * nothing, until @bytes are freed by that. How many were either; 0: there was nothing to be
 * done. Blocks: for the disk.
 */
uint32_t former_adopt_some(struct store *store, uint64_t bytes, uint64_t *ret_freed);

#endif
