/* SPDX-License-Identifier: MIT */
/*
 * world - the cache around the explored processes, used again for each schedule.
 *
 * The warden tidies up as any process would, by removing and sweeping; what the
 * oracle finds left over is a finding. Then hints that only cost time are set
 * back, since they would move the points of the next schedule. Generations,
 * epochs and the clock go on.
 *
 * A death is what the kernel makes of one: the lock byte goes free, descriptors
 * and memory are taken back. The seat is taken again when it has been reaped.
 */
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <linux/magic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "explore.h"
#include "index/repair.h"
#include "store/blob.h"
#include "store/sweep.h"

#define TIDY_PASSES 4
#define PATIENCE_NS 1000000000ull /* more than an orphan is waited for */

static char root[256];
static bool is_packed;
char world_fan_out[BLOB_PATH_BYTES];

/* -------------------------------------------------------------- begin and end */

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *at)
{
	(void)st;
	(void)type;
	(void)at;
	return remove(path);
}

static void fail(const char *what)
{
	fprintf(stderr, "explore: %s: %s %s\n", what, strerror(errno), scache_detail());
	world_close();
	exit(99);
}

/* Thousands of files a second: in memory, if that can be had. */
static const char *place(void)
{
	const char *tmp = getenv("TMPDIR");
	struct statfs fs;

	if (tmp == NULL)
		tmp = "/tmp";
	if (statfs(tmp, &fs) == 0 && fs.f_type == TMPFS_MAGIC)
		return tmp;
	if (statfs("/dev/shm", &fs) == 0 && fs.f_type == TMPFS_MAGIC &&
	    access("/dev/shm", W_OK) == 0)
		return "/dev/shm";
	return tmp;
}

/* One block of cursors each, so that no schedule is the first to need one. */
static void warm_up(struct process *p)
{
	uint32_t cell;

	if (cursor_take(&p->cache->seat->cursors, &p->cache->seat->peer, &cell) != 0)
		fail("no cursors");
	cursor_give_back(&p->cache->seat->cursors, cell);
}

static void settle_hints(void)
{
	struct segment *segment = seats[WARDEN].cache->seat->peer.segment;
	struct shm_header *header = segment->header;

	shm_store(&header->epoch_blocked_ns, 0);
	shm_store(&header->next_sweep_ns, UINT64_MAX);
	shm_store(&header->reap_hand, 0);
	shm_store(&header->sweep_hand, 0);
	for (unsigned i = 0; i < ARRAY_COUNT(header->former); i++)
		shm_store(&header->former[i], 0);
	for (unsigned i = 0; i < ARRAY_COUNT(header->former_listed); i++)
		shm_store(&header->former_listed[i], 0);
	for (uint32_t i = 0; i < segment->geometry.peers; i++)
		shm_store(&segment->peers[i].seen_alive_ns, virtual_ns);
	for (uint32_t i = 0; i < segment->geometry.entries; i++) {
		shm_store(&segment->entries[i].readers_event, 0);
		shm_store(&segment->entries[i].writer_event, 0);
	}
	/* All at the same slot: what one frees the next one fills. */
	for (unsigned i = 0; i < SEATS; i++)
		atomic_store(&seats[i].cache->seat->peer.claim_hint, 0);
}

void world_open(bool packed)
{
	struct scache_options options = { .size = sizeof(options),
					  .entries = 16,
					  .peers = SEATS + 1,
					  .readers = (SEATS + 1) * SHM_BLOCK_CURSORS,
					  .rings = 2,
					  .ring_bytes = packed ? COMPRESS_RING_BYTES_MIN : 64 << 10,
					  .segment_dir = root };
	char dir[300];

	is_packed = packed;
	snprintf(root, sizeof(root), "%s/explore.XXXXXX", place());
	if (mkdtemp(root) == NULL)
		fail(root);
	snprintf(dir, sizeof(dir), "%s/cache", root);
	for (unsigned i = 0; i < SEATS; i++) {
		if (scache_open(dir, &options, &seats[i].cache) != 0)
			fail("scache_open");
		warm_up(&seats[i]);
	}
	words = (uint32_t)((size_t)(seats[0].cache->seat->peer.segment->rings -
				    (unsigned char *)seats[0].cache->seat->peer.segment->header) /
			   4) +
		2;
	blob_path(&seats[0].cache->seat->store, (struct entry_name){ 0, 0 },
		  hash_key(EXPLORED_KEY, EXPLORED_KEY_BYTES), world_fan_out);
	world_fan_out[2] = '\0';
	settle_hints();
}

/* As if all had been killed: after a finding nothing is sure enough for a close. */
static void bury(struct process *p)
{
	struct scache *cache = p->cache;
	struct seat *seat;

	if (cache == NULL)
		return;
	seat = cache->seat;
	table_destroy(&seat->store.table);
	wrap_reclaim(p);
	cursor_space_forget(&seat->cursors);
	peer_forget(&seat->peer);
	segment_leave(seat->store.segment);
	close(seat->store.dir_fd);
	close(seat->store.blobs_fd);
	free(seat);
	free(cache->dir);
	free(cache->segment_dir);
	free(cache);
	p->cache = NULL;
}

