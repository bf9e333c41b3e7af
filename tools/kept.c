/* SPDX-License-Identifier: MIT */
/*
 * kept - what is there of a blob once it is finished, beside its bytes: its very file,
 * and its producer's note.
 *
 * Who waits for the end without reading must not be the slow reader that the producer
 * waits for. Nor may it claim to read at the head, for such a one is not held up by
 * compression, and what it waits for would be compressed less. So it is where the file is.
 */
#include "tool.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sendfile.h>
#include <unistd.h>

#define PAUSE_MS_MAX 64

/* How a wait for the end goes on. */
struct follow {
	uint64_t at;
	unsigned int pause_ms;
};

static void follow(struct follow *follow, struct scache_reader *reader,
		   const struct scache_entry_info *info)
{
	uint64_t to = info->stored_bytes;

	/* In lock step, say, nothing is stored before somebody has read it. */
	if (follow->pause_ms == PAUSE_MS_MAX && to <= follow->at)
		to = info->bytes;
	if (to <= follow->at) {
		follow->pause_ms = follow->pause_ms < PAUSE_MS_MAX ? 2 * follow->pause_ms
								   : PAUSE_MS_MAX;
		return;
	}
	if (scache_seek(reader, to) >= 0)
		follow->at = to;
	follow->pause_ms = 1;
}

/* Until production has ended, well or not, or @info->compression is @refused. */
static int await_end(struct scache_reader *reader, uint32_t refused,
		     struct scache_entry_info *info)
{
	struct scache_result result = { .size = sizeof(result) };
	struct follow where = { .pause_ms = 1 };
	struct progress progress;
	int rc;

	progress_begin(&progress, STDOUT_FILENO);
	for (;;) {
		rc = scache_reader_info(reader, info);
		if (rc || (refused && info->compression == refused))
			break;
		follow(&where, reader, info);
		rc = scache_wait(reader, (int64_t)(where.pause_ms * NS_PER_MS), &result);
		if (rc != -ETIMEDOUT)
			break;
		rc = stream_output_is_gone();
		if (rc)
			break;
		progress_tick(&progress, reader, info->bytes);
	}
	progress_end(&progress);
	return rc;
}

/* What sendfile(2) does not take. 0 or -errno of standard output, or -EBADMSG. */
static int copy_file(int fd, off_t at, off_t end)
{
	char *buffer = malloc(TOOL_BUFFER_BYTES);
	int rc = buffer ? 0 : -ENOMEM;

	while (!rc && at < end) {
		size_t most = end - at < TOOL_BUFFER_BYTES ? (size_t)(end - at) : TOOL_BUFFER_BYTES;
		ssize_t n = pread(fd, buffer, most, at);

		if (n <= 0 && !(n < 0 && errno == EINTR)) {
			rc = n ? -errno : -EBADMSG;
		} else if (n > 0) {
			rc = tool_write(STDOUT_FILENO, buffer, (size_t)n);
			at += n;
		}
	}
	free(buffer);
	return rc;
}

static int send_file(int fd, off_t end)
{
	off_t at = 0;

	while (at < end) {
		ssize_t n = sendfile(STDOUT_FILENO, fd, &at, (size_t)(end - at));

		if (!n)
			return -EBADMSG;
		if (n < 0 && (errno == EINVAL || errno == ENOSYS || errno == EAGAIN))
			return copy_file(fd, at, end);
		if (n < 0 && errno != EINTR)
			return -errno;
	}
	return 0;
}

int kept_print_file(struct scache_reader *reader, uint64_t *ret_bytes)
{
	struct scache_entry_info info = { .size = sizeof(info) };
	struct scache_file file = { .size = sizeof(file) };
	int rc = await_end(reader, SCACHE_RAW, &info);

	if (rc)
		return rc;
	if (info.compression == SCACHE_RAW)
		return KEPT_RAW;
	rc = scache_file(reader, &file);
	if (rc)
		return rc;
	if (file.compression != SCACHE_LZ4)
		rc = KEPT_RAW;
	else
		rc = send_file(file.fd, (off_t)file.stored_bytes);
	close(file.fd);
	*ret_bytes = file.stored_bytes;
	return rc < 0 && rc != -EBADMSG ? stream_output_failed(rc) : rc;
}

int kept_print_note(struct scache_reader *reader)
{
	struct scache_entry_info info = { .size = sizeof(info) };
	char note[SCACHE_NOTE_BYTES_MAX];
	int rc = await_end(reader, 0, &info);
	ssize_t n;

	if (rc)
		return rc;
	n = scache_note(reader, note, sizeof(note));
	if (n < 0)
		return (int)n;
	rc = tool_write(STDOUT_FILENO, note, (size_t)n);
	return rc ? stream_output_failed(rc) : 0;
}
