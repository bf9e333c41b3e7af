/* SPDX-License-Identifier: MIT */
/*
 * ours - the library's ways through a race. All races of a program run in one
 * cache, as in earnest: it is there before, and the window in shared memory has
 * been used before. Every process opens it for itself.
 */
#include "race.h"

#include <err.h>

#define KEY "race", 4

static struct scache *cache; /* the parent's: it keeps the segment alive between races */

struct scache *ours_join(void)
{
	return a_cache("cache", NULL);
}

void ours_begin(void)
{
	cache = ours_join();
}

void ours_end(void)
{
	scache_close(cache);
	scache_destroy(in_dir("cache"), NULL);
}

static struct scache_writer *elected(struct scache *own, uint32_t flags)
{
	struct scache_acquire_options options = { .size = sizeof(options), .flags = flags };
	struct scache_writer *writer;

	if (scache_acquire(own, KEY, &options, NULL, &writer) != 0 || writer == NULL)
		errx(1, "not elected");
	return writer;
}

static void finish(const struct race *race, struct scache *own, struct scache_writer *writer)
{
	sc(scache_finish(writer), "scache_finish");
	race_end(race);
	sc(scache_writer_close(writer), "scache_writer_close");
	sc(scache_close(own), "scache_close");
}

static void write_all(const struct race *race, uint32_t flags)
{
	unsigned char *payload = race_buffer(race->write_bytes);
	struct scache *own = ours_join();
	struct scache_writer *writer = elected(own, flags);

	race_made();
	race_start();
	for (size_t done = 0; done < race->total_bytes; done += race->write_bytes) {
		race_fill(race, payload, race->write_bytes);
		if (sc(scache_write(writer, payload, race->write_bytes, SCACHE_FOREVER),
		       "scache_write") != (ssize_t)race->write_bytes)
			errx(1, "scache_write: not all");
	}
	finish(race, own, writer);
}

static void produce(const struct race *race)
{
	write_all(race, 0);
}

static void pass_through(const struct race *race)
{
	write_all(race, SCACHE_PASS_THROUGH);
}

/* The bytes are made in the window itself: no payload, no copy of it. */
static void produce_in_place(const struct race *race)
{
	struct scache *own = ours_join();
	struct scache_writer *writer = elected(own, 0);
	void *room;

	race_made();
	race_start();
	for (size_t done = 0; done < race->total_bytes;) {
		size_t left = race->write_bytes - done % race->write_bytes;
		ssize_t n =
			sc(scache_reserve(writer, left, &room, SCACHE_FOREVER), "scache_reserve");

		race_fill(race, room, (size_t)n);
		sc(scache_commit(writer, (size_t)n), "scache_commit");
		done += (size_t)n;
	}
	finish(race, own, writer);
}

static struct scache_reader *found(struct scache *own)
{
	struct scache_reader *reader;

	sc(scache_lookup(own, KEY, NULL, &reader), "scache_lookup");
	return reader;
}

static void leave(const struct race *race, struct scache *own, struct scache_reader *reader,
		  size_t done)
{
	race_end(race);
	if (done != race->total_bytes)
		errx(1, "%zu bytes of %zu", done, race->total_bytes);
	scache_reader_close(reader);
	sc(scache_close(own), "scache_close");
}

/* Copied into @sink, or (NULL) looked at where they are. */
static ssize_t next_piece(struct scache_reader *reader, unsigned char *sink, const void **ret_data)
{
	if (sink == NULL)
		return sc(scache_peek(reader, ret_data, READ_BYTES, SCACHE_FOREVER), "scache_peek");
	*ret_data = sink;
	return sc(scache_read(reader, sink, READ_BYTES, SCACHE_FOREVER), "scache_read");
}

static void consume_by(const struct race *race, unsigned index, unsigned char *sink)
{
	struct scache *own = ours_join();
	struct scache_reader *reader;
	const void *data;
	size_t done = 0;
	ssize_t n;

	race_made();
	reader = found(own);
	race_start();
	while ((n = next_piece(reader, sink, &data)) > 0) {
		race_take(race, index, data, (size_t)n, &done);
		if (sink == NULL)
			sc(scache_consume(reader, (size_t)n), "scache_consume");
	}
	leave(race, own, reader, done);
}

static void consume(const struct race *race, unsigned index)
{
	consume_by(race, index, race_buffer(READ_BYTES));
}

static void consume_in_place(const struct race *race, unsigned index)
{
	consume_by(race, index, NULL);
}

static void clean(const struct race *race)
{
	(void)race;
	scache_remove(cache, KEY); /* of what passed through there is nothing */
}

const struct means ours_read = { .produce = produce, .consume = consume, .clean = clean };
const struct means ours_in_place = { .produce = produce_in_place,
				     .consume = consume,
				     .clean = clean };
const struct means ours_pass_through = { .produce = pass_through,
					 .consume = consume,
					 .clean = clean };

const struct means ours_peek = { .produce = produce,
				 .consume = consume_in_place,
				 .clean = clean };
const struct means ours_pass_through_peek = { .produce = pass_through,
					      .consume = consume_in_place,
					      .clean = clean };
