/* SPDX-License-Identifier: MIT */
/*
 * check_footer - what is written behind a blob comes back as it was, or not at all.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include <xxhash.h>

#include "../util/fixture.h"
#include "../util/spawn.h"
#include "store/footer.h"

#define BLOCKS_MAX 5000u
#define NOTE_BYTES 300u
#define BEFORE_MAX 24u /* bytes of payload that are read along */
#define WORD_SEED 0x9e3779b97f4a7c15ull

/* Distances of the tail's fields from the end of the file. */
#define FORMAT_AT 88u
#define VERSION_AT 84u
#define BYTES_AT 80u
#define STORED_AT 72u
#define BLOCK_BYTES_AT 40u
#define KEY_BYTES_AT 36u
#define NOTE_BYTES_AT 32u
#define FOOTER_BYTES_AT 24u
#define MAGIC_AT 16u
#define SUM_AT 8u

/* All reads of the library come here; some are to be told to be content with less. */
static size_t read_most = SIZE_MAX;

ssize_t __real_pread(int fd, void *ret_data, size_t bytes, off_t offset);
ssize_t __wrap_pread(int fd, void *ret_data, size_t bytes, off_t offset);

ssize_t __wrap_pread(int fd, void *ret_data, size_t bytes, off_t offset)
{
	return __real_pread(fd, ret_data, bytes < read_most ? bytes : read_most, offset);
}

static uint64_t words[BLOCKS_MAX];
static unsigned char key[256], note[FOOTER_NOTE_BYTES_MAX + 1];

static void setup(void)
{
	for (size_t i = 0; i < BLOCKS_MAX; i++)
		words[i] = (i + 1) * WORD_SEED;
	for (size_t i = 0; i < sizeof(key); i++)
		key[i] = (unsigned char)(i * 7 + 1);
	for (size_t i = 0; i < sizeof(note); i++)
		note[i] = (unsigned char)(i * 11 + 3);
}

static struct footer draft(uint64_t bytes, uint32_t key_bytes, uint32_t note_bytes)
{
	return (struct footer){
		.format = BLOB_RAW,
		.key_bytes = key_bytes,
		.note_bytes = note_bytes,
		.bytes = bytes,
		.stored_bytes = bytes,
		.created_ns = 0x0102030405060708,
		.finished_ns = 0x1112131415161718,
		.max_age_ns = UINT64_MAX,
		.words = words,
		.key = key,
		.note = note_bytes > 0 ? note : NULL,
	};
}

/* Encoded, in memory of just that size. */
static unsigned char *encode(const struct footer *footer)
{
	unsigned char *data = malloc((size_t)footer_bytes(footer));

	must(data != NULL);
	footer_encode(footer, data);
	return data;
}

static void must_be_same(const struct footer *is, const struct footer *wanted)
{
	must_be(is->format, wanted->format);
	must_be(is->bytes, wanted->bytes);
	must_be(is->stored_bytes, wanted->stored_bytes);
	must_be(is->created_ns, wanted->created_ns);
	must_be(is->finished_ns, wanted->finished_ns);
	must_be(is->max_age_ns, wanted->max_age_ns);
	must_be(is->key_bytes, wanted->key_bytes);
	must_be(is->note_bytes, wanted->note_bytes);
	must((uintptr_t)is->words % 8 == 0);
	must(memcmp(is->words, words, 8 * (size_t)block_count(wanted->bytes)) == 0);
	must(memcmp(is->key, key, wanted->key_bytes) == 0);
	must(memcmp(is->note, note, wanted->note_bytes) == 0);
}

