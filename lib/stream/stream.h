/* SPDX-License-Identifier: MIT */
/*
 * stream - the two handles, and what they share.
 *
 * The ring is the live path, the file the history path: a writer copies into
 * the ring and publishes, and empties the ring to the file in large writes; a
 * reader near the head copies from the ring without a system call, one that
 * has fallen behind reads the file. Large writes before few readers, none of whom
 * sleeps, pass the ring.
 *
 *	0 ........ floor ........ flushed ........ written
 *	|-- file --|--- file and ring --|-- ring ---|
 *
 * Without a ring floor is UINT64_MAX and flushed equals written. Without a
 * file (ENTRY_RING_ONLY) flushed stands still and the writer keeps in the
 * ring whatever the slowest reader has not read; below `punched` the file has
 * holes by then.
 *
 *	fd.c	   between a stream and a descriptor
 *	alone.c	   without the file, in the end
 *	writer.c   bytes in		reader.c   bytes out, waiting
 *	finish.c   how it ends		copy.c	   out of the ring or the file
 *	compress.c to an lz4 file
 *	file.c	   its very file	digest.c   what it must be
 *	pread.c	   from anywhere, seek	peek.c	   where they are
 *	pace.c	   how far, and waiting	result.c   how it ended
 *	stall.c	   readers that stay	linger.c   and that have left
 *	window.c   where space is short	overdue.c  what takes too long
 *	private.c  a pair of streams that no cache holds
 *	restart.c  what a reader does about a dead or silent producer
 *	takeover.c a dead producer's work, gone on with
 *	replay.c   the same work done once more, gone on with in the middle
 *	info.c	   what is shown of an entry
 *	declared.c a size that is known beforehand
 *	keep.c	   what makes its file last
 */
#ifndef STREAM_STREAM_H
#define STREAM_STREAM_H

#include "store/footer.h"
#include "store/frame.h"
#include "store/opened.h"
#include "store/scrub.h"
#include "store/sums.h"
#include "stream/pace.h"
#include "streamcache.h"

#define BOUNCE_BYTES (256u << 10)
#define SLICE_BYTES_MAX (256u << 10) /* published at once; readers start on it */
#define FLUSH_BYTES_MAX (256u << 10) /* out of the ring to the file, while they are in the cache */
#define COMPRESS_RING_BYTES_MIN (4u * BLOCK_BYTES) /* for blocks not written yet */

struct private_stream;

/* Writer and reader of one acquire: to tell a slow reader from a deadlock. */
struct stream_pair {
	_Atomic uint32_t users;
	_Atomic uintptr_t reader_thread; /* that used the reader last; 0 = closed */
	uint32_t reader_cell;
	struct private_stream *private_stream; /* what both live in if no cache holds them */
};

/* What a fetched reader has lost its producer to. */
enum retake {
	RETAKE_DEAD,
	RETAKE_SILENT,
	RETAKE_GONE_ON, /* without this reader */
};

/* Where a fetched reader came from: it goes back there if its producer is killed
 * before its first byte. */
struct reader_origin {
	/* 0 with another reader at byte 0, of an entry or (of a silent one) of ours alone; or -errno. */
	int (*retake)(struct reader_origin *origin, enum retake why,
		      struct scache_reader **ret_reader);
	/* Of an orphan, as @state says: 0 if ours produces it now, or -errno. */
	int (*take_over)(struct reader_origin *origin, struct store *store, struct entry_name name,
			 uint64_t state);
	void (*put)(struct reader_origin *origin);
};

