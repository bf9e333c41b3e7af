/* SPDX-License-Identifier: MIT */
#include "store/frame.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <lz4.h>
#include <lz4hc.h>
#include <xxhash.h>

#include "base/check.h"

#define FRAME_MAGIC 0x184d2204u
#define FLG 0x7c /* version 1, independent blocks, their checksums, plain size, its checksum */
#define BD 0x50  /* no block of more than 256 KiB */

#define SIZE_WORD_BYTES 4u /* the checksum behind the data has as many */
#define LEVEL_HC 3         /* the first of those */

_Static_assert(FRAME_LEVEL_MAX == LZ4HC_CLEVEL_MAX, "liblz4 has other levels");
_Static_assert(FRAME_BLOCK_BYTES < LZ4_MAX_INPUT_SIZE, "a block is one call of liblz4");

struct frame_encoder {
	int level;
	void *state;            /* liblz4's, for this level */
	XXH32_state_t *content; /* of the plain bytes so far */
	unsigned char block[FRAME_BLOCK_BYTES + FRAME_BLOCK_EXTRA_BYTES];
};

static void put_u32(unsigned char *at, uint32_t value)
{
	for (unsigned i = 0; i < 4; i++)
		at[i] = (unsigned char)(value >> 8 * i);
}

static uint32_t get_u32(const unsigned char *at)
{
	return at[0] | (uint32_t)at[1] << 8 | (uint32_t)at[2] << 16 | (uint32_t)at[3] << 24;
}

int frame_encoder_new(int level, struct frame_encoder **ret_encoder)
{
	struct frame_encoder *encoder;
	int state_bytes;

	if (level < 0 || level > FRAME_LEVEL_MAX)
		return -EINVAL;
	encoder = malloc(sizeof(*encoder));
	if (encoder == NULL)
		return -ENOMEM;
	encoder->level = level > 0 ? level : FRAME_LEVEL_DEFAULT;
	state_bytes = encoder->level < LEVEL_HC ? LZ4_sizeofState() : LZ4_sizeofStateHC();
	encoder->state = malloc((size_t)state_bytes);
	encoder->content = XXH32_createState();
	if (encoder->state == NULL || encoder->content == NULL) {
		frame_encoder_free(encoder);
		return -ENOMEM;
	}
	XXH32_reset(encoder->content, 0);
	*ret_encoder = encoder;
	return 0;
}

void frame_encoder_free(struct frame_encoder *encoder)
{
	if (encoder == NULL)
		return;
	free(encoder->state);
	XXH32_freeState(encoder->content);
	free(encoder);
}

/*
 * Into @ret_data, with room for one byte less than the plain ones: so liblz4 gives up by
 * itself where nothing is to be gained. Returns how many, or 0. Noise takes the fast levels
 * no time, while HC would look at all of it: so it only gets what they make shorter.
 */
static uint32_t compress_data(struct frame_encoder *encoder, const void *plain, size_t bytes,
			      unsigned char *ret_data)
{
	char *data = (char *)ret_data;
	int done, room = (int)bytes - 1;

	/* The state of HC has room for the other. */
	done = LZ4_compress_fast_extState(encoder->state, plain, data, (int)bytes, room, 1);
	if (done > 0 && encoder->level >= LEVEL_HC)
		done = LZ4_compress_HC_extStateHC(encoder->state, plain, data, (int)bytes, room,
						  encoder->level);
	return done > 0 ? (uint32_t)done : 0;
}

size_t frame_encode(struct frame_encoder *encoder, const void *plain, size_t bytes, bool compress,
		    const void **ret_data, uint64_t *ret_word)
{
	unsigned char *data = encoder->block + SIZE_WORD_BYTES;
	uint32_t data_bytes = 0, size_word, checksum;

	SC_ASSERT(bytes > 0 && bytes <= FRAME_BLOCK_BYTES);
	XXH32_update(encoder->content, plain, bytes);
	if (compress)
		data_bytes = compress_data(encoder, plain, bytes, data);
	size_word = data_bytes;
	if (data_bytes == 0) {
		memcpy(data, plain, bytes);
		data_bytes = (uint32_t)bytes;
		size_word = data_bytes | FRAME_STORED;
	}
	checksum = XXH32(data, data_bytes, 0);
	put_u32(encoder->block, size_word);
	put_u32(data + data_bytes, checksum);
	*ret_data = encoder->block;
	*ret_word = (uint64_t)checksum << 32 | size_word;
	return frame_stored_bytes(size_word);
}

void frame_skip(struct frame_encoder *encoder, const void *plain, size_t bytes)
{
	XXH32_update(encoder->content, plain, bytes);
}

void frame_header(uint64_t plain_bytes, unsigned char ret_header[FRAME_HEADER_BYTES])
{
	put_u32(ret_header, FRAME_MAGIC);
	ret_header[4] = FLG;
	ret_header[5] = BD;
	put_u32(ret_header + 6, (uint32_t)plain_bytes);
	put_u32(ret_header + 10, (uint32_t)(plain_bytes >> 32));
	/* The second byte of it, and not of the magic: so says the format. */
	ret_header[14] = (unsigned char)(XXH32(ret_header + 4, 10, 0) >> 8);
}

void frame_end(const struct frame_encoder *encoder, unsigned char ret_end[FRAME_END_BYTES])
{
	put_u32(ret_end, 0);
	put_u32(ret_end + 4, XXH32_digest(encoder->content));
}

uint32_t frame_walk(const unsigned char at[4])
{
	uint32_t size_word = get_u32(at), data_bytes = size_word & ~FRAME_STORED;

	if (data_bytes == 0 || data_bytes > FRAME_BLOCK_BYTES)
		return 0;
	return frame_stored_bytes(size_word);
}

uint64_t frame_word(const void *stored, size_t stored_bytes)
{
	const unsigned char *block = stored;

	return (uint64_t)get_u32(block + stored_bytes - SIZE_WORD_BYTES) << 32 | get_u32(block);
}

int frame_decode(const void *stored, size_t stored_bytes, uint64_t word, void *ret_plain,
		 size_t plain_bytes)
{
	const unsigned char *block = stored, *data = block + SIZE_WORD_BYTES;
	uint32_t size_word, data_bytes, checksum;
	int done;

	if (stored_bytes <= FRAME_BLOCK_EXTRA_BYTES || frame_walk(block) != stored_bytes ||
	    plain_bytes == 0 || plain_bytes > FRAME_BLOCK_BYTES)
		return -EBADMSG;
	size_word = get_u32(block);
	data_bytes = size_word & ~FRAME_STORED;
	checksum = get_u32(data + data_bytes);
	/* The word first: it is what an old block of this very place cannot pass. */
	if (word != 0 && word != ((uint64_t)checksum << 32 | size_word))
		return -EBADMSG;
	if (XXH32(data, data_bytes, 0) != checksum)
		return -EBADMSG;
	if (size_word & FRAME_STORED) {
		if (data_bytes != plain_bytes)
			return -EBADMSG;
		memcpy(ret_plain, data, data_bytes);
		return 0;
	}
	/* More than there is room for is an error of its own. */
	done = LZ4_decompress_safe((const char *)data, ret_plain, (int)data_bytes,
				   (int)plain_bytes);
	return done == (int)plain_bytes ? 0 : -EBADMSG;
}
