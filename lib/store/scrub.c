/* SPDX-License-Identifier: MIT */
#include "store/scrub.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/stat.h>

#include "store/footer.h"
#include "store/guard.h"
#include "store/packed.h"

static int scrub_raw(int fd, const struct blob_facts *facts, struct key_hash hash,
		     scrub_pace *pace, void *arg)
{
	struct guard *guard;
	uint64_t at, bytes;
	int ret = guard_open(fd, facts->bytes, facts->file_bytes, hash, &guard);

	if (ret < 0)
		return ret;
	for (at = 0; ret == 0 && at < facts->bytes; at += bytes) {
		bytes = min_u64(BLOCK_BYTES, facts->bytes - at);
		ret = pace(arg, bytes);
		if (ret == 0)
			ret = guard_check(guard, fd, at, (size_t)bytes);
	}
	guard_free(guard);
	return ret;
}

/* Block by block into @plain, and by @encoder into the checksum of all at its end. */
static int scrub_blocks(struct packed *packed, int fd, uint64_t bytes,
			struct frame_encoder *encoder, unsigned char *plain, scrub_pace *pace,
			void *arg)
{
	struct unpacked unpacked = { .bytes = 0 };
	unsigned char end[FRAME_END_BYTES];
	uint64_t at = 0;
	ssize_t part;
	int ret = 0;

	while (ret == 0 && at < bytes) {
		ret = pace(arg, min_u64(BLOCK_BYTES, bytes - at));
		if (ret != 0)
			break;
		part = packed_read(packed, fd, &unpacked, plain, BLOCK_BYTES, at, bytes);
		if (part < 0) {
			ret = (int)part;
			break;
		}
		frame_skip(encoder, plain, (size_t)part);
		at += (uint64_t)part;
	}
	unpacked_free(&unpacked);
	if (ret != 0)
		return ret;
	frame_end(encoder, end);
	return packed_check_end(packed, fd, end);
}

static int scrub_packed(int fd, const struct blob_facts *facts, struct key_hash hash,
			scrub_pace *pace, void *arg)
{
	struct frame_encoder *encoder;
	unsigned char *plain;
	struct packed *packed;
	int ret = packed_open(fd, facts->bytes, facts->file_bytes, hash, &packed);

	if (ret < 0)
		return ret;
	plain = malloc(BLOCK_BYTES);
	ret = plain == NULL ? -ENOMEM : frame_encoder_new(FRAME_LEVEL_DEFAULT, &encoder);
	if (ret == 0) {
		ret = scrub_blocks(packed, fd, facts->bytes, encoder, plain, pace, arg);
		frame_encoder_free(encoder);
	}
	free(plain);
	packed_free(packed);
	return ret;
}

int scrub_file(int fd, const struct blob_facts *facts, struct key_hash hash, scrub_pace *pace,
	       void *arg)
{
	struct stat st;

	if (fstat(fd, &st) < 0)
		return -errno;
	if ((uint64_t)st.st_size != facts->file_bytes)
		return -EBADMSG;
	return facts->is_packed ? scrub_packed(fd, facts, hash, pace, arg)
				: scrub_raw(fd, facts, hash, pace, arg);
}
