/* SPDX-License-Identifier: MIT */
#include "index/index.h"

#include <errno.h>

#include "base/step.h"
#include "shm/epoch.h"

/* A walk that starts over this often is no victim of contention. */
#define RESTARTS_MAX 1000000u

/* Where a walk stands: the link that led here, and the node it led to. */
struct walk {
	struct segment *segment;
	shm_u64 *bucket;
	uint64_t head;	   /* the bucket's word when the walk started */
	shm_u64 *from;	   /* the bucket or a node's next */
	uint64_t from_word; /* what it said */
	struct entry_name at;
	uint64_t state; /* of the node */
	uint64_t next;	/* its link */
	uint32_t steps, restarts;
	uint64_t stale_word; /* a link that led to a contradiction once already */
	shm_u64 *stale_from;
};

enum walk_result { WALK_NODE, WALK_END, WALK_RESTART, WALK_DAMAGE };

shm_u64 *index_bucket(const struct segment *segment, struct key_hash hash)
{
	return &segment->buckets[hash.low & (segment->geometry.buckets - 1)];
}

static void walk_start(struct walk *walk, struct segment *segment, struct key_hash hash)
{
	walk->segment = segment;
	walk->bucket = index_bucket(segment, hash);
	walk->from = walk->bucket;
	walk->head = walk->from_word = shm_load(walk->bucket);
	walk->steps = 0;
}

/* The same contradiction behind the same unchanged link twice: not a race. */
static enum walk_result contradiction(struct walk *walk)
{
	if (shm_load(walk->from) != walk->from_word)
		return WALK_RESTART;
	if (walk->stale_from == walk->from && walk->stale_word == walk->from_word)
		return WALK_DAMAGE;
	walk->stale_from = walk->from;
	walk->stale_word = walk->from_word;
	return WALK_RESTART;
}

/* Read the node that the current link leads to. */
static enum walk_result walk_read(struct walk *walk)
{
	struct segment *segment = walk->segment;
	bool at_head = walk->from == walk->bucket;
	uint32_t target = at_head ? (uint32_t)walk->from_word : LINK_TARGET(walk->from_word);
	uint32_t gen;

	if (target == 0)
		return WALK_END;
	if (target > segment->geometry.entries || ++walk->steps > segment->geometry.entries + 1)
		return contradiction(walk);
	walk->at.idx = target - 1;
	/* ORDER epoch-unlink, seq_cst: the pin before this load. Pairs with unlink_node(). */
	walk->next = shm_load(&entry_at(segment, walk->at.idx)->next);
	walk->state = shm_load(entry_state_word(segment, walk->at.idx));
	gen = walk->at.gen = state_gen(walk->state);
	if ((at_head && gen != (uint32_t)(walk->from_word >> 32)) ||
	    LINK_OWN_GEN(walk->next & ~LINK_MARK) != gen || state_of(walk->state) == ENTRY_FREE ||
	    state_of(walk->state) == ENTRY_CLAIMED)
		return contradiction(walk);
	/* Unchanged: the link held its target in the chain while we read the state. */
	if (shm_load(walk->from) != walk->from_word)
		return WALK_RESTART;
	return WALK_NODE;
}

static void walk_advance(struct walk *walk)
{
	walk->from = &entry_at(walk->segment, walk->at.idx)->next;
	walk->from_word = walk->next;
}

/* Finish the removal of the marked node the walk stands at. */
static void unlink_node(struct walk *walk)
{
	uint32_t target = LINK_TARGET(walk->next);
	uint64_t desired = 0;

	if (walk->from != walk->bucket) {
		desired = LINK_MAKE(LINK_OWN_GEN(walk->from_word), target);
	} else if (target != 0 && target <= walk->segment->geometry.entries) {
		/* A marked link is frozen, so its target stays linked until our CAS. */
		uint64_t state = shm_load(entry_state_word(walk->segment, target - 1));

		desired = NAME_WORD(state_gen(state), target - 1);
	}
	/* ORDER epoch-unlink, seq_cst: unlinked before the pins are scanned. Pairs with walk_read(). */
	shm_cas(walk->from, walk->from_word, desired);
	/* STEP index-unlinked: later walks miss it. Die here: any sweep goes on. */
	STEP("index-unlinked");
}

