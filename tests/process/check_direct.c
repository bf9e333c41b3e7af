/* SPDX-License-Identifier: MIT */
/*
 * check_direct - producing in place: what was reserved is seen when it is
 * committed, and nothing of the rest ever is.
 */
#include <check.h>
#include <errno.h>
#include <sched.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>

#include "../util/calls.h"

#define RING_BYTES SCRATCH_RING_BYTES
#define GRANT_MAX (256u << 10)
#define WINDOW_BYTES (32u << 10)
#define MS_NS 1000000ll

/*
 * Commit [@from, @until) in pieces of all sizes: each grant is first written
 * over from end to end, and then a part of it, perhaps none, is committed.
 */
static uint64_t commit_all(struct scache_writer *writer, uint64_t from, uint64_t until,
			   int *ret_error)
{
	uint64_t at = from;

	while (at < until) {
		size_t wanted = 1 + below(below(4) == 0 ? 400000 : 20000), part;
		void *data;
		ssize_t room = scache_reserve(writer, wanted, &data, SCACHE_FOREVER), done;

		if (room < 0) {
			*ret_error = (int)room;
			break;
		}
		must(room >= 1 && (size_t)room <= wanted && (size_t)room <= GRANT_MAX);
		memset(data, 0xee, (size_t)room);
		part = below(8) == 0 ? 0 : 1 + below((uint64_t)room);
		part = part < until - at ? part : (size_t)(until - at);
		pattern_fill(1, at, data, part);
		done = scache_commit(writer, part);
		if (done < 0) {
			*ret_error = (int)done;
			break;
		}
		must_be(done, part);
		at += part;
	}
	return at - from;
}

struct plan {
	uint32_t flags;
	uint64_t window_bytes, bytes;
	int finish;
};

static void produce_in_place(void *arg)
{
	const struct plan *plan = arg;
	struct scache *cache = scratch_open();
	struct scache_writer *writer = create_as(cache, plan->flags, plan->window_bytes, NULL);
	int error = 0;

	child_say(0);
	child_listen();
	must_be(commit_all(writer, 0, plan->bytes, &error), plan->bytes);
	must_be(scache_finish(writer), plan->finish);
	scache_writer_close(writer);
	scratch_close(cache);
}

/* Produced in a process, read along in two others and, in leaps, here. */
static struct scache_stats run_in_place(struct plan *plan, struct scache *cache)
{
	struct child writer, readers[2];
	struct scache_reader *reader;
	struct scache_stats stats;
	uint64_t position = 0;

	child_start(&writer, produce_in_place, plan);
	child_hear(&writer);
	for (int i = 0; i < 2; i++) {
		child_start(&readers[i], scratch_read_along, &plan->bytes);
		child_hear(&readers[i]);
	}
	reader = scratch_find(cache, "k");
	child_tell(&writer, 0);
	while (pattern_read(reader, 1, &position, position + 1 + below(200000), 65536) == 1)
		must_be(scache_check(cache, NULL, NULL), 0);
	must_be(position, plan->bytes);
	child_join(&writer);
	for (int i = 0; i < 2; i++)
		child_join(&readers[i]);
	scache_reader_close(reader);
	stats = scratch_stat(cache);
	must_be(stats.bytes_produced, plan->bytes);
	must_be(stats.bytes_from_ring + stats.bytes_from_file, 3 * plan->bytes);
	return stats;
}

START_TEST(a_blob_produced_in_place_is_right_for_all)
{
	static struct plan plans[] = {
		{ 0, SCACHE_UNLIMITED, 4000000, 0 },
		{ 0, 100000, 4000000, 0 },
		{ 0, SCACHE_ZERO, 1000000, 0 },
		{ SCACHE_PASS_THROUGH, SCACHE_UNLIMITED, 4000000, SCACHE_NOT_KEPT },
		{ SCACHE_PACE_SLOWEST, 100000, 4000000, 0 },
	};

	for (unsigned i = 0; i < sizeof(plans) / sizeof(plans[0]); i++) {
		struct scache *cache = scratch_open();
		struct scache_reader *reader;

		/* Who sets the pace is always in the ring. */
		must(run_in_place(&plans[i], cache).bytes_from_ring > 0 ||
		     plans[i].window_bytes == SCACHE_UNLIMITED);
		if (plans[i].finish == 0) {
			reader = scratch_find(cache, "k");
			pattern_read_all(reader, 1, plans[i].bytes);
			scache_reader_close(reader);
		}
		scratch_is_clean(cache);
		scratch_close(cache);
		must_be(scache_destroy(scratch_dir, NULL), 0);
	}
}
END_TEST

