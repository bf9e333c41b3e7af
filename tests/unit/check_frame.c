/* SPDX-License-Identifier: MIT */
/*
 * check_frame - what we write is an LZ4 frame to everybody: to us block by block, to
 * LZ4F_decompress() and to lz4(1) as a whole; and what is damaged is not read.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include <lz4.h>
#include <lz4frame.h>
#include <xxhash.h>

#include "../util/fixture.h"
#include "store/frame.h"

#define PLAIN_MAX (3 * (size_t)FRAME_BLOCK_BYTES + 17)
#define BLOCKS_MAX 4
#define FOOTER_BYTES 100 /* of another's making */
#define FILE_MAX (PLAIN_MAX + FOOTER_BYTES + 100)

/* A file, and what an index of it would say. */
struct file {
	size_t bytes, plain_bytes;
	unsigned blocks;
	size_t offsets[BLOCKS_MAX];
	uint64_t words[BLOCKS_MAX];
	unsigned char data[FILE_MAX];
};

enum kind {
	ZEROS,
	TEXT,
	NOISE,
	KINDS
};

static const size_t sizes[] = {
	0, 1, 100, FRAME_BLOCK_BYTES - 1, FRAME_BLOCK_BYTES, FRAME_BLOCK_BYTES + 1, PLAIN_MAX,
};
static const int levels[] = { 1, 3, 9, 12 };

static unsigned char plain[PLAIN_MAX], again[PLAIN_MAX];
static struct file file, other;

static uint32_t draw(uint64_t *seed)
{
	*seed = *seed * UINT64_C(6364136223846793005) + 1442695040888963407;
	return (uint32_t)(*seed >> 33);
}

static void fill_plain(enum kind kind)
{
	static const char text[] = "The blob is shared while it grows, byte by byte, and no more.";
	uint64_t seed = 1;
	size_t from = 0;

	memset(plain, 0, sizeof(plain));
	for (size_t at = 0; kind != ZEROS && at < PLAIN_MAX; at++) {
		if (at % 16 == 0)
			from = draw(&seed) % (sizeof(text) - 16);
		plain[at] = kind == TEXT ? (unsigned char)text[from + at % 16]
					 : (unsigned char)draw(&seed);
	}
}

static struct frame_encoder *encoder_new(int level)
{
	struct frame_encoder *encoder = NULL;

	ck_assert_int_eq(frame_encoder_new(level, &encoder), 0);
	return encoder;
}

static void append(struct file *to, const void *data, size_t bytes)
{
	ck_assert_uint_le(to->bytes + bytes, FILE_MAX);
	memcpy(to->data + to->bytes, data, bytes);
	to->bytes += bytes;
}

static void begin(struct file *to, size_t plain_bytes)
{
	memset(to, 0, sizeof(*to));
	to->plain_bytes = plain_bytes;
	frame_header(plain_bytes, to->data);
	to->bytes = FRAME_HEADER_BYTES;
}

static size_t piece_bytes(const struct file *of, unsigned block)
{
	return min_u64(of->plain_bytes - (size_t)block * FRAME_BLOCK_BYTES, FRAME_BLOCK_BYTES);
}

static void add_block(struct file *to, struct frame_encoder *encoder, bool compress)
{
	size_t bytes = piece_bytes(to, to->blocks);
	const void *data;
	size_t grows = frame_encode(encoder, plain + (size_t)to->blocks * FRAME_BLOCK_BYTES, bytes,
				    compress, &data, &to->words[to->blocks]);

	ck_assert_uint_eq(grows, frame_stored_bytes(to->words[to->blocks]));
	ck_assert_uint_le(grows, bytes + FRAME_BLOCK_EXTRA_BYTES);
	to->offsets[to->blocks++] = to->bytes;
	append(to, data, grows);
}

/* The end, and a footer behind it. */
static void finish(struct file *to, struct frame_encoder *encoder)
{
	static const unsigned char footer[8 + FOOTER_BYTES] = { 0x50, 0x2a, 0x4d, 0x18,
								FOOTER_BYTES };

	frame_end(encoder, to->data + to->bytes);
	to->bytes += FRAME_END_BYTES;
	frame_encoder_free(encoder);
	append(to, footer, sizeof(footer));
}

