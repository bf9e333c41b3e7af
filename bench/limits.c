/* SPDX-License-Identifier: MIT */
/*
 * limits - how fast is this machine without us? Nobody is held against anything
 * here: each line is what the other programs' figures should be read beside.
 *
 *	limits [--rounds=N] [--mib=N] [--json=FILE] [--only=TEXT] [--smoke] [DIR]
 *
 * --mib (256) is the size of the files. Writes go to a fresh file each time, whose
 * pages the kernel has to find and clear; reads are from the page cache. A hand-off
 * is one process waking another by a futex and going to sleep itself.
 */
#include <fcntl.h>
#include <linux/futex.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "plain.h"

static size_t file_bytes = 256u << 20;
static unsigned operations = 20000;
static int file = -1;

static double mib_per_second(double began)
{
	return (double)(file_bytes >> 20) / (seconds() - began);
}

static double ns_each(double began, unsigned count)
{
	return (seconds() - began) * 1e9 / count;
}

/* ---------------------------------------------------------------------------------- bytes */

/* Too much for any cache of the processor: what a copy costs that nobody has touched. */
static double run_memcpy(const void *arg)
{
	static unsigned char *from, *to;
	double began;

	(void)arg;
	if (from == NULL) {
		from = malloc(file_bytes);
		to = malloc(file_bytes);
		expect(from != NULL && to != NULL, "malloc");
		memset(from, 1, file_bytes);
		memset(to, 2, file_bytes);
	}
	began = seconds();
	for (size_t done = 0; done < file_bytes; done += BLOCK_BYTES)
		memcpy(to + done, from + done, BLOCK_BYTES);
	/* Or the compiler may find that nobody looks. */
	atomic_signal_fence(memory_order_seq_cst);
	expect(((volatile unsigned char *)to)[file_bytes - 1] == 1, "memcpy");
	return mib_per_second(began);
}

static double run_memcpy_cached(const void *arg)
{
	double began = seconds();

	(void)arg;
	for (size_t done = 0; done < file_bytes; done += 64u << 10) {
		memcpy(plain_sink, plain_source, 64u << 10);
		__asm__ volatile("" : : "r"(plain_sink) : "memory");
	}
	return mib_per_second(began);
}

static double run_pwrite(const void *arg)
{
	char path[4200];
	double began, rate;
	int fd;

	snprintf(path, sizeof(path), "%s", in_dir("fresh"));
	fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	expect(fd >= 0, path);
	began = seconds();
	plain_write(fd, file_bytes, *(const size_t *)arg);
	rate = mib_per_second(began);
	unlink(path);
	close(fd);
	return rate;
}

static double run_pread(const void *arg)
{
	double began = seconds();

	plain_read(file, file_bytes, *(const size_t *)arg, false);
	return mib_per_second(began);
}

static double run_map(const void *arg)
{
	double began = seconds();

	(void)arg;
	plain_map(file, file_bytes);
	return mib_per_second(began);
}

static double run_sendfile_null(const void *arg)
{
	int fd = open("/dev/null", O_WRONLY | O_CLOEXEC);
	double began, rate;

	(void)arg;
	expect(fd >= 0, "/dev/null");
	began = seconds();
	plain_sendfile(fd, file, file_bytes);
	rate = mib_per_second(began);
	close(fd);
	return rate;
}

static double run_sendfile_socket(const void *arg)
{
	struct drain drain = drain_open(file_bytes);
	double began = seconds();

	(void)arg;
	plain_sendfile(drain.fd, file, file_bytes);
	drain_close(&drain);
	return mib_per_second(began);
}

/* ----------------------------------------------------------------------------- operations */

struct table {
	_Atomic uint32_t ball[2];
};

static void wake_and_wait(struct table *table, unsigned me, uint32_t turn)
{
	_Atomic uint32_t *mine = &table->ball[me], *yours = &table->ball[!me];

	atomic_store(yours, turn);
	syscall(SYS_futex, yours, FUTEX_WAKE, 1, NULL, NULL, 0);
	while (atomic_load(mine) < turn)
		syscall(SYS_futex, mine, FUTEX_WAIT, turn - 1, NULL, NULL, 0);
}

static void answer_balls(const void *arg)
{
	struct table *table = (void *)(uintptr_t)arg;

	for (uint32_t turn = 1; turn <= operations; turn++) {
		while (atomic_load(&table->ball[1]) < turn)
			syscall(SYS_futex, &table->ball[1], FUTEX_WAIT, turn - 1, NULL, NULL, 0);
		atomic_store(&table->ball[0], turn);
		syscall(SYS_futex, &table->ball[0], FUTEX_WAKE, 1, NULL, NULL, 0);
	}
}

