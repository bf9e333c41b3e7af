/* SPDX-License-Identifier: MIT */
/*
 * oracle - what may be read, and how it may end.
 */
#include "storm.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "index/cursor.h"
#include "stream/stream.h"

#define FIXED_ID (1ull << 40) /* and the key: more than all others come to */

struct shared *shared;
uint64_t seed, random_state;
bool hold;
char base[256], dir[300];
struct scache_options geometry;
struct scache *cache;
uint32_t me;
unsigned char blob[BLOB_MAX], got[BLOB_MAX];
static unsigned char wanted[BLOB_MAX];

bool limited;
bool is_tight;
uint64_t evicted_before;

uint64_t mix(uint64_t x)
{
	x += 0x9e3779b97f4a7c15ull;
	x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9ull;
	x = (x ^ x >> 27) * 0x94d049bb133111ebull;
	return x ^ x >> 31;
}

uint64_t below(uint64_t n)
{
	return (random_state = mix(random_state)) % n;
}

bool one_in(unsigned n)
{
	return below(n) == 0;
}

int64_t now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_BOOTTIME, &now);
	return now.tv_sec * 1000 * MS + now.tv_nsec;
}

void nap(int64_t ns)
{
	const struct timespec time = { .tv_sec = ns / (1000 * MS), .tv_nsec = ns % (1000 * MS) };

	nanosleep(&time, NULL);
}

void finding(const char *format, ...)
{
	char text[400];
	va_list args;

	va_start(args, format);
	vsnprintf(text, sizeof(text), format, args);
	va_end(args);
	be_unlimited(); /* standard error may be a file, too */
	fprintf(stderr, "storm: seed %llu, process %d in %s(key %u): %s\n",
		(unsigned long long)seed, (int)getpid(), last_call, last_key, text);
	COUNT(findings);
	if (me == 0)
		tally_end();
	alarm(0);
	while (hold)
		pause();
	_exit(1);
}

size_t key_name(unsigned key, char ret_name[16])
{
	return (size_t)snprintf(ret_name, 16, "storm-%02u", key);
}

/* ------------------------------------------------------------------- oracle */

/* Of every second production three of four words come again and again: it compresses. */
static uint64_t word_at(const struct header *h, uint64_t at)
{
	uint64_t index = at / 8;

	if (h->id % 2 == 0 && index % 64 >= 16)
		index %= 64;
	return mix(h->id << 8 ^ h->key ^ index * 0x2545f4914f6cdd1dull);
}

void fill(const struct header *h, uint64_t from, unsigned char *data, size_t bytes)
{
	for (uint64_t at = from; at < from + bytes;) {
		uint64_t word = word_at(h, at);
		size_t skip = at % 8, part = 8 - skip;

		part = part < from + bytes - at ? part : (size_t)(from + bytes - at);
		if (at < sizeof(*h))
			memcpy(data + (at - from), (const char *)h + at, part);
		else
			memcpy(data + (at - from), (const char *)&word + skip, part);
		at += part;
	}
}

/* Keys whose productions are all the same. */
static bool is_fixed(unsigned key)
{
	return key % 4 == 3;
}

struct production *remember(struct header *h, uint64_t max_age_ns, enum stage stage)
{
	static struct production of_no_interest;
	struct production *p;

	h->magic = MAGIC;
	if (is_fixed(h->key)) {
		COUNT(fixed);
		h->id = FIXED_ID + h->key;
		h->ending = FINISH;
		h->code = 1;
		h->bytes = sizeof(*h) + mix(seed + h->key) % (BLOB_MAX / 2);
		return &of_no_interest;
	}
	h->id = COUNT(productions) + 1;
	p = &shared->production[h->id % PRODUCTIONS];
	p->worker = me;
	p->stage = stage;
	p->max_age_ns = max_age_ns;
	p->limited = limited;
	p->id = h->id;
	return p;
}

/*
 * Who goes on with what the dead began has to know what it was: they wrote it
 * down, under the entry's name, before the first byte. With none published it
 * may be something new.
 */
