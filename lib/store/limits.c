/* SPDX-License-Identifier: MIT */
#include "store/limits.h"

#include <errno.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <time.h>

#include "base/clock.h"
#include "base/step.h"
#include "base/thread.h"
#include "index/repair.h"
#include "store/evict.h"
#include "store/former.h"
#include "store/sweep.h"

#define ROOM_LOOKS 256 /* without anything having moved: see make_room() */
#define ROOM_PAUSE_NS NS_PER_MS
#define LEASE_NS (NS_PER_SEC / 10) /* longer than one of them needs */
#define FORMER_FILES 512     /* that one look for room counts */
#define FORMER_PART 256	     /* as long as not all are: of the limit at a time, */
#define FORMER_SPARE_BYTES (1u << 20) /* and no more than that */
#define WAY_TRIES 256 /* each with a pause: longer than LEASE_NS */
#define OWN_PART 256 /* of min_free, or so many bytes, for what the file system needs itself */
#define OWN_BYTES (64u << 10)
#define DISK_SHARE 4 /* of what others may take as well, one part without asking again */

enum kind {
	BYTES,
	SLOTS,
};

/* ------------------------------------------------------------- what is used */

/* As a part of what the low mark leaves of @limit. */
static uint64_t low_mark(const struct segment *segment, uint64_t limit)
{
	uint64_t percent = min_u64(segment_setting(segment, SETTING_LOW_PERCENT), 100);

	return limit / 100 * percent + limit % 100 * percent / 100;
}

/* What the producers at work have charged and not written yet: the disk does not know of it. */
static uint64_t unwritten(const struct segment *segment, uint32_t idx, uint64_t word,
			  uint64_t charge)
{
	struct shm_entry *entry = entry_at(segment, idx);
	uint64_t on_disk, declared_bytes;

	if (!state_is_growing(word) && state_of(word) != ENTRY_CLAIMED)
		return 0;
	on_disk = shm_load_relaxed(&entry->flushed);
	declared_bytes = shm_load_relaxed(&entry->declared_bytes);
	/* What was declared is reserved before the first byte is written: stream/declared.c. */
	if (on_disk > 0 && declared_bytes <= charge)
		on_disk = max_u64(on_disk, declared_bytes);
	return charge - min_u64(charge, on_disk);
}

/* The sums over all entries. */
struct measure {
	struct limits_use use;
	uint64_t unwritten_bytes;
	uint64_t going_bytes, going; /* read by nobody, and free when nobody looks at them */
	uint64_t freed_bytes;	     /* as good as gone */
};

/* A walk over the dense arrays; @dry, or NULL, has what does not count. */
static void measure(const struct store *store, const struct evict_dry *dry, struct measure *m)
{
	const struct segment *segment = store->segment;
	uint32_t count = segment->geometry.entries, idx;

	*m = (struct measure){ .use.spare_bytes = UINT64_MAX,
			       .use.bytes = dry != NULL ? dry->former_bytes : former_bytes(store),
			       .freed_bytes = dry != NULL ? dry->freed_bytes : 0 };
	for (idx = 0; idx < count; idx++) {
		uint64_t charge = shm_load_relaxed(&segment->charges[idx]);
		uint64_t word = shm_load_relaxed(entry_state_word(segment, idx));

		if (dry != NULL && entry_bit(dry->as_gone, idx)) {
			m->freed_bytes += charge;
			continue;
		}
		/* Not those being swept: that is over in a moment, or their sweeper is stopped. */
		if (state_of(word) == ENTRY_RETIRED) {
			m->going++;
			m->going_bytes += charge;
		}
		m->use.entries += state_of(word) != ENTRY_FREE;
		m->use.bytes += charge;
		if (charge > 0)
			m->unwritten_bytes += unwritten(segment, idx, word, charge);
	}
}

