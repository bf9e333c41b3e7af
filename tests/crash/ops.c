/* SPDX-License-Identifier: MIT */
/*
 * ops - what the victims do, and what must have happened before. An operation
 * arms itself once the cache is open, unless opening is what it does. Those
 * that produce are in produce.c.
 *
 * Where somebody is stopped in the midst of a look-up nothing is reclaimed for a
 * second: the small table would run full of what is made and removed meanwhile
 * (OP_QUIET).
 */
#include <errno.h>
#include <fcntl.h>
#include <glob.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "api/cache.h"
#include "base/hash.h"
#include "ops.h"
#include "stream/stream.h"

#define HELD_SEATS 16

static const char zeros[1000000];

/* ------------------------------------------------------------------- pieces */

int look_up(struct scache *cache, const char *key, struct scache_reader **ret_reader)
{
	return scache_lookup(cache, key, strlen(key), NULL, ret_reader);
}

int acquire(struct scache *cache, const char *key, uint32_t flags, uint64_t window_bytes,
	    struct scache_reader **ret_reader, struct scache_writer **ret_writer)
{
	const struct scache_acquire_options options = { .size = sizeof(options),
							.flags = flags,
							.window_bytes = window_bytes };
	int64_t end_ms = now_ms() + DEADLINE_MS;
	int ret;

	/* The small table may be full for as long as somebody is kept from the processor. */
	for (;;) {
		ret = scache_acquire(cache, key, strlen(key), &options, ret_reader, ret_writer);
		if (ret != SCACHE_BYPASS || now_ms() >= end_ms)
			return ret;
		pause_briefly();
	}
}

void gather(struct scache_writer *writer)
{
	if (scene->survivors == 0)
		return;
	eventually(scene->attached >= 2);
	if (writer != NULL)
		eventually(shm_load(&writer->entry->readers_event) & 1);
}

void put_entry(struct scache *cache, const char *key, uint64_t seed)
{
	struct scache_writer *writer;

	must_be(acquire(cache, key, 0, 0, NULL, &writer), 0);
	must(writer != NULL);
	put_all(writer, seed);
}

/* Look up and read to the end, whatever that is. */
static void read_key(struct scache *cache, const char *key)
{
	struct scache_reader *reader;

	if (look_up(cache, key, &reader) == 0) {
		scene->begun = 1;
		follow(reader, KEY_SEED, 1000);
		scache_reader_close(reader);
	}
}

/* --------------------------------------------------------- opening, destroying */

static void run_open(void)
{
	struct scache_reader *reader;
	struct scache *cache;

	arm();
	cache = open_cache();
	must_be(look_up(cache, "nothing", &reader), -ENOENT);
	must_be(scache_close(cache), 0);
	disarm();
}

static void prepare_half(void)
{
	die_at("segment-header-written", run_open);
}

/* Finished blobs of a segment that is lost: one has the key, one is nobody's wish. */
static void prepare_former(void)
{
	struct scache *cache = open_cache();

	put_entry(cache, KEY, KEY_SEED);
	put_entry(cache, "unwanted", 5);
	put_entry(cache, "unasked", 6);
	segment_retire(cache->seat->store.segment);
	must_be(scache_close(cache), 0);
	/* What was taken there is not counted in the next one. */
	for (int i = 0; i < LABELS_MAX; i++)
		scene->passed[i] = 0;
}

static void run_adopt(void)
{
	struct scache *cache = open_cache();

	arm();
	read_key(cache, KEY);
	scache_remove(cache, "unwanted", 8);
	must_be(scache_sweep(cache, NULL, NULL), 0);
	disarm();
	scache_close(cache);
}