/* The last @bytes of a file, in memory of just that size, which begins where malloc() says. */
static int decode(const unsigned char *data, size_t bytes, uint64_t file_bytes,
		  const struct footer *wanted, size_t *ret_bytes)
{
	unsigned char *copy = malloc(bytes > 0 ? bytes : 1);
	struct footer footer = { .format = 77 };
	int ret;

	must(copy != NULL);
	memcpy(copy, data, bytes);
	ret = footer_decode(copy, bytes, file_bytes, &footer, ret_bytes);
	if (ret == 0)
		must_be_same(&footer, wanted);
	else
		must_be(footer.format, 77); /* left alone */
	free(copy);
	return ret;
}

/* There and back, with 0 and more bytes of the payload before it. */
static void round_trip(const struct footer *footer)
{
	size_t all = (size_t)footer_bytes(footer), told;
	unsigned char *data = malloc(BEFORE_MAX + all);
	uint64_t file_bytes = footer->stored_bytes + all;

	must(data != NULL);
	memset(data, 0xaa, BEFORE_MAX);
	footer_encode(footer, data + BEFORE_MAX);
	for (size_t before = 0; before <= BEFORE_MAX && before <= footer->stored_bytes; before++) {
		told = 0;
		must_be(decode(data + BEFORE_MAX - before, before + all, file_bytes, footer, &told),
			0);
		must_be(told, all);
	}
	free(data);
}

START_TEST(a_footer_comes_back_as_it_was)
{
	static const uint64_t sizes[] = { 0,
					  1,
					  BLOCK_BYTES - 1,
					  BLOCK_BYTES,
					  BLOCK_BYTES + 1,
					  2ull * BLOCK_BYTES,
					  37ull * BLOCK_BYTES + 5,
					  (uint64_t)BLOCKS_MAX * BLOCK_BYTES };
	static const uint32_t keys[] = { 1, 2, 7, 8, 9, 254, 255 };
	static const uint32_t notes[] = { 0, 1, NOTE_BYTES, FOOTER_NOTE_BYTES_MAX };

	for (size_t i = 0; i < ARRAY_COUNT(sizes); i++)
		for (size_t j = 0; j < ARRAY_COUNT(keys); j++)
			for (size_t k = 0; k < ARRAY_COUNT(notes); k++) {
				struct footer footer = draft(sizes[i], keys[j], notes[k]);

				round_trip(&footer);
				footer.format = BLOB_LZ4;
				footer.stored_bytes = sizes[i] / 3 + 15;
				round_trip(&footer);
			}
}
END_TEST

START_TEST(blocks_are_counted_to_the_last_byte)
{
	ck_assert_uint_eq(block_count(0), 0);
	ck_assert_uint_eq(block_count(1), 1);
	ck_assert_uint_eq(block_count(BLOCK_BYTES), 1);
	ck_assert_uint_eq(block_count(BLOCK_BYTES + 1), 2);
	ck_assert_uint_eq(block_count(BLOB_BYTES_MAX), 1u << 28);
}
END_TEST

/* What other versions have written must be found by this one: these bytes never change. */
START_TEST(what_stands_on_the_disk_is_fixed)
{
	static const unsigned char wanted[] = {
		0x50, 0x2a, 0x4d, 0x18, 0x65, 0,    0,	  0,	/* frame: 101 bytes follow */
		0x15, 0x7c, 0x4a, 0x7f, 0xb9, 0x79, 0x37, 0x9e, /* the one word */
		1,    8,    15,					/* key */
		3,    14,					/* note */
		0,    0,    0,	  0,	1,    0,    0,	  0,	/* format, version */
		5,    0,    0,	  0,	0,    0,    0,	  0,	/* bytes */
		5,    0,    0,	  0,	0,    0,    0,	  0,	/* in the file */
		8,    7,    6,	  5,	4,    3,    2,	  1,	/* created */
		0x18, 0x17, 0x16, 0x15, 0x14, 0x13, 0x12, 0x11, /* finished */
		0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, /* age */
		0,    0,    4,	  0,	3,    0,    0,	  0,	/* block, key */
		2,    0,    0,	  0,	0,    0,    0,	  0,	/* note, reserved */
		109,  0,    0,	  0,	0,    0,    0,	  0,	/* footer */
		'c',  's',  'c',  'b',	'l',  'o',  'b',  '1',
	};
	struct footer footer = draft(5, 3, 2);
	unsigned char *data = encode(&footer);
	XXH64_canonical_t sum; /* big-endian */

	ck_assert_uint_eq(footer_bytes(&footer), sizeof(wanted) + 8);
	ck_assert_mem_eq(data, wanted, sizeof(wanted));
	XXH64_canonicalFromHash(&sum, XXH3_64bits(wanted, sizeof(wanted)));
	for (size_t i = 0; i < 8; i++)
		ck_assert_uint_eq(data[sizeof(wanted) + i], sum.digest[7 - i]);
	free(data);
}
END_TEST

