/* SPDX-License-Identifier: MIT */
/*
 * request - one look-up, from the key to the streams.
 *
 * The loop: find the key's entry and attach, or claim a slot, fill it in and
 * link it. Every lost race sends us round again; a cache that cannot help is
 * a bypass and never the caller's failure.
 */
#include <errno.h>

#include "api/request.h"
#include "base/check.h"
#include "base/clock.h"
#include "base/thread.h"
#include "index/index.h"
#include "index/repair.h"
#include "shm/epoch.h"
#include "store/adopt.h"
#include "store/evict.h"
#include "store/leave.h"
#include "store/sweep.h"
#include "stream/stream.h"

#define ROUNDS_MAX 1000 /* lost races in one call before we give up */

#define ACQUIRE_FLAGS \
	(SCACHE_RUN_TO_END | SCACHE_REFRESH | SCACHE_PASS_THROUGH | SCACHE_PACE_SLOWEST | \
	 SCACHE_RESUMABLE | SCACHE_DETERMINISTIC)

/* --------------------------------------------------------------- attaching */

/* May this finished entry serve this caller? */
static bool is_fresh(const struct request *rq, struct entry_name name)
{
	const struct segment *segment = rq->store->segment;
	uint64_t ended_ns = shm_load_relaxed(&segment->entries[name.idx].ended_ns);
	uint64_t now_ns = rq->started_ns; /* of a hit, asking the clock again is a tenth */

	if (shm_load_relaxed(&segment->expires[name.idx]) <= now_ns ||
	    use_is_idle(segment, name, now_ns))
		return false;
	/* What was finished while we came is fresh enough for anybody. */
	if ((int64_t)(ended_ns - rq->started_ns) >= 0)
		return true;
	if (rq->refresh || rq->max_age_ns == SCACHE_ZERO)
		return false;
	return rq->max_age_ns == 0 || clock_age_ns(ended_ns, now_ns) < rq->max_age_ns;
}

static void note_attach(struct request *rq, struct entry_name name, uint64_t state)
{
	rq->outcome = state_of(state) == ENTRY_SEALED ? SCACHE_HIT : SCACHE_JOINED;
	if (rq->outcome == SCACHE_HIT)
		use_note(rq->store->segment, name, rq->started_ns);
	if (rq->want_reader)
		peer_count(rq->store->peer, rq->outcome == SCACHE_HIT ? STAT_HITS : STAT_JOINS, 1);
}

/* A finished entry that does not serve us: out of the way of a new one. */
static void drop_stale(const struct request *rq, struct entry_name name)
{
	UNCANCELLED;

	if (!rq->create || !entry_hide(rq->store->segment, name, ENTRY_SEALED))
		return;
	peer_count(rq->store->peer, STAT_EXPIRED, 1);
	sweep_entry(rq->store, name);
}

/* The file behind an entry is gone or damaged: so is the entry, whatever state it is in. */
static void drop_broken(const struct request *rq, struct entry_name name, uint32_t cell)
{
	UNCANCELLED;
	struct store *store = rq->store;

	if (entry_hide_any(store->segment, name))
		peer_count(store->peer, STAT_DAMAGED, 1);
	cursor_detach(store->peer, cell, name);
	sweep_entry(store, name);
}

/* Attached to what does not serve us after all. */
static void detach(const struct request *rq, struct entry_name name)
{
	cursor_detach(rq->store->peer, rq->cell, name);
	leave_entry(rq->store, name);
}

/* The cursor is attached: make it a reader. */
enum round request_open_reader(struct request *rq, struct entry_name name, uint64_t state)
{
	struct store *store = rq->store;
	int ret = reader_open(store, name, rq->cell, state, &rq->reader);

	if (ret == -ENOENT || ret == -EBADMSG) {
		drop_broken(rq, name, rq->cell);
		return ROUND_AGAIN;
	}
	if (ret < 0) {
		detach(rq, name);
		return ROUND_BYPASS;
	}
	rq->reader->stall_ns = rq->stall_ns;
	rq->reader->open_streams = job_streams(rq->cache);
	atomic_fetch_add(rq->reader->open_streams, 1);
	store_get(store);
	rq->cell = CURSOR_NONE;
	return ROUND_DONE;
}

/* Somebody is between linking it and saying that it is finished. */
static void pause_for_adoption(void)
{
	UNCANCELLED;
	const struct timespec pause = { .tv_nsec = 50000 };

	nanosleep(&pause, NULL);
}

