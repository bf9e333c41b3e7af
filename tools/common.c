/* SPDX-License-Identifier: MIT */
/*
 * common - options, messages, the cache directory, plain input and output.
 *
 * The directory is --cache=DIR, else $STREAMCACHE_DIR, else streamcache in the
 * user's cache directory as the XDG base directory specification has it. Only
 * for the last one missing parents are made: whoever names a directory has
 * most likely mistyped it.
 */
#include "tool.h"

#include <errno.h>
#include <json-c/json.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

uint64_t tool_now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * NS_PER_S + (uint64_t)now.tv_nsec;
}

/* --------------------------------------------------------------- messages */

static int silent;
static char unsaid[512];

void tool_silence(void)
{
	silent = 1;
}

const char *tool_silenced(void)
{
	return silent ? unsaid : NULL;
}

void tool_error(const char *format, ...)
{
	va_list args;

	if (silent) {
		va_start(args, format);
		vsnprintf(unsaid, sizeof(unsaid), format, args);
		va_end(args);
		return;
	}
	fputs("streamcache: ", stderr);
	va_start(args, format);
	vfprintf(stderr, format, args);
	va_end(args);
	fputc('\n', stderr);
}

static int usage_hint(const struct command *command)
{
	fprintf(stderr, "Try 'streamcache %s --help'.\n", command->name);
	return command->usage_status;
}

int tool_usage(const struct command *command, const char *format, ...)
{
	va_list args;

	fprintf(stderr, "streamcache %s: ", command->name);
	va_start(args, format);
	vfprintf(stderr, format, args);
	va_end(args);
	fputc('\n', stderr);
	return usage_hint(command);
}

void tool_no_key(const struct tool_key *key)
{
	char text[TEXT_KEY];

	/* escaped, as ls does: it may hold what a terminal obeys */
	text_key(key->data, key->bytes, 0, text);
	tool_error("no such key: '%s'", text);
}

void tool_help(const struct command *command)
{
	printf("Usage: streamcache %s %s\n%s.\n\n%s", command->name, command->arguments,
	       command->summary, command->help);
}

void tool_cache_error(const char *dir, int error, const char *consequence)
{
	const char *detail = scache_detail();

	const char *join = consequence ? "; " : "", *then = consequence ? consequence : "";

	if (*detail)
		tool_error("cache %s: %s (%s)%s%s", dir, detail, strerror(-error), join, then);
	else
		tool_error("cache %s: %s%s%s", dir, scache_strerror(error), join, then);
}

/* ---------------------------------------------------------------- options */

int tool_getopt(struct tool *tool, const struct command *command, int argc, char **argv,
		const struct option *options)
{
	const char *shorts = command->takes_command ? "+" : "";
	int c;

	while ((c = getopt_long(argc, argv, shorts, options, NULL)) != -1) {
		if (c >= TOOL_OPT_CHOICE && c < TOOL_OPT_STOP) {
			tool->status = choice_take(tool, command,
						   (enum tool_choice)(c - TOOL_OPT_CHOICE), optarg);
			if (tool->status)
				return TOOL_OPT_STOP;
			continue;
		}
		switch (c) {
		case TOOL_OPT_CACHE:
			tool->cache_dir = optarg;
			continue;
		case TOOL_OPT_SEGMENT_DIR:
			tool->segment_dir = optarg;
			continue;
		case TOOL_OPT_GROUP:
			tool->group = 1;
			continue;
		case TOOL_OPT_JSON:
			tool->json = 1;
			continue;
		case TOOL_OPT_HEX:
			tool->hex = 1;
			continue;
		case TOOL_OPT_HELP:
			tool_help(command);
			tool->status = tool_flush(tool, TOOL_OK);
			return TOOL_OPT_STOP;
		case '?':
			tool->status = usage_hint(command);
			return TOOL_OPT_STOP;
		default:
			return c;
		}
	}
	return -1;
}

int tool_key(const struct tool *tool, const struct command *command, const char *text,
	     struct tool_key *ret_key)
{
	size_t n = strlen(text);

	if (tool->hex) {
		if (!text_to_key(text, ret_key))
			return 0;
		tool_usage(command, "with --hex a KEY is 1 to %d bytes in hexadecimal: '%s'",
			   SCACHE_KEY_BYTES_MAX, text);
		return -EINVAL;
	}
	if (n < 1 || n > SCACHE_KEY_BYTES_MAX) {
		tool_usage(command, "a KEY has 1 to %d bytes, this one has %zu",
			   SCACHE_KEY_BYTES_MAX, n);
		return -EINVAL;
	}
	memcpy(ret_key->data, text, n);
	ret_key->bytes = n;
	return 0;
}

int tool_time(const struct command *command, const char *text, uint64_t *ret_ns)
{
	if (!text_to_ns(text, ret_ns))
		return 0;
	return tool_usage(command, "'%s' is no duration, as in 90s, 5m or 2h", text);
}

int tool_size(const struct command *command, const char *text, uint64_t *ret_bytes)
{
	if (!text_to_bytes(text, ret_bytes))
		return 0;
	return tool_usage(command, "'%s' is no size, as in 64K or 8M", text);
}

/* -------------------------------------------------------------- directory */

