/* SPDX-License-Identifier: MIT */
/*
 * survive - what goes on beside a death, and what must be left of it.
 */
#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "api/cache.h"
#include "crash.h"
#include "index/repair.h"
#include "index/ring.h"
#include "../util/pattern.h"

/* ----------------------------------------------------------------- any caller */

struct scache *open_cache(void)
{
	struct scache *cache;
	int ret = scache_open(crash_dir, &crash_options, &cache);

	if (ret < 0)
		spawn_fail(__FILE__, __LINE__, "open: %s: %s", scache_strerror(ret),
			   scache_detail());
	return cache;
}

void put_some(struct scache_writer *writer, uint64_t seed, uint64_t from, uint64_t until)
{
	unsigned char data[5000];

	while (from < until) {
		size_t bytes = until - from < sizeof(data) ? (size_t)(until - from) : sizeof(data);

		pattern_fill(seed, from, data, bytes);
		must_be(scache_write(writer, data, bytes, PATIENCE_NS), bytes);
		from += bytes;
	}
}

void put_all(struct scache_writer *writer, uint64_t seed)
{
	put_some(writer, seed, 0, BLOB_BYTES);
	must(scache_finish(writer) >= 0);
	scache_writer_close(writer);
}

int follow(struct scache_reader *reader, uint64_t seed, size_t piece)
{
	unsigned char data[8192];
	uint64_t position = 0;
	ssize_t got;

	must(piece <= sizeof(data));
	while ((got = scache_read(reader, data, piece, PATIENCE_NS)) > 0) {
		must(pattern_matches(seed, position, data, (size_t)got));
		position += (uint64_t)got;
	}
	must(position <= BLOB_BYTES);
	if (got == 0)
		must_be(position, BLOB_BYTES);
	else if (got != -EOWNERDEAD && got != -EREMOTEIO && got != -ECANCELED)
		must_be(got, -EOWNERDEAD);
	return (int)got;
}

void get_blob(struct scache *cache, const char *key, uint64_t seed)
{
	struct scache_reader *reader;
	struct scache_writer *writer;
	int64_t end_ms = now_ms() + PATIENCE_NS / 1000000;
	int ret = 1;

	while (ret != 0 && now_ms() < end_ms) {
		ret = scache_acquire(cache, key, strlen(key), NULL, &reader, &writer);
		must(ret == 0 || ret == SCACHE_BYPASS);
		if (ret != 0) {
			pause_briefly(); /* the table is full of what others do just now */
			continue;
		}
		if (writer != NULL)
			put_all(writer, seed);
		ret = follow(reader, seed, 8192);
		scache_reader_close(reader);
	}
	must_be(ret, 0);
}

/* ------------------------------------------------------------------ survivors */

/* Wait for the time to come, come, and say so. */
static struct scache *enter(void)
{
	struct scache *cache;

	eventually(scene->go || scene->over);
	atomic_fetch_add(&scene->entering, 1);
	cache = open_cache();
	return cache;
}

/* Read the key whenever it is there, until the victim is gone; then get it for sure. */
static void survive_with(size_t piece, bool waits)
{
	struct scache_result result = { .size = sizeof(result) };
	struct scache *cache = enter();
	struct scache_reader *reader;
	bool counted = false;

	atomic_fetch_add(&scene->entered, 1);
	while (!scene->over) {
		if (scache_lookup(cache, KEY, strlen(KEY), NULL, &reader) == 0) {
			if (!counted)
				atomic_fetch_add(&scene->attached, 1);
			counted = true;
			follow(reader, KEY_SEED, piece);
			if (waits)
				must_be(scache_wait(reader, PATIENCE_NS, &result), 0);
			scache_reader_close(reader);
		}
		pause_briefly();
	}
	get_blob(cache, KEY, KEY_SEED);
	must_be(scache_close(cache), 0);
}

void survive_live(void)
{
	survive_with(1500, false);
}

void survive_joined(void)
{
	survive_with(8192, true);
}

void survive_elsewhere(void)
{
	struct scache *cache = enter();
	bool quiet = scene->go > 1;

	get_blob(cache, "other", 7);
	atomic_fetch_add(&scene->entered, 1);
	for (int i = 0; !scene->over; i++) {
		get_blob(cache, "other", 7);
		if (!quiet && i % 2 == 0)
			scache_remove(cache, "other", 5);
		pause_briefly();
	}
	get_blob(cache, "other", 7);
	get_blob(cache, KEY, KEY_SEED);
	must_be(scache_close(cache), 0);
}

/* ------------------------------------------------------------------ inspector */

static void print_finding(void *arg, const char *text)
{
	fprintf(stderr, "%s: %s\n", (const char *)arg, text);
}

/* What a look at everything sees. */
struct view {
	uint64_t live;	/* findable entries */
	uint64_t of_key; /* of these, with the key in question */
	uint64_t files;
	uint64_t forgotten; /* finished, not to be retained, and nobody reads it */
};

static int see_entry(void *arg, const struct scache_entry_info *info)
{
	struct view *view = arg;

	if (info->flags & SCACHE_HIDDEN || info->state == SCACHE_FAILED)
		return 0;
	view->live++;
	view->forgotten += info->flags & SCACHE_TRANSIENT && info->state == SCACHE_FINISHED &&
			   info->readers == 0;
	view->of_key += info->key_bytes == strlen(KEY) && memcmp(info->key, KEY, strlen(KEY)) == 0;
	return 0;
}

