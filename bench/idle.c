/* SPDX-License-Identifier: MIT */
/*
 * idle - what does waiting cost, and what does it cost not to be waited for?
 *
 *	idle [--rounds=N] [--json=FILE] [--only=TEXT] [--smoke] [DIR]
 *
 * One reader waits a second for a producer that lives and is silent: how often it
 * is woken (voluntary context switches by getrusage(), and sleeps as scache_stat()
 * counts them) and what processor time that takes; against a process that waits
 * in poll(2), 40 ms at a time, as one does who must look for something else, too.
 * Then a writer that nobody waits for, alone or beside a reader who does not read:
 * system calls to wake somebody, per 1000 writes. That should be none; there is
 * nobody to compare it with. bench/death has what many waiting readers cost.
 */
#include "measure.h"

#include <err.h>
#include <errno.h>
#include <poll.h>
#include <stdatomic.h>
#include <stdio.h>
#include <sys/resource.h>
#include <unistd.h>

#define KEY "idle", 4
#define WRITES 1000
#define WRITE_BYTES 4096

/* What a waiting process has come to. */
static struct board {
	double seconds, switches, sleeps, cpu_seconds;
} * board;
static struct gate *made, *over;
static struct scache *cache;

static double for_how_long(void)
{
	return bench.smoke ? 0.2 : 1;
}

static struct scache_stats stat_now(void)
{
	struct scache_stats stats = { .size = sizeof(stats) };

	sc(scache_stat(cache, &stats), "scache_stat");
	return stats;
}

static struct scache_writer *elected(struct scache *own, uint32_t flags, uint64_t window)
{
	struct scache_acquire_options options = { .size = sizeof(options),
						  .flags = flags,
						  .window_bytes = window };
	struct scache_writer *writer;

	if (scache_acquire(own, KEY, &options, NULL, &writer) != 0 || writer == NULL)
		errx(1, "not elected");
	return writer;
}

static struct scache_reader *found(struct scache *own)
{
	struct scache_reader *reader;

	sc(scache_lookup(own, KEY, NULL, &reader), "scache_lookup");
	return reader;
}

/* ------------------------------------------------------------- who waits, sleeping */

static double of(struct timeval t)
{
	return (double)t.tv_sec + (double)t.tv_usec / 1e6;
}

/* Once before and once after: what lies between is the difference. */
static void take_stock(double sign)
{
	struct rusage usage;

	expect(getrusage(RUSAGE_SELF, &usage) == 0, "getrusage");
	board->switches += sign * (double)usage.ru_nvcsw;
	board->cpu_seconds += sign * (of(usage.ru_utime) + of(usage.ru_stime));
	board->seconds += sign * seconds();
}

static void be_silent(const void *arg)
{
	struct scache *own = a_cache("cache", NULL);
	struct scache_writer *writer = elected(own, 0, 0);

	(void)arg;
	gate_wait(made);
	gate_wait(over);
	scache_writer_close(writer);
	sc(scache_close(own), "scache_close");
}

static void wait_in_read(const void *arg)
{
	struct scache *own = a_cache("cache", NULL);
	struct scache_reader *reader;
	ssize_t n;
	char byte;

	(void)arg;
	gate_wait(made);
	reader = found(own);
	take_stock(-1);
	n = scache_read(reader, &byte, 1, (int64_t)(for_how_long() * 1e9));
	if (n != -ETIMEDOUT)
		errx(1, "scache_read: %s", scache_strerror((int)n));
	take_stock(1);
	gate_wait(over);
	scache_reader_close(reader);
	sc(scache_close(own), "scache_close");
}

static void wait_in_poll(const void *arg)
{
	int fds[2];
	struct pollfd ever;
	double end;

	(void)arg;
	expect(pipe(fds) == 0, "pipe");
	ever = (struct pollfd){ .fd = fds[0], .events = POLLIN };
	take_stock(-1);
	end = seconds() + for_how_long();
	while (seconds() < end)
		expect(poll(&ever, 1, 40) == 0, "poll");
	take_stock(1);
}

