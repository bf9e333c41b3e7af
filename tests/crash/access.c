/* SPDX-License-Identifier: MIT */
/*
 * access - a process is killed before each access that it makes to shared
 * memory, in every operation of tidy_operations.c: the finest grain at which
 * others could see a difference, if the machine did what the source says (what
 * it does instead single_step.c tries).
 *
 * A first victim counts the accesses of its operation. With --all each is
 * taken twice: the survivor sweeps at once, or has to find out. Otherwise as
 * many as --seconds allow, which on an idle machine are all.
 */
#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/step.h"
#include "tidy.h"

#define NS_PER_S 1000000000ll
#define LEAST_KILLS 8 /* even if the others have used up the time */

static uint64_t *accesses; /* of the victim so far, seen by both */
static uint64_t fatal;     /* it dies before this one; 0: before none */

static void on_access(const volatile void *word)
{
	(void)word;
	/* A compressor counts as well. */
	if (__atomic_add_fetch(accesses, 1, __ATOMIC_SEQ_CST) == fatal)
		kill(getpid(), SIGKILL);
}

static void arm(void)
{
	access_set_hook(on_access);
}

/* One victim. True if it came to the end of its operation. */
static bool kill_before(const struct operation *op, uint64_t number)
{
	pid_t victim;
	int status;

	snprintf(tidy_where, sizeof(tidy_where), "%s, killed before access %llu", op->name,
		 (unsigned long long)number);
	fatal = number;
	*accesses = 0;
	victim = tidy_victim(op, NULL, arm);
	kill(victim, SIGCONT);
	must_be(waitpid(victim, &status, WUNTRACED), victim);
	if (WIFSTOPPED(status))
		tidy_bury(victim);
	else if (!WIFSIGNALED(status) || WTERMSIG(status) != SIGKILL)
		tidy_fail("the victim ended by itself: %#x", (unsigned)status);
	tidy_survive(op);
	return WIFSTOPPED(status);
}

/* Two numbers without a common divisor: multiples of one reach all residues of the other. */
static bool are_coprime(uint64_t a, uint64_t b)
{
	while (b != 0) {
		uint64_t rest = a % b;

		a = b;
		b = rest;
	}
	return a == 1;
}

/*
 * Kill before all accesses, in an order such that those had so far are evenly
 * spread whenever the time is over. Without a limit of time each twice.
 */
static uint64_t kill_in(const struct operation *op, int64_t budget_ns, uint64_t *random)
{
	int64_t since_ns = tidy_now_ns();
	uint64_t count, kills = 0, stride, at, i;

	tidy_open(op);
	if (!kill_before(op, 0))
		tidy_fail("killed by whom?");
	count = *accesses;
	if (count == 0)
		tidy_fail("no access to shared memory at all");
	stride = count * 618 / 1000 + 1; /* the golden section */
	while (!are_coprime(stride, count))
		stride++;
	at = tidy_random(random) % count;
	for (i = 0; i < count && (i < LEAST_KILLS || tidy_now_ns() - since_ns < budget_ns); i++) {
		at = (at + stride) % count;
		kill_before(op, at + 1);
		kills++;
		if (budget_ns < INT64_MAX)
			continue;
		tidy_patient_each = 1;
		kill_before(op, at + 1);
		tidy_patient_each = 0;
		kills++;
	}
	tidy_close();
	printf("%-20s accesses %5llu  killed before %5llu (%5.1f %%)  kills %6llu  %6.2f s\n",
	       op->name, (unsigned long long)count, (unsigned long long)i,
	       100.0 * (double)i / (double)count, (unsigned long long)kills,
	       (double)(tidy_now_ns() - since_ns) / 1e9);
	fflush(stdout);
	return kills;
}

int main(int argc, char **argv)
{
	static const struct option options[] = { { "all", no_argument, NULL, 'a' },
						 { "only", required_argument, NULL, 'o' },
						 { "seconds", required_argument, NULL, 'b' },
						 { "seed", required_argument, NULL, 's' },
						 { 0 } };
	uint64_t seed = (uint64_t)tidy_now_ns() % 1000000007, kills = 0, random;
	int64_t since_ns = tidy_now_ns(), budget_ns = 20 * NS_PER_S, left_ns;
	const char *only = NULL;
	int option;

	while ((option = getopt_long(argc, argv, "", options, NULL)) != -1) {
		if (option == 'a')
			budget_ns = INT64_MAX;
		else if (option == 'b')
			budget_ns = strtoll(optarg, NULL, 10) * NS_PER_S;
		else if (option == 'o')
			only = optarg;
		else if (option == 's')
			seed = strtoull(optarg, NULL, 10);
		else
			return 2;
	}
	accesses = mmap(NULL, sizeof(*accesses), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS,
			-1, 0);
	if (accesses == MAP_FAILED)
		return 2;
	printf("access: seed %llu\n", (unsigned long long)seed);
	fflush(stdout);
	tidy_begin();
	if (budget_ns == INT64_MAX)
		tidy_patient_each = 0;
	for (unsigned i = 0; i < operation_count; i++) {
		/* Each operation has a sequence of its own, whatever --only says. */
		random = seed + i;
		if (only != NULL && strcmp(only, operations[i].name) != 0)
			continue;
		/* What one does not need goes to those behind it. */
		left_ns = budget_ns - (tidy_now_ns() - since_ns);
		kills += kill_in(&operations[i],
				 budget_ns == INT64_MAX ? INT64_MAX
							: left_ns / (operation_count - i),
				 &random);
	}
	tidy_end();
	printf("access: %llu kills in %.1f s\n", (unsigned long long)kills,
	       (double)(tidy_now_ns() - since_ns) / 1e9);
	return 0;
}