/* How much more the file system lets us have; UINT64_MAX if we are not to ask. */
static uint64_t disk_spare(const struct store *store, const struct measure *m, uint64_t *ret_short)
{
	const struct segment *segment = store->segment;
	uint64_t percent = min_u64(segment_setting(segment, SETTING_MIN_FREE_PERCENT), 100);
	uint64_t keep = segment_setting(segment, SETTING_MIN_FREE_BYTES), have, total;
	struct statvfs fs;

	*ret_short = 0;
	if ((keep == 0 && percent == 0) || fstatvfs(store->blobs_fd, &fs) < 0 || fs.f_blocks == 0)
		return UINT64_MAX;
	total = (uint64_t)fs.f_blocks * fs.f_frsize;
	keep = max_u64(keep, total / 100 * percent);
	/* A file takes more than its blocks: of extents, of directories. */
	keep += max_u64(keep / OWN_PART, OWN_BYTES);
	have = (uint64_t)fs.f_bavail * fs.f_frsize + m->freed_bytes;
	have -= min_u64(have, m->unwritten_bytes);
	if (have > keep)
		return have - keep;
	/* Not only up to the mark, or the next one would be here at once. */
	*ret_short = keep - have + (keep - low_mark(segment, keep));
	return 0;
}

void limits_measure(const struct store *store, struct limits_use *ret_use)
{
	uint64_t missing, most = segment_setting(store->segment, SETTING_MAX_BYTES);
	struct measure m;

	measure(store, NULL, &m);
	*ret_use = m.use;
	ret_use->spare_bytes = disk_spare(store, &m, &missing);
	if (most != UINT64_MAX)
		ret_use->spare_bytes = min_u64(ret_use->spare_bytes, most - min_u64(most, m.use.bytes));
}

/* ---------------------------------------------------------------- making room */

/* Who wants room: nobody in particular, or one of our entries. */
struct taker {
	enum kind kind;
	const struct entry_name *name;
	uint64_t before; /* what it was charged with */
	const struct evict_watch *watch; /* or NULL */
};

static const struct evict_dry *dry_of(const struct taker *taker)
{
	return taker->watch != NULL ? taker->watch->dry : NULL;
}

static struct shm_budget *budget_of(const struct store *store, enum kind kind)
{
	struct shm_header *header = store->segment->header;

	return kind == BYTES ? &header->bytes : &header->slots;
}

/* What a look at all entries says of one kind. */
struct look {
	uint64_t over;	 /* beyond the limit; 0: it is kept */
	uint64_t excess; /* what has to go for the low mark */
	uint64_t going;	 /* is about to, and need not be looked for */
	uint64_t spare;	 /* may be taken without another look */
};

/* What has to be looked for. */
static uint64_t wanted(const struct look *look)
{
	return look->excess - min_u64(look->excess, look->going);
}

static void judge(const struct segment *segment, uint64_t most, uint64_t used, struct look *look)
{
	uint64_t low = low_mark(segment, most);

	look->over = used - min_u64(used, most);
	look->excess = most != UINT64_MAX ? used - min_u64(used, low) : 0;
	look->spare = most != UINT64_MAX ? most - min_u64(used, most) : UINT64_MAX;
}

static void look_at_bytes(struct store *store, const struct taker *taker, struct look *look)
{
	uint64_t most = segment_setting(store->segment, SETTING_MAX_BYTES), spare, missing;
	/* Without a limit of the cache's own it does not matter what former files take. */
	bool is_counted = most == UINT64_MAX || former_count(store, FORMER_FILES);
	struct measure m;

	measure(store, dry_of(taker), &m);
	judge(store->segment, most, m.use.bytes, look);
	look->going = m.going_bytes;
	/* What nobody has counted yet is not in the sum: then little at a time. */
	if (!is_counted)
		look->spare = min_u64(look->spare, min_u64(most / FORMER_PART, FORMER_SPARE_BYTES));
	spare = disk_spare(store, &m, &missing);
	if (spare != UINT64_MAX)
		look->spare = min_u64(look->spare, spare / DISK_SHARE);
	if (missing > 0) {
		look->over = max_u64(look->over, missing);
		look->excess = max_u64(look->excess, missing);
	}
}

static void look_at(struct store *store, const struct taker *taker, struct look *look)
{
	struct measure m;

	if (taker->kind == BYTES) {
		look_at_bytes(store, taker, look);
		return;
	}
	measure(store, dry_of(taker), &m);
	judge(store->segment, segment_setting(store->segment, SETTING_MAX_ENTRIES), m.use.entries,
	      look);
	look->going = m.going;
}

/*
 * Only one removes at a time, or each of many would for what all of them want. For a time, so
 * that the dead and the stopped keep nobody out; two at once remove too much, and that is all.
 */
