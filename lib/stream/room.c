/* SPDX-License-Identifier: MIT */
/*
 * room - bytes into an entry's file: charged before they are written (store/limits.h), and
 * tried once more after others had to go.
 */
#include <errno.h>

#include "base/thread.h"
#include "store/blob.h"
#include "store/limits.h"
#include "stream/stream.h"

#define AHEAD_BYTES_MAX (4u << 20) /* charged beyond what is written, of what still grows */
#define CHARGE_UNIT 4096u	   /* of most file systems */

int room_reserve(struct scache_writer *writer, uint64_t bytes, bool grows)
{
	uint64_t ahead = grows ? min_u64(bytes, AHEAD_BYTES_MAX) : 0, all;
	bool is_short;
	int ret;

	if (likely(bytes <= writer->charged))
		return 0;
	all = round_up_u64(bytes + ahead, CHARGE_UNIT);
	ret = limits_reserve(writer->store, writer->name, all);
	is_short = ret < 0 && ahead > 0;
	if (is_short) {
		all = round_up_u64(bytes, CHARGE_UNIT);
		ret = limits_reserve(writer->store, writer->name, all);
	}
	if (ret == 0)
		writer->charged = all;
	window_fit(writer, is_short && ret == 0);
	return ret;
}

/* A write of @bytes has ended in @error: others go for it. True: try again. */
static bool was_short(struct scache_writer *writer, int error, uint64_t bytes)
{
	UNCANCELLED;

	if (error != -ENOSPC && error != -EDQUOT && error != -EFBIG && error != -EIO)
		return false;
	limits_make_way(writer->store, bytes);
	return true;
}

int room_write(struct scache_writer *writer, const void *data, size_t bytes, uint64_t offset)
{
	int ret = room_reserve(writer, offset + bytes, true);

	if (ret < 0)
		return ret;
	ret = blob_write(writer->fd, data, bytes, offset);
	if (unlikely(ret < 0) && was_short(writer, ret, bytes))
		ret = blob_write(writer->fd, data, bytes, offset);
	return ret;
}

int room_write_two(struct scache_writer *writer, const void *first, size_t first_bytes,
		   const void *second, size_t second_bytes, uint64_t offset)
{
	uint64_t bytes = (uint64_t)first_bytes + second_bytes;
	int ret = room_reserve(writer, offset + bytes, false);

	if (ret < 0)
		return ret;
	ret = blob_write_two(writer->fd, first, first_bytes, second, second_bytes, offset);
	if (unlikely(ret < 0) && was_short(writer, ret, bytes))
		ret = blob_write_two(writer->fd, first, first_bytes, second, second_bytes, offset);
	return ret;
}
