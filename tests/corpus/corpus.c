/* SPDX-License-Identifier: MIT */
/*
 * corpus - real files through a cache: raw, compressed and as it judges itself; read
 * live by another process, and late, whole and by random ranges. Each byte must be the
 * file's. Compressed ones go through `lz4 -t`, all through `streamcache get`.
 *
 *	corpus DIR TOOL RANGES FILE...
 *
 * DIR is for the cache. A line for each file; the first difference ends it with status 1.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "streamcache.h"

#define PIECE_MAX (512u << 10)
#define RANGE_MAX (300u << 10)

static const struct mode {
	const char *name;
	uint32_t compression, level;
} modes[] = {
	{ "raw", SCACHE_RAW, 0 },
	{ "lz4-1", SCACHE_LZ4, 1 },
	{ "lz4-9", SCACHE_LZ4, 9 },
	{ "auto", SCACHE_AUTO, 0 },
};
#define MODES (sizeof(modes) / sizeof(modes[0]))

/* What goes through it just now. */
static struct file {
	const char *path;
	const unsigned char *data; /* mapped */
	uint64_t bytes;
	int fd;
} file;
static const struct mode *mode;
static const char *dir, *tool;
static bool have_lz4;

static void fail(const char *format, ...) __attribute__((noreturn, format(printf, 1, 2)));
static void fail(const char *format, ...)
{
	va_list args;

	va_start(args, format);
	fprintf(stderr, "corpus: %s, %s: ", file.path, mode != NULL ? mode->name : "");
	vfprintf(stderr, format, args);
	fputc('\n', stderr);
	va_end(args);
	_exit(1);
}

static uint64_t draw(uint64_t below)
{
	static uint64_t state;

	state = state * 6364136223846793005ull + 1442695040888963407ull;
	return (state >> 20) % below;
}

static struct scache *open_cache(void)
{
	struct scache_options options = { .size = sizeof(options),
					  .window_bytes = SCACHE_UNLIMITED,
					  .rings = 2,
					  .entries = 64,
					  .peers = 16,
					  .readers = 1024,
					  .segment_dir = dir };
	struct scache *cache;
	char path[600];
	int ret;

	snprintf(path, sizeof(path), "%s/cache", dir);
	ret = scache_open(path, &options, &cache);
	if (ret < 0)
		fail("open: %s: %s", scache_strerror(ret), scache_detail());
	return cache;
}

/* ---------------------------------------------------------------------------- reading */

static void compare(uint64_t at, const void *data, ssize_t done)
{
	if ((uint64_t)done > file.bytes - at || memcmp(file.data + at, data, (size_t)done) != 0)
		fail("other bytes at %llu", (unsigned long long)at);
}

static void read_whole(struct scache_reader *reader)
{
	unsigned char *data = malloc(PIECE_MAX);
	uint64_t at = 0;
	ssize_t done;

	while ((done = scache_read(reader, data, 1 + draw(PIECE_MAX), SCACHE_FOREVER)) > 0) {
		compare(at, data, done);
		at += (uint64_t)done;
	}
	if (done < 0 || at != file.bytes)
		fail("read %llu of %llu bytes, then: %s", (unsigned long long)at,
		     (unsigned long long)file.bytes, scache_strerror((int)done));
	free(data);
}

static void read_ranges(struct scache_reader *reader, unsigned long ranges)
{
	unsigned char *data = malloc(RANGE_MAX);

	for (unsigned long i = 0; i < ranges && file.bytes > 0; i++) {
		uint64_t from = draw(file.bytes), end = from + 1 + draw(i % 4 ? 5000 : RANGE_MAX);

		if (end > file.bytes)
			end = file.bytes;
		for (uint64_t at = from; at < end;) {
			ssize_t done = scache_pread(reader, data, end - at, at, 0);

			if (done <= 0)
				fail("pread at %llu: %s", (unsigned long long)at,
				     scache_strerror((int)done));
			compare(at, data, done);
			at += (uint64_t)done;
		}
	}
	free(data);
}

/* A process of its own that reads while it is produced. */
static pid_t read_live(int *ret_fd)
{
	struct scache_reader *reader;
	struct scache *cache;
	int ends[2];
	pid_t pid;

	if (pipe(ends) < 0 || (pid = fork()) < 0)
		fail("fork: %s", strerror(errno));
	*ret_fd = ends[0];
	if (pid > 0) {
		close(ends[1]);
		return pid;
	}
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	cache = open_cache();
	if (scache_lookup(cache, "key", 3, NULL, &reader) != 0)
		fail("nothing to join");
	if (write(ends[1], "", 1) != 1)
		_exit(1);
	read_whole(reader);
	scache_reader_close(reader);
	_exit(scache_close(cache) == 0 ? 0 : 1);
}

static int end_of(pid_t pid)
{
	int status;

	if (waitpid(pid, &status, 0) != pid)
		fail("wait: %s", strerror(errno));
	return status;
}

/* -------------------------------------------------------------------------- producing */

