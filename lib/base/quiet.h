/* SPDX-License-Identifier: MIT */
/*
 * quiet - a limit on file sizes or a pipe without a reader is an error code,
 * never a SIGXFSZ or a SIGPIPE for our caller.
 *
 * The kernel sends them to the thread that writes: block them there, and take
 * away what came of our own writes, but not what was pending before.
 */
#ifndef BASE_QUIET_H
#define BASE_QUIET_H

#include <errno.h>
#include <signal.h>
#include <time.h>

#include "base/compiler.h"

struct quiet {
	sigset_t before, pending;
};

static inline void quiet_begin(struct quiet *quiet)
{
	sigset_t set;

	sigpending(&quiet->pending);
	sigemptyset(&set);
	sigaddset(&set, SIGXFSZ);
	sigaddset(&set, SIGPIPE);
	pthread_sigmask(SIG_BLOCK, &set, &quiet->before);
}

/* quiet_forget - @raised: a signal that our write has perhaps raised, or 0. */
static inline void quiet_forget(const struct quiet *quiet, int raised)
{
	const struct timespec now = { .tv_nsec = 0 };
	sigset_t set;

	if (raised == 0 || sigismember(&quiet->pending, raised) == 1)
		return;
	sigemptyset(&set);
	sigaddset(&set, raised);
	while (sigtimedwait(&set, NULL, &now) < 0 && errno == EINTR)
		;
}

/* quiet_end - @raised as in quiet_forget(). */
static inline void quiet_end(const struct quiet *quiet, int raised)
{
	quiet_forget(quiet, raised);
	pthread_sigmask(SIG_SETMASK, &quiet->before, NULL);
}

#endif
