/* SPDX-License-Identifier: MIT */
/*
 * check_dying - T16, T17: a dead process's id is used again, and a process takes
 * long to die. Only the kernel knows that the one is dead and the other is not.
 */
#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <linux/sched.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "../util/pattern.h"
#include "../util/scratch.h"
#include "../util/spawn.h"

#define FORKS_MAX 100000
#define HELD_MS 1500
#define CORE_SECONDS 5
#define CORE_PATTERN "/proc/sys/kernel/core_pattern"
#define READ_NS 100000000ll

static void write_and_stall(void *arg)
{
	struct scache_writer *writer = scratch_create(scratch_open(), "k", 0, NULL);

	must_be(pattern_write(writer, 1, 0, 5000, 1000, NULL), 5000);
	child_say(0);
	if (arg != NULL)
		child_listen();
	if (arg != NULL)
		abort();
	child_stay();
}

static void reads_the_end(struct scache *cache, struct scache_reader *reader)
{
	uint64_t position = 0;

	must_be(pattern_read(reader, 1, &position, UINT64_MAX, 4096), -EOWNERDEAD);
	must_be(position, 5000);
	scache_reader_close(reader);
	must(scratch_misses(cache, "k"));
	pattern_produce(scratch_create(cache, "k", 0, NULL), 2, 3000, 1000);
	scratch_is_clean(cache);
	must_be(scratch_stat(cache).deaths, 1);
	scratch_close(cache);
}

/* ------------------------------------------------------------------------- T16 */

/* A child with that very id, if the kernel lets us choose; 0 if not. */
static pid_t fork_as(pid_t wanted)
{
	struct clone_args args = { .exit_signal = SIGCHLD,
				   .set_tid = (uint64_t)(uintptr_t)&wanted,
				   .set_tid_size = 1 };
	pid_t pid = (pid_t)syscall(SYS_clone3, &args, sizeof(args));

	if (pid == 0)
		child_stay();
	return pid < 0 ? 0 : pid;
}

/* Children one after the other, until the kernel has gone round. */
static pid_t fork_until(pid_t wanted)
{
	for (int i = 0; i < FORKS_MAX; i++) {
		pid_t pid = fork();

		must(pid >= 0);
		if (pid == 0)
			child_stay();
		if (pid == wanted)
			return pid;
		must(kill(pid, SIGKILL) == 0 && waitpid(pid, NULL, 0) == pid);
	}
	return 0;
}

static void reuse_the_id(pid_t (*fork_with)(pid_t wanted))
{
	struct scache *cache = scratch_open();
	struct scache_reader *reader;
	struct child writer;
	pid_t namesake;

	child_start(&writer, write_and_stall, NULL);
	child_hear(&writer);
	reader = scratch_find(cache, "k");
	must_be(scratch_info(reader).producer_pid, writer.pid);
	child_kill(&writer);
	namesake = fork_with(writer.pid);
	if (namesake == 0)
		printf("T16: nobody got the id of the dead\n");
	must(namesake == 0 || kill(writer.pid, 0) == 0);
	reads_the_end(cache, reader);
	if (namesake == 0)
		return;
	must(kill(namesake, SIGKILL) == 0);
	must(waitpid(namesake, NULL, 0) == namesake);
}

START_TEST(t16_a_dead_writer_whose_id_is_used_again_is_reaped)
{
	reuse_the_id(fork_as);
	if (scratch_is_long()) {
		must_be(scache_destroy(scratch_dir, NULL), 0);
		reuse_the_id(fork_until);
	}
}
END_TEST

/* ------------------------------------------------------------------------- T17 */

/* It is dying, and not dead: its stores may still land. */
static void is_not_reaped(struct scache *cache, struct scache_reader *reader, int64_t for_ms)
{
	int64_t end_ms = now_ms() + for_ms;
	char byte;

	must_be(scratch_stat(cache).peers, 2);
	do {
		struct scache_writer *writer;

		must_be(scache_read(reader, &byte, 1, READ_NS), -ETIMEDOUT);
		must_be(scache_acquire(cache, "k", 1, NULL, NULL, &writer), 0);
		must(writer == NULL);
		must_be(scache_sweep(cache, NULL, NULL), 0);
		must_be(scratch_stat(cache).deaths, 0);
	} while (now_ms() < end_ms);
}

