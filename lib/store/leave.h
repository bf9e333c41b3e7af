/* SPDX-License-Identifier: MIT */
/*
 * leave - the last one out puts out the light.
 *
 * What nobody can find any more goes with its last reader. So does, once it is finished,
 * an entry that was wanted too seldom to be retained (ENTRY_TRANSIENT, index/seen.h): its
 * production was shared like any other, and as long as somebody reads it others may join.
 *
 * Who leaves it clears his cursor and then looks for others; its writer says SEALED and
 * then looks. So one of them finds that nobody reads it, hides it, and whoever slipped in
 * before that is the last one in turn. A reader that was killed, and whoever is killed
 * between these steps, is found by a sweep: our reaper sets the hint to look.
 */
#ifndef STORE_LEAVE_H
#define STORE_LEAVE_H

#include "store/store.h"

/* leave_hide - needs it, as @word says, a reader and has none: the key is free. Its state then. */
uint64_t leave_hide(struct store *store, struct entry_name name, uint64_t word);

/* leave_collect - leave_entry(), if there may be something to do. */
void leave_collect(struct store *store, struct entry_name name);

/* leave_entry - a cursor on it was cleared, or its production has ended. */
static inline void leave_entry(struct store *store, struct entry_name name)
{
	/* ORDER left, seq_cst: the cursor was cleared before this look. Pairs with leave_hide(). */
	uint64_t word = shm_load(entry_state_word(store->segment, name.idx));

	if (state_is_garbage(word) || state_needs_reader(word))
		leave_collect(store, name);
}

#endif
