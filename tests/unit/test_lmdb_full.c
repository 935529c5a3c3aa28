/* The reserve of the body on LMDB, and disks without room. */
#define _GNU_SOURCE
#include "storage/lmdb.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tests/lib/child.h"
#include "tests/lib/lmdb_fixture.h"
#include "tests/lib/must.h"

/* ---- the reserve ---- */

static err_t reserve_all(struct store *store, uint64_t size)
{
    struct store_stats stats;
    do {
        TRY(store_reserve(store, size));
        store_stats(store, &stats);
    } while (stats.reserve_size < size);
    return NULL;
}

/* The reserve grows in bounded steps, is not counted as used, moves with the last page and ends at
 * the map. */
static void test_reserve(void **state)
{
    struct lmdb_fixture *fixture = *state;
    struct store *store = lmdb_fixture_open(fixture->path);
    enum { SIZE = 4 << 20 };
    struct store_stats before = lmdb_fixture_stats(store);
    must(store_reserve(store, SIZE));
    must(reserve_all(store, SIZE));
    assert_int_equal(lmdb_fixture_stats(store).reserve_size, SIZE);
    assert_int_equal(lmdb_fixture_stats(store).used_size, before.used_size);
    uint64_t size = lmdb_fixture_stats(store).file_size;
    must(store_reserve(store, SIZE));
    assert_int_equal(lmdb_fixture_stats(store).file_size, size);
    must(lmdb_fixture_fill(store, 0, 1000));
    assert_int_equal(lmdb_fixture_stats(store).file_size, size); /* the commit found its room */
    assert_true(lmdb_fixture_stats(store).reserve_size < SIZE);
    must(store_reserve(store, SIZE));
    assert_true(lmdb_fixture_stats(store).file_size <= size + (1 << 20));
    must(store_reserve(store, UINT64_MAX));
    assert_true(lmdb_fixture_stats(store).file_size <= size + (17 << 20));
    must(reserve_all(store, SIZE));
    for (unsigned i = 0; i < 10; i++) {
        must(store_reserve(store, UINT64_MAX));
    }
    assert_int_equal(lmdb_fixture_stats(store).file_size, lmdb_fixture_stats(store).map_size);
    assert_int_equal(lmdb_fixture_count(store), 1000);
    store_close(store);
    store = lmdb_fixture_open(fixture->path);
    assert_int_equal(lmdb_fixture_count(store), 1000);
    store_close(store);
}

static err_t replace_one(struct store *store, unsigned i)
{
    struct store_txn *txn;
    TRY(store_begin(store, STORE_WRITE, &txn));
    err_t err = store_put(txn, STORE_SUB, span_text("ack"), span_of(&i, sizeof i));
    if (err != NULL) {
        store_abort(txn);
        return err;
    }
    TRY(store_commit(txn));
    return NULL;
}

/* The disk refuses to let the file grow: with a reserve a hundred commits go through; large ones
 * are refused for want of room, and every time the next small one works again. */
static int commit_on_full_disk(struct store *store)
{
    for (unsigned i = 0; i < 100; i++) {
        CHILD_MUST(replace_one(store, i));
    }
    for (unsigned round = 0; round < 3; round++) {
        err_t err = lmdb_fixture_fill(store, 0, 4000);
        CHILD_TRUE(err_code(err) == ERR_NO_SPACE);
        err_free(err);
        CHILD_MUST(replace_one(store, round));
    }
    err_t err = store_reserve(store, 8 << 20);
    CHILD_TRUE(err_code(err) == ERR_NO_SPACE);
    err_free(err);
    return 0;
}

