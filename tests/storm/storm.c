/* SPDX-License-Identifier: MIT */
/*
 * storm - workers do whatever can be done with a tiny cache, and are killed and
 * stopped while they do it. A blob says in front whose it is, how long it gets
 * and how it ends, and each byte follows from that; what producers did stands
 * in memory of our own. So each reader knows whether it is told the truth.
 *
 * Children of workers use their parents' handles, and die with them.
 *
 * The seed settles what is tried, not what the scheduler makes of it. With
 * --hold everything stands still after a finding, for a debugger.
 */
#include "storm.h"

#include <errno.h>
#include <getopt.h>
#include <glob.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define WORKERS_MAX 48 /* and the rest of the 64 seats for the dead and the sweeper */

struct worker {
	pid_t pid;
	uint32_t number;
	int64_t wake_ns; /* stopped until then; 0: runs */
};

static void start(struct worker *w, bool sweeper)
{
	pid_t parent = getpid();

	*w = (struct worker){ .number = COUNT(started) + 1 };
	shared->doomed[w->number % WORKERS] = false;
	shared->stopped_itself[w->number % WORKERS] = false;
	shared->parent[w->number % WORKERS] = 0;
	memset(shared->cell[w->number % CELLS], 0, sizeof(shared->cell[0]));
	w->pid = fork();
	if (w->pid < 0)
		finding("fork: %s", strerror(errno));
	if (w->pid > 0)
		return;
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (getppid() != parent)
		_exit(0);
	me = w->number;
	random_state = mix(seed ^ (uint64_t)me << 32);
	work(sweeper);
}

static void bury(struct worker *w, int options)
{
	int status;

	if (w->pid == 0 || waitpid(w->pid, &status, options) != w->pid)
		return;
	if (!(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL) && status != 0) {
		fprintf(stderr, "storm: seed %llu: process %d ended with %#x\n",
			(unsigned long long)seed, (int)w->pid, (unsigned)status);
		COUNT(findings);
	}
	w->pid = 0;
}

static struct cell *cell_of(const struct worker *w)
{
	return &shared->cell[w->number % CELLS][0];
}

/* Does it pass a step, inside a call, before @until_ns? */
static bool moves(const struct worker *w, uint64_t steps, int64_t until_ns)
{
	const struct cell *c = cell_of(w);

	steps += c->steps;
	while (!c->inside || c->steps < steps)
		if (now_ns() >= until_ns)
			return false;
	return true;
}

/*
 * Mostly one that is busy, and some steps later: it shall die between two of
 * them. But not always: whoever sleeps has to die asleep, too, or stopped.
 */
static struct worker *choose(struct worker *workers, unsigned count)
{
	unsigned from = (unsigned)below(count);

	for (unsigned i = 0; i < count && !one_in(8); i++) {
		struct worker *w = &workers[(from + i) % count];

		if (w->pid != 0 && w->wake_ns == 0 && moves(w, 1, now_ns() + 300000)) {
			moves(w, below(20), now_ns() + 1 * MS);
			return w;
		}
	}
	return &workers[from];
}

static void slay(struct worker *w)
{
	if (w->pid == 0)
		return;
	be_doomed(w->number);
	kill(w->pid, SIGKILL);
	bury(w, 0);
	tally_death(w->number);
}

static void halt(struct worker *w)
{
	int64_t ms = 10 + (int64_t)below(one_in(30) ? 1800 : 290);

	shared->stopped[w->number % WORKERS]++;
	if (w->wake_ns == 0 && w->pid > 0 && kill(w->pid, SIGSTOP) == 0)
		COUNT(stops);
	w->wake_ns = now_ns() + ms * MS;
}

static void tend(struct worker *w)
{
	if (w->wake_ns != 0 && now_ns() >= w->wake_ns) {
		kill(w->pid, SIGCONT);
		w->wake_ns = 0;
	}
	bury(w, WNOHANG);
	if (w->pid == 0)
		start(w, false);
	/* Should it not have come to stop when it is woken, it is woken again. */
	if (w->wake_ns == 0 && shared->stopped_itself[w->number % WORKERS]) {
		w->wake_ns = now_ns() + (10 + (int64_t)below(400)) * MS;
		COUNT(stops);
	}
}

/* The children of the dead are ours, and die with their parents. */
static void bury_heirs(void)
{
	int status;

	while (waitpid(-1, &status, 0) > 0)
		if (status != 0 && !(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL))
			finding("child of fork() ended with %#x", (unsigned)status);
}

