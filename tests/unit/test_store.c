/* The conformance suite of the store: the same cases over both bodies. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>

#include "broker/base/random.h"
#include "storage/lmdb.h"
#include "storage/memory.h"
#include "storage/store.h"
#include "tests/lib/must.h"
#include "tests/lib/tmpdir.h"

/* ---- the two bodies ---- */

struct body {
    struct tmpdir tmpdir;
    struct store *store;
};

static int open_memory(void **state)
{
    struct body *body = calloc(1, sizeof *body);
    must(memory_store_open(&body->store));
    *state = body;
    return 0;
}

static int open_lmdb(void **state)
{
    struct body *body = calloc(1, sizeof *body);
    tmpdir_init(&body->tmpdir);
    char path[TMPDIR_PATH_SIZE];
    must(lmdb_store_open(
        &(struct lmdb_options){.path = tmpdir_file(&body->tmpdir, "store.mdb", path),
                               .map_size = 64U << 20,
                               .create = true,
                               .role = "volume"},
        &body->store));
    *state = body;
    return 0;
}

static int close_body(void **state)
{
    struct body *body = *state;
    store_close(body->store);
    tmpdir_deinit(&body->tmpdir);
    free(body);
    return 0;
}

static struct store *store_in(void **state)
{
    return ((struct body *)*state)->store;
}

/* ---- helpers: one line for one call ---- */

static struct store_txn *begin(struct store *store, enum store_mode mode)
{
    struct store_txn *txn;
    must(store_begin(store, mode, &txn));
    return txn;
}

static void put(struct store_txn *txn, const char *key, const char *value)
{
    must(store_put(txn, STORE_LOG, span_text(key), span_text(value)));
}

static void expect_get(struct store_txn *txn, enum store_table table, const char *key,
                       const char *value)
{
    struct span out;
    bool found;
    must(store_get(txn, table, span_text(key), &out, &found));
    assert_int_equal(found, value != NULL);
    if (value != NULL) {
        assert_true(span_is(out, value));
    }
}

static bool removed(struct store_txn *txn, const char *key)
{
    bool found;
    must(store_remove(txn, STORE_LOG, span_text(key), &found));
    return found;
}

static void expect_at(struct store_cursor *cursor, bool found, const char *key)
{
    assert_int_equal(found, key != NULL);
    if (key == NULL) {
        assert_int_equal(cursor->key.size, 0);
    } else {
        assert_true(span_is(cursor->key, key));
    }
}

static void expect_seek(struct store_cursor *cursor, const char *from, const char *key)
{
    bool found;
    must(store_cursor_seek(cursor, span_text(from), &found));
    expect_at(cursor, found, key);
}

static void expect_step(struct store_cursor *cursor, err_t (*step)(struct store_cursor *, bool *),
                        const char *key)
{
    bool found;
    must(step(cursor, &found));
    expect_at(cursor, found, key);
}

static uint64_t entries(struct store_txn *txn, enum store_table table)
{
    uint64_t count;
    must(store_entries(txn, table, &count));
    return count;
}

/* ---- cases ---- */

/* What was put is found with its last value, in its own transaction and after the commit; nothing
 * else is. */
static void test_put_get(void **state)
{
    struct store_txn *txn = begin(store_in(state), STORE_WRITE);
    put(txn, "a", "1");
    put(txn, "b", "");
    put(txn, "a", "a longer value than before");
    expect_get(txn, STORE_LOG, "a", "a longer value than before");
    must(store_commit(txn));
    txn = begin(store_in(state), STORE_READ);
    expect_get(txn, STORE_LOG, "a", "a longer value than before");
    expect_get(txn, STORE_LOG, "b", "");
    expect_get(txn, STORE_LOG, "c", NULL);
    expect_get(txn, STORE_META, "a", NULL);
    assert_int_equal(entries(txn, STORE_LOG), 2);
    store_abort(txn);
}

/* Every table is its own: the same key holds another value in each. */
static void test_tables_are_apart(void **state)
{
    struct store_txn *txn = begin(store_in(state), STORE_WRITE);
    for (unsigned table = 0; table < STORE_TABLE_COUNT; table++) {
        char value[8];
        snprintf(value, sizeof value, "%u", table);
        must(store_put(txn, table, span_text("key"), span_text(value)));
    }
    must(store_commit(txn));
    txn = begin(store_in(state), STORE_READ);
    for (unsigned table = 0; table < STORE_TABLE_COUNT; table++) {
        char value[8];
        snprintf(value, sizeof value, "%u", table);
        expect_get(txn, table, "key", value);
    }
    store_abort(txn);
}

