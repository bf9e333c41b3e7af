/* SPDX-License-Identifier: MIT */
#include "measure.h"

#include <dirent.h>
#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <json-c/json.h>
#include <limits.h>
#include <signal.h>
#include <linux/fs.h>
#include <linux/futex.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

struct bench bench = { .rounds = 7 };

static struct {
	const char *json, *only;
	char dir[PATH_MAX];
	bool failed;
	pid_t owner;
} setup;

static void clean_up(void);

/* ------------------------------------------------------------------ command line */

static const char *value_of(const char *arg, const char *name)
{
	size_t length = strlen(name);

	return strncmp(arg, name, length) == 0 && arg[length] == '=' ? arg + length + 1 : NULL;
}

static bool is_common(const char *arg)
{
	const char *value;

	if (strcmp(arg, "--smoke") == 0) {
		bench.smoke = true;
		bench.rounds = 1;
	} else if ((value = value_of(arg, "--rounds")) != NULL)
		bench.rounds = atoi(value);
	else if ((value = value_of(arg, "--json")) != NULL)
		setup.json = value;
	else if ((value = value_of(arg, "--only")) != NULL)
		setup.only = value;
	else
		return false;
	return true;
}

/*
 * ext4 makes new files slowly where many have been removed in the last minutes: it
 * passes over each of their inodes. As the top of a tree, what is made below the
 * directory is spread over the groups of the disk and not put beside its parent.
 */
static void spread_over_disk(void)
{
	int fd = open(setup.dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC), flags;

	if (fd >= 0 && ioctl(fd, FS_IOC_GETFLAGS, &flags) == 0) {
		flags |= FS_TOPDIR_FL;
		(void)ioctl(fd, FS_IOC_SETFLAGS, &flags);
	}
	if (fd >= 0)
		close(fd);
}

bool bench_number(const char *name, const char *value, const char *option, unsigned least,
		  unsigned most, unsigned *ret_number)
{
	int number = atoi(value);

	if (strcmp(name, option) != 0)
		return false;
	if (number < 0 || (unsigned)number < least || (unsigned)number > most)
		errx(2, "%s: %u to %u", option, least, most);
	*ret_number = (unsigned)number;
	return true;
}

void bench_begin(int argc, char **argv, const char *usage,
		 bool (*own)(const char *name, const char *value))
{
	const char *parent = getenv("TMPDIR");
	char name[64];

	for (int i = 1; i < argc; i++) {
		const char *arg = argv[i], *equals = strchr(arg, '=');

		if (is_common(arg))
			continue;
		if (arg[0] != '-') {
			parent = arg;
			continue;
		}
		snprintf(name, sizeof(name), "%.*s",
			 (int)(equals != NULL ? equals - arg : (ptrdiff_t)strlen(arg)), arg);
		if (own == NULL || !own(name, equals != NULL ? equals + 1 : ""))
			errx(2, "%s: not an option\n%s", arg, usage);
	}
	if (bench.rounds < 1 || bench.rounds > ROUNDS_MAX)
		errx(2, "--rounds: 1 to %d", ROUNDS_MAX);
	snprintf(setup.dir, sizeof(setup.dir), "%s/streamcache-bench-XXXXXX",
		 parent != NULL ? parent : "/tmp");
	expect(mkdtemp(setup.dir) != NULL, setup.dir);
	bench.dir = setup.dir;
	setup.owner = getpid();
	atexit(clean_up);
	/* A reader of our output that leaves early is no reason to leave all this behind. */
	signal(SIGPIPE, SIG_IGN);
	spread_over_disk();
	setvbuf(stdout, NULL, _IOLBF, 0);
}

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *walk)
{
	(void)st;
	(void)type;
	(void)walk;
	return remove(path);
}

/* A cache has a segment elsewhere, which only it knows of. Nothing else is one. */
static void destroy_caches(void)
{
	DIR *dir = opendir(setup.dir);
	struct dirent *entry;

	while (dir != NULL && (entry = readdir(dir)) != NULL)
		if (entry->d_name[0] != '.')
			(void)scache_destroy(in_dir(entry->d_name), NULL);
	if (dir != NULL)
		closedir(dir);
}

/* At exit, whatever the reason; not of a child that has failed. */
static void clean_up(void)
{
	if (getpid() != setup.owner || setup.dir[0] == '\0')
		return;
	destroy_caches();
	nftw(setup.dir, remove_one, 16, FTW_DEPTH | FTW_PHYS);
	setup.dir[0] = '\0';
}

int bench_end(void)
{
	clean_up();
	return setup.failed;
}

/* ------------------------------------------------------------------------ answers */

static int by_size(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return x < y ? -1 : x > y;
}

struct spread {
	double low, median, high; /* quartiles */
};

static struct spread spread_of(const double *figures, int count)
{
	double sorted[ROUNDS_MAX];

	memcpy(sorted, figures, (size_t)count * sizeof(*sorted));
	qsort(sorted, (size_t)count, sizeof(*sorted), by_size);
	return (struct spread){ .low = sorted[count / 4],
				.median = sorted[count / 2],
				.high = sorted[count - 1 - count / 4] };
}

static struct json_object *json_of(struct spread s)
{
	struct json_object *object = json_object_new_object();

	json_object_object_add(object, "median", json_object_new_double(s.median));
	json_object_object_add(object, "q1", json_object_new_double(s.low));
	json_object_object_add(object, "q3", json_object_new_double(s.high));
	return object;
}

static struct json_object *json_list(const double *figures)
{
	struct json_object *list = json_object_new_array();

	for (int i = 0; i < bench.rounds; i++)
		json_object_array_add(list, json_object_new_double(figures[i]));
	return list;
}

