/* SPDX-License-Identifier: MIT */
/*
 * check_lz4_damage - a stranger changes, cuts or extends the files of compressed blobs:
 * a wrong byte is never shown, whether or not it was asked to verify. What no byte of
 * the blob depends on (where the frame ends) only scache_verify() and lz4(1) look at.
 */
#include <check.h>

#include "../util/packed.h"
#include "store/frame.h"

/* Who looks verifies nothing that is not unpacked. */
static void open_looker(uint32_t verify)
{
	maker = open_packed(SCACHE_LZ4, 1);
	scratch_options.verify = verify;
	looker = scratch_open();
}

/* How much of the file is the frame. */
static uint64_t frame_bytes(const struct file *file, uint64_t bytes)
{
	return file->bytes - (8 + 8 * block_count(bytes) + 1 + FOOTER_TAIL_BYTES);
}

/* Otherwise it has gone. */
static bool is_verified(void)
{
	must_be(scache_verify(looker, NULL, 0, NULL, NULL), 0);
	return !scratch_misses(maker, "k");
}

/* Anywhere in the file of @bytes. */
static void flip_one(uint64_t bytes, uint64_t at, unsigned turn)
{
	struct file file = produce(TEXT, bytes, 65536);
	uint64_t end = frame_bytes(&file, bytes);

	must(at < file.bytes);
	flip(&file, at, turn % 8);
	if (at >= end - FRAME_END_BYTES && at < end) {
		must(!passes_lz4(&file) || !have_lz4());
		if (turn % 2 == 0)
			is_whole(TEXT, bytes, ways[turn / 2 % WAYS], 65536);
		else
			must(!is_verified());
	} else if (turn % 3 == 0) {
		must(!is_verified());
	} else {
		is_found_out(TEXT, bytes, ways[turn % WAYS], 65536);
	}
}

START_TEST(each_byte_of_a_small_one_is_looked_at)
{
	static const uint64_t some[] = { 0, 1, 700, 17000 };
	unsigned turn = 0;

	open_looker(SCACHE_VERIFY_NEVER);
	for (size_t i = 0; i < ARRAY_COUNT(some); i++) {
		uint64_t all = produce(TEXT, some[i], 65536).bytes;

		must(is_verified());
		is_whole(TEXT, some[i], by_read, 65536);
		for (uint64_t at = 0; at < all; at += all < 1000 ? 1 : 1 + below(30))
			flip_one(some[i], at, turn++);
	}
	close_both();
}
END_TEST

START_TEST(a_large_one_is_looked_at_wherever_it_is_read)
{
	const uint64_t bytes = 5 * MIB + 99;
	uint64_t all;

	open_looker(SCACHE_VERIFY_RESTART);
	all = produce(TEXT, bytes, 65536).bytes;
	is_whole(TEXT, bytes, by_read, 65536);
	for (unsigned turn = 0; turn < (scratch_is_long() ? 5000 : 150); turn++)
		flip_one(bytes, below(all), turn);
	close_both();
}
END_TEST

/* Opened while it grew: by a walk from block to block, and without a footer. */
START_TEST(who_has_opened_it_while_it_grew_is_shown_no_wrong_byte)
{
	const uint64_t bytes = 3 * MIB + 5;

	open_looker(SCACHE_VERIFY_NEVER);
	for (unsigned turn = 0; turn < 60; turn++) {
		struct scache_writer *writer = scratch_create(maker, "k", 0, NULL);
		struct scache_reader *reader = scratch_find(looker, "k");
		uint64_t had = 0, damaged = scratch_stat(looker).damaged, end;
		struct file file;

		write_text(writer, 0, bytes, 65536);
		must_be(pread_text(reader, 5, 1), 1);
		must_be(scache_finish(writer), 0);
		scache_writer_close(writer);
		file = find_file();
		/* Not in the first block, which it may have unpacked already. */
		end = frame_bytes(&file, bytes) - FRAME_END_BYTES;
		flip(&file, end / 2 + below(end / 2), turn % 8);
		must_be(ways[turn % WAYS](reader, TEXT, bytes, 70000, &had), -EBADMSG);
		must(had < bytes);
		must_be(scratch_stat(looker).damaged, damaged + 1);
		scache_reader_close(reader);
		must(scratch_misses(maker, "k"));
	}
	close_both();
}
END_TEST

