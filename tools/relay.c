/* SPDX-License-Identifier: MIT */
/*
 * relay - CMD's standard error: live to the caller that started CMD, and the
 * last 64 KiB for everybody if CMD fails.
 *
 * A thread of the holder, so that CMD can write messages while its output
 * waits for a reader. It never stalls CMD: what a slow caller does not take
 * is kept up to a bound; then the oldest is dropped, with a note of how much.
 *
 * CMD's end, not the pipe's, ends the thread: something that CMD left running
 * in the background may hold the pipe for ever.
 */
#include "tool.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#define PENDING_BYTES (1u << 20)
#define CHUNK_BYTES (16u << 10)
#define LEFT_CHUNKS 128          /* at the end: more than a pipe can hold */
#define FINISH_NS (2 * NS_PER_S) /* for a caller that takes its time */

static void close_fd(int *fd)
{
	if (*fd >= 0)
		close(*fd);
	*fd = -1;
}

static void keep_tail(struct relay *relay, const char *data, size_t bytes)
{
	size_t i = relay->tail_bytes % SCACHE_MESSAGE_BYTES_MAX;
	size_t first = SCACHE_MESSAGE_BYTES_MAX - i;

	if (first > bytes)
		first = bytes;
	memcpy(relay->tail + i, data, first);
	memcpy(relay->tail, data + first, bytes - first);
	relay->tail_bytes += bytes;
}

/* Room for another chunk. Quarters at a time, or each chunk would move them all. */
static void make_room(struct relay *relay)
{
	if (relay->start < PENDING_BYTES / 4) {
		relay->dropped += PENDING_BYTES / 4 - relay->start;
		relay->start = PENDING_BYTES / 4;
	}
	relay->end -= relay->start;
	memmove(relay->buffer, relay->buffer + relay->start, relay->end);
	relay->start = 0;
}

/* At most CHUNK_BYTES. */
static void add(struct relay *relay, const char *data, size_t bytes)
{
	keep_tail(relay, data, bytes);
	if (relay->to_fd < 0)
		return;
	if (PENDING_BYTES - relay->end < bytes)
		make_room(relay);
	memcpy(relay->buffer + relay->end, data, bytes);
	relay->end += bytes;
}

/* Returns 0, -EAGAIN if nothing is there yet, -EPIPE at the end. */
static int take(struct relay *relay)
{
	char chunk[CHUNK_BYTES];
	ssize_t n = read(relay->from_fd, chunk, sizeof(chunk));

	if (n > 0) {
		add(relay, chunk, (size_t)n);
		return 0;
	}
	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return -EAGAIN;
	close_fd(&relay->from_fd);
	return -EPIPE;
}

static ssize_t give_some(struct relay *relay, const char *data, size_t bytes)
{
	ssize_t n = send(relay->to_fd, data, bytes, MSG_DONTWAIT | MSG_NOSIGNAL);

	if (n < 0 && errno != EAGAIN && errno != EINTR) {
		close_fd(&relay->to_fd); /* it has gone */
		relay->start = relay->end = 0;
	}
	return n;
}

/* Sends what the caller takes without waiting. */
static void give(struct relay *relay)
{
	char note[80];
	ssize_t n;

	if (relay->dropped && !tool_silenced()) {
		n = snprintf(note, sizeof(note),
			     "\nstreamcache: %" PRIu64 " bytes of messages dropped\n",
			     relay->dropped);
		if (give_some(relay, note, (size_t)n) < 0)
			return;
		relay->dropped = 0;
	}
	n = give_some(relay, relay->buffer + relay->start, relay->end - relay->start);
	if (n > 0)
		relay->start += (size_t)n;
	if (relay->start == relay->end)
		relay->start = relay->end = 0;
}

static void *relay_thread(void *arg)
{
	struct relay *relay = arg;
	int i;

	for (;;) {
		struct pollfd fds[3] = {
			{ .fd = relay->from_fd, .events = POLLIN },
			{ .fd = relay->to_fd, .events = relay->end ? POLLOUT : 0 },
			{ .fd = relay->ended_fd, .events = POLLIN },
		};

		if (poll(fds, 3, -1) < 0 && errno != EINTR)
			break;
		if (fds[2].revents)
			break;
		if (fds[0].revents)
			take(relay);
		if (fds[1].revents)
			give(relay); /* a caller that has gone is found so, too */
	}
	for (i = 0; relay->from_fd >= 0 && i < LEFT_CHUNKS && !take(relay); i++)
		;
	return NULL;
}

int relay_start(struct relay *relay, int from_fd, int to_fd)
{
	int rc;

	memset(relay, 0, sizeof(*relay));
	relay->from_fd = from_fd;
	relay->to_fd = to_fd;
	relay->buffer = malloc(PENDING_BYTES);
	relay->tail = malloc(SCACHE_MESSAGE_BYTES_MAX);
	relay->ended_fd = eventfd(0, EFD_CLOEXEC);
	fcntl(from_fd, F_SETFL, O_NONBLOCK);
	rc = relay->buffer && relay->tail && relay->ended_fd >= 0 ? 0 : -ENOMEM;
	if (!rc)
		rc = -pthread_create(&relay->thread, NULL, relay_thread, relay);
	if (rc) {
		free(relay->buffer);
		free(relay->tail);
		close_fd(&relay->from_fd);
		close_fd(&relay->to_fd);
		close_fd(&relay->ended_fd);
	}
	return rc;
}

void relay_stop(struct relay *relay, char **ret_tail, size_t *ret_bytes)
{
	size_t max = SCACHE_MESSAGE_BYTES_MAX, bytes, i = 0;
	uint64_t one = 1;
	char *tail;

	if (write(relay->ended_fd, &one, sizeof(one)) == sizeof(one))
		pthread_join(relay->thread, NULL);
	bytes = relay->tail_bytes;
	if (bytes > max) {
		bytes = max;
		i = relay->tail_bytes % max;
	}
	tail = malloc(max);
	if (tail) {
		memcpy(tail, relay->tail + i, bytes - i);
		memcpy(tail + bytes - i, relay->tail, i);
	}
	*ret_tail = tail;
	*ret_bytes = tail ? bytes : 0;
}

/* After the entry has ended: nobody waits for this but its one caller. */
void relay_finish(struct relay *relay)
{
	uint64_t deadline = tool_now_ns() + FINISH_NS, now;

	while (relay->to_fd >= 0 && relay->end && (now = tool_now_ns()) < deadline) {
		struct pollfd fd = { .fd = relay->to_fd, .events = POLLOUT };

		poll(&fd, 1, (int)((deadline - now) / NS_PER_MS) + 1);
		give(relay);
	}
	close_fd(&relay->from_fd);
	close_fd(&relay->to_fd);
	close_fd(&relay->ended_fd);
	free(relay->buffer);
	free(relay->tail);
}