/* Little is allowed: former blobs count, and what nobody reads makes way. */
static void run_limit(void)
{
	const struct scache_options changes = { .size = sizeof(changes), .max_bytes = 3 << 20 };
	struct scache *cache = open_cache();

	arm();
	scache_configure(cache, &changes);
	for (uint64_t i = 0; i < 4; i++) {
		char key[] = { 'm', (char)('0' + i), '\0' };
		struct scache_writer *writer;

		if (acquire(cache, key, SCACHE_RUN_TO_END, 0, NULL, &writer) != 0 || writer == NULL)
			continue;
		must_be(scache_write(writer, zeros, sizeof(zeros), SCACHE_FOREVER),
			sizeof(zeros));
		must(scache_finish(writer) >= 0);
		scache_writer_close(writer);
	}
	disarm();
	scache_close(cache);
}

static void run_destroy(void)
{
	arm();
	scache_destroy(crash_dir, NULL);
	disarm();
}

static void prepare_blob(void)
{
	struct scache *cache = open_cache();

	put_entry(cache, KEY, KEY_SEED);
	scache_close(cache);
}

/* Somebody sits in a segment that has been retired. */
static void mate_retired(void)
{
	struct scache *cache = open_cache();

	segment_retire(cache->seat->store.segment);
	scene->mate_ready = 1;
	eventually(scene->over);
	scache_close(cache);
}

static void take_seat(void *arg)
{
	struct scache *cache;

	(void)arg;
	child_say(scache_open(crash_dir, &crash_options, &cache));
	child_stay();
}

/* Every seat that is left, and all of these die at once. */
static void mate_full_house(void)
{
	struct child seats[HELD_SEATS];
	int count = 0;
	int64_t said;

	do {
		must(count < HELD_SEATS);
		child_start(&seats[count], take_seat, NULL);
		said = child_hear(&seats[count++]);
	} while (said == 0);
	must_be(said, -EUSERS);
	for (int i = 0; i < count; i++)
		child_kill(&seats[i]);
	scene->mate_ready = 1;
}

/* ------------------------------------------------------------------- reading */

/* Writes on as its slowest reader reads. */
static void mate_write(void)
{
	struct scache *cache = open_cache();
	struct scache_writer *writer;

	must_be(acquire(cache, KEY, SCACHE_PACE_SLOWEST | SCACHE_RUN_TO_END, 16384, NULL, &writer),
		0);
	must(writer != NULL);
	put_some(writer, KEY_SEED, 0, 5000);
	scene->mate_ready = 1;
	eventually(scene->begun || scene->over);
	put_some(writer, KEY_SEED, 5000, BLOB_BYTES);
	must_be(scache_finish(writer) < 0, 0);
	scache_writer_close(writer);
	scache_close(cache);
}

static void run_read(void)
{
	struct scache *cache = open_cache();

	arm();
	read_key(cache, KEY);
	disarm();
	scache_close(cache);
}

static void run_lookup(void)
{
	struct scache *cache = open_cache();
	struct scache_reader *reader;

	arm();
	if (look_up(cache, KEY, &reader) == 0)
		scache_reader_close(reader);
	disarm();
	scache_close(cache);
}

static void rival_remove(void)
{
	struct scache *cache = open_cache();

	scache_remove(cache, KEY, strlen(KEY));
	scene->released = 1;
	scache_close(cache);
}

/* A stranger takes the file away, from under those who have it open. */
static void mate_break(void)
{
	struct key_hash hash = hash_key(KEY, strlen(KEY));
	char pattern[400];
	glob_t found;

	gather(NULL);
	snprintf(pattern, sizeof(pattern), "%s/blobs/*/%016llx*", crash_dir,
		 (unsigned long long)hash.high);
	must_be(glob(pattern, 0, NULL, &found), 0);
	must_be(found.gl_pathc, 1);
	must(unlink(found.gl_pathv[0]) == 0);
	globfree(&found);
	scene->mate_ready = 1;
}

static void run_broken(void)
{
	struct scache *cache = open_cache();

	arm();
	get_blob(cache, KEY, KEY_SEED);
	disarm();
	scache_close(cache);
}

/* ----------------------------------------------------------- removing, sweeping */

static void run_remove(void)
{
	struct scache *cache = open_cache();

	arm();
	scache_remove(cache, KEY, strlen(KEY));
	disarm();
	scache_close(cache);
}

