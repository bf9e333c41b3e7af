/* SPDX-License-Identifier: MIT */
/*
 * lz4 - what does it cost that a blob is compressed while it is produced, and what is it
 * worth?
 *
 *	lz4 [--rounds=N] [--mib=N] [--text=PATH] [--elf=PATH] [--json=FILE] [--only=TEXT]
 *	    [--smoke] [DIR]
 *
 * Live: one producer writes 64 KiB at a time, at a pace or as fast as it can; one reader, a
 * process of its own, takes what there is, until it has seen the end. At a pace it should
 * not notice; from a producer that has nothing else to do it gets less than of a raw one.
 * How much is compressed then depends on how far compression could follow, so that is
 * asked, too. Without a reader the producer waits for it.
 *
 * Stored: a file goes in as put does it, and comes out as get does it, against lz4(1)
 * with the same blocks and checksums on the same file; its own start is counted.
 *
 * The data are --mib (64) of each: "text" the files below --text (/usr/include) one after
 * the other, "ELF" programs below --elf (/usr/bin), "noise" what does not compress.
 */
#include <elf.h>
#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <fts.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "plain.h"

#define WRITE_BYTES (64u << 10)
#define KEY "lz4", 3

static size_t corpus_bytes = 64u << 20;
static const char *text_path = "/usr/include", *elf_path = "/usr/bin";
static bool has_command; /* lz4(1) */
static char packed_path[4200]; /* what that has made */

/* ---------------------------------------------------------------------------- the data */

static struct corpus {
	const char *name;
	char path[4200];	   /* the file, */
	const unsigned char *data; /* and a mapping of it */
} text = { .name = "text" }, elf = { .name = "ELF" }, noise = { .name = "noise" };

/* How much of the file at @path now stands at @data; only if it begins with @magic. */
static size_t take_file(const char *path, const char *magic, unsigned char *data, size_t room)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t n, done = 0;

	if (fd < 0)
		return 0;
	while ((n = read(fd, data + done, room - (size_t)done)) > 0)
		done += n;
	close(fd);
	if ((size_t)done < strlen(magic) || memcmp(data, magic, strlen(magic)) != 0)
		return 0;
	return (size_t)done;
}

static int by_name(const FTSENT **a, const FTSENT **b)
{
	return strcmp((*a)->fts_name, (*b)->fts_name);
}

/* Over and over if it is not enough: no two copies are within reach of each other. */
static void gather(const char *from, const char *magic, unsigned char *data)
{
	char *paths[] = { (char *)(uintptr_t)from, NULL };
	size_t done = 0, before;

	do {
		FTS *walk = fts_open(paths, FTS_PHYSICAL, by_name);
		FTSENT *at;

		before = done;
		expect(walk != NULL, from);
		while (done < corpus_bytes && (at = fts_read(walk)) != NULL)
			if (at->fts_info == FTS_F)
				done += take_file(at->fts_path, magic, data + done,
						  corpus_bytes - done);
		fts_close(walk);
	} while (done < corpus_bytes && done > before);
	if (done < corpus_bytes)
		errx(1, "%s: nothing there that could be compressed", from);
}

static void make_noise(uint64_t *words, size_t count)
{
	uint64_t state = 88172645463325252u;

	for (size_t i = 0; i < count; i++) {
		state ^= state << 13;
		state ^= state >> 7;
		state ^= state << 17;
		words[i] = state;
	}
}

