/* SPDX-License-Identifier: MIT */
/*
 * create - a look-up that becomes a production: a new entry, or an orphan's.
 */
#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

#include "api/request.h"
#include "base/step.h"
#include "base/thread.h"
#include "index/ring.h"
#include "index/seen.h"
#include "shm/epoch.h"
#include "store/blob.h"
#include "store/leave.h"
#include "store/limits.h"
#include "store/sweep.h"
#include "stream/stream.h"

uint64_t request_setting(const struct request *rq, enum shm_setting setting)
{
	/* Without a seat: what a new cache would have. */
	return rq->seat != NULL ? store_setting(rq->store, setting) :
				  rq->cache->wishes.fallback.settings[setting];
}

static uint32_t level_of(const struct request *rq)
{
	return rq->level != 0 ? rq->level : (uint32_t)request_setting(rq, SETTING_LEVEL);
}

void request_draft(const struct request *rq, struct entry_draft *ret_draft)
{
	uint64_t max_age_ns = rq->max_age_ns, window_bytes = rq->window_bytes;
	uint64_t compression = rq->compression != 0 ? rq->compression :
						      request_setting(rq, SETTING_COMPRESSION);

	*ret_draft = (struct entry_draft){
		.key = rq->key.key,
		.key_bytes = rq->key.key_bytes,
		.hash = rq->key.hash,
		.max_age_ns = max_age_ns == 0 ? request_setting(rq, SETTING_MAX_AGE_NS)
			      : max_age_ns == SCACHE_ZERO ? 0
							  : max_age_ns,
		.window_bytes = window_bytes == 0 ? request_setting(rq, SETTING_WINDOW_BYTES)
				: window_bytes == SCACHE_ZERO ? 0
							      : window_bytes,
		.declared_bytes = rq->declared_bytes,
		.flags = (rq->run_to_end ? ENTRY_RUN_TO_END : 0) |
			 (rq->pace_slowest ? ENTRY_PACE_SLOWEST : 0) |
			 (rq->pass_through ? ENTRY_RING_ONLY : 0) |
			 (rq->resumable ? ENTRY_RESUMABLE : 0) |
			 (compression == SCACHE_LZ4  ? ENTRY_LZ4 :
			  compression == SCACHE_AUTO ? ENTRY_AUTO : 0),
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
	if (request_open_reader(rq, name, shm_load(entry_state_word(store->segment, name.idx))) !=
	    ROUND_DONE) {
		free(pair);
		/* What we cannot read somebody else may go on with. */
		if (rq->writer->taken_over)
			writer_give_up(rq->writer);
		else
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
	if (ret == 0 && rq->has_digest)
		ret = digest_expect(rq->writer, rq->digest);
	if (ret < 0) {
		/* Without memory for a handle: what a dead producer would leave, at once. */
		shm_store_relaxed(&entry_at(store->segment, name.idx)->code, (uint32_t)-ECANCELED);
		entry_change(store->peer, name, ENTRY_FILLING, ENTRY_FAILED, ENTRY_HIDDEN);
		if (rq->want_reader)
			cursor_detach(store->peer, rq->cell, name);
		sweep_entry(store, name);
		if (fd >= 0)
			close(fd);
		free(pair);
		free(rq->writer);
		rq->writer = NULL;
		return ROUND_BYPASS;
	}
	rq->writer->level = level_of(rq);
	pace_accept(rq->writer, &rq->terms);
	peer_count(store->peer, STAT_PRODUCTIONS, 1);
	if (fd < 0)
		writer_go_without_file(rq->writer);
	return open_pair(rq, name, pair);
}

/* Attached to an orphan: we are its producer now, or whatever it is by now is found anew. */
enum round create_by_take_over(struct request *rq, struct entry_name name, uint64_t state)
{
	struct stream_pair *pair = rq->want_reader ? calloc(1, sizeof(*pair)) : NULL;
	int ret = pair == NULL && rq->want_reader ?
			  -ENOMEM : writer_take_over(rq->store, name, state, &rq->terms, level_of(rq),
					   &rq->writer);

	if (ret == 0)
		return open_pair(rq, name, pair);
	free(pair);
	if (rq->want_reader) {
		cursor_detach(rq->store->peer, rq->cell, name);
		leave_entry(rq->store, name);
	}
	return ret == -EAGAIN ? ROUND_AGAIN : ROUND_BYPASS;
}

/* What is not stored anyhow is neither counted nor asked for. */
static bool is_seldom(const struct request *rq)
{
	return !rq->pass_through &&
	       !seen_is_enough(rq->store->segment, rq->key.hash, rq->started_ns);
}

enum round create_entry(struct request *rq, uint64_t head)
{
	struct store *store = rq->store;
	struct entry_name name;
	int fd = -1;
	unsigned pin;
	bool linked;

	sweep_slice(store);
	if (sweep_claim(store, &name) < 0)
		return ROUND_BYPASS;
	if (limits_allow_entry(store, name) < 0)
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
	entry_start(store->peer, name, is_seldom(rq) ? ENTRY_TRANSIENT : 0);
	pin = epoch_enter(store->peer);
	linked = index_insert(store->peer, name, &rq->key, head);
	epoch_leave(store->peer, pin);
	if (linked) {
		if (!rq->pass_through)
			seen_count(store->segment, rq->key.hash, rq->started_ns);
		return open_created(rq, name, fd);
	}
	if (rq->want_reader)
		shm_store(&cursor_at(store->segment, rq->cell)->name, 0);
	/* STEP race-lost: filling, in no chain, unread. Die here: the reaper fails it. */
	STEP("race-lost");
	sweep_give_back(store, name, ENTRY_FILLING, fd >= 0);
	if (fd >= 0)
		close(fd);
	return ROUND_AGAIN;
}
