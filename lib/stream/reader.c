/* SPDX-License-Identifier: MIT */
/*
 * reader - bytes out, and waiting for them.
 *
 * A read looks at the state before it looks at `written`. The other way
 * round: written = 100, the writer appends and seals, the reader sees SEALED
 * and invents an end of file at 100.
 *
 * The position others see, `paced`, is the furthest that the position was, or
 * that a pread far ahead has asked for.
 */
#include <errno.h>
#include <stdlib.h>

#include "base/check.h"
#include "base/clock.h"
#include "base/step.h"
#include "base/thread.h"
#include "index/repair.h"
#include "shm/wait.h"
#include "store/leave.h"
#include "stream/stream.h"

#define SPINS_MIN 16u
#define SPINS_MAX 2000u
#define STATS_EVERY_READS 64
#define FLOW_NS 100000		      /* woken again so soon: bytes flow */
#define NAP_NS 20000		      /* about 70 us, with the usual slack of timers */
#define NAP_BYTES (32u << 10)	      /* worth another one */
#define NAP_WINDOW_BYTES (512u << 10) /* what may come meanwhile must fit */

/* ----------------------------------------------------------- open and close */

/* Can this reader begin without the file? Then nobody opens it for nothing. */
static bool needs_file(const struct scache_reader *reader, uint64_t state)
{
	if (state_of(state) == ENTRY_SEALED)
		return !(shm_load_relaxed(&reader->entry->flags) & ENTRY_RING_ONLY);
	return shm_load_acquire(&reader->entry->floor) > 0 &&
	       shm_load_acquire(&reader->entry->flushed) > 0;
}

struct blob_facts reader_facts(const struct scache_reader *reader, uint64_t state)
{
	struct blob_facts facts = {
		.bytes = TABLE_GROWING,
		.is_packed = shm_load_relaxed(&reader->entry->flags) & ENTRY_LZ4,
	};
	uint64_t verify;

	if (state_of(state) != ENTRY_SEALED)
		return facts;
	verify = store_setting(reader->store, SETTING_VERIFY);
	facts.bytes = shm_load_relaxed(&reader->entry->written);
	facts.file_bytes = shm_load_relaxed(&reader->entry->file_bytes);
	facts.is_guarded = verify == SCACHE_VERIFY_ALWAYS ||
			   (verify != SCACHE_VERIFY_NEVER && state_is_unverified(state));
	return facts;
}

int reader_open(struct store *store, struct entry_name name, uint32_t cell, uint64_t state,
		struct scache_reader **ret_reader)
{
	struct scache_reader *reader = malloc(sizeof(*reader));
	struct segment *segment = store->segment;
	struct blob_facts facts;
	int ret;

	if (reader == NULL)
		return -ENOMEM;
	memset(reader, 0, offsetof(struct scache_reader, key));
	reader->magic = MAGIC_READER;
	reader->store = store;
	reader->not_forked = store->peer->not_forked;
	reader->name = name;
	reader->entry = entry_at(segment, name.idx);
	reader->state = entry_state_word(segment, name.idx);
	reader->cell = cell;
	reader->cursor = cursor_at(segment, cell);
	reader->spins = SPINS_MIN;
	atomic_init(&reader->sleeps_at, &reader->entry->readers_event);
	reader->ring_mask = segment->geometry.ring_bytes - 1;
	if (needs_file(reader, state)) {
		facts = reader_facts(reader, state);
		ret = table_get(store, name, entry_hash(reader->entry), &facts, &reader->blob);
		if (ret < 0) {
			free(reader);
			return ret;
		}
	}
	*ret_reader = reader;
	return 0;
}

void reader_push_stats(struct scache_reader *reader)
{
	/* What readers count; each close looks at all of it. */
	for (int i = STAT_BYTES_RING; i <= STAT_WAKES; i++)
		if (reader->stats[i] != 0) {
			peer_count(reader->store->peer, (enum shm_stat)i, reader->stats[i]);
			reader->stats[i] = 0;
		}
}

