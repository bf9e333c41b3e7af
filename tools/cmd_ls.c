/* SPDX-License-Identifier: MIT */
/*
 * ls - list the entries: what there is, who produces it, who reads it.
 */
#include "tool.h"

#include <inttypes.h>
#include <json-c/json.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
	OPT_LONG = TOOL_OPT_OWN
};

struct list {
	const struct tool_key *keys; /* only these, if there are any */
	int *seen;                   /* per key */
	int count;
	int lines;
	int is_long; /* --long */
	struct json_object *json; /* an array, or NULL */
};

static const struct {
	uint32_t flag;
	const char *name;
} flag_names[] = {
	{ SCACHE_HIDDEN, "hidden" },
	{ SCACHE_WRITER_WAITS, "writer-waits" },
	{ SCACHE_RING_ONLY, "ring-only" },
	{ SCACHE_HAS_RING, "ring" },
	{ SCACHE_WRITER_DEAD, "writer-dead" },
	{ SCACHE_TRANSIENT, "transient" },
};

#define FLAG_NAMES (sizeof(flag_names) / sizeof(flag_names[0]))

static const char *state_name(uint32_t state)
{
	switch (state) {
	case SCACHE_FILLING:
		return "filling";
	case SCACHE_FINISHED:
		return "finished";
	case SCACHE_FAILED:
		return "failed";
	default:
		return "unknown";
	}
}

/* NULL: it has no file, or nobody knows yet how it will be stored. */
static const char *compression_name(uint32_t compression)
{
	return compression == SCACHE_LZ4 ? "lz4" : compression == SCACHE_RAW ? "raw" : NULL;
}

static int is_wanted(const struct list *list, const struct scache_entry_info *info)
{
	int i, wanted = !list->count;

	for (i = 0; i < list->count; i++) {
		const struct tool_key *key = &list->keys[i];

		if (key->bytes != info->key_bytes || memcmp(key->data, info->key, key->bytes))
			continue;
		list->seen[i] = 1;
		wanted = 1;
	}
	return wanted;
}

/* How it is stored, and how long its file is, which has more in it than the blob. */
static void print_file(const struct scache_entry_info *info)
{
	const char *name = compression_name(info->compression);
	char size[TEXT_SHORT] = "-";

	if (info->file_bytes)
		text_bytes(info->file_bytes, size);
	printf(" %6s %10s", name ? name : "-", size);
}

static void print_entry(struct list *list, const struct scache_entry_info *info)
{
	char size[TEXT_SHORT], age[TEXT_SHORT], expires[TEXT_SHORT] = "-", pid[TEXT_SHORT] = "-";
	char key[TEXT_KEY], state[2 * TEXT_SHORT], done[TEXT_SHORT] = "";

	if (!list->lines++)
		printf("%-16s %10s%s %7s %8s %8s %8s  %s\n", "STATE", "SIZE",
		       list->is_long ? " STORED       FILE" : "", "READERS", "AGE", "EXPIRES",
		       "PRODUCER", "KEY");
	if (info->state != SCACHE_FINISHED && info->declared_bytes != SCACHE_UNLIMITED)
		text_percent(info->bytes, info->declared_bytes, done);
	snprintf(state, sizeof(state), "%s%s%s%s%s%s", state_name(info->state), *done ? "," : "",
		 done, info->flags & SCACHE_HIDDEN ? ",hidden" : "",
		 info->flags & SCACHE_TRANSIENT ? ",transient" : "",
		 info->flags & SCACHE_WRITER_DEAD ? ",dead" : "");
	if (info->expires_in_ns != SCACHE_UNLIMITED)
		text_ns(info->expires_in_ns, expires);
	if (info->producer_pid)
		snprintf(pid, sizeof(pid), "%" PRId64, info->producer_pid);
	text_key(info->key, info->key_bytes, 0, key);
	printf("%-16s %10s", state, text_bytes(info->bytes, size));
	if (list->is_long)
		print_file(info);
	printf(" %7" PRIu32 " %8s %8s %8s  %s\n", info->readers, text_ns(info->age_ns, age), expires,
	       pid, key);
}

