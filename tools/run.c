/* SPDX-License-Identifier: MIT */
/*
 * run - CMD itself: started, its output written, its end told to the readers.
 *
 * CMD is a process group of its own below the holder, with the first caller's
 * environment, directory, umask and limits, signals as after login, standard
 * input from the spool or /dev/null. If the holder is killed, CMD gets
 * SIGTERM from the kernel.
 *
 * The loop never waits longer than a tick without asking whether anybody still
 * listens. When nobody does, CMD's group is told to end, whether it writes or
 * not, and what is left of it after the grace is killed.
 */
#include "tool.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/pidfd.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#define TICK_MS 50
#define WRITE_NS (200 * NS_PER_MS) /* whoever waits for room still hears SIGTERM */
#define GRACE_NS (5 * NS_PER_S)    /* from SIGTERM to SIGKILL */
#define PIPE_BYTES (1 << 20)

struct run {
	struct scache_writer *writer;
	struct relay relay;
	pid_t pid;
	int pid_fd; /* readable when CMD has ended; -1: the tick finds out */
	int out_fd; /* CMD's standard output; -1 after its end */
	int term_fd;
	int reaped;
	int status;        /* 128+n for a signal, once reaped or refused */
	uint64_t check_ns; /* when to ask next who listens */
};

/* The child's ends of its pipes; report_fd stays open only if exec fails. */
struct child_fds {
	int out_fd, err_fd, report_fd;
};

/* ------------------------------------------------------------- in the child */

/* A descriptor of its own, for the offset is shared with earlier attempts. */
int run_set_stdin(int fd)
{
	char path[32] = "/dev/null";
	int own_fd;

	if (fd >= 0)
		snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	own_fd = open(path, O_RDONLY | O_CLOEXEC);
	if (own_fd < 0 && fd >= 0) { /* no /proc */
		lseek(fd, 0, SEEK_SET);
		own_fd = fcntl(fd, F_DUPFD_CLOEXEC, 3);
	}
	if (own_fd < 0 || dup2(own_fd, STDIN_FILENO) < 0)
		return -errno;
	close(own_fd);
	return 0;
}

static void child(const struct holder_request *request, const struct child_fds *fds, pid_t parent)
{
	sigset_t none;
	int signal_number, rc;

	setpgid(0, 0);
	prctl(PR_SET_PDEATHSIG, SIGTERM);
	if (getppid() != parent)
		_exit(TOOL_UNUSABLE); /* too late for the signal */
	for (signal_number = 1; signal_number < NSIG; signal_number++)
		signal(signal_number, SIG_DFL);
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	rc = run_set_stdin(request->spool_fd);
	if (!rc && (dup2(fds->out_fd, STDOUT_FILENO) < 0 || dup2(fds->err_fd, STDERR_FILENO) < 0))
		rc = -errno;
	if (!rc) {
		execvp(request->path, request->argv);
		rc = -errno;
	}
	while (write(fds->report_fd, &rc, sizeof(rc)) < 0 && errno == EINTR)
		;
	_exit(TOOL_CANNOT_RUN);
}

/* ------------------------------------------------------------ in the holder */

static void close_fd(int *fd)
{
	if (*fd >= 0)
		close(*fd);
	*fd = -1;
}

/* Why CMD could not be started is told as if CMD had said it. */
static void refuse(struct run *run, const struct holder_request *request, int error, int stderr_fd)
{
	char text[512];
	int n = snprintf(text, sizeof(text), "streamcache: '%.400s': %s\n", request->argv[0],
			 strerror(-error));

	if (tool_silenced())
		n = 0;
	else
		send(stderr_fd, text, (size_t)n, MSG_NOSIGNAL | MSG_DONTWAIT);
	scache_abort(run->writer, run->status, text, (size_t)n);
}

/* Returns 0, or -errno of whatever keeps CMD from running. */
static int spawn(struct run *run, const struct holder_request *request, int *ret_err_fd)
{
	int out[2] = { -1, -1 }, err[2] = { -1, -1 }, report[2] = { -1, -1 }, rc = 0;
	pid_t parent = getpid();

	if (pipe2(out, O_CLOEXEC) || pipe2(err, O_CLOEXEC) || pipe2(report, O_CLOEXEC))
		rc = -errno;
	if (!rc) {
		struct child_fds fds = { out[1], err[1], report[1] };

		fcntl(out[0], F_SETPIPE_SZ, PIPE_BYTES); /* fewer switches; no must */
		run->pid = fork();
		if (run->pid == 0)
			child(request, &fds, parent);
		rc = run->pid < 0 ? -errno : 0;
	}
	close_fd(&out[1]);
	close_fd(&err[1]);
	close_fd(&report[1]);
	if (!rc) {
		setpgid(run->pid, run->pid); /* whoever of the two is first */
		if (tool_read(report[0], &rc, sizeof(rc)) == sizeof(rc)) {
			int missing = rc == -ENOENT || rc == -ENOTDIR;

			run->status = missing ? TOOL_NOT_FOUND : TOOL_CANNOT_RUN;
			waitpid(run->pid, NULL, 0);
		} else {
			rc = 0;
		}
	}
	close_fd(&report[0]);
	if (rc) {
		close_fd(&out[0]);
		close_fd(&err[0]);
		return rc;
	}
	run->out_fd = out[0];
	run->pid_fd = pidfd_open(run->pid, 0);
	*ret_err_fd = err[0];
	return 0;
}

