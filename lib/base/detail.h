/* SPDX-License-Identifier: MIT */
/*
 * detail - one sentence per thread: what went wrong and what to do about it.
 *
 * The library never prints. Where -errno alone would leave its user guessing,
 * the sentence is kept here for scache_detail().
 */
#ifndef BASE_DETAIL_H
#define BASE_DETAIL_H

#include "base/compiler.h"

/* detail_set - remember the sentence; returns @error, for `return detail_set(...)`. */
int detail_set(int error, const char *format, ...) PRINTF_LIKE(2, 3);

void detail_clear(void);
const char *detail_get(void);

#endif