/* By copies of all sizes, or from its descriptor. */
static void write_all(struct scache_writer *writer)
{
	uint64_t at = 0, bytes;
	ssize_t done;

	if (draw(3) == 0) {
		lseek(file.fd, 0, SEEK_SET);
		while ((done = scache_write_from_fd(writer, file.fd, SIZE_MAX, SCACHE_FOREVER)) > 0)
			;
		if (done < 0 || scache_written(writer) != file.bytes)
			fail("write from fd: %s", scache_strerror((int)done));
		return;
	}
	for (; at < file.bytes; at += (uint64_t)done) {
		bytes = 1 + draw(draw(2) ? PIECE_MAX : 20000);
		if (bytes > file.bytes - at)
			bytes = file.bytes - at;
		done = scache_write(writer, file.data + at, bytes, SCACHE_FOREVER);
		if (done <= 0)
			fail("write: %s", scache_strerror((int)done));
	}
}

static void produce(struct scache *cache)
{
	struct scache_acquire_options options = { .size = sizeof(options),
						  .flags = SCACHE_RUN_TO_END,
						  .compression = mode->compression,
						  .level = mode->level };
	struct scache_writer *writer;
	char byte;
	pid_t pid;
	int fd;

	if (scache_acquire(cache, "key", 3, &options, NULL, &writer) != 0 || writer == NULL)
		fail("not elected");
	pid = read_live(&fd);
	if (read(fd, &byte, 1) != 1)
		fail("the live reader did not come");
	close(fd);
	write_all(writer);
	if (scache_finish(writer) != 0)
		fail("finish");
	scache_writer_close(writer);
	if (end_of(pid) != 0)
		fail("by the live reader");
}

/* --------------------------------------------------------------------------- its file */

/* lz4(1) must take it as it is. Returns what it takes on the disk, by its frame. */
static uint64_t look_at_file(struct scache_reader *reader)
{
	struct scache_file very = { .size = sizeof(very) };
	pid_t pid;

	if (scache_file(reader, &very) != 0 || very.bytes != file.bytes)
		fail("no file");
	if ((mode->compression == SCACHE_RAW) > (very.compression == SCACHE_RAW) ||
	    (mode->compression == SCACHE_LZ4) > (very.compression == SCACHE_LZ4))
		fail("stored as %u", very.compression);
	if (very.compression == SCACHE_LZ4 && have_lz4) {
		pid = fork();
		if (pid == 0) {
			dup2(very.fd, STDIN_FILENO);
			execlp("lz4", "lz4", "-t", "-q", "-", NULL);
			_exit(127);
		}
		if (pid < 0 || end_of(pid) != 0)
			fail("lz4 -t refuses it");
	}
	close(very.fd);
	return very.stored_bytes;
}

/* $FILE is the file. */
static void run_tool(const char *command)
{
	char line[3000];

	setenv("FILE", file.path, 1);
	snprintf(line, sizeof(line), "%s --cache=%s/cache --segment-dir=%s %s", tool, dir, dir,
		 command);
	if (system(line) != 0)
		fail("%s", line);
}

static uint64_t go_through(unsigned long ranges)
{
	struct scache *cache = open_cache(), *other;
	struct scache_reader *reader;
	uint64_t stored;

	produce(cache);
	other = open_cache();
	if (scache_lookup(other, "key", 3, NULL, &reader) != 0)
		fail("not found");
	read_whole(reader);
	read_ranges(reader, ranges);
	stored = look_at_file(reader);
	scache_reader_close(reader);
	if (scache_verify(other, "key", 3, NULL, NULL) != 0)
		fail("not verified");
	run_tool("get key | cmp -s - \"$FILE\"");
	if (scache_remove(cache, "key", 3) != 0 || scache_close(other) != 0 ||
	    scache_close(cache) != 0)
		fail("cannot be removed");
	return stored;
}

static void open_file(const char *path)
{
	struct stat st;

	file = (struct file){ .path = path, .fd = open(path, O_RDONLY | O_CLOEXEC) };
	if (file.fd < 0 || fstat(file.fd, &st) < 0)
		fail("%s", strerror(errno));
	file.bytes = (uint64_t)st.st_size;
	file.data = mmap(NULL, file.bytes + (file.bytes == 0), PROT_READ, MAP_SHARED, file.fd, 0);
	if (file.data == MAP_FAILED)
		fail("%s", strerror(errno));
}

int main(int argc, char **argv)
{
	unsigned long long all = 0, stored[MODES];

	if (argc < 4)
		return 2;
	dir = argv[1];
	tool = argv[2];
	have_lz4 = system("lz4 --version >/dev/null 2>&1") == 0;
	for (int i = 4; i < argc; i++) {
		open_file(argv[i]);
		for (size_t m = 0; m < MODES; m++) {
			mode = &modes[m];
			stored[m] = go_through(strtoul(argv[3], NULL, 10));
		}
		mode = NULL;
		/* In by the tool, and out again. */
		run_tool("put key <\"$FILE\"");
		run_tool("get key | cmp -s - \"$FILE\"");
		run_tool("rm key");
		munmap((void *)(uintptr_t)file.data, file.bytes + (file.bytes == 0));
		close(file.fd);
		all += file.bytes;
		printf("%12llu raw %12llu lz4-1 %12llu lz4-9 %12llu auto  %s\n", stored[0],
		       stored[1], stored[2], stored[3], argv[i]);
		fflush(stdout);
	}
	printf("corpus: %d files of %llu bytes went through, in %zu ways%s\n", argc - 4, all, MODES,
	       have_lz4 ? "" : " (lz4 -t not run: it is not installed)");
	return 0;
}
