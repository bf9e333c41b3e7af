/* SPDX-License-Identifier: MIT */
#include "shm/wait.h"

#include <errno.h>
#include <limits.h>
#include <linux/futex.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/step.h"

int wait_park(shm_u32 *event, uint32_t value, int64_t deadline_ns)
{
	int64_t tick_ns = clock_own_ns() + WAIT_TICK_NS;
	int64_t until_ns = tick_ns < deadline_ns ? tick_ns : deadline_ns;
	struct timespec until = { .tv_sec = until_ns / (int64_t)NS_PER_SEC,
				  .tv_nsec = until_ns % (int64_t)NS_PER_SEC };

	/*
	 * STEP sleep-begins: the bit is set. Die here: the next wake clears it, and costs a call.
	 */
	STEP("sleep-begins");
	/* Not FUTEX_PRIVATE: other processes. The BITSET form takes an absolute time. */
	if (syscall(SYS_futex, (uint32_t *)event, FUTEX_WAIT_BITSET, value, &until, NULL,
		    FUTEX_BITSET_MATCH_ANY) < 0 &&
	    errno == ETIMEDOUT)
		return -ETIMEDOUT;
	/* EAGAIN, EINTR and a spurious 0 all mean: look again. */
	return 0;
}

int wait_wake(shm_u32 *event)
{
	uint32_t now = shm_load(event);

	while (!shm_cas32(event, now, (now + 2) & ~1u))
		now = shm_load(event);
	/* STEP event-raised: sleepers still asleep. Die here: they wake at their tick. */
	STEP("event-raised");
	/* All of them: a woken sleeper may be killed before it could pass a wake on. */
	syscall(SYS_futex, (uint32_t *)event, FUTEX_WAKE, INT_MAX, NULL, NULL, 0);
	/* STEP sleepers-woken: all of them look again. Die here: nothing to mend. */
	STEP("sleepers-woken");
	return 1;
}
