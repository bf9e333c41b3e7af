/* SPDX-License-Identifier: MIT */
/* check_api - arguments, options, sizes of structs, and what the calls answer. */
#include <errno.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include "../util/fixture.h"

static struct fixture f;

static void setup(void)
{
	fixture_begin(&f);
}

static void teardown(void)
{
	fixture_end(&f);
}

/* ------------------------------------------------------------------ options */

#define WITH(field, value) { .size = sizeof(struct scache_options), .field = (value) }

static const struct scache_options impossible[] = {
	WITH(entries, 1),	    WITH(entries, 15),	   WITH(entries, 4194305),
	WITH(entries, UINT32_MAX),  WITH(peers, 1),	   WITH(peers, 16385),
	WITH(readers, 1),	    WITH(readers, 63),	   WITH(readers, 4194305),
	WITH(rings, 4097),	    WITH(rings, UINT32_MAX), WITH(ring_bytes, 1),
	WITH(ring_bytes, 65535),    WITH(ring_bytes, 65537), WITH(ring_bytes, 32768),
	WITH(ring_bytes, 3 << 20),  WITH(ring_bytes, 2ull << 30), WITH(ring_bytes, SCACHE_ZERO),
	WITH(ring_bytes, SCACHE_UNLIMITED), WITH(flags, 2),	   WITH(flags, 1u << 31),
	WITH(mode, 0777),	    WITH(mode, 0600),	   WITH(mode, 0755),
	WITH(mode, 01700),	    { .size = 0 },	   { .size = 1 },
	{ .size = sizeof(size_t) }, { .size = sizeof(struct scache_options) + 1 },
	{ .size = SIZE_MAX },
};

START_TEST(each_impossible_option_is_einval)
{
	for (unsigned i = 0; i < ARRAY_COUNT(impossible); i++) {
		struct scache *cache = NULL;

		ck_assert_msg(scache_open(f.dir, &impossible[i], &cache) == -EINVAL, "option %u", i);
		ck_assert_ptr_null(cache);
		ck_assert_str_ne(scache_detail(), "");
	}
	ck_assert_int_eq(access(f.dir, F_OK), -1);
}
END_TEST

START_TEST(a_directory_is_needed)
{
	char below[PATH_MAX], file[PATH_MAX];
	struct scache *cache = NULL;
	FILE *made;

	ck_assert_int_eq(scache_open(NULL, &f.options, &cache), -EINVAL);
	ck_assert_int_eq(scache_open("", &f.options, &cache), -EINVAL);
	/* Only the last component is made. */
	snprintf(below, sizeof(below), "%s/none/cache", f.root);
	ck_assert_int_eq(scache_open(below, &f.options, &cache), -ENOENT);
	ck_assert_int_eq(scache_destroy(below, NULL), -ENOENT);
	ck_assert_int_eq(scache_destroy(NULL, NULL), -EINVAL);
	ck_assert_int_eq(scache_destroy("", NULL), -EINVAL);
	snprintf(file, sizeof(file), "%s/file", f.root);
	made = fopen(file, "w");
	ck_assert_ptr_nonnull(made);
	fclose(made);
	ck_assert_int_eq(scache_open(file, &f.options, &cache), -ENOTDIR);
	ck_assert_int_eq(unlink(file), 0);
	ck_assert_ptr_null(cache);
}
END_TEST

START_TEST(a_directory_that_others_can_write_to_is_eperm)
{
	static const mode_t modes[] = { 0702, 0720, 0777, 01777 };
	struct scache *cache = NULL;

	ck_assert_int_eq(mkdir(f.dir, 0700), 0);
	for (unsigned i = 0; i < ARRAY_COUNT(modes); i++) {
		ck_assert_int_eq(chmod(f.dir, modes[i]), 0);
		ck_assert_int_eq(scache_open(f.dir, &f.options, &cache), -EPERM);
		ck_assert_ptr_null(cache);
		ck_assert_ptr_nonnull(strstr(scache_detail(), f.dir));
	}
	ck_assert_int_eq(chmod(f.dir, 0700), 0);
	fixture_open(&f);
}
END_TEST

