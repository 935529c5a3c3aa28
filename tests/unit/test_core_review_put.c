/* Topics and subscriptions are put again at each start. */
#include "tests/lib/core_fixture.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>
#include <string.h>

#include "tests/lib/fault.h"

enum { TOPIC = 1, SHARD = 10, SHARDS = 70, SUB = 100 };

static struct core_fixture fixture;

static int setup(void **state)
{
    core_fixture_init(&fixture, CORE_FIXTURE_MEMORY, NULL);
    *state = &fixture;
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    core_fixture_deinit(&fixture);
    return 0;
}

static void put_all(uint64_t retention_ms, bool paused)
{
    const struct topic_settings topic = {.retention_ms = retention_ms};
    const struct sub_settings sub = {.lease_ms = 1000, .paused = paused};
    core_fixture_topic(&fixture, TOPIC, SHARD, 2, &topic);
    core_fixture_sub(&fixture, SUB, TOPIC, &sub);
}

static bool is_dirty(void)
{
    return fixture.machine->ops->dirty(fixture.machine);
}

/* What is put as it was writes nothing, so that a start needs no room on a full disk; any setting
 * that differs is written. */
static void unchanged_is_not_written(void **state)
{
    (void)state;
    put_all(1000, false);
    core_fixture_advance(&fixture, 0);
    core_fixture_restart(&fixture);
    put_all(1000, false);
    assert_false(is_dirty());
    put_all(2000, false);
    assert_true(is_dirty());
    core_fixture_commit(&fixture);
    put_all(2000, true);
    assert_true(is_dirty());
    core_fixture_commit(&fixture);
    core_fixture_restart(&fixture);
    core_fixture_fill(&fixture, TOPIC, SHARD, 1);
    assert_int_equal(core_fixture_pull(&fixture, SUB, 1), 0);
}

/* Whichever allocation fails, nothing is left half made: after a load it works. */
static void any_allocation_fails(void **state)
{
    (void)state;
    struct shard_place places[SHARDS];
    for (uint32_t index = 0; index < SHARDS; index++) {
        places[index] = (struct shard_place){.shard_id = SHARD + index, .number = index};
    }
    struct command topic = {
        .type = COMMAND_TOPIC_PUT,
        .topic_put = {.topic_id = TOPIC, .shards = places, .shard_count = SHARDS},
    };
    struct command sub = {
        .type = COMMAND_SUB_PUT,
        .sub_put = {.sub_id = SUB, .topic_id = TOPIC, .settings = {.lease_ms = 1000}},
    };
    bool failed = true;
    for (uint64_t nth = 1; failed; nth++) {
        fault_alloc_nth(nth);
        err_t err = core_fixture_try(&fixture, &topic);
        if (err == NULL) {
            err = core_fixture_try(&fixture, &sub);
        }
        failed = fault_alloc_stop();
        if (err != NULL) {
            err_free(err);
            assert_null(core_fixture_try_reload(&fixture));
        }
    }
    core_fixture_fill(&fixture, TOPIC, SHARD + SHARDS - 1, 1);
    assert_int_equal(core_fixture_pull(&fixture, SUB, 1), 1);
}

static void expect_topics(const uint32_t *ids, size_t count)
{
    struct command command = {.type = COMMAND_STATS};
    core_fixture_apply(&fixture, &command, ERR_NONE);
    const struct shard_stats *rows = (const void *)fixture.reply.items.data;
    assert_int_equal(fixture.reply.items.size, count * sizeof *rows);
    for (size_t index = 0; index < count; index++) {
        assert_int_equal(rows[index].topic_id, ids[index]);
    }
}

/* Statistics list topics in order of id, whatever order they were made in, also after a removal and
 * after a start. */
static void topics_in_order(void **state)
{
    (void)state;
    static const uint32_t made[] = {30, 10, 50, 20, 40};
    for (size_t index = 0; index < 5; index++) {
        core_fixture_topic(&fixture, made[index], made[index], 1, NULL);
    }
    expect_topics((const uint32_t[]){10, 20, 30, 40, 50}, 5);
    struct command drop = {.type = COMMAND_TOPIC_DROP, .topic_drop = 30};
    core_fixture_apply(&fixture, &drop, ERR_NONE);
    core_fixture_advance(&fixture, 0);
    expect_topics((const uint32_t[]){10, 20, 40, 50}, 4);
    core_fixture_restart(&fixture);
    expect_topics((const uint32_t[]){10, 20, 40, 50}, 4);
}

/* Whoever waits for a subscription is told when it is dropped. */
static void dropped_is_woken(void **state)
{
    (void)state;
    const uint32_t id = SUB;
    put_all(0, false);
    core_fixture_commit(&fixture);
    buf_reset(&fixture.effects.woken);
    struct command command = {.type = COMMAND_TOPIC_DROP, .topic_drop = TOPIC};
    core_fixture_apply(&fixture, &command, ERR_NONE);
    assert_int_equal(fixture.effects.woken.size, sizeof id);
    assert_memory_equal(fixture.effects.woken.data, &id, sizeof id);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(unchanged_is_not_written, setup, teardown),
        cmocka_unit_test_setup_teardown(any_allocation_fails, setup, teardown),
        cmocka_unit_test_setup_teardown(topics_in_order, setup, teardown),
        cmocka_unit_test_setup_teardown(dropped_is_woken, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
