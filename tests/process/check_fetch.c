/* SPDX-License-Identifier: MIT */
/*
 * check_fetch - scache_fetch(): who produces, in which thread, for whom, and
 * how it ends.
 */
#include <check.h>
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <sys/resource.h>

#include "../util/pattern.h"
#include "../util/producer.h"
#include "../util/scratch.h"
#include "../util/spawn.h"

#define PROCESSES 16
#define BLOB_BYTES 600000ull /* more than the ring */
#define WINDOW_BYTES (64u << 10)

static const struct scache_acquire_options run_to_end = { .size = sizeof(run_to_end),
							  .flags = SCACHE_RUN_TO_END };
static const struct scache_acquire_options narrow = { .size = sizeof(narrow),
						      .window_bytes = WINDOW_BYTES };

/* A later fetch finds it: nothing is produced. */
static void is_kept(struct scache *cache)
{
	static struct task task = { .seed = 99, .bytes = 1 };
	int begun = atomic_load(&board->begun);
	struct scache_reader *reader;

	must_be(task_fetch(cache, "k", NULL, &task, &reader), 0);
	must_be(atomic_load(&board->begun), begun);
	pattern_read_all(reader, 1, BLOB_BYTES);
	scache_reader_close(reader);
}

/* ---------------------------------------------------------------- who produces */

/* The body of a child: fetch "k" as @arg says, tell whether it was elected, read all. */
static void fetch_along(void *arg)
{
	struct task task = *(const struct task *)arg;
	struct scache *cache = scratch_open();
	struct scache_reader *reader;

	child_say(0);
	child_listen();
	child_say(task_fetch(cache, "k", NULL, &task, &reader));
	pattern_read_all(reader, 1, BLOB_BYTES);
	scache_reader_close(reader);
	scratch_close(cache);
}

START_TEST(sixteen_processes_fetch_one_key_and_one_of_them_produces)
{
	struct task task = { .seed = 1, .bytes = BLOB_BYTES, .pauses = true, .pause_at = 100000 };
	struct child children[PROCESSES];
	struct scache *cache;
	int64_t created = 0;

	board_make();
	for (int i = 0; i < PROCESSES; i++)
		child_start(&children[i], fetch_along, &task);
	for (int i = 0; i < PROCESSES; i++)
		child_hear(&children[i]);
	for (int i = 0; i < PROCESSES; i++)
		child_tell(&children[i], 0);
	for (int i = 0; i < PROCESSES; i++)
		created += child_hear(&children[i]);
	must_be(created, 1);
	must_be(atomic_load(&board->returned), 0);
	atomic_store(&board->go, 1);
	for (int i = 0; i < PROCESSES; i++)
		child_join(&children[i]);
	must_be(atomic_load(&board->begun), 1);
	must_be(atomic_load(&board->released), PROCESSES);
	cache = scratch_open();
	is_kept(cache);
	must_be(scratch_stat(cache).productions, 1);
	must_be(scratch_stat(cache).joins, PROCESSES - 1);
	task_close(cache, NULL);
}
END_TEST

START_TEST(the_reader_is_there_before_the_first_byte)
{
	struct task task = { .seed = 1, .bytes = BLOB_BYTES, .pauses = true };
	struct scache *cache;
	struct scache_reader *reader;
	uint64_t bytes = 1;
	char byte;

	board_make();
	cache = scratch_open();
	must_be(task_fetch(cache, "k", NULL, &task, &reader), 1);
	eventually(atomic_load(&board->paused));
	must_be(scache_size(reader, &bytes), 0);
	must_be(bytes, 0);
	must_be(scache_read(reader, &byte, 1, 0), -EAGAIN);
	must_be(scache_read(reader, &byte, 1, 1000000), -ETIMEDOUT);
	must_be(scratch_info(reader).state, SCACHE_FILLING);
	atomic_store(&board->go, 1);
	pattern_read_all(reader, 1, BLOB_BYTES);
	is_kept(cache);
	task_close(cache, reader);
}
END_TEST

static bool is_a_fault(int number)
{
	static const int faults[] = { SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP, SIGSYS, SIGABRT };

	for (unsigned i = 0; i < sizeof(faults) / sizeof(faults[0]); i++)
		if (faults[i] == number)
			return true;
	return false;
}