START_TEST(a_group_share_is_made_for_its_group)
{
	mode_t before = umask(077);
	struct scache *cache;
	struct stat st;

	f.options.mode = 0770;
	cache = fixture_open(&f);
	ck_assert_int_eq(stat(f.dir, &st), 0);
	ck_assert_uint_eq(st.st_mode & 07777, 02770);
	fixture_produce(cache, "k", "bytes", 5);
	umask(before);
	/* A caller who did not ask for the share is told. */
	f.options.mode = 0;
	ck_assert_int_eq(scache_open(f.dir, &f.options, &cache), -EPERM);
}
END_TEST

START_TEST(a_symbolic_link_in_our_place_is_eloop)
{
	static const char *const ours[] = { "ctl/lock", "ctl", "blobs" };
	char name[PATH_MAX], aside[PATH_MAX];
	struct scache *cache = NULL;

	fixture_close(&f, fixture_open(&f));
	for (unsigned i = 0; i < ARRAY_COUNT(ours); i++) {
		snprintf(name, sizeof(name), "%s/%s", f.dir, ours[i]);
		snprintf(aside, sizeof(aside), "%s/aside", f.root);
		ck_assert_int_eq(rename(name, aside), 0);
		ck_assert_int_eq(symlink(aside, name), 0);
		ck_assert_msg(scache_open(f.dir, &f.options, &cache) == -ELOOP, "%s", name);
		ck_assert_str_ne(scache_detail(), "");
		ck_assert_int_eq(unlink(name), 0);
		ck_assert_int_eq(rename(aside, name), 0);
	}
	fixture_open(&f);
}
END_TEST

START_TEST(an_older_struct_of_options_gets_defaults_for_the_rest)
{
	struct scache_options old = f.options, now = { .size = sizeof(now) };
	struct scache *cache;

	/* As if the struct had ended before max_age_ns. */
	old.size = offsetof(struct scache_options, max_age_ns);
	old.max_age_ns = 5;
	old.segment_dir = "/nonexistent";
	ck_assert_int_eq(scache_open(f.dir, &old, &cache), 0);
	ck_assert_int_eq(scache_get_options(cache, &now), 0);
	ck_assert_uint_eq(now.entries, FIXTURE_ENTRIES);
	ck_assert_uint_eq(now.max_age_ns, 3600ull * 1000000000ull);
	ck_assert_uint_eq(now.window_bytes, FIXTURE_RING_BYTES / 4 * 3);
	/* And gets back as much as it has room for. */
	memset(&now, 0x5a, sizeof(now));
	now.size = offsetof(struct scache_options, max_age_ns);
	ck_assert_int_eq(scache_get_options(cache, &now), 0);
	ck_assert_uint_eq(now.size, offsetof(struct scache_options, max_age_ns));
	ck_assert_uint_eq(now.max_age_ns, 0x5a5a5a5a5a5a5a5aull);
	ck_assert_int_eq(scache_close(cache), 0);
}
END_TEST

/* --------------------------------------------------------------------- keys */

START_TEST(a_key_has_1_to_255_bytes)
{
	struct scache *cache = fixture_open(&f);
	struct scache_reader *reader = NULL;
	struct scache_writer *writer = NULL;
	char key[256] = { 0 };
	static const size_t wrong[] = { 0, 256, 257, SIZE_MAX };

	for (unsigned i = 0; i < ARRAY_COUNT(wrong); i++) {
		ck_assert_int_eq(scache_acquire(cache, key, wrong[i], NULL, &reader, &writer),
				 -EINVAL);
		ck_assert_int_eq(scache_lookup(cache, key, wrong[i], NULL, &reader), -EINVAL);
		ck_assert_int_eq(scache_remove(cache, key, wrong[i]), -EINVAL);
	}
	ck_assert_int_eq(scache_acquire(cache, NULL, 1, NULL, &reader, &writer), -EINVAL);
	ck_assert_int_eq(scache_acquire(cache, key, 1, NULL, &reader, NULL), -EINVAL);
	ck_assert_int_eq(scache_lookup(cache, key, 1, NULL, NULL), -EINVAL);
	ck_assert_ptr_null(reader);
	ck_assert_ptr_null(writer);
	ck_assert_int_eq(scache_acquire(cache, key, 255, NULL, &reader, &writer), 0);
	ck_assert_ptr_nonnull(writer);
	scache_writer_close(writer);
	scache_reader_close(reader);
}
END_TEST

