/* SPDX-License-Identifier: MIT */
/*
 * key - what makes two runs of a command the same run.
 *
 * The default key of exec is a BLAKE2b-256 hash over what a command's output
 * usually depends on; streamcache(1) says what it does not cover. Changing
 * anything here makes every stored run a miss: raise the number in EXEC_FORMAT
 * then.
 */
#include "key.h"
#include "tool.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define EXEC_FORMAT "streamcache exec 1"
#define EXEC_PREFIX "exec:"

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

int key_copy_input(int fd, int spool_fd, const char *where)
{
	char *buffer = malloc(TOOL_BUFFER_BYTES);
	int rc = buffer ? 0 : -ENOMEM;
	ssize_t n;

	while (!rc && (n = tool_read(fd, buffer, TOOL_BUFFER_BYTES)) != 0)
		rc = n < 0 ? (int)n : tool_write(spool_fd, buffer, (size_t)n);
	free(buffer);
	if (rc)
		tool_error("copying standard input to a file in %s: %s", where, strerror(-rc));
	return rc;
}

int key_spool(int fd, int *ret_fd)
{
	const char *dir = getenv("TMPDIR");
	int spool_fd, rc;

	if (!dir || !*dir)
		dir = "/tmp";
	spool_fd = open_nameless(dir);
	if (spool_fd < 0) {
		rc = -errno;
		tool_error("no temporary file in %s: %s", dir, strerror(-rc));
		return rc;
	}
	rc = key_copy_input(fd, spool_fd, dir);
	if (rc)
		close(spool_fd);
	else
		*ret_fd = spool_fd;
	return rc;
}

/* ------------------------------------------------------------------- hash */

int key_begin(crypto_generichash_state *state, const char *format)
{
	if (sodium_init() < 0) {
		tool_error("no BLAKE2b: sodium_init() failed");
		return -EIO;
	}
	crypto_generichash_init(state, NULL, 0, KEY_HASH_BYTES);
	key_put_text(state, KEY_FORMAT, format);
	return 0;
}

void key_put(crypto_generichash_state *state, enum key_field field, const void *data, size_t bytes)
{
	unsigned char head[9] = { (unsigned char)field };
	int i;

	for (i = 0; i < 8; i++)
		head[1 + i] = (unsigned char)((uint64_t)bytes >> (8 * i));
	crypto_generichash_update(state, head, sizeof(head));
	crypto_generichash_update(state, data, bytes);
}

void key_put_text(crypto_generichash_state *state, enum key_field field, const char *text)
{
	key_put(state, field, text, strlen(text));
}

void key_put_number(crypto_generichash_state *state, enum key_field field, int64_t number)
{
	char text[24];

	snprintf(text, sizeof(text), "%lld", (long long)number);
	key_put_text(state, field, text);
}

int key_put_contents(crypto_generichash_state *state, enum key_field field, int fd)
{
	crypto_generichash_state contents;
	unsigned char hash[KEY_HASH_BYTES];
	char *buffer = malloc(TOOL_BUFFER_BYTES);
	ssize_t n;

	if (!buffer)
		return -ENOMEM;
	crypto_generichash_init(&contents, NULL, 0, sizeof(hash));
	while ((n = tool_read(fd, buffer, TOOL_BUFFER_BYTES)) > 0)
		crypto_generichash_update(&contents, (unsigned char *)buffer, (size_t)n);
	crypto_generichash_final(&contents, hash, sizeof(hash));
	free(buffer);
	key_put(state, field, hash, sizeof(hash));
	return (int)n;
}

int key_put_executable(crypto_generichash_state *state, const char *path)
{
	char *real = realpath(path, NULL);
	struct stat st;

	if (!real || stat(real, &st)) {
		int rc = -errno;

		tool_error("'%s': %s", path, strerror(-rc));
		free(real);
		return rc;
	}
	key_put_text(state, KEY_PATH, real);
	key_put_number(state, KEY_SIZE, st.st_size);
	key_put_number(state, KEY_MTIME, st.st_mtim.tv_sec);
	key_put_number(state, KEY_MTIME, st.st_mtim.tv_nsec);
	free(real);
	return 0;
}

int key_put_input(crypto_generichash_state *state, int spool_fd)
{
	int rc = lseek(spool_fd, 0, SEEK_SET) < 0 ? -errno
						  : key_put_contents(state, KEY_STDIN, spool_fd);

	if (rc)
		tool_error("reading back standard input: %s", strerror(-rc));
	return rc;
}

void key_finish(crypto_generichash_state *state, const char *prefix, struct tool_key *ret_key)
{
	unsigned char hash[KEY_HASH_BYTES];
	char text[TEXT_KEY];

	crypto_generichash_final(state, hash, sizeof(hash));
	snprintf(text, sizeof(text), "%s", prefix);
	text_hex(hash, sizeof(hash), text + strlen(text));
	ret_key->bytes = strlen(text);
	memcpy(ret_key->data, text, ret_key->bytes);
}

/* ------------------------------------------------------ exec's default key */

static int put_file(crypto_generichash_state *state, const char *path)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC), rc;

	if (fd < 0) {
		rc = -errno;
	} else {
		rc = key_put_contents(state, KEY_FILE, fd);
		close(fd);
	}
	if (rc)
		tool_error("--key-file=%s: %s", path, strerror(-rc));
	return rc;
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
	key_put_text(state, KEY_DIRECTORY, directory);
	key_put_number(state, KEY_UID, geteuid());
	key_put_number(state, KEY_UMASK, mask);
	free(directory);
	return 0;
}

static void put_variable(crypto_generichash_state *state, const char *name)
{
	const char *value = getenv(name);

	key_put_text(state, KEY_VARIABLE, name);
	if (value)
		key_put_text(state, KEY_VALUE, value);
	else
		key_put(state, KEY_UNSET, "", 0);
}

int key_default(const struct key_sources *sources, struct tool_key *ret_key)
{
	crypto_generichash_state state;
	int i, rc = key_begin(&state, EXEC_FORMAT);

	if (rc)
		return rc;
	for (i = 0; sources->argv[i]; i++)
		key_put_text(&state, KEY_ARGUMENT, sources->argv[i]);
	rc = put_process(&state);
	if (!rc)
		rc = key_put_executable(&state, sources->path);
	for (i = 0; i < sources->names_count; i++)
		put_variable(&state, sources->names[i]);
	for (i = 0; !rc && i < sources->files_count; i++)
		rc = put_file(&state, sources->files[i]);
	if (!rc && sources->spool_fd >= 0)
		rc = key_put_input(&state, sources->spool_fd);
	if (rc)
		return rc;
	key_finish(&state, EXEC_PREFIX, ret_key);
	return 0;
}
