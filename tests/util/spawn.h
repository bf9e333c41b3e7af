/* SPDX-License-Identifier: MIT */
/*
 * spawn - real processes that run a function, and waiting for a state.
 *
 * A child and its parent speak in single numbers over a socket: so a test
 * waits for what a child says, and never for an amount of time. A child ends
 * with its parent, whatever happens to that.
 */
#ifndef UTIL_SPAWN_H
#define UTIL_SPAWN_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

/* AddressSanitizer's malloc() may hang in a child forked beside threads: such a test is last, and
 * left out there. */
#ifndef __has_feature
#define __has_feature(x) 0
#endif
#if defined(__SANITIZE_ADDRESS__) || __has_feature(address_sanitizer)
#define UNDER_ASAN 1
#else
#define UNDER_ASAN 0
#endif

#define DEADLINE_MS 30000 /* nothing that works takes nearly as long */

struct child {
	pid_t pid;
	int fd;
};

/*
 * must - end the test, from whichever process, unless @condition holds. Cheap
 * in loops, unlike ck_assert().
 */
#define must(condition)                                                     \
	do {                                                                \
		if (!(condition))                                           \
			spawn_fail(__FILE__, __LINE__, "%s", #condition);   \
	} while (0)

/* must_be - must(@value == @wanted), and tells both. */
#define must_be(value, wanted)                                              \
	do {                                                                \
		long long is_ = (long long)(value), w_ = (long long)(wanted); \
		if (is_ != w_)                                              \
			spawn_fail(__FILE__, __LINE__, "%s is %lld, not %s (%lld)", #value, \
				   is_, #wanted, w_);                       \
	} while (0)

/* eventually - wait for a state; after DEADLINE_MS the test has failed. */
#define eventually(condition)                                               \
	do {                                                                \
		int64_t end_ = now_ms() + DEADLINE_MS;                      \
		while (!(condition)) {                                      \
			if (now_ms() >= end_)                               \
				spawn_fail(__FILE__, __LINE__, "never: %s", #condition); \
			pause_briefly();                                    \
		}                                                           \
	} while (0)

void spawn_fail(const char *file, int line, const char *format, ...)
	__attribute__((noreturn, format(printf, 3, 4)));

int64_t now_ms(void);
void pause_briefly(void);

/* child_start - fork; the child runs @body(@arg) and exits with status 0. */
void child_start(struct child *ret_child, void (*body)(void *arg), void *arg);

/* In the child: tell the parent; await a word from it (ends the child if it is gone). */
void child_say(int64_t word);
int64_t child_listen(void);
/* child_stay - until killed. */
void child_stay(void) __attribute__((noreturn));

/* In the parent: await a word, which must come; send one. */
int64_t child_hear(struct child *child);
void child_tell(struct child *child, int64_t word);

/* child_end - wait for the end. The exit status, or minus the signal. */
int child_end(struct child *child);
/* child_join - child_end(), and it must have been well. */
void child_join(struct child *child);
/* child_kill - SIGKILL it and wait until it is gone. */
void child_kill(struct child *child);
/* child_stop - SIGSTOP it and wait until it has stopped. */
void child_stop(struct child *child);

#endif
