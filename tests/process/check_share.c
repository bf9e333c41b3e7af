/* SPDX-License-Identifier: MIT */
/*
 * check_share - caches and users: a cache is its owner's, unless a group share
 * was asked for by mode 0770. Needs root, to be other users.
 */
#include <check.h>
#include <errno.h>
#include <glob.h>
#include <grp.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "../util/former.h"
#include "../util/pattern.h"
#include "../util/scratch.h"
#include "../util/spawn.h"

#define GROUP 54321
#define USER_A 54001
#define USER_B 54002
#define BLOB_BYTES 300000ull

struct user {
	uid_t uid;
	gid_t gid; /* GROUP comes as a supplementary one, if it is another */
};

static void become(const struct user *user)
{
	const gid_t group = GROUP;

	must(setgroups(user->gid == GROUP || user->gid == 0 ? 0 : 1, &group) == 0);
	must(setgid(user->gid) == 0);
	must(setuid(user->uid) == 0);
	umask(077);
}

/* --------------------------------------------------------------------- strangers */

static void try_to_open(void *arg)
{
	struct scache *cache;

	become(arg);
	child_say(scache_open(scratch_dir, &scratch_options, &cache));
	child_say(scache_detail()[0] != '\0');
}

static void is_refused_for(const struct user *user, int error)
{
	struct user own = *user;
	struct child child;

	child_start(&child, try_to_open, &own);
	must_be(child_hear(&child), error);
	must_be(child_hear(&child), 1);
	child_join(&child);
}

START_TEST(a_directory_of_another_user_is_refused)
{
	struct user b = { USER_B, USER_B };
	struct scache *cache;

	scratch_give_away();
	must(chmod(scratch_base, 0755) == 0);
	must(mkdir(scratch_dir, 0755) == 0);
	is_refused_for(&b, -EPERM);
	must(chmod(scratch_dir, 0700) == 0);
	is_refused_for(&b, -EACCES);
	/* Not even root may: it would leave files there that the owner cannot remove. */
	must(chown(scratch_dir, USER_A, USER_A) == 0);
	must_be(scache_open(scratch_dir, &scratch_options, &cache), -EPERM);
	must(scache_detail()[0] != '\0');
	must(rmdir(scratch_dir) == 0);
}
END_TEST

START_TEST(a_private_cache_is_closed_to_its_group)
{
	struct user a = { USER_A, GROUP }, b = { USER_B, GROUP };
	struct child child;

	scratch_give_away();
	must(chmod(scratch_base, 0777) == 0);
	child_start(&child, try_to_open, &a);
	must_be(child_hear(&child), 0);
	child_hear(&child);
	child_join(&child);
	scratch_options.mode = 0770;
	is_refused_for(&b, -EACCES);
}
END_TEST

/* ------------------------------------------------------------------------ a share */

struct part {
	struct user user;
	const char *makes, *wants;
	uint64_t seed, wanted_seed;
};

/* Make one blob while the other looks on, and look on while it makes one. */
static void take_part(void *arg)
{
	const struct part *part = arg;
	struct scache_writer *writer;
	struct scache_reader *reader;
	struct scache *cache;

	become(&part->user);
	cache = scratch_open();
	writer = scratch_create(cache, part->makes, 0, NULL);
	child_say(0);
	child_listen();
	reader = scratch_find(cache, part->wants);
	child_say(0);
	child_listen();
	pattern_produce(writer, part->seed, BLOB_BYTES, 30000);
	pattern_read_all(reader, part->wanted_seed, BLOB_BYTES);
	scache_reader_close(reader);
	child_say(0);
	child_listen();
	reader = scratch_find(cache, part->wants);
	pattern_read_all(reader, part->wanted_seed, BLOB_BYTES);
	scache_reader_close(reader);
	child_say(0);
	child_listen();
	/* Each removes what the other has made. */
	must_be(scache_remove(cache, part->wants, strlen(part->wants)), 0);
	must_be(scache_sweep(cache, NULL, NULL), 0);
	scratch_close(cache);
}