static struct scache_reader *read_what_is_there(struct scache *cache)
{
	struct scache_reader *reader = scratch_find(cache, "k");
	uint64_t position = 0;

	must_be(pattern_read(reader, 1, &position, 5000, 4096), 1);
	return reader;
}

static bool has_stopped_to_exit(pid_t pid)
{
	int status;

	for (;;) {
		must(waitpid(pid, &status, 0) == pid);
		must(WIFSTOPPED(status));
		if (status >> 8 == (SIGTRAP | PTRACE_EVENT_EXIT << 8))
			return true;
		must(ptrace(PTRACE_CONT, pid, NULL, (void *)(uintptr_t)WSTOPSIG(status)) == 0);
	}
}

START_TEST(t17_a_writer_held_while_it_dies_is_not_reaped)
{
	const struct rlimit none = { 0, 0 };
	struct scache *cache = scratch_open();
	struct scache_reader *reader, *late;
	struct child writer;

	must(setrlimit(RLIMIT_CORE, &none) == 0);
	child_start(&writer, write_and_stall, &writer);
	child_hear(&writer);
	reader = read_what_is_there(cache);
	late = scratch_find(cache, "k");
	if (ptrace(PTRACE_SEIZE, writer.pid, NULL, (void *)(uintptr_t)PTRACE_O_TRACEEXIT) < 0) {
		printf("T17: not permitted to trace\n");
		child_kill(&writer);
	} else {
		child_tell(&writer, 0);
		/* Killed by a signal, and stopped before it lets go of anything. */
		must(has_stopped_to_exit(writer.pid));
		is_not_reaped(cache, reader, HELD_MS);
		must(ptrace(PTRACE_DETACH, writer.pid, NULL, NULL) == 0);
		must_be(child_end(&writer), -SIGABRT);
	}
	scache_reader_close(reader);
	reads_the_end(cache, late);
}
END_TEST

static void set_core_pattern(const char *pattern)
{
	FILE *file = fopen(CORE_PATTERN, "w");

	must(file != NULL && fputs(pattern, file) >= 0 && fclose(file) == 0);
}

/* The core goes to a program that takes its time. Restores what was there. */
static void dump_core_slowly(struct child *writer, struct scache *cache,
			     struct scache_reader *reader)
{
	char script[300], pattern[310], mark[310], before[200] = "";
	FILE *file = fopen(CORE_PATTERN, "r");

	must(file != NULL && fgets(before, sizeof(before), file) != NULL);
	fclose(file);
	snprintf(script, sizeof(script), "%s/core", scratch_base);
	snprintf(mark, sizeof(mark), "%s.begun", script);
	snprintf(pattern, sizeof(pattern), "|%s", script);
	file = fopen(script, "w");
	must(file != NULL);
	fprintf(file, "#!/bin/sh\n: >%s\nsleep %d\ncat >/dev/null\n", mark, CORE_SECONDS);
	must(fclose(file) == 0 && chmod(script, 0700) == 0);
	set_core_pattern(pattern);
	child_tell(writer, 0);
	for (int64_t end_ms = now_ms() + DEADLINE_MS; access(mark, F_OK) < 0;) {
		if (now_ms() > end_ms)
			break;
		pause_briefly();
	}
	set_core_pattern(before);
	must(access(mark, F_OK) == 0);
	is_not_reaped(cache, reader, CORE_SECONDS * 1000 / 2);
	must_be(child_end(writer), -SIGABRT);
}

START_TEST(t17_a_writer_in_a_core_dump_is_not_reaped)
{
	const struct rlimit all = { RLIM_INFINITY, RLIM_INFINITY };
	struct scache_reader *reader, *late;
	struct scache *cache;
	struct child writer;

	if (!scratch_is_long())
		return;
	if (access(CORE_PATTERN, W_OK) < 0) {
		printf("T17: no permission for " CORE_PATTERN "\n");
		return;
	}
	cache = scratch_open();
	must(setrlimit(RLIMIT_CORE, &all) == 0);
	child_start(&writer, write_and_stall, &writer);
	child_hear(&writer);
	reader = read_what_is_there(cache);
	late = scratch_find(cache, "k");
	dump_core_slowly(&writer, cache, reader);
	scache_reader_close(reader);
	reads_the_end(cache, late);
}
END_TEST

