/* SPDX-License-Identifier: MIT */
#include "shm/lockfile.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/compiler.h"
#include "base/detail.h"
#include "base/fd.h"
#include "base/step.h"

#define GATE_BYTE 0
#define TEST_BYTE 1
#define FIRST_SLOT_BYTE 16
#define GATE_PAUSE_NS_MIN (NS_PER_MS / 8)
#define GATE_PAUSE_NS_MAX (32 * NS_PER_MS)
#define RECORD_BYTES_MAX 2048
#define NUMBER_MAX (1ull << 40) /* segments of one cache; their bytes stay within off_t */

/*
 * The lock files this process has open. A fork child shares them, and with
 * them the proof of its parent's life, so it closes them first thing: or a
 * dead parent looks alive for as long as the child lives. It never unlocks
 * them: that would be the parent's lock. The mutex keeps a fork from happening
 * between an open and its entry here.
 */
static pthread_mutex_t open_mutex = PTHREAD_MUTEX_INITIALIZER;
static int *open_fds;
static size_t open_count, open_room;
static unsigned fork_count; /* generations of children between the first process and us */

static void before_fork(void)
{
	pthread_mutex_lock(&open_mutex);
}

static void after_fork_parent(void)
{
	pthread_mutex_unlock(&open_mutex);
}

static void after_fork_child(void)
{
	while (open_count > 0)
		close(open_fds[--open_count]);
	fork_count++;
	/* The thread that forked has it, in either process. */
	pthread_mutex_unlock(&open_mutex);
}

static void watch_fork(void)
{
	pthread_atfork(before_fork, after_fork_parent, after_fork_child);
}

/* Open `lock` and note the descriptor. */
static int open_noted(int ctl_fd, int flags, mode_t mode)
{
	static pthread_once_t once = PTHREAD_ONCE_INIT;
	int fd = -ENOMEM;

	pthread_once(&once, watch_fork);
	pthread_mutex_lock(&open_mutex);
	if (open_count == open_room) {
		size_t room = open_room == 0 ? 8 : open_room * 2;
		int *fds = realloc(open_fds, room * sizeof(*fds));

		if (fds != NULL) {
			open_fds = fds;
			open_room = room;
		}
	}
	if (open_count < open_room) {
		fd = fd_openat(ctl_fd, "lock", flags | O_RDWR | O_CLOEXEC | O_NOFOLLOW, mode);
		if (fd >= 0)
			open_fds[open_count++] = fd;
		else
			fd = -errno;
	}
	pthread_mutex_unlock(&open_mutex);
	return fd;
}

unsigned lockfile_fork_count(void)
{
	return fork_count;
}

void lockfile_close(int fd)
{
	pthread_mutex_lock(&open_mutex);
	for (size_t i = 0; i < open_count; i++)
		if (open_fds[i] == fd) {
			open_fds[i] = open_fds[--open_count];
			close(fd);
			break;
		}
	pthread_mutex_unlock(&open_mutex);
}

static off_t slot_byte(uint64_t number, uint32_t slot)
{
	return (off_t)(FIRST_SLOT_BYTE + number * SHM_PEERS_MAX + slot);
}

static int lock_range(int fd, int command, short type, off_t start, off_t bytes,
		      struct flock *ret_found)
{
	struct flock lock = { .l_type = type, .l_whence = SEEK_SET, .l_start = start, .l_len = bytes };

	while (fcntl(fd, command, &lock) < 0) {
		if (errno == EINTR)
			continue;
		if (errno == EAGAIN || errno == EACCES)
			return -EAGAIN;
		return -errno;
	}
	if (ret_found != NULL)
		*ret_found = lock;
	return 0;
}

/* held_range - does another open file hold a lock in [start, start + bytes)? */
static int held_range(int fd, off_t start, off_t bytes)
{
	struct flock found;
	int ret = lock_range(fd, F_OFD_GETLK, F_WRLCK, start, bytes, &found);

	if (ret < 0)
		return ret;
	return found.l_type != F_UNLCK;
}

/*
 * The locks are what everything rests on, so believe them only after a test:
 * a second open of the same file must see the first one's lock.
 */
