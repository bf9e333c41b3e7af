/* SPDX-License-Identifier: MIT */
/*
 * explore.h - what the parts of the explorer share: explore.c says what is run,
 * search.c and random.c choose schedules, process.c runs one of them, wrap.c is
 * the kernel as virtual processes see it, thread.c their threads, operations.c what
 * they do, limited.c what they do for room, world.c the cache around them, oracle.c what
 * must be true, names.c puts it in words.
 *
 * Virtual processes are coroutines of one thread, each with an open cache of
 * its own. One runs until a point, which is before an access to shared memory
 * (ACCESS() in base/step.h) or before a system call that others could notice;
 * points are numbered, and a schedule says at which of them who goes on. A thread
 * that the library makes is one more of them, with no cache and no death of its own.
 */
#ifndef EXPLORE_EXPLORE_H
#define EXPLORE_EXPLORE_H

#include <ucontext.h>

#include "api/cache.h"
#include "index/index.h"
#include "stream/stream.h"

#define PROCESSES_MAX 3u
#define WARDEN PROCESSES_MAX       /* looks after the cache, is never explored */
#define VICTIM (PROCESSES_MAX + 1) /* dies before the exploration begins */
#define SEATS (PROCESSES_MAX + 2)
#define THREAD_OF(number) (SEATS + (number)) /* behind all processes */
#define PARTIES (SEATS + PROCESSES_MAX)      /* a bit each */
#define BLOB_MAX (1408u << 10)
#define DECISIONS_MAX 128u
#define POINTS_MAX 100000u /* more than any schedule without a livelock has */
#define PARKS_MAX 1000u
#define HOLDS_MAX 256u
#define MAPPINGS_MAX 16u
#define DIES (-1)
#define NOBODY (-2)

/* At this point that process goes on; DIES: the one that stands there is killed. */
struct decision {
	uint32_t point;
	int32_t to;
};

struct schedule {
	uint32_t first, count;
	struct decision decisions[DECISIONS_MAX];
};

struct process;

enum base {
	BASE_ABSENT,
	BASE_SEALED,
	BASE_DEAD, /* its producer was killed, half of it is published */
	BASE_FILLING,
	BASE_RINGLESS, /* absent, and no ring is free */
	BASE_RINGLESS_FILLING,
	BASE_ORPHAN,          /* resumable, its producer was killed and is reaped */
	BASE_RINGLESS_ORPHAN, /* in the file alone */
	BASE_LARGE_ORPHAN,    /* more than the ring holds */
	BASE_FADING_ORPHAN,   /* a tick, and nobody may go on with it */
	BASE_FORMER,          /* finished, in a segment that is lost */
	BASE_PACKED,          /* filling, and what is stored is compressed */
	BASE_PACKED_ORPHAN,   /* of that one block and a part of the next is published */
	BASE_SELDOM,          /* finished, and not to outlive its readers */
	BASE_SELDOM_FILLING,
	BASES
};

static inline bool base_is_absent(enum base base)
{
	return base == BASE_ABSENT || base == BASE_RINGLESS;
}

static inline bool base_is_filling(enum base base)
{
	return base == BASE_FILLING || base == BASE_RINGLESS_FILLING || base == BASE_PACKED ||
	       base == BASE_SELDOM_FILLING;
}

/* All that is produced in it is wanted too seldom to be retained. */
static inline bool base_is_seldom(enum base base)
{
	return base == BASE_SELDOM || base == BASE_SELDOM_FILLING;
}

/* Of a world with rings that are large enough to compress what is in them. */
static inline bool base_is_packed(enum base base)
{
	return base == BASE_PACKED || base == BASE_PACKED_ORPHAN;
}

static inline bool base_is_ringless(enum base base)
{
	return base == BASE_RINGLESS || base == BASE_RINGLESS_FILLING ||
	       base == BASE_RINGLESS_ORPHAN;
}

static inline bool base_is_orphan(enum base base)
{
	return (base >= BASE_ORPHAN && base <= BASE_FADING_ORPHAN) || base == BASE_PACKED_ORPHAN;
}

/* flags of an operation */
#define NEEDS_WRITER 1u    /* begins as the elected producer */
#define NEEDS_READER 2u    /* begins with a reader attached */
#define TAKES_AWAY 4u      /* what can be found may be gone because of it */
#define WITH_OWN_READER 8u /* a writer that also reads */
#define TAKES_OVER 16u     /* goes on with what a dead producer has begun */
#define PEEKS 32u          /* a reader that looks instead of having it copied */
#define PASSES 64u         /* a writer whose first write, after a ring's worth, passes the ring */
#define PASSES_LATER 128u  /* its second, and then a small one */
#define PACKED 256u        /* a writer of what is compressed */
#define LOSES_FILE 512u    /* a ringless writer: its file takes but one write, and then rings are free */
#define LIMITED 1024u      /* goes with its like alone */

struct operation {
	const char *name;
	void (*run)(struct process *me);
	uint32_t flags, acquire_flags;
	uint64_t window_bytes;
	uint32_t bytes; /* of the blob */
};

struct process {
	unsigned number;
	struct scache *cache;
	const struct operation *op;
	struct scache_reader *reader;
	struct scache_writer *writer;
	ucontext_t context;
	unsigned char *stack;
	struct process *leader; /* of a thread: whose it is */
	void *(*start)(void *arg);
	void *arg;
	const void *awaits; /* a condition, or a thread: who waits for these does not run */
	bool done, dead, asleep;
	const char *label; /* the STEP it came by last */
	uint64_t position; /* read so far, and how the last call ended */
	int result, read_result;
	uint32_t elections, takeovers;
	/* What the kernel would take back: descriptors and memory. */
	int fds[HOLDS_MAX];
	void *memory[HOLDS_MAX];
	struct mapping {
		void *start;
		size_t bytes;
	} mappings[MAPPINGS_MAX];
	unsigned fd_count, memory_count, mapping_count;
	_Alignas(8) unsigned char got[BLOB_MAX], sent[BLOB_MAX];
};

