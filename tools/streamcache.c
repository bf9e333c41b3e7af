/* SPDX-License-Identifier: MIT */
/*
 * streamcache - the command line: share the output of commands and other large
 * blobs between processes while they are produced. See streamcache(1).
 */
#include "tool.h"

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static const struct command *const commands[] = {
	&cmd_exec, &cmd_get,   &cmd_put,    &cmd_ls,	  &cmd_stat, &cmd_check,
	&cmd_rm,   &cmd_sweep, &cmd_verify, &cmd_config,  &cmd_destroy, &cmd_git, NULL,
};

static void print_help(void)
{
	int i;

	fputs("Usage: streamcache [OPTION]... COMMAND [ARGUMENT]...\n"
	      "Share large blobs between processes while they are produced.\n\n",
	      stdout);
	for (i = 0; commands[i]; i++)
		printf("  %-16s %s\n", commands[i]->name, commands[i]->summary);
	fputs("\n"
	      "  --cache=DIR        the cache's directory; else $STREAMCACHE_DIR, else\n"
	      "                     $XDG_CACHE_HOME/streamcache, else ~/.cache/streamcache\n"
	      "  --segment-dir=DIR  where the shared segment is made; else\n"
	      "                     $STREAMCACHE_SEGMENT_DIR, else a place in memory\n"
	      "  --group            share the cache with the directory's group (mode 0770);\n"
	      "                     each of its users says so\n"
	      "  --help             this text; streamcache COMMAND --help says more\n"
	      "  --version          the version\n"
	      "\n"
	      "Exit status: 0 done, 1 the answer is no (no such key, violations or damage\n"
	      "found, production failed), 2 wrong usage, 124 the producer was lost in mid-stream,\n"
	      "125 the cache or standard output cannot be used. exec and git-pack-objects\n"
	      "have that of what they run.\n",
	      stdout);
}

static int usage(void)
{
	fputs("Try 'streamcache --help'.\n", stderr);
	return TOOL_USAGE;
}

/*
 * A descriptor that is closed would be the number of the next file opened, and
 * what is meant for standard output would end in it.
 */
static void open_standard_fds(struct tool *tool)
{
	int fd;

	for (fd = 0; fd <= STDERR_FILENO; fd++) {
		if (fcntl(fd, F_GETFD) >= 0)
			continue;
		tool->closed[fd] = 1;
		if (open("/dev/null", O_RDWR) != fd)
			_exit(TOOL_UNUSABLE); /* nothing can be said, either */
	}
}

static int dispatch(struct tool *tool, int argc, char **argv)
{
	char title[64];
	int i;

	if (argc < 1) {
		tool_error("a command is missing");
		return usage();
	}
	for (i = 0; commands[i] && strcmp(commands[i]->name, argv[0]); i++)
		;
	if (!commands[i]) {
		tool_error("unknown command '%s'", argv[0]);
		return usage();
	}
	/* getopt_long() starts its messages with this */
	snprintf(title, sizeof(title), "streamcache %s", commands[i]->name);
	argv[0] = title;
	optind = 0; /* start over */
	return commands[i]->run(tool, argc, argv);
}

int main(int argc, char **argv)
{
	static const struct option options[] = {
		TOOL_OPTIONS,
		{ "version", no_argument, NULL, 'V' },
		TOOL_OPTION_END,
	};
	static char name[] = "streamcache";
	struct tool tool = { .status = TOOL_OK };
	int c;

	open_standard_fds(&tool);
	signal(SIGCHLD, SIG_DFL); /* an ignored one would swallow CMD's exit status */
	if (argc < 1)
		return usage();
	argv[0] = name;
	while ((c = getopt_long(argc, argv, "+", options, NULL)) != -1) {
		switch (c) {
		case TOOL_OPT_CACHE:
			tool.cache_dir = optarg;
			break;
		case TOOL_OPT_SEGMENT_DIR:
			tool.segment_dir = optarg;
			break;
		case TOOL_OPT_GROUP:
			tool.group = 1;
			break;
		case TOOL_OPT_HELP:
			print_help();
			return tool_flush(&tool, TOOL_OK);
		case 'V':
			printf("streamcache %s\n", scache_version());
			return tool_flush(&tool, TOOL_OK);
		default:
			return usage();
		}
	}
	return dispatch(&tool, argc - optind, argv + optind);
}
