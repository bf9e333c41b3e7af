/* SPDX-License-Identifier: MIT */
/*
 * check_packed_threads - compressed blobs among many processes, for ThreadSanitizer.
 *
 * Each thread is a virtual process, as in check_threads: produces what nobody has, beside
 * its compressor, or reads, early or late, by all calls; and now and then it dies with
 * its hands full, and another goes on. The bytes of a key are always the same.
 */
#include <errno.h>
#include <sched.h>

#include "../util/pattern.h"
#include "../util/workers.h"

#define THREADS 6
#define KEYS 8
#define DEATHS 4 /* of a worker */
#define ROUNDS (UNDER_TSAN ? 40 : 150)
#define BYTES_MAX (2500u << 10)
#define PIECE_MAX WORKER_DATA_BYTES
#define PATIENCE_NS (60 * 1000000000ll)

static _Atomic unsigned takeovers, packed_reads;

/* Every fourth is noise, and one is empty. */
static uint64_t seed_of(unsigned key)
{
	return key % 4 == 3 ? key : PATTERN_TEXT | key;
}

static uint64_t bytes_of(unsigned key)
{
	return key == 0 ? 0 : plan_mix(seed ^ key) % BYTES_MAX;
}

/* ------------------------------------------------------------------------- reading */

static bool is_planned_end(ssize_t error)
{
	return error == -EDOM || error == -ECANCELED || error == -EOWNERDEAD;
}

/* The next bytes by a call of its choice. What that returned. */
static ssize_t read_some(struct worker *w, struct scache_reader *reader, unsigned key,
			 uint64_t *position)
{
	int64_t timeout_ns = draw(w, 2) ? 0 : PATIENCE_NS;
	size_t bytes = 1 + (size_t)draw(w, draw(w, 3) ? 9000 : PIECE_MAX);
	const void *data = w->data;
	uint64_t at = *position;
	ssize_t done;

	switch (draw(w, 4)) {
	case 0:
		done = scache_peek(reader, &data, bytes, timeout_ns);
		if (done > 0)
			must_be(scache_consume(reader, (size_t)done), done);
		break;
	case 1:
		/* Somewhere behind us, which is in the file as likely as not. */
		at = draw(w, *position + 1);
		done = scache_pread(reader, w->data, bytes, at, timeout_ns);
		break;
	default:
		done = scache_read(reader, w->data, bytes, timeout_ns);
	}
	must(done != -ETIMEDOUT);
	if (done > 0)
		must(pattern_matches(seed_of(key), at, data, (size_t)done));
	if (done > 0 && at == *position && data != w->data)
		*position += (uint64_t)done;
	else if (done > 0)
		*position = (uint64_t)scache_seek(reader, at + (uint64_t)done);
	return done;
}

static void read_along(struct worker *w, struct scache_reader *reader, unsigned key)
{
	uint64_t position = 0;
	ssize_t done = -EAGAIN;

	while (draw(w, 200) != 0) {
		done = read_some(w, reader, key, &position);
		if (done == -EAGAIN)
			sched_yield();
		else if (done <= 0)
			break;
		must(position <= bytes_of(key));
	}
	must(done >= 0 || done == -EAGAIN || is_planned_end(done));
	if (done == 0)
		must(position == bytes_of(key));
	atomic_fetch_add(&packed_reads, reader->blob != NULL && reader->blob->packed != NULL);
}

/* ------------------------------------------------------------------------- producing */

/* As SIGKILL would, but that no block is cut in two: see compress_stop(). */
static void die(struct worker *w, struct scache_writer *writer)
{
	compress_stop(writer);
	fall_dead(w, &(struct corpse){ .cache = w->cache, .writer = writer });
	open_again(w);
}

