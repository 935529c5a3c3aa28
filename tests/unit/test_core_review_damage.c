/* Damaged rows: what they held is reported, everything else goes on. */
#include "tests/lib/core_fixture.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

#include "broker/core/state.h"

enum { TOPIC = 1, SHARD = 10, SUB = 100, OTHER = 101 };

static struct core_fixture fixture;

static int setup(void **state)
{
    core_fixture_init(&fixture, CORE_FIXTURE_MEMORY, NULL);
    fixture.unchecked = true;
    core_fixture_topic(&fixture, TOPIC, SHARD, 1, NULL);
    core_fixture_sub(&fixture, SUB, TOPIC, NULL);
    core_fixture_sub(&fixture, OTHER, TOPIC, NULL);
    core_fixture_commit(&fixture);
    *state = &fixture;
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    core_fixture_deinit(&fixture);
    return 0;
}

/* Overwrites the `nth` row of a table, keys of `key_size` bytes only, with a byte. */
static void damage(enum store_table table, size_t key_size, uint32_t nth)
{
    struct store_txn *txn = NULL;
    struct store_cursor *cursor = NULL;
    bool found = false;
    uint8_t key[STORE_KEY_MAX];
    uint8_t value[65536];
    size_t size = 0;
    core_fixture_commit(&fixture);
    assert_null(store_begin(fixture.store, STORE_WRITE, &txn));
    assert_null(store_cursor_open(txn, table, &cursor));
    assert_null(store_cursor_seek(cursor, span_of("", 0), &found));
    while (found && (cursor->key.size != key_size || nth-- > 0)) {
        assert_null(store_cursor_next(cursor, &found));
    }
    assert_true(found);
    size = cursor->value.size;
    memcpy(key, cursor->key.data, key_size);
    memset(value, 0xa5, size);
    store_cursor_close(cursor);
    assert_null(store_put(txn, table, span_of(key, key_size), span_of(value, size)));
    assert_null(store_commit(txn));
}

/* A seek to a time leaves out nothing from that time on because a message among it is damaged. */
static void damage_in_a_search(void **state)
{
    (void)state;
    uint64_t first_ms = fixture.now_ms;
    for (uint32_t batch = 0; batch < 5; batch++) {
        core_fixture_fill(&fixture, TOPIC, SHARD, 1);
        core_fixture_commit(&fixture);
        fixture.now_ms += 1000;
    }
    damage(STORE_LOG, 6, 2);
    struct command command = {
        .type = COMMAND_SEEK,
        .seek = {.sub_id = SUB, .to = START_TIME, .value = first_ms},
    };
    core_fixture_apply(&fixture, &command, ERR_NONE);
    assert_int_equal(core_fixture_drain(&fixture, SUB), 4);
}

/* Damaged delivery state of one subscription stops neither another one of the same messages, nor
 * the statistics, nor its own deletion. */
static void damaged_chunk(void **state)
{
    (void)state;
    core_fixture_fill(&fixture, TOPIC, SHARD, 10);
    assert_int_equal(core_fixture_pull(&fixture, SUB, 5), 5);
    core_fixture_commit(&fixture);
    damage(STORE_DELIVERY, 16, 0);
    core_fixture_restart(&fixture);
    assert_int_equal(core_fixture_drain(&fixture, OTHER), 10);
    core_fixture_commit(&fixture);
    assert_int_equal(core_fixture_stats(&fixture, OTHER).enqueued, 0);
    struct command command = {.type = COMMAND_SUB_DROP, .sub_drop = SUB};
    core_fixture_apply(&fixture, &command, ERR_NONE);
    core_fixture_advance(&fixture, 60000);
    assert_int_equal(core_fixture_entries(&fixture, STORE_SUB), 1);
    assert_true(fixture.effects.corrupt > 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(damage_in_a_search, setup, teardown),
        cmocka_unit_test_setup_teardown(damaged_chunk, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
