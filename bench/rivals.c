/* SPDX-License-Identifier: MIT */
/*
 * rivals - what one would do without the library, as fast as a few lines allow.
 * None of them finds anything by a key, survives a death or limits itself; who
 * takes part knows where everything is before the race begins.
 */
#include "race.h"

#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/futex.h>
#include <stdatomic.h>
#include <sys/file.h>
#include <sys/inotify.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#define PIPE_BYTES (1 << 20)

/* ------------------------------------------------------------------------ pipes */

struct ends {
	int out, in; /* read here, write there */
};

static struct ends pipes[READERS_MAX], trunk, spare;

static struct ends a_pipe(void)
{
	int fds[2];

	expect(pipe2(fds, O_CLOEXEC) == 0, "pipe2");
	/* Without the privilege a user has so many pages in pipes, then it stays small. */
	fcntl(fds[1], F_SETPIPE_SZ, PIPE_BYTES);
	return (struct ends){ .out = fds[0], .in = fds[1] };
}

static void close_pipes(const struct race *race, bool out, bool in)
{
	for (unsigned i = 0; i < race->readers; i++) {
		if (out)
			close(pipes[i].out);
		if (in)
			close(pipes[i].in);
	}
}

static void pipes_prepare(const struct race *race)
{
	for (unsigned i = 0; i < race->readers; i++)
		pipes[i] = a_pipe();
}

static void pipes_started(const struct race *race)
{
	close_pipes(race, true, true);
}

static void pipes_consume(const struct race *race, unsigned index)
{
	int fd = dup(pipes[index].out);

	close_pipes(race, true, true);
	race_made();
	race_read_fd(race, index, fd);
}

static void pipes_produce(const struct race *race)
{
	unsigned char *payload = race_buffer(race->write_bytes);

	close_pipes(race, true, false);
	race_made();
	race_start();
	for (size_t done = 0; done < race->total_bytes; done += race->write_bytes) {
		race_fill(race, payload, race->write_bytes);
		for (unsigned i = 0; i < race->readers; i++)
			expect(write(pipes[i].in, payload, race->write_bytes) ==
				       (ssize_t)race->write_bytes,
			       "write");
	}
	close_pipes(race, false, true); /* the end of the stream: not only at our exit */
}

const struct means rival_pipe = { .prepare = pipes_prepare,
				  .started = pipes_started,
				  .produce = pipes_produce,
				  .consume = pipes_consume };

/* -------------------------------------------------------------------------- tee */

static void tee_prepare(const struct race *race)
{
	pipes_prepare(race);
	trunk = a_pipe();
	spare = a_pipe();
}

static void tee_started(const struct race *race)
{
	pipes_started(race);
	close(trunk.out);
	close(trunk.in);
	close(spare.out);
	close(spare.in);
}

static void tee_produce(const struct race *race)
{
	close_pipes(race, true, true);
	close(trunk.out);
	race_made();
	race_write_fd(race, trunk.in);
	close(trunk.in);
}

static void move(int from, int to, ssize_t bytes)
{
	ssize_t n;

	for (; bytes > 0; bytes -= n) {
		n = splice(from, NULL, to, NULL, (size_t)bytes, 0);
		expect(n > 0, "splice");
	}
}

/*
 * No byte is copied here. tee(2) always begins at the front of the trunk, so
 * each outlet must get the same: what goes into an empty spare pipe goes there
 * whole, and from there into an outlet that may be nearly full. The last of the
 * readers, who are two or more, gets the original.
 */
static void tee_relay(const struct race *race)
{
	ssize_t n;

	close_pipes(race, true, false);
	close(trunk.in);
	race_made();
	race_start();
	for (;;) {
		n = tee(trunk.out, spare.in, PIPE_BYTES, 0);
		expect(n >= 0, "tee");
		if (n == 0)
			break;
		move(spare.out, pipes[0].in, n);
		for (unsigned i = 1; i + 1 < race->readers; i++) {
			expect(tee(trunk.out, spare.in, (size_t)n, 0) == n, "tee again");
			move(spare.out, pipes[i].in, n);
		}
		move(trunk.out, pipes[race->readers - 1].in, n);
	}
	close_pipes(race, false, true);
}

