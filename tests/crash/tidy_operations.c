/* SPDX-License-Identifier: MIT */
/*
 * operations - what a victim dies in, and what comes before.
 */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "streamcache.h"
#include "tidy.h"

#define PIECE_BYTES 16000u
#define FILLERS 16 /* as many as there are entries */

/* The victim's. */
static struct scache *its_cache;
static struct scache_writer *its_writer;
static struct scache_reader *its_reader;
static unsigned char its_data[150000]; /* what it writes next: made before, uncounted */

/* ---------------------------------------------------- the survivor prepares */

static void store(void)
{
	tidy_produce(tidy_key, sizeof(tidy_key), scene.own_version, STORED_BYTES);
}

static void store_and_read(void)
{
	store();
	tidy_attach(scene.own_version);
	must_be(tidy_read(scene.reader, &scene.reader_version, &scene.reader_position, 20000), 1);
}

/* Finished, and all that is known of it is its file. */
static void store_and_lose(void)
{
	store();
	tidy_lose_segment();
}

static void fill_table(void)
{
	char name[8];

	for (int i = 0; i < FILLERS; i++)
		tidy_produce(name, (size_t)snprintf(name, sizeof(name), "f%d", i),
			     scene.own_version, 10);
}

static void grow_alone(void)
{
	must_be(scache_acquire(scene.cache, tidy_key, sizeof(tidy_key), NULL, NULL, &scene.writer),
		0);
	must(scene.writer != NULL);
	tidy_write(scene.writer, scene.own_version, 0, 40000);
}

static void grow(void)
{
	grow_alone();
	tidy_attach(scene.own_version);
	must_be(tidy_read(scene.reader, &scene.reader_version, &scene.reader_position, 10000), 1);
}

static void meet_writer(void)
{
	tidy_attach(scene.victim_version);
}

/* --------------------------------------- the victim, up to the operation */

static void its_open(const struct operation *op)
{
	(void)op;
	its_cache = tidy_open_cache();
}

static void its_start(uint32_t flags, uint64_t bytes)
{
	struct scache_acquire_options options = { .size = sizeof(options), .flags = flags };

	its_cache = tidy_open_cache();
	must_be(scache_acquire(its_cache, tidy_key, sizeof(tidy_key), &options, NULL, &its_writer),
		0);
	must(its_writer != NULL);
	tidy_write(its_writer, scene.victim_version, 0, bytes);
	tidy_fill(scene.victim_version, bytes, its_data, sizeof(its_data));
}

/* A producer dies, two readers of its own beside it. The survivor has read nothing yet. */
static void see_die(uint32_t flags, uint64_t bytes)
{
	pid_t child;

	fflush(NULL);
	child = fork();
	must(child >= 0);
	if (child == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		its_start(flags, bytes);
		for (int i = 0; i < 2; i++)
			must_be(scache_lookup(its_cache, tidy_key, sizeof(tidy_key), NULL,
					      &its_reader),
				0);
		raise(SIGSTOP);
		_exit(3);
	}
	tidy_await_stop(child);
	tidy_attach(scene.victim_version);
	tidy_bury(child);
}

static void see_producer_die(void)
{
	see_die(0, 50000);
}

static void leave_ring(void)
{
	see_die(SCACHE_RESUMABLE, 20000);
}

/* Of three flush units two are in the file, the rest of it is in the ring. */
static void leave_file_and_ring(void)
{
	see_die(SCACHE_RESUMABLE, 98000);
}

/* Of more than two blocks, at most, two are in the file. */
static void leave_blocks(void)
{
	see_die(SCACHE_RESUMABLE, 600000);
}

/* Known to be an orphan, so that there is nobody to ask for. */
static void its_inherit(const struct operation *op)
{
	its_cache = tidy_open_cache();
	must_be(scache_sweep(its_cache, NULL, NULL), 0);
	tidy_fill(scene.victim_version, op->least, its_data, sizeof(its_data));
}

