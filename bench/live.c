/* SPDX-License-Identifier: MIT */
/*
 * live - one producer, one consumer, two processes: how fast is a stream that
 * is also stored, against a pipe that stores nothing, and against "write the
 * whole file, then read it", which is what a lock around a cache fill gives
 * the waiters?
 *
 *	live [--rounds=N] [--mib=N] [--write=BYTES] [--window=BYTES] [DIR]
 *
 * The contestants run alternately, each with its own warm-up left out; what
 * is printed are medians and quartiles of MiB/s, and of the ratio to the pipe
 * within the same round. DIR (default: a new one in $TMPDIR or /tmp) says
 * which file system is measured.
 */
#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <streamcache.h>

#define READ_BYTES (256u << 10)
#define ROUNDS_MAX 99

static struct {
	size_t total, write;
	uint64_t window;
	const char *dir;
	int rounds;
} job = { .total = 512u << 20, .write = 64u << 10, .rounds = 7 };

static unsigned char *payload, *sink;

static double seconds(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (double)ts.tv_sec + (double)ts.tv_nsec / 1e9;
}

static void expect(int ok, const char *what)
{
	if (!ok)
		errx(1, "%s: %s", what, strerror(errno));
}

static void reap(pid_t child)
{
	int status;

	waitpid(child, &status, 0);
	if (status != 0)
		errx(1, "a child of the bench failed (status %d)", status);
}

/* ------------------------------------------------------------- contestants */

static void pipe_round(void)
{
	int fds[2];
	size_t done = 0;
	pid_t child;

	expect(pipe(fds) == 0, "pipe");
	fcntl(fds[1], F_SETPIPE_SZ, 1 << 20);
	child = fork();
	if (child == 0) {
		ssize_t n;

		close(fds[1]);
		while ((n = read(fds[0], sink, READ_BYTES)) > 0)
			done += (size_t)n;
		_exit(done != job.total);
	}
	close(fds[0]);
	for (; done < job.total; done += job.write)
		expect(write(fds[1], payload, job.write) == (ssize_t)job.write, "write");
	close(fds[1]);
	reap(child);
}

static void write_then_read_round(void)
{
	char path[512];
	size_t done = 0;
	ssize_t n;
	int fd;

	snprintf(path, sizeof(path), "%s/plain", job.dir);
	fd = open(path, O_RDWR | O_CREAT | O_TRUNC, 0600);
	expect(fd >= 0, path);
	for (; done < job.total; done += job.write)
		expect(write(fd, payload, job.write) == (ssize_t)job.write, "write");
	lseek(fd, 0, SEEK_SET);
	for (done = 0; (n = read(fd, sink, READ_BYTES)) > 0;)
		done += (size_t)n;
	expect(done == job.total, "read");
	close(fd);
	unlink(path);
}

static struct scache *open_cache(void)
{
	struct scache_options options = { .size = sizeof(options) };
	struct scache *cache;
	char path[512];
	int ret;

	snprintf(path, sizeof(path), "%s/cache", job.dir);
	ret = scache_open(path, &options, &cache);
	if (ret < 0)
		errx(1, "%s: %s (%s)", path, scache_strerror(ret), scache_detail());
	return cache;
}

static int consume(int ready_fd)
{
	struct scache *cache = open_cache();
	struct scache_reader *reader;
	size_t done = 0;
	ssize_t n;
	char go;

	/* The producer has created the entry when it says so. */
	if (read(ready_fd, &go, 1) != 1 || scache_lookup(cache, "live", 4, NULL, &reader) != 0)
		return 1;
	while ((n = scache_read(reader, sink, READ_BYTES, SCACHE_FOREVER)) > 0)
		done += (size_t)n;
	scache_reader_close(reader);
	scache_close(cache);
	return n < 0 || done != job.total;
}

static double streamcache_round(void)
{
	struct scache_acquire_options options = { .size = sizeof(options),
						  .window_bytes = job.window };
	struct scache_writer *writer;
	struct scache *cache;
	size_t done = 0;
	double start;
	pid_t child;
	int fds[2];

	expect(pipe(fds) == 0, "pipe");
	child = fork();
	if (child == 0)
		_exit(consume(fds[0]));
	cache = open_cache();
	start = seconds();
	expect(scache_acquire(cache, "live", 4, &options, NULL, &writer) == 0 && writer != NULL,
	       "acquire");
	expect(write(fds[1], "g", 1) == 1, "write");
	for (; done < job.total; done += job.write)
		expect(scache_write(writer, payload, job.write, SCACHE_FOREVER) ==
			       (ssize_t)job.write, "scache_write");
	expect(scache_finish(writer) == 0, "scache_finish");
	reap(child);
	start = seconds() - start;
	scache_writer_close(writer);
	scache_remove(cache, "live", 4);
	scache_close(cache);
	close(fds[0]);
	close(fds[1]);
	return start;
}

