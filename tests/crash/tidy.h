/* SPDX-License-Identifier: MIT */
/*
 * tidy - operations for a victim to die in, and the survivor who looks after.
 *
 * One round: the survivor prepares, a victim is forked and comes to the point
 * before its operation, the survivor meets it there (attaches to what it
 * writes), the victim goes on and dies. Then the survivor must find: no wrong
 * byte, the key free to be produced, nothing leaked after one sweep, nothing
 * left to do for the next, no violated invariant; and it must not hang. How the
 * victim dies is up to the program. A finding ends it with status 1.
 */
#ifndef CRASH_TIDY_H
#define CRASH_TIDY_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "streamcache.h"

#define STORED_BYTES 70000u /* more than a ring */
#define TIMEOUT_NS 10000000000

#define OP_FRESH 1u /* there is no cache before it */
#define OP_ALONE 2u /* without the victim nobody reads what the survivor writes */
#define OP_LONG 4u  /* copies too much to be stepped through */
#define OP_HEIR 8u  /* its entry is resumable: the survivor goes on with it */
#define OP_LZ4 16u  /* what is produced is compressed */
#define OP_ENDS 32u /* once the end is stored nobody can go on, and it is made anew */

#define NO_END 1 /* the operation does not end the entry */

struct operation {
	const char *name;
	unsigned flags;
	int end;               /* what readers of the victim's entry get if it does not die first */
	uint64_t least, most;  /* bytes of that entry before the operation and after it */
	void (*prepare)(void); /* by the survivor, before there is a victim; or NULL */
	void (*before)(const struct operation *op); /* by the victim; or NULL */
	void (*meet)(void); /* by the survivor, the victim stopped; or NULL */
	void (*run)(void);  /* by the victim, which dies in it */
};

extern const struct operation operations[];
extern const unsigned operation_count;

extern char tidy_where[160]; /* for messages: what is going on */

/*
 * One in so many rounds the survivor has to find out by itself that somebody
 * is dead, which takes a tick; in the others it sweeps first. 0: in none.
 */
extern unsigned tidy_patient_each;

/* The survivor's streams, and what they are to find. */
struct scene {
	struct scache *cache;
	struct scache_writer *writer; /* of own_version, or NULL */
	struct scache_reader *reader; /* or NULL */
	uint64_t reader_version, reader_position;
	/* Each production is a version of its own, named in front: old bytes show. */
	uint64_t victim_version, own_version;
};
extern struct scene scene;
extern const char tidy_key[4];

#define must(condition)                                                         \
	do {                                                                    \
		if (!(condition))                                               \
			tidy_fail("%s:%d: %s", __FILE__, __LINE__, #condition); \
	} while (0)

#define must_be(value, wanted)                                                                    \
	do {                                                                                      \
		long long is_ = (long long)(value), w_ = (long long)(wanted);                     \
		if (is_ != w_)                                                                    \
			tidy_fail("%s:%d: %s is %lld, not %lld", __FILE__, __LINE__, #value, is_, \
				  w_);                                                            \
	} while (0)

void tidy_fail(const char *format, ...) __attribute__((noreturn, format(printf, 1, 2)));
int64_t tidy_now_ns(void);
uint64_t tidy_random(uint64_t *state);

/* tidy_begin - a directory for all of it; tidy_end - which must be empty then. */
void tidy_begin(void);
void tidy_end(void);

/* tidy_lose_segment - of the survivor's cache, which nobody else has open; it opens another. */
void tidy_lose_segment(void);

/* tidy_open - the survivor's cache for rounds of @op; tidy_close - destroy it. */
void tidy_open(const struct operation *op);
void tidy_close(void);

/*
 * tidy_victim - prepare, and fork a victim that first calls @born. Returns when
 * it has stopped itself before the operation and was met there. It stops
 * itself once more after it. @armed (or NULL) is called in between.
 */
pid_t tidy_victim(const struct operation *op, void (*born)(void), void (*armed)(void));

/* tidy_bury - SIGKILL; its end, which must have been that. */
void tidy_bury(pid_t victim);

/* tidy_survive - the victim is dead. */
void tidy_survive(const struct operation *op);

/* ------------------------------------------------ what operations are made of */

struct scache *tidy_open_cache(void);
void tidy_fill(uint64_t version, uint64_t offset, unsigned char *ret_data, size_t bytes);
void tidy_write(struct scache_writer *writer, uint64_t version, uint64_t from, uint64_t until);

/*
 * tidy_read - read from *@position to @until or to the end; each byte must be
 * right. *@version 0: any that can be, and is told. 1, or what ended it.
 */
int tidy_read(struct scache_reader *reader, uint64_t *version, uint64_t *position, uint64_t until);

void tidy_produce(const char *key, size_t key_bytes, uint64_t version, uint64_t bytes);
/* tidy_attach - scene.reader, to an entry that must be there. */
void tidy_attach(uint64_t version);
/* tidy_await_stop - until @child has stopped itself. */
void tidy_await_stop(pid_t child);

#endif