static double run_futex(const void *arg)
{
	struct table *table = shared_new(sizeof(*table));
	pid_t child = spawn(answer_balls, table);
	double began = 0, took;

	(void)arg;
	/* The first ball finds the child starting. */
	for (uint32_t turn = 1; turn <= operations; turn++) {
		wake_and_wait(table, 0, turn);
		if (turn == 1)
			began = seconds();
	}
	took = ns_each(began, 2 * (operations - 1)); /* there and back are two */
	reap(child);
	shared_free(table, sizeof(*table));
	return took;
}

static double run_open(const void *arg)
{
	char path[4200];
	double began;

	(void)arg;
	snprintf(path, sizeof(path), "%s", in_dir("file"));
	began = seconds();
	for (unsigned i = 0; i < operations; i++) {
		int fd = open(path, O_RDONLY | O_CLOEXEC);

		expect(fd >= 0, path);
		close(fd);
	}
	return ns_each(began, operations);
}

/* In a new tree each time: where many files were removed, ext4 is slow to make new ones. */
static double run_create(const void *arg)
{
	int fan = fan_open(fresh_name("small"), true);
	double began, took;

	(void)arg;
	began = seconds();
	for (unsigned i = 0; i < operations / 4; i++)
		fan_put(fan, i);
	took = ns_each(began, operations / 4);
	close(fan);
	return took;
}

static double run_getpid(const void *arg)
{
	double began = seconds();

	(void)arg;
	for (unsigned i = 0; i < operations; i++)
		syscall(SYS_getpid);
	return ns_each(began, operations);
}

/* ------------------------------------------------------------------------------ questions */

static void measure(const char *name, const char *unit, const char *where,
		    double (*run)(const void *arg), const void *arg)
{
	struct question question = { .name = name,
				     .unit = unit,
				     .is_time = strcmp(unit, "ns") == 0,
				     .where = where,
				     .contestants = { { "the machine", run, arg, 0 } } };

	ask(&question);
}

static bool own_option(const char *name, const char *value)
{
	if (strcmp(name, "--mib") != 0 || atoi(value) < 4)
		return false;
	file_bytes = (size_t)atoi(value) / 4 * 4 << 20; /* whole blocks of each size */
	return true;
}

int main(int argc, char **argv)
{
	static const size_t blocks[] = { 64u << 10, 256u << 10, 1u << 20, 4u << 20 };
	char name[64];

	bench_begin(argc, argv, "limits [--mib=N] [DIR]", own_option);
	if (bench.smoke) {
		file_bytes = 16u << 20;
		operations = 2000;
	}
	plain_begin();
	small_begin(operations);
	file = plain_file(in_dir("file"), file_bytes);
	measure("limit: memcpy", "MiB/s", "from memory to memory", run_memcpy, NULL);
	measure("limit: memcpy, 64 KiB again and again", "MiB/s", "within the processor's cache",
		run_memcpy_cached, NULL);
	for (unsigned i = 0; i < 4; i++) {
		snprintf(name, sizeof(name), "limit: fresh file, %zu KiB writes", blocks[i] >> 10);
		measure(name, "MiB/s", "pwrite to a new file", run_pwrite, &blocks[i]);
	}
	for (unsigned i = 0; i < 4; i++) {
		snprintf(name, sizeof(name), "limit: cached file, %zu KiB reads", blocks[i] >> 10);
		measure(name, "MiB/s", "pread from the page cache", run_pread, &blocks[i]);
	}
	measure("limit: cached file, mapped", "MiB/s", "mmap, a look at each line, munmap", run_map,
		NULL);
	measure("limit: sendfile to /dev/null", "MiB/s", "page cache", run_sendfile_null, NULL);
	measure("limit: sendfile to a unix socket", "MiB/s", "drained by another process",
		run_sendfile_socket, NULL);
	measure("limit: system call", "ns", "getpid", run_getpid, NULL);
	measure("limit: futex hand-off", "ns", "two processes, one way", run_futex, NULL);
	measure("limit: open and close", "ns", "one file", run_open, NULL);
	measure("limit: create, write 1 KiB, close", "ns", "256 new directories", run_create, NULL);
	return bench_end();
}
