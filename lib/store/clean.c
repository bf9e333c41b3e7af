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
#include "shm/derelict.h"
#include "store/adopt.h"
#include "store/evict.h"
#include "store/former.h"
#include "store/limits.h"
#include "store/sweep.h"

/* ------------------------------------------------------------- the directory */

#define BLOBS "blobs/"

/* One directory of a cache, and what belongs there that is no blob. */
struct place {
	int at_fd;
	const char *name; /* seen from there */
	const char *shown; /* seen from DIR, with its / */
	bool (*is_furniture)(const char *name, const struct stat *st);
	uint32_t fans;
};

/* The segment may stand in either. */
static bool is_of_dir(const char *name, const struct stat *st)
{
	return S_ISDIR(st->st_mode) ? strcmp(name, "ctl") == 0 || strcmp(name, "blobs") == 0 :
				      S_ISREG(st->st_mode) && derelict_is_name(name);
}

static bool is_of_ctl(const char *name, const struct stat *st)
{
	return S_ISREG(st->st_mode) && (strcmp(name, "lock") == 0 || derelict_is_name(name));
}

/* A fan-out directory is two hexadecimal digits. */
static bool is_of_blobs(const char *name, const struct stat *st)
{
	return S_ISDIR(st->st_mode) && strlen(name) == 2 && strspn(name, "0123456789abcdef") == 2;
}

static int walk(const struct place *place,
		int (*file)(void *arg, const struct clean_file *file), void *arg)
{
	struct clean_file found = { .fans = place->fans };
	char path[NAME_MAX + 16];
	struct dirent *at;
	struct stat st;
	DIR *dir;
	int fd, ret = 0;

	fd = fd_openat(place->at_fd, place->name, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW,
		       0);
	dir = fd < 0 ? NULL : fdopendir(fd);
	if (dir == NULL) {
		ret = -errno;
		if (fd >= 0)
			close(fd);
		return ret == -ENOENT ? 0 : detail_set(ret, "cannot read %s. in the cache directory",
						       place->shown);
	}
	found.path = path;
	while (ret == 0 && (at = readdir(dir)) != NULL) {
		bool ours = place->is_furniture == NULL;

		if (strcmp(at->d_name, ".") == 0 || strcmp(at->d_name, "..") == 0 ||
		    fstatat(fd, at->d_name, &st, AT_SYMLINK_NOFOLLOW) < 0 ||
		    (!ours && place->is_furniture(at->d_name, &st)))
			continue;
		snprintf(path, sizeof(path), "%s%s", place->shown, at->d_name);
		ours = ours && S_ISREG(st.st_mode) && blob_parse(at->d_name, &found.id);
		found.blob = ours ? path + strlen(BLOBS) : NULL;
		found.bytes = (uint64_t)st.st_blocks * 512;
		ret = file(arg, &found);
	}
	closedir(dir);
	return ret;
}

int clean_files(const struct store *store, int (*file)(void *arg, const struct clean_file *file),
		void *arg)
{
	const struct place above[] = {
		{ store->dir_fd, ".", "", is_of_dir, 0 },
		{ store->dir_fd, "ctl", "ctl/", is_of_ctl, 0 },
		{ store->blobs_fd, ".", BLOBS, is_of_blobs, 0 },
	};
	char name[4], shown[16];
	int ret = 0;

	for (unsigned i = 0; i < ARRAY_COUNT(above) && ret == 0; i++)
		ret = walk(&above[i], file, arg);
	for (uint32_t fan = 0; fan < SHM_FANS && ret == 0; fan++) {
		const struct place place = { store->blobs_fd, name, shown, NULL, fan };

		snprintf(name, sizeof(name), "%02x", fan);
		snprintf(shown, sizeof(shown), BLOBS "%02x/", fan);
		ret = walk(&place, file, arg);
	}
	return ret;
}

/* ------------------------------------------------------------ a full sweep */

