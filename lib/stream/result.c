/* SPDX-License-Identifier: MIT */
/*
 * result - how production ended, and the failed producer's words.
 */
#include <errno.h>

#include "base/clock.h"
#include "base/thread.h"
#include "store/blob.h"
#include "stream/stream.h"

/* A finished entry has no message, and a dead producer's is not to be trusted. */
static uint32_t message_bytes_of(const struct scache_reader *reader, int ended)
{
	if (ended == 0 || ended == -EOWNERDEAD)
		return 0;
	return (uint32_t)min_u64(shm_load_relaxed(&reader->entry->message_bytes),
				 SCACHE_MESSAGE_BYTES_MAX);
}

int scache_wait(struct scache_reader *reader, int64_t timeout_ns, struct scache_result *ret_result)
{
	KEEP_ERRNO;
	int64_t deadline_ns = timeout_ns == 0 ? 0 : deadline_after(timeout_ns);
	struct scache_result result = { .code = 0 };
	int ret = reader_check_handle(reader);

	if (ret == -ECHILD || ret == -ESTALE)
		return ret;
	if (ret_result->size == 0)
		return -EINVAL;
	for (;;) {
		uint64_t state = shm_load_acquire(reader->state);

		if (reader_starts_over(reader, state))
			continue;
		ret = reader_ended(reader, state);
		if (ret != -EAGAIN)
			break;
		/* Before a producer that never pauses nobody else would look. */
		if (atomic_load(&reader->cancelled))
			return -ECANCELED;
		pthread_testcancel();
		/* No news but the end counts: wait past all bytes there are. */
		ret = reader_wait_for_news(reader, shm_load(&reader->entry->written), deadline_ns);
		/* Bytes are news to it but none to us: the time is over all the same. */
		if (ret == 0 && deadline_ns != DEADLINE_NEVER && clock_own_ns() >= deadline_ns &&
		    reader_ended(reader, shm_load(reader->state)) == -EAGAIN)
			ret = -ETIMEDOUT;
		if (ret < 0)
			return timeout_ns == 0 && ret == -ETIMEDOUT ? -EAGAIN : ret;
	}
	if (ret == -ESTALE)
		return ret;
	result.code = ret;
	if (ret == -EREMOTEIO)
		result.code = (int32_t)shm_load_relaxed(&reader->entry->code);
	result.message_bytes = message_bytes_of(reader, ret);
	result.bytes = shm_load_acquire(&reader->entry->written);
	if (unlikely(!reader_is_still_there(reader)))
		return -ESTALE;
	result.size = ret_result->size;
	memcpy(ret_result, &result, min_u64(ret_result->size, sizeof(result)));
	return 0;
}

/* The message stands behind the key, as far as it fits there, or in the file. */
static ssize_t copy_message(struct scache_reader *reader, char *text, size_t bytes)
{
	struct shm_entry *entry = reader->entry;
	uint32_t key_bytes = shm_load_relaxed(&entry->key_bytes) & 255, at, i;
	int ret;

	if (shm_load_relaxed(&entry->flags) & ENTRY_FILE_MESSAGE) {
		ret = copy_get_blob(reader);
		if (ret < 0)
			return ret;
		return opened_read(reader->blob, text, bytes,
				   entry_message_offset(entry, shm_load_relaxed(&entry->written)));
	}
	at = (key_bytes + 7) / 8 * 8;
	for (i = 0; i < bytes && at + i < 8 * SHM_KEY_WORDS; i++)
		text[i] = (char)(shm_load_relaxed(&entry->key[(at + i) / 8]) >> (at + i) % 8 * 8);
	return i;
}

ssize_t scache_message(struct scache_reader *reader, char *ret_text, size_t bytes)
{
	KEEP_ERRNO;
	UNCANCELLED;
	int ret = reader_check_handle(reader);
	uint64_t state;
	uint32_t message_bytes;
	ssize_t done = 0;

	if (ret == -ECHILD || ret == -ESTALE)
		return ret;
	state = shm_load_acquire(reader->state);
	ret = reader_ended(reader, state);
	if (ret == -EAGAIN || ret == -ESTALE)
		return ret;
	message_bytes = message_bytes_of(reader, ret);
	if (bytes == 0)
		return message_bytes;
	if (message_bytes > 0)
		done = copy_message(reader, ret_text, (size_t)min_u64(bytes - 1, message_bytes));
	if (unlikely(!reader_is_still_there(reader)))
		return -ESTALE;
	if (done < 0)
		return done;
	ret_text[done] = '\0';
	return message_bytes;
}
