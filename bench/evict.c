/* SPDX-License-Identifier: MIT */
/*
 * evict - does what stays in a cache that is too small deserve it, and what does it cost
 * to find out?
 *
 *	evict [--rounds=N] [--objects=N] [--requests=N] [--json=FILE] [--only=TEXT] [--smoke] [DIR]
 *
 * Ratio of hits, in percent: the same requests to the library, whose cache is limited by
 * max_entries and otherwise as it comes, and to textbooks (LRU, FIFO, SIEVE) simulated
 * beside it, which hold as many and nothing else. The objects (20000) are asked for with
 * frequencies of a Zipf law of the skew that the question names; "+ scans": ten times in
 * between as many objects as two caches hold, each once and never again. Each round is
 * another seed.
 *
 * Cost: what a miss takes, 1 KiB from look-up to finished, if for each blob another has to
 * go, against the same in a cache without limits.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "plain.h"

#define NOBODY UINT32_MAX
#define SCANS 10
#define MISS_ENTRIES 4096u

static uint32_t objects = 20000, requests = 100000;

/* ---------------------------------------------------------------------------- requests */

struct trace {
	double skew;
	unsigned percent; /* of the objects: what the cache holds */
	bool scans;
	uint32_t *keys;
	uint32_t count;
	uint64_t seed; /* of what is in keys; 0: nothing */
};

static uint32_t room_of(const struct trace *trace)
{
	return objects * trace->percent / 100;
}

static double next_random(uint64_t *state)
{
	*state = *state * 6364136223846793005u + 1442695040888963407u;
	return (double)(*state >> 11) / 9007199254740992.0;
}