static void is_shared(const char *name, mode_t mode)
{
	char path[600];
	struct stat st;

	snprintf(path, sizeof(path), "%s%s%s", name[0] == '/' ? "" : scratch_dir,
		 name[0] == '/' ? "" : "/", name);
	must(lstat(path, &st) == 0);
	must_be(st.st_mode & 07777, mode);
	must_be(st.st_gid, GROUP);
}

static void check_blob(void)
{
	char path[512];

	scratch_blob(path, sizeof(path));
	is_shared(path, 0660);
	*strrchr(path, '/') = '\0';
	is_shared(path, 02770);
}

static void check_finished_blobs(void)
{
	char pattern[400];
	glob_t found;

	snprintf(pattern, sizeof(pattern), "%s/blobs/[0-9a-f]*/*", scratch_dir);
	must(glob(pattern, 0, NULL, &found) == 0);
	must_be(found.gl_pathc, 2);
	for (size_t i = 0; i < found.gl_pathc; i++)
		is_shared(found.gl_pathv[i], 0440);
	globfree(&found);
}

/* As /dev/shm: what is made there belongs to its maker's own group. */
static void use_common_segment_dir(void)
{
	static char shm[300];

	snprintf(shm, sizeof(shm), "%s/shm", scratch_base);
	must(mkdir(shm, 0700) == 0);
	must(chown(shm, 0, 0) == 0);
	must(chmod(shm, 01777) == 0);
	scratch_options.segment_dir = shm;
	scratch_options.mode = 0770;
}

/* @dir_mode: of the directory, made before by the administrator; 0: made by A. */
static void share_between(gid_t gid_a, gid_t gid_b, mode_t dir_mode)
{
	struct part parts[2] = { { { USER_A, gid_a }, "a", "b", 1, 2 },
				 { { USER_B, gid_b }, "b", "a", 2, 1 } };
	struct child children[2];

	scratch_give_away();
	use_common_segment_dir();
	must(chown(scratch_base, USER_A, GROUP) == 0);
	must(chmod(scratch_base, dir_mode == 0 ? 02770 : 0777) == 0);
	if (dir_mode != 0) {
		must(mkdir(scratch_dir, 0700) == 0);
		must(chown(scratch_dir, 0, GROUP) == 0);
		must(chmod(scratch_dir, dir_mode) == 0);
	}
	for (int i = 0; i < 2; i++) {
		child_start(&children[i], take_part, &parts[i]);
		child_hear(&children[i]);
		if (i == 0)
			check_blob();
	}
	is_shared("ctl", 02770);
	is_shared("blobs", 02770);
	is_shared("ctl/lock", 0660);
	for (int step = 0; step < 4; step++) {
		for (int i = 0; i < 2; i++)
			child_tell(&children[i], 0);
		for (int i = 0; i < 2 && step < 3; i++)
			child_hear(&children[i]);
		if (step == 1)
			check_finished_blobs();
	}
	for (int i = 0; i < 2; i++)
		child_join(&children[i]);
	must_be(scratch_blobs(), 0);
}

START_TEST(two_users_share_by_their_common_group)
{
	share_between(GROUP, GROUP, 0);
}
END_TEST

START_TEST(the_common_group_may_be_a_supplementary_one)
{
	share_between(USER_A, USER_B, 0);
}
END_TEST

START_TEST(the_directory_may_be_the_administrators)
{
	share_between(USER_A, USER_B, 02770);
}
END_TEST

START_TEST(the_directory_needs_no_setgid_bit)
{
	share_between(USER_A, USER_B, 0770);
}
END_TEST

static uint64_t blocks_in(const char *dir)
{
	char pattern[400];
	uint64_t blocks = 0;
	struct stat st;
	glob_t found;

	snprintf(pattern, sizeof(pattern), "%s/*", dir);
	if (glob(pattern, 0, NULL, &found) != 0)
		return 0;
	for (size_t i = 0; i < found.gl_pathc; i++)
		blocks += stat(found.gl_pathv[i], &st) == 0 ? (uint64_t)st.st_blocks : 0;
	globfree(&found);
	return blocks;
}

