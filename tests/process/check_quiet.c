/* SPDX-License-Identifier: MIT */
/*
 * quiet - a live reader near the head makes no system call.
 *
 * Seen by the kernel itself: the reader enters strict seccomp, where every
 * system call but read(2), write(2) and exit(2) is a SIGKILL, and then reads.
 */
#include <check.h>
#include <linux/seccomp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <streamcache.h>

#define PIECE_BYTES 4096
#define PIECES 256

static char dir[256];

static void make_piece(unsigned char *piece, unsigned n)
{
	for (unsigned i = 0; i < PIECE_BYTES; i++)
		piece[i] = (unsigned char)(i * 7 + n * 13);
}

/* Read pieces @from to @to; returns the first one that did not come as it should. */
static unsigned read_pieces(struct scache_reader *reader, unsigned from, unsigned to)
{
	static unsigned char wanted[PIECE_BYTES], got[PIECE_BYTES];
	unsigned n;

	for (n = from; n < to; n++) {
		make_piece(wanted, n);
		if (scache_read(reader, got, sizeof(got), SCACHE_FOREVER) != PIECE_BYTES ||
		    memcmp(wanted, got, PIECE_BYTES) != 0)
			break;
	}
	return n;
}

static void reader_process(int go_fd, int result_fd)
{
	struct scache_reader *reader;
	struct scache *cache;
	unsigned pieces = 0;
	char go;

	if (read(go_fd, &go, 1) != 1 || scache_open(dir, NULL, &cache) != 0 ||
	    scache_lookup(cache, "key", 3, NULL, &reader) != 0 || read_pieces(reader, 0, 1) != 1)
		_exit(1);
	if (prctl(PR_SET_SECCOMP, SECCOMP_MODE_STRICT) == 0)
		pieces = read_pieces(reader, 1, PIECES);
	if (write(result_fd, &pieces, sizeof(pieces)) != sizeof(pieces))
		syscall(SYS_exit, 1);
	syscall(SYS_exit, 0); /* _exit() would be exit_group(2) */
}

START_TEST(live_reads_make_no_system_call)
{
	unsigned char piece[PIECE_BYTES];
	struct scache_writer *writer;
	struct scache *cache;
	unsigned pieces = 0;
	int go[2], result[2], status;
	pid_t child;

	ck_assert(pipe(go) == 0 && pipe(result) == 0);
	child = fork();
	if (child == 0)
		reader_process(go[0], result[1]);
	ck_assert_int_eq(scache_open(dir, NULL, &cache), 0);
	ck_assert_int_eq(scache_acquire(cache, "key", 3, NULL, NULL, &writer), 0);
	ck_assert_ptr_nonnull(writer);
	for (unsigned n = 0; n < PIECES; n++) {
		make_piece(piece, n);
		ck_assert_int_eq(scache_write(writer, piece, PIECE_BYTES, 0), PIECE_BYTES);
	}
	ck_assert_int_eq(write(go[1], "g", 1), 1);
	ck_assert_int_eq(waitpid(child, &status, 0), child);
	ck_assert_msg(status == 0, "the reader ended with status %#x%s", (unsigned)status,
		      WIFSIGNALED(status) ? ": it made a system call" : "");
	ck_assert_int_eq(read(result[0], &pieces, sizeof(pieces)), sizeof(pieces));
	ck_assert_uint_eq(pieces, PIECES);
	scache_writer_close(writer);
	ck_assert_int_eq(scache_close(cache), 0);
}
END_TEST

static void make_dir(void)
{
	snprintf(dir, sizeof(dir), "%s/quiet.XXXXXX",
		 getenv("TMPDIR") != NULL ? getenv("TMPDIR") : "/tmp");
	ck_assert_ptr_nonnull(mkdtemp(dir));
}

static void remove_dir(void)
{
	ck_assert_int_eq(scache_destroy(dir, NULL), 0);
}

int main(void)
{
	Suite *suite = suite_create("quiet");
	TCase *tcase = tcase_create("quiet");
	SRunner *runner = srunner_create(suite);
	int failed;

	tcase_add_checked_fixture(tcase, make_dir, remove_dir);
	tcase_add_test(tcase, live_reads_make_no_system_call);
	suite_add_tcase(suite, tcase);
	srunner_run_all(runner, CK_NORMAL);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed != 0;
}