static void append(struct json_object *answer)
{
	FILE *file = fopen(setup.json, "a");

	if (file == NULL ||
	    fprintf(file, "%s\n", json_object_to_json_string_ext(answer, JSON_C_TO_STRING_PLAIN)) <
		    0 ||
	    fclose(file) != 0) {
		warn("%s", setup.json);
		setup.failed = true;
	}
}

/* One line: the figure, and what ours is beside it. */
static struct json_object *report(const struct question *q, const struct contestant *c,
				  const double *ours, const double *theirs)
{
	struct json_object *row = json_object_new_object();
	double ratios[ROUNDS_MAX];
	struct spread figure = spread_of(theirs, bench.rounds), ratio;

	for (int i = 0; i < bench.rounds; i++)
		ratios[i] = ours[i] / theirs[i];
	ratio = spread_of(ratios, bench.rounds);
	json_object_object_add(row, "name", json_object_new_string(c->name));
	json_object_object_add(row, "figure", json_of(figure));
	json_object_object_add(row, "figures", json_list(theirs));
	printf("  %-34s %11.5g (%.5g to %.5g)", c->name, figure.median, figure.low, figure.high);
	if (ours != theirs) {
		bool met = q->is_time ? ratio.median <= c->mark : ratio.median >= c->mark;

		json_object_object_add(row, "ratio", json_of(ratio));
		printf("   ours: %.3g x (%.3g to %.3g)", ratio.median, ratio.low, ratio.high);
		if (c->mark > 0) {
			json_object_object_add(row, "mark", json_object_new_double(c->mark));
			json_object_object_add(row, "met", json_object_new_boolean(met));
			printf("  mark %s %g: %s", q->is_time ? "<=" : ">=", c->mark,
			       bench.smoke ? "not judged" :
			       met	   ? "met" :
					     "MISSED");
		}
	}
	printf("\n");
	return row;
}

void ask(const struct question *question)
{
	static double figures[CONTESTANTS_MAX][ROUNDS_MAX];
	struct json_object *answer, *rows;
	int count = 0;

	if (setup.only != NULL && strstr(question->name, setup.only) == NULL)
		return;
	while (count < CONTESTANTS_MAX && question->contestants[count].name != NULL)
		count++;
	/* Once for nothing: pages, caches and clocks of the processor come to speed. */
	for (int i = 0; i < count && !bench.smoke; i++)
		question->contestants[i].run(question->contestants[i].arg);
	for (int round = 0; round < bench.rounds; round++)
		for (int i = 0; i < count; i++) {
			const struct contestant *c = &question->contestants[(i + round) % count];

			figures[c - question->contestants][round] = c->run(c->arg);
		}
	printf("%s  [%s; %s]\n", question->name, question->unit, question->where);
	answer = json_object_new_object();
	rows = json_object_new_array();
	json_object_object_add(answer, "question", json_object_new_string(question->name));
	json_object_object_add(answer, "unit", json_object_new_string(question->unit));
	json_object_object_add(answer, "is_time", json_object_new_boolean(question->is_time));
	json_object_object_add(answer, "where", json_object_new_string(question->where));
	json_object_object_add(answer, "rounds", json_object_new_int(bench.rounds));
	for (int i = 0; i < count; i++)
		json_object_array_add(rows, report(question, &question->contestants[i], figures[0],
						   figures[i]));
	json_object_object_add(answer, "contestants", rows);
	if (setup.json != NULL)
		append(answer);
	json_object_put(answer);
}

/* ------------------------------------------------------------------- for contestants */

double seconds(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (double)ts.tv_sec + (double)ts.tv_nsec / 1e9;
}

void expect(bool ok, const char *what)
{
	if (!ok)
		err(1, "%s", what);
}

ssize_t sc(ssize_t ret, const char *what)
{
	if (ret < 0)
		errx(1, "%s: %s (%s)", what, scache_strerror((int)ret), scache_detail());
	return ret;
}

const char *in_dir(const char *name)
{
	static char paths[4][PATH_MAX + 64];
	static unsigned turn;
	char *path = paths[turn++ % 4];

	snprintf(path, sizeof(paths[0]), "%s/%s", bench.dir, name);
	return path;
}

struct scache *a_cache(const char *name, const struct scache_options *options)
{
	struct scache *cache;

	sc(scache_open(in_dir(name), options, &cache), "scache_open");
	return cache;
}

pid_t spawn(void (*body)(const void *arg), const void *arg)
{
	pid_t child = fork();

	expect(child >= 0, "fork");
	if (child > 0)
		return child;
	body(arg);
	_exit(0);
}

void reap(pid_t child)
{
	int status;

	expect(waitpid(child, &status, 0) == child, "waitpid");
	if (status != 0)
		errx(1, "a child failed: status %#x", (unsigned)status);
}

void *shared_new(size_t bytes)
{
	void *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

	expect(memory != MAP_FAILED, "mmap");
	return memory;
}

void shared_free(void *memory, size_t bytes)
{
	munmap(memory, bytes);
}

struct gate {
	_Atomic unsigned missing;
};

struct gate *gate_new(unsigned count)
{
	struct gate *gate = shared_new(sizeof(*gate));

	atomic_init(&gate->missing, count);
	return gate;
}

void gate_wait(struct gate *gate)
{
	unsigned missing;

	if (atomic_fetch_sub(&gate->missing, 1) == 1) {
		syscall(SYS_futex, &gate->missing, FUTEX_WAKE, INT_MAX, NULL, NULL, 0);
		return;
	}
	while ((missing = atomic_load(&gate->missing)) != 0)
		syscall(SYS_futex, &gate->missing, FUTEX_WAIT, missing, NULL, NULL, 0);
}

void gate_free(struct gate *gate)
{
	shared_free(gate, sizeof(*gate));
}