static bool take_lease(struct store *store, uint64_t *lease_ns)
{
	shm_u64 *word = &store->segment->header->room_lease_ns;
	uint64_t now_ns = clock_shared_ns(), held_ns = shm_load(word);

	if ((held_ns != *lease_ns && held_ns > now_ns) ||
	    !shm_cas(word, held_ns, now_ns + LEASE_NS)) {
		*lease_ns = 0;
		return false;
	}
	*lease_ns = now_ns + LEASE_NS;
	/* STEP room-leased: nobody else removes. Die here: it runs out. */
	STEP("room-leased");
	return true;
}

static void drop_lease(struct store *store, uint64_t lease_ns)
{
	if (lease_ns != 0)
		shm_cas(&store->segment->header->room_lease_ns, lease_ns, 0);
}

/*
 * What we had first, if we get nothing, and only then the lease: of two that have taken the
 * last room together the first one that fails leaves it to the other.
 */
static int give_up(struct store *store, const struct taker *taker, uint64_t lease_ns)
{
	if (taker->name != NULL && taker->kind == BYTES)
		shm_store(&store->segment->charges[taker->name->idx], taker->before);
	if (taker->name != NULL && taker->kind == SLOTS)
		sweep_give_back(store, *taker->name, ENTRY_CLAIMED, false);
	drop_lease(store, lease_ns);
	return -ENOSPC;
}

/* What the dead hold back, by a pin or half removed, nobody else brings to an end. */
static bool collect_of_dead(struct store *store, bool *has_reaped)
{
	if (*has_reaped)
		return false;
	*has_reaped = true;
	return repair_reap_all(store->peer) > 0 && sweep_collect(store) > 0;
}

/*
 * Under the lease. False: there is nothing that could go. Former ones are candidates like all
 * others, a few at a time, or they would outlast what is new; and some of them only go.
 */
static bool free_some(struct store *store, uint64_t bytes, const struct evict_watch *watch)
{
	uint64_t freed;
	bool has_adopted = former_adopt_some(store, bytes, &freed) > 0;

	return (freed < bytes && evict_some(store, bytes - freed, 0, watch) > 0) || has_adopted;
}

/* The same for what @look has found. */
static bool remove_some(struct store *store, const struct taker *taker, const struct look *look)
{
	/* What stands in grace is not to be made up for by others: they would stand there, too. */
	if (wanted(look) == 0) {
		sweep_collect(store);
		return true;
	}
	return (taker->kind == BYTES ? free_some(store, wanted(look), taker->watch) :
				       evict_some(store, 0, wanted(look), taker->watch) > 0) ||
	       look->going > 0;
}

/*
 * Until all that is charged is within the limits. 0 or -ENOSPC: then @taker has what it had.
 * Grace takes as long as somebody stands in the index; waited for is until nothing has moved
 * for a while.
 */
static int make_room(struct store *store, const struct taker *taker)
{
	UNCANCELLED;
	struct shm_budget *budget = budget_of(store, taker->kind);
	const struct timespec pause = { .tv_nsec = ROOM_PAUSE_NS };
	uint64_t lease_ns = 0, least = UINT64_MAX, ever, until;
	unsigned looks = 0;
	bool could = true, has_reaped = false, had_lease;
	struct look look;

	for (;;) {
		until = shm_load(&budget->until);
		/* ORDER budget, seq_cst: ever before the charges. Pairs with limits_reserve(). */
		ever = shm_load(&budget->ever);
		look_at(store, taker, &look);
		/* By CAS: not what fitted settings that have changed since. */
		if (look.over == 0)
			shm_cas(&budget->until, until, add_saturated_u64(ever, look.spare));
		/* Whoever has begun to remove goes on to the low mark. */
		if (look.over == 0 && (lease_ns == 0 || look.excess <= look.going || !could))
			break;
		/* Looks and not time: who was not let run has not waited. */
		looks = look.excess < least ? 0 : looks + 1;
		least = min_u64(least, look.excess);
		had_lease = lease_ns != 0;
		could = !take_lease(store, &lease_ns) || remove_some(store, taker, &look);
		/* Whoever had it before may have given up since we looked. */
		if (!could && !had_lease)
			continue;
		if (look.over > 0 && (!could || look.excess <= look.going) &&
		    collect_of_dead(store, &has_reaped))
			continue;
		if (look.over > 0 && (!could || looks > ROOM_LOOKS))
			return give_up(store, taker, lease_ns);
		if (looks > ROOM_LOOKS)
			break;
		if (lease_ns == 0 || look.excess <= look.going)
			nanosleep(&pause, NULL);
	}
	drop_lease(store, lease_ns);
	return 0;
}

