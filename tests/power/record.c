/* SPDX-License-Identifier: MIT */
/*
 * record - each change below the root, as the kernel has taken it.
 *
 * The call and its record are one step: a lock in memory of all processes is held
 * around both, so the log has them in the order in which they happened. The disk
 * itself is never asked to sync: that it was to is what counts.
 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#include "power.h"

#define LOG_BYTES (1ull << 30) /* of address space */
#define PLACES 65536u
#define NOBODY UINT32_MAX

/* Every call to NAME in the program goes to __wrap_NAME, which has __real_NAME. */
#define WRAPPED(type, name, args) \
	type __real_##name args;  \
	type __wrap_##name args

WRAPPED(int, openat, (int at, const char *path, int flags, ...));
WRAPPED(int, mkdirat, (int at, const char *path, mode_t mode));
WRAPPED(ssize_t, pwrite, (int fd, const void *data, size_t bytes, off_t offset));
WRAPPED(ssize_t, pwritev, (int fd, const struct iovec *pieces, int count, off_t offset));
WRAPPED(int, ftruncate, (int fd, off_t bytes));
WRAPPED(int, fchmod, (int fd, mode_t mode));
WRAPPED(int, fchmodat, (int at, const char *path, mode_t mode, int flags));
WRAPPED(int, renameat, (int at, const char *path, int to, const char *other));
WRAPPED(int, unlinkat, (int at, const char *path, int flags));
WRAPPED(int, fsync, (int fd));
WRAPPED(int, fdatasync, (int fd));

uint32_t record_key, record_gen;

struct log {
	pthread_mutex_t mutex;
	bool is_on, ignores_sync;
	uint64_t bytes;
	uint32_t records, nodes;
	_Atomic uint32_t gens;
	struct place {
		uint64_t id; /* 0: free */
		uint32_t node;
	} places[PLACES];
	unsigned char data[];
};

static struct log *all;

/* --------------------------------------------------------------------- the log */

static struct place *place_of(uint64_t id)
{
	uint64_t at = id >> 32;

	while (all->places[at % PLACES].id != 0 && all->places[at % PLACES].id != id)
		at++;
	return &all->places[at % PLACES];
}

/* What no other file has or has had: an inode's number is used again. 0: there is none. */
static uint64_t id_at(int at, const char *path)
{
	struct statx st;

	if (statx(at, path, path[0] == '\0' ? AT_EMPTY_PATH : AT_SYMLINK_NOFOLLOW,
		  STATX_INO | STATX_BTIME, &st) < 0)
		return 0;
	return (st.stx_ino * 0x9e3779b97f4a7c15ull ^
		((uint64_t)st.stx_btime.tv_sec * 1000000000 + st.stx_btime.tv_nsec)) *
		       0xbf58476d1ce4e5b9ull |
	       1;
}

static uint32_t new_node(int at, const char *path)
{
	uint64_t id = id_at(at, path);

	*place_of(id) = (struct place){ .id = id, .node = all->nodes };
	if (all->nodes > PLACES / 2)
		fail("too many files");
	return all->nodes++;
}

static uint32_t node_at(int at, const char *path)
{
	uint64_t id = id_at(at, path);

	return id != 0 && place_of(id)->id != 0 ? place_of(id)->node : NOBODY;
}

static uint32_t node_of(int fd)
{
	return node_at(fd, "");
}

static const char *last_of(const char *path)
{
	const char *slash = strrchr(path, '/');

	return slash != NULL ? slash + 1 : path;
}

static uint32_t parent_of(int at, const char *path)
{
	const char *last = last_of(path);
	char parent[4096];

	if (last == path)
		return at == AT_FDCWD ? NOBODY : node_of(at);
	snprintf(parent, sizeof(parent), "%.*s", (int)(last - path), path);
	return node_at(at, parent);
}

