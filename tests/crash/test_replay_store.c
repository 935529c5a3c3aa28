/* Power fails at every point of a recorded run of the store on LMDB, in many ways: what was
 * acknowledged is there, nothing else but the commit in flight may be, and the environment opens
 * and goes on. Then every write and flush of a commit fails in turn. FLARE_SEED replays a run,
 * FLARE_STATES asks for more states. */
#define _GNU_SOURCE
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "storage/lmdb.h"
#include "tests/crash/iotrap.c"
#include "tests/lib/must.h"
#include "tests/lib/tmpdir.h"

enum { KEYS = 40, COMMITS = 150, STATES_MIN = 2500, VALUE_MAX = 9000, WRITE_AFTER_EVERY = 16 };

static uint64_t number_in(const char *name, uint64_t otherwise)
{
    const char *text = getenv(name);
    return text == NULL ? otherwise : strtoull(text, NULL, 10);
}

/* ---- content: what the tables should hold ---- */

/* Key k of table t has a value made from seeds[t][k], or is not there when that is 0. */
struct content {
    uint32_t seeds[STORE_TABLE_COUNT][KEYS];
};

/* Small ones mostly, some that fill a page or several. */
static struct span value_of(uint32_t seed, uint8_t value[VALUE_MAX])
{
    static const uint32_t size_max[] = {60, 60, 60, 200, 900, 2100, 4200, VALUE_MAX};
    size_t size = 4 + (seed >> 3) % (size_max[seed % 8] - 4);
    uint32_t word = seed;
    for (size_t i = 0; i < size; i += 4) {
        memcpy(value + i, &word, size - i < 4 ? size - i : 4);
        word = word * 1664525 + 1013904223;
    }
    return span_of(value, size);
}

static struct span key_of(unsigned k, char key[16])
{
    return span_of(key, (size_t)snprintf(key, 16, "key %02u", k));
}

static err_t put_seed(struct store_txn *txn, unsigned table, unsigned k, uint32_t seed)
{
    char key[16];
    uint8_t value[VALUE_MAX];
    if (seed == 0) {
        TRY(store_remove(txn, table, key_of(k, key), NULL));
        return NULL;
    }
    TRY(store_put(txn, table, key_of(k, key), value_of(seed, value)));
    return NULL;
}

/* META holds the format marker and the migrations too; opening has checked them. */
static bool skip_marker(struct store_cursor *cursor, bool found)
{
    while (found && cursor->table == STORE_META &&
           (span_is(cursor->key, "format") ||
            span_starts_with(cursor->key, span_text("migration/")))) {
        must(store_cursor_next(cursor, &found));
    }
    return found;
}

static bool table_equals(struct store_txn *txn, unsigned table, const uint32_t seeds[KEYS])
{
    struct store_cursor *cursor;
    bool found;
    bool equal = true;
    must(store_cursor_open(txn, table, &cursor));
    must(store_cursor_seek(cursor, span_of(NULL, 0), &found));
    for (unsigned k = 0; k < KEYS && equal; k++) {
        if (seeds[k] == 0) {
            continue;
        }
        char key[16];
        uint8_t value[VALUE_MAX];
        found = skip_marker(cursor, found);
        equal = found && span_equal(cursor->key, key_of(k, key)) &&
                span_equal(cursor->value, value_of(seeds[k], value));
        if (equal) {
            must(store_cursor_next(cursor, &found));
        }
    }
    equal = equal && !skip_marker(cursor, found);
    store_cursor_close(cursor);
    return equal;
}

static bool store_equals(struct store *store, const struct content *content)
{
    struct store_txn *txn;
    bool equal = true;
    must(store_begin(store, STORE_READ, &txn));
    for (unsigned table = 0; table < STORE_TABLE_COUNT && equal; table++) {
        equal = table_equals(txn, table, content->seeds[table]);
    }
    store_abort(txn);
    return equal;
}

/* ---- the run that is recorded ---- */

static struct content contents[COMMITS + 1]; /* after each commit; 0: before the first */

