/* SPDX-License-Identifier: MIT */
/*
 * exec - run a command once for all who ask for it at the same time or later.
 *
 * Here are its options and what names the run; share.c does the rest. Whenever
 * the cache cannot help, CMD takes this process's place and simply runs.
 */
#include "tool.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum {
	OPT_KEY = TOOL_OPT_OWN,
	OPT_KEY_ENV,
	OPT_KEY_FILE,
	OPT_STDIN,
	OPT_MAX_AGE,
	OPT_WINDOW,
	OPT_ON_DEATH,
	OPT_PACE,
	OPT_PASS_THROUGH,
	OPT_REFRESH,
	OPT_SIZE,
	OPT_DIGEST,
	OPT_STALL_TIMEOUT,
	OPT_NO_CACHE,
};

struct exec {
	struct tool *tool;
	const char *key_text; /* --key */
	struct key_sources sources;
	struct tool_key key;
	struct share share;
	int no_cache;
};

/* Everything that decides which run this is; 0 or the exit status. */
static int prepare(struct exec *exec)
{
	struct holder_request *request = &exec->share.request;
	struct tool *tool = exec->tool;
	char *path = NULL;
	int status = key_find_command(request->argv[0], &path);

	if (status)
		return status;
	request->path = path;
	if (exec->share.use_stdin && tool->closed[STDIN_FILENO]) {
		tool_error("standard input: %s", strerror(EBADF));
		return TOOL_UNUSABLE;
	}
	if (exec->share.use_stdin && key_spool(STDIN_FILENO, &request->spool_fd))
		return TOOL_UNUSABLE;
	exec->sources.argv = request->argv;
	exec->sources.path = request->path;
	exec->sources.spool_fd = request->spool_fd;
	if (!exec->key_text && key_default(&exec->sources, &exec->key))
		return TOOL_UNUSABLE;
	return 0;
}

static int exec_command(struct exec *exec)
{
	struct holder_request *request = &exec->share.request;
	int status;

	if (exec->no_cache || share_disabled())
		return share_run_directly(&exec->share);
	if (!tool_stdout_usable(exec->tool))
		return TOOL_UNUSABLE;
	if (tool_open(exec->tool, 0, "running the command without it", &request->cache))
		return share_run_directly(&exec->share);
	status = prepare(exec);
	if (!status)
		status = share_run(&exec->share);
	if (status == SHARE_BYPASS)
		status = share_run_directly(&exec->share);
	else
		scache_close(request->cache);
	share_free(&exec->share);
	return status;
}

/* ---------------------------------------------------------------- options */

