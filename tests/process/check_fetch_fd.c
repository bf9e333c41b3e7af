/* SPDX-License-Identifier: MIT */
/*
 * check_fetch_fd - scache_fetch_to_fd() into pipes, sockets and files, and
 * into those that do not take it.
 */
#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include "../util/pattern.h"
#include "../util/producer.h"
#include "../util/scratch.h"
#include "../util/spawn.h"

#define BLOB_BYTES 600000ull /* more than the ring */
#define LIMIT_BYTES 100000ull

/* Returns what scache_fetch_to_fd() did. */
static int fetch_to(struct scache *cache, struct task *task, int fd,
		    struct scache_fetched *ret_fetched)
{
	const struct scache_producer producer = task_producer(task);
	int ret;

	*ret_fetched = (struct scache_fetched){ .size = sizeof(*ret_fetched), .reserved = 99 };
	ret = scache_fetch_to_fd(cache, "k", 1, NULL, &producer, fd, ret_fetched);
	must_be(ret_fetched->size, sizeof(*ret_fetched));
	must_be(ret_fetched->reserved, 0);
	atomic_fetch_add(&board->fetches, 1);
	return ret;
}

static void fetch_is(const struct scache_fetched *fetched, uint64_t bytes, int created, int code,
		     int fd_error)
{
	must_be(fetched->bytes, bytes);
	must_be(fetched->created, created);
	must_be(fetched->code, code);
	must_be(fetched->fd_error, fd_error);
}

/* ------------------------------------------------------------------ the other side */

struct drain {
	int ends[2]; /* ours is [0] */
	uint64_t bytes; /* UINT64_MAX: all; else that many, and goes */
};

static void drain(void *arg)
{
	const struct drain *d = arg;
	uint64_t at = 0;
	char data[5000];
	ssize_t got = 1;

	close(d->ends[1]);
	while (at < d->bytes && got > 0) {
		uint64_t left = d->bytes - at;

		got = read(d->ends[0], data, left < sizeof(data) ? left : sizeof(data));
		must(got >= 0);
		must(pattern_matches(1, at, data, (size_t)got));
		at += (uint64_t)got;
	}
	child_say((int64_t)at);
}

static void start_drain(struct child *child, struct drain *d)
{
	child_start(child, drain, d);
	close(d->ends[0]);
}

static void passes(struct drain *d)
{
	struct task task = { .seed = 1, .bytes = BLOB_BYTES };
	struct scache_fetched fetched;
	struct scache *cache;
	struct child child;

	board_make();
	d->bytes = UINT64_MAX;
	start_drain(&child, d);
	cache = scratch_open();
	must_be(fetch_to(cache, &task, d->ends[1], &fetched), 0);
	close(d->ends[1]);
	fetch_is(&fetched, BLOB_BYTES, 1, 0, 0);
	must_be(child_hear(&child), BLOB_BYTES);
	child_join(&child);
	task_close(cache, NULL);
}

START_TEST(all_of_it_goes_into_a_pipe)
{
	struct drain d;

	must(pipe(d.ends) == 0);
	passes(&d);
}
END_TEST

START_TEST(all_of_it_goes_into_a_socket)
{
	struct drain d;

	must(socketpair(AF_UNIX, SOCK_STREAM, 0, d.ends) == 0);
	passes(&d);
}
END_TEST

START_TEST(all_of_it_goes_into_a_pipe_that_does_not_block)
{
	struct drain d;

	must(pipe2(d.ends, O_NONBLOCK) == 0);
	must(fcntl(d.ends[0], F_SETFL, 0) == 0);
	passes(&d);
}
END_TEST

static int open_file(void)
{
	char path[400];
	int fd;

	snprintf(path, sizeof(path), "%s/output", scratch_base);
	fd = open(path, O_RDWR | O_CREAT | O_TRUNC, 0600);
	must(fd >= 0);
	return fd;
}

/* @fd has the first @bytes bytes, and no more. */
static void file_has(int fd, uint64_t bytes)
{
	static char data[BLOB_BYTES + 1];

	must_be(pread(fd, data, sizeof(data), 0), bytes);
	must(pattern_matches(1, 0, data, bytes));
	close(fd);
}

