/* SPDX-License-Identifier: MIT */
/*
 * repair - finishing or undoing what a dead process left half-done.
 *
 * All of it is here, and all of it only changes states and wakes; files are
 * removed by sweeps. Run by whoever meets the need: a waiter at its tick, a
 * full table, an attach, a sweep. Idempotent: a reaper killed anywhere lets
 * go of the dead peer's byte, and the next one does it all again.
 *
 *  left behind by the dead           becomes
 *  pins                              0
 *  cursors, and their blocks         0; the writers are told to look
 *  CLAIMED entry                     RETIRED (nobody could reach it)
 *  FILLING entry                     FAILED and HIDDEN, -EOWNERDEAD; all wake
 *  FILLING entry that is resumable   ORPHAN; all wake, and one takes it over. FAILED
 *                                    as above if none does, or after three deaths
 *  SWEEPING entry                    RETIRED: swept again
 *  ring of an entry                  stays the entry's, goes when that is swept
 *  the slot                          FREE, next generation
 */
#ifndef INDEX_REPAIR_H
#define INDEX_REPAIR_H

#include "index/cursor.h"

/* repair_reap - clean up after @slot if its process is dead. 1 if done, else 0. */
int repair_reap(struct peer *peer, uint32_t slot);

/* repair_if_dead - the same, asking the kernel at most once a tick. */
int repair_if_dead(struct peer *peer, uint32_t slot);

/*
 * repair_producer - fail the fill of a dead producer, or make it an orphan; fail
 * an orphan that nobody wants. True if production has ended, whoever saw to that.
 */
bool repair_producer(struct peer *peer, struct entry_name name);

/* repair_fail_orphan - nobody can go on with it, or should. False: it is no orphan, as @word says. */
bool repair_fail_orphan(struct peer *peer, struct entry_name name, uint64_t word);

/* repair_reap_all - look at every slot in use. Returns the number reaped. */
uint32_t repair_reap_all(struct peer *peer);

/* repair_reap_some - look at up to @count slots in use, in turn. */
uint32_t repair_reap_some(struct peer *peer, uint32_t count);

/*
 * repair_readers - reap dead readers of an entry: looks at up to 64 blocks of
 * its cursors, from block *hand on, and leaves there where to go on.
 */
void repair_readers(struct peer *peer, struct entry_name name, uint32_t *hand);

#endif
