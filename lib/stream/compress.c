/* SPDX-License-Identifier: MIT */
/*
 * compress - the file of an lz4 entry, written by a thread beside its producer.
 *
 * The thread takes whole blocks out of the ring, in which the writer keeps all that
 * is not in the file yet: no other memory is needed. Live readers read the ring and
 * know nothing of it. A thread that has fallen behind by half a ring stores blocks
 * as they are while somebody reads at the head, who would be held up with the producer;
 * otherwise the producer waits for it.
 *
 *	writer:	publish --kick--> thread: encode, write, flushed --done--> writer: room in the ring
 *
 * `flushed` is the thread's as long as there is one. It is joined before the state of
 * the entry changes: after that the slot may be somebody else's. A block that is not
 * whole is only written when no more will come.
 */
#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/step.h"
#include "base/thread.h"
#include "store/blob.h"
#include "store/footer.h"
#include "store/frame.h"
#include "store/packed.h"
#include "stream/stream.h"

#define HEAD_BYTES (512u << 10)

struct compressor {
	struct scache_writer *writer;
	struct frame_encoder *encoder;
	pthread_t thread;
	bool has_thread;
	uint64_t at;	 /* where the file goes on; 0: what a dead one has put there is unread */
	uint64_t *words; /* of the blocks in the file */
	size_t words_room;
	_Atomic uint64_t flushed; /* plain bytes of these */
	pthread_mutex_t mutex;
	pthread_cond_t work, done;
	/* Under the mutex: */
	uint64_t kicked; /* the writer has said that so many plain bytes are there */
	bool is_last;	 /* and that no more will come */
	bool stopped;
	bool in_hurry; /* to have it in the file, as it is */
	int error;
};

/* ---------------------------------------------------------------------- blocks */

/* One word more, of the block that begins at @plain bytes. */
static int note_word(struct compressor *compressor, uint64_t plain, uint64_t word)
{
	size_t count = (size_t)(plain / BLOCK_BYTES);
	uint64_t *words = compressor->words;

	if (count == compressor->words_room) {
		words = realloc(words, (2 * count + 4) * sizeof(*words));
		if (words == NULL)
			return -ENOMEM;
		compressor->words = words;
		compressor->words_room = 2 * count + 4;
	}
	words[count] = word;
	return 0;
}

bool compress_pays(const void *data, size_t bytes)
{
	struct frame_encoder *encoder;
	const unsigned char *from = data;
	uint64_t stored = 0, done, word;
	size_t part;
	const void *unused;

	if (frame_encoder_new(FRAME_LEVEL_DEFAULT, &encoder) < 0)
		return false;
	for (done = 0; done < bytes; done += part) {
		part = (size_t)min_u64(BLOCK_BYTES, bytes - done);
		stored += frame_encode(encoder, from + done, part, true, &unused, &word);
	}
	frame_encoder_free(encoder);
	return stored < bytes / 10 * 9;
}

/* What a dead producer has compressed: where it ends, its words, and all its bytes for the sum. */
static int catch_up(struct compressor *compressor)
{
	uint64_t flushed = atomic_load(&compressor->flushed), done = 0;
	struct unpacked unpacked = { .bytes = 0 };
	struct packed *packed = NULL;
	unsigned char *plain;
	ssize_t part;
	int ret;

	compressor->at = FRAME_HEADER_BYTES;
	if (flushed == 0)
		return 0;
	plain = malloc(BLOCK_BYTES);
	ret = plain == NULL ? -ENOMEM : packed_new(&packed);
	while (ret == 0 && done < flushed) {
		uint64_t word = 0;

		part = packed_read(packed, compressor->writer->fd, &unpacked, plain, BLOCK_BYTES, done,
				   flushed);
		ret = part > 0 ? packed_word(packed, compressor->writer->fd, done, &word) :
		      part == 0 ? -EBADMSG : (int)part;
		if (ret == 0)
			ret = note_word(compressor, done, word);
		if (ret < 0)
			break;
		frame_skip(compressor->encoder, plain, (size_t)part);
		compressor->at += frame_stored_bytes(word);
		done += (uint64_t)part;
	}
	unpacked_free(&unpacked);
	packed_free(packed);
	free(plain);
	return ret;
}