static int test_locks(int ctl_fd, int fd)
{
	int other, held, ret;

	other = fd_openat(ctl_fd, "lock", O_RDWR | O_CLOEXEC | O_NOFOLLOW, 0);
	if (other < 0)
		return -errno;
	ret = lock_range(fd, F_OFD_SETLK, F_RDLCK, TEST_BYTE, 1, NULL);
	/* STEP lock-tested: the test byte is locked, shared. Die here: the kernel lets it go. */
	STEP("lock-tested");
	held = ret == 0 ? held_range(other, TEST_BYTE, 1) : 0;
	lock_range(fd, F_OFD_SETLK, F_UNLCK, TEST_BYTE, 1, NULL);
	close(other);
	if (ret < 0 || held != 1)
		return detail_set(-ENOLCK,
				  "the file system of the cache directory has no working OFD locks "
				  "(fcntl F_OFD_SETLK); use a directory on a local file system");
	return 0;
}

/*
 * Make the file the group's if that is asked for and it is ours. The umask must
 * not take the share away, nor the death of a creator before this line; but
 * what stands in a private cache already cannot be shared after the fact.
 */
static int share_with_group(int fd, const struct stat *st, mode_t mode, gid_t group)
{
	if (!(mode & 070) || st->st_uid != geteuid() ||
	    (st->st_gid == group && (st->st_mode & 0777) == mode))
		return 0;
	if (st->st_size > 0)
		return detail_set(-EPERM, "this cache was created for its owner alone; destroy it, "
					  "then create it with mode 0770");
	if (fchown(fd, (uid_t)-1, group) < 0)
		return detail_set(-errno, "cannot share ctl/lock in the cache directory");
	/*
	 * STEP lock-chowned: the group's, by half. Die here: its owner's next open does the rest.
	 */
	STEP("lock-chowned");
	if (fchmod(fd, mode) < 0)
		return detail_set(-errno, "cannot share ctl/lock in the cache directory");
	return 0;
}

int lockfile_open(int ctl_fd, mode_t mode, gid_t group, bool create)
{
	struct stat st;
	int fd, ret;

	fd = open_noted(ctl_fd, 0, 0);
	if (fd == -ENOENT && create)
		fd = open_noted(ctl_fd, O_CREAT, mode);
	if (fd < 0)
		return fd;
	/*
	 * STEP lock-opened: there, perhaps empty. Die here: an empty one is filled by the next
	 * opener.
	 */
	STEP("lock-opened");
	if (fstat(fd, &st) < 0 || !S_ISREG(st.st_mode)) {
		lockfile_close(fd);
		return detail_set(-EINVAL, "ctl/lock in the cache directory is not a regular file; "
					   "move it away");
	}
	ret = share_with_group(fd, &st, mode, group);
	if (ret == 0)
		ret = test_locks(ctl_fd, fd);
	if (ret < 0) {
		lockfile_close(fd);
		return ret;
	}
	return fd;
}

/*
 * Twice as long after each failure, and a random part of that: a thousand that
 * tried once a millisecond would leave the one inside no processor to get out.
 */
static void pause_at_gate(uint64_t *pause_ns)
{
	uint64_t lot = (clock_shared_ns() ^ (uint64_t)gettid()) * 0x9e3779b97f4a7c15u;
	const struct timespec pause = { .tv_nsec = (long)(*pause_ns / 2 + (lot >> 32) % *pause_ns) };

	nanosleep(&pause, NULL);
	*pause_ns = min_u64(2 * *pause_ns, GATE_PAUSE_NS_MAX);
}

int lockfile_enter_gate(int fd, int64_t timeout_ns)
{
	int64_t deadline_ns = deadline_after(timeout_ns);
	uint64_t pause_ns = GATE_PAUSE_NS_MIN;
	struct stat st;
	int ret;

	/* F_OFD_SETLKW knows no deadline, and a stopped process may hold the gate. */
	for (;;) {
		ret = lock_range(fd, F_OFD_SETLK, F_WRLCK, GATE_BYTE, 1, NULL);
		/* Destroyed while we waited: these locks mean nothing any more. */
		if (ret == 0 && (fstat(fd, &st) < 0 || st.st_nlink == 0))
			return -ESTALE;
		/* STEP gate-tried: perhaps ours now. Die here: the kernel opens it. */
		STEP("gate-tried");
		if (ret != -EAGAIN)
			return ret;
		if (clock_own_ns() >= deadline_ns)
			return detail_set(-ETIMEDOUT,
					  "another process has been creating or joining this cache "
					  "for %d seconds; is one of its users stopped?",
					  (int)(timeout_ns / (int64_t)NS_PER_SEC));
		pause_at_gate(&pause_ns);
	}
}