/* Of a hit holding off cancellation is a tenth: only what has such points does. */
int scache_reader_close(struct scache_reader *reader)
{
	KEEP_ERRNO;
	struct store *store;
	bool forked;

	if (reader == NULL)
		return 0;
	SC_ASSERT(reader->magic == MAGIC_READER);
	store = reader->store;
	reader->magic = MAGIC_DEAD;
	/* In a fork child cursor, descriptor and counters are the parent's. */
	forked = peer_is_forked(store->peer);
	if (!forked) {
		reader_push_stats(reader);
		if (reader->blob != NULL)
			table_put(store, reader->blob);
		if (reader->pair != NULL)
			atomic_store(&reader->pair->reader_thread, 0);
		cursor_detach(store->peer, reader->cell, reader->name);
		cursor_give_back(store->cursors, reader->cell);
		leave_entry(store, reader->name);
	}
	store_put(store);
	/* From here on somebody may close the cache; in a child the count is not ours. */
	if (!forked)
		atomic_fetch_sub(reader->open_streams, 1);
	if (reader->origin != NULL && !forked)
		reader->origin->put(reader->origin);
	pair_put(reader->pair);
	/* Another thread of a fork child's parent may have been exchanging these at that moment. */
	if (!forked) {
		replay_free(reader->replay);
		peek_close(reader);
	}
	unpacked_free(&reader->unpacked);
	free(reader->bounce);
	free(reader);
	return 0;
}

/* ------------------------------------------------------------------ the pace */

void reader_set_paced(struct scache_reader *reader, uint64_t position)
{
	struct shm_entry *entry = reader->entry;
	uint64_t before = reader->paced, need;

	if (position <= before)
		return;
	reader->paced = position;
	/* ORDER event-bit, seq_cst: position before the bit. Pairs with pace_wait(). */
	shm_store(&reader->cursor->position, position);
	/* STEP position-set: the writer may sleep on. Die here: it looks at its tick. */
	STEP("position-set");
	if (likely(!(shm_load(&entry->writer_event) & 1u)))
		return;
	/* Only who crosses it: the others would wake it at every read. */
	need = shm_load(&entry->need);
	if (before < need && position >= need)
		reader->stats[STAT_WAKES] += (uint64_t)wait_announce(&entry->writer_event);
}

void reader_count_read(struct scache_reader *reader)
{
	if (reader->stats[STAT_READS_RING] + reader->stats[STAT_READS_FILE] >= STATS_EVERY_READS)
		reader_push_stats(reader);
}

void reader_move(struct scache_reader *reader, size_t bytes)
{
	reader->position += bytes;
	reader_set_paced(reader, reader->position);
	reader_count_read(reader);
}

void reader_advance(struct scache_reader *reader, const void *data, size_t bytes)
{
	if (unlikely(reader->replay != NULL))
		replay_note(reader->replay, data, bytes);
	reader_move(reader, bytes);
}

/* ------------------------------------------------------------------ waiting */

int reader_ended(const struct scache_reader *reader, uint64_t state)
{
	int code;

	if (state_gen(state) != reader->name.gen)
		return -ESTALE;
	switch (state_of(state)) {
	case ENTRY_FILLING:
	case ENTRY_ORPHAN:
		return -EAGAIN;
	case ENTRY_SEALED:
		return 0;
	case ENTRY_FAILED:
		if (state_is_death(state))
			return -EOWNERDEAD;
		/* ORDER entry-ended, acquire: state before code. Pairs with end_with(). */
		code = (int)shm_load_relaxed(&reader->entry->code);
		return code > 0 ? -EREMOTEIO : code < 0 ? code : -EUCLEAN;
	default:
		return -ESTALE;
	}
}

static bool has_news(const struct scache_reader *reader, uint64_t from)
{
	return shm_load(&reader->entry->written) > from ||
	       reader_ended(reader, shm_load(reader->state)) != -EAGAIN;
}

