/* SPDX-License-Identifier: MIT */
/*
 * operations - what the explored processes do, all to one key.
 *
 * Each operation ends with everything closed that it has opened, and says
 * (finding()) what no schedule may lead to. A blob's first words are the number
 * of its production and its length, all others follow from the number, so a
 * byte of another blob, of an earlier schedule or of no blob at all is seen.
 */
#include <errno.h>
#include <string.h>

#include "explore.h"
#include "index/repair.h"
#include "index/seen.h"

#define SMALL_BYTES 304u
#define LARGE_BYTES (80u << 10) /* of a ring of 64 KiB */
#define PIECE_BYTES (20u << 10)
#define RING_BYTES (64u << 10)	  /* the first ones go there */
#define PASSING_BYTES (64u << 10) /* in one write thereafter: past the ring */
#define PASSING_BLOB_BYTES (144u << 10)
#define PACKED_BYTES (300u << 10) /* a block and a part of one */
#define PACKED_PIECE_BYTES (100u << 10)
#define PACKED_LARGE_BYTES (1300u << 10) /* more than the ring of such a world */
#define PACKED_LARGE_PIECE_BYTES (260u << 10)
#define PACKED_ORPHAN_BYTES (280u << 10)
#define ABORT_CODE (-EDOM)
#define ORPHAN_BYTES (70u << 10)  /* of LARGE_BYTES; the ring is full and more */
#define DEAD_AGE_NS 2000000000ull /* nobody believes a stamp as old as this */
#define ORPHAN_UNIT_NS (1ull << 25)
#define FADING_NS (20 * 1000000ull) /* less than a tick */

static uint64_t next_production = 1, first_production;
static const struct scenario *current;

/* -------------------------------------------------------------------- blobs */

/* Of a packed blob it pays to compress them. */
static uint64_t word_of(uint64_t production, uint64_t i)
{
	if (base_is_packed(current->base))
		i /= 32;
	return (i + 1) * 0x9e3779b97f4a7c15ull + production;
}

static void fill_blob(struct process *me, uint64_t production, uint64_t bytes)
{
	uint64_t *sent = (uint64_t *)(void *)me->sent;

	for (uint64_t i = 2; i < bytes / 8; i++)
		sent[i] = word_of(production, i);
	sent[0] = production;
	sent[1] = bytes;
}

static void make_blob(struct process *me, uint32_t bytes)
{
	fill_blob(me, next_production++, bytes);
}

static bool is_known(uint64_t production)
{
	return production >= first_production && production < next_production;
}

static void check_bytes(const struct process *me)
{
	const uint64_t *got = (const uint64_t *)(const void *)me->got;

	if (me->position == 0)
		return;
	if (me->position < 16 || !is_known(got[0])) {
		finding("process %u read a blob that nobody has written", me->number);
		return;
	}
	for (uint64_t i = 2; i < me->position / 8; i++)
		if (got[i] != word_of(got[0], i)) {
			finding("process %u read wrong bytes at %llu of %llu", me->number,
				(unsigned long long)i * 8, (unsigned long long)me->position);
			return;
		}
	if (me->read_result == 0 && me->position != got[1])
		finding("process %u read %llu bytes of %llu and then their end", me->number,
			(unsigned long long)me->position, (unsigned long long)got[1]);
}

static bool has_operation(uint32_t flags, void (*run)(struct process *me))
{
	for (unsigned i = 0; i < current->count; i++)
		if ((flags != 0 && current->ops[i]->flags & flags) || current->ops[i]->run == run)
			return true;
	return false;
}

static void run_abort(struct process *me);
static void run_remove(struct process *me);
static void run_stream(struct process *me);

/* Died at its end: with a part of a block in the file nobody goes on. */
static bool ends_within_block(const struct process *me)
{
	struct scache_entry_info info = { .size = sizeof(info) };

	return base_is_packed(current->base) && scache_reader_info(me->reader, &info) == 0 &&
	       info.stored_bytes % BLOCK_BYTES != 0;
}

/* Without a successor; and whoever can be that has no excuse. */
static bool may_see_death(const struct process *me)
{
	if (current->base == BASE_DEAD || current->base == BASE_FADING_ORPHAN)
		return true;
	if (me->op->run == run_stream)
		return now.deaths > 0 && ends_within_block(me);
	/* What was removed is found by nobody who comes. */
	return now.deaths > 0 || (base_is_orphan(current->base) && has_operation(0, run_remove));
}

