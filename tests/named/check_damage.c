/* SPDX-License-Identifier: MIT */
/*
 * check_damage - T15, T22: a segment with random damage, and one cut short.
 *
 * A snapshot of a segment in use is put back for each round, damaged, and used
 * by a process of its own in all ways there are. Whatever its calls return, they
 * do, in bounded time. A round is told by its seed alone:
 * STREAMCACHE_TEST_SEED=n runs that round only.
 */
#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <glob.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "api/cache.h"

#include "../util/pattern.h"
#include "../util/scratch.h"
#include "../util/spawn.h"

#define ROUNDS 80
#define LONG_ROUNDS 10000
#define ROUND_SECONDS 25 /* a violation is looked at for 4 ms, in a busy machine */
#define FILES_MAX 16
#define FINISHED 6
#define READ_NS 20000000ll

/* ------------------------------------------------------------------ the snapshot */

struct region {
	size_t offset, bytes;
};

static unsigned char *snapshot;
static size_t snapshot_bytes;
static struct region regions[10];
static unsigned region_count;

static struct kept_file {
	char path[600];
	char data[8192];
	size_t bytes;
} kept[FILES_MAX];
static int kept_count;
static char segment_path[600];

static const char *name_key(int i)
{
	static char key[16];

	snprintf(key, sizeof(key), "key %d", i);
	return key;
}

static void note_region(const struct segment *segment, const void *at, size_t bytes)
{
	regions[region_count++] = (struct region){
		.offset = (size_t)((const unsigned char *)at - (unsigned char *)segment->header),
		.bytes = bytes,
	};
}

static void note_regions(const struct segment *segment)
{
	const struct shm_geometry *g = &segment->geometry;

	note_region(segment, segment->header, sizeof(*segment->header));
	note_region(segment, segment->peers, g->peers * sizeof(struct shm_peer));
	note_region(segment, segment->states, g->entries * sizeof(shm_u64));
	note_region(segment, segment->expires, g->entries * sizeof(shm_u64));
	note_region(segment, segment->buckets, g->buckets * sizeof(shm_u64));
	note_region(segment, segment->block_owners, g->blocks * sizeof(shm_u64));
	note_region(segment, segment->blocks, g->blocks * sizeof(struct shm_block));
	note_region(segment, segment->entries, g->entries * sizeof(struct shm_entry));
	note_region(segment, segment->ring_owners, g->rings * sizeof(shm_u64));
	/* Links, flags and lengths are few among the bytes of keys: half of all damage there. */
	note_region(segment, segment->entries, sizeof(struct shm_entry) * 3);
}

static void keep_file(const char *path)
{
	struct kept_file *file = &kept[kept_count++];
	FILE *in = fopen(path, "r");

	must(kept_count <= FILES_MAX && in != NULL);
	snprintf(file->path, sizeof(file->path), "%s", path);
	file->bytes = fread(file->data, 1, sizeof(file->data), in);
	must(file->bytes < sizeof(file->data));
	fclose(in);
}

static void each_file(const char *pattern, void (*body)(const char *path))
{
	char path[500];
	glob_t found = { .gl_pathc = 0 };

	snprintf(path, sizeof(path), "%s/%s", scratch_base, pattern);
	if (glob(path, 0, NULL, &found) == 0)
		for (size_t i = 0; i < found.gl_pathc; i++)
			body(found.gl_pathv[i]);
	globfree(&found);
}

static void note_segment_path(const char *path)
{
	snprintf(segment_path, sizeof(segment_path), "%s", path);
}

/* Finished entries, one that grows, one that has failed, and readers of all. */
static void fill(struct scache *cache)
{
	struct scache_reader *reader;
	struct scache_writer *writer;

	for (int i = 0; i < FINISHED; i++)
		pattern_produce(scratch_create(cache, name_key(i), 0, &reader), 1, 3000, 1000);
	writer = scratch_create(cache, "grows", 0, &reader);
	must_be(pattern_write(writer, 1, 0, 5000, 1000, NULL), 5000);
	writer = scratch_create(cache, "fails", 0, &reader);
	must_be(pattern_write(writer, 1, 0, 2000, 1000, NULL), 2000);
	must_be(scache_abort(writer, 3, "a message", 9), 0);
}

static void take_snapshot(void *arg)
{
	struct scache *cache = scratch_open();
	const struct segment *segment = cache->seat->store.segment;
	FILE *out = fopen(arg, "w");

	fill(cache);
	must(out != NULL && fwrite(segment->header, segment->bytes, 1, out) == 1);
	must(fclose(out) == 0);
	child_say(0);
	child_stay();
}

