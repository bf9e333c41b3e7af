/* SPDX-License-Identifier: MIT */
/* check_peer - seats, who still sits, and what a fork changes. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <unistd.h>

#include "../util/fixture.h"
#include "index/repair.h"

static struct fixture f;
static struct scache *cache;
static struct segment *segment;

static void setup(void)
{
	fixture_begin(&f);
	cache = fixture_open(&f);
	segment = cache->seat->peer.segment;
}

static void teardown(void)
{
	fixture_end(&f);
}

static uint64_t slot_word(uint32_t slot)
{
	return shm_load(&segment->peers[slot].state);
}

static int is_held(uint32_t slot)
{
	return lockfile_is_held(cache->seat->peer.lock_fd, segment->number, slot);
}

START_TEST(a_seat_is_active_and_locked_until_its_peer_leaves)
{
	struct scache *other = fixture_open(&f);
	uint32_t slot = other->seat->peer.slot, gen = other->seat->peer.gen;

	ck_assert_uint_eq(slot_word(slot), PEER_WORD(gen, PEER_ACTIVE));
	ck_assert_uint_eq(shm_load(&segment->peers[slot].pid), (uint64_t)getpid());
	ck_assert_int_eq(is_held(slot), 1);
	fixture_close(&f, other);
	ck_assert_uint_eq(slot_word(slot), PEER_WORD(gen + 1, PEER_FREE));
	ck_assert_int_eq(is_held(slot), 0);
}
END_TEST

START_TEST(with_all_seats_taken_open_says_so_and_one_that_leaves_makes_room)
{
	struct scache *others[FIXTURE_PEERS - 1], *one_more = NULL;

	for (unsigned i = 0; i < FIXTURE_PEERS - 1; i++)
		others[i] = fixture_open(&f);
	ck_assert_int_eq(scache_open(f.dir, &f.options, &one_more), -EUSERS);
	ck_assert_ptr_nonnull(strstr(scache_detail(), "8"));
	ck_assert_ptr_null(one_more);
	fixture_close(&f, others[3]);
	fixture_open(&f);
}
END_TEST

START_TEST(the_seats_of_the_dead_are_taken_when_there_is_no_other)
{
	struct scache *others[FIXTURE_PEERS - 1];
	uint32_t slot, gen;

	for (unsigned i = 0; i < FIXTURE_PEERS - 1; i++)
		others[i] = fixture_open(&f);
	slot = others[2]->seat->peer.slot;
	gen = others[2]->seat->peer.gen;
	fixture_kill(&f, others[2]);
	others[2] = fixture_open(&f);
	ck_assert_uint_eq(others[2]->seat->peer.slot, slot);
	ck_assert_uint_eq(others[2]->seat->peer.gen, gen + 1);
}
END_TEST

START_TEST(a_living_peer_is_never_dead_however_old_its_stamp)
{
	struct scache *other = fixture_open(&f);

	ck_assert(!peer_is_dead(&cache->seat->peer, cache->seat->peer.slot));
	ck_assert(!peer_is_dead(&cache->seat->peer, other->seat->peer.slot));
	shm_store(&other->seat->peer.shared->seen_alive_ns, 0);
	ck_assert(!peer_is_dead(&cache->seat->peer, other->seat->peer.slot));
	/* Whoever asked has left a stamp for the rest of us. */
	ck_assert_uint_ne(shm_load(&other->seat->peer.shared->seen_alive_ns), 0);
	/* A stamp from the future, as after damage, is not believed. */
	shm_store(&other->seat->peer.shared->seen_alive_ns, UINT64_MAX);
	ck_assert(!peer_is_dead(&cache->seat->peer, other->seat->peer.slot));
	ck_assert_uint_ne(shm_load(&other->seat->peer.shared->seen_alive_ns), UINT64_MAX);
}
END_TEST

START_TEST(a_dead_peer_is_seen_once_its_stamp_is_old)
{
	struct scache *other = fixture_open(&f);
	uint32_t slot = other->seat->peer.slot;

	shm_store(&other->seat->peer.shared->seen_alive_ns, 0);
	fixture_kill(&f, other);
	ck_assert(peer_is_dead(&cache->seat->peer, slot));
	ck_assert_uint_eq(PEER_STATE(slot_word(slot)), PEER_ACTIVE);
	ck_assert_int_eq(repair_reap(&cache->seat->peer, slot), 1);
	/* Free seats and impossible ones answer for nothing. */
	ck_assert(peer_is_dead(&cache->seat->peer, slot));
	ck_assert(peer_is_dead(&cache->seat->peer, FIXTURE_PEERS));
	ck_assert(peer_is_dead(&cache->seat->peer, UINT32_MAX));
}
END_TEST

static void attach_and_exit(struct fixture *fixture)
{
	struct scache *own;

	_exit(scache_open(fixture->dir, &fixture->options, &own) != 0);
}

