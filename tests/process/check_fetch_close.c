/* SPDX-License-Identifier: MIT */
/*
 * check_fetch_close - fetched streams and their callbacks at the end: release,
 * close, cancel, fork; and fetches within callbacks.
 */
#include <check.h>
#include <errno.h>
#include <pthread.h>
#include <string.h>

#include "../util/pattern.h"
#include "../util/producer.h"
#include "../util/scratch.h"
#include "../util/spawn.h"

#define BLOB_BYTES 600000ull /* more than the ring */
#define MS 1000000ll

static const struct scache_acquire_options run_to_end = { .size = sizeof(run_to_end),
							  .flags = SCACHE_RUN_TO_END };

/* A callback that has written 1000 bytes and waits for board->go. */
static struct scache *start(struct task *task, const struct scache_acquire_options *options,
			    struct scache_reader **ret_reader)
{
	struct scache *cache;

	task->seed = 1;
	task->bytes = BLOB_BYTES;
	task->pauses = true;
	task->pause_at = 1000;
	board_make();
	cache = scratch_open();
	must_be(task_fetch(cache, "k", options, task, ret_reader), 1);
	eventually(atomic_load(&board->paused) == 1);
	return cache;
}

/* --------------------------------------------------------------------- release */

START_TEST(release_waits_for_the_callback_if_the_reader_goes_first)
{
	struct task task = { .ret = 0 };
	struct scache_reader *reader;
	struct scache *cache = start(&task, NULL, &reader);

	scache_reader_close(reader);
	must_be(atomic_load(&board->released), 0);
	atomic_store(&board->go, 1);
	eventually(atomic_load(&board->released) == 1);
	must_be(atomic_load(&board->returned), 1);
	task_close(cache, NULL);
}
END_TEST

START_TEST(release_waits_for_the_reader_if_the_callback_returns_first)
{
	int threads = threads_now();
	struct task task = { .ret = 0 };
	struct scache_reader *reader;
	struct scache *cache = start(&task, NULL, &reader);

	atomic_store(&board->go, 1);
	/* All that it will ever do it has done. */
	eventually(threads_now() == threads);
	must_be(atomic_load(&board->returned), 1);
	must_be(atomic_load(&board->released), 0);
	pattern_read_all(reader, 1, BLOB_BYTES);
	must_be(atomic_load(&board->released), 0);
	scache_reader_close(reader);
	must_be(atomic_load(&board->released), 1);
	task_close(cache, NULL);
}
END_TEST

START_TEST(release_is_called_for_those_who_join_and_those_who_hit)
{
	struct task task = { .ret = 0 }, joins = { .seed = 2 }, hits = { .seed = 3 };
	struct scache_reader *reader, *other;
	struct scache *cache = start(&task, NULL, &reader);

	must_be(task_fetch(cache, "k", NULL, &joins, &other), 0);
	must_be(scache_reader_close(other), 0);
	/* In no job's hands, although a thread for it may have been made. */
	eventually(atomic_load(&board->released) == 1);
	must_be(task_fetch(cache, "k", NULL, &joins, &other), 0);
	atomic_store(&board->go, 1);
	pattern_read_all(other, 1, BLOB_BYTES);
	scache_reader_close(other);
	pattern_read_all(reader, 1, BLOB_BYTES);
	must_be(scache_reader_close(reader), 0);
	must_be(task_fetch(cache, "k", NULL, &hits, &reader), 0);
	pattern_read_all(reader, 1, BLOB_BYTES);
	task_close(cache, reader);
	must_be(atomic_load(&board->released), 4);
	must_be(atomic_load(&board->begun), 1);
}
END_TEST

static int write_hello(void *arg, struct scache_writer *writer)
{
	(void)arg;
	return scache_write(writer, "hello", 5, SCACHE_FOREVER) == 5 ? 0 : -EIO;
}

START_TEST(release_and_ret_created_may_be_NULL)
{
	const struct scache_producer producer = { .size = sizeof(producer), .create = write_hello };
	struct scache *cache = scratch_open();
	struct scache_reader *reader;
	char text[8];

	must_be(scache_fetch(cache, "k", 1, NULL, &producer, &reader, NULL), 0);
	must_be(scache_read(reader, text, sizeof(text), SCACHE_FOREVER), 5);
	must(memcmp(text, "hello", 5) == 0);
	must_be(scache_read(reader, text, sizeof(text), SCACHE_FOREVER), 0);
	scache_reader_close(reader);
	scratch_close(cache);
}
END_TEST

/* ----------------------------------------------------------------------- close */

static _Atomic int closed; /* 0: not yet, 1: about to, 2: done */