static void wait_ours(void)
{
	double before = (double)stat_now().waits;
	pid_t producer, waiter;

	made = gate_new(2);
	over = gate_new(2);
	producer = spawn(be_silent, NULL);
	waiter = spawn(wait_in_read, NULL);
	reap(waiter);
	reap(producer);
	/* Nobody else waits in this cache. */
	board->sleeps = (double)stat_now().waits - before;
	gate_free(made);
	gate_free(over);
	scache_remove(cache, KEY);
}

static void wait_poll(void)
{
	reap(spawn(wait_in_poll, NULL));
}

enum figure {
	SWITCHES,
	SLEEPS,
	CPU
};

struct waiting {
	void (*wait)(void);
	enum figure figure;
};

static double idle(const void *arg)
{
	const struct waiting *waiting = arg;
	struct board b;

	board = shared_new(sizeof(*board));
	waiting->wait();
	b = *board;
	shared_free(board, sizeof(*board));
	if (waiting->figure == CPU)
		return b.cpu_seconds * 1e3 / b.seconds * 60;
	return (waiting->figure == SLEEPS ? b.sleeps : b.switches) / b.seconds;
}

static void ask_waiting(void)
{
	static const struct waiting our_switches = { wait_ours, SWITCHES },
				    our_sleeps = { wait_ours, SLEEPS },
				    our_cpu = { wait_ours, CPU },
				    poll_switches = { wait_poll, SWITCHES },
				    poll_cpu = { wait_poll, CPU };
	static const struct question wakes = {
		.name = "an idle reader, wake-ups",
		.unit = "per second",
		.is_time = true,
		.where = "one reader, a silent producer",
		.contestants = { { "streamcache", idle, &our_switches, 0 },
				 { "streamcache, by scache_stat()", idle, &our_sleeps, 0 },
				 { "poll, 40 ms at a time", idle, &poll_switches, 0 } },
	};
	static const struct question cpu = {
		.name = "an idle reader, processor time",
		.unit = "ms per minute",
		.is_time = true,
		.where = "one reader, a silent producer",
		.contestants = { { "streamcache", idle, &our_cpu, 0 },
				 { "poll, 40 ms at a time", idle, &poll_cpu, 0 } },
	};

	ask(&wakes);
	ask(&cpu);
}

/* ------------------------------------------------------------ whom nobody waits for */

/* Wakes per 1000 writes, in this one process: whoever reads cannot sleep in it. */
static double wakes_of_writes(const void *arg)
{
	const bool *is_read = arg;
	static const unsigned char payload[WRITE_BYTES];
	struct scache_writer *writer = elected(cache, SCACHE_RUN_TO_END, SCACHE_UNLIMITED);
	struct scache_reader *reader = *is_read ? found(cache) : NULL;
	uint64_t before = stat_now().wakes;

	for (int i = 0; i < WRITES; i++)
		sc(scache_write(writer, payload, sizeof(payload), SCACHE_FOREVER), "scache_write");
	sc(scache_finish(writer), "scache_finish");
	scache_writer_close(writer);
	before = stat_now().wakes - before;
	scache_reader_close(reader);
	scache_remove(cache, KEY);
	return (double)before * 1000 / WRITES;
}

static void ask_writer(const char *name, bool is_read)
{
	struct question question = {
		.name = name,
		.unit = "per 1000 writes",
		.is_time = true,
		.where = "4 KiB each, by scache_stat()",
		.contestants = { { "streamcache", wakes_of_writes, &is_read, 0 } },
	};

	ask(&question);
}

int main(int argc, char **argv)
{
	bench_begin(argc, argv,
		    "usage: idle [--rounds=N] [--json=FILE] [--only=TEXT] [--smoke] [DIR]", NULL);
	cache = a_cache("cache", NULL);
	ask_waiting();
	ask_writer("a writer without readers, wakes", false);
	ask_writer("a writer whose reader does not wait, wakes", true);
	scache_close(cache);
	scache_destroy(in_dir("cache"), NULL);
	return bench_end();
}
