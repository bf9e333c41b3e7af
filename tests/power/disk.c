/* SPDX-License-Identifier: MIT */
/*
 * disk - what may be on it after a power cut.
 *
 * Of each file the bytes that an fsync has made sure of, and the changes since. After
 * a cut each sector may be as after any number of those that touched it, a sector for
 * itself, and so may size and mode; what was never written there reads as zeros, or
 * as what another file had there before. Of each directory the names that are
 * sure, and the changes since: see enum model for which of them may be lost. A rename
 * is done or not, never half.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "power.h"

#define NODES 4096u
#define NAMES 128u /* in one directory, at a time */
#define MODES 8u

struct name {
	char text[NAME_BYTES];
	uint32_t node;
};

struct changes {
	const struct record **at;
	uint32_t count, room;
};

struct node {
	bool is_made, is_directory;
	uint32_t key, gen;
	/* A file: */
	unsigned char *sure;
	uint64_t sure_bytes;
	mode_t sure_mode, modes[MODES]; /* and later ones */
	uint32_t mode_count;
	struct changes changes; /* of bytes; or, of a directory, of names */
	/* A directory: */
	struct name *names;
	uint32_t name_count;
};

struct disk {
	enum model model;
	struct node nodes[NODES];
	struct changes journal; /* names and modes, in order; JOURNAL only */
	bool was_there[NODES];  /* at the last cut */
	/* How this cut is: in percent. */
	unsigned keeps, sector;
	bool has_garbage, has_directories;
};

static void *own(void *memory)
{
	if (memory == NULL)
		fail("no memory");
	return memory;
}

static void note(struct changes *changes, const struct record *record)
{
	if (changes->count == changes->room) {
		changes->room = changes->room * 2 + 16;
		changes->at = own(realloc(changes->at, changes->room * sizeof(*changes->at)));
	}
	changes->at[changes->count++] = record;
}

struct disk *disk_make(enum model model)
{
	struct disk *disk = own(calloc(1, sizeof(*disk)));

	disk->model = model;
	disk->nodes[0].is_made = disk->nodes[0].is_directory = true;
	disk->nodes[0].names = own(calloc(NAMES, sizeof(struct name)));
	return disk;
}

void disk_free(struct disk *disk)
{
	for (uint32_t i = 0; i < NODES; i++) {
		free(disk->nodes[i].sure);
		free(disk->nodes[i].names);
		free(disk->nodes[i].changes.at);
	}
	free(disk->journal.at);
	free(disk);
}

/* ---------------------------------------------------------------------- names */

static void drop_name(struct name *names, uint32_t *count, const char *text)
{
	for (uint32_t i = 0; i < *count; i++)
		if (strcmp(names[i].text, text) == 0) {
			names[i] = names[--*count];
			return;
		}
}

static void put_name(struct name *names, uint32_t *count, const char *text, uint32_t node)
{
	drop_name(names, count, text);
	if (*count == NAMES)
		fail("too many names in a directory");
	snprintf(names[*count].text, NAME_BYTES, "%s", text);
	names[(*count)++].node = node;
}

/* The node that a rename is about stands in the record: its name may have been lost. */
static void change_name(struct name *names, uint32_t *count, const struct record *record)
{
	if (record->kind == MADE)
		put_name(names, count, record->name, record->node);
	else
		drop_name(names, count, record->name);
	if (record->kind == RENAMED)
		put_name(names, count, record->other, record->node);
}

static void change_metadata(struct disk *disk, const struct record *record)
{
	struct node *node = &disk->nodes[record->kind == MODE ? record->node : record->parent];

	if (record->kind == MODE)
		node->sure_mode = (mode_t)record->offset;
	else
		change_name(node->names, &node->name_count, record);
}

/* ---------------------------------------------------------------------- bytes */

/* The first @limits[sector] of the changes, in each sector of the @bytes at @data. */
static void replay(const struct changes *changes, const uint32_t *limits, unsigned sector,
		   unsigned char *data, uint64_t bytes)
{
	for (uint32_t i = 0; i < changes->count; i++) {
		const struct record *r = changes->at[i];
		uint64_t end = r->kind == CUT ? bytes : r->offset + r->bytes, part;

		for (uint64_t at = r->offset; at < end && at < bytes; at += part) {
			part = sector - at % sector;
			if (part > end - at)
				part = end - at;
			if (part > bytes - at)
				part = bytes - at;
			if (i >= limits[at / sector])
				continue;
			if (r->kind == CUT)
				memset(data + at, 0, part);
			else
				memcpy(data + at, r->data + (at - r->offset), part);
		}
	}
}

