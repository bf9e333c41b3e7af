/* SPDX-License-Identifier: MIT */
/*
 * steps - a process is killed at every named step of every script below, and
 * the survivor must find: no wrong byte, a key that can be produced again,
 * all slots, rings and cursors free after one sweep, and no violated invariant.
 *
 * The labels are not listed here: a first run of a script tells which it
 * passes, so a new STEP() is tested as soon as a script reaches it.
 */
#include <check.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/step.h"
#include "streamcache.h"

#define BLOB_BYTES (300u << 10) /* several times around the ring */
#define LABELS_MAX 64
#define LABEL_BYTES 32

static char dir[256];
static int labels_fd = -1;	 /* where a telling run reports its steps */
static const char *fatal_label; /* where a dying run dies */
static const char key[] = "key";

static const struct scache_options tiny = {
	.size = sizeof(tiny), .entries = 16, .peers = 8, .readers = 128, .rings = 2,
	.ring_bytes = 64 << 10, .window_bytes = SCACHE_UNLIMITED,
};

static unsigned char byte_at(size_t offset)
{
	return (unsigned char)(offset * 31 + offset / 251);
}

/* ----------------------------------------------------------------- scripts */

static struct scache *open_cache(void)
{
	struct scache *cache;

	if (scache_open(dir, &tiny, &cache) != 0)
		abort();
	return cache;
}

/* Write all of the blob, reading along if there is a reader. */
static void pump(struct scache_writer *writer, struct scache_reader *reader)
{
	unsigned char piece[5000], got[5000];
	size_t done, i;

	for (done = 0; done < BLOB_BYTES; done += sizeof(piece)) {
		for (i = 0; i < sizeof(piece); i++)
			piece[i] = byte_at(done + i);
		if (scache_write(writer, piece, sizeof(piece), 0) != sizeof(piece))
			abort();
		if (reader != NULL && scache_read(reader, got, sizeof(got), 0) != sizeof(got))
			abort();
	}
}

static void script_produce(void)
{
	struct scache *cache = open_cache();
	struct scache_reader *reader;
	struct scache_writer *writer;

	if (scache_acquire(cache, key, sizeof(key), NULL, &reader, &writer) != 0 || writer == NULL)
		abort();
	pump(writer, reader);
	scache_finish(writer);
	scache_writer_close(writer);
	scache_reader_close(reader);
	scache_close(cache);
}

/* The same in place: of each grant a part, and of each second one nothing. */
static void pump_in_place(struct scache_writer *writer, struct scache_reader *reader)
{
	unsigned char got[5000];
	size_t done = 0, part, i;
	ssize_t room;
	void *data;

	while (done < BLOB_BYTES) {
		room = scache_reserve(writer, sizeof(got), &data, 0);
		if (room < 1)
			abort();
		memset(data, 0xee, (size_t)room);
		part = done % 7 == 0 && room > 1 ? (size_t)room / 2 : (size_t)room;
		for (i = 0; i < part; i++)
			((unsigned char *)data)[i] = byte_at(done + i);
		if (scache_commit(writer, part) != (ssize_t)part)
			abort();
		done += part;
		room = scache_reserve(writer, sizeof(got), &data, 0);
		if (room > 0)
			memset(data, 0xee, (size_t)room);
		scache_commit(writer, 0);
		if (scache_read(reader, got, sizeof(got), 0) != (ssize_t)part)
			abort();
	}
}

static void produce_in_place(uint32_t flags)
{
	struct scache_acquire_options options = { .size = sizeof(options), .flags = flags };
	struct scache *cache = open_cache();
	struct scache_reader *reader;
	struct scache_writer *writer;

	if (scache_acquire(cache, key, sizeof(key), &options, &reader, &writer) != 0 ||
	    writer == NULL)
		abort();
	pump_in_place(writer, reader);
	scache_finish(writer);
	scache_writer_close(writer);
	scache_reader_close(reader);
	scache_close(cache);
}

static void script_in_place(void)
{
	produce_in_place(SCACHE_PACE_SLOWEST);
}

static void script_pass(void)
{
	produce_in_place(SCACHE_PASS_THROUGH | SCACHE_PACE_SLOWEST);
}

static void script_fail(void)
{
	static const char message[2000] = "it went wrong";
	struct scache *cache = open_cache();
	struct scache_writer *writer;

	if (scache_acquire(cache, key, sizeof(key), NULL, NULL, &writer) != 0 || writer == NULL)
		abort();
	pump(writer, NULL);
	scache_abort(writer, 7, message, sizeof(message));
	scache_writer_close(writer);
	scache_close(cache);
}