/* All that was published, and nothing more. */
static void check_published(const struct process *me)
{
	uint64_t bytes = 0;

	if (scache_size(me->reader, &bytes) < 0 || bytes != me->position)
		finding("process %u read %llu bytes of %llu that were published", me->number,
			(unsigned long long)me->position, (unsigned long long)bytes);
}

static void check_end(const struct process *me)
{
	check_published(me);
	switch (me->read_result) {
	case 0:
		return;
	case -EOWNERDEAD:
		if (may_see_death(me))
			return;
		break;
	case ABORT_CODE:
		if (has_operation(0, run_abort))
			return;
		break;
	default:
		break;
	}
	finding("process %u: read returns %s", me->number, strerrorname_np(-me->read_result));
}

/* ----------------------------------------------------------- reading, writing */

static void close_reader(struct process *me)
{
	struct scache_reader *reader = me->reader;

	me->reader = NULL;
	if (scache_reader_close(reader) != 0)
		finding("process %u cannot close its reader", me->number);
}

/* As scache_read(), but seen in place, and gone on by halves. */
static ssize_t peek_some(struct process *me, unsigned char *got, size_t bytes)
{
	const unsigned char *seen;
	const void *data;
	ssize_t done = scache_peek(me->reader, &data, bytes, SCACHE_FOREVER);
	size_t half = done > 1 ? (size_t)done / 2 : 0;

	uint64_t published = 0;

	if (done <= 0)
		return done;
	scache_size(me->reader, &published);
	if (published < me->position + (uint64_t)done)
		finding("process %u was shown %llu bytes of %llu that are published", me->number,
			(unsigned long long)me->position + (unsigned long long)done,
			(unsigned long long)published);
	seen = data;
	memcpy(got, seen, (size_t)done);
	if (scache_consume(me->reader, half) != (ssize_t)half)
		finding("process %u cannot consume what it was shown", me->number);
	if (memcmp(got + half, seen + half, (size_t)done - half) != 0)
		finding("process %u: what it was shown has changed", me->number);
	if (scache_consume(me->reader, (size_t)done - half) != done - (ssize_t)half)
		finding("process %u cannot consume the rest of what it was shown", me->number);
	return done;
}

static ssize_t read_some(struct process *me, unsigned char *got, size_t bytes)
{
	if (me->op->flags & PEEKS)
		return peek_some(me, got, bytes);
	return scache_read(me->reader, got, bytes, SCACHE_FOREVER);
}

static size_t piece_for_readers(void)
{
	return base_is_packed(current->base) ? PACKED_PIECE_BYTES : PIECE_BYTES;
}

static void read_to_end(struct process *me)
{
	ssize_t done;

	do {
		size_t room = BLOB_MAX - me->position, piece = piece_for_readers();

		done = read_some(me, me->got + me->position, room < piece ? room : piece);
		if (done > 0)
			me->position += (uint64_t)done;
	} while (done > 0 && me->position < BLOB_MAX);
	me->read_result = (int)done;
	check_end(me);
	check_bytes(me);
	close_reader(me);
}

/* How much of a blob of @bytes is written at once from @at on. */
static uint32_t piece_at(const struct operation *op, uint32_t at, uint32_t bytes)
{
	uint32_t piece = bytes == PACKED_LARGE_BYTES ? PACKED_LARGE_PIECE_BYTES
			 : bytes == PACKED_BYTES     ? PACKED_PIECE_BYTES
			 : bytes > PIECE_BYTES       ? PIECE_BYTES
						     : bytes / 16 * 8;

	if ((op->flags & PASSES && at == RING_BYTES) ||
	    (op->flags & PASSES_LATER && at == RING_BYTES + SMALL_BYTES))
		piece = PASSING_BYTES;
	else if (op->flags & PASSES_LATER && at == RING_BYTES)
		piece = SMALL_BYTES;
	return bytes - at < piece ? bytes - at : piece;
}

/* Who goes on with another's work, wherever that has died: what it publishes can be read. */
static void read_back(struct process *me, uint32_t at, size_t bytes)
{
	static unsigned char got[BLOB_MAX];
	ssize_t done;

	if (me->reader == NULL || !me->writer->taken_over)
		return;
	done = scache_pread(me->reader, got, bytes, at, 0);
	if (done <= 0 || memcmp(got, me->sent + at, (size_t)done) != 0)
		finding("process %u reads %zd of %zu bytes that it has just written", me->number,
			done, bytes);
}

