/* SPDX-License-Identifier: MIT */
/*
 * other - LMDB as a store of small values: see plain.h. What it does for its time is
 * not the same (one file, one writer at a time, no streams); it is the store that is
 * known to be fast where a program only looks up.
 */
#include "plain.h"

#include <err.h>

#ifdef HAVE_LMDB
#include <lmdb.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

const bool other_is_here = true;

struct other {
	MDB_env *env;
	MDB_dbi db;
	MDB_txn *reading; /* kept between look-ups, as its manual recommends */
};

static void mdb(int ret, const char *what)
{
	if (ret != 0)
		errx(1, "%s: %s", what, mdb_strerror(ret));
}

struct other *other_open(const char *name)
{
	/* Nobody else syncs either; without WRITEMAP, which a stray store could damage. */
	const unsigned flags = MDB_NOSYNC | MDB_NOMETASYNC | MDB_NORDAHEAD;
	struct other *other = calloc(1, sizeof(*other));
	MDB_txn *txn;

	expect(other != NULL, "calloc");
	mkdir(in_dir(name), 0700);
	mdb(mdb_env_create(&other->env), "mdb_env_create");
	mdb(mdb_env_set_mapsize(other->env, 1u << 30), "mdb_env_set_mapsize");
	mdb(mdb_env_open(other->env, in_dir(name), flags, 0600), "mdb_env_open");
	mdb(mdb_txn_begin(other->env, NULL, 0, &txn), "mdb_txn_begin");
	mdb(mdb_dbi_open(txn, NULL, 0, &other->db), "mdb_dbi_open");
	mdb(mdb_txn_commit(txn), "mdb_txn_commit");
	return other;
}

static MDB_val key_of(unsigned i)
{
	return (MDB_val){ .mv_size = small_names[i].key_bytes,
			  .mv_data = (void *)(uintptr_t)small_names[i].key };
}

void other_put(struct other *other, unsigned i)
{
	MDB_val key = key_of(i), value = { .mv_size = SMALL_BYTES,
					   .mv_data = (void *)(uintptr_t)small_value(i) };
	MDB_txn *txn;

	mdb(mdb_txn_begin(other->env, NULL, 0, &txn), "mdb_txn_begin");
	mdb(mdb_put(txn, other->db, &key, &value, 0), "mdb_put");
	mdb(mdb_txn_commit(txn), "mdb_txn_commit");
}

void other_get(struct other *other, unsigned i)
{
	MDB_val key = key_of(i), value;

	if (other->reading == NULL)
		mdb(mdb_txn_begin(other->env, NULL, MDB_RDONLY, &other->reading), "mdb_txn_begin");
	else
		mdb(mdb_txn_renew(other->reading), "mdb_txn_renew");
	mdb(mdb_get(other->reading, other->db, &key, &value), "mdb_get");
	expect(value.mv_size == SMALL_BYTES, "mdb_get: another size");
	memcpy(plain_sink, value.mv_data, SMALL_BYTES);
	mdb_txn_reset(other->reading);
}

void other_close(struct other *other)
{
	if (other->reading != NULL)
		mdb_txn_abort(other->reading);
	mdb_env_close(other->env);
	free(other);
}

#else

const bool other_is_here = false;

struct other *other_open(const char *name)
{
	errx(1, "%s: built without LMDB", name);
}

void other_put(struct other *other, unsigned i)
{
	(void)other;
	(void)i;
}

void other_get(struct other *other, unsigned i)
{
	(void)other;
	(void)i;
}

void other_close(struct other *other)
{
	(void)other;
}
#endif