struct scache_reader {
	uint32_t magic;
	int error; /* sticky */
	bool has_begun; /* its caller has had bytes of the entry */
	bool has_sought; /* bytes behind `paced` may have been lost to it */
	bool is_refused; /* sendfile(2) does not take its descriptor */
	_Atomic uint32_t cancelled;
	const volatile unsigned char *not_forked; /* as of its peer */
	_Atomic(shm_u32 *) sleeps_at; /* the word scache_cancel() has to wake */
	struct reader_origin *origin; /* NULL: not a fetched one */
	uint64_t stall_ns;	      /* how long it bears a silent producer; 0 = for ever */
	int64_t silent_since_ns;      /* 0: not silent */
	struct replay *replay;	      /* of a deterministic producer's; or NULL */
	unsigned char *bounce;	      /* BOUNCE_BYTES out of a ring; NULL until needed */
	const unsigned char *shown;   /* by scache_peek(), and not yet consumed: */
	size_t shown_bytes;	      /* 0 when another call has been made */
	_Atomic uint32_t *open_streams;
	/* From here on: of the entry it is attached to; start_over() exchanges it. */
	struct store *store;
	struct stream_pair *pair;
	struct entry_name name;
	struct shm_entry *entry;
	shm_u64 *state;
	struct shm_cursor *cursor;
	struct open_blob *blob;	   /* NULL until needed */
	struct unpacked unpacked;  /* of an lz4 blob, see packed.h */
	unsigned char *window;	   /* of a growing file, see peek.c; or NULL */
	uint64_t window_from;
	uint64_t position;
	uint64_t paced; /* the position as others see it: the furthest it was */
	uint64_t ring_mask;
	uint32_t cell;
	uint32_t spins; /* how long to spin before sleeping; adaptive */
	bool bytes_flow; /* the last sleep was short: see nap() */
	uint64_t stats[STAT_COUNT]; /* not yet added to the peer's */
	unsigned char key[256];	    /* for scache_reader_info() */
};

struct scache_writer {
	uint32_t magic;
	int error; /* sticky */
	_Atomic uint32_t cancelled;
	struct store *store;
	_Atomic uint32_t *open_streams;
	struct stream_pair *pair;
	struct entry_name name;
	struct shm_entry *entry;
	shm_u64 *state;
	unsigned char *ring; /* NULL: none */
	uint64_t ring_bytes, slice_bytes, flush_bytes;
	uint64_t written, flushed; /* as published; we are their only writer */
	uint64_t pace, slowest;	   /* as of the last survey, */
	uint32_t readers;	   /* and how many there were */
	struct writer_terms terms;
	uint64_t asked_bytes; /* of window; what is in force stands in the entry */
	struct stall stall;
	int64_t left_since_ns; /* all have, and it lingers; 0: no */
	uint64_t declared_bytes; /* UINT64_MAX: not known */
	uint64_t checked_at; /* bytes written when dead readers were last looked for */
	uint64_t bytes_counted;
	size_t reserved_bytes; /* by scache_reserve(), not yet committed */
	unsigned char *bounce; /* reserved bytes stand here if there is no ring; or NULL */
	uint32_t key_bytes;
	uint32_t pace_cell;
	uint32_t reap_hand; /* where dead readers are looked for next */
	uint64_t charged; /* what the file may have without asking; see room.c */
	uint32_t way_tries; /* to make way for it on the disk since it was last written */
	struct sums sums; /* of the bytes in the file; see keep.c */
	int fd; /* -1: no file */
	int punch_fd; /* the file that was given up, if holes can be made in it; or -1 */
	uint64_t punched; /* up to here we have made them */
	bool run_to_end;
	bool is_nearly_done; /* when all had left: goes on without them while the door is open */
	bool pace_slowest;
	bool is_lz4, is_auto; /* the second: not decided yet */
	uint32_t level;	      /* of compression; 0 = the default */
	void *digest;	      /* of what was published; NULL: none is expected */
	unsigned char expected[16];
	uint32_t note_bytes;
	unsigned char *note;  /* for the footer; NULL: none */
	struct compressor *compressor; /* of an lz4 one, once there is a block; or NULL */
	bool ring_only;
	bool door_closed; /* of a ring-only one: its first byte may go */
	bool ring_is_full; /* what stopped it was the ring, not the window */
	bool is_stranded; /* its file has failed, and there is no ring for it */
	bool ended;
	bool taken_over; /* the file may hold more than what was published */
	bool mid_call; /* of this write some bytes are taken already */
};

/*
 * reader_open - around a cursor that is attached to @name in state @state.
 * Opens the file if the reader cannot do without. Returns 0; -ENOENT if the
 * file is gone, -EBADMSG if it is damaged: the entry is a miss; -errno. On failure
 * the cursor is left as it was.
 */
int reader_open(struct store *store, struct entry_name name, uint32_t cell, uint64_t state,
		struct scache_reader **ret_reader);

/* writer_open - for our FILLING entry; @fd is its file, or -1. 0 or -ENOMEM. */
int writer_open(struct store *store, struct entry_name name, int fd,
		struct scache_writer **ret_writer);