/* True if all @bytes are written. */
static bool write_blob(struct process *me, uint32_t bytes)
{
	uint32_t at = (uint32_t)scache_written(me->writer);

	while (at < bytes) {
		ssize_t done = scache_write(me->writer, me->sent + at,
					    piece_at(me->op, at, bytes), SCACHE_FOREVER);

		if (done < 0) {
			me->result = (int)done;
			/* Its own reader is there, or it was told to go on without. */
			if (done != -EPIPE || me->reader != NULL ||
			    me->op->acquire_flags & SCACHE_RUN_TO_END)
				finding("process %u: write returns %s", me->number,
					strerrorname_np((int)-done));
			return false;
		}
		read_back(me, at, (size_t)done);
		at += (uint32_t)done;
	}
	return true;
}

static void close_writer(struct process *me)
{
	struct scache_writer *writer = me->writer;

	me->writer = NULL;
	if (scache_writer_close(writer) != 0)
		finding("process %u cannot close its writer", me->number);
}

/* What is published says which blob it is. Its length, or 0. */
static uint32_t continue_blob(struct process *me)
{
	uint64_t begun[2] = { 0 };
	ssize_t done = scache_pread(me->reader, begun, sizeof(begun), 0, 0);

	if (done != sizeof(begun) || !is_known(begun[0]) || begun[1] > BLOB_MAX ||
	    scache_written(me->writer) > begun[1]) {
		finding("process %u goes on with a blob that nobody has begun", me->number);
		return 0;
	}
	fill_blob(me, begun[0], begun[1]);
	return (uint32_t)begun[1];
}

static void produce(struct process *me, uint32_t bytes)
{
	bool is_kept = !(me->op->acquire_flags & SCACHE_PASS_THROUGH) &&
		       !writer_is_transient(me->writer);
	bool is_written;

	me->takeovers += me->writer->taken_over;
	if (me->writer->taken_over && scache_written(me->writer) > 0)
		bytes = continue_blob(me);
	else if (scache_written(me->writer) == 0)
		make_blob(me, bytes);
	is_written = write_blob(me, bytes);
	/* Its own file, or that of the dead one before it. */
	if (has_operation(LOSES_FILE, NULL) && me->writer->ring_only)
		is_kept = false;
	if (is_written) {
		me->result = scache_finish(me->writer);
		if (me->result != (is_kept ? 0 : SCACHE_NOT_KEPT))
			finding("process %u: finish returns %d", me->number, me->result);
	}
	close_writer(me);
}

/* --------------------------------------------------------------- operations */

static int acquire(struct process *me, bool with_reader)
{
	const struct scache_acquire_options options = { .size = sizeof(options),
							.flags = me->op->acquire_flags,
							.window_bytes = me->op->window_bytes,
							.compression = me->op->flags & PACKED
									       ? SCACHE_LZ4
									       : SCACHE_RAW };

	return scache_acquire(me->cache, EXPLORED_KEY, EXPLORED_KEY_BYTES, &options,
			      with_reader ? &me->reader : NULL, &me->writer);
}

/* Who dies while it adopts may take the file along. */
static bool is_stored(void)
{
	return current->base == BASE_SEALED || (current->base == BASE_FORMER && now.deaths == 0);
}

static void run_acquire(struct process *me)
{
	me->result = acquire(me, true);
	if (me->result != 0) {
		finding("process %u: acquire returns %d", me->number, me->result);
		return;
	}
	if (me->writer != NULL) {
		me->elections++;
		if (is_stored() && !has_operation(TAKES_AWAY, NULL))
			finding("process %u is elected although the blob is stored", me->number);
		produce(me, SMALL_BYTES);
	}
	read_to_end(me);
}

/* Is there a time at which the key has no entry, but for what @me does? */
static bool may_be_absent(const struct process *me)
{
	for (unsigned i = 0; i < current->count; i++)
		if (&seats[i] != me && current->ops[i]->flags & TAKES_AWAY)
			return true;
	if (current->base == BASE_SEALED || current->base == BASE_FORMER)
		return !is_stored();
	return !base_is_orphan(current->base) || current->base == BASE_FADING_ORPHAN ||
	       now.deaths > 0;
}

static void run_lookup(struct process *me)
{
	me->result = scache_lookup(me->cache, EXPLORED_KEY, EXPLORED_KEY_BYTES, NULL, &me->reader);
	if (me->result == 0)
		read_to_end(me);
	else if (me->result != -ENOENT || !may_be_absent(me))
		finding("process %u: lookup returns %s", me->number, strerrorname_np(-me->result));
}