static void rage(struct worker *workers, unsigned count, int64_t until_ns)
{
	static const unsigned paces[] = { 1, 3, 10, 60 };
	unsigned pace_ms = paces[below(4)];
	struct worker sweeper = { 0 };

	while (now_ns() < until_ns && shared->findings == 0) {
		nap((int64_t)below(2 * pace_ms) * MS + 100000);
		if (one_in(4))
			halt(&workers[below(count)]);
		else
			slay(choose(workers, count));
		if (one_in(20)) {
			slay(&sweeper);
			start(&sweeper, true);
		}
		for (unsigned i = 0; i < count; i++)
			tend(&workers[i]);
		bury(&sweeper, WNOHANG);
	}
	for (unsigned i = 0; hold && i < count && shared->findings > 0; i++)
		kill(workers[i].pid, SIGSTOP);
	while (hold && shared->findings > 0)
		pause();
	for (unsigned i = 0; i < count; i++)
		slay(&workers[i]);
	slay(&sweeper);
	bury_heirs();
}

static uint64_t count_blobs(void)
{
	glob_t found = { .gl_pathc = 0 };
	char pattern[400];
	size_t count;

	snprintf(pattern, sizeof(pattern), "%s/blobs/*/*", dir);
	count = glob(pattern, 0, NULL, &found) == 0 ? found.gl_pathc : 0;
	globfree(&found);
	return count;
}

/* The key can be produced, and then read. */
static void use_key(unsigned key)
{
	char name[16];
	size_t bytes = key_name(key, name), bytes_in = 0;
	struct header h;

	for (int i = 0; i < 2; i++) {
		struct reading r = { .key = key, .limit_ns = UINT64_MAX, .since_ns = now_ns() };
		struct scache_acquire_options o = { .size = sizeof(o),
						    .window_bytes = SCACHE_UNLIMITED,
						    .max_age_ns = SCACHE_UNLIMITED };
		struct scache_writer *writer = NULL;
		int ret;

		if (i == 0)
			scache_remove(cache, name, bytes);
		ret = scache_acquire(cache, name, bytes, &o, &r.reader, &writer);
		if (ret != 0 || (writer != NULL) != (i == 0))
			finding("%d in a quiet cache, elected %d", ret, writer != NULL);
		if (writer != NULL) {
			h = (struct header){ .key = key, .bytes = 100000 };
			begin(writer, &h, UINT64_MAX)->stage = ENDING;
			fill(&h, 0, blob, h.bytes);
			bytes_in = key == 0 ? 0 : h.bytes;
			if (scache_write(writer, blob, bytes_in, SCACHE_FOREVER) !=
				    (ssize_t)bytes_in ||
			    scache_finish(writer) != 0)
				finding("cannot be produced in a quiet cache");
			scache_writer_close(writer);
		}
		while (take(&r, 70000, SCACHE_FOREVER) > 0)
			continue;
		if (r.position != bytes_in)
			finding("ends early in a quiet cache");
		leave(&r);
	}
}

static uint64_t adopted; /* in this segment, as was last seen */

/* As by a reboot: of what was finished the files are all that is left. */
static void lose_segment(void)
{
	glob_t found = { .gl_pathc = 0 };
	char pattern[400];

	snprintf(pattern, sizeof(pattern), "%s/streamcache.*", base);
	if (glob(pattern, 0, NULL, &found) == 0)
		for (size_t i = 0; i < found.gl_pathc; i++)
			unlink(found.gl_pathv[i]);
	globfree(&found);
	memset(shared->beginning, 0, sizeof(shared->beginning)); /* names begin anew */
	COUNT(losses);
	adopted = evicted_before = 0;
}

/* Everybody is dead: is everything mended? */
static void take_stock(void)
{
	struct scache_stats s;

	open_cache();
	sweep();
	sweep();
	check();
	s = stat_cache();
	if (s.entries_filling > 0) { /* orphans: they wait for somebody to go on */
		nap(700 * MS);
		sweep();
		sweep();
		s = stat_cache();
	}
	if (s.readers != 0 || s.rings_in_use != 0 || s.peers != 1 ||
	    s.entries_free + s.entries_finished != s.max_entries ||
	    count_blobs() != s.entries_finished)
		finding("left: readers %d rings %d peers %d free %d finished %d of %d, files %d",
			(int)s.readers, (int)s.rings_in_use, (int)s.peers, (int)s.entries_free,
			(int)s.entries_finished, (int)s.max_entries, (int)count_blobs());
	check_charges();
	for (unsigned key = 0; key < KEYS; key++)
		use_key(key);
	sweep();
	check_charges();
	check();
	s = stat_cache();
	atomic_fetch_add(&shared->adopted, s.adopted - adopted);
	adopted = s.adopted;
	if (s.damaged > 0)
		finding("%d entries were found to be damaged", (int)s.damaged);
	close_cache();
	alarm(0);
}