/*
 * writer_take_over - the same for an ORPHAN, as @state says, which is ours then:
 * goes on behind what has been published. 0; -EAGAIN: somebody else was faster, or it has
 * failed, as it is overdue or what was published is not all there any more; -errno. @level:
 * of compression, if that is what it is for; 0: the default.
 */
int writer_take_over(struct store *store, struct entry_name name, uint64_t state,
		     const struct writer_terms *terms, uint32_t level,
		     struct scache_writer **ret_writer);

/* writer_is_transient - is it not to be retained? Then its file is nobody's but its readers'. */
static inline bool writer_is_transient(const struct scache_writer *writer)
{
	return state_is_transient(shm_load_relaxed(writer->state));
}

/* writer_give_up - taken over in vain: an orphan once more, for others. Closes @writer. */
void writer_give_up(struct scache_writer *writer);

/* --------------------------------------------------------------- writer.c */

/* writer_flush - the ring to the file: whole flush units, or (@all) what there is. */
void writer_flush(struct scache_writer *writer, bool all);

/* ---------------------------------------------------------------- alone.c */

/* writer_go_without_file - close the door and go on from the ring alone. */
void writer_go_without_file(struct scache_writer *writer);

/*
 * writer_give_up_file - , if it is one, is its file: it lasts as long as readers behind
 * need it. Kept open for holes, or closed.
 */
void writer_give_up_file(struct scache_writer *writer, int fd);

/* writer_rescue - the same of one without a ring: it is given one, or is stranded. */
void writer_rescue(struct scache_writer *writer);

/* writer_use_ring - @ring is our entry's. */
void writer_use_ring(struct scache_writer *writer, uint32_t ring);

/*
 * writer_punch - after a survey behind the closed door: what of the given-up file all
 * readers have passed goes. Nothing happens if that is little.
 */
void writer_punch(struct scache_writer *writer);

/* ----------------------------------------------------------------- room.c */

/*
 * room_reserve - the file is going to have @bytes bytes in all, and more if it @grows. 0, or
 * -ENOSPC: the limits do not allow it, whatever goes.
 */
int room_reserve(struct scache_writer *writer, uint64_t bytes, bool grows);

/* room_write - reserve, and blob_write(), once more if others had to go for it. 0 or -errno. */
int room_write(struct scache_writer *writer, const void *data, size_t bytes, uint64_t offset);

/* room_write_two - the same by blob_write_two(), and nothing follows. */
int room_write_two(struct scache_writer *writer, const void *first, size_t first_bytes,
		   const void *second, size_t second_bytes, uint64_t offset);

/* ------------------------------------------------------------- compress.c */

/* compress_flush - writer_flush() of an lz4 entry: returns at once unless @all. */
void compress_flush(struct scache_writer *writer, bool all);

/* compress_make_room - wait until a slice more fits into the ring. */
void compress_make_room(struct scache_writer *writer);

/* compress_hurry - nothing is to be kept: what is left is stored as it is. */
void compress_hurry(struct scache_writer *writer);

/* compress_stop - what is not begun yet is not written any more. */
void compress_stop(struct scache_writer *writer);

/* compress_end - all is flushed: end the frame, and what the footer must know of it. */
int compress_end(struct scache_writer *writer, struct footer *footer);

void compress_free(struct scache_writer *writer);

/* compress_pays - judging by the @bytes at @data. */
bool compress_pays(const void *data, size_t bytes);

/* --------------------------------------------------------------- digest.c */

/* digest_expect - XXH3 (128 bits, canonical) of all that will be written. 0 or -ENOMEM. */
int digest_expect(struct scache_writer *writer, const unsigned char expected[16]);
void digest_add(struct scache_writer *writer, const void *data, size_t bytes);
bool digest_differs(const struct scache_writer *writer);
void digest_free(struct scache_writer *writer);

/* ----------------------------------------------------------------- keep.c */

/* keep_note - @bytes bytes more are in the file, the last before `flushed`. */
void keep_note(struct scache_writer *writer, const void *data, size_t bytes);

/*
 * keep_file - what is not in the file yet, and the footer; then it is closed for good.
 * 0 or -errno: the file is not to be kept, and what the ring has the ring still has.
 */
int keep_file(struct scache_writer *writer);

/* writer_settle_format - of an automatic one: by what there is, if that is enough or all. */
void writer_settle_format(struct scache_writer *writer);

