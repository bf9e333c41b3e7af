/* SPDX-License-Identifier: MIT */
/* check_blob - the data files: names, modes, limits. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "../util/fixture.h"
#include "store/blob.h"

static struct fixture f;
static struct scache *cache;
static struct store *store;
static const struct entry_name name = { .idx = 3, .gen = UINT32_MAX };
static const struct key_hash hash = { .high = 0xab00000000000001ull, .low = 2 };

static void setup(void)
{
	fixture_begin(&f);
	cache = fixture_open(&f);
	store = &cache->seat->store;
}

static void teardown(void)
{
	fixture_end(&f);
}

START_TEST(a_path_says_whose_file_it_is)
{
	static const struct entry_name names[] = { { 0, 0 }, { 1, 2 }, { UINT32_MAX, UINT32_MAX } };
	char path[BLOB_PATH_BYTES];
	struct blob_id id;

	for (unsigned i = 0; i < ARRAY_COUNT(names); i++) {
		blob_path(store, names[i], hash, path);
		ck_assert_int_eq(strncmp(path, "ab/ab000000000000010000000000000002.", 36), 0);
		ck_assert(blob_parse(path + 3, &id));
		ck_assert_str_eq(id.uuid, store->uuid);
		ck_assert_uint_eq(id.name.idx, names[i].idx);
		ck_assert_uint_eq(id.name.gen, names[i].gen);
	}
}
END_TEST

#define DIGITS "0123456789abcdef0123456789abcdef"

START_TEST(names_of_strangers_are_not_ours)
{
	static const char *const strangers[] = {
		"",
		".",
		"core",
		".nfs0000000001",
		DIGITS,
		DIGITS "." DIGITS,
		DIGITS "." DIGITS ".1",
		DIGITS "." DIGITS ".1.",
		DIGITS "." DIGITS ".1.2.3",
		DIGITS "." DIGITS ".1.2 ",
		DIGITS "." DIGITS ".1.2~",
		DIGITS "." DIGITS ".1.x",
		DIGITS "." DIGITS "..2",
		DIGITS "0." DIGITS ".1.2",
		DIGITS "." DIGITS "0.1.2",
		"0123456789ABCDEF0123456789ABCDEF." DIGITS ".1.2",
		"123456789abcdef0123456789abcdef." DIGITS ".1.2",
		DIGITS ".123456789abcdef0123456789abcdef.1.2",
	};
	struct blob_id id;

	for (unsigned i = 0; i < ARRAY_COUNT(strangers); i++)
		ck_assert_msg(!blob_parse(strangers[i], &id), "%s", strangers[i]);
	ck_assert(!blob_path_is_gone(DIGITS "." DIGITS ".1.2"));
	ck_assert(blob_parse(DIGITS "." DIGITS ".1.2", &id));
	ck_assert(blob_path_is_gone(DIGITS "." DIGITS ".1.2.gone"));
	ck_assert(blob_parse(DIGITS "." DIGITS ".1.2.gone", &id));
}
END_TEST

START_TEST(a_file_is_made_once_and_can_be_read_while_it_grows)
{
	int fd = blob_create(store, name, hash), reader;
	char data[8];
	struct stat st;

	ck_assert_int_ge(fd, 0);
	ck_assert_int_eq(blob_create(store, name, hash), -EEXIST);
	ck_assert_int_eq(fcntl(fd, F_GETFD), FD_CLOEXEC);
	ck_assert_int_eq(fstat(fd, &st), 0);
	ck_assert_uint_eq(st.st_mode & 0777, 0600);
	reader = blob_open(store, name, hash);
	ck_assert_int_ge(reader, 0);
	ck_assert_int_eq(fcntl(reader, F_GETFD), FD_CLOEXEC);
	ck_assert_int_eq(blob_read(reader, data, sizeof(data), 0), 0);
	ck_assert_int_eq(blob_write(fd, "abcdef", 6, 0), 0);
	ck_assert_int_eq(blob_read(reader, data, sizeof(data), 0), 6);
	ck_assert_int_eq(blob_read(reader, data, 2, 3), 2);
	ck_assert_mem_eq(data, "de", 2);
	ck_assert_int_eq(blob_read(reader, data, sizeof(data), 6), 0);
	ck_assert_int_eq(blob_write(reader, "x", 1, 0), -EBADF);
	close(reader);
	close(fd);
	blob_remove(store, name, hash);
	ck_assert_int_eq(blob_open(store, name, hash), -ENOENT);
}
END_TEST

START_TEST(a_sealed_file_is_read_only)
{
	int fd = blob_create(store, name, hash);
	char path[BLOB_PATH_BYTES];
	struct stat st;

	ck_assert_int_eq(blob_seal(store, fd, hash), 0);
	ck_assert_int_eq(fcntl(fd, F_GETFD), -1);
	blob_path(store, name, hash, path);
	ck_assert_int_eq(fstatat(store->blobs_fd, path, &st, 0), 0);
	ck_assert_uint_eq(st.st_mode & 0777, 0400);
	/* And is removed nevertheless. */
	blob_remove(store, name, hash);
	ck_assert_int_eq(fstatat(store->blobs_fd, path, &st, 0), -1);
	ck_assert_int_eq(blob_seal(store, -1, hash), -EBADF);
}
END_TEST

