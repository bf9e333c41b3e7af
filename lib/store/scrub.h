/* SPDX-License-Identifier: MIT */
/*
 * scrub - compare all of a finished blob's file with its checksums.
 */
#ifndef STORE_SCRUB_H
#define STORE_SCRUB_H

#include "base/hash.h"
#include "store/table.h"

/* Called before each block of @bytes in the file: a value other than 0 ends the scrub. */
typedef int scrub_pace(void *arg, uint64_t bytes);

/*
 * scrub_file - @fd is the file of the blob of the key with this @hash.
 * 0; -EBADMSG: it is damaged, or of another size; what @pace returned; -errno.
 * Blocks: for the disk.
 */
int scrub_file(int fd, const struct blob_facts *facts, struct key_hash hash, scrub_pace *pace,
	       void *arg);

#endif
