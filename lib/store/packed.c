/* SPDX-License-Identifier: MIT */
#include "store/packed.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "base/thread.h"
#include "store/blob.h"

#define STORED_ROOM (FRAME_BLOCK_BYTES + FRAME_BLOCK_EXTRA_BYTES)

_Static_assert(FRAME_BLOCK_BYTES == BLOCK_BYTES, "one word a block");

struct packed {
	pthread_mutex_t mutex; /* of all that follows; of a finished one nothing changes */
	uint64_t *offsets;     /* of the blocks in the file, */
	size_t known, room;    /* as far as they are known: at least the first */
	struct footer *footer; /* NULL: it grows */
};

/* Block number `known` begins at @offset. */
static int note_offset(struct packed *packed, uint64_t offset)
{
	size_t room = packed->room > 0 ? 2 * packed->room : 16;
	uint64_t *offsets = packed->offsets;

	if (packed->known == packed->room) {
		offsets = realloc(offsets, room * sizeof(*offsets));
		if (offsets == NULL)
			return -ENOMEM;
		packed->offsets = offsets;
		packed->room = room;
	}
	offsets[packed->known++] = offset;
	return 0;
}

int packed_new(struct packed **ret_packed)
{
	struct packed *packed = calloc(1, sizeof(*packed));

	if (packed == NULL)
		return -ENOMEM;
	pthread_mutex_init(&packed->mutex, NULL);
	if (note_offset(packed, FRAME_HEADER_BYTES) < 0) {
		packed_free(packed);
		return -ENOMEM;
	}
	*ret_packed = packed;
	return 0;
}

void packed_free(struct packed *packed)
{
	if (packed == NULL)
		return;
	pthread_mutex_destroy(&packed->mutex);
	free(packed->offsets);
	free(packed->footer);
	free(packed);
}

/* @bytes at @offset of the file must be these. */
static int compare(int fd, const unsigned char *wanted, size_t bytes, uint64_t offset)
{
	unsigned char found[FRAME_HEADER_BYTES];
	int ret = blob_read_whole(fd, found, bytes, offset);

	return ret < 0 || memcmp(found, wanted, bytes) == 0 ? ret : -EBADMSG;
}

/* We do not need it, but whoever is given the file by scache_file() does. */
static int check_header(int fd, uint64_t bytes)
{
	unsigned char header[FRAME_HEADER_BYTES];

	frame_header(bytes, header);
	return compare(fd, header, sizeof(header), 0);
}

/* All blocks, one behind the other, and with header and end they are what is stored. */
static int place_all(struct packed *packed)
{
	const struct footer *footer = packed->footer;
	uint64_t at = FRAME_HEADER_BYTES, blocks = block_count(footer->bytes);
	int ret = 0;

	for (uint64_t i = 0; ret == 0 && i < blocks; i++) {
		at += frame_stored_bytes(footer->words[i]);
		if (i + 1 < blocks)
			ret = note_offset(packed, at);
	}
	return ret == 0 && at + FRAME_END_BYTES != footer->stored_bytes ? -EBADMSG : ret;
}

int packed_open(int fd, uint64_t bytes, uint64_t file_bytes, struct key_hash hash,
		struct packed **ret_packed)
{
	struct packed *packed;
	int ret = packed_new(&packed);

	if (ret < 0)
		return ret;
	ret = footer_read(fd, file_bytes, &packed->footer);
	if (ret == 0 && !footer_is_of(packed->footer, BLOB_LZ4, bytes, hash))
		ret = -EBADMSG;
	if (ret == 0)
		ret = place_all(packed);
	if (ret == 0)
		ret = check_header(fd, bytes);
	if (ret < 0)
		packed_free(packed);
	else
		*ret_packed = packed;
	return ret;
}

void unpacked_free(struct unpacked *unpacked)
{
	free(unpacked->room);
	*unpacked = (struct unpacked){ .bytes = 0 };
}

/* The length in the file of the block at @offset of one that grows, or -errno. */
static int measure(int fd, uint64_t offset)
{
	unsigned char at[4];
	int ret = blob_read_whole(fd, at, sizeof(at), offset);

	if (ret < 0)
		return ret;
	ret = (int)frame_walk(at);
	return ret > 0 ? ret : -EBADMSG;
}

