/* SPDX-License-Identifier: MIT */
/*
 * git_args - which calls of git pack-objects can be shared at all.
 *
 * Only what git upload-pack is known to ask for: an option that is not in the
 * list may make the pack depend on something that is not in the key. Known to
 * do so, and therefore left out:
 *
 *  --uri-protocol    names places from a configuration that may be anywhere
 *  --missing=        leaves out what the server happens not to have just now
 *  --filter=sparse:  takes the name of an object, which may be a branch's
 *  --stdin-packs     takes the names of packs, which a repack removes
 */
#include "git.h"
#include "tool.h"

#include <errno.h>
#include <string.h>

static const char *const counting[] = {
	"--revs", "--thin", "--stdout", "--shallow", "--delta-base-offset", "--include-tag", NULL,
};

static const char *const telling[] = {
	"--progress", "--no-progress", "--all-progress", "--all-progress-implied", "--quiet", "-q",
	NULL,
};

static int is_one_of(const char *const *list, const char *text)
{
	int i;

	for (i = 0; list[i]; i++)
		if (!strcmp(list[i], text))
			return 1;
	return 0;
}

int git_argument_counts(const char *argument)
{
	return !is_one_of(telling, argument);
}

/* ---------------------------------------------------------------- filters */

/* What follows @prefix is of @set, and something. */
static int is_kind(const char *spec, size_t bytes, const char *prefix, const char *set)
{
	size_t n = strlen(prefix), i;

	if (bytes <= n || strncmp(spec, prefix, n))
		return 0;
	for (i = n; i < bytes; i++)
		if (!strchr(set, spec[i]))
			return 0;
	return 1;
}

static int is_simple_filter(const char *spec, size_t bytes)
{
	if (bytes == strlen("blob:none") && !strncmp(spec, "blob:none", bytes))
		return 1;
	return is_kind(spec, bytes, "blob:limit=", "0123456789kmgKMG") ||
	       is_kind(spec, bytes, "tree:", "0123456789") ||
	       is_kind(spec, bytes, "object:type=", "blobtreecommittag");
}

/* In combine:A+B each part has its odd characters as %XX, which no simple one has. */
static int is_known_filter(const char *spec)
{
	static const char combine[] = "combine:";
	const char *end;

	if (strncmp(spec, combine, strlen(combine)))
		return is_simple_filter(spec, strlen(spec));
	for (spec += strlen(combine);; spec = end + 1) {
		end = strchrnul(spec, '+');
		if (!is_simple_filter(spec, (size_t)(end - spec)))
			return 0;
		if (!*end)
			return 1;
	}
}

/* -------------------------------------------------------------- arguments */

static int refuse(const char *argument)
{
	tool_error("not shared: '%.200s'", argument);
	return -EINVAL;
}

static int is_git(const char *name)
{
	const char *slash = strrchr(name, '/');

	return !strcmp(slash ? slash + 1 : name, "git");
}

/* Between git and pack-objects. The empty file means: shallow as the input says. */
static char **skip_git_options(char **argv)
{
	if (argv[0] && argv[1] && !strcmp(argv[0], "--shallow-file") && !*argv[1])
		return argv + 2;
	return argv;
}

int git_check_arguments(struct git_request *request)
{
	static const char filter[] = "--filter=";
	int revs = 0, to_stdout = 0;
	char **argv;

	if (!is_git(request->argv[0]))
		return refuse(request->argv[0]);
	argv = skip_git_options(request->argv + 1);
	if (!*argv || strcmp(*argv, "pack-objects"))
		return refuse(*argv ? *argv : "git");
	while (*++argv) {
		if (!strncmp(*argv, filter, strlen(filter))) {
			if (!is_known_filter(*argv + strlen(filter)))
				return refuse(*argv);
		} else if (!is_one_of(counting, *argv) && !is_one_of(telling, *argv)) {
			return refuse(*argv);
		}
		revs |= !strcmp(*argv, "--revs");
		to_stdout |= !strcmp(*argv, "--stdout");
		request->include_tag |= !strcmp(*argv, "--include-tag");
	}
	return revs && to_stdout ? 0 : refuse("pack-objects without --revs --stdout");
}
