/* SPDX-License-Identifier: MIT */
/*
 * request - one look-up, from the key to the streams.
 *
 * The loop: find the key's entry and attach, or claim a slot, fill it in and
 * link it. Every lost race sends us round again; a cache that cannot help is
 * a bypass and never the caller's failure.
 */
#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

#include "api/request.h"
#include "base/check.h"
#include "base/clock.h"
#include "base/step.h"
#include "base/thread.h"
#include "index/index.h"
#include "index/repair.h"
#include "index/ring.h"
#include "shm/epoch.h"
#include "store/adopt.h"
#include "store/sweep.h"
#include "stream/stream.h"

#define ROUNDS_MAX 1000 /* lost races in one call before we give up */

#define ACQUIRE_FLAGS \
	(SCACHE_RUN_TO_END | SCACHE_REFRESH | SCACHE_PASS_THROUGH | SCACHE_PACE_SLOWEST | \
	 SCACHE_RESUMABLE | SCACHE_DETERMINISTIC)

enum round { ROUND_DONE, ROUND_AGAIN, ROUND_MISS, ROUND_BYPASS };

/* --------------------------------------------------------------- attaching */

/* May this finished entry serve this caller? */
static bool is_fresh(const struct request *rq, struct entry_name name)
{
	const struct segment *segment = rq->store->segment;
	uint64_t ended_ns = shm_load_relaxed(&segment->entries[name.idx].ended_ns);
	uint64_t now_ns = rq->started_ns; /* of a hit, asking the clock again is a tenth */

	if (shm_load_relaxed(&segment->expires[name.idx]) <= now_ns)
		return false;
	/* What was finished while we came is fresh enough for anybody. */
	if ((int64_t)(ended_ns - rq->started_ns) >= 0)
		return true;
	if (rq->refresh || rq->max_age_ns == SCACHE_ZERO)
		return false;
	return rq->max_age_ns == 0 || clock_age_ns(ended_ns, now_ns) < rq->max_age_ns;
}

