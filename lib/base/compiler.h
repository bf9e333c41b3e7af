/* SPDX-License-Identifier: MIT */
/*
 * compiler - the few words the language lacks.
 */
#ifndef BASE_COMPILER_H
#define BASE_COMPILER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define likely(x) __builtin_expect(!!(x), 1)
#define unlikely(x) __builtin_expect(!!(x), 0)

#define ARRAY_COUNT(a) (sizeof(a) / sizeof((a)[0]))
#define container_of(ptr, type, member) \
	((type *)(void *)((char *)(ptr)-offsetof(type, member)))

#define CACHE_LINE_BYTES 64
#define ALIGNED(n) __attribute__((aligned(n)))
#define PRINTF_LIKE(text, first) __attribute__((format(printf, text, first)))

/* Tells a sibling hyperthread, and a virtual machine, that we only wait. */
static inline void cpu_relax(void)
{
#if defined(__x86_64__) || defined(__i386__)
	__builtin_ia32_pause();
#elif defined(__aarch64__)
	__asm__ __volatile__("yield");
#endif
}

static inline uint64_t min_u64(uint64_t a, uint64_t b)
{
	return a < b ? a : b;
}

static inline uint64_t max_u64(uint64_t a, uint64_t b)
{
	return a > b ? a : b;
}

static inline uint64_t add_saturated_u64(uint64_t a, uint64_t b)
{
	return b > UINT64_MAX - a ? UINT64_MAX : a + b;
}

static inline uint64_t round_up_u64(uint64_t value, uint64_t unit)
{
	return (value + unit - 1) / unit * unit;
}

#endif
