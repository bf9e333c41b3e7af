/* SPDX-License-Identifier: MIT */
/*
 * pair - what most unit tests begin with: two virtual processes, one segment.
 */
#ifndef UTIL_PAIR_H
#define UTIL_PAIR_H

#include "fixture.h"

static struct fixture f;
static struct scache *cache, *other;
static struct segment *segment;

static void setup(void)
{
	fixture_begin(&f);
	cache = fixture_open(&f);
	other = fixture_open(&f);
	segment = cache->seat->peer.segment;
}

static void teardown(void)
{
	fixture_end(&f);
}

#endif
