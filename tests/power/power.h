/* SPDX-License-Identifier: MIT */
/*
 * power - what is left of a cache after a power cut?
 *
 * record.c	each change that the library makes below a directory, from all
 *		processes into one log, in order (ld --wrap, as tests/explore)
 * work.c	processes that produce, remove, refresh, sweep and come back to life
 * disk.c	the log up to a cut, as a disk may have it: what was not synced is
 *		lost, kept or torn, each piece for itself
 * judge.c	what a new cache makes of that, and what it has promised
 *
 * What is promised. Nothing wrong is ever served: each blob is, byte for byte, one
 * that somebody has begun to produce for that key. DATA: what scache_finish() has
 * returned for is right if its name is there. FULL: it is there. What was removed or
 * replaced may rise again, as long as nothing was to take its place: removals are
 * not synced.
 */
#ifndef POWER_H
#define POWER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "streamcache.h"

#define KEYS 24u
#define NAME_BYTES 100
#define BLOB_BYTES_MAX_HERE (768u << 10)

/* ------------------------------------------------------------------- the log */

enum kind {
	MADE,    /* @node, a file, or a directory if @other is "d", is @name in @parent */
	WRITTEN, /* @bytes at @offset: @data */
	CUT,     /* to @offset bytes */
	MODE,    /* @offset */
	SYNCED,  /* @node, a file or a directory */
	REMOVED, /* @name in @parent */
	RENAMED, /* @node, from @name to @other in @parent */
	/* What the worker knows of @key and @gen. */
	BEGINS,   /* is about to ask for the right to produce it; @offset: by REPLACES */
	IS_NOT,   /* it was not elected */
	FINISHED, /* scache_finish() has returned */
	REMOVES,  /* is about to remove what there is of the key */
	HAS_REMOVED,
	REPLACES, /* is about to refresh it, to @gen */
	HAS_REPLACED,
};

struct record {
	uint32_t kind, node, parent, key, gen, index;
	uint64_t offset, bytes;
	char name[NAME_BYTES], other[NAME_BYTES];
	unsigned char data[];
};

/* log_make - an empty one, for all processes to come; changes below @root count. */
void log_make(const char *root, bool ignores_sync);
void log_free(void);
void log_switch(bool is_on);

/* log_note - one of the last kinds; BEGINS: in order to replace? */
void log_note(enum kind kind, uint32_t key, uint32_t gen, bool replaces);

/* log_next - the record behind @record; the first one, if that is NULL; NULL at the end. */
const struct record *log_next(const struct record *record);
uint32_t log_count(void);

/* log_gen - a number that no blob has had yet. */
uint32_t log_gen(void);

/* The key and the generation that files made from here on are of. */
extern uint32_t record_key, record_gen;

/* ------------------------------------------------------------------ the blobs */

/* random_below - of a series that belongs to this process; starts with random_seed(). */
void random_seed(uint64_t seed);
uint64_t random_below(uint64_t n);

uint64_t blob_length(uint32_t key, uint32_t gen);
void blob_content(uint32_t key, uint32_t gen, unsigned char *ret_data);

/* key_name - some of them lie in one directory. */
const char *key_name(uint32_t key);

/* work_once - a few processes for a while, until all have ended. */
void work_once(const struct scache_options *options, const char *dir, unsigned ops);

/* -------------------------------------------------------------------- the disk */

enum model {
	JOURNAL, /* names and modes in order, and each fsync commits all before it (ext4) */
	STRICT,  /* each for itself, and only fsync of the directory keeps a name (POSIX) */
	MODELS,
};

struct disk;

struct disk *disk_make(enum model model);
void disk_free(struct disk *disk);

/* disk_apply - one more record has reached the kernel. */
void disk_apply(struct disk *disk, const struct record *record);

/* disk_cut - the power goes now: what is left, into the empty directory @path. */
void disk_cut(struct disk *disk, const char *path);

/* disk_has - did that have a file of @key and @gen, whatever was in it? */
bool disk_has(const struct disk *disk, uint32_t key, uint32_t gen);

/* ------------------------------------------------------------------- the judge */

struct tally {
	uint64_t cuts, served, refused, missing, risen, required, wrong, lost, other;
};

struct judge;

struct judge *judge_make(void);
void judge_free(struct judge *judge);
void judge_apply(struct judge *judge, const struct record *record);

/*
 * judge_look - open the cache @dir, whose segments are made in @options->segment_dir, and
 * ask for each key. Prints what is wrong and counts it.
 */
void judge_look(struct judge *judge, const struct disk *disk, const char *dir,
		const struct scache_options *options, struct tally *tally);

/* fail - the test itself is broken. */
void fail(const char *format, ...) __attribute__((noreturn, format(printf, 1, 2)));

#endif
