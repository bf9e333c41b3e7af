/* SPDX-License-Identifier: MIT */
/*
 * reap - seats, their lock bytes, and what is done after a death.
 *
 * Models lib/shm/peer.c, lib/index/repair.c, cursor_take() and cursor_reap(),
 * and the states of lib/index/entry.c that have an owner. One statement is
 * one access to shared memory or one call of the kernel. Any process, also a
 * reaper, may die before any statement; the kernel lets its bytes go.
 *
 * Left out: the chain and the grace of an entry (see index.pml, epoch.pml),
 * rings, the gate (newcomers race freely here), the stamp that saves queries,
 * wake-ups; one pin a seat, one block with one cell. Memory is sequentially
 * consistent, as the words in question are seq_cst in the code.
 *
 * Properties: nothing of the living is reaped or freed by others; each thing
 * is freed once; a new seat is clean; plain stores hit the owner's own life;
 * when all is quiet and every seat was looked at, nothing of the dead is left.
 *
 * Bugs: BUG_NO_BYTE (the reaper only asks for the byte), BUG_DROP_EARLY (drops
 * it before the seat is FREE), BUG_FREE_FIRST (FREE, then the cleaning),
 * BUG_ONE_LOOK (a newcomer trusts the state from before he had the byte),
 * BUG_OWNER_FIRST (the block's owner goes before its cells), BUG_CLOSE_FIRST
 * (who leaves drops his byte first), BUG_PLAIN_FAIL (FAILED without a CAS).
 */
#ifndef PROCS
#define PROCS 3
#endif
#ifndef SEATS
#define SEATS 2 /* at most 3 */
#endif
#ifndef OPS
#define OPS 1 /* of one process in one life */
#endif
#ifndef DEATHS
#define DEATHS 2
#endif

/* What the processes use: a run of one kind can be larger. */
#define PINS 1
#define BLOCKS 2
#define ENTRIES 4
#ifndef KINDS
#define KINDS (PINS | BLOCKS | ENTRIES)
#endif

/* The state of a seat: {gen | state} */
#define SEAT_FREE 0
#define ACTIVE 1
#define REAPING 2
#define SEAT(gen, state) (((gen) << 2) | (state))
#define SEAT_GEN(word) ((word) >> 2)
#define SEAT_STATE(word) ((word) & 3)

/* The state of the entry: {gen | hidden | state | owner} */
#define FREE 0
#define CLAIMED 1
#define FILLING 2
#define SEALED 3
#define FAILED 4
#define RETIRED 5
#define SWEEPING 6
#define HIDDEN 32
#define STATE(gen, state, owner) (((gen) << 6) | ((state) << 2) | (owner))
#define STATE_GEN(word) ((word) >> 6)
#define STATE_OF(word) (((word) >> 2) & 7)
#define OWNER(word) ((word) & 3)
#define HAS_OWNER(word) \
	(STATE_OF(word) == CLAIMED || STATE_OF(word) == FILLING || STATE_OF(word) == SWEEPING)
#define NO_SEAT 3

byte lock[SEATS]; /* 1 + the process that holds the byte */
byte seat[SEATS];
byte pin[SEATS];
byte block; /* {generation of the seat | seat + 1}; 0: nobody's */
byte cursor;
short entry;

/* What nobody knows but this model: 1 + the process whose it is. */
#define DEAD 7
byte seat_of[SEATS];
byte pin_of[SEATS];
byte block_of;
byte entry_of;

bool running[PROCS];
bool killed[PROCS];
byte deaths = DEATHS;
byte quiet; /* how many have ended */
hidden byte i;

#define ME (1 + _pid)
#define MY_WORD(state) STATE(gen, state, my)

inline assert_clean(s)
{
	assert(pin[s] == 0);
	assert(block == 0 || (block & 3) != s + 1);
	assert(!HAS_OWNER(entry) || OWNER(entry) != s)
}

/* fail_fill(), entry_retire() by a reaper. */
inline change_entry(from, to)
{
	if
#ifdef BUG_PLAIN_FAIL
	:: true ->
#else
	:: entry == from ->
#endif
		assert(entry_of == DEAD);
		entry_of = 0;
		entry = to
	:: else
	fi
}

inline kill(p)
{
	running[p] = false;
	killed[p] = true;
	for (i : 0 .. SEATS - 1) {
		lock[i] = (lock[i] == p + 1 -> 0 : lock[i]);
		seat_of[i] = (seat_of[i] == p + 1 -> DEAD : seat_of[i]);
		pin_of[i] = (pin_of[i] == p + 1 -> DEAD : pin_of[i])
	}
	i = 0;
	block_of = (block_of == p + 1 -> DEAD : block_of);
	entry_of = (entry_of == p + 1 -> DEAD : entry_of)
}