static int full_by_limit(const char *path)
{
    struct lmdb_options options = lmdb_fixture_options(path);
    struct store *store;
    signal(SIGXFSZ, SIG_IGN);
    CHILD_MUST(lmdb_store_open(&options, &store));
    CHILD_MUST(reserve_all(store, 1 << 20));
    struct store_stats stats;
    store_stats(store, &stats);
    struct rlimit limit = {stats.file_size, RLIM_INFINITY};
    CHILD_TRUE(setrlimit(RLIMIT_FSIZE, &limit) == 0);
    int failed = commit_on_full_disk(store);
    if (failed != 0) {
        return failed;
    }
    limit.rlim_cur = RLIM_INFINITY;
    CHILD_TRUE(setrlimit(RLIMIT_FSIZE, &limit) == 0);
    CHILD_MUST(lmdb_fixture_fill(store, 0, 4000));
    store_close(store);
    return 0;
}

static int full_without_reserve(const char *path)
{
    struct lmdb_options options = lmdb_fixture_options(path);
    struct store *store;
    signal(SIGXFSZ, SIG_IGN);
    CHILD_MUST(lmdb_store_open(&options, &store));
    struct store_stats stats;
    store_stats(store, &stats);
    struct rlimit limit = {stats.file_size, RLIM_INFINITY};
    CHILD_TRUE(setrlimit(RLIMIT_FSIZE, &limit) == 0);
    unsigned done = 0;
    err_t err = NULL;
    while (err == NULL && done < 100) {
        err = lmdb_fixture_fill(store, done, 1);
        done += err == NULL;
    }
    CHILD_TRUE(err_code(err) == ERR_NO_SPACE);
    err_free(err);
    store_close(store);
    return 0;
}

/* A limit on the file's size stands in for the full disk: writes up to it work, the one across it
 * is cut short. */
static void test_full_by_limit(void **state)
{
    struct lmdb_fixture *fixture = *state;
    assert_int_equal(child_run(full_by_limit, fixture->path), 0);
    char path[TMPDIR_PATH_SIZE];
    tmpdir_file(&fixture->tmpdir, "other.mdb", path);
    assert_int_equal(child_run(full_without_reserve, path), 0);
}

/* Fills the file system that `path` is on to the last block. */
static void fill_disk(const char *path)
{
    static const uint8_t bytes[4096];
    int fd = open(path, O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
    while (write(fd, bytes, sizeof bytes) > 0) {
    }
    close(fd);
}

static int full_on_tmpfs(const char *path)
{
    char place[TMPDIR_PATH_SIZE];
    char file[TMPDIR_PATH_SIZE + 16];
    char filler[TMPDIR_PATH_SIZE + 16];
    snprintf(place, sizeof place, "%s.mount", path);
    snprintf(file, sizeof file, "%s/volume.mdb", place);
    snprintf(filler, sizeof filler, "%s/filler", place);
    if (unshare(CLONE_NEWNS) != 0 && unshare(CLONE_NEWUSER | CLONE_NEWNS) != 0) {
        return CHILD_SKIPPED;
    }
    if (mkdir(place, 0700) != 0 || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) != 0 ||
        mount("tmpfs", place, "tmpfs", 0, "size=8m") != 0) {
        return CHILD_SKIPPED;
    }
    struct lmdb_options options = lmdb_fixture_options(file);
    struct store *store;
    CHILD_MUST(lmdb_store_open(&options, &store));
    CHILD_MUST(reserve_all(store, 1 << 20));
    fill_disk(filler);
    int failed = commit_on_full_disk(store);
    if (failed != 0) {
        return failed;
    }
    CHILD_TRUE(unlink(filler) == 0);
    CHILD_MUST(lmdb_fixture_fill(store, 0, 4000));
    store_close(store);
    CHILD_MUST(lmdb_store_open(&options, &store));
    store_close(store);
    return 0;
}

/* The same on a real file system without one free block, and once there is room again. */
static void test_full_on_tmpfs(void **state)
{
    struct lmdb_fixture *fixture = *state;
    int status = child_run(full_on_tmpfs, fixture->path);
    if (status == CHILD_SKIPPED) {
        skip();
    }
    assert_int_equal(status, 0);
}

#define CASE(name) cmocka_unit_test_setup_teardown(name, lmdb_fixture_setup, lmdb_fixture_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        CASE(test_reserve),
        CASE(test_full_by_limit),
        CASE(test_full_on_tmpfs),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
