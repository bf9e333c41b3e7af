/* SPDX-License-Identifier: MIT */
#include "store/adopt.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/fd.h"
#include "base/step.h"
#include "base/thread.h"
#include "shm/epoch.h"
#include "shm/wait.h"
#include "store/evict.h"
#include "store/footer.h"
#include "store/former.h"
#include "store/limits.h"
#include "store/sweep.h"

#define LINK_TRIES 1000 /* others insert into the same bucket */

/* A finished file of a former segment. */
struct former {
	char path[NAME_MAX + 8];
	struct footer *footer;
	const char *why; /* it is good for nothing, if it is */
	int error; /* of the best one: another, perhaps newer, could not be looked into */
	uint64_t file_bytes, disk_bytes, age_ns, since_created_ns;
};

static struct index_key key_of(const struct former *former)
{
	const struct footer *footer = former->footer;

	return (struct index_key){ .key = footer->key,
				   .key_bytes = footer->key_bytes,
				   .hash = hash_key(footer->key, footer->key_bytes) };
}

/* How long ago, by a clock that somebody may have set back. */
static uint64_t since(uint64_t then_ns, uint64_t now_ns)
{
	return now_ns > then_ns ? now_ns - then_ns : 0;
}

/* Its footer says what it is, and that it was finished. 0, -EBADMSG, -errno. */
static int look_into(int fd, struct former *former)
{
	uint64_t now_ns = clock_read_ns(CLOCK_REALTIME);
	struct stat st;
	int ret;

	if (fstat(fd, &st) < 0)
		return -errno;
	/* See blob_disown_path(). */
	former->why = "unfinished";
	if (!S_ISREG(st.st_mode) || st.st_mode & 0222)
		return -EBADMSG;
	former->why = "damaged";
	former->file_bytes = (uint64_t)st.st_size;
	former->disk_bytes = (uint64_t)st.st_blocks * 512;
	ret = footer_read(fd, former->file_bytes, &former->footer);
	if (ret < 0)
		return ret;
	former->age_ns = since(former->footer->finished_ns, now_ns);
	former->since_created_ns = since(former->footer->created_ns, now_ns);
	if (former->age_ns < former->footer->max_age_ns)
		return 0;
	free(former->footer);
	former->why = "expired";
	return -EBADMSG;
}

static int former_open(const struct store *store, const char *path, struct former *ret_former)
{
	int fd, ret;

	if (blob_path_is_gone(path))
		return -EBADMSG;
	fd = fd_openat(store->blobs_fd, path, O_RDONLY | O_NONBLOCK | O_CLOEXEC | O_NOFOLLOW, 0);
	if (fd < 0)
		return -errno;
	snprintf(ret_former->path, sizeof(ret_former->path), "%s", path);
	ret = look_into(fd, ret_former);
	close(fd);
	return ret;
}

/* By what they say: ages are of the moment in which each was looked into. */
static bool is_older(const struct former *one, const struct former *other)
{
	return one->footer->finished_ns < other->footer->finished_ns;
}

static bool is_where_its_key_is(const struct store *store, const struct former *former)
{
	char path[BLOB_PATH_BYTES];

	blob_path(store, (struct entry_name){ 0 }, key_of(former).hash, path);
	return memcmp(path, former->path, 3 + BLOB_HASH_DIGITS) == 0;
}

static bool has_key(const struct former *former, const struct index_key *key)
{
	return former->footer->key_bytes == key->key_bytes &&
	       memcmp(former->footer->key, key->key, key->key_bytes) == 0;
}

/* -------------------------------------------------------- from file to entry */

