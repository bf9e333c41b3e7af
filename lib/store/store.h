/* SPDX-License-Identifier: MIT */
/*
 * store - what this process needs to reach the blobs of a cache.
 */
#ifndef STORE_STORE_H
#define STORE_STORE_H

#include "index/cursor.h"

struct cds_lfht;

struct store {
	struct peer *peer;
	struct segment *segment;
	struct cursor_space *cursors;
	int dir_fd;	/* the cache directory */
	int blobs_fd;	/* DIR/blobs */
	mode_t dir_mode; /* of directories we make */
	mode_t file_mode; /* of files while they grow; sealed ones lose the w bits */
	char uuid[UUID_TEXT_BYTES];
	/* store/table.c */
	struct cds_lfht *table;
	_Atomic uint32_t table_count;
	uint32_t table_room;
	pthread_mutex_t table_mutex; /* of `condemned` */
	struct open_blob *condemned;
	uint32_t condemned_count;
};

#endif
