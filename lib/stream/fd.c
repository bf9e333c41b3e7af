/* SPDX-License-Identifier: MIT */
/*
 * fd - between a stream and a descriptor.
 *
 * A descriptor may be silent or stuffed for long, and meanwhile nobody would
 * look whether the other side of the stream, or of the descriptor, is still
 * there: so no wait for one is longer than a tick either. Only a blocking
 * descriptor that may take all the time it likes is written to as it is.
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/quiet.h"
#include "base/thread.h"
#include "shm/wait.h"
#include "stream/stream.h"

#define COPY_BYTES (256u << 10)
#define TICK_MS ((int)(WAIT_TICK_NS / 1000000))

/* Of @timeout_ns what is left until @deadline_ns. */
static int64_t left_of(int64_t timeout_ns, int64_t deadline_ns)
{
	int64_t left_ns;

	if (timeout_ns == 0 || deadline_ns == DEADLINE_NEVER)
		return timeout_ns;
	left_ns = deadline_ns - clock_own_ns();
	return left_ns < 1 ? 1 : left_ns;
}

/* The same, but no more than a tick. */
static int64_t short_wait_ns(int64_t timeout_ns, int64_t deadline_ns)
{
	int64_t left_ns = left_of(timeout_ns, deadline_ns);

	return left_ns < 0 || left_ns > WAIT_TICK_NS ? WAIT_TICK_NS : left_ns;
}

/* A wait of a tick has brought nothing. 0: go on; -EAGAIN, -ETIMEDOUT. */
static int time_is_over(int64_t timeout_ns, int64_t deadline_ns)
{
	if (timeout_ns == 0)
		return -EAGAIN;
	return clock_own_ns() >= deadline_ns ? -ETIMEDOUT : 0;
}

/* What poll() says of @fd within @wait_ns. */
static short look_at(int fd, short events, int64_t wait_ns)
{
	struct pollfd pollfd = { .fd = fd, .events = events };
	int64_t ms = (wait_ns + 999999) / 1000000;

	if (fd < 0) /* poll() passes it over; read() and write() say what it is */
		return POLLNVAL;
	if (poll(&pollfd, 1, (int)(ms < TICK_MS ? ms : TICK_MS)) <= 0)
		return 0;
	return pollfd.revents;
}

/* ---------------------------------------------------------------- fd to entry */

/* What poll() says when @fd can be read, has ended or is broken; else why not. */
static int await_input(struct scache_writer *writer, int fd, int64_t timeout_ns,
		       int64_t deadline_ns)
{
	int events, ret;

	while ((events = look_at(fd, POLLIN, short_wait_ns(timeout_ns, deadline_ns))) == 0) {
		ret = scache_writer_check(writer);
		if (ret < 0)
			return ret;
		if (atomic_load(&writer->cancelled))
			return -ECANCELED;
		ret = time_is_over(timeout_ns, deadline_ns);
		if (ret < 0)
			return ret;
	}
	return events;
}

/* One read, in place. The bytes, 0 at the end of @fd, -errno. */
static ssize_t write_some(struct scache_writer *writer, int fd, size_t bytes, int64_t timeout_ns,
			  int64_t deadline_ns)
{
	ssize_t room, done;
	void *at;

	for (;;) {
		done = await_input(writer, fd, timeout_ns, deadline_ns);
		if (done < 0)
			return done;
		if (done == POLLHUP) /* and nothing to be read: no need for room */
			return 0;
		/* In one wait, or nobody would ever find that it waits for itself (-EDEADLK). */
		room = scache_reserve(writer, bytes, &at, left_of(timeout_ns, deadline_ns));
		if (room < 0)
			return room;
		done = read(fd, at, (size_t)room);
		if (done > 0)
			return scache_commit(writer, (size_t)done);
		if (done == 0 || (errno != EAGAIN && errno != EINTR))
			return done == 0 ? 0 : -errno;
	}
}

ssize_t scache_write_from_fd(struct scache_writer *writer, int fd, size_t bytes,
			     int64_t timeout_ns)
{
	KEEP_ERRNO;
	int64_t deadline_ns = timeout_ns > 0 ? deadline_after(timeout_ns) : DEADLINE_NEVER;
	ssize_t done = writer_check_handle(writer);
	size_t taken = 0;

	if (done < 0)
		return done;
	bytes = (size_t)min_u64(bytes, SSIZE_MAX);
	while (taken < bytes) {
		done = write_some(writer, fd, bytes - taken, timeout_ns, deadline_ns);
		if (done <= 0)
			break;
		taken += (size_t)done;
	}
	return taken > 0 ? (ssize_t)taken : done;
}

