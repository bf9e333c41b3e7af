/* SPDX-License-Identifier: MIT */
/*
 * sweep - remove what has expired, what the dead left and files of nobody.
 */
#include "tool.h"

#include <inttypes.h>
#include <json-c/json.h>
#include <stdio.h>
#include <string.h>

enum {
	OPT_MAX_AGE = TOOL_OPT_OWN,
	OPT_DRY_RUN,
};

struct sweep {
	struct scache_sweep_options options;
	struct json_object *victims; /* an array, or NULL */
};

/* A real sweep says a summary; what it would do, or had to leave, by name. */
static void victim(void *arg, const struct scache_victim *one)
{
	struct sweep *sweep = arg;
	char size[TEXT_SHORT];

	if (sweep->victims) {
		json_object_array_add(sweep->victims, victim_json(one));
		return;
	}
	if (one->removed || (strcmp(one->why, "adopted") == 0 &&
			     !(sweep->options.flags & SCACHE_DRY_RUN)))
		return;
	printf("%-10s %10s  ", one->why, text_bytes(one->bytes, size));
	victim_print_name(one);
}

static const char *plural(uint64_t n, const char *one, const char *many)
{
	return n == 1 ? one : many;
}

static void print_summary(const struct scache_sweep_report *report, int dry_run)
{
	char entry_bytes[TEXT_SHORT], orphan_bytes[TEXT_SHORT], adopted_bytes[TEXT_SHORT];

	printf("%s %" PRIu64 " %s (%s), %" PRIu64 " %s (%s)", dry_run ? "would remove" : "removed",
	       report->entries, plural(report->entries, "entry", "entries"),
	       text_bytes(report->entry_bytes, entry_bytes), report->orphans,
	       plural(report->orphans, "orphan file", "orphan files"),
	       text_bytes(report->orphan_bytes, orphan_bytes));
	if (report->adopted)
		printf("; %s %" PRIu64 " %s (%s)", dry_run ? "would adopt" : "adopted",
		       report->adopted, plural(report->adopted, "former blob", "former blobs"),
		       text_bytes(report->adopted_bytes, adopted_bytes));
	if (report->unknown)
		printf("; left %" PRIu64 " unknown %s", report->unknown,
		       plural(report->unknown, "file", "files"));
	if (report->reaped)
		printf("; cleaned up after %" PRIu64 " dead %s", report->reaped,
		       plural(report->reaped, "process", "processes"));
	putchar('\n');
}

static struct json_object *report_json(const struct scache_sweep_report *report, int dry_run,
				       struct json_object *victims)
{
	struct json_object *root = json_object_new_object();

	json_object_object_add(root, "dry_run", json_object_new_boolean(dry_run));
	json_object_object_add(root, "entries", json_object_new_uint64(report->entries));
	json_object_object_add(root, "entry_bytes", json_object_new_uint64(report->entry_bytes));
	json_object_object_add(root, "orphans", json_object_new_uint64(report->orphans));
	json_object_object_add(root, "orphan_bytes", json_object_new_uint64(report->orphan_bytes));
	json_object_object_add(root, "adopted", json_object_new_uint64(report->adopted));
	json_object_object_add(root, "adopted_bytes",
			       json_object_new_uint64(report->adopted_bytes));
	json_object_object_add(root, "unknown", json_object_new_uint64(report->unknown));
	json_object_object_add(root, "reaped", json_object_new_uint64(report->reaped));
	json_object_object_add(root, "victims", victims);
	return root;
}

static int sweep_cache(const struct tool *tool, struct sweep *sweep)
{
	struct scache_sweep_report report = { .size = sizeof(report) };
	int dry_run = (sweep->options.flags & SCACHE_DRY_RUN) != 0, rc;
	struct scache *cache;

	if (tool_open(tool, SCACHE_OPEN_EXISTING, NULL, &cache))
		return TOOL_UNUSABLE;
	if (tool->json)
		sweep->victims = json_object_new_array();
	rc = scache_sweep(cache, &sweep->options, &report);
	scache_close(cache);
	if (rc) {
		tool_error("sweep: %s%s%s", scache_strerror(rc), *scache_detail() ? ": " : "",
			   scache_detail());
		json_object_put(sweep->victims);
		return TOOL_UNUSABLE;
	}
	if (tool->json)
		return tool_print_json(tool, report_json(&report, dry_run, sweep->victims));
	print_summary(&report, dry_run);
	return tool_flush(tool, TOOL_OK);
}

static int run(struct tool *tool, int argc, char **argv)
{
	static const struct option options[] = {
		{ "max-age", required_argument, NULL, OPT_MAX_AGE },
		{ "dry-run", no_argument, NULL, OPT_DRY_RUN },
		TOOL_OPTION_JSON,
		TOOL_OPTIONS,
		TOOL_OPTION_END,
	};
	struct sweep sweep = { .options = { .size = sizeof(sweep.options), .victim = victim } };
	int c;

	sweep.options.arg = &sweep;
	while ((c = tool_getopt(tool, &cmd_sweep, argc, argv, options)) != -1) {
		if (c == TOOL_OPT_STOP)
			return tool->status;
		if (c == OPT_DRY_RUN)
			sweep.options.flags |= SCACHE_DRY_RUN;
		else if (tool_time(&cmd_sweep, optarg, &sweep.options.max_age_ns))
			return cmd_sweep.usage_status;
	}
	if (optind < argc)
		return tool_usage(&cmd_sweep, "what is '%s'?", argv[optind]);
	if (!tool_stdout_usable(tool))
		return TOOL_UNUSABLE;
	return sweep_cache(tool, &sweep);
}

const struct command cmd_sweep = {
	.name = "sweep",
	.arguments = "[OPTION]...",
	.summary = "Remove what has expired and what the dead left; adopt what is finished",
	.help = "  --max-age=TIME     remove what was completed longer ago; without it each\n"
		"                     entry's own limit counts\n"
		"  --dry-run          only list what would be removed or adopted\n"
		TOOL_HELP_JSON TOOL_HELP_COMMON
		"\n"
		"Exit status: 0, 2 wrong usage, 125 the cache cannot be used.\n",
	.usage_status = TOOL_USAGE,
	.run = run,
};
