/* SPDX-License-Identifier: MIT */
/*
 * check_stopped - T5, T6: a walker of the index is killed, or stopped, between
 * its pin and its end. The build is one in which each access to shared memory is
 * a step, so the walker holds whatever links a walker can hold.
 */
#include <check.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "api/cache.h"
#include "base/step.h"
#include "index/repair.h"
#include "shm/epoch.h"

#include "../util/pattern.h"
#include "../util/scratch.h"
#include "../util/spawn.h"

#define ROUNDS 60
#define WALKERS 16
#define ENTRIES 16
#define LOOKS 3000

static struct segment *segment_of(const struct scache *cache)
{
	return cache->seat->store.segment;
}

static unsigned pins_of(const struct segment *segment, uint32_t slot)
{
	unsigned count = 0;

	for (int i = 0; i < SHM_PINS; i++)
		count += shm_load(&segment->peers[slot].pins[i].word) != 0;
	return count;
}

/* ------------------------------------------------------------------------- T5 */

static struct scache *own;

static void die_pinned(const char *label)
{
	if (strcmp(label, "pin-set") == 0)
		kill(getpid(), SIGKILL);
}

static void hold_the_pin(const char *label)
{
	uint32_t slot = own->seat->peer.slot;

	if (strcmp(label, "pin-set") != 0)
		return;
	step_set_hook(NULL);
	child_say(slot);
	for (int i = 0; i < LOOKS; i++) {
		must(pins_of(segment_of(own), slot) == 1);
		must_be(PEER_STATE(shm_load(&own->seat->peer.shared->state)), PEER_ACTIVE);
		if (i % 100 == 0)
			pause_briefly();
	}
}

static void walk_with(void *arg)
{
	void (*const *hook)(const char *) = arg;

	own = scratch_open();
	child_say(own->seat->peer.slot);
	step_set_hook(*hook);
	scratch_misses(own, "k");
	scratch_close(own);
}

static void sweep_on(void *arg)
{
	struct scache *cache = scratch_open();

	(void)arg;
	child_say(0);
	for (;;)
		must_be(scache_sweep(cache, NULL, NULL), 0);
}

START_TEST(t05_a_walker_killed_inside_its_section_holds_back_no_epoch)
{
	void (*hook)(const char *) = die_pinned;
	struct scache *cache;
	struct child child;
	uint64_t epoch;
	uint32_t slot;

	scratch_options.peers = 2;
	cache = scratch_open();
	child_start(&child, walk_with, &hook);
	slot = (uint32_t)child_hear(&child);
	must_be(child_end(&child), -SIGKILL);
	must_be(pins_of(segment_of(cache), slot), 1);
	must_be(repair_reap(&cache->seat->peer, slot), 1);
	must_be(pins_of(segment_of(cache), slot), 0);
	epoch = epoch_now(segment_of(cache));
	for (int i = 0; i < 5; i++)
		must(epoch_advance(&cache->seat->peer));
	must_be(epoch_now(segment_of(cache)), epoch + 5);
	/* The reaping of the slot's last life is no danger to its next one. */
	must_be(repair_reap(&cache->seat->peer, slot), 0);
	scratch_is_clean(cache);
	scratch_close(cache);
}
END_TEST

START_TEST(t05_the_pins_of_who_takes_a_dead_ones_slot_stay)
{
	void (*die)(const char *) = die_pinned, (*hold)(const char *) = hold_the_pin;
	struct child sweepers[2], child;
	struct scache *cache;
	uint32_t slot;

	/* One slot is left over: each newcomer gets that of the one who died. */
	scratch_options.peers = 4;
	cache = scratch_open();
	for (int i = 0; i < 2; i++) {
		child_start(&sweepers[i], sweep_on, NULL);
		child_hear(&sweepers[i]);
	}
	for (int i = 0; i < ROUNDS; i++) {
		child_start(&child, walk_with, &die);
		slot = (uint32_t)child_hear(&child);
		must_be(child_end(&child), -SIGKILL);
		child_start(&child, walk_with, &hold);
		must_be(child_hear(&child), slot);
		must_be(child_hear(&child), slot);
		child_join(&child);
	}
	for (int i = 0; i < 2; i++)
		child_kill(&sweepers[i]);
	scratch_is_clean(cache);
	must_be(scratch_stat(cache).deaths, ROUNDS + 2);
	scratch_close(cache);
}
END_TEST

static void reap_slowly(const char *label)
{
	if (strcmp(label, "reap-begun") != 0)
		return;
	child_say(0);
	for (int i = 0; i < 20; i++)
		pause_briefly();
}

static void sweep_slowly(void *arg)
{
	struct scache *cache = scratch_open();

	(void)arg;
	child_say(0);
	child_listen();
	step_set_hook(reap_slowly);
	must_be(scache_sweep(cache, NULL, NULL), 0);
}

