/* SPDX-License-Identifier: MIT */
/*
 * share - one run of a command for all who ask for it: the caller's side of
 * exec and of git-pack-objects, from the moment the key is known.
 *
 * Find the run or start it, stream it, tell how it ended. A run that was lost
 * before this caller had a byte of it is taken up anew, unseen; afterwards it
 * is exit status 124, unless each run yields the same (--on-death=deterministic).
 * Whenever the cache cannot help, the answer is SHARE_BYPASS, and CMD may take
 * this process's place and simply run.
 */
#include "tool.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define TRIES_MAX 16 /* others keep starting and losing this run */
#define LOST_MAX 3   /* producers lost under this caller */

/* What one attempt came to, beside an exit status and SHARE_BYPASS. */
enum {
	AGAIN = -1
}; /* nothing was output */

int share_disabled(void)
{
	const char *value = getenv("STREAMCACHE_DISABLE");

	return value && *value && strcmp(value, "0");
}

void share_init(struct share *share, const struct tool *tool, const struct tool_key *key)
{
	memset(share, 0, sizeof(*share));
	share->request.tool = tool;
	share->request.key = key;
	share->request.acquire.size = sizeof(share->request.acquire);
	share->request.spool_fd = -1;
}

void share_free(struct share *share)
{
	if (share->request.spool_fd >= 0)
		close(share->request.spool_fd);
	free(share->request.path);
	stream_forget(&share->output);
}

int share_run_directly(struct share *share)
{
	const struct holder_request *request = &share->request;
	int rc = 0;

	if (request->cache)
		scache_close(request->cache);
	if (!share->use_stdin || request->spool_fd >= 0)
		rc = run_set_stdin(request->spool_fd);
	if (rc) {
		tool_error("standard input: %s", strerror(-rc));
		return TOOL_UNUSABLE;
	}
	execvp(request->path ? request->path : request->argv[0], request->argv);
	rc = errno;
	tool_error("'%s': %s", request->argv[0], strerror(rc));
	return rc == ENOENT || rc == ENOTDIR ? TOOL_NOT_FOUND : TOOL_CANNOT_RUN;
}

static int look_up(struct share *share, struct scache_reader **ret_reader)
{
	const struct holder_request *request = &share->request;

	return scache_lookup(request->cache, request->key->data, request->key->bytes,
			     &request->acquire, ret_reader);
}

static void *print_messages(void *arg)
{
	struct share *share = arg;
	char buffer[4096];
	ssize_t n;

	while ((n = tool_read(share->holder.stderr_fd, buffer, sizeof(buffer))) > 0)
		if (progress_stderr(&share->progress, buffer, (size_t)n))
			break;
	return NULL;
}

/* The holder waits: attach, listen to CMD's messages, and let it go. */
static int join_own_run(struct share *share, struct scache_reader **ret_reader)
{
	int rc = look_up(share, ret_reader);

	if (!rc && pthread_create(&share->messages, NULL, print_messages, share)) {
		scache_reader_close(*ret_reader);
		rc = SCACHE_BYPASS;
	}
	if (rc) {
		holder_forget(&share->holder);
		return rc;
	}
	share->started = 1;
	holder_attached(&share->holder);
	return 0;
}

/*
 * Returns 0 with a reader, -ENOENT to look once more, -EOWNERDEAD if the
 * holder died, SCACHE_BYPASS, or another -errno of the cache.
 */
static int attach(struct share *share, struct scache_reader **ret_reader)
{
	enum holder_answer answer;
	int rc = look_up(share, ret_reader);

	if (rc != -ENOENT)
		return rc;
	rc = holder_start(&share->request, &share->holder, &answer);
	if (rc)
		return rc;
	if (answer == HOLDER_WON)
		return join_own_run(share, ret_reader);
	holder_forget(&share->holder);
	if (answer == HOLDER_BYPASS)
		return SCACHE_BYPASS;
	if (answer != HOLDER_LOST)
		return -EOWNERDEAD;
	/* it was being produced when we asked, which is fresh enough */
	share->request.acquire.flags &= ~SCACHE_REFRESH;
	return look_up(share, ret_reader);
}

