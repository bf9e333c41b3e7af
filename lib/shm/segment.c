/* SPDX-License-Identifier: MIT */
#include "shm/segment.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "base/detail.h"
#include "base/fd.h"
#include "base/step.h"

#define FALLOCATE_SLICE_BYTES (4u << 20)

/* ------------------------------------------------------------------- join */

static void read_boot_id(char ret_id[40])
{
	int fd = fd_openat(AT_FDCWD, "/proc/sys/kernel/random/boot_id", O_RDONLY | O_CLOEXEC, 0);
	ssize_t bytes = fd < 0 ? 0 : read(fd, ret_id, 36);

	if (fd >= 0)
		close(fd);
	if (bytes != 36)
		bytes = snprintf(ret_id, 40, "unknown");
	ret_id[bytes] = '\0';
}

/*
 * Open the segment that @record names and judge it by its header.
 * 0; -ENOENT gone; -ESTALE useless (another boot, unfinished, damaged);
 * -ESHUTDOWN retired; -EPROTO another layout; other -errno.
 */
static int open_named(const struct lock_record *record, const char *boot_id, int *ret_fd,
		      struct shm_header *ret_header)
{
	struct stat st;
	int fd, ret = -ESTALE;

	fd = fd_openat(AT_FDCWD, record->path, O_RDWR | O_CLOEXEC | O_NOFOLLOW, 0);
	if (fd < 0)
		return -errno;
	/* By pread(): a truncated file is a short read here and SIGBUS in a mapping. */
	if (fstat(fd, &st) < 0 || !S_ISREG(st.st_mode) ||
	    pread(fd, ret_header, sizeof(*ret_header), 0) != (ssize_t)sizeof(*ret_header))
		goto refuse;
	/* Taken for derelict while we opened it; see shm/derelict.h. */
	if (st.st_nlink == 0) {
		ret = -ENOENT;
		goto refuse;
	}
	if (atomic_load(&ret_header->magic) == SHM_MAGIC_RETIRED)
		ret = -ESHUTDOWN;
	if (atomic_load(&ret_header->magic) != SHM_MAGIC)
		goto refuse;
	if (ret_header->layout != SHM_LAYOUT || ret_header->struct_bytes != SHM_STRUCT_BYTES) {
		ret = -EPROTO;
		goto refuse;
	}
	if (memcmp(ret_header->uuid, record->uuid, SHM_UUID_BYTES) != 0 ||
	    strncmp(ret_header->boot_id, boot_id, sizeof(ret_header->boot_id)) != 0 ||
	    ret_header->number != record->number || !segment_geometry_is_sane(&ret_header->geometry) ||
	    ret_header->segment_bytes != segment_bytes(&ret_header->geometry) ||
	    (uint64_t)st.st_size < ret_header->segment_bytes)
		goto refuse;
	*ret_fd = fd;
	return 0;
refuse:
	close(fd);
	return ret;
}

/* Why a segment with live peers cannot be joined; never replace it then. */
static int refuse_to_replace(int reason, const struct lock_record *record)
{
	switch (reason) {
	case -ENOENT:
		return detail_set(-ENXIO,
				  "other processes are attached to the segment %s, which does not "
				  "exist here (a container with a /dev/shm of its own?); create the "
				  "cache with a segment directory that all of them share",
				  record->path);
	case -EPROTO:
		return detail_set(-EPROTO,
				  "processes using another version of streamcache are attached to "
				  "this cache; let them end first, or use another directory");
	default:
		return detail_set(reason, "cannot open the segment %s that other processes use",
				  record->path);
	}
}

/*
 * The segment is damaged and processes are attached to it. They find out by
 * the same word as those who retire one, and move on as well.
 */
static void retire_named(const struct lock_record *record)
{
	int fd = fd_openat(AT_FDCWD, record->path, O_RDWR | O_CLOEXEC | O_NOFOLLOW, 0);
	uint64_t magic = SHM_MAGIC_RETIRED;
	struct stat st;

	if (fd < 0)
		return;
	if (fstat(fd, &st) == 0 && S_ISREG(st.st_mode))
		(void)!pwrite(fd, &magic, sizeof(magic), 0);
	close(fd);
}

/* Reserve the pages now: a full tmpfs is -ENOSPC here and SIGBUS later. */
static int reserve(int fd, uint64_t from, uint64_t to)
{
	while (from < to) {
		uint64_t bytes = min_u64(to - from, FALLOCATE_SLICE_BYTES);
		int error = posix_fallocate(fd, (off_t)from, (off_t)bytes);

		if (error == EINTR)
			continue;
		if (error != 0)
			return -error;
		from += bytes;
	}
	return 0;
}

/*
 * Entries do without a ring, programs not without their memory: on a small
 * tmpfs (a container's has 64 MiB) leave half of what is free to others.
 */