/* An abort takes back inserts, replacements and removals. */
static void test_abort(void **state)
{
    struct store_txn *txn = begin(store_in(state), STORE_WRITE);
    put(txn, "kept", "1");
    put(txn, "gone", "2");
    must(store_commit(txn));
    txn = begin(store_in(state), STORE_WRITE);
    put(txn, "kept", "changed");
    put(txn, "kept", "changed again");
    put(txn, "new", "3");
    assert_true(removed(txn, "gone"));
    assert_true(removed(txn, "new"));
    put(txn, "gone", "back");
    store_abort(txn);
    txn = begin(store_in(state), STORE_READ);
    expect_get(txn, STORE_LOG, "kept", "1");
    expect_get(txn, STORE_LOG, "gone", "2");
    expect_get(txn, STORE_LOG, "new", NULL);
    assert_int_equal(entries(txn, STORE_LOG), 2);
    store_abort(txn);
}

/* Removing tells whether the key was there, and may be asked without wanting to know. */
static void test_remove(void **state)
{
    struct store_txn *txn = begin(store_in(state), STORE_WRITE);
    assert_false(removed(txn, "a"));
    put(txn, "a", "1");
    assert_true(removed(txn, "a"));
    assert_false(removed(txn, "a"));
    must(store_remove(txn, STORE_LOG, span_text("a"), NULL));
    expect_get(txn, STORE_LOG, "a", NULL);
    assert_int_equal(entries(txn, STORE_LOG), 0);
    must(store_commit(txn));
}

/* Keys of 1 to STORE_KEY_MAX bytes are taken, others refused as invalid; a refused change leaves
 * only the abort. */
static void test_key_sizes(void **state)
{
    static const uint8_t bytes[STORE_KEY_MAX + 1] = {1};
    static const struct {
        size_t size;
        enum err_code code;
    } cases[] = {{0, ERR_INVALID},
                 {1, ERR_NONE},
                 {STORE_KEY_MAX - 1, ERR_NONE},
                 {STORE_KEY_MAX, ERR_NONE},
                 {STORE_KEY_MAX + 1, ERR_INVALID}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct store_txn *txn = begin(store_in(state), STORE_WRITE);
        struct span key = span_of(bytes, cases[i].size);
        struct span value;
        bool found;
        must_fail(store_get(txn, STORE_LOG, key, &value, &found), cases[i].code);
        must_fail(store_put(txn, STORE_LOG, key, span_text("v")), cases[i].code);
        store_abort(txn);
        txn = begin(store_in(state), STORE_WRITE);
        must_fail(store_remove(txn, STORE_LOG, key, NULL), cases[i].code);
        store_abort(txn);
    }
}

/* Keys are ordered by memcmp, a prefix before what it begins; a cursor steps through them both
 * ways. */
static void test_cursor_order(void **state)
{
    static const char *const sorted[] = {"a", "a\x01", "aaaaaaaa", "aaaaaaaab", "aaaaaaaac", "ab",
                                         "b", "\x7f",  "\x80",     "\xff",      "\xff\xff"};
    enum { COUNT = sizeof sorted / sizeof sorted[0] };
    struct store_txn *txn = begin(store_in(state), STORE_WRITE);
    for (size_t i = 0; i < COUNT; i++) {
        put(txn, sorted[(i * 7) % COUNT], "v");
    }
    struct store_cursor *cursor;
    must(store_cursor_open(txn, STORE_LOG, &cursor));
    expect_seek(cursor, "", sorted[0]);
    for (size_t i = 1; i < COUNT; i++) {
        expect_step(cursor, store_cursor_next, sorted[i]);
    }
    expect_step(cursor, store_cursor_next, NULL);
    expect_step(cursor, store_cursor_next, NULL);
    expect_step(cursor, store_cursor_last, sorted[COUNT - 1]);
    for (size_t i = COUNT - 1; i > 0; i--) {
        expect_step(cursor, store_cursor_prev, sorted[i - 1]);
    }
    expect_step(cursor, store_cursor_prev, NULL);
    store_cursor_close(cursor);
    store_abort(txn);
}

