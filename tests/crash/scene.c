/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <ftw.h>
#include <grp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/step.h"
#include "crash.h"

#define NOBODY 65534

char labels[LABELS_MAX][32];
int label_count;
struct scene *scene;
char crash_base[256], crash_dir[300], crash_segments[310];
struct scache_options crash_options;
static pid_t janitor;
static int janitor_fd;

/* -------------------------------------------------------------------- labels */

static void note_label(const char *text, size_t bytes)
{
	char label[sizeof(labels[0])];

	snprintf(label, sizeof(label), "%.*s", (int)bytes, text);
	for (int i = 0; i < label_count; i++)
		if (strcmp(labels[i], label) == 0)
			return;
	if (label_count < LABELS_MAX)
		memcpy(labels[label_count++], label, sizeof(label));
}

static int read_source(const char *path, const struct stat *st, int type, struct FTW *at)
{
	static const char call[] = "STEP(\"";
	const char *from, *end;
	char line[1000];
	size_t length = strlen(path);
	FILE *file;

	(void)st;
	(void)at;
	if (type != FTW_F || length < 2 || strcmp(path + length - 2, ".c") != 0)
		return 0;
	file = fopen(path, "r");
	if (file == NULL)
		return -1;
	while (fgets(line, sizeof(line), file) != NULL) {
		from = strstr(line, call);
		end = from != NULL ? strchr(from + strlen(call), '"') : NULL;
		if (end != NULL)
			note_label(from + strlen(call), (size_t)(end - from) - strlen(call));
	}
	fclose(file);
	return 0;
}

static int compare(const void *a, const void *b)
{
	return strcmp(a, b);
}

bool labels_load(void)
{
	const char *top = getenv("TOP_SRCDIR");
	char lib[4096];

	snprintf(lib, sizeof(lib), "%s/lib", top != NULL ? top : ".");
	if (nftw(lib, read_source, 16, FTW_PHYS) != 0 || label_count == 0) {
		printf("no steps in %s: set TOP_SRCDIR\n", lib);
		return false;
	}
	qsort(labels, (size_t)label_count, sizeof(labels[0]), compare);
	return true;
}

int label_index(const char *label)
{
	const char(*found)[sizeof(labels[0])];
	char wanted[sizeof(labels[0])] = { 0 };

	if (label == NULL)
		return NOWHERE;
	snprintf(wanted, sizeof(wanted), "%s", label);
	found = bsearch(wanted, labels, (size_t)label_count, sizeof(labels[0]), compare);
	if (found == NULL)
		spawn_fail(__FILE__, __LINE__, "no label %s in lib/", label);
	return (int)(found - (const char(*)[sizeof(labels[0])])labels);
}

/* --------------------------------------------------------------------- steps */

static struct trap own = { .fatal = NOWHERE, .hold = NOWHERE };
static unsigned own_passed;
static bool own_held, is_victim;
static _Atomic bool armed;

static void die(void)
{
	kill(getpid(), SIGKILL);
	for (;;)
		pause();
}

static void on_step(const char *label)
{
	int at = label_index(label);

	atomic_fetch_add(&scene->passed[at], 1);
	if (is_victim && !armed)
		return;
	if (is_victim)
		atomic_fetch_add(&scene->by_victim[at], 1);
	if (at == own.fatal && ++own_passed == own.nth)
		die();
	if (at != own.hold || own_held)
		return;
	own_held = true;
	atomic_store(own.sign, 1);
	eventually(atomic_load(own.until) >= own.need || atomic_load(&scene->over));
}

void arm(void)
{
	armed = true;
}

void disarm(void)
{
	armed = false;
}

void hold_at(const char *label)
{
	own_held = false;
	own = (struct trap){ .fatal = NOWHERE,
			     .hold = label_index(label),
			     .sign = &scene->mate_ready,
			     .until = &scene->over,
			     .need = 1 };
}

/* ----------------------------------------------------------------- processes */

struct part {
	void (*body)(void);
	const struct trap *trap;
};

static void act(void *arg)
{
	const struct part *part = arg;

	own = (struct trap){ .fatal = NOWHERE, .hold = NOWHERE };
	own_passed = 0;
	is_victim = part->trap != NULL;
	if (is_victim)
		own = *part->trap;
	armed = false;
	own_held = false;
	if (crash_options.mode == 0770)
		umask(077);
	step_set_hook(on_step);
	part->body();
}

