/* SPDX-License-Identifier: MIT */
/*
 * check_damage - a stranger changes, cuts or extends the files of finished blobs: who
 * verifies is never given a wrong byte nor a short end, the damage is counted once, and
 * the entry makes room for another. And who does not verify notices another size.
 */
#include <check.h>

#include "../util/damage.h"
#include "../util/producer.h"

#define FRAME_BYTES 8u

START_TEST(a_changed_payload_is_never_shown)
{
	static const size_t pieces[] = { 1009, 65536, BLOCK_BYTES, 5000000 };
	unsigned turn = 0;

	open_both();
	for (size_t i = 1; i < ARRAY_COUNT(sizes); i++) {
		uint64_t bytes = sizes[i], blocks = block_count(bytes);

		for (unsigned n = 0; n < 3 * blocks * WAYS; n++) {
			uint64_t block = n / WAYS / 3, first = block * BLOCK;
			uint64_t last = (first + BLOCK < bytes ? first + BLOCK : bytes) - 1;
			uint64_t at = n / WAYS % 3 == 0 ? first :
				      n / WAYS % 3 == 1 ? last : first + (last - first) / 2;
			size_t piece = pieces[turn++ / WAYS % ARRAY_COUNT(pieces)];
			struct file file = produce(1, bytes, piece);
			uint64_t had;

			flip(&file, at, turn % 8);
			had = is_found_out(1, bytes, ways[n % WAYS], piece);
			/* What is not near the damage is shown. */
			if (bytes > COPY_BYTES && ways[n % WAYS] != by_pread && piece < 5000000)
				must(had <= first && had + piece > first);
		}
	}
	close_both();
}
END_TEST

START_TEST(a_changed_footer_is_found_when_it_is_opened)
{
	unsigned turn = 0;

	open_both();
	for (size_t i = 0; i < ARRAY_COUNT(sizes); i++) {
		uint64_t words = sizes[i] + FRAME_BYTES;
		struct file file = produce(1, sizes[i], 65536);
		uint64_t all = file.bytes - sizes[i];

		must_be(file.bytes, words + 8 * block_count(sizes[i]) + 1 + FOOTER_TAIL_BYTES);
		/* Each byte: frame, words, key, tail. */
		for (uint64_t at = 0; at < all; at++, turn++) {
			flip(&file, sizes[i] + at, turn % 8);
			must_be(is_found_out(1, sizes[i], ways[turn % WAYS], 65536), 0);
			file = produce(1, sizes[i], 65536);
		}
		is_whole(1, sizes[i], ways[turn % WAYS], 65536);
	}
	close_both();
}
END_TEST

/* What follows the payload may be cut as well: a part of a footer is none. */
static void other_sizes(uint64_t bytes, void (*check)(uint64_t bytes, unsigned turn))
{
	struct file file = produce(1, bytes, 65536);
	const uint64_t lengths[] = { 0,
				     1,
				     bytes / 2,
				     bytes - 1,
				     bytes,
				     bytes + 1,
				     bytes + FRAME_BYTES,
				     file.bytes - FOOTER_TAIL_BYTES,
				     file.bytes - 8,
				     file.bytes - 1,
				     file.bytes + 1,
				     file.bytes + 8,
				     file.bytes + 4096 };
	uint64_t footer = file.bytes - bytes;

	for (unsigned turn = 0; turn < ARRAY_COUNT(lengths); turn++) {
		if (lengths[turn] > file.bytes + 4096)
			continue; /* before the beginning of an empty one */
		cut(&file, lengths[turn]);
		check(bytes, turn);
		file = produce(1, bytes, 65536);
	}
	/* Another footer behind it, or behind half of it. */
	copy_within(&file, bytes, file.bytes, footer);
	check(bytes, 0);
	file = produce(1, bytes, 65536);
	copy_within(&file, bytes, bytes / 2, footer);
	cut(&file, bytes / 2 + footer);
	if (bytes > 0)
		check(bytes, 1);
	else
		is_whole(1, bytes, ways[1], 1);
}

static void is_found_at_open(uint64_t bytes, unsigned turn)
{
	must_be(is_found_out(1, bytes, ways[turn % WAYS], 65536), 0);
}

START_TEST(another_size_is_found_when_it_is_opened)
{
	open_both();
	for (size_t i = 0; i < ARRAY_COUNT(sizes); i++)
		other_sizes(sizes[i], is_found_at_open);
	close_both();
}
END_TEST