static void run_remove(struct process *me)
{
	me->result = scache_remove(me->cache, EXPLORED_KEY, EXPLORED_KEY_BYTES);
	if (me->result != 0 && (me->result != -ENOENT || !may_be_absent(me)))
		finding("process %u: remove returns %s", me->number, strerrorname_np(-me->result));
}

static void run_sweep(struct process *me)
{
	const struct scache_sweep_options options = { .size = sizeof(options),
						      .max_age_ns = SCACHE_ZERO };
	struct scache_sweep_report report = { .size = sizeof(report) };

	me->result = scache_sweep(me->cache, &options, &report);
	/* A former file that another has overtaken goes as an orphan does. */
	if (me->result != 0 || report.unknown > 0 ||
	    (report.orphans > 0 && current->base != BASE_FORMER))
		finding("process %u: sweep returns %d with %llu orphans", me->number, me->result,
			(unsigned long long)(report.orphans + report.unknown));
}

static void run_write(struct process *me)
{
	produce(me, me->op->bytes);
	if (me->reader != NULL)
		read_to_end(me);
}

/* And what the file has, as who comes late reads it. */
static void run_packed(struct process *me)
{
	run_write(me);
	me->position = 0;
	run_lookup(me);
}

static void run_abort(struct process *me)
{
	make_blob(me, SMALL_BYTES);
	if (write_blob(me, SMALL_BYTES / 2)) {
		me->result = scache_abort(me->writer, ABORT_CODE, "why", 3);
		if (me->result != 0)
			finding("process %u: abort returns %d", me->number, me->result);
	}
	close_writer(me);
}

/*
 * A stream of scache_fetch() that waits beside its producer, but for the thread: the
 * callback is run to its end by the reader that has taken over.
 */
static int take_over(struct reader_origin *origin, struct store *store, struct entry_name name,
		     uint64_t state)
{
	const struct writer_terms terms = { .stall_ns = UINT64_MAX };
	struct process *me = running;
	int ret = writer_take_over(store, name, state, &terms, 0, &me->writer);

	(void)origin;
	if (ret < 0)
		return ret;
	me->elections++;
	me->writer->open_streams = &me->cache->job_streams;
	atomic_fetch_add(me->writer->open_streams, 1);
	store_get(store);
	produce(me, SMALL_BYTES);
	return 0;
}

static int retake(struct reader_origin *origin, enum retake why, struct scache_reader **ret_reader)
{
	(void)origin;
	(void)why;
	(void)ret_reader;
	return -ENOTSUP;
}

static void put_origin(struct reader_origin *origin)
{
	(void)origin;
}

static void run_stream(struct process *me)
{
	static struct reader_origin origin = { .retake = retake,
					       .take_over = take_over,
					       .put = put_origin };

	me->reader->origin = &origin;
	read_to_end(me);
}

/* Somebody else holds the reader's place, and now it leaves. */
static void run_close(struct process *me)
{
	close_reader(me);
}