/* The next @bytes plain ones, which lie in one piece, into the file. */
static int put_block(struct compressor *compressor, size_t bytes, bool compress)
{
	struct scache_writer *writer = compressor->writer;
	uint64_t flushed = atomic_load(&compressor->flushed), word;
	const void *data;
	size_t stored;
	int ret = compressor->at == 0 ? catch_up(compressor) : 0;

	if (ret < 0)
		return ret;
	stored = frame_encode(compressor->encoder, writer->ring + (flushed & (writer->ring_bytes - 1)),
			      bytes, compress, &data, &word);
	ret = note_word(compressor, flushed, word);
	if (ret == 0)
		ret = room_write(writer, data, stored, compressor->at);
	if (ret < 0)
		return ret;
	/* STEP block-written: in the file, not announced. Die here: bytes nobody counts. */
	STEP("block-written");
	compressor->at += stored;
	/* ORDER flushed, release: the file before flushed, flushed before floor. Pairs with copy_from_file(). */
	shm_store_release(&writer->entry->flushed, flushed + bytes);
	atomic_store(&compressor->flushed, flushed + bytes);
	/* STEP block-flushed: in ring and file. Die here: readers get all of them. */
	STEP("block-flushed");
	return 0;
}

/* How much can be put now; under the mutex. */
static size_t pending(const struct compressor *compressor)
{
	uint64_t bytes = compressor->kicked - atomic_load(&compressor->flushed);

	if (bytes < BLOCK_BYTES && !compressor->is_last)
		return 0;
	return (size_t)min_u64(bytes, BLOCK_BYTES);
}

/*
 * There is no time to compress: half of the ring waits for us, and at its head somebody
 * reads who would have to wait with the writer.
 */
static bool is_late(const struct compressor *compressor, uint64_t kicked)
{
	const struct scache_writer *writer = compressor->writer;
	struct cursor_survey survey;

	if (kicked - atomic_load(&compressor->flushed) <= writer->ring_bytes / 2)
		return false;
	cursor_survey(writer->store->segment, writer->name, &survey);
	return survey.count > 0 &&
	       survey.fastest + HEAD_BYTES >= shm_load_acquire(&writer->entry->written);
}

/* Put what there is, without the mutex; it is taken when it returns. */
static void put_pending(struct compressor *compressor)
{
	uint64_t kicked;
	bool in_hurry;
	size_t bytes;
	int ret;

	while (!compressor->stopped && compressor->error == 0 && (bytes = pending(compressor)) > 0) {
		kicked = compressor->kicked;
		in_hurry = compressor->in_hurry;
		pthread_mutex_unlock(&compressor->mutex);
		ret = put_block(compressor, bytes, !in_hurry && !is_late(compressor, kicked));
		pthread_mutex_lock(&compressor->mutex);
		if (ret < 0)
			compressor->error = ret;
		pthread_cond_signal(&compressor->done);
	}
}

static void *run(void *arg)
{
	struct compressor *compressor = arg;

	pthread_mutex_lock(&compressor->mutex);
	for (;;) {
		put_pending(compressor);
		if (compressor->stopped || compressor->error < 0 || compressor->is_last)
			break;
		pthread_cond_wait(&compressor->work, &compressor->mutex);
	}
	pthread_mutex_unlock(&compressor->mutex);
	return NULL;
}

/* ------------------------------------------------------------------- its writer */

static int make(struct scache_writer *writer)
{
	struct compressor *compressor = calloc(1, sizeof(*compressor));
	int ret;

	if (compressor == NULL)
		return -ENOMEM;
	ret = frame_encoder_new((int)writer->level, &compressor->encoder);
	if (ret < 0) {
		free(compressor);
		return ret;
	}
	compressor->writer = writer;
	atomic_init(&compressor->flushed, writer->flushed);
	pthread_mutex_init(&compressor->mutex, NULL);
	pthread_cond_init(&compressor->work, NULL);
	pthread_cond_init(&compressor->done, NULL);
	writer->compressor = compressor;
	return 0;
}

