/* SPDX-License-Identifier: MIT */
/*
 * key - what makes two runs of a command the same run.
 *
 * The default key of exec is a BLAKE2b-256 hash over what a command's output
 * usually depends on; streamcache(1) says what it does not cover. Each field
 * goes in as a tag, its length and its bytes, so that no two lists of fields
 * run together to the same bytes. Contents of unknown length go in as a hash
 * of their own. Changing anything here makes every stored run a miss: raise
 * the number in KEY_FORMAT then.
 */
#include "tool.h"

#include <errno.h>
#include <fcntl.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define KEY_FORMAT "streamcache exec 1"
#define KEY_PREFIX "exec:"
#define HASH_BYTES 32

enum field {
	FIELD_FORMAT = 'f',
	FIELD_ARGUMENT = 'a',
	FIELD_DIRECTORY = 'd',
	FIELD_UID = 'u',
	FIELD_UMASK = 'm',
	FIELD_PATH = 'p',
	FIELD_SIZE = 's',
	FIELD_MTIME = 't',
	FIELD_VARIABLE = 'v',
	FIELD_VALUE = '=',
	FIELD_UNSET = '-',
	FIELD_FILE = 'c',
	FIELD_STDIN = 'i',
};

/* ---------------------------------------------------------------- command */

/* 0, or why @path cannot be executed. */
static int executable(const char *path)
{
	struct stat st;

	if (stat(path, &st))
		return -errno;
	if (!S_ISREG(st.st_mode) || faccessat(AT_FDCWD, path, X_OK, AT_EACCESS))
		return -EACCES;
	return 0;
}

/* As execvp() would find it: the first in $PATH that can be executed. */
static int search_path(const char *name, char **ret_path)
{
	const char *list = getenv("PATH"), *end;
	int rc = -ENOENT;

	if (!list)
		list = "/bin:/usr/bin";
	for (;; list = end + 1) {
		char *path = NULL;
		int n, one;

		end = strchrnul(list, ':');
		n = (int)(end - list);
		if (asprintf(&path, "%.*s/%s", n ? n : 1, n ? list : ".", name) < 0)
			return -ENOMEM;
		one = executable(path);
		if (!one) {
			*ret_path = path;
			return 0;
		}
		free(path);
		if (one == -EACCES)
			rc = one;
		if (!*end)
			return rc;
	}
}

int key_find_command(const char *name, char **ret_path)
{
	int rc;

	if (strchr(name, '/')) {
		rc = executable(name);
		if (!rc) {
			*ret_path = strdup(name);
			rc = *ret_path ? 0 : -ENOMEM;
		}
	} else {
		rc = *name ? search_path(name, ret_path) : -ENOENT;
	}
	if (!rc)
		return 0;
	tool_error("'%s': %s", name, strerror(-rc));
	return rc == -ENOENT || rc == -ENOTDIR ? TOOL_NOT_FOUND : TOOL_CANNOT_RUN;
}

/* ------------------------------------------------------------------ stdin */

static int open_nameless(const char *dir)
{
	int fd = open(dir, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
	char *path = NULL;

	if (fd >= 0 || (errno != EOPNOTSUPP && errno != EISDIR && errno != EINVAL))
		return fd;
	if (asprintf(&path, "%s/streamcache.XXXXXX", dir) < 0)
		return -1;
	fd = mkostemp(path, O_CLOEXEC);
	if (fd >= 0)
		unlink(path);
	free(path);
	return fd;
}

int key_spool(int fd, int *ret_fd)
{
	const char *dir = getenv("TMPDIR");
	char *buffer = malloc(TOOL_BUFFER_BYTES);
	int spool_fd, rc = 0;
	ssize_t n;

	if (!buffer)
		return -ENOMEM;
	if (!dir || !*dir)
		dir = "/tmp";
	spool_fd = open_nameless(dir);
	if (spool_fd < 0) {
		rc = -errno;
		tool_error("no temporary file in %s: %s", dir, strerror(-rc));
		free(buffer);
		return rc;
	}
	while (!rc && (n = tool_read(fd, buffer, TOOL_BUFFER_BYTES)) != 0)
		rc = n < 0 ? (int)n : tool_write(spool_fd, buffer, (size_t)n);
	free(buffer);
	if (rc) {
		tool_error("copying standard input to a file in %s: %s", dir, strerror(-rc));
		close(spool_fd);
		return rc;
	}
	*ret_fd = spool_fd;
	return 0;
}

/* -------------------------------------------------------------------- key */

static void put_field(crypto_generichash_state *state, enum field field, const void *data,
		      size_t bytes)
{
	unsigned char head[9] = { (unsigned char)field };
	int i;

	for (i = 0; i < 8; i++)
		head[1 + i] = (unsigned char)((uint64_t)bytes >> (8 * i));
	crypto_generichash_update(state, head, sizeof(head));
	crypto_generichash_update(state, data, bytes);
}

static void put_text(crypto_generichash_state *state, enum field field, const char *text)
{
	put_field(state, field, text, strlen(text));
}

static void put_number(crypto_generichash_state *state, enum field field, int64_t number)
{
	char text[24];

	snprintf(text, sizeof(text), "%lld", (long long)number);
	put_text(state, field, text);
}

static int put_contents(crypto_generichash_state *state, enum field field, int fd)
{
	crypto_generichash_state contents;
	unsigned char hash[HASH_BYTES];
	char *buffer = malloc(TOOL_BUFFER_BYTES);
	ssize_t n;

	if (!buffer)
		return -ENOMEM;
	crypto_generichash_init(&contents, NULL, 0, sizeof(hash));
	while ((n = tool_read(fd, buffer, TOOL_BUFFER_BYTES)) > 0)
		crypto_generichash_update(&contents, (unsigned char *)buffer, (size_t)n);
	crypto_generichash_final(&contents, hash, sizeof(hash));
	free(buffer);
	put_field(state, field, hash, sizeof(hash));
	return (int)n;
}

static int put_file(crypto_generichash_state *state, const char *path)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC), rc;

	if (fd < 0) {
		rc = -errno;
	} else {
		rc = put_contents(state, FIELD_FILE, fd);
		close(fd);
	}
	if (rc)
		tool_error("--key-file=%s: %s", path, strerror(-rc));
	return rc;
}