/* Freeze @dir. It is thawed when *ret_end is closed, also by our death. */
static pid_t freeze(const char *dir, int *ret_end)
{
	int ends[2], fd = open(dir, O_RDONLY | O_CLOEXEC);
	pid_t pid;
	char byte;

	must(fd >= 0 && pipe2(ends, O_CLOEXEC) == 0);
	pid = fork();
	must(pid >= 0);
	if (pid == 0) {
		close(ends[1]);
		while (read(ends[0], &byte, 1) > 0)
			;
		ioctl(fd, FITHAW, 0);
		_exit(0);
	}
	close(ends[0]);
	*ret_end = ends[1];
	must(ioctl(fd, FIFREEZE, 0) == 0);
	close(fd);
	return pid;
}

/* A disk of our own in a file, that nobody else sees; false if there can be none. */
static bool mount_disk(void)
{
	char command[2400];

	if (geteuid() != 0 || unshare(CLONE_NEWNS) < 0 ||
	    mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0)
		return false;
	snprintf(command, sizeof(command),
		 "mkdir -m 700 %s && truncate -s 64M %s/disk && mkfs.ext4 -q %s/disk && "
		 "mount -o loop %s/disk %s && chmod 700 %s && rm -rf %s/lost+found",
		 scratch_dir, scratch_base, scratch_base, scratch_base, scratch_dir, scratch_dir,
		 scratch_dir);
	return system(command) == 0;
}

static bool sleeps_for_the_disk(pid_t pid)
{
	char path[40], state = 0;
	FILE *file;

	snprintf(path, sizeof(path), "/proc/%d/stat", (int)pid);
	file = fopen(path, "r");
	must(file != NULL);
	must(fscanf(file, "%*d (%*[^)]) %c", &state) == 1);
	fclose(file);
	return state == 'D';
}

static void write_more_than_a_ring(void *arg)
{
	struct scache_writer *writer = scratch_create(scratch_open(), "k", 0, NULL);

	(void)arg;
	must_be(pattern_write(writer, 1, 0, 5000, 1000, NULL), 5000);
	child_say(0);
	child_listen();
	pattern_write(writer, 1, 5000, 5000000, 1000, NULL);
	spawn_fail(__FILE__, __LINE__, "the disk was not frozen");
}

START_TEST(t17_a_killed_writer_on_a_frozen_disk_is_not_reaped)
{
	struct scache_reader *reader, *late;
	uint64_t bytes = 5000;
	struct scache *cache;
	struct child writer;
	pid_t thawer;
	int end;

	if (!scratch_is_long())
		return;
	if (!mount_disk()) {
		printf("T17: no disk of our own to freeze\n");
		return;
	}
	cache = scratch_open();
	child_start(&writer, write_more_than_a_ring, NULL);
	child_hear(&writer);
	reader = read_what_is_there(cache);
	late = scratch_find(cache, "k");
	thawer = freeze(scratch_dir, &end);
	child_tell(&writer, 0);
	eventually(sleeps_for_the_disk(writer.pid));
	must(kill(writer.pid, SIGKILL) == 0);
	must_be(scache_size(reader, &bytes), 0);
	must_be(pattern_read(reader, 1, &(uint64_t){ 5000 }, bytes, 4096), 1);
	is_not_reaped(cache, reader, HELD_MS);
	close(end);
	must(waitpid(thawer, NULL, 0) == thawer);
	must_be(child_end(&writer), -SIGKILL);
	scache_reader_close(reader);
	bytes = 0;
	must_be(pattern_read(late, 1, &bytes, UINT64_MAX, 4096), -EOWNERDEAD);
	scache_reader_close(late);
	scratch_is_clean(cache);
	must_be(scratch_stat(cache).deaths, 1);
	scratch_close(cache);
}
END_TEST

int main(void)
{
	const TTest *const tests[] = {
		t16_a_dead_writer_whose_id_is_used_again_is_reaped,
		t17_a_writer_held_while_it_dies_is_not_reaped,
		t17_a_writer_in_a_core_dump_is_not_reaped,
		t17_a_killed_writer_on_a_frozen_disk_is_not_reaped,
	};

	return SCRATCH_RUN("dying", tests);
}
