/* SPDX-License-Identifier: MIT */
/*
 * process - virtual processes, and the one place where they change hands.
 *
 * Coroutines and not threads: a change costs no wake-up, and a killed one is
 * simply never resumed. Everything that a point does is a function of its
 * number, so a schedule always runs the same way.
 */
#include "explore.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/asan_interface.h>
#else
#define ASAN_UNPOISON_MEMORY_REGION(start, bytes) ((void)(start), (void)(bytes))
#endif

#define STACK_BYTES (256u << 10)

_Static_assert(PARTIES <= 8, "struct point, struct word_map");

struct process seats[PARTIES];
struct process *running, *on_behalf;
struct outcome now;
struct point *recorded;
bool recording;
uint32_t words;
static unsigned taking_part;

static ucontext_t outside;
static const struct schedule *plan;
static struct chooser *chooser;
static uint32_t next_decision;
static struct word_map *map;

/* The access that the running process is about to make, to see whether it changes anything. */
static struct {
	const volatile void *word;
	uint64_t value;
	uint32_t index;
	bool call;
} pending;

void finding(const char *format, ...)
{
	va_list args;
	size_t at;

	if (now.finding[0] != '\0')
		return; /* the first one is the cause */
	va_start(args, format);
	vsnprintf(now.finding, sizeof(now.finding), format, args);
	va_end(args);
	at = strlen(now.finding);
	for (unsigned i = 0; running != NULL && i < taking_part; i++) {
		const struct process *thread = &seats[THREAD_OF(i)];

		at += (size_t)snprintf(now.finding + at, sizeof(now.finding) - at,
				       "\n  process %u (%s): %s, last step %s", i,
				       seats[i].op->name,
				       seats[i].dead     ? "killed"
				       : seats[i].done   ? "has ended"
				       : seats[i].asleep ? "asleep"
							 : "runs",
				       seats[i].label != NULL ? seats[i].label : "-");
		if (!thread->done)
			at += (size_t)snprintf(now.finding + at, sizeof(now.finding) - at,
					       "\n    its thread %s, last step %s",
					       thread->awaits != NULL ? "waits" : "runs",
					       thread->label != NULL ? thread->label : "-");
	}
}

/* ------------------------------------------------------------------- words */

static uint32_t word_index(const volatile void *word)
{
	const struct segment *segment = seats[WARDEN].cache->seat->peer.segment;
	size_t core = (size_t)(segment->rings - (unsigned char *)segment->header);
	size_t at = (size_t)((const volatile unsigned char *)word -
			     (const volatile unsigned char *)segment->header);

	if (word == NULL || at >= segment->bytes)
		return WORD_NONE;
	/* A ring is one thing, wherever in it. */
	if (at >= core)
		return (uint32_t)(core / 4 + (at - core) / segment->geometry.ring_bytes);
	return (uint32_t)(at / 4);
}

static bool is_ring(uint32_t index)
{
	const struct segment *segment = seats[WARDEN].cache->seat->peer.segment;

	return index >= (uint32_t)(segment->rings - (unsigned char *)segment->header) / 4;
}

static uint64_t word_value(const volatile void *word)
{
	return (uintptr_t)word % 8 == 0 ? *(const volatile uint64_t *)word
					: *(const volatile uint32_t *)word;
}

/* Has the access before this point changed anything? */
static bool note_change(unsigned me)
{
	bool changed = pending.call;

	if (pending.word != NULL &&
	    (is_ring(pending.index) || word_value(pending.word) != pending.value)) {
		changed = true;
		if (map != NULL)
			map->changed[pending.index] |= (uint8_t)(1u << me);
	}
	pending.word = NULL;
	pending.call = false;
	return changed;
}

static void note_pending(enum point_kind kind, const volatile void *word, uint32_t index)
{
	pending.call = kind == POINT_CALL;
	pending.index = index;
	pending.word = index == WORD_NONE ? NULL : word;
	if (pending.word != NULL)
		pending.value = word_value(word);
}

bool word_is_shared(const struct word_map *of, const struct point *point)
{
	if (point->kind == POINT_CALL)
		return true;
	if (point->kind != POINT_ACCESS || point->word == WORD_NONE)
		return false;
	return of->changed[point->word] != 0 &&
	       (of->touched[point->word] & (of->touched[point->word] - 1));
}

/* ----------------------------------------------------------------- choosing */

static struct process *process_of(struct process *p)
{
	return p->leader != NULL ? p->leader : p;
}

static bool is_alive(const struct process *p)
{
	return (p->number < taking_part || p->number >= SEATS) && !p->done &&
	       !(p->leader != NULL ? p->leader : p)->dead;
}

static unsigned runnable_mask(void)
{
	unsigned mask = 0;

	for (unsigned i = 0; i < PARTIES; i++)
		if (is_alive(&seats[i]) && seats[i].awaits == NULL)
			mask |= 1u << i;
	return mask;
}

/* Who has neither ended nor died waits for what will never be. */
static void check_all_ended(void)
{
	for (unsigned i = 0; i < PARTIES; i++)
		if (is_alive(&seats[i]))
			finding("process %u%s waits, and nobody can go on",
				process_of(&seats[i])->number, i < SEATS ? "" : "'s thread");
}

static int next_runnable(unsigned me)
{
	unsigned mask = runnable_mask();

	for (unsigned i = 1; i <= PARTIES; i++)
		if (mask & 1u << (me + i) % PARTIES)
			return (int)((me + i) % PARTIES);
	return NOBODY;
}

