/* A directory for an environment of LMDB, and what its tests do with one again and again. What has
 * no err_t ends the test when it fails. */
#ifndef LIB_LMDB_FIXTURE_H
#define LIB_LMDB_FIXTURE_H

#include "storage/lmdb.h"
#include "tests/lib/tmpdir.h"

struct lmdb_fixture {
    struct tmpdir tmpdir;
    char path[TMPDIR_PATH_SIZE]; /* of an environment, which is not there at first */
};

/* For cmocka_unit_test_setup_teardown: the state is a struct lmdb_fixture. */
int lmdb_fixture_setup(void **state);
int lmdb_fixture_teardown(void **state);

/* How most tests open: a new volume 3 of node 0x77 with a small map. */
struct lmdb_options lmdb_fixture_options(const char *path);
struct store *lmdb_fixture_open(const char *path);
struct store_txn *lmdb_fixture_begin(struct store *store, enum store_mode mode);

/* Puts `count` rows of a kilobyte into the log, from this number on, in one transaction. */
err_t lmdb_fixture_fill(struct store *store, unsigned from, unsigned count) MUST_CHECK;
/* Rows of the log. */
uint64_t lmdb_fixture_count(struct store *store);
struct store_stats lmdb_fixture_stats(struct store *store);

unsigned lmdb_fixture_files(const struct tmpdir *tmpdir);
uint64_t lmdb_fixture_file_size(const char *path);

#endif
