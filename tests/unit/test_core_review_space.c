/* Space comes back, and goes on coming back under load: each batch of work is followed by one TICK,
 * as a volume that is never idle does it. */
#include "tests/lib/core_fixture.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>

#include "broker/base/bytes.h"
#include "broker/core/state.h"

enum { TOPIC = 1, SHARD = 10, SUB = 100, OTHER = 101, TICK_BUDGET = 4096 };

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

static void tick(uint32_t budget)
{
    struct command command = {.type = COMMAND_TICK, .tick = {.budget = budget}};
    core_fixture_apply(&fixture, &command, ERR_NONE);
}

/* ---- under load ----------------------------------------------------------------------------- */

/* The log of a shard whose messages are acknowledged as fast as they come stays small although the
 * volume is never idle. */
static void log_shrinks_under_load(void **state)
{
    enum { BATCHES = 40, MESSAGES = 16, SIZE = 512 * 1024 };
    (void)state;
    core_fixture_topic(&fixture, TOPIC, SHARD, 1, NULL);
    core_fixture_sub(&fixture, SUB, TOPIC, NULL);
    core_fixture_commit(&fixture);
    for (uint32_t batch = 0; batch < BATCHES; batch++) {
        tick(TICK_BUDGET);
        for (uint32_t index = 0; index < MESSAGES; index++) {
            core_fixture_publish_sized(&fixture, TOPIC, SHARD, SIZE);
        }
        assert_int_equal(core_fixture_drain(&fixture, SUB), MESSAGES);
        core_fixture_commit(&fixture);
    }
    uint64_t left = core_fixture_entries(&fixture, STORE_SEGMENT);
    assert_true(left <= 40);
}

/* Idempotency keys whose window has passed do not pile up while each batch brings new ones. */
static void keys_expire_under_load(void **state)
{
    enum { BATCHES = 60, MESSAGES = 200, WINDOW_MS = 1000 };
    (void)state;
    const struct topic_settings settings = {.dedup_window_ms = WINDOW_MS};
    core_fixture_topic(&fixture, TOPIC, SHARD, 1, &settings);
    for (uint32_t batch = 0; batch < BATCHES; batch++) {
        fixture.now_ms += WINDOW_MS / 4;
        tick(TICK_BUDGET);
        for (uint32_t index = 0; index < MESSAGES; index++) {
            char key[32];
            int size = snprintf(key, sizeof key, "%u/%u", batch, index);
            const struct message_in message = {.shard_id = SHARD,
                                               .idempotency_key = span_of(key, (size_t)size)};
            assert_int_equal(core_fixture_publish(&fixture, TOPIC, &message), ERR_NONE);
        }
        core_fixture_commit(&fixture);
    }
    uint64_t left = core_fixture_entries(&fixture, STORE_DEDUP);
    assert_true(left <= 6 * MESSAGES);
}

/* ---- sweeps --------------------------------------------------------------------------------- */

static void seek(enum start_at to)
{
    struct command command = {.type = COMMAND_SEEK, .seek = {.sub_id = SUB, .to = to}};
    core_fixture_apply(&fixture, &command, ERR_NONE);
}

/* Two skips from the same place, the second before the first has been worked off, survive a stop
 * in between: everything they passed is released. */
static void skips_from_one_place(void **state)
{
    (void)state;
    core_fixture_topic(&fixture, TOPIC, SHARD, 1, NULL);
    core_fixture_sub(&fixture, SUB, TOPIC, NULL);
    core_fixture_sub(&fixture, OTHER, TOPIC, NULL);
    core_fixture_fill(&fixture, TOPIC, SHARD, 100);
    seek(START_LATEST);
    seek(START_EARLIEST);
    core_fixture_fill(&fixture, TOPIC, SHARD, 100);
    seek(START_LATEST);
    assert_int_equal(core_fixture_drain(&fixture, OTHER), 200);
    core_fixture_commit(&fixture);
    tick(1); /* one step: the first skip is worked off */
    core_fixture_commit(&fixture);
    core_fixture_restart(&fixture);
    core_fixture_advance(&fixture, 0); /* what is still needed then is checked at the end */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(log_shrinks_under_load, setup, teardown),
        cmocka_unit_test_setup_teardown(keys_expire_under_load, setup, teardown),
        cmocka_unit_test_setup_teardown(skips_from_one_place, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
