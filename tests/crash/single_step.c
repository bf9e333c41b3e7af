/* SPDX-License-Identifier: MIT */
/*
 * single_step - a process is killed before machine instructions of the library
 * as it is installed, optimised and without hooks: what access.c does, with
 * the compiler's order of things and between any two system calls.
 *
 * A first victim is stepped through its operation by ptrace(2), which tells
 * the address of each instruction. Steps are dear, so a later victim runs up to
 * a breakpoint: at its last instruction, or at one shortly before that it had
 * not passed yet. Instructions are taken in random order until --seconds are
 * over, or all were had: first those of our own code and those on both sides
 * of a system call, then the C library's.
 *
 * Of what is done again and again the first VISITS_MAX times count, and of an
 * operation the first STEPS_MAX instructions: what comes after them is, in a
 * sweep, a look into directories.
 */
#include <elf.h>
#include <errno.h>
#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/uio.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tidy.h"

#if defined(__x86_64__)
#define PC(regs) ((regs).rip)
#define TRAP_WORD(word) (((word) & ~0xffull) | 0xcc)
#define TRAP_BYTES 1 /* the breakpoint has been executed */
#define SYSCALL_CODE "\x0f\x05"
#elif defined(__aarch64__)
/* A CAS of exclusive loads and stores never ends when it is stepped: wants LSE. */
#define PC(regs) ((regs).pc)
#define TRAP_WORD(word) (((word) & ~0xffffffffull) | 0xd4200000)
#define TRAP_BYTES 0 /* it has not */
#define SYSCALL_CODE "\x01\x00\x00\xd4"
#endif

#ifndef PC
int main(void)
{
	puts("the instructions of this machine are not known here");
	return 77;
}
#else

#define STEPS_MAX 100000u
#define SEEN_SLOTS (1u << 18) /* a power of two, more than STEPS_MAX */
#define VISITS_MAX 8
#define LEAST_KILLS 20  /* even if the first look has used up the time */
#define STEPS_A_VISIT 4 /* what passing a breakpoint costs */

/* One operation, instruction by instruction. */
static struct {
	uint64_t pc[STEPS_MAX];        /* of the instruction that is next */
	uint32_t visit[STEPS_MAX];     /* so many times it was before, and this one */
	uint32_t anchor[STEPS_MAX];    /* the last one up to there that is a first visit */
	uint32_t point[STEPS_MAX];     /* where to kill, in random order */
	uint32_t length, points, ours; /* ours are the first of the points */
	bool cut;                      /* the operation goes on behind it */
} trace;

static uint64_t kills, missed; /* missed: it took another way this time */

/* --------------------------------------------------------------- the tracee */

static void be_traced(void)
{
	if (ptrace(PTRACE_TRACEME, 0, NULL, NULL) < 0)
		_exit(77);
}

static uint64_t get_pc(pid_t pid)
{
	struct user_regs_struct regs;
	struct iovec io = { .iov_base = &regs, .iov_len = sizeof(regs) };

	must(ptrace(PTRACE_GETREGSET, pid, (void *)NT_PRSTATUS, &io) == 0);
	return PC(regs);
}

static void set_pc(pid_t pid, uint64_t pc)
{
	struct user_regs_struct regs;
	struct iovec io = { .iov_base = &regs, .iov_len = sizeof(regs) };

	must(ptrace(PTRACE_GETREGSET, pid, (void *)NT_PRSTATUS, &io) == 0);
	PC(regs) = pc;
	must(ptrace(PTRACE_SETREGSET, pid, (void *)NT_PRSTATUS, &io) == 0);
}

/* Let it go on by @request. True at a trap, false when it stops itself: at its end. */
static bool resume(pid_t pid, int request)
{
	int status;

	must(ptrace(request, pid, NULL, NULL) == 0);
	must_be(waitpid(pid, &status, 0), pid);
	if (!WIFSTOPPED(status))
		tidy_fail("the victim ended by itself: %#x", (unsigned)status);
	if (WSTOPSIG(status) != SIGTRAP && WSTOPSIG(status) != SIGSTOP)
		tidy_fail("signal %d at %#llx", WSTOPSIG(status), (unsigned long long)get_pc(pid));
	return WSTOPSIG(status) == SIGTRAP;
}

