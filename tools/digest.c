/* SPDX-License-Identifier: MIT */
/*
 * digest - what a blob must be, said beforehand as TYPE:HEX.
 *
 * xxh128 is the library's business: it holds whoever produces to it. sha256, which is
 * what people publish, is made here of what passes through.
 */
#include "tool.h"

#include <errno.h>
#include <sodium.h>
#include <stdlib.h>
#include <string.h>

struct sum {
	crypto_hash_sha256_state state;
	unsigned char expected[crypto_hash_sha256_BYTES];
};

static int take_sha256(const struct tool_key *digest, struct sum **ret_sum)
{
	struct sum *sum = calloc(1, sizeof(*sum));

	if (!sum)
		return -ENOMEM;
	memcpy(sum->expected, digest->data, sizeof(sum->expected));
	crypto_hash_sha256_init(&sum->state);
	free(*ret_sum);
	*ret_sum = sum;
	return 0;
}

int digest_take(const struct command *command, const char *text,
		struct scache_acquire_options *acquire, struct sum **ret_sum)
{
	const char *hex = strchr(text, ':');
	int is_xxh128 = !strncmp(text, "xxh128:", 7), is_sha256 = !strncmp(text, "sha256:", 7);
	struct tool_key digest;

	if (is_sha256 && !ret_sum)
		return tool_usage(command, "of sha256 only put knows: --digest=xxh128:HEX");
	if ((!is_xxh128 && !is_sha256) || text_to_key(hex + 1, &digest) ||
	    digest.bytes != (is_xxh128 ? sizeof(acquire->digest) : crypto_hash_sha256_BYTES))
		return tool_usage(command, "'%s' is no digest: xxh128: and 32 digits in "
					   "hexadecimal%s", text, ret_sum ? ", or sha256: and 64" : "");
	if (is_sha256 && take_sha256(&digest, ret_sum)) {
		tool_error("%s", strerror(ENOMEM));
		return TOOL_UNUSABLE;
	}
	if (is_xxh128) {
		acquire->digest_type = SCACHE_DIGEST_XXH128;
		memcpy(acquire->digest, digest.data, sizeof(acquire->digest));
	}
	return 0;
}

void digest_add(struct sum *sum, const void *data, size_t bytes)
{
	crypto_hash_sha256_update(&sum->state, data, bytes);
}

int digest_differs(struct sum *sum)
{
	unsigned char digest[crypto_hash_sha256_BYTES];

	crypto_hash_sha256_final(&sum->state, digest);
	return memcmp(digest, sum->expected, sizeof(digest)) != 0;
}