START_TEST(a_part_of_a_footer_tells_how_long_it_is)
{
	struct footer footer = draft(3ull * BLOCK_BYTES, 11, 5);
	size_t all = (size_t)footer_bytes(&footer), told;
	unsigned char *data = encode(&footer);

	for (size_t part = 0; part < all; part++) {
		told = 0;
		must_be(decode(data + all - part, part, footer.bytes + all, &footer, &told),
			part < FOOTER_TAIL_BYTES ? -EBADMSG : -EMSGSIZE);
		must_be(told, part < FOOTER_TAIL_BYTES ? 0 : all);
	}
	free(data);
}
END_TEST

START_TEST(a_footer_without_its_end_is_none)
{
	struct footer footer = draft(3ull * BLOCK_BYTES, 11, 5);
	size_t all = (size_t)footer_bytes(&footer), told;
	unsigned char *data = encode(&footer);

	for (size_t part = 0; part < all; part++) {
		must_be(decode(data, part, footer.bytes + all, &footer, &told), -EBADMSG);
		must_be(decode(data, part, footer.bytes + part, &footer, &told), -EBADMSG);
	}
	free(data);
}
END_TEST

START_TEST(no_changed_bit_goes_unseen)
{
	struct footer footer = draft(3ull * BLOCK_BYTES, 11, 5);
	size_t all = (size_t)footer_bytes(&footer), told;
	unsigned char *data = encode(&footer);

	for (size_t bit = 0; bit < 8 * all; bit++) {
		data[bit / 8] ^= (unsigned char)(1u << bit % 8);
		must_be(decode(data, all, footer.bytes + all, &footer, &told), -EBADMSG);
		data[bit / 8] ^= (unsigned char)(1u << bit % 8);
	}
	must_be(decode(data, all, footer.bytes + all, &footer, &told), 0);
	free(data);
}
END_TEST

START_TEST(a_footer_of_a_file_of_another_size_is_none)
{
	struct footer raw = draft(2ull * BLOCK_BYTES, 4, 0), lz4 = raw;
	size_t all = (size_t)footer_bytes(&raw), told;
	unsigned char *data;

	lz4.format = BLOB_LZ4;
	lz4.stored_bytes = 100;
	for (int i = 0; i < 2; i++) {
		const struct footer *footer = i == 0 ? &raw : &lz4;
		uint64_t right = footer->stored_bytes + all;
		const uint64_t wrong[] = { 0,	      1,	    all - 1,   all,
					   right - 1, right + 1,    right + 8, right + BLOCK_BYTES,
					   right * 2, 1ull << 63, UINT64_MAX };

		data = encode(footer);
		for (size_t j = 0; j < ARRAY_COUNT(wrong); j++)
			must_be(decode(data, all, wrong[j], footer, &told), -EBADMSG);
		must_be(decode(data, all, right, footer, &told), 0);
		free(data);
	}
}
END_TEST

