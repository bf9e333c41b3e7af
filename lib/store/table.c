/* SPDX-License-Identifier: MIT */
#include "store/table.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <unistd.h>

#include <urcu-bp.h>
#include <urcu/rculfhash.h>

#include "base/thread.h"
#include "store/blob.h"
#include "store/opened.h"

#define BUCKETS TABLE_ITEMS_MAX
#define CONDEMNED_MAX 64 /* items that wait for one grace period together */
#define LOOKS_MAX 16     /* ahead of the hand, for one whose entry has ended */

static unsigned long name_hash(struct entry_name name)
{
	return (unsigned long)(name_word(name) * 0x9e3779b97f4a7c15ull >> 20);
}

static int name_matches(struct cds_lfht_node *node, const void *wanted)
{
	const struct open_blob *blob = container_of(node, struct open_blob, node);

	return name_word(blob->name) == name_word(*(const struct entry_name *)wanted);
}

/* urcu-bp's registry of reader threads must not be copied half changed. */
static void watch_fork(void)
{
	pthread_atfork(urcu_bp_before_fork, urcu_bp_after_fork_parent, urcu_bp_after_fork_child);
}

int table_init(struct table *table)
{
	static pthread_once_t once = PTHREAD_ONCE_INIT;
	struct rlimit limit;

	pthread_once(&once, watch_fork);
	*table = (struct table){ .files_room = TABLE_FILES_MAX };
	table->places = calloc(TABLE_ITEMS_MAX, sizeof(struct open_blob *));
	/* No auto-resize: its worker thread would not survive a fork. */
	table->hash = cds_lfht_new(BUCKETS, BUCKETS, BUCKETS, 0, NULL);
	if (table->hash == NULL || table->places == NULL) {
		free(table->places);
		if (table->hash != NULL)
			cds_lfht_destroy(table->hash, NULL);
		return -ENOMEM;
	}
	if (getrlimit(RLIMIT_NOFILE, &limit) == 0)
		table->files_room = (uint32_t)min_u64(TABLE_FILES_MAX, limit.rlim_cur / 8);
	pthread_mutex_init(&table->mutex, NULL);
	return 0;
}

/* ----------------------------------------------------------------- ends of items */

static void free_condemned(struct open_blob *blob)
{
	for (struct open_blob *next; blob != NULL; blob = next) {
		next = blob->next_condemned;
		free(blob);
	}
}

/* No users, not in the table; but a look-up may still be passing by. */
static void condemn(struct table *table, struct open_blob *blob)
{
	UNCANCELLED;
	struct open_blob *batch = NULL;

	opened_close(blob);
	pthread_mutex_lock(&table->mutex);
	blob->next_condemned = table->condemned;
	table->condemned = blob;
	/* Not inside a read section of the program's own: it would wait for itself. */
	if (++table->condemned_count >= CONDEMNED_MAX && !rcu_read_ongoing()) {
		batch = table->condemned;
		table->condemned = NULL;
		table->condemned_count = 0;
	}
	pthread_mutex_unlock(&table->mutex);
	if (batch != NULL) {
		synchronize_rcu();
		free_condemned(batch);
	}
}

static void put(struct table *table, struct open_blob *blob)
{
	if (atomic_fetch_sub(&blob->users, 1) == 1)
		condemn(table, blob);
}

void table_put(struct store *store, struct open_blob *blob)
{
	put(&store->table, blob);
}

static uint64_t copied_bytes(const struct open_blob *blob)
{
	return blob->fd < 0 ? atomic_load_explicit(&blob->bytes, memory_order_relaxed) : 0;
}

/* Where the hand finds it, before anybody else can. False: there is no room. */
static bool take_place(struct table *table, struct open_blob *blob)
{
	bool has_room;

	pthread_mutex_lock(&table->mutex);
	has_room = table->items < TABLE_ITEMS_MAX;
	if (has_room) {
		blob->place = table->items++;
		table->places[blob->place] = blob;
		table->files += blob->fd >= 0;
		table->copies_bytes += copied_bytes(blob);
	}
	pthread_mutex_unlock(&table->mutex);
	return has_room;
}

static void leave_place(struct table *table, struct open_blob *blob)
{
	struct open_blob *last;

	pthread_mutex_lock(&table->mutex);
	last = table->places[--table->items];
	table->places[blob->place] = last;
	last->place = blob->place;
	table->files -= blob->fd >= 0;
	table->copies_bytes -= copied_bytes(blob);
	pthread_mutex_unlock(&table->mutex);
}

