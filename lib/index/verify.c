/* SPDX-License-Identifier: MIT */
#include "index/verify.h"

#include <stdarg.h>
#include <stdio.h>
#include <time.h>

#include "base/clock.h"
#include "index/ring.h"
#include "shm/epoch.h"

#define LOOKS 3
#define PAUSE_NS (2 * NS_PER_MS)

struct report {
	struct peer *peer;
	struct segment *segment;
	void (*finding)(void *arg, const char *text);
	void *arg;
	int count;
};

/* A check of one thing: true if it contradicts its invariant, with the reason. */
typedef bool check_fn(struct report *report, uint32_t index, char *ret_text, size_t bytes);

static bool say(char *text, size_t bytes, const char *format, ...) PRINTF_LIKE(3, 4);

static bool say(char *text, size_t bytes, const char *format, ...)
{
	va_list args;

	va_start(args, format);
	vsnprintf(text, bytes, format, args);
	va_end(args);
	return true;
}

/* Run @check on @index; believe a contradiction only if it stays. */
static void check_one(struct report *report, check_fn *check, uint32_t index)
{
	const struct timespec pause = { .tv_nsec = PAUSE_NS };
	char text[256];

	for (int look = 0; look < LOOKS; look++) {
		if (look > 0)
			nanosleep(&pause, NULL);
		if (!check(report, index, text, sizeof(text)))
			return;
	}
	report->count++;
	if (report->finding != NULL)
		report->finding(report->arg, text);
}

static void check_all(struct report *report, check_fn *check, uint32_t count)
{
	for (uint32_t i = 0; i < count; i++)
		check_one(report, check, i);
}

static bool slot_is_free(const struct segment *segment, uint32_t slot)
{
	return slot >= segment->geometry.peers ||
	       PEER_STATE(shm_load(&segment->peers[slot].state)) == PEER_FREE;
}

static bool check_header(struct report *report, uint32_t index, char *text, size_t bytes)
{
	const struct segment *s = report->segment;
	struct shm_header *h = s->header;

	(void)index;
	if (shm_load(&h->magic) != SHM_MAGIC || h->layout != SHM_LAYOUT ||
	    h->number != s->number || h->segment_bytes != s->bytes ||
	    memcmp(&h->geometry, &s->geometry, sizeof(s->geometry)) != 0)
		return say(text, bytes, "I1: the header has changed since this process joined");
	return false;
}

static bool check_state(struct report *report, uint32_t idx, char *text, size_t bytes)
{
	uint64_t word = shm_load(entry_state_word(report->segment, idx));

	if (state_of(word) >= ENTRY_STATES)
		return say(text, bytes, "I2: entry %u is in the unknown state %u", idx,
			   (unsigned)state_of(word));
	if (state_of(word) == ENTRY_FREE && (uint32_t)word != 0)
		return say(text, bytes, "I2: entry %u is free but has flags or an owner", idx);
	if (state_has_owner(word) && slot_is_free(report->segment, state_owner(word)))
		return say(text, bytes, "I3: entry %u belongs to peer %u, whose slot is free", idx,
			   state_owner(word));
	return false;
}

static bool check_charge(struct report *report, uint32_t idx, char *text, size_t bytes)
{
	uint64_t charge = shm_load(&report->segment->charges[idx]);
	uint64_t word = shm_load(entry_state_word(report->segment, idx));

	if (state_of(word) == ENTRY_FREE && charge != 0)
		return say(text, bytes, "I10: entry %u is free but charged with %llu bytes", idx,
			   (unsigned long long)charge);
	return false;
}

static bool check_budget(struct report *report, uint32_t index, char *text, size_t bytes)
{
	struct shm_header *header = report->segment->header;
	struct shm_budget *budget = index == 0 ? &header->bytes : &header->slots;
	uint64_t until = shm_load(&budget->until), ever = shm_load(&budget->ever);
	uint64_t most = segment_setting(report->segment,
					index == 0 ? SETTING_MAX_BYTES : SETTING_MAX_ENTRIES);

	/* A change that was cut short is completed by the next joiner. */
	if (until > ever && until - ever > most && shm_load(&header->configuring) == 0)
		return say(text, bytes, "I10: %llu more %s are allowed, the limit is %llu",
			   (unsigned long long)(until - ever), index == 0 ? "bytes" : "entries",
			   (unsigned long long)most);
	return false;
}