static struct store *open_store(const char *path, bool create)
{
    struct store *store;
    must(lmdb_store_open(
        &(struct lmdb_options){
            .path = path, .map_size = 16U << 20, .create = create, .role = "volume", .number = 1},
        &store));
    return store;
}

static void change_some(struct store_txn *txn, struct content *content, struct random *random)
{
    unsigned count = 1 + (unsigned)random_below(random, 12);
    for (unsigned i = 0; i < count; i++) {
        unsigned table = (unsigned)random_below(random, STORE_TABLE_COUNT);
        unsigned k = (unsigned)random_below(random, KEYS);
        uint32_t seed =
            random_chance(random, 1, 3) ? 0 : 1 + (uint32_t)random_below(random, 1U << 31);
        content->seeds[table][k] = seed;
        must(put_seed(txn, table, k, seed));
    }
}

static void run_one(struct store *store, unsigned number, struct random *random)
{
    struct store_txn *txn;
    if (random_chance(random, 1, 8)) {
        struct content dropped = {0};
        must(store_begin(store, STORE_WRITE, &txn));
        change_some(txn, &dropped, random);
        store_abort(txn);
    }
    if (random_chance(random, 1, 10)) {
        must(store_reserve(store, 64 << 10));
    }
    contents[number] = contents[number - 1];
    must(store_begin(store, STORE_WRITE, &txn));
    change_some(txn, &contents[number], random);
    must(store_commit(txn));
    iotrap_mark(number);
}

static void record_run(const char *path, struct random *random)
{
    memset(contents, 0, sizeof contents);
    struct store *store = open_store(path, true);
    iotrap_start(path);
    for (unsigned number = 1; number <= COMMITS; number++) {
        run_one(store, number, random);
    }
    iotrap_stop();
    store_close(store);
}

/* ---- crashes ---- */

struct figures {
    uint64_t states;
    uint64_t in_flight; /* states in which the commit under way had become whole */
    uint64_t lossy;     /* states in which something unflushed was lost or torn */
};

/* The state holds commit `acked` or, when there is one under way, the next. Some go on to commit.
 */
static void check_state(const char *path, unsigned acked, struct figures *figures)
{
    struct store *store = open_store(path, false);
    bool next = acked < COMMITS && store_equals(store, &contents[acked + 1]);
    if (!next && !store_equals(store, &contents[acked])) {
        fail_msg("neither commit %u nor the one after it is there", acked);
    }
    figures->in_flight += next;
    if (figures->states++ % WRITE_AFTER_EVERY == 0) {
        struct content content = contents[next ? acked + 1 : acked];
        struct random random;
        struct store_txn *txn;
        random_init(&random, figures->states);
        must(store_begin(store, STORE_WRITE, &txn));
        change_some(txn, &content, &random);
        must(store_commit(txn));
        assert_true(store_equals(store, &content));
    }
    store_close(store);
}

/* Right after an acknowledgement nothing may be in flight any more: only that commit will do. */
static void check_acknowledged(const char *path, unsigned acked)
{
    struct store *store = open_store(path, false);
    assert_true(store_equals(store, &contents[acked]));
    store_close(store);
}

static void replay(struct random *random, uint64_t states_min, struct figures *figures)
{
    struct tmpdir tmpdir;
    char path[TMPDIR_PATH_SIZE];
    tmpdir_init(&tmpdir);
    tmpdir_file(&tmpdir, "store.mdb", path);
    struct iotrap_disk disk;
    iotrap_disk_init(&disk);
    unsigned acked = 0;
    /* Kept and dropped need one state for each event, the random ones as many as it takes. */
    uint64_t rounds = 1 + states_min / (2 * (uint64_t)iotrap_count());
    for (size_t i = 0; i < iotrap_count(); i++) {
        iotrap_disk_step(&disk, i);
        bool is_mark = iotrap_event(i)->kind == IOTRAP_MARK;
        acked = is_mark ? (unsigned)iotrap_event(i)->offset : acked;
        for (unsigned crash = 0; crash < IOTRAP_CRASH_COUNT; crash++) {
            uint64_t count = crash >= IOTRAP_DROP_SOME ? rounds : 1;
            /* Without anything unflushed all crashes are the same. */
            count = iotrap_disk_pending(&disk) > 0 || crash == IOTRAP_DROP_ALL ? count : 0;
            for (uint64_t round = 0; round < count; round++) {
                iotrap_disk_crash(&disk, crash, random, tmpdir.path);
                figures->lossy += crash != IOTRAP_KEEP_ALL && iotrap_disk_pending(&disk) > 0;
                if (is_mark) {
                    check_acknowledged(path, acked);
                    figures->states++;
                } else {
                    check_state(path, acked, figures);
                }
            }
        }
    }
    iotrap_disk_deinit(&disk);
    tmpdir_deinit(&tmpdir);
}