START_TEST(in_place_without_a_ring_goes_through_the_file)
{
	struct plan plan = { 0, 150000, 3000000, 0 };
	struct scache_reader *in_ring;
	struct scache_writer *holder;
	struct scache *cache;

	scratch_options.rings = 1;
	cache = scratch_open();
	holder = scratch_create(cache, "has the ring", 0, &in_ring);
	must(scratch_info(in_ring).flags & SCACHE_HAS_RING);
	must_be(run_in_place(&plan, cache).bytes_from_ring, 0);
	must_be(scache_finish(holder), 0);
	scache_writer_close(holder);
	end_with(cache, in_ring);
}
END_TEST

/* What is mounted is seen by nobody else, and gone with us. */
static int mount_small(void)
{
	if (unshare(CLONE_NEWNS) < 0 || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0) {
		printf("a full disk is not tried: cannot mount a tmpfs: %s\n", strerror(errno));
		return 0;
	}
	must(mkdir(scratch_dir, 0700) == 0);
	must(mount("tmpfs", scratch_dir, "tmpfs", 0, "size=2m,mode=0700") == 0);
	return 1;
}

START_TEST(in_place_a_full_disk_is_noticed_by_nobody)
{
	struct plan plan = { 0, SCACHE_UNLIMITED, 6000000, SCACHE_NOT_KEPT };
	struct scache *cache;

	if (!mount_small())
		return;
	cache = scratch_open();
	run_in_place(&plan, cache);
	must_be(scratch_stat(cache).degraded, 1);
	scratch_is_clean(cache);
	scratch_close(cache);
}
END_TEST

static ssize_t commit_in_thread(struct call *call)
{
	int error = 0;

	must_be(commit_all(call->writer, 0, call->bytes, &error), call->bytes);
	return scache_finish(call->writer);
}

START_TEST(without_a_ring_a_full_disk_is_noticed_by_nobody_either)
{
	struct call call = { .make = commit_in_thread, .bytes = 6000000 };
	struct scache_reader *in_ring, *reader;
	struct scache_writer *holder;
	struct scache *cache;
	uint64_t position = 0, before = 0;

	if (!mount_small())
		return;
	scratch_options.rings = 1;
	cache = scratch_open();
	holder = scratch_create(cache, "has the ring", 0, &in_ring);
	call.writer = create_as(cache, 0, SCACHE_UNLIMITED, &reader);
	call_start(&call);
	/* Until the disk is full: then it waits for the ring. */
	do {
		before = scratch_info(reader).bytes;
		eventually(call_sleeps(&call));
	} while (scratch_info(reader).bytes < 500000 || scratch_info(reader).bytes > before);
	must(scratch_info(reader).bytes < 3000000);
	must(!(scratch_info(reader).flags & SCACHE_HAS_RING));
	scache_writer_close(holder);
	must_be(pattern_read(reader, 1, &position, UINT64_MAX, 60000), 0);
	must_be(position, 6000000);
	must_be(call_end(&call), SCACHE_NOT_KEPT);
	scache_writer_close(call.writer);
	must_be(scratch_stat(cache).emergencies, 1);
	scache_reader_close(reader);
	end_with(cache, in_ring);
}
END_TEST

/* -------------------------------------------------------------------- grants */

START_TEST(a_grant_is_at_most_a_slice_and_never_wraps)
{
	struct scache_reader *reader;
	struct scache_writer *writer;
	struct scache *cache;
	uint64_t at = 0;
	void *data;

	scratch_options.ring_bytes = 4 << 20;
	cache = scratch_open();
	writer = create_as(cache, 0, SCACHE_UNLIMITED, &reader);
	must_be(scache_reserve(writer, 0, &data, 0), -EINVAL);
	must_be(scache_reserve(writer, 1, &data, 0), 1);
	must_be(scache_reserve(writer, SIZE_MAX, &data, 0), GRANT_MAX);
	must_be(scache_commit(writer, 0), 0);
	put(writer, 0, (4 << 20) - 100);
	at = (4 << 20) - 100;
	must_be(scache_reserve(writer, 5000, &data, 0), 100);
	pattern_fill(1, at, data, 100);
	must_be(scache_commit(writer, 99), 99);
	must_be(scache_reserve(writer, 5000, &data, 0), 1);
	pattern_fill(1, at + 99, data, 1);
	must_be(scache_commit(writer, 1), 1);
	must_be(scache_reserve(writer, 5000, &data, 0), 5000);
	pattern_fill(1, at + 100, data, 5000);
	must_be(scache_commit(writer, 5000), 5000);
	must_be(scache_finish(writer), 0);
	scache_writer_close(writer);
	pattern_read_all(reader, 1, at + 5100);
	end_with(cache, reader);
}
END_TEST