static void note_attach(struct request *rq, uint64_t state)
{
	rq->outcome = state_of(state) == ENTRY_SEALED ? SCACHE_HIT : SCACHE_JOINED;
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

/* The cursor is attached: make it a reader. */
static enum round open_attached(struct request *rq, struct entry_name name, uint64_t state)
{
	struct store *store = rq->store;
	int ret = reader_open(store, name, rq->cell, state, &rq->reader);

	if (ret == -ENOENT || ret == -EBADMSG) {
		drop_broken(rq, name, rq->cell);
		return ROUND_AGAIN;
	}
	if (ret < 0) {
		cursor_detach(store->peer, rq->cell, name);
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
	const struct timespec pause = { .tv_nsec = 50000 };

	nanosleep(&pause, NULL);
}

static enum round take_over(struct request *rq, struct entry_name name, uint64_t state);

/* Find the entry and attach to it. On a miss *ret_head is for index_insert(). */
static enum round find_and_attach(struct request *rq, uint64_t *ret_head)
{
	struct store *store = rq->store;
	unsigned pin = epoch_enter(store->peer);
	struct entry_name name;
	uint64_t state;
	bool attached = false;
	int found = index_find(store->peer, &rq->key, &name, &state, ret_head);

	if (found > 0 && rq->want_reader)
		attached = cursor_attach(store->segment, rq->cell, name, &state);
	epoch_leave(store->peer, pin);
	if (found < 0) {
		segment_retire(store->segment);
		return ROUND_BYPASS;
	}
	if (found == 0)
		return ROUND_MISS;
	if (rq->want_reader && !attached)
		return ROUND_AGAIN;
	if (state_of(state) == ENTRY_SEALED && !is_fresh(rq, name)) {
		if (attached)
			cursor_detach(store->peer, rq->cell, name);
		drop_stale(rq, name);
		return rq->create ? ROUND_AGAIN : ROUND_MISS;
	}
	/* A dead producer's entry serves nobody who has not begun with it. */
	if (state_is_growing(state) &&
	    (repair_producer(store->peer, name) || state_is_adopting(state))) {
		if (attached)
			cursor_detach(store->peer, rq->cell, name);
		if (state_is_adopting(state))
			pause_for_adoption();
		return ROUND_AGAIN;
	}
	if (rq->create && rq->resumable) {
		state = shm_load(entry_state_word(store->segment, name.idx));
		if (state_gen(state) == name.gen && state_of(state) == ENTRY_ORPHAN)
			return take_over(rq, name, state);
	}
	note_attach(rq, state);
	return rq->want_reader ? open_attached(rq, name, state) : ROUND_DONE;
}

/* ---------------------------------------------------------------- creating */

void request_draft(const struct request *rq, struct entry_draft *ret_draft)
{
	/* Without a seat: what a new cache would have. */
	const struct segment_options *wished = &rq->cache->wishes.fallback;
	const struct segment *segment = rq->seat != NULL ? rq->store->segment : NULL;
	uint64_t max_age_ns = rq->max_age_ns, window_bytes = rq->window_bytes;

	*ret_draft = (struct entry_draft){
		.key = rq->key.key,
		.key_bytes = rq->key.key_bytes,
		.hash = rq->key.hash,
		.max_age_ns = max_age_ns == 0 ?
				      (segment != NULL ? segment->max_age_ns : wished->max_age_ns)
			      : max_age_ns == SCACHE_ZERO ? 0
							  : max_age_ns,
		.window_bytes = window_bytes == 0 ? (segment != NULL ? segment->window_bytes :
								      wished->window_bytes)
				: window_bytes == SCACHE_ZERO ? 0
							      : window_bytes,
		.declared_bytes = rq->declared_bytes,
		.flags = (rq->run_to_end ? ENTRY_RUN_TO_END : 0) |
			 (rq->pace_slowest ? ENTRY_PACE_SLOWEST : 0) |
			 (rq->pass_through ? ENTRY_RING_ONLY : 0) |
			 (rq->resumable ? ENTRY_RESUMABLE : 0) |
			 (rq->compression == SCACHE_LZ4  ? ENTRY_LZ4 :
			  rq->compression == SCACHE_AUTO ? ENTRY_AUTO : 0),
	};
}

/* Our CLAIMED slot gets its fields, a ring, and a file now if it has no ring but needs one. */
static int prepare(struct request *rq, struct entry_name name, int *ret_fd)
{
	struct store *store = rq->store;
	struct shm_entry *entry = entry_at(store->segment, name.idx);
	struct entry_draft draft;
	uint32_t ring;

	ring = ring_claim(store->peer, name);
	request_draft(rq, &draft);
	if (rq->pass_through || ring == RING_NONE ||
	    store->segment->geometry.ring_bytes < COMPRESS_RING_BYTES_MIN)
		draft.flags &= ~(ENTRY_LZ4 | ENTRY_AUTO);
	entry_fill(store->peer, name, &draft);
	if (ring != RING_NONE) {
		shm_store_relaxed(&entry->ring, ring + 1);
		shm_store_relaxed(&entry->floor, 0);
		/*
		 * STEP ring-noted: the entry knows its ring. Die here: the reaper retires the
		 * entry.
		 */
		STEP("ring-noted");
		return 0;
	}
	if (rq->pass_through)
		return -ENOSPC;
	*ret_fd = declared_create_file(store, name);
	return *ret_fd < 0 ? *ret_fd : 0;
}

/* The writer of this request is made; its caller's reader, if one is wanted, beside it. */
static enum round open_pair(struct request *rq, struct entry_name name, struct stream_pair *pair)
{
	struct store *store = rq->store;

	rq->writer->open_streams = job_streams(rq->cache);
	atomic_fetch_add(rq->writer->open_streams, 1);
	store_get(store);
	if (!rq->want_reader)
		return ROUND_DONE;
	if (open_attached(rq, name, shm_load(entry_state_word(store->segment, name.idx))) !=
	    ROUND_DONE) {
		free(pair);
		/* What we cannot read somebody else may go on with. */
		if (rq->writer->taken_over) {
			entry_give_up(store->peer, name);
			rq->writer->ended = true;
		}
		scache_writer_close(rq->writer);
		rq->writer = NULL;
		return ROUND_BYPASS;
	}
	atomic_init(&pair->users, 2);
	atomic_init(&pair->reader_thread, thread_tag());
	pair->reader_cell = rq->reader->cell;
	rq->writer->pair = rq->reader->pair = pair;
	return ROUND_DONE;
}

/* Linked and ours: the file, if not made yet, and the handles. */
static enum round open_created(struct request *rq, struct entry_name name, int fd)
{
	struct store *store = rq->store;
	struct stream_pair *pair = NULL;
	int ret;

	if (fd < 0 && !rq->pass_through)
		fd = declared_create_file(store, name);
	ret = writer_open(store, name, fd >= 0 ? fd : -1, &rq->writer);
	if (ret == 0 && rq->want_reader) {
		pair = calloc(1, sizeof(*pair));
		ret = pair == NULL ? -ENOMEM : 0;
	}
	if (ret < 0) {
		/* Without memory for a handle: what a dead producer would leave, at once. */
		shm_store_relaxed(&entry_at(store->segment, name.idx)->code, (uint32_t)-ECANCELED);
		entry_change(store->peer, name, ENTRY_FILLING, ENTRY_FAILED, ENTRY_HIDDEN);
		if (rq->want_reader)
			cursor_detach(store->peer, rq->cell, name);
		sweep_entry(store, name);
		if (fd >= 0)
			close(fd);
		free(rq->writer);
		rq->writer = NULL;
		return ROUND_BYPASS;
	}
	rq->writer->level = rq->level;
	peer_count(store->peer, STAT_PRODUCTIONS, 1);
	if (fd < 0)
		writer_go_without_file(rq->writer);
	return open_pair(rq, name, pair);
}

/* Attached to an orphan: we are its producer now, or whatever it is by now is found anew. */
static enum round take_over(struct request *rq, struct entry_name name, uint64_t state)
{
	struct stream_pair *pair = rq->want_reader ? calloc(1, sizeof(*pair)) : NULL;
	int ret = pair == NULL && rq->want_reader ?
			  -ENOMEM : writer_take_over(rq->store, name, state, &rq->writer);

	if (ret == 0)
		return open_pair(rq, name, pair);
	free(pair);
	if (rq->want_reader)
		cursor_detach(rq->store->peer, rq->cell, name);
	return ret == -EAGAIN ? ROUND_AGAIN : ROUND_BYPASS;
}

/*
 * After a miss. The creator's own cursor is published before the entry can
 * be found, so that its reader is there before anybody can close the door.
 */
static enum round create(struct request *rq, uint64_t head)
{
	struct store *store = rq->store;
	struct entry_name name;
	int fd = -1;
	unsigned pin;
	bool linked;

	sweep_slice(store);
	if (sweep_claim(store, &name) < 0)
		return ROUND_BYPASS;
	if (prepare(rq, name, &fd) < 0) {
		sweep_give_back(store, name, ENTRY_CLAIMED, false);
		return ROUND_BYPASS;
	}
	if (rq->want_reader) {
		cursor_publish(store->segment, rq->cell, name);
		shm_store(&entry_at(store->segment, name.idx)->had_reader, 1);
		/*
		 * STEP creator-attached: its reader is there before it is. Die here: our reaper
		 * clears both.
		 */
		STEP("creator-attached");
	}
	entry_start(store->peer, name, 0);
	pin = epoch_enter(store->peer);
	linked = index_insert(store->peer, name, &rq->key, head);
	epoch_leave(store->peer, pin);
	if (linked)
		return open_created(rq, name, fd);
	if (rq->want_reader)
		shm_store(&cursor_at(store->segment, rq->cell)->name, 0);
	/* STEP race-lost: filling, in no chain, unread. Die here: the reaper fails it. */
	STEP("race-lost");
	sweep_give_back(store, name, ENTRY_FILLING, fd >= 0);
	if (fd >= 0)
		close(fd);
	return ROUND_AGAIN;
}

/* ------------------------------------------------------------------- request */

/* A former segment may have it. Not for who wants a fresh one: then nobody is to find it. */
static bool takes_former(const struct request *rq)
{
	if (!rq->refresh && rq->max_age_ns != SCACHE_ZERO)
		return adopt_key(rq->store, &rq->key);
	if (rq->create)
		adopt_forget(rq->store, &rq->key);
	return false;
}

static enum round run(struct request *rq)
{
	enum round round = ROUND_AGAIN;
	uint64_t head;

	for (int i = 0; i < ROUNDS_MAX && round == ROUND_AGAIN; i++) {
		round = find_and_attach(rq, &head);
		if (round != ROUND_MISS)
			continue;
		if (unlikely(adopt_may_help(rq->store, rq->key.hash)) && takes_former(rq)) {
			round = ROUND_AGAIN;
			continue;
		}
		if (!rq->create)
			break;
		round = create(rq, head);
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
	rq->compression = o.compression != 0 ? o.compression : cache->compression;
	rq->level = o.level != 0 ? o.level : cache->level;
	rq->max_age_ns = o.max_age_ns;
	rq->window_bytes = o.window_bytes;
	rq->declared_bytes = o.declared_bytes;
	rq->stall_ns = o.stall_timeout_ns;
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
	else if (round == ROUND_MISS)
		rq->outcome = SCACHE_MISSED;
	else if (round != ROUND_DONE)
		rq->outcome = SCACHE_BYPASSED;
	if (round == ROUND_DONE)
		return 0;
	return round == ROUND_MISS ? -ENOENT : SCACHE_BYPASS;
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
