/* SPDX-License-Identifier: MIT */
/*
 * thread - what belongs to the calling thread alone.
 */
#ifndef BASE_THREAD_H
#define BASE_THREAD_H

#include <errno.h>
#include <pthread.h>
#include <stdint.h>

/* thread_tag - an address that tells this thread from every other living one; never 0. */
uintptr_t thread_tag(void);

/*
 * thread_start - one of the library's own, in which no signals are handled but those of
 * faults: they are our caller's affair, and not for a thread it does not know of.
 * 0 or -errno.
 */
int thread_start(pthread_t *ret_thread, void *(*run)(void *arg), void *arg);

/* First line of a public call: errno is the caller's, whatever we do meanwhile. */
#define KEEP_ERRNO int kept_errno __attribute__((cleanup(thread_restore_errno), unused)) = errno

static inline void thread_restore_errno(const int *kept)
{
	errno = *kept;
}

/*
 * While it is in scope pthread_cancel() waits: open() and the like are
 * cancellation points, and what we hold there would be held for ever.
 */
#define UNCANCELLED                                                                   \
	int cancel_state __attribute__((cleanup(thread_restore_cancel), unused)) = \
		thread_defer_cancel()

static inline int thread_defer_cancel(void)
{
	int before;

	pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &before);
	return before;
}

static inline void thread_restore_cancel(const int *before)
{
	pthread_setcancelstate(*before, NULL);
}

#endif
