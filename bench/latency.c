/* SPDX-License-Identifier: MIT */
/*
 * latency - how long from a write to the return of the read that waits for it?
 *
 *	latency [--rounds=N] [--json=FILE] [--only=TEXT] [--smoke] [DIR]
 *
 * Two processes. The writer pauses half a millisecond before each write, so the
 * reader sleeps; both look at the same clock, one before its call, the other when
 * it has all bytes of that write in a buffer of its own. 4 KiB and 64 KiB at a
 * time; each run gives the median (p50) or the 99th percentile (p99) of its writes.
 *
 * The mark at 4 KiB is against a futex that moves no byte; at 64 KiB, where
 * copying is most of the work, against one beside which the bytes are copied
 * through as much shared memory as the library's ring has.
 */
#include "measure.h"

#include <err.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/syscall.h>
#include <unistd.h>

#define PAUSE_US 500
#define BYTES_MAX (64u << 10)
#define RING_BYTES (2u << 20) /* as much as the library's: a stream is more than one write */
#define WRITES_MAX 1000
#define KEY "latency", 7

struct way {
	void (*prepare)(void); /* before there are two processes; or NULL */
	void (*open_writer)(void);
	void (*open_reader)(void); /* after the writer's; or NULL */
	void (*send)(const void *data, size_t bytes);
	void (*receive)(void *ret_data, size_t bytes);
	void (*leave)(void); /* either of the two; or NULL */
	void (*clean)(void);
};

struct trial {
	const struct way *way;
	size_t bytes;
	int percent;
};

static struct board {
	double sent[WRITES_MAX], received[WRITES_MAX];
	_Atomic uint32_t word;
	unsigned char ring[RING_BYTES];
} * board;
static struct gate *made, *ready, *over;

/* ------------------------------------------------------------------------ ours */

static struct scache *cache, *own;
static struct scache_writer *writer;
static struct scache_reader *reader;

static void our_writer(void)
{
	own = a_cache("cache", NULL);
	if (scache_acquire(own, KEY, NULL, NULL, &writer) != 0 || writer == NULL)
		errx(1, "not elected");
}

static void our_reader(void)
{
	own = a_cache("cache", NULL);
	sc(scache_lookup(own, KEY, NULL, &reader), "scache_lookup");
}

static void our_send(const void *data, size_t bytes)
{
	if (sc(scache_write(writer, data, bytes, SCACHE_FOREVER), "scache_write") != (ssize_t)bytes)
		errx(1, "scache_write: not all");
}

static void our_receive(void *ret_data, size_t bytes)
{
	unsigned char *at = ret_data;

	for (ssize_t n; bytes > 0; bytes -= (size_t)n, at += n) {
		n = sc(scache_read(reader, at, bytes, SCACHE_FOREVER), "scache_read");
		if (n == 0)
			errx(1, "scache_read: the end");
	}
}

static void our_leave(void)
{
	if (writer != NULL)
		sc(scache_finish(writer), "scache_finish");
	scache_writer_close(writer);
	scache_reader_close(reader);
	sc(scache_close(own), "scache_close");
}

static void our_clean(void)
{
	scache_remove(cache, KEY);
}

static const struct way ours = { .open_writer = our_writer,
				 .open_reader = our_reader,
				 .send = our_send,
				 .receive = our_receive,
				 .leave = our_leave,
				 .clean = our_clean };

/* ----------------------------------------------------------------------- rivals */

static int fds[2];

static void nothing(void)
{
}

/* Where the next bytes are, in either process. */
static unsigned char *next_place(size_t bytes)
{
	static size_t position;
	size_t here = position;

	position = (position + bytes) % RING_BYTES;
	return board->ring + here;
}

static void futex_wake(void)
{
	atomic_fetch_add(&board->word, 1);
	syscall(SYS_futex, &board->word, FUTEX_WAKE, 1, NULL, NULL, 0);
}

static void futex_wait(void)
{
	static uint32_t before;

	while (atomic_load(&board->word) == before)
		syscall(SYS_futex, &board->word, FUTEX_WAIT, before, NULL, NULL, 0);
	before++;
}

static void bare_send(const void *data, size_t bytes)
{
	(void)data;
	(void)bytes;
	futex_wake();
}

static void bare_receive(void *ret_data, size_t bytes)
{
	(void)ret_data;
	(void)bytes;
	futex_wait();
}

static void futex_send(const void *data, size_t bytes)
{
	memcpy(next_place(bytes), data, bytes);
	futex_wake();
}

static void futex_receive(void *ret_data, size_t bytes)
{
	futex_wait();
	memcpy(ret_data, next_place(bytes), bytes);
}

static void event_prepare(void)
{
	/* One at a time: a reader that was late must not lack the one that it slept over. */
	fds[0] = eventfd(0, EFD_CLOEXEC | EFD_SEMAPHORE);
	expect(fds[0] >= 0, "eventfd");
	fds[1] = dup(fds[0]);
}

static void event_send(const void *data, size_t bytes)
{
	uint64_t one = 1;

	memcpy(next_place(bytes), data, bytes);
	expect(write(fds[1], &one, sizeof(one)) == sizeof(one), "write eventfd");
}

static void event_receive(void *ret_data, size_t bytes)
{
	uint64_t count;

	expect(read(fds[0], &count, sizeof(count)) == sizeof(count), "read eventfd");
	memcpy(ret_data, next_place(bytes), bytes);
}