static void new_geometry(void)
{
	static const uint64_t ages[] = { 5 * MS, 50 * MS, 500 * MS, 3000 * MS, SCACHE_UNLIMITED };
	static const uint64_t windows[] = { 0, SCACHE_ZERO, 4096, 30000, 200000, SCACHE_UNLIMITED };

	memset(shared->beginning, 0, sizeof(shared->beginning)); /* names begin anew */
	geometry = (struct scache_options){ .size = sizeof(geometry),
					    .peers = 128,
					    .rings = 2,
					    .ring_bytes = one_in(2) ? 65536 : 1 << 20,
					    .segment_dir = base };
	geometry.entries = 16 + (uint32_t)below(17);
	geometry.readers = one_in(8) ? 256 : 2048; /* 256: too few for all at once */
	geometry.max_age_ns = ages[below(5)];
	geometry.window_bytes = windows[below(6)];
	tighten();
}

static void destroy(void)
{
	int ret;

	ret = CALL("destroy", 0, scache_destroy(dir, NULL));
	adopted = evicted_before = 0;
	alarm(0);
	if (ret != 0 || access(dir, F_OK) == 0)
		finding("%d (%s): %s", ret, scache_strerror(ret), scache_detail());
}

static bool parse(int argc, char **argv, int64_t *ret_seconds, unsigned *ret_processes,
		  const char **ret_file)
{
	static const struct option options[] = { { "seconds", required_argument, NULL, 's' },
						 { "minutes", required_argument, NULL, 'm' },
						 { "resume", required_argument, NULL, 'f' },
						 { "seed", required_argument, NULL, 'r' },
						 { "processes", required_argument, NULL, 'p' },
						 { "hold", no_argument, NULL, 'h' },
						 { 0 } };
	int option;

	while ((option = getopt_long(argc, argv, "", options, NULL)) != -1) {
		if (option == 's')
			*ret_seconds = strtoll(optarg, NULL, 10);
		else if (option == 'm')
			*ret_seconds = 60 * strtoll(optarg, NULL, 10);
		else if (option == 'f')
			*ret_file = optarg;
		else if (option == 'r')
			seed = strtoull(optarg, NULL, 10);
		else if (option == 'p')
			*ret_processes = (unsigned)strtoul(optarg, NULL, 10);
		else if (option == 'h')
			hold = true;
		else
			return false;
	}
	return *ret_processes >= 1 && *ret_processes <= WORKERS_MAX;
}

int main(int argc, char **argv)
{
	const char *above = getenv("TMPDIR"), *file = NULL;
	struct worker workers[WORKERS_MAX] = { { 0 } };
	unsigned processes = 8;
	int64_t seconds = 20, end_ns, round_ns;

	seed = (uint64_t)now_ns() % 1000000007;
	if (!parse(argc, argv, &seconds, &processes, &file))
		return 2;
	random_state = mix(seed);
	shared = mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1,
		      0);
	snprintf(base, sizeof(base), "%s/storm.XXXXXX", above != NULL ? above : "/tmp");
	if (shared == MAP_FAILED || mkdtemp(base) == NULL)
		return 2;
	if (file != NULL && tally_resume(file) < 0) {
		fprintf(stderr, "storm: %s cannot be read\n", file);
		return 2;
	}
	prctl(PR_SET_CHILD_SUBREAPER, 1);
	snprintf(dir, sizeof(dir), "%s/cache", base);
	printf("storm: seed %llu, %u processes, %lld s, in %s\n", (unsigned long long)seed,
	       processes, (long long)seconds, base);
	fflush(stdout);
	end_ns = now_ns() + seconds * 1000 * MS;
	new_geometry();
	while (now_ns() < end_ns && shared->findings == 0) {
		for (unsigned i = 0; i < processes; i++)
			start(&workers[i], false);
		round_ns = now_ns() + 5000 * MS;
		rage(workers, processes, round_ns < end_ns ? round_ns : end_ns);
		if (shared->findings > 0)
			break;
		if (one_in(3))
			lose_segment();
		take_stock();
		if (one_in(4))
			lose_segment();
		if (one_in(3) || now_ns() >= end_ns) {
			destroy();
			new_geometry();
		}
	}
	tally_end();
	if (shared->findings > 0)
		return 1;
	return rmdir(base) == 0 ? 0 : 1;
}