/* Out of the table, once. */
static void drop(struct table *table, struct open_blob *blob)
{
	int ret;

	if (!blob->is_listed)
		return;
	rcu_read_lock();
	ret = cds_lfht_del(table->hash, &blob->node);
	rcu_read_unlock();
	if (ret < 0)
		return; /* another thread did */
	leave_place(table, blob);
	put(table, blob);
}

void table_drop(struct store *store, struct open_blob *blob)
{
	drop(&store->table, blob);
}

static bool get_if_used(struct open_blob *blob)
{
	uint32_t users = atomic_load(&blob->users);

	/* ORDER blob-found, acquire: being a user before what it holds. Pairs with insert(). */
	while (users > 0)
		if (atomic_compare_exchange_weak(&blob->users, &users, users + 1))
			return true;
	return false;
}

/* ---------------------------------------------------------------- making room */

static bool has_ended(const struct store *store, const struct open_blob *blob)
{
	return state_gen(shm_load_relaxed(entry_state_word(store->segment, blob->name.idx))) !=
	       blob->name.gen;
}

/* The n-th item from the hand on, if it is idle now; @wants_file: and has a descriptor. */
static struct open_blob *idle_item(const struct table *table, uint32_t n, bool wants_file)
{
	struct open_blob *blob = table->places[(table->hand + n) % table->items];

	return atomic_load(&blob->users) == 1 && (!wants_file || blob->fd >= 0) ? blob : NULL;
}

/* One whose entry has ended, if there is one near; else the hand's next that was not used lately. */
static struct open_blob *choose(struct store *store, bool wants_file)
{
	struct table *table = &store->table;
	struct open_blob *blob;

	for (uint32_t i = 0; i < min_u64(table->items, LOOKS_MAX); i++) {
		blob = idle_item(table, i, wants_file);
		if (blob != NULL && has_ended(store, blob))
			return blob;
	}
	for (uint32_t i = 0; i < 2 * table->items; i++) {
		blob = idle_item(table, 0, wants_file);
		table->hand = (table->hand + 1) % table->items;
		if (blob != NULL && !atomic_exchange(&blob->is_used, false))
			return blob;
	}
	return NULL;
}

static bool evict_one(struct store *store, bool wants_file)
{
	struct table *table = &store->table;
	struct open_blob *victim;

	pthread_mutex_lock(&table->mutex);
	victim = choose(store, wants_file);
	if (victim != NULL && !get_if_used(victim))
		victim = NULL;
	pthread_mutex_unlock(&table->mutex);
	if (victim == NULL)
		return false;
	drop(table, victim);
	table_put(store, victim);
	return true;
}

/* Room for one item more, unless all are in use. */
static void make_room(struct store *store, bool is_copy)
{
	struct table *table = &store->table;
	bool fits;

	do {
		pthread_mutex_lock(&table->mutex);
		fits = table->items < TABLE_ITEMS_MAX &&
		       (is_copy ? table->copies_bytes < TABLE_COPIES_BYTES_MAX
				: table->files < table->files_room);
		pthread_mutex_unlock(&table->mutex);
	} while (!fits && evict_one(store, !is_copy));
}

/* ---------------------------------------------------------------------- look-up */

static struct open_blob *lookup(struct table *table, struct entry_name name)
{
	struct cds_lfht_iter iter;
	struct cds_lfht_node *node;
	struct open_blob *blob;

	rcu_read_lock();
	cds_lfht_lookup(table->hash, name_hash(name), name_matches, &name, &iter);
	node = cds_lfht_iter_get_node(&iter);
	blob = node != NULL ? container_of(node, struct open_blob, node) : NULL;
	if (blob != NULL && !get_if_used(blob))
		blob = NULL;
	rcu_read_unlock();
	if (blob != NULL && !atomic_load_explicit(&blob->is_used, memory_order_relaxed))
		atomic_store_explicit(&blob->is_used, true, memory_order_relaxed);
	return blob;
}

static int open_file(struct store *store, struct entry_name name, struct key_hash hash)
{
	int fd = blob_open(store, name, hash);

	/* Too many descriptors in this process: one of ours less. */
	if (fd == -EMFILE && evict_one(store, true))
		fd = blob_open(store, name, hash);
	return fd;
}

