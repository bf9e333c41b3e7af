/* SPDX-License-Identifier: MIT */
/*
 * put - store standard input as a blob; readers may follow while it comes.
 *
 * Nobody paces it: what is piped in may not wait for readers that perhaps
 * never come.
 */
#include "tool.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum {
	OPT_MAX_AGE = TOOL_OPT_OWN,
	OPT_REFRESH,
	OPT_SIZE,
};

static int copy(struct scache_writer *writer, uint64_t declared_bytes)
{
	struct progress progress;
	uint64_t bytes = 0;
	int64_t timeout_ns;
	ssize_t n;

	progress_begin(&progress, STDIN_FILENO);
	if (declared_bytes < SCACHE_ZERO)
		progress.declared_bytes = declared_bytes;
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

static int produce(struct scache_writer *writer, uint64_t declared_bytes)
{
	int rc = copy(writer, declared_bytes);

	if (rc)
		scache_abort(writer, rc, NULL, 0);
	else
		rc = scache_finish(writer);
	if (rc == SCACHE_NOT_KEPT)
		tool_error("nothing was stored: the cache's file cannot be written; is its "
			   "file system full, or its directory not writable?");
	else if (rc == -ERANGE)
		tool_error("nothing was stored: standard input is not of %" PRIu64 " bytes, as declared",
			   declared_bytes == SCACHE_ZERO ? 0 : declared_bytes);
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
		return produce(writer, options->declared_bytes);
	if (options->flags & SCACHE_REFRESH)
		tool_error("the key is being produced right now; use rm first to replace that");
	else
		tool_error("the key exists, or is being produced; use rm first, or put --refresh "
			   "to replace a finished one");
	return TOOL_NO;
}

/*
 * What is left of a regular file; 0: not known. One without a block may be of /proc or
 * /sys, which make their sizes up.
 */
static uint64_t input_bytes(void)
{
	off_t offset = lseek(STDIN_FILENO, 0, SEEK_CUR);
	struct stat st;

	if (offset < 0 || fstat(STDIN_FILENO, &st) || !S_ISREG(st.st_mode) || !st.st_blocks ||
	    offset > st.st_size)
		return 0;
	return offset == st.st_size ? SCACHE_ZERO : (uint64_t)(st.st_size - offset);
}

static int take_option(int c, struct scache_acquire_options *acquire)
{
	if (c == OPT_SIZE)
		return tool_size(&cmd_put, optarg, &acquire->declared_bytes);
	if (c == OPT_MAX_AGE)
		return tool_time(&cmd_put, optarg, &acquire->max_age_ns);
	acquire->flags |= SCACHE_REFRESH;
	return 0;
}

static int run(struct tool *tool, int argc, char **argv)
{
	static const struct option options[] = {
		{ "max-age", required_argument, NULL, OPT_MAX_AGE },
		{ "refresh", no_argument, NULL, OPT_REFRESH },
		{ "size", required_argument, NULL, OPT_SIZE },
		TOOL_OPTIONS_STORE,
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
		status = take_option(c, &acquire);
		if (status)
			return status;
	}
	if (argc - optind != 1)
		return tool_usage(&cmd_put, "one KEY is needed");
	if (tool_key(tool, &cmd_put, argv[optind], &key))
		return cmd_put.usage_status;
	if (tool->closed[STDIN_FILENO]) {
		tool_error("standard input: %s", strerror(EBADF));
		return TOOL_UNUSABLE;
	}
	if (!acquire.declared_bytes)
		acquire.declared_bytes = input_bytes();
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
		"  --refresh          replace a finished blob\n"
		"  --size=SIZE        standard input has so many bytes, or nothing is stored;\n"
		"                     unlimited: not known, also of a file\n"
		TOOL_HELP_STORE TOOL_HELP_HEX TOOL_HELP_COMMON
		"\n"
		"Exit status: 0, 1 if the key exists, 2 wrong usage, 125 the cache cannot be\n"
		"used.\n",
	.usage_status = TOOL_USAGE,
	.run = run,
};
