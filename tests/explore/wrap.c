/* SPDX-License-Identifier: MIT */
/*
 * wrap - the kernel as virtual processes see it (ld --wrap, so that the library
 * knows nothing of it).
 *
 * Clocks only move when somebody asks, or sleeps for a tick: no schedule depends
 * on the machine's. A sleep on a futex is a point at which the others go on;
 * who comes back to an unchanged word has slept for a tick. Calls by which
 * processes meet outside the segment (files, lock bytes) are points like
 * accesses. What a process opens and allocates is noted, so that its death can
 * take it back as the kernel would.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#define XXH_STATIC_LINKING_ONLY /* for the size of its state */
#include <xxhash.h>

#include "base/clock.h"
#include "explore.h"

/* Every call to NAME in the program goes to __wrap_NAME, which has __real_NAME. */
#define WRAPPED(type, name, args) \
	type __real_##name args;  \
	type __wrap_##name args

WRAPPED(int, clock_gettime, (clockid_t id, struct timespec *ret_now));
WRAPPED(int, nanosleep, (const struct timespec *pause, struct timespec *ret_left));
WRAPPED(pid_t, getpid, (void));
WRAPPED(long, syscall, (long number, ...));
WRAPPED(int, openat, (int at, const char *path, int flags, ...));
WRAPPED(int, close, (int fd));
WRAPPED(int, unlinkat, (int at, const char *path, int flags));
WRAPPED(int, renameat, (int from_fd, const char *from, int to_fd, const char *to));
WRAPPED(ssize_t, pwrite, (int fd, const void *data, size_t bytes, off_t offset));
WRAPPED(ssize_t, pread, (int fd, void *data, size_t bytes, off_t offset));
WRAPPED(int, fcntl, (int fd, int command, ...));
WRAPPED(DIR *, fdopendir, (int fd));
WRAPPED(struct dirent *, readdir, (DIR * dir));
WRAPPED(int, closedir, (DIR * dir));
WRAPPED(void *, malloc, (size_t bytes));
WRAPPED(void *, calloc, (size_t count, size_t bytes));
WRAPPED(void *, realloc, (void *old, size_t bytes));
WRAPPED(void, free, (void *memory));
WRAPPED(XXH3_state_t *, XXH3_createState, (void));
WRAPPED(XXH_errorcode, XXH3_freeState, (XXH3_state_t * state));
WRAPPED(XXH32_state_t *, XXH32_createState, (void));
WRAPPED(XXH_errorcode, XXH32_freeState, (XXH32_state_t * state));
WRAPPED(void *, mmap, (void *at, size_t bytes, int how, int flags, int fd, off_t offset));
WRAPPED(int, munmap, (void *start, size_t bytes));

uint64_t virtual_ns = 1000 * NS_PER_SEC;

/* ------------------------------------------------------------------- clocks */

int __wrap_clock_gettime(clockid_t id, struct timespec *ret_now)
{
	(void)id;
	virtual_ns += 1000;
	*ret_now = (struct timespec){ .tv_sec = (time_t)(virtual_ns / NS_PER_SEC),
				      .tv_nsec = (long)(virtual_ns % NS_PER_SEC) };
	return 0;
}

int __wrap_nanosleep(const struct timespec *pause, struct timespec *ret_left)
{
	(void)ret_left;
	virtual_ns += (uint64_t)pause->tv_sec * NS_PER_SEC + (uint64_t)pause->tv_nsec;
	process_point(POINT_PARK, NULL);
	return 0;
}

double real_seconds(void)
{
	struct timespec ts;

	__real_clock_gettime(CLOCK_MONOTONIC, &ts);
	return (double)ts.tv_sec + (double)ts.tv_nsec * 1e-9;
}

/* Seats in the segment are chosen by it. */
pid_t __wrap_getpid(void)
{
	return 1;
}

/* Has everybody else finished what it was doing, and nobody been killed in the middle of it? */
static bool is_quiet(void)
{
	for (unsigned i = 0; i < PROCESSES_MAX; i++) {
		const struct process *thread = &seats[THREAD_OF(i)];

		if (&seats[i] != running && seats[i].op != NULL && !seats[i].done &&
		    !seats[i].asleep)
			return false;
		if (!thread->done && !thread->asleep)
			return false;
	}
	return now.deaths == 0;
}

/* What a sleeper is to be woken for. */
struct news {
	uint64_t written, state, attention;
};