struct production *begin(struct scache_writer *writer, struct header *h, uint64_t max_age_ns)
{
	uint64_t written = scache_written(writer), name = name_word(writer->name);
	struct beginning *b = &shared->beginning[writer->name.idx % SLOTS];
	struct production *p;

	if (writer->taken_over)
		COUNT(takeovers);
	if (writer->taken_over && b->name == name) {
		*h = b->header;
		if (h->key >= KEYS || written > h->bytes)
			finding("goes on at %llu of %llu", (unsigned long long)written,
				(unsigned long long)h->bytes);
		p = &shared->production[h->id % PRODUCTIONS];
		if (is_fixed(h->key) || p->id != h->id)
			return remember(&(struct header){ .key = h->key }, UINT64_MAX, PRODUCING);
		p->limited = p->limited || limited;
		p->worker = me;
		p->stage = PRODUCING;
		return p;
	}
	if (written != 0)
		finding("goes on at %llu where nobody has begun", (unsigned long long)written);
	/* How old it may get is what the dead one had asked for, and took along. */
	p = remember(h, writer->taken_over ? UINT64_MAX : max_age_ns, PRODUCING);
	/* A private stream's segment is its own, and nobody takes it over. */
	if (writer->store->segment->geometry.entries > 1) {
		b->name = 0;
		b->header = *h;
		b->name = name;
	}
	return p;
}

void be_doomed(uint32_t number)
{
	shared->doomed[number % WORKERS] = true;
}

static bool is_doomed(uint32_t number)
{
	uint32_t parent = shared->parent[number % WORKERS];

	return shared->doomed[number % WORKERS] ||
	       (parent != 0 && shared->doomed[parent % WORKERS]);
}

bool was_stopped(const struct reading *r)
{
	return shared->stopped[me % WORKERS] != r->stopped;
}

/* What became of it; NULL before its header is read, or if too long ago. */
static struct production *production_of(const struct reading *r)
{
	struct production *p = &shared->production[r->header.id % PRODUCTIONS];

	return r->position >= sizeof(r->header) && p->id == r->header.id ? p : NULL;
}

/* Did its file fail? Of a fixed key nobody keeps that apart. */
static bool may_lack_room(const struct production *p, int error)
{
	return is_shortage(error) && (is_tight || shared->limited > 0) &&
	       (p == NULL || p->limited);
}

/* The header is complete: is it one that this caller may be given? */
static void check_header(const struct reading *r)
{
	const struct header *h = &r->header;
	struct production *p = production_of(r);
	uint64_t limit_ns;
	uint32_t stage;

	if (h->magic != MAGIC || h->key != r->key || h->bytes > BLOB_MAX || h->ending > CLOSE)
		finding("no header: magic %x key %u bytes %llu", h->magic, h->key,
			(unsigned long long)h->bytes);
	stage = p != NULL ? p->stage : PRODUCING;
	if (stage != FINISHED)
		return;
	limit_ns = p->max_age_ns < r->limit_ns ? p->max_age_ns : r->limit_ns;
	if (p->finished_ns < r->since_ns &&
	    (r->refresh || (uint64_t)(r->since_ns - p->finished_ns) >= limit_ns))
		finding("production %llu ended %lld ns before, limit %llu, refresh %d",
			(unsigned long long)h->id, (long long)(r->since_ns - p->finished_ns),
			(unsigned long long)limit_ns, r->refresh);
}

void check_bytes(struct reading *r, const unsigned char *data, size_t bytes)
{
	size_t part = 0;

	if (r->position < sizeof(r->header)) {
		part = sizeof(r->header) - (size_t)r->position;
		part = part < bytes ? part : bytes;
		memcpy((char *)&r->header + r->position, data, part);
		if (r->position + part == sizeof(r->header)) {
			r->position += part;
			check_header(r);
			r->position -= part;
		}
	}
	fill(&r->header, r->position + part, wanted, bytes - part);
	for (size_t i = part; i < bytes && memcmp(data + part, wanted, bytes - part) != 0; i++)
		if (data[i] != wanted[i - part])
			finding("production %llu: byte %llu of %llu is %02x, not %02x; got %zu",
				(unsigned long long)r->header.id,
				(unsigned long long)(r->position + i),
				(unsigned long long)r->header.bytes, data[i], wanted[i - part],
				bytes);
	r->position += bytes;
	atomic_fetch_add(&shared->verified, bytes);
	if (r->key == 0 || (r->position >= sizeof(r->header) && r->position > r->header.bytes))
		finding("more than was written: %llu of %llu", (unsigned long long)r->position,
			(unsigned long long)r->header.bytes);
}