/* @amount more is taken already, as far as the scans are concerned. May it be? */
static int spend(struct store *store, const struct taker *taker, uint64_t amount)
{
	struct shm_budget *budget = budget_of(store, taker->kind);

	if (likely(shm_add(&budget->ever, amount) + amount <= shm_load_relaxed(&budget->until)))
		return 0;
	return make_room(store, taker);
}

int limits_reserve(struct store *store, struct entry_name name, uint64_t bytes)
{
	shm_u64 *charge = &store->segment->charges[name.idx];
	uint64_t before = shm_load_relaxed(charge);
	const struct taker taker = { .kind = BYTES, .name = &name, .before = before };

	if (bytes <= before)
		return 0;
	/* Whatever goes. */
	if (bytes > segment_setting(store->segment, SETTING_MAX_BYTES))
		return -ENOSPC;
	/* ORDER budget, seq_cst: the charge before ever. Pairs with make_room(). */
	shm_store(charge, bytes);
	/* STEP bytes-charged: not counted yet. Die here: gone from the sum when it is swept. */
	STEP("bytes-charged");
	return spend(store, &taker, bytes - before);
}

bool limits_make_way(struct store *store, uint64_t bytes, uint32_t *tries)
{
	UNCANCELLED;
	const struct timespec pause = { .tv_nsec = ROOM_PAUSE_NS };
	uint64_t lease_ns = 0;
	struct measure m = { .going = 1 };

	if (*tries >= WAY_TRIES)
		return false;
	(*tries)++;
	if (take_lease(store, &lease_ns)) {
		*tries = WAY_TRIES;
		free_some(store, bytes, NULL);
		measure(store, NULL, &m);
	}
	/* Others are at it yet; or who has gone for us stands in grace. */
	if (m.going > 0) {
		nanosleep(&pause, NULL);
		sweep_collect(store);
	}
	drop_lease(store, lease_ns);
	return true;
}

static void set_charge(struct store *store, struct entry_name name, uint64_t bytes)
{
	shm_u64 *charge = &store->segment->charges[name.idx];
	uint64_t before = shm_load_relaxed(charge);

	shm_store(charge, bytes);
	if (bytes > before)
		shm_add(&store->segment->header->bytes.ever, bytes - before);
}

void limits_settle(struct store *store, struct entry_name name, int fd)
{
	struct stat st;

	if (fstat(fd, &st) == 0)
		set_charge(store, name, (uint64_t)st.st_blocks * 512);
}

void limits_note_adopted(struct store *store, struct entry_name name, uint64_t bytes)
{
	set_charge(store, name, bytes);
	shm_add(&store->segment->header->slots.ever, 1);
}

void limits_clear(struct store *store, struct entry_name name)
{
	shm_store(&store->segment->charges[name.idx], 0);
	/* STEP charge-cleared: its file is gone. Die here: swept once more. */
	STEP("charge-cleared");
}

int limits_allow_entry(struct store *store, struct entry_name name)
{
	const struct taker taker = { .kind = SLOTS, .name = &name };

	/* There are no more slots than that, and who claims one looks for himself. */
	if (segment_setting(store->segment, SETTING_MAX_ENTRIES) >= store->segment->geometry.entries)
		return 0;
	return spend(store, &taker, 1);
}

/* What would have to go, and whatever holds it back is as good as gone. */
static void foresee_room(struct store *store, const struct taker *taker)
{
	struct look look;

	look_at(store, taker, &look);
	if (look.over == 0)
		return;
	while (wanted(&look) > 0 &&
	       evict_some(store, taker->kind == BYTES ? wanted(&look) : 0,
			  taker->kind == SLOTS ? wanted(&look) : 0, taker->watch) > 0)
		look_at(store, taker, &look);
}

void limits_keep(struct store *store, const struct evict_watch *watch)
{
	for (enum kind kind = BYTES; kind <= SLOTS; kind++) {
		const struct taker taker = { .kind = kind, .watch = watch };

		if (dry_of(&taker) != NULL)
			foresee_room(store, &taker);
		else
			(void)!make_room(store, &taker);
	}
}
