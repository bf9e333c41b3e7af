/* SPDX-License-Identifier: MIT */
#include "store/former.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/step.h"
#include "base/thread.h"
#include "store/adopt.h"
#include "store/blob.h"

#define SLICE_FILES 64 /* adopted or removed at once */

bool former_is_name(const struct store *store, const char *file_name)
{
	const char *uuid = file_name + BLOB_HASH_DIGITS + 1;

	return strnlen(file_name, BLOB_HASH_DIGITS + UUID_TEXT_BYTES + 1) > BLOB_HASH_DIGITS + UUID_TEXT_BYTES &&
	       uuid[-1] == '.' && uuid[UUID_TEXT_BYTES - 1] == '.' &&
	       memcmp(uuid, store->uuid, UUID_TEXT_BYTES - 1) != 0;
}

/* Sixteen digits, which others may have chosen: then it is in vain. */
static uint32_t bits_of(const char *digits)
{
	char copy[BLOB_HASH_DIGITS / 2 + 1];

	snprintf(copy, sizeof(copy), "%s", digits);
	return (uint32_t)strtoull(copy, NULL, 16);
}

void former_note(struct store *store, const char *file_name)
{
	const uint32_t mask = store->segment->geometry.buckets * 32 - 1;
	const uint32_t bits[] = { bits_of(file_name) & mask,
				  bits_of(file_name + BLOB_HASH_DIGITS / 2) & mask };

	for (unsigned i = 0; i < ARRAY_COUNT(bits); i++)
		shm_or(&store->segment->former_keys[bits[i] / 32], 1u << bits[i] % 32);
}

void former_list(struct store *store, uint32_t fan)
{
	/* STEP former-noted: some are noted, and nobody goes by it. Die here: the next one notes them. */
	STEP("former-noted");
	/* ORDER former-listed, seq_cst: the bits before listed. Pairs with former_may_have(). */
	shm_or(&store->segment->header->former_listed[fan / 64], 1ull << fan % 64);
}

uint64_t former_bytes(const struct store *store)
{
	uint64_t sum = 0, bytes;

	for (uint32_t fan = 0; fan < SHM_FANS; fan++) {
		bytes = shm_load_relaxed(&store->segment->header->former[fan]);
		sum += bytes != FORMER_UNKNOWN ? bytes : 0;
	}
	return sum;
}

void former_none(struct store *store, uint32_t fan)
{
	shm_store_relaxed(&store->segment->header->former[fan], 0);
}

uint64_t former_disk_bytes(const struct store *store, const char *path)
{
	struct stat st;

	if (fstatat(store->blobs_fd, path, &st, AT_SYMLINK_NOFOLLOW) < 0)
		return 0;
	return (uint64_t)st.st_blocks * 512;
}

void former_took(const struct store *store, const char *path, uint64_t bytes)
{
	uint32_t fan = (uint32_t)strtoul(path, NULL, 16) % SHM_FANS;
	shm_u64 *word = &store->segment->header->former[fan];
	uint64_t before = shm_load_relaxed(word);

	/* 0 says that there is none: that only a look at all of the directory can tell. */
	while (before != FORMER_UNKNOWN && before > 1 &&
	       !shm_cas(word, before, before - min_u64(bytes, before - 1)))
		before = shm_load_relaxed(word);
}

static DIR *open_fan(const struct store *store, uint32_t fan)
{
	char name[4];
	int fd;
	DIR *dir;

	snprintf(name, sizeof(name), "%02x", fan);
	fd = fd_openat(store->blobs_fd, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW, 0);
	if (fd < 0)
		return NULL;
	dir = fdopendir(fd);
	if (dir == NULL)
		close(fd);
	return dir;
}

/* How much they take in one directory; FORMER_UNKNOWN if it cannot be read. */
static uint64_t count_fan(const struct store *store, uint32_t fan, uint32_t *seen)
{
	DIR *dir = open_fan(store, fan);
	uint64_t sum = 0;
	struct dirent *at;
	struct stat st;

	if (dir == NULL)
		return errno == ENOENT ? 0 : FORMER_UNKNOWN;
	for (; (at = readdir(dir)) != NULL; (*seen)++)
		if (former_is_name(store, at->d_name) &&
		    fstatat(dirfd(dir), at->d_name, &st, AT_SYMLINK_NOFOLLOW) == 0)
			sum += max_u64((uint64_t)st.st_blocks * 512, 1);
	closedir(dir);
	return sum;
}

bool former_count(struct store *store, uint32_t files)
{
	UNCANCELLED;
	bool is_counted = true;
	uint32_t seen = 0;

	for (uint32_t fan = 0; fan < SHM_FANS; fan++) {
		shm_u64 *word = &store->segment->header->former[fan];
		uint64_t bytes;

		if (shm_load_relaxed(word) != FORMER_UNKNOWN)
			continue;
		if (seen >= files)
			return false;
		bytes = count_fan(store, fan, &seen);
		is_counted &= bytes != FORMER_UNKNOWN;
		/* More may come to those of a segment that is still in use. */
		if (bytes == 0 && adopt_is_theirs(store))
			bytes = 1;
		/* STEP former-counted: not told. Die here: the next one counts. */
		STEP("former-counted");
		shm_cas(word, FORMER_UNKNOWN, bytes);
	}
	return is_counted;
}

/* A few of them. */
struct slice {
	uint32_t done;	/* that are entries now, or gone */
	uint64_t freed, wanted;
};

static bool is_over(const struct slice *slice)
{
	return slice->done == SLICE_FILES || slice->freed >= slice->wanted;
}

/* An entry now, or gone. False: it can be neither yet. */
static bool take(struct store *store, const char *path, struct slice *slice)
{
	const char *why;
	uint64_t bytes;
	int ret = adopt_file(store, path, false, &why);

	if (ret == 0) {
		bytes = former_disk_bytes(store, path);
		if (blob_remove_path(store, path) < 0)
			return false;
		former_took(store, path, bytes);
		slice->freed += bytes;
	}
	slice->done += ret >= 0;
	return ret >= 0;
}

/* False: the directory has none any more. */
static bool adopt_fan(struct store *store, uint32_t fan, struct slice *slice)
{
	char path[NAME_MAX + 8];
	bool is_left = false;
	struct dirent *at;
	DIR *dir = open_fan(store, fan);

	if (dir == NULL)
		return errno != ENOENT;
	while ((at = readdir(dir)) != NULL) {
		if (!former_is_name(store, at->d_name))
			continue;
		if (is_over(slice)) {
			is_left = true;
			break;
		}
		snprintf(path, sizeof(path), "%02x/%s", fan, at->d_name);
		is_left |= !take(store, path, slice);
	}
	closedir(dir);
	return is_left;
}

uint32_t former_adopt_some(struct store *store, uint64_t bytes, uint64_t *ret_freed)
{
	UNCANCELLED;
	struct slice slice = { .wanted = bytes };

	if (!adopt_is_theirs(store))
		for (uint32_t fan = 0; fan < SHM_FANS && !is_over(&slice); fan++)
			if (shm_load_relaxed(&store->segment->header->former[fan]) != 0 &&
			    !adopt_fan(store, fan, &slice))
				former_none(store, fan);
	*ret_freed = slice.freed;
	return slice.done;
}