/* ------------------------------------------------------------------ figures */

static int by_value(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

static void show(const char *name, const double *rates, const double *to_pipe)
{
	double rate[ROUNDS_MAX], ratio[ROUNDS_MAX];
	size_t n = (size_t)job.rounds;

	memcpy(rate, rates, n * sizeof(*rate));
	memcpy(ratio, to_pipe, n * sizeof(*ratio));
	qsort(rate, n, sizeof(*rate), by_value);
	qsort(ratio, n, sizeof(*ratio), by_value);
	printf("%-16s %8.0f  %8.0f .. %-8.0f %6.2f  %5.2f .. %.2f\n", name, rate[n / 2], rate[n / 4],
	       rate[n * 3 / 4], ratio[n / 2], ratio[n / 4], ratio[n * 3 / 4]);
}

static void race(void)
{
	static double rate[3][ROUNDS_MAX], ratio[3][ROUNDS_MAX];
	static const char *const names[] = { "pipe", "write-then-read", "streamcache" };
	double mib = (double)job.total / (1 << 20), start;

	for (int round = -1; round < job.rounds; round++)
		for (int i = 0; i < 3; i++) {
			double took;

			start = seconds();
			if (i == 0)
				pipe_round();
			else if (i == 1)
				write_then_read_round();
			took = i == 2 ? streamcache_round() : seconds() - start;
			if (round < 0)
				continue; /* warm-up */
			rate[i][round] = mib / took;
			ratio[i][round] = rate[i][round] / rate[0][round];
		}
	printf("%-16s %8s  %20s %6s  %s\n", "", "MiB/s", "quartiles", "/pipe", "quartiles");
	for (int i = 0; i < 3; i++)
		show(names[i], rate[i], ratio[i]);
}

static uint64_t number(const char *text)
{
	char *end;
	unsigned long long value = strtoull(text, &end, 0);

	if (*end != '\0' || end == text)
		errx(2, "not a number: %s", text);
	return value;
}

int main(int argc, char **argv)
{
	static const struct option options[] = { { "rounds", 1, NULL, 'r' }, { "mib", 1, NULL, 'm' },
						 { "write", 1, NULL, 'w' }, { "window", 1, NULL, 'W' },
						 { NULL, 0, NULL, 0 } };
	char own[256], path[512];
	int c;

	while ((c = getopt_long(argc, argv, "", options, NULL)) != -1) {
		if (c == 'r')
			job.rounds = (int)number(optarg);
		else if (c == 'm')
			job.total = (size_t)number(optarg) << 20;
		else if (c == 'w')
			job.write = (size_t)number(optarg);
		else if (c == 'W')
			job.window = number(optarg) == 0 ? SCACHE_ZERO : number(optarg);
		else
			errx(2, "usage: live [--rounds=N] [--mib=N] [--write=BYTES] [--window=BYTES] [DIR]");
	}
	if (job.rounds < 1 || job.rounds > ROUNDS_MAX || job.write < 1)
		errx(2, "rounds must be 1 .. %d, and writes at least a byte", ROUNDS_MAX);
	job.total = job.total / job.write * job.write;
	snprintf(own, sizeof(own), "%s/streamcache-bench.XXXXXX",
		 getenv("TMPDIR") != NULL ? getenv("TMPDIR") : "/tmp");
	job.dir = optind < argc ? argv[optind] : mkdtemp(own);
	expect(job.dir != NULL, own);
	payload = mmap(NULL, job.write, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	sink = malloc(READ_BYTES);
	expect(payload != MAP_FAILED && sink != NULL, "memory");
	memset(payload, 0x5a, job.write);
	memset(sink, 0, READ_BYTES);
	race();
	snprintf(path, sizeof(path), "%s/cache", job.dir);
	scache_destroy(path, NULL);
	if (job.dir == own)
		rmdir(own);
	return 0;
}
