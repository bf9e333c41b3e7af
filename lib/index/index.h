/* SPDX-License-Identifier: MIT */
/*
 * index - from key to entry: a fixed hash table of lock-free chains.
 *
 *  bucket head  {gen:32 | index + 1:32} of the first entry; 0 = empty
 *  next         {mark:1 | own_gen:32 | index + 1:31}; own_gen is that of the
 *               node the link lies in, so that a CAS by somebody who slept
 *               through a reuse of that node fails
 *
 * Insertion is only at the head, by CAS: it succeeds only if nobody inserted
 * since the walk that missed, which proves the key unique. Removal marks the
 * node's own link and unlinks it from its predecessor; any walker that meets
 * a marked node finishes that. (T. Harris, A pragmatic implementation of
 * non-blocking linked-lists, 2001; M. Michael, High performance dynamic
 * lock-free hash tables, 2002.)
 *
 * One step of a walk: read the link, the target's state, the link again. An
 * unchanged link held its target in the chain meanwhile, so that state was
 * that of the node we meant. Walks are bounded; a contradiction that stays
 * under an unchanged link is damage: -EUCLEAN.
 *
 * All calls but index_unlink() want the caller to have the epoch pinned.
 */
#ifndef INDEX_INDEX_H
#define INDEX_INDEX_H

#include "index/cursor.h"

struct index_key {
	const void *key;
	uint32_t key_bytes;
	struct key_hash hash;
};

/*
 * index_find - the findable entry of @key.
 * Returns 1 with name and state; 0 with the bucket's head, to be handed to
 * index_insert(); -EUCLEAN.
 */
int index_find(struct peer *peer, const struct index_key *key, struct entry_name *ret_name,
	       uint64_t *ret_state, uint64_t *ret_head);

/*
 * index_insert - link a FILLING entry of ours if the head is still @head.
 * Returns false if somebody inserted meanwhile: find again.
 */
bool index_insert(struct peer *peer, struct entry_name name, const struct index_key *key,
		  uint64_t head);

/*
 * index_unlink - take an entry that is not findable out of its chain; pins
 * by itself. After 0 no walk that starts later meets it. 0, -EUCLEAN, -ESTALE.
 */
int index_unlink(struct peer *peer, struct entry_name name);

/* index_bucket - for verify: the head word of a key's bucket. */
shm_u64 *index_bucket(const struct segment *segment, struct key_hash hash);

#define LINK_MARK (1ull << 63)
#define LINK_MAKE(own_gen, target) ((uint64_t)(own_gen) << 31 | (uint64_t)(target))
#define LINK_OWN_GEN(link) ((uint32_t)((link) >> 31))
#define LINK_TARGET(link) ((uint32_t)((link)&0x7fffffffu)) /* index + 1; 0 = end */

#endif
