/* SPDX-License-Identifier: MIT */
/* check_repair - each line of the table in repair.h, and who may not be reaped. */
#include <errno.h>
#include <signal.h>
#include <unistd.h>

#include "../util/fixture.h"
#include "index/repair.h"
#include "index/ring.h"
#include "shm/epoch.h"
#include "shm/wait.h"
#include "store/blob.h"
#include "store/sweep.h"

static struct fixture f;
static struct scache *cache, *victim;
static struct segment *segment;
static uint32_t slot; /* the victim's */

static void setup(void)
{
	fixture_begin(&f);
	cache = fixture_open(&f);
	victim = fixture_open(&f);
	segment = cache->seat->peer.segment;
	slot = victim->seat->peer.slot;
}

static void teardown(void)
{
	fixture_end(&f);
}

static uint64_t slot_word(void)
{
	return shm_load(&segment->peers[slot].state);
}

static uint64_t stat_of(enum shm_stat stat)
{
	return shm_load(&cache->seat->peer.shared->stats[stat]);
}

/* The victim dies and is reaped, once. */
static void kill_and_reap(void)
{
	uint64_t deaths = stat_of(STAT_DEATHS);

	fixture_kill(&f, victim);
	ck_assert_int_eq(repair_reap(&cache->seat->peer, slot), 1);
	ck_assert_int_eq(repair_reap(&cache->seat->peer, slot), 0);
	ck_assert_uint_eq(stat_of(STAT_DEATHS), deaths + 1);
}

START_TEST(nobody_alive_is_reaped)
{
	uint64_t word = slot_word();

	ck_assert_int_eq(repair_reap(&cache->seat->peer, slot), 0);
	ck_assert_int_eq(repair_if_dead(&cache->seat->peer, slot), 0);
	ck_assert_int_eq(repair_reap(&cache->seat->peer, cache->seat->peer.slot), 0);
	ck_assert_int_eq(repair_reap(&cache->seat->peer, FIXTURE_PEERS), 0);
	ck_assert_int_eq(repair_reap(&cache->seat->peer, UINT32_MAX), 0);
	ck_assert_uint_eq(repair_reap_all(&cache->seat->peer), 0);
	ck_assert_uint_eq(slot_word(), word);
	/* And asking did not take anybody's byte. */
	ck_assert_int_eq(lockfile_is_held(cache->seat->peer.lock_fd, segment->number, slot), 1);
	ck_assert_int_eq(lockfile_is_held(victim->seat->peer.lock_fd, segment->number, cache->seat->peer.slot),
			 1);
}
END_TEST

START_TEST(a_dead_slot_is_free_in_its_next_generation)
{
	uint32_t gen = PEER_GEN(slot_word());

	kill_and_reap();
	ck_assert_uint_eq(slot_word(), PEER_WORD(gen + 1, PEER_FREE));
	ck_assert_int_eq(lockfile_is_held(cache->seat->peer.lock_fd, segment->number, slot), 0);
}
END_TEST

START_TEST(pins_of_the_dead_are_cleared_and_epochs_go_on)
{
	uint64_t epoch;

	epoch_enter(&victim->seat->peer);
	epoch_enter(&victim->seat->peer);
	ck_assert(epoch_advance(&cache->seat->peer));
	ck_assert(!epoch_advance(&cache->seat->peer));
	epoch = epoch_now(segment);
	kill_and_reap();
	for (unsigned cell = 0; cell < SHM_PINS; cell++)
		ck_assert_uint_eq(shm_load(&segment->peers[slot].pins[cell].word), 0);
	ck_assert(epoch_advance(&cache->seat->peer));
	ck_assert_uint_eq(epoch_now(segment), epoch + 1);
}
END_TEST

