/* SPDX-License-Identifier: MIT */
/*
 * check - verify the invariants of the live segment, without disturbing it.
 */
#include "tool.h"

#include <json-c/json.h>
#include <stdio.h>

static void print_finding(void *arg, const char *text)
{
	(void)arg;
	printf("%s\n", text);
}

static void add_finding(void *arg, const char *text)
{
	json_object_array_add(arg, json_object_new_string(text));
}

static int check(struct tool *tool, struct scache *cache)
{
	struct json_object *findings = tool->json ? json_object_new_array() : NULL, *root;
	int violations, status;

	violations = scache_check(cache, findings ? add_finding : print_finding, findings);
	if (violations < 0) {
		tool_error("%s", scache_strerror(violations));
		json_object_put(findings);
		return TOOL_UNUSABLE;
	}
	status = violations ? TOOL_NO : TOOL_OK;
	if (!findings) {
		printf("%d violation%s found\n", violations, violations == 1 ? "" : "s");
		return tool_flush(tool, status);
	}
	root = json_object_new_object();
	json_object_object_add(root, "violations", json_object_new_int(violations));
	json_object_object_add(root, "findings", findings);
	return tool_print_json(tool, root) ? TOOL_UNUSABLE : status;
}

static int run(struct tool *tool, int argc, char **argv)
{
	return tool_inspect(tool, &cmd_check, argc, argv, check);
}

const struct command cmd_check = {
	.name = "check",
	.arguments = "[OPTION]...",
	.summary = "Verify the invariants of the shared segment",
	.help = TOOL_HELP_JSON TOOL_HELP_COMMON
		"\n"
		"Exit status: 0, 1 if violations were found, 2 wrong usage, 125 the cache cannot\n"
		"be used.\n",
	.usage_status = TOOL_USAGE,
	.run = run,
};
