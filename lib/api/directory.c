/* SPDX-License-Identifier: MIT */
/*
 * directory - DIR, ctl/ and blobs/: made, opened and checked.
 *
 * Peers trust each other, so nobody else may be able to put anything here:
 * the directories belong to us and are writable by nobody else, unless a
 * group share was asked for explicitly (mode 0770).
 */
#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "api/cache.h"
#include "base/detail.h"
#include "base/fd.h"
#include "base/step.h"

static int judge(const struct stat *st, const char *what, uint32_t mode)
{
	if (st->st_uid != geteuid() && !(mode & 070))
		return detail_set(-EPERM,
				  "%s belongs to uid %u and not to you (uid %u); use a directory of "
				  "your own, or share one with a group by mode 0770",
				  what, (unsigned)st->st_uid, (unsigned)geteuid());
	if (st->st_mode & 02)
		return detail_set(-EPERM, "%s can be written by everybody; chmod o-w it, or use "
					  "another directory", what);
	if (st->st_mode & 020 && !(mode & 020))
		return detail_set(-EPERM,
				  "%s can be written by its group; chmod g-w it, or ask for a group "
				  "share by mode 0770", what);
	return 0;
}

/*
 * A group share that was asked for: its group enters, and owns what is made
 * inside. Not only for a new directory: its maker may have died before this.
 */
static int share_with_group(int fd, uint32_t mode, gid_t group)
{
	struct stat st;

	if (!(mode & 070) || fstat(fd, &st) < 0 || st.st_uid != geteuid() ||
	    (st.st_gid == group && (st.st_mode & 07777) == (mode | S_ISGID)))
		return 0;
	if (st.st_gid != group && fchown(fd, (uid_t)-1, group) < 0)
		return detail_set(-errno, "cannot share the cache directory with its group");
	/*
	 * STEP directory-chowned: the group's, and closed to it. Die here: its owner's next open
	 * shares it.
	 */
	STEP("directory-chowned");
	if (fchmod(fd, mode | S_ISGID) < 0)
		return detail_set(-errno, "cannot share the cache directory with its group");
	/*
	 * STEP directory-shared: others of the group may enter. Die here: the next opener goes on.
	 */
	STEP("directory-shared");
	return 0;
}

/* Open directory @name below @at, made if need be, never through a symbolic link. */
static int open_directory(int at, const char *name, const char *what, uint32_t mode, bool create)
{
	const int flags = O_RDONLY | O_DIRECTORY | O_CLOEXEC | (at == AT_FDCWD ? 0 : O_NOFOLLOW);
	struct stat st;
	int fd, ret;

	fd = fd_openat(at, name, flags, 0);
	if (fd < 0 && errno == ENOENT && create) {
		if (mkdirat(at, name, 0700) < 0 && errno != EEXIST)
			return detail_set(-errno, "cannot create %s", what);
		/*
		 * STEP directory-made: empty, for its owner alone. Die here: the next opener goes
		 * on.
		 */
		STEP("directory-made");
		fd = fd_openat(at, name, flags, 0);
	}
	if (fd < 0 && errno == ENOTDIR && at != AT_FDCWD)
		return detail_set(-ELOOP, "%s is a symbolic link or a file; move it away", what);
	if (fd < 0)
		return detail_set(-errno,
				  errno == ENOTDIR  ? "%s is not a directory"
				  : errno == ENOENT ? "%s does not exist"
						    : "cannot open %s",
				  what);
	ret = fstat(fd, &st) < 0 ? -errno : judge(&st, what, mode);
	if (ret < 0) {
		close(fd);
		return ret;
	}
	return fd;
}

void cache_close_fds(struct cache_fds *fds)
{
	int *all[] = { &fds->dir_fd, &fds->ctl_fd, &fds->blobs_fd };

	if (fds->lock_fd >= 0)
		lockfile_close(fds->lock_fd);
	fds->lock_fd = -1;
	for (unsigned i = 0; i < ARRAY_COUNT(all); i++)
		if (*all[i] >= 0) {
			close(*all[i]);
			*all[i] = -1;
		}
}

int cache_open_directories(const char *dir, uint32_t mode, bool create, struct cache_fds *ret_fds)
{
	struct cache_fds fds = { -1, -1, -1, -1, 0 };
	struct stat st;
	int ret;

	ret = fds.dir_fd = open_directory(AT_FDCWD, dir, dir, mode, create);
	if (ret < 0)
		return ret;
	if (fstat(fds.dir_fd, &st) == 0)
		fds.group = st.st_gid;
	/* The lock file makes a directory a cache; ctl alone may be a beginning that died. */
	ret = fds.ctl_fd = open_directory(fds.dir_fd, "ctl", "ctl in the cache directory", mode,
					  create);
	if (ret >= 0)
		ret = fds.lock_fd = lockfile_open(fds.ctl_fd, mode & 0666, fds.group, create);
	if (ret >= 0)
		ret = fds.blobs_fd = open_directory(fds.dir_fd, "blobs",
						    "blobs in the cache directory", mode, true);
	/* Only now: the lock file has told that the cache may be shared. */
	if (ret >= 0)
		ret = share_with_group(fds.dir_fd, mode, fds.group);
	if (ret >= 0)
		ret = share_with_group(fds.ctl_fd, mode, fds.group);
	if (ret >= 0)
		ret = share_with_group(fds.blobs_fd, mode, fds.group);
	if (ret < 0) {
		cache_close_fds(&fds);
		if (ret == -ENOENT && !create)
			return detail_set(ret, "%s is not a cache yet", dir);
		if (detail_get()[0] == '\0')
			detail_set(ret, ret == -ELOOP ? "ctl/lock in %s is a symbolic link; move it away"
						      : "cannot open ctl/lock in %s",
				   dir);
		return ret;
	}
	*ret_fds = fds;
	return 0;
}

int cache_sync_directories(const struct cache_fds *fds)
{
	int above_fd = fd_openat(fds->dir_fd, "..", O_RDONLY | O_DIRECTORY | O_CLOEXEC, 0);
	int ret = fsync(fds->dir_fd) < 0 ? -errno : 0;

	/* What we may not even list is not ours to care for. */
	if (ret == 0 && above_fd >= 0 && fsync(above_fd) < 0)
		ret = -errno;
	if (above_fd >= 0)
		close(above_fd);
	return ret < 0 ? detail_set(ret, "cannot sync the cache directory") : 0;
}
