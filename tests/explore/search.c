/* SPDX-License-Identifier: MIT */
/*
 * search - every schedule of two processes with up to two preemptions.
 *
 * Iterative context bounding (M. Musuvathi and S. Qadeer, Iterative context
 * bounding for systematic testing of multithreaded programs, 2007): all pairs
 * without a preemption, then with one, then with two; whoever ends or sleeps
 * hands over for nothing. A single preemption, and a single death, are tried at
 * every point. Two, or a preemption and then a death, only where it makes a
 * difference: before a system call or a word that both access and one changes,
 * and a death only after something was changed.
 *
 * If the time does not suffice, each pair gets its share, and of its schedules
 * a random part is run.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "explore.h"

#define STARTS 2u

/* What is known of a pair from one round to the next. */
struct pair {
	struct scenario *scenario;
	struct word_map map;
	struct point *trace[STARTS]; /* without a preemption, by who begins */
	uint32_t points[STARTS];
};

/* How much may be run. */
struct share {
	double part; /* of the schedules */
	double until;
	bool cut;
};

static struct point *first_trace; /* of a schedule with one preemption */

uint64_t random_state = 1;

uint64_t random_below(uint64_t n)
{
	random_state += 0x9e3779b97f4a7c15ull;
	return mix(mix(1, random_state), 2) % n;
}

static bool in_share(struct share *share)
{
	if (share->part < 1 && (double)random_below(1u << 20) >= share->part * (1u << 20)) {
		share->cut = true;
		return false;
	}
	if (share->until > 0 && totals.schedules % 64 == 0 && real_seconds() > share->until) {
		share->cut = true;
		share->part = 0;
		return false;
	}
	return true;
}

static unsigned others(const struct point *point)
{
	return point->runnable & ~(1u << point->process);
}

/* Who ends or sleeps hands over anyhow, but to one of several. */
static bool can_switch(const struct point *point)
{
	if (point->kind == POINT_ACCESS || point->kind == POINT_CALL)
		return others(point) != 0;
	return (others(point) & (others(point) - 1)) != 0;
}

static bool can_die(const struct point *point)
{
	return point->kind != POINT_END;
}

static bool run_with(struct pair *pair, struct schedule *plan, uint32_t point, int to)
{
	plan->decisions[plan->count++] = (struct decision){ .point = point, .to = to };
	if (!run_one(pair->scenario, plan, NULL, &pair->map))
		return false;
	plan->count--;
	return true;
}

/* All to whom it can be handed over there: a process, or a thread. */
static bool run_switched(struct pair *pair, struct schedule *plan, uint32_t i,
			 const struct point *point, struct share *share)
{
	for (int to = 0; to < (int)PARTIES && can_switch(point); to++)
		if (others(point) & 1u << to && in_share(share) && !run_with(pair, plan, i, to))
			return false;
	return true;
}

/* ------------------------------------------------------------------- rounds */

static bool run_undisturbed(struct pair *pair)
{
	for (unsigned first = 0; first < STARTS; first++) {
		const struct schedule plan = { .first = first };

		recording = true;
		if (!run_one(pair->scenario, &plan, NULL, &pair->map))
			return false;
		recording = false;
		pair->points[first] = totals.last_points;
		pair->trace[first] = malloc(totals.last_points * sizeof(struct point));
		memcpy(pair->trace[first], recorded, totals.last_points * sizeof(struct point));
	}
	return true;
}

static bool disturb_once(struct pair *pair, struct share *share)
{
	for (unsigned first = 0; first < STARTS; first++) {
		struct schedule plan = { .first = first };

		for (uint32_t i = 0; i < pair->points[first]; i++) {
			const struct point *point = &pair->trace[first][i];

			if (!run_switched(pair, &plan, i, point, share))
				return false;
			if (can_die(point) && in_share(share) && !run_with(pair, &plan, i, DIES))
				return false;
		}
	}
	return true;
}

static bool is_shared(const struct pair *pair, const struct point *point)
{
	return point->kind == POINT_PARK || point->kind == POINT_END ||
	       word_is_shared(&pair->map, point);
}

static bool is_parent(const struct pair *pair, const struct point *point)
{
	return can_switch(point) && is_shared(pair, point);
}

