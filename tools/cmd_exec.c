/* SPDX-License-Identifier: MIT */
/*
 * exec - run a command once for all who ask for it at the same time or later.
 *
 * This is the caller's side: find or start the run, stream it, report how it
 * ended. A run that was lost before this caller had a byte of it is taken up
 * anew, unseen; afterwards it is exit status 124. Whenever the cache cannot
 * help, CMD takes this process's place and simply runs.
 */
#include "tool.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define TRIES_MAX 16 /* others keep starting and losing this run */
#define LOST_MAX 3   /* producers lost under this caller */

enum {
	OPT_KEY = TOOL_OPT_OWN,
	OPT_KEY_ENV,
	OPT_KEY_FILE,
	OPT_STDIN,
	OPT_MAX_AGE,
	OPT_WINDOW,
	OPT_REFRESH,
	OPT_NO_CACHE,
};

/* What one attempt came to, beside an exit status. */
enum {
	AGAIN = -1,  /* nothing was output */
	BYPASS = -2, /* nothing was output, and nothing will come of the cache */
};

struct exec {
	struct tool *tool;
	struct scache *cache;
	const char *key_text; /* --key */
	struct key_sources sources;
	struct tool_key key;
	struct scache_acquire_options acquire;
	int use_stdin, no_cache;
	char *path;
	int lost;    /* producers */
	int started; /* the present run is ours: we heard its messages live */
	struct progress progress;
	struct holder holder;
	pthread_t messages;
};

static int run_directly(struct exec *exec)
{
	int rc = 0;

	if (exec->cache)
		scache_close(exec->cache);
	if (!exec->use_stdin || exec->sources.spool_fd >= 0)
		rc = run_set_stdin(exec->sources.spool_fd);
	if (rc) {
		tool_error("standard input: %s", strerror(-rc));
		return TOOL_UNUSABLE;
	}
	execvp(exec->path ? exec->path : exec->sources.argv[0], exec->sources.argv);
	rc = errno;
	tool_error("'%s': %s", exec->sources.argv[0], strerror(rc));
	return rc == ENOENT || rc == ENOTDIR ? TOOL_NOT_FOUND : TOOL_CANNOT_RUN;
}

static int look_up(struct exec *exec, struct scache_reader **ret_reader)
{
	return scache_lookup(exec->cache, exec->key.data, exec->key.bytes, &exec->acquire,
			     ret_reader);
}

static void *print_messages(void *arg)
{
	struct exec *exec = arg;
	char buffer[4096];
	ssize_t n;

	while ((n = tool_read(exec->holder.stderr_fd, buffer, sizeof(buffer))) > 0)
		if (progress_stderr(&exec->progress, buffer, (size_t)n))
			break;
	return NULL;
}

/* The holder waits: attach, listen to CMD's messages, and let it go. */
static int join_own_run(struct exec *exec, struct scache_reader **ret_reader)
{
	int rc = look_up(exec, ret_reader);

	if (!rc && pthread_create(&exec->messages, NULL, print_messages, exec)) {
		scache_reader_close(*ret_reader);
		rc = SCACHE_BYPASS;
	}
	if (rc) {
		holder_forget(&exec->holder);
		return rc;
	}
	exec->started = 1;
	holder_attached(&exec->holder);
	return 0;
}

/*
 * Returns 0 with a reader, -ENOENT to look once more, -EOWNERDEAD if the
 * holder died, SCACHE_BYPASS, or another -errno of the cache.
 */
static int attach(struct exec *exec, struct scache_reader **ret_reader)
{
	struct holder_request request = {
		.tool = exec->tool,
		.cache = exec->cache,
		.key = &exec->key,
		.acquire = exec->acquire,
		.argv = exec->sources.argv,
		.path = exec->path,
		.spool_fd = exec->sources.spool_fd,
	};
	enum holder_answer answer;
	int rc = look_up(exec, ret_reader);

	if (rc != -ENOENT)
		return rc;
	rc = holder_start(&request, &exec->holder, &answer);
	if (rc)
		return rc;
	if (answer == HOLDER_WON)
		return join_own_run(exec, ret_reader);
	holder_forget(&exec->holder);
	if (answer == HOLDER_BYPASS)
		return SCACHE_BYPASS;
	if (answer != HOLDER_LOST)
		return -EOWNERDEAD;
	/* it was being produced when we asked, which is fresh enough */
	exec->acquire.flags &= ~SCACHE_REFRESH;
	return look_up(exec, ret_reader);
}