/* writer_check_handle - 0, -ECHILD, its sticky error, or -EINVAL after its end. */
int writer_check_handle(struct scache_writer *writer);

/* ------------------------------------------------------------- declared.c */

/*
 * declared_create_file - blob_create(), with room for all of it if the entry says how
 * much that is. -ENOSPC, -EDQUOT or -EFBIG also if there is none: then there is no file.
 */
int declared_create_file(struct store *store, struct entry_name name);

/* declared_give_back - the room behind the end of its file is needed no more. */
void declared_give_back(const struct scache_writer *writer);

static inline bool declared_is_exceeded(const struct scache_writer *writer, size_t bytes)
{
	return bytes > writer->declared_bytes - writer->written;
}

/* declared_break - it has, or would have, another size: production has failed. Sticky. */
int declared_break(struct scache_writer *writer);

/* --------------------------------------------------------------- finish.c */

/* writer_fail - production has failed, with the code that its readers will see. Sticky. */
int writer_fail(struct scache_writer *writer, int code);

void writer_count_bytes(struct scache_writer *writer);
void writer_wake_readers(struct scache_writer *writer);

/* ----------------------------------------------------------------- copy.c */

/*
 * copy_out - some of the bytes from @at on, where there is at least one, out
 * of the ring or the file. Returns the count; -ENODATA: neither has them any
 * more; -EBADMSG; -errno.
 */
ssize_t copy_out(struct scache_reader *reader, uint64_t at, void *data, size_t bytes);

/*
 * reader_is_still_there - was the entry ours all the time? Else this process was
 * stopped, and for want of room its cursor was taken from it: whatever was loaded or
 * copied after the state may be of another life.
 */
bool reader_is_still_there(const struct scache_reader *reader);

/*
 * reader_may_lose - may what the file has at the position go while it is looked at? Of a
 * growing entry, if others see this reader further on: see alone.c. It is copied then.
 */
static inline bool reader_may_lose(const struct scache_reader *reader)
{
	return unlikely(reader->position < reader->paced) &&
	       (state_is_growing(shm_load(reader->state)) ||
		shm_load(&reader->entry->punched) > reader->position);
}

/* reader_is_damaged - its file is not what it was: the entry goes. Returns -EBADMSG. */
int reader_is_damaged(struct scache_reader *reader);

/* copy_get_blob - have the file open. 0, -ENOENT, -errno. */
int copy_get_blob(struct scache_reader *reader);

/* --------------------------------------------------------------- reader.c */

/* reader_check_handle - 0, -ECHILD, or its sticky error. */
int reader_check_handle(struct scache_reader *reader);

/* reader_ended - how production ended: 0 (sealed), the readers' -errno, or -EAGAIN (not yet). */
int reader_ended(const struct scache_reader *reader, uint64_t state);

void reader_push_stats(struct scache_reader *reader);

/* reader_facts - what its entry, in this @state, says of the blob. */
struct blob_facts reader_facts(const struct scache_reader *reader, uint64_t state);

/* --------------------------------------------------------------- pread.c */

/* reader_go_to - go on at @offset, wherever that is. */
void reader_go_to(struct scache_reader *reader, uint64_t offset);

/* -------------------------------------------------------------- restart.c */

/*
 * reader_bear_silence - nothing yet: is that for longer than its caller bears?
 * 0: no, or it is served otherwise now; -ETIME.
 */
int reader_bear_silence(struct scache_reader *reader);

/* reader_begins_elsewhere - a fetched one whose next byte is gone: true if another production
 * serves it, before the first byte or from where it is. */
bool reader_begins_elsewhere(struct scache_reader *reader);

/* reader_starts_over - a fetched one whose producer was killed, as @state says: true if
 * another goes on with this entry, or, before the first byte, with another entry. */
bool reader_starts_over(struct scache_reader *reader, uint64_t state);

/* reader_wait_for_news - for more than @from bytes, or for the end. 0 to look again,
 * -ETIMEDOUT, -ECANCELED. */
int reader_wait_for_news(struct scache_reader *reader, uint64_t from, int64_t deadline_ns);

/* How long one call may wait; the clock is asked only when it does. */
struct patience {
	int64_t timeout_ns, deadline_ns;
	bool has_begun;
};

/* reader_await - nothing behind @from yet. 0: look again; -EAGAIN, -ETIMEDOUT, -ECANCELED. */
int reader_await(struct scache_reader *reader, uint64_t from, struct patience *patience);