static uint64_t size_after(const struct node *node, uint32_t count)
{
	uint64_t bytes = node->sure_bytes;

	for (uint32_t i = 0; i < count; i++) {
		const struct record *r = node->changes.at[i];

		if (r->kind == CUT || r->offset + r->bytes > bytes)
			bytes = r->kind == CUT ? r->offset : r->offset + r->bytes;
	}
	return bytes;
}

static void sync_file(struct node *node)
{
	uint64_t bytes = size_after(node, node->changes.count), whole = bytes / 512 + 1;
	unsigned char *data = own(calloc(1, bytes + 1));
	uint32_t *limits = own(malloc(whole * sizeof(*limits)));

	for (uint64_t i = 0; i < whole; i++)
		limits[i] = UINT32_MAX;
	memcpy(data, node->sure, bytes < node->sure_bytes ? bytes : node->sure_bytes);
	replay(&node->changes, limits, 512, data, bytes);
	free(limits);
	free(node->sure);
	node->sure = data;
	node->sure_bytes = bytes;
	node->changes.count = 0;
	if (node->mode_count > 0)
		node->sure_mode = node->modes[node->mode_count - 1];
	node->mode_count = 0;
}

/* ---------------------------------------------------------------------- records */

static void commit_journal(struct disk *disk)
{
	for (uint32_t i = 0; i < disk->journal.count; i++)
		change_metadata(disk, disk->journal.at[i]);
	disk->journal.count = 0;
}

static void sync_node(struct disk *disk, struct node *node)
{
	if (disk->model == JOURNAL)
		commit_journal(disk);
	if (!node->is_directory) {
		sync_file(node);
		return;
	}
	for (uint32_t i = 0; i < node->changes.count; i++)
		change_name(node->names, &node->name_count, node->changes.at[i]);
	node->changes.count = 0;
}

static bool is_directory(const struct record *record)
{
	return record->kind == MADE && record->other[0] != '\0';
}

static void make_node(struct disk *disk, const struct record *record)
{
	struct node *node = &disk->nodes[record->node % NODES];

	if (record->node >= NODES)
		fail("too many files");
	node->is_made = true;
	node->is_directory = is_directory(record);
	node->key = record->key;
	node->gen = record->gen;
	node->sure_mode = 0600;
	node->sure = own(calloc(1, 1));
	node->names = node->is_directory ? own(calloc(NAMES, sizeof(struct name))) : NULL;
}

void disk_apply(struct disk *disk, const struct record *record)
{
	struct node *node = &disk->nodes[record->node % NODES];

	if (record->kind == MADE)
		make_node(disk, record);
	if (record->kind == WRITTEN || record->kind == CUT)
		note(&node->changes, record);
	else if (record->kind == SYNCED)
		sync_node(disk, node);
	else if (record->kind > RENAMED)
		return;
	else if (disk->model == JOURNAL)
		note(&disk->journal, record);
	else if (record->kind != MODE)
		note(&disk->nodes[record->parent].changes, record);
	else if (node->mode_count < MODES)
		node->modes[node->mode_count++] = (mode_t)record->offset;
	else
		node->modes[MODES - 1] = (mode_t)record->offset;
}

/* ------------------------------------------------------------------------- cuts */

static bool is_kept(const struct disk *disk)
{
	return random_below(100) < disk->keeps;
}

/* How many of @count changes have come through. */
static uint32_t some_of(const struct disk *disk, uint32_t count)
{
	if (random_below(3) > 0)
		return is_kept(disk) ? count : 0;
	return (uint32_t)random_below(count + 1);
}

static void fill_garbage(unsigned char *data, uint64_t bytes)
{
	for (uint64_t at = 0; at + 8 <= bytes; at += 8) {
		uint64_t word = random_below(UINT64_MAX);

		memcpy(data + at, &word, 8);
	}
}

static void put_file(const struct disk *disk, const struct node *node, int at, const char *name)
{
	/* Now and then one was written back while others were not. */
	bool is_whole = random_below(4) == 0;
	uint32_t count = node->changes.count;
	uint64_t bytes = size_after(node, is_whole ? count : some_of(disk, count));
	uint64_t sectors = bytes / disk->sector + 1;
	unsigned char *data = own(calloc(1, bytes + 1));
	uint32_t *limits = own(malloc(sectors * sizeof(*limits)));
	mode_t mode = node->sure_mode;
	uint32_t modes = some_of(disk, node->mode_count);
	int fd = openat(at, name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);

	if (disk->has_garbage)
		fill_garbage(data, bytes);
	memcpy(data, node->sure, bytes < node->sure_bytes ? bytes : node->sure_bytes);
	for (uint64_t i = 0; i < sectors; i++)
		limits[i] = is_whole ? count : some_of(disk, count);
	replay(&node->changes, limits, disk->sector, data, bytes);
	if (modes > 0)
		mode = node->modes[modes - 1];
	if (fd < 0 || write(fd, data, bytes) != (ssize_t)bytes || fchmod(fd, mode & 0777) < 0)
		fail("cannot rebuild %s: %s", name, strerror(errno));
	close(fd);
	free(data);
	free(limits);
}

