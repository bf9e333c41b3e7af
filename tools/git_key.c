/* SPDX-License-Identifier: MIT */
/*
 * git_key - what makes two requests for a pack the same request.
 *
 * A pack is named by what it is asked for: the input has the ids of what is
 * wanted and of what is there already, and what an id stands for never changes.
 * So a pack can be as old as it likes and still be right; a push asks for
 * other ids, and a repack or gc changes how objects are stored, not which ones
 * a request means. What else a pack depends on goes into the key:
 *
 *  - the repository: its real path, the identity of its directories, and the
 *    files of it that change what a history or a request is;
 *  - its tags if --include-tag adds those of what is packed;
 *  - git's program file, its arguments, its environment, and the configuration.
 *
 * A file that the configuration includes is not followed. It can change how a
 * pack is compressed, not what is in it: the one setting that could otherwise
 * needs an option that git_args.c refuses.
 *
 * Nothing is run for it: this is done once a request.
 */
#include "git.h"
#include "key.h"
#include "tool.h"

#include <errno.h>
#include <fcntl.h>
#include <fts.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define GIT_FORMAT "streamcache git 1"
#define GIT_PREFIX "git:"
#define VARIABLES_MAX 256

/* ------------------------------------------------------------------ files */

static int is_absent(int error)
{
	return error == ENOENT || error == ENOTDIR;
}

static int complain(const char *path, int error)
{
	tool_error("%s: %s", path, strerror(error));
	return -error;
}

/* Which file @path is now, and as of when; that there is none is a fact, too. */
static int put_status(crypto_generichash_state *state, const char *path)
{
	struct statx st;
	int64_t facts[9];

	key_put_text(state, KEY_PATH, path);
	if (statx(AT_FDCWD, path, 0, STATX_BASIC_STATS | STATX_BTIME, &st)) {
		key_put(state, KEY_UNSET, "", 0);
		return is_absent(errno) ? 0 : complain(path, errno);
	}
	facts[0] = st.stx_dev_major;
	facts[1] = st.stx_dev_minor;
	facts[2] = (int64_t)st.stx_ino;
	/* the number of one that was removed may be given to the next */
	facts[3] = st.stx_mask & STATX_BTIME ? st.stx_btime.tv_sec : 0;
	facts[4] = st.stx_mask & STATX_BTIME ? st.stx_btime.tv_nsec : 0;
	facts[5] = S_ISDIR(st.stx_mode) ? 0 : (int64_t)st.stx_size;
	facts[6] = S_ISDIR(st.stx_mode) ? 0 : st.stx_mtime.tv_sec;
	facts[7] = S_ISDIR(st.stx_mode) ? 0 : st.stx_mtime.tv_nsec;
	facts[8] = S_ISDIR(st.stx_mode);
	key_put(state, KEY_STATUS, facts, sizeof(facts));
	return 0;
}

/* @dir/@name, or @name alone if @dir is NULL or @name is absolute. */
static char *join(const char *dir, const char *name)
{
	char *path;

	if (!dir || name[0] == '/')
		return strdup(name);
	return asprintf(&path, "%s/%s", dir, name) < 0 ? NULL : path;
}

/* The name is not hashed: two places with the same contents are as good. */
static int put_file(crypto_generichash_state *state, const char *dir, const char *name)
{
	char *path = join(dir, name);
	int fd, rc = 0;

	if (!path)
		return complain(name, ENOMEM);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd >= 0) {
		rc = key_put_contents(state, KEY_FILE, fd);
		close(fd);
		if (rc)
			complain(path, -rc);
	} else if (is_absent(errno) || errno == EACCES) {
		key_put(state, KEY_UNSET, "", 0); /* git goes without it, too */
	} else {
		rc = complain(path, errno);
	}
	free(path);
	return rc;
}

static int put_place(crypto_generichash_state *state, const char *dir, const char *name)
{
	char *path = join(dir, name), *real = path ? realpath(path, NULL) : NULL;
	int rc = real ? put_status(state, real) : complain(name, errno);

	free(real);
	free(path);
	return rc;
}

/* ------------------------------------------------------------- repository */

static const char *variable(const char *name)
{
	const char *value = getenv(name);

	return value && *value ? value : NULL;
}

