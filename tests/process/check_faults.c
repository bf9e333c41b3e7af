/* SPDX-License-Identifier: MIT */
/*
 * check_faults - the disk fails, and the callers are not told: they get all
 * their bytes, and only the storing is given up.
 *
 * The program starts itself once more with the module of tests/util/faults.c
 * before the C library, and tells that by the environment what is to fail.
 */
#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "../util/pattern.h"
#include "../util/scratch.h"
#include "../util/spawn.h"

#define BLOB_BYTES 2000000ull
#define READERS 3

static void set_fault(const char *call, int error, int after)
{
	char text[64];

	snprintf(text, sizeof(text), "%s %d %d", call, error, after);
	must(setenv("STREAMCACHE_FAULT", text, 1) == 0);
}

struct plan {
	const char *call; /* what fails; NULL: the caller has seen to it */
	int error, after;
	int finish; /* what scache_finish() returns */
};

/* Scratch as always, but of a declared size if room for it is to fail. */
static struct scache_writer *create(struct scache *cache, const struct plan *plan,
				    struct scache_reader **ret_reader)
{
	struct scache_acquire_options options = { .size = sizeof(options),
						  .window_bytes = 100000 };
	struct scache_writer *writer = NULL;

	if (plan->call != NULL && strcmp(plan->call, "fallocate") == 0)
		options.declared_bytes = BLOB_BYTES;
	must_be(scache_acquire(cache, "k", 1, &options, ret_reader, &writer), 0);
	must(writer != NULL);
	return writer;
}

static void *read_in_thread(void *arg)
{
	pattern_read_all(arg, 1, BLOB_BYTES);
	scache_reader_close(arg);
	return NULL;
}

/* Be elected with a reader of one's own, and produce while a thread reads. */
static void produce(void *arg)
{
	const struct plan *plan = arg;
	struct scache *cache = scratch_open();
	struct scache_reader *reader;
	struct scache_writer *writer;
	pthread_t thread;
	int error = 0;

	if (plan->call != NULL)
		set_fault(plan->call, plan->error, plan->after);
	writer = create(cache, plan, &reader);
	child_say(scratch_info(reader).flags & SCACHE_HIDDEN);
	child_listen();
	must(pthread_create(&thread, NULL, read_in_thread, reader) == 0);
	must_be(pattern_write(writer, 1, 0, BLOB_BYTES, 30000, &error), BLOB_BYTES);
	must_be(scache_finish(writer), plan->finish);
	scache_writer_close(writer);
	pthread_join(thread, NULL);
	scratch_close(cache);
}

static uint64_t blob_bytes = BLOB_BYTES;

/* A production under @plan with readers in other processes, and what is left of it. */
static void check_plan(const struct plan *plan)
{
	struct plan own = *plan;
	struct child writer, readers[READERS];
	int count = 0, kept = plan->finish == 0;
	struct scache *cache = scratch_open();

	child_start(&writer, produce, &own);
	/* Without a file from the start nobody else can join. */
	if (child_hear(&writer) == 0)
		for (; count < READERS; count++) {
			child_start(&readers[count], scratch_read_along, &blob_bytes);
			child_hear(&readers[count]);
		}
	must_be(count, plan->call != NULL && (strcmp(plan->call, "open") == 0 ||
					      (strcmp(plan->call, "fallocate") == 0 && !kept)) ?
			       0 : READERS);
	child_tell(&writer, 0);
	for (int i = 0; i < count; i++)
		child_join(&readers[i]);
	child_join(&writer);
	must_be(scratch_stat(cache).degraded, !kept);
	must_be(scratch_stat(cache).failures, 0);
	must_be(scratch_misses(cache, "k"), !kept);
	scratch_is_clean(cache);
	must_be(scratch_stat(cache).entries, kept);
	/* The next one finds a disk that works. */
	if (!kept)
		pattern_produce(scratch_create(cache, "k", 0, NULL), 2, 1000, 1000);
	must(!scratch_misses(cache, "k"));
	scratch_close(cache);
}

static int standard_fds(void)
{
	return (fcntl(0, F_GETFD) >= 0) + (fcntl(1, F_GETFD) >= 0) + (fcntl(2, F_GETFD) >= 0);
}

/* A daemon that has closed them and prints all the same. */
static void produce_without_standard_fds(void *arg)
{
	struct scache_reader *reader;
	struct scache_writer *writer;
	struct scache *cache;
	uint64_t position = 0;

	(void)arg;
	close(0);
	close(1);
	close(2);
	cache = scratch_open();
	must_be(standard_fds(), 0);
	writer = scratch_create(cache, "k", SCACHE_UNLIMITED, &reader);
	must_be(standard_fds(), 0);
	pattern_produce(writer, 1, BLOB_BYTES, 30000);
	must_be(pattern_read(reader, 1, &position, UINT64_MAX, 30000), 0);
	must_be(standard_fds(), 0);
	scache_reader_close(reader);
	must_be(scache_sweep(cache, NULL, NULL), 0);
	must_be(standard_fds(), 0);
	scratch_close(cache);
}

