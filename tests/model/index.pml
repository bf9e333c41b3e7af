/* SPDX-License-Identifier: MIT */
/*
 * index - find, create and remove: the chain of one bucket and its states.
 *
 * Models lib/index/index.c, lib/index/entry.c, the loop of lib/api/request.c
 * and collect() of lib/store/sweep.c. One statement is one access to shared
 * memory. A load and the CAS after it are one statement where a failed CAS
 * only loads again.
 *
 * Left out: other buckets; hash, ring and file; cursors; the bounds of walks.
 * There is no grace at all: a slot is reused at once, as if every pin were
 * overridden at every moment. That allows more than the code does. Memory is
 * sequentially consistent, as the four Dekker pairs are seq_cst in the code.
 *
 * Properties: no two findable entries of one key; the chain holds just what
 * was linked and not unlinked, without cycle, and no slot that is unlinked or
 * free; after index_unlink() the entry is in no chain; only hidden entries are
 * marked; who attaches has his key's entry; no false alarm of damage.
 *
 * Bugs: BUG_OWN_GEN (links without own_gen), BUG_HEAD_GEN (the insert compares
 * the index only), BUG_RETIRE_GEN (retiring compares no generation),
 * BUG_NO_MARK (unlinking without a mark), BUG_NO_RECHECK (a walk does not look
 * at the link again), BUG_MARK_ONLY (nobody unlinks before the slot is freed).
 */
#ifndef PROCS
#define PROCS 2
#endif
#ifndef SLOTS
#define SLOTS 2 /* at most 3 */
#endif
#ifndef KEYS
#define KEYS 2
#endif
#ifndef OPS
#define OPS 2 /* what a process does in its life */
#endif
#ifndef OPS_FIRST
#define OPS_FIRST 3 /* what the first one does */
#endif
#ifndef LIVES
#define LIVES 3 /* generations of a slot */
#endif

#define FREE 0
#define CLAIMED 1
#define FILLING 2
#define SEALED 3
#define FAILED 4
#define RETIRED 5
#define SWEEPING 6
#define HIDDEN 8

#define STATE(gen, state) (((gen) << 4) | (state))
#define STATE_GEN(word) ((word) >> 4)
#define STATE_OF(word) ((word) & 7)
#define IS_FINDABLE(word) (((word) & 15) == FILLING || ((word) & 15) == SEALED)
#define IS_GARBAGE(word) (((word) & 15) == (SEALED | HIDDEN) || ((word) & 15) == (FAILED | HIDDEN))

/* As in the code slot n is n + 1 in a link. The bucket's generation is the target's. */
#define MARK 4
#define LINK(gen, target) (((gen) << 3) | (target))
#define LINK_GEN(word) ((word) >> 3)
#define TARGET(word) ((word) & 3)
#ifdef BUG_OWN_GEN
#define OWN_GEN(gen) 0
#define IS_OWN(word, gen) true
#else
#define OWN_GEN(gen) (gen)
#define IS_OWN(word, gen) (LINK_GEN(word) == (gen))
#endif

#define BUCKET 0
byte link[SLOTS + 1]; /* the bucket, then each slot's next */
byte state[SLOTS + 1];
byte key[SLOTS + 1];

byte linked; /* what ought to be in the chain: a bit for each slot */
hidden byte seen, twice, at_slot, count;

/* Walk the chain in no time: what is in it, and a second findable entry of a key. */
inline look_at_chain()
{
	seen = 0;
	twice = 0;
	count = 0;
	at_slot = TARGET(link[BUCKET]);
	do
	:: at_slot != 0 && !(seen & (1 << at_slot)) ->
		seen = seen | (1 << at_slot);
		if
		:: IS_FINDABLE(state[at_slot]) ->
			twice = twice | (count & (1 << key[at_slot]));
			count = count | (1 << key[at_slot])
		:: else
		fi;
		at_slot = TARGET(link[at_slot])
	:: else -> break
	od
}

/* After each change of a link. */
inline check_chain()
{
	look_at_chain();
	assert(at_slot == 0); /* no cycle */
	assert(seen == linked);
	assert(twice == 0)
}

inline free_slot(slot, gen)
{
	look_at_chain();
	assert(!(seen & (1 << slot)));
	state[slot] = STATE(gen + 1, FREE)
}