static void *close_it(void *arg)
{
	atomic_store(&closed, 1);
	must_be(scache_close(arg), 0);
	must_be(atomic_load(&board->returned), 1);
	must_be(atomic_load(&board->released), 1);
	atomic_store(&closed, 2);
	return NULL;
}

START_TEST(close_waits_for_a_running_callback)
{
	int threads = threads_now();
	struct task task = { .ret = 0 };
	struct scache_reader *reader;
	struct scache *cache = start(&task, &run_to_end, &reader);
	pthread_t closer;

	scache_reader_close(reader);
	must(pthread_create(&closer, NULL, close_it, cache) == 0);
	eventually(atomic_load(&closed) > 0);
	atomic_store(&board->go, 1);
	eventually(atomic_load(&closed) == 2);
	must(pthread_join(closer, NULL) == 0);
	must_be(atomic_load(&board->error), 0);
	eventually(threads_now() == threads);
	cache = scratch_open();
	must(!scratch_misses(cache, "k"));
	task_close(cache, NULL);
}
END_TEST

START_TEST(close_within_gives_up_and_the_cache_works_on)
{
	int threads = threads_now();
	struct task task = { .ret = 0 }, other = { .seed = 2, .bytes = BLOB_BYTES };
	struct scache_reader *reader;
	struct scache *cache = start(&task, &run_to_end, &reader);

	scache_reader_close(reader);
	must_be(scache_close_within(cache, 0), -EAGAIN);
	must_be(scache_close_within(cache, 2 * MS), -ETIMEDOUT);
	must_be(atomic_load(&board->returned), 0);
	must_be(task_fetch(cache, "other", NULL, &other, &reader), 1);
	pattern_read_all(reader, 2, BLOB_BYTES);
	must_be(scache_check(cache, NULL, NULL), 0);
	scache_reader_close(reader);
	must_be(scache_close_within(cache, 0), -EAGAIN);
	atomic_store(&board->go, 1);
	must_be(scache_close_within(cache, DEADLINE_MS * MS), 0);
	must_be(atomic_load(&board->returned), 2);
	must_be(atomic_load(&board->released), 2);
	eventually(threads_now() == threads);
}
END_TEST

START_TEST(close_is_refused_while_the_callers_reader_is_open)
{
	struct task task = { .ret = 0 };
	struct scache_reader *reader;
	struct scache *cache = start(&task, NULL, &reader);

	must_be(scache_close(cache), -EBUSY);
	must_be(scache_close_within(cache, 0), -EBUSY);
	must_be(scache_close_within(cache, MS), -EBUSY);
	atomic_store(&board->go, 1);
	pattern_read_all(reader, 1, BLOB_BYTES);
	must_be(scache_close(cache), -EBUSY);
	task_close(cache, reader);
}
END_TEST

static int close_from_inside(struct task *task, struct scache_writer *writer)
{
	(void)writer;
	must_be(scache_close_within(task->extra, 0), -EDEADLK);
	must_be(scache_close_within(task->extra, MS), -EDEADLK);
	must_be(scache_close(task->extra), -EDEADLK);
	atomic_store(&board->done, 1);
	return 0;
}

START_TEST(close_from_inside_a_callback_is_a_deadlock)
{
	struct task task = { .ending = close_from_inside };
	struct scache_reader *reader;
	struct scache *cache = start(&task, &run_to_end, &reader);

	task.extra = cache;
	scache_reader_close(reader);
	atomic_store(&board->go, 1);
	eventually(atomic_load(&board->done));
	task_close(cache, NULL);
}
END_TEST

static int write_nothing(void *arg, struct scache_writer *writer)
{
	(void)arg;
	(void)writer;
	eventually(atomic_load(&board->go));
	return 0;
}

static void close_in_release(void *arg)
{
	atomic_store(&board->error, scache_close_within(arg, 0));
	atomic_store(&board->done, 1);
}

START_TEST(close_from_inside_a_release_in_the_callbacks_thread_is_a_deadlock)
{
	struct scache_producer producer = { .size = sizeof(producer),
					    .create = write_nothing,
					    .release = close_in_release };
	struct scache_reader *reader;
	struct scache *cache;

	board_make();
	producer.arg = cache = scratch_open();
	must_be(scache_fetch(cache, "k", 1, NULL, &producer, &reader, NULL), 0);
	scache_reader_close(reader);
	atomic_store(&board->go, 1);
	eventually(atomic_load(&board->done));
	must_be(atomic_load(&board->error), -EDEADLK);
	scratch_close(cache);
}
END_TEST

static int close_another(struct task *task, struct scache_writer *writer)
{
	(void)task;
	(void)writer;
	must_be(scache_close(scratch_open()), 0);
	return 0;
}