START_TEST(acquire_options_are_checked)
{
	const size_t whole = sizeof(struct scache_acquire_options);
	const struct scache_acquire_options wrong[] = {
		{ .size = whole, .flags = 64 }, { .size = whole, .flags = 1u << 31 },
		{ .size = whole, .reserved = 1 }, { .size = 0 },
		{ .size = 8 },			 { .size = whole + 1 },
	};
	struct scache_acquire_options old = { .size = 16, .max_age_ns = 1, .window_bytes = 1 };
	struct scache *cache = fixture_open(&f);
	struct scache_reader *reader = NULL;
	struct scache_writer *writer = NULL;

	for (unsigned i = 0; i < ARRAY_COUNT(wrong); i++) {
		ck_assert_msg(scache_acquire(cache, "k", 1, &wrong[i], &reader, &writer) == -EINVAL,
			      "option %u", i);
		ck_assert_int_eq(scache_lookup(cache, "k", 1, &wrong[i], &reader), -EINVAL);
	}
	ck_assert_ptr_null(reader);
	ck_assert_ptr_null(writer);
	/* What lies behind an older struct is not looked at. */
	ck_assert_int_eq(scache_acquire(cache, "k", 1, &old, &reader, &writer), 0);
	ck_assert_int_eq(scache_write(writer, "12345", 5, 0), 5);
	scache_writer_close(writer);
	scache_reader_close(reader);
}
END_TEST

/* ------------------------------------------------------------------ handles */

START_TEST(closing_nothing_does_nothing)
{
	ck_assert_int_eq(scache_close(NULL), 0);
	ck_assert_int_eq(scache_reader_close(NULL), 0);
	ck_assert_int_eq(scache_writer_close(NULL), 0);
}
END_TEST

START_TEST(a_cache_with_open_streams_is_busy)
{
	struct scache *cache = fixture_open(&f);
	struct scache_reader *reader;
	struct scache_writer *writer;

	ck_assert_int_eq(scache_acquire(cache, "k", 1, NULL, &reader, &writer), 0);
	ck_assert_int_eq(scache_close(cache), -EBUSY);
	scache_writer_close(writer);
	ck_assert_int_eq(scache_close(cache), -EBUSY);
	/* And works as before. */
	ck_assert_int_eq(scache_lookup(cache, "x", 1, NULL, &reader) == 0, 0);
	scache_reader_close(reader);
	fixture_close(&f, cache);
}
END_TEST

START_TEST(abort_needs_a_reason)
{
	struct scache *cache = fixture_open(&f);
	struct scache_writer *writer;

	ck_assert_int_eq(scache_acquire(cache, "k", 1, NULL, NULL, &writer), 0);
	ck_assert_int_eq(scache_abort(writer, 0, NULL, 0), -EINVAL);
	ck_assert_int_eq(scache_abort(writer, 1, NULL, 1), -EINVAL);
	ck_assert_int_eq(scache_abort(writer, 1, "", SCACHE_MESSAGE_BYTES_MAX + 1), -EINVAL);
	ck_assert_int_eq(scache_write(writer, "x", 1, 0), 1);
	ck_assert_int_eq(scache_abort(writer, 1, NULL, 0), 0);
	ck_assert_int_eq(scache_write(writer, "x", 1, 0), -EREMOTEIO);
	ck_assert_int_eq(scache_finish(writer), -EREMOTEIO);
	scache_writer_close(writer);
}
END_TEST

START_TEST(a_message_comes_back_cut_to_fit)
{
	struct scache *cache = fixture_open(&f);
	struct scache_result result = { .size = sizeof(result) };
	struct scache_reader *reader;
	struct scache_writer *writer;
	char text[16];

	ck_assert_int_eq(scache_acquire(cache, "k", 1, NULL, &reader, &writer), 0);
	ck_assert_int_eq(scache_message(reader, text, sizeof(text)), -EAGAIN);
	ck_assert_int_eq(scache_wait(reader, 0, &result), -EAGAIN);
	ck_assert_int_eq(scache_abort(writer, 3, "no such branch", 14), 0);
	ck_assert_int_eq(scache_wait(reader, 0, &result), 0);
	ck_assert_int_eq(result.code, 3);
	ck_assert_uint_eq(result.message_bytes, 14);
	ck_assert_int_eq(scache_message(reader, text, sizeof(text)), 14);
	ck_assert_str_eq(text, "no such branch");
	ck_assert_int_eq(scache_message(reader, text, 8), 14);
	ck_assert_str_eq(text, "no such");
	ck_assert_int_eq(scache_message(reader, NULL, 0), 14);
	ck_assert_int_eq(scache_read(reader, text, 1, 0), -EREMOTEIO);
	scache_writer_close(writer);
	scache_reader_close(reader);
}
END_TEST

