/* SPDX-License-Identifier: MIT */
/*
 * seen - how often keys were produced of late: is one wanted often enough to be stored?
 *
 * A count-min sketch in shared memory: a key has a cell in each of two rows, and the
 * lesser of the two counts. Who shares both cells with others is only stored too early.
 *
 *   a cell   {generation:16 | now:8 | before:8}
 *
 * A generation is as long as the cache's max_age_ns, or a day if that is unlimited or 0; what
 * counts is its own and the one before. So an occurrence is forgotten after one to two such
 * times, and by nobody: each cell says of when it is, and who counts in a later
 * generation moves it on by the same CAS. There is no turn of all of them that a death could
 * leave half-done, and nothing to mend: whatever stands in a cell, it is a count.
 *
 * Counted is who has begun a production, when its entry has been linked: those who lose the
 * election, and those who join, are one occurrence with it. Who is killed between
 * the two has not been counted.
 *
 * Hits are not counted. So a key that was produced often enough once is so again as long as
 * each generation has a production of it: when it has expired, which is once in a while.
 */
#ifndef INDEX_SEEN_H
#define INDEX_SEEN_H

#include "base/hash.h"
#include "shm/segment.h"

#define SEEN_MOST 255u /* a count stays there */

/* seen_is_enough - would one production more at @now_ns (clock_shared_ns()) be retained? */
bool seen_is_enough(const struct segment *segment, struct key_hash hash, uint64_t now_ns);

/* seen_count - one has begun. */
void seen_count(struct segment *segment, struct key_hash hash, uint64_t now_ns);

#endif
