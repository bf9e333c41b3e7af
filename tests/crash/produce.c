/* SPDX-License-Identifier: MIT */
/*
 * produce - the operations that produce, and those that go on beside them.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>

#include "../util/pattern.h"
#include "ops.h"
#include "stream/stream.h"

#define PUNCHED_BYTES (2u << 20) /* the least that is; and not quite so much is written at once: */
#define PASSED_BYTES (2u << 20)

/* ------------------------------------------------------------------- pieces */

static void create(struct scache *cache, uint32_t flags, struct scache_reader **ret_reader,
		   struct scache_writer **ret_writer)
{
	must_be(acquire(cache, KEY, flags, 0, ret_reader, ret_writer), 0);
	must(*ret_writer != NULL);
	gather(*ret_writer);
}

/* Write all, reading along, so that whoever is paced by us goes on. */
static void pump(struct scache_writer *writer, struct scache_reader *reader)
{
	unsigned char got[5000];
	uint64_t done;

	for (done = 0; done < BLOB_BYTES; done += sizeof(got)) {
		put_some(writer, KEY_SEED, done, done + sizeof(got));
		must_be(scache_read(reader, got, sizeof(got), PATIENCE_NS), sizeof(got));
		must(pattern_matches(KEY_SEED, done, got, sizeof(got)));
	}
}

/* The same in place: of each other grant a part, and behind it nothing. */
static void pump_in_place(struct scache_writer *writer, struct scache_reader *reader)
{
	unsigned char got[5000];
	uint64_t done = 0;
	size_t part;
	ssize_t room;
	void *data;

	while (done < BLOB_BYTES) {
		room = scache_reserve(writer, sizeof(got), &data, PATIENCE_NS);
		must(room > 0);
		memset(data, 0xee, (size_t)room);
		part = done % 7 == 0 && room > 1 ? (size_t)room / 2 : (size_t)room;
		part = part < BLOB_BYTES - done ? part : BLOB_BYTES - done;
		pattern_fill(KEY_SEED, done, data, part);
		must_be(scache_commit(writer, part), part);
		room = scache_reserve(writer, sizeof(got), &data, 0);
		if (room > 0)
			memset(data, 0xee, (size_t)room);
		must_be(scache_commit(writer, 0), 0);
		must_be(scache_read(reader, got, part, PATIENCE_NS), part);
		must(pattern_matches(KEY_SEED, done, got, part));
		done += part;
	}
}

static void end_both(struct scache *cache, struct scache_writer *writer,
		     struct scache_reader *reader)
{
	must(scache_finish(writer) >= 0);
	scache_writer_close(writer);
	scache_reader_close(reader);
	disarm();
	scache_close(cache);
}

/* ---------------------------------------------------------------- operations */

static void produce(uint32_t flags, void (*with)(struct scache_writer *, struct scache_reader *))
{
	struct scache *cache = open_cache();
	struct scache_reader *reader;
	struct scache_writer *writer;

	arm();
	create(cache, flags, &reader, &writer);
	with(writer, reader);
	end_both(cache, writer, reader);
}

void run_produce(void)
{
	produce(0, pump);
}

void run_in_place(void)
{
	produce(SCACHE_PACE_SLOWEST, pump_in_place);
}

void run_pass(void)
{
	produce(SCACHE_PASS_THROUGH | SCACHE_PACE_SLOWEST, pump_in_place);
}

void run_refresh(void)
{
	struct scache *cache = open_cache();
	struct scache_reader *reader;
	struct scache_writer *writer;

	gather(NULL); /* of what is going to be dropped */
	arm();
	must_be(acquire(cache, KEY, SCACHE_REFRESH, 0, &reader, &writer), 0);
	must(writer != NULL);
	pump(writer, reader);
	end_both(cache, writer, reader);
}

/* In one write, and of a key that nobody else wants: what is beyond a ring passes it. */
void run_large(void)
{
	static unsigned char data[BLOB_BYTES];
	struct scache *cache = open_cache();
	struct scache_writer *writer;

	pattern_fill(KEY_SEED, 0, data, sizeof(data));
	arm();
	must_be(acquire(cache, "large", SCACHE_RUN_TO_END, SCACHE_UNLIMITED, NULL, &writer), 0);
	must(writer != NULL);
	must_be(scache_write(writer, data, sizeof(data), PATIENCE_NS), sizeof(data));
	must_be(scache_finish(writer), 0);
	scache_writer_close(writer);
	disarm();
	scache_close(cache);
}