static void make_file(struct file *to, int level, size_t plain_bytes, bool compress)
{
	struct frame_encoder *encoder = encoder_new(level);

	begin(to, plain_bytes);
	while ((size_t)to->blocks * FRAME_BLOCK_BYTES < plain_bytes)
		add_block(to, encoder, compress);
	finish(to, encoder);
}

/* A copy of just these bytes, so that a reader of one more is caught by ASan. */
static int decode_copy(const unsigned char *stored, size_t stored_bytes, uint64_t word,
		       size_t plain_bytes)
{
	unsigned char *copy = malloc(stored_bytes + (stored_bytes == 0));
	unsigned char *room = malloc(plain_bytes + (plain_bytes == 0));
	int ret;

	ck_assert(copy != NULL && room != NULL);
	memcpy(copy, stored, stored_bytes);
	ret = frame_decode(copy, stored_bytes, word, room, plain_bytes);
	if (ret == 0)
		memcpy(again, room, plain_bytes);
	free(copy);
	free(room);
	return ret;
}

static void refused(const unsigned char *stored, size_t stored_bytes, uint64_t word,
		    size_t plain_bytes)
{
	ck_assert_int_eq(decode_copy(stored, stored_bytes, word, plain_bytes), -EBADMSG);
}

/* The last block first: none needs another. */
static void decode_backwards(const struct file *of)
{
	for (unsigned block = of->blocks; block-- > 0;) {
		size_t bytes = piece_bytes(of, block);
		uint64_t word = of->words[block];
		const unsigned char *stored = of->data + of->offsets[block];

		ck_assert_int_eq(decode_copy(stored, frame_stored_bytes(word), word, bytes), 0);
		ck_assert_mem_eq(again, plain + (size_t)block * FRAME_BLOCK_BYTES, bytes);
	}
}

/* All frames of it, by the library of lz4(1). */
static void decode_as_lz4f(const struct file *of)
{
	LZ4F_dctx *context;
	size_t from = 0, to = 0, hint = 1;

	ck_assert(!LZ4F_isError(LZ4F_createDecompressionContext(&context, LZ4F_VERSION)));
	memset(again, 0xff, sizeof(again));
	while (from < of->bytes) {
		size_t took = of->bytes - from, gave = PLAIN_MAX - to;

		hint = LZ4F_decompress(context, again + to, &gave, of->data + from, &took, NULL);
		ck_assert_msg(!LZ4F_isError(hint), "%s", LZ4F_getErrorName(hint));
		from += took;
		to += gave;
	}
	ck_assert_uint_eq(hint, 0);
	ck_assert_uint_eq(to, of->plain_bytes);
	ck_assert_mem_eq(again, plain, to);
	LZ4F_freeDecompressionContext(context);
}

/* Walks and decodes as one who has no footer. Returns how many whole blocks there are. */
static unsigned walk(const unsigned char *data, size_t bytes, const struct file *of)
{
	size_t at = FRAME_HEADER_BYTES;
	unsigned blocks = 0;

	while (bytes >= at + 4 && blocks < of->blocks) {
		uint32_t length = frame_walk(data + at);

		if (length == 0 || length > bytes - at)
			break;
		ck_assert_uint_eq(at, of->offsets[blocks]);
		ck_assert_int_eq(decode_copy(data + at, length, 0, piece_bytes(of, blocks)), 0);
		ck_assert_mem_eq(again, plain + (size_t)blocks * FRAME_BLOCK_BYTES,
				 piece_bytes(of, blocks));
		at += length;
		blocks++;
	}
	return blocks;
}

static void with_each_file(void (*body)(void))
{
	for (enum kind kind = ZEROS; kind < KINDS; kind++) {
		fill_plain(kind);
		for (size_t i = 0; i < ARRAY_COUNT(sizes); i++) {
			for (size_t j = 0; j < ARRAY_COUNT(levels); j++) {
				make_file(&file, levels[j], sizes[i], true);
				body();
			}
			make_file(&file, 1, sizes[i], false);
			body();
		}
	}
}

