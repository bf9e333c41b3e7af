/* SPDX-License-Identifier: MIT */
/*
 * guard - an open blob whose bytes nobody sees before they have been compared with
 * the checksums in its footer: block by block, each once, when it is first wanted.
 * So the first byte of a large blob does not wait for the last one to be checked.
 */
#ifndef STORE_GUARD_H
#define STORE_GUARD_H

#include <stddef.h>
#include <stdint.h>

#include "base/compiler.h"
#include "base/hash.h"

struct guard;

/*
 * guard_open - of @fd, a raw blob of @bytes bytes in a file of @file_bytes, of the key
 * with this @hash. 0; -EBADMSG: the footer is damaged, or says otherwise; -ENOMEM, -errno.
 */
int guard_open(int fd, uint64_t bytes, uint64_t file_bytes, struct key_hash hash,
	       struct guard **ret_guard);
void guard_free(struct guard *guard);

/*
 * guard_check - all blocks that @bytes bytes at @offset lie in. Any thread, at any time.
 * 0, -EBADMSG, -ENOMEM, -errno.
 */
int guard_check(struct guard *guard, int fd, uint64_t offset, size_t bytes);

/* guard_is_done - has every block been compared? */
bool guard_is_done(const struct guard *guard);

#endif