/* A seek stands on the key, or the first one after it, or nowhere. */
static void test_cursor_seek(void **state)
{
    struct store_txn *txn = begin(store_in(state), STORE_WRITE);
    struct store_cursor *cursor;
    must(store_cursor_open(txn, STORE_LOG, &cursor));
    expect_seek(cursor, "", NULL);
    expect_seek(cursor, "b", NULL);
    expect_step(cursor, store_cursor_last, NULL);
    put(txn, "b", "1");
    put(txn, "d", "2");
    expect_seek(cursor, "a", "b");
    assert_true(span_is(cursor->value, "1"));
    expect_seek(cursor, "b", "b");
    expect_seek(cursor, "c", "d");
    assert_true(span_is(cursor->value, "2"));
    expect_seek(cursor, "e", NULL);
    static const uint8_t bytes[STORE_KEY_MAX + 1] = {1};
    bool found;
    must_fail(store_cursor_seek(cursor, span_of(bytes, sizeof bytes), &found), ERR_INVALID);
    store_cursor_close(cursor);
    store_cursor_close(NULL);
    store_abort(txn);
}

/* After a change a cursor finds its way again by seeking, whatever the change did to the entries
 * around it. */
static void test_cursor_between_changes(void **state)
{
    struct store_txn *txn = begin(store_in(state), STORE_WRITE);
    for (int i = 0; i < 2000; i++) {
        char key[16];
        snprintf(key, sizeof key, "%04d", i);
        put(txn, key, "some value that fills the pages");
    }
    struct store_cursor *cursor;
    must(store_cursor_open(txn, STORE_LOG, &cursor));
    for (int i = 0; i < 2000; i += 2) {
        char key[16];
        char next[16];
        snprintf(key, sizeof key, "%04d", i);
        snprintf(next, sizeof next, "%04d", i + 1);
        expect_seek(cursor, key, key);
        assert_true(removed(txn, key));
        expect_seek(cursor, key, next);
        put(txn, next, "a value that is quite a bit longer than the one which was there before");
        expect_seek(cursor, key, next);
    }
    store_cursor_close(cursor);
    assert_int_equal(entries(txn, STORE_LOG), 1000);
    store_abort(txn);
}

/* Appending takes greater keys only: the same, a lesser one or a replacement is invalid and changes
 * nothing. */
static void test_append(void **state)
{
    static const struct {
        const char *key;
        enum err_code code;
    } cases[] = {{"b", ERR_NONE},     {"b", ERR_INVALID}, {"a", ERR_INVALID},
                 {"b\x01", ERR_NONE}, {"b", ERR_INVALID}, {"c", ERR_NONE}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct store_txn *txn = begin(store_in(state), STORE_WRITE);
        must_fail(store_append(txn, STORE_LOG, span_text(cases[i].key), span_text("v")),
                  cases[i].code);
        if (cases[i].code == ERR_NONE) {
            must(store_commit(txn));
        } else {
            store_abort(txn);
        }
    }
    struct store_txn *txn = begin(store_in(state), STORE_READ);
    assert_int_equal(entries(txn, STORE_LOG), 3);
    store_abort(txn);
}

/* Values of every size come back whole, also those larger than a page, beside many appended small
 * ones. */
static void test_value_sizes(void **state)
{
    static const size_t sizes[] = {0, 1, 100, 2000, 2047, 4000, 4096, 4097, 65536, 1U << 20};
    uint8_t *bytes = malloc(1U << 20);
    for (size_t i = 0; i < 1U << 20; i++) {
        bytes[i] = (uint8_t)(i * 31 >> 3);
    }
    struct store_txn *txn = begin(store_in(state), STORE_WRITE);
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        uint8_t key = (uint8_t)i;
        must(store_append(txn, STORE_LOG, span_of(&key, 1), span_of(bytes, sizes[i])));
    }
    must(store_commit(txn));
    txn = begin(store_in(state), STORE_READ);
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        uint8_t key = (uint8_t)i;
        struct span value;
        bool found;
        must(store_get(txn, STORE_LOG, span_of(&key, 1), &value, &found));
        assert_true(found);
        assert_true(span_equal(value, span_of(bytes, sizes[i])));
    }
    store_abort(txn);
    free(bytes);
}