static void its_fill(const struct operation *op)
{
	its_start(0, op->least);
}

static void its_fill_resumable(const struct operation *op)
{
	its_start(SCACHE_RESUMABLE, op->least);
}

static void its_pass(const struct operation *op)
{
	its_start(SCACHE_PASS_THROUGH | SCACHE_PACE_SLOWEST, op->least);
}

static void its_lookup(const struct operation *op)
{
	its_open(op);
	must_be(scache_lookup(its_cache, tidy_key, sizeof(tidy_key), NULL, &its_reader), 0);
}

/* All cells of one block. */
static void its_lookups(const struct operation *op)
{
	its_lookup(op);
	for (int i = 1; i < 64; i++)
		must_be(scache_lookup(its_cache, tidy_key, sizeof(tidy_key), NULL, &its_reader), 0);
}

static void its_end(const struct operation *op)
{
	its_lookup(op);
	scache_reader_close(its_reader);
}

static void its_read_up(const struct operation *op)
{
	unsigned char data[PIECE_BYTES];
	ssize_t got;

	its_lookup(op);
	do
		got = scache_read(its_reader, data, sizeof(data), 0);
	while (got > 0);
	must_be(got, -EAGAIN);
}

/* ------------------------------------------------------------ the operations */

static void run_open(void)
{
	its_cache = tidy_open_cache();
}

static void run_acquire(void)
{
	must_be(scache_acquire(its_cache, tidy_key, sizeof(tidy_key), NULL, &its_reader,
			       &its_writer),
		0);
}

static void run_refresh(void)
{
	struct scache_acquire_options o = { .size = sizeof(o), .flags = SCACHE_REFRESH };

	must_be(scache_acquire(its_cache, tidy_key, sizeof(tidy_key), &o, &its_reader, &its_writer),
		0);
}

static void run_lookup(void)
{
	must_be(scache_lookup(its_cache, tidy_key, sizeof(tidy_key), NULL, &its_reader), 0);
}

static void write_next(size_t bytes)
{
	must_be(scache_write(its_writer, its_data, bytes, TIMEOUT_NS), bytes);
}

static void run_write(void)
{
	write_next(1500);
}

static void run_long(void)
{
	for (size_t done = 0; done < 150000; done += 50000)
		must_be(scache_write(its_writer, its_data + done, 50000, TIMEOUT_NS), 50000);
}

/* At once, past the ring. */
static void run_large(void)
{
	write_next(150000);
}

/*
 * The first ring's worth goes to the ring, whatever it comes in; behind it a large write
 * passes it; then on in the ring, which is empty: its bytes are in the file alone.
 */
static void run_mixed(void)
{
	size_t done = 0, parts[] = { 46000, 70000, 1000, 33000 };

	for (int i = 0; i < 4; i++) {
		must_be(scache_write(its_writer, its_data + done, parts[i], TIMEOUT_NS), parts[i]);
		done += parts[i];
	}
}

/* Two grants, of the second only a part; 0xee is what nobody may see. */
static void run_reserve(void)
{
	size_t done = 0, wanted[] = { 400, 300 };
	ssize_t room;
	void *data;

	for (int i = 0; i < 2; i++) {
		room = scache_reserve(its_writer, wanted[i] + 200, &data, 0);
		must(room >= (ssize_t)wanted[i]);
		memset(data, 0xee, (size_t)room);
		memcpy(data, its_data + done, wanted[i]);
		must_be(scache_commit(its_writer, wanted[i]), wanted[i]);
		done += wanted[i];
	}
}

static void run_finish(void)
{
	must_be(scache_finish(its_writer), 0);
}

static void run_take_over(void)
{
	struct scache_acquire_options o = { .size = sizeof(o), .flags = SCACHE_RESUMABLE };

	must_be(scache_acquire(its_cache, tidy_key, sizeof(tidy_key), &o, &its_reader, &its_writer),
		0);
	must(its_writer != NULL);
	/* Of a machine that was busy for half a second there is nothing to inherit. */
	if (scache_written(its_writer) == 0)
		return;
	write_next(1500);
	run_finish();
}