static void make_parents(char *path)
{
	char *slash;

	/* what fails here is reported by scache_open(), which needs it */
	for (slash = strchr(path + 1, '/'); slash; slash = strchr(slash + 1, '/')) {
		*slash = '\0';
		mkdir(path, 0700);
		*slash = '/';
	}
}

int tool_dir(const struct tool *tool, int create, char **ret_dir)
{
	const char *named = tool->cache_dir ? tool->cache_dir : getenv("STREAMCACHE_DIR");
	const char *xdg = getenv("XDG_CACHE_HOME"), *home = getenv("HOME");
	char *dir = NULL;
	int rc;

	if (tool->cache_dir || (named && *named)) {
		dir = strdup(named);
		rc = dir ? 0 : -1;
	} else if (xdg && xdg[0] == '/') {
		rc = asprintf(&dir, "%s/streamcache", xdg);
	} else if (home && home[0] == '/') {
		rc = asprintf(&dir, "%s/.cache/streamcache", home);
	} else {
		return -ENOENT;
	}
	if (rc < 0)
		return -ENOMEM;
	if (create && !tool->cache_dir && !(named && *named))
		make_parents(dir);
	*ret_dir = dir;
	return 0;
}

int tool_open(const struct tool *tool, uint32_t flags, const char *consequence,
	      struct scache **ret_cache)
{
	struct scache_options options = { .size = sizeof(options) };
	const char *segment_dir = getenv("STREAMCACHE_SEGMENT_DIR");
	char *dir;
	int rc = tool_dir(tool, !(flags & SCACHE_OPEN_EXISTING), &dir);

	if (rc) {
		tool_error(
			"no cache directory: use --cache=DIR, or set STREAMCACHE_DIR or HOME%s%s",
			consequence ? "; " : "", consequence ? consequence : "");
		return rc;
	}
	if (tool->wishes)
		options = *tool->wishes;
	options.flags = flags;
	if (tool->group)
		options.mode = 0770;
	if (tool->segment_dir)
		options.segment_dir = tool->segment_dir;
	else if (segment_dir && *segment_dir)
		options.segment_dir = segment_dir;
	rc = choice_settle(tool, consequence, &options);
	if (!rc) {
		rc = scache_open(dir, &options, ret_cache);
		if (rc && (!tool->wishes || !settings_error(scache_detail())))
			tool_cache_error(dir, rc, consequence);
	}
	free(dir);
	return rc;
}

/* ------------------------------------------------------- input and output */

/* A descriptor we were given may be non-blocking; that is its owner's choice. */
static int wait_for(int fd, short events)
{
	struct pollfd pollfd = { .fd = fd, .events = events };

	return poll(&pollfd, 1, -1) < 0 && errno != EINTR ? -errno : 0;
}

int tool_write(int fd, const void *data, size_t bytes)
{
	const char *p = data;

	while (bytes) {
		ssize_t n = write(fd, p, bytes);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 && errno == EAGAIN) {
			wait_for(fd, POLLOUT);
			continue;
		}
		if (n < 0)
			return -errno;
		p += n;
		bytes -= (size_t)n;
	}
	return 0;
}

ssize_t tool_read(int fd, void *ret_data, size_t bytes)
{
	for (;;) {
		ssize_t n = read(fd, ret_data, bytes);

		if (n >= 0)
			return n;
		if (errno == EAGAIN)
			wait_for(fd, POLLIN);
		else if (errno != EINTR)
			return -errno;
	}
}

/* Before work is done whose only fruit is what is printed. */
int tool_inspect(struct tool *tool, const struct command *command, int argc, char **argv,
		 int (*inspect)(struct tool *tool, struct scache *cache))
{
	static const struct option options[] = {
		TOOL_OPTION_JSON,
		TOOL_OPTIONS,
		TOOL_OPTION_END,
	};
	struct scache *cache;
	int status;

	if (tool_getopt(tool, command, argc, argv, options) != -1)
		return tool->status;
	if (optind < argc)
		return tool_usage(command, "what is '%s'?", argv[optind]);
	if (!tool_stdout_usable(tool) || tool_open(tool, SCACHE_OPEN_EXISTING, NULL, &cache))
		return TOOL_UNUSABLE;
	status = inspect(tool, cache);
	scache_close(cache);
	return status;
}

int tool_stdout_usable(const struct tool *tool)
{
	if (tool->closed[STDOUT_FILENO])
		tool_error("standard output: %s", strerror(EBADF));
	return !tool->closed[STDOUT_FILENO];
}

int tool_print_json(const struct tool *tool, struct json_object *object)
{
	int flags = JSON_C_TO_STRING_PRETTY | JSON_C_TO_STRING_SPACED |
		    JSON_C_TO_STRING_NOSLASHESCAPE;
	const char *text = json_object_to_json_string_ext(object, flags);
	int status = TOOL_UNUSABLE;

	if (text && puts(text) != EOF)
		status = tool_flush(tool, TOOL_OK);
	else
		tool_error("%s", strerror(text ? errno : ENOMEM));
	json_object_put(object);
	return status;
}

/* What was printed must have arrived before @status may be told. */
int tool_flush(const struct tool *tool, int status)
{
	if (!tool_stdout_usable(tool))
		return TOOL_UNUSABLE;
	if (fflush(stdout) == 0 && !ferror(stdout))
		return status;
	tool_error("standard output: %s", strerror(errno));
	return TOOL_UNUSABLE;
}
