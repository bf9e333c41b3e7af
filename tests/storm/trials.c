/* SPDX-License-Identifier: MIT */
/*
 * trials - what takes more than a call: files that may not grow, a handle that
 * is inherited, and a table full of what stopped readers read.
 */
#include "storm.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#define HOARD_MAX 12
#define HEIR_MS 300

static pid_t heir;

void be_limited(void)
{
	struct rlimit limit;

	if (getrlimit(RLIMIT_FSIZE, &limit) < 0)
		finding("getrlimit: %s", strerror(errno));
	limit.rlim_cur = 1000 + below(one_in(2) ? 20000 : 400000);
	if (setrlimit(RLIMIT_FSIZE, &limit) < 0)
		finding("setrlimit: %s", strerror(errno));
	limited = true;
	COUNT(limited);
}

void be_unlimited(void)
{
	struct rlimit limit;

	if (getrlimit(RLIMIT_FSIZE, &limit) < 0)
		return;
	limit.rlim_cur = limit.rlim_max;
	setrlimit(RLIMIT_FSIZE, &limit);
}

/* ----------------------------------------------------------- an inherited handle */

/* The parent's streams are not the child's. */
static void refuse(struct scache_reader *reader, struct scache_writer *writer)
{
	ssize_t done;

	if (reader != NULL) {
		done = CALL("heir-read", 0, scache_read(reader, got, 10, 0));
		if (done != -ECHILD)
			finding("%zd", done);
		CALL("heir-reader_close", 0, scache_reader_close(reader));
	}
	if (writer != NULL) {
		done = CALL("heir-write", 0, scache_write(writer, blob, 10, 0));
		if (done != -ECHILD)
			finding("%zd", done);
		CALL("heir-writer_close", 0, scache_writer_close(writer));
	}
}

static void inherit(pid_t parent, uint32_t number, struct scache_reader *reader,
		    struct scache_writer *writer)
{
	int64_t until_ns = now_ns() + (int64_t)below(HEIR_MS) * MS;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (getppid() != parent)
		_exit(0);
	heir = 0;
	me = number;
	random_state = mix(seed ^ (uint64_t)me << 32);
	note_steps();
	open_pipes();
	refuse(reader, writer);
	while (now_ns() < until_ns)
		use_any_key((unsigned)below(one_in(2) ? 4 : KEYS));
	if (one_in(2))
		close_cache();
	else
		shared->doomed[me % WORKERS] = true; /* leaves without a word */
	_exit(0);
}

void have_heir(unsigned key)
{
	struct reading r = { .key = key, .limit_ns = UINT64_MAX, .since_ns = now_ns() };
	struct scache_acquire_options o = { .size = sizeof(o), .flags = SCACHE_RESUMABLE };
	struct scache_writer *writer = NULL;
	pid_t parent = getpid();
	uint32_t number = COUNT(started) + 1;
	char name[16];
	int ret;

	r.stopped = shared->stopped[me % WORKERS];
	if (heir != 0)
		return;
	ret = CALL("acquire", key,
		   scache_acquire(cache, name, key_name(key, name), &o, &r.reader, &writer));
	if (ret < 0)
		finding("%d", ret);
	shared->parent[number % WORKERS] = me;
	heir = fork();
	if (heir < 0)
		finding("fork: %s", strerror(errno));
	if (heir == 0)
		inherit(parent, number, r.reader, writer);
	COUNT(heirs);
	if (writer != NULL)
		produce(writer, &r, geometry.max_age_ns == SCACHE_ZERO ? 0 : geometry.max_age_ns);
	else if (r.reader != NULL)
		read_somehow(&r);
}

void watch_heir(void)
{
	int status;

	if (heir == 0 || waitpid(heir, &status, WNOHANG) != heir)
		return;
	heir = 0;
	if (status != 0)
		finding("child of fork() ended with %#x", (unsigned)status);
}

/* --------------------------------------------------------------- a full table */

/* Something that is removed at once, and read by us. */
static bool keep_one(struct reading *r)
{
	struct scache_acquire_options o = { .size = sizeof(o), .window_bytes = SCACHE_UNLIMITED };
	struct scache_writer *writer = NULL;
	struct production *p;
	struct header h = { .key = r->key, .bytes = sizeof(h) + below(3000) };
	char name[16];
	size_t bytes = key_name(r->key, name);
	int ret = CALL("acquire", r->key,
		       scache_acquire(cache, name, bytes, &o, &r->reader, &writer));

	if (ret < 0)
		finding("%d", ret);
	if (writer != NULL) {
		p = begin(writer, &h, geometry.max_age_ns);
		fill(&h, 0, blob, h.bytes);
		/* What does not fit, because a ring is all there is, is given up. */
		p->stage = GAVE_UP;
		if (CALL("write", r->key,
			 scache_write(writer, blob, r->key == 0 ? 0 : h.bytes, 0)) ==
		    (ssize_t)(r->key == 0 ? 0 : h.bytes)) {
			p->stage = ENDING;
			if (CALL("finish", r->key, scache_finish(writer)) < 0)
				p->stage = GAVE_UP;
		}
		CALL("writer_close", r->key, scache_writer_close(writer));
	}
	ret = CALL("remove", r->key, scache_remove(cache, name, bytes));
	if (ret != 0 && ret != -ENOENT)
		finding("%d", ret);
	return r->reader != NULL;
}

void hoard(void)
{
	static struct reading held[HOARD_MAX];
	unsigned count = 0, wanted = 1 + (unsigned)below(HOARD_MAX);
	size_t piece = 2000 + below(70000);

	for (unsigned i = 0; i < wanted; i++) {
		held[count] = (struct reading){ .key = (unsigned)below(KEYS),
						.limit_ns = UINT64_MAX,
						.since_ns = now_ns(),
						.stopped = shared->stopped[me % WORKERS] };
		count += keep_one(&held[count]);
	}
	/* The storm wakes its own workers only. */
	if (shared->parent[me % WORKERS] == 0 && !one_in(3)) {
		shared->stopped[me % WORKERS]++;
		shared->stopped_itself[me % WORKERS] = true;
		raise(SIGSTOP);
		shared->stopped_itself[me % WORKERS] = false;
	}
	for (unsigned i = 0; i < count; i++) {
		for (int64_t until_ns = now_ns() + 100 * MS; now_ns() < until_ns;)
			if (take(&held[i], piece, 5 * MS) < 0)
				break;
		leave(&held[i]);
	}
}
