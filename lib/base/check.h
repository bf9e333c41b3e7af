/* SPDX-License-Identifier: MIT */
/*
 * check - assertions on our own, private state.
 *
 * Never on shared memory: another process's bug or death must not abort us.
 * Shared state is validated, and a contradiction there is -EUCLEAN.
 */
#ifndef BASE_CHECK_H
#define BASE_CHECK_H

#include <stdlib.h>

#include "base/compiler.h"

#define SC_ASSERT(claim)            \
	do {                        \
		if (unlikely(!(claim))) \
			abort();    \
	} while (0)

/* First word of every private handle; poisoned when it is freed. */
#define MAGIC_CACHE 0x73636361u
#define MAGIC_READER 0x73637264u
#define MAGIC_WRITER 0x73637772u
#define MAGIC_DEAD 0xdeaddeadu

#endif
