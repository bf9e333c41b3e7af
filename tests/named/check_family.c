/* SPDX-License-Identifier: MIT */
/*
 * check_family - T10: a master opens, its children stream through the handle
 * they inherit, and the master dies; and all the ways there are to have a child.
 */
#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "../util/pattern.h"
#include "../util/scratch.h"
#include "../util/spawn.h"

#define WORKERS 8
#define BLOB_BYTES 600000ull

/* What worker @i produces, and each other one reads. */
static const char *key_of(int i)
{
	static char key[16];

	snprintf(key, sizeof(key), "key %d", i % WORKERS);
	return key;
}

/* Produce or read any of the keys: whoever comes first produces. */
static void stream(struct scache *cache, int i)
{
	struct scache_writer *writer;
	struct scache_reader *reader;
	const char *key = key_of(i);
	uint64_t seed = (uint64_t)(i % WORKERS) + 1, position = 0;

	must_be(scache_acquire(cache, key, strlen(key), NULL, &reader, &writer), 0);
	if (writer != NULL)
		pattern_produce(writer, seed, BLOB_BYTES, 30000);
	must_be(pattern_read(reader, seed, &position, UINT64_MAX, 8192), 0);
	must_be(position, BLOB_BYTES);
	scache_reader_close(reader);
}

/* ------------------------------------------------- the master and its workers */

struct worker {
	struct scache *cache;
	int number, ready_fd, go_fd, end_fd;
};

/*
 * The worker outlives the master: not child_start(), and it is told by pipes. The
 * last worker is idle: it never calls the library.
 */
static void work(const struct worker *worker)
{
	char byte;

	if (worker->number < WORKERS - 1)
		stream(worker->cache, worker->number);
	must(write(worker->ready_fd, "", 1) == 1);
	/* Until the master is dead. */
	must(read(worker->go_fd, &byte, 1) == 1);
	if (worker->number < WORKERS - 1)
		for (int i = 0; i < WORKERS; i++)
			stream(worker->cache, worker->number + i);
	must(write(worker->ready_fd, "", 1) == 1);
	must(read(worker->end_fd, &byte, 1) == 0);
	_exit(0);
}

struct pipes {
	int ready[2], go[2], end[2];
	bool raw; /* children are made by a system call, no handler of the library runs */
};

static pid_t make_child(bool raw)
{
	pid_t pid = raw ? (pid_t)syscall(SYS_clone, SIGCHLD, 0, 0, 0, 0) : fork();

	must(pid >= 0);
	return pid;
}

static void be_master(void *arg)
{
	struct pipes *pipes = arg;
	struct worker worker = { .cache = scratch_open(),
				 .ready_fd = pipes->ready[1],
				 .go_fd = pipes->go[0],
				 .end_fd = pipes->end[0] };

	close(pipes->go[1]);
	close(pipes->end[1]);
	for (worker.number = 0; worker.number < WORKERS; worker.number++)
		/* By a raw clone() the idle one would keep us looking alive. */
		if (make_child(pipes->raw && worker.number < WORKERS - 1) == 0)
			work(&worker);
	child_say(0);
	child_stay();
}

static void hear_workers(const struct pipes *pipes)
{
	char byte;

	for (int i = 0; i < WORKERS; i++)
		must(read(pipes->ready[0], &byte, 1) == 1);
}

static void kill_the_master(bool raw)
{
	struct pipes pipes = { .raw = raw };
	struct child master;
	struct scache *cache;
	char byte;

	must(pipe(pipes.ready) == 0 && pipe(pipes.go) == 0 && pipe(pipes.end) == 0);
	child_start(&master, be_master, &pipes);
	close(pipes.ready[1]);
	close(pipes.go[0]);
	close(pipes.end[0]);
	hear_workers(&pipes);
	child_hear(&master);
	cache = scratch_open();
	/* Master, the workers that work, and we. */
	must_be(scratch_stat(cache).peers, 1 + (WORKERS - 1) + 1);
	child_kill(&master);
	must_be(scache_sweep(cache, NULL, NULL), 0);
	must_be(scratch_stat(cache).peers, (WORKERS - 1) + 1);
	must_be(scratch_stat(cache).deaths, 1);
	for (int i = 0; i < WORKERS; i++)
		must(write(pipes.go[1], "", 1) == 1);
	hear_workers(&pipes);
	must_be(scratch_stat(cache).deaths, 1);
	must_be(scratch_stat(cache).entries_finished, WORKERS);
	/* They end without a word. */
	close(pipes.end[1]);
	must(read(pipes.ready[0], &byte, 1) == 0);
	close(pipes.ready[0]);
	close(pipes.go[1]);
	scratch_is_clean(cache);
	must_be(scratch_stat(cache).deaths, WORKERS);
	scratch_close(cache);
}

