/* SPDX-License-Identifier: MIT */
/*
 * former - where files of former segments may be, and how much of the disk they take.
 *
 * A new segment knows nothing of them: each fan-out directory may have some
 * (FORMER_UNKNOWN). Whoever looks for room counts some hundred files, and adopts or removes a
 * few files if there is not enough: bounded slices of what a full sweep does at once.
 */
#ifndef STORE_FORMER_H
#define STORE_FORMER_H

#include "store/store.h"

/* former_is_name - is that a file of ours, of another segment? By a glance. */
bool former_is_name(const struct store *store, const char *file_name);

/* former_bytes - as far as counted, what they take in all. */
uint64_t former_bytes(const struct store *store);

/* former_count - directories that nobody has counted, until @files are seen. True: none is left. */
bool former_count(struct store *store, uint32_t files);

/* former_took - one of the key's directory is gone, or an entry's now: @bytes less. */
void former_took(struct store *store, struct key_hash hash, uint64_t bytes);

/* former_none - there is none in the key's directory, and none can come. */
void former_none(struct store *store, uint32_t fan);

/*
 * former_adopt_some - make entries of a few of them, or remove those that are good for
 * nothing. False: there was nothing to be done. Blocks: for the disk.
 */
bool former_adopt_some(struct store *store);

#endif