/* Find the entry and attach to it. On a miss *ret_head is for index_insert(). */
static enum round find_and_attach(struct request *rq, uint64_t *ret_head)
{
	struct store *store = rq->store;
	unsigned pin = epoch_enter(store->peer);
	struct entry_name name;
	uint64_t state;
	bool attached = false, grows;
	int found = index_find(store->peer, &rq->key, &name, &state, ret_head);

	grows = found > 0 && rq->finished_only && state_is_growing(state);
	if (found > 0 && rq->want_reader && !grows)
		attached = cursor_attach(store->segment, rq->cell, name, &state);
	epoch_leave(store->peer, pin);
	if (found < 0) {
		segment_retire(store->segment);
		return ROUND_BYPASS;
	}
	if (found == 0)
		return ROUND_MISS;
	if (rq->want_reader && !attached && !grows)
		return ROUND_AGAIN;
	if (state_of(state) == ENTRY_SEALED && !is_fresh(rq, name)) {
		if (attached)
			detach(rq, name);
		drop_stale(rq, name);
		return rq->create ? ROUND_AGAIN : ROUND_MISS;
	}
	/* A dead producer's entry, or one that takes too long, serves nobody who has not begun. */
	if (state_is_growing(state) &&
	    (repair_producer(store->peer, name) || state_is_adopting(state) ||
	     sweep_hide_overdue(store, name))) {
		if (attached)
			detach(rq, name);
		if (state_is_adopting(state))
			pause_for_adoption();
		return ROUND_AGAIN;
	}
	if (grows)
		return ROUND_GROWS;
	if (rq->create && rq->resumable) {
		state = shm_load(entry_state_word(store->segment, name.idx));
		if (state_gen(state) == name.gen && state_of(state) == ENTRY_ORPHAN)
			return create_by_take_over(rq, name, state);
	}
	note_attach(rq, name, state);
	return rq->want_reader ? request_open_reader(rq, name, state) : ROUND_DONE;
}

/* ------------------------------------------------------------------- request */

/*
 * A former segment may have it. Not for who wants a fresh one: then nobody is to find it.
 * 1: there is an entry now; 0: nothing; -errno: it is there yet and should not be.
 */
static int take_former(const struct request *rq)
{
	int ret;

	if (!rq->refresh && rq->max_age_ns != SCACHE_ZERO)
		return adopt_key(rq->store, &rq->key);
	ret = rq->create ? adopt_forget(rq->store, &rq->key) : 0;
	return ret < 0 ? ret : 0;
}

static enum round run(struct request *rq)
{
	enum round round = ROUND_AGAIN;
	bool has_looked = false, may_help;
	uint64_t head;

	for (int i = 0; i < ROUNDS_MAX && round == ROUND_AGAIN; i++) {
		/* Before the search: who takes the last of the files makes it an entry first. */
		may_help = adopt_may_help(rq->store, rq->key.hash);
		round = find_and_attach(rq, &head);
		if (round != ROUND_MISS)
			continue;
		if (unlikely(may_help) && !has_looked) {
			int ret = take_former(rq);

			/* Once more if there is none: somebody may have made it an entry since. */
			has_looked = ret == 0;
			round = ret < 0 ? ROUND_BYPASS : ROUND_AGAIN;
			continue;
		}
		if (!rq->create)
			break;
		round = create_entry(rq, head);
	}
	return round;
}

/* All cells are in use: perhaps by the dead. */
static int take_cell(struct request *rq)
{
	struct peer *peer = rq->store->peer;
	int ret = cursor_take(rq->store->cursors, peer, &rq->cell);

	if (ret == -ENOSPC && repair_reap_all(peer) > 0)
		ret = cursor_take(rq->store->cursors, peer, &rq->cell);
	return ret;
}

void request_terms(const struct scache_acquire_options *options, struct writer_terms *ret_terms)
{
	uint64_t stall_ns = options->writer_stall_ns;

	*ret_terms = (struct writer_terms){
		.window_bytes = options->window_bytes,
		.stall_ns = stall_ns == 0 ? UINT64_MAX : stall_ns == SCACHE_ZERO ? 0 : stall_ns,
		.stall_policy = options->stall_policy,
		.finish_percent = options->finish_percent,
		.finish_bytes = options->finish_bytes,
		.linger_ns = options->linger_ns == SCACHE_ZERO ? 0 : options->linger_ns,
	};
}

