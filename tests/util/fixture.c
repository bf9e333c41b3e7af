/* SPDX-License-Identifier: MIT */
#include "fixture.h"

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "shm/epoch.h"
#include "store/sweep.h"

#define TEST_SECONDS 60

/* ------------------------------------------------------------------ files */

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *at)
{
	(void)st;
	(void)type;
	(void)at;
	return remove(path);
}

void fixture_remove_tree(const char *path)
{
	nftw(path, remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

static unsigned files_counted;

static int count_one(const char *path, const struct stat *st, int type, struct FTW *at)
{
	(void)path;
	(void)at;
	files_counted += type == FTW_F && S_ISREG(st->st_mode);
	return 0;
}

unsigned fixture_count_files(const char *path)
{
	files_counted = 0;
	nftw(path, count_one, 16, FTW_PHYS);
	return files_counted;
}

/* ---------------------------------------------------------- begin and end */

void fixture_begin(struct fixture *f)
{
	const char *tmp = getenv("TMPDIR");

	memset(f, 0, sizeof(*f));
	snprintf(f->root, sizeof(f->root), "%s/fixture.XXXXXX", tmp != NULL ? tmp : "/tmp");
	ck_assert_ptr_nonnull(mkdtemp(f->root));
	snprintf(f->dir, sizeof(f->dir), "%s/cache", f->root);
	snprintf(f->segments, sizeof(f->segments), "%s/segments", f->root);
	ck_assert_int_eq(mkdir(f->segments, 0700), 0);
	f->options = (struct scache_options){
		.size = sizeof(f->options),
		.entries = FIXTURE_ENTRIES,
		.peers = FIXTURE_PEERS,
		.readers = FIXTURE_BLOCKS * SHM_BLOCK_CURSORS,
		.rings = FIXTURE_RINGS,
		.ring_bytes = FIXTURE_RING_BYTES,
		.max_bytes = SCACHE_UNLIMITED,
		.min_free_percent = SCACHE_ZERO,
		.segment_dir = f->segments,
	};
}

struct scache *fixture_open(struct fixture *f)
{
	unsigned i = 0;

	while (i < FIXTURE_CACHES && f->caches[i] != NULL)
		i++;
	ck_assert_uint_lt(i, FIXTURE_CACHES);
	ck_assert_msg(scache_open(f->dir, &f->options, &f->caches[i]) == 0, "scache_open: %s",
		      scache_detail());
	return f->caches[i];
}

static void take_out(struct fixture *f, const struct scache *cache)
{
	unsigned i = 0;

	while (i < FIXTURE_CACHES && f->caches[i] != cache)
		i++;
	ck_assert_uint_lt(i, FIXTURE_CACHES);
	f->caches[i] = NULL;
}

void fixture_close(struct fixture *f, struct scache *cache)
{
	take_out(f, cache);
	ck_assert_int_eq(scache_close(cache), 0);
}

static void print_finding(void *arg, const char *text)
{
	(void)arg;
	fprintf(stderr, "%s\n", text);
}

void fixture_end(struct fixture *f)
{
	for (unsigned i = 0; i < FIXTURE_CACHES; i++) {
		if (f->caches[i] == NULL)
			continue;
		if (!f->damaged)
			ck_assert_int_eq(scache_check(f->caches[i], print_finding, NULL), 0);
		ck_assert_int_eq(scache_close(f->caches[i]), 0);
	}
	if (access(f->dir, F_OK) == 0) {
		ck_assert_msg(scache_destroy(f->dir, NULL) == 0, "scache_destroy: %s",
			      scache_detail());
		/* Everything that was ever made has been found again. */
		ck_assert_int_eq(access(f->dir, F_OK), -1);
		ck_assert_uint_eq(fixture_count_files(f->root), 0);
	}
	fixture_remove_tree(f->root);
}

/* ------------------------------------------------------------------ death */

void fixture_kill(struct fixture *f, struct scache *cache)
{
	struct seat *seat = cache->seat;
	struct store *store = &seat->store;

	take_out(f, cache);
	/* Only what is private: a killed process does not even write to its seat. */
	table_destroy(&store->table);
	pthread_mutex_destroy(&seat->cursors.mutex);
	cursor_space_forget(&seat->cursors);
	pthread_mutex_destroy(&seat->peer.reap_mutex);
	peer_forget(&seat->peer);
	segment_leave(store->segment);
	close(store->dir_fd);
	close(store->blobs_fd);
	free(seat);
	free(cache->dir);
	free(cache->segment_dir);
	free(cache);
}

void fixture_bury_reader(struct scache_reader *reader)
{
	pair_put(reader->pair);
	peek_close(reader);
	free(reader->bounce);
	free(reader);
}

void fixture_bury_writer(struct scache_writer *writer)
{
	if (writer->fd >= 0)
		close(writer->fd);
	sums_free(&writer->sums);
	compress_free(writer);
	pair_put(writer->pair);
	free(writer);
}

int fixture_run_child(void (*body)(struct fixture *f), struct fixture *f)
{
	int status;
	pid_t pid = fork();

	ck_assert_int_ge(pid, 0);
	if (pid == 0) {
		body(f);
		_exit(0);
	}
	ck_assert_int_eq(waitpid(pid, &status, 0), pid);
	return status;
}

void fixture_expect_killed(int status)
{
	ck_assert_msg(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL, "wait status %#x",
		      (unsigned)status);
}

void fixture_expect_exited(int status)
{
	ck_assert_msg(WIFEXITED(status) && WEXITSTATUS(status) == 0, "wait status %#x",
		      (unsigned)status);
}

/* ---------------------------------------------------------------- entries */

struct index_key fixture_key(const char *text)
{
	return (struct index_key){ .key = text,
				   .key_bytes = (uint32_t)strlen(text),
				   .hash = hash_key(text, strlen(text)) };
}

struct entry_name fixture_link(struct scache *cache, const struct index_key *key)
{
	struct peer *peer = &cache->seat->peer;
	struct entry_draft draft = { .key = key->key,
				     .key_bytes = key->key_bytes,
				     .hash = key->hash,
				     .max_age_ns = UINT64_MAX,
				     .window_bytes = UINT64_MAX };
	struct entry_name name, found;
	uint64_t state, head;
	unsigned pin;

	ck_assert_int_eq(entry_claim(peer, &name), 0);
	entry_fill(peer, name, &draft);
	entry_start(peer, name, 0);
	pin = epoch_enter(peer);
	ck_assert_int_eq(index_find(peer, key, &found, &state, &head), 0);
	ck_assert(index_insert(peer, name, key, head));
	epoch_leave(peer, pin);
	return name;
}

void fixture_unmake(struct scache *cache, struct entry_name name)
{
	ck_assert(entry_change(&cache->seat->peer, name, ENTRY_FILLING, ENTRY_FAILED, ENTRY_HIDDEN));
	ck_assert(sweep_entry(&cache->seat->store, name));
}

int fixture_find(struct scache *cache, const struct index_key *key, struct entry_name *ret_name)
{
	uint64_t state, head;
	unsigned pin = epoch_enter(&cache->seat->peer);
	int ret = index_find(&cache->seat->peer, key, ret_name, &state, &head);

	epoch_leave(&cache->seat->peer, pin);
	return ret;
}

void fixture_produce(struct scache *cache, const char *key, const void *data, size_t bytes)
{
	const struct scache_acquire_options options = { .size = sizeof(options),
							.flags = SCACHE_RUN_TO_END,
							.window_bytes = SCACHE_UNLIMITED };
	struct scache_writer *writer;

	ck_assert_int_eq(scache_acquire(cache, key, strlen(key), &options, NULL, &writer), 0);
	ck_assert_ptr_nonnull(writer);
	ck_assert_int_eq(scache_write(writer, data, bytes, SCACHE_FOREVER), (ssize_t)bytes);
	ck_assert_int_eq(scache_finish(writer), 0);
	ck_assert_int_eq(scache_writer_close(writer), 0);
}

uint64_t fixture_state(const struct scache *cache, uint32_t idx)
{
	return shm_load(entry_state_word(cache->seat->peer.segment, idx));
}

/* ------------------------------------------------------------------- main */

int fixture_main(const char *name, void (*setup)(void), void (*teardown)(void),
		 const TTest *const *tests, size_t count)
{
	Suite *suite = suite_create(name);
	TCase *tcase = tcase_create(name);
	SRunner *runner;
	int failed;

	/* More than any test takes, less than the harness has patience for. */
	tcase_set_timeout(tcase, TEST_SECONDS);
	if (setup != NULL)
		tcase_add_checked_fixture(tcase, setup, teardown);
	for (size_t i = 0; i < count; i++)
		tcase_add_test(tcase, tests[i]);
	suite_add_tcase(suite, tcase);
	runner = srunner_create(suite);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