static void begin(void)
{
	char path[300];
	struct stat st;
	struct scache *cache;
	struct child child;
	FILE *in;

	scratch_options.entries = 16;
	scratch_options.peers = 4;
	scratch_options.readers = 128;
	scratch_options.rings = 2;
	scratch_options.ring_bytes = 64 << 10;
	cache = scratch_open();
	note_regions(cache->seat->store.segment);
	scratch_close(cache);
	snprintf(path, sizeof(path), "%s/snapshot", scratch_base);
	child_start(&child, take_snapshot, path);
	child_hear(&child);
	each_file("cache/ctl/lock", keep_file);
	each_file("cache/blobs/*/*", keep_file);
	each_file("streamcache.*", note_segment_path);
	child_kill(&child);
	in = fopen(path, "r");
	must(in != NULL && fstat(fileno(in), &st) == 0);
	snapshot_bytes = (size_t)st.st_size;
	snapshot = malloc(snapshot_bytes);
	must(snapshot != NULL && fread(snapshot, snapshot_bytes, 1, in) == 1);
	fclose(in);
}

static void put_file(const char *path, const void *data, size_t bytes)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

	must(fd >= 0 && write(fd, data, bytes) == (ssize_t)bytes);
	close(fd);
}

static void remove_file(const char *path)
{
	must(unlink(path) == 0);
}

static void restore(void)
{
	each_file("streamcache.*", remove_file);
	each_file("cache/blobs/*/*", remove_file);
	for (int i = 0; i < kept_count; i++)
		put_file(kept[i].path, kept[i].data, kept[i].bytes);
	put_file(segment_path, snapshot, snapshot_bytes);
}

/* --------------------------------------------------------------------- the damage */

static void damage_word(unsigned char *segment, const struct region *region, unsigned *random)
{
	static const uint64_t odd[] = { 0,          1,          16,         17,         UINT64_MAX,
					UINT32_MAX, 1ull << 32, 1ull << 63, 0x7fffffff, 255 };
	size_t words = region->bytes / 8, to = rand_r(random) % words,
	       from = rand_r(random) % words;
	uint64_t word;

	/* Another's word of the same kind makes chains cross, join and go round. */
	if (rand_r(random) % 2 == 0)
		memcpy(&word, segment + region->offset + from * 8, 8);
	else
		word = odd[rand_r(random) % (sizeof(odd) / sizeof(odd[0]))];
	memcpy(segment + region->offset + to * 8, &word, 8);
}

static void damage(unsigned char *segment, unsigned *random)
{
	int count = 1 + rand_r(random) % 8;

	for (int i = 0; i < count; i++) {
		const struct region *region = &regions[rand_r(random) % region_count];

		if (rand_r(random) % 3 == 0)
			damage_word(segment, region, random);
		else
			segment[region->offset + rand_r(random) % region->bytes] ^=
				(unsigned char)(1 + rand_r(random) % 255);
	}
}

/* ---------------------------------------------------------------- and all the uses */

static int look_at(void *arg, const struct scache_entry_info *info)
{
	unsigned *sum = arg;

	/* What it points to must be there to be read. */
	for (uint32_t i = 0; i < info->key_bytes; i++)
		*sum += ((const unsigned char *)info->key)[i];
	return 0;
}

static void use_reader(struct scache_reader *reader)
{
	struct scache_entry_info info = { .size = sizeof(info) };
	struct scache_result result = { .size = sizeof(result) };
	static char data[70000];
	uint64_t size, total = 0;
	ssize_t got;

	scache_size(reader, &size);
	scache_reader_info(reader, &info);
	do {
		got = scache_read(reader, data, sizeof(data), READ_NS);
		total += got > 0 ? (uint64_t)got : 0;
	} while (got > 0 && total < 1 << 20);
	scache_pread(reader, data, sizeof(data), 500, READ_NS);
	scache_wait(reader, READ_NS, &result);
	scache_message(reader, data, 100);
	scache_reader_close(reader);
}

static void use_writer(struct scache_writer *writer)
{
	static char data[5000];

	for (int i = 0; i < 30; i++)
		if (scache_write(writer, data, sizeof(data), READ_NS) < 0)
			break;
	scache_finish(writer);
	scache_writer_close(writer);
}

static void look_up(struct scache *cache, const char *key)
{
	struct scache_reader *reader;

	if (scache_lookup(cache, key, strlen(key), NULL, &reader) == 0)
		use_reader(reader);
}

static void produce(struct scache *cache, const char *key)
{
	struct scache_reader *reader;
	struct scache_writer *writer;

	if (scache_acquire(cache, key, strlen(key), NULL, &reader, &writer) != 0)
		return;
	if (writer != NULL)
		use_writer(writer);
	use_reader(reader);
}

static void use(struct scache *cache)
{
	struct scache_stats stats = { .size = sizeof(stats) };
	unsigned sum = 0;

	for (int i = 0; i < FINISHED; i++)
		look_up(cache, name_key(i));
	look_up(cache, "grows");
	look_up(cache, "fails");
	scache_stat(cache, &stats);
	scache_each(cache, look_at, &sum);
	scache_check(cache, NULL, NULL);
	for (int i = 0; i < 20; i++)
		produce(cache, name_key(i + 3));
	scache_remove(cache, name_key(1), 5);
	scache_sweep(cache, NULL, NULL);
	scache_each(cache, look_at, &sum);
	scache_check(cache, NULL, NULL);
}

