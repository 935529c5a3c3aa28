/* What only the body on LMDB has: its files, and backups of them. The map is in test_lmdb_map.c,
 * full disks in test_lmdb_full.c, conformance in test_store.c. */
#include "storage/lmdb.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <lmdb.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tests/lib/lmdb_fixture.h"
#include "tests/lib/must.h"

/* ---- opening ---- */

/* A missing environment is made only when asked for, under its own name and nothing else; it keeps
 * what it holds. */
static void test_create(void **state)
{
    struct lmdb_fixture *fixture = *state;
    struct lmdb_options options = lmdb_fixture_options(fixture->path);
    struct store *store;
    options.create = false;
    must_fail(lmdb_store_open(&options, &store), ERR_NOT_FOUND);
    options.create = true;
    options.read_only = true;
    must_fail(lmdb_store_open(&options, &store), ERR_NOT_FOUND);
    assert_int_equal(lmdb_fixture_files(&fixture->tmpdir), 0);
    store = lmdb_fixture_open(fixture->path);
    must(lmdb_fixture_fill(store, 0, 10));
    store_close(store);
    assert_int_equal(lmdb_fixture_files(&fixture->tmpdir), 2); /* data and lock */
    store = lmdb_fixture_open(fixture->path);
    assert_int_equal(lmdb_fixture_count(store), 10);
    store_close(store);
}

/* What a crash during creation left behind is in nobody's way. */
static void test_create_after_crash(void **state)
{
    struct lmdb_fixture *fixture = *state;
    tmpdir_write(&fixture->tmpdir, "volume.mdb.new", "half of a page", 14);
    tmpdir_write(&fixture->tmpdir, "volume.mdb.new-lock", "x", 1);
    struct store *store = lmdb_fixture_open(fixture->path);
    must(lmdb_fixture_fill(store, 0, 1));
    store_close(store);
    assert_int_equal(lmdb_fixture_files(&fixture->tmpdir), 2);
}

/* The lock file is ours alone, and so is the data. */
static void test_create_private(void **state)
{
    struct lmdb_fixture *fixture = *state;
    store_close(lmdb_fixture_open(fixture->path));
    struct stat status;
    assert_int_equal(stat(fixture->path, &status), 0);
    assert_int_equal(status.st_mode & 0777, 0600);
}

/* An environment opens only as what it was made as; a tool that names nothing opens any. */
static void test_identity(void **state)
{
    struct lmdb_fixture *fixture = *state;
    store_close(lmdb_fixture_open(fixture->path));
    static const struct {
        const char *role;
        uint32_t number;
        uint64_t identity;
        enum err_code code;
    } cases[] = {
        {"volume", 3, 0x77, ERR_NONE},   {"volume", 3, 0, ERR_NONE},
        {"volume", 4, 0x77, ERR_FORMAT}, {"catalog", 3, 0x77, ERR_FORMAT},
        {"volume", 3, 0x78, ERR_FORMAT}, {NULL, 0, 0, ERR_NONE},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct store *store;
        err_t err = lmdb_store_open(&(struct lmdb_options){.path = fixture->path,
                                                           .map_size = 64U << 20,
                                                           .role = cases[i].role,
                                                           .number = cases[i].number,
                                                           .node_identity = cases[i].identity},
                                    &store);
        if (err == NULL) {
            store_close(store);
        }
        must_fail(err, cases[i].code);
    }
}

/* Files that are no environments are refused and left as they are. */
static void test_not_an_environment(void **state)
{
    struct lmdb_fixture *fixture = *state;
    static const char text[] = "This is a text file, not an LMDB environment. ";
    static const struct {
        const char *name;
        size_t size;
        enum err_code code;
    } cases[] = {{"empty.mdb", 0, ERR_CORRUPT},
                 {"short.mdb", 10, ERR_FORMAT},
                 {"text.mdb", sizeof text, ERR_FORMAT}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char path[TMPDIR_PATH_SIZE];
        tmpdir_write(&fixture->tmpdir, cases[i].name, text, cases[i].size);
        struct lmdb_options options =
            lmdb_fixture_options(tmpdir_file(&fixture->tmpdir, cases[i].name, path));
        struct store *store;
        must_fail(lmdb_store_open(&options, &store), cases[i].code);
        options.read_only = true;
        must_fail(lmdb_store_open(&options, &store), cases[i].code);
        assert_int_equal(lmdb_fixture_file_size(path), cases[i].size);
    }
    struct lmdb_options options = lmdb_fixture_options(fixture->tmpdir.path);
    struct store *store;
    must_fail(lmdb_store_open(&options, &store), ERR_FORMAT);
}

