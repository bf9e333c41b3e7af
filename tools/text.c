/* SPDX-License-Identifier: MIT */
/*
 * text - sizes, durations and keys as people write and see them.
 *
 * A key is any bytes; it may come from a stranger and go to a terminal. What is
 * shown is therefore valid UTF-8 without control characters, everything else
 * as in a C string: \n, \033, \377. In JSON control characters have an escape
 * of their own, and key_hex beside the key is exact whatever it holds.
 */
#include "tool.h"

#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <json-c/json.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct unit {
	const char *name;
	uint64_t factor;
};

static const struct unit size_units[] = {
	{ "", 1 },
	{ "K", 1ull << 10 },
	{ "M", 1ull << 20 },
	{ "G", 1ull << 30 },
	{ "KiB", 1ull << 10 },
	{ "MiB", 1ull << 20 },
	{ "GiB", 1ull << 30 },
	{ NULL, 0 },
};

static const struct unit time_units[] = {
	{ "", NS_PER_S },
	{ "ns", 1 },
	{ "ms", NS_PER_MS },
	{ "s", NS_PER_S },
	{ "m", 60 * NS_PER_S },
	{ "h", 3600 * NS_PER_S },
	{ "d", 86400 * NS_PER_S },
	{ NULL, 0 },
};

static int parse(const char *text, const struct unit *units, uint64_t *ret_value)
{
	const struct unit *unit;
	unsigned long long number;
	char *end;

	if (!strcmp(text, "unlimited")) {
		*ret_value = SCACHE_UNLIMITED;
		return 0;
	}
	if (!isdigit((unsigned char)text[0]))
		return -EINVAL; /* strtoull() would take blanks and signs */
	errno = 0;
	number = strtoull(text, &end, 10);
	if (errno)
		return -EINVAL;
	for (unit = units; unit->name && strcmp(unit->name, end); unit++)
		;
	/* the two largest values have meanings of their own */
	if (!unit->name || number >= SCACHE_ZERO / unit->factor)
		return -EINVAL;
	*ret_value = number ? number * unit->factor : SCACHE_ZERO;
	return 0;
}

int text_to_bytes(const char *text, uint64_t *ret_bytes)
{
	return parse(text, size_units, ret_bytes);
}

int text_to_ns(const char *text, uint64_t *ret_ns)
{
	return parse(text, time_units, ret_ns);
}

const char *text_bytes(uint64_t bytes, char ret_text[TEXT_SHORT])
{
	static const char *const names[] = { "B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB" };
	double value = (double)bytes;
	size_t i = 0;

	while (value >= 1023.95 && i + 1 < sizeof(names) / sizeof(names[0])) {
		value /= 1024;
		i++;
	}
	snprintf(ret_text, TEXT_SHORT, i ? "%.1f %s" : "%.0f %s", value, names[i]);
	return ret_text;
}

const char *text_ns(uint64_t ns, char ret_text[TEXT_SHORT])
{
	uint64_t s = ns / NS_PER_S;

	if (ns < NS_PER_S)
		snprintf(ret_text, TEXT_SHORT, "%" PRIu64 " ms", ns / (uint64_t)NS_PER_MS);
	else if (s < 120)
		snprintf(ret_text, TEXT_SHORT, "%" PRIu64 " s", s);
	else if (s < 7200)
		snprintf(ret_text, TEXT_SHORT, "%" PRIu64 " min", s / 60);
	else if (s < 2 * 86400)
		snprintf(ret_text, TEXT_SHORT, "%" PRIu64 " h", s / 3600);
	else
		snprintf(ret_text, TEXT_SHORT, "%" PRIu64 " d", s / 86400);
	return ret_text;
}

const char *text_percent(uint64_t part, uint64_t whole, char ret_text[TEXT_SHORT])
{
	double percent = whole ? (double)part * 100 / (double)whole : 100;

	snprintf(ret_text, TEXT_SHORT, "%u%%", (unsigned int)percent);
	return ret_text;
}

const char *text_hex(const void *data, size_t bytes, char *ret_text)
{
	static const char digits[] = "0123456789abcdef";
	const unsigned char *p = data;
	size_t i;

	for (i = 0; i < bytes; i++) {
		ret_text[2 * i] = digits[p[i] >> 4];
		ret_text[2 * i + 1] = digits[p[i] & 15];
	}
	ret_text[2 * bytes] = '\0';
	return ret_text;
}

