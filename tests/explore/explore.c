/* SPDX-License-Identifier: MIT */
/*
 * explore - run the interleavings of a few processes one by one, each the same
 * way every time, with an oracle after each.
 *
 *   --seconds=N       in all; two thirds of it for pairs (default 60; 0 = as long as it takes)
 *   --seed=N          of whatever is chosen at random
 *   --pair=PATTERN    only these, e.g. 'acquire+remove/sealed', '*sweep*'
 *   --preemptions=N   0, 1 or 2 in pairs (default 2)
 *   --findings=N      stop after so many (default 1)
 *   --replay=SCHEDULE one schedule, as a finding prints it, with all its points
 *   --list            the pairs
 *
 * Exit status: 0, 1 with a finding, 2 for a wrong option.
 */
#include <fnmatch.h>
#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "explore.h"

#define PAIRS_MAX 512u
#define STATES_MAX (1u << 20) /* a power of two */

struct totals totals;
volatile int stopped;
unsigned findings_max = 1;

static struct scenario pairs[PAIRS_MAX];
static uint64_t *states;
static struct {
	uint32_t least, most;
} points_of[32]; /* by operation */

static void stop(int number)
{
	(void)number;
	stopped = 1;
}

/* ------------------------------------------------------------- one schedule */

/* A state is told apart by its scenario, too. */
static void count_state(const struct scenario *scenario, uint64_t state)
{
	uint64_t i;

	for (const char *at = scenario->name; *at != '\0'; at++)
		state = mix(state, (unsigned char)*at);
	for (i = state % STATES_MAX; states[i] != 0; i = (i + 1) % STATES_MAX)
		if (states[i] == state)
			return;
	if (totals.states < STATES_MAX / 2) {
		states[i] = state;
		totals.states++;
	}
}

static void report(const struct scenario *scenario)
{
	char text[4000];

	schedule_print(scenario, &now.taken, text, sizeof(text));
	totals.findings++;
	printf("FINDING after %llu schedules: %s\n  --replay='%s'\n",
	       (unsigned long long)totals.schedules, now.finding, text);
	fflush(stdout);
}

static const struct scenario *running_scenario;

/* An assertion or worse: of no use without the schedule. */
static void crash(int number)
{
	snprintf(now.finding, sizeof(now.finding), "%s", strsignal(number));
	report(running_scenario);
	world_remove_files();
	signal(number, SIG_DFL);
	raise(number);
}

/* How many points has each operation if nothing disturbs it? */
static void count_points(const struct scenario *scenario)
{
	for (unsigned k = 0; k < scenario->count; k++) {
		long op = scenario->ops[k] - operations;
		uint32_t count = 0;

		for (uint32_t i = 0; i < now.points; i++)
			count += recorded[i].process == k;
		if (points_of[op].least == 0 || count < points_of[op].least)
			points_of[op].least = count;
		if (count > points_of[op].most)
			points_of[op].most = count;
	}
}

bool run_one(const struct scenario *scenario, const struct schedule *plan, struct chooser *chooser,
	     struct word_map *map)
{
	memset(&now, 0, sizeof(now));
	running_scenario = scenario;
	world_suit(base_is_packed(scenario->base));
	operations_begin(scenario);
	process_explore(plan, chooser, scenario->count, map);
	totals.deaths += now.deaths;
	oracle_judge(scenario);
	totals.schedules++;
	totals.points += now.points;
	totals.parks += now.parks;
	totals.ticks += now.ticks;
	totals.last_points = now.points;
	count_state(scenario, now.state);
	if (recording && plan->count == 0)
		count_points(scenario);
	if (now.finding[0] == '\0') {
		world_tidy();
		return !stopped;
	}
	report(scenario);
	world_close();
	world_open(base_is_packed(scenario->base));
	return !stopped && totals.findings < findings_max;
}

/* ------------------------------------------------------------------- replay */

static int replay(const char *text)
{
	struct scenario scenario;
	struct schedule plan;
	char word[100];

	if (!schedule_parse(text, &scenario, &plan)) {
		fprintf(stderr, "explore: not a schedule: %s\n", text);
		return 2;
	}
	recording = true;
	run_one(&scenario, &plan, NULL, NULL);
	for (uint32_t i = 0; i < totals.last_points; i++) {
		static const char *const kinds[] = { "", "system call", "sleep", "end" };
		const struct point *point = &recorded[i];

		name_word_of(point->word, word, sizeof(word));
		printf("%6u %*s%u %s%s\n", i, point->process * 4, "", point->process,
		       kinds[point->kind], word);
	}
	printf("%u points, %llu deaths, %s\n", totals.last_points,
	       (unsigned long long)totals.deaths, totals.findings > 0 ? "FINDING" : "all is well");
	return totals.findings > 0;
}

