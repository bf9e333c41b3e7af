/* SPDX-License-Identifier: MIT */
/*
 * check_open - what stands at the place of a cache may be anything: each
 * refusal has its code, says what to do, and spoils nothing.
 */
#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "../util/pattern.h"
#include "../util/scratch.h"
#include "../util/spawn.h"

static const char *below(const char *name)
{
	static char paths[4][400];
	static unsigned turn;
	char *path = paths[turn++ % 4];

	snprintf(path, sizeof(paths[0]), "%s/%s", scratch_dir, name);
	return path;
}

static void put_file(const char *path, const char *text)
{
	FILE *file = fopen(path, "w");

	must(file != NULL);
	must(fputs(text, file) >= 0);
	must(fclose(file) == 0);
}

static void is_refused(int error)
{
	struct scache *cache = NULL;

	must_be(scache_open(scratch_dir, &scratch_options, &cache), error);
	must(cache == NULL);
	if (scache_detail()[0] == '\0')
		spawn_fail(__FILE__, __LINE__, "no detail for %s", scache_strerror(error));
	must_be(scratch_count(scratch_base, "streamcache.*"), 0);
}

static void is_good_again(void)
{
	struct scache *cache = scratch_open();

	pattern_produce(scratch_create(cache, "k", 0, NULL), 1, 1000, 1000);
	scratch_is_clean(cache);
	scratch_close(cache);
	must_be(scache_destroy(scratch_dir, NULL), 0);
	must(rmdir(scratch_base) == 0);
}

/* --------------------------------------------------------------- the directory */

START_TEST(a_directory_that_is_a_file_is_refused)
{
	put_file(scratch_dir, "precious");
	is_refused(-ENOTDIR);
	must(unlink(scratch_dir) == 0);
	is_good_again();
}
END_TEST

START_TEST(a_missing_parent_is_refused)
{
	char *end = scratch_dir + strlen(scratch_dir);

	snprintf(end, sizeof(scratch_dir) - strlen(scratch_dir), "/deeper");
	is_refused(-ENOENT);
	*end = '\0';
	must(access(scratch_dir, F_OK) < 0);
	is_good_again();
}
END_TEST

START_TEST(open_existing_does_not_create)
{
	scratch_options.flags = SCACHE_OPEN_EXISTING;
	is_refused(-ENOENT);
	must(access(scratch_dir, F_OK) < 0);
	must(mkdir(scratch_dir, 0700) == 0);
	is_refused(-ENOENT);
	must_be(scratch_count(scratch_base, "cache/*"), 0);
	scratch_options.flags = 0;
	scratch_close(scratch_open());
	scratch_options.flags = SCACHE_OPEN_EXISTING;
	is_good_again();
}
END_TEST

START_TEST(a_directory_that_others_can_write_to_is_refused)
{
	must(mkdir(scratch_dir, 0700) == 0);
	must(chmod(scratch_dir, 0707) == 0);
	is_refused(-EPERM);
	must(chmod(scratch_dir, 01777) == 0);
	is_refused(-EPERM);
	must(chmod(scratch_dir, 0770) == 0);
	is_refused(-EPERM);
	/* Not even for a group share. */
	scratch_options.mode = 0770;
	must(chmod(scratch_dir, 0777) == 0);
	is_refused(-EPERM);
	must_be(scratch_count(scratch_base, "cache/*"), 0);
	scratch_options.mode = 0;
	must(chmod(scratch_dir, 0755) == 0);
	is_good_again();
}
END_TEST

START_TEST(directories_inside_that_others_can_write_to_are_refused)
{
	static const char *const names[] = { "ctl", "blobs" };

	for (int i = 0; i < 2; i++) {
		scratch_close(scratch_open());
		must_be(scratch_count(scratch_base, "streamcache.*"), 1);
		must(chmod(below(names[i]), 0777) == 0);
		must_be(scache_open(scratch_dir, &scratch_options, &(struct scache *){ NULL }),
			-EPERM);
		must(scache_detail()[0] != '\0');
		must(chmod(below(names[i]), 0700) == 0);
		scratch_close(scratch_open());
	}
	must_be(scache_destroy(scratch_dir, NULL), 0);
}
END_TEST

START_TEST(a_file_in_place_of_a_directory_inside_is_refused)
{
	static const char *const names[] = { "ctl", "blobs" };

	for (int i = 0; i < 2; i++) {
		must(mkdir(scratch_dir, 0700) == 0);
		put_file(below(names[i]), "precious");
		is_refused(-ELOOP);
		must(unlink(below(names[i])) == 0);
		scratch_close(scratch_open());
		must_be(scache_destroy(scratch_dir, NULL), 0);
	}
}
END_TEST

