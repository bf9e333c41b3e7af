/* SPDX-License-Identifier: MIT */
#include "store/table.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <urcu-bp.h>
#include <urcu/rculfhash.h>

#include "store/blob.h"

#define BUCKETS 256
#define ROOM_MAX 256
#define CONDEMNED_MAX 32 /* items that wait for one grace period together */
#define EVICT_LOOKS 16

struct open_blob {
	struct cds_lfht_node node;
	struct entry_name name;
	int fd;
	/* 1 for the table, 1 a user; at 0 it is condemned and never comes back. */
	_Atomic uint32_t users;
	_Atomic bool size_known;
	struct open_blob *next_condemned;
};

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

int table_init(struct store *store)
{
	static pthread_once_t once = PTHREAD_ONCE_INIT;
	struct rlimit limit;

	pthread_once(&once, watch_fork);
	/* No auto-resize: its worker thread would not survive a fork. */
	store->table = cds_lfht_new(BUCKETS, BUCKETS, BUCKETS, 0, NULL);
	if (store->table == NULL)
		return -ENOMEM;
	store->table_room = ROOM_MAX;
	if (getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur / 8 < ROOM_MAX)
		store->table_room = (uint32_t)limit.rlim_cur / 8;
	atomic_init(&store->table_count, 0);
	pthread_mutex_init(&store->table_mutex, NULL);
	store->condemned = NULL;
	store->condemned_count = 0;
	return 0;
}

static void free_condemned(struct open_blob *blob)
{
	while (blob != NULL) {
		struct open_blob *next = blob->next_condemned;

		free(blob);
		blob = next;
	}
}

/* No users, not in the table; but a look-up may still be passing by. */
static void condemn(struct store *store, struct open_blob *blob)
{
	struct open_blob *batch = NULL;

	close(blob->fd);
	pthread_mutex_lock(&store->table_mutex);
	blob->next_condemned = store->condemned;
	store->condemned = blob;
	/* Not inside a read section of the program's own: it would wait for itself. */
	if (++store->condemned_count >= CONDEMNED_MAX && !rcu_read_ongoing()) {
		batch = store->condemned;
		store->condemned = NULL;
		store->condemned_count = 0;
	}
	pthread_mutex_unlock(&store->table_mutex);
	if (batch != NULL) {
		synchronize_rcu();
		free_condemned(batch);
	}
}

void table_put(struct store *store, struct open_blob *blob)
{
	if (atomic_fetch_sub(&blob->users, 1) == 1)
		condemn(store, blob);
}

void table_drop(struct store *store, struct open_blob *blob)
{
	int ret;

	rcu_read_lock();
	ret = cds_lfht_del(store->table, &blob->node);
	rcu_read_unlock();
	if (ret < 0)
		return; /* another thread did */
	atomic_fetch_sub(&store->table_count, 1);
	table_put(store, blob);
}

static bool get_if_used(struct open_blob *blob)
{
	uint32_t users = atomic_load(&blob->users);

	while (users > 0)
		if (atomic_compare_exchange_weak(&blob->users, &users, users + 1))
			return true;
	return false;
}

/* Make room: drop an idle item, first of all one whose entry has ended. */
static void evict_one(struct store *store)
{
	struct cds_lfht_iter iter;
	struct cds_lfht_node *node;
	struct open_blob *victim = NULL;
	int looks = 0;

	rcu_read_lock();
	for (cds_lfht_first(store->table, &iter);
	     (node = cds_lfht_iter_get_node(&iter)) != NULL && looks < EVICT_LOOKS;
	     cds_lfht_next(store->table, &iter)) {
		struct open_blob *blob = container_of(node, struct open_blob, node);

		if (atomic_load(&blob->users) != 1)
			continue;
		looks++;
		victim = blob;
		if (state_gen(shm_load_relaxed(entry_state_word(store->segment, blob->name.idx))) !=
		    blob->name.gen)
			break;
	}
	if (victim != NULL && !get_if_used(victim))
		victim = NULL;
	rcu_read_unlock();
	if (victim == NULL)
		return;
	table_drop(store, victim);
	table_put(store, victim);
}

