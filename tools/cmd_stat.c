/* SPDX-License-Identifier: MIT */
/*
 * stat - the numbers of a cache: now, ever, geometry and stored options.
 *
 * One table names every number once, for people and for JSON.
 */
#include "tool.h"

#include <inttypes.h>
#include <json-c/json.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum kind {
	COUNT,
	BYTES,
	LIMIT, /* bytes, or SCACHE_UNLIMITED */
};

struct number {
	const char *group;
	const char *name;
	size_t offset; /* in struct scache_stats */
	enum kind kind;
};

#define NUMBER(group, member, kind)                                                                \
	{ group, #member, offsetof(struct scache_stats, member), kind }

static const struct number numbers[] = {
	NUMBER("now", entries, COUNT),
	NUMBER("now", entries_filling, COUNT),
	NUMBER("now", entries_finished, COUNT),
	NUMBER("now", entries_failed, COUNT),
	NUMBER("now", entries_hidden, COUNT),
	NUMBER("now", entries_free, COUNT),
	NUMBER("now", peers, COUNT),
	NUMBER("now", readers, COUNT),
	NUMBER("now", rings_in_use, COUNT),
	NUMBER("now", bytes_used, BYTES),
	NUMBER("now", bytes_spare, LIMIT),
	NUMBER("ever", hits, COUNT),
	NUMBER("ever", joins, COUNT),
	NUMBER("ever", misses, COUNT),
	NUMBER("ever", productions, COUNT),
	NUMBER("ever", finishes, COUNT),
	NUMBER("ever", failures, COUNT),
	NUMBER("ever", deaths, COUNT),
	NUMBER("ever", bypasses, COUNT),
	NUMBER("ever", bytes_produced, BYTES),
	NUMBER("ever", bytes_from_ring, BYTES),
	NUMBER("ever", bytes_from_file, BYTES),
	NUMBER("ever", reads_from_ring, COUNT),
	NUMBER("ever", reads_from_file, COUNT),
	NUMBER("ever", waits, COUNT),
	NUMBER("ever", wakes, COUNT),
	NUMBER("ever", expired, COUNT),
	NUMBER("ever", removed, COUNT),
	NUMBER("ever", degraded, COUNT),
	NUMBER("ever", damaged, COUNT),
	NUMBER("ever", adopted, COUNT),
	NUMBER("ever", evicted, COUNT),
	NUMBER("ever", not_retained, COUNT),
	NUMBER("ever", overdue, COUNT),
	NUMBER("ever", stalled, COUNT),
	NUMBER("ever", blocked_ns, COUNT),
	NUMBER("ever", emergencies, COUNT),
	NUMBER("ever", bytes_punched, BYTES),
	NUMBER("geometry", max_entries, COUNT),
	NUMBER("geometry", max_peers, COUNT),
	NUMBER("geometry", max_readers, COUNT),
	NUMBER("geometry", max_rings, COUNT),
	NUMBER("geometry", ring_bytes, BYTES),
	NUMBER("geometry", segment_bytes, BYTES),
};

#define NUMBERS (sizeof(numbers) / sizeof(numbers[0]))

static uint64_t number_of(const struct scache_stats *stats, const struct number *number)
{
	uint64_t value;

	memcpy(&value, (const char *)stats + number->offset, sizeof(value));
	return value;
}

/* ------------------------------------------------------------- for people */

static void print_options(const struct scache_options *options)
{
	char text[TEXT_SHORT];

	printf("options\n");
	settings_print(options);
	printf("  %-18s %16s\n", "ring", text_bytes(options->ring_bytes, text));
	printf("  %-18s %16o\n", "mode", (unsigned int)options->mode);
	printf("  %-18s %s\n", "segment_dir", options->segment_dir ? options->segment_dir : "-");
}

static int print_table(const struct tool *tool, const char *dir, const struct scache_stats *stats,
		       const struct scache_options *options)
{
	const char *group = "";
	size_t i;

	printf("cache %s\n", dir);
	for (i = 0; i < NUMBERS; i++) {
		uint64_t value = number_of(stats, &numbers[i]);
		char text[TEXT_SHORT];

		if (strcmp(group, numbers[i].group))
			printf("%s\n", numbers[i].group);
		group = numbers[i].group;
		if (numbers[i].kind == LIMIT && value == SCACHE_UNLIMITED) {
			printf("  %-18s %16s\n", numbers[i].name, "unlimited");
			continue;
		}
		printf("  %-18s %16" PRIu64, numbers[i].name, value);
		if (numbers[i].kind != COUNT && value >= 1024)
			printf("  %s", text_bytes(value, text));
		putchar('\n');
	}
	print_options(options);
	return tool_flush(tool, TOOL_OK);
}

/* ------------------------------------------------------------------- JSON */

static struct json_object *options_json(const struct scache_options *options)
{
	struct json_object *object = json_object_new_object();
	const char *dir = options->segment_dir;
	char mode[TEXT_SHORT];

	snprintf(mode, sizeof(mode), "%04o", (unsigned int)options->mode);
	json_object_object_add(object, "mode", json_object_new_string(mode));
	json_object_object_add(object, "entries", json_object_new_uint64(options->entries));
	json_object_object_add(object, "peers", json_object_new_uint64(options->peers));
	json_object_object_add(object, "readers", json_object_new_uint64(options->readers));
	json_object_object_add(object, "rings", json_object_new_uint64(options->rings));
	json_object_object_add(object, "ring_bytes", json_object_new_uint64(options->ring_bytes));
	settings_json(options, object);
	json_object_object_add(object, "segment_dir", dir ? text_json(dir, strlen(dir)) : NULL);
	return object;
}

static int print_object(const struct tool *tool, const char *dir, const struct scache_stats *stats,
			const struct scache_options *options)
{
	struct json_object *root = json_object_new_object(), *group = NULL;
	size_t i;

	json_object_object_add(root, "directory", text_json(dir, strlen(dir)));
	json_object_object_add(root, "version", json_object_new_string(scache_version()));
	for (i = 0; i < NUMBERS; i++) {
		if (!i || strcmp(numbers[i].group, numbers[i - 1].group)) {
			group = json_object_new_object();
			json_object_object_add(root, numbers[i].group, group);
		}
		json_object_object_add(group, numbers[i].name,
				       numbers[i].kind == LIMIT ?
					       text_json_limit(number_of(stats, &numbers[i])) :
					       json_object_new_uint64(number_of(stats, &numbers[i])));
	}
	json_object_object_add(root, "options", options_json(options));
	return tool_print_json(tool, root);
}

static int show(struct tool *tool, struct scache *cache)
{
	struct scache_stats stats = { .size = sizeof(stats) };
	struct scache_options options = { .size = sizeof(options) };
	char *dir = NULL;
	int rc = scache_stat(cache, &stats), status;

	if (!rc)
		rc = scache_get_options(cache, &options);
	if (!rc)
		rc = tool_dir(tool, 0, &dir);
	if (rc) {
		tool_error("%s", scache_strerror(rc));
		return TOOL_UNUSABLE;
	}
	status = tool->json ? print_object(tool, dir, &stats, &options)
			    : print_table(tool, dir, &stats, &options);
	free(dir);
	return status;
}

static int run(struct tool *tool, int argc, char **argv)
{
	return tool_inspect(tool, &cmd_stat, argc, argv, show);
}

const struct command cmd_stat = {
	.name = "stat",
	.arguments = "[OPTION]...",
	.summary = "Print the cache's counters, geometry and options",
	.help = TOOL_HELP_JSON TOOL_HELP_COMMON
		"\n"
		"Exit status: 0, 2 wrong usage, 125 the cache cannot be used.\n",
	.usage_status = TOOL_USAGE,
	.run = run,
};