START_TEST(symbolic_links_in_place_of_our_files_are_refused)
{
	static const char *const names[] = { "ctl", "blobs", "ctl/lock" };
	char target[300];

	for (int i = 0; i < 3; i++) {
		must(mkdir(scratch_dir, 0700) == 0);
		if (i == 2)
			must(mkdir(below("ctl"), 0700) == 0);
		snprintf(target, sizeof(target), "%s/target", scratch_base);
		if (i == 2)
			put_file(target, "precious");
		else
			must(mkdir(target, 0700) == 0);
		must(symlink(target, below(names[i])) == 0);
		is_refused(-ELOOP);
		/* Nothing was done to what it points to. */
		must_be(scratch_count(scratch_base, "target/*"), 0);
		must(unlink(below(names[i])) == 0);
		must(remove(target) == 0);
		scratch_close(scratch_open());
		must_be(scache_destroy(scratch_dir, NULL), 0);
	}
}
END_TEST

START_TEST(a_symbolic_link_to_the_directory_itself_is_the_users_affair)
{
	char target[300];
	struct scache *cache;

	snprintf(target, sizeof(target), "%s/target", scratch_base);
	must(mkdir(target, 0700) == 0);
	must(symlink(target, scratch_dir) == 0);
	cache = scratch_open();
	pattern_produce(scratch_create(cache, "k", 0, NULL), 1, 1000, 1000);
	must_be(scratch_count(scratch_base, "target/ctl"), 1);
	scratch_close(cache);
}
END_TEST

/* ----------------------------------------------------------------- the segment */

static void stay_attached(void *arg)
{
	(void)arg;
	scratch_open();
	child_say(0);
	child_listen();
}

static void change_segment(off_t offset, const void *data, size_t bytes)
{
	struct scache_options options = { .size = sizeof(options) };
	struct scache *cache = scratch_open();
	char path[400];
	int fd;

	must_be(scache_get_options(cache, &options), 0);
	must(strcmp(options.segment_dir, scratch_base) == 0);
	scratch_close(cache);
	scratch_segment(path, sizeof(path));
	fd = open(path, O_RDWR | O_CLOEXEC);
	must(fd >= 0);
	if (data != NULL)
		must(pwrite(fd, data, bytes, offset) == (ssize_t)bytes);
	else
		must(ftruncate(fd, offset) == 0);
	close(fd);
}

static void is_refused_while_attached(int error, off_t offset, const void *data, size_t bytes)
{
	struct scache *cache;
	struct child child;

	child_start(&child, stay_attached, NULL);
	child_hear(&child);
	change_segment(offset, data, bytes);
	must_be(scache_open(scratch_dir, &scratch_options, &cache), error);
	must(scache_detail()[0] != '\0');
	must_be(scratch_count(scratch_base, "streamcache.*"), 1);
	child_tell(&child, 0);
	child_join(&child);
	/* Nobody left: it is replaced. */
	is_good_again();
}

START_TEST(a_segment_of_another_layout_is_refused_while_it_is_used)
{
	const uint32_t layout = 999;

	is_refused_while_attached(-EPROTO, 8, &layout, sizeof(layout));
}
END_TEST

START_TEST(a_segment_without_its_magic_is_retired_while_it_is_used)
{
	const uint64_t magic = 1;
	struct scache *cache;
	struct child child;

	child_start(&child, stay_attached, NULL);
	child_hear(&child);
	change_segment(0, &magic, sizeof(magic));
	cache = scratch_open();
	must_be(scratch_count(scratch_base, "streamcache.*"), 1);
	must_be(scratch_stat(cache).peers, 1);
	child_tell(&child, 0);
	child_join(&child);
	scratch_close(cache);
	is_good_again();
}
END_TEST

START_TEST(an_unreachable_segment_is_refused_while_it_is_used)
{
	struct scache *cache;
	struct child child;
	char elsewhere[300], path[400];

	child_start(&child, stay_attached, NULL);
	child_hear(&child);
	/* As in a container with a /dev/shm of its own. */
	scratch_segment(path, sizeof(path));
	snprintf(elsewhere, sizeof(elsewhere), "%s/elsewhere", scratch_base);
	must(rename(path, elsewhere) == 0);
	must_be(scache_open(scratch_dir, &scratch_options, &cache), -ENXIO);
	must(scache_detail()[0] != '\0');
	must(rename(elsewhere, path) == 0);
	scratch_close(scratch_open());
	child_tell(&child, 0);
	child_join(&child);
	is_good_again();
}
END_TEST