static int look_at_signals(struct task *task, struct scache_writer *writer)
{
	sigset_t blocked;

	(void)task;
	(void)writer;
	must(pthread_sigmask(SIG_SETMASK, NULL, &blocked) == 0);
	for (int i = 1; i <= SIGRTMAX; i++) {
		/* Those cannot be blocked, or are the C library's own. */
		if (i == SIGKILL || i == SIGSTOP || (i >= 32 && i < SIGRTMIN))
			continue;
		must_be(sigismember(&blocked, i), !is_a_fault(i));
	}
	atomic_store(&board->done, 1);
	return 0;
}

START_TEST(the_callback_has_a_thread_of_its_own_and_no_signals_but_faults)
{
	struct task task = { .seed = 1, .bytes = BLOB_BYTES, .ending = look_at_signals };
	struct scache *cache;
	struct scache_reader *reader;
	sigset_t before, after;

	board_make();
	cache = scratch_open();
	sigemptyset(&before);
	sigaddset(&before, SIGUSR1);
	must(pthread_sigmask(SIG_SETMASK, &before, NULL) == 0);
	must_be(task_fetch(cache, "k", NULL, &task, &reader), 1);
	must(pthread_sigmask(SIG_SETMASK, NULL, &after) == 0);
	for (int i = 1; i < SIGRTMAX; i++)
		must_be(sigismember(&after, i), i == SIGUSR1);
	pattern_read_all(reader, 1, BLOB_BYTES);
	must(!pthread_equal(task.thread, pthread_self()));
	must_be(atomic_load(&board->done), 1);
	task_close(cache, reader);
}
END_TEST

/* --------------------------------------------------------------------- for whom */

START_TEST(a_callback_goes_on_for_another_process_when_its_caller_has_left)
{
	struct task task = { .seed = 1, .bytes = BLOB_BYTES, .pauses = true, .pause_at = 1000 };
	struct scache *cache;
	struct scache_reader *reader;
	struct child other;

	board_make();
	child_start(&other, fetch_along, &task);
	child_hear(&other);
	cache = scratch_open();
	must_be(task_fetch(cache, "k", NULL, &task, &reader), 1);
	child_tell(&other, 0);
	must_be(child_hear(&other), 0);
	scache_reader_close(reader);
	atomic_store(&board->go, 1);
	child_join(&other);
	must_be(atomic_load(&board->begun), 1);
	must_be(atomic_load(&board->error), 0);
	is_kept(cache);
	task_close(cache, NULL);
}
END_TEST

START_TEST(a_callback_that_nobody_reads_any_more_gets_EPIPE)
{
	struct task task = { .seed = 1, .bytes = BLOB_BYTES, .pauses = true, .pause_at = 1000 };
	struct task again = { .seed = 1, .bytes = BLOB_BYTES };
	struct scache *cache;
	struct scache_reader *reader;
	uint64_t position = 0;

	board_make();
	cache = scratch_open();
	must_be(task_fetch(cache, "k", NULL, &task, &reader), 1);
	must_be(pattern_read(reader, 1, &position, 1000, 1000), 1);
	scache_reader_close(reader);
	atomic_store(&board->go, 1);
	/* It returns 0, as if all were well; that is not believed. */
	eventually(atomic_load(&board->released) == 1);
	must_be(atomic_load(&board->error), -EPIPE);
	must_be(scratch_stat(cache).entries_finished, 0);
	must_be(scratch_stat(cache).failures, 1);
	must_be(task_fetch(cache, "k", NULL, &again, &reader), 1);
	pattern_read_all(reader, 1, BLOB_BYTES);
	task_close(cache, reader);
}
END_TEST

START_TEST(a_callback_that_runs_to_its_end_needs_nobody)
{
	struct task task = { .seed = 1, .bytes = BLOB_BYTES, .pauses = true, .pause_at = 1000 };
	struct scache *cache;
	struct scache_reader *reader;

	board_make();
	cache = scratch_open();
	must_be(task_fetch(cache, "k", &run_to_end, &task, &reader), 1);
	scache_reader_close(reader);
	atomic_store(&board->go, 1);
	eventually(atomic_load(&board->released) == 1);
	must_be(atomic_load(&board->error), 0);
	must_be(scratch_stat(cache).entries_finished, 1);
	is_kept(cache);
	task_close(cache, NULL);
}
END_TEST

/* ------------------------------------------------------------------ how it ends */

static void check_result(struct scache_reader *reader, int code, uint64_t bytes,
			 const char *message)
{
	struct scache_result result = { .size = sizeof(result) };
	char text[100];

	must_be(scratch_info(reader).state, SCACHE_FAILED);
	must_be(scache_wait(reader, 0, &result), 0);
	must_be(result.code, code);
	must_be(result.bytes, bytes);
	must_be(scache_message(reader, text, sizeof(text)), strlen(message));
	must(strcmp(text, message) == 0);
}

