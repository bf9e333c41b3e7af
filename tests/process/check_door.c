/* SPDX-License-Identifier: MIT */
/*
 * check_door - what is not stored closes its door before its first byte goes;
 * who slips in at the last moment is waited for. The moment is a step.
 */
#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <glob.h>
#include <signal.h>
#include <string.h>
#include <sys/resource.h>

#include "../util/calls.h"
#include "base/step.h"

#define RING_BYTES SCRATCH_RING_BYTES

static struct scache *other;		    /* the cache, as a second caller has it */
static struct scache_reader *late;	    /* who slips in */
static const char *moment = "ring-full";	    /* and when */

static void slip_in(const char *label)
{
	if (late == NULL && strcmp(label, moment) == 0)
		late = scratch_find(other, "k");
}

START_TEST(who_slips_in_while_the_door_is_closed_has_every_byte)
{
	struct scache *cache = scratch_open();
	struct scache_reader *reader;
	struct scache_writer *writer;
	uint64_t position = 0, late_position = 0;
	unsigned char data[1000];

	other = scratch_open();
	writer = create_as(cache, SCACHE_PASS_THROUGH, SCACHE_UNLIMITED, &reader);
	put(writer, 0, RING_BYTES);
	must_be(pattern_read(reader, 1, &position, RING_BYTES, 10000), 1);
	must_be(position, RING_BYTES);
	/* The first byte may go now, as far as anybody knows. */
	step_set_hook(slip_in);
	pattern_fill(1, RING_BYTES, data, sizeof(data));
	must_be(scache_write(writer, data, sizeof(data), 0), -EAGAIN);
	step_set_hook(NULL);
	must(late != NULL);
	must(scratch_misses(cache, "k"));
	must_be(pread_at(late, 0, 1000, 0), 1000);
	must_be(pattern_read(late, 1, &late_position, RING_BYTES, 10000), 1);
	must_be(scache_write(writer, data, sizeof(data), 0), sizeof(data));
	must_be(scache_finish(writer), SCACHE_NOT_KEPT);
	must_be(pattern_read(late, 1, &late_position, UINT64_MAX, 10000), 0);
	must_be(late_position, RING_BYTES + sizeof(data));
	must_be(pattern_read(reader, 1, &position, UINT64_MAX, 10000), 0);
	scache_writer_close(writer);
	scache_reader_close(late);
	scratch_close(other);
	end_with(cache, reader);
}
END_TEST

/* ------------------------------------------- a retired segment is replaced */

static void die_there(const char *label)
{
	if (strcmp(label, moment) == 0)
		kill(getpid(), SIGKILL);
}

static void replace_and_die(void *arg)
{
	struct scache *cache;

	(void)arg;
	step_set_hook(die_there);
	(void)scache_open(scratch_dir, &scratch_options, &cache);
}

static void stay_attached(void *arg)
{
	struct scache *cache = scratch_open();

	(void)arg;
	child_say(0);
	child_listen();
	must_be(scratch_stat(cache).hits, 0);
	scratch_close(cache);
}

START_TEST(who_dies_replacing_a_segment_in_use_leaves_a_cache)
{
	static const char *const moments[] = { "segment-old-gone", "segment-disowned",
					       "record-written", "segment-created" };
	const uint64_t magic = 1;

	for (size_t i = 0; i < sizeof(moments) / sizeof(moments[0]); i++) {
		struct child attached, dying;
		struct scache *cache;
		char path[500];
		glob_t found;
		int fd;

		child_start(&attached, stay_attached, NULL);
		child_hear(&attached);
		snprintf(path, sizeof(path), "%s/streamcache.*", scratch_base);
		must(glob(path, 0, NULL, &found) == 0 && found.gl_pathc == 1);
		fd = open(found.gl_pathv[0], O_RDWR);
		must(pwrite(fd, &magic, sizeof(magic), 0) == sizeof(magic));
		close(fd);
		globfree(&found);
		moment = moments[i];
		child_start(&dying, replace_and_die, NULL);
		must_be(child_end(&dying), -SIGKILL);
		must_be(scache_open(scratch_dir, &scratch_options, &cache), 0);
		must_be(scache_close(cache), 0);
		child_tell(&attached, 0);
		child_join(&attached);
		must(glob(path, 0, NULL, &found) == 0 && found.gl_pathc == 1);
		globfree(&found);
	}
}
END_TEST

/* ------------------------------------------- a file given up, a door not closed */

static const struct scache_acquire_options resumable = {
	.size = sizeof(resumable), .flags = SCACHE_RESUMABLE, .window_bytes = SCACHE_UNLIMITED
};

static void die_without_a_file(void *arg)
{
	const struct rlimit limit = { 300000, 300000 };
	struct scache *cache = scratch_open();
	struct scache_writer *writer;

	(void)arg;
	must(setrlimit(RLIMIT_FSIZE, &limit) == 0);
	must_be(scache_acquire(cache, "k", 1, &resumable, NULL, &writer), 0);
	put(writer, 0, 100000);
	child_say(0);
	child_listen();
	moment = "file-given-up";
	step_set_hook(die_there);
	put(writer, 100000, 900000);
}

START_TEST(who_takes_over_without_a_file_closes_the_door)
{
	struct scache *cache = scratch_open();
	struct scache_writer *writer = NULL;
	struct scache_reader *reader;
	static unsigned char data[700000];
	uint64_t position = 0, from;
	struct child child;
	ssize_t done;

	child_start(&child, die_without_a_file, NULL);
	child_hear(&child);
	reader = scratch_find(cache, "k");
	child_tell(&child, 0);
	must_be(child_end(&child), -SIGKILL);
	eventually(scache_acquire(cache, "k", 1, &resumable, NULL, &writer) == 0 && writer != NULL);
	from = scache_written(writer);
	must(from > RING_BYTES && from < 900000);
	must(scratch_misses(cache, "k"));
	while (from < 900000) {
		pattern_fill(1, from, data, 900000 - from);
		done = scache_write(writer, data, 900000 - from, 0);
		must(done == -EAGAIN || (done > 0 && done <= (ssize_t)RING_BYTES));
		from += done > 0 ? (uint64_t)done : 0;
		must_be(pattern_read(reader, 1, &position, from, 10000), 1);
	}
	must_be(scache_finish(writer), SCACHE_NOT_KEPT);
	must_be(pattern_read(reader, 1, &position, UINT64_MAX, 10000), 0);
	must_be(position, 900000);
	scache_writer_close(writer);
	end_with(cache, reader);
}
END_TEST

int main(void)
{
	const TTest *const tests[] = {
		who_slips_in_while_the_door_is_closed_has_every_byte,
		who_dies_replacing_a_segment_in_use_leaves_a_cache,
		who_takes_over_without_a_file_closes_the_door,
	};

	return SCRATCH_RUN("door", tests);
}
