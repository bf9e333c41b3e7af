/* SPDX-License-Identifier: MIT */
/*
 * progress - one line on a terminal for what takes longer than a second: how
 * much, how fast, whom it waits for and why.
 *
 * Only if standard error is a terminal and what is copied is not from or to one: the
 * bytes would otherwise run through the line. CMD's own messages come from a thread
 * of their own, so whoever writes to the terminal holds the lock and erases
 * the line first; the next tick draws it again.
 */
#include "tool.h"

#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#define FIRST_NS NS_PER_S
#define EVERY_NS (PROGRESS_TICK_MS * NS_PER_MS)
#define SILENT_NS NS_PER_S /* of the producer, before it is worth a word */
#define RATE_NS NS_PER_S   /* the rate is that of about so long */
#define LINE_BYTES 256
#define WHOLE_BYTES (3 * TEXT_SHORT)

void progress_begin(struct progress *progress, int out_fd)
{
	memset(progress, 0, sizeof(*progress));
	pthread_mutex_init(&progress->lock, NULL);
	progress->on = isatty(STDERR_FILENO) && (out_fd < 0 || !isatty(out_fd));
	progress->start_ns = tool_now_ns();
	progress->next_ns = progress->start_ns + FIRST_NS;
	progress->rate_ns = progress->start_ns;
	progress->heard_ns = progress->start_ns;
}

int64_t progress_timeout_ns(const struct progress *progress)
{
	return progress->on ? (int64_t)EVERY_NS : SCACHE_FOREVER;
}

static int is_silent(const struct progress *progress, uint64_t now)
{
	return now - progress->heard_ns >= SILENT_NS;
}

/* Whom a reader waits for, and why. */
static void describe(struct progress *progress, const struct scache_entry_info *info, uint64_t now,
		     char ret_text[LINE_BYTES])
{
	long long pid = info->producer_pid;
	char text[TEXT_SHORT];

	if (progress->stuffed)
		snprintf(ret_text, LINE_BYTES, ", standard output is full");
	else if (info->state == SCACHE_FINISHED)
		snprintf(ret_text, LINE_BYTES, ", stored");
	else if (info->state == SCACHE_FAILED)
		snprintf(ret_text, LINE_BYTES, ", production has failed");
	else if (info->flags & SCACHE_WRITER_DEAD)
		snprintf(ret_text, LINE_BYTES, ", producer %lld has died", pid);
	else if (is_silent(progress, now))
		snprintf(ret_text, LINE_BYTES, ", waiting for producer %lld, silent for %s", pid,
			 text_ns(now - progress->heard_ns, text));
	else if (info->flags & SCACHE_WRITER_WAITS)
		snprintf(ret_text, LINE_BYTES, ", producer %lld waits for a faster reader", pid);
	else
		snprintf(ret_text, LINE_BYTES, ", live from producer %lld", pid);
}

static void describe_whole(uint64_t bytes, uint64_t all, char ret_text[WHOLE_BYTES])
{
	char text[TEXT_SHORT], percent[TEXT_SHORT];

	snprintf(ret_text, WHOLE_BYTES, " of %s (%s)", text_bytes(all, text),
		 text_percent(bytes, all, percent));
}

static void erase(struct progress *progress)
{
	if (progress->shown)
		tool_write(STDERR_FILENO, "\r\033[K", 4);
	progress->shown = 0;
}

static void draw(struct progress *progress, const char *line)
{
	struct winsize size = { .ws_col = 0 };
	int columns = 79;

	/* a line that wraps cannot be erased */
	if (!ioctl(STDERR_FILENO, TIOCGWINSZ, &size) && size.ws_col > 1)
		columns = size.ws_col - 1;
	pthread_mutex_lock(&progress->lock);
	erase(progress);
	/* erasing would take the beginning of CMD's line along */
	if (!progress->mid_line) {
		dprintf(STDERR_FILENO, "%.*s", columns, line);
		progress->shown = 1;
	}
	pthread_mutex_unlock(&progress->lock);
}

/* When the source last gave something that is not here yet, and how fast it comes. */
static void measure(struct progress *progress, uint64_t published, uint64_t bytes, uint64_t now)
{
	if (published != progress->published || bytes < published)
		progress->heard_ns = now;
	progress->published = published;
	if (now - progress->rate_ns < RATE_NS)
		return;
	progress->rate = (double)(bytes - progress->rate_bytes) * (double)NS_PER_S /
			 (double)(now - progress->rate_ns);
	progress->rate_ns = now;
	progress->rate_bytes = bytes;
}

int progress_is_due(struct progress *progress)
{
	uint64_t now = progress->on ? tool_now_ns() : 0;

	if (!progress->on || now < progress->next_ns)
		return 0;
	progress->next_ns = now + EVERY_NS;
	return 1;
}

static void show(struct progress *progress, uint64_t bytes, uint64_t all, const char *source)
{
	char amount[TEXT_SHORT], rate[TEXT_SHORT], whole[WHOLE_BYTES] = "", line[2 * LINE_BYTES];

	if (all != SCACHE_UNLIMITED)
		describe_whole(bytes, all, whole);
	snprintf(line, sizeof(line), "streamcache: %s%s, %s/s%s", text_bytes(bytes, amount), whole,
		 text_bytes((uint64_t)progress->rate, rate), source);
	draw(progress, line);
}

void progress_show(struct progress *progress, uint64_t bytes, uint64_t all, const char *source)
{
	measure(progress, bytes, bytes, tool_now_ns());
	show(progress, bytes, all, source);
}

void progress_say(struct progress *progress, const char *line)
{
	draw(progress, line);
}

void progress_tick(struct progress *progress, struct scache_reader *reader, uint64_t bytes)
{
	struct scache_entry_info info = { .size = sizeof(info) };
	uint64_t all = progress->declared_bytes ? progress->declared_bytes : SCACHE_UNLIMITED;
	char source[LINE_BYTES] = "", text[TEXT_SHORT];
	uint64_t now;

	if (!progress_is_due(progress))
		return;
	now = tool_now_ns();
	if (!reader) {
		measure(progress, bytes, bytes, now);
		if (is_silent(progress, now))
			snprintf(source, sizeof(source), ", waiting for input, silent for %s",
				 text_ns(now - progress->heard_ns, text));
	} else if (!scache_reader_info(reader, &info)) {
		measure(progress, info.bytes, bytes, now);
		describe(progress, &info, now, source);
		all = info.state == SCACHE_FINISHED ? info.bytes : info.declared_bytes;
	}
	show(progress, bytes, all, source);
}

void progress_clear(struct progress *progress)
{
	pthread_mutex_lock(&progress->lock);
	erase(progress);
	pthread_mutex_unlock(&progress->lock);
}

int progress_stderr(struct progress *progress, const void *data, size_t bytes)
{
	int rc;

	pthread_mutex_lock(&progress->lock);
	erase(progress);
	rc = tool_write(STDERR_FILENO, data, bytes);
	progress->mid_line = bytes && ((const char *)data)[bytes - 1] != '\n';
	pthread_mutex_unlock(&progress->lock);
	return rc;
}

void progress_end(struct progress *progress)
{
	pthread_mutex_lock(&progress->lock);
	erase(progress);
	progress->on = 0;
	pthread_mutex_unlock(&progress->lock);
}