static void script_read(void)
{
	struct scache *cache = open_cache();
	struct scache_reader *reader;
	unsigned char got[4096];

	if (scache_lookup(cache, key, sizeof(key), NULL, &reader) == 0) {
		while (scache_read(reader, got, sizeof(got), SCACHE_FOREVER) > 0)
			;
		scache_reader_close(reader);
	}
	scache_close(cache);
}

static void script_remove(void)
{
	struct scache *cache = open_cache();

	scache_remove(cache, key, sizeof(key));
	scache_sweep(cache, NULL, NULL);
	scache_close(cache);
}

static void produce_in_grandchild(const char *label);

/* A dead writer's leavings, and the reaper that we are. */
static void script_reap(void)
{
	struct scache *cache;

	produce_in_grandchild("bytes-published");
	cache = open_cache();
	scache_sweep(cache, NULL, NULL);
	scache_close(cache);
}

static const struct script {
	const char *name;
	void (*run)(void);
	int needs_blob;
} scripts[] = {
	{ "produce", script_produce, 0 },   { "fail", script_fail, 0 }, { "read", script_read, 1 },
	{ "remove", script_remove, 1 },	    { "reap", script_reap, 0 },
	{ "in place", script_in_place, 0 }, { "pass", script_pass, 0 },
};

/* ------------------------------------------------------------------- dying */

static void on_step(const char *label)
{
	char text[LABEL_BYTES] = { 0 };

	if (fatal_label != NULL && strcmp(label, fatal_label) == 0)
		kill(getpid(), SIGKILL);
	snprintf(text, sizeof(text), "%s", label);
	if (labels_fd >= 0 && write(labels_fd, text, sizeof(text)) != sizeof(text))
		abort();
}

static int run_in_child(void (*run)(void))
{
	pid_t child = fork();
	int status;

	if (child == 0) {
		step_set_hook(on_step);
		run();
		_exit(0);
	}
	while (waitpid(child, &status, 0) < 0 && errno == EINTR)
		;
	return status;
}

static void produce_in_grandchild(const char *label)
{
	const char *outer = fatal_label;
	int fd = labels_fd;

	fatal_label = label;
	labels_fd = -1;
	run_in_child(script_produce);
	fatal_label = outer;
	labels_fd = fd;
}

/* The labels that @script passes, each once. */
static unsigned tell_labels(const struct script *script, char labels[][LABEL_BYTES])
{
	unsigned count = 0, i;
	char text[LABEL_BYTES];
	FILE *told = tmpfile();

	ck_assert_ptr_nonnull(told);
	labels_fd = fileno(told);
	ck_assert_int_eq(run_in_child(script->run), 0);
	labels_fd = -1;
	rewind(told);
	while (fread(text, sizeof(text), 1, told) == 1) {
		for (i = 0; i < count && strcmp(labels[i], text) != 0; i++)
			;
		if (i < count)
			continue;
		ck_assert_uint_lt(count, LABELS_MAX);
		memcpy(labels[count++], text, sizeof(text));
	}
	fclose(told);
	return count;
}

/* ---------------------------------------------------------------- surviving */

static char where[3 * LABEL_BYTES]; /* for messages */

static void print_finding(void *arg, const char *text)
{
	(void)arg;
	fprintf(stderr, "%s: %s\n", where, text);
}

static void read_whole(struct scache_reader *reader)
{
	unsigned char got[8192];
	size_t done = 0, wrong = 0;
	ssize_t n;

	while ((n = scache_read(reader, got, sizeof(got), SCACHE_FOREVER)) > 0) {
		for (ssize_t i = 0; i < n; i++)
			wrong += got[i] != byte_at(done + (size_t)i);
		done += (size_t)n;
	}
	ck_assert_msg(wrong == 0, "%s: %zu wrong bytes", where, wrong);
	ck_assert_msg(n == 0, "%s: %s", where, scache_strerror((int)n));
	ck_assert_msg(done >= BLOB_BYTES, "%s: ended after %zu bytes", where, done);
}