/* Tell it what there is. Without a thread this one has to do it. */
static void kick(struct compressor *compressor, uint64_t written, bool is_last)
{
	pthread_mutex_lock(&compressor->mutex);
	compressor->kicked = written;
	compressor->is_last = is_last;
	if (!compressor->has_thread && !is_last)
		compressor->has_thread = thread_start(&compressor->thread, run, compressor) == 0;
	if (compressor->has_thread)
		pthread_cond_signal(&compressor->work);
	else
		put_pending(compressor);
	pthread_mutex_unlock(&compressor->mutex);
}

static void join(struct compressor *compressor)
{
	if (compressor->has_thread)
		pthread_join(compressor->thread, NULL);
	compressor->has_thread = false;
}

/* What it has done by now; what it could not do is not kept. */
static void take_stock(struct scache_writer *writer, int error)
{
	writer->flushed = atomic_load(&writer->compressor->flushed);
	if (error < 0)
		writer_go_without_file(writer);
}

void compress_flush(struct scache_writer *writer, bool all)
{
	UNCANCELLED;
	struct compressor *compressor = writer->compressor;
	int error;

	if (writer->ring_only)
		return;
	if (compressor == NULL) {
		if (!all && writer->written - writer->flushed < BLOCK_BYTES)
			return;
		if (make(writer) < 0) {
			writer_go_without_file(writer);
			return;
		}
		compressor = writer->compressor;
	}
	if (!all && writer->written / BLOCK_BYTES == compressor->kicked / BLOCK_BYTES) {
		writer->flushed = atomic_load(&compressor->flushed);
		return;
	}
	kick(compressor, writer->written, all);
	if (all)
		join(compressor);
	pthread_mutex_lock(&compressor->mutex);
	error = compressor->error;
	pthread_mutex_unlock(&compressor->mutex);
	take_stock(writer, error);
}

void compress_make_room(struct scache_writer *writer)
{
	UNCANCELLED;
	struct compressor *compressor = writer->compressor;
	uint64_t most = writer->ring_bytes - writer->slice_bytes;
	int error;

	if (compressor == NULL || writer->written - writer->flushed <= most)
		return;
	pthread_mutex_lock(&compressor->mutex);
	while (compressor->error == 0 && writer->written - atomic_load(&compressor->flushed) > most)
		pthread_cond_wait(&compressor->done, &compressor->mutex);
	error = compressor->error;
	pthread_mutex_unlock(&compressor->mutex);
	take_stock(writer, error);
}

void compress_hurry(struct scache_writer *writer)
{
	struct compressor *compressor = writer->compressor;

	if (compressor == NULL)
		return;
	pthread_mutex_lock(&compressor->mutex);
	compressor->in_hurry = true;
	pthread_mutex_unlock(&compressor->mutex);
}

void compress_stop(struct scache_writer *writer)
{
	struct compressor *compressor = writer->compressor;

	if (compressor == NULL || !compressor->has_thread)
		return;
	pthread_mutex_lock(&compressor->mutex);
	compressor->stopped = true;
	pthread_cond_signal(&compressor->work);
	pthread_mutex_unlock(&compressor->mutex);
	join(compressor);
	writer->flushed = atomic_load(&compressor->flushed);
}

int compress_end(struct scache_writer *writer, struct footer *footer)
{
	struct compressor *compressor = writer->compressor;
	unsigned char header[FRAME_HEADER_BYTES], end[FRAME_END_BYTES];
	int ret = compressor->at == 0 ? catch_up(compressor) : 0;

	if (ret < 0)
		return ret;
	/* A dead producer may have stored more than it published. */
	if (writer->taken_over && ftruncate(writer->fd, (off_t)compressor->at) < 0)
		return -errno;
	frame_header(writer->written, header);
	frame_end(compressor->encoder, end);
	ret = room_write(writer, header, sizeof(header), 0);
	if (ret == 0)
		ret = room_write(writer, end, sizeof(end), compressor->at);
	footer->format = BLOB_LZ4;
	footer->stored_bytes = compressor->at + sizeof(end);
	footer->words = compressor->words;
	return ret;
}

void compress_free(struct scache_writer *writer)
{
	struct compressor *compressor = writer->compressor;

	writer->compressor = NULL;
	if (compressor == NULL)
		return;
	frame_encoder_free(compressor->encoder);
	pthread_mutex_destroy(&compressor->mutex);
	pthread_cond_destroy(&compressor->work);
	pthread_cond_destroy(&compressor->done);
	free(compressor->words);
	free(compressor);
}
