/* SPDX-License-Identifier: MIT */
/*
 * errors - what a code means here, which is often not what strerror() says.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/compiler.h"
#include "base/detail.h"
#include "streamcache.h"

static const struct {
	int code;
	const char *text;
} texts[] = {
	{ 0, "success" },
	{ EAGAIN, "nothing yet" },
	{ EBADMSG, "the stored blob was damaged and has been dropped" },
	{ EBUSY, "still in use" },
	{ ECANCELED, "the producer left without finishing, or the wait was cancelled" },
	{ ECHILD, "the stream was opened before fork() and is the parent's" },
	{ EDEADLK, "this thread would wait for itself" },
	{ EINVAL, "invalid argument" },
	{ ENODATA, "these bytes were not stored and are gone" },
	{ ENOENT, "no such entry or cache" },
	{ ENOLCK, "the file system has no working OFD locks" },
	{ ENXIO, "the cache's shared segment is not reachable from here" },
	{ EOWNERDEAD, "the producer died in mid-stream" },
	{ EPIPE, "nobody reads any more" },
	{ EPROTO, "attached processes use another version of streamcache" },
	{ ERANGE, "the producer has not written as many bytes as were declared" },
	{ EREMOTEIO, "the producer failed" },
	{ ESTALE, "it was not read for too long: the bytes are gone" },
	{ ETIME, "the producer has been silent for too long" },
	{ ETIMEDOUT, "timed out" },
	{ EUCLEAN, "the shared segment is damaged" },
	{ EUSERS, "too many attached processes" },
};

const char *scache_strerror(int error)
{
	/* Unsigned, for INT_MIN has no opposite. */
	unsigned code = error < 0 ? 0u - (unsigned)error : (unsigned)error;
	const char *text;

	for (size_t i = 0; i < ARRAY_COUNT(texts); i++)
		if ((unsigned)texts[i].code == code)
			return texts[i].text;
	/* Untranslated and without a buffer, so safe in any thread. */
	text = strerrordesc_np((int)code);
	return text != NULL ? text : "unknown error";
}

const char *scache_detail(void)
{
	return detail_get();
}

const char *scache_version(void)
{
	return PACKAGE_VERSION;
}