/* As if it had been written so: the checksum is right. */
static int decode_with(struct footer footer, size_t at, unsigned bytes, uint64_t value)
{
	size_t all = (size_t)footer_bytes(&footer), told;
	unsigned char *data = encode(&footer);
	uint64_t sum;
	int ret;

	for (unsigned i = 0; i < bytes; i++)
		data[all - at + i] = (unsigned char)(value >> 8 * i);
	sum = XXH3_64bits(data, all - SUM_AT);
	for (unsigned i = 0; i < 8; i++)
		data[all - SUM_AT + i] = (unsigned char)(sum >> 8 * i);
	/* What is as it should be is no nonsense: see the caller. */
	ret = decode(data, all, footer.stored_bytes + all, &footer, &told);
	free(data);
	return ret;
}

START_TEST(nonsense_with_a_right_checksum_is_no_footer)
{
	const struct footer footer = draft(2ull * BLOCK_BYTES + 9, 200, 100);
	const uint64_t all = footer_bytes(&footer);
	const struct {
		size_t at;
		unsigned bytes;
		uint64_t right, wrong[6];
	} fields[] = {
		{ FORMAT_AT, 4, 0, { 2, 3, 256, 1u << 31, UINT32_MAX, 2 } },
		{ VERSION_AT, 4, 1, { 0, 2, 257, 1u << 31, UINT32_MAX, 0 } },
		{ BYTES_AT, 8, footer.bytes,
		  { 0, footer.bytes - 1, footer.bytes + 1, footer.bytes + BLOCK_BYTES,
		    BLOB_BYTES_MAX + 1, UINT64_MAX } },
		{ STORED_AT, 8, footer.bytes,
		  { 0, footer.bytes - 1, footer.bytes + 1, footer.bytes + all, 1ull << 63,
		    UINT64_MAX } },
		{ BLOCK_BYTES_AT, 4, BLOCK_BYTES,
		  { 0, 1, BLOCK_BYTES - 1, BLOCK_BYTES + 1, 2 * BLOCK_BYTES, UINT32_MAX } },
		{ KEY_BYTES_AT, 4, 200, { 0, 199, 201, 255, 256, UINT32_MAX } },
		{ NOTE_BYTES_AT, 4, 100, { 0, 99, 101, 4096, 4097, UINT32_MAX } },
		{ FOOTER_BYTES_AT, 8, all,
		  { 0, FOOTER_TAIL_BYTES, all - 1, all + 1, all + BLOCK_BYTES, UINT64_MAX } },
		{ MAGIC_AT, 8, 0x31626f6c62637363, { 0, 1, 0x316d616572747363, 2, 3, 4 } },
		{ (size_t)all, 4, 0x184d2a50, { 0, 0x184d2a51, 0x184d2204, 1, 2, 3 } },
		{ (size_t)all - 4, 4, all - 8, { 0, all - 9, all - 7, all, 1, UINT32_MAX } },
	};

	for (size_t i = 0; i < ARRAY_COUNT(fields); i++) {
		must_be(decode_with(footer, fields[i].at, fields[i].bytes, fields[i].right), 0);
		for (size_t j = 0; j < ARRAY_COUNT(fields[i].wrong); j++)
			must_be(decode_with(footer, fields[i].at, fields[i].bytes,
					    fields[i].wrong[j]), -EBADMSG);
	}
}
END_TEST

