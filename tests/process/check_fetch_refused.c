/* SPDX-License-Identifier: MIT */
/*
 * check_fetch_refused - fetches that are none: without a thread, or of what
 * cannot be. Nothing is begun, and nothing released.
 */
#include <check.h>
#include <errno.h>
#include <pthread.h>

#include "../util/pattern.h"
#include "../util/producer.h"
#include "../util/scratch.h"
#include "../util/spawn.h"

#define BLOB_BYTES 600000ull /* more than the ring */
#define MORE_THAN_THERE_IS (1ull << 50)

START_TEST(without_a_thread_nothing_is_begun)
{
	const struct scache_producer made_by_nobody = task_producer(&(struct task){ .seed = 2 });
	struct task task = { .seed = 1, .bytes = BLOB_BYTES };
	struct scache_fetched fetched = { .size = sizeof(fetched), .code = 99 };
	struct scache_reader *reader = NULL;
	struct scache *cache;
	pthread_attr_t usual, huge;
	int created = 77, ret;

	board_make();
	cache = scratch_open();
	must(pthread_getattr_default_np(&usual) == 0);
	must(pthread_attr_init(&huge) == 0);
	must(pthread_attr_setstacksize(&huge, MORE_THAN_THERE_IS) == 0);
	must(pthread_setattr_default_np(&huge) == 0);
	ret = scache_fetch(cache, "k", 1, NULL, &made_by_nobody, &reader, &created);
	must(ret == -EAGAIN || ret == -ENOMEM);
	must(reader == NULL);
	must_be(created, 77);
	must_be(scache_fetch_to_fd(cache, "k", 1, NULL, &made_by_nobody, 1, &fetched), ret);
	must_be(fetched.code, 99);
	must_be(atomic_load(&board->begun), 0);
	must_be(atomic_load(&board->released), 0);
	must_be(scratch_stat(cache).entries, 0);
	must_be(scratch_stat(cache).readers, 0);
	must(pthread_setattr_default_np(&usual) == 0);
	must_be(task_fetch(cache, "k", NULL, &task, &reader), 1);
	pattern_read_all(reader, 1, BLOB_BYTES);
	scache_reader_close(reader);
	/* What is there needs no thread. */
	must(pthread_setattr_default_np(&huge) == 0);
	must_be(task_fetch(cache, "k", NULL, &task, &reader), 0);
	pattern_read_all(reader, 1, BLOB_BYTES);
	must(pthread_setattr_default_np(&usual) == 0);
	task_close(cache, reader);
}
END_TEST

static void refuses(struct scache *cache, const char *key, size_t key_bytes,
		    const struct scache_acquire_options *options,
		    const struct scache_producer *producer)
{
	struct scache_fetched fetched = { .size = sizeof(fetched), .code = 99 };
	struct scache_reader *reader = NULL;
	int created = 77;

	must_be(scache_fetch(cache, key, key_bytes, options, producer, &reader, &created), -EINVAL);
	must(reader == NULL);
	must_be(created, 77);
	must_be(scache_fetch_to_fd(cache, key, key_bytes, options, producer, 1, &fetched), -EINVAL);
	must_be(fetched.code, 99);
}

START_TEST(impossible_arguments_are_refused)
{
	static struct task task = { .seed = 1, .bytes = BLOB_BYTES };
	const struct scache_producer good = task_producer(&task);
	struct scache_producer bad;
	struct scache_acquire_options options = { .size = sizeof(options) };
	struct scache_reader *reader;
	struct scache *cache;
	char key[256] = "";

	board_make();
	cache = scratch_open();
	refuses(cache, "k", 1, NULL, NULL);
	bad = good;
	bad.size = 0;
	refuses(cache, "k", 1, NULL, &bad);
	bad.size = sizeof(bad) + 8;
	refuses(cache, "k", 1, NULL, &bad);
	bad = good;
	bad.create = NULL;
	refuses(cache, "k", 1, NULL, &bad);
	refuses(cache, NULL, 1, NULL, &good);
	refuses(cache, key, 0, NULL, &good);
	refuses(cache, key, 256, NULL, &good);
	must_be(scache_fetch(cache, "k", 1, NULL, &good, NULL, NULL), -EINVAL);
	options.flags = 1u << 30;
	refuses(cache, "k", 1, &options, &good);
	options = (struct scache_acquire_options){ .size = sizeof(options), .reserved = 1 };
	refuses(cache, "k", 1, &options, &good);
	options = (struct scache_acquire_options){ .size = sizeof(options) + 8 };
	refuses(cache, "k", 1, &options, &good);
	options.size = 8;
	refuses(cache, "k", 1, &options, &good);
	options.size = 0;
	refuses(cache, "k", 1, &options, &good);
	must_be(atomic_load(&board->released), 0);
	must_be(scratch_stat(cache).entries, 0);
	/* The longest key there is. */
	must_be(scache_fetch(cache, key, 255, NULL, &good, &reader, NULL), 0);
	atomic_fetch_add(&board->fetches, 1);
	pattern_read_all(reader, 1, BLOB_BYTES);
	task_close(cache, reader);
}
END_TEST

int main(void)
{
	const TTest *const tests[] = {
		without_a_thread_nothing_is_begun,
		impossible_arguments_are_refused,
	};

	return SCRATCH_RUN("fetch_refused", tests);
}
