/* SPDX-License-Identifier: MIT */
#include "store/blob.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/quiet.h"
#include "base/step.h"
#include "streamcache.h"

/* By hand: snprintf() is a twentieth of a first hit. */
static char *put_hex(char *at, uint64_t value, unsigned digits)
{
	while (digits-- > 0)
		*at++ = "0123456789abcdef"[value >> 4 * digits & 15];
	return at;
}

static char *put_decimal(char *at, uint32_t value)
{
	char digits[10];
	unsigned count = 0;

	do
		digits[count++] = (char)('0' + value % 10);
	while ((value /= 10) > 0);
	while (count > 0)
		*at++ = digits[--count];
	return at;
}

void blob_path(const struct store *store, struct entry_name name, struct key_hash hash,
	       char ret_path[BLOB_PATH_BYTES])
{
	char *at = put_hex(ret_path, hash.high >> 56, 2);

	*at++ = '/';
	at = put_hex(at, hash.high, 16);
	at = put_hex(at, hash.low, 16);
	*at++ = '.';
	at = mempcpy(at, store->uuid, UUID_TEXT_BYTES - 1);
	*at++ = '.';
	at = put_decimal(at, name.idx);
	*at++ = '.';
	*put_decimal(at, name.gen) = '\0';
}

bool blob_path_is_gone(const char *path)
{
	size_t bytes = strlen(path);

	return bytes >= strlen(BLOB_GONE) &&
	       strcmp(path + bytes - strlen(BLOB_GONE), BLOB_GONE) == 0;
}

/* Its other name, if it may have one: among users. */
static bool turn_gone(const struct store *store, char path[BLOB_PATH_BYTES])
{
	if (store->file_mode & 070)
		strcat(path, BLOB_GONE);
	return store->file_mode & 070;
}

bool blob_parse(const char *file_name, struct blob_id *ret_id)
{
	struct blob_id id;
	char hash[33];
	int end = 0;

	if (sscanf(file_name, "%32[0-9a-f].%32[0-9a-f].%" SCNu32 ".%" SCNu32 "%n", hash, id.uuid,
		   &id.name.idx, &id.name.gen, &end) != 4 ||
	    (file_name[end] != '\0' && strcmp(file_name + end, BLOB_GONE) != 0) ||
	    strlen(hash) != 32 || strlen(id.uuid) != 32)
		return false;
	*ret_id = id;
	return true;
}

/*
 * The umask must not take a group's share away, nor the death of a maker before
 * this line: an older directory of ours gets it, too.
 */
static void share_fan_out(const struct store *store, char *path)
{
	struct stat st;

	path[2] = '\0';
	if (fstatat(store->blobs_fd, path, &st, AT_SYMLINK_NOFOLLOW) == 0 &&
	    (st.st_mode & 0770) != (store->dir_mode & 0770) && st.st_uid == geteuid())
		(void)!fchmodat(store->blobs_fd, path, store->dir_mode, 0);
	path[2] = '/';
}

int blob_create(const struct store *store, struct entry_name name, struct key_hash hash)
{
	const int flags = O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW;
	char path[BLOB_PATH_BYTES];
	int fd, error = 0;

	blob_path(store, name, hash, path);
	fd = fd_openat(store->blobs_fd, path, flags, store->file_mode);
	if (fd < 0 && errno == ENOENT) {
		path[2] = '\0';
		if (mkdirat(store->blobs_fd, path, store->dir_mode) < 0 && errno != EEXIST)
			error = errno;
		path[2] = '/';
		/*
		 * STEP fan-out-made: perhaps closed to a group. Die here: our next blob in it opens
		 * it.
		 */
		STEP("fan-out-made");
		share_fan_out(store, path);
		fd = fd_openat(store->blobs_fd, path, flags, store->file_mode);
	} else if (fd >= 0 && store->dir_mode & 070) {
		share_fan_out(store, path);
	}
	if (fd < 0)
		return error != 0 ? -error : -errno;
	/* STEP blob-created: an empty file. Die here: removed when the entry is swept. */
	STEP("blob-created");
	if (store->file_mode & 070 && fchmod(fd, store->file_mode) < 0) {
		int ret = -errno;

		close(fd);
		unlinkat(store->blobs_fd, path, 0);
		return ret;
	}
	return fd;
}