/* Whatever else is right: a limit is one. */
START_TEST(what_is_beyond_a_limit_is_no_footer)
{
	static unsigned char long_key[256];
	struct footer footer = draft(10, 0, 0);

	ck_assert_int_eq(decode_with(footer, MAGIC_AT, 0, 0), -EBADMSG);
	footer.key = long_key;
	footer.key_bytes = 256;
	ck_assert_int_eq(decode_with(footer, MAGIC_AT, 0, 0), -EBADMSG);
	footer = draft(10, 1, FOOTER_NOTE_BYTES_MAX + 1);
	ck_assert_int_eq(decode_with(footer, MAGIC_AT, 0, 0), -EBADMSG);
	/* Of the largest blob there is the tail is believed, of a larger one it is not. */
	footer = draft(10, 1, 0);
	footer.format = BLOB_LZ4;
	for (uint64_t more = 0; more < 2; more++) {
		unsigned char *data = encode(&footer), *tail = data + footer_bytes(&footer);
		struct footer large = footer;
		uint64_t all;
		size_t told;

		large.bytes = BLOB_BYTES_MAX + more;
		all = footer_bytes(&large);
		for (unsigned i = 0; i < 8; i++) {
			tail[-(int)BYTES_AT + (int)i] = (unsigned char)(large.bytes >> 8 * i);
			tail[-(int)FOOTER_BYTES_AT + (int)i] = (unsigned char)(all >> 8 * i);
		}
		must_be(decode(tail - FOOTER_TAIL_BYTES, FOOTER_TAIL_BYTES, 10 + all, &large,
			       &told), more ? -EBADMSG : -EMSGSIZE);
		free(data);
	}
}
END_TEST

/* What it says of the file would come out right modulo 2^64. */
START_TEST(no_footer_is_longer_than_its_file)
{
	struct footer footer = draft(9ull * BLOCK_BYTES, 1, 0);
	size_t all = (size_t)footer_bytes(&footer), told;
	unsigned char *data;

	footer.format = BLOB_LZ4;
	for (uint64_t file_bytes = FOOTER_TAIL_BYTES; file_bytes < all; file_bytes++) {
		footer.stored_bytes = file_bytes - all;
		data = encode(&footer);
		must_be(decode(data + all - FOOTER_TAIL_BYTES, FOOTER_TAIL_BYTES, file_bytes,
			       &footer, &told), -EBADMSG);
		must_be(decode(data, all, file_bytes, &footer, &told), -EBADMSG);
		free(data);
	}
}
END_TEST

/* ------------------------------------------------------------------ from a file */

/* One of @footer, with a hole for its payload. */
static int make_file(const struct footer *footer, char path[PATH_MAX])
{
	const char *above = getenv("TMPDIR");
	unsigned char *data = encode(footer);
	size_t all = (size_t)footer_bytes(footer);
	int fd;

	snprintf(path, PATH_MAX, "%s/footer.XXXXXX", above != NULL ? above : "/tmp");
	fd = mkstemp(path);
	must(fd >= 0 && unlink(path) == 0);
	must(pwrite(fd, data, all, (off_t)footer->stored_bytes) == (ssize_t)all);
	free(data);
	return fd;
}

static void read_back(const struct footer *wanted)
{
	uint64_t file_bytes = wanted->stored_bytes + footer_bytes(wanted);
	struct footer *footer = NULL;
	char path[PATH_MAX];
	int fd = make_file(wanted, path);

	must_be(footer_read(fd, file_bytes, &footer), 0);
	must_be_same(footer, wanted);
	free(footer);
	footer = NULL;
	must_be(footer_read(fd, file_bytes - 1, &footer), -EBADMSG);
	/* It ends before it should. */
	must_be(footer_read(fd, file_bytes + 1, &footer), -EBADMSG);
	must(footer == NULL);
	close(fd);
}

START_TEST(a_file_tells_its_footer)
{
	static const uint64_t sizes[] = {
		0,	     1,		      100,
		900,	     1024,	      5000,
		BLOCK_BYTES, BLOCK_BYTES + 1, 200ull * BLOCK_BYTES + 3,
		(uint64_t)BLOCKS_MAX * BLOCK_BYTES,
	};
	struct footer footer;

	for (size_t i = 0; i < ARRAY_COUNT(sizes); i++) {
		footer = draft(sizes[i], 1, 0);
		read_back(&footer);
		footer = draft(sizes[i], 255, FOOTER_NOTE_BYTES_MAX);
		read_back(&footer);
	}
	/* About as long as the first guess at it. */
	for (uint32_t more = 0; more < 20; more++) {
		footer = draft(1 + more % 3 * 2000, 10,
			       1024 - FOOTER_TAIL_BYTES - 16 - 10 - 10 + more);
		read_back(&footer);
	}
}
END_TEST