START_TEST(in_a_group_share_the_umask_takes_nothing_away)
{
	mode_t before = umask(077);
	struct store shared = *store;
	char path[BLOB_PATH_BYTES];
	struct stat st;
	int fd;

	shared.dir_mode = 02770;
	shared.file_mode = 0660;
	fd = blob_create(&shared, name, hash);
	umask(before);
	ck_assert_int_eq(fstat(fd, &st), 0);
	ck_assert_uint_eq(st.st_mode & 0777, 0660);
	ck_assert_int_eq(fstatat(store->blobs_fd, "ab", &st, 0), 0);
	ck_assert_uint_eq(st.st_mode & 07777, 02770);
	ck_assert_int_eq(blob_seal(&shared, fd, hash), 0);
	blob_path(store, name, hash, path);
	ck_assert_int_eq(fstatat(store->blobs_fd, path, &st, 0), 0);
	ck_assert_uint_eq(st.st_mode & 0777, 0440);
	blob_remove(store, name, hash);
}
END_TEST

START_TEST(removing_gives_the_space_back_although_somebody_has_it_open)
{
	int fd = blob_create(store, name, hash), reader = blob_open(store, name, hash);
	struct stat st;

	ck_assert_int_eq(blob_write(fd, "bytes", 5, 0), 0);
	ck_assert_int_eq(blob_seal(store, fd, hash), 0);
	blob_remove(store, name, hash);
	ck_assert_int_eq(fstat(reader, &st), 0);
	ck_assert_int_eq(st.st_size, 0);
	ck_assert_uint_eq(st.st_nlink, 0);
	close(reader);
	/* What is gone may be removed again. */
	blob_remove(store, name, hash);
}
END_TEST

START_TEST(a_symbolic_link_is_neither_opened_nor_emptied)
{
	char path[BLOB_PATH_BYTES], target[PATH_MAX];
	struct stat st;
	FILE *file;

	snprintf(target, sizeof(target), "%s/precious", f.root);
	file = fopen(target, "w");
	ck_assert_ptr_nonnull(file);
	ck_assert_int_eq(fputs("precious", file) >= 0, 1);
	fclose(file);
	blob_path(store, name, hash, path);
	ck_assert_int_eq(mkdirat(store->blobs_fd, "ab", 0700), 0);
	ck_assert_int_eq(symlinkat(target, store->blobs_fd, path), 0);
	ck_assert_int_eq(blob_open(store, name, hash), -ENOENT);
	ck_assert_int_lt(blob_create(store, name, hash), 0);
	blob_remove(store, name, hash);
	ck_assert_int_eq(stat(target, &st), 0);
	ck_assert_int_eq(st.st_size, 8);
	ck_assert_int_eq(unlink(target), 0);
}
END_TEST

/* ------------------------------------------------------------------- limits */

static void limit_file_size(rlim_t bytes)
{
	struct rlimit limit = { .rlim_cur = bytes, .rlim_max = RLIM_INFINITY };

	if (setrlimit(RLIMIT_FSIZE, &limit) < 0)
		_exit(2);
}