void cast(struct child *ret_child, void (*body)(void), const struct trap *trap)
{
	struct part part = { .body = body, .trap = trap };

	child_start(ret_child, act, &part);
}

static void (*doomed)(void);

static void doom(void)
{
	is_victim = false;
	doomed();
}

void die_at(const char *label, void (*body)(void))
{
	struct trap trap = { .fatal = label_index(label), .nth = 1, .hold = NOWHERE };
	struct child child;

	doomed = body;
	cast(&child, doom, &trap);
	must_be(child_end(&child), -SIGKILL);
}

/* --------------------------------------------------------------------- places */

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *at)
{
	(void)st;
	(void)type;
	(void)at;
	remove(path);
	return 0;
}

/* In memory: a hundred thousand files are made and removed. */
static bool make_base(void)
{
	const char *above = getenv("TMPDIR");
	struct stat st;

	snprintf(crash_base, sizeof(crash_base), "/dev/shm/streamcache-crash.XXXXXX");
	if (mkdtemp(crash_base) != NULL)
		return true;
	snprintf(crash_base, sizeof(crash_base), "%s/crash.XXXXXX", above != NULL ? above : "/tmp");
	/* The harness makes one for each test, for its owner only. */
	if (above != NULL && stat(above, &st) == 0 && !(st.st_mode & 01))
		(void)!chmod(above, 0711);
	return mkdtemp(crash_base) != NULL;
}

/* Whoever removes everything when all of us are gone, however that came. */
static bool start_janitor(void)
{
	int ends[2];
	char byte;

	if (pipe(ends) < 0)
		return false;
	fflush(NULL);
	janitor = fork();
	if (janitor == 0) {
		setsid();
		close(ends[1]);
		while (read(ends[0], &byte, 1) != 0)
			;
		nftw(crash_base, remove_one, 16, FTW_DEPTH | FTW_PHYS);
		_exit(0);
	}
	close(ends[0]);
	janitor_fd = ends[1];
	return janitor > 0;
}

bool crash_begin(void)
{
	if (!labels_load())
		return false;
	scene = mmap(NULL, sizeof(*scene), PROT_READ | PROT_WRITE,
		     MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (scene == MAP_FAILED || !make_base() || !start_janitor()) {
		printf("no place for caches: %s\n", crash_base);
		return false;
	}
	return geteuid() != 0 ||
	       (chown(crash_base, NOBODY, NOBODY) == 0 && setgroups(0, NULL) == 0 &&
		setgid(NOBODY) == 0 && setuid(NOBODY) == 0);
}

void crash_end(void)
{
	close(janitor_fd);
	while (waitpid(janitor, NULL, 0) < 0 && errno == EINTR)
		;
}

void scene_begin(void)
{
	static unsigned number;

	scene = mmap(NULL, sizeof(*scene), PROT_READ | PROT_WRITE,
		     MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	must(scene != MAP_FAILED);
	snprintf(crash_dir, sizeof(crash_dir), "%s/%d.%u", crash_base, (int)getpid(), number++);
	/* Of its own: a sweep finds what another play has left beside its segment. */
	snprintf(crash_segments, sizeof(crash_segments), "%s.shm", crash_dir);
	must(mkdir(crash_segments, 0700) == 0);
	crash_options = (struct scache_options){
		.size = sizeof(crash_options),
		.entries = 16,
		.peers = 12,
		.readers = 64 * 12,
		.rings = RINGS,
		.ring_bytes = RING_BYTES,
		.window_bytes = SCACHE_UNLIMITED,
		.max_age_ns = SCACHE_UNLIMITED,
		.max_bytes = SCACHE_UNLIMITED,
		.min_free_percent = SCACHE_ZERO,
		.segment_dir = crash_segments,
	};
}

void scene_end(void)
{
	munmap(scene, sizeof(*scene));
	nftw(crash_dir, remove_one, 16, FTW_DEPTH | FTW_PHYS);
	nftw(crash_segments, remove_one, 16, FTW_DEPTH | FTW_PHYS);
}
