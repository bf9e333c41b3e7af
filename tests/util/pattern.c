/* SPDX-License-Identifier: MIT */
#include "pattern.h"

#include <stdlib.h>
#include <string.h>

#include "spawn.h"

#define PIECE_MAX (256u << 10)

static uint64_t noise_at(uint64_t seed, uint64_t index)
{
	uint64_t x = (seed + 1) * 0x9e3779b97f4a7c15ull + index;

	x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9ull;
	x = (x ^ x >> 27) * 0x94d049bb133111ebull;
	return x ^ x >> 31;
}

/* One of 30 words that only this seed has, and now and then another. */
static uint64_t word_at(uint64_t seed, uint64_t index)
{
	uint64_t x = noise_at(seed, index);

	return seed & PATTERN_TEXT && x >> 60 != 0 ? noise_at(seed, x >> 59) : x;
}

void pattern_fill(uint64_t seed, uint64_t offset, void *ret_data, size_t bytes)
{
	unsigned char *at = ret_data;

	while (bytes > 0) {
		uint64_t word = word_at(seed, offset / 8);
		size_t skip = offset % 8, part = 8 - skip < bytes ? 8 - skip : bytes;

		memcpy(at, (unsigned char *)&word + skip, part);
		at += part;
		offset += part;
		bytes -= part;
	}
}

int pattern_matches(uint64_t seed, uint64_t offset, const void *data, size_t bytes)
{
	const unsigned char *at = data;

	while (bytes > 0) {
		uint64_t word = word_at(seed, offset / 8);
		size_t skip = offset % 8, part = 8 - skip < bytes ? 8 - skip : bytes;

		if (memcmp(at, (unsigned char *)&word + skip, part) != 0)
			return 0;
		at += part;
		offset += part;
		bytes -= part;
	}
	return 1;
}

uint64_t pattern_write(struct scache_writer *writer, uint64_t seed, uint64_t from, uint64_t until,
		       size_t piece, int *ret_error)
{
	unsigned char *data = malloc(piece < PIECE_MAX ? piece : PIECE_MAX);
	uint64_t at = from;

	must(data != NULL);
	if (piece > PIECE_MAX)
		piece = PIECE_MAX;
	while (at < until) {
		size_t bytes = until - at < piece ? (size_t)(until - at) : piece;
		ssize_t done;

		pattern_fill(seed, at, data, bytes);
		done = scache_write(writer, data, bytes, SCACHE_FOREVER);
		if (done < 0) {
			must(ret_error != NULL);
			*ret_error = (int)done;
			break;
		}
		must(done > 0 && (size_t)done <= bytes);
		at += (uint64_t)done;
	}
	free(data);
	return at - from;
}

void pattern_produce(struct scache_writer *writer, uint64_t seed, uint64_t bytes, size_t piece)
{
	int error = 0;

	must_be(pattern_write(writer, seed, 0, bytes, piece, &error), bytes);
	must_be(error, 0);
	must_be(scache_finish(writer), 0);
	must_be(scache_writer_close(writer), 0);
}

int pattern_read(struct scache_reader *reader, uint64_t seed, uint64_t *position, uint64_t until,
		 size_t piece)
{
	unsigned char *data = malloc(piece < PIECE_MAX ? piece : PIECE_MAX);
	int ret = 1;

	must(data != NULL);
	if (piece > PIECE_MAX)
		piece = PIECE_MAX;
	while (*position < until) {
		size_t bytes = until - *position < piece ? (size_t)(until - *position) : piece;
		ssize_t done = scache_read(reader, data, bytes, SCACHE_FOREVER);

		if (done <= 0) {
			ret = (int)done;
			break;
		}
		must((size_t)done <= bytes);
		must(pattern_matches(seed, *position, data, (size_t)done));
		*position += (uint64_t)done;
	}
	free(data);
	return ret;
}

void pattern_read_all(struct scache_reader *reader, uint64_t seed, uint64_t bytes)
{
	uint64_t position = 0;

	must_be(pattern_read(reader, seed, &position, UINT64_MAX, 65536), 0);
	must_be(position, bytes);
}
