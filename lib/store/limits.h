/* SPDX-License-Identifier: MIT */
/*
 * limits - how much a cache takes of its disk, and who may take more.
 *
 * Each entry has a charge: the bytes that its file has, or is going to have. It is set
 * before they are written and is 0 again when the file has gone, so the sum of all
 * charges is what the cache takes, whoever was killed and wherever. That sum is what
 * counts, and no running total, which the dead would leave wrong.
 *
 * Only, nobody adds up a table for each block that he writes. Whoever does leaves a
 * budget: `ever` counts what was charged at any time and never falls, and up to
 * `ever` + what was free then = `until` there is no need to look. What is given back
 * meanwhile only makes that too careful, and so does a budget of somebody who
 * was slower; what a process did not come to count, since it was killed, is one step.
 *
 * What is free is the least of: max_bytes less the sum; and, since others use the
 * disk as well, a quarter of what the file system has beyond min_free. Slots have a
 * budget, too, in which a claimed slot is its own charge.
 */
#ifndef STORE_LIMITS_H
#define STORE_LIMITS_H

#include "store/store.h"

struct evict_watch;

/*
 * limits_reserve - our entry is going to have @bytes on the disk: make room, if need be by
 * removing others, and charge it. 0; -ENOSPC: then it has what it had.
 * If we die inside: charged with more than it has, until it is swept.
 */
int limits_reserve(struct store *store, struct entry_name name, uint64_t bytes);

/*
 * limits_make_way - the disk itself lacks @bytes, whatever is allowed: others go for them, unless
 * some go already for somebody else. True: try again. False: once they have gone for us that
 * has not helped. *@tries is ours to keep, and 0 at first.
 */
bool limits_make_way(struct store *store, uint64_t bytes, uint32_t *tries);

/* limits_settle - our entry's file, open as @fd, has what it has. */
void limits_settle(struct store *store, struct entry_name name, int fd);

/* limits_note_adopted - one with @bytes that was there before: there is no choice. */
void limits_note_adopted(struct store *store, struct entry_name name, uint64_t bytes);

/* limits_clear - its file has gone. */
void limits_clear(struct store *store, struct entry_name name);

/*
 * limits_allow_entry - we have CLAIMED one entry more: may it be? Removes others if need be. 0;
 * -ENOSPC: it has been given back.
 */
int limits_allow_entry(struct store *store, struct entry_name name);

/*
 * limits_keep - down to what is allowed, whoever has exceeded it: for a sweep. @watch, if not
 * NULL, is told what goes; if it says so, of what would, the rest being as good as gone already.
 */
void limits_keep(struct store *store, const struct evict_watch *watch);

/* What is used and what is left of it. */
struct limits_use {
	uint64_t bytes;	   /* all charges, and files of former segments as far as counted */
	uint64_t entries;  /* slots in use */
	uint64_t spare_bytes; /* that may be charged yet; UINT64_MAX: no limit */
};

void limits_measure(const struct store *store, struct limits_use *ret_use);

#endif
