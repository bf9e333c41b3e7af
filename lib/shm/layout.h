/* SPDX-License-Identifier: MIT */
/*
 * layout - every struct that other processes see, and nothing else.
 *
 * Any change of a size, an offset or a meaning here must raise SHM_LAYOUT:
 * processes with another layout refuse each other. No pointers, no locks, no
 * counters of references: what a dead process held is found by scanning for
 * its name (rule: one word says whose it is).
 *
 *   0        header                              one page
 *   4096     peers[]           576 bytes each    who is attached; pins, counters
 *            states[]          8                 the state word of each entry
 *            expires[]         8                 when each entry expires
 *            charges[]         8                 what each entry may take of the disk
 *            uses[]            8                 when each entry was last asked for
 *            buckets[]         8                 heads of the index chains
 *            seen[]            4                 how often keys were produced of late
 *            former_keys[]     4                 what former segments may have left: a Bloom filter
 *            block_owners[]    8                 whose block of cursors it is
 *            blocks[]          1024              64 cursors each
 *            entries[]         448               keys and progress
 *            ring_owners[]     8                 whose ring it is
 *            rings[]           ring_bytes each   page-aligned, at the end
 *
 * "After a crash" says which odd values are normal when their writer is dead.
 */
#ifndef SHM_LAYOUT_H
#define SHM_LAYOUT_H

#include <stdint.h>

#include "base/compiler.h"
#include "shm/atomic.h"

#define SHM_LAYOUT 5u
#define SHM_MAGIC 0x316d616572747363ull /* "cstream1" backwards on disk */
#define SHM_MAGIC_RETIRED 0x2d616d6572747363ull /* damaged: attached processes move on */
#define SHM_PAGE_BYTES 4096

#define SHM_PEERS_MAX 16384 /* an owner is 14 bits of a state word */
#define SHM_PINS 4	    /* index sections of one peer at a time */
#define SHM_BLOCK_CURSORS 64
#define SHM_KEY_WORDS 32
#define SHM_UUID_BYTES 16
#define SHM_FANS 256 /* directories below DIR/blobs */
#define SHM_SEEN_PER_BUCKET 4

/* Read once into private memory and validated; never used from here again. */
struct shm_geometry {
	uint32_t entries;
	uint32_t buckets; /* a power of two */
	uint32_t peers;
	uint32_t blocks; /* of cursors */
	uint32_t rings;	 /* as many as there was room for */
	uint32_t reserved;
	uint64_t ring_bytes; /* a power of two, multiple of the page */
};

/* What is stored with the cache and can be changed while it is in use. */
enum shm_setting {
	SETTING_WINDOW_BYTES, /* UINT64_MAX: unlimited, also below */
	SETTING_MAX_AGE_NS,
	SETTING_MAX_IDLE_NS,
	SETTING_MAX_FILL_NS,
	SETTING_MAX_BYTES,
	SETTING_MAX_ENTRIES,
	SETTING_MIN_FREE_BYTES,
	SETTING_MIN_FREE_PERCENT,
	SETTING_LOW_PERCENT,
	SETTING_MIN_OCCURRENCES,
	SETTING_DURABILITY, /* from here on what an opener may choose for itself */
	SETTING_VERIFY,
	SETTING_COMPRESSION,
	SETTING_LEVEL,
	SETTING_COUNT,
};

/*
 * Something limited: `ever` was taken up to now, whatever was given back, and without
 * asking how much is in use `until` may be. Both only say when to ask: see store/limits.h.
 */
struct shm_budget {
	shm_u64 ever, until;
} ALIGNED(CACHE_LINE_BYTES);

struct shm_header {
	/* Written by the creator under the gate, magic last; then read-only, but
	   for magic, which is changed once more when the segment is retired. */
	shm_u64 magic;
	uint32_t layout;	/* SHM_LAYOUT */
	uint32_t struct_bytes;	/* SHM_STRUCT_BYTES: catches a forgotten SHM_LAYOUT */
	uint64_t segment_bytes; /* the file's size */
	uint64_t number;	/* of the segment within the cache: its lock bytes */
	unsigned char uuid[SHM_UUID_BYTES];
	struct shm_geometry geometry;
	uint32_t mode;
	uint32_t reserved;
	char boot_id[40];
	char dir[256]; /* whose segment it is; for people, and see shm/derelict.h, which reads
			  all up to here in segments of any layout */

