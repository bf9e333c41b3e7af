/* SPDX-License-Identifier: MIT */
/*
 * blob - the data file behind an entry: DIR/blobs/<xx>/<name>.
 *
 *   name  <128-bit key hash>.<segment uuid>.<index>.<generation>
 *   xx    the first two digits of the hash: 256 directories, made when needed
 *
 * With BLOB_GONE behind it: disowned by who may not change its mode.
 *
 * The payload starts at offset 0. From the name alone a sweep can tell whether
 * a file is anybody's; a name is never used twice. Files that grow are 0600,
 * finished ones 0400 (0660 and 0440 in a cache shared by a group).
 */
#ifndef STORE_BLOB_H
#define STORE_BLOB_H

#include <sys/types.h>

#include "store/store.h"

#define BLOB_PATH_BYTES 112 /* "xx/" and a name, with its NUL and BLOB_GONE */
#define BLOB_HASH_DIGITS 32
#define BLOB_GONE ".gone"

/* blob_path - below DIR/blobs. */
void blob_path(const struct store *store, struct entry_name name, struct key_hash hash,
	       char ret_path[BLOB_PATH_BYTES]);

/* What a file name says. */
struct blob_id {
	char uuid[UUID_TEXT_BYTES];
	struct entry_name name;
};

/* blob_parse - false if @file_name is not one of ours. */
bool blob_parse(const char *file_name, struct blob_id *ret_id);

/* blob_create - a new, empty file for an entry of ours. Descriptor or -errno. */
int blob_create(const struct store *store, struct entry_name name, struct key_hash hash);

/* blob_reopen - to go on with one that a dead producer left. Descriptor, -ENOENT, -errno. */
int blob_reopen(const struct store *store, struct entry_name name, struct key_hash hash);

/* blob_open - for reading. Descriptor, -ENOENT, -errno. */
int blob_open(const struct store *store, struct entry_name name, struct key_hash hash);

/*
 * blob_write - all of @bytes at @offset, whatever signals say; SIGXFSZ does
 * not reach the caller. Returns 0 or -errno (some bytes may then be written).
 */
int blob_write(int fd, const void *data, size_t bytes, uint64_t offset);

/* blob_write_two - the same for two pieces in a row, by one system call if it takes both. */
int blob_write_two(int fd, const void *first, size_t first_bytes, const void *second,
		   size_t second_bytes, uint64_t offset);

/*
 * blob_seal - no more writing: drop the w bits, have the disk take it as durably as
 * SETTING_DURABILITY says, and close. 0 or -errno; closed anyway. A file of another member
 * of the group, which we have taken over, keeps its w bits and does not outlive the
 * segment: -EPERM if it is to survive a power cut.
 */
int blob_seal(const struct store *store, int fd, struct key_hash hash);

/* blob_end - the same for one that is not to outlive its readers: it keeps its w bits. */
int blob_end(int fd);

/*
 * blob_disown - nobody wants it any more, but somebody reads it yet: so that it does not
 * come back with the next segment if all of us die now. A file with a w bit is none
 * that was finished; nor is one whose name ends in BLOB_GONE, which blob_open() and
 * blob_remove() find as well.
 */
void blob_disown(const struct store *store, struct entry_name name, struct key_hash hash);

/* blob_disown_path - the same for a file below DIR/blobs. 0 or -errno. */
int blob_disown_path(const struct store *store, const char *path);

/* blob_path_is_gone - was it disowned by its name? */
bool blob_path_is_gone(const char *path);

/* blob_read - up to @bytes at @offset. Count, 0 at the end of the file, -errno. */
ssize_t blob_read(int fd, void *ret_data, size_t bytes, uint64_t offset);

/* blob_read_whole - all of @bytes. 0; -EBADMSG: the file is shorter than it should be; -errno. */
int blob_read_whole(int fd, void *ret_data, size_t bytes, uint64_t offset);

/*
 * blob_remove - give the space back, then the name. Truncating first returns
 * the space although some process may keep an idle descriptor open.
 */
void blob_remove(const struct store *store, struct entry_name name, struct key_hash hash);

/* blob_unlink - its name alone: somebody may still have a view of its bytes. */
void blob_unlink(const struct store *store, struct entry_name name, struct key_hash hash);

/* blob_remove_path - the same for a file found below DIR/blobs. 0 or -errno. */
int blob_remove_path(const struct store *store, const char *path);

#endif
