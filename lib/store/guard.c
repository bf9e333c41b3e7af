/* SPDX-License-Identifier: MIT */
#include "store/guard.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>

#include "base/thread.h"
#include "store/blob.h"
#include "store/footer.h"
#include "store/sums.h"

struct guard {
	struct footer *footer;
	_Atomic uint64_t left; /* blocks that have not been compared */
	_Atomic unsigned char is_checked[]; /* each block */
};

int guard_open(int fd, uint64_t bytes, uint64_t file_bytes, struct key_hash hash,
	       struct guard **ret_guard)
{
	struct footer *footer;
	struct guard *guard;
	int ret = footer_read(fd, file_bytes, &footer);

	if (ret < 0)
		return ret;
	if (!footer_is_of(footer, BLOB_RAW, bytes, hash)) {
		free(footer);
		return -EBADMSG;
	}
	guard = calloc(1, sizeof(*guard) + (size_t)block_count(bytes));
	if (guard == NULL) {
		free(footer);
		return -ENOMEM;
	}
	guard->footer = footer;
	atomic_init(&guard->left, block_count(bytes));
	*ret_guard = guard;
	return 0;
}

void guard_free(struct guard *guard)
{
	if (guard == NULL)
		return;
	free(guard->footer);
	free(guard);
}

bool guard_is_done(const struct guard *guard)
{
	return atomic_load(&guard->left) == 0;
}

/* Two threads may compare the same one; it counts once. */
static int check_block(struct guard *guard, int fd, uint64_t block, unsigned char *scratch)
{
	uint64_t from = block * BLOCK_BYTES;
	size_t bytes = (size_t)min_u64(BLOCK_BYTES, guard->footer->bytes - from);
	int ret = blob_read_whole(fd, scratch, bytes, from);

	if (ret < 0)
		return ret;
	if (sums_of(scratch, bytes) != guard->footer->words[block])
		return -EBADMSG;
	if (!atomic_exchange(&guard->is_checked[block], 1))
		atomic_fetch_sub(&guard->left, 1);
	return 0;
}

int guard_check(struct guard *guard, int fd, uint64_t offset, size_t bytes)
{
	UNCANCELLED;
	uint64_t end = min_u64(guard->footer->bytes, offset + bytes), block;
	unsigned char *scratch = NULL;
	int ret = 0;

	for (block = offset / BLOCK_BYTES; ret == 0 && block * BLOCK_BYTES < end; block++) {
		if (atomic_load(&guard->is_checked[block]))
			continue;
		if (scratch == NULL)
			scratch = malloc(BLOCK_BYTES);
		ret = scratch == NULL ? -ENOMEM : check_block(guard, fd, block, scratch);
	}
	free(scratch);
	return ret;
}