/* The next node that is not being removed. */
static enum walk_result walk_next(struct walk *walk)
{
	for (;;) {
		enum walk_result result = walk_read(walk);

		if (result == WALK_NODE && walk->next & LINK_MARK) {
			unlink_node(walk);
			return WALK_RESTART;
		}
		return result;
	}
}

int index_find(struct peer *peer, const struct index_key *key, struct entry_name *ret_name,
	       uint64_t *ret_state, uint64_t *ret_head)
{
	struct walk walk = { .restarts = 0 };

restart:
	walk_start(&walk, peer->segment, key->hash);
	for (;; walk_advance(&walk)) {
		const struct shm_entry *entry;

		switch (walk_next(&walk)) {
		case WALK_END:
			*ret_head = walk.head;
			return 0;
		case WALK_DAMAGE:
			return -EUCLEAN;
		case WALK_RESTART:
			if (++walk.restarts > RESTARTS_MAX)
				return -EUCLEAN;
			goto restart;
		case WALK_NODE:
			break;
		}
		entry = entry_at(peer->segment, walk.at.idx);
		if (!state_is_findable(walk.state) || entry_hash(entry).high != key->hash.high ||
		    !entry_key_is(entry, key->key, key->key_bytes))
			continue;
		*ret_name = walk.at;
		*ret_state = walk.state;
		return 1;
	}
}

bool index_insert(struct peer *peer, struct entry_name name, const struct index_key *key,
		  uint64_t head)
{
	struct segment *segment = peer->segment;
	shm_u64 *bucket = index_bucket(segment, key->hash);

	shm_store(&entry_at(segment, name.idx)->next, LINK_MAKE(name.gen, (uint32_t)head));
	/* STEP link-written: our link, but no way to us. Die here: the reaper fails the entry. */
	STEP("link-written");
	if (!shm_cas(bucket, head, name_word(name)))
		return false;
	/* STEP head-linked: findable, no byte yet. Die here: the reaper fails it. */
	STEP("head-linked");
	return true;
}

/* Forbid anything to be linked behind the node, and tell walkers to unlink it. */
static int mark(struct segment *segment, struct entry_name name)
{
	shm_u64 *link = &entry_at(segment, name.idx)->next;
	uint64_t word = shm_load(link);

	while (!(word & LINK_MARK)) {
		/* A generation that never got as far as index_insert() has no link to mark. */
		if (LINK_OWN_GEN(word) != name.gen)
			return -ESTALE;
		if (shm_cas(link, word, word | LINK_MARK)) {
			/* STEP index-marked: still linked. Die here: any walker unlinks it. */
			STEP("index-marked");
			return 0;
		}
		word = shm_load(link);
	}
	return LINK_OWN_GEN(word & ~LINK_MARK) == name.gen ? 0 : -ESTALE;
}

int index_unlink(struct peer *peer, struct entry_name name)
{
	struct segment *segment = peer->segment;
	struct walk walk = { .restarts = 0 };
	struct key_hash hash = entry_hash(entry_at(segment, name.idx));
	unsigned pin;
	int ret = 0;

	if (mark(segment, name) < 0)
		return 0; /* never linked in this life */
	pin = epoch_enter(peer);
restart:
	walk_start(&walk, segment, hash);
	for (;; walk_advance(&walk)) {
		enum walk_result result = walk_next(&walk);

		if (result == WALK_NODE)
			continue;
		if (result == WALK_RESTART && ++walk.restarts <= RESTARTS_MAX)
			goto restart;
		if (result != WALK_END)
			ret = -EUCLEAN;
		break;
	}
	epoch_leave(peer, pin);
	return ret;
}
