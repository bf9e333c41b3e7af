/* SPDX-License-Identifier: MIT */
/*
 * mapping - where things are in a segment, and the segments this process has
 * mapped: shared ones by their uuid, private ones that nobody else sees.
 */
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>

#include "shm/segment.h"

/* ---------------------------------------------------------------- layout */

/* Byte offsets of everything, from the geometry alone. */
struct offsets {
	uint64_t peers, states, expires, charges, uses, buckets, seen, former_keys, block_owners, blocks,
		entries, ring_owners, rings, end;
};

static struct offsets offsets_of(const struct shm_geometry *g)
{
	struct offsets at;
	uint64_t off = SHM_PAGE_BYTES;

#define PLACE(field, count, size)                                 \
	do {                                                      \
		at.field = off;                                   \
		off = round_up_u64(off + (uint64_t)(count) * (size), CACHE_LINE_BYTES); \
	} while (0)
	PLACE(peers, g->peers, sizeof(struct shm_peer));
	PLACE(states, g->entries, sizeof(shm_u64));
	PLACE(expires, g->entries, sizeof(shm_u64));
	PLACE(charges, g->entries, sizeof(shm_u64));
	PLACE(uses, g->entries, sizeof(shm_u64));
	PLACE(buckets, g->buckets, sizeof(shm_u64));
	PLACE(seen, (uint64_t)g->buckets * SHM_SEEN_PER_BUCKET, sizeof(shm_u32));
	PLACE(former_keys, g->buckets, sizeof(shm_u32));
	PLACE(block_owners, g->blocks, sizeof(shm_u64));
	PLACE(blocks, g->blocks, sizeof(struct shm_block));
	PLACE(entries, g->entries, sizeof(struct shm_entry));
	PLACE(ring_owners, g->rings, sizeof(shm_u64));
#undef PLACE
	at.rings = round_up_u64(off, SHM_PAGE_BYTES);
	at.end = at.rings + g->ring_bytes * g->rings;
	return at;
}

uint64_t segment_bytes(const struct shm_geometry *geometry)
{
	return offsets_of(geometry).end;
}

uint64_t segment_core_bytes(const struct shm_geometry *geometry)
{
	return offsets_of(geometry).rings;
}

bool segment_geometry_is_sane(const struct shm_geometry *g)
{
	return g->entries >= 1 && g->entries <= 1u << 24 && g->buckets >= 1 &&
	       g->buckets <= 1u << 24 && (g->buckets & (g->buckets - 1)) == 0 && g->peers >= 1 &&
	       g->peers <= SHM_PEERS_MAX && g->blocks >= 1 && g->blocks <= 1u << 20 &&
	       g->rings <= 1u << 16 && g->ring_bytes >= SHM_PAGE_BYTES &&
	       g->ring_bytes <= 1ull << 32 && (g->ring_bytes & (g->ring_bytes - 1)) == 0;
}

static void place(struct segment *segment, unsigned char *base)
{
	struct offsets at = offsets_of(&segment->geometry);

	segment->header = (void *)base;
	segment->peers = (void *)(base + at.peers);
	segment->states = (void *)(base + at.states);
	segment->expires = (void *)(base + at.expires);
	segment->charges = (void *)(base + at.charges);
	segment->uses = (void *)(base + at.uses);
	segment->buckets = (void *)(base + at.buckets);
	segment->seen = (void *)(base + at.seen);
	segment->former_keys = (void *)(base + at.former_keys);
	segment->block_owners = (void *)(base + at.block_owners);
	segment->blocks = (void *)(base + at.blocks);
	segment->entries = (void *)(base + at.entries);
	segment->ring_owners = (void *)(base + at.ring_owners);
	segment->rings = base + at.rings;
	segment->bytes = at.end;
}

/* --------------------------------------------------- mappings of this process */

static pthread_mutex_t mappings_mutex = PTHREAD_MUTEX_INITIALIZER;
static struct segment *mappings;

static void mappings_lock(void)
{
	pthread_mutex_lock(&mappings_mutex);
}

static void mappings_unlock(void)
{
	pthread_mutex_unlock(&mappings_mutex);
}

/* The child of a fork shares no private state with its parent: start afresh. */
static void mappings_forget(void)
{
	mappings = NULL;
	mappings_unlock();
}

void segment_watch_fork(void)
{
	pthread_atfork(mappings_lock, mappings_unlock, mappings_forget);
}

struct segment *segment_find_mapped(const unsigned char uuid[SHM_UUID_BYTES])
{
	struct segment *segment;

	mappings_lock();
	for (segment = mappings; segment != NULL; segment = segment->next_mapping)
		if (memcmp(segment->uuid, uuid, SHM_UUID_BYTES) == 0) {
			segment->users++;
			break;
		}
	mappings_unlock();
	return segment;
}

void segment_leave(struct segment *segment)
{
	struct segment **link;

	if (segment == NULL)
		return;
	mappings_lock();
	if (--segment->users > 0) {
		mappings_unlock();
		return;
	}
	for (link = &mappings; *link != NULL; link = &(*link)->next_mapping)
		if (*link == segment) {
			*link = segment->next_mapping;
			break;
		}
	mappings_unlock();
	munmap(segment->header, segment->bytes);
	free(segment);
}

int segment_map(int fd, const struct shm_header *header, const char *path,
		struct segment **ret_segment)
{
	struct segment *segment = calloc(1, sizeof(*segment));
	void *base;

	if (segment == NULL)
		return -ENOMEM;
	base = mmap(NULL, header->segment_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (base == MAP_FAILED) {
		free(segment);
		return -errno;
	}
	segment->geometry = header->geometry;
	segment->number = header->number;
	memcpy(segment->uuid, header->uuid, SHM_UUID_BYTES);
	snprintf(segment->dir, sizeof(segment->dir), "%.*s", (int)(strrchr(path, '/') - path), path);
	place(segment, base);
	segment->users = 1;
	mappings_lock();
	segment->next_mapping = mappings;
	mappings = segment;
	mappings_unlock();
	*ret_segment = segment;
	return 0;
}

int segment_map_private(const struct shm_geometry *geometry, struct segment **ret_segment)
{
	struct segment *segment = calloc(1, sizeof(*segment));
	void *base;

	if (segment == NULL)
		return -ENOMEM;
	base = mmap(NULL, segment_bytes(geometry), PROT_READ | PROT_WRITE,
		    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (base == MAP_FAILED) {
		free(segment);
		return -ENOMEM;
	}
	segment->geometry = *geometry;
	place(segment, base);
	segment->users = 1;
	*ret_segment = segment;
	return 0;
}