/* The figures follow the commits. */
static void test_stats(void **state)
{
    struct store_stats before;
    struct store_stats after;
    store_stats(store_in(state), &before);
    struct store_txn *txn = begin(store_in(state), STORE_WRITE);
    char value[1000];
    memset(value, 'v', sizeof value);
    for (uint8_t i = 1; i <= 100; i++) {
        must(store_append(txn, STORE_LOG, span_of(&i, 1), span_of(value, sizeof value)));
    }
    must(store_commit(txn));
    store_stats(store_in(state), &after);
    assert_int_equal(after.commit_count, before.commit_count + 1);
    assert_true(after.used_size >= before.used_size + 100 * sizeof value);
    assert_true(after.file_size >= after.used_size);
    assert_true(after.map_size >= after.file_size);
    assert_int_equal(after.reader_age_ms, 0);
}

/* ---- against a plain model ---- */

enum { MODEL_KEYS = 1500, MODEL_ROUNDS = 150, MODEL_STEPS = 80 };

/* Key i is in the table when values[i] is not 0, which is then its value. */
struct model {
    uint32_t values[MODEL_KEYS];
};

static struct span model_key(uint32_t i, char key[16])
{
    /* Of different lengths, in the order of i. */
    int size = snprintf(key, 16, "k%05u%.*s", i, (int)(i % 4), "xyz");
    return span_of(key, (size_t)size);
}

static void model_check(struct store_txn *txn, const struct model *model)
{
    struct store_cursor *cursor;
    must(store_cursor_open(txn, STORE_DUE, &cursor));
    bool found;
    must(store_cursor_seek(cursor, span_of(NULL, 0), &found));
    uint64_t count = 0;
    for (uint32_t i = 0; i < MODEL_KEYS; i++) {
        if (model->values[i] != 0) {
            char key[16];
            assert_true(found);
            assert_true(span_equal(cursor->key, model_key(i, key)));
            assert_true(cursor->value.size >= sizeof model->values[i]);
            assert_memory_equal(cursor->value.data, &model->values[i], sizeof model->values[i]);
            must(store_cursor_next(cursor, &found));
            count++;
        }
    }
    assert_false(found);
    store_cursor_close(cursor);
    assert_int_equal(entries(txn, STORE_DUE), count);
}

static void model_step(struct store_txn *txn, struct model *model, struct random *random)
{
    static uint8_t value[600];
    char key[16];
    uint32_t i = (uint32_t)random_below(random, MODEL_KEYS);
    struct span span = model_key(i, key);
    bool found;
    if (random_chance(random, 2, 5)) {
        must(store_remove(txn, STORE_DUE, span, &found));
        assert_int_equal(found, model->values[i] != 0);
        model->values[i] = 0;
        return;
    }
    model->values[i] = 1 + (uint32_t)random_below(random, UINT32_MAX - 1);
    memcpy(value, &model->values[i], sizeof model->values[i]);
    size_t size = sizeof model->values[i] + random_below(random, sizeof value - 4);
    must(store_put(txn, STORE_DUE, span, span_of(value, size)));
    struct span out;
    must(store_get(txn, STORE_DUE, span, &out, &found));
    assert_true(found && span_equal(out, span_of(value, size)));
}

/* Random transactions, a third of them aborted, leave the table as a plain array says. */
static void test_model(void **state)
{
    struct random random;
    random_init(&random, 7);
    static struct model model;
    memset(&model, 0, sizeof model);
    for (int round = 0; round < MODEL_ROUNDS; round++) {
        struct model before = model;
        struct store_txn *txn = begin(store_in(state), STORE_WRITE);
        /* Now and then a range goes at once, so that blocks and pages become empty. */
        uint32_t from = (uint32_t)random_below(&random, MODEL_KEYS);
        for (uint32_t i = from; round % 10 == 0 && i < from + 300 && i < MODEL_KEYS; i++) {
            char key[16];
            must(store_remove(txn, STORE_DUE, model_key(i, key), NULL));
            model.values[i] = 0;
        }
        for (int step = 0; step < MODEL_STEPS; step++) {
            model_step(txn, &model, &random);
        }
        model_check(txn, &model);
        if (random_chance(&random, 1, 3)) {
            store_abort(txn);
            model = before;
        } else {
            must(store_commit(txn));
        }
        txn = begin(store_in(state), STORE_READ);
        model_check(txn, &model);
        store_abort(txn);
    }
}