START_TEST(no_file_of_ours_is_standard_output)
{
	struct scache *cache = scratch_open();
	struct scache_reader *reader;
	struct child child;

	child_start(&child, produce_without_standard_fds, NULL);
	child_join(&child);
	reader = scratch_find(cache, "k");
	pattern_read_all(reader, 1, BLOB_BYTES);
	scache_reader_close(reader);
	scratch_close(cache);
}
END_TEST

START_TEST(a_file_that_cannot_be_made_is_done_without)
{
	check_plan(&(struct plan){ "open", EACCES, 0, SCACHE_NOT_KEPT });
}
END_TEST

START_TEST(too_many_open_files_are_no_failure)
{
	check_plan(&(struct plan){ "open", EMFILE, 0, SCACHE_NOT_KEPT });
}
END_TEST

START_TEST(a_disk_that_fails_at_once_is_done_without)
{
	check_plan(&(struct plan){ "pwrite", EIO, 0, SCACHE_NOT_KEPT });
}
END_TEST

START_TEST(a_disk_that_fails_in_mid_stream_is_done_without)
{
	check_plan(&(struct plan){ "pwrite", EIO, 5, SCACHE_NOT_KEPT });
}
END_TEST

START_TEST(a_full_disk_is_done_without)
{
	check_plan(&(struct plan){ "pwrite", ENOSPC, 3, SCACHE_NOT_KEPT });
}
END_TEST

START_TEST(what_is_declared_and_has_no_room_is_done_without)
{
	check_plan(&(struct plan){ "fallocate", ENOSPC, 0, SCACHE_NOT_KEPT });
}
END_TEST

START_TEST(a_quota_is_a_full_disk)
{
	check_plan(&(struct plan){ "fallocate", EDQUOT, 0, SCACHE_NOT_KEPT });
}
END_TEST

START_TEST(a_file_system_that_cannot_reserve_stores_all_the_same)
{
	check_plan(&(struct plan){ "fallocate", EOPNOTSUPP, 0, 0 });
}
END_TEST

START_TEST(an_interrupted_reservation_is_repeated_or_done_without)
{
	check_plan(&(struct plan){ "fallocate", EINTR, 0, 0 });
}
END_TEST

START_TEST(a_failing_close_makes_a_blob_that_is_not_kept)
{
	check_plan(&(struct plan){ "close", EIO, 0, SCACHE_NOT_KEPT });
}
END_TEST

START_TEST(an_interrupted_write_is_repeated)
{
	check_plan(&(struct plan){ "pwrite", EINTR, -3, 0 });
}
END_TEST

START_TEST(a_short_write_is_continued)
{
	check_plan(&(struct plan){ "short", 1, 0, 0 });
}
END_TEST

/* The same by the thread that compresses: what has failed there its producer learns. */
START_TEST(of_what_is_compressed_nobody_notices_more)
{
	static const struct plan plans[] = {
		{ "open", EACCES, 0, SCACHE_NOT_KEPT },	  { "pwrite", EIO, 0, SCACHE_NOT_KEPT },
		{ "pwrite", EIO, 2, SCACHE_NOT_KEPT },	  { "pwrite", ENOSPC, 5, SCACHE_NOT_KEPT },
		{ "pwrite", ENOSPC, 8, SCACHE_NOT_KEPT }, { "pwrite", ENOSPC, 9, SCACHE_NOT_KEPT },
		{ "close", EIO, 0, SCACHE_NOT_KEPT },	  { "pwrite", EINTR, -3, 0 },
		{ "short", 1, 0, 0 },
	};

	scratch_options.ring_bytes = 1 << 20;
	scratch_options.compression = SCACHE_LZ4;
	for (size_t i = 0; i < sizeof(plans) / sizeof(plans[0]); i++) {
		check_plan(&plans[i]);
		must_be(scache_destroy(scratch_dir, NULL), 0);
	}
}
END_TEST

START_TEST(a_writer_without_file_that_nobody_can_join_does_not_wait_for_him)
{
	struct scache *cache = scratch_open();
	struct scache_writer *writer;
	static char data[100000];

	set_fault("open", EACCES, 0);
	writer = scratch_create(cache, "k", sizeof(data), NULL);
	for (int i = 0; i < 5; i++)
		must(scache_write(writer, data, sizeof(data), 1000000000) != -ETIMEDOUT);
	scache_writer_close(writer);
	scratch_is_clean(cache);
	scratch_close(cache);
}
END_TEST

/* ------------------------------------------------------ without a ring, too */

