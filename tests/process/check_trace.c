/* SPDX-License-Identifier: MIT */
/*
 * check_trace - what a trace is told of each look-up: once, and what came of it.
 */
#include <check.h>
#include <errno.h>
#include <string.h>

#include "../util/calls.h"

static struct scache_acquire_options pass_through = { .size = sizeof(pass_through),
						      .flags = SCACHE_PASS_THROUGH };

struct told {
	pthread_mutex_t mutex;
	unsigned events, outcomes[SCACHE_BYPASSED + 1], wrong;
	int32_t outcome, error; /* of the last one */
	char key[64];
};

static void tell(void *arg, const struct scache_trace *trace)
{
	struct told *told = arg;

	pthread_mutex_lock(&told->mutex);
	told->events++;
	told->wrong += trace->size != sizeof(*trace) || trace->outcome < SCACHE_HIT ||
		       trace->outcome > SCACHE_BYPASSED || trace->key_bytes >= sizeof(told->key);
	if (told->wrong == 0) {
		told->outcomes[trace->outcome]++;
		told->outcome = trace->outcome;
		told->error = trace->error;
		memcpy(told->key, trace->key, trace->key_bytes);
		told->key[trace->key_bytes] = '\0';
	}
	pthread_mutex_unlock(&told->mutex);
}

static void must_tell(struct told *told, const char *key, int32_t outcome, int32_t error)
{
	must_be(told->wrong, 0);
	must_be(told->events, 1);
	must_be(told->outcome, outcome);
	must_be(told->error, error);
	must(strcmp(told->key, key) == 0);
	told->events = 0;
}

static int create_ten(void *arg, struct scache_writer *writer)
{
	(void)arg;
	put(writer, 0, 10);
	return 0;
}

static const struct scache_producer producer = { .size = sizeof(producer), .create = create_ten };

START_TEST(each_look_up_is_told_once_with_what_came_of_it)
{
	struct told told = { .mutex = PTHREAD_MUTEX_INITIALIZER };
	struct scache_acquire_options bad = { .size = sizeof(bad), .flags = 1u << 30 };
	struct scache_reader *reader, *other;
	struct scache_writer *writer, *none;
	struct scache *cache;
	int created;

	scratch_options.trace = tell;
	scratch_options.trace_arg = &told;
	scratch_options.rings = 1;
	cache = scratch_open();
	must_be(scache_lookup(cache, "a", 1, NULL, &reader), -ENOENT);
	must_tell(&told, "a", SCACHE_MISSED, -ENOENT);
	must_be(scache_acquire(cache, "a", 1, NULL, &reader, &writer), 0);
	must_tell(&told, "a", SCACHE_CREATED, 0);
	must_be(scache_acquire(cache, "a", 1, NULL, &other, &none), 0);
	must_tell(&told, "a", SCACHE_JOINED, 0);
	scache_reader_close(other);
	must_be(scache_lookup(cache, "a", 1, NULL, &other), 0);
	must_tell(&told, "a", SCACHE_JOINED, 0);
	scache_reader_close(other);
	must_be(scache_acquire(cache, "a", 1, NULL, NULL, &none), 0);
	must_tell(&told, "a", SCACHE_JOINED, 0);
	must_be(scache_acquire(cache, "b", 1, &pass_through, &other, &none), SCACHE_BYPASS);
	must_tell(&told, "b", SCACHE_BYPASSED, 0);
	must_be(scache_fetch(cache, "a", 1, NULL, &producer, &other, &created), 0);
	must_tell(&told, "a", SCACHE_JOINED, 0);
	scache_reader_close(other);
	must_be(scache_fetch(cache, "bc", 2, &pass_through, &producer, &other, &created), 0);
	must_be(created, 1);
	must_tell(&told, "bc", SCACHE_BYPASSED, 0);
	pattern_read_all(other, 1, 10);
	scache_reader_close(other);
	must_be(scache_finish(writer), 0);
	scache_writer_close(writer);
	must_be(scache_lookup(cache, "a", 1, NULL, &other), 0);
	must_tell(&told, "a", SCACHE_HIT, 0);
	scache_reader_close(other);
	must_be(scache_acquire(cache, "a", 1, NULL, &other, &none), 0);
	must_tell(&told, "a", SCACHE_HIT, 0);
	scache_reader_close(other);
	must_be(scache_fetch(cache, "a", 1, NULL, &producer, &other, &created), 0);
	must_tell(&told, "a", SCACHE_HIT, 0);
	scache_reader_close(other);
	must_be(scache_fetch(cache, "d", 1, NULL, &producer, &other, &created), 0);
	must_tell(&told, "d", SCACHE_CREATED, 0);
	pattern_read_all(other, 1, 10);
	scache_reader_close(other);
	/* Of what is no look-up nothing is told. */
	must_be(scache_acquire(cache, "", 0, NULL, &other, &none), -EINVAL);
	must_be(scache_acquire(cache, "a", 1, &bad, &other, &none), -EINVAL);
	must_be(scache_lookup(cache, NULL, 1, NULL, &other), -EINVAL);
	must_be(scache_lookup(cache, "a", 1, &bad, &other), -EINVAL);
	must_be(scache_fetch(cache, "a", 1, &bad, &producer, &other, NULL), -EINVAL);
	must_be(scache_fetch(cache, "a", 1, NULL, NULL, &other, NULL), -EINVAL);
	must_be(scache_remove(cache, "a", 1), 0);
	must_be(told.events, 0);
	end_with(cache, reader);
}
END_TEST

