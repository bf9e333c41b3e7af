/* SPDX-License-Identifier: MIT */
/*
 * room - bytes into an entry's file: charged before they are written (store/limits.h), and
 * tried once more after others had to go.
 */
#include <errno.h>

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

/*
 * What a write of @bytes has come to. True: try again, others have gone for it; which they do once
 * only, until one succeeds: who waits for a ring tries in vain again and again. No room on
 * the disk makes a file larger than it may be.
 */
static bool was_short(struct scache_writer *writer, int ret, uint64_t bytes)
{
	if (likely(ret == 0))
		writer->way_tries = 0;
	return unlikely(ret == -ENOSPC || ret == -EDQUOT || ret == -EIO) &&
	       limits_make_way(writer->store, bytes, &writer->way_tries);
}

int room_write(struct scache_writer *writer, const void *data, size_t bytes, uint64_t offset)
{
	int ret = room_reserve(writer, offset + bytes, true);

	if (ret < 0)
		return ret;
	do
		ret = blob_write(writer->fd, data, bytes, offset);
	while (was_short(writer, ret, bytes));
	return ret;
}

int room_write_two(struct scache_writer *writer, const void *first, size_t first_bytes,
		   const void *second, size_t second_bytes, uint64_t offset)
{
	uint64_t bytes = (uint64_t)first_bytes + second_bytes;
	int ret = room_reserve(writer, offset + bytes, false);

	if (ret < 0)
		return ret;
	do
		ret = blob_write_two(writer->fd, first, first_bytes, second, second_bytes, offset);
	while (was_short(writer, ret, bytes));
	return ret;
}