/* ---------------------------------------------------------------- entry to fd */

static ssize_t write_quietly(int fd, const void *data, size_t bytes)
{
	struct quiet quiet;
	ssize_t done;
	int raised;

	quiet_begin(&quiet);
	done = write(fd, data, bytes);
	if (done < 0)
		done = -errno;
	raised = done == -EFBIG ? SIGXFSZ : 0;
	/* A pipe whose reader goes in the midst of a write counts what it took, and signals. */
	if (done == -EPIPE || (done > 0 && (size_t)done < bytes))
		raised = SIGPIPE;
	quiet_end(&quiet, raised);
	return done;
}

/* A blocking @fd takes this much at once without blocking, if poll() says so. */
static size_t write_at_most(int fd, int64_t timeout_ns)
{
	int flags = timeout_ns < 0 ? O_NONBLOCK : fcntl(fd, F_GETFL);

	return flags & O_NONBLOCK ? SIZE_MAX : PIPE_BUF;
}

/* What of @bytes @fd has taken when all is written, it fails, or the time is over. */
static size_t put_out(struct scache_reader *reader, int fd, size_t bytes, int64_t timeout_ns,
		      int64_t deadline_ns, int *ret_error)
{
	size_t done = 0, most = write_at_most(fd, timeout_ns);
	ssize_t part;

	while (done < bytes) {
		part = -EAGAIN;
		if (most == SIZE_MAX || look_at(fd, POLLOUT, 0))
			part = write_quietly(fd, reader->bounce + done, (size_t)min_u64(bytes - done, most));
		if (part >= 0) {
			done += (size_t)part;
			continue;
		}
		if (part == -EINTR)
			continue;
		if (part == -EAGAIN && look_at(fd, POLLOUT, short_wait_ns(timeout_ns, deadline_ns)))
			continue;
		if (part == -EAGAIN && atomic_load(&reader->cancelled))
			part = -ECANCELED;
		if (part == -EAGAIN)
			part = time_is_over(timeout_ns, deadline_ns);
		if (part == 0)
			continue;
		*ret_error = (int)part;
		break;
	}
	return done;
}

/* One piece. The bytes, 0 at the end of the entry, -errno; *ret_error is of @fd. */
static ssize_t read_some(struct scache_reader *reader, int fd, size_t bytes, int64_t timeout_ns,
			 int64_t deadline_ns, int *ret_error)
{
	ssize_t done;

	for (;;) {
		done = reader_next(reader, reader->bounce, (size_t)min_u64(bytes, COPY_BYTES),
				   short_wait_ns(timeout_ns, deadline_ns));
		if (done != -ETIMEDOUT)
			break;
		if (look_at(fd, 0, 0) & (POLLERR | POLLHUP))
			return *ret_error = -EPIPE;
		done = time_is_over(timeout_ns, deadline_ns);
		if (done < 0)
			break;
	}
	if (done <= 0)
		return done;
	done = (ssize_t)put_out(reader, fd, (size_t)done, timeout_ns, deadline_ns, ret_error);
	reader_advance(reader, reader->bounce, (size_t)done);
	return done > 0 ? done : *ret_error;
}

ssize_t reader_to_fd(struct scache_reader *reader, int fd, size_t bytes, int64_t timeout_ns,
		     int *ret_error)
{
	int64_t deadline_ns = timeout_ns > 0 ? deadline_after(timeout_ns) : DEADLINE_NEVER;
	ssize_t done = 0;
	size_t taken = 0;

	if (reader->bounce == NULL)
		reader->bounce = malloc(COPY_BYTES);
	if (reader->bounce == NULL)
		return -ENOMEM;
	bytes = (size_t)min_u64(bytes, SSIZE_MAX);
	*ret_error = 0;
	while (taken < bytes && *ret_error == 0) {
		done = read_some(reader, fd, bytes - taken, timeout_ns, deadline_ns, ret_error);
		if (done <= 0)
			break;
		taken += (size_t)done;
	}
	return taken > 0 ? (ssize_t)taken : done;
}

ssize_t scache_read_to_fd(struct scache_reader *reader, int fd, size_t bytes, int64_t timeout_ns)
{
	KEEP_ERRNO;
	int ret = reader_check_handle(reader), fd_error;

	if (ret < 0 || bytes == 0)
		return ret;
	return reader_to_fd(reader, fd, bytes, timeout_ns, &fd_error);
}
