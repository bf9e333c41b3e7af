/* SPDX-License-Identifier: MIT */
#include "shm/epoch.h"

#include <sched.h>

#include "base/clock.h"
#include "base/step.h"

/* Which of this peer's cells a thread uses is nobody else's business: private. */
static unsigned take_cell(struct peer *peer)
{
	uint32_t taken = atomic_load_explicit(&peer->pins_taken, memory_order_relaxed);

	for (;;) {
		unsigned cell = (unsigned)__builtin_ctz(~taken);

		if (cell >= SHM_PINS) {
			sched_yield();
			taken = atomic_load_explicit(&peer->pins_taken, memory_order_relaxed);
			continue;
		}
		if (atomic_compare_exchange_weak(&peer->pins_taken, &taken, taken | 1u << cell))
			return cell;
	}
}

unsigned epoch_enter(struct peer *peer)
{
	unsigned cell = take_cell(peer);
	shm_u64 *pin = &peer->shared->pins[cell].word;
	uint64_t epoch = epoch_now(peer->segment), seen;

	/* Once more if it moved: a pin never lags by more than one epoch. */
	for (;;) {
		/* ORDER epoch-pin, seq_cst: pin before any link. Pairs with epoch_advance(). */
		shm_store(pin, epoch << 1 | 1);
		seen = epoch_now(peer->segment);
		if (seen == epoch)
			break;
		epoch = seen;
	}
	/* STEP pin-set: reclamation waits for us. Die here: our reaper clears it. */
	STEP("pin-set");
	return cell;
}

void epoch_leave(struct peer *peer, unsigned cell)
{
	shm_store_release(&peer->shared->pins[cell].word, 0);
	/* STEP pin-cleared: nothing waits for us any more. Die here: nothing to mend. */
	STEP("pin-cleared");
	atomic_fetch_and(&peer->pins_taken, ~(1u << cell));
}

/* Is some live peer still in an epoch before @epoch? */
static bool is_held_back(const struct segment *segment, uint64_t epoch)
{
	uint32_t i, cell;

	for (i = 0; i < segment->geometry.peers; i++) {
		const struct shm_peer *shared = &segment->peers[i];

		if (PEER_STATE(shm_load((shm_u64 *)&shared->state)) == PEER_FREE)
			continue;
		for (cell = 0; cell < SHM_PINS; cell++) {
			/* ORDER epoch-pin, seq_cst: unlink before the scan. Pairs with epoch_enter(). */
			uint64_t pin = shm_load((shm_u64 *)&shared->pins[cell].word);

			if ((pin & 1) && pin >> 1 != epoch)
				return true;
		}
	}
	return false;
}

bool epoch_advance(struct peer *peer)
{
	struct shm_header *header = peer->segment->header;
	uint64_t epoch = epoch_now(peer->segment), now_ns, since_ns;

	if (is_held_back(peer->segment, epoch)) {
		now_ns = clock_shared_ns();
		since_ns = shm_load_relaxed(&header->epoch_blocked_ns);
		if (since_ns == 0)
			shm_store_relaxed(&header->epoch_blocked_ns, now_ns);
		/*
		 * STEP epoch-blocked: the clock of a pin runs. Die here: the next sweep goes by it.
		 */
		STEP("epoch-blocked");
		if (since_ns == 0 || now_ns < since_ns + EPOCH_STALL_NS)
			return false;
	}
	if (!shm_cas(&header->epoch, epoch, epoch + 1))
		return true;
	/*
	 * STEP epoch-advanced: its clock still runs. Die here: a pin may be overridden early, as if
	 * it had slept.
	 */
	STEP("epoch-advanced");
	shm_store_relaxed(&header->epoch_blocked_ns, 0);
	return true;
}
