/* SPDX-License-Identifier: MIT */
/* check_ring - the pool of live windows. */
#include "../util/fixture.h"
#include "index/ring.h"

static struct fixture f;
static struct scache *cache;
static struct segment *segment;

static void setup(void)
{
	fixture_begin(&f);
	cache = fixture_open(&f);
	segment = cache->seat->peer.segment;
}

static void teardown(void)
{
	fixture_end(&f);
}

START_TEST(rings_are_claimed_once_and_used_up)
{
	struct entry_name one = { .idx = 0, .gen = 0 }, two = { .idx = 7, .gen = UINT32_MAX };

	ck_assert_uint_eq(ring_count_in_use(segment), 0);
	ck_assert_uint_eq(ring_claim(&cache->seat->peer, one), 0);
	ck_assert_uint_eq(ring_claim(&cache->seat->peer, two), 1);
	ck_assert_uint_eq(shm_load(&segment->ring_owners[0]), name_word(one));
	ck_assert_uint_eq(shm_load(&segment->ring_owners[1]), name_word(two));
	ck_assert_uint_eq(ring_claim(&cache->seat->peer, one), RING_NONE);
	ck_assert_uint_eq(ring_count_in_use(segment), 2);
	ring_release(segment, one);
	ck_assert_uint_eq(ring_count_in_use(segment), 1);
	ck_assert_uint_eq(ring_claim(&cache->seat->peer, one), 0);
	ring_release(segment, one);
	ring_release(segment, two);
}
END_TEST

START_TEST(releasing_frees_all_of_that_life_and_nothing_else)
{
	struct entry_name name = { .idx = 3, .gen = 5 }, later = { .idx = 3, .gen = 6 };

	/* Two, as when their claimer died before it noted the first. */
	ring_claim(&cache->seat->peer, name);
	ring_claim(&cache->seat->peer, name);
	ring_release(segment, later);
	ck_assert_uint_eq(ring_count_in_use(segment), 2);
	ring_release(segment, name);
	ck_assert_uint_eq(ring_count_in_use(segment), 0);
	ring_release(segment, name);
	ck_assert_uint_eq(ring_count_in_use(segment), 0);
}
END_TEST

START_TEST(rings_lie_apart_and_inside_the_segment)
{
	unsigned char *end = (unsigned char *)segment->header + segment->bytes;

	for (uint32_t i = 0; i < FIXTURE_RINGS; i++) {
		unsigned char *ring = segment_ring(segment, i);

		ck_assert_uint_eq((uintptr_t)ring % SHM_PAGE_BYTES, 0);
		ck_assert(ring > (unsigned char *)segment->ring_owners);
		ck_assert(ring + FIXTURE_RING_BYTES <= end);
		ck_assert(i == 0 || ring == segment_ring(segment, i - 1) + FIXTURE_RING_BYTES);
	}
}
END_TEST

START_TEST(a_producer_without_a_ring_works_by_its_file)
{
	struct scache_writer *writers[FIXTURE_RINGS + 1];
	struct scache_reader *reader;
	char keys[] = "abc", data[16];

	for (unsigned i = 0; i < ARRAY_COUNT(writers); i++)
		ck_assert_int_eq(scache_acquire(cache, &keys[i], 1, NULL, NULL, &writers[i]), 0);
	ck_assert_uint_eq(ring_count_in_use(segment), FIXTURE_RINGS);
	ck_assert_ptr_null(writers[FIXTURE_RINGS]->ring);
	ck_assert_int_eq(scache_lookup(cache, &keys[FIXTURE_RINGS], 1, NULL, &reader), 0);
	ck_assert_int_eq(scache_write(writers[FIXTURE_RINGS], "by its file", 11, 0), 11);
	ck_assert_int_eq(scache_read(reader, data, sizeof(data), 0), 11);
	ck_assert_mem_eq(data, "by its file", 11);
	ck_assert_int_eq(scache_finish(writers[FIXTURE_RINGS]), 0);
	ck_assert_int_eq(scache_read(reader, data, sizeof(data), 0), 0);
	scache_reader_close(reader);
	for (unsigned i = 0; i < ARRAY_COUNT(writers); i++)
		scache_writer_close(writers[i]);
	ck_assert_uint_eq(ring_count_in_use(segment), 0);
}
END_TEST

START_TEST(a_finished_entry_gives_its_ring_back_at_once)
{
	struct scache_reader *reader;
	struct scache_writer *writer;
	char data[16];

	ck_assert_int_eq(scache_acquire(cache, "k", 1, NULL, &reader, &writer), 0);
	ck_assert_int_eq(scache_write(writer, "bytes", 5, 0), 5);
	ck_assert_uint_eq(ring_count_in_use(segment), 1);
	ck_assert_int_eq(scache_finish(writer), 0);
	ck_assert_uint_eq(ring_count_in_use(segment), 0);
	/* Who has not read yet finds everything in the file. */
	ck_assert_int_eq(scache_read(reader, data, sizeof(data), 0), 5);
	scache_writer_close(writer);
	scache_reader_close(reader);
}
END_TEST

int main(void)
{
	const TTest *const tests[] = {
		rings_are_claimed_once_and_used_up,
		releasing_frees_all_of_that_life_and_nothing_else,
		rings_lie_apart_and_inside_the_segment,
		a_producer_without_a_ring_works_by_its_file,
		a_finished_entry_gives_its_ring_back_at_once,
	};

	return fixture_main("ring", setup, teardown, tests, ARRAY_COUNT(tests));
}