active [PROCS] proctype user()
{
	byte ops, s;
	byte my;	   /* our seat */
	byte gen;	   /* of our entry */
	byte seen;	   /* the seat or the block as we saw it */
	short word, target; /* the entry as we saw it; what repair_producer() saw */
	bool closing;

again:
	{
	atomic {
		ops = OPS;
		my = NO_SEAT;
		running[_pid] = true;
		/* -------------------------------------- peer.c: claim_slot() */
		select(s : 0 .. SEATS - 1);
		if
		:: SEAT_STATE(seat[s]) == SEAT_FREE -> seen = seat[s]
		:: else -> goto reap /* in use: see whether it is a dead one's, and go */
		fi
	}
	atomic {
		if
		:: lock[s] == 0 -> lock[s] = ME
		:: else -> goto done
		fi
	}
#ifndef BUG_ONE_LOOK
	atomic {
		if
		:: SEAT_STATE(seat[s]) != SEAT_FREE -> seen = 0; lock[s] = 0; goto done
		:: else -> seen = seat[s]
		fi
	}
#endif
	atomic {
		assert_clean(s);
		seat[s] = SEAT(SEAT_GEN(seen), ACTIVE);
		seat_of[s] = ME;
		my = s;
		seen = 0
	}

next_op:
	atomic {
		s = 0; gen = 0; seen = 0; word = 0; target = 0;
		if
		:: my == NO_SEAT -> goto done
		:: my != NO_SEAT -> goto detach
#if KINDS & PINS
		:: my != NO_SEAT && ops > 0 -> ops--; goto walk
#endif
#if KINDS & BLOCKS
		:: my != NO_SEAT && ops > 0 -> ops--; goto read
#endif
#if KINDS & ENTRIES
		:: my != NO_SEAT && ops > 0 -> ops--; goto create
		:: my != NO_SEAT && ops > 0 -> ops--; goto sweep
		:: my != NO_SEAT && ops > 0 -> ops--; goto producer
#endif
		:: my != NO_SEAT && ops > 0 -> ops--; select(s : 0 .. SEATS - 1); goto reap
		fi
	}

#if KINDS & PINS
walk:
	atomic { pin[my] = 1; pin_of[my] = ME };
	atomic {
		assert(pin[my] == 1);
		pin[my] = 0;
		pin_of[my] = 0;
		goto next_op
	}
#endif

#if KINDS & BLOCKS
read:
	atomic {
		if
		:: block == 0 ->
			assert(cursor == 0); /* a block without an owner has only empty cells */
			block = (SEAT_GEN(seat[my]) << 2) | (my + 1);
			block_of = ME
		:: else -> goto next_op
		fi
	}
	cursor = 1;
	atomic {
		assert(cursor == 1 && block_of == ME);
		cursor = 0
	}
	atomic {
		assert(cursor == 0 && block_of == ME && (block & 3) == my + 1);
		block = 0;
		block_of = 0;
		goto next_op
	}
#endif

#if KINDS & ENTRIES
create:
	atomic {
		if
		:: STATE_OF(entry) == FREE ->
			assert(entry_of == 0);
			gen = STATE_GEN(entry);
			entry = MY_WORD(CLAIMED);
			entry_of = ME
		:: else -> goto next_op
		fi
	}
	atomic {
		assert(entry == MY_WORD(CLAIMED) && entry_of == ME);
		entry = MY_WORD(FILLING)
	}
	atomic {
		assert(entry == MY_WORD(FILLING));
		if
		:: entry = MY_WORD(SEALED); entry_of = 0; goto next_op
		:: entry = MY_WORD(SWEEPING) | HIDDEN; goto take_apart /* lost the race for the key */
		fi
	}

	/* -------------------- sweep.c: collect(), with the hiding, without grace */
sweep:
	word = entry;
	if
	:: STATE_OF(word) == SEALED || STATE_OF(word) == FAILED
	:: STATE_OF(word) == RETIRED -> goto take
	:: else -> goto next_op
	fi;
	atomic {
		if
		:: entry == word ->
			assert(entry_of == 0);
			word = STATE(STATE_GEN(word), RETIRED, 0) | HIDDEN;
			entry = word
		:: else -> goto next_op
		fi
	}
take:
	atomic {
		gen = STATE_GEN(word);
		if
		:: entry == word ->
			assert(entry_of == 0);
			entry = MY_WORD(SWEEPING) | HIDDEN;
			entry_of = ME
		:: else -> goto next_op
		fi
	}
take_apart:
	atomic {
		assert(entry == (MY_WORD(SWEEPING) | HIDDEN) && entry_of == ME);
		entry = STATE(gen + 1, FREE, 0);
		entry_of = 0;
		goto next_op
	}

	/* --------------------------------------------------- repair_producer() */
producer:
	atomic {
		target = entry;
		if
		:: STATE_OF(target) != FILLING || OWNER(target) == my -> goto next_op
		:: else -> s = OWNER(target)
		fi
	}
	if
	:: SEAT_STATE(seat[s]) != ACTIVE
	:: else ->
		if
		:: lock[s] != 0 -> goto next_op
		:: else
		fi
	fi;
	goto reap;
#endif

reaped:
	atomic {
		if
		:: closing -> goto close
		:: target != 0 && SEAT_STATE(seat[s]) == REAPING
		:: else -> goto next_op
		fi
	}
	atomic {
		change_entry(target, STATE(STATE_GEN(target), FAILED, OWNER(target)) | HIDDEN);
		goto next_op
	}

	/* ------------------------------------------------------- repair_reap() */
reap:
	atomic {
		if
		:: s == my || lock[s] != 0 -> goto reaped
		:: else
		fi;
#ifndef BUG_NO_BYTE
		lock[s] = ME
#endif
	}
	atomic {
		seen = seat[s];
		if
#ifdef BUG_NO_BYTE
		:: SEAT_STATE(seen) == SEAT_FREE -> goto reaped
#else
		:: SEAT_STATE(seen) == SEAT_FREE -> lock[s] = 0; seen = 0; goto reaped
#endif
		:: else
		fi
	}
	atomic {
#ifdef BUG_FREE_FIRST
		seat[s] = SEAT(SEAT_GEN(seen) + 1, SEAT_FREE);
#else
		assert(seat_of[s] == DEAD);
		seat[s] = SEAT(SEAT_GEN(seen), REAPING)
#endif
	}
#if KINDS & PINS
	atomic {
		assert(pin_of[s] == 0 || pin_of[s] == DEAD);
		pin[s] = 0;
		pin_of[s] = 0
	}
#endif
#if KINDS & BLOCKS
	/* cursor_reap() */
	if
	:: (block & 3) != s + 1
	:: else ->
#ifdef BUG_OWNER_FIRST
		atomic { block = 0; block_of = 0 };
#endif
		if
		:: cursor == 0
		:: else ->
			atomic {
				assert(block_of == DEAD);
				cursor = 0
			}
		fi;
#ifndef BUG_OWNER_FIRST
		atomic {
			assert((block & 3) == s + 1 && block_of == DEAD);
			block = 0;
			block_of = 0
		}
#endif
	fi;
#endif
#if KINDS & ENTRIES
	/* reap_entries() */
	do
	:: atomic {
		word = entry;
		if
		:: HAS_OWNER(word) && OWNER(word) == s
		:: else -> word = 0; break
		fi
	   };
	   atomic {
		if
		:: STATE_OF(word) == FILLING ->
			change_entry(word, STATE(STATE_GEN(word), FAILED, s) | HIDDEN)
		:: else ->
			change_entry(word, STATE(STATE_GEN(word), RETIRED, 0) | HIDDEN)
		fi
	   }
	od;
#endif
#ifdef BUG_DROP_EARLY
	lock[s] = 0;
#endif
#ifndef BUG_FREE_FIRST
	atomic {
		assert(seat[s] == SEAT(SEAT_GEN(seen), REAPING) && seat_of[s] == DEAD);
		assert_clean(s);
		seat[s] = SEAT(SEAT_GEN(seen) + 1, SEAT_FREE);
		seat_of[s] = 0
	}
#endif
	atomic {
#if !defined(BUG_DROP_EARLY) && !defined(BUG_NO_BYTE)
		assert(lock[s] == ME);
		lock[s] = 0;
#endif
		seen = 0;
		goto reaped
	}

detach:
#ifdef BUG_CLOSE_FIRST
	lock[my] = 0;
#endif
	atomic {
		assert(SEAT_STATE(seat[my]) == ACTIVE && seat_of[my] == ME);
		assert_clean(my);
		seat[my] = SEAT(SEAT_GEN(seat[my]) + 1, SEAT_FREE);
		seat_of[my] = 0
	}
#ifndef BUG_CLOSE_FIRST
	lock[my] = 0;
#endif

done:
	atomic {
		my = NO_SEAT; s = 0; gen = 0; seen = 0; word = 0; target = 0; ops = 0;
		running[_pid] = false;
		/* The first one stays, and looks at every seat when all is quiet. */
		if
		:: _pid != 0 -> goto out
		:: else
		fi
	}
	atomic {
		closing = true;
		s = SEATS
	}
close:
	atomic {
		deaths == 0 && quiet == PROCS - 1;
		if
		:: s > 0 -> s--; goto reap
		:: else
		fi;
		for (i : 0 .. SEATS - 1) {
			assert(SEAT_STATE(seat[i]) == SEAT_FREE && lock[i] == 0);
			assert_clean(i)
		}
		i = 0;
		assert(block == 0 && cursor == 0);
		assert(!HAS_OWNER(entry))
	}
	goto out
	} unless {
		atomic {
			killed[_pid];
			killed[_pid] = false;
			s = 0; gen = 0; seen = 0; word = 0; target = 0;
			goto again
		}
	};
out:
	atomic { quiet++ }
}

active proctype kernel()
{
	byte victim;

	do
	:: atomic {
		deaths > 0 -> deaths--;
		select(victim : 0 .. PROCS - 1);
		if
		:: running[victim] -> kill(victim)
		:: else
		fi;
		victim = 0
	   }
	:: deaths == 0 -> break
	od
}