active [PROCS] proctype user()
{
	byte ops = (_pid == 0 -> OPS_FIRST : OPS);
	byte wanted;	       /* the key; 0: we walk to unlink */
	byte slot, gen;	       /* the entry we make or remove */
	byte from, word, head; /* the walk: the link, what it said, the bucket's word */
	byte at, next, at_state;
	byte desired;
	byte old; /* the state a later CAS compares with */

next_op:
	atomic {
		wanted = 0; slot = 0; gen = 0; head = 0; old = 0;
		from = 0; word = 0; at = 0; next = 0; at_state = 0;
		if
		:: ops == 0 -> goto done
		:: ops > 0 -> ops--; select(wanted : 1 .. KEYS); goto walk
		:: ops > 0 -> ops--; select(slot : 1 .. SLOTS); goto remove
		fi
	}

	/* ------------------------------------------------ index.c: a walk */
walk:
	atomic {
		from = BUCKET;
		word = link[BUCKET];
		head = word
	}
walk_read:
	atomic {
		if
		:: TARGET(word) == 0 && wanted != 0 -> goto create
		:: TARGET(word) == 0 && wanted == 0 -> goto unlinked
		:: else -> at = TARGET(word)
		fi;
		next = link[at]
	}
	at_state = state[at];
	if
	:: (from == BUCKET && STATE_GEN(at_state) != LINK_GEN(word)) ||
	   !IS_OWN(next, STATE_GEN(at_state)) || STATE_OF(at_state) == FREE ||
	   STATE_OF(at_state) == CLAIMED ->
		/* contradiction(): behind a link that stays it would be damage. */
		atomic {
			assert(link[from] != word);
			goto walk
		}
#ifdef BUG_NO_RECHECK
	:: else
#else
	:: else ->
		if
		:: link[from] != word -> goto walk
		:: else
		fi
#endif
	fi;
	if
	:: next & MARK -> goto unlink_node
#ifdef BUG_NO_MARK
	:: !(next & MARK) && wanted == 0 && at == slot -> goto unlink_node
#endif
	:: else
	fi;
	if
	:: wanted != 0 && IS_FINDABLE(at_state) ->
		if
		:: key[at] == wanted -> goto attach
		:: else
		fi
	:: else
	fi;
	atomic {
		from = at;
		word = next;
		goto walk_read
	}

unlink_node:
	if
	:: from != BUCKET -> desired = LINK(LINK_GEN(word), TARGET(next))
	:: from == BUCKET && TARGET(next) == 0 -> desired = 0
	:: else -> desired = LINK(STATE_GEN(state[TARGET(next)]), TARGET(next))
	fi;
	atomic {
		if
		:: link[from] == word ->
			link[from] = desired;
			linked = linked & ~(1 << at);
			check_chain()
		:: else
		fi;
		desired = 0;
		goto walk
	}

	/* ------------------------------------------- request.c: attach or create */
attach:
	atomic {
		if
		:: STATE_GEN(state[at]) == STATE_GEN(at_state) && IS_FINDABLE(state[at]) ->
			assert(key[at] == wanted);
			assert(linked & (1 << at));
			goto next_op
		:: else -> goto walk
		fi
	}

create:
	atomic {
		from = 0; word = 0; at = 0; next = 0; at_state = 0;
		slot = 1;
		do
		:: STATE_OF(state[slot]) == FREE && STATE_GEN(state[slot]) < LIVES ->
			gen = STATE_GEN(state[slot]);
			state[slot] = STATE(gen, CLAIMED);
			break
		:: slot < SLOTS -> slot++
		:: slot == SLOTS -> goto next_op /* a full table, or a bypass */
		od
	}
	key[slot] = wanted;
	state[slot] = STATE(gen, FILLING);
	if
	:: true
	:: atomic { state[slot] = STATE(gen, FAILED | HIDDEN); goto done } /* died, and reaped */
	fi;
	link[slot] = LINK(OWN_GEN(gen), TARGET(head));
	if
	:: true
	:: atomic { state[slot] = STATE(gen, FAILED | HIDDEN); goto done }
	fi;
	atomic {
		if
#ifdef BUG_HEAD_GEN
		:: TARGET(link[BUCKET]) == TARGET(head) ->
#else
		:: link[BUCKET] == head ->
#endif
			link[BUCKET] = LINK(gen, slot);
			linked = linked | (1 << slot);
			check_chain()
		:: else -> goto give_back
		fi
	}
	/* The end of the production, or of its process. Both keep a closed door closed. */
	atomic {
		if
		:: state[slot] = STATE(gen, SEALED | (state[slot] & HIDDEN))
		:: state[slot] = STATE(gen, FAILED | HIDDEN)
		fi;
		goto next_op
	}

give_back:
	state[slot] = STATE(gen, SWEEPING | HIDDEN);
	atomic {
		free_slot(slot, gen);
		slot = 0; gen = 0; head = 0;
		goto walk
	}

	/* ------------------------------------- entry_hide(), collect(), index_unlink() */
remove:
	gen = STATE_GEN(state[slot]);
	if
	:: atomic {
		STATE_GEN(state[slot]) == gen && IS_FINDABLE(state[slot]) ->
			state[slot] = state[slot] | HIDDEN
	   }
	:: true /* only collect what others have hidden */
	fi;
	old = state[slot];
	if
	:: STATE_GEN(old) == gen && IS_GARBAGE(old)
	:: STATE_GEN(old) == gen && STATE_OF(old) == RETIRED -> goto take
	:: else -> goto next_op
	fi;
#ifndef BUG_NO_MARK
	/* mark() */
	do
	:: atomic {
		(link[slot] & MARK) ->
			/* Already so; of this life or, in vain, of another. */
			if
			:: IS_OWN(link[slot], gen) -> break
			:: else -> goto retire
			fi
	   }
	:: atomic {
		!(link[slot] & MARK) ->
			if
			:: IS_OWN(link[slot], gen) -> next = link[slot]
			:: else -> goto retire /* never linked in this life */
			fi
	   };
	   atomic {
		if
		:: link[slot] == next ->
			link[slot] = next | MARK;
			assert(!IS_FINDABLE(state[slot]));
			next = 0;
			break
		:: else -> next = 0
		fi
	   }
	od;
#endif
#ifdef BUG_MARK_ONLY
	goto retire;
#endif
	goto walk;
unlinked:
	atomic {
		from = 0; word = 0; at = 0; next = 0; at_state = 0; head = 0;
		look_at_chain();
		assert(!(seen & (1 << slot)) || STATE_GEN(state[slot]) != gen)
	}
retire:
	atomic {
		if
#ifdef BUG_RETIRE_GEN
		:: (state[slot] & 15) == (old & 15) -> gen = STATE_GEN(state[slot]);
#else
		:: state[slot] == old ->
#endif
			state[slot] = STATE(gen, RETIRED | HIDDEN)
		:: else
		fi
	}
take:
	atomic {
		if
		:: state[slot] == STATE(gen, RETIRED | HIDDEN) -> state[slot] = STATE(gen, SWEEPING | HIDDEN)
		:: else -> goto next_op
		fi
	}
	atomic {
		free_slot(slot, gen);
		goto next_op
	}
done:
	skip
}
