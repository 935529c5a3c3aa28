#include "tests/lib/pulls.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

const struct sub_settings pulls_usual = {.lease_ms = 30000, .max_attempts = 3};

void pulls_open_with(struct volumes *volumes, struct volumes_options options, uint32_t shards)
{
    volumes_open(volumes, &options);
    assert_int_equal(volumes_put_topic(volumes, "t", shards), ERR_NONE);
    assert_int_equal(volumes_put_sub(volumes, "t", "s", &pulls_usual), ERR_NONE);
}

void pulls_open(struct volumes *volumes, uint32_t count)
{
    pulls_open_with(volumes, (struct volumes_options){.count = count}, count * 2);
}

void pulls_start(struct volumes *volumes, struct volumes_pull *pull, uint64_t wait_ms)
{
    volumes_pull_start(volumes, pull, "t", "s", 1, wait_ms);
}

void pulls_start_waiting(struct volumes *volumes, struct volumes_pull *pull)
{
    uint32_t waiting = router_waiting(volumes->router);
    pulls_start(volumes, pull, PULLS_WAIT_MS);
    while (router_waiting(volumes->router) == waiting) {
        volumes_turn(volumes);
    }
}

struct receipt pulls_expect_one(struct volumes *volumes, struct volumes_pull *pull)
{
    struct receipt receipt;
    volumes_await(volumes, &pull->done);
    assert_int_equal(pull->pull.operation.result.code, ERR_NONE);
    assert_int_equal(volumes_pull_count(pull), 1);
    assert_int_equal(volumes_pull_receipts(pull, &receipt, 1), 1);
    volumes_pull_free(pull);
    return receipt;
}

void pulls_expect_each_one(struct volumes *volumes, struct volumes_pull *pulls, uint32_t count)
{
    struct receipt *receipts = calloc(count, sizeof *receipts);
    assert_non_null(receipts);
    for (uint32_t index = 0; index < count; index++) {
        receipts[index] = pulls_expect_one(volumes, &pulls[index]);
    }
    /* Every one can be acknowledged: no message was given twice. */
    volumes_settle(volumes, ROUTER_ACK, "t", "s", receipts, count);
    free(receipts);
    assert_int_equal(volumes_drain_sub(volumes, "t", "s"), 0);
}

void pulls_expect_code(struct volumes *volumes, struct volumes_pull *pull, enum err_code code)
{
    volumes_await(volumes, &pull->done);
    assert_int_equal(pull->pull.operation.result.code, code);
    assert_int_equal(volumes_pull_count(pull), 0);
    volumes_pull_free(pull);
}

void pulls_publish(struct volumes *volumes)
{
    (void)volumes_publish(volumes, "t", volumes_message("", "body"));
}

void pulls_publish_on(struct volumes *volumes, uint32_t volume)
{
    const char *key = volumes_key_on(volumes, "t", volume, 0);
    (void)volumes_publish(volumes, "t", volumes_message(key, "body"));
}

void pulls_start_held_of(struct volumes *volumes, struct volumes_pull *pull, uint32_t volume,
                         const char *sub)
{
    volumes_quiesce(volumes);
    volumes_hold(volumes, volume);
    volumes_pull_start(volumes, pull, "t", sub, 10, PULLS_WAIT_MS);
    volumes_turn_until_held(volumes, volume);
}

void pulls_start_held(struct volumes *volumes, struct volumes_pull *pull, uint32_t volume)
{
    pulls_start_held_of(volumes, pull, volume, "s");
}