START_TEST(with_neither_ring_nor_file_the_caller_is_told_to_bypass)
{
	struct scache *cache;
	struct scache_reader *reader = NULL;
	struct scache_writer *holder, *writer = NULL;

	scratch_options.rings = 1;
	cache = scratch_open();
	holder = scratch_create(cache, "has the ring", 0, NULL);
	set_fault("open", EACCES, 0);
	must_be(scache_acquire(cache, "k", 1, NULL, &reader, &writer), SCACHE_BYPASS);
	must(reader == NULL && writer == NULL);
	must_be(scratch_stat(cache).bypasses, 1);
	unsetenv("STREAMCACHE_FAULT");
	pattern_produce(scratch_create(cache, "k", 0, NULL), 1, 1000, 1000);
	scache_writer_close(holder);
	scratch_is_clean(cache);
	scratch_close(cache);
}
END_TEST

START_TEST(without_a_ring_a_failing_disk_is_waited_for_or_a_ring)
{
	static unsigned char data[10000];
	struct scache *cache;
	struct scache_reader *reader;
	struct scache_writer *holder, *writer;
	uint64_t position = 0;
	int error = 0;

	scratch_options.rings = 1;
	cache = scratch_open();
	holder = scratch_create(cache, "has the ring", 0, NULL);
	writer = scratch_create(cache, "k", 0, &reader);
	pattern_fill(1, 30000, data, sizeof(data));
	must_be(pattern_write(writer, 1, 0, 30000, 10000, &error), 30000);
	set_fault("pwrite", EIO, 0);
	must_be(scache_write(writer, data, sizeof(data), 0), -EAGAIN);
	must_be(scache_write(writer, data, sizeof(data), 50 * 1000000), -ETIMEDOUT);
	must(!scratch_misses(cache, "k"));
	unsetenv("STREAMCACHE_FAULT");
	must_be(scache_write(writer, data, sizeof(data), 0), sizeof(data));
	set_fault("pwrite", EIO, 0);
	scache_writer_close(holder);
	must_be(pattern_write(writer, 1, 40000, 90000, 10000, &error), 50000);
	must_be(scratch_stat(cache).emergencies, 1);
	must(scratch_misses(cache, "k"));
	must_be(scache_finish(writer), SCACHE_NOT_KEPT);
	must_be(pattern_read(reader, 1, &position, UINT64_MAX, 4096), 0);
	must_be(position, 90000);
	unsetenv("STREAMCACHE_FAULT");
	scache_writer_close(writer);
	scache_reader_close(reader);
	scratch_is_clean(cache);
	scratch_close(cache);
}
END_TEST

START_TEST(for_a_disk_that_fails_others_go_once_and_not_at_each_try)
{
	static const char data[10000];
	struct scache *cache;
	struct scache_writer *holder, *writer;
	char key[] = "0";

	scratch_options.rings = 1;
	cache = scratch_open();
	for (int i = 0; i < 8; i++) {
		key[0] = (char)('a' + i);
		pattern_produce(scratch_create(cache, key, 0, NULL), 1, sizeof(data), sizeof(data));
	}
	holder = scratch_create(cache, "has the ring", 0, NULL);
	writer = scratch_create(cache, "k", 0, NULL);
	for (int i = 1; i <= 2; i++) {
		set_fault("pwrite", EIO, 0);
		for (int tries = 0; tries < 5; tries++)
			must_be(scache_write(writer, data, sizeof(data), 0), -EAGAIN);
		must_be(scratch_stat(cache).evicted, i);
		/* What is written is another matter. */
		unsetenv("STREAMCACHE_FAULT");
		must_be(scache_write(writer, data, sizeof(data), 0), sizeof(data));
	}
	scache_writer_close(writer);
	scache_writer_close(holder);
	scratch_is_clean(cache);
	scratch_close(cache);
}
END_TEST

/* ------------------------------------------------- what needs no fault made for it */

static void produce_under_a_limit(void *arg)
{
	struct rlimit limit = { .rlim_cur = 500000, .rlim_max = RLIM_INFINITY };
	struct sigaction action;
	sigset_t pending, blocked;

	must(sigaction(SIGXFSZ, NULL, &action) == 0 && action.sa_handler == SIG_DFL);
	must(setrlimit(RLIMIT_FSIZE, &limit) == 0);
	produce(arg);
	must(sigaction(SIGXFSZ, NULL, &action) == 0 && action.sa_handler == SIG_DFL);
	must(sigpending(&pending) == 0 && !sigismember(&pending, SIGXFSZ));
	must(sigprocmask(SIG_BLOCK, NULL, &blocked) == 0 && !sigismember(&blocked, SIGXFSZ));
}