static void each_way_round(void)
{
	decode_backwards(&file);
	ck_assert_uint_eq(walk(file.data, file.bytes, &file), file.blocks);
	decode_as_lz4f(&file);
}

START_TEST(what_was_encoded_is_decoded_by_us_and_by_lz4f)
{
	with_each_file(each_way_round);
}
END_TEST

static void write_out(const char *path, const void *data, size_t bytes)
{
	FILE *out = fopen(path, "w");

	ck_assert_ptr_nonnull(out);
	ck_assert(fwrite(data, 1, bytes, out) == bytes && fclose(out) == 0);
}

static void run_lz4(void)
{
	write_out("blob.lz4", file.data, file.bytes);
	write_out("plain", plain, file.plain_bytes);
	ck_assert_int_eq(system("lz4 -t -q blob.lz4 && lz4 -dc blob.lz4 >out && cmp out plain"), 0);
}

START_TEST(the_lz4_command_accepts_the_file_and_its_footer)
{
	char place[300];

	snprintf(place, sizeof(place), "%s/frame.XXXXXX", getenv("TMPDIR") ?: "/tmp");
	ck_assert(mkdtemp(place) != NULL && chdir(place) == 0);
	with_each_file(run_lz4);
	/* It does look: a damaged one it refuses. */
	file.data[file.offsets[0] + 10] ^= 1;
	write_out("blob.lz4", file.data, file.bytes);
	ck_assert_int_ne(system("lz4 -t -q blob.lz4 2>/dev/null"), 0);
	fixture_remove_tree(place);
}
END_TEST

START_TEST(the_header_is_that_of_liblz4)
{
	static const uint64_t some[] = { 1, 255, 1u << 18, UINT64_C(0x1234567890abcdef) };
	unsigned char ours[FRAME_HEADER_BYTES], theirs[LZ4F_HEADER_SIZE_MAX];
	LZ4F_preferences_t wish = { 0 };
	LZ4F_cctx *context;

	wish.frameInfo.blockSizeID = LZ4F_max256KB;
	wish.frameInfo.blockMode = LZ4F_blockIndependent;
	wish.frameInfo.blockChecksumFlag = LZ4F_blockChecksumEnabled;
	wish.frameInfo.contentChecksumFlag = LZ4F_contentChecksumEnabled;
	for (size_t i = 0; i < ARRAY_COUNT(some); i++) {
		wish.frameInfo.contentSize = some[i];
		ck_assert(!LZ4F_isError(LZ4F_createCompressionContext(&context, LZ4F_VERSION)));
		ck_assert_uint_eq(LZ4F_compressBegin(context, theirs, sizeof(theirs), &wish),
				  FRAME_HEADER_BYTES);
		frame_header(some[i], ours);
		ck_assert_mem_eq(ours, theirs, FRAME_HEADER_BYTES);
		LZ4F_freeCompressionContext(context);
	}
}
END_TEST

START_TEST(what_is_compressed_is_smaller_and_noise_is_stored)
{
	fill_plain(TEXT);
	make_file(&file, 1, PLAIN_MAX, true);
	ck_assert_uint_lt(file.bytes, PLAIN_MAX / 2);
	ck_assert_uint_eq(file.words[0] & FRAME_STORED, 0);
	make_file(&other, 9, PLAIN_MAX, true);
	ck_assert_uint_lt(other.bytes, file.bytes);
	/* The default is the first level. */
	make_file(&other, 0, PLAIN_MAX, true);
	ck_assert_uint_eq(other.bytes, file.bytes);
	ck_assert_mem_eq(other.data, file.data, file.bytes);
	/* As it is if we are told so, or if nothing is gained. */
	make_file(&file, 1, PLAIN_MAX, false);
	for (unsigned block = 0; block < file.blocks; block++)
		ck_assert_uint_ne(file.words[block] & FRAME_STORED, 0);
	ck_assert_mem_eq(file.data + file.offsets[1] + 4, plain + FRAME_BLOCK_BYTES, 1000);
	fill_plain(NOISE);
	make_file(&other, 12, PLAIN_MAX, true);
	ck_assert_uint_eq(other.bytes, file.bytes);
}
END_TEST