START_TEST(all_of_it_goes_into_a_file_and_once_more_without_the_callback)
{
	struct task task = { .seed = 1, .bytes = BLOB_BYTES }, other = { .seed = 2, .bytes = 1 };
	struct scache_fetched fetched;
	struct scache *cache;
	int fd = open_file();

	board_make();
	cache = scratch_open();
	must_be(fetch_to(cache, &task, fd, &fetched), 0);
	fetch_is(&fetched, BLOB_BYTES, 1, 0, 0);
	file_has(fd, BLOB_BYTES);
	fd = open_file();
	must_be(fetch_to(cache, &other, fd, &fetched), 0);
	fetch_is(&fetched, BLOB_BYTES, 0, 0, 0);
	file_has(fd, BLOB_BYTES);
	must_be(atomic_load(&board->begun), 1);
	task_close(cache, NULL);
}
END_TEST

START_TEST(an_empty_blob_is_written_as_well)
{
	struct task task = { .seed = 1 };
	struct scache_fetched fetched;
	struct scache *cache;
	int fd = open_file();

	board_make();
	cache = scratch_open();
	must_be(fetch_to(cache, &task, fd, &fetched), 0);
	fetch_is(&fetched, 0, 1, 0, 0);
	file_has(fd, 0);
	task_close(cache, NULL);
}
END_TEST

START_TEST(an_older_caller_gets_what_it_knows)
{
	struct task task = { .seed = 1, .bytes = 1000 };
	const struct scache_producer producer = task_producer(&task);
	struct scache_fetched fetched = { .size = offsetof(struct scache_fetched, code),
					  .code = 99,
					  .fd_error = 99,
					  .reserved = 99 };
	struct scache *cache;
	int fd = open_file();

	board_make();
	cache = scratch_open();
	must_be(scache_fetch_to_fd(cache, "k", 1, NULL, &producer, fd, &fetched), 0);
	fetch_is(&fetched, 1000, 1, 99, 99);
	must_be(fetched.reserved, 99);
	must_be(fetched.size, offsetof(struct scache_fetched, code));
	close(fd);
	scratch_close(cache);
}
END_TEST

/* ------------------------------------------------------------- that does not take it */

/* The callback is silent until after the call has returned. */
static void finds_nobody(int ends[2])
{
	struct task task = { .seed = 1, .bytes = BLOB_BYTES, .pauses = true };
	struct scache_fetched fetched;
	struct sigaction now;
	struct scache *cache;

	board_make();
	must(sigaction(SIGPIPE, NULL, &now) == 0 && now.sa_handler == SIG_DFL);
	cache = scratch_open();
	close(ends[0]);
	must_be(fetch_to(cache, &task, ends[1], &fetched), -EPIPE);
	fetch_is(&fetched, 0, 1, -EAGAIN, -EPIPE);
	must_be(atomic_load(&board->returned), 0);
	atomic_store(&board->go, 1);
	eventually(atomic_load(&board->released) == 1);
	must_be(atomic_load(&board->error), -EPIPE);
	close(ends[1]);
	task_close(cache, NULL);
}

START_TEST(a_pipe_without_a_reader_is_found_while_the_callback_is_silent)
{
	int ends[2];

	must(pipe(ends) == 0);
	finds_nobody(ends);
	must(pipe2(ends, O_NONBLOCK) == 0);
	finds_nobody(ends);
}
END_TEST

START_TEST(a_socket_without_a_peer_is_found_while_the_callback_is_silent)
{
	int ends[2];

	must(socketpair(AF_UNIX, SOCK_STREAM, 0, ends) == 0);
	finds_nobody(ends);
}
END_TEST

