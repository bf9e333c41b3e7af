/* SPDX-License-Identifier: MIT */
/*
 * death - how soon do all readers of a killed producer know of it, and what does
 * waiting for a silent one cost?
 *
 *	death [--rounds=N] [--readers=N] [--mib=N] [--seconds=N] [--json=FILE] [--only=TEXT]
 *	      [--smoke] [DIR]
 *
 * In each round (30) a producer of --mib (1) MiB of touched memory publishes, falls
 * silent and is SIGKILLed while --readers (100) processes wait for more. Milliseconds
 * from just before kill(2) to the last reader's -EOWNERDEAD; beside it, of the same
 * death, the time until the kernel lets go of one lock of the victim (its exit, which
 * nobody can shorten) and until a pidfd of it becomes readable. The tails are printed
 * as well: who knows late is what counts here.
 *
 * With --seconds the same readers wait that long for a producer that lives and is
 * silent: processor time, and sleeps, of all together. Three times at most.
 */
#include "measure.h"

#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define READERS_MAX 4096
#define KEY "death", 5

static int readers = 100, mib = 1, wait_seconds;
static struct scache *cache;
static pid_t children[READERS_MAX];

/* Memory that all processes share. */
static struct board {
	_Atomic int published, waiting;
	_Atomic double last_knew;
} * board;

static struct scache *join(void)
{
	struct scache_options options = {
		.size = sizeof(options), .peers = 8192, .readers = 4194304 / 8, .entries = 64
	};

	return a_cache("cache", &options);
}

/* An open file of its own: the lock is to fall with this process. */
static int open_lock(void)
{
	int fd = open(in_dir("lock"), O_RDWR | O_CREAT | O_CLOEXEC, 0600);

	expect(fd >= 0, "lock");
	return fd;
}

static void produce(const void *arg)
{
	struct flock lock = { .l_type = F_WRLCK, .l_whence = SEEK_SET, .l_len = 1 };
	struct scache_writer *writer;
	size_t bytes = (size_t)mib << 20;
	char *ballast = malloc(bytes);

	(void)arg;
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	expect(ballast != NULL, "malloc");
	memset(ballast, 1, bytes);
	expect(fcntl(open_lock(), F_OFD_SETLK, &lock) == 0, "lock");
	if (scache_acquire(join(), KEY, NULL, NULL, &writer) != 0 || writer == NULL)
		errx(1, "not elected");
	sc(scache_write(writer, ballast, 1, 0), "scache_write");
	atomic_store(&board->published, 1);
	for (;;)
		pause();
}

static void read_to_the_end(const void *arg)
{
	struct scache *own = join();
	struct scache_reader *reader;
	double mine, last;
	ssize_t n;
	char byte;

	(void)arg;
	sc(scache_lookup(own, KEY, NULL, &reader), "scache_lookup");
	sc(scache_read(reader, &byte, 1, SCACHE_FOREVER), "scache_read");
	atomic_fetch_add(&board->waiting, 1);
	n = scache_read(reader, &byte, 1, SCACHE_FOREVER);
	mine = seconds();
	if (n != -EOWNERDEAD)
		errx(1, "read: %s", scache_strerror((int)n));
	last = atomic_load(&board->last_knew);
	while (last < mine && !atomic_compare_exchange_weak(&board->last_knew, &last, mine))
		;
	scache_reader_close(reader);
	scache_close(own);
}

/* A producer that has published a byte, and readers that wait for the second. */
static pid_t gather(void)
{
	pid_t producer;

	memset(board, 0, sizeof(*board));
	producer = spawn(produce, NULL);
	while (!atomic_load(&board->published))
		usleep(1000);
	for (int i = 0; i < readers; i++)
		children[i] = spawn(read_to_the_end, NULL);
	while (atomic_load(&board->waiting) < readers)
		usleep(1000);
	usleep(200000); /* all asleep */
	return producer;
}

static void disperse(pid_t producer)
{
	for (int i = 0; i < readers; i++)
		reap(children[i]);
	expect(waitpid(producer, NULL, 0) == producer, "waitpid");
}

/* ------------------------------------------------------------------- how soon */

/* The first three are contestants, the last one is our share of the first. */
enum {
	LAST,
	LOCK,
	PIDFD,
	AFTER,
	PARTS
};
static const char *const part_names[PARTS] = { "the last reader knows",
					       "a lock of the victim is free",
					       "its pidfd is readable",
					       "of the first, after the lock" };
static double took_ms[PARTS];
static bool told[AFTER] = { true, true, true };
static double all_ms[PARTS][ROUNDS_MAX + 1];
static int deaths;