static bool check_progress(struct report *report, uint32_t idx, char *text, size_t bytes)
{
	struct shm_entry *e = entry_at(report->segment, idx);
	uint64_t word = shm_load(entry_state_word(report->segment, idx));
	uint64_t flushed = shm_load(&e->flushed), written = shm_load(&e->written);
	uint64_t floor = shm_load(&e->floor), declared = shm_load(&e->declared_bytes);
	bool whole_file = !(shm_load(&e->flags) & ENTRY_RING_ONLY);

	if (state_of(word) != ENTRY_FILLING && state_of(word) != ENTRY_SEALED)
		return false;
	if (word != shm_load(entry_state_word(report->segment, idx)))
		return false;
	/* What passes the ring is stored a moment before it is published. */
	if (flushed > written &&
	    (flushed - written > ENTRY_PASS_BYTES_MAX || state_of(word) == ENTRY_SEALED))
		return say(text, bytes, "I6: entry %u has flushed %llu of %llu bytes", idx,
			   (unsigned long long)flushed, (unsigned long long)written);
	if (written > declared ||
	    (state_of(word) == ENTRY_SEALED && declared != UINT64_MAX && written != declared))
		return say(text, bytes, "I6: entry %u has %llu of %llu declared bytes", idx,
			   (unsigned long long)written, (unsigned long long)declared);
	if (state_of(word) == ENTRY_FILLING && whole_file && floor != UINT64_MAX &&
	    floor > shm_load(&e->flushed))
		return say(text, bytes, "I6: entry %u has bytes neither in its ring nor in its file",
			   idx);
	if (shm_load(&e->punched) > (whole_file ? 0 : flushed))
		return say(text, bytes, "I6: entry %u has holes where it has bytes", idx);
	if (state_of(word) == ENTRY_SEALED && whole_file && flushed != written)
		return say(text, bytes, "I6: entry %u is finished but not flushed", idx);
	return false;
}

static bool find_in_chain(struct report *report, uint32_t idx, char *text, size_t bytes)
{
	struct segment *segment = report->segment;
	uint64_t word = shm_load(entry_state_word(segment, idx));
	unsigned char key[256];
	struct index_key wanted = { .key = key };
	struct entry_name found;
	uint64_t state, head;
	unsigned pin;
	int ret;

	/* A FILLING entry is linked a moment after it says so; SEALED ones are. */
	if (state_of(word) != ENTRY_SEALED || !state_is_findable(word))
		return false;
	wanted.key_bytes = entry_copy_key(entry_at(segment, idx), key);
	wanted.hash = entry_hash(entry_at(segment, idx));
	pin = epoch_enter(report->peer);
	ret = index_find(report->peer, &wanted, &found, &state, &head);
	epoch_leave(report->peer, pin);
	if (shm_load(entry_state_word(segment, idx)) != word)
		return false;
	if (ret < 0)
		return say(text, bytes, "I5: the chain of entry %u is damaged", idx);
	if (ret == 0)
		return say(text, bytes, "I4: entry %u is not in the chain of its key", idx);
	if (found.idx != idx)
		return say(text, bytes, "I4: entries %u and %u have the same key", idx, found.idx);
	return false;
}

