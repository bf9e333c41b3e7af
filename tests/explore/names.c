/* SPDX-License-Identifier: MIT */
/*
 * names - scenarios and schedules as text and back, and what a word is called.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "explore.h"

static const char *const base_names[BASES] = {
	"absent",       "sealed",           "dead",   "filling",
	"ringless",     "ringless-filling", "orphan", "ringless-orphan",
	"large-orphan", "fading-orphan",    "former", "packed",
	"packed-orphan", "seldom",         "seldom-filling"
};

bool scenario_is_possible(const struct scenario *scenario)
{
	unsigned writers = 0, readers = 0, heirs = 0;
	bool resumable = false;

	for (unsigned i = 0; i < scenario->count; i++) {
		const struct operation *op = scenario->ops[i];

		if ((op->flags & LIMITED) != (scenario->ops[0]->flags & LIMITED) ||
		    (op->flags & LIMITED && scenario->base != BASE_ABSENT))
			return false;
		writers += (op->flags & NEEDS_WRITER) != 0;
		readers += (op->flags & NEEDS_READER) != 0;
		heirs += (op->flags & TAKES_OVER) != 0;
		resumable |= op->flags & NEEDS_WRITER && op->acquire_flags & SCACHE_RESUMABLE;
		/* What is compressed has a world of its own. */
		if (op->flags & NEEDS_WRITER &&
		    !(op->flags & PACKED) != !(scenario->base == BASE_PACKED))
			return false;
		if (op->flags & LOSES_FILE && scenario->base != BASE_RINGLESS_FILLING)
			return false;
		/* It is a bypass, and that is no scenario. */
		if (base_is_ringless(scenario->base) && op->acquire_flags & SCACHE_PASS_THROUGH)
			return false;
	}
	/* Nobody to take over from, and it would be a look-up or a reader as any other. */
	if (heirs > 0 && !resumable && !base_is_orphan(scenario->base) &&
	    !base_is_absent(scenario->base))
		return false;
	/* Without an heir all that happens is half a second. */
	if (heirs == 0 && base_is_orphan(scenario->base))
		return false;
	/* It would be gone before anything begins. */
	if (scenario->base == BASE_SELDOM && readers == 0)
		return false;
	return writers == base_is_filling(scenario->base) &&
	       (readers == 0 ||
		(!base_is_absent(scenario->base) && scenario->base != BASE_FORMER));
}

void scenario_name(struct scenario *scenario)
{
	size_t at = 0;

	for (unsigned i = 0; i < scenario->count; i++)
		at += (size_t)snprintf(scenario->name + at, sizeof(scenario->name) - at, "%s%s",
				       i > 0 ? "+" : "", scenario->ops[i]->name);
	snprintf(scenario->name + at, sizeof(scenario->name) - at, "/%s",
		 base_names[scenario->base]);
}

static bool parse_scenario(char *text, struct scenario *scenario)
{
	char *base = strchr(text, '/'), *save = NULL;

	*scenario = (struct scenario){ .base = BASES };
	if (base == NULL)
		return false;
	*base++ = '\0';
	for (unsigned i = 0; i < BASES; i++)
		if (strcmp(base, base_names[i]) == 0)
			scenario->base = (enum base)i;
	for (char *op = strtok_r(text, "+", &save); op != NULL; op = strtok_r(NULL, "+", &save)) {
		unsigned i = 0;

		while (i < operation_count && strcmp(op, operations[i].name) != 0)
			i++;
		if (i == operation_count || scenario->count == PROCESSES_MAX)
			return false;
		scenario->ops[scenario->count++] = &operations[i];
	}
	scenario_name(scenario);
	return scenario->count > 0 && scenario->base < BASES && scenario_is_possible(scenario);
}

void schedule_print(const struct scenario *scenario, const struct schedule *schedule,
		    char *ret_text, size_t bytes)
{
	size_t at = (size_t)snprintf(ret_text, bytes, "%s:%u", scenario->name, schedule->first);

	for (uint32_t i = 0; i < schedule->count && at < bytes; i++) {
		const struct decision *d = &schedule->decisions[i];

		at += (size_t)snprintf(ret_text + at, bytes - at, "%c%u", i == 0 ? ':' : ',',
				       d->point);
		if (at < bytes && d->to == DIES)
			at += (size_t)snprintf(ret_text + at, bytes - at, "x");
		else if (at < bytes)
			at += (size_t)snprintf(ret_text + at, bytes - at, ">%d", d->to);
	}
}

