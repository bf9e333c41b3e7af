/* SPDX-License-Identifier: MIT */
/*
 * calls - what the tests of single calls share: an entry "k" of pattern 1, and
 * calls that wait, in a thread of their own.
 */
#ifndef UTIL_CALLS_H
#define UTIL_CALLS_H

#include <pthread.h>
#include <stdio.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "pattern.h"
#include "scratch.h"
#include "spawn.h"

/* below - a number that looks random, of a series that is always the same. */
static inline uint64_t below(uint64_t n)
{
	static uint64_t state;

	state = state * 6364136223846793005ull + 1442695040888963407ull;
	return (state >> 33) % n;
}

/* end_with - @reader (or NULL) is the last; nothing may be left. */
static inline void end_with(struct scache *cache, struct scache_reader *reader)
{
	scache_reader_close(reader);
	scratch_is_clean(cache);
	scratch_close(cache);
}

/* create_with - be elected for "k", on these terms. */
static inline struct scache_writer *create_with(struct scache *cache,
						struct scache_acquire_options options,
						struct scache_reader **ret_reader)
{
	struct scache_writer *writer = NULL;

	options.size = sizeof(options);
	must_be(scache_acquire(cache, "k", 1, &options, ret_reader, &writer), 0);
	must(writer != NULL);
	return writer;
}

/* create_as - the same by the most common of them. */
static inline struct scache_writer *create_as(struct scache *cache, uint32_t flags,
					      uint64_t window_bytes,
					      struct scache_reader **ret_reader)
{
	const struct scache_acquire_options options = { .flags = flags,
							.window_bytes = window_bytes };

	return create_with(cache, options, ret_reader);
}

/* put - bytes [@from, @until), all of which must be taken at once. */
static inline void put(struct scache_writer *writer, uint64_t from, uint64_t until)
{
	unsigned char data[16384];

	while (from < until) {
		size_t bytes = until - from < sizeof(data) ? (size_t)(until - from) : sizeof(data);

		pattern_fill(1, from, data, bytes);
		must_be(scache_write(writer, data, bytes, 0), bytes);
		from += bytes;
	}
}

/* pread_at - scache_pread(); the bytes, if any come, must be right. */
static inline ssize_t pread_at(struct scache_reader *reader, uint64_t offset, size_t bytes,
			       int64_t timeout_ns)
{
	static _Thread_local unsigned char data[100000];
	ssize_t done;

	must(bytes <= sizeof(data));
	done = scache_pread(reader, data, bytes, offset, timeout_ns);
	must(done <= (ssize_t)bytes);
	if (done > 0)
		must(pattern_matches(1, offset, data, (size_t)done));
	return done;
}

/* pread_to_the_error - what was published is there for a reader at byte 0, and @error behind it. */
static inline void pread_to_the_error(struct scache_reader *reader, uint64_t bytes, int error)
{
	uint64_t position = 0;

	must_be(pread_at(reader, bytes, 10, SCACHE_FOREVER), error);
	must_be(pread_at(reader, bytes + 70000, 10, 0), error);
	for (int i = 0; i < 500; i++)
		must(pread_at(reader, below(bytes), 1 + below(3000), 0) > 0);
	must_be(pattern_read(reader, 1, &position, UINT64_MAX, 3000), error);
	must_be(position, bytes);
	must_be(pattern_read(reader, 1, &position, UINT64_MAX, 3000), error);
	must(pread_at(reader, bytes - 1, 100, 0) == 1);
	must_be(pread_at(reader, bytes, 10, 0), error);
}

/* writer_waits_at - the writer has come to @bytes and waits; it must not have passed them. */
static inline int writer_waits_at(struct scache_reader *reader, uint64_t bytes)
{
	struct scache_entry_info info = scratch_info(reader);

	must(info.bytes <= bytes);
	return info.bytes == bytes && info.flags & SCACHE_WRITER_WAITS;
}

/* A call in a thread of its own. */
struct call {
	ssize_t (*make)(struct call *call);
	struct scache_reader *reader;
	struct scache_writer *writer;
	int fd;
	uint64_t offset, bytes;
	pthread_t thread;
	_Atomic long thread_id;
	ssize_t result;
};

static inline void *call_run(void *arg)
{
	struct call *call = arg;

	call->thread_id = syscall(SYS_gettid);
	call->result = call->make(call);
	return NULL;
}

static inline void call_start(struct call *call)
{
	call->thread_id = 0;
	must(pthread_create(&call->thread, NULL, call_run, call) == 0);
}

/* call_end - what it has returned. */
static inline ssize_t call_end(struct call *call)
{
	must(pthread_join(call->thread, NULL) == 0);
	return call->result;
}

/* call_sleeps - its thread is in the kernel and waits for something. */
static inline int call_sleeps(struct call *call)
{
	char path[64], state = '?';
	FILE *file;

	if (call->thread_id == 0)
		return 0;
	snprintf(path, sizeof(path), "/proc/self/task/%ld/stat", call->thread_id);
	file = fopen(path, "r");
	must(file != NULL);
	must(fscanf(file, "%*d (%*[^)]) %c", &state) == 1);
	fclose(file);
	return state == 'S';
}

#endif