int blob_open(const struct store *store, struct entry_name name, struct key_hash hash)
{
	const int flags = O_RDONLY | O_NONBLOCK | O_CLOEXEC | O_NOFOLLOW;
	char path[BLOB_PATH_BYTES];
	int fd;

	blob_path(store, name, hash, path);
	/* Whatever a stranger has put in its place: it must not block, and is not the blob. */
	do
		fd = fd_openat(store->blobs_fd, path, flags, 0);
	while (fd < 0 && errno == ENOENT && !blob_path_is_gone(path) && turn_gone(store, path));
	if (fd < 0)
		return errno == ELOOP ? -ENOENT : -errno;
	return fd;
}

/* One write; a limit on file sizes is an error code and not a signal. */
static ssize_t write_quietly(int fd, const void *data, size_t bytes, uint64_t offset)
{
	struct quiet quiet;
	ssize_t done;

	quiet_begin(&quiet);
	done = pwrite(fd, data, bytes, (off_t)offset);
	if (done < 0)
		done = -errno;
	quiet_end(&quiet, done == -EFBIG ? SIGXFSZ : 0);
	return done;
}

int blob_write(int fd, const void *data, size_t bytes, uint64_t offset)
{
	const unsigned char *at = data;

	while (bytes > 0) {
		ssize_t done = write_quietly(fd, at, bytes, offset);

		if (done == -EINTR)
			continue;
		if (done < 0)
			return (int)done;
		if (done == 0)
			return -EIO;
		at += done;
		offset += (uint64_t)done;
		bytes -= (size_t)done;
	}
	return 0;
}

int blob_write_two(int fd, const void *first, size_t first_bytes, const void *second,
		   size_t second_bytes, uint64_t offset)
{
	/* No write changes what it writes. */
	struct iovec pieces[2] = { { .iov_base = (void *)(uintptr_t)first, .iov_len = first_bytes },
				   { .iov_base = (void *)(uintptr_t)second,
				     .iov_len = second_bytes } };
	struct quiet quiet;
	ssize_t done;
	int ret;

	quiet_begin(&quiet);
	done = pwritev(fd, pieces, 2, (off_t)offset);
	quiet_end(&quiet, done < 0 && errno == EFBIG ? SIGXFSZ : 0);
	if (done == (ssize_t)(first_bytes + second_bytes))
		return 0;
	ret = blob_write(fd, first, first_bytes, offset);
	return ret < 0 ? ret : blob_write(fd, second, second_bytes, offset + first_bytes);
}

static int sync_directory(const struct store *store, const char *name)
{
	int fd = fd_openat(store->blobs_fd, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW, 0);
	int ret = fd < 0 || fsync(fd) < 0 ? -errno : 0;

	if (fd >= 0)
		close(fd);
	return ret;
}

/* The bytes, and, if its name is to be there after a power cut as well, the directories. */
static int make_durable(const struct store *store, int fd, struct key_hash hash)
{
	char fan[3] = { 0 };
	uint64_t durability = store_setting(store, SETTING_DURABILITY);
	int ret;

	if (durability == SCACHE_DURABILITY_NONE)
		return 0;
	if (fsync(fd) < 0)
		return -errno;
	if (durability == SCACHE_DURABILITY_DATA)
		return 0;
	put_hex(fan, hash.high >> 56, 2);
	ret = sync_directory(store, fan);
	return ret < 0 ? ret : sync_directory(store, ".");
}

int blob_end(int fd)
{
	/* After EINTR the descriptor is gone on Linux, and nothing is lost. */
	return close(fd) < 0 && errno != EINTR ? -errno : 0;
}

int blob_seal(const struct store *store, int fd, struct key_hash hash)
{
	int ret = fchmod(fd, store->file_mode & 0440) < 0 ? -errno : 0;

	/* Only its owner may; in a group share another member may have taken it over. */
	if (ret == -EPERM && store_setting(store, SETTING_DURABILITY) != SCACHE_DURABILITY_FULL)
		ret = 0;
	if (ret == 0)
		ret = make_durable(store, fd, hash);
	if (ret < 0)
		close(fd);
	return ret < 0 ? ret : blob_end(fd);
}