bool schedule_parse(const char *text, struct scenario *ret_scenario, struct schedule *ret_schedule)
{
	char name[100], *at, *save = NULL;
	const char *colon = strchr(text, ':');
	size_t bytes = colon == NULL ? strlen(text) : (size_t)(colon - text);

	if (bytes >= sizeof(name))
		return false;
	memcpy(name, text, bytes);
	name[bytes] = '\0';
	*ret_schedule = (struct schedule){ .first = 0 };
	if (!parse_scenario(name, ret_scenario) || colon == NULL)
		return colon == NULL && ret_scenario->count > 0;
	ret_schedule->first = (uint32_t)strtoul(colon + 1, &at, 10);
	if (ret_schedule->first >= ret_scenario->count)
		return false;
	while (*at == ':' || *at == ',') {
		struct decision *d = &ret_schedule->decisions[ret_schedule->count++];

		d->point = (uint32_t)strtoul(at + 1, &save, 10);
		d->to = *save == 'x' ? DIES : (int32_t)strtol(save + 1, &at, 10);
		if (*save == 'x')
			at = save + 1;
		else if (*save != '>' || d->to < 0 || d->to >= (int32_t)PARTIES)
			return false;
		if (ret_schedule->count == DECISIONS_MAX)
			break;
	}
	return *at == '\0';
}

/* ------------------------------------------------------------------- words */

/* A field of one of several structs; by its offset. */
static const struct field {
	size_t offset;
	const char *name;
} entry_fields[] = {
#define FIELD(name)                                     \
	{                                               \
		offsetof(struct shm_entry, name), #name \
	}
	FIELD(next),          FIELD(hash_high),     FIELD(hash_low),  FIELD(created_ns),
	FIELD(window_bytes),  FIELD(max_age_ns),    FIELD(ended_ns),  FIELD(key_bytes),
	FIELD(ring),          FIELD(written),       FIELD(flushed),   FIELD(floor),
	FIELD(need),          FIELD(readers_event), FIELD(flags),     FIELD(code),
	FIELD(message_bytes), FIELD(writer_event),  FIELD(attention), FIELD(had_reader),
	FIELD(punched),       FIELD(key),
};

static const char *entry_field(size_t offset)
{
	for (size_t i = 0; i < sizeof(entry_fields) / sizeof(entry_fields[0]); i++)
		if (entry_fields[i].offset == offset)
			return entry_fields[i].name;
	return "key";
}

static bool name_in(size_t at, const void *array, size_t item, uint32_t count, const char *name,
		    char *text, size_t bytes)
{
	const struct segment *segment = seats[WARDEN].cache->seat->peer.segment;
	size_t start = (size_t)((const unsigned char *)array - (unsigned char *)segment->header);

	if (at < start || at >= start + item * count)
		return false;
	snprintf(text, bytes, "%s[%zu] +%zu", name, (at - start) / item, (at - start) % item);
	return true;
}

void name_word_of(uint32_t word, char *ret_text, size_t bytes)
{
	const struct segment *s = seats[WARDEN].cache->seat->peer.segment;
	const struct shm_geometry *g = &s->geometry;
	size_t at = (size_t)word * 4, entries;

	snprintf(ret_text, bytes, "%s", word == WORD_NONE ? "" : "header or ring");
	entries = (size_t)((unsigned char *)s->entries - (unsigned char *)s->header);
	if (word == WORD_NONE ||
	    name_in(at, s->peers, sizeof(*s->peers), g->peers, "peers", ret_text, bytes) ||
	    name_in(at, s->states, 8, g->entries, "states", ret_text, bytes) ||
	    name_in(at, s->expires, 8, g->entries, "expires", ret_text, bytes) ||
	    name_in(at, s->buckets, 8, g->buckets, "buckets", ret_text, bytes) ||
	    name_in(at, s->seen, 4, g->buckets * SHM_SEEN_PER_BUCKET, "seen", ret_text, bytes) ||
	    name_in(at, s->block_owners, 8, g->blocks, "block_owners", ret_text, bytes) ||
	    name_in(at, s->blocks, sizeof(*s->blocks), g->blocks, "blocks", ret_text, bytes) ||
	    name_in(at, s->ring_owners, 8, g->rings, "ring_owners", ret_text, bytes))
		return;
	if (at >= entries && at < entries + g->entries * sizeof(struct shm_entry))
		snprintf(ret_text, bytes, "entries[%zu].%s",
			 (at - entries) / sizeof(struct shm_entry),
			 entry_field((at - entries) % sizeof(struct shm_entry)));
}