static void make_foreign(const char *path, const char *table)
{
    MDB_env *env;
    MDB_txn *txn;
    MDB_dbi dbi;
    assert_int_equal(mdb_env_create(&env), 0);
    assert_int_equal(mdb_env_set_maxdbs(env, 4), 0);
    assert_int_equal(mdb_env_open(env, path, MDB_NOSUBDIR, 0600), 0);
    assert_int_equal(mdb_txn_begin(env, NULL, 0, &txn), 0);
    assert_int_equal(mdb_dbi_open(txn, table, MDB_CREATE, &dbi), 0);
    assert_int_equal(mdb_txn_commit(txn), 0);
    mdb_env_close(env);
}

static unsigned foreign_tables(const char *path)
{
    MDB_env *env;
    MDB_txn *txn;
    MDB_dbi dbi;
    MDB_stat stat;
    assert_int_equal(mdb_env_create(&env), 0);
    assert_int_equal(mdb_env_open(env, path, MDB_NOSUBDIR | MDB_RDONLY, 0600), 0);
    assert_int_equal(mdb_txn_begin(env, NULL, MDB_RDONLY, &txn), 0);
    assert_int_equal(mdb_dbi_open(txn, NULL, 0, &dbi), 0);
    assert_int_equal(mdb_stat(txn, dbi, &stat), 0);
    mdb_txn_abort(txn);
    mdb_env_close(env);
    return (unsigned)stat.ms_entries;
}

/* An LMDB file of another program is refused, and no table of ours is added to it. */
static void test_foreign(void **state)
{
    struct lmdb_fixture *fixture = *state;
    static const char *const tables[] = {"other", "META"};
    for (size_t i = 0; i < 2; i++) {
        char path[TMPDIR_PATH_SIZE];
        tmpdir_file(&fixture->tmpdir, tables[i], path);
        make_foreign(path, tables[i]);
        struct lmdb_options options = lmdb_fixture_options(path);
        struct store *store;
        must_fail(lmdb_store_open(&options, &store), ERR_FORMAT);
        assert_int_equal(foreign_tables(path), 1);
    }
}

/* A table that a newer program has and the file has not yet is added when it is opened for writing.
 */
static void test_missing_table(void **state)
{
    struct lmdb_fixture *fixture = *state;
    store_close(lmdb_fixture_open(fixture->path));
    MDB_env *env;
    MDB_txn *txn;
    MDB_dbi dbi;
    assert_int_equal(mdb_env_create(&env), 0);
    assert_int_equal(mdb_env_set_maxdbs(env, 4), 0);
    assert_int_equal(mdb_env_open(env, fixture->path, MDB_NOSUBDIR, 0600), 0);
    assert_int_equal(mdb_txn_begin(env, NULL, 0, &txn), 0);
    assert_int_equal(mdb_dbi_open(txn, "SWEEP", 0, &dbi), 0);
    assert_int_equal(mdb_drop(txn, dbi, 1), 0);
    assert_int_equal(mdb_txn_commit(txn), 0);
    mdb_env_close(env);
    struct lmdb_options options = lmdb_fixture_options(fixture->path);
    options.read_only = true;
    struct store *store;
    must_fail(lmdb_store_open(&options, &store), ERR_FORMAT);
    store = lmdb_fixture_open(fixture->path);
    struct store_txn *write = lmdb_fixture_begin(store, STORE_WRITE);
    must(store_put(write, STORE_SWEEP, span_text("key"), span_text("value")));
    must(store_commit(write));
    store_close(store);
    must(lmdb_store_open(&options, &store));
    store_close(store);
}

/* A reader offline sees the data and leaves no trace: no lock file, not one byte changed. */
static void test_read_only(void **state)
{
    struct lmdb_fixture *fixture = *state;
    struct store *store = lmdb_fixture_open(fixture->path);
    must(lmdb_fixture_fill(store, 0, 10));
    store_close(store);
    char lock[TMPDIR_PATH_SIZE];
    assert_int_equal(unlink(tmpdir_file(&fixture->tmpdir, "volume.mdb-lock", lock)), 0);
    assert_int_equal(chmod(fixture->path, 0400), 0);
    struct stat before;
    assert_int_equal(stat(fixture->path, &before), 0);
    struct lmdb_options options = lmdb_fixture_options(fixture->path);
    options.read_only = true;
    must(lmdb_store_open(&options, &store));
    assert_int_equal(lmdb_fixture_count(store), 10);
    store_close(store);
    struct stat after;
    assert_int_equal(stat(fixture->path, &after), 0);
    assert_int_equal(lmdb_fixture_files(&fixture->tmpdir), 1);
    assert_int_equal(before.st_size, after.st_size);
    assert_int_equal(before.st_mtim.tv_sec, after.st_mtim.tv_sec);
    assert_int_equal(before.st_mtim.tv_nsec, after.st_mtim.tv_nsec);
}

/* A file that lost its end is reported corrupt, at whatever page it was cut: no signal, no change.
 */
