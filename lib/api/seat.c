/* SPDX-License-Identifier: MIT */
#include "api/seat.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "api/cache.h"
#include "base/check.h"
#include "base/clock.h"
#include "base/detail.h"
#include "base/quiet.h"
#include "base/thread.h"
#include "index/repair.h"
#include "store/table.h"

#define REAP_AT_OPEN 8
#define TAKE_TRIES 10
#define REAPER_TRIES 200 /* a millisecond each, for who reaps a seat that we could have */
#define REAPER_TRIES_MIN 20 /* one may hold a byte and not yet have said so */
#define REAPER_TRIES_A_REAP 16

/* ---------------------------------------------------------------- sitting down */

/* Does a reaper work on one of the seats, or has it just left one free? */
static bool has_seat_in_the_making(const struct segment *segment)
{
	for (uint32_t i = 0; i < segment->geometry.peers; i++)
		if (PEER_STATE(shm_load(&segment->peers[i].state)) != PEER_ACTIVE)
			return true;
	return false;
}

/*
 * Every seat is taken: perhaps by the dead. Sit down on one of those. A seat that
 * somebody else is reaping cannot be told from one in use, but is free in a moment.
 */
static int attach_for_the_dead(struct peer *peer, struct segment *segment, int lock_fd)
{
	const struct timespec pause = { .tv_nsec = NS_PER_MS };
	struct peer visitor = { .segment = segment,
				.slot = UINT32_MAX,
				.lock_fd = lock_fd,
				.shared = &segment->peers[0] };
	int ret = -EUSERS;

	pthread_mutex_init(&visitor.reap_mutex, NULL);
	for (int i = 0; i < REAPER_TRIES; i++) {
		/* Not each time: it asks the kernel about every seat. */
		if (i % REAPER_TRIES_A_REAP == 0)
			repair_reap_all(&visitor);
		ret = peer_attach(peer, segment, lock_fd);
		if (ret != -EUSERS || (i >= REAPER_TRIES_MIN && !has_seat_in_the_making(segment)))
			break;
		nanosleep(&pause, NULL);
	}
	pthread_mutex_destroy(&visitor.reap_mutex);
	return ret;
}

/* Under the gate: the segment, and a seat in it. */
static int join(struct seat *seat, struct cache_fds *fds, const struct segment_wishes *wishes)
{
	struct segment *segment;
	int ret = segment_join(fds->ctl_fd, fds->lock_fd, wishes, &segment);
	uint32_t seats;

	if (ret < 0)
		return ret;
	seats = segment->geometry.peers;
	ret = peer_attach(&seat->peer, segment, fds->lock_fd);
	if (ret == -EUSERS)
		ret = attach_for_the_dead(&seat->peer, segment, fds->lock_fd);
	if (ret < 0) {
		segment_leave(segment);
		return ret != -EUSERS ? ret
				      : detail_set(ret,
						   "all %u peer slots of the cache are in use by live "
						   "processes; create it with more peers",
						   seats);
	}
	fds->lock_fd = -1; /* the peer's now */
	return 0;
}

static void free_if_last(struct seat *seat)
{
	if (atomic_fetch_sub(&seat->owners, 1) == 1)
		free(seat);
}

/* The last user has gone, and it is nobody's current seat. */
static void leave(struct store *store)
{
	UNCANCELLED;
	struct seat *seat = container_of(store, struct seat, store);
	struct segment *segment = store->segment;

	if (peer_is_forked(&seat->peer)) {
		/* Slot and cursors are the parent's affair. */
		table_forget(&store->table);
		cursor_space_forget(&seat->cursors);
		peer_forget(&seat->peer);
	} else {
		table_destroy(&store->table);
		cursor_space_leave(&seat->cursors, &seat->peer);
		peer_detach(&seat->peer);
	}
	segment_leave(segment);
	close(store->dir_fd);
	close(store->blobs_fd);
	free_if_last(seat);
}

static int set_up_store(struct seat *seat, const struct scache *cache, const struct cache_fds *fds)
{
	struct store *store = &seat->store;

	store->peer = &seat->peer;
	store->segment = seat->peer.segment;
	store->cursors = &seat->cursors;
	memcpy(store->chosen, cache->chosen, sizeof(store->chosen));
	store->dir_mode = cache->mode & 070 ? 02770 : 0700;
	store->file_mode = cache->mode & 070 ? 0660 : 0600;
	store->dir_fd = fds->dir_fd;
	store->blobs_fd = fds->blobs_fd;
	uuid_text(store->segment->uuid, store->uuid);
	atomic_init(&store->users, 1);
	store->leave = leave;
	cursor_space_init(&seat->cursors);
	return table_init(&store->table);
}

/*
 * Through the gate, and to where files can be made: whoever waited there while
 * the cache was being destroyed may hold a directory that is gone, although
 * the destroyer has died before it took the lock file, too.
 */
