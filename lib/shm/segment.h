/* SPDX-License-Identifier: MIT */
/*
 * segment - the one shared region: created, joined, mapped, checked.
 *
 * The segment is soft state. The lock file names it; whoever cannot use what
 * it names makes a new one, unless somebody is attached to the old.
 *
 * Two opens of one cache in one process share one mapping, so that a thread
 * can play a process in front of ThreadSanitizer, and so that a program that
 * opens a cache twice does not pay twice.
 */
#ifndef SHM_SEGMENT_H
#define SHM_SEGMENT_H

#include "shm/layout.h"
#include "shm/lockfile.h"

/* Private: where things are, read once and validated. Constant after joining. */
struct segment {
	struct shm_header *header;
	struct shm_peer *peers;
	shm_u64 *states;
	shm_u64 *expires;
	shm_u64 *charges;
	shm_u64 *uses;
	shm_u64 *buckets;
	shm_u32 *seen;
	shm_u32 *former_keys;
	shm_u64 *block_owners;
	struct shm_block *blocks;
	struct shm_entry *entries;
	shm_u64 *ring_owners;
	unsigned char *rings;
	struct shm_geometry geometry;
	uint64_t number;
	uint64_t bytes;
	unsigned char uuid[SHM_UUID_BYTES];
	char dir[512]; /* where the file is; for people */
	/* of the process-wide table of mappings */
	struct segment *next_mapping;
	unsigned users;
};

struct segment_options {
	uint64_t entries, peers, blocks, rings, ring_bytes;
	uint64_t settings[SETTING_COUNT];
};

/* What to make a segment of if there is none. */
struct segment_wishes {
	struct segment_options asked;	 /* each a value or SEGMENT_UNASKED */
	struct segment_options fallback; /* used if the cache has none recorded either */
	uint32_t mode;			 /* of the file */
	gid_t group;			 /* of the file, if its mode has a group share */
	const char *segment_dir; /* NULL: DIR/ctl on a tmpfs, else /dev/shm */
	const char *dir;	 /* the cache directory, for people */
};

/*
 * segment_join - map the segment that the lock file names, or a new one.
 * The caller holds the gate. Returns 0 or what scache_open() documents.
 * If we die inside: the record names whatever half-made file there is, and
 * the next opener replaces it.
 */
int segment_join(int ctl_fd, int lock_fd, const struct segment_wishes *wishes,
		 struct segment **ret_segment);

/* segment_setting - as it is now. */
static inline uint64_t segment_setting(const struct segment *segment, enum shm_setting setting)
{
	return shm_load_relaxed(&segment->header->settings[setting]);
}

/* setting_chosen - the same for an opener, who has a choice of its own of some. */
static inline uint64_t setting_chosen(const struct segment *segment, enum shm_setting setting,
				      const uint64_t chosen[SETTING_COUNT])
{
	return setting >= SETTING_DURABILITY && chosen[setting] != SEGMENT_UNASKED ?
		       chosen[setting] :
		       segment_setting(segment, setting);
}

/*
 * segment_configure - under the gate: from now on @settings are in force, in every process
 * attached and after every restart. An element is SEGMENT_UNASKED: it stays as it is.
 * 0; -ESTALE: the segment is not the cache's any more; -errno.
 */
int segment_configure(struct segment *segment, int lock_fd, const uint64_t settings[SETTING_COUNT]);

/*
 * segment_retire - damaged beyond repair: no look-up begins in it any more, and
 * whoever joins makes a new one. What is open in it goes on to its end.
 */
static inline void segment_retire(struct segment *segment)
{
	shm_store(&segment->header->magic, SHM_MAGIC_RETIRED);
}

/* segment_is_retired - or its header destroyed, which is no better. */
static inline bool segment_is_retired(const struct segment *segment)
{
	return shm_load_relaxed(&segment->header->magic) != SHM_MAGIC;
}

/* segment_leave - unmap when the last open of this process leaves. */
void segment_leave(struct segment *segment);

/*
 * segment_remove_file - empty it, then remove its name: in a sticky directory
 * a member of the group cannot do the second, and the memory counts. 0 or -errno.
 */
int segment_remove_file(const char *path);

/* segment_bytes - the size of a segment of @geometry; segment_core_bytes - without its rings. */
uint64_t segment_bytes(const struct shm_geometry *geometry);
uint64_t segment_core_bytes(const struct shm_geometry *geometry);
bool segment_geometry_is_sane(const struct shm_geometry *geometry);

/* segment_watch_fork - once a process, before the first segment_map(). */
void segment_watch_fork(void);

/* segment_find_mapped - one more user of what this process has mapped, or NULL. */
struct segment *segment_find_mapped(const unsigned char uuid[SHM_UUID_BYTES]);

/* segment_map - map @fd, whose header has been validated. 0, -ENOMEM, -errno. */
int segment_map(int fd, const struct shm_header *header, const char *path,
		struct segment **ret_segment);

/*
 * segment_map_private - one that nobody else sees, all zero, given back by
 * segment_leave(). 0 or -ENOMEM.
 */
int segment_map_private(const struct shm_geometry *geometry, struct segment **ret_segment);

/* segment_ring - the bytes of ring @index. */
static inline unsigned char *segment_ring(const struct segment *segment, uint32_t index)
{
	return segment->rings + segment->geometry.ring_bytes * index;
}

#endif
