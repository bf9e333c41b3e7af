/* SPDX-License-Identifier: MIT */
#include "store/footer.h"

#include <endian.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "store/blob.h"
#include "store/sums.h"

#define SKIPPABLE_MAGIC 0x184d2a50u
#define FRAME_BYTES 8u
#define TAIL_MAGIC 0x31626f6c62637363ull /* "cscblob1" */
#define FORMAT_VERSION 1u
#define GUESS_BYTES 1024u /* most footers are no longer */

/* Where what stands in the tail. */
enum {
	AT_FORMAT = 0, /* u32 each */
	AT_VERSION = 4,
	AT_BYTES = 8, /* u64 each */
	AT_STORED = 16,
	AT_CREATED = 24,
	AT_FINISHED = 32,
	AT_MAX_AGE = 40,
	AT_BLOCK_BYTES = 48, /* u32 each */
	AT_KEY_BYTES = 52,
	AT_NOTE_BYTES = 56,
	AT_RESERVED = 60,
	AT_FOOTER_BYTES = 64, /* u64 each */
	AT_MAGIC = 72,
	AT_SUM = 80, /* of all the footer before it */
};

static void put32(unsigned char *at, uint32_t value)
{
	value = htole32(value);
	memcpy(at, &value, sizeof(value));
}

static void put64(unsigned char *at, uint64_t value)
{
	value = htole64(value);
	memcpy(at, &value, sizeof(value));
}

static uint32_t get32(const unsigned char *at)
{
	uint32_t value;

	memcpy(&value, at, sizeof(value));
	return le32toh(value);
}

static uint64_t get64(const unsigned char *at)
{
	uint64_t value;

	memcpy(&value, at, sizeof(value));
	return le64toh(value);
}

/* No overflow: what a file says has been checked against the limits before. */
uint64_t footer_bytes(const struct footer *footer)
{
	return FRAME_BYTES + 8 * block_count(footer->bytes) + footer->key_bytes +
	       footer->note_bytes + FOOTER_TAIL_BYTES;
}

void footer_encode(const struct footer *footer, unsigned char *ret_data)
{
	uint64_t all = footer_bytes(footer), blocks = block_count(footer->bytes);
	unsigned char *at = ret_data, *tail = ret_data + all - FOOTER_TAIL_BYTES;

	put32(at, SKIPPABLE_MAGIC);
	put32(at + 4, (uint32_t)(all - FRAME_BYTES));
	at += FRAME_BYTES;
	for (uint64_t i = 0; i < blocks; i++, at += 8)
		put64(at, footer->words[i]);
	memcpy(at, footer->key, footer->key_bytes);
	if (footer->note_bytes > 0)
		memcpy(at + footer->key_bytes, footer->note, footer->note_bytes);
	put32(tail + AT_FORMAT, footer->format);
	put32(tail + AT_VERSION, FORMAT_VERSION);
	put64(tail + AT_BYTES, footer->bytes);
	put64(tail + AT_STORED, footer->stored_bytes);
	put64(tail + AT_CREATED, footer->created_ns);
	put64(tail + AT_FINISHED, footer->finished_ns);
	put64(tail + AT_MAX_AGE, footer->max_age_ns);
	put32(tail + AT_BLOCK_BYTES, BLOCK_BYTES);
	put32(tail + AT_KEY_BYTES, footer->key_bytes);
	put32(tail + AT_NOTE_BYTES, footer->note_bytes);
	put32(tail + AT_RESERVED, 0);
	put64(tail + AT_FOOTER_BYTES, all);
	put64(tail + AT_MAGIC, TAIL_MAGIC);
	put64(tail + AT_SUM, sums_of(ret_data, (size_t)(all - 8)));
}