/* After a power failure at any event, whatever was unflushed lost or torn, the store holds exactly
 * the last acknowledged commit or the one that was in flight. */
static void test_power_failures(void **state)
{
    (void)state;
    uint64_t seed = number_in("FLARE_SEED", 1);
    uint64_t states_min = number_in("FLARE_STATES", STATES_MIN);
    struct random random;
    random_init(&random, seed);
    struct tmpdir tmpdir;
    char path[TMPDIR_PATH_SIZE];
    tmpdir_init(&tmpdir);
    record_run(tmpdir_file(&tmpdir, "store.mdb", path), &random);
    struct figures figures = {0};
    replay(&random, states_min, &figures);
    printf("{\"test\":\"replay_store\",\"seed\":%lu,\"commits\":%d,\"events\":%zu,\"states\":%lu,"
           "\"lossy\":%lu,\"in_flight\":%lu}\n",
           seed, COMMITS, iotrap_count(), figures.states, figures.lossy, figures.in_flight);
    assert_true(figures.states >= states_min);
    assert_true(figures.lossy > figures.states / 2);
    assert_true(figures.in_flight > 0);
    iotrap_reset();
    tmpdir_deinit(&tmpdir);
}

/* A disk that claims to flush and does not loses what was acknowledged, and this suite notices: it
 * can fail. */
static void test_lying_disk_is_noticed(void **state)
{
    (void)state;
    struct random random;
    random_init(&random, 2);
    struct tmpdir tmpdir;
    char path[TMPDIR_PATH_SIZE];
    tmpdir_init(&tmpdir);
    tmpdir_file(&tmpdir, "store.mdb", path);
    record_run(path, &random);
    struct iotrap_disk disk;
    iotrap_disk_init(&disk);
    for (size_t i = 0; i < iotrap_count(); i++) {
        if (iotrap_event(i)->kind != IOTRAP_FLUSH) {
            iotrap_disk_step(&disk, i);
        }
    }
    /* The synced writes of the meta pages are there, the pages that they name are not. */
    iotrap_disk_crash(&disk, IOTRAP_DROP_ALL, &random, tmpdir.path);
    iotrap_disk_deinit(&disk);
    struct store *store;
    err_t err =
        lmdb_store_open(&(struct lmdb_options){.path = path, .map_size = 16U << 20}, &store);
    assert_int_equal(err_code(err), ERR_CORRUPT);
    err_free(err);
    iotrap_reset();
    tmpdir_deinit(&tmpdir);
}

/* ---- failing writes and flushes ---- */

static const struct {
    unsigned kinds;
    int error;
    bool for_ever;
    enum err_code code;
} faults[] = {
    {IOTRAP_WRITE, EIO, false, ERR_IO},
    {IOTRAP_WRITE, EIO, true, ERR_IO},
    {IOTRAP_WRITE, ENOSPC, false, ERR_NO_SPACE},
    {IOTRAP_WRITE, ENOSPC, true, ERR_NO_SPACE},
    {IOTRAP_WRITE, IOTRAP_SHORT, false, ERR_NO_SPACE},
    {IOTRAP_WRITE, IOTRAP_SHORT, true, ERR_NO_SPACE},
    {IOTRAP_FLUSH, EIO, false, ERR_IO},
    {IOTRAP_FLUSH, EIO, true, ERR_IO},
    {IOTRAP_FLUSH, ENOSPC, false, ERR_NO_SPACE},
    {IOTRAP_WRITE | IOTRAP_FLUSH, EIO, false, ERR_IO},
    {IOTRAP_WRITE | IOTRAP_FLUSH, EIO, true, ERR_IO},
};
enum { FAULTS = sizeof faults / sizeof faults[0] };