static uint32_t rings_in_decency(int fd, const struct shm_geometry *geometry)
{
	struct statvfs fs;
	uint64_t rings;

	if (fstatvfs(fd, &fs) < 0)
		return geometry->rings;
	rings = (uint64_t)fs.f_bavail * fs.f_frsize / 2 / geometry->ring_bytes;
	return (uint32_t)min_u64(geometry->rings, max_u64(rings, 1));
}

/* Reserve the core, then as many of the wanted rings as there is room for. */
static int reserve_all(int fd, struct shm_geometry *geometry)
{
	uint64_t core_bytes = segment_core_bytes(geometry);
	uint32_t rings, most;
	int ret = reserve(fd, 0, core_bytes);

	if (ret < 0)
		return ret;
	/*
	 * STEP segment-core-reserved: zeros without a magic. Die here: the next opener makes
	 * another.
	 */
	STEP("segment-core-reserved");
	most = rings_in_decency(fd, geometry);
	for (rings = 0; rings < most; rings++)
		if (reserve(fd, core_bytes + geometry->ring_bytes * rings,
			    core_bytes + geometry->ring_bytes * (rings + 1)) < 0)
			break;
	/* With fewer rings nothing moves but the end, which only gets nearer. */
	geometry->rings = rings;
	if (ftruncate(fd, (off_t)segment_bytes(geometry)) < 0)
		return -errno;
	/*
	 * STEP segment-reserved: of its size, no header. Die here: the next opener makes another.
	 */
	STEP("segment-reserved");
	return 0;
}

static bool on_tmpfs(int fd)
{
	struct statfs fs;

	return fstatfs(fd, &fs) == 0 && fs.f_type == TMPFS_MAGIC;
}

/* Where every joiner can find it, whatever its working directory. */
static int choose_path(int ctl_fd, const struct segment_wishes *wishes, struct lock_record *record)
{
	char text[UUID_TEXT_BYTES], *asked = NULL;
	const char *dir = "/dev/shm", *below = "";
	int bytes;

	if (getrandom(record->uuid, SHM_UUID_BYTES, 0) != SHM_UUID_BYTES)
		return -EIO;
	uuid_text(record->uuid, text);
	if (wishes->segment_dir != NULL) {
		dir = asked = realpath(wishes->segment_dir, NULL);
		if (asked == NULL)
			return detail_set(-errno, "cannot use the segment directory %s",
					  wishes->segment_dir);
	} else if (on_tmpfs(ctl_fd)) {
		dir = wishes->dir;
		below = "/ctl";
	}
	bytes = snprintf(record->path, sizeof(record->path), "%s%s/streamcache.%s", dir, below,
			 text);
	free(asked);
	if (bytes >= (int)sizeof(record->path) || strchr(record->path, '\n') != NULL)
		return detail_set(-ENAMETOOLONG, "the path of the segment directory is too long, "
						 "or has a newline in it");
	return 0;
}

static void fill_header(struct shm_header *header, const struct lock_record *record,
			const struct shm_geometry *geometry, const struct segment_wishes *wishes)
{
	memset(header, 0, sizeof(*header));
	header->layout = SHM_LAYOUT;
	header->struct_bytes = SHM_STRUCT_BYTES;
	header->segment_bytes = segment_bytes(geometry);
	header->number = record->number;
	memcpy(header->uuid, record->uuid, SHM_UUID_BYTES);
	header->geometry = *geometry;
	for (unsigned i = 0; i < SETTING_COUNT; i++)
		shm_store_relaxed(&header->settings[i], record->settings[i]);
	header->mode = wishes->mode;
	memcpy(header->boot_id, record->boot_id, sizeof(header->boot_id));
	snprintf(header->dir, sizeof(header->dir), "%s", wishes->dir);
	/* Epochs start at 2 so that "two epochs ago" is never negative. */
	shm_store_relaxed(&header->epoch, 2);
	shm_store_relaxed(&header->next_sweep_ns, UINT64_MAX);
	/* Half the circle is the past: from the oldest on, also of before the boot. */
	shm_store_relaxed(&header->evict_hand, 1ull << 63);
	for (unsigned i = 0; i < ARRAY_COUNT(header->former); i++)
		shm_store_relaxed(&header->former[i], FORMER_UNKNOWN);
}

static int create_file(const struct lock_record *record, const struct segment_wishes *wishes,
		       struct shm_header *ret_header, int *ret_fd)
{
	struct shm_geometry geometry = record->wanted;
	uint64_t magic = SHM_MAGIC;
	int fd, ret;