/* Whatever was left: a caller gets the blob, from the dead one or by producing it. */
static void get_blob(struct scache *cache)
{
	struct scache_reader *reader;
	struct scache_writer *writer;
	char got[8192];
	ssize_t n;
	int tries;

	for (tries = 0; tries < 3; tries++) {
		ck_assert_int_eq(
			scache_acquire(cache, key, sizeof(key), NULL, &reader, &writer), 0);
		if (writer != NULL) {
			pump(writer, NULL);
			ck_assert_int_eq(scache_finish(writer), 0);
			scache_writer_close(writer);
			break;
		}
		/* Joined the dead one's: it comes to its end, and the key is free then. */
		do
			n = scache_read(reader, got, sizeof(got), 2000000000);
		while (n > 0);
		ck_assert_msg(n == 0 || n == -EOWNERDEAD, "%s: %s", where, scache_strerror((int)n));
		scache_reader_close(reader);
		if (n == 0)
			ck_assert_int_eq(
				scache_lookup(cache, key, sizeof(key), NULL, &reader), 0);
		if (n == 0)
			break;
	}
	read_whole(reader);
	scache_reader_close(reader);
}

static void expect_tidy(struct scache *cache)
{
	struct scache_sweep_report report = { .size = sizeof(report) };
	struct scache_stats stats = { .size = sizeof(stats) };

	scache_remove(cache, key, sizeof(key));
	ck_assert_int_eq(scache_sweep(cache, NULL, &report), 0);
	ck_assert_msg(report.orphans == 0 && report.unknown == 0, "%s: an orphan", where);
	ck_assert_int_eq(scache_sweep(cache, NULL, &report), 0);
	ck_assert_int_eq(scache_stat(cache, &stats), 0);
	ck_assert_msg(stats.entries_free == stats.max_entries, "%s: %u entries leaked", where,
		      (unsigned)(stats.max_entries - stats.entries_free));
	ck_assert_msg(stats.rings_in_use == 0, "%s: a ring leaked", where);
	ck_assert_msg(stats.readers == 0, "%s: a cursor leaked", where);
	ck_assert_msg(stats.peers == 1, "%s: a peer leaked", where);
	ck_assert_msg(scache_check(cache, print_finding, NULL) == 0, "%s: check", where);
}

static void survive(const struct script *script, const char *label)
{
	struct scache *cache;
	int status;

	snprintf(where, sizeof(where), "%.10s killed at %.31s", script->name, label);
	if (script->needs_blob) {
		cache = open_cache();
		get_blob(cache);
		scache_close(cache);
	}
	fatal_label = label;
	status = run_in_child(script->run);
	fatal_label = NULL;
	ck_assert_msg(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL, "%s: status %#x", where,
		      (unsigned)status);
	cache = open_cache();
	get_blob(cache);
	expect_tidy(cache);
	ck_assert_int_eq(scache_close(cache), 0);
}

START_TEST(death_at_any_step_hurts_nobody)
{
	const struct script *script = &scripts[_i];
	char labels[LABELS_MAX][LABEL_BYTES];
	struct scache *cache;
	unsigned count, i;

	snprintf(where, sizeof(where), "%s", script->name);
	if (script->needs_blob) {
		cache = open_cache();
		get_blob(cache);
		scache_close(cache);
	}
	count = tell_labels(script, labels);
	ck_assert_uint_gt(count, 0);
	cache = open_cache();
	expect_tidy(cache);
	scache_close(cache);
	for (i = 0; i < count; i++)
		survive(script, labels[i]);
	printf("%s: killed at %u steps\n", script->name, count);
}
END_TEST

static void make_dir(void)
{
	snprintf(dir, sizeof(dir), "%s/steps.XXXXXX",
		 getenv("TMPDIR") != NULL ? getenv("TMPDIR") : "/tmp");
	ck_assert_ptr_nonnull(mkdtemp(dir));
}

static void remove_dir(void)
{
	ck_assert_int_eq(scache_destroy(dir, NULL), 0);
}

int main(void)
{
	Suite *suite = suite_create("steps");
	TCase *tcase = tcase_create("steps");
	SRunner *runner = srunner_create(suite);
	int failed;

	tcase_add_checked_fixture(tcase, make_dir, remove_dir);
	tcase_add_loop_test(tcase, death_at_any_step_hurts_nobody, 0,
			    sizeof(scripts) / sizeof(scripts[0]));
	tcase_set_timeout(tcase, 120);
	suite_add_tcase(suite, tcase);
	srunner_run_all(runner, CK_NORMAL);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed != 0;
}
