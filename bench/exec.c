/* SPDX-License-Identifier: MIT */
/*
 * exec - what does it cost to run a command by `streamcache exec`, and what does it
 * save? Against a plain run of the same command.
 *
 *	exec [--rounds=N] [--mib=N] [--starts=N] [--json=FILE] [--only=TEXT] [--smoke] [DIR]
 *
 * true(1), which prints nothing: --starts (50) times, one after another; what is left
 * is what starting costs. cat(1) of a file of --mib (256) in the page cache, which
 * costs nothing but its bytes: each of them goes through two processes more. And
 * sha256sum(1) of it by eight callers at the same time, who share the work. Beside
 * them `exec --no-cache`: one program more is started, and that is all.
 *
 * Milliseconds from before the first is started until all callers have ended and all
 * that they printed has come out of one pipe, which this program drains. Each miss has
 * a key of its own; a hit is of what was stored before the clock started. That a miss
 * has run the command once, and a hit not at all, is looked up after each run.
 *
 * $STREAMCACHE is the tool, or else the one of this build: not libtool's script, which
 * takes longer to start than what it starts.
 */
#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "plain.h"

#define CALLERS_MAX 8
#define WORDS_MAX 8
#define KEY "--key="

enum how {
	PLAIN,
	NO_CACHE,
	MISS,
	HIT
};

struct job {
	const char *command[3];
	unsigned callers; /* at the same time */
	unsigned times;   /* one after another */
	size_t bytes;     /* printed to each caller */
};

struct trial {
	const struct job *job;
	enum how how;
};

static unsigned starts = 50, mib = 256;
static struct scache *cache;
static const char *tool;
static char cache_option[PATH_MAX + 16], key_option[64], file_path[PATH_MAX];

/* ------------------------------------------------------------------------ one run */

static void name_run(const struct trial *trial)
{
	static unsigned misses;

	if (trial->how == MISS)
		snprintf(key_option, sizeof(key_option), KEY "miss %u", misses++);
	else
		snprintf(key_option, sizeof(key_option), KEY "hit %s", trial->job->command[0]);
}

static void put_words(const struct trial *trial, const char **ret_words)
{
	if (trial->how != PLAIN) {
		*ret_words++ = tool;
		*ret_words++ = "exec";
		*ret_words++ = cache_option;
		*ret_words++ = trial->how == NO_CACHE ? "--no-cache" : key_option;
		*ret_words++ = "--";
	}
	for (int i = 0; i < 3 && trial->job->command[i] != NULL; i++)
		*ret_words++ = trial->job->command[i];
	*ret_words = NULL;
}

static void call(const struct trial *trial)
{
	const char *words[WORDS_MAX + 1];
	posix_spawn_file_actions_t actions;
	pid_t children[CALLERS_MAX];
	size_t bytes = 0;
	ssize_t got;
	int ends[2];

	put_words(trial, words);
	expect(pipe2(ends, O_CLOEXEC) == 0, "pipe2");
	posix_spawn_file_actions_init(&actions);
	posix_spawn_file_actions_adddup2(&actions, ends[1], STDOUT_FILENO);
	for (unsigned i = 0; i < trial->job->callers; i++) {
		errno = posix_spawnp(&children[i], words[0], &actions, NULL, (char *const *)words,
				     environ);
		expect(errno == 0, words[0]);
	}
	close(ends[1]);
	while ((got = read(ends[0], plain_sink, BLOCK_BYTES)) > 0)
		bytes += (size_t)got;
	expect(got == 0, "read");
	for (unsigned i = 0; i < trial->job->callers; i++)
		reap(children[i]);
	posix_spawn_file_actions_destroy(&actions);
	close(ends[0]);
	if (bytes != trial->job->bytes * trial->job->callers)
		errx(1, "%s printed %zu bytes", words[0], bytes);
}

/* ------------------------------------------------------------------------- trials */

static struct scache_stats stat_now(void)
{
	struct scache_stats stats = { .size = sizeof(stats) };

	sc(scache_stat(cache, &stats), "scache_stat");
	return stats;
}

static void store_once(const struct trial *trial)
{
	const char *key = key_option + strlen(KEY);
	struct scache_reader *reader;

	name_run(trial);
	if (scache_lookup(cache, key, strlen(key), NULL, &reader) == 0)
		scache_reader_close(reader);
	else
		call(trial);
}

