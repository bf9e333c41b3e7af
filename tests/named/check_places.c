/* SPDX-License-Identifier: MIT */
/*
 * check_places - T11, T12, T13: the same files by other ways: opened by strangers
 * in our own process, from another PID namespace, and beside another /dev/shm.
 */
#include <check.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "../util/pattern.h"
#include "../util/scratch.h"
#include "../util/spawn.h"

/* ------------------------------------------------------------------------- T11 */

/* As a backup tool does; and lock it as an editor would, by POSIX locks too. */
static void touch_file(const char *path)
{
	struct flock all = { .l_type = F_WRLCK, .l_whence = SEEK_SET };
	char data[4096];
	int fd = open(path, O_RDWR | O_CLOEXEC), second;

	must(fd >= 0);
	must(read(fd, data, sizeof(data)) >= 0);
	second = dup(fd);
	fcntl(fd, F_SETLK, &all);
	all.l_type = F_UNLCK;
	must(fcntl(fd, F_SETLK, &all) == 0);
	close(second);
	close(fd);
}

static void touch_files(void)
{
	char path[400];

	snprintf(path, sizeof(path), "%s/ctl/lock", scratch_dir);
	touch_file(path);
	scratch_segment(path, sizeof(path));
	touch_file(path);
}

/* Another copy of the library in this process: a plug-in has brought its own. */
static int use_other_copy(void)
{
	int (*other_open)(const char *, const struct scache_options *, struct scache **);
	int (*other_close)(struct scache *);
	const char *build = getenv("TOP_BUILDDIR");
	struct scache *cache;
	char path[600];
	void *library;

	if (build == NULL)
		return 0;
	snprintf(path, sizeof(path), "%s/.libs/libstreamcache.so", build);
	library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
	if (library == NULL)
		return 0;
	*(void **)&other_open = dlsym(library, "scache_open");
	*(void **)&other_close = dlsym(library, "scache_close");
	must(other_open != NULL && other_open != scache_open);
	for (int i = 0; i < 3; i++) {
		must_be(other_open(scratch_dir, &scratch_options, &cache), 0);
		must_be(scratch_stat(cache).peers, 3);
		must_be(other_close(cache), 0);
	}
	return 1;
}

static void write_beside_strangers(void *arg)
{
	struct scache_writer *writer = scratch_create(scratch_open(), "k", 0, NULL);
	int copies;

	(void)arg;
	must_be(pattern_write(writer, 1, 0, 5000, 1000, NULL), 5000);
	touch_files();
	copies = use_other_copy();
	touch_files();
	child_say(copies);
	child_listen();
	must_be(pattern_write(writer, 1, 5000, 9000, 1000, NULL), 4000);
	child_say(0);
	child_stay();
}

START_TEST(t11_a_process_that_opens_its_files_once_more_is_still_alive)
{
	struct scache *cache = scratch_open();
	struct scache_reader *reader;
	struct child writer;
	uint64_t position = 0;

	child_start(&writer, write_beside_strangers, NULL);
	if (child_hear(&writer) == 0)
		printf("T11: no second copy of the library at hand\n");
	touch_files();
	must_be(scache_sweep(cache, NULL, NULL), 0);
	must_be(scratch_stat(cache).deaths, 0);
	must_be(scratch_stat(cache).peers, 2);
	must_be(scache_destroy(scratch_dir, NULL), -EBUSY);
	reader = scratch_find(cache, "k");
	child_tell(&writer, 0);
	child_hear(&writer);
	must_be(pattern_read(reader, 1, &position, 9000, 4096), 1);
	child_kill(&writer);
	must_be(pattern_read(reader, 1, &position, UINT64_MAX, 4096), -EOWNERDEAD);
	scache_reader_close(reader);
	scratch_is_clean(cache);
	scratch_close(cache);
}
END_TEST

/* ------------------------------------------------------------------------- T12 */

static void be_alone_with_mounts(int flags)
{
	must(unshare(flags | CLONE_NEWNS) == 0);
	must(mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) == 0);
}

/* The first process of its namespace, with the cache at a path of its own. */
static void write_in_container(const char *key)
{
	struct scache_writer *writer;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	must_be(getpid(), 1);
	writer = scratch_create(scratch_open(), key, 0, NULL);
	must_be(pattern_write(writer, 1, 0, 5000, 1000, NULL), 5000);
	child_say(1);
	child_stay();
}