static bool set_text(pid_t pid, uint64_t pc, uint64_t word)
{
	return ptrace(PTRACE_POKETEXT, pid, (void *)(uintptr_t)pc, (void *)(uintptr_t)word) == 0;
}

/* Up to visit @visit of @pc. False if that never comes (*ret_ended), or cannot be waited for. */
static bool run_to(pid_t pid, uint64_t pc, uint32_t visit, bool *ret_ended)
{
	uint64_t word;

	errno = 0;
	word = (uint64_t)ptrace(PTRACE_PEEKTEXT, pid, (void *)(uintptr_t)pc, NULL);
	if (errno != 0)
		return false;
	for (;;) {
		if (!set_text(pid, pc, TRAP_WORD(word)))
			return false;
		*ret_ended = !resume(pid, PTRACE_CONT);
		must(set_text(pid, pc, word));
		if (*ret_ended)
			return false;
		must_be(get_pc(pid), pc + TRAP_BYTES);
		set_pc(pid, pc);
		if (--visit == 0)
			return true;
		*ret_ended = !resume(pid, PTRACE_SINGLESTEP);
		if (*ret_ended)
			return false;
	}
}

/* ----------------------------------------------------------------- the trace */

struct seen {
	uint64_t pc;
	uint32_t visits;
};

/* One more visit of @pc: which one. */
static uint32_t see(struct seen *seen, uint64_t pc)
{
	uint64_t at = pc * 0x9e3779b97f4a7c15ull >> 32;

	while (seen[at % SEEN_SLOTS].visits > 0 && seen[at % SEEN_SLOTS].pc != pc)
		at++;
	seen[at % SEEN_SLOTS].pc = pc;
	return ++seen[at % SEEN_SLOTS].visits;
}

static void swap_points(uint32_t a, uint32_t b)
{
	uint32_t own = trace.point[a];

	trace.point[a] = trace.point[b];
	trace.point[b] = own;
}

static void shuffle(uint32_t from, uint32_t until, uint64_t *random)
{
	for (uint32_t i = until; i > from + 1; i--)
		swap_points(i - 1, from + (uint32_t)(tidy_random(random) % (i - from)));
}

/* The victim is a child of ours: the same code stands at the same places. */
static bool is_syscall(uint64_t pc)
{
	return memcmp((const void *)(uintptr_t)pc, SYSCALL_CODE, sizeof(SYSCALL_CODE) - 1) == 0;
}

static bool is_ours(uint32_t at)
{
	extern const char __executable_start, etext;
	uint64_t pc = trace.pc[at];

	return (pc >= (uintptr_t)&__executable_start && pc < (uintptr_t)&etext) || is_syscall(pc) ||
	       (at > 0 && is_syscall(trace.pc[at - 1]));
}

/* Where the anchors are, and the points; returns how many addresses there are. */
static uint32_t plan(uint64_t *random)
{
	struct seen *seen = calloc(SEEN_SLOTS, sizeof(*seen));
	uint32_t i, anchor = 0, addresses = 0;

	must(seen != NULL);
	trace.points = trace.ours = 0;
	for (i = 0; i < trace.length; i++) {
		trace.visit[i] = see(seen, trace.pc[i]);
		if (trace.visit[i] == 1) {
			anchor = i;
			addresses++;
		}
		trace.anchor[i] = anchor;
		if (trace.visit[i] > VISITS_MAX)
			continue;
		trace.point[trace.points++] = i;
		if (is_ours(i))
			swap_points(trace.ours++, trace.points - 1);
	}
	free(seen);
	shuffle(0, trace.ours, random);
	shuffle(trace.ours, trace.points, random);
	return addresses;
}

static void record(const struct operation *op)
{
	pid_t victim;

	snprintf(tidy_where, sizeof(tidy_where), "%s, stepped", op->name);
	victim = tidy_victim(op, be_traced, NULL);
	alarm(120);
	trace.length = 0;
	trace.cut = false;
	do {
		trace.pc[trace.length++] = get_pc(victim);
		trace.cut = trace.length == STEPS_MAX;
	} while (!trace.cut && resume(victim, PTRACE_SINGLESTEP));
	tidy_bury(victim);
	tidy_survive(op);
}

