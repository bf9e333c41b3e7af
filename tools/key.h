/* SPDX-License-Identifier: MIT */
/*
 * key - the hashing that exec's default key and git-pack-objects' key share.
 *
 * BLAKE2b-256. Each field goes in as a tag, its length and its bytes, so that
 * no two lists of fields run together to the same bytes. Contents of unknown
 * length go in as a hash of their own. What can fail prints why.
 */
#ifndef KEY_H
#define KEY_H

#include <sodium.h>
#include <stddef.h>
#include <stdint.h>

struct tool_key;

#define KEY_HASH_BYTES 32

enum key_field {
	KEY_FORMAT = 'f',
	KEY_ARGUMENT = 'a',
	KEY_DIRECTORY = 'd',
	KEY_UID = 'u',
	KEY_UMASK = 'm',
	KEY_PATH = 'p',
	KEY_SIZE = 's',
	KEY_MTIME = 't',
	KEY_VARIABLE = 'v',
	KEY_VALUE = '=',
	KEY_UNSET = '-',
	KEY_FILE = 'c',
	KEY_STDIN = 'i',
	KEY_STATUS = 'o', /* of a file: which one it is, and when it was changed */
	KEY_REF = 'r',
};

/* @format: whose key it is, and the number of this list of fields. 0 or -errno. */
int key_begin(crypto_generichash_state *state, const char *format);
void key_put(crypto_generichash_state *state, enum key_field field, const void *data, size_t bytes);
void key_put_text(crypto_generichash_state *state, enum key_field field, const char *text);
void key_put_number(crypto_generichash_state *state, enum key_field field, int64_t number);
/* From @fd's offset to its end. 0 or -errno, without a message. */
int key_put_contents(crypto_generichash_state *state, enum key_field field, int fd);
/* Which program, and in which version of it as far as a stat() can tell. */
int key_put_executable(crypto_generichash_state *state, const char *path);
int key_put_input(crypto_generichash_state *state, int spool_fd);
/* @prefix, then the hash in hexadecimal. */
void key_finish(crypto_generichash_state *state, const char *prefix, struct tool_key *ret_key);

#endif