START_TEST(cursors_of_the_dead_are_cleared_and_their_writer_is_told)
{
	struct scache_reader *own, *theirs;
	struct scache_writer *writer, *none;
	struct cursor_survey survey;

	ck_assert_int_eq(scache_acquire(cache, "k", 1, NULL, &own, &writer), 0);
	ck_assert_int_eq(scache_acquire(victim, "k", 1, NULL, &theirs, &none), 0);
	ck_assert_ptr_nonnull(theirs);
	ck_assert_ptr_null(none);
	cursor_survey(segment, writer->name, &survey);
	ck_assert_uint_eq(survey.count, 2);
	ck_assert_uint_eq(shm_load(&writer->entry->attention), 0);
	wait_prepare(&writer->entry->writer_event);
	kill_and_reap();
	fixture_bury_reader(theirs);
	cursor_survey(segment, writer->name, &survey);
	ck_assert_uint_eq(survey.count, 1);
	ck_assert_uint_eq(shm_load(&writer->entry->attention), 1);
	/* The sleeper's bit is gone: it has been woken. */
	ck_assert_uint_eq(shm_load(&writer->entry->writer_event) & 1, 0);
	for (uint32_t i = 0; i < FIXTURE_BLOCKS; i++) {
		uint64_t owner = shm_load(&segment->block_owners[i]);

		ck_assert(owner == 0 || NAME_INDEX(owner) == cache->seat->peer.slot);
	}
	scache_reader_close(own);
	scache_writer_close(writer);
}
END_TEST

START_TEST(a_writer_whose_last_reader_was_killed_gets_epipe)
{
	struct scache_reader *theirs;
	struct scache_writer *writer, *none;

	ck_assert_int_eq(scache_acquire(cache, "k", 1, NULL, NULL, &writer), 0);
	ck_assert_int_eq(scache_acquire(victim, "k", 1, NULL, &theirs, &none), 0);
	ck_assert_int_eq(scache_writer_check(writer), 0);
	kill_and_reap();
	fixture_bury_reader(theirs);
	ck_assert_int_eq(scache_writer_check(writer), -EPIPE);
	ck_assert_int_eq(scache_write(writer, "x", 1, SCACHE_FOREVER), -EPIPE);
	ck_assert_int_eq(scache_finish(writer), -EPIPE);
	scache_writer_close(writer);
	/* The key is free. */
	ck_assert_int_eq(scache_acquire(cache, "k", 1, NULL, NULL, &writer), 0);
	ck_assert_ptr_nonnull(writer);
	scache_writer_close(writer);
}
END_TEST

START_TEST(a_waiting_writer_finds_that_its_reader_was_killed)
{
	const struct scache_acquire_options options = { .size = sizeof(options),
							.window_bytes = 4 };
	struct scache_reader *theirs;
	struct scache_writer *writer, *none;

	ck_assert_int_eq(scache_acquire(cache, "k", 1, &options, NULL, &writer), 0);
	ck_assert_int_eq(scache_acquire(victim, "k", 1, NULL, &theirs, &none), 0);
	fixture_kill(&f, victim);
	fixture_bury_reader(theirs);
	/* Nobody but itself looks: at a tick it does, and not before the fourth byte. */
	ck_assert_int_eq(scache_write(writer, "12345678", 8, SCACHE_FOREVER), 4);
	ck_assert_int_eq(scache_write(writer, "5678", 4, SCACHE_FOREVER), -EPIPE);
	ck_assert_uint_eq(slot_word() & UINT32_MAX, PEER_FREE);
	scache_writer_close(writer);
}
END_TEST

START_TEST(a_claimed_entry_of_the_dead_is_retired)
{
	struct entry_name name;
	uint64_t word;

	ck_assert_int_eq(entry_claim(&victim->seat->peer, &name), 0);
	kill_and_reap();
	word = fixture_state(cache, name.idx);
	ck_assert_uint_eq(state_of(word), ENTRY_RETIRED);
	ck_assert_uint_eq(state_gen(word), name.gen);
	ck_assert(sweep_entry(&cache->seat->store, name));
	ck_assert_uint_eq(fixture_state(cache, name.idx),
			  state_make(name.gen + 1, ENTRY_FREE, 0, 0));
}
END_TEST

