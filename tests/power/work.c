/* SPDX-License-Identifier: MIT */
/*
 * work - what processes do with a cache until the power goes, and the blobs they make:
 * length and bytes follow from key and generation.
 */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/hash.h"
#include "power.h"

#define WORKERS 3
#define HELD 4
#define FAN_OUTS 5 /* directories that all keys lie in */

/* --------------------------------------------------------------------- random */

static uint64_t random_state;

static uint64_t mix(uint64_t x)
{
	x += 0x9e3779b97f4a7c15ull;
	x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9ull;
	x = (x ^ x >> 27) * 0x94d049bb133111ebull;
	return x ^ x >> 31;
}

void random_seed(uint64_t seed)
{
	random_state = mix(seed);
}

uint64_t random_below(uint64_t n)
{
	random_state += 0x9e3779b97f4a7c15ull;
	return mix(random_state) % n;
}

/* ---------------------------------------------------------------------- blobs */

uint64_t blob_length(uint32_t key, uint32_t gen)
{
	uint64_t m = mix((uint64_t)key << 32 | gen), n = m >> 8;

	switch (m % 10) {
	case 0:
		return 0;
	case 1 ... 4:
		return 1 + n % 3000;
	case 5 ... 7:
		return 3000 + n % 60000;
	case 8:
		return (256 << 10) - 1 + n % 3;
	default:
		return (300 << 10) + n % (400 << 10);
	}
}

void blob_content(uint32_t key, uint32_t gen, unsigned char *ret_data)
{
	uint64_t bytes = blob_length(key, gen), word;

	for (uint64_t at = 0; at < bytes; at += 8) {
		word = at == 0 ? gen : mix(mix((uint64_t)key << 32 | gen) ^ at);
		memcpy(ret_data + at, &word, bytes - at < 8 ? (size_t)(bytes - at) : 8);
	}
}

const char *key_name(uint32_t key)
{
	static char names[KEYS][16];
	uint32_t tried = 0, found;

	for (found = 0; names[key][0] == '\0' && found < KEYS; tried++) {
		char name[16];

		snprintf(name, sizeof(name), "key%u", tried);
		if (hash_key(name, strlen(name)).high >> 56 >= FAN_OUTS)
			continue;
		memcpy(names[found++], name, sizeof(name));
	}
	return names[key];
}

/* -------------------------------------------------------------------- workers */

static struct scache *cache;
static struct scache_reader *held[HELD];
static unsigned char *content;

static void let_go(unsigned i)
{
	scache_reader_close(held[i]);
	held[i] = NULL;
}

/* In pieces, so that some are flushed long before the end; or never to its end. */
static void write_blob(struct scache_writer *writer, uint32_t key, uint32_t gen, bool finishes)
{
	uint64_t bytes = blob_length(key, gen), done = 0;
	size_t piece = 1 + (size_t)random_below(random_below(2) ? 200000 : 5000);
	ssize_t part;

	blob_content(key, gen, content);
	while (done < bytes && (finishes || random_below(8))) {
		part = scache_write(writer, content + done,
				    bytes - done < piece ? (size_t)(bytes - done) : piece, 0);
		if (part <= 0)
			break;
		done += (uint64_t)part;
	}
	if (finishes && done == bytes && scache_finish(writer) == 0)
		log_note(FINISHED, key, gen, false);
	scache_writer_close(writer);
}

static void produce(uint32_t key, bool refreshes)
{
	struct scache_acquire_options options = { .size = sizeof(options),
						  .flags = SCACHE_RUN_TO_END |
							   (refreshes ? SCACHE_REFRESH : 0) };
	const char *name = key_name(key);
	struct scache_writer *writer = NULL;
	struct scache_reader *reader = NULL;
	uint32_t gen = log_gen();
	bool reads = random_below(2);

	record_key = key;
	record_gen = gen;
	if (refreshes)
		log_note(REPLACES, key, gen, false);
	log_note(BEGINS, key, gen, refreshes);
	if (scache_acquire(cache, name, strlen(name), &options, reads ? &reader : NULL, &writer) !=
	    0)
		writer = NULL;
	if (writer == NULL)
		log_note(IS_NOT, key, gen, false);
	if (refreshes)
		log_note(HAS_REPLACED, key, gen, false);
	if (writer != NULL)
		write_blob(writer, key, gen, random_below(8) > 0);
	if (reader != NULL) {
		unsigned i = (unsigned)random_below(HELD);

		let_go(i);
		held[i] = reader;
	}
}

static void remove_key(uint32_t key)
{
	const char *name = key_name(key);

	log_note(REMOVES, key, 0, false);
	scache_remove(cache, name, strlen(name));
	log_note(HAS_REMOVED, key, 0, false);
}

static void hold(uint32_t key)
{
	const char *name = key_name(key);
	unsigned i = (unsigned)random_below(HELD);
	struct scache_reader *reader;

	let_go(i);
	if (scache_lookup(cache, name, strlen(name), NULL, &reader) == 0) {
		held[i] = reader;
		while (scache_read(reader, content, 100000, 0) > 0 && random_below(4))
			;
	}
}

static void work(const struct scache_options *options, const char *dir, unsigned ops)
{
	uint32_t key;

	content = malloc(BLOB_BYTES_MAX_HERE + 8);
	if (content == NULL || scache_open(dir, options, &cache) != 0)
		fail("a worker cannot open the cache: %s", scache_detail());
	while (ops-- > 0) {
		key = (uint32_t)random_below(KEYS);
		switch (random_below(20)) {
		case 0 ... 8:
			produce(key, false);
			break;
		case 9 ... 11:
			produce(key, true);
			break;
		case 12 ... 14:
			remove_key(key);
			break;
		case 15 ... 17:
			hold(key);
			break;
		case 18:
			let_go((unsigned)random_below(HELD));
			break;
		default:
			if (random_below(3) == 0)
				scache_sweep(cache, NULL, NULL);
		}
	}
	/* Some end as if they were killed: with all their hands full. */
	if (random_below(3) == 0)
		_exit(0);
	for (unsigned i = 0; i < HELD; i++)
		let_go(i);
	scache_close(cache);
	_exit(0);
}

void work_once(const struct scache_options *options, const char *dir, unsigned ops)
{
	uint64_t seeds[WORKERS];
	int status, bad = 0;

	key_name(0);
	for (int i = 0; i < WORKERS; i++)
		seeds[i] = random_below(UINT64_MAX);
	fflush(NULL);
	for (int i = 0; i < WORKERS; i++) {
		pid_t parent = getpid();

		if (fork() != 0)
			continue;
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		if (getppid() != parent)
			_exit(1);
		random_seed(seeds[i]);
		work(options, dir, ops);
	}
	for (int i = 0; i < WORKERS; i++)
		bad |= wait(&status) < 0 || status != 0;
	if (bad)
		fail("a worker has failed");
}
