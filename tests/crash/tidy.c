/* SPDX-License-Identifier: MIT */
#include "tidy.h"

#include <errno.h>
#include <ftw.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define PIECE_BYTES 16000u
#define HANG_SECONDS 20
#define LATE_NS 400000000 /* soon nobody may go on with what was left at the beginning */

char tidy_where[160];
unsigned tidy_patient_each = 16;
struct scene scene;
const char tidy_key[4] = "key";

static char base[256], dir[300], segments[300], blobs[320];
static struct scache_options tiny = {
	.size = sizeof(tiny),
	.entries = 16,
	.peers = 4,
	.readers = 256,
	.rings = 2,
	.ring_bytes = 65536,
	.window_bytes = SCACHE_UNLIMITED,
	.max_age_ns = SCACHE_UNLIMITED,
	.segment_dir = segments,
};
static uint64_t rounds, versions;
static int64_t begun_ns; /* the round */
static bool too_late;

void tidy_fail(const char *format, ...)
{
	char text[300];
	va_list args;

	va_start(args, format);
	vsnprintf(text, sizeof(text), format, args);
	va_end(args);
	fprintf(stderr, "%s: %s (process %d, in %s)\n", tidy_where, text, (int)getpid(), base);
	fflush(NULL);
	_exit(1);
}

int64_t tidy_now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

uint64_t tidy_random(uint64_t *state)
{
	uint64_t x = *state += 0x9e3779b97f4a7c15ull;

	x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9ull;
	x = (x ^ x >> 27) * 0x94d049bb133111ebull;
	return x ^ x >> 31;
}

/* ------------------------------------------------------------------- bytes */

static unsigned char pool[65536 + 1000000]; /* from any version's offset on, the longest blob */

void tidy_fill(uint64_t version, uint64_t offset, unsigned char *ret_data, size_t bytes)
{
	memcpy(ret_data, pool + version * 769 % 65536 + offset, bytes);
	for (uint64_t i = offset; i < sizeof(version) && i - offset < bytes; i++)
		ret_data[i - offset] = ((const unsigned char *)&version)[i];
}

void tidy_write(struct scache_writer *writer, uint64_t version, uint64_t from, uint64_t until)
{
	unsigned char data[PIECE_BYTES];

	while (from < until) {
		size_t bytes = until - from < sizeof(data) ? (size_t)(until - from) : sizeof(data);

		tidy_fill(version, from, data, bytes);
		must_be(scache_write(writer, data, bytes, TIMEOUT_NS), bytes);
		from += bytes;
	}
}

/* By turns copied, and looked at where they are. */
static ssize_t read_some(struct scache_reader *reader, unsigned char *data, size_t bytes)
{
	static bool peeks;
	const void *seen;
	ssize_t got;

	peeks = !peeks;
	if (!peeks)
		return scache_read(reader, data, bytes, TIMEOUT_NS);
	got = scache_peek(reader, &seen, bytes, TIMEOUT_NS);
	if (got <= 0)
		return got;
	memcpy(data, seen, (size_t)got);
	must_be(scache_consume(reader, (size_t)got), got);
	return got;
}

int tidy_read(struct scache_reader *reader, uint64_t *version, uint64_t *position, uint64_t until)
{
	unsigned char data[PIECE_BYTES], wanted[PIECE_BYTES];

	while (*position < until) {
		size_t most = until - *position < sizeof(data) ? (size_t)(until - *position)
							       : sizeof(data);
		ssize_t got = read_some(reader, data, most);

		if (got <= 0)
			return (int)got;
		if (*version == 0 && got >= (ssize_t)sizeof(*version))
			memcpy(version, data, sizeof(*version));
		if (*version != scene.victim_version && *version != scene.own_version)
			tidy_fail("bytes of the unknown version %llu",
				  (unsigned long long)*version);
		tidy_fill(*version, *position, wanted, (size_t)got);
		if (memcmp(data, wanted, (size_t)got) != 0)
			tidy_fail("a wrong byte in %zd from %llu on", got,
				  (unsigned long long)*position);
		*position += (uint64_t)got;
	}
	return 1;
}

/* -------------------------------------------------------------- the survivor */

struct scache *tidy_open_cache(void)
{
	struct scache *opened = NULL;
	int ret = scache_open(dir, &tiny, &opened);

