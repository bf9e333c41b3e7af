/* SPDX-License-Identifier: MIT */
/*
 * worker - any call on any key, over and over.
 */
#include "storm.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

void open_cache(void)
{
	int ret;

	ret = CALL("open", 0, scache_open(dir, &geometry, &cache));
	if (ret != 0)
		finding("%d (%s): %s", ret, scache_strerror(ret), scache_detail());
}

void close_cache(void)
{
	if (CALL("close", 0, scache_close(cache)) != 0)
		finding("streams are open");
}

static struct scache_acquire_options some_options(struct reading *r)
{
	static const uint64_t ages[] = { 0, 0, SCACHE_ZERO, 5 * MS, 300 * MS, SCACHE_UNLIMITED };
	static const uint64_t windows[] = {
		0, SCACHE_ZERO, 1, 5000, 65536, 300000, SCACHE_UNLIMITED
	};
	struct scache_acquire_options o = { .size = sizeof(o) };

	if (one_in(4))
		o.max_age_ns = ages[below(6)];
	if (one_in(2))
		o.window_bytes = windows[below(7)];
	if (one_in(10))
		o.flags |= SCACHE_REFRESH;
	if (one_in(5))
		o.flags |= SCACHE_RUN_TO_END;
	if (one_in(5))
		o.flags |= SCACHE_PASS_THROUGH;
	if (one_in(5))
		o.flags |= SCACHE_PACE_SLOWEST;
	if (one_in(2))
		o.flags |= SCACHE_RESUMABLE;
	/* 0 and SCACHE_RAW are one; of no avail where the rings are small. */
	o.compression = (uint32_t)below(SCACHE_AUTO + 1);
	o.level = one_in(3) ? (uint32_t)below(13) : 0;
	r->stopped = shared->stopped[me % WORKERS];
	r->refresh = o.flags & SCACHE_REFRESH;
	r->limit_ns = o.max_age_ns == 0             ? UINT64_MAX
		      : o.max_age_ns == SCACHE_ZERO ? 0
						    : o.max_age_ns;
	r->since_ns = now_ns();
	return o;
}

static void acquire(unsigned key)
{
	struct reading r = { .key = key };
	struct scache_acquire_options o = some_options(&r);
	struct scache_writer *writer = NULL;
	char name[16];
	bool blind = one_in(8);
	uint64_t max_age_ns = o.max_age_ns != 0 ? o.max_age_ns : geometry.max_age_ns;
	int ret;

	max_age_ns = max_age_ns == SCACHE_ZERO ? 0 : max_age_ns;
	if (one_in(4)) {
		fetch(&r, &o, max_age_ns);
		return;
	}
	ret = CALL("acquire", key,
		   scache_acquire(cache, name, key_name(key, name), &o, blind ? NULL : &r.reader,
				  &writer));
	if (ret == SCACHE_BYPASS && r.reader == NULL && writer == NULL)
		(geometry.readers < 1024 ? COUNT(bypasses) : COUNT(full));
	else if (ret != 0 || (!blind && r.reader == NULL))
		finding("%d", ret);
	if (writer != NULL)
		produce(writer, &r, max_age_ns);
	else if (r.reader != NULL)
		read_somehow(&r);
}

static void lookup(unsigned key)
{
	struct reading r = { .key = key };
	struct scache_acquire_options o = some_options(&r);
	char name[16];
	int ret;

	ret = CALL("lookup", key, scache_lookup(cache, name, key_name(key, name), &o, &r.reader));
	if (ret == 0)
		read_somehow(&r);
	else if (ret != -ENOENT)
		finding("%d", ret);
}

static void drop(unsigned key)
{
	char name[16];
	int ret;

	ret = CALL("remove", key, scache_remove(cache, name, key_name(key, name)));
	if (ret != 0 && ret != -ENOENT)
		finding("%d", ret);
}

void sweep(void)
{
	struct scache_sweep_report report = { .size = sizeof(report) };
	int ret;

	ret = CALL("sweep", 0, scache_sweep(cache, NULL, &report));
	if (ret != 0 || report.unknown != 0)
		finding("%d (%s), unknown files %d", ret, scache_detail(), (int)report.unknown);
}

static void tell_violation(void *arg, const char *text)
{
	(void)arg;
	fprintf(stderr, "storm: check: %s\n", text);
}

void check(void)
{
	int ret;

	ret = CALL("check", 0, scache_check(cache, tell_violation, NULL));
	if (ret != 0)
		finding("%d violations", ret);
}

static void repair(void)
{
	struct scache_repair_report report = { .size = sizeof(report) };
	int ret = CALL("repair", 0, scache_repair(cache, tell_violation, NULL, &report));

	if (ret != 0 || report.violations != 0)
		finding("%d, %d violations", ret, (int)report.violations);
}

struct scache_stats stat_cache(void)
{
	struct scache_stats s = { .size = sizeof(s) };

	if (CALL("stat", 0, scache_stat(cache, &s)) != 0 || s.entries_free > s.max_entries ||
	    s.peers > s.max_peers || s.rings_in_use > s.max_rings || s.readers > s.max_readers)
		finding("free %d peers %d rings %d readers %d", (int)s.entries_free, (int)s.peers,
			(int)s.rings_in_use, (int)s.readers);
	return s;
}

static int see_entry(void *arg, const struct scache_entry_info *info)
{
	char name[16] = "";
	unsigned key;

	(void)arg;
	for (key = 0; key < KEYS; key++)
		if (key_name(key, name) == info->key_bytes &&
		    memcmp(name, info->key, info->key_bytes) == 0)
			break;
	if (key == KEYS || info->bytes > BLOB_MAX || info->stored_bytes > info->bytes ||
	    info->state < SCACHE_FILLING || info->state > SCACHE_FAILED)
		finding("key '%.*s' state %u bytes %llu stored %llu", (int)info->key_bytes,
			(const char *)info->key, info->state, (unsigned long long)info->bytes,
			(unsigned long long)info->stored_bytes);
	return 0;
}

static void each(void)
{
	int ret;

	ret = CALL("each", 0, scache_each(cache, see_entry, NULL));
	if (ret != 0)
		finding("%d", ret);
}

void use_any_key(unsigned key)
{
	unsigned what = (unsigned)below(84);

	if (what < 45)
		acquire(key);
	else if (what < 78)
		lookup(key);
	else
		drop(key);
}

/* One thing that is not done with one key. */
static void do_something(unsigned key)
{
	unsigned what = (unsigned)below(21);

	if (what < 3)
		sweep();
	else if (what < 7)
		stat_cache();
	else if (what < 8)
		check();
	else if (what < 9)
		repair();
	else if (what < 12)
		each();
	else if (what < 14)
		hoard();
	else if (what < 16)
		have_heir(key);
	else if (what < 18) {
		close_cache();
		open_cache();
	} else if (what < 20) {
		reconfigure();
	} else if (one_in(10)) {
		be_doomed(me);
		_exit(0); /* without a word */
	}
}

void work(bool sweeper)
{
	note_steps();
	open_pipes();
	if (one_in(8))
		geometry.flags = SCACHE_PASS_THROUGH;
	open_cache();
	/* Not before: the segment may be to be made. */
	if (is_tight) {
		limited = true;
		COUNT(tight);
	} else if (one_in(10)) {
		be_limited();
	}
	while (!sweeper) {
		/* Half the time the same few keys, so that they meet. */
		unsigned key = (unsigned)below(one_in(2) ? 4 : KEYS);

		if (one_in(6))
			do_something(key);
		else
			use_any_key(key);
		watch_heir();
	}
	sweep();
	check();
	close_cache();
	_exit(0);
}
