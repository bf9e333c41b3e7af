/* SPDX-License-Identifier: MIT */
/*
 * holder - the process that is elected to produce, and runs CMD.
 *
 * It is a session of its own and shares no descriptor with the caller that
 * forked it, so nothing that happens to that caller, its terminal or its
 * pipeline happens to the run, which has other listeners. It opens the cache
 * anew, for handles do not survive fork().
 *
 *  caller                               holder
 *  scache_lookup: -ENOENT
 *  fork                                 scache_acquire
 *                  <-- WON ---------    waits, with a reader of its own
 *  scache_lookup: attached
 *                  --- one byte --->    closes its reader, runs CMD
 *  reads to the end                     ends the entry and itself
 *
 * The holder's own reader keeps the entry listened to until the caller is
 * there. If the caller dies before, the holder goes on only for others.
 * LOST: somebody else produces or has; the caller looks again. BYPASS: the
 * caller runs CMD itself.
 */
#include "tool.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#define CALLER_PATIENCE_MS 1000

/* ----------------------------------------------------------- in the holder */

static void close_between(int first, int last)
{
	int fd;

	if (first > last || !close_range((unsigned int)first, (unsigned int)last, 0))
		return;
	/* an old kernel or a sandbox: what a caller plausibly has open */
	for (fd = first; fd <= last && fd < 65536; fd++)
		close(fd);
}

/* All descriptors but the standard ones, which become /dev/null, and @keep. */
static void close_all_but(int *keep, int count)
{
	int next = STDERR_FILENO + 1, null_fd, i, j;

	for (i = 0; i < count; i++)
		for (j = i + 1; j < count; j++)
			if (keep[j] < keep[i]) {
				int fd = keep[i];

				keep[i] = keep[j];
				keep[j] = fd;
			}
	for (i = 0; i < count; i++) {
		if (keep[i] < 0)
			continue;
		close_between(next, keep[i] - 1);
		next = keep[i] + 1;
	}
	close_between(next, (int)(~0u >> 1));
	null_fd = open("/dev/null", O_RDWR | O_CLOEXEC);
	for (i = 0; null_fd >= 0 && i <= STDERR_FILENO; i++)
		dup2(null_fd, i);
	if (null_fd > STDERR_FILENO)
		close(null_fd);
}

/*
 * SIGTERM is an orderly end: CMD is stopped and readers are told. What a
 * terminal or a closing session sends is not meant for this process.
 */
static int take_signals(void)
{
	static const int ignored[] = { SIGHUP, SIGINT, SIGQUIT, SIGPIPE, SIGTSTP };
	sigset_t set;
	size_t i;

	for (i = 0; i < sizeof(ignored) / sizeof(ignored[0]); i++)
		signal(ignored[i], SIG_IGN);
	signal(SIGTERM, SIG_DFL);
	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	sigprocmask(SIG_SETMASK, &set, NULL);
	return signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
}

static void answer(int control_fd, enum holder_answer what)
{
	char byte = (char)what;

	send(control_fd, &byte, 1, MSG_NOSIGNAL);
}

/* 0 when the caller is there, has died, or does not come; -ECANCELED if this process shall end. */
static int await_caller(int control_fd, int term_fd)
{
	struct pollfd fds[2] = {
		{ .fd = control_fd, .events = POLLIN },
		{ .fd = term_fd, .events = POLLIN },
	};

	/* One that is stopped must not stop those who have joined meanwhile. */
	while (poll(fds, 2, CALLER_PATIENCE_MS) < 0 && errno == EINTR)
		;
	return fds[1].revents ? -ECANCELED : 0;
}

/* An entry that could not get a file is hidden: the caller would never find it. */
static int is_joinable(struct scache_reader *reader)
{
	struct scache_entry_info info = { .size = sizeof(info) };

	return !scache_reader_info(reader, &info) && !(info.flags & SCACHE_HIDDEN);
}

static void produce(const struct holder_request *request, struct scache *cache, int control_fd,
		    int stderr_fd, int term_fd)
{
	struct scache_reader *reader = NULL;
	struct scache_writer *writer = NULL;
	int rc = scache_acquire(cache, request->key->data, request->key->bytes, &request->acquire,
				&reader, &writer);

	if (rc || !writer) {
		scache_reader_close(reader);
		answer(control_fd, rc ? HOLDER_BYPASS : HOLDER_LOST);
		return;
	}
	if (!is_joinable(reader)) {
		scache_reader_close(reader);
		scache_writer_close(writer);
		answer(control_fd, HOLDER_BYPASS);
		return;
	}
	answer(control_fd, HOLDER_WON);
	rc = await_caller(control_fd, term_fd);
	close(control_fd);
	scache_reader_close(reader);
	if (!rc && !scache_writer_check(writer))
		run_command(request, writer, stderr_fd, term_fd);
	scache_writer_close(writer);
}

static void holder_main(const struct holder_request *request, int control_fd, int stderr_fd)
{
	int keep[] = { control_fd, stderr_fd, request->spool_fd }, term_fd;
	struct scache *cache = NULL;

	setsid();
	prctl(PR_SET_NAME, "scache-holder");
	scache_close(request->cache);
	close_all_but(keep, 3);
	term_fd = take_signals();
	/* only the caller's standard error may say why it cannot be opened */
	if (tool_open(request->tool, 0, NULL, &cache)) {
		answer(control_fd, HOLDER_BYPASS);
		return;
	}
	produce(request, cache, control_fd, stderr_fd, term_fd);
	scache_close(cache);
}

/* ----------------------------------------------------------- in the caller */

static void close_pair(int pair[2])
{
	close(pair[0]);
	close(pair[1]);
}

#define IN_GRANDCHILD 1

/*
 * The holder must be nobody's child here: CMD may take this process's place,
 * and would have a child it never made. Returns 0, IN_GRANDCHILD, -errno.
 */
static int fork_grandchild(void)
{
	pid_t pid = fork();
	int status = 0;

	if (pid < 0)
		return -errno;
	if (pid == 0) {
		pid = fork();
		if (pid != 0)
			_exit(pid < 0);
		return IN_GRANDCHILD;
	}
	while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
		;
	return status ? -EAGAIN : 0;
}

int holder_start(const struct holder_request *request, struct holder *ret_holder,
		 enum holder_answer *ret_answer)
{
	int control[2], messages[2], rc;
	ssize_t n;
	char byte;

	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, control))
		return -errno;
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, messages)) {
		rc = -errno;
		close_pair(control);
		return rc;
	}
	rc = fork_grandchild();
	if (rc == IN_GRANDCHILD) {
		holder_main(request, control[1], messages[1]);
		_exit(0);
	}
	if (rc) {
		close_pair(control);
		close_pair(messages);
		return rc;
	}
	close(control[1]);
	close(messages[1]);
	ret_holder->control_fd = control[0];
	ret_holder->stderr_fd = messages[0];
	n = tool_read(control[0], &byte, 1);
	*ret_answer = n == 1 ? (enum holder_answer)byte : HOLDER_DIED;
	return 0;
}

void holder_attached(struct holder *holder)
{
	char byte = 0;

	send(holder->control_fd, &byte, 1, MSG_NOSIGNAL);
}

void holder_forget(struct holder *holder)
{
	close(holder->control_fd);
	close(holder->stderr_fd);
}