/* All that begin with the one preemption in @plan. */
static bool disturb_again(struct pair *pair, struct schedule *plan, struct share *share)
{
	uint32_t from = plan->decisions[0].point + 1, count;

	recording = true;
	if (!run_one(pair->scenario, plan, NULL, &pair->map))
		return false;
	recording = false;
	count = totals.last_points;
	memcpy(first_trace, recorded, count * sizeof(struct point));
	for (uint32_t i = from; i < count; i++) {
		const struct point *point = &first_trace[i];

		if (is_shared(pair, point) && !run_switched(pair, plan, i, point, share))
			return false;
		if (can_die(point) && point->after_change && in_share(share) &&
		    !run_with(pair, plan, i, DIES))
			return false;
	}
	return true;
}

static bool disturb_twice(struct pair *pair, struct share *share)
{
	for (unsigned first = 0; first < STARTS; first++) {
		for (uint32_t i = 0; i < pair->points[first] && share->part > 0; i++) {
			const struct point *point = &pair->trace[first][i];
			struct schedule plan = { .first = first, .count = 1 };

			for (int to = 0; to < (int)PARTIES && is_parent(pair, point); to++) {
				plan.decisions[0] = (struct decision){ .point = i, .to = to };
				if (others(point) & 1u << to && !disturb_again(pair, &plan, share))
					return false;
			}
		}
	}
	return true;
}

/* About how many schedules a round has. */
static double estimate(const struct pair *pair, unsigned preemptions)
{
	double parents = 0, children = 0;

	if (preemptions == 1)
		return 2.0 * (pair->points[0] + pair->points[1]);
	for (unsigned first = 0; first < STARTS; first++)
		for (uint32_t i = 0; i < pair->points[first]; i++) {
			const struct point *point = &pair->trace[first][i];

			parents += is_parent(pair, point);
			children += word_is_shared(&pair->map, point) + point->after_change;
		}
	return parents * children / 4 + parents;
}

/* ------------------------------------------------------------------- pairs */

static bool run_round(struct pair *pairs, unsigned count, unsigned preemptions, double until)
{
	double began = real_seconds();
	uint64_t before = totals.schedules;

	for (unsigned i = 0; i < count; i++) {
		double at = real_seconds(), slice = (until - at) / (count - i), rate = 4000;
		struct share share = { .part = 1 };
		bool go_on;

		if (at > began + 0.1)
			rate = (double)(totals.schedules - before) / (at - began);
		if (until > 0 && preemptions > 0) {
			share.until = at + slice * 1.5;
			share.part = slice * rate / estimate(&pairs[i], preemptions);
		}
		go_on = preemptions == 0   ? run_undisturbed(&pairs[i])
			: preemptions == 1 ? disturb_once(&pairs[i], &share)
					   : disturb_twice(&pairs[i], &share);
		recording = false;
		totals.cut += share.cut;
		if (!go_on)
			return false;
	}
	printf("%u preemption%s: %llu schedules of %u pairs, %.1f s\n", preemptions,
	       preemptions == 1 ? "" : "s", (unsigned long long)(totals.schedules - before), count,
	       real_seconds() - began);
	fflush(stdout);
	return true;
}

void search_pairs(struct scenario *scenarios, unsigned count, unsigned preemptions, double seconds)
{
	struct pair *pairs = calloc(count, sizeof(*pairs));
	double began = real_seconds();

	first_trace = malloc(POINTS_MAX * sizeof(*first_trace));
	for (unsigned i = 0; i < count; i++) {
		pairs[i].scenario = &scenarios[i];
		pairs[i].map.touched = calloc(words, 2);
		pairs[i].map.changed = pairs[i].map.touched + words;
	}
	/* Of the time a third is for one preemption at the most. */
	for (unsigned n = 0; n <= preemptions; n++)
		if (!run_round(pairs, count, n,
			       seconds == 0 ? 0
					    : began + (n == 1 && preemptions > 1 ? seconds / 3
										 : seconds)))
			break;
	for (unsigned i = 0; i < count; i++) {
		free(pairs[i].map.touched);
		free(pairs[i].trace[0]);
		free(pairs[i].trace[1]);
	}
	free(first_trace);
	free(pairs);
}