static void arm(unsigned fault, uint64_t nth, const char *prefix)
{
    iotrap_fail(&(struct iotrap_fault){.prefix = prefix,
                                       .kinds = faults[fault].kinds,
                                       .nth = nth,
                                       .error = faults[fault].error,
                                       .for_ever = faults[fault].for_ever});
}

/* A full disk gives the same error as a failing one once it is the meta page that cannot be
 * written, since LMDB then closes the environment to all; it never is for the first write, nor on a
 * disk that writes in place. */
static enum err_code expect_fault(unsigned fault, uint64_t nth, err_t err)
{
    enum err_code code = err_code(err);
    if (code != faults[fault].code && (nth == 1 || code != ERR_IO)) {
        fail_msg("fault %u, call %lu: %s", fault, nth, err == NULL ? "success" : err_describe(err));
    }
    err_free(err);
    return code;
}

/* What comes after a failed commit, the fault being over: on a disk that was full all is as before
 * and the next commit works, one that failed is not written again. */
static void check_after_failure(struct store *store, const struct content *before,
                                enum err_code code)
{
    struct store_txn *txn;
    if (code == ERR_IO) {
        err_t err = store_begin(store, STORE_WRITE, &txn);
        assert_int_equal(err_code(err), ERR_IO);
        err_free(err);
        return;
    }
    assert_true(store_equals(store, before));
    must(store_begin(store, STORE_WRITE, &txn));
    must(put_seed(txn, STORE_META, 0, before->seeds[STORE_META][0]));
    must(store_commit(txn));
}

static bool commit_with_fault(const char *path, unsigned fault, uint64_t nth)
{
    struct random random;
    random_init(&random, 5);
    struct store *store = open_store(path, true);
    struct content content = {0};
    struct store_txn *txn;
    for (unsigned i = 0; i < 6; i++) {
        must(store_begin(store, STORE_WRITE, &txn));
        change_some(txn, &content, &random);
        must(store_commit(txn));
    }
    struct content next = content;
    must(store_begin(store, STORE_WRITE, &txn));
    for (unsigned i = 0; i < 4; i++) {
        change_some(txn, &next, &random);
    }
    arm(fault, nth, path);
    err_t err = store_commit(txn);
    bool hit = iotrap_fail_stop();
    if (hit) {
        check_after_failure(store, &content, expect_fault(fault, nth, err));
    } else {
        must(err);
        content = next;
    }
    store_close(store);
    store = open_store(path, false);
    assert_true(store_equals(store, &content));
    store_close(store);
    return hit;
}

/* Whichever write or flush of a commit fails, however, the commit says so and has changed nothing,
 * now and after opening again. */
static void test_commit_faults(void **state)
{
    (void)state;
    uint64_t calls = 0;
    for (unsigned fault = 0; fault < FAULTS; fault++) {
        bool hit = true;
        for (uint64_t nth = 1; hit; nth++) {
            struct tmpdir tmpdir;
            char path[TMPDIR_PATH_SIZE];
            tmpdir_init(&tmpdir);
            hit = commit_with_fault(tmpdir_file(&tmpdir, "store.mdb", path), fault, nth);
            calls += hit;
            assert_true(hit || nth > 2); /* at least the pages and the meta page */
            tmpdir_deinit(&tmpdir);
        }
    }
    assert_true(calls > 3 * FAULTS);
}

