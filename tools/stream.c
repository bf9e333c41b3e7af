/* SPDX-License-Identifier: MIT */
/*
 * stream - a reader's bytes to standard output.
 *
 * A read comes back often enough for the progress line, and to see whether
 * anybody reads what we print.
 */
#include "tool.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <xxhash.h>

#define PIECE_BYTES 4096 /* PIPE_BUF: what poll() promises to fit into a pipe */
#define TICK_NS (int64_t)(PROGRESS_TICK_MS * NS_PER_MS)

/*
 * To a pipe, with a terminal to report to: in pieces that do not block, so
 * that a slow consumer is named on the terminal as what is waited for.
 */
static int write_out(struct progress *progress, struct scache_reader *reader, const char *data,
		     size_t bytes, uint64_t before)
{
	struct pollfd fd = { .fd = STDOUT_FILENO, .events = POLLOUT };
	size_t done = 0;
	int rc = 0;

	if (!progress->on)
		return tool_write(STDOUT_FILENO, data, bytes);
	while (done < bytes && !rc) {
		size_t piece = bytes - done < PIECE_BYTES ? bytes - done : PIECE_BYTES;

		progress->stuffed = poll(&fd, 1, PROGRESS_TICK_MS) == 0;
		if (progress->stuffed) {
			progress_tick(progress, reader, before + done);
			continue;
		}
		rc = tool_write(STDOUT_FILENO, data + done, piece);
		done += piece;
	}
	return rc;
}

/*
 * Nobody reads it any more: with nothing to write we would not notice, and be
 * a reader for whom the producer goes on. As write(2) says it.
 */
int stream_output_is_gone(void)
{
	struct pollfd fd = { .fd = STDOUT_FILENO };

	if (poll(&fd, 1, 0) <= 0 || !(fd.revents & (POLLERR | POLLHUP)))
		return 0;
	raise(SIGPIPE);
	return -EPIPE;
}

int stream_output_failed(int error)
{
	tool_error("standard output: %s", strerror(-error));
	return STREAM_OUTPUT_FAILED;
}

/* ------------------------------------------------------------- another run */

void stream_forget(struct output *output)
{
	XXH3_freeState(output->sum);
	output->sum = NULL;
}

/* Add to a sum, which the first bytes begin. 0 or -ENOMEM. */
static int add_to(XXH3_state_t **sum, const char *data, size_t bytes)
{
	if (!*sum) {
		*sum = XXH3_createState();
		if (!*sum)
			return -ENOMEM;
		XXH3_128bits_reset(*sum);
	}
	XXH3_128bits_update(*sum, data, bytes);
	return 0;
}

/* What was output already, of this run: to be skipped if it is the same. */
struct skip {
	uint64_t left;
	XXH3_state_t *sum;
};

/* How many of the next @bytes are not news; -ENOMEM, -EILSEQ: not the same. */
static ssize_t skip_some(struct skip *skip, const struct output *output, const char *data,
			 size_t bytes)
{
	size_t part = skip->left < bytes ? (size_t)skip->left : bytes;

	if (!part)
		return 0;
	if (add_to(&skip->sum, data, part) < 0)
		return -ENOMEM;
	skip->left -= part;
	if (!skip->left && !XXH128_isEqual(XXH3_128bits_digest(skip->sum),
					   XXH3_128bits_digest(output->sum)))
		return -EILSEQ;
	return (ssize_t)part;
}

/* Some bytes of a run: out with what is news. 0 or -errno; -EILSEQ as above. */
static int put_out(struct progress *progress, struct scache_reader *reader, struct skip *skip,
		   struct output *output, const char *data, size_t bytes)
{
	ssize_t known = skip_some(skip, output, data, bytes);
	int rc;

	if (known < 0)
		return (int)known;
	data += known;
	bytes -= (size_t)known;
	if (!bytes)
		return 0;
	rc = output->is_remembered ? add_to(&output->sum, data, bytes) : 0;
	if (!rc)
		rc = write_out(progress, reader, data, bytes, output->bytes);
	output->bytes += bytes;
	return rc;
}