static int choose(enum point_kind kind, uint32_t point, unsigned me)
{
	unsigned mask = runnable_mask();
	int usual = kind == POINT_ACCESS || kind == POINT_CALL ? (int)me : next_runnable(me);
	int to = usual;

	if (chooser != NULL) {
		to = chooser->choose(chooser, point, kind, me, mask, usual);
	} else if (next_decision < plan->count && plan->decisions[next_decision].point == point) {
		to = plan->decisions[next_decision++].to;
	}
	/* One that has ended cannot go on, and what has ended cannot be killed. */
	if (to == DIES ? kind == POINT_END : to != NOBODY && !(mask & 1u << to))
		to = usual;
	if (to == NOBODY)
		to = usual;
	if (to != usual && now.taken.count < DECISIONS_MAX)
		now.taken.decisions[now.taken.count++] =
			(struct decision){ .point = point, .to = to };
	return to;
}

/* ---------------------------------------------------------------- switching */

static void go_on_with(int to)
{
	struct process *from = running;

	if (to == (int)from->number)
		return;
	running = to == NOBODY ? NULL : &seats[to];
	on_behalf = to == NOBODY ? NULL : process_of(running);
	swapcontext(&from->context, to == NOBODY ? &outside : &seats[to].context);
	/* Somebody has come back to us. */
}

static void record(uint32_t number, enum point_kind kind, uint32_t word, bool changed)
{
	const unsigned me = running->number;

	if (map != NULL && word != WORD_NONE)
		map->touched[word] |= (uint8_t)(1u << me);
	if (recording)
		recorded[number] = (struct point){ .word = word,
						   .process = (uint8_t)me,
						   .kind = (uint8_t)kind,
						   .runnable = (uint8_t)runnable_mask(),
						   .after_change = changed };
}

void process_point(enum point_kind kind, const volatile void *word)
{
	struct process *me = running;
	int kept_errno = errno, to;
	uint32_t index;
	bool changed;

	if (me == NULL)
		return;
	index = word_index(word);
	changed = note_change(me->number);
	if (kind == POINT_END)
		me->done = true;
	if (kind == POINT_END && me->leader != NULL)
		thread_ends(me);
	if (kind == POINT_PARK && ++now.parks > PARKS_MAX)
		finding("process %u waits for ever", me->number);
	if (now.points + 1 >= POINTS_MAX)
		finding("process %u never comes to an end", me->number);
	record(now.points, kind, index, changed);
	to = choose(kind, now.points++, me->number);
	/* Hopeless: whoever has not ended is killed, or it would never be over. */
	if (now.parks > PARKS_MAX || now.points >= POINTS_MAX)
		to = DIES;
	if (to == DIES) {
		running = NULL; /* the kernel's calls are no points */
		world_kill(process_of(me));
		running = me;
		now.deaths++;
		to = next_runnable(me->number);
		if (now.parks > PARKS_MAX || now.points >= POINTS_MAX)
			to = NOBODY;
	}
	go_on_with(to);
	note_pending(kind, word, index);
	errno = kept_errno;
}

static void access_point(const volatile void *word)
{
	process_point(POINT_ACCESS, word);
}

static void note_label(const char *label)
{
	if (running != NULL)
		running->label = label;
}

/* The body of a coroutine; never returns. */
static void body(int number)
{
	struct process *me = &seats[number];

	if (me->leader != NULL)
		me->start(me->arg);
	else
		me->op->run(me);
	process_point(POINT_END, NULL);
	abort();
}

void process_make_ready(struct process *p)
{
	/* Its last life may have ended in the middle of anything. */
	ASAN_UNPOISON_MEMORY_REGION(p->stack, STACK_BYTES);
	getcontext(&p->context);
	p->context.uc_stack.ss_sp = p->stack;
	p->context.uc_stack.ss_size = STACK_BYTES;
	p->context.uc_link = NULL;
	makecontext(&p->context, (void (*)(void))(uintptr_t)body, 1, (int)p->number);
}

void process_explore(const struct schedule *wanted, struct chooser *who, unsigned count,
		     struct word_map *of)
{
	plan = wanted;
	chooser = who;
	map = of;
	next_decision = 0;
	taking_part = count;
	pending.word = NULL;
	pending.call = false;
	now.taken.first = wanted->first;
	for (unsigned i = 0; i < count; i++)
		process_make_ready(&seats[i]);
	for (unsigned i = 0; i < PROCESSES_MAX; i++)
		seats[THREAD_OF(i)].done = true;
	running = on_behalf = &seats[wanted->first];
	swapcontext(&outside, &running->context);
	running = on_behalf = NULL;
	check_all_ended();
	/* Only a hopeless one leaves somebody behind. */
	for (unsigned i = 0; i < count; i++)
		if (!seats[i].done && !seats[i].dead)
			world_kill(&seats[i]);
}

void process_set_up(void)
{
	for (unsigned i = 0; i < PARTIES; i++) {
		seats[i].number = i;
		seats[i].leader = i < SEATS ? NULL : &seats[i - SEATS];
		seats[i].done = true;
		seats[i].stack = mmap(NULL, STACK_BYTES, PROT_READ | PROT_WRITE,
				      MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
		if (seats[i].stack == MAP_FAILED)
			abort();
	}
	recorded = calloc(POINTS_MAX, sizeof(*recorded));
	if (recorded == NULL)
		abort();
	access_set_hook(access_point);
	step_set_hook(note_label);
}

void process_forget(void)
{
	for (unsigned i = 0; i < PARTIES; i++)
		munmap(seats[i].stack, STACK_BYTES);
	free(recorded);
}