int request_start(struct request *rq, struct scache *cache, const void *key, size_t key_bytes,
		  const struct scache_acquire_options *options)
{
	struct scache_acquire_options o = { .size = sizeof(o) };

	SC_ASSERT(cache->magic == MAGIC_CACHE);
	if (key == NULL || key_bytes < 1 || key_bytes > SCACHE_KEY_BYTES_MAX)
		return -EINVAL;
	if (options != NULL) {
		if (options->size < sizeof(o.size) + sizeof(o.flags) || options->size > sizeof(o))
			return -EINVAL;
		memcpy(&o, options, options->size);
	}
	/* Nobody can have seen what a dead producer has published. */
	if (o.digest_type > SCACHE_DIGEST_XXH128 ||
	    (o.digest_type != 0 && o.flags & SCACHE_RESUMABLE))
		return -EINVAL;
	if (o.stall_policy > SCACHE_STALL_RUN || o.finish_percent > 100)
		return -EINVAL;
	if (o.flags & ~ACQUIRE_FLAGS || o.reserved != 0 || o.compression > SCACHE_AUTO ||
	    o.level > FRAME_LEVEL_MAX ||
	    (o.declared_bytes > INT64_MAX && o.declared_bytes < SCACHE_ZERO))
		return -EINVAL;
	rq->cache = cache;
	rq->key = (struct index_key){ .key = key, .key_bytes = (uint32_t)key_bytes };
	rq->key.hash = hash_key(key, key_bytes);
	rq->refresh = o.flags & SCACHE_REFRESH;
	rq->run_to_end = o.flags & SCACHE_RUN_TO_END;
	rq->pace_slowest = o.flags & SCACHE_PACE_SLOWEST;
	rq->resumable = o.flags & SCACHE_RESUMABLE;
	rq->pass_through = (o.flags | cache->flags) & SCACHE_PASS_THROUGH;
	rq->compression = o.compression;
	rq->level = o.level;
	rq->has_digest = o.digest_type == SCACHE_DIGEST_XXH128;
	memcpy(rq->digest, o.digest, sizeof(rq->digest));
	rq->max_age_ns = o.max_age_ns;
	rq->window_bytes = o.window_bytes;
	rq->declared_bytes = o.declared_bytes;
	rq->stall_ns = o.stall_timeout_ns;
	request_terms(&o, &rq->terms);
	rq->started_ns = clock_shared_ns();
	rq->cell = CURSOR_NONE;
	return 0;
}

int request_enter(struct request *rq)
{
	int ret;

	if (rq->seat != NULL)
		return 0;
	ret = seat_enter(rq->cache, &rq->seat);
	if (ret == 0)
		rq->store = &rq->seat->store;
	return ret;
}

static void leave_seat(struct request *rq)
{
	if (rq->seat != NULL)
		seat_leave(rq->seat);
	rq->seat = NULL;
	rq->store = NULL;
}

static enum round serve_once(struct request *rq)
{
	enum round round = ROUND_BYPASS;

	if (request_enter(rq) < 0 || (rq->want_reader && take_cell(rq) < 0))
		return ROUND_BYPASS;
	round = run(rq);
	if (rq->cell != CURSOR_NONE)
		cursor_give_back(rq->store->cursors, rq->cell);
	rq->cell = CURSOR_NONE;
	return round;
}

int request_serve(struct request *rq)
{
	enum round round = serve_once(rq);

	/* Found to be damaged beyond repair: then in a new segment. */
	if (round == ROUND_BYPASS && rq->seat != NULL && segment_is_retired(rq->store->segment)) {
		leave_seat(rq);
		round = serve_once(rq);
	}
	if (rq->writer != NULL)
		rq->outcome = SCACHE_CREATED;
	else if (round == ROUND_MISS || round == ROUND_GROWS)
		rq->outcome = SCACHE_MISSED;
	else if (round != ROUND_DONE)
		rq->outcome = SCACHE_BYPASSED;
	if (round == ROUND_DONE)
		return 0;
	return round == ROUND_MISS ? -ENOENT : round == ROUND_GROWS ? -EAGAIN : SCACHE_BYPASS;
}

static void tell(const struct request *rq, int ret)
{
	UNCANCELLED;
	struct scache_trace trace = {
		.size = sizeof(trace),
		.key = rq->key.key,
		.key_bytes = rq->key.key_bytes,
		.outcome = rq->outcome,
		.error = ret < 0 ? ret : 0,
		.took_ns = clock_shared_ns() - rq->started_ns,
	};

	rq->cache->trace(rq->cache->trace_arg, &trace);
}

int request_done(struct request *rq, int ret)
{
	if (rq->seat != NULL && (rq->outcome == SCACHE_CREATED || rq->outcome == SCACHE_MISSED))
		peer_count(rq->store->peer, STAT_MISSES, 1);
	if (rq->seat != NULL && rq->outcome == SCACHE_BYPASSED)
		peer_count(rq->store->peer, STAT_BYPASSES, 1);
	leave_seat(rq);
	if (unlikely(rq->cache->trace != NULL))
		tell(rq, ret);
	return ret;
}
