/* SPDX-License-Identifier: MIT */
/*
 * put - store standard input as a blob; readers may follow while it comes.
 *
 * Nobody paces it: what is piped in may not wait for readers that perhaps
 * never come.
 */
#include "tool.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

enum {
	OPT_MAX_AGE = TOOL_OPT_OWN,
	OPT_REFRESH,
};

static int copy(struct scache_writer *writer)
{
	struct progress progress;
	uint64_t bytes = 0;
	int64_t timeout_ns;
	ssize_t n;

	progress_begin(&progress, STDIN_FILENO);
	timeout_ns = progress_timeout_ns(&progress);
	do {
		n = scache_write_from_fd(writer, STDIN_FILENO, TOOL_BUFFER_BYTES, timeout_ns);
		if (n > 0)
			bytes += (uint64_t)n;
		progress_tick(&progress, NULL, bytes);
	} while (n > 0 || n == -ETIMEDOUT);
	progress_end(&progress);
	/* whose error it is only the writer knows */
	if (n < 0 && !scache_writer_check(writer))
		tool_error("standard input: %s", strerror((int)-n));
	return (int)n;
}

static int produce(struct scache_writer *writer)
{
	int rc = copy(writer);

	if (rc)
		scache_abort(writer, rc, NULL, 0);
	else
		rc = scache_finish(writer);
	if (rc == SCACHE_NOT_KEPT)
		tool_error("nothing was stored: the cache's file cannot be written; is its "
			   "file system full, or its directory not writable?");
	else if (rc)
		tool_error("nothing was stored: %s", scache_strerror(rc));
	scache_writer_close(writer);
	return rc ? TOOL_UNUSABLE : TOOL_OK;
}

static int store(struct scache *cache, const struct tool_key *key,
		 const struct scache_acquire_options *options)
{
	struct scache_writer *writer = NULL;
	int rc = scache_acquire(cache, key->data, key->bytes, options, NULL, &writer);

	if (rc == SCACHE_BYPASS) {
		tool_error("the cache has no room for another entry");
		return TOOL_UNUSABLE;
	}
	if (rc) {
		tool_error("%s", scache_strerror(rc));
		return TOOL_UNUSABLE;
	}
	if (writer)
		return produce(writer);
	if (options->flags & SCACHE_REFRESH)
		tool_error("the key is being produced right now; use rm first to replace that");
	else
		tool_error("the key exists, or is being produced; use rm first, or put --refresh "
			   "to replace a finished one");
	return TOOL_NO;
}

static int run(struct tool *tool, int argc, char **argv)
{
	static const struct option options[] = {
		{ "max-age", required_argument, NULL, OPT_MAX_AGE },
		{ "refresh", no_argument, NULL, OPT_REFRESH },
		TOOL_OPTION_HEX,
		TOOL_OPTIONS,
		TOOL_OPTION_END,
	};
	struct scache_acquire_options acquire = {
		.size = sizeof(acquire),
		.flags = SCACHE_RUN_TO_END,
		.window_bytes = SCACHE_UNLIMITED,
	};
	struct scache *cache;
	struct tool_key key;
	int c, status;

	while ((c = tool_getopt(tool, &cmd_put, argc, argv, options)) != -1) {
		if (c == TOOL_OPT_STOP)
			return tool->status;
		if (c == OPT_REFRESH)
			acquire.flags |= SCACHE_REFRESH;
		else if (tool_time(&cmd_put, optarg, &acquire.max_age_ns))
			return cmd_put.usage_status;
	}
	if (argc - optind != 1)
		return tool_usage(&cmd_put, "one KEY is needed");
	if (tool_key(tool, &cmd_put, argv[optind], &key))
		return cmd_put.usage_status;
	if (tool->closed[STDIN_FILENO]) {
		tool_error("standard input: %s", strerror(EBADF));
		return TOOL_UNUSABLE;
	}
	if (tool_open(tool, 0, NULL, &cache))
		return TOOL_UNUSABLE;
	status = store(cache, &key, &acquire);
	scache_close(cache);
	return status;
}

const struct command cmd_put = {
	.name = "put",
	.arguments = "[OPTION]... KEY",
	.summary = "Store standard input as the blob of KEY",
	.help = "  --max-age=TIME     the blob expires so long after its completion\n"
		"  --refresh          replace a finished blob\n" TOOL_HELP_HEX TOOL_HELP_COMMON
		"\n"
		"Exit status: 0, 1 if the key exists, 2 wrong usage, 125 the cache cannot be\n"
		"used.\n",
	.usage_status = TOOL_USAGE,
	.run = run,
};