static bool check_chain(struct report *report, uint32_t bucket, char *text, size_t bytes)
{
	struct segment *segment = report->segment;
	uint64_t head = shm_load(&segment->buckets[bucket]);
	uint32_t target = (uint32_t)head, steps = 0;

	while (target != 0) {
		uint64_t word, next;

		if (target > segment->geometry.entries)
			return say(text, bytes, "I5: bucket %u leads to entry %u, out of range",
				   bucket, target - 1);
		if (++steps > segment->geometry.entries)
			return say(text, bytes, "I5: the chain of bucket %u has no end", bucket);
		word = shm_load(entry_state_word(segment, target - 1));
		if (state_of(word) == ENTRY_FREE || state_of(word) == ENTRY_CLAIMED ||
		    state_of(word) == ENTRY_SWEEPING)
			return say(text, bytes, "I5: bucket %u leads to entry %u, which is not in use",
				   bucket, target - 1);
		next = shm_load(&entry_at(segment, target - 1)->next);
		if (LINK_OWN_GEN(next & ~LINK_MARK) != state_gen(word) ||
		    (steps == 1 && (uint32_t)(head >> 32) != state_gen(word)))
			return say(text, bytes, "I5: bucket %u leads to an earlier life of entry %u",
				   bucket, target - 1);
		target = LINK_TARGET(next);
	}
	return false;
}

static bool check_ring(struct report *report, uint32_t ring, char *text, size_t bytes)
{
	struct segment *segment = report->segment;
	uint64_t owner = shm_load(&segment->ring_owners[ring]), word;

	if (owner == 0)
		return false;
	if (NAME_INDEX(owner) >= segment->geometry.entries)
		return say(text, bytes, "I7: ring %u belongs to entry %u, out of range", ring,
			   NAME_INDEX(owner));
	word = shm_load(entry_state_word(segment, NAME_INDEX(owner)));
	if (state_gen(word) != NAME_GEN(owner) || state_of(word) == ENTRY_FREE)
		return say(text, bytes, "I7: ring %u belongs to an entry that has ended", ring);
	return false;
}

static bool check_block(struct report *report, uint32_t block, char *text, size_t bytes)
{
	struct segment *segment = report->segment;
	uint64_t owner = shm_load(&segment->block_owners[block]);

	if (owner != 0 && slot_is_free(segment, NAME_INDEX(owner)))
		return say(text, bytes, "I8: cursors %u belong to peer %u, whose slot is free", block,
			   NAME_INDEX(owner));
	for (uint32_t i = 0; i < SHM_BLOCK_CURSORS; i++) {
		uint64_t name = shm_load(&segment->blocks[block].cursors[i].name);

		if (name == 0)
			continue;
		if (owner == 0)
			return say(text, bytes, "I8: cursor %u of block %u is set, the block free", i,
				   block);
		if (NAME_INDEX(name) >= segment->geometry.entries)
			return say(text, bytes, "I8: cursor %u of block %u is out of range", i, block);
	}
	return false;
}

static bool check_pins(struct report *report, uint32_t slot, char *text, size_t bytes)
{
	struct segment *segment = report->segment;
	bool free_slot = slot_is_free(segment, slot);

	for (unsigned cell = 0; cell < SHM_PINS; cell++) {
		uint64_t pin = shm_load(&segment->peers[slot].pins[cell].word);

		if (pin != 0 && free_slot)
			return say(text, bytes, "I9: the free slot %u has a pin", slot);
		if (pin != 0 && pin >> 1 > epoch_now(segment))
			return say(text, bytes, "I9: a pin of peer %u is from the future", slot);
	}
	return false;
}

int verify_segment(struct peer *peer, void (*finding)(void *arg, const char *text), void *arg)
{
	struct segment *segment = peer->segment;
	const struct shm_geometry *g = &segment->geometry;
	struct report report = {
		.peer = peer, .segment = segment, .finding = finding, .arg = arg
	};

	check_all(&report, check_header, 1);
	check_all(&report, check_state, g->entries);
	check_all(&report, check_progress, g->entries);
	check_all(&report, check_charge, g->entries);
	check_all(&report, check_budget, 2);
	check_all(&report, check_chain, g->buckets);
	if (report.count == 0)
		check_all(&report, find_in_chain, g->entries);
	check_all(&report, check_ring, g->rings);
	check_all(&report, check_block, g->blocks);
	check_all(&report, check_pins, g->peers);
	return report.count;
}
