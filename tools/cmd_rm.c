/* SPDX-License-Identifier: MIT */
/*
 * rm - make entries unfindable; streams that are open go on undisturbed.
 */
#include "tool.h"

#include <errno.h>
#include <stdlib.h>

enum { OPT_ALL = TOOL_OPT_OWN };

static int remove_one(void *arg, const struct scache_entry_info *info)
{
	struct scache *cache = arg;
	int rc;

	if (info->flags & SCACHE_HIDDEN)
		return 0;
	rc = scache_remove(cache, info->key, info->key_bytes);
	return rc == -ENOENT ? 0 : rc; /* somebody was faster */
}

static int remove_all(struct scache *cache)
{
	int rc = scache_each(cache, remove_one, cache);

	if (rc)
		tool_error("%s", scache_strerror(rc));
	return rc ? TOOL_UNUSABLE : TOOL_OK;
}

static int remove_named(struct scache *cache, const struct tool_key *keys, char **names)
{
	int i, rc, status = TOOL_OK;

	for (i = 0; names[i]; i++) {
		rc = scache_remove(cache, keys[i].data, keys[i].bytes);
		if (!rc)
			continue;
		if (rc == -ENOENT)
			tool_no_key(&keys[i]);
		else
			tool_error("'%s': %s", names[i], scache_strerror(rc));
		if (rc != -ENOENT)
			status = TOOL_UNUSABLE;
		else if (!status)
			status = TOOL_NO;
	}
	return status;
}

static int remove_entries(const struct tool *tool, int all, const struct tool_key *keys,
			  char **names)
{
	struct scache *cache;
	int status;

	if (tool_open(tool, SCACHE_OPEN_EXISTING, NULL, &cache))
		return TOOL_UNUSABLE;
	status = all ? remove_all(cache) : remove_named(cache, keys, names);
	scache_close(cache);
	return status;
}

static int run(struct tool *tool, int argc, char **argv)
{
	static const struct option options[] = {
		{ "all", no_argument, NULL, OPT_ALL },
		TOOL_OPTION_HEX,
		TOOL_OPTIONS,
		TOOL_OPTION_END,
	};
	struct tool_key *keys;
	int c, i, all = 0, status = TOOL_OK;

	while ((c = tool_getopt(tool, &cmd_rm, argc, argv, options)) != -1) {
		if (c == TOOL_OPT_STOP)
			return tool->status;
		all = 1;
	}
	if (all ? optind < argc : optind == argc)
		return tool_usage(&cmd_rm, "either KEYs or --all is needed");
	keys = calloc((size_t)argc, sizeof(*keys));
	if (!keys)
		return TOOL_UNUSABLE;
	for (i = optind; !status && i < argc; i++)
		if (tool_key(tool, &cmd_rm, argv[i], &keys[i - optind]))
			status = cmd_rm.usage_status;
	if (!status)
		status = remove_entries(tool, all, keys, argv + optind);
	free(keys);
	return status;
}

const struct command cmd_rm = {
	.name = "rm",
	.arguments = "[OPTION]... KEY... | --all",
	.summary = "Remove entries; open streams go on",
	.help = "  --all              remove every entry\n" TOOL_HELP_HEX TOOL_HELP_COMMON
		"\n"
		"Exit status: 0, 1 if a KEY was not there, 2 wrong usage, 125 the cache cannot be\n"
		"used.\n",
	.usage_status = TOOL_USAGE,
	.run = run,
};
