/* SPDX-License-Identifier: MIT */
/*
 * store - what this process needs to reach the blobs of a cache.
 */
#ifndef STORE_STORE_H
#define STORE_STORE_H

#include "index/cursor.h"
#include "store/table.h"

struct store {
	struct peer *peer;
	struct segment *segment;
	struct cursor_space *cursors;
	int dir_fd;	/* the cache directory */
	int blobs_fd;	/* DIR/blobs */
	mode_t dir_mode; /* of directories we make */
	mode_t file_mode; /* of files while they grow; sealed ones lose the w bits */
	char uuid[UUID_TEXT_BYTES];
	uint64_t chosen[SETTING_COUNT]; /* by its opener; SEGMENT_UNASKED: as the cache has it */
	struct table table;
	/* Who needs all this: calls and streams; at 0 leave() is called. */
	_Atomic uint32_t users;
	void (*leave)(struct store *store);
};

/* store_setting - what its opener has chosen, else as the cache has it. */
static inline uint64_t store_setting(const struct store *store, enum shm_setting setting)
{
	return setting_chosen(store->segment, setting, store->chosen);
}

/* store_get - one user more. False if the last has gone already. */
static inline bool store_get(struct store *store)
{
	uint32_t users = atomic_load_explicit(&store->users, memory_order_relaxed);

	while (users > 0)
		if (atomic_compare_exchange_weak(&store->users, &users, users + 1))
			return true;
	return false;
}

static inline void store_put(struct store *store)
{
	if (atomic_fetch_sub(&store->users, 1) == 1)
		store->leave(store);
}

#endif