/* All of the CLAIMED entry that its writer would have set by its end. */
static void fill(struct store *store, struct entry_name name, const struct former *former)
{
	const struct footer *footer = former->footer;
	struct shm_entry *entry = entry_at(store->segment, name.idx);
	uint64_t now_ns = clock_shared_ns(), left_ns = footer->max_age_ns - former->age_ns;

	/* May be before the boot: then ages still come out right, modulo 2^64. */
	shm_store_relaxed(&entry->created_ns, now_ns - former->since_created_ns);
	shm_store_relaxed(&entry->ended_ns, now_ns - former->age_ns);
	shm_store_relaxed(&store->segment->expires[name.idx],
			  footer->max_age_ns == UINT64_MAX || left_ns > UINT64_MAX - now_ns ?
				  UINT64_MAX : now_ns + left_ns);
	shm_store_relaxed(&entry->file_bytes, former->file_bytes);
	shm_store_relaxed(&entry->written, footer->bytes);
	shm_store_relaxed(&entry->flushed, footer->bytes);
	use_begin(store->segment, name, now_ns);
	limits_note_adopted(store, name, former->disk_bytes);
}

/* Is the file of a finished entry older than @former, and not the very same one by now? */
static bool has_older(const struct store *store, struct entry_name name, const struct index_key *key,
		      const struct former *former)
{
	char path[BLOB_PATH_BYTES];
	struct former own;
	bool ret;

	blob_path(store, name, key->hash, path);
	if (former_open(store, path, &own) < 0)
		return false;
	ret = is_older(&own, former);
	free(own.footer);
	return ret;
}

/*
 * 0: there is no entry of the key, or an older one, which makes way unless that is only
 * to be known (@dry_run): files are found in any order. -EALREADY: one that is as new;
 * -EEXIST: one that is in the making.
 */
static int outdone(struct store *store, const struct index_key *key, const struct former *former,
		   bool dry_run)
{
	unsigned pin = epoch_enter(store->peer);
	struct entry_name name;
	uint64_t state, head;
	int found = index_find(store->peer, key, &name, &state, &head);

	epoch_leave(store->peer, pin);
	if (found <= 0)
		return found;
	if (state_of(state) != ENTRY_SEALED)
		return -EEXIST;
	if (!has_older(store, name, key, former))
		return -EALREADY;
	if (dry_run)
		return 0;
	if (!entry_hide(store->segment, name, ENTRY_SEALED))
		return -EEXIST;
	peer_count(store->peer, STAT_REMOVED, 1);
	sweep_entry(store, name);
	return 0;
}

/* Into its bucket, unless there is one of its key by now. */
static bool link_entry(struct store *store, struct entry_name name, const struct index_key *key)
{
	unsigned pin = epoch_enter(store->peer);
	struct entry_name other;
	uint64_t state, head;
	bool linked = false;

	for (int i = 0; i < LINK_TRIES && !linked; i++) {
		if (index_find(store->peer, key, &other, &state, &head) != 0)
			break;
		linked = index_insert(store->peer, name, key, head);
	}
	epoch_leave(store->peer, pin);
	return linked;
}

/* Linked: everybody may have it now. */
static void seal(struct store *store, struct entry_name name)
{
	struct segment *segment = store->segment;
	uint64_t expires_ns = shm_load_relaxed(&segment->expires[name.idx]);

	/* ORDER entry-ended, release: sizes and times before the state. Pairs with reader_ended(). */
	entry_change(store->peer, name, ENTRY_FILLING, ENTRY_SEALED, 0);
	/* STEP adopted: as if it had just been finished. Die here: our reaper sets the hint anew. */
	STEP("adopted");
	wait_announce(&entry_at(segment, name.idx)->readers_event);
	peer_count(store->peer, STAT_ADOPTED, 1);
	sweep_note_expiry(store, sweep_due_ns(store, name, expires_ns));
	/* Removed while we were at it. */
	if (state_is_garbage(shm_load(entry_state_word(segment, name.idx))))
		sweep_entry(store, name);
}

/* The file is another's, or gone: who waits for our entry is to look again. */
static void give_up(struct store *store, struct entry_name name)
{
	shm_store_relaxed(&entry_at(store->segment, name.idx)->code, (uint32_t)-ECANCELED);
	entry_change(store->peer, name, ENTRY_FILLING, ENTRY_FAILED, ENTRY_HIDDEN);
	sweep_entry(store, name);
}

