/* SPDX-License-Identifier: MIT */
#include "store/leave.h"

#include "base/thread.h"
#include "index/repair.h"
#include "store/sweep.h"

static bool is_read(struct store *store, struct entry_name name)
{
	struct cursor_survey survey;
	uint32_t hand = 0;

	/* ORDER left, seq_cst: SEALED, and the own cursor, before this scan. Pairs with leave_entry(). */
	cursor_survey(store->segment, name, &survey);
	if (survey.count == 0)
		return false;
	repair_readers(store->peer, name, &hand);
	cursor_survey(store->segment, name, &survey);
	return survey.count > 0;
}

uint64_t leave_hide(struct store *store, struct entry_name name, uint64_t word)
{
	if (!state_needs_reader(word) || state_gen(word) != name.gen || is_read(store, name))
		return word;
	/* Who has come since is among those that sweep_entry() looks for behind the closed door. */
	entry_hide(store->segment, name, ENTRY_SEALED);
	return shm_load(entry_state_word(store->segment, name.idx));
}

void leave_collect(struct store *store, struct entry_name name)
{
	UNCANCELLED;
	uint64_t word = leave_hide(store, name, shm_load(entry_state_word(store->segment, name.idx)));

	if (state_gen(word) == name.gen && state_is_garbage(word))
		sweep_entry(store, name);
}
