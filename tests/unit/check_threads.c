/* SPDX-License-Identifier: MIT */
/*
 * check_threads - everything at once, for ThreadSanitizer and for luck.
 *
 * Each thread is a virtual process with a cache of its own over the one
 * mapping (the last two share one), and now and then dies with its hands
 * full. There are more keys than slots and more productions than rings.
 *
 * Every reader knows every byte that it must get, and how it ends: plan.h.
 *
 * Of every third key all productions are the same. So if one dies another may go on
 * with it (SCACHE_RESUMABLE), or do it once more (SCACHE_DETERMINISTIC).
 */
#include <errno.h>
#include <sched.h>

#include "../util/workers.h"

#define THREADS 8
#define SHARING 2 /* the last ones: two threads of one process */
#define KEYS 24
#define DEATHS 3 /* of a worker */
#define ROUNDS (UNDER_TSAN ? 200 : 600)
#define PATIENCE_NS (30 * 1000000000ll) /* nothing here takes that long */

#define REQUIRE(claim, ...)                                                          \
	do {                                                                         \
		if (!(claim)) {                                                      \
			fprintf(stderr, "%s:%d: %s: ", __FILE__, __LINE__, #claim);  \
			fprintf(stderr, __VA_ARGS__);                                \
			fprintf(stderr, " (SCACHE_TEST_SEED=%llu)\n",                \
				(unsigned long long)seed);                           \
			abort();                                                     \
		}                                                                    \
	} while (0)

/* ------------------------------------------------------------------ randomness */

static bool is_fixed(unsigned key)
{
	return key % 3 == 1;
}

static struct plan draw_plan(struct worker *w, unsigned key)
{
	return plan_make(key, is_fixed(key) ? plan_mix(key) : plan_mix(w->random));
}

static _Atomic unsigned fetches, releases, takeovers;

/* -------------------------------------------------------------------- reading */

static int64_t draw_timeout(struct worker *w)
{
	uint64_t kind = draw(w, 3);

	return kind == 0 ? 0 : kind == 1 ? (int64_t)NS_PER_MS : PATIENCE_NS;
}

/* Looks at the next bytes where they are. Not all that is shown is consumed. */
static ssize_t peek_some(struct worker *w, struct scache_reader *reader, struct plan_reading *r,
			 size_t most, int64_t timeout_ns)
{
	const char *wrong;
	const void *data;
	ssize_t got = scache_peek(reader, &data, most, timeout_ns), part;

	if (got <= 0)
		return got;
	part = 1 + (ssize_t)draw(w, (uint64_t)got);
	wrong = plan_check(r, data, (size_t)part);
	REQUIRE(wrong == NULL, "%s", wrong);
	got = scache_consume(reader, (size_t)part);
	REQUIRE(got == part, "consume: %zd", got);
	return got;
}

/* Up to @most bytes. Returns what scache_read() did. */
static ssize_t read_some(struct worker *w, struct scache_reader *reader, struct plan_reading *r,
			 size_t most, int64_t timeout_ns)
{
	bool peeks = draw(w, 3) == 0;
	unsigned char data[8192];
	const char *wrong = NULL;
	ssize_t got;

	if (peeks)
		got = peek_some(w, reader, r, most, timeout_ns);
	else
		got = scache_read(reader, data, most < sizeof(data) ? most : sizeof(data),
				  timeout_ns);
	REQUIRE(got != -ETIMEDOUT || timeout_ns < PATIENCE_NS, "key %u: stuck", r->plan.key);
	if (got > 0 && !peeks)
		wrong = plan_check(r, data, (size_t)got);
	else if (got > 0)
		return got;
	else if (got != -EAGAIN && got != -ETIMEDOUT)
		wrong = plan_check_end(r, (int)got);
	REQUIRE(wrong == NULL, "%s", wrong);
	return got;
}

static void ask_for_result(struct worker *w, struct scache_reader *reader, struct plan_reading *r)
{
	struct scache_entry_info info = { .size = sizeof(info) };
	struct scache_result result = { .size = sizeof(result) };
	uint64_t bytes;
	char text[64];
	int ret = scache_reader_info(reader, &info);

	REQUIRE(ret == 0 && info.bytes >= r->position && info.readers >= 1, "info: %d", ret);
	ret = scache_size(reader, &bytes);
	REQUIRE(ret >= 0 && bytes >= r->position, "size: %d", ret);
	ret = scache_wait(reader, draw_timeout(w), &result);
	if (ret == -EAGAIN || ret == -ETIMEDOUT)
		return;
	REQUIRE(ret == 0 && result.bytes >= r->position, "wait: %d", ret);
	ret = (int)scache_message(reader, text, sizeof(text));
	REQUIRE(ret == (int)result.message_bytes, "message: %d", ret);
	if (ret > 0)
		REQUIRE(strcmp(text, "as planned") == 0, "message: %s", text);
}

/* Read for a while, perhaps to the end, perhaps not. */
static void read_on(struct worker *w, struct scache_reader *reader, struct plan_reading *r)
{
	bool leaves_early = draw(w, 5) == 0;
	ssize_t got;

	for (;;) {
		got = read_some(w, reader, r, 1 + draw(w, 8192), draw_timeout(w));
		if (got == -EAGAIN)
			sched_yield();
		else if (got <= 0 && got != -ETIMEDOUT)
			break;
		if (leaves_early && draw(w, 16) == 0)
			break;
	}
	/* After the end only: before it we may be the one reader whom the writer waits for. */
	if (got == -EOWNERDEAD && reader->replay != NULL)
		return; /* there may be less now than it has had */
	if (got <= 0 && got != -EAGAIN && got != -ETIMEDOUT && draw(w, 4) == 0)
		ask_for_result(w, reader, r);
}

static void read_along(struct worker *w, struct scache_reader *reader, unsigned key)
{
	struct plan_reading r = { .plan = { .key = key } };

	read_on(w, reader, &r);
}

/* -------------------------------------------------------------------- writing */

/* Write the plan; our own reader (or NULL) must be read, or we wait for ourselves. */
static int write_along(struct worker *w, struct scache_writer *writer, const struct plan *plan,
		       struct scache_reader **reader, bool dies)
{
	struct plan_reading r = { .plan = { .key = plan->key } };
	uint64_t done = scache_written(writer);
	uint64_t stop = dies && plan->bytes > 0 ? draw(w, plan->bytes) : plan->bytes;

	atomic_fetch_add(&takeovers, writer->taken_over);
	plan_fill(plan, w->data);
	while (done < stop) {
		/* Now and then so much that it may pass the ring. */
		uint64_t most = min_u64(stop - done,
					draw(w, 6) == 0 ? PLAN_BYTES_MAX : 1 + draw(w, 40000));
		ssize_t put = scache_write(writer, w->data + done, most,
					   *reader != NULL ? 0 : PATIENCE_NS);

		if (put > 0)
			done += (uint64_t)put;
		if (*reader != NULL && draw(w, 64) == 0) {
			scache_reader_close(*reader);
			*reader = NULL;
		}
		if (*reader != NULL && (put == -EAGAIN || draw(w, 2) == 0))
			while (read_some(w, *reader, &r, 8192, 0) > 0)
				;
		if (put == -EPIPE)
			return -EPIPE;
		REQUIRE(put > 0 || put == -EAGAIN, "write: %zd", put);
		if (draw(w, 32) == 0 && scache_writer_check(writer) == -EPIPE)
			return -EPIPE;
	}
	return 0;
}

static void end_production(struct scache_writer *writer, const struct plan *plan)
{
	int ret = 0, wanted = 0;

	if (plan->ending == PLAN_FINISH && writer_is_transient(writer))
		wanted = SCACHE_NOT_KEPT;
	if (plan->ending == PLAN_FINISH)
		ret = scache_finish(writer);
	else if (plan->ending != PLAN_CLOSE)
		ret = scache_abort(writer, plan->code, "as planned", 10);
	REQUIRE(ret == wanted, "ending %d: %d", (int)plan->ending, ret);
}

/* ------------------------------------------------------------------ life and death */

/* No callback writes on after that. */
static void die(struct worker *w, const struct corpse *corpse)
{
	REQUIRE(jobs_await(corpse->cache, PATIENCE_NS) == 0, "callbacks run on");
	fall_dead(w, corpse);
}

/* ----------------------------------------------------------------------- acts */

static void draw_options(struct worker *w, const struct plan *plan,
			 struct scache_acquire_options *ret_options)
{
	static const uint64_t windows[] = { 0, SCACHE_ZERO, 1, 5000, 100000, SCACHE_UNLIMITED };

	*ret_options = (struct scache_acquire_options){
		.size = sizeof(*ret_options),
		.flags = (draw(w, 3) == 0 ? SCACHE_RUN_TO_END : 0) |
			 (draw(w, 8) == 0 ? SCACHE_REFRESH : 0) |
			 (is_fixed(plan->key) && draw(w, 4) != 0 ? SCACHE_RESUMABLE : 0) |
			 (is_fixed(plan->key) && draw(w, 2) == 0 ? SCACHE_DETERMINISTIC : 0),
		.max_age_ns = draw(w, 4) == 0 ? 1 + draw(w, 3 * NS_PER_MS) : 0,
		.window_bytes = windows[draw(w, ARRAY_COUNT(windows))],
	};
	/* Byte by byte goes only what is short: each one costs two threads a sleep. */
	if (ret_options->window_bytes == 1)
		ret_options->window_bytes = 1 + plan->bytes / 256;
}

static struct scache_reader *fetch(struct worker *w, unsigned key);

/* What it leaves another process goes on with that is there already, unless a third is faster. */
static void die_before_heir(struct worker *w, unsigned key, struct scache_reader *reader,
			    struct scache_writer *writer)
{
	const struct corpse corpse = { .cache = w->cache, .reader = reader, .writer = writer };
	struct plan_reading r = { .plan = { .key = key } };
	struct scache_reader *heir;

	open_again(w);
	heir = fetch(w, key);
	read_some(w, heir, &r, 1 + draw(w, 8192), 0);
	die(w, &corpse);
	read_on(w, heir, &r);
	scache_reader_close(heir);
}

static void act_acquire(struct worker *w)
{
	unsigned key = (unsigned)draw(w, KEYS);
	struct scache_acquire_options options;
	struct scache_reader *reader = NULL;
	struct scache_writer *writer = NULL;
	bool alone = draw(w, 8) == 0;
	bool dies = !w->shared && w->deaths < DEATHS && draw(w, is_fixed(key) ? 6 : 25) == 0;
	struct plan plan = draw_plan(w, key);
	char text[32];
	int ret;

	draw_options(w, &plan, &options);
	if (alone) {
		/* Nobody need ever come, so do not wait for anybody. */
		options.flags |= SCACHE_RUN_TO_END;
		options.window_bytes = SCACHE_UNLIMITED;
	}
	ret = scache_acquire(w->cache, text, make_key(key, text), &options,
			     alone ? NULL : &reader, &writer);
	REQUIRE(ret == 0 || ret == SCACHE_BYPASS, "acquire: %d", ret);
	if (writer == NULL) {
		if (reader != NULL)
			read_along(w, reader, key);
		scache_reader_close(reader);
		return;
	}
	ret = write_along(w, writer, &plan, &reader, dies);
	if (ret == 0 && !dies)
		end_production(writer, &plan);
	if (dies) {
		die_before_heir(w, key, reader, writer);
		return;
	}
	scache_writer_close(writer);
	scache_reader_close(reader);
}

/* ------------------------------------------------------------------ callbacks */

/* What one fetch's callback will write, and its library's thread needs for that. */
struct order {
	struct plan plan;
	bool leaves; /* by pthread_exit() */
	unsigned char data[PLAN_BYTES_MAX];
};

static int create_as_planned(void *arg, struct scache_writer *writer)
{
	struct order *order = arg;
	uint64_t done = scache_written(writer), most, lot = order->plan.marker;

	atomic_fetch_add(&takeovers, writer->taken_over);
	plan_fill(&order->plan, order->data);
	while (done < order->plan.bytes) {
		lot = plan_mix(lot);
		most = min_u64(order->plan.bytes - done,
			       lot % 6 == 0 ? PLAN_BYTES_MAX : 1 + lot / 8 % 40000);
		ssize_t put = scache_write(writer, order->data + done, most, PATIENCE_NS);

		if (put == -EPIPE)
			return 0;
		REQUIRE(put > 0, "write: %zd", put);
		done += (uint64_t)put;
	}
	if (order->plan.ending == PLAN_CLOSE && order->leaves)
		pthread_exit(NULL);
	if (order->plan.ending != PLAN_FINISH && order->leaves)
		scache_abort(writer, order->plan.code, "as planned", 10);
	return order->plan.code;
}

static void release_order(void *arg)
{
	atomic_fetch_add(&releases, 1);
	free(arg);
}

/* The callback may outlive this; die() waits for it, or it would write on after its death. */
static struct scache_reader *fetch(struct worker *w, unsigned key)
{
	struct order *order = malloc(sizeof(*order));
	const struct scache_producer producer = { .size = sizeof(producer),
						  .create = create_as_planned,
						  .release = release_order,
						  .arg = order };
	struct scache_acquire_options options;
	struct scache_reader *reader;
	char text[32];
	int ret;

	REQUIRE(order != NULL, "no memory");
	order->plan = draw_plan(w, key);
	draw_options(w, &order->plan, &options);
	if (draw(w, 6) == 0)
		options.flags |= SCACHE_PASS_THROUGH;
	order->leaves = draw(w, 2) == 0;
	ret = scache_fetch(w->cache, text, make_key(key, text), &options, &producer, &reader, NULL);
	REQUIRE(ret == 0, "fetch: %d", ret);
	atomic_fetch_add(&fetches, 1);
	return reader;
}

static void act_fetch(struct worker *w)
{
	unsigned key = (unsigned)draw(w, KEYS);
	struct scache_reader *reader = fetch(w, key);

	read_along(w, reader, key);
	scache_reader_close(reader);
}

static void act_lookup(struct worker *w)
{
	unsigned key = (unsigned)draw(w, KEYS);
	struct scache_reader *reader;
	char text[32];
	int ret = scache_lookup(w->cache, text, make_key(key, text), NULL, &reader);

	REQUIRE(ret == 0 || ret == -ENOENT, "lookup: %d", ret);
	if (ret < 0)
		return;
	read_along(w, reader, key);
	scache_reader_close(reader);
}

static void act_remove(struct worker *w)
{
	char text[32];
	int ret = scache_remove(w->cache, text, make_key((unsigned)draw(w, KEYS), text));

	REQUIRE(ret == 0 || ret == -ENOENT, "remove: %d", ret);
}

static void act_sweep(struct worker *w)
{
	struct scache_sweep_options options = { .size = sizeof(options),
						.max_age_ns = draw(w, 5 * NS_PER_MS) };
	struct scache_sweep_report report = { .size = sizeof(report) };
	int ret = scache_sweep(w->cache, &options, &report);

	REQUIRE(ret == 0 && report.unknown == 0, "sweep: %d", ret);
	REQUIRE(report.orphans == 0, "sweep: %llu orphans, and nobody has died with a file unowned",
		(unsigned long long)report.orphans);
}

static void print_finding(void *arg, const char *text)
{
	(void)arg;
	fprintf(stderr, "%s\n", text);
}

static int look_at(void *arg, const struct scache_entry_info *info)
{
	struct worker *w = arg;

	REQUIRE(info->key_bytes >= 5 && memcmp(info->key, "key ", 4) == 0, "each: strange key");
	return draw(w, 20) == 0;
}

static void act_inspect(struct worker *w)
{
	struct scache_stats stats = { .size = sizeof(stats) };
	int ret = scache_stat(w->cache, &stats);

	REQUIRE(ret == 0 && stats.peers >= 1, "stat: %d", ret);
	ret = scache_each(w->cache, look_at, w);
	REQUIRE(ret >= 0, "each: %d", ret);
	if (draw(w, 4) != 0)
		return;
	ret = scache_check(w->cache, print_finding, NULL);
	REQUIRE(ret == 0, "check: %d violations", ret);
}

static void act_reopen(struct worker *w)
{
	if (w->shared)
		return;
	REQUIRE(scache_close(w->cache) == 0, "close");
	open_again(w);
}

static const struct {
	unsigned weight;
	void (*act)(struct worker *w);
} acts[] = {
	{ 40, act_acquire }, { 25, act_fetch },	 { 15, act_lookup }, { 7, act_remove },
	{ 4, act_sweep },    { 5, act_inspect }, { 4, act_reopen },
};

static void *work(void *arg)
{
	long rounds = rounds_or(ROUNDS);
	struct worker *w = arg;

	while (rounds-- > 0) {
		uint64_t lot = draw(w, 100);
		unsigned i = 0;

		while (lot >= acts[i].weight)
			lot -= acts[i++].weight;
		acts[i].act(w);
	}
	return NULL;
}

/* ----------------------------------------------------------------------- test */

/* Everybody has gone: what is left, and do the books balance? */
static void look_at_the_remains(unsigned deaths)
{
	struct scache *cache = fixture_open(&f);
	struct scache_sweep_options options = { .size = sizeof(options), .max_age_ns = SCACHE_ZERO };
	struct scache_stats stats = { .size = sizeof(stats) };
	int64_t until_ns = deadline_after(PATIENCE_NS);

	/* An orphan is waited for a little while, whoever might come. */
	do {
		ck_assert_int_eq(scache_sweep(cache, &options, NULL), 0);
		ck_assert_int_eq(scache_stat(cache, &stats), 0);
	} while (stats.entries_filling > 0 && clock_own_ns() < until_ns);
	ck_assert_int_eq(scache_check(cache, print_finding, NULL), 0);
	ck_assert_uint_eq(stats.entries, 0);
	ck_assert_uint_eq(stats.entries_free, FIXTURE_ENTRIES);
	ck_assert_uint_eq(stats.readers, 0);
	ck_assert_uint_eq(stats.rings_in_use, 0);
	ck_assert_uint_eq(stats.peers, 1);
	ck_assert_uint_eq(stats.deaths, deaths);
	/* What is gone on with ends once. */
	ck_assert_uint_eq(stats.productions,
			  stats.finishes + stats.failures + atomic_load(&takeovers));
	printf("%llu productions, %llu hits, %llu joins, %llu bypasses, %u deaths, %u take-overs\n",
	       (unsigned long long)stats.productions, (unsigned long long)stats.hits,
	       (unsigned long long)stats.joins, (unsigned long long)stats.bypasses, deaths,
	       atomic_load(&takeovers));
}

/* All is retained, or what comes again, or nearly nothing. */
static uint64_t wanted_by(uint64_t number)
{
	static const uint64_t choice[] = { 1, 3, 255 };

	return choice[number % ARRAY_COUNT(choice)];
}

START_TEST(everything_at_once_is_right_to_the_byte)
{
	static struct worker workers[THREADS];
	unsigned deaths, i;

	fixture_begin(&f);
	f.options.peers = 2 * THREADS + 2;
	f.options.min_occurrences = wanted_by(seed);
	for (i = 0; i < THREADS; i++) {
		workers[i].shared = i >= THREADS - SHARING;
		if (i <= THREADS - SHARING)
			open_again(&workers[i]);
		else
			workers[i].cache = workers[i - 1].cache;
	}
	deaths = workers_run(workers, THREADS, work);
	ck_assert_uint_eq(atomic_load(&releases), atomic_load(&fetches));
	look_at_the_remains(deaths);
	fixture_end(&f);
}
END_TEST

int main(void)
{
	return workers_main("threads", everything_at_once_is_right_to_the_byte);
}