START_TEST(t10_a_killed_master_is_reaped_and_its_workers_go_on)
{
	kill_the_master(false);
}
END_TEST

START_TEST(t10_a_killed_master_of_raw_clones_is_reaped)
{
	kill_the_master(true);
}
END_TEST

/* --------------------------------------------------- other ways to have a child */

static int wait_for(pid_t pid)
{
	int status;

	must(waitpid(pid, &status, 0) == pid);
	must(WIFEXITED(status));
	return WEXITSTATUS(status);
}

static void close_in_child(void *arg)
{
	struct scache *cache = arg;

	/* Never used here: closing it is nobody's business but ours. */
	scratch_close(cache);
	cache = scratch_open();
	stream(cache, 0);
	scratch_close(cache);
}

static void use_and_close_in_child(void *arg)
{
	stream(arg, 1);
	scratch_close(arg);
}

START_TEST(t10_a_handle_closed_in_a_child_serves_its_parent)
{
	struct scache *cache = scratch_open();
	struct scache_writer *writer = scratch_create(cache, "mine", 0, NULL);
	struct child child;

	must_be(pattern_write(writer, 3, 0, 1000, 1000, NULL), 1000);
	child_start(&child, close_in_child, cache);
	child_join(&child);
	child_start(&child, use_and_close_in_child, cache);
	child_join(&child);
	must_be(scratch_stat(cache).peers, 1);
	must_be(scratch_stat(cache).deaths, 0);
	must_be(pattern_write(writer, 3, 1000, 5000, 1000, NULL), 4000);
	must_be(scache_finish(writer), 0);
	scache_writer_close(writer);
	scratch_is_clean(cache);
	must_be(scratch_stat(cache).entries_finished, 3);
	scratch_close(cache);
}
END_TEST

/* Are we seen to live by others, and are our streams untouched? */
static void is_unharmed(struct scache *cache, struct scache_writer *writer)
{
	struct child child;
	uint64_t bytes = 20000;

	child_start(&child, scratch_read_along, &bytes);
	child_hear(&child);
	must_be(scache_sweep(cache, NULL, NULL), 0);
	must_be(scratch_stat(cache).deaths, 0);
	must_be(pattern_write(writer, 1, 0, bytes, 1000, NULL), bytes);
	must_be(scache_finish(writer), 0);
	scache_writer_close(writer);
	child_join(&child);
	scratch_is_clean(cache);
	scratch_close(cache);
}

static pid_t start_sleep(void)
{
	char *sleeps[] = { (char *)"sleep", (char *)"1000", NULL };
	pid_t pid;

	must_be(posix_spawnp(&pid, "sleep", NULL, NULL, sleeps, environ), 0);
	return pid;
}

START_TEST(t10_children_that_exec_are_strangers)
{
	char *arguments[] = { (char *)"true", NULL };
	struct scache *cache = scratch_open();
	struct scache_writer *writer = scratch_create(cache, "k", 0, NULL);
	pid_t pid, sleeper;

	pid = vfork();
	if (pid == 0) {
		execvp("true", arguments);
		_exit(1);
	}
	must_be(wait_for(pid), 0);
	must_be(posix_spawnp(&pid, "true", NULL, NULL, arguments, environ), 0);
	must_be(wait_for(pid), 0);
	pid = fork();
	if (pid == 0) {
		execvp("true", arguments);
		_exit(1);
	}
	must_be(wait_for(pid), 0);
	/* One that lives on keeps nothing of ours. */
	sleeper = start_sleep();
	is_unharmed(cache, writer);
	must_be(scache_destroy(scratch_dir, NULL), 0);
	must(kill(sleeper, SIGKILL) == 0);
	must(waitpid(sleeper, NULL, 0) == sleeper);
}
END_TEST

static pid_t make_idle_child(void)
{
	pid_t pid = make_child(false);

	/* Not child_start(): this one must survive us. */
	if (pid == 0)
		child_stay();
	return pid;
}

struct way {
	pid_t (*make)(void);
};

/* A writer whose only child lives on and uses nothing. */
static void stall_with_a_child(void *arg)
{
	const struct way *way = arg;
	struct scache_writer *writer = scratch_create(scratch_open(), "k", 0, NULL);

	must_be(pattern_write(writer, 1, 0, 5000, 5000, NULL), 5000);
	child_say(way->make());
	child_stay();
}

static void kill_the_parent_of(pid_t (*make)(void))
{
	struct way way = { make };
	struct scache *cache = scratch_open();
	struct scache_reader *reader;
	struct child writer;
	uint64_t position = 0;
	pid_t survivor;

	child_start(&writer, stall_with_a_child, &way);
	survivor = (pid_t)child_hear(&writer);
	reader = scratch_find(cache, "k");
	child_kill(&writer);
	must_be(pattern_read(reader, 1, &position, UINT64_MAX, 4096), -EOWNERDEAD);
	must_be(position, 5000);
	must(kill(survivor, SIGKILL) == 0);
	scache_reader_close(reader);
	scratch_is_clean(cache);
	scratch_close(cache);
}

