/* SPDX-License-Identifier: MIT */
/*
 * destroy - remove a cache: its segment, its files, its directories.
 *
 * Under the gate, so that nobody can join meanwhile, and only if no slot byte
 * of any segment is held. Whatever is not ours is reported and left.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include "api/cache.h"
#include "base/detail.h"
#include "base/step.h"
#include "base/thread.h"
#include "store/clean.h"

struct destruction {
	const struct scache_sweep_options *options;
	struct store store; /* only its directories and its modes are used */
	bool dry_run;
	uint64_t unknown;
};

static void tell(const struct destruction *d, const char *name, const char *why, bool removed,
		 uint64_t bytes)
{
	const struct scache_victim victim = { .name = name,
					      .name_bytes = (uint32_t)strlen(name),
					      .why = why,
					      .removed = removed,
					      .bytes = bytes };

	if (d->options != NULL && d->options->victim != NULL)
		d->options->victim(d->options->arg, &victim);
}

static int destroy_file(void *arg, const struct clean_file *file)
{
	struct destruction *d = arg;

	if (file->blob == NULL) {
		d->unknown++;
		tell(d, file->path, "unknown", false, file->bytes);
	} else if (d->dry_run || blob_remove_path(&d->store, file->blob) == 0) {
		tell(d, file->path, "blob", !d->dry_run, file->bytes);
	}
	return 0;
}

static void remove_fan_outs(const struct destruction *d)
{
	char name[4];

	for (unsigned fan = 0; fan < 256; fan++) {
		snprintf(name, sizeof(name), "%02x", fan);
		unlinkat(d->store.blobs_fd, name, AT_REMOVEDIR);
	}
}

static void remove_segment(const struct destruction *d, int lock_fd)
{
	struct lock_record record;
	struct stat st;

	if (lockfile_read_record(lock_fd, &record) < 0 || lstat(record.path, &st) < 0 ||
	    !S_ISREG(st.st_mode))
		return;
	if (!d->dry_run)
		segment_remove_file(record.path);
	tell(d, record.path, "segment", !d->dry_run, (uint64_t)st.st_blocks * 512);
}

static int destroy_all(struct destruction *d, const char *dir, struct cache_fds *fds)
{
	int ret = clean_files(&d->store, destroy_file, d);

	if (ret < 0)
		return ret;
	remove_segment(d, fds->lock_fd);
	if (d->dry_run) {
		if (d->unknown == 0)
			tell(d, dir, "directory", false, 0);
		return 0;
	}
	/*
	 * STEP destroy-segment-gone: no blob, no segment. Die here: a cache anew for the next
	 * opener.
	 */
	STEP("destroy-segment-gone");
	remove_fan_outs(d);
	unlinkat(fds->dir_fd, "blobs", AT_REMOVEDIR);
	/*
	 * STEP destroy-blobs-gone: a lock file is all. Die here: a cache anew for the next opener.
	 */
	STEP("destroy-blobs-gone");
	/* The lock file last: until then nobody else can begin anew under it. */
	unlinkat(fds->ctl_fd, "lock", 0);
	/* STEP destroy-lock-gone: no cache, an empty ctl/. Die here: the next opener uses it. */
	STEP("destroy-lock-gone");
	unlinkat(fds->dir_fd, "ctl", AT_REMOVEDIR);
	/* STEP destroy-ctl-gone: an empty directory. Die here: whoever made it may remove it. */
	STEP("destroy-ctl-gone");
	if (d->unknown > 0)
		return detail_set(-ENOTEMPTY, "%llu files in %s are not streamcache's and were left",
				  (unsigned long long)d->unknown, dir);
	/* The directory itself may be somebody else's to give and take: it is empty. */
	if (rmdir(dir) == 0)
		tell(d, dir, "directory", true, 0);
	else if (errno == ENOTEMPTY || errno == EEXIST || errno == EIO)
		return detail_set(-errno, "cannot remove %s", dir);
	return 0;
}

int scache_destroy(const char *dir, const struct scache_sweep_options *options)
{
	KEEP_ERRNO;
	UNCANCELLED;
	struct destruction d = { .options = options };
	struct cache_fds fds;
	struct stat st;
	uint32_t mode;
	int ret;

	detail_clear();
	if (dir == NULL || dir[0] == '\0')
		return detail_set(-EINVAL, "the cache needs a directory");
	/* A group share says so by its mode; its owner may destroy it without being told. */
	mode = stat(dir, &st) == 0 && st.st_mode & 020 ? 0770 : 0700;
	ret = cache_open_directories(dir, mode, false, &fds);
	if (ret < 0)
		return ret;
	d.dry_run = options != NULL && options->flags & SCACHE_DRY_RUN;
	d.store.dir_fd = fds.dir_fd;
	d.store.blobs_fd = fds.blobs_fd;
	/* What a file gets before it is emptied; if we die then, it must be readable. */
	d.store.file_mode = mode & 0660;
	ret = lockfile_enter_gate(fds.lock_fd, GATE_TIMEOUT_NS);
	if (ret == 0) {
		ret = lockfile_any_in_use(fds.lock_fd);
		if (ret > 0)
			ret = detail_set(-EBUSY, "processes are attached to %s; end them first", dir);
		else if (ret == 0)
			ret = destroy_all(&d, dir, &fds);
		lockfile_leave_gate(fds.lock_fd);
	}
	cache_close_fds(&fds);
	return ret;
}