static void run_finish_pass(void)
{
	write_next(1500);
	must_be(scache_finish(its_writer), SCACHE_NOT_KEPT);
}

static void run_abort(void)
{
	must_be(scache_abort(its_writer, 7, its_data, 2000), 0);
}

static void run_read(void)
{
	must(scache_read(its_reader, its_data, 2000, 0) > 0);
}

static void run_peek(void)
{
	const void *data;
	ssize_t seen;

	for (int i = 0; i < 2; i++) {
		seen = scache_peek(its_reader, &data, SIZE_MAX, 0);
		must(seen > 1);
		must_be(scache_consume(its_reader, (size_t)seen / 2), seen / 2);
	}
}

static void run_wait(void)
{
	must_be(scache_read(its_reader, its_data, 2000, 1000000), -ETIMEDOUT);
}

static void run_leave(void)
{
	scache_reader_close(its_reader);
}

static void run_give_up(void)
{
	scache_writer_close(its_writer);
}

static void run_remove(void)
{
	must_be(scache_remove(its_cache, tidy_key, sizeof(tidy_key)), 0);
}

static void run_sweep(void)
{
	must_be(scache_sweep(its_cache, NULL, NULL), 0);
}

static void run_expire(void)
{
	struct scache_sweep_options o = { .size = sizeof(o), .max_age_ns = SCACHE_ZERO };

	must_be(scache_sweep(its_cache, &o, NULL), 0);
}

static void run_close(void)
{
	must_be(scache_close(its_cache), 0);
}