static int enter_gate(const struct cache_fds *fds)
{
	struct stat st;
	int ret = lockfile_enter_gate(fds->lock_fd, GATE_TIMEOUT_NS);

	if (ret == 0 && (fstat(fds->blobs_fd, &st) < 0 || st.st_nlink == 0)) {
		lockfile_leave_gate(fds->lock_fd);
		ret = -ESTALE;
	}
	return ret;
}

static int sit_down(const struct scache *cache, struct seat *seat)
{
	struct segment_wishes wishes = cache->wishes;
	struct cache_fds fds;
	char *absolute;
	int ret = cache_open_directories(cache->dir, cache->mode, cache->may_create, &fds), gate_fd;

	if (ret < 0)
		return ret;
	absolute = realpath(cache->dir, NULL);
	wishes.dir = absolute != NULL ? absolute : cache->dir;
	wishes.segment_dir = cache->segment_dir;
	wishes.group = fds.group;
	settings_default_of(fds.blobs_fd, wishes.fallback.settings);
	gate_fd = fds.lock_fd;
	ret = enter_gate(&fds);
	if (ret == 0) {
		ret = join(seat, &fds, &wishes);
		lockfile_leave_gate(gate_fd);
	}
	free(absolute);
	if (ret == 0) {
		struct segment *segment = seat->peer.segment;

		if (setting_chosen(segment, SETTING_DURABILITY, cache->chosen) ==
		    SCACHE_DURABILITY_FULL)
			ret = cache_sync_directories(&fds);
		if (ret == 0)
			ret = set_up_store(seat, cache, &fds);
		if (ret < 0) {
			peer_detach(&seat->peer);
			segment_leave(segment);
		}
	}
	if (ret < 0) {
		cache_close_fds(&fds);
		return ret;
	}
	close(fds.ctl_fd);
	return 0;
}

int seat_take(const struct scache *cache, struct seat **ret_seat)
{
	struct seat *seat = calloc(1, sizeof(*seat));
	struct quiet quiet;
	int ret = -ESTALE;

	if (seat == NULL)
		return -ENOMEM;
	atomic_init(&seat->owners, 2);
	quiet_begin(&quiet);
	/* Again if the cache is being destroyed under our hands. */
	for (int i = 0; i < TAKE_TRIES; i++) {
		ret = sit_down(cache, seat);
		if (ret != -ESTALE && (ret != -ENOENT || !cache->may_create))
			break;
	}
	/* Fewer rings than wanted is no error, but was a signal all the same. */
	quiet_end(&quiet, SIGXFSZ);
	if (ret < 0) {
		free(seat);
		return ret;
	}
	memcpy(seat->segment_dir, seat->store.segment->dir, sizeof(seat->segment_dir));
	/* Every newcomer looks after a few seats, so the dead do not pile up. */
	repair_reap_some(&seat->peer, REAP_AT_OPEN);
	*ret_seat = seat;
	return 0;
}

/* ------------------------------------------------------------------- moving on */

/*
 * One mutex for all handles, for taking a new seat is rare; but another thread
 * may have been at it when we were forked.
 */
static pthread_mutex_t moving_mutex = PTHREAD_MUTEX_INITIALIZER;

static void after_fork_child(void)
{
	pthread_mutex_init(&moving_mutex, NULL);
}

static void watch_fork(void)
{
	pthread_atfork(NULL, NULL, after_fork_child);
}

static bool serves_no_more(const struct seat *seat)
{
	return unlikely(peer_is_forked(&seat->peer) || segment_is_retired(seat->store.segment));
}

static int move_on(struct scache *cache, const struct seat *from)
{
	static pthread_once_t once = PTHREAD_ONCE_INIT;
	UNCANCELLED;
	struct seat *seat, *before;
	int ret = 0;

	pthread_once(&once, watch_fork);
	pthread_mutex_lock(&moving_mutex);
	before = atomic_load(&cache->seat);
	if (before == from) {
		/* Also if there is no seat to be had: then a fetch has streams and jobs all the same. */
		if (peer_is_forked(&before->peer))
			cache_forget_parent(cache);
		ret = seat_take(cache, &seat);
		if (ret == 0) {
			seat->next = before;
			atomic_store(&cache->seat, seat);
			store_put(&before->store);
		}
	}
	pthread_mutex_unlock(&moving_mutex);
	return ret;
}

int seat_enter(struct scache *cache, struct seat **ret_seat)
{
	struct seat *seat;
	int ret;

	for (;;) {
		seat = atomic_load(&cache->seat);
		/* Refused only if it has just been replaced: its memory stays until close. */
		if (!store_get(&seat->store))
			continue;
		if (likely(!serves_no_more(seat)))
			break;
		ret = move_on(cache, seat);
		seat_leave(seat);
		if (ret < 0)
			return ret;
	}
	*ret_seat = seat;
	return 0;
}

void seat_bury(struct scache *cache)
{
	struct seat *seat = atomic_load(&cache->seat), *next;

	store_put(&seat->store);
	for (; seat != NULL; seat = next) {
		next = seat->next;
		free_if_last(seat);
	}
}