/* More than the other side takes and the pipe holds is there when it goes. */
static void is_left_in_the_midst(int flags)
{
	struct task task = { .seed = 1, .bytes = BLOB_BYTES, .pauses = true, .pause_at = 400000 };
	struct drain d = { .bytes = LIMIT_BYTES };
	struct scache_fetched fetched;
	struct scache *cache;
	struct child child;

	board_make();
	must(pipe(d.ends) == 0);
	must(fcntl(d.ends[1], F_SETFL, flags) == 0);
	start_drain(&child, &d);
	cache = scratch_open();
	must_be(fetch_to(cache, &task, d.ends[1], &fetched), -EPIPE);
	must(fetched.bytes >= LIMIT_BYTES && fetched.bytes < task.pause_at);
	fetch_is(&fetched, fetched.bytes, 1, -EAGAIN, -EPIPE);
	must_be(child_hear(&child), LIMIT_BYTES);
	child_join(&child);
	atomic_store(&board->go, 1);
	close(d.ends[1]);
	task_close(cache, NULL);
	must_be(atomic_load(&board->error), -EPIPE);
}

START_TEST(a_pipe_that_is_left_in_the_midst_is_EPIPE_and_no_signal)
{
	is_left_in_the_midst(O_NONBLOCK);
}
END_TEST

START_TEST(a_pipe_that_is_left_in_the_midst_of_a_write_is_EPIPE_and_no_signal)
{
	is_left_in_the_midst(0);
}
END_TEST

/* In a child: the limit is for ever. */
static void fetch_to_limited_file(void *arg)
{
	const struct rlimit limit = { LIMIT_BYTES, LIMIT_BYTES };
	struct task task = { .seed = 2, .bytes = 1 };
	struct scache *cache = scratch_open();
	struct scache_fetched fetched;
	struct sigaction now;

	must(sigaction(SIGXFSZ, NULL, &now) == 0 && now.sa_handler == SIG_DFL);
	must(setrlimit(RLIMIT_FSIZE, &limit) == 0);
	must_be(fetch_to(cache, &task, *(int *)arg, &fetched), -EFBIG);
	fetch_is(&fetched, LIMIT_BYTES, 0, 0, -EFBIG);
	scratch_close(cache);
}

START_TEST(a_file_that_may_not_grow_is_EFBIG_and_no_signal)
{
	struct task task = { .seed = 1, .bytes = BLOB_BYTES };
	struct scache_reader *reader;
	struct scache *cache;
	struct child child;
	int fd = open_file();

	board_make();
	cache = scratch_open();
	must_be(task_fetch(cache, "k", NULL, &task, &reader), 1);
	pattern_read_all(reader, 1, BLOB_BYTES);
	child_start(&child, fetch_to_limited_file, &fd);
	child_join(&child);
	file_has(fd, LIMIT_BYTES);
	task_close(cache, reader);
}
END_TEST

START_TEST(a_descriptor_that_is_none_is_an_error_of_the_descriptor)
{
	struct task task = { .seed = 1, .bytes = BLOB_BYTES, .pauses = true, .pause_at = 1000 };
	struct scache_fetched fetched;
	struct scache *cache;

	board_make();
	cache = scratch_open();
	must_be(fetch_to(cache, &task, -1, &fetched), -EBADF);
	fetch_is(&fetched, 0, 1, -EAGAIN, -EBADF);
	atomic_store(&board->go, 1);
	task_close(cache, NULL);
	must_be(atomic_load(&board->error), -EPIPE);
}
END_TEST

/* ------------------------------------------------------------- that is not produced */

static void fails_with(int code)
{
	struct task task = { .seed = 1, .bytes = BLOB_BYTES, .ret = code };
	struct scache_fetched fetched;
	struct scache *cache;
	int fd = open_file();

	board_make();
	cache = scratch_open();
	must_be(fetch_to(cache, &task, fd, &fetched), code > 0 ? -EREMOTEIO : code);
	fetch_is(&fetched, BLOB_BYTES, 1, code, 0);
	file_has(fd, BLOB_BYTES);
	must(scratch_misses(cache, "k"));
	task_close(cache, NULL);
}

START_TEST(a_failed_callbacks_bytes_are_written_and_its_code_is_told)
{
	fails_with(42);
	fails_with(-EDOM);
	/* Of the blob, not of the descriptor. */
	fails_with(-EPIPE);
}
END_TEST