/* Where @block is, how long, and its word, or 0. */
static int locate(struct packed *packed, int fd, uint64_t block, uint64_t *ret_offset,
		  size_t *ret_bytes, uint64_t *ret_word)
{
	int ret = 0;

	pthread_mutex_lock(&packed->mutex);
	while (ret >= 0 && block >= packed->known) {
		ret = measure(fd, packed->offsets[packed->known - 1]);
		if (ret > 0)
			ret = note_offset(packed, packed->offsets[packed->known - 1] + (unsigned)ret);
	}
	if (ret >= 0)
		*ret_offset = packed->offsets[block];
	pthread_mutex_unlock(&packed->mutex);
	if (ret < 0)
		return ret;
	*ret_word = packed->footer != NULL ? packed->footer->words[block] : 0;
	if (*ret_word != 0 && frame_stored_bytes(*ret_word) > STORED_ROOM)
		return -EBADMSG;
	ret = *ret_word != 0 ? (int)frame_stored_bytes(*ret_word) : measure(fd, *ret_offset);
	*ret_bytes = (size_t)ret;
	return ret < 0 ? ret : 0;
}

/* One block whole, @bytes plain ones. 0, -EBADMSG, -errno. */
static int unpack(struct packed *packed, int fd, struct unpacked *unpacked, uint64_t block,
		  void *plain, size_t bytes)
{
	unsigned char *stored = unpacked->room + BLOCK_BYTES;
	uint64_t offset, word;
	size_t stored_bytes;
	int ret = locate(packed, fd, block, &offset, &stored_bytes, &word);

	if (ret == 0 && stored_bytes > STORED_ROOM)
		ret = -EBADMSG;
	if (ret == 0)
		ret = blob_read_whole(fd, stored, stored_bytes, offset);
	return ret < 0 ? ret : frame_decode(stored, stored_bytes, word, plain, bytes);
}

ssize_t packed_read(struct packed *packed, int fd, struct unpacked *unpacked, void *ret_data,
		    size_t bytes, uint64_t offset, uint64_t end)
{
	UNCANCELLED;
	uint64_t block = offset / BLOCK_BYTES, from = block * BLOCK_BYTES;
	size_t all, skipped = (size_t)(offset - from);
	int ret;

	/* What its entry says is not to be trusted with memory. */
	if (packed->footer != NULL)
		end = min_u64(end, packed->footer->bytes);
	if (offset >= end)
		return 0;
	all = (size_t)min_u64(BLOCK_BYTES, end - from);
	if (unpacked->room == NULL)
		unpacked->room = malloc(BLOCK_BYTES + STORED_ROOM);
	if (unpacked->room == NULL)
		return -ENOMEM;
	bytes = (size_t)min_u64(bytes, all - skipped);
	if (bytes == all) {
		ret = unpack(packed, fd, unpacked, block, ret_data, all);
		return ret < 0 ? ret : (ssize_t)bytes;
	}
	if (unpacked->bytes != all || unpacked->block != block) {
		unpacked->bytes = 0;
		ret = unpack(packed, fd, unpacked, block, unpacked->room, all);
		if (ret < 0)
			return ret;
		unpacked->block = block;
		unpacked->bytes = all;
	}
	memcpy(ret_data, unpacked->room + skipped, bytes);
	return (ssize_t)bytes;
}

int packed_check_end(const struct packed *packed, int fd, const unsigned char end[FRAME_END_BYTES])
{
	return compare(fd, end, FRAME_END_BYTES, packed->footer->stored_bytes - FRAME_END_BYTES);
}

int packed_word(struct packed *packed, int fd, uint64_t offset, uint64_t *ret_word)
{
	uint64_t at, word;
	unsigned char ends[8];
	size_t bytes;
	int ret = locate(packed, fd, offset / BLOCK_BYTES, &at, &bytes, &word);

	/* Its size word and its checksum: all of frame_word(). */
	if (ret == 0)
		ret = blob_read_whole(fd, ends, 4, at);
	if (ret == 0)
		ret = blob_read_whole(fd, ends + 4, 4, at + bytes - 4);
	if (ret == 0)
		*ret_word = frame_word(ends, sizeof(ends));
	return ret;
}