/* --------------------------------------------------------------------- main */

static unsigned make_pairs(const char *pattern)
{
	unsigned count = 0;

	for (unsigned base = 0; base < BASES; base++)
		for (unsigned a = 0; a < operation_count; a++)
			for (unsigned b = a; b < operation_count && count < PAIRS_MAX; b++) {
				struct scenario *s = &pairs[count];

				*s = (struct scenario){ .base = (enum base)base,
							.count = 2,
							.ops = { &operations[a], &operations[b] } };
				scenario_name(s);
				count += scenario_is_possible(s) &&
					 fnmatch(pattern, s->name, 0) == 0;
			}
	return count;
}

static void print_totals(unsigned count, double seconds)
{
	printf("points by operation:");
	for (unsigned i = 0; i < operation_count; i++)
		if (points_of[i].most > 0)
			printf(" %s %u-%u", operations[i].name, points_of[i].least,
			       points_of[i].most);
	printf("\n%u pairs, %llu schedules (%u rounds of pairs in part only), %llu points, "
	       "%llu deaths, %llu sleeps, %llu ticks, %llu final states, %llu findings, "
	       "%.1f s, %.0f schedules/s\n",
	       count, (unsigned long long)totals.schedules, totals.cut,
	       (unsigned long long)totals.points, (unsigned long long)totals.deaths,
	       (unsigned long long)totals.parks, (unsigned long long)totals.ticks,
	       (unsigned long long)totals.states, (unsigned long long)totals.findings, seconds,
	       (double)totals.schedules / seconds);
}

static int explore(const char *pattern, unsigned preemptions, double seconds)
{
	unsigned count = make_pairs(pattern);
	double began = real_seconds();

	if (count == 0) {
		fprintf(stderr, "explore: no pair is called %s\n", pattern);
		return 2;
	}
	search_pairs(pairs, count, preemptions, seconds * 2 / 3);
	/* Three at a time are of no pair. */
	if (!stopped && totals.findings < findings_max && strcmp(pattern, "*") == 0 &&
	    seconds > 0) {
		uint64_t before = totals.schedules;

		search_random(began + seconds - real_seconds());
		printf("3 processes, at random: %llu schedules\n",
		       (unsigned long long)(totals.schedules - before));
	}
	print_totals(count, real_seconds() - began);
	return totals.findings > 0;
}

int main(int argc, char **argv)
{
	static const struct option options[] = { { "seconds", required_argument, NULL, 's' },
						 { "seed", required_argument, NULL, 'r' },
						 { "pair", required_argument, NULL, 'p' },
						 { "preemptions", required_argument, NULL, 'n' },
						 { "findings", required_argument, NULL, 'f' },
						 { "replay", required_argument, NULL, 'R' },
						 { "list", no_argument, NULL, 'l' },
						 { NULL, 0, NULL, 0 } };
	const char *pattern = "*", *schedule = NULL;
	unsigned preemptions = 2;
	double seconds = 60;
	bool list = false;
	int option, ret = 0;

	while ((option = getopt_long(argc, argv, "", options, NULL)) != -1)
		switch (option) {
		case 's':
			seconds = atof(optarg);
			break;
		case 'r':
			random_state = strtoull(optarg, NULL, 0);
			break;
		case 'p':
			pattern = optarg;
			break;
		case 'n':
			preemptions = (unsigned)atoi(optarg);
			break;
		case 'f':
			findings_max = (unsigned)atoi(optarg);
			break;
		case 'R':
			schedule = optarg;
			break;
		case 'l':
			list = true;
			break;
		default:
			return 2;
		}
	if (list) {
		for (unsigned i = 0, count = make_pairs(pattern); i < count; i++)
			printf("%s\n", pairs[i].name);
		return 0;
	}
	signal(SIGINT, stop);
	signal(SIGTERM, stop);
	states = calloc(STATES_MAX, sizeof(*states));
	process_set_up();
	world_open(false);
	signal(SIGABRT, crash);
	signal(SIGSEGV, crash);
	signal(SIGBUS, crash);
	printf("seed %llu\n", (unsigned long long)random_state);
	ret = schedule != NULL ? replay(schedule) : explore(pattern, preemptions, seconds);
	world_close();
	process_forget();
	free(states);
	return ret;
}