START_TEST(no_more_is_committed_than_was_reserved_and_only_once)
{
	struct scache *cache = scratch_open();
	struct scache_reader *reader;
	struct scache_writer *writer = create_as(cache, 0, SCACHE_UNLIMITED, &reader);
	uint64_t bytes;
	void *data;

	must_be(scache_commit(writer, 1), -EINVAL);
	must_be(scache_commit(writer, 0), 0);
	must_be(scache_reserve(writer, 1000, &data, 0), 1000);
	must_be(scache_commit(writer, 1001), -EINVAL);
	must_be(scache_size(reader, &bytes), 0);
	must_be(bytes, 0);
	must_be(scache_reserve(writer, 1000, &data, 0), 1000);
	pattern_fill(1, 0, data, 600);
	must_be(scache_commit(writer, 600), 600);
	must_be(scache_commit(writer, 400), -EINVAL);
	must_be(scache_commit(writer, 1), -EINVAL);
	/* Given back is given back. */
	must_be(scache_reserve(writer, 1000, &data, 0), 1000);
	must_be(scache_commit(writer, 0), 0);
	must_be(scache_commit(writer, 1), -EINVAL);
	/* A write forgets what was reserved, and so does a reservation. */
	must_be(scache_reserve(writer, 1000, &data, 0), 1000);
	memset(data, 0xee, 1000);
	put(writer, 600, 700);
	must_be(scache_commit(writer, 1), -EINVAL);
	must_be(scache_reserve(writer, 1000, &data, 0), 1000);
	must_be(scache_reserve(writer, 10, &data, 0), 10);
	must_be(scache_commit(writer, 11), -EINVAL);
	must_be(scache_reserve(writer, 1000, &data, 0), 1000);
	must_be(scache_finish(writer), 0);
	must_be(scache_commit(writer, 1000), -EINVAL);
	must_be(scache_reserve(writer, 10, &data, 0), -EINVAL);
	scache_writer_close(writer);
	pattern_read_all(reader, 1, 700);
	end_with(cache, reader);
}
END_TEST

START_TEST(what_is_not_committed_never_shows_up)
{
	struct scache *cache = scratch_open();
	struct scache_reader *reader;
	struct scache_writer *writer = create_as(cache, 0, SCACHE_UNLIMITED, &reader);
	uint64_t position = 0, bytes;
	void *data;

	must_be(scache_reserve(writer, 50000, &data, 0), 50000);
	memset(data, 0xee, 50000);
	must_be(pread_at(reader, 0, 100, 0), -EAGAIN);
	pattern_fill(1, 0, data, 100);
	must_be(scache_commit(writer, 100), 100);
	must_be(pread_at(reader, 0, 1000, 0), 100);
	must_be(pread_at(reader, 100, 1000, 0), -EAGAIN);
	must_be(scache_size(reader, &bytes), 0);
	must_be(bytes, 100);
	must_be(pattern_read(reader, 1, &position, 100, 1000), 1);
	must_be(scache_reserve(writer, 50000, &data, 0), 50000);
	memset(data, 0xee, 50000);
	must_be(scache_finish(writer), 0);
	scache_writer_close(writer);
	must_be(pattern_read(reader, 1, &position, UINT64_MAX, 1000), 0);
	must_be(position, 100);
	scache_reader_close(reader);
	reader = scratch_find(cache, "k");
	pattern_read_all(reader, 1, 100);
	end_with(cache, reader);
}
END_TEST

/* A grant covers bytes of a ring ago: given back or not, they are gone from it. */
static void give_back_room(uint32_t flags)
{
	struct scache *cache = scratch_open();
	struct scache_reader *reader;
	struct scache_writer *writer = create_as(cache, flags, 0, &reader);
	uint64_t at = 300000, position = 0;
	ssize_t room, done;
	void *data;

	put(writer, 0, RING_BYTES);
	must_be(pattern_read(reader, 1, &position, RING_BYTES, 9000), 1);
	put(writer, RING_BYTES, at);
	for (int committed = 0; committed < 2; committed++) {
		room = scache_reserve(writer, 50000, &data, 0);
		must_be(room, 50000);
		memset(data, 0xee, (size_t)room);
		pattern_fill(1, at, data, (size_t)committed);
		must_be(scache_commit(writer, (size_t)committed), committed);
		put(writer, at + (uint64_t)committed, at + (uint64_t)committed + 10);
		at += (uint64_t)committed + 10;
		for (uint64_t offset = at - RING_BYTES; offset < at - RING_BYTES + 60000;
		     offset += 997) {
			done = pread_at(reader, offset, 900, 0);
			must(done > 0 || (done == -ENODATA && flags & SCACHE_PASS_THROUGH));
		}
	}
	scache_writer_close(writer);
	end_with(cache, reader);
}