struct clean {
	struct store *store;
	const struct scache_sweep_options *options; /* not NULL */
	struct scache_sweep_report *report;
	uint64_t files; /* looked at */
	bool dry_run;
	struct evict_dry dry; /* if it is one */
	bool strangers; /* peers of another segment live: spare their files */
	uint32_t fans; /* that have been looked at */
	bool is_left; /* in the next one some of a former segment could not be judged */
};

static void tell(const struct clean *clean, const void *name, uint32_t name_bytes,
		 const char *why, bool removed, uint64_t bytes)
{
	const struct scache_victim victim = { .name = name,
					      .name_bytes = name_bytes,
					      .why = why,
					      .removed = removed,
					      .bytes = bytes };

	if (clean->options->victim != NULL)
		clean->options->victim(clean->options->arg, &victim);
}

static void tell_path(const struct clean *clean, const char *path, const char *why, bool removed,
		      uint64_t bytes)
{
	tell(clean, path, (uint32_t)strlen(path), why, removed, bytes);
}

/* Where we are. 0, or what ends it all. */
static int go_on(const struct clean *clean, uint32_t fans)
{
	const struct scache_sweep_progress progress = { .size = sizeof(progress),
							.files = clean->files,
							.directories = fans,
							.all_directories = SHM_FANS };
	int ret;

	if (clean->options->progress == NULL)
		return 0;
	ret = clean->options->progress(clean->options->arg, &progress);
	return ret < 0 ? -ECANCELED : ret;
}

/* Why a finished entry has to go; NULL: it may stay. */
static const char *why_old(const struct clean *clean, struct entry_name name, uint64_t now_ns)
{
	const struct segment *segment = clean->store->segment;
	uint64_t expires_ns = shm_load_relaxed(&segment->expires[name.idx]);
	uint64_t ended_ns = shm_load_relaxed(&entry_at(segment, name.idx)->ended_ns);
	uint64_t max_age_ns = clean->options->max_age_ns;

	if (expires_ns <= now_ns)
		return "expired";
	if (sweep_due_ns(clean->store, name, expires_ns) <= now_ns)
		return "idle";
	if (max_age_ns == SCACHE_ZERO ||
	    (max_age_ns != 0 && max_age_ns != SCACHE_UNLIMITED &&
	     clock_age_ns(ended_ns, now_ns) >= max_age_ns))
		return "too old";
	return NULL;
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
		const char *why;

		if (clean->dry_run && (state_is_garbage(word) || state_of(word) == ENTRY_RETIRED))
			entry_bit_set(clean->dry.as_gone, idx);
		if (state_of(word) != ENTRY_SEALED || state_is_hidden(word))
			continue;
		why = why_old(clean, name, now_ns);
		if (why == NULL)
			continue;
		key_bytes = entry_copy_key(entry_at(segment, idx), key);
		bytes = shm_load_relaxed(&entry_at(segment, idx)->written);
		if (clean->dry_run)
			entry_bit_set(clean->dry.as_gone, idx);
		else if (!sweep_expire(clean->store, name))
			continue;
		clean->report->entries++;
		clean->report->entry_bytes += bytes;
		tell(clean, key, key_bytes, why, !clean->dry_run, bytes);
	}
}

/* One file of a former segment: *ret_why it may go. False: it is not to. */
static bool judge_former(struct clean *clean, const struct clean_file *file, const char **ret_why)
{
	int ret = -EBUSY;

	/* Asked anew now that the file is there: our own segment may have been retired. */
	if (!clean->strangers && !adopt_is_theirs(clean->store))
		ret = adopt_file(clean->store, file->blob, clean->dry_run, ret_why);
	clean->is_left |= ret < 0;
	if (ret > 0) {
		clean->report->adopted++;
		clean->report->adopted_bytes += file->bytes;
		tell_path(clean, file->path, "adopted", false, file->bytes);
	}
	return ret == 0;
}

/*
 * All before @fans have been looked through, and as all that there was of a former segment
 * was there before ours, a miss need not look there any more: from now on, not from the
 * end of a long sweep.
 */
