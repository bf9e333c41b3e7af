/* SPDX-License-Identifier: MIT */
/*
 * table - the blobs this process has open, so that a repeated hit opens no file,
 * and that of a small blob makes no system call at all.
 *
 * A cds_lfht of liburcu under urcu-bp: look-ups take no lock. Items count
 * their users; an item without users stays, up to bounds, and holds no cursor,
 * so its entry may end its life meanwhile. Then the item's name matches nothing
 * any more, and the sweep has truncated the file, so its space is back although
 * we hold a descriptor.
 *
 * A small finished blob is copied whole when it is first opened, and its file
 * closed: no stranger who truncates it can hurt us. A large one keeps its
 * descriptor, and its mapping once somebody has peeked at it.
 *
 * Bounded are the descriptors (and RLIMIT_NOFILE), the items and the bytes of
 * all copies; who goes is found by a clock (second chance), those first whose
 * entry has ended.
 *
 * liburcu is used through its functions, never inlined (_LGPL_SOURCE stays
 * undefined), and no call_rcu(): its thread would not survive a fork.
 */
#ifndef STORE_TABLE_H
#define STORE_TABLE_H

#include <pthread.h>

#include "index/entry.h"

#define TABLE_ITEMS_MAX 4096u
#define TABLE_FILES_MAX 256u
#define TABLE_COPY_BYTES_MAX (16u << 10)     /* of one blob */
#define TABLE_COPIES_BYTES_MAX (16u << 20)   /* of all */
#define TABLE_COPY_FILE_BYTES_MAX (TABLE_COPY_BYTES_MAX + (8u << 10)) /* with its footer */
#define TABLE_GROWING UINT64_MAX	     /* size of a blob that is not finished */

struct store;
struct open_blob;
struct cds_lfht;

struct table {
	struct cds_lfht *hash;
	pthread_mutex_t mutex; /* of all below */
	struct open_blob **places; /* [TABLE_ITEMS_MAX], for the hand; NULL = free */
	uint32_t places_used, hand;
	uint32_t items, files, files_room;
	uint64_t copies_bytes;
	struct open_blob *condemned;
	uint32_t condemned_count;
};

int table_init(struct table *table);
void table_destroy(struct table *table);

/* table_forget - in a fork child: close the descriptors, leave the memory. */
void table_forget(struct table *table);

/* What its entry says of a blob. */
struct blob_facts {
	uint64_t bytes;	     /* of the payload if it is finished, else TABLE_GROWING */
	uint64_t file_bytes; /* with the footer */
	bool is_guarded;     /* compared with its checksums before it is seen */
	bool is_packed;	     /* lz4 */
};

/*
 * table_get - the open blob of @name, opened if need be; counts a user.
 * Returns 0, -ENOENT (the file is gone), -EBADMSG (it is not of that size, or damaged),
 * -errno.
 */
int table_get(struct store *store, struct entry_name name, struct key_hash hash,
	      const struct blob_facts *facts, struct open_blob **ret_blob);

/* table_put - one user less. */
void table_put(struct store *store, struct open_blob *blob);

/* table_drop - forget a damaged blob; its users keep it until they put it. */
void table_drop(struct store *store, struct open_blob *blob);

#endif
