/* SPDX-License-Identifier: MIT */
/*
 * oracle - what must be true after every schedule.
 *
 * At most one findable entry of the key; and after the dead have been reaped,
 * the key removed and a sweep: every entry, ring, cursor and pin is free, no
 * file is left, no descriptor and no memory is held, all invariants hold, and
 * the key can be produced and read as if nothing had been. Some of that is only
 * looked at after each eighth schedule; a replay looks at all of it.
 */
#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "explore.h"
#include "index/repair.h"
#include "index/ring.h"
#include "index/verify.h"
#include "store/sweep.h"

/* What takes longer than a schedule; the first one is always among them. */
#define THOROUGH_EVERY 8
#define FULL_CHECK_EVERY 64 /* scache_sweep() opens 256 directories */

uint64_t mix(uint64_t hash, uint64_t value)
{
	hash = (hash ^ value) * 0xff51afd7ed558ccdull;
	return hash ^ hash >> 32;
}

/* ------------------------------------------------------ as the schedule left it */

static uint64_t hash_state(const struct scenario *scenario)
{
	const struct segment *segment = seats[WARDEN].cache->seat->peer.segment;
	uint64_t hash = 1;

	for (unsigned i = 0; i < scenario->count; i++) {
		const struct process *p = &seats[i];

		hash = mix(hash, p->dead);
		if (p->dead)
			continue;
		hash = mix(hash, (uint64_t)p->result);
		hash = mix(hash, (uint64_t)p->read_result);
		hash = mix(hash, p->position);
		hash = mix(hash, p->elections);
		hash = mix(hash, p->takeovers);
	}
	for (uint32_t i = 0; i < segment->geometry.entries; i++) {
		uint64_t word = shm_load(&segment->states[i]);

		hash = mix(hash, state_of(word) << 4 | state_flags(word));
	}
	return mix(hash, ring_count_in_use(segment));
}

/* Entries in the chain of the key that a look-up would take. */
static void check_unique(void)
{
	const struct segment *segment = seats[WARDEN].cache->seat->peer.segment;
	struct key_hash hash = hash_key(EXPLORED_KEY, EXPLORED_KEY_BYTES);
	uint32_t target = (uint32_t)shm_load(index_bucket(segment, hash)), steps = 0, found = 0;

	while (target != 0 && target <= segment->geometry.entries &&
	       steps++ <= segment->geometry.entries) {
		uint64_t next = shm_load(&segment->entries[target - 1].next);

		found += state_is_findable(shm_load(&segment->states[target - 1])) &&
			 !(next & LINK_MARK);
		target = LINK_TARGET(next);
	}
	if (steps > segment->geometry.entries)
		finding("the chain of the key has no end");
	if (found > 1)
		finding("%u entries of the key can be found", found);
}

/* Elected twice without a reason? Each death, and no other, has one heir. */
static void check_elections(const struct scenario *scenario)
{
	uint32_t elections = 0, takeovers = 0;

	for (unsigned i = 0; i < scenario->count; i++)
		takeovers += seats[i].takeovers;
	if (takeovers > now.deaths + base_is_orphan(scenario->base))
		finding("%u processes take over from %u dead", takeovers,
			now.deaths + base_is_orphan(scenario->base));
	for (unsigned i = 0; i < scenario->count; i++) {
		elections += seats[i].elections;
		if (scenario->ops[i]->flags & (TAKES_AWAY | NEEDS_WRITER))
			return;
	}
	/* What has gone with its last reader is produced again. */
	if (elections > 1 && now.deaths == 0 && !base_is_seldom(scenario->base))
		finding("%u processes are elected", elections);
}

/* Whoever was the last to read it: is it still there? The dead leave that to a sweep. */
static void check_forgotten(void)
{
	struct store *store = &seats[WARDEN].cache->seat->store;
	const struct segment *segment = store->segment;
	struct cursor_survey survey;

	for (unsigned i = 0; i < SEATS; i++)
		if (seats[i].dead)
			repair_reap(store->peer, seats[i].cache->seat->peer.slot);
	if (now.deaths > 0)
		sweep_slice(store);
	for (uint32_t i = 0; i < segment->geometry.entries; i++) {
		uint64_t word = shm_load(&segment->states[i]);
		struct entry_name name = { .idx = i, .gen = state_gen(word) };

		if (!state_needs_reader(word))
			continue;
		cursor_survey(segment, name, &survey);
		if (survey.count == 0)
			finding("entry %u is retained and nobody reads it", i);
	}
}