/*
 * @name is CLAIMED by us. 0 if it is the file's entry now; else it is free again: -EEXIST,
 * -ENOENT: others were faster; -errno. First the entry and then the name of the file: who
 * does not find that any more finds the entry, and does not make another.
 */
static int adopt(struct store *store, struct entry_name name, const struct former *former)
{
	const struct index_key key = key_of(former);
	const struct entry_draft draft = { .key = key.key,
					   .key_bytes = key.key_bytes,
					   .hash = key.hash,
					   .max_age_ns = former->footer->max_age_ns,
					   .window_bytes = segment_setting(store->segment,
								   SETTING_WINDOW_BYTES),
					   .flags = former->footer->format == BLOB_LZ4 ?
							    ENTRY_LZ4 : 0 };
	char path[BLOB_PATH_BYTES];
	int ret = 0;

	entry_fill(store->peer, name, &draft);
	fill(store, name, former);
	entry_start(store->peer, name, ENTRY_UNVERIFIED);
	if (!link_entry(store, name, &key)) {
		sweep_give_back(store, name, ENTRY_FILLING, false);
		return -EEXIST;
	}
	/* STEP former-linked: who finds it waits for its state. Die here: the reaper fails it, its file is found again. */
	STEP("former-linked");
	blob_path(store, name, key.hash, path);
	if (renameat(store->blobs_fd, former->path, store->blobs_fd, path) < 0) {
		ret = -errno;
		give_up(store, name);
		return ret;
	}
	/* STEP former-renamed: its file has its name. Die here: the reaper fails it, the file goes with it. */
	STEP("former-renamed");
	former_took(store, former->path, former->disk_bytes);
	seal(store, name);
	return 0;
}

/* ---------------------------------------------------------- looking for files */

bool adopt_is_theirs(const struct store *store)
{
	/* Once ours is retired there may be a newer one that nobody is attached to just now. */
	return segment_is_retired(store->segment) ||
	       lockfile_others_in_use(store->peer->lock_fd, store->segment->number) != 0;
}

static void note_error(struct former *best, int ret)
{
	if (ret < 0 && ret != -EBADMSG && ret != -ENOENT)
		best->error = ret;
}

static int forget(const struct store *store, const char *path)
{
	uint64_t bytes = former_disk_bytes(store, path);

	if (unlinkat(store->blobs_fd, path, 0) < 0)
		return -errno;
	/* STEP former-removed: nobody's file is gone, and counts yet. Die here: until its directory has none. */
	STEP("former-removed");
	former_took(store, path, bytes);
	return 0;
}

/* One file of a former segment where @key's would be: the best so far, or it goes. */
static void consider(const struct store *store, const char *path, const struct index_key *key,
		     struct former *best)
{
	struct former former;
	int ret = former_open(store, path, &former);

	/* Asked anew now that the file is there: our own segment may have been retired. */
	if (ret == -EBADMSG && !adopt_is_theirs(store))
		(void)forget(store, path);
	note_error(best, ret);
	if (ret < 0)
		return;
	if (!has_key(&former, key) || adopt_is_theirs(store)) {
		free(former.footer);
		return;
	}
	if (best->footer != NULL && !is_older(best, &former)) {
		note_error(best, forget(store, path));
		free(former.footer);
		return;
	}
	if (best->footer != NULL)
		note_error(best, forget(store, best->path));
	free(best->footer);
	former.error = best->error;
	*best = former;
}

/*
 * One of a segment that is in use: it stays for those who have it, and is none that was
 * finished once they have left.
 */
static void disown(const struct store *store, const char *path, const struct index_key *key,
		   struct former *best)
{
	struct former former;
	int ret = former_open(store, path, &former);

	note_error(best, ret);
	if (ret < 0)
		return;
	ret = has_key(&former, key) ? blob_disown_path(store, path) : -ENOENT;
	note_error(best, ret);
	former.error = best->error;
	if (ret == 0 && best->footer == NULL)
		*best = former;
	else
		free(former.footer);
}

