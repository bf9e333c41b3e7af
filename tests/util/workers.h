/* SPDX-License-Identifier: MIT */
/*
 * workers - threads as virtual processes: each has a cache of its own over the one
 * mapping, acts at random, and now and then dies with its hands full.
 *
 * SCACHE_TEST_SEED repeats a run as far as the scheduler lets it, SCACHE_TEST_ROUNDS says
 * how long it is.
 */
#ifndef UTIL_WORKERS_H
#define UTIL_WORKERS_H

#include <stdio.h>
#include <stdlib.h>

#include "base/clock.h"
#include "fixture.h"
#include "plan.h"
#include "spawn.h"

#define WORKER_DEATHS_MAX 4
#define WORKER_DATA_BYTES (300u << 10)

struct corpse {
	struct scache *cache;
	struct scache_reader *reader;
	struct scache_writer *writer;
};

struct worker {
	pthread_t thread;
	struct scache *cache;
	bool shared; /* by several threads of one process */
	uint64_t random;
	unsigned deaths;
	struct corpse corpses[WORKER_DEATHS_MAX];
	unsigned char data[WORKER_DATA_BYTES];
};

static struct fixture f;
static uint64_t seed;

static inline uint64_t draw(struct worker *w, uint64_t below)
{
	w->random = plan_mix(w->random);
	return w->random % below;
}

static inline size_t make_key(unsigned key, char ret_text[32])
{
	return (size_t)snprintf(ret_text, 32, "key %u", key);
}

static inline void open_again(struct worker *w)
{
	must_be(scache_open(f.dir, &f.options, &w->cache), 0);
}

/*
 * The lock byte falls and nothing else happens: what this process owned is
 * left to the others. The private part is buried when all threads have ended.
 */
static inline void fall_dead(struct worker *w, const struct corpse *corpse)
{
	lockfile_close(corpse->cache->seat->peer.lock_fd);
	/* Or it would be closed once more at the burial, when it is somebody else's. */
	corpse->cache->seat->peer.lock_fd = -1;
	w->corpses[w->deaths++] = *corpse;
}

static inline void bury(struct corpse *corpse)
{
	unsigned slot = 0;

	while (f.caches[slot] != NULL)
		slot++;
	f.caches[slot] = corpse->cache;
	fixture_kill(&f, corpse->cache);
	if (corpse->reader != NULL)
		fixture_bury_reader(corpse->reader);
	if (corpse->writer != NULL)
		fixture_bury_writer(corpse->writer);
}

static inline long rounds_or(long usual)
{
	const char *asked = getenv("SCACHE_TEST_ROUNDS");

	return asked != NULL ? atol(asked) : usual;
}

/* Each has its cache; the first of those who share one closes it. How many deaths there were. */
static inline unsigned workers_run(struct worker *workers, unsigned count, void *(*work)(void *arg))
{
	unsigned deaths = 0;

	for (unsigned i = 0; i < count; i++)
		workers[i].random = plan_mix(seed + i);
	for (unsigned i = 0; i < count; i++)
		must_be(pthread_create(&workers[i].thread, NULL, work, &workers[i]), 0);
	for (unsigned i = 0; i < count; i++)
		pthread_join(workers[i].thread, NULL);
	for (unsigned i = 0; i < count; i++) {
		deaths += workers[i].deaths;
		for (unsigned k = 0; k < workers[i].deaths; k++)
			bury(&workers[i].corpses[k]);
		if (i == 0 || !workers[i].shared || !workers[i - 1].shared)
			must_be(scache_close(workers[i].cache), 0);
	}
	return deaths;
}

static inline int workers_main(const char *name, const TTest *test)
{
	const TTest *const tests[] = { test };
	const char *asked = getenv("SCACHE_TEST_SEED");

	seed = asked != NULL ? strtoull(asked, NULL, 0) : clock_shared_ns();
	printf("SCACHE_TEST_SEED=%llu\n", (unsigned long long)seed);
	fflush(stdout);
	return fixture_main(name, NULL, NULL, tests, ARRAY_COUNT(tests));
}

#endif