START_TEST(a_truncated_segment_is_replaced_when_nobody_uses_it)
{
	struct scache *cache = scratch_open();

	pattern_produce(scratch_create(cache, "k", 0, NULL), 1, 1000, 1000);
	scratch_close(cache);
	change_segment(5000, NULL, 0);
	/* The former segment's blob is there yet. */
	cache = scratch_open();
	must(!scratch_misses(cache, "k"));
	must_be(scratch_stat(cache).adopted, 1);
	must_be(scache_remove(cache, "k", 1), 0);
	scratch_close(cache);
	is_good_again();
}
END_TEST

START_TEST(rubbish_in_the_lock_file_is_replaced)
{
	scratch_close(scratch_open());
	put_file(below("ctl/lock"), "rubbish\n");
	scratch_close(scratch_open());
	must_be(scache_destroy(scratch_dir, NULL), 0);
}
END_TEST

START_TEST(rubbish_in_the_lock_file_does_not_split_a_cache_in_use)
{
	struct scache *cache;
	struct child child;

	child_start(&child, stay_attached, NULL);
	child_hear(&child);
	put_file(below("ctl/lock"), "rubbish\n");
	must(scache_open(scratch_dir, &scratch_options, &cache) < 0);
	must(scache_detail()[0] != '\0');
	must_be(scratch_count(scratch_base, "streamcache.*"), 1);
	child_tell(&child, 0);
	child_join(&child);
	scratch_close(scratch_open());
}
END_TEST

START_TEST(a_seat_too_few_is_said_so)
{
	struct child children[2];
	struct scache *cache;

	scratch_options.peers = 2;
	for (int i = 0; i < 2; i++) {
		child_start(&children[i], stay_attached, NULL);
		child_hear(&children[i]);
	}
	must_be(scache_open(scratch_dir, &scratch_options, &cache), -EUSERS);
	must(scache_detail()[0] != '\0');
	for (int i = 0; i < 2; i++) {
		child_tell(&children[i], 0);
		child_join(&children[i]);
	}
	is_good_again();
}
END_TEST

/* ------------------------------------------------------------ modes and the end */

static void has_mode(const char *path, mode_t mode)
{
	struct stat st;

	must(lstat(path, &st) == 0);
	must_be(st.st_mode & 07777, mode);
}

START_TEST(what_we_make_is_for_the_owner_only)
{
	static const mode_t masks[] = { 0, 022, 077 };
	struct scache_writer *writer;
	struct scache *cache;
	char path[512], *slash;

	for (int i = 0; i < 3; i++) {
		umask(masks[i]);
		cache = scratch_open();
		writer = scratch_create(cache, "k", 0, NULL);
		scratch_blob(path, sizeof(path));
		has_mode(path, 0600);
		pattern_produce(writer, 1, 1000, 1000);
		has_mode(path, 0400);
		slash = strrchr(path, '/');
		*slash = '\0';
		has_mode(path, 0700);
		has_mode(scratch_dir, 0700);
		has_mode(below("ctl"), 0700);
		has_mode(below("blobs"), 0700);
		has_mode(below("ctl/lock"), 0600);
		scratch_close(cache);
		must_be(scache_destroy(scratch_dir, NULL), 0);
	}
}
END_TEST

START_TEST(destroy_refuses_while_somebody_is_attached)
{
	struct scache *cache = scratch_open();
	struct child child;

	pattern_produce(scratch_create(cache, "k", 0, NULL), 1, 1000, 1000);
	must_be(scache_destroy(scratch_dir, NULL), -EBUSY);
	must(scache_detail()[0] != '\0');
	child_start(&child, stay_attached, NULL);
	child_hear(&child);
	must(!scratch_misses(cache, "k"));
	scratch_close(cache);
	must_be(scache_destroy(scratch_dir, NULL), -EBUSY);
	must_be(scratch_blobs(), 1);
	child_tell(&child, 0);
	child_join(&child);
	must_be(scache_destroy(scratch_dir, NULL), 0);
	must(rmdir(scratch_base) == 0);
	must_be(scache_destroy(scratch_dir, NULL), -ENOENT);
	must(scache_detail()[0] != '\0');
}
END_TEST

