/* SPDX-License-Identifier: MIT */
/*
 * streamcache - share large blobs between processes while they are produced.
 *
 * Ask for a key: exactly one caller among all threads of all processes becomes
 * its writer, everybody (the writer's caller included) gets a reader that
 * starts at byte 0 and sees the bytes as they appear. No daemon: any process
 * may come, go or be killed, and the others carry on.
 *
 * Conventions of every call:
 *  - Returns 0 or a count on success, -errno on failure; errno is not touched.
 *    scache_strerror() names the code, scache_detail() says what to do.
 *  - Outputs come last, are named ret_x, and are left alone on failure.
 *  - Times are nanoseconds. A timeout_ns of 0 never waits (-EAGAIN),
 *    SCACHE_FOREVER waits without limit, otherwise -ETIMEDOUT when it is over.
 *  - A struct scache is shared by all threads; a reader or a writer belongs
 *    to one thread at a time.
 *  - After fork() a struct scache serves the child as it serves its parent, from
 *    the child's first call on as a process of its own. Streams stay with the
 *    parent: in the child they answer -ECHILD, and closing them is safe there.
 *  - pthread_cancel() acts where a read, a write or scache_wait() begins to
 *    wait, and nowhere else: not in scache_close().
 *  - Structs begin with their size, which the caller sets, also of outputs:
 *    -EINVAL if it is 0. Outputs may be NULL only where that is said.
 *  - No descriptor of the library is 0, 1 or 2.
 *  - Nothing here prints, exits, sets errno, changes a signal handler, or
 *    lets SIGPIPE or SIGXFSZ reach the caller.
 */