/* Spin for as long as spinning has lately paid. */
static bool spin_for_news(struct scache_reader *reader, uint64_t from)
{
	for (uint32_t i = 0; i < reader->spins; i++) {
		if (shm_load_acquire(&reader->entry->written) > from) {
			reader->spins = (uint32_t)min_u64(SPINS_MAX, reader->spins + i + 1);
			return true;
		}
		cpu_relax();
	}
	reader->spins = (uint32_t)max_u64(SPINS_MIN, reader->spins / 2);
	return false;
}

/*
 * While bytes flow we need not be woken for each of them, which costs the writer a
 * system call and us a switch: a short sleep that it does not know of, and there
 * are many. Not once there are few or none, so whoever waits for a rare
 * write is woken for it. Nor with a window so small that it would fill meanwhile.
 */
static bool nap(struct scache_reader *reader, uint64_t from, int64_t deadline_ns)
{
	const struct timespec pause = { .tv_nsec = NAP_NS };
	uint64_t written;

	if (!reader->bytes_flow || deadline_ns - clock_own_ns() < (int64_t)NS_PER_MS ||
	    shm_load_relaxed(&reader->entry->window_bytes) < NAP_WINDOW_BYTES)
		return false;
	nanosleep(&pause, NULL);
	written = shm_load(&reader->entry->written);
	/* A pread may wait for more than there will ever be. */
	reader->bytes_flow = written > from && written - from >= NAP_BYTES;
	return written > from;
}

int reader_wait_for_news(struct scache_reader *reader, uint64_t from, int64_t deadline_ns)
{
	struct peer *peer = reader->store->peer;
	int64_t slept_at_ns;
	uint32_t event;

	if (spin_for_news(reader, from))
		return 0;
	pthread_testcancel();
	if (nap(reader, from, deadline_ns))
		return 0;
	/* A producer that died before we came will not wake us. */
	repair_producer(peer, reader->name);
	event = wait_prepare(&reader->entry->readers_event);
	if (has_news(reader, from))
		return 0;
	if (atomic_load(&reader->cancelled))
		return -ECANCELED;
	slept_at_ns = clock_own_ns();
	if (slept_at_ns >= deadline_ns)
		return -ETIMEDOUT;
	reader->stats[STAT_WAITS]++;
	reader_push_stats(reader);
	wait_park(&reader->entry->readers_event, event, deadline_ns);
	reader->bytes_flow = clock_own_ns() - slept_at_ns < FLOW_NS;
	return 0;
}

/* ---------------------------------------------------------------------- API */

int reader_check_handle(struct scache_reader *reader)
{
	SC_ASSERT(reader->magic == MAGIC_READER);
	if (peer_is_forked(reader->store->peer))
		return -ECHILD;
	if (reader->pair != NULL)
		atomic_store_explicit(&reader->pair->reader_thread, thread_tag(),
				      memory_order_relaxed);
	return reader->error;
}

int reader_await(struct scache_reader *reader, uint64_t from, struct patience *patience)
{
	if (unlikely(reader->stall_ns > 0)) {
		int ret = reader_bear_silence(reader);

		if (ret < 0)
			return ret;
	}
	/* Those who never sleep have no tick: they look here. */
	if (patience->timeout_ns == 0 && atomic_load(&reader->cancelled))
		return -ECANCELED;
	if (patience->timeout_ns == 0)
		return repair_producer(reader->store->peer, reader->name) ? 0 : -EAGAIN;
	if (!patience->has_begun)
		patience->deadline_ns = deadline_after(patience->timeout_ns);
	patience->has_begun = true;
	return reader_wait_for_news(reader, from, patience->deadline_ns);
}

int reader_note_error(struct scache_reader *reader, int error)
{
	if (error != -EMFILE && error != -ENFILE && error != -ENOMEM && error != -ENODATA)
		reader->error = error;
	return error;
}

