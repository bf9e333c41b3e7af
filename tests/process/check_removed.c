/* SPDX-License-Identifier: MIT */
/*
 * check_removed - what was removed does not come back after the segment is lost, whoever
 * had it then, and whoever was killed meanwhile.
 */
#include <check.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../util/former.h"
#include "../util/pattern.h"
#include "../util/scratch.h"
#include "../util/spawn.h"
#include "api/cache.h"
#include "base/step.h"
#include "shm/epoch.h"

#define BYTES 300000ull

START_TEST(a_key_that_only_a_file_has_can_be_removed)
{
	struct scache *cache;

	former_put("k", 1, BYTES);
	former_lose(LOST_FILE);
	cache = scratch_open();
	must_be(scache_remove(cache, "k", 1), 0);
	must_be(scratch_blobs(), 0);
	must(scratch_misses(cache, "k"));
	must_be(scache_remove(cache, "k", 1), -ENOENT);
	scratch_close(cache);
	former_is_gone();
}
END_TEST

static void find_and_stay(void *arg)
{
	struct scache_reader *reader = scratch_find(scratch_open(), "k");
	char byte;

	(void)arg;
	must_be(scache_read(reader, &byte, 1, SCACHE_FOREVER), 1);
	child_say(0);
	child_stay();
}

static void remove_and_stay(void *arg)
{
	struct scache *cache = scratch_open();

	(void)arg;
	must_be(scache_remove(cache, "k", 1), 0);
	child_say(0);
	child_stay();
}

static void remove_while_read(void)
{
	struct child reader, remover;

	child_start(&reader, find_and_stay, NULL);
	child_hear(&reader);
	child_start(&remover, remove_and_stay, NULL);
	child_hear(&remover);
	must_be(scratch_blobs(), 1);
	child_kill(&remover);
	child_kill(&reader);
	former_is_gone();
}

START_TEST(what_was_removed_while_it_was_read_does_not_come_back)
{
	former_put("k", 1, BYTES);
	remove_while_read();
}
END_TEST

START_TEST(nor_does_one_that_was_adopted_before)
{
	former_put("k", 1, BYTES);
	former_lose(LOST_FILE);
	remove_while_read();
}
END_TEST

/* Somebody stands in the index: its slot and its file have to wait. */
START_TEST(what_was_removed_while_the_index_was_walked_does_not_come_back)
{
	struct scache *cache, *walker;
	unsigned pin;

	former_put("k", 1, BYTES);
	cache = scratch_open();
	walker = scratch_open();
	pin = epoch_enter(walker->seat->store.peer);
	must_be(scache_remove(cache, "k", 1), 0);
	former_lose(LOST_TRUST);
	epoch_leave(walker->seat->store.peer, pin);
	scratch_close(walker);
	scratch_close(cache);
	cache = scratch_open();
	must(scratch_misses(cache, "k"));
	scratch_is_clean(cache);
	must_be(scratch_blobs(), 0);
	scratch_close(cache);
}
END_TEST

static void finish_and_stay(void *arg)
{
	struct scache *cache = scratch_open();
	struct scache_writer *writer = scratch_create(cache, "k", 0, NULL);

	(void)arg;
	child_say(0);
	child_listen();
	must_be(pattern_write(writer, 1, 0, BYTES, 70000, NULL), BYTES);
	must_be(scache_finish(writer), 0);
	child_say(0);
	child_stay();
}

static struct scache *remover;
static const char *moment;

/* All of it is in its file, read-only, and not yet known to be finished. */
static void be_removed_and_die(const char *label)
{
	if (strcmp(label, moment) == 0)
		must_be(scache_remove(remover, "k", 1), 0);
	if (strcmp(label, "blob-sealed") != 0)
		return;
	child_say(0);
	child_stay();
}

static void finish_and_be_removed(void *arg)
{
	struct scache_writer *writer = scratch_create(scratch_open(), "k", 0, NULL);

	moment = arg;
	remover = scratch_open();
	must_be(pattern_write(writer, 1, 0, BYTES, 70000, NULL), BYTES);
	step_set_hook(be_removed_and_die);
	scache_finish(writer);
}

static void finish_removed(char *when)
{
	struct child child;

	child_start(&child, finish_and_be_removed, when);
	child_hear(&child);
	child_kill(&child);
	former_is_gone();
}

START_TEST(what_was_removed_before_it_was_finished_does_not_come_back)
{
	char sealed[] = "blob-sealed", unsealed[] = "footer-written";

	finish_removed(sealed);
	finish_removed(unsealed);
}
END_TEST

START_TEST(what_was_removed_while_it_was_produced_does_not_come_back)
{
	struct child producer, reader;
	struct scache *cache;

	child_start(&producer, finish_and_stay, NULL);
	child_hear(&producer);
	cache = scratch_open();
	child_tell(&producer, 0);
	child_start(&reader, find_and_stay, NULL);
	child_hear(&reader);
	must_be(scache_remove(cache, "k", 1), 0);
	child_hear(&producer);
	child_kill(&producer);
	child_kill(&reader);
	scratch_close(cache);
	former_is_gone();
}
END_TEST

static void outlive_its_removal(void *arg)
{
	struct scache *cache = scratch_open();
	struct scache_reader *reader;
	struct scache_writer *writer = scratch_create(cache, "k", 0, &reader);

	(void)arg;
	must_be(pattern_write(writer, 1, 0, BYTES, 70000, NULL), BYTES);
	must_be(scache_remove(cache, "k", 1), 0);
	pattern_produce(scratch_create(cache, "k", 0, NULL), 2, BYTES, 70000);
	must_be(scache_finish(writer), 0);
	must_be(former_read(reader, BY_READ, 1, BYTES), 0);
	child_say(0);
	child_stay();
}

/* Should its w bit be lost, as by a power cut, it is still none that was finished. */
START_TEST(what_was_removed_while_it_grew_does_not_outdo_its_successor)
{
	struct scache *cache;
	struct child child;
	char command[400];

	child_start(&child, outlive_its_removal, NULL);
	child_hear(&child);
	child_kill(&child);
	snprintf(command, sizeof(command), "chmod 400 %s/blobs/*/*", scratch_dir);
	must_be(system(command), 0);
	former_lose(LOST_FILE);
	cache = scratch_open();
	former_has(cache, "k", 2, BYTES);
	scratch_is_clean(cache);
	must_be(scratch_blobs(), 1);
	scratch_close(cache);
}
END_TEST

int main(void)
{
	const TTest *const tests[] = {
		a_key_that_only_a_file_has_can_be_removed,
		what_was_removed_while_it_was_read_does_not_come_back,
		nor_does_one_that_was_adopted_before,
		what_was_removed_while_the_index_was_walked_does_not_come_back,
		what_was_removed_before_it_was_finished_does_not_come_back,
		what_was_removed_while_it_was_produced_does_not_come_back,
		what_was_removed_while_it_grew_does_not_outdo_its_successor,
	};

	return SCRATCH_RUN("removed", tests);
}
