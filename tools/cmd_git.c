/* SPDX-License-Identifier: MIT */
/*
 * git-pack-objects - the hook of git upload-pack: requests for the same pack
 * share one run of git pack-objects. See streamcache-git(7).
 *
 * Standard error goes to whoever clones, so nothing of ours is printed there
 * once the options are understood: neither the server's paths nor the cache's
 * troubles are a client's business. Whatever keeps a pack from being shared
 * makes plain git take this process's place; --log=FILE says why.
 */
#include "git.h"
#include "tool.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#define MAX_AGE_NS (300 * NS_PER_S) /* streamcache-git(7) says why */

enum {
	OPT_MAX_AGE = TOOL_OPT_OWN,
	OPT_WINDOW,
	OPT_LOG,
};

struct git {
	struct tool *tool;
	struct git_request request;
	struct share share;
	struct tool_key key;
	char *repository;
	const char *log;
	uint64_t start_ns;
};

/* -------------------------------------------------------------------- log */

/* @text as it can stand between quotes in one line; "" if memory is short. */
static char *quotable(const char *text)
{
	char *copy = text ? malloc(4 * strlen(text) + 1) : NULL, *p;

	if (!copy)
		return strdup("");
	text_key(text, strlen(text), 0, copy);
	for (p = copy; *p; p++)
		if (*p == '"')
			*p = '\'';
	return copy;
}

/* One line by one write(), so that lines of many processes stay whole. @status < 0: unknown. */
static void log_request(const struct git *git, const char *outcome, int status, const char *why)
{
	time_t now = time(NULL);
	char stamp[32], code[16] = "-", *repository, *reason, *line = NULL;
	struct tm tm;
	int fd, n;

	if (!git->log)
		return;
	fd = open(git->log, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC | O_NOCTTY, 0640);
	if (fd < 0)
		return; /* a log that cannot be written is no reason to refuse a clone */
	if (status >= 0)
		snprintf(code, sizeof(code), "%d", status);
	strftime(stamp, sizeof(stamp), "%Y-%m-%dT%H:%M:%SZ", gmtime_r(&now, &tm));
	repository = quotable(git->repository);
	reason = quotable(why);
	n = asprintf(&line,
		     "%s pid=%ld outcome=%s status=%s bytes=%llu ms=%llu repository=\"%s\" "
		     "why=\"%s\"\n",
		     stamp, (long)getpid(), outcome, code, (unsigned long long)git->share.output.bytes,
		     (unsigned long long)((tool_now_ns() - git->start_ns) / NS_PER_MS),
		     repository ? repository : "", reason ? reason : "");
	if (n > 0)
		tool_write(fd, line, (size_t)n);
	free(line);
	free(reason);
	free(repository);
	close(fd);
}

/* -------------------------------------------------------------------- run */

static int run_plain_git(struct git *git)
{
	log_request(git, "bypass", -1, tool_silenced()); /* git takes this process */
	return share_run_directly(&git->share);
}

/* Up to here standard input is untouched. 0, or an error for which plain git runs. */
static int prepare(struct git *git)
{
	struct holder_request *request = &git->share.request;
	struct tool *tool = git->tool;
	int rc;

	if (share_disabled()) {
		tool_error("STREAMCACHE_DISABLE is set");
		return -ECANCELED;
	}
	if (tool->closed[STDIN_FILENO] || tool->closed[STDOUT_FILENO]) {
		tool_error("standard input or output is closed");
		return -EBADF;
	}
	rc = git_repository(&git->repository);
	if (!rc)
		rc = git_check_arguments(&git->request);
	if (!rc && key_find_command(request->argv[0], &request->path))
		rc = -ENOENT;
	if (!rc)
		rc = tool_open(tool, 0, NULL, &request->cache);
	return rc;
}

/* Standard input is small: names of objects. 0, or an error for which plain git runs. */
static int take_input(struct git *git, int *ret_status)
{
	struct holder_request *request = &git->share.request;
	int fd = memfd_create("streamcache-input", MFD_CLOEXEC);

	if (fd < 0) {
		tool_error("no file in memory: %s", strerror(errno));
		return -EMFILE;
	}
	request->spool_fd = fd;
	/* some of it may be gone: git cannot run any more */
	*ret_status = key_copy_input(STDIN_FILENO, fd, "memory") ? TOOL_UNUSABLE : TOOL_OK;
	return 0;
}

