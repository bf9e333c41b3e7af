/* SPDX-License-Identifier: MIT */
/*
 * tally - who was where, and how often somebody died there.
 *
 * Each thread has a cell in memory that outlives it: the call it is inside, and
 * the last step that it passed there. A kill counts only if it hit somebody
 * inside a call: all others prove nothing.
 */
#include "storm.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/step.h"

#define LINES_MAX 2048u

struct line {
	char call[24], label[40];
	uint64_t kills;
};

const char *volatile last_call = "?";
volatile unsigned last_key;
static _Thread_local struct cell *cell;
static _Thread_local bool is_callback;
static struct line lines[LINES_MAX];
static unsigned line_count;
static const char *file;

/* ----------------------------------------------------------------- the cells */

static void too_long(int number)
{
	(void)number;
	finding("blocks longer than %d s", CALL_SECONDS);
}

static void note_step(const char *label)
{
	if (cell == NULL)
		return;
	atomic_store_explicit(&cell->label, label, memory_order_relaxed);
	/* Nobody else writes here. */
	atomic_store_explicit(&cell->steps,
			      atomic_load_explicit(&cell->steps, memory_order_relaxed) + 1,
			      memory_order_relaxed);
}

void note_steps(void)
{
	cell = &shared->cell[me % CELLS][0];
	signal(SIGALRM, too_long);
	step_set_hook(note_step);
}

void note_callback(void)
{
	static _Atomic unsigned next;

	is_callback = true;
	cell = &shared->cell[me % CELLS][1 + atomic_fetch_add(&next, 1) % (THREADS - 1)];
}

void enter(const char *name, unsigned key)
{
	COUNT(operations);
	if (!is_callback) {
		last_call = name;
		last_key = key;
		if (cell == NULL)
			signal(SIGALRM, too_long);
		alarm(CALL_SECONDS);
	}
	if (cell == NULL)
		return;
	atomic_store_explicit(&cell->label, NULL, memory_order_relaxed);
	atomic_store_explicit(&cell->call, name, memory_order_relaxed);
	atomic_store_explicit(&cell->inside, true, memory_order_relaxed);
}

ssize_t came_back(ssize_t value)
{
	if (cell != NULL)
		atomic_store_explicit(&cell->inside, false, memory_order_relaxed);
	return value;
}

/* -------------------------------------------------------------- the histogram */

static void add(const char *call, const char *label, uint64_t kills)
{
	struct line *l = lines;

	while (l < lines + line_count &&
	       (strcmp(l->call, call) != 0 || strcmp(l->label, label) != 0))
		l++;
	if (l == lines + LINES_MAX)
		return;
	if (l == lines + line_count) {
		line_count++;
		snprintf(l->call, sizeof(l->call), "%s", call);
		snprintf(l->label, sizeof(l->label), "%s", label);
	}
	l->kills += kills;
}

void tally_death(uint32_t number)
{
	bool counts = false;

	COUNT(kills);
	for (unsigned i = 0; i < THREADS; i++) {
		struct cell *c = &shared->cell[number % CELLS][i];
		const char *label = c->label;

		if (!c->inside)
			continue;
		counts = true;
		add(c->call, label != NULL ? label : "-", 1);
	}
	if (counts)
		COUNT(counted);
}

static int by_kills(const void *a, const void *b)
{
	const struct line *one = a, *two = b;

	return one->kills < two->kills ? 1 : one->kills > two->kills ? -1 : 0;
}

/* Of one kind: by call, or by label. */
static void print_table(const char *title, bool by_call)
{
	static struct line sums[LINES_MAX];
	unsigned count = 0;

	memset(sums, 0, sizeof(sums));
	for (unsigned i = 0; i < line_count; i++) {
		const char *what = by_call ? lines[i].call : lines[i].label;
		unsigned at = 0;

		while (at < count && strcmp(sums[at].label, what) != 0)
			at++;
		count += at == count;
		snprintf(sums[at].label, sizeof(sums[at].label), "%.39s", what);
		sums[at].kills += lines[i].kills;
	}
	qsort(sums, count, sizeof(sums[0]), by_kills);
	printf("storm: killed %s (%u kinds)\n", title, count);
	for (unsigned i = 0; i < count; i++)
		printf("%8llu %-24s%s", (unsigned long long)sums[i].kills, sums[i].label,
		       i % 3 == 2 || i + 1 == count ? "\n" : "");
}

/* ------------------------------------------------------------------- the sums */

#define SUMS_MAX 24

static struct sum {
	const char *name;
	uint64_t now, before;
} sums[SUMS_MAX];

static void take_sums(void)
{
	unsigned i = 0;
#define SUM(what)             \
	sums[i].name = #what; \
	sums[i++].now = shared->what
	SUM(kills);
	SUM(counted);
	SUM(stops);
	SUM(operations);
	SUM(verified);
	SUM(findings);
	SUM(productions);
	SUM(finishes);
	SUM(unkept);
	SUM(takeovers);
	SUM(fixed);
	SUM(heirs);
	SUM(limited);
	SUM(deaths);
	SUM(stale);
	SUM(pipes);
	SUM(deadlocks);
	SUM(bypasses);
	SUM(full);
	SUM(losses);
	SUM(adopted);
	SUM(frames);
	SUM(tight);
	SUM(evicted);
#undef SUM
}

int tally_resume(const char *path)
{
	char name[40], call[24], label[40];
	unsigned long long number;
	FILE *in = fopen(path, "r");

	file = path;
	take_sums();
	if (in == NULL)
		return errno == ENOENT ? 0 : -errno;
	while (fscanf(in, "%39s", name) == 1) {
		if (strcmp(name, "at") == 0) {
			if (fscanf(in, "%23s %39s %llu", call, label, &number) != 3)
				break;
			add(call, label, number);
			continue;
		}
		if (fscanf(in, "%llu", &number) != 1)
			break;
		for (unsigned i = 0; i < SUMS_MAX; i++)
			if (strcmp(sums[i].name, name) == 0)
				sums[i].before = number;
	}
	number = feof(in);
	fclose(in);
	return number ? 0 : -EINVAL;
}

/* Whole or not at all: the next run begins with it. */
static void save(void)
{
	char path[400];
	FILE *out;
	bool good;

	snprintf(path, sizeof(path), "%s.new", file);
	out = fopen(path, "w");
	if (out == NULL) {
		fprintf(stderr, "storm: %s: %s\n", path, strerror(errno));
		return;
	}
	for (unsigned i = 0; i < SUMS_MAX; i++)
		fprintf(out, "%s %llu\n", sums[i].name,
			(unsigned long long)(sums[i].now + sums[i].before));
	for (unsigned i = 0; i < line_count; i++)
		fprintf(out, "at %s %s %llu\n", lines[i].call, lines[i].label,
			(unsigned long long)lines[i].kills);
	good = !ferror(out);
	good = fclose(out) == 0 && good;
	if (!good || rename(path, file) < 0)
		fprintf(stderr, "storm: %s: %s\n", file, strerror(errno));
}

static void print_sums(const char *title, bool all)
{
	printf("storm: %s", title);
	for (unsigned i = 0; i < SUMS_MAX; i++)
		printf("%s%s %llu", i % 7 == 6 ? "\nstorm: " : " ", sums[i].name,
		       (unsigned long long)(sums[i].now + (all ? sums[i].before : 0)));
	printf("\n");
}

void tally_end(void)
{
	take_sums();
	print_table("inside", true);
	print_table("behind the step", false);
	print_sums("sums:", false);
	if (file != NULL) {
		print_sums("of all runs:", true);
		save();
	}
	fflush(stdout);
}
