/* SPDX-License-Identifier: MIT */
/*
 * judge - what each key has come to by the cut, and whether what a new cache serves of
 * it is allowed.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "power.h"

#define GENS 2048u /* of one key */

struct gen {
	uint32_t gen;
	uint32_t begun;    /* the record's index */
	uint32_t finished; /* the same of scache_finish() returning; 0: it has not */
	bool is_doomed;    /* who removes or replaces it has begun */
};

struct judge {
	struct gen gens[KEYS][GENS];
	uint32_t count[KEYS], removers[KEYS], beside;
	unsigned char got[BLOB_BYTES_MAX_HERE + 8], right[BLOB_BYTES_MAX_HERE + 8];
};

struct judge *judge_make(void)
{
	struct judge *judge = calloc(1, sizeof(*judge));

	if (judge == NULL)
		fail("no memory");
	return judge;
}

void judge_free(struct judge *judge)
{
	free(judge);
}

/* -------------------------------------------------------------------- the log */

static struct gen *find_gen(struct judge *judge, uint32_t key, uint32_t number)
{
	for (uint32_t i = judge->count[key]; i-- > 0;)
		if (judge->gens[key][i].gen == number)
			return &judge->gens[key][i];
	fail("generation %u of key %u has not begun", number, key);
}

static void doom(struct judge *judge, uint32_t key)
{
	for (uint32_t i = 0; i < judge->count[key]; i++)
		judge->gens[key][i].is_doomed = true;
	judge->removers[key]++;
}

/* The one that must be there if names last; or NULL. */
static const struct gen *newest(const struct judge *judge, uint32_t key)
{
	const struct gen *best = NULL;

	for (uint32_t i = 0; i < judge->count[key]; i++) {
		const struct gen *gen = &judge->gens[key][i];

		if (gen->finished > 0 && !gen->is_doomed &&
		    (best == NULL || gen->finished > best->finished))
			best = gen;
	}
	return best;
}

static void begin(struct judge *judge, const struct record *r)
{
	if (judge->count[r->key] == GENS)
		fail("too many generations");
	/* Who is at it already may remove this one as well; but not itself. */
	judge->gens[r->key][judge->count[r->key]++] = (struct gen){
		.gen = r->gen,
		.begun = r->index,
		.is_doomed = judge->removers[r->key] > r->offset,
	};
}

/* Nobody is elected for what is there, power or not. */
static void finish(struct judge *judge, const struct record *r)
{
	struct gen *gen = find_gen(judge, r->key, r->gen);
	const struct gen *before = newest(judge, r->key);

	gen->finished = r->index;
	if (before == NULL || before->finished > gen->begun)
		return;
	printf("%s: generation %u was produced although there was %u\n", key_name(r->key), gen->gen,
	       before->gen);
	judge->beside++;
}

void judge_apply(struct judge *judge, const struct record *r)
{
	struct gen *gen;

	switch (r->kind) {
	case REMOVES:
	case REPLACES:
		doom(judge, r->key);
		break;
	case HAS_REMOVED:
	case HAS_REPLACED:
		judge->removers[r->key]--;
		break;
	case BEGINS:
		begin(judge, r);
		break;
	case IS_NOT:
		gen = find_gen(judge, r->key, r->gen);
		*gen = judge->gens[r->key][--judge->count[r->key]];
		break;
	case FINISHED:
		finish(judge, r);
		break;
	}
}

/* --------------------------------------------------------------------- a look */

/* Only the first few are worth reading. */
static bool is_worth_telling(const struct tally *tally)
{
	return tally->wrong + tally->lost + tally->other <= 5;
}

/* What is served: its bytes into judge->got. 1: all of it; 0: nothing; -errno: behind some. */
static int get(struct judge *judge, struct scache *cache, uint32_t key, uint64_t *ret_bytes)
{
	const char *name = key_name(key);
	struct scache_reader *reader;
	ssize_t part;

	*ret_bytes = 0;
	if (scache_lookup(cache, name, strlen(name), NULL, &reader) < 0)
		return 0;
	while ((part = scache_read(reader, judge->got + *ret_bytes, sizeof(judge->got) - *ret_bytes,
				   0)) > 0)
		*ret_bytes += (uint64_t)part;
	scache_reader_close(reader);
	return part == 0 ? 1 : (int)part;
}

