/* SPDX-License-Identifier: MIT */
/*
 * check_cancel_threads - scache_cancel() and the thread that it means, for
 * ThreadSanitizer.
 */
#include <errno.h>
#include <sched.h>

#include "../util/fixture.h"
#include "../util/spawn.h"

#define ROUNDS 40

static struct fixture f;

static void *read_hello(void *arg)
{
	char text[8];
	ssize_t got = scache_read(arg, text, sizeof(text), SCACHE_FOREVER);

	must(got == -ECANCELED || (got == 5 && memcmp(text, "hello", 5) == 0));
	return NULL;
}

static int write_hello(void *arg, struct scache_writer *writer)
{
	(void)arg;
	return scache_write(writer, "hello", 5, SCACHE_FOREVER) == 5 ? 0 : -EPIPE;
}

START_TEST(cancel_may_come_while_a_reader_goes_on_with_another_producer)
{
	const struct scache_producer producer = { .size = sizeof(producer), .create = write_hello };
	struct scache *cache;

	fixture_begin(&f);
	cache = fixture_open(&f);
	for (unsigned i = 0; i < ROUNDS; i++) {
		struct scache *doomed = fixture_open(&f);
		struct scache_writer *writer;
		struct scache_reader *reader;
		struct scache_stats stats = { .size = sizeof(stats) };
		pthread_t thread;
		int ret, created = 1;

		ret = scache_acquire(doomed, "k", 1, NULL, NULL, &writer);
		must(ret == 0 && writer != NULL);
		ret = scache_fetch(cache, "k", 1, NULL, &producer, &reader, &created);
		must(ret == 0 && created == 0);
		fixture_kill(&f, doomed);
		fixture_bury_writer(writer);
		must(pthread_create(&thread, NULL, read_hello, reader) == 0);
		/* At once, or when somebody has noticed the death. */
		while (i % 2 == 0 && scache_stat(cache, &stats) == 0 && stats.deaths <= i)
			sched_yield();
		scache_cancel(reader);
		pthread_join(thread, NULL);
		scache_reader_close(reader);
		ret = scache_remove(cache, "k", 1);
		must(ret == 0 || ret == -ENOENT);
	}
	fixture_end(&f);
}
END_TEST

int main(void)
{
	const TTest *const tests[] = {
		cancel_may_come_while_a_reader_goes_on_with_another_producer,
	};

	return fixture_main("cancel_threads", NULL, NULL, tests, ARRAY_COUNT(tests));
}
