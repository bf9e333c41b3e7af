/* SPDX-License-Identifier: MIT */
/*
 * sweep - from "nobody can find it" to "the slot and the space are free".
 *
 *  hidden, ended --unlink--> no reader --> RETIRED --two epochs--> SWEEPING
 *                 --ring, file--> FREE
 *
 * The only room that removes blobs. Whoever hides an entry, or leaves it as
 * its last reader, tries at once; what cannot go yet is left for the next
 * one, and a hint in the header says when a look is worth it. Any number of
 * processes may sweep: each transition is a CAS, so one of them does it.
 */
#ifndef STORE_SWEEP_H
#define STORE_SWEEP_H

#include "store/blob.h"

/* sweep_entry - as far as it goes. Returns true if the slot is free now. */
bool sweep_entry(struct store *store, struct entry_name name);

/* sweep_give_back - our own entry in state @from that nobody ever could reach. */
void sweep_give_back(struct store *store, struct entry_name name, enum entry_state from,
		     bool has_file);

/* sweep_slice - if it is time: remove up to 8 expired or ended entries. */
void sweep_slice(struct store *store);

/* sweep_make_room - the table is full: true if at least one slot was freed. */
bool sweep_make_room(struct store *store);

/* sweep_claim - a free slot, if need be by making room. 0 or -ENOSPC. */
int sweep_claim(struct store *store, struct entry_name *ret_name);

/* sweep_collect - whatever can go now. Returns the number of slots freed. */
uint32_t sweep_collect(struct store *store);

/* sweep_expire - hide a finished entry that is older than allowed. False: it is none any more. */
bool sweep_expire(struct store *store, struct entry_name name);

/* sweep_note_expiry - an entry was finished that expires at @expires_ns. */
void sweep_note_expiry(struct store *store, uint64_t expires_ns);

/* sweep_due_ns - when a finished entry that @expires_ns is to go, if nobody asks for it. */
uint64_t sweep_due_ns(const struct store *store, struct entry_name name, uint64_t expires_ns);

/*
 * sweep_hide_overdue - a production that takes longer than the cache allows: its door is
 * closed. False: it is none.
 */
bool sweep_hide_overdue(struct store *store, struct entry_name name);

/* sweep_change_age - entries that had the cache's greatest age have the new one. */
void sweep_change_age(struct store *store, uint64_t from_ns, uint64_t to_ns);

#endif