START_TEST(a_file_may_be_read_in_little_pieces)
{
	struct footer small = draft(100, 3, 0), large = draft(3ull * BLOCK_BYTES, 9, 2000);

	for (read_most = 1; read_most < 200; read_most += 33) {
		read_back(&small);
		read_back(&large);
	}
}
END_TEST

START_TEST(no_file_that_was_cut_has_a_footer)
{
	struct footer small = draft(1, 1, 0), large = draft(5000, 9, 2000);

	for (int i = 0; i < 2; i++) {
		const struct footer *wanted = i == 0 ? &small : &large;
		uint64_t file_bytes = wanted->stored_bytes + footer_bytes(wanted);
		struct footer *footer = NULL;
		char path[PATH_MAX];
		int fd = make_file(wanted, path);

		for (uint64_t bytes = file_bytes; bytes-- > 0;) {
			must(ftruncate(fd, (off_t)bytes) == 0);
			must_be(footer_read(fd, bytes, &footer), -EBADMSG);
			must_be(footer_read(fd, file_bytes, &footer), -EBADMSG);
		}
		must(footer == NULL);
		close(fd);
	}
}
END_TEST

/* Longer than the guess, and damaged where the guess does not come to. */
START_TEST(damage_at_the_beginning_of_a_long_footer_is_seen)
{
	struct footer wanted = draft(3, 9, 3000), *footer = NULL;
	uint64_t file_bytes = wanted.stored_bytes + footer_bytes(&wanted);
	unsigned char byte;
	char path[PATH_MAX];
	int fd = make_file(&wanted, path);

	for (off_t at = 3; at < 40; at++) {
		must(pread(fd, &byte, 1, at) == 1);
		byte ^= 0x40;
		must(pwrite(fd, &byte, 1, at) == 1);
		must_be(footer_read(fd, file_bytes, &footer), -EBADMSG);
		byte ^= 0x40;
		must(pwrite(fd, &byte, 1, at) == 1);
	}
	must_be(footer_read(fd, file_bytes, &footer), 0);
	free(footer);
	close(fd);
}
END_TEST

START_TEST(what_cannot_be_read_is_told_as_it_is)
{
	struct footer wanted = draft(100, 3, 0), *footer = NULL;
	uint64_t file_bytes = wanted.stored_bytes + footer_bytes(&wanted);
	char path[PATH_MAX], open_path[64];
	int fd = make_file(&wanted, path), other;

	snprintf(open_path, sizeof(open_path), "/proc/self/fd/%d", fd);
	other = open(open_path, O_WRONLY);
	ck_assert_int_ge(other, 0);
	ck_assert_int_eq(footer_read(other, file_bytes, &footer), -EBADF);
	ck_assert_ptr_null(footer);
	close(other);
	close(fd);
}
END_TEST

int main(void)
{
	const TTest *const tests[] = {
		a_footer_comes_back_as_it_was,
		blocks_are_counted_to_the_last_byte,
		what_stands_on_the_disk_is_fixed,
		a_part_of_a_footer_tells_how_long_it_is,
		a_footer_without_its_end_is_none,
		no_changed_bit_goes_unseen,
		a_footer_of_a_file_of_another_size_is_none,
		nonsense_with_a_right_checksum_is_no_footer,
		what_is_beyond_a_limit_is_no_footer,
		no_footer_is_longer_than_its_file,
		a_file_tells_its_footer,
		a_file_may_be_read_in_little_pieces,
		no_file_that_was_cut_has_a_footer,
		damage_at_the_beginning_of_a_long_footer_is_seen,
		what_cannot_be_read_is_told_as_it_is,
	};

	return fixture_main("footer", setup, NULL, tests, ARRAY_COUNT(tests));
}
