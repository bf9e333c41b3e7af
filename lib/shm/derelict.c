/* SPDX-License-Identifier: MIT */
#include "shm/derelict.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/fd.h"
#include "base/quiet.h"
#include "base/step.h"
#include "shm/lockfile.h"

#define NAME_PREFIX "streamcache."
#define AGE_NS_MIN (60 * NS_PER_SEC)

bool derelict_is_name(const char *name)
{
	const size_t prefix = strlen(NAME_PREFIX);

	return strncmp(name, NAME_PREFIX, prefix) == 0 &&
	       strspn(name + prefix, "0123456789abcdef") == UUID_TEXT_BYTES - 1 &&
	       strlen(name) == prefix + UUID_TEXT_BYTES - 1;
}

/*
 * What stands before the epoch has its place in every layout; a creator may have died
 * before it set the magic.
 */
static bool is_header_of(const struct shm_header *header, const char *name)
{
	uint64_t magic = shm_load_relaxed(&header->magic);
	char uuid[UUID_TEXT_BYTES];

	uuid_text(header->uuid, uuid);
	return (magic == SHM_MAGIC || magic == SHM_MAGIC_RETIRED || magic == 0) &&
	       strcmp(name + strlen(NAME_PREFIX), uuid) == 0 &&
	       memchr(header->boot_id, '\0', sizeof(header->boot_id)) != NULL &&
	       memchr(header->dir, '\0', sizeof(header->dir)) != NULL && header->dir[0] == '/';
}

/* Does the cache it says it is of still want it? Also if we cannot tell. */
static bool is_wanted(const struct shm_header *header)
{
	struct lock_record record;
	char path[sizeof(header->dir) + 16];
	int fd, ret;

	/* A path that is as long may have been cut. */
	if (strlen(header->dir) == sizeof(header->dir) - 1)
		return true;
	snprintf(path, sizeof(path), "%s/ctl/lock", header->dir);
	fd = fd_openat(AT_FDCWD, path, O_RDONLY | O_NONBLOCK | O_CLOEXEC | O_NOFOLLOW, 0);
	if (fd < 0)
		return errno != ENOENT && errno != ENOTDIR;
	ret = lockfile_read_record(fd, &record);
	close(fd);
	return ret < 0 || memcmp(record.uuid, header->uuid, SHM_UUID_BYTES) == 0;
}

/*
 * Is it open for writing or mapped anywhere? Not, if we get a lease; it is held until @fd is
 * closed. Who wants to write meanwhile waits, and the kernel tells us by a signal, which
 * is to be SIGPIPE to this thread: struct quiet takes that away.
 */
static bool is_deserted(int fd)
{
	const struct f_owner_ex me = { .type = F_OWNER_TID, .pid = gettid() };

	return fcntl(fd, F_SETOWN_EX, &me) == 0 && fcntl(fd, F_SETSIG, SIGPIPE) == 0 &&
	       fcntl(fd, F_SETLEASE, F_RDLCK) == 0;
}

/* @at_fd's file @name, open as @fd. */
static bool judge(int at_fd, const char *name, int fd, bool dry_run)
{
	struct shm_header header;
	bool is_derelict;
	struct quiet quiet;

	/* By pread(), as whoever joins does. */
	if (pread(fd, &header, sizeof(header), 0) != (ssize_t)sizeof(header) ||
	    !is_header_of(&header, name))
		return false;
	quiet_begin(&quiet);
	/* Asked again under the lease: whoever had it open may have begun to want it. */
	is_derelict = !is_wanted(&header) && is_deserted(fd) && !is_wanted(&header) &&
		      (dry_run || unlinkat(at_fd, name, 0) == 0);
	if (is_derelict) {
		/* STEP derelict-removed: nobody's memory, without a name. Die here: it is gone. */
		STEP("derelict-removed");
	}
	fcntl(fd, F_SETLEASE, F_UNLCK);
	quiet_end(&quiet, SIGPIPE);
	return is_derelict;
}

/* Is it one that we may judge at all? A whole minute is more than making one takes. */
static bool is_ripe(const struct stat *st)
{
	uint64_t now_ns = clock_read_ns(CLOCK_REALTIME);
	uint64_t made_ns = (uint64_t)st->st_mtim.tv_sec * NS_PER_SEC + (uint64_t)st->st_mtim.tv_nsec;

	return st->st_uid == geteuid() && now_ns > made_ns && now_ns - made_ns > AGE_NS_MIN;
}

static bool look_at(int at_fd, const char *name, bool dry_run, struct stat *st)
{
	bool is_derelict;
	int fd;

	if (fstatat(at_fd, name, st, AT_SYMLINK_NOFOLLOW) < 0 || !S_ISREG(st->st_mode) ||
	    !is_ripe(st))
		return false;
	fd = fd_openat(at_fd, name, O_RDONLY | O_NONBLOCK | O_CLOEXEC | O_NOFOLLOW, 0);
	if (fd < 0)
		return false;
	is_derelict = fstat(fd, st) == 0 && S_ISREG(st->st_mode) && is_ripe(st) &&
		      judge(at_fd, name, fd, dry_run);
	close(fd);
	return is_derelict;
}

void derelict_remove(const char *dir_name, const unsigned char uuid[SHM_UUID_BYTES], bool dry_run,
		     void (*found)(void *arg, const char *path, uint64_t bytes), void *arg)
{
	int fd = fd_openat(AT_FDCWD, dir_name, O_RDONLY | O_DIRECTORY | O_CLOEXEC, 0);
	DIR *dir = fd < 0 ? NULL : fdopendir(fd);
	char path[768], own[UUID_TEXT_BYTES];
	struct dirent *at;
	struct stat st;

	if (dir == NULL && fd >= 0)
		close(fd);
	if (dir == NULL)
		return;
	uuid_text(uuid, own);
	while ((at = readdir(dir)) != NULL) {
		if (!derelict_is_name(at->d_name) ||
		    strcmp(at->d_name + strlen(NAME_PREFIX), own) == 0)
			continue;
		if (!look_at(fd, at->d_name, dry_run, &st))
			continue;
		snprintf(path, sizeof(path), "%s/%s", dir_name, at->d_name);
		found(arg, path, (uint64_t)st.st_blocks * 512);
	}
	closedir(dir);
}
