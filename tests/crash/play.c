/* SPDX-License-Identifier: MIT */
/*
 * play - the order of one play, and many of them by several processes.
 */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "crash.h"

#define WORKERS 6

struct tally *tally;

/* ------------------------------------------------------------------ one play */

static const struct op *playing;
static bool exactly;

/* Everybody else of a play. */
struct ensemble {
	struct child survivors[SURVIVORS], mate, rival;
	bool has_survivors;
};

static void join(struct child *child, const char *who, const char *where)
{
	int status = child_end(child);

	if (status != 0)
		spawn_fail(__FILE__, __LINE__, "%s: %s: status %d", where, who, status);
}

static void rival(void)
{
	eventually(scene->held || scene->over);
	if (scene->held)
		playing->rival();
}

static void begin(const struct op *op, bool with_survivors, struct ensemble *ensemble)
{
	static void (*const bodies[SURVIVORS])(void) = { survive_live, survive_joined,
							 survive_elsewhere };
	struct child child;

	playing = op;
	scene_begin();
	crash_options.mode = op->flags & OP_SHARED ? 0770 : 0700;
	crash_options.ring_bytes = op->flags & OP_LZ4 ? RING_BYTES_LZ4 : RING_BYTES;
	crash_options.min_occurrences = op->flags & OP_SELDOM ? 255 : 1;
	crash_options.compression = op->flags & OP_LZ4 ? SCACHE_AUTO : SCACHE_RAW;
	if (op->prepare != NULL) {
		cast(&child, op->prepare, NULL);
		join(&child, "before the play", op->name);
	}
	ensemble->has_survivors = with_survivors;
	if (with_survivors) {
		scene->survivors = SURVIVORS;
		for (int i = 0; i < SURVIVORS; i++)
			cast(&ensemble->survivors[i], bodies[i], NULL);
		if (!(op->flags & OP_OPENS)) {
			scene->go = op->flags & OP_QUIET ? 2 : 1;
			eventually(scene->entered == SURVIVORS);
		}
	}
	if (op->mate != NULL) {
		cast(&ensemble->mate, op->mate, NULL);
		eventually(scene->mate_ready);
	}
	if (op->rival != NULL)
		cast(&ensemble->rival, rival, NULL);
}

/* The victim's part. Minus the signal that ended it, or its exit status. */
static int sacrifice(const struct op *op, int fatal, unsigned nth, bool with_survivors)
{
	struct trap trap = { .fatal = fatal, .nth = nth, .hold = NOWHERE };
	struct child victim;

	if (op->rival != NULL) {
		trap.hold = label_index(op->hold);
		trap.sign = &scene->held;
		trap.until = &scene->released;
		trap.need = 1;
	} else if (op->flags & OP_OPENS && with_survivors) {
		trap.hold = label_index("gate-tried");
		trap.sign = &scene->go;
		trap.until = &scene->entering;
		trap.need = SURVIVORS;
	}
	cast(&victim, op->run, &trap);
	return child_end(&victim);
}

static void end(const struct op *op, struct ensemble *ensemble, const char *where)
{
	static const char *const names[SURVIVORS] = { "who reads along", "who waits",
						      "who works elsewhere" };

	scene->over = 1;
	if (op->mate != NULL)
		join(&ensemble->mate, "the mate", where);
	if (op->rival != NULL)
		join(&ensemble->rival, "the rival", where);
	if (ensemble->has_survivors)
		for (int i = 0; i < SURVIVORS; i++)
			join(&ensemble->survivors[i], names[i], where);
}

static void inspector(void)
{
	inspect(playing, exactly);
}

static void look_after(const struct op *op, const char *where)
{
	struct child child;

	exactly = !(op->flags & (OP_OPENS | OP_THREADS));
	cast(&child, inspector, NULL);
	join(&child, "the inspector", where);
	scene_end();
}