static void damage_and_attach(unsigned *random)
{
	unsigned char *copy = malloc(snapshot_bytes);
	struct scache *cache;

	must(copy != NULL);
	memcpy(copy, snapshot, snapshot_bytes);
	damage(copy, random);
	put_file(segment_path, copy, snapshot_bytes);
	free(copy);
	if (scache_open(scratch_dir, &scratch_options, &cache) < 0)
		return;
	use(cache);
	scache_close(cache);
}

/* The damage is done while everything is open. */
static void attach_and_damage(unsigned *random)
{
	struct scache *cache = scratch_open();
	struct scache_writer *writer = scratch_create(cache, "own", 0, NULL);
	struct scache_reader *readers[3] = { scratch_find(cache, name_key(0)),
					     scratch_find(cache, name_key(1)), NULL };

	must_be(scache_write(writer, "abc", 3, 0), 3);
	readers[2] = scratch_find(cache, "own");
	damage((unsigned char *)cache->seat->store.segment->header, random);
	use_reader(readers[0]);
	use(cache);
	use_reader(readers[2]);
	use_writer(writer);
	use(cache);
	use_reader(readers[1]);
	scache_close(cache);
}

static void suffer(void *arg)
{
	unsigned random = *(unsigned *)arg;

	alarm(ROUND_SECONDS);
	if (rand_r(&random) % 2 == 0)
		damage_and_attach(&random);
	else
		attach_and_damage(&random);
}

START_TEST(t15_random_damage_crashes_and_hangs_nobody)
{
	const char *only = getenv("STREAMCACHE_TEST_SEED");
	unsigned first = only != NULL ? (unsigned)atoi(only) : 1;
	unsigned rounds = only != NULL ? 1 : scratch_is_long() ? LONG_ROUNDS : ROUNDS;
	int64_t longest_ms = 0, began_ms;
	struct child child;
	int status, bad = 0;

	begin();
	for (unsigned seed = first; seed < first + rounds; seed++) {
		restore();
		began_ms = now_ms();
		child_start(&child, suffer, &seed);
		status = child_end(&child);
		if (now_ms() - began_ms > longest_ms)
			longest_ms = now_ms() - began_ms;
		if (status == 0)
			continue;
		bad++;
		printf("T15: seed %u: status %d\n", seed, status);
	}
	printf("T15: seeds %u to %u, the longest took %d ms\n", first, first + rounds - 1,
	       (int)longest_ms);
	must_be(bad, 0);
	restore();
	scratch_close(scratch_open());
	free(snapshot);
}
END_TEST

/* ------------------------------------------------------------------------- cut short */

static void stay_attached(void *arg)
{
	(void)arg;
	fill(scratch_open());
	child_say(0);
	child_stay();
}

/* The tool as users run it; whatever it says, it says so and is not killed. */
static void tool_survives(const char *command)
{
	const char *build = getenv("TOP_BUILDDIR");
	char line[600];
	int status;

	if (build == NULL)
		return;
	must(setenv("STREAMCACHE_DIR", scratch_dir, 1) == 0);
	must(setenv("STREAMCACHE_SEGMENT_DIR", scratch_base, 1) == 0);
	snprintf(line, sizeof(line), "exec '%s/streamcache' %s >/dev/null", build, command);
	status = system(line);
	must(unsetenv("STREAMCACHE_DIR") == 0 && unsetenv("STREAMCACHE_SEGMENT_DIR") == 0);
	must(WIFEXITED(status) && WEXITSTATUS(status) < 126);
}

START_TEST(t22_a_segment_cut_short_hurts_no_newcomer)
{
	static const off_t sizes[] = { 0, 4, 100, 4096, 10000 };
	static const char *const commands[] = { "ls", "stat", "sweep", "ls", "sweep --dry-run" };
	struct child child;

	for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
		struct scache *cache;

		child_start(&child, stay_attached, NULL);
		child_hear(&child);
		each_file("streamcache.*", note_segment_path);
		must(truncate(segment_path, sizes[i]) == 0);
		if (i % 2 == 0)
			tool_survives(commands[i]);
		/* Found out by pread(2), so no SIGBUS: a segment of its own. */
		cache = scratch_open();
		must_be(scratch_stat(cache).entries, 0);
		use(cache);
		must_be(scache_check(cache, NULL, NULL), 0);
		scratch_close(cache);
		child_kill(&child);
		must_be(scache_destroy(scratch_dir, NULL), 0);
	}
}
END_TEST

int main(void)
{
	const TTest *const tests[] = {
		t15_random_damage_crashes_and_hangs_nobody,
		t22_a_segment_cut_short_hurts_no_newcomer,
	};

	return SCRATCH_RUN("damage", tests);
}
