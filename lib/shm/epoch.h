/* SPDX-License-Identifier: MIT */
/*
 * epoch - RCU across processes: when may an unlinked entry be used again?
 *
 * A walker of the index publishes the epoch it entered in, in a cell of its
 * peer; an entry retired in epoch e is reused at e + 2. The four racing
 * accesses (pin, link load, unlink CAS, pin scan) are seq_cst, which C11
 * alone makes correct on every machine.
 *
 * Cells of a dead peer are cleared by its reaper. A cell of a stopped one is
 * overridden after EPOCH_STALL_NS: links and states carry generations, so a
 * walker that slept through a reuse notices and starts over. Reclamation
 * never waits for anybody for ever.
 *
 * Epoch-based reclamation: K. Fraser, Practical lock-freedom, 2004.
 */
#ifndef SHM_EPOCH_H
#define SHM_EPOCH_H

#include "shm/peer.h"

#define EPOCH_STALL_NS (1000 * 1000000ull)

/* epoch_enter - pin the epoch. Sections are short and never wait. Returns the cell. */
unsigned epoch_enter(struct peer *peer);
void epoch_leave(struct peer *peer, unsigned cell);

static inline uint64_t epoch_now(const struct segment *segment)
{
	return shm_load(&segment->header->epoch);
}

/* epoch_advance - one step on if no pin is older. Returns true if it moved. */
bool epoch_advance(struct peer *peer);

#endif
