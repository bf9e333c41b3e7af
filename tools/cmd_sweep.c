/* SPDX-License-Identifier: MIT */
/*
 * sweep - remove what has expired, what is too much, what the dead left and files of nobody:
 * once, or (--watch) for as long as a supervisor wants it.
 *
 * Who watches opens the cache anew each time: in between it may be destroyed, and be there
 * again, without anybody in its way. SIGTERM and SIGINT are only looked at where we
 * ask for them, so a sweep ends behind a file and never in one.
 */
#include "tool.h"

#include <errno.h>
#include <inttypes.h>
#include <json-c/json.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#define STOPPED 1 /* what ends a sweep that was asked to */

enum {
	OPT_MAX_AGE = TOOL_OPT_OWN,
	OPT_DRY_RUN,
	OPT_WATCH,
};

struct sweep {
	struct scache_sweep_options options;
	struct scache_sweep_report report;
	struct progress progress;
	struct json_object *victims; /* an array, or NULL */
	uint64_t pause_ns; /* between two sweeps; 0: only one */
	sigset_t stops;	   /* signals that end the watch */
};

static int is_dry(const struct sweep *sweep)
{
	return (sweep->options.flags & SCACHE_DRY_RUN) != 0;
}

/* A real sweep says a summary; what it would do, or had to leave, by name. */
static void victim(void *arg, const struct scache_victim *one)
{
	struct sweep *sweep = arg;
	char size[TEXT_SHORT];

	if (sweep->victims) {
		json_object_array_add(sweep->victims, victim_json(one));
		return;
	}
	if (sweep->pause_ns || one->removed || (strcmp(one->why, "adopted") == 0 && !is_dry(sweep)))
		return;
	progress_clear(&sweep->progress);
	printf("%-10s %10s  ", one->why, text_bytes(one->bytes, size));
	victim_print_name(one);
}

static int is_stopped(const struct sweep *sweep)
{
	sigset_t pending;
	int sig;

	sigpending(&pending);
	for (sig = 1; sig <= SIGTERM; sig++)
		if (sigismember(&sweep->stops, sig) == 1 && sigismember(&pending, sig) == 1)
			return 1;
	return 0;
}

static int go_on(void *arg, const struct scache_sweep_progress *at)
{
	char text[128], percent[TEXT_SHORT];
	struct sweep *sweep = arg;

	if (progress_is_due(&sweep->progress)) {
		snprintf(text, sizeof(text), "streamcache: %" PRIu64 " files, %s of the directories",
			 at->files, text_percent(at->directories, at->all_directories, percent));
		progress_say(&sweep->progress, text);
	}
	return is_stopped(sweep) ? STOPPED : 0;
}

static const char *plural(uint64_t n, const char *one, const char *many)
{
	return n == 1 ? one : many;
}

static void print_count(const char *verb, uint64_t count, const char *one, const char *many,
			uint64_t bytes)
{
	char size[TEXT_SHORT];

	if (count)
		printf("; %s %" PRIu64 " %s (%s)", verb, count, plural(count, one, many),
		       text_bytes(bytes, size));
}

static void print_summary(const struct scache_sweep_report *report, int dry_run)
{
	char entry_bytes[TEXT_SHORT], orphan_bytes[TEXT_SHORT];

	printf("%s %" PRIu64 " %s (%s), %" PRIu64 " %s (%s)", dry_run ? "would remove" : "removed",
	       report->entries, plural(report->entries, "entry", "entries"),
	       text_bytes(report->entry_bytes, entry_bytes), report->orphans,
	       plural(report->orphans, "orphan file", "orphan files"),
	       text_bytes(report->orphan_bytes, orphan_bytes));
	print_count(dry_run ? "would adopt" : "adopted", report->adopted, "former blob",
		    "former blobs", report->adopted_bytes);
	print_count(dry_run ? "would evict" : "evicted", report->evicted, "entry", "entries",
		    report->evicted_bytes);
	print_count(dry_run ? "would remove" : "removed", report->segments, "lost segment",
		    "lost segments", report->segment_bytes);
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
	const struct {
		const char *name;
		uint64_t value;
	} numbers[] = {
		{ "entries", report->entries },	      { "entry_bytes", report->entry_bytes },
		{ "orphans", report->orphans },	      { "orphan_bytes", report->orphan_bytes },
		{ "adopted", report->adopted },	      { "adopted_bytes", report->adopted_bytes },
		{ "evicted", report->evicted },	      { "evicted_bytes", report->evicted_bytes },
		{ "segments", report->segments },     { "segment_bytes", report->segment_bytes },
		{ "unknown", report->unknown },	      { "reaped", report->reaped },
	};
	struct json_object *root = json_object_new_object();
	size_t i;

	json_object_object_add(root, "dry_run", json_object_new_boolean(dry_run));
	for (i = 0; i < sizeof(numbers) / sizeof(numbers[0]); i++)
		json_object_object_add(root, numbers[i].name,
				       json_object_new_uint64(numbers[i].value));
	json_object_object_add(root, "victims", victims);
	return root;
}

/* What one who watches wants to hear of. */
static int has_done(const struct scache_sweep_report *report)
{
	return report->entries || report->orphans || report->adopted || report->evicted ||
	       report->segments || report->reaped;
}

/* The exit status. */
static int print_report(const struct tool *tool, struct sweep *sweep)
{
	struct json_object *root;
	int status;

	if (sweep->pause_ns && !has_done(&sweep->report)) {
		json_object_put(sweep->victims);
		return TOOL_OK;
	}
	if (!tool->json) {
		print_summary(&sweep->report, is_dry(sweep));
		return tool_flush(tool, TOOL_OK);
	}
	root = report_json(&sweep->report, is_dry(sweep), sweep->victims);
	if (!sweep->pause_ns)
		return tool_print_json(tool, root);
	printf("%s\n", json_object_to_json_string_ext(root, JSON_C_TO_STRING_PLAIN |
							     JSON_C_TO_STRING_NOSLASHESCAPE));
	status = tool_flush(tool, TOOL_OK);
	json_object_put(root);
	return status;
}