static void produce_dead(void)
{
	struct scache *cache = open_cache();
	struct scache_reader *reader;
	struct scache_writer *writer;

	must_be(acquire(cache, "dead", 0, 0, &reader, &writer), 0);
	must(writer != NULL);
	put_some(writer, KEY_SEED, 0, 100000);
}

/* One more death, but not before the victim has opened: it would reap then. */
static void mate_dead(void)
{
	scene->mate_ready = 1;
	eventually(scene->begun);
	die_at("floor-raised", produce_dead);
	scene->released = 1;
}

/* The segment of a cache that has vanished, two minutes ago. */
static void leave_derelict(void)
{
	struct shm_header header = { .magic = SHM_MAGIC, .dir = "/nowhere at all" };
	struct timespec times[2] = { { .tv_nsec = UTIME_OMIT }, { .tv_sec = time(NULL) - 120 } };
	char path[500];
	int fd;

	snprintf(path, sizeof(path), "%s/streamcache.%032d", crash_segments, 0);
	fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
	must(fd >= 0 && write(fd, &header, sizeof(header)) == sizeof(header));
	must(futimens(fd, times) == 0 && close(fd) == 0);
}

static void leave_expired(struct scache *cache)
{
	const struct scache_acquire_options options = { .size = sizeof(options),
							.max_age_ns = SCACHE_ZERO };
	struct scache_writer *writer;

	must_be(scache_acquire(cache, "old", 3, &options, NULL, &writer), 0);
	must(writer != NULL);
	put_all(writer, 5);
}

static void leave_file(void)
{
	char path[500];
	int fd;

	snprintf(path, sizeof(path), "%s/blobs/00", crash_dir);
	must(mkdir(path, 0700) == 0 || errno == EEXIST);
	snprintf(path, sizeof(path), "%s/blobs/00/%032d.%032d.1.1", crash_dir, 0, 0);
	fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	must(fd >= 0 && close(fd) == 0);
}

/*
 * An entry that is too old, a file of nobody, a segment of no cache, and what a dead producer
 * leaves.
 */
static void mate_litter(void)
{
	struct scache *cache = open_cache();

	leave_expired(cache);
	scache_close(cache);
	leave_file();
	leave_derelict();
	mate_dead();
}

/* A sweeper that does not cease. */
static void mate_sweep(void)
{
	struct scache *cache = open_cache();

	scene->mate_ready = 1;
	while (!scene->over)
		must_be(scache_sweep(cache, NULL, NULL), 0);
	scache_close(cache);
}

/* Litter and sweep, beside that one. */
static void run_sweeps(void)
{
	struct scache *cache = open_cache();

	for (int i = 0; i < 10; i++) {
		leave_file();
		leave_derelict();
		leave_expired(cache);
		arm();
		must_be(scache_sweep(cache, NULL, NULL), 0);
		disarm();
	}
	scache_close(cache);
}

/* The victim is in, and a dead producer's leavings are there. */
static struct scache *open_before_death(void)
{
	struct scache *cache = open_cache();

	scene->begun = 1;
	eventually(scene->released);
	arm();
	return cache;
}

static void run_repair(void)
{
	struct scache *cache = open_before_death();

	read_key(cache, "dead");
	disarm();
	scache_close(cache);
}

static void run_sweep(void)
{
	struct scache *cache = open_before_death();

	must_be(scache_sweep(cache, NULL, NULL), 0);
	disarm();
	scache_close(cache);
}

/* In the midst of a look-up, and stopped there. */
static void mate_pinned(void)
{
	struct scache *cache = open_cache();
	struct scache_reader *reader;

	hold_at("pin-set");
	must_be(look_up(cache, "nothing", &reader), -ENOENT);
	scache_close(cache);
}

static void run_sweep_pinned(void)
{
	struct scache *cache = open_cache();

	put_entry(cache, "gone", 5);
	arm();
	must_be(scache_remove(cache, "gone", 4), 0);
	must_be(scache_sweep(cache, NULL, NULL), 0);
	disarm();
	scache_close(cache);
}

