/* SPDX-License-Identifier: MIT */
#include "store/opened.h"

#include <errno.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/thread.h"
#include "store/blob.h"
#include "store/footer.h"
#include "store/sums.h"

bool opened_has_size(const struct open_blob *blob, uint64_t file_bytes)
{
	struct stat st;

	return fstat(blob->fd, &st) == 0 && (uint64_t)st.st_size == file_bytes;
}

/* All of a small finished blob with its footer, and not a byte more. */
static int fill_copy(struct open_blob *blob, const struct blob_facts *facts)
{
	uint64_t done = 0, all = facts->file_bytes;
	struct footer footer;
	ssize_t part;
	size_t bytes;

	/* One byte more is asked for than there should be; short of it is its end. */
	do {
		part = blob_read(blob->fd, blob->copy + done, (size_t)(all + 1 - done), done);
		if (part < 0)
			return (int)part;
		done += (uint64_t)part;
	} while (part > 0 && done < all);
	if (done != all)
		return -EBADMSG;
	close(blob->fd);
	blob->fd = -1;
	if (!facts->is_guarded)
		return 0;
	bytes = (size_t)(all - facts->bytes);
	/* Where its words may be put: behind the payload the copy is of no more use. */
	memmove(blob->copy + round_up_u64(facts->bytes, 8), blob->copy + facts->bytes, bytes);
	if (footer_decode(blob->copy + round_up_u64(facts->bytes, 8), bytes, all, &footer,
			  &bytes) < 0 || footer.bytes != facts->bytes ||
	    (footer.bytes > 0 && footer.words[0] != sums_of(blob->copy, (size_t)footer.bytes)))
		return -EBADMSG;
	return 0;
}

int opened_look_into(struct store *store, struct open_blob *blob, const struct blob_facts *facts,
		     bool is_copy)
{
	int ret = 0;

	if (facts->bytes == TABLE_GROWING)
		return 0;
	if (is_copy)
		ret = fill_copy(blob, facts);
	else if (!opened_has_size(blob, facts->file_bytes))
		ret = -EBADMSG;
	else if (facts->is_guarded)
		ret = guard_open(blob->fd, facts->bytes, facts->file_bytes, &blob->guard);
	blob->is_guarded = facts->is_guarded;
	if (ret == 0 && is_copy && facts->is_guarded)
		entry_set_verified(store->segment, blob->name);
	return ret;
}

void opened_close(struct open_blob *blob)
{
	UNCANCELLED;
	unsigned char *view = atomic_load(&blob->view);

	if (view != NULL)
		munmap(view, atomic_load(&blob->bytes));
	if (blob->fd >= 0)
		close(blob->fd);
	guard_free(blob->guard);
}

int opened_check(struct store *store, struct open_blob *blob, uint64_t offset, size_t bytes)
{
	int ret;

	if (likely(blob->guard == NULL) || guard_is_done(blob->guard))
		return 0;
	ret = guard_check(blob->guard, blob->fd, offset, bytes);
	if (ret == 0 && guard_is_done(blob->guard))
		entry_set_verified(store->segment, blob->name);
	return ret;
}

ssize_t opened_read(const struct open_blob *blob, void *ret_data, size_t bytes, uint64_t offset)
{
	/* TABLE_GROWING is more than any file has. */
	uint64_t size = atomic_load_explicit(&blob->bytes, memory_order_relaxed);

	offset = min_u64(offset, size);
	bytes = (size_t)min_u64(bytes, size - offset);
	if (blob->fd >= 0)
		return blob_read(blob->fd, ret_data, bytes, offset);
	memcpy(ret_data, blob->copy + offset, bytes);
	return (ssize_t)bytes;
}

int opened_fd(const struct open_blob *blob)
{
	return blob->fd;
}

const unsigned char *opened_view(struct open_blob *blob)
{
	uint64_t bytes = atomic_load_explicit(&blob->bytes, memory_order_acquire);
	unsigned char *view = atomic_load_explicit(&blob->view, memory_order_acquire), *seen = NULL;

	if (blob->fd < 0)
		return blob->copy;
	if (view != NULL || bytes == TABLE_GROWING || bytes > SIZE_MAX / 2)
		return view;
	view = mmap(NULL, (size_t)bytes, PROT_READ, MAP_SHARED, blob->fd, 0);
	if (view == MAP_FAILED)
		return NULL;
	if (atomic_compare_exchange_strong(&blob->view, &seen, view))
		return view;
	munmap(view, (size_t)bytes);
	return seen;
}