/* ------------------------------------------------------------------ afterwards */

static void tell(void *arg, const char *text)
{
	(void)arg;
	finding("afterwards: %s", text);
}

static void check_files(void)
{
	const struct store *store = &seats[WARDEN].cache->seat->store;
	struct dirent *at;
	DIR *dir;
	int fd;

	fd = openat(store->blobs_fd, world_fan_out, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	dir = fd < 0 ? NULL : fdopendir(fd);
	if (dir == NULL)
		return; /* nothing was ever produced */
	while ((at = readdir(dir)) != NULL)
		if (at->d_name[0] != '.')
			finding("afterwards the file %s is left", at->d_name);
	closedir(dir);
}

static void check_segment(void)
{
	const struct segment *segment = seats[WARDEN].cache->seat->peer.segment;

	for (uint32_t i = 0; i < segment->geometry.entries; i++) {
		uint64_t word = shm_load(&segment->states[i]);

		if (state_of(word) != ENTRY_FREE)
			finding("afterwards entry %u is in state %u%s", i, (unsigned)state_of(word),
				state_is_hidden(word) ? ", hidden" : "");
	}
	if (ring_count_in_use(segment) > 0)
		finding("afterwards %u rings are in use", ring_count_in_use(segment));
	for (uint32_t block = 0; block < segment->geometry.blocks; block++)
		for (uint32_t i = 0; i < SHM_BLOCK_CURSORS; i++)
			if (shm_load(&segment->blocks[block].cursors[i].name) != 0)
				finding("afterwards cursor %u of block %u is set", i, block);
	for (uint32_t i = 0; i < segment->geometry.peers; i++)
		for (unsigned cell = 0; cell < SHM_PINS; cell++)
			if (shm_load(&segment->peers[i].pins[cell].word) != 0)
				finding("afterwards peer %u has a pin", i);
}

/* @tables_are_empty: nothing is held for later, either. */
static void check_private(bool tables_are_empty)
{
	for (unsigned i = 0; i < SEATS; i++) {
		struct process *p = &seats[i];

		if (p->dead)
			continue;
		if (atomic_load(&p->cache->open_streams) > 0)
			finding("process %u has %u streams open", i,
				atomic_load(&p->cache->open_streams));
		if (p->cache->seat->cursors.taken[0] != 0 || p->cache->seat->cursors.count != 1)
			finding("process %u has taken cursors", i);
		if (tables_are_empty && (p->fd_count > 0 || p->memory_count + p->mapping_count > 0))
			finding("process %u holds %u descriptors, %u pieces of memory, %u mappings",
				i, p->fd_count, p->memory_count, p->mapping_count);
	}
}

static void check_in_full(void)
{
	struct scache_sweep_report report = { .size = sizeof(report) };
	struct scache_stats stats = { .size = sizeof(stats) };
	struct scache *cache = seats[WARDEN].cache;

	if (scache_sweep(cache, NULL, &report) != 0 ||
	    report.reaped + report.orphans + report.unknown > 0)
		finding("afterwards a sweep still finds something");
	if (scache_stat(cache, &stats) != 0 || stats.entries_free != stats.max_entries ||
	    stats.readers > 0 || stats.rings_in_use > 0)
		finding("afterwards the statistics are wrong");
}

void oracle_judge(const struct scenario *scenario)
{
	static unsigned judged;
	bool thorough = judged % THOROUGH_EVERY == 0;

	give_rings();
	now.state = hash_state(scenario);
	check_unique();
	check_elections(scenario);
	if (base_is_seldom(scenario->base)) {
		check_forgotten();
		want(1);
	}
	world_sweep(thorough);
	check_segment();
	check_files();
	check_private(thorough);
	if (thorough && now.finding[0] == '\0') {
		put_and_get(&seats[WARDEN]);
		world_sweep(false);
		check_segment();
		check_files();
		verify_segment(&seats[WARDEN].cache->seat->peer, tell, NULL);
	}
	if (judged++ % FULL_CHECK_EVERY == 0)
		check_in_full();
}
