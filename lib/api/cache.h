/* SPDX-License-Identifier: MIT */
/*
 * cache - the handle behind struct scache.
 */
#ifndef API_CACHE_H
#define API_CACHE_H

#include "store/store.h"
#include "streamcache.h"

struct scache {
	uint32_t magic;
	_Atomic uint32_t open_streams;
	struct peer peer;
	struct cursor_space cursors;
	struct store store;
	uint32_t mode;
};

/* cache_check - 0, or -ECHILD in a fork child. Asserts that the handle is one. */
int cache_check(const struct scache *cache);

/*
 * cache_open_directories - DIR, DIR/ctl, DIR/blobs and the lock file, made if
 * need be and checked: ours, and nobody else can write there.
 * The descriptors are closed by the caller; on failure there are none.
 */
struct cache_fds {
	int dir_fd, ctl_fd, blobs_fd, lock_fd;
	gid_t group; /* of DIR, and so of everything in a group share */
};
int cache_open_directories(const char *dir, uint32_t mode, bool create, struct cache_fds *ret_fds);
void cache_close_fds(struct cache_fds *fds);

#define GATE_TIMEOUT_NS (5 * 1000000000ll)

#endif