/* Whoever held a run may have a moment to go: not at the cost of who is next. */
static void await_holders(void)
{
	while (stat_now().peers > 1)
		usleep(1000);
}

/* A large one, so that the next does not wait for the disk to write it. */
static void forget_run(void)
{
	const char *key = key_option + strlen(KEY);

	sc(scache_remove(cache, key, strlen(key)), "scache_remove");
}

/* Milliseconds each. */
static double run(const void *arg)
{
	const struct trial *trial = arg;
	const struct job *job = trial->job;
	uint64_t productions;
	double began, took;

	if (trial->how == HIT)
		store_once(trial);
	await_holders();
	productions = stat_now().productions;
	began = seconds();
	for (unsigned i = 0; i < job->times; i++) {
		name_run(trial);
		call(trial);
	}
	took = (seconds() - began) * 1e3 / job->times;
	await_holders();
	productions = stat_now().productions - productions;
	if (productions != (trial->how == MISS ? job->times : 0))
		errx(1, "%s was run %llu times", job->command[0], (unsigned long long)productions);
	if (trial->how == MISS && job->bytes > BLOCK_BYTES)
		forget_run();
	return took;
}

static void ask_job(const char *name, const char *where, const struct job *job, enum how how)
{
	const struct trial ours = { job, how }, plain = { job, PLAIN },
			   no_cache = { job, NO_CACHE };
	struct question question = {
		name,
		"ms",
		true,
		where,
		{ { how == HIT ? "exec, stored before" : "exec, not there yet", run, &ours, 0 },
		  { "the command alone", run, &plain, 0 },
		  { "exec --no-cache", run, &no_cache, 0 } },
	};

	if (job->callers > 1) /* their work is what counts, and not how they are started */
		question.contestants[2].name = NULL;
	ask(&question);
}

/* -------------------------------------------------------------------------- main */

static bool own_option(const char *name, const char *value)
{
	if (atoi(value) < 1)
		return false;
	if (strcmp(name, "--starts") == 0)
		starts = (unsigned)atoi(value);
	else if (strcmp(name, "--mib") == 0)
		mib = (unsigned)atoi(value);
	else
		return false;
	return true;
}

static void find_tool(void)
{
	tool = getenv("STREAMCACHE");
	if (tool == NULL) {
		tool = BUILT_LIBS "/streamcache";
		setenv("LD_LIBRARY_PATH", BUILT_LIBS, 1);
	}
	expect(access(tool, X_OK) == 0, tool);
	unsetenv("STREAMCACHE_DISABLE");
}

int main(int argc, char **argv)
{
	struct job prints_nothing = { .command = { "true" }, .callers = 1 };
	struct job prints_much = { .command = { "cat", file_path }, .callers = 1, .times = 1 };
	struct job works = { .command = { "sha256sum", file_path }, .callers = 8, .times = 1 };
	char miss[64], hit[64], shared[64];

	bench_begin(argc, argv, "exec [--mib=N] [--starts=N] [DIR]", own_option);
	if (bench.smoke) {
		starts = 2;
		mib = 1;
	}
	plain_begin();
	find_tool();
	snprintf(file_path, sizeof(file_path), "%s", in_dir("file"));
	close(plain_file(file_path, (size_t)mib << 20));
	cache = a_cache("cache", NULL);
	snprintf(cache_option, sizeof(cache_option), "--cache=%s", in_dir("cache"));
	prints_nothing.times = starts;
	prints_much.bytes = (size_t)mib << 20;
	works.bytes = 64 + strlen("  ") + strlen(file_path) + strlen("\n");
	snprintf(miss, sizeof(miss), "exec: a miss, %u MiB", mib);
	snprintf(hit, sizeof(hit), "exec: a hit, %u MiB", mib);
	snprintf(shared, sizeof(shared), "exec: eight at once, sha256sum of %u MiB", mib);
	ask_job("exec: a miss, true", "each; a command that prints nothing", &prints_nothing, MISS);
	ask_job("exec: a hit, true", "each; a command that prints nothing", &prints_nothing, HIT);
	ask_job(miss, "cat of a file in the page cache, into a pipe", &prints_much, MISS);
	ask_job(hit, "cat of a file in the page cache, into a pipe", &prints_much, HIT);
	ask_job(shared, "until the last one ends", &works, MISS);
	scache_close(cache);
	return bench_end();
}
