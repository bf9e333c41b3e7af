/* SPDX-License-Identifier: MIT */
/*
 * put DIR KEY <FILE - store standard input under KEY.
 *
 * Whoever asks for KEY meanwhile reads along. If it is there already, or
 * somebody else is storing it, there is nothing to do.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <streamcache.h>
#include <unistd.h>

static void fail(const char *what, int error)
{
	fprintf(stderr, "put: %s: %s. %s\n", what, scache_strerror(error), scache_detail());
	exit(1);
}

int main(int argc, char **argv)
{
	/* Nobody need read along: go on to the end all the same. */
	struct scache_acquire_options options = {
		.size = sizeof(options),
		.flags = SCACHE_RUN_TO_END,
	};
	struct scache_writer *writer;
	struct scache *cache;
	ssize_t n;
	int rc;

	if (argc != 3) {
		fputs("usage: put DIR KEY <FILE\n", stderr);
		return 2;
	}
	rc = scache_open(argv[1], NULL, &cache);
	if (rc < 0)
		fail(argv[1], rc);
	/* No reader is wanted: NULL. */
	rc = scache_acquire(cache, argv[2], strlen(argv[2]), &options, NULL, &writer);
	if (rc < 0)
		fail(argv[2], rc);
	if (rc == SCACHE_BYPASS) {
		fputs("put: the cache has no room now\n", stderr);
		return 1;
	}
	if (writer != NULL) {
		while ((n = scache_write_from_fd(writer, STDIN_FILENO, SIZE_MAX,
						 SCACHE_FOREVER)) > 0)
			;
		/* Without finish the entry fails, and its readers are told. */
		rc = n < 0 ? (int)n : scache_finish(writer);
		scache_writer_close(writer);
		if (rc < 0)
			fail(argv[2], rc);
		if (rc == SCACHE_NOT_KEPT)
			fputs("put: read by whoever was there, but not stored\n", stderr);
	}
	scache_close(cache);
	return rc;
}
