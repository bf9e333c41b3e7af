/* SPDX-License-Identifier: MIT */
/*
 * epoch - when may an entry be used again: pins, the door, grace.
 *
 * Models lib/shm/epoch.c, lib/index/cursor.c, find_and_attach() and create()
 * of lib/api/request.c, collect() of lib/store/sweep.c. One statement is one
 * access to shared memory; the scans of pins and cursors go cell by cell.
 *
 * Left out: the chain (one link stands for it: tests/model/index.pml), other
 * entries, the sweeper's own pin (less is pinned than in the code), death
 * (tests/model/reap.pml), the epoch's wrap. A pin that holds the epoch back
 * may be overridden at any time, STALLS times. Memory is sequentially
 * consistent, as the four Dekker pairs are seq_cst in the code.
 *
 * Properties: nobody takes an entry apart that a walker with a valid pin
 * stands on, or that a cursor is attached to; nobody even retires it in the
 * latter case; who is attached has the life of the entry he found.
 *
 * Bugs: BUG_PUBLISH_LATE (the cursor after the second look at the state),
 * BUG_HIDE_LATE (the scan of the cursors before HIDDEN), BUG_PIN_LATE (the link
 * before the pin), BUG_ONE_EPOCH (a grace of one), BUG_RETIRE_EARLY (the epoch
 * of retirement from before the unlinking).
 */
#ifndef PROCS
#define PROCS 2
#endif
#ifndef JOINS
#define JOINS 2 /* of one process */
#endif
#ifndef SWEEPS
#define SWEEPS 2 /* of one process */
#endif
#ifndef ADVANCES
#define ADVANCES 1 /* of one process, for the sake of other entries */
#endif
#ifndef LIVES
#define LIVES 3 /* of the entry */
#endif
#ifndef STALLS
#define STALLS 1
#endif

#ifdef BUG_ONE_EPOCH
#define GRACE 1
#else
#define GRACE 2
#endif

#define FREE 0
#define CLAIMED 1
#define FILLING 2
#define SEALED 3
#define RETIRED 4
#define SWEEPING 5
#define HIDDEN 8

/* {gen | epoch of retirement | hidden and state} */
#define STATE(gen, state) (((gen) << 8) | (state))
#define STATE_GEN(word) ((word) >> 8)
#define STATE_EPOCH(word) (((word) >> 4) & 15)
#define IS_FINDABLE(word) (((word) & 15) == FILLING || ((word) & 15) == SEALED)
#define IS_GARBAGE(word) (((word) & 15) == (SEALED | HIDDEN))
#define IS_RETIRED(word) (((word) & 15) == (RETIRED | HIDDEN))

byte epoch;
byte pin[PROCS];    /* epoch + 1; 0: none */
short state;
byte link;	    /* generation + 1 of the entry if it can be reached */
byte cursor[PROCS]; /* generation + 1 of what is read */

/* What nobody knows but this model. */
byte stands[PROCS];   /* generation + 1 of the entry a walker stands on */
bool overridden[PROCS];
byte attached[PROCS]; /* generation + 1 of the entry a reader relies on */
byte stalls = STALLS;
hidden byte i;

inline assert_unused(gen)
{
	for (i : 0 .. PROCS - 1) {
		assert(attached[i] != gen + 1);
		assert(stands[i] != gen + 1 || overridden[i])
	}
	i = 0
}

inline assert_unread(gen)
{
	for (i : 0 .. PROCS - 1) {
		assert(attached[i] != gen + 1)
	}
	i = 0
}

/* epoch_leave() */
inline leave()
{
	pin[_pid] = 0;
	stands[_pid] = 0;
	overridden[_pid] = false
}