void world_remove_files(void)
{
	nftw(root, remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

void world_close(void)
{
	for (unsigned i = 0; i < SEATS; i++)
		bury(&seats[i]);
	world_remove_files();
}

void world_suit(bool packed)
{
	if (packed == is_packed)
		return;
	world_close();
	world_open(packed);
}

/* ------------------------------------------------------------ death and rebirth */

static void empty_table(struct process *p)
{
	struct store *store = &p->cache->seat->store;

	if (store->table.items == 0 && store->table.condemned_count == 0)
		return;
	table_destroy(&store->table);
	if (table_init(&store->table) != 0)
		fail("no table");
}

void world_kill(struct process *p)
{
	/* All that its open file locks: a reaper dies with somebody else's byte in hand. */
	struct flock all = { .l_type = F_UNLCK, .l_whence = SEEK_SET };

	p->dead = true;
	if (fcntl(p->cache->seat->peer.lock_fd, F_OFD_SETLK, &all) < 0)
		fail("unlock");
}

/* The same handle, as a new process in the seat that was reaped. */
static void revive(struct process *p)
{
	struct scache *cache = p->cache;
	struct peer *peer = &cache->seat->peer;

	p->dead = false;
	cursor_space_forget(&cache->seat->cursors);
	cursor_space_init(&cache->seat->cursors);
	pthread_mutex_init(&peer->reap_mutex, NULL);
	atomic_store(&peer->pins_taken, 0);
	atomic_store(&cache->open_streams, 0);
	atomic_store(&cache->seat->store.users, 1);
	if (lockfile_take(peer->lock_fd, peer->segment->number, peer->slot) != 0)
		fail("lock byte");
	peer->gen = PEER_GEN(shm_load(&peer->shared->state));
	shm_store(&peer->shared->state, PEER_WORD(peer->gen, PEER_ACTIVE));
	warm_up(p);
}

void world_tidy(void)
{
	for (unsigned i = 0; i < SEATS; i++)
		if (seats[i].dead)
			revive(&seats[i]);
	settle_hints();
}

/* ------------------------------------------------------------------ tidying up */

static bool all_free(const struct segment *segment)
{
	for (uint32_t i = 0; i < segment->geometry.entries; i++)
		if (state_of(shm_load(&segment->states[i])) != ENTRY_FREE)
			return false;
	return true;
}

bool world_sweep(bool thorough)
{
	struct scache *cache = seats[WARDEN].cache;
	struct segment *segment = cache->seat->peer.segment;

	for (unsigned i = 0; i < SEATS; i++) {
		if (seats[i].dead)
			repair_reap(&cache->seat->peer, seats[i].cache->seat->peer.slot);
		/* What is idle in the tables of the living does no harm for a while. */
		if (seats[i].dead || thorough)
			empty_table(&seats[i]);
		if (seats[i].dead)
			wrap_reclaim(&seats[i]);
	}
	scache_remove(cache, EXPLORED_KEY, EXPLORED_KEY_BYTES);
	virtual_ns += PATIENCE_NS;
	for (int i = 0; i < TIDY_PASSES && !all_free(segment); i++) {
		shm_store(&segment->header->next_sweep_ns, 0);
		sweep_slice(&cache->seat->store);
	}
	return all_free(segment);
}

/* ------------------------------------------------------------- a former segment's */

/* Its bytes; the file is whole and short. */
static size_t read_blob(const struct store *store, const char *path, unsigned char *data,
			size_t room)
{
	int fd = openat(store->blobs_fd, path, O_RDONLY | O_CLOEXEC);
	ssize_t bytes = fd < 0 ? -1 : read(fd, data, room);

	if (bytes <= 0)
		fail("the blob cannot be read");
	close(fd);
	return (size_t)bytes;
}

void world_make_former(void)
{
	const struct store *store = &seats[WARDEN].cache->seat->store;
	struct key_hash hash = hash_key(EXPLORED_KEY, EXPLORED_KEY_BYTES);
	char path[BLOB_PATH_BYTES];
	unsigned char data[4096];
	struct entry_name name = { 0 };
	size_t bytes;
	int fd;

	for (uint32_t i = 0; i < store->segment->geometry.entries; i++) {
		uint64_t word = shm_load(&store->segment->states[i]);

		if (state_of(word) == ENTRY_SEALED && !state_is_hidden(word))
			name = (struct entry_name){ .idx = i, .gen = state_gen(word) };
	}
	blob_path(store, name, hash, path);
	bytes = read_blob(store, path, data, sizeof(data));
	world_sweep(false);
	/* Behind "xx/", 32 digits and a dot. */
	path[3 + 32 + 1] = path[3 + 32 + 1] == '0' ? '1' : '0';
	fd = openat(store->blobs_fd, path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0400);
	if (fd < 0 || write(fd, data, bytes) != (ssize_t)bytes)
		fail("the former blob cannot be made");
	close(fd);
	shm_store(&store->segment->header->former[hash.high >> 56], FORMER_UNKNOWN);
}