static void tee_consume(const struct race *race, unsigned index)
{
	close(trunk.out);
	close(trunk.in);
	close(spare.out);
	close(spare.in);
	pipes_consume(race, index);
}

const struct means rival_tee = { .prepare = tee_prepare,
				 .started = tee_started,
				 .produce = tee_produce,
				 .relay = tee_relay,
				 .consume = tee_consume };

/* ------------------------------------------------------------------------ files */

static int fresh_file(void)
{
	int fd = open(in_dir("file"), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);

	expect(fd >= 0, "create");
	return fd;
}

static int open_file(void)
{
	int fd = open(in_dir("file"), O_RDONLY | O_CLOEXEC);

	expect(fd >= 0, "open");
	return fd;
}

static void remove_file(const struct race *race)
{
	(void)race;
	expect(unlink(in_dir("file")) == 0, "unlink");
}

static void file_produce(const struct race *race)
{
	int fd = fresh_file();

	race_made();
	race_write_fd(race, fd);
	/* To who follows a file its closing is the end. */
	expect(close(fd) == 0, "close");
	race_end(race);
}

const struct means rival_pwrite = { .produce = file_produce, .clean = remove_file };

static void flock_produce(const struct race *race)
{
	int fd = fresh_file();

	expect(flock(fd, LOCK_EX) == 0, "flock");
	race_made();
	race_write_fd(race, fd);
	expect(flock(fd, LOCK_UN) == 0, "flock");
}

static void flock_consume(const struct race *race, unsigned index)
{
	unsigned char *sink = race_buffer(READ_BYTES);
	size_t done = 0;
	ssize_t n;
	int fd;

	race_made();
	fd = open_file();
	race_start();
	expect(flock(fd, LOCK_SH) == 0, "flock");
	while ((n = read(fd, sink, READ_BYTES)) > 0)
		race_take(race, index, sink, (size_t)n, &done);
	race_end(race);
	if (done != race->total_bytes)
		errx(1, "%zu bytes of %zu", done, race->total_bytes);
}

const struct means rival_flock = { .produce = flock_produce,
				   .consume = flock_consume,
				   .clean = remove_file };

/* Wait for a change. Returns whether the writer has closed the file. */
static bool await_change(int watch)
{
	_Alignas(struct inotify_event) char events[4096];
	ssize_t n = read(watch, events, sizeof(events));
	bool closed = false;

	expect(n > 0, "read inotify");
	for (char *at = events; at < events + n;) {
		const struct inotify_event *event = (const void *)at;

		closed |= (event->mask & IN_CLOSE_WRITE) != 0;
		at += sizeof(*event) + event->len;
	}
	return closed;
}

static void inotify_consume(const struct race *race, unsigned index)
{
	unsigned char *sink = race_buffer(READ_BYTES);
	int watch = inotify_init1(IN_CLOEXEC), fd;
	bool closed = false;
	size_t done = 0;

	expect(watch >= 0, "inotify_init1");
	race_made();
	fd = open_file();
	expect(inotify_add_watch(watch, in_dir("file"), IN_MODIFY | IN_CLOSE_WRITE) >= 0,
	       "inotify_add_watch");
	race_start();
	for (;;) {
		ssize_t n = read(fd, sink, READ_BYTES);

		expect(n >= 0, "read");
		if (n > 0)
			race_take(race, index, sink, (size_t)n, &done);
		else if (closed)
			break; /* and nothing came between that and this read */
		else
			closed = await_change(watch);
	}
	race_end(race);
	if (done != race->total_bytes)
		errx(1, "%zu bytes of %zu", done, race->total_bytes);
}

const struct means rival_inotify = { .produce = file_produce,
				     .consume = inotify_consume,
				     .clean = remove_file };

/* -------------------------------------------------------------------- lock step */

