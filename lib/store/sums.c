/* SPDX-License-Identifier: MIT */
#include "store/sums.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#ifdef HAVE_XXH3_64BITS_DISPATCH
#include <xxh_x86dispatch.h>
#else
#include <xxhash.h>
#endif

#include "store/footer.h"

uint64_t sums_of(const void *data, size_t bytes)
{
	return XXH3_64bits(data, bytes);
}

static uint64_t *words_of(struct sums *sums)
{
	return sums->words != NULL ? sums->words : sums->few;
}

/* Room for as many blocks as @bytes bytes are, before any of them counts. */
static int make_room(struct sums *sums, uint64_t bytes)
{
	size_t count = (size_t)block_count(bytes);
	uint64_t *words;

	if (count <= (sums->words != NULL ? sums->room : SUMS_INLINE))
		return 0;
	words = realloc(sums->words, 2 * count * sizeof(*words));
	if (words == NULL)
		return -ENOMEM;
	if (sums->words == NULL)
		memcpy(words, sums->few, sizeof(sums->few));
	sums->words = words;
	sums->room = 2 * count;
	return 0;
}

/* The next @bytes of one block; @closes it: the block, or the whole, ends here. */
static int add_piece(struct sums *sums, const void *data, size_t bytes, bool closes)
{
	uint64_t *word = &words_of(sums)[sums->bytes / BLOCK_BYTES];
	bool begins = sums->bytes % BLOCK_BYTES == 0;

	if (begins && closes) {
		*word = XXH3_64bits(data, bytes);
		sums->bytes += bytes;
		return 0;
	}
	if (sums->state == NULL)
		sums->state = XXH3_createState();
	if (sums->state == NULL)
		return -ENOMEM;
	if (begins)
		XXH3_64bits_reset(sums->state);
	XXH3_64bits_update(sums->state, data, bytes);
	if (closes)
		*word = XXH3_64bits_digest(sums->state);
	sums->bytes += bytes;
	return 0;
}

static int add(struct sums *sums, const unsigned char *data, size_t bytes, bool is_last)
{
	size_t part, left;
	int ret = make_room(sums, sums->bytes + bytes);

	while (ret == 0 && bytes > 0) {
		left = BLOCK_BYTES - (size_t)(sums->bytes % BLOCK_BYTES);
		part = bytes < left ? bytes : left;
		ret = add_piece(sums, data, part, part == left || (is_last && part == bytes));
		data += part;
		bytes -= part;
	}
	return ret;
}

int sums_add(struct sums *sums, const void *data, size_t bytes)
{
	return add(sums, data, bytes, false);
}

int sums_end(struct sums *sums, const void *data, size_t bytes, const uint64_t **ret_words)
{
	int ret = add(sums, data, bytes, true);

	if (ret < 0)
		return ret;
	/* Nothing came any more, and a block was begun. */
	if (bytes == 0 && sums->bytes % BLOCK_BYTES != 0)
		words_of(sums)[sums->bytes / BLOCK_BYTES] = XXH3_64bits_digest(sums->state);
	*ret_words = words_of(sums);
	return 0;
}

void sums_free(struct sums *sums)
{
	free(sums->words);
	XXH3_freeState(sums->state);
	*sums = (struct sums){ .bytes = 0 };
}