static int hex_digit(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	c = (char)tolower((unsigned char)c);
	return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

int text_to_key(const char *hex, struct tool_key *ret_key)
{
	size_t n = strlen(hex) / 2, i;

	if (strlen(hex) % 2 || n < 1 || n > SCACHE_KEY_BYTES_MAX)
		return -EINVAL;
	for (i = 0; i < n; i++) {
		int high = hex_digit(hex[2 * i]), low = hex_digit(hex[2 * i + 1]);

		if (high < 0 || low < 0)
			return -EINVAL;
		ret_key->data[i] = (unsigned char)(high << 4 | low);
	}
	ret_key->bytes = n;
	return 0;
}

/* Bytes of the UTF-8 sequence at @p, 0 if it is none; its value as well. */
static size_t utf8(const unsigned char *p, size_t bytes, uint32_t *ret_value)
{
	static const uint32_t least[] = { 0, 0, 0x80, 0x800, 0x10000 };
	size_t n = p[0] < 0x80 ? 1 : p[0] >= 0xf0 ? 4 : p[0] >= 0xe0 ? 3 : 2, i;
	uint32_t value = n == 1 ? p[0] : p[0] & (0xffu >> (n + 1));

	if (n > bytes || (p[0] >= 0x80 && p[0] < 0xc2) || p[0] > 0xf4)
		return 0;
	for (i = 1; i < n; i++) {
		if ((p[i] & 0xc0) != 0x80)
			return 0;
		value = value << 6 | (p[i] & 0x3f);
	}
	if (value < least[n] || value > 0x10ffff || (value >= 0xd800 && value < 0xe000))
		return 0;
	*ret_value = value;
	return n;
}

static char *escape(char *out, unsigned char c)
{
	static const char plain[] = "\n\t\r\\", letter[] = "ntr\\";
	const char *at = c ? strchr(plain, c) : NULL;

	*out++ = '\\';
	if (at) {
		*out++ = letter[at - plain];
		return out;
	}
	*out++ = (char)('0' + (c >> 6));
	*out++ = (char)('0' + (c >> 3 & 7));
	*out++ = (char)('0' + (c & 7));
	return out;
}

size_t text_key(const void *key, size_t bytes, int keep_controls, char *ret_text)
{
	const unsigned char *p = key;
	char *out = ret_text;
	size_t i = 0;

	while (i < bytes) {
		uint32_t value = 0;
		size_t n = utf8(p + i, bytes - i, &value);
		int control = value < 0x20 || (value >= 0x7f && value < 0xa0);

		if (!n || (!keep_controls && (control || value == '\\'))) {
			size_t stop = i + (n ? n : 1);

			while (i < stop)
				out = escape(out, p[i++]);
			continue;
		}
		memcpy(out, p + i, n);
		out += n;
		i += n;
	}
	*out = '\0';
	return (size_t)(out - ret_text);
}

struct json_object *text_json(const void *data, size_t bytes)
{
	char *text = malloc(4 * bytes + 1);
	struct json_object *object = NULL;

	if (text)
		object = json_object_new_string_len(text, (int)text_key(data, bytes, 1, text));
	free(text);
	return object;
}

struct json_object *text_json_limit(uint64_t value)
{
	if (value == SCACHE_UNLIMITED)
		return NULL; /* printed as null: no limit */
	return json_object_new_uint64(value == SCACHE_ZERO ? 0 : value);
}

struct json_object *victim_json(const struct scache_victim *victim)
{
	struct json_object *object = json_object_new_object();

	json_object_object_add(object, "name", text_json(victim->name, victim->name_bytes));
	json_object_object_add(object, "why", json_object_new_string(victim->why));
	json_object_object_add(object, "removed", json_object_new_boolean(victim->removed));
	json_object_object_add(object, "bytes", json_object_new_uint64(victim->bytes));
	return object;
}

void victim_print_name(const struct scache_victim *victim)
{
	char *text = malloc(4 * (size_t)victim->name_bytes + 1);

	if (text)
		text_key(victim->name, victim->name_bytes, 0, text);
	puts(text ? text : "?");
	free(text);
}
