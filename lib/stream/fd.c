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
#include <sys/sendfile.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/quiet.h"
#include "base/thread.h"
#include "shm/wait.h"
#include "stream/stream.h"

#define SEND_BYTES (4u << 20) /* at once: then others are told where we are */
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

/* Where the bytes at the reader's position are: in its bounce buffer, or a file. */
struct source {
	const unsigned char *data; /* NULL: the file */
	int file_fd;
	uint64_t offset;
};

/* Some of it from @done on. The count or -errno. */
static ssize_t put_quietly(int fd, const struct source *source, size_t done, size_t bytes)
{
	off_t offset = (off_t)(source->offset + done);
	struct quiet quiet;
	ssize_t part;
	int raised;

	quiet_begin(&quiet);
	part = source->data != NULL ? write(fd, source->data + done, bytes) :
				      sendfile(fd, source->file_fd, &offset, bytes);
	if (part < 0)
		part = -errno;
	else if (part == 0 && source->data != NULL)
		part = -EIO;
	raised = part == -EFBIG ? SIGXFSZ : part == -EPIPE ? SIGPIPE : 0;
	/* What ended in the midst of a write counts what it took, and signals. */
	if (part > 0 && (size_t)part < bytes) {
		quiet_forget(&quiet, SIGXFSZ);
		raised = SIGPIPE;
	}
	quiet_end(&quiet, raised);
	return part;
}

/* A blocking @fd takes this much at once without blocking, if poll() says so. */
static size_t put_at_most(int fd, int64_t timeout_ns)
{
	int flags = timeout_ns < 0 ? O_NONBLOCK : fcntl(fd, F_GETFL);

	return flags & O_NONBLOCK ? SIZE_MAX : PIPE_BUF;
}

/* What of @bytes @fd has taken when all is put, it fails, or the time is over. */
static size_t put_out(struct scache_reader *reader, int fd, const struct source *source,
		      size_t bytes, int64_t timeout_ns, int64_t deadline_ns, int *ret_error)
{
	size_t done = 0, most = put_at_most(fd, timeout_ns);
	ssize_t part;

	while (done < bytes) {
		part = -EAGAIN;
		if (most == SIZE_MAX || look_at(fd, POLLOUT, 0))
			part = put_quietly(fd, source, done, (size_t)min_u64(bytes - done, most));
		if (part > 0) {
			done += (size_t)part;
			continue;
		}
		if (part == 0) /* a file that has lost its end */
			break;
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

/*
 * From the file to @fd within the kernel, no more than is @written. The bytes; 0: not by
 * this way, or not these bytes; *ret_error is of @fd.
 */
static size_t send_some(struct scache_reader *reader, int fd, uint64_t written, size_t bytes,
			int64_t timeout_ns, int64_t deadline_ns, int *ret_error)
{
	struct source source = { .data = NULL, .offset = reader->position };
	uint64_t flushed;
	size_t done;

	/* A checksum of what the caller has had needs to see it. */
	if (reader->is_refused || reader->replay != NULL)
		return 0;
	/* ORDER flushed, acquire: the bytes before it. Pairs with writer_flush(). */
	flushed = min_u64(shm_load_acquire(&reader->entry->flushed), written);
	if (flushed <= reader->position || reader_may_lose(reader) || copy_get_blob(reader) < 0 ||
	    opened_fd(reader->blob) < 0 || !reader_is_still_there(reader))
		return 0;
	source.file_fd = opened_fd(reader->blob);
	bytes = (size_t)min_u64(bytes, min_u64(flushed - reader->position, SEND_BYTES));
	/* Copying tells what is wrong with them. */
	if (opened_check(reader->store, reader->blob, reader->position, bytes) < 0)
		return 0;
	done = put_out(reader, fd, &source, bytes, timeout_ns, deadline_ns, ret_error);
	/* Not into this kind of file, or not appending: then by write(). */
	if (done == 0 && (*ret_error == -EINVAL || *ret_error == -ENOSYS ||
			  *ret_error == -EOPNOTSUPP)) {
		reader->is_refused = true;
		*ret_error = 0;
	}
	reader->stats[STAT_READS_FILE] += done > 0;
	reader->stats[STAT_BYTES_FILE] += done;
	return done;
}

static ssize_t copy_some(struct scache_reader *reader, int fd, uint64_t written, size_t bytes,
			 int64_t timeout_ns, int64_t deadline_ns, int *ret_error)
{
	struct source source = { .data = reader_get_bounce(reader) };
	ssize_t done;

	if (source.data == NULL)
		return -ENOMEM;
	bytes = (size_t)min_u64(bytes, min_u64(BOUNCE_BYTES, written - reader->position));
	done = copy_out(reader, reader->position, reader->bounce, bytes);
	if (done > 0)
		done = (ssize_t)put_out(reader, fd, &source, (size_t)done, timeout_ns, deadline_ns,
					ret_error);
	return done;
}

/* As reader_ready(), with an eye on @fd; *ret_error is of it. */
static int await_bytes(struct scache_reader *reader, int fd, int64_t timeout_ns,
		       int64_t deadline_ns, uint64_t *ret_written, int *ret_error)
{
	int ret;

	for (;;) {
		ret = reader_ready(reader, short_wait_ns(timeout_ns, deadline_ns), ret_written);
		if (ret != -ETIMEDOUT)
			return ret;
		if (look_at(fd, 0, 0) & (POLLERR | POLLHUP))
			return *ret_error = -EPIPE;
		ret = time_is_over(timeout_ns, deadline_ns);
		if (ret < 0)
			return ret;
	}
}

/* One piece. The bytes, 0 at the end of the entry, -errno; *ret_error is of @fd. */
static ssize_t read_some(struct scache_reader *reader, int fd, size_t bytes, int64_t timeout_ns,
			 int64_t deadline_ns, int *ret_error)
{
	uint64_t written;
	ssize_t done;

	do {
		done = await_bytes(reader, fd, timeout_ns, deadline_ns, &written, ret_error);
		if (done <= 0)
			return done;
		done = (ssize_t)send_some(reader, fd, written, bytes, timeout_ns, deadline_ns,
					  ret_error);
		if (done == 0 && *ret_error == 0)
			done = copy_some(reader, fd, written, bytes, timeout_ns, deadline_ns,
					 ret_error);
	} while (unlikely(done == -ENODATA) && reader_begins_elsewhere(reader));
	if (done < 0)
		return reader_had(reader, done);
	reader_had(reader, done);
	reader_advance(reader, reader->bounce, (size_t)done);
	return done > 0 ? done : *ret_error;
}

ssize_t reader_to_fd(struct scache_reader *reader, int fd, size_t bytes, int64_t timeout_ns,
		     int *ret_error)
{
	int64_t deadline_ns = timeout_ns > 0 ? deadline_after(timeout_ns) : DEADLINE_NEVER;
	ssize_t done = 0;
	size_t taken = 0;

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

ssize_t scache_sendfile(struct scache_reader *reader, int fd, size_t bytes, int64_t timeout_ns)
{
	KEEP_ERRNO;
	int ret = reader_check_handle(reader), fd_error;

	if (ret < 0 || bytes == 0)
		return ret;
	return reader_to_fd(reader, fd, bytes, timeout_ns, &fd_error);
}