/*
 * A writer and readers around a file: the writer waits until its fastest reader
 * has all there is, then writes once. Where both are stands in shared memory;
 * who has nothing to do sleeps on a futex, and who moves wakes only sleepers.
 */
#define ENDED (1ull << 63)
#define SPINS 2000 /* as many as the library's reader does at most */

struct side {
	_Alignas(64) _Atomic uint64_t position;
	_Atomic uint32_t event, sleepers;
};

static struct pace {
	struct side written, fetched;
	bool spins;
} * pace;

static void step_prepare(const struct race *race)
{
	pace = shared_new(sizeof(*pace));
	pace->spins = race->means == &rival_lock_step_spin;
}

static void step_clean(const struct race *race)
{
	shared_free(pace, sizeof(*pace));
	remove_file(race);
}

/* Returns the position, once it is @least or more. */
static uint64_t await_position(struct side *side, uint64_t least)
{
	uint64_t position;

	for (int i = 0; pace->spins && i < SPINS; i++) {
		if ((position = atomic_load(&side->position)) >= least)
			return position;
#if defined(__x86_64__) || defined(__i386__)
		__builtin_ia32_pause();
#endif
	}
	for (;;) {
		uint32_t event = atomic_load(&side->event);

		if ((position = atomic_load(&side->position)) >= least)
			return position;
		atomic_fetch_add(&side->sleepers, 1);
		/* Again: who moved before it could see a sleeper has woken nobody. */
		if (atomic_load(&side->position) < least)
			syscall(SYS_futex, &side->event, FUTEX_WAIT, event, NULL, NULL, 0);
		atomic_fetch_sub(&side->sleepers, 1);
	}
}

static void announce(struct side *side)
{
	atomic_fetch_add(&side->event, 1);
	if (atomic_load(&side->sleepers) > 0)
		syscall(SYS_futex, &side->event, FUTEX_WAKE, INT_MAX, NULL, NULL, 0);
}

static void step_produce(const struct race *race)
{
	unsigned char *payload = race_buffer(race->write_bytes);
	int fd = fresh_file();

	race_made();
	race_start();
	for (size_t done = 0; done < race->total_bytes;) {
		race_fill(race, payload, race->write_bytes);
		await_position(&pace->fetched, done);
		expect(write(fd, payload, race->write_bytes) == (ssize_t)race->write_bytes,
		       "write");
		done += race->write_bytes;
		atomic_store(&pace->written.position, done);
		announce(&pace->written);
	}
	atomic_fetch_or(&pace->written.position, ENDED);
	announce(&pace->written);
	race_end(race);
}

static void step_consume(const struct race *race, unsigned index)
{
	unsigned char *sink = race_buffer(READ_BYTES);
	uint64_t written = 0, before;
	size_t done = 0;
	ssize_t n;
	int fd;

	race_made();
	fd = open_file();
	race_start();
	for (;;) {
		/* It may have read what is written and not yet announced. */
		if (done >= (written & ~ENDED)) {
			if (written & ENDED)
				break;
			written = await_position(&pace->written, done + 1);
			continue;
		}
		n = read(fd, sink, READ_BYTES);
		expect(n > 0, "read");
		race_take(race, index, sink, (size_t)n, &done);
		if (done < (written & ~ENDED))
			continue; /* the writer does not want to know yet */
		before = atomic_load(&pace->fetched.position);
		while (before < done &&
		       !atomic_compare_exchange_weak(&pace->fetched.position, &before, done))
			;
		if (before < done)
			announce(&pace->fetched);
	}
	race_end(race);
	if (done != race->total_bytes)
		errx(1, "%zu bytes of %zu", done, race->total_bytes);
}

const struct means rival_lock_step = { .prepare = step_prepare,
				       .produce = step_produce,
				       .consume = step_consume,
				       .clean = step_clean };
const struct means rival_lock_step_spin = { .prepare = step_prepare,
					    .produce = step_produce,
					    .consume = step_consume,
					    .clean = step_clean };