const struct op ops[] = {
	{ .name = "create", .run = run_open, .flags = OP_OPENS },
	{ .name = "create shared", .run = run_open, .flags = OP_OPENS | OP_SHARED },
	{ .name = "replace", .run = run_open, .prepare = prepare_half, .flags = OP_OPENS },
	{ .name = "retire", .run = run_open, .mate = mate_retired, .flags = OP_OPENS },
	{ .name = "join", .run = run_open },
	{ .name = "adopt", .run = run_adopt, .prepare = prepare_former },
	{ .name = "full house", .run = run_open, .mate = mate_full_house },
	{ .name = "produce", .run = run_produce },
	{ .name = "produce shared", .run = run_produce, .only = "fan-out-made",
	  .flags = OP_SHARED },
	{ .name = "in place", .run = run_in_place },
	{ .name = "pass through", .run = run_pass },
	{ .name = "window", .run = run_window },
	{ .name = "seldom", .run = run_produce, .flags = OP_SELDOM },
	{ .name = "seldom, read", .run = run_read, .mate = mate_write, .flags = OP_SELDOM },
	{ .name = "stall", .run = run_stall },
	{ .name = "no ring", .run = run_produce, .mate = mate_rings },
	{ .name = "large write", .run = run_large },
	{ .name = "compress", .run = run_compress, .flags = OP_THREADS | OP_LZ4 },
	{ .name = "no file", .run = run_no_file },
	{ .name = "rescue", .run = run_rescue, .mate = mate_lend, .flags = OP_QUIET },
	{ .name = "punch", .run = run_punch },
	{ .name = "fail", .run = run_fail },
	{ .name = "fail at length", .run = run_fail_at_length },
	{ .name = "lose", .run = run_lose, .hold = "link-written", .rival = rival_produce,
	  .flags = OP_QUIET },
	{ .name = "lose, no ring", .run = run_lose, .mate = mate_rings, .hold = "link-written",
	  .rival = rival_produce, .flags = OP_QUIET },
	{ .name = "fetch", .run = run_fetch, .flags = OP_THREADS },
	{ .name = "full table", .run = run_produce, .prepare = prepare_full, .flags = OP_QUIET },
	{ .name = "stopped", .run = run_produce, .prepare = prepare_full, .mate = mate_stopped,
	  .flags = OP_QUIET },
	{ .name = "take over", .run = run_take_over, .mate = mate_orphan, .flags = OP_QUIET },
	{ .name = "take over, lent", .run = run_take_over, .mate = mate_orphan_lent,
	  .flags = OP_QUIET },
	{ .name = "read ring", .run = run_read, .mate = mate_write },
	{ .name = "read file", .run = run_read, .prepare = prepare_blob },
	{ .name = "door", .run = run_lookup, .prepare = prepare_blob, .hold = "cursor-set",
	  .rival = rival_remove, .flags = OP_QUIET },
	{ .name = "refresh", .run = run_refresh, .prepare = prepare_blob },
	{ .name = "broken", .run = run_broken, .prepare = prepare_blob, .mate = mate_break },
	{ .name = "remove", .run = run_remove, .prepare = prepare_blob },
	{ .name = "remove growing", .run = run_remove, .mate = mate_write },
	{ .name = "repair", .run = run_repair, .mate = mate_dead, .flags = OP_QUIET },
	{ .name = "sweep", .run = run_sweep, .mate = mate_litter, .flags = OP_QUIET },
	{ .name = "sweep, two", .run = run_sweeps, .mate = mate_sweep, .flags = OP_QUIET },
	{ .name = "sweep, pinned", .run = run_sweep_pinned, .mate = mate_pinned,
	  .flags = OP_QUIET },
	{ .name = "limit", .run = run_limit, .prepare = prepare_former, .flags = OP_QUIET },
	{ .name = "destroy", .run = run_destroy, .prepare = prepare_blob, .flags = OP_OPENS },
};
const int op_count = sizeof(ops) / sizeof(ops[0]);