static void pipe_prepare(void)
{
	expect(pipe2(fds, O_CLOEXEC) == 0, "pipe2");
	fcntl(fds[1], F_SETPIPE_SZ, 1 << 20);
}

static void pipe_send(const void *data, size_t bytes)
{
	expect(write(fds[1], data, bytes) == (ssize_t)bytes, "write");
}

static void pipe_receive(void *ret_data, size_t bytes)
{
	unsigned char *at = ret_data;

	for (ssize_t n; bytes > 0; bytes -= (size_t)n, at += n) {
		n = read(fds[0], at, bytes);
		expect(n > 0, "read");
	}
}

static void close_fds(void)
{
	close(fds[0]);
	close(fds[1]);
}

static const struct way bare = {
	.open_writer = nothing, .send = bare_send, .receive = bare_receive, .clean = nothing
};
static const struct way futex = {
	.open_writer = nothing, .send = futex_send, .receive = futex_receive, .clean = nothing
};
static const struct way event = { .prepare = event_prepare,
				  .open_writer = nothing,
				  .send = event_send,
				  .receive = event_receive,
				  .clean = close_fds };
static const struct way pipes = { .prepare = pipe_prepare,
				  .open_writer = nothing,
				  .send = pipe_send,
				  .receive = pipe_receive,
				  .clean = close_fds };

/* ---------------------------------------------------------------------- a trial */

static int writes(const struct trial *trial)
{
	/* Ten of them lie beyond the 99th percentile of a thousand. */
	return bench.smoke ? 20 : trial->percent == 50 ? 400 : WRITES_MAX;
}

static void write_paced(const void *arg)
{
	static unsigned char payload[BYTES_MAX];
	const struct trial *trial = arg;

	memset(payload, 0x5a, sizeof(payload));
	trial->way->open_writer();
	gate_wait(made);
	gate_wait(ready);
	/* Once around the ring for nothing: page faults would hide what is asked here. */
	for (size_t done = 0; done < RING_BYTES; done += trial->bytes)
		trial->way->send(payload, trial->bytes);
	for (int i = 0; i < writes(trial); i++) {
		usleep(PAUSE_US);
		board->sent[i] = seconds();
		trial->way->send(payload, trial->bytes);
	}
	gate_wait(over);
	if (trial->way->leave != NULL)
		trial->way->leave();
}

static void read_paced(const void *arg)
{
	static unsigned char sink[BYTES_MAX];
	const struct trial *trial = arg;

	memset(sink, 0, sizeof(sink));
	gate_wait(made);
	if (trial->way->open_reader != NULL)
		trial->way->open_reader();
	gate_wait(ready);
	for (size_t done = 0; done < RING_BYTES; done += trial->bytes)
		trial->way->receive(sink, trial->bytes);
	for (int i = 0; i < writes(trial); i++) {
		trial->way->receive(sink, trial->bytes);
		board->received[i] = seconds();
	}
	gate_wait(over);
	if (trial->way->leave != NULL)
		trial->way->leave();
}

static int by_size(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return x < y ? -1 : x > y;
}

/* Microseconds. */
static double run(const void *arg)
{
	static double took[WRITES_MAX];
	const struct trial *trial = arg;
	pid_t sender, receiver;
	int count = writes(trial);

	board = shared_new(sizeof(*board));
	made = gate_new(2);
	ready = gate_new(2);
	over = gate_new(2);
	if (trial->way->prepare != NULL)
		trial->way->prepare();
	sender = spawn(write_paced, trial);
	receiver = spawn(read_paced, trial);
	reap(receiver);
	reap(sender);
	trial->way->clean();
	for (int i = 0; i < count; i++)
		took[i] = board->received[i] - board->sent[i];
	qsort(took, (size_t)count, sizeof(*took), by_size);
	shared_free(board, sizeof(*board));
	gate_free(made);
	gate_free(ready);
	gate_free(over);
	return took[count * trial->percent / 100] * 1e6;
}

static void ask_latency(size_t bytes, int percent)
{
	static const struct {
		const char *name;
		const struct way *way;
	} ways[] = { { "streamcache", &ours },
		     { "futex, no bytes", &bare },
		     { "futex beside shared memory", &futex },
		     { "eventfd beside shared memory", &event },
		     { "pipe", &pipes } };
	struct trial trials[5];
	char name[64], where[160];
	struct question question = { .name = name, .unit = "us", .is_time = true, .where = where };

	for (int i = 0; i < 5; i++) {
		trials[i] = (struct trial){ ways[i].way, bytes, percent };
		question.contestants[i] = (struct contestant){
			.name = ways[i].name,
			.run = run,
			.arg = &trials[i],
			.mark = percent == 50 && ways[i].way == (bytes <= 4096 ? &bare : &futex)
					? 1.5
					: 0,
		};
	}
	snprintf(name, sizeof(name), "latency p%d, %zu KiB writes", percent, bytes >> 10);
	snprintf(where, sizeof(where), "%d writes, %d us before each; cache in %s",
		 writes(&trials[0]), PAUSE_US, bench.dir);
	ask(&question);
}

int main(int argc, char **argv)
{
	bench_begin(argc, argv,
		    "usage: latency [--rounds=N] [--json=FILE] [--only=TEXT] [--smoke] [DIR]",
		    NULL);
	cache = a_cache("cache", NULL);
	ask_latency(4 << 10, 50);
	ask_latency(64 << 10, 50);
	ask_latency(4 << 10, 99);
	ask_latency(64 << 10, 99);
	scache_close(cache);
	scache_destroy(in_dir("cache"), NULL);
	return bench_end();
}
