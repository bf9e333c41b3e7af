/* SPDX-License-Identifier: MIT */
/*
 * git - what git-pack-objects knows of git. Whatever here does not return 0
 * has left in tool_silenced() why, and the answer to it is plain git.
 */
#ifndef GIT_H
#define GIT_H

struct tool_key;

struct git_request {
	char **argv;      /* git [--shallow-file FILE] pack-objects OPTION... */
	const char *path; /* git's, as resolved by key_find_command() */
	int spool_fd;     /* its standard input */
	int include_tag;  /* what it packs depends on the repository's tags */
};

/* ------------------------------------------------------------- git_args.c */

/* 0 if the pack follows from the arguments, the input and the repository. */
int git_check_arguments(struct git_request *request);
/* Does it change what git packs, or only what it tells meanwhile? */
int git_argument_counts(const char *argument);

/* -------------------------------------------------------------- git_key.c */

/* The repository's directory, without symbolic links; free(*ret_repository). */
int git_repository(char **ret_repository);
int git_key(const struct git_request *request, const char *repository, struct tool_key *ret_key);

#endif