	if (ret < 0)
		tidy_fail("open: %s: %s", scache_strerror(ret), scache_detail());
	return opened;
}

void tidy_produce(const char *key, size_t key_bytes, uint64_t version, uint64_t bytes)
{
	struct scache_writer *writer = NULL;

	must_be(scache_acquire(scene.cache, key, key_bytes, NULL, NULL, &writer), 0);
	must(writer != NULL);
	tidy_write(writer, version, 0, bytes);
	must_be(scache_finish(writer), 0);
	scache_writer_close(writer);
}

void tidy_attach(uint64_t version)
{
	must_be(scache_lookup(scene.cache, tidy_key, sizeof(tidy_key), NULL, &scene.reader), 0);
	scene.reader_version = version;
	scene.reader_position = 0;
}

static void print_finding(void *arg, const char *text)
{
	(void)arg;
	fprintf(stderr, "%s: %s\n", tidy_where, text);
}

static uint64_t files;

static int count_file(const char *path, const struct stat *st, int type, struct FTW *at)
{
	(void)path;
	(void)st;
	(void)at;
	files += type == FTW_F;
	return 0;
}

static uint64_t count_files(const char *below)
{
	files = 0;
	nftw(below, count_file, 8, FTW_PHYS);
	return files;
}

static void sweep(uint64_t max_age_ns, struct scache_sweep_report *ret_report)
{
	struct scache_sweep_options o = { .size = sizeof(o), .max_age_ns = max_age_ns };

	*ret_report = (struct scache_sweep_report){ .size = sizeof(*ret_report) };
	must_be(scache_sweep(scene.cache, &o, ret_report), 0);
	/* The file of an entry goes with the entry, and never before or after it. */
	must_be(ret_report->orphans, 0);
	must_be(ret_report->unknown, 0);
}

/* After a sweep: nothing is there but what is stored, or the survivor's. */
static void expect_tidy(void)
{
	struct scache_stats s = { .size = sizeof(s) };
	uint64_t readers = scene.reader != NULL, writers = scene.writer != NULL;

	must_be(scache_stat(scene.cache, &s), 0);
	must_be(s.peers, 1);
	must_be(s.readers, readers);
	must_be(s.entries_filling, writers);
	must(s.entries_failed <= readers);
	must(s.entries_hidden <= readers);
	must(s.rings_in_use <= s.entries_filling + s.entries_failed + s.entries_hidden);
	/* None is claimed, retired or being swept. */
	must_be(s.entries_free + s.entries, s.max_entries);
	must(count_files(blobs) <= s.entries);
	must_be(scache_check(scene.cache, print_finding, NULL), 0);
}

/* Long ago everything was to be removed: is it? */
static void expect_nothing(void)
{
	struct scache_sweep_report report;
	struct scache_stats s = { .size = sizeof(s) };

	for (int again = 0; again < 2; again++) {
		sweep(again ? 0 : SCACHE_ZERO, &report);
		must(again == 0 || (report.entries == 0 && report.reaped == 0));
		expect_tidy();
		must_be(scache_stat(scene.cache, &s), 0);
		must_be(s.entries_free, s.max_entries);
		must_be(s.rings_in_use, 0);
		must_be(count_files(blobs), 0);
	}
	must_be(count_files(segments), 1);
}

/* Its only reader is dead, and it has to find out by itself. */
static void expect_abandoned(void)
{
	const struct timespec pause = { .tv_nsec = 500000 };
	int64_t end_ns = tidy_now_ns() + TIMEOUT_NS;
	int ret;

	while ((ret = scache_writer_check(scene.writer)) == 0 && tidy_now_ns() < end_ns)
		nanosleep(&pause, NULL);
	must_be(ret, -EPIPE);
}