/* After a run that gave us nothing. */
static int lost(struct exec *exec, int error)
{
	switch (error) {
	case -EOWNERDEAD: /* killed, or gone without a word: */
	case -ECANCELED:
	case -EPIPE:
	case -EBADMSG: /* the entry is gone, the next look-up finds another */
	case -ESTALE:
		/* nothing was output yet, so nobody has lost anything */
		return ++exec->lost <= LOST_MAX ? AGAIN : BYPASS;
	default:
		return BYPASS;
	}
}

/* After the stream: nothing of @reader, the messages or the holder is left. */
static void leave_run(struct exec *exec, struct scache_reader *reader, int rc)
{
	scache_reader_close(reader);
	if (!exec->started)
		return;
	if (rc == STREAM_OUTPUT_FAILED) /* CMD's messages are not waited for */
		shutdown(exec->holder.stderr_fd, SHUT_RD);
	pthread_join(exec->messages, NULL);
	holder_forget(&exec->holder);
	exec->started = 0;
}

/* The exit status, AGAIN or BYPASS; takes @reader. */
static int stream(struct exec *exec, struct scache_reader *reader)
{
	uint64_t bytes = 0;
	int rc = stream_out(reader, &exec->progress, &bytes);
	int code = rc == -EREMOTEIO ? stream_code(reader) : 0;

	if (code && !exec->started)
		stream_print_message(reader);
	leave_run(exec, reader, rc);
	if (rc == STREAM_OUTPUT_FAILED)
		return TOOL_UNUSABLE;
	if (!rc || code)
		return code;
	if (!bytes)
		return lost(exec, rc);
	tool_error("the producer was lost after %llu bytes: %s", (unsigned long long)bytes,
		   scache_strerror(rc));
	return TOOL_LOST;
}

static int run_shared(struct exec *exec)
{
	int tries, rc, status = AGAIN;

	for (tries = 0; tries < TRIES_MAX && status == AGAIN; tries++) {
		struct scache_reader *reader = NULL;

		progress_begin(&exec->progress, STDOUT_FILENO);
		rc = attach(exec, &reader);
		if (!rc)
			status = stream(exec, reader);
		else if (rc == -EOWNERDEAD)
			status = lost(exec, rc);
		else if (rc != -ENOENT)
			status = BYPASS;
	}
	return status >= 0 ? status : BYPASS;
}

/* Everything that decides which run this is; 0 or the exit status. */
static int prepare(struct exec *exec)
{
	struct tool *tool = exec->tool;
	int status = key_find_command(exec->sources.argv[0], &exec->path);

	if (status)
		return status;
	if (exec->use_stdin && tool->closed[STDIN_FILENO]) {
		tool_error("standard input: %s", strerror(EBADF));
		return TOOL_UNUSABLE;
	}
	if (exec->use_stdin && key_spool(STDIN_FILENO, &exec->sources.spool_fd))
		return TOOL_UNUSABLE;
	exec->sources.path = exec->path;
	if (!exec->key_text && key_default(&exec->sources, &exec->key))
		return TOOL_UNUSABLE;
	return 0;
}

static int disabled(const struct exec *exec)
{
	const char *value = getenv("STREAMCACHE_DISABLE");

	return exec->no_cache || (value && *value && strcmp(value, "0"));
}

static int exec_command(struct exec *exec)
{
	int status;

	if (disabled(exec))
		return run_directly(exec);
	if (!tool_stdout_usable(exec->tool))
		return TOOL_UNUSABLE;
	if (tool_open(exec->tool, 0, "running the command without it", &exec->cache))
		return run_directly(exec);
	status = prepare(exec);
	if (!status)
		status = run_shared(exec);
	if (status == BYPASS)
		status = run_directly(exec);
	else
		scache_close(exec->cache);
	if (exec->sources.spool_fd >= 0)
		close(exec->sources.spool_fd);
	free(exec->path);
	return status;
}

/* ---------------------------------------------------------------- options */

