/* SPDX-License-Identifier: MIT */
#include "shm/peer.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/fd.h"
#include "base/step.h"
#include "shm/wait.h"

/* How long a process that was alive is taken for it: with many waiters, whose ticks are
 * spread, the first one to look comes soon after a death. */
#define TRUST_NS ((uint64_t)WAIT_TICK_NS / 4)

int peer_mark_fork(struct peer *peer)
{
	unsigned char *page = mmap(NULL, SHM_PAGE_BYTES, PROT_READ | PROT_WRITE,
				   MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (page == MAP_FAILED)
		return -ENOMEM;
	if (madvise(page, SHM_PAGE_BYTES, MADV_WIPEONFORK) < 0) {
		munmap(page, SHM_PAGE_BYTES);
		return -ENOSYS;
	}
	*page = 1;
	peer->not_forked = page;
	return 0;
}

void peer_unmark_fork(struct peer *peer)
{
	munmap((void *)(uintptr_t)peer->not_forked, SHM_PAGE_BYTES);
}

/* ---------------------------------------------------------------- as /proc shows it */

struct process {
	uint64_t namespace, started_ticks;
	char state;
};

/* What /proc says of process @pid, in our own namespace. All 0 if nothing. */
static void look_at_process(uint64_t pid, struct process *ret_process)
{
	char path[64], text[512];
	const char *end;
	struct stat st;
	ssize_t bytes;
	int fd;

	*ret_process = (struct process){ .state = '?' };
	snprintf(path, sizeof(path), "/proc/%llu/stat", (unsigned long long)pid);
	fd = fd_openat(AT_FDCWD, path, O_RDONLY | O_CLOEXEC, 0);
	bytes = fd < 0 ? 0 : read(fd, text, sizeof(text) - 1);
	if (fd >= 0)
		close(fd);
	if (bytes <= 0)
		return;
	text[bytes] = '\0';
	/* The name before it may have blanks and brackets of its own. */
	end = strrchr(text, ')');
	if (end == NULL ||
	    sscanf(end + 1,
		   " %c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %*u %*u %*d %*d %*d %*d %*d %*d"
		   " %" SCNu64,
		   &ret_process->state, &ret_process->started_ticks) != 2)
		*ret_process = (struct process){ .state = '?' };
	if (stat("/proc/self/ns/pid", &st) == 0)
		ret_process->namespace = st.st_ino;
}

bool peer_is_stopped(const struct segment *segment, uint32_t slot)
{
	struct shm_peer *shared;
	struct process process;

	if (slot >= segment->geometry.peers)
		return false;
	shared = &segment->peers[slot];
	if (PEER_STATE(shm_load(&shared->state)) != PEER_ACTIVE)
		return false;
	look_at_process(shm_load_relaxed(&shared->pid), &process);
	return (process.state == 'T' || process.state == 't') && process.namespace != 0 &&
	       process.namespace == shm_load_relaxed(&shared->pid_namespace) &&
	       process.started_ticks == shm_load_relaxed(&shared->started_ticks);
}

/* ---------------------------------------------------------------------- the seat */

/* Take slot @i if nobody has it. 0, -EAGAIN, -errno. */
static int claim_slot(struct segment *segment, int lock_fd, uint32_t i, uint32_t *ret_gen)
{
	struct shm_peer *shared = &segment->peers[i];
	uint64_t word = shm_load(&shared->state);
	struct process process;
	int ret;

	if (PEER_STATE(word) != PEER_FREE)
		return -EAGAIN;
	ret = lockfile_take(lock_fd, segment->number, i);
	if (ret < 0)
		return ret;
	/* STEP peer-byte-taken: the kernel alone knows. Die here: nothing to mend. */
	STEP("peer-byte-taken");
	word = shm_load(&shared->state);
	if (PEER_STATE(word) != PEER_FREE) {
		lockfile_drop(lock_fd, segment->number, i);
		return -EAGAIN;
	}
	look_at_process((uint64_t)getpid(), &process);
	shm_store_relaxed(&shared->pid, (uint64_t)getpid());
	shm_store_relaxed(&shared->pid_namespace, process.namespace);
	shm_store_relaxed(&shared->started_ticks, process.started_ticks);
	shm_store_relaxed(&shared->seen_alive_ns, clock_shared_ns());
	/* STEP peer-named: a free slot with our pid in it. Die here: the next one overwrites it. */
	STEP("peer-named");
	shm_store(&shared->state, PEER_WORD(PEER_GEN(word), PEER_ACTIVE));
	/* STEP peer-active: a seat with nothing on it. Die here: a reaper frees it. */
	STEP("peer-active");
	*ret_gen = PEER_GEN(word);
	return 0;
}

int peer_attach(struct peer *peer, struct segment *segment, int lock_fd)
{
	uint32_t count = segment->geometry.peers, start = (uint32_t)getpid() % count, i;
	int ret;

	ret = peer_mark_fork(peer);
	if (ret < 0)
		return ret;
	for (i = 0; i < count; i++) {
		peer->slot = (start + i) % count;
		ret = claim_slot(segment, lock_fd, peer->slot, &peer->gen);
		if (ret != -EAGAIN)
			break;
	}
	if (ret < 0) {
		peer_unmark_fork(peer);
		return ret == -EAGAIN ? -EUSERS : ret;
	}
	peer->segment = segment;
	peer->shared = &segment->peers[peer->slot];
	peer->lock_fd = lock_fd;
	peer->fork_count = lockfile_fork_count();
	atomic_init(&peer->pins_taken, 0);
	/* Spread the processes over the table, so that their claims do not collide. */
	atomic_init(&peer->claim_hint, (uint32_t)((uint64_t)peer->slot * segment->geometry.entries / count));
	pthread_mutex_init(&peer->reap_mutex, NULL);
	return 0;
}

void peer_detach(struct peer *peer)
{
	shm_store(&peer->shared->state, PEER_WORD(peer->gen + 1, PEER_FREE));
	/* STEP peer-free: the byte is still ours. Die here: the kernel lets it go. */
	STEP("peer-free");
	lockfile_close(peer->lock_fd);
	/* STEP peer-gone: the slot is anybody's. Die here: nothing to mend. */
	STEP("peer-gone");
	pthread_mutex_destroy(&peer->reap_mutex);
	peer_unmark_fork(peer);
}

void peer_forget(struct peer *peer)
{
	/* After fork() it is closed, and its number may be our own next one's; a
	 * raw clone() ran no handler. */
	if (peer->fork_count == lockfile_fork_count())
		lockfile_close(peer->lock_fd);
	peer_unmark_fork(peer);
}

bool peer_is_dead(struct peer *peer, uint32_t slot)
{
	struct shm_peer *shared;
	uint64_t now_ns, seen_ns;
	uint64_t word;
	int held;

	if (slot == peer->slot)
		return false;
	if (slot >= peer->segment->geometry.peers)
		return true;
	shared = &peer->segment->peers[slot];
	word = shm_load(&shared->state);
	/* Only a reaper that proved it dead says REAPING; FREE owns nothing any more. */
	if (PEER_STATE(word) != PEER_ACTIVE)
		return true;
	now_ns = clock_shared_ns();
	seen_ns = shm_load_relaxed(&shared->seen_alive_ns);
	if (seen_ns <= now_ns && now_ns - seen_ns < TRUST_NS)
		return false;
	held = lockfile_is_held(peer->lock_fd, peer->segment->number, slot);
	if (held == 0)
		return true;
	shm_store_relaxed(&shared->seen_alive_ns, now_ns);
	return false;
}
