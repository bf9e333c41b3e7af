/* SPDX-License-Identifier: MIT */
/*
 * clock - nanoseconds.
 *
 * Two clocks: CLOCK_MONOTONIC for this process's own deadlines (futex knows
 * it), CLOCK_BOOTTIME for stamps that other processes compare: it also counts
 * while the machine sleeps, and no administrator can set it.
 */
#ifndef BASE_CLOCK_H
#define BASE_CLOCK_H

#include <stdint.h>
#include <time.h>

#define NS_PER_SEC 1000000000ull
#define NS_PER_MS 1000000ull

#define DEADLINE_NEVER INT64_MAX

static inline uint64_t clock_read_ns(clockid_t id)
{
	struct timespec ts;

	clock_gettime(id, &ts);
	return (uint64_t)ts.tv_sec * NS_PER_SEC + (uint64_t)ts.tv_nsec;
}

static inline uint64_t clock_shared_ns(void)
{
	return clock_read_ns(CLOCK_BOOTTIME);
}

/* clock_age_ns - from @then_ns, which may be before the boot (modulo 2^64), to @now_ns. */
static inline uint64_t clock_age_ns(uint64_t then_ns, uint64_t now_ns)
{
	return (int64_t)(now_ns - then_ns) > 0 ? now_ns - then_ns : 0;
}

static inline int64_t clock_own_ns(void)
{
	return (int64_t)clock_read_ns(CLOCK_MONOTONIC);
}

/* deadline_after - the own-clock time @timeout_ns from now; < 0 is never. */
static inline int64_t deadline_after(int64_t timeout_ns)
{
	int64_t now_ns = clock_own_ns();

	if (timeout_ns < 0 || timeout_ns > INT64_MAX - now_ns)
		return DEADLINE_NEVER;
	return now_ns + timeout_ns;
}

#endif