static void pass_fans(struct clean *clean, uint32_t fans)
{
	for (; clean->fans < fans; clean->fans++) {
		if (!clean->dry_run && !clean->is_left && !clean->strangers &&
		    !adopt_is_theirs(clean->store))
			former_none(clean->store, clean->fans);
		clean->is_left = false;
	}
}

/* Is it the file of an entry? The state names it before it is made, and after it is gone. */
static bool has_entry(const struct segment *segment, struct entry_name name)
{
	uint64_t word;

	if (name.idx >= segment->geometry.entries)
		return false;
	word = shm_load(entry_state_word(segment, name.idx));
	return state_gen(word) == name.gen && state_of(word) != ENTRY_FREE;
}

static int judge_file(void *arg, const struct clean_file *file)
{
	struct clean *clean = arg;
	const char *why = "orphan";
	bool is_former;
	int ret = go_on(clean, file->fans);

	if (ret != 0)
		return ret;
	pass_fans(clean, file->fans);
	clean->files++;
	if (file->blob == NULL) {
		clean->report->unknown++;
		tell_path(clean, file->path, "unknown", false, file->bytes);
		return 0;
	}
	is_former = strcmp(file->id.uuid, clean->store->uuid) != 0;
	if (is_former ? !judge_former(clean, file, &why) :
			has_entry(clean->store->segment, file->id.name)) {
		clean->dry.former_bytes += is_former ? file->bytes : 0;
		return 0;
	}
	if (!clean->dry_run && blob_remove_path(clean->store, file->blob) < 0)
		return 0;
	if (!clean->dry_run && is_former)
		former_took(clean->store, file->blob, file->bytes);
	clean->dry.freed_bytes += file->bytes;
	clean->report->orphans++;
	clean->report->orphan_bytes += file->bytes;
	tell_path(clean, file->path, why, !clean->dry_run, file->bytes);
	return 0;
}

static void note_evicted(void *arg, const unsigned char *key, uint32_t key_bytes, uint64_t bytes)
{
	struct clean *clean = arg;

	clean->report->evicted++;
	clean->report->evicted_bytes += bytes;
	tell(clean, key, key_bytes, "evicted", !clean->dry_run, bytes);
}

static void note_segment(void *arg, const char *path, uint64_t bytes)
{
	struct clean *clean = arg;

	clean->report->segments++;
	clean->report->segment_bytes += bytes;
	tell_path(clean, path, "segment", !clean->dry_run, bytes);
}

static int clean_store(struct clean *clean)
{
	struct store *store = clean->store;
	const struct evict_watch watch = { .gone = note_evicted,
					   .arg = clean,
					   .dry = clean->dry_run ? &clean->dry : NULL };
	int ret;

	if (!clean->dry_run)
		clean->report->reaped = repair_reap_all(store->peer);
	sweep_old(clean);
	if (!clean->dry_run)
		sweep_collect(store);
	clean->strangers = adopt_is_theirs(store);
	ret = clean_files(store, judge_file, clean);
	if (ret != 0)
		return ret;
	pass_fans(clean, SHM_FANS);
	ret = go_on(clean, SHM_FANS);
	if (ret != 0)
		return ret;
	/* Now that all are known who take room. */
	limits_keep(store, &watch);
	derelict_remove(store->segment->dir, store->segment->uuid, clean->dry_run, note_segment,
			clean);
	return 0;
}

int clean_all(struct store *store, const struct scache_sweep_options *options,
	      struct scache_sweep_report *report)
{
	struct clean clean = { .store = store,
			       .options = options,
			       .report = report,
			       .dry_run = options->flags & SCACHE_DRY_RUN };
	int ret = clean.dry_run ? evict_dry_begin(store->segment, &clean.dry) : 0;

	if (ret == 0)
		ret = clean_store(&clean);
	evict_dry_end(&clean.dry);
	return ret;
}
