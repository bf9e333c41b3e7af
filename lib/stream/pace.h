/* SPDX-License-Identifier: MIT */
/*
 * pace - how far a writer goes, what it does when it may not, and what when nobody reads.
 */
#ifndef STREAM_PACE_H
#define STREAM_PACE_H

#include <stdbool.h>
#include <stdint.h>

struct cursor_survey;
struct scache_writer;
struct store;

/* What its caller has said of a writer; see struct scache_acquire_options. */
struct writer_terms {
	uint64_t window_bytes; /* 0: the cache's; see window_inherited() if it is another's entry */
	uint64_t stall_ns;     /* UINT64_MAX = for ever */
	uint32_t stall_policy, finish_percent;
	uint64_t finish_bytes; /* 0: no */
	uint64_t linger_ns;
};

/* A writer that waits, and those it waits for. */
struct stall {
	uint64_t sum, slowest;		 /* of their positions, as of the last survey, */
	uint64_t begun_sum, begun_slowest; /* and when it began to wait for them */
	uint32_t begun_readers;
	int64_t since_ns;		 /* when that was; 0: it does not wait */
	bool is_counted;
	bool runs_on; /* regardless of them */
};

/* pace_accept - the terms of whoever produces from now on. */
void pace_accept(struct scache_writer *writer, const struct writer_terms *terms);

/* ----------------------------------------------------------------- pace.c */

/* pace_room - bytes that may be written now; 0 = wait. */
uint64_t pace_room(struct scache_writer *writer);

/* pace_ring_room - how many bytes the ring takes before it loses one that a reader lacks. */
uint64_t pace_ring_room(const struct scache_writer *writer);

/* pace_survey - ask all cursors but of those that were given up. */
void pace_survey(struct scache_writer *writer, struct cursor_survey *ret_survey);

/* pace_close_door - nobody new, for byte 0 is about to go; and who slipped in. */
void pace_close_door(struct scache_writer *writer, struct cursor_survey *ret_survey);

/*
 * pace_wait - sleep until a reader has moved (unless the writer is stranded) or left, or a
 * tick, at which the dead among them are reaped. 0: look again; -ETIMEDOUT; -ECANCELED;
 * -EDEADLK (waiting since @since_ns for a reader that only this very thread could move).
 */
int pace_wait(struct scache_writer *writer, int64_t since_ns, int64_t deadline_ns);

/* pace_fail - more is not borne: @what and how long it was, to all who ask. -ECANCELED. */
int pace_fail(struct scache_writer *writer, const char *what, uint64_t ns);

/* pace_look_after_readers - reap dead ones, and have the writer see who remains. */
void pace_look_after_readers(struct scache_writer *writer);

/* pace_is_abandoned - has everybody left? If so the door is closed. */
bool pace_is_abandoned(struct scache_writer *writer);

/* ---------------------------------------------------------------- stall.c */

/*
 * stall_look - there is no room. 0: wait for it; 1: look again, it goes on regardless;
 * -ECANCELED: production has failed.
 */
int stall_look(struct scache_writer *writer);

/* stall_room - what pace_room() says of one that waits, where the readers leave it @bytes. */
uint64_t stall_room(struct scache_writer *writer, uint64_t bytes);

/* --------------------------------------------------------------- linger.c */

/* linger_is_borne - all have left: does it go on all the same? The door stays open then. */
bool linger_is_borne(struct scache_writer *writer);

/* --------------------------------------------------------------- window.c */

/*
 * window_inherited - of another's entry, for who says nothing of the window: what there is, and
 * no less than the cache's if it may have been made smaller. Nobody knows what it was.
 */
uint64_t window_inherited(const struct scache_writer *writer);

/*
 * window_fit - the window that was asked for, or one that fits what may yet be stored if that
 * @is_short. In whatever thread stores.
 */
void window_fit(struct scache_writer *writer, bool is_short);

/* -------------------------------------------------------------- overdue.c */

/* overdue_look - 0; -ECANCELED: it took longer than the cache allows, and has failed. */
int overdue_look(struct scache_writer *writer);

/* overdue_note - have a sweep look when it will be. */
void overdue_note(const struct scache_writer *writer);

#endif
