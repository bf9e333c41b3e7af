/* SPDX-License-Identifier: MIT */
/*
 * private - a writer and its one reader without a cache.
 *
 * A segment of one entry, one ring and one block of cursors in memory of our
 * own; all the rest of this room works on it as it does on a shared one. Its
 * only peer is this process, so nobody in it is ever found dead.
 */
#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/check.h"
#include "base/thread.h"
#include "index/ring.h"
#include "stream/stream.h"

struct private_stream {
	struct peer peer;
	struct cursor_space cursors;
	struct store store;
};

static void do_not_leave(struct store *store)
{
	(void)store; /* pair_put() destroys it */
}

static struct private_stream *make(uint64_t ring_bytes)
{
	const struct shm_geometry geometry = {
		.entries = 1,
		.buckets = 1,
		.peers = 1,
		.blocks = 1,
		.rings = 1,
		.ring_bytes = ring_bytes,
	};
	struct private_stream *stream = calloc(1, sizeof(*stream));
	struct segment *segment;

	if (stream == NULL)
		return NULL;
	if (peer_mark_fork(&stream->peer) < 0) {
		free(stream);
		return NULL;
	}
	if (segment_map_private(&geometry, &segment) < 0) {
		peer_unmark_fork(&stream->peer);
		free(stream);
		return NULL;
	}
	/* No cache limits it. */
	shm_store(&segment->header->settings[SETTING_MAX_FILL_NS], UINT64_MAX);
	stream->peer.segment = segment;
	stream->peer.shared = &segment->peers[0];
	stream->peer.lock_fd = -1;
	pthread_mutex_init(&stream->peer.reap_mutex, NULL);
	shm_store(&segment->peers[0].pid, (uint64_t)getpid());
	shm_store(&segment->peers[0].state, PEER_WORD(0, PEER_ACTIVE));
	cursor_space_init(&stream->cursors);
	stream->store.peer = &stream->peer;
	stream->store.segment = segment;
	stream->store.cursors = &stream->cursors;
	stream->store.dir_fd = stream->store.blobs_fd = -1;
	atomic_init(&stream->store.users, 3); /* us and the two streams */
	stream->store.leave = do_not_leave;
	return stream;
}

/* In a fork child the memory is a copy, and goes as well. */
static void destroy(struct private_stream *stream)
{
	UNCANCELLED;

	cursor_space_forget(&stream->cursors);
	pthread_mutex_destroy(&stream->peer.reap_mutex);
	segment_leave(stream->peer.segment);
	peer_unmark_fork(&stream->peer);
	free(stream);
}

void pair_put(struct stream_pair *pair)
{
	if (pair == NULL || atomic_fetch_sub(&pair->users, 1) > 1)
		return;
	if (pair->private_stream != NULL)
		destroy(pair->private_stream);
	free(pair);
}

int private_open(uint64_t ring_bytes, const struct entry_draft *draft,
		 struct scache_reader **ret_reader, struct scache_writer **ret_writer)
{
	struct private_stream *stream = make(ring_bytes);
	struct stream_pair *pair = calloc(1, sizeof(*pair));
	struct scache_reader *reader = NULL;
	struct scache_writer *writer = NULL;
	struct store *store;
	struct entry_name name;
	uint32_t cell;
	int ret = -ENOMEM;

	if (stream == NULL || pair == NULL)
		goto fail;
	store = &stream->store;
	ret = cursor_take(store->cursors, store->peer, &cell);
	if (ret < 0)
		goto fail;
	/* All is empty: what can be had only once is there. */
	SC_ASSERT(entry_claim(store->peer, &name) == 0);
	entry_fill(store->peer, name, draft);
	shm_store(&entry_at(store->segment, 0)->ring, ring_claim(store->peer, name) + 1);
	shm_store(&entry_at(store->segment, 0)->floor, 0);
	shm_store(&entry_at(store->segment, 0)->had_reader, 1);
	cursor_publish(store->segment, cell, name);
	entry_start(store->peer, name, 0);
	entry_hide(store->segment, name, ENTRY_FILLING);
	ret = writer_open(store, name, -1, &writer);
	if (ret == 0)
		ret = reader_open(store, name, cell, shm_load(entry_state_word(store->segment, 0)),
				  &reader);
	if (ret < 0)
		goto fail;
	atomic_init(&pair->users, 2);
	pair->private_stream = stream;
	pair->reader_cell = cell;
	reader->pair = writer->pair = pair;
	*ret_reader = reader;
	*ret_writer = writer;
	return 0;
fail:
	free(writer);
	free(pair);
	if (stream != NULL)
		destroy(stream);
	return ret;
}
