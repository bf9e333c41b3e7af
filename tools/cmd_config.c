/* SPDX-License-Identifier: MIT */
/*
 * config - show what is stored with a cache, and change it while it is in use.
 */
#include "tool.h"

#include <errno.h>
#include <json-c/json.h>
#include <stdio.h>
#include <string.h>

static int show(const struct tool *tool, struct scache *cache)
{
	struct scache_options options = { .size = sizeof(options) };
	struct json_object *object;
	int rc = scache_get_options(cache, &options);

	if (rc) {
		tool_error("%s", scache_strerror(rc));
		return TOOL_UNUSABLE;
	}
	if (tool->json) {
		object = json_object_new_object();
		settings_json(&options, object);
		return tool_print_json(tool, object);
	}
	settings_print(&options);
	return tool_flush(tool, TOOL_OK);
}

static int configure(struct tool *tool, struct scache_options *changes, int is_change)
{
	struct scache *cache;
	int rc = choice_settle(tool, NULL, changes);

	/* Said of the cache, not of what this process does with it. */
	memset(tool->choices, 0, sizeof(tool->choices));
	/* One that is not there yet is made of them: so it never is without its limits. */
	tool->wishes = changes;
	if (!rc)
		rc = tool_open(tool, is_change ? 0 : SCACHE_OPEN_EXISTING, NULL, &cache);
	if (rc)
		return rc == -EINVAL && is_change ? TOOL_USAGE : TOOL_UNUSABLE;
	rc = is_change ? scache_configure(cache, changes) : 0;
	if (rc) {
		if (!settings_error(scache_detail()))
			tool_error("%s", *scache_detail() ? scache_detail() : scache_strerror(rc));
		rc = rc == -EINVAL ? TOOL_USAGE : TOOL_UNUSABLE;
	} else {
		rc = show(tool, cache);
	}
	scache_close(cache);
	return rc;
}

static int run(struct tool *tool, int argc, char **argv)
{
	struct option options[TOOL_SETTINGS + 16] = {
		TOOL_OPTION_JSON, TOOL_OPTIONS, TOOL_OPTIONS_STORE, TOOL_OPTION_VERIFY,
	};
	struct scache_options changes = { .size = sizeof(changes) };
	int c, count = 0, is_change = 0;

	tool->is_config = 1;
	while (options[count].name)
		count++;
	for (int i = 0; i < TOOL_SETTINGS_OWN; i++)
		options[count++] = (struct option){ settings_option(i), required_argument, NULL,
						    TOOL_OPT_OWN + i };
	while ((c = tool_getopt(tool, &cmd_config, argc, argv, options)) != -1) {
		if (c == TOOL_OPT_STOP)
			return tool->status;
		if (settings_take(&cmd_config, c - TOOL_OPT_OWN, optarg, &changes))
			return cmd_config.usage_status;
		is_change = 1;
	}
	for (int i = 0; i < TOOL_CHOICES; i++)
		is_change |= tool->choices[i] != NULL;
	if (optind < argc)
		return tool_usage(&cmd_config, "what is '%s'?", argv[optind]);
	if (!tool_stdout_usable(tool))
		return TOOL_UNUSABLE;
	return configure(tool, &changes, is_change);
}

const struct command cmd_config = {
	.name = "config",
	.arguments = "[OPTION]...",
	.summary = "Show or change what is stored with the cache: its limits and defaults",
	.help = "Without an option the settings are printed. What is changed holds at once, in all\n"
		"processes, and for good; a cache that is not there yet is made.\n\n"
		"  --max-bytes=SIZE         of its files on the disk; or unlimited\n"
		"  --min-free=SIZE          of the file system, to be left to others; or 0\n"
		"  --min-free-percent=N     the same in percent of it; the greater counts; or 0\n"
		"  --max-entries=N          or unlimited\n"
		"  --low-percent=N          what is full is emptied down to this part of a limit\n"
		"  --max-age=TIME           of an entry, from its completion; or 0 or unlimited\n"
		"  --max-idle=TIME          of one that nobody asks for; or unlimited\n"
		"  --max-fill=TIME          that a production may take; or unlimited\n"
		"  --min-occurrences=N      of a key within max-age: what is produced then is stored\n"
		"  --window=SIZE            of a writer before its readers; or 0 or unlimited\n"
		TOOL_HELP_STORE TOOL_HELP_VERIFY TOOL_HELP_JSON TOOL_HELP_COMMON
		"\n"
		"TIME: 90s 5m 2h 1d.  SIZE: 64K 8M 1G.  N: a number.\n"
		"Exit status: 0, 2 wrong usage, 125 the cache cannot be used.\n",
	.usage_status = TOOL_USAGE,
	.run = run,
};
