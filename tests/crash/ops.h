/* SPDX-License-Identifier: MIT */
/*
 * ops - what the files of operations know of each other.
 */
#ifndef CRASH_OPS_H
#define CRASH_OPS_H

#include "crash.h"

int look_up(struct scache *cache, const char *key, struct scache_reader **ret_reader);
int acquire(struct scache *cache, const char *key, uint32_t flags, uint64_t window_bytes,
	    struct scache_reader **ret_reader, struct scache_writer **ret_writer);

/* gather - the two readers have come; with @writer: they sleep until it brings something. */
void gather(struct scache_writer *writer);

/* put_entry - @key is not there yet. */
void put_entry(struct scache *cache, const char *key, uint64_t seed);

/* produce.c, for struct op. */
void mate_lend(void);
void mate_orphan(void);
void mate_orphan_lent(void);
void mate_rings(void);
void mate_stopped(void);
void prepare_full(void);
void rival_produce(void);
void run_compress(void);
void run_fail(void);
void run_fail_at_length(void);
void run_fetch(void);
void run_in_place(void);
void run_lose(void);
void run_large(void);
void run_no_file(void);
void run_pass(void);
void run_produce(void);
void run_punch(void);
void run_refresh(void);
void run_rescue(void);
void run_stall(void);
void run_take_over(void);
void run_window(void);

#endif
