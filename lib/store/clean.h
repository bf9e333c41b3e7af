/* SPDX-License-Identifier: MIT */
/*
 * clean - a full sweep: all entries, and every file in the cache directory.
 *
 * What a slice of sweep.c does when somebody comes by anyhow, this does at once, and
 * what no slice does as well: files are looked at one by one, and segments of caches that
 * have vanished. Any number of processes may be at it: each thing goes by a CAS, a
 * rename or an unlink, which one of them wins.
 */
#ifndef STORE_CLEAN_H
#define STORE_CLEAN_H

#include "store/blob.h"
#include "streamcache.h"

/* clean_all - everything scache_sweep() promises. 0, -errno, or as its progress() ends it. */
int clean_all(struct store *store, const struct scache_sweep_options *options,
	      struct scache_sweep_report *report);

/* A file in the cache directory. */
struct clean_file {
	const char *path; /* below DIR */
	const char *blob; /* if it is one, below DIR/blobs; else NULL: it is not ours */
	struct blob_id id;
	uint64_t bytes; /* on the disk */
	uint32_t fans; /* directories of blobs that have been looked at */
};

/*
 * clean_files - call @file for each that stands in DIR, DIR/ctl or DIR/blobs and is not the cache's
 * own furniture, until it returns other than 0, which is returned. Else 0 or -errno.
 */
int clean_files(const struct store *store, int (*file)(void *arg, const struct clean_file *file),
		void *arg);

#endif
