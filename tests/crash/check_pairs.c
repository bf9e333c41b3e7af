/* SPDX-License-Identifier: MIT */
/*
 * pairs - a victim is killed, then whoever repairs what it left is killed at
 * each label of that, and a third process finishes: every entry, ring, block
 * and seat has been given back exactly once.
 *
 * `make check` takes one first death of each label, and of those that are
 * repaired in the same way one; and of second deaths the first passages. --all
 * takes each (operation, label), and of second deaths the last passages, too.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "crash.h"

#define FIRSTS_MAX (OPS_MAX * LABELS_MAX)
#define PAIRS_MAX (FIRSTS_MAX * 8)

struct first {
	int op, label;
	bool killed;
	uint32_t repair[LABELS_MAX]; /* passages of the repairer */
};

struct pair {
	int first, label;
	unsigned nth;
};

static struct first *firsts; /* shared memory */
static int first_count;
static struct pair pairs[PAIRS_MAX];
static int pair_count;

static void tell(int i)
{
	play(&ops[i], NOWHERE, 0, false);
}

static void plan_firsts(const struct command *command)
{
	bool taken[LABELS_MAX] = { false };

	for (int i = 0; i < op_count; i++)
		for (int label = 0; label < label_count; label++) {
			if (tally->passes[i][label] == 0 || (taken[label] && !command->all) ||
			    !is_wanted(command, i, label))
				continue;
			taken[label] = true;
			firsts[first_count].op = i;
			firsts[first_count++].label = label;
		}
}

static void tell_repair(int i)
{
	struct first *first = &firsts[i];

	play_pair(&ops[first->op], first->label, NOWHERE, 0, first->repair);
	first->killed = true;
}

static bool is_like_another(int i)
{
	for (int other = 0; other < i; other++)
		if (memcmp(firsts[other].repair, firsts[i].repair, sizeof(firsts[i].repair)) == 0)
			return true;
	return false;
}

static void plan_pair(int first, int label, unsigned nth)
{
	if (pair_count < PAIRS_MAX)
		pairs[pair_count++] = (struct pair){ .first = first, .label = label, .nth = nth };
}

static void plan_pairs(bool all)
{
	for (int i = 0; i < first_count; i++) {
		if (!all && is_like_another(i))
			continue;
		for (int label = 0; label < label_count; label++) {
			uint32_t passes = firsts[i].repair[label];

			if (passes > 0)
				plan_pair(i, label, 1);
			if (all && passes > 1)
				plan_pair(i, label, passes);
		}
	}
}

static void kill_both(int i)
{
	const struct pair *pair = &pairs[i];
	const struct first *first = &firsts[pair->first];

	if (play_pair(&ops[first->op], first->label, pair->label, pair->nth, NULL) ==
	    PLAYED_KILLED)
		atomic_fetch_add(&tally->kills[pair->label], 1);
	else
		atomic_fetch_add(&tally->missed, 1);
}

int main(int argc, char **argv)
{
	struct command command;
	unsigned kills;
	bool well;

	read_command(argc, argv, &command);
	if (!crash_begin())
		return 1;
	tally_make();
	firsts = mmap(NULL, FIRSTS_MAX * sizeof(*firsts), PROT_READ | PROT_WRITE,
		      MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	well = firsts != MAP_FAILED && work(op_count, tell);
	if (well) {
		plan_firsts(&command);
		well = work(first_count, tell_repair);
	}
	if (well) {
		plan_pairs(command.all);
		well = work(pair_count, kill_both);
		kills = print_kills(command.all);
		printf("%d first deaths, %d pairs, %u repairers killed; "
		       "%u labels not passed again\n",
		       first_count, pair_count, kills, (unsigned)tally->missed);
	}
	crash_end();
	fflush(NULL);
	_exit(!well);
}
