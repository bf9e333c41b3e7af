/* SPDX-License-Identifier: MIT */
/*
 * verify - compare what is stored with its checksums; what is damaged is removed.
 */
#include "tool.h"

#include <errno.h>
#include <inttypes.h>
#include <json-c/json.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
	OPT_ALL = TOOL_OPT_OWN,
	OPT_RATE,
};

struct verify {
	struct scache_verify_options options;
	struct scache_verify_report sum;
	const struct tool_key *keys;
	int count; /* of keys; 0: all entries */
	uint64_t whole_bytes, done_bytes; /* for the progress line */
	struct progress progress;
	struct json_object *victims; /* an array, or NULL */
};

static void print_victim(struct verify *verify, const struct scache_verify_progress *at)
{
	char key[TEXT_KEY], size[TEXT_SHORT];

	text_key(at->key, at->key_bytes, 0, key);
	progress_clear(&verify->progress);
	printf("%-10s %10s  %s\n", "damaged", text_bytes(at->bytes, size), key);
	fflush(stdout); /* it may be long until the next */
}

static void add_victim(struct verify *verify, const struct scache_verify_progress *at)
{
	struct json_object *victim = json_object_new_object();
	char hex[TEXT_HEX];

	text_hex(at->key, at->key_bytes, hex);
	json_object_object_add(victim, "key", text_json(at->key, at->key_bytes));
	json_object_object_add(victim, "key_hex", json_object_new_string(hex));
	json_object_object_add(victim, "bytes", json_object_new_uint64(at->bytes));
	json_object_array_add(verify->victims, victim);
}

static int go_on(void *arg, const struct scache_verify_progress *at)
{
	char key[TEXT_KEY], text[TEXT_KEY + TEXT_SHORT];
	struct verify *verify = arg;

	if (at->result == SCACHE_VERIFY_DAMAGED && verify->victims)
		add_victim(verify, at);
	else if (at->result == SCACHE_VERIFY_DAMAGED)
		print_victim(verify, at);
	if (at->result != SCACHE_VERIFY_GOES_ON) {
		verify->done_bytes += at->bytes;
	} else if (progress_is_due(&verify->progress)) {
		text_key(at->key, at->key_bytes, 0, key);
		snprintf(text, sizeof(text), ", comparing '%s'", key);
		progress_show(&verify->progress, verify->done_bytes + at->done_bytes,
			      verify->whole_bytes, text);
	}
	return 0;
}

static void add_report(struct scache_verify_report *sum, const struct scache_verify_report *report)
{
	sum->entries += report->entries;
	sum->bytes += report->bytes;
	sum->damaged += report->damaged;
	sum->skipped += report->skipped;
}

static int is_chosen(const struct verify *verify, const struct scache_entry_info *info)
{
	int i;

	for (i = 0; i < verify->count; i++)
		if (verify->keys[i].bytes == info->key_bytes &&
		    !memcmp(verify->keys[i].data, info->key, info->key_bytes))
			return 1;
	return !verify->count;
}

/* How much there is to do: what comes or goes meanwhile makes it less exact. */
static int count_bytes(void *arg, const struct scache_entry_info *info)
{
	struct verify *verify = arg;

	if (info->state == SCACHE_FINISHED && !(info->flags & SCACHE_HIDDEN) &&
	    is_chosen(verify, info))
		verify->whole_bytes += info->bytes;
	return 0;
}

/* One key, or (NULL) all. The exit status. */
static int verify_some(struct verify *verify, struct scache *cache, const struct tool_key *key)
{
	struct scache_verify_report report = { .size = sizeof(report) };
	int rc = scache_verify(cache, key ? key->data : NULL, key ? key->bytes : 0,
			       &verify->options, &report);

	add_report(&verify->sum, &report);
	if (!rc)
		return report.damaged ? TOOL_NO : TOOL_OK;
	progress_clear(&verify->progress);
	if (rc == -ENOENT && key) {
		tool_no_key(key);
		return TOOL_NO;
	}
	tool_error("%s", scache_strerror(rc));
	return TOOL_UNUSABLE;
}

static int verify_entries(struct verify *verify, struct scache *cache)
{
	int i, one, status = TOOL_OK;

	progress_begin(&verify->progress, -1);
	scache_each(cache, count_bytes, verify);
	if (!verify->count)
		status = verify_some(verify, cache, NULL);
	for (i = 0; i < verify->count; i++) {
		one = verify_some(verify, cache, &verify->keys[i]);
		if (one > status)
			status = one;
	}
	progress_end(&verify->progress);
	return status;
}