static void write_beyond_the_limit(struct fixture *fixture)
{
	char data[8192] = { 0 };
	int fd = blob_create(&fixture->caches[0]->seat->store, name, hash);
	sigset_t pending;

	limit_file_size(4096);
	if (blob_write(fd, data, sizeof(data), 0) != -EFBIG ||
	    blob_write(fd, data, 1, 4096) != -EFBIG || blob_write(fd, data, 4096, 0) != 0)
		_exit(3);
	/* Nothing pending, the mask as it was: SIGXFSZ still ends whoever deserves it. */
	if (sigpending(&pending) < 0 || sigismember(&pending, SIGXFSZ))
		_exit(4);
	(void)!pwrite(fd, data, 1, 4096);
	_exit(5);
}

START_TEST(a_limit_on_file_sizes_is_efbig_and_no_signal)
{
	int status = fixture_run_child(write_beyond_the_limit, &f);

	ck_assert_msg(WIFSIGNALED(status) && WTERMSIG(status) == SIGXFSZ, "wait status %#x",
		      (unsigned)status);
	blob_remove(store, name, hash);
}
END_TEST

static void keep_a_pending_signal(struct fixture *fixture)
{
	char data[8192] = { 0 };
	int fd = blob_create(&fixture->caches[0]->seat->store, name, hash);
	sigset_t set;

	limit_file_size(4096);
	sigemptyset(&set);
	sigaddset(&set, SIGXFSZ);
	sigprocmask(SIG_BLOCK, &set, NULL);
	if (blob_write(fd, data, 1, 4096) != -EFBIG)
		_exit(3);
	/* A caller who blocks it keeps it blocked. */
	if (sigprocmask(SIG_BLOCK, NULL, &set) < 0 || !sigismember(&set, SIGXFSZ))
		_exit(4);
}

START_TEST(a_caller_who_blocks_sigxfsz_keeps_it_blocked)
{
	fixture_expect_exited(fixture_run_child(keep_a_pending_signal, &f));
	blob_remove(store, name, hash);
}
END_TEST

static void produce_beyond_the_limit(struct fixture *fixture)
{
	static char data[FIXTURE_RING_BYTES], got[FIXTURE_RING_BYTES];
	struct scache *own;
	struct scache_reader *reader, *late;
	struct scache_writer *writer;

	if (scache_open(fixture->dir, &fixture->options, &own) != 0 ||
	    scache_acquire(own, "big", 3, NULL, &reader, &writer) != 0)
		_exit(2);
	limit_file_size(4096);
	memset(data, 'x', sizeof(data));
	for (unsigned i = 0; i < 8; i++)
		if (scache_write(writer, data, 40000, 0) != 40000 ||
		    scache_read(reader, got, 40000, 0) <= 0 ||
		    (scache_read(reader, got, 40000, 0), got[0] != 'x'))
			_exit(3);
	if (scache_finish(writer) != SCACHE_NOT_KEPT ||
	    scache_lookup(own, "big", 3, NULL, &late) != -ENOENT)
		_exit(4);
	scache_writer_close(writer);
	scache_reader_close(reader);
	if (scache_close(own) != 0)
		_exit(5);
}

START_TEST(whoever_is_attached_gets_all_although_the_file_cannot_be_written)
{
	fixture_expect_exited(fixture_run_child(produce_beyond_the_limit, &f));
}
END_TEST

int main(void)
{
	const TTest *const tests[] = {
		a_path_says_whose_file_it_is,
		names_of_strangers_are_not_ours,
		a_file_is_made_once_and_can_be_read_while_it_grows,
		a_sealed_file_is_read_only,
		in_a_group_share_the_umask_takes_nothing_away,
		removing_gives_the_space_back_although_somebody_has_it_open,
		a_symbolic_link_is_neither_opened_nor_emptied,
		a_limit_on_file_sizes_is_efbig_and_no_signal,
		a_caller_who_blocks_sigxfsz_keeps_it_blocked,
		whoever_is_attached_gets_all_although_the_file_cannot_be_written,
	};

	return fixture_main("blob", setup, teardown, tests, ARRAY_COUNT(tests));
}
