/* SPDX-License-Identifier: MIT */
/*
 * footer - what stands behind the payload of a finished blob. That it is there and
 * whole says that the blob is finished; nothing else does once the segment is gone.
 *
 *	payload | frame | words | key | note | tail
 *
 *	frame	8 bytes: a skippable LZ4 frame, so that lz4(1) takes an lz4 blob as it is
 *	words	8 bytes for each block of the payload: a checksum, see below
 *	key	as it was given		note	the producer's own words, or nothing
 *	tail	FOOTER_TAIL_BYTES: sizes, times, magic, and last a checksum of all the footer
 *
 * All integers are little-endian. The payload stays at offset 0, as it is or as one
 * LZ4 frame. A block is BLOCK_BYTES of the plain payload, the last one what is left.
 * Its word is XXH3 (64 bits) of it, or, of an lz4 blob, what frame.h says of it.
 */
#ifndef STORE_FOOTER_H
#define STORE_FOOTER_H

#include <sys/types.h>

#include "base/compiler.h"
#include "base/hash.h"

#define BLOCK_BYTES (256u << 10)
#define FOOTER_TAIL_BYTES 88u
#define FOOTER_NOTE_BYTES_MAX 4096u /* SCACHE_NOTE_BYTES_MAX */
#define BLOB_BYTES_MAX (1ull << 46) /* 64 TiB: its words fit one skippable frame */

enum blob_format {
	BLOB_RAW,
	BLOB_LZ4,
};

struct footer {
	uint32_t format; /* enum blob_format */
	uint32_t key_bytes, note_bytes;
	uint64_t bytes;	       /* of the payload, plain, */
	uint64_t stored_bytes; /* and in the file */
	uint64_t created_ns, finished_ns; /* CLOCK_REALTIME: they outlive a boot */
	uint64_t max_age_ns;
	const uint64_t *words; /* block_count(bytes) */
	const unsigned char *key, *note;
};

static inline uint64_t block_count(uint64_t bytes)
{
	return bytes / BLOCK_BYTES + (bytes % BLOCK_BYTES != 0);
}

/* footer_bytes - how long it will be. */
uint64_t footer_bytes(const struct footer *footer);

/* footer_encode - into footer_bytes() bytes. */
void footer_encode(const struct footer *footer, unsigned char *ret_data);

/*
 * footer_decode - the last @bytes bytes of a file of @file_bytes, of which @data begins
 * at a multiple of 8 in memory. @ret_footer points into @data, which is changed.
 * Returns 0; -EBADMSG: it is not, or not wholly, a footer; -EMSGSIZE: there may be one
 * that is longer than @bytes: *ret_bytes.
 */
int footer_decode(void *data, size_t bytes, uint64_t file_bytes, struct footer *ret_footer,
		  size_t *ret_bytes);

/*
 * footer_read - that of @fd, a file of @file_bytes. Everything is in one piece of
 * memory that is given back by free(*ret_footer). 0, -EBADMSG, -ENOMEM, -errno.
 */
int footer_read(int fd, uint64_t file_bytes, struct footer **ret_footer);

/* footer_is_of - is its blob of this format, of @bytes, and of the key with this @hash? */
bool footer_is_of(const struct footer *footer, enum blob_format format, uint64_t bytes,
		  struct key_hash hash);

#endif