	/* The shared epoch. Raised by whoever reclaims; after a crash as it was. */
	shm_u64 epoch ALIGNED(CACHE_LINE_BYTES);
	shm_u64 epoch_blocked_ns; /* since when a pin holds it back; 0 = none does */

	/* As the lock file has them; copied by whoever changes them, and by each joiner. */
	shm_u64 settings[SETTING_COUNT] ALIGNED(CACHE_LINE_BYTES);

	struct shm_budget bytes, slots;

	/* Hints. Wrong values cost time, never correctness. */
	shm_u64 next_sweep_ns ALIGNED(CACHE_LINE_BYTES); /* nothing to sweep before */
	shm_u64 reap_hand;				 /* where the last reaping stopped */
	shm_u64 sweep_hand;				 /* and the last sweep */
	shm_u64 evict_hand; /* which of those finished before was looked at last: ended_ns */
	shm_u64 room_lease_ns;				 /* until then somebody makes room */
	shm_u64 configuring; /* 1: settings or budgets may be those of a change that was cut short */
	/* How much files of former segments take in each fan-out directory: FORMER_UNKNOWN
	   by the creator; 0 by who has found none. */
	shm_u64 former[SHM_FANS] ALIGNED(CACHE_LINE_BYTES);
	shm_u64 former_listed[SHM_FANS / 64]; /* a bit each: all its files are in former_keys[] */
};

#define FORMER_UNKNOWN UINT64_MAX

/* What each peer counts for itself; sums over all slots are the statistics. */
enum shm_stat {
	STAT_HITS,
	STAT_JOINS,
	STAT_MISSES,
	STAT_PRODUCTIONS,
	STAT_FINISHES,
	STAT_FAILURES,
	STAT_DEATHS,
	STAT_BYPASSES,
	STAT_BYTES_PRODUCED,
	STAT_BYTES_RING,
	STAT_BYTES_FILE,
	STAT_READS_RING,
	STAT_READS_FILE,
	STAT_WAITS,
	STAT_WAKES,
	STAT_EXPIRED,
	STAT_REMOVED,
	STAT_DEGRADED,
	STAT_DAMAGED,
	STAT_ADOPTED,
	STAT_EVICTED,	 /* to keep a limit */
	STAT_NOT_RETAINED, /* wanted too seldom */
	STAT_OVERDUE,	 /* productions ended because they took too long */
	STAT_STALLED,	 /* writers whose readers did not move for long */
	STAT_BLOCKED_NS, /* writers waited for readers */
	STAT_EMERGENCIES, /* rings given to productions that had lost their files */
	STAT_PUNCHED_BYTES,
	STAT_COUNT,
};

struct shm_pin {
	shm_u64 word; /* epoch << 1 | 1, or 0; written by the peer, cleared by its reaper */
} ALIGNED(CACHE_LINE_BYTES);

struct shm_peer {
	shm_u64 state;	/* {gen:32 | enum peer_state:32}; see shm/peer.h */
	shm_u64 pid;	/* as the process sees itself: for people only */
	shm_u64 seen_alive_ns; /* by whoever asked the kernel last */
	/* Which process of that number is meant: for peer_is_stopped(). */
	shm_u64 pid_namespace, started_ticks;
	/* Never reset: a slot's counters outlive its users. */
	shm_u64 stats[STAT_COUNT] ALIGNED(CACHE_LINE_BYTES);
	struct shm_pin pins[SHM_PINS];
} ALIGNED(CACHE_LINE_BYTES);

/* Written by the reader's process only; cleared by its reaper. */
struct shm_cursor {
	shm_u64 name;	  /* {gen:32 | index + 1:32} of the entry; 0 = not in use */
	shm_u64 position; /* bytes consumed */
};

