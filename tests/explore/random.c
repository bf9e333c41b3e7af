/* SPDX-License-Identifier: MIT */
/*
 * random - three processes, three preemptions: too many schedules to run all.
 *
 * PCT (S. Burckhardt, P. Kothari, M. Musuvathi and S. Nagarakatte, A randomized
 * scheduler with probabilistic guarantees of finding bugs, 2010): random
 * priorities, the highest one runs; at three random points whoever runs falls
 * to the bottom. One that sleeps falls below that. Half of the schedules have a
 * death, at a random point, and a quarter two: of an heir, too.
 */
#include "explore.h"

#include <string.h>

#define CHANGES 3u
#define DEATHS 2u
#define SCHEDULES_EACH 50 /* of one choice of operations */

struct pct {
	struct chooser chooser; /* first: what choose() is given */
	int64_t priority[PARTIES];
	int64_t lowest;
	uint32_t change[CHANGES];
	uint32_t death[DEATHS]; /* UINT32_MAX: none */
};

static int highest(const struct pct *pct, unsigned runnable)
{
	int best = NOBODY;

	for (int i = 0; i < (int)PARTIES; i++)
		if (runnable & 1u << i &&
		    (best == NOBODY || pct->priority[i] > pct->priority[best]))
			best = i;
	return best;
}

static int choose(struct chooser *chooser, uint32_t point, enum point_kind kind, unsigned me,
		  unsigned runnable, int usual)
{
	struct pct *pct = (struct pct *)chooser;
	int best;

	for (unsigned i = 0; i < DEATHS; i++)
		if (point == pct->death[i] && kind != POINT_END)
			return DIES;
	for (unsigned i = 0; i < CHANGES; i++)
		if (point == pct->change[i])
			pct->priority[me] = --pct->lowest;
	if (kind == POINT_PARK)
		pct->priority[me] = --pct->lowest;
	best = highest(pct, runnable);
	return best == NOBODY ? usual : best;
}

static void draw(struct pct *pct, uint32_t points)
{
	*pct = (struct pct){ .chooser = { choose } };
	for (unsigned i = 0; i < PARTIES; i++)
		pct->priority[i] = (int64_t)random_below(1u << 30) + 1;
	for (unsigned i = 0; i < CHANGES; i++)
		pct->change[i] = points == 0 ? UINT32_MAX : (uint32_t)random_below(points);
	for (unsigned i = 0; i < DEATHS; i++)
		pct->death[i] = points > 0 && random_below(2) == 0 ? (uint32_t)random_below(points)
								   : UINT32_MAX;
}

static bool draw_scenario(struct scenario *scenario)
{
	*scenario =
		(struct scenario){ .base = (enum base)random_below(BASES), .count = PROCESSES_MAX };
	for (unsigned i = 0; i < scenario->count; i++)
		scenario->ops[i] = &operations[random_below(operation_count)];
	scenario_name(scenario);
	return scenario_is_possible(scenario);
}

void search_random(double seconds)
{
	double until = real_seconds() + seconds;
	struct scenario scenario;
	struct pct pct;

	while (real_seconds() < until) {
		uint32_t points = 0;

		if (!draw_scenario(&scenario))
			continue;
		for (int i = 0; i < SCHEDULES_EACH; i++) {
			struct schedule plan = { .first = 0 };

			draw(&pct, points);
			plan.first = (uint32_t)highest(&pct, (1u << scenario.count) - 1);
			if (!run_one(&scenario, &plan, &pct.chooser, NULL))
				return;
			points = totals.last_points;
		}
	}
}