static void let_files_have(uint64_t bytes)
{
	const struct rlimit limit = { .rlim_cur = bytes, .rlim_max = bytes };

	must(setrlimit(RLIMIT_FSIZE, &limit) == 0);
}

/* A file that cannot grow; once the production has begun others may let go of their rings. */
static void outgrow_file(bool has_begun)
{
	struct scache *cache = open_cache();
	struct scache_reader *reader;
	struct scache_writer *writer;

	let_files_have(40000);
	arm();
	create(cache, 0, &reader, &writer);
	scene->begun = has_begun;
	pump(writer, reader);
	end_both(cache, writer, reader);
}

/* Without a ring, and then without a file: on in a ring that has become free. */
void run_rescue(void)
{
	outgrow_file(true);
}

/* On without it. */
void run_no_file(void)
{
	outgrow_file(false);
}

/* Much is in a file that cannot grow, and nobody wants it. */
void run_punch(void)
{
	static unsigned char data[PUNCHED_BYTES + PASSED_BYTES + 4 * RING_BYTES];
	struct scache *cache = open_cache();
	struct scache_writer *writer;

	pattern_fill(KEY_SEED, 0, data, sizeof(data));
	let_files_have(PUNCHED_BYTES + PASSED_BYTES);
	arm();
	must_be(acquire(cache, "large", SCACHE_RUN_TO_END, SCACHE_UNLIMITED, NULL, &writer), 0);
	must(writer != NULL);
	must_be(scache_write(writer, data, sizeof(data), PATIENCE_NS), sizeof(data));
	must_be(scache_finish(writer), SCACHE_NOT_KEPT);
	scache_writer_close(writer);
	disarm();
	scache_close(cache);
}

/* The window is full until our own reader reads: the writer waits, for longer than a tick. */
void run_window(void)
{
	struct scache *cache = open_cache();
	unsigned char data[1000] = { 0 };
	struct scache_reader *reader;
	struct scache_writer *writer;

	arm();
	must_be(acquire(cache, KEY, SCACHE_PACE_SLOWEST, 20000, &reader, &writer), 0);
	must(writer != NULL);
	gather(writer);
	put_some(writer, KEY_SEED, 0, 20000);
	must_be(scache_write(writer, data, sizeof(data), 70 * 1000000), -ETIMEDOUT);
	for (uint64_t done = 0; done < 20000; done += sizeof(data)) {
		must_be(scache_read(reader, data, sizeof(data), 0), sizeof(data));
		must(pattern_matches(KEY_SEED, done, data, sizeof(data)));
	}
	put_some(writer, KEY_SEED, 20000, 30000);
	scache_reader_close(reader);
	if (scene->survivors > 0)
		put_some(writer, KEY_SEED, 30000, BLOB_BYTES);
	scache_writer_close(writer);
	disarm();
	scache_close(cache);
}

/* From the ring alone, and on without our own reader, which does not move. */
void run_stall(void)
{
	const struct scache_acquire_options options = { .size = sizeof(options),
							.flags = SCACHE_PASS_THROUGH |
								 SCACHE_RUN_TO_END,
							.writer_stall_ns = 1,
							.stall_policy = SCACHE_STALL_RUN };
	struct scache *cache = open_cache();
	struct scache_reader *reader;
	struct scache_writer *writer;
	unsigned char byte;

	arm();
	must_be(scache_acquire(cache, "stall", 5, &options, &reader, &writer), 0);
	must(writer != NULL);
	put_some(writer, KEY_SEED, 0, BLOB_BYTES);
	must_be(scache_read(reader, &byte, 1, 0), -ESTALE);
	must_be(scache_finish(writer), SCACHE_NOT_KEPT);
	scache_writer_close(writer);
	scache_reader_close(reader);
	disarm();
	scache_close(cache);
}