/* What CMD's other run can no more mend. */
static int give_up(const struct share *share, const char *why)
{
	tool_error("the producer was lost after %llu bytes: %s",
		   (unsigned long long)share->output.bytes, why);
	return TOOL_LOST;
}

/* Its bytes were refused at its end, which another run would not cure. */
static int is_refused(const struct share *share, int error)
{
	return error == -EBADMSG && share->request.acquire.digest_type && share->how != SHARE_FOUND;
}

/* After a run that was lost: another, if what was output allows that. */
static int lost(struct share *share, int error)
{
	if (is_refused(share, error))
		return share->output.bytes ? give_up(share, "it is not what --digest says")
					   : SHARE_BYPASS;
	if (share->never_again || (share->output.bytes && !share->output.is_remembered))
		return give_up(share, scache_strerror(error));
	switch (error) {
	case -EOWNERDEAD: /* killed, or gone without a word: */
	case -ECANCELED:
	case -EPIPE:
	case -EBADMSG: /* the entry is gone, the next look-up finds another */
	case -ESTALE:
		if (++share->lost <= LOST_MAX)
			return AGAIN;
		break;
	default:
		break;
	}
	/* nothing was output yet, so nobody has lost anything */
	return share->output.bytes ? give_up(share, scache_strerror(error)) : SHARE_BYPASS;
}

static enum share_how how_attached(const struct share *share, struct scache_reader *reader)
{
	struct scache_entry_info info = { .size = sizeof(info) };

	if (share->started)
		return SHARE_STARTED;
	if (scache_reader_info(reader, &info) || info.state != SCACHE_FINISHED)
		return SHARE_JOINED;
	return SHARE_FOUND;
}

/* After the stream: nothing of @reader, the messages or the holder is left. */
static void leave_run(struct share *share, struct scache_reader *reader, int rc)
{
	scache_reader_close(reader);
	if (!share->started)
		return;
	/* CMD's messages are not waited for, nor is a holder that is stopped */
	if (rc == STREAM_OUTPUT_FAILED || rc == -ETIME)
		shutdown(share->holder.stderr_fd, SHUT_RD);
	pthread_join(share->messages, NULL);
	holder_forget(&share->holder);
	share->started = 0;
}

/* The exit status, AGAIN or SHARE_BYPASS; takes @reader. */
static int stream(struct share *share, struct scache_reader *reader)
{
	char text[STREAM_WHY_BYTES];
	const char *why = NULL;
	int rc, code;

	share->how = how_attached(share, reader);
	rc = stream_out(reader, &share->progress, &share->output);
	code = rc == -EREMOTEIO ? stream_code(reader) : 0;
	if (code && !share->started)
		stream_print_message(reader);
	/* By what its producer bears or is allowed: another run would come to the same. */
	if (rc == -ECANCELED && stream_why(reader, 0, text) == text)
		why = text;
	leave_run(share, reader, rc);
	if (rc == STREAM_OUTPUT_FAILED)
		return TOOL_UNUSABLE;
	if (rc == STREAM_DIFFERS)
		return give_up(share, "another run did not yield the same");
	if (why)
		return give_up(share, why);
	return !rc || code ? code : lost(share, rc);
}

int share_run(struct share *share)
{
	int tries, rc, status = AGAIN;

	for (tries = 0; tries < TRIES_MAX && status == AGAIN; tries++) {
		struct scache_reader *reader = NULL;

		progress_begin(&share->progress, STDOUT_FILENO);
		rc = attach(share, &reader);
		if (!rc)
			status = stream(share, reader);
		else if (rc == -EOWNERDEAD)
			status = lost(share, rc);
		else if (rc != -ENOENT)
			status = SHARE_BYPASS;
	}
	if (status >= 0)
		return status;
	return share->output.bytes ? give_up(share, "the cache cannot help any more") : SHARE_BYPASS;
}
