/* The map of the body on LMDB, and its readers. */
#include "storage/lmdb.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <sys/resource.h>

#include "tests/lib/child.h"
#include "tests/lib/lmdb_fixture.h"
#include "tests/lib/must.h"

/* ---- the map ---- */

static uint64_t address_space(void)
{
    unsigned long pages = 0;
    FILE *file = fopen("/proc/self/statm", "r");
    if (file == NULL || fscanf(file, "%lu", &pages) != 1) {
        pages = 0;
    }
    if (file != NULL) {
        fclose(file);
    }
    return pages * 4096;
}

static int open_in_little_space(const char *path)
{
    rlim_t bound = address_space() + (UINT64_C(3) << 30);
    struct rlimit limit = {bound, bound};
    CHILD_TRUE(setrlimit(RLIMIT_AS, &limit) == 0);
    struct lmdb_options options = lmdb_fixture_options(path);
    options.map_size = 0;
    struct store *store;
    CHILD_MUST(lmdb_store_open(&options, &store));
    CHILD_MUST(lmdb_fixture_fill(store, 0, 10));
    struct store_stats stats;
    store_stats(store, &stats);
    CHILD_TRUE(stats.map_size >= UINT64_C(1) << 30 && stats.map_size < bound);
    store_close(store);
    return 0;
}

/* Where a terabyte cannot be mapped, less is. */
static void test_map_fallback(void **state)
{
    struct lmdb_fixture *fixture = *state;
    assert_int_equal(child_run(open_in_little_space, fixture->path), 0);
}

/* A full map refuses the batch and nothing else; it grows to its greatest size and no further. */
static void test_grow(void **state)
{
    struct lmdb_fixture *fixture = *state;
    struct lmdb_options options = lmdb_fixture_options(fixture->path);
    options.map_size = 256 << 10;
    options.map_size_max = 900 << 10;
    struct store *store;
    must(lmdb_store_open(&options, &store));
    must(lmdb_fixture_fill(store, 0, 10));
    must_fail(lmdb_fixture_fill(store, 10, 400), ERR_MAP_FULL);
    assert_int_equal(lmdb_fixture_count(store), 10);
    must(store_grow(store));
    assert_int_equal(lmdb_fixture_stats(store).map_size, 512 << 10);
    must(lmdb_fixture_fill(store, 10, 200));
    must(store_grow(store));
    assert_int_equal(lmdb_fixture_stats(store).map_size, 900 << 10);
    must(lmdb_fixture_fill(store, 210, 300));
    must_fail(store_grow(store), ERR_NO_SPACE);
    must_fail(lmdb_fixture_fill(store, 1000, 2000), ERR_MAP_FULL);
    assert_int_equal(lmdb_fixture_count(store), 510);
    store_close(store);
    /* The size is kept: opened with a smaller one, all of it is still there. */
    must(lmdb_store_open(&options, &store));
    assert_int_equal(lmdb_fixture_count(store), 510);
    must_fail(store_grow(store), ERR_NONE);
    store_close(store);
}

struct growing {
    struct store *store;
    _Atomic bool has_grown;
};

static void *grow_in_thread(void *context)
{
    struct growing *growing = context;
    err_t err = store_grow(growing->store);
    growing->has_grown = true;
    return err;
}

/* Growing waits for a reader in another thread, whose spans stay where they are until it ends. */
static void test_grow_waits_for_reader(void **state)
{
    struct lmdb_fixture *fixture = *state;
    struct store *store = lmdb_fixture_open(fixture->path);
    must(lmdb_fixture_fill(store, 0, 10));
    struct store_txn *txn = lmdb_fixture_begin(store, STORE_READ);
    struct span value;
    bool found;
    must(store_get(txn, STORE_LOG, span_text("00000005"), &value, &found));
    struct growing growing = {.store = store};
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, grow_in_thread, &growing), 0);
    for (unsigned i = 0; i < 1000; i++) {
        assert_int_equal(value.data[i % value.size], 'v');
        sched_yield();
    }
    assert_false(growing.has_grown);
    store_abort(txn);
    void *err;
    assert_int_equal(pthread_join(thread, &err), 0);
    must(err);
    assert_int_equal(lmdb_fixture_stats(store).map_size, 128U << 20);
    assert_int_equal(lmdb_fixture_count(store), 10);
    store_close(store);
}

