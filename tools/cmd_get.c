/* SPDX-License-Identifier: MIT */
/*
 * get - print a blob, live if it is still being produced.
 */
#include "tool.h"

#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <unistd.h>

enum {
	OPT_MAX_AGE = TOOL_OPT_OWN,
	OPT_OFFSET,
	OPT_BYTES,
	OPT_RANGE,
	OPT_COMPRESSED,
	OPT_NOTE,
};

struct get {
	struct tool_key key;
	uint64_t max_age_ns;
	int is_part;
	int is_file, is_note;   /* --compressed, --note */
	uint64_t offset, bytes; /* which part of it */
	const char *range;      /* --range: that is what says so; NULL: it does not */
	int is_last;            /* the last @bytes bytes, wherever they begin */
};

/* Bytes that were printed cannot be taken back: the status must say so. */
static int explain(struct scache_reader *reader, int error, uint64_t bytes)
{
	struct scache_result result = { .size = sizeof(result) };
	char text[STREAM_WHY_BYTES];
	const char *why;
	int lost = error == -EOWNERDEAD || error == -EBADMSG || error == -ESTALE;

	if (!lost && !scache_wait(reader, 0, &result) && result.code) {
		why = stream_why(reader, result.code, text);
		if (why != text || result.code > 0)
			stream_print_message(reader);
		if (result.code > 0)
			tool_error("production failed with status %d", result.code);
		else
			tool_error("production failed: %s", why);
		return TOOL_NO;
	}
	tool_error("the producer was lost after %llu bytes: %s", (unsigned long long)bytes,
		   scache_strerror(error));
	return lost ? TOOL_LOST : TOOL_UNUSABLE;
}

static int print(const struct get *get, struct scache_reader *reader, uint64_t *ret_bytes)
{
	struct output output = { .bytes = 0 };
	uint64_t offset = get->offset;
	struct progress progress;
	int rc = 0;

	if (get->is_file)
		return kept_print_file(reader, ret_bytes);
	if (get->is_note)
		return kept_print_note(reader);
	if (get->is_last)
		rc = stream_await_last(reader, get->bytes, &offset);
	if (rc)
		return rc;
	if (get->is_part)
		return stream_part(reader, offset, get->bytes, ret_bytes);
	progress_begin(&progress, STDOUT_FILENO);
	rc = stream_out(reader, &progress, &output);
	*ret_bytes = output.bytes;
	return rc;
}

/* Nothing of a range was printed, and production is over. */
static int refuse_range(const struct get *get, struct scache_reader *reader)
{
	uint64_t bytes = 0;

	scache_size(reader, &bytes);
	if (get->is_last || get->offset < bytes)
		return TOOL_OK;
	tool_error("range %s: the blob has only %" PRIu64 " bytes", get->range, bytes);
	return TOOL_NO;
}

/* It is not stored, and never so much of it there at once. */
static int refuse_last(const struct get *get)
{
	tool_error("range %s: the blob is not stored, and less of it is in memory at a time",
		   get->range);
	return TOOL_NO;
}

/* There is no file to be printed, now or ever. */
static int refuse_file(const struct get *get, int why)
{
	char text[TEXT_KEY];

	text_key(get->key.data, get->key.bytes, 0, text);
	if (why == KEPT_RAW)
		tool_error("'%s' is not stored compressed: get it without --compressed, or store it "
			   "with --compress=lz4", text);
	else
		tool_error("'%s' is not stored", text);
	return TOOL_NO;
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
	else if (rc == -EDEADLK)
		status = refuse_last(get);
	else if (rc == KEPT_RAW || (rc == -ENODATA && !get->is_part))
		status = refuse_file(get, rc);
	else if (!rc && get->range && !bytes)
		status = refuse_range(get, reader);
	else if (rc)
		status = explain(reader, rc, bytes);
	scache_reader_close(reader);
	return status;
}

/* Digits alone; NULL: there is none, or it is too large for an offset. */
static const char *take_number(const char *text, uint64_t *ret_number)
{
	uint64_t number = 0;

	if (!isdigit((unsigned char)*text))
		return NULL;
	for (; isdigit((unsigned char)*text); text++) {
		uint64_t digit = (uint64_t)(*text - '0');

		if (number > (INT64_MAX - digit) / 10)
			return NULL;
		number = number * 10 + digit;
	}
	*ret_number = number;
	return text;
}

/* A-B, A- or -N, as in HTTP: offsets of bytes, B included. */
static int take_range(struct get *get, const char *text)
{
	const char *at = text;
	uint64_t last = INT64_MAX;

	get->range = text;
	get->offset = 0;
	get->is_part = 1;
	get->is_last = *text == '-';
	if (!get->is_last)
		at = take_number(text, &get->offset);
	if (at && *at++ != '-')
		at = NULL;
	if (at && (*at || get->is_last))
		at = take_number(at, &last);
	if (!at || *at)
		return tool_usage(&cmd_get, "'%s' is no range, as in 0-499, 500- or -500", text);
	if (get->is_last && !last)
		return tool_usage(&cmd_get, "the range '%s' has no bytes", text);
	if (last < get->offset)
		return tool_usage(&cmd_get, "the range '%s' ends before it begins", text);
	get->bytes = get->is_last ? last : last - get->offset + 1;
	return 0;
}

static int take_option(struct get *get, int c)
{
	uint64_t *bytes = c == OPT_OFFSET ? &get->offset : &get->bytes;

	if (c == OPT_MAX_AGE)
		return tool_time(&cmd_get, optarg, &get->max_age_ns);
	if (c == OPT_COMPRESSED || c == OPT_NOTE) {
		get->is_file |= c == OPT_COMPRESSED;
		get->is_note |= c == OPT_NOTE;
		return 0;
	}
	if (get->is_part && (c == OPT_RANGE || get->range))
		return tool_usage(&cmd_get, "there can be one --range, and then no --offset and no "
					    "--bytes");
	if (c == OPT_RANGE)
		return take_range(get, optarg);
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
		{ "range", required_argument, NULL, OPT_RANGE },
		{ "compressed", no_argument, NULL, OPT_COMPRESSED },
		{ "note", no_argument, NULL, OPT_NOTE },
		TOOL_OPTION_VERIFY,
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
	if (get.is_part + get.is_file + get.is_note > 1)
		return tool_usage(&cmd_get, "a part of it, --compressed and --note are different "
					    "things");
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
		"  --range=RANGE      bytes A-B (B included), A- (to the end) or -N (the last N),\n"
		"                     as in HTTP; waits for what has not been produced\n"
		"  --compressed       the LZ4 frame as it is stored, when it is finished: for\n"
		"                     lz4(1); status 1 if it is not stored so\n"
		"  --note             what put --note has said of it\n"
		TOOL_HELP_VERIFY TOOL_HELP_HEX TOOL_HELP_COMMON
		"\n"
		"TIME: 90s 5m 2h 1d.  SIZE: 64K 8M 1G.\n"
		"Exit status: 0, 1 if there is no such key or range or its production failed,\n"
		"2 wrong usage, 124 the producer was lost, 125 the cache cannot be used.\n",
	.usage_status = TOOL_USAGE,
	.run = run,
};
