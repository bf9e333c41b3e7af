/* SPDX-License-Identifier: MIT */
#include "spawn.h"

#include <check.h>
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define FAILED_STATUS 99

static int parent_fd = -1; /* in a child */

void spawn_fail(const char *file, int line, const char *format, ...)
{
	char text[512];
	va_list args;

	va_start(args, format);
	vsnprintf(text, sizeof(text), format, args);
	va_end(args);
	if (parent_fd < 0)
		ck_abort_msg("%s:%d: %s", file, line, text);
	fprintf(stderr, "%s:%d: in a child: %s\n", file, line, text);
	_exit(FAILED_STATUS);
}

int64_t now_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

void pause_briefly(void)
{
	const struct timespec pause = { .tv_nsec = 500000 };

	nanosleep(&pause, NULL);
}

void child_start(struct child *ret_child, void (*body)(void *arg), void *arg)
{
	pid_t parent = getpid();
	int ends[2];

	must(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) == 0);
	fflush(NULL);
	ret_child->pid = fork();
	must(ret_child->pid >= 0);
	if (ret_child->pid == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		if (getppid() != parent)
			_exit(FAILED_STATUS);
		if (parent_fd >= 0)
			close(parent_fd);
		close(ends[0]);
		parent_fd = ends[1];
		body(arg);
		_exit(0);
	}
	close(ends[1]);
	ret_child->fd = ends[0];
}

static bool receive(int fd, int64_t *ret_word)
{
	struct pollfd at = { .fd = fd, .events = POLLIN };
	ssize_t got;
	int ret;

	do
		ret = poll(&at, 1, DEADLINE_MS);
	while (ret < 0 && errno == EINTR);
	if (ret <= 0)
		return false;
	do
		got = recv(fd, ret_word, sizeof(*ret_word), MSG_WAITALL);
	while (got < 0 && errno == EINTR);
	return got == sizeof(*ret_word);
}

static bool transmit(int fd, int64_t word)
{
	return send(fd, &word, sizeof(word), MSG_NOSIGNAL) == sizeof(word);
}

void child_say(int64_t word)
{
	if (!transmit(parent_fd, word))
		_exit(FAILED_STATUS);
}

int64_t child_listen(void)
{
	int64_t word;

	if (!receive(parent_fd, &word))
		_exit(FAILED_STATUS);
	return word;
}

void child_stay(void)
{
	for (;;)
		pause();
}

int64_t child_hear(struct child *child)
{
	int64_t word;

	if (!receive(child->fd, &word))
		spawn_fail(__FILE__, __LINE__, "child %d said nothing", (int)child->pid);
	return word;
}

void child_tell(struct child *child, int64_t word)
{
	if (!transmit(child->fd, word))
		spawn_fail(__FILE__, __LINE__, "child %d does not listen", (int)child->pid);
}

int child_end(struct child *child)
{
	int64_t end = now_ms() + DEADLINE_MS;
	pid_t pid;
	int status;

	while ((pid = waitpid(child->pid, &status, WNOHANG)) == 0 || (pid < 0 && errno == EINTR)) {
		if (now_ms() >= end)
			spawn_fail(__FILE__, __LINE__, "child %d does not end", (int)child->pid);
		pause_briefly();
	}
	must(pid == child->pid);
	close(child->fd);
	child->fd = -1;
	return WIFSIGNALED(status) ? -WTERMSIG(status) : WEXITSTATUS(status);
}

void child_join(struct child *child)
{
	must_be(child_end(child), 0);
}

void child_kill(struct child *child)
{
	must(kill(child->pid, SIGKILL) == 0);
	must_be(child_end(child), -SIGKILL);
}

void child_stop(struct child *child)
{
	int status;

	must(kill(child->pid, SIGSTOP) == 0);
	must(waitpid(child->pid, &status, WUNTRACED) == child->pid);
	must(WIFSTOPPED(status));
}