/*
 * reader_ready - wait until there is a byte at the position. 1, and what is written;
 * 0 at the end; or as scache_read(). Ends what a peek has shown.
 */
int reader_ready(struct scache_reader *reader, int64_t timeout_ns, uint64_t *ret_written);

/* reader_had - @done bytes of what was ready were copied or shown, or -errno. Returns that. */
ssize_t reader_had(struct scache_reader *reader, ssize_t done);

/* reader_note_error - for good, unless a descriptor more or a retry may cure it. Returns it. */
int reader_note_error(struct scache_reader *reader, int error);

/* reader_set_paced - tell the writer, if it sleeps and this is what it waits for. */
void reader_set_paced(struct scache_reader *reader, uint64_t position);
void reader_count_read(struct scache_reader *reader);

/* reader_get_bounce - its buffer of BOUNCE_BYTES, or NULL. */
unsigned char *reader_get_bounce(struct scache_reader *reader);

/* reader_next - some of the next bytes, as scache_read(), but the position stays. */
ssize_t reader_next(struct scache_reader *reader, void *data, size_t bytes, int64_t timeout_ns);

/* reader_advance - the first @bytes of the @data that reader_next() gave are consumed. */
void reader_advance(struct scache_reader *reader, const void *data, size_t bytes);

/* reader_move - the position alone, as others see it as well. */
void reader_move(struct scache_reader *reader, size_t bytes);

/* --------------------------------------------------------------- replay.c */

struct replay *replay_new(void);
void replay_free(struct replay *replay);

/* replay_note - the caller has had these bytes. */
void replay_note(struct replay *replay, const void *data, size_t bytes);
uint64_t replay_until(const struct replay *replay);

/*
 * replay_go_to - its caller has sought to @offset: that is where it goes on once as much
 * as it has had is compared.
 */
void replay_go_to(struct replay *replay, uint64_t offset);

/* replay_is_behind - does the caller already have the bytes at the position? */
static inline bool replay_is_behind(const struct scache_reader *reader)
{
	return unlikely(reader->replay != NULL) && reader->position < replay_until(reader->replay);
}

/*
 * replay_some - take some of the bytes up to @written that the caller has had;
 * 0; -EOWNERDEAD: they are others than those; -errno.
 */
int replay_some(struct scache_reader *reader, uint64_t written);

/* ----------------------------------------------------------------- peek.c */

/* peek_close - its own mapping, when the reader is closed. */
void peek_close(struct scache_reader *reader);

/* ----------------------------------------------------------------- file.c */

/* reader_scrub - compare all of a finished entry's file; see scrub.h. -EAGAIN, -ENODATA too. */
int reader_scrub(struct scache_reader *reader, scrub_pace *pace, void *arg);

/* ------------------------------------------------------------------- fd.c */

/* reader_to_fd - scache_sendfile(); *ret_error: -errno of @fd if it failed, else 0. */
ssize_t reader_to_fd(struct scache_reader *reader, int fd, size_t bytes, int64_t timeout_ns,
		     int *ret_error);

/* ----------------------------------------------------------------- info.c */

/* entry_fill_info - what `ls` and a progress line show of an entry. */
int entry_fill_info(struct store *store, struct entry_name name, unsigned char key[256],
		    struct scache_entry_info *ret_info);

/* Where a long message of a failed producer stands in the file: beyond all blocks. */
static inline uint64_t entry_message_offset(const struct shm_entry *entry, uint64_t written)
{
	if (!(shm_load_relaxed((shm_u32 *)&entry->flags) & ENTRY_LZ4))
		return written;
	return FRAME_HEADER_BYTES + written + block_count(written) * FRAME_BLOCK_EXTRA_BYTES;
}

/* -------------------------------------------------------------- private.c */

/*
 * private_open - a writer and its one reader, in memory that nobody else sees,
 * from the ring alone: what a fetch uses when the cache cannot help. Looks and
 * behaves like an entry that is not kept. 0 or -ENOMEM.
 */
int private_open(uint64_t ring_bytes, const struct entry_draft *draft,
		 struct scache_reader **ret_reader, struct scache_writer **ret_writer);

/* pair_put - one of the two is closed. NULL is a no-op. */
void pair_put(struct stream_pair *pair);

#endif