static void fail(size_t message_bytes)
{
	static const char message[4000] = "it went wrong";
	struct scache *cache = open_cache();
	struct scache_writer *writer;

	arm();
	create(cache, 0, NULL, &writer);
	put_some(writer, KEY_SEED, 0, 100000);
	must_be(scache_abort(writer, 7, message, message_bytes), 0);
	scache_writer_close(writer);
	disarm();
	scache_close(cache);
}

void run_fail(void)
{
	fail(100);
}

void run_fail_at_length(void)
{
	fail(4000);
}

static void hold_rings(struct scache *cache, struct scache_writer *writers[RINGS])
{
	for (unsigned i = 0; i < RINGS; i++) {
		char key[] = "ring 0";

		key[5] += (char)i;
		/* Until whoever has it now gives it back. */
		for (writers[i] = NULL; writers[i] == NULL; pause_briefly()) {
			must_be(acquire(cache, key, 0, 0, NULL, &writers[i]), 0);
			if (writers[i] != NULL && writers[i]->ring == NULL) {
				scache_writer_close(writers[i]);
				writers[i] = NULL;
			}
		}
	}
}

/* All rings are in use, but for the first one once the victim has begun. */
static void hold_until(_Atomic int *sign)
{
	struct scache *cache = open_cache();
	struct scache_writer *writers[RINGS];

	hold_rings(cache, writers);
	scene->mate_ready = 1;
	eventually(*sign || scene->over);
	scache_writer_close(writers[0]);
	eventually(scene->over);
	for (unsigned i = 1; i < RINGS; i++)
		scache_writer_close(writers[i]);
	scache_close(cache);
}

void mate_rings(void)
{
	hold_until(&scene->over);
}

void mate_lend(void)
{
	hold_until(&scene->begun);
}

/* While the victim is about to link its entry another one does. */
void rival_produce(void)
{
	struct scache *cache = open_cache();
	struct scache_writer *writer;

	must_be(acquire(cache, KEY, SCACHE_RUN_TO_END, 0, NULL, &writer), 0);
	must(writer != NULL);
	scene->released = 1;
	for (uint64_t done = 0; done < BLOB_BYTES; done += 5000) {
		put_some(writer, KEY_SEED, done, done + 5000);
		pause_briefly();
	}
	must_be(scache_finish(writer), 0);
	scache_writer_close(writer);
	scache_close(cache);
}

void run_lose(void)
{
	struct scache *cache = open_cache();
	struct scache_reader *reader;
	struct scache_writer *writer;

	arm();
	must_be(acquire(cache, KEY, 0, 0, &reader, &writer), 0);
	must(writer == NULL);
	must_be(follow(reader, KEY_SEED, 3000), 0);
	scache_reader_close(reader);
	disarm();
	scache_close(cache);
}

static int create_blob(void *arg, struct scache_writer *writer)
{
	(void)arg;
	gather(writer);
	put_some(writer, KEY_SEED, 0, BLOB_BYTES);
	return 0;
}

void run_fetch(void)
{
	const struct scache_producer producer = { .size = sizeof(producer), .create = create_blob };
	struct scache *cache = open_cache();
	struct scache_reader *reader;

	arm();
	must_be(scache_fetch(cache, KEY, strlen(KEY), NULL, &producer, &reader, NULL), 0);
	must_be(follow(reader, KEY_SEED, 5000), 0);
	scache_reader_close(reader);
	must_be(scache_close(cache), 0);
	disarm();
}

/* A table without a free slot. */
void prepare_full(void)
{
	struct scache *cache = open_cache();
	char key[20] = "other";

	put_entry(cache, key, 7);
	for (unsigned i = 1; i < crash_options.entries; i++) {
		snprintf(key, sizeof(key), "filler %u", i);
		put_entry(cache, key, i);
	}
	scache_close(cache);
}

static void produce_orphan(void)
{
	struct scache *cache = open_cache();
	struct scache_writer *writer;

	must_be(acquire(cache, KEY, SCACHE_RESUMABLE | SCACHE_RUN_TO_END, 0, NULL, &writer), 0);
	must(writer != NULL);
	put_some(writer, KEY_SEED, 0, 100000);
}

/* Dead in the midst of it, and others may go on. */
void mate_orphan(void)
{
	die_at("floor-raised", produce_orphan);
	scene->mate_ready = 1;
}

