/* SPDX-License-Identifier: MIT */
/*
 * prefork DIR KEY - a server in small: a parent, four workers, one key.
 *
 * The parent opens the cache; each worker, at its first call, becomes a process
 * of its own to all others. All four ask for the key at the same time, one of them produces, and each
 * prints how many bytes it read and their sum.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <streamcache.h>
#include <sys/wait.h>
#include <unistd.h>

#define WORKERS 4
#define BLOB_BYTES (8u << 20)

/* Produced in place, in the ring: no buffer of our own. */
static int produce(void *arg, struct scache_writer *writer)
{
	size_t done, i;

	(void)arg;
	for (done = 0; done < BLOB_BYTES; done += i) {
		void *room;
		ssize_t n = scache_reserve(writer, BLOB_BYTES - done, &room, SCACHE_FOREVER);

		for (i = 0; n > 0 && i < (size_t)n; i++)
			((unsigned char *)room)[i] = (unsigned char)((done + i) * 31 >> 3);
		if (n < 0 || (n = scache_commit(writer, i)) < 0)
			return (int)n;
	}
	return 0;
}

static int work(struct scache *cache, const char *key)
{
	struct scache_producer producer = { .size = sizeof(producer), .create = produce };
	struct scache_reader *reader;
	static unsigned char buffer[64 << 10];
	unsigned long bytes = 0, sum = 0;
	int created, rc = scache_fetch(cache, key, strlen(key), NULL, &producer, &reader, &created);
	ssize_t n, i;

	if (rc < 0) {
		fprintf(stderr, "prefork: %s\n", scache_strerror(rc));
		return 1;
	}
	while ((n = scache_read(reader, buffer, sizeof(buffer), SCACHE_FOREVER)) > 0) {
		for (i = 0; i < n; i++)
			sum += buffer[i];
		bytes += (unsigned long)n;
	}
	printf("%s %lu bytes, sum %lu\n", created ? "produced" : "shared  ", bytes, sum);
	fflush(stdout);
	scache_reader_close(reader);
	scache_close(cache);
	return n < 0;
}

int main(int argc, char **argv)
{
	struct scache *cache;
	int status, failed = 0;

	if (argc != 3)
		return fputs("usage: prefork DIR KEY\n", stderr) < 0 ? 1 : 2;
	if (scache_open(argv[1], NULL, &cache) < 0)
		return fprintf(stderr, "prefork: %s\n", scache_detail()), 1;
	for (int i = 0; i < WORKERS; i++)
		if (fork() == 0)
			_exit(work(cache, argv[2]));
	while (wait(&status) > 0 || errno == EINTR)
		failed |= status != 0;
	scache_close(cache);
	return failed;
}