const struct operation operations[] = {
	{ "acquire", run_acquire, 0, 0, 0, SMALL_BYTES },
	{ "refresh", run_acquire, TAKES_AWAY, SCACHE_REFRESH, 0, SMALL_BYTES },
	{ "lookup", run_lookup, 0, 0, 0, 0 },
	{ "remove", run_remove, TAKES_AWAY, 0, 0, 0 },
	{ "sweep", run_sweep, TAKES_AWAY, 0, 0, 0 },
	{ "read", read_to_end, NEEDS_READER, 0, 0, 0 },
	{ "close", run_close, NEEDS_READER, 0, 0, 0 },
	{ "finish", run_write, NEEDS_WRITER | WITH_OWN_READER, 0, 0, SMALL_BYTES },
	{ "lonely", run_write, NEEDS_WRITER, 0, 0, SMALL_BYTES },
	{ "abort", run_abort, NEEDS_WRITER, 0, 0, SMALL_BYTES },
	{ "paced", run_write, NEEDS_WRITER, SCACHE_RUN_TO_END, SCACHE_ZERO, SMALL_BYTES },
	{ "wrap", run_write, NEEDS_WRITER, SCACHE_RUN_TO_END, SCACHE_UNLIMITED, LARGE_BYTES },
	{ "pass", run_write, NEEDS_WRITER, SCACHE_RUN_TO_END | SCACHE_PASS_THROUGH, 0,
	  LARGE_BYTES },
	{ "resumable", run_write, NEEDS_WRITER, SCACHE_RESUMABLE | SCACHE_RUN_TO_END, 0,
	  SMALL_BYTES },
	{ "resume", run_acquire, TAKES_OVER, SCACHE_RESUMABLE, 0, SMALL_BYTES },
	{ "stream", run_stream, NEEDS_READER | TAKES_OVER, 0, 0, 0 },
	{ "large", run_write, NEEDS_WRITER | PASSES, SCACHE_RESUMABLE | SCACHE_RUN_TO_END,
	  SCACHE_UNLIMITED, PASSING_BLOB_BYTES },
	{ "mixed", run_write, NEEDS_WRITER | PASSES_LATER, SCACHE_RESUMABLE | SCACHE_RUN_TO_END,
	  SCACHE_UNLIMITED, PASSING_BLOB_BYTES },
	{ "packed", run_packed, NEEDS_WRITER | PACKED, SCACHE_RESUMABLE | SCACHE_RUN_TO_END,
	  SCACHE_UNLIMITED, PACKED_BYTES },
	{ "packed-wrap", run_packed, NEEDS_WRITER | PACKED, SCACHE_RESUMABLE | SCACHE_RUN_TO_END,
	  SCACHE_UNLIMITED, PACKED_LARGE_BYTES },
	{ "rescued", run_write, NEEDS_WRITER | LOSES_FILE, SCACHE_RESUMABLE | SCACHE_RUN_TO_END,
	  SCACHE_UNLIMITED, SMALL_BYTES },
	{ "peek", read_to_end, NEEDS_READER | PEEKS, 0, 0, 0 },
	{ "reserve", run_reserve, LIMITED, 0, 0, 0 },
	{ "peek-stream", run_stream, NEEDS_READER | TAKES_OVER | PEEKS, 0, 0, 0 },
};
const unsigned operation_count = sizeof(operations) / sizeof(operations[0]);

/* ---------------------------------------------------------------- beginnings */

static void begin_process(struct process *p, const struct operation *op)
{
	p->op = op;
	p->done = p->dead = p->asleep = false;
	p->label = p->awaits = NULL;
	p->position = 0;
	p->result = p->read_result = 0;
	p->elections = p->takeovers = 0;
	p->reader = NULL;
	p->writer = NULL;
}

void put_and_get(struct process *me)
{
	begin_process(me, &operations[0]);
	if (acquire(me, false) != 0 || me->writer == NULL) {
		finding("afterwards the key cannot be produced again");
		return;
	}
	produce(me, SMALL_BYTES);
	me->result = scache_lookup(me->cache, EXPLORED_KEY, EXPLORED_KEY_BYTES, NULL, &me->reader);
	if (me->result != 0) {
		finding("afterwards what is put cannot be found");
		return;
	}
	read_to_end(me);
	if (me->position != SMALL_BYTES)
		finding("afterwards what is put cannot be read");
}

static void hide_rings(void)
{
	struct segment *segment = seats[WARDEN].cache->seat->peer.segment;

	for (uint32_t i = 0; i < segment->geometry.rings; i++)
		shm_store(&segment->ring_owners[i], NAME_WORD(UINT32_MAX, 0));
}

void give_rings(void)
{
	struct segment *segment = seats[WARDEN].cache->seat->peer.segment;

	for (uint32_t i = 0; i < segment->geometry.rings; i++)
		shm_cas(&segment->ring_owners[i], NAME_WORD(UINT32_MAX, 0), 0);
}

void want(uint64_t occurrences)
{
	struct segment *segment = seats[WARDEN].cache->seat->peer.segment;

	shm_store(&segment->header->settings[SETTING_MIN_OCCURRENCES], occurrences);
	for (uint32_t i = 0; i < segment->geometry.buckets * SHM_SEEN_PER_BUCKET; i++)
		shm_store(&segment->seen[i], 0);
}

/* Somebody reads it until those are there who are to be the last. */
static void hold_seldom(struct process *warden)
{
	begin_process(warden, &operations[0]);
	if (acquire(warden, true) != 0 || warden->writer == NULL)
		finding("before it begins: nothing that is wanted seldom");
	else
		produce(warden, SMALL_BYTES);
}

static void attach_readers(const struct scenario *scenario)
{
	for (unsigned i = 0; i < scenario->count; i++) {
		struct process *p = &seats[i];

		on_behalf = p;
		if (p->op->flags & NEEDS_READER &&
		    scache_lookup(p->cache, EXPLORED_KEY, EXPLORED_KEY_BYTES, NULL, &p->reader) !=
			    0)
			finding("before it begins: nothing to read");
	}
	on_behalf = NULL;
}

