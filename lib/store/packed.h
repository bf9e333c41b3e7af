/* SPDX-License-Identifier: MIT */
/*
 * packed - an open lz4 blob: where each of its blocks is, and the plain bytes of one.
 *
 * Of a finished one the footer says where they are. One that grows is walked from block
 * to block, once by each process and only as far as somebody reads: so a byte
 * anywhere costs one block. What the walk has seen stays true, for a file only grows.
 */
#ifndef STORE_PACKED_H
#define STORE_PACKED_H

#include <sys/types.h>

#include "store/footer.h"
#include "store/frame.h"

struct packed;

/* packed_new - of one that grows, or whose end we do not know. 0 or -ENOMEM. */
int packed_new(struct packed **ret_packed);

/*
 * packed_open - of a finished one, as its entry says: @bytes plain ones in a file of
 * @file_bytes, of the key with this @hash. 0; -EBADMSG: the footer is damaged, or says otherwise; -errno.
 */
int packed_open(int fd, uint64_t bytes, uint64_t file_bytes, struct key_hash hash,
		struct packed **ret_packed);
void packed_free(struct packed *packed);

/* A reader's own place for one block: room, and what is in it. */
struct unpacked {
	uint64_t block; /* whose plain bytes these are, if bytes > 0 */
	size_t bytes;
	unsigned char *room; /* one block plain and one as it is stored; NULL until needed */
};

void unpacked_free(struct unpacked *unpacked);

/*
 * packed_read - up to @bytes plain bytes at @offset, of one block. @end: where the plain
 * bytes end that the file has, a multiple of a block unless no more will come.
 * Returns the count, 0 at @end; -EBADMSG, -ENOMEM, -errno. Any thread, with an @unpacked
 * of its own.
 */
ssize_t packed_read(struct packed *packed, int fd, struct unpacked *unpacked, void *ret_data,
		    size_t bytes, uint64_t offset, uint64_t end);

/*
 * packed_check_end - of a finished one: is the end of its frame, which holds a checksum of
 * all plain bytes, this @end? No read needs it. 0, -EBADMSG, -errno.
 */
int packed_check_end(const struct packed *packed, int fd,
		     const unsigned char end[FRAME_END_BYTES]);

/* packed_word - see frame.h, of the block at plain @offset, as it stands there. 0, -errno. */
int packed_word(struct packed *packed, int fd, uint64_t offset, uint64_t *ret_word);

#endif
