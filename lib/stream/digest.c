/* SPDX-License-Identifier: MIT */
/*
 * digest - a production whose bytes are known by their digest beforehand: others are never
 * published as finished.
 */
#include <errno.h>
#include <string.h>

#include <xxhash.h>

#include "stream/stream.h"

int digest_expect(struct scache_writer *writer, const unsigned char expected[16])
{
	writer->digest = XXH3_createState();
	if (writer->digest == NULL)
		return -ENOMEM;
	XXH3_128bits_reset(writer->digest);
	memcpy(writer->expected, expected, sizeof(writer->expected));
	return 0;
}

void digest_add(struct scache_writer *writer, const void *data, size_t bytes)
{
	XXH3_128bits_update(writer->digest, data, bytes);
}

bool digest_differs(const struct scache_writer *writer)
{
	XXH128_canonical_t found;

	if (writer->digest == NULL)
		return false;
	XXH128_canonicalFromHash(&found, XXH3_128bits_digest(writer->digest));
	return memcmp(found.digest, writer->expected, sizeof(writer->expected)) != 0;
}

void digest_free(struct scache_writer *writer)
{
	XXH3_freeState(writer->digest);
	writer->digest = NULL;
}
