/* SPDX-License-Identifier: MIT */
/*
 * verify - the numbered invariants of a segment, checked on the living one.
 *
 *  I1  the header is intact: magic, layout, number, geometry.
 *  I2  every entry's state is a known one; a FREE entry has no flags, no owner.
 *  I3  CLAIMED, FILLING and SWEEPING entries name a peer whose slot is in use.
 *  I4  a findable SEALED entry is in the chain of its key's bucket, and no
 *      chain holds two findable entries of one key.
 *  I5  chains end, stay in range, name the present life of each entry, and
 *      hold no FREE, CLAIMED or SWEEPING one.
 *  I6  flushed <= written when SEALED, and ahead of it by one write that passes
 *      the ring at most while FILLING; with a file, floor <= flushed while FILLING,
 *      and a SEALED entry with a complete file is flushed whole. Of a declared size
 *      written is never more, and when SEALED all of it. Holes in the file only below
 *      flushed, and only if it is not to be kept.
 *  I7  a ring's owner word names an entry of that generation that is not FREE.
 *  I8  blocks of cursors belong to slots in use; a block without an owner has
 *      only empty cells; every cursor names an index in range.
 *  I9  free slots have no pins; no pin is from the future.
 *  I10 a FREE entry has no charge, and no budget allows more than its limit.
 *
 * Others change the segment meanwhile, so a contradiction counts only if it
 * is the same after a pause, twice. Nothing is written.
 */
#ifndef INDEX_VERIFY_H
#define INDEX_VERIFY_H

#include "index/index.h"

/*
 * verify_segment - tell @finding (may be NULL) of each violation.
 * Returns their number.
 */
int verify_segment(struct peer *peer, void (*finding)(void *arg, const char *text), void *arg);

#endif