START_TEST(t10_a_child_that_lives_on_does_not_hide_its_parents_death)
{
	kill_the_parent_of(make_idle_child);
}
END_TEST

START_TEST(t10_a_program_that_a_dead_process_started_does_not_hide_its_death)
{
	kill_the_parent_of(start_sleep);
}
END_TEST

/* Open first and become a daemon then, as many do. */
static void become_a_daemon(void *arg)
{
	int *fds = arg;
	struct scache *cache = scratch_open();
	char byte;

	close(fds[0]);
	close(fds[3]);
	stream(cache, 0);
	must(daemon(1, 1) == 0);
	for (int i = 0; i < 3; i++)
		stream(cache, i);
	must_be(scratch_stat(cache).entries_finished, 3);
	must(write(fds[1], "", 1) == 1);
	must(read(fds[2], &byte, 1) == 0);
	scratch_close(cache);
	must(write(fds[1], "", 1) == 1);
	_exit(0);
}

START_TEST(t10_a_daemon_goes_on_with_what_it_opened_before)
{
	struct scache *cache;
	struct child child;
	int fds[4];
	char byte;

	must(pipe(fds) == 0 && pipe(fds + 2) == 0);
	child_start(&child, become_a_daemon, fds);
	close(fds[1]);
	must(read(fds[0], &byte, 1) == 1);
	/* The process that opened has gone, by an _exit(2) without a close. */
	child_join(&child);
	cache = scratch_open();
	must_be(scache_sweep(cache, NULL, NULL), 0);
	must_be(scratch_stat(cache).peers, 2);
	must_be(scratch_stat(cache).deaths, 1);
	close(fds[3]);
	must(read(fds[0], &byte, 1) == 1);
	must(read(fds[0], &byte, 1) == 0);
	close(fds[0]);
	close(fds[2]);
	scratch_is_clean(cache);
	must_be(scratch_stat(cache).deaths, 1);
	scratch_close(cache);
}
END_TEST

/* ------------------------------------------------- a fork while others are inside */

#define FORKS 40
#define THREADS 4

static _Atomic bool enough;
static struct scache *shared;

static void *stream_on(void *arg)
{
	char key[16];

	/* All of it at once: look-ups, streams, sweeps and opens, each with its locks. */
	for (int i = 0; !enough; i++) {
		struct scache_writer *writer;

		snprintf(key, sizeof(key), "%d %d", *(int *)arg, i % 5);
		writer = scratch_create(shared, key, 0, NULL);
		pattern_produce(writer, 1, 20000, 5000);
		must_be(scache_remove(shared, key, strlen(key)), 0);
		if (i % 8 == 0)
			scratch_close(scratch_open());
		if (i % 8 == 4)
			must_be(scache_sweep(shared, NULL, NULL), 0);
	}
	return NULL;
}

static void use_inherited(void *arg)
{
	struct scache *own;

	stream(shared, *(int *)arg);
	own = scratch_open();
	stream(own, *(int *)arg);
	must_be(scache_sweep(shared, NULL, NULL), 0);
	scratch_close(own);
}

START_TEST(t10_a_fork_while_threads_are_inside_calls)
{
	pthread_t threads[THREADS];
	int numbers[THREADS];
	struct child child;

	shared = scratch_open();
	for (int i = 0; i < THREADS; i++) {
		numbers[i] = i;
		must(pthread_create(&threads[i], NULL, stream_on, &numbers[i]) == 0);
	}
	for (int i = 0; i < FORKS; i++) {
		child_start(&child, use_inherited, &i);
		child_join(&child);
	}
	enough = true;
	for (int i = 0; i < THREADS; i++)
		pthread_join(threads[i], NULL);
	scratch_is_clean(shared);
	/* The children ended without a close of what they inherited. */
	must_be(scratch_stat(shared).deaths, FORKS);
	must_be(scratch_stat(shared).entries_finished, WORKERS);
	scratch_close(shared);
}
END_TEST

int main(void)
{
	const TTest *const tests[] = {
		t10_a_killed_master_is_reaped_and_its_workers_go_on,
		t10_a_killed_master_of_raw_clones_is_reaped,
		t10_a_handle_closed_in_a_child_serves_its_parent,
		t10_children_that_exec_are_strangers,
		t10_a_child_that_lives_on_does_not_hide_its_parents_death,
		t10_a_program_that_a_dead_process_started_does_not_hide_its_death,
		t10_a_daemon_goes_on_with_what_it_opened_before,
		t10_a_fork_while_threads_are_inside_calls,
	};

	return scratch_run("family", tests, sizeof(tests) / sizeof(tests[0]) - UNDER_ASAN);
}