void lockfile_leave_gate(int fd)
{
	lock_range(fd, F_OFD_SETLK, F_UNLCK, GATE_BYTE, 1, NULL);
	/* STEP gate-left: whoever waits comes in. Die here: nothing to mend. */
	STEP("gate-left");
}

int lockfile_take(int fd, uint64_t number, uint32_t slot)
{
	return lock_range(fd, F_OFD_SETLK, F_WRLCK, slot_byte(number, slot), 1, NULL);
}

void lockfile_drop(int fd, uint64_t number, uint32_t slot)
{
	lock_range(fd, F_OFD_SETLK, F_UNLCK, slot_byte(number, slot), 1, NULL);
}

int lockfile_is_held(int fd, uint64_t number, uint32_t slot)
{
	return held_range(fd, slot_byte(number, slot), 1);
}

int lockfile_segment_in_use(int fd, uint64_t number)
{
	return held_range(fd, slot_byte(number, 0), SHM_PEERS_MAX);
}

int lockfile_any_in_use(int fd)
{
	return held_range(fd, slot_byte(0, 0), 0);
}

int lockfile_others_in_use(int fd, uint64_t number)
{
	int held = 0;

	if (number > 0)
		held = held_range(fd, slot_byte(0, 0), (off_t)(number * SHM_PEERS_MAX));
	if (held == 0)
		held = held_range(fd, slot_byte(number + 1, 0), 0);
	return held;
}

void uuid_text(const unsigned char uuid[SHM_UUID_BYTES], char ret_text[UUID_TEXT_BYTES])
{
	for (int i = 0; i < SHM_UUID_BYTES; i++)
		snprintf(ret_text + (size_t)2 * i, 3, "%02x", uuid[i]);
}

static int uuid_parse(const char *text, unsigned char ret_uuid[SHM_UUID_BYTES])
{
	for (int i = 0; i < SHM_UUID_BYTES; i++)
		if (sscanf(text + (size_t)2 * i, "%2hhx", &ret_uuid[i]) != 1)
			return -ENODATA;
	return 0;
}

/* What the record calls each setting. */
static const char *const setting_names[SETTING_COUNT] = {
	[SETTING_WINDOW_BYTES] = "window_bytes",
	[SETTING_MAX_AGE_NS] = "max_age_ns",
	[SETTING_MAX_IDLE_NS] = "max_idle_ns",
	[SETTING_MAX_FILL_NS] = "max_fill_ns",
	[SETTING_MAX_BYTES] = "max_bytes",
	[SETTING_MAX_ENTRIES] = "max_entries",
	[SETTING_MIN_FREE_BYTES] = "min_free_bytes",
	[SETTING_MIN_FREE_PERCENT] = "min_free_percent",
	[SETTING_LOW_PERCENT] = "low_percent",
	[SETTING_MIN_OCCURRENCES] = "min_occurrences",
	[SETTING_DURABILITY] = "durability",
	[SETTING_VERIFY] = "verify",
	[SETTING_COMPRESSION] = "compression",
	[SETTING_LEVEL] = "level",
};

/* The file is going to be emptied and removed one day: it must be called like ours. */
static bool path_is_sane(const struct lock_record *record)
{
	const char *last = strrchr(record->path, '/');
	char name[UUID_TEXT_BYTES + 16], uuid[UUID_TEXT_BYTES];

	uuid_text(record->uuid, uuid);
	snprintf(name, sizeof(name), "/streamcache.%s", uuid);
	return record->path[0] == '/' && last != NULL && strcmp(last, name) == 0;
}

/* Nothing of this may lead anybody astray, whoever wrote it. */
static bool record_is_sane(const struct lock_record *record)
{
	const struct shm_geometry *g = &record->wanted;

	return record->number >= 1 && record->number < NUMBER_MAX && g->entries >= 1 &&
	       g->entries <= 1u << 22 && g->peers >= 1 && g->peers <= SHM_PEERS_MAX &&
	       g->blocks >= 1 && g->blocks <= 1u << 16 && g->rings <= 4096 &&
	       g->ring_bytes >= SHM_PAGE_BYTES && g->ring_bytes <= 1ull << 30 &&
	       (g->ring_bytes & (g->ring_bytes - 1)) == 0 && path_is_sane(record);
}

