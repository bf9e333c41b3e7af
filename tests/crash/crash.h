/* SPDX-License-Identifier: MIT */
/*
 * crash - processes killed at the named steps of the library, under the eyes
 * of others.
 *
 * A play: a victim does one operation and is killed at one label (or at none,
 * which tells what labels it passes). Survivors use the same cache all the
 * while: one reads the same key as it grows, one waits for it, one works with
 * other keys. When the victim is gone they must all get the blob; then an
 * inspector counts what is left.
 *
 * A play has a directory and a scene, which is memory that all of its processes
 * share. Nothing of the cache outlives its play.
 */
#ifndef CRASH_CRASH_H
#define CRASH_CRASH_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "../util/spawn.h"
#include "streamcache.h"

#define LABELS_MAX 200
#define OPS_MAX 64
#define SURVIVORS 3
#define NOWHERE (-1)
#define BLOB_BYTES 150000u /* more than two rings */
#define RINGS 3
#define RING_BYTES (64u << 10)
#define RING_BYTES_LZ4 (1u << 20)
#define KEY "key"
#define KEY_SEED 1u
#define PATIENCE_NS 10000000000ll /* a tick is 40 ms: who waits this long is blocked */

/* ------------------------------------------------------------------- scene.c */

extern char labels[LABELS_MAX][32]; /* all that lib/ has, sorted */
extern int label_count;

/* labels_load - out of $TOP_SRCDIR/lib. Returns false, having said why. */
bool labels_load(void);
/* label_index - of a label that there is, or NOWHERE for NULL. */
int label_index(const char *label);

struct scene {
	_Atomic uint32_t passed[LABELS_MAX];   /* by any process */
	_Atomic uint32_t by_victim[LABELS_MAX]; /* while it is armed */
	_Atomic int survivors; /* how many there are */
	_Atomic int entering, entered; /* of these: about to open, and in */
	_Atomic int attached;	       /* how many have ever read the key */
	_Atomic int go;	       /* survivors may open; 2: and be quiet */
	_Atomic int begun;     /* the victim has come to where its mate waits for it */
	_Atomic int held, released;    /* the victim stands at its hold; may go on */
	_Atomic int mate_ready;
	_Atomic int over; /* the victim is gone */
};

extern struct scene *scene;
extern char crash_base[256]; /* of everything */
extern char crash_dir[300];  /* the cache of this play */
extern char crash_segments[310]; /* where its segment stands */
extern struct scache_options crash_options;

/* crash_begin - the base directory; root becomes somebody whom permissions bind. */
bool crash_begin(void);
void crash_end(void);

/* scene_begin - an empty scene and a directory that is not there yet. */
void scene_begin(void);
void scene_end(void);

/* What a process does at a label: stop there the first time, or be killed. */
struct trap {
	int fatal; /* label */
	unsigned nth;
	int hold; /* label */
	_Atomic int *sign;  /* set to 1 there */
	_Atomic int *until; /* and wait for this to be @need at least */
	int need;
};

/* cast - start a process of the play; @trap may be NULL. Not armed yet. */
void cast(struct child *ret_child, void (*body)(void), const struct trap *trap);
/* arm, disarm - only in between is the victim killed, and its steps counted as its own. */
void arm(void);
void disarm(void);
/* hold_at - for a mate: stand there until the end of the play. */
void hold_at(const char *label);
/* die_at - run @body in a child that is killed at @label. */
void die_at(const char *label, void (*body)(void));

/* --------------------------------------------------------------------- ops.c */

#define OP_OPENS 1u   /* survivors open when the victim stands at the gate */
#define OP_QUIET 2u   /* the survivor with other keys only reads */
#define OP_THREADS 4u /* kills and steps of two threads: nobody can count exactly */
#define OP_SHARED 8u  /* mode 0770, umask 077 */
#define OP_LZ4 16u    /* all that is produced is compressed; larger rings */
#define OP_SELDOM 32u /* and nearly nothing is wanted often enough to be retained */

struct op {
	const char *name;
	void (*run)(void);     /* the victim */
	void (*prepare)(void); /* before anybody else is there */
	void (*mate)(void);    /* beside them all; is ready before the victim begins */
	const char *hold;      /* the victim stands here until the rival lets it go */
	void (*rival)(void);
	const char *only; /* the only label to die at */
	unsigned flags;
};

extern const struct op ops[];
extern const int op_count;

/* ----------------------------------------------------------------- survive.c */

struct scache *open_cache(void);
/* put_all - as much of the blob as nobody can refuse, and finish. */
void put_all(struct scache_writer *writer, uint64_t seed);
/* put_some - bytes [@from, @until) of pattern @seed. */
void put_some(struct scache_writer *writer, uint64_t seed, uint64_t from, uint64_t until);
/* follow - read to the end, which is returned: 0 or -errno; no byte may be wrong. */
int follow(struct scache_reader *reader, uint64_t seed, size_t piece);
/* get_blob - find it or produce it, as any caller would. */
void get_blob(struct scache *cache, const char *key, uint64_t seed);

void survive_live(void);
void survive_joined(void);
void survive_elsewhere(void);
/* inspect - all is accounted for; @exact: by counting the steps of all processes. */
void inspect(const struct op *op, bool exact);

/* -------------------------------------------------------------------- play.c */

enum played { PLAYED_KILLED, PLAYED_THROUGH };

/*
 * play - one operation, killed at the @nth passage of label @fatal. At NOWHERE:
 * tally->passes says afterwards what it passes.
 */
enum played play(const struct op *op, int fatal, unsigned nth, bool with_survivors);

/*
 * play_pair - killed at @first, then its repairer at the @nth passage of @second;
 * a third process finishes. No survivors. @ret_passes: of the repairer, or NULL.
 */
enum played play_pair(const struct op *op, int first, int second, unsigned nth,
		      uint32_t *ret_passes);

/* What all workers have found; shared memory. */
struct tally {
	_Atomic int next;
	_Atomic uint32_t passes[OPS_MAX][LABELS_MAX]; /* by the victim of each operation */
	_Atomic uint32_t kills[LABELS_MAX];
	_Atomic uint32_t missed; /* a label was not passed this time */
};

extern struct tally *tally;
void tally_make(void);

/* work - @act(0) .. @act(count - 1), by several processes. False if one has failed. */
bool work(int count, void (*act)(int i));

/* The command line. */
struct command {
	bool all;
	const char *op; /* this alone */
};

/* read_command - ends the program if it is wrong. */
void read_command(int argc, char **argv, struct command *ret_command);
/* is_wanted - is anybody to die at @label of operation @op? */
bool is_wanted(const struct command *command, int op, int label);
/* print_kills - how many per label. Returns them all. */
unsigned print_kills(bool each);

#endif