static void make_corpus(struct corpus *corpus)
{
	unsigned char *data;
	int fd;

	snprintf(corpus->path, sizeof(corpus->path), "%s", in_dir(corpus->name));
	fd = open(corpus->path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	expect(fd >= 0 && ftruncate(fd, (off_t)corpus_bytes) == 0, corpus->path);
	data = mmap(NULL, corpus_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	expect(data != MAP_FAILED, "mmap");
	close(fd);
	if (corpus == &noise)
		make_noise((uint64_t *)(void *)data, corpus_bytes / sizeof(uint64_t));
	else if (corpus == &elf)
		gather(elf_path, ELFMAG, data);
	else
		gather(text_path, "", data);
	corpus->data = data;
}

/* --------------------------------------------------------------------------- live */

struct live {
	const struct corpus *corpus;
	uint32_t compression;
	unsigned mb_per_s; /* 0: as fast as it can */
	bool has_reader;
	bool is_stored; /* what is asked for: per cent in the file, not the rate */
};

static struct scache *cache;
static struct gate *made, *start;
static double *ended; /* when the reader had seen the end */

static struct scache_reader *look_up(struct scache *own)
{
	struct scache_reader *reader;

	sc(scache_lookup(own, KEY, NULL, &reader), "scache_lookup");
	return reader;
}

static size_t read_all(struct scache_reader *reader)
{
	size_t done = 0;
	ssize_t n;

	while ((n = scache_read(reader, plain_sink, BLOCK_BYTES, SCACHE_FOREVER)) > 0)
		done += (size_t)n;
	sc(n, "scache_read");
	return done;
}

static void read_live(const void *arg)
{
	struct scache *own = a_cache("cache", NULL);
	struct scache_reader *reader;

	(void)arg;
	gate_wait(made);
	reader = look_up(own);
	gate_wait(start);
	expect(read_all(reader) == corpus_bytes, "not all of the blob");
	*ended = seconds();
	scache_reader_close(reader);
	sc(scache_close(own), "scache_close");
}

static struct scache_writer *elected(const struct scache_acquire_options *wishes)
{
	struct scache_acquire_options options = *wishes;
	struct scache_writer *writer = NULL;

	options.size = sizeof(options);
	options.flags = SCACHE_RUN_TO_END;
	sc(scache_acquire(cache, KEY, &options, NULL, &writer), "scache_acquire");
	expect(writer != NULL, "the cache cannot help");
	return writer;
}

static void pause_until(double due)
{
	double left = due - seconds();
	struct timespec ts = { .tv_nsec = (long)(left * 1e9) };

	if (left > 0 && left < 1)
		nanosleep(&ts, NULL);
}

static void write_live(struct scache_writer *writer, const struct live *live, double began)
{
	for (size_t done = 0; done < corpus_bytes; done += WRITE_BYTES) {
		size_t written = 0;

		if (live->mb_per_s > 0)
			pause_until(began + (double)done / 1e6 / live->mb_per_s);
		while (written < WRITE_BYTES)
			written += (size_t)sc(scache_write(writer, live->corpus->data + done + written,
							   WRITE_BYTES - written, SCACHE_FOREVER),
					      "scache_write");
	}
	expect(sc(scache_finish(writer), "scache_finish") == 0, "scache_finish: not kept");
	scache_writer_close(writer);
}

/* Of what is stored now, and then no more. */
static double per_cent_stored(void)
{
	struct scache_entry_info info = { .size = sizeof(info) };
	struct scache_reader *reader = look_up(cache);

	sc(scache_reader_info(reader, &info), "scache_reader_info");
	scache_reader_close(reader);
	sc(scache_remove(cache, KEY), "scache_remove");
	return (double)info.file_bytes * 100 / (double)info.bytes;
}

static double run_live(const void *arg)
{
	const struct live *live = arg;
	struct scache_acquire_options wishes = { .compression = live->compression };
	struct scache_writer *writer;
	pid_t reader = 0;
	double began, stored;

	made = gate_new(2);
	start = gate_new(2);
	if (live->has_reader)
		reader = spawn(read_live, NULL);
	else
		wishes.window_bytes = SCACHE_UNLIMITED;
	writer = elected(&wishes);
	if (live->has_reader) {
		gate_wait(made);
		gate_wait(start);
	}
	began = seconds();
	write_live(writer, live, began);
	if (live->has_reader)
		reap(reader);
	else
		*ended = seconds();
	gate_free(made);
	gate_free(start);
	stored = per_cent_stored();
	return live->is_stored ? stored : (double)corpus_bytes / 1e6 / (*ended - began);
}

static void ask_live(unsigned mb_per_s, bool has_reader)
{
	const struct live lz4 = { &text, SCACHE_LZ4, mb_per_s, has_reader, false },
			  raw = { &text, SCACHE_RAW, mb_per_s, has_reader, false },
			  automatic = { &text, SCACHE_AUTO, mb_per_s, has_reader, false };
	char name[80], pace[40] = "as fast as it can";

	if (mb_per_s > 0)
		snprintf(pace, sizeof(pace), "%u MB/s", mb_per_s);
	snprintf(name, sizeof(name), "lz4: %s, text, %s", has_reader ? "live 1->1" : "no reader", pace);
	const struct question question = {
		name, "MB/s", false, "64 KiB writes",
		{ { "lz4", run_live, &lz4, 0 },
		  { "raw", run_live, &raw, has_reader && mb_per_s > 0 ? 0.95 : 0 },
		  { "automatic", run_live, &automatic, 0 } },
	};

	ask(&question);
}

static void ask_live_stored(void)
{
	static const struct live alone = { &text, SCACHE_LZ4, 0, false, true },
				 slow = { &text, SCACHE_LZ4, 200, true, true },
				 fast = { &text, SCACHE_LZ4, 500, true, true },
				 unpaced = { &text, SCACHE_LZ4, 0, true, true };
	static const struct question question = {
		"lz4: live, what is stored of text", "per cent", true, "64 KiB writes",
		{ { "no reader", run_live, &alone, 0 },
		  { "one reader, 200 MB/s", run_live, &slow, 0 },
		  { "one reader, 500 MB/s", run_live, &fast, 0 },
		  { "one reader, as fast as it can", run_live, &unpaced, 0 } },
	};

	ask(&question);
}

/* ------------------------------------------------------------------------- stored */

struct stored {
	const struct corpus *corpus;
	uint32_t compression, level;
	bool is_size; /* what is asked for: per cent of the plain bytes, not the rate */
};

/* As put does it. */
static double run_put(const void *arg)
{
	const struct stored *stored = arg;
	struct scache_acquire_options wishes = { .compression = stored->compression,
						 .level = stored->level,
						 .window_bytes = SCACHE_UNLIMITED };
	int fd = open(stored->corpus->path, O_RDONLY | O_CLOEXEC);
	double began = seconds(), took, size;
	struct scache_writer *writer = elected(&wishes);

	while (sc(scache_write_from_fd(writer, fd, SIZE_MAX, SCACHE_FOREVER), "from the file") > 0)
		;
	expect(sc(scache_finish(writer), "scache_finish") == 0, "scache_finish: not kept");
	took = seconds() - began;
	scache_writer_close(writer);
	close(fd);
	size = per_cent_stored();
	return stored->is_size ? size : (double)corpus_bytes / 1e6 / took;
}

/* lz4(1), its output to /dev/null or a file; what it took. */
static double call_command(const char *const *words)
{
	posix_spawn_file_actions_t actions;
	double began = seconds();
	pid_t child;

	posix_spawn_file_actions_init(&actions);
	posix_spawn_file_actions_addopen(&actions, STDOUT_FILENO, "/dev/null", O_WRONLY, 0);
	errno = posix_spawnp(&child, words[0], &actions, NULL, (char *const *)(uintptr_t)words,
			     environ);
	posix_spawn_file_actions_destroy(&actions);
	if (errno != 0)
		return -1;
	reap(child);
	return seconds() - began;
}

static double run_pack(const void *arg)
{
	const struct stored *stored = arg;
	char level[8];
	const char *words[] = { "lz4", "-q", "-f", level, "-B5", "-BX", stored->corpus->path,
				packed_path, NULL };
	struct stat st;
	double took;

	snprintf(level, sizeof(level), "-%u", stored->level);
	unlink(packed_path);
	took = call_command(words);
	expect(stat(packed_path, &st) == 0, "lz4");
	return stored->is_size ? (double)st.st_size * 100 / (double)corpus_bytes
			       : (double)corpus_bytes / 1e6 / took;
}

static double run_get(const void *arg)
{
	struct scache_reader *reader;
	double began = seconds();

	sc(scache_lookup(cache, arg, strlen(arg), NULL, &reader), "scache_lookup");
	expect(read_all(reader) == corpus_bytes, "not all of the blob");
	scache_reader_close(reader);
	return (double)corpus_bytes / 1e6 / (seconds() - began);
}

static double run_unpack(const void *arg)
{
	const char *words[] = { "lz4", "-q", "-dc", arg, NULL };

	return (double)corpus_bytes / 1e6 / call_command(words);
}

/* ---------------------------------------------------------------------- questions */

static void ask_put(const struct corpus *corpus, unsigned level)
{
	const struct stored lz4 = { corpus, SCACHE_LZ4, level, false },
			    raw = { corpus, SCACHE_RAW, level, false },
			    automatic = { corpus, SCACHE_AUTO, level, false },
			    lz4_size = { corpus, SCACHE_LZ4, level, true };
	char name[80], size_name[80], command[32];
	struct question put = { name, "MB/s", false, "a file, as put does it",
				{ { "lz4", run_put, &lz4, 0 },
				  { "raw", run_put, &raw, 0 },
				  { "automatic", run_put, &automatic, 0 },
				  { command, run_pack, &lz4, 1.0 } } },
			size = { size_name, "per cent", true, "of the plain bytes, all of the file",
				 { { "lz4", run_put, &lz4_size, 0 },
				   { command, run_pack, &lz4_size, 1.02 } } };

	snprintf(name, sizeof(name), "lz4: put of %s, level %u", corpus->name, level);
	snprintf(size_name, sizeof(size_name), "lz4: size of %s, level %u", corpus->name, level);
	snprintf(command, sizeof(command), "lz4 -%u -B5 -BX", level);
	if (!has_command)
		put.contestants[3].name = size.contestants[1].name = NULL;
	ask(&put);
	ask(&size);
}

static void store_as(const struct corpus *corpus, const char *key, uint32_t compression)
{
	struct scache_acquire_options options = { .size = sizeof(options),
						  .flags = SCACHE_RUN_TO_END,
						  .window_bytes = SCACHE_UNLIMITED,
						  .compression = compression };
	int fd = open(corpus->path, O_RDONLY | O_CLOEXEC);
	struct scache_writer *writer = NULL;

	sc(scache_acquire(cache, key, strlen(key), &options, NULL, &writer), "scache_acquire");
	expect(writer != NULL, "the cache cannot help");
	while (sc(scache_write_from_fd(writer, fd, SIZE_MAX, SCACHE_FOREVER), "from the file") > 0)
		;
	expect(sc(scache_finish(writer), "scache_finish") == 0, "scache_finish: not kept");
	scache_writer_close(writer);
	close(fd);
}

static void ask_get(const struct corpus *corpus)
{
	static const char *const keys[] = { "get lz4", "get raw" };
	const struct stored packed = { corpus, SCACHE_LZ4, 1, false };
	char name[80];
	struct question get = { name, "MB/s", false, "read by 256 KiB, from the page cache",
				{ { "lz4", run_get, keys[0], 0 },
				  { "raw", run_get, keys[1], 0 },
				  { "lz4 -dc", run_unpack, packed_path, 1.0 } } };

	snprintf(name, sizeof(name), "lz4: late read of %s", corpus->name);
	store_as(corpus, keys[0], SCACHE_LZ4);
	store_as(corpus, keys[1], SCACHE_RAW);
	if (has_command)
		run_pack(&packed);
	else
		get.contestants[2].name = NULL;
	ask(&get);
	for (int i = 0; i < 2; i++)
		sc(scache_remove(cache, keys[i], strlen(keys[i])), "scache_remove");
}

static bool own_option(const char *name, const char *value)
{
	if (strcmp(name, "--text") == 0)
		text_path = value;
	else if (strcmp(name, "--elf") == 0)
		elf_path = value;
	else if (strcmp(name, "--mib") == 0 && atoi(value) > 0)
		corpus_bytes = (size_t)atoi(value) << 20;
	else
		return false;
	return true;
}

int main(int argc, char **argv)
{
	static const char *const version[] = { "lz4", "--version", NULL };
	struct corpus *const corpora[] = { &text, &elf, &noise };

	bench_begin(argc, argv, "lz4 [--mib=N] [--text=PATH] [--elf=PATH] [DIR]", own_option);
	if (bench.smoke)
		corpus_bytes = 4u << 20;
	has_command = call_command(version) >= 0;
	plain_begin();
	snprintf(packed_path, sizeof(packed_path), "%s", in_dir("packed"));
	ended = shared_new(sizeof(*ended));
	for (int i = 0; i < 3; i++)
		make_corpus(corpora[i]);
	cache = a_cache("cache", NULL);
	ask_live(200, true);
	ask_live(500, true);
	ask_live(0, true);
	ask_live(0, false);
	ask_live_stored();
	for (int i = 0; i < 3; i++) {
		ask_put(corpora[i], 1);
		ask_get(corpora[i]);
	}
	ask_put(&text, 9);
	sc(scache_close(cache), "scache_close");
	return bench_end();
}
