/* SPDX-License-Identifier: MIT */
/*
 * opened - one blob that this process has open: what store/table.h keeps.
 *
 * A large one is its descriptor, and its mapping once somebody has peeked at it; a
 * small finished one is a copy in memory, and its file is closed again. One whose file
 * is not trusted is guarded: nobody sees a block before its checksum was found right.
 */
#ifndef STORE_OPENED_H
#define STORE_OPENED_H

#include <urcu/rculfhash.h>

#include "store/guard.h"
#include "store/packed.h"
#include "store/store.h"

struct open_blob {
	struct cds_lfht_node node;
	struct entry_name name;
	int fd; /* -1: `copy` has it all */
	/* 1 for the table, 1 a user; at 0 it is condemned and never comes back. */
	_Atomic uint32_t users;
	_Atomic bool is_used; /* since the hand last passed */
	uint32_t place;
	bool is_listed; /* false: the table was full, it is its one user's */
	bool is_guarded; /* by `guard`, or a copy that has been compared */
	struct guard *guard; /* of a file that is guarded; or NULL */
	struct packed *packed; /* NULL: not compressed, or unpacked in `copy` */
	_Atomic uint64_t bytes; /* of a finished blob, as its file was seen to have */
	_Atomic(unsigned char *) view;
	struct open_blob *next_condemned;
	unsigned char copy[];
};

/*
 * opened_look_into - its file is open: whatever is to be known of a finished blob before
 * anybody uses it. @is_copy: there is room in `copy` for its bytes, and for its file and 8
 * bytes more.
 * 0; -EBADMSG: it is not of that size, or damaged, or another key's; -errno.
 */
int opened_look_into(struct store *store, struct open_blob *blob, struct key_hash hash,
		     const struct blob_facts *facts, bool is_copy);

/* opened_has_size - its file. */
bool opened_has_size(const struct open_blob *blob, uint64_t file_bytes);

/* opened_close - mapping, descriptor and guard; the memory stays. */
void opened_close(struct open_blob *blob);

/*
 * opened_forget - in a fork child: mapping and descriptor alone. Where the blocks of a
 * packed one are another thread of the parent may have been writing down at that moment.
 */
void opened_forget(struct open_blob *blob);

/*
 * opened_check - that @bytes bytes at @offset of the file may be seen, if it is guarded.
 * 0, -EBADMSG, -errno. Its entry learns when all of it has been compared.
 */
int opened_check(struct store *store, struct open_blob *blob, uint64_t offset, size_t bytes);

/* opened_read - as blob_read(), of the payload. */
ssize_t opened_read(const struct open_blob *blob, void *ret_data, size_t bytes, uint64_t offset);

/* opened_unpack - the same of a packed one, no more than there is before @end; see packed.h. */
ssize_t opened_unpack(const struct open_blob *blob, struct unpacked *unpacked, void *ret_data,
		      size_t bytes, uint64_t offset, uint64_t end);

/* opened_fd - its file, or -1: it is not that which has the bytes as they are. */
int opened_fd(const struct open_blob *blob);

/*
 * opened_view - all of a finished blob as memory, mapped at the first call; NULL: it is
 * growing, empty or packed, or cannot be mapped. As long as there is a user.
 */
const unsigned char *opened_view(struct open_blob *blob);

#endif
