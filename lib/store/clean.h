/* SPDX-License-Identifier: MIT */
/*
 * clean - a full sweep: all entries, and every file in the cache directory.
 *
 * What a slice of sweep.c does when somebody comes by anyhow, this does at once, and
 * what no slice does as well: files are looked at one by one. Any number of processes
 * may be at it: each thing goes by a CAS or an unlink that one of them wins.
 */
#ifndef STORE_CLEAN_H
#define STORE_CLEAN_H

#include "store/blob.h"
#include "streamcache.h"

/* clean_all - everything scache_sweep() promises. 0 or -errno. */
int clean_all(struct store *store, const struct scache_sweep_options *options,
	      struct scache_sweep_report *report);

/* clean_files - call @file for each file below DIR/blobs, parsed or (NULL) not ours. */
int clean_files(const struct store *store,
		void (*file)(void *arg, const char *path, const struct blob_id *id, uint64_t bytes),
		void *arg);

#endif
