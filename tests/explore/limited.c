/* SPDX-License-Identifier: MIT */
/*
 * limited - two want room where there is room for one of them: never do both get it, and
 * never neither, unless one has died with it. Each has an entry of its own, which
 * nobody else can reach; so this goes with no other operation.
 */
#include "explore.h"
#include "store/limits.h"
#include "store/sweep.h"

#define LIMIT_BYTES (1u << 20)
#define WANTED_BYTES (LIMIT_BYTES / 4 * 3)

static struct entry_name taken[PROCESSES_MAX];
static bool has_taken[PROCESSES_MAX];

void limited_begin(void)
{
	memset(has_taken, 0, sizeof(has_taken));
}

/* All find the limit lowered: the budget is void before it is. */
static void lower_limit(struct shm_header *header)
{
	shm_store(&header->bytes.until, 0);
	shm_store(&header->settings[SETTING_MAX_BYTES], LIMIT_BYTES);
}

/* Who else has it, and has not given it back: the dead until they are swept. */
static unsigned count_takers(const struct segment *segment)
{
	unsigned count = 0;

	for (unsigned i = 0; i < PROCESSES_MAX; i++)
		count += has_taken[i] &&
			 state_gen(*entry_state_word(segment, taken[i].idx)) == taken[i].gen &&
			 segment->charges[taken[i].idx] == WANTED_BYTES;
	return count;
}

void run_reserve(struct process *me)
{
	struct store *store = &me->cache->seat->store;
	unsigned refused = 0;
	struct entry_name name;

	lower_limit(store->segment->header);
	me->result = entry_claim(store->peer, &name);
	if (me->result != 0) {
		finding("process %u finds no slot", me->number);
		return;
	}
	me->result = limits_reserve(store, name, WANTED_BYTES);
	if (me->result == 0) {
		taken[me->number] = name;
		has_taken[me->number] = true;
		if (count_takers(store->segment) > 1)
			finding("process %u gets what another has", me->number);
	}
	for (unsigned i = 0; i < PROCESSES_MAX; i++)
		refused += seats[i].op != NULL && seats[i].op->run == run_reserve &&
			   seats[i].result < 0;
	if (refused > 1 && count_takers(store->segment) == 0 && now.deaths == 0)
		finding("process %u gets nothing, and neither does another", me->number);
	sweep_give_back(store, name, ENTRY_CLAIMED, false);
	has_taken[me->number] = false;
}
