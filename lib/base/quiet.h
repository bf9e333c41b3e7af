/* SPDX-License-Identifier: MIT */
/*
 * quiet - a limit on file sizes is an error code, never a SIGXFSZ for our caller.
 *
 * The kernel sends it to the thread that writes: block it there, and take
 * away what came of our own writes, but not what was pending before.
 */
#ifndef BASE_QUIET_H
#define BASE_QUIET_H

#include <errno.h>
#include <signal.h>
#include <time.h>

#include "base/compiler.h"

struct quiet {
	sigset_t before;
	bool was_pending;
};

static inline void quiet_begin(struct quiet *quiet)
{
	sigset_t set;

	sigpending(&set);
	quiet->was_pending = sigismember(&set, SIGXFSZ) == 1;
	sigemptyset(&set);
	sigaddset(&set, SIGXFSZ);
	pthread_sigmask(SIG_BLOCK, &set, &quiet->before);
}

static inline void quiet_end(const struct quiet *quiet, bool limit_was_hit)
{
	const struct timespec now = { .tv_nsec = 0 };
	sigset_t set;

	if (limit_was_hit && !quiet->was_pending) {
		sigemptyset(&set);
		sigaddset(&set, SIGXFSZ);
		while (sigtimedwait(&set, NULL, &now) < 0 && errno == EINTR)
			;
	}
	pthread_sigmask(SIG_SETMASK, &quiet->before, NULL);
}

#endif
