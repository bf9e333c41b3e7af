/* SPDX-License-Identifier: MIT */
/*
 * power [--cuts=N] [--seed=N] [--durability=none|data|full] [--verify=never] [--no-sync]
 *
 * Processes use a cache, and their changes are recorded; then the power goes at N points
 * of that, in each of the ways that disk.c knows. Prints figures for each durability,
 * and the seed; ends with 1 if anything was wrong. --verify=never and --no-sync break what
 * it all rests on: something is to be found then.
 */
#include "power.h"

#include <errno.h>
#include <ftw.h>
#include <getopt.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define LIVES 4
#define OPS 60
#define CUTS_A_LOG 100u /* and each model */

static char top[200], root[256], segments[256], left[256];
static bool ignores_sync;

void fail(const char *format, ...)
{
	va_list args;

	va_start(args, format);
	vfprintf(stderr, format, args);
	va_end(args);
	fputc('\n', stderr);
	_exit(99);
}

/* ------------------------------------------------------------------------ files */

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *at)
{
	(void)st;
	(void)type;
	(void)at;
	return remove(path);
}

static void remove_tree(const char *path)
{
	nftw(path, remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

static void make_directory(const char *path)
{
	remove_tree(path);
	if (mkdir(path, 0700) < 0)
		fail("cannot make %s: %s", path, strerror(errno));
}

static void remove_top(void)
{
	remove_tree(top);
}

static void make_places(void)
{
	const char *above = getenv("TMPDIR");

	snprintf(top, sizeof(top), "%s/power.XXXXXX", above != NULL ? above : "/tmp");
	if (mkdtemp(top) == NULL)
		fail("cannot make %s", top);
	snprintf(root, sizeof(root), "%s/root", top);
	snprintf(segments, sizeof(segments), "%s/segments", top);
	snprintf(left, sizeof(left), "%s/left", top);
	atexit(remove_top);
}

/* ------------------------------------------------------------------------- a log */

static struct scache_options options = {
	.size = sizeof(options),
	.entries = 256,
	.peers = 16,
	.readers = 1024,
	.rings = 4,
	.ring_bytes = 64 << 10,
	.window_bytes = SCACHE_UNLIMITED,
	.max_age_ns = SCACHE_UNLIMITED,
	.segment_dir = segments,
};

/* Segment after segment; each finds what the one before has left. */
static void make_log(void)
{
	struct scache_options theirs = options;
	char dir[300];

	theirs.verify = SCACHE_VERIFY_RESTART;
	snprintf(dir, sizeof(dir), "%s/cache", root);
	make_directory(root);
	log_make(root, ignores_sync);
	for (int life = 0; life < LIVES; life++) {
		make_directory(segments);
		work_once(&theirs, dir, OPS);
	}
	log_switch(false);
}

static int compare(const void *a, const void *b)
{
	const uint32_t *x = a, *y = b;

	return (*x > *y) - (*x < *y);
}

/* Where the power goes: anywhere, and often right behind a promise. */
static void choose_cuts(uint32_t *cuts, uint32_t count)
{
	uint32_t records = log_count(), *promises = calloc(records, sizeof(*promises)), found = 0;

	if (promises == NULL)
		fail("no memory");
	for (const struct record *r = log_next(NULL); r != NULL; r = log_next(r))
		if (r->kind == FINISHED)
			promises[found++] = r->index + 1;
	for (uint32_t i = 0; i < count; i++)
		cuts[i] = random_below(3) > 0 || found == 0
				  ? (uint32_t)random_below(records + 1)
				  : promises[random_below(found)] + (uint32_t)random_below(3);
	qsort(cuts, count, sizeof(*cuts), compare);
	free(promises);
}

static void cut_once(struct disk *disk, struct judge *judge, struct tally *tally)
{
	char dir[300];

	make_directory(left);
	make_directory(segments);
	disk_cut(disk, left);
	snprintf(dir, sizeof(dir), "%s/cache", left);
	judge_look(judge, disk, dir, &options, tally);
}

static void cut_log(enum model model, uint32_t count, struct tally *tally)
{
	uint32_t cuts[CUTS_A_LOG], done = 0;
	struct disk *disk = disk_make(model);
	struct judge *judge = judge_make();
	const struct record *r = log_next(NULL);

	choose_cuts(cuts, count);
	for (;; r = log_next(r)) {
		while (done < count && (r == NULL || cuts[done] <= r->index)) {
			cut_once(disk, judge, tally);
			done++;
		}
		if (done == count)
			break;
		disk_apply(disk, r);
		judge_apply(judge, r);
	}
	disk_free(disk);
	judge_free(judge);
}

/* ------------------------------------------------------------------------ options */

static const char *const durabilities[] = { [SCACHE_DURABILITY_NONE] = "none",
					    [SCACHE_DURABILITY_DATA] = "data",
					    [SCACHE_DURABILITY_FULL] = "full" };

static bool try_durability(uint32_t durability, uint64_t cuts, uint64_t seed)
{
	struct tally tally = { .cuts = 0 };
	uint64_t logs = 0, records = 0, part;

	random_seed(seed ^ durability);
	options.durability = durability;
	while (tally.cuts < cuts) {
		make_log();
		logs++;
		records += log_count();
		for (enum model model = 0; model < MODELS && tally.cuts < cuts; model++) {
			part = (cuts - tally.cuts + 1) / (MODELS - model);
			cut_log(model, part < CUTS_A_LOG ? (uint32_t)part : CUTS_A_LOG, &tally);
		}
		log_free();
	}
#define N(field) ((unsigned long long)tally.field)
	printf("%-4s  %llu cuts of %llu logs (%llu records): %llu served (%llu had been removed), "
	       "%llu missing, %llu refused; %llu had to be there; wrong %llu, lost %llu, other %llu\n",
	       durabilities[durability], N(cuts), (unsigned long long)logs,
	       (unsigned long long)records, N(served), N(risen), N(missing), N(refused),
	       N(required), N(wrong), N(lost), N(other));
	return tally.wrong + tally.lost + tally.other == 0;
}

int main(int argc, char **argv)
{
	static const struct option known[] = {
		{ "cuts", required_argument, NULL, 'c' },
		{ "seed", required_argument, NULL, 's' },
		{ "durability", required_argument, NULL, 'd' },
		{ "verify", required_argument, NULL, 'v' },
		{ "no-sync", no_argument, NULL, 'n' },
		{ NULL, 0, NULL, 0 },
	};
	uint64_t cuts = 300, seed = (uint64_t)time(NULL);
	const char *only = NULL;
	bool is_good = true;
	int c;

	while ((c = getopt_long(argc, argv, "", known, NULL)) != -1) {
		if (c == 'c')
			cuts = strtoull(optarg, NULL, 0);
		else if (c == 's')
			seed = strtoull(optarg, NULL, 0);
		else if (c == 'd')
			only = optarg;
		else if (c == 'v' && strcmp(optarg, "never") == 0)
			options.verify = SCACHE_VERIFY_NEVER;
		else if (c == 'n')
			ignores_sync = true;
		else
			return 2;
	}
	printf("seed %llu\n", (unsigned long long)seed);
	make_places();
	for (uint32_t i = SCACHE_DURABILITY_NONE; i <= SCACHE_DURABILITY_FULL; i++)
		if (only == NULL || strcmp(only, durabilities[i]) == 0)
			is_good &= try_durability(i, cuts, seed);
	return !is_good;
}