static void look_without_verify(void *arg)
{
	struct scache *cache;

	(void)arg;
	scratch_options.verify = SCACHE_VERIFY_RESTART;
	cache = scratch_open();
	must(scratch_misses(cache, "k"));
	scratch_close(cache);
}

static void is_found_by_a_newcomer(uint64_t bytes, unsigned turn)
{
	uint64_t before = scratch_stat(maker).damaged;
	struct child child;

	(void)bytes;
	(void)turn;
	child_start(&child, look_without_verify, NULL);
	child_join(&child);
	must_be(scratch_stat(maker).damaged, before + 1);
	must(scratch_misses(maker, "k"));
	must_be(scratch_blobs(), 0);
}

START_TEST(another_size_is_found_by_who_does_not_verify)
{
	open_both();
	for (size_t i = 0; i < ARRAY_COUNT(sizes); i++)
		other_sizes(sizes[i], is_found_by_a_newcomer);
	close_both();
}
END_TEST

/* A block that stands where another should, and one of which a page is lost. */
START_TEST(bytes_at_a_wrong_place_are_not_shown)
{
	struct file file;

	open_both();
	for (size_t i = 0; i < 2 * WAYS; i++) {
		file = produce(1, MIB, 65536);
		if (i % 2 == 0)
			copy_within(&file, BLOCK, 2 * BLOCK, BLOCK_BYTES);
		else
			copy_within(&file, 2 * file.bytes, 2 * BLOCK + 4096, 4096);
		is_found_out(1, MIB, ways[i / 2], 100000);
	}
	close_both();
}
END_TEST

/* Whole in itself, and as long as it should be, but of another key. */
START_TEST(the_file_of_another_key_is_not_shown)
{
	struct file file, other;
	char kept[300];

	open_both();
	snprintf(kept, sizeof(kept), "%s/kept", scratch_base);
	for (size_t i = 0; i < ARRAY_COUNT(sizes); i++) {
		file = produce(1, sizes[i], 65536);
		must(rename(file.path, kept) == 0);
		must_be(scache_remove(maker, "k", 1), 0);
		pattern_produce(scratch_create(maker, "j", 0, NULL), 2, sizes[i], 65536);
		other = find_file();
		must(rename(kept, other.path) == 0);
		must(scratch_misses(looker, "j"));
		must_be(scratch_blobs(), 0);
		must_be(scratch_stat(looker).damaged, i + 1);
	}
	close_both();
}
END_TEST

START_TEST(a_file_that_is_gone_makes_room_for_another)
{
	open_both();
	for (size_t i = 0; i < ARRAY_COUNT(sizes); i++) {
		struct file file = produce(1, sizes[i], 65536);

		must(unlink(file.path) == 0);
		must_be(is_found_out(1, sizes[i], ways[i % WAYS], 65536), 0);
	}
	close_both();
}
END_TEST

/* A mapping is another matter: see scache_peek(). */
START_TEST(who_has_it_open_meets_no_short_end)
{
	static const uint64_t lengths[] = { 0, 50000, 100000, 100001, BLOCK + 1, MIB - 1 };
	static way_fn *const copying[] = { by_read, by_sendfile, by_pread };

	maker = scratch_open();
	for (unsigned n = 0; n < ARRAY_COUNT(lengths) * ARRAY_COUNT(copying); n++) {
		way_fn *way = copying[n % ARRAY_COUNT(copying)];
		struct scache *cache = scratch_open();
		struct file file = produce(1, MIB, 65536);
		struct scache_reader *reader = scratch_find(cache, "k");
		uint64_t had = 0, before = scratch_stat(cache).damaged;

		must_be(pattern_read(reader, 1, &had, n % 2 ? 1 : 100000, 100000), 1);
		scache_reader_close(reader);
		reader = scratch_find(cache, "k");
		cut(&file, lengths[n / ARRAY_COUNT(copying)]);
		had = 0;
		must_be(way(reader, 1, MIB, 3000, &had), -EBADMSG);
		must_be(had, way == by_pread && had == 0 ? 0 : lengths[n / ARRAY_COUNT(copying)]);
		scache_reader_close(reader);
		must_be(scratch_stat(cache).damaged, before + 1);
		must(scratch_misses(maker, "k"));
		scratch_close(cache);
	}
	scratch_is_clean(maker);
	scratch_close(maker);
}
END_TEST