#ifndef STREAMCACHE_H
#define STREAMCACHE_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#ifdef __cplusplus
extern "C" {
#endif

#define SCACHE_API __attribute__((visibility("default")))

#define SCACHE_KEY_BYTES_MAX 255       /* keys: 1 .. 255 bytes of any value */
#define SCACHE_MESSAGE_BYTES_MAX 65536 /* a failed producer's last words */
#define SCACHE_NOTE_BYTES_MAX 4096     /* what a producer may say of a blob */
#define SCACHE_FOREVER (-1)            /* timeout_ns: no limit */
#define SCACHE_BYPASS 1                /* scache_acquire(): produce for yourself */
#define SCACHE_NOT_KEPT 1              /* scache_finish(): delivered, but not stored */

/* In options 0 means "the default"; these say the two values beside it. */
#define SCACHE_ZERO (UINT64_MAX - 1)  /* really 0: lock step; expires at once */
#define SCACHE_UNLIMITED (UINT64_MAX) /* no window; never expires by age */

/*
 * Flag of struct scache_options and of struct scache_acquire_options: what is
 * produced is not stored. Concurrent callers share it out of shared memory as
 * long as its first byte is still there (that is, within the first ring_bytes),
 * paced by the slowest of them; then it is gone. A finished entry that somebody
 * else stored is a hit all the same.
 */
#define SCACHE_PASS_THROUGH 4u

struct scache;        /* an open cache: a directory and its shared segment */
struct scache_reader; /* one stream of bytes out of an entry, from byte 0 */
struct scache_writer; /* the right and the duty to produce an entry */

/* ------------------------------------------------------------------ cache */

/* flags of struct scache_options */
#define SCACHE_OPEN_EXISTING 1u /* never create: -ENOENT if there is no cache */
/* SCACHE_PASS_THROUGH: nothing that is produced through this handle is stored */

/* What the last look-up came to. */
enum scache_outcome {
	SCACHE_HIT = 1,  /* a finished entry */
	SCACHE_JOINED,   /* an entry that somebody is producing */
	SCACHE_CREATED,  /* nothing: this caller produces */
	SCACHE_MISSED,   /* nothing, and scache_lookup() does not create */
	SCACHE_BYPASSED  /* the cache could not help: this caller produces for itself */
};

/*
 * When a finished entry counts as stored. Whatever the choice, the end of processes
 * loses nothing, and after a power cut no damaged blob is served: what is found is
 * compared with its checksums. Removals are not synced: what was removed shortly before
 * a power cut, or replaced by what did not survive it, may be there again.
 *
 * Between users (mode 0770) a resumable production that goes on in the file of another user, who
 * was killed, cannot outlive the segment, for that file cannot be made read-only: with FULL it
 * is not kept (SCACHE_NOT_KEPT), else it is found until the next boot.
 */
enum scache_durability {
	SCACHE_DURABILITY_NONE = 1, /* when the kernel has it: a power cut may take it. Default */
	SCACHE_DURABILITY_DATA = 2, /* fsync(2) of the file; its name may be lost */
	SCACHE_DURABILITY_FULL = 3  /* and of its directories: it survives a power cut */
};

/*
 * When the bytes of a stored blob are compared with its checksums before they are
 * shown: block by block, as they are wanted. A block that is another is -EBADMSG.
 */
enum scache_verify {
	SCACHE_VERIFY_RESTART = 1, /* if it is older than the segment, until all of it has
				      been. Default */
	SCACHE_VERIFY_NEVER = 2,
	SCACHE_VERIFY_ALWAYS = 3   /* once by each process */
};

/*
 * How a blob is stored. An LZ4 one is a standard frame: lz4(1) unpacks its very file. It is
 * compressed beside its producer by a thread of the library, which leaves blocks as they
 * are when it cannot keep up and somebody reads at the head: who hardly notices it as long as
 * a processor is free for that thread. Levels are
 * those of lz4(1): 1 and 2 are fast, from 3 on (HC) it takes long and unpacks
 * as fast. Without a ring, or with rings below 1 MiB, it is stored as it is.
 */
enum scache_compression {
	SCACHE_RAW = 1,  /* as it is: the default */
	SCACHE_LZ4 = 2,
	SCACHE_AUTO = 3  /* LZ4 if the first 512 KiB become a tenth shorter by it */
};

struct scache_trace {
	size_t size;       /* sizeof(struct scache_trace) of the library */
	const void *key;   /* valid during the call */
	size_t key_bytes;
	int32_t outcome;   /* enum scache_outcome */
	int32_t error;     /* what the call returns if that is negative, else 0 */
	uint64_t took_ns;
};

/*
 * Start with `struct scache_options o = { .size = sizeof(o) };`: a 0 is the
 * default. From entries to min_occurrences the values are stored with the cache by
 * whoever creates it; a joiner with other wishes gets the stored ones. Of these
 * scache_configure() changes window_bytes and all from max_age_ns on, for good. Those
 * from durability to level are an opener's own if it says them, else the cache's. The
 * others concern this opener only: each member of a group that shares a cache says
 * mode 0770.
 */
struct scache_options {
	size_t size;           /* sizeof(struct scache_options) */
	uint32_t flags;        /* SCACHE_OPEN_... */
	uint32_t mode;         /* 0 = 0700; 0770 shares with the directory's group */
	uint32_t entries;      /* slots for blobs, 16 .. 4194304; default 16384 */
	uint32_t peers;        /* attached processes, 2 .. 16384; default 2048 */
	uint32_t readers;      /* open readers, 64 .. 4194304; default 262144; a
				  process takes 64 at a time: plan 64 * peers */
	uint32_t rings;        /* live windows, 1 .. 4096; default 16 */
	uint64_t ring_bytes;   /* power of two, 64 KiB .. 1 GiB; default 2 MiB */
	uint64_t window_bytes; /* writer ahead of its fastest reader;
				  default 3/4 ring_bytes; SCACHE_ZERO = lock step */
	uint64_t max_age_ns;   /* counted from completion; default 1 h */
	const char *segment_dir; /* where the segment is created; NULL = DIR/ctl if
				    that is a tmpfs, else /dev/shm */
	/* Told of every look-up through this handle, in the thread that made it,
	   at its end; by a reader, too, that looks for another producer. Must
	   return, and may not close the cache. */
	void (*trace)(void *arg, const struct scache_trace *trace);
	void *trace_arg;
	uint32_t durability;   /* enum scache_durability, of what this opener finishes */
	uint32_t verify;       /* enum scache_verify, for what this opener reads */
	uint32_t compression;  /* enum scache_compression, of what this opener produces */
	uint32_t level;        /* 1 .. 12, see enum scache_compression; default 1 */
	/*
	 * The limits of the cache. Before one is exceeded entries go that nobody reads and
	 * that were not asked for lately (by SIEVE, see store/evict.h); if that is not enough
	 * a production goes on without being stored. Whoever needs the room makes it: no
	 * process has to sweep for a limit to be kept.
	 */
	uint64_t max_bytes;    /* what its files have on the disk, or are about to have; default
				  a tenth of the file system; 64 KiB or more, or SCACHE_UNLIMITED */
	uint64_t max_entries;  /* default SCACHE_UNLIMITED: as many as there are slots */
	uint64_t max_idle_ns;  /* a finished entry goes if nobody asked for it for so long; to
				  an eighth of a second; default SCACHE_UNLIMITED */
	uint64_t max_fill_ns;  /* a production that takes longer fails, when its producer next
				  writes or waits: -ECANCELED, with a message. Until then
				  newcomers have one of their own; default SCACHE_UNLIMITED */
	uint64_t min_free_bytes;   /* of the file system, for others; default SCACHE_ZERO */
	uint64_t min_free_percent; /* the same in percent of it, 1 .. 99; default 5; the greater
				      of the two counts; SCACHE_ZERO */
	uint64_t low_percent;  /* a limit that is reached is undercut: down to this part of it,
				  1 .. 100; default 95 */
	uint64_t min_occurrences; /* a key is stored when it is produced for the so-manieth time
				  within max_age_ns (a day, if that is zero or unlimited), 1 ..
				  255; default 1. Before, all who come while somebody produces
				  or reads it share that, as one occurrence. After one to two
				  such times without a production a key is forgotten; two
				  keys may be taken for one, and then stored too early */
};

/*
 * scache_open - create or join the cache in directory @dir.
 * @options: NULL for the defaults. @dir is created (0700) if only its last
 * component is missing.
 * Returns 0 or:
 *  -EINVAL     impossible options
 *  -ENOENT     no such cache and SCACHE_OPEN_EXISTING, or no parent directory
 *  -ENOTDIR    @dir is not a directory
 *  -EPERM      @dir belongs to another uid, or others could write to it
 *  -EACCES     no permission
 *  -ELOOP      a symbolic link stands where one of our files should be
 *  -ENOLCK     the file system has no OFD locks
 *  -EPROTO     attached processes use another version of the shared layout
 *  -ENXIO      attached processes use a segment that is not reachable from
 *              here (containers with a private /dev/shm: set segment_dir)
 *  -EUSERS     all peer slots are in use
 *  -EUCLEAN    the lock file is damaged, and processes are attached; if none
 *              are, it is simply made anew, as is a damaged segment always
 *  -ENOSPC     no room for the segment
 *  -ETIMEDOUT  somebody holds the gate for more than five seconds
 *  -EMFILE, -ENFILE, -ENOMEM
 * Blocks: while another process creates or joins. Threads: any.
 * If you die inside: the next opener starts over; nothing is left behind that
 * it does not reuse or remove.
 */
SCACHE_API int scache_open(const char *dir, const struct scache_options *options,
			   struct scache **ret_cache);

/*
 * scache_close - leave the cache. NULL is a no-op.
 * Waits for the create callbacks that scache_fetch() has running; when it
 * returns none of the library's threads is left.
 * Returns 0; or, with nothing closed: -EBUSY while streams of the caller's are
 * open, -EDEADLK from inside a create callback of this cache.
 * The cache itself lives on for others and for later.
 * Blocks: for callbacks. Threads: one, when no other uses @cache any more.
 * If you die inside: as anywhere else; others reap what is left.
 */
SCACHE_API int scache_close(struct scache *cache);

/*
 * scache_close_within - the same, waiting no longer than @timeout_ns:
 * -ETIMEDOUT (-EAGAIN if it is 0) with callbacks still running, nothing closed.
 */
SCACHE_API int scache_close_within(struct scache *cache, int64_t timeout_ns);

/*
 * scache_get_options - the options in force: no number is 0 but flags, durability and verify (a
 * stored 0 is shown as SCACHE_ZERO). ret_options->size must be set by the caller;
 * segment_dir lives as long as @cache.
 */
SCACHE_API int scache_get_options(struct scache *cache, struct scache_options *ret_options);

/*
 * scache_configure - change what is stored with the cache, while it is in use and for good:
 * what is not 0 in @changes among window_bytes, max_age_ns, durability, verify, compression,
 * level and max_bytes to min_occurrences. In force at once, in all processes; max_age_ns
 * also for entries that had the old one, window_bytes only for what is produced from then on.
 * Entries that are too many go now.
 * Returns 0; -EINVAL: impossible, or not to be changed; -EACCES, -ENOSPC, -EIO: the lock
 * file cannot be written, and nothing has changed; -ETIMEDOUT as scache_open(); -ESTALE: the
 * cache has been destroyed. scache_detail() says more.
 * Blocks: while another process creates or joins; for the disk. Threads: any.
 * If you die inside: changed or not; if it is, all have it when the next process has joined.
 */
SCACHE_API int scache_configure(struct scache *cache, const struct scache_options *changes);

/* ------------------------------------------------------- find or create */

/* flags of struct scache_acquire_options */
#define SCACHE_RUN_TO_END 1u /* writer: go on although no reader is left */
#define SCACHE_REFRESH 2u    /* a finished entry does not count; a growing one does.
				SCACHE_BYPASS if what a former segment may have left
				could not be looked into or removed */
#define SCACHE_PACE_SLOWEST 8u /* writer: the window counts from the slowest reader,
				  not from the fastest: with a window within the
				  ring, who is there from the start stays in it */

/*
 * What is to happen if the producer is killed in mid-stream, beside every byte
 * it published and then -EOWNERDEAD (which is still what readers get after three
 * deaths, and if there is no other caller with the same flag for half a second):
 *
 * SCACHE_RESUMABLE: this caller can produce from any offset on. One that waits
 * in a stream of scache_fetch(), or comes by scache_fetch() or scache_acquire(), is
 * elected and goes on behind what was published: see scache_written(). Readers
 * notice a pause and nothing else. The first producer's flag counts for the
 * entry, a later caller's for itself.
 */
#define SCACHE_RESUMABLE 16u
/*
 * SCACHE_DETERMINISTIC: each production of the key yields the same bytes. A
 * stream of scache_fetch() that has begun is then served by another production
 * as well, from its own position on, if the checksum (XXH3) of that one's first
 * bytes is the one of what it has had; else it gets -EOWNERDEAD. Three times at
 * most, and not after a scache_pread() or scache_seek(). Concerns this caller's stream
 * only.
 */
#define SCACHE_DETERMINISTIC 32u

#define SCACHE_DIGEST_XXH128 1u

/*
 * What a writer does whose window (or, without a file, whose ring) was full for
 * writer_stall_ns while none moved of the readers that it waits for: with the fastest
 * reader as the pace any of them, otherwise the slowest. Who is yet to come, and that
 * reader is waited for, has not moved either.
 */
enum scache_stall_policy {
	SCACHE_STALL_WAIT = 0,  /* goes on waiting: it is counted and nothing else. Default */
	SCACHE_STALL_ABORT = 1, /* production fails: its readers get what was written, then
				   -ECANCELED, with a message */
	/* Goes on without the window, as far as the limits allow it to be stored, until one of
	   them moves. From the ring alone it gives up the slowest, one after the other: when
	   these go on they get -ESTALE, for good, and one of scache_fetch() that has not begun
	   another production; the others notice nothing. */
	SCACHE_STALL_RUN = 2
};

struct scache_acquire_options {
	size_t size;           /* sizeof(struct scache_acquire_options) */
	uint32_t flags;        /* SCACHE_RUN_TO_END, _REFRESH, _PASS_THROUGH, _PACE_SLOWEST,
				  _RESUMABLE, _DETERMINISTIC */
	uint32_t reserved;     /* 0 */
	uint64_t max_age_ns;   /* an entry completed longer ago is a miss, and what
				  is produced now expires after this; 0 = as stored */
	uint64_t window_bytes; /* if this caller becomes the writer; 0 = as stored */
	uint64_t stall_timeout_ns; /* how long this caller's reader bears a producer
				  that lives and is silent (stopped, say); 0 = for
				  ever. Then a stream of scache_fetch() that has not
				  begun has its own callback run, for itself alone;
				  any other gets -ETIME, and may go on waiting */
	uint32_t compression;  /* if this caller becomes the writer; 0 = as its opener said */
	uint32_t level;        /* the same; see struct scache_options */
	uint64_t declared_bytes; /* the size of the blob, if this caller becomes the writer
				  and knows it: SCACHE_ZERO, or up to INT64_MAX; 0 (and
				  SCACHE_UNLIMITED) = not known. It is shown to all, room
				  for 1 MiB or more is reserved on the disk unless it may
				  be compressed (if there is none it is not stored, as
				  when a write fails), and with another size production
				  fails: -ERANGE. Who goes on with a resumable one is held
				  to the first producer's */
	/* If this caller becomes the writer, what the blob must be: with other bytes its
	   scache_finish() fails the entry (-EBADMSG, also for its readers) and it is never
	   found as finished. Not with SCACHE_RESUMABLE. */
	uint32_t digest_type;  /* 0 none, SCACHE_DIGEST_XXH128 */
	unsigned char digest[16]; /* as xxhsum -H2 prints it, in binary */
	/* From here on: if this caller becomes the writer, also of a dead producer's entry. */
	uint64_t writer_stall_ns; /* how long it bears that no reader that it waits for moves;
				     0, SCACHE_UNLIMITED = for ever. Then: */
	uint32_t stall_policy;    /* enum scache_stall_policy */
	/* When all readers have left it goes on, beside SCACHE_RUN_TO_END, */
	uint32_t finish_percent;  /* if so much of the declared size is written, 1 .. 100; 0: no */
	uint64_t finish_bytes;    /* if at most so much of it is left to be written; 0: no */
	uint64_t linger_ns;       /* for so long, within its window: who comes meanwhile goes on
				     with it as if nothing had been. Otherwise -EPIPE */
};

/*
 * scache_acquire - find the entry of @key or create it.
 * @key: @key_bytes bytes of any value; two keys are equal if all bytes are.
 * @options: NULL for the defaults.
 * @ret_reader: a reader at byte 0; may be NULL for a caller that only wants
 *  to produce (if the entry exists it then gets neither).
 * @ret_writer: the writer if this caller was elected, else NULL.
 * Returns 0; SCACHE_BYPASS (both outputs NULL) if the cache cannot help and
 * the caller should produce for itself; -EINVAL for an impossible key or
 * option.
 * Blocks: no (creates or opens at most one file). Threads: any.
 * If you die inside: what was half made is undone by whoever meets it.
 */
SCACHE_API int scache_acquire(struct scache *cache, const void *key, size_t key_bytes,
			      const struct scache_acquire_options *options,
			      struct scache_reader **ret_reader,
			      struct scache_writer **ret_writer);

/*
 * scache_lookup - as scache_acquire(), but never creates.
 * Returns 0 with a reader (of a finished or a growing entry), or -ENOENT.
 */
SCACHE_API int scache_lookup(struct scache *cache, const void *key, size_t key_bytes,
			     const struct scache_acquire_options *options,
			     struct scache_reader **ret_reader);

/*
 * scache_remove - make the entry of @key unfindable now. Attached readers, and
 * the writer as long as there are any, go on undisturbed; the space returns when
 * the last of them has left.
 * Returns 0; -ENOENT; or -errno: what a former segment may have left of it could not be
 * looked into or removed (-EMFILE, -EIO, ...) and may come back; try again.
 * Blocks: no. Threads: any.
 */
SCACHE_API int scache_remove(struct scache *cache, const void *key, size_t key_bytes);

/* ------------------------------------------------------------------ fetch */

/* How scache_fetch() produces what nobody has. */
struct scache_producer {
	size_t size; /* sizeof(struct scache_producer) */
	/*
	 * Writes the blob by scache_write() and its like, in a thread of the
	 * library. All signals but those of faults are blocked there; a command
	 * that it starts inherits that. Returns 0: the blob is complete;
	 * or a code as for scache_abort(), -EIO for one that is refused there:
	 * production failed. It must not fetch its own key. It may also call
	 * scache_finish() or scache_abort() itself (with a message, say); it
	 * must not close @writer. Streams that it opens it has to close.
	 * pthread_exit() and pthread_cancel() inside are failures with -ECANCELED.
	 * With SCACHE_RESUMABLE it begins at offset scache_written(writer), and may
	 * be called although the scache_fetch() at hand has found a producer: later,
	 * when that has died, more than once if it dies again.
	 */
	int (*create)(void *arg, struct scache_writer *writer);
	/* May be NULL. Called once, when neither create nor the reader needs
	   @arg any more, in any thread; not if scache_fetch() fails. Must return. */
	void (*release)(void *arg);
	void *arg;
};

/*
 * scache_fetch - find the entry of @key or have it produced.
 * Exactly one caller's create callback is run, in a thread of its own, and
 * goes on when its caller leaves, as long as anybody reads (or to the end
 * with SCACHE_RUN_TO_END). A cache that cannot help is not noticed: the
 * callback then feeds this caller alone, through private memory, and without
 * this reader nobody (-EPIPE, whatever the flags). Nor is a
 * producer that is killed before this reader had a byte of it: another is
 * elected, at most three times. (What the dead one had published can be read
 * until its death is noticed, some 30 ms; who has read of it gets -EOWNERDEAD.)
 * @ret_created: 1 if this caller's callback runs now; may be NULL.
 * Returns 0 with a reader at byte 0; -EINVAL, -ENOMEM, or -EAGAIN: no thread
 * could be made.
 * Blocks: no. Threads: any, also inside a create callback.
 * If you die inside: as for scache_acquire(); later as for scache_write().
 */
SCACHE_API int scache_fetch(struct scache *cache, const void *key, size_t key_bytes,
			    const struct scache_acquire_options *options,
			    const struct scache_producer *producer,
			    struct scache_reader **ret_reader, int *ret_created);

struct scache_fetched {
	size_t size;      /* sizeof(struct scache_fetched), set by the caller */
	uint64_t bytes;   /* written to the descriptor */
	int32_t created;  /* 1: this caller's callback ran */
	int32_t code;     /* the producer's result as in struct scache_result; -EAGAIN
			     if it was still producing when the descriptor failed */
	int32_t fd_error; /* -errno of the descriptor, else 0 */
	int32_t reserved;
};

/*
 * scache_fetch_to_fd - scache_fetch(), and all bytes are written to @fd.
 * Returns 0: all of the blob was written; or -errno of the producer as
 * scache_read() tells it, or of @fd; or, with *ret_fetched left alone and
 * nothing released, as scache_fetch(): set ret_fetched->created to -1 before
 * to tell that from the others.
 * Blocks: for the producer and for @fd, non-blocking or not. If @fd is a
 * pipe or a local socket whose other side has gone, that is found while
 * waiting for the producer, too: -EPIPE. Threads: any. If you die inside: as for
 * scache_fetch().
 */
SCACHE_API int scache_fetch_to_fd(struct scache *cache, const void *key, size_t key_bytes,
				  const struct scache_acquire_options *options,
				  const struct scache_producer *producer, int fd,
				  struct scache_fetched *ret_fetched);

/* ----------------------------------------------------------------- writer */

/*
 * scache_write - append @bytes bytes.
 * Waits while the writer is a full window ahead of its fastest reader.
 * A writer that nobody has attached to yet counts as having one at byte 0,
 * unless it runs to the end: without readers that one does not wait at all.
 * Returns the bytes taken, which are less than @bytes only if the call ended
 * early after some. If none could be taken: -EAGAIN, -ETIMEDOUT, or
 *  -EDEADLK  the window is full and has been for a second, and the reader
 *            that it waits for was last used by this very thread: read first
 *  -ECANCELED  scache_writer_cancel() was called
 * and, for good (every later call returns the same):
 *  -EPIPE    all readers have left (see finish_percent, finish_bytes, linger_ns), or none
 *            has come and none can come any more (removed, or no file); never with
 *            SCACHE_RUN_TO_END
 *  -ERANGE   with these bytes it is more than was declared: none of them was taken
 *  -ECANCELED  production has failed: it took longer than max_fill_ns, or its readers
 *            did not move (SCACHE_STALL_ABORT)
 * A disk that is full or fails, or a limit, is no error: it goes on from the ring, as
 * its slowest reader reads, and is not kept. If there is no ring either it waits until
 * one is free or the disk has room, for as long as @timeout_ns says: that it may be this
 * very thread that keeps the last ring, by a reader of another entry, is not noticed.
 * Blocks: for readers, and for the disk. Threads: one per writer.
 * If you die inside: readers get every byte published so far, then -EOWNERDEAD.
 */
SCACHE_API ssize_t scache_write(struct scache_writer *writer, const void *data, size_t bytes,
				int64_t timeout_ns);

/*
 * scache_reserve - room to produce in place, without the copy of scache_write().
 * *ret_data: where at least one and at most @bytes bytes may be stored, until
 * the next call on @writer; readers see them after scache_commit(). The room
 * is part of the ring, or private memory if the entry has none.
 * Returns the bytes of room (no more than 256 KiB, and not across the end of
 * the ring), or as scache_write(); -ENOMEM.
 * Blocks: for readers. Threads: one per writer.
 * If you die inside, or before scache_commit(): nobody sees these bytes.
 */
SCACHE_API ssize_t scache_reserve(struct scache_writer *writer, size_t bytes, void **ret_data,
				  int64_t timeout_ns);

/*
 * scache_commit - append the first @bytes bytes of what was reserved last.
 * 0 appends nothing and gives the room back.
 * Returns @bytes; -EINVAL if that is more than was reserved; or as
 * scache_write(), for good; -ECANCELED.
 * Blocks: for the disk, never for readers; of an entry without a ring, if its file fails,
 * until there is a ring or the disk has room. Threads: one per writer.
 * If you die inside: readers see all of these bytes or, but in that case, none.
 */
SCACHE_API ssize_t scache_commit(struct scache_writer *writer, size_t bytes);

/*
 * scache_write_from_fd - append what can be read from @fd, at most @bytes
 * bytes: a pipe, a socket, a file, straight into the ring.
 * Goes on until @bytes were taken, @fd is at its end or fails, or the time is
 * over. For all there is: SIZE_MAX, again and again until it returns 0; a
 * count says nothing of the end.
 * Returns the bytes taken; 0 at the end of @fd. If none could be taken:
 * as scache_write(), or the -errno of read(2), which is not for good.
 * Blocks: for @fd, non-blocking or not, and for readers: also before the end
 * of @fd is seen, unless that is a pipe. While it waits for @fd it looks whether
 * anybody still listens (-EPIPE). Threads: one per writer.
 * If you die inside: as in scache_write(); what was read from @fd and not yet
 * published is lost.
 */
SCACHE_API ssize_t scache_write_from_fd(struct scache_writer *writer, int fd, size_t bytes,
					int64_t timeout_ns);

/*
 * scache_written - bytes published so far: where the next one goes. Not 0 for a
 * new writer that goes on with what a dead producer has begun (only with
 * SCACHE_RESUMABLE). Blocks: no. Threads: one per writer.
 */
SCACHE_API uint64_t scache_written(const struct scache_writer *writer);

/*
 * scache_writer_cancel - from another thread: whoever waits in a call on
 * @writer returns, and no later call waits: -ECANCELED. The entry is not
 * touched; scache_abort() ends it. Returns 0, or -ECHILD. Blocks: no.
 * Threads: any, as long as @writer is open.
 */
SCACHE_API int scache_writer_cancel(struct scache_writer *writer);

/*
 * scache_writer_check - does anybody still listen? For producers that may be
 * silent for long: finds readers that were killed, too.
 * Returns 0; -EPIPE, or -ECANCELED as scache_write() (sticky, the entry has failed).
 * Blocks: no.
 */
SCACHE_API int scache_writer_check(struct scache_writer *writer);

/*
 * scache_finish - the blob is complete: it becomes immutable and findable as
 * a finished entry, its readers get end of file after its last byte.
 * Returns 0; -EBADMSG if it is not what it was expected to be (see struct
 * scache_acquire_options); SCACHE_NOT_KEPT if its file could not be written or none was
 * wanted, or if the segment had to be given up meanwhile: whoever was attached gets all
 * of it, later callers will miss; -ERANGE if it is less than was declared, and production
 * has failed; or the sticky error of the writer.
 * SCACHE_NOT_KEPT also if the key was produced fewer than min_occurrences times of late: then
 * others may come as long as somebody reads it, and scache_detail() says so; for the other
 * reasons it is "".
 * Blocks: for the disk.
 * If you die inside: either finished, or as in scache_write().
 */
SCACHE_API int scache_finish(struct scache_writer *writer);

/*
 * scache_set_note - the producer's own words about the blob (a content type, a validator,
 * tags), 0 .. SCACHE_NOTE_BYTES_MAX bytes of any value, stored with it by scache_finish().
 * Replaces an earlier one. Returns 0, -EINVAL, -ENOMEM, or the sticky error. Blocks: no.
 */
SCACHE_API int scache_set_note(struct scache_writer *writer, const void *note, size_t bytes);

/*
 * scache_abort - production failed. The key is free for another attempt
 * before any reader learns of it; readers get the bytes written so far and
 * then the error.
 * @code: -errno is what scache_read() will return; a number > 0 is the
 *  producer's own (an exit status): scache_read() returns -EREMOTEIO and
 *  scache_wait() tells the number. 0, and what these calls say themselves
 *  (-EAGAIN, -ETIMEDOUT, -ESTALE, -ECHILD, -EOWNERDEAD, -EBADMSG), are -EINVAL.
 * @message: for people, up to SCACHE_MESSAGE_BYTES_MAX bytes; may be NULL.
 * Returns 0 or -EINVAL. Blocks: for the disk.
 */
SCACHE_API int scache_abort(struct scache_writer *writer, int code, const void *message,
			    size_t message_bytes);

/*
 * scache_writer_close - give the handle back. Without scache_finish() before
 * it this is scache_abort(-ECANCELED). NULL is a no-op. Returns 0.
 */
SCACHE_API int scache_writer_close(struct scache_writer *writer);

/* ----------------------------------------------------------------- reader */

/*
 * scache_read - the next bytes, at most @bytes.
 * Returns a count > 0; 0 at the end of a finished entry, and only there (and
 * if @bytes is 0); -EAGAIN or -ETIMEDOUT if there was nothing yet; and, for good:
 *  -EOWNERDEAD  the producer was killed; every byte it published was read
 *  -EREMOTEIO   the producer failed with a code of its own, see scache_wait()
 *  the -errno   the producer gave to scache_abort(); -ECANCELED if it just left
 *  -ERANGE      the producer has written more or less than it had declared
 *  -EBADMSG     the blob's file was damaged by a stranger; the entry is gone
 *  -ESTALE      this reader was stopped for so long that its entry was reused, or that
 *               its producer went on without it (SCACHE_STALL_RUN)
 * and, not for good, -ETIME after stall_timeout_ns without a byte; and, as long as nothing is there to be read, -ECANCELED after scache_cancel().
 * Blocks: for the producer. Threads: one per reader.
 * If you die inside: nobody else notices.
 */
SCACHE_API ssize_t scache_read(struct scache_reader *reader, void *ret_data, size_t bytes,
			       int64_t timeout_ns);

/*
 * scache_pread - the same from @offset on; the reader's own position stays.
 * Returns a count > 0; 0 if @offset is at or behind the end of a finished
 * entry; if it is not there yet, waits, or -EAGAIN, -ETIMEDOUT; the errors of
 * scache_read(), but none is for good; and
 *  -ENODATA  the entry is not stored, or no more since the disk was full, and what is at
 *            @offset has gone. All from the reader's own position on is kept.
 *  -EDEADLK  the entry is not stored and the writer waits for this reader:
 *            @offset is a window or more ahead of its position. Read first.
 * Waiting for an @offset far ahead counts as having read up to there: the
 * writer goes on. If the disk then fills up, what lies in between may be lost
 * (-ENODATA, or -ESTALE from scache_read()).
 * Blocks: for the producer. Threads: one per reader.
 * If you die inside: nobody else notices.
 */
SCACHE_API ssize_t scache_pread(struct scache_reader *reader, void *ret_data, size_t bytes,
				uint64_t offset, int64_t timeout_ns);

/*
 * scache_seek - the next byte that is read, shown or sent is the one at @offset, which
 * may be behind what is written (then that is waited for) or behind the end (then
 * there is none: 0). What a scache_peek() has shown is over, and so is a failure that was
 * told for good but -ESTALE: what was published can be read once more.
 * To the writer this reader has read up to the furthest place where it was or sought
 * to. So a seek ahead lets it go on, and after a seek back it does not come back for
 * what it no longer keeps: if the entry is not stored, or the disk fills up,
 *  -ENODATA  the byte at @offset is gone; or, from scache_read() and its like, it has
 *            gone since. Not for good: seek on. From the furthest place on all is kept.
 * A producer that is killed before this reader had a byte is replaced as without a seek,
 * but with SCACHE_DETERMINISTIC one that is killed later is so no more: as after a pread.
 * Returns @offset; -EINVAL if it is more than INT64_MAX; -ENODATA, -ESTALE, -ECHILD, and
 * with SCACHE_DETERMINISTIC an -EOWNERDEAD that was for good: with nothing moved.
 * Blocks: no. Threads: one per reader. If you die inside: nobody else notices.
 */
SCACHE_API int64_t scache_seek(struct scache_reader *reader, uint64_t offset);

/*
 * scache_peek - the next bytes where they are, at most @bytes, without a copy if
 * they are in the file already; the position stays.
 * *ret_data is good until the next call on @reader but scache_consume(), as far as it is
 * not consumed, and shows bytes of the entry only: published, and never changed while you
 * look.
 * Returns as scache_read(): a count > 0 (of what lies in one piece, not of all there
 * is), 0 at the end, -EAGAIN, -ETIMEDOUT, errors.
 * A large blob is mapped: if a stranger truncates its file, touching what is
 * gone is a SIGBUS, which a read would report as -EBADMSG.
 * Blocks: for the producer. Threads: one per reader.
 * If you die inside: nobody else notices.
 */
SCACHE_API ssize_t scache_peek(struct scache_reader *reader, const void **ret_data, size_t bytes,
			       int64_t timeout_ns);

/*
 * scache_consume - go on by @bytes of those that the last scache_peek() has shown;
 * the rest may still be looked at, but those no more. A writer that waits for its readers
 * goes on.
 * Returns @bytes; -EINVAL if it has not shown so many, or another call has been
 * made since; -ESTALE, -ECHILD. Blocks: no. If you die inside: nobody else notices.
 */
SCACHE_API ssize_t scache_consume(struct scache_reader *reader, size_t bytes);

/*
 * scache_sendfile - the next bytes, at most @bytes, to @fd: a socket, a pipe, a file.
 * What is in the blob's file already goes there within the kernel, by sendfile(2), if
 * @fd takes that; what is not is copied.
 * Goes on until @bytes were written, the entry is at its end, @fd fails, or the
 * time is over. For all there is: SIZE_MAX, again and again until it returns 0.
 * Returns the bytes written to @fd, by which the reader's position has moved;
 * 0 at the end of a finished entry. If none could be written: as scache_read(),
 * or the -errno of write(2), which is not for good (-EPIPE, never a SIGPIPE).
 * Blocks: for the producer and for @fd, non-blocking or not; while it waits
 * for the producer it looks whether @fd, if a pipe or a local socket, has
 * still another side. With SCACHE_FOREVER a blocking @fd is waited for in
 * write(2), where scache_cancel() is not heard.
 * Threads: one per reader. If you die inside: nobody else notices.
 */
SCACHE_API ssize_t scache_sendfile(struct scache_reader *reader, int fd, size_t bytes,
				   int64_t timeout_ns);

/*
 * scache_cancel - from another thread: whoever waits in a call on @reader
 * returns, and no later call waits: -ECANCELED. Bytes that are there can still
 * be read. Returns 0, or -ECHILD. Blocks: no.
 * Threads: any, as long as @reader is open.
 */
SCACHE_API int scache_cancel(struct scache_reader *reader);

/*
 * scache_size - bytes published so far.
 * Returns 1 if that is the final size of a finished entry, 0 if it may grow
 * or production failed; -ESTALE as in scache_read().
 */
SCACHE_API int scache_size(struct scache_reader *reader, uint64_t *ret_bytes);

/* How production ended. */
struct scache_result {
	size_t size;            /* sizeof(struct scache_result), set by the caller */
	int32_t code;           /* 0 finished; what scache_abort() was given; -EOWNERDEAD */
	uint32_t message_bytes; /* of the message as kept, without a final NUL */
	uint64_t bytes;         /* published */
};

/*
 * scache_wait - wait until production has ended, without reading.
 * Note that a writer whose window is full waits for readers in turn.
 * Returns 0 with *ret_result, whether production succeeded or not; -EAGAIN,
 * -ETIMEDOUT, -ECANCELED after scache_cancel(), -ESTALE.
 */
SCACHE_API int scache_wait(struct scache_reader *reader, int64_t timeout_ns,
			   struct scache_result *ret_result);

/*
 * scache_note - copy the note of a finished entry, at most @bytes bytes of it.
 * Returns its full length (0: none); -EAGAIN: not finished yet; how production failed;
 * -ENODATA: the entry is not stored; -EBADMSG, -ESTALE. Blocks: for the disk.
 */
SCACHE_API ssize_t scache_note(struct scache_reader *reader, void *ret_note, size_t bytes);

struct scache_file {
	size_t size;           /* sizeof(struct scache_file), set by the caller */
	int32_t fd;            /* read-only; the caller closes it, before the reader */
	uint32_t compression;  /* SCACHE_RAW, or SCACHE_LZ4: one LZ4 frame */
	uint64_t bytes;        /* of the blob */
	uint64_t stored_bytes; /* of it in the file, from offset 0 on; what stands behind
				  them is ours (lz4(1) skips it) */
};

/*
 * scache_file - a finished entry's very file, for consumers that decode for themselves or
 * have the kernel move it (io_uring, splice, a mapping). It stays as it is as long as
 * @reader is open. What has to be verified is, all of it, before.
 * Returns 0; -EAGAIN: not finished yet; how production failed; -ENODATA: the entry is not
 * stored; -EBADMSG, -ESTALE, -EMFILE. Blocks: for the disk. Threads: one per reader.
 */
SCACHE_API int scache_file(struct scache_reader *reader, struct scache_file *ret_file);

/*
 * scache_message - copy the failed producer's message, NUL-terminated, cut
 * to fit. Returns its full length (0: none), -EAGAIN while still producing.
 */
SCACHE_API ssize_t scache_message(struct scache_reader *reader, char *ret_text, size_t bytes);

/* scache_reader_close - leave the entry. NULL is a no-op. Returns 0. */
SCACHE_API int scache_reader_close(struct scache_reader *reader);

/* ------------------------------------------------------------- inspection */

enum scache_state {
	SCACHE_FILLING = 1,  /* a writer appends */
	SCACHE_FINISHED = 2, /* complete, immutable */
	SCACHE_FAILED = 3    /* kept only for the readers it still has */
};

/* flags of struct scache_entry_info */
#define SCACHE_HIDDEN 1u         /* not findable; attached streams go on */
#define SCACHE_WRITER_WAITS 2u   /* the window is full: waits for a reader */
#define SCACHE_RING_ONLY 4u      /* no (or no complete) file: not retained */
#define SCACHE_HAS_RING 8u       /* live window in shared memory */
#define SCACHE_WRITER_DEAD 16u   /* its process is gone, repair is due */
#define SCACHE_TRANSIENT 32u     /* below min_occurrences: goes with its last reader */

struct scache_entry_info {
	size_t size;             /* sizeof(struct scache_entry_info) */
	const void *key;         /* key_bytes bytes; valid during the callback, or
				    as long as the reader */
	uint32_t key_bytes;
	uint32_t state;          /* enum scache_state */
	uint32_t flags;
	uint32_t readers;        /* attached now */
	int64_t producer_pid;    /* as the producer sees itself; 0 if it has ended */
	uint64_t bytes;          /* published */
	uint64_t stored_bytes;   /* of these in the file; never more */
	uint64_t window_bytes;   /* SCACHE_ZERO, SCACHE_UNLIMITED or a size: less than was
				    asked for, down to 256 KiB, where space is short */
	uint64_t age_ns;         /* since completion, or since creation if growing */
	uint64_t expires_in_ns;  /* 0 expired; SCACHE_UNLIMITED never or not yet set */
	uint64_t declared_bytes; /* what `bytes` will be if production succeeds;
				    SCACHE_UNLIMITED: not known */
	uint64_t file_bytes;     /* of a finished one: what its file has on the disk, with
				    what is ours in it; 0 before, and if there is none */
	uint32_t compression;    /* of the file: SCACHE_RAW, SCACHE_LZ4; 0 as long as that is
				    not decided (SCACHE_AUTO), and if there is no file */
	uint32_t reserved;       /* 0 */
};

/* scache_reader_info - the entry behind a reader. Returns 0 or -ESTALE. */
SCACHE_API int scache_reader_info(struct scache_reader *reader,
				  struct scache_entry_info *ret_info);

/*
 * scache_each - call @entry for each entry. The callback may use the cache
 * and ends the walk with a value other than 0, which is then returned.
 * What comes and goes during the walk may be shown or not.
 */
SCACHE_API int scache_each(struct scache *cache,
			   int (*entry)(void *arg, const struct scache_entry_info *info), void *arg);

/* Counters are sums over all processes since the segment was made. */
struct scache_stats {
	size_t size; /* sizeof(struct scache_stats), set by the caller */
	/* now */
	uint64_t entries, entries_filling, entries_finished, entries_failed, entries_hidden;
	uint64_t entries_free;
	uint64_t peers, readers, rings_in_use;
	/* ever */
	uint64_t hits;        /* attached to a finished entry */
	uint64_t joins;       /* attached to a growing entry */
	uint64_t misses;      /* nothing to attach to */
	uint64_t productions; /* became the writer, of a new entry or of an orphan */
	uint64_t finishes, failures, deaths; /* how entries ended; dead peers reaped */
	uint64_t bypasses;
	uint64_t bytes_produced, bytes_from_ring, bytes_from_file;
	uint64_t reads_from_ring, reads_from_file;
	uint64_t waits; /* a reader or a writer went to sleep */
	uint64_t wakes; /* a system call was made to wake somebody */
	uint64_t expired, removed, degraded; /* degraded: went on without its file */
	/* geometry */
	uint64_t max_entries, max_peers, max_readers, max_rings, ring_bytes, segment_bytes;
	uint64_t damaged; /* ever: blobs found to be damaged, and removed */
	uint64_t adopted; /* ever: blobs of a former segment taken over */
	uint64_t bytes_used;  /* now: what max_bytes limits, with what is about to be written */
	uint64_t bytes_spare; /* now: what may be stored before something has to go;
				 SCACHE_UNLIMITED */
	uint64_t evicted;     /* ever: entries that went to keep a limit */
	uint64_t not_retained; /* ever: productions not stored on account of min_occurrences */
	uint64_t overdue;     /* ever: productions that failed for they took longer than max_fill_ns */
	uint64_t stalled;     /* ever: writers whose readers did not move for their stall time */
	uint64_t blocked_ns;  /* ever: writers waited for readers, in all */
	uint64_t emergencies; /* ever: productions that had no ring and got one of those kept
				 back for it when their file failed */
	uint64_t bytes_punched; /* ever: given back of files that were begun in vain */
};

SCACHE_API int scache_stat(struct scache *cache, struct scache_stats *ret_stats);

/*
 * scache_check - verify the numbered invariants of the live segment without
 * disturbing it. @finding (may be NULL) is told each violation.
 * Returns the number of violations.
 */
SCACHE_API int scache_check(struct scache *cache, void (*finding)(void *arg, const char *text),
			    void *arg);

/* ----------------------------------------------------------------- upkeep */

struct scache_repair_report {
	size_t size;         /* sizeof(struct scache_repair_report), set by the caller */
	uint64_t reaped;     /* dead processes cleaned up after */
	uint64_t freed;      /* entries that nobody could find or needed any more */
	uint64_t violations; /* found after that: no repair can mend them, so the
				segment is retired if there is one */
};

/*
 * scache_repair - clean up now after processes that died, as any call would that
 * meets it, and verify what is left. A segment that is damaged beyond that is
 * retired: streams in it go on to their ends, and every process moves on to a
 * new one at its next call. Run twice, the second finds nothing to do.
 * @finding: as for scache_check(). @ret_report: may be NULL.
 * Returns 0 or -errno. Blocks: for the disk. Threads: any.
 * If you die inside: the next one starts over.
 */
SCACHE_API int scache_repair(struct scache *cache, void (*finding)(void *arg, const char *text),
			     void *arg, struct scache_repair_report *ret_report);

/* What scache_verify() says of an entry. */
enum scache_verify_result {
	SCACHE_VERIFY_GOES_ON = 0, /* before each block */
	SCACHE_VERIFY_GOOD,
	SCACHE_VERIFY_DAMAGED,     /* and it has been removed */
	SCACHE_VERIFY_SKIPPED      /* not finished (nor joined), not stored, or gone meanwhile */
};

struct scache_verify_progress {
	size_t size;     /* sizeof(struct scache_verify_progress) of the library */
	const void *key; /* valid during the call */
	uint32_t key_bytes;
	int32_t result;  /* enum scache_verify_result */
	uint64_t bytes, done_bytes; /* of this entry */
};

struct scache_verify_options {
	size_t size;               /* sizeof(struct scache_verify_options) */
	uint64_t bytes_per_second; /* no faster than that; 0 = as fast as it goes */
	/* Called before each block of 256 KiB and at the end of each entry; may use the
	   cache; a value other than 0 ends it all. May be NULL. */
	int (*progress)(void *arg, const struct scache_verify_progress *progress);
	void *arg;
};

struct scache_verify_report {
	size_t size; /* sizeof(struct scache_verify_report), set by the caller */
	uint64_t entries, bytes; /* compared */
	uint64_t damaged;        /* of these, and removed */
	uint64_t skipped;
};

/*
 * scache_verify - compare the stored bytes of @key, or of all finished entries (@key is
 * NULL), with their checksums. A damaged entry is removed: its readers get -EBADMSG where
 * the damage is, the next caller produces it again. It reads what the kernel has in
 * memory or on the disk, as readers do.
 * Returns 0; -ENOENT: no such key; what @progress returned if that is > 0, -ECANCELED if it
 * is < 0; -errno. *ret_report (may be NULL) is filled in any case but -EINVAL.
 * Blocks: for the disk, and for the rate. Threads: any. If you die inside: nobody notices.
 */
SCACHE_API int scache_verify(struct scache *cache, const void *key, size_t key_bytes,
			     const struct scache_verify_options *options,
			     struct scache_verify_report *ret_report);

#define SCACHE_DRY_RUN 1u

/* What a sweep or a destroy tells of each thing it removes or leaves. */
struct scache_victim {
	const char *name; /* the entry's key; the file's path below DIR; a segment's path */
	uint32_t name_bytes;
	/*
	 * Of an entry: "expired" (as its producer said), "idle" (max_idle_ns), "too old" (for this
	 * sweep), "evicted" (to keep a limit; bytes are then those on the disk).
	 * Of a file: "orphan" (no entry owns it), "unknown" (it is not ours); one that
	 * a former segment has left: "adopted", "expired", "unfinished", "damaged", "outdated"
	 * (there is a newer one of its key), "no room" (no free slot). "segment": of a
	 * cache whose directory has vanished. destroy also says "blob" and "directory".
	 */
	const char *why;
	int removed;      /* 0: left (unknown, adopted, or a dry run) */
	uint64_t bytes;
};

struct scache_sweep_progress {
	size_t size;    /* sizeof(struct scache_sweep_progress) of the library */
	uint64_t files; /* looked at so far */
	uint32_t directories, all_directories; /* of blobs: done, and how many there are */
};

struct scache_sweep_options {
	size_t size;         /* sizeof(struct scache_sweep_options) */
	uint32_t flags;      /* SCACHE_DRY_RUN */
	uint32_t reserved;   /* 0 */
	uint64_t max_age_ns; /* remove what is older; 0 = each entry's own limit */
	void (*victim)(void *arg, const struct scache_victim *victim); /* or NULL */
	void *arg;
	/* Called before each file, and once behind the last; a value other than 0 ends the
	   sweep, which the next one begins anew. May be NULL. */
	int (*progress)(void *arg, const struct scache_sweep_progress *progress);
};

struct scache_sweep_report {
	size_t size; /* sizeof(struct scache_sweep_report), set by the caller */
	uint64_t entries, entry_bytes;  /* expired, idle or too old, and removed (or would be) */
	uint64_t orphans, orphan_bytes; /* files that no entry owns: removed */
	uint64_t unknown;               /* files that are not ours: left */
	uint64_t reaped;                /* dead peers cleaned up after */
	uint64_t adopted, adopted_bytes; /* blobs of a former segment that are entries now */
	uint64_t evicted, evicted_bytes; /* entries removed to keep a limit; on the disk */
	uint64_t segments, segment_bytes; /* of caches that have vanished: removed */
};

/*
 * scache_sweep - remove entries that have expired, what dead peers left, and files of
 * ours that no entry owns; of those, finished blobs of a former segment become entries
 * as long as there are free slots. Then entries until the limits of the cache are
 * kept (max_bytes, max_entries, min_free_...), also against what others have
 * changed; and segments of ours in the same segment directory whose cache has vanished
 * without scache_destroy(), if nobody has them open. Open readers finish undisturbed.
 * Any number of sweeps may run at once, in any number of processes.
 * With SCACHE_DRY_RUN nothing changes, not even after dead peers is cleaned up. What would be
 * adopted counts with its bytes, but only what is an entry now is told of as evicted: the sweep
 * itself may evict adopted ones in its place, and more if there are too many entries then.
 * Returns 0; what @options->progress returned if that is > 0, -ECANCELED if it is < 0; -errno.
 * *ret_report (may be NULL) says what was done in any case but -EINVAL and those of
 * scache_open(). Blocks: for the disk. Threads: any.
 * If you die inside: the next one goes on.
 */
SCACHE_API int scache_sweep(struct scache *cache, const struct scache_sweep_options *options,
			    struct scache_sweep_report *ret_report);

/*
 * scache_destroy - remove the segment and all our files in @dir, and @dir
 * itself, whoever made it, if it is empty then and its parent may be changed.
 * Unknown files are reported and left. Only the flags, victim and arg fields
 * of @options are used; it may be NULL.
 * Returns 0; -EBUSY with attached processes (nothing is removed);
 * -ENOTEMPTY if something unknown was left; -ENOENT; as scache_open().
 */
SCACHE_API int scache_destroy(const char *dir, const struct scache_sweep_options *options);

/* ----------------------------------------------------------------- errors */

/* scache_strerror - a short text for a negative return; never NULL. */
SCACHE_API const char *scache_strerror(int error);

/*
 * scache_detail - what exactly went wrong in this thread's last failed
 * scache_open(), scache_destroy() or scache_sweep(), and what to do about it, or why
 * its last scache_finish() has not stored anything;
 * "" if there is nothing to add. Valid until the thread's next such call.
 */
SCACHE_API const char *scache_detail(void);

/* scache_version - "MAJOR.MINOR.PATCH" of the library. */
SCACHE_API const char *scache_version(void);

#ifdef __cplusplus
}
#endif
#endif