static struct open_blob *lookup(struct store *store, struct entry_name name)
{
	struct cds_lfht_iter iter;
	struct cds_lfht_node *node;
	struct open_blob *blob = NULL;

	rcu_read_lock();
	cds_lfht_lookup(store->table, name_hash(name), name_matches, &name, &iter);
	node = cds_lfht_iter_get_node(&iter);
	if (node != NULL) {
		blob = container_of(node, struct open_blob, node);
		if (!get_if_used(blob))
			blob = NULL;
	}
	rcu_read_unlock();
	return blob;
}

/* Open the file, with an idle descriptor less if the process has too many. */
static int open_file(struct store *store, struct entry_name name, struct key_hash hash)
{
	int fd;

	if (atomic_load(&store->table_count) >= store->table_room)
		evict_one(store);
	fd = blob_open(store, name, hash);
	if (fd != -EMFILE)
		return fd;
	evict_one(store);
	return blob_open(store, name, hash);
}

static void discard(struct open_blob *blob)
{
	close(blob->fd);
	free(blob);
}

int table_get(struct store *store, struct entry_name name, struct key_hash hash,
	      struct open_blob **ret_blob)
{
	struct open_blob *blob, *mine = NULL;
	struct cds_lfht_node *node;
	int fd;

	for (;;) {
		blob = lookup(store, name);
		if (blob != NULL)
			break;
		if (mine == NULL) {
			fd = open_file(store, name, hash);
			if (fd < 0)
				return fd;
			mine = calloc(1, sizeof(*mine));
			if (mine == NULL) {
				close(fd);
				return -ENOMEM;
			}
			mine->name = name;
			mine->fd = fd;
			atomic_store(&mine->users, 2);
		}
		cds_lfht_node_init(&mine->node);
		rcu_read_lock();
		node = cds_lfht_add_unique(store->table, name_hash(name), name_matches, &mine->name,
					   &mine->node);
		rcu_read_unlock();
		if (node == &mine->node) {
			atomic_fetch_add(&store->table_count, 1);
			*ret_blob = mine;
			return 0;
		}
		/* Another thread was faster: use its one, unless that is going just now. */
	}
	if (mine != NULL)
		discard(mine);
	*ret_blob = blob;
	return 0;
}

int table_fd(const struct open_blob *blob)
{
	return blob->fd;
}

bool table_check_size(struct open_blob *blob, uint64_t bytes)
{
	struct stat st;

	if (atomic_load_explicit(&blob->size_known, memory_order_relaxed))
		return true;
	if (fstat(blob->fd, &st) < 0 || (uint64_t)st.st_size != bytes)
		return false;
	atomic_store_explicit(&blob->size_known, true, memory_order_relaxed);
	return true;
}

/* Close all items; @free_them unless the hash table's memory is somebody else's. */
static void empty(struct store *store, bool free_them)
{
	struct cds_lfht_iter iter;
	struct cds_lfht_node *node;

	for (;;) {
		rcu_read_lock();
		cds_lfht_first(store->table, &iter);
		node = cds_lfht_iter_get_node(&iter);
		if (node != NULL)
			cds_lfht_del(store->table, node);
		rcu_read_unlock();
		if (node == NULL)
			break;
		if (free_them) {
			condemn(store, container_of(node, struct open_blob, node));
		} else {
			close(container_of(node, struct open_blob, node)->fd);
		}
	}
}

void table_destroy(struct store *store)
{
	empty(store, true);
	synchronize_rcu();
	free_condemned(store->condemned);
	store->condemned = NULL;
	cds_lfht_destroy(store->table, NULL);
	pthread_mutex_destroy(&store->table_mutex);
}

void table_forget(struct store *store)
{
	empty(store, false);
}