bool may_have_lost(const struct reading *r)
{
	const struct production *p = production_of(r);

	return r->looked_ahead && (is_tight || shared->limited > 0) && (p == NULL || p->limited);
}

/* Is this how the production could end? @error 0: end of file. */
void check_end(const struct reading *r, int error)
{
	static const int errors[] = { 0, -EDOM, -EREMOTEIO, -ECANCELED };
	struct production *p = production_of(r);
	uint32_t stage = p != NULL ? p->stage : ENDING;
	bool known = r->position >= sizeof(r->header), good = false;

	if (error == -ESTALE) {
		COUNT(stale);
		good = was_stopped(r) || may_have_lost(r);
	} else if (error == -EOWNERDEAD) {
		COUNT(deaths);
		good = p == NULL ||
		       ((stage < FINISHED || stage == GAVE_UP) && is_doomed(p->worker));
	} else if (may_lack_room(p, error)) {
		good = true;
	} else if (r->deterministic && error < 0 && (p == NULL || is_doomed(p->worker))) {
		/* Of another production, before that got as far as the first. */
		good = error == -EDOM || error == -EREMOTEIO || error == -ECANCELED ||
		       may_lack_room(NULL, error);
	} else if (known && p == NULL && error == -ECANCELED) {
		good = true;
	} else if (r->key == 0) {
		good = error == 0 || error == -EDOM || error == -EREMOTEIO || error == -ECANCELED;
	} else if (stage == GAVE_UP || (!known && error == -ECANCELED)) {
		good = error == -ECANCELED;
	} else {
		good = known && error == errors[r->header.ending] &&
		       r->position == r->header.bytes && stage != PRODUCING;
	}
	if (!good)
		finding("ends with %d (%s) at %llu of %llu; production %llu, ending %u, stage %u, "
			"stopped %d limited %d doomed %d ahead %d deterministic %d",
			error, scache_strerror(error), (unsigned long long)r->position,
			(unsigned long long)r->header.bytes, (unsigned long long)r->header.id,
			r->header.ending, stage, was_stopped(r), p != NULL && p->limited,
			p != NULL && is_doomed(p->worker), r->looked_ahead, r->deterministic);
}

void check_result(struct reading *r, int error)
{
	struct scache_result result = { .size = sizeof(result) };
	char text[600] = "", expected[32];
	uint64_t bytes;
	int ret;

	ret = CALL("wait", r->key, scache_wait(r->reader, 0, &result));
	/* By now it may be at another production, which did not serve. */
	if ((ret == -ESTALE && error == -ESTALE) || (r->deterministic && error < 0))
		return;
	if (ret != 0 || result.bytes != r->position ||
	    (error == -EREMOTEIO ? result.code < 1 : result.code != error))
		finding("%d code %d bytes %llu after %d at %llu", ret, result.code,
			(unsigned long long)result.bytes, error, (unsigned long long)r->position);
	ret = CALL("size", r->key, scache_size(r->reader, &bytes));
	if (ret != (error == 0) || bytes != r->position)
		finding("%d, %llu at %llu", ret, (unsigned long long)bytes,
			(unsigned long long)r->position);
	if (error != -EDOM && error != -EREMOTEIO)
		return;
	ret = CALL("message", r->key, scache_message(r->reader, text, sizeof(text)));
	snprintf(expected, sizeof(expected), "key %u ", r->key);
	if (ret < 0 || (size_t)ret != strlen(text) ||
	    strncmp(text, expected, strlen(expected)) != 0 ||
	    (error == -EREMOTEIO && result.code != (int)strtol(text + strlen(expected), NULL, 10)))
		finding("%d code %d: '%s'", ret, result.code, text);
}
