/* SPDX-License-Identifier: MIT */
/*
 * stream - the two handles, and what they share.
 *
 * The ring is the live path, the file the history path: a writer copies into
 * the ring and publishes, and empties the ring to the file in large writes; a
 * reader near the head copies from the ring without a system call, one that
 * has fallen behind reads the file.
 *
 *	0 ........ floor ........ flushed ........ written
 *	|-- file --|--- file and ring --|-- ring ---|
 *
 * Without a ring floor is UINT64_MAX and flushed equals written. Without a
 * file (ENTRY_RING_ONLY) flushed stands still and the writer keeps in the
 * ring whatever the slowest reader has not read.
 */
#ifndef STREAM_STREAM_H
#define STREAM_STREAM_H

#include <stdlib.h>

#include "store/store.h"
#include "store/table.h"
#include "streamcache.h"

/* Writer and reader of one acquire: to tell a slow reader from a deadlock. */
struct stream_pair {
	_Atomic uint32_t users;
	_Atomic uintptr_t reader_thread; /* that used the reader last; 0 = closed */
};

struct scache_reader {
	uint32_t magic;
	int error; /* sticky */
	struct store *store;
	_Atomic uint32_t *open_streams;
	struct stream_pair *pair;
	struct entry_name name;
	struct shm_entry *entry;
	shm_u64 *state;
	struct shm_cursor *cursor;
	const unsigned char *ring; /* NULL: none */
	struct open_blob *blob;	   /* NULL until needed */
	uint64_t position;
	uint64_t ring_mask;
	uint32_t cell;
	uint32_t spins; /* how long to spin before sleeping; adaptive */
	uint64_t stats[STAT_COUNT]; /* not yet added to the peer's */
	unsigned char key[256];	    /* for scache_reader_info() */
};

struct scache_writer {
	uint32_t magic;
	int error; /* sticky */
	struct store *store;
	_Atomic uint32_t *open_streams;
	struct stream_pair *pair;
	struct entry_name name;
	struct shm_entry *entry;
	shm_u64 *state;
	unsigned char *ring; /* NULL: none */
	uint64_t ring_bytes, slice_bytes, flush_bytes;
	uint64_t written, flushed; /* as published; we are their only writer */
	uint64_t pace;		   /* as of the last survey */
	uint64_t window_bytes;
	uint64_t checked_at; /* bytes written when dead readers were last looked for */
	uint32_t key_bytes;
	uint32_t pace_cell;
	uint32_t reap_hand; /* where dead readers are looked for next */
	int fd; /* -1: no file */
	bool run_to_end;
	bool ring_only;
	bool ended;
	bool mid_call; /* of this write some bytes are taken already */
	uint64_t bytes_counted;
};

/*
 * reader_open - around a cursor that is attached to @name in state @state.
 * Opens the file if the reader cannot do without. Returns 0; -ENOENT if the
 * file is gone: the entry is a miss; -errno. On failure the cursor is left
 * as it was.
 */
int reader_open(struct store *store, struct entry_name name, uint32_t cell, uint64_t state,
		struct scache_reader **ret_reader);

/* writer_open - for our FILLING entry; @fd is its file, or -1. 0 or -ENOMEM. */
int writer_open(struct store *store, struct entry_name name, int fd,
		struct scache_writer **ret_writer);

/* writer_go_without_file - close the door and go on from the ring alone. */
void writer_go_without_file(struct scache_writer *writer);

/* pace_room - bytes that may be written now; 0 = wait. */
uint64_t pace_room(struct scache_writer *writer);

/*
 * pace_wait - sleep until a reader has moved or left, or a tick, at which the
 * dead among them are reaped. 0: look again; -ETIMEDOUT; -EDEADLK (waiting
 * since @since_ns for a reader that only this very thread could move).
 */
int pace_wait(struct scache_writer *writer, int64_t since_ns, int64_t deadline_ns);

/* pace_look_after_readers - reap dead ones, and have the writer see who remains. */
void pace_look_after_readers(struct scache_writer *writer);

/* pace_is_abandoned - has everybody left? If so the door is closed. */
bool pace_is_abandoned(struct scache_writer *writer);

/* entry_fill_info - what `ls` and a progress line show of an entry. */
int entry_fill_info(struct store *store, struct entry_name name, unsigned char key[256],
		    struct scache_entry_info *ret_info);

static inline void pair_put(struct stream_pair *pair)
{
	if (pair != NULL && atomic_fetch_sub(&pair->users, 1) == 1)
		free(pair);
}

#endif