START_TEST(a_callback_may_close_another_cache)
{
	struct task task = { .ending = close_another };
	struct scache_reader *reader;
	struct scache *cache = start(&task, NULL, &reader);

	atomic_store(&board->go, 1);
	pattern_read_all(reader, 1, BLOB_BYTES);
	task_close(cache, reader);
}
END_TEST

/* --------------------------------------------------------------- key within key */

/* What "inner" holds is what we hold. */
static int copy_inner(struct task *task, struct scache_writer *writer)
{
	static struct task inner;
	struct scache_reader *reader;
	char data[3000];
	ssize_t got;

	inner = (struct task){ .seed = 1, .bytes = BLOB_BYTES };
	atomic_store(&board->done, 1 + task_fetch(task->extra, "inner", NULL, &inner, &reader));
	while ((got = scache_read(reader, data, sizeof(data), SCACHE_FOREVER)) > 0)
		must_be(scache_write(writer, data, (size_t)got, SCACHE_FOREVER), got);
	scache_reader_close(reader);
	return (int)got;
}

START_TEST(a_callback_fetches_another_key_of_its_cache)
{
	struct task outer = { .ending = copy_inner };
	struct scache_reader *reader;
	struct scache *cache;

	board_make();
	outer.extra = cache = scratch_open();
	must_be(task_fetch(cache, "outer", NULL, &outer, &reader), 1);
	pattern_read_all(reader, 1, BLOB_BYTES);
	must_be(atomic_load(&board->done), 2);
	must(!scratch_misses(cache, "inner"));
	task_close(cache, reader);
}
END_TEST

static void produce_inner(void *arg)
{
	struct task inner = { .seed = 1, .bytes = BLOB_BYTES, .pauses = true, .pause_at = 1000 };
	struct scache *cache = scratch_open();
	struct scache_reader *reader;

	(void)arg;
	must_be(task_fetch(cache, "inner", NULL, &inner, &reader), 1);
	child_say(0);
	pattern_read_all(reader, 1, BLOB_BYTES);
	scache_reader_close(reader);
	scratch_close(cache);
}

START_TEST(a_callback_waits_for_a_key_of_another_process)
{
	struct task outer = { .ending = copy_inner };
	struct scache_reader *reader;
	struct scache *cache;
	struct child child;
	uint64_t position = 0;

	board_make();
	child_start(&child, produce_inner, NULL);
	child_hear(&child);
	outer.extra = cache = scratch_open();
	must_be(task_fetch(cache, "outer", NULL, &outer, &reader), 1);
	must_be(pattern_read(reader, 1, &position, 1000, 1000), 1);
	must_be(atomic_load(&board->done), 1);
	atomic_store(&board->go, 1);
	must_be(pattern_read(reader, 1, &position, UINT64_MAX, 4096), 0);
	must_be(position, BLOB_BYTES);
	child_join(&child);
	task_close(cache, reader);
}
END_TEST

static int copy_and_wait(struct task *task, struct scache_writer *writer)
{
	static struct task inner;
	struct scache_reader *reader;

	(void)writer;
	inner = (struct task){ .seed = 1, .bytes = BLOB_BYTES };
	must_be(task_fetch(task->extra, "inner", NULL, &inner, &reader), 1);
	atomic_store(&board->done, 1);
	eventually(atomic_load(&board->go) == 2);
	pattern_read_all(reader, 1, BLOB_BYTES);
	must_be(scache_reader_close(reader), 0);
	return 0;
}

START_TEST(close_waits_for_a_callback_that_has_a_stream_of_its_own)
{
	struct task outer = { .ending = copy_and_wait };
	struct scache_reader *reader;
	struct scache *cache;

	board_make();
	outer.extra = cache = scratch_open();
	must_be(task_fetch(cache, "outer", &run_to_end, &outer, &reader), 1);
	scache_reader_close(reader);
	eventually(atomic_load(&board->done));
	must_be(scache_close_within(cache, 0), -EAGAIN);
	must_be(scache_close_within(cache, MS), -ETIMEDOUT);
	atomic_store(&board->go, 2);
	task_close(cache, NULL);
}
END_TEST

/* ---------------------------------------------------------------------- cancel */

static void *wait_to_read(void *arg)
{
	char byte;

	must_be(scache_read(arg, &byte, 1, SCACHE_FOREVER), -ECANCELED);
	return NULL;
}