static void use_parents_handles(struct fixture *fixture)
{
	struct scache_stats stats = { .size = sizeof(stats) };
	struct scache_reader *reader;

	if (scache_stat(fixture->caches[0], &stats) != 0 || stats.peers != 3 ||
	    scache_lookup(fixture->caches[0], "k", 1, NULL, &reader) != 0 ||
	    scache_reader_close(reader) != 0 ||
	    scache_sweep(fixture->caches[0], NULL, NULL) != 0 ||
	    scache_close(fixture->caches[0]) != 0)
		_exit(1);
}

START_TEST(a_fork_childs_handles_serve_it_and_are_closable)
{
	struct scache *cache = fixture_open(&f), *other = fixture_open(&f);

	fixture_produce(cache, "k", "bytes", 5);
	fixture_expect_exited(fixture_run_child(use_parents_handles, &f));
	/* Nothing of it concerned us. */
	ck_assert_int_eq(lockfile_is_held(other->seat->peer.lock_fd, other->seat->peer.segment->number,
					  cache->seat->peer.slot),
			 1);
	ck_assert_int_eq(scache_check(cache, NULL, NULL), 0);
}
END_TEST

/* ---------------------------------------------------------- sizes of results */

START_TEST(older_structs_of_results_are_not_overrun)
{
	struct scache *cache = fixture_open(&f);
	struct scache_stats stats;
	struct scache_sweep_report report;
	const struct scache_sweep_options wrong = { .size = 1 };
	const struct scache_sweep_options unknown = { .size = sizeof(unknown), .flags = 2 };

	memset(&stats, 0x5a, sizeof(stats));
	stats.size = offsetof(struct scache_stats, peers);
	ck_assert_int_eq(scache_stat(cache, &stats), 0);
	ck_assert_uint_eq(stats.size, offsetof(struct scache_stats, peers));
	ck_assert_uint_eq(stats.entries_free, FIXTURE_ENTRIES);
	ck_assert_uint_eq(stats.peers, 0x5a5a5a5a5a5a5a5aull);
	memset(&report, 0x5a, sizeof(report));
	report.size = offsetof(struct scache_sweep_report, unknown);
	ck_assert_int_eq(scache_sweep(cache, NULL, &report), 0);
	ck_assert_uint_eq(report.orphan_bytes, 0);
	ck_assert_uint_eq(report.unknown, 0x5a5a5a5a5a5a5a5aull);
	ck_assert_int_eq(scache_sweep(cache, &wrong, NULL), -EINVAL);
	ck_assert_int_eq(scache_sweep(cache, &unknown, NULL), -EINVAL);
}
END_TEST

START_TEST(newer_structs_of_results_get_what_is_known)
{
	struct scache *cache = fixture_open(&f);
	struct {
		struct scache_stats stats;
		uint64_t more;
	} newer;

	memset(&newer, 0x5a, sizeof(newer));
	newer.stats.size = sizeof(newer);
	ck_assert_int_eq(scache_stat(cache, &newer.stats), 0);
	ck_assert_uint_eq(newer.stats.segment_bytes, cache->seat->peer.segment->bytes);
	ck_assert_uint_eq(newer.more, 0x5a5a5a5a5a5a5a5aull);
}
END_TEST

