/* SPDX-License-Identifier: MIT */
/*
 * replay - going on in the middle with another production of the same bytes.
 *
 * A deterministic producer that is killed is replaced by one that begins again
 * at 0. The reader remembers a checksum of what its caller has had; of the new
 * production it takes as many bytes for itself, and only if their checksum is
 * the same does the caller get the next one.
 *
 * The checksum is XXH3 (128 bits): against accidents, not against enemies.
 */
#include <errno.h>
#include <stdlib.h>

#include <xxhash.h>

#include "base/thread.h"
#include "stream/stream.h"

#define PIECE_BYTES (64u << 10)
#define NOWHERE UINT64_MAX

struct replay {
	XXH3_state_t *had, *again; /* checksums of bytes [0, until), and [0, position) */
	uint64_t until;
	uint64_t goes_to; /* then: where its caller has sought to; or NOWHERE */
	unsigned char piece[PIECE_BYTES];
};

struct replay *replay_new(void)
{
	struct replay *replay = calloc(1, sizeof(*replay));

	if (replay == NULL)
		return NULL;
	replay->had = XXH3_createState();
	replay->again = XXH3_createState();
	if (replay->had == NULL || replay->again == NULL) {
		replay_free(replay);
		return NULL;
	}
	XXH3_128bits_reset(replay->had);
	replay->goes_to = NOWHERE;
	return replay;
}

void replay_free(struct replay *replay)
{
	if (replay == NULL)
		return;
	XXH3_freeState(replay->had);
	XXH3_freeState(replay->again);
	free(replay);
}

void replay_note(struct replay *replay, const void *data, size_t bytes)
{
	XXH3_128bits_update(replay->had, data, bytes);
	replay->until += bytes;
}

void replay_go_to(struct replay *replay, uint64_t offset)
{
	replay->goes_to = offset;
}

uint64_t replay_until(const struct replay *replay)
{
	return replay->until;
}

int replay_some(struct scache_reader *reader, uint64_t written)
{
	struct replay *replay = reader->replay;
	uint64_t until = min_u64(written, replay->until);
	size_t bytes = (size_t)min_u64(PIECE_BYTES, until - reader->position);
	ssize_t done = copy_out(reader, reader->position, replay->piece, bytes);

	if (done < 0)
		return done == -ENODATA ? -ESTALE : (int)done;
	if (reader->position == 0)
		XXH3_128bits_reset(replay->again);
	XXH3_128bits_update(replay->again, replay->piece, (size_t)done);
	reader_move(reader, (size_t)done);
	if (reader->position < replay->until)
		return 0;
	if (!XXH128_isEqual(XXH3_128bits_digest(replay->had), XXH3_128bits_digest(replay->again)))
		return -EOWNERDEAD;
	if (replay->goes_to != NOWHERE)
		reader_go_to(reader, replay->goes_to);
	return 0;
}