/* What @reader has still to say; whoever comes then is elected, and finds a clean cache. */
static void fails_with(struct scache *cache, struct scache_reader *reader, uint64_t *position,
		       int code, const char *message)
{
	struct task again = { .seed = 1, .bytes = BLOB_BYTES };
	int error = code > 0 ? -EREMOTEIO : code;
	struct scache_reader *other;
	char byte;

	must_be(pattern_read(reader, 1, position, UINT64_MAX, 65536), error);
	/* By the time we know it the key is free. */
	must_be(task_fetch(cache, "k", NULL, &again, &other), 1);
	must_be(scache_read(reader, &byte, 1, 0), error);
	check_result(reader, code, *position, message);
	pattern_read_all(other, 1, BLOB_BYTES);
	scache_reader_close(other);
	must_be(scratch_stat(cache).failures, 1);
	task_close(cache, reader);
}

static void ends_as_told(struct task task, int code, const char *message)
{
	struct scache *cache;
	struct scache_reader *reader;
	uint64_t position = 0;

	board_make();
	task.seed = 1;
	task.bytes = BLOB_BYTES;
	cache = scratch_open();
	must_be(task_fetch(cache, "k", NULL, &task, &reader), 1);
	must_be(pattern_read(reader, 1, &position, BLOB_BYTES, 65536), 1);
	fails_with(cache, reader, &position, code, message);
	must_be(scache_destroy(scratch_dir, NULL), 0);
}

START_TEST(an_errno_of_the_callback_reaches_its_readers)
{
	ends_as_told((struct task){ .ret = -EDOM }, -EDOM, "");
}
END_TEST

START_TEST(a_code_of_the_callbacks_own_reaches_its_readers)
{
	ends_as_told((struct task){ .ret = 42 }, 42, "");
}
END_TEST

static int abort_with_message(struct task *task, struct scache_writer *writer)
{
	must_be(scache_abort(writer, -ENODEV, "no tape", 7), 0);
	must_be(scache_write(writer, "x", 1, 0), -ENODEV);
	return task->ret;
}

START_TEST(a_callback_may_abort_and_then_return_what_it_likes)
{
	ends_as_told((struct task){ .ending = abort_with_message }, -ENODEV, "no tape");
	ends_as_told((struct task){ .ending = abort_with_message, .ret = 7 }, -ENODEV, "no tape");
}
END_TEST

START_TEST(a_code_that_no_producer_can_say_is_EIO)
{
	static const int codes[] = { -EAGAIN, -ETIMEDOUT,   -ESTALE,
				     -ECHILD, -EOWNERDEAD, -EBADMSG };

	for (unsigned i = 0; i < sizeof(codes) / sizeof(codes[0]); i++)
		ends_as_told((struct task){ .ret = codes[i] }, -EIO, "");
}
END_TEST

static int leave(struct task *task, struct scache_writer *writer)
{
	(void)task;
	(void)writer;
	pthread_exit(NULL);
}

START_TEST(a_callback_that_leaves_by_pthread_exit_has_cancelled)
{
	ends_as_told((struct task){ .ending = leave }, -ECANCELED, "");
}
END_TEST

static int finish_it(struct task *task, struct scache_writer *writer)
{
	must_be(scache_finish(writer), 0);
	return task->ret;
}

START_TEST(a_callback_may_finish_and_then_return_what_it_likes)
{
	struct task task = { .seed = 1, .bytes = BLOB_BYTES, .ending = finish_it, .ret = -EIO };
	struct scache *cache;
	struct scache_reader *reader;

	board_make();
	cache = scratch_open();
	must_be(task_fetch(cache, "k", NULL, &task, &reader), 1);
	pattern_read_all(reader, 1, BLOB_BYTES);
	is_kept(cache);
	task_close(cache, reader);
}
END_TEST

