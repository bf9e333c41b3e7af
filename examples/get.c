/* SPDX-License-Identifier: MIT */
/*
 * get DIR KEY [OFFSET BYTES] - print a blob, or a part of it.
 *
 * One that is still being produced is printed as it grows. Exit status 1 if
 * there is none, or if production fails: then what came is not all of it.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <streamcache.h>
#include <unistd.h>

static ssize_t print_part(struct scache_reader *reader, uint64_t offset, uint64_t bytes)
{
	char buffer[64 << 10];
	ssize_t n = 0;

	while (bytes > 0) {
		size_t want = bytes < sizeof(buffer) ? (size_t)bytes : sizeof(buffer);

		n = scache_pread(reader, buffer, want, offset, SCACHE_FOREVER);
		if (n <= 0 || write(STDOUT_FILENO, buffer, (size_t)n) != n)
			break;
		offset += (uint64_t)n;
		bytes -= (uint64_t)n;
	}
	return n < 0 ? n : 0;
}

int main(int argc, char **argv)
{
	struct scache_options options = { .size = sizeof(options), .flags = SCACHE_OPEN_EXISTING };
	struct scache_reader *reader;
	struct scache *cache;
	ssize_t n;
	int rc;

	if (argc != 3 && argc != 5) {
		fputs("usage: get DIR KEY [OFFSET BYTES]\n", stderr);
		return 2;
	}
	rc = scache_open(argv[1], &options, &cache);
	if (rc < 0) {
		fprintf(stderr, "get: %s: %s. %s\n", argv[1], scache_strerror(rc), scache_detail());
		return 1;
	}
	rc = scache_lookup(cache, argv[2], strlen(argv[2]), NULL, &reader);
	if (rc < 0) {
		fprintf(stderr, "get: %s: %s\n", argv[2], scache_strerror(rc));
		return 1;
	}
	if (argc == 5) {
		n = print_part(reader, strtoull(argv[3], NULL, 0), strtoull(argv[4], NULL, 0));
	} else {
		do
			n = scache_sendfile(reader, STDOUT_FILENO, SIZE_MAX, SCACHE_FOREVER);
		while (n > 0);
	}
	if (n < 0)
		fprintf(stderr, "get: %s\n", scache_strerror((int)n));
	scache_reader_close(reader);
	scache_close(cache);
	return n < 0;
}