typedef void look_fn(const struct store *store, const char *path, const struct index_key *key,
		     struct former *best);

/* The directory of @key: @look at the files of former segments. Their number, or -errno. */
static int look_through(struct store *store, const struct index_key *key, look_fn *look,
			struct former *best)
{
	char path[NAME_MAX + 8], own[BLOB_PATH_BYTES], fan[3];
	struct dirent *at;
	struct blob_id id;
	int fd, count = 0;
	DIR *dir;

	blob_path(store, (struct entry_name){ 0 }, key->hash, own);
	memcpy(fan, own, 2);
	fan[2] = '\0';
	fd = fd_openat(store->blobs_fd, fan, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW, 0);
	if (fd < 0)
		return errno == ENOENT ? 0 : -errno;
	dir = fdopendir(fd);
	if (dir == NULL) {
		close(fd);
		return -ENOMEM;
	}
	while (errno = 0, (at = readdir(dir)) != NULL) {
		if (!former_is_name(store, at->d_name))
			continue;
		count++;
		former_note(store, at->d_name);
		if (memcmp(at->d_name, own + 3, BLOB_HASH_DIGITS) != 0 || !blob_parse(at->d_name, &id))
			continue;
		snprintf(path, sizeof(path), "%s/%s", fan, at->d_name);
		look(store, path, key, best);
	}
	if (errno != 0)
		count = -errno;
	closedir(dir);
	return count;
}

/* What the directory has for @key; false: nothing. */
static bool find(struct store *store, const struct index_key *key, struct former *best)
{
	uint32_t fan = (uint32_t)(key->hash.high >> 56);
	int count;

	best->footer = NULL;
	best->error = 0;
	if (adopt_is_theirs(store))
		return false;
	count = look_through(store, key, consider, best);
	if (count < 0)
		best->error = count;
	/* None can come: each was there before the segment. */
	if (count == 0)
		former_none(store, fan);
	else if (count > 0)
		former_list(store, fan);
	return best->footer != NULL;
}

bool adopt_key(struct store *store, const struct index_key *key)
{
	UNCANCELLED;
	struct entry_name name;
	struct former best;
	int ret;

	if (!find(store, key, &best))
		return false;
	/* Rather produced anew than an older one shown. */
	ret = best.error < 0 ? best.error : sweep_claim(store, &name);
	if (ret == 0)
		ret = adopt(store, name, &best);
	free(best.footer);
	return ret == 0 || ret == -EEXIST || ret == -ENOENT;
}

int adopt_forget(struct store *store, const struct index_key *key)
{
	UNCANCELLED;
	struct former best;
	int ret;

	if (find(store, key, &best))
		note_error(&best, forget(store, best.path));
	else if (adopt_is_theirs(store))
		note_error(&best, look_through(store, key, disown, &best));
	ret = best.error < 0 ? best.error : best.footer != NULL;
	free(best.footer);
	return ret;
}

int adopt_file(struct store *store, const char *path, bool dry_run, const char **ret_why)
{
	struct index_key key;
	struct former former;
	struct entry_name name;
	int ret = former_open(store, path, &former);

	if (ret == -EBADMSG)
		*ret_why = former.why;
	if (ret < 0)
		return ret == -EBADMSG ? 0 : ret;
	key = key_of(&former);
	/* Not in its place a look-up would never find it. */
	*ret_why = "damaged";
	if (is_where_its_key_is(store, &former)) {
		ret = outdone(store, &key, &former, dry_run);
		*ret_why = "outdated";
		if (ret == 0 && !dry_run)
			ret = entry_claim(store->peer, &name);
		if (ret == -ENOSPC)
			*ret_why = "no room";
		if (ret == 0 && !dry_run)
			ret = adopt(store, name, &former);
		ret = ret == 0 ? 1 : ret == -EALREADY || ret == -ENOSPC ? 0 : ret;
	}
	free(former.footer);
	return ret;
}