START_TEST(cancel_wakes_the_reader_of_a_silent_callback)
{
	struct scache_result result = { .size = sizeof(result) };
	struct task task = { .ret = 0 };
	struct scache_reader *reader;
	struct scache *cache = start(&task, NULL, &reader);
	uint64_t position = 0;
	pthread_t waits;
	char byte;

	must_be(pattern_read(reader, 1, &position, 1000, 1000), 1);
	must(pthread_create(&waits, NULL, wait_to_read, reader) == 0);
	eventually(scratch_stat(cache).waits > 0);
	must_be(scache_cancel(reader), 0);
	must(pthread_join(waits, NULL) == 0);
	must_be(scache_read(reader, &byte, 1, SCACHE_FOREVER), -ECANCELED);
	must_be(scache_pread(reader, &byte, 1, 5000, SCACHE_FOREVER), -ECANCELED);
	must_be(scache_wait(reader, SCACHE_FOREVER, &result), -ECANCELED);
	atomic_store(&board->go, 1);
	/* What is there is delivered, cancelled or not. */
	eventually(scache_wait(reader, 0, &result) == 0);
	must_be(result.code, 0);
	must_be(pattern_read(reader, 1, &position, UINT64_MAX, 4096), 0);
	must_be(position, BLOB_BYTES);
	task_close(cache, reader);
}
END_TEST

/* ------------------------------------------------------------------------ fork */

struct inheritance {
	struct scache *cache;
	struct scache_reader *reader;
};

static void inherit(void *arg)
{
	const struct inheritance *all = arg;
	static struct task task = { .seed = 2, .bytes = 10 };
	struct scache_reader *reader;
	char byte;

	must_be(scache_read(all->reader, &byte, 1, SCACHE_FOREVER), -ECHILD);
	must_be(scache_cancel(all->reader), -ECHILD);
	must_be(scache_reader_close(all->reader), 0);
	must_be(atomic_load(&board->released), 0);
	/* The handle serves the child: it joins what its parent produces. */
	must_be(task_fetch(all->cache, "k", NULL, &task, &reader), 0);
	must_be(scache_close_within(all->cache, 0), -EBUSY);
	child_say(0);
	pattern_read_all(reader, 1, BLOB_BYTES);
	scache_reader_close(reader);
	must_be(scache_close(all->cache), 0);
}

START_TEST(a_fork_child_takes_no_part_in_its_parents_fetches)
{
	struct task task = { .ret = 0 };
	struct inheritance all;
	struct child child;

	all.cache = start(&task, NULL, &all.reader);
	child_start(&child, inherit, &all);
	child_hear(&child);
	must_be(atomic_load(&board->released), 0);
	atomic_store(&board->go, 1);
	pattern_read_all(all.reader, 1, BLOB_BYTES);
	child_join(&child);
	must_be(atomic_load(&board->begun), 1);
	must_be(scratch_stat(all.cache).deaths, 0);
	task_close(all.cache, all.reader);
}
END_TEST

static void close_inherited(void *arg)
{
	const struct inheritance *all = arg;

	must_be(scache_reader_close(all->reader), 0);
	must_be(scache_close(all->cache), 0);
}

START_TEST(a_fork_child_does_not_release_what_its_parent_has)
{
	int threads = threads_now();
	struct task task = { .ret = 0 };
	struct inheritance all;
	struct child child;

	all.cache = start(&task, NULL, &all.reader);
	atomic_store(&board->go, 1);
	/* Now the reader alone holds it. */
	eventually(threads_now() == threads);
	child_start(&child, close_inherited, &all);
	child_join(&child);
	must_be(atomic_load(&board->released), 0);
	pattern_read_all(all.reader, 1, BLOB_BYTES);
	task_close(all.cache, all.reader);
}
END_TEST

int main(void)
{
	const TTest *const tests[] = {
		release_waits_for_the_callback_if_the_reader_goes_first,
		release_waits_for_the_reader_if_the_callback_returns_first,
		release_is_called_for_those_who_join_and_those_who_hit,
		release_and_ret_created_may_be_NULL,
		close_waits_for_a_running_callback,
		close_within_gives_up_and_the_cache_works_on,
		close_is_refused_while_the_callers_reader_is_open,
		close_from_inside_a_callback_is_a_deadlock,
		close_from_inside_a_release_in_the_callbacks_thread_is_a_deadlock,
		a_callback_may_close_another_cache,
		a_callback_fetches_another_key_of_its_cache,
		a_callback_waits_for_a_key_of_another_process,
		close_waits_for_a_callback_that_has_a_stream_of_its_own,
		cancel_wakes_the_reader_of_a_silent_callback,
		a_fork_child_takes_no_part_in_its_parents_fetches,
		a_fork_child_does_not_release_what_its_parent_has,
	};

	return SCRATCH_RUN("fetch_close", tests);
}