static void attach_and_be_killed(struct fixture *fixture)
{
	struct scache *own;

	if (scache_open(fixture->dir, &fixture->options, &own) == 0)
		raise(SIGKILL);
}

static void expect_one_dead(void)
{
	struct scache_stats stats = { .size = sizeof(stats) };

	ck_assert_int_eq(scache_stat(cache, &stats), 0);
	ck_assert_uint_eq(stats.peers, 2);
	ck_assert_uint_eq(repair_reap_all(&cache->seat->peer), 1);
	ck_assert_int_eq(scache_stat(cache, &stats), 0);
	ck_assert_uint_eq(stats.peers, 1);
}

START_TEST(a_process_that_exits_without_closing_is_dead)
{
	fixture_expect_exited(fixture_run_child(attach_and_exit, &f));
	expect_one_dead();
}
END_TEST

START_TEST(a_process_that_is_killed_is_dead)
{
	fixture_expect_killed(fixture_run_child(attach_and_be_killed, &f));
	expect_one_dead();
}
END_TEST

/* ---------------------------------------------------------------------- fork */

static void look_from_a_child(struct fixture *fixture)
{
	struct scache *parents = fixture->caches[0], *own;
	struct scache_stats stats = { .size = sizeof(stats) };
	int ok = peer_is_forked(&parents->seat->peer) &&
		 fcntl(parents->seat->peer.lock_fd, F_GETFD) == -1 &&
		 scache_stat(parents, &stats) == 0 && stats.peers == 2 &&
		 !peer_is_forked(&parents->seat->peer) && scache_close(parents) == 0 &&
		 scache_open(fixture->dir, &fixture->options, &own) == 0 &&
		 !peer_is_forked(&own->seat->peer) && scache_stat(own, &stats) == 0 &&
		 stats.peers == 2 && scache_close(own) == 0;

	_exit(!ok);
}

START_TEST(a_fork_child_is_nobody_until_it_uses_the_cache)
{
	struct scache *other = fixture_open(&f);
	uint64_t word;

	fixture_close(&f, other);
	word = slot_word(cache->seat->peer.slot);
	fixture_expect_exited(fixture_run_child(look_from_a_child, &f));
	ck_assert_uint_eq(slot_word(cache->seat->peer.slot), word);
	other = fixture_open(&f);
	ck_assert_int_eq(lockfile_is_held(other->seat->peer.lock_fd, segment->number, cache->seat->peer.slot),
			 1);
}
END_TEST

/* A parent that attaches, forks a child that stays, and is killed. */
static int stays[2], says[2];

static void leave_a_child_behind(struct fixture *fixture)
{
	struct scache *own;
	char byte = 'x';

	if (scache_open(fixture->dir, &fixture->options, &own) != 0)
		_exit(1);
	if (fork() == 0) {
		/* Until the test closes its end. */
		close(stays[1]);
		(void)!write(says[1], &byte, 1);
		(void)!read(stays[0], &byte, 1);
		_exit(0);
	}
	/* Not before the child runs, and so has been through its fork handlers. */
	(void)!read(says[0], &byte, 1);
	raise(SIGKILL);
}

START_TEST(a_fork_child_does_not_keep_its_dead_parent_alive)
{
	ck_assert_int_eq(pipe(stays), 0);
	ck_assert_int_eq(pipe(says), 0);
	fixture_expect_killed(fixture_run_child(leave_a_child_behind, &f));
	expect_one_dead();
	for (unsigned i = 0; i < 2; i++) {
		close(stays[i]);
		close(says[i]);
	}
}
END_TEST

START_TEST(counters_outlive_those_who_counted)
{
	struct scache *other = fixture_open(&f);
	struct scache_stats stats = { .size = sizeof(stats) };

	peer_count(&other->seat->peer, STAT_BYPASSES, 3);
	fixture_close(&f, other);
	other = fixture_open(&f);
	peer_count(&other->seat->peer, STAT_BYPASSES, 4);
	fixture_kill(&f, other);
	repair_reap_all(&cache->seat->peer);
	ck_assert_int_eq(scache_stat(cache, &stats), 0);
	ck_assert_uint_eq(stats.bypasses, 7);
}
END_TEST

int main(void)
{
	const TTest *const tests[] = {
		a_seat_is_active_and_locked_until_its_peer_leaves,
		with_all_seats_taken_open_says_so_and_one_that_leaves_makes_room,
		the_seats_of_the_dead_are_taken_when_there_is_no_other,
		a_living_peer_is_never_dead_however_old_its_stamp,
		a_dead_peer_is_seen_once_its_stamp_is_old,
		a_process_that_exits_without_closing_is_dead,
		a_process_that_is_killed_is_dead,
		a_fork_child_is_nobody_until_it_uses_the_cache,
		a_fork_child_does_not_keep_its_dead_parent_alive,
		counters_outlive_those_who_counted,
	};

	return fixture_main("peer", setup, teardown, tests, ARRAY_COUNT(tests));
}
