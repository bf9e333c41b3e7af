/* SPDX-License-Identifier: MIT */
/*
 * check_large - a write that passes the ring, and whoever is stopped or killed when
 * its bytes are in the file and not yet published: nobody sees them, and another
 * goes on as if they were not there.
 */
#include <check.h>
#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "../util/calls.h"
#include "base/step.h"

#define FIRST_BYTES (64u << 10) /* a ring full */
#define LARGE_BYTES (100u << 10) /* more than is written past the ring at least */

static struct scache *open_small(void)
{
	scratch_options.ring_bytes = FIRST_BYTES;
	return scratch_open();
}

static void stop_there(const char *label)
{
	if (strcmp(label, "ring-passed") == 0)
		raise(SIGSTOP);
}

/* Stops with FIRST_BYTES published and LARGE_BYTES more in the file. */
static void produce_and_stop(void *arg)
{
	static unsigned char data[LARGE_BYTES];
	struct scache_writer *writer = create_as(open_small(), SCACHE_RESUMABLE | SCACHE_RUN_TO_END,
						 SCACHE_UNLIMITED, NULL);

	(void)arg;
	put(writer, 0, FIRST_BYTES);
	step_set_hook(stop_there);
	pattern_fill(2, FIRST_BYTES, data, sizeof(data));
	scache_write(writer, data, sizeof(data), 0);
	child_stay();
}

static void start_stopped(struct child *child)
{
	child_start(child, produce_and_stop, NULL);
	must_be(waitpid(child->pid, NULL, WUNTRACED), child->pid);
}

/* Its bytes are of pattern 1 from FIRST_BYTES on. */
static struct scache_writer *take_over(struct scache *cache)
{
	const struct scache_acquire_options options = { .size = sizeof(options),
							.flags = SCACHE_RESUMABLE };
	struct scache_writer *writer = NULL;

	eventually(scache_acquire(cache, "k", 1, &options, NULL, &writer) == 0 && writer != NULL);
	must_be(scache_written(writer), FIRST_BYTES);
	return writer;
}

/* Nobody waits for an heir any more. */
static void end_orphan(struct scache *cache, struct child *child)
{
	child_kill(child);
	scache_writer_close(take_over(cache));
}

static void print_finding(void *arg, const char *text)
{
	(void)arg;
	fprintf(stderr, "%s\n", text);
}

START_TEST(only_what_is_published_is_shown)
{
	struct scache *cache = open_small();
	struct scache_reader *reader;
	struct child child;
	const void *data;

	start_stopped(&child);
	reader = scratch_find(cache, "k");
	must_be(scache_peek(reader, &data, SIZE_MAX, 0), FIRST_BYTES);
	must(pattern_matches(1, 0, data, FIRST_BYTES));
	must_be(scache_consume(reader, FIRST_BYTES), FIRST_BYTES);
	must_be(scache_peek(reader, &data, 1, 0), -EAGAIN);
	child_kill(&child);
	must_be(scache_peek(reader, &data, 1, SCACHE_FOREVER), -EOWNERDEAD);
	end_with(cache, reader);
}
END_TEST

START_TEST(only_what_is_published_is_sent)
{
	struct scache *cache = open_small();
	struct scache_reader *reader;
	struct child child;
	int ends[2];

	must(pipe(ends) == 0);
	start_stopped(&child);
	reader = scratch_find(cache, "k");
	must_be(scache_sendfile(reader, ends[1], SIZE_MAX, 0), FIRST_BYTES);
	must_be(scache_sendfile(reader, ends[1], SIZE_MAX, 0), -EAGAIN);
	end_orphan(cache, &child);
	close(ends[0]);
	close(ends[1]);
	end_with(cache, reader);
}
END_TEST

/* And the file may be cut behind it. */
START_TEST(what_was_shown_stays_when_another_goes_on)
{
	struct scache *cache = open_small();
	struct scache_reader *reader;
	struct scache_writer *writer;
	struct child child;
	const void *data;
	ssize_t done;

	start_stopped(&child);
	reader = scratch_find(cache, "k");
	done = scache_peek(reader, &data, SIZE_MAX, 0);
	must(done > 0);
	child_kill(&child);
	writer = take_over(cache);
	must_be(scache_finish(writer), 0);
	scache_writer_close(writer);
	must(pattern_matches(1, 0, data, (size_t)done));
	must_be(scache_consume(reader, (size_t)done), FIRST_BYTES);
	must_be(scache_peek(reader, &data, 1, 0), 0);
	end_with(cache, reader);
}
END_TEST

START_TEST(what_the_next_one_puts_into_the_ring_can_be_read)
{
	struct scache *cache = open_small();
	struct scache_reader *reader;
	struct scache_writer *writer;
	uint64_t position = 0;
	struct child child;

	start_stopped(&child);
	reader = scratch_find(cache, "k");
	child_kill(&child);
	writer = take_over(cache);
	for (uint64_t at = FIRST_BYTES; at < 2 * LARGE_BYTES; at += 1000) {
		put(writer, at, at + 1000);
		must_be(pattern_read(reader, 1, &position, at + 1000, 10000), 1);
	}
	must_be(scache_check(cache, print_finding, NULL), 0);
	must_be(scache_finish(writer), 0);
	scache_writer_close(writer);
	must_be(pattern_read(reader, 1, &position, UINT64_MAX, 10000), 0);
	end_with(cache, reader);
}
END_TEST

START_TEST(a_writer_that_is_stopped_there_is_no_damage)
{
	struct scache *cache = open_small();
	struct scache_repair_report report = { .size = sizeof(report) };
	struct child child;

	start_stopped(&child);
	must_be(scache_check(cache, print_finding, NULL), 0);
	must_be(scache_repair(cache, print_finding, NULL, &report), 0);
	must_be(report.violations, 0);
	end_orphan(cache, &child);
	end_with(cache, NULL);
}
END_TEST

int main(void)
{
	const TTest *const tests[] = {
		only_what_is_published_is_shown,
		only_what_is_published_is_sent,
		what_was_shown_stays_when_another_goes_on,
		what_the_next_one_puts_into_the_ring_can_be_read,
		a_writer_that_is_stopped_there_is_no_damage,
	};

	return SCRATCH_RUN("large", tests);
}