/* What the victim dies in. */
static const struct operation dead_ones[BASES] = {
	[BASE_DEAD] = { .bytes = SMALL_BYTES },
	[BASE_ORPHAN] = { .acquire_flags = SCACHE_RESUMABLE, .bytes = SMALL_BYTES },
	[BASE_RINGLESS_ORPHAN] = { .acquire_flags = SCACHE_RESUMABLE, .bytes = SMALL_BYTES },
	[BASE_LARGE_ORPHAN] = { .acquire_flags = SCACHE_RESUMABLE | SCACHE_RUN_TO_END,
				.window_bytes = SCACHE_UNLIMITED,
				.bytes = LARGE_BYTES },
	[BASE_FADING_ORPHAN] = { .acquire_flags = SCACHE_RESUMABLE, .bytes = SMALL_BYTES },
	[BASE_PACKED_ORPHAN] = { .flags = PACKED,
				 .acquire_flags = SCACHE_RESUMABLE | SCACHE_RUN_TO_END,
				 .window_bytes = SCACHE_UNLIMITED,
				 .bytes = PACKED_BYTES },
};

static void begin_victim(enum base base)
{
	struct process *victim = &seats[VICTIM];
	uint32_t bytes = dead_ones[base].bytes;

	begin_process(victim, &dead_ones[base]);
	if (bytes == 0)
		return;
	on_behalf = victim;
	make_blob(victim, bytes);
	bytes = bytes == LARGE_BYTES    ? ORPHAN_BYTES
		: bytes == PACKED_BYTES ? PACKED_ORPHAN_BYTES
					: bytes / 2;
	if (acquire(victim, true) != 0 ||
	    scache_write(victim->writer, victim->sent, bytes, 0) != (ssize_t)bytes)
		finding("before it begins: no victim");
	on_behalf = NULL;
}

static void kill_victim(enum base base)
{
	struct process *victim = &seats[VICTIM];

	if (dead_ones[base].bytes == 0)
		return;
	world_kill(victim);
	if (base == BASE_DEAD)
		virtual_ns += DEAD_AGE_NS;
	if (base_is_orphan(base) &&
	    repair_reap(&seats[WARDEN].cache->seat->peer, victim->cache->seat->peer.slot) == 0)
		finding("before it begins: no orphan");
	if (base == BASE_FADING_ORPHAN)
		virtual_ns = (virtual_ns / ORPHAN_UNIT_NS + ORPHAN_PATIENCE + 1) * ORPHAN_UNIT_NS -
			     FADING_NS;
}

/* The first bytes of an entry are in the ring: nothing to explore here. */
static void fill_ring(struct process *p)
{
	make_blob(p, p->op->bytes);
	if (scache_write(p->writer, p->sent, RING_BYTES, 0) != RING_BYTES)
		finding("before it begins: no full ring");
}

void operations_begin(const struct scenario *scenario)
{
	current = scenario;
	first_production = next_production;
	limited_begin();
	for (unsigned i = 0; i < scenario->count; i++)
		begin_process(&seats[i], scenario->ops[i]);
	for (unsigned i = scenario->count; i < PROCESSES_MAX; i++)
		seats[i].op = NULL;
	if (base_is_ringless(scenario->base))
		hide_rings();
	if (base_is_seldom(scenario->base))
		want(SEEN_MOST);
	if (scenario->base == BASE_SELDOM)
		hold_seldom(&seats[WARDEN]);
	if (scenario->base == BASE_SEALED || scenario->base == BASE_FORMER)
		put_and_get(&seats[WARDEN]);
	if (scenario->base == BASE_FORMER)
		world_make_former();
	for (unsigned i = 0; i < scenario->count; i++) {
		on_behalf = &seats[i];
		if (seats[i].op->flags & NEEDS_WRITER &&
		    acquire(&seats[i], seats[i].op->flags & WITH_OWN_READER) != 0)
			finding("before it begins: no writer");
		if (seats[i].op->flags & (PASSES | PASSES_LATER))
			fill_ring(&seats[i]);
		if (seats[i].op->flags & LOSES_FILE)
			give_rings();
	}
	begin_victim(scenario->base);
	attach_readers(scenario);
	if (scenario->base == BASE_SELDOM)
		close_reader(&seats[WARDEN]);
	kill_victim(scenario->base);
}
