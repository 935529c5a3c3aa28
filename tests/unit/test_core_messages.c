/* The way of a message: published, pulled, acknowledged, given back, and found again after every
 * kind of stop. Each test ends with a check of every stored row (core_fixture_deinit). */
#include "tests/lib/core_fixture.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>
#include <stdlib.h>

enum { TOPIC = 1, SHARD = 10, SUB = 100, OTHER_SUB = 101 };

static struct core_fixture fixture;

static int setup(void **state)
{
    core_fixture_init(&fixture, CORE_FIXTURE_MEMORY, NULL);
    core_fixture_topic(&fixture, TOPIC, SHARD, 1, NULL);
    core_fixture_sub(&fixture, SUB, TOPIC, NULL);
    *state = &fixture;
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    core_fixture_deinit(&fixture);
    return 0;
}

/* What is published is pulled once, in order, with its content, and is gone once acknowledged. */
static void publish_pull_ack(void **state)
{
    (void)state;
    core_fixture_fill(&fixture, TOPIC, SHARD, 3);
    core_fixture_commit(&fixture);
    assert_int_equal(core_fixture_pull(&fixture, SUB, 10), 3);
    for (uint32_t index = 0; index < 3; index++) {
        const struct delivery *delivery = reply_delivery(&fixture.reply, index);
        assert_int_equal(delivery->sequence, index);
        assert_int_equal(delivery->attempt, 1);
        assert_int_equal(delivery->published_ms, CORE_FIXTURE_START_MS);
    }
    struct span body = delivery_body(&fixture.reply, reply_delivery(&fixture.reply, 2));
    assert_true(span_is(body, "shard 10 message 2"));
    assert_int_equal(core_fixture_ack_all(&fixture, SUB), 3);
    core_fixture_commit(&fixture);
    assert_int_equal(core_fixture_pull(&fixture, SUB, 10), 0);
    core_fixture_restart(&fixture);
    assert_int_equal(core_fixture_pull(&fixture, SUB, 10), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(publish_pull_ack, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
