/* SPDX-License-Identifier: MIT */
/*
 * check_sweepers - any number of sweepers at once, killed wherever they are: nothing that
 * was stored is lost, nothing that was removed is there again, and no file is left that
 * no entry owns.
 */
#include <check.h>
#include <stdio.h>
#include <string.h>

#include "../util/former.h"
#include "../util/pattern.h"
#include "../util/scratch.h"
#include "../util/spawn.h"

#define SWEEPERS 3
#define ROUNDS 60
#define KEYS 30
#define BYTES 3000u
#define ROUNDS_A_SEGMENT 12

static struct scache *cache;
static bool stored[KEYS]; /* what there must be in the end */

static void sweep_on(void *arg)
{
	struct scache *own = scratch_open();

	(void)arg;
	must_be(scache_sweep(own, NULL, NULL), 0);
	child_say(0);
	for (;;)
		must_be(scache_sweep(own, NULL, NULL), 0);
}

static void put(unsigned i, uint64_t max_age_ns)
{
	const struct scache_acquire_options options = { .size = sizeof(options),
							.flags = SCACHE_REFRESH,
							.max_age_ns = max_age_ns };
	struct scache_writer *writer = NULL;
	char key[8];

	snprintf(key, sizeof(key), "k%u", i);
	eventually(scache_acquire(cache, key, strlen(key), &options, NULL, &writer) == 0);
	must(writer != NULL);
	pattern_produce(writer, i, BYTES, BYTES);
	stored[i] = max_age_ns != SCACHE_ZERO;
}

static void take_away(unsigned i)
{
	char key[8];

	snprintf(key, sizeof(key), "k%u", i);
	scache_remove(cache, key, strlen(key));
	stored[i] = false;
}

static void play(struct child *sweepers, unsigned round)
{
	/* Three steps that have no common measure with the number of keys. */
	put(round * 7 % KEYS, 0);
	take_away(round * 11 % KEYS);
	put(round * 13 % KEYS, round % 3 == 0 ? SCACHE_ZERO : 0);
	child_kill(&sweepers[round % SWEEPERS]);
	if (round % ROUNDS_A_SEGMENT == ROUNDS_A_SEGMENT - 1)
		former_lose(LOST_TRUST);
	child_start(&sweepers[round % SWEEPERS], sweep_on, NULL);
	child_hear(&sweepers[round % SWEEPERS]);
}

START_TEST(sweepers_that_are_killed_lose_nothing_and_bring_nothing_back)
{
	struct scache_sweep_report report = { .size = sizeof(report) };
	struct child sweepers[SWEEPERS];
	int count = 0;
	char key[8];

	cache = scratch_open();
	for (int i = 0; i < SWEEPERS; i++) {
		child_start(&sweepers[i], sweep_on, NULL);
		child_hear(&sweepers[i]);
	}
	for (unsigned round = 0; round < ROUNDS; round++)
		play(sweepers, round);
	for (int i = 0; i < SWEEPERS; i++)
		child_kill(&sweepers[i]);
	must_be(scache_sweep(cache, NULL, &report), 0);
	must_be(report.unknown, 0);
	for (unsigned i = 0; i < KEYS; i++) {
		snprintf(key, sizeof(key), "k%u", i);
		count += stored[i];
		if (stored[i])
			former_has(cache, key, i, BYTES);
		else
			must(scratch_misses(cache, key));
	}
	must(count > 0 && count < KEYS);
	must_be(scratch_blobs(), count);
	scratch_is_clean(cache);
	scratch_close(cache);
}
END_TEST

int main(void)
{
	const TTest *const tests[] = {
		sweepers_that_are_killed_lose_nothing_and_bring_nothing_back,
	};

	return SCRATCH_RUN("sweepers", tests);
}