START_TEST(a_limit_on_file_sizes_kills_nobody)
{
	struct plan plan = { .finish = SCACHE_NOT_KEPT };
	struct scache *cache = scratch_open();
	struct child writer, reader;

	child_start(&writer, produce_under_a_limit, &plan);
	must_be(child_hear(&writer), 0);
	child_start(&reader, scratch_read_along, &blob_bytes);
	child_hear(&reader);
	child_tell(&writer, 0);
	child_join(&reader);
	child_join(&writer);
	must_be(scratch_stat(cache).degraded, 1);
	scratch_is_clean(cache);
	scratch_close(cache);
}
END_TEST

/* As nobody, who may not write to its blobs directory any more. */
static void produce_unwritable(void *arg)
{
	struct plan plan = { .finish = SCACHE_NOT_KEPT };
	char blobs[320];
	struct scache *cache;

	(void)arg;
	scratch_drop_root();
	cache = scratch_open();
	snprintf(blobs, sizeof(blobs), "%s/blobs", scratch_dir);
	must(chmod(blobs, 0500) == 0);
	produce(&plan);
	must(scratch_misses(cache, "k"));
	must_be(scratch_stat(cache).degraded, 1);
	must(chmod(blobs, 0700) == 0);
	scratch_is_clean(cache);
	must_be(scache_close(cache), 0);
}

START_TEST(a_blobs_directory_without_permission_is_done_without)
{
	struct child child;

	scratch_give_away();
	child_start(&child, produce_unwritable, NULL);
	must_be(child_hear(&child), SCACHE_HIDDEN);
	child_tell(&child, 0);
	child_join(&child);
}
END_TEST

/* ------------------------------------------------------------------------- locks */

static void open_is_refused(void)
{
	struct scache *cache;

	must_be(scache_open(scratch_dir, &scratch_options, &cache), -ENOLCK);
	must(scache_detail()[0] != '\0');
	unsetenv("STREAMCACHE_FAULT");
	scratch_close(scratch_open());
	must_be(scache_destroy(scratch_dir, NULL), 0);
	/* No segment either. */
	must(rmdir(scratch_base) == 0);
}

START_TEST(a_file_system_without_ofd_locks_is_refused)
{
	set_fault("lock", EINVAL, 0);
	open_is_refused();
}
END_TEST

START_TEST(a_file_system_whose_locks_exclude_nobody_is_refused)
{
	set_fault("blind", 1, 0);
	open_is_refused();
}
END_TEST

/* ------------------------------------------------------------------------- start */

/* tests/process/[.libs/]check_faults, and beside it tests/util/.libs/faults.so. */
static void find_module(char *ret_path, size_t bytes)
{
	char self[4096];
	ssize_t length = readlink("/proc/self/exe", self, sizeof(self) - 1);
	char *at;

	if (length < 0)
		exit(99);
	self[length] = '\0';
	at = strstr(self, "/tests/process/");
	if (at == NULL)
		exit(99);
	snprintf(ret_path, bytes, "%.*s/tests/util/.libs/faults.so", (int)(at - self), self);
}

int main(int argc, char **argv)
{
	const TTest *const tests[] = {
		no_file_of_ours_is_standard_output,
		a_file_that_cannot_be_made_is_done_without,
		too_many_open_files_are_no_failure,
		a_disk_that_fails_at_once_is_done_without,
		a_disk_that_fails_in_mid_stream_is_done_without,
		a_full_disk_is_done_without,
		what_is_declared_and_has_no_room_is_done_without,
		a_quota_is_a_full_disk,
		a_file_system_that_cannot_reserve_stores_all_the_same,
		an_interrupted_reservation_is_repeated_or_done_without,
		a_failing_close_makes_a_blob_that_is_not_kept,
		an_interrupted_write_is_repeated,
		a_short_write_is_continued,
		of_what_is_compressed_nobody_notices_more,
		a_writer_without_file_that_nobody_can_join_does_not_wait_for_him,
		with_neither_ring_nor_file_the_caller_is_told_to_bypass,
		without_a_ring_a_failing_disk_is_waited_for_or_a_ring,
		for_a_disk_that_fails_others_go_once_and_not_at_each_try,
		a_limit_on_file_sizes_kills_nobody,
		a_blobs_directory_without_permission_is_done_without,
		a_file_system_without_ofd_locks_is_refused,
		a_file_system_whose_locks_exclude_nobody_is_refused,
	};
	char module[4200];

	if (argc == 1) {
		char *const again[] = { argv[0], (char *)(uintptr_t)"again", NULL };

		find_module(module, sizeof(module));
		if (access(module, R_OK) < 0) {
			perror(module);
			return 99;
		}
		setenv("LD_PRELOAD", module, 1);
		/* AddressSanitizer wants to be first; here it need not be. */
		setenv("ASAN_OPTIONS", "verify_asan_link_order=0", 1);
		execv("/proc/self/exe", again);
		return 99;
	}
	unsetenv("LD_PRELOAD");
	return SCRATCH_RUN("faults", tests);
}
