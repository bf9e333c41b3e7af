/* SPDX-License-Identifier: MIT */
/*
 * put - store standard input as a blob; readers may follow while it comes.
 *
 * Nobody paces it: what is piped in may not wait for readers that perhaps
 * never come.
 */
#include "tool.h"

#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum {
	OPT_MAX_AGE = TOOL_OPT_OWN,
	OPT_REFRESH,
	OPT_SIZE,
	OPT_DIGEST,
	OPT_NOTE,
};

struct put {
	struct tool_key key;
	struct scache_acquire_options acquire;
	const char *note; /* NULL: none */
	struct sum *sum;  /* of standard input, if it is to be a certain one; or NULL */
	char *buffer;     /* with a sum */
};

/* As scache_write_from_fd(), with a look at the bytes. */
static ssize_t take_summed(struct put *put, struct scache_writer *writer, int64_t timeout_ns)
{
	struct pollfd input = { .fd = STDIN_FILENO, .events = POLLIN };
	int ms = timeout_ns < 0 ? -1 : (int)(timeout_ns / (int64_t)NS_PER_MS);
	ssize_t done = 0, n, got;

	if (poll(&input, 1, ms) == 0)
		return -ETIMEDOUT;
	got = tool_read(STDIN_FILENO, put->buffer, TOOL_BUFFER_BYTES);
	if (got > 0)
		digest_add(put->sum, put->buffer, (size_t)got);
	for (; done < got; done += n) {
		n = scache_write(writer, put->buffer + done, (size_t)(got - done), SCACHE_FOREVER);
		if (n < 0)
			return n;
	}
	return got;
}

static int copy(struct put *put, struct scache_writer *writer)
{
	struct progress progress;
	uint64_t bytes = 0;
	int64_t timeout_ns;
	ssize_t n;

	progress_begin(&progress, STDIN_FILENO);
	if (put->acquire.declared_bytes < SCACHE_ZERO)
		progress.declared_bytes = put->acquire.declared_bytes;
	timeout_ns = progress_timeout_ns(&progress);
	do {
		n = put->sum ? take_summed(put, writer, timeout_ns)
			     : scache_write_from_fd(writer, STDIN_FILENO, TOOL_BUFFER_BYTES,
						    timeout_ns);
		if (n > 0)
			bytes += (uint64_t)n;
		progress_tick(&progress, NULL, bytes);
	} while (n > 0 || n == -ETIMEDOUT);
	progress_end(&progress);
	/* whose error it is only the writer knows */
	if (n < 0 && !scache_writer_check(writer))
		tool_error("standard input: %s", strerror((int)-n));
	return (int)n;
}

/* All was written: is it what it must be? Then it is finished. */
static int finish(struct put *put, struct scache_writer *writer)
{
	static const char differs[] = "streamcache: it is not what --digest says\n";

	if (!put->sum || !digest_differs(put->sum))
		return scache_finish(writer);
	scache_abort(writer, TOOL_NO, differs, sizeof(differs) - 1);
	return -EBADMSG;
}

static void explain(const struct put *put, int error)
{
	uint64_t declared = put->acquire.declared_bytes;

	if (error == SCACHE_NOT_KEPT && *scache_detail())
		tool_error("nothing was stored: %s", scache_detail());
	else if (error == SCACHE_NOT_KEPT)
		tool_error("nothing was stored: a limit, the room to be left free (min-free), the "
			   "disk or the permissions of the directory did not allow it; see "
			   "stat and df(1), then raise the limits by config, remove blobs by "
			   "rm, or make room on the file system");
	else if (error == -ERANGE)
		tool_error("nothing was stored: standard input is not of %" PRIu64 " bytes, as declared",
			   declared == SCACHE_ZERO ? 0 : declared);
	else if (error == -EBADMSG)
		tool_error("nothing was stored: standard input is not what --digest says");
	else
		tool_error("nothing was stored: %s",
			   error == -ECANCELED && *scache_detail() ? scache_detail() :
								     scache_strerror(error));
}

static int produce(struct put *put, struct scache_writer *writer)
{
	int rc = put->note ? scache_set_note(writer, put->note, strlen(put->note)) : 0;

	if (!rc)
		rc = copy(put, writer);
	if (rc)
		scache_abort(writer, rc, NULL, 0);
	else
		rc = finish(put, writer);
	if (rc)
		explain(put, rc);
	scache_writer_close(writer);
	return rc ? TOOL_UNUSABLE : TOOL_OK;
}

static int store(struct put *put, struct scache *cache)
{
	struct scache_writer *writer = NULL;
	int rc = scache_acquire(cache, put->key.data, put->key.bytes, &put->acquire, NULL, &writer);

	if (rc == SCACHE_BYPASS) {
		tool_error("the cache has no room for another entry");
		return TOOL_UNUSABLE;
	}
	if (rc) {
		tool_error("%s", scache_strerror(rc));
		return TOOL_UNUSABLE;
	}
	if (writer)
		return produce(put, writer);
	if (put->acquire.flags & SCACHE_REFRESH)
		tool_error("the key is being produced right now; use rm first to replace that");
	else
		tool_error("the key exists, or is being produced; use rm first, or put --refresh "
			   "to replace a finished one");
	return TOOL_NO;
}

