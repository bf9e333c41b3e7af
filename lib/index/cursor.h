/* SPDX-License-Identifier: MIT */
/*
 * cursor - who reads what, and how far: a hazard pointer with a position.
 *
 * Cells come in blocks of 64 with one owner word per block: attributable to
 * a peer, and taking a cell is private to the process. An entry is reused
 * only when no cell names it.
 *
 * The door. A joiner publishes its cursor and then loads the entry's state
 * once more; whoever closes the door sets HIDDEN and then scans the cursors.
 * All four accesses are seq_cst, so either the scan sees the joiner or the
 * joiner sees the closed door.
 */
#ifndef INDEX_CURSOR_H
#define INDEX_CURSOR_H

#include "index/entry.h"

/* A block's owner word and a cell's name word: {gen:32 | index + 1:32}. */
#define NAME_WORD(gen, index) ((uint64_t)(gen) << 32 | ((uint64_t)(index) + 1))
#define NAME_GEN(word) ((uint32_t)((word) >> 32))
#define NAME_INDEX(word) ((uint32_t)(word)-1)

static inline uint64_t name_word(struct entry_name name)
{
	return NAME_WORD(name.gen, name.idx);
}

/* The blocks this process owns and which of their cells are taken: private. */
struct cursor_space {
	pthread_mutex_t mutex;
	uint32_t *blocks;
	uint64_t *taken; /* a bit per cell */
	uint32_t count, room;
};

#define CURSOR_NONE UINT32_MAX

void cursor_space_init(struct cursor_space *space);

/* cursor_space_leave - give all blocks back; no cell may be in use. */
void cursor_space_leave(struct cursor_space *space, struct peer *peer);

/* cursor_space_forget - in a fork child: free the private part only. */
void cursor_space_forget(struct cursor_space *space);

/* cursor_take - reserve a cell. 0, -ENOSPC (all blocks are owned), -ENOMEM. */
int cursor_take(struct cursor_space *space, struct peer *peer, uint32_t *ret_cell);
void cursor_give_back(struct cursor_space *space, uint32_t cell);

static inline struct shm_cursor *cursor_at(const struct segment *segment, uint32_t cell)
{
	return &segment->blocks[cell / SHM_BLOCK_CURSORS].cursors[cell % SHM_BLOCK_CURSORS];
}

/*
 * cursor_attach - publish that @cell reads @name, and look whether the door
 * is still open. Returns true with the state as it was then, else withdrawn.
 */
bool cursor_attach(struct segment *segment, uint32_t cell, struct entry_name name,
		   uint64_t *ret_state);

/* cursor_publish - for the creator, whose entry nobody can have hidden yet. */
void cursor_publish(struct segment *segment, uint32_t cell, struct entry_name name);

/* cursor_detach - leave, and let the writer look whether anybody remains. */
void cursor_detach(struct peer *peer, uint32_t cell, struct entry_name name);

/* What a scan of all cursors says of one entry. */
struct cursor_survey {
	uint32_t count;
	uint32_t fastest_cell; /* of the largest position; CURSOR_NONE if count is 0 */
	uint64_t slowest, fastest;
	uint64_t sum; /* of all positions: has anybody moved? */
};

void cursor_survey(const struct segment *segment, struct entry_name name,
		   struct cursor_survey *ret_survey);

/* cursor_survey_from - the same of those at @from and further on. */
void cursor_survey_from(const struct segment *segment, struct entry_name name, uint64_t from,
			struct cursor_survey *ret_survey);

/* cursor_is_attached - does @cell name the entry now? */
bool cursor_is_attached(const struct segment *segment, uint32_t cell, struct entry_name name);

/* cursor_block_names - does any cursor of a block read the entry? */
bool cursor_block_names(const struct segment *segment, uint32_t block, struct entry_name name);

/*
 * cursor_override_stopped - take their cursors on the entry from processes that
 * are stopped. Only on an entry that nobody can find any more: when they go on,
 * they see that it has been reused (stream/copy.c). Never a living reader's.
 */
void cursor_override_stopped(struct segment *segment, struct entry_name name);

/* cursor_reap - clear and free all blocks of a dead peer. */
void cursor_reap(struct peer *reaper, uint32_t slot);

#endif
