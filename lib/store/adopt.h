/* SPDX-License-Identifier: MIT */
/*
 * adopt - finished blobs that a former segment has left: after a reboot, the loss of
 * the segment, or another layout of it.
 *
 * A segment begins with the belief that each fan-out directory holds such files. A miss
 * then looks through the one that its key would be in: the newest valid one of
 * the key becomes an entry, by a rename to that entry's own name, and others of the
 * key go, or they would rise again when it has been removed. A directory without
 * any such file is not looked through any more.
 *
 *	CLAIMED, its fields --link--> FILLING+UNVERIFIED --rename--> SEALED+UNVERIFIED
 *
 * The link decides between two who find the same file. What nobody asks for a full
 * sweep adopts or removes. As long as processes of another segment are attached
 * nothing is: the files may be theirs.
 */
#ifndef STORE_ADOPT_H
#define STORE_ADOPT_H

#include "index/index.h"
#include "store/blob.h"
#include "store/former.h"

/* adopt_may_help - may there be files of a former segment where this key's would be? */
static inline bool adopt_may_help(const struct store *store, struct key_hash hash)
{
	return former_may_have(store->segment, hash);
}

/*
 * adopt_is_theirs - may files of other segments be in use? To be asked when the file has
 * been seen: then what was made after our own segment was retired counts, too.
 */
bool adopt_is_theirs(const struct store *store);

/*
 * adopt_key - there is no entry of @key: make one of what a former segment has of it.
 * True: it is worth looking again. Blocks: for the disk.
 */
bool adopt_key(struct store *store, const struct index_key *key);

/*
 * adopt_forget - remove what a former segment has of @key; if others may use it yet, see to
 * it that it does not come back when they have left. 1: there was something; 0: nothing;
 * -errno: there may be something yet.
 */
int adopt_forget(struct store *store, const struct index_key *key);

/*
 * adopt_file - one file of a former segment at @path below DIR/blobs. 1: it is an entry now,
 * or (@dry_run) would be; 0: it is none, or there is no place for it: it may go, and *ret_why
 * says why; -errno: it is not to be touched now.
 */
int adopt_file(struct store *store, const char *path, bool dry_run, const char **ret_why);

#endif