static bool create_with_fault(const char *path, unsigned fault, uint64_t nth)
{
    struct store *store;
    arm(fault, nth, path);
    err_t err = lmdb_store_open(
        &(struct lmdb_options){
            .path = path, .map_size = 16U << 20, .create = true, .role = "volume", .number = 1},
        &store);
    bool hit = iotrap_fail_stop();
    if (hit) {
        assert_non_null(err);
        err_free(err);
        assert_int_not_equal(access(path, F_OK), 0);
        store = open_store(path, true);
    } else {
        must(err);
    }
    static const struct content empty;
    assert_true(store_equals(store, &empty));
    store_close(store);
    return hit;
}

/* An environment whose making fails is not there, and can be made later. */
static void test_create_faults(void **state)
{
    (void)state;
    for (unsigned fault = 0; fault < FAULTS; fault++) {
        bool hit = true;
        for (uint64_t nth = 1; hit; nth++) {
            struct tmpdir tmpdir;
            char path[TMPDIR_PATH_SIZE];
            tmpdir_init(&tmpdir);
            hit = create_with_fault(tmpdir_file(&tmpdir, "store.mdb", path), fault, nth);
            assert_true(hit || nth > 2);
            tmpdir_deinit(&tmpdir);
        }
    }
}

static bool backup_with_fault(struct store *store, const char *path, unsigned fault, uint64_t nth)
{
    arm(fault, nth, path);
    err_t err = store_backup(store, path);
    bool hit = iotrap_fail_stop();
    if (hit) {
        assert_non_null(err);
        err_free(err);
        assert_int_not_equal(access(path, F_OK), 0);
        must(store_backup(store, path));
    } else {
        must(err);
    }
    assert_int_equal(unlink(path), 0);
    return hit;
}

/* A backup that fails leaves no file that could be taken for one, and the store as it was. */
static void test_backup_faults(void **state)
{
    (void)state;
    struct tmpdir tmpdir;
    char path[TMPDIR_PATH_SIZE];
    char backup[TMPDIR_PATH_SIZE];
    tmpdir_init(&tmpdir);
    struct store *store = open_store(tmpdir_file(&tmpdir, "store.mdb", path), true);
    tmpdir_file(&tmpdir, "backup.mdb", backup);
    for (unsigned fault = 0; fault < FAULTS; fault++) {
        if (faults[fault].error == IOTRAP_SHORT) {
            continue; /* the copy goes on after a short write */
        }
        uint64_t nth = 1;
        while (backup_with_fault(store, backup, fault, nth)) {
            nth++;
        }
        assert_true(nth > 1);
    }
    static const struct content empty;
    assert_true(store_equals(store, &empty));
    store_close(store);
    tmpdir_deinit(&tmpdir);
}

/* A reserve that cannot be written is said to be for want of room or a failing disk, and harms
 * nothing. */
static void test_reserve_faults(void **state)
{
    (void)state;
    struct tmpdir tmpdir;
    char path[TMPDIR_PATH_SIZE];
    tmpdir_init(&tmpdir);
    struct store *store = open_store(tmpdir_file(&tmpdir, "store.mdb", path), true);
    static const struct {
        int error;
        enum err_code code;
    } cases[] = {{EIO, ERR_IO}, {ENOSPC, ERR_NO_SPACE}, {IOTRAP_SHORT, ERR_NONE}};
    uint64_t size = 0;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        size += 1 << 20;
        iotrap_fail(&(struct iotrap_fault){
            .prefix = path, .kinds = IOTRAP_WRITE, .nth = 2, .error = cases[i].error});
        err_t err = store_reserve(store, size);
        assert_true(iotrap_fail_stop());
        assert_int_equal(err_code(err), cases[i].code);
        err_free(err);
        must(store_reserve(store, size));
        struct store_stats stats;
        store_stats(store, &stats);
        assert_int_equal(stats.reserve_size, size);
    }
    static const struct content empty;
    assert_true(store_equals(store, &empty));
    store_close(store);
    tmpdir_deinit(&tmpdir);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_power_failures), cmocka_unit_test(test_lying_disk_is_noticed),
        cmocka_unit_test(test_commit_faults),  cmocka_unit_test(test_create_faults),
        cmocka_unit_test(test_backup_faults),  cmocka_unit_test(test_reserve_faults),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
