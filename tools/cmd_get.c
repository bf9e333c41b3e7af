/* SPDX-License-Identifier: MIT */
/*
 * get - print a blob, live if it is still being produced.
 */
#include "tool.h"

#include <errno.h>
#include <unistd.h>

enum {
	OPT_MAX_AGE = TOOL_OPT_OWN,
	OPT_OFFSET,
	OPT_BYTES,
};

struct get {
	struct tool_key key;
	uint64_t max_age_ns;
	uint64_t offset, bytes; /* which part of it */
	int is_part;
};

/* Bytes that were printed cannot be taken back: the status must say so. */
static int explain(struct scache_reader *reader, int error, uint64_t bytes)
{
	struct scache_result result = { .size = sizeof(result) };
	int lost = error == -EOWNERDEAD || error == -EBADMSG || error == -ESTALE;

	if (!lost && !scache_wait(reader, 0, &result) && result.code) {
		stream_print_message(reader);
		if (result.code > 0)
			tool_error("production failed with status %d", result.code);
		else
			tool_error("production failed: %s", scache_strerror(result.code));
		return TOOL_NO;
	}
	tool_error("the producer was lost after %llu bytes: %s", (unsigned long long)bytes,
		   scache_strerror(error));
	return lost ? TOOL_LOST : TOOL_UNUSABLE;
}

static int print(const struct get *get, struct scache_reader *reader, uint64_t *ret_bytes)
{
	struct output output = { .bytes = 0 };
	struct progress progress;
	int rc;

	if (get->is_part)
		return stream_part(reader, get->offset, get->bytes, ret_bytes);
	progress_begin(&progress, STDOUT_FILENO);
	rc = stream_out(reader, &progress, &output);
	*ret_bytes = output.bytes;
	return rc;
}

static int print_blob(struct scache *cache, const struct get *get)
{
	const struct tool_key *key = &get->key;
	struct scache_acquire_options options = { .size = sizeof(options),
						  .max_age_ns = get->max_age_ns };
	struct scache_reader *reader = NULL;
	uint64_t bytes = 0;
	int rc = scache_lookup(cache, key->data, key->bytes, &options, &reader), status = TOOL_OK;

	if (rc == -ENOENT) {
		tool_no_key(key);
		return TOOL_NO;
	}
	if (rc) {
		tool_error("%s", scache_strerror(rc));
		return TOOL_UNUSABLE;
	}
	rc = print(get, reader, &bytes);
	if (rc == STREAM_OUTPUT_FAILED)
		status = TOOL_UNUSABLE;
	else if (rc)
		status = explain(reader, rc, bytes);
	scache_reader_close(reader);
	return status;
}

static int take_option(struct get *get, int c)
{
	uint64_t *bytes = c == OPT_OFFSET ? &get->offset : &get->bytes;

	if (c == OPT_MAX_AGE)
		return tool_time(&cmd_get, optarg, &get->max_age_ns);
	get->is_part = 1;
	if (tool_size(&cmd_get, optarg, bytes))
		return cmd_get.usage_status;
	if (*bytes == SCACHE_ZERO)
		*bytes = 0;
	return 0;
}

static int run(struct tool *tool, int argc, char **argv)
{
	static const struct option options[] = {
		{ "max-age", required_argument, NULL, OPT_MAX_AGE },
		{ "offset", required_argument, NULL, OPT_OFFSET },
		{ "bytes", required_argument, NULL, OPT_BYTES },
		TOOL_OPTION_HEX,
		TOOL_OPTIONS,
		TOOL_OPTION_END,
	};
	struct get get = { .bytes = UINT64_MAX };
	struct scache *cache;
	int c, status;

	while ((c = tool_getopt(tool, &cmd_get, argc, argv, options)) != -1) {
		if (c == TOOL_OPT_STOP)
			return tool->status;
		status = take_option(&get, c);
		if (status)
			return status;
	}
	if (argc - optind != 1)
		return tool_usage(&cmd_get, "one KEY is needed");
	if (tool_key(tool, &cmd_get, argv[optind], &get.key))
		return cmd_get.usage_status;
	if (!tool_stdout_usable(tool) || tool_open(tool, SCACHE_OPEN_EXISTING, NULL, &cache))
		return TOOL_UNUSABLE;
	status = print_blob(cache, &get);
	scache_close(cache);
	return status;
}

const struct command cmd_get = {
	.name = "get",
	.arguments = "[OPTION]... KEY",
	.summary = "Print the blob of KEY, live if it is being produced",
	.help = "  --max-age=TIME     a blob completed longer ago does not count\n"
		"  --offset=SIZE      begin there; waits until it has been produced\n"
		"  --bytes=SIZE       no more than so much\n"
		TOOL_HELP_HEX TOOL_HELP_COMMON
		"\n"
		"Exit status: 0, 1 if there is no such key or its production failed, 2 wrong\n"
		"usage, 124 the producer was lost, 125 the cache cannot be used.\n",
	.usage_status = TOOL_USAGE,
	.run = run,
};