	fd = fd_openat(AT_FDCWD, record->path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW,
		       wishes->mode);
	if (fd < 0)
		return detail_set(-errno, "cannot create the segment %s", record->path);
	/*
	 * STEP segment-created: empty, and named by the record. Die here: the next opener removes
	 * it.
	 */
	STEP("segment-created");
	/* A group share is that of the directory's group, wherever the segment stands. */
	if ((wishes->mode & 070 && fchown(fd, (uid_t)-1, wishes->group) < 0) ||
	    fchmod(fd, wishes->mode) < 0)
		ret = -errno;
	else
		ret = reserve_all(fd, &geometry);
	if (ret == 0) {
		fill_header(ret_header, record, &geometry, wishes);
		if (pwrite(fd, ret_header, sizeof(*ret_header), 0) != (ssize_t)sizeof(*ret_header))
			ret = -EIO;
		/*
		 * STEP segment-header-written: all but the magic. Die here: the next opener makes
		 * another.
		 */
		STEP("segment-header-written");
		if (ret == 0 && pwrite(fd, &magic, sizeof(magic), 0) != (ssize_t)sizeof(magic))
			ret = -EIO;
	}
	if (ret < 0) {
		unlink(record->path);
		close(fd);
		return detail_set(ret,
				  "no room for the segment %s: it needs %llu KiB and %llu KiB a ring; "
				  "choose another segment directory, or fewer entries, peers and "
				  "readers",
				  record->path, (unsigned long long)(segment_core_bytes(&geometry) >> 10),
				  (unsigned long long)(record->wanted.ring_bytes >> 10));
	}
	/* STEP segment-ready: complete, and nobody attached. Die here: the next opener joins it. */
	STEP("segment-ready");
	*ret_fd = fd;
	return 0;
}

static uint64_t settle(uint64_t asked, uint64_t recorded, uint64_t fallback)
{
	return asked != SEGMENT_UNASKED	   ? asked
	       : recorded != SEGMENT_UNASKED ? recorded
					     : fallback;
}

/*
 * What the creator asks for, else what the cache had before, else the default; of what can be
 * changed in use the cache's own goes first: whoever changed it did so for good.
 */
static void settle_options(struct lock_record *record, const struct segment_wishes *wishes)
{
	const struct segment_options *asked = &wishes->asked, *fallback = &wishes->fallback;
	struct shm_geometry *g = &record->wanted;
	bool is_new = record->number == 0;

#define SETTLE(field, type, option)                                                       \
	((field) = (type)settle(asked->option, is_new ? SEGMENT_UNASKED : (field),       \
				fallback->option))
	SETTLE(g->entries, uint32_t, entries);
	SETTLE(g->peers, uint32_t, peers);
	SETTLE(g->blocks, uint32_t, blocks);
	SETTLE(g->rings, uint32_t, rings);
	SETTLE(g->ring_bytes, uint64_t, ring_bytes);
	for (unsigned i = 0; i < SETTING_COUNT; i++)
		if (is_new || record->settings[i] == SEGMENT_UNASKED)
			record->settings[i] = settle(wishes->asked.settings[i], SEGMENT_UNASKED,
						     fallback->settings[i]);
#undef SETTLE
	for (g->buckets = 16; g->buckets < g->entries; g->buckets *= 2)
		;
}

int segment_remove_file(const char *path)
{
	int fd = fd_openat(AT_FDCWD, path, O_WRONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK, 0);
	struct stat st;

	if (fd >= 0) {
		if (fstat(fd, &st) == 0 && S_ISREG(st.st_mode))
			(void)!ftruncate(fd, 0);
		close(fd);
	}
	/*
	 * STEP segment-emptied: no bytes, still named. Die here: the next opener or destroy removes
	 * it.
	 */
	STEP("segment-emptied");
	return unlink(path) < 0 ? -errno : 0;
}

/*
 * Whatever the record names is garbage, make a new segment. Emptied if nobody
 * is attached: under those who are (@in_use) it only loses its name.
 */
static int create(int ctl_fd, int lock_fd, struct lock_record *record, bool in_use,
		  const char *boot_id, const struct segment_wishes *wishes,
		  struct shm_header *ret_header, int *ret_fd)
{
	int ret;