ssize_t blob_read(int fd, void *ret_data, size_t bytes, uint64_t offset)
{
	ssize_t done;

	do
		done = pread(fd, ret_data, bytes, (off_t)offset);
	while (done < 0 && errno == EINTR);
	return done < 0 ? -errno : done;
}

int blob_read_whole(int fd, void *ret_data, size_t bytes, uint64_t offset)
{
	size_t done = 0;
	ssize_t part;

	while (done < bytes) {
		part = blob_read(fd, (unsigned char *)ret_data + done, bytes - done, offset + done);
		if (part <= 0)
			return part == 0 ? -EBADMSG : (int)part;
		done += (size_t)part;
	}
	return 0;
}

/* Sealed files are read-only, also for their owner: then allow writing first. */
static int open_for_writing(const struct store *store, const char *path, int flags)
{
	int fd = fd_openat(store->blobs_fd, path, flags | O_CLOEXEC | O_NOFOLLOW, 0);

	if (fd >= 0 || errno != EACCES)
		return fd;
	fd = fd_openat(store->blobs_fd, path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW, 0);
	if (fd < 0)
		return fd;
	(void)!fchmod(fd, store->file_mode);
	close(fd);
	/* STEP blob-writable: whole, and nobody can find it. Die here: swept again. */
	STEP("blob-writable");
	return fd_openat(store->blobs_fd, path, flags | O_CLOEXEC | O_NOFOLLOW, 0);
}

int blob_reopen(const struct store *store, struct entry_name name, struct key_hash hash)
{
	char path[BLOB_PATH_BYTES];
	int fd;

	blob_path(store, name, hash, path);
	fd = open_for_writing(store, path, O_RDWR);
	return fd < 0 ? -errno : fd;
}

static int unlink_path(const struct store *store, const char *path)
{
	if (unlinkat(store->blobs_fd, path, 0) < 0)
		return -errno;
	/* STEP blob-removed: an entry without a file. Die here: its slot is swept again. */
	STEP("blob-removed");
	return 0;
}

int blob_remove_path(const struct store *store, const char *path)
{
	int fd = open_for_writing(store, path, O_WRONLY | O_TRUNC);

	if (fd >= 0)
		close(fd);
	/* STEP blob-emptied: no bytes, still named. Die here: swept again. */
	STEP("blob-emptied");
	return unlink_path(store, path);
}

void blob_disown(const struct store *store, struct entry_name name, struct key_hash hash)
{
	char path[BLOB_PATH_BYTES];

	blob_path(store, name, hash, path);
	(void)blob_disown_path(store, path);
}

int blob_disown_path(const struct store *store, const char *path)
{
	char gone[NAME_MAX + 8 + sizeof(BLOB_GONE)];
	struct stat st;

	if (fchmodat(store->blobs_fd, path, store->file_mode, 0) == 0)
		return 0;
	/* Another member's: one that grows has its w bit, and others look for its name. */
	if (errno != EPERM || !(store->file_mode & 070) ||
	    fstatat(store->blobs_fd, path, &st, AT_SYMLINK_NOFOLLOW) < 0)
		return -errno;
	if (st.st_mode & 0222)
		return 0;
	snprintf(gone, sizeof(gone), "%s" BLOB_GONE, path);
	return renameat(store->blobs_fd, path, store->blobs_fd, gone) < 0 ? -errno : 0;
}

void blob_unlink(const struct store *store, struct entry_name name, struct key_hash hash)
{
	char path[BLOB_PATH_BYTES];

	blob_path(store, name, hash, path);
	if (unlink_path(store, path) == -ENOENT && turn_gone(store, path))
		(void)unlink_path(store, path);
}

void blob_remove(const struct store *store, struct entry_name name, struct key_hash hash)
{
	char path[BLOB_PATH_BYTES];

	blob_path(store, name, hash, path);
	if (blob_remove_path(store, path) == -ENOENT && turn_gone(store, path))
		(void)blob_remove_path(store, path);
}