/* ---- readers ---- */

/* The age is that of the oldest read transaction, and nothing once all have ended. */
static void test_reader_age(void **state)
{
    struct lmdb_fixture *fixture = *state;
    struct store *store = lmdb_fixture_open(fixture->path);
    assert_int_equal(lmdb_fixture_stats(store).reader_age_ms, 0);
    struct store_txn *first = lmdb_fixture_begin(store, STORE_READ);
    while (lmdb_fixture_stats(store).reader_age_ms < 3) {
    }
    struct store_txn *second = lmdb_fixture_begin(store, STORE_READ);
    assert_true(lmdb_fixture_stats(store).reader_age_ms >= 3);
    store_abort(first);
    uint64_t age_ms = lmdb_fixture_stats(store).reader_age_ms;
    while (lmdb_fixture_stats(store).reader_age_ms <= age_ms) {
    }
    store_abort(second);
    assert_int_equal(lmdb_fixture_stats(store).reader_age_ms, 0);
    must(store_maintain(store));
    store_close(store);
}

/* Every reader slot taken is a passing condition, and the figures still come. */
static void test_readers_full(void **state)
{
    struct lmdb_fixture *fixture = *state;
    struct store *store = lmdb_fixture_open(fixture->path);
    must(lmdb_fixture_fill(store, 0, 10));
    enum { TXNS = 300 };
    static struct store_txn *txns[TXNS];
    uint64_t used_size = lmdb_fixture_stats(store).used_size;
    size_t count = 0;
    err_t err = NULL;
    while (count < TXNS && err == NULL) {
        err = store_begin(store, STORE_READ, &txns[count]);
        count += err == NULL;
    }
    assert_true(count >= 100);
    must_fail(err, ERR_BUSY);
    assert_int_equal(lmdb_fixture_stats(store).used_size, used_size);
    while (count > 0) {
        store_abort(txns[--count]);
    }
    assert_int_equal(lmdb_fixture_count(store), 10);
    store_close(store);
}

enum { READ_ROUNDS = 300 };

/* One value in two tables: a reader that sees them differ saw half a commit. */
static void *read_pairs(void *store)
{
    uintptr_t torn = 0;
    for (unsigned i = 0; i < READ_ROUNDS; i++) {
        struct store_txn *txn = lmdb_fixture_begin(store, STORE_READ);
        struct span a;
        struct span b;
        bool found;
        must(store_get(txn, STORE_LOG, span_text("key"), &a, &found));
        must(store_get(txn, STORE_SUB, span_text("key"), &b, &found));
        torn += !span_equal(a, b);
        store_abort(txn);
    }
    return (void *)torn;
}

static void write_pair(struct store *store, uint32_t value)
{
    struct store_txn *txn = lmdb_fixture_begin(store, STORE_WRITE);
    must(store_put(txn, STORE_LOG, span_text("key"), span_of(&value, sizeof value)));
    must(store_put(txn, STORE_SUB, span_text("key"), span_of(&value, sizeof value)));
    must(store_commit(txn));
}

/* Readers in other threads see whole commits while one thread writes. */
static void test_threads(void **state)
{
    struct lmdb_fixture *fixture = *state;
    struct store *store = lmdb_fixture_open(fixture->path);
    write_pair(store, 0);
    pthread_t threads[2];
    for (size_t i = 0; i < 2; i++) {
        assert_int_equal(pthread_create(&threads[i], NULL, read_pairs, store), 0);
    }
    for (uint32_t i = 1; i < 50; i++) {
        write_pair(store, i);
        (void)lmdb_fixture_stats(store);
    }
    for (size_t i = 0; i < 2; i++) {
        void *torn;
        assert_int_equal(pthread_join(threads[i], &torn), 0);
        assert_null(torn);
    }
    store_close(store);
}

#define CASE(name) cmocka_unit_test_setup_teardown(name, lmdb_fixture_setup, lmdb_fixture_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        CASE(test_map_fallback), CASE(test_grow),         CASE(test_grow_waits_for_reader),
        CASE(test_reader_age),   CASE(test_readers_full), CASE(test_threads),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