/* Is that of this generation? */
static bool is_of(struct judge *judge, uint32_t key, uint32_t gen, uint64_t bytes, bool is_all)
{
	uint64_t length = blob_length(key, gen);

	if (is_all ? bytes != length : bytes > length)
		return false;
	if (bytes >= 8 && memcmp(judge->got, &(uint64_t){ gen }, 8) != 0)
		return false;
	blob_content(key, gen, judge->right);
	return memcmp(judge->got, judge->right, bytes) == 0;
}

/* One that it may be, @wanted if that is among them; NULL: it is wrong. */
static const struct gen *recognize(struct judge *judge, uint32_t key, const struct gen *wanted,
				   uint64_t bytes, bool is_all)
{
	const struct gen *found = NULL;

	for (uint32_t i = 0; i < judge->count[key]; i++) {
		const struct gen *gen = &judge->gens[key][i];

		if ((found == NULL || gen == wanted) && is_of(judge, key, gen->gen, bytes, is_all))
			found = gen;
	}
	return found;
}

static void look_at(struct judge *judge, const struct disk *disk, struct scache *cache,
		    uint32_t key, uint32_t durability, struct tally *tally)
{
	const struct gen *wanted = newest(judge, key), *found = NULL;
	uint64_t bytes;
	int ret = get(judge, cache, key, &bytes);

	if (durability == SCACHE_DURABILITY_NONE ||
	    (durability == SCACHE_DURABILITY_DATA && wanted != NULL &&
	     !disk_has(disk, key, wanted->gen)))
		wanted = NULL;
	if (ret != 0)
		found = recognize(judge, key, wanted, bytes, ret > 0);
	tally->required += wanted != NULL;
	tally->served += ret > 0;
	tally->missing += ret == 0;
	tally->refused += ret == -EBADMSG;
	tally->risen += ret > 0 && found != NULL && found->is_doomed;
	tally->wrong += ret != 0 && found == NULL;
	if (ret != 0 && found == NULL && is_worth_telling(tally))
		printf("%s: %llu bytes were served that nobody has produced\n", key_name(key),
		       (unsigned long long)bytes);
	tally->other += ret < 0 && ret != -EBADMSG;
	if (ret < 0 && ret != -EBADMSG && is_worth_telling(tally))
		printf("%s: %s\n", key_name(key), scache_strerror(ret));
	if (wanted == NULL || (ret > 0 && found == wanted))
		return;
	tally->lost++;
	if (is_worth_telling(tally))
		printf("%s: generation %u is lost: %d, %llu bytes, generation %u%s\n",
		       key_name(key), wanted->gen, ret, (unsigned long long)bytes,
		       found != NULL ? found->gen : 0,
		       found != NULL && found->is_doomed ? ", doomed" : "");
}

static void tell(void *arg, const char *text)
{
	(void)arg;
	printf("check: %s\n", text);
}

/* It can be used: what is left is swept, a key is produced, nothing is violated. */
static bool is_usable(struct scache *cache)
{
	const char *name = key_name((uint32_t)random_below(KEYS));
	struct scache_writer *writer = NULL;
	struct scache_reader *reader = NULL;
	char byte;

	if (scache_sweep(cache, NULL, NULL) != 0 || scache_check(cache, tell, NULL) != 0)
		return false;
	scache_remove(cache, name, strlen(name));
	if (scache_acquire(cache, name, strlen(name), NULL, NULL, &writer) != 0 || writer == NULL ||
	    scache_write(writer, name, 1, 0) != 1 || scache_finish(writer) != 0)
		return false;
	scache_writer_close(writer);
	if (scache_lookup(cache, name, strlen(name), NULL, &reader) != 0 ||
	    scache_read(reader, &byte, 1, 0) != 1 || byte != name[0])
		return false;
	scache_reader_close(reader);
	return true;
}

void judge_look(struct judge *judge, const struct disk *disk, const char *dir,
		const struct scache_options *options, struct tally *tally)
{
	struct scache *cache;
	bool is_bad;

	tally->cuts++;
	tally->other += judge->beside;
	judge->beside = 0;
	if (scache_open(dir, options, &cache) != 0) {
		printf("open: %s\n", scache_detail());
		tally->other++;
		return;
	}
	for (uint32_t key = 0; key < KEYS; key++)
		look_at(judge, disk, cache, key, options->durability, tally);
	is_bad = !is_usable(cache);
	is_bad |= scache_close(cache) != 0;
	is_bad |= scache_destroy(dir, NULL) != 0;
	if (is_bad)
		printf("the cache cannot be used\n");
	tally->other += is_bad;
}