static uint64_t count_files(const char *path, int depth, bool shared)
{
	DIR *dir = opendir(path);
	uint64_t count = 0;
	struct dirent *at;
	struct stat st;
	char below[700];

	must(dir != NULL);
	while ((at = readdir(dir)) != NULL) {
		if (at->d_name[0] == '.')
			continue;
		snprintf(below, sizeof(below), "%s/%s", path, at->d_name);
		must(stat(below, &st) == 0);
		/* The fan-out directory of whatever was produced last. */
		if (depth == 0 && shared)
			must_be(st.st_mode & 0770, 0770);
		count += S_ISDIR(st.st_mode) ? count_files(below, depth + 1, shared) : 1;
	}
	closedir(dir);
	return count;
}

static struct view look(struct scache *cache, const struct op *op)
{
	struct view view = { .files = 0 };
	char blobs[400];

	must_be(scache_each(cache, see_entry, &view), 0);
	must(view.of_key <= 1);
	snprintf(blobs, sizeof(blobs), "%s/blobs", crash_dir);
	view.files = count_files(blobs, 0, op->flags & OP_SHARED);
	return view;
}

static struct scache_stats stats_of(struct scache *cache)
{
	struct scache_stats stats = { .size = sizeof(stats) };

	must_be(scache_stat(cache, &stats), 0);
	return stats;
}

static uint32_t passed(const char *label)
{
	return scene->passed[label_index(label)];
}

/* Each thing was taken as often as it was given back, plus what is in use. */
static void count_exactly(const struct segment *segment)
{
	uint64_t entries = 0, peers = 0, blocks = 0;

	for (uint32_t i = 0; i < segment->geometry.entries; i++) {
		uint64_t word = shm_load(entry_state_word(segment, i));

		entries += state_gen(word) + (state_of(word) != ENTRY_FREE);
	}
	for (uint32_t i = 0; i < segment->geometry.peers; i++) {
		uint64_t word = shm_load(&segment->peers[i].state);

		peers += PEER_GEN(word) + (PEER_STATE(word) != PEER_FREE);
	}
	for (uint32_t i = 0; i < segment->geometry.blocks; i++)
		blocks += shm_load(&segment->block_owners[i]) != 0;
	must_be(entries, passed("entry-claimed"));
	must_be(peers, passed("peer-active"));
	must_be(blocks + passed("block-freed") + passed("reap-block"), passed("block-owned"));
	must_be(ring_count_in_use(segment) + passed("ring-released"),
		passed("ring-claimed") + passed("ring-lent"));
}

/* Whatever waits to be swept, somebody is going to look: also without a sweep of ours. */
static void expect_hint(struct scache *cache)
{
	struct segment *segment = cache->seat->peer.segment;

	repair_reap_all(&cache->seat->peer);
	for (uint32_t i = 0; i < segment->geometry.entries; i++) {
		uint64_t word = shm_load(entry_state_word(segment, i));

		if (state_is_garbage(word) || state_of(word) == ENTRY_RETIRED ||
		    state_needs_reader(word))
			must(shm_load(&segment->header->next_sweep_ns) != UINT64_MAX);
	}
}

static void expect_tidy(struct scache *cache, const struct op *op)
{
	struct scache_sweep_report report = { .size = sizeof(report) };
	struct scache_stats stats;
	struct view first, second;

	must_be(scache_sweep(cache, NULL, &report), 0);
	must_be(report.unknown, 0);
	first = look(cache, op);
	must_be(first.forgotten, 0);
	must_be(scache_sweep(cache, NULL, &report), 0);
	must_be(report.entries + report.orphans + report.unknown + report.reaped + report.evicted +
		report.segments, 0);
	must_be(count_files(crash_segments, 1, false), 1);
	second = look(cache, op);
	must(memcmp(&first, &second, sizeof(first)) == 0);
	stats = stats_of(cache);
	must_be(stats.peers, 1);
	must_be(stats.readers, 0);
	must_be(stats.rings_in_use, 0);
	must_be(stats.entries_filling + stats.entries_failed + stats.entries_hidden, 0);
	must_be(stats.entries_finished, first.live);
	must_be(stats.entries_free + stats.entries_finished, stats.max_entries);
	must_be(first.files, first.live);
	must_be(scache_check(cache, print_finding, (void *)(uintptr_t)op->name), 0);
}

static int remove_entry(void *arg, const struct scache_entry_info *info)
{
	must_be(scache_remove(arg, info->key, info->key_bytes), 0);
	return 0;
}

void inspect(const struct op *op, bool exact)
{
	const struct scache_options often = { .size = sizeof(often), .min_occurrences = 1 };
	struct scache *cache = open_cache();

	must_be(scache_check(cache, print_finding, (void *)(uintptr_t)op->name), 0);
	look(cache, &(struct op){ .name = op->name });
	expect_hint(cache);
	get_blob(cache, KEY, KEY_SEED);
	expect_tidy(cache, op);
	must_be(scache_configure(cache, &often), 0);
	get_blob(cache, KEY, KEY_SEED);
	get_blob(cache, "fresh", 9);
	get_blob(cache, "fresh", 9);
	get_blob(cache, KEY, KEY_SEED);
	must(look(cache, op).of_key == 1);
	if (exact)
		count_exactly(cache->seat->peer.segment);
	must_be(scache_each(cache, remove_entry, cache), 0);
	expect_tidy(cache, op);
	must_be(look(cache, op).files, 0);
	if (exact)
		count_exactly(cache->seat->peer.segment);
	must_be(scache_close(cache), 0);
	must_be(scache_destroy(crash_dir, NULL), 0);
}
