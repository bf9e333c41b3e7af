/* SPDX-License-Identifier: MIT */
/*
 * settings - what is stored with a cache and can be changed: its options, how they
 * are taken and how they are shown. One table names each once.
 */
#include "tool.h"

#include <errno.h>
#include <inttypes.h>
#include <json-c/json.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum kind {
	BYTES,
	TIME,
	NUMBER,
	CHOICE, /* one of a few words; 32 bits */
};

#define LONG(member) offsetof(struct scache_options, member)

static const struct setting {
	const char *option; /* without "--" */
	const char *json;
	size_t offset; /* in struct scache_options */
	enum kind kind;
	enum tool_choice choice;
} settings[TOOL_SETTINGS] = {
	{ "max-bytes", "max_bytes", LONG(max_bytes), BYTES, 0 },
	{ "min-free", "min_free_bytes", LONG(min_free_bytes), BYTES, 0 },
	{ "min-free-percent", "min_free_percent", LONG(min_free_percent), NUMBER, 0 },
	{ "max-entries", "max_entries", LONG(max_entries), NUMBER, 0 },
	{ "low-percent", "low_percent", LONG(low_percent), NUMBER, 0 },
	{ "max-age", "max_age_ns", LONG(max_age_ns), TIME, 0 },
	{ "max-idle", "max_idle_ns", LONG(max_idle_ns), TIME, 0 },
	{ "max-fill", "max_fill_ns", LONG(max_fill_ns), TIME, 0 },
	{ "min-occurrences", "min_occurrences", LONG(min_occurrences), NUMBER, 0 },
	{ "window", "window_bytes", LONG(window_bytes), BYTES, 0 },
	{ "compress", "compression", LONG(compression), CHOICE, TOOL_COMPRESS },
	{ "level", "level", LONG(level), CHOICE, TOOL_LEVEL },
	{ "durability", "durability", LONG(durability), CHOICE, TOOL_DURABILITY },
	{ "verify", "verify", LONG(verify), CHOICE, TOOL_VERIFY },
};

const char *settings_option(int index)
{
	return settings[index].option;
}

static int parse_number(const char *text, uint64_t *ret_value)
{
	char *end;

	if (strcmp(text, "unlimited") == 0) {
		*ret_value = SCACHE_UNLIMITED;
		return 0;
	}
	if (text[0] < '0' || text[0] > '9')
		return -EINVAL;
	errno = 0;
	*ret_value = strtoull(text, &end, 10);
	if (errno || *end || *ret_value >= SCACHE_ZERO)
		return -EINVAL;
	if (*ret_value == 0)
		*ret_value = SCACHE_ZERO;
	return 0;
}

int settings_take(const struct command *command, int index, const char *text,
		  struct scache_options *options)
{
	const struct setting *setting = &settings[index];
	uint64_t value = 0;
	int rc;

	if (setting->kind == BYTES) {
		rc = tool_size(command, text, &value);
	} else if (setting->kind == TIME) {
		rc = tool_time(command, text, &value);
	} else {
		rc = parse_number(text, &value);
		if (rc)
			rc = tool_usage(command, "--%s is a number, not '%s'", setting->option, text);
	}
	if (!rc)
		memcpy((char *)options + setting->offset, &value, sizeof(value));
	return rc;
}

static uint64_t value_of(const struct scache_options *options, const struct setting *setting)
{
	const char *at = (const char *)options + setting->offset;
	uint32_t low;
	uint64_t value;

	if (setting->kind == CHOICE) {
		memcpy(&low, at, sizeof(low));
		return low;
	}
	memcpy(&value, at, sizeof(value));
	return value;
}

static const char *show(const struct setting *setting, uint64_t value, char ret_text[TEXT_SHORT])
{
	if (setting->kind == CHOICE)
		return choice_text(setting->choice, (uint32_t)value);
	if (value == SCACHE_UNLIMITED)
		return "unlimited";
	if (value == SCACHE_ZERO)
		value = 0;
	if (setting->kind == BYTES)
		return text_bytes(value, ret_text);
	if (setting->kind == TIME)
		return text_ns(value, ret_text);
	snprintf(ret_text, TEXT_SHORT, "%" PRIu64, value);
	return ret_text;
}

void settings_print(const struct scache_options *options)
{
	char text[TEXT_SHORT];

	for (int i = 0; i < TOOL_SETTINGS; i++)
		printf("  %-18s %16s\n", settings[i].option,
		       show(&settings[i], value_of(options, &settings[i]), text));
}

void settings_json(const struct scache_options *options, struct json_object *object)
{
	for (int i = 0; i < TOOL_SETTINGS; i++) {
		const struct setting *setting = &settings[i];
		uint64_t value = value_of(options, setting);

		json_object_object_add(object, setting->json,
				       setting->choice == TOOL_LEVEL && setting->kind == CHOICE ?
					       json_object_new_uint64(value) :
				       setting->kind == CHOICE ?
					       json_object_new_string(choice_text(
						       setting->choice, (uint32_t)value)) :
					       text_json_limit(value));
	}
}

int settings_error(const char *detail)
{
	for (int i = 0; i < TOOL_SETTINGS; i++) {
		size_t bytes = strlen(settings[i].json);

		if (!strncmp(detail, settings[i].json, bytes) && detail[bytes] == ' ') {
			tool_error("--%s%s", settings[i].option, detail + bytes);
			return 1;
		}
	}
	return 0;
}
