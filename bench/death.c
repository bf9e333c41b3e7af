/* SPDX-License-Identifier: MIT */
/*
 * death - how long until all readers of a killed producer know of it, and what
 * waiting for a slow one costs.
 *
 *	death [--rounds=N] [--readers=N] [--mib=N] [--seconds=N] [DIR]
 *
 * First, --rounds times: a producer of --mib MiB of touched memory publishes,
 * falls silent and is SIGKILLed while --readers processes wait for more. Printed:
 * milliseconds from just before kill(2) to the last reader's -EOWNERDEAD, beside
 * the time until the kernel lets go of one lock of the victim (its exit, which
 * nobody can shorten) and until a pidfd of it becomes readable.
 *
 * Then, for --seconds: the same readers wait for a producer that lives and is
 * silent. Printed: processor time, and sleeps, per second, of all together.
 */
#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <poll.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <streamcache.h>

#define ROUNDS_MAX 999
#define READERS_MAX 4096

static struct {
	int rounds, readers, mib, seconds;
	const char *dir;
} job = { .rounds = 30, .readers = 100, .mib = 1, .seconds = 0, .dir = NULL };

/* Memory that all processes share. */
static struct {
	_Atomic int published, waiting, go;
	_Atomic int64_t last_knew_ns;
} *board;

static char path[300], lock_path[340];

static int64_t now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * 1000000000ll + ts.tv_nsec;
}

static void expect(int ok, const char *what)
{
	if (!ok)
		err(1, "%s", what);
}

static struct scache *open_cache(void)
{
	struct scache_options options = { .size = sizeof(options), .peers = 8192,
					  .readers = 4194304 / 8, .entries = 64 };
	struct scache *cache;
	int rc = scache_open(path, &options, &cache);

	if (rc < 0)
		errx(1, "%s: %s", scache_strerror(rc), scache_detail());
	return cache;
}

/* An open file of its own: the lock is to fall with this process. */
static int open_lock(void)
{
	int fd = open(lock_path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);

	expect(fd >= 0, lock_path);
	return fd;
}

static void produce(void)
{
	struct flock lock = { .l_type = F_WRLCK, .l_whence = SEEK_SET, .l_len = 1 };
	struct scache_writer *writer;
	size_t bytes = (size_t)job.mib << 20;
	char *ballast = malloc(bytes);

	expect(ballast != NULL, "malloc");
	memset(ballast, 1, bytes);
	expect(fcntl(open_lock(), F_OFD_SETLK, &lock) == 0, "lock");
	expect(scache_acquire(open_cache(), "k", 1, NULL, NULL, &writer) == 0 && writer != NULL,
	       "acquire");
	expect(scache_write(writer, ballast, 1, 0) == 1, "write");
	atomic_store(&board->published, 1);
	for (;;)
		pause();
}

static void read_to_the_end(void)
{
	struct scache *cache = open_cache();
	struct scache_reader *reader;
	int64_t mine, last;
	ssize_t n;
	char byte;

	expect(scache_lookup(cache, "k", 1, NULL, &reader) == 0, "lookup");
	expect(scache_read(reader, &byte, 1, SCACHE_FOREVER) == 1, "read");
	atomic_fetch_add(&board->waiting, 1);
	n = scache_read(reader, &byte, 1, SCACHE_FOREVER);
	mine = now_ns();
	if (n != -EOWNERDEAD)
		errx(1, "read: %s", scache_strerror((int)n));
	last = atomic_load(&board->last_knew_ns);
	while (last < mine && !atomic_compare_exchange_weak(&board->last_knew_ns, &last, mine))
		;
	scache_reader_close(reader);
	scache_close(cache);
	_exit(0);
}

static pid_t spawn(int is_producer)
{
	pid_t pid = fork();

	expect(pid >= 0, "fork");
	if (pid > 0)
		return pid;
	if (is_producer)
		produce();
	read_to_the_end();
	return 0;
}

/* A producer that has published a byte, and readers that wait for the second. */
static pid_t gather(void)
{
	pid_t producer;

	memset(board, 0, sizeof(*board));
	producer = spawn(1);
	while (!atomic_load(&board->published))
		usleep(1000);
	for (int i = 0; i < job.readers; i++)
		spawn(0);
	while (atomic_load(&board->waiting) < job.readers)
		usleep(1000);
	usleep(200000); /* all asleep */
	return producer;
}

static void await_readers(void)
{
	int status;

	while (wait(&status) > 0)
		if (status != 0 && !(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL))
			errx(1, "a reader failed");
}

/* ------------------------------------------------------------------- how soon */

static int by_size(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return x < y ? -1 : x > y;
}

static void print(const char *what, double *ms)
{
	qsort(ms, (size_t)job.rounds, sizeof(*ms), by_size);
	printf("%-34s p50 %7.1f  p90 %7.1f  p99 %7.1f  max %7.1f ms\n", what, ms[job.rounds / 2],
	       ms[job.rounds * 9 / 10], ms[job.rounds * 99 / 100], ms[job.rounds - 1]);
}