int git_repository(char **ret_repository)
{
	const char *dir = variable("GIT_DIR");

	if (!dir) {
		tool_error("GIT_DIR is not set: this is not from git upload-pack");
		return -EINVAL;
	}
	*ret_repository = realpath(dir, NULL);
	return *ret_repository ? 0 : complain(dir, errno);
}

/* Of a linked work tree: the repository it belongs to. Otherwise @repository. */
static char *common_directory(const char *repository)
{
	const char *named = variable("GIT_COMMON_DIR");
	char line[4096], *path, *result;
	FILE *file;

	if (named)
		return strdup(named);
	path = join(repository, "commondir");
	file = path ? fopen(path, "re") : NULL;
	free(path);
	if (!file)
		return path ? strdup(repository) : NULL;
	result = fgets(line, sizeof(line), file);
	fclose(file);
	if (!result)
		return NULL;
	line[strcspn(line, "\n")] = '\0';
	return join(repository, line);
}

static int put_repository(crypto_generichash_state *state, const char *repository,
			  const char *common)
{
	static const char *const files[] = {
		"config",       "config.worktree",         "info/grafts",
		"info/shallow", "objects/info/alternates", NULL,
	};
	const char *objects = variable("GIT_OBJECT_DIRECTORY");
	const char *grafts = variable("GIT_GRAFT_FILE"), *shallow = variable("GIT_SHALLOW_FILE");
	int i, rc = put_status(state, repository);

	if (!rc)
		rc = put_place(state, NULL, common);
	if (!rc)
		rc = objects ? put_place(state, NULL, objects)
			     : put_place(state, common, "objects");
	for (i = 0; !rc && files[i]; i++)
		rc = put_file(state, common, files[i]);
	if (!rc)
		rc = put_file(state, common, shallow ? shallow : "shallow");
	if (!rc && objects)
		rc = put_file(state, objects, "info/alternates");
	if (!rc && grafts)
		rc = put_file(state, NULL, grafts);
	if (!rc && strcmp(repository, common))
		rc = put_file(state, repository, "config.worktree");
	return rc;
}

/* ------------------------------------------------------------------- tags */

static int by_name(const FTSENT **a, const FTSENT **b)
{
	return strcmp((*a)->fts_name, (*b)->fts_name);
}

/* Each change of a ref is a new file under the old name, and one of its directory. */
static int put_loose_ref(crypto_generichash_state *state, const FTSENT *entry)
{
	const struct stat *st = entry->fts_statp;
	int64_t facts[4] = { (int64_t)st->st_ino, st->st_size, st->st_ctim.tv_sec,
			     st->st_ctim.tv_nsec };

	switch (entry->fts_info) {
	case FTS_DP:
		return 0;
	case FTS_DNR:
	case FTS_ERR:
	case FTS_NS:
		return complain(entry->fts_path, entry->fts_errno);
	default:
		key_put_text(state, KEY_REF, entry->fts_path);
		key_put(state, KEY_STATUS, facts, sizeof(facts));
		return 0;
	}
}

static int put_loose_tags(crypto_generichash_state *state, const char *common)
{
	char *dir = join(common, "refs/tags");
	char *const dirs[] = { dir, NULL };
	FTS *fts = NULL;
	FTSENT *entry;
	int rc = 0;

	if (!dir)
		return complain(common, ENOMEM);
	if (!access(dir, F_OK)) {
		fts = fts_open(dirs, FTS_PHYSICAL | FTS_NOCHDIR | FTS_COMFOLLOW, by_name);
		rc = fts ? 0 : complain(dir, errno);
	}
	while (!rc && fts && (errno = 0, entry = fts_read(fts)))
		rc = put_loose_ref(state, entry);
	if (!rc && fts && errno)
		rc = complain(dir, errno);
	if (fts)
		fts_close(fts);
	free(dir);
	return rc;
}

static int put_tags(crypto_generichash_state *state, const char *common)
{
	char *packed = join(common, "packed-refs");
	int rc = packed ? put_status(state, packed) : complain(common, ENOMEM);

	free(packed);
	if (!rc)
		rc = put_file(state, common, "reftable/tables.list");
	if (!rc)
		rc = put_loose_tags(state, common);
	return rc;
}

/* ------------------------------------------------------------ environment */

/*
 * All that is git's, since the next git may have one more; but not what says
 * who asks and who listens. git http-backend makes a committer of each client.
 */
