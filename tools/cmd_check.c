/* SPDX-License-Identifier: MIT */
/*
 * check - verify the invariants of the live segment, without disturbing it; or
 * repair first.
 */
#include "tool.h"

#include <json-c/json.h>
#include <stdio.h>

enum {
	OPT_REPAIR = TOOL_OPT_OWN
};

static void print_finding(void *arg, const char *text)
{
	(void)arg;
	printf("%s\n", text);
}

static void add_finding(void *arg, const char *text)
{
	json_object_array_add(arg, json_object_new_string(text));
}

static void print_repair(const struct scache_repair_report *report)
{
	printf("%llu dead process%s cleaned up after, %llu entries freed\n",
	       (unsigned long long)report->reaped, report->reaped == 1 ? "" : "es",
	       (unsigned long long)report->freed);
	if (report->violations)
		printf("the segment was damaged and is replaced by a new one\n");
}

static struct json_object *json_of(int violations, struct json_object *findings,
				   const struct scache_repair_report *report)
{
	struct json_object *root = json_object_new_object();

	if (report) {
		json_object_object_add(root, "reaped", json_object_new_uint64(report->reaped));
		json_object_object_add(root, "freed", json_object_new_uint64(report->freed));
		json_object_object_add(root, "replaced",
				       json_object_new_boolean(report->violations > 0));
	}
	json_object_object_add(root, "violations", json_object_new_int(violations));
	json_object_object_add(root, "findings", findings);
	return root;
}

static int check_cache(struct tool *tool, struct scache *cache, int repair)
{
	struct scache_repair_report report = { .size = sizeof(report) };
	struct json_object *findings = tool->json ? json_object_new_array() : NULL;
	void (*finding)(void *, const char *) = findings ? add_finding : print_finding;
	int violations, status;

	violations = repair ? scache_repair(cache, finding, findings, &report) :
			      scache_check(cache, finding, findings);
	if (violations < 0) {
		tool_error("%s", scache_strerror(violations));
		json_object_put(findings);
		return TOOL_UNUSABLE;
	}
	violations += (int)report.violations;
	status = violations ? TOOL_NO : TOOL_OK;
	if (findings)
		return tool_print_json(tool, json_of(violations, findings, repair ? &report : NULL)) ?
			       TOOL_UNUSABLE : status;
	printf("%d violation%s found\n", violations, violations == 1 ? "" : "s");
	if (repair)
		print_repair(&report);
	return tool_flush(tool, status);
}

static int run(struct tool *tool, int argc, char **argv)
{
	static const struct option options[] = {
		{ "repair", no_argument, NULL, OPT_REPAIR },
		TOOL_OPTION_JSON,
		TOOL_OPTIONS,
		TOOL_OPTION_END,
	};
	struct scache *cache;
	int c, status, repair = 0;

	while ((c = tool_getopt(tool, &cmd_check, argc, argv, options)) != -1) {
		if (c == TOOL_OPT_STOP)
			return tool->status;
		repair = 1;
	}
	if (optind < argc)
		return tool_usage(&cmd_check, "what is '%s'?", argv[optind]);
	if (!tool_stdout_usable(tool) || tool_open(tool, SCACHE_OPEN_EXISTING, NULL, &cache))
		return TOOL_UNUSABLE;
	status = check_cache(tool, cache, repair);
	scache_close(cache);
	return status;
}

const struct command cmd_check = {
	.name = "check",
	.arguments = "[OPTION]...",
	.summary = "Verify the invariants of the shared segment",
	.help = "  --repair           clean up after dead processes first; a segment that is\n"
		"                     damaged beyond that is replaced, open streams go on\n"
		TOOL_HELP_JSON TOOL_HELP_COMMON
		"\n"
		"Exit status: 0, 1 if violations were found, 2 wrong usage, 125 the cache cannot\n"
		"be used.\n",
	.usage_status = TOOL_USAGE,
	.run = run,
};