static void kill_and_time(double *ret_lock, double *ret_pidfd, double *ret_last)
{
	struct flock lock = { .l_type = F_WRLCK, .l_whence = SEEK_SET, .l_len = 1 };
	pid_t producer = gather();
	struct pollfd exit_fd = { .fd = (int)syscall(SYS_pidfd_open, producer, 0), .events = POLLIN };
	int own = open_lock();
	int64_t began_ns;

	expect(exit_fd.fd >= 0, "pidfd_open");
	*ret_lock = *ret_pidfd = 0;
	began_ns = now_ns();
	kill(producer, SIGKILL);
	while (*ret_lock == 0 || *ret_pidfd == 0) {
		if (*ret_pidfd == 0 && poll(&exit_fd, 1, 0) == 1)
			*ret_pidfd = (double)(now_ns() - began_ns) / 1e6;
		if (*ret_lock == 0 && fcntl(own, F_OFD_SETLK, &lock) == 0)
			*ret_lock = (double)(now_ns() - began_ns) / 1e6;
		usleep(100);
	}
	await_readers();
	*ret_last = (double)(atomic_load(&board->last_knew_ns) - began_ns) / 1e6;
	close(own);
	close(exit_fd.fd);
}

static void measure_deaths(void)
{
	static double lock[ROUNDS_MAX], pidfd[ROUNDS_MAX], last[ROUNDS_MAX], after[ROUNDS_MAX];

	for (int i = 0; i < job.rounds; i++) {
		kill_and_time(&lock[i], &pidfd[i], &last[i]);
		after[i] = last[i] - lock[i];
	}
	printf("%d readers, producer of %d MiB, %d rounds\n", job.readers, job.mib, job.rounds);
	print("a lock of the victim is free", lock);
	print("its pidfd is readable", pidfd);
	print("the last reader knows", last);
	print("  of these, after the lock", after);
}

/* ------------------------------------------------------------------ what it costs */

static double cpu_of_children(void)
{
	struct rusage usage;

	getrusage(RUSAGE_CHILDREN, &usage);
	return (double)usage.ru_utime.tv_sec + (double)usage.ru_utime.tv_usec / 1e6 +
	       (double)usage.ru_stime.tv_sec + (double)usage.ru_stime.tv_usec / 1e6;
}

static void measure_waiting(void)
{
	struct scache_stats stats = { .size = sizeof(stats) };
	double busy = cpu_of_children(), base;
	struct scache *cache = open_cache();
	uint64_t waits;
	pid_t producer;

	/* What starting and ending them costs, by a round that waits for nothing. */
	producer = gather();
	kill(producer, SIGKILL);
	await_readers();
	base = cpu_of_children() - busy;
	producer = gather();
	scache_stat(cache, &stats);
	waits = stats.waits;
	sleep((unsigned)job.seconds);
	scache_stat(cache, &stats);
	waits = stats.waits - waits;
	kill(producer, SIGKILL);
	await_readers();
	busy = cpu_of_children() - busy - 2 * base;
	printf("%d readers wait for a silent producer, %d s: %.1f %% of one processor, "
	       "%.1f sleeps a second each\n",
	       job.readers, job.seconds, 100 * busy / job.seconds,
	       (double)waits / job.seconds / job.readers);
	scache_close(cache);
}

static int number(const char *text, int least, int most)
{
	int n = atoi(text);

	if (n < least || n > most)
		errx(2, "%s is not %d .. %d", text, least, most);
	return n;
}

int main(int argc, char **argv)
{
	static const struct option options[] = { { "rounds", required_argument, NULL, 'r' },
						 { "readers", required_argument, NULL, 'n' },
						 { "mib", required_argument, NULL, 'm' },
						 { "seconds", required_argument, NULL, 's' },
						 { 0 } };
	int c;

	while ((c = getopt_long(argc, argv, "", options, NULL)) != -1)
		switch (c) {
		case 'r':
			job.rounds = number(optarg, 0, ROUNDS_MAX);
			break;
		case 'n':
			job.readers = number(optarg, 1, READERS_MAX);
			break;
		case 'm':
			job.mib = number(optarg, 1, 1 << 16);
			break;
		case 's':
			job.seconds = number(optarg, 0, 3600);
			break;
		default:
			return 2;
		}
	snprintf(path, sizeof(path), "%s/death.%d", optind < argc ? argv[optind] : "/tmp", getpid());
	snprintf(lock_path, sizeof(lock_path), "%s.lock", path);
	board = mmap(NULL, sizeof(*board), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	expect(board != MAP_FAILED, "mmap");
	scache_close(open_cache());
	if (job.rounds > 0)
		measure_deaths();
	if (job.seconds > 0)
		measure_waiting();
	unlink(lock_path);
	return scache_destroy(path, NULL) < 0;
}
