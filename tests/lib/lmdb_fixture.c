#include "tests/lib/lmdb_fixture.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "tests/lib/must.h"

int lmdb_fixture_setup(void **state)
{
    struct lmdb_fixture *fixture = calloc(1, sizeof *fixture);
    tmpdir_init(&fixture->tmpdir);
    tmpdir_file(&fixture->tmpdir, "volume.mdb", fixture->path);
    *state = fixture;
    return 0;
}

int lmdb_fixture_teardown(void **state)
{
    struct lmdb_fixture *fixture = *state;
    tmpdir_deinit(&fixture->tmpdir);
    free(fixture);
    return 0;
}

struct lmdb_options lmdb_fixture_options(const char *path)
{
    return (struct lmdb_options){.path = path,
                                 .map_size = 64U << 20,
                                 .create = true,
                                 .role = "volume",
                                 .number = 3,
                                 .node_identity = 0x77};
}

struct store *lmdb_fixture_open(const char *path)
{
    struct lmdb_options options = lmdb_fixture_options(path);
    struct store *store;
    must(lmdb_store_open(&options, &store));
    return store;
}

struct store_txn *lmdb_fixture_begin(struct store *store, enum store_mode mode)
{
    struct store_txn *txn;
    must(store_begin(store, mode, &txn));
    return txn;
}

err_t lmdb_fixture_fill(struct store *store, unsigned from, unsigned count)
{
    char value[1000];
    memset(value, 'v', sizeof value);
    struct store_txn *txn;
    TRY(store_begin(store, STORE_WRITE, &txn));
    for (unsigned i = from; i < from + count; i++) {
        char key[16];
        int size = snprintf(key, sizeof key, "%08u", i);
        err_t err =
            store_put(txn, STORE_LOG, span_of(key, (size_t)size), span_of(value, sizeof value));
        if (err != NULL) {
            store_abort(txn);
            return err;
        }
    }
    TRY(store_commit(txn));
    return NULL;
}

uint64_t lmdb_fixture_count(struct store *store)
{
    struct store_txn *txn = lmdb_fixture_begin(store, STORE_READ);
    uint64_t count;
    must(store_entries(txn, STORE_LOG, &count));
    store_abort(txn);
    return count;
}

struct store_stats lmdb_fixture_stats(struct store *store)
{
    struct store_stats stats;
    store_stats(store, &stats);
    return stats;
}

unsigned lmdb_fixture_files(const struct tmpdir *tmpdir)
{
    unsigned count = 0;
    DIR *directory = opendir(tmpdir->path);
    assert_non_null(directory);
    for (struct dirent *entry; (entry = readdir(directory)) != NULL;) {
        count += entry->d_name[0] != '.';
    }
    closedir(directory);
    return count;
}

uint64_t lmdb_fixture_file_size(const char *path)
{
    struct stat status;
    assert_int_equal(stat(path, &status), 0);
    return (uint64_t)status.st_size;
}