static int has_ended(const struct run *run)
{
	siginfo_t info = { .si_pid = 0 };

	return waitid(P_PID, (id_t)run->pid, &info, WEXITED | WNOHANG | WNOWAIT) ||
	       info.si_pid == run->pid;
}

/* The writer finds killed readers only when it is asked. */
static int check_listeners(struct run *run)
{
	uint64_t now = tool_now_ns();

	if (now < run->check_ns)
		return 0;
	run->check_ns = now + TICK_MS * NS_PER_MS;
	return scache_writer_check(run->writer);
}

/* What CMD has printed, straight into the ring. 0 or why CMD must be stopped. */
static int take_output(struct run *run)
{
	ssize_t n = scache_write_from_fd(run->writer, run->out_fd, TOOL_BUFFER_BYTES, WRITE_NS);

	if (n == 0)
		close_fd(&run->out_fd);
	return n < 0 && n != -ETIMEDOUT ? (int)n : 0;
}

/* Returns 0 when CMD and its output have ended, else why it must be stopped. */
static int pump(struct run *run)
{
	while (run->out_fd >= 0 || !has_ended(run)) {
		struct pollfd fds[3] = {
			{ .fd = run->out_fd, .events = POLLIN },
			{ .fd = run->out_fd < 0 ? run->pid_fd : -1, .events = POLLIN },
			{ .fd = run->term_fd, .events = POLLIN },
		};
		int rc;

		if (poll(fds, 3, TICK_MS) < 0 && errno != EINTR)
			return -errno;
		if (fds[2].revents)
			return -ECANCELED;
		rc = fds[0].revents ? take_output(run) : 0;
		if (!rc)
			rc = check_listeners(run);
		if (rc)
			return rc;
	}
	return 0;
}

static void reap(struct run *run)
{
	int status = 0;
	pid_t pid;

	do {
		pid = waitpid(run->pid, &status, 0);
	} while (pid < 0 && errno == EINTR);
	run->reaped = 1;
	if (pid < 0)
		run->status = TOOL_UNUSABLE;
	else
		run->status = WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
}

/*
 * CMD's group is more than CMD. Its number is not given away while one of it
 * is left, and it is asked for every tick, so this is never another's group.
 */
static int group_has_ended(struct run *run)
{
	if (!run->reaped && has_ended(run))
		reap(run);
	return run->reaped && kill(-run->pid, 0) < 0 && errno == ESRCH;
}

/* What CMD writes while it ends is thrown away, lest it wait for us. */
static void stop(struct run *run)
{
	uint64_t deadline = tool_now_ns() + GRACE_NS;
	char waste[16 << 10];

	kill(-run->pid, SIGTERM);
	kill(-run->pid, SIGCONT); /* a stopped one would not notice */
	while (!group_has_ended(run)) {
		struct pollfd fds[2] = {
			{ .fd = run->out_fd, .events = POLLIN },
			{ .fd = run->reaped ? -1 : run->pid_fd, .events = POLLIN },
		};

		if (tool_now_ns() >= deadline) {
			kill(-run->pid, SIGKILL);
			return;
		}
		if (poll(fds, 2, TICK_MS) > 0 && fds[0].revents &&
		    tool_read(run->out_fd, waste, sizeof(waste)) <= 0)
			close_fd(&run->out_fd);
	}
}

/* How the entry ends: @why < 0 if CMD had to be stopped, else by its exit status. */
static void end_entry(struct run *run, int why)
{
	char *tail;
	size_t bytes;

	relay_stop(&run->relay, &tail, &bytes);
	if (why)
		scache_abort(run->writer, why, NULL, 0);
	else if (run->status)
		scache_abort(run->writer, run->status, tail, bytes);
	else
		scache_finish(run->writer);
	free(tail);
}

void run_command(const struct holder_request *request, struct scache_writer *writer, int stderr_fd,
		 int term_fd)
{
	struct run run = { .writer = writer,
			   .out_fd = -1,
			   .pid_fd = -1,
			   .term_fd = term_fd,
			   .status = TOOL_UNUSABLE };
	int err_fd = -1, rc, why;

	rc = spawn(&run, request, &err_fd);
	if (rc) {
		refuse(&run, request, rc, stderr_fd);
		return;
	}
	/* without the relay CMD's messages have nowhere to go: it cannot run */
	rc = relay_start(&run.relay, err_fd, stderr_fd);
	why = rc ? rc : pump(&run);
	if (why)
		stop(&run);
	if (!run.reaped)
		reap(&run);
	if (rc) {
		scache_abort(writer, rc, NULL, 0);
	} else {
		end_entry(&run, why);
		relay_finish(&run.relay);
	}
	close_fd(&run.pid_fd);
	close_fd(&run.out_fd);
}