/* The names of @node, a copy to be freed: the sure ones, and which of the others have come through. */
static struct name *names_of(const struct disk *disk, const struct node *node, uint32_t *ret_count)
{
	struct name *names = own(calloc(NAMES, sizeof(*names)));
	uint32_t in_order = UINT32_MAX;

	memcpy(names, node->names, node->name_count * sizeof(*names));
	*ret_count = node->name_count;
	if (random_below(2))
		in_order = (uint32_t)random_below(node->changes.count + 1);
	for (uint32_t i = 0; i < node->changes.count; i++)
		if ((in_order != UINT32_MAX ? i < in_order : is_kept(disk)) ||
		    (disk->has_directories && is_directory(node->changes.at[i])))
			change_name(names, ret_count, node->changes.at[i]);
	return names;
}

/* A directory and what is in it; a tree of three levels, so this is no recursion. */
static void put_names(struct disk *disk, const struct node *node, int at,
		      void (*below)(struct disk *, const struct node *, int))
{
	uint32_t count;
	struct name *names = names_of(disk, node, &count);

	for (uint32_t i = 0; i < count; i++) {
		const struct node *child = &disk->nodes[names[i].node];
		int fd;

		disk->was_there[names[i].node] = true;
		if (!child->is_directory) {
			put_file(disk, child, at, names[i].text);
			continue;
		}
		if (below == NULL || mkdirat(at, names[i].text, 0700) < 0)
			fail("cannot make %s", names[i].text);
		fd = openat(at, names[i].text, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
		if (fd < 0)
			fail("cannot open %s", names[i].text);
		below(disk, child, fd);
		close(fd);
	}
	free(names);
}

static void put_leaves(struct disk *disk, const struct node *node, int at)
{
	put_names(disk, node, at, NULL);
}

static void put_fan_outs(struct disk *disk, const struct node *node, int at)
{
	put_names(disk, node, at, put_leaves);
}

static void put_cache(struct disk *disk, const struct node *node, int at)
{
	put_names(disk, node, at, put_fan_outs);
}

/* Of the journal the first @count, by way of what is sure; and back again. */
static void put_with_journal(struct disk *disk, int at)
{
	uint32_t count = some_of(disk, disk->journal.count);
	struct node *before = own(malloc(sizeof(disk->nodes)));

	memcpy(before, disk->nodes, sizeof(disk->nodes));
	for (uint32_t i = 0; i < NODES && disk->nodes[i].is_made; i++)
		if (disk->nodes[i].is_directory) {
			disk->nodes[i].names = own(calloc(NAMES, sizeof(struct name)));
			memcpy(disk->nodes[i].names, before[i].names,
			       before[i].name_count * sizeof(struct name));
		}
	for (uint32_t i = 0; i < count; i++)
		change_metadata(disk, disk->journal.at[i]);
	put_names(disk, &disk->nodes[0], at, put_cache);
	for (uint32_t i = 0; i < NODES && disk->nodes[i].is_made; i++)
		if (disk->nodes[i].is_directory)
			free(disk->nodes[i].names);
	memcpy(disk->nodes, before, sizeof(disk->nodes));
	free(before);
}

void disk_cut(struct disk *disk, const char *path)
{
	static const unsigned shares[] = { 0, 5, 50, 90, 99, 100 };
	int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	if (fd < 0)
		fail("cannot open %s", path);
	disk->keeps = shares[random_below(6)];
	disk->sector = random_below(2) ? 512 : 4096;
	disk->has_garbage = random_below(4) == 0;
	/* Without them nothing is left to be looked at. */
	disk->has_directories = random_below(2);
	memset(disk->was_there, 0, sizeof(disk->was_there));
	if (disk->model == JOURNAL)
		put_with_journal(disk, fd);
	else
		put_names(disk, &disk->nodes[0], fd, put_cache);
	close(fd);
}

bool disk_has(const struct disk *disk, uint32_t key, uint32_t gen)
{
	for (uint32_t i = 0; i < NODES && disk->nodes[i].is_made; i++)
		if (disk->was_there[i] && !disk->nodes[i].is_directory &&
		    disk->nodes[i].key == key && disk->nodes[i].gen == gen)
			return true;
	return false;
}