static void produce_and_stall(void *arg)
{
	struct task task = { .seed = 2, .bytes = BLOB_BYTES, .pauses = true };
	struct scache_reader *reader;

	(void)arg;
	must_be(task_fetch(scratch_open(), "k", NULL, &task, &reader), 1);
	eventually(atomic_load(&board->paused) == 1);
	child_say(0);
	child_stay();
}

static void fetch_to_file(void *arg)
{
	struct task task = { .seed = 1, .bytes = BLOB_BYTES };
	struct scache *cache = scratch_open();
	struct scache_fetched fetched;

	must_be(fetch_to(cache, &task, *(int *)arg, &fetched), 0);
	fetch_is(&fetched, BLOB_BYTES, 1, 0, 0);
	scratch_close(cache);
}

START_TEST(a_producer_killed_before_the_first_byte_is_replaced_by_the_callers)
{
	struct scache *cache;
	struct child producer, child;
	int fd = open_file();

	board_make();
	child_start(&producer, produce_and_stall, NULL);
	child_hear(&producer);
	child_start(&child, fetch_to_file, &fd);
	cache = scratch_open();
	eventually(scratch_stat(cache).joins == 1);
	child_kill(&producer);
	child_join(&child);
	file_has(fd, BLOB_BYTES);
	must_be(atomic_load(&board->begun), 2);
	must_be(atomic_load(&board->released), 1);
	scratch_is_clean(cache);
	scratch_close(cache);
}
END_TEST

/* ------------------------------------------------------------------ pthread_cancel */

struct call {
	struct scache *cache;
	struct task task;
	int fd;
};

static void *fetch_until_cancelled(void *arg)
{
	struct call *call = arg;
	struct scache_fetched fetched;

	fetch_to(call->cache, &call->task, call->fd, &fetched);
	must(!"not cancelled");
	return NULL;
}

START_TEST(a_cancelled_thread_leaves_nothing_open)
{
	struct call call = { .task = { .seed = 1, .bytes = BLOB_BYTES, .pauses = true },
			     .fd = open_file() };
	pthread_t thread;
	void *result;

	board_make();
	call.cache = scratch_open();
	must(pthread_create(&thread, NULL, fetch_until_cancelled, &call) == 0);
	eventually(scratch_stat(call.cache).waits > 0);
	must(pthread_cancel(thread) == 0);
	must(pthread_join(thread, &result) == 0);
	must(result == PTHREAD_CANCELED);
	must_be(scache_close_within(call.cache, 0), -EAGAIN);
	atomic_store(&board->go, 1);
	atomic_fetch_add(&board->fetches, 1);
	task_close(call.cache, NULL);
	must_be(atomic_load(&board->error), -EPIPE);
	close(call.fd);
}
END_TEST

int main(void)
{
	const TTest *const tests[] = {
		all_of_it_goes_into_a_pipe,
		all_of_it_goes_into_a_socket,
		all_of_it_goes_into_a_pipe_that_does_not_block,
		all_of_it_goes_into_a_file_and_once_more_without_the_callback,
		an_empty_blob_is_written_as_well,
		an_older_caller_gets_what_it_knows,
		a_pipe_without_a_reader_is_found_while_the_callback_is_silent,
		a_socket_without_a_peer_is_found_while_the_callback_is_silent,
		a_pipe_that_is_left_in_the_midst_is_EPIPE_and_no_signal,
		a_pipe_that_is_left_in_the_midst_of_a_write_is_EPIPE_and_no_signal,
		a_file_that_may_not_grow_is_EFBIG_and_no_signal,
		a_descriptor_that_is_none_is_an_error_of_the_descriptor,
		a_failed_callbacks_bytes_are_written_and_its_code_is_told,
		a_producer_killed_before_the_first_byte_is_replaced_by_the_callers,
		a_cancelled_thread_leaves_nothing_open,
	};

	return SCRATCH_RUN("fetch_fd", tests);
}