static void be_container(void *arg)
{
	char place[300];
	pid_t pid;

	be_alone_with_mounts(CLONE_NEWPID);
	snprintf(place, sizeof(place), "%s/place %s", scratch_base, (const char *)arg);
	must(mkdir(place, 0700) == 0);
	must(mount(scratch_dir, place, NULL, MS_BIND, NULL) == 0);
	snprintf(scratch_dir, sizeof(scratch_dir), "%s", place);
	pid = fork();
	must(pid >= 0);
	if (pid == 0)
		write_in_container(arg);
	child_stay();
}

START_TEST(t12_two_namespaces_with_the_same_process_ids)
{
	struct scache *cache = scratch_open();
	struct scache_reader *readers[2];
	static char keys[2][2] = { "a", "b" };
	struct child containers[2];
	uint64_t position = 0;

	for (int i = 0; i < 2; i++) {
		child_start(&containers[i], be_container, keys[i]);
		child_hear(&containers[i]);
		readers[i] = scratch_find(cache, keys[i]);
		must_be(scratch_info(readers[i]).producer_pid, 1);
	}
	must_be(scratch_stat(cache).peers, 3);
	must_be(scache_sweep(cache, NULL, NULL), 0);
	must_be(scratch_stat(cache).deaths, 0);
	child_kill(&containers[0]);
	must_be(pattern_read(readers[0], 1, &position, UINT64_MAX, 4096), -EOWNERDEAD);
	must_be(position, 5000);
	must_be(scache_sweep(cache, NULL, NULL), 0);
	must_be(scratch_stat(cache).deaths, 1);
	must_be(scratch_stat(cache).peers, 2);
	position = 0;
	must_be(pattern_read(readers[1], 1, &position, 5000, 4096), 1);
	must_be(scache_read(readers[1], &(char){ 0 }, 1, 100000000), -ETIMEDOUT);
	child_kill(&containers[1]);
	must_be(pattern_read(readers[1], 1, &position, UINT64_MAX, 4096), -EOWNERDEAD);
	for (int i = 0; i < 2; i++)
		scache_reader_close(readers[i]);
	scratch_is_clean(cache);
	scratch_close(cache);
}
END_TEST

/* ------------------------------------------------------------------------- T13 */

static char shm[300];

static void open_beside_another_shm(void *arg)
{
	struct scache *cache = NULL;

	(void)arg;
	be_alone_with_mounts(0);
	must(mount("tmpfs", shm, "tmpfs", 0, "size=16m,mode=0700") == 0);
	for (int i = 0; i < 3; i++) {
		must_be(scache_open(scratch_dir, &scratch_options, &cache), -ENXIO);
		must(strstr(scache_detail(), shm) != NULL);
	}
	must_be(scratch_count(shm, "streamcache.*"), 0);
	child_say(0);
	child_listen();
	/* The others have left. */
	cache = scratch_open();
	must_be(scratch_count(shm, "streamcache.*"), 1);
	scratch_close(cache);
	must_be(scache_destroy(scratch_dir, NULL), 0);
	must_be(scratch_count(shm, "streamcache.*"), 0);
}

START_TEST(t13_a_container_with_another_shm_is_told_and_makes_no_second_segment)
{
	struct scache *cache;
	struct child container;

	snprintf(shm, sizeof(shm), "%s/shm", scratch_base);
	must(mkdir(shm, 0700) == 0);
	scratch_options.segment_dir = shm;
	cache = scratch_open();
	pattern_produce(scratch_create(cache, "k", 0, NULL), 1, 5000, 1000);
	child_start(&container, open_beside_another_shm, NULL);
	child_hear(&container);
	/* Nothing of it was felt here. */
	must_be(scratch_count(shm, "streamcache.*"), 1);
	must(!scratch_misses(cache, "k"));
	scratch_is_clean(cache);
	scratch_close(cache);
	child_tell(&container, 0);
	child_join(&container);
}
END_TEST

static bool may_make_namespaces(void)
{
	pid_t pid = fork();
	int status;

	if (pid == 0)
		_exit(unshare(CLONE_NEWPID | CLONE_NEWNS) < 0 ||
		      mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0);
	return pid > 0 && waitpid(pid, &status, 0) == pid && status == 0;
}

int main(void)
{
	const TTest *const tests[] = {
		t11_a_process_that_opens_its_files_once_more_is_still_alive,
		t12_two_namespaces_with_the_same_process_ids,
		t13_a_container_with_another_shm_is_told_and_makes_no_second_segment,
	};

	if (may_make_namespaces())
		return SCRATCH_RUN("places", tests);
	if (scratch_run("places", tests, 1) != 0)
		return 1;
	puts("namespaces cannot be made by this user; the first test was run");
	return 77;
}