static int make(struct store *store, struct entry_name name, struct key_hash hash,
		const struct blob_facts *facts, struct open_blob **ret_blob)
{
	UNCANCELLED;
	bool is_copy = facts->bytes <= TABLE_COPY_BYTES_MAX &&
		       facts->file_bytes <= TABLE_COPY_FILE_BYTES_MAX;
	struct open_blob *blob =
		malloc(sizeof(*blob) +
		       (is_copy ? (size_t)max_u64(facts->bytes, facts->file_bytes) + 8 : 0));
	int ret = 0;

	if (blob == NULL)
		return -ENOMEM;
	make_room(store, is_copy);
	*blob = (struct open_blob){ .name = name };
	atomic_init(&blob->bytes, facts->bytes);
	atomic_init(&blob->users, 2);
	blob->fd = open_file(store, name, hash);
	ret = blob->fd < 0 ? blob->fd : opened_look_into(store, blob, hash, facts, is_copy);
	if (ret < 0) {
		opened_close(blob);
		free(blob);
		return ret;
	}
	*ret_blob = blob;
	return 0;
}

/* What was opened otherwise than it is wanted now. 0; -EAGAIN: open it anew; -EBADMSG. */
static int suit(struct store *store, struct open_blob *blob, const struct blob_facts *facts)
{
	bool is_damaged;

	if (likely(facts->bytes == TABLE_GROWING ||
		   (atomic_load_explicit(&blob->bytes, memory_order_acquire) != TABLE_GROWING &&
		    blob->is_guarded >= facts->is_guarded)))
		return 0;
	is_damaged = facts->bytes > TABLE_COPY_BYTES_MAX && !opened_has_size(blob, facts->file_bytes);
	if (!is_damaged && facts->bytes > TABLE_COPY_BYTES_MAX && !facts->is_guarded) {
		atomic_store(&blob->bytes, facts->bytes);
		return 0;
	}
	table_drop(store, blob);
	table_put(store, blob);
	return is_damaged ? -EBADMSG : -EAGAIN;
}

/* Ours into the table, or, if another thread was faster, out with it. */
static bool insert(struct table *table, struct open_blob *blob)
{
	struct cds_lfht_node *node;

	blob->is_listed = take_place(table, blob);
	if (!blob->is_listed) {
		atomic_store(&blob->users, 1);
		return true;
	}
	cds_lfht_node_init(&blob->node);
	/* ORDER blob-found, release: all of it before its users. Pairs with get_if_used(). */
	atomic_store_explicit(&blob->users, 2, memory_order_release);
	rcu_read_lock();
	node = cds_lfht_add_unique(table->hash, name_hash(blob->name), name_matches, &blob->name,
				   &blob->node);
	rcu_read_unlock();
	if (node == &blob->node)
		return true;
	leave_place(table, blob);
	return false;
}

int table_get(struct store *store, struct entry_name name, struct key_hash hash,
	      const struct blob_facts *facts, struct open_blob **ret_blob)
{
	struct open_blob *blob, *mine = NULL;
	int ret = 0;

	for (;;) {
		blob = lookup(&store->table, name);
		if (blob != NULL) {
			ret = suit(store, blob, facts);
			if (ret != -EAGAIN)
				break;
		}
		ret = mine == NULL ? make(store, name, hash, facts, &mine) : 0;
		if (ret < 0)
			return ret;
		if (insert(&store->table, mine)) {
			*ret_blob = mine;
			return 0;
		}
		/* Another thread was faster: use its one, unless that is going just now. */
	}
	if (mine != NULL) {
		opened_close(mine);
		free(mine);
	}
	if (ret == 0)
		*ret_blob = blob;
	return ret;
}

/* ------------------------------------------------------------------------- the end */

/* Take all items out; @bury them unless the hash table's memory is somebody else's. */
static void empty(struct table *table, bool bury)
{
	struct cds_lfht_iter iter;
	struct cds_lfht_node *node;

	for (;;) {
		rcu_read_lock();
		cds_lfht_first(table->hash, &iter);
		node = cds_lfht_iter_get_node(&iter);
		if (node != NULL)
			cds_lfht_del(table->hash, node);
		rcu_read_unlock();
		if (node == NULL)
			break;
		if (bury)
			condemn(table, container_of(node, struct open_blob, node));
		else
			opened_forget(container_of(node, struct open_blob, node));
	}
}

void table_destroy(struct table *table)
{
	empty(table, true);
	/* As in condemn(); only of a retired segment, and memory is all it costs. */
	if (rcu_read_ongoing())
		return;
	synchronize_rcu();
	free_condemned(table->condemned);
	cds_lfht_destroy(table->hash, NULL);
	free(table->places);
	pthread_mutex_destroy(&table->mutex);
}

void table_forget(struct table *table)
{
	empty(table, false);
}