/* The next record, with room for @bytes bytes of data. */
static struct record *append(enum kind kind, uint32_t node, uint64_t bytes)
{
	struct record *record = (struct record *)(void *)(all->data + all->bytes);

	all->bytes += (sizeof(*record) + bytes + 15) / 16 * 16;
	if (sizeof(*all) + all->bytes > LOG_BYTES)
		fail("the log is full");
	*record = (struct record){ .kind = kind,
				   .node = node,
				   .bytes = bytes,
				   .index = all->records++,
				   .key = record_key,
				   .gen = record_gen };
	return record;
}

static void append_named(enum kind kind, uint32_t node, uint32_t parent, const char *path,
			 const char *other)
{
	struct record *record = append(kind, node, 0);

	record->parent = parent;
	snprintf(record->name, NAME_BYTES, "%s", last_of(path));
	snprintf(record->other, NAME_BYTES, "%s", other != NULL ? last_of(other) : "");
}

static bool enter(void)
{
	if (all == NULL || !all->is_on)
		return false;
	pthread_mutex_lock(&all->mutex);
	return true;
}

static void leave(bool entered)
{
	int error = errno;

	if (entered)
		pthread_mutex_unlock(&all->mutex);
	errno = error;
}

void log_make(const char *root, bool ignores_sync)
{
	pthread_mutexattr_t shared;

	all = mmap(NULL, LOG_BYTES, PROT_READ | PROT_WRITE,
		   MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (all == MAP_FAILED)
		fail("no room for a log");
	pthread_mutexattr_init(&shared);
	pthread_mutexattr_setpshared(&shared, PTHREAD_PROCESS_SHARED);
	pthread_mutex_init(&all->mutex, &shared);
	all->ignores_sync = ignores_sync;
	new_node(AT_FDCWD, root);
	all->is_on = true;
}

void log_free(void)
{
	munmap(all, LOG_BYTES);
	all = NULL;
}

void log_switch(bool is_on)
{
	all->is_on = is_on;
}

void log_note(enum kind kind, uint32_t key, uint32_t gen, bool replaces)
{
	bool entered = enter();
	struct record *record;

	if (entered) {
		record = append(kind, NOBODY, 0);
		record->key = key;
		record->gen = gen;
		record->offset = replaces;
	}
	leave(entered);
}

const struct record *log_next(const struct record *record)
{
	const unsigned char *at =
		record == NULL ? all->data
			       : (const unsigned char *)record +
					 (sizeof(*record) +
					  (record->kind == WRITTEN ? record->bytes : 0) + 15) /
						 16 * 16;

	return at < all->data + all->bytes ? (const struct record *)(const void *)at : NULL;
}

uint32_t log_count(void)
{
	return all->records;
}

uint32_t log_gen(void)
{
	return atomic_fetch_add(&all->gens, 1) + 1;
}

/* -------------------------------------------------------------------- the calls */

int __wrap_openat(int at, const char *path, int flags, ...)
{
	bool entered = flags & (O_CREAT | O_TRUNC) ? enter() : false, was_there;
	mode_t mode = 0;
	struct stat st;
	va_list args;
	int fd;

	va_start(args, flags);
	if (flags & O_CREAT)
		mode = va_arg(args, mode_t);
	va_end(args);
	was_there = entered && fstatat(at, path, &st, AT_SYMLINK_NOFOLLOW) == 0;
	fd = __real_openat(at, path, flags, mode);
	if (entered && fd >= 0 && !was_there && parent_of(at, path) != NOBODY &&
	    fstat(fd, &st) == 0) {
		append_named(MADE, new_node(fd, ""), parent_of(at, path), path, NULL);
		append(MODE, node_of(fd), 0)->offset = st.st_mode & 07777;
	} else if (entered && fd >= 0 && was_there && flags & O_TRUNC && node_of(fd) != NOBODY) {
		append(CUT, node_of(fd), 0);
	}
	leave(entered);
	return fd;
}

int __wrap_mkdirat(int at, const char *path, mode_t mode)
{
	bool entered = enter();
	int ret = __real_mkdirat(at, path, mode);

	if (entered && ret == 0 && parent_of(at, path) != NOBODY)
		append_named(MADE, new_node(at, path), parent_of(at, path), path, "/d");
	leave(entered);
	return ret;
}

static void append_data(int fd, const struct iovec *pieces, size_t bytes, off_t offset)
{
	uint32_t node = node_of(fd);
	struct record *record;
	size_t done = 0, part;

	if (node == NOBODY || bytes == 0)
		return;
	record = append(WRITTEN, node, bytes);
	record->offset = (uint64_t)offset;
	for (; done < bytes; done += part, pieces++) {
		part = pieces->iov_len < bytes - done ? pieces->iov_len : bytes - done;
		memcpy(record->data + done, pieces->iov_base, part);
	}
}

ssize_t __wrap_pwrite(int fd, const void *data, size_t bytes, off_t offset)
{
	const struct iovec piece = { .iov_base = (void *)(uintptr_t)data, .iov_len = bytes };
	bool entered = enter();
	ssize_t done = __real_pwrite(fd, data, bytes, offset);

	if (entered && done > 0)
		append_data(fd, &piece, (size_t)done, offset);
	leave(entered);
	return done;
}

ssize_t __wrap_pwritev(int fd, const struct iovec *pieces, int count, off_t offset)
{
	bool entered = enter();
	ssize_t done = __real_pwritev(fd, pieces, count, offset);

	if (entered && done > 0)
		append_data(fd, pieces, (size_t)done, offset);
	leave(entered);
	return done;
}

int __wrap_ftruncate(int fd, off_t bytes)
{
	bool entered = enter();
	int ret = __real_ftruncate(fd, bytes);

	if (entered && ret == 0 && node_of(fd) != NOBODY)
		append(CUT, node_of(fd), 0)->offset = (uint64_t)bytes;
	leave(entered);
	return ret;
}

int __wrap_fchmod(int fd, mode_t mode)
{
	bool entered = enter();
	int ret = __real_fchmod(fd, mode);

	if (entered && ret == 0 && node_of(fd) != NOBODY)
		append(MODE, node_of(fd), 0)->offset = mode;
	leave(entered);
	return ret;
}

int __wrap_fchmodat(int at, const char *path, mode_t mode, int flags)
{
	bool entered = enter();
	int ret = __real_fchmodat(at, path, mode, flags);

	if (entered && ret == 0 && node_at(at, path) != NOBODY)
		append(MODE, node_at(at, path), 0)->offset = mode;
	leave(entered);
	return ret;
}

int __wrap_renameat(int at, const char *path, int to, const char *other)
{
	bool entered = enter();
	int ret = __real_renameat(at, path, to, other);

	if (entered && ret == 0 && parent_of(at, path) != parent_of(to, other))
		fail("a rename from one directory to another");
	if (entered && ret == 0 && parent_of(at, path) != NOBODY)
		append_named(RENAMED, node_at(to, other), parent_of(at, path), path, other);
	leave(entered);
	return ret;
}

int __wrap_unlinkat(int at, const char *path, int flags)
{
	bool entered = enter();
	int ret = __real_unlinkat(at, path, flags);

	if (entered && ret == 0 && parent_of(at, path) != NOBODY)
		append_named(REMOVED, NOBODY, parent_of(at, path), path, NULL);
	leave(entered);
	return ret;
}

int __wrap_fsync(int fd)
{
	bool entered = enter();

	if (!entered)
		return __real_fsync(fd);
	if (node_of(fd) != NOBODY && !all->ignores_sync)
		append(SYNCED, node_of(fd), 0);
	leave(entered);
	return 0;
}

int __wrap_fdatasync(int fd)
{
	return __wrap_fsync(fd);
}