START_TEST(a_filling_entry_of_the_dead_fails_and_its_key_is_free)
{
	struct index_key key = fixture_key("k");
	struct scache_reader *theirs, *ours;
	struct scache_writer *dead, *none, *fresh;
	struct scache_result result = { .size = sizeof(result) };
	struct entry_name found;
	char data[16];
	uint64_t word;

	ck_assert_int_eq(scache_acquire(victim, "k", 1, NULL, &theirs, &dead), 0);
	ck_assert_int_eq(scache_write(dead, "published", 9, 0), 9);
	ck_assert_int_eq(scache_acquire(cache, "k", 1, NULL, &ours, &none), 0);
	ck_assert_ptr_null(none);
	ck_assert_int_eq(scache_wait(ours, 0, &result), -EAGAIN);
	wait_prepare(&ours->entry->readers_event);
	kill_and_reap();
	word = fixture_state(cache, ours->name.idx);
	ck_assert_uint_eq(state_of(word), ENTRY_FAILED);
	ck_assert(state_is_hidden(word));
	ck_assert_uint_eq(shm_load(&ours->entry->readers_event) & 1, 0);
	ck_assert_int_eq(fixture_find(cache, &key, &found), 0);
	ck_assert_int_eq(scache_acquire(cache, "k", 1, NULL, NULL, &fresh), 0);
	ck_assert_ptr_nonnull(fresh);
	/* Every published byte, and then the reason; never an end of file. */
	ck_assert_int_eq(scache_read(ours, data, sizeof(data), SCACHE_FOREVER), 9);
	ck_assert_mem_eq(data, "published", 9);
	ck_assert_int_eq(scache_read(ours, data, sizeof(data), SCACHE_FOREVER), -EOWNERDEAD);
	ck_assert_int_eq(scache_wait(ours, 0, &result), 0);
	ck_assert_int_eq(result.code, -EOWNERDEAD);
	ck_assert_uint_eq(result.bytes, 9);
	ck_assert_int_eq(scache_message(ours, data, sizeof(data)), 0);
	scache_reader_close(ours);
	scache_writer_close(fresh);
	fixture_bury_reader(theirs);
	fixture_bury_writer(dead);
}
END_TEST

START_TEST(a_waiting_reader_finds_that_its_producer_was_killed)
{
	struct scache_reader *ours;
	struct scache_writer *dead, *none;
	char data[16];

	ck_assert_int_eq(scache_acquire(victim, "k", 1, NULL, NULL, &dead), 0);
	ck_assert_int_eq(scache_acquire(cache, "k", 1, NULL, &ours, &none), 0);
	fixture_kill(&f, victim);
	fixture_bury_writer(dead);
	ck_assert_int_eq(scache_read(ours, data, sizeof(data), SCACHE_FOREVER), -EOWNERDEAD);
	scache_reader_close(ours);
}
END_TEST

START_TEST(what_somebody_else_has_failed_meanwhile_has_ended_too)
{
	struct scache_reader *theirs;
	struct scache_writer *dead;
	struct entry_name name;

	ck_assert_int_eq(scache_acquire(victim, "k", 1, NULL, &theirs, &dead), 0);
	name = dead->name;
	ck_assert(!repair_producer(&cache->seat->peer, name));
	kill_and_reap();
	ck_assert(repair_producer(&cache->seat->peer, name));
	fixture_bury_reader(theirs);
	fixture_bury_writer(dead);
}
END_TEST

START_TEST(a_filling_entry_that_is_in_no_chain_yet_is_swept_like_any_other)
{
	struct entry_draft draft = { .key = "k", .key_bytes = 1 };
	struct entry_name name;

	ck_assert_int_eq(entry_claim(&victim->seat->peer, &name), 0);
	entry_fill(&victim->seat->peer, name, &draft);
	entry_start(&victim->seat->peer, name, 0);
	kill_and_reap();
	ck_assert_uint_eq(state_of(fixture_state(cache, name.idx)), ENTRY_FAILED);
	ck_assert(sweep_entry(&cache->seat->store, name));
}
END_TEST

