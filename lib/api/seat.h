/* SPDX-License-Identifier: MIT */
/*
 * seat - a cache handle's place in one segment.
 *
 * A handle has one seat at a time and takes a new one by itself when the old
 * one serves no more: in a child of fork(), whose parent's seat it is, and
 * when the segment has been retired. Calls and streams hold the seat they
 * began with; a stream ends where it began.
 *
 *  users   (of its store) 1 for being the current one, 1 a call, 1 a stream;
 *          at 0 it is left for good: slot, mapping, descriptors
 *  owners  of the memory: the handle, and whoever has users
 */
#ifndef API_SEAT_H
#define API_SEAT_H

#include "store/store.h"

struct scache;

struct seat {
	struct seat *next; /* the handle's earlier ones */
	struct peer peer;
	struct cursor_space cursors;
	struct store store;
	_Atomic uint32_t owners;
	char segment_dir[512]; /* for scache_get_options(): lives as long as the handle */
};

/* seat_take - join the cache and sit down: what scache_open() documents. */
int seat_take(const struct scache *cache, struct seat **ret_seat);

/*
 * seat_enter - the current seat, held for one call; a new one if need be.
 * Returns 0, or what scache_open() returns if no new one can be had.
 */
int seat_enter(struct scache *cache, struct seat **ret_seat);

static inline void seat_leave(struct seat *seat)
{
	store_put(&seat->store);
}

/* seat_bury - for scache_close(): all of a handle's seats. */
void seat_bury(struct scache *cache);

#endif