int stream_out(struct scache_reader *reader, struct progress *progress, struct output *output)
{
	struct skip skip = { .left = output->bytes };
	char *buffer = malloc(TOOL_BUFFER_BYTES);
	ssize_t n = -ENOMEM;
	int rc = 0;

	while (buffer && !rc) {
		n = scache_read(reader, buffer, TOOL_BUFFER_BYTES, TICK_NS);
		if (n > 0)
			rc = put_out(progress, reader, &skip, output, buffer, (size_t)n);
		else if (n != -ETIMEDOUT && n != -EAGAIN)
			break;
		else
			rc = stream_output_is_gone();
		progress_tick(progress, reader, output->bytes);
	}
	progress_end(progress);
	free(buffer);
	XXH3_freeState(skip.sum);
	if (rc == -EILSEQ || (!n && skip.left))
		return STREAM_DIFFERS;
	return rc ? stream_output_failed(rc) : (int)n;
}

int stream_part(struct scache_reader *reader, uint64_t offset, uint64_t bytes,
		uint64_t *ret_bytes)
{
	char *buffer = malloc(TOOL_BUFFER_BYTES);
	ssize_t n = buffer ? 1 : -ENOMEM;
	uint64_t done = 0;
	int rc = 0;

	if (n > 0)
		n = (ssize_t)scache_seek(reader, offset < INT64_MAX ? offset : INT64_MAX);
	while (n >= 0 && done < bytes && !rc) {
		size_t most = bytes - done < TOOL_BUFFER_BYTES ? (size_t)(bytes - done)
							       : TOOL_BUFFER_BYTES;

		n = scache_read(reader, buffer, most, TICK_NS);
		if (n > 0)
			rc = tool_write(STDOUT_FILENO, buffer, (size_t)n);
		else if (n == -ETIMEDOUT)
			rc = stream_output_is_gone();
		else
			break;
		done += n > 0 ? (uint64_t)n : 0;
		n = 0;
	}
	free(buffer);
	*ret_bytes = done;
	return rc ? stream_output_failed(rc) : n < 0 ? (int)n : 0;
}

int stream_await_last(struct scache_reader *reader, uint64_t bytes, uint64_t *ret_offset)
{
	struct scache_entry_info info = { .size = sizeof(info) };
	uint64_t published, from;
	char byte;
	int rc;

	/* If it has been declared it need not be waited for: no other end is a good one. */
	if (!scache_reader_info(reader, &info) && info.declared_bytes != SCACHE_UNLIMITED) {
		*ret_offset = info.declared_bytes < bytes ? 0 : info.declared_bytes - bytes;
		return 0;
	}
	for (;;) {
		ssize_t n;

		rc = scache_size(reader, &published);
		from = published < bytes ? 0 : published - bytes;
		if (rc)
			break;
		/* Of what is not stored only what lies ahead of a reader is kept. */
		n = (ssize_t)scache_seek(reader, from);
		if (n >= 0)
			n = scache_pread(reader, &byte, 1, published, TICK_NS);
		rc = n == -ETIMEDOUT ? stream_output_is_gone() : 0;
		if (rc)
			return stream_output_failed(rc);
		if (n < 0 && n != -ETIMEDOUT)
			return (int)n;
	}
	*ret_offset = from;
	return rc < 0 ? rc : 0;
}

int stream_code(struct scache_reader *reader)
{
	struct scache_result result = { .size = sizeof(result) };

	if (scache_wait(reader, 0, &result) || result.code <= 0)
		return 0;
	return result.code;
}

void stream_print_message(struct scache_reader *reader)
{
	char *text = malloc(SCACHE_MESSAGE_BYTES_MAX + 1);
	ssize_t n = text ? scache_message(reader, text, SCACHE_MESSAGE_BYTES_MAX + 1) : 0;

	if (n > 0)
		tool_write(STDERR_FILENO, text, (size_t)n);
	free(text);
}

const char *stream_why(struct scache_reader *reader, int error, char text[STREAM_WHY_BYTES])
{
	ssize_t n = scache_message(reader, text, STREAM_WHY_BYTES);

	if (n > 0 && n < STREAM_WHY_BYTES && !memchr(text, '\n', (size_t)n))
		return text;
	return scache_strerror(error);
}