START_TEST(destroy_leaves_what_is_not_ours)
{
	static const char *const names[] = { "notes", "ctl/notes", "blobs/notes", "blobs/00/notes" };

	for (int i = 0; i < 4; i++) {
		struct scache *cache = scratch_open();

		for (int j = 0; j < 20; j++) {
			char key[8];

			snprintf(key, sizeof(key), "%d", j);
			pattern_produce(scratch_create(cache, key, 0, NULL), 1, 10, 10);
		}
		scratch_close(cache);
		if (i == 3)
			mkdir(below("blobs/00"), 0700);
		put_file(below(names[i]), "precious");
		must_be(scache_destroy(scratch_dir, NULL), -ENOTEMPTY);
		must(scache_detail()[0] != '\0');
		must(unlink(below(names[i])) == 0);
		must_be(scratch_count(scratch_base, "streamcache.*"), 0);
		must_be(scratch_blobs(), 0);
		/* What is left is a cache, or a beginning of one, or a directory. */
		is_good_again();
		must(mkdir(scratch_base, 0700) == 0);
	}
}
END_TEST

/* Of a default segment the core fits, and the rings do not. */
static void open_under_a_limit(void *arg)
{
	const struct rlimit limit = { 20u << 20, RLIM_INFINITY };
	struct scache_options options = { .size = sizeof(options),
					  .segment_dir = scratch_base };
	struct scache *cache;

	(void)arg;
	must(setrlimit(RLIMIT_FSIZE, &limit) == 0);
	must_be(scache_open(scratch_dir, &options, &cache), 0);
	must(scratch_stat(cache).max_rings < 16);
	must_be(scache_close(cache), 0);
	must_be(scache_destroy(scratch_dir, NULL), 0);
}

START_TEST(a_limit_on_file_sizes_is_no_signal)
{
	struct child child;

	child_start(&child, open_under_a_limit, NULL);
	child_join(&child);
}
END_TEST

/* Whoever can write the record must not have us remove what he names. */
START_TEST(a_record_that_names_another_file_does_it_no_harm)
{
	char path[600], text[1200];
	FILE *lock;
	size_t bytes;
	char *at;

	scratch_close(scratch_open());
	snprintf(path, sizeof(path), "%s/precious", scratch_base);
	put_file(path, "precious");
	snprintf(path, sizeof(path), "%s/ctl/lock", scratch_dir);
	lock = fopen(path, "r+");
	must(lock != NULL);
	bytes = fread(text, 1, sizeof(text) - 1, lock);
	text[bytes] = '\0';
	at = strstr(text, "segment /");
	must(at != NULL);
	rewind(lock);
	must(fprintf(lock, "%.*ssegment %s/precious\nend\n", (int)(at - text), text,
		     scratch_base) > 0);
	must(fclose(lock) == 0);
	scratch_close(scratch_open());
	must_be(scratch_count(scratch_base, "precious"), 1);
	snprintf(path, sizeof(path), "%s/precious", scratch_base);
	must(access(path, F_OK) == 0 && truncate(path, 8) == 0 && unlink(path) == 0);
}
END_TEST

START_TEST(a_segment_directory_that_was_wrong_once_can_be_mended)
{
	const char *right = scratch_options.segment_dir;
	struct scache *cache = NULL;

	scratch_options.segment_dir = "/etc/passwd";
	must_be(scache_open(scratch_dir, &scratch_options, &cache), -ENOTDIR);
	scratch_options.segment_dir = right;
	scratch_close(scratch_open());
}
END_TEST

int main(void)
{
	const TTest *const tests[] = {
		a_directory_that_is_a_file_is_refused,
		a_missing_parent_is_refused,
		open_existing_does_not_create,
		a_directory_that_others_can_write_to_is_refused,
		directories_inside_that_others_can_write_to_are_refused,
		a_file_in_place_of_a_directory_inside_is_refused,
		symbolic_links_in_place_of_our_files_are_refused,
		a_symbolic_link_to_the_directory_itself_is_the_users_affair,
		a_segment_of_another_layout_is_refused_while_it_is_used,
		a_segment_without_its_magic_is_retired_while_it_is_used,
		an_unreachable_segment_is_refused_while_it_is_used,
		a_truncated_segment_is_replaced_when_nobody_uses_it,
		rubbish_in_the_lock_file_is_replaced,
		rubbish_in_the_lock_file_does_not_split_a_cache_in_use,
		a_seat_too_few_is_said_so,
		what_we_make_is_for_the_owner_only,
		destroy_refuses_while_somebody_is_attached,
		destroy_leaves_what_is_not_ours,
		a_limit_on_file_sizes_is_no_signal,
		a_record_that_names_another_file_does_it_no_harm,
		a_segment_directory_that_was_wrong_once_can_be_mended,
	};

	return SCRATCH_RUN("open", tests);
}