static uint32_t draw(const double *sums, uint64_t *state)
{
	double lot = next_random(state) * sums[objects - 1];
	uint32_t low = 0, high = objects - 1;

	while (low < high) {
		uint32_t middle = (low + high) / 2;

		if (sums[middle] <= lot)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

/* All contestants of a round have the same one. */
static void draw_trace(struct trace *trace, uint64_t seed)
{
	uint32_t scan = trace->scans ? 2 * room_of(trace) : 0, at = 0, once = objects;
	uint64_t state = seed * 2654435761u + 1;
	double *sums, sum = 0;

	if (trace->seed == seed)
		return;
	sums = malloc(objects * sizeof(*sums));
	trace->count = requests + SCANS * scan;
	free(trace->keys);
	trace->keys = malloc(trace->count * sizeof(*trace->keys));
	expect(sums != NULL && trace->keys != NULL, "malloc");
	for (uint32_t i = 0; i < objects; i++)
		sums[i] = sum += 1 / pow(i + 1, trace->skew);
	for (uint32_t i = 0; i < requests; i++) {
		trace->keys[at++] = draw(sums, &state);
		for (uint32_t j = 0; j < scan && (i + 1) % (requests / SCANS) == 0 &&
				     at < trace->count; j++)
			trace->keys[at++] = once++;
	}
	trace->count = at;
	trace->seed = seed;
	free(sums);
}

/* --------------------------------------------------------------------------- textbooks */

enum policy {
	LRU,
	FIFO,
	SIEVE,
};

struct node {
	uint32_t newer, older;
	bool here, visited;
};

struct list {
	struct node *nodes;
	uint32_t newest, oldest, hand, count;
};

static void unlink_node(struct list *list, uint32_t key)
{
	struct node *node = &list->nodes[key];

	*(node->newer != NOBODY ? &list->nodes[node->newer].older : &list->newest) = node->older;
	*(node->older != NOBODY ? &list->nodes[node->older].newer : &list->oldest) = node->newer;
	node->here = false;
	list->count--;
}

static void push(struct list *list, uint32_t key)
{
	list->nodes[key] = (struct node){ .newer = NOBODY, .older = list->newest, .here = true };
	*(list->newest != NOBODY ? &list->nodes[list->newest].newer : &list->oldest) = key;
	list->newest = key;
	list->count++;
}

static void remove_one(struct list *list, enum policy policy)
{
	uint32_t victim = list->oldest;

	if (policy == SIEVE) {
		victim = list->hand != NOBODY ? list->hand : list->oldest;
		while (list->nodes[victim].visited) {
			list->nodes[victim].visited = false;
			victim = list->nodes[victim].newer != NOBODY ? list->nodes[victim].newer :
								       list->oldest;
		}
		list->hand = list->nodes[victim].newer;
	}
	unlink_node(list, victim);
}

static double simulate(const struct trace *trace, enum policy policy)
{
	struct list list = { .newest = NOBODY, .oldest = NOBODY, .hand = NOBODY };
	uint32_t hits = 0;

	list.nodes = calloc(objects + trace->count, sizeof(*list.nodes));
	expect(list.nodes != NULL, "calloc");
	for (uint32_t i = 0; i < trace->count; i++) {
		uint32_t key = trace->keys[i];

		if (list.nodes[key].here) {
			hits++;
			list.nodes[key].visited = true;
			if (policy == LRU) {
				unlink_node(&list, key);
				push(&list, key);
			}
			continue;
		}
		if (list.count == room_of(trace))
			remove_one(&list, policy);
		push(&list, key);
	}
	free(list.nodes);
	return 100.0 * hits / trace->count;
}

/* -------------------------------------------------------------------------------- ours */

static void put(struct scache *cache, const char *key, size_t key_bytes)
{
	static const char data[SMALL_BYTES];
	const struct scache_acquire_options options = { .size = sizeof(options),
							.flags = SCACHE_RUN_TO_END };
	struct scache_writer *writer = NULL;

	sc(scache_acquire(cache, key, key_bytes, &options, NULL, &writer), "acquire");
	expect(writer != NULL, "elected");
	sc(scache_write(writer, data, sizeof(data), SCACHE_FOREVER), "write");
	expect(scache_finish(writer) == 0, "kept");
	scache_writer_close(writer);
}

static const char *fresh_cache(void)
{
	static unsigned number;
	static char name[24];

	snprintf(name, sizeof(name), "evict-%u", number++);
	return name;
}

static double use_ours(const struct trace *trace)
{
	struct scache_options options = { .size = sizeof(options),
					  .max_age_ns = SCACHE_UNLIMITED,
					  .max_bytes = SCACHE_UNLIMITED,
					  .entries = 2 * room_of(trace) + 64,
					  .max_entries = room_of(trace) };
	struct scache *cache = a_cache(fresh_cache(), &options);
	uint32_t hits = 0;

	for (uint32_t i = 0; i < trace->count; i++) {
		struct scache_reader *reader;
		char key[16];
		size_t bytes = (size_t)snprintf(key, sizeof(key), "%u", trace->keys[i]);

		if (scache_lookup(cache, key, bytes, NULL, &reader) == 0) {
			scache_reader_close(reader);
			hits++;
		} else {
			put(cache, key, bytes);
		}
	}
	scache_close(cache);
	return 100.0 * hits / trace->count;
}

/* -------------------------------------------------------------------------- contestants */

struct player {
	struct trace *trace;
	int policy; /* < 0: ours */
	uint64_t *round;
};

/* Each has as many runs as the others: they count for themselves, and come out equal. */
static double play(const void *arg)
{
	const struct player *player = arg;

	draw_trace(player->trace, ++*player->round);
	return player->policy < 0 ? use_ours(player->trace) :
				    simulate(player->trace, (enum policy)player->policy);
}

static double miss(const void *arg)
{
	const bool *is_limited = arg;
	const uint32_t count = bench.smoke ? 300 : 4000, before = *is_limited ? MISS_ENTRIES : 0;
	struct scache_options options = { .size = sizeof(options),
					  .max_age_ns = SCACHE_UNLIMITED,
					  .max_bytes = SCACHE_UNLIMITED,
					  .min_free_percent = SCACHE_ZERO,
					  .entries = 4 * MISS_ENTRIES };
	struct scache *cache;
	double began = 0;

	if (*is_limited)
		options.max_bytes = before * 4096ull;
	cache = a_cache(fresh_cache(), &options);
	for (uint32_t i = 0; i < before + count; i++) {
		char key[16];

		if (i == before)
			began = seconds();
		put(cache, key, (size_t)snprintf(key, sizeof(key), "%u", i));
	}
	began = seconds() - began;
	scache_close(cache);
	return began * 1e9 / count;
}

static bool own_option(const char *name, const char *value)
{
	if (atoi(value) < 1000)
		return false;
	if (strcmp(name, "--objects") == 0)
		objects = (uint32_t)atoi(value);
	else if (strcmp(name, "--requests") == 0)
		requests = (uint32_t)atoi(value);
	else
		return false;
	return true;
}

static void ask_for_hits(double skew, unsigned percent, bool scans)
{
	struct trace trace = { .skew = skew, .percent = percent, .scans = scans };
	uint64_t rounds[4] = { 0 };
	struct player players[4] = { { &trace, -1, &rounds[0] },
				     { &trace, LRU, &rounds[1] },
				     { &trace, FIFO, &rounds[2] },
				     { &trace, SIEVE, &rounds[3] } };
	char name[64];
	const struct question question = {
		.name = name,
		.unit = "%",
		.where = "of all requests; each round another seed",
		.contestants = { { "streamcache", play, &players[0], 0 },
				 { "LRU, textbook", play, &players[1], 0 },
				 { "FIFO, textbook", play, &players[2], 0 },
				 { "SIEVE, textbook", play, &players[3], 0.95 } },
	};

	snprintf(name, sizeof(name), "hits, Zipf %.1f%s, room for %u %%", skew,
		 scans ? " + scans" : "", percent);
	ask(&question);
	free(trace.keys);
}

int main(int argc, char **argv)
{
	static const bool limited = true, unlimited = false;
	static const double skews[] = { 0.7, 0.9, 1.1 };
	const struct question cost = {
		.name = "a miss for which another has to go",
		.unit = "ns",
		.is_time = true,
		.where = "1 KiB, from look-up to finished, one process; theirs without limits",
		.contestants = { { "at the limit", miss, &limited, 0 },
				 { "unlimited", miss, &unlimited, 3 } },
	};

	bench_begin(argc, argv, "[--objects=N] [--requests=N]", own_option);
	if (bench.smoke) {
		objects = 2000;
		requests = 2000;
	}
	for (size_t i = 0; i < sizeof(skews) / sizeof(skews[0]); i++)
		for (unsigned percent = 1; percent <= 10; percent += 9) {
			ask_for_hits(skews[i], percent, false);
			ask_for_hits(skews[i], percent, true);
		}
	ask(&cost);
	return bench_end();
}