START_TEST(there_are_no_other_levels)
{
	struct frame_encoder *none = NULL;

	ck_assert_int_eq(frame_encoder_new(-1, &none), -EINVAL);
	ck_assert_int_eq(frame_encoder_new(FRAME_LEVEL_MAX + 1, &none), -EINVAL);
	ck_assert_ptr_null(none);
	frame_encoder_free(none);
	frame_encoder_free(encoder_new(2));
}
END_TEST

START_TEST(who_skips_ends_with_the_same_bytes_as_who_encoded)
{
	fill_plain(TEXT);
	make_file(&file, 3, PLAIN_MAX, true);
	for (unsigned skipped = 0; skipped <= file.blocks; skipped++) {
		struct frame_encoder *dead = encoder_new(3), *encoder = encoder_new(3);

		begin(&other, PLAIN_MAX);
		while (other.blocks < skipped)
			add_block(&other, dead, true);
		frame_encoder_free(dead);
		/* In other pieces than those which were encoded. */
		for (size_t at = 0, end = min_u64((size_t)skipped * FRAME_BLOCK_BYTES, PLAIN_MAX);
		     at < end; at += 1000)
			frame_skip(encoder, plain + at, min_u64(1000, end - at));
		while (other.blocks < file.blocks)
			add_block(&other, encoder, true);
		finish(&other, encoder);
		ck_assert_uint_eq(other.bytes, file.bytes);
		ck_assert_mem_eq(other.data, file.data, file.bytes);
	}
}
END_TEST

/* A file of one small block: 400 bytes of text, compressed or not. */
static unsigned char *make_small(bool compress, size_t *ret_bytes)
{
	fill_plain(TEXT);
	make_file(&file, 1, 400, compress);
	ck_assert_int_eq((file.words[0] & FRAME_STORED) == 0, compress);
	*ret_bytes = frame_stored_bytes(file.words[0]);
	return file.data + file.offsets[0];
}

START_TEST(each_flipped_bit_is_noticed)
{
	for (unsigned compress = 0; compress < 2; compress++) {
		size_t bytes;
		unsigned char *block = make_small(compress, &bytes);

		for (size_t bit = 0; bit < bytes * 8; bit++) {
			block[bit / 8] ^= (unsigned char)(1u << bit % 8);
			refused(block, bytes, file.words[0], 400);
			/* All but one of them without its word, too. */
			if (bit != 31)
				refused(block, bytes, 0, 400);
			block[bit / 8] ^= (unsigned char)(1u << bit % 8);
		}
		for (unsigned bit = 0; bit < 64; bit++)
			refused(block, bytes, file.words[0] ^ UINT64_C(1) << bit, 400);
		ck_assert_int_eq(decode_copy(block, bytes, file.words[0], 400), 0);
	}
}
END_TEST

START_TEST(a_block_that_is_cut_or_of_another_size_is_noticed)
{
	static const size_t wrong[] = { 0, 1, 399, 401, 1000, FRAME_BLOCK_BYTES, PLAIN_MAX };

	for (unsigned compress = 0; compress < 2; compress++) {
		size_t bytes;
		unsigned char *block = make_small(compress, &bytes);

		for (size_t cut = 0; cut < bytes; cut++) {
			refused(block, cut, file.words[0], 400);
			refused(block, cut, 0, 400);
		}
		refused(block, bytes + 1, file.words[0], 400);
		refused(block, bytes + 1, 0, 400);
		for (size_t i = 0; i < ARRAY_COUNT(wrong); i++)
			refused(block, bytes, file.words[0], wrong[i]);
	}
}
END_TEST