static struct news news_behind(const uint32_t *event, bool *ret_reads)
{
	const struct segment *segment = running->cache->seat->peer.segment;
	size_t at =
		(size_t)((const unsigned char *)event - (const unsigned char *)segment->entries);
	struct shm_entry *entry = entry_at(segment, (uint32_t)(at / sizeof(*entry)));
	uint64_t state;

	*ret_reads = at % sizeof(*entry) == offsetof(struct shm_entry, readers_event);
	state = atomic_load(&segment->states[at / sizeof(*entry)]);
	/* A door that closes is no news. */
	return (struct news){ .written = atomic_load(&entry->written),
			      .state = state_make(state_gen(state), state_of(state), 0, 0),
			      .attention = atomic_load(&entry->attention) };
}

/*
 * Who comes back to an unchanged word has slept for a tick. If there was news
 * meanwhile and nobody is about to tell it, the wake-up is lost.
 */
static long park(const uint32_t *event, uint32_t value, const struct timespec *until)
{
	uint64_t until_ns = (uint64_t)until->tv_sec * NS_PER_SEC + (uint64_t)until->tv_nsec;
	struct news before, after;
	bool reads;

	errno = EAGAIN;
	if (__atomic_load_n(event, __ATOMIC_SEQ_CST) != value)
		return -1;
	before = news_behind(event, &reads);
	running->asleep = true;
	process_point(POINT_PARK, NULL);
	running->asleep = false;
	if (__atomic_load_n(event, __ATOMIC_SEQ_CST) != value)
		return 0;
	after = news_behind(event, &reads);
	if (is_quiet() && (reads ? after.written != before.written || after.state != before.state
				 : after.attention != 0))
		finding("process %u (%s) was not woken", running->number,
			reads ? "reads" : "writes");
	now.ticks++;
	if (virtual_ns < until_ns)
		virtual_ns = until_ns;
	errno = ETIMEDOUT;
	return -1;
}

long __wrap_syscall(long number, ...)
{
	long a[6];
	va_list args;

	va_start(args, number);
	for (int i = 0; i < 6; i++)
		a[i] = va_arg(args, long);
	va_end(args);
	if (number == SYS_futex && (a[1] & FUTEX_CMD_MASK) == FUTEX_WAIT_BITSET && running != NULL)
		return park((uint32_t *)a[0], (uint32_t)a[2], (const struct timespec *)a[3]);
	return __real_syscall(number, a[0], a[1], a[2], a[3], a[4], a[5]);
}

/* -------------------------------------------------------------- descriptors */

static void hold_fd(int fd)
{
	if (fd < 0 || on_behalf == NULL)
		return;
	if (on_behalf->fd_count == HOLDS_MAX)
		abort();
	on_behalf->fds[on_behalf->fd_count++] = fd;
}

static void release_fd(int fd)
{
	for (unsigned i = 0; i < SEATS; i++)
		for (unsigned k = 0; k < seats[i].fd_count; k++)
			if (seats[i].fds[k] == fd) {
				seats[i].fds[k] = seats[i].fds[--seats[i].fd_count];
				return;
			}
}

int __wrap_openat(int at, const char *path, int flags, ...)
{
	mode_t mode;
	va_list args;
	int fd;

	va_start(args, flags);
	mode = flags & O_CREAT ? (mode_t)va_arg(args, unsigned) : 0;
	va_end(args);
	/* A directory is only looked at by readdir(). */
	if (!(flags & O_DIRECTORY))
		process_point(POINT_CALL, NULL);
	/* With one key there is one fan-out directory: do not ask the kernel for 255 others. */
	else if (running != NULL && strlen(path) == 2 && strcmp(path, world_fan_out) != 0)
		return errno = ENOENT, -1;
	fd = __real_openat(at, path, flags, mode);
	hold_fd(fd);
	return fd;
}

int __wrap_close(int fd)
{
	release_fd(fd);
	return __real_close(fd);
}

int __wrap_unlinkat(int at, const char *path, int flags)
{
	process_point(POINT_CALL, NULL);
	return __real_unlinkat(at, path, flags);
}

int __wrap_renameat(int from_fd, const char *from, int to_fd, const char *to)
{
	process_point(POINT_CALL, NULL);
	return __real_renameat(from_fd, from, to_fd, to);
}

ssize_t __wrap_pwrite(int fd, const void *data, size_t bytes, off_t offset)
{
	process_point(POINT_CALL, NULL);
	if (running != NULL && running->op != NULL && running->op->flags & LOSES_FILE && offset > 0) {
		errno = ENOSPC;
		return -1;
	}
	return __real_pwrite(fd, data, bytes, offset);
}