/* One line. What this version does not know was written by a later one: it is passed over. */
static int take_line(struct lock_record *record, const char *line)
{
	struct shm_geometry *g = &record->wanted;
	char name[32], uuid[UUID_TEXT_BYTES];
	int at = 0;

	if (sscanf(line, "%31s %n", name, &at) != 1 || at == 0)
		return -ENODATA;
	line += at;
	if (strcmp(name, "uuid") == 0)
		return sscanf(line, "%32s", uuid) == 1 ? uuid_parse(uuid, record->uuid) : -ENODATA;
	if (strcmp(name, "boot") == 0)
		return sscanf(line, "%39s", record->boot_id) == 1 ? 0 : -ENODATA;
	if (strcmp(name, "segment") == 0)
		return sscanf(line, "%511[^\n]", record->path) == 1 ? 0 : -ENODATA;
#define NUMBER(text, format, field) \
	if (strcmp(name, text) == 0) \
		return sscanf(line, "%" format, field) == 1 ? 0 : -ENODATA
	NUMBER("number", SCNu64, &record->number);
	NUMBER("entries", SCNu32, &g->entries);
	NUMBER("peers", SCNu32, &g->peers);
	NUMBER("blocks", SCNu32, &g->blocks);
	NUMBER("rings", SCNu32, &g->rings);
	NUMBER("ring_bytes", SCNu64, &g->ring_bytes);
	for (unsigned i = 0; i < SETTING_COUNT; i++)
		NUMBER(setting_names[i], SCNu64, &record->settings[i]);
#undef NUMBER
	return 0;
}

int lockfile_read_record(int fd, struct lock_record *ret_record)
{
	struct lock_record record = { .number = 0 };
	char text[RECORD_BYTES_MAX + 1], *line, *rest = text;
	ssize_t bytes = pread(fd, text, RECORD_BYTES_MAX, 0);

	if (bytes < 0)
		return -errno;
	text[bytes] = '\0';
	for (unsigned i = 0; i < SETTING_COUNT; i++)
		record.settings[i] = SEGMENT_UNASKED;
	line = strsep(&rest, "\n");
	if (strcmp(line, "streamcache 1") != 0)
		return -ENODATA;
	do {
		line = strsep(&rest, "\n");
		/* Without its last line it is not whole. */
		if (line == NULL || (strcmp(line, "end") != 0 && take_line(&record, line) < 0))
			return -ENODATA;
	} while (strcmp(line, "end") != 0);
	if (!record_is_sane(&record))
		return -ENODATA;
	*ret_record = record;
	return 0;
}

static int print_record(const struct lock_record *record, char *ret_text, size_t room)
{
	const struct shm_geometry *g = &record->wanted;
	char uuid[UUID_TEXT_BYTES];
	int bytes;

	uuid_text(record->uuid, uuid);
	bytes = snprintf(ret_text, room,
			 "streamcache 1\nnumber %" PRIu64 "\nuuid %s\nboot %s\nentries %" PRIu32
			 "\npeers %" PRIu32 "\nblocks %" PRIu32 "\nrings %" PRIu32
			 "\nring_bytes %" PRIu64 "\n", record->number, uuid, record->boot_id,
			 g->entries, g->peers, g->blocks, g->rings, g->ring_bytes);
	for (unsigned i = 0; i < SETTING_COUNT; i++)
		bytes += snprintf(ret_text + bytes, room - (size_t)bytes, "%s %" PRIu64 "\n",
				  setting_names[i], record->settings[i]);
	return bytes + snprintf(ret_text + bytes, room - (size_t)bytes, "segment %s\nend\n",
				record->path);
}

int lockfile_write_record(int fd, const struct lock_record *record)
{
	char text[RECORD_BYTES_MAX];
	int bytes = print_record(record, text, sizeof(text));

	/* One write of less than a page: seen whole or not at all if we die here. */
	if (pwrite(fd, text, (size_t)bytes, 0) != bytes)
		return errno != 0 ? -errno : -ENOSPC;
	/*
	 * STEP record-put: an older one may stick out behind it. Die here: nobody reads behind the
	 * end.
	 */
	STEP("record-put");
	if (ftruncate(fd, bytes) < 0)
		return -errno;
	return 0;
}
