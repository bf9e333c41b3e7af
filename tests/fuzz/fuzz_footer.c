/* SPDX-License-Identifier: MIT */
/*
 * fuzz_footer - no bytes make footer_decode() read or write where it must not, and what
 * it accepts is what footer_encode() makes. To libFuzzer (`make check-fuzz`) or to
 * tests/fuzz/alone.c.
 *
 * An input is eight bytes that say what is done, and the end of a file. As the checksum
 * guards everything else, it can be made right, and so can the sizes: then what is left
 * is a footer but for a little. Or one is made of the input, and must come back.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <xxhash.h>

#include "fuzz.h"
#include "store/footer.h"

#define CONTROL_BYTES 8u
#define BLOCKS_MAX 512u
#define SUM_BYTES 8u

/* In the first byte: what is put right. */
#define MAGIC 1u      /* magic, version, size of a block */
#define SIZES 2u      /* the length of the footer, and what is in the file */
#define FRAME 4u      /* the frame's header */
#define SUM 8u        /* the checksum */
#define FILE_FITS 16u /* the file is as long as the tail says; else as the control says */
#define MAKE 32u      /* a footer is made of the input, and then damaged in one bit */
#define SMALL 64u     /* the sizes are reduced to what may be right */

static void must(bool claim)
{
	if (!claim)
		abort();
}

/* ------------------------------------------------------- little-endian, by hand */

static uint64_t get(const unsigned char *at, unsigned bytes)
{
	uint64_t value = 0;

	for (unsigned i = 0; i < bytes; i++)
		value |= (uint64_t)at[i] << 8 * i;
	return value;
}

static void put(unsigned char *at, unsigned bytes, uint64_t value)
{
	for (unsigned i = 0; i < bytes; i++)
		at[i] = (unsigned char)(value >> 8 * i);
}

/* ---------------------------------------------------------------- a file's end */

/* Where what stands in the tail, as footer.c has it. */
enum {
	AT_FORMAT = 0,
	AT_VERSION = 4,
	AT_BYTES = 8,
	AT_STORED = 16,
	AT_BLOCK_BYTES = 48,
	AT_KEY_BYTES = 52,
	AT_NOTE_BYTES = 56,
	AT_FOOTER_BYTES = 64,
	AT_MAGIC = 72,
};

/* The sizes into their ranges, so that mostly something else is what is wrong. */
static void make_small(unsigned char *tail)
{
	put(tail + AT_FORMAT, 4, get(tail + AT_FORMAT, 4) % 2);
	put(tail + AT_BYTES, 8, get(tail + AT_BYTES, 8) % (BLOCKS_MAX * (uint64_t)BLOCK_BYTES));
	put(tail + AT_KEY_BYTES, 4, 1 + get(tail + AT_KEY_BYTES, 4) % 255);
	put(tail + AT_NOTE_BYTES, 4, get(tail + AT_NOTE_BYTES, 4) % (FOOTER_NOTE_BYTES_MAX + 1));
}

/* How long the footer is that the tail describes. */
static uint64_t length_of(const unsigned char *tail)
{
	struct footer footer = { .bytes = get(tail + AT_BYTES, 8),
				 .key_bytes = (uint32_t)get(tail + AT_KEY_BYTES, 4),
				 .note_bytes = (uint32_t)get(tail + AT_NOTE_BYTES, 4) };

	return footer_bytes(&footer);
}

/* Put right what @control wants. Returns what the file's length shall be. */
static uint64_t mend(const unsigned char *control, unsigned char *data, size_t bytes)
{
	unsigned char *tail = data + bytes - FOOTER_TAIL_BYTES;
	uint64_t all, stored;

	if (control[0] & SMALL)
		make_small(tail);
	if (control[0] & MAGIC) {
		put(tail + AT_MAGIC, 8, 0x31626f6c62637363);
		put(tail + AT_VERSION, 4, 1);
		put(tail + AT_BLOCK_BYTES, 4, BLOCK_BYTES);
	}
	all = length_of(tail);
	if (control[0] & SIZES) {
		put(tail + AT_FOOTER_BYTES, 8, all);
		if (get(tail + AT_FORMAT, 4) == BLOB_RAW)
			put(tail + AT_STORED, 8, get(tail + AT_BYTES, 8));
	}
	if (control[0] & FRAME && all >= 8 + FOOTER_TAIL_BYTES && all <= bytes) {
		put(data + bytes - all, 4, 0x184d2a50);
		put(data + bytes - all + 4, 4, all - 8);
	}
	if (control[0] & SUM && all > SUM_BYTES && all <= bytes)
		put(data + bytes - SUM_BYTES, 8,
		    XXH3_64bits(data + bytes - all, (size_t)all - SUM_BYTES));
	stored = get(tail + AT_STORED, 8);
	return control[0] & FILE_FITS ? stored + all : get(control + 1, 6);
}