static int share_pack(struct git *git)
{
	static const char *const outcomes[] = { "failed", "created", "join", "hit" };
	struct holder_request *request = &git->share.request;
	int status = TOOL_OK;

	if (prepare(git) || take_input(git, &status))
		return run_plain_git(git);
	if (status) {
		log_request(git, "failed", status, tool_silenced());
		return status;
	}
	git->request.path = request->path;
	git->request.spool_fd = request->spool_fd;
	if (git_key(&git->request, git->repository, &git->key))
		return run_plain_git(git);
	status = share_run(&git->share);
	if (status == SHARE_BYPASS) {
		tool_error("the cache cannot help");
		return run_plain_git(git);
	}
	scache_close(request->cache);
	log_request(git, outcomes[git->share.how], status, tool_silenced());
	return status;
}

/* ---------------------------------------------------------------- options */

static int take_option(struct git *git, int c)
{
	struct scache_acquire_options *acquire = &git->share.request.acquire;
	int status = terms_take(&cmd_git, c, optarg, acquire);

	if (status != TERMS_NOT)
		return status;
	switch (c) {
	case OPT_MAX_AGE:
		return tool_time(&cmd_git, optarg, &acquire->max_age_ns);
	case OPT_WINDOW:
		return tool_size(&cmd_git, optarg, &acquire->window_bytes);
	default: /* OPT_LOG */
		git->log = optarg;
		return 0;
	}
}

static int run(struct tool *tool, int argc, char **argv)
{
	static const struct option options[] = {
		{ "max-age", required_argument, NULL, OPT_MAX_AGE },
		{ "window", required_argument, NULL, OPT_WINDOW },
		{ "log", required_argument, NULL, OPT_LOG },
		TOOL_OPTIONS_STALL,
		TOOL_OPTION_LINGER,
		TOOL_OPTIONS_STORE,
		TOOL_OPTION_VERIFY,
		TOOL_OPTIONS,
		TOOL_OPTION_END,
	};
	struct git git = { .tool = tool, .start_ns = tool_now_ns() };
	int c, status;

	share_init(&git.share, tool, &git.key);
	git.share.request.acquire.max_age_ns = MAX_AGE_NS;
	git.share.use_stdin = 1;
	/* packs are compressed: what the environment says for others is not said of them */
	tool->choices[TOOL_COMPRESS] = "raw";
	while ((c = tool_getopt(tool, &cmd_git, argc, argv, options)) != -1) {
		if (c == TOOL_OPT_STOP)
			return tool->status;
		status = take_option(&git, c);
		if (status)
			return status;
	}
	if (optind == argc)
		return tool_usage(&cmd_git, "git's own command is missing: this is what "
					    "uploadpack.packObjectsHook runs");
	status = terms_check(&cmd_git, &git.share.request.acquire);
	if (status)
		return status;
	git.request.argv = argv + optind;
	git.share.request.argv = argv + optind;
	tool_silence();
	status = share_pack(&git);
	share_free(&git.share);
	free(git.repository);
	return status;
}

const struct command cmd_git = {
	.name = "git-pack-objects",
	.arguments = "[OPTION]... git pack-objects [ARG]...",
	.summary = "Share packs; for git's uploadpack.packObjectsHook",
	.help = "  --max-age=TIME     an older pack does not count, and this one expires then;\n"
		"                     5m without it\n"
		"  --window=SIZE      how far git may be ahead of its fastest client\n"
		"  --log=FILE         append a line for each request\n"
		TOOL_HELP_STALL TOOL_HELP_LINGER
		TOOL_HELP_STORE TOOL_HELP_VERIFY TOOL_HELP_COMMON "\n"
		"TIME: 90s 5m 2h 1d unlimited.  SIZE: 64K 8M 1G unlimited, 0 for lock step.\n"
		"As the administrator, once: git config --system uploadpack.packObjectsHook \\\n"
		"  'streamcache git-pack-objects --cache=DIR'. See streamcache-git(7).\n"
		"\n"
		"Exit status: that of git pack-objects for every client, 128+N for signal N;\n"
		"124 it was lost in mid-stream, 125 wrong usage, or standard input or output\n"
		"cannot be used. When a pack cannot be shared, plain git runs instead.\n",
	.usage_status = TOOL_UNUSABLE,
	.takes_command = 1,
	.run = run,
};