static int take_option(struct exec *exec, int c)
{
	struct scache_acquire_options *acquire = &exec->share.request.acquire;
	struct key_sources *sources = &exec->sources;
	int status = terms_take(&cmd_exec, c, optarg, acquire);

	if (status != TERMS_NOT)
		return status;
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
		exec->share.use_stdin = 1;
		return 0;
	case OPT_MAX_AGE:
		return tool_time(&cmd_exec, optarg, &acquire->max_age_ns);
	case OPT_WINDOW:
		return tool_size(&cmd_exec, optarg, &acquire->window_bytes);
	case OPT_ON_DEATH:
		exec->share.never_again = !strcmp(optarg, "fail");
		exec->share.output.is_remembered = !strcmp(optarg, "deterministic");
		if (strcmp(optarg, "restart") && !exec->share.never_again &&
		    !exec->share.output.is_remembered)
			return tool_usage(&cmd_exec, "--on-death is fail, restart or deterministic, "
						     "not '%s'", optarg);
		return 0;
	case OPT_STALL_TIMEOUT:
		return tool_time(&cmd_exec, optarg, &acquire->stall_timeout_ns);
	case OPT_PACE:
		if (strcmp(optarg, "fastest") && strcmp(optarg, "slowest"))
			return tool_usage(&cmd_exec, "--pace is fastest or slowest, not '%s'",
					  optarg);
		acquire->flags &= ~SCACHE_PACE_SLOWEST;
		if (!strcmp(optarg, "slowest"))
			acquire->flags |= SCACHE_PACE_SLOWEST;
		return 0;
	case OPT_PASS_THROUGH:
		acquire->flags |= SCACHE_PASS_THROUGH;
		return 0;
	case OPT_SIZE:
		return tool_size(&cmd_exec, optarg, &acquire->declared_bytes);
	case OPT_DIGEST:
		return digest_take(&cmd_exec, optarg, acquire, NULL);
	case OPT_REFRESH:
		acquire->flags |= SCACHE_REFRESH;
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
		{ "on-death", required_argument, NULL, OPT_ON_DEATH },
		{ "pace", required_argument, NULL, OPT_PACE },
		{ "pass-through", no_argument, NULL, OPT_PASS_THROUGH },
		{ "refresh", no_argument, NULL, OPT_REFRESH },
		{ "size", required_argument, NULL, OPT_SIZE },
		{ "digest", required_argument, NULL, OPT_DIGEST },
		{ "stall-timeout", required_argument, NULL, OPT_STALL_TIMEOUT },
		{ "no-cache", no_argument, NULL, OPT_NO_CACHE },
		TOOL_OPTIONS_STALL,
		TOOL_OPTION_LINGER,
		TOOL_OPTIONS_FINISH,
		TOOL_OPTIONS_STORE,
		TOOL_OPTION_VERIFY,
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
	status = terms_check(&cmd_exec, &exec->share.request.acquire);
	if (status)
		return status;
	if (exec->key_text && (exec->sources.names_count || exec->sources.files_count))
		return tool_usage(&cmd_exec, "--key is the whole key: --key-env and --key-file "
					     "add to the default one");
	if (exec->key_text && tool_key(exec->tool, &cmd_exec, exec->key_text, &exec->key))
		return cmd_exec.usage_status;
	exec->share.request.argv = argv + optind;
	return 0;
}

static int run(struct tool *tool, int argc, char **argv)
{
	struct exec exec = { .tool = tool };
	int status;

	share_init(&exec.share, tool, &exec.key);
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
		"  --pace=WHOSE       its window counts from the fastest reader, or the slowest\n"
		"  --on-death=WHAT    if the run is lost: fail; restart it as long as nothing was\n"
		"                     printed (the default); or deterministic: also later, for\n"
		"                     each run prints the same\n"
		"  --pass-through     do not store it: shared by those who come while its\n"
		"                     first bytes are still in memory\n"
		"  --refresh          a finished run does not count\n"
		"  --size=SIZE        CMD prints so many bytes, or the run has failed\n"
		"  --digest=DIGEST    CMD prints what xxh128:HEX says, or the run has failed\n"
		"  --stall-timeout=TIME  of a run that prints nothing for so long, before its\n"
		"                     first byte: run CMD without the cache; later: status 124\n"
		TOOL_HELP_STALL TOOL_HELP_LINGER TOOL_HELP_FINISH
		TOOL_HELP_STORE TOOL_HELP_VERIFY
		"  --no-cache         simply run CMD; as does STREAMCACHE_DISABLE=1\n"
		"  --hex              KEY is written in hexadecimal\n" TOOL_HELP_COMMON
		"\n"
		"TIME: 90s 5m 2h 1d unlimited.  SIZE: 64K 8M 1G unlimited, 0 for lock step.\n"
		"\n"
		"Exit status: CMD's for every caller, 128+N for signal N; 124 the producer was\n"
		"lost in mid-stream, 125 streamcache failed before CMD ran, or standard output\n"
		"cannot be written, 126 CMD cannot be run, 127 CMD was not found.\n",
	.usage_status = TOOL_UNUSABLE,
	.takes_command = 1,
	.run = run,
};