struct scenario {
	char name[80];
	enum base base;
	unsigned count;
	const struct operation *ops[PROCESSES_MAX];
};

/* One point of a recorded run. */
enum point_kind {
	POINT_ACCESS,
	POINT_CALL,
	POINT_PARK,
	POINT_END
};
struct point {
	uint32_t word; /* which, or WORD_NONE */
	uint8_t process, kind;
	uint8_t runnable;     /* a bit each */
	uint8_t after_change; /* since the last point of it something is not as it was */
};
#define WORD_NONE UINT32_MAX

/* Which words matter to more than one process: for the reduction. */
struct word_map {
	uint8_t *touched, *changed; /* a bit a process; by word */
};

struct outcome {
	char finding[1000]; /* "" = all is well */
	uint32_t points, parks, ticks, deaths;
	uint64_t state;        /* a hash of how it ended */
	struct schedule taken; /* that replays it */
};

/* Chooses who goes on; NULL: the schedule does. */
struct chooser {
	int (*choose)(struct chooser *chooser, uint32_t point, enum point_kind kind, unsigned me,
		      unsigned runnable, int usual);
};

/* ----------------------------------------------------------------- process.c */
extern struct process seats[PARTIES];
extern struct process *running;   /* inside an exploration; NULL: points are nothing */
extern struct process *on_behalf; /* who is given what is opened and allocated */
extern struct outcome now;        /* of the schedule that runs */
extern struct point *recorded;
extern bool recording;
extern uint32_t words; /* how many there are */
void process_set_up(void);
void process_forget(void);
/* process_point - here others may go on. @word: about to be accessed, or NULL. */
void process_point(enum point_kind kind, const volatile void *word);
/* process_explore - run the @count first seats, each to its end or death. */
void process_explore(const struct schedule *plan, struct chooser *chooser, unsigned count,
		     struct word_map *map);
bool word_is_shared(const struct word_map *map, const struct point *point);
/* process_make_ready - its coroutine begins when it is its turn. */
void process_make_ready(struct process *p);
void finding(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* -------------------------------------------------------------------- wrap.c */
extern uint64_t virtual_ns; /* what all clocks say */
double real_seconds(void);
/* wrap_reclaim - close and free whatever @process still holds. */
void wrap_reclaim(struct process *process);

/* ------------------------------------------------------------------ thread.c */
/* thread_ends - whoever joins it goes on. */
void thread_ends(const struct process *thread);

/* ----------------------------------------------------------------- limited.c */

void run_reserve(struct process *me);
/* limited_begin - nobody has anything yet. */
void limited_begin(void);

/* -------------------------------------------------------------- operations.c */
extern const struct operation operations[];
extern const unsigned operation_count;
/* operations_begin - make what the scenario begins with. */
void operations_begin(const struct scenario *scenario);
void put_and_get(struct process *me);
/* give_rings - of a ringless scenario, in which entries of no concern have them all. */
void give_rings(void);
/* want - what is produced from now on is retained once it is for the so-manieth time. */
void want(uint64_t occurrences);
#define EXPLORED_KEY "key"
#define EXPLORED_KEY_BYTES 3u

/* ------------------------------------------------------------------- world.c */
extern char world_fan_out[]; /* the directory of the key's blobs, below blobs/ */
/* world_open - with rings of a size for packed blobs, or with small ones. */
void world_open(bool packed);
/* world_suit - open another one if it is not of this kind. */
void world_suit(bool packed);
void world_close(void);
void world_remove_files(void);
void world_kill(struct process *process);
/* world_tidy - all as it was before the schedule, whatever that has left. */
void world_tidy(void);
/* world_make_former - of the one blob that is stored all but its file, under another segment's name, goes. */
void world_make_former(void);
/* world_sweep - reap, remove, sweep; @thorough: close idle files, too. True if all is free. */
bool world_sweep(bool thorough);

/* ------------------------------------------------------------------ oracle.c */
void oracle_judge(const struct scenario *scenario);
uint64_t mix(uint64_t hash, uint64_t value);

/* ------------------------------------------------------------------- names.c */
void name_word_of(uint32_t word, char *ret_text, size_t bytes);
bool scenario_is_possible(const struct scenario *scenario);
void scenario_name(struct scenario *scenario);
/* A scenario is OP+OP[+OP]/BASE, a schedule SCENARIO:FIRST[:POINT>PROCESS|POINTx,...]. */
void schedule_print(const struct scenario *scenario, const struct schedule *schedule,
		    char *ret_text, size_t bytes);
bool schedule_parse(const char *text, struct scenario *ret_scenario, struct schedule *ret_schedule);

/* -------------------------------------------------------- search.c, random.c */
struct totals {
	uint64_t schedules, points, deaths, parks, ticks, findings, states;
	uint32_t last_points;   /* of the last schedule */
	unsigned cut;           /* pairs not run in full */
};
extern struct totals totals;
extern uint64_t random_state;
extern volatile int stopped;
extern unsigned findings_max;
uint64_t random_below(uint64_t n);
/* run_one - one schedule from a tidy world to a tidy world. True: go on. */
bool run_one(const struct scenario *scenario, const struct schedule *plan, struct chooser *chooser,
	     struct word_map *map);
void search_pairs(struct scenario *scenarios, unsigned count, unsigned preemptions, double seconds);
void search_random(double seconds);

#endif