static enum played judge(int status, int fatal, const char *where)
{
	if (status == -SIGKILL && fatal != NOWHERE)
		return PLAYED_KILLED;
	if (status != 0)
		spawn_fail(__FILE__, __LINE__, "%s: the victim: status %d", where, status);
	return PLAYED_THROUGH;
}

enum played play(const struct op *op, int fatal, unsigned nth, bool with_survivors)
{
	struct ensemble ensemble;
	enum played played;
	char where[100];

	snprintf(where, sizeof(where), "%s at %s #%u", op->name,
		 fatal == NOWHERE ? "nothing" : labels[fatal], nth);
	begin(op, with_survivors, &ensemble);
	played = judge(sacrifice(op, fatal, nth, with_survivors), fatal, where);
	if (fatal == NOWHERE)
		for (int i = 0; i < label_count; i++)
			tally->passes[op - ops][i] = scene->by_victim[i];
	end(op, &ensemble, where);
	look_after(op, where);
	return played;
}

/* --------------------------------------------------------------------- pairs */

static void repair(void)
{
	struct scache *cache;

	arm();
	cache = open_cache();
	must_be(scache_sweep(cache, NULL, NULL), 0);
	disarm();
	scache_close(cache);
}

enum played play_pair(const struct op *op, int first, int second, unsigned nth,
		      uint32_t *ret_passes)
{
	struct trap trap = { .fatal = second, .nth = nth, .hold = NOWHERE };
	struct ensemble ensemble;
	enum played played;
	struct child child;
	char where[150];

	snprintf(where, sizeof(where), "%s at %s, its repairer at %s #%u", op->name, labels[first],
		 second == NOWHERE ? "nothing" : labels[second], nth);
	begin(op, false, &ensemble);
	judge(sacrifice(op, first, 1, false), first, where);
	end(op, &ensemble, where);
	for (int i = 0; i < label_count; i++)
		scene->by_victim[i] = 0;
	cast(&child, repair, &trap);
	played = judge(child_end(&child), second, where);
	if (ret_passes != NULL)
		for (int i = 0; i < label_count; i++)
			ret_passes[i] = scene->by_victim[i];
	look_after(op, where);
	return played;
}

/* ---------------------------------------------------------------------- many */

void tally_make(void)
{
	tally = mmap(NULL, sizeof(*tally), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1,
		     0);
	if (tally == MAP_FAILED)
		abort();
}

struct task {
	int count;
	void (*act)(int i);
};

static void worker(void *arg)
{
	const struct task *task = arg;
	int i;

	while ((i = atomic_fetch_add(&tally->next, 1)) < task->count)
		task->act(i);
}

bool work(int count, void (*act)(int i))
{
	struct task task = { .count = count, .act = act };
	struct child workers[WORKERS];
	bool well = true;
	int status;

	tally->next = 0;
	for (int i = 0; i < WORKERS; i++)
		child_start(&workers[i], worker, &task);
	for (int i = 0; i < WORKERS; i++) {
		while (waitpid(workers[i].pid, &status, 0) < 0)
			;
		close(workers[i].fd);
		well = well && status == 0;
	}
	return well;
}

void read_command(int argc, char **argv, struct command *ret_command)
{
	struct command command = { .all = false };

	for (int i = 1; i < argc; i++) {
		if (strcmp(argv[i], "--all") == 0) {
			command.all = true;
		} else if (strncmp(argv[i], "--op=", 5) == 0) {
			command.op = argv[i] + 5;
		} else {
			printf("usage: %s [--all] [--op=NAME]\n", argv[0]);
			exit(2);
		}
	}
	*ret_command = command;
}

bool is_wanted(const struct command *command, int op, int label)
{
	if (command->op != NULL && strcmp(command->op, ops[op].name) != 0)
		return false;
	return ops[op].only == NULL || label == label_index(ops[op].only);
}

unsigned print_kills(bool each)
{
	unsigned kills = 0;

	for (int i = 0; i < label_count; i++) {
		if (each)
			printf("%6u %s\n", (unsigned)tally->kills[i], labels[i]);
		kills += tally->kills[i];
	}
	return kills;
}
