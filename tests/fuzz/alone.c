/* SPDX-License-Identifier: MIT */
/*
 * alone - a fuzz target without libFuzzer: `make check` runs it on inputs that are the
 * same each time. Or on the files that are named: what libFuzzer has found, say.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fuzz.h"

#define INPUTS 20000u
#define INPUT_BYTES_MAX (300u << 10)

static unsigned char input[INPUT_BYTES_MAX];

static uint32_t draw(uint64_t *seed)
{
	*seed = *seed * UINT64_C(6364136223846793005) + 1442695040888963407;
	return (uint32_t)(*seed >> 33);
}

/* Noise, or what has been there before: something to compress. One in 64 is long. */
static size_t make_input(uint64_t *seed)
{
	size_t bytes = draw(seed) % (draw(seed) % 64 == 0 ? INPUT_BYTES_MAX : 600);
	size_t at = 0;

	while (at < bytes) {
		size_t run = 1 + draw(seed) % 40, back = 1 + draw(seed) % 300;
		bool repeat = draw(seed) % 4 != 0;

		for (; run > 0 && at < bytes; run--, at++)
			input[at] = repeat && at >= back + 8 ? input[at - back]
							     : (unsigned char)draw(seed);
	}
	return bytes;
}

static int run_file(const char *path)
{
	FILE *from = fopen(path, "r");
	uint8_t *copy;
	size_t bytes;

	if (from == NULL) {
		perror(path);
		return EXIT_FAILURE;
	}
	bytes = fread(input, 1, sizeof(input), from);
	fclose(from);
	/* For ASan: not a byte more than there is. */
	copy = malloc(bytes + (bytes == 0));
	if (copy == NULL)
		return EXIT_FAILURE;
	memcpy(copy, input, bytes);
	LLVMFuzzerTestOneInput(copy, bytes);
	free(copy);
	return EXIT_SUCCESS;
}

int main(int argc, char **argv)
{
	for (int i = 1; i < argc; i++)
		if (run_file(argv[i]) != EXIT_SUCCESS)
			return EXIT_FAILURE;
	if (argc > 1)
		return EXIT_SUCCESS;
	for (uint64_t i = 0; i < INPUTS; i++) {
		uint64_t seed = i;

		LLVMFuzzerTestOneInput(input, make_input(&seed));
	}
	printf("%u inputs\n", INPUTS);
	return EXIT_SUCCESS;
}
