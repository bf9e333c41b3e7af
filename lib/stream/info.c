/* SPDX-License-Identifier: MIT */
/*
 * info - what `ls` and a progress line show of one entry.
 */
#include <errno.h>

#include "base/clock.h"
#include "stream/stream.h"

static enum scache_state public_state(uint64_t word)
{
	switch (state_of(word)) {
	case ENTRY_FILLING:
	case ENTRY_ORPHAN:
		return SCACHE_FILLING;
	case ENTRY_SEALED:
		return SCACHE_FINISHED;
	default:
		return SCACHE_FAILED;
	}
}

static uint32_t public_flags(const struct store *store, const struct shm_entry *entry,
			     uint64_t word)
{
	uint32_t flags = state_is_hidden(word) ? SCACHE_HIDDEN : 0;

	if (shm_load_relaxed((shm_u32 *)&entry->flags) & ENTRY_RING_ONLY)
		flags |= SCACHE_RING_ONLY;
	if (state_is_transient(word))
		flags |= SCACHE_TRANSIENT;
	if (shm_load_relaxed((shm_u64 *)&entry->floor) != UINT64_MAX)
		flags |= SCACHE_HAS_RING;
	if (state_of(word) == ENTRY_ORPHAN)
		return flags | SCACHE_WRITER_DEAD;
	if (state_of(word) != ENTRY_FILLING)
		return flags;
	if (shm_load_relaxed((shm_u32 *)&entry->writer_event) & 1u)
		flags |= SCACHE_WRITER_WAITS;
	if (peer_is_dead(store->peer, state_owner(word)))
		flags |= SCACHE_WRITER_DEAD;
	return flags;
}

static void fill_times(const struct store *store, struct entry_name name, uint64_t word,
		       struct scache_entry_info *info)
{
	const struct shm_entry *entry = entry_at(store->segment, name.idx);
	uint64_t now_ns = clock_shared_ns(), expires_ns, since_ns;

	since_ns = shm_load_relaxed(state_is_growing(word) ?
					    (shm_u64 *)&entry->created_ns :
					    (shm_u64 *)&entry->ended_ns);
	if (since_ns == 0) /* its producer did not live to say when it ended */
		since_ns = shm_load_relaxed((shm_u64 *)&entry->created_ns);
	info->age_ns = clock_age_ns(since_ns, now_ns);
	expires_ns = shm_load_relaxed(&store->segment->expires[name.idx]);
	info->expires_in_ns = expires_ns == UINT64_MAX || state_of(word) != ENTRY_SEALED ?
				      SCACHE_UNLIMITED :
			      expires_ns > now_ns ? expires_ns - now_ns :
						    0;
}

static void fill_file(const struct shm_entry *entry, uint64_t word, struct scache_entry_info *info)
{
	uint32_t flags = shm_load_relaxed((shm_u32 *)&entry->flags);

	if (flags & ENTRY_RING_ONLY)
		return;
	if (!(flags & ENTRY_AUTO))
		info->compression = flags & ENTRY_LZ4 ? SCACHE_LZ4 : SCACHE_RAW;
	if (state_of(word) == ENTRY_SEALED)
		info->file_bytes = shm_load_relaxed((shm_u64 *)&entry->file_bytes);
}

int entry_fill_info(struct store *store, struct entry_name name, unsigned char key[256],
		    struct scache_entry_info *ret_info)
{
	const struct segment *segment = store->segment;
	const struct shm_entry *entry = entry_at(segment, name.idx);
	uint64_t word = shm_load(entry_state_word(segment, name.idx));
	struct scache_entry_info info = { .key = key };
	struct cursor_survey survey;

	if (state_gen(word) != name.gen ||
	    (!state_is_growing(word) && state_of(word) != ENTRY_SEALED &&
	     state_of(word) != ENTRY_FAILED))
		return -ESTALE;
	info.key_bytes = entry_copy_key(entry, key);
	info.state = public_state(word);
	info.flags = public_flags(store, entry, word);
	cursor_survey(segment, name, &survey);
	info.readers = survey.count;
	if (state_of(word) == ENTRY_FILLING && state_owner(word) < segment->geometry.peers)
		info.producer_pid =
			(int64_t)shm_load_relaxed(&segment->peers[state_owner(word)].pid);
	info.bytes = shm_load_acquire((shm_u64 *)&entry->written);
	/* Without a ring a byte is stored a moment before it is published. */
	info.stored_bytes = min_u64(shm_load_acquire((shm_u64 *)&entry->flushed), info.bytes);
	info.window_bytes = shm_load_relaxed((shm_u64 *)&entry->window_bytes);
	if (info.window_bytes == 0)
		info.window_bytes = SCACHE_ZERO;
	info.declared_bytes = shm_load_relaxed((shm_u64 *)&entry->declared_bytes);
	fill_file(entry, word, &info);
	fill_times(store, name, word, &info);
	/* Everything above was of this life, or none of it counts. */
	if (state_gen(shm_load(entry_state_word(segment, name.idx))) != name.gen)
		return -ESTALE;
	info.size = ret_info->size;
	memcpy(ret_info, &info, min_u64(ret_info->size, sizeof(info)));
	return 0;
}
