/* SPDX-License-Identifier: MIT */
#include "producer.h"

#include <glob.h>
#include <string.h>
#include <sys/mman.h>

#include "pattern.h"
#include "scratch.h"
#include "spawn.h"

#define PIECE_BYTES 10007

struct board *board;

void board_make(void)
{
	board = mmap(NULL, sizeof(*board), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1,
		     0);
	must(board != MAP_FAILED);
}

static void note_return(void *arg)
{
	struct task *task = arg;

	atomic_store(&task->runs, false);
	atomic_fetch_add(&board->returned, 1);
}

static int work(struct task *task, struct scache_writer *writer)
{
	uint64_t first = task->pauses ? task->pause_at : 0, done;
	int error = 0;

	done = pattern_write(writer, task->seed, 0, first, PIECE_BYTES, &error);
	if (task->pauses) {
		atomic_fetch_add(&board->paused, 1);
		eventually(atomic_load(&board->go));
	}
	if (error == 0)
		done += pattern_write(writer, task->seed, done, task->bytes, PIECE_BYTES, &error);
	atomic_store(&board->error, error);
	atomic_store(&board->written, done);
	return task->ending != NULL ? task->ending(task, writer) : task->ret;
}

static int create(void *arg, struct scache_writer *writer)
{
	struct task *task = arg;
	int code;

	must(!atomic_exchange(&task->runs, true));
	task->thread = pthread_self();
	atomic_fetch_add(&board->begun, 1);
	pthread_cleanup_push(note_return, task);
	code = work(task, writer);
	pthread_cleanup_pop(1);
	return code;
}

static void release(void *arg)
{
	struct task *task = arg;

	must(!atomic_load(&task->runs));
	atomic_fetch_add(&board->released, 1);
}

struct scache_producer task_producer(struct task *task)
{
	return (struct scache_producer){
		.size = sizeof(struct scache_producer),
		.create = create,
		.release = release,
		.arg = task,
	};
}

int task_fetch(struct scache *cache, const char *key, const struct scache_acquire_options *options,
	       struct task *task, struct scache_reader **ret_reader)
{
	const struct scache_producer producer = task_producer(task);
	int created = -1;

	must_be(scache_fetch(cache, key, strlen(key), options, &producer, ret_reader, &created), 0);
	must(created == 0 || created == 1);
	atomic_fetch_add(&board->fetches, 1);
	return created;
}

void task_close(struct scache *cache, struct scache_reader *reader)
{
	must_be(scache_reader_close(reader), 0);
	scratch_close(cache);
	must_be(atomic_load(&board->returned), atomic_load(&board->begun));
	must_be(atomic_load(&board->released), atomic_load(&board->fetches));
	cache = scratch_open();
	scratch_is_clean(cache);
	scratch_close(cache);
}

int threads_now(void)
{
	glob_t found = { .gl_pathc = 0 };
	int count;

	must(glob("/proc/self/task/[0-9]*", 0, NULL, &found) == 0);
	count = (int)found.gl_pathc;
	globfree(&found);
	return count;
}
