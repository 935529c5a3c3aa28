#include "storage/format.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "storage/memory.h"
#include "tests/lib/must.h"

static const struct format_marker sample = {.version = FORMAT_VERSION,
                                            .role = "volume",
                                            .number = 3,
                                            .identity = 0x0123456789abcdef,
                                            .created_ms = 1767225600000};

static int setup(void **state)
{
    struct store *store;
    must(memory_store_open(&store));
    *state = store;
    return 0;
}

static int teardown(void **state)
{
    store_close(*state);
    return 0;
}

static struct store_txn *begin(struct store *store)
{
    struct store_txn *txn;
    must(store_begin(store, STORE_WRITE, &txn));
    return txn;
}

static void write_sample(struct store *store)
{
    struct store_txn *txn = begin(store);
    must(format_write(txn, &sample));
    must(store_commit(txn));
}

/* Reads with the marker's record replaced by `record`; hands back the message, or "" when it was
 * accepted. */
static void read_as(struct store *store, struct span record, char *message, size_t size)
{
    struct store_txn *txn = begin(store);
    struct format_marker marker;
    must(store_put(txn, STORE_META, span_text("format"), record));
    err_t err = format_read(txn, &marker);
    message[0] = '\0';
    if (err != NULL) {
        assert_int_equal(err_code(err), ERR_FORMAT);
        strncat(message, err_message(err), size - 1);
    }
    err_free(err);
    store_abort(txn);
}

static size_t record_of(struct store *store, uint8_t *record)
{
    struct store_txn *txn = begin(store);
    struct span value;
    bool found;
    must(store_get(txn, STORE_META, span_text("format"), &value, &found));
    assert_true(found);
    memcpy(record, value.data, value.size);
    size_t size = value.size;
    store_abort(txn);
    return size;
}

/* What was written is read, in every field, also a role of the greatest length. */
static void test_round_trip(void **state)
{
    write_sample(*state);
    struct format_marker marker;
    struct store_txn *txn = begin(*state);
    must(format_read(txn, &marker));
    assert_memory_equal(&marker, &sample, sizeof sample);
    struct format_marker longest = sample;
    memcpy(longest.role, "fifteen letters", FORMAT_ROLE_MAX);
    must(format_write(txn, &longest));
    must(format_read(txn, &marker));
    assert_string_equal(marker.role, "fifteen letters");
    store_abort(txn);
}

/* An environment without a marker is not ours. */
static void test_missing(void **state)
{
    struct store_txn *txn = begin(*state);
    struct format_marker marker;
    err_t err = format_read(txn, &marker);
    assert_int_equal(err_code(err), ERR_FORMAT);
    err_free(err);
    store_abort(txn);
}

/* A marker with any bit changed, or of any other length, is refused. */
static void test_damage(void **state)
{
    write_sample(*state);
    uint8_t record[128] = {0};
    char message[200];
    size_t size = record_of(*state, record);
    assert_true(size < sizeof record);
    for (size_t bit = 0; bit < size * 8; bit++) {
        record[bit / 8] ^= (uint8_t)(1U << bit % 8);
        read_as(*state, span_of(record, size), message, sizeof message);
        assert_string_not_equal(message, "");
        record[bit / 8] ^= (uint8_t)(1U << bit % 8);
    }
    for (size_t other = 0; other <= size + 1; other++) {
        read_as(*state, span_of(record, other), message, sizeof message);
        assert_int_equal(message[0] == '\0', other == size);
    }
}

/* A newer format is refused by name, whatever the rest of its record looks like. */
static void test_newer(void **state)
{
    char message[200];
    static const uint8_t newer[] = {9, FORMAT_VERSION + 1, 0, 'x'};
    read_as(*state, span_of(newer, sizeof newer), message, sizeof message);
    assert_string_equal(message, "the data has format 3, this program knows formats up to 2");
}

/* ---- migrations ---- */

static char story[16];
static bool second_fails;

static err_t migrate_first(struct store_txn *txn)
{
    strcat(story, "1");
    TRY(store_put(txn, STORE_SUB, span_text("key"), span_text("first")));
    return NULL;
}

static err_t migrate_second(struct store_txn *txn)
{
    strcat(story, "2");
    struct span value;
    bool found;
    TRY(store_get(txn, STORE_SUB, span_text("key"), &value, &found));
    assert_true(found && span_is(value, "first"));
    TRY(store_put(txn, STORE_SUB, span_text("key"), span_text("second")));
    return second_fails ? ERR(IO, "injected fault") : NULL;
}

static const struct format_migration steps[] = {{101, "first", migrate_first},
                                                {102, "second", migrate_second}};
static const struct format_migrations both = {steps, 2};

static void expect_checked(struct store *store, enum err_code code)
{
    struct store_txn *txn;
    must(store_begin(store, STORE_READ, &txn));
    err_t err = format_check_with(txn, both);
    assert_int_equal(err_code(err), code);
    err_free(err);
    store_abort(txn);
}

/* Migrations run once each, in order; one that fails leaves nothing of itself and runs again the
 * next time. */
static void test_migrations(void **state)
{
    write_sample(*state);
    story[0] = '\0';
    second_fails = true;
    expect_checked(*state, ERR_FORMAT);
    err_t err = format_migrate_with(*state, both);
    assert_int_equal(err_code(err), ERR_IO);
    err_free(err);
    assert_string_equal(story, "12");
    struct store_txn *txn = begin(*state);
    struct span value;
    bool found;
    must(store_get(txn, STORE_SUB, span_text("key"), &value, &found));
    assert_true(span_is(value, "first"));
    store_abort(txn);
    expect_checked(*state, ERR_FORMAT);
    second_fails = false;
    must(format_migrate_with(*state, both));
    must(format_migrate_with(*state, both));
    assert_string_equal(story, "122");
    expect_checked(*state, ERR_NONE);
}

/* A migrated environment says the new format, so that older programs stay away. */
static void test_migration_raises_version(void **state)
{
    struct format_marker old = sample;
    old.version = 0;
    struct store_txn *txn = begin(*state);
    must(format_write(txn, &old));
    must(store_commit(txn));
    second_fails = false;
    story[0] = '\0';
    must(format_migrate_with(*state, both));
    struct format_marker marker;
    txn = begin(*state);
    must(format_read(txn, &marker));
    assert_memory_equal(&marker, &sample, sizeof sample);
    store_abort(txn);
}

/* A new environment needs none of this program's migrations. */
static void test_new_needs_no_migration(void **state)
{
    write_sample(*state);
    struct store_txn *txn = begin(*state);
    must(format_check(txn));
    store_abort(txn);
    must(format_migrate(*state));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_round_trip, setup, teardown),
        cmocka_unit_test_setup_teardown(test_missing, setup, teardown),
        cmocka_unit_test_setup_teardown(test_damage, setup, teardown),
        cmocka_unit_test_setup_teardown(test_newer, setup, teardown),
        cmocka_unit_test_setup_teardown(test_migrations, setup, teardown),
        cmocka_unit_test_setup_teardown(test_migration_raises_version, setup, teardown),
        cmocka_unit_test_setup_teardown(test_new_needs_no_migration, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