static void produce_orphan_lent(void)
{
	struct scache *cache = open_cache();
	struct scache_writer *writers[RINGS], *writer;

	hold_rings(cache, writers);
	must_be(acquire(cache, KEY, SCACHE_RESUMABLE | SCACHE_RUN_TO_END, 0, NULL, &writer), 0);
	must(writer != NULL);
	scache_writer_close(writers[0]);
	let_files_have(50000);
	put_some(writer, KEY_SEED, 0, 100000);
}

/* Dead with a ring in its hands that has no byte, and that it has not begun with. */
void mate_orphan_lent(void)
{
	die_at("rescue-noted", produce_orphan_lent);
	scene->mate_ready = 1;
}

void run_take_over(void)
{
	struct scache *cache = open_cache();
	struct scache_reader *reader;
	struct scache_writer *writer = NULL;

	arm();
	/* Until its death is known, and whatever has become of it by then. */
	while (writer == NULL) {
		must_be(acquire(cache, KEY, SCACHE_RESUMABLE | SCACHE_RUN_TO_END, 0, &reader,
				&writer),
			0);
		scache_reader_close(reader);
		pause_briefly();
	}
	put_some(writer, KEY_SEED, scache_written(writer), BLOB_BYTES);
	must(scache_finish(writer) >= 0);
	scache_writer_close(writer);
	disarm();
	scache_close(cache);
}

static void hold_fillers(void *arg)
{
	struct scache *cache = open_cache();
	char key[20];

	(void)arg;
	for (unsigned i = 1; i < crash_options.entries; i++) {
		struct scache_reader *reader;

		snprintf(key, sizeof(key), "filler %u", i);
		must_be(look_up(cache, key, &reader), 0);
		must_be(scache_remove(cache, key, strlen(key)), 0);
	}
	child_say(0);
	child_stay();
}

/* Every slot but one is held by a reader that is stopped. */
void mate_stopped(void)
{
	struct child child;

	child_start(&child, hold_fillers, NULL);
	child_hear(&child);
	child_stop(&child);
	scene->mate_ready = 1;
	eventually(scene->over);
	child_kill(&child);
}

/* ---------------------------------------------------------------- compressed */

#define LARGE_BYTES (3u << 20) /* three rings: a thread compresses them */

/* One line again and again: compression pays. */
static void fill_line(unsigned char *data, size_t bytes)
{
	for (size_t i = 0; i < bytes; i++)
		data[i] = (unsigned char)('a' + i % 17);
}

static void expect_lines(struct scache_reader *reader, const unsigned char *line, size_t bytes)
{
	unsigned char got[17 * 1000];
	uint64_t position = 0;
	ssize_t done;

	must(bytes == sizeof(got));
	while ((done = scache_read(reader, got, sizeof(got), PATIENCE_NS)) > 0) {
		for (ssize_t i = 0; i < done; i++)
			must(got[i] == line[(position + (uint64_t)i) % 17]);
		position += (uint64_t)done;
	}
	must_be(done, 0);
	must_be(position, LARGE_BYTES / sizeof(got) * sizeof(got));
}

/* A blob of many blocks by a thread of its own, one of a block without, and both read again. */
void run_compress(void)
{
	struct scache *cache = open_cache();
	unsigned char lines[17 * 1000];
	struct scache_reader *reader;
	struct scache_writer *writer;

	fill_line(lines, sizeof(lines));
	arm();
	must_be(acquire(cache, "lines", SCACHE_RUN_TO_END, SCACHE_UNLIMITED, NULL, &writer), 0);
	must(writer != NULL);
	for (size_t done = 0; done + sizeof(lines) <= LARGE_BYTES; done += sizeof(lines))
		must_be(scache_write(writer, lines, sizeof(lines), PATIENCE_NS), sizeof(lines));
	must(scache_finish(writer) >= 0);
	scache_writer_close(writer);
	must_be(look_up(cache, "lines", &reader), 0);
	expect_lines(reader, lines, sizeof(lines));
	scache_reader_close(reader);
	create(cache, 0, &reader, &writer);
	pump(writer, reader);
	must(scache_finish(writer) >= 0);
	scache_writer_close(writer);
	scache_reader_close(reader);
	disarm();
	scache_close(cache);
}