static int take_option(struct exec *exec, int c)
{
	struct key_sources *sources = &exec->sources;

	switch (c) {
	case OPT_KEY:
		exec->key_text = optarg;
		return 0;
	case OPT_KEY_ENV:
		if (!*optarg || strchr(optarg, '='))
			return tool_usage(&cmd_exec, "'%s' is no variable's name", optarg);
		sources->names[sources->names_count++] = optarg;
		return 0;
	case OPT_KEY_FILE:
		sources->files[sources->files_count++] = optarg;
		return 0;
	case OPT_STDIN:
		exec->use_stdin = 1;
		return 0;
	case OPT_MAX_AGE:
		if (!text_to_ns(optarg, &exec->acquire.max_age_ns))
			return 0;
		return tool_usage(&cmd_exec, "'%s' is no duration, as in 90s, 5m or 2h", optarg);
	case OPT_WINDOW:
		if (!text_to_bytes(optarg, &exec->acquire.window_bytes))
			return 0;
		return tool_usage(&cmd_exec, "'%s' is no size, as in 64K or 8M", optarg);
	case OPT_REFRESH:
		exec->acquire.flags |= SCACHE_REFRESH;
		return 0;
	default: /* OPT_NO_CACHE */
		exec->no_cache = 1;
		return 0;
	}
}

static int parse(struct exec *exec, int argc, char **argv)
{
	static const struct option options[] = {
		{ "key", required_argument, NULL, OPT_KEY },
		{ "key-env", required_argument, NULL, OPT_KEY_ENV },
		{ "key-file", required_argument, NULL, OPT_KEY_FILE },
		{ "stdin", no_argument, NULL, OPT_STDIN },
		{ "max-age", required_argument, NULL, OPT_MAX_AGE },
		{ "window", required_argument, NULL, OPT_WINDOW },
		{ "refresh", no_argument, NULL, OPT_REFRESH },
		{ "no-cache", no_argument, NULL, OPT_NO_CACHE },
		TOOL_OPTION_HEX,
		TOOL_OPTIONS,
		TOOL_OPTION_END,
	};
	int c, status;

	while ((c = tool_getopt(exec->tool, &cmd_exec, argc, argv, options)) != -1) {
		if (c == TOOL_OPT_STOP)
			return exec->tool->status ? exec->tool->status : TOOL_OPT_STOP;
		status = take_option(exec, c);
		if (status)
			return status;
	}
	if (optind == argc)
		return tool_usage(&cmd_exec, "a command is missing");
	if (exec->key_text && (exec->sources.names_count || exec->sources.files_count))
		return tool_usage(&cmd_exec, "--key is the whole key: --key-env and --key-file "
					     "add to the default one");
	if (exec->key_text && tool_key(exec->tool, &cmd_exec, exec->key_text, &exec->key))
		return cmd_exec.usage_status;
	exec->sources.argv = argv + optind;
	return 0;
}

static int run(struct tool *tool, int argc, char **argv)
{
	struct exec exec = {
		.tool = tool,
		.acquire = { .size = sizeof(exec.acquire) },
		.sources = { .spool_fd = -1 },
	};
	int status;

	exec.sources.names = calloc((size_t)argc, sizeof(char *));
	exec.sources.files = calloc((size_t)argc, sizeof(char *));
	if (!exec.sources.names || !exec.sources.files)
		status = TOOL_UNUSABLE;
	else
		status = parse(&exec, argc, argv);
	if (!status)
		status = exec_command(&exec);
	free(exec.sources.names);
	free(exec.sources.files);
	return status == TOOL_OPT_STOP ? TOOL_OK : status;
}

const struct command cmd_exec = {
	.name = "exec",
	.arguments = "[OPTION]... [--] CMD [ARG]...",
	.summary = "Print CMD's output; one run serves all callers",
	.help = "  --key=KEY          the run's name, instead of the default key made of CMD and\n"
		"                     its ARGs, directory, uid, umask and executable\n"
		"  --key-env=NAME     the variable NAME is part of the default key\n"
		"  --key-file=PATH    the contents of PATH are part of the default key\n"
		"  --stdin            standard input is CMD's, and part of the default key;\n"
		"                     otherwise CMD reads /dev/null\n"
		"  --max-age=TIME     an older run does not count, and this one expires then\n"
		"  --window=SIZE      how far CMD may be ahead of its fastest reader\n"
		"  --refresh          a finished run does not count\n"
		"  --no-cache         simply run CMD; as does STREAMCACHE_DISABLE=1\n"
		"  --hex              KEY is written in hexadecimal\n" TOOL_HELP_COMMON
		"\n"
		"TIME: 90s 5m 2h 1d unlimited.  SIZE: 64K 8M 1G unlimited, 0 for lock step.\n"
		"\n"
		"Exit status: CMD's for every caller, 128+N for signal N; 124 the producer was\n"
		"lost in mid-stream, 125 streamcache failed before CMD ran, or standard output\n"
		"cannot be written, 126 CMD cannot be run, 127 CMD was not found.\n",
	.usage_status = TOOL_UNUSABLE,
	.run = run,
};