ssize_t __wrap_pread(int fd, void *data, size_t bytes, off_t offset)
{
	process_point(POINT_CALL, NULL);
	return __real_pread(fd, data, bytes, offset);
}

int __wrap_fcntl(int fd, int command, ...)
{
	va_list args;
	void *lock;

	va_start(args, command);
	lock = va_arg(args, void *);
	va_end(args);
	process_point(POINT_CALL, NULL);
	return __real_fcntl(fd, command, lock);
}

/* -------------------------------------------------------------------- memory */

static void hold_memory(void *memory)
{
	if (memory == NULL || on_behalf == NULL)
		return;
	if (on_behalf->memory_count == HOLDS_MAX)
		abort();
	on_behalf->memory[on_behalf->memory_count++] = memory;
}

static bool release_memory(const void *memory)
{
	for (unsigned i = 0; memory != NULL && i < SEATS; i++)
		for (unsigned k = 0; k < seats[i].memory_count; k++)
			if (seats[i].memory[k] == memory) {
				seats[i].memory[k] = seats[i].memory[--seats[i].memory_count];
				return true;
			}
	return false;
}

void *__wrap_malloc(size_t bytes)
{
	void *memory = __real_malloc(bytes);

	hold_memory(memory);
	return memory;
}

void *__wrap_calloc(size_t count, size_t bytes)
{
	void *memory = __real_calloc(count, bytes);

	hold_memory(memory);
	return memory;
}

void *__wrap_realloc(void *old, size_t bytes)
{
	bool held = release_memory(old);
	void *memory = __real_realloc(old, bytes);

	if (old == NULL || held)
		hold_memory(memory);
	return memory;
}

void __wrap_free(void *memory)
{
	release_memory(memory);
	__real_free(memory);
}

/* Its own malloc() is not wrapped: what the dead had of these would be lost. */
XXH3_state_t *__wrap_XXH3_createState(void)
{
	XXH3_state_t *state = aligned_alloc(64, round_up_u64(sizeof(*state), 64));

	hold_memory(state);
	return state;
}

XXH_errorcode __wrap_XXH3_freeState(XXH3_state_t *state)
{
	__wrap_free(state);
	return XXH_OK;
}

XXH32_state_t *__wrap_XXH32_createState(void)
{
	return __wrap_malloc(sizeof(XXH32_state_t));
}

XXH_errorcode __wrap_XXH32_freeState(XXH32_state_t *state)
{
	__wrap_free(state);
	return XXH_OK;
}

/* Views of files. */
void *__wrap_mmap(void *at, size_t bytes, int how, int flags, int fd, off_t offset)
{
	void *start;

	process_point(POINT_CALL, NULL);
	start = __real_mmap(at, bytes, how, flags, fd, offset);
	if (start == MAP_FAILED || on_behalf == NULL)
		return start;
	if (on_behalf->mapping_count == MAPPINGS_MAX)
		abort();
	on_behalf->mappings[on_behalf->mapping_count++] =
		(struct mapping){ .start = start, .bytes = bytes };
	return start;
}

int __wrap_munmap(void *start, size_t bytes)
{
	for (unsigned i = 0; i < SEATS; i++)
		for (unsigned k = 0; k < seats[i].mapping_count; k++)
			if (seats[i].mappings[k].start == start) {
				seats[i].mappings[k] = seats[i].mappings[--seats[i].mapping_count];
				break;
			}
	return __real_munmap(start, bytes);
}

/* A directory stream: its memory is libc's, so it is held as a stream. */
static DIR *streams[SEATS];

DIR *__wrap_fdopendir(int fd)
{
	DIR *dir = __real_fdopendir(fd);

	if (dir != NULL && on_behalf != NULL) {
		release_fd(fd);
		streams[on_behalf->number] = dir;
	}
	return dir;
}

struct dirent *__wrap_readdir(DIR *dir)
{
	process_point(POINT_CALL, NULL);
	return __real_readdir(dir);
}

int __wrap_closedir(DIR *dir)
{
	for (unsigned i = 0; i < SEATS; i++)
		if (streams[i] == dir)
			streams[i] = NULL;
	return __real_closedir(dir);
}

void wrap_reclaim(struct process *process)
{
	if (streams[process->number] != NULL)
		__wrap_closedir(streams[process->number]);
	while (process->fd_count > 0)
		__wrap_close(process->fds[process->fd_count - 1]);
	while (process->mapping_count > 0) {
		const struct mapping last = process->mappings[process->mapping_count - 1];

		__wrap_munmap(last.start, last.bytes);
	}
	while (process->memory_count > 0)
		__wrap_free(process->memory[process->memory_count - 1]);
}
