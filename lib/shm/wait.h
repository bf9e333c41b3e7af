/* SPDX-License-Identifier: MIT */
/*
 * wait - sleeping for another process: one futex word, {seq:31 | sleepers:1}.
 *
 * The sleeper sets the bit and looks once more at what it waits for; the
 * other side changes that and then looks at the bit: a Dekker pair, all four
 * accesses seq_cst, so one of the two sees the other. A bit and not a count:
 * a sleeper that is killed leaves a bit, which the next announcement clears,
 * and never a count that is wrong for ever.
 *
 * Whoever announces may die between the change and the wake, so no wait is
 * longer than a tick; after it the caller looks whether the one it waits for
 * is alive. Nothing here repairs anything.
 */
#ifndef SHM_WAIT_H
#define SHM_WAIT_H

#include "shm/atomic.h"

#define WAIT_TICK_NS (40 * 1000000ll)

/* wait_prepare - set the bit. Look again, then wait_park() on the value returned. */
static inline uint32_t wait_prepare(shm_u32 *event)
{
	/* ORDER event-bit, seq_cst: the bit before the second look. Pairs with wait_announce(). */
	return shm_or(event, 1u) | 1u;
}

/*
 * wait_park - sleep until the word differs from @value, the own-clock
 * deadline, or a tick. Returns 0, or -ETIMEDOUT at the tick or the deadline.
 */
int wait_park(shm_u32 *event, uint32_t value, int64_t deadline_ns);

/* wait_wake - raise the sequence, clear the bit, wake everybody. Returns 1. */
int wait_wake(shm_u32 *event);

/* wait_announce - wait_wake() if somebody sleeps. Returns the system calls made. */
static inline int wait_announce(shm_u32 *event)
{
	/* ORDER event-bit, seq_cst: the change before the bit. Pairs with wait_prepare(). */
	if (likely(!(shm_load(event) & 1u)))
		return 0;
	return wait_wake(event);
}

#endif