static void make_for_the_group(void *arg)
{
	struct scache *cache;
	struct scache_writer *writer;

	become(arg);
	cache = scratch_open();
	pattern_produce(scratch_create(cache, "finished", 0, NULL), 1, 1000, 1000);
	writer = scratch_create(cache, "k", 0, NULL);
	pattern_write(writer, 1, 0, 1000, 1000, NULL);
	child_say(0);
	child_stay();
}

static void mend_for_the_group(void *arg)
{
	struct scache *cache;

	become(arg);
	cache = scratch_open();
	pattern_produce(scratch_take(cache, "k"), 2, 1000, 1000);
	scratch_is_clean(cache);
	scratch_close(cache);
	must_be(scache_destroy(scratch_dir, NULL), 0);
}

START_TEST(one_user_mends_what_the_other_left)
{
	struct user a = { USER_A, GROUP }, b = { USER_B, GROUP };
	struct child child;

	scratch_give_away();
	use_common_segment_dir();
	must(chown(scratch_base, 0, GROUP) == 0);
	must(chmod(scratch_base, 02770) == 0);
	child_start(&child, make_for_the_group, &a);
	child_hear(&child);
	child_kill(&child);
	child_start(&child, mend_for_the_group, &b);
	child_join(&child);
	must(access(scratch_dir, F_OK) < 0);
	/* Only its maker may unlink a segment there, but the memory must be back. */
	must_be(blocks_in(scratch_options.segment_dir), 0);
}
END_TEST

/* ------------------------------------------------------ what another's file cannot get */

/* Each does one thing as one of the users, when it is told. */
static struct user a = { USER_A, GROUP }, b = { USER_B, GROUP };

static void share_with_segment_beside(void)
{
	scratch_give_away();
	must(chown(scratch_base, 0, GROUP) == 0);
	must(chmod(scratch_base, 02770) == 0);
	scratch_options.mode = 0770;
}

static struct scache_writer *begin(struct scache *cache, uint32_t flags)
{
	struct scache_acquire_options options = { .size = sizeof(options),
						  .flags = flags,
						  .window_bytes = SCACHE_UNLIMITED };
	struct scache_writer *writer = NULL;

	must_be(scache_acquire(cache, "k", 1, &options, NULL, &writer), 0);
	must(writer != NULL);
	return writer;
}

static void make_it_later(void *arg)
{
	struct scache_writer *writer;
	struct scache *cache;

	become(arg);
	cache = scratch_open();
	writer = begin(cache, SCACHE_RESUMABLE);
	must_be(pattern_write(writer, 1, 0, 1000, 1000, NULL), 1000);
	child_say(0);
	child_listen();
	must_be(pattern_write(writer, 1, 1000, BLOB_BYTES, 1000, NULL), BLOB_BYTES - 1000);
	must_be(scache_finish(writer), 0);
	scache_writer_close(writer);
	scratch_close(cache);
}

/* There from the start, and opens the file at the end. */
static void read_it_later(void *arg)
{
	struct scache_reader *reader;
	uint64_t position = 0;
	struct scache *cache;

	become(arg);
	cache = scratch_open();
	reader = scratch_find(cache, "k");
	must_be(pattern_read(reader, 1, &position, 1000, 1000), 1);
	child_say(0);
	child_listen();
	must_be(pattern_read(reader, 1, &position, UINT64_MAX, 1000), 0);
	must_be(position, BLOB_BYTES);
	scache_reader_close(reader);
	scratch_close(cache);
}

static int wanted; /* of who removes it */

static void remove_it(void *arg)
{
	struct scache *cache;

	become(arg);
	cache = scratch_open();
	must_be(scache_remove(cache, "k", 1), wanted);
	must_be(scache_sweep(cache, NULL, NULL), 0);
	must(scratch_misses(cache, "k"));
	scratch_close(cache);
}

static void find_nothing(void *arg)
{
	struct scache *cache;

	become(arg);
	cache = scratch_open();
	must(scratch_misses(cache, "k"));
	scratch_is_clean(cache);
	must_be(scratch_blobs(), 0);
	scratch_close(cache);
}