/*
 * What is left of a regular file; 0: not known. One without a block may be of /proc or
 * /sys, which make their sizes up.
 */
static uint64_t input_bytes(void)
{
	off_t offset = lseek(STDIN_FILENO, 0, SEEK_CUR);
	struct stat st;

	if (offset < 0 || fstat(STDIN_FILENO, &st) || !S_ISREG(st.st_mode) || !st.st_blocks ||
	    offset > st.st_size)
		return 0;
	return offset == st.st_size ? SCACHE_ZERO : (uint64_t)(st.st_size - offset);
}

static int take_option(struct put *put, int c)
{
	int status = terms_take(&cmd_put, c, optarg, &put->acquire);

	if (status != TERMS_NOT)
		return status;
	switch (c) {
	case OPT_SIZE:
		return tool_size(&cmd_put, optarg, &put->acquire.declared_bytes);
	case OPT_MAX_AGE:
		return tool_time(&cmd_put, optarg, &put->acquire.max_age_ns);
	case OPT_DIGEST:
		return digest_take(&cmd_put, optarg, &put->acquire, &put->sum);
	case OPT_NOTE:
		put->note = optarg;
		if (strlen(optarg) > SCACHE_NOTE_BYTES_MAX)
			return tool_usage(&cmd_put, "a note has %d bytes at most, this one has %zu",
					  SCACHE_NOTE_BYTES_MAX, strlen(optarg));
		return 0;
	default: /* OPT_REFRESH */
		put->acquire.flags |= SCACHE_REFRESH;
		return 0;
	}
}

/* 0, TOOL_OPT_STOP, or the exit status. */
static int parse(struct tool *tool, struct put *put, int argc, char **argv)
{
	static const struct option options[] = {
		{ "max-age", required_argument, NULL, OPT_MAX_AGE },
		{ "refresh", no_argument, NULL, OPT_REFRESH },
		{ "size", required_argument, NULL, OPT_SIZE },
		{ "digest", required_argument, NULL, OPT_DIGEST },
		{ "note", required_argument, NULL, OPT_NOTE },
		TOOL_OPTIONS_STALL,
		TOOL_OPTIONS_STORE,
		TOOL_OPTION_HEX,
		TOOL_OPTIONS,
		TOOL_OPTION_END,
	};
	int c, status;

	while ((c = tool_getopt(tool, &cmd_put, argc, argv, options)) != -1) {
		if (c == TOOL_OPT_STOP)
			return c;
		status = take_option(put, c);
		if (status)
			return status;
	}
	if (argc - optind != 1)
		return tool_usage(&cmd_put, "one KEY is needed");
	status = terms_check(&cmd_put, &put->acquire);
	if (status)
		return status;
	return tool_key(tool, &cmd_put, argv[optind], &put->key) ? cmd_put.usage_status : 0;
}

static int put_input(const struct tool *tool, struct put *put)
{
	struct scache *cache;
	int status;

	if (tool->closed[STDIN_FILENO]) {
		tool_error("standard input: %s", strerror(EBADF));
		return TOOL_UNUSABLE;
	}
	put->buffer = put->sum ? malloc(TOOL_BUFFER_BYTES) : NULL;
	if (put->sum && !put->buffer) {
		tool_error("%s", strerror(ENOMEM));
		return TOOL_UNUSABLE;
	}
	if (!put->acquire.declared_bytes)
		put->acquire.declared_bytes = input_bytes();
	if (tool_open(tool, 0, NULL, &cache))
		return TOOL_UNUSABLE;
	status = store(put, cache);
	scache_close(cache);
	return status;
}

static int run(struct tool *tool, int argc, char **argv)
{
	struct put put = { .acquire = { .size = sizeof(put.acquire),
					.flags = SCACHE_RUN_TO_END,
					.window_bytes = SCACHE_UNLIMITED } };
	int status = parse(tool, &put, argc, argv);

	if (!status)
		status = put_input(tool, &put);
	free(put.buffer);
	free(put.sum);
	return status == TOOL_OPT_STOP ? tool->status : status;
}

const struct command cmd_put = {
	.name = "put",
	.arguments = "[OPTION]... KEY",
	.summary = "Store standard input as the blob of KEY",
	.help = "  --max-age=TIME     the blob expires so long after its completion\n"
		"  --refresh          replace a finished blob\n"
		"  --size=SIZE        standard input has so many bytes, or nothing is stored;\n"
		"                     unlimited: not known, also of a file\n"
		"  --digest=DIGEST    standard input is what xxh128:HEX or sha256:HEX says, or\n"
		"                     nothing is stored\n"
		"  --note=TEXT        is stored with it, for get --note\n"
		TOOL_HELP_STALL TOOL_HELP_STORE TOOL_HELP_HEX TOOL_HELP_COMMON
		"\n"
		"TIME: 90s 5m 2h 1d unlimited.  SIZE: 64K 8M 1G.\n"
		"Exit status: 0, 1 if the key exists, 2 wrong usage, 125 the cache cannot be\n"
		"used.\n",
	.usage_status = TOOL_USAGE,
	.run = run,
};