/* One sweep. 0, STOPPED; -errno: said so. */
static int sweep_cache(const struct tool *tool, struct sweep *sweep)
{
	struct scache *cache;
	int rc = tool_open(tool, SCACHE_OPEN_EXISTING, NULL, &cache);

	if (rc)
		return rc;
	sweep->report = (struct scache_sweep_report){ .size = sizeof(sweep->report) };
	sweep->victims = tool->json ? json_object_new_array() : NULL;
	progress_begin(&sweep->progress, -1);
	rc = scache_sweep(cache, &sweep->options, &sweep->report);
	progress_end(&sweep->progress);
	scache_close(cache);
	if (rc < 0) {
		tool_error("sweep: %s%s%s", scache_strerror(rc), *scache_detail() ? ": " : "",
			   scache_detail());
		json_object_put(sweep->victims);
	}
	return rc;
}

/* Was it not for a signal, which may come in the pause as well? */
static int pause_sweeping(const struct sweep *sweep)
{
	const struct timespec pause = { .tv_sec = (time_t)(sweep->pause_ns / NS_PER_S),
					.tv_nsec = (long)(sweep->pause_ns % NS_PER_S) };
	int sig;

	do
		sig = sigtimedwait(&sweep->stops, NULL, &pause);
	while (sig < 0 && errno == EINTR);
	return sig < 0 ? 0 : STOPPED;
}

static int watch(const struct tool *tool, struct sweep *sweep)
{
	struct sigaction before;
	int rc, status;

	/* Who has us started in the background of a shell has SIGINT ignored. */
	sigaddset(&sweep->stops, SIGTERM);
	if (sigaction(SIGINT, NULL, &before) || before.sa_handler != SIG_IGN)
		sigaddset(&sweep->stops, SIGINT);
	sigprocmask(SIG_BLOCK, &sweep->stops, NULL);
	rc = sweep_cache(tool, sweep);
	if (rc < 0)
		return TOOL_UNUSABLE;
	/* From now on it was good once, and whatever is wrong may pass. */
	for (;;) {
		status = rc < 0 ? TOOL_OK : print_report(tool, sweep);
		if (status || rc == STOPPED || pause_sweeping(sweep) == STOPPED)
			return status;
		rc = sweep_cache(tool, sweep);
	}
}

static int take_pause(struct sweep *sweep, const char *text)
{
	int status = tool_time(&cmd_sweep, text, &sweep->pause_ns);

	if (!status && (sweep->pause_ns == SCACHE_ZERO || sweep->pause_ns == SCACHE_UNLIMITED))
		return tool_usage(&cmd_sweep, "--watch needs a pause, as in 10m");
	return status;
}

static int parse(struct tool *tool, struct sweep *sweep, int argc, char **argv)
{
	static const struct option options[] = {
		{ "max-age", required_argument, NULL, OPT_MAX_AGE },
		{ "dry-run", no_argument, NULL, OPT_DRY_RUN },
		{ "watch", required_argument, NULL, OPT_WATCH },
		TOOL_OPTION_JSON,
		TOOL_OPTIONS,
		TOOL_OPTION_END,
	};
	int c, status = 0;

	while (!status && (c = tool_getopt(tool, &cmd_sweep, argc, argv, options)) != -1) {
		if (c == TOOL_OPT_STOP)
			return c;
		if (c == OPT_DRY_RUN)
			sweep->options.flags |= SCACHE_DRY_RUN;
		else if (c == OPT_WATCH)
			status = take_pause(sweep, optarg);
		else
			status = tool_time(&cmd_sweep, optarg, &sweep->options.max_age_ns);
	}
	if (!status && optind < argc)
		return tool_usage(&cmd_sweep, "what is '%s'?", argv[optind]);
	if (!status && sweep->pause_ns && is_dry(sweep))
		return tool_usage(&cmd_sweep, "a --dry-run does not become another by --watch");
	return status;
}

static int run(struct tool *tool, int argc, char **argv)
{
	struct sweep sweep = { .options = { .size = sizeof(sweep.options),
					    .victim = victim,
					    .progress = go_on } };
	int status = parse(tool, &sweep, argc, argv);

	if (status)
		return status == TOOL_OPT_STOP ? tool->status : status;
	if (!tool_stdout_usable(tool))
		return TOOL_UNUSABLE;
	sweep.options.arg = &sweep;
	sigemptyset(&sweep.stops);
	if (sweep.pause_ns)
		return watch(tool, &sweep);
	return sweep_cache(tool, &sweep) ? TOOL_UNUSABLE : print_report(tool, &sweep);
}

const struct command cmd_sweep = {
	.name = "sweep",
	.arguments = "[OPTION]...",
	.summary = "Remove what has expired, what is too much and what the dead left",
	.help = "  --max-age=TIME     remove what was completed longer ago, too\n"
		"  --dry-run          only list what would be removed or adopted, and why\n"
		"  --watch=TIME       again and again, with such a pause in between, until SIGTERM or\n"
		"                     SIGINT; a line for each sweep that has done something\n"
		TOOL_HELP_JSON TOOL_HELP_COMMON
		"\n"
		"Finished blobs of a former segment are adopted.\n"
		"\n"
		"TIME: 90s 5m 2h 1d.\n"
		"Exit status: 0, 2 wrong usage, 125 the cache cannot be used.\n",
	.usage_status = TOOL_USAGE,
	.run = run,
};
