/* SPDX-License-Identifier: MIT */
#include "store/clean.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/detail.h"
#include "base/fd.h"
#include "index/repair.h"
#include "store/adopt.h"
#include "store/sweep.h"

struct clean {
	struct store *store;
	const struct scache_sweep_options *options;
	struct scache_sweep_report *report;
	bool dry_run;
	bool strangers; /* peers of another segment live: spare their files */
	bool is_left; /* some of a former segment could not be judged */
};

static void tell(const struct clean *clean, const void *name, uint32_t name_bytes,
		 const char *why, bool removed, uint64_t bytes)
{
	const struct scache_victim victim = { .name = name,
					      .name_bytes = name_bytes,
					      .why = why,
					      .removed = removed,
					      .bytes = bytes };

	if (clean->options != NULL && clean->options->victim != NULL)
		clean->options->victim(clean->options->arg, &victim);
}

static uint64_t expiry_of(const struct clean *clean, uint32_t idx, uint64_t now_ns)
{
	const struct segment *segment = clean->store->segment;
	uint64_t expires_ns = shm_load_relaxed(&segment->expires[idx]);
	uint64_t max_age_ns = clean->options != NULL ? clean->options->max_age_ns : 0;
	uint64_t age_ns = clock_age_ns(shm_load_relaxed(&segment->entries[idx].ended_ns), now_ns);

	if (max_age_ns == 0 || max_age_ns == SCACHE_UNLIMITED)
		return expires_ns;
	return max_age_ns == SCACHE_ZERO || age_ns >= max_age_ns ? 0 : expires_ns;
}

static void sweep_old(struct clean *clean)
{
	struct segment *segment = clean->store->segment;
	uint64_t now_ns = clock_shared_ns();
	unsigned char key[256];
	uint32_t idx;

	for (idx = 0; idx < segment->geometry.entries; idx++) {
		uint64_t word = shm_load(entry_state_word(segment, idx)), bytes;
		struct entry_name name = { .idx = idx, .gen = state_gen(word) };
		uint32_t key_bytes;

		if (state_of(word) != ENTRY_SEALED || state_is_hidden(word) ||
		    expiry_of(clean, idx, now_ns) > now_ns)
			continue;
		key_bytes = entry_copy_key(entry_at(segment, idx), key);
		bytes = shm_load_relaxed(&entry_at(segment, idx)->written);
		if (!clean->dry_run && !sweep_expire(clean->store, name))
			continue;
		clean->report->entries++;
		clean->report->entry_bytes += bytes;
		tell(clean, key, key_bytes, "expired", !clean->dry_run, bytes);
	}
}

static void judge_file(void *arg, const char *path, const struct blob_id *id, uint64_t bytes)
{
	struct clean *clean = arg;
	struct segment *segment = clean->store->segment;
	char shown[NAME_MAX + 16];
	uint32_t shown_bytes = (uint32_t)snprintf(shown, sizeof(shown), "blobs/%s", path);
	int ret;

	if (id == NULL) {
		clean->report->unknown++;
		tell(clean, shown, shown_bytes, "unknown", false, bytes);
		return;
	}
	if (strcmp(id->uuid, clean->store->uuid) != 0) {
		/* Asked anew now that the file is there: our own segment may have been retired. */
		if (clean->strangers || adopt_is_theirs(clean->store)) {
			clean->is_left = true;
			return;
		}
		ret = adopt_file(clean->store, path, clean->dry_run);
		clean->is_left |= ret < 0;
		if (ret < 0)
			return;
		if (ret > 0) {
			clean->report->adopted++;
			clean->report->adopted_bytes += bytes;
			tell(clean, shown, shown_bytes, "adopted", false, bytes);
			return;
		}
	} else if (id->name.idx < segment->geometry.entries) {
		uint64_t word = shm_load(entry_state_word(segment, id->name.idx));

		/* The state names the generation before the file is made, and after it is gone. */
		if (state_gen(word) == id->name.gen && state_of(word) != ENTRY_FREE)
			return;
	}
	if (!clean->dry_run && blob_remove_path(clean->store, path) < 0)
		return;
	clean->report->orphans++;
	clean->report->orphan_bytes += bytes;
	tell(clean, shown, shown_bytes, "orphan", !clean->dry_run, bytes);
}

/* A fan-out directory is two hexadecimal digits. */
static bool is_fan_out(const char *name)
{
	static const char digits[] = "0123456789abcdef";

	return strlen(name) == 2 && strchr(digits, name[0]) != NULL &&
	       strchr(digits, name[1]) != NULL;
}

typedef void file_fn(void *arg, const char *path, const struct blob_id *id, uint64_t bytes);

/* The files of @at_fd's directory @name; "." is blobs/ itself, where none belongs. */
static int walk_directory(int at_fd, const char *name, file_fn *file, void *arg)
{
	bool top = strcmp(name, ".") == 0;
	struct dirent *at;
	char path[NAME_MAX + 8];
	struct blob_id id;
	struct stat st;
	DIR *dir;
	int fd, ret;

	fd = fd_openat(at_fd, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW, 0);
	dir = fd < 0 ? NULL : fdopendir(fd);
	if (dir == NULL) {
		ret = -errno;
		if (fd >= 0)
			close(fd);
		return ret == -ENOENT ? 0 : detail_set(ret, "cannot read blobs/%s in the cache "
							    "directory", name);
	}
	while ((at = readdir(dir)) != NULL) {
		if (strcmp(at->d_name, ".") == 0 || strcmp(at->d_name, "..") == 0 ||
		    fstatat(fd, at->d_name, &st, AT_SYMLINK_NOFOLLOW) < 0 ||
		    (top && S_ISDIR(st.st_mode) && is_fan_out(at->d_name)))
			continue;
		snprintf(path, sizeof(path), "%s%s%s", top ? "" : name, top ? "" : "/", at->d_name);
		file(arg, path,
		     !top && S_ISREG(st.st_mode) && blob_parse(at->d_name, &id) ? &id : NULL,
		     (uint64_t)st.st_blocks * 512);
	}
	closedir(dir);
	return 0;
}

int clean_files(const struct store *store, file_fn *file, void *arg)
{
	int ret = walk_directory(store->blobs_fd, ".", file, arg);
	char name[4];

	for (unsigned fan = 0; fan < 256 && ret == 0; fan++) {
		snprintf(name, sizeof(name), "%02x", fan);
		ret = walk_directory(store->blobs_fd, name, file, arg);
	}
	return ret;
}

int clean_all(struct store *store, const struct scache_sweep_options *options,
	      struct scache_sweep_report *report)
{
	struct clean clean = { .store = store, .options = options, .report = report };
	int ret;

	clean.dry_run = options != NULL && options->flags & SCACHE_DRY_RUN;
	if (!clean.dry_run)
		report->reaped = repair_reap_all(store->peer);
	sweep_old(&clean);
	if (!clean.dry_run)
		sweep_collect(store);
	clean.strangers = adopt_is_theirs(store);
	ret = clean_files(store, judge_file, &clean);
	if (ret == 0 && !clean.dry_run && !clean.strangers && !clean.is_left)
		adopt_is_over(store);
	return ret;
}
