/* SPDX-License-Identifier: MIT */
/*
 * follow DIR KEY COMMAND - print what the shell command prints; one run serves
 * all who ask for KEY at the same time or later, and each sees its output as
 * it comes.
 *
 * A whole program around one call: scache_fetch_to_fd().
 */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <streamcache.h>
#include <unistd.h>

/* Runs in a thread of the library, in the one process that was elected. */
static int run(void *command, struct scache_writer *writer)
{
	sigset_t none;
	FILE *pipe;
	ssize_t n;
	int status;

	sigemptyset(&none); /* what we start inherits it */
	pthread_sigmask(SIG_SETMASK, &none, NULL);
	pipe = popen(command, "re");
	if (pipe == NULL)
		return -ENOMEM;
	while ((n = scache_write_from_fd(writer, fileno(pipe), SIZE_MAX, SCACHE_FOREVER)) > 0)
		;
	status = pclose(pipe);
	if (n < 0)
		return (int)n; /* nobody listens any more, say */
	if (status < 0)
		return -ECHILD;
	/* > 0: production failed, with this code */
	return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

int main(int argc, char **argv)
{
	struct scache_fetched fetched = { .size = sizeof(fetched) };
	struct scache_producer producer = { .size = sizeof(producer), .create = run };
	struct scache *cache;
	int rc;

	if (argc != 4) {
		fputs("usage: follow DIR KEY COMMAND\n", stderr);
		return 2;
	}
	producer.arg = argv[3];
	rc = scache_open(argv[1], NULL, &cache);
	if (rc < 0) {
		fprintf(stderr, "follow: %s: %s. %s\n", argv[1], scache_strerror(rc),
			scache_detail());
		return 1;
	}
	rc = scache_fetch_to_fd(cache, argv[2], strlen(argv[2]), NULL, &producer, STDOUT_FILENO,
				&fetched);
	fprintf(stderr, "follow: %llu bytes, %s\n", (unsigned long long)fetched.bytes,
		fetched.created ? "produced here" : "shared");
	if (rc < 0)
		fprintf(stderr, "follow: %s (code %d)\n", scache_strerror(rc), fetched.code);
	scache_close(cache); /* waits for run(), if others still need it */
	return rc < 0;
}