#define LOOK_UPS 300

static void *look_up_a_lot(void *arg)
{
	char key[8];

	for (int i = 0; i < LOOK_UPS; i++) {
		struct scache_reader *reader = NULL;
		struct scache_writer *writer = NULL;
		size_t bytes = (size_t)snprintf(key, sizeof(key), "k%d", i % 7);

		if (i % 3 == 0) {
			if (scache_lookup(arg, key, bytes, NULL, &reader) < 0)
				reader = NULL;
		} else {
			must(scache_acquire(arg, key, bytes, NULL, &reader, &writer) >= 0);
		}
		if (writer != NULL)
			must_be(scache_finish(writer), 0);
		scache_writer_close(writer);
		scache_reader_close(reader);
		if (i % 50 == 0)
			scache_remove(arg, key, bytes);
	}
	return NULL;
}

START_TEST(the_trace_of_several_threads_adds_up)
{
	struct told told = { .mutex = PTHREAD_MUTEX_INITIALIZER };
	struct scache_stats stats;
	struct scache *cache;
	pthread_t threads[4];

	scratch_options.trace = tell;
	scratch_options.trace_arg = &told;
	cache = scratch_open();
	for (int i = 0; i < 4; i++)
		must(pthread_create(&threads[i], NULL, look_up_a_lot, cache) == 0);
	for (int i = 0; i < 4; i++)
		must(pthread_join(threads[i], NULL) == 0);
	stats = scratch_stat(cache);
	must_be(told.wrong, 0);
	must_be(told.events, 4 * LOOK_UPS);
	must_be(told.outcomes[SCACHE_HIT], stats.hits);
	must_be(told.outcomes[SCACHE_JOINED], stats.joins);
	must_be(told.outcomes[SCACHE_CREATED], stats.productions);
	must_be(told.outcomes[SCACHE_MISSED], stats.misses - stats.productions);
	must_be(told.outcomes[SCACHE_BYPASSED], stats.bypasses);
	end_with(cache, NULL);
}
END_TEST

int main(void)
{
	const TTest *const tests[] = {
		each_look_up_is_told_once_with_what_came_of_it,
		the_trace_of_several_threads_adds_up,
	};

	return SCRATCH_RUN("trace", tests);
}
