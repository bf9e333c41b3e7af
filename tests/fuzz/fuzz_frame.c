/* SPDX-License-Identifier: MIT */
/*
 * fuzz_frame - no bytes make frame_decode() read or write where it must not, and what
 * it accepts is a block. To libFuzzer (`make check-fuzz`) or to tests/fuzz/alone.c.
 *
 * An input is eight bytes that say what is done, and others it is done with: plain bytes,
 * or a block. Noise would never get past a checksum, so these may be made.
 */
#include <stdlib.h>
#include <string.h>

#include <xxhash.h>

#include "fuzz.h"
#include "store/frame.h"

#define CONTROL_BYTES 8u

/* In the first byte. */
#define PLAIN 1u   /* the rest is to be encoded */
#define MEND 2u    /* it is a block but for its size word and its checksum */
#define WORD 4u    /* the word is known */
#define AS_IS 8u   /* it is not compressed */
#define RESIZE 16u /* at last, another number of plain bytes */

static const int levels[] = { 1, 3, 9, 12 };
static struct frame_encoder *encoders[4];

static void must(bool claim)
{
	if (!claim)
		abort();
}

static uint32_t get_u24(const unsigned char *at)
{
	return at[0] | (uint32_t)at[1] << 8 | (uint32_t)at[2] << 16;
}

static void put_u32(unsigned char *at, uint32_t value)
{
	for (unsigned i = 0; i < 4; i++)
		at[i] = (unsigned char)(value >> 8 * i);
}

/* Returns the block's word, with all in it as it has to be. */
static uint64_t mend(unsigned char *stored, size_t bytes, bool as_is)
{
	uint32_t data_bytes = (uint32_t)(bytes - FRAME_BLOCK_EXTRA_BYTES);
	uint32_t size_word = data_bytes | (as_is ? FRAME_STORED : 0);
	uint32_t checksum = XXH32(stored + 4, data_bytes, 0);

	put_u32(stored, size_word);
	put_u32(stored + 4 + data_bytes, checksum);
	return (uint64_t)checksum << 32 | size_word;
}

/* In memory of just that size, so that ASan sees who goes beyond it. */
static int decode(const unsigned char *stored, size_t bytes, uint64_t word, size_t plain_bytes,
		  const void *expected)
{
	unsigned char *plain = malloc(plain_bytes > 0 ? plain_bytes : 1);
	uint64_t again_word;
	const void *again;
	size_t length;
	int ret;

	must(plain != NULL);
	ret = frame_decode(stored, bytes, word, plain, plain_bytes);
	if (ret == 0) {
		must(frame_walk(stored) == bytes &&
		     (word == 0 || frame_stored_bytes(word) == bytes));
		must(expected == NULL || memcmp(plain, expected, plain_bytes) == 0);
		/* It all came out: so it can go in again. */
		length = frame_encode(encoders[0], plain, plain_bytes, true, &again, &again_word);
		must(frame_decode(again, length, again_word, plain, plain_bytes) == 0);
		must(expected == NULL || memcmp(plain, expected, plain_bytes) == 0);
	}
	free(plain);
	return ret;
}

static unsigned char *copy_of(const void *data, size_t bytes)
{
	unsigned char *copy = malloc(bytes > 0 ? bytes : 1);

	must(copy != NULL);
	memcpy(copy, data, bytes);
	return copy;
}

/* It comes back from its own block, and from nothing that is nearly that one. */
static void try_plain(const unsigned char *control, const unsigned char *plain, size_t bytes)
{
	size_t other_bytes = get_u24(control + 1) >> 4, length;
	unsigned bit = control[4] % 8;
	unsigned char *stored;
	const void *data;
	uint64_t word;

	length = frame_encode(encoders[control[7] % 4], plain, bytes, !(control[0] & AS_IS), &data,
			      &word);
	must(length < bytes + FRAME_BLOCK_EXTRA_BYTES || word & FRAME_STORED);
	stored = copy_of(data, length);
	must(decode(stored, length, control[0] & WORD ? word : 0, bytes, plain) == 0);
	must(decode(stored, length - 1, word, bytes, NULL) != 0);
	must(decode(stored, length, word ^ UINT64_C(1) << control[4] % 64, bytes, NULL) != 0);
	must(bytes == other_bytes || decode(stored, length, word, other_bytes, NULL) != 0);
	/* XXH32 misses no change within four bytes, and the word has the size word. */
	stored[get_u24(control + 5) % length] ^= (unsigned char)(1u << bit);
	must(decode(stored, length, word, bytes, NULL) != 0);
	/* Now damaged in a way that no checksum tells. */
	word = mend(stored, length, control[0] & AS_IS);
	decode(stored, length, control[0] & WORD ? word : 0,
	       control[0] & RESIZE ? other_bytes : bytes, NULL);
	free(stored);
}

static void try_block(const unsigned char *control, const unsigned char *data, size_t bytes)
{
	unsigned char *stored = copy_of(data, bytes);
	uint64_t word = 0;

	if (control[0] & MEND && bytes > FRAME_BLOCK_EXTRA_BYTES)
		word = mend(stored, bytes, control[0] & AS_IS);
	decode(stored, bytes, control[0] & WORD ? word : 0, get_u24(control + 1) >> 4, NULL);
	free(stored);
}

int LLVMFuzzerTestOneInput(const uint8_t *input, size_t input_bytes)
{
	const unsigned char *control = input, *rest = input + CONTROL_BYTES;
	size_t rest_bytes;

	if (input_bytes < CONTROL_BYTES || input_bytes > CONTROL_BYTES + FRAME_BLOCK_BYTES)
		return 0;
	for (unsigned i = 0; i < 4; i++)
		if (encoders[i] == NULL)
			must(frame_encoder_new(levels[i], &encoders[i]) == 0);
	rest_bytes = input_bytes - CONTROL_BYTES;
	if (control[0] & PLAIN && rest_bytes > 0)
		try_plain(control, rest, rest_bytes);
	else
		try_block(control, rest, rest_bytes);
	return 0;
}