/* Without a ring each byte goes to the file, and that may be no longer. */
static void fetch_onto_full_disk(void *arg)
{
	const struct rlimit limit = { 100000, 100000 };
	struct task task = { .seed = 1, .bytes = BLOB_BYTES };
	struct scache *cache = scratch_open();
	struct scache_reader *reader;
	uint64_t position = 0;

	(void)arg;
	must(setrlimit(RLIMIT_FSIZE, &limit) == 0);
	must_be(task_fetch(cache, "k", NULL, &task, &reader), 1);
	eventually(scratch_info(reader).flags & SCACHE_WRITER_WAITS);
	must(scratch_info(reader).bytes <= 100000);
	child_say(0);
	must_be(pattern_read(reader, 1, &position, UINT64_MAX, 65536), 0);
	must_be(position, BLOB_BYTES);
	scache_reader_close(reader);
	scratch_close(cache);
	must_be(atomic_load(&board->error), 0);
	must_be(atomic_load(&board->written), position);
}

START_TEST(a_callback_without_a_ring_whose_file_fails_waits_for_one)
{
	struct scache_writer *has_the_ring;
	struct scache *cache;
	struct child child;

	board_make();
	scratch_options.rings = 1;
	cache = scratch_open();
	has_the_ring = scratch_create(cache, "other", 0, NULL);
	child_start(&child, fetch_onto_full_disk, NULL);
	child_hear(&child);
	scache_writer_close(has_the_ring);
	child_join(&child);
	must_be(scratch_stat(cache).emergencies, 1);
	must(scratch_misses(cache, "k"));
	task_close(cache, NULL);
}
END_TEST

/* ---------------------------------------------------------------- pthread_cancel */

static int write_for_ever(struct task *task, struct scache_writer *writer)
{
	/* Not on the stack: AddressSanitizer would take it for still there when it is unwound. */
	static char data[5000];

	for (uint64_t at = 0;; at += sizeof(data)) {
		pattern_fill(task->seed, at, data, sizeof(data));
		must_be(scache_write(writer, data, sizeof(data), SCACHE_FOREVER), sizeof(data));
	}
}

START_TEST(a_callback_cancelled_while_it_waits_for_room_has_cancelled)
{
	struct scache_result result = { .size = sizeof(result) };
	struct task task = { .seed = 1, .ending = write_for_ever };
	struct scache *cache;
	struct scache_reader *reader;
	uint64_t position = 0;

	board_make();
	cache = scratch_open();
	must_be(task_fetch(cache, "k", &narrow, &task, &reader), 1);
	eventually(scratch_info(reader).flags & SCACHE_WRITER_WAITS);
	must_be(scratch_info(reader).bytes, WINDOW_BYTES);
	must(pthread_cancel(task.thread) == 0);
	must_be(scache_wait(reader, SCACHE_FOREVER, &result), 0);
	fails_with(cache, reader, &position, -ECANCELED, "");
	must_be(position, WINDOW_BYTES);
}
END_TEST

START_TEST(a_callback_cancelled_in_the_midst_of_its_writes_has_cancelled)
{
	struct scache_result result = { .size = sizeof(result) };
	struct task task = { .seed = 1, .ending = write_for_ever };
	struct scache *cache;
	struct scache_reader *reader;
	uint64_t position = 0;

	board_make();
	cache = scratch_open();
	must_be(task_fetch(cache, "k", &narrow, &task, &reader), 1);
	must_be(pattern_read(reader, 1, &position, 3000000, 65536), 1);
	must(pthread_cancel(task.thread) == 0);
	/* Where it begins to wait, at the latest: nobody reads now. */
	must_be(scache_wait(reader, SCACHE_FOREVER, &result), 0);
	fails_with(cache, reader, &position, -ECANCELED, "");
	must_be(position, result.bytes);
}
END_TEST

int main(void)
{
	const TTest *const tests[] = {
		sixteen_processes_fetch_one_key_and_one_of_them_produces,
		the_reader_is_there_before_the_first_byte,
		the_callback_has_a_thread_of_its_own_and_no_signals_but_faults,
		a_callback_goes_on_for_another_process_when_its_caller_has_left,
		a_callback_that_nobody_reads_any_more_gets_EPIPE,
		a_callback_that_runs_to_its_end_needs_nobody,
		an_errno_of_the_callback_reaches_its_readers,
		a_code_of_the_callbacks_own_reaches_its_readers,
		a_callback_may_abort_and_then_return_what_it_likes,
		a_code_that_no_producer_can_say_is_EIO,
		a_callback_that_leaves_by_pthread_exit_has_cancelled,
		a_callback_may_finish_and_then_return_what_it_likes,
		a_callback_without_a_ring_whose_file_fails_waits_for_one,
		a_callback_cancelled_while_it_waits_for_room_has_cancelled,
		a_callback_cancelled_in_the_midst_of_its_writes_has_cancelled,
	};

	return SCRATCH_RUN("fetch", tests);
}
