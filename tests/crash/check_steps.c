/* SPDX-License-Identifier: MIT */
/*
 * steps - each operation of each victim is killed at each label that it passes,
 * while others use the same cache; see crash.h.
 *
 * The labels are those of lib/ ($TOP_SRCDIR), so a new STEP() fails this test
 * until some operation of ops.c passes it. `make check` kills at the first
 * passage; --all at the second and the last one, too, and prints all numbers.
 */
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "crash.h"

#define DEATHS_MAX (OPS_MAX * LABELS_MAX)
#define TRIES 5 /* a label may hang on who comes first */

struct death {
	const struct op *op;
	int label;
	unsigned nth;
};

static struct death deaths[DEATHS_MAX];
static int death_count;

static void tell(int i)
{
	play(&ops[i], NOWHERE, 0, true);
}

static void kill_one(int i)
{
	const struct death *death = &deaths[i];

	for (int tries = 0; tries < TRIES; tries++)
		if (play(death->op, death->label, death->nth, true) == PLAYED_KILLED) {
			atomic_fetch_add(&tally->kills[death->label], 1);
			return;
		}
	atomic_fetch_add(&tally->missed, 1);
}

static void plan(const struct op *op, int label, unsigned nth)
{
	if (death_count < DEATHS_MAX)
		deaths[death_count++] = (struct death){ .op = op, .label = label, .nth = nth };
}

static void plan_all(const struct command *command)
{
	for (int i = 0; i < op_count; i++)
		for (int label = 0; label < label_count; label++) {
			unsigned passes = tally->passes[i][label];

			if (!is_wanted(command, i, label))
				continue;
			if (passes > 0)
				plan(&ops[i], label, 1);
			if (command->all && passes > 1)
				plan(&ops[i], label, 2);
			if (command->all && passes > 2)
				plan(&ops[i], label, passes);
		}
}

/* Every label of the source has killed somebody. */
static bool none_is_missing(void)
{
	bool well = true;

	for (int i = 0; i < label_count; i++)
		if (tally->kills[i] == 0) {
			printf("no operation was killed at STEP %s: add one to tests/crash/ops.c\n",
			       labels[i]);
			well = false;
		}
	return well;
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
	well = work(op_count, tell);
	if (well) {
		plan_all(&command);
		well = work(death_count, kill_one);
		kills = print_kills(command.all);
		printf("%d operations, %d labels, %u kills; %u labels not passed again\n", op_count,
		       label_count, kills, (unsigned)tally->missed);
		well = well && (command.op != NULL || none_is_missing());
	}
	crash_end();
	fflush(NULL);
	/* Nobody's user cannot be traced, which a search for leaks at exit() wants. */
	_exit(!well);
}
