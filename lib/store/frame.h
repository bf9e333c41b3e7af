/* SPDX-License-Identifier: MIT */
/*
 * frame - a blob as an LZ4 frame, in memory: what stands in its file, but for the
 * footer. The file is one that lz4(1) unpacks; format: lz4_Frame_format.md, 1.6.
 *
 *   header   magic, FLG 0x7c, BD 0x50, plain size (8), header checksum (1)
 *   blocks   size word (4), data, XXH32 of the data as it stands there (4)
 *   end      0 (4), XXH32 of all plain bytes (4)
 *   footer   somebody else's, inside of a skippable frame: magic, length (4), bytes
 *
 * Every block but the last holds FRAME_BLOCK_BYTES of plain bytes, and none needs
 * another one: so an offset names its block, and any block can be read alone. All
 * integers are little-endian.
 *
 * A block's word, of which the footer keeps one for each, says all that is needed to
 * find and to prove it: its size word in the low half, its checksum in the high one.
 * No word is 0. Bit 31 of a size word: the data are the plain bytes.
 *
 * No descriptor, no thread, and nothing here knows of shared memory: @stored must be
 * bytes that nobody changes meanwhile.
 */
#ifndef STORE_FRAME_H
#define STORE_FRAME_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define FRAME_BLOCK_BYTES (256u << 10)
#define FRAME_HEADER_BYTES 15u
#define FRAME_BLOCK_EXTRA_BYTES 8u /* of a block: size word before, checksum behind */
#define FRAME_END_BYTES 8u
#define FRAME_SKIPPABLE_MAGIC 0x184d2a50u

#define FRAME_LEVEL_DEFAULT 1
#define FRAME_LEVEL_MAX 12

#define FRAME_STORED UINT32_C(0x80000000) /* in a size word: not compressed */

/* frame_stored_bytes - a block's length in the file, with the extra ones. Of any @word. */
static inline uint32_t frame_stored_bytes(uint64_t word)
{
	return ((uint32_t)word & ~FRAME_STORED) + FRAME_BLOCK_EXTRA_BYTES;
}

struct frame_encoder;

/*
 * frame_encoder_new - for one frame; all memory it will ever take.
 * @level: as in lz4(1): 1 and 2 are its fast mode, 3 to FRAME_LEVEL_MAX are HC; 0:
 * the default. Returns 0, -EINVAL (no such level), -ENOMEM.
 */
int frame_encoder_new(int level, struct frame_encoder **ret_encoder);
void frame_encoder_free(struct frame_encoder *encoder);

/*
 * frame_encode - the next block, of 1 to FRAME_BLOCK_BYTES @bytes.
 * @compress: false if there is no time for it. What would not become shorter is not
 * compressed anyhow.
 * Returns how many bytes at *@ret_data the file is to grow by; good until the next call.
 */
size_t frame_encode(struct frame_encoder *encoder, const void *plain, size_t bytes, bool compress,
		    const void **ret_data, uint64_t *ret_word);

/* frame_skip - the next bytes were encoded by somebody who is dead: only count them. */
void frame_skip(struct frame_encoder *encoder, const void *plain, size_t bytes);

/* frame_header - what a frame of @plain_bytes begins with. */
void frame_header(uint64_t plain_bytes, unsigned char ret_header[FRAME_HEADER_BYTES]);

/* frame_end - what it ends with, once all of it was encoded or skipped. */
void frame_end(const struct frame_encoder *encoder, unsigned char ret_end[FRAME_END_BYTES]);

/*
 * frame_walk - from block to block of a file without a footer. @at: where one may
 * begin. Returns its length in the file, with the extra bytes, which may yet be
 * damaged or cut; 0: none begins here (it is the end, or rubbish).
 */
uint32_t frame_walk(const unsigned char at[4]);

/* frame_word - of a block of frame_walk() bytes. */
uint64_t frame_word(const void *stored, size_t stored_bytes);

/*
 * frame_decode - the plain bytes of a whole block, which must be exactly @plain_bytes.
 * @word: the block's, or 0 if it is not known. Then only bit 31 of the size word goes
 * unproved: no checksum of the format covers it but that of all plain bytes.
 * Returns 0, or -EBADMSG (*@ret_plain may then hold anything).
 */
int frame_decode(const void *stored, size_t stored_bytes, uint64_t word, void *ret_plain,
		 size_t plain_bytes);

#endif
