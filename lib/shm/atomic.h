/* SPDX-License-Identifier: MIT */
/*
 * atomic - every access to a shared word goes through here.
 *
 * Plain C11 atomics: correct on every machine, visible to ThreadSanitizer,
 * and one place where a test build can count or interleave the accesses.
 *
 * Orders. shm_load(), shm_store(), shm_cas() and shm_or() are sequentially
 * consistent: they are the words of the Dekker pairs (pin/unlink,
 * cursor/door, position/sleep bit), where anything weaker is wrong. The
 * _acquire/_release ones hand over data; the _relaxed ones are for words that
 * something else orders, or that are statistics.
 */
#ifndef SHM_ATOMIC_H
#define SHM_ATOMIC_H

#include <stdatomic.h>
#include <string.h>

#include "base/compiler.h"
#include "base/step.h"

#ifndef __has_feature
#define __has_feature(x) 0
#endif
#if defined(__SANITIZE_THREAD__) || __has_feature(thread_sanitizer)
#define UNDER_TSAN 1
#else
#define UNDER_TSAN 0
#endif

typedef _Atomic uint64_t shm_u64;
typedef _Atomic uint32_t shm_u32;

/* A test build stops before each access: ACCESS() is nothing anywhere else. */
#define shm_load(word) (ACCESS(word), atomic_load_explicit((word), memory_order_seq_cst))
#define shm_load_acquire(word) (ACCESS(word), atomic_load_explicit((word), memory_order_acquire))
#define shm_load_relaxed(word) (ACCESS(word), atomic_load_explicit((word), memory_order_relaxed))
#define shm_store(word, value) \
	(ACCESS(word), atomic_store_explicit((word), (value), memory_order_seq_cst))
#define shm_store_release(word, value) \
	(ACCESS(word), atomic_store_explicit((word), (value), memory_order_release))
#define shm_store_relaxed(word, value) \
	(ACCESS(word), atomic_store_explicit((word), (value), memory_order_relaxed))
#define shm_or(word, bits) \
	(ACCESS(word), atomic_fetch_or_explicit((word), (bits), memory_order_seq_cst))
#define shm_add(word, n) \
	(ACCESS(word), atomic_fetch_add_explicit((word), (n), memory_order_seq_cst))
#define shm_exchange(word, value) \
	(ACCESS(word), atomic_exchange_explicit((word), (value), memory_order_seq_cst))
#define shm_add_relaxed(word, n) \
	(ACCESS(word), atomic_fetch_add_explicit((word), (n), memory_order_relaxed))

static inline bool shm_cas(shm_u64 *word, uint64_t expected, uint64_t desired)
{
	ACCESS(word);
	return atomic_compare_exchange_strong_explicit(word, &expected, desired,
						       memory_order_seq_cst, memory_order_seq_cst);
}

static inline bool shm_cas32(shm_u32 *word, uint32_t expected, uint32_t desired)
{
	ACCESS(word);
	return atomic_compare_exchange_strong_explicit(word, &expected, desired,
						       memory_order_seq_cst, memory_order_seq_cst);
}

/* Lower a hint to @value if it is higher. */
static inline void shm_lower(shm_u64 *word, uint64_t value)
{
	uint64_t now = shm_load(word);

	while (value < now && !shm_cas(word, now, value))
		now = shm_load(word);
}

/*
 * The bytes of a ring are a seqlock's payload: the writer may overwrite them
 * while a reader copies, and the reader finds out afterwards (stream/copy.c).
 * ThreadSanitizer gets the same copy made of relaxed atomics, which is what
 * the C11 memory model asks for; elsewhere memcpy() is the fast way to say it.
 */
static inline void ring_copy_in(void *ring, const void *data, size_t bytes)
{
	ACCESS(ring);
#if UNDER_TSAN
	for (size_t i = 0; i < bytes; i++)
		__atomic_store_n((unsigned char *)ring + i, ((const unsigned char *)data)[i],
				 __ATOMIC_RELAXED);
#else
	memcpy(ring, data, bytes);
#endif
}

static inline void ring_copy_out(void *data, const void *ring, size_t bytes)
{
	ACCESS(ring);
#if UNDER_TSAN
	for (size_t i = 0; i < bytes; i++)
		((unsigned char *)data)[i] =
			__atomic_load_n((const unsigned char *)ring + i, __ATOMIC_RELAXED);
#else
	memcpy(data, ring, bytes);
#endif
}

/* Sequence a seqlock's guard word before (writer) or after (reader) its payload. */
static inline void shm_fence_release(void)
{
	atomic_thread_fence(memory_order_release);
}

static inline void shm_fence_acquire(void)
{
	atomic_thread_fence(memory_order_acquire);
}

#endif