START_TEST(room_given_back_never_stands_for_older_bytes)
{
	give_back_room(0);
	give_back_room(SCACHE_PASS_THROUGH);
}
END_TEST

static ssize_t make_reservation(struct call *call)
{
	void *data;

	return scache_reserve(call->writer, call->bytes, &data, SCACHE_FOREVER);
}

START_TEST(a_reservation_waits_for_the_window)
{
	struct call call = { .make = make_reservation, .bytes = 70000 };
	struct scache *cache = scratch_open();
	struct scache_reader *reader;
	uint64_t position = 0;
	void *data;

	call.writer = create_as(cache, 0, WINDOW_BYTES, &reader);
	/* No more than the window allows. */
	must_be(scache_reserve(call.writer, 70000, &data, 0), WINDOW_BYTES);
	pattern_fill(1, 0, data, WINDOW_BYTES);
	must_be(scache_commit(call.writer, WINDOW_BYTES), WINDOW_BYTES);
	must_be(scache_reserve(call.writer, 70000, &data, 0), -EAGAIN);
	must_be(scache_commit(call.writer, 1), -EINVAL);
	must_be(scache_reserve(call.writer, 70000, &data, 20 * MS_NS), -ETIMEDOUT);
	call_start(&call);
	eventually(writer_waits_at(reader, WINDOW_BYTES));
	must_be(pattern_read(reader, 1, &position, 20000, 20000), 1);
	must_be(call_end(&call), 20000);
	must_be(scache_commit(call.writer, 0), 0);
	call.bytes = 7;
	call_start(&call);
	must_be(call_end(&call), 7);
	/* Its only reader is this thread's own. */
	put(call.writer, WINDOW_BYTES, WINDOW_BYTES + 20000);
	must_be(scache_reserve(call.writer, 1, &data, SCACHE_FOREVER), -EDEADLK);
	scache_reader_close(reader);
	must_be(scache_reserve(call.writer, 1, &data, SCACHE_FOREVER), -EPIPE);
	must_be(scache_commit(call.writer, 0), -EPIPE);
	scache_writer_close(call.writer);
	end_with(cache, NULL);
}
END_TEST

/* --------------------------------------------------------------------- death */

/* What a producer does until it is killed. */
struct life {
	uint32_t flags;
	uint64_t bytes;
	size_t reserved_bytes;
};

static void produce_and_stay(void *arg)
{
	const struct life *life = arg;
	struct scache_writer *writer = create_as(scratch_open(), life->flags, 0, NULL);
	void *at;
	ssize_t room;

	child_say(0);
	child_listen();
	put(writer, 0, life->bytes);
	if (life->reserved_bytes > 0) {
		room = scache_reserve(writer, life->reserved_bytes, &at, 0);
		must(room > 0);
		memset(at, 0xee, (size_t)room);
	}
	child_say(0);
	child_stay();
}

static void check_death(struct life *life)
{
	struct scache *cache = scratch_open();
	struct scache_reader *reader;
	struct child child;

	child_start(&child, produce_and_stay, life);
	child_hear(&child);
	reader = scratch_find(cache, "k");
	child_tell(&child, 0);
	child_hear(&child);
	child_kill(&child);
	pread_to_the_error(reader, life->bytes, -EOWNERDEAD);
	end_with(cache, reader);
}

START_TEST(of_a_dead_producer_there_are_its_bytes_and_then_eownerdead)
{
	struct life in_file = { 0, 500000, 0 };
	/* One byte more, and pread would be told to read first. */
	struct life in_ring = { SCACHE_PASS_THROUGH, RING_BYTES - 1, 0 };

	check_death(&in_file);
	check_death(&in_ring);
}
END_TEST

START_TEST(death_between_reserve_and_commit_leaves_what_was_published)
{
	struct life in_file = { 0, 500000, 60000 };
	struct life in_ring = { SCACHE_PASS_THROUGH, 200000, 60000 };

	check_death(&in_file);
	check_death(&in_ring);
}
END_TEST

int main(void)
{
	const TTest *const tests[] = {
		a_blob_produced_in_place_is_right_for_all,
		in_place_without_a_ring_goes_through_the_file,
		in_place_a_full_disk_is_noticed_by_nobody,
		without_a_ring_a_full_disk_is_noticed_by_nobody_either,
		a_grant_is_at_most_a_slice_and_never_wraps,
		no_more_is_committed_than_was_reserved_and_only_once,
		what_is_not_committed_never_shows_up,
		room_given_back_never_stands_for_older_bytes,
		a_reservation_waits_for_the_window,
		of_a_dead_producer_there_are_its_bytes_and_then_eownerdead,
		death_between_reserve_and_commit_leaves_what_was_published,
	};

	return SCRATCH_RUN("direct", tests);
}