active [PROCS] proctype user()
{
	byte joins = JOINS, sweeps = SWEEPS, advances = ADVANCES;
	byte seen;  /* the epoch as we saw it */
	byte name;  /* generation + 1 of what we are at */
	byte cell, tries;
	short word; /* the state as we saw it */

next_op:
	atomic {
		seen = 0; name = 0; cell = 0; tries = 0; word = 0;
		if
		:: joins == 0 && sweeps == 0 && advances == 0 -> goto done
		:: joins > 0 -> joins--; goto find
		:: sweeps > 0 -> sweeps--; goto sweep
		:: advances > 0 -> advances--; tries = 1; goto grace
		fi
	}

find:
#ifdef BUG_PIN_LATE
	atomic { name = link; stands[_pid] = name }
#endif
	/* epoch_enter() */
	seen = epoch;
	do
	:: atomic { pin[_pid] = seen + 1; overridden[_pid] = false };
	   atomic {
		if
		:: epoch == seen -> seen = 0; break
		:: epoch != seen -> seen = epoch
		fi
	   }
	od;
#ifndef BUG_PIN_LATE
	/* index_find() */
	atomic { name = link; stands[_pid] = name }
#endif
	if
	:: name == 0 -> atomic { leave(); goto create }
	:: else
	fi;
	word = state;
	if
	:: STATE_GEN(word) + 1 != name || !IS_FINDABLE(word) ->
		/* Hidden, or a walker that slept: find again would miss. */
		atomic { leave(); goto next_op }
	:: else
	fi;
	/* cursor_attach() */
#ifndef BUG_PUBLISH_LATE
	cursor[_pid] = name;
#endif
	atomic {
		if
		:: STATE_GEN(state) + 1 == name && IS_FINDABLE(state) -> attached[_pid] = name
		:: else
		fi
	}
#ifdef BUG_PUBLISH_LATE
	cursor[_pid] = name;
#endif
	if
	:: attached[_pid] == 0 -> cursor[_pid] = 0
	:: else
	fi;
	atomic { leave() };
	if
	:: attached[_pid] == 0 -> goto next_op
	:: else -> goto detach
	fi;

create:
	atomic {
		if
		:: (state & 15) == FREE && STATE_GEN(state) < LIVES ->
			name = STATE_GEN(state) + 1;
			state = STATE(name - 1, CLAIMED)
		:: else -> goto next_op
		fi
	}
	cursor[_pid] = name;
	state = STATE(name - 1, FILLING);
	atomic {
		/* index_insert(): the only entry is ours, so nothing else is linked. */
		assert(link == 0);
		link = name;
		attached[_pid] = name
	}
	state = (state & HIDDEN) | STATE(name - 1, SEALED); /* by CAS: writer_finish */

detach:
	/* Whatever he does here he does with the entry he found. */
	assert(STATE_GEN(state) + 1 == name);
	atomic {
		attached[_pid] = 0;
		cursor[_pid] = 0;
		goto next_op
	}

	/* --------------------------------------------- sweep.c: expire(), collect() */
sweep:
	name = STATE_GEN(state) + 1;
#ifndef BUG_HIDE_LATE
	atomic {
		if
		:: STATE_GEN(state) + 1 == name && IS_FINDABLE(state) -> state = state | HIDDEN
		:: else
		fi
	}
#endif
	word = state;
	if
#ifdef BUG_HIDE_LATE
	:: STATE_GEN(word) + 1 == name && (word & 7) == SEALED
#else
	:: STATE_GEN(word) + 1 == name && IS_GARBAGE(word)
#endif
	:: STATE_GEN(word) + 1 == name && IS_RETIRED(word) -> goto grace
	:: else -> goto next_op
	fi;
#ifdef BUG_RETIRE_EARLY
	seen = epoch;
#endif
#ifndef BUG_HIDE_LATE
	/* index_unlink() */
	atomic {
		if
		:: link == name -> link = 0
		:: else
		fi
	}
#endif
	/* has_readers() */
	do
	:: cell < PROCS ->
		atomic {
			if
			:: cursor[cell] == name -> goto next_op
			:: else -> cell++
			fi
		}
	:: else -> cell = 0; break
	od;
#ifdef BUG_HIDE_LATE
	atomic {
		if
		:: state == word -> state = state | HIDDEN; word = state
		:: else -> goto next_op
		fi
	}
	atomic {
		if
		:: link == name -> link = 0
		:: else
		fi
	}
#endif
	/* entry_retire() */
#ifndef BUG_RETIRE_EARLY
	seen = epoch;
#endif
	atomic {
		if
		:: state == word ->
			assert_unread(name - 1);
			state = STATE(name - 1, RETIRED | HIDDEN) | (seen << 4)
		:: else
		fi;
		seen = 0
	}
	word = state;
	if
	:: STATE_GEN(word) + 1 == name && IS_RETIRED(word)
	:: else -> goto next_op
	fi;
grace:
	/* epoch_advance(), at most twice */
	do
	:: atomic {
		seen = epoch;
		if
		:: name == 0 && tries == 2 -> goto next_op
		:: name == 0 && tries < 2 -> tries++
		:: name != 0 && seen >= STATE_EPOCH(word) + GRACE -> seen = 0; break
		:: name != 0 && seen < STATE_EPOCH(word) + GRACE ->
			if
			:: tries == 2 -> goto next_op
			:: else -> tries++
			fi
		fi
	   };
	   do
	   :: cell < PROCS ->
		atomic {
			if
			:: pin[cell] != 0 && pin[cell] != seen + 1 && stalls == 0 -> goto next_op
			:: pin[cell] != 0 && pin[cell] != seen + 1 && stalls > 0 ->
				if
				:: goto next_op /* he may still come */
				:: stalls--; cell = PROCS + 1; break /* nobody waits for ever */
				fi
			:: else -> cell++
			fi
		}
	   :: cell == PROCS -> break
	   od;
	   atomic {
		if
		:: epoch == seen ->
			if
			:: cell > PROCS ->
				for (i : 0 .. PROCS - 1) {
					overridden[i] = overridden[i] ||
							(pin[i] != 0 && pin[i] != seen + 1)
				}
				i = 0
			:: else
			fi;
			epoch = seen + 1
		:: else
		fi;
		cell = 0;
		seen = 0
	   }
	od;
	/* entry_take_for_sweep(), take_apart() */
	atomic {
		if
		:: state == word ->
			assert_unused(name - 1);
			assert(link != name);
			state = STATE(name - 1, SWEEPING | HIDDEN)
		:: else -> goto next_op
		fi
	}
	atomic {
		assert_unused(name - 1);
		state = STATE(name, FREE);
		goto next_op
	}
done:
	skip
}