static void add_entry(struct list *list, const struct scache_entry_info *info)
{
	struct json_object *entry = json_object_new_object(), *flags = json_object_new_array();
	const char *compression = compression_name(info->compression);
	char hex[TEXT_HEX];
	size_t i;

	for (i = 0; i < FLAG_NAMES; i++)
		if (info->flags & flag_names[i].flag)
			json_object_array_add(flags, json_object_new_string(flag_names[i].name));
	json_object_object_add(entry, "key", text_json(info->key, info->key_bytes));
	text_hex(info->key, info->key_bytes, hex);
	json_object_object_add(entry, "key_hex", json_object_new_string(hex));
	json_object_object_add(entry, "state", json_object_new_string(state_name(info->state)));
	json_object_object_add(entry, "flags", flags);
	json_object_object_add(entry, "bytes", json_object_new_uint64(info->bytes));
	json_object_object_add(entry, "stored_bytes", json_object_new_uint64(info->stored_bytes));
	json_object_object_add(entry, "declared_bytes", text_json_limit(info->declared_bytes));
	json_object_object_add(entry, "compression",
			       compression ? json_object_new_string(compression) : NULL);
	json_object_object_add(entry, "file_bytes", json_object_new_uint64(info->file_bytes));
	json_object_object_add(entry, "window_bytes", text_json_limit(info->window_bytes));
	json_object_object_add(entry, "readers", json_object_new_uint64(info->readers));
	json_object_object_add(entry, "age_ns", json_object_new_uint64(info->age_ns));
	json_object_object_add(entry, "expires_in_ns", text_json_limit(info->expires_in_ns));
	json_object_object_add(entry, "producer_pid",
			       info->producer_pid ? json_object_new_int64(info->producer_pid)
						  : NULL);
	json_object_array_add(list->json, entry);
}

static int each(void *arg, const struct scache_entry_info *info)
{
	struct list *list = arg;

	if (!is_wanted(list, info))
		return 0;
	if (list->json)
		add_entry(list, info);
	else
		print_entry(list, info);
	return 0;
}

static int list_entries(struct tool *tool, struct list *list)
{
	struct scache *cache;
	int rc, i, status = TOOL_OK, printed;

	if (tool_open(tool, SCACHE_OPEN_EXISTING, NULL, &cache))
		return TOOL_UNUSABLE;
	if (tool->json)
		list->json = json_object_new_array();
	rc = scache_each(cache, each, list);
	scache_close(cache);
	if (rc) {
		tool_error("%s", scache_strerror(rc));
		status = TOOL_UNUSABLE;
	}
	for (i = 0; !rc && i < list->count; i++)
		if (!list->seen[i]) {
			tool_no_key(&list->keys[i]);
			status = TOOL_NO;
		}
	printed = list->json ? tool_print_json(tool, list->json) : tool_flush(tool, TOOL_OK);
	return printed ? printed : status;
}

static int run(struct tool *tool, int argc, char **argv)
{
	static const struct option options[] = {
		{ "long", no_argument, NULL, OPT_LONG },
		TOOL_OPTION_JSON,
		TOOL_OPTION_HEX,
		TOOL_OPTIONS,
		TOOL_OPTION_END,
	};
	struct list list = { .lines = 0 };
	struct tool_key *keys = calloc((size_t)argc, sizeof(*keys));
	int *seen = calloc((size_t)argc, sizeof(*seen)), status = TOOL_OK, c = -1, i;

	if (!keys || !seen)
		status = TOOL_UNUSABLE;
	while (!status && (c = tool_getopt(tool, &cmd_ls, argc, argv, options)) != -1) {
		list.is_long = 1;
		if (c == TOOL_OPT_STOP)
			status = TOOL_OPT_STOP;
	}
	for (i = optind; !status && i < argc; i++)
		if (tool_key(tool, &cmd_ls, argv[i], &keys[list.count++]))
			status = cmd_ls.usage_status;
	if (!status && !tool_stdout_usable(tool))
		status = TOOL_UNUSABLE;
	list.keys = keys;
	list.seen = seen;
	if (!status)
		status = list_entries(tool, &list);
	free(keys);
	free(seen);
	return status == TOOL_OPT_STOP ? tool->status : status;
}

const struct command cmd_ls = {
	.name = "ls",
	.arguments = "[OPTION]... [KEY]...",
	.summary = "List the entries",
	.help = "  --long             also how each is stored, and what its file has on the disk\n"
		TOOL_HELP_JSON TOOL_HELP_HEX TOOL_HELP_COMMON
		"\n"
		"Exit status: 0, 1 if a KEY given is not there, 2 wrong usage, 125 the cache\n"
		"cannot be used.\n",
	.usage_status = TOOL_USAGE,
	.run = run,
};
