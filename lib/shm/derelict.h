/* SPDX-License-Identifier: MIT */
/*
 * derelict - segments of caches whose directory has vanished: `rm -rf` of a cache leaves
 * its memory behind until the next boot, and nobody who uses another one would know.
 *
 * In a segment directory every file of ours tells by its header which cache it is of. It
 * is derelict if that cache's lock file has gone, or names another segment, and if
 * nobody has it open for writing or mapped. That the kernel says: a read lease is only
 * given then, across all namespaces, and whoever comes while we have it waits until
 * the name is gone, and sees that it is (segment_join()). So if the directory is only
 * somewhere else (renamed, not mounted, in another container), at worst a cache that
 * nobody uses just now loses its soft state.
 *
 * Never emptied, only unlinked; never one of another user; never one younger than a
 * minute, or with a header that is not whole, or from which we cannot tell.
 */
#ifndef SHM_DERELICT_H
#define SHM_DERELICT_H

#include "shm/layout.h"

/* derelict_is_name - is a segment called so? */
bool derelict_is_name(const char *name);

/*
 * derelict_remove - those in @dir, but for the one that is called by @uuid; a @dry_run removes
 * none. @found is told of each. What only has the name of one is none of ours to speak of.
 */
void derelict_remove(const char *dir, const unsigned char uuid[SHM_UUID_BYTES], bool dry_run,
		     void (*found)(void *arg, const char *path, uint64_t bytes), void *arg);

#endif
