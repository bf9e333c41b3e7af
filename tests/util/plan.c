/* SPDX-License-Identifier: MIT */
#include "plan.h"

#include <errno.h>
#include <stdio.h>

uint64_t plan_mix(uint64_t x)
{
	x += 0x9e3779b97f4a7c15ull;
	x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9ull;
	x = (x ^ x >> 27) * 0x94d049bb133111ebull;
	return x ^ x >> 31;
}

/* Keys divisible by eight have nothing in them: no room for a marker. */
static bool is_empty(unsigned key)
{
	return key % 8 == 0;
}

struct plan plan_make(unsigned key, uint64_t marker)
{
	static const enum plan_ending failures[] = { PLAN_ABORT_ERRNO, PLAN_ABORT_CODE, PLAN_CLOSE };
	struct plan plan = { .key = key, .marker = marker };
	uint64_t m = plan_mix(marker ^ key);

	if (is_empty(key))
		return plan;
	plan.bytes = m % 4 == 0 ? 8 + m % 100 : 8 + m % (PLAN_BYTES_MAX - 8);
	m = plan_mix(m);
	if (m % 4 == 0)
		plan.ending = failures[m / 4 % 3];
	if (plan.ending == PLAN_ABORT_ERRNO)
		plan.code = -EDOM;
	else if (plan.ending == PLAN_ABORT_CODE)
		plan.code = (int)(1 + m / 16 % 200);
	else if (plan.ending == PLAN_CLOSE)
		plan.code = -ECANCELED;
	return plan;
}

/* The byte at @at; each word of the pattern is a mix of key, marker and place. */
static unsigned char byte_at(const struct plan *plan, uint64_t at, uint64_t *word)
{
	if (at < 8)
		return (unsigned char)(plan->marker >> at * 8);
	if (at % 8 == 0)
		*word = plan_mix(plan->marker ^ (uint64_t)plan->key << 56 ^ at);
	return (unsigned char)(*word >> at % 8 * 8);
}

void plan_fill(const struct plan *plan, unsigned char ret_data[PLAN_BYTES_MAX])
{
	uint64_t word = 0;

	for (uint64_t at = 0; at < plan->bytes; at++)
		ret_data[at] = byte_at(plan, at, &word);
}

static const char *complain(struct plan_reading *r, const char *what, int error)
{
	snprintf(r->why, sizeof(r->why),
		 "key %u marker %llx: %s at %llu of %llu (error %d, planned %d)", r->plan.key,
		 (unsigned long long)r->marker, what, (unsigned long long)r->position,
		 (unsigned long long)r->plan.bytes, error, r->plan.code);
	return r->why;
}

const char *plan_check(struct plan_reading *r, const unsigned char *data, size_t bytes)
{
	for (size_t i = 0; i < bytes; i++) {
		uint64_t at = r->position++;

		if (at >= 8 && data[i] != byte_at(&r->plan, at, &r->word))
			return complain(r, "a wrong byte", 0);
		if (at < 8)
			r->marker |= (uint64_t)data[i] << at * 8;
		if (at == 7)
			r->plan = plan_make(r->plan.key, r->marker);
	}
	if (is_empty(r->plan.key) || (r->position >= 8 && r->position > r->plan.bytes))
		return complain(r, "more than was written", 0);
	return NULL;
}

const char *plan_check_end(struct plan_reading *r, int error)
{
	int wanted = r->plan.code > 0 ? -EREMOTEIO : r->plan.code;

	/* A producer may be killed at any byte. */
	if (error == -EOWNERDEAD)
		return NULL;
	if (r->position != r->plan.bytes || (r->position < 8 && !is_empty(r->plan.key)))
		return complain(r, "an end too early", error);
	return error == wanted ? NULL : complain(r, "another end than planned", error);
}