static void kill_and_time(void)
{
	struct flock lock = { .l_type = F_WRLCK, .l_whence = SEEK_SET, .l_len = 1 };
	pid_t producer = gather();
	struct pollfd exit_fd = { .fd = (int)syscall(SYS_pidfd_open, producer, 0),
				  .events = POLLIN };
	int own = open_lock();
	double began;

	expect(exit_fd.fd >= 0, "pidfd_open");
	took_ms[LOCK] = took_ms[PIDFD] = 0;
	began = seconds();
	kill(producer, SIGKILL);
	while (took_ms[LOCK] == 0 || took_ms[PIDFD] == 0) {
		if (took_ms[PIDFD] == 0 && poll(&exit_fd, 1, 0) == 1)
			took_ms[PIDFD] = (seconds() - began) * 1e3;
		if (took_ms[LOCK] == 0 && fcntl(own, F_OFD_SETLK, &lock) == 0)
			took_ms[LOCK] = (seconds() - began) * 1e3;
		usleep(100);
	}
	disperse(producer);
	took_ms[LAST] = (atomic_load(&board->last_knew) - began) * 1e3;
	took_ms[AFTER] = took_ms[LAST] - took_ms[LOCK];
	close(own);
	close(exit_fd.fd);
	for (int i = 0; i < PARTS; i++)
		all_ms[i][deaths] = took_ms[i];
	deaths++;
}

/* The contestants tell of the same death: of another one when this has been told. */
static double tell(const void *arg)
{
	const double *part = arg;
	long i = part - took_ms;

	if (told[i]) {
		kill_and_time();
		memset(told, 0, sizeof(told));
	}
	told[i] = true;
	return *part;
}

static int by_size(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return x < y ? -1 : x > y;
}

/* Of all deaths: the one for nothing, too. */
static void print_tails(void)
{
	for (int i = 0; deaths > 0 && i < PARTS; i++) {
		qsort(all_ms[i], (size_t)deaths, sizeof(all_ms[i][0]), by_size);
		printf("  %-34s p50 %.5g  p90 %.5g  p99 %.5g  max %.5g\n", part_names[i],
		       all_ms[i][deaths / 2], all_ms[i][deaths * 9 / 10],
		       all_ms[i][deaths * 99 / 100], all_ms[i][deaths - 1]);
	}
}

static void ask_how_soon(void)
{
	char name[80];
	struct question question = {
		.name = name,
		.unit = "ms",
		.is_time = true,
		.where = "from just before kill(2), the same death for all",
	};

	for (int i = 0; i < AFTER; i++)
		question.contestants[i] =
			(struct contestant){ part_names[i], tell, &took_ms[i], 0 };
	snprintf(name, sizeof(name), "death: %d readers, a producer of %d MiB", readers, mib);
	ask(&question);
	print_tails();
}

/* ------------------------------------------------------------------ what it costs */

static double cpu_of_children(void)
{
	struct rusage usage;

	getrusage(RUSAGE_CHILDREN, &usage);
	return (double)usage.ru_utime.tv_sec + (double)usage.ru_utime.tv_usec / 1e6 +
	       (double)usage.ru_stime.tv_sec + (double)usage.ru_stime.tv_usec / 1e6;
}

static uint64_t waits_so_far(void)
{
	struct scache_stats stats = { .size = sizeof(stats) };

	sc(scache_stat(cache, &stats), "scache_stat");
	return stats.waits;
}

/* Processor time and sleeps of readers that wait so long, and of whatever starts and ends them. */
static double time_waiting(int long_seconds, uint64_t *ret_waits)
{
	double busy = cpu_of_children();
	pid_t producer = gather();
	uint64_t waits = waits_so_far();

	sleep((unsigned)long_seconds);
	*ret_waits = waits_so_far() - waits;
	kill(producer, SIGKILL);
	disperse(producer);
	return cpu_of_children() - busy;
}

/* Percent of one processor. */
static double run_waiting(const void *arg)
{
	uint64_t waits, none;
	double base = time_waiting(0, &none), busy = time_waiting(wait_seconds, &waits) - base;

	(void)arg;
	printf("  %.1f sleeps a second each\n", (double)waits / wait_seconds / readers);
	return 100 * busy / wait_seconds;
}

static void ask_what_it_costs(void)
{
	char name[80];
	const struct question question = { name,
					   "% of a processor",
					   true,
					   "all readers together, by getrusage()",
					   { { "streamcache", run_waiting, NULL, 0 } } };

	snprintf(name, sizeof(name), "death: %d readers wait for a silent producer", readers);
	bench.rounds = bench.rounds < 3 ? bench.rounds : 3;
	ask(&question);
}

static bool own_option(const char *name, const char *value)
{
	int n = atoi(value);

	if (strcmp(name, "--readers") == 0 && n >= 1 && n <= READERS_MAX)
		readers = n;
	else if (strcmp(name, "--mib") == 0 && n >= 1 && n <= 1 << 16)
		mib = n;
	else if (strcmp(name, "--seconds") == 0 && n >= 0 && n <= 3600)
		wait_seconds = n;
	else
		return false;
	return true;
}

int main(int argc, char **argv)
{
	bench.rounds = 30;
	bench_begin(argc, argv, "death [--readers=N] [--mib=N] [--seconds=N] [DIR]", own_option);
	if (bench.smoke)
		readers = 4;
	board = shared_new(sizeof(*board));
	cache = join();
	ask_how_soon();
	if (wait_seconds > 0)
		ask_what_it_costs();
	scache_close(cache);
	return bench_end();
}