START_TEST(a_sweeping_entry_of_the_dead_is_swept_again_with_its_file)
{
	struct index_key key = fixture_key("k");
	struct entry_name name = fixture_link(victim, &key);
	int fd = blob_create(&victim->seat->store, name, key.hash);

	ck_assert_int_ge(fd, 0);
	close(fd);
	ck_assert(entry_change(&victim->seat->peer, name, ENTRY_FILLING, ENTRY_FAILED, ENTRY_HIDDEN));
	ck_assert_int_eq(index_unlink(&victim->seat->peer, name), 0);
	ck_assert(entry_retire(segment, name, fixture_state(victim, name.idx)));
	ck_assert(entry_take_for_sweep(&victim->seat->peer, name, fixture_state(victim, name.idx)));
	/* While its sweeper lives nobody else touches it. */
	ck_assert(!sweep_entry(&cache->seat->store, name));
	kill_and_reap();
	ck_assert_uint_eq(state_of(fixture_state(cache, name.idx)), ENTRY_RETIRED);
	ck_assert_uint_eq(fixture_count_files(f.dir), 2); /* ctl/lock and the blob */
	ck_assert(sweep_entry(&cache->seat->store, name));
	ck_assert_uint_eq(fixture_count_files(f.dir), 1);
}
END_TEST

START_TEST(a_ring_stays_its_entrys_until_the_last_reader_has_left)
{
	struct scache_reader *ours;
	struct scache_writer *dead, *none;
	char data[4096];
	uint64_t got = 0;
	ssize_t ret;

	/* Half a ring is not flushed: only the ring has it. */
	ck_assert_int_eq(scache_acquire(victim, "k", 1, NULL, NULL, &dead), 0);
	memset(data, 'x', sizeof(data));
	for (int i = 0; i < 6; i++)
		ck_assert_int_eq(scache_write(dead, data, sizeof(data), 0), sizeof(data));
	ck_assert_uint_eq(shm_load(&dead->entry->flushed), 0);
	ck_assert_int_eq(scache_acquire(cache, "k", 1, NULL, &ours, &none), 0);
	kill_and_reap();
	fixture_bury_writer(dead);
	ck_assert_uint_eq(ring_count_in_use(segment), 1);
	while ((ret = scache_read(ours, data, sizeof(data), SCACHE_FOREVER)) > 0)
		for (ssize_t i = 0; i < ret; i++, got++)
			ck_assert_int_eq(data[i], 'x');
	ck_assert_int_eq(ret, -EOWNERDEAD);
	ck_assert_uint_eq(got, 6 * sizeof(data));
	scache_reader_close(ours);
	ck_assert_uint_eq(ring_count_in_use(segment), 0);
}
END_TEST

START_TEST(a_finished_entry_outlives_its_producer)
{
	struct index_key key = fixture_key("k");
	struct entry_name found;

	fixture_produce(victim, "k", "bytes", 5);
	kill_and_reap();
	ck_assert_int_eq(fixture_find(cache, &key, &found), 1);
}
END_TEST

START_TEST(a_reaping_that_was_interrupted_is_done_again)
{
	struct entry_name name;
	uint32_t gen = PEER_GEN(slot_word());

	ck_assert_int_eq(entry_claim(&victim->seat->peer, &name), 0);
	fixture_kill(&f, victim);
	/* As a reaper leaves it that dies at the step reap-begun. */
	shm_store(&segment->peers[slot].state, PEER_WORD(gen, PEER_REAPING));
	ck_assert(peer_is_dead(&cache->seat->peer, slot));
	ck_assert_uint_eq(repair_reap_all(&cache->seat->peer), 1);
	ck_assert_uint_eq(slot_word(), PEER_WORD(gen + 1, PEER_FREE));
	ck_assert_uint_eq(state_of(fixture_state(cache, name.idx)), ENTRY_RETIRED);
}
END_TEST

START_TEST(reap_some_comes_round_to_everybody)
{
	struct scache *dead[FIXTURE_PEERS - 2];
	uint32_t reaped = 0;

	for (unsigned i = 0; i < ARRAY_COUNT(dead); i++)
		dead[i] = fixture_open(&f);
	for (unsigned i = 0; i < ARRAY_COUNT(dead); i++)
		fixture_kill(&f, dead[i]);
	/* Two of us live: each look at one slot meets the next in turn. */
	for (unsigned i = 0; i < FIXTURE_PEERS; i++)
		reaped += repair_reap_some(&cache->seat->peer, 1);
	ck_assert_uint_eq(reaped, ARRAY_COUNT(dead));
}
END_TEST