static int is_irrelevant(const char *entry)
{
	static const char *const beginnings[] = {
		"GIT_DIR=",
		"GIT_TRACE",
		"GIT_COMMITTER_",
		"GIT_AUTHOR_",
		"GIT_HTTP_",
		"GIT_PROJECT_ROOT=",
		"GIT_SSL_",
		"GIT_SSH",
		"GIT_ASKPASS=",
		"GIT_TERMINAL_PROMPT=",
		"GIT_USER_AGENT=",
		"GIT_EDITOR=",
		"GIT_SEQUENCE_",
		"GIT_PAGER=",
		"GIT_PROGRESS_",
		"GIT_FLUSH=",
		"GIT_CONFIG_SYSTEM=",
		"GIT_CONFIG_GLOBAL=",
		NULL,
	};
	int i;

	for (i = 0; beginnings[i]; i++)
		if (!strncmp(entry, beginnings[i], strlen(beginnings[i])))
			return 1;
	return 0;
}

static int compare(const void *a, const void *b)
{
	return strcmp(*(char *const *)a, *(char *const *)b);
}

static int put_environment(crypto_generichash_state *state)
{
	char *entries[VARIABLES_MAX], **entry;
	int count = 0, i;

	for (entry = environ; *entry; entry++) {
		if (strncmp(*entry, "GIT_", 4) || is_irrelevant(*entry))
			continue;
		if (count == VARIABLES_MAX) {
			tool_error("more than %d variables of git", VARIABLES_MAX);
			return -E2BIG;
		}
		entries[count++] = *entry;
	}
	qsort(entries, (size_t)count, sizeof(entries[0]), compare);
	for (i = 0; i < count; i++)
		key_put_text(state, KEY_VARIABLE, entries[i]);
	return 0;
}

/* One that is not there leaves no trace: services with other homes share packs. */
static int put_settings(crypto_generichash_state *state, const char *dir, const char *name)
{
	char *path = join(dir, name);
	int rc = 0;

	if (!path)
		rc = complain(name, ENOMEM);
	else if (!access(path, R_OK))
		rc = put_file(state, NULL, path);
	free(path);
	return rc;
}

/* Where a git of a distribution looks; a change takes effect at once, not after the age. */
static int put_configuration(crypto_generichash_state *state)
{
	const char *system = variable("GIT_CONFIG_SYSTEM"), *global = variable("GIT_CONFIG_GLOBAL");
	const char *home = variable("HOME"), *xdg = variable("XDG_CONFIG_HOME");
	int rc = put_settings(state, NULL, system ? system : "/etc/gitconfig");

	if (!rc && global)
		return put_settings(state, NULL, global);
	if (!rc && home)
		rc = put_settings(state, home, ".gitconfig");
	if (!rc && xdg)
		return put_settings(state, xdg, "git/config");
	if (!rc && home)
		rc = put_settings(state, home, ".config/git/config");
	return rc;
}

/* -------------------------------------------------------------------- key */

/* Behind the hash, for people: as much of the path's end as fits. */
static void add_label(struct tool_key *key, const char *repository)
{
	size_t n = strlen(repository), room = sizeof(key->data) - key->bytes - 1;

	key->data[key->bytes++] = ' ';
	if (n > room) {
		repository += n - room;
		n = room;
	}
	memcpy(key->data + key->bytes, repository, n);
	key->bytes += n;
}

int git_key(const struct git_request *request, const char *repository, struct tool_key *ret_key)
{
	char *common = common_directory(repository);
	crypto_generichash_state state;
	int rc, i;

	if (!common)
		return complain(repository, EINVAL);
	rc = key_begin(&state, GIT_FORMAT);
	for (i = 0; !rc && request->argv[i]; i++)
		if (git_argument_counts(request->argv[i]))
			key_put_text(&state, KEY_ARGUMENT, request->argv[i]);
	if (!rc)
		rc = key_put_executable(&state, request->path);
	if (!rc)
		rc = put_environment(&state);
	if (!rc)
		rc = put_configuration(&state);
	if (!rc)
		rc = put_repository(&state, repository, common);
	if (!rc && request->include_tag)
		rc = put_tags(&state, common);
	if (!rc)
		rc = key_put_input(&state, request->spool_fd);
	free(common);
	if (rc)
		return rc;
	key_finish(&state, GIT_PREFIX, ret_key);
	add_label(ret_key, repository);
	return 0;
}