static void test_cut_off(void **state)
{
    struct lmdb_fixture *fixture = *state;
    struct store *store = lmdb_fixture_open(fixture->path);
    must(lmdb_fixture_fill(store, 0, 200));
    store_close(store);
    uint64_t pages = lmdb_fixture_file_size(fixture->path) / 4096;
    struct lmdb_options options = lmdb_fixture_options(fixture->path);
    for (uint64_t left = pages - 1; left >= 2; left--) {
        assert_int_equal(truncate(fixture->path, (off_t)(left * 4096)), 0);
        must_fail(lmdb_store_open(&options, &store), ERR_CORRUPT);
        assert_int_equal(lmdb_fixture_file_size(fixture->path), left * 4096);
    }
    options.read_only = true;
    must_fail(lmdb_store_open(&options, &store), ERR_CORRUPT);
}

/* Pages that a transaction took and freed again are not written: a file without them at its end is
 * whole. */
static void test_unwritten_tail(void **state)
{
    struct lmdb_fixture *fixture = *state;
    struct store *store = lmdb_fixture_open(fixture->path);
    /* Only once there are free pages does LMDB take back pages at once. */
    for (unsigned i = 0; i < 4; i++) {
        must(lmdb_fixture_fill(store, 0, 30));
    }
    struct store_txn *txn = lmdb_fixture_begin(store, STORE_WRITE);
    char value[3000] = {0};
    for (unsigned i = 0; i < 100; i++) {
        must(store_put(txn, STORE_DUE, span_of(&i, sizeof i), span_of(value, sizeof value)));
    }
    for (unsigned i = 0; i < 100; i++) {
        must(store_remove(txn, STORE_DUE, span_of(&i, sizeof i), NULL));
    }
    must(store_commit(txn));
    store_close(store);
    MDB_env *env;
    MDB_envinfo info;
    assert_int_equal(mdb_env_create(&env), 0);
    assert_int_equal(mdb_env_open(env, fixture->path, MDB_NOSUBDIR | MDB_RDONLY, 0600), 0);
    assert_int_equal(mdb_env_info(env, &info), 0);
    mdb_env_close(env);
    assert_true(lmdb_fixture_file_size(fixture->path) <
                (info.me_last_pgno + 1) * 4096); /* as described */
    store = lmdb_fixture_open(fixture->path);
    must(lmdb_fixture_fill(store, 0, 300));
    assert_int_equal(lmdb_fixture_count(store), 300);
    store_close(store);
}

/* ---- backup ---- */

/* A backup holds the last commit, opens as an environment, and leaves no other file. */
static void test_backup(void **state)
{
    struct lmdb_fixture *fixture = *state;
    struct store *store = lmdb_fixture_open(fixture->path);
    must(lmdb_fixture_fill(store, 0, 500));
    struct store_txn *txn = lmdb_fixture_begin(store, STORE_WRITE);
    for (unsigned i = 0; i < 400; i++) {
        char key[16];
        snprintf(key, sizeof key, "%08u", i);
        must(store_remove(txn, STORE_LOG, span_text(key), NULL));
    }
    must(store_commit(txn));
    txn = lmdb_fixture_begin(store, STORE_WRITE);
    must(store_put(txn, STORE_LOG, span_text("uncommitted"), span_text("")));
    char path[TMPDIR_PATH_SIZE];
    must(store_backup(store, tmpdir_file(&fixture->tmpdir, "backup.mdb", path)));
    store_abort(txn);
    assert_int_equal(lmdb_fixture_files(&fixture->tmpdir), 3);
    assert_true(lmdb_fixture_file_size(path) <
                lmdb_fixture_file_size(fixture->path) / 2); /* compact */
    store_close(store);
    store = lmdb_fixture_open(path);
    assert_int_equal(lmdb_fixture_count(store), 100);
    must(lmdb_fixture_fill(store, 1000, 100));
    store_close(store);
}

/* A backup never writes over a file, and says which directory it cannot write into. */
static void test_backup_refused(void **state)
{
    struct lmdb_fixture *fixture = *state;
    struct store *store = lmdb_fixture_open(fixture->path);
    char path[TMPDIR_PATH_SIZE];
    tmpdir_write(&fixture->tmpdir, "precious", "data", 4);
    must_fail(store_backup(store, tmpdir_file(&fixture->tmpdir, "precious", path)), ERR_EXISTS);
    assert_int_equal(lmdb_fixture_file_size(path), 4);
    must_fail(store_backup(store, fixture->path), ERR_EXISTS);
    must_fail(store_backup(store, tmpdir_file(&fixture->tmpdir, "no/such/backup", path)),
              ERR_NOT_FOUND);
    assert_int_equal(lmdb_fixture_files(&fixture->tmpdir), 3);
    store_close(store);
}

#define CASE(name) cmocka_unit_test_setup_teardown(name, lmdb_fixture_setup, lmdb_fixture_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        CASE(test_create),
        CASE(test_create_after_crash),
        CASE(test_create_private),
        CASE(test_identity),
        CASE(test_not_an_environment),
        CASE(test_foreign),
        CASE(test_missing_table),
        CASE(test_read_only),
        CASE(test_cut_off),
        CASE(test_unwritten_tail),
        CASE(test_backup),
        CASE(test_backup_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