START_TEST(only_dead_readers_of_the_entry_are_reaped)
{
	struct scache *bystander = fixture_open(&f), *reader = fixture_open(&f);
	struct scache_reader *theirs;
	struct scache_writer *writer, *none;
	uint32_t bystanders_slot = bystander->seat->peer.slot, readers_slot = reader->seat->peer.slot;
	uint32_t hand = FIXTURE_BLOCKS - 1;

	ck_assert_int_eq(scache_acquire(cache, "k", 1, NULL, NULL, &writer), 0);
	ck_assert_int_eq(scache_acquire(reader, "k", 1, NULL, &theirs, &none), 0);
	/* The stamps say when somebody was seen alive last: long ago. */
	shm_store(&reader->seat->peer.shared->seen_alive_ns, 0);
	shm_store(&bystander->seat->peer.shared->seen_alive_ns, 0);
	fixture_kill(&f, bystander);
	fixture_kill(&f, reader);
	fixture_bury_reader(theirs);
	repair_readers(&cache->seat->peer, writer->name, &hand);
	ck_assert_uint_lt(hand, FIXTURE_BLOCKS);
	ck_assert_uint_eq(PEER_STATE(shm_load(&segment->peers[readers_slot].state)), PEER_FREE);
	ck_assert_uint_eq(PEER_STATE(shm_load(&segment->peers[bystanders_slot].state)), PEER_ACTIVE);
	ck_assert_uint_eq(repair_reap_all(&cache->seat->peer), 1);
	scache_writer_close(writer);
}
END_TEST

static void die_producing(struct fixture *fixture)
{
	struct scache_reader *reader;
	struct scache_writer *writer;
	struct scache *own;

	if (scache_open(fixture->dir, &fixture->options, &own) != 0 ||
	    scache_acquire(own, "killed", 6, NULL, &reader, &writer) != 0 || writer == NULL ||
	    scache_write(writer, "abc", 3, 0) != 3)
		return;
	raise(SIGKILL);
}

START_TEST(a_killed_process_is_seen_by_the_next_who_opens)
{
	struct scache_stats stats = { .size = sizeof(stats) };
	struct scache *newcomer;

	fixture_expect_killed(fixture_run_child(die_producing, &f));
	ck_assert_int_eq(scache_stat(cache, &stats), 0);
	ck_assert_uint_eq(stats.peers, 3);
	ck_assert_uint_eq(stats.entries_filling, 1);
	newcomer = fixture_open(&f);
	ck_assert_int_eq(scache_stat(newcomer, &stats), 0);
	ck_assert_uint_eq(stats.peers, 3);
	ck_assert_uint_eq(stats.deaths, 1);
	ck_assert_uint_eq(stats.entries_filling, 0);
	ck_assert_uint_eq(stats.entries_failed, 1);
	ck_assert_uint_eq(stats.readers, 0);
}
END_TEST

int main(void)
{
	const TTest *const tests[] = {
		nobody_alive_is_reaped,
		a_dead_slot_is_free_in_its_next_generation,
		pins_of_the_dead_are_cleared_and_epochs_go_on,
		cursors_of_the_dead_are_cleared_and_their_writer_is_told,
		a_writer_whose_last_reader_was_killed_gets_epipe,
		a_waiting_writer_finds_that_its_reader_was_killed,
		a_claimed_entry_of_the_dead_is_retired,
		a_filling_entry_of_the_dead_fails_and_its_key_is_free,
		a_waiting_reader_finds_that_its_producer_was_killed,
		what_somebody_else_has_failed_meanwhile_has_ended_too,
		a_filling_entry_that_is_in_no_chain_yet_is_swept_like_any_other,
		a_sweeping_entry_of_the_dead_is_swept_again_with_its_file,
		a_ring_stays_its_entrys_until_the_last_reader_has_left,
		a_finished_entry_outlives_its_producer,
		a_reaping_that_was_interrupted_is_done_again,
		reap_some_comes_round_to_everybody,
		only_dead_readers_of_the_entry_are_reaped,
		a_killed_process_is_seen_by_the_next_who_opens,
	};

	return fixture_main("repair", setup, teardown, tests, ARRAY_COUNT(tests));
}