/* Which program, and in which version of it as far as a stat() can tell. */
static int put_executable(crypto_generichash_state *state, const char *path)
{
	char *real = realpath(path, NULL);
	struct stat st;

	if (!real || stat(real, &st)) {
		int rc = -errno;

		tool_error("'%s': %s", path, strerror(-rc));
		free(real);
		return rc;
	}
	put_text(state, FIELD_PATH, real);
	put_number(state, FIELD_SIZE, st.st_size);
	put_number(state, FIELD_MTIME, st.st_mtim.tv_sec);
	put_number(state, FIELD_MTIME, st.st_mtim.tv_nsec);
	free(real);
	return 0;
}

static int put_process(crypto_generichash_state *state)
{
	char *directory = getcwd(NULL, 0);
	mode_t mask = umask(0);

	umask(mask);
	if (!directory) {
		int rc = -errno;

		tool_error("the working directory: %s; --key=KEY does without", strerror(-rc));
		return rc;
	}
	put_text(state, FIELD_DIRECTORY, directory);
	put_number(state, FIELD_UID, geteuid());
	put_number(state, FIELD_UMASK, mask);
	free(directory);
	return 0;
}

static void put_variable(crypto_generichash_state *state, const char *name)
{
	const char *value = getenv(name);

	put_text(state, FIELD_VARIABLE, name);
	if (value)
		put_text(state, FIELD_VALUE, value);
	else
		put_field(state, FIELD_UNSET, "", 0);
}

int key_default(const struct key_sources *sources, struct tool_key *ret_key)
{
	unsigned char hash[HASH_BYTES];
	crypto_generichash_state state;
	char text[sizeof(KEY_PREFIX) + 2 * HASH_BYTES] = KEY_PREFIX;
	int i, rc;

	if (sodium_init() < 0)
		return -EIO;
	crypto_generichash_init(&state, NULL, 0, sizeof(hash));
	put_text(&state, FIELD_FORMAT, KEY_FORMAT);
	for (i = 0; sources->argv[i]; i++)
		put_text(&state, FIELD_ARGUMENT, sources->argv[i]);
	rc = put_process(&state);
	if (!rc)
		rc = put_executable(&state, sources->path);
	for (i = 0; i < sources->names_count; i++)
		put_variable(&state, sources->names[i]);
	for (i = 0; !rc && i < sources->files_count; i++)
		rc = put_file(&state, sources->files[i]);
	if (!rc && sources->spool_fd >= 0) {
		rc = lseek(sources->spool_fd, 0, SEEK_SET) < 0
			     ? -errno
			     : put_contents(&state, FIELD_STDIN, sources->spool_fd);
		if (rc)
			tool_error("reading back standard input: %s", strerror(-rc));
	}
	if (rc)
		return rc;
	crypto_generichash_final(&state, hash, sizeof(hash));
	text_hex(hash, sizeof(hash), text + strlen(KEY_PREFIX));
	ret_key->bytes = strlen(text);
	memcpy(ret_key->data, text, ret_key->bytes);
	return 0;
}