	settle_options(record, wishes);
	record->number++;
	if (record->path[0] != '\0' && in_use) {
		/*
		 * Nobody is attached to a segment of this number. Else, if we die, whoever finds
		 * the record without its file takes it for a segment that lives elsewhere.
		 */
		ret = lockfile_write_record(lock_fd, record);
		if (ret < 0)
			return detail_set(ret, "cannot write ctl/lock in the cache directory");
		/*
		 * STEP segment-disowned: no segment is of this number. Die here: the next opener
		 * makes another.
		 */
		STEP("segment-disowned");
		unlink(record->path);
	} else if (record->path[0] != '\0')
		segment_remove_file(record->path);
	/*
	 * STEP segment-old-gone: the record names nothing. Die here: the next opener makes another.
	 */
	STEP("segment-old-gone");
	snprintf(record->boot_id, sizeof(record->boot_id), "%s", boot_id);
	ret = choose_path(ctl_fd, wishes, record);
	if (ret < 0)
		return ret;
	/* The record first: if we die with the file half made, it says where it is. */
	ret = lockfile_write_record(lock_fd, record);
	if (ret < 0)
		return detail_set(ret, "cannot write ctl/lock in the cache directory");
	/*
	 * STEP record-written: names a file that is to be. Die here: the next opener makes another.
	 */
	STEP("record-written");
	return create_file(record, wishes, ret_header, ret_fd);
}

/*
 * Nothing may be taken without a look. A value that was there never before, so that whoever
 * has looked under other settings cannot put what he found in its place.
 */
static void forget_budget(struct shm_budget *budget)
{
	shm_store(&budget->until, shm_add(&budget->ever, 1) + 1);
}

/* What the record says holds; whoever changed it may have died before the segment had it. */
static void copy_settings(struct segment *segment, const struct lock_record *record)
{
	struct shm_header *header = segment->header;
	bool differs = shm_load(&header->configuring) != 0;

	for (unsigned i = 0; i < SETTING_COUNT && !differs; i++)
		differs = record->settings[i] != SEGMENT_UNASKED &&
			  segment_setting(segment, (enum shm_setting)i) != record->settings[i];
	if (!differs)
		return;
	shm_store(&header->configuring, 1);
	for (unsigned i = 0; i < SETTING_COUNT; i++)
		if (record->settings[i] != SEGMENT_UNASKED)
			shm_store(&header->settings[i], record->settings[i]);
	/* STEP settings-copied: budgets are of the old ones. Die here: the next joiner sees it. */
	STEP("settings-copied");
	forget_budget(&header->bytes);
	forget_budget(&header->slots);
	shm_store(&header->configuring, 0);
}

int segment_configure(struct segment *segment, int lock_fd, const uint64_t settings[SETTING_COUNT])
{
	struct lock_record record;
	int ret = lockfile_read_record(lock_fd, &record);

	if (ret < 0)
		return ret;
	if (memcmp(record.uuid, segment->uuid, SHM_UUID_BYTES) != 0)
		return -ESTALE;
	for (unsigned i = 0; i < SETTING_COUNT; i++)
		if (settings[i] != SEGMENT_UNASKED)
			record.settings[i] = settings[i];
	ret = lockfile_write_record(lock_fd, &record);
	if (ret < 0)
		return detail_set(ret, "cannot write ctl/lock in the cache directory");
	/* STEP settings-recorded: for all who come. Die here: the next joiner copies them. */
	STEP("settings-recorded");
	copy_settings(segment, &record);
	return 0;
}

int segment_join(int ctl_fd, int lock_fd, const struct segment_wishes *wishes,
		 struct segment **ret_segment)
{
	static pthread_once_t once = PTHREAD_ONCE_INIT;
	struct lock_record record = { .number = 0 };
	struct shm_header header;
	struct segment *mapped;
	char boot_id[40];
	int fd = -1, held = 0, ret;

	pthread_once(&once, segment_watch_fork);
	read_boot_id(boot_id);
	ret = lockfile_read_record(lock_fd, &record);
	if (ret == 0) {
		ret = open_named(&record, boot_id, &fd, &header);
		if (ret < 0) {
			held = lockfile_segment_in_use(lock_fd, record.number);
			if (held > 0 && ret == -ESTALE)
				retire_named(&record);
			else if (held != 0 && ret != -ESHUTDOWN)
				return held < 0 ? held : refuse_to_replace(ret, &record);
			/* Ours to mend or not: with neither memory nor permission it may be good. */
			if (ret == -EMFILE || ret == -ENFILE || ret == -ENOMEM || ret == -EACCES ||
			    ret == -ELOOP)
				return detail_set(ret, "cannot open the segment %s", record.path);
		}
	}
	if (ret == -ENODATA && lockfile_any_in_use(lock_fd) != 0)
		return detail_set(-EUCLEAN, "ctl/lock in the cache directory is damaged, and "
					    "processes are attached; end them, then try again");
	if (ret < 0)
		ret = create(ctl_fd, lock_fd, &record, lockfile_any_in_use(lock_fd) != 0, boot_id,
			     wishes, &header, &fd);
	if (ret < 0)
		return ret;
	mapped = segment_find_mapped(header.uuid);
	if (mapped != NULL)
		*ret_segment = mapped;
	else
		ret = segment_map(fd, &header, record.path, ret_segment);
	close(fd);
	if (ret == 0)
		copy_settings(*ret_segment, &record);
	return ret;
}
