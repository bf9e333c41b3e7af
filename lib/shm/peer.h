/* SPDX-License-Identifier: MIT */
/*
 * peer - this process's seat in the segment, and whether others still sit.
 *
 *  slot state  meaning                     leaves by           if its process is dead
 *  FREE        nobody                      peer_attach()       -
 *  ACTIVE      the holder of the byte      peer_detach()       reaped (index/repair.c)
 *  REAPING     somebody cleans up          the reaper          reaped again
 *
 * A slot is changed only by whoever holds its lock byte: by its process from
 * attach to exit, by a reaper after that. So the byte is proof of life, and
 * taking it is proof of death, the reapers' mutual exclusion, and what keeps
 * a newcomer out meanwhile.
 */
#ifndef SHM_PEER_H
#define SHM_PEER_H

#include <pthread.h>

#include "shm/segment.h"

enum peer_state { PEER_FREE, PEER_ACTIVE, PEER_REAPING };

#define PEER_WORD(gen, state) ((uint64_t)(gen) << 32 | (uint64_t)(state))
#define PEER_GEN(word) ((uint32_t)((word) >> 32))
#define PEER_STATE(word) ((enum peer_state)(uint32_t)(word))

struct peer {
	struct segment *segment;
	struct shm_peer *shared; /* our slot */
	uint32_t slot;
	uint32_t gen;
	int lock_fd; /* of no use in a fork child */
	unsigned fork_count;
	_Atomic uint32_t pins_taken;
	_Atomic uint32_t claim_hint; /* where a free entry was last found */
	/* Locks of one open file do not exclude its own threads from each other. */
	pthread_mutex_t reap_mutex;
	/* Wiped by the kernel in a child of fork(), also of a raw clone(). */
	const volatile unsigned char *not_forked;
};

/*
 * peer_attach - take a free slot; the caller holds the gate. Takes @lock_fd
 * over on success. Returns 0, -EUSERS (none is free: reap, then try again).
 * If we die inside: an ACTIVE slot whose byte is free; any reaper frees it.
 */
int peer_attach(struct peer *peer, struct segment *segment, int lock_fd);

/* peer_detach - give the slot back; its pins, cursors and entries must be gone. */
void peer_detach(struct peer *peer);

/* peer_forget - in a fork child: drop what is private, touch nothing shared. */
void peer_forget(struct peer *peer);

/* peer_mark_fork - what peer_is_forked() looks at. 0 or -errno; peer_unmark_fork() undoes it. */
int peer_mark_fork(struct peer *peer);
void peer_unmark_fork(struct peer *peer);

/* peer_is_forked - are we a child of the process that opened this? */
static inline bool peer_is_forked(const struct peer *peer)
{
	return unlikely(*peer->not_forked == 0);
}

/*
 * peer_is_dead - has the process in @slot ended? Asks the kernel at most four
 * times a tick for all processes together: who asked last leaves a stamp.
 */
bool peer_is_dead(struct peer *peer, uint32_t slot);

/*
 * peer_is_stopped - by a signal or a debugger, and surely so: false if it is in
 * another PID namespace, or cannot be told. Never a proof of death.
 */
bool peer_is_stopped(const struct segment *segment, uint32_t slot);

/* peer_count - add to a statistic of this process. */
static inline void peer_count(struct peer *peer, enum shm_stat stat, uint64_t n)
{
	shm_add_relaxed(&peer->shared->stats[stat], n);
}

#endif