struct shm_block {
	struct shm_cursor cursors[SHM_BLOCK_CURSORS];
} ALIGNED(CACHE_LINE_BYTES);

/* flags of an entry, by its writer; the last one by a sweep after its end */
#define ENTRY_RUN_TO_END 1u  /* goes on without readers */
#define ENTRY_RING_ONLY 2u   /* no file, or not all of it */
#define ENTRY_PACE_SLOWEST 8u /* the window counts from the slowest reader */
#define ENTRY_RESUMABLE 16u   /* if its producer dies another may go on */
#define ENTRY_FILE_MESSAGE 4u /* the message stands in the file behind `written` */
#define ENTRY_KEEP_BYTES 32u  /* a stopped reader may look at its file: unlink, do not truncate */
#define ENTRY_LZ4 64u /* its file is compressed; before anything is flushed */
#define ENTRY_AUTO 128u /* that is decided when there are bytes to judge by */
#define ENTRY_PASS_BYTES_MAX (1u << 20) /* past the ring into the file at once */

struct shm_entry {
	/* Identity: by the creator while CLAIMED, then constant (but for next). */
	shm_u64 next; /* {mark:1 | own_gen:32 | index + 1:31}; see index/index.c */
	shm_u64 hash_high, hash_low;
	shm_u64 created_ns;
	shm_u64 window_bytes;
	shm_u64 max_age_ns;
	shm_u64 ended_ns; /* by the writer before SEALED or FAILED */
	shm_u32 key_bytes;
	shm_u32 ring; /* index + 1; 0 = none; by the writer while floor is UINT64_MAX */

	/* Progress: by the writer. After its crash `written` is what was published. */
	shm_u64 written ALIGNED(CACHE_LINE_BYTES);
	shm_u64 flushed; /* in the file; <= written, but see ENTRY_PASS_BYTES_MAX */
	shm_u64 floor;	 /* the ring is intact from here on; UINT64_MAX = no ring */
	shm_u64 need;	 /* a reader that gets here wakes the waiting writer */
	shm_u32 readers_event; /* {seq:31 | somebody sleeps:1}; the bit by readers */
	shm_u32 flags;
	shm_u32 code; /* int32: why production failed; before FAILED */
	shm_u32 message_bytes;
	shm_u64 declared_bytes; /* by the creator; UINT64_MAX: not known */
	shm_u64 file_bytes; /* of a finished blob with its footer; before SEALED */

	/* By readers. */
	shm_u32 writer_event ALIGNED(CACHE_LINE_BYTES); /* the bit by the writer */
	shm_u32 attention; /* 1: somebody has left, look whether anybody remains */
	shm_u32 had_reader; /* 1 from the first attach on */
	shm_u64 punched; /* by the writer: up to here the file has holes; <= flushed */

	/* The key; behind it, if it fits, the message of a failure. */
	shm_u64 key[SHM_KEY_WORDS] ALIGNED(CACHE_LINE_BYTES);
} ALIGNED(CACHE_LINE_BYTES);

_Static_assert(sizeof(struct shm_header) <= SHM_PAGE_BYTES, "header fits its page");
_Static_assert(sizeof(struct shm_peer) == 576, "a peer is nine cache lines");
_Static_assert(sizeof(struct shm_block) == 1024, "a block is a kilobyte");
_Static_assert(sizeof(struct shm_entry) == 448, "an entry is seven cache lines");
_Static_assert(sizeof(shm_u64) == 8 && sizeof(shm_u32) == 4, "atomics have no lock inside");
_Static_assert(ATOMIC_LLONG_LOCK_FREE == 2 && ATOMIC_INT_LOCK_FREE == 2, "and need none");

#define SHM_STRUCT_BYTES                                                                   \
	((uint32_t)(sizeof(struct shm_header) * 1 + sizeof(struct shm_peer) * 3 +          \
		    sizeof(struct shm_block) * 5 + sizeof(struct shm_entry) * 7 + STAT_COUNT))

#endif