/* A copy of a small one is all in memory. */
START_TEST(a_small_one_that_was_opened_cannot_be_damaged)
{
	struct scache_reader *reader;
	struct file file;

	open_both();
	for (size_t i = 0; i < WAYS; i++) {
		uint64_t had = 0;

		file = produce(1, COPY_BYTES, 65536);
		scache_reader_close(scratch_find(looker, "k"));
		flip(&file, 5, 5);
		cut(&file, 100);
		reader = scratch_find(looker, "k");
		must_be(ways[i](reader, 1, COPY_BYTES, 1000, &had), 0);
		must_be(had, COPY_BYTES);
		scache_reader_close(reader);
		must_be(scache_remove(looker, "k", 1), 0);
	}
	close_both();
}
END_TEST

/* --------------------------------------------------------------- and what follows */

static void read_to_the_damage(void *arg)
{
	struct scache *cache = scratch_open();
	struct scache_reader *reader = scratch_find(cache, "k");
	uint64_t position = 0;

	(void)arg;
	must_be(pattern_read(reader, 1, &position, 1000, 1000), 1);
	child_say(0);
	child_listen();
	must_be(pattern_read(reader, 1, &position, UINT64_MAX, 65536), -EBADMSG);
	must(position <= 2 * BLOCK && position + 65536 > 2 * BLOCK);
	scache_reader_close(reader);
	scratch_close(cache);
}

START_TEST(many_meet_one_damage_and_it_is_counted_once)
{
	struct child children[4];
	struct file file;

	open_both();
	file = produce(1, MIB, 65536);
	for (size_t i = 0; i < ARRAY_COUNT(children); i++) {
		child_start(&children[i], read_to_the_damage, NULL);
		child_hear(&children[i]);
	}
	flip(&file, 2 * BLOCK + 9, 0);
	for (size_t i = 0; i < ARRAY_COUNT(children); i++)
		child_tell(&children[i], 0);
	for (size_t i = 0; i < ARRAY_COUNT(children); i++)
		child_join(&children[i]);
	must_be(scratch_stat(maker).damaged, 1);
	close_both();
}
END_TEST

START_TEST(the_next_fetch_produces_again)
{
	static struct task task = { .seed = 2 };
	struct scache_reader *reader;

	board_make();
	open_both();
	for (size_t i = 0; i < ARRAY_COUNT(sizes); i++) {
		struct file file = produce(1, sizes[i], 65536);
		bool has_begun = sizes[i] > COPY_BYTES && i % 2;
		uint64_t position = 0;

		/* Found by the fetch itself, or by somebody before it. */
		flip(&file, has_begun ? sizes[i] - 1 : sizes[i], 3);
		if (has_begun) {
			must_be(task_fetch(looker, "k", NULL, &task, &reader), 0);
			must_be(pattern_read(reader, 1, &position, UINT64_MAX, 65536), -EBADMSG);
			scache_reader_close(reader);
		}
		task.bytes = sizes[i];
		must_be(task_fetch(looker, "k", NULL, &task, &reader), 1);
		pattern_read_all(reader, 2, sizes[i]);
		scache_reader_close(reader);
		must_be(scratch_stat(maker).damaged, i + 1);
		is_whole(2, sizes[i], ways[i % WAYS], 65536);
	}
	close_both();
}
END_TEST

START_TEST(the_next_acquire_is_elected)
{
	struct scache_acquire_options options = { .size = sizeof(options) };
	struct scache_reader *reader;
	struct scache_writer *writer;
	struct file file;

	open_both();
	for (size_t i = 0; i < ARRAY_COUNT(sizes); i++) {
		file = produce(1, sizes[i], 65536);
		flip(&file, file.bytes - 1, 7);
		must_be(scache_acquire(looker, "k", 1, &options, &reader, &writer), 0);
		must(writer != NULL);
		pattern_produce(writer, 3, sizes[i], 3000000);
		pattern_read_all(reader, 3, sizes[i]);
		scache_reader_close(reader);
		is_whole(3, sizes[i], ways[i % WAYS], 65536);
	}
	must_be(scratch_stat(looker).damaged, ARRAY_COUNT(sizes));
	close_both();
}
END_TEST

int main(void)
{
	const TTest *const tests[] = {
		a_changed_payload_is_never_shown,
		a_changed_footer_is_found_when_it_is_opened,
		another_size_is_found_when_it_is_opened,
		another_size_is_found_by_who_does_not_verify,
		bytes_at_a_wrong_place_are_not_shown,
		the_file_of_another_key_is_not_shown,
		a_file_that_is_gone_makes_room_for_another,
		who_has_it_open_meets_no_short_end,
		a_small_one_that_was_opened_cannot_be_damaged,
		many_meet_one_damage_and_it_is_counted_once,
		the_next_fetch_produces_again,
		the_next_acquire_is_elected,
	};

	return SCRATCH_RUN("damage", tests);
}