static struct json_object *report_json(const struct verify *verify)
{
	const struct scache_verify_report *sum = &verify->sum;
	struct json_object *root = json_object_new_object();

	json_object_object_add(root, "entries", json_object_new_uint64(sum->entries));
	json_object_object_add(root, "bytes", json_object_new_uint64(sum->bytes));
	json_object_object_add(root, "damaged", json_object_new_uint64(sum->damaged));
	json_object_object_add(root, "skipped", json_object_new_uint64(sum->skipped));
	json_object_object_add(root, "victims", verify->victims);
	return root;
}

static int verify_cache(const struct tool *tool, struct verify *verify)
{
	const struct scache_verify_report *sum = &verify->sum;
	char bytes[TEXT_SHORT];
	struct scache *cache;
	int status, printed;

	if (tool_open(tool, SCACHE_OPEN_EXISTING, NULL, &cache))
		return TOOL_UNUSABLE;
	if (tool->json)
		verify->victims = json_object_new_array();
	status = verify_entries(verify, cache);
	scache_close(cache);
	if (tool->json) {
		printed = tool_print_json(tool, report_json(verify));
		return printed ? printed : status;
	}
	printf("compared %" PRIu64 " %s (%s), %" PRIu64 " damaged and removed, %" PRIu64
	       " skipped\n", sum->entries, sum->entries == 1 ? "entry" : "entries",
	       text_bytes(sum->bytes, bytes), sum->damaged, sum->skipped);
	return tool_flush(tool, status);
}

static int take_rate(struct verify *verify, const char *text)
{
	uint64_t *rate = &verify->options.bytes_per_second;
	int status = tool_size(&cmd_verify, text, rate);

	if (!status && *rate == SCACHE_ZERO)
		return tool_usage(&cmd_verify, "a --rate of 0 never ends");
	if (*rate == SCACHE_UNLIMITED)
		*rate = 0;
	return status;
}

static int parse(struct tool *tool, struct verify *verify, int argc, char **argv)
{
	static const struct option options[] = {
		{ "all", no_argument, NULL, OPT_ALL },
		{ "rate", required_argument, NULL, OPT_RATE },
		TOOL_OPTION_JSON,
		TOOL_OPTION_HEX,
		TOOL_OPTIONS,
		TOOL_OPTION_END,
	};
	int c, all = 0;

	while ((c = tool_getopt(tool, &cmd_verify, argc, argv, options)) != -1) {
		if (c == TOOL_OPT_STOP)
			return c;
		if (c == OPT_ALL)
			all = 1;
		else if (take_rate(verify, optarg))
			return cmd_verify.usage_status;
	}
	if (all ? optind < argc : optind == argc)
		return tool_usage(&cmd_verify, "either KEYs or --all is needed");
	return 0;
}

static int run(struct tool *tool, int argc, char **argv)
{
	struct verify verify = { .options = { .size = sizeof(verify.options), .progress = go_on } };
	struct tool_key *keys;
	int i, status = parse(tool, &verify, argc, argv);

	if (status)
		return status == TOOL_OPT_STOP ? tool->status : status;
	keys = calloc((size_t)argc, sizeof(*keys));
	if (!keys || !tool_stdout_usable(tool))
		status = TOOL_UNUSABLE;
	for (i = optind; !status && i < argc; i++)
		if (tool_key(tool, &cmd_verify, argv[i], &keys[verify.count++]))
			status = cmd_verify.usage_status;
	verify.options.arg = &verify;
	verify.keys = keys;
	if (!status)
		status = verify_cache(tool, &verify);
	free(keys);
	return status;
}

const struct command cmd_verify = {
	.name = "verify",
	.arguments = "[OPTION]... KEY... | --all",
	.summary = "Compare what is stored with its checksums",
	.help = "  --all              all finished entries\n"
		"  --rate=SIZE        no more than that a second\n"
		TOOL_HELP_JSON TOOL_HELP_HEX TOOL_HELP_COMMON
		"\n"
		"What is damaged is listed, and removed: the next caller produces it again.\n"
		"\n"
		"SIZE: 64K 8M 1G.\n"
		"Exit status: 0, 1 if anything was damaged or a KEY is not there, 2 wrong usage,\n"
		"125 the cache cannot be used.\n",
	.usage_status = TOOL_USAGE,
	.run = run,
};