START_TEST(another_length_is_found_when_it_is_opened)
{
	static const uint64_t some[] = { 0, 1, 700, 17000, 2 * MIB };

	open_looker(SCACHE_VERIFY_NEVER);
	for (size_t i = 0; i < ARRAY_COUNT(some) * 12; i++) {
		uint64_t bytes = some[i / 12];
		struct file file = produce(TEXT, bytes, 65536);
		uint64_t end = frame_bytes(&file, bytes);
		const uint64_t lengths[12] = { 0,
					       1,
					       FRAME_HEADER_BYTES,
					       end / 2,
					       end - 1,
					       end,
					       end + 1,
					       end + 8,
					       file.bytes - FOOTER_TAIL_BYTES,
					       file.bytes - 1,
					       file.bytes + 1,
					       file.bytes + 4096 };

		cut(&file, lengths[i % 12]);
		must_be(is_found_out(TEXT, bytes, ways[i % WAYS], 65536), 0);
	}
	close_both();
}
END_TEST

START_TEST(a_block_in_the_place_of_another_is_not_shown)
{
	const uint64_t bytes = 4 * BLOCK;

	/* Of noise: then all blocks are of one length. */
	open_looker(SCACHE_VERIFY_NEVER);
	for (unsigned turn = 0; turn < 2 * WAYS; turn++) {
		struct file file = produce(1, bytes, 65536);
		uint64_t block = BLOCK + FRAME_BLOCK_EXTRA_BYTES;

		must_be(frame_bytes(&file, bytes), FRAME_HEADER_BYTES + 4 * block + FRAME_END_BYTES);
		copy_within(&file, FRAME_HEADER_BYTES + turn % 2 * block,
			    FRAME_HEADER_BYTES + 2 * block, block);
		is_found_out(1, bytes, ways[turn / 2], 100000);
	}
	close_both();
}
END_TEST

START_TEST(after_a_restart_what_was_damaged_is_not_adopted_or_not_shown)
{
	static const uint64_t some[] = { 1, 700, 17000, MIB + 1 };
	char path[400];

	for (unsigned turn = 0; turn < 24 * ARRAY_COUNT(some); turn++) {
		uint64_t bytes = some[turn / 24], had = 0, end, at;
		struct scache_reader *reader;
		struct file file;

		maker = open_packed(SCACHE_LZ4, 1);
		file = produce(TEXT, bytes, 65536);
		scratch_close(maker);
		end = frame_bytes(&file, bytes);
		at = turn % 2 ? end + below(file.bytes - end) : below(end - FRAME_END_BYTES);
		flip(&file, at, turn % 8);
		must(chmod(file.path, 0400) == 0);
		scratch_segment(path, sizeof(path));
		must(unlink(path) == 0);
		maker = scratch_open();
		if (scache_lookup(maker, "k", 1, NULL, &reader) == 0) {
			must_be(ways[turn % WAYS](reader, TEXT, bytes, 65536, &had), -EBADMSG);
			scache_reader_close(reader);
		}
		must(scratch_misses(maker, "k"));
		must_be(scratch_blobs(), 0);
		scratch_is_clean(maker);
		scratch_close(maker);
	}
}
END_TEST

int main(void)
{
	const TTest *const tests[] = {
		each_byte_of_a_small_one_is_looked_at,
		a_large_one_is_looked_at_wherever_it_is_read,
		who_has_opened_it_while_it_grew_is_shown_no_wrong_byte,
		another_length_is_found_when_it_is_opened,
		a_block_in_the_place_of_another_is_not_shown,
		after_a_restart_what_was_damaged_is_not_adopted_or_not_shown,
	};

	return status_of(SCRATCH_RUN("lz4_damage", tests));
}