int reader_ready(struct scache_reader *reader, int64_t timeout_ns, uint64_t *ret_written)
{
	struct patience patience = { .timeout_ns = timeout_ns };
	int ret;

	reader->shown_bytes = 0;
	for (;;) {
		/* ORDER sealed-written, acquire: state before written. Pairs with end_with(). */
		uint64_t state = shm_load_acquire(reader->state), written;

		if (reader_starts_over(reader, state))
			continue;
		if (state_gen(state) != reader->name.gen)
			return reader->error = -ESTALE;
		written = shm_load_acquire(&reader->entry->written);
		if (written > reader->position && replay_is_behind(reader)) {
			ret = replay_some(reader, written);
			if (ret < 0)
				return reader_note_error(reader, ret);
			continue;
		}
		if (written > reader->position) {
			*ret_written = written;
			return 1;
		}
		ret = reader_ended(reader, state);
		if (ret == 0 && replay_is_behind(reader))
			ret = -EOWNERDEAD; /* the other production was shorter */
		if (ret != -EAGAIN && unlikely(!reader_is_still_there(reader)))
			ret = -ESTALE; /* `written` and the code may be of another life */
		if (ret != -EAGAIN)
			return reader->error = ret;
		ret = reader_await(reader, reader->position, &patience);
		if (ret < 0)
			return ret;
	}
}

ssize_t reader_had(struct scache_reader *reader, ssize_t done)
{
	reader->has_begun |= done > 0;
	reader->silent_since_ns = 0;
	if (done == -ENODATA && !reader->has_sought)
		done = -ESTALE; /* left behind for good */
	return done < 0 ? reader_note_error(reader, (int)done) : done;
}

ssize_t reader_next(struct scache_reader *reader, void *data, size_t bytes, int64_t timeout_ns)
{
	uint64_t written;
	ssize_t done;
	int ret;

	do {
		ret = reader_ready(reader, timeout_ns, &written);
		if (ret <= 0)
			return ret;
		done = copy_out(reader, reader->position, data,
				(size_t)min_u64(bytes, written - reader->position));
	} while (unlikely(done == -ENODATA) && reader_begins_elsewhere(reader));
	return reader_had(reader, done);
}

ssize_t scache_read(struct scache_reader *reader, void *ret_data, size_t bytes, int64_t timeout_ns)
{
	KEEP_ERRNO;
	ssize_t done = reader_check_handle(reader);

	if (done < 0 || bytes == 0)
		return done;
	done = reader_next(reader, ret_data, (size_t)min_u64(bytes, INT64_MAX), timeout_ns);
	if (done > 0)
		reader_advance(reader, ret_data, (size_t)done);
	return done;
}

int scache_cancel(struct scache_reader *reader)
{
	KEEP_ERRNO;
	SC_ASSERT(reader->magic == MAGIC_READER);
	if (*reader->not_forked == 0)
		return -ECHILD;
	/* ORDER event-bit, seq_cst: cancelled before the word is raised. Pairs with start_over(). */
	atomic_store(&reader->cancelled, 1);
	wait_wake(atomic_load(&reader->sleeps_at));
	return 0;
}

int scache_size(struct scache_reader *reader, uint64_t *ret_bytes)
{
	KEEP_ERRNO;
	int ret = reader_check_handle(reader);
	uint64_t state;

	if (ret == -ECHILD || ret == -ESTALE)
		return ret;
	state = shm_load_acquire(reader->state);
	if (state_gen(state) != reader->name.gen)
		return -ESTALE;
	*ret_bytes = shm_load_acquire(&reader->entry->written);
	if (unlikely(!reader_is_still_there(reader)))
		return -ESTALE;
	return state_of(state) == ENTRY_SEALED;
}

int scache_reader_info(struct scache_reader *reader, struct scache_entry_info *ret_info)
{
	KEEP_ERRNO;
	int ret = reader_check_handle(reader);

	if (ret == -ECHILD || ret == -ESTALE)
		return ret;
	if (ret_info->size == 0)
		return -EINVAL;
	return entry_fill_info(reader->store, reader->name, reader->key, ret_info);
}