/* clang-format off */
#define LZ4 (OP_LZ4 | OP_LONG)
const struct operation operations[] = {
	{ "open, creating", OP_FRESH, NO_END, 0, 0, NULL, NULL, NULL, run_open },
	{ "open, joining", 0, NO_END, 0, 0, store_and_read, NULL, NULL, run_open },
	{ "open, reaping", 0, NO_END, 50000, 50000, see_producer_die, NULL, NULL, run_open },
	{ "acquire, creating", 0, NO_END, 0, 0, NULL, its_open, NULL, run_acquire },
	{ "acquire, evicting", 0, NO_END, 0, 0, fill_table, its_open, NULL, run_acquire },
	{ "acquire, refreshing", 0, NO_END, 0, 0, store, its_open, NULL, run_refresh },
	{ "acquire, joining", 0, NO_END, 0, 0, grow, its_open, NULL, run_acquire },
	{ "lookup", 0, NO_END, 0, 0, store_and_read, its_open, NULL, run_lookup },
	{ "lookup, new block", 0, NO_END, 0, 0, store, its_lookups, NULL, run_lookup },
	{ "write, small", 0, NO_END, 100, 1600, NULL, its_fill, meet_writer, run_write },
	{ "write, over the end", 0, NO_END, 65000, 66500, NULL, its_fill, meet_writer, run_write },
	{ "write, flushing", 0, NO_END, 98000, 99500, NULL, its_fill, meet_writer, run_write },
	{ "write, long", OP_LONG, NO_END, 20000, 170000, NULL, its_fill, meet_writer, run_long },
	{ "write, large", 0, NO_END, 20000, 170000, NULL, its_fill, meet_writer, run_large },
	{ "write, large, heir", OP_HEIR, 0, 20000, 170000, NULL, its_fill_resumable, meet_writer, run_large },
	{ "write, mixed, heir", OP_HEIR, 0, 20000, 170000, NULL, its_fill_resumable, meet_writer, run_mixed },
	{ "reserve, commit", 0, NO_END, 98000, 98700, NULL, its_fill, meet_writer, run_reserve },
	{ "finish", 0, 0, 100000, 100000, NULL, its_fill, meet_writer, run_finish },
	{ "take over", OP_HEIR, 0, 20000, 21500, leave_ring, its_inherit, NULL, run_take_over },
	{ "take over, file", OP_HEIR, 0, 98000, 99500, leave_file_and_ring, its_inherit, NULL, run_take_over },
	{ "pass-through", 0, 0, 30000, 31500, NULL, its_pass, meet_writer, run_finish_pass },
	{ "abort", 0, -EREMOTEIO, 100000, 100000, NULL, its_fill, meet_writer, run_abort },
	{ "writer close", 0, -ECANCELED, 90000, 90000, NULL, its_fill, meet_writer, run_give_up },
	{ "read, ring", 0, NO_END, 0, 0, grow, its_lookup, NULL, run_read },
	{ "read, file", 0, NO_END, 0, 0, store_and_read, its_lookup, NULL, run_read },
	{ "peek, growing", 0, NO_END, 0, 0, grow, its_lookup, NULL, run_peek },
	{ "peek, file", 0, NO_END, 0, 0, store_and_read, its_lookup, NULL, run_peek },
	{ "read, waiting", 0, NO_END, 0, 0, grow, its_read_up, NULL, run_wait },
	{ "reader close", 0, NO_END, 0, 0, grow, its_lookup, NULL, run_leave },
	{ "last reader close", OP_ALONE, NO_END, 0, 0, grow_alone, its_lookup, NULL, run_leave },
	{ "remove", 0, NO_END, 0, 0, store, its_open, NULL, run_remove },
	{ "remove, read", 0, NO_END, 0, 0, store_and_read, its_open, NULL, run_remove },
	{ "sweep, expired", 0, NO_END, 0, 0, store, its_open, NULL, run_expire },
	{ "sweep, read", 0, NO_END, 0, 0, store_and_read, its_open, NULL, run_expire },
	{ "sweep, reaping", 0, NO_END, 50000, 50000, NULL, its_open, see_producer_die, run_sweep },
	{ "adopt, lookup", 0, NO_END, 0, 0, store_and_lose, its_open, NULL, run_lookup },
	{ "adopt, acquire", 0, NO_END, 0, 0, store_and_lose, its_open, NULL, run_acquire },
	{ "adopt, refresh", 0, NO_END, 0, 0, store_and_lose, its_open, NULL, run_refresh },
	{ "adopt, remove", 0, NO_END, 0, 0, store_and_lose, its_open, NULL, run_remove },
	{ "adopt, sweep", 0, NO_END, 0, 0, store_and_lose, its_open, NULL, run_sweep },
	{ "adopt, expire", 0, NO_END, 0, 0, store_and_lose, its_open, NULL, run_expire },
	{ "lz4, adopt", LZ4, NO_END, 0, 0, store_and_lose, its_open, NULL, run_lookup },
	{ "lz4, write", LZ4, NO_END, 500000, 650000, NULL, its_fill, meet_writer, run_long },
	{ "lz4, write, heir", LZ4 | OP_HEIR, 0, 500000, 650000, NULL, its_fill_resumable, meet_writer, run_long },
	{ "lz4, finish", LZ4, 0, 600000, 600000, NULL, its_fill, meet_writer, run_finish },
	{ "lz4, finish, heir", LZ4 | OP_HEIR | OP_ENDS, 0, 600000, 600000, NULL, its_fill_resumable, meet_writer, run_finish },
	{ "lz4, take over", LZ4 | OP_HEIR | OP_ENDS, 0, 600000, 601500, leave_blocks, its_inherit, NULL, run_take_over },
	{ "lz4, abort", LZ4, -EREMOTEIO, 600000, 600000, NULL, its_fill, meet_writer, run_abort },
	{ "lz4, writer close", LZ4, -ECANCELED, 600000, 600000, NULL, its_fill, meet_writer, run_give_up },
	{ "lz4, read, file", LZ4, NO_END, 0, 0, store_and_read, its_lookup, NULL, run_read },
	{ "close", 0, NO_END, 0, 0, store_and_read, its_end, NULL, run_close },
};
/* clang-format on */
const unsigned operation_count = sizeof(operations) / sizeof(operations[0]);