/* ------------------------------------------------------------------- kills */

static bool kill_at(const struct operation *op, uint32_t point)
{
	uint32_t from = trace.anchor[point];
	bool ended = false, hit;
	pid_t victim;

	snprintf(tidy_where, sizeof(tidy_where), "%s, killed at instruction %u (%#llx)", op->name,
		 point, (unsigned long long)trace.pc[point]);
	if (point - from > STEPS_A_VISIT * trace.visit[point])
		from = point;
	victim = tidy_victim(op, be_traced, NULL);
	if (from > 0 && !run_to(victim, trace.pc[from], trace.visit[from], &ended))
		from = 0;
	while (!ended && from < point) {
		ended = !resume(victim, PTRACE_SINGLESTEP);
		from++;
	}
	hit = !ended && get_pc(victim) == trace.pc[point];
	tidy_bury(victim);
	tidy_survive(op);
	kills++;
	missed += !hit;
	return hit;
}

static void kill_in(const struct operation *op, int64_t budget_ns, uint64_t *random)
{
	int64_t since_ns = tidy_now_ns(), end_ns = since_ns + budget_ns;
	uint32_t addresses, i, hits = 0, ours = 0;

	tidy_open(op);
	record(op);
	addresses = plan(random);
	for (i = 0; i < trace.points && (i < LEAST_KILLS || tidy_now_ns() < end_ns); i++)
		if (kill_at(op, trace.point[i])) {
			hits++;
			ours += i < trace.ours;
		}
	tidy_close();
	printf("%-20s instructions %6u%c at %4u addresses; killed at %5u of %5u, "
	       "ours %4u of %4u (%5.1f %%); %6.2f s\n",
	       op->name, trace.length, trace.cut ? '+' : ' ', addresses, hits, trace.points, ours,
	       trace.ours, 100.0 * ours / (trace.ours > 0 ? trace.ours : 1),
	       (double)(tidy_now_ns() - since_ns) / 1e9);
	fflush(stdout);
}

/* A container may forbid it. */
static bool may_trace(void)
{
	pid_t child = fork();
	int status;

	must(child >= 0);
	if (child == 0) {
		be_traced();
		raise(SIGSTOP);
		_exit(0);
	}
	must_be(waitpid(child, &status, 0), child);
	if (!WIFSTOPPED(status))
		return false;
	tidy_bury(child);
	return true;
}

int main(int argc, char **argv)
{
	static const struct option options[] = { { "only", required_argument, NULL, 'o' },
						 { "seconds", required_argument, NULL, 'b' },
						 { "seed", required_argument, NULL, 's' },
						 { 0 } };
	uint64_t seed = (uint64_t)tidy_now_ns() % 1000000007, random;
	int64_t since_ns = tidy_now_ns(), end_ns = 120;
	const char *only = NULL;
	unsigned left = 0, i;
	int option;

	while ((option = getopt_long(argc, argv, "", options, NULL)) != -1) {
		if (option == 'o')
			only = optarg;
		else if (option == 'b')
			end_ns = strtoll(optarg, NULL, 10);
		else if (option == 's')
			seed = strtoull(optarg, NULL, 10);
		else
			return 2;
	}
	end_ns = since_ns + end_ns * 1000000000;
	if (!may_trace()) {
		puts("ptrace is not allowed here");
		return 77;
	}
	printf("single_step: seed %llu\n", (unsigned long long)seed);
	fflush(stdout);
	tidy_begin();
#define CHOSEN(op) (!((op)->flags & OP_LONG) && (only == NULL || strcmp(only, (op)->name) == 0))
	for (i = 0; i < operation_count; i++)
		left += CHOSEN(&operations[i]);
	for (i = 0; i < operation_count; i++) {
		random = seed + i;
		/* What one does not need goes to those behind it. */
		if (CHOSEN(&operations[i]))
			kill_in(&operations[i], (end_ns - tidy_now_ns()) / left--, &random);
	}
	tidy_end();
	printf("single_step: %llu kills, %llu took another way, in %.1f s\n",
	       (unsigned long long)kills, (unsigned long long)missed,
	       (double)(tidy_now_ns() - since_ns) / 1e9);
	return 0;
}
#endif