/* What the tail says; false: nonsense. Nothing of it is believed before its checksum. */
static bool parse_tail(const unsigned char *tail, uint64_t file_bytes, struct footer *footer,
		       uint64_t *ret_all)
{
	if (get64(tail + AT_MAGIC) != TAIL_MAGIC || get32(tail + AT_VERSION) != FORMAT_VERSION ||
	    get32(tail + AT_BLOCK_BYTES) != BLOCK_BYTES)
		return false;
	*footer = (struct footer){
		.format = get32(tail + AT_FORMAT),
		.bytes = get64(tail + AT_BYTES),
		.stored_bytes = get64(tail + AT_STORED),
		.created_ns = get64(tail + AT_CREATED),
		.finished_ns = get64(tail + AT_FINISHED),
		.max_age_ns = get64(tail + AT_MAX_AGE),
		.key_bytes = get32(tail + AT_KEY_BYTES),
		.note_bytes = get32(tail + AT_NOTE_BYTES),
	};
	*ret_all = get64(tail + AT_FOOTER_BYTES);
	return footer->bytes <= BLOB_BYTES_MAX && footer->format <= BLOB_LZ4 &&
	       footer->key_bytes >= 1 && footer->key_bytes <= 255 &&
	       footer->note_bytes <= FOOTER_NOTE_BYTES_MAX && footer_bytes(footer) == *ret_all &&
	       *ret_all <= file_bytes && footer->stored_bytes == file_bytes - *ret_all &&
	       (footer->format != BLOB_RAW || footer->stored_bytes == footer->bytes);
}

int footer_decode(void *data, size_t bytes, uint64_t file_bytes, struct footer *ret_footer,
		  size_t *ret_bytes)
{
	const unsigned char *end = (unsigned char *)data + bytes;
	struct footer footer;
	uint64_t all, blocks, *words;
	unsigned char *from;

	if (bytes < FOOTER_TAIL_BYTES ||
	    !parse_tail(end - FOOTER_TAIL_BYTES, file_bytes, &footer, &all))
		return -EBADMSG;
	*ret_bytes = (size_t)all;
	if (all > bytes)
		return -EMSGSIZE;
	from = (unsigned char *)data + (bytes - all);
	if (get64(from + all - 8) != sums_of(from, (size_t)(all - 8)) ||
	    get32(from) != SKIPPABLE_MAGIC || get32(from + 4) != all - FRAME_BYTES)
		return -EBADMSG;
	/* The words to where they are aligned: the beginning of what we were given. */
	blocks = block_count(footer.bytes);
	words = data;
	memmove(words, from + FRAME_BYTES, (size_t)(8 * blocks));
	for (uint64_t i = 0; i < blocks; i++)
		words[i] = le64toh(words[i]);
	footer.words = words;
	footer.key = from + FRAME_BYTES + 8 * blocks;
	footer.note = footer.key + footer.key_bytes;
	*ret_footer = footer;
	return 0;
}

bool footer_is_of(const struct footer *footer, enum blob_format format, uint64_t bytes,
		  struct key_hash hash)
{
	struct key_hash own = hash_key(footer->key, footer->key_bytes);

	return footer->format == format && footer->bytes == bytes && own.high == hash.high &&
	       own.low == hash.low;
}

int footer_read(int fd, uint64_t file_bytes, struct footer **ret_footer)
{
	size_t bytes = (size_t)min_u64(GUESS_BYTES, file_bytes), all = 0;
	struct footer *footer;
	int ret;

	for (;;) {
		footer = malloc(sizeof(*footer) + bytes);
		if (footer == NULL)
			return -ENOMEM;
		ret = blob_read_whole(fd, footer + 1, bytes, file_bytes - bytes);
		if (ret == 0)
			ret = footer_decode(footer + 1, bytes, file_bytes, footer, &all);
		if (ret == 0) {
			*ret_footer = footer;
			return 0;
		}
		free(footer);
		/* Once: then it is as long as it says, or says something else now. */
		if (ret != -EMSGSIZE || bytes == all)
			return ret == -EMSGSIZE ? -EBADMSG : ret;
		bytes = all;
	}
}
