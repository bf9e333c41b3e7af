/* SPDX-License-Identifier: MIT */
/*
 * thread - what belongs to the calling thread alone.
 */
#ifndef BASE_THREAD_H
#define BASE_THREAD_H

#include <errno.h>
#include <stdint.h>

/* thread_tag - an address that tells this thread from every other living one; never 0. */
uintptr_t thread_tag(void);

/* First line of a public call: errno is the caller's, whatever we do meanwhile. */
#define KEEP_ERRNO int kept_errno __attribute__((cleanup(thread_restore_errno), unused)) = errno

static inline void thread_restore_errno(const int *kept)
{
	errno = *kept;
}

#endif
