/* SPDX-License-Identifier: MIT */
/*
 * check_fork_streams - a fork child closes the streams it has inherited: of what another
 * thread of its parent may have been exchanging at that moment it follows nothing.
 */
#include <sys/mman.h>

#include "../util/calls.h"
#include "stream/stream.h"

#define PAGE 65536u

/* In the midst of pages that nobody may look at: whoever frees it dies. */
static void *no_mans_land(int protection)
{
	unsigned char *pages = mmap(NULL, 2 * PAGE, protection, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	must(pages != MAP_FAILED);
	return pages + PAGE;
}

/* Its window has been given up, and in its place is something else. */
static void close_reader(void *arg)
{
	struct scache_reader *reader = arg;
	unsigned char *window = no_mans_land(PROT_READ | PROT_WRITE);

	reader->replay = no_mans_land(PROT_NONE);
	reader->window = window;
	must_be(scache_reader_close(reader), 0);
	must_be(window[0], 0);
}

static void close_writer(void *arg)
{
	struct scache_writer *writer = arg;

	writer->note = no_mans_land(PROT_NONE);
	must_be(scache_writer_close(writer), 0);
}

static void close_summing_writer(void *arg)
{
	struct scache_writer *writer = arg;

	writer->sums.words = no_mans_land(PROT_NONE);
	must_be(scache_writer_close(writer), 0);
}

static void close_compressing_writer(void *arg)
{
	struct scache_writer *writer = arg;

	writer->compressor = no_mans_land(PROT_NONE);
	must_be(scache_writer_close(writer), 0);
}

static void run(void (*body)(void *arg), void *stream)
{
	struct child child;

	child_start(&child, body, stream);
	child_join(&child);
}

START_TEST(a_fork_child_follows_nothing_of_what_may_be_half_exchanged)
{
	struct scache *cache = scratch_open();
	struct scache_reader *reader;
	struct scache_writer *writer = create_as(cache, 0, 0, &reader);

	put(writer, 0, 100000);
	run(close_reader, reader);
	run(close_writer, writer);
	run(close_summing_writer, writer);
	run(close_compressing_writer, writer);
	/* And its parent goes on. */
	put(writer, 100000, 200000);
	must_be(scache_finish(writer), 0);
	must_be(scache_writer_close(writer), 0);
	pattern_read_all(reader, 1, 200000);
	end_with(cache, reader);
}
END_TEST

int main(void)
{
	const TTest *const tests[] = {
		a_fork_child_follows_nothing_of_what_may_be_half_exchanged,
	};

	return SCRATCH_RUN("fork_streams", tests);
}