/* The victim's entry is an orphan once more, or finished: it has to become whole. */
static void go_on(const struct operation *op, bool patient)
{
	const struct scache_acquire_options o = { .size = sizeof(o), .flags = SCACHE_RESUMABLE };
	const struct timespec pause = { .tv_nsec = 500000 };
	int64_t end_ns = tidy_now_ns() + TIMEOUT_NS;
	struct scache_writer *writer = NULL;
	struct scache_sweep_report report;
	uint64_t bytes;

	if (!patient)
		sweep(0, &report);
	for (;;) {
		must_be(scache_acquire(scene.cache, tidy_key, sizeof(tidy_key), &o, NULL, &writer),
			0);
		if (writer != NULL || scache_size(scene.reader, &bytes) != 0)
			break;
		/* Who was alive a moment ago is not asked for. */
		must(patient && tidy_now_ns() < end_ns);
		nanosleep(&pause, NULL);
	}
	if (writer == NULL)
		return;
	bytes = scache_written(writer);
	too_late = bytes == 0 && (op->flags & OP_ENDS || tidy_now_ns() - begun_ns > LATE_NS);
	if (!too_late && (bytes < op->least || bytes > op->most))
		tidy_fail("goes on at %llu", (unsigned long long)bytes);
	tidy_write(writer, scene.victim_version, bytes, op->most);
	/* Before all of it is in the file. */
	if (!too_late)
		must_be(tidy_read(scene.reader, &scene.reader_version, &scene.reader_position,
				  op->most),
			1);
	must_be(scache_finish(writer), 0);
	scache_writer_close(writer);
}

/* The survivor's own streams go on to their end. */
static void end_streams(const struct operation *op)
{
	uint64_t bytes, published;
	int ret;

	if (scene.writer != NULL) {
		if (op->flags & OP_ALONE) {
			expect_abandoned();
		} else {
			tidy_write(scene.writer, scene.own_version, 40000, STORED_BYTES);
			must_be(scache_finish(scene.writer), 0);
		}
		scache_writer_close(scene.writer);
		scene.writer = NULL;
	}
	if (scene.reader == NULL)
		return;
	ret = tidy_read(scene.reader, &scene.reader_version, &scene.reader_position, UINT64_MAX);
	bytes = scene.reader_position;
	if (scene.reader_version == scene.own_version) {
		must_be(ret, 0);
		must_be(bytes, STORED_BYTES);
	} else {
		if (op->flags & OP_HEIR && !too_late)
			must_be(ret, 0);
		if (ret != -EOWNERDEAD && (op->end == NO_END || ret != op->end))
			tidy_fail("read %llu bytes, then: %s", (unsigned long long)bytes,
				  scache_strerror(ret));
		if (bytes < op->least || bytes > op->most || (ret == 0 && bytes < op->most))
			tidy_fail("read %llu bytes", (unsigned long long)bytes);
	}
	must_be(scache_size(scene.reader, &published), ret == 0);
	must_be(bytes, published);
	scache_reader_close(scene.reader);
	scene.reader = NULL;
}

/* Read what was found to its end. True if it is complete. */
static bool read_found(const struct operation *op, struct scache_reader *reader)
{
	uint64_t version = 0, position = 0;
	int ret = tidy_read(reader, &version, &position, UINT64_MAX);

	scache_reader_close(reader);
	if (ret == -EOWNERDEAD)
		return false;
	must_be(ret, 0);
	if (version == scene.victim_version) {
		must_be(op->end, 0);
		must_be(position, op->most);
	} else {
		must_be(position, STORED_BYTES);
	}
	return true;
}

/* Whatever is found is whole, and then the key can be produced. */
static void use_key(const struct operation *op)
{
	struct scache_reader *reader = NULL;
	struct scache_writer *writer = NULL;
	int tries;

	for (tries = 0; tries < 3; tries++) {
		must_be(scache_acquire(scene.cache, tidy_key, sizeof(tidy_key), NULL, &reader,
				       &writer),
			0);
		if (writer != NULL)
			break;
		if (read_found(op, reader))
			must_be(scache_remove(scene.cache, tidy_key, sizeof(tidy_key)), 0);
	}
	must(writer != NULL);
	scene.own_version = ++versions;
	tidy_write(writer, scene.own_version, 0, STORED_BYTES);
	must_be(scache_finish(writer), 0);
	scache_writer_close(writer);
	must(read_found(op, reader));
}