START_TEST(each_error_has_a_text_of_its_own)
{
	static const int ours[] = { EAGAIN,  EBADMSG,	  EBUSY,  ECANCELED,  ECHILD, EDEADLK,
				    EINVAL,  ENOENT,	  ENOLCK, ENXIO,      EPIPE,  EPROTO,
				    EUCLEAN, EOWNERDEAD, ESTALE, EREMOTEIO, EUSERS, ETIMEDOUT };

	for (unsigned i = 0; i < ARRAY_COUNT(ours); i++) {
		ck_assert_str_ne(scache_strerror(-ours[i]), "");
		ck_assert_str_ne(scache_strerror(-ours[i]), "unknown error");
		for (unsigned j = 0; j < i; j++)
			ck_assert_str_ne(scache_strerror(-ours[i]), scache_strerror(-ours[j]));
	}
	for (int error = -200; error <= 200; error++)
		ck_assert_ptr_nonnull(scache_strerror(error));
	ck_assert_str_eq(scache_strerror(-100000), "unknown error");
	ck_assert_ptr_nonnull(scache_strerror(INT_MAX));
	ck_assert_str_eq(scache_version(), PACKAGE_VERSION);
}
END_TEST

START_TEST(details_are_of_the_last_call_only)
{
	struct scache *cache = NULL;

	ck_assert_int_eq(scache_open("", NULL, &cache), -EINVAL);
	ck_assert_str_ne(scache_detail(), "");
	fixture_open(&f);
	ck_assert_str_eq(scache_detail(), "");
}
END_TEST

START_TEST(errno_is_left_alone)
{
	struct scache_reader *reader;
	struct scache_writer *writer;
	struct scache *cache;
	char byte;

	errno = 7;
	ck_assert_int_eq(scache_open(f.dir, &f.options, &cache), 0);
	ck_assert_int_eq(errno, 7);
	ck_assert_int_eq(scache_acquire(cache, "k", 1, NULL, &reader, &writer), 0);
	ck_assert_int_eq(scache_read(reader, &byte, 1, 1000000), -ETIMEDOUT);
	ck_assert_int_eq(errno, 7);
	ck_assert_int_eq(scache_writer_close(writer), 0);
	ck_assert_int_eq(scache_read(reader, &byte, 1, 1000000), -ECANCELED);
	ck_assert_int_eq(scache_reader_close(reader), 0);
	ck_assert_int_eq(scache_close(cache), 0);
	ck_assert_int_eq(errno, 7);
}
END_TEST

START_TEST(a_writer_that_runs_to_the_end_waits_for_nobody_who_has_left)
{
	const struct scache_acquire_options options = { .size = sizeof(options),
							.flags = SCACHE_RUN_TO_END,
							.window_bytes = 5 };
	struct scache *cache = fixture_open(&f);
	struct scache_reader *reader;
	struct scache_writer *writer;

	ck_assert_int_eq(scache_acquire(cache, "k", 1, &options, &reader, &writer), 0);
	ck_assert_int_eq(scache_write(writer, "0123456789", 10, 0), 5);
	ck_assert_int_eq(scache_write(writer, "56789", 5, 0), -EAGAIN);
	scache_reader_close(reader);
	ck_assert_int_eq(scache_write(writer, "56789", 5, SCACHE_FOREVER), 5);
	ck_assert_int_eq(scache_write(writer, "01234", 5, SCACHE_FOREVER), 5);
	ck_assert_int_eq(scache_finish(writer), 0);
	scache_writer_close(writer);
}
END_TEST

int main(void)
{
	const TTest *const tests[] = {
		each_impossible_option_is_einval,
		a_directory_is_needed,
		a_directory_that_others_can_write_to_is_eperm,
		a_group_share_is_made_for_its_group,
		a_symbolic_link_in_our_place_is_eloop,
		an_older_struct_of_options_gets_defaults_for_the_rest,
		a_key_has_1_to_255_bytes,
		acquire_options_are_checked,
		closing_nothing_does_nothing,
		a_cache_with_open_streams_is_busy,
		abort_needs_a_reason,
		a_message_comes_back_cut_to_fit,
		a_fork_childs_handles_serve_it_and_are_closable,
		older_structs_of_results_are_not_overrun,
		newer_structs_of_results_get_what_is_known,
		each_error_has_a_text_of_its_own,
		details_are_of_the_last_call_only,
		errno_is_left_alone,
		a_writer_that_runs_to_the_end_waits_for_nobody_who_has_left,
	};

	return fixture_main("api", setup, teardown, tests, ARRAY_COUNT(tests));
}