/* ---- memory only ---- */

/* A commit made to fail gives its code, changes nothing, and works again afterwards. */
static void test_memory_fail_commits(void **state)
{
    struct store *store = store_in(state);
    memory_store_fail_commits(store, ERR_NO_SPACE);
    for (int i = 0; i < 2; i++) {
        struct store_txn *txn = begin(store, STORE_WRITE);
        put(txn, "a", "1");
        must_fail(store_commit(txn), ERR_NO_SPACE);
    }
    memory_store_fail_commits(store, ERR_NONE);
    struct store_txn *txn = begin(store, STORE_WRITE);
    expect_get(txn, STORE_LOG, "a", NULL);
    put(txn, "a", "2");
    must(store_commit(txn));
}

/* One transaction of every call that can fail; what it did not finish is taken back. */
static err_t scripted(struct store *store)
{
    struct store_txn *txn;
    struct store_cursor *cursor = NULL;
    struct span value;
    bool found;
    uint64_t count;
    err_t err = NULL;
    TRY(store_begin(store, STORE_WRITE, &txn));
    TRY_OUT(store_get(txn, STORE_LOG, span_text("a"), &value, &found));
    TRY_OUT(store_put(txn, STORE_LOG, span_text("a"), span_text("1")));
    TRY_OUT(store_append(txn, STORE_LOG, span_text("b"), span_text("2")));
    TRY_OUT(store_cursor_open(txn, STORE_LOG, &cursor));
    TRY_OUT(store_cursor_seek(cursor, span_text("a"), &found));
    TRY_OUT(store_cursor_next(cursor, &found));
    TRY_OUT(store_cursor_last(cursor, &found));
    TRY_OUT(store_cursor_prev(cursor, &found));
    TRY_OUT(store_entries(txn, STORE_LOG, &count));
    TRY_OUT(store_remove(txn, STORE_LOG, span_text("b"), NULL));
out:
    store_cursor_close(cursor);
    if (err == NULL) {
        TRY(store_commit(txn));
        return NULL;
    }
    store_abort(txn);
    return err;
}

/* Whichever call fails, the error comes out and nothing has changed. */
static void test_memory_fail_call(void **state)
{
    struct store *store = store_in(state);
    enum { CALLS = 12 };
    for (uint64_t n = 1; n <= CALLS; n++) {
        memory_store_fail_call(store, n);
        must_fail(scripted(store), ERR_IO);
        struct store_txn *txn = begin(store, STORE_READ);
        assert_int_equal(entries(txn, STORE_LOG), 0);
        store_abort(txn);
    }
    memory_store_fail_call(store, CALLS + 1);
    must(scripted(store));
}

/* Memory has no file to copy, and says so. */
static void test_memory_backup(void **state)
{
    must_fail(store_backup(store_in(state), "/nowhere"), ERR_NOT_IMPLEMENTED);
    must(store_grow(store_in(state)));
    must(store_reserve(store_in(state), 1));
    must(store_maintain(store_in(state)));
}

#define BOTH(name)                                                                                 \
    {"memory: " #name, name, open_memory, close_body, NULL},                                       \
    {                                                                                              \
        "lmdb: " #name, name, open_lmdb, close_body, NULL                                          \
    }
#define MEMORY(name) cmocka_unit_test_setup_teardown(name, open_memory, close_body)

int main(void)
{
    const struct CMUnitTest tests[] = {
        BOTH(test_put_get),
        BOTH(test_tables_are_apart),
        BOTH(test_abort),
        BOTH(test_remove),
        BOTH(test_key_sizes),
        BOTH(test_cursor_order),
        BOTH(test_cursor_seek),
        BOTH(test_cursor_between_changes),
        BOTH(test_append),
        BOTH(test_value_sizes),
        BOTH(test_stats),
        BOTH(test_model),
        MEMORY(test_memory_fail_commits),
        MEMORY(test_memory_fail_call),
        MEMORY(test_memory_backup),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
