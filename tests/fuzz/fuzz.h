/* SPDX-License-Identifier: MIT */
/* fuzz - what a target is to libFuzzer, and to alone.c. */
#ifndef FUZZ_FUZZ_H
#define FUZZ_FUZZ_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* LLVMFuzzerTestOneInput - a bug ends the process; returns 0. */
int LLVMFuzzerTestOneInput(const uint8_t *input, size_t input_bytes);

#endif
