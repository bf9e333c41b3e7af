/* SPDX-License-Identifier: MIT */
/*
 * destroy - remove a cache: its segment and its files, and nothing else.
 */
#include "tool.h"

#include <errno.h>
#include <json-c/json.h>
#include <stdio.h>
#include <stdlib.h>

enum { OPT_DRY_RUN = TOOL_OPT_OWN };

struct destroy {
	struct scache_sweep_options options;
	struct json_object *victims; /* an array, or NULL */
};

static void victim(void *arg, const struct scache_victim *one)
{
	struct destroy *destroy = arg;

	if (destroy->victims) {
		json_object_array_add(destroy->victims, victim_json(one));
	} else if (!one->removed) {
		printf("%-10s ", one->why);
		victim_print_name(one);
	}
}

static int destroy_cache(const struct tool *tool, struct destroy *destroy)
{
	char *dir;
	int rc = tool_dir(tool, 0, &dir), status = TOOL_OK, printed;

	if (rc) {
		tool_error("no cache directory: use --cache=DIR, or set STREAMCACHE_DIR or HOME");
		return TOOL_UNUSABLE;
	}
	if (tool->json)
		destroy->victims = json_object_new_array();
	rc = scache_destroy(dir, &destroy->options);
	if (rc) {
		tool_cache_error(dir, rc, NULL);
		status = rc == -EBUSY || rc == -ENOTEMPTY ? TOOL_NO : TOOL_UNUSABLE;
	}
	free(dir);
	printed = tool->json ? tool_print_json(tool, destroy->victims) : tool_flush(tool, TOOL_OK);
	return printed ? printed : status;
}

static int run(struct tool *tool, int argc, char **argv)
{
	static const struct option options[] = {
		{ "dry-run", no_argument, NULL, OPT_DRY_RUN },
		TOOL_OPTION_JSON,
		TOOL_OPTIONS,
		TOOL_OPTION_END,
	};
	struct destroy destroy = { .options = { .size = sizeof(destroy.options),
						.victim = victim } };
	int c;

	destroy.options.arg = &destroy;
	while ((c = tool_getopt(tool, &cmd_destroy, argc, argv, options)) != -1) {
		if (c == TOOL_OPT_STOP)
			return tool->status;
		destroy.options.flags |= SCACHE_DRY_RUN;
	}
	if (optind < argc)
		return tool_usage(&cmd_destroy, "what is '%s'? The cache is named by --cache=DIR",
				  argv[optind]);
	if (!tool_stdout_usable(tool))
		return TOOL_UNUSABLE;
	return destroy_cache(tool, &destroy);
}

const struct command cmd_destroy = {
	.name = "destroy",
	.arguments = "[OPTION]...",
	.summary = "Remove the cache: its segment and its files",
	.help = "  --dry-run          only list what would be removed\n"
		TOOL_HELP_JSON TOOL_HELP_COMMON
		"\n"
		"Files that are not the cache's are listed and left.\n"
		"\n"
		"Exit status: 0, 1 if processes use the cache or unknown files were left, 2 wrong\n"
		"usage, 125 the cache cannot be used.\n",
	.usage_status = TOOL_USAGE,
	.run = run,
};
