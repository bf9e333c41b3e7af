/* SPDX-License-Identifier: MIT */
/*
 * request - one look-up: what scache_acquire(), scache_lookup() and
 * scache_fetch() have in common.
 */
#ifndef API_REQUEST_H
#define API_REQUEST_H

#include "api/cache.h"
#include "index/index.h"
#include "stream/pace.h"

struct request {
	struct scache *cache;
	struct seat *seat; /* held from request_serve() to request_done(); or NULL */
	struct store *store; /* of the seat */
	struct index_key key;
	bool create, refresh, want_reader, run_to_end, pace_slowest, pass_through, resumable;
	bool finished_only; /* to join one that grows, and to leave it, could be its end */
	uint32_t compression, level; /* 0: the opener's or the cache's */
	bool has_digest;
	unsigned char digest[16];
	uint64_t max_age_ns;   /* 0: the cache's */
	uint64_t window_bytes; /* 0: the cache's */
	uint64_t declared_bytes; /* 0: not known */
	uint64_t stall_ns;     /* 0: for ever */
	struct writer_terms terms; /* of the writer, if there will be one */
	uint64_t started_ns;
	uint32_t cell; /* a cursor, taken and not attached */
	/* What came of it. */
	enum scache_outcome outcome;
	struct scache_reader *reader;
	struct scache_writer *writer;
};

/*
 * request_start - the arguments, checked. @rq says already what is wanted
 * (create, want_reader); the key stays the caller's. 0 or -EINVAL.
 */
int request_start(struct request *rq, struct scache *cache, const void *key, size_t key_bytes,
		  const struct scache_acquire_options *options);

/*
 * request_serve - 0 with what was wanted in reader and writer; -ENOENT; -EAGAIN: it grows,
 * and is wanted finished only; SCACHE_BYPASS. Counts hits and joins, the caller the rest (request_done()).
 */
int request_serve(struct request *rq);

/*
 * request_enter - the seat, if it is not held yet. 0, or -errno if there is
 * none to be had: no cache can help then.
 */
int request_enter(struct request *rq);

/* request_done - count what came of it, tell the trace, leave the seat; returns @ret. */
int request_done(struct request *rq, int ret);

/* request_setting - of the cache, or what a new one would have. */
uint64_t request_setting(const struct request *rq, enum shm_setting setting);

/* request_terms - what @options say of the writer of whoever has given them. */
void request_terms(const struct scache_acquire_options *options, struct writer_terms *ret_terms);

/* request_draft - what an entry made for it looks like. */
void request_draft(const struct request *rq, struct entry_draft *ret_draft);

/* ------------------------------------------------ between request.c and create.c */

enum round { ROUND_DONE, ROUND_AGAIN, ROUND_MISS, ROUND_GROWS, ROUND_BYPASS };

/* request_open_reader - its cursor is attached to @name in @state: make it a reader. */
enum round request_open_reader(struct request *rq, struct entry_name name, uint64_t state);

/*
 * create_entry - after a miss, whose bucket had @head. The creator's own cursor is
 * published before the entry can be found, so that its reader is there before anybody
 * can close the door.
 */
enum round create_entry(struct request *rq, uint64_t head);

/* create_by_take_over - attached to an orphan: we are its producer now, or look again. */
enum round create_by_take_over(struct request *rq, struct entry_name name, uint64_t state);

#endif