START_TEST(a_block_of_another_place_is_noticed_by_its_word)
{
	fill_plain(TEXT);
	make_file(&file, 1, PLAIN_MAX, true);
	refused(file.data + file.offsets[1], frame_stored_bytes(file.words[1]), file.words[0],
		FRAME_BLOCK_BYTES);
}
END_TEST

/* Around @bytes of data that are in @block already. */
static void finish_block(unsigned char *block, uint32_t bytes)
{
	uint32_t checksum = XXH32(block + 4, bytes, 0);

	for (unsigned i = 0; i < 4; i++) {
		block[i] = (unsigned char)(bytes >> 8 * i);
		block[4 + bytes + i] = (unsigned char)(checksum >> 8 * i);
	}
}

/* What others may write and we never do: right in itself, so nothing else refuses it. */
START_TEST(a_block_of_nothing_or_of_too_much_is_no_block)
{
	static unsigned char block[4096];
	const size_t much = FRAME_BLOCK_BYTES + 1;
	int bytes;

	/* One token that stands for no byte. */
	finish_block(block, 1);
	refused(block, 9, 0, 0);
	fill_plain(ZEROS);
	bytes = LZ4_compress_default((const char *)plain, (char *)block + 4, (int)much,
				     sizeof(block) - 8);
	finish_block(block, (uint32_t)bytes);
	refused(block, (size_t)bytes + 8, 0, much);
}
END_TEST

START_TEST(a_file_that_is_cut_has_its_whole_blocks)
{
	fill_plain(TEXT);
	make_file(&file, 1, PLAIN_MAX, true);
	for (size_t cut = 0; cut <= file.bytes; cut += cut < 100 ? 1 : 997) {
		unsigned whole = 0;

		while (whole < file.blocks &&
		       file.offsets[whole] + frame_stored_bytes(file.words[whole]) <= cut)
			whole++;
		ck_assert_uint_eq(walk(file.data, cut, &file), whole);
	}
}
END_TEST

START_TEST(only_blocks_are_walked_to)
{
	static const struct {
		unsigned char at[4];
		uint32_t length;
	} some[] = {
		{ { 0, 0, 0, 0 }, 0 },    /* the end */
		{ { 0, 0, 0, 0x80 }, 0 }, /* nothing, as it is */
		{ { 1, 0, 0, 0 }, 9 },
		{ { 1, 0, 0, 0x80 }, 9 },
		{ { 0, 0, 4, 0x80 }, (256 << 10) + 8 },
		{ { 1, 0, 4, 0x80 }, 0 },
		{ { 1, 0, 4, 0 }, 0 },
		{ { 0x50, 0x2a, 0x4d, 0x18 }, 0 }, /* a skippable frame */
		{ { 0xff, 0xff, 0xff, 0xff }, 0 },
	};

	for (size_t i = 0; i < ARRAY_COUNT(some); i++)
		ck_assert_uint_eq(frame_walk(some[i].at), some[i].length);
}
END_TEST

int main(void)
{
	const TTest *const tests[] = {
		what_was_encoded_is_decoded_by_us_and_by_lz4f,
		the_header_is_that_of_liblz4,
		what_is_compressed_is_smaller_and_noise_is_stored,
		there_are_no_other_levels,
		who_skips_ends_with_the_same_bytes_as_who_encoded,
		each_flipped_bit_is_noticed,
		a_block_that_is_cut_or_of_another_size_is_noticed,
		a_block_of_another_place_is_noticed_by_its_word,
		a_block_of_nothing_or_of_too_much_is_no_block,
		a_file_that_is_cut_has_its_whole_blocks,
		only_blocks_are_walked_to,
		the_lz4_command_accepts_the_file_and_its_footer,
	};
	bool have_lz4 = system("lz4 --version >/dev/null 2>&1") == 0;
	int status = fixture_main("frame", NULL, NULL, tests, ARRAY_COUNT(tests) - !have_lz4);

	if (have_lz4 || status != EXIT_SUCCESS)
		return status;
	puts("the command lz4 is not installed");
	return 77;
}