/* What was accepted is a footer: encoded again it is the same, but for reserved bytes. */
static void must_be_footer(const struct footer *footer, const unsigned char *end, size_t bytes,
			   uint64_t file_bytes)
{
	uint64_t all = footer_bytes(footer), blocks = block_count(footer->bytes);
	unsigned char *again;

	must(all <= bytes && footer->stored_bytes + all == file_bytes);
	must(footer->key_bytes >= 1 && footer->key_bytes <= 255 &&
	     footer->note_bytes <= FOOTER_NOTE_BYTES_MAX && footer->format <= BLOB_LZ4 &&
	     footer->bytes <= BLOB_BYTES_MAX);
	must(footer->format != BLOB_RAW || footer->stored_bytes == footer->bytes);
	must((uintptr_t)footer->words % 8 == 0);
	again = malloc((size_t)all);
	must(again != NULL);
	footer_encode(footer, again);
	must(memcmp(again, end - all, (size_t)(all - FOOTER_TAIL_BYTES)) == 0);
	must(memcmp(again + 8 + 8 * blocks, footer->key, footer->key_bytes) == 0);
	must(memcmp(again + all - FOOTER_TAIL_BYTES, end - FOOTER_TAIL_BYTES, 60) == 0);
	must(memcmp(again + all - 24, end - 24, 16) == 0);
	free(again);
}

/* In memory of just that size, so that ASan sees who goes beyond it. */
static int decode(const unsigned char *data, size_t bytes, uint64_t file_bytes)
{
	unsigned char *copy = malloc(bytes > 0 ? bytes : 1);
	struct footer footer = { .format = 77 };
	size_t told = 0;
	int ret;

	must(copy != NULL);
	if (bytes > 0)
		memcpy(copy, data, bytes);
	ret = footer_decode(copy, bytes, file_bytes, &footer, &told);
	must(ret == 0 || ret == -EBADMSG || ret == -EMSGSIZE);
	if (ret == 0)
		must_be_footer(&footer, data + bytes, bytes, file_bytes);
	else
		must(footer.format == 77);
	must(ret != -EMSGSIZE || (told > bytes && told <= file_bytes));
	free(copy);
	return ret;
}

/* As if all bytes of the input were the last ones of a file. */
static void try_end(const unsigned char *control, const unsigned char *rest, size_t bytes)
{
	unsigned char *data = malloc(bytes > 0 ? bytes : 1);
	uint64_t file_bytes = get(control + 1, 6);

	must(data != NULL);
	if (bytes > 0)
		memcpy(data, rest, bytes);
	if (bytes >= FOOTER_TAIL_BYTES)
		file_bytes = mend(control, data, bytes);
	decode(data, bytes, file_bytes);
	free(data);
}

/* One made of the input comes back; with one bit changed, or cut, it does not. */
static void try_made(const unsigned char *control, const unsigned char *rest, size_t bytes)
{
	static uint64_t words[BLOCKS_MAX];
	static const unsigned char none[256 + FOOTER_NOTE_BYTES_MAX];
	size_t blocks = (size_t)get(control + 1, 2) % (BLOCKS_MAX + 1), all, at;
	struct footer footer = { .format = control[0] & SUM ? BLOB_LZ4 : BLOB_RAW,
				 .bytes = blocks * (uint64_t)BLOCK_BYTES,
				 .key_bytes = 1u + control[3] % 255,
				 .note_bytes = (uint32_t)get(control + 4, 2) %
					       (FOOTER_NOTE_BYTES_MAX + 1),
				 .words = words,
				 .key = none,
				 .note = none };
	unsigned char *data;

	for (size_t i = 0; i < blocks && 8 * i + 8 <= bytes; i++)
		words[i] = get(rest + 8 * i, 8);
	if (bytes >= footer.key_bytes)
		footer.key = rest;
	if (bytes >= footer.note_bytes)
		footer.note = rest + bytes - footer.note_bytes;
	footer.stored_bytes = footer.format == BLOB_RAW ? footer.bytes : get(control + 5, 3);
	footer.created_ns = get(control, 8);
	all = (size_t)footer_bytes(&footer);
	data = malloc(all);
	must(data != NULL);
	footer_encode(&footer, data);
	must(decode(data, all, footer.stored_bytes + all) == 0);
	must(decode(data + 1, all - 1, footer.stored_bytes + all) == -EMSGSIZE);
	must(decode(data, all - 1, footer.stored_bytes + all - 1) == -EBADMSG);
	at = (size_t)get(control + 6, 2) % all;
	data[at] ^= (unsigned char)(1u << control[5] % 8);
	must(decode(data, all, footer.stored_bytes + all) == -EBADMSG);
	free(data);
}

int LLVMFuzzerTestOneInput(const uint8_t *input, size_t input_bytes)
{
	if (input_bytes < CONTROL_BYTES)
		return 0;
	if (input[0] & MAKE)
		try_made(input, input + CONTROL_BYTES, input_bytes - CONTROL_BYTES);
	else
		try_end(input, input + CONTROL_BYTES, input_bytes - CONTROL_BYTES);
	return 0;
}