static void run_as(void (*body)(void *arg), struct user *user)
{
	struct child child;

	child_start(&child, body, user);
	child_join(&child);
}

/* A's file, finished; B has it open from before. */
static void make_and_read(struct child *reader)
{
	struct child maker;

	child_start(&maker, make_it_later, &a);
	child_hear(&maker);
	child_start(reader, read_it_later, &b);
	child_hear(reader);
	child_tell(&maker, 0);
	child_join(&maker);
}

START_TEST(what_another_member_removes_is_read_to_its_end)
{
	struct child reader;
	char path[400];

	share_with_segment_beside();
	make_and_read(&reader);
	wanted = 0;
	run_as(remove_it, &b);
	scratch_blob(path, sizeof(path));
	must_be(former_mode(path), 0440);
	child_tell(&reader, 0);
	child_join(&reader);
	must_be(scratch_blobs(), 0);
	run_as(find_nothing, &a);
}
END_TEST

START_TEST(what_another_member_removes_does_not_come_back)
{
	struct child reader;

	share_with_segment_beside();
	make_and_read(&reader);
	wanted = 0;
	run_as(remove_it, &b);
	child_kill(&reader);
	former_lose(LOST_FILE);
	run_as(find_nothing, &b);
}
END_TEST

START_TEST(nor_if_it_is_in_use_in_a_former_segment)
{
	struct child reader;
	char path[400];

	share_with_segment_beside();
	make_and_read(&reader);
	former_lose(LOST_TRUST);
	/* A directory in which B may change nothing. */
	scratch_blob(path, sizeof(path));
	*strrchr(path, '/') = '\0';
	must(chmod(path, 02750) == 0);
	wanted = -EACCES;
	run_as(remove_it, &b);
	must(chmod(path, 02770) == 0);
	wanted = 0;
	run_as(remove_it, &b);
	child_tell(&reader, 0);
	child_join(&reader);
	run_as(find_nothing, &b);
}
END_TEST

static void go_on_with_it(void *arg)
{
	struct scache_writer *writer;
	struct scache *cache;

	become(arg);
	cache = scratch_open();
	writer = begin(cache, SCACHE_RESUMABLE);
	must_be(scache_written(writer), 1000);
	must_be(pattern_write(writer, 1, 1000, BLOB_BYTES, 1000, NULL), BLOB_BYTES - 1000);
	must_be(scache_finish(writer), wanted);
	scache_writer_close(writer);
	must_be(scratch_misses(cache, "k"), wanted != 0);
	scratch_close(cache);
}

START_TEST(what_was_another_members_is_not_said_to_be_durable)
{
	struct child child;

	share_with_segment_beside();
	for (uint32_t durability = 0; durability <= SCACHE_DURABILITY_FULL; durability++) {
		child_start(&child, make_it_later, &a);
		child_hear(&child);
		child_kill(&child);
		scratch_options.durability = durability;
		wanted = durability == SCACHE_DURABILITY_FULL ? SCACHE_NOT_KEPT : 0;
		run_as(go_on_with_it, &b);
		/* And it is not there after a restart. */
		former_lose(LOST_FILE);
		run_as(find_nothing, &b);
	}
}
END_TEST

int main(void)
{
	const TTest *const tests[] = {
		a_directory_of_another_user_is_refused,
		a_private_cache_is_closed_to_its_group,
		two_users_share_by_their_common_group,
		the_common_group_may_be_a_supplementary_one,
		the_directory_may_be_the_administrators,
		the_directory_needs_no_setgid_bit,
		one_user_mends_what_the_other_left,
		what_another_member_removes_is_read_to_its_end,
		what_another_member_removes_does_not_come_back,
		nor_if_it_is_in_use_in_a_former_segment,
		what_was_another_members_is_not_said_to_be_durable,
	};

	if (geteuid() != 0) {
		printf("only root can be other users\n");
		return 77;
	}
	return SCRATCH_RUN("share", tests);
}
