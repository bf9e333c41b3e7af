/* SPDX-License-Identifier: MIT */
/*
 * table - the blobs this process has open, so that a repeated hit opens no file.
 *
 * A cds_lfht of liburcu under urcu-bp: look-ups take no lock. Items count
 * their users; an item without users stays, up to a bound, and holds nothing
 * but a descriptor: no cursor, so the entry may end its life meanwhile. Then
 * the item's name matches nothing any more, and the sweep has truncated the
 * file, so its space is back although we hold a descriptor.
 *
 * liburcu is used through its functions, never inlined (_LGPL_SOURCE stays
 * undefined), and no call_rcu(): its thread would not survive a fork.
 */
#ifndef STORE_TABLE_H
#define STORE_TABLE_H

#include "store/store.h"

struct open_blob;

int table_init(struct store *store);
void table_destroy(struct store *store);

/* table_forget - in a fork child: close the descriptors, leave the memory. */
void table_forget(struct store *store);

/*
 * table_get - the open blob of @name, opened if need be; counts a user.
 * Returns 0, -ENOENT (the file is gone), -errno.
 */
int table_get(struct store *store, struct entry_name name, struct key_hash hash,
	      struct open_blob **ret_blob);

/* table_put - one user less. */
void table_put(struct store *store, struct open_blob *blob);

/* table_drop - forget a damaged blob; its users keep it until they put it. */
void table_drop(struct store *store, struct open_blob *blob);

int table_fd(const struct open_blob *blob);

/* table_check_size - is the file @bytes long? Asks the kernel once a blob. */
bool table_check_size(struct open_blob *blob, uint64_t bytes);

#endif
