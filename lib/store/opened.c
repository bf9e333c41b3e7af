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

/* The @all bytes of its file, and not a byte more. */
static int read_file(struct open_blob *blob, unsigned char *data, uint64_t all)
{
	uint64_t done = 0;
	ssize_t part;

	/* One byte more is asked for than there should be; short of it is its end. */
	do {
		part = blob_read(blob->fd, data + done, (size_t)(all + 1 - done), done);
		if (part < 0)
			return (int)part;
		done += (uint64_t)part;
	} while (part > 0 && done < all);
	return done == all ? 0 : -EBADMSG;
}

/* A small raw one. */
static int fill_copy(struct open_blob *blob, struct key_hash hash, const struct blob_facts *facts)
{
	unsigned char *end = blob->copy + round_up_u64(facts->bytes, 8);
	size_t bytes = (size_t)(facts->file_bytes - facts->bytes);
	struct footer footer;
	int ret = read_file(blob, blob->copy, facts->file_bytes);

	if (ret < 0 || !facts->is_guarded)
		return ret;
	/* Where its words may be put: behind the payload the copy is of no more use. */
	memmove(end, blob->copy + facts->bytes, bytes);
	if (footer_decode(end, bytes, facts->file_bytes, &footer, &bytes) < 0 ||
	    !footer_is_of(&footer, BLOB_RAW, facts->bytes, hash) ||
	    (footer.bytes > 0 && footer.words[0] != sums_of(blob->copy, (size_t)footer.bytes)))
		return -EBADMSG;
	return 0;
}

/* A small packed one: one block, or none. */
static int fill_unpacked(struct open_blob *blob, struct key_hash hash,
			 const struct blob_facts *facts)
{
	struct unpacked unpacked = { .bytes = 0 };
	struct packed *packed;
	ssize_t done = 0;
	int ret = packed_open(blob->fd, facts->bytes, facts->file_bytes, hash, &packed);

	if (ret < 0)
		return ret;
	if (facts->bytes > 0)
		done = packed_read(packed, blob->fd, &unpacked, blob->copy, (size_t)facts->bytes, 0,
				   facts->bytes);
	unpacked_free(&unpacked);
	packed_free(packed);
	return done < 0 ? (int)done : 0;
}

/* Its file is open and of the right size. */
static int look_into_finished(struct open_blob *blob, struct key_hash hash,
			      const struct blob_facts *facts)
{
	if (facts->is_packed)
		return packed_open(blob->fd, facts->bytes, facts->file_bytes, hash, &blob->packed);
	if (!facts->is_guarded)
		return 0;
	return guard_open(blob->fd, facts->bytes, facts->file_bytes, hash, &blob->guard);
}

int opened_look_into(struct store *store, struct open_blob *blob, struct key_hash hash,
		     const struct blob_facts *facts, bool is_copy)
{
	int ret;

	if (facts->bytes == TABLE_GROWING)
		return facts->is_packed ? packed_new(&blob->packed) : 0;
	/* What its entry says is not to be trusted with memory. */
	if (!facts->is_packed && facts->file_bytes < facts->bytes)
		return -EBADMSG;
	if (!is_copy || facts->is_packed)
		ret = opened_has_size(blob, facts->file_bytes) ? 0 : -EBADMSG;
	else
		ret = fill_copy(blob, hash, facts);
	if (ret == 0 && is_copy && facts->is_packed)
		ret = fill_unpacked(blob, hash, facts);
	else if (ret == 0 && !is_copy)
		ret = look_into_finished(blob, hash, facts);
	blob->is_guarded = facts->is_guarded;
	if (ret < 0 || !is_copy)
		return ret;
	close(blob->fd);
	blob->fd = -1;
	if (facts->is_guarded)
		entry_set_verified(store->segment, blob->name);
	return 0;
}

void opened_forget(struct open_blob *blob)
{
	unsigned char *view = atomic_load(&blob->view);

	if (view != NULL)
		munmap(view, atomic_load(&blob->bytes));
	if (blob->fd >= 0)
		close(blob->fd);
}

void opened_close(struct open_blob *blob)
{
	UNCANCELLED;

	opened_forget(blob);
	guard_free(blob->guard);
	packed_free(blob->packed);
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

ssize_t opened_unpack(const struct open_blob *blob, struct unpacked *unpacked, void *ret_data,
		      size_t bytes, uint64_t offset, uint64_t end)
{
	return packed_read(blob->packed, blob->fd, unpacked, ret_data, bytes, offset, end);
}

int opened_fd(const struct open_blob *blob)
{
	return blob->packed != NULL ? -1 : blob->fd;
}

const unsigned char *opened_view(struct open_blob *blob)
{
	uint64_t bytes = atomic_load_explicit(&blob->bytes, memory_order_acquire);
	unsigned char *view = atomic_load_explicit(&blob->view, memory_order_acquire), *seen = NULL;

	if (blob->fd < 0)
		return blob->copy;
	if (view != NULL || bytes == TABLE_GROWING || bytes > SIZE_MAX / 2 || blob->packed != NULL)
		return view;
	view = mmap(NULL, (size_t)bytes, PROT_READ, MAP_SHARED, blob->fd, 0);
	if (view == MAP_FAILED)
		return NULL;
	if (atomic_compare_exchange_strong(&blob->view, &seen, view))
		return view;
	munmap(view, (size_t)bytes);
	return seen;
}