static void produce(struct worker *w, struct scache_writer *writer, unsigned key)
{
	uint64_t at = scache_written(writer), bytes = bytes_of(key), stop = bytes, part;
	bool dies = w->deaths < DEATHS && draw(w, 3) == 0;
	static const char words[5000];

	atomic_fetch_add(&takeovers, writer->taken_over);
	if (dies)
		stop = at + draw(w, bytes - at + 1);
	for (; at < stop; at += part) {
		part = min_u64(stop - at, 1 + draw(w, draw(w, 3) ? 30000 : PIECE_MAX - 1));
		pattern_fill(seed_of(key), at, w->data, (size_t)part);
		must_be(scache_write(writer, w->data, (size_t)part, PATIENCE_NS), part);
	}
	if (dies) {
		die(w, writer);
		return;
	}
	if (draw(w, 6) == 0)
		must_be(scache_abort(writer, -EDOM, words, draw(w, 2) ? sizeof(words) : 10), 0);
	else if (draw(w, 6) != 0)
		must_be(scache_finish(writer), 0);
	scache_writer_close(writer);
}

static void act(struct worker *w)
{
	unsigned key = (unsigned)draw(w, KEYS);
	struct scache_acquire_options options = {
		.size = sizeof(options),
		.flags = SCACHE_RUN_TO_END | (draw(w, 4) ? SCACHE_RESUMABLE : 0),
		.window_bytes = SCACHE_UNLIMITED,
		.compression = draw(w, 3) ? SCACHE_LZ4 : SCACHE_AUTO,
		.level = draw(w, 4) ? 1 : 9,
	};
	struct scache_reader *reader = NULL;
	struct scache_writer *writer = NULL;
	char text[32];
	int ret;

	make_key(key, text);
	if (draw(w, 8) == 0)
		scache_remove(w->cache, text, strlen(text));
	ret = scache_acquire(w->cache, text, strlen(text), &options, draw(w, 8) ? &reader : NULL,
			     &writer);
	must(ret == 0 || ret == SCACHE_BYPASS);
	if (writer != NULL) {
		scache_reader_close(reader);
		produce(w, writer, key);
	} else if (reader != NULL) {
		read_along(w, reader, key);
		scache_reader_close(reader);
	}
}

static void *work(void *arg)
{
	long rounds = rounds_or(ROUNDS);

	while (rounds-- > 0)
		act(arg);
	return NULL;
}

/* ---------------------------------------------------------------------------- test */

static void look_at_the_remains(unsigned deaths)
{
	struct scache *cache = fixture_open(&f);
	struct scache_sweep_options options = { .size = sizeof(options), .max_age_ns = SCACHE_ZERO };
	struct scache_stats stats = { .size = sizeof(stats) };

	eventually(scache_sweep(cache, &options, NULL) == 0 && scache_stat(cache, &stats) == 0 &&
		   stats.entries == 0);
	must_be(scache_check(cache, NULL, NULL), 0);
	must_be(stats.damaged, 0);
	must_be(stats.degraded, 0);
	must_be(stats.rings_in_use, 0);
	must_be(stats.deaths, deaths);
	must_be(fixture_count_files(f.dir), 1);
	printf("%llu productions, %llu hits, %llu joins, %u deaths, %u take-overs, "
	       "%u readers of frames\n",
	       (unsigned long long)stats.productions, (unsigned long long)stats.hits,
	       (unsigned long long)stats.joins, deaths, atomic_load(&takeovers),
	       atomic_load(&packed_reads));
}

START_TEST(whoever_produces_and_whoever_reads_each_byte_is_right)
{
	static struct worker workers[THREADS];

	fixture_begin(&f);
	f.options.peers = 2 * THREADS + 2;
	f.options.rings = THREADS;
	f.options.ring_bytes = 1 << 20;
	for (unsigned i = 0; i < THREADS; i++)
		open_again(&workers[i]);
	look_at_the_remains(workers_run(workers, THREADS, work));
	fixture_end(&f);
}
END_TEST

int main(void)
{
	return workers_main("packed_threads", whoever_produces_and_whoever_reads_each_byte_is_right);
}