START_TEST(t05_a_newcomer_waits_for_the_seat_that_is_being_reaped)
{
	void (*hook)(const char *) = die_pinned;
	struct child reaper, child;
	struct scache *cache;

	scratch_options.peers = 3;
	cache = scratch_open();
	child_start(&reaper, sweep_slowly, NULL);
	child_hear(&reaper);
	child_start(&child, walk_with, &hook);
	child_hear(&child);
	must_be(child_end(&child), -SIGKILL);
	child_tell(&reaper, 0);
	child_hear(&reaper);
	/* No seat is free, and none can be taken from the dead; but soon. */
	scratch_close(scratch_open());
	child_join(&reaper);
	scratch_close(cache);
}
END_TEST

/* ------------------------------------------------------------------------- T6 */

static bool in_section;
static int accesses_left;

static void note_section(const char *label)
{
	in_section |= strcmp(label, "pin-set") == 0;
}

static void stop_at_access(const volatile void *word)
{
	(void)word;
	if (in_section && accesses_left > 0 && --accesses_left == 0)
		raise(SIGSTOP);
}

static const char *name_key(int i)
{
	static char key[16];

	snprintf(key, sizeof(key), "key %d", i % (ENTRIES * 2));
	return key;
}

/* Content depends on the key alone, so whatever is found must be that. */
static uint64_t seed_of(const char *key)
{
	return (uint64_t)strtol(key + 4, NULL, 10) + 1;
}

struct walker {
	const char *key;
	int accesses;
};

static void look_up_and_stop(void *arg)
{
	const struct walker *walker = arg;
	struct scache *cache = scratch_open();
	struct scache_reader *reader;
	uint64_t position = 0;
	int ret;

	accesses_left = walker->accesses;
	step_set_hook(note_section);
	access_set_hook(stop_at_access);
	ret = scache_lookup(cache, walker->key, strlen(walker->key), NULL, &reader);
	step_set_hook(NULL);
	access_set_hook(NULL);
	must(ret == 0 || ret == -ENOENT);
	child_say(ret);
	if (ret == 0) {
		ret = pattern_read(reader, seed_of(walker->key), &position, UINT64_MAX, 4096);
		must(ret == 0 || ret == -ESTALE || ret == -EOWNERDEAD);
		must(ret != 0 || position == 9000);
		scache_reader_close(reader);
	}
	scratch_close(cache);
}

/* Produce another entry; 0 if there is no slot for it yet. */
static int churn(struct scache *cache, int i)
{
	struct scache_writer *writer;
	const char *key = name_key(i);
	int ret = scache_acquire(cache, key, strlen(key), NULL, NULL, &writer);

	if (ret == SCACHE_BYPASS)
		return 0;
	must_be(ret, 0);
	if (writer != NULL)
		pattern_produce(writer, seed_of(key), 9000, 3000);
	return 1;
}

/* Children that sleep in the index, each at another access of its look-up. */
static void stop_walkers(struct child *walkers)
{
	for (int i = 0; i < WALKERS; i++) {
		/* name_key() keeps one key at a time. */
		struct walker walker = { .key = name_key(i), .accesses = i + 1 };
		int status;

		child_start(&walkers[i], look_up_and_stop, &walker);
		must(waitpid(walkers[i].pid, &status, WUNTRACED) == walkers[i].pid);
		must(WIFSTOPPED(status));
	}
}

START_TEST(t06_walkers_stopped_in_their_sections_under_churn)
{
	int64_t stop_ms = scratch_is_long() ? 60000 : 2500, stopped_ms;
	struct child walkers[WALKERS];
	int made = 0, found = 0;
	struct scache *cache;

	scratch_options.entries = ENTRIES;
	cache = scratch_open();
	for (int i = 0; i < ENTRIES; i++)
		must(churn(cache, made++));
	stop_walkers(walkers);
	stopped_ms = now_ms();
	/* All slots change hands, again and again. */
	while (now_ms() - stopped_ms < stop_ms || made < 2 * ENTRIES) {
		eventually(churn(cache, made));
		made++;
		must_be(scache_check(cache, NULL, NULL), 0);
	}
	printf("T6: %d productions in %d ms\n", made, (int)(now_ms() - stopped_ms));
	for (int i = 0; i < WALKERS; i++) {
		must(kill(walkers[i].pid, SIGCONT) == 0);
		found += child_hear(&walkers[i]) == 0;
		child_join(&walkers[i]);
	}
	printf("T6: %d of %d walkers found their key\n", found, WALKERS);
	scratch_is_clean(cache);
	must_be(scratch_stat(cache).deaths, 0);
	scratch_close(cache);
}
END_TEST

int main(void)
{
	const TTest *const tests[] = {
		t05_a_walker_killed_inside_its_section_holds_back_no_epoch,
		t05_the_pins_of_who_takes_a_dead_ones_slot_stay,
		t05_a_newcomer_waits_for_the_seat_that_is_being_reaped,
		t06_walkers_stopped_in_their_sections_under_churn,
	};

	return SCRATCH_RUN("stopped", tests);
}
