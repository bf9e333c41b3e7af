/* SPDX-License-Identifier: MIT */
/*
 * ring - the pool of live windows.
 *
 * A ring belongs to an entry, not to a process: its owner word names the
 * entry. So the bytes that a killed writer published and had not yet written
 * to its file stay readable until the entry's last reader has gone, and a
 * ring whose entry has ended its life is free to whoever looks.
 *
 * A few are kept back for entries that have begun without one and lose their file.
 */
#ifndef INDEX_RING_H
#define INDEX_RING_H

#include "index/entry.h"

#define RING_NONE UINT32_MAX

/* ring_claim - a free ring for our entry @name, or RING_NONE. */
uint32_t ring_claim(struct peer *peer, struct entry_name name);

/* ring_claim_kept - the same, also of those that are kept back. */
uint32_t ring_claim_kept(struct peer *peer, struct entry_name name);

/* ring_release - free every ring that names @name. Idempotent. */
void ring_release(struct segment *segment, struct entry_name name);

uint32_t ring_count_in_use(const struct segment *segment);

#endif