void tidy_survive(const struct operation *op)
{
	bool patient = tidy_patient_each > 0 && ++rounds % tidy_patient_each == 0;
	struct scache_sweep_report report;

	if (op->flags & OP_FRESH)
		scene.cache = tidy_open_cache();
	if (op->flags & OP_HEIR)
		go_on(op, patient);
	if (patient) {
		end_streams(op);
		use_key(op);
	}
	sweep(0, &report);
	expect_tidy();
	if (!patient) {
		end_streams(op);
		use_key(op);
	}
	expect_nothing();
	if (op->flags & OP_FRESH)
		tidy_close();
	alarm(0);
}

/* ------------------------------------------------------------- the victim */

void tidy_await_stop(pid_t child)
{
	int status;

	must_be(waitpid(child, &status, WUNTRACED), child);
	if (!WIFSTOPPED(status) || WSTOPSIG(status) != SIGSTOP)
		tidy_fail("the victim ended too early: %#x", (unsigned)status);
}

pid_t tidy_victim(const struct operation *op, void (*born)(void), void (*armed)(void))
{
	pid_t parent = getpid(), child;

	alarm(HANG_SECONDS);
	begun_ns = tidy_now_ns();
	too_late = false;
	scene.victim_version = ++versions;
	scene.own_version = ++versions;
	if (op->prepare != NULL)
		op->prepare();
	child = fork();
	must(child >= 0);
	if (child == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		if (getppid() != parent)
			_exit(3);
		if (born != NULL)
			born();
		if (op->before != NULL)
			op->before(op);
		raise(SIGSTOP);
		if (armed != NULL)
			armed();
		op->run();
		raise(SIGSTOP);
		_exit(3);
	}
	tidy_await_stop(child);
	if (op->meet != NULL)
		op->meet();
	return child;
}

void tidy_bury(pid_t victim)
{
	int status;

	kill(victim, SIGKILL);
	do
		must_be(waitpid(victim, &status, 0), victim);
	while (WIFSTOPPED(status));
	if (!WIFSIGNALED(status) || WTERMSIG(status) != SIGKILL)
		tidy_fail("the victim ended by itself: %#x", (unsigned)status);
}

/* ----------------------------------------------------------------- the place */

static void on_alarm(int signal)
{
	static const char text[] = ": somebody hangs\n";
	ssize_t done;

	(void)signal;
	done = write(STDERR_FILENO, tidy_where, strlen(tidy_where));
	done += write(STDERR_FILENO, text, sizeof(text) - 1);
	_exit(done > 0 ? 1 : 2);
}

void tidy_begin(void)
{
	const char *above = getenv("TMPDIR");
	uint64_t state = 1;

	/* Half of it twice, so that it compresses. */
	for (size_t i = 0; i < sizeof(pool); i++)
		pool[i] = i % 64 < 32 ? (unsigned char)tidy_random(&state) : pool[i - 32];
	snprintf(base, sizeof(base), "%s/tidy.XXXXXX", above != NULL ? above : "/tmp");
	must(mkdtemp(base) != NULL);
	snprintf(dir, sizeof(dir), "%s/cache", base);
	snprintf(blobs, sizeof(blobs), "%s/blobs", dir);
	snprintf(segments, sizeof(segments), "%s/segments", base);
	must(mkdir(segments, 0700) == 0);
	signal(SIGALRM, on_alarm);
}

void tidy_open(const struct operation *op)
{
	tiny.ring_bytes = op->flags & OP_LZ4 ? 1 << 20 : 65536;
	tiny.compression = op->flags & OP_LZ4 ? SCACHE_LZ4 : SCACHE_RAW;
	if (!(op->flags & OP_FRESH))
		scene.cache = tidy_open_cache();
}

static int remove_file(const char *path, const struct stat *st, int type, struct FTW *at)
{
	(void)st;
	(void)at;
	return type == FTW_F ? unlink(path) : 0;
}

void tidy_lose_segment(void)
{
	must_be(scache_close(scene.cache), 0);
	must(nftw(segments, remove_file, 8, FTW_PHYS) == 0);
	scene.cache = tidy_open_cache();
}

void tidy_close(void)
{
	if (scene.cache == NULL)
		return;
	must_be(scache_close(scene.cache), 0);
	scene.cache = NULL;
	must_be(scache_destroy(dir, NULL), 0);
	must(access(dir, F_OK) < 0);
	must_be(count_files(segments), 0);
}

void tidy_end(void)
{
	must(rmdir(segments) == 0);
	must(rmdir(base) == 0);
}
